//! The open streams of a connection.
//!
//! They live in slots that are used again. Identifiers only rise on each side, so the list by identifier is sorted by
//! pushing; it is searched by halves, and the stream that was last asked for is found at once. Bounds: the caller opens no
//! more than the settings allow; the table gives its memory back when the last of many streams has gone.

/// Names a stream of a connection. The slot is lower than the highest number of streams that were open at once, so it can
/// index a table; it is used again after both sides have ended, when the key with the old identifier is void.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StreamKey {
    pub(crate) id: u32,
    pub(crate) slot: u32,
}

impl StreamKey {
    /// The identifier on the wire.
    pub const fn id(self) -> u32 {
        self.id
    }

    /// The place in the table of open streams.
    pub const fn slot(self) -> usize {
        self.slot as usize
    }
}

/// What one direction of a stream is up to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Half {
    /// The (final) head has not come or gone yet.
    Head,
    Body,
    Done,
}

/// `recv_left`, `send_left` where no length was announced.
pub(crate) const UNKNOWN: u64 = u64::MAX;

/// One open stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stream {
    /// 0 in a free slot.
    pub(crate) id: u32,
    pub(crate) recv: Half,
    pub(crate) send: Half,
    /// Interim responses that have come.
    pub(crate) informational: u8,
    /// HEAD: the response has no body whatever its fields say.
    pub(crate) bodiless: bool,
    /// It is in the queue of those that wait for the connection's window or room in the output.
    pub(crate) waiting: bool,
    /// It has something to send and its own window is used up.
    pub(crate) starved: bool,
    /// What we may send; below 0 after the peer has made its initial window smaller (RFC 9113 §6.9.2).
    pub(crate) send_window: i64,
    /// What the peer may send.
    pub(crate) recv_window: i64,
    /// Released bytes that the peer has not been told of.
    pub(crate) credit: u32,
    /// Bytes that the caller has and has not released.
    pub(crate) held: u32,
    /// Bytes that the announced length leaves.
    pub(crate) recv_left: u64,
    pub(crate) send_left: u64,
}

impl Stream {
    pub(crate) const fn new(id: u32, recv: Half, send: Half) -> Self {
        Self {
            id,
            recv,
            send,
            informational: 0,
            bodiless: false,
            waiting: false,
            starved: false,
            send_window: 0,
            recv_window: 0,
            credit: 0,
            held: 0,
            recv_left: UNKNOWN,
            send_left: UNKNOWN,
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.recv == Half::Done && self.send == Half::Done
    }
}

/// Slots that an empty table keeps.
const KEEP: usize = 16;

/// The table.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    slots: Vec<Stream>,
    free: Vec<u32>,
    /// (identifier, slot), sorted.
    by_id: Vec<(u32, u32)>,
    last: Option<StreamKey>,
}

impl Streams {
    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// Adds a stream whose identifier is higher than every other one's.
    pub(crate) fn insert(&mut self, stream: Stream) -> StreamKey {
        debug_assert!(self.by_id.last().is_none_or(|(id, _)| *id < stream.id));
        let slot = if let Some(slot) = self.free.pop() {
            self.slots[slot as usize] = stream;
            slot
        } else {
            self.slots.push(stream);
            // Far fewer than 2^32: the settings bound them.
            u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
        };
        self.by_id.push((stream.id, slot));
        StreamKey { id: stream.id, slot }
    }

    /// The open stream of an identifier.
    #[inline]
    pub(crate) fn find(&mut self, id: u32) -> Option<StreamKey> {
        if let Some(last) = self.last
            && last.id == id
        {
            return Some(last);
        }
        let at = self.by_id.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        let key = StreamKey {
            id,
            slot: self.by_id[at].1,
        };
        self.last = Some(key);
        Some(key)
    }

    /// The stream of a key, unless it has gone.
    #[inline]
    pub(crate) fn get(&self, key: StreamKey) -> Option<&Stream> {
        self.slots.get(key.slot()).filter(|stream| stream.id == key.id)
    }

    /// As `get`, to change it.
    #[inline]
    pub(crate) fn get_mut(&mut self, key: StreamKey) -> Option<&mut Stream> {
        self.slots
            .get_mut(key.slot())
            .filter(|stream| stream.id == key.id)
    }

    /// Takes a stream out.
    pub(crate) fn remove(&mut self, key: StreamKey) -> Option<Stream> {
        let stream = *self.get(key)?;
        let at = self.by_id.binary_search_by_key(&key.id, |(id, _)| *id).ok()?;
        self.by_id.remove(at);
        self.last = self.last.filter(|last| last.id != key.id);
        self.slots[key.slot()].id = 0;
        self.free.push(key.slot);
        if self.by_id.is_empty() && self.slots.capacity() > KEEP {
            *self = Self::default();
        }
        Some(stream)
    }

    /// All open streams.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (StreamKey, &mut Stream)> {
        self.slots.iter_mut().enumerate().filter_map(|(slot, stream)| {
            let slot = u32::try_from(slot).ok()?;
            (stream.id != 0).then_some((StreamKey { id: stream.id, slot }, stream))
        })
    }

    /// The open stream with the highest identifier.
    pub(crate) fn highest(&self) -> Option<StreamKey> {
        self.by_id
            .last()
            .map(|(id, slot)| StreamKey { id: *id, slot: *slot })
    }

    /// Bytes that the table holds.
    pub(crate) fn capacity(&self) -> usize {
        self.slots.capacity() * size_of::<Stream>() + self.free.capacity() * 4 + self.by_id.capacity() * 8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_used_again_and_the_old_key_is_void() {
        let mut streams = Streams::default();
        let keys: Vec<_> = [1, 3, 5]
            .map(|id| streams.insert(Stream::new(id, Half::Body, Half::Head)))
            .into();
        assert_eq!(streams.find(3), Some(keys[1]));
        assert!(streams.remove(keys[1]).is_some() && streams.remove(keys[1]).is_none());
        assert_eq!(streams.find(3), None);
        let next = streams.insert(Stream::new(9, Half::Body, Half::Head));
        assert_eq!(next.slot(), keys[1].slot());
        assert!(streams.get(keys[1]).is_none() && streams.get(next).is_some());
        assert_eq!(streams.highest(), Some(next));
        assert_eq!(streams.iter_mut().count(), 3);
    }

    #[test]
    fn an_empty_table_is_small() {
        let mut streams = Streams::default();
        let keys: Vec<_> = (0..1000)
            .map(|n| streams.insert(Stream::new(2 * n + 1, Half::Body, Half::Head)))
            .collect();
        assert!(keys.iter().all(|key| streams.find(key.id) == Some(*key)));
        assert!(keys.iter().all(|key| streams.remove(*key).is_some()));
        assert!(streams.is_empty() && streams.capacity() < 4096);
    }

    #[test]
    fn a_stream_is_as_small_as_the_documentation_says() {
        assert!(size_of::<Stream>() <= 64, "{}", size_of::<Stream>());
    }
}
