//! WebSockets between clients and servers that others have written: every byte both ways, and a close
//! frame that says why it is over.

use std::process::Command;

use crate::support::browser::Browser;
use crate::support::process::Process;
use crate::support::proxy::Proxy;
use crate::support::site::address;
use crate::support::{PATIENCE, top, within};

const BYTES: u64 = 100 << 20;

const RULES: &str = r#"
limit.max_sessions = 1
[[credential]]
at = "cookie:sid"
[[login]]
request = { methods = ["GET"], path = "/login" }
success = { status = [302], sets = "sid" }
user = ["query:user"]
"#;

/// Which of two independent implementations.
#[derive(Clone, Copy, Debug)]
enum Package {
    /// `websockets` for Python.
    Websockets,
    /// `ws` for Node.
    Ws,
}

impl Package {
    fn run(self, arguments: &[&str]) -> Process {
        let (program, script) = match self {
            Self::Websockets => (top().join(".venv/bin/python"), "websocket.py"),
            Self::Ws => ("node".into(), "websocket.js"),
        };
        let mut command = Command::new(program);
        command.arg(script).args(arguments).current_dir(top().join("tests/clients"));
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        Process::start(&format!("{self:?}"), &mut command)
    }

    /// A client with the browser's cookies that sends so many bytes and gets them back.
    #[track_caller]
    fn client(self, proxy: &Proxy, browser: &Browser, bytes: u64) -> Process {
        let cookies = browser.cookie_line("/ws");
        let client = self.run(&[&proxy.address.to_string(), &cookies, &bytes.to_string()]);
        wait_for_line(&client, &format!("echoed {bytes} bytes, the same"));
        client
    }
}

#[track_caller]
fn wait_for_line(process: &Process, line: &str) {
    within(3 * PATIENCE, line, || process.lines().iter().any(|known| known == line).then_some(()));
}

fn signed_in(proxy: &Proxy, user: &str) -> Browser {
    let mut browser = proxy.browser();
    assert_eq!(browser.get(&format!("/login?user={user}")).status, 302);
    browser
}

/// Both the server and the client are of this package.
#[track_caller]
fn assert_sockets(server: Package, client: Package) {
    let mut process = server.run(&["serve"]);
    let app = within(PATIENCE, "the server listens", || {
        assert!(process.ended().is_none(), "run tests/setup: {:?}", process.lines());
        process.lines().iter().find_map(|line| address(line))
    });
    let mut proxy = Proxy::start(app, None, RULES);
    let (alice, bob) = (signed_in(&proxy, "alice"), signed_in(&proxy, "bob"));
    let first = client.client(&proxy, &alice, BYTES);
    let other = client.client(&proxy, &bob, 1_000);
    signed_in(&proxy, "alice");
    wait_for_line(&first, "closed 1008");
    assert!(!other.lines().iter().any(|line| line.starts_with("closed")), "{:?}", other.lines());
    assert!(proxy.terminate().success());
    wait_for_line(&other, "closed 1001");
}

#[test]
fn websockets_of_python_pass_byte_for_byte_and_are_told_why_they_end() {
    assert_sockets(Package::Websockets, Package::Websockets);
}

#[test]
fn websockets_of_node_pass_byte_for_byte_and_are_told_why_they_end() {
    assert_sockets(Package::Ws, Package::Ws);
}
