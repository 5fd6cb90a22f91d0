//! The pages people see: templates, their words in five languages, the operator's theme. Knows no
//! HTTP, and no more about a session than what a page says.

mod language;
mod sessions;

use std::collections::BTreeMap;
use std::fmt;

use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, UndefinedBehavior, Value, context, escape_formatter};
use serde::{Deserialize, Serialize};

pub use language::Language;
pub use sessions::{Described, NotMe, Row, Sessions};

use crate::refusal::Refusal;
use crate::session::{EndReason, Timestamp};

/// The templates that come with Headcount; the operator may put others in their place.
pub const TEMPLATES: [(&str, &str); 6] = [
    ("layout.html", include_str!("../config/pages/layout.html")),
    ("ended.html", include_str!("../config/pages/ended.html")),
    ("denied.html", include_str!("../config/pages/denied.html")),
    ("refused.html", include_str!("../config/pages/refused.html")),
    ("sessions.html", include_str!("../config/pages/sessions.html")),
    ("disowned.html", include_str!("../config/pages/disowned.html")),
];

/// How the pages look.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Theme {
    /// What people call the app.
    pub name: Option<String>,
    /// A path on the app.
    pub logo: Option<String>,
    /// `#rrggbb`.
    pub accent: Option<String>,
    /// Whom to ask for help, as text.
    pub support: Option<String>,
}

/// What a page tells.
#[derive(Clone, Copy, Debug)]
pub enum Page<'a> {
    Ended {
        reason: EndReason,
        at: Option<Timestamp>,
        login_url: Option<&'a str>,
        /// For ends that somebody else may have caused.
        not_me: Option<NotMe<'a>>,
    },
    Denied {
        count: u32,
        limit: u32,
    },
    /// A user's own sessions.
    Sessions(&'a Sessions),
    /// A user has said that an end was somebody else's doing.
    Disowned {
        login_url: Option<&'a str>,
    },
    Refused {
        refusal: Refusal,
        reference: &'a str,
    },
}

/// The words of one language.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Words {
    support: String,
    ended: Ended,
    denied: Denied,
    sessions: sessions::Words,
    disowned: Disowned,
    refused: Refused,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Ended {
    title: String,
    sign_in: String,
    at: String,
    not_you: String,
    not_me: String,
    /// By reason.
    because: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Denied {
    title: String,
    one: String,
    many: String,
    advice: String,
    not_you: String,
    reason: String,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Disowned {
    title: String,
    text: String,
    advice: String,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Refused {
    try_later: String,
    check: String,
    reference: String,
    /// By the code of the reason, else by status.
    title: BTreeMap<String, String>,
    advice: BTreeMap<String, String>,
}

impl Refused {
    fn title(&self, refusal: Refusal) -> &str {
        by_refusal(&self.title, refusal).or_else(|| self.title.get("other")).map_or("", |it| it)
    }

    fn advice(&self, refusal: Refusal) -> &str {
        let later = refusal.status().is_server_error() || refusal.may_come_again();
        let usual = if later { &self.try_later } else { &self.check };
        by_refusal(&self.advice, refusal).unwrap_or(usual)
    }
}

fn by_refusal(words: &BTreeMap<String, String>, refusal: Refusal) -> Option<&String> {
    words.get(refusal.code()).or_else(|| words.get(refusal.status().as_str()))
}

/// Why the pages cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum PagesError {
    #[error("{name}, line {line}: {what}")]
    Template { name: String, line: usize, what: String },
    /// A mistake of ours.
    #[error("the words in {0:?}: {1}")]
    Words(Language, toml::de::Error),
}

impl From<minijinja::Error> for PagesError {
    fn from(error: minijinja::Error) -> Self {
        let mut what = error.kind().to_string();
        if let Some(detail) = error.detail() {
            what = format!("{what}: {detail}");
        }
        let name = error.name().unwrap_or("template").to_owned();
        Self::Template { name, line: error.line().unwrap_or(1), what }
    }
}

/// All pages, ready to be filled in. The default has none, and is for settings that are wrong anyway.
#[derive(Default)]
pub struct Pages {
    templates: Environment<'static>,
    words: Vec<Words>,
    theme: Theme,
    /// For browsers that prefer none of the others.
    pub language: Language,
}

impl fmt::Debug for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pages")
            .field("theme", &self.theme)
            .field("language", &self.language)
            .finish_non_exhaustive()
    }
}

