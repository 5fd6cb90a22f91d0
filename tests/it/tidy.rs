//! The layout of the project, held: who may use whom, what a file may hold and how long it may
//! get, and that the documents name what there is. No test here runs the program.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use headcount::audit::EventKind;
use headcount::metrics::{Levels, Metrics};
use headcount::refusal::Refusal;
use headcount::rules::preset::PRESETS;
use headcount::session::EndReason;

use crate::support::top;

/// The modules and their files in `name/`, from the lowest rank to the highest. A file may use
/// modules of lower ranks and its own family, nothing else. A new file is entered here.
const RANKS: &[&[(&str, &[&str])]] = &[
    &[
        ("descriptors", &[]),
        ("device", &[]),
        ("fetch", &[]),
        ("geo", &[]),
        ("idle", &[]),
        ("lifecycle", &[]),
        ("pace", &[]),
        ("path", &[]),
        ("peer", &[]),
        ("private_file", &[]),
        ("proxy_protocol", &[]),
        ("refusal", &[]),
        ("rules", &["expression", "matcher", "preset", "template"]),
        ("session", &["groups"]),
        ("slots", &[]),
        ("socket", &[]),
        ("tunnel", &["frames"]),
    ],
    &[
        ("body", &["app"]),
        ("clock", &[]),
        ("cookies", &[]),
        ("evictions", &[]),
        ("fields", &["part"]),
        ("keyring", &["file"]),
        ("metrics", &["levels"]),
        ("own_pages", &[]),
        ("pages", &["language", "sessions"]),
        ("policy", &["groups"]),
        ("report", &["shared"]),
        ("steps", &[]),
        ("user_limits", &[]),
    ],
    &[("audit", &["trail"]), ("enforce", &[]), ("inspect", &[]), ("stamp", &[]), ("url", &[])],
    &[
        (
            "store",
            &[
                "migrate",
                "postgres",
                "postgres/batch",
                "postgres/link",
                "postgres/person",
                "postgres/prune",
                "postgres/replica",
                "postgres/rows",
                "postgres/schema",
                "postgres/write",
                "postgres/writer",
                "sqlite",
                "sqlite/backup",
                "sqlite/person",
                "sqlite/place",
                "sqlite/prune",
                "sqlite/rows",
                "sqlite/writer",
            ],
        ),
        ("terminal", &[]),
    ],
    &[
        ("decide", &[]),
        (
            "registry",
            &["arena", "bounded", "entry", "group_sets", "records", "table", "table/burial"],
        ),
        ("set_cookie", &[]),
        ("settings", &["clients", "log", "store", "strictness", "upstream"]),
    ],
    &[("client_change", &[]), ("explain", &["limits", "rules", "standards", "words"])],
    &[
        (
            "admin",
            &[
                "api",
                "api/backup",
                "api/document",
                "api/events",
                "api/keys",
                "api/person",
                "api/report",
                "api/sessions",
                "api/users",
                "api/views",
                "auth",
                "calls",
                "connection",
                "page",
                "page/render",
                "page/sign_in",
                "page/acts",
                "page/shows",
                "page/words",
                "problem",
            ],
        ),
        ("client", &[]),
        ("conn", &["frames", "framing", "state", "streams"]),
        ("credentials", &[]),
        ("detect", &["answer", "groups", "tokens"]),
        ("identity", &[]),
        ("logging", &["line"]),
        ("probes", &[]),
        ("recorder", &[]),
        ("tls", &["app", "validity"]),
    ],
    &[
        (
            "config",
            &[
                "diagnostic",
                "fixed",
                "reader",
                "schema",
                "schema/clients",
                "schema/enforcement",
                "schema/groups",
                "schema/operation",
                "schema/pages",
                "schema/policy",
                "schema/probe",
                "schema/recognition",
                "schema/recognition/credentials",
                "schema/recognition/expressions",
                "schema/scope",
                "schema/self_service",
                "schema/server",
                "schema/store",
                "schema/strictness",
                "schema/tls",
                "schema/upstream",
                "tree",
                "units",
                "wording",
            ],
        ),
        ("headers", &["websocket"]),
        ("issue", &[]),
        (
            "listener",
            &[
                "addresses",
                "arrival",
                "bind",
                "http1",
                "http2",
                "inherited",
                "pulse",
                "websocket",
                "workers",
            ],
        ),
        ("upstream", &["connect", "http2", "names", "pool", "strict"]),
    ],
    &[(
        "proxy",
        &[
            "answer",
            "app_logout",
            "clients",
            "guest",
            "live",
            "login",
            "own_form",
            "own_request",
            "payload",
            "probe",
            "self_service",
            "step",
            "told",
            "watch",
        ],
    )],
    &[("server", &["background", "control", "reload", "storage", "supervisor"])],
    &[
        ("demo", &["app", "story", "story/browser"]),
        (
            "learn",
            &[
                "credentials",
                "har",
                "login",
                "logout",
                "naming",
                "presets",
                "probe",
                "record",
                "recording",
                "replay",
                "verify",
                "write",
            ],
        ),
    ],
    &[("attempt", &["form"])],
    &[(
        "cli",
        &[
            "args", "attempt", "backup", "help", "key", "learn", "local", "remote", "report",
            "users",
        ],
    )],
];

