//! When the next request is due. At a fixed rate the times are fixed beforehand, and an answer's
//! latency counts from when its request was due: who is slow does not get asked less often.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe::Receiver;
use tokio::sync::Notify;

use crate::Totals;

/// Shared by all clients of a run.
pub struct Pace {
    rate: Option<u64>,
    duration: Duration,
    requests: u64,
    begun: Cell<Instant>,
    next: Cell<u64>,
    over: Cell<bool>,
    ready: Cell<usize>,
    due: RefCell<VecDeque<(u64, Instant)>>,
    wake: Notify,
    start: Notify,
    totals: RefCell<Totals>,
}

/// One request to make.
pub struct Turn {
    pub number: u64,
    due: Instant,
}

impl Pace {
    pub fn new(rate: Option<u64>, duration: Duration, requests: u64) -> io::Result<Rc<Self>> {
        Ok(Rc::new(Self {
            rate,
            duration,
            requests,
            begun: Cell::new(Instant::now()),
            next: Cell::new(0),
            over: Cell::new(false),
            ready: Cell::new(0),
            due: RefCell::default(),
            wake: Notify::new(),
            start: Notify::new(),
            totals: RefCell::default(),
        }))
    }

    /// A client has connected.
    pub async fn ready(&self) {
        self.ready.set(self.ready.get() + 1);
        self.wake.notify_one();
        self.start.notified().await;
    }

    pub async fn wait_ready(&self, clients: usize) {
        while self.ready.get() < clients {
            self.wake.notified().await;
        }
    }

    pub fn begin(self: &Rc<Self>) {
        self.begun.set(Instant::now());
        if let Some(rate) = self.rate {
            tokio::task::spawn_local(Rc::clone(self).tick(rate));
        }
        self.start.notify_waiters();
    }

    /// Puts requests into the queue when they are due.
    async fn tick(self: Rc<Self>, rate: u64) {
        let interval = Duration::from_nanos(1_000_000_000 / rate);
        let Ok(mut timer) = timer(interval) else { return self.end() };
        let total = rate * self.duration.as_millis() as u64 / 1000;
        let mut at = 0;
        while at < total {
            let mut times = [0; 8];
            if timer.read_exact(&mut times).await.is_err() {
                return self.end();
            }
            for _ in 0..u64::from_ne_bytes(times).min(total - at) {
                at += 1;
                let due = self.begun.get() + interval * at as u32;
                self.due.borrow_mut().push_back((at, due));
                self.wake.notify_one();
            }
        }
        self.end();
    }

    fn end(&self) {
        self.over.set(true);
        self.wake.notify_waiters();
        // For one that is about to wait.
        self.wake.notify_one();
    }

    /// The next request; `None` when the run is over.
    pub async fn turn(&self) -> Option<Turn> {
        if self.rate.is_none() {
            let number = self.next.get();
            if number >= self.requests || self.begun.get().elapsed() >= self.duration {
                return None;
            }
            self.next.set(number + 1);
            return Some(Turn { number, due: Instant::now() });
        }
        loop {
            if let Some((number, due)) = self.due.borrow_mut().pop_front() {
                return Some(Turn { number, due });
            }
            if self.over.get() {
                self.wake.notify_one();
                return None;
            }
            self.wake.notified().await;
        }
    }

    /// A request was answered.
    pub fn done(&self, turn: &Turn, good: bool) {
        let mut totals = self.totals.borrow_mut();
        totals.answered += u64::from(good);
        totals.failed += u64::from(!good);
        let latency = turn.due.elapsed().as_micros();
        totals.latencies_us.push(u32::try_from(latency).unwrap_or(u32::MAX));
    }

    /// A client broke off.
    pub fn fail(&self, error: &io::Error) {
        let first = self.totals.borrow().failed == 0;
        self.totals.borrow_mut().failed += 1;
        if first {
            eprintln!("a client broke off: {error}");
        }
    }

    pub fn totals(&self) -> std::cell::Ref<'_, Totals> {
        self.totals.borrow()
    }
}

fn timer(interval: Duration) -> io::Result<Receiver> {
    let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
    let timer = rustix::time::timerfd_create(TimerfdClockId::Monotonic, flags)?;
    let interval =
        Timespec { tv_sec: interval.as_secs() as i64, tv_nsec: interval.subsec_nanos().into() };
    let times = Itimerspec { it_interval: interval, it_value: interval };
    rustix::time::timerfd_settime(&timer, TimerfdTimerFlags::empty(), &times)?;
    // Read like a pipe: the runtime has no type for timers of the system.
    Receiver::from_owned_fd_unchecked(timer)
}
