//! Responses as the bytes of a gRPC stream, piece by piece: a response of megabytes is never in memory as a whole. Resources are
//! shared with other streams; what a stream holds is one pointer for each, and one piece that is on its way.
//!
//! ```text
//!  Response { Arc<Resource>… } ─► queue ─► [length][fields][resource][resource]… in pieces of about 16 KiB ─► HTTP/2
//! ```
//!
//! HTTP/2 asks for the next piece when its window has room, so a slow client costs no more than an idle one. Bounds:
//! [`PIECE_BYTES`] on the way, `limits::RESPONSES_QUEUED_MAX` responses in the queue, `limits::MESSAGE_BYTES_MAX` each.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::{BufMut as _, Bytes, BytesMut};
use http_body::{Body, Frame};
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};
use rajut_types::Text;
use tokio::sync::mpsc;
use tonic::Status;

use crate::{
    Resource,
    limits::MESSAGE_BYTES_MAX,
    message::{Protocol, Response},
};

/// Bytes that are gathered before they are handed on; HTTP/2 cuts them into its frames. It keeps room for as many pieces as were
/// ever queued on a connection, which takes 400 KB at most: 25 pieces of a frame each were 10 KiB for as long as it lives.
const PIECE_BYTES: usize = 64 << 10;
/// A resource of this size is handed on as it is, not copied.
const LARGE_BYTES: usize = 8 << 10;

/// What waits to be written: boxed, since a queue holds room for many.
pub(crate) type Queued = Result<Box<Writer>, Box<Status>>;

/// A response that is being written.
#[derive(Debug)]
pub(crate) struct Writer {
    protocol: Protocol,
    response: Response<Arc<Resource>>,
    /// The next resource.
    position: usize,
    head: Bytes,
    tail: Bytes,
    /// Of a large resource whose head is written: what is left.
    large: VecDeque<Bytes>,
}

impl Writer {
    /// `None`: longer than a message may be.
    pub(super) fn new(protocol: Protocol, response: Response<Arc<Resource>>) -> Option<Self> {
        let version = field_len(1, response.version.len());
        let resources: usize = response
            .resources
            .iter()
            .map(|resource| field_len(2, resource_len(protocol, &response.type_url, resource)))
            .sum();
        let mut tail = BytesMut::new();
        put_text(&mut tail, 4, &response.type_url);
        put_text(&mut tail, 5, &response.nonce);
        for name in &response.removed {
            put_text(&mut tail, 6, name);
        }
        let total = version + resources + tail.len();
        let length = u32::try_from(total).ok().filter(|_| total <= MESSAGE_BYTES_MAX)?;
        let mut head = BytesMut::with_capacity(5 + version);
        // Not compressed.
        head.put_u8(0);
        head.put_u32(length);
        put_text(&mut head, 1, &response.version);
        Some(Self {
            protocol,
            response,
            position: 0,
            head: head.freeze(),
            tail: tail.freeze(),
            large: VecDeque::new(),
        })
    }

    /// A short message of another service.
    pub(crate) fn message(message: &impl prost::Message) -> Self {
        let body = message.encode_to_vec();
        let mut head = BytesMut::with_capacity(5 + body.len());
        head.put_u8(0);
        // Short, as said.
        head.put_u32(u32::try_from(body.len()).unwrap_or_default());
        head.extend_from_slice(&body);
        Self {
            protocol: Protocol::Delta,
            response: Response {
                type_url: Text::default(),
                version: Text::default(),
                nonce: Text::default(),
                resources: Vec::new(),
                removed: Vec::new(),
            },
            position: 0,
            head: head.freeze(),
            tail: Bytes::new(),
            large: VecDeque::new(),
        }
    }

    /// The next piece; `None` at the end.
    fn next_piece(&mut self) -> Option<Bytes> {
        if let Some(large) = self.next_large() {
            return Some(large);
        }
        let mut piece = BytesMut::new();
        piece.extend_from_slice(&std::mem::take(&mut self.head));
        while piece.len() < PIECE_BYTES
            && let Some(resource) = self.response.resources.get(self.position)
        {
            self.position += 1;
            let large = resource.body.len() >= LARGE_BYTES;
            put_resource(
                &mut piece,
                self.protocol,
                &self.response.type_url,
                resource,
                !large,
            );
            if large {
                self.large = resource.body.parts().cloned().collect();
                return Some(piece.freeze());
            }
        }
        if self.position == self.response.resources.len() {
            piece.extend_from_slice(&std::mem::take(&mut self.tail));
        }
        (!piece.is_empty()).then(|| piece.freeze())
    }