impl Pages {
    /// With these templates in the place of ours of the same name. With them every page is tried
    /// once, so that a mistake is found now and not by a user.
    ///
    /// # Errors
    /// A template that cannot be read, or names what there is not; with its name and line.
    pub fn new(
        own: Vec<(String, String)>,
        theme: Theme,
        language: Language,
    ) -> Result<Self, PagesError> {
        let mut templates = Environment::new();
        templates.set_undefined_behavior(UndefinedBehavior::Strict);
        // As minijinja does it, but for `/`, so that paths can be read in the source of a page.
        templates.set_formatter(|out, state, value| match value.as_str() {
            Some(text) if *state.auto_escape() == AutoEscape::Html && !value.is_safe() => {
                Ok(out.write_str(&escape_html(text))?)
            }
            _ => escape_formatter(out, state, value),
        });
        for (name, text) in TEMPLATES {
            templates.add_template(name, text)?;
        }
        let untried = !own.is_empty();
        for (name, text) in own {
            templates.add_template_owned(name, text)?;
        }
        let words = Language::ALL.map(words_of).into_iter().collect::<Result<_, _>>()?;
        let pages = Self { templates, words, theme, language };
        for language in Language::ALL.into_iter().filter(|_| untried) {
            for page in samples() {
                pages.rendered(page, language)?;
            }
            for sample in &Sessions::samples() {
                pages.rendered(Page::Sessions(sample), language)?;
            }
        }
        Ok(pages)
    }

    /// The page as HTML.
    pub fn html(&self, page: Page<'_>, language: Language) -> String {
        // All of them were tried; a template that fails for some values only still leaves the words.
        self.rendered(page, language).unwrap_or_else(|_| self.text(page, language).join("\n"))
    }

    /// Title and text alone.
    pub fn text(&self, page: Page<'_>, language: Language) -> [String; 2] {
        let words = self.words(language);
        let [title, text] = match page {
            Page::Ended { reason, .. } => {
                let because = words.ended.because.get(reason.as_str());
                [&*words.ended.title, because.map_or("", |it| it)]
            }
            Page::Denied { count, limit } => {
                let text = if count == 1 { &words.denied.one } else { &words.denied.many };
                let text = text.replace("{count}", &count.to_string());
                return [words.denied.title.clone(), text.replace("{limit}", &limit.to_string())];
            }
            Page::Sessions(_) => [&*words.sessions.title, &*words.sessions.intro],
            Page::Disowned { .. } => [&*words.disowned.title, &*words.disowned.text],
            Page::Refused { refusal, .. } => {
                [words.refused.title(refusal), words.refused.advice(refusal)]
            }
        };
        [title.to_owned(), text.to_owned()]
    }

    fn words(&self, language: Language) -> &Words {
        // `new` puts them all there, in the order of `Language::ALL`.
        &self.words[language as usize]
    }

    fn rendered(&self, page: Page<'_>, language: Language) -> Result<String, minijinja::Error> {
        let words = Value::from(Serde(self.words(language)));
        let theme = Value::from(Serde(&self.theme));
        let common = context! { words, theme, language => language.tag() };
        let template = |name| self.templates.get_template(name);
        match page {
            Page::Ended { reason, at, login_url, not_me } => {
                let not_me = not_me.map(|not_me| Value::from(Serde(not_me)));
                let at = at.map(|at| at.to_string());
                let time = at.as_deref().map(human);
                let not_you = advises(reason);
                let reason = reason.as_str();
                let facts = context! { reason, at, time, not_you, not_me, login_url, ..common };
                template("ended.html")?.render(facts)
            }
            Page::Denied { count, limit } => {
                let [_, text] = self.text(page, language);
                template("denied.html")?.render(context! { text, count, limit, ..common })
            }
            Page::Sessions(sessions) => {
                let words = &self.words(language).sessions;
                let facts = sessions.facts(words, |at| human(&at.to_string()));
                template("sessions.html")?.render(context! { ..facts, ..common })
            }
            Page::Disowned { login_url } => {
                template("disowned.html")?.render(context! { login_url, ..common })
            }
            Page::Refused { refusal, reference } => {
                let [title, advice] = self.text(page, language);
                let reason = refusal.code();
                let facts = context! { title, advice, reference, reason, ..common };
                template("refused.html")?.render(facts)
            }
        }
    }
}

fn words_of(language: Language) -> Result<Words, PagesError> {
    let text = match language {
        Language::English => include_str!("../config/pages/en.toml"),
        Language::German => include_str!("../config/pages/de.toml"),
        Language::French => include_str!("../config/pages/fr.toml"),
        Language::Spanish => include_str!("../config/pages/es.toml"),
        Language::Dutch => include_str!("../config/pages/nl.toml"),
    };
    toml::from_str(text).map_err(|error| PagesError::Words(language, error))
}

