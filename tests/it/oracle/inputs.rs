//! What is sent: every family of requests that two servers might read differently, each form with a
//! second request behind it that some of them would find in another place.

use std::collections::BTreeSet;

/// The bytes of one connection.
#[derive(Clone, Debug)]
pub(super) struct Input {
    /// The value of `X-Oracle` in each of its requests.
    pub(super) name: String,
    pub(super) bytes: Vec<u8>,
    /// One of a kind, to be split wherever it can be: the others come in hundreds.
    pub(super) single: bool,
}

/// Every control character and every byte above ASCII.
fn odd_bytes() -> impl Iterator<Item = u8> {
    (0x01..=0x1f).chain(0x7f..=0xff)
}

/// Where lines of a request are put together.
struct Inputs {
    all: Vec<Input>,
    seen: BTreeSet<Vec<u8>>,
}

const HOST: &[u8] = b"Host: shop\r\n";
const LENGTH: &[u8] = b"Content-Length: 5\r\n";
const CHUNKED: &[u8] = b"Transfer-Encoding: chunked\r\n";
/// As a length of 5 and as chunks, this ends in two places.
const AMBIGUOUS: &[u8] = b"0\r\n\r\nX";
const CHUNKS: &[u8] = b"3\r\nabc\r\n0\r\n\r\n";

impl Inputs {
    /// `first` stands for itself but for `@@`, which becomes the input's name. A request follows that
    /// ends the connection.
    fn add(&mut self, single: bool, first: &[u8]) {
        if !self.seen.insert(first.to_vec()) {
            return;
        }
        let name = name(self.all.len());
        let mut bytes = Vec::new();
        let mut rest = first;
        while let Some(at) = rest.windows(2).position(|pair| pair == b"@@") {
            bytes.extend_from_slice(&rest[..at]);
            bytes.extend_from_slice(name.as_bytes());
            rest = &rest[at + 2..];
        }
        bytes.extend_from_slice(rest);
        let last = "GET /last HTTP/1.1\r\nHost: shop\r\nConnection: close\r\nX-Oracle: ";
        bytes.extend_from_slice(format!("{last}{name}\r\n\r\n").as_bytes());
        self.all.push(Input { name, bytes, single });
    }

    /// A POST with these header lines and this body.
    fn post(&mut self, single: bool, lines: &[&[u8]], body: &[u8]) {
        let head: &[u8] = b"POST /first HTTP/1.1\r\nX-Oracle: @@\r\n";
        self.add(single, &[head, HOST, &lines.concat(), b"\r\n", body].concat());
    }

    fn get(&mut self, single: bool, line: &[u8], lines: &[u8]) {
        self.add(single, &[line, b"\r\nX-Oracle: @@\r\n", lines, b"\r\n"].concat());
    }
}

/// Each as long as any other.
pub(super) fn name(number: usize) -> String {
    format!("i{number:07}")
}

impl Input {
    /// The same under another name, to be told apart from this one.
    pub(super) fn renamed(&self, number: usize) -> Self {
        let (from, to) = (self.name.as_bytes(), name(number));
        let mut renamed = self.clone();
        for at in 0..=renamed.bytes.len() - from.len() {
            if renamed.bytes[at..].starts_with(from) {
                renamed.bytes[at..at + from.len()].copy_from_slice(to.as_bytes());
            }
        }
        renamed.name = to;
        renamed
    }
}

pub(super) fn inputs() -> Vec<Input> {
    let mut inputs = Inputs { all: Vec::new(), seen: BTreeSet::new() };
    lengths_and_encodings(&mut inputs);
    obfuscated(&mut inputs);
    bodies(&mut inputs);
    lines(&mut inputs);
    targets(&mut inputs);
    odd_characters(&mut inputs);
    inputs.all
}

