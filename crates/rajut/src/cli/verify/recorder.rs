//! A connection that keeps a copy of what passes, and how bytes are shown.

use std::{
    fmt::Write as _,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Of each direction, in bytes.
const KEPT_MAX: usize = 256 * 1024;
/// Content type of a TLS record that carries the application's (or late handshake's) encrypted bytes. RFC 8446 §5.1.
const APPLICATION_DATA: u8 = 23;

/// What passed.
#[derive(Debug, Clone, Default)]
pub(super) struct Recording {
    pub(super) sent: Vec<u8>,
    pub(super) received: Vec<u8>,
}

impl Recording {
    /// What was sent from the second encrypted record on: the first holds this side's certificate.
    pub(super) fn application_records(&self) -> &[u8] {
        let mut at = 0;
        let mut encrypted = 0;
        while let Some(header) = self.sent.get(at..at + 5) {
            if header[0] == APPLICATION_DATA {
                encrypted += 1;
                if encrypted == 2 {
                    return &self.sent[at..];
                }
            }
            at += 5 + usize::from(u16::from_be_bytes([header[3], header[4]]));
        }
        &self.sent
    }
}

/// A connection with a recording.
#[derive(Debug)]
pub(super) struct Recorder<S> {
    inner: S,
    recording: Recording,
}

impl<S> Recorder<S> {
    pub(super) fn new(inner: S) -> Self {
        Self {
            inner,
            recording: Recording::default(),
        }
    }

    pub(super) fn recording(&self) -> Recording {
        self.recording.clone()
    }
}

fn keep(kept: &mut Vec<u8>, bytes: &[u8]) {
    let room = KEPT_MAX.saturating_sub(kept.len());
    kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
}

impl<S: AsyncRead + Unpin> AsyncRead for Recorder<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(context, buffer))?;
        keep(&mut self.recording.received, &buffer.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Recorder<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.inner).poll_write(context, bytes))?;
        keep(&mut self.recording.sent, &bytes[..written]);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

/// The first bytes, sixteen a line, with the letters beside them.
pub(super) fn hexdump(bytes: &[u8], most: usize) -> String {
    let mut text = String::new();
    for (row, line) in bytes[..bytes.len().min(most)].chunks(16).enumerate() {
        let hex = line.iter().fold(String::new(), |mut hex, byte| {
            // Writing to a String can't fail.
            let _ = write!(hex, "{byte:02x} ");
            hex
        });
        let letters: String = line
            .iter()
            .map(|byte| {
                if byte.is_ascii_graphic() || *byte == b' ' {
                    char::from(*byte)
                } else {
                    '.'
                }
            })
            .collect();
        let _ = writeln!(text, "  {:04x}  {hex:<48} {letters}", row * 16);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_shown_with_their_letters() {
        assert_eq!(
            hexdump(b"GET / HTTP/1.1\r\nhost", 18),
            "  0000  47 45 54 20 2f 20 48 54 54 50 2f 31 2e 31 0d 0a  GET / HTTP/1.1..\n  \
               0010  68 6f                                            ho\n"
        );
    }

    #[test]
    fn the_applications_bytes_are_behind_the_handshakes() {
        let record = |kind: u8, body: &[u8]| {
            let mut record = vec![kind, 3, 3, 0, u8::try_from(body.len()).unwrap()];
            record.extend_from_slice(body);
            record
        };
        let sent = [
            record(22, b"hello"),
            record(20, b"\x01"),
            record(23, b"finished"),
            record(23, b"secret"),
        ]
        .concat();
        let recording = Recording {
            sent,
            received: Vec::new(),
        };
        assert_eq!(recording.application_records(), record(23, b"secret"));
    }
}
