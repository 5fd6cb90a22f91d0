"""HTTP/2 frames that no decent client sends. `http2.py PORT CA CASE`: prints what came back, as JSON:
the status and headers of the first answer, the error code of its reset, that of a GOAWAY, and whether
the connection was closed, with the seconds that took."""

import json
import socket
import ssl
import sys
import time

import h2.config
import h2.connection
import h2.events
import h2.settings

AUTHORITY = "shop.test"
HEAD = [(":method", "GET"), (":scheme", "https"), (":authority", AUTHORITY), (":path", "/")]


class Client:
    def __init__(self, port, ca):
        context = ssl.create_default_context(cafile=ca)
        context.set_alpn_protocols(["h2"])
        plain = socket.create_connection(("127.0.0.1", port), timeout=20)
        self.socket = context.wrap_socket(plain, server_hostname=AUTHORITY)
        assert self.socket.selected_alpn_protocol() == "h2"
        config = h2.config.H2Configuration(
            client_side=True,
            header_encoding="utf-8",
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
            validate_inbound_headers=False,
        )
        self.h2 = h2.connection.H2Connection(config)
        self.seen = {"status": None, "headers": [], "body": "", "reset": None, "goaway": None}
        self.seen.update(closed=False, statuses=[], bytes=0)
        self.ahead = b""
        self.keep = 4096
        self.pause = 0.0
        self.held = set()

    def start(self, settings=None):
        if settings:
            settings = h2.settings.Settings(client=True, initial_values=settings)
            self.h2.local_settings = settings
        self.h2.initiate_connection()
        self.flush()

    def flush(self):
        self.socket.sendall(self.h2.data_to_send())

    def read(self, enough, seconds=10.0, take=True):
        """Reads until `enough` or the end; `take` opens the window again."""
        until = time.monotonic() + seconds
        while not enough(self.seen):
            left = until - time.monotonic()
            if left <= 0:
                return False
            self.socket.settimeout(left)
            try:
                data = self.socket.recv(65536)
            except TimeoutError:
                return False
            except (ConnectionError, ssl.SSLError):
                data = b""
            if not data:
                self.seen["closed"] = True
                return True
            self.ahead += data
            self.take_frames(take)
            try:
                self.flush()
            except OSError:
                pass
        return True

    def wait_for_end(self, seconds=10.0):
        """Sends nothing more, not even what the protocol asks for."""
        self.socket.settimeout(seconds)
        try:
            while self.socket.recv(65536):
                pass
        except TimeoutError:
            return
        except (ConnectionError, ssl.SSLError):
            pass
        self.seen["closed"] = True

    def take_frames(self, take):
        """Frame by frame: this library takes no more of them after a GOAWAY, although the streams
        that were open go on."""
        while len(self.ahead) >= 9:
            length = 9 + int.from_bytes(self.ahead[:3], "big")
            if len(self.ahead) < length:
                return
            frame, self.ahead = self.ahead[:length], self.ahead[length:]
            for event in self.h2.receive_data(frame):
                self.note(event, take)
            if self.seen["goaway"] == 0:
                self.h2.state_machine.state = h2.connection.ConnectionState.CLIENT_OPEN

    def note(self, event, take):
        seen = self.seen
        if isinstance(event, h2.events.ResponseReceived):
            status = int(dict(event.headers)[":status"])
            seen["statuses"].append(status)
            seen["status"] = status
            seen["headers"] = event.headers
        elif isinstance(event, h2.events.DataReceived):
            seen["bytes"] += len(event.data)
            if seen["bytes"] < self.keep:
                seen["body"] += event.data.decode(errors="replace")
            if take and event.flow_controlled_length and event.stream_id not in self.held:
                time.sleep(self.pause)
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamReset):
            seen["reset"] = int(event.error_code)
        elif isinstance(event, h2.events.StreamEnded):
            seen["ended"] = True
        elif isinstance(event, h2.events.ConnectionTerminated):
            seen["goaway"] = int(event.error_code)


# What an echo is tried with.
PATTERN = b"".join(b"%d," % number for number in range(4000))


def answered(seen):
    return seen.get("ended") or seen["reset"] is not None or seen["goaway"] is not None


def replaced(**changes):
    head = [(name, changes.get(name[1:], value)) for name, value in HEAD]
    return [(name, value) for name, value in head if value is not None]


