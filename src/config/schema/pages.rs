//! Keys and defaults of `[pages]`: how our pages look and what language they are in. Templates are read
//! and tried here, so that a mistake in them is found before anything starts.

use std::sync::Arc;

use crate::pages::{Language, Pages, TEMPLATES, Theme};

use super::super::reader::{At, Table};
use super::Context;

/// A template is a page, not a store.
const TEMPLATE_BYTES_MAX: u64 = 256 * 1024;
const TEXT_CHARS_MAX: usize = 200;

/// `[pages]`.
pub(super) fn pages(root: &mut Table<'_>, context: &Context<'_>) -> Arc<Pages> {
    let mut table = root.table("pages");
    let languages = Language::ALL.map(|language| (language.tag(), language));
    let language = table.choice("language", Language::English, &languages, &[]);
    let name = text(&mut table, "name");
    let support = text(&mut table, "support");
    let logo = table.text("logo");
    let logo = super::own_path(&table, "logo", logo);
    let accent = accent(&mut table);
    let directory = table.text("directory");
    let templates = directory.as_ref().map(|at| templates(&table, at, context)).unwrap_or_default();
    let theme = Theme { name, logo, accent, support };
    let pages = Pages::new(templates, theme.clone(), language).or_else(|error| {
        let at = directory.map_or_else(|| table.at.clone(), |directory| directory.at);
        let allowed = "templates like those of `headcount pages`, which begin with all there is";
        table.wrong("directory", &at, &format!("has a page that does not work: {error}"), allowed);
        Pages::new(Vec::new(), theme, language)
    });
    table.finish();
    Arc::new(pages.unwrap_or_default())
}

fn text(table: &mut Table<'_>, key: &'static str) -> Option<String> {
    let At { value, at } = table.text(key)?;
    if value.chars().count() > TEXT_CHARS_MAX || value.chars().any(char::is_control) {
        let allowed = format!("one line of up to {TEXT_CHARS_MAX} characters");
        table.wrong(key, &at, "does not fit on a page", &allowed);
    }
    Some(value)
}

fn accent(table: &mut Table<'_>) -> Option<String> {
    let At { value, at } = table.text("accent")?;
    let digits = value.strip_prefix('#').unwrap_or_default();
    if !matches!(digits.len(), 3 | 6) || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        table.wrong("accent", &at, "is not a colour", "\"#rrggbb\", like \"#0b5fff\"");
        return None;
    }
    Some(value)
}

/// Those that are there; no other file may be.
fn templates(
    table: &Table<'_>,
    directory: &At<String>,
    context: &Context<'_>,
) -> Vec<(String, String)> {
    let folder = context.folder.join(&directory.value);
    let known = TEMPLATES.map(|(name, _)| name).join(", ");
    let allowed = format!("a folder with any of {known}");
    let wrong = |what: &str| table.wrong("directory", &directory.at, what, &allowed);
    let files = match std::fs::read_dir(&folder) {
        Ok(files) => files,
        Err(error) => {
            wrong(&format!("cannot be read: {error}"));
            return Vec::new();
        }
    };
    let mut found = Vec::new();
    for file in files.flatten() {
        let name = file.file_name().to_string_lossy().into_owned();
        if !name.ends_with(".html") {
            continue;
        }
        if !TEMPLATES.iter().any(|(own, _)| *own == name) {
            wrong(&format!("has a template that no page uses, {name}"));
            continue;
        }
        let size = std::fs::metadata(file.path()).map_or(0, |about| about.len());
        match std::fs::read_to_string(file.path()) {
            _ if size > TEMPLATE_BYTES_MAX => {
                wrong(&format!("has a template of {size} bytes, {name}"));
            }
            Ok(text) => found.push((name, text)),
            Err(error) => wrong(&format!("has {name}, which cannot be read: {error}")),
        }
    }
    found
}
