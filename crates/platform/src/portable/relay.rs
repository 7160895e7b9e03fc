//! [`crate::relay`] without `splice`: every byte is copied.

use crate::relay::{RelayOptions, RelayOutcome, RelayProgress, relay_streams};
use crate::socket::TcpStream;

/// Bytes that a pipe holds, where there are pipes for splicing.
pub const PIPE_SIZE: usize = 256 * 1024;
/// Empty pipes that a worker keeps: none here.
pub const CACHED_PIPES: usize = 0;

/// Moves bytes both ways until both sides have finished, one breaks, or nothing moves for the idle timeout.
pub async fn relay(
    a: &mut TcpStream,
    b: &mut TcpStream,
    options: RelayOptions,
    progress: &RelayProgress,
) -> RelayOutcome {
    relay_streams(a, b, options, progress).await
}
