//! A connection between two drivers of ours, in memory.

use std::{cell::RefCell, future::poll_fn, rc::Rc, task::Poll, time::Duration};

use bytes::{Bytes, BytesMut};
use rajut_codec::{
    Method, RequestHead, ResponseHead, Scheme,
    h1::BodyLength,
    h2::{Client, Config, Reason, Server},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    task::{LocalSet, spawn_local},
    time::Instant,
};

use super::*;
use crate::{http::message::Piece, stream::Stream as Bytestream};

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(LocalSet::new().run_until(async {
        tokio::time::timeout(Duration::from_secs(20), test).await.unwrap();
    }));
}

type Accepted = Rc<RefCell<Vec<Stream<Server>>>>;

/// Both sides of a connection, each driven by a task; what the server accepts is collected.
fn pair(server: Config, buffer: usize) -> (Rc<Link<Client>>, Rc<Link<Server>>, Accepted) {
    let (near, far) = duplex(buffer);
    let mut driver = Driver::<Client>::new(Bytestream::Memory(near), BytesMut::new(), Config::default());
    let client = driver.link().clone();
    spawn_local(async move {
        poll_fn(|cx| driver.poll_drive(cx)).await;
    });
    let mut driver = Driver::<Server>::new(Bytestream::Memory(far), BytesMut::new(), server);
    let link = driver.link().clone();
    let accepted = Accepted::default();
    let accepting = accepted.clone();
    spawn_local(async move {
        while let Ok((_, stream)) = poll_fn(|cx| driver.poll_accept(cx)).await {
            accepting.borrow_mut().push(stream);
        }
    });
    (client, link, accepted)
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::task::yield_now().await;
    }
}

fn post() -> RequestHead {
    let mut head = RequestHead::new(Method::Post, "/visits");
    head.authority = Bytes::from_static(b"clinic");
    head
}

fn open(client: &Rc<Link<Client>>, length: BodyLength) -> Stream<Client> {
    client.open(&post(), Scheme::Http, length).unwrap()
}

async fn send<R: Side>(stream: &mut Stream<R>, piece: Piece) -> Result<(), Lost> {
    stream.push(piece)?;
    poll_fn(|cx| stream.poll_flush(cx)).await
}

async fn read_all<R: Side>(stream: &mut Stream<R>) -> Result<Vec<u8>, Lost> {
    let mut bytes = Vec::new();
    loop {
        match poll_fn(|cx| stream.poll_piece(cx)).await? {
            Piece::Data(piece) => bytes.extend_from_slice(&piece),
            Piece::Trailers(_) => {}
            Piece::End => return Ok(bytes),
        }
    }
}

#[test]
fn a_body_larger_than_every_window_and_buffer_passes_both_ways() {
    run(async {
        let (client, _, accepted) = pair(Config::default(), 1000);
        let body: Vec<u8> = (0..3_000_000_u32)
            .map(|n| n.to_le_bytes()[n as usize % 3])
            .collect();
        let mut stream = open(&client, BodyLength::Unknown);
        until("the request comes", || !accepted.borrow().is_empty()).await;
        let mut served = accepted.borrow_mut().pop().unwrap();
        spawn_local(async move {
            served
                .push_head(&ResponseHead::new(200), BodyLength::Unknown)
                .unwrap();
            loop {
                let piece = poll_fn(|cx| served.poll_piece(cx)).await.unwrap();
                let is_end = matches!(piece, Piece::End);
                send(&mut served, piece).await.unwrap();
                if is_end {
                    return;
                }
            }
        });
        let (mut sent, mut got) = (0, Vec::new());
        poll_fn(|cx| {
            loop {
                let flushed = stream.poll_flush(cx);
                assert!(!matches!(flushed, Poll::Ready(Err(_))));
                if !stream.has_room() || sent > body.len() {
                    break;
                }
                let piece = match &body[sent.min(body.len())..(sent + 50_000).min(body.len())] {
                    [] => Piece::End,
                    piece => Piece::Data(Bytes::copy_from_slice(piece)),
                };
                sent += if matches!(piece, Piece::End) { 1 } else { 50_000 };
                stream.push(piece).unwrap();
            }
            loop {
                match stream.poll_piece(cx) {
                    Poll::Ready(Ok(Piece::Data(piece))) => got.extend_from_slice(&piece),
                    Poll::Ready(Ok(Piece::End)) => return Poll::Ready(()),
                    Poll::Ready(other) => panic!("{other:?}"),
                    Poll::Pending => return Poll::Pending,
                }
            }
        })
        .await;
        assert!(got == body);
        drop(stream);
        assert_eq!(client.0.borrow().machine.stream_count(), 0);
    });
}

