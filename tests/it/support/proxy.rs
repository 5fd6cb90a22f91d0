//! Headcount itself: the real binary as a child process, with a configuration in a folder of its
//! own, its log, its audit trail and its admin API.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use serde_json::Value;
use tempfile::TempDir;

use super::browser::Browser;
use super::http::{self, Request, Response};
use super::process::Process;
use super::{PATIENCE, eventually};

/// The secret of the admin token that every test proxy has (role `admin`).
pub(crate) const ADMIN_SECRET: &str = "tests-0123456789abcdef0123456789abcdef";

/// The store of a proxy that has one of its own.
const OWN_STORE: &str = "sqlite://headcount.db";

/// A proxy in front of `upstream`.
pub(crate) struct Proxy {
    dir: TempDir,
    upstream: SocketAddr,
    preset: Option<String>,
    toml: String,
    kind: Kind,
    store_url: String,
    pub(crate) address: SocketAddr,
    pub(crate) admin_address: SocketAddr,
    process: Process,
    /// What earlier runs logged, before restarts.
    earlier: Vec<String>,
}

/// In what circumstances it runs.
#[derive(Clone, Default)]
pub(crate) struct Kind {
    /// No file may grow beyond so much.
    pub(crate) file_kib: Option<u32>,
    /// So many files may be open, sockets included.
    pub(crate) open_files: Option<u32>,
    /// The control group that it belongs to, by the folder the system shows it as.
    pub(crate) group: Option<PathBuf>,
    /// With the log at its finest level.
    pub(crate) traced: bool,
    /// A socket that is passed on to it, as a service manager does; `server.listen` says where it
    /// listens.
    pub(crate) listener: Option<Arc<TcpListener>>,
    /// What the environment has besides.
    pub(crate) env: Vec<(&'static str, String)>,
}

impl Proxy {
    /// Starts the binary and waits until it listens. `toml` is the rest of the configuration, as
    /// dotted keys first and tables after them: `limit.max_sessions = 1`.
    #[track_caller]
    pub(crate) fn start(upstream: SocketAddr, preset: Option<&str>, toml: &str) -> Self {
        Self::start_as(upstream, preset, toml, Kind::default())
    }

    /// Starts it where no file may grow beyond `file_kib`: sooner or later the store cannot write,
    /// as on a full disk. The limit is gone when it is started again.
    #[track_caller]
    pub(crate) fn start_on_small_disk(upstream: SocketAddr, toml: &str, file_kib: u32) -> Self {
        let kind = Kind { file_kib: Some(file_kib), ..Kind::default() };
        Self::start_as(upstream, None, toml, kind)
    }

    /// Starts it where no more than `open_files` may be open, sockets included.
    #[track_caller]
    pub(crate) fn start_with_few_files(upstream: SocketAddr, toml: &str, open_files: u32) -> Self {
        let kind = Kind { open_files: Some(open_files), ..Kind::default() };
        Self::start_as(upstream, None, toml, kind)
    }

    /// Starts it before the app that `toml` names as `upstream.url`, with more in its environment.
    #[track_caller]
    pub(crate) fn start_within(environment: &[(&'static str, &str)], toml: &str) -> Self {
        let env = environment.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 1));
        Self::start_as(nowhere, None, toml, Kind { env, ..Kind::default() })
    }

    /// As [`Self::start`], with the log at its finest level.
    #[track_caller]
    pub(crate) fn start_traced(upstream: SocketAddr, preset: Option<&str>, toml: &str) -> Self {
        Self::start_as(upstream, preset, toml, Kind { traced: true, ..Kind::default() })
    }

    /// One of several replicas on a database. All have the key of the first.
    #[track_caller]
    pub(crate) fn start_replica(
        upstream: SocketAddr,
        toml: &str,
        store_url: &str,
        first: Option<&Self>,
    ) -> Self {
        let dir = folder();
        if let Some(first) = first {
            let key = "headcount.key";
            std::fs::copy(first.folder().join(key), dir.path().join(key)).unwrap();
        }
        Self::start_in(dir, upstream, None, toml, store_url, Kind::default())
    }

    #[track_caller]
    pub(crate) fn start_as(
        upstream: SocketAddr,
        preset: Option<&str>,
        toml: &str,
        kind: Kind,
    ) -> Self {
        Self::start_in(folder(), upstream, preset, toml, OWN_STORE, kind)
    }

    #[track_caller]
    fn start_in(
        dir: TempDir,
        upstream: SocketAddr,
        preset: Option<&str>,
        toml: &str,
        store_url: &str,
        kind: Kind,
    ) -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        std::fs::write(dir.path().join("tests.token"), ADMIN_SECRET).unwrap();
        let (preset, toml) = (preset.map(str::to_owned), toml.to_owned());
        let store_url = store_url.to_owned();
        let config = configuration(upstream, preset.as_deref(), &toml, &store_url, any, any);
        let (process, address, admin_address) = run(&dir, &config, &kind);
        let earlier = Vec::new();
        Self {
            dir,
            upstream,
            preset,
            toml,
            kind,
            store_url,
            address,
            admin_address,
            process,
            earlier,
        }
    }

