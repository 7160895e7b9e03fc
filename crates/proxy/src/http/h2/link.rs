//! One HTTP/2 connection, of either side: the codec's machine, the task that drives it, and what has come for each stream
//! and was not taken yet.
//!
//! ```text
//!  socket ─► Driver ─► machine ─► events ─┬─ a request ──► whoever serves the connection
//!            (one task)                   └─ data, heads ─► Entry ─► the stream's task (stream.rs)
//!  socket ◄─ Driver ◄──────────────────────── output ◄─────────────── the stream's task
//! ```
//!
//! A stream's task writes into the connection's output and wakes the driver once; the driver runs behind all tasks that
//! were woken before it, so that what they wrote in one turn leaves in one write.
//!
//! Bounds: what has come and was not taken counts against the windows of stream and connection; many small pieces are
//! put together ([`PIECES_APART`]). A server reads no further while [`UNREAD_MAX`] bytes wait to be written. Everything
//! else is the machine's [`Config`]. Not here: deadlines, which are their owner's.

use std::{
    cell::RefCell,
    collections::VecDeque,
    fmt,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use rajut_codec::{
    Fields, Output,
    h2::{Client, Config, Conn, DecodeError, EncodeError, Event, Reason, Response, Role, Server, StreamKey},
};
use tokio::time::Instant;

use crate::{clock, http::transport::Transport, stream::Stream as Bytestream};

/// Bytes that wait to be written, from which a server takes no more frames.
const UNREAD_MAX: usize = 256 * 1024;
/// Pieces of a stream that wait as they came; of more the small ones are put together.
const PIECES_APART: usize = 8;
/// A small piece, bytes.
const SMALL: usize = 1024;
/// Bytes of small pieces put together.
const JOINED: usize = 4096;
/// Entries, and pieces in one, that are kept when they are empty.
const KEEP: usize = 16;
/// What our PING carries.
const PING: [u8; 8] = *b"rajutkal";

/// Which side of a connection.
pub(crate) trait Side: Role + Sized + 'static {
    /// Heads that have come for a stream and were not taken.
    type Heads: Default + fmt::Debug;
    /// A server stops reading when it is not read; were a client to do so too, two of ours could wait for each other.
    const STOPS_READING: bool;
}

impl Side for Server {
    /// A request's head is what makes a stream.
    type Heads = ();
    const STOPS_READING: bool = true;
}

impl Side for Client {
    type Heads = Heads;
    const STOPS_READING: bool = false;
}

/// Heads of responses: the final one, and interim ones before it.
#[derive(Debug, Default)]
pub(crate) struct Heads {
    first: Option<Response>,
    /// Only where several came at once.
    more: VecDeque<Response>,
}

impl Heads {
    fn push(&mut self, head: Response) {
        if self.first.is_none() && self.more.is_empty() {
            self.first = Some(head);
        } else {
            self.more.push_back(head);
        }
    }

    pub(super) fn pop(&mut self) -> Option<Response> {
        self.first.take().or_else(|| self.more.pop_front())
    }
}

/// A head that came: its stream, itself, and whether nothing follows.
type Head<R> = (StreamKey, <R as Role>::Head, bool);

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The peer closed it, or it broke.
    Closed,
    /// The peer broke a rule; it is told which.
    Broken(DecodeError),
    /// One side took its leave and every stream has ended.
    Drained,
}

/// Why a stream ended before its time, or can't be used as asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lost {
    /// The peer reset it.
    Reset(Reason),
    /// The peer has left without having looked at it.
    Unseen,
    /// The peer broke a rule on it, or on the connection.
    Malformed(DecodeError),
    /// The connection has gone.
    Closed,
    /// It was reset from this side.
    Given,
    /// The message can't be sent so.
    Unsendable(EncodeError),
}

impl From<Ended> for Lost {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Closed | Ended::Drained => Self::Closed,
            Ended::Broken(error) => Self::Malformed(error),
        }
    }
}

