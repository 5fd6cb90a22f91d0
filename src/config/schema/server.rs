//! Keys and defaults of `[server]`: addresses, limits on sizes and counts, times.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use ipnet::IpNet;

use crate::settings::{Http2Limits, ListenAddress, ServerLimits, ServerSettings, TrustedProxies};

use super::super::reader::{At, Range, Table};
use super::{Context, strictness, tls};

pub(super) const SECOND: u64 = 1_000;
pub(super) const DAY: u64 = 86_400 * SECOND;
pub(super) const KIB: u64 = 1 << 10;
pub(super) const MIB: u64 = 1 << 20;
/// What a protocol timeout may be: shorter cuts honest clients, longer protects from nothing.
pub(super) const PATIENCE: Range = 100..=3_600 * SECOND;
/// What fits into memory many times over.
const HEAD: Range = KIB..=MIB;

/// `[server]`.
pub(super) fn server(root: &mut Table<'_>, context: &Context<'_>) -> ServerSettings {
    let mut server = root.table("server");
    let listen = listen_addresses(&mut server, context);
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let workers = server.count("workers", cores, 1..=1_024);
    let trusted_proxies = trusted_proxies(&mut server);
    let node = server.text("node");
    if let Some(node) = &node
        && !super::is_plain_name(&node.value)
    {
        server.wrong("node", &node.at, "cannot be a name", "letters, digits, `-`, `_` or `.`");
    }
    let node = node.map(|node| node.value);
    let from_env = || (context.env)("HOSTNAME").filter(|name| super::is_plain_name(name));
    let shutdown_grace_ms = server.duration("shutdown_grace", 30 * SECOND, 0..=DAY);
    let shutdown_delay_ms = server.duration("shutdown_delay", 0, 0..=DAY / 24);
    let limits = limits(&mut server);
    let words = [("off", false), ("required", true)];
    let proxy_protocol = server.choice("proxy_protocol", false, &words, &[]);
    let http2 = server.flag("http2", true);
    let http2_cleartext = server.flag("http2_cleartext", false);
    let http2_websockets = server.flag("http2_websockets", true);
    let accepted = strictness::accepted(&mut server);
    let tls = tls::tls(&mut server, context);
    let unix_mode = unix_mode(&mut server);
    server.finish();
    ServerSettings {
        listen: listen.into_iter().map(|address| address.value).collect(),
        unix_mode,
        tls,
        http2,
        http2_cleartext,
        http2_websockets,
        proxy_protocol,
        accepted,
        workers: to_usize(workers),
        trusted_proxies,
        node: node.or_else(from_env).unwrap_or_else(|| "headcount".to_owned()),
        shutdown_grace_ms,
        shutdown_delay_ms,
        limits,
    }
}

/// `[server.limits]`: each protects the proxy from one way of making it grow or wait.
fn limits(server: &mut Table<'_>) -> ServerLimits {
    let mut limits = server.table("limits");
    let read = ServerLimits {
        connections_max: to_usize(limits.count("connections", 10_000, 1..=1_000_000)),
        connections_per_address_max: to_usize(limits.count(
            "connections_per_address",
            256,
            1..=1_000_000,
        )),
        head_bytes_max: to_usize(limits.size("head", 64 * KIB, 8 * KIB..=MIB)),
        headers_max: to_usize(limits.count("headers", 100, 10..=1_000)),
        target_bytes_max: to_usize(limits.size("target", 16 * KIB, HEAD)),
        cookie_bytes_max: to_usize(limits.size("cookie_bytes", 16 * KIB, HEAD)),
        cookies_max: to_usize(limits.count("cookies", 100, 10..=1_000)),
        login_body_bytes_max: to_usize(limits.size("login_body", 64 * KIB, KIB..=16 * MIB)),
        body_bytes_max: limits.size_or_none("body", &(1..=1 << 50)),
        unsent_bytes: small(limits.size("unsent", 128 * KIB, 16 * KIB..=16 * MIB)),
        first_byte_timeout_ms: limits.duration("first_byte_timeout", 10 * SECOND, PATIENCE),
        tls_handshake_timeout_ms: limits.duration("tls_handshake_timeout", 10 * SECOND, PATIENCE),
        head_timeout_ms: limits.duration("head_timeout", 15 * SECOND, PATIENCE),
        keep_alive_timeout_ms: limits.duration("keep_alive_timeout", 60 * SECOND, PATIENCE),
        body_idle_timeout_ms: limits.duration("body_idle_timeout", 30 * SECOND, PATIENCE),
        write_stall_timeout_ms: limits.duration("write_stall_timeout", 30 * SECOND, PATIENCE),
        request_timeout_ms: limits.timeout("request_timeout", 100..=DAY).and_then(|at| at.value),
        http2: http2_limits(&mut limits),
    };
    limits.finish();
    read
}

