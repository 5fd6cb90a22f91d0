//! Logins in a browser that is signed in already, where the app lets only guests sign in: it
//! answers with the redirect of a success, and has not looked at the password.

use super::{Exchange, Worker};
use crate::policy::Standing;
use crate::refusal::Refusal;

impl Worker {
    /// Whether a login that seems to have succeeded came over a live session of the user it names,
    /// and so changes nothing. Under another name nobody can tell whether the app has looked at the
    /// password: the session, or one somewhere else, would get the wrong owner.
    pub(super) fn is_no_guest(
        &self,
        exchange: &Exchange,
        user: Option<&str>,
    ) -> Result<bool, Refusal> {
        let proxy = &*self.proxy;
        let entry = exchange.presented.entry.as_ref();
        let Some(entry) = entry.filter(|_| exchange.presented.standing == Standing::Live) else {
            return Ok(false);
        };
        let named = user.and_then(|raw| proxy.user(exchange, raw));
        if entry.user == named || !proxy.recorder.enforces() {
            return Ok(true);
        }
        Err(Refusal::LoginOverSession)
    }
}
