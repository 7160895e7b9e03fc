//! Retry policies. Source: Istio `route/retry/retry.go`; see also the proxy, which never sends a request twice that may
//! have been processed unless its method is idempotent.

use std::time::Duration;

use rajut_config::model::{MeshConfig, Protocol, Retries};
use rajut_ir::route::{RetryOn, RetryPolicy};

/// Istio's default conditions. The list of status codes is empty: a 503 answer is not retried.
const DEFAULT_ON: RetryOn = RetryOn::CONNECT_FAILURE
    .with(RetryOn::REFUSED_STREAM)
    .with(RetryOn::UNAVAILABLE)
    .with(RetryOn::CANCELLED)
    .with(RetryOn::RETRIABLE_STATUS_CODES);
/// Retries of the default policies, outbound and inbound.
const DEFAULT_ATTEMPTS: u32 = 2;
/// Draws at most to find an endpoint that was not tried yet.
const HOST_SELECTION_ATTEMPTS: u32 = 5;
/// Envoy's first and longest pause.
const BASE_INTERVAL: Duration = Duration::from_millis(25);

/// The policy of an outbound route: its own, else the mesh's, else Istio's; `None` is no retry. `avoid_tried` is off for
/// routes whose only destination hashes consistently.
pub(crate) fn outbound(own: Option<&Retries>, mesh: &MeshConfig, avoid_tried: bool) -> Option<RetryPolicy> {
    let Some(retries) = own.or(mesh.default_retries.as_ref()) else {
        return Some(policy(DEFAULT_ON, Vec::new(), DEFAULT_ATTEMPTS, avoid_tried));
    };
    if retries.attempts == 0 {
        return None;
    }
    let (on, status_codes) = retries
        .retry_on
        .as_deref()
        .map_or((DEFAULT_ON, Vec::new()), conditions);
    let base_interval = retries.backoff.unwrap_or(BASE_INTERVAL);
    Some(RetryPolicy {
        per_try_timeout: retries.per_try_timeout,
        base_interval,
        max_interval: base_interval.saturating_mul(10),
        previous_priorities_update: retries.remote_localities.then_some(2),
        ..policy(
            on,
            status_codes,
            retries.attempts,
            avoid_tried && retries.ignore_previous_hosts,
        )
    })
}

/// The policy of inbound routes; gRPC ports have none.
pub(crate) fn inbound(protocol: Protocol) -> Option<RetryPolicy> {
    (protocol != Protocol::Grpc)
        .then(|| policy(RetryOn::RESET_BEFORE_REQUEST, Vec::new(), DEFAULT_ATTEMPTS, false))
}

fn policy(on: RetryOn, status_codes: Vec<u16>, num_retries: u32, avoid_tried: bool) -> RetryPolicy {
    RetryPolicy {
        on,
        num_retries,
        per_try_timeout: None,
        per_try_idle_timeout: None,
        base_interval: BASE_INTERVAL,
        max_interval: BASE_INTERVAL.saturating_mul(10),
        status_codes,
        avoid_previous_hosts_attempts: if avoid_tried { HOST_SELECTION_ATTEMPTS } else { 0 },
        previous_priorities_update: None,
    }
}

/// Istio's comma list: names of conditions, and numbers, which are status codes. Names were checked by validation.
fn conditions(list: &str) -> (RetryOn, Vec<u16>) {
    let mut on = RetryOn::default();
    let mut codes = Vec::new();
    for item in list.split(',').map(str::trim) {
        if let Ok(code) = item.parse::<u16>() {
            codes.push(code);
            on = on.with(RetryOn::RETRIABLE_STATUS_CODES);
        } else if let Some(condition) = RetryOn::named(item) {
            on = on.with(condition);
        }
    }
    (on, codes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn retries(attempts: u32, on: Option<&str>) -> Retries {
        Retries {
            attempts,
            per_try_timeout: None,
            retry_on: on.map(Into::into),
            backoff: None,
            remote_localities: false,
            ignore_previous_hosts: true,
        }
    }

    #[test]
    fn the_default_is_two_retries_and_no_503() {
        let found = outbound(None, &MeshConfig::default(), true).expect("a policy");
        assert_eq!(found.num_retries, 2);
        assert_eq!(found.status_codes, Vec::<u16>::new());
        assert_eq!(
            found.on.to_string(),
            "connect-failure,refused-stream,retriable-status-codes,cancelled,unavailable"
        );
        assert_eq!(found.avoid_previous_hosts_attempts, 5);
    }

    #[test]
    fn attempts_are_retries_and_zero_is_off() {
        let mesh = MeshConfig::default();
        let found = outbound(Some(&retries(3, Some("5xx, 429"))), &mesh, true).expect("a policy");
        assert_eq!(
            (found.num_retries, found.status_codes.as_slice()),
            (3, &[429][..])
        );
        assert!(found.on.has(RetryOn::FIVE_XX) && found.on.has(RetryOn::RETRIABLE_STATUS_CODES));
        assert_eq!(outbound(Some(&retries(0, None)), &mesh, true), None);
    }

    #[test]
    fn the_meshs_default_stands_in_for_routes_without_their_own() {
        let mesh = MeshConfig {
            default_retries: Some(retries(7, None)),
            ..MeshConfig::default()
        };
        assert_eq!(
            outbound(None, &mesh, true).map(|policy| policy.num_retries),
            Some(7)
        );
        assert_eq!(
            outbound(Some(&retries(1, None)), &mesh, true).map(|policy| policy.num_retries),
            Some(1)
        );
    }

    #[test]
    fn inbound_retries_before_the_request_but_never_grpc() {
        assert_eq!(inbound(Protocol::Grpc), None);
        let found = inbound(Protocol::Http).expect("a policy");
        assert_eq!((found.on, found.num_retries), (RetryOn::RESET_BEFORE_REQUEST, 2));
    }
}
