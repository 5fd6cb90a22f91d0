//! What the audit trail says: one event per fact, with stable field names (an interface).
//! Building, escaping and publishing live here; nothing here decides or does I/O beyond one log line.

mod trail;

use std::fmt::Write as _;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;
use utoipa::ToSchema;

pub use trail::{EndsSlot, Noted, SLOT_MS, SLOTS, Trail};

use crate::geo::{Place, Places};
use crate::metrics::Metrics;
use crate::session::{Client, EndReason, Initiator, Mode, SessionId, Timestamp, User};

/// The kinds of event. The names are an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    SessionCreated,
    SessionRenewed,
    SessionEnded,
    SessionDenied,
    SessionUseAfterEnd,
    SessionClientChanged,
    SessionDisowned,
    LoginFailed,
    LoginUnattributed,
    LimitChanged,
    ConfigReloaded,
    BackupTaken,
    UserExported,
    UserErased,
}

impl EventKind {
    /// Every kind.
    pub const ALL: [Self; 14] = [
        Self::SessionCreated,
        Self::SessionRenewed,
        Self::SessionEnded,
        Self::SessionDenied,
        Self::SessionUseAfterEnd,
        Self::SessionClientChanged,
        Self::SessionDisowned,
        Self::LoginFailed,
        Self::LoginUnattributed,
        Self::LimitChanged,
        Self::ConfigReloaded,
        Self::BackupTaken,
        Self::UserExported,
        Self::UserErased,
    ];

    /// The stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SessionCreated => "session_created",
            Self::SessionRenewed => "session_renewed",
            Self::SessionEnded => "session_ended",
            Self::SessionDenied => "session_denied",
            Self::SessionUseAfterEnd => "session_use_after_end",
            Self::SessionClientChanged => "session_client_changed",
            Self::SessionDisowned => "session_disowned",
            Self::LoginFailed => "login_failed",
            Self::LoginUnattributed => "login_unattributed",
            Self::LimitChanged => "limit_changed",
            Self::ConfigReloaded => "config_reloaded",
            Self::BackupTaken => "backup_taken",
            Self::UserExported => "user_exported",
            Self::UserErased => "user_erased",
        }
    }

    /// The kind with this stable name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

/// One line of the audit trail. Strings from the wire are escaped and cut when it is printed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct AuditEvent {
    pub event: EventKind,
    pub time: Timestamp,
    pub app: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<EndReason>,
    pub initiator: Initiator,
    /// The session that took the place of this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by_session: Option<SessionId>,
    /// The name of the admin token that caused it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// The user's sessions after the event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
    /// The user's limit; absent when unlimited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<String>,
    /// Where the address is, as far as it is known: two letters (ISO 3166-1), and in English. Filled in
    /// by the audit log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub country: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub city: Option<String>,
    /// The client before, where it has changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous_address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous_user_agent: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous_country: Option<String>,
    pub mode: Mode,
    pub node: String,
}

/// Longest user name printed in an event, in characters.
const USER_CHARS_MAX: usize = 256;

impl AuditEvent {
    /// An event with only the fields every event has. `app` and `node` are filled in by the audit
    /// log that prints it.
    pub fn new(event: EventKind, time: Timestamp, initiator: Initiator, mode: Mode) -> Self {
        Self {
            event,
            time,
            app: String::new(),
            user: None,
            session: None,
            reason: None,
            initiator,
            by_session: None,
            by: None,
            count: None,
            limit: None,
            client_address: None,
            user_agent: None,
            country: None,
            city: None,
            previous_address: None,
            previous_user_agent: None,
            previous_country: None,
            mode,
            node: String::new(),
        }
    }

    /// With the user's name, escaped and cut to 256 characters.
    #[must_use]
    pub fn user(mut self, user: Option<&User>) -> Self {
        self.user = user.map(|user| user_in_events(user));
        self
    }

    /// With the session concerned.
    #[must_use]
    pub fn session(mut self, session: SessionId) -> Self {
        self.session = Some(session);
        self
    }

    /// With the reason a session ended for.
    #[must_use]
    pub fn reason(mut self, reason: EndReason) -> Self {
        self.reason = Some(reason);
        self
    }

    /// With the client concerned.
    #[must_use]
    pub fn client(mut self, client: &Client) -> Self {
        self.client_address.clone_from(&client.address);
        self.user_agent = client.user_agent.as_deref().map(|agent| escape(agent, USER_CHARS_MAX));
        self
    }
}

impl AuditEvent {
    /// Notes the client that was there before.
    pub fn previous(&mut self, client: &Client) {
        self.previous_address.clone_from(&client.address);
        let agent = client.user_agent.as_deref();
        self.previous_user_agent = agent.map(|agent| escape(agent, USER_CHARS_MAX));
    }

