//! TLS: which certificate, which versions, whose clients, and new certificates while it runs.

use std::io::{Read as _, Write as _};
use std::process::Command;
use std::time::{Duration, Instant};

use super::*;
use crate::support::raw;

const SHOP: &str = "https://shop.test/";

#[test]
fn a_login_flow_over_tls_keeps_the_limit() {
    let app = app();
    let proxy = proxy(&app, &tls("shop"));
    check_the_limit(&proxy, "https://shop.test", &["--http1.1"], "HTTP/1.1");
    let answer = Curl::new(&proxy, &["--http1.1"]).get(SHOP, &[]);
    assert_eq!((&*answer.said("proto"), &*answer.said("for")), ("https", "127.0.0.1"));
    assert!(answer.said("forwarded").ends_with("proto=https"), "{answer:?}");
    let port = proxy.address.port();
    assert_eq!(answer.said("host"), "shop.test", "whatever the port {port}");
}

#[test]
fn the_certificate_is_the_one_for_the_name() {
    let app = app();
    let certificates =
        format!("server.tls = [{{ {} }}, {{ {} }}]\n", files("shop"), files("other"));
    let proxy = proxy(&app, &certificates);
    let curl = Curl::new(&proxy, &[]);
    for url in [SHOP, "https://www.shop.test/", "https://other.test/"] {
        assert_eq!(curl.get(url, &[]).status, 200, "{url}");
    }
    let error = curl.fails("https://third.test/", &[]);
    assert!(error.contains("no alternative certificate subject name"), "{error}");
    // The name in the handshake chooses no more than the certificate.
    let answer = curl.get(SHOP, &["-H", "Host: other.test"]);
    assert_eq!(answer.said("host"), "other.test");
    // Without a name: the first.
    let subject = s_client(&proxy, "-noservername");
    assert!(subject.contains("CN = shop") || subject.contains("CN=shop"), "{subject}");
}

#[test]
fn the_host_has_to_be_the_name_of_the_handshake_where_that_is_wanted() {
    let app = app();
    let keys = "server.host_is_sni = true\n";
    let proxy = proxy(&app, &format!("{}{keys}", tls("shop")));
    for version in ["--http1.1", "--http2"] {
        let curl = Curl::new(&proxy, &[version]);
        for url in [SHOP, "https://www.shop.test/"] {
            assert_eq!(curl.get(url, &[]).status, 200, "{url} {version}");
        }
        for host in ["other.test", "www.shop.test", "127.0.0.1"] {
            let answer = curl.get(SHOP, &["-H", &format!("Host: {host}")]);
            assert_eq!(answer.status, 421, "{host} {version}");
        }
        // Addresses are not named in handshakes.
        let url = format!("https://{}/", proxy.address);
        assert_eq!(curl.get(&url, &["-k"]).status, 200, "{version}");
        assert_eq!(curl.get(&url, &["-k", "-H", "Host: shop.test"]).status, 421, "{version}");
    }
    wait_for_refusal(&proxy, "host_unknown");
}

/// What `openssl s_client` says about a handshake.
fn s_client(proxy: &Proxy, options: &str) -> String {
    let address = proxy.address.to_string();
    let output = Command::new("openssl")
        .args(["s_client", "-connect", &address])
        .args(options.split(' '))
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat()
}

#[test]
fn only_tls_1_2_and_1_3_are_spoken() {
    let app = app();
    let proxy = proxy(&app, &tls("shop"));
    let curl = Curl::new(&proxy, &[]);
    for version in ["1.2", "1.3"] {
        let only = [&*format!("--tlsv{version}"), "--tls-max", version];
        assert_eq!(curl.get(SHOP, &only).status, 200, "{version}");
    }
    for old in ["-tls1 -cipher ALL:@SECLEVEL=0", "-tls1_1 -cipher ALL:@SECLEVEL=0"] {
        let said = s_client(&proxy, old);
        assert!(said.contains("alert") && said.contains("Cipher is (NONE)"), "{said}");
    }
    wait_for_refusal(&proxy, "tls_handshake");
}

