//! Whether and when a request is sent again.
//!
//! Two things must hold: the route's policy names the condition (Envoy's terms), and sending it a second time can't
//! do harm: either the endpoint has not seen it, or its method is idempotent, or the endpoint itself answered with
//! what the operator listed, or its sidecar says that it could not reach it ([`UNDELIVERED`]). The body must still be at hand ([`REPLAY_MAX`]).

use std::time::Duration;

use rajut_codec::{Known, Method, ResponseHead};
use rajut_ir::route::{RetryOn, RetryPolicy};

use super::reply::UNDELIVERED;
use crate::failure::{Failure, FailureKind, Retry};

/// Bytes of a request's body that are kept for another try; with more, the request is sent once.
pub(crate) const REPLAY_MAX: usize = 64 * 1024;

/// What is known of a try that gave no answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lost {
    /// No byte was sent, or none reached the endpoint before it had closed.
    pub(crate) unseen: bool,
    /// It went over a connection that had carried requests before.
    pub(crate) reused: bool,
}

/// Whether the policy and the method allow another try after a failure.
pub(crate) fn after_failure(policy: &RetryPolicy, method: &Method, failure: &Failure, lost: Lost) -> bool {
    let safe = match failure.spec().retry {
        Retry::Never => false,
        Retry::Safe => true,
        Retry::IfIdempotent => lost.unseen || method.is_idempotent(),
    };
    let any_reset = any_reset();
    let wanted = match failure.kind {
        FailureKind::ConnectFailure | FailureKind::ConnectTimeout | FailureKind::TlsFailure => {
            connect_failures()
        }
        FailureKind::StreamRefused => any_reset
            .with(RetryOn::REFUSED_STREAM)
            .with(RetryOn::RESET_BEFORE_REQUEST),
        _ if lost.unseen => any_reset.with(RetryOn::RESET_BEFORE_REQUEST),
        _ => any_reset,
    };
    safe && policy.on.has(wanted)
}

fn any_reset() -> RetryOn {
    RetryOn::FIVE_XX.with(RetryOn::GATEWAY_ERROR).with(RetryOn::RESET)
}

/// Conditions that name a connection which did not come about.
fn connect_failures() -> RetryOn {
    any_reset()
        .with(RetryOn::CONNECT_FAILURE)
        .with(RetryOn::RESET_BEFORE_REQUEST)
}

/// Whether a try that gave no answer is repeated without a policy: the connection had been pooled and was closed by
/// the server as the request was sent, which is nobody's failure (RFC 9110 §9.2.2, RFC 9112 §9.3.1). Why not over a new
/// connection: `docs/adr/0008-no-repeat-over-a-new-connection.md`.
pub(crate) fn over_stale_connection(method: &Method, failure: &Failure, lost: Lost) -> bool {
    failure.kind == FailureKind::StaleConnection
        || failure.kind == FailureKind::UpstreamClosed
            && lost.reused
            && (lost.unseen || method.is_idempotent())
}

/// Whether the policy names what an endpoint answered. `of_mesh`: it has shown a mesh identity; from anybody else
/// [`UNDELIVERED`] is a field like any other, since an application could say it of a request that it has processed.
pub(crate) fn after_answer(policy: &RetryPolicy, head: &ResponseHead, of_mesh: bool) -> bool {
    let on = policy.on;
    let status = head.status;
    let grpc = head
        .fields
        .get_str(Known::GrpcStatus)
        .and_then(|text| text.parse::<u8>().ok());
    let grpc_condition = match grpc {
        Some(1) => RetryOn::CANCELLED,
        Some(4) => RetryOn::DEADLINE_EXCEEDED,
        Some(8) => RetryOn::RESOURCE_EXHAUSTED,
        Some(13) => RetryOn::INTERNAL,
        Some(14) => RetryOn::UNAVAILABLE,
        _ => RetryOn::default(),
    };
    let again = of_mesh && head.fields.contains(UNDELIVERED) && on.has(connect_failures())
        || on.has(grpc_condition)
        || status >= 500 && on.has(RetryOn::FIVE_XX)
        || matches!(status, 502..=504) && on.has(RetryOn::GATEWAY_ERROR)
        || status == 409 && on.has(RetryOn::RETRIABLE_4XX)
        || on.has(RetryOn::RETRIABLE_STATUS_CODES) && policy.status_codes.contains(&status);
    // Envoy: an answer because of a limit is not repeated unless asked for. Looked for only where it decides.
    let limited = || head.fields.contains("x-envoy-ratelimited");
    if on.has(RetryOn::ENVOY_RATELIMITED) {
        again || limited()
    } else {
        again && !limited()
    }
}

