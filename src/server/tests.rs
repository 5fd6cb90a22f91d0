//! The whole server, without a process around it.

use std::time::Instant;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::signal::unix::{SignalKind, signal};

use super::*;
use crate::config;
use crate::testing::soon;

/// Where the store has died nothing can be recorded or revoked: the process ends, in the way that lets
/// a service manager start another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_its_store_it_leaves_at_once_and_says_that_it_failed() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("headcount.db");
    let text = format!(
        "server.listen = \"127.0.0.1:0\"\nserver.workers = 1\nserver.shutdown_grace = \"60s\"\n\
         upstream.url = \"http://127.0.0.1:9\"\napp.preset = \"django\"\nlimit.max_sessions = 1\n\
         store.url = \"sqlite://{}\"\nstore.key_file = \"{}\"\n",
        store.display(),
        folder.path().join("headcount.key").display(),
    );
    let read = config::parse("headcount.toml", &text, &|_| None);
    let settings = read.map_err(|report| report.to_string()).unwrap();
    let hangup = signal(SignalKind::hangup()).unwrap();
    let running =
        start(settings, None, Inherited::default(), Lifecycle::new()).await.expect("it starts");
    let address = running.addresses[0].tcp().unwrap();
    let store = Arc::clone(&running.live.now().recorder.store);
    let served = tokio::spawn(running.serve(hangup));
    // Somebody who would hold up a drain.
    let mut idle = TcpStream::connect(address).await.unwrap();
    idle.write_all(b"GET / HT").await.unwrap();
    let died = Instant::now();
    store.close().await;
    assert!(!soon(served).await.unwrap(), "it failed");
    let took = died.elapsed();
    println!("left {took:?} after the store");
    assert!(took < Duration::from_secs(5), "{took:?}");
    let _ = soon(idle.read_to_end(&mut Vec::new())).await;
    assert!(TcpStream::connect(address).await.is_err(), "nobody listens any more");
}