HEADS = {
    "plain": HEAD,
    "crumbs": HEAD + [("cookie", "a=1"), ("cookie", "sid=x"), ("cookie", "b=2")],
    "host_same": HEAD + [("host", AUTHORITY)],
    "host_other": HEAD + [("host", "other.test")],
    "host_only": replaced(authority=None) + [("host", AUTHORITY)],
    "host_none": replaced(authority=None),
    "host_twice": HEAD + [("host", AUTHORITY), ("host", AUTHORITY)],
    "userinfo": replaced(authority="me@" + AUTHORITY),
    "connection": HEAD + [("connection", "keep-alive")],
    "transfer_encoding": HEAD + [("transfer-encoding", "chunked")],
    "upgrade": HEAD + [("upgrade", "websocket")],
    "keep_alive": HEAD + [("keep-alive", "timeout=5")],
    "proxy_connection": HEAD + [("proxy-connection", "keep-alive")],
    "value_blank_before": HEAD + [("x", " a")],
    "value_blank_behind": HEAD + [("cookie", "a=b\t")],
    "crumbs_many": HEAD + [("cookie", f"c{number}=1") for number in range(1000)],
    "path_fragment": replaced(path="/a#b"),
    "te_other": HEAD + [("te", "gzip")],
    "te_trailers": HEAD + [("te", "trailers")],
    "upper_case": HEAD + [("Accept", "text/html")],
    "connect": [(":method", "CONNECT"), (":authority", AUTHORITY)],
    "scheme_other": replaced(scheme="ftp"),
    "asterisk": replaced(path="*"),
    "path_empty": replaced(path=""),
    "path_missing": replaced(path=None),
    "path_relative": replaced(path="login"),
    "method_twice": HEAD[:1] + HEAD,
    "pseudo_late": HEAD[:3] + [("accept", "*/*")] + HEAD[3:],
    "name_blank": HEAD + [("x y", "1")],
    "name_colon": HEAD + [("x:y", "1")],
    "name_empty": HEAD + [("", "1")],
    "name_line_end": HEAD + [("x\r\ny", "1")],
    "name_nul": HEAD + [("x\0y", "1")],
    "value_line_end": HEAD + [("x", "a\r\nCookie: sid=x")],
    "value_bare_line_feed": HEAD + [("x", "a\nb")],
    "value_nul": HEAD + [("x", "a\0b")],
    "method_blank": replaced(method="GET / HTTP/1.1"),
    "method_line_end": replaced(method="GET / HTTP/1.1\r\nx: y"),
    "path_blank": replaced(path="/a b"),
    "path_line_end": replaced(path="/ HTTP/1.1\r\nx: y\r\n"),
    "path_nul": replaced(path="/a\0b"),
    "scheme_injected": replaced(scheme="https://shop.test/?x="),
    "pseudo_unknown": replaced() + [(":unknown", "x")],
    "pseudo_of_answers": replaced() + [(":status", "200")],
    "authority_twice": replaced() + [(":authority", "other.test")],
    "length_signed": replaced(method="POST") + [("content-length", "+0")],
    "length_list": replaced(method="POST") + [("content-length", "0, 0")],
    "length_without_body": replaced(method="POST") + [("content-length", "5")],
    "many_headers": HEAD + [(f"x-{number}", "y") for number in range(150)],
    "large_headers": HEAD + [(f"x-{number}", "y" * 4000) for number in range(40)],
}


def request(client, head, body=None, end=True):
    stream = client.h2.get_next_available_stream_id()
    client.h2.send_headers(stream, head, end_stream=body is None and end)
    if body is not None:
        client.h2.send_data(stream, body, end_stream=end)
    client.flush()
    return stream


def raw(kind, payload=b"", stream=0, flags=0):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


FLOODS = {
    "ping": raw(6, bytes(8)),
    "ping_ack": raw(6, bytes(8), flags=1),
    "settings": raw(4, (3).to_bytes(2, "big") + (100).to_bytes(4, "big")),
    "priority": raw(2, bytes([0, 0, 0, 0, 9]), stream=5),
    "unknown": raw(0xBE, b"x"),
    "window_update": raw(8, (1).to_bytes(4, "big")),
    "empty_data": raw(0, stream=1),
}


def literal(text):
    return bytes([len(text)]) + text.encode()


# GET of a path that is never answered, without the dynamic table.
HANGING = b"\x82\x87\x01" + literal(AUTHORITY) + b"\x04" + literal("/hang")
END_STREAM, END_HEADERS, PADDED = 1, 4, 8


