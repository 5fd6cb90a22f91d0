"""Routes: the pages of the site, accounts, and the admin."""

from django.contrib import admin
from django.conf import settings
from django.urls import include, path

from rest_framework_simplejwt import views as tokens

from shop import api, views

ACCOUNTS = "allauth.urls" if settings.ALLAUTH else "django.contrib.auth.urls"

urlpatterns = [
    path("", views.home),
    path("whoami", views.whoami),
    path("write", views.write),
    path("cart", views.cart),
    path("slow", views.slow),
    path("stream", views.stream),
    path("upload", views.upload),
    path("ops/sessions", views.live_sessions),
    path("ops/expire", views.expire),
    path("api/token/", tokens.TokenObtainPairView.as_view()),
    path("api/token/refresh/", tokens.TokenRefreshView.as_view()),
    path("api/token/blacklist/", tokens.TokenBlacklistView.as_view()),
    path("api/me/", api.Me.as_view()),
    path("basic/me/", api.BasicMe.as_view()),
    path("accounts/", include(ACCOUNTS)),
    path("admin/", admin.site.urls),
]
