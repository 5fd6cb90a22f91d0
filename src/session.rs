//! The nouns: users, sessions, keys, times. Plain values; no I/O, no clock, no decisions.

mod groups;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer};
use utoipa::ToSchema;

pub use self::groups::{GROUP_CHARS_MAX, GROUPS_MAX, Groups};

/// Milliseconds since the Unix epoch, UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, ToSchema)]
#[schema(value_type = String, format = DateTime)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// This time plus `ms` milliseconds, saturating.
    #[must_use]
    pub fn plus_ms(self, ms: i64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Milliseconds from `earlier` to this time; negative if `earlier` is later.
    pub fn since_ms(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// RFC 3339 in UTC with milliseconds, as events and the admin API print it.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = i128::from(self.0) * 1_000_000;
        let time = time::OffsetDateTime::from_unix_timestamp_nanos(nanos)
            .unwrap_or(time::OffsetDateTime::UNIX_EPOCH);
        write!(
            f,
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
            time.year(),
            u8::from(time.month()),
            time.day(),
            time.hour(),
            time.minute(),
            time.second(),
            time.millisecond()
        )
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ToSchema)]
        #[schema(value_type = String, pattern = "^[0-9a-f]{32}$")]
        pub struct $name(pub [u8; 16]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl TryFrom<&[u8]> for $name {
            type Error = std::array::TryFromSliceError;
            fn try_from(bytes: &[u8]) -> Result<Self, Self::Error> {
                bytes.try_into().map(Self)
            }
        }
    };
}

hex_id! {
    /// The public name of a session: random, unrelated to any token, safe to print.
    SessionId
}
hex_id! {
    /// What a token is known by: its keyed hash, or the id of a signed lineage. Never the token.
    SessionKey
}

impl FromStr for SessionId {
    type Err = ();

    /// Exactly 32 hexadecimal digits.
    fn from_str(text: &str) -> Result<Self, ()> {
        if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(());
        }
        let mut bytes = [0; 16];
        for (slot, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
            let pair = std::str::from_utf8(pair).map_err(drop)?;
            *slot = u8::from_str_radix(pair, 16).map_err(drop)?;
        }
        Ok(Self(bytes))
    }
}

impl Serialize for SessionId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The canonical name of an account, after normalisation.
pub type User = Arc<str>;

/// Why a session ended. The names are an interface: events, API and store use them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// A login over the limit: this session was evicted, or this login was denied.
    Limit,
    /// The user logged out.
    Logout,
    /// No request for longer than `idle_timeout`.
    IdleTimeout,
    /// Older than `absolute_timeout`.
    AbsoluteTimeout,
    /// Ended through the admin API.
    Admin,
    /// Ended by the user on the self-service page.
    SelfService,
    /// The user's password changed elsewhere.
    PasswordChange,
    /// Another user logged in with the same browser.
    Replaced,
    /// Its requests came from another client than before.
    ClientChanged,
    /// The app itself dropped it, or nobody received it.
    App,
}

impl EndReason {
    /// Every reason, in the order of the enum.
    pub const ALL: [Self; 10] = [
        Self::Limit,
        Self::Logout,
        Self::IdleTimeout,
        Self::AbsoluteTimeout,
        Self::Admin,
        Self::SelfService,
        Self::PasswordChange,
        Self::Replaced,
        Self::ClientChanged,
        Self::App,
    ];

    /// The stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Limit => "limit",
            Self::Logout => "logout",
            Self::IdleTimeout => "idle_timeout",
            Self::AbsoluteTimeout => "absolute_timeout",
            Self::Admin => "admin",
            Self::SelfService => "self_service",
            Self::PasswordChange => "password_change",
            Self::Replaced => "replaced",
            Self::ClientChanged => "client_changed",
            Self::App => "app",
        }
    }

    /// The reason with this stable name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == name)
    }
}

/// Who caused a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Initiator {
    /// A limit or a timeout.
    Policy,
    /// The user, by logging in, logging out or changing the password.
    User,
    /// Somebody with an admin token.
    Admin,
    /// Headcount itself.
    System,
}

