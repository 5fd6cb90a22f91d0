//! The data plane's threads: one single-threaded runtime each, with listeners of its own.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::runtime::{Builder, Runtime};

use super::bind::{SocketFile, only_one};
use super::pulse::BEAT;
use super::{Edge, Inherited, Listening, Service, bind, serve};
use crate::lifecycle::Lifecycle;
use crate::settings::{ListenAddress, ServerSettings};

/// The running threads.
#[derive(Debug)]
pub struct Workers {
    addresses: Vec<ListenAddress>,
    threads: Vec<JoinHandle<()>>,
    files: Vec<SocketFile>,
    lifecycle: Lifecycle,
}

impl Workers {
    /// Takes what was inherited and binds the rest, then starts the threads. `make_service` is called in each, within its
    /// runtime.
    pub fn start<S, F>(
        settings: &ServerSettings,
        inherited: &mut Inherited,
        edge: &Arc<Edge>,
        make_service: F,
    ) -> io::Result<Self>
    where
        S: Service,
        F: Fn(usize) -> Arc<S> + Send + Sync + 'static,
    {
        let count = settings.workers.max(1);
        let Bound { addresses, files, listeners } = bind_all(settings, inherited, count)?;
        let make_service = Arc::new(make_service);
        let lifecycle = edge.lifecycle().clone();
        let threads = Vec::with_capacity(count);
        let mut workers = Self { addresses, threads, files, lifecycle };
        for (index, listeners) in listeners.into_iter().enumerate() {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            let edge = Arc::clone(edge);
            let make_service = Arc::clone(&make_service);
            let name = format!("worker-{index}");
            let thread = std::thread::Builder::new().name(name).spawn(move || {
                let watch = DeathWatch(edge.lifecycle().clone());
                work(runtime, listeners, &edge, index, || make_service(index));
                drop(watch);
            });
            match thread {
                Ok(thread) => workers.threads.push(thread),
                Err(error) => {
                    workers.lifecycle.exit();
                    workers.join();
                    return Err(error);
                }
            }
        }
        Ok(workers)
    }

    /// Where they listen, in the order of the settings, with real ports.
    pub fn addresses(&self) -> &[ListenAddress] {
        &self.addresses
    }

    /// Begins to drain.
    pub fn drain(&self) {
        self.lifecycle.drain();
    }

    /// Blocks until all threads have ended; false if one of them panicked.
    pub fn join(self) -> bool {
        let mut fine = true;
        for thread in self.threads {
            fine &= thread.join().is_ok();
        }
        drop(self.files);
        fine
    }
}

/// The process does not go on without one of its threads.
struct DeathWatch(Lifecycle);

impl Drop for DeathWatch {
    fn drop(&mut self) {
        if !self.0.is_draining() {
            tracing::error!("a worker has ended; leaving");
            self.0.fail();
        }
    }
}

/// Shows that the thread gets on.
async fn beat(edge: Arc<Edge>, index: usize) {
    loop {
        edge.pulse.beat(index);
        tokio::time::sleep(BEAT).await;
    }
}

/// What was bound.
struct Bound {
    addresses: Vec<ListenAddress>,
    files: Vec<SocketFile>,
    /// For each worker.
    listeners: Vec<Vec<Listening>>,
}

