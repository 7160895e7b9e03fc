//! Answers of the admin door.

use bytes::Bytes;
use http::{Response, StatusCode, header};
use http_body_util::Full;
use rajut_registry::ApplyError;
use rajut_types::Diagnostic;
use serde_json::{Value, json};

pub(super) type Answer = Response<Full<Bytes>>;

/// A request that is not done.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) status: StatusCode,
    pub(super) body: Value,
}

impl Refused {
    pub(super) fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self {
            status,
            body: json!({"error": error.into()}),
        }
    }

    pub(super) fn bad(error: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error)
    }

    fn diagnosed(error: &ApplyError, diagnostics: &[Diagnostic]) -> Self {
        Self {
            status: StatusCode::UNPROCESSABLE_ENTITY,
            body: json!({"error": error.to_string(), "diagnostics": diagnostics}),
        }
    }
}

impl From<ApplyError> for Refused {
    fn from(error: ApplyError) -> Self {
        match &error {
            ApplyError::Invalid(diagnostics) => Self::diagnosed(&error, diagnostics),
            ApplyError::Unknown(_) => Self::new(StatusCode::NOT_FOUND, error.to_string()),
            ApplyError::Empty | ApplyError::InList(..) => Self::diagnosed(&error, &[]),
            ApplyError::Overlay(_) => Self::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        }
    }
}

pub(super) fn json_answer(status: StatusCode, body: &Value) -> Answer {
    with_type(status, "application/json", body.to_string() + "\n")
}

pub(super) fn text_answer(body: String) -> Answer {
    with_type(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", body)
}

fn with_type(status: StatusCode, content_type: &'static str, body: String) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    answer.headers_mut().insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static(content_type),
    );
    answer
}
