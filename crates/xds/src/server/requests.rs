//! A client's requests as they come: the length-prefixed messages of a gRPC stream.
//!
//! Beside tonic's own reader, since that one keeps a buffer of the longest message so far for as long as the stream lives: with
//! a thousand proxies, tens of megabytes of nothing. Here an idle stream holds none. Bound: one message of at most the given
//! length and one frame behind it; room is taken as bytes arrive, not as a length announces them.
//!
//! What it refuses: compressed messages (no client of discovery sends any unasked), longer ones, a stream that ends within one.
//!
//! Source: gRPC over HTTP/2, "Length-Prefixed-Message".

use std::pin::Pin;

use bytes::{Buf as _, Bytes, BytesMut};
use http_body::Body as _;
use tonic::{Status, body::Body};

/// Bytes before a message: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// See the module.
#[derive(Debug)]
pub(crate) struct Requests {
    body: Body,
    /// Longest message.
    bytes_max: usize,
    /// What has come and was not taken.
    buffer: BytesMut,
}

impl Requests {
    pub(crate) fn new(body: Body, bytes_max: usize) -> Self {
        Self {
            body,
            bytes_max,
            buffer: BytesMut::new(),
        }
    }

    /// The next message; `None` at the end. May be dropped while it waits, and called again: nothing is lost.
    pub(crate) async fn next<M: prost::Message + Default>(&mut self) -> Option<Result<M, Status>> {
        loop {
            match self.take() {
                Ok(Some(message)) => {
                    let decoded = M::decode(message)
                        .map_err(|error| Status::internal(format!("not a request of this service: {error}")));
                    return Some(decoded);
                }
                Ok(None) => {}
                Err(status) => return Some(Err(status)),
            }
            let frame = std::future::poll_fn(|context| Pin::new(&mut self.body).poll_frame(context)).await;
            match frame {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                Some(Err(status)) => return Some(Err(status)),
                None if self.buffer.is_empty() => return None,
                None => {
                    self.buffer = BytesMut::new();
                    return Some(Err(Status::internal("the stream ended within a message")));
                }
            }
        }
    }

    /// The first message of the buffer, if it is whole.
    fn take(&mut self) -> Result<Option<Bytes>, Status> {
        let Some((&[compressed, ref length @ ..], _)) = self.buffer.split_first_chunk::<PREFIX>() else {
            return Ok(None);
        };
        if compressed != 0 {
            return Err(Status::unimplemented("compressed requests are not taken"));
        }
        let length = u32::from_be_bytes(*length) as usize;
        if length > self.bytes_max {
            return Err(Status::resource_exhausted(format!(
                "a request of {length} bytes, where {} are the most",
                self.bytes_max
            )));
        }
        if self.buffer.len() - PREFIX < length {
            return Ok(None);
        }
        self.buffer.advance(PREFIX);
        let message = self.buffer.split_to(length).freeze();
        if self.buffer.is_empty() {
            // Its room goes with the message.
            self.buffer = BytesMut::new();
        }
        Ok(Some(message))
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::VecDeque,
        convert::Infallible,
        task::{Context, Poll},
    };

    use http_body::Frame;
    use prost::Message as _;
    use rajut_proto::discovery::DeltaDiscoveryRequest;
    use tonic::Code;

    use super::*;
    use crate::limits::MESSAGE_BYTES_MAX;

    /// A body of these frames.
    struct Frames(VecDeque<Vec<u8>>);

    impl http_body::Body for Frames {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(self.0.pop_front().map(|bytes| Ok(Frame::data(bytes.into()))))
        }
    }

    fn requests(bytes: &[u8], cut: usize) -> Requests {
        let frames = bytes.chunks(cut.max(1)).map(<[u8]>::to_vec).collect();
        Requests::new(Body::new(Frames(frames)), MESSAGE_BYTES_MAX)
    }

    fn message(names: usize) -> (DeltaDiscoveryRequest, Vec<u8>) {
        let message = DeltaDiscoveryRequest {
            type_url: "type.googleapis.com/x.Y".to_owned(),
            resource_names_subscribe: (0..names).map(|name| format!("name-{name}")).collect(),
            ..DeltaDiscoveryRequest::default()
        };
        let body = message.encode_to_vec();
        let mut bytes = vec![0];
        bytes.extend(u32::try_from(body.len()).expect("short").to_be_bytes());
        bytes.extend(body);
        (message, bytes)
    }

    #[tokio::test]
    async fn messages_are_read_however_they_are_cut_and_leave_no_buffer_behind() {
        let sent: Vec<_> = [0, 500, 1, 20].into_iter().map(message).collect();
        let bytes: Vec<u8> = sent.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
        for cut in [1, 2, 5, 7, 64, 1_000, bytes.len()] {
            let mut requests = requests(&bytes, cut);
            for (message, _) in &sent {
                let read = requests.next::<DeltaDiscoveryRequest>().await;
                assert_eq!(&read.expect("a message").expect("whole"), message, "cut at {cut}");
            }
            assert!(requests.next::<DeltaDiscoveryRequest>().await.is_none());
            assert_eq!(requests.buffer.capacity(), 0);
        }
    }

    #[tokio::test]
    async fn what_is_cut_short_compressed_too_long_or_no_message_is_refused() {
        let (_, whole) = message(3);
        let code = async |bytes: &[u8]| {
            let read = requests(bytes, 9).next::<DeltaDiscoveryRequest>().await;
            read.map(|read| read.expect_err("refused").code())
        };
        assert_eq!(code(&whole[..whole.len() - 1]).await, Some(Code::Internal));
        assert_eq!(code(&whole[..3]).await, Some(Code::Internal));
        assert_eq!(code(&[1, 0, 0, 0, 1, 0]).await, Some(Code::Unimplemented));
        assert_eq!(
            code(&[0, 255, 255, 255, 255]).await,
            Some(Code::ResourceExhausted)
        );
        assert_eq!(code(&[0, 0, 0, 0, 1, 255]).await, Some(Code::Internal));
        assert_eq!(code(&[]).await, None);
    }
}