    /// A fresh browser on the proxied site.
    pub(crate) fn browser(&self) -> Browser {
        Browser::new(self.address)
    }

    /// The time that the process has had on a core.
    pub(crate) fn cpu_time(&self) -> Duration {
        self.process.cpu_time()
    }

    /// Bytes of memory that it has at present.
    pub(crate) fn memory(&self) -> u64 {
        self.process.memory()
    }

    /// The number that the system knows it by.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// The folder of configuration, store and key.
    pub(crate) fn folder(&self) -> PathBuf {
        self.dir.path().into()
    }

    /// Sends it a signal, by its name.
    #[track_caller]
    pub(crate) fn signal(&self, name: &str) {
        self.process.signal(name);
    }

    /// How it ended, if it did.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.process.ended()
    }

    /// Stops it as a service manager does.
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        self.process.terminate()
    }

    /// Ends it as a power cut does.
    pub(crate) fn kill9(&mut self) {
        self.process.kill();
    }

    /// Restarts it with another line in its configuration.
    #[track_caller]
    pub(crate) fn reconfigure(&mut self, from: &str, to: &str) {
        assert!(self.toml.contains(from), "{from} is not in the configuration");
        self.toml = self.toml.replace(from, to);
        self.restart();
    }

    /// Changes a line of its configuration file, in one step; it does not know of that yet.
    #[track_caller]
    pub(crate) fn edit(&mut self, from: &str, to: &str) {
        let text = self.configuration();
        assert!(text.contains(from), "{from} is not in the configuration");
        self.toml = self.toml.replace(from, to);
        self.write_configuration(&text.replace(from, to));
    }

    /// Names another store in its configuration file; it does not know of that yet.
    pub(crate) fn change_store(&mut self, url: &str) {
        let old = std::mem::replace(&mut self.store_url, url.to_owned());
        self.write_configuration(&self.configuration().replace(&old, url));
    }

    /// Its configuration file as it is.
    pub(crate) fn configuration(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("headcount.toml")).unwrap()
    }

    /// Puts another configuration file in place of the one there is.
    pub(crate) fn write_configuration(&self, text: &str) {
        let new = self.dir.path().join("new.toml");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, self.dir.path().join("headcount.toml")).unwrap();
    }

    /// Starts it again after [`Self::terminate`] or [`Self::kill9`], on the same addresses.
    #[track_caller]
    pub(crate) fn start_again(&mut self) {
        self.earlier.extend(self.process.lines());
        let preset = self.preset.as_deref();
        let (listen, admin) = (self.address, self.admin_address);
        let config =
            configuration(self.upstream, preset, &self.toml, &self.store_url, listen, admin);
        (self.kind.file_kib, self.kind.open_files) = (None, None);
        (self.process, self.address, self.admin_address) = run(&self.dir, &config, &self.kind);
    }

    #[track_caller]
    pub(crate) fn restart(&mut self) {
        let status = self.terminate();
        assert!(status.success(), "an orderly stop is a success, not {status}");
        self.start_again();
    }

    /// Everything it has logged, over all restarts.
    pub(crate) fn log(&self) -> Vec<String> {
        let mut lines = self.earlier.clone();
        lines.extend(self.process.lines());
        lines
    }

    /// The audit events so far.
    pub(crate) fn audit(&self) -> Vec<Value> {
        self.log()
            .iter()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .filter(|line| line["target"] == "headcount::audit" || line["event"].is_string())
            .collect()
    }

    /// The audit events of one kind about one user, as far as they are in the log: it is written by a
    /// thread of its own.
    pub(crate) fn events(&self, kind: &str, user: &str) -> Vec<Value> {
        let mut events = self.audit();
        events.retain(|event| event["event"] == kind && event["user"] == user);
        events
    }

    /// Waits for the first such event.
    #[track_caller]
    pub(crate) fn wait_for_event(&self, kind: &str, user: &str) -> Value {
        let what = format!("{kind} for {user}");
        eventually(&what, || self.events(kind, user).into_iter().next())
    }

    /// Waits until there are so many such events; more are a failure.
    #[track_caller]
    pub(crate) fn has_events(&self, kind: &str, user: &str, count: usize) -> Vec<Value> {
        let events = eventually(&format!("{count} of {kind} for {user}"), || {
            let events = self.events(kind, user);
            (events.len() >= count).then_some(events)
        });
        assert_eq!(events.len(), count, "{events:?}");
        events
    }

    /// Waits for an event that is about no user.
    #[track_caller]
    pub(crate) fn wait_for_admin_event(&self, kind: &str) -> Value {
        eventually(kind, || self.audit().into_iter().find(|event| event["event"] == kind))
    }

    /// A call of the admin listener with the token; `path` starts with `/`.
    #[track_caller]
    pub(crate) fn admin(&self, method: &str, path: &str) -> Response {
        let request = Request::new(method, path)
            .header("Host", &self.admin_address.to_string())
            .header("Authorization", &format!("Bearer {ADMIN_SECRET}"));
        http::send(self.admin_address, &request)
    }

    /// The user's sessions in one state (`live`, `ended`), as the admin API lists them.
    #[track_caller]
    pub(crate) fn sessions(&self, user: &str, state: &str) -> Vec<Value> {
        let answer =
            self.admin("GET", &format!("/api/v1/sessions?user={user}&state={state}&limit=100"));
        assert_eq!(answer.status, 200, "sessions of {user}: {}", answer.text());
        let json = answer.json();
        json["sessions"].as_array().unwrap().clone()
    }

    /// How many live sessions the user has.
    #[track_caller]
    pub(crate) fn live(&self, user: &str) -> usize {
        self.sessions(user, "live").len()
    }

    /// The metrics page.
    #[track_caller]
    pub(crate) fn metrics(&self) -> String {
        let answer = self.admin("GET", "/metrics");
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.text()
    }
}

