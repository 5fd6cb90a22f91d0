//! The canonical form of a request path, for matching only: what is forwarded are the bytes that
//! came. A watched path in another spelling is refused rather than guessed at. Pure.

/// A path as rules see it.
#[derive(Debug, PartialEq, Eq)]
pub struct CanonicalPath {
    /// Decoded, without parameters, dot segments and double slashes.
    pub text: String,
    /// Whether the path came in just this form (path parameters aside).
    pub plain: bool,
}

/// Where a request stands to the folder that holds our own pages.
#[derive(Debug, PartialEq, Eq)]
pub enum Own<'p> {
    /// It is not about them.
    No,
    /// What follows the folder: nothing, or a `/` and a page.
    Page(&'p str),
    /// It is about them in another spelling.
    Odd,
}

impl CanonicalPath {
    /// Where `raw`, of which this is the canonical form, stands to `folder`, which ends in `/`.
    pub fn below(&self, raw: &str, folder: &str) -> Own<'_> {
        let stem = folder.strip_suffix('/').unwrap_or(folder);
        let Some((head, rest)) = self.text.split_at_checked(stem.len()) else { return Own::No };
        // Some servers do not tell letter cases apart.
        if !head.eq_ignore_ascii_case(stem) || !(rest.is_empty() || rest.starts_with('/')) {
            return Own::No;
        }
        if head == stem && raw == self.text { Own::Page(rest) } else { Own::Odd }
    }
}

/// Reads `raw`, the path part of a request target, as the most forgiving server would: percent
/// escapes decoded twice, `\` as `/`, `;parameters` cut off, `//`, `/./` and `/../` resolved.
pub fn canonical(raw: &str) -> CanonicalPath {
    if is_canonical(raw) {
        return CanonicalPath { text: raw.to_owned(), plain: true };
    }
    resolve(raw)
}

/// Whether nothing in `raw` would change. May be `false` although nothing would.
fn is_canonical(raw: &str) -> bool {
    let bytes = raw.as_bytes();
    let pairs = bytes.windows(2);
    bytes.first() == Some(&b'/')
        && !bytes.iter().any(|byte| matches!(byte, b'%' | b'\\' | b';'))
        && !pairs.into_iter().any(|pair| pair[0] == b'/' && matches!(pair[1], b'/' | b'.'))
}

fn resolve(raw: &str) -> CanonicalPath {
    let without_parameters = cut_parameters(raw);
    let once = decode(&without_parameters);
    let twice = decode(&once);
    let slashed = cut_parameters(&twice.replace('\\', "/"));
    let mut segments: Vec<&str> = Vec::new();
    let mut directory = false;
    for segment in slashed.split('/').skip(1) {
        directory = matches!(segment, "" | "." | "..");
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            segment => segments.push(segment),
        }
    }
    let mut text = String::with_capacity(raw.len());
    for segment in &segments {
        text.push('/');
        text.push_str(segment);
    }
    if directory || segments.is_empty() {
        text.push('/');
    }
    let plain = text == without_parameters;
    CanonicalPath { text, plain }
}

/// `/a;x=1/b;y` → `/a/b`. A segment that is only a parameter, or dots with one, is left for the dot
/// rules to see.
fn cut_parameters(path: &str) -> String {
    if !path.contains(';') {
        return path.to_owned();
    }
    let cut: Vec<&str> =
        path.split('/').map(|segment| segment.split(';').next().unwrap_or_default()).collect();
    cut.join("/")
}

fn decode(path: &str) -> String {
    if !path.contains('%') {
        return path.to_owned();
    }
    percent_encoding::percent_decode_str(path).decode_utf8_lossy().replace('\0', "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_paths_are_their_own_canonical_form() {
        for path in ["/", "/login", "/accounts/login/", "/a/b.c/~x", "/j_security_check"] {
            assert_eq!(canonical(path), CanonicalPath { text: path.to_owned(), plain: true });
        }
    }

    #[test]
    fn what_is_taken_as_it_is_would_not_change() {
        for path in [
            "/", "/a", "/a/", "/a/b", "/a.b/..c", "/a/b..", "/a~%", "//", "/a//b", "/a/.", "/./a",
            "a", "",
        ] {
            assert_eq!(canonical(path), resolve(path), "{path}");
        }
    }

    #[test]
    fn every_spelling_of_a_path_is_found_out() {
        let spellings = [
            "//login",
            "/./login",
            "/x/../login",
            "/x/..;/login",
            "/%6cogin",
            "/%2e/login",
            "/login/.",
            "/%256cogin",
            "/x/%2e%2e/login",
            "/%5clogin",
            "/\\login",
            "/;a/login",
            "/x%2f..%2flogin",
            "/login%00",
        ];
        for spelling in spellings {
            let path = canonical(spelling);
            assert_eq!(path.text.trim_end_matches('/'), "/login", "{spelling}");
            assert!(!path.plain, "{spelling}");
        }
    }

    #[test]
    fn our_own_pages_have_one_spelling() {
        for (path, expected) in [
            ("/.headcount/", Own::Page("/")),
            ("/.headcount", Own::Page("")),
            ("/.headcount/end", Own::Page("/end")),
            ("/.headcountx/", Own::No),
            ("/.headcoun", Own::No),
            ("/x/.headcount/", Own::No),
            ("/.headcount/../login", Own::No),
            ("//.headcount/", Own::Odd),
            ("/.Headcount/", Own::Odd),
            ("/.headcount/%2e", Own::Odd),
            ("/.headcount//end", Own::Odd),
            ("/.headcount;x=1/", Own::Odd),
            ("/.headcount/end;x", Own::Odd),
            ("/%2eheadcount/", Own::Odd),
            ("/.headcount%2fend", Own::Odd),
            ("/x/../.headcount/", Own::Odd),
            ("/.head\u{e9}count/", Own::No),
        ] {
            assert_eq!(canonical(path).below(path, "/.headcount/"), expected, "{path}");
        }
    }

    #[test]
    fn path_parameters_are_only_cut_off() {
        let path = canonical("/j_security_check;jsessionid=AB12");
        assert_eq!(path, CanonicalPath { text: "/j_security_check".to_owned(), plain: true });
    }
}
