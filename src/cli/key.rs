//! `headcount key`: what is in the key file, and how one key follows another.

use std::path::Path;

use http::Method;

use super::remote::{Api, fail, seconds};
use super::{Access, KeyAct, OK, local};
use crate::keyring::file::{self, KeyFile};
use crate::keyring::{KeyError, Keyring};
use crate::settings::StorePlace;
use crate::terminal::{complain, safe, say};

pub(super) fn run(access: &Access, act: KeyAct, drop_earlier: bool) -> u8 {
    let Some(config) = &access.config else { return super::USAGE };
    let settings = match local::load(config) {
        Ok(settings) => settings,
        Err(code) => return code,
    };
    let replicas = matches!(settings.store.place, StorePlace::Postgres(_));
    let path = &settings.store.key_file;
    if act == KeyAct::Rotate && replicas {
        return fail(
            "with several replicas a key has to be known to all before it is used: key stage, then key promote",
        );
    }
    let done = match act {
        KeyAct::Show => Ok(()),
        KeyAct::Promote => file::promote(path),
        KeyAct::Rotate | KeyAct::Stage | KeyAct::Retire => change(access, path, act, drop_earlier),
    };
    match done.and_then(|()| show(path)) {
        Ok(()) => {
            if act != KeyAct::Show {
                complain(after(act, replicas));
            }
            OK
        }
        Err(error) => fail(error.to_string()),
    }
}

/// What may drop the earlier key.
fn change(access: &Access, path: &Path, act: KeyAct, drop_earlier: bool) -> Result<(), KeyError> {
    if KeyFile::read(path)?.has_earlier() {
        complain(format!("headcount: {}", lost(access)));
        if !drop_earlier {
            let why = "the earlier key would be dropped: with --drop-earlier it is";
            return Err(KeyError::Refused(why.to_owned()));
        }
    }
    match act {
        KeyAct::Rotate => file::rotate(path, drop_earlier),
        KeyAct::Stage => file::stage(path, drop_earlier),
        _ => file::retire(path),
    }
}

/// What goes with the earlier key, as far as anybody can tell.
fn lost(access: &Access) -> String {
    let asked = Api::open(access).and_then(|api| {
        api.call(Method::GET, "/api/v1/keys")
            .map_err(|message| fail(format!("cannot ask what would be lost: {message}")))
    });
    let Ok(keys) = asked else {
        return "sessions that nobody used since the last rotation will be lost".to_owned();
    };
    let since = keys["since"].as_str().map(seconds).unwrap_or_default();
    format!(
        "{} live sessions that nobody used since {} will be lost, and {} tombstones",
        keys["unseen_live"],
        safe(&since),
        keys["unseen_tombstones"]
    )
}

fn show(path: &Path) -> Result<(), KeyError> {
    // Not `open`: that would make a key where there is none.
    KeyFile::read(path)?;
    let keyring = Keyring::open(path)?;
    say(format!("{}  used", keyring.fingerprint()));
    if let Some(other) = keyring.other() {
        let what = if keyring.is_promoted() { "accepted, earlier" } else { "accepted, next" };
        say(format!("{}  {what}", other.fingerprint()));
    }
    Ok(())
}

fn after(act: KeyAct, replicas: bool) -> &'static str {
    match (act, replicas) {
        (KeyAct::Stage, true) => {
            "Copy the key file to every replica and reload each; then key promote."
        }
        (_, true) => "Copy the key file to every replica and reload each.",
        (KeyAct::Stage, false) => "Reload Headcount; then key promote, and reload it again.",
        (_, false) => "Reload Headcount: it goes on with the keys it has read until then.",
    }
}
