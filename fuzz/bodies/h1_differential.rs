//! The same bytes to our codec and to hyper, over memory. What both take must mean the same; what only one takes must
//! be on the list of intended differences.
//!
//! Intended: we refuse more ([`ours_is_stricter`]). Where hyper refuses more, it is `http::Uri`'s syntax, which hyper
//! applies to the target ([`hyper_is_stricter`]); our rule is `is_path_byte`, and routing never parses a URI.

use std::{cell::RefCell, convert::Infallible, rc::Rc};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::{Request, Response, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use rajut_codec::{
    Fields, Method, RequestHead, TargetForm,
    h1::{BodyLength, DecodeError, Limits},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::h1::{Seen, read_requests, read_responses};

/// A message that arrived whole, in a form in which both sides can be compared.
#[derive(Debug, PartialEq)]
pub struct Message {
    /// Method and path, or status.
    pub start: String,
    /// Names in lower case, sorted; equal names keep their order.
    pub fields: Vec<(String, Vec<u8>)>,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, Vec<u8>)>,
}

/// `data`: one byte for the role, then the bytes of the peer.
pub fn run(data: &[u8]) {
    let Some((role, input)) = data.split_first() else {
        return;
    };
    if input.len() > 32 * 1024 {
        return;
    }
    if role % 2 == 0 {
        requests(input);
    } else {
        response(input);
    }
}

/// Rules of ours that hyper does not have, or has in a laxer form.
fn ours_is_stricter(error: DecodeError) -> bool {
    use DecodeError as E;
    matches!(
        error,
        // hyper takes bare LF as a line's end, also within the chunked coding, and skips any number of empty lines.
        E::LineEnding | E::ChunkLineEnding | E::EmptyLines
        // hyper leaves `host` and the target's authority to the application.
        | E::HostMissing | E::HostDuplicate | E::HostInvalid
        // A fragment is cut off by `http::Uri`; any scheme is taken; CONNECT's target may lack the port.
        | E::Target | E::Scheme
        // Equal duplicates and lists of `content-length` are merged.
        | E::ContentLengthDuplicate
        // `transfer-encoding` wins over `content-length`; codings before `chunked` are passed on; in responses any
        // coding but chunked means "until close"; HTTP/1.0 requests with it are refused by both, responses not.
        | E::LengthAndTransferEncoding | E::TransferEncoding | E::TransferEncodingUnsupported
        | E::TransferEncodingInHttp10
        // A CONNECT may have a body; `connection` is not parsed strictly.
        | E::ConnectBody | E::Connection
        // White space behind a chunk's size and leading zeros; extensions may hold control characters.
        | E::ChunkSize | E::ChunkSizeOverflow | E::ChunkExtension
        // Trailers are the application's matter.
        | E::TrailerForbidden | E::TrailersTooLarge
        // Empty lines before a status line are skipped; 101 ends the exchange without being asked for.
        | E::StatusLine | E::UnexpectedUpgrade
    )
}

/// Whether hyper refuses this target where we don't: `http::Uri` knows fewer characters and checks the host's form.
fn hyper_is_stricter(head: &RequestHead) -> bool {
    let target: Vec<u8> = match head.form {
        TargetForm::Absolute => [b"http://", &head.authority[..], &head.path_and_query[..]].concat(),
        TargetForm::Authority => head.authority.to_vec(),
        TargetForm::Origin | TargetForm::Asterisk => head.path_and_query.to_vec(),
    };
    hyper::Uri::try_from(target).is_err()
}

fn sorted(fields: impl Iterator<Item = (String, Vec<u8>)>) -> Vec<(String, Vec<u8>)> {
    let mut fields: Vec<_> = fields.collect();
    fields.sort_by(|a, b| a.0.cmp(&b.0));
    fields
}

fn of_ours(fields: &Fields) -> Vec<(String, Vec<u8>)> {
    sorted(fields.iter().map(|field| {
        (
            String::from_utf8_lossy(field.name).to_ascii_lowercase(),
            field.value.to_vec(),
        )
    }))
}

/// `host` is left out: we put the target's authority there (RFC 9112 §3.2.2), hyper leaves it.
fn without_host(mut fields: Vec<(String, Vec<u8>)>) -> Vec<(String, Vec<u8>)> {
    fields.retain(|(name, _)| name != "host");
    fields
}

/// Our messages that are complete, up to the first that is not.
fn complete(
    seen: &[Seen],
    start: impl Fn(&Seen) -> Option<(String, Vec<(String, Vec<u8>)>)>,
) -> Vec<Message> {
    let mut messages = Vec::new();
    let mut current: Option<Message> = None;
    for one in seen {
        if let Some((start, fields)) = start(one) {
            current = Some(Message {
                start,
                fields,
                body: Vec::new(),
                trailers: Vec::new(),
            });
        }
        match (one, &mut current) {
            (Seen::Data(data), Some(message)) => message.body.extend_from_slice(data),
            (Seen::Trailers(fields), Some(message)) => message.trailers = of_ours(fields),
            (Seen::EndOfBody, _) => messages.extend(current.take()),
            _ => {}
        }
    }
    messages
}

fn our_requests(seen: &[Seen]) -> Vec<Message> {
    complete(seen, |one| match one {
        Seen::Request(head, ..) => {
            let path = if head.form == TargetForm::Authority {
                ""
            } else {
                head.path_and_query_str()
            };
            Some((
                format!("{} {path} {}", head.method, head.version.as_str()),
                without_host(of_ours(&head.fields)),
            ))
        }
        _ => None,
    })
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime =
            tokio::runtime::Builder::new_current_thread().build().expect("a runtime without drivers");
    }
    RUNTIME.with(|runtime| runtime.block_on(future))
}

