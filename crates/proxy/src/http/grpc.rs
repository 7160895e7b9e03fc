//! Messages of a gRPC stream, counted as its bytes pass.
//!
//! Source: gRPC over HTTP/2, "Length-Prefixed-Message": a byte that says whether it is compressed, four bytes of length, the
//! message. Bounds: nothing is kept but the prefix.

use bytes::Buf;

/// Bytes before each message.
const PREFIX: usize = 5;

/// One direction of a stream.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Messages {
    begun: u64,
    /// Bytes of the current message that are to come.
    left: u32,
    /// The last four bytes are its length.
    prefix: [u8; PREFIX],
    /// Bytes of the prefix that are there.
    read: usize,
}

impl Messages {
    /// Messages that have begun: those whose prefix has passed.
    pub(crate) const fn count(&self) -> u64 {
        self.begun
    }

    /// Looks at what passes.
    pub(crate) fn pass(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let skipped = bytes.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
            bytes.advance(skipped);
            self.left -= u32::try_from(skipped).unwrap_or(self.left);
            let taken = bytes.len().min(PREFIX - self.read);
            bytes.copy_to_slice(&mut self.prefix[self.read..self.read + taken]);
            self.read += taken;
            if self.read == PREFIX {
                let [_, length @ ..] = self.prefix;
                self.left = u32::from_be_bytes(length);
                self.read = 0;
                self.begun += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(length: usize) -> Vec<u8> {
        let prefix = u32::try_from(length).unwrap().to_be_bytes();
        [&[0], &prefix[..], &vec![7; length]].concat()
    }

    #[test]
    fn an_unfinished_prefix_is_no_message_and_a_length_beyond_all_ends_nothing() {
        let mut messages = Messages::default();
        messages.pass(&[0, 0, 0, 0]);
        assert_eq!(messages.count(), 0);
        messages.pass(&[0]);
        assert_eq!(messages.count(), 1, "a message may be empty");
        messages.pass(&[1, 255, 255, 255, 255, 9, 9]);
        messages.pass(&[0; 100]);
        assert_eq!(messages.count(), 2);
    }

    proptest! {
        #[test]
        fn however_the_bytes_are_cut_the_messages_are_the_same(
            lengths in prop::collection::vec(0..300_usize, 0..12),
            cuts in prop::collection::vec(1..40_usize, 1..30),
        ) {
            let bytes: Vec<u8> = lengths.iter().flat_map(|length| message(*length)).collect();
            let mut messages = Messages::default();
            let (mut rest, mut cuts) = (&bytes[..], cuts.iter().cycle());
            while !rest.is_empty() {
                let (piece, next) = rest.split_at(rest.len().min(*cuts.next().unwrap()));
                messages.pass(piece);
                rest = next;
            }
            prop_assert_eq!(messages.count(), lengths.len() as u64);
            prop_assert_eq!(messages.left, 0);
        }
    }
}