/// A folder of a proxy's own; it goes when dropped.
fn folder() -> TempDir {
    let tmp = env!("CARGO_TARGET_TMPDIR");
    tempfile::Builder::new().prefix("proxy-").tempdir_in(tmp).unwrap()
}

/// The configuration file. Dotted keys, so that a test can add to any table.
fn configuration(
    upstream: SocketAddr,
    preset: Option<&str>,
    toml: &str,
    store_url: &str,
    listen: SocketAddr,
    admin: SocketAddr,
) -> String {
    let preset = preset.map(|name| format!("app.preset = \"{name}\"\n")).unwrap_or_default();
    // A test may listen elsewhere too; the first address is the one that is used.
    let listen = match toml.contains("server.listen") {
        true => String::new(),
        false => format!("server.listen = \"{listen}\"\n"),
    };
    let url = match toml.contains("upstream.url") {
        true => String::new(),
        false => format!("upstream.url = \"http://{upstream}\"\n"),
    };
    let tokens = match toml.contains("admin.tokens") {
        true => "",
        false => {
            "admin.tokens = [{ name = \"tests\", role = \"admin\", secret_file = \"tests.token\" }]\n"
        }
    };
    format!(
        r#"{listen}{url}{preset}store.url = '{store_url}'
store.key_file = "headcount.key"
admin.listen = "{admin}"
{tokens}{toml}
"#
    )
}

/// Runs the binary until it says that it is ready, and on which addresses.
#[track_caller]
fn run(dir: &TempDir, config: &str, kind: &Kind) -> (Process, SocketAddr, SocketAddr) {
    std::fs::write(dir.path().join("headcount.toml"), config).unwrap();
    let program = env!("CARGO_BIN_EXE_headcount");
    // The shell counts in blocks of 512 bytes. Without the trap the first write too many would kill
    // instead of fail.
    let file_size = kind.file_kib.map(|kib| format!("trap '' XFSZ; ulimit -f {}; ", kib * 2));
    let open_files = kind.open_files.map(|count| format!("ulimit -n {count}; "));
    let group =
        kind.group.as_ref().map(|path| format!("echo $$ >{}/cgroup.procs; ", path.display()));
    let limits: String = [file_size, open_files, group].into_iter().flatten().collect();
    let by_shell = !limits.is_empty() || kind.listener.is_some();
    let mut command = Command::new(if by_shell { "sh" } else { program });
    if !limits.is_empty() {
        command.args(["-c", &format!("{limits}exec \"$0\" \"$@\""), program]);
    }
    let input = match &kind.listener {
        None => Stdio::piped(),
        Some(listener) => {
            let passing = "export LISTEN_PID=$$ LISTEN_FDS=1; exec \"$0\" \"$@\" 3<&0 </dev/null";
            command.args(["-c", passing, program]);
            Stdio::from(OwnedFd::from(listener.try_clone().unwrap()))
        }
    };
    command.envs(kind.env.iter().map(|(name, value)| (name, value)));
    command.args(["serve", "-c", "headcount.toml"]).current_dir(dir.path());
    if kind.traced {
        command.env("HEADCOUNT_LOG", "trace");
    }
    let mut process = Process::start_reading("headcount", &mut command, input);
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some((address, admin)) = process.lines().iter().find_map(|line| ready(line)) {
            return (process, address, admin);
        }
        let ended = process.ended();
        assert!(ended.is_none(), "headcount ended ({ended:?}) with the configuration\n{config}");
        assert!(Instant::now() < deadline, "headcount is not ready within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The addresses in the line that says ready.
fn ready(line: &str) -> Option<(SocketAddr, SocketAddr)> {
    let line: Value = serde_json::from_str(line).ok()?;
    if line["message"] != "ready" {
        return None;
    }
    let listen = line["listen"].as_str()?.split(", ").next()?;
    Some((listen.parse().ok()?, line["admin"].as_str()?.parse().ok()?))
}