/// What has come for one stream, until its task takes it.
#[derive(Debug)]
pub(super) struct Entry<R: Side> {
    /// The stream's identifier; 0 in a free entry.
    id: u32,
    pub(super) heads: R::Heads,
    pub(super) pieces: VecDeque<Bytes>,
    /// Small pieces behind them.
    joined: BytesMut,
    trailers: Option<Box<Fields>>,
    /// Nothing more will come.
    ended: bool,
    pub(super) lost: Option<Lost>,
    task: Option<Waker>,
    /// The task is to be woken.
    waits: bool,
}

impl<R: Side> Entry<R> {
    fn new() -> Self {
        Self {
            id: 0,
            heads: R::Heads::default(),
            pieces: VecDeque::new(),
            joined: BytesMut::new(),
            trailers: None,
            ended: false,
            lost: None,
            task: None,
            waits: false,
        }
    }

    fn wake(&mut self) {
        if std::mem::take(&mut self.waits)
            && let Some(task) = &self.task
        {
            task.wake_by_ref();
        }
    }

    /// The task is woken at whatever happens next.
    pub(super) fn register(&mut self, cx: &Context<'_>) {
        if !self.task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
            self.task = Some(cx.waker().clone());
        }
        self.waits = true;
    }

    fn put(&mut self, data: Bytes) {
        if data.is_empty() {
            return;
        }
        let is_behind = self.pieces.len() >= PIECES_APART || !self.joined.is_empty();
        if is_behind && data.len() < SMALL {
            self.joined.extend_from_slice(&data);
            if self.joined.len() >= JOINED {
                self.pieces.push_back(self.joined.split().freeze());
            }
            return;
        }
        if !self.joined.is_empty() {
            self.pieces.push_back(self.joined.split().freeze());
        }
        self.pieces.push_back(data);
    }

    pub(super) fn take_piece(&mut self) -> Option<Bytes> {
        self.pieces
            .pop_front()
            .or_else(|| (!self.joined.is_empty()).then(|| self.joined.split().freeze()))
    }

    pub(super) fn take_trailers(&mut self) -> Option<Fields> {
        self.trailers.take().map(|fields| *fields)
    }

    pub(super) const fn is_ended(&self) -> bool {
        self.ended
    }

    /// Whether the end has come and nothing waits before it.
    pub(super) fn is_at_end(&self) -> bool {
        self.ended && self.pieces.is_empty() && self.joined.is_empty() && self.trailers.is_none()
    }

    /// Bytes that were not taken.
    pub(super) fn held(&self) -> usize {
        self.pieces.iter().map(Bytes::len).sum::<usize>() + self.joined.len()
    }
}

/// A connection as its streams have it.
#[derive(Debug)]
pub(crate) struct Link<R: Side>(pub(super) RefCell<State<R>>);

#[derive(Debug)]
pub(super) struct State<R: Side> {
    pub(super) machine: Conn<R>,
    pub(super) output: Output,
    /// Used again; at most as many as streams were open, or held by their tasks, at once.
    pub(super) entries: Vec<Entry<R>>,
    free: Vec<usize>,
    /// The machine's slot → the place in `entries`.
    by_slot: Vec<usize>,
    /// The driver's task.
    task: Option<Waker>,
    /// The driver will run without being woken again.
    is_woken: bool,
    ended: Option<Ended>,
    /// What the peer's GOAWAY said.
    going: Option<(u32, Reason)>,
    has_pong: bool,
    /// Who waits for the peer's settings, at most one for each stream.
    unsettled: Vec<Waker>,
}

impl<R: Side> State<R> {
    /// The entry of an open stream.
    fn entry(&mut self, key: StreamKey) -> Option<&mut Entry<R>> {
        let at = *self.by_slot.get(key.slot())?;
        self.entries.get_mut(at).filter(|entry| entry.id == key.id())
    }

    /// The entry at a place that its holder knows.
    pub(super) fn at(&mut self, at: usize) -> &mut Entry<R> {
        &mut self.entries[at]
    }

