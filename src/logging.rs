//! Log lines: how they look and how they get out. One event, one line; what came from the wire can
//! neither break a line nor paint the terminal; a reader that stalls costs lines, never traffic.
//! What is logged, and whether, is decided where it happens.

mod line;

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::clock::{Clock, SystemClock};
use crate::metrics::Metrics;
use crate::settings::{LogFormat, LogSettings};

/// Lines that may wait for a slow reader; with the longest lines, tens of megabytes.
const LINES_MAX: usize = 4096;

/// How long the last lines may take at the end.
const FLUSH_MAX: Duration = Duration::from_secs(1);

/// Starts logging to standard error. The filter is read from the environment variable `filter_env`
/// and is `default` where that is unset or wrong. Keep the guard: dropping it writes what waits.
pub fn init(settings: LogSettings, filter_env: &str, default: &str) -> LogGuard {
    let wanted = std::env::var(filter_env).ok();
    let parsed = wanted.as_deref().map(EnvFilter::try_new);
    let wrong = matches!(parsed, Some(Err(_)));
    let filter = parsed.and_then(Result::ok).unwrap_or_else(|| EnvFilter::new(default));
    let (writer, guard) = writer(io::stderr());
    let layer = LineLayer { format: settings.format, clock: SystemClock::new(), writer };
    // Somebody else's logger (a test's) stays.
    let _ = tracing_subscriber::registry().with(layer.with_filter(filter)).try_init();
    if wrong {
        tracing::warn!(target: "headcount::logging", "{filter_env} is not a valid filter; using {default}");
    }
    guard
}

enum Message {
    Line(String),
    Flush(SyncSender<()>),
}

/// Hands lines to the writing thread; never waits for it.
#[derive(Clone)]
struct Writer {
    lines: SyncSender<Message>,
    dropped: Arc<Dropped>,
}

#[derive(Default)]
struct Dropped {
    /// Since the last line about it.
    unsaid: AtomicU64,
    metrics: OnceLock<Arc<Metrics>>,
}

impl Dropped {
    fn add(&self) {
        self.unsaid.fetch_add(1, Ordering::Relaxed);
        if let Some(metrics) = self.metrics.get() {
            metrics.log_lines_dropped.inc();
        }
    }
}

impl Writer {
    fn send(&self, line: String) {
        if self.lines.try_send(Message::Line(line)).is_err() {
            self.dropped.add();
        }
    }
}

/// Writes what waits when dropped.
pub struct LogGuard {
    writer: Writer,
}

impl LogGuard {
    /// Counts dropped lines in `metrics` from now on.
    pub fn count_in(&self, metrics: &Arc<Metrics>) {
        let _ = self.writer.dropped.metrics.set(Arc::clone(metrics));
    }

    /// Waits until every line so far is out, one second at most.
    pub fn flush(&self) {
        let until = Instant::now() + FLUSH_MAX;
        let (done, wait) = sync_channel(1);
        let mut message = Message::Flush(done);
        while let Err(TrySendError::Full(back)) = self.writer.lines.try_send(message) {
            if Instant::now() >= until {
                return;
            }
            message = back;
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = wait.recv_timeout(until.saturating_duration_since(Instant::now()));
    }
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        self.flush();
    }
}

fn writer(sink: impl Write + Send + 'static) -> (Writer, LogGuard) {
    let (lines, queue) = sync_channel(LINES_MAX);
    let dropped = Arc::new(Dropped::default());
    let writer = Writer { lines, dropped: Arc::clone(&dropped) };
    // Without the thread every line is dropped and counted: no reason not to serve.
    let _ = std::thread::Builder::new()
        .name("log".into())
        .spawn(move || write_lines(sink, &queue, &dropped));
    (writer.clone(), LogGuard { writer })
}

/// A sink that fails (a closed pipe, a full disk) loses lines; it may recover.
fn write_lines(mut sink: impl Write, queue: &Receiver<Message>, dropped: &Dropped) {
    while let Ok(message) = queue.recv() {
        match message {
            Message::Line(mut line) => {
                line.push('\n');
                match sink.write_all(line.as_bytes()) {
                    Ok(()) => say_dropped(&mut sink, dropped),
                    Err(_) => dropped.add(),
                }
            }
            Message::Flush(done) => {
                say_dropped(&mut sink, dropped);
                let _ = sink.flush();
                let _ = done.try_send(());
            }
        }
    }
}

fn say_dropped(sink: &mut impl Write, dropped: &Dropped) {
    let unsaid = dropped.unsaid.swap(0, Ordering::Relaxed);
    if unsaid == 0 {
        return;
    }
    let line = format!(
        "{{\"level\":\"warn\",\"target\":\"headcount::logging\",\"message\":\"log lines dropped\",\"count\":{unsaid}}}\n"
    );
    if sink.write_all(line.as_bytes()).is_err() {
        dropped.unsaid.fetch_add(unsaid, Ordering::Relaxed);
    }
}

/// Makes a line of every event and sends it off.
struct LineLayer {
    format: LogFormat,
    clock: SystemClock,
    writer: Writer,
}

impl<S: Subscriber> Layer<S> for LineLayer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        // What libraries say at their finest levels may quote the traffic, and with it secrets.
        if *metadata.level() > Level::INFO && !metadata.target().starts_with("headcount") {
            return;
        }
        self.writer.send(line::format(self.format, self.clock.now(), event));
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;

    /// A sink that can be held up, and can fail.
    #[derive(Clone, Default)]
    struct Sink {
        text: Arc<Mutex<Vec<u8>>>,
        broken: Arc<std::sync::atomic::AtomicBool>,
    }

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.broken.load(Ordering::Relaxed) {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            self.text.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Sink {
        fn text(&self) -> String {
            String::from_utf8(self.text.lock().clone()).unwrap()
        }
    }

    #[test]
    fn a_stalled_reader_costs_lines_and_no_time() {
        let sink = Sink::default();
        let (writer, guard) = writer(sink.clone());
        let metrics = Arc::new(Metrics::new());
        guard.count_in(&metrics);
        let held = sink.text.lock();
        for number in 0..LINES_MAX + 1000 {
            writer.send(number.to_string());
        }
        drop(held);
        guard.flush();
        let dropped = metrics.log_lines_dropped.get();
        assert!((900..=1000).contains(&dropped), "{dropped}");
        let text = sink.text();
        assert!(text.starts_with("0\n{"), "told at the first chance");
        assert!(
            text.contains(&format!("\"log lines dropped\",\"count\":{dropped}}}\n")),
            "said once"
        );
    }

    #[test]
    fn a_broken_sink_is_survived() {
        let sink = Sink::default();
        sink.broken.store(true, Ordering::Relaxed);
        let (writer, guard) = writer(sink.clone());
        writer.send("lost".into());
        guard.flush();
        sink.broken.store(false, Ordering::Relaxed);
        writer.send("kept".into());
        guard.flush();
        assert!(sink.text().starts_with("kept\n{"), "{}", sink.text());
    }

    #[test]
    fn libraries_are_silent_at_the_finest_levels() {
        let sink = Sink::default();
        let (writer, guard) = writer(sink.clone());
        let layer = LineLayer { format: LogFormat::Json, clock: SystemClock::new(), writer };
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            tracing::trace!(target: "hyper::proto", "secret");
            tracing::trace!(target: "headcount::proxy", "ours");
            tracing::warn!(target: "sqlx", "theirs");
        });
        guard.flush();
        let text = sink.text();
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(!text.contains("secret"));
    }
}
