//! Tables over recognition: what is a login, a logout, a failed try, and what is none of them.

use super::*;
use crate::rules::matcher::{Glob, Methods, Patterns, StatusPatterns};
use crate::rules::{Credential, Negatable, Role, SuccessMatch};
use crate::session::Timestamp;
use crate::set_cookie;

fn rule(path: &str, success: Option<SuccessMatch>) -> Rule {
    Rule {
        request: RequestMatch {
            methods: Methods(vec!["POST".to_owned()]),
            path: Patterns::new([path], Glob::path),
            ..RequestMatch::default()
        },
        success,
        user: vec![Expression::parse("form:username").unwrap()],
        in_place: false,
        issues: Vec::new(),
        guests_only: false,
    }
}

fn status_and_sets(status: &str, sets: &str) -> Option<SuccessMatch> {
    let mut wanted = StatusPatterns::default();
    wanted.push(status).unwrap();
    let sets = vec![Negatable { negated: false, name: Glob::name(sets) }];
    Some(SuccessMatch { status: wanted, sets, ..SuccessMatch::default() })
}

fn rules() -> RuleSet {
    let clears = vec![Negatable { negated: false, name: Glob::name("sid") }];
    RuleSet {
        credentials: vec![Credential {
            cookies: vec![Glob::name("sid")],
            tokens: vec![],
            role: Role::Session,
            key: vec![],
        }],
        logins: vec![
            rule("/login/", status_and_sets("302", "sid")),
            rule("/default", None),
            rule(
                "/*/login",
                Some(SuccessMatch { leads_elsewhere: true, ..SuccessMatch::default() }),
            ),
        ],
        steps: Vec::new(),
        refreshes: Vec::new(),
        logouts: vec![rule("/logout/", Some(SuccessMatch { clears, ..SuccessMatch::default() }))],
        password_changes: vec![rule("/password/", status_and_sets("302", "sid"))],
    }
}

fn run(method: &str, path: &str, form: &str, status: u16, answer: &[(&str, &str)]) -> Outcome {
    let fields = Fields::Form(fields::read_form(form.as_bytes()).unwrap());
    let request_headers = HeaderMap::new();
    let facts = RequestFacts {
        method,
        path,
        query: None,
        headers: &request_headers,
        fields: &fields,
        step: None,
    };
    let intent = intent(&rules(), facts).unwrap();
    let mut headers = HeaderMap::new();
    for (name, value) in answer {
        let name: http::HeaderName = name.parse().unwrap();
        headers.append(name, value.parse().unwrap());
    }
    let cookies: Vec<_> = headers
        .get_all(http::header::SET_COOKIE)
        .iter()
        .filter_map(|line| set_cookie::parse(line.as_bytes(), Timestamp(1_800_000_000_000)))
        .collect();
    outcome(
        &rules(),
        &intent,
        AnswerFacts { status, headers: &headers, cookies: &cookies, body: AnswerBody::Unread },
    )
}

fn logged_in(user: &str) -> Outcome {
    Outcome::LoggedIn {
        user: Some(user.to_owned()),
        in_place: false,
        guests_only: false,
        tokens: Vec::new(),
    }
}

#[test]
fn a_login_counts_only_on_the_apps_answer() {
    let set = ("set-cookie", "sid=1; Path=/");
    assert_eq!(run("POST", "/login/", "username=alice", 302, &[set]), logged_in("alice"));
    let failed = Outcome::LoginFailed { user: Some("alice".to_owned()) };
    assert_eq!(run("POST", "/login/", "username=alice", 200, &[set]), failed);
    assert_eq!(run("POST", "/login/", "username=alice", 302, &[]), failed);
    let deletion = ("set-cookie", "sid=1; Path=/; Max-Age=0");
    assert_eq!(run("POST", "/login/", "username=alice", 302, &[deletion]), failed);
    assert_eq!(run("POST", "/login/", "username=alice", 302, &[set, deletion]), failed);
    assert_eq!(run("POST", "/login/", "username=alice", 302, &[deletion, set]), logged_in("alice"));
    assert_eq!(run("GET", "/login/", "username=alice", 302, &[set]), Outcome::Nothing);
    assert_eq!(run("post", "/login/", "username=alice", 302, &[set]), Outcome::Nothing);
}

