"""The programs that are compared: their settings, their processes, and what those use."""

import os
import pathlib
import signal
import socket
import subprocess
import time

HOST = "127.0.0.1"
ORIGIN, ECHO, REDIS = 9100, 9101, 9102


class Contender:
    """One program, or a few that belong together, listening with TLS and without."""

    def __init__(self, name, at, command, files, extra=(), ready_s=60):
        self.name, self.at, self.tls_at = name, at, at + 1
        self.command, self.files, self.extra = command, files, list(extra)
        self.ready_s = ready_s
        self.processes = []

    def start(self, folder, core):
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in self.files.items():
            (folder / name).write_text(text)
        for command in [*self.extra, self.command]:
            log = open(folder / "log", "a")
            started = subprocess.Popen(
                ["taskset", "-c", str(core), *command], cwd=folder, stdout=log, stderr=log
            )
            self.processes.append(started)
        wait_for(self.at, self.ready_s, self.processes[-1], folder / "log")

    def stop(self):
        for process in self.processes:
            process.send_signal(signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.processes = []

    def pids(self):
        found = [process.pid for process in self.processes]
        for pid in found:
            children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text()
            found.extend(int(child) for child in children.split())
        return found

    def cpu_ns(self):
        """Time on a processor of all threads, user and system, in nanoseconds."""
        total = 0
        for pid in self.pids():
            for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
                total += int((task / "schedstat").read_text().split()[0])
        return total

    def memory_bytes(self):
        """Resident, what several processes share counted once."""
        total = 0
        for pid in self.pids():
            for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
        return total


def wait_for(port, seconds, process, log):
    until = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection((HOST, port), 1).close()
            return
        except OSError:
            gone = process.poll() is not None
            if gone or time.monotonic() > until:
                text = log.read_text()[-2000:]
                raise SystemExit(f"nothing listens on port {port}:\n{text}")
            time.sleep(0.05)


NGINX = """
user root; daemon off; worker_processes 1; pid nginx.pid; error_log error.log error;
%(modules)s
events { worker_connections 20000; multi_accept on; }
http {
  access_log off; server_tokens off; tcp_nodelay on; sendfile on;
  keepalive_timeout 600s; keepalive_requests 100000000;
  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;
  ssl_certificate %(folder)s/cert.pem; ssl_certificate_key %(folder)s/key.pem;
  ssl_session_tickets off; ssl_protocols TLSv1.2 TLSv1.3;
  %(http)s
}
"""

PROXY = """
  upstream app { server 127.0.0.1:%(origin)d; keepalive 256; keepalive_requests 100000000; keepalive_timeout 600s; }
  map $http_upgrade $upgrading { default ""; websocket upgrade; }
  proxy_http_version 1.1; proxy_buffer_size 16k; proxy_buffers 16 16k; proxy_max_temp_file_size 0;
  proxy_set_header Host $host; proxy_set_header Connection $upgrading;
  proxy_set_header Upgrade $http_upgrade;
  proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
  proxy_set_header X-Forwarded-Proto $scheme; proxy_set_header X-Forwarded-Host $host;
  server {
    listen 127.0.0.1:%(at)d backlog=4096; listen 127.0.0.1:%(tls_at)d ssl http2 backlog=4096;
    location / { %(access)s proxy_pass http://app; }
  }
"""

ORIGIN_SITE = """
  server {
    listen 127.0.0.1:%d backlog=4096; root %s/site; etag off;
    location = /login { add_header Set-Cookie "sid=$request_id; Path=/; HttpOnly"; return 302 /; }
    location = /post { return 200 "taken\\n"; }
    location = /whoami { default_type text/plain; return 200 "[$http_cookie]"; }
    location = /ws {
      proxy_pass http://127.0.0.1:%d; proxy_http_version 1.1; proxy_read_timeout 600s;
      proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade;
    }
  }
"""

# What lua-resty-redis does for GET, with a pool of connections as there.
ASK_REDIS = """
access_by_lua_block {
  local sid = ngx.var.cookie_sid
  if not sid then return end
  local socket = ngx.socket.tcp()
  socket:settimeouts(1000, 1000, 1000)
  local key = "session:" .. sid
  if not socket:connect("127.0.0.1", %d) then return ngx.exit(503) end
  socket:send({"*2\\r\\n$3\\r\\nGET\\r\\n$", #key, "\\r\\n", key, "\\r\\n"})
  local line = socket:receive("*l")
  if not line then return ngx.exit(503) end
  if line == "$-1" then socket:setkeepalive(60000, 256); return ngx.exit(403) end
  socket:receive(tonumber(line:sub(2)) + 2)
  socket:setkeepalive(60000, 256)
}
"""

HAPROXY = """
global
  nbthread 1
  maxconn %(connections)d
  tune.ssl.default-dh-param 2048
  ssl-default-bind-options no-tls-tickets
defaults
  mode http
  timeout connect 5s
  timeout client 600s
  timeout server 600s
  timeout http-keep-alive 600s
  option forwardfor
  http-reuse always
frontend in
  bind 127.0.0.1:%(at)d backlog 4096
  bind 127.0.0.1:%(tls_at)d ssl crt %(folder)s/both.pem alpn h2,http/1.1 backlog 4096
  http-request set-header X-Forwarded-Proto http
  %(more)s
  default_backend app
backend app
  %(table)s
  server app 127.0.0.1:%(origin)d maxconn 2000
"""

HEADCOUNT = """
[server]
listen = "127.0.0.1:%(at)d"
workers = %(workers)d
%(tls)s
[server.limits]
connections = 20000
connections_per_address = 20000
[upstream]
url = "http://127.0.0.1:%(origin)d"
idle_connections = 256
[app]
name = "bench"
[session]
idle_timeout = "12h"
[limit]
max_sessions = 1
[enforcement]
mode = "%(mode)s"
[store]
url = "sqlite://%(folder)s/%(store)s.db"
key_file = "%(folder)s/headcount.key"
[admin]
listen = "127.0.0.1:%(admin)d"
[[credential]]
at = ["cookie:%(cookie)s"]
[[login]]
request = { methods = ["POST"], path = ["/login"], has = ["form:username"] }
success = { status = [302], sets = "%(cookie)s" }
user = ["form:username"]
[[logout]]
request = { methods = ["POST"], path = ["/logout"] }
success = { clears = "%(cookie)s" }
"""


def nginx(name, at, folder, access="", modules=""):
    names = {"at": at, "tls_at": at + 1, "origin": ORIGIN, "access": access}
    text = NGINX % {"folder": folder, "http": PROXY % names, "modules": modules}
    command = ["nginx", "-p", str(folder / name), "-c", "nginx.conf"]
    return Contender(name, at, command, {"nginx.conf": text})


def haproxy(name, at, folder, connections, sticky):
    table = "stick-table type string len 96 size 1m expire 30m store gpc0,http_req_cnt"
    tracked = (
        "http-request track-sc0 req.cook(sid) table app\n"
        "  http-request deny if { sc0_get_gpc0(app) gt 0 }"
    )
    names = {"at": at, "tls_at": at + 1, "origin": ORIGIN, "folder": folder}
    names |= {"connections": connections}
    names |= {"more": tracked if sticky else "", "table": table if sticky else ""}
    return Contender(name, at, ["haproxy", "-db", "-f", "haproxy.cfg"], {"haproxy.cfg": HAPROXY % names})


def headcount(name, at, folder, binary, mode, store, cookie="sid", workers=1):
    """Plain on one address; TLS is a process of its own settings, since it holds for all addresses."""
    names = {"at": at, "origin": ORIGIN, "mode": mode, "folder": folder, "store": store}
    names |= {"admin": at + 2, "cookie": cookie, "workers": workers, "tls": ""}
    files = {"headcount.toml": HEADCOUNT % names}
    command = [str(binary), "serve", "-c", "headcount.toml"]
    return Contender(name, at, command, files)


def headcount_tls(name, at, folder, binary, mode, store):
    names = {"at": at + 1, "origin": ORIGIN, "mode": mode, "folder": folder, "store": store}
    pair = f'tls = {{ certificate = "{folder}/cert.pem", key = "{folder}/key.pem" }}'
    names |= {"admin": at + 2, "cookie": "sid", "workers": 1, "tls": pair}
    files = {"headcount.toml": HEADCOUNT % names}
    contender = Contender(name, at + 1, [str(binary), "serve", "-c", "headcount.toml"], files)
    contender.tls_at = at + 1
    return contender


def all_of(folder, binary, connections):
    """In the order in which they take turns; those with TLS are a list of their own."""
    lua = "\n".join(
        f"load_module /usr/lib/nginx/modules/{module}.so;"
        for module in ["ndk_http_module", "ngx_http_lua_module"]
    )
    asking = nginx("nginx-lua-redis", 9140, folder, ASK_REDIS % REDIS, lua)
    redis = ["redis-server", "--port", str(REDIS), "--bind", HOST, "--save", ""]
    asking.extra = [[*redis, "--dir", str(folder)]]
    return [
        nginx("nginx", 9110, folder),
        haproxy("haproxy", 9120, folder, connections, False),
        haproxy("haproxy-sticky", 9130, folder, connections, True),
        asking,
        headcount("headcount-pass", 9150, folder, binary, "observe", "pass", "other"),
        headcount("headcount-observe", 9160, folder, binary, "observe", "observe"),
        headcount("headcount-1k", 9170, folder, binary, "enforce", "few"),
        headcount("headcount-1m", 9180, folder, binary, "enforce", "many"),
        headcount_tls("headcount-1m-tls", 9190, folder, binary, "enforce", "tls"),
    ]


def origin(folder, load):
    """The app, and the one behind WebSockets."""
    site = ORIGIN_SITE % (ORIGIN, folder, ECHO)
    text = NGINX % {"folder": folder, "http": site, "modules": ""}
    command = ["nginx", "-p", str(folder / "origin"), "-c", "nginx.conf"]
    echo = [str(load), "kind=echo", f"target={HOST}:{ECHO}"]
    return Contender("origin", ORIGIN, command, {"nginx.conf": text}, [echo])
