//! Errors of the admin API as `application/problem+json`. Which error it is, others decide.

use std::borrow::Cow;

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use utoipa::ToSchema;

use super::ControlError;
use crate::store::StoreError;

/// One error answer (RFC 9457).
#[derive(Debug, ToSchema)]
pub(super) struct Problem {
    #[schema(value_type = u16)]
    pub(super) status: StatusCode,
    /// Stable, for programs.
    pub(super) reason: &'static str,
    /// For people.
    #[schema(value_type = String)]
    pub(super) detail: Cow<'static, str>,
    #[schema(ignore)]
    extra: Option<(header::HeaderName, HeaderValue)>,
}

impl Problem {
    pub(super) fn new(
        status: StatusCode,
        reason: &'static str,
        detail: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { status, reason, detail: detail.into(), extra: None }
    }

    /// With one more header.
    pub(super) fn with(mut self, name: header::HeaderName, value: &'static str) -> Self {
        self.extra = Some((name, HeaderValue::from_static(value)));
        self
    }
}

/// What an error answer says, for whoever shows it in another form.
#[derive(Clone)]
pub(super) struct Told(pub(super) Cow<'static, str>);

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = serde_json::json!({
            "type": "about:blank",
            "title": self.status.canonical_reason().unwrap_or("Error"),
            "status": self.status.as_u16(),
            "detail": &*self.detail,
            "reason": self.reason,
        });
        let content_type = [(header::CONTENT_TYPE, "application/problem+json")];
        let mut response = (self.status, content_type, body.to_string()).into_response();
        response.extensions_mut().insert(Told(self.detail));
        if let Some((name, value)) = self.extra {
            response.headers_mut().insert(name, value);
        }
        response
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        if let StoreError::NoBackup(why) = error {
            return Self::new(StatusCode::CONFLICT, "no_backup", why);
        }
        let error: &(dyn std::error::Error + 'static) = &error;
        tracing::error!(target: "headcount::admin", error, "the store failed");
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "store_failed",
            "The store failed or was too slow; the log says why.",
        )
    }
}

impl From<ControlError> for Problem {
    fn from(error: ControlError) -> Self {
        match error {
            ControlError::Store(error) => error.into(),
            ControlError::TooManyLimits => Self::new(
                StatusCode::CONFLICT,
                "too_many_limits",
                "So many users have a limit of their own already: write a rule instead.",
            ),
            ControlError::ObserveMode => Self::new(
                StatusCode::CONFLICT,
                "observe_mode",
                "mode is \"observe\": nothing is enforced, so nothing can be ended.",
            ),
        }
    }
}
