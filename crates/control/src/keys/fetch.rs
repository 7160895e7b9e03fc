//! One key set over HTTP/1.1: `GET`, no redirections, no credentials, nothing but the answer's body and how long it holds.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, StatusCode, header};
use rajut_config::{
    key_set::{self, KeySetError},
    model::KeySource,
};
use rajut_types::Text;

use super::ANSWER_MAX;
use crate::outside::{Outside, OutsideError};

/// Why there is no key set.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    /// No answer in time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// No answer.
    #[error(transparent)]
    Outside(#[from] OutsideError),
    /// Another status than 200.
    #[error("the answer is {0}")]
    Status(u16),
    /// The issuer's description names no key set.
    #[error("the issuer's description has no `jwks_uri`")]
    NoUri,
    /// The key set is of no use.
    #[error("the key set is of no use: {0}")]
    Keys(#[from] KeySetError),
}

/// Keys, and how long they hold as the answer says.
pub(super) type Fetched = Result<(Text, Option<Duration>), FetchError>;

/// What fetching needs; cloned freely.
#[derive(Debug, Clone, Default)]
pub(super) struct Fetcher(Outside);

impl Fetcher {
    /// The key set of a source.
    pub(super) async fn key_set(&self, source: &KeySource, timeout: Duration) -> Fetched {
        let fetched = tokio::time::timeout(timeout, self.untimed(source));
        Box::pin(fetched)
            .await
            .unwrap_or(Err(FetchError::Timeout(timeout)))
    }

    async fn untimed(&self, source: &KeySource) -> Fetched {
        let url = match source {
            KeySource::Inline(keys) => return Ok((keys.clone(), None)),
            KeySource::Url(url) => url.to_string(),
            KeySource::Discovery(url) => {
                let (body, _) = self.fetch(url).await?;
                let description: serde_json::Value =
                    serde_json::from_slice(&body).map_err(|_| FetchError::NoUri)?;
                let uri = description.get("jwks_uri").and_then(serde_json::Value::as_str);
                uri.ok_or(FetchError::NoUri)?.to_owned()
            }
        };
        let (body, max_age) = self.fetch(&url).await?;
        let text = std::str::from_utf8(&body).map_err(|_| KeySetError::NotJson)?;
        Ok((key_set::usable(text)?, max_age))
    }

    async fn fetch(&self, url: &str) -> Result<(Bytes, Option<Duration>), FetchError> {
        let request = Request::get(url)
            .header(header::ACCEPT, "application/json")
            .body(Full::default())
            .map_err(|_| OutsideError::Url)?;
        let answer = Box::pin(self.0.exchange(request, ANSWER_MAX)).await?;
        if answer.status() != StatusCode::OK {
            return Err(FetchError::Status(answer.status().as_u16()));
        }
        let max_age = answer.headers().get(header::CACHE_CONTROL).and_then(max_age);
        Ok((answer.into_body(), max_age))
    }
}

/// `max-age` of `cache-control` (RFC 9111 §5.2.2.1).
fn max_age(value: &header::HeaderValue) -> Option<Duration> {
    let directives = value.to_str().ok()?.split(',').map(str::trim);
    let seconds = directives.filter_map(|directive| directive.strip_prefix("max-age="));
    seconds
        .filter_map(|seconds| seconds.parse().ok())
        .map(Duration::from_secs)
        .next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_says_how_long_it_holds() {
        let of = |text: &'static str| max_age(&header::HeaderValue::from_static(text));
        assert_eq!(
            of("public, max-age=60, must-revalidate"),
            Some(Duration::from_mins(1))
        );
        assert_eq!(of("no-store"), None);
        assert_eq!(of("max-age=soon"), None);
    }
}
