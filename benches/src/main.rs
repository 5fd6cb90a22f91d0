//! Load for the benchmarks, from one thread: as fast as answers come back, or at a rate that does
//! not wait for them. What is run against what, and what is made of the figures, is in `run`.

mod http1;
mod http2;
mod options;
mod pace;
mod stream;
mod websocket;

use std::io::{self, Write as _};
use std::rc::Rc;
use std::time::{Duration, Instant};

use options::{Kind, Options};
use pace::Pace;
use tokio::task::JoinSet;

/// What one run was like; `run` reads it.
#[derive(Default)]
struct Totals {
    answered: u64,
    failed: u64,
    latencies_us: Vec<u32>,
}

fn main() -> io::Result<()> {
    let options = Options::read(std::env::args().skip(1))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match options.kind {
            Kind::Echo => websocket::echo(options.target).await,
            Kind::Idle => http1::idle(Rc::new(options)).await,
            _ => load(options).await,
        }
    })
}

async fn load(options: Options) -> io::Result<()> {
    let options = Rc::new(options);
    let local = tokio::task::LocalSet::new();
    local
        .run_until(async {
            let pace = Pace::new(options.rate, options.duration, options.requests)?;
            let mut clients = JoinSet::new();
            let count = options.connections;
            for _ in 0..count {
                let (options, pace) = (Rc::clone(&options), Rc::clone(&pace));
                match options.kind {
                    Kind::Http1 => clients.spawn_local(http1::keep(options, pace)),
                    Kind::New => clients.spawn_local(http1::anew(options, pace)),
                    Kind::Http2 => clients.spawn_local(http2::run(options, pace)),
                    Kind::WebSocket => clients.spawn_local(websocket::run(options, pace)),
                    Kind::Echo | Kind::Idle => continue,
                };
            }
            pace.wait_ready(count).await;
            let (begun, cpu) = (Instant::now(), cpu());
            pace.begin();
            while let Some(ended) = clients.join_next().await {
                if let Err(error) = ended.map_err(io::Error::other)? {
                    pace.fail(&error);
                }
            }
            report(&pace.totals(), begun.elapsed(), cpu_since(cpu));
            Ok(())
        })
        .await
}

/// One line of JSON.
fn report(totals: &Totals, elapsed: Duration, cpu: Duration) {
    let mut latencies = totals.latencies_us.clone();
    latencies.sort_unstable();
    let at = |share: f64| {
        let place = (latencies.len() as f64 * share) as usize;
        latencies.get(place.min(latencies.len().saturating_sub(1))).copied().unwrap_or_default()
    };
    let line = format!(
        "{{\"answered\": {}, \"failed\": {}, \"seconds\": {:.6}, \"cpu_seconds\": {:.6}, \
         \"p50_us\": {}, \"p99_us\": {}, \"p999_us\": {}}}",
        totals.answered,
        totals.failed,
        elapsed.as_secs_f64(),
        cpu.as_secs_f64(),
        at(0.5),
        at(0.99),
        at(0.999),
    );
    // Nobody left to tell.
    let _ = writeln!(io::stdout(), "{line}");
}

fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn cpu_since(earlier: Duration) -> Duration {
    cpu().saturating_sub(earlier)
}
