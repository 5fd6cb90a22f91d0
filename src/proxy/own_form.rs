//! What is sent to our own pages: read strictly, and taken only when it comes from one of them. A
//! browser says where a form is from, and the form carries what only we could have made.

use http::header::{HeaderMap, HeaderName, ORIGIN};
use http::request::Parts;

use super::payload::Payload;
use super::{Exchange, Proxy};
use crate::fields::Fields;
use crate::refusal::Refusal;
use crate::session::SessionId;

static SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// No form of another site can send it, and no script without being asked for leave first.
static X_HEADCOUNT: HeaderName = HeaderName::from_static("x-headcount");

/// What the forms about one's sessions carry.
const OWN_SESSIONS: &[u8] = b"sessions";
/// What the form on the page of an ended session carries.
const NOT_ME: &[u8] = b"not me";

/// The fields of a form of ours.
pub(super) struct OwnForm {
    fields: Fields,
    /// A script of this very site sent it.
    scripted: bool,
}

impl OwnForm {
    /// The one value of a field.
    pub(super) fn field(&self, name: &str) -> Option<String> {
        match &self.fields {
            // Twice is as bad as not at all.
            Fields::Form(_) => self.fields.form(name).ok().flatten().map(str::to_owned),
            Fields::Json(_) => self.fields.json(&format!("/{name}")),
            Fields::Opaque => None,
        }
    }

    /// The session that is meant.
    pub(super) fn session(&self) -> Option<SessionId> {
        self.field("session")?.parse().ok()
    }
}

impl Proxy {
    /// What the forms of a session's own page carry.
    pub(super) fn own_token(&self, session: SessionId) -> String {
        self.keyring.form(&[OWN_SESSIONS, &session.0])
    }

    /// What the form carries by which the end of a session is disowned.
    pub(super) fn not_me_token(&self, session: SessionId) -> String {
        self.keyring.form(&[NOT_ME, &session.0])
    }

    /// Whether it is from the page of this session, or from a script of this site.
    pub(super) fn is_own(&self, form: &OwnForm, session: SessionId) -> bool {
        let given = form.field("csrf").unwrap_or_default();
        form.scripted | self.keyring.is_form(&[OWN_SESSIONS, &session.0], &given)
    }

    /// Whether it is from the page of this session's end.
    pub(super) fn is_not_me(&self, form: &OwnForm, session: SessionId) -> bool {
        let given = form.field("token").unwrap_or_default();
        self.keyring.is_form(&[NOT_ME, &session.0], &given)
    }

    /// Reads what was sent, if it is from this very site.
    pub(super) async fn own_form(
        &self,
        exchange: &Exchange,
        parts: &Parts,
        payload: Payload,
    ) -> Result<OwnForm, Refusal> {
        let scripted = parts.headers.contains_key(&X_HEADCOUNT);
        if !is_from(&parts.headers, &exchange.caller.host, scripted) {
            return Err(Refusal::FormForeign);
        }
        let Payload::Read(_, fields) = self.read(parts, payload).await? else {
            return Err(Refusal::FormForeign);
        };
        Ok(OwnForm { fields, scripted })
    }
}

/// Whether a request says that it is from the site `host`, and nothing else. Browsers say so with
/// every form; only scripts and programs may be silent.
fn is_from(headers: &HeaderMap, host: &str, may_be_silent: bool) -> bool {
    let mut sites = headers.get_all(&SEC_FETCH_SITE).iter();
    let mut origins = headers.get_all(ORIGIN).iter();
    let told = headers.contains_key(&SEC_FETCH_SITE) || headers.contains_key(ORIGIN);
    let same = |origin: &str| {
        let origin = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        origin.is_some_and(|origin| !host.is_empty() && origin.eq_ignore_ascii_case(host))
    };
    (told || may_be_silent)
        && sites.all(|site| site == "same-origin")
        && origins.all(|origin| origin.to_str().is_ok_and(same))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_ours_only_if_everything_says_so() {
        let from = |told: &[(&str, &str)], silent: bool| {
            let mut headers = HeaderMap::new();
            for (name, value) in told {
                let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
                headers.append(name, value.parse().unwrap());
            }
            is_from(&headers, "shop.example:8080", silent)
        };
        let ours = ("origin", "https://Shop.example:8080");
        assert!(from(&[ours], false));
        assert!(from(&[ours, ("sec-fetch-site", "same-origin")], false));
        assert!(from(&[("sec-fetch-site", "same-origin")], false));
        assert!(from(&[], true));
        for foreign in [
            &[][..],
            &[("origin", "null")],
            &[("origin", "https://shop.example")],
            &[("origin", "https://shop.example:8080.evil")],
            &[("origin", "shop.example:8080")],
            &[("origin", "https://evil@shop.example:8080")],
            &[ours, ("origin", "https://evil")],
            &[ours, ("sec-fetch-site", "same-site")],
            &[ours, ("sec-fetch-site", "cross-site")],
            &[ours, ("sec-fetch-site", "none")],
        ] {
            assert!(!from(foreign, false), "{foreign:?}");
            assert!(!from(foreign, true) || foreign.is_empty(), "{foreign:?}");
        }
        assert!(!is_from(&HeaderMap::from_iter([(ORIGIN, "http://".parse().unwrap())]), "", false));
    }
}