    /// Fills in where the addresses are.
    fn locate(&mut self, places: &Places) {
        let of = |address: Option<&str>| address.and_then(|address| places.of(address));
        let place = of(self.client_address.as_deref()).unwrap_or_default();
        Place { country: self.country, city: self.city } = place;
        self.previous_country =
            of(self.previous_address.as_deref()).and_then(|place| place.country);
    }
}

/// The target of audit lines.
pub const TARGET: &str = "headcount::audit";

/// The name of the field of a log event on [`TARGET`] that holds the whole audit event as one JSON object.
pub const FIELD: &str = "audit";

/// Where events go: one log line each, one metric, and whoever listens.
pub struct AuditLog {
    app: String,
    node: String,
    tap: Option<broadcast::Sender<AuditEvent>>,
    metrics: Arc<Metrics>,
    /// What tells where addresses are.
    pub places: Arc<Places>,
    /// The latest of them.
    pub trail: Trail,
}

impl AuditLog {
    /// The trail of `app` on this `node`. A slow listener of `tap` misses events, nothing else.
    pub fn new(
        app: String,
        node: String,
        tap: Option<broadcast::Sender<AuditEvent>>,
        metrics: Arc<Metrics>,
        places: Arc<Places>,
    ) -> Self {
        for kind in EventKind::ALL {
            metrics.audit_event(kind.as_str());
        }
        Self { app, node, tap, metrics, places, trail: Trail::default() }
    }

    /// Publishes what has happened; call it after the commit.
    pub fn publish(&self, mut event: AuditEvent) {
        event.app.clone_from(&self.app);
        event.node.clone_from(&self.node);
        event.locate(&self.places);
        self.metrics.audit_event(event.event.as_str()).inc();
        if event.event == EventKind::SessionEnded
            && event.mode == Mode::Enforce
            && let Some(reason) = event.reason
        {
            self.metrics.sessions_ended.inc(reason);
        }
        if let Ok(line) = serde_json::to_string(&event) {
            tracing::info!(target: TARGET, audit = line.as_str());
        }
        if event.event == EventKind::UserErased {
            // The line names the user, for those who must show that it was done; nothing else does.
            event.user = None;
        }
        self.trail.note(&event);
        if let Some(tap) = &self.tap {
            // Nobody listening is no error.
            let _ = tap.send(event);
        }
    }
}

/// A user's name as events have it.
pub fn user_in_events(user: &str) -> String {
    escape(user, USER_CHARS_MAX)
}

/// Whether a character can hide or break what stands around it on a terminal.
pub fn is_invisible(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
}

/// Makes text from the wire safe to print on one line: control characters, bidirectional overrides
/// and other invisible characters become `\u{…}`; longer text is cut and ends in `…`.
pub fn escape(text: &str, chars_max: usize) -> String {
    let mut out = String::with_capacity(text.len().min(chars_max));
    for (count, character) in text.chars().enumerate() {
        if count == chars_max {
            out.push('…');
            break;
        }
        if is_invisible(character) {
            out.extend(character.escape_unicode());
        } else {
            out.push(character);
        }
    }
    out
}

/// JSON with its invisible characters as escapes. They can only stand inside strings.
pub fn escape_json(json: &str) -> String {
    if !json.contains(is_invisible) {
        return json.to_owned();
    }
    let mut out = String::with_capacity(json.len() + 16);
    for character in json.chars() {
        if is_invisible(character) {
            for unit in character.encode_utf16(&mut [0; 2]) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        } else {
            out.push(character);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_the_wire_never_breaks_a_line() {
        assert_eq!(escape("a\r\nb\u{1b}[31m\u{202e}x", 80), "a\\u{d}\\u{a}b\\u{1b}[31m\\u{202e}x");
        assert_eq!(escape("ééééé", 3), "ééé…");
        assert_eq!(escape("plain", 5), "plain");
    }

    #[test]
    fn publishing_names_the_node_counts_and_tells_listeners() {
        let metrics = Arc::new(Metrics::new());
        let (tap, mut heard) = broadcast::channel(4);
        let log = AuditLog::new(
            "shop".into(),
            "n1".into(),
            Some(tap),
            Arc::clone(&metrics),
            Arc::default(),
        );
        let event = |mode| {
            AuditEvent::new(EventKind::SessionEnded, Timestamp(0), Initiator::Policy, mode)
                .reason(EndReason::Limit)
        };
        log.publish(event(Mode::Enforce));
        log.publish(event(Mode::Observe));
        let first = heard.try_recv().unwrap();
        assert_eq!((first.app.as_str(), first.node.as_str()), ("shop", "n1"));
        assert_eq!(metrics.audit_event("session_ended").get(), 2);
        assert_eq!(metrics.sessions_ended.get(EndReason::Limit), 1, "observed is not ended");
    }
}
