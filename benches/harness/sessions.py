"""Sessions to be there from the start: rows in the store, and the stamped cookies that lead to them.

The stamp's format is that of src/stamp.rs; `run` asks each proxy whether it knows the cookies."""

import base64
import hashlib
import hmac
import os
import secrets
import shutil
import sqlite3
import time

MARK = ".hc1."
APP = "bench"
AGENT = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"


def stamped(master, name, value, lineage):
    """The cookie as Headcount would have set it."""
    key = hmac.digest(master, b"headcount stamp 1", hashlib.sha256)
    parts = [APP.encode(), name.encode(), value.encode(), lineage]
    text = b"".join(len(part).to_bytes(8, "big") + part for part in parts)
    code = lineage + hmac.digest(key, text, hashlib.sha256)[:16]
    return value + MARK + base64.urlsafe_b64encode(code).rstrip(b"=").decode()


def fill(database, key_file, count, cookies_max=10_000):
    """Puts `count` live sessions into a store that Headcount has made; returns cookies of some,
    spread over all of them."""
    master = bytes.fromhex(key_file.read_text().strip())
    now = int(time.time() * 1000)
    every = max(count // cookies_max, 1)
    cookies = []
    store = sqlite3.connect(database)
    store.execute("PRAGMA synchronous = OFF")
    sessions, keys = [], []

    def write():
        store.executemany(
            "INSERT INTO sessions (id, user_name, created_at, renewed_at, last_seen_at, login_seq,"
            " change_seq, client_address, user_agent) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            sessions,
        )
        store.executemany("INSERT INTO session_keys VALUES (?, ?, ?, 'bearer', ?, 0)", keys)
        sessions.clear()
        keys.clear()

    for number in range(1, count + 1):
        session = os.urandom(16)
        lineage = bytearray(os.urandom(16))
        # Begun by a login.
        lineage[0] |= 0x80
        lineage = bytes(lineage)
        row = (session, f"user{number:07}", now, now, now, number, number, "127.0.0.1", AGENT)
        sessions.append(row)
        keys.append((lineage, lineage, session, now))
        if number % every == 0 and len(cookies) < cookies_max:
            cookies.append(stamped(master, "sid", secrets.token_hex(16), lineage))
        if len(sessions) == 50_000:
            write()
    write()
    store.execute("UPDATE meta SET value = ? WHERE name IN ('login_seq', 'change_seq')", (count,))
    store.commit()
    store.close()
    return cookies


def copy(database, to):
    shutil.copyfile(database, to)
