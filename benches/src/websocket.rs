//! WebSocket: a message there, the same message back; and the app that sends it back.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::http1;
use crate::options::Options;
use crate::pace::Pace;
use crate::stream::Connector;

const PAYLOAD: usize = 64;
/// Two bytes of head, four of mask.
const MASKED: usize = 2 + 4 + PAYLOAD;
const PLAIN: usize = 2 + PAYLOAD;
/// For the key in every request here (RFC 6455 §1.3).
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

pub async fn run(options: Rc<Options>, pace: Rc<Pace>) -> io::Result<()> {
    let mut stream = Connector::new(options.target, options.tls, false)?.connect().await?;
    let cookie = options.cookie(0);
    let head = format!(
        "GET {} HTTP/1.1\r\nHost: bench.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Cookie: {cookie}\r\n\r\n",
        options.path
    );
    let status = http1::exchange(&mut stream, head.as_bytes(), &[], &mut [0; 4096]).await?;
    if status != 101 {
        return Err(io::Error::other(format!("the upgrade was answered {status}")));
    }
    let mut message = [0; MASKED];
    message[..2].copy_from_slice(&[0x82, 0x80 | PAYLOAD as u8]);
    let mut back = [0; PLAIN];
    pace.ready().await;
    while let Some(turn) = pace.turn().await {
        stream.write_all(&message).await?;
        stream.read_exact(&mut back).await?;
        pace.done(&turn, back[..2] == [0x82, PAYLOAD as u8]);
    }
    Ok(())
}

/// Serves until it is killed.
pub async fn echo(at: SocketAddr) -> io::Result<()> {
    let listener = TcpListener::bind(at).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(serve(stream));
    }
}

async fn serve(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    }
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
    );
    stream.write_all(answer.as_bytes()).await?;
    let mut message = [0; MASKED];
    let mut back = [0; PLAIN];
    back[..2].copy_from_slice(&[0x82, PAYLOAD as u8]);
    loop {
        stream.read_exact(&mut message).await?;
        // The key of the mask is zero in every message here.
        back[2..].copy_from_slice(&message[6..]);
        stream.write_all(&back).await?;
    }
}