#[test]
fn a_slash_at_the_end_makes_no_difference() {
    let set = ("set-cookie", "sid=1; Path=/");
    assert_eq!(run("POST", "/login", "username=alice", 302, &[set]), logged_in("alice"));
    assert_eq!(run("POST", "/default/", "username=alice", 302, &[set]), logged_in("alice"));
    assert!(watches(&rules(), "/login") && watches(&rules(), "/default/"));
    assert!(!watches(&rules(), "/"));
}

#[test]
fn a_login_without_a_name_is_still_a_login() {
    let set = ("set-cookie", "sid=1");
    let nameless =
        Outcome::LoggedIn { user: None, in_place: false, guests_only: false, tokens: Vec::new() };
    assert_eq!(run("POST", "/login/", "other=x", 302, &[set]), nameless);
    assert_eq!(run("POST", "/login/", "username=", 302, &[set]), nameless);
}

#[test]
fn without_a_success_test_the_location_decides() {
    let set = ("set-cookie", "sid=1");
    let to = |location| [set, ("location", location)];
    assert_eq!(run("POST", "/default", "username=a", 302, &to("/home")), logged_in("a"));
    assert_eq!(run("POST", "/default", "username=a", 200, &[set]), logged_in("a"));
    for back in ["/default", "/default?error", "http://h/default#x"] {
        let outcome = run("POST", "/default", "username=a", 302, &to(back));
        assert_eq!(outcome, Outcome::LoginFailed { user: Some("a".to_owned()) }, "{back}");
    }
    assert!(matches!(
        run("POST", "/default", "username=a", 500, &[set]),
        Outcome::LoginFailed { .. }
    ));
}

#[test]
fn logout_and_password_change_need_their_answers() {
    let deletion = ("set-cookie", "sid=\"\"; expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=0");
    assert_eq!(run("POST", "/logout/", "", 302, &[deletion]), Outcome::LoggedOut);
    assert_eq!(run("POST", "/logout/", "", 403, &[]), Outcome::Nothing);
    assert_eq!(
        run("POST", "/password/", "", 302, &[("set-cookie", "sid=2")]),
        Outcome::PasswordChanged
    );
    assert_eq!(run("POST", "/password/", "", 200, &[]), Outcome::Nothing);
}

#[test]
fn without_a_test_of_its_own_a_login_leads_away_from_its_page() {
    let outcome = |path: &str, location: &str| {
        let answer = [("set-cookie", "sid=1; Path=/"), ("location", location)];
        run("POST", path, "username=alice", 302, &answer)
    };
    let back = ["/default", "/default/?e=1", "/Default", "http://h/default#x", "//h/default/"];
    let beside = ["default?e=1", "./default", "?e=1", ""];
    for path in ["/default", "/default/", "/DEFAULT"] {
        for location in back.into_iter().chain(beside) {
            let failed = Outcome::LoginFailed { user: Some("alice".to_owned()) };
            assert_eq!(outcome(path, location), failed, "{path} to {location:?}");
        }
        let away =
            ["/", "http://h", "http://h/", "/a/default", "/?next=http://h/default", "home", "/x?"];
        for location in away {
            assert_eq!(outcome(path, location), logged_in("alice"), "{path} to {location:?}");
        }
    }
}

#[test]
fn a_location_can_be_asked_to_lead_elsewhere() {
    let to =
        |location: &str| run("POST", "/en/login", "username=alice", 302, &[("location", location)]);
    for back in ["/en/login", "http://h/EN/login/?error", "/en/login;jsessionid=1?e", "login"] {
        assert_eq!(to(back), Outcome::LoginFailed { user: Some("alice".to_owned()) }, "{back}");
    }
    for elsewhere in ["/", "/de/login", "/login", "/x/en/login", "http://h/?/en/login"] {
        assert_eq!(to(elsewhere), logged_in("alice"), "{elsewhere}");
    }
    assert_eq!(run("POST", "/en/login", "username=alice", 200, &[]), logged_in("alice"));
}