fn lengths_and_encodings(inputs: &mut Inputs) {
    for lines in [[LENGTH, CHUNKED], [CHUNKED, LENGTH], [CHUNKED, CHUNKED], [LENGTH, LENGTH]] {
        for body in [AMBIGUOUS, CHUNKS, b"abcde"] {
            inputs.post(true, &lines, body);
        }
    }
    let encodings: &[&str] = &[
        "chunked",
        "Chunked",
        "CHUNKED",
        " chunked",
        "\tchunked",
        "chunked ",
        "chunked\t",
        "chunked,",
        ",chunked",
        "chunked, chunked",
        "gzip, chunked",
        "chunked, gzip",
        "gzip",
        "identity",
        "chunked, identity",
        "identity, chunked",
        "\"chunked\"",
        "'chunked'",
        "xchunked",
        "chunkedx",
        "chunk",
        "chunked;q=1",
        "chunked; a=b",
        "x-chunked",
        "deflate",
        "compress",
        "trailers",
        "",
        ",",
        "cow",
        "chunked\t ",
        "c hunked",
        "chunked chunked",
        "\u{212a}",
        "chun\u{212a}ed",
        "chunked\u{b}",
        "\u{b}chunked",
        "%63hunked",
        "chunKed",
        "chunked, trailers",
        "[chunked]",
        "chunked/1.1",
        "null",
        "0",
        "true",
    ];
    for value in encodings {
        let line = format!("Transfer-Encoding: {value}\r\n");
        inputs.post(true, &[line.as_bytes()], CHUNKS);
        inputs.post(false, &[line.as_bytes(), LENGTH], AMBIGUOUS);
        inputs.post(false, &[LENGTH, line.as_bytes()], AMBIGUOUS);
        inputs.post(false, &[line.as_bytes(), CHUNKED], CHUNKS);
        inputs.post(false, &[CHUNKED, line.as_bytes()], CHUNKS);
    }
    let lengths: &[&str] = &[
        "5",
        " 5",
        "5 ",
        "\t5\t",
        "05",
        "005",
        "+5",
        "-5",
        "-0",
        "0",
        "00",
        "0x5",
        "5.0",
        "5e0",
        "5,5",
        "5, 5",
        "5,",
        ",5",
        "5;",
        "5 5",
        "\"5\"",
        "'5'",
        "",
        "five",
        "1e1",
        "5_0",
        "0b101",
        "18446744073709551615",
        "18446744073709551616",
        "18446744073709551621",
        "9223372036854775807",
        "9223372036854775808",
        "4294967301",
        "99999999999999999999",
        "\u{665}",
        "5\u{b}",
        "\u{b}5",
        "5\u{c}",
        "5\u{a0}",
        "5, 6",
        "6, 5",
        "5h",
        "V",
        "%35",
        "1",
        "4",
        "6",
    ];
    for value in lengths {
        let line = format!("Content-Length: {value}\r\n");
        inputs.post(true, &[line.as_bytes()], b"abcde");
        inputs.post(false, &[line.as_bytes(), LENGTH], b"abcde");
        inputs.post(false, &[LENGTH, line.as_bytes()], b"abcde");
        inputs.post(false, &[line.as_bytes(), CHUNKED], CHUNKS);
        inputs.post(false, &[CHUNKED, line.as_bytes()], AMBIGUOUS);
    }
    for method in ["GET", "DELETE", "OPTIONS", "PATCH", "QUERY"] {
        for version in ["1.1", "1.0"] {
            for (line, body) in [(LENGTH, &b"abcde"[..]), (CHUNKED, CHUNKS)] {
                let head = format!("{method} /first HTTP/{version}\r\nX-Oracle: @@\r\n");
                inputs.add(true, &[head.as_bytes(), HOST, line, b"\r\n", body].concat());
            }
        }
    }
}

/// The names of the two headers that say where a body ends, not quite as they are.
fn obfuscated(inputs: &mut Inputs) {
    for (name, value, other, body) in [
        ("Transfer-Encoding", "chunked", LENGTH, AMBIGUOUS),
        ("Content-Length", "5", CHUNKED, AMBIGUOUS),
        ("Content-Length", "5", b"", b"abcde"),
    ] {
        for byte in odd_bytes() {
            let (name, value, odd) = (name.as_bytes(), value.as_bytes(), [byte]);
            for line in [
                [&odd, name, b": ", value, b"\r\n"].concat(),
                [name, &odd, b": ", value, b"\r\n"].concat(),
                [name, b":", &odd, value, b"\r\n"].concat(),
                [name, b": ", value, &odd, b"\r\n"].concat(),
            ] {
                inputs.post(false, &[other, &line], body);
            }
        }
        let spelt = [
            name.replace('-', "_"),
            name.replace('-', ""),
            name.replace('-', " "),
            name.replace('-', "--"),
            name.replace('-', "."),
            name.to_uppercase(),
            name.to_lowercase(),
            format!(" {name}"),
            format!("X-{name}"),
            format!("{name}-X"),
            format!("{name} "),
            format!("{name}\t"),
            format!("X: x\n{name}"),
            format!("X: x\r{name}"),
            format!("X: x\r\n {name}"),
            format!("X: x\n\r{name}"),
            format!("X:\r\n{name}"),
            format!("\u{feff}{name}"),
            format!("\"{name}\""),
            format!("{name}:"),
            format!(":{name}"),
            format!("Connection: {name}\r\n{name}"),
            format!("Foo\r\n{name}"),
        ];
        for name in spelt {
            let line = format!("{name}: {value}\r\n");
            inputs.post(true, &[line.as_bytes()], body);
            inputs.post(true, &[other, line.as_bytes()], body);
            inputs.post(true, &[line.as_bytes(), other], body);
        }
        for folded in ["\r\n ", "\r\n\t", "\n ", "\r ", "\r\n\r\n ", " \r\n "] {
            let line = format!("{name}:{folded}{value}\r\n");
            inputs.post(true, &[other, line.as_bytes()], body);
        }
    }
}

