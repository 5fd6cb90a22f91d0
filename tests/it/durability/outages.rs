//! kill -9 of replicas and of PostgreSQL itself while people log in, log out and are ended: what was
//! acknowledged holds afterwards on every replica. What was asked but never answered may be either
//! way, and is not looked at.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::core::COOKIE;
use super::site::{self, Site};
use crate::support::browser::Browser;
use crate::support::http::{Connection, Request, Response};
use crate::support::postgres::Database;
use crate::support::proxy::{ADMIN_SECRET, Proxy};
use crate::support::{eventually, soak};

const CLIENTS: usize = 4;
const REPLICAS: usize = 2;

fn proxy_cycles() -> usize {
    if soak() { 300 } else { 10 }
}

fn server_cycles() -> usize {
    if soak() { 100 } else { 4 }
}

/// A session as its owner knows it from the answers that came.
struct Known {
    user: String,
    cookie: String,
    live: bool,
}

fn start(database: &Database, site: &Site) -> Vec<Proxy> {
    let toml = site::rules("limit.max_sessions = \"unlimited\"\nserver.workers = 1");
    let first = Proxy::start_replica(site.address(), &toml, &database.url(), None);
    let second = Proxy::start_replica(site.address(), &toml, &database.url(), Some(&first));
    vec![first, second]
}

#[test]
fn nothing_acknowledged_is_lost_when_replicas_are_killed_soak() {
    let (site, database) = (Site::start(), Database::create());
    let mut replicas = start(&database, &site);
    let mut ledger = Vec::new();
    for cycle in 0..proxy_cycles() {
        let victim = cycle % REPLICAS;
        let fresh = Mutex::new(Vec::new());
        let (addresses, over) = (addresses(&replicas), AtomicBool::new(false));
        thread::scope(|scope| {
            let acknowledged = work(scope, &addresses, cycle, &fresh, &over);
            wait_for(&acknowledged, cycle);
            replicas[victim].kill9();
            over.store(true, Ordering::Relaxed);
        });
        replicas[victim].start_again();
        let fresh = fresh.into_inner();
        verify(&replicas, &fresh);
        ledger.extend(fresh);
    }
    settle(&database, &replicas, &ledger, proxy_cycles());
}

#[test]
fn nothing_acknowledged_is_lost_when_the_server_is_killed_soak() {
    let (site, database) = (Site::start(), Database::on_its_own());
    let replicas = start(&database, &site);
    let mut ledger = Vec::new();
    let mut slowest = Duration::ZERO;
    for cycle in 0..server_cycles() {
        let fresh = Mutex::new(Vec::new());
        let (addresses, over) = (addresses(&replicas), AtomicBool::new(false));
        thread::scope(|scope| {
            let acknowledged = work(scope, &addresses, cycle, &fresh, &over);
            wait_for(&acknowledged, cycle);
            database.crash_server();
            over.store(true, Ordering::Relaxed);
        });
        database.start_server();
        let started = Instant::now();
        for proxy in &replicas {
            eventually("it is ready again", || {
                (proxy.admin("GET", "/readyz").status == 200).then_some(())
            });
        }
        slowest = slowest.max(started.elapsed());
        let fresh = fresh.into_inner();
        verify(&replicas, &fresh);
        ledger.extend(fresh);
    }
    println!("ready {slowest:?} after the server at the latest");
    assert!(slowest < Duration::from_secs(5), "{slowest:?}");
    settle(&database, &replicas, &ledger, server_cycles());
}

fn addresses(replicas: &[Proxy]) -> Vec<[std::net::SocketAddr; 2]> {
    replicas.iter().map(|proxy| [proxy.address, proxy.admin_address]).collect()
}

