//! Cookies on the way up: every Cookie line split once, each pair told apart as a credential, as
//! something an app might read as one, or as none of our business. Pure.

use std::borrow::Cow;
use std::cell::LazyCell;

use crate::rules::RuleSet;
use crate::rules::matcher::Glob;

/// What the Cookie lines of one request hold.
#[derive(Debug, Default)]
pub struct Scan<'h> {
    /// Pairs that are no credential in any reading, verbatim and in order.
    pub others: Vec<&'h [u8]>,
    /// Pairs whose name is exactly a credential's.
    pub candidates: Vec<Candidate<'h>>,
    /// Pairs dropped because some app would read a credential in them.
    pub look_alikes: usize,
    /// Pairs seen.
    pub pairs: usize,
}

/// A cookie whose name is exactly a credential's, or a token under its role's name; the value is not
/// yet judged.
#[derive(Debug)]
pub struct Candidate<'h> {
    pub name: &'h str,
    pub value: &'h [u8],
}

/// Splits the Cookie lines. Lines are merged in order; pairs are separated by `;` alone.
pub fn scan<'h>(lines: impl Iterator<Item = &'h [u8]>, rules: &RuleSet) -> Scan<'h> {
    let mut scan = Scan::default();
    let forgiving = LazyCell::new(|| forgiving(rules));
    for pair in lines.flat_map(|line| line.split(|byte| *byte == b';')) {
        let pair = trim(pair);
        if pair.is_empty() {
            continue;
        }
        scan.pairs += 1;
        if let Some(candidate) = exact(pair, rules) {
            scan.candidates.push(candidate);
        } else if may_hold_credential(pair, &forgiving) {
            scan.look_alikes += 1;
        } else {
            scan.others.push(pair);
        }
    }
    scan
}

fn exact<'h>(pair: &'h [u8], rules: &RuleSet) -> Option<Candidate<'h>> {
    let at = pair.iter().position(|byte| *byte == b'=')?;
    let name = std::str::from_utf8(&pair[..at]).ok()?;
    let token = !name.is_empty() && name.bytes().all(is_token);
    (token && rules.credential(name).is_some()).then(|| Candidate { name, value: &pair[at + 1..] })
}

/// The value of the first cookie whose name matches, in the plain reading; for rules that look into
/// other cookies.
pub fn value_in(line: &[u8], name: &Glob) -> Option<String> {
    line.split(|byte| *byte == b';').find_map(|pair| {
        let (found, value) = std::str::from_utf8(trim(pair)).ok()?.split_once('=')?;
        name.matches(found).then(|| value.to_owned())
    })
}

/// RFC 9110 §5.6.2 `tchar`.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Whether any reading, also by parsers that split at commas or ignore odd bytes around names,
/// finds a credential in this pair.
fn may_hold_credential(pair: &[u8], forgiving: &[Glob]) -> bool {
    if is_plain(pair) {
        // All readings find one name.
        let name = pair.split(|byte| *byte == b'=').next().unwrap_or_default();
        return looks_like(name, forgiving);
    }
    let pieces = pair.split(|byte| matches!(byte, b',' | b'"' | b'\r' | b'\n' | 0));
    pieces.into_iter().any(|piece| {
        let name = match piece.iter().position(|byte| *byte != b'=') {
            Some(start) => piece[start..].split(|byte| *byte == b'=').next().unwrap_or_default(),
            None => return false,
        };
        !name.is_empty() && looks_like(name, forgiving)
    }) || words_before_equals(pair).any(|name| looks_like(name, forgiving))
}

/// `name=value` with nothing that anybody could split it at or take for a blank.
fn is_plain(pair: &[u8]) -> bool {
    let plain = |byte: &u8| (0x21..0x7f).contains(byte) && !matches!(byte, b',' | b'"');
    pair.iter().all(plain)
        && !pair.starts_with(b"=")
        && pair.iter().filter(|byte| **byte == b'=').count() == 1
}

/// The names of all credentials, folded like the names they are compared with.
fn forgiving(rules: &RuleSet) -> Vec<Glob> {
    let names = rules.credentials.iter().flat_map(|credential| &credential.cookies);
    names.map(|name| name.folded(&|text| fold(text.as_bytes()))).collect()
}

