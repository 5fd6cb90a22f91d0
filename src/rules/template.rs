//! Path patterns with named segments (`/u/{user}/login`): the glob they stand for, and what a path
//! has in a named segment. Values only.

use super::matcher::Glob;

/// A path pattern of which some segments have names.
#[derive(Clone, Debug, PartialEq)]
pub struct Template(Vec<Segment>);

#[derive(Clone, Debug, PartialEq)]
enum Segment {
    Named(String),
    /// In lower case, as paths are compared.
    Plain(Glob),
}

impl Template {
    /// `None`: no segment has a name.
    pub fn parse(pattern: &str) -> Option<Self> {
        let segments: Vec<Segment> = segments(pattern)
            .map(|segment| match named(segment) {
                Some(name) => Segment::Named(name.to_owned()),
                None => Segment::Plain(Glob::path(&segment.to_ascii_lowercase())),
            })
            .collect();
        let has_names = segments.iter().any(|segment| matches!(segment, Segment::Named(_)));
        has_names.then_some(Self(segments))
    }

    /// The pattern with `*` in place of each name.
    pub fn glob_of(pattern: &str) -> String {
        let plain = |segment| if named(segment).is_some() { "*" } else { segment };
        pattern.split('/').map(plain).collect::<Vec<_>>().join("/")
    }

    /// Whether a segment has this name.
    pub fn names(&self, name: &str) -> bool {
        self.0.iter().any(|segment| matches!(segment, Segment::Named(named) if named == name))
    }

    /// What a canonical path has in the segment of this name, percent-decoded.
    pub fn find(&self, name: &str, path: &str) -> Option<String> {
        let parts: Vec<&str> = segments(path).collect();
        let fits = |(segment, part): (&Segment, &&str)| match segment {
            Segment::Named(_) => !part.is_empty(),
            Segment::Plain(glob) => glob.matches(&part.to_ascii_lowercase()),
        };
        if parts.len() != self.0.len() || !self.0.iter().zip(&parts).all(fits) {
            return None;
        }
        let at = self.0.iter().position(|own| matches!(own, Segment::Named(own) if own == name))?;
        let decoded = percent_encoding::percent_decode_str(parts[at]).decode_utf8();
        decoded.ok().map(std::borrow::Cow::into_owned)
    }
}

/// As rules compare paths: a slash at the end makes no difference.
fn segments(path: &str) -> impl Iterator<Item = &str> {
    path.strip_suffix('/').unwrap_or(path).split('/')
}

fn named(segment: &str) -> Option<&str> {
    segment.strip_prefix('{')?.strip_suffix('}').filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_segment_is_found() {
        let template = Template::parse("/U/{user}/log*").unwrap();
        assert_eq!(template.find("user", "/u/Al%20ice/login/").as_deref(), Some("Al ice"));
        for other in ["/u/alice", "/u//login", "/x/alice/login", "/u/a/b/login"] {
            assert_eq!(template.find("user", other), None, "{other}");
        }
        assert_eq!(template.find("name", "/u/alice/login"), None);
        assert!(template.names("user") && !template.names("u"));
        assert_eq!(Template::glob_of("/U/{user}/log*"), "/U/*/log*");
        assert_eq!(Template::parse("/login/{}"), None);
    }
}
