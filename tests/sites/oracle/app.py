"""One small app for each of several Python servers: `app.py SERVER`. It answers every request with an
account of it, and writes the same line to the file ORACLE_LOG. It ends when standard input does."""

import asyncio
import os
import re
import socket
import sys
import threading

LOG = open(os.environ["ORACLE_LOG"], "ab", buffering=0)


def account(request_id, method, target, body):
    # As far as it is a name.
    request_id = re.match("[0-9A-Za-z]*", request_id)[0]
    line = f"{request_id} {method} {target} {body.hex()}"
    LOG.write(line.encode("latin-1", "replace") + b"\n")
    return line.encode("latin-1", "replace")


def listener():
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen(512)
    return sock


def say(sock):
    print(f"listens on 127.0.0.1:{sock.getsockname()[1]}", file=sys.stderr, flush=True)


def end_with_stdin():
    def wait():
        sys.stdin.buffer.read()
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()


def wsgi(environ, start_response):
    body = environ["wsgi.input"].read()
    target = environ.get("RAW_URI") or environ.get("REQUEST_URI")
    line = account(environ.get("HTTP_X_ORACLE", ""), environ["REQUEST_METHOD"], target, body)
    start_response("200 OK", [("Content-Length", str(len(line))), ("Content-Type", "text/plain")])
    return [line]


def gunicorn():
    from gunicorn.app.base import BaseApplication

    class Application(BaseApplication):
        def load_config(self):
            settings = {"bind": "127.0.0.1:0", "threads": 8, "keepalive": 75, "graceful_timeout": 1}
            for name, value in settings.items():
                self.cfg.set(name, value)
            self.cfg.set("worker_class", "gthread")

        def load(self):
            return wsgi

    Application().run()


def waitress():
    from waitress import create_server

    sock = listener()
    server = create_server(wsgi, sockets=[sock], threads=8)
    say(sock)
    server.run()


async def uvicorn():
    from uvicorn import Config, Server

    async def app(scope, receive, send):
        assert scope["type"] == "http"
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return  # a request that was broken off is none
            body += message.get("body", b"")
            more = message.get("more_body", False)
        target = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
        request_id = dict(scope["headers"]).get(b"x-oracle", b"")
        line = account(request_id.decode("latin-1"), scope["method"], target.decode("latin-1"), body)
        head = [(b"content-length", str(len(line)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": line})

    sock = listener()
    say(sock)
    config = Config(app, lifespan="off", log_level="error", timeout_keep_alive=75, http="h11", ws="none")
    await Server(config).serve(sockets=[sock])


async def aiohttp():
    from aiohttp import web

    async def app(request):
        body = await request.read()
        request_id = request.headers.get("X-Oracle", "")
        return web.Response(body=account(request_id, request.method, request.raw_path, body))

    runner = web.ServerRunner(web.Server(app))
    await runner.setup()
    sock = listener()
    await web.SockSite(runner, sock).start()
    say(sock)
    await asyncio.Event().wait()


async def tornado():
    from tornado.httpserver import HTTPServer
    from tornado.httputil import HTTPServerConnectionDelegate, HTTPMessageDelegate, ResponseStartLine, HTTPHeaders

    class Message(HTTPMessageDelegate):
        def __init__(self, connection):
            self.connection, self.body = connection, b""

        def headers_received(self, start_line, headers):
            self.line, self.headers = start_line, headers

        def data_received(self, chunk):
            self.body += chunk

        def finish(self):
            request_id = self.headers.get("X-Oracle", "")
            line = account(request_id, self.line.method, self.line.path, self.body)
            head = HTTPHeaders({"Content-Length": str(len(line))})
            self.connection.write_headers(ResponseStartLine("HTTP/1.1", 200, "OK"), head, line)
            self.connection.finish()

    class App(HTTPServerConnectionDelegate):
        def start_request(self, server_conn, request_conn):
            return Message(request_conn)

    sock = listener()
    sock.setblocking(False)
    HTTPServer(App()).add_socket(sock)
    say(sock)
    await asyncio.Event().wait()


SERVERS = {"gunicorn": gunicorn, "waitress": waitress, "uvicorn": uvicorn, "aiohttp": aiohttp, "tornado": tornado}

if __name__ == "__main__":
    server = SERVERS[sys.argv[1]]
    sys.argv = sys.argv[:1]
    end_with_stdin()
    if asyncio.iscoroutinefunction(server):
        asyncio.run(server())
    else:
        server()
