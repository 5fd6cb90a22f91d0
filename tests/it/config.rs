//! Configuration files: what is read from good ones, and every word said about bad ones;
//! and the policy they state, in words.

use std::fs;
use std::path::{Path, PathBuf};

use headcount::config;
use headcount::explain::explain;
use headcount::policy::{EvictOrder, OnLimit};
use headcount::rules::{Role, preset};
use headcount::session::Groups;
use headcount::settings::{
    AdminRole, AppHttp, AppLogout, Binding, Csrf, ListenAddress, OnEnded, OnFailure,
    ServerSettings, Settings, StorePlace, Untracked, UpstreamSettings,
};
use headcount::store::postgres::Server;

const MINIMAL: &str = "[upstream]\nurl = \"http://127.0.0.1:8000\"\n[limit]\nmax_sessions = 1\n";

fn env(name: &str) -> Option<String> {
    match name {
        "ADMIN_TOKEN" => Some("0123456789abcdef0123456789abcdef".to_owned()),
        "SHORT" => Some("hunter2".to_owned()),
        "APP_PORT" => Some("8000".to_owned()),
        _ => None,
    }
}

fn read(path: &Path) -> Result<Settings, String> {
    let text = fs::read_to_string(path).unwrap();
    let relative = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap();
    config::parse(relative.to_str().unwrap(), &text, &env).map_err(|report| report.to_string())
}

fn parse(text: &str) -> Result<Settings, String> {
    config::parse("headcount.toml", text, &env).map_err(|report| report.to_string())
}

fn files(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    files.sort();
    files
}

fn valid(name: &str) -> Settings {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config/valid");
    read(&folder.join(name)).unwrap()
}

#[test]
fn every_valid_file_is_accepted() {
    for path in files("tests/config/valid") {
        if let Err(report) = read(&path) {
            panic!("{}:\n{report}", path.display());
        }
    }
}