/// Python's parser ends a cookie at blanks too: `a=1 sid=T` holds `sid`. Every word that an equals
/// sign follows, perhaps after blanks or bytes that some language takes for such.
fn words_before_equals(pair: &[u8]) -> impl Iterator<Item = &[u8]> {
    let parts = |byte: &u8| *byte <= b' ' || *byte >= 0x7f || matches!(byte, b',' | b'"');
    pair.iter().enumerate().filter(|(_, byte)| **byte == b'=').map(move |(at, _)| {
        let end = pair[..at].iter().rposition(|byte| !parts(byte)).map_or(0, |last| last + 1);
        let start = pair[..end].iter().rposition(parts).map_or(0, |before| before + 1);
        // A word with an equals sign in it was seen at that sign.
        let word = &pair[start..end];
        if word.contains(&b'=') { &word[..0] } else { word }
    })
}

/// Whether every parser takes all of the value, and nothing else, for the value: no blanks, quotes
/// or escapes at which one of them stops or goes on to another cookie. Values that nobody issued
/// through us have to be so; a comma alone stays, as PHP uses it in ids.
pub fn reads_alike(value: &[u8]) -> bool {
    let plain = |byte: &u8| (0x21..0x7f).contains(byte) && *byte != b'"';
    let inner = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
    // A control ends the value for those that keep it as a C string, a comma for very old ones; what
    // a backslash escapes, encoded or not, hangs on the parser and on when it cuts blanks.
    let mut decoded = value.to_vec();
    for _ in 0..DECODED_TIMES {
        decoded = percent_encoding::percent_decode(&decoded).collect();
        if decoded.iter().any(|byte| *byte < b' ' || *byte == b'\\') {
            return false;
        }
    }
    let mut later = value.split(|byte| *byte == b',').skip(1);
    inner.unwrap_or(value).iter().all(plain) && !later.any(|piece| piece.contains(&b'='))
}

fn looks_like(name: &[u8], forgiving: &[Glob]) -> bool {
    let folded = fold(name);
    // PHP reads `name[x]` as an array called `name`.
    let base = name.split(|byte| *byte == b'[').next().filter(|base| base.len() < name.len());
    let base = base.map(fold);
    forgiving.iter().any(|pattern| {
        pattern.matches(&folded) || base.as_ref().is_some_and(|base| pattern.matches(base))
    })
}

/// A name as the most forgiving parser reads it: percent-decoded, lower case, without prefix and
/// without anything but letters, digits and `_`-like characters at its ends; `.`, space, `[` and
/// `+` inside are `_` (PHP).
pub fn fold(name: &[u8]) -> String {
    let decoded: Cow<'_, [u8]> = percent_encoding::percent_decode(name).into();
    let visible: Vec<u8> =
        decoded.iter().copied().filter(|byte| (0x20..0x7f).contains(byte)).collect();
    let core = visible.trim_ascii();
    let core = core.strip_prefix(b"$").unwrap_or(core);
    let mut folded: String = core
        .iter()
        .map(|byte| match byte {
            b'.' | b' ' | b'[' | b'+' => '_',
            byte => char::from(byte.to_ascii_lowercase()),
        })
        .collect();
    for prefix in ["__host-", "__secure-"] {
        if let Some(rest) = folded.strip_prefix(prefix) {
            folded = rest.to_owned();
        }
    }
    folded
}

/// How often values are decoded: no app does it more than twice.
const DECODED_TIMES: usize = 4;

/// One spelling for all spellings of a value: unescaped, of base64 the digits that mean something,
/// lower case. Only ever hashed and compared, never forwarded.
pub fn canonical_value(value: &[u8]) -> Vec<u8> {
    let unescaped = unescaped(value);
    let mut canonical = whole_bits(&unescaped).unwrap_or(unescaped);
    canonical.make_ascii_lowercase();
    canonical
}

/// The value unquoted, octal and percent escapes decoded until nothing changes, outer blanks cut.
pub fn unescaped(value: &[u8]) -> Vec<u8> {
    let mut current = value.to_vec();
    for _ in 0..DECODED_TIMES {
        let next = decode_once(&current);
        if next == current {
            break;
        }
        current = next;
    }
    current
}

