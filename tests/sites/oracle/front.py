"""Servers that are programs of their own: `front.py nginx|apache|tomcat`. nginx and Apache pass what
they get to the app on aiohttp; Tomcat has one of its own. All end when standard input does."""

import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import threading

HERE = pathlib.Path(__file__).parent
MODULES = "/usr/lib/apache2/modules"
TOMCAT = "/usr/share/tomcat10"
# Nobody who is given any free port of 127.0.0.1 is given one of these.
ADDRESS = f"127.77.{os.getpid() >> 8 & 255}.{os.getpid() & 255}:{8000 + (os.getpid() >> 16)}"

NGINX = """
daemon off;
worker_processes 1;
pid {folder}/pid;
error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen {address};
        location / {{
            proxy_pass http://{app};
            proxy_http_version 1.1;
        }}
    }}
}}
"""

APACHE = """
ServerRoot {folder}
DefaultRuntimeDir {folder}
ServerName localhost
Listen {address}
PidFile {folder}/pid
ErrorLog {folder}/error.log
LoadModule mpm_event_module {modules}/mod_mpm_event.so
LoadModule authz_core_module {modules}/mod_authz_core.so
LoadModule proxy_module {modules}/mod_proxy.so
LoadModule proxy_http_module {modules}/mod_proxy_http.so
{user}
KeepAliveTimeout 75
MaxKeepAliveRequests 0
AllowEncodedSlashes NoDecode
ProxyRequests Off
ProxyPass / http://{app}/ nocanon disablereuse=on
"""

CHILDREN = []


def start(arguments, **options):
    """Standard error is not handed down: who reads ours waits until all who have it have ended."""
    options = {"stdin": subprocess.DEVNULL, "stderr": subprocess.DEVNULL} | options
    child = subprocess.Popen(arguments, start_new_session=True, **options)
    CHILDREN.append(child)
    return child


def watch(folder):
    """Leaves somebody behind who ends the servers with standard input, even if we are gone by then."""
    ourselves = os.getpid()
    if os.fork():
        return
    os.setsid()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    sys.stdin.buffer.read()
    for group in [*(child.pid for child in CHILDREN), ourselves]:
        try:
            (os.kill if group == ourselves else os.killpg)(group, signal.SIGKILL)
        except ProcessLookupError:
            pass
    folder.cleanup()
    os._exit(0)


def say(address):
    print(f"listens on {address}", file=sys.stderr, flush=True)


def app():
    """Where the app listens that comes behind."""
    arguments = [sys.executable, HERE / "app.py", "aiohttp"]
    child = start(arguments, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for line in child.stderr:
        if found := re.search(r"listens on (\S+)", line):
            threading.Thread(target=child.stderr.read, daemon=True).start()
            return found[1]
    sys.exit("the app does not start")


def wait_for(address):
    """Until it takes connections, which the proxy does not wait for."""
    import socket
    import time

    host, port = address.split(":")
    for _ in range(600):
        try:
            return socket.create_connection((host, int(port))).close()
        except OSError:
            time.sleep(0.1)
    sys.exit(f"nothing listens on {address}")


def nginx(folder):
    (folder / "conf").write_text(NGINX.format(folder=folder, address=ADDRESS, app=app()))
    start(["/usr/sbin/nginx", "-p", folder, "-c", folder / "conf", "-e", folder / "error.log"])
    wait_for(ADDRESS)
    return ADDRESS


def apache(folder):
    user = "User www-data\nGroup www-data" if os.getuid() == 0 else ""
    text = APACHE.format(folder=folder, address=ADDRESS, app=app(), modules=MODULES, user=user)
    (folder / "conf").write_text(text)
    start(["/usr/sbin/apache2", "-DFOREGROUND", "-f", folder / "conf"])
    wait_for(ADDRESS)
    return ADDRESS


def tomcat(folder):
    for name in ["conf", "logs", "temp", "work", "webapps/ROOT/WEB-INF"]:
        (folder / name).mkdir(parents=True)
    (folder / "conf/server.xml").write_bytes((HERE / "tomcat/server.xml").read_bytes())
    (folder / "webapps/ROOT/account.jsp").write_bytes((HERE / "tomcat/account.jsp").read_bytes())
    (folder / "webapps/ROOT/WEB-INF/web.xml").write_bytes((HERE / "tomcat/web.xml").read_bytes())
    jars = [f"{TOMCAT}/lib/*", f"{TOMCAT}/bin/bootstrap.jar", f"{TOMCAT}/bin/tomcat-juli.jar"]
    jars.append("/usr/share/java/eclipse-jdt-core.jar")
    settings = {
        "tomcat.util.scan.StandardJarScanFilter.jarsToSkip": "*.jar",
        "catalina.home": TOMCAT,
        "catalina.base": folder,
        "java.io.tmpdir": folder / "temp",
    }
    arguments = ["java", "-Xmx128m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]
    arguments += ["-classpath", ":".join(jars), *(f"-D{name}={value}" for name, value in settings.items())]
    arguments += ["org.apache.catalina.startup.Bootstrap", "start"]
    child = start(arguments, stderr=subprocess.PIPE, text=True)
    for line in child.stderr:
        # The port is in the name of the connector once it has been opened.
        if found := re.search(r'Starting ProtocolHandler.*-auto-\d+-(\d+)"', line):
            threading.Thread(target=child.stderr.read, daemon=True).start()
            return f"127.0.0.1:{found[1]}"
    sys.exit("Tomcat does not start")


def main():
    folder = tempfile.TemporaryDirectory(prefix="oracle-")
    os.chmod(folder.name, 0o755)
    servers = {"nginx": nginx, "apache": apache, "tomcat": tomcat}
    address = servers[sys.argv[1]](pathlib.Path(folder.name))
    watch(folder)
    say(address)
    threading.Event().wait()


main()
