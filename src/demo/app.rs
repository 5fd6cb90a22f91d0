//! The app of the demo: a web mail as such things were written around 1999, and as many still run.
//! Its faults are the point; do not mend them, and do not take it as an example.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{HeaderMap, StatusCode, header};
use parking_lot::Mutex;

/// Names and passwords, in the source, in the clear.
pub const ACCOUNTS: [(&str, &str); 2] = [("alice", "alice-1999"), ("bob", "bob-1999")];

/// The session cookie.
pub const COOKIE: &str = "LEGACYSESS";

/// Sessions by id: the user, or an empty name for a visitor. They never expire, and nobody counts
/// how many one user has.
type Sessions = Arc<Mutex<HashMap<String, String>>>;

/// The whole app.
pub fn router() -> Router {
    Router::new()
        .route("/", get(|| async { redirect("/inbox.php", None) }))
        .route("/login.php", get(login_form).post(login))
        .route("/inbox.php", get(inbox))
        // A plain link logs out; anybody's web page can hold that link.
        .route("/logout.php", get(logout))
        .with_state(Sessions::default())
}

async fn login_form(State(sessions): State<Sessions>, headers: HeaderMap) -> Response {
    // Every visitor gets a session that is kept for good, robots too.
    let cookie = session_of(&sessions, &headers).is_none().then(|| open(&sessions, ""));
    page("Sign in", &form(""), cookie)
}

async fn login(State(sessions): State<Sessions>, headers: HeaderMap, body: String) -> Response {
    let field = |name: &str| {
        let mut fields = form_urlencoded::parse(body.as_bytes());
        fields.find(|(key, _)| key == name).map(|(_, value)| value.into_owned()).unwrap_or_default()
    };
    let (user, pass) = (field("user"), field("pass"));
    if !ACCOUNTS.contains(&(user.as_str(), pass.as_str())) {
        // Status 200, unlimited tries.
        return page("Wrong password", &form("Wrong password, please try again."), None);
    }
    // The id changes at login: somebody read about session fixation once.
    if let Some((id, _)) = session_of(&sessions, &headers) {
        sessions.lock().remove(&id);
    }
    let id = open(&sessions, &user);
    redirect("/inbox.php", Some(id))
}

async fn inbox(State(sessions): State<Sessions>, headers: HeaderMap) -> Response {
    match session_of(&sessions, &headers) {
        Some((_, user)) if !user.is_empty() => page(
            &format!("Inbox of {user}"),
            "<table border=1 cellpadding=4><tr bgcolor=#c0c0c0><th>From<th>Subject\
             <tr><td>postmaster<td>Your mailbox is almost full (1.9 of 2 MB)\
             <tr><td>webmaster<td>Y2K: please keep your computer switched off</table>\
             <p><a href=/logout.php>Sign out</a>",
            None,
        ),
        _ => redirect("/login.php", None),
    }
}

async fn logout(State(sessions): State<Sessions>, headers: HeaderMap) -> Response {
    if let Some((id, _)) = session_of(&sessions, &headers) {
        sessions.lock().remove(&id);
    }
    // The cookie stays in the browser; only the server forgets.
    redirect("/login.php", None)
}

/// The first cookie of that name, whatever its age.
fn session_of(sessions: &Sessions, headers: &HeaderMap) -> Option<(String, String)> {
    let line = headers.get(header::COOKIE)?.to_str().ok()?;
    let (_, id) = line
        .split(';')
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(name, _)| *name == COOKIE)?;
    let user = sessions.lock().get(id)?.clone();
    Some((id.to_owned(), user))
}

fn open(sessions: &Sessions, user: &str) -> String {
    let id = super::random_hex();
    sessions.lock().insert(id.clone(), user.to_owned());
    id
}

fn form(complaint: &str) -> String {
    format!(
        "<font color=red>{complaint}</font>\
         <form action=/login.php method=post>\
         Name: <input name=user> Password: <input name=pass type=password>\
         <input type=submit value=\"Sign in\"></form>"
    )
}

fn page(title: &str, body: &str, cookie: Option<String>) -> Response {
    let html = format!(
        "<!DOCTYPE HTML PUBLIC \"-//W3C//DTD HTML 3.2//EN\">\n<html><head><title>{title}</title>\
         </head><body bgcolor=#ffffcc><center><h1>{title}</h1>{body}<hr>\
         <font size=1>LegacyMail 1.3. Best viewed with 800x600.</font></center></body></html>\n"
    );
    let mut response = ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], html).into_response();
    set_cookie(&mut response, cookie);
    response
}

fn redirect(to: &'static str, cookie: Option<String>) -> Response {
    let mut response = (StatusCode::FOUND, [(header::LOCATION, to)]).into_response();
    set_cookie(&mut response, cookie);
    response
}

/// No HttpOnly, no SameSite.
fn set_cookie(response: &mut Response, id: Option<String>) {
    if let Some(value) = id.and_then(|id| format!("{COOKIE}={id}; path=/").parse().ok()) {
        response.headers_mut().append(header::SET_COOKIE, value);
    }
}