/// One page of each kind, with everything and with as little as there can be.
fn samples() -> impl Iterator<Item = Page<'static>> {
    let at = Some(Timestamp(0));
    let not_me = NotMe { action: "/", session: "-", token: "-" };
    let ended = EndReason::ALL.into_iter().flat_map(move |reason| {
        [
            Page::Ended { reason, at, login_url: Some("/login"), not_me: Some(not_me) },
            Page::Ended { reason, at: None, login_url: None, not_me: None },
        ]
    });
    let denied = [1, 2].map(|count| Page::Denied { count, limit: count });
    let refused =
        Refusal::ALL.iter().map(|refusal| Page::Refused { refusal: *refusal, reference: "-" });
    let disowned = [Some("/login"), None].map(|login_url| Page::Disowned { login_url });
    ended.chain(denied).chain(disowned).chain(refused)
}

/// Whether somebody else may have been the cause.
pub fn advises(reason: EndReason) -> bool {
    match reason {
        EndReason::Limit
        | EndReason::PasswordChange
        | EndReason::SelfService
        | EndReason::ClientChanged => true,
        EndReason::Logout
        | EndReason::IdleTimeout
        | EndReason::AbsoluteTimeout
        | EndReason::Admin
        | EndReason::Replaced
        | EndReason::App => false,
    }
}

fn escape_html(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
        .replace('\'', "&#39;")
}

/// `2026-01-02T03:04:05.678Z` → `2026-01-02 03:04 UTC`.
fn human(rfc3339: &str) -> String {
    match (rfc3339.get(..10), rfc3339.get(11..16)) {
        (Some(date), Some(time)) => format!("{date} {time} UTC"),
        _ => rfc3339.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages(own: &[(&str, &str)]) -> Result<Pages, PagesError> {
        let own = own.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        Pages::new(own, Theme::default(), Language::English)
    }

    #[test]
    fn every_language_has_every_word() {
        let pages = pages(&[]).unwrap();
        let english = pages.words(Language::English);
        for language in Language::ALL {
            let words = pages.words(language);
            let keys = |map: &BTreeMap<String, String>| map.keys().cloned().collect::<Vec<_>>();
            assert_eq!(keys(&words.ended.because).len(), EndReason::ALL.len(), "{language:?}");
            assert_eq!(keys(&words.refused.title), keys(&english.refused.title), "{language:?}");
            assert_eq!(keys(&words.refused.advice), keys(&english.refused.advice), "{language:?}");
            let toml = toml::to_string(words).unwrap();
            assert!(!toml.contains("\"\""), "an empty word in {language:?}");
            let filled = |toml: &str| toml.matches('{').count();
            assert_eq!(filled(&toml), filled(&toml::to_string(english).unwrap()), "{language:?}");
            let check = |page: Page<'_>| {
                let html = pages.rendered(page, language).unwrap();
                assert!(html.contains(&format!("<html lang=\"{}\">", language.tag())));
                assert!(html.len() < 15_000 && !html.contains('{') || html.contains("<style>"));
                let body = html.split("<body>").nth(1).unwrap();
                assert!(!body.contains('{') && !body.contains("undefined"), "{body}");
            };
            samples().for_each(check);
            Sessions::samples().iter().for_each(|list| check(Page::Sessions(list)));
        }
    }

    #[test]
    fn what_is_filled_in_stays_text() {
        let theme = Theme {
            name: Some("<b>&".into()),
            support: Some("<script>alert(1)</script>".into()),
            ..Theme::default()
        };
        let pages = Pages::new(Vec::new(), theme, Language::English).unwrap();
        let login_url = Some("/login?a=\"><script>");
        let page = Page::Ended { reason: EndReason::Limit, at: None, login_url, not_me: None };
        let html = pages.html(page, Language::German);
        assert!(!html.contains("<script>") && !html.contains("<b>"), "{html}");
        assert!(html.contains("&lt;script&gt;"), "{html}");
    }

    #[test]
    fn a_template_of_ones_own_counts_and_its_mistakes_are_told() {
        let own = pages(&[("denied.html", "no: {{ count }} of {{ limit }}")]).unwrap();
        let page = Page::Denied { count: 3, limit: 2 };
        assert_eq!(own.html(page, Language::French), "no: 3 of 2");
        for (name, text, line) in [
            ("denied.html", "\n{{ count", 2),
            ("ended.html", "a\nb\n{{ uesr }}", 3),
            ("layout.html", "{% block title %}{% endblock %}\n{{ words.nothing.here }}", 2),
        ] {
            let error = pages(&[(name, text)]).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{name}, line {line}: ")), "{error}");
        }
    }
}
