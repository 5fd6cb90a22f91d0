//! Value expressions as written, and whether they fit where they stand.

use crate::rules::expression::{Expression, FILTERS, PLACES, Place as Source};
use crate::rules::matcher::{Glob, Patterns};

use super::super::super::reader::{At, Table};
use super::super::super::tree::{Node, Value};
use super::super::super::wording::nearest;
use super::{is_cookie_pattern, is_header_name};

/// On which side of the app a value is looked for.
#[derive(Clone, Copy)]
pub(in crate::config::schema) enum Side {
    Request,
    Response,
    Either,
    /// The answer to a probe, and the name that went with it.
    Asked,
}

pub(in crate::config::schema) fn expressions(
    table: &mut Table<'_>,
    key: &'static str,
    side: Side,
) -> Vec<Expression> {
    let written = table.texts(key);
    written.iter().filter_map(|written| expression(table, key, written, side)).collect()
}

fn expression(
    table: &Table<'_>,
    key: &str,
    written: &At<String>,
    side: Side,
) -> Option<Expression> {
    let At { value, at } = written;
    let expression = match Expression::parse(value) {
        Ok(expression) => expression,
        Err(allowed) => {
            let what = match meant(value) {
                Some(word) => &format!("does not say where a value is; did you mean `{word}`?"),
                None => "does not say where a value is",
            };
            table.wrong(key, at, what, &allowed);
            return None;
        }
    };
    let cookie_fits = match &expression.place {
        Source::Cookie(name) | Source::Set(name) => is_cookie_pattern(&name.to_string()),
        Source::Header(name) | Source::ResponseHeader(name) => is_header_name(name),
        Source::Form(_)
        | Source::Json(_)
        | Source::Query(_)
        | Source::Path(_)
        | Source::Basic
        | Source::BasicUser
        | Source::Probe
        | Source::Step
        | Source::Location
        | Source::ResponseJson(_)
        | Source::ResponseText(_) => true,
    };
    if !cookie_fits {
        let allowed = "a name of letters, digits, `-`, `_` and the like";
        table.wrong(key, at, "names no cookie or header", allowed);
    }
    if expression.reads_claims() && !expression.is_response() {
        // Anybody can write a token; its signature is the app's business.
        let allowed = "claims are used only from tokens the app just issued: rjson:, set:, \
                       rheader:, location: or rbody: before `| jwt(…)`";
        table.wrong(key, at, "reads the claims of a token that the client sent", allowed);
    }
    let user_only = matches!(expression.place, Source::Probe | Source::Path(_));
    if user_only && !matches!(side, Side::Either) {
        let allowed = "probe: and path: only in the `user` of a [[login]] or [[step]]";
        table.wrong(key, at, "says who it is, not what happened", allowed);
    }
    match (side, expression.is_response()) {
        (Side::Request, true) => {
            let allowed = "form:, json:, query:, header:, cookie:, basic:user or step:; what the \
                           app answers belongs into `success`";
            table.wrong(key, at, "looks into the response, which is not there yet", allowed);
        }
        (Side::Response, false) => {
            let allowed = "set:, rheader:, location:, rjson: or rbody:; what is asked belongs \
                           into `request`";
            table.wrong(key, at, "looks into the request, which proves nothing", allowed);
        }
        (Side::Asked, false) if expression.place != Source::BasicUser => {
            let allowed = "rjson:, rheader: or rbody: of the answer, or basic:user";
            table.wrong(key, at, "is not what the app says when asked", allowed);
        }
        (Side::Request | Side::Either | Side::Asked, false)
        | (Side::Response | Side::Either | Side::Asked, true) => {}
    }
    Some(expression)
}

/// The place or filter that was probably meant by the first word that is none.
fn meant(written: &str) -> Option<String> {
    let mut parts = written.split('|');
    let place = parts.next()?.split(':').next()?.trim();
    let places: Vec<&str> = PLACES.split(", ").filter_map(|word| word.split(':').next()).collect();
    if written.contains(':') && !places.contains(&place) {
        return nearest(place, &places).map(|word| format!("{word}:"));
    }
    let filters: Vec<&str> =
        FILTERS.split(", ").filter_map(|word| word.split('(').next()).collect();
    let mut names = parts.filter_map(|part| part.split('(').next()).map(str::trim);
    let wrong = names.find(|name| !filters.contains(name))?;
    nearest(wrong, &filters).map(str::to_owned)
}

/// `is = { "form:action" = "login" }`.
pub(super) fn conditions(table: &mut Table<'_>, side: Side) -> Vec<(Expression, Patterns)> {
    let mut conditions = Vec::new();
    for (written, node) in table.pairs("is") {
        let values: Vec<String> =
            table.to_nodes(node).into_iter().filter_map(|item| value(table, item)).collect();
        if let Some(expression) = expression(table, "is", &written, side) {
            let patterns = Patterns::new(values.iter().map(String::as_str), Glob::name);
            conditions.push((expression, patterns));
        }
    }
    conditions
}

/// A value to compare with; numbers and truth values as JSON writes them.
fn value(table: &Table<'_>, item: Node) -> Option<String> {
    match item.value {
        Value::Text(text) => Some(text),
        Value::Integer(number) => Some(number.to_string()),
        Value::Flag(flag) => Some(flag.to_string()),
        Value::Broken => None,
        Value::Other | Value::List(_) | Value::Table(_) => {
            let allowed = "text, a whole number, true or false, or a list of them";
            table.wrong("is", &item.at, "cannot be compared with", allowed);
            None
        }
    }
}
