//! One process in place of another: the sockets stay with the service manager, which is told how
//! things are.

use std::net::TcpListener;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::Arc;

use super::load::Load;
use super::*;
use crate::support::proxy::Kind;
use crate::support::{eventually, soak};

/// A listening socket as a service manager makes it, and the proxy that gets it.
#[track_caller]
fn activated(app: &LegacyApp, keys: &str) -> (Arc<TcpListener>, Proxy) {
    let listener = Arc::new(TcpListener::bind("127.0.0.1:0").unwrap());
    let address = listener.local_addr().unwrap();
    let kind = Kind { listener: Some(Arc::clone(&listener)), ..Kind::default() };
    let toml = format!("server.listen = \"{address}\"\n{keys}\n{RULES}");
    (listener, Proxy::start_as(app.address, None, &toml, kind))
}

/// Drains and restarts under 500 requests per second.
fn restarts(rounds: u64) {
    let app = app("app");
    let (_listener, mut proxy) = activated(&app, "limit.max_sessions = 1");
    let mut alice = signed_in(&proxy, "alice");
    let served = Load::during(proxy.address, |load| {
        for _ in 0..rounds {
            proxy.restart();
            load.wait_for(20);
        }
    });
    assert!(served > rounds * 20, "{served}");
    assert_eq!(alice.get("/").status, 200, "sessions survive");
}

#[test]
fn soak_drains_and_restarts_cost_no_request() {
    restarts(if soak() { 500 } else { 100 });
}

#[test]
fn who_comes_while_nobody_is_there_is_answered_by_the_next() {
    let app = app("app");
    let (listener, mut proxy) = activated(&app, "limit.max_sessions = 1\nserver.workers = 1");
    assert!(proxy.terminate().success());
    let address = listener.local_addr().unwrap();
    let request = Request::get("/").header("Host", &address.to_string());
    let mut waiting = Connection::open(address).unwrap();
    waiting.write(&request.bytes()).unwrap();
    proxy.start_again();
    let (response, _) = waiting.read_response("GET").unwrap();
    assert!(response.text().starts_with("app"));
}

#[test]
fn a_socket_that_no_key_is_for_is_an_error() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let toml = "server.listen = \"127.0.0.1:0\"\nupstream.url = \"http://127.0.0.1:9\"\n\
                app.preset = \"django\"\nlimit.max_sessions = 1\n";
    std::fs::write(folder.path().join("headcount.toml"), toml).unwrap();
    let passing = "export LISTEN_PID=$$ LISTEN_FDS=1; exec \"$0\" serve -c headcount.toml 3<&0";
    let output = std::process::Command::new("sh")
        .args(["-c", passing, env!("CARGO_BIN_EXE_headcount")])
        .current_dir(folder.path())
        .stdin(std::os::fd::OwnedFd::from(listener))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&format!("passed on a socket for {address}")), "{said}");
}

/// Two that shared an address would get some of the connections each, and count for themselves.
#[test]
fn a_second_one_on_the_same_address_does_not_start() {
    let app = app("app");
    let first = proxy(&app, "limit.max_sessions = 1\nserver.workers = 2");
    let folder = tempfile::tempdir().unwrap();
    for address in [first.address.to_string(), format!("0.0.0.0:{}", first.address.port())] {
        let toml = format!(
            "server.listen = \"{address}\"\nserver.workers = 2\napp.preset = \"django\"\n\
             upstream.url = \"http://127.0.0.1:9\"\nlimit.max_sessions = 1\n"
        );
        std::fs::write(folder.path().join("headcount.toml"), toml).unwrap();
        let output = std::process::Command::new("timeout")
            .args(["20", env!("CARGO_BIN_EXE_headcount"), "serve", "-c", "headcount.toml"])
            .current_dir(folder.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(&format!("cannot listen on {address}")), "{said}");
        assert!(said.contains("in use"), "{said}");
    }
}

#[test]
fn all_addresses_of_both_kinds_are_listened_on_at_once() {
    let app = app("app");
    let port = TcpListener::bind("[::]:0").unwrap().local_addr().unwrap().port();
    let listen = format!("server.listen = [\"0.0.0.0:{port}\", \"[::]:{port}\"]");
    let proxy = proxy(&app, &format!("limit.max_sessions = 1\nserver.workers = 2\n{listen}"));
    for address in [format!("127.0.0.1:{port}"), format!("[::1]:{port}")] {
        let address: SocketAddr = address.parse().unwrap();
        let mut connection = Connection::open(address).unwrap();
        assert!(ask(&mut connection, address, "/").unwrap().starts_with("app"), "{address}");
    }
    drop(proxy);
}

/// What a service manager hears, in order.
struct Supervisor {
    socket: UnixDatagram,
    path: PathBuf,
    _folder: tempfile::TempDir,
}

impl Supervisor {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Self { socket, path, _folder: folder }
    }

    /// The next message but for signs of life.
    #[track_caller]
    fn next(&self) -> String {
        loop {
            let message = self.any();
            if message != "WATCHDOG=1" {
                return message;
            }
        }
    }

    #[track_caller]
    fn any(&self) -> String {
        let mut bytes = [0; 512];
        let length = self.socket.recv(&mut bytes).expect("the manager hears something");
        String::from_utf8_lossy(&bytes[..length]).trim().to_owned()
    }
}

#[test]
fn the_service_manager_is_told() {
    let (app, manager) = (app("app"), Supervisor::new());
    let env = vec![
        ("NOTIFY_SOCKET", manager.path.display().to_string()),
        ("WATCHDOG_USEC", "400000".to_owned()),
    ];
    let toml = format!("limit.max_sessions = 1\n{RULES}");
    let kind = Kind { env, ..Kind::default() };
    let mut proxy = Proxy::start_as(app.address, None, &toml, kind);
    assert_eq!(manager.next(), "READY=1");
    for _ in 0..3 {
        assert_eq!(manager.any(), "WATCHDOG=1");
    }
    proxy.signal("HUP");
    let reloading = manager.next();
    let at = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
    assert!(at.parse::<u64>().unwrap() > 0);
    assert_eq!(manager.next(), "READY=1");
    eventually("the reload is done", || {
        (count(&proxy, "headcount_reloads_total{outcome=\"done\"}") == 1).then_some(())
    });
    assert!(proxy.terminate().success());
    assert_eq!(manager.next(), "STOPPING=1");
}
