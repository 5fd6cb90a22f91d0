//! One event as one line, in JSON or for people. Pure.

use std::fmt::{self, Write as _};

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level};

use crate::audit;
use crate::session::Timestamp;
use crate::settings::LogFormat;

/// Longest text of one field, in characters.
const FIELD_CHARS_MAX: usize = 1024;

/// The line, without its end.
pub(super) fn format(format: LogFormat, now: Timestamp, event: &Event<'_>) -> String {
    let metadata = event.metadata();
    let mut fields = Fields { keep_whole: metadata.target() == audit::TARGET, map: Map::new() };
    event.record(&mut fields);
    let level = level_name(metadata.level());
    let trail = match fields.map.get(audit::FIELD) {
        Some(Value::String(object)) if fields.keep_whole => Some(object.clone()),
        _ => None,
    };
    match (format, trail) {
        (LogFormat::Json, Some(object)) => json_audit(level, &object),
        (LogFormat::Json, None) => json(now, level, metadata.target(), fields.map),
        (LogFormat::Pretty, Some(object)) => pretty_audit(now, &object),
        (LogFormat::Pretty, None) => pretty(now, level, metadata.target(), fields.map),
    }
}

fn level_name(level: &Level) -> &'static str {
    match *level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

/// The fields of an event, cut to size.
struct Fields {
    /// An audit event is one long text, and its parts are cut already.
    keep_whole: bool,
    map: Map<String, Value>,
}

impl Fields {
    fn put(&mut self, field: &Field, value: Value) {
        self.map.insert(field.name().to_owned(), value);
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, text: &str) {
        let whole = self.keep_whole && field.name() == audit::FIELD;
        let text = match text.char_indices().nth(FIELD_CHARS_MAX) {
            Some((end, _)) if !whole => format!("{}…", &text[..end]),
            _ => text.to_owned(),
        };
        self.put(field, Value::String(text));
    }

    fn record_u64(&mut self, field: &Field, number: u64) {
        self.put(field, number.into());
    }

    fn record_i64(&mut self, field: &Field, number: i64) {
        self.put(field, number.into());
    }

    fn record_f64(&mut self, field: &Field, number: f64) {
        self.put(field, number.into());
    }

    fn record_bool(&mut self, field: &Field, is: bool) {
        self.put(field, is.into());
    }

    fn record_error(&mut self, field: &Field, error: &(dyn std::error::Error + 'static)) {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let _ = write!(text, ": {cause}");
            source = cause.source();
        }
        self.record_str(field, &text);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

fn json(now: Timestamp, level: &str, target: &str, mut fields: Map<String, Value>) -> String {
    let mut line = Map::new();
    line.insert("time".into(), now.to_string().into());
    line.insert("level".into(), level.into());
    line.insert("target".into(), target.into());
    line.insert("message".into(), fields.remove("message").unwrap_or_default());
    for (name, value) in fields {
        line.entry(name).or_insert(value);
    }
    audit::escape_json(&Value::Object(line).to_string())
}

/// `object` is a JSON object; level and target join it.
fn json_audit(level: &str, object: &str) -> String {
    let rest = object.strip_prefix('{').unwrap_or("}");
    audit::escape_json(&format!("{{\"level\":\"{level}\",\"target\":\"{}\",{rest}", audit::TARGET))
}

/// `12:00:01.123` of an RFC 3339 time.
fn clock_time(time: &str) -> &str {
    time.get(11..23).unwrap_or(time)
}

fn pretty(now: Timestamp, level: &str, target: &str, mut fields: Map<String, Value>) -> String {
    let message = fields.remove("message").unwrap_or_default();
    let mut line = String::new();
    let _ = write!(line, "{} {level:5} {target}: ", clock_time(&now.to_string()));
    line.push_str(&shown(&message));
    for (name, value) in &fields {
        let _ = write!(line, " {name}={}", shown(value));
    }
    line
}

/// `12:00:01.123 session_ended alice session=… reason=limit`; what is the same everywhere is left out.
fn pretty_audit(now: Timestamp, object: &str) -> String {
    let Ok(Value::Object(mut fields)) = serde_json::from_str(object) else {
        return audit::escape(object, FIELD_CHARS_MAX);
    };
    let now = now.to_string();
    let time = fields.remove("time");
    let mut line = clock_time(time.as_ref().and_then(Value::as_str).unwrap_or(&now)).to_owned();
    for name in ["event", "user"] {
        if let Some(value) = fields.remove(name) {
            let _ = write!(line, " {}", shown(&value));
        }
    }
    for name in ["session", "reason", "by_session", "by", "count", "limit"] {
        if let Some(value) = fields.remove(name) {
            let _ = write!(line, " {name}={}", shown(&value));
        }
    }
    for name in ["app", "node"] {
        fields.remove(name);
    }
    if fields.get("mode").and_then(Value::as_str) == Some("enforced") {
        fields.remove("mode");
    }
    for (name, value) in &fields {
        let _ = write!(line, " {name}={}", shown(value));
    }
    line
}

/// A value for people: text as it is but escaped, the rest as JSON.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => audit::escape(text, FIELD_CHARS_MAX),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;
    use tracing::Subscriber;
    use tracing_subscriber::Layer;
    use tracing_subscriber::layer::{Context, SubscriberExt};

    use super::*;
    use crate::audit::{AuditEvent, AuditLog, EventKind};
    use crate::metrics::Metrics;
    use crate::session::{EndReason, Initiator, Mode, SessionId};

    struct Capture(LogFormat, Arc<Mutex<Vec<String>>>);

    impl<S: Subscriber> Layer<S> for Capture {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            self.1.lock().push(format(self.0, Timestamp(1_500), event));
        }
    }

