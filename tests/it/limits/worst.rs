//! The most work that one request can make: each as large as the limits let it be, and of the form that
//! is worst for whoever reads it. What the real proxy needs for it is measured as time on a core.

use super::*;
use crate::support::legacy::{LegacyApp, Reply};

const ROUNDS: u32 = 100;

/// Of one request beyond a plain one. Without optimisation everything takes some ten times as long.
const ALLOWED: Duration = Duration::from_millis(if cfg!(debug_assertions) { 100 } else { 10 });

const RULES: &str = r#"
exempt_paths = ["/*q*q*q*q*q*q*z", "/**/x/**/y/**/z"]
[[credential]]
at = ["cookie:sid", "cookie:s*s*s*s*s*t"]
[[login]]
request = { methods = ["POST"], path = ["/login", "/*a*a*a*a*a*a*b"] }
success = { status = [302], sets = "sid" }
user = ["json:/user", "form:user"]
"#;

/// A request with a body.
fn post(kind: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST /login HTTP/1.1\r\nHost: a\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

fn get(target: &str, lines: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: a\r\n{lines}\r\n")
}

/// Each nearly as large as it may be, or so many times smaller.
fn requests(smaller: usize) -> Vec<(&'static str, String)> {
    const FORM: &str = "application/x-www-form-urlencoded";
    const JSON: &str = "application/json";
    let most = 60 * 1024 / smaller;
    let of = |most: usize| most / smaller;
    let wide: Vec<String> =
        (0..of(4_000)).map(|number| format!("\"k{number}\":{number}")).collect();
    let parts: String = (0..of(600))
        .map(|number| {
            format!("--b\r\nContent-Disposition: form-data; name=\"f{number}\"\r\n\r\nx\r\n")
        })
        .collect();
    let cookies = |pair: &str, count| format!("Cookie: {}\r\n", vec![pair; count].join("; "));
    vec![
        ("a path that nearly matches", get(&format!("/{}", "aq".repeat(of(8_000))), "")),
        ("a path of many parts", get(&"/x/y".repeat(of(4_000)), "")),
        ("a path of escapes", get(&format!("/{}", "%61".repeat(of(5_000))), "")),
        ("a path of parameters", get(&format!("/{}", "a;b".repeat(of(5_000))), "")),
        ("a query of many parts", get(&format!("/?{}", "a&".repeat(of(8_000))), "")),
        ("many cookies of one name", get("/", &cookies("sid=1", of(100)))),
        ("names that nearly match", get("/", &cookies(&format!("{}=1", "s".repeat(150)), of(99)))),
        ("too many cookies", get("/", &cookies("a=1", of(10_000)))),
        ("a cookie of quotes", get("/", &format!("Cookie: sid={}\r\n", "\"\\".repeat(of(8_000))))),
        (
            "forwarded by many",
            get("/", &format!("X-Forwarded-For: {}\r\n", "::1,".repeat(of(15_000)))),
        ),
        ("a form of many fields", post(FORM, &"a&".repeat(most / 2))),
        ("a form of one name", post(FORM, &"user=&".repeat(most / 6))),
        ("a form of escapes", post(FORM, &format!("user={}", "%61".repeat(most / 3)))),
        ("JSON of great depth", post(JSON, &format!("{{\"user\":{}", "[".repeat(most)))),
        ("JSON of many names", post(JSON, &format!("{{{}}}", wide.join(",")))),
        (
            "JSON of escapes",
            post(JSON, &format!("{{\"user\":\"{}\"}}", "\\u0061".repeat(most / 6))),
        ),
        ("many parts", post("multipart/form-data; boundary=b", &format!("{parts}--b--\r\n"))),
        ("nearly a part", post("multipart/form-data; boundary=b", &"\r\n--".repeat(most / 4))),
    ]
}

/// Time on a core for one of these requests.
fn cost(proxy: &Proxy, request: &str) -> Duration {
    let before = proxy.cpu_time();
    for _ in 0..ROUNDS {
        let mut stream = raw::connect(proxy.address);
        let answer = ask(&mut stream, request.as_bytes());
        assert!(answer.starts_with("HTTP/1.1 "), "{answer:?} for {request:.80}");
    }
    (proxy.cpu_time() - before) / ROUNDS
}

#[test]
fn no_request_takes_long_to_judge() {
    let _alone = alone();
    let app = LegacyApp::start(|_| Reply::page("200 OK", &[], "ok"));
    let toml = format!("limit.max_sessions = 1\nenforcement.{}", RULES.trim_start());
    let proxy = Proxy::start(app.address, None, &toml);
    let plain = cost(&proxy, &get("/", ""));
    println!("a plain request: {plain:?}");
    for ((name, whole), (_, half)) in requests(1).iter().zip(requests(2)) {
        let [whole_cost, half_cost] =
            [whole, &half].map(|request| cost(&proxy, request).saturating_sub(plain));
        let length = whole.len();
        println!("{name}, {length} bytes: {whole_cost:?} more, half of it {half_cost:?}");
        assert!(whole_cost <= ALLOWED, "{name}: {whole_cost:?}");
        // As long as its length, and no more: what is left is for what the clock cannot tell.
        assert!(whole_cost <= half_cost * 3 + ALLOWED / 5, "{name}: {half_cost:?}, {whole_cost:?}");
    }
    assert_eq!(count(&proxy, "headcount_panics_total"), 0);
    assert!(serves(&proxy));
}
