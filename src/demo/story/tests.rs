//! The story against the app and a stand-in for the proxy that follows a script.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};

use super::*;
use crate::fetch::fetch;
use crate::session::{Initiator, Mode, Timestamp};

async fn serve(router: axum::Router) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

fn event((kind, user, reason): Line) -> AuditEvent {
    let mut event = AuditEvent::new(kind, Timestamp(0), Initiator::Policy, Mode::Enforce);
    event.user = Some(user.to_owned());
    event.reason = reason;
    event
}

/// Passes everything on to the app but request `told`, and publishes the script's lines.
async fn stand_in(
    told: usize,
    script: Vec<(usize, Line)>,
    tap: broadcast::Sender<AuditEvent>,
) -> SocketAddr {
    let app = serve(crate::demo::app::router()).await.to_string();
    let count = Arc::new(AtomicUsize::new(0));
    let handler = move |request: Request| {
        let number = count.fetch_add(1, Ordering::SeqCst) + 1;
        for (_, line) in script.iter().filter(|(at, _)| *at == number) {
            tap.send(event(*line)).unwrap();
        }
        let app = app.clone();
        async move {
            if number == told {
                let mut answer = Response::new(Body::from("<h1>You were signed out</h1>"));
                *answer.status_mut() = http::StatusCode::UNAUTHORIZED;
                let gone = "LEGACYSESS=; Path=/; Max-Age=0".parse().unwrap();
                answer.headers_mut().append("set-cookie", gone);
                return answer;
            }
            let (head, body) = request.into_parts();
            let body: Bytes = body.collect().await.unwrap().to_bytes();
            let request = http::Request::from_parts(head, Full::new(body));
            fetch(&app, request, Duration::from_secs(5)).await.unwrap().map(Body::from)
        }
    };
    serve(axum::Router::new().fallback(handler)).await
}

fn script() -> Vec<(usize, Line)> {
    vec![
        (2, (EventKind::SessionCreated, "alice", None)),
        (5, (EventKind::SessionCreated, "alice", None)),
        (5, (EventKind::SessionEnded, "alice", Some(EndReason::Limit))),
        (6, (EventKind::SessionUseAfterEnd, "alice", None)),
        (8, (EventKind::LoginFailed, "alice", None)),
        (10, (EventKind::SessionCreated, "bob", None)),
        (13, (EventKind::SessionRenewed, "alice", None)),
    ]
}

#[tokio::test]
async fn the_story_holds_when_the_proxy_does_its_work() {
    let (tap, mut audit) = broadcast::channel(64);
    let address = stand_in(6, script(), tap).await;
    assert!(play(address, &mut audit).await);
}

#[tokio::test]
async fn the_story_fails_when_nobody_is_signed_out() {
    let (tap, mut audit) = broadcast::channel(64);
    let address = stand_in(0, script(), tap).await;
    assert!(!play(address, &mut audit).await);
}

#[tokio::test]
async fn the_story_fails_when_a_wrong_password_ends_a_session() {
    let (tap, mut audit) = broadcast::channel(64);
    let mut script = script();
    script.push((8, (EventKind::SessionEnded, "alice", Some(EndReason::Limit))));
    let address = stand_in(6, script, tap).await;
    assert!(!play(address, &mut audit).await);
}
