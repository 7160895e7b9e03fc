//! Circuit breaking, timeouts, caps.

use std::{rc::Rc, time::Duration};

use rajut_ir::cluster::CircuitBreakers;
use tokio::task::spawn_local;

use super::harness::{Client, OK, Seen, Setup, answering, request, run, server, until};
use crate::stats::ClusterCounter;

/// A server that answers when the test lets it.
async fn held() -> (std::net::SocketAddr, Rc<Seen>) {
    server(|mut client, seen| async move {
        while request(&mut client, &seen).await.is_some() {
            until("released", || seen.active.get() >= 1000).await;
            client.send(OK).await;
        }
    })
    .await
}

fn release(seen: &Seen) {
    seen.active.set(1000);
}

#[test]
fn requests_beyond_max_requests_are_answered_503_and_counted() {
    run(async {
        let (app, seen) = held().await;
        let mut setup = Setup::to(&[app]);
        setup.cluster.circuit_breakers = CircuitBreakers {
            max_requests: 2,
            ..CircuitBreakers::UNLIMITED
        };
        let proxy = setup.start().await;
        let mut busy = Vec::new();
        for _ in 0..2 {
            let mut client = proxy.client().await;
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
            busy.push(client);
        }
        until("two are under way", || seen.heads.borrow().len() == 2).await;
        let reply = proxy.get("/").await;
        assert_eq!(
            (reply.status, reply.field("x-envoy-overloaded")),
            (503, Some("true"))
        );
        assert!(
            reply.text().ends_with("reset reason: overflow"),
            "{}",
            reply.text()
        );
        assert_eq!(proxy.counted(ClusterCounter::RqOverflow), 1);
        release(&seen);
        for client in &mut busy {
            assert_eq!(client.reply(false).await.status, 200);
        }
    });
}

#[test]
fn at_max_connections_requests_queue_and_only_too_many_of_them_fail() {
    run(async {
        let (app, seen) = held().await;
        let mut setup = Setup::to(&[app]);
        setup.cluster.circuit_breakers = CircuitBreakers {
            max_connections: 1,
            max_pending_requests: 2,
            ..CircuitBreakers::UNLIMITED
        };
        let proxy = setup.start().await;
        let mut clients: Vec<Client> = Vec::new();
        for number in 0..3 {
            let mut client = proxy.client().await;
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
            clients.push(client);
            // The first has its connection, the others wait.
            if number == 0 {
                until("the first is under way", || seen.heads.borrow().len() == 1).await;
            } else {
                until("it waits", || proxy.cluster.stats().requests_pending() == number).await;
            }
        }
        let refused = proxy.get("/").await;
        assert_eq!(
            (refused.status, refused.field("x-envoy-overloaded")),
            (503, Some("true"))
        );
        assert_eq!(proxy.counted(ClusterCounter::RqPendingOverflow), 1);
        release(&seen);
        for client in &mut clients {
            assert_eq!(client.reply(false).await.status, 200);
        }
        assert_eq!(seen.connections.get(), 1);
        assert!(proxy.counted(ClusterCounter::CxOverflow) > 0);
    });
}

#[test]
fn a_waiter_for_another_host_gets_the_place_of_an_idle_connection() {
    run(async {
        let (one, _) = answering(OK).await;
        let (two, _) = answering(OK).await;
        let mut setup = Setup::to(&[one, two]);
        setup.cluster.circuit_breakers.max_connections = 1;
        let proxy = setup.start().await;
        let mut client = proxy.client().await;
        for _ in 0..6 {
            assert_eq!(client.get("/").await.status, 200);
        }
        assert_eq!(proxy.cluster.breakers().connections_now(), 1);
    });
}

