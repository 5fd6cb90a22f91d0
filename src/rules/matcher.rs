//! The small rule language: globs, pattern lists and status patterns, each parsed from its written
//! form. Where values are found is in `expression.rs`. Values only.

use std::fmt;

/// A pattern over text. `?` is one character and `*` any run (in paths: but for `/`), `**` any run.
/// Matching takes time linear in text × pattern, without recursion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob {
    source: String,
    tokens: Vec<Token>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Char(char),
    /// `true`: `/` too.
    One(bool),
    /// `true`: across `/` too.
    Any(bool),
}

impl Glob {
    /// A pattern for names and values: `*` matches any run of characters.
    pub fn name(source: &str) -> Self {
        Self::new(source, true)
    }

    /// A pattern for paths: `*` stays within one segment, `**` crosses `/`.
    pub fn path(source: &str) -> Self {
        Self::new(source, false)
    }

    fn new(source: &str, star_crosses: bool) -> Self {
        let mut tokens = Vec::new();
        let mut chars = source.chars().peekable();
        while let Some(character) = chars.next() {
            tokens.push(match character {
                '?' => Token::One(star_crosses),
                '*' => {
                    let double = chars.next_if_eq(&'*').is_some();
                    Token::Any(double || star_crosses)
                }
                character => Token::Char(character),
            });
        }
        Self { source: source.to_owned(), tokens }
    }

    /// The text this pattern stands for when it has no wildcard.
    pub fn literal(&self) -> Option<&str> {
        self.tokens.iter().all(|token| matches!(token, Token::Char(_))).then_some(&*self.source)
    }

    /// Whether whatever `other` fits surely fits this one too, as far as their writing tells.
    pub fn covers(&self, other: &Self) -> bool {
        self == other || other.literal().is_some_and(|text| self.matches(text))
    }

    /// The same pattern with its fixed text passed through `fold`, for comparing names that are
    /// folded too.
    #[must_use]
    pub fn folded(&self, fold: &dyn Fn(&str) -> String) -> Self {
        let mut tokens = Vec::with_capacity(self.tokens.len());
        let mut text = String::new();
        let flush = |text: &mut String, tokens: &mut Vec<Token>| {
            tokens.extend(fold(text).chars().map(Token::Char));
            text.clear();
        };
        for token in &self.tokens {
            if let Token::Char(character) = token {
                text.push(*character);
            } else {
                flush(&mut text, &mut tokens);
                tokens.push(token.clone());
            }
        }
        flush(&mut text, &mut tokens);
        Self { source: fold(&self.source), tokens }
    }

    /// Whether all of `text` matches.
    pub fn matches(&self, text: &str) -> bool {
        let fixed = self.tokens.iter().take_while(|token| matches!(token, Token::Char(_))).count();
        let mut rest = text.chars();
        let starts = self.tokens[..fixed]
            .iter()
            .all(|token| rest.next().is_some_and(|found| *token == Token::Char(found)));
        starts && reaches_the_end(&self.tokens[fixed..], rest.as_str())
    }
}

/// The places in the pattern that the text so far leads to are kept as a set, so that no input makes
/// it slow. It does not grow while the text is read.
fn reaches_the_end(tokens: &[Token], text: &str) -> bool {
    if tokens.is_empty() {
        return text.is_empty();
    }
    let mut reachable: Vec<usize> = Vec::with_capacity(tokens.len() + 1);
    let mut next: Vec<usize> = Vec::with_capacity(tokens.len() + 1);
    arrive(tokens, &mut reachable, 0);
    for character in text.chars() {
        for &at in &reachable {
            match tokens.get(at) {
                Some(Token::Char(expected)) if *expected == character => {
                    arrive(tokens, &mut next, at + 1);
                }
                Some(Token::One(slash)) if *slash || character != '/' => {
                    arrive(tokens, &mut next, at + 1);
                }
                Some(Token::Any(crosses)) if *crosses || character != '/' => {
                    arrive(tokens, &mut next, at);
                }
                _ => {}
            }
        }
        if next.is_empty() {
            return false;
        }
        std::mem::swap(&mut reachable, &mut next);
        next.clear();
    }
    reachable.last() == Some(&tokens.len())
}

/// A place, and those behind stars that match nothing. Places come in order, so that those that are
/// there already are the last ones.
fn arrive(tokens: &[Token], places: &mut Vec<usize>, mut at: usize) {
    loop {
        if places.last().is_none_or(|last| *last < at) {
            places.push(at);
        }
        if !matches!(tokens.get(at), Some(Token::Any(_))) {
            return;
        }
        at += 1;
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)
    }
}

