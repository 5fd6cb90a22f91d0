//! A page that tells who is signed in, for `[identity.probe]`: JSON with the name in it, and without
//! it for strangers.

use super::credentials::Trials;
use super::recording::{Phase, Recording};

/// A probe as found.
#[derive(Debug)]
pub struct Probe {
    pub path: String,
    /// The expression that yields the name.
    pub user: String,
    /// What strangers get.
    pub anonymous_status: Option<u16>,
}

/// Finds one among the pages; those that were tried out show what strangers get.
pub fn find(recording: &Recording, trials: &Trials, user: Option<&str>) -> Option<Probe> {
    let user = user?;
    let name_in = |members: &[(String, String)]| {
        let found = members.iter().find(|(_, value)| value.eq_ignore_ascii_case(user));
        found.map(|(pointer, _)| pointer.clone())
    };
    for page in &trials.pages {
        let [one, two] = &page.whole;
        let Some(pointer) = name_in(&one.json).filter(|at| name_in(&two.json).as_ref() == Some(at))
        else {
            continue;
        };
        if name_in(&page.anonymous.json).is_none() && !page.target.contains(['?', ';']) {
            let status = page.anonymous.status;
            let anonymous_status = (status != one.status).then_some(status);
            let (path, user) = (page.target.clone(), format!("rjson:{pointer}"));
            return Some(Probe { path, user, anonymous_status });
        }
    }
    let mut pages = recording.in_phase(Phase::Pages);
    pages.find_map(|page| {
        let pointer = name_in(&page.json())?;
        let fits = page.method == "GET" && page.query().is_none() && page.status == 200;
        let user = format!("rjson:{pointer}");
        fits.then(|| Probe { path: page.path(), user, anonymous_status: None })
    })
}
