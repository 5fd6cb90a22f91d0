//! N1 in process: fifty simultaneous logins of one user, in every order the runtime comes up with.
//! Each round is another user, and several rounds run side by side, so that commits are shared.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use headcount::clock::SystemClock;
use headcount::policy::{Limits, OnLimit, Standing};
use headcount::session::EndReason;
use headcount::store::{Decision, Listing};
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use super::core::{Core, Ticket, limit};
use crate::support::soak;

const LOGINS: usize = 50;
/// Rounds side by side.
const LANES: usize = 6;

/// 1,000 rounds for each limit in `make test`, 10,000 in `make soak`.
fn rounds() -> usize {
    if soak() { 10_000 } else { 1000 }
}

#[test]
fn fifty_logins_at_once_leave_exactly_the_limit_when_evicting_soak() {
    [1, 2, 5].into_iter().for_each(|max| race(OnLimit::Evict, max));
}

#[test]
fn fifty_logins_at_once_leave_exactly_the_limit_when_denying_soak() {
    [1, 2, 5].into_iter().for_each(|max| race(OnLimit::Deny, max));
}

fn race(on_limit: OnLimit, max: usize) {
    let folder = super::folder();
    let started = std::time::Instant::now();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
    runtime.block_on(async {
        let limit = limit(Some(u32::try_from(max).unwrap()), on_limit);
        let limits = Limits::only(Arc::new(limit));
        let core = Arc::new(Core::open(folder.path(), limits, Arc::new(SystemClock::new())).await);
        let under_way: Arc<[AtomicUsize; LANES]> = Arc::default();
        let over = Arc::new(AtomicBool::new(false));
        let watcher =
            tokio::spawn(watch(Arc::clone(&core), Arc::clone(&under_way), max, Arc::clone(&over)));
        let mut lanes = JoinSet::new();
        for lane in 0..LANES {
            let (core, under_way) = (Arc::clone(&core), Arc::clone(&under_way));
            lanes.spawn(async move {
                for round in (lane..rounds()).step_by(LANES) {
                    under_way[lane].store(round, Ordering::Relaxed);
                    run(&core, &format!("user-{round}"), max, on_limit).await;
                }
            });
        }
        while let Some(lane) = lanes.join_next().await {
            lane.unwrap();
        }
        over.store(true, Ordering::Relaxed);
        assert!(watcher.await.unwrap() > 0, "somebody was looking");
        assert_eq!(core.most_live.load(Ordering::Relaxed), max, "after every single commit");
        core.recorder.store.close().await;
    });
    println!("limit {max}, {on_limit:?}: {} rounds in {:?}", rounds(), started.elapsed());
}

/// Looks again and again, from outside, at the users whose rounds are under way.
async fn watch(
    core: Arc<Core>,
    under_way: Arc<[AtomicUsize; LANES]>,
    max: usize,
    over: Arc<AtomicBool>,
) -> u64 {
    let mut looks = 0;
    // Not a wait for anything: it leaves the cores to the logins between two looks.
    let mut pace = tokio::time::interval(Duration::from_millis(1));
    while !over.load(Ordering::Relaxed) {
        for round in under_way.iter() {
            let user = format!("user-{}", round.load(Ordering::Relaxed));
            let live = core.registry().count_of(&user);
            assert!(live <= max, "{user} has {live} live sessions, {max} are allowed");
        }
        looks += 1;
        pace.tick().await;
    }
    looks
}

/// One round: everybody at the barrier, everybody in, then count.
async fn run(core: &Arc<Core>, user: &str, max: usize, on_limit: OnLimit) {
    let barrier = Arc::new(Barrier::new(LOGINS));
    let mut runners = JoinSet::new();
    for _ in 0..LOGINS {
        let (core, barrier, (login, ticket)) =
            (Arc::clone(core), Arc::clone(&barrier), core.arrive(user));
        runners.spawn(async move {
            barrier.wait().await;
            (core.recorder.login(login).await.unwrap(), ticket)
        });
    }
    let runners = runners.join_all().await;
    let served = runners.iter().filter(|(told, ticket)| is_served(core, told, ticket)).count();
    assert_eq!(served, max, "{user}, limit {max}, {on_limit:?}");
    assert_eq!(core.registry().count_of(user), max);
    let listing =
        Listing { user: Some(user.into()), live: Some(true), count_max: 100, ..Listing::default() };
    let stored = core.recorder.store.list(listing).await.unwrap();
    assert_eq!(stored.len(), max, "the store agrees");
    assert!(stored.iter().all(|session| runners.iter().any(|(_, one)| one.id == session.id)));
}

/// Whether this login is served now; if not, it was told or will be.
fn is_served(core: &Core, told: &Decision, ticket: &Ticket) -> bool {
    assert!(!core.reaches_app(&ticket.bare), "the app's own value is never a way in");
    let standing = core.judge(&ticket.cookie).standing;
    match told {
        Decision::Admitted { session } => {
            assert_eq!(*session, ticket.id);
            assert!(
                matches!(standing, Standing::Live | Standing::Over(EndReason::Limit)),
                "{standing:?}"
            );
        }
        Decision::Denied { .. } => {
            assert_ne!(standing, Standing::Live);
            assert!(!core.reaches_app(&ticket.cookie));
        }
        other => panic!("{other:?}"),
    }
    standing == Standing::Live
}
