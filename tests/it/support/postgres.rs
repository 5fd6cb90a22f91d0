//! A real PostgreSQL: one private cluster for all tests of a run, with fsync on, and a database of
//! its own for each test. It ends, and its folder goes, when the test process ends, however it does.

use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::within;

const PASSWORD: &str = "a password: 100% \"quoted\"";
const ENCODED: &str = "a%20password%3A%20100%25%20%22quoted%22";
/// PostgreSQL does not run as root; Debian's package brings this user.
const USER: &str = "postgres";
/// For `mktemp`.
const TEMPLATE: &str = concat!("headcount-postgres-", "XX", "XX", "XX");
/// Starts the server each time a line comes in, and ends it when the input ends, which it does when
/// the test process is gone.
const KEEPER: &str = r#"
folder=$1; shift
trap '' INT TERM
while read -r _; do
    "$@" >>"$folder/log" 2>&1 </dev/null &
    server=$!
done
kill -QUIT "$server"
wait "$server"
rm -rf "$folder"
"#;

struct Cluster {
    port: u16,
    bin: PathBuf,
    folder: PathBuf,
    databases: AtomicU32,
    /// Its standard input stays open as long as the tests run.
    keeper: Mutex<Child>,
}

/// A database with nothing in it.
pub(crate) struct Database {
    cluster: Arc<Cluster>,
    name: String,
}

impl Database {
    #[track_caller]
    pub(crate) fn create() -> Self {
        Self::create_in(shared_cluster())
    }

    /// On a server that no other test uses, and that may crash therefore.
    #[track_caller]
    pub(crate) fn on_its_own() -> Self {
        Self::create_in(Arc::new(Cluster::start()))
    }

    #[track_caller]
    fn create_in(cluster: Arc<Cluster>) -> Self {
        let number = cluster.databases.fetch_add(1, Ordering::Relaxed);
        let name = format!("test{number}");
        cluster.sql("postgres", &format!("CREATE DATABASE {name} ENCODING 'UTF8'"));
        Self { cluster, name }
    }

    /// With the password in it.
    pub(crate) fn url(&self) -> String {
        self.url_at(self.port())
    }

    /// The certificate that signs the server's.
    pub(crate) fn ca(&self) -> PathBuf {
        self.cluster.folder.join("server.crt")
    }

    /// As [`Self::url`], through something that listens on another port.
    pub(crate) fn url_at(&self, port: u16) -> String {
        format!("postgres://headcount:{ENCODED}@127.0.0.1:{port}/{}?sslmode=disable", self.name)
    }

    /// Without it.
    pub(crate) fn url_without_password(&self) -> String {
        format!("postgres://headcount@127.0.0.1:{}/{}", self.port(), self.name)
    }

    pub(crate) fn password() -> &'static str {
        PASSWORD
    }

    pub(crate) fn port(&self) -> u16 {
        self.cluster.port
    }

    /// What `psql` says to this.
    #[track_caller]
    pub(crate) fn sql(&self, statement: &str) -> String {
        self.cluster.sql(&self.name, statement)
    }

    /// Ends the server as a power cut does.
    #[track_caller]
    pub(crate) fn crash_server(&self) {
        let file = self.cluster.folder.join("data/postmaster.pid");
        let text = std::fs::read_to_string(file).unwrap();
        let pid = text.lines().next().unwrap();
        said(Command::new("kill").args(["-9", pid]));
        within(Duration::from_secs(20), "PostgreSQL is gone", || {
            (!self.cluster.answers()).then_some(())
        });
    }

    /// Starts it again and waits until it has recovered.
    #[track_caller]
    pub(crate) fn start_server(&self) {
        self.cluster.run();
    }

    /// Ends so many in a hundred of the connections to it, but at least one, as an administrator may
    /// at any time; tells how many.
    #[track_caller]
    pub(crate) fn kill_some_backends(&self, percent: u32) -> usize {
        let kill = format!(
            "SELECT count(pg_terminate_backend(pid)) FROM (SELECT pid FROM pg_stat_activity \
             WHERE datname = '{0}' AND pid <> pg_backend_pid() ORDER BY random() \
             LIMIT (SELECT ceil(count(*) * {percent} / 100.0) FROM pg_stat_activity \
             WHERE datname = '{0}')) AS picked",
            self.name
        );
        self.sql(&kill).trim().parse().unwrap()
    }
}

fn shared_cluster() -> Arc<Cluster> {
    static CLUSTER: OnceLock<Arc<Cluster>> = OnceLock::new();
    Arc::clone(CLUSTER.get_or_init(|| Arc::new(Cluster::start())))
}