fn bodies(inputs: &mut Inputs) {
    let sizes: &[&str] = &[
        "3",
        "03",
        "0003",
        "3 ",
        "3\t",
        " 3",
        "\t3",
        "3  ;",
        "0x3",
        "3x",
        "+3",
        "-3",
        "3_0",
        "",
        " ",
        "3.0",
        "3,",
        "3;a",
        "3;a=b",
        "3;a=\"b\"",
        "3;a=\"b\r",
        "3;a\rX",
        "3;\n",
        "3\n",
        "3;a=\"\n\"",
        "3\u{b}",
        "3\0",
        "3\u{a0}",
        "00000000000000003",
        "0000000000000003",
        "10000000000000003",
        "ffffffffffffffff",
        "fffffffffffffffff",
        "80000000",
        "100000003",
        "3;;",
        "3 a",
        "3h",
        "g",
        "2",
        "4",
        "5",
        "3#",
        "3;a=b;c=\"d;e\"",
        "3:",
        "\"3\"",
        "3\r",
    ];
    for size in sizes {
        for end in ["\r\n", "\n", "\r", "\r\r\n", "\r\nX"] {
            let body = format!("{size}{end}abc\r\n0\r\n\r\n");
            inputs.post(end == "\r\n", &[CHUNKED], body.as_bytes());
        }
    }
    let bodies: &[&str] = &[
        "3\r\nabc0\r\n\r\n",
        "3\r\nabc\n0\r\n\r\n",
        "3\r\nabc\r0\r\n\r\n",
        "3\r\nabcX\r\n0\r\n\r\n",
        "3\r\nabc\r\n\r\n0\r\n\r\n",
        "3\r\nab\r\n0\r\n\r\n",
        "0\r\n\r\n",
        "0\n\n",
        "0\r\n\n",
        "0\r\r\n\r\n",
        "00\r\n\r\n",
        "0;a=b\r\n\r\n",
        "0 \r\n\r\n",
        "-0\r\n\r\n",
        "0\r\nX: y\r\n\r\n",
        "0\r\nX: y\n\r\n",
        "0\r\nX: y\r\r\n\r\n",
        "0\r\nCookie: sid=T\r\n\r\n",
        "0\r\nHost: evil\r\n\r\n",
        "0\r\nContent-Length: 10\r\n\r\n",
        "0\r\nTransfer-Encoding: chunked\r\n\r\n",
        "0\r\n: x\r\n\r\n",
        "0\r\nno colon\r\n\r\n",
        "0\r\n folded\r\n\r\n",
        "0\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n",
        "3\r\nabc\r\n0\r\nX",
        "1\r\na\r\n1\r\nb\r\n1\r\nc\r\n0\r\n\r\n",
        "3\r\n\r\n\r\r\n0\r\n\r\n",
        "a\r\nGET / HTTP\r\n0\r\n\r\n",
        "3\r\nabc\r\n0\r\n\r\nX",
        "3\r\nabc\r\n0\r\n\r\n\r\n",
    ];
    for body in bodies {
        inputs.post(true, &[CHUNKED], body.as_bytes());
        inputs.post(true, &[b"Trailer: X\r\n", CHUNKED], body.as_bytes());
        inputs.post(true, &[b"TE: trailers\r\n", CHUNKED], body.as_bytes());
    }
    for expect in
        ["100-continue", "100-Continue", "y 100-continue", "100-continue, x", "", "200-ok"]
    {
        let line = format!("Expect: {expect}\r\n");
        inputs.post(true, &[line.as_bytes(), LENGTH], b"abcde");
        inputs.post(true, &[line.as_bytes(), CHUNKED], CHUNKS);
        inputs.get(true, b"GET /first HTTP/1.1", &[HOST, line.as_bytes()].concat());
    }
    for length in [0, 1, 2, 3, 100] {
        let extra = "GET /x HTTP/1.1\r\nHost: shop\r\nX-Oracle: @@\r\n\r\n".repeat(length);
        inputs.post(length < 4, &[LENGTH], format!("abcde{extra}").as_bytes());
    }
}

