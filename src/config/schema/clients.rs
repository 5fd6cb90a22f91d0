//! Keys and defaults of `[session.client_change]`, and what of it contradicts the rest.

use crate::settings::{AddressChange, AgentChange, ClientAddress, ClientChange};

use super::super::diagnostic::Problems;
use super::super::reader::{At, Table};

/// As written; whether it can be held hangs on what is recorded of a client.
pub(super) struct Written {
    address: Option<At<AddressChange>>,
    user_agent: AgentChange,
    ends: bool,
}

/// `[session.client_change]`.
pub(super) fn client_change(session: &mut Table<'_>) -> Written {
    let mut table = session.table("client_change");
    let addresses = [
        ("off", AddressChange::Off),
        ("country", AddressChange::Country),
        ("prefix", AddressChange::Prefix),
        ("exact", AddressChange::Exact),
    ];
    let agents = [
        ("off", AgentChange::Off),
        ("browser", AgentChange::Browser),
        ("exact", AgentChange::Exact),
    ];
    let written = Written {
        address: table.choice_if_any("address", &addresses, &[]),
        user_agent: table.choice("user_agent", AgentChange::Off, &agents, &[]),
        ends: false,
    };
    let leads_to = [("notify", false), ("end", true)];
    let on_change = table.choice_if_any("on_change", &leads_to, &[]);
    if let Some(on_change) = on_change.as_ref().filter(|on_change| on_change.value)
        && written.rule().is_none()
    {
        let what = "has no effect: neither `address` nor `user_agent` is looked at";
        table.wrong("on_change", &on_change.at, what, "one of the two, or neither of the three");
    }
    table.finish();
    Written { ends: on_change.is_some_and(|on_change| on_change.value), ..written }
}

impl Written {
    fn rule(&self) -> Option<ClientChange> {
        let address = self.address.as_ref().map_or(AddressChange::Off, |at| at.value);
        let (user_agent, ends) = (self.user_agent, self.ends);
        let off = address == AddressChange::Off && user_agent == AgentChange::Off;
        (!off).then_some(ClientChange { address, user_agent, ends })
    }

    /// Complains about what cannot be told from what is recorded; `None`: nothing is looked at.
    pub(super) fn checked(
        &self,
        problems: &Problems,
        recorded: ClientAddress,
        has_places: bool,
    ) -> Option<ClientChange> {
        let rule = self.rule()?;
        let Some(At { value, at }) = &self.address else { return Some(rule) };
        let key = "`session.client_change.address`";
        let enough = match value {
            AddressChange::Off => true,
            AddressChange::Exact => recorded == ClientAddress::Full,
            AddressChange::Prefix | AddressChange::Country => {
                matches!(recorded, ClientAddress::Full | ClientAddress::Prefix)
            }
        };
        if !enough {
            let what = format!("{key} asks for more than `log.client_address` lets be recorded");
            let allowed =
                "log.client_address = \"full\", or \"prefix\" for \"prefix\" and \"country\"";
            problems.wrong(at, what, allowed);
        } else if *value == AddressChange::Country && !has_places {
            let what = format!("{key} = \"country\" needs a database that tells countries");
            problems.wrong(at, what, "[geo] database = \"FILE.mmdb\"");
        }
        Some(rule)
    }
}
