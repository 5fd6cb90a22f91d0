//! What must not be found anywhere: cookie values, passwords, admin tokens.

use std::fs;

use super::{Case, assert_told, on_every_engine, signed_in};
use crate::support::browser::password_of;
use crate::support::proxy::ADMIN_SECRET;

on_every_engine! {
    no_cookie_value_password_or_token_is_stored_logged_or_shown
}

fn no_cookie_value_password_or_token_is_stored_logged_or_shown(case: Case) {
    let (mut proxy, user) = (case.proxy("limit.max_sessions = 1"), case.site().user());
    let mut first = signed_in(&proxy, &user);
    let second = signed_in(&proxy, &user);
    let cookies = [first.cookie("sessionid").unwrap(), second.cookie("sessionid").unwrap()];
    assert_told(&mut first, "limit");
    let mut shown = vec![
        ("metrics", proxy.metrics().into_bytes()),
        ("sessions", proxy.admin("GET", "/api/v1/sessions").body),
        (
            "page",
            first
                .send(
                    &crate::support::http::Request::get("/")
                        .header("Cookie", &format!("sessionid={}", cookies[0])),
                )
                .body,
        ),
    ];
    assert!(proxy.terminate().success());
    shown.push(("log", proxy.log().join("\n").into_bytes()));
    for entry in fs::read_dir(proxy.folder()).unwrap().flatten() {
        if entry.file_name() != "tests.token" {
            shown.push(("file", fs::read(entry.path()).unwrap()));
        }
    }
    let password = password_of(&user);
    let mut secrets = vec![password.as_str(), ADMIN_SECRET];
    for cookie in &cookies {
        // The app's part, and the stamp's.
        secrets.extend(cookie.split(".hc1."));
    }
    for (place, bytes) in shown {
        for secret in &secrets {
            let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "{secret:?} in a {place}");
        }
    }
}
