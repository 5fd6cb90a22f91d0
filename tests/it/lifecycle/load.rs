//! Five hundred requests a second while something is done to the proxy, of which none may fail.

use std::io::{self, ErrorKind};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::thread;
use std::time::Instant;

use super::*;
use crate::support::within;

const CLIENTS: u32 = 20;
/// Of each client between two requests.
const PAUSE: Duration = Duration::from_millis(40);
/// A drain gives a new connection half a second to say what it came for. A client that took longer, on
/// a machine with too much to do, may find it closed.
const PROMPT: Duration = Duration::from_millis(300);

#[derive(Debug, Default)]
pub(super) struct Load {
    over: AtomicBool,
    served: AtomicU64,
    /// Kept connections that were closed before they got an answer.
    closed: AtomicU64,
}

/// Ends the load, also when the test fails: nobody waits for clients that go on for ever.
struct Ending<'a>(&'a Load);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Relaxed);
    }
}

impl Load {
    /// Runs while `then` does something; how many requests were served.
    #[track_caller]
    pub(super) fn during(address: SocketAddr, then: impl FnOnce(&Self)) -> u64 {
        let load = Self::default();
        let started = Instant::now();
        thread::scope(|scope| {
            let clients: Vec<_> =
                (0..CLIENTS).map(|_| scope.spawn(|| load.client(address))).collect();
            let ending = Ending(&load);
            load.wait_for(u64::from(CLIENTS));
            then(&load);
            drop(ending);
            for client in clients {
                client.join().expect("no request fails");
            }
        });
        let (served, closed) = (load.served.into_inner(), load.closed.into_inner());
        let took = started.elapsed();
        println!("{served} requests in {took:?}, none failed, {closed} met a closing connection");
        served
    }

    /// Waits until so many more were served.
    #[track_caller]
    pub(super) fn wait_for(&self, more: u64) {
        let enough = self.served.load(Ordering::Relaxed) + more;
        within(crate::support::PATIENCE, "the load goes on", || {
            let over = self.over.load(Ordering::Relaxed);
            (over || self.served.load(Ordering::Relaxed) >= enough).then_some(())
        });
    }

    /// One request after the other, each fourth on a fresh connection. Only what HTTP lets every client
    /// send again is sent again: a request on a kept connection that closed without a byte of an
    /// answer (RFC 9112 §9.3.1).
    fn client(&self, address: SocketAddr) {
        let mut kept: Option<Connection> = None;
        for number in 0_u64.. {
            if self.over.load(Ordering::Relaxed) {
                return;
            }
            let next = Instant::now() + PAUSE;
            let reused = kept.take().filter(|_| number % 4 != 0);
            kept = match reused.map(|connection| exchange(connection, address)) {
                Some(Some(left)) => left,
                Some(None) => {
                    self.closed.fetch_add(1, Ordering::Relaxed);
                    fresh(address)
                }
                None => fresh(address),
            };
            self.served.fetch_add(1, Ordering::Relaxed);
            thread::sleep(next.saturating_duration_since(Instant::now()));
        }
    }
}

fn fresh(address: SocketAddr) -> Option<Connection> {
    loop {
        let started = Instant::now();
        let connection = Connection::open(address).expect("no connection is refused");
        let left = exchange(connection, address);
        if let Some(left) = left {
            return left;
        }
        assert!(started.elapsed() > PROMPT, "a fresh connection was closed without an answer");
    }
}

/// One request; `None`: the connection was closed before any byte of an answer. What is left of the
/// connection afterwards.
fn exchange(mut connection: Connection, address: SocketAddr) -> Option<Option<Connection>> {
    let closed = |error: io::Error| {
        let kinds = [ErrorKind::BrokenPipe, ErrorKind::ConnectionReset];
        assert!(kinds.contains(&error.kind()), "{error}");
    };
    let request = Request::get("/").header("Host", &address.to_string());
    if let Err(error) = connection.write(&request.bytes()) {
        closed(error);
        return None;
    }
    match connection.answers() {
        Ok(true) => {}
        Ok(false) => return None,
        Err(error) => {
            closed(error);
            return None;
        }
    }
    let (answer, again) = connection.read_response("GET").expect("an answer comes whole");
    assert_eq!((answer.status, answer.text().starts_with("app")), (200, true), "{answer:?}");
    Some(again.then_some(connection))
}
