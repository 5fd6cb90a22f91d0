//! The data plane's threads: one single-threaded runtime each, with listeners of its own.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::runtime::{Builder, Runtime};

use super::bind::SocketFile;
use super::{Edge, Listening, Service, bind, serve};
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
    /// Binds everything, then starts the threads. `make_service` is called in each, within its
    /// runtime.
    pub fn start<S, F>(
        settings: &ServerSettings,
        edge: &Arc<Edge>,
        make_service: F,
    ) -> io::Result<Self>
    where
        S: Service,
        F: Fn(usize) -> Arc<S> + Send + Sync + 'static,
    {
        let count = settings.workers.max(1);
        let (addresses, listeners) = bind_all(settings, count)?;
        let files = addresses.iter().filter_map(SocketFile::of).collect();
        let make_service = Arc::new(make_service);
        let lifecycle = edge.lifecycle().clone();
        let threads = Vec::with_capacity(count);
        let mut workers = Self { addresses, threads, files, lifecycle };
        for (index, listeners) in listeners.into_iter().enumerate() {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            let (settings, edge) = (settings.clone(), Arc::clone(edge));
            let make_service = Arc::clone(&make_service);
            let name = format!("worker-{index}");
            let thread = std::thread::Builder::new().name(name).spawn(move || {
                work(runtime, listeners, &settings, &edge, || make_service(index));
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

/// A listener for each address and worker.
fn bind_all(
    settings: &ServerSettings,
    workers: usize,
) -> io::Result<(Vec<ListenAddress>, Vec<Vec<Listening>>)> {
    let mut addresses = Vec::with_capacity(settings.listen.len());
    let mut listeners: Vec<Vec<Listening>> = (0..workers).map(|_| Vec::new()).collect();
    for wanted in &settings.listen {
        let first = bind(wanted, workers > 1, settings.unix_mode)?;
        // Port 0 becomes a real one with the first.
        let address = first.address(wanted)?;
        for worker in listeners.iter_mut().skip(1) {
            worker.push(first.another(&address)?);
        }
        if let Some(worker) = listeners.first_mut() {
            worker.push(first);
        }
        addresses.push(address);
    }
    Ok((addresses, listeners))
}

fn work<S: Service>(
    runtime: Runtime,
    listeners: Vec<Listening>,
    settings: &ServerSettings,
    edge: &Arc<Edge>,
    make_service: impl FnOnce() -> Arc<S>,
) {
    runtime.block_on(async {
        let service = make_service();
        let mut serving = tokio::task::JoinSet::new();
        for listener in listeners {
            let (service, settings, edge) =
                (Arc::clone(&service), settings.clone(), Arc::clone(edge));
            serving.spawn(async move { serve(listener, service, &settings, edge).await });
        }
        while let Some(served) = serving.join_next().await {
            match served {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(%error, "a listener failed"),
                Err(error) => tracing::error!(%error, "a listener's task failed"),
            }
        }
        // Logins on their way to the store live on this runtime: they finish first.
        let lifecycle = edge.lifecycle();
        tokio::select! {
            () = lifecycle.finished() => {}
            () = lifecycle.exit_token().cancelled() => {}
        }
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
            let running = Workers::start(&settings, &edge, |_| Arc::new(Site::default())).unwrap();
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
    fn an_address_in_use_is_an_error() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut settings = server_settings();
        settings.listen = vec![ListenAddress::Tcp(taken.local_addr().unwrap())];
        assert!(bind_all(&settings, 1).is_err());
    }
}