    /// An entry for a stream that has been opened.
    pub(super) fn add(&mut self, key: StreamKey, ended: bool) -> usize {
        let at = self.free.pop().unwrap_or_else(|| {
            self.entries.push(Entry::new());
            self.entries.len() - 1
        });
        let entry = &mut self.entries[at];
        entry.id = key.id();
        entry.ended = ended;
        entry.lost = self.ended.map(Lost::from);
        if self.by_slot.len() <= key.slot() {
            self.by_slot.resize(key.slot() + 1, usize::MAX);
        }
        self.by_slot[key.slot()] = at;
        at
    }

    pub(super) const fn is_ended(&self) -> bool {
        self.ended.is_some()
    }

    /// The stream's task lets go of it.
    pub(super) fn remove(&mut self, key: StreamKey, at: usize) {
        let entry = &mut self.entries[at];
        let held = entry.held();
        let mut pieces = std::mem::take(&mut entry.pieces);
        pieces.clear();
        *entry = Entry::new();
        if pieces.capacity() <= KEEP {
            entry.pieces = pieces;
        }
        self.free.push(at);
        if self.free.len() == self.entries.len() && self.entries.len() > KEEP {
            self.entries = Vec::new();
            self.free = Vec::new();
            self.by_slot = Vec::new();
        }
        if held > 0 {
            self.release(key, held);
        }
    }

    /// So many bytes were taken: the peer may send as much again.
    pub(super) fn release(&mut self, key: StreamKey, bytes: usize) {
        if self.ended.is_none() {
            self.machine.release(key, bytes, &mut self.output);
            self.wake_driver();
        }
    }

    /// Lets the driver write what waits.
    pub(super) fn wake_driver(&mut self) {
        if !self.is_woken && self.output.has_remaining() {
            self.wake_anyway();
        }
    }

    fn wake_anyway(&mut self) {
        if let Some(task) = &self.task {
            self.is_woken = true;
            task.wake_by_ref();
        }
    }

    /// Streams that can go on sending.
    fn wake_writable(&mut self) {
        while let Some(key) = self.machine.next_writable(&self.output) {
            if let Some(entry) = self.entry(key) {
                entry.wake();
            }
        }
    }

    fn settle(&mut self) {
        if !self.unsettled.is_empty() && self.machine.is_settled() {
            for task in std::mem::take(&mut self.unsettled) {
                task.wake();
            }
        }
    }

    /// Puts an event where its stream's task finds it; a head is given back.
    fn note(&mut self, event: Event<R::Head>) -> Option<Head<R>> {
        match event {
            Event::Head { stream, head, is_end } => return Some((stream, head, is_end)),
            Event::Data { stream, data, is_end } => {
                if let Some(entry) = self.entry(stream) {
                    entry.put(data);
                    entry.ended = is_end;
                    entry.wake();
                } else {
                    self.release(stream, data.len());
                }
            }
            Event::Trailers { stream, fields } => {
                if let Some(entry) = self.entry(stream) {
                    entry.trailers = Some(Box::new(fields));
                    entry.ended = true;
                    entry.wake();
                }
            }
            Event::Reset {
                stream,
                reason,
                error,
            } => {
                let unseen = self
                    .going
                    .is_some_and(|(last, why)| stream.id() > last && why == Reason::NO_ERROR);
                if let Some(entry) = self.entry(stream) {
                    entry.lost = Some(match error {
                        Some(error) => Lost::Malformed(error),
                        None if unseen => Lost::Unseen,
                        None => Lost::Reset(reason),
                    });
                    entry.wake();
                }
            }
            Event::Refused { id, error } => tracing::debug!(stream = id, %error, "HTTP/2 request refused"),
            Event::GoAway { last, reason } => self.going = Some((last, reason)),
            Event::Pong { payload } => self.has_pong |= payload == PING,
        }
        None
    }

    /// Nothing more comes or goes, for any stream.
    fn end(&mut self, ended: Ended) {
        if self.ended.is_some() {
            return;
        }
        self.ended = Some(ended);
        for entry in &mut self.entries {
            if entry.id != 0 {
                entry.lost.get_or_insert(ended.into());
                entry.wake();
            }
        }
        for task in std::mem::take(&mut self.unsettled) {
            task.wake();
        }
    }
}

