//! Sessions and limits as the API shows them. Shapes only.

use serde::Serialize;
use utoipa::ToSchema;

use crate::admin::{Control, UntrackedUse};
use crate::device::{self, DeviceClass};
use crate::session::{
    Ceiling, Client, EndReason, Ending, Session, SessionId, Timestamp, UserLimit,
};

/// One client's logged-in relation with the app.
#[derive(Serialize, ToSchema)]
#[schema(as = Session)]
pub(super) struct SessionView {
    /// Null for an untracked credential: it has no session.
    #[schema(required)]
    id: Option<SessionId>,
    /// Null: a login whose user's name could not be found.
    #[schema(required)]
    user: Option<String>,
    state: State,
    created_at: Timestamp,
    last_seen_at: Timestamp,
    /// When it will be over if nobody uses it; null: never, or it is over.
    #[schema(required)]
    expires_at: Option<Timestamp>,
    client: ClientView,
    /// The user's groups at the last login with it, where a source of them is configured.
    groups: Vec<String>,
    #[schema(required)]
    end: Option<EndView>,
    /// In observe mode: how it would have ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    would_end: Option<EndView>,
}

#[derive(Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = SessionState)]
pub(super) enum State {
    Live,
    Ended,
    Untracked,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Client)]
struct ClientView {
    #[schema(required)]
    address: Option<String>,
    #[schema(required)]
    user_agent: Option<String>,
    /// Browser and system by their User-Agent, as in "Firefox on Windows"; null: it tells neither.
    #[schema(required)]
    device: Option<String>,
    /// Null: there is no User-Agent.
    #[schema(required)]
    device_class: Option<DeviceClass>,
    /// Where the address is, two letters (ISO 3166-1); null: not known, or no database is configured.
    #[schema(required)]
    country: Option<String>,
    /// In English; null as well where the database has countries only.
    #[schema(required)]
    city: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = End)]
struct EndView {
    reason: EndReason,
    at: Timestamp,
    /// The name of the admin token that ended it.
    #[schema(required)]
    by: Option<String>,
    /// The session that took its place.
    #[schema(required)]
    by_session: Option<SessionId>,
}

/// A limit set for one user while Headcount runs.
#[derive(Serialize, ToSchema)]
#[schema(as = UserLimit)]
pub(super) struct LimitView {
    user: String,
    /// Null: unlimited.
    #[schema(required, minimum = 1)]
    max_sessions: Option<u32>,
    set_at: Timestamp,
    /// The name of the admin token that set it.
    set_by: String,
}

impl From<UserLimit> for LimitView {
    fn from(limit: UserLimit) -> Self {
        let max_sessions = match limit.ceiling {
            Ceiling::Sessions(max) => Some(max),
            Ceiling::Unlimited | Ceiling::Configured => None,
        };
        let UserLimit { user, set_at, set_by, .. } = limit;
        Self { user: user.to_string(), max_sessions, set_at, set_by }
    }
}

impl ClientView {
    fn of(client: Client, control: &dyn Control) -> Self {
        let Client { address, user_agent } = client;
        let device = user_agent.as_deref().map(device::describe);
        let place = address.as_deref().and_then(|address| control.place_of(address));
        let (country, city) = place.map_or((None, None), |place| (place.country, place.city));
        let (device, device_class) =
            device.map_or((None, None), |device| (device.name(), Some(device.class)));
        Self { address, user_agent, device, device_class, country, city }
    }
}

impl From<Ending> for EndView {
    fn from(end: Ending) -> Self {
        Self { reason: end.reason, at: end.at, by: end.by, by_session: end.by_session }
    }
}

impl SessionView {
    pub(super) fn of(session: Session, control: &dyn Control) -> Self {
        let live = session.end.is_none();
        Self {
            id: Some(session.id),
            state: if live { State::Live } else { State::Ended },
            created_at: session.created_at,
            last_seen_at: session.last_seen_at,
            expires_at: if live { control.expires_at(&session) } else { None },
            user: session.user.map(|user| user.to_string()),
            client: ClientView::of(session.client, control),
            groups: session.groups.iter().map(str::to_owned).collect(),
            end: session.end.map(EndView::from),
            would_end: session.would_end.map(EndView::from),
        }
    }

    pub(super) fn of_untracked(seen: UntrackedUse, control: &dyn Control) -> Self {
        Self {
            id: None,
            user: None,
            state: State::Untracked,
            created_at: seen.first_seen_at,
            last_seen_at: seen.last_seen_at,
            expires_at: None,
            client: ClientView::of(seen.client, control),
            groups: Vec::new(),
            end: None,
            would_end: None,
        }
    }
}

pub(super) fn views(sessions: Vec<Session>, control: &dyn Control) -> Vec<SessionView> {
    sessions.into_iter().map(|session| SessionView::of(session, control)).collect()
}
