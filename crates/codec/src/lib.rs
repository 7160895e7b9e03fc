//! HTTP/1.1 and HTTP/2 for the data path: messages, header fields and the protocol's state machines, without I/O.
//!
//! - [`Fields`]: the header section. A received one stays one block of bytes with offsets; edits go beside it;
//!   forwarding copies runs. HTTP/2 messages use the same type.
//! - [`RequestHead`], [`ResponseHead`]: heads of any HTTP version, the request's target taken apart.
//! - [`h1`]: the machines. [`h1::ServerConn`] reads requests and writes responses, [`h1::ClientConn`] the reverse.
//!   They take bytes from the caller's `BytesMut` and put bytes into an [`Output`].
//! - [`h2`]: the same for HTTP/2, with all streams of a connection in one machine.
//! - [`forward`]: what a proxy must take out of a message before it sends it on.
//!
//! Where it sits: layer 0, no edge to another crate. Steps 4, 9 and 12 of the request path call it.
//! What it does not do: I/O, time, path normalisation, content codings, any policy.
//!
//! ```
//! use bytes::{Buf, BytesMut};
//! use rajut_codec::{Known, Output, ResponseHead, h1::{BodyEvent, BodyLength, Limits, ServerConn, ServerNext}};
//!
//! let mut conn = ServerConn::new(Limits::default(), false);
//! let mut read = BytesMut::from("POST /visits HTTP/1.1\r\nHost: clinic\r\nContent-Length: 2\r\n\r\nhi");
//! let request = conn.decode_head(&mut read).unwrap().expect("the head is complete");
//! assert_eq!(request.head.path(), b"/visits");
//! assert_eq!(request.head.fields.get(Known::Host), Some(b"clinic".as_slice()));
//! assert_eq!(conn.decode_body(&mut read).unwrap(), BodyEvent::Data("hi".into()));
//! assert_eq!(conn.decode_body(&mut read).unwrap(), BodyEvent::End);
//!
//! let mut response = ResponseHead::new(200);
//! response.fields.set("x-served-by", "records").unwrap();
//! let mut out = Output::new();
//! conn.encode_head(&response, BodyLength::Exact(3), &mut out).unwrap();
//! conn.encode_data("ok\n".into(), &mut out).unwrap();
//! conn.encode_end(None, &mut out).unwrap();
//! assert_eq!(conn.next_exchange(), ServerNext::Request);
//! assert_eq!(
//!     out.copy_to_bytes(out.remaining()),
//!     "HTTP/1.1 200 OK\r\nx-served-by: records\r\ncontent-length: 3\r\n\r\nok\n"
//! );
//! ```

pub mod fields;
pub mod forward;
pub mod h1;
pub mod h2;
mod message;
mod output;

pub use fields::{Field, FieldError, Fields, Known, KnownSet, Name};
pub use message::{
    Method, OtherMethod, RequestHead, ResponseHead, Scheme, TargetForm, Version, reason_phrase,
    split_authority,
};
pub use output::Output;