def for_each_stream(client, frames, count=5000):
    """The same frames on one stream after the other."""
    try:
        for stream in range(1, 2 * count, 2):
            client.socket.sendall(b"".join(raw(kind, payload, stream, flags) for kind, payload, flags in frames))
    except OSError:
        pass


def wasteful(client, case):
    """Frames that cost the server more than the client; ends when it has had enough."""
    head = (1, HANGING, END_STREAM | END_HEADERS)
    client.start()
    client.seen["one"] = case in ("hpack_bomb", "table_size")
    if case == "continuation":
        client.socket.sendall(raw(1, HANGING, 1, END_STREAM))
        flood(client, raw(9, b"\x00\x01x\x01y" * 3200, 1), 5000)
    elif case == "continuation_empty":
        client.socket.sendall(raw(1, HANGING, 1, END_STREAM))
        flood(client, raw(9, b"", 1), 2_000_000)
    elif case == "hpack_bomb":
        # One header of 4000 bytes in the table, and 12,000 times a reference to it.
        block = HANGING + b"\x40\x01x\x7f\xa1\x1e" + b"a" * 4000 + b"\xbe" * 12_000
        client.socket.sendall(raw(1, block, 1, END_STREAM | END_HEADERS))
    elif case == "table_size":
        # The size of the table changes 4,000 times before a request that is answered.
        block = b"\x20\x3f\xe1\x1f" * 2000 + b"\x82\x87\x84\x01" + literal(AUTHORITY)
        client.socket.sendall(raw(1, block, 1, END_STREAM | END_HEADERS))
    elif case == "window_of_nothing":
        for_each_stream(client, [head, (8, bytes(4), 0)])
    elif case == "window_too_large":
        for_each_stream(client, [head, (8, b"\x7f\xff\xff\xff", 0)])
    elif case == "depends_on_itself":
        try:
            for stream in range(1, 10_000, 2):
                client.socket.sendall(raw(*head[:2], stream, head[2]))
                client.socket.sendall(raw(2, stream.to_bytes(4, "big") + b"\x09", stream))
        except OSError:
            pass
    elif case == "data_after_end":
        for_each_stream(client, [head, (0, b"x", 0)])
    elif case == "padding":
        client.socket.sendall(raw(1, HANGING.replace(b"\x82", b"\x83"), 1, END_HEADERS))
        flood(client, raw(0, b"\xff" + bytes(255), 1, PADDED), 1_000_000)
    else:
        sys.exit(f"no waste {case}")
    read_frames(client)


def read_frames(client, seconds=10.0):
    """Without the library, which knows nothing of these streams: until the server has had enough."""
    seen, ahead, until = client.seen, client.ahead, time.monotonic() + seconds
    answered = False
    while seen["goaway"] is None and time.monotonic() < until:
        client.socket.settimeout(max(0.01, until - time.monotonic()))
        try:
            data = client.socket.recv(65536)
        except TimeoutError:
            return
        except (ConnectionError, ssl.SSLError):
            data = b""
        if not data:
            seen["closed"] = True
            return
        ahead += data
        while len(ahead) >= 9 and len(ahead) >= 9 + int.from_bytes(ahead[:3], "big"):
            kind, length = ahead[3], 9 + int.from_bytes(ahead[:3], "big")
            # A head, or a reset.
            answered |= kind in (1, 3)
            if kind == 7:
                seen["goaway"] = int.from_bytes(ahead[13:17], "big")
            ahead = ahead[length:]
        if seen["one"] and answered:
            seen["answered"] = True
            return


def flood(client, frame, count):
    """How many could be sent."""
    batch, sent = frame * 100, 0
    client.socket.settimeout(10)
    try:
        while sent < count:
            client.socket.sendall(batch)
            sent += 100
    except OSError:
        client.seen["closed"] = True
    return sent


