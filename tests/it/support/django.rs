//! A real Django under gunicorn, one for each session engine, shared by all tests of a run and
//! started when the first of them asks. It ends with the test process: it watches its standard
//! input.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::browser::Browser;
use super::http::{self, Request};
use super::process::Process;
use super::{eventually, top};

/// Django's session engines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Engine {
    Db,
    CachedDb,
    Cache,
    File,
    SignedCookies,
}

impl Engine {
    fn name(self) -> &'static str {
        match self {
            Self::Db => "db",
            Self::CachedDb => "cached_db",
            Self::Cache => "cache",
            Self::File => "file",
            Self::SignedCookies => "signed_cookies",
        }
    }
}

/// What signs people in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Accounts {
    /// django.contrib.auth
    Contrib,
    /// django-allauth
    Allauth,
}

/// A running site.
pub(crate) struct Django {
    pub(crate) address: SocketAddr,
    pub(crate) folder: PathBuf,
    /// How many of the prepared users are taken.
    users: AtomicUsize,
    staff: AtomicUsize,
    _process: Process,
}

impl Django {
    /// The site with this engine and contrib.auth.
    pub(crate) fn shared(engine: Engine) -> &'static Self {
        static SITES: [OnceLock<Django>; 5] = [const { OnceLock::new() }; 5];
        SITES[engine as usize].get_or_init(|| Self::start(engine, Accounts::Contrib))
    }

    /// The site with django-allauth.
    pub(crate) fn shared_allauth() -> &'static Self {
        static SITE: OnceLock<Django> = OnceLock::new();
        SITE.get_or_init(|| Self::start(Engine::Db, Accounts::Allauth))
    }

    /// Starts a site with a fresh database.
    pub(crate) fn start(engine: Engine, accounts: Accounts) -> Self {
        let kind = if accounts == Accounts::Allauth { "allauth" } else { engine.name() };
        let scratch = Path::new(env!("CARGO_TARGET_TMPDIR"));
        remove_leftovers(scratch);
        let folder = scratch.join(format!("django-{kind}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        fs::copy(template(scratch, accounts), folder.join("site.sqlite3")).unwrap();
        let (processes, threads) = if engine == Engine::Db { ("2", "4") } else { ("1", "8") };
        let mut command = site_command("gunicorn", &folder, accounts);
        command
            .env("SITE_ENGINE", engine.name())
            .env("SITE_PROCESSES", processes)
            .env("SITE_THREADS", threads)
            .args(["--error-logfile", "-", "--log-level", "warning"]);
        let mut process = Process::start(&format!("django {kind}"), &mut command);
        let port = eventually("gunicorn listens", || {
            let ended = process.ended();
            assert!(ended.is_none(), "gunicorn ended ({ended:?}): {:?}", process.lines());
            fs::read_to_string(folder.join("port")).ok()
        });
        let address = SocketAddr::from(([127, 0, 0, 1], port.parse().unwrap()));
        let (users, staff) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self { address, folder, users, staff, _process: process }
    }

    /// A user no other test has.
    pub(crate) fn user(&self) -> String {
        format!("user{}", self.users.fetch_add(1, Ordering::Relaxed))
    }

    /// A superuser no other test has.
    pub(crate) fn staff(&self) -> String {
        format!("staff{}", self.staff.fetch_add(1, Ordering::Relaxed))
    }

    /// A browser that goes past any proxy.
    pub(crate) fn browser(&self) -> Browser {
        Browser::new(self.address)
    }

    /// How many sessions of the user the site itself has; `None` when its engine cannot tell.
    #[track_caller]
    pub(crate) fn live_sessions(&self, user: &str) -> Option<u64> {
        let request = Request::get(&format!("/ops/sessions?user={user}")).header("Host", "site");
        let answer = http::send(self.address, &request);
        assert!(matches!(answer.status, 200 | 501), "{}", answer.text());
        answer.json()["count"].as_u64()
    }
}

/// A program of the virtual environment, run for the site in `folder`.
fn site_command(program: &str, folder: &Path, accounts: Accounts) -> Command {
    let program = top().join(".venv/bin").join(program);
    assert!(program.exists(), "{} is missing: run tests/setup", program.display());
    let mut command = Command::new(program);
    command
        .current_dir(top().join("tests/sites/django"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("SITE_DIR", folder)
        .env("SITE_ALLAUTH", if accounts == Accounts::Allauth { "1" } else { "0" });
    command
}

/// A database with tables and users, made once per version of the site and copied for each start.
fn template(scratch: &Path, accounts: Accounts) -> PathBuf {
    static MADE: [OnceLock<PathBuf>; 2] = [const { OnceLock::new() }; 2];
    let make = || {
        let site = top().join("tests/sites/django");
        let sources = [
            site.join("prepare.py"),
            site.join("shop/settings.py"),
            top().join("tests/requirements.txt"),
        ];
        let text: String = sources.iter().map(|path| fs::read_to_string(path).unwrap()).collect();
        let version = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let made = scratch.join(format!("template-{accounts:?}-{version:016x}.sqlite3"));
        if !made.exists() {
            let folder = tempfile::tempdir_in(scratch).unwrap();
            let output =
                site_command("python", folder.path(), accounts).arg("prepare.py").output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            fs::rename(folder.path().join("site.sqlite3"), &made).unwrap();
        }
        made
    };
    MADE[accounts as usize].get_or_init(make).clone()
}

/// Shared sites are never dropped, so their folders stay; those of processes that are gone go here.
fn remove_leftovers(scratch: &Path) {
    for entry in fs::read_dir(scratch).unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some((kind, process)) = name.rsplit_once('-') else { continue };
        if kind.starts_with("django-") && !Path::new("/proc").join(process).exists() {
            // Another test process may be doing the same.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
