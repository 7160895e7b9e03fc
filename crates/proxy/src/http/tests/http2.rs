//! HTTP/2 on either side, and every translation between the versions.

use std::{future::poll_fn, net::SocketAddr, rc::Rc, time::Duration};

use bytes::Bytes;
use h2::{client::SendRequest, server::SendResponse};
use http::{HeaderMap, Request, Response};
use rajut_ir::cluster::{Http1Options, Http2Options, UpstreamProtocol};
use rajut_platform::socket::{TcpListener, TcpStream};
use tokio::{io::AsyncReadExt, io::AsyncWriteExt, task::spawn_local};

use super::harness::{OK, Proxy, Seen, Setup, answering, run, until};
use crate::stats::ClusterCounter;

/// An HTTP/2 server: `serve` answers each stream.
async fn h2_server<F>(
    serve: impl Fn(Request<h2::RecvStream>, SendResponse<Bytes>) -> F + 'static,
) -> (SocketAddr, Rc<Seen>)
where
    F: Future<Output = ()> + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Rc::new(Seen::default());
    let seeing = seen.clone();
    let serve = Rc::new(serve);
    spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            seeing.connections.set(seeing.connections.get() + 1);
            let (serve, seeing) = (serve.clone(), seeing.clone());
            spawn_local(async move {
                let mut builder = h2::server::Builder::new();
                builder.enable_connect_protocol();
                let mut connection = builder.handshake(stream).await.unwrap();
                while let Some(Ok((request, respond))) = connection.accept().await {
                    let head = format!("{} {} {:?}", request.method(), request.uri(), request.headers());
                    seeing.heads.borrow_mut().push(head);
                    spawn_local(serve(request, respond));
                }
            });
        }
    });
    (address, seen)
}

async fn read_all(body: &mut h2::RecvStream) -> (Vec<u8>, Option<HeaderMap>) {
    let mut bytes = Vec::new();
    while let Some(Ok(piece)) = body.data().await {
        body.flow_control().release_capacity(piece.len()).unwrap();
        bytes.extend_from_slice(&piece);
    }
    (bytes, body.trailers().await.unwrap_or_default())
}

/// Sends back what it got, and `grpc-status` in the trailers.
async fn echo(request: Request<h2::RecvStream>, mut respond: SendResponse<Bytes>) {
    let (_, mut body) = request.into_parts();
    let (bytes, trailers) = read_all(&mut body).await;
    let mut send = respond.send_response(Response::new(()), false).unwrap();
    send.send_data(bytes.into(), false).unwrap();
    let mut map = trailers.unwrap_or_default();
    map.insert("grpc-status", "0".parse().unwrap());
    send.send_trailers(map).unwrap();
}

pub(super) async fn h2_client(proxy: &Proxy) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(proxy.address).await.unwrap();
    let (send, connection) = h2::client::handshake(stream).await.unwrap();
    spawn_local(async move {
        // Ends with the test.
        let _ = connection.await;
    });
    send.ready().await.unwrap()
}

pub(super) fn get(path: &str) -> Request<()> {
    Request::builder()
        .uri(format!("http://app{path}"))
        .body(())
        .unwrap()
}

fn http2() -> UpstreamProtocol {
    UpstreamProtocol::Http2(Http2Options::default())
}

