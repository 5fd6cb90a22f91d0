//! The templates of the page, and what all of them are given.

use std::fmt::Write as _;

use axum::response::{Html, IntoResponse, Response};
use minijinja::{Environment, UndefinedBehavior, Value, context};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::sign_in::Visitor;
use super::words;
use crate::admin::problem::Problem;
use crate::admin::{About, Admin};
use crate::report::Report;
use crate::session::Timestamp;
use crate::settings::AdminRole;

const TEMPLATES: [(&str, &str); 17] = [
    ("layout.html", include_str!("../../../config/admin/layout.html")),
    ("parts.html", include_str!("../../../config/admin/parts.html")),
    ("sign_in.html", include_str!("../../../config/admin/sign_in.html")),
    ("error.html", include_str!("../../../config/admin/error.html")),
    ("overview.html", include_str!("../../../config/admin/overview.html")),
    ("users.html", include_str!("../../../config/admin/users.html")),
    ("user.html", include_str!("../../../config/admin/user.html")),
    ("sessions.html", include_str!("../../../config/admin/sessions.html")),
    ("session.html", include_str!("../../../config/admin/session.html")),
    ("confirm.html", include_str!("../../../config/admin/confirm.html")),
    ("events.html", include_str!("../../../config/admin/events.html")),
    ("limits.html", include_str!("../../../config/admin/limits.html")),
    ("report.html", include_str!("../../../config/admin/report.html")),
    ("report_body.html", include_str!("../../../config/admin/report_body.html")),
    ("report_printed.html", include_str!("../../../config/admin/report_printed.html")),
    ("configuration.html", include_str!("../../../config/admin/configuration.html")),
    ("print.css", include_str!("../../../config/admin/print.css")),
];

pub(super) struct Templates(Environment<'static>);

impl Templates {
    pub(super) fn new() -> Self {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        for (name, text) in TEMPLATES {
            // Each is rendered by a test; one that cannot be read is then told as not there.
            if let Err(error) = environment.add_template(name, text) {
                tracing::error!(target: "headcount::admin", %error, name, "not a template");
            }
        }
        environment.add_filter("segment", |text: &str| {
            utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
        });
        environment.add_filter("time", |ms: i64| time(Timestamp(ms)));
        environment.add_filter("iso", |ms: i64| Timestamp(ms).to_string());
        environment.add_filter("day", |ms: i64| {
            Timestamp(ms).to_string().get(..10).unwrap_or_default().to_owned()
        });
        environment.add_filter("ago", |ms: i64, now: i64| words::ago(now.saturating_sub(ms)));
        environment.add_filter("number", number);
        Self(environment)
    }

    pub(super) fn html(&self, name: &str, facts: Value) -> Result<String, minijinja::Error> {
        self.0.get_template(name)?.render(facts)
    }

    /// What every page says about this process.
    pub(super) fn about(&self, admin: &Admin) -> Value {
        about(&admin.control.about())
    }

    pub(super) fn printed(&self, of: &About, report: &Report) -> Result<String, minijinja::Error> {
        let facts = context! { about => about(of), report => report_facts(report) };
        self.html("report_printed.html", facts)
    }
}

fn about(about: &About) -> Value {
    let About { app, node, observing, fingerprint } = about;
    let version = env!("CARGO_PKG_VERSION");
    context! { app, node, observing, fingerprint, version }
}

/// One page, for somebody who is signed in.
pub(super) fn page(
    admin: &Admin,
    visitor: &Visitor,
    template: &str,
    here: &str,
    facts: Value,
) -> Result<Response, Problem> {
    let Visitor { caller, csrf } = visitor;
    let role = match caller.role {
        AdminRole::Viewer => "viewer",
        AdminRole::Operator => "operator",
        AdminRole::Admin => "admin",
    };
    let caller = context! {
        name => &*caller.name,
        role,
        ends => caller.role >= AdminRole::Operator,
        limits => caller.role >= AdminRole::Admin,
    };
    let templates = &admin.page.templates;
    let now = admin.control.now().0;
    let about = templates.about(admin);
    let facts = context! { about, caller, csrf, here, now, ..facts };
    let html = templates.html(template, facts).map_err(|error| super::broken(&error))?;
    Ok(Html(html).into_response())
}

/// The report with its times as numbers, as the templates take them.
pub(super) fn report_facts(report: &Report) -> Value {
    let tried = report.limits.iter().map(|tried| {
        let share = |part: u32| u64::from(part) * 100 / u64::from(report.logins.max(1));
        context! {
            max => tried.max_sessions,
            evicting => tried.logins_evicting,
            evicted => tried.sessions_evicted,
            in_use => tried.evicted_in_use,
            denied => tried.logins_denied,
            users => tried.users,
            evicting_share => share(tried.logins_evicting),
            denied_share => share(tried.logins_denied),
        }
    });
    let top = report.top_users.iter().map(|busy| {
        let at = busy.at.0;
        let (user, at_once, logins) = (&busy.user, busy.at_once, busy.logins);
        context! { user, at_once, at, logins, devices => busy.devices, networks => busy.networks }
    });
    let seen = |seen: &crate::report::Seen| {
        let device = seen.user_agent.as_deref().and_then(words::device);
        context! { id => seen.session.to_string(), address => seen.address.as_deref(), device }
    };
    let shared = report.likely_shared.iter().map(|account| {
        let evidence = account.evidence.iter().map(|pair| {
            let (from, until) = (pair.from.0, pair.until.0);
            context! { from, until, one => seen(&pair.one), other => seen(&pair.other) }
        });
        context! {
            user => &*account.user,
            pairs => account.pairs,
            overlap => lasting(account.overlap_s),
            evidence => evidence.collect::<Vec<_>>(),
        }
    });
    context! {
        since => report.since.0,
        until => report.until.0,
        truncated => report.truncated,
        logins => report.logins,
        users => report.users,
        limits => tried.collect::<Vec<_>>(),
        top => top.collect::<Vec<_>>(),
        shared => shared.collect::<Vec<_>>(),
    }
}

fn lasting(seconds: i64) -> String {
    match seconds {
        ..3_600 => format!("{} min", seconds / 60),
        3_600..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// A time in UTC as people read it, and as programs do.
fn time(at: Timestamp) -> Value {
    let iso = at.to_string();
    let shown = iso.get(..19).unwrap_or(&iso).replace('T', " ");
    Value::from_safe_string(format!("<time datetime=\"{iso}\">{shown}</time>"))
}

/// 1234567 → 1,234,567.
fn number(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        let _ = write!(out, "{digit}");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_template_can_be_read() {
        let templates = Templates::new();
        for (name, _) in TEMPLATES {
            assert!(templates.0.get_template(name).is_ok(), "{name}");
        }
        assert_eq!(number(1_234_567), "1,234,567");
        assert_eq!(number(12), "12");
        assert_eq!(lasting(5 * 3_600), "5 h");
    }
}
