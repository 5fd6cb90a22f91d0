//! Small sites in Flask, Express, PHP, Rails and Laravel as their documentation writes them, and some
//! whole applications as they are installed, shared by
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
    /// Rails with Devise.
    Rails,
    Laravel,
    /// On SQLite. It has twenty accounts.
    MediaWiki,
    /// It has twenty accounts.
    DokuWiki,
    NodeRed,
}

/// How long a site may take to start: some of them install themselves first.
const START: Duration = Duration::from_secs(120);

/// A running site.
pub(crate) struct Site {
    pub(crate) address: SocketAddr,
    app: App,
    users: AtomicUsize,
    _process: Process,
}

impl Site {
    /// The site of this kind.
    pub(crate) fn shared(app: App) -> &'static Self {
        static SITES: [OnceLock<Site>; 16] = [const { OnceLock::new() }; 16];
        SITES[app as usize].get_or_init(|| Self::start(app))
    }

    fn start(app: App) -> Self {
        Self::start_on(app, 0)
    }

    /// A site of this test's own, on this port if it is one with Express; 0 is any.
    pub(crate) fn start_on(app: App, port: u16) -> Self {
        let mut command = command(app);
        command.env("SITE_PORT", port.to_string());
        let mut process = Process::start(&format!("{app:?}"), &mut command);
        let address = within(START, "the site listens", || {
            let lines = process.lines();
            let ended = process.ended();
            assert!(ended.is_none(), "{app:?} ended ({ended:?}), run tests/setup: {lines:?}");
            lines.iter().find_map(|line| address(line))
        });
        Self { address, app, users: AtomicUsize::new(0), _process: process }
    }

    /// A user no other test has. Everybody's password is `password_of` the name.
    pub(crate) fn user(&self) -> String {
        let user = format!("user{}", self.users.fetch_add(1, Ordering::Relaxed));
        match self.app {
            App::Rails | App::Laravel => user + "@example.com",
            _ => user,
        }
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
        App::MediaWiki => script("mediawiki"),
        App::DokuWiki => script("dokuwiki"),
        App::NodeRed => {
            let mut command = Command::new("node");
            command
                .args(["app.js".into(), data_folder("node-red")])
                .current_dir(folder.join("node-red"));
            command
        }
        App::Rails => {
            let mut command = Command::new("sh");
            command
                .args(["-c", "exec puma -e production -t 8:8 -b tcp://127.0.0.1:0 config.ru >&2"])
                .current_dir(folder.join("rails"));
            command
        }
        App::Laravel => php_server(
            "laravel",
            "php index.php && php -d opcache.enable_cli=1 -S 127.0.0.1:0 index.php",
        ),
    }
}

/// A site that brings a script which runs it in a folder and clears up after it.
fn script(site: &str) -> Command {
    let mut command = Command::new(top().join("tests/sites").join(site).join("start"));
    command.arg(data_folder(site));
    command
}

/// Where a site of this run keeps its data.
fn data_folder(site: &str) -> PathBuf {
    let folder = format!("{site}-{}", std::process::id());
    [env!("CARGO_TARGET_TMPDIR"), &folder].iter().collect()
}

/// Plain PHP, and how it renews the session's id.
fn php(regenerate: &str, settings: &str) -> Command {
    let serve = format!("php -S 127.0.0.1:0 -t . -d session.save_path=\"$SITE_DIR\" {settings}");
    let mut command = php_server("php", &serve);
    command.env("SITE_REGENERATE", regenerate);
    command
}

/// PHP's own server, which does not watch its standard input: a shell does. Its workers outlive it,
/// so they have a process group that ends as a whole. `SITE_DIR` is a folder for its data.
fn php_server(site: &str, serve: &str) -> Command {
    static FOLDERS: AtomicUsize = AtomicUsize::new(0);
    let number = FOLDERS.fetch_add(1, Ordering::Relaxed);
    let folder = format!("{site}-{number}-{}", std::process::id());
    let data: PathBuf = [env!("CARGO_TARGET_TMPDIR"), &folder].iter().collect();
    std::fs::create_dir_all(&data).unwrap();
    let script = "command -v php >/dev/null || { echo php is missing >&2; exit 1; }
        setsid sh -c \"$0\" &
        cat >/dev/null; kill -s TERM -- -$!; rm -rf \"$SITE_DIR\"";
    let mut command = Command::new("sh");
    command
        .args(["-c", script, serve])
        .current_dir(top().join("tests/sites").join(site))
        .env("PHP_CLI_SERVER_WORKERS", "4")
        .env("SITE_DIR", data);
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