impl Initiator {
    /// Every initiator.
    pub const ALL: [Self; 4] = [Self::Policy, Self::User, Self::Admin, Self::System];

    /// The stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Policy => "policy",
            Self::User => "user",
            Self::Admin => "admin",
            Self::System => "system",
        }
    }

    /// The initiator with this stable name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|initiator| initiator.as_str() == name)
    }
}

/// Whether decisions take effect (`[enforcement] mode`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Decisions take effect.
    #[serde(rename = "enforced")]
    Enforce,
    /// Decisions are recorded and logged, nothing else.
    #[serde(rename = "would_have")]
    Observe,
}

/// The client of a session as recorded: already cut and made anonymous as `[log] client_address` says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Client {
    /// Address, prefix or hash; at most 64 bytes.
    pub address: Option<String>,
    /// User-Agent, cut to 256 bytes.
    pub user_agent: Option<String>,
}

/// A limit set for one user while Headcount runs; it beats what the configuration says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserLimit {
    pub user: User,
    pub ceiling: Ceiling,
    pub set_at: Timestamp,
    /// The name of the admin token that set it.
    pub set_by: String,
}

/// How many sessions such a limit allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ceiling {
    /// It was taken back: what is configured counts.
    Configured,
    Unlimited,
    /// At least 1.
    Sessions(u32),
}

/// How a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    pub at: Timestamp,
    pub reason: EndReason,
    /// The name of the admin token that ended it.
    pub by: Option<String>,
    /// The session that took its place.
    pub by_session: Option<SessionId>,
}

/// One client's logged-in relation with the app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    pub id: SessionId,
    /// `None`: a login whose user name could not be found (`unattributed`).
    pub user: Option<User>,
    pub created_at: Timestamp,
    /// The last login with this session; the absolute timeout counts from here.
    pub renewed_at: Timestamp,
    pub last_seen_at: Timestamp,
    /// Strictly increasing per store; breaks ties. 0 until the store assigns it.
    pub login_seq: i64,
    /// Strictly increasing per store; later states replace earlier ones. 0 until the store assigns it.
    pub change_seq: i64,
    pub client: Client,
    /// Of the user, at the last login with it.
    pub groups: Groups,
    pub end: Option<Ending>,
    /// In observe mode: how it would have ended. Not counted against the limit any more.
    pub would_end: Option<Ending>,
}

impl Session {
    /// One of which no more is known than that it has ended.
    pub fn ended_as(id: SessionId, user: Option<User>, change_seq: i64, end: Ending) -> Self {
        let at = end.at;
        Self {
            id,
            user,
            created_at: at,
            renewed_at: at,
            last_seen_at: at,
            login_seq: 0,
            change_seq,
            client: Client::default(),
            groups: Groups::default(),
            end: Some(end),
            would_end: None,
        }
    }

    /// Neither ended nor, in observe mode, as good as ended.
    pub fn counts(&self) -> bool {
        self.end.is_none() && self.would_end.is_none()
    }
}

/// What presenting a key means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyUse {
    /// Presenting it is using the session.
    Bearer,
    /// Replaced by a login of the same user in the same browser: counts as the session for
    /// `rotation_grace`, then nothing.
    Superseded,
    /// Never a way in: a pre-login lineage, or the bare value of a cookie that was issued stamped.
    Fenced,
}

impl KeyUse {
    /// The stable name, as stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bearer => "bearer",
            Self::Superseded => "superseded",
            Self::Fenced => "fenced",
        }
    }

    /// The use with this stable name.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Bearer, Self::Superseded, Self::Fenced]
            .into_iter()
            .find(|key_use| key_use.as_str() == name)
    }
}

/// A key of a session. For a signed lineage `exact` equals `key`; for a cookie known by its value
/// `key` is the hash of its canonical spelling and `exact` the hash of the very bytes issued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    pub key: SessionKey,
    pub exact: SessionKey,
    pub session: SessionId,
    pub key_use: KeyUse,
    /// When it got this use.
    pub since: Timestamp,
}