#[test]
fn http2_to_http1_and_http1_to_http2() {
    run(async {
        let (one, seen_one) = answering(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 2\r\n\r\n",
        )
        .await;
        let proxy = Setup::to(&[one]).start().await;
        let mut client = h2_client(&proxy).await;
        let mut request = get("/a?b");
        request.headers_mut().append("cookie", "a=1".parse().unwrap());
        request.headers_mut().append("cookie", "b=2".parse().unwrap());
        let (response, mut body) = client.send_request(request, false).unwrap();
        body.send_data("hello".into(), true).unwrap();
        let (parts, mut body) = response.await.unwrap().into_parts();
        let (bytes, trailers) = read_all(&mut body).await;
        assert_eq!((parts.status.as_u16(), bytes.as_slice()), (200, b"ok".as_slice()));
        assert_eq!(trailers.unwrap()["x-sum"], "2");
        assert!(!parts.headers.contains_key("transfer-encoding"));
        let head = seen_one.heads.borrow()[0].clone();
        assert!(head.starts_with("GET /a?b HTTP/1.1\r\nhost: app\r\n"), "{head}");
        assert!(
            head.contains("cookie: a=1; b=2\r\n") && head.contains("transfer-encoding: chunked"),
            "{head}"
        );
        assert_eq!(seen_one.bodies.borrow()[0], b"hello");

        let (two, seen_two) = h2_server(echo).await;
        let mut setup = Setup::to(&[two]);
        setup.cluster.protocol = http2();
        let proxy = setup.start().await;
        let reply = proxy.client().await.post("/x", "body").await;
        assert_eq!((reply.status, reply.text()), (200, "body"));
        assert!(
            seen_two.heads.borrow()[0].starts_with("POST http://app/x "),
            "{}",
            seen_two.heads.borrow()[0]
        );
        assert_eq!(proxy.counted(ClusterCounter::CxHttp2), 1);
    });
}

#[test]
fn grpc_streams_with_trailers_on_one_connection() {
    run(async {
        let (app, seen) = h2_server(echo).await;
        let mut setup = Setup::to(&[app]);
        setup.cluster.protocol =
            UpstreamProtocol::UseDownstream(Http1Options::default(), Http2Options::default());
        let proxy = setup.start().await;
        let mut client = h2_client(&proxy).await;
        let mut streams = Vec::new();
        for _ in 0..20 {
            let mut request = get("/s/m");
            *request.method_mut() = http::Method::POST;
            request
                .headers_mut()
                .insert("content-type", "application/grpc".parse().unwrap());
            request.headers_mut().insert("te", "trailers".parse().unwrap());
            client = client.ready().await.unwrap();
            let (response, body) = client.send_request(request, false).unwrap();
            streams.push((response, body));
        }
        for (_, body) in &mut streams {
            body.send_data("message".into(), false).unwrap();
            let mut trailers = HeaderMap::new();
            trailers.insert("x-up", "1".parse().unwrap());
            body.send_trailers(trailers).unwrap();
        }
        for (response, _) in streams {
            let mut body = response.await.unwrap().into_body();
            let (bytes, trailers) = read_all(&mut body).await;
            let trailers = trailers.unwrap();
            assert_eq!(
                (bytes.as_slice(), trailers["grpc-status"].as_bytes()),
                (b"message".as_slice(), b"0".as_slice())
            );
            assert_eq!(trailers["x-up"], "1");
        }
        assert_eq!(seen.connections.get(), 1);
        assert!(seen.heads.borrow()[0].contains("\"te\": \"trailers\""));
        until("requests are over", || {
            proxy.cluster.stats().requests_active() == 0
        })
        .await;
    });
}

#[test]
fn messages_stream_both_ways_before_either_side_ends() {
    run(async {
        let (app, _) = h2_server(|request, mut respond| async move {
            let mut body = request.into_body();
            let mut send = respond.send_response(Response::new(()), false).unwrap();
            while let Some(Ok(piece)) = body.data().await {
                body.flow_control().release_capacity(piece.len()).unwrap();
                send.send_data(piece, false).unwrap();
            }
            send.send_data(Bytes::new(), true).unwrap();
        })
        .await;
        let mut setup = Setup::to(&[app]);
        setup.cluster.protocol = http2();
        let proxy = setup.start().await;
        let mut client = h2_client(&proxy).await;
        let (response, mut send) = client.send_request(get("/"), false).unwrap();
        let mut body = response.await.unwrap().into_body();
        for number in 0..10 {
            let message = format!("message {number}");
            send.send_data(message.clone().into(), false).unwrap();
            assert_eq!(body.data().await.unwrap().unwrap(), message);
        }
        send.send_data(Bytes::new(), true).unwrap();
        assert_eq!(read_all(&mut body).await.0, b"");
    });
}