    /// The next piece of a large resource: a large part as it is, small ones gathered.
    fn next_large(&mut self) -> Option<Bytes> {
        let first = self.large.pop_front()?;
        if first.len() >= LARGE_BYTES || self.large.is_empty() {
            return Some(first);
        }
        let left: usize = self.large.iter().map(Bytes::len).sum();
        let mut piece = BytesMut::with_capacity((first.len() + left).min(PIECE_BYTES));
        piece.extend_from_slice(&first);
        while let Some(part) = self.large.front()
            && piece.len() + part.len() <= PIECE_BYTES
        {
            piece.extend_from_slice(part);
            self.large.pop_front();
        }
        Some(piece.freeze())
    }
}

/// Length of a length-delimited field with its key.
fn field_len(tag: u32, len: usize) -> usize {
    key_len(tag) + encoded_len_varint(len as u64) + len
}

/// Length of a text field; an empty one is not written.
fn text_len(tag: u32, text: &str) -> usize {
    if text.is_empty() {
        0
    } else {
        field_len(tag, text.len())
    }
}

fn bytes_len(tag: u32, len: usize) -> usize {
    if len == 0 { 0 } else { field_len(tag, len) }
}

fn put_head(out: &mut BytesMut, tag: u32, len: usize) {
    encode_key(tag, WireType::LengthDelimited, out);
    encode_varint(len as u64, out);
}

fn put_text(out: &mut BytesMut, tag: u32, text: &str) {
    if !text.is_empty() {
        put_head(out, tag, text.len());
        out.extend_from_slice(text.as_bytes());
    }
}

/// `google.protobuf.Any`.
fn any_len(type_url: &str, resource: &Resource) -> usize {
    text_len(1, type_url) + bytes_len(2, resource.body.len())
}

/// The entry of `resources`: an `Any` in state-of-the-world form, a `Resource` around it in delta form. In both, the body
/// is what comes last but for the name, which therefore is written before it: order is free in protobuf.
fn resource_len(protocol: Protocol, type_url: &str, resource: &Resource) -> usize {
    let any = any_len(type_url, resource);
    match protocol {
        Protocol::StateOfTheWorld => any,
        Protocol::Delta => text_len(1, &resource.version) + text_len(3, &resource.name) + field_len(2, any),
    }
}

/// Everything of the entry; without `body`, everything before the body, which is its end.
fn put_resource(out: &mut BytesMut, protocol: Protocol, type_url: &str, resource: &Resource, body: bool) {
    put_head(out, 2, resource_len(protocol, type_url, resource));
    if protocol == Protocol::Delta {
        put_text(out, 1, &resource.version);
        put_text(out, 3, &resource.name);
        put_head(out, 2, any_len(type_url, resource));
    }
    put_text(out, 1, type_url);
    if !resource.body.is_empty() {
        put_head(out, 2, resource.body.len());
    }
    if body {
        for part in resource.body.parts() {
            out.extend_from_slice(part);
        }
    }
}

/// The body of an HTTP/2 answer that carries responses until its queue ends.
#[derive(Debug)]
pub(crate) struct ResponseBody {
    queue: mpsc::Receiver<Queued>,
    current: Option<Box<Writer>>,
    ended: bool,
}

impl ResponseBody {
    pub(crate) fn new(queue: mpsc::Receiver<Queued>) -> Self {
        Self {
            queue,
            current: None,
            ended: false,
        }
    }

