//! What counts of the clients of sessions, and where the groups of their users are told. Values only.

use crate::rules::expression::Expression;

/// `[session.client_change]`: when a session is taken to have another client than before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientChange {
    pub address: AddressChange,
    pub user_agent: AgentChange,
    /// The session ends then; else it is only told.
    pub ends: bool,
}

/// What of an address counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AddressChange {
    Off,
    Exact,
    /// IPv4 /24, IPv6 /48.
    Prefix,
    Country,
}

/// What of a User-Agent counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AgentChange {
    Off,
    Exact,
    /// Browser and system, without their versions.
    Browser,
}

/// `[identity.groups]`: where it says which groups a user is in.
#[derive(Clone, Debug, Default)]
pub struct GroupSources {
    /// At a login: all that yield. A header of the request counts only from a trusted proxy.
    pub login: Vec<Expression>,
    /// In the answer to a probe: all that yield.
    pub probe: Vec<Expression>,
    /// What stands between two groups in one text.
    pub separator: char,
}

impl GroupSources {
    /// Whether the body of a login's answer has to be read.
    pub fn read_answer_body(&self) -> bool {
        self.login.iter().any(Expression::reads_response_body)
    }
}