#[test]
fn a_large_body_passes_through_small_windows() {
    run(async {
        let (app, _) = h2_server(|request, mut respond| async move {
            let mut body = request.into_body();
            let (bytes, _) = read_all(&mut body).await;
            let mut response = Response::new(());
            response.headers_mut().insert("x-length", bytes.len().into());
            let mut send = respond.send_response(response, false).unwrap();
            send.reserve_capacity(bytes.len());
            let mut rest = Bytes::from(bytes);
            while !rest.is_empty() {
                let capacity = poll_fn(|cx| send.poll_capacity(cx)).await.unwrap().unwrap();
                let part = rest.split_to(capacity.min(rest.len()));
                send.send_data(part, rest.is_empty()).unwrap();
            }
        })
        .await;
        let mut setup = Setup::to(&[app]);
        setup.cluster.protocol = http2();
        let proxy = setup.start().await;
        let text = "0123456789abcdef".repeat(1 << 18);
        let mut client = proxy.client().await;
        let sending = format!(
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{text}",
            text.len()
        );
        client.send(sending).await;
        let reply = client.reply(false).await;
        assert_eq!(reply.field("x-length"), Some(text.len().to_string().as_str()));
        assert!(reply.body == text.as_bytes());
    });
}

#[test]
fn a_refused_stream_is_tried_again_and_a_reset_post_is_not() {
    run(async {
        let (app, seen) = h2_server(|request, mut respond| async move {
            let refuse = request.uri().path() == "/refuse"
                && !request.headers().contains_key("x-envoy-attempt-count-2");
            let second = request
                .headers()
                .get("x-envoy-attempt-count")
                .is_some_and(|count| count == "2");
            if refuse && !second {
                respond.send_reset(h2::Reason::REFUSED_STREAM);
            } else if refuse {
                respond.send_response(Response::new(()), true).unwrap();
            } else {
                respond.send_reset(h2::Reason::INTERNAL_ERROR);
            }
        })
        .await;
        let mut setup = Setup::to(&[app]);
        setup.cluster.protocol = http2();
        setup.virtual_host = Box::new(|host| host.include_request_attempt_count = true);
        setup.forward().retry = Some(super::harness::retry_on(rajut_ir::route::RetryOn(u32::MAX), 2));
        let proxy = setup.start().await;
        assert_eq!(proxy.client().await.post("/refuse", "").await.status, 200);
        assert_eq!(seen.heads.borrow().len(), 2);
        let reply = proxy.client().await.post("/reset", "").await;
        assert_eq!(reply.status, 503);
        assert_eq!(seen.heads.borrow().len(), 3);
    });
}

