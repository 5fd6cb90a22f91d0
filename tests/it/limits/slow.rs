//! Clients that are slow on purpose: each is closed at its deadline, and meanwhile honest ones are
//! served as before. Our own attackers, and slowhttptest.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;

use super::*;
use crate::support::legacy::{LegacyApp, Reply};

/// Attackers at once, and for how long they come again.
fn attack() -> (usize, Duration) {
    if soak() { (5_000, Duration::from_secs(60)) } else { (1_000, Duration::from_secs(5)) }
}

/// The defaults, or so short that a test sees them pass.
fn deadlines() -> &'static str {
    if soak() {
        return "";
    }
    "server.limits.first_byte_timeout = \"2s\"\nserver.limits.head_timeout = \"2s\"\n\
     server.limits.body_idle_timeout = \"2s\"\nserver.limits.write_stall_timeout = \"2s\"\n"
}

fn app() -> LegacyApp {
    LegacyApp::start(|request| match request.target() {
        "/pour" => Reply::Stream(Box::new(|stream| {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 999999999\r\n\r\n");
            while stream.write_all(&[b'x'; 64 * 1024]).is_ok() {}
        })),
        _ => Reply::page("200 OK", &[], "hello"),
    })
}

/// How long honest clients wait for an answer.
#[derive(Debug)]
struct Waits {
    median: Duration,
    p99: Duration,
}

/// Asks as honest clients do, as long as `go_on` says.
fn honest(proxy: &Proxy, go_on: impl Fn() -> bool + Sync) -> Waits {
    let mut times: Vec<Duration> = thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let (mut times, mut stream) = (Vec::new(), raw::connect(proxy.address));
                    while go_on() {
                        let start = Instant::now();
                        let answer = ask(&mut stream, GET);
                        assert!(answer.contains("200 OK"), "an honest client got {answer:?}");
                        times.push(start.elapsed());
                        thread::sleep(Duration::from_millis(2));
                    }
                    times
                })
            })
            .collect();
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    });
    times.sort();
    assert!(times.len() > 20, "{} requests", times.len());
    Waits { median: times[times.len() / 2], p99: times[times.len() * 99 / 100] }
}

/// At most twice as slow; so little that nobody feels it is no difference. Where other tests run at
/// the same time only the median tells.
#[track_caller]
fn assert_unimpressed(before: &Waits, during: &Waits) {
    println!("honest clients: {before:?}, during the attack {during:?}");
    let (limit, wait) = match soak() {
        true => (before.p99 * 2 + Duration::from_millis(20), during.p99),
        false => (before.median * 2 + Duration::from_millis(200), during.median),
    };
    assert!(wait <= limit, "{before:?}, then {during:?}");
    assert!(during.p99 < Duration::from_secs(4), "{during:?}");
}

type Attack = (&'static str, &'static [u8], Option<&'static [u8]>, u64);

/// What an attacker says before it falls silent, or says a little more now and then; and the seconds
/// by default until it is closed.
const ATTACKS: [Attack; 5] = [
    ("silent", b"", None, 10),
    ("half a request line", b"GET /", Some(b"x"), 15),
    ("half a head", b"GET / HTTP/1.1\r\nHost: a\r\n", Some(b"X: y\r\n"), 15),
    ("half a body", b"POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: 99\r\n\r\nx", None, 30),
    // A reset is not seen by a client whose window was overrun, unless it sends something: what it gets
    // then is in its place (RFC 5961 §3.2), and what it got before may not have been.
    ("reads nothing", b"GET /pour HTTP/1.1\r\nHost: a\r\n\r\n", Some(b"x"), 30),
];

/// A closed connection lingers for a second, and thousands that come at once wait to be accepted;
/// other tests may run at the same time.
fn allowed(seconds: u64) -> Duration {
    Duration::from_secs(if soak() { seconds + 10 } else { 2 + 30 })
}

/// One connection of an attacker, until the proxy has had enough; how long that took.
async fn suffer(number: usize, proxy: SocketAddr) -> Duration {
    let (name, first, again, seconds) = ATTACKS[number % ATTACKS.len()];
    let socket = TcpSocket::new_v4().unwrap();
    // Small, so that what is not read soon fills it.
    socket.set_recv_buffer_size(4096).unwrap();
    socket.bind(SocketAddr::new(client(number / 100).into(), 0)).unwrap();
    let mut stream = socket.connect(proxy).await.unwrap();
    let start = Instant::now();
    let mut gone = stream.write_all(first).await.is_err();
    let reads = name != "reads nothing";
    let mut scratch = [0; 1024];
    while !gone {
        let pause = tokio::time::sleep(Duration::from_millis(500));
        if reads {
            tokio::select! {
                read = stream.read(&mut scratch) => gone = !matches!(read, Ok(1..)),
                () = pause => {}
            }
        } else {
            // Whether the other side has reset is seen without reading.
            pause.await;
            gone = stream.take_error().is_ok_and(|error| error.is_some());
        }
        if let (false, Some(more)) = (gone, again) {
            gone = stream.write_all(more).await.is_err();
        }
        let open = start.elapsed();
        assert!(open < allowed(seconds), "{name} is open after {open:?}");
    }
    start.elapsed()
}

/// So many attackers, who come again as long as it lasts; how long each connection stayed open.
fn besiege(
    proxy: &Proxy,
    attackers: usize,
    lasting: Duration,
    in_place: &Arc<AtomicUsize>,
) -> Vec<Duration> {
    let (started, address) = (Instant::now(), proxy.address);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..attackers {
            let in_place = Arc::clone(in_place);
            tasks.spawn(async move {
                tokio::time::sleep(Duration::from_micros(400 * number as u64)).await;
                in_place.fetch_add(1, Ordering::SeqCst);
                let mut stays = Vec::new();
                while stays.is_empty() || started.elapsed() < lasting {
                    stays.push(suffer(number, address).await);
                }
                stays
            });
        }
        tasks.join_all().await.into_iter().flatten().collect()
    })
}

