//! A child process whose standard error is kept line by line, and which never outlives its owner.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::Mutex;

use super::eventually;

/// How much of the log a failed test shows.
const SHOWN_LINES: usize = 120;

/// A running program.
pub(crate) struct Process {
    name: String,
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
}

impl Process {
    /// Starts it. Its standard input stays open as long as this process lives.
    pub(crate) fn start(name: &str, command: &mut Command) -> Self {
        Self::start_reading(name, command, Stdio::piped())
    }

    /// Starts it with something else as its standard input.
    pub(crate) fn start_reading(name: &str, command: &mut Command, input: Stdio) -> Self {
        command.stdin(input).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => panic!("{command:?}: {error}"),
        };
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (errors, kept) = (child.stderr.take().unwrap(), Arc::clone(&lines));
        let reader = thread::spawn(move || {
            for line in BufReader::new(errors).split(b'\n').map_while(Result::ok) {
                kept.lock().push(String::from_utf8_lossy(&line).into_owned());
            }
        });
        Self { name: name.into(), child, lines, reader: Some(reader) }
    }

    /// Everything it has said so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.lines.lock().clone()
    }

    /// Types a line, as at a terminal.
    #[track_caller]
    pub(crate) fn type_line(&mut self, line: &str) {
        let input = self.child.stdin.as_mut().unwrap();
        writeln!(input, "{line}").unwrap();
        input.flush().unwrap();
    }

    /// The time that it has had on a core, all threads together: what it takes on a machine where
    /// others are at work too.
    pub(crate) fn cpu_time(&self) -> Duration {
        const TICKS_PER_SECOND: u64 = 100;
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        // The name may have blanks in it; user and system time are the 14th and 15th field.
        let fields = stat.rsplit_once(')').unwrap().1.split_whitespace().skip(11).take(2);
        let ticks: u64 = fields.map(|field| field.parse::<u64>().unwrap()).sum();
        Duration::from_millis(ticks * 1_000 / TICKS_PER_SECOND)
    }

    /// Bytes of memory that it has at present.
    pub(crate) fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// The number that the system knows it by.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it did.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Sends it a signal, by its name.
    #[track_caller]
    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args([&format!("-{name}"), &*id]).status().unwrap();
        assert!(sent.success(), "{} was running", self.name);
    }

    /// Asks it to stop, and waits until it has.
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        self.signal("TERM");
        let what = format!("{} stops when asked", self.name);
        let status = eventually(&what, || self.child.try_wait().unwrap());
        self.finish_reading();
        status
    }

    /// Ends it without asking (SIGKILL).
    pub(crate) fn kill(&mut self) {
        // An error means that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.finish_reading();
    }

    fn finish_reading(&mut self) {
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            let lines = self.lines();
            println!("--- {}: last of {} lines", self.name, lines.len());
            for line in &lines[lines.len().saturating_sub(SHOWN_LINES)..] {
                println!("{line}");
            }
        }
    }
}
