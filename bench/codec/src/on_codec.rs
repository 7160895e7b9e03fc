//! The hop on `rajut-codec`.

use std::{
    future::poll_fn,
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    task::ready,
};

use bytes::{Buf, BytesMut};
use rajut_codec::{
    Output,
    forward::{self, Upgrade},
    h1::{BodyEvent, BodyLength, ClientConn, ClientNext, Limits, ServerConn, ServerNext},
};
use tokio::{
    io::{AsyncReadExt, AsyncWrite},
    net::TcpStream,
};

use crate::Pool;

/// One read asks for so much.
const READ: usize = 8 * 1024;
/// Output beyond which it is written before more is read.
const OUTPUT_HIGH: usize = 64 * 1024;

/// A connection and its buffers.
#[derive(Debug)]
struct Wire {
    stream: TcpStream,
    read: BytesMut,
    output: Output,
}

/// An upstream connection and the state of its conversation.
#[derive(Debug)]
pub(crate) struct Upstream {
    wire: Wire,
    machine: ClientConn,
}

impl Wire {
    fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            read: BytesMut::new(),
            output: Output::new(),
        }
    }

    async fn fill(&mut self) -> io::Result<usize> {
        self.read.reserve(READ);
        self.stream.read_buf(&mut self.read).await
    }

    async fn flush(&mut self) -> io::Result<()> {
        let (stream, output) = (&mut self.stream, &mut self.output);
        poll_fn(|cx| {
            while output.has_remaining() {
                let mut slices = [IoSlice::new(&[]); 16];
                let count = output.chunks_vectored(&mut slices);
                let written = ready!(Pin::new(&mut *stream).poll_write_vectored(cx, &slices[..count]))?;
                if written == 0 {
                    return Err(io::ErrorKind::WriteZero.into()).into();
                }
                output.advance(written);
            }
            Ok(()).into()
        })
        .await
    }
}

fn broken(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// A client's connection until it ends.
pub(crate) async fn connection(stream: TcpStream, pool: Rc<Pool<Upstream>>) {
    let mut client = Wire::new(stream);
    let mut machine = ServerConn::new(Limits::default(), false);
    // An error ends the connection, as it does where hyper serves it.
    while matches!(exchange(&mut client, &mut machine, &pool).await, Ok(true)) {}
}

/// One request and its answer; whether another may follow.
async fn exchange(client: &mut Wire, machine: &mut ServerConn, pool: &Pool<Upstream>) -> io::Result<bool> {
    let mut request = loop {
        match machine.decode_head(&mut client.read).map_err(broken)? {
            Some(request) => break request,
            None if client.fill().await? == 0 => return Ok(false),
            None => {}
        }
    };
    forward::strip_request(&mut request.head.fields, Upgrade::Drop).map_err(broken)?;
    let mut upstream = match pool.take() {
        Some(upstream) => upstream,
        None => Upstream {
            wire: Wire::new(pool.dial().await?),
            machine: ClientConn::new(Limits::default()),
        },
    };
    let out = &mut upstream.wire.output;
    upstream
        .machine
        .encode_head(&request.head, request.body, out)
        .map_err(broken)?;
    if request.body != BodyLength::Empty {
        send_body(client, machine, &mut upstream).await?;
    }
    upstream
        .machine
        .encode_end(None, &mut upstream.wire.output)
        .map_err(broken)?;
    upstream.wire.flush().await?;
    answer(client, machine, &mut upstream).await?;
    if upstream.machine.next_exchange(&upstream.wire.read) == ClientNext::Reusable {
        pool.put(upstream);
    }
    Ok(machine.next_exchange() == ServerNext::Request)
}

async fn send_body(client: &mut Wire, machine: &mut ServerConn, upstream: &mut Upstream) -> io::Result<()> {
    loop {
        match machine.decode_body(&mut client.read).map_err(broken)? {
            BodyEvent::Data(piece) => {
                let out = &mut upstream.wire.output;
                upstream.machine.encode_data(piece, out).map_err(broken)?;
                if out.remaining() >= OUTPUT_HIGH {
                    upstream.wire.flush().await?;
                }
            }
            BodyEvent::Trailers(_) => {}
            BodyEvent::End => return Ok(()),
            BodyEvent::Pending => {
                upstream.wire.flush().await?;
                if client.fill().await? == 0 {
                    machine.decode_eof(&client.read).map_err(broken)?;
                }
            }
        }
    }
}

async fn answer(client: &mut Wire, machine: &mut ServerConn, upstream: &mut Upstream) -> io::Result<()> {
    let Upstream {
        wire,
        machine: server,
    } = upstream;
    let mut response = loop {
        match server.decode_head(&mut wire.read).map_err(broken)? {
            Some(response) if response.head.is_informational() => {}
            Some(response) => break response,
            None if wire.fill().await? == 0 => {
                server.decode_eof(&wire.read).map_err(broken)?;
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            None => {}
        }
    };
    forward::strip_response(&mut response.head.fields, Upgrade::Drop).map_err(broken)?;
    machine
        .encode_head(&response.head, response.body, &mut client.output)
        .map_err(broken)?;
    let mut trailers = None;
    loop {
        match server.decode_body(&mut wire.read).map_err(broken)? {
            BodyEvent::Data(piece) => {
                machine.encode_data(piece, &mut client.output).map_err(broken)?;
                if client.output.remaining() >= OUTPUT_HIGH {
                    client.flush().await?;
                }
            }
            BodyEvent::Trailers(fields) => trailers = Some(fields),
            BodyEvent::End => break,
            BodyEvent::Pending => {
                client.flush().await?;
                if wire.fill().await? == 0 {
                    server.decode_eof(&wire.read).map_err(broken)?;
                }
            }
        }
    }
    machine
        .encode_end(trailers.as_ref(), &mut client.output)
        .map_err(broken)?;
    client.flush().await
}
