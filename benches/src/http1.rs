//! HTTP/1.1: as little work per request as it takes to know that the whole answer came.

use std::io;
use std::rc::Rc;

use bytes::Buf;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::options::Options;
use crate::pace::Pace;
use crate::stream::{Connector, Stream};

/// Requests one after another on one connection.
pub async fn keep(options: Rc<Options>, pace: Rc<Pace>) -> io::Result<()> {
    let connector = Connector::new(options.target, options.tls, false)?;
    let mut stream = connector.connect().await?;
    let mut buffer = vec![0; 64 * 1024];
    pace.ready().await;
    while let Some(turn) = pace.turn().await {
        let good = if options.is_login(turn.number) {
            exchange(&mut stream, &options.login(turn.number), &[], &mut buffer).await? == 302
        } else {
            let (head, body) = options.request(turn.number);
            exchange(&mut stream, head, body, &mut buffer).await? == 200
        };
        pace.done(&turn, good);
    }
    Ok(())
}

/// A connection for each request.
pub async fn anew(options: Rc<Options>, pace: Rc<Pace>) -> io::Result<()> {
    let connector = Connector::new(options.target, options.tls, false)?;
    let mut buffer = vec![0; 64 * 1024];
    pace.ready().await;
    while let Some(turn) = pace.turn().await {
        let mut stream = connector.connect().await?;
        let (head, body) = options.request(turn.number);
        let good = exchange(&mut stream, head, body, &mut buffer).await? == 200;
        // The proxy closes first, so that the client's port is free at once.
        while matches!(stream.read(&mut buffer).await, Ok(1..)) {}
        pace.done(&turn, good);
    }
    Ok(())
}

/// Connections that have had one answer and want no more, until standard input ends.
pub async fn idle(options: Rc<Options>) -> io::Result<()> {
    let connector = Connector::new(options.target, options.tls, false)?;
    let mut buffer = vec![0; 64 * 1024];
    let mut streams = Vec::with_capacity(options.connections);
    for number in 0..options.connections {
        let mut stream = connector.connect().await?;
        let (head, body) = options.request(number as u64);
        exchange(&mut stream, head, body, &mut buffer).await?;
        streams.push(stream);
    }
    println!("{{\"answered\": {}}}", streams.len());
    io::stdin().read_line(&mut String::new())?;
    Ok(())
}

/// One request and its whole answer, whose status is returned.
pub async fn exchange(
    stream: &mut Box<dyn Stream>,
    head: &[u8],
    body: &[u8],
    buffer: &mut [u8],
) -> io::Result<u16> {
    if body.is_empty() {
        stream.write_all(head).await?;
    } else {
        stream.write_all_buf(&mut Buf::chain(head, body)).await?;
    }
    let mut filled = 0;
    let (status, mut left) = loop {
        let count = stream.read(&mut buffer[filled..]).await?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        filled += count;
        let text = &buffer[..filled];
        if let Some(end) = text.windows(4).position(|four| four == b"\r\n\r\n") {
            let (status, length) = read_head(&text[..end + 2])?;
            break (status, (end + 4 + length).saturating_sub(filled));
        }
    };
    while left > 0 {
        let count = stream.read(buffer).await?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        left = left.saturating_sub(count);
    }
    Ok(status)
}

fn read_head(head: &[u8]) -> io::Result<(u16, usize)> {
    let invalid = || io::Error::other(String::from_utf8_lossy(head).into_owned());
    let number = |text: &[u8]| std::str::from_utf8(text.trim_ascii()).ok()?.parse::<usize>().ok();
    let status = head.get(9..12).and_then(number).ok_or_else(invalid)?;
    const NAME: &[u8] = b"content-length:";
    let length = head
        .split(|byte| *byte == b'\n')
        .find(|line| line.len() > NAME.len() && line[..NAME.len()].eq_ignore_ascii_case(NAME))
        .and_then(|line| number(&line[NAME.len()..]));
    match (status, length) {
        (101, _) => Ok((101, 0)),
        (_, Some(length)) => Ok((status as u16, length)),
        (_, None) => Err(invalid()),
    }
}
