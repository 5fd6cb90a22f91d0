"""Shakes hands over and over, each on a new connection, until a line comes on standard input; then
prints how many went well, the certificates seen, and what went wrong.

usage: handshakes.py PORT CA_FILE THREADS
"""

import json
import socket
import ssl
import sys
import threading

port, ca_file, count = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
over = threading.Event()
lock = threading.Lock()
done, failed, seen = [0], [], {}


def shake():
    context = ssl.create_default_context(cafile=ca_file)
    context.set_alpn_protocols(["http/1.1"])
    while not over.is_set():
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=20) as plain:
                with context.wrap_socket(plain, server_hostname="shop.test") as secure:
                    secure.sendall(b"GET / HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n")
                    answer = b""
                    while piece := secure.recv(4096):
                        answer += piece
                    serial = secure.getpeercert()["serialNumber"]
            if not answer.startswith(b"HTTP/1.1 200 "):
                raise RuntimeError(f"answered {answer[:60]!r}")
            with lock:
                done[0] += 1
                seen[serial] = seen.get(serial, 0) + 1
        except Exception as error:  # every failure is what this looks for
            with lock:
                failed.append(repr(error))


threads = [threading.Thread(target=shake) for _ in range(count)]
for thread in threads:
    thread.start()
print("ready", flush=True)
sys.stdin.readline()
over.set()
for thread in threads:
    thread.join()
print(json.dumps({"done": done[0], "seen": len(seen), "failed": failed[:10]}))