#[test]
fn draining_says_goaway_and_finishes_what_is_under_way() {
    run(async {
        let (app, _) = h2_server(|request, mut respond| async move {
            if request.uri().path() == "/slow" {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            respond.send_response(Response::new(()), true).unwrap();
        })
        .await;
        let mut setup = Setup::to(&[app]);
        setup.cluster.protocol = http2();
        let proxy = setup.start().await;
        let mut client = h2_client(&proxy).await;
        let (slow, _) = client.send_request(get("/slow"), true).unwrap();
        until("it is under way", || proxy.counted(ClusterCounter::RqTotal) == 1).await;
        proxy.drain.send_replace(true);
        assert_eq!(slow.await.unwrap().status().as_u16(), 200);
        until("the connection ends", || proxy.connections.get() == 0).await;
    });
}

#[test]
fn a_client_that_resets_its_stream_cancels_upstream() {
    run(async {
        let (app, seen) = super::harness::server(|mut client, seen| async move {
            super::harness::request(&mut client, &seen).await;
            while client.more().await {}
        })
        .await;
        let proxy = Setup::to(&[app]).start().await;
        let mut client = h2_client(&proxy).await;
        let (response, mut send) = client.send_request(get("/"), false).unwrap();
        send.send_data(Bytes::new(), true).unwrap();
        until("it is under way", || seen.heads.borrow().len() == 1).await;
        send.send_reset(h2::Reason::CANCEL);
        drop(response);
        until("the upstream connection is closed", || seen.active.get() == 0).await;
    });
}

#[test]
fn a_flood_of_resets_costs_its_connection_only() {
    run(async {
        let (app, _) = answering(OK).await;
        let proxy = Setup::to(&[app]).start().await;
        let stream = TcpStream::connect(proxy.address).await.unwrap();
        let (mut send, connection) = h2::client::handshake(stream).await.unwrap();
        let ended = spawn_local(connection);
        for _ in 0..5000 {
            let Ok(mut ready) = send.ready().await else { break };
            match ready.send_request(get("/"), false) {
                Ok((_, mut body)) => body.send_reset(h2::Reason::CANCEL),
                Err(_) => break,
            }
            send = ready;
            if ended.is_finished() {
                break;
            }
        }
        assert_eq!(proxy.get("/").await.status, 200);
        until("nothing is left behind", || {
            proxy.cluster.stats().requests_active() == 0
        })
        .await;
    });
}

#[test]
fn floods_of_settings_and_continuations_cost_their_connection() {
    run(async {
        let (app, _) = answering(OK).await;
        let proxy = Setup::to(&[app]).start().await;
        let settings: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
        // HEADERS without END_HEADERS on stream 1, then CONTINUATION frames that never end.
        let headers: &[u8] = &[0, 0, 1, 1, 0, 0, 0, 0, 1, 0x82];
        let mut continuation = vec![0, 0x40, 0, 9, 0, 0, 0, 0, 1];
        // A literal header field of 16 KiB, without indexing.
        continuation.extend_from_slice(&[0, 1, b'x', 0x7f, 0xfb, 0x7e]);
        continuation.resize(9 + 0x4000, b'y');
        let mut stream = TcpStream::connect(proxy.address).await.unwrap();
        stream
            .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            .await
            .unwrap();
        stream.write_all(settings).await.unwrap();
        stream.write_all(headers).await.unwrap();
        for _ in 0..64 {
            if stream.write_all(&continuation).await.is_err() {
                break;
            }
        }
        let mut answer = Vec::new();
        // A reset is as good as an orderly end here.
        let _ = stream.read_to_end(&mut answer).await;
        until("the connection is closed", || proxy.connections.get() == 0).await;
        assert_eq!(proxy.get("/").await.status, 200);
    });
}

#[test]
fn a_websocket_crosses_an_http2_hop() {
    run(async {
        // The inner proxy speaks HTTP/1 to the application, the outer one HTTP/2 to the inner.
        let (app, seen) = super::harness::server(|mut client, seen| async move {
            let head = client.head().await;
            seen.heads.borrow_mut().push(head);
            client.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n").await;
            let bytes = client.exactly(4).await;
            client.send(bytes).await;
            client.rest().await;
        })
        .await;
        let inner = Setup::to(&[app]).start().await;
        let mut setup = Setup::to(&[inner.address]);
        setup.cluster.protocol = http2();
        let outer = setup.start().await;
        let mut client = outer.client().await;
        client.send("GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\nSec-WebSocket-Version: 13\r\n\r\n").await;
        let head = client.head().await.to_lowercase();
        assert!(
            head.starts_with("http/1.1 101 ") && head.contains("sec-websocket-accept: x"),
            "{head}"
        );
        client.send("ping").await;
        assert_eq!(client.exactly(4).await, b"ping");
        let head = seen.heads.borrow().last().unwrap().to_lowercase();
        assert!(
            head.contains("get /chat http/1.1") && head.contains("sec-websocket-key: k"),
            "{head}"
        );
    });
}

#[test]
fn an_upstream_that_says_goaway_fails_nothing() {
    run(async {
        // Each connection takes three streams, then says GOAWAY.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Rc::new(std::cell::Cell::new(0));
        let counting = connections.clone();
        spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counting.set(counting.get() + 1);
                spawn_local(async move {
                    let mut connection = h2::server::handshake(stream).await.unwrap();
                    let mut served = 0;
                    while let Some(Ok((_, mut respond))) = connection.accept().await {
                        respond.send_response(Response::new(()), true).unwrap();
                        served += 1;
                        if served == 3 {
                            connection.graceful_shutdown();
                        }
                    }
                });
            }
        });
        let mut setup = Setup::to(&[address]);
        setup.cluster.protocol = http2();
        let proxy = setup.start().await;
        let mut client = proxy.client().await;
        for round in 0..30 {
            let reply = client.post("/", "x").await;
            assert_eq!(reply.status, 200, "round {round}: {}", reply.text());
        }
        assert!(connections.get() >= 5, "{}", connections.get());
        assert_eq!(proxy.counted(ClusterCounter::RqRetry), 0);
    });
}
