//! Header work: which requests are refused before anything looks at them, what is taken off and
//! written on the way up, what is taken off on the way down. Pure; cookies are in `cookies.rs`.

pub mod websocket;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Version};

use crate::client::Caller;
use crate::peer::ServerName;
use crate::refusal::Refusal;
use crate::settings::{Accepted, ServerLimits, ServerSettings, host_name};

/// RFC 9110 §7.6.1, and the older ones seen in the wild.
fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
            | "http2-settings"
    )
}

/// What only a proxy may say about the client; removed and rewritten.
const FORWARDING: [&str; 12] = [
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-forwarded-port",
    "x-forwarded-uri",
    "x-forwarded-server",
    "x-forwarded-prefix",
    "x-forwarded-user",
    "x-real-ip",
    "x-client-ip",
    "via",
];

/// Headers by which some frameworks take one method for another.
const METHOD_OVERRIDES: [&str; 3] =
    ["x-http-method-override", "x-http-method", "x-method-override"];

/// End-to-end headers that `Connection` may not name: removing one would change what was judged.
const PROTECTED: [&str; 8] = [
    "host",
    "cookie",
    "authorization",
    "content-length",
    "content-type",
    "content-encoding",
    "set-cookie",
    "expect",
];

/// What the checks found out.
#[derive(Debug, PartialEq, Eq)]
pub struct Checked {
    /// The client wants to switch to WebSocket.
    pub upgrade: bool,
}

/// Refuses what two parsers could read differently, and what this proxy does not do. hyper has
/// already refused malformed heads; this closes what it lets through.
pub fn check<B>(
    request: &Request<B>,
    caller: &Caller,
    settings: &ServerSettings,
) -> Result<Checked, Refusal> {
    let (headers, limits, accepted) = (request.headers(), &settings.limits, &settings.accepted);
    check_method(request.method(), accepted)?;
    check_target(request, settings)?;
    check_host(request, accepted.missing_host)?;
    check_framing(request)?;
    if !is_served(&caller.host, accepted) || !is_of_handshake(request) {
        return Err(Refusal::HostUnknown);
    }
    if headers.contains_key(header::TRAILER) {
        return Err(Refusal::RequestTrailers);
    }
    let mut expectations = headers.get_all(header::EXPECT).iter();
    if expectations.any(|value| !value.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
        return Err(Refusal::ExpectationUnknown);
    }
    let named = |list: &[&str]| is_named(headers, list);
    if headers.contains_key(header::CONNECTION) && (named(&PROTECTED) || named(&FORWARDING)) {
        return Err(Refusal::ConnectionHeader);
    }
    let cookie_bytes: usize = headers.get_all(header::COOKIE).iter().map(HeaderValue::len).sum();
    if cookie_bytes > limits.cookie_bytes_max {
        return Err(Refusal::HeadTooLarge);
    }
    Ok(Checked { upgrade: websocket::is_wanted(request) })
}

/// Gives a request that came over HTTP/2 the form it would have had over HTTP/1.1. What HTTP/2
/// forbids by itself (headers of the connection, lengths that do not fit) never gets here; an upgrade
/// is what `listener/websocket.rs` made of a CONNECT.
pub fn from_http2<B>(request: &mut Request<B>, limits: &ServerLimits) -> Result<(), Refusal> {
    if request.method() == Method::CONNECT {
        return Err(Refusal::MethodRefused);
    }
    if request.headers().len() > limits.headers_max {
        return Err(Refusal::HeadTooLarge);
    }
    // RFC 9113 §8.2.1: the app would read them without.
    let blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    let padded =
        |value: &HeaderValue| blank(value.as_bytes().first()) || blank(value.as_bytes().last());
    if request.headers().values().any(padded) {
        return Err(Refusal::MalformedHead);
    }
    if request.headers().get_all(header::CONTENT_LENGTH).iter().nth(1).is_some() {
        return Err(Refusal::FramingInvalid);
    }
    if request.uri().scheme_str().is_some_and(|scheme| !matches!(scheme, "http" | "https")) {
        return Err(Refusal::TargetInvalid);
    }
    if !request.headers().contains_key(header::HOST)
        && let Some(authority) = request.uri().authority()
    {
        let host = HeaderValue::from_str(authority.as_str()).map_err(|_| Refusal::HostInvalid)?;
        request.headers_mut().insert(header::HOST, host);
    }
    check_host(request, false)?;
    // RFC 9113 §8.2.3: one cookie list, split for the sake of compression.
    let mut crumbs = request.headers().get_all(header::COOKIE).iter();
    if crumbs.nth(1).is_some() {
        let crumbs = request.headers().get_all(header::COOKIE).iter();
        let crumbs: Vec<&[u8]> = crumbs.map(HeaderValue::as_bytes).collect();
        let cookies = HeaderValue::from_bytes(&crumbs.join(&b"; "[..]));
        let cookies = cookies.map_err(|_| Refusal::MalformedHead)?;
        request.headers_mut().insert(header::COOKIE, cookies);
    }
    // The authority is in Host now, and the scheme is known better from the connection.
    let target = request.uri().path_and_query().cloned().ok_or(Refusal::TargetInvalid)?;
    *request.uri_mut() = target.into();
    *request.version_mut() = Version::HTTP_11;
    Ok(())
}

