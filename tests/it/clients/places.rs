//! Places of addresses, from a database that the operator gives.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::{Visitor, WINDOWS, before_django, command, django};
use crate::support::proxy::Proxy;
use crate::support::{eventually, top};

fn database(name: &str) -> PathBuf {
    top().join("tests/geo").join(name)
}

/// Puts another database in place of the one there is, as tools that fetch it do.
fn replace(file: &Path, by: &str) {
    let new = file.with_extension("new");
    fs::copy(database(by), &new).unwrap();
    fs::rename(new, file).unwrap();
}

fn place(proxy: &Proxy, user: &str) -> (Value, Value) {
    let client = &proxy.sessions(user, "live")[0]["client"];
    (client["country"].clone(), client["city"].clone())
}

fn configured(more: &str) -> String {
    format!(
        "limit.max_sessions = 5\ngeo.database = '{}'\n{more}",
        database("places.mmdb").display()
    )
}

#[test]
fn sessions_and_events_tell_where_an_address_is() {
    let (proxy, user) = (before_django(&configured("")), django().user());
    let addresses = ["10.1.2.3", "198.51.100.7", "2001:db8:1::5", "192.0.2.1"];
    let _visitors =
        addresses.map(|address| Visitor::new(&proxy, WINDOWS, address).sign_in_to_django(&user));
    let expected = [
        ("DE".into(), "Berlin".into()),
        ("BR".into(), "São Paulo <b>".into()),
        ("JP".into(), Value::Null),
        (Value::Null, Value::Null),
    ];
    for (session, (country, city)) in proxy.sessions(&user, "live").iter().zip(expected) {
        assert_eq!(session["client"]["country"], country, "{session}");
        assert_eq!(session["client"]["city"], city, "{session}");
    }
    let events = proxy.has_events("session_created", &user, addresses.len());
    let of = |at: usize, key: &str| events[at].get(key).cloned();
    assert_eq!((of(0, "country"), of(0, "city")), (None, None));
    assert_eq!((of(1, "country"), of(1, "city")), (Some("JP".into()), None));
    assert_eq!((of(3, "country"), of(3, "city")), (Some("DE".into()), Some("Berlin".into())));
    let list = command(&proxy, &["sessions", "list", "--user", &user]);
    assert!(list.contains("198.51.100.7 JP"), "{list}");
}

/// Of a network no more is told than of its addresses together; of a hash nothing.
#[test]
fn no_more_is_told_than_is_recorded() {
    for (keep, expected) in [("prefix", "DE".into()), ("hash", Value::Null), ("none", Value::Null)]
    {
        let proxy = before_django(&configured(&format!("log.client_address = \"{keep}\"")));
        let user = django().user();
        let _visitor = Visitor::new(&proxy, WINDOWS, "192.0.2.77").sign_in_to_django(&user);
        assert_eq!(place(&proxy, &user).0, expected, "{keep}");
        let event = proxy.wait_for_event("session_created", &user);
        assert_eq!(event.get("country"), Some(&expected).filter(|it| !it.is_null()), "{event}");
    }
}

#[test]
fn a_newer_file_is_taken_up_and_a_broken_one_changes_nothing() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let file = folder.path().join("places.mmdb");
    replace(&file, "places.mmdb");
    let toml = format!("limit.max_sessions = 5\ngeo.database = '{}'", file.display());
    let (mut proxy, user) = (before_django(&toml), django().user());
    let _visitor = Visitor::new(&proxy, WINDOWS, "192.0.2.1").sign_in_to_django(&user);
    let is = |proxy: &Proxy, country: &str, city: &str| {
        (place(proxy, &user) == (country.into(), city.into())).then_some(())
    };
    assert!(is(&proxy, "DE", "Berlin").is_some());
    // By itself.
    replace(&file, "later.mmdb");
    eventually("the newer file is in use", || is(&proxy, "NL", "Utrecht"));
    fs::write(&file, "half of a file").unwrap();
    eventually("the broken file is noticed", || {
        let noticed = |line: &String| line.contains("the old database of places stays");
        proxy.log().iter().any(noticed).then_some(())
    });
    assert!(is(&proxy, "NL", "Utrecht").is_some());
    // By a reload, which a broken file fails as a whole.
    let refused = proxy.admin("POST", "/api/v1/reload");
    assert_eq!(refused.status, 422, "{}", refused.text());
    assert!(refused.text().contains("no database of places"), "{}", refused.text());
    replace(&file, "places.mmdb");
    assert_eq!(proxy.admin("POST", "/api/v1/reload").status, 200);
    assert!(is(&proxy, "DE", "Berlin").is_some());
    proxy.edit("geo.database", "# geo.database");
    assert_eq!(proxy.admin("POST", "/api/v1/reload").status, 200);
    assert_eq!(place(&proxy, &user), (Value::Null, Value::Null));
}

#[test]
fn a_file_that_is_none_is_told_at_the_start() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    fs::write(folder.path().join("text.mmdb"), "no database").unwrap();
    fs::copy(database("asn.mmdb"), folder.path().join("asn.mmdb")).unwrap();
    let config = folder.path().join("headcount.toml");
    for (name, why) in [
        ("missing.mmdb", "No such file"),
        ("text.mmdb", "is no database of places in MaxMind's format"),
        ("asn.mmdb", "is a database of type \"Tests-ASN\"; one of countries or cities is needed"),
    ] {
        let toml = format!(
            "server.listen = \"127.0.0.1:0\"\nupstream.url = \"http://127.0.0.1:1\"\n\
             app.preset = \"django\"\nlimit.max_sessions = 1\ngeo.database = \"{name}\"\n"
        );
        fs::write(&config, toml).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_headcount"))
            .args(["serve", "-c", "headcount.toml"])
            .current_dir(folder.path())
            .output()
            .unwrap();
        let told =
            String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert!(told.contains(name) && told.contains(why), "{told}");
    }
}
