//! Small sites in Flask, Express and PHP, unmodified as their documentation writes them, shared by
//! all tests of a run and started when the first of them asks. Each picks a free port and says so,
//! and ends with the test process: it watches its standard input.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::browser::Browser;
use super::process::Process;
use super::{top, within};

/// What the site is made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum App {
    /// Flask-Login.
    Flask,
    /// The same with permanent sessions, and a login page that turns away who is signed in.
    FlaskPermanent,
    /// express-session and passport.
    Passport,
    /// The same with `rolling`, and a login page that turns away who is signed in.
    PassportRolling,
    CookieSession,
    /// PHP with `session_regenerate_id(true)`.
    Php,
    /// PHP with `session_regenerate_id()`.
    PhpKeepsOld,
    /// PHP that never renews the id.
    PhpSameId,
    /// PHP with `session_regenerate_id(true)` that takes session ids from URLs too.
    PhpUrlIds,
    /// Tomcat with FORM authentication.
    Tomcat,
    /// WordPress on MariaDB.
    WordPress,
}

/// How long a site may take to start: some of them install themselves first.
const START: Duration = Duration::from_secs(120);

/// A running site.
pub(crate) struct Site {
    pub(crate) address: SocketAddr,
    users: AtomicUsize,
    _process: Process,
}

impl Site {
    /// The site of this kind.
    pub(crate) fn shared(app: App) -> &'static Self {
        static SITES: [OnceLock<Site>; 11] = [const { OnceLock::new() }; 11];
        SITES[app as usize].get_or_init(|| Self::start(app))
    }

    fn start(app: App) -> Self {
        let mut process = Process::start(&format!("{app:?}"), &mut command(app));
        let address = within(START, "the site listens", || {
            let lines = process.lines();
            let ended = process.ended();
            assert!(ended.is_none(), "{app:?} ended ({ended:?}), run tests/setup: {lines:?}");
            lines.iter().find_map(|line| address(line))
        });
        Self { address, users: AtomicUsize::new(0), _process: process }
    }

    /// A user no other test has. Everybody's password is `password_of` the name.
    pub(crate) fn user(&self) -> String {
        format!("user{}", self.users.fetch_add(1, Ordering::Relaxed))
    }

    /// A browser that goes past any proxy.
    pub(crate) fn browser(&self) -> Browser {
        Browser::new(self.address)
    }
}

fn command(app: App) -> Command {
    let (folder, node) = (top().join("tests/sites"), |kind: &str| {
        let mut command = Command::new("node");
        command.args(["app.js", kind]).current_dir(top().join("tests/sites/express"));
        command
    });
    match app {
        App::Flask | App::FlaskPermanent => {
            let python = top().join(".venv/bin/python");
            assert!(python.exists(), "{} is missing: run tests/setup", python.display());
            let mut command = Command::new(python);
            command
                .arg("app.py")
                .current_dir(folder.join("flask"))
                .env("PYTHONDONTWRITEBYTECODE", "1")
                .env("SITE_PERMANENT", if app == App::FlaskPermanent { "1" } else { "0" });
            command
        }
        App::Passport => node("passport"),
        App::PassportRolling => node("rolling"),
        App::CookieSession => node("cookie-session"),
        App::Php => php("delete", ""),
        App::PhpKeepsOld => php("keep", ""),
        App::PhpSameId => php("none", ""),
        App::PhpUrlIds => php("delete", "-d session.use_only_cookies=0 -d session.use_trans_sid=1"),
        App::Tomcat => script("tomcat"),
        App::WordPress => script("wordpress"),
    }
}

/// A site that brings a script which runs it in a folder and clears up after it.
fn script(site: &str) -> Command {
    let folder = format!("{site}-{}", std::process::id());
    let mut command = Command::new(top().join("tests/sites").join(site).join("start"));
    command.arg([env!("CARGO_TARGET_TMPDIR"), &folder].iter().collect::<PathBuf>());
    command
}

/// PHP's own server, which does not watch its standard input: a shell does. Its workers outlive it,
/// so they have a process group that ends as a whole.
fn php(regenerate: &str, settings: &str) -> Command {
    let folder = format!("php-{regenerate}{}-{}", settings.len(), std::process::id());
    let sessions: PathBuf = [env!("CARGO_TARGET_TMPDIR"), &folder].iter().collect();
    std::fs::create_dir_all(&sessions).unwrap();
    let script = "command -v php >/dev/null || { echo php is missing >&2; exit 1; }
        setsid php -S 127.0.0.1:0 -t . -d session.save_path=\"$0\" $1 &
        cat >/dev/null; kill -s TERM -- -$!; rm -rf \"$0\"";
    let mut command = Command::new("sh");
    command
        .args(["-c", script])
        .arg(sessions)
        .arg(settings)
        .current_dir(top().join("tests/sites/php"))
        .env("PHP_CLI_SERVER_WORKERS", "4")
        .env("SITE_REGENERATE", regenerate);
    command
}

/// The address in the line that says where the site listens.
fn address(line: &str) -> Option<SocketAddr> {
    let at = line.find("127.0.0.1:")?;
    let rest = &line[at..];
    let end = rest.find(|c: char| c != '.' && c != ':' && !c.is_ascii_digit());
    let found: SocketAddr = rest[..end.unwrap_or(rest.len())].parse().ok()?;
    (found.port() != 0).then_some(found)
}
