//! The deadlines of one exchange, looked at together with one clock.

use std::time::Duration;

use tokio::time::Instant;

use crate::failure::FailureKind;

/// How long a client that has finished sending is waited for, before it counts as gone. A client that closed its
/// connection and one that only shut its sending half down look the same.
const HALF_CLOSED: Duration = Duration::from_secs(5);

/// The deadlines of one exchange; `None` is no bound.
#[derive(Debug, Default)]
pub(crate) struct Deadlines {
    /// The route's timeout, from the request's end.
    timeout: Option<Duration>,
    total: Option<Instant>,
    /// `grpc-timeout`, from the start.
    pub(crate) grpc: Option<Instant>,
    /// The longest life of the stream.
    pub(crate) stream: Option<Instant>,
    /// The whole request must have arrived.
    pub(crate) request: Option<Instant>,
    per_try: Option<Instant>,
    per_try_idle: Option<Duration>,
    /// Without a byte in either direction.
    pub(crate) idle: Option<Duration>,
    active: Option<Instant>,
    half_closed: Option<Instant>,
    request_ended: bool,
}

impl Deadlines {
    pub(crate) fn new(timeout: Option<Duration>) -> Self {
        Self {
            timeout,
            ..Self::default()
        }
    }

    /// The request's last byte has been read.
    pub(crate) fn request_ended(&mut self, now: Instant) {
        if !self.request_ended {
            self.request_ended = true;
            self.request = None;
            self.total = self.timeout.map(|timeout| now + timeout);
        }
    }

    /// A try begins (or, with a body that still comes, its clock does).
    pub(crate) fn begin_try(&mut self, now: Instant, most: Option<Duration>, idle: Option<Duration>) {
        self.per_try = most.map(|most| now + most);
        self.per_try_idle = idle;
        self.touch(now);
    }

    /// The try has its answer.
    pub(crate) fn end_try(&mut self) {
        self.per_try = None;
        self.per_try_idle = None;
    }

    /// The exchange became a tunnel: only idle time and the stream's life count.
    pub(crate) fn become_tunnel(&mut self) {
        self.end_try();
        self.total = None;
        self.timeout = None;
        self.grpc = None;
        self.request = None;
        self.request_ended = true;
        self.half_closed = None;
    }

    /// Whether a byte's time has to be noted.
    pub(crate) const fn counts_idle(&self) -> bool {
        self.idle.is_some() || self.per_try_idle.is_some()
    }

    /// A byte moved.
    pub(crate) fn touch(&mut self, now: Instant) {
        self.active = Some(now);
        // A client that takes bytes is there.
        if self.half_closed.is_some() {
            self.half_closed = Some(now + HALF_CLOSED);
        }
    }

    /// Whether the client has finished sending.
    pub(crate) const fn is_half_closed(&self) -> bool {
        self.half_closed.is_some()
    }

    /// The client has finished sending.
    pub(crate) fn half_closed(&mut self) {
        if self.half_closed.is_none() {
            self.half_closed = Some(Instant::now() + HALF_CLOSED);
        }
    }

    fn after_active(&self, idle: Option<Duration>) -> Option<Instant> {
        Some(self.active? + idle?)
    }

    /// The earliest.
    pub(crate) fn next(&self) -> Option<Instant> {
        [
            self.total,
            self.grpc,
            self.stream,
            self.request,
            self.per_try,
            self.after_active(self.per_try_idle),
            self.after_active(self.idle),
            self.half_closed,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// What has expired by `now`.
    pub(crate) fn expired(&self, now: Instant) -> Option<FailureKind> {
        let over = |deadline: Option<Instant>| deadline.is_some_and(|deadline| deadline <= now);
        let status = if self.request_ended { 504 } else { 408 };
        if over(self.half_closed) {
            Some(FailureKind::DownstreamGone)
        } else if over(self.total) || over(self.grpc) {
            Some(FailureKind::UpstreamTimeout)
        } else if over(self.stream) {
            Some(FailureKind::MaxStreamDuration)
        } else if over(self.request) {
            Some(FailureKind::RequestTimeout)
        } else if over(self.per_try) || over(self.after_active(self.per_try_idle)) {
            Some(FailureKind::PerTryTimeout)
        } else if over(self.after_active(self.idle)) {
            Some(FailureKind::StreamIdleTimeout { status })
        } else {
            None
        }
    }
}
