//! More requests than the app may have at once: a few wait, the others are told when to come again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use super::*;
use crate::support::legacy::{LegacyApp, Reply};
use crate::support::within;

/// An app whose answers wait for the gate, and that knows how many requests it had at once.
struct Busy {
    app: LegacyApp,
    gate: Arc<AtomicBool>,
    most: Arc<AtomicUsize>,
}

impl Busy {
    fn start() -> Self {
        let (gate, now, most) =
            (Arc::new(AtomicBool::new(false)), AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
        let (opened, peak) = (Arc::clone(&gate), Arc::clone(&most));
        let app = LegacyApp::start(move |request| {
            let at_once = now.fetch_add(1, Ordering::SeqCst) + 1;
            peak.fetch_max(at_once, Ordering::SeqCst);
            if request.target() == "/slow" {
                within(PATIENCE * 3, "the gate opens", || {
                    opened.load(Ordering::SeqCst).then_some(())
                });
            }
            now.fetch_sub(1, Ordering::SeqCst);
            Reply::page("200 OK", &[], "hello")
        });
        Self { app, gate, most }
    }
}

const SLOW: &[u8] = b"GET /slow HTTP/1.1\r\nHost: shop.test\r\nAccept: text/html\r\n\r\n";

#[test]
fn what_the_app_cannot_take_waits_and_the_rest_is_told_to_come_again() {
    let busy = Busy::start();
    let keys = "upstream.requests = 4\nupstream.queue = 3\nupstream.timeouts.queue = \"60s\"\n";
    let proxy = Proxy::start(busy.app.address, None, &configured(keys));
    let mut open = Vec::new();
    // One after the other: the last is to be one that waits.
    for levels in [[1, 0], [2, 0], [3, 0], [4, 0], [4, 1], [4, 2], [4, 3]] {
        let mut stream = raw::connect(proxy.address);
        stream.write_all(SLOW).unwrap();
        open.push(stream);
        eventually("four at the app, three wait", || {
            let names = ["headcount_upstream_requests", "headcount_upstream_queue"];
            (names.map(|name| count(&proxy, name)) == levels).then_some(())
        });
    }
    let page = ask(&mut raw::connect(proxy.address), SLOW);
    assert!(page.starts_with("HTTP/1.1 503 ") && page.contains("retry-after: 5"), "{page}");
    assert_eq!(refused(&proxy, "upstream_busy"), 1);
    eventually("a line in the log", || {
        proxy.log().iter().any(|line| line.contains("\"reason\":\"upstream_busy\"")).then_some(())
    });
    // Who leaves makes room in the queue.
    drop(open.pop());
    eventually("two wait", || (count(&proxy, "headcount_upstream_queue") == 2).then_some(()));
    busy.gate.store(true, Ordering::SeqCst);
    for stream in &mut open {
        assert!(ask(stream, b"").contains("200 OK"));
    }
    assert_eq!(busy.most.load(Ordering::SeqCst), 4, "never more at once");
    assert_eq!(busy.app.arrived().len(), 6, "what was refused or given up never reached it");
    drop(open);
    all_released(&proxy);
}

#[test]
fn nobody_waits_longer_than_the_timeout() {
    let busy = Busy::start();
    let keys = "upstream.requests = 1\nupstream.timeouts.queue = \"300ms\"\n";
    let proxy = Proxy::start(busy.app.address, None, &configured(keys));
    let mut first = raw::connect(proxy.address);
    first.write_all(SLOW).unwrap();
    eventually("the app is busy", || {
        (count(&proxy, "headcount_upstream_requests") == 1).then_some(())
    });
    let page = ask(&mut raw::connect(proxy.address), GET);
    assert!(page.starts_with("HTTP/1.1 503 "), "{page}");
    assert_eq!(refused(&proxy, "upstream_busy"), 1);
    busy.gate.store(true, Ordering::SeqCst);
    assert!(ask(&mut first, b"").contains("200 OK"));
    assert!(ask(&mut first, GET).contains("200 OK"), "the connection goes on");
    drop(first);
    all_released(&proxy);
}

#[test]
fn an_answer_holds_its_place_until_it_has_ended() {
    let app = LegacyApp::start(|_| {
        Reply::Stream(Box::new(|stream| {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nbegin");
            let _ = stream.read(&mut [0; 1]);
        }))
    });
    let keys = "upstream.requests = 1\nupstream.queue = 0\n";
    let proxy = Proxy::start(app.address, None, &configured(keys));
    let mut first = raw::connect(proxy.address);
    first.write_all(GET).unwrap();
    let mut piece = [0; 12];
    first.read_exact(&mut piece).unwrap();
    assert_eq!(&piece, b"HTTP/1.1 200");
    assert!(ask(&mut raw::connect(proxy.address), GET).contains("503"));
    drop(first);
    all_released(&proxy);
}

/// Twenty times what the app can do at once, for a while: whoever is answered is answered quickly.
#[test]
fn an_overload_leaves_those_it_serves_quick() {
    let _alone = alone();
    let app = LegacyApp::start(|_| {
        thread::sleep(Duration::from_millis(10));
        Reply::page("200 OK", &[], "hello")
    });
    let keys = "upstream.requests = 4\nupstream.queue = 4\nupstream.timeouts.queue = \"2s\"\n";
    let proxy = Proxy::start(app.address, None, &configured(keys));
    let until = std::time::Instant::now() + Duration::from_secs(2);
    let results: Vec<(u64, u64, Duration)> = thread::scope(|scope| {
        let clients: Vec<_> = (0..80)
            .map(|_| {
                scope.spawn(|| {
                    let (mut served, mut shed, mut slowest) = (0, 0, Duration::ZERO);
                    let mut stream = raw::connect(proxy.address);
                    while std::time::Instant::now() < until {
                        let start = std::time::Instant::now();
                        match raw::status(ask(&mut stream, GET).as_bytes()) {
                            200 => {
                                served += 1;
                                slowest = slowest.max(start.elapsed());
                            }
                            503 => {
                                shed += 1;
                                thread::sleep(Duration::from_millis(20));
                            }
                            other => panic!("{other}"),
                        }
                    }
                    (served, shed, slowest)
                })
            })
            .collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    let served: u64 = results.iter().map(|result| result.0).sum();
    let shed: u64 = results.iter().map(|result| result.1).sum();
    let slowest = results.iter().map(|result| result.2).max().unwrap();
    println!("{served} served, {shed} shed, slowest {slowest:?}");
    assert!(served >= 100 && shed >= 100, "{served} served, {shed} shed");
    assert!(slowest < Duration::from_secs(1), "{slowest:?} to be served");
    assert_eq!(refused(&proxy, "upstream_busy"), shed);
    all_released(&proxy);
}