/// Files that hold functions of values only. `credentials` and `issue` read memory and keys, but
/// no more than that either.
const PURE: &[&str] = &[
    "client",
    "cookies",
    "credentials",
    "decide",
    "detect",
    "enforce",
    "headers",
    "headers/websocket",
    "identity",
    "issue",
    "pages",
    "pages/language",
    "path",
    "peer",
    "policy",
    "proxy_protocol",
    "refusal",
    "rules",
    "rules/matcher",
    "rules/preset",
    "session",
    "set_cookie",
    "stamp",
    "url",
];

/// What a pure file does not name.
const IMPURE: &[&str] =
    &["tokio", "hyper", "sqlx", "std::net::Tcp", "std::fs", "SystemTime", "Instant::now"];

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;
const ARCHITECTURE_LINES_MAX: usize = 150;

/// A file under `src/`: its name (`rules/matcher`) and its text.
struct File {
    name: String,
    text: String,
}

impl File {
    /// The first part of the name: the module everybody else sees.
    fn family(&self) -> &str {
        self.name.split('/').next().unwrap()
    }

    /// Whether it is there for tests only; such a file has no rank.
    fn is_for_tests(&self) -> bool {
        self.name == "testing" || self.name.ends_with("/tests")
    }

    /// The code without comments and without the tests at the end.
    fn code(&self) -> String {
        let text = self.text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        code.collect::<Vec<_>>().join("\n")
    }
}

/// Every file under `src/` but `lib.rs` and `main.rs`, which may use everything.
fn sources() -> Vec<File> {
    let mut files = Vec::new();
    for path in rust_files(&top().join("src")) {
        let name = path.strip_prefix("src/").unwrap().strip_suffix(".rs").unwrap().to_owned();
        if name != "lib" && name != "main" {
            files.push(File { name, text: read(&path) });
        }
    }
    assert!(files.len() > 50, "the sources are not where they should be");
    files
}

/// The paths of all Rust files in `folder`, from the top of the project.
fn rust_files(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path.strip_prefix(top()).unwrap().to_str().unwrap().to_owned());
        }
    }
    found.sort();
    found
}

