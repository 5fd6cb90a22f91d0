//! HTTP/2: many streams at a time on each connection.

use std::io;
use std::rc::Rc;

use bytes::Bytes;
use h2::client::SendRequest;
use http::{Request, Uri};
use tokio::task::JoinSet;

use crate::options::Options;
use crate::pace::Pace;
use crate::stream::Connector;

pub async fn run(options: Rc<Options>, pace: Rc<Pace>) -> io::Result<()> {
    let stream = Connector::new(options.target, options.tls, true)?.connect().await?;
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(1 << 20).initial_connection_window_size(1 << 24);
    let (sender, connection) =
        builder.handshake::<_, Bytes>(stream).await.map_err(io::Error::other)?;
    let driver = tokio::task::spawn_local(connection);
    pace.ready().await;
    let scheme = if options.tls { "https" } else { "http" };
    let target: Uri =
        format!("{scheme}://bench.example{}", options.path).parse().map_err(io::Error::other)?;
    let mut streams = JoinSet::new();
    for _ in 0..options.streams {
        let (options, pace) = (Rc::clone(&options), Rc::clone(&pace));
        streams.spawn_local(stream_of(sender.clone(), target.clone(), options, pace));
    }
    drop(sender);
    while let Some(ended) = streams.join_next().await {
        ended.map_err(io::Error::other)?.map_err(io::Error::other)?;
    }
    driver.abort();
    Ok(())
}

async fn stream_of(
    mut sender: SendRequest<Bytes>,
    target: Uri,
    options: Rc<Options>,
    pace: Rc<Pace>,
) -> Result<(), h2::Error> {
    while let Some(turn) = pace.turn().await {
        sender = sender.ready().await?;
        let mut request = Request::get(target.clone())
            .header(
                "user-agent",
                "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
            )
            .header("accept", "text/html,application/xhtml+xml,*/*;q=0.8")
            .header("accept-language", "en-GB,en;q=0.5");
        let cookie = options.cookie(turn.number);
        if !cookie.is_empty() {
            request = request.header("cookie", cookie);
        }
        let request = request.body(()).map_err(|_| h2::Reason::INTERNAL_ERROR)?;
        let (answer, _) = sender.send_request(request, true)?;
        let (head, mut body) = answer.await?.into_parts();
        while let Some(piece) = body.data().await {
            body.flow_control().release_capacity(piece?.len())?;
        }
        pace.done(&turn, head.status == 200);
    }
    Ok(())
}
