//! The admin API's view of a running proxy. Translates calls; decides nothing.

use std::sync::Arc;

use async_trait::async_trait;

use crate::admin::{Control, ControlError, UntrackedUse};
use crate::identity;
use crate::proxy::{Live, Proxy};
use crate::session::{Session, SessionId, Timestamp};
use crate::settings::OnFailure;
use crate::store::{Listing, StoreError};

use super::reload::Reloader;

pub(super) struct AdminControl {
    pub(super) live: Arc<Live>,
    pub(super) reloader: Arc<Reloader>,
}

impl AdminControl {
    fn proxy(&self) -> Arc<Proxy> {
        self.live.now()
    }

    /// With the last-seen time that memory knows before the store does.
    fn fresh(&self, mut session: Session) -> Session {
        if let Some(seen) = self.proxy().registry.last_seen_at(session.id) {
            session.last_seen_at = session.last_seen_at.max(seen);
        }
        session
    }

    fn enforcing(&self) -> Result<(), ControlError> {
        if self.proxy().recorder.enforces() { Ok(()) } else { Err(ControlError::ObserveMode) }
    }
}

#[async_trait]
impl Control for AdminControl {
    async fn list(&self, listing: Listing) -> Result<Vec<Session>, StoreError> {
        let sessions = self.proxy().recorder.store.list(listing).await?;
        Ok(sessions.into_iter().map(|session| self.fresh(session)).collect())
    }

    async fn find(&self, id: SessionId) -> Result<Option<Session>, StoreError> {
        let session = self.proxy().recorder.store.find(id).await?;
        Ok(session.map(|session| self.fresh(session)))
    }

    async fn end(&self, ids: Vec<SessionId>, by: &str) -> Result<u32, ControlError> {
        self.enforcing()?;
        Ok(self.proxy().recorder.end(ids, by).await?)
    }

    async fn end_user(
        &self,
        user: &str,
        except: Option<SessionId>,
        by: &str,
    ) -> Result<u32, ControlError> {
        self.enforcing()?;
        Ok(self.proxy().recorder.end_user(user, except, by).await?)
    }

    fn limit_of(&self, user: &str) -> Option<u32> {
        self.proxy().settings.limits.of(Some(user)).max_sessions
    }

    fn normalize(&self, user: &str) -> String {
        let proxy = self.proxy();
        let settings = &proxy.settings;
        identity::canonical(&settings.normalize, &settings.aliases, user)
    }

    fn expires_at(&self, session: &Session) -> Option<Timestamp> {
        let proxy = self.proxy();
        let limit = proxy.settings.limits.of(session.user.as_deref());
        let idle = limit.idle_timeout_ms.map(|ms| session.last_seen_at.plus_ms(ms));
        let absolute = limit.absolute_timeout_ms.map(|ms| session.renewed_at.plus_ms(ms));
        match (idle, absolute) {
            (Some(idle), Some(absolute)) => Some(idle.min(absolute)),
            (idle, absolute) => idle.or(absolute),
        }
    }

    async fn reload(&self) -> Result<String, String> {
        self.reloader.reload().await.map_err(|error| error.to_string())
    }

    fn gets_on(&self) -> bool {
        self.reloader.edge.gets_on()
    }

    async fn ready(&self) -> Result<Option<String>, String> {
        let proxy = self.proxy();
        if proxy.lifecycle.is_stopping() {
            return Err("draining".to_owned());
        }
        let store = &proxy.recorder.store;
        let why = if store.is_stale() {
            "the store was not heard for longer than store.grace".to_owned()
        } else if let Err(error) = store.ping().await {
            error.to_string()
        } else {
            return Ok(None);
        };
        match proxy.settings.store.on_failure {
            OnFailure::Closed => Err(why),
            // It goes on: taken out of service it would be as good as closed.
            OnFailure::Open => Ok(Some(format!("{why}; on_failure is open: no limit is held"))),
        }
    }

    fn untracked(&self) -> Vec<UntrackedUse> {
        let seen = self.proxy().registry.untracked().into_iter();
        seen.map(|seen| UntrackedUse {
            first_seen_at: seen.first_seen,
            last_seen_at: seen.last_seen,
            client: seen.client,
        })
        .collect()
    }
}
