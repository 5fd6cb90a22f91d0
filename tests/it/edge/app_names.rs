//! The app's name and what it means. The names are in a file that `nss_wrapper` reads in place of
//! `/etc/hosts`, below the same `getaddrinfo` as ever.

use std::net::TcpListener;
use std::path::Path;

use super::*;

const URL: &str = "http://shop.test/";

/// An app at an address of its own, that says which it is.
fn app_at(ip: &'static str, port: u16) -> LegacyApp {
    let listener = TcpListener::bind((ip, port)).unwrap();
    LegacyApp::on(listener, move |request| match request.target() {
        "/last" => Reply::page("200 OK", &["Connection: close"], ip),
        _ => Reply::page("200 OK", &[], ip),
    })
}

struct Hosts(TempDir);

impl Hosts {
    fn new() -> Self {
        let hosts = Self(TempDir::new().unwrap());
        hosts.say(&[]);
        hosts
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("hosts")
    }

    /// What the name means from now on.
    fn say(&self, ips: &[&str]) {
        let lines: String = ips.iter().map(|ip| format!("{ip} app.headcount.test\n")).collect();
        let new = self.0.path().join("new");
        std::fs::write(&new, format!("{lines}127.0.0.1 other.test\n")).unwrap();
        std::fs::rename(new, self.file()).unwrap();
    }

    #[track_caller]
    fn proxy(&self, port: u16) -> Proxy {
        let library = "/usr/lib/x86_64-linux-gnu/libnss_wrapper.so";
        let library = match Path::new(library).exists() {
            true => library,
            // Where the dynamic linker looks, on other machines.
            false => "libnss_wrapper.so",
        };
        let toml = format!(
            "limit.max_sessions = 1\nserver.workers = 1\nupstream.url = \"http://app.headcount.test:{port}\"\nupstream.resolve_interval = \"1s\"\nupstream.timeouts.idle = \"30s\"\n{RULES}"
        );
        let hosts = self.file();
        let environment = [("LD_PRELOAD", library), ("NSS_WRAPPER_HOSTS", hosts.to_str().unwrap())];
        Proxy::start_within(&environment, &toml)
    }
}

#[test]
fn a_name_is_resolved_again_while_connections_are_in_use() {
    let first = app_at("127.0.0.1", 0);
    let port = first.address.port();
    let second = app_at("127.0.0.2", port);
    let hosts = Hosts::new();
    hosts.say(&["127.0.0.1"]);
    let proxy = hosts.proxy(port);
    let curl = Curl::new(&proxy, &[]);
    assert_eq!(curl.get(URL, &[]).body, "127.0.0.1");
    hosts.say(&["127.0.0.2"]);
    // The old address still answers, and its connection is never idle for long.
    eventually("the app has moved", || (curl.get(URL, &[]).body == "127.0.0.2").then_some(()));
    let log = proxy.log().join("\n");
    assert!(log.contains("the app's name has other addresses"), "{log}");
    // The name is lost: the last good answer counts, and it is said once.
    hosts.say(&[]);
    eventually("it is told", || {
        assert_eq!(curl.get(URL, &["-H", "Connection: close"]).body, "127.0.0.2");
        proxy.log().into_iter().find(|line| line.contains("the app's name cannot be resolved"))
    });
    curl.get(&format!("{URL}last"), &[]);
    drop(second);
    eventually("the app is gone", || (curl.get(URL, &[]).status == 502).then_some(()));
    assert_eq!(curl.get(URL, &[]).status, 502);
    let told = || {
        let log = proxy.log();
        log.iter().filter(|line| line.contains("cannot be resolved")).count()
    };
    assert_eq!(told(), 1);
    hosts.say(&["127.0.0.1"]);
    eventually("it is found again", || {
        let answer = curl.get(URL, &[]);
        (answer.status == 200).then(|| assert_eq!(answer.body, "127.0.0.1"))
    });
    assert!(proxy.log().join("\n").contains("can be resolved again"));
}

#[test]
fn of_many_addresses_one_that_works_is_found() {
    let app = app_at("127.0.0.9", 0);
    let hosts = Hosts::new();
    hosts.say(&["::1", "127.0.0.7", "127.0.0.8", "127.0.0.9"]);
    let proxy = hosts.proxy(app.address.port());
    assert_eq!(Curl::new(&proxy, &[]).get(URL, &[]).body, "127.0.0.9");
    // A name that never meant anything.
    let hosts = Hosts::new();
    let proxy = hosts.proxy(app.address.port());
    assert!(Curl::new(&proxy, &[]).get(URL, &[]).status >= 502);
}