fn lines(inputs: &mut Inputs) {
    // Every line of a small request, with every wrong end.
    let parts = ["GET /first HTTP/1.1", "Host: shop", "X-Oracle: @@", "X: y", ""];
    for wrong in 0..parts.len() {
        for end in [
            "\n", "\r", "\r\r\n", "\n\r", "\n\n", "\0\r\n", " \r\n", "\t\r\n", "\u{85}", "\u{2028}",
        ] {
            let text = |(at, part): (usize, &&str)| {
                format!("{part}{}", if at == wrong { end } else { "\r\n" })
            };
            let request: String = parts.iter().enumerate().map(text).collect();
            inputs.add(true, request.as_bytes());
        }
    }
    inputs.add(true, b"GET /first HTTP/1.1\nHost: shop\nX-Oracle: @@\n\n");
    for before in [
        "\r\n",
        "\r\n\r\n",
        "\r\n\r\n\r\n\r\n",
        "\r\n\r\n\r\n\r\n\r\n",
        "\n",
        "\r",
        " ",
        "\t",
        "\0",
        "\r\n\n",
    ] {
        inputs.get(true, format!("{before}GET /first HTTP/1.1").as_bytes(), HOST);
    }
    for line in [
        "no colon",
        ": empty name",
        " Leading: 1",
        "\tLeading: 1",
        "Sp ace: 1",
        "Trailing : 1",
        "N\0UL: 1",
        "V: a\0b",
        "V: a\rb",
        "V: a\u{b}b",
        "V: \u{7f}",
        "(x): 1",
        "x@y: 1",
        "x[y]: 1",
        "x/y: 1",
        "x;y: 1",
        "x=y: 1",
        "\"x\": 1",
        "x,y: 1",
        "x\\y: 1",
        "x{y}: 1",
        "X: ",
        "X:",
        "X",
        "X:\t",
        "X: \u{e9}",
        "\u{e9}: 1",
        "X: a\r\n b",
        "X: a\r\n\tb",
        "X: a\r\n\r\n b",
        "::",
        ":",
    ] {
        inputs.get(true, b"GET /first HTTP/1.1", &[HOST, line.as_bytes(), b"\r\n"].concat());
    }
    for host in [
        "",
        " ",
        "shop",
        "shop:80",
        "shop:0",
        "shop:99999",
        "shop:",
        "shop:80:80",
        "shop:x",
        "a@shop",
        "shop/x",
        "shop\\x",
        "shop,evil",
        "shop evil",
        "[::1]",
        "[::1",
        "::1",
        "[::1]:80",
        "sh%6fp",
        "shop#",
        "shop?",
        "127.0.0.1",
        "shop.",
        ".shop",
        "SHOP",
        "sh_op",
        "xn--shop",
        "\"shop\"",
        "shop%00",
        "shop\t",
        "sh\u{f6}p",
        "shop\r\nHost: evil",
        "shop\r\nhost: shop",
        "*",
        "-",
        "$host",
    ] {
        let line = format!("Host: {host}\r\n");
        inputs.get(true, b"GET /first HTTP/1.1", line.as_bytes());
        inputs.get(true, b"GET http://shop/first HTTP/1.1", line.as_bytes());
    }
    inputs.get(true, b"GET /first HTTP/1.1", b"");
    inputs.get(true, b"GET /first HTTP/1.1", b"Host : shop\r\n");
    for named in
        ["cookie", "close, cookie", "host", "content-length", "x-forwarded-for", "x", "keep-alive"]
    {
        let line = format!("Host: shop\r\nConnection: {named}\r\nCookie: a=b\r\n");
        inputs.get(true, b"GET /first HTTP/1.1", line.as_bytes());
        inputs.post(true, &[&line.as_bytes()[12..], LENGTH], b"abcde");
    }
    for upgrade in
        ["h2c", "websocket", "h2c, websocket", "TLS/1.0", "HTTP/2.0", "", "websocket, h2c"]
    {
        let line = format!(
            "Host: shop\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: {upgrade}\r\n\
             HTTP2-Settings: AAMAAABk\r\nSec-WebSocket-Version: 13\r\n"
        );
        inputs.get(true, b"GET /first HTTP/1.1", line.as_bytes());
        inputs.get(true, b"POST /first HTTP/1.1", line.as_bytes());
        inputs.get(true, b"GET /first HTTP/1.0", line.as_bytes());
    }
}