    fn lines(format: LogFormat, run: impl FnOnce()) -> Vec<String> {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let capture = Capture(format, Arc::clone(&lines));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(capture), run);
        std::mem::take(&mut *lines.lock())
    }

    const NASTY: &str = "a\r\nb\u{1b}[31m\u{202e}\0\u{85}\"}${jndi:x}\u{feff}\u{7f}";

    fn publish() {
        let log = AuditLog::new(
            "shop".into(),
            "n1".into(),
            None,
            Arc::new(Metrics::new()),
            Arc::default(),
        );
        let mut event = AuditEvent::new(
            EventKind::SessionEnded,
            Timestamp(61_123),
            Initiator::Policy,
            Mode::Enforce,
        );
        event.user = Some(NASTY.into());
        event.user_agent = Some("é".repeat(2000));
        log.publish(event.session(SessionId([7; 16])).reason(EndReason::Limit));
    }

    fn assert_one_clean_line(line: &str) {
        assert!(!line.contains(audit::is_invisible), "{line:?}");
    }

    #[test]
    fn json_lines_hold_and_parse_back() {
        let shown = lines(LogFormat::Json, || {
            tracing::warn!(target: "headcount::x", path = NASTY, count = 3_u64, "mess{}", "\nage");
            tracing::info!(target: "headcount::x", bytes = ?b"\xff\xfe", long = "x".repeat(5000));
        });
        for line in &shown {
            assert_one_clean_line(line);
        }
        let first: Value = serde_json::from_str(&shown[0]).unwrap();
        assert_eq!(first["path"], NASTY, "escaped, not lost");
        assert_eq!(first["message"], "mess\nage");
        assert_eq!(first["count"], 3);
        assert_eq!(first["level"], "warn");
        assert_eq!(first["target"], "headcount::x");
        assert_eq!(first["time"], "1970-01-01T00:00:01.500Z");
        assert!(shown[1].len() < 1300, "cut");
    }

    #[test]
    fn an_audit_event_is_one_flat_object() {
        let shown = lines(LogFormat::Json, publish);
        assert_one_clean_line(&shown[0]);
        let event: Value = serde_json::from_str(&shown[0]).unwrap();
        assert_eq!(event["event"], "session_ended");
        assert_eq!(event["target"], "headcount::audit");
        assert_eq!(event["level"], "info");
        assert_eq!(event["time"], "1970-01-01T00:01:01.123Z");
        assert_eq!(event["user"], NASTY);
        assert_eq!(event["app"], "shop");
        assert!(event.get("audit").is_none() && event.get("message").is_none());
    }

    #[test]
    fn lines_for_people_hold_too() {
        let shown = lines(LogFormat::Pretty, || {
            publish();
            tracing::error!(target: "headcount::x", path = NASTY, "it\nbroke");
        });
        for line in &shown {
            assert_one_clean_line(line);
        }
        assert!(shown[0].starts_with("00:01:01.123 session_ended a\\u{d}"), "{}", shown[0]);
        assert!(shown[0].contains(" session=07070707070707070707070707070707 reason=limit "));
        assert!(
            shown[1].starts_with("00:00:01.500 error headcount::x: it\\u{a}broke path=a\\u{d}")
        );
    }

    #[test]
    fn only_the_audit_target_is_printed_as_it_is() {
        let shown = lines(LogFormat::Json, || {
            tracing::info!(target: "headcount::x", audit = "{\"event\":\"session_created\"}");
        });
        let line: Value = serde_json::from_str(&shown[0]).unwrap();
        assert!(line.get("event").is_none());
    }
}