/// The last digit of a part in base64 can hold bits that mean nothing, and padding may be missing:
/// a signed token (RFC 7515) has several spellings that decode to the same bytes.
fn whole_bits(value: &[u8]) -> Option<Vec<u8>> {
    use base64::Engine as _;
    use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, URL_SAFE_NO_PAD};
    const LENIENT: GeneralPurpose = GeneralPurpose::new(
        &base64::alphabet::URL_SAFE,
        GeneralPurposeConfig::new()
            .with_decode_allow_trailing_bits(true)
            .with_decode_padding_mode(base64::engine::DecodePaddingMode::Indifferent),
    );
    if value.iter().filter(|byte| **byte == b'.').count() < 2 {
        return None;
    }
    let parts = value.split(|byte| *byte == b'.').map(|part| {
        let standard = part.iter().map(|byte| match byte {
            b'+' | b' ' => b'-',
            b'/' => b'_',
            byte => *byte,
        });
        let bytes = LENIENT.decode(standard.collect::<Vec<_>>()).ok()?;
        Some(URL_SAFE_NO_PAD.encode(bytes))
    });
    let parts: Option<Vec<String>> = parts.collect();
    Some(parts?.join(".").into_bytes())
}

fn decode_once(value: &[u8]) -> Vec<u8> {
    let trimmed = trim_odd(value);
    let plus =
        trimmed.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect::<Vec<_>>();
    let percent: Cow<'_, [u8]> = percent_encoding::percent_decode(&plus).into();
    let mut out = Vec::with_capacity(percent.len());
    let mut rest = &percent[..];
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        match (first, tail) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) => {
                out.push((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'));
                rest = after;
            }
            (b'\\', [escaped, after @ ..]) => {
                out.push(*escaped);
                rest = after;
            }
            (byte, _) => out.push(*byte),
        }
    }
    trim_odd(&out).to_vec()
}

/// Cuts blanks, quotes, commas, controls and non-ASCII bytes off both ends.
fn trim_odd(value: &[u8]) -> &[u8] {
    let odd = |byte: &u8| *byte <= b' ' || *byte >= 0x7f || matches!(byte, b'"' | b',' | b'\'');
    let start = value.iter().position(|byte| !odd(byte)).unwrap_or(value.len());
    let end = value.iter().rposition(|byte| !odd(byte)).map_or(start, |at| at + 1);
    &value[start..end]
}

fn trim(bytes: &[u8]) -> &[u8] {
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = bytes.iter().position(|byte| !blank(byte)).unwrap_or(bytes.len());
    let end = bytes.iter().rposition(|byte| !blank(byte)).map_or(start, |at| at + 1);
    &bytes[start..end]
}