def websocket(client, path, protocol, cookie=None):
    """An extended CONNECT, and bytes through it."""
    seen = client.seen
    client.start()
    code = h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL
    client.read(lambda seen: client.h2.remote_settings.max_concurrent_streams < 1000)
    seen["offered"] = client.h2.remote_settings.get(code, 0)
    head = replaced(method="CONNECT", path=path) + [("sec-websocket-version", "13")]
    head.insert(1, (":protocol", protocol))
    if cookie:
        head.append(("cookie", cookie))
    stream = request(client, head, end=False)
    client.read(lambda seen: seen["status"] is not None or answered(seen))
    if seen["status"] != 200:
        return
    sent, before = bytes(index % 101 for index in range(60_000)), seen["bytes"]
    for at in range(0, len(sent), 10_000):
        client.h2.send_data(stream, sent[at : at + 10_000])
    client.flush()
    client.read(lambda seen: seen["bytes"] - before >= len(sent))
    seen["echo"] = seen["bytes"] - before == len(sent)
    print("holding", flush=True)
    if path.endswith("half"):
        client.h2.end_stream(stream)
        client.flush()
    client.read(answered)


def run(client, case):
    seen = client.seen
    if case in HEADS:
        client.start()
        request(client, HEADS[case])
        client.read(answered)
    elif case in ("length_short", "length_long"):
        client.start()
        length = "2" if case == "length_long" else "9"
        head = replaced(method="POST") + [("content-length", length)]
        request(client, head, b"abcd")
        client.read(answered)
    elif case == "get_with_body":
        client.start()
        request(client, HEAD, b"abcd")
        client.read(answered)
    elif case == "length_twice":
        client.start()
        head = replaced(method="POST") + [("content-length", "4"), ("content-length", "4")]
        request(client, head, b"abcd")
        client.read(answered)
    elif case == "trailers":
        client.start()
        stream = request(client, replaced(method="POST"), b"abcd", end=False)
        client.h2.send_headers(stream, [("cookie", "sid=trailer")], end_stream=True)
        client.flush()
        client.read(answered)
    elif case == "trailers_pseudo":
        client.start()
        stream = request(client, replaced(method="POST"), b"abcd", end=False)
        client.h2.send_headers(stream, [(":path", "/other")], end_stream=True)
        client.flush()
        client.read(answered)
    elif case == "many_streams":
        # More at once than are allowed: all must be answered or refused, none lost.
        client.start()
        client.read(lambda seen: client.h2.remote_settings.max_concurrent_streams < 1000)
        seen["allowed"] = client.h2.remote_settings.max_concurrent_streams
        for _ in range(seen["allowed"]):
            request(client, HEAD)
        client.read(lambda seen: len(seen["statuses"]) >= seen["allowed"])
    elif case == "rapid_reset":
        client.start()
        try:
            for _ in range(5000):
                stream = request(client, HEAD)
                client.h2.reset_stream(stream)
                client.flush()
        except (OSError, h2.exceptions.ProtocolError):
            pass
        client.read(lambda seen: seen["goaway"] is not None)
    elif case == "no_preface":
        client.wait_for_end()
    elif case == "idle":
        client.start()
        client.read(lambda seen: False)
    elif case == "idle_after_answer":
        client.start()
        request(client, HEAD)
        client.read(lambda seen: seen.get("closed_by_us"))
    elif case == "half_a_head":
        client.start()
        # HEADERS without END_HEADERS on stream 1, and nothing after it.
        client.socket.sendall(bytes([0, 0, 1, 1, 1, 0, 0, 0, 1, 0x82]))
        client.wait_for_end()
    elif case == "zero_window":
        client.start({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 1024})
        request(client, replaced(path="/stream"))
        client.read(lambda seen: False, take=False)
    elif case.startswith("narrow "):
        # A window of so many bytes, opened again after so many seconds each time.
        _, window, pause, path = case.split(" ")
        client.keep, client.pause = 1 << 20, float(pause)
        client.start({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: int(window)})
        request(client, replaced(path=path))
        client.read(answered, seconds=60)
    elif case == "held_beside":
        # One answer that nobody takes, and others that are taken; then nothing any more.
        client.start({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 1024})
        client.held.add(request(client, replaced(path="/stream")))
        for number in range(12):
            request(client, HEAD)
            client.read(lambda seen: len(seen["statuses"]) >= number + 2)
            time.sleep(0.25)
        seen["busy"] = not seen["closed"] and seen["goaway"] is None
        seen["moved"] = time.monotonic()
        client.read(lambda seen: False)
        seen["quiet"] = time.monotonic() - seen["moved"]
    elif case.startswith("pouring "):
        # So many answers, of which a byte each is taken.
        client.start({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 1})
        client.read(lambda seen: client.h2.remote_settings.max_concurrent_streams < 1000)
        count = int(case.removeprefix("pouring "))
        for _ in range(count):
            request(client, replaced(path="/pour"))
        client.read(lambda seen: seen["bytes"] >= count, take=False)
        print("holding", flush=True)
        client.read(lambda seen: False, seconds=60, take=False)
    elif case.startswith("websocket_narrow "):
        client.keep = 1 << 20
        client.start({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 1})
        client.read(lambda seen: client.h2.remote_settings.max_concurrent_streams < 1000)
        head = replaced(method="CONNECT", path="/ws") + [("sec-websocket-version", "13")]
        head.insert(1, (":protocol", "websocket"))
        head.append(("cookie", case.removeprefix("websocket_narrow ")))
        stream = request(client, head, end=False)
        client.read(lambda seen: seen["status"] is not None or answered(seen))
        client.h2.send_data(stream, PATTERN[:3000])
        client.h2.end_stream(stream)
        client.flush()
        client.read(answered, seconds=60)
    elif case.startswith("held "):
        # Signed in, a stream that nobody takes; closed when the session ends.
        client.start({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 1024})
        cookie = case.removeprefix("held ")
        request(client, replaced(path="/stream") + [("cookie", cookie)])
        client.read(lambda seen: seen["bytes"] >= 1024, take=False)
        print("holding", flush=True)
        client.read(lambda seen: False, take=False)
    elif case.startswith("taken "):
        client.start()
        cookie = case.removeprefix("taken ")
        request(client, replaced(path="/stream") + [("cookie", cookie)])
        client.read(lambda seen: seen["bytes"] >= 1024)
        print("holding", flush=True)
        client.read(lambda seen: seen["reset"] is not None)
    elif case.startswith("flood "):
        # Frames that cost nothing, without reading what they bring.
        frame = FLOODS[case.removeprefix("flood ")]
        client.start()
        if case.endswith("empty_data"):
            request(client, replaced(method="POST"), end=False)
        seen["sent"] = flood(client, frame, 2_000_000)
        client.wait_for_end()
    elif case == "pings":
        # As many as an honest client may send.
        client.start()
        flood(client, FLOODS["ping"], 500)
        request(client, HEAD)
        client.read(answered)
    elif case == "deaf":
        client.start()
        request(client, replaced(path="/stream"))
        client.wait_for_end()
    elif case.startswith("wasteful "):
        wasteful(client, case.removeprefix("wasteful "))
    elif case.startswith("crumbs_of "):
        client.start()
        request(client, HEAD + [("cookie", crumb) for crumb in case.split(" ")[1:]])
        client.read(answered)
    elif case == "zero_window_many":
        client.start({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 1024})
        client.read(lambda seen: client.h2.remote_settings.max_concurrent_streams < 1000)
        for _ in range(100):
            request(client, replaced(path="/stream"))
        client.read(lambda seen: False, take=False)
    elif case.startswith("hanging"):
        # Requests that the app never answers; with a second number, so many answers all the same.
        kind, count, *answers = case.split(" ")
        client.start()
        for _ in range(int(count)):
            request(client, replaced(path="/hang"))
        if answers:
            client.read(lambda seen: len(seen["statuses"]) >= int(answers[0]))
        else:
            client.read(lambda seen: client.h2.remote_settings.max_concurrent_streams < 1000)
            print("holding", flush=True)
            client.read(lambda seen: False, seconds=60)
    elif case.startswith("websocket_held "):
        # A WebSocket that pours, and that nobody takes.
        client.start({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 1024})
        client.read(lambda seen: client.h2.remote_settings.max_concurrent_streams < 1000)
        head = replaced(method="CONNECT", path="/ws/flood") + [("sec-websocket-version", "13")]
        head.insert(1, (":protocol", "websocket"))
        head.append(("cookie", case.removeprefix("websocket_held ")))
        request(client, head, end=False)
        client.read(lambda seen: seen["bytes"] >= 1024, take=False)
        print("holding", flush=True)
        client.read(lambda seen: False, seconds=20, take=False)
    elif case.startswith("websocket "):
        websocket(client, *case.split(" ")[1:])
    elif case == "drained":
        client.start()
        request(client, replaced(path="/slow"))
        print("waiting", flush=True)
        client.read(lambda seen: False)
    else:
        sys.exit(f"no case {case}")


def main():
    port, ca, case = sys.argv[1:]
    client = Client(int(port), ca)
    started = time.monotonic()
    run(client, case)
    client.seen["seconds"] = time.monotonic() - started
    print(json.dumps(client.seen))


main()
