//! The story of the demo: two simulated browsers, real requests, every step checked against what it
//! should show. Knows the app and the wire, nothing of the proxy's inside.

mod browser;

use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::broadcast::{self, error::RecvError};
use tokio::time::Instant;

use crate::audit::{self, AuditEvent, EventKind};
use crate::demo::app::ACCOUNTS;
use crate::fetch::FetchError;
use crate::session::EndReason;
use crate::terminal::{safe, say};
use browser::{Browser, Page};

/// How long an audit line may take after the exchange that caused it.
const AUDIT_WAIT: Duration = Duration::from_secs(2);

/// What an audit line has to say: the event, whose, and why.
type Line = (EventKind, &'static str, Option<EndReason>);

/// Plays the story against the proxy at `address`; answers whether every step went as told.
/// `audit` must have been opened before anything else went through.
pub async fn play(address: SocketAddr, audit: &mut broadcast::Receiver<AuditEvent>) -> bool {
    let mut story =
        Story { a: Browser::new("A", address), b: Browser::new("B", address), audit, steps: 0 };
    match story.tell().await {
        Ok(()) => {
            say(format!("\nAll {} steps went as told.", story.steps));
            true
        }
        Err(failure) => {
            say(format!("\nStep {} did not go as told: {}", story.steps, safe(&failure.0)));
            false
        }
    }
}

/// What went otherwise than told.
struct Failure(String);

impl From<FetchError> for Failure {
    fn from(error: FetchError) -> Self {
        Self(error.to_string())
    }
}

struct Story<'a> {
    a: Browser,
    b: Browser,
    audit: &'a mut broadcast::Receiver<AuditEvent>,
    steps: u32,
}

#[derive(Clone, Copy)]
enum Who {
    A,
    B,
}

impl Story<'_> {
    async fn tell(&mut self) -> Result<(), Failure> {
        use EventKind::{
            LoginFailed, SessionCreated, SessionEnded, SessionRenewed, SessionUseAfterEnd,
        };
        let (alice, bob) = (ACCOUNTS[0], ACCOUNTS[1]);

        say("\nalice signs in on browser A and reads her mail.");
        self.sees_login_form(Who::A).await?;
        self.signs_in(Who::A, alice, &[(SessionCreated, "alice", None)]).await?;
        self.reads(Who::A, "alice").await?;

        say("\nalice signs in on browser B. One session is allowed: A's ends.");
        self.sees_login_form(Who::B).await?;
        let lines =
            [(SessionCreated, "alice", None), (SessionEnded, "alice", Some(EndReason::Limit))];
        self.signs_in(Who::B, alice, &lines).await?;

        say("\nA is told why; B works.");
        let page = self.gets(Who::A, "/inbox.php", &[(SessionUseAfterEnd, "alice", None)]).await?;
        expect(page.status == 401, "A gets 401")?;
        expect(!page.body.contains("Inbox of"), "A sees no mail")?;
        self.reads(Who::B, "alice").await?;

        say("\nSomebody tries a wrong password for alice on A. That ends nobody's session.");
        let wrong = (alice.0, "letmein");
        let page = self.posts(Who::A, wrong, &[(LoginFailed, "alice", None)]).await?;
        expect(page.status == 200 && page.body.contains("Wrong password"), "the app refuses it")?;
        self.reads(Who::B, "alice").await?;

        say("\nbob signs in on A. He is another user: nobody has to go.");
        self.signs_in(Who::A, bob, &[(SessionCreated, "bob", None)]).await?;
        self.reads(Who::A, "bob").await?;
        self.reads(Who::B, "alice").await?;

        say("\nalice signs in once more on B: the same browser, so the same session. bob stays.");
        self.signs_in(Who::B, alice, &[(SessionRenewed, "alice", None)]).await?;
        self.reads(Who::B, "alice").await?;
        self.reads(Who::A, "bob").await
    }

    async fn sees_login_form(&mut self, who: Who) -> Result<(), Failure> {
        let page = self.gets(who, "/login.php", &[]).await?;
        expect(page.status == 200 && page.body.contains("<form"), "the login page shows")
    }

    async fn signs_in(
        &mut self,
        who: Who,
        account: (&str, &str),
        lines: &[Line],
    ) -> Result<(), Failure> {
        let page = self.posts(who, account, lines).await?;
        expect(page.status == 302 && page.location == "/inbox.php", "the app lets them in")
    }

    async fn reads(&mut self, who: Who, user: &str) -> Result<(), Failure> {
        let page = self.gets(who, "/inbox.php", &[]).await?;
        let inbox = format!("Inbox of {user}");
        expect(page.status == 200 && page.body.contains(&inbox), &format!("{user} reads mail"))
    }

    fn browser(&mut self, who: Who) -> &mut Browser {
        match who {
            Who::A => &mut self.a,
            Who::B => &mut self.b,
        }
    }

    async fn gets(&mut self, who: Who, path: &str, lines: &[Line]) -> Result<Page, Failure> {
        self.steps += 1;
        let page = self.browser(who).get(path).await?;
        self.shown(who, &format!("GET  {path}"), page, lines).await
    }

    async fn posts(
        &mut self,
        who: Who,
        (user, pass): (&str, &str),
        lines: &[Line],
    ) -> Result<Page, Failure> {
        self.steps += 1;
        let fields = [("user", user), ("pass", pass)];
        let page = self.browser(who).post("/login.php", &fields).await?;
        self.shown(who, &format!("POST /login.php as {user}"), page, lines).await
    }

    /// Prints the exchange and the audit lines it caused, and checks that those were all.
    async fn shown(
        &mut self,
        who: Who,
        what: &str,
        page: Page,
        lines: &[Line],
    ) -> Result<Page, Failure> {
        let name = self.browser(who).name;
        say(format!("  {name}  {what:<25} →  {}", safe(&page.summary())));
        let mut missing = lines.to_vec();
        let until = Instant::now() + AUDIT_WAIT;
        while let Some(event) = self.next_event(until, missing.is_empty()).await {
            let json = serde_json::to_string(&event).unwrap_or_default();
            say(format!("       {}", audit::escape_json(&json)));
            let told = missing.iter().position(|(kind, user, reason)| {
                event.event == *kind
                    && event.user.as_deref() == Some(user)
                    && reason.is_none_or(|reason| event.reason == Some(reason))
            });
            match told {
                Some(index) => {
                    missing.remove(index);
                }
                None if matches!(event.event, EventKind::SessionUseAfterEnd) => {}
                None => return Err(Failure(format!("nobody expected {}", event.event.as_str()))),
            }
        }
        match missing.first() {
            Some((kind, user, _)) => {
                Err(Failure(format!("the audit line {} of {user} is missing", kind.as_str())))
            }
            None => Ok(page),
        }
    }

    /// The next audit event; waits for it only if one is still to come.
    async fn next_event(&mut self, until: Instant, all_told: bool) -> Option<AuditEvent> {
        loop {
            if all_told {
                return self.audit.try_recv().ok();
            }
            match tokio::time::timeout_at(until, self.audit.recv()).await {
                Ok(Ok(event)) => return Some(event),
                Ok(Err(RecvError::Lagged(_))) => {}
                Ok(Err(RecvError::Closed)) | Err(_) => return None,
            }
        }
    }
}

fn expect(holds: bool, what: &str) -> Result<(), Failure> {
    if holds { Ok(()) } else { Err(Failure(format!("not so: {what}"))) }
}

#[cfg(test)]
mod tests;
