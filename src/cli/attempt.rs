//! `headcount check --try`: reads the test account from standard input and prints what the rules see
//! of each step. What is tried is in `crate::attempt`.

use std::io::BufRead;
use std::path::Path;

use super::{FAILED, OK, USAGE, learn, local};
use crate::attempt::{self, Account};
use crate::terminal::{complain, safe, say};

/// Runs it; returns the exit code.
pub(super) fn run(config: &Path, url: &str) -> u8 {
    let settings = match local::load(config) {
        Ok(settings) => settings,
        Err(code) => return code,
    };
    let Some((authority, page)) = place(url) else {
        complain("headcount: --try takes an address like http://127.0.0.1:8000/login");
        return USAGE;
    };
    let Some(account) = account(std::io::stdin().lock()) else {
        complain(
            "headcount: --try reads the account from standard input: the lines user=NAME and \
             password=PASSWORD, perhaps wrong_password=TEXT",
        );
        return USAGE;
    };
    let steps =
        local::run(async { Ok(attempt::run(&settings, &authority, &page, &account).await) });
    let steps = match steps {
        Ok(Ok(steps)) => steps,
        Ok(Err(message)) => {
            complain(format!("headcount: {}", safe(&message)));
            return FAILED;
        }
        Err(code) => return code,
    };
    for step in &steps {
        let mark = if step.expected { "ok    " } else { "FAILED" };
        say(format!("{mark} {:<15} {}", step.what, safe(&step.seen)));
    }
    if steps.len() == 4 && steps.iter().all(|step| step.expected) { OK } else { FAILED }
}

/// The app's `host:port`, and a path.
fn place(url: &str) -> Option<(String, String)> {
    let parsed: http::Uri = url.parse().ok()?;
    let path = parsed.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let end = url.len() - if url.ends_with(&path) { path.len() } else { 0 };
    Some((learn::authority(&url[..end])?, path))
}

fn account(input: impl BufRead) -> Option<Account> {
    let (mut user, mut password, mut wrong) = (None, None, None);
    for line in input.lines() {
        let line = line.ok()?;
        match line.split_once('=') {
            Some(("user", value)) => user = Some(value.to_owned()),
            Some(("password", value)) => password = Some(value.to_owned()),
            Some(("wrong_password", value)) => wrong = Some(value.to_owned()),
            _ if line.trim().is_empty() => {}
            _ => return None,
        }
    }
    let (user, password) = (user?, password?);
    // Not what anybody has, and never the right one with a slip in it.
    let wrong_password = wrong.unwrap_or_else(|| "not-the-password-0".to_owned());
    (wrong_password != password).then_some(Account { user, password, wrong_password })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_are_read_line_by_line() {
        let read = account("user=al=ice\npassword= p=w \n\n".as_bytes()).unwrap();
        assert_eq!((&*read.user, &*read.password), ("al=ice", " p=w "));
        for wrong in
            ["", "user=a", "user=a\npassword=b\nmore=c", "user=a\npassword=b\nwrong_password=b"]
        {
            assert!(account(wrong.as_bytes()).is_none(), "{wrong}");
        }
    }

    #[test]
    fn an_address_may_name_the_login_page() {
        let at = |url| place(url).map(|(authority, path)| format!("{authority} {path}"));
        assert_eq!(at("http://h:1").as_deref(), Some("h:1 /"));
        assert_eq!(at("http://h/in?x=1").as_deref(), Some("h:80 /in?x=1"));
        assert_eq!(at("https://h/"), None);
        assert_eq!(at("h:1"), None);
    }
}