/// Patterns of which any must match and none of those with `!` may. An empty list matches all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Patterns {
    any: Vec<Glob>,
    none: Vec<Glob>,
}

impl Patterns {
    /// From written patterns; `make` is [`Glob::name`] or [`Glob::path`].
    pub fn new<'a>(written: impl IntoIterator<Item = &'a str>, make: fn(&str) -> Glob) -> Self {
        let mut patterns = Self::default();
        for pattern in written {
            match pattern.strip_prefix('!') {
                Some(negated) => patterns.none.push(make(negated)),
                None => patterns.any.push(make(pattern)),
            }
        }
        patterns
    }

    /// The same patterns in lower case, for texts that are lowered too.
    #[must_use]
    pub fn lowered(self) -> Self {
        let lower = |globs: Vec<Glob>| {
            globs.into_iter().map(|glob| glob.folded(&|text| text.to_ascii_lowercase())).collect()
        };
        Self { any: lower(self.any), none: lower(self.none) }
    }

    /// Whether there is nothing to match.
    pub fn is_empty(&self) -> bool {
        self.any.is_empty() && self.none.is_empty()
    }

    /// Whether `text` is wanted.
    pub fn matches(&self, text: &str) -> bool {
        (self.any.is_empty() || self.any.iter().any(|glob| glob.matches(text)))
            && !self.none.iter().any(|glob| glob.matches(text))
    }

    /// As [`Self::matches`]; a value that is absent matches only what asks for none.
    pub fn matches_option(&self, text: Option<&str>) -> bool {
        match text {
            Some(text) => self.matches(text),
            None => self.any.is_empty(),
        }
    }

    /// The patterns without `!`.
    pub fn wanted(&self) -> &[Glob] {
        &self.any
    }

    /// The patterns with `!`, without it.
    pub fn unwanted(&self) -> &[Glob] {
        &self.none
    }
}

/// What a form can ask for in place of POST.
const OVERRIDES: [&str; 3] = ["PUT", "PATCH", "DELETE"];

/// Methods, any of; empty: all. Compared byte for byte (RFC 9110 §9.1: case-sensitive).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Methods(pub Vec<String>);

impl Methods {
    /// Whether `method` is among them.
    pub fn contains(&self, method: &str) -> bool {
        self.0.is_empty() || self.0.iter().any(|known| known == method)
    }

    /// Whether a form sent with POST could ask for one of them (`_method=delete`): many frameworks
    /// let it, since browsers send no other.
    pub fn may_be_asked_for(&self, method: &str) -> bool {
        method == "POST" && self.0.iter().any(|known| OVERRIDES.contains(&known.as_str()))
    }
}

/// Status codes, any of: `302`, `3xx`, `!401`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatusPatterns(Vec<(bool, u16, u16)>);

impl StatusPatterns {
    /// Adds one pattern; the error says what is allowed.
    pub fn push(&mut self, written: &str) -> Result<(), String> {
        let (negated, code) = match written.strip_prefix('!') {
            Some(code) => (true, code),
            None => (false, written),
        };
        let range = match (code.strip_suffix("xx"), code.parse::<u16>()) {
            (Some(class), _) => class
                .parse::<u16>()
                .ok()
                .filter(|class| (1..=5).contains(class))
                .map(|class| (class * 100, class * 100 + 99)),
            (None, Ok(code)) if (100..=599).contains(&code) => Some((code, code)),
            (None, _) => None,
        };
        let (low, high) = range.ok_or(
            "a status code from 100 to 599, a class like \"2xx\", or either with \"!\" in front",
        )?;
        self.0.push((negated, low, high));
        Ok(())
    }

    /// Whether `status` is wanted.
    pub fn matches(&self, status: u16) -> bool {
        let within = |&&(_, low, high): &&(bool, u16, u16)| (low..=high).contains(&status);
        let mut wanted = self.0.iter().filter(|(negated, ..)| !negated).peekable();
        let mut unwanted = self.0.iter().filter(|(negated, ..)| *negated);
        (wanted.peek().is_none() || wanted.any(|range| within(&range)))
            && !unwanted.any(|range| within(&range))
    }
}

