"""Reads Cookie lines in hex from standard input; writes what Python's parsers make of each: one JSON
object a line, parser -> name -> value, in hex; null where the parser raises an error."""

import json
import sys
from http.cookies import CookieError, SimpleCookie

from django.http.cookie import parse_cookie as django
from werkzeug.http import parse_cookie as werkzeug


def shown(pairs, encode):
    return {encode(name).hex(): encode(value).hex() for name, value in pairs}


def utf8(text):
    return text.encode("utf-8", "surrogatepass")


for line in sys.stdin:
    line = bytes.fromhex(line)
    # As WSGI hands it over.
    latin = line.decode("latin-1")
    read = {"django": shown(django(line.decode(errors="replace")).items(), utf8)}
    try:
        pairs = [(name, morsel.value) for name, morsel in SimpleCookie(latin).items()]
        read["python"] = shown(pairs, utf8)
    except CookieError:
        read["python"] = None
    try:
        read["werkzeug"] = shown(werkzeug({"HTTP_COOKIE": latin}).items(), utf8)
    except UnicodeDecodeError:
        read["werkzeug"] = None
    print(json.dumps(read))
