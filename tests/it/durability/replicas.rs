//! Three real proxies on one real PostgreSQL: the limit holds over all of them, also while connections
//! are killed, and in strict mode at every instant; an end on one is an end on the others; one that
//! hears nothing serves nobody.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::core::COOKIE;
use super::site::{self, Site};
use crate::support::browser::Browser;
use crate::support::http::{self, Request};
use crate::support::link::Link;
use crate::support::postgres::Database;
use crate::support::proxy::{ADMIN_SECRET, Proxy};
use crate::support::{eventually, soak};

const REPLICAS: usize = 3;
/// Signing in at once, in each round.
const LOGINS: usize = 18;
/// What is promised for an end on another replica.
const DELAY_MAX: Duration = Duration::from_secs(1);

/// Rounds for each limit and policy.
fn rounds() -> usize {
    if soak() { 170 } else { 6 }
}

/// Sessions ended on one replica and tried on another.
fn pairs() -> usize {
    if soak() { 20_000 } else { 300 }
}

fn start(database: &Database, site: &Site, toml: &str, tables: &str) -> Vec<Proxy> {
    let toml = site::rules(&format!("server.workers = 1\n{toml}")) + tables;
    let mut replicas: Vec<Proxy> = Vec::new();
    for number in 0..REPLICAS {
        let toml = format!("server.node = \"replica-{number}\"\n{toml}");
        let first = replicas.first();
        replicas.push(Proxy::start_replica(site.address(), &toml, &database.url(), first));
    }
    replicas
}

/// A limit and what happens beyond it, for users by the beginning of their names.
fn every_limit() -> (Vec<(String, usize)>, String) {
    let (mut kinds, mut tables) = (Vec::new(), String::new());
    for max in [1, 2, 5] {
        for on_limit in ["evict", "deny"] {
            let kind = format!("{on_limit}-{max}");
            tables.push_str(&format!(
                "[[limit.override]]\nusers = [\"{kind}-*\"]\nmax_sessions = {max}\n\
                 on_limit = \"{on_limit}\"\n"
            ));
            kinds.push((kind, max));
        }
    }
    (kinds, tables)
}

#[test]
fn simultaneous_logins_over_three_replicas_leave_exactly_the_limit_soak() {
    let (site, database) = (Site::start(), Database::create());
    let (kinds, tables) = every_limit();
    let replicas = start(&database, &site, "limit.max_sessions = 1", &tables);
    let started = Instant::now();
    for round in 0..rounds() {
        for (kind, max) in &kinds {
            let user = format!("{kind}-{round}");
            let (cookies, refused) = everybody_at_once(&replicas, &user);
            assert_eq!(refused, 0, "{user}: somebody was told that the store failed");
            exactly(&replicas, &user, &cookies, *max);
        }
    }
    println!("{} rounds of {LOGINS} in {:?}", rounds() * kinds.len(), started.elapsed());
}

#[test]
fn killed_connections_let_nobody_in_beyond_the_limit_soak() {
    let (site, database) = (Site::start(), Database::create());
    let (kinds, tables) = every_limit();
    let replicas = start(&database, &site, "limit.max_sessions = 1", &tables);
    let (over, killed) = (AtomicBool::new(false), AtomicUsize::new(0));
    let (mut logins, mut refused_in_all) = (0, 0);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                killed.fetch_add(database.kill_some_backends(10), Ordering::Relaxed);
                thread::sleep(Duration::from_millis(30));
            }
        });
        for round in 0..rounds() / 2 {
            for (kind, max) in &kinds {
                let user = format!("{kind}-{round}");
                let (cookies, refused) = everybody_at_once(&replicas, &user);
                logins += LOGINS;
                refused_in_all += refused;
                if refused == 0 {
                    exactly(&replicas, &user, &cookies, *max);
                } else {
                    at_most(&replicas, &user, &cookies, *max);
                }
            }
        }
        over.store(true, Ordering::Relaxed);
    });
    let killed = killed.load(Ordering::Relaxed);
    println!("{logins} logins, {refused_in_all} refused, {killed} connections killed");
    assert!(killed >= 5, "{killed} connections killed");
    assert!(refused_in_all * 20 <= logins, "{refused_in_all} of {logins} logins were refused");
}