/// `post` is not POST, but some servers make it one behind the back of every rule.
fn check_method(method: &Method, accepted: &Accepted) -> Result<(), Refusal> {
    let never = method == Method::CONNECT || method == Method::TRACE;
    let name = method.as_str();
    let small = name.bytes().any(|byte| byte.is_ascii_lowercase());
    let listed = accepted.methods.is_empty() || accepted.methods.iter().any(|known| known == name);
    if never || small || !listed { Err(Refusal::MethodRefused) } else { Ok(()) }
}

/// `host` is what the client asked for, perhaps by the word of a trusted proxy.
fn is_served(host: &str, accepted: &Accepted) -> bool {
    accepted.hosts.is_empty() || accepted.hosts.matches(&host_name(host))
}

/// Whether Host is the name that the client gave in the handshake, where that is asked for. Addresses
/// are given by nobody (RFC 6066 §3).
fn is_of_handshake<B>(request: &Request<B>) -> bool {
    let Some(ServerName(named)) = request.extensions().get::<ServerName>() else { return true };
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let host = host_name(host.unwrap_or_default());
    let address = host.starts_with('[') || host.parse::<std::net::Ipv4Addr>().is_ok();
    match named {
        Some(named) => host == host_name(named),
        None => address,
    }
}

fn check_target<B>(request: &Request<B>, settings: &ServerSettings) -> Result<(), Refusal> {
    let uri = request.uri();
    let length = uri.path_and_query().map_or(0, |target| target.as_str().len());
    if length > settings.limits.target_bytes_max {
        return Err(Refusal::TargetTooLong);
    }
    let asterisk = uri.path() == "*";
    let shape = match uri.scheme_str() {
        None if asterisk => uri.authority().is_none() && request.method() == Method::OPTIONS,
        None => uri.authority().is_none() && uri.path().starts_with('/'),
        Some(scheme) => matches!(scheme, "http" | "https") && uri.authority().is_some(),
    };
    // RFC 9112 §3.2: raw UTF-8 and control characters are no target; servers decode them apart.
    let plain = uri.path().bytes().chain(uri.query().unwrap_or_default().bytes());
    let odd = settings.accepted.non_ascii_targets;
    let fine = |byte: u8| (0x21..0x7f).contains(&byte) || (odd && byte >= 0x80);
    if !shape || !plain.into_iter().all(fine) {
        return Err(Refusal::TargetInvalid);
    }
    Ok(())
}

fn check_host<B>(request: &Request<B>, may_be_missing: bool) -> Result<(), Refusal> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(Refusal::HostDuplicate);
    }
    let Some(host) = host else {
        let old = request.version() == Version::HTTP_10 || may_be_missing;
        return if old && request.uri().authority().is_none() {
            Ok(())
        } else {
            Err(Refusal::HostMissing)
        };
    };
    if host.is_empty() {
        return Err(Refusal::HostMissing);
    }
    if !is_host(host.as_bytes()) {
        return Err(Refusal::HostInvalid);
    }
    match request.uri().authority() {
        Some(authority) if authority.as_str().contains('@') => Err(Refusal::TargetInvalid),
        Some(authority) if !authority.as_str().as_bytes().eq_ignore_ascii_case(host.as_bytes()) => {
            Err(Refusal::AuthorityMismatch)
        }
        _ => Ok(()),
    }
}

/// `name`, `a.b.c.d` or `[v6]`, with or without a port from 1 to 65535 (RFC 9110 §7.2).
fn is_host(host: &[u8]) -> bool {
    let Ok(host) = std::str::from_utf8(host) else {
        return false;
    };
    let (name, port) = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((inner, rest)) => {
            if inner.parse::<std::net::Ipv6Addr>().is_err() {
                return false;
            }
            ("v6", rest.strip_prefix(':').or_else(|| (!rest.is_empty()).then_some("bad")))
        }
        None => match host.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (host, None),
        },
    };
    let digits = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    let port_fits =
        port.is_none_or(|port| digits(port) && port.parse::<u16>().is_ok_and(|port| port > 0));
    !name.is_empty()
        && port_fits
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))
}