impl Cluster {
    fn start() -> Self {
        let bin = programs();
        let folder = said(as_user("mktemp").args(["-d", "-t"]).arg(TEMPLATE));
        let folder = PathBuf::from(folder.trim());
        let data = folder.join("data");
        let mut init = as_user("sh");
        // The password comes in on standard input, not on a command line that others can read.
        let script = "umask 077; cat >\"$2/password\"; exec \"$0\" --pgdata=\"$1\" \
            --username=headcount --pwfile=\"$2/password\" --auth=scram-sha-256 \
            --encoding=UTF8 --locale=C.UTF-8 --no-sync";
        init.args(["-c", script]).arg(bin.join("initdb")).args([&data, &folder]);
        init.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = init.spawn().unwrap();
        child.stdin.take().unwrap().write_all(PASSWORD.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "initdb: {}", String::from_utf8_lossy(&output.stderr));
        let certificate = certificate(&folder);
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let keeper = as_user("sh")
            .args(["-c", KEEPER, "keeper"])
            .arg(&folder)
            .arg(bin.join("postgres"))
            .arg("-D")
            .arg(&data)
            .args(["-c", "listen_addresses=127.0.0.1", "-c", &format!("port={port}")])
            .args(["-c", "ssl=on", "-c"])
            .arg(format!("ssl_cert_file={}", certificate.display()))
            .arg("-c")
            .arg(format!("ssl_key_file={}", folder.join("server.key").display()))
            .args(["-c", "fsync=on", "-c", "max_connections=300"])
            .args(["-c", &format!("unix_socket_directories={}", folder.display())])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let (databases, keeper) = (AtomicU32::new(0), Mutex::new(keeper));
        let cluster = Self { port, bin, folder, databases, keeper };
        cluster.run();
        cluster
    }

    /// Tells the keeper to start the server until it answers: after a crash the first tries may find
    /// processes of the old one that are not gone yet.
    #[track_caller]
    fn run(&self) {
        for _ in 0..20 {
            self.keeper.lock().stdin.as_mut().unwrap().write_all(b"start\n").unwrap();
            let deadline = Instant::now() + Duration::from_secs(10);
            let log = self.folder.join("log");
            let failures = || {
                let text = std::fs::read_to_string(&log).unwrap_or_default();
                text.matches("database system is shut down").count()
                    + text.matches("pre-existing shared memory block").count()
                    + text.matches("lock file \"postmaster.pid\" already exists").count()
            };
            let before = failures();
            while Instant::now() < deadline && failures() == before {
                if self.answers() {
                    return;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        let log = std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        panic!("PostgreSQL does not start:\n{log}");
    }

    fn answers(&self) -> bool {
        let mut ready = Command::new(self.bin.join("pg_isready"));
        ready.args(["-q", "-h", "127.0.0.1", "-p", &self.port.to_string()]);
        ready.status().unwrap().success()
    }

    #[track_caller]
    fn sql(&self, database: &str, statement: &str) -> String {
        said(
            Command::new(self.bin.join("psql"))
                .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", "headcount"])
                .args(["-h", &self.folder.display().to_string(), "-p", &self.port.to_string()])
                .args(["-d", database, "-c", statement])
                .env("PGPASSWORD", PASSWORD),
        )
    }
}

/// Where the server's programs are: the newest of Debian's folders, or wherever `pg_config` says.
fn programs() -> PathBuf {
    let debian = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest = debian
        .map(|entry| entry.path().join("bin"))
        .filter(|bin| bin.join("initdb").exists())
        .max_by_key(|bin| {
            let version = bin.parent().and_then(Path::file_name).map(|name| name.to_owned());
            version.and_then(|name| name.to_str()?.parse::<u32>().ok())
        });
    newest.unwrap_or_else(|| said(Command::new("pg_config").arg("--bindir")).trim().into())
}

/// Makes `server.key` and a certificate for it that signs itself, for this machine; returns the
/// latter.
#[track_caller]
pub(crate) fn certificate(folder: &Path) -> PathBuf {
    let (key, certificate) = (folder.join("server.key"), folder.join("server.crt"));
    let mut make = Command::new("openssl");
    make.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"])
        .args(["-nodes", "-days", "2", "-subj", "/CN=tests", "-addext"])
        .args(["subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=CA:FALSE", "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&certificate);
    said(&mut make);
    // PostgreSQL wants to own it.
    if said(Command::new("id").arg("-u")).trim() == "0" {
        said(Command::new("chown").arg(USER).args([&key, &certificate]));
    }
    certificate
}

/// A command that is not run as root.
fn as_user(program: &str) -> Command {
    let root = said(Command::new("id").arg("-u")).trim() == "0";
    let mut command = Command::new(if root { "runuser" } else { program });
    if root {
        command.args(["-u", USER, "--", program]);
    }
    // The checkout may be in a folder that only its owner sees.
    command.current_dir("/");
    command
}

/// What a program says, which must succeed.
#[track_caller]
fn said(command: &mut Command) -> String {
    let output = match command.output() {
        Ok(output) => output,
        Err(error) => panic!("{command:?}: {error}; tests/setup installs PostgreSQL"),
    };
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
