"""WebSockets by the `websockets` package. `websocket.py serve`: an app that signs in whoever asks for
/login?user=NAME, and echoes on every socket. `websocket.py ADDRESS COOKIE BYTES`: a client that
sends so many random bytes, expects them back, and then tells how its socket is closed."""

import asyncio
import hashlib
import os
import random
import sys
from urllib.parse import parse_qs, urlsplit

from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Response

OPTIONS = {"compression": None, "max_size": None, "ping_interval": None}


def say(line):
    print(line, file=sys.stderr, flush=True)


def login(connection, request):
    url = urlsplit(request.path)
    if url.path != "/login":
        return None
    cookie = "sid=py-" + os.urandom(8).hex() + "-" + parse_qs(url.query)["user"][0]
    head = Headers({"Location": "/", "Content-Length": "0", "Set-Cookie": cookie + "; Path=/"})
    return Response(302, "Found", head, b"")


async def echo(socket):
    try:
        async for message in socket:
            await socket.send(message)
    except ConnectionClosed:
        pass


async def serving():
    async with serve(echo, "127.0.0.1", 0, process_request=login, **OPTIONS) as server:
        say(f"listens on 127.0.0.1:{server.sockets[0].getsockname()[1]}")
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.buffer.read)
        os._exit(0)


async def client(address, cookie, total):
    sent, heard = hashlib.sha256(), hashlib.sha256()
    headers = {"Cookie": cookie}
    async with connect(f"ws://{address}/ws", additional_headers=headers, proxy=None, **OPTIONS) as socket:

        async def send():
            left = total
            while left:
                piece = random.randbytes(min(left, random.choice([0, 1, 125, 126, 65535, 65536, 300000])))
                left -= len(piece)
                sent.update(piece)
                await socket.send(piece)

        sending = asyncio.create_task(send())
        count = 0
        while count < total:
            piece = await socket.recv()
            count += len(piece)
            heard.update(piece)
        await sending
        same = "the same" if sent.digest() == heard.digest() else "other"
        say(f"echoed {count} bytes, {same}")
        await socket.wait_closed()
        say(f"closed {socket.close_code}")


if sys.argv[1] == "serve":
    asyncio.run(serving())
else:
    asyncio.run(client(sys.argv[1], sys.argv[2], int(sys.argv[3])))
