//! The commands that work on a configuration or run something. Each prints what it has to say and
//! returns the exit code.

use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;

use tokio::signal::unix::{SignalKind, signal};

use super::{FAILED, OK, USAGE};
use crate::lifecycle::Lifecycle;
use crate::listener::Inherited;
use crate::pages::TEMPLATES;
use crate::rules::preset::{self, PRESETS};
use crate::settings::{ClientAddress, LogFormat, LogSettings, Settings};
use crate::terminal::{complain, safe, say};
use crate::{config, logging, server};

/// The environment variable that sets what is logged.
const LOG_ENV: &str = "HEADCOUNT_LOG";

pub(super) fn demo(exit: bool, port: u16) -> u8 {
    let log = LogSettings { format: LogFormat::Pretty, client_address: ClientAddress::Full };
    // The story prints the audit trail itself.
    let _guard = logging::init(log, LOG_ENV, "warn");
    match run(crate::demo::run(exit, port)) {
        Ok(true) => OK,
        Ok(false) => FAILED,
        Err(code) => code,
    }
}

pub(super) fn serve(config: &Path) -> u8 {
    let inherited = match Inherited::from_env() {
        Ok(inherited) => inherited,
        Err(error) => {
            complain(format!("headcount: a socket that was passed on cannot be used: {error}"));
            return FAILED;
        }
    };
    let settings = match load(config) {
        Ok(settings) => settings,
        Err(code) => return code,
    };
    let guard = logging::init(settings.log, LOG_ENV, "info");
    let file = config.to_owned();
    let served = run(async {
        // Before anything else: a signal during the start must be obeyed too, and the first process
        // of a container has no default for it.
        let lifecycle = Lifecycle::new();
        lifecycle.watch_signals()?;
        let hangup = signal(SignalKind::hangup())?;
        let stop = lifecycle.stop_token().clone();
        let running = tokio::select! {
            running = server::start(settings, Some(file), inherited, lifecycle) => running?,
            () = stop.cancelled() => return Ok(true),
        };
        guard.count_in(&running.metrics);
        let listen: Vec<String> = running.addresses.iter().map(ToString::to_string).collect();
        let listen = listen.join(", ");
        let admin = running.admin.map(|address| address.to_string());
        tracing::info!(listen, admin, version = env!("CARGO_PKG_VERSION"), "ready");
        Ok(running.serve(hangup).await)
    });
    match served {
        Ok(true) => OK,
        Ok(false) => FAILED,
        Err(code) => code,
    }
}

pub(super) fn check(config: &Path) -> u8 {
    match load(config) {
        Ok(_) => {
            say(format!("{}: no mistakes", config.display()));
            OK
        }
        Err(code) => code,
    }
}

pub(super) fn explain(config: &Path) -> u8 {
    match load(config) {
        Ok(settings) => {
            say(crate::explain::explain(&settings).trim_end());
            OK
        }
        Err(code) => code,
    }
}

pub(super) fn presets(name: Option<&str>) -> u8 {
    let Some(name) = name else {
        for preset in PRESETS {
            say(format!("{:<16} {}", preset.name, preset.about));
        }
        return OK;
    };
    match preset::find(name) {
        Some(preset) => {
            say(preset.toml.trim_end());
            OK
        }
        None => {
            complain(format!(
                "headcount: there is no preset {:?}; headcount presets lists them",
                safe(name)
            ));
            USAGE
        }
    }
}

pub(super) fn pages(name: Option<&str>) -> u8 {
    let Some(name) = name else {
        for (name, _) in TEMPLATES {
            say(name);
        }
        return OK;
    };
    match TEMPLATES.iter().find(|(own, _)| *own == name) {
        Some((_, text)) => {
            say(text.trim_end());
            OK
        }
        None => {
            complain(format!(
                "headcount: there is no template {:?}; headcount pages lists them",
                safe(name)
            ));
            USAGE
        }
    }
}

pub(super) fn migrate(config: &Path, from: &Path) -> u8 {
    let settings = match load(config) {
        Ok(settings) => settings,
        Err(code) => return code,
    };
    match run(server::migrate(&settings, from)) {
        Ok(moved) => {
            let (from, to) = (from.display(), &settings.store.place);
            say(format!("{from} to {to}: {} sessions, {} keys", moved.sessions, moved.keys));
            OK
        }
        Err(code) => code,
    }
}

/// Where the configuration puts the admin listener.
pub(super) fn admin_of(config: &Path) -> Result<SocketAddr, u8> {
    let settings = load(config)?;
    settings.admin.map(|admin| admin.listen).ok_or_else(|| {
        complain(format!("headcount: {} has no [admin] listen", config.display()));
        USAGE
    })
}

/// The settings, or the exit code after telling every mistake.
pub(super) fn load(config: &Path) -> Result<Settings, u8> {
    config::load(config).map_err(|report| {
        complain(report.to_string().trim_end());
        USAGE
    })
}

/// Runs `work` on the runtime that the store, the admin listener and background work share.
pub(super) fn run<T>(work: impl Future<Output = anyhow::Result<T>>) -> Result<T, u8> {
    let done = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(work));
    done.map_err(|error| {
        complain(format!("headcount: {error:#}"));
        FAILED
    })
}