impl<R: Side> Link<R> {
    /// Leaves in peace: no further streams, and those that are open end as they would.
    pub(crate) fn shutdown(&self) {
        let mut state = self.0.borrow_mut();
        let state = &mut *state;
        state.machine.shutdown(&mut state.output);
        state.wake_anyway();
    }

    /// Asks the peer for a sign of life.
    pub(crate) fn ping(&self) {
        let mut state = self.0.borrow_mut();
        let state = &mut *state;
        state.has_pong = false;
        state.machine.ping(PING, &mut state.output);
        state.wake_driver();
    }

    /// Whether the last [`Link::ping`] was answered; said once.
    pub(crate) fn take_pong(&self) -> bool {
        std::mem::take(&mut self.0.borrow_mut().has_pong)
    }

    /// Whether the peer's settings have come.
    pub(crate) fn is_settled(&self) -> bool {
        self.0.borrow().machine.is_settled()
    }

    /// Waits for the peer's settings, or the connection's end.
    pub(crate) fn poll_settled(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.0.borrow_mut();
        if state.machine.is_settled() || state.ended.is_some() {
            return Poll::Ready(());
        }
        if !state.unsettled.iter().any(|task| task.will_wake(cx.waker())) {
            state.unsettled.push(cx.waker().clone());
        }
        Poll::Pending
    }
}

impl Link<Client> {
    /// Streams that may be open at once now; 0 where there can be no further one.
    pub(crate) fn stream_limit(&self) -> u32 {
        let state = self.0.borrow();
        if state.ended.is_some() || state.machine.is_leaving() {
            0
        } else {
            state.machine.stream_limit()
        }
    }

    /// Whether it takes no further streams, now and later.
    pub(crate) fn is_leaving(&self) -> bool {
        let state = self.0.borrow();
        state.ended.is_some() || state.machine.is_leaving()
    }

    /// Whether the server takes extended CONNECT.
    pub(crate) fn takes_extended_connect(&self) -> bool {
        self.0.borrow().machine.allows_protocol()
    }
}

/// What moves a connection's bytes; its owner polls it.
#[derive(Debug)]
pub(crate) struct Driver<R: Side> {
    pub(super) link: Rc<Link<R>>,
    transport: Transport,
    opened: Instant,
}

impl<R: Side> Driver<R> {
    /// `read`: bytes that have been read before.
    pub(crate) fn new(stream: Bytestream, read: BytesMut, config: Config) -> Self {
        let mut output = Output::new();
        let machine = Conn::new(config, &mut output);
        let mut transport = Transport::new(stream);
        transport.read = read;
        Self {
            link: Rc::new(Link(RefCell::new(State {
                machine,
                output,
                entries: Vec::new(),
                free: Vec::new(),
                by_slot: Vec::new(),
                task: None,
                is_woken: true,
                ended: None,
                going: None,
                has_pong: false,
                unsettled: Vec::new(),
            }))),
            transport,
            opened: clock::now(),
        }
    }

    pub(crate) const fn link(&self) -> &Rc<Link<R>> {
        &self.link
    }

    /// Gives back what an idle connection does not need.
    pub(crate) fn rest(&mut self) {
        let mut state = self.link.0.borrow_mut();
        if !state.output.has_remaining() {
            state.output = Output::new();
        }
        self.transport.rest();
    }