/// Bytes that the kernel holds for the other end of a connection to the proxy (proc_pid_net(5)).
fn unsent_to(client: &TcpStream) -> u64 {
    let port = |address: &str| u16::from_str_radix(address.rsplit(':').next()?, 16).ok();
    let (ours, theirs) = (client.local_addr().unwrap().port(), client.peer_addr().unwrap().port());
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let of_proxy = table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .find(|columns| port(columns[1]) == Some(theirs) && port(columns[2]) == Some(ours));
    let (sending, _) = of_proxy.unwrap()[4].split_once(':').unwrap();
    u64::from_str_radix(sending, 16).unwrap()
}

#[test]
fn an_answer_that_nobody_takes_waits_in_the_app() {
    let app = app();
    let proxy = Proxy::start(app.address, None, &configured(""));
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&proxy.address.into()).unwrap();
    let mut client = TcpStream::from(socket);
    client.write_all(b"GET /pour HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let (mut last, mut still) = (0, 0);
    eventually("nothing more comes", || {
        let held = unsent_to(&client);
        still = if held == last && held > 64 * 1024 { still + 1 } else { 0 };
        last = held;
        (still == 20).then_some(())
    });
    assert!(last < 512 * 1024, "{last} bytes");
}

#[test]
fn soak_slow_clients_are_closed_in_time_and_hurt_nobody() {
    let _alone = alone();
    let (attackers, lasting) = attack();
    let app = app();
    let proxy = Proxy::start(app.address, None, &configured(deadlines()));
    let warm = Instant::now();
    let before = honest(&proxy, || warm.elapsed() < Duration::from_secs(2));
    let over = AtomicBool::new(false);
    let in_place = Arc::new(AtomicUsize::new(0));
    let (during, all) = thread::scope(|scope| {
        let honests = scope.spawn(|| {
            eventually("the attackers are in place", || {
                (in_place.load(Ordering::SeqCst) == attackers).then_some(())
            });
            honest(&proxy, || !over.load(Ordering::SeqCst))
        });
        // A failed siege must not leave the honest ones asking for ever.
        let siege = AssertUnwindSafe(|| besiege(&proxy, attackers, lasting, &in_place));
        let all = catch_unwind(siege);
        over.store(true, Ordering::SeqCst);
        let all = all.unwrap_or_else(|panic| resume_unwind(panic));
        (honests.join().unwrap(), all)
    });
    let (closed, longest) = (all.len(), all.iter().max().unwrap());
    println!("{closed} slow connections, the longest {longest:?}");
    assert!(closed >= attackers);
    assert_unimpressed(&before, &during);
    all_released(&proxy);
}

#[test]
fn soak_slowhttptest_takes_nothing_down() {
    let _alone = alone();
    let app = app();
    let keys = format!("server.limits.connections_per_address = 9000\n{}", deadlines());
    let proxy = Proxy::start(app.address, None, &configured(&keys));
    let warm = Instant::now();
    let before = honest(&proxy, || warm.elapsed() < Duration::from_secs(2));
    let over = AtomicBool::new(false);
    let (connections, seconds) = if soak() { ("1200", "60") } else { ("150", "6") };
    let url = format!("http://{}/", proxy.address);
    let upload = format!("{url}up");
    let pour = format!("{url}pour");
    let modes: [&[&str]; 4] = [
        &["-H", "-i", "1", "-u", &url],
        &["-B", "-i", "1", "-s", "8192", "-u", &upload],
        &["-R", "-a", "10", "-b", "3000", "-t", "HEAD", "-u", &url],
        &["-X", "-w", "10", "-y", "20", "-n", "1", "-z", "32", "-u", &pour],
    ];
    let (during, said) = thread::scope(|scope| {
        let honests = scope.spawn(|| honest(&proxy, || !over.load(Ordering::SeqCst)));
        let attacks: Vec<_> = modes
            .iter()
            .map(|mode| {
                scope.spawn(move || {
                    let output = Command::new("slowhttptest")
                        .args(*mode)
                        .args(["-c", connections, "-r", "100", "-l", seconds, "-p", "2"])
                        .output()
                        .expect("slowhttptest is installed by tests/setup");
                    String::from_utf8_lossy(&output.stdout).into_owned()
                })
            })
            .collect();
        let said: Vec<_> = attacks.into_iter().map(|attack| attack.join().unwrap()).collect();
        over.store(true, Ordering::SeqCst);
        (honests.join().unwrap(), said)
    });
    for text in &said {
        assert!(text.contains("YES"), "{text}");
        // Its own look at the service, every five seconds.
        assert!(!text.contains("service available:   \u{1b}[1;31mNO"), "{text}");
    }
    assert_unimpressed(&before, &during);
    all_released(&proxy);
}