/// The pause before retry `number` (1 and up): doubled each time, with full jitter.
pub(crate) fn pause(policy: &RetryPolicy, number: u32, random: u64) -> Duration {
    let doubled = policy
        .base_interval
        .saturating_mul(1 << number.saturating_sub(1).min(20));
    let most = doubled.min(policy.max_interval.max(policy.base_interval));
    let nanos = u64::try_from(most.as_nanos()).unwrap_or(u64::MAX);
    Duration::from_nanos(u64::try_from((u128::from(nanos) * u128::from(random)) >> 64).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(on: RetryOn) -> RetryPolicy {
        RetryPolicy {
            on,
            num_retries: 2,
            per_try_timeout: None,
            per_try_idle_timeout: None,
            base_interval: Duration::from_millis(25),
            max_interval: Duration::from_millis(250),
            status_codes: Vec::new(),
            avoid_previous_hosts_attempts: 5,
            previous_priorities_update: None,
        }
    }

    const LOST: Lost = Lost {
        unseen: false,
        reused: true,
    };

    #[test]
    fn a_post_that_may_have_been_processed_is_never_sent_again() {
        let everything = policy(RetryOn(u32::MAX));
        let lost: Failure = FailureKind::UpstreamClosed.into();
        assert!(!after_failure(&everything, &Method::Post, &lost, LOST));
        assert!(!over_stale_connection(&Method::Post, &lost, LOST));
        assert!(after_failure(&everything, &Method::Get, &lost, LOST));
        assert!(over_stale_connection(&Method::Get, &lost, LOST));
        let unseen = Lost { unseen: true, ..LOST };
        assert!(over_stale_connection(&Method::Post, &lost, unseen));
        let timeout: Failure = FailureKind::PerTryTimeout.into();
        assert!(!after_failure(&everything, &Method::Post, &timeout, LOST));
    }

    #[test]
    fn istios_default_repeats_connect_failures_and_grpc_unavailable_but_no_503() {
        let default = policy(
            RetryOn::CONNECT_FAILURE
                .with(RetryOn::REFUSED_STREAM)
                .with(RetryOn::UNAVAILABLE)
                .with(RetryOn::CANCELLED)
                .with(RetryOn::RETRIABLE_STATUS_CODES),
        );
        let refused: Failure = FailureKind::ConnectFailure.into();
        assert!(after_failure(&default, &Method::Post, &refused, LOST));
        assert!(!after_answer(&default, &ResponseHead::new(503), true));
        let mut undelivered = ResponseHead::new(503);
        undelivered.fields.set(UNDELIVERED, "1").unwrap();
        assert!(after_answer(&default, &undelivered, true));
        assert!(!after_answer(&default, &undelivered, false), "a stranger's word");
        assert!(!after_answer(&policy(RetryOn::UNAVAILABLE), &undelivered, true));
        let mut unavailable = ResponseHead::new(200);
        unavailable.fields.set(Known::GrpcStatus, "14").unwrap();
        assert!(after_answer(&default, &unavailable, false));
    }

    #[test]
    fn pauses_double_up_to_their_bound() {
        let policy = policy(RetryOn::FIVE_XX);
        assert!(pause(&policy, 1, u64::MAX) <= Duration::from_millis(25));
        assert!(pause(&policy, 3, u64::MAX) > Duration::from_millis(99));
        assert!(pause(&policy, 30, u64::MAX) <= Duration::from_millis(250));
        assert_eq!(pause(&policy, 3, 0), Duration::ZERO);
    }
}
