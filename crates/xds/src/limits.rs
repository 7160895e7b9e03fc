//! The caps of this crate, each with its reason.

use std::time::Duration;

/// Largest discovery message, both ways, in bytes: a wildcard CDS of 10,000 clusters is about 20 MB, and a message
/// that large must still fit; more is an attack or a mistake.
pub const MESSAGE_BYTES_MAX: usize = 256 << 20;

/// Type URLs that one stream may subscribe to; Envoy knows about fifteen.
pub const TYPES_MAX: usize = 64;

/// Names that one stream may subscribe to per type; ten times the mesh that is designed for.
pub const NAMES_MAX: usize = 100_000;

/// Bytes of one resource name; longer names are refused.
pub const NAME_BYTES_MAX: usize = 4_096;

/// Unanswered responses per type that either end keeps; past it the oldest is forgotten (and counts as settled by the
/// next answer).
pub const OUTSTANDING_MAX: usize = 64;

/// Characters of a NACK's message that are kept.
pub const NACK_MESSAGE_MAX: usize = 8_192;

/// How long one push may stay unanswered before the next one is sent all the same.
pub const ROUND_TIMEOUT: Duration = Duration::from_secs(15);

/// Responses that wait for the transport per stream; beyond it the stream's task waits, and snapshots coalesce.
pub const RESPONSES_QUEUED_MAX: usize = 4;

/// Updates that wait for the proxy per client; beyond it the client stops reading.
pub const UPDATES_QUEUED_MAX: usize = 16;

/// Shortest and longest pause between a client's connection attempts.
pub const RECONNECT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// Shortest and longest pause before load is reported again after its stream ended and discovery's did not.
pub const REPORT_RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));

/// Shortest time from one pushed change to the next on one stream: at most five pushes per second and proxy, whatever
/// changes how often; what comes meanwhile is pushed together.
pub const PUSH_PAUSE: Duration = Duration::from_millis(200);

/// A response that the transport does not take in this time ends its stream: the client comes back when it can.
pub const SEND_TIMEOUT: Duration = Duration::from_mins(1);

/// Streams in their first exchange at once; the others wait in turn. Enough to keep both ends busy, and few enough that
/// those who came first are done first.
pub const ADMITTED_MAX: usize = 64;

/// How long one stream's first exchange keeps others waiting, at most.
pub const ADMISSION_TIME: Duration = Duration::from_secs(5);
