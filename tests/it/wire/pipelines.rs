//! Requests that come before the answers to those before them, and bodies that look like requests:
//! each is judged when its turn comes, and what belongs to a body is never a request.

use std::io::{Read as _, Write as _};

use super::{Gate, HTML, LOGIN, Site, configured, sign_in};
use crate::support::browser::Browser;
use crate::support::legacy::Reply;
use crate::support::raw;

fn request(line: &str, browser: &Browser, extra: &str, body: &str) -> String {
    let cookies = browser.cookie_line("/");
    format!("{line} HTTP/1.1\r\nHost: shop\r\nCookie: {cookies}\r\n{extra}\r\n{body}")
}

/// The statuses and bodies of answers with a length, up to the end of the connection.
fn answers(mut text: &str) -> Vec<(u16, String)> {
    let mut answers = Vec::new();
    while let Some((head, rest)) = text.split_once("\r\n\r\n") {
        let lower = head.to_ascii_lowercase();
        let length = lower.lines().find_map(|line| line.strip_prefix("content-length: "));
        let (body, rest) = rest.split_at(length.unwrap().parse().unwrap());
        answers.push((raw::status(head.as_bytes()), body.to_owned()));
        text = rest;
    }
    assert_eq!(text, "", "the end of the answers");
    answers
}

#[test]
fn each_of_many_is_judged_when_its_turn_comes() {
    let gate = Gate::default();
    let held = gate.clone();
    let site = Site::scripted(&configured("", LOGIN), move |request, _| {
        (request.target() == "/slow").then(|| {
            held.wait();
            Reply::page("200 OK", &[HTML], "slow")
        })
    });
    let (alice, stranger) = (site.signed_in("alice"), site.proxy.browser());
    let mut all = String::new();
    for number in 0..50 {
        all += &match number {
            24 => request("GET /slow", &stranger, "", ""),
            25 => request("POST /form", &alice, "Content-Length: 5\r\n", "GET /"),
            49 => request("GET /49", &alice, "Connection: close\r\n", ""),
            _ => request(&format!("GET /{number}"), &alice, "", ""),
        };
    }
    let mut socket = raw::connect(site.proxy.address);
    socket.write_all(all.as_bytes()).unwrap();
    site.wait_for("/slow");
    // All have come, and half of them wait: now the session ends.
    sign_in(&mut site.proxy.browser(), "alice");
    gate.open();
    let mut text = String::new();
    socket.read_to_string(&mut text).unwrap();
    let answers = answers(&text);
    let bodies: Vec<&str> = answers.iter().take(25).map(|(_, body)| &**body).collect();
    assert_eq!(bodies[..24], ["alice"; 24]);
    assert_eq!(bodies[24], "slow");
    assert!(answers[25..].iter().all(|(status, _)| *status == 401), "{:?}", &answers[25..]);
    let targets: Vec<String> =
        site.app.arrived().iter().map(|seen| seen.target().to_owned()).collect();
    for number in 25..50 {
        assert!(!targets.contains(&format!("/{number}")), "{number} reached the app: {targets:?}");
    }
}

#[test]
fn an_error_ends_a_pipeline() {
    let site = Site::start("");
    let stranger = site.proxy.browser();
    let mut all = String::new();
    for number in 0..50 {
        let extra = if number == 30 { "Content-Length: 1\r\nContent-Length: 2\r\n" } else { "" };
        all += &request(&format!("GET /{number}"), &stranger, extra, "");
    }
    let text = String::from_utf8(raw::raw(site.proxy.address, all.as_bytes())).unwrap();
    let answers = answers(&text);
    assert_eq!(answers.len(), 31);
    assert!(answers[..30].iter().all(|(status, _)| *status == 200) && answers[30].0 == 400);
    assert_eq!(site.app.arrived().len(), 30);
}

#[test]
fn a_body_is_no_request_when_the_answer_is_ours() {
    let site = Site::start("");
    let hidden = "GET /smuggled HTTP/1.1\r\nHost: shop\r\n\r\n";
    let length = format!("Content-Length: {}\r\n", hidden.len());
    for path in ["/", "/static.css"] {
        let ended = site.signed_in("alice");
        site.signed_in("alice");
        let next = request("GET /next", &site.proxy.browser(), "Connection: close\r\n", "");
        for late in [false, true] {
            let mut socket = raw::connect(site.proxy.address);
            let head = request(&format!("PUT {path}"), &ended, &length, "");
            socket.write_all(head.as_bytes()).unwrap();
            let mut first = [0; 12];
            if late {
                socket.read_exact(&mut first).unwrap();
            }
            // It may be closed by now.
            let _ = socket.write_all(format!("{hidden}{next}").as_bytes());
            let mut rest = Vec::new();
            let _ = socket.read_to_end(&mut rest);
            assert!(site.seen("/smuggled").is_empty(), "{path}, late: {late}");
        }
    }
}
