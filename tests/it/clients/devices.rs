//! Devices have names wherever sessions are shown.

use serde_json::Value;

use super::{PHONE, Visitor, WINDOWS, before_django, command, django};

#[test]
fn sessions_show_browser_system_and_kind_of_device() {
    let (proxy, user) = (before_django("limit.max_sessions = 3"), django().user());
    let bidi = "curl/8.5.0 \u{202e}<script>alert(1)</script>";
    let _visitors = [(WINDOWS, "192.0.2.1"), (PHONE, "192.0.2.2"), (bidi, "192.0.2.3")]
        .map(|(agent, address)| Visitor::new(&proxy, agent, address).sign_in_to_django(&user));
    let sessions = proxy.sessions(&user, "live");
    let of = |at: usize, key: &str| sessions[at]["client"][key].clone();
    let expected =
        [("curl", "other"), ("Safari on iPhone", "phone"), ("Firefox on Windows", "desktop")];
    for (at, (device, class)) in expected.into_iter().enumerate() {
        assert_eq!((of(at, "device"), of(at, "device_class")), (device.into(), class.into()));
        assert_eq!((of(at, "country"), of(at, "city")), (Value::Null, Value::Null), "no database");
    }
    let export = proxy.admin("GET", &format!("/api/v1/users/{user}/export")).json();
    assert_eq!(export["sessions"][0]["client"]["device"], "Firefox on Windows");
    let list = command(&proxy, &["sessions", "list", "--user", &user]);
    assert!(list.lines().next().unwrap().contains("DEVICE"), "{list}");
    assert!(list.contains("192.0.2.2  Safari on iPhone"), "{list}");
    let id = sessions[2]["id"].as_str().unwrap();
    let shown = command(&proxy, &["sessions", "show", id]);
    assert!(shown.contains("Firefox on Windows\n") && shown.contains("desktop\n"), "{shown}");
    let shown = command(&proxy, &["sessions", "show", sessions[0]["id"].as_str().unwrap()]);
    assert!(!shown.contains('\u{202e}'), "{shown}");
}
