"""gunicorn for tests: any free port, and an end when the tests end.

SITE_PROCESSES, SITE_THREADS   how the site is spread
"""

import os
import signal
import threading
from pathlib import Path

SITE_DIR = Path(os.environ["SITE_DIR"])

wsgi_app = "shop.wsgi:application"
bind = "127.0.0.1:0"
worker_class = "gthread"
workers = int(os.environ.get("SITE_PROCESSES", "1"))
threads = int(os.environ.get("SITE_THREADS", "8"))
worker_tmp_dir = "/dev/shm" if os.path.isdir("/dev/shm") else None
keepalive = 75
timeout = 120
graceful_timeout = 1
control_socket_disable = True


def end_with_the_tests():
    """Whoever started this holds the other end of standard input; its end is ours."""
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def on_starting(server):
    (SITE_DIR / "sessions").mkdir(exist_ok=True)
    threading.Thread(target=end_with_the_tests, daemon=True).start()


def when_ready(server):
    """Tells the port, in one step, to whoever waits for the file."""
    port = server.LISTENERS[0].sock.getsockname()[1]
    (SITE_DIR / "port.new").write_text(str(port))
    (SITE_DIR / "port.new").rename(SITE_DIR / "port")