/// With UPDATE_EXPECT=1 the expected messages are written instead; read them in the diff.
#[test]
fn every_invalid_file_is_answered_with_these_words() {
    let update = std::env::var_os("UPDATE_EXPECT").is_some();
    let files = files("tests/config/invalid");
    assert!(files.len() >= 34, "only {} files", files.len());
    let mut wrong = Vec::new();
    for path in files {
        let report = match read(&path) {
            Ok(_) => "accepted\n".to_owned(),
            Err(report) => report,
        };
        let expected = path.with_extension("expected");
        if update {
            fs::write(&expected, &report).unwrap();
        }
        if report != fs::read_to_string(&expected).unwrap_or_default() {
            wrong.push(format!("{}:\n{report}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_commented_file_is_accepted_and_holds_the_defaults() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let commented = read(&folder.join("config/headcount.toml")).unwrap();
    let minimal = parse(&format!("{MINIMAL}[app]\npreset = \"django\"\n[admin]\n")).unwrap();
    assert_same(&commented, &minimal);
}

/// What the comments of the file show as defaults are the defaults.
#[test]
fn every_key_in_the_comments_has_the_default_it_shows() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(folder.join("config/headcount.toml")).unwrap();
    let (text, _) = text
        .split_once(
            "-- rules
",
        )
        .unwrap();
    // Lists that show an example are followed by their default on the next line.
    let examples = [
        "workers",
        "tls = ",
        "ca = ",
        "server_name",
        "client_certificate",
        "client_key",
        "hosts = [\"",
        "methods = [\"",
        "trusted_proxies = [\"",
        "idle_ignore_paths = [\"",
        "aliases",
        "evict_if",
        "otherwise",
        "exempt_paths = [\"",
        "tokens",
        "users",
        "max_sessions = \"",
        "node",
        "url = \"postgres",
        "password_file",
        "connections",
        "notify",
        "poll_interval",
        "grace",
        "idle_timeout = \"10m",
        "absolute_timeout = \"8h",
        "name = \"Payroll",
        "logo",
        "accent",
        "support",
        "directory",
        "database",
    ];
    let mut uncommented = String::new();
    for line in text.lines() {
        let key = line.strip_prefix("# ").filter(|line| {
            line.split_once(" = ")
                .is_some_and(|(key, _)| key.chars().all(|c| c.is_ascii_lowercase() || c == '_'))
        });
        match key {
            Some(key) if !examples.iter().any(|example| key.starts_with(example)) => {
                uncommented.push_str(key);
            }
            _ => uncommented.push_str(line),
        }
        uncommented.push('\n');
    }
    let uncommented = parse(&uncommented).unwrap();
    let commented = parse(text).unwrap();
    assert_same(&uncommented, &commented);
}

/// The settings have no equality; all of them but admin tokens have a complete debug form.
fn assert_same(one: &Settings, other: &Settings) {
    let show = |settings: &Settings| {
        let mut settings = settings.clone();
        // Of the text, not of what it says.
        settings.fingerprint.clear();
        settings.written = "".into();
        let StorePlace::Sqlite(path) = &mut settings.store.place else { panic!("not SQLite") };
        for path in [path, &mut settings.store.key_file] {
            *path = path.file_name().unwrap().into();
        }
        format!("{settings:#?}")
    };
    assert_eq!(show(one), show(other));
}

#[test]
fn defaults_are_the_documented_ones() {
    let settings = valid("minimal.toml");
    let ServerSettings { listen, limits, .. } = &settings.server;
    assert_eq!(listen, &[ListenAddress::Tcp("127.0.0.1:8080".parse().unwrap())]);
    assert_eq!((limits.connections_max, limits.headers_max), (10_000, 100));
    assert_eq!((limits.head_bytes_max, limits.body_bytes_max), (65_536, None));
    assert_eq!((limits.head_timeout_ms, limits.first_byte_timeout_ms), (15_000, 10_000));
    assert_eq!((settings.upstream.interim_max, settings.unsafe_keys.len()), (8, 0));
    assert_eq!(settings.upstream.authority, "127.0.0.1:8000");
    assert_eq!((settings.upstream.connect_timeout_ms, settings.upstream.headers_max), (2_000, 200));
    assert_eq!(
        (settings.session.binding, settings.session.untracked),
        (Binding::Signed, Untracked::Pass)
    );
    let limit = &settings.limits.default;
    assert_eq!((limit.max_sessions, limit.on_limit), (Some(1), OnLimit::Evict));
    assert_eq!(limit.idle_timeout_ms, Some(1_800_000));
    assert_eq!(limit.absolute_timeout_ms, Some(43_200_000));
    assert_eq!(settings.enforcement.on_ended, OnEnded::Page);
    let place = settings.store.place.to_string();
    assert_eq!(place, "tests/config/valid/headcount.db");
    assert!(settings.admin.is_none());
    assert_eq!(settings.session.retention.tombstones_ms, 400 * 86_400_000);
}

#[test]
fn every_key_is_read() {
    let settings = valid("everything.toml");
    assert_eq!(settings.server.workers, 3);
    assert_eq!(settings.server.listen.len(), 3);
    assert!(settings.server.proxy_protocol && !settings.server.http2);
    assert!(settings.server.http2_cleartext && !settings.server.http2_websockets);
    let http2 = settings.server.limits.http2;
    assert_eq!(
        (http2.streams_max, http2.pending_resets_max, http2.control_frames_max),
        (50, 10, 200)
    );
    assert_eq!(http2.streams_per_address_max, 70);
    assert_eq!((http2.window_bytes, http2.send_buffer_bytes), (64 << 10, 32 << 10));
    assert_eq!((http2.ping_interval_ms, http2.ping_timeout_ms), (10_000, 5_000));
    let accepted = &settings.server.accepted;
    assert!(accepted.hosts.matches("www.shop.example.com") && !accepted.hosts.matches("shop"));
    assert_eq!(accepted.methods, ["GET", "POST"]);
    assert_eq!((settings.upstream.interim_max, settings.unsafe_keys.len()), (3, 5));
    assert_eq!(settings.server.unix_mode, 0o600);
    assert!(settings.server.trusted_proxies.unix);
    assert_eq!(settings.server.trusted_proxies.networks.len(), 3);
    assert_eq!(settings.server.limits.body_bytes_max, Some(1 << 30));
    assert_eq!(settings.upstream.authority, "app.internal:8000");
    assert_eq!(settings.upstream.idle_timeout_ms, 1_500);
    assert_eq!(settings.upstream.inspect_bytes_max, 32 << 10);
    assert!(settings.upstream.method_override);
    let UpstreamSettings { http_version, streams_max, resolve_interval_ms, .. } = settings.upstream;
    assert_eq!((http_version, streams_max, resolve_interval_ms), (AppHttp::Http2, 7, 10_000));
    assert_eq!(
        (settings.upstream.ping_interval_ms, settings.upstream.ping_timeout_ms),
        (5_000, 1_000)
    );
    assert!(settings.rules.logins[1].reads_answer_body());
    assert_eq!((settings.rules.steps.len(), settings.session.step_timeout_ms), (1, 300_000));
    assert_eq!(settings.rules.credentials[1].role, Role::Remember);
    assert_eq!(settings.rules.credential("shop_session").unwrap().role, Role::Session);
    let login = &settings.rules.logins[0];
    assert!(login.in_place && login.request.methods.contains("POST"));
    assert!(!login.request.methods.contains("GET"));
    assert_eq!(login.user.len(), 2);
    let success = login.success.as_ref().unwrap();
    assert!(success.status.matches(204) && success.status.matches(302));
    assert!(success.sets[1].negated && !success.sets[0].negated);
    let csrf = Csrf { cookie: "XSRF-TOKEN".to_owned(), header: "X-XSRF-TOKEN".to_owned() };
    let logout =
        AppLogout { method: "DELETE".to_owned(), path: "/session".to_owned(), csrf: Some(csrf) };
    assert_eq!(settings.enforcement.app_logout, Some(logout));
    assert!(settings.enforcement.exempt_paths.matches("/static/a/b.css"));
    assert_eq!(settings.aliases["a.liddell@example.com"], "alice");
    let admin = settings.admin.unwrap();
    assert_eq!(admin.tokens[0].role, AdminRole::Admin);
    assert_eq!(admin.tokens[1].role, AdminRole::Viewer);
    // SHA-256 of the file without its newline.
    assert_eq!(admin.tokens[1].digest[..4], [0xc0, 0x64, 0x1c, 0x9a]);
}

#[test]
fn a_server_is_shown_without_its_password() {
    let settings = valid("postgres.toml");
    let StorePlace::Postgres(postgres) = &settings.store.place else { panic!("not PostgreSQL") };
    assert_eq!((postgres.poll_interval_ms, postgres.grace_ms), (100, 3_000));
    assert_eq!((postgres.connections_max, postgres.notify, postgres.strict), (12, false, true));
    assert_eq!(settings.store.on_failure, OnFailure::Open);
    assert_eq!(postgres.server.to_string(), "postgres://db.internal:5433/sessions");
    assert!(!postgres.server.is_exposed());
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config/valid/grafana.token");
    let password = fs::read_to_string(file).unwrap();
    assert!(!format!("{settings:?}").contains(password.trim()), "the password is shown");
    let plain = Server::parse("postgres://headcount@db.internal/sessions", None).unwrap();
    assert!(plain.is_exposed());
}

#[test]
fn an_override_inherits_what_it_does_not_say() {
    let limits = valid("overrides.toml").limits;
    let of = |user| limits.of(Some(user), &Groups::default());
    let default = of("alice");
    assert_eq!(default.evict_if_idle_for_ms, Some(600_000));
    assert_eq!(of("root").max_sessions, None);
    assert_eq!(of("root").idle_timeout_ms, default.idle_timeout_ms);
    let ops = of("eve@ops.example.com");
    assert_eq!((ops.max_sessions, ops.evict_order), (Some(5), EvictOrder::OldestLogin));
    assert_eq!((ops.idle_timeout_ms, ops.absolute_timeout_ms), (Some(1_200_000), None));
    let kiosk = of("kiosk-7");
    assert_eq!((kiosk.on_limit, kiosk.evict_if_idle_for_ms), (OnLimit::Deny, None));
    assert_eq!(of("strasse").max_sessions, Some(2), "patterns are folded like names");
}

#[test]
fn the_strictest_of_a_users_groups_counts_unless_the_user_is_named() {
    let settings = valid("groups.toml");
    let of = |user, groups: &[&str]| {
        let (groups, _) = Groups::of(groups.iter().map(|name| (*name).to_owned()));
        settings.limits.of(Some(user), &groups)
    };
    let numbers = |user, groups| {
        let limit = of(user, groups);
        (limit.max_sessions, limit.idle_timeout_ms.unwrap() / 60_000)
    };
    assert_eq!(numbers("alice", &[]), (Some(2), 30));
    assert_eq!(numbers("alice", &["others"]), (Some(2), 30));
    assert_eq!(numbers("alice", &["staff"]), (Some(5), 30));
    assert_eq!(numbers("alice", &["admins", "staff"]), (Some(5), 5), "each in the strictest form");
    assert_eq!(numbers("alice", &["admins"]), (None, 5));
    assert_eq!(numbers("alice", &["contractors-emea", "staff"]), (Some(1), 30));
    assert_eq!(of("alice", &["contractors-emea"]).on_limit, OnLimit::Deny);
    assert_eq!(numbers("root", &["contractors-emea"]), (Some(9), 30));
    let nobody = settings.limits.of(None, &Groups::from_text(Some("staff")));
    assert_eq!(nobody.max_sessions, Some(2));
}

#[test]
fn a_file_replaces_a_preset_key_by_key_and_list_by_list() {
    let settings = valid("preset_overlay.toml");
    assert_eq!(settings.preset.as_deref(), Some("django"));
    assert_eq!(settings.rules.logins.len(), 1);
    assert!(settings.rules.logins[0].request.path.matches("/sign-in/"));
    assert!(!settings.rules.logins[0].request.path.matches("/accounts/login/"));
    assert_eq!(settings.rules.logouts.len(), 1, "the preset's");
    assert_eq!(settings.enforcement.login_url.as_deref(), Some("/sign-in/"));
    let logout = settings.enforcement.app_logout.unwrap();
    assert_eq!((logout.path.as_str(), logout.csrf.is_some()), ("/sign-out/", true));
}

#[test]
fn every_preset_stands_by_itself() {
    for preset in preset::PRESETS {
        let settings = parse(&format!("{MINIMAL}[app]\npreset = \"{}\"\n", preset.name)).unwrap();
        assert!(!settings.rules.credentials.is_empty());
        // HTTP Basic knows neither.
        let ruled = preset.name != "basic-auth";
        assert_eq!(!settings.rules.logins.is_empty(), ruled, "{}", preset.name);
        assert_eq!(!settings.rules.logouts.is_empty(), ruled, "{}", preset.name);
        // Tomcat shows its form on every protected page; scripts and HTTP Basic have no page for it.
        let pageless = ["tomcat-form", "drf-simplejwt", "jwt-spa", "basic-auth"];
        let page = !pageless.contains(&preset.name);
        assert_eq!(settings.enforcement.login_url.is_some(), page, "{}", preset.name);
        // How, or that it must not be.
        let said = preset.toml.contains("\napp_logout = \"none\"\n");
        assert_ne!(settings.enforcement.app_logout.is_some(), said, "{}", preset.name);
    }
}

/// With UPDATE_EXPECT=1 the texts are written instead; read them in the diff.
#[test]
fn the_policy_is_told_in_these_sentences() {
    for name in ["minimal", "everything", "overrides", "scopes"] {
        let told = explain(&valid(&format!("{name}.toml")));
        for line in told.lines() {
            assert!(line.chars().count() <= 90 || line.matches(' ').count() < 5, "{line}");
        }
        let file = format!("{}/tests/config/valid/{name}.explained", env!("CARGO_MANIFEST_DIR"));
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            fs::write(&file, &told).unwrap();
        }
        assert_eq!(told, fs::read_to_string(&file).unwrap_or_default(), "{name}");
    }
}

#[test]
fn a_number_may_come_from_the_environment() {
    let text = format!("{MINIMAL}[app]\npreset = \"django\"\n").replace("= 1", "= \"${APP_PORT}\"");
    assert_eq!(parse(&text).unwrap().limits.default.max_sessions, Some(8000));
}

#[test]
fn line_endings_and_byte_order_mark_do_not_matter() {
    let text = format!("{MINIMAL}[app]\npreset = \"django\"\n");
    for text in [text.replace('\n', "\r\n"), format!("\u{feff}{text}")] {
        assert!(parse(&text).is_ok());
    }
}

#[test]
fn a_file_that_cannot_be_read_says_so() {
    let missing = config::load(Path::new("no/such/file.toml")).unwrap_err().to_string();
    assert!(missing.starts_with("error: cannot read no/such/file.toml: "), "{missing}");
    let folder = tempfile::tempdir().unwrap();
    let latin1 = folder.path().join("latin1.toml");
    fs::write(&latin1, b"[app]\nname = \"caf\xe9\"\n").unwrap();
    let report = config::load(&latin1).unwrap_err().to_string();
    assert!(report.contains("line 2 is not UTF-8"), "{report}");
}

#[test]
fn secrets_never_stand_in_a_message() {
    let secret = "hunter2hunter2";
    let lines = [
        format!("tokens = [{{ name = \"ops\", role = \"boss\", secret = \"{secret}\" }}]"),
        format!("tokens = [{{ name = \"ops\", role = \"viewer\", secret = \"{secret}\" }}]"),
        format!(
            "tokens = [{{ name = \"ops\", role = \"viewer\", secrets = 1, secret = '''{secret}''' }}]"
        ),
        format!("tokens = [{{ name = , secret = \"{secret}\" }}]"),
        format!("tokens = [{{ name = \"ops\", role = \"viewer\", secret = \"{secret} }}]"),
        format!("[[admin.tokens]]\nname = \"ops\"\nrole = \"viewer\"\nsecret = \"{secret}\""),
    ];
    for line in lines {
        let report =
            parse(&format!("{MINIMAL}[app]\npreset = \"django\"\n[admin]\n{line}")).unwrap_err();
        assert!(!report.contains("hunter2"), "{report}");
    }
    let short = "[admin]\ntokens = [{ name = \"ops\", role = \"viewer\", secret = \"${SHORT}\" }]";
    let report = parse(&format!("{MINIMAL}[app]\npreset = \"django\"\n{short}")).unwrap_err();
    assert!(!report.contains("hunter2"), "{report}");
}

/// Random damage to a real file: problems, never a panic.
#[test]
fn damaged_files_do_not_panic() {
    let pool = [
        "\"",
        "'",
        "[",
        "]",
        "{",
        "}",
        "=",
        "#",
        "\n",
        "\\",
        "${",
        "$${",
        "}",
        "é",
        "\u{202e}",
        "\0",
        "9999999999999999999",
        "-1",
        "1.5",
        "true",
        "1979-05-27",
        "[[limit]]",
        "[limit.override]",
        "\"none\"",
        "\"90s\"",
        "[limit]",
        "[[login]]",
        "a.b.c",
        "\"\"\"",
        ",",
        "|",
        "split(",
        "*",
    ];
    let texts = [
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("config/headcount.toml"))
            .unwrap(),
        fs::read_to_string(
            Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config/valid/everything.toml"),
        )
        .unwrap(),
    ];
    let texts = texts.map(|text| text.replace("\n# ", "\n"));
    // A fixed sequence (xorshift), so that a failure can be repeated.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    for round in 0..1_500 {
        let mut text = texts[round % 2].clone();
        for _ in 0..1 + next(4) {
            let mut at = next(text.len() + 1);
            while !text.is_char_boundary(at) {
                at -= 1;
            }
            let mut end = (at + next(20)).min(text.len());
            while !text.is_char_boundary(end) {
                end -= 1;
            }
            match next(3) {
                0 => text.replace_range(at..end.max(at), ""),
                1 => text.insert_str(at, pool[next(pool.len())]),
                _ => text.replace_range(at..end.max(at), pool[next(pool.len())]),
            }
        }
        if let Err(report) = parse(&text) {
            assert!(report.contains("error: "));
        }
    }
}
