//! The hop on the crate `h2`, polled by hand.

use std::{
    cell::RefCell,
    future::Future,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use h2::{client, server};
use http::{HeaderMap, Request, Response, header};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Hop, Wires};

/// One end of a connection in memory.
#[derive(Clone, Debug, Default)]
struct Pipe(Rc<RefCell<Ends>>);

#[derive(Debug, Default)]
struct Ends {
    read: Vec<u8>,
    /// How much of it has been read.
    at: usize,
    written: Vec<u8>,
}

impl AsyncRead for Pipe {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let ends = &mut *self.0.borrow_mut();
        let rest = &ends.read[ends.at..];
        if rest.is_empty() {
            return Poll::Pending;
        }
        let size = rest.len().min(buf.remaining());
        buf.put_slice(&rest[..size]);
        ends.at += size;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().written.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = &mut self.0.borrow_mut().written;
        let before = written.len();
        for slice in slices {
            written.extend_from_slice(slice);
        }
        Poll::Ready(Ok(written.len() - before))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

type Exchange = Pin<Box<dyn Future<Output = Result<()>>>>;

/// Both connections and the exchanges between them.
pub(crate) struct CrateHop {
    downstream: Pipe,
    upstream: Pipe,
    /// None until the preface has come.
    server: Option<server::Connection<Pipe, Bytes>>,
    handshake: Option<server::Handshake<Pipe, Bytes>>,
    client: client::Connection<Pipe, Bytes>,
    send: client::SendRequest<Bytes>,
    exchanges: Vec<Exchange>,
}

impl CrateHop {
    pub(crate) fn new() -> Result<Self> {
        let (downstream, upstream) = (Pipe::default(), Pipe::default());
        // As the product sets it up.
        let handshake = server::Builder::new()
            .max_concurrent_streams(1024)
            .initial_window_size(256 * 1024)
            .initial_connection_window_size(1024 * 1024)
            .max_header_list_size(60 * 1024)
            .max_send_buffer_size(128 * 1024)
            .handshake(downstream.clone());
        let mut connecting = Box::pin(
            client::Builder::new()
                .initial_window_size(256 * 1024)
                .initial_connection_window_size(1024 * 1024)
                .max_header_list_size(60 * 1024)
                .max_send_buffer_size(128 * 1024)
                .enable_push(false)
                .handshake(upstream.clone()),
        );
        let Poll::Ready(connected) = connecting.as_mut().poll(&mut Context::from_waker(Waker::noop())) else {
            anyhow::bail!("the preface is written at once");
        };
        let (send, client) = connected?;
        Ok(Self {
            downstream,
            upstream,
            server: None,
            handshake: Some(handshake),
            client,
            send,
            exchanges: Vec::new(),
        })
    }

    fn poll_server(&mut self, cx: &mut Context<'_>) -> Result<()> {
        if let Some(handshake) = &mut self.handshake
            && let Poll::Ready(connection) = Pin::new(handshake).poll(cx)
        {
            self.server = Some(connection?);
            self.handshake = None;
        }
        let Some(server) = &mut self.server else {
            return Ok(());
        };
        while let Poll::Ready(accepted) = server.poll_accept(cx) {
            let (request, respond) = accepted.context("the connection goes on")??;
            let exchange = exchange(request, respond, self.send.clone());
            self.exchanges.push(Box::pin(exchange));
        }
        Ok(())
    }

    fn poll_exchanges(&mut self, cx: &mut Context<'_>) -> Result<()> {
        let mut at = 0;
        while at < self.exchanges.len() {
            match self.exchanges[at].as_mut().poll(cx) {
                Poll::Ready(result) => {
                    result?;
                    drop(self.exchanges.swap_remove(at));
                }
                Poll::Pending => at += 1,
            }
        }
        Ok(())
    }

    fn poll_client(&mut self, cx: &mut Context<'_>) -> Result<()> {
        if let Poll::Ready(ended) = Pin::new(&mut self.client).poll(cx) {
            ended?;
        }
        Ok(())
    }

    fn poll(&mut self, from_client: bool, from_backend: bool) -> Result<()> {
        let mut cx = Context::from_waker(Waker::noop());
        if from_client {
            // Requests come in, go over, go out; windows go back.
            self.poll_server(&mut cx)?;
            self.poll_exchanges(&mut cx)?;
            self.poll_client(&mut cx)?;
            self.poll_server(&mut cx)?;
        }
        if from_backend {
            self.poll_client(&mut cx)?;
            self.poll_exchanges(&mut cx)?;
            self.poll_server(&mut cx)?;
            self.poll_client(&mut cx)?;
        }
        Ok(())
    }
}

/// Hands the bytes over, as a read and a write would.
fn fill(pipe: &Pipe, from: &mut Vec<u8>) {
    let ends = &mut *pipe.0.borrow_mut();
    ends.read.drain(..ends.at);
    ends.at = 0;
    ends.read.append(from);
}

impl Hop for CrateHop {
    #[inline(never)]
    fn turn(&mut self, wires: &mut Wires) {
        let (from_client, from_backend) = (!wires.from_client.is_empty(), !wires.from_backend.is_empty());
        fill(&self.downstream, &mut wires.from_client);
        fill(&self.upstream, &mut wires.from_backend);
        self.poll(from_client, from_backend)
            .expect("both peers speak HTTP/2");
        wires
            .to_client
            .append(&mut self.downstream.0.borrow_mut().written);
        wires.to_backend.append(&mut self.upstream.0.borrow_mut().written);
    }
}

/// Takes out what is between two neighbours only; HTTP/2 has none of the others.
fn strip(fields: &mut HeaderMap) {
    fields.remove(header::CONNECTION);
    fields.remove(header::TRANSFER_ENCODING);
    fields.remove(header::UPGRADE);
}

async fn exchange(
    request: Request<h2::RecvStream>,
    mut respond: server::SendResponse<Bytes>,
    send: client::SendRequest<Bytes>,
) -> Result<()> {
    let (mut parts, body) = request.into_parts();
    strip(&mut parts.headers);
    let mut send = send.ready().await?;
    let (response, up) = send.send_request(Request::from_parts(parts, ()), body.is_end_stream())?;
    let back = async {
        let (mut parts, body) = response.await?.into_parts();
        strip(&mut parts.headers);
        let down = respond.send_response(Response::from_parts(parts, ()), body.is_end_stream())?;
        pass(body, down).await
    };
    let (sent, answered) = tokio::join!(pass(body, up), back);
    sent?;
    answered
}

async fn pass(mut from: h2::RecvStream, mut to: h2::SendStream<Bytes>) -> Result<()> {
    if from.is_end_stream() {
        return Ok(());
    }
    while let Some(piece) = from.data().await {
        let piece = piece?;
        from.flow_control().release_capacity(piece.len())?;
        let end = from.is_end_stream();
        to.send_data(piece, end)?;
        if end {
            return Ok(());
        }
    }
    match from.trailers().await? {
        Some(trailers) => to.send_trailers(trailers)?,
        None => to.send_data(Bytes::new(), true)?,
    }
    Ok(())
}
