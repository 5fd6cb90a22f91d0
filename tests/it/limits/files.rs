//! More connections than files may be open: those that find no room are told, nothing spins, and the
//! admin listener answers throughout.

use std::process::Command;
use std::time::Instant;

use super::*;
use crate::support::legacy::{LegacyApp, Reply};

/// How soon the admin listener answers.
const PROMPT: Duration = Duration::from_secs(1);

fn app() -> LegacyApp {
    LegacyApp::start(|_| Reply::page("200 OK", &[], "hello"))
}

/// At most a tenth of the time on a core.
#[track_caller]
fn assert_rests(proxy: &Proxy) {
    const LOOK: Duration = Duration::from_secs(2);
    let before = proxy.cpu_time();
    std::thread::sleep(LOOK);
    let used = proxy.cpu_time() - before;
    assert!(used < LOOK / 10, "{used:?} of {LOOK:?} on a core");
}

#[track_caller]
fn assert_admin_answers(proxy: &Proxy) {
    for path in ["/livez", "/readyz", "/metrics"] {
        let start = Instant::now();
        assert_eq!(proxy.admin("GET", path).status, 200, "{path}");
        assert!(start.elapsed() < PROMPT, "{path} took {:?}", start.elapsed());
    }
}

/// From now on the process may have so many files open.
fn set_open_files(proxy: &Proxy, limit: u32) {
    let id = proxy.id().to_string();
    let limit = format!("--nofile={limit}:20000");
    assert!(Command::new("prlimit").args(["--pid", &id, &limit]).status().unwrap().success());
}

#[test]
fn with_few_open_files_the_limits_are_lowered_and_the_rest_is_told() {
    let app = app();
    let proxy = Proxy::start_with_few_files(app.address, &configured(""), 256);
    let warning = proxy.log().into_iter().find(|line| line.contains("limit of open files"));
    assert!(warning.is_some_and(|line| line.contains("\"open_files\":256")), "{:?}", proxy.log());
    let mut open: Vec<_> =
        (0..600).map(|number| connect_from(client(number), proxy.address)).collect();
    eventually("those without room are refused", || {
        (refused(&proxy, "overloaded") + count(&proxy, "headcount_connections") == 600)
            .then_some(())
    });
    let held = count(&proxy, "headcount_connections");
    assert!((30..150).contains(&held), "{held} connections in 256 files");
    assert_admin_answers(&proxy);
    assert_rests(&proxy);
    let served = open.iter_mut().map(|stream| ask(stream, GET));
    let served = served.filter(|answer| answer.contains("200 OK")).count();
    assert_eq!(u64::try_from(served).unwrap(), held);
    drop(open);
    let start = Instant::now();
    eventually("it serves again", || serves(&proxy).then_some(()));
    assert!(start.elapsed() < Duration::from_secs(5));
    assert!(!proxy.log().iter().any(|line| line.contains("cannot accept")), "never without files");
}

#[test]
fn without_any_file_left_accepting_rests_and_recovers() {
    let app = app();
    let proxy = Proxy::start(app.address, None, &configured(""));
    assert!(serves(&proxy));
    // As when something else on the machine has taken what there was.
    set_open_files(&proxy, 20);
    let open: Vec<_> = (0..200).map(|number| connect_from(client(number), proxy.address)).collect();
    eventually("it says so", || {
        proxy.log().into_iter().find(|line| line.contains("cannot accept connections"))
    });
    assert_rests(&proxy);
    let lines = proxy.log().iter().filter(|line| line.contains("cannot accept")).count();
    assert!(lines < 60, "{lines} lines");
    set_open_files(&proxy, 20_000);
    let start = Instant::now();
    eventually("it serves again", || serves(&proxy).then_some(()));
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    assert_admin_answers(&proxy);
    drop(open);
    all_released(&proxy);
}
