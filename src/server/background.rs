//! Work beside the requests: what has timed out is ended, last-seen times are written, what is kept
//! no longer is dropped. A panic costs one round; the end of the store ends the process.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::lifecycle::Lifecycle;
use crate::metrics::Metrics;
use crate::proxy::{Live, Proxy};
use crate::store::StoreError;

/// How often what is kept no longer is dropped.
const PRUNE_INTERVAL: Duration = Duration::from_secs(2);
/// How often a look is taken at whether the store was heard.
const STALE_INTERVAL: Duration = Duration::from_millis(200);
const STALE_CUTS: u32 = 5;
/// How often a look is taken at the file that tells where addresses are.
const PLACES_INTERVAL: Duration = Duration::from_secs(5);
/// Between a panic and the next attempt.
const AFTER_PANIC: Duration = Duration::from_secs(1);

/// Starts it all; every task ends when a drain begins.
pub(super) fn start(live: &Arc<Live>) -> Vec<JoinHandle<()>> {
    let proxy = live.now();
    let (life, metrics) = (&proxy.lifecycle, &proxy.metrics);
    let sweeping = Arc::clone(live);
    let flushing = Arc::clone(live);
    let pruning = Arc::clone(live);
    let listening = Arc::clone(live);
    let locating = Arc::clone(live);
    vec![
        restarted("sweep", life, metrics, move || sweep(Arc::clone(&sweeping))),
        restarted("flush", life, metrics, move || flush(Arc::clone(&flushing))),
        restarted("prune", life, metrics, move || prune(Arc::clone(&pruning))),
        restarted("stale", life, metrics, move || cut_when_stale(Arc::clone(&listening))),
        restarted("places", life, metrics, move || follow_places(Arc::clone(&locating))),
        tokio::spawn(watch_store(proxy)),
    ]
}

/// Runs `work` until it ends, and again when it panicked.
fn restarted<F>(
    name: &'static str,
    life: &Lifecycle,
    metrics: &Arc<Metrics>,
    work: impl Fn() -> F + Send + 'static,
) -> JoinHandle<()>
where
    F: Future<Output = ()> + Send + 'static,
{
    let (life, metrics) = (life.clone(), Arc::clone(metrics));
    tokio::spawn(async move {
        while tokio::spawn(work()).await.is_err_and(|error| error.is_panic()) {
            metrics.panics.inc();
            tracing::error!(task = name, "background work panicked; it is started again");
            if !pause(&life, AFTER_PANIC).await {
                return;
            }
        }
    })
}

async fn sweep(live: Arc<Live>) {
    while next(&live, |proxy| proxy.settings.session.sweep_interval_ms).await {
        let proxy = live.now();
        loop {
            let result = proxy.recorder.sweep().await;
            let more = matches!(result, Ok(true));
            note(result.map(drop));
            if !more {
                break;
            }
        }
    }
}

async fn flush(live: Arc<Live>) {
    while next(&live, |proxy| proxy.settings.session.flush_interval_ms).await {
        note(live.now().recorder.flush().await);
    }
}

async fn prune(live: Arc<Live>) {
    let interval = u64::try_from(PRUNE_INTERVAL.as_millis()).unwrap_or(u64::MAX);
    while next(&live, |_| interval).await {
        note(live.now().recorder.prune().await);
    }
}

/// A replica that has not heard from the store lets no stream go on either: its session may have
/// ended elsewhere.
async fn cut_when_stale(live: Arc<Live>) {
    let life = live.now().lifecycle.clone();
    let mut looks = 0_u32;
    while pause(&life, STALE_INTERVAL).await {
        let proxy = live.now();
        looks = if proxy.recorder.is_stale() { looks.saturating_add(1) } else { 0 };
        if looks == 1 {
            tracing::error!("the store was not heard for store.grace: no session is served");
        }
        // Again, for those that were judged just before and begin just after.
        if (1..=STALE_CUTS).contains(&looks) {
            proxy.registry.cut_streams();
        }
    }
}

/// A newer file of places is taken up when it is there; until it is whole the old one stays.
async fn follow_places(live: Arc<Live>) {
    let life = live.now().lifecycle.clone();
    while pause(&life, PLACES_INTERVAL).await {
        let proxy = live.now();
        if proxy.settings.geo_database.is_none() {
            continue;
        }
        let audit = Arc::clone(&proxy.recorder.audit);
        drop(proxy);
        match tokio::task::spawn_blocking(move || audit.places.follow()).await {
            Ok(Some(Ok(()))) => tracing::info!("a newer database of places is in use"),
            Ok(Some(Err(error))) => tracing::warn!(%error, "the old database of places stays"),
            Ok(None) | Err(_) => {}
        }
    }
}

/// Without the store's writer nothing could be recorded or revoked.
async fn watch_store(proxy: Arc<Proxy>) {
    let (store, life) = (Arc::clone(&proxy.recorder.store), proxy.lifecycle.clone());
    drop(proxy);
    tokio::select! {
        () = store.stopped() => {
            tracing::error!("the store has stopped; leaving");
            life.fail();
        }
        () = life.drain_token().cancelled() => {}
    }
}

/// Waits for the time of the next round; false when it is time to leave.
async fn next(live: &Live, interval_ms: impl Fn(&Proxy) -> u64) -> bool {
    let proxy = live.now();
    let (interval, life) = (interval_ms(&proxy), proxy.lifecycle.clone());
    drop(proxy);
    pause(&life, Duration::from_millis(interval)).await
}

async fn pause(life: &Lifecycle, time: Duration) -> bool {
    tokio::select! {
        () = tokio::time::sleep(time) => true,
        () = life.drain_token().cancelled() => false,
    }
}

fn note(result: Result<(), StoreError>) {
    if let Err(error) = result {
        tracing::warn!(%error, "background work on the store failed");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn work_that_panics_is_started_again() {
        let (life, metrics) = (Lifecycle::new(), Arc::new(Metrics::new()));
        let rounds = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&rounds);
        let task = restarted("test", &life, &metrics, move || {
            let round = counted.fetch_add(1, Ordering::SeqCst);
            async move {
                assert!(round == 2, "injected");
            }
        });
        task.await.unwrap();
        assert_eq!(rounds.load(Ordering::SeqCst), 3);
        assert_eq!(metrics.panics.get(), 2);
    }
}
