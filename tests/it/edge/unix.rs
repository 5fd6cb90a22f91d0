//! Unix sockets.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;

use super::*;

const URL: &str = "http://shop.test/";
const LISTEN: &str = "server.listen = [\"127.0.0.1:0\", \"unix:edge.sock\"]\n";

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_unix_socket_serves_as_tcp_does() {
    let app = app();
    let proxy = proxy(&app, &format!("{LISTEN}server.workers = 2\n"));
    let socket = proxy.folder().join("edge.sock");
    assert_eq!(mode(&socket), 0o660);
    let curl = Curl::new(&proxy, &["--unix-socket", socket.to_str().unwrap()]);
    // Each is a connection of its own, to either worker.
    for _ in 0..8 {
        let answer = curl.get(URL, &["-H", "X-Forwarded-For: 192.0.2.7"]);
        assert_eq!((&*answer.said("for"), &*answer.said("proto")), ("", "http"));
        assert!(answer.said("forwarded").starts_with("for=unknown;"), "{answer:?}");
    }
    let other = Curl::new(&proxy, &[]);
    curl.sign_in("http://shop.test", "alice");
    assert_eq!(proxy.wait_for_event("session_created", "alice")["client_address"], "unix");
    other.sign_in("http://shop.test", "alice");
    assert_eq!(proxy.live("alice"), 1);
    // Nobody who can connect is believed about others, and bad requests are told apart by it.
    let bad = curl.get(URL, &["-H", "Host:", "--http1.1"]);
    assert_eq!(bad.status, 400);
    wait_for_refusal(&proxy, "host_missing");
}

#[test]
fn a_trusted_proxy_on_a_unix_socket_names_the_client() {
    let app = app();
    let keys = format!("{LISTEN}server.trusted_proxies = [\"unix\"]\nserver.unix_mode = \"600\"\n");
    let proxy = proxy(&app, &keys);
    let socket = proxy.folder().join("edge.sock");
    assert_eq!(mode(&socket), 0o600);
    let options = ["-H", "X-Forwarded-For: 6.6.6.6, 192.0.2.7", "-H", "X-Forwarded-Proto: https"];
    let here = Curl::new(&proxy, &["--unix-socket", socket.to_str().unwrap()]);
    let answer = here.get(URL, &options);
    assert_eq!((&*answer.said("for"), &*answer.said("proto")), ("6.6.6.6, 192.0.2.7", "https"));
    here.get("http://shop.test/login", &[&options[..], &["-d", "user=alice"]].concat());
    assert_eq!(proxy.wait_for_event("session_created", "alice")["client_address"], "192.0.2.7");
    // Over TCP nobody is trusted.
    let answer = Curl::new(&proxy, &[]).get(URL, &options);
    assert_eq!((&*answer.said("for"), &*answer.said("proto")), ("127.0.0.1", "http"));
}

#[test]
fn a_socket_nobody_listens_on_is_replaced() {
    let app = app();
    let mut proxy = proxy(&app, LISTEN);
    let socket = proxy.folder().join("edge.sock");
    proxy.kill9();
    assert!(socket.exists(), "a power cut leaves it");
    proxy.start_again();
    let curl = Curl::new(&proxy, &["--unix-socket", socket.to_str().unwrap()]);
    assert_eq!(curl.get(URL, &[]).status, 200);
    assert!(proxy.terminate().success());
    assert!(!socket.exists(), "an orderly end takes it away");
    // What is in use, or no socket, is left alone.
    for taken in [true, false] {
        let listener = taken.then(|| UnixListener::bind(&socket).unwrap());
        if !taken {
            std::fs::write(&socket, "a file").unwrap();
        }
        let output = Command::new(env!("CARGO_BIN_EXE_headcount"))
            .args(["serve", "-c", "headcount.toml"])
            .current_dir(proxy.folder())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains("unix:edge.sock"), "{said}");
        assert!(said.to_lowercase().contains("in use"), "{said}");
        assert!(socket.exists());
        drop(listener);
        std::fs::remove_file(&socket).unwrap();
    }
}
