//! `headcount demo`: a legacy app, the proxy before it, and a story that shows what it does. Only
//! puts the parts together, as `serve` does with a file.

pub mod app;
pub mod story;

use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use tokio::sync::broadcast::{self, error::RecvError};

use crate::audit::{self, AuditEvent};
use crate::lifecycle::Lifecycle;
use crate::listener::Inherited;
use crate::settings::ListenAddress;
use crate::terminal::say;
use crate::{config, server};

/// Starts everything, plays the story, and serves until Ctrl-C unless `exit`. Answers whether the
/// story went as told.
pub async fn run(exit: bool, port: u16) -> anyhow::Result<bool> {
    let folder = Folder::new().context("cannot make a temporary folder")?;
    let app = start_app().await.context("cannot start the app")?;
    let token_file = folder.0.join("admin.token");
    write_secret(&token_file).context("cannot write the admin token")?;
    let text = configuration(port, app, &folder.0, &token_file);
    let settings = config::parse("demo.toml", &text, &|_: &str| None)
        .map_err(|report| anyhow::anyhow!("the demo's configuration is wrong:\n{report}"))?;
    let mut running =
        server::start(settings, None, Inherited::default(), Lifecycle::new()).await.with_context(
            || format!("cannot start the proxy on port {port}; --port 0 takes any free one"),
        )?;
    let proxy = running.addresses.first().and_then(ListenAddress::tcp);
    let proxy = proxy.context("the proxy listens nowhere")?;
    welcome(app, proxy, running.admin, &token_file);
    // Ctrl-C in the middle of the story tidies up as well.
    let as_told = tokio::select! {
        as_told = show(exit, proxy, &mut running.audit) => as_told,
        stopped = tokio::signal::ctrl_c() => {
            stopped.context("cannot wait for Ctrl-C")?;
            !exit
        }
    };
    running.shutdown().await;
    Ok(as_told)
}

/// Plays the story; then, unless `exit`, shows the audit trail of what the user does.
async fn show(exit: bool, proxy: SocketAddr, audit: &mut broadcast::Receiver<AuditEvent>) -> bool {
    let as_told = story::play(proxy, audit).await;
    if !exit {
        say(format!(
            "\nNow you: open http://{proxy}/ in two browsers (or a private window) and sign in as \
             the same user.\nThe audit trail follows; Ctrl-C ends the demo.\n"
        ));
        show_trail(audit).await;
    }
    as_told
}

fn welcome(app: SocketAddr, proxy: SocketAddr, admin: Option<SocketAddr>, token_file: &Path) {
    say("Headcount demo: one session per user, in front of an app that knows no such limit.\n");
    say(format!("  through Headcount   http://{proxy}/"));
    say(format!("  the app itself      http://{app}/   (no limit here)"));
    for (name, password) in app::ACCOUNTS {
        say(format!("  account             {name} / {password}"));
    }
    if let Some(admin) = admin {
        say(format!(
            "  sessions            headcount sessions list --admin http://{admin} --token-file {}",
            token_file.display()
        ));
    }
}

async fn show_trail(audit: &mut broadcast::Receiver<AuditEvent>) {
    loop {
        match audit.recv().await {
            Ok(event) => {
                let json = serde_json::to_string(&event).unwrap_or_default();
                say(audit::escape_json(&json));
            }
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return std::future::pending().await,
        }
    }
}

async fn start_app() -> std::io::Result<SocketAddr> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move { axum::serve(listener, app::router()).await });
    Ok(address)
}

/// What an operator would write for this app.
fn configuration(port: u16, app: SocketAddr, folder: &Path, token_file: &Path) -> String {
    let quoted = |path: &Path| serde_json::Value::from(path.to_string_lossy()).to_string();
    let store = format!("sqlite://{}", folder.join("demo.db").display());
    format!(
        r#"
[server]
listen = "127.0.0.1:{port}"

[upstream]
url = "http://{app}"

[app]
name = "demo"

[[credential]]
at = ["cookie:{cookie}"]
role = "session"

[[login]]
request = {{ methods = ["POST"], path = ["/login.php"], has = ["form:user"] }}
success = {{ status = [302], sets = "{cookie}" }}
user = ["form:user"]

[[logout]]
request = {{ methods = ["GET"], path = ["/logout.php"] }}
success = {{ status = [302] }}

[limit]
max_sessions = 1

[enforcement]
login_url = "/login.php"
app_logout = {{ method = "GET", path = "/logout.php" }}

[store]
url = {store}
key_file = {key}

[admin]
listen = "127.0.0.1:0"
tokens = [{{ name = "demo", role = "operator", secret_file = {token} }}]
"#,
        cookie = app::COOKIE,
        store = quoted(Path::new(&store)),
        key = quoted(&folder.join("demo.key")),
        token = quoted(token_file),
    )
}

/// A folder only this user can enter, gone at the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> std::io::Result<Self> {
        let path = std::env::temp_dir().join(format!("headcount-demo-{}", random_hex()));
        std::fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A file left behind in the temporary folder harms nobody.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn write_secret(path: &Path) -> std::io::Result<()> {
    let mut file =
        std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    std::io::Write::write_all(&mut file, random_hex().as_bytes())
}

/// 128 random bits.
fn random_hex() -> String {
    let mut bytes = [0_u8; 16];
    // A machine without randomness cannot run the proxy either, which says so.
    let _ = getrandom::fill(&mut bytes);
    crate::session::SessionId(bytes).to_string()
}