fn check_framing<B>(request: &Request<B>) -> Result<(), Refusal> {
    let headers = request.headers();
    for name in headers.keys().filter(|name| name.as_str().contains('_')) {
        let dashed = name.as_str().replace('_', "-");
        if PROTECTED.contains(&&*dashed) || is_hop_by_hop(&dashed) {
            return Err(Refusal::FramingInvalid);
        }
    }
    let mut encodings = headers.get_all(header::TRANSFER_ENCODING).iter();
    if let Some(encoding) = encodings.next() {
        let chunked = encoding.as_bytes().eq_ignore_ascii_case(b"chunked");
        if !chunked || encodings.next().is_some() || request.version() == Version::HTTP_10 {
            return Err(Refusal::FramingInvalid);
        }
        // A Content-Length beside it is gone already, and hyper closes afterwards (RFC 9112 §6.1).
    }
    let plain = |length: &HeaderValue| {
        let digits = length.as_bytes();
        digits.iter().all(u8::is_ascii_digit) && (digits == b"0" || !digits.starts_with(b"0"))
    };
    if !headers.get_all(header::CONTENT_LENGTH).iter().all(plain) {
        return Err(Refusal::FramingInvalid);
    }
    Ok(())
}

/// The options of all Connection headers.
fn connection_options(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|option| !option.is_empty())
}

/// Whether a Connection header names one of `list`.
fn is_named(headers: &HeaderMap, list: &[&str]) -> bool {
    connection_options(headers)
        .any(|option| list.iter().any(|name| name.eq_ignore_ascii_case(option)))
}

/// Removes what concerns one connection only, what Connection names, and what is `unwanted`.
fn remove_hop_by_hop(headers: &mut HeaderMap, unwanted: impl Fn(&str) -> bool) {
    let names_others = connection_options(headers).any(|option| !is_plain_option(option));
    let goes = |name: &str| {
        is_hop_by_hop(name) || unwanted(name) || (names_others && is_named(headers, &[name]))
    };
    let gone: Vec<HeaderName> =
        headers.keys().filter(|name| goes(name.as_str())).cloned().collect();
    for name in gone {
        headers.remove(name);
    }
}

/// The options that nearly every message has; no header is called so that would not go anyway.
fn is_plain_option(option: &str) -> bool {
    option.eq_ignore_ascii_case("keep-alive") || option.eq_ignore_ascii_case("upgrade")
}

/// Whether a header is what some apps read as `known`: WSGI and CGI turn `_` into `-`.
fn reads_as(name: &str, known: &str) -> bool {
    let dashed = |byte: u8| if byte == b'_' { b'-' } else { byte };
    name.len() == known.len() && name.bytes().map(dashed).eq(known.bytes())
}

/// Turns the client's headers into those for the app: framing is left to hyper, the Cookie line is
/// `cookie`, and what is said about the client is what we know.
pub fn to_upstream(
    headers: &mut HeaderMap,
    caller: &Caller,
    cookie: Option<&[u8]>,
    upgrade: bool,
) -> Result<(), Refusal> {
    let forwarded = caller.forwarded(headers);
    remove_hop_by_hop(headers, |name| {
        matches!(name, "content-length" | "expect" | "cookie")
            || FORWARDING.iter().any(|known| reads_as(name, known))
    });
    let malformed = |_| Refusal::MalformedHead;
    if let Some(cookie) = cookie {
        headers.insert(header::COOKIE, HeaderValue::from_bytes(cookie).map_err(malformed)?);
    }
    for (name, text) in forwarded {
        headers.insert(name, HeaderValue::from_str(&text).map_err(malformed)?);
    }
    if upgrade {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    }
    Ok(())
}

/// Takes off what would make the app see another method than the one that was judged.
pub fn remove_method_overrides(headers: &mut HeaderMap) {
    let overrides =
        |name: &&HeaderName| METHOD_OVERRIDES.iter().any(|known| reads_as(name.as_str(), known));
    let overrides: Vec<HeaderName> = headers.keys().filter(overrides).cloned().collect();
    for name in overrides {
        headers.remove(name);
    }
}

/// Takes off the app's answer what concerned only our connection to it.
pub fn to_downstream(headers: &mut HeaderMap) {
    remove_hop_by_hop(headers, |_| false);
}

#[cfg(test)]
mod tests;
