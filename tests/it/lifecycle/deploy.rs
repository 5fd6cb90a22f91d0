//! The files to start from in `config/deploy`, checked by the tools they are for, and by the program
//! where they hold its configuration.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::support::top;

pub(super) fn file(name: &str) -> PathBuf {
    top().join("config/deploy").join(name)
}

/// What it says; fails when it fails.
#[track_caller]
pub(super) fn run(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = match command.output() {
        Ok(output) => output,
        Err(error) => panic!("{command:?}: {error}; tests/setup installs it"),
    };
    let said = [stdout, stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert!(status.success(), "{command:?}: {said}");
    said
}

fn python(module: &str) -> Command {
    let mut command = Command::new(top().join(".venv/bin/python"));
    command.args(["-m", module]);
    command
}

#[test]
fn the_units_are_right_and_leave_little() {
    // Where the program is to be installed there is none.
    let folder = TempDir::new().unwrap();
    for name in ["headcount.service", "headcount.socket"] {
        let text = std::fs::read_to_string(file(name)).unwrap();
        let program = env!("CARGO_BIN_EXE_headcount");
        let text = text.replace("/usr/local/bin/headcount", program);
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let units = ["headcount.service", "headcount.socket"].map(|name| folder.path().join(name));
    let said = run(Command::new("systemd-analyze").args(["verify", "--man=no"]).args(&units));
    assert!(!said.contains("headcount"), "{said}");
    // Of 100, as systemd counts what a service could do; ordinary ones have more than 90.
    let mut security = Command::new("systemd-analyze");
    security.args(["security", "--offline=true", "--threshold=15"]).arg(&units[0]);
    run(&mut security);
}

#[test]
fn the_compose_file_is_right() {
    let mut check = python("check_jsonschema");
    run(check.args(["--builtin-schema", "vendor.compose-spec"]).arg(file("compose.yaml")));
}

#[test]
fn the_kubernetes_manifest_is_right() {
    let manifest = file("kubernetes.yaml");
    let said = run(python("kubernetes_validate").arg("--strict").arg(&manifest));
    let resources = ["configmap/headcount", "deployment/app", "service/app"];
    assert!(resources.iter().all(|name| said.contains(name)), "{said}");
    // The configuration in it, as the container sees it.
    let text = std::fs::read_to_string(&manifest).unwrap();
    let toml: Vec<&str> = text
        .lines()
        .skip_while(|line| !line.ends_with("headcount.toml: |"))
        .skip(1)
        .take_while(|line| line.is_empty() || line.starts_with("    "))
        .map(str::trim_start)
        .collect();
    assert!(toml.len() > 10, "{toml:?}");
    check_configuration(&toml.join("\n"));
}

#[track_caller]
fn check_configuration(toml: &str) {
    let folder = TempDir::new().unwrap();
    let path: &Path = &folder.path().join("headcount.toml");
    std::fs::write(path, toml).unwrap();
    let mut check = Command::new(env!("CARGO_BIN_EXE_headcount"));
    check.args(["check", "-c"]).arg(path).env("HEADCOUNT_ADMIN_TOKEN", "0123456789abcdef");
    run(&mut check);
}