/// A listener for each address and worker.
fn bind_all(
    settings: &ServerSettings,
    inherited: &mut Inherited,
    workers: usize,
) -> io::Result<Bound> {
    let mut addresses = Vec::with_capacity(settings.listen.len());
    let mut files = Vec::new();
    let mut listeners: Vec<Vec<Listening>> = (0..workers).map(|_| Vec::new()).collect();
    let passed_on: Vec<_> = settings.listen.iter().map(|wanted| inherited.take(wanted)).collect();
    // All of them before any is bound: `0.0.0.0` and `[::]` share a port with each other.
    for (wanted, _) in settings.listen.iter().zip(&passed_on).filter(|(_, passed)| passed.is_none())
    {
        only_one(wanted)?;
    }
    for (wanted, passed_on) in settings.listen.iter().zip(passed_on) {
        let ours = passed_on.is_none();
        let first = passed_on.map_or_else(|| bind(wanted, workers > 1, settings.unix_mode), Ok)?;
        // Port 0 becomes a real one with the first.
        let address = first.address(wanted)?;
        for worker in listeners.iter_mut().skip(1) {
            worker.push(first.another(&address)?);
        }
        if let Some(worker) = listeners.first_mut() {
            worker.push(first);
        }
        // The file of an inherited socket goes with who made it.
        files.extend(SocketFile::of(&address).filter(|_| ours));
        addresses.push(address);
    }
    Ok(Bound { addresses, files, listeners })
}

fn work<S: Service>(
    runtime: Runtime,
    listeners: Vec<Listening>,
    edge: &Arc<Edge>,
    index: usize,
    make_service: impl FnOnce() -> Arc<S>,
) {
    runtime.block_on(async {
        let beating = tokio::spawn(beat(Arc::clone(edge), index));
        let service = make_service();
        let mut serving = tokio::task::JoinSet::new();
        for listener in listeners {
            serving.spawn(serve(listener, Arc::clone(&service), Arc::clone(edge)));
        }
        while let Some(served) = serving.join_next().await {
            match served {
                Ok(Ok(())) => continue,
                Ok(Err(error)) => tracing::error!(%error, "a listener failed; leaving"),
                Err(error) => tracing::error!(%error, "a listener's task failed; leaving"),
            }
            edge.lifecycle().fail();
        }
        // Logins on their way to the store live on this runtime: they finish first.
        let lifecycle = edge.lifecycle();
        tokio::select! {
            () = lifecycle.finished() => {}
            () = lifecycle.exit_token().cancelled() => {}
        }
        beating.abort();
    });
    // A name look-up that hangs must not hold the thread.
    runtime.shutdown_background();
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Site, edge};
    use super::*;
    use crate::testing::{Client, server_settings};

    #[test]
    fn workers_share_an_address_drain_and_end() {
        for workers in [1, 2] {
            let mut settings = server_settings();
            settings.workers = workers;
            settings.listen = ["127.0.0.1:0", "[::1]:0"]
                .map(|address| ListenAddress::Tcp(address.parse().unwrap()))
                .to_vec();
            let edge = edge(&settings, &Arc::default());
            let running = Workers::start(&settings, &mut Inherited::default(), &edge, |_| {
                Arc::new(Site::default())
            })
            .unwrap();
            let addresses: Vec<_> =
                running.addresses().iter().filter_map(ListenAddress::tcp).collect();
            assert!(addresses.iter().all(|address| address.port() != 0));
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                for &address in &addresses {
                    for _ in 0..8 {
                        let mut client = Client::connect(address).await;
                        client.send("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
                        assert!(client.rest().await.ends_with("hello"));
                    }
                }
            });
            running.drain();
            assert!(running.join());
            assert!(std::net::TcpStream::connect(addresses[0]).is_err());
        }
    }

    #[test]
    fn a_worker_that_ends_before_its_time_ends_the_process() {
        let mut settings = server_settings();
        settings.workers = 2;
        let edge = edge(&settings, &Arc::default());
        let life = edge.lifecycle().clone();
        let make = |index| {
            assert!(index == 0, "injected");
            Arc::new(Site::default())
        };
        let running = Workers::start(&settings, &mut Inherited::default(), &edge, make).unwrap();
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(life.exit_token().cancelled());
        assert!(life.has_failed());
        assert!(!running.join());
    }

    #[test]
    fn an_address_in_use_is_an_error() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut settings = server_settings();
        settings.listen = vec![ListenAddress::Tcp(taken.local_addr().unwrap())];
        assert!(bind_all(&settings, &mut Inherited::default(), 1).is_err());
    }
}
