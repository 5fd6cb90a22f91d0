"""Makes the site's database: tables and users. The password of NAME is secret-NAME.

alice … heidi and user0 … user1999 are ordinary people, root and staff0 … staff49 superusers.
"""

import os
import sqlite3

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")
django.setup()

from django.conf import settings  # noqa: E402
from django.contrib.auth.hashers import make_password  # noqa: E402
from django.contrib.auth.models import User  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.db import connection  # noqa: E402

PEOPLE = ["alice", "bob", "carol", "dave", "erin", "frank", "grace", "heidi"]
PEOPLE += [f"user{number}" for number in range(2000)]
SUPERUSERS = ["root"] + [f"staff{number}" for number in range(50)]


def user(name, superuser):
    return User(
        username=name,
        email=f"{name}@shop.example",
        password=make_password(f"secret-{name}"),
        is_staff=superuser,
        is_superuser=superuser,
    )


settings.SITE_DIR.mkdir(parents=True, exist_ok=True)
call_command("migrate", verbosity=0)
User.objects.bulk_create([user(name, False) for name in PEOPLE])
User.objects.bulk_create([user(name, True) for name in SUPERUSERS])
connection.close()
# The database is copied as one file.
with sqlite3.connect(settings.DATABASES["default"]["NAME"]) as database:
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
