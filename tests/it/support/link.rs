//! A line to a server that a test can hold up or cut: a TCP relay.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// Bytes carried at once.
const CHUNK: usize = 16 * 1024;

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// Nothing gets through, and nobody is told: a network that drops packets.
    Held,
    /// Connections are refused: a server that is down.
    Cut,
}

/// When the client says this, its connection breaks.
struct Trap {
    words: &'static [u8],
    /// Whether the server hears it before.
    delivered: bool,
}

struct Shared {
    state: Mutex<State>,
    trap: Mutex<Option<Trap>>,
    changed: Condvar,
    open: Mutex<Vec<TcpStream>>,
}

pub(crate) struct Link {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

impl Link {
    pub(crate) fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            state: Mutex::new(State::Open),
            trap: Mutex::new(None),
            changed: Condvar::new(),
            open: Mutex::default(),
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if *accepting.state.lock() != State::Cut {
                    accepting.carry(client, server);
                }
            }
        });
        Self { address, shared }
    }

    /// From now on nothing arrives, in either direction.
    pub(crate) fn hold(&self) {
        self.shared.set(State::Held);
    }

    /// All connections end, and no new one is accepted.
    pub(crate) fn cut(&self) {
        self.shared.set(State::Cut);
        for stream in self.shared.open.lock().drain(..) {
            // An error means that it is closed already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// The next connection whose client says this breaks, once the server has heard it or before.
    pub(crate) fn break_at(&self, words: &'static [u8], delivered: bool) {
        *self.shared.trap.lock() = Some(Trap { words, delivered });
    }

    /// Whether that is still to come.
    pub(crate) fn is_armed(&self) -> bool {
        self.shared.trap.lock().is_some()
    }

    /// What was held up arrives now.
    pub(crate) fn mend(&self) {
        self.shared.set(State::Open);
    }
}

impl Shared {
    fn set(&self, state: State) {
        *self.state.lock() = state;
        self.changed.notify_all();
    }

    fn carry(self: &Arc<Self>, client: TcpStream, server: SocketAddr) {
        let Ok(server) = TcpStream::connect_timeout(&server, Duration::from_secs(5)) else {
            return;
        };
        for stream in [&client, &server] {
            stream.set_nodelay(true).unwrap();
        }
        let clone = |stream: &TcpStream| stream.try_clone().unwrap();
        self.open.lock().extend([clone(&client), clone(&server)]);
        for (from, to) in [(clone(&client), clone(&server)), (server, client)] {
            let shared = Arc::clone(self);
            thread::spawn(move || shared.pump(from, to));
        }
    }

    /// The trap, if this is what it waits for: whether to deliver it.
    fn spring(&self, bytes: &[u8]) -> Option<bool> {
        let said =
            |trap: &mut Trap| bytes.windows(trap.words.len()).any(|window| window == trap.words);
        self.trap.lock().take_if(said).map(|trap| trap.delivered)
    }

    fn pump(&self, mut from: TcpStream, mut to: TcpStream) {
        let mut bytes = vec![0; CHUNK];
        while let Ok(count @ 1..) = from.read(&mut bytes) {
            let mut state = self.state.lock();
            while *state == State::Held {
                self.changed.wait(&mut state);
            }
            drop(state);
            let sprung = self.spring(&bytes[..count]);
            if sprung != Some(false) && to.write_all(&bytes[..count]).is_err() {
                break;
            }
            if sprung.is_some() {
                let _ = from.shutdown(Shutdown::Both);
            }
        }
        let _ = to.shutdown(Shutdown::Write);
    }
}