    #[expect(
        clippy::default_trait_access,
        reason = "the type of header fields is named in the proxy's codec alone"
    )]
    fn end(&mut self, status: &Status) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.ended = true;
        let mut trailers = Default::default();
        match status.add_header(&mut trailers) {
            Ok(()) => Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
            Err(status) => Poll::Ready(Some(Err(status))),
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        loop {
            if self.ended {
                return Poll::Ready(None);
            }
            if let Some(writer) = &mut self.current {
                if let Some(piece) = writer.next_piece() {
                    return Poll::Ready(Some(Ok(Frame::data(piece))));
                }
                self.current = None;
            }
            match std::task::ready!(self.queue.poll_recv(context)) {
                Some(Ok(writer)) => self.current = Some(writer),
                Some(Err(status)) => return self.end(&status),
                None => return self.end(&Status::ok("")),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use rajut_proto::discovery::{DeltaDiscoveryResponse, DiscoveryResponse};

    use super::*;
    use crate::{Payload, wire};

    fn response(sizes: &[usize]) -> Response<Arc<Resource>> {
        let resource = |(position, size): (usize, &usize)| {
            Arc::new(Resource {
                name: format!("resource-{position}").into(),
                version: format!("{size:032x}").into(),
                body: vec![u8::try_from(position % 251).expect("small"); *size].into(),
            })
        };
        Response {
            type_url: "type.googleapis.com/x.Y".into(),
            version: "7".into(),
            nonce: "42".into(),
            resources: sizes.iter().enumerate().map(resource).collect(),
            removed: vec!["gone".into(), "gone too".into()],
        }
    }

    fn written(protocol: Protocol, response: &Response<Arc<Resource>>) -> Vec<u8> {
        let mut writer = Writer::new(protocol, response.clone()).expect("short enough");
        let pieces: Vec<Bytes> = std::iter::from_fn(|| writer.next_piece()).collect();
        assert!(pieces.iter().all(|piece| piece.len() <= 4 * PIECE_BYTES));
        pieces.concat()
    }

    #[test]
    fn what_is_written_in_pieces_reads_as_the_message() {
        for sizes in [
            &[][..],
            &[0],
            &[5, 300, 0, 70],
            &[9_000, 1, 60_000, 2],
            &[1_500; 400],
        ] {
            let sent = response(sizes);
            let bytes = written(Protocol::Delta, &sent);
            let (head, body) = bytes.split_at(5);
            assert_eq!(
                (
                    head[0],
                    u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize
                ),
                (0, body.len())
            );
            let read = wire::decode_delta_response(DeltaDiscoveryResponse::decode(body).expect("a message"));
            assert_eq!(read.removed, sent.removed);
            assert_eq!(
                (&read.type_url, &read.version, &read.nonce),
                (&sent.type_url, &sent.version, &sent.nonce)
            );
            assert!(
                read.resources
                    .iter()
                    .eq(sent.resources.iter().map(|resource| &**resource))
            );

            let bytes = written(
                Protocol::StateOfTheWorld,
                &Response {
                    removed: Vec::new(),
                    ..sent.clone()
                },
            );
            let read = DiscoveryResponse::decode(&bytes[5..]).expect("a message");
            assert_eq!(read.resources.len(), sizes.len());
            let same = |(any, resource): (&rajut_proto::Any, &Arc<Resource>)| {
                any.value == resource.body.to_bytes() && any.type_url == *sent.type_url
            };
            assert!(read.resources.iter().zip(&sent.resources).all(same));
        }
    }

    #[test]
    fn a_resource_in_parts_is_written_as_one_in_a_piece() {
        for sizes in [
            &[1, 0, 20][..],
            &[3_000; 20],
            &[9_000, 100, 20_000, 1, 1],
            &[16_384, 16_384],
            &[65_536, 65_536],
            &[200, 300, 64_000, 900, 800],
        ] {
            let sent = response(&[10, 0, 10]);
            let parts = sizes
                .iter()
                .enumerate()
                .map(|(position, size)| Bytes::from(vec![u8::try_from(position).expect("few"); *size]));
            let in_parts: Payload = parts.collect();
            let whole = Payload::from(in_parts.to_bytes());
            assert_eq!(in_parts, whole);
            let of = |body: Payload| {
                let resource = Resource {
                    body,
                    ..(*sent.resources[1]).clone()
                };
                let mut response = sent.clone();
                response.resources[1] = Arc::new(resource);
                [Protocol::Delta, Protocol::StateOfTheWorld].map(|protocol| written(protocol, &response))
            };
            assert_eq!(of(in_parts), of(whole));
        }
    }

    #[test]
    fn a_response_beyond_the_limit_is_not_written() {
        let mut long = response(&[1 << 20]);
        let one = long.resources[0].clone();
        long.resources = vec![one; 300];
        assert!(Writer::new(Protocol::Delta, long).is_none());
    }
}
