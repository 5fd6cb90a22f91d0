//! A session that was ended, and whose end was acknowledged, is over: no request that starts later
//! reaches the app with it.

use std::sync::Arc;
use std::thread;

use headcount::clock::SystemClock;
use headcount::policy::{Limits, OnLimit, Standing};
use headcount::session::{EndReason, Session, SessionId};
use headcount::store::{Plan, Scope};

use super::core::{Core, Ticket, limit};
use super::site::{self, Site};
use crate::support::http::Request;
use crate::support::proxy::Proxy;

/// Pairs in process, and over HTTP.
const PAIRS: usize = 100_000;
const PAIRS_HTTP: usize = 500;

/// Tasks that end sessions side by side.
const ENDERS: usize = 200;
const PER_USER: usize = 10;

#[test]
fn no_request_after_an_acknowledged_end_gets_through() {
    let folder = super::folder();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
    runtime.block_on(async {
        let limits = Limits::only(Arc::new(limit(None, OnLimit::Evict)));
        let core = Core::open(folder.path(), limits, Arc::new(SystemClock::new())).await;
        let mut tickets = fill(&core, PAIRS, PER_USER).await;
        let core = Arc::new(core);
        let mut enders = tokio::task::JoinSet::new();
        while !tickets.is_empty() {
            let rest = tickets.split_off(tickets.len().saturating_sub(PAIRS / ENDERS));
            let core = Arc::clone(&core);
            enders.spawn(async move {
                for ticket in &rest {
                    end_and_try(&core, ticket).await;
                }
            });
        }
        while let Some(ender) = enders.join_next().await {
            ender.unwrap();
        }
        assert_eq!(core.registry().counts().live, 0);
        core.recorder.store.close().await;
    });
}

async fn end_and_try(core: &Core, ticket: &Ticket) {
    assert_eq!(core.judge(&ticket.cookie).standing, Standing::Live, "served before");
    assert_eq!(core.recorder.end(vec![ticket.id], "tests").await.unwrap(), 1);
    assert_eq!(core.judge(&ticket.cookie).standing, Standing::Over(EndReason::Admin));
    assert!(!core.reaches_app(&ticket.cookie) && !core.reaches_app(&ticket.bare));
}

/// Writes so many live sessions into the store, a thousand in each transaction.
pub(super) async fn fill(core: &Core, count: usize, per_user: usize) -> Vec<Ticket> {
    let mut tickets = Vec::with_capacity(count);
    while tickets.len() < count {
        let mut plan = Plan::default();
        for _ in 0..1000.min(count - tickets.len()) {
            let user = format!("user-{}", tickets.len() / per_user);
            let (login, ticket) = core.arrive(&user);
            let one = headcount::decide::login(
                &core.recorder.limits,
                core.recorder.switches,
                &login,
                &[],
            );
            plan.sessions.extend(one.sessions);
            plan.keys.extend(one.keys);
            tickets.push(ticket);
        }
        let write = Box::new(move |_: &[Session]| plan.clone());
        core.recorder.store.transact(Scope::default(), write).await.unwrap();
    }
    tickets
}

#[test]
fn no_request_after_an_acknowledged_end_reaches_the_app() {
    let site = Site::start();
    let proxy =
        Proxy::start(site.address(), None, &site::rules("limit.max_sessions = \"unlimited\""));
    thread::scope(|scope| {
        for lane in 0..4 {
            let (proxy, site) = (&proxy, &site);
            scope.spawn(move || {
                for number in 0..PAIRS_HTTP / 4 {
                    end_over_http(proxy, site, &format!("user-{lane}-{number}"));
                }
            });
        }
    });
}

fn end_over_http(proxy: &Proxy, site: &Site, user: &str) {
    let mut browser = proxy.browser();
    assert_eq!(site::login_as(&mut browser, user).status, 302);
    assert_eq!(site::served_as(&mut browser).as_deref(), Some(user));
    let id: SessionId = proxy.sessions(user, "live")[0]["id"].as_str().unwrap().parse().unwrap();
    let seen = site.seen_of(user);
    let ended = proxy.admin("DELETE", &format!("/api/v1/sessions/{id}"));
    assert_eq!((ended.status, ended.json()["ended"].as_u64()), (200, Some(1)));
    let answer = browser.send(&Request::get("/me").xhr());
    assert_eq!(answer.status, 401, "{}", answer.text());
    assert_eq!(answer.json()["reason"], "admin");
    assert_eq!(site.seen_of(user), seen, "the app has not seen the credential again");
}