#[test]
fn the_name_of_http_basic_is_what_stands_before_the_first_colon() {
    // alice:a:b, alice, é:x in Latin-1.
    let table = [
        ("Basic YWxpY2U6YTpi", Some("alice")),
        ("basic YWxpY2U6YTpi", Some("alice")),
        ("Basic YWxpY2U=", None),
        ("Basic 6Tp4", None),
        ("Basic ?", None),
        ("Bearer YWxpY2U6YTpi", None),
        ("Basic", None),
    ];
    for (line, user) in table {
        let mut headers = HeaderMap::new();
        headers.append("authorization", line.parse().unwrap());
        let find = |headers: &HeaderMap| {
            let fields = Fields::Opaque;
            let facts = RequestFacts {
                method: "GET",
                path: "/",
                query: None,
                headers,
                fields: &fields,
                step: None,
            };
            request_value(&Expression::parse("basic:user").unwrap(), facts)
        };
        assert_eq!(find(&headers).unwrap().as_deref(), user, "{line}");
        headers.append("authorization", line.parse().unwrap());
        assert_eq!(find(&headers), Err(Refusal::LoginAmbiguous));
    }
}

#[test]
fn the_body_is_wanted_only_while_the_rest_leaves_success_open() {
    let ok = (Expression::parse("rjson:/ok").unwrap(), Patterns::new(["true"], Glob::name));
    let told = SuccessMatch { is: vec![ok], ..status_and_sets("200", "sid").unwrap() };
    let mut rules = rules();
    rules.logins = vec![rule("/login", status_and_sets("302", "sid")), rule("/login", Some(told))];
    let fields = Fields::Opaque;
    let headers = HeaderMap::new();
    let (method, path, query) = ("POST", "/login", None);
    let facts =
        RequestFacts { method, path, query, headers: &headers, fields: &fields, step: None };
    let intent = intent(&rules, facts).unwrap();
    assert!(intent.may_look_into_answer(&rules));
    let set = [set_cookie::parse(b"sid=1", Timestamp(0)).unwrap()];
    for (status, cookies, wanted) in
        [(200, &set[..], true), (200, &[], false), (401, &set, false), (302, &set, false)]
    {
        let facts = AnswerFacts { status, headers: &headers, cookies, body: AnswerBody::Unread };
        assert_eq!(wants_body(&rules, &intent, facts), wanted, "{status}");
        let unreadable = AnswerFacts { body: AnswerBody::Unreadable, ..facts };
        let counted = matches!(outcome(&rules, &intent, unreadable), Outcome::LoggedIn { .. });
        assert_eq!(counted, status == 302, "{status}");
    }
}

#[test]
fn a_form_can_ask_for_a_method_and_what_was_sent_counts_too() {
    let mut rules = rules();
    rules.logouts[0].request.methods = Methods(vec!["DELETE".to_owned()]);
    let matched = |method, query, form: &str| {
        let fields = Fields::Form(fields::read_form(form.as_bytes()).unwrap());
        let headers = HeaderMap::new();
        let path = "/logout/";
        let facts =
            RequestFacts { method, path, query, headers: &headers, fields: &fields, step: None };
        let matched = intent(&rules, facts).map(|intent| !intent.is_empty());
        assert!(!matched.unwrap_or(true) || may_match(&rules, method, path));
        matched
    };
    assert_eq!(matched("DELETE", None, ""), Ok(true));
    assert_eq!(matched("POST", None, "_method=delete"), Ok(true));
    assert_eq!(matched("POST", Some("_method=DELETE"), ""), Ok(true));
    assert_eq!(matched("POST", None, "_method=put"), Ok(false));
    assert_eq!(matched("POST", None, ""), Ok(false));
    assert_eq!(matched("GET", Some("_method=delete"), ""), Ok(false));
    let twice = matched("POST", None, "_method=put&_method=delete");
    assert_eq!(twice, Err(Refusal::LoginAmbiguous));
    let set = ("set-cookie", "sid=1; Path=/");
    let hidden = run("POST", "/login/", "username=alice&_method=delete", 302, &[set]);
    assert_eq!(hidden, logged_in("alice"));
}
