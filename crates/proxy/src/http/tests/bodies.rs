//! Bodies in both directions: framing, early answers, interim responses, large transfers.

use std::{rc::Rc, time::Duration};

use super::harness::{Client, OK, Seen, Setup, answering, request, run, server, until};
use crate::stats::ClusterCounter;

/// What an upload or download test moves; much more than every buffer on the way.
const LARGE: usize = 64 << 20;

#[test]
fn chunked_bodies_and_trailers_pass_both_ways() {
    run(async {
        let (app, seen) = answering(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\nX-Sum: 5\r\n\r\n",
        )
        .await;
        let proxy = Setup::to(&[app]).start().await;
        let mut client = proxy.client().await;
        client
            .send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nwxyz\r\n0\r\nX-Up: 1\r\n\r\n")
            .await;
        let head = client.head().await;
        assert!(head.contains("transfer-encoding: chunked"), "{head}");
        let rest = b"3\r\nabc\r\n2\r\nde\r\n0\r\nX-Sum: 5\r\n\r\n";
        assert_eq!(client.exactly(rest.len()).await, rest);
        assert_eq!(seen.bodies.borrow()[0], b"wxyz[X-Up: 1]");
        assert_eq!(proxy.get("/").await.text(), "abcde");
        assert_eq!(seen.connections.get(), 1);
    });
}

#[test]
fn answers_without_a_body_have_none() {
    run(async {
        let (app, _) = server(|mut client, seen| async move {
            while let Some(head) = request(&mut client, &seen).await {
                let answer = match head.split(' ').nth(1).unwrap() {
                    "/204" => "HTTP/1.1 204 No Content\r\n\r\n",
                    "/304" => "HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\nETag: x\r\n\r\n",
                    _ => "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n",
                };
                client.send(answer).await;
            }
        })
        .await;
        let proxy = Setup::to(&[app]).start().await;
        let mut client = proxy.client().await;
        for path in ["/204", "/304"] {
            assert_eq!(client.get(path).await.status, path[1..].parse::<u16>().unwrap());
        }
        client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let reply = client.reply(true).await;
        assert_eq!(reply.field("content-length"), Some("7"));
        assert_eq!(client.get("/204").await.status, 204);
    });
}

#[test]
fn expect_continue_and_early_hints_go_through() {
    run(async {
        let (app, seen) = server(|mut client, seen| async move {
            let head = client.head().await;
            assert!(head.to_lowercase().contains("expect: 100-continue"), "{head}");
            client
                .send("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n")
                .await;
            let body = client.exactly(5).await;
            seen.bodies.borrow_mut().push(body);
            client.send(OK).await;
            while client.more().await {}
        })
        .await;
        let proxy = Setup::to(&[app]).start().await;
        let mut client = proxy.client().await;
        client
            .send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
            .await;
        assert!(client.head().await.starts_with("HTTP/1.1 103 "));
        assert!(client.head().await.starts_with("HTTP/1.1 100 "));
        client.send("hello").await;
        assert_eq!(client.reply(false).await.status, 200);
        assert_eq!(seen.bodies.borrow()[0], b"hello");
    });
}

#[test]
fn an_early_answer_reaches_a_client_that_is_still_sending() {
    run(async {
        let (app, _) = server(|mut client, _: Rc<Seen>| async move {
            client.head().await;
            client
                .send("HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig")
                .await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        })
        .await;
        let proxy = Setup::to(&[app]).start().await;
        let mut client = proxy.client().await;
        client
            .send(format!(
                "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {LARGE}\r\n\r\n"
            ))
            .await;
        client.send(vec![b'x'; 100_000]).await;
        let reply = client.reply(false).await;
        assert_eq!((reply.status, reply.text()), (413, "big"));
        until("the upstream connection is closed", || {
            proxy.cluster.stats().connections_active() == 0
        })
        .await;
    });
}

#[test]
fn a_small_rest_of_a_body_is_read_and_the_connection_goes_on() {
    run(async {
        let (app, _) = server(|mut client, _: Rc<Seen>| async move {
            client.head().await;
            client
                .send("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")
                .await;
            while client.more().await {}
        })
        .await;
        let proxy = Setup::to(&[app]).start().await;
        let mut client = proxy.client().await;
        client
            .send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n")
            .await;
        assert_eq!(client.reply(false).await.status, 401);
        client.send("0123456789").await;
        assert_eq!(client.get("/").await.status, 401);
    });
}