fn targets(inputs: &mut Inputs) {
    for target in [
        "/first",
        "//first",
        "/./first",
        "/a/../first",
        "/first#x",
        "/first?x#y",
        "#",
        "/first?",
        "/?a=b",
        "/first;x",
        "first",
        "",
        "*",
        "http://shop/first",
        "http://shop",
        "http://shop?x",
        "HTTP://shop/first",
        "http://evil/first",
        "http://shop:80/first",
        "http://user@shop/first",
        "http://a:b@shop/first",
        "https://shop/first",
        "ftp://shop/first",
        "http:///first",
        "http:/first",
        "http:first",
        "//shop/first",
        "shop:80",
        "shop",
        "/a b",
        "/a\tb",
        "/a\0b",
        "/a%00b",
        "/a%zzb",
        "/a%",
        "/a\\b",
        "\\first",
        "/%2e%2e/",
        "http://shop/a#b",
        "http://shop#@evil/",
        "http://shop\\@evil/",
        "http://shop/ HTTP/1.1\r\nHost: evil",
        "/caf\u{e9}",
        "/first HTTP/1.1",
        "/first HTTP/1.0",
        "?x",
        "/first ",
        " /first",
        "http://[::1]/first",
    ] {
        for method in ["GET", "POST", "OPTIONS", "CONNECT", "TRACE"] {
            inputs.get(method == "GET", format!("{method} {target} HTTP/1.1").as_bytes(), HOST);
        }
    }
    for version in [
        "HTTP/1.1",
        "HTTP/1.0",
        "HTTP/0.9",
        "HTTP/1.2",
        "HTTP/2.0",
        "HTTP/2",
        "HTTP/3.0",
        "HTTP/1",
        "HTTP/1.",
        "HTTP/1.10",
        "HTTP/01.1",
        "HTTP/1.1 ",
        " HTTP/1.1",
        "HTTP /1.1",
        "http/1.1",
        "HTTP/1,1",
        "HTTP/-1.1",
        "HTTP/1.1x",
        "XHTTP/1.1",
        "HTTP/9.9",
        "",
        "ICY/1.1",
        "HTTP/1.\u{661}",
        "HTTP/1.1\t",
        "\tHTTP/1.1",
    ] {
        inputs.get(true, format!("GET /first {version}").as_bytes(), HOST);
    }
    for method in [
        "get",
        "Get",
        "post",
        "GE T",
        "G!T",
        "G@T",
        "GET:",
        "\"GET\"",
        "",
        "GET\0",
        "GET\t",
        "PRI",
        "SOURCE",
        "PROPFIND",
        "M-SEARCH",
        "BREW",
        "CONNECT",
        "TRACE",
        "TRACK",
        "DEBUG",
        "GETGETGETGETGETGETGETGETGETGET",
    ] {
        inputs.get(true, format!("{method} /first HTTP/1.1").as_bytes(), HOST);
        let head = format!("{method} /first HTTP/1.1\r\nX-Oracle: @@\r\n");
        inputs.add(true, &[head.as_bytes(), HOST, LENGTH, b"\r\nabcde"].concat());
    }
    inputs.add(true, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    inputs.add(true, b"PRI * HTTP/2.0\r\nHost: shop\r\nX-Oracle: @@\r\n\r\n");
    inputs.add(true, b"GET /first\r\n");
    inputs.add(true, b"GET /first\r\n\r\n");
}

/// One byte that is none of the usual, wherever one can stand.
fn odd_characters(inputs: &mut Inputs) {
    for byte in odd_bytes().chain(*b" \"#%'()<>@[\\]^`{|};:,?/") {
        let odd = [byte];
        inputs.get(false, &[b"GE", &odd[..], b"T /first HTTP/1.1"].concat(), HOST);
        inputs.get(false, &[b"GET /fir", &odd[..], b"st HTTP/1.1"].concat(), HOST);
        inputs.get(false, &[b"GET /first?a", &odd[..], b"=b HTTP/1.1"].concat(), HOST);
        inputs.get(false, &[b"GET /first HTTP/1", &odd[..], b".1"].concat(), HOST);
        inputs.get(false, b"GET /first HTTP/1.1", &[b"Host: sh", &odd[..], b"op\r\n"].concat());
        let line = [HOST, b"X", &odd, b"Y: 1\r\n"].concat();
        inputs.get(false, b"GET /first HTTP/1.1", &line);
        let line = [HOST, b"X: a", &odd, b"b\r\n"].concat();
        inputs.get(false, b"GET /first HTTP/1.1", &line);
        let body = [b"3", &odd[..], b"\r\nabc\r\n0\r\n\r\n"].concat();
        inputs.post(false, &[CHUNKED], &body);
        let body = [b"3\r\nabc", &odd[..], b"\r\n0\r\n\r\n"].concat();
        inputs.post(false, &[CHUNKED], &body);
    }
}
