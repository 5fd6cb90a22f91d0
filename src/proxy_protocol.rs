//! The header of the PROXY protocol, versions 1 and 2, read strictly. Pure: who may send one and
//! how long that may take is the business of `listener.rs`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The longest header of version 1, with its line end.
const V1_MAX: usize = 107;
/// The longest header accepted of version 2; the protocol would allow 64 KiB.
const V2_MAX: usize = 4096;
const V2_SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const V2_FIXED: usize = 16;

/// What a header says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// Bytes of it.
    pub(crate) length: usize,
    /// Where the connection comes from; `None`: from the proxy itself, or it cannot tell.
    pub(crate) source: Option<SocketAddr>,
}

/// It is no header of the PROXY protocol.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// Reads the header at the start of `bytes`; `None`: more are needed.
pub(crate) fn parse(bytes: &[u8]) -> Result<Option<Header>, Malformed> {
    let signature = &V2_SIGNATURE[..bytes.len().min(V2_SIGNATURE.len())];
    if bytes.starts_with(signature) {
        return if bytes.len() < V2_FIXED { Ok(None) } else { parse_v2(bytes) };
    }
    parse_v1(bytes)
}

fn parse_v1(bytes: &[u8]) -> Result<Option<Header>, Malformed> {
    let start = b"PROXY ";
    if !bytes.starts_with(&start[..bytes.len().min(start.len())]) {
        return Err(Malformed);
    }
    let line = &bytes[..bytes.len().min(V1_MAX)];
    let Some(end) = line.windows(2).position(|pair| pair == b"\r\n") else {
        return if bytes.len() >= V1_MAX { Err(Malformed) } else { Ok(None) };
    };
    let line = std::str::from_utf8(&line[start.len()..end]).map_err(|_| Malformed)?;
    let length = end + 2;
    if line == "UNKNOWN" || line.starts_with("UNKNOWN ") {
        return Ok(Some(Header { length, source: None }));
    }
    let parts: Vec<&str> = line.split(' ').collect();
    let &[family, source, destination, from, to] = parts.as_slice() else {
        return Err(Malformed);
    };
    let address = |text: &str| match family {
        "TCP4" => text.parse::<Ipv4Addr>().map(IpAddr::from).map_err(|_| Malformed),
        "TCP6" => text.parse::<Ipv6Addr>().map(IpAddr::from).map_err(|_| Malformed),
        _ => Err(Malformed),
    };
    let port = |text: &str| {
        let plain = text.bytes().all(|byte| byte.is_ascii_digit());
        let plain = plain && (text == "0" || !text.starts_with('0'));
        text.parse::<u16>().ok().filter(|_| plain).ok_or(Malformed)
    };
    let (source, from) = (address(source)?, port(from)?);
    address(destination)?;
    port(to)?;
    Ok(Some(Header { length, source: Some(SocketAddr::new(source, from)) }))
}

fn parse_v2(bytes: &[u8]) -> Result<Option<Header>, Malformed> {
    let (version_command, family) = (bytes[12], bytes[13]);
    let length = V2_FIXED + usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
    let local = match version_command {
        0x20 => true,
        0x21 => false,
        _ => return Err(Malformed),
    };
    if length > V2_MAX {
        return Err(Malformed);
    }
    // How many bytes of addresses; what is connected here is a stream.
    let addresses = match family {
        0x00 => 0,
        0x11 => 12,
        0x21 => 36,
        0x31 => 216,
        // Of a LOCAL command nothing is used.
        _ if local => 0,
        _ => return Err(Malformed),
    };
    let Some(rest) = bytes.get(V2_FIXED..length) else {
        return Ok(None);
    };
    if local || family == 0x00 {
        // "The receiver must ignore" the rest.
        return Ok(Some(Header { length, source: None }));
    }
    let (block, fields) = rest.split_at_checked(addresses).ok_or(Malformed)?;
    check_fields(fields)?;
    let port = |at: usize| u16::from_be_bytes([block[at], block[at + 1]]);
    let source = match family {
        0x11 => {
            let mut octets = [0; 4];
            octets.copy_from_slice(&block[..4]);
            Some(SocketAddr::from((octets, port(8))))
        }
        0x21 => {
            let mut octets = [0; 16];
            octets.copy_from_slice(&block[..16]);
            Some(SocketAddr::from((octets, port(32))))
        }
        _ => None,
    };
    Ok(Some(Header { length, source }))
}