impl fmt::Display for StatusPatterns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |negated: bool| {
            let ranges = self.0.iter().filter(|range| range.0 == negated);
            let ranges = ranges.map(|(_, low, high)| match low == high {
                true => low.to_string(),
                false => format!("{}xx", low / 100),
            });
            ranges.collect::<Vec<_>>().join(" or ")
        };
        match (list(false), list(true)) {
            (wanted, unwanted) if unwanted.is_empty() => f.write_str(&wanted),
            (wanted, unwanted) if wanted.is_empty() => write!(f, "anything but {unwanted}"),
            (wanted, unwanted) => write!(f, "{wanted} but not {unwanted}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_match_the_whole_text() {
        let table = [
            (Glob::name("sessionid"), "sessionid", true),
            (Glob::name("sessionid"), "sessionid2", false),
            (Glob::name("_*_session"), "_shop_session", true),
            (Glob::name("?*"), "", false),
            (Glob::name("?*"), "x", true),
            (Glob::name("?*"), "/x", true),
            (Glob::path("/?"), "//", false),
            (Glob::name("*@ops.example.com"), "eve@ops.example.com", true),
            (Glob::path("/static/**"), "/static/a/b.css", true),
            (Glob::path("/static/*"), "/static/a/b.css", false),
            (Glob::path("/a/*/b"), "/a/x/b", true),
            (Glob::path("**/j_security_check"), "/shop/j_security_check", true),
        ];
        for (glob, text, expected) in table {
            assert_eq!(glob.matches(text), expected, "{glob} on {text}");
        }
    }

    /// Every text of at most so many of these.
    fn texts(of: &[&str], longest: usize) -> Vec<String> {
        let mut all = vec![String::new()];
        for start in 0..longest {
            let longer: Vec<String> = all
                .iter()
                .filter(|text| text.chars().count() >= start)
                .flat_map(|text| of.iter().map(move |next| format!("{text}{next}")))
                .collect();
            all.extend(longer);
        }
        all
    }

    fn naively(tokens: &[Token], text: &str) -> bool {
        let (Some(token), mut rest) = (tokens.first(), text.chars()) else {
            return text.is_empty();
        };
        let first = rest.next();
        let goes_on = |tokens| first.is_some() && naively(tokens, rest.as_str());
        match token {
            Token::Char(expected) => first == Some(*expected) && goes_on(&tokens[1..]),
            Token::One(slash) => (*slash || first != Some('/')) && goes_on(&tokens[1..]),
            Token::Any(crosses) => {
                naively(&tokens[1..], text) || ((*crosses || first != Some('/')) && goes_on(tokens))
            }
        }
    }

    #[test]
    fn globs_match_as_their_definition_says() {
        let texts = texts(&["a", "b", "/"], 4);
        let mut matched = 0;
        for pattern in self::texts(&["a", "/", "?", "*", "**"], 4) {
            for glob in [Glob::name(&pattern), Glob::path(&pattern)] {
                for text in &texts {
                    let expected = naively(&glob.tokens, text);
                    assert_eq!(glob.matches(text), expected, "{glob} on {text}");
                    matched += usize::from(expected);
                }
            }
        }
        assert!(matched > 1_000, "{matched}");
    }

    #[test]
    fn a_hostile_text_does_not_make_a_glob_slow() {
        let glob = Glob::name("*a*a*a*a*a*a*a*a*b");
        assert!(!glob.matches(&"a".repeat(20_000)));
    }

    #[test]
    fn negated_patterns_exclude() {
        let patterns = Patterns::new(["!*/login*"], Glob::name);
        assert!(patterns.matches("/home"));
        assert!(!patterns.matches("http://h/login?error"));
        assert!(patterns.matches_option(None));
        assert!(!Patterns::new(["/home"], Glob::name).matches_option(None));
    }

    #[test]
    fn a_post_may_ask_for_what_browsers_do_not_send() {
        let methods = |list: &[&str]| Methods(list.iter().map(|name| (*name).to_owned()).collect());
        assert!(methods(&["GET", "DELETE"]).may_be_asked_for("POST"));
        assert!(!methods(&["GET", "DELETE"]).may_be_asked_for("GET"));
        assert!(!methods(&["GET", "POST"]).may_be_asked_for("POST"));
        assert!(!methods(&[]).may_be_asked_for("POST"));
    }

    #[test]
    fn status_patterns_name_codes_and_classes() {
        let mut status = StatusPatterns::default();
        status.push("2xx").unwrap();
        status.push("302").unwrap();
        assert!(status.matches(204) && status.matches(302) && !status.matches(303));
        let mut not = StatusPatterns::default();
        not.push("!401").unwrap();
        assert!(not.matches(200) && !not.matches(401));
        for wrong in ["6xx", "99", "ok", "!", "1000"] {
            assert!(StatusPatterns::default().push(wrong).is_err(), "{wrong}");
        }
    }
}