#[track_caller]
fn read(path: &str) -> String {
    fs::read_to_string(top().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Fails with every fault at once.
#[track_caller]
fn none(faults: &[String]) {
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

/// The modules a piece of code names: the first part of each `crate::` path.
fn used(code: &str) -> Vec<String> {
    let mut names = Vec::new();
    for rest in code.split("crate::").skip(1) {
        match rest.strip_prefix('{') {
            None => names.push(word(rest)),
            Some(group) => {
                let group = outer_names(group);
                names.extend(group.split(',').map(|name| word(name.trim())));
            }
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

/// A `use` group from behind its brace to its end, without the braces within.
fn outer_names(group: &str) -> String {
    let mut depth = 1;
    let mut outer = String::new();
    for character in group.chars() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ if depth == 1 => outer.push(character),
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    outer
}

/// The identifier at the start of a text.
fn word(text: &str) -> String {
    text.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect()
}

#[test]
fn a_file_uses_only_modules_of_lower_ranks() {
    let mut ranks = BTreeMap::new();
    let mut entered = Vec::new();
    for (rank, modules) in RANKS.iter().enumerate() {
        for (module, children) in *modules {
            assert!(ranks.insert(*module, rank).is_none(), "{module} has two ranks");
            entered.push((*module).to_owned());
            entered.extend(children.iter().map(|child| format!("{module}/{child}")));
        }
    }
    let files = sources();
    let mut faults = Vec::new();
    for name in &entered {
        if !files.iter().any(|file| file.name == *name) {
            faults.push(format!("{name} has a rank and no file"));
        }
    }
    for file in files.iter().filter(|file| !file.is_for_tests()) {
        if !entered.contains(&file.name) {
            faults.push(format!("src/{}.rs has no rank: enter it in tests/it/tidy.rs", file.name));
            continue;
        }
        let family = file.family();
        for other in used(&file.code()) {
            match ranks.get(other.as_str()) {
                _ if other == family => {}
                None => faults.push(format!("src/{}.rs uses {other}, of no rank", file.name)),
                Some(rank) if *rank >= ranks[family] => {
                    let (own, name) = (ranks[family], &file.name);
                    faults.push(format!("src/{name}.rs (rank {own}) uses {other} (rank {rank})"));
                }
                Some(_) => {}
            }
        }
    }
    none(&faults);
}

#[test]
fn use_lines_are_read_as_the_compiler_reads_them() {
    let code = "use crate::a::{b, c};\nuse crate::{d, e::{f, g},\n    h};\nlet x = crate::i::j();";
    assert_eq!(used(code), ["a", "d", "e", "h", "i"]);
}

#[test]
fn the_core_names_no_runtime_no_files_and_no_clock() {
    let files = sources();
    let mut faults = Vec::new();
    for name in PURE {
        let file = files.iter().find(|file| file.name == *name).expect(name);
        for word in IMPURE.iter().filter(|word| file.code().contains(**word)) {
            faults.push(format!("src/{name}.rs names {word}"));
        }
    }
    none(&faults);
}

#[test]
fn every_file_says_what_it_is_for_and_stays_small() {
    let mut faults = Vec::new();
    for folder in ["src", "tests/it"] {
        for path in rust_files(&top().join(folder)) {
            let text = read(&path);
            if !text.starts_with("//!") {
                faults.push(format!("{path} does not open with `//!`"));
            }
            let lines = text.lines().count();
            if folder == "src" && lines > FILE_LINES_MAX {
                faults.push(format!("{path} has {lines} lines"));
            }
            if folder == "src" {
                faults.extend(long_functions(&path, &text));
            }
        }
    }
    none(&faults);
}

/// Functions that are too long. The source is formatted, so a function ends at the first line
/// with nothing but a brace in the column where the function began.
fn long_functions(path: &str, text: &str) -> Vec<String> {
    let lines: Vec<&str> = text.lines().collect();
    let mut faults = Vec::new();
    for (first, line) in lines.iter().enumerate() {
        let start = line.trim_start();
        let before = start.split("fn ").next().unwrap_or_default();
        let begins = start.contains("fn ")
            && before
                .split_whitespace()
                .all(|word| matches!(word, "pub" | "async" | "const") || word.starts_with("pub("));
        if !begins || line.ends_with(';') || line.ends_with('}') {
            continue;
        }
        let end = format!("{}}}", &line[..line.len() - start.len()]);
        let length = lines[first..].iter().position(|line| *line == end).map_or(1, |last| last + 1);
        if length > FUNCTION_LINES_MAX {
            faults.push(format!("{path}:{}: {length} lines: {start}", first + 1));
        }
    }
    faults
}

/// `make soak` runs what has the word in its name.
#[test]
fn what_is_longer_in_a_soak_is_found_by_its_name() {
    let asks = concat!("soak", "()");
    let mut faults = Vec::new();
    for path in rust_files(&top().join("tests/it")) {
        let text = read(&path);
        for test in text.split("\n#[test]\n").skip(1) {
            let body = test.split("\n}\n").next().unwrap_or_default();
            let name = body.split_once("fn ").map_or(String::new(), |(_, rest)| word(rest));
            if body.contains(asks) && !name.contains("soak") {
                faults.push(format!("{path}: {name}"));
            }
        }
    }
    none(&faults);
}

#[test]
fn names_say_what_a_thing_is() {
    let mut faults = Vec::new();
    for path in rust_files(&top().join("src")).into_iter().chain(rust_files(&top().join("tests"))) {
        for part in path.trim_end_matches(".rs").split(['/', '_']) {
            if ["manager", "helper", "helpers", "util", "utils", "common", "misc"].contains(&part) {
                faults.push(format!("{path}: {part}"));
            }
        }
        for line in read(&path).lines() {
            for kind in ["struct ", "enum ", "trait ", "type "] {
                let Some((before, name)) = line.split_once(kind) else { continue };
                let declares = before.trim().is_empty() || before.trim().starts_with("pub");
                let name = word(name);
                if declares && ["Manager", "Helper", "Util"].iter().any(|bad| name.contains(bad)) {
                    faults.push(format!("{path}: {name}"));
                }
            }
        }
    }
    none(&faults);
}

#[test]
fn nothing_is_left_for_later() {
    // Written apart, so that this file does not name them.
    let marks = [
        concat!("todo", "!("),
        concat!("unimplemented", "!("),
        concat!("FIX", "ME"),
        concat!("XX", "X"),
        concat!("#[ig", "nore"),
    ];
    let mut faults = Vec::new();
    for path in rust_files(&top().join("src")).into_iter().chain(rust_files(&top().join("tests"))) {
        for (number, line) in read(&path).lines().enumerate() {
            for mark in marks.iter().filter(|mark| line.contains(**mark)) {
                faults.push(format!("{path}:{}: {mark}", number + 1));
            }
        }
    }
    none(&faults);
}

#[test]
fn the_architecture_can_be_read_in_one_sitting() {
    let lines = read("ARCHITECTURE.md").lines().count();
    assert!(lines <= ARCHITECTURE_LINES_MAX, "ARCHITECTURE.md has {lines} lines");
}

#[test]
fn every_preset_has_a_section() {
    let page = read("docs/frameworks.md");
    let missing = PRESETS.iter().filter(|preset| {
        !page
            .lines()
            .any(|line| line.starts_with('#') && line.contains(&format!("`{}`", preset.name)))
    });
    none(&missing.map(|preset| format!("docs/frameworks.md: {}", preset.name)).collect::<Vec<_>>());
}

#[test]
fn every_key_is_explained() {
    let page = read("docs/configuration.md");
    let mut faults = Vec::new();
    for line in read("config/headcount.toml").lines() {
        let line = line.trim_start_matches(['#', ' ']);
        let written = if line.starts_with('[') {
            line.split(']').next().unwrap().replace('[', "")
        } else {
            let key = word(line);
            if !line[key.len()..].starts_with(" = ") {
                continue;
            }
            key
        };
        if written.is_empty()
            || !written.chars().all(|c| c.is_ascii_lowercase() || "_.".contains(c))
        {
            continue;
        }
        if !page.contains(&format!("`{written}`")) && !page.contains(&format!("[{written}]")) {
            faults.push(format!("docs/configuration.md does not tell {written}"));
        }
    }
    none(&faults);
}

#[test]
fn every_dependency_says_what_it_is_for() {
    let manifest = read("Cargo.toml");
    let dependencies = manifest.split("[dependencies]\n").nth(1).unwrap();
    let dependencies = dependencies.split("\n[").next().unwrap();
    let mut faults = Vec::new();
    let mut explained = false;
    for line in dependencies.lines() {
        if line.starts_with('#') {
            explained = true;
        } else if line.trim().is_empty() {
            explained = false;
        } else if !explained {
            faults.push(format!("Cargo.toml: {line}"));
        }
    }
    none(&faults);
}

#[test]
fn every_event_metric_and_reason_is_documented() {
    let metrics = Metrics::new();
    metrics.read_levels(Levels::default);
    let shown = metrics.encode();
    let mut names: Vec<String> =
        shown.lines().filter_map(|line| line.strip_prefix("# TYPE ")).map(word).collect();
    assert!(names.len() > 15, "the metrics are read wrongly");
    names.extend(EventKind::ALL.iter().map(|kind| kind.as_str().to_owned()));
    names.extend(Refusal::ALL.iter().map(|refusal| refusal.code().to_owned()));
    names.extend(EndReason::ALL.iter().map(|reason| reason.as_str().to_owned()));
    let page = read("docs/operations.md");
    let missing = names.iter().filter(|name| !page.contains(name.as_str()));
    none(&missing.map(|name| format!("docs/operations.md: {name}")).collect::<Vec<_>>());
}