/// Everybody signs in at the same time, spread over the replicas: their cookies, and how many were
/// told that the store failed.
fn everybody_at_once(replicas: &[Proxy], user: &str) -> (Vec<String>, usize) {
    let barrier = Barrier::new(LOGINS);
    let refused = AtomicUsize::new(0);
    let cookies = thread::scope(|scope| {
        let logins: Vec<_> = (0..LOGINS)
            .map(|turn| {
                let (barrier, refused) = (&barrier, &refused);
                let proxy = &replicas[turn % replicas.len()];
                scope.spawn(move || {
                    let mut browser = proxy.browser();
                    barrier.wait();
                    let answer = site::login_as(&mut browser, user);
                    match answer.status {
                        302 => return browser.cookie(COOKIE),
                        403 => {}
                        503 => drop(refused.fetch_add(1, Ordering::Relaxed)),
                        other => panic!("{other}: {}", answer.text()),
                    }
                    assert_eq!(browser.cookie(COOKIE), None, "a refused login left a cookie");
                    None
                })
            })
            .collect();
        logins.into_iter().filter_map(|login| login.join().unwrap()).collect()
    });
    (cookies, refused.into_inner())
}

fn served(proxy: &Proxy, user: &str, cookies: &[String]) -> Vec<bool> {
    let mut browser = Browser::new(proxy.address);
    let serves = |cookie: &String| {
        browser.jar.clear();
        browser.set_cookie(COOKIE, cookie);
        // The answer is cut off when the session ends while it is under way.
        let answer = browser.try_send(&Request::get("/me").xhr());
        answer.is_ok_and(|answer| answer.header("x-user") == Some(user))
    };
    cookies.iter().map(serves).collect()
}

/// The same `max` sessions are served by all replicas, soon and from then on.
#[track_caller]
fn exactly(replicas: &[Proxy], user: &str, cookies: &[String], max: usize) {
    let all = || -> Vec<_> { replicas.iter().map(|proxy| served(proxy, user, cookies)).collect() };
    let agreed = eventually(&format!("the same {max} sessions of {user} everywhere"), || {
        let all = all();
        let same = all.iter().all(|one| *one == all[0]);
        (same && all[0].iter().filter(|served| **served).count() == max).then(|| all[0].clone())
    });
    assert!(all().iter().all(|one| *one == agreed), "{user}: it does not stay so");
    assert_eq!(replicas[0].live(user), max);
}

/// No more than that, the same on all replicas.
#[track_caller]
fn at_most(replicas: &[Proxy], user: &str, cookies: &[String], max: usize) {
    eventually(&format!("at most {max} sessions of {user} everywhere"), || {
        let all: Vec<_> = replicas.iter().map(|proxy| served(proxy, user, cookies)).collect();
        let same = all.iter().all(|one| *one == all[0]);
        (same && all[0].iter().filter(|served| **served).count() <= max).then_some(())
    });
}

/// Somebody asks all replicas with all cookies while people sign in one after the other: a login is
/// answered only when the session it ended is dead everywhere.
#[test]
fn in_strict_mode_no_more_than_the_limit_pass_at_any_instant() {
    let (site, database) = (Site::start(), Database::create());
    let toml = "limit.max_sessions = 1\nlimit.consistency = \"strict\"";
    let mut replicas = start(&database, &site, toml, "");
    for round in 0..25 {
        let mut first = replicas[round % REPLICAS].browser();
        assert_eq!(site::login_as(&mut first, "ann").status, 302);
        let first = [first.cookie(COOKIE).unwrap()];
        let mut second = replicas[(round + 1) % REPLICAS].browser();
        assert_eq!(site::login_as(&mut second, "ann").status, 302);
        for proxy in &replicas {
            // No waiting here: that is what strict means.
            assert_eq!(served(proxy, "ann", &first), [false], "round {round}");
        }
    }
    // One that is stopped in its tracks delays a login by its lease, and serves nobody afterwards.
    let mut held = replicas[0].browser();
    assert_eq!(site::login_as(&mut held, "bob").status, 302);
    replicas[0].signal("STOP");
    let started = Instant::now();
    assert_eq!(site::login_as(&mut replicas[1].browser(), "bob").status, 302);
    let took = started.elapsed();
    println!("a login beside a replica that hangs took {took:?}");
    assert!(took < Duration::from_millis(3_500), "{took:?}");
    assert!(took > Duration::from_millis(500), "{took:?}: the lease was not waited for");
    replicas[0].signal("CONT");
    let answer = held.send(&Request::get("/me").xhr());
    assert!([401, 503].contains(&answer.status), "{}", answer.status);
    // A dead one delays nobody for longer than that.
    replicas[0].kill9();
    eventually("logins are quick again", || {
        let started = Instant::now();
        assert_eq!(site::login_as(&mut replicas[2].browser(), "bob").status, 302);
        (started.elapsed() < Duration::from_millis(500)).then_some(())
    });
}

