//! The logout: which request it is, and how its answer looks.

use super::Confidence;
use super::login::Login;
use super::recording::{Exchange, Phase, Recording};

/// `[[logout]]` as found.
#[derive(Debug)]
pub struct Logout {
    pub method: String,
    pub path: String,
    /// What tells it from other requests to the path: expression and value.
    pub is: Option<(String, String)>,
    pub status: u16,
    pub clears: Vec<String>,
    pub confidence: Confidence,
    pub why: &'static str,
    pub at_app: AtApp,
}

/// How Headcount itself could log a session out at the app.
#[derive(Debug, PartialEq, Eq)]
pub enum AtApp {
    Plain,
    /// With Django's double-submit token.
    Django,
    /// The request carries a token that only a page of the app has.
    Unknown,
}

/// The words by which logouts go.
const WORDS: [&str; 7] =
    ["logout", "signout", "logoff", "abmelden", "deconnexion", "uitloggen", "end_session"];

/// Whether a text speaks of logging out, whatever separates the two words.
pub fn is_named(text: &str) -> bool {
    let plain: String =
        text.to_ascii_lowercase().chars().filter(|c| !matches!(c, '-' | '_')).collect();
    WORDS.iter().any(|word| plain.contains(&word.replace('_', "")))
}

/// Finds the logout in its phase.
pub fn find(
    recording: &Recording,
    credentials: &[String],
    login: Option<&Login>,
) -> Option<Logout> {
    let cleared = |sent: &Exchange| -> Vec<String> {
        sent.clears().into_iter().filter(|name| credentials.contains(name)).collect()
    };
    let rank = |sent: &&Exchange| {
        let done = !cleared(sent).is_empty();
        let named = is_named(&sent.target) || in_fields(sent).is_some();
        let redirected = (300..400).contains(&sent.status);
        (named && (done || redirected), done, named && !sent.is_safe(), named, !sent.is_safe())
    };
    // Of several equals the last: a page that asks comes before the request that does it.
    let sent = recording.in_phase(Phase::Logout).max_by_key(rank)?;
    let (_, done, _, named, unsafe_) = rank(&sent);
    if !done && !named && !unsafe_ {
        return None;
    }
    let path = sent.path();
    let shared = login.is_some_and(|login| login.path == path);
    let is = if is_named(&path) && !shared { None } else { in_fields(sent) };
    let (confidence, why) = match (done, named) {
        (true, _) => (Confidence::Sure, "its answer deletes the credential"),
        (false, true) => {
            (Confidence::Likely, "it is named like a logout; its answer deletes no cookie")
        }
        (false, false) => (Confidence::Guess, "the last request recorded at the logout"),
    };
    let mut clears = cleared(sent);
    // One is enough, and the others may not be there next time.
    clears.truncate(1);
    let method = asked_method(sent);
    Some(Logout {
        at_app: at_app(sent),
        method,
        path,
        is,
        status: sent.status,
        clears,
        confidence,
        why,
    })
}

/// `action=logout` and the like, in a query or a form.
fn in_fields(sent: &Exchange) -> Option<(String, String)> {
    let fields = sent.named_fields();
    fields.into_iter().find(|(_, value)| is_named(value) && value.len() < 20)
}

/// The method, or the one that a form asks for.
fn asked_method(sent: &Exchange) -> String {
    let fields = sent.named_fields();
    let asked = fields.iter().find(|(field, _)| field == "form:_method").map(|(_, asked)| asked);
    asked.map_or_else(|| sent.method.clone(), |asked| asked.to_ascii_uppercase())
}

fn at_app(sent: &Exchange) -> AtApp {
    let fields = sent.named_fields();
    let has = |name: &str| fields.iter().any(|(field, _)| field == name);
    if has("form:csrfmiddlewaretoken") || sent.headers.contains_key("x-csrftoken") {
        return AtApp::Django;
    }
    let others = fields.iter().filter(|(field, value)| field != "form:next" && !value.is_empty());
    if others.count() == 0 { AtApp::Plain } else { AtApp::Unknown }
}
