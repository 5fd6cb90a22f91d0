//! What a run is to do, from `key=value` arguments; and its requests, written out beforehand.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// What is spoken.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Http1,
    /// A connection for each request.
    New,
    Http2,
    WebSocket,
    /// Connections that say nothing, until standard input ends.
    Idle,
    /// The app behind WebSockets.
    Echo,
}

pub struct Options {
    pub kind: Kind,
    pub target: SocketAddr,
    pub tls: bool,
    pub connections: usize,
    pub streams: usize,
    /// Requests per second; `None`: the next when the last is answered.
    pub rate: Option<u64>,
    pub duration: Duration,
    /// Ends the run before its time.
    pub requests: u64,
    pub method: String,
    pub path: String,
    pub body: Vec<u8>,
    /// Cookie lines; requests take turns.
    pub cookies: Vec<String>,
    /// One in so many requests is a login of somebody new.
    pub login_every: Option<u64>,
    heads: Vec<Vec<u8>>,
}

impl Options {
    pub fn read(arguments: impl Iterator<Item = String>) -> io::Result<Self> {
        let mut options = Self {
            kind: Kind::Http1,
            target: SocketAddr::from(([127, 0, 0, 1], 80)),
            tls: false,
            connections: 1,
            streams: 1,
            rate: None,
            duration: Duration::from_secs(1),
            requests: u64::MAX,
            method: "GET".to_owned(),
            path: "/".to_owned(),
            body: Vec::new(),
            cookies: vec![String::new()],
            login_every: None,
            heads: Vec::new(),
        };
        for argument in arguments {
            let (key, value) = argument.split_once('=').unwrap_or((&argument, ""));
            let number = || value.parse::<u64>().map_err(|_| wrong(key, value));
            match key {
                "kind" => options.kind = kind(value)?,
                "target" => options.target = value.parse().map_err(|_| wrong(key, value))?,
                "tls" => options.tls = value == "1",
                "connections" => options.connections = number()? as usize,
                "streams" => options.streams = number()? as usize,
                "rate" => options.rate = Some(number()?),
                "milliseconds" => options.duration = Duration::from_millis(number()?),
                "requests" => options.requests = number()?,
                "method" => options.method = value.to_owned(),
                "path" => options.path = value.to_owned(),
                "body" => options.body = vec![b'x'; number()? as usize],
                "login_every" => options.login_every = Some(number()?),
                "cookies" => {
                    let text = std::fs::read_to_string(value)?;
                    options.cookies = text.lines().map(str::to_owned).collect();
                }
                _ => return Err(wrong("argument", &argument)),
            }
        }
        let heads = options.cookies.iter();
        options.heads = heads.map(|cookie| options.head(cookie, "close")).collect();
        if options.kind != Kind::New {
            let heads = options.cookies.iter();
            options.heads = heads.map(|cookie| options.head(cookie, "keep-alive")).collect();
        }
        Ok(options)
    }

    /// The request's head over HTTP/1.1, and its body.
    pub fn request(&self, number: u64) -> (&[u8], &[u8]) {
        (&self.heads[number as usize % self.heads.len()], &self.body)
    }

    pub fn cookie(&self, number: u64) -> &str {
        &self.cookies[number as usize % self.cookies.len()]
    }

    pub fn is_login(&self, number: u64) -> bool {
        self.login_every.is_some_and(|every| number % every == every - 1)
    }

    /// A login of somebody new.
    pub fn login(&self, number: u64) -> Vec<u8> {
        let body = format!("username=user-{number}-{}&password=secret", std::process::id());
        let head = format!(
            "POST /login HTTP/1.1\r\nHost: bench.example\r\nContent-Length: {}\r\n\
             Content-Type: application/x-www-form-urlencoded\r\n\r\n",
            body.len()
        );
        (head + &body).into_bytes()
    }

    fn head(&self, cookie: &str, connection: &str) -> Vec<u8> {
        let mut head = format!(
            "{} {} HTTP/1.1\r\nHost: bench.example\r\n\
             User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n\
             Accept: text/html,application/xhtml+xml,*/*;q=0.8\r\n\
             Accept-Language: en-GB,en;q=0.5\r\nConnection: {connection}\r\n",
            self.method, self.path
        );
        if !cookie.is_empty() {
            head += &format!("Cookie: {cookie}\r\n");
        }
        if !self.body.is_empty() {
            head += &format!(
                "Content-Type: application/octet-stream\r\nContent-Length: {}\r\n",
                self.body.len()
            );
        }
        (head + "\r\n").into_bytes()
    }
}

fn kind(value: &str) -> io::Result<Kind> {
    Ok(match value {
        "http1" => Kind::Http1,
        "new" => Kind::New,
        "http2" => Kind::Http2,
        "websocket" => Kind::WebSocket,
        "idle" => Kind::Idle,
        "echo" => Kind::Echo,
        _ => return Err(wrong("kind", value)),
    })
}

fn wrong(key: &str, value: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("{key}: {value:?} is not understood"))
}
