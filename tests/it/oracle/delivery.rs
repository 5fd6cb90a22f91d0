//! A request that may have reached the app is never sent again: POSTs to an app that resets its
//! connections at any moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use super::{KEYS, PATIENCE, RULES};
use crate::fuzzing::targets::proxy::read_answer;
use crate::fuzzing::targets::strict::{self, Read};
use crate::support::proxy::Proxy;

const POSTS: usize = 100_000;
const CLIENTS: usize = 32;

/// An app that cannot be relied on, and counts how often it got each request.
struct Unsteady {
    chance: AtomicU64,
    arrived: Vec<AtomicUsize>,
    accepted: AtomicUsize,
    bad: Mutex<Vec<String>>,
}

impl Unsteady {
    fn chance(&self, below: u64) -> u64 {
        let mut number = self.chance.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (number ^ (number >> 31)) % below
    }

    async fn serve(&self, mut stream: TcpStream) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
        if self.chance(20) == 0 {
            // Before anything came; or when something has, which is not read.
            if self.chance(2) == 0 {
                let _ = stream.readable().await;
            }
            let _ = stream.set_zero_linger();
            return;
        }
        let mut buffer = Vec::new();
        loop {
            match strict::read(&buffer) {
                Read::More => match stream.read_buf(&mut buffer).await {
                    Ok(0) | Err(_) => return,
                    Ok(_) => {}
                },
                Read::Bad(why) => {
                    self.bad.lock().push(format!("{why}: {}", buffer.escape_ascii()));
                    return;
                }
                Read::Request(length, seen) => {
                    buffer.drain(..length);
                    let nonce: usize = seen.target.trim_start_matches("/post/").parse().unwrap();
                    self.arrived[nonce].fetch_add(1, Ordering::Relaxed);
                    let body = format!("done {nonce}");
                    let answer =
                        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
                    let kind = self.chance(20);
                    if kind == 0 {
                        let _ = stream.set_zero_linger();
                        return;
                    }
                    if kind == 1 {
                        let _ = stream.write_all(&answer.as_bytes()[..20]).await;
                        let _ = stream.set_zero_linger();
                        return;
                    }
                    if stream.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                    match kind {
                        // In the face of the next request, which may be on its way.
                        2 => {
                            let _ = stream.set_zero_linger();
                            return;
                        }
                        3 => return,
                        _ => {}
                    }
                }
            }
        }
    }
}

/// Sends its share of POSTs; counts the answers that are the app's.
async fn client(address: std::net::SocketAddr, nonces: Vec<usize>, done: Arc<AtomicUsize>) {
    let mut stream = None;
    for nonce in nonces {
        let connected = match stream.take() {
            Some(stream) => stream,
            None => TcpStream::connect(address).await.unwrap(),
        };
        let (mut connected, mut buffer) = (connected, Vec::new());
        let head =
            format!("POST /post/{nonce} HTTP/1.1\r\nHost: shop\r\nContent-Length: 4\r\n\r\nbody");
        connected.write_all(head.as_bytes()).await.unwrap();
        let (status, body) = loop {
            let mut rest = &*buffer;
            if let Some(answer) = read_answer(&mut rest) {
                break answer;
            }
            let read = tokio::time::timeout(PATIENCE, connected.read_buf(&mut buffer)).await;
            assert_ne!(read.expect("an answer").unwrap(), 0, "closed without an answer to {nonce}");
        };
        if status == 200 {
            assert_eq!(body, format!("done {nonce}"));
            done.fetch_add(1, Ordering::Relaxed);
            stream = Some(connected);
        } else {
            assert_eq!(status, 502, "{body}");
        }
    }
}

#[test]
fn no_post_is_delivered_twice_to_an_app_that_resets_connections() {
    let runtime = Runtime::new().unwrap();
    let app = Arc::new(Unsteady {
        chance: AtomicU64::new(4),
        arrived: (0..POSTS).map(|_| AtomicUsize::new(0)).collect(),
        accepted: AtomicUsize::new(0),
        bad: Mutex::default(),
    });
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let upstream = listener.local_addr().unwrap();
    let serving = Arc::clone(&app);
    runtime.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let app = Arc::clone(&serving);
            tokio::spawn(async move { app.serve(stream).await });
        }
    });
    let proxy = Proxy::start(upstream, None, &format!("{KEYS}{RULES}"));
    let (address, done) = (proxy.address, Arc::new(AtomicUsize::new(0)));
    runtime.block_on(async {
        let mut clients = JoinSet::new();
        for first in 0..CLIENTS {
            let nonces = (first..POSTS).step_by(CLIENTS).collect();
            clients.spawn(client(address, nonces, Arc::clone(&done)));
        }
        while let Some(ended) = clients.join_next().await {
            ended.unwrap();
        }
    });
    let counts: Vec<usize> =
        app.arrived.iter().map(|count| count.load(Ordering::Relaxed)).collect();
    let twice: Vec<usize> = (0..POSTS).filter(|nonce| counts[*nonce] > 1).collect();
    assert!(twice.is_empty(), "delivered more than once: {twice:?}");
    let (delivered, done) = (counts.iter().sum::<usize>(), done.load(Ordering::Relaxed));
    assert!(app.bad.lock().is_empty(), "{:?}", app.bad.lock());
    println!(
        "{POSTS} posts: {delivered} delivered, {done} answered, {:?} connections",
        app.accepted
    );
    assert!(done <= delivered && done > POSTS / 2 && done < POSTS, "{done} of {delivered}");
}