#[test]
fn clients_need_a_certificate_of_the_authority() {
    let app = app();
    let ca = pki("ca.pem");
    for (auth, without) in [("required", false), ("optional", true)] {
        let keys = format!(
            "server.tls = {{ {}, client_ca = {ca:?}, client_auth = \"{auth}\" }}\n",
            files("shop")
        );
        let proxy = proxy(&app, &keys);
        let (certificate, key) = (pki("client.pem"), pki("client.key"));
        let known = ["--cert", certificate.to_str().unwrap(), "--key", key.to_str().unwrap()];
        assert_eq!(Curl::new(&proxy, &known).get(SHOP, &[]).status, 200);
        let (certificate, key) = (pki("stranger.pem"), pki("stranger.key"));
        let stranger = ["--cert", certificate.to_str().unwrap(), "--key", key.to_str().unwrap()];
        Curl::new(&proxy, &stranger).fails(SHOP, &[]);
        wait_for_refusal(&proxy, "tls_handshake");
        match without {
            true => assert_eq!(Curl::new(&proxy, &[]).get(SHOP, &[]).status, 200),
            // Told every time, however the closing races with the request.
            false => (0..20).for_each(|_| {
                let error = Curl::new(&proxy, &[]).fails(SHOP, &[]);
                assert!(error.contains("certificate required"), "{error}");
            }),
        }
    }
}

/// What `headcount check` says about a configuration with this in it.
#[track_caller]
fn complaint(tls: &str) -> String {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("text.pem"), "no certificate").unwrap();
    std::fs::write(folder.path().join("cut.pem"), "-----BEGIN CERTIFICATE-----\nMIIB").unwrap();
    let toml = format!(
        "server.tls = {tls}\nupstream.url = \"http://127.0.0.1:1\"\nlimit.max_sessions = 1\n{RULES}"
    );
    std::fs::write(folder.path().join("headcount.toml"), toml).unwrap();
    let checked = Command::new(env!("CARGO_BIN_EXE_headcount"))
        .args(["check", "-c", "headcount.toml"])
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert_eq!(checked.status.code(), Some(2));
    String::from_utf8_lossy(&checked.stderr).into_owned()
}

#[test]
fn files_that_do_not_work_are_named_before_anything_starts() {
    let (shop, key, other) = (pki("shop.pem"), pki("shop.key"), pki("other.key"));
    let table = [
        (
            format!("{{ certificate = {shop:?}, key = {other:?} }}"),
            format!("{} is not the key of {}", other.display(), shop.display()),
        ),
        (
            format!("{{ certificate = \"none.pem\", key = {key:?} }}"),
            "cannot read none.pem: No such file".into(),
        ),
        (
            format!("{{ certificate = \"text.pem\", key = {key:?} }}"),
            "text.pem holds no certificate".into(),
        ),
        (
            format!("{{ certificate = \"cut.pem\", key = {key:?} }}"),
            "cut.pem is not a PEM file: a section has no end".into(),
        ),
        (
            format!("{{ certificate = {shop:?}, key = {shop:?} }}"),
            format!("{} holds no private key", shop.display()),
        ),
        (
            format!("{{ certificate = {shop:?}, key = {key:?}, client_ca = \"text.pem\" }}"),
            "text.pem holds no certificate".into(),
        ),
        (
            format!("{{ certificate = {shop:?}, key = {key:?}, client_auth = \"required\" }}"),
            "`server.tls.client_auth` says nothing without `client_ca`".into(),
        ),
        (format!("{{ certificate = {shop:?} }}"), "`server.tls.key` is missing".into()),
        ("[]".into(), "`server.tls` is an empty list".into()),
    ];
    for (tls, expected) in table {
        let said = complaint(&tls);
        assert!(said.contains(&expected), "{tls}: {said}");
        assert!(said.contains("headcount.toml:"), "{said}");
    }
}

#[test]
fn an_expired_certificate_is_warned_of() {
    let app = app();
    let proxy = proxy(&app, &tls("expired"));
    eventually("a warning", || {
        proxy.log().into_iter().find(|line| line.contains("certificate has expired"))
    });
    let curl = Curl::new(&proxy, &[]);
    assert!(curl.fails(SHOP, &[]).contains("expired"));
    assert_eq!(curl.get(SHOP, &["-k"]).status, 200);
}