#[test]
fn the_routes_timeout_answers_504() {
    run(async {
        let (app, seen) = held().await;
        let mut setup = Setup::to(&[app]);
        setup.forward().timeout = Some(Duration::from_millis(50));
        let proxy = setup.start().await;
        let reply = proxy.get("/").await;
        assert_eq!((reply.status, reply.text()), (504, "upstream request timeout"));
        assert_eq!(proxy.counted(ClusterCounter::RqTimeout), 1);
        let head = seen.heads.borrow()[0].clone();
        assert!(head.contains("x-envoy-expected-rq-timeout-ms: 50"), "{head}");
        until("the upstream connection is closed", || {
            proxy.cluster.stats().connections_active() == 0
        })
        .await;
        release(&seen);
    });
}

#[test]
fn a_grpc_deadline_is_kept_up_to_its_bound() {
    run(async {
        let (app, seen) = held().await;
        let mut setup = Setup::to(&[app]);
        setup.forward().grpc_timeout_max = Some(Duration::ZERO);
        let proxy = setup.start().await;
        let mut client = proxy.client().await;
        client
            .send("POST / HTTP/1.1\r\nHost: a\r\nContent-Type: application/grpc\r\nGrpc-Timeout: 40m\r\nContent-Length: 0\r\n\r\n")
            .await;
        assert_eq!(client.reply(false).await.field("grpc-status"), Some("4"));
        release(&seen);
    });
}

#[test]
fn slow_heads_and_idle_streams_are_ended() {
    run(async {
        let (app, seen) = held().await;
        let mut setup = Setup::to(&[app]);
        setup.manager.request_headers_timeout = Some(Duration::from_millis(60));
        setup.manager.stream_idle_timeout = Some(Duration::from_millis(80));
        let proxy = setup.start().await;
        let mut slow = proxy.client().await;
        slow.send("GET / HTTP/1.1\r\nHo").await;
        assert_eq!(slow.reply(false).await.status, 408);
        let reply = proxy.get("/").await;
        assert_eq!((reply.status, reply.text()), (504, "stream timeout"));
        let mut stuck = proxy.client().await;
        stuck
            .send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhe")
            .await;
        assert_eq!(stuck.reply(false).await.status, 408);
        release(&seen);
    });
}

#[test]
fn idle_connections_end() {
    run(async {
        let (app, _) = answering(OK).await;
        let mut setup = Setup::to(&[app]);
        setup.manager.idle_timeout = Some(Duration::from_millis(50));
        setup.manager.max_requests_per_connection = Some(2);
        let proxy = setup.start().await;
        let mut client = proxy.client().await;
        client.get("/").await;
        assert_eq!(client.rest().await, b"");
        let mut client = proxy.client().await;
        assert_eq!(client.get("/").await.field("connection"), None);
        assert_eq!(client.get("/").await.field("connection"), Some("close"));
        assert_eq!(client.rest().await, b"");
        until("memory returns", || proxy.connections.get() == 0).await;
    });
}

#[test]
fn an_upstream_connection_serves_as_many_requests_as_the_cluster_says() {
    run(async {
        let (app, seen) = answering(OK).await;
        let mut setup = Setup::to(&[app]);
        setup.cluster.max_requests_per_connection = Some(2);
        let proxy = setup.start().await;
        let mut client = proxy.client().await;
        for _ in 0..4 {
            client.get("/").await;
        }
        assert_eq!(seen.connections.get(), 2);
        assert!(seen.heads.borrow()[1].contains("connection: close"));
    });
}

#[test]
fn five_hundred_concurrent_requests_are_all_served_through_ten_connections() {
    run(async {
        let (app, seen) = answering(OK).await;
        let mut setup = Setup::to(&[app]);
        setup.cluster.circuit_breakers.max_connections = 10;
        let proxy = Rc::new(setup.start().await);
        let mut tasks = Vec::new();
        for _ in 0..500 {
            let proxy = proxy.clone();
            tasks.push(spawn_local(async move { proxy.get("/").await.status }));
        }
        for task in tasks {
            assert_eq!(task.await.unwrap(), 200);
        }
        assert!(seen.peak.get() <= 11, "{} at once", seen.peak.get());
        assert!(seen.connections.get() <= 100, "{} made", seen.connections.get());
    });
}