#[test]
fn what_nobody_takes_is_bounded_by_the_windows_and_given_back() {
    run(async {
        let config = Config {
            stream_window: 100_000,
            connection_window: 150_000,
            ..Config::default()
        };
        let (client, server, accepted) = pair(config, 1 << 20);
        // Small pieces are put together instead of piling up.
        let mut one = open(&client, BodyLength::Unknown);
        for _ in 0..500 {
            send(&mut one, Piece::Data(Bytes::from_static(&[b'a'; 10])))
                .await
                .unwrap();
        }
        until("it comes", || {
            let state = server.0.borrow();
            state.entries.first().is_some_and(|entry| entry.held() == 5_000)
        })
        .await;
        let pieces = server.0.borrow().entries[0].pieces.len();
        assert!(pieces <= 10, "{pieces}");
        let mut two = open(&client, BodyLength::Unknown);
        let mut blocked = Box::pin(send(&mut two, Piece::Data(Bytes::from(vec![b'b'; 200_000]))));
        assert!(
            tokio::time::timeout(Duration::from_millis(50), &mut blocked)
                .await
                .is_err()
        );
        let held: usize = server.0.borrow().entries.iter().map(link::Entry::held).sum();
        assert!((100_000..=105_000).contains(&held), "{held}");
        // Read to its end, and dropped unread: both give the connection's window back.
        let mut served = accepted.borrow_mut().remove(0);
        spawn_local(async move {
            send(&mut one, Piece::End).await.unwrap();
            poll_fn(|cx| one.poll_lost(cx)).await;
        });
        assert_eq!(read_all(&mut served).await.unwrap(), [b'a'; 5_000]);
        drop(accepted.borrow_mut().pop());
        assert_eq!(blocked.await, Err(Lost::Reset(Reason::CANCEL)));
        drop(served);
        for _ in 0..4 {
            let mut next = open(&client, BodyLength::Unknown);
            until("it is accepted", || !accepted.borrow().is_empty()).await;
            let mut served = accepted.borrow_mut().pop().unwrap();
            let sending = async {
                send(&mut next, Piece::Data(Bytes::from(vec![b'c'; 90_000])))
                    .await
                    .unwrap();
                send(&mut next, Piece::End).await.unwrap();
            };
            let (read, ()) = tokio::join!(read_all(&mut served), sending);
            assert_eq!(read.unwrap().len(), 90_000);
        }
        assert!(server.0.borrow().entries.len() <= 4, "entries are used again");
    });
}

#[test]
fn an_early_answer_is_read_whole_and_stops_the_upload() {
    run(async {
        let (client, _, accepted) = pair(Config::default(), 1 << 20);
        let mut stream = open(&client, BodyLength::Unknown);
        until("the request comes", || !accepted.borrow().is_empty()).await;
        let mut served = accepted.borrow_mut().pop().unwrap();
        served
            .push_head(&ResponseHead::new(413), BodyLength::Exact(4))
            .unwrap();
        send(&mut served, Piece::Data(Bytes::from_static(b"much")))
            .await
            .unwrap();
        assert!(served.is_done(), "the last byte carries the end");
        drop(served);
        let lost = poll_fn(|cx| stream.poll_lost(cx)).await;
        assert_eq!(lost, Lost::Reset(Reason::NO_ERROR));
        let head = poll_fn(|cx| stream.poll_head(cx)).await.unwrap();
        assert_eq!(head.head.status, 413);
        assert_eq!(read_all(&mut stream).await.unwrap(), b"much");
        assert!(
            send(&mut stream, Piece::Data(Bytes::from_static(b"more")))
                .await
                .is_err()
        );
    });
}

#[test]
fn streams_learn_of_resets_and_of_the_connections_end() {
    run(async {
        let (client, server, accepted) = pair(Config::default(), 1 << 20);
        let mut one = open(&client, BodyLength::Unknown);
        let two = open(&client, BodyLength::Unknown);
        until("both come", || accepted.borrow().len() == 2).await;
        drop(two);
        let mut served = accepted.borrow_mut().pop().unwrap();
        assert_eq!(
            poll_fn(|cx| served.poll_lost(cx)).await,
            Lost::Reset(Reason::CANCEL)
        );
        accepted.borrow_mut()[0].reset(Reason::REFUSED_STREAM);
        let refused = Err(Lost::Reset(Reason::REFUSED_STREAM));
        assert_eq!(poll_fn(|cx| one.poll_head(cx)).await.map(drop), refused);
        // Leaving: the client opens no more, what is open goes on.
        let mut three = open(&client, BodyLength::Empty);
        until("it comes", || accepted.borrow().len() == 2).await;
        server.shutdown();
        until("the client knows", || client.is_leaving()).await;
        assert_eq!(client.stream_limit(), 0);
        let mut served = accepted.borrow_mut().pop().unwrap();
        served
            .push_head(&ResponseHead::new(204), BodyLength::Empty)
            .unwrap();
        drop(served);
        assert_eq!(poll_fn(|cx| three.poll_head(cx)).await.unwrap().head.status, 204);
        assert_eq!(
            poll_fn(|cx| three.poll_piece(cx))
                .await
                .map(|piece| matches!(piece, Piece::End)),
            Ok(true)
        );
    });
}