#[test]
fn an_end_on_one_replica_is_an_end_on_the_others_soak() {
    revocations("", pairs());
}

#[test]
fn without_notify_polling_is_enough() {
    revocations("store.notify = false\nstore.poll_interval = \"100ms\"", 20);
}

#[test]
fn a_limit_set_on_one_replica_holds_on_the_others() {
    let (site, database) = (Site::start(), Database::create());
    let replicas = start(&database, &site, "limit.max_sessions = 1", "");
    let [one, other] = [&replicas[0], &replicas[1]];
    let request = Request::new("PUT", "/api/v1/users/alice/limit")
        .header("Host", &one.admin_address.to_string())
        .header("Authorization", &format!("Bearer {ADMIN_SECRET}"))
        .header("Content-Type", "application/json")
        .body(br#"{"max_sessions": 2}"#.to_vec());
    assert_eq!(http::send(one.admin_address, &request).status, 200);
    let limit = |proxy: &Proxy| proxy.admin("GET", "/api/v1/users/alice").json()["limit"].clone();
    eventually("the other replica knows", || (limit(other) == 2).then_some(()));
    for _ in 0..3 {
        assert_eq!(site::login_as(&mut other.browser(), "alice").status, 302);
    }
    assert_eq!(other.live("alice"), 2);
    assert_eq!(other.admin("DELETE", "/api/v1/users/alice/limit").status, 200);
    eventually("the first replica knows", || (limit(one) == 1).then_some(()));
}

fn revocations(toml: &str, pairs: usize) {
    let (site, database) = (Site::start(), Database::create());
    let toml = format!("limit.max_sessions = \"unlimited\"\n{toml}");
    let replicas = start(&database, &site, &toml, "");
    let mut delays = Vec::with_capacity(pairs);
    for number in 0..pairs {
        let user = format!("user-{number}");
        let one = &replicas[number % REPLICAS];
        let mut browser = replicas[(number + 1) % REPLICAS].browser();
        assert_eq!(site::login_as(&mut browser, &user).status, 302);
        assert_eq!(site::served_as(&mut browser).as_deref(), Some(&*user));
        let answer = one.admin("DELETE", &format!("/api/v1/users/{user}/sessions"));
        assert_eq!((answer.status, answer.json()["ended"].as_u64()), (200, Some(1)));
        let ended = Instant::now();
        let told = loop {
            let answer = browser.try_send(&Request::get("/me").xhr());
            if let Some(answer) = answer.ok().filter(|answer| answer.status != 200) {
                break answer;
            }
            assert!(ended.elapsed() < 10 * DELAY_MAX, "{user} is served on");
        };
        delays.push(ended.elapsed());
        assert_eq!(told.status, 401, "{}", told.text());
        assert_eq!(told.json()["reason"], "admin");
    }
    delays.sort();
    // Where builds or other tests take the processor away, so many may be late; in `make soak` none.
    let late_max = if soak() { 0 } else { (pairs / 100).max(1) };
    let late = delays.iter().filter(|delay| **delay > DELAY_MAX).count();
    assert!(late <= late_max, "{late} of {pairs} were served for longer than {DELAY_MAX:?}");
    let at = |permille: usize| delays[(pairs - 1) * permille / 1000];
    println!("refused elsewhere after p50 {:?}, p99 {:?}, p99.9 {:?}", at(500), at(990), at(999));
    let mut measured = 0.0;
    for proxy in &replicas {
        let page = proxy.metrics();
        let value = |name: &str| -> f64 {
            let line = page.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim().parse().unwrap()
        };
        measured += value("headcount_revocation_delay_seconds_count");
        let within = value("headcount_revocation_delay_seconds_bucket{le=\"1.0\"}");
        let late = value("headcount_revocation_delay_seconds_count") - within;
        assert!(late as usize <= late_max, "{page}");
        assert!(value("headcount_store_lag_seconds") < 2.0, "{page}");
    }
    // Each end is news to the one that knew the session, and to the third unless it hears of both the
    // beginning and the end in one look.
    assert!((pairs..=pairs * (REPLICAS - 1)).contains(&(measured as usize)), "{measured}");
}

#[test]
fn a_replica_cut_off_from_the_store_serves_no_session_and_recovers() {
    let (site, database) = (Site::start(), Database::create());
    let link = Link::to(([127, 0, 0, 1], database.port()).into());
    let toml = site::rules("limit.max_sessions = 5");
    let one = Proxy::start_replica(site.address(), &toml, &database.url(), None);
    let url = database.url_at(link.address.port());
    let far = Proxy::start_replica(site.address(), &toml, &url, Some(&one));
    let toml = site::rules("limit.max_sessions = 5\nstore.on_failure = \"open\"");
    let open = Proxy::start_replica(site.address(), &toml, &url, Some(&one));
    let mut browser = far.browser();
    assert_eq!(site::login_as(&mut browser, "alice").status, 302);
    let cookie = [browser.cookie(COOKIE).unwrap()];
    for hold in [true, false] {
        assert_eq!(site::served_as(&mut browser).as_deref(), Some("alice"));
        eventually("it is ready", || (far.admin("GET", "/readyz").status == 200).then_some(()));
        eventually("the third knows her", || {
            (served(&open, "alice", &cookie) == [true]).then_some(())
        });
        let mut stranger = far.browser();
        let since = Instant::now();
        if hold {
            link.hold();
        } else {
            link.cut();
        }
        // Nobody is let in.
        assert_eq!(site::login_as(&mut stranger, "bob").status, 503);
        eventually("alice is refused", || {
            (browser.send(&Request::get("/me").xhr()).status == 503).then_some(())
        });
        println!("refused {:?} after the line was lost", since.elapsed());
        assert!(since.elapsed() < Duration::from_millis(5_500), "{:?}", since.elapsed());
        assert_eq!(far.admin("GET", "/readyz").status, 503);
        // Whoever presents nothing is not concerned, and whoever signs in is not let through.
        assert_eq!(stranger.send(&Request::get("/")).status, 200);
        assert_eq!(site::login_as(&mut stranger, "bob").status, 503);
        assert_eq!(served(&one, "alice", &cookie), [true], "the other goes on");
        assert_eq!(served(&open, "alice", &cookie), [true], "one that is open goes on");
        assert_eq!(site::login_as(&mut open.browser(), "bob").status, 503);
        let ready = open.admin("GET", "/readyz");
        assert_eq!(ready.status, 200);
        assert!(ready.text().contains("on_failure"), "{}", ready.text());
        let mended = Instant::now();
        link.mend();
        eventually("alice is served again", || {
            (site::served_as(&mut browser).as_deref() == Some("alice")).then_some(())
        });
        println!("served {:?} after the line was back", mended.elapsed());
        assert!(mended.elapsed() < Duration::from_secs(5), "{:?}", mended.elapsed());
        assert_eq!(site::login_as(&mut stranger, "bob").status, 302);
    }
    assert!(!far.metrics().contains("reason=\"store_failed\"} 0\n"));
    assert!(database.kill_some_backends(100) > 2);
    assert_eq!(site::login_as(&mut far.browser(), "carol").status, 302, "no login is lost");
    assert_eq!(site::served_as(&mut browser).as_deref(), Some("alice"));
}