async fn collect(body: Incoming) -> Option<(Vec<u8>, Vec<(String, Vec<u8>)>)> {
    let collected = body.collect().await.ok()?;
    let trailers = collected.trailers().map(|map| {
        sorted(
            map.iter()
                .map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec())),
        )
    });
    Some((collected.to_bytes().to_vec(), trailers.unwrap_or_default()))
}

/// What a hyper server reads, each request answered with an empty 400.
pub fn hyper_requests(input: &[u8]) -> Vec<Message> {
    let seen = Rc::new(RefCell::new(Vec::new()));
    let service = service_fn(|request: Request<Incoming>| {
        let seen = Rc::clone(&seen);
        async move {
            let (head, body) = request.into_parts();
            let path = head
                .uri
                .path_and_query()
                .map(ToString::to_string)
                .unwrap_or_default();
            let fields = sorted(
                head.headers
                    .iter()
                    .map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec())),
            );
            let start = format!("{} {path} {:?}", head.method, head.version);
            if let Some((body, trailers)) = collect(body).await {
                seen.borrow_mut().push(Message {
                    start,
                    fields: without_host(fields),
                    body,
                    trailers,
                });
            }
            let mut response = Response::new(Empty::<Bytes>::new());
            *response.status_mut() = hyper::StatusCode::BAD_REQUEST;
            Ok::<_, Infallible>(response)
        }
    });
    block_on(async {
        let (mut near, far) = tokio::io::duplex(1 << 20);
        near.write_all(input).await.expect("the pipe is large enough");
        near.shutdown().await.expect("a pipe can be shut");
        let mut builder = hyper::server::conn::http1::Builder::new();
        let conn = builder
            .half_close(true)
            .serve_connection(TokioIo::new(far), service);
        // An error is an answer too: it shows in what was read before.
        let _outcome = conn.await;
    });
    seen.take()
}

fn requests(input: &[u8]) {
    let ours = read_requests(input, Limits::default(), || usize::MAX);
    let shown = String::from_utf8_lossy(input);
    // A request to switch protocols or to open a tunnel: hyper hands the connection over, nothing to compare.
    let special = |one: &Seen| matches!(one, Seen::Request(head, _, _, upgrade) if *upgrade || head.method == Method::Connect);
    if ours.iter().any(special) {
        return;
    }
    let (our_messages, theirs) = (our_requests(&ours), hyper_requests(input));
    for (index, message) in our_messages.iter().enumerate() {
        let Some(other) = theirs.get(index) else {
            let head = ours.iter().filter_map(|one| {
                if let Seen::Request(head, ..) = one {
                    Some(head)
                } else {
                    None
                }
            });
            let excused = head.take(index + 1).any(hyper_is_stricter);
            assert!(excused, "only we accept {message:?} in {shown:?}");
            return;
        };
        let mut message_start = message.start.clone();
        if other.start.starts_with("OPTIONS / ") {
            // RFC 9112 §3.2.4: `OPTIONS http://host` means `*`.
            message_start = message_start.replace("OPTIONS * ", "OPTIONS / ");
        }
        assert_eq!(message_start, other.start, "{shown:?}");
        assert_eq!(
            (&message.fields, &message.body),
            (&other.fields, &other.body),
            "{shown:?}"
        );
        assert_eq!(message.trailers, other.trailers, "{shown:?}");
    }
    if theirs.len() > our_messages.len() {
        match ours.last() {
            Some(Seen::Error(error)) => {
                assert!(ours_is_stricter(*error), "only hyper accepts, {error}: {shown:?}");
            }
            other => panic!("hyper read on where we stopped at {other:?}: {shown:?} {theirs:?}"),
        }
    }
}

