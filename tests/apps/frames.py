"""An app that speaks HTTP/2 without TLS and does what a good app seldom does: `frames.py CASE`.

On standard error it says a JSON line when it listens, for each connection and for each request. Its frames are made
by h2, or by hand where h2 would be too polite.
"""

import json
import socket
import struct
import sys
import threading
import time

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.settings

CASE = sys.argv[1]
lock = threading.Lock()


def say(**line):
    with lock:
        print(json.dumps(line), file=sys.stderr, flush=True)


class Connection:
    def __init__(self, sock, number):
        self.sock, self.number = sock, number
        self.open = self.most = 0
        self.done = False
        self.lock = threading.Lock()
        config = h2.config.H2Configuration(client_side=False, header_encoding="utf-8")
        self.h2 = h2.connection.H2Connection(config)
        if CASE == "one_stream":
            code = h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS
            self.h2.local_settings = h2.settings.Settings(client=False, initial_values={code: 1})
        self.h2.initiate_connection()

    def send(self):
        self.sock.sendall(self.h2.data_to_send())

    def answer(self, stream, body=b"fine", more=()):
        with self.lock:
            head = [(":status", "200"), ("content-type", "text/plain"), *more]
            self.h2.send_headers(stream, head)
            self.h2.send_data(stream, body, end_stream=True)
            self.open -= 1
            self.send()

    def requested(self, stream):
        say(request=stream, connection=self.number)
        first = self.number == 0
        if CASE == "refuse" and first and stream == 1:
            self.h2.reset_stream(stream, h2.errors.ErrorCodes.REFUSED_STREAM)
        elif CASE == "refuse_all":
            self.h2.reset_stream(stream, h2.errors.ErrorCodes.REFUSED_STREAM)
        elif CASE == "reset":
            self.h2.reset_stream(stream, h2.errors.ErrorCodes.INTERNAL_ERROR)
        elif CASE == "close":
            self.done = True
        elif CASE == "goaway_before" and first:
            self.h2.close_connection(last_stream_id=0)
        elif CASE == "goaway_at" and first:
            self.h2.close_connection(last_stream_id=stream)
            self.done = True
        elif CASE == "goaway_error" and first:
            self.h2.close_connection(
                h2.errors.ErrorCodes.INTERNAL_ERROR, last_stream_id=stream
            )
            self.done = True
        elif CASE == "goaway_after" and first:
            # As a server that is restarted: what it has, it answers.
            self.h2.send_headers(stream, [(":status", "200")])
            self.sock.sendall(self.h2.data_to_send())
            self.sock.sendall(struct.pack(">HBBBIII", 0, 8, 7, 0, 0, stream, 0))
            self.h2.send_data(stream, b"fine", end_stream=True)
        elif CASE == "one_stream":
            self.open += 1
            self.most = max(self.most, self.open)
            if self.most > 1:
                say(too_many=self.most)
            threading.Timer(0.05, self.answer, (stream,)).start()
        elif CASE == "many_headers":
            self.answer(stream, more=[(f"x-{n}", "y") for n in range(300)])
        elif CASE == "large_headers":
            self.answer(stream, more=[(f"x-{n}", "y" * 8000) for n in range(40)])
        elif CASE == "no_pong":
            self.h2.send_headers(stream, [(":status", "200")])
            self.send()
            say(deaf=True)
            time.sleep(60)
        else:
            self.answer(stream)

    def run(self):
        say(connection=self.number)
        if CASE == "silent":
            time.sleep(60)
        if CASE == "not_http2":
            self.sock.recv(65536)
            self.sock.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
            return
        self.send()
        while not self.done:
            data = self.sock.recv(65536)
            if not data:
                break
            with self.lock:
                events = self.h2.receive_data(data)
            for event in events:
                if isinstance(event, h2.events.DataReceived):
                    self.h2.acknowledge_received_data(
                        event.flow_controlled_length, event.stream_id
                    )
                elif isinstance(event, h2.events.StreamReset):
                    say(reset=event.stream_id, code=int(event.error_code))
                elif isinstance(event, h2.events.StreamEnded):
                    self.requested(event.stream_id)
            with self.lock:
                self.send()

    def safely(self):
        try:
            self.run()
        except (OSError, h2.exceptions.ProtocolError) as error:
            say(error=str(error))
        self.sock.close()
        say(ended=self.number)


listener = socket.create_server(("127.0.0.1", 0))
say(listening=listener.getsockname()[1])
for number in range(1_000_000):
    accepted, _ = listener.accept()
    threading.Thread(target=Connection(accepted, number).safely, daemon=True).start()
