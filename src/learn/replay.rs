//! Sends recorded pages again, with some of the cookies left out. Only GETs that were recorded, and
//! none that is named like a logout.

use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request};
use http_body_util::Full;

use crate::fetch::fetch;
use crate::rules::expression::json_scalars;

use super::credentials::{Page, PageTrial, Trials};
use super::logout;
use super::recording::{Exchange, Phase, Recording};

const TIMEOUT: Duration = Duration::from_secs(20);
/// Enough to tell; each costs two requests for every cookie.
const PAGES_MAX: usize = 5;
const COOKIES_MAX: usize = 12;

/// Tries the pages of the recording. To be called while the session lives.
pub async fn try_pages(authority: &str, recording: &Recording) -> Trials {
    let jar = jar(recording);
    let mut trials = Trials::default();
    let mut seen: Vec<&str> = Vec::new();
    for page in recording.in_phase(Phase::Pages).filter(|page| fits(page)) {
        if seen.contains(&page.target.as_str()) || seen.len() == PAGES_MAX {
            continue;
        }
        seen.push(&page.target);
        if let Some(trial) = try_page(authority, page, &jar).await
            && trial.is_telling()
        {
            trials.pages.push(trial);
        }
    }
    trials.guests_only = turns_away(authority, recording, &jar).await.unwrap_or(false);
    trials
}

/// Whether the page with the login form, shown to strangers, leads away who is signed in.
async fn turns_away(
    authority: &str,
    recording: &Recording,
    jar: &[(String, String)],
) -> Option<bool> {
    let login = recording.in_phase(Phase::Login).find(|sent| !sent.is_safe())?;
    let referer = login.headers.get(header::REFERER)?.to_str().ok()?.parse::<http::Uri>().ok()?;
    let mut before = recording.in_phase(Phase::Login).take_while(|sent| sent.is_safe());
    let page = before.find(|page| {
        page.status == 200 && page.path() == referer.path() && !logout::is_named(&page.target)
    })?;
    let all: Vec<(&str, &str)> =
        jar.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let again = get(authority, page, &all).await?;
    Some((300..400).contains(&again.status))
}

/// Whether the session's cookies still sign in now that the operator has logged out.
pub async fn alive(authority: &str, recording: &Recording, trials: &Trials) -> Option<bool> {
    let trial = trials.pages.first()?;
    let page = recording.in_phase(Phase::Pages).find(|page| page.target == trial.target)?;
    // The jar of before the logout: later phases are other browsers, or strangers.
    let cookies = cookies_of(page, &jar(recording));
    let refs: Vec<(&str, &str)> =
        cookies.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let now = get(authority, page, &refs).await?;
    trial.looks_signed_in(&now)
}

fn fits(page: &Exchange) -> bool {
    let kind = page.answer.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let kind = kind.unwrap_or("text/html");
    page.method == "GET"
        && (200..400).contains(&page.status)
        && !page.cookies().is_empty()
        && (kind.contains("html") || kind.contains("json"))
        && !logout::is_named(&page.target)
}

/// The browser's cookies after the pages, by name.
fn jar(recording: &Recording) -> Vec<(String, String)> {
    let mut jar: Vec<(String, String)> = Vec::new();
    let mut keep = |name: String, value: String| match jar.iter_mut().find(|(it, _)| *it == name) {
        Some(known) => known.1 = value,
        None => jar.push((name, value)),
    };
    for page in recording.in_phase(Phase::Pages) {
        for (name, value) in page.cookies() {
            keep(name, value);
        }
        for (name, value, _) in page.sets() {
            keep(name, value);
        }
    }
    jar
}

fn cookies_of(page: &Exchange, jar: &[(String, String)]) -> Vec<(String, String)> {
    let newest = |name: String, sent: String| {
        let known = jar.iter().find(|(it, _)| *it == name).map(|(_, value)| value.clone());
        (name, known.unwrap_or(sent))
    };
    page.cookies().into_iter().take(COOKIES_MAX).map(|(name, sent)| newest(name, sent)).collect()
}

async fn try_page(authority: &str, page: &Exchange, jar: &[(String, String)]) -> Option<PageTrial> {
    let cookies = cookies_of(page, jar);
    let all: Vec<(&str, &str)> =
        cookies.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let whole = [get(authority, page, &all).await?, get(authority, page, &all).await?];
    let anonymous = get(authority, page, &[]).await?;
    let (mut without, mut alone) = (Vec::new(), Vec::new());
    for one in &all {
        let others: Vec<(&str, &str)> = all.iter().filter(|it| *it != one).copied().collect();
        without.push((one.0.to_owned(), get(authority, page, &others).await?));
        alone.push((one.0.to_owned(), get(authority, page, &[*one]).await?));
    }
    let cookies = cookies.iter().map(|(name, _)| name.clone()).collect();
    Some(PageTrial { target: page.target.clone(), cookies, whole, anonymous, without, alone })
}

async fn get(authority: &str, page: &Exchange, cookies: &[(&str, &str)]) -> Option<Page> {
    let mut request = Request::new(Full::new(Bytes::new()));
    *request.method_mut() = Method::GET;
    *request.uri_mut() = page.target.parse().ok()?;
    *request.headers_mut() = plain(&page.headers);
    let line: Vec<String> = cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
    if !line.is_empty() {
        request.headers_mut().insert(header::COOKIE, HeaderValue::from_str(&line.join("; ")).ok()?);
    }
    let answer = fetch(authority, request, TIMEOUT).await.ok()?;
    let (head, body) = answer.into_parts();
    let location = head.headers.get(header::LOCATION).and_then(|to| to.to_str().ok());
    let sets = head.headers.get_all(header::SET_COOKIE).iter().filter_map(|line| {
        let (name, _) = line.to_str().ok()?.split_once('=')?;
        Some(name.trim().to_owned())
    });
    let json = serde_json::from_slice(&body).map(|it| json_scalars(&it)).unwrap_or_default();
    Some(Page {
        status: head.status.as_u16(),
        location: location.unwrap_or_default().split('?').next().unwrap_or_default().to_owned(),
        words: Page::words_of(&body),
        sets: sets.collect(),
        json,
    })
}

/// The headers of the recorded request but for its cookies.
fn plain(headers: &HeaderMap) -> HeaderMap {
    let mut headers = headers.clone();
    headers.remove(header::COOKIE);
    headers
}