/// Type, length, value; nothing of them is used, but they must end where the header does.
fn check_fields(mut fields: &[u8]) -> Result<(), Malformed> {
    while let Some((head, rest)) = fields.split_at_checked(3) {
        let length = usize::from(u16::from_be_bytes([head[1], head[2]]));
        fields = rest.get(length..).ok_or(Malformed)?;
    }
    if fields.is_empty() { Ok(()) } else { Err(Malformed) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v2(version_command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [V2_SIGNATURE, &[version_command, family][..], &length, rest].concat()
    }

    fn v4(fields: &[u8]) -> Vec<u8> {
        [&[192, 0, 2, 7, 10, 0, 0, 1, 0xdc, 4, 1, 187][..], fields].concat()
    }

    /// Read whole, byte by byte, and with a request behind it.
    #[track_caller]
    fn reads(header: &[u8], source: Option<&str>) {
        let source = source.map(|source| source.parse().unwrap());
        for length in 0..header.len() {
            assert_eq!(parse(&header[..length]), Ok(None), "{length} bytes");
        }
        let expected = Ok(Some(Header { length: header.len(), source }));
        assert_eq!(parse(header), expected);
        assert_eq!(parse(&[header, b"GET / HTTP/1.1\r\n\r\n"].concat()), expected);
    }

    #[test]
    fn good_headers_are_read() {
        reads(b"PROXY TCP4 192.0.2.7 10.0.0.1 56324 443\r\n", Some("192.0.2.7:56324"));
        reads(b"PROXY TCP6 2001:db8::7 ::1 1 65535\r\n", Some("[2001:db8::7]:1"));
        reads(b"PROXY UNKNOWN\r\n", None);
        reads(b"PROXY UNKNOWN ffff::1 whatever 1 2\r\n", None);
        reads(&v2(0x21, 0x11, &v4(b"")), Some("192.0.2.7:56324"));
        reads(&v2(0x21, 0x11, &v4(b"\x04\0\x01x\x20\0\0")), Some("192.0.2.7:56324"));
        let mut v6 = vec![0; 36];
        (v6[0], v6[1], v6[15], v6[33]) = (0x20, 0x01, 9, 80);
        reads(&v2(0x21, 0x21, &v6), Some("[2001::9]:80"));
        reads(&v2(0x21, 0x31, &[0; 216]), None);
        reads(&v2(0x20, 0x00, b""), None);
        reads(&v2(0x20, 0x11, b"ignored"), None);
        reads(&v2(0x21, 0x00, &[7; 4080]), None);
    }

    #[test]
    fn bad_headers_are_refused() {
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(92));
        let v1: &[&str] = &[
            "GET / HTTP/1.1\r\n",
            "proxy TCP4 192.0.2.7 10.0.0.1 1 2\r\n",
            " PROXY TCP4 192.0.2.7 10.0.0.1 1 2\r\n",
            "PROXY\r\n",
            "PROXY UNKNOWNX\r\n",
            "PROXY UDP4 192.0.2.7 10.0.0.1 1 2\r\n",
            "PROXY TCP4 192.0.2.7 10.0.0.1 1\r\n",
            "PROXY TCP4 192.0.2.7 10.0.0.1 1 2 3\r\n",
            "PROXY TCP4  192.0.2.7 10.0.0.1 1 2\r\n",
            "PROXY TCP4 192.0.2.7 10.0.0.1 1 2 \r\n",
            "PROXY TCP4 192.0.2.07 10.0.0.1 1 2\r\n",
            "PROXY TCP4 192.0.2.7.1 10.0.0.1 1 2\r\n",
            "PROXY TCP4 ::1 10.0.0.1 1 2\r\n",
            "PROXY TCP6 192.0.2.7 ::1 1 2\r\n",
            "PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
            "PROXY TCP4 192.0.2.7 nowhere 1 2\r\n",
            "PROXY TCP4 192.0.2.7 10.0.0.1 01 2\r\n",
            "PROXY TCP4 192.0.2.7 10.0.0.1 +1 2\r\n",
            "PROXY TCP4 192.0.2.7 10.0.0.1 1 65536\r\n",
            "PROXY TCP4 192.0.2.7 10.0.0.1 1 -2\r\n",
            "PROXY TCP4 192.0.2.7 10.0.0.1 1 2\n\r\n",
            "PROXY TCP4 192.0.2.7\t10.0.0.1 1 2\r\n",
            &long,
        ];
        for header in v1 {
            assert_eq!(parse(header.as_bytes()), Err(Malformed), "{header}");
        }
        assert_eq!(parse(b"PROXY TCP4 \xff 10.0.0.1 1 2\r\n"), Err(Malformed));
        let v2s = [
            ("version 1", v2(0x11, 0x11, &v4(b""))),
            ("another command", v2(0x22, 0x11, &v4(b""))),
            ("datagrams", v2(0x21, 0x12, &v4(b""))),
            ("no such family", v2(0x21, 0x41, &v4(b""))),
            ("too short for IPv4", v2(0x21, 0x11, &v4(b"")[..11])),
            ("too short for IPv6", v2(0x21, 0x21, &v4(b""))),
            ("a field without its length", v2(0x21, 0x11, &v4(b"\x04\0"))),
            ("a field that ends behind the header", v2(0x21, 0x11, &v4(b"\x04\0\x05x"))),
            ("over 4 KiB", v2(0x21, 0x00, &[0; 4081])),
        ];
        for (what, header) in v2s {
            assert_eq!(parse(&header), Err(Malformed), "{what}");
        }
        let mut other = v2(0x21, 0x11, &v4(b""));
        other[11] = 0;
        assert_eq!(parse(&other), Err(Malformed), "another signature");
    }
}