    /// Takes frames in until there is a head, and writes what waits when there is none; resolves with the head or with
    /// the connection's end, after which [`Driver::close`] is left to be called.
    pub(super) fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Head<R>, Ended>> {
        let mut state = self.link.0.borrow_mut();
        let state = &mut *state;
        if let Some(ended) = state.ended {
            return Poll::Ready(Err(ended));
        }
        if !state.task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
            state.task = Some(cx.waker().clone());
        }
        state.is_woken = false;
        let turn = loop {
            match Self::poll_read(state, &mut self.transport, cx) {
                Poll::Ready(Ok(head)) => return Poll::Ready(Ok(head)),
                Poll::Ready(Err(ended)) => break Err(ended),
                Poll::Pending => {}
            }
            let was_full = R::STOPS_READING && state.output.remaining() >= UNREAD_MAX;
            match Self::poll_write(state, &mut self.transport, cx) {
                Poll::Ready(Err(_)) => break Err(Ended::Closed),
                Poll::Ready(Ok(())) if state.machine.is_drained() => break Err(Ended::Drained),
                Poll::Ready(Ok(())) if was_full => {}
                Poll::Ready(Ok(())) => break Ok(()),
                Poll::Pending => {
                    // The socket wakes it.
                    state.is_woken = true;
                    break Ok(());
                }
            }
        };
        match turn {
            Ok(()) => Poll::Pending,
            Err(ended) => {
                state.end(ended);
                Poll::Ready(Err(ended))
            }
        }
    }

    fn poll_read(
        state: &mut State<R>,
        transport: &mut Transport,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Head<R>, Ended>> {
        loop {
            while let Some(event) = state
                .machine
                .receive(&mut transport.read, &mut state.output)
                .map_err(Ended::Broken)?
            {
                if let Some(head) = state.note(event) {
                    return Poll::Ready(Ok(head));
                }
            }
            state.settle();
            state.wake_writable();
            if R::STOPS_READING && state.output.remaining() >= UNREAD_MAX {
                return Poll::Pending;
            }
            match ready!(transport.poll_read(cx)) {
                Ok(0) | Err(_) => return Poll::Ready(Err(Ended::Closed)),
                Ok(_) => {}
            }
        }
    }

    fn poll_write(
        state: &mut State<R>,
        transport: &mut Transport,
        cx: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        std::mem::swap(&mut state.output, &mut transport.output);
        let flushed = transport.poll_flush(cx);
        std::mem::swap(&mut state.output, &mut transport.output);
        state.wake_writable();
        flushed
    }

    /// Tells the machine the time, by which floods are judged. Once a turn is enough.
    pub(crate) fn note_time(&mut self) {
        let since = clock::now().duration_since(self.opened);
        self.link.0.borrow_mut().machine.note_time(since.as_secs());
    }

    /// Ends the connection where it has not ended: the peer is not waited for.
    pub(crate) fn give_up(&mut self) {
        self.link.0.borrow_mut().end(Ended::Closed);
    }

    /// As [`Driver::give_up`], and tells the peer.
    pub(crate) fn abort(&mut self, reason: Reason) {
        let mut state = self.link.0.borrow_mut();
        let state = &mut *state;
        if state.ended.is_none() {
            state.machine.abort(reason, &mut state.output);
            state.end(Ended::Drained);
        }
    }

    /// Writes what waits and says that nothing follows.
    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        let mut state = self.link.0.borrow_mut();
        ready!(Self::poll_write(&mut state, &mut self.transport, cx))?;
        self.transport.poll_shutdown(cx)
    }

    /// Reads and throws away; `Ready` when the peer has finished or broken, or `most` bytes have been read.
    pub(crate) fn poll_discard(&mut self, cx: &mut Context<'_>, most: &mut usize) -> Poll<()> {
        self.transport.poll_discard(cx, most)
    }
}

impl Driver<Client> {
    /// Moves bytes until the connection ends.
    pub(crate) fn poll_drive(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        self.note_time();
        loop {
            match ready!(self.poll_head(cx)) {
                Ok((stream, head, is_end)) => {
                    let mut state = self.link.0.borrow_mut();
                    if let Some(entry) = state.entry(stream) {
                        entry.heads.push(head);
                        entry.ended = is_end;
                        entry.wake();
                    }
                }
                Err(ended) => return Poll::Ready(ended),
            }
        }
    }
}

impl<R: Side> Drop for Driver<R> {
    fn drop(&mut self) {
        // A task that is dropped with its runtime may be inside a borrow.
        if let Ok(mut state) = self.link.0.try_borrow_mut() {
            state.end(Ended::Closed);
        }
    }
}
