//! TLS as scanners see it, sslyze and testssl.sh; and certificates that change while clients shake
//! hands without a pause.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::*;
use crate::support::soak;

/// Scanners leave handshakes undone, to see what happens.
const IMPATIENT: &str = "server.limits.tls_handshake_timeout = \"1s\"\n\
                         server.limits.first_byte_timeout = \"1s\"\n";

#[test]
fn sslyze_finds_what_mozilla_asks_for() {
    let app = app();
    let proxy = proxy(&app, &tls("shop"));
    let found = TempDir::new().unwrap();
    let json = found.path().join("found.json");
    let output = Command::new(top().join(".venv/bin/python"))
        .args(["-W", "ignore", "-m", "sslyze", "--mozilla_config", "intermediate", "--json_out"])
        .arg(&json)
        .args(["--early_data", "--sni", "shop.test", &proxy.address.to_string()])
        .output()
        .expect("sslyze is installed by tests/setup");
    let said = String::from_utf8_lossy(&output.stdout);
    let verdict = said.split("COMPLIANCE AGAINST").nth(1).unwrap_or_else(|| panic!("{said}"));
    // No certificate of a test is trusted by the world, or of the length that it wants.
    let of_the_certificate = ["certificate_path_validation", "maximum_certificate_lifespan"];
    for fault in verdict.lines().filter_map(|line| line.trim().strip_prefix("* ")) {
        assert!(of_the_certificate.iter().any(|known| fault.starts_with(known)), "{verdict}");
    }
    let found: Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    let scan = &found["server_scan_results"][0]["scan_result"];
    for old in ["ssl_2_0", "ssl_3_0", "tls_1_0", "tls_1_1"] {
        let result = &scan[format!("{old}_cipher_suites")]["result"];
        assert_eq!(result["is_tls_version_supported"], false, "{old}");
    }
    for version in ["tls_1_2", "tls_1_3"] {
        let result = &scan[format!("{version}_cipher_suites")]["result"];
        let accepted = result["accepted_cipher_suites"].as_array().unwrap();
        assert!(!accepted.is_empty(), "{result}");
        for suite in accepted {
            let name = suite["cipher_suite"]["name"].as_str().unwrap();
            let sealed = name.contains("_GCM_") || name.contains("_CHACHA20_POLY1305_");
            assert!(sealed && suite["ephemeral_key"].is_object(), "{name}");
        }
    }
    let expected = [
        ("tls_compression", "supports_compression", false),
        ("tls_1_3_early_data", "supports_early_data", false),
        ("session_renegotiation", "is_vulnerable_to_client_renegotiation_dos", false),
        ("heartbleed", "is_vulnerable_to_heartbleed", false),
        ("openssl_ccs_injection", "is_vulnerable_to_ccs_injection", false),
        ("tls_extended_master_secret", "supports_ems_extension", true),
    ];
    for (check, key, value) in expected {
        assert_eq!(scan[check]["result"][key], value, "{check}: {}", scan[check]);
    }
    wait_for_refusal(&proxy, "tls_handshake");
    assert_eq!(Curl::new(&proxy, &[]).get("https://shop.test/", &[]).status, 200);
}

