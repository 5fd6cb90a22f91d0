//! Whether a preset explains the recording already: the best answer, since presets know more of
//! their framework than one recording shows.

use crate::config;
use crate::rules::preset::PRESETS;

use super::recording::{Phase, Recording};
use super::write::{self, Overrides};
use super::{Findings, Learned, Request, verify};

/// The configuration with the first preset that fits: its credentials are those found, and the
/// recogniser sees with its rules what was done. A logout elsewhere is put beside it.
pub fn fitting(request: &Request, recording: &Recording, findings: &Findings) -> Option<Learned> {
    // Without a failure and a credential too little is known to say that any fits.
    recording.in_phase(Phase::WrongPassword).next()?;
    let login = findings.login.as_ref()?;
    if findings.credentials.is_empty() {
        return None;
    }
    for preset in PRESETS {
        let bare = write::preset(request, recording, findings, preset.name, &Overrides::default());
        let Ok(settings) = config::parse("learned.toml", &bare, &|_| None) else { continue };
        let enforcement = &settings.enforcement;
        let page = login.page.as_deref().unwrap_or(&login.path);
        let login_url = (enforcement.login_url.as_deref() != Some(page)).then_some(page);
        let verified = |overrides: &Overrides<'_>| {
            let toml = write::preset(request, recording, findings, preset.name, overrides);
            let user = request.user.as_deref();
            let faults = verify::check(&toml, recording, user, &findings.names());
            faults.is_empty().then_some(toml)
        };
        let logout = findings.logout.as_ref();
        let at_app_fits = match (&enforcement.app_logout, logout) {
            (Some(known), Some(logout)) => known.path == logout.path,
            _ => true,
        };
        let bare = Overrides { login_url, logout: None };
        let more = Overrides { login_url, logout };
        let toml = at_app_fits.then(|| verified(&bare)).flatten().or_else(|| verified(&more));
        if let Some(toml) = toml {
            let (faults, open) = (Vec::new(), findings.open.clone());
            return Some(Learned { toml, faults, open, preset: Some(preset.name) });
        }
    }
    None
}
