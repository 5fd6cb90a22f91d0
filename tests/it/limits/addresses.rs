//! No client address may have all connections; who speaks for many clients is not one client.

use super::*;
use crate::support::legacy::{LegacyApp, Reply};

fn app() -> LegacyApp {
    LegacyApp::start(|_| Reply::page("200 OK", &[], "hello"))
}

const PER_ADDRESS: &str = "server.limits.connections_per_address = 3\n";

#[test]
fn one_address_cannot_take_all_connections() {
    let app = app();
    let proxy = Proxy::start(app.address, None, &configured(PER_ADDRESS));
    let mut open: Vec<_> = (0..3).map(|_| connect_from(client(0), proxy.address)).collect();
    for stream in &mut open {
        assert!(ask(stream, GET).contains("200 OK"));
    }
    let page = ask(&mut connect_from(client(0), proxy.address), GET);
    assert!(page.starts_with("HTTP/1.1 429 ") && page.contains("retry-after: 1\r\n"), "{page}");
    assert_eq!(refused(&proxy, "too_many_connections"), 1);
    assert!(ask(&mut connect_from(client(1), proxy.address), GET).contains("200 OK"));
    // A place that was left is free again.
    drop(open.pop());
    eventually("the place is free", || {
        ask(&mut connect_from(client(0), proxy.address), GET).contains("200 OK").then_some(())
    });
    drop(open);
    all_released(&proxy);
}

#[test]
fn a_tunnel_counts_as_long_as_it_is_open() {
    let app = LegacyApp::start(|_| {
        Reply::Stream(Box::new(|stream| {
            let _ = stream.write_all(
                b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
                Upgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
            );
            let _ = stream.read(&mut [0; 1]);
        }))
    });
    let keys = "server.limits.connections_per_address = 1\n";
    let proxy = Proxy::start(app.address, None, &configured(keys));
    let mut tunnel = connect_from(client(0), proxy.address);
    tunnel
        .write_all(
            b"GET / HTTP/1.1\r\nHost: shop.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
            Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        )
        .unwrap();
    let mut head = [0; 12];
    tunnel.read_exact(&mut head).unwrap();
    assert_eq!(&head, b"HTTP/1.1 101");
    assert!(ask(&mut connect_from(client(0), proxy.address), GET).contains("429"));
    assert_eq!(count(&proxy, "headcount_upstream_requests"), 1);
    drop(tunnel);
    all_released(&proxy);
}

#[test]
fn a_trusted_proxy_is_not_one_client() {
    let app = app();
    let keys = format!("server.trusted_proxies = [\"{}\"]\n{PER_ADDRESS}", client(0));
    let proxy = Proxy::start(app.address, None, &configured(&keys));
    let mut open: Vec<_> = (0..12).map(|_| connect_from(client(0), proxy.address)).collect();
    for stream in &mut open {
        assert!(ask(stream, GET).contains("200 OK"));
    }
    assert_eq!(refused(&proxy, "too_many_connections"), 0);
}

#[test]
fn behind_a_proxy_header_the_client_it_names_counts() {
    let app = app();
    let keys = format!(
        "server.trusted_proxies = [\"{}\"]\nserver.proxy_protocol = \"required\"\n{PER_ADDRESS}",
        client(0)
    );
    let proxy = Proxy::start(app.address, None, &configured(&keys));
    let open = |source: &str| {
        let family = if source.contains(':') { "TCP6" } else { "TCP4" };
        let to = if source.contains(':') { "2001:db8::1" } else { "192.0.2.1" };
        let mut stream = connect_from(client(0), proxy.address);
        let header = format!("PROXY {family} {source} {to} 4711 443\r\n");
        let answer = ask(&mut stream, &[header.as_bytes(), GET].concat());
        (stream, raw::status(answer.as_bytes()))
    };
    let hold = |source: &str| {
        let (stream, status) = open(source);
        assert_eq!(status, 200, "{source}");
        stream
    };
    let _one = [0; 3].map(|_| hold("198.51.100.7"));
    assert_eq!(open("198.51.100.7").1, 429);
    let _other = hold("198.51.100.8");
    // A client of the new protocol has a whole network of addresses.
    let _six = [1, 2, 3].map(|last| hold(&format!("2001:db8:1:2::{last}")));
    assert_eq!(open("2001:db8:1:2:ffff::4").1, 429);
    let _neighbour = hold("2001:db8:1:3::1");
    assert_eq!(refused(&proxy, "too_many_connections"), 2);
    // What the proxy asks for itself is nobody's.
    let mut own = Vec::new();
    for _ in 0..5 {
        let mut stream = connect_from(client(0), proxy.address);
        assert!(ask(&mut stream, &[b"PROXY UNKNOWN\r\n", GET].concat()).contains("200 OK"));
        own.push(stream);
    }
}