#[test]
fn soak_testssl_finds_nothing_wrong() {
    let app = app();
    let proxy = proxy(&app, &format!("{}{IMPATIENT}", tls("shop")));
    let found = TempDir::new().unwrap();
    let json = found.path().join("found.json");
    // All of it takes minutes: most checks wait for what does not come.
    let checks: &[&str] = if soak() {
        &["-p", "-s", "-f", "-P", "-S", "-U", "-g"]
    } else {
        &["-p", "-s", "-f", "-P", "-R", "-C", "-I"]
    };
    let (ca, url) = (pki("ca.pem"), format!("https://{}/", proxy.address));
    let output = Command::new("testssl")
        .args(["--quiet", "--color", "0", "--nodns", "none", "--warnings", "off", "--add-ca"])
        .arg(ca)
        .arg("--jsonfile")
        .arg(&json)
        .args(checks)
        .arg(url)
        .current_dir(found.path())
        .output()
        .expect("testssl is installed by tests/setup");
    let said = String::from_utf8_lossy(&output.stdout);
    let found = std::fs::read(json).unwrap_or_else(|_| panic!("{said}"));
    let found: Vec<Value> = serde_json::from_slice(&found).unwrap();
    let finding = |id: &str| {
        let entry = found.iter().find(|entry| entry["id"] == id);
        entry.unwrap_or_else(|| panic!("no {id}: {said}"))["finding"].as_str().unwrap().to_owned()
    };
    for old in ["SSLv2", "SSLv3", "TLS1", "TLS1_1"] {
        assert_eq!(finding(old), "not offered");
    }
    assert!(finding("TLS1_2").starts_with("offered") && finding("TLS1_3").starts_with("offered"));
    for entry in &found {
        let id = entry["id"].as_str().unwrap();
        // About the certificate, which is the operator's. The order is the client's: every suite we
        // offer is good, and a client knows which is quick for it.
        let ours = !id.starts_with("cert_") && id != "cipher_order" && id != "scanTime";
        let severity = entry["severity"].as_str().unwrap();
        let bad = matches!(severity, "LOW" | "MEDIUM" | "HIGH" | "CRITICAL");
        assert!(!(ours && bad), "{entry}\n{said}");
    }
}

#[test]
fn an_unknown_protocol_in_alpn_is_refused() {
    let app = app();
    let proxy = proxy(&app, &tls("shop"));
    for (alpn, expected) in
        [("spdy/3", "no application protocol"), ("http/1.1", "ALPN protocol: http/1.1")]
    {
        let output = Command::new("openssl")
            .args(["s_client", "-connect", &proxy.address.to_string(), "-alpn", alpn])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = [output.stdout, output.stderr]
            .map(|text| String::from_utf8_lossy(&text).into_owned())
            .concat();
        assert!(said.contains(expected), "{alpn}: {said}");
    }
}

#[test]
fn soak_no_handshake_fails_while_certificates_change() {
    let reloads = if soak() { 500 } else { 30 };
    let app = app();
    let folder = TempDir::new().unwrap();
    let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    let install = |name: &str| {
        for (file, suffix) in [(&certificate, "pem"), (&key, "key")] {
            // As certbot does: nobody sees half a file.
            let fresh = file.with_extension("new");
            std::fs::copy(pki(&format!("{name}.{suffix}")), &fresh).unwrap();
            std::fs::rename(&fresh, file).unwrap();
        }
    };
    install("shop");
    let keys = format!("server.tls = {{ certificate = {certificate:?}, key = {key:?} }}\n");
    let proxy = proxy(&app, &keys);
    let (port, ca) = (proxy.address.port().to_string(), pki("ca.pem"));
    let mut clients = Command::new(top().join(".venv/bin/python"))
        .arg(top().join("tests/clients/handshakes.py"))
        .args([&*port, ca.to_str().unwrap(), "4"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(clients.stdout.take().unwrap()).lines();
    assert_eq!(said.next().unwrap().unwrap(), "ready");
    let done = "headcount_reloads_total{outcome=\"done\"}";
    for round in 1..=reloads {
        install(if round % 2 == 0 { "shop" } else { "renewed" });
        proxy.signal("HUP");
        eventually("it is reloaded", || (count(&proxy, done) == round).then_some(()));
        std::thread::sleep(Duration::from_millis(30));
    }
    clients.stdin.take().unwrap().write_all(b"\n").unwrap();
    let result: Value = serde_json::from_str(&said.next().unwrap().unwrap()).unwrap();
    assert!(clients.wait().unwrap().success());
    println!("{result}");
    assert_eq!(result["failed"], serde_json::json!([]), "{result}");
    assert!(result["done"].as_u64().unwrap() > reloads && result["seen"] == 2, "{result}");
}
