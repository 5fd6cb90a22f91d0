//! `headcount learn`: asks the operator, in plain words, to do what has to be recorded, and prints
//! the configuration that was learned. What is learned from it is worked out in `crate::learn`.

use std::io::BufRead as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use super::{FAILED, OK, USAGE};
use crate::audit;
use crate::learn::credentials::Trials;
use crate::learn::record::Recorder;
use crate::learn::recording::{Phase, Recording};
use crate::learn::{Learned, Request, har, learn, replay};
use crate::terminal::{complain, safe, say};

const SENTENCE_CHARS_MAX: usize = 2048;

/// `learn …`
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LearnArgs {
    pub(super) source: Source,
    pub(super) listen: String,
    pub(super) out: Option<PathBuf>,
    pub(super) user: Option<String>,
    pub(super) presets: bool,
}

/// What is learned from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Upstream(String),
    Har(PathBuf),
}

/// Runs it; returns the exit code.
pub(super) fn run(args: &LearnArgs) -> u8 {
    if let Some(out) = args.out.as_ref().filter(|out| out.exists()) {
        complain(format!("headcount: {} is there already; it is left alone", out.display()));
        return USAGE;
    }
    let learned = super::local::run(async {
        match &args.source {
            Source::Upstream(url) => from_upstream(args, url).await,
            Source::Har(path) => from_har(args, path).await,
        }
    });
    match learned {
        Ok(Ok(learned)) => hand_over(args, &learned),
        Ok(Err(usage)) => {
            complain(format!("headcount: {usage}"));
            USAGE
        }
        Err(code) => code,
    }
}

async fn from_upstream(args: &LearnArgs, url: &str) -> anyhow::Result<Result<Learned, String>> {
    let Some(authority) = authority(url) else {
        let text = "--upstream takes an address like http://127.0.0.1:8000; before an app that \
                    speaks only https, record a HAR file";
        return Ok(Err(text.to_owned()));
    };
    let Ok(listen) = args.listen.parse::<SocketAddr>() else {
        return Ok(Err("--listen takes an address like 127.0.0.1:8080".to_owned()));
    };
    let recorder = Recorder::start(listen, &authority)
        .await
        .map_err(|error| anyhow::anyhow!("cannot listen on {listen}: {error}"))?;
    let address = recorder.address;
    complain(format!("Recording http://{address} in front of {url}. Nothing is written to disk."));
    let (recording, trials) = ask(args, &recorder, &authority).await;
    let request = Request {
        listen: address.to_string(),
        upstream: format!("http://{authority}"),
        upstream_guessed: false,
        user: args.user.clone(),
        presets: args.presets,
    };
    Ok(Ok(learn(&request, &recording, &trials)))
}

/// Goes through the phases; the pages are tried while the session lives.
async fn ask(args: &LearnArgs, recorder: &Recorder, authority: &str) -> (Recording, Trials) {
    let lines = lines();
    let name = args.user.as_ref().map_or("a test user".to_owned(), |user| safe(user));
    let mut trials = Trials::default();
    for (number, phase) in Phase::ALL.into_iter().enumerate() {
        recorder.enter(phase);
        complain(format!("\n{} of 5: {}", number + 1, instruction(phase, &name, recorder.address)));
        let before = recorder.look(|recording| recording.exchanges.len());
        let more = entered(&lines).await;
        recorder.settle().await;
        let after = recorder.look(|recording| recording.exchanges.len());
        complain(format!("   {} requests recorded", after.saturating_sub(before)));
        if phase == Phase::SecondLogin {
            complain("   Trying the pages again, with some cookies left out ...");
            let recording = recorder.take();
            trials = replay::try_pages(authority, &recording).await;
            recorder.put_back(recording);
        }
        if !more {
            break;
        }
    }
    let recording = recorder.take();
    if trials.pages.is_empty() {
        // The operator left before the pages could be tried.
        trials = replay::try_pages(authority, &recording).await;
    }
    if recording.in_phase(Phase::Logout).next().is_some() {
        trials.alive_after_logout = replay::alive(authority, &recording, &trials).await;
    }
    (recording, trials)
}

