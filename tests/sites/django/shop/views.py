"""Pages that show what the app knows about the one who asks."""

import time
from pathlib import Path

from django.conf import settings
from django.contrib.auth import SESSION_KEY, get_user_model
from django.contrib.sessions.models import Session
from django.http import HttpResponse, JsonResponse, StreamingHttpResponse
from django.utils import timezone
from django.views.decorators.csrf import csrf_exempt


def name_of(request):
    """The name of the signed-in user, or None."""
    return request.user.get_username() if request.user.is_authenticated else None


def home(request):
    """The page people look at."""
    name = name_of(request)
    text = f"user: {name}" if name else "anonymous"
    return HttpResponse(f"<!doctype html><title>Shop</title><p>{text}</p>")


def whoami(request):
    """What arrived, word for word."""
    return JsonResponse(
        {
            "user": name_of(request),
            "cookies": request.META.get("HTTP_COOKIE", ""),
            "session_key": request.session.session_key,
            "path": request.get_full_path(),
            "host": request.get_host(),
        }
    )


def write(request):
    """Writes to the session of whoever asks; the session cookie is sent again."""
    request.session["writes"] = request.session.get("writes", 0) + 1
    return JsonResponse({"user": name_of(request), "writes": request.session["writes"]})


def cart(request):
    """An anonymous visitor's session."""
    request.session["cart"] = request.session.get("cart", 0) + 1
    return JsonResponse({"user": name_of(request), "cart": request.session["cart"]})


def slow(request):
    """Answers after ?ms= milliseconds and then writes to the session, as slow reports do.

    ?mark=NAME makes a file of that name when the request is here.
    """
    name = name_of(request)
    request.session.get("slow")  # loaded before the wait, saved after it
    if "mark" in request.GET:
        (settings.SITE_DIR / Path(request.GET["mark"]).name).touch()
    time.sleep(int(request.GET.get("ms", "1000")) / 1000)
    request.session["slow"] = True
    return JsonResponse({"user": name})


def stream(request):
    """A tick every 100 ms, ?ticks= of them, as server-sent events."""

    def ticks():
        for count in range(int(request.GET.get("ticks", "600"))):
            yield f"data: {count}\n\n"
            time.sleep(0.1)

    return StreamingHttpResponse(ticks(), content_type="text/event-stream")


@csrf_exempt
def upload(request):
    """How much was sent."""
    return JsonResponse({"user": name_of(request), "size": len(request.body)})


def live_sessions(request):
    """How many sessions of ?user= the site itself would accept. Only asked past the proxy."""
    user = get_user_model().objects.get_by_natural_key(request.GET["user"])
    if settings.ENGINE in ("db", "cached_db"):
        stores = (session.get_decoded() for session in Session.objects.all())
    elif settings.ENGINE == "file":
        stores = (stored_in_file(path) for path in settings.SESSION_FILE_PATH.iterdir())
    else:
        return JsonResponse({"error": "this engine cannot list its sessions"}, status=501)
    return JsonResponse({"count": sum(data.get(SESSION_KEY) == str(user.pk) for data in stores)})


def expire(request):
    """Lets the sessions of ?user= run out, as time does. Only asked past the proxy."""
    user = get_user_model().objects.get_by_natural_key(request.GET["user"])
    for session in Session.objects.all():
        if session.get_decoded().get(SESSION_KEY) == str(user.pk):
            session.expire_date = timezone.now()
            session.save()
    return HttpResponse()


def stored_in_file(path):
    """The content of one session file; one that is being removed is empty."""
    from django.contrib.sessions.backends.file import SessionStore

    try:
        return SessionStore().decode(path.read_text())
    except OSError:
        return {}
