//! What the commands print. The only place that writes to standard output; the log has its own way.

use std::io::Write as _;

use crate::audit;

/// Prints `text` and ends the line. A reader that has left is no error.
pub fn say(text: impl AsRef<str>) {
    let _ = writeln!(std::io::stdout().lock(), "{}", text.as_ref());
}

/// Prints `text` on standard error and ends the line.
pub fn complain(text: impl AsRef<str>) {
    let _ = writeln!(std::io::stderr().lock(), "{}", text.as_ref());
}

/// Text from elsewhere, safe to print.
pub fn safe(text: &str) -> String {
    audit::escape(text, 256)
}