/// Clients at work on all replicas until it is over; returns the count of answers that came.
fn work<'scope>(
    scope: &'scope thread::Scope<'scope, '_>,
    replicas: &'scope [[std::net::SocketAddr; 2]],
    cycle: usize,
    known: &'scope Mutex<Vec<Known>>,
    over: &'scope AtomicBool,
) -> std::sync::Arc<AtomicUsize> {
    let acknowledged = std::sync::Arc::new(AtomicUsize::new(0));
    for client in 0..CLIENTS {
        let acknowledged = std::sync::Arc::clone(&acknowledged);
        scope.spawn(move || {
            for turn in 0.. {
                if over.load(Ordering::Relaxed) {
                    break;
                }
                let user = format!("user-{cycle}-{client}-{turn}");
                let at = replicas[(client + turn) % replicas.len()];
                if let Some(one) = live_through(at, user, turn, &acknowledged) {
                    known.lock().push(one);
                }
            }
        });
    }
    acknowledged
}

/// Each time at another point of the work; not after a time, but after so many answers.
fn wait_for(acknowledged: &AtomicUsize, cycle: usize) {
    let until = 12 + cycle * 7 % 40;
    eventually("the clients get on", || {
        (acknowledged.load(Ordering::Relaxed) >= until).then_some(())
    });
}

/// One user's login, and then perhaps a logout or an end by the admin; nothing if it is in doubt
/// what became of it.
fn live_through(
    [address, admin]: [std::net::SocketAddr; 2],
    user: String,
    turn: usize,
    acknowledged: &AtomicUsize,
) -> Option<Known> {
    let done = |answer: std::io::Result<Response>, status: u16| {
        let answer = answer.ok()?;
        // 503: it says itself that it does not know.
        assert!([status, 503].contains(&answer.status), "{}: {}", answer.status, answer.text());
        (answer.status == status).then(|| acknowledged.fetch_add(1, Ordering::Relaxed))
    };
    let mut browser = Browser::new(address);
    done(browser.try_send(&site::login_request(&user)), 302)?;
    let cookie = browser.cookie(COOKIE)?;
    let live = match turn % 3 {
        0 => true,
        1 => done(browser.try_send(&Request::form("/logout", &[])), 302).map(|_| false)?,
        _ => done(admin_end(admin, &user), 200).map(|_| false)?,
    };
    Some(Known { user, cookie, live })
}

fn admin_end(admin: std::net::SocketAddr, user: &str) -> std::io::Result<Response> {
    let request = Request::new("DELETE", &format!("/api/v1/users/{user}/sessions"))
        .header("Host", &admin.to_string())
        .header("Authorization", &format!("Bearer {ADMIN_SECRET}"))
        .header("Connection", "close");
    Connection::open(admin)?.exchange(&request).map(|(answer, _)| answer)
}

/// What was acknowledged holds on every replica, within the time that an end may take to get there.
#[track_caller]
fn verify(replicas: &[Proxy], ledger: &[Known]) {
    for proxy in replicas {
        let mut browser = proxy.browser();
        for known in ledger {
            let expected = known.live.then_some(known.user.as_str());
            eventually(&format!("{} is served: {}", known.user, known.live), || {
                browser.jar.clear();
                browser.set_cookie(COOKIE, &known.cookie);
                let answer = browser.try_send(&Request::get("/me").xhr()).ok()?;
                (answer.status != 503 && answer.header("x-user") == expected).then_some(())
            });
        }
    }
}

/// All of it, once more; and the server itself finds its files in order.
#[track_caller]
fn settle(database: &Database, replicas: &[Proxy], ledger: &[Known], cycles: usize) {
    verify(replicas, ledger);
    let live = ledger.iter().filter(|known| known.live).count();
    assert!(live > cycles && ledger.len() - live > cycles, "both kinds were tried");
    println!("{} acknowledged, {live} live, {cycles} kills", ledger.len());
    database.sql("CREATE EXTENSION amcheck");
    let checked = database.sql(
        "SELECT count(bt_index_check(c.oid, i.indisunique)) FROM pg_index i \
         JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam \
         WHERE a.amname = 'btree' AND c.relnamespace = 'headcount'::regnamespace",
    );
    assert!(checked.trim().parse::<u32>().unwrap() > 10, "{checked}");
}