/// One Cookie line: the credentials first, so that an open quote in another pair cannot hide them.
/// `None` when there is nothing to send.
pub fn join<'a>(
    credentials: impl Iterator<Item = (&'a str, &'a [u8])>,
    others: &[&[u8]],
) -> Option<Vec<u8>> {
    let mut line = Vec::with_capacity(256);
    let separate = |line: &mut Vec<u8>| {
        if !line.is_empty() {
            line.extend_from_slice(b"; ");
        }
    };
    for (name, value) in credentials {
        separate(&mut line);
        line.extend_from_slice(name.as_bytes());
        line.push(b'=');
        line.extend_from_slice(value);
    }
    for other in others {
        separate(&mut line);
        line.extend_from_slice(other);
    }
    (!line.is_empty()).then_some(line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::{Credential, Role};

    fn rules(names: &[&str]) -> RuleSet {
        let cookies = names.iter().map(|name| Glob::name(name)).collect();
        RuleSet {
            credentials: vec![Credential {
                cookies,
                role: Role::Session,
                tokens: vec![],
                key: vec![],
            }],
            ..RuleSet::default()
        }
    }

    fn scanned(line: &[u8], names: &[&str]) -> (Vec<Vec<u8>>, Vec<Vec<u8>>, usize) {
        let rules = rules(names);
        let scan = scan(std::iter::once(line), &rules);
        (
            scan.candidates.iter().map(|candidate| candidate.value.to_vec()).collect(),
            scan.others.iter().map(|other| other.to_vec()).collect(),
            scan.look_alikes,
        )
    }

    #[test]
    fn ordinary_cookies_pass_verbatim_and_in_order() {
        let (values, others, odd) = scanned(b"a=1; sid=T;b=\"x, y\" ; c", &["sid"]);
        assert_eq!(values, [b"T"]);
        assert_eq!(others, [&b"a=1"[..], b"b=\"x, y\"", b"c"]);
        assert_eq!(odd, 0);
    }

    #[test]
    fn whatever_some_app_reads_as_the_credential_is_dropped() {
        let spellings: &[&[u8]] = &[
            b"sid =T",
            b"SID=T",
            b"a=1, sid=T",
            b"\xa0sid=T",
            b"\x0bsid=T",
            b"\xe2\x80\x80sid=T",
            b"x=\"a, sid=T",
            b"sid[0]=T",
            b"s%69d=T",
            b"$sid=T",
            b"=sid=T",
            b"__Host-sid=T",
            b"\x85sid\x0c=T",
            b"x=\"sid=T\"",
            b"a=1 sid=T",
            b"a=1\tsid = T",
            b"a=1\xa0sid=T",
        ];
        for spelling in spellings {
            let (values, others, odd) = scanned(spelling, &["sid"]);
            assert!(
                values.is_empty() && others.is_empty() && odd == 1,
                "{:?}",
                String::from_utf8_lossy(spelling)
            );
        }
        for spelling in [&b"my.sess=T"[..], b"my sess=T", b"my[sess=T", b"my+sess=T"] {
            let (values, others, odd) = scanned(spelling, &["my_sess"]);
            assert!(values.is_empty() && others.is_empty() && odd == 1);
        }
    }

    #[test]
    fn a_quoted_sandwich_yields_the_plain_reading() {
        let (values, others, _) = scanned(b"$Version=1; x=\"; sid=T; y=\"", &["sid"]);
        assert_eq!(values, [b"T"]);
        assert_eq!(others, [&b"$Version=1"[..], b"x=\"", b"y=\""]);
    }

    #[test]
    fn nothing_without_a_name_is_a_token() {
        for pair in [&b"sid"[..], b"=", b"==", b"="] {
            assert!(scanned(pair, &["sid"]).0.is_empty());
        }
        assert_eq!(scanned(b"sid==T", &["sid"]).0, [b"=T"]);
    }

    #[test]
    fn spellings_of_one_value_share_a_canonical_form() {
        let plain = canonical_value(b"aB1-x_z");
        for spelling in [
            &b"\"aB1-x_z\""[..],
            b" aB1-x_z",
            b"%61B1-x_z",
            b"\"\\141B1-x_z\"",
            b"AB1-X_Z",
            b"%2561B1-x_z",
            b"aB1-x_z,",
            b"\\aB1-x_z",
        ] {
            assert_eq!(canonical_value(spelling), plain, "{:?}", String::from_utf8_lossy(spelling));
        }
        assert_ne!(canonical_value(b"aB1-x_y"), plain);
        let token = canonical_value(b"eyJhIjoxfQ.eyJiIjoyfQ.c2lnbg");
        for spelling in [&b"eyJhIjoxfQ.eyJiIjoyfQ.c2lnbh"[..], b"eyJhIjoxfQ==.eyJiIjoyfR.c2lnbg=="]
        {
            assert_eq!(canonical_value(spelling), token);
        }
        assert_ne!(canonical_value(b"eyJhIjoxfQ.eyJiIjozfQ.c2lnbg"), token);
    }

    #[test]
    fn a_word_that_no_equals_sign_follows_is_no_name() {
        for line in [&b"note=the sid is new"[..], b"note=my sid"] {
            assert_eq!(scanned(line, &["sid"]), (vec![], vec![line.to_vec()], 0));
        }
    }

    #[test]
    fn a_value_at_which_some_parser_stops_is_told() {
        for plain in [&b"abc"[..], b"\"abc\"", b"a,b-c", b"s%3Aabc.d%2Bf%3D", b"eyJ.a_b~!{}", b""] {
            assert!(reads_alike(plain), "{}", plain.escape_ascii());
        }
        for odd in [
            &b"abc x"[..],
            b"\"abc\" x",
            b"abc%00x",
            b"abc%2500x",
            b"%00abc",
            b"abc\tx",
            b"\"abc",
            b"a\\bc",
            b"abc%5c+",
            b"abc%255c",
            b"\"\\141bc\"",
            b"abc\xa0x",
            b"abc,sid=x",
        ] {
            assert!(!reads_alike(odd), "{}", odd.escape_ascii());
        }
    }

    #[test]
    fn credentials_come_first_in_the_joined_line() {
        let line = join([("sid", &b"T"[..])].into_iter(), &[b"x=\"", b"y=\""]).unwrap();
        assert_eq!(line, b"sid=T; x=\"; y=\"");
        assert_eq!(join(std::iter::empty(), &[]), None);
    }
}
