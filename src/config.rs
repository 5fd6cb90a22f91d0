//! A configuration file → checked [`Settings`], or a [`Report`] of everything that is wrong with
//! it. Presets are laid under the operator's file here; which keys there are is told in `schema`.
//! The only module that knows key names and defaults.

mod diagnostic;
mod fixed;
mod reader;
mod schema;
mod tree;
mod units;
mod wording;

use std::path::Path;

use sha2::{Digest as _, Sha256};

use crate::rules::preset;
use crate::settings::Settings;

pub use diagnostic::Report;
use diagnostic::{Problems, Source};
pub use fixed::{Fixed, fixed};
use tree::{Entries, Environment, Value};

/// Reads the file and the environment of the process.
pub fn load(path: &Path) -> Result<Settings, Report> {
    let name = path.display().to_string();
    let text = std::fs::read(path).map_err(|error| {
        Report::plain(
            &format!("cannot read {name}: {error}"),
            "the path of a configuration file that this user may read",
        )
    })?;
    let text = String::from_utf8(text).map_err(|error| {
        let line = error.as_bytes()[..error.utf8_error().valid_up_to()]
            .iter()
            .filter(|byte| **byte == b'\n')
            .count()
            + 1;
        Report::plain(&format!("{name}: line {line} is not UTF-8"), "a TOML file saved as UTF-8")
    })?;
    parse(&name, &text, &|name| std::env::var(name).ok())
}

/// Reads a text. Paths in it are relative to the folder of `file_name`, and files it names with
/// `secret_file` are read.
pub fn parse(
    file_name: &str,
    text: &str,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Settings, Report> {
    let problems = Problems::default();
    let (entries, secrets) = tree::parse(0, text, env, &problems);
    let mut sources = vec![Source { name: file_name.to_owned(), text: text.to_owned(), secrets }];
    let settings = entries.map(|entries| {
        let (entries, preset_known) = with_preset(entries, env, &problems, &mut sources);
        let folder = Path::new(file_name).parent().unwrap_or(Path::new(""));
        let context = schema::Context { folder, env, preset_known };
        schema::settings(entries, &problems, &context)
    });
    match settings {
        Some(settings) if problems.is_empty() => {
            let written = sources[0].without_secrets().into();
            Ok(Settings { fingerprint: fingerprint(text), written, ..settings })
        }
        _ => Err(problems.into_report(&sources)),
    }
}

fn fingerprint(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

/// Lays the file over the preset it names; says whether there is one of that name, if any is given.
fn with_preset(
    entries: Entries,
    env: Environment<'_>,
    problems: &Problems,
    sources: &mut Vec<Source>,
) -> (Entries, bool) {
    let written = entries.get("app").and_then(|app| match &app.node.value {
        Value::Table(app) => app.get("preset"),
        _ => None,
    });
    let Some(written) = written else { return (entries, true) };
    let Value::Text(name) = &written.node.value else { return (entries, true) };
    let Some(preset) = preset::find(name) else {
        let names: Vec<&str> = preset::PRESETS.iter().map(|preset| preset.name).collect();
        let hint = wording::nearest(name, &names)
            .map(|near| format!("; did you mean \"{near}\"?"))
            .unwrap_or_default();
        let names = wording::alternatives(names.iter().map(|name| format!("\"{name}\"")));
        problems.wrong(
            &written.node.at,
            format!("there is no preset of this name{hint}"),
            format!("{names}; for another app leave it out and describe the app with [[credential]], [[login]] and [[logout]]"),
        );
        return (entries, false);
    };
    let (under, secrets) = tree::parse(1, preset.toml, env, problems);
    let name = format!("preset {}", preset.name);
    sources.push(Source { name, text: preset.toml.to_owned(), secrets });
    let mut under = under.unwrap_or_default();
    tree::overlay(&mut under, entries);
    (under, true)
}
