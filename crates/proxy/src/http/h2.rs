//! HTTP/2 connections of either side, driven by the codec's own machine.
//!
//! `link.rs` has the connection and the task that drives it, `stream.rs` one stream as its task has it; here is what both
//! sides of a connection are told and bear.

mod link;
mod stream;
#[cfg(test)]
mod tests;

use std::{task::Context, time::Duration};

use rajut_codec::h2::Config;
use rajut_ir::cluster::Http2Options;
use tokio::time::Instant;

pub(crate) use link::{Driver, Ended, Link, Lost, Side};
pub(crate) use stream::Stream;

use super::{timer::Timer, transport::OUTPUT_HIGH};
use crate::clock;

/// Streams at once where the configuration does not say (Envoy's default since 1.36 is 1024; ours bounds memory).
pub(crate) const STREAMS_DEFAULT: u32 = 1024;
/// Window of a stream where the configuration does not say.
const STREAM_WINDOW: u32 = 256 * 1024;
/// Window of a connection where the configuration does not say.
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Fields of a head, which its bytes bound more tightly; a request's are counted again where it is served, and logged.
const HEADERS_MAX: usize = 4096;

/// Streams that may be reset in ten seconds before they were answered (rapid reset, CVE-2023-44487): more than clients cancel
/// whose server has stopped answering, far fewer than a flood.
const RESETS_MAX: u32 = 10_000;
/// Frames that carry nothing in ten seconds, beyond those that answer ours.
const CONTROL_FRAMES_MAX: u32 = 20_000;

/// What a connection is told and bears. Trailers may be as large as heads.
pub(crate) fn config(options: &Http2Options, max_head_bytes: usize) -> Config {
    Config {
        max_concurrent_streams: options.max_concurrent_streams.unwrap_or(STREAMS_DEFAULT),
        stream_window: options.initial_stream_window_size.unwrap_or(STREAM_WINDOW),
        connection_window: options
            .initial_connection_window_size
            .unwrap_or(CONNECTION_WINDOW),
        max_head_bytes,
        max_headers: HEADERS_MAX,
        max_trailer_bytes: max_head_bytes,
        max_trailers: HEADERS_MAX,
        max_resets: RESETS_MAX,
        max_control_frames: CONTROL_FRAMES_MAX,
        output_high: OUTPUT_HIGH,
        enable_connect_protocol: options.allow_connect,
        ..Config::default()
    }
}

/// Sends a PING at each interval, over a connection of either side.
#[derive(Debug)]
pub(crate) struct KeepAlive {
    /// Interval, and how long an answer may take.
    every: Option<(Duration, Duration)>,
    /// When the next thing is due: a PING, or its answer.
    due: Instant,
    asked: bool,
    timer: Timer,
}

impl KeepAlive {
    pub(crate) fn new(every: Option<(Duration, Duration)>) -> Self {
        let now = clock::now();
        Self {
            every,
            due: every.map_or(now, |(interval, _)| now + interval),
            asked: false,
            timer: Timer::default(),
        }
    }

    /// Whether an answer is overdue; otherwise the task is woken when there is something to do.
    pub(crate) fn poll<R: Side>(&mut self, cx: &mut Context<'_>, link: &Link<R>) -> bool {
        let Some((interval, timeout)) = self.every else {
            return false;
        };
        if self.asked && link.take_pong() {
            self.asked = false;
            self.due = clock::now() + interval;
        }
        while self.timer.poll(cx, Some(self.due)) {
            if self.asked {
                return true;
            }
            link.ping();
            self.asked = true;
            self.due = Instant::now() + timeout;
        }
        false
    }
}