fn instruction(phase: Phase, name: &str, address: SocketAddr) -> String {
    match phase {
        Phase::WrongPassword => format!(
            "open http://{address}/ in a private window and try to log in as {name} with a WRONG \
             password. When the app has refused it, press Enter."
        ),
        Phase::Login => format!(
            "now log in as {name} with the right password (if there is a \"remember me\", tick \
             it). When you are in, press Enter."
        ),
        Phase::Pages => "open two or three pages that only you can see, best also one that shows \
                         your name. Then press Enter."
            .to_owned(),
        Phase::SecondLogin => format!(
            "open another browser (not a second tab) at http://{address}/ and log in there as \
             {name} too. Then press Enter."
        ),
        Phase::Logout => "go back to the first browser and log out. Then press Enter.".to_owned(),
    }
}

/// The lines of standard input, read by a thread of their own.
fn lines() -> mpsc::Receiver<()> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            if line.is_err() || sender.send(()).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Waits for Enter; `false` at the end of input.
async fn entered(lines: &mpsc::Receiver<()>) -> bool {
    loop {
        match lines.try_recv() {
            Ok(()) => return true,
            Err(mpsc::TryRecvError::Disconnected) => return false,
            Err(mpsc::TryRecvError::Empty) => {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        }
    }
}

async fn from_har(args: &LearnArgs, path: &Path) -> anyhow::Result<Result<Learned, String>> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) => return Ok(Err(format!("cannot read {}: {error}", path.display()))),
    };
    let (recording, origin) = match har::read(&text, args.user.as_deref()).await {
        Ok(read) => read,
        Err(error) => return Ok(Err(format!("{}: {error}", path.display()))),
    };
    let guess = authority(&origin).map(|authority| format!("http://{authority}"));
    let local = "http://127.0.0.1:8000".to_owned();
    let request = Request {
        listen: args.listen.clone(),
        upstream: guess.filter(|url| !url.ends_with(&args.listen)).unwrap_or(local),
        upstream_guessed: true,
        user: args.user.clone(),
        presets: args.presets,
    };
    Ok(Ok(learn(&request, &recording, &Trials::default())))
}

/// Writes the configuration, tells what it is worth.
fn hand_over(args: &LearnArgs, learned: &Learned) -> u8 {
    match &args.out {
        None => say(learned.toml.trim_end()),
        Some(path) => {
            use std::io::Write as _;
            let file = std::fs::OpenOptions::new().write(true).create_new(true).open(path);
            if let Err(error) = file.and_then(|mut file| file.write_all(learned.toml.as_bytes())) {
                complain(format!("headcount: cannot write {}: {error}", path.display()));
                return FAILED;
            }
        }
    }
    if let Some(preset) = learned.preset {
        complain(format!("\nThe preset {preset} explains everything that was recorded."));
    }
    for text in &learned.open {
        complain(format!("Could not tell: {}.", shown(text)));
    }
    if learned.faults.is_empty() {
        complain("Verified: the rules see in the recording what you did, no more and no less.");
        return OK;
    }
    complain("NOT VERIFIED. The rules see something else in the recording than what was done:");
    for fault in &learned.faults {
        for line in fault.lines() {
            complain(format!("- {}", shown(line)));
        }
    }
    FAILED
}

/// Sentences with paths in them that came over the wire.
fn shown(text: &str) -> String {
    audit::escape(text, SENTENCE_CHARS_MAX)
}

/// `host:port` of a plain address without a path.
pub(super) fn authority(url: &str) -> Option<String> {
    let parsed: http::Uri = url.parse().ok()?;
    let plain = parsed.scheme_str() == Some("http")
        && parsed.path() == "/"
        && parsed.query().is_none()
        && !url.contains(['@', '#']);
    let host = parsed.host().filter(|host| plain && !host.is_empty())?;
    Some(format!("{host}:{}", parsed.port_u16().unwrap_or(80)))
}