#[test]
fn a_goaway_gives_unseen_streams_back_and_a_close_loses_the_rest() {
    run(async {
        let (near, mut far) = duplex(1 << 20);
        let mut driver = Driver::<Client>::new(Bytestream::Memory(near), BytesMut::new(), Config::default());
        let client = driver.link().clone();
        spawn_local(async move { poll_fn(|cx| driver.poll_drive(cx)).await });
        let (mut one, mut two) = (open(&client, BodyLength::Empty), open(&client, BodyLength::Empty));
        far.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
        far.write_all(&[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0])
            .await
            .unwrap();
        assert_eq!(poll_fn(|cx| two.poll_lost(cx)).await, Lost::Unseen);
        drop(far);
        assert_eq!(poll_fn(|cx| one.poll_lost(cx)).await, Lost::Closed);
    });
}

/// Reads until nothing comes for a moment.
async fn drain(far: &mut DuplexStream) -> usize {
    let mut buffer = vec![0; 4096];
    let mut total = 0;
    while let Ok(Ok(count)) = tokio::time::timeout(Duration::from_millis(50), far.read(&mut buffer)).await {
        total += count;
        if count == 0 {
            break;
        }
    }
    total
}

#[test]
fn a_client_that_does_not_read_is_not_read_for_ever() {
    run(async {
        let (near, mut far) = duplex(64 * 1024);
        let mut driver = Driver::<Server>::new(Bytestream::Memory(near), BytesMut::new(), Config::default());
        let link = driver.link().clone();
        let accepted = Rc::new(std::cell::Cell::new(0_u32));
        let counting = accepted.clone();
        spawn_local(async move {
            while let Ok((_, mut stream)) = poll_fn(|cx| driver.poll_accept(cx)).await {
                counting.set(counting.get() + 1);
                // Each another one, so that none is compressed.
                let mut head = ResponseHead::new(200);
                head.fields
                    .set("x-long", format!("{:0900}", counting.get()))
                    .unwrap();
                // Gone in the meantime is as good.
                let _ = stream.push_head(&head, BodyLength::Empty);
            }
        });
        far.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        far.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
        let send = async {
            for id in (1..20_000_u32).step_by(2) {
                let mut frame = vec![0, 0, 6, 1, 5];
                frame.extend_from_slice(&id.to_be_bytes());
                frame.extend_from_slice(&[0x82, 0x86, 0x84, 0x41, 0x01, b'w']);
                far.write_all(&frame).await.unwrap();
            }
        };
        assert!(tokio::time::timeout(Duration::from_secs(2), send).await.is_err());
        let waiting = bytes::Buf::remaining(&link.0.borrow().output);
        assert!(waiting < 512 * 1024, "{waiting} bytes wait");
        let before = accepted.get();
        assert!(before < 10_000);
        // Once it reads, it goes on.
        assert!(drain(&mut far).await > 64 * 1024);
        until("it goes on", || accepted.get() > before).await;
    });
}

#[test]
fn an_unanswered_ping_is_noticed_and_an_answered_one_repeated() {
    run(async {
        let every = Some((Duration::from_millis(20), Duration::from_millis(100)));
        let (near, mut far) = duplex(1 << 16);
        let mut driver = Driver::<Client>::new(Bytestream::Memory(near), BytesMut::new(), Config::default());
        far.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
        let mut pings = KeepAlive::new(every);
        let watched = spawn_local(async move {
            poll_fn(|cx| {
                let _ = driver.poll_drive(cx);
                if pings.poll(cx, driver.link()) {
                    Poll::Ready(())
                } else {
                    Poll::Pending
                }
            })
            .await;
        });
        let mut seen = Vec::new();
        let mut pings = 0;
        while pings < 3 {
            let mut buffer = [0; 256];
            let count = far.read(&mut buffer).await.unwrap();
            seen.extend_from_slice(&buffer[..count]);
            while let Some(at) = seen
                .windows(9)
                .position(|head| head == [0, 0, 8, 6, 0, 0, 0, 0, 0])
            {
                if seen.len() < at + 17 {
                    break;
                }
                let mut answer = seen[at..at + 17].to_vec();
                answer[4] = 1;
                seen.drain(..at + 17);
                far.write_all(&answer).await.unwrap();
                pings += 1;
            }
        }
        assert!(!watched.is_finished());
        watched.await.unwrap();
    });
}
