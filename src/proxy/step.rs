//! A step of a login that takes several: the name given in it is remembered for the browser, until
//! the login is done or given up. It counts nothing, ends nothing and makes no session.

use http::Response;

use super::{Exchange, Proxy, Worker};
use crate::body::{AppBody, Body};
use crate::credentials::Bare;
use crate::issue::Changes;
use crate::policy::Standing;
use crate::refusal::Refusal;
use crate::rules::Role;
use crate::session::SessionKey;
use crate::settings::Binding;
use crate::stamp::{self, Lineage};

impl Worker {
    /// Relays the answer of a step and remembers its user under what the browser presents next.
    pub(super) async fn finish_step(
        &self,
        mut exchange: Exchange,
        user: Option<String>,
        changes: &Changes,
        response: Response<AppBody>,
    ) -> Result<Response<Body>, Refusal> {
        let proxy = &*self.proxy;
        proxy.learn(&exchange, changes);
        let Changes { issued, deleted, .. } = changes;
        let replaced = |name: &String| {
            issued.iter().any(|issued| issued.name == *name) || deleted.contains(name)
        };
        let kept: Vec<Bare> =
            exchange.sent.iter().filter(|bare| !replaced(&bare.name)).cloned().collect();
        let Some(user) = user.filter(|_| !issued.is_empty() || !kept.is_empty()) else {
            tracing::info!(
                path = exchange.path,
                "a step of a login named nobody, or set no cookie to remember it by"
            );
            return self.relay(exchange, response).await;
        };
        let site = proxy.site(&exchange);
        let live = exchange.presented.standing == Standing::Live;
        let signed = proxy.settings.session.binding == Binding::Signed;
        let begun = signed && !live && exchange.presented.lineage.is_none();
        if begun {
            let lineage = Lineage::anonymous().map_err(|_| Refusal::InternalError)?;
            exchange.presented.lineage = Some(lineage);
        }
        let lineage = exchange.presented.lineage;
        let keys = proxy.step_keys(&exchange, lineage, issued.iter().chain(&kept));
        let dropped = proxy.steps.remember(&keys, &user, proxy.clock.now());
        proxy.metrics.steps_dropped.inc_by(dropped);
        let mut response = self.relay(exchange, response).await?;
        if let Some(lineage) = lineage.filter(|_| begun) {
            // Cookies from before us carry no lineage yet: the next step would be a stranger's.
            for bare in &kept {
                let headers = response.headers_mut();
                proxy.issuer(site).reissue(headers, bare, lineage, &proxy.shapes);
            }
        }
        Ok(response)
    }
}

impl Proxy {
    /// The user that an earlier step of this browser named.
    pub(super) fn named_in_step(&self, exchange: &Exchange) -> Option<String> {
        if self.site(exchange).rules.steps.is_empty() {
            return None;
        }
        self.steps.user(&self.steps_of(exchange), self.clock.now())
    }

    /// What earlier steps of this browser are remembered under.
    pub(super) fn steps_of(&self, exchange: &Exchange) -> Vec<SessionKey> {
        self.step_keys(exchange, exchange.presented.lineage, exchange.sent.iter())
    }

    /// The lineage, and the values of session cookies that carry none.
    fn step_keys<'b>(
        &self,
        exchange: &Exchange,
        lineage: Option<Lineage>,
        cookies: impl Iterator<Item = &'b Bare>,
    ) -> Vec<SessionKey> {
        let (settings, rules) = (&self.settings, self.site(exchange).rules);
        let bare = cookies.filter(|bare| {
            let credential = rules.credential(&bare.name);
            let session = credential.is_some_and(|credential| credential.role == Role::Session);
            let stamped = settings.session.binding == Binding::Signed
                && stamp::fits(bare.name.len() + 1 + bare.value.len());
            session && !stamped
        });
        let key = |bare| self.keys(exchange).of_bare(bare).0;
        lineage.map(Lineage::key).into_iter().chain(bare.map(key)).collect()
    }
}
