//! What a client is told whose session is over, or whose credentials contradict each other; and how its
//! browser forgets them.

use http::Response;
use http::header::{CACHE_CONTROL, HeaderValue, WWW_AUTHENTICATE};

use super::{Answered, Exchange, Proxy};
use crate::enforce::{self, Audience};
use crate::issue;
use crate::metrics::RequestOutcome;
use crate::pages::NotMe;
use crate::peer::Peer;
use crate::refusal::Refusal;
use crate::rules::BASIC;
use crate::session::Mode;
use crate::settings::OnEnded;

impl Proxy {
    pub(super) fn tell_ended(&self, exchange: &Exchange) -> Answered {
        let login_url = self.site(exchange).login_url;
        let redirect = self.settings.enforcement.on_ended == OnEnded::Redirect;
        let ending = exchange.presented.ending.as_ref();
        let not_me = ending.and_then(|ending| self.not_me(exchange, ending));
        let not_me =
            not_me.as_ref().map(|(action, session, token)| NotMe { action, session, token });
        let mut response = match (exchange.audience, login_url) {
            (Audience::Page(_), Some(url)) if redirect => enforce::redirect(url),
            (audience, url) => enforce::ended(&self.settings.pages, ending, audience, url, not_me),
        };
        self.expire_dead(exchange, &mut response);
        if exchange.presented.dead.iter().any(|bare| bare.name == BASIC) {
            // So that a browser asks for the password instead of sending it once more.
            let challenge = HeaderValue::from_static("Basic realm=\"session ended\"");
            response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        }
        Answered { response, outcome: RequestOutcome::Ended }
    }

    pub(super) fn tell_ambiguous(&self, exchange: &Exchange, peer: Peer) -> Answered {
        let mut response = self.refuse(Refusal::CredentialsAmbiguous, peer, exchange.audience);
        self.expire_dead(exchange, &mut response);
        Answered { response, outcome: RequestOutcome::Refused }
    }

    /// Lets the browser forget cookies that can never be used again.
    pub(super) fn expire_dead<B>(&self, exchange: &Exchange, response: &mut Response<B>) {
        let names = &exchange.presented.expire;
        if self.settings.switches.mode == Mode::Observe || names.is_empty() {
            return;
        }
        let headers = response.headers_mut();
        issue::expire(headers, self.site(exchange).scope, names, &self.shapes, self.clock.now());
        // A cache that kept this answer would sign other people out.
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
}