#[test]
fn a_download_goes_only_as_fast_as_it_is_read() {
    run(async {
        let (app, seen) = server(|mut client, seen| async move {
            request(&mut client, &seen).await;
            client
                .send(format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n"))
                .await;
            let chunk = vec![b'd'; 1 << 20];
            for _ in 0..LARGE >> 20 {
                client.send(&chunk).await;
                seen.bodies.borrow_mut().push(Vec::new());
            }
        })
        .await;
        let proxy = Setup::to(&[app]).start().await;
        let mut client = proxy.client().await;
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        client.head().await;
        // Kernel buffers hold a few MiB; a proxy without backpressure would take it all.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let taken = seen.bodies.borrow().len();
        assert!(taken < LARGE >> 20 >> 1, "{taken} MiB taken unread");
        let mut left = LARGE;
        while left > 0 {
            left -= client.exactly(left.min(1 << 20)).await.len();
        }
    });
}

#[test]
fn an_upload_goes_only_as_fast_as_it_is_taken() {
    run(async {
        let (app, seen) = server(|mut client, seen| async move {
            client.head().await;
            until("the test reads on", || seen.active.get() > 100).await;
            let mut left = LARGE;
            while left > 0 {
                left -= client.exactly(left.min(1 << 20)).await.len();
            }
            client.send(OK).await;
            while client.more().await {}
        })
        .await;
        let proxy = Setup::to(&[app]).start().await;
        let mut client = proxy.client().await;
        client
            .send(format!(
                "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {LARGE}\r\n\r\n"
            ))
            .await;
        let chunk = vec![b'u'; 1 << 20];
        let mut sent = 0;
        while let Ok(()) = tokio::time::timeout(Duration::from_millis(300), client.send(&chunk)).await {
            sent += 1;
            assert!(sent < LARGE >> 20, "everything was taken unread");
        }
        seen.active.set(1000);
        // The chunk that timed out went out in part: what matters is that the rest can't be sent whole any more, so
        // only that the proxy lets go of everything is looked at.
        drop(client);
        until("the request is cancelled", || {
            proxy.cluster.stats().requests_active() == 0
        })
        .await;
    });
}

#[test]
fn a_cut_off_download_is_cut_off_for_the_client_too() {
    run(async {
        let (app, _) = server(|mut client, seen| async move {
            request(&mut client, &seen).await;
            client
                .send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
                .await;
        })
        .await;
        let proxy = Setup::to(&[app]).start().await;
        let mut client = proxy.client().await;
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        client.head().await;
        let rest = client.rest().await;
        assert!(
            !rest.ends_with(b"0\r\n\r\n"),
            "the client must see that it is incomplete"
        );
    });
}

#[test]
fn an_answer_until_close_is_passed_on_as_it_comes() {
    run(async {
        let (app, _) = server(|mut client, seen| async move {
            request(&mut client, &seen).await;
            client.send("HTTP/1.0 200 OK\r\n\r\nall of it").await;
        })
        .await;
        let proxy = Setup::to(&[app]).start().await;
        assert_eq!(proxy.get("/").await.text(), "all of it");
    });
}

#[test]
fn a_client_that_goes_away_cancels_its_request() {
    run(async {
        let (app, seen) = server(|mut client, seen| async move {
            request(&mut client, &seen).await;
            while client.more().await {}
        })
        .await;
        let proxy = Setup::to(&[app]).start().await;
        let mut client = proxy.client().await;
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        until("the request is there", || seen.heads.borrow().len() == 1).await;
        // A close with unread bytes, as a killed client leaves it.
        rajut_platform::socket::set_reset_on_close(&client.0).unwrap();
        drop(client);
        until("the upstream connection is closed", || seen.active.get() == 0).await;
        assert_eq!(proxy.counted(ClusterCounter::RqTotal), 1);
    });
}

#[test]
fn a_client_that_shuts_its_sending_half_still_gets_the_answer() {
    run(async {
        let (app, _) = server(|mut client, seen| async move {
            request(&mut client, &seen).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
            client.send(OK).await;
        })
        .await;
        let proxy = Setup::to(&[app]).start().await;
        let mut client = proxy.client().await;
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        tokio::io::AsyncWriteExt::shutdown(&mut client.0).await.unwrap();
        assert_eq!(client.reply(false).await.text(), "ok");
    });
}

#[test]
fn copies_go_to_the_mirrors() {
    run(async {
        let (app, seen) = answering(OK).await;
        let mut setup = Setup::to(&[app]);
        setup.forward().mirrors = vec![rajut_ir::route::Mirror {
            cluster: "app".into(),
            fraction: rajut_types::Percent::ALL,
            shadow_host_suffix: true,
            traced: true,
        }];
        let proxy = setup.start().await;
        let mut client: Client = proxy.client().await;
        assert_eq!(client.post("/m", "body").await.status, 200);
        until("the copy arrives", || seen.heads.borrow().len() == 2).await;
        assert_eq!(*seen.bodies.borrow(), [b"body".to_vec(), b"body".to_vec()]);
        assert!(
            seen.heads.borrow()[1].contains("Host: app-shadow"),
            "{}",
            seen.heads.borrow()[1]
        );
    });
}