/// The keys of `[server.limits]` that begin with `http2_`.
fn http2_limits(limits: &mut Table<'_>) -> Http2Limits {
    Http2Limits {
        streams_max: small(limits.count("http2_streams", 100, 1..=10_000)),
        streams_per_address_max: to_usize(limits.count(
            "http2_streams_per_address",
            512,
            1..=1_000_000,
        )),
        pending_resets_max: to_usize(limits.count("http2_pending_resets", 20, 1..=10_000)),
        control_frames_max: small(limits.count("http2_control_frames", 100, 10..=1_000_000)),
        window_bytes: small(limits.size("http2_window", 128 * KIB, 16 * KIB..=16 * MIB)),
        send_buffer_bytes: to_usize(limits.size(
            "http2_send_buffer",
            64 * KIB,
            16 * KIB..=16 * MIB,
        )),
        ping_interval_ms: limits.duration("http2_ping_interval", 20 * SECOND, PATIENCE),
        ping_timeout_ms: limits.duration("http2_ping_timeout", 20 * SECOND, PATIENCE),
    }
}

/// Every range that is read as such fits.
fn small(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// Addresses and unix sockets to listen on.
fn listen_addresses(server: &mut Table<'_>, context: &Context<'_>) -> Vec<At<ListenAddress>> {
    let allowed = "an IP address and a port, like \"127.0.0.1:8080\" or \"[::1]:8080\", or a \
                   socket, like \"unix:/run/headcount.sock\", its path of at most 107 bytes";
    addresses(server, "listen", "127.0.0.1:8080", allowed, |value| {
        match value.strip_prefix("unix:") {
            Some(path) => socket_path(context, path).map(ListenAddress::Unix),
            None => value.parse().ok().map(ListenAddress::Tcp),
        }
    })
}

/// The path of a unix socket, if a socket can have it.
pub(super) fn socket_path(context: &Context<'_>, path: &str) -> Option<PathBuf> {
    // What `sockaddr_un` has room for, with a NUL behind it.
    const LENGTH_MAX: usize = 107;
    let whole = context.folder.join(path);
    (!path.is_empty() && whole.as_os_str().len() <= LENGTH_MAX).then_some(whole)
}

/// One or several addresses, as `read` understands them.
pub(super) fn addresses<T: PartialEq + MayBeAnyPort>(
    table: &mut Table<'_>,
    key: &'static str,
    default: &str,
    allowed: &str,
    read: impl Fn(&str) -> Option<T>,
) -> Vec<At<T>> {
    let place = table.at.clone();
    let stated = table.has(key);
    let written = table.texts(key);
    if written.is_empty() {
        if stated && table.problems.is_empty() {
            table.missing(key, "is an empty list: nobody could connect", allowed);
        }
        return read(default).map(|value| At { value, at: place }).into_iter().collect();
    }
    let mut addresses: Vec<At<T>> = Vec::new();
    for At { value, at } in written {
        match read(&value) {
            Some(address)
                if !address.is_any_port() && addresses.iter().any(|a| a.value == address) =>
            {
                table.wrong(key, &at, "is given twice", "each address once");
            }
            Some(value) => addresses.push(At { value, at }),
            None => table.wrong(key, &at, "is not an address to listen on", allowed),
        }
    }
    addresses
}

/// Port 0 is another port each time.
pub(super) trait MayBeAnyPort {
    fn is_any_port(&self) -> bool;
}

impl MayBeAnyPort for SocketAddr {
    fn is_any_port(&self) -> bool {
        self.port() == 0
    }
}

impl MayBeAnyPort for ListenAddress {
    fn is_any_port(&self) -> bool {
        self.tcp().is_some_and(|address| address.port() == 0)
    }
}

/// As `chmod` takes it.
fn unix_mode(server: &mut Table<'_>) -> u32 {
    let Some(At { value, at }) = server.text("unix_mode") else {
        return 0o660;
    };
    let mode = u32::from_str_radix(&value, 8).ok();
    mode.filter(|mode| (3..=4).contains(&value.len()) && *mode <= 0o777).unwrap_or_else(|| {
        let allowed = "permissions as `chmod` takes them, like \"0660\"";
        server.wrong("unix_mode", &at, "is not a file mode", allowed);
        0o660
    })
}

fn trusted_proxies(server: &mut Table<'_>) -> TrustedProxies {
    let allowed = "addresses or networks of your proxies, like \"10.0.0.5\" or \"10.0.0.0/24\"; \
                   \"unix\" for who comes over a unix socket";
    let mut proxies = TrustedProxies::default();
    for At { value, at } in server.texts("trusted_proxies") {
        if value == "unix" {
            proxies.unix = true;
            continue;
        }
        let network = value.parse::<IpNet>().or_else(|_| value.parse::<IpAddr>().map(IpNet::from));
        match network {
            Ok(network) if network.prefix_len() == 0 => {
                let what = "would trust everyone: any client could claim any address";
                server.wrong("trusted_proxies", &at, what, allowed);
            }
            Ok(network) => proxies.networks.push(network.trunc()),
            Err(_) => {
                server.wrong("trusted_proxies", &at, "is not an address or network", allowed);
            }
        }
    }
    proxies
}

/// Every count here is far below what a `usize` holds.
pub(super) fn to_usize(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}