#[test]
fn handshakes_that_do_not_end_are_closed_in_time() {
    let app = app();
    let keys = format!("{}server.limits.tls_handshake_timeout = \"300ms\"\n", tls("shop"));
    let proxy = proxy(&app, &keys);
    let started = Instant::now();
    let mut silent = raw::connect(proxy.address);
    let mut slow = raw::connect(proxy.address);
    let writer = slow.try_clone().unwrap();
    let trickle = std::thread::spawn(move || {
        let mut writer = writer;
        // The start of a record that is never whole.
        for byte in [0x16, 3, 1, 2, 0, 1, 0, 1].into_iter().chain(std::iter::repeat_n(3, 200)) {
            if writer.write_all(&[byte]).is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    let mut rest = Vec::new();
    let _ = slow.read_to_end(&mut rest);
    assert_eq!(silent.read(&mut [0; 1]).unwrap(), 0);
    let took = started.elapsed();
    assert!(took >= Duration::from_millis(250) && took < Duration::from_secs(3), "{took:?}");
    trickle.join().unwrap();
    wait_for_refusal(&proxy, "tls_handshake");
    assert_eq!(Curl::new(&proxy, &[]).get(SHOP, &[]).status, 200);
}

#[test]
fn the_wrong_protocol_is_closed_and_told() {
    let app = app();
    let secure = proxy(&app, &tls("shop"));
    let answer = raw::raw(secure.address, b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n");
    assert_eq!(raw::status(&answer), 400);
    wait_for_refusal(&secure, "plain_http");
    raw::raw(secure.address, &[0x16, 3, 1, 0, 3, 1, 2, 3]);
    wait_for_refusal(&secure, "tls_handshake");
    let plain = proxy(&app, "");
    let said = Curl::new(&plain, &[]).fails(SHOP, &[]);
    assert!(said.contains("wrong version number"), "{said}");
    wait_for_refusal(&plain, "malformed_head");
    assert!(app.arrived().is_empty());
}

#[test]
fn certificates_are_reloaded_under_load() {
    let app = app();
    let folder = TempDir::new().unwrap();
    let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    let install = |name: &str| {
        std::fs::copy(pki(&format!("{name}.pem")), &certificate).unwrap();
        std::fs::copy(pki(&format!("{name}.key")), &key).unwrap();
    };
    install("shop");
    let keys = format!("server.tls = {{ certificate = {certificate:?}, key = {key:?} }}\n");
    let proxy = proxy(&app, &keys);
    let serial = || {
        let said = s_client(&proxy, "-servername shop.test");
        said.lines().find(|line| line.contains("s:CN")).unwrap_or_default().to_owned()
    };
    assert!(serial().contains("shop"), "{}", serial());
    // A hundred requests over ten connections are in flight while the certificate changes.
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..10)
            .map(|_| {
                scope.spawn(|| {
                    let curl = Curl::new(&proxy, &["-Z", "--parallel-max", "10", "--fail"]);
                    let more = vec!["https://shop.test/slow"; 9];
                    curl.run("https://shop.test/slow", &more)
                })
            })
            .collect();
        eventually("requests are in flight", || (app.arrived().len() >= 20).then_some(()));
        install("renewed");
        proxy.signal("HUP");
        eventually("the new certificate is in use", || serial().contains("renewed").then_some(()));
        for client in clients {
            let output = client.join().unwrap();
            let text = String::from_utf8_lossy(&output.stdout);
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{errors}");
            assert_eq!(text.matches(" 200").count(), 10, "{text}");
        }
    });
    let done = "headcount_reloads_total{outcome=\"done\"}";
    let failed = "headcount_reloads_total{outcome=\"failed\"}";
    assert_eq!((count(&proxy, done), count(&proxy, failed)), (1, 0));
    // All or nothing: a key that does not fit changes nothing.
    std::fs::copy(pki("other.key"), &key).unwrap();
    proxy.signal("HUP");
    eventually("the failure is counted", || (count(&proxy, failed) == 1).then_some(()));
    let log = proxy.log().join("\n");
    assert!(
        log.contains("configuration not reloaded") && log.contains("is not the key of"),
        "{log}"
    );
    assert!(serial().contains("renewed"));
    assert_eq!(Curl::new(&proxy, &[]).get(SHOP, &[]).status, 200);
}

#[test]
fn a_hangup_without_certificates_ends_nothing() {
    let app = app();
    let proxy = proxy(&app, "");
    proxy.signal("HUP");
    eventually("it says so", || {
        proxy.log().into_iter().find(|line| line.contains("configuration reloaded"))
    });
    assert_eq!(Curl::new(&proxy, &[]).get("http://shop.test/", &[]).status, 200);
}