/// What a hyper client reads as the answer to a GET.
pub fn hyper_response(input: &[u8]) -> Option<Message> {
    block_on(async {
        let (mut near, far) = tokio::io::duplex(1 << 20);
        let (mut sender, conn) = hyper::client::conn::http1::handshake::<_, Empty<Bytes>>(TokioIo::new(far))
            .await
            .ok()?;
        let exchange = async {
            let request = Request::get("/")
                .header("host", "a:80")
                .body(Empty::new())
                .expect("a valid request");
            let response = sender.send_request(request).await.ok()?;
            let (head, body) = response.into_parts();
            let fields = sorted(
                head.headers
                    .iter()
                    .map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec())),
            );
            let (body, trailers) = collect(body).await?;
            Some(Message {
                start: head.status.as_u16().to_string(),
                fields,
                body,
                trailers,
            })
        };
        let server = async {
            // hyper takes bytes before its request as unsolicited.
            let mut request = [0; 1024];
            let _read = near.read(&mut request).await;
            let _written = near.write_all(input).await;
            let _shut = near.shutdown().await;
        };
        let (message, ()) = join(exchange, async {
            let _both = join(conn, server).await;
        })
        .await;
        message
    })
}

/// Polls two futures to their ends on this task.
async fn join<A, B>(a: impl Future<Output = A>, b: impl Future<Output = B>) -> (A, B) {
    use std::{
        pin::pin,
        task::Poll::{Pending, Ready},
    };
    let (mut a, mut b) = (pin!(a), pin!(b));
    let (mut first, mut second) = (None, None);
    std::future::poll_fn(move |context| {
        if first.is_none()
            && let Ready(value) = a.as_mut().poll(context)
        {
            first = Some(value);
        }
        if second.is_none()
            && let Ready(value) = b.as_mut().poll(context)
        {
            second = Some(value);
        }
        match (first.take(), second.take()) {
            (Some(one), Some(two)) => Ready((one, two)),
            (one, two) => {
                (first, second) = (one, two);
                Pending
            }
        }
    })
    .await
}

/// Whether the response, or an interim one before it, has a status that allows no body.
fn bodiless(input: &[u8], message: &Message) -> bool {
    let interim = input.starts_with(b"HTTP/1.1 1") || input.starts_with(b"HTTP/1.0 1");
    interim || ["101", "204", "304"].contains(&message.start.as_str())
}

fn response(input: &[u8]) {
    let mut request = RequestHead::new(Method::Get, "/");
    request.authority = Bytes::from_static(b"a:80");
    let ours = read_responses(
        &request,
        input,
        Limits {
            max_informational: 255,
            ..Limits::default()
        },
        || usize::MAX,
    );
    let shown = String::from_utf8_lossy(input);
    if ours
        .iter()
        .any(|one| matches!(one, Seen::Response(_, BodyLength::Tunnel)))
    {
        return;
    }
    let our_message = complete(&ours, |one| match one {
        Seen::Response(head, _) if !head.is_informational() => {
            Some((head.status.to_string(), of_ours(&head.fields)))
        }
        _ => None,
    })
    .pop();
    match (our_message, hyper_response(input)) {
        (Some(ours), theirs) => assert_eq!(Some(ours), theirs, "{shown:?}"),
        (None, Some(theirs)) => match ours.last() {
            // hyper does not look at the length of a response that has no body.
            Some(Seen::Error(DecodeError::ContentLength)) if bodiless(input, &theirs) => {}
            Some(Seen::Error(error)) => {
                assert!(ours_is_stricter(*error), "only hyper accepts, {error}: {shown:?}");
            }
            other => panic!("we stopped at {other:?} in {shown:?}, hyper read {theirs:?}"),
        },
        (None, None) => {}
    }
}
