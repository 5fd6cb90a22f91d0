//! What the page of a user's own sessions shows, as values; and how a session's client is named there.
//! Knows no HTTP.

use minijinja::{Value, context};
use serde::{Deserialize, Serialize};

use crate::device;
use crate::session::{Client, SessionId, Timestamp};

/// Longest name of a device on a page, in characters.
const DEVICE_CHARS_MAX: usize = 120;

/// The words of the page.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Words {
    pub(super) title: String,
    pub(super) intro: String,
    limit: String,
    here: String,
    unknown: String,
    seen: String,
    since: String,
    from: String,
    end: String,
    end_label: String,
    leave: String,
    end_others: String,
    alone: String,
    unfamiliar: String,
    more: String,
    ended_none: String,
    ended_one: String,
    ended_many: String,
    observed: String,
}

/// The page for one user.
#[derive(Debug, Default, Serialize)]
pub struct Sessions {
    /// As people know it.
    pub user: String,
    /// Where the forms go; ends in `/`.
    pub folder: String,
    /// What they carry.
    pub csrf: String,
    /// Sessions can be ended here.
    pub can_end: bool,
    /// `None`: unlimited.
    pub limit: Option<u32>,
    /// So many have just been ended.
    pub ended: Option<u32>,
    /// How many there are beside those in the list.
    pub more: usize,
    /// The one that is looking first, then as they were used last.
    pub list: Vec<Row>,
}

impl Sessions {
    /// What the template is filled in with.
    pub(super) fn facts(&self, words: &Words, time: impl Fn(Timestamp) -> String) -> Value {
        let told = self.ended.map(|ended| match ended {
            0 => words.ended_none.clone(),
            1 => words.ended_one.clone(),
            many => words.ended_many.replace("{count}", &many.to_string()),
        });
        let rows = self.list.iter().map(|row| {
            let seen = time(row.last_seen_at);
            let device = row.client.name.as_deref().unwrap_or(&words.unknown);
            // What the client sent goes in last.
            let label = words.end_label.replace("{time}", &seen).replace("{device}", device);
            context! {
                id => row.id.to_string(),
                current => row.current,
                name => row.client.name.as_deref(),
                address => row.client.address.as_deref(),
                place => row.client.place(),
                since => time(row.created_at),
                seen,
                label,
            }
        });
        context! {
            told,
            user => &self.user,
            folder => &self.folder,
            csrf => &self.csrf,
            can_end => self.can_end,
            limit => self.limit.map(|limit| limit.to_string()),
            more => (self.more > 0).then(|| self.more.to_string()),
            alone => self.more == 0 && self.list.iter().all(|row| row.current),
            list => rows.collect::<Vec<Value>>(),
        }
    }

    /// One with everything, and one with as little as there can be.
    pub(super) fn samples() -> [Self; 2] {
        let row = |current, client| Row {
            id: SessionId([0; 16]),
            current,
            created_at: Timestamp(0),
            last_seen_at: Timestamp(0),
            expires_at: None,
            client,
        };
        let known = Described {
            name: Some("-".to_owned()),
            address: Some("-".to_owned()),
            user_agent: Some("-".to_owned()),
            device: Some("-".to_owned()),
            country: Some("-".to_owned()),
            city: Some("-".to_owned()),
        };
        let full = Self {
            user: "-".to_owned(),
            folder: "/".to_owned(),
            csrf: "-".to_owned(),
            can_end: true,
            limit: Some(2),
            ended: Some(1),
            more: 1,
            list: vec![row(true, known.clone()), row(false, known)],
        };
        [full, Self { list: vec![row(true, Described::default())], ..Self::default() }]
    }
}

/// One live session.
#[derive(Debug, Serialize)]
pub struct Row {
    pub id: SessionId,
    /// It is the one that is looking.
    pub current: bool,
    pub created_at: Timestamp,
    pub last_seen_at: Timestamp,
    /// When it will be over if nobody uses it.
    pub expires_at: Option<Timestamp>,
    pub client: Described,
}

/// A session's client as its user is told of it. The one place that says how.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Described {
    /// What a page calls it; `None`: nothing is known.
    #[serde(skip_serializing)]
    pub name: Option<String>,
    pub address: Option<String>,
    pub user_agent: Option<String>,
    pub device: Option<String>,
    pub country: Option<String>,
    pub city: Option<String>,
}

impl Described {
    /// `address_readable`: what is recorded is an address or a network, not a hash.
    pub fn of(client: &Client, address_readable: bool) -> Self {
        let user_agent = client.user_agent.clone().filter(|agent| !agent.is_empty());
        let device = user_agent.as_deref().map(device::describe);
        let known = device.as_ref().filter(|device| device.is_known());
        let as_sent = |agent: &str| match agent.char_indices().nth(DEVICE_CHARS_MAX) {
            Some((end, _)) => format!("{}…", &agent[..end]),
            None => agent.to_owned(),
        };
        let name = known.map(ToString::to_string).or_else(|| user_agent.as_deref().map(as_sent));
        let address = client.address.clone().filter(|_| address_readable);
        let device = device.and_then(|device| device.name());
        Self { name, address, user_agent, device, ..Self::default() }
    }

    /// `Berlin, DE`, as far as the place is known.
    fn place(&self) -> Option<String> {
        let parts: Vec<&str> =
            [&self.city, &self.country].into_iter().flatten().map(|it| &**it).collect();
        (!parts.is_empty()).then(|| parts.join(", "))
    }
}

/// What a form needs with which a user says that an end was somebody else's doing.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct NotMe<'a> {
    pub action: &'a str,
    pub session: &'a str,
    pub token: &'a str,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_named_by_what_is_known_of_it() {
        let client = |agent: &str| Client {
            address: Some("192.0.2.1".to_owned()),
            user_agent: Some(agent.to_owned()),
        };
        let known = Described::of(&client("Firefox"), true);
        assert_eq!(
            (known.name.as_deref(), known.address.as_deref()),
            (Some("Firefox"), Some("192.0.2.1"))
        );
        let firefox = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";
        assert_eq!(Described::of(&client(firefox), true).name.unwrap(), "Firefox on Linux");
        let here = Described { city: Some("Bern".to_owned()), ..Described::default() };
        assert_eq!(here.place().unwrap(), "Bern");
        let here = Described { country: Some("CH".to_owned()), ..here };
        assert_eq!(here.place().unwrap(), "Bern, CH");
        assert_eq!(Described::of(&client("Firefox"), false).address, None);
        assert_eq!(Described::of(&client(""), true).name, None);
        let long = Described::of(&client(&"é".repeat(200)), true);
        assert_eq!(long.name.unwrap().chars().count(), DEVICE_CHARS_MAX + 1);
        assert_eq!(long.user_agent.unwrap().chars().count(), 200);
    }
}
