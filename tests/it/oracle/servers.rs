//! The same inputs through the proxy to real servers, each with an app that accounts for every request
//! it saw: in its answers, and in a file that nobody who confuses answers can confuse.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use super::inputs::{Input, inputs};
use super::{KEYS, RULES, exchange, shown, soak};
use crate::fuzzing::targets::proxy::{expected, read_answer};
use crate::fuzzing::targets::strict;
use crate::support::process::Process;
use crate::support::proxy::Proxy;
use crate::support::site::address;
use crate::support::{top, within};

/// Clients at a time: some servers have few threads.
const CLIENTS: usize = 16;
/// Each server gets every so manieth input, another share than the others; in a soak it gets all.
const SHARE: usize = 4;

/// How the app is started, which of the shares it gets.
fn command(server: &str) -> Command {
    let folder = top().join("tests/sites/oracle");
    let mut command = match server {
        "http" | "express" => {
            let mut command = Command::new("node");
            command.args(["app.js", server]);
            command
        }
        "php" => {
            let mut command = Command::new("php");
            // Requests for files are answered by the app too.
            command.args(["-d", "enable_post_data_reading=0", "-S", "127.0.0.1:0", "app.php"]);
            command
        }
        server => {
            let mut command = Command::new(top().join(".venv/bin/python"));
            let own = ["nginx", "apache", "tomcat"].contains(&server);
            command
                .args([if own { "front.py" } else { "app.py" }, server])
                .env("PYTHONDONTWRITEBYTECODE", "1");
            command
        }
    };
    command.current_dir(folder);
    command
}

/// Where a server listens that has an address of its own.
fn listening(line: &str) -> Option<SocketAddr> {
    line.strip_prefix("listens on ")?.parse().ok()
}

/// Without what some servers do not tell: that a query is there, but empty.
fn plain(account: &str) -> String {
    let account = account.trim_end();
    account.strip_suffix('?').unwrap_or(account).replace("? ", " ")
}

/// What a client got: the accounts in order. The server may refuse what the proxy takes, and then
/// nothing more is known of this connection.
fn accounts(mut bytes: &[u8]) -> Result<Vec<String>, String> {
    let mut accounts = Vec::new();
    while !bytes.is_empty() {
        match read_answer(&mut bytes).ok_or_else(|| bytes.escape_ascii().to_string())? {
            // Apache itself answers `OPTIONS *`.
            (200, account) if account.is_empty() => {}
            (200, account) => accounts.push(plain(&account)),
            (100..200, _) => {}
            _ => {}
        }
    }
    Ok(accounts)
}

/// What the server's app may have seen of an input: no more than a strict reader finds in it, in the
/// same order.
fn judge(input: &Input, answers: &[u8]) -> Result<Vec<String>, String> {
    let found = accounts(answers)?;
    let expected = expected(&input.bytes);
    let expected: Vec<_> = expected.iter().map(|seen| plain(&seen.account_in_hex())).collect();
    let mut left = expected.iter();
    for account in &found {
        if !left.any(|known| known == account) {
            return Err(format!("the server saw {found:?}, a strict reader {expected:?}"));
        }
    }
    Ok(found)
}

fn assert_agrees(server: &str, share: usize) {
    let log = tempfile::NamedTempFile::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut process = Process::start(server, command(server).env("ORACLE_LOG", log.path()));
    let app = within(super::PATIENCE, "the server listens", || {
        assert!(
            process.ended().is_none(),
            "{server} ended, run tests/setup: {:?}",
            process.lines()
        );
        process.lines().iter().find_map(|line| listening(line).or_else(|| address(line)))
    });
    let proxy = Proxy::start(app, None, &format!("{KEYS}{RULES}"));
    let taken = |number: &usize| soak() || number % SHARE == share % SHARE;
    let inputs: Vec<Input> = inputs()
        .into_iter()
        .enumerate()
        .filter(|(number, _)| taken(number))
        .map(|(_, input)| input)
        .collect();
    let (inputs, address) = (Arc::new(Mutex::new(inputs)), proxy.address);
    let (told, wrong) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
    Runtime::new().unwrap().block_on(async {
        let mut tasks = JoinSet::new();
        for _ in 0..CLIENTS {
            let (inputs, told, wrong) = (inputs.clone(), told.clone(), wrong.clone());
            tasks.spawn(async move {
                loop {
                    let Some(input) = inputs.lock().pop() else { return };
                    let answers = exchange(address, &[&input.bytes]).await;
                    match judge(&input, &answers) {
                        Ok(accounts) => told.lock().extend(accounts),
                        Err(why) => {
                            wrong.lock().push(format!("{}\n    {why}", input.bytes.escape_ascii()));
                        }
                    }
                }
            });
        }
        while let Some(ended) = tasks.join_next().await {
            ended.unwrap();
        }
    });
    let wrong = wrong.lock();
    assert!(wrong.is_empty(), "{server} disagrees on {}:\n{}", wrong.len(), shown(&wrong));
    let mut told = std::mem::take(&mut *told.lock());
    let logged = std::fs::read(log.path()).unwrap();
    let mut logged: Vec<String> = logged
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| plain(&strict::text(line)))
        .collect();
    told.sort();
    logged.sort();
    let untold: Vec<String> =
        logged.iter().filter(|line| told.binary_search(line).is_err()).cloned().collect();
    assert!(untold.is_empty(), "{server} saw what no client was told:\n{}", shown(&untold));
    assert_eq!(told, logged, "{server}");
    assert!(told.len() > 100, "{server} saw {} requests", told.len());
    println!("{server}: {} requests seen", told.len());
}

#[test]
fn soak_aiohttp_sees_what_was_judged() {
    assert_agrees("aiohttp", 0);
}

#[test]
fn soak_apache_sees_what_was_judged() {
    assert_agrees("apache", 2);
}

#[test]
fn soak_express_sees_what_was_judged() {
    assert_agrees("express", 1);
}

#[test]
fn soak_gunicorn_sees_what_was_judged() {
    assert_agrees("gunicorn", 2);
}

#[test]
fn soak_nginx_sees_what_was_judged() {
    assert_agrees("nginx", 1);
}

#[test]
fn soak_node_sees_what_was_judged() {
    assert_agrees("http", 3);
}

#[test]
fn soak_php_sees_what_was_judged() {
    assert_agrees("php", 0);
}

#[test]
fn soak_tomcat_sees_what_was_judged() {
    assert_agrees("tomcat", 3);
}

#[test]
fn soak_tornado_sees_what_was_judged() {
    assert_agrees("tornado", 1);
}

#[test]
fn soak_uvicorn_sees_what_was_judged() {
    assert_agrees("uvicorn", 2);
}

#[test]
fn soak_waitress_sees_what_was_judged() {
    assert_agrees("waitress", 3);
}
