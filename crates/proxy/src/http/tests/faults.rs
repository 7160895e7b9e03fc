//! Faults on purpose and cross-origin rules: filters that routes configure.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use rajut_ir::{
    cors::Cors,
    fault::{Abort, AbortStatus, Delay, FaultInjection},
    filter::{CORS, FAULT, FilterOverride, HttpFilter},
    http::RouterFilter,
    matcher::{HeaderMatcher, StringMatcher, ValueCondition},
    route::RetryOn,
};
use rajut_types::Percent;
use tokio::time::Instant;

use super::{
    harness::{OK, Proxy, Setup, answering, retry_on, run, until},
    http2::{get as h2_get, h2_client},
};
use crate::stats::{ClusterCounter, OnRouteCounter as C, OnRouteStats};

const HOUR: Duration = Duration::from_hours(1);

fn delay(fixed: Duration) -> FaultInjection {
    FaultInjection {
        delay: Some(Delay {
            fixed,
            share: Percent::ALL,
        }),
        ..FaultInjection::default()
    }
}

fn abort(status: AbortStatus) -> FaultInjection {
    FaultInjection {
        abort: Some(Abort {
            status,
            share: Percent::ALL,
        }),
        ..FaultInjection::default()
    }
}

/// A chain as translation makes it, and a route with these faults.
fn faulty(addresses: &[std::net::SocketAddr], fault: FaultInjection) -> Setup {
    let mut setup = Setup::to(addresses);
    setup.manager.filters = vec![
        HttpFilter::fault(),
        HttpFilter::cors(),
        HttpFilter::router(RouterFilter::default()),
    ];
    setup.route.filters = vec![(FAULT.into(), FilterOverride::Fault(Arc::new(fault)))];
    setup
}

fn stats(proxy: &Proxy) -> Arc<OnRouteStats> {
    proxy.registry.on_routes(&"test".into()).get().clone()
}

fn active(proxy: &Proxy) -> u64 {
    stats(proxy)
        .active_faults
        .load(std::sync::atomic::Ordering::Relaxed)
}

#[test]
fn a_refused_request_reaches_nobody_and_is_tried_once() {
    run(async {
        let (app, seen) = answering(OK).await;
        let log = std::env::temp_dir().join(format!("rajut-fault-log-{}", std::process::id()));
        let mut setup = faulty(&[app], abort(AbortStatus::Http(503)));
        setup.log = Some(log.clone());
        setup.forward().retry = Some(retry_on(RetryOn::FIVE_XX, 3));
        let proxy = setup.start().await;
        let mut client = proxy.client().await;
        for path in ["/a", "/b"] {
            let reply = client.get(path).await;
            assert_eq!((reply.status, reply.text()), (503, "fault filter abort"));
        }
        drop(client);
        until("the records are closed", || active(&proxy) == 0).await;
        assert_eq!(seen.connections.get(), 0);
        assert_eq!(stats(&proxy).sum(C::AbortsInjected), 2);
        proxy.registry.writers().flush();
        let lines = std::fs::read_to_string(&log).unwrap();
        std::fs::remove_file(&log).unwrap();
        assert!(lines.starts_with("503 FI GET /a the-route app "), "{lines}");
    });
}

#[test]
fn a_grpc_caller_gets_the_grpc_status_and_others_a_200() {
    run(async {
        let (app, _) = answering(OK).await;
        let proxy = faulty(&[app], abort(AbortStatus::Grpc(8))).start().await;
        let mut client = proxy.client().await;
        client
            .send(
                "POST / HTTP/1.1\r\nHost: app\r\nContent-Type: application/grpc\r\nContent-Length: 0\r\n\r\n",
            )
            .await;
        let reply = client.reply(false).await;
        let said = (reply.field("grpc-status"), reply.field("grpc-message"));
        assert_eq!(
            (reply.status, said),
            (200, (Some("8"), Some("fault filter abort")))
        );
        let reply = client.get("/").await;
        assert_eq!((reply.status, reply.text()), (200, "fault filter abort"));
    });
}

#[test]
fn a_delayed_request_goes_on_with_its_body_and_its_whole_timeout() {
    run(async {
        let (app, seen) = answering(OK).await;
        let log = std::env::temp_dir().join(format!("rajut-delay-log-{}", std::process::id()));
        let mut setup = faulty(&[app], delay(Duration::from_millis(300)));
        setup.log = Some(log.clone());
        setup.forward().timeout = Some(Duration::from_millis(250));
        let proxy = setup.start().await;
        let mut client = proxy.client().await;
        let bodies = [String::new(), "short".to_owned(), "l".repeat(300_000)];
        for body in &bodies {
            let start = Instant::now();
            let reply = client.post("/", body).await;
            assert_eq!((reply.status, reply.text()), (200, "ok"));
            assert!(start.elapsed() >= Duration::from_millis(300));
        }
        assert!(
            seen.bodies
                .borrow()
                .iter()
                .eq(bodies.iter().map(String::as_bytes))
        );
        assert_eq!(stats(&proxy).sum(C::DelaysInjected), 3);
        drop(client);
        until("the records are closed", || active(&proxy) == 0).await;
        proxy.registry.writers().flush();
        let lines = std::fs::read_to_string(&log).unwrap();
        std::fs::remove_file(&log).unwrap();
        assert!(lines.starts_with("200 DI POST / "), "{lines}");
    });
}

#[test]
fn a_delay_is_followed_by_the_refusal() {
    run(async {
        let (app, seen) = answering(OK).await;
        let both = FaultInjection {
            delay: delay(Duration::from_millis(50)).delay,
            ..abort(AbortStatus::Http(418))
        };
        let proxy = faulty(&[app], both).start().await;
        let start = Instant::now();
        let reply = proxy.client().await.post("/", "body").await;
        assert_eq!(reply.status, 418);
        assert!(start.elapsed() >= Duration::from_millis(50));
        assert_eq!(seen.connections.get(), 0);
        let stats = stats(&proxy);
        assert_eq!(
            (stats.sum(C::DelaysInjected), stats.sum(C::AbortsInjected)),
            (1, 1)
        );
    });
}

#[test]
fn a_client_that_goes_away_ends_the_wait() {
    run(async {
        let (app, seen) = answering(OK).await;
        let proxy = faulty(&[app], delay(HOUR)).start().await;
        // After a whole request the end of what it sends is not yet the client's end: see `deadline.rs`.
        let mut client = proxy.client().await;
        client
            .send("POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 10\r\n\r\nhalf")
            .await;
        until("it waits", || active(&proxy) == 1).await;
        drop(client);
        until("the wait has ended", || active(&proxy) == 0).await;
        let mut client = h2_client(&proxy).await;
        let (response, mut send) = client.send_request(h2_get("/"), false).unwrap();
        send.send_data(Bytes::new(), true).unwrap();
        until("the stream waits", || active(&proxy) == 1).await;
        send.send_reset(h2::Reason::CANCEL);
        drop(response);
        until("the stream's wait has ended", || active(&proxy) == 0).await;
        assert_eq!(seen.connections.get(), 0);
    });
}

#[test]
fn who_waits_holds_no_place_and_who_does_not_match_is_not_held_up() {
    run(async {
        let (app, _) = answering(OK).await;
        let slow = FaultInjection {
            headers: vec![HeaderMatcher {
                name: "x-slow".into(),
                condition: ValueCondition::Present(true),
                invert: false,
                missing_is_empty: false,
            }],
            upstream_cluster: "app".into(),
            downstream_nodes: vec!["here".into()],
            ..delay(HOUR)
        };
        let mut setup = faulty(&[app], slow);
        setup.cluster.circuit_breakers.max_requests = 1;
        let proxy = setup.start().await;
        let mut waiting = proxy.client().await;
        waiting
            .send("GET / HTTP/1.1\r\nHost: app\r\nX-Slow: 1\r\nX-Envoy-Downstream-Service-Node: here\r\n\r\n")
            .await;
        until("it waits", || active(&proxy) == 1).await;
        assert_eq!(proxy.get("/").await.status, 200);
        let mut elsewhere = proxy.client().await;
        elsewhere
            .send(
                "GET / HTTP/1.1\r\nHost: app\r\nX-Slow: 1\r\nX-Envoy-Downstream-Service-Node: there\r\n\r\n",
            )
            .await;
        assert_eq!(elsewhere.reply(false).await.status, 200);
        assert_eq!(stats(&proxy).sum(C::DelaysInjected), 1);
        assert_eq!(proxy.counted(ClusterCounter::RqTotal), 2);
    });
}

#[test]
fn over_the_bound_no_further_request_has_a_fault() {
    run(async {
        let (app, _) = answering(OK).await;
        let one = FaultInjection {
            max_active: Some(1),
            ..delay(HOUR)
        };
        let proxy = faulty(&[app], one).start().await;
        let mut waiting = proxy.client().await;
        waiting.send("GET / HTTP/1.1\r\nHost: app\r\n\r\n").await;
        until("it waits", || active(&proxy) == 1).await;
        assert_eq!(proxy.get("/").await.status, 200);
        assert_eq!(stats(&proxy).sum(C::FaultsOverflow), 1);
    });
}

#[test]
fn a_drain_waits_for_who_waits_and_the_streams_deadline_does_not() {
    run(async {
        let (app, _) = answering(OK).await;
        let mut setup = faulty(&[app], delay(Duration::from_millis(200)));
        setup.manager.idle_timeout = None;
        let proxy = setup.start().await;
        let mut client = proxy.client().await;
        client.send("GET / HTTP/1.1\r\nHost: app\r\n\r\n").await;
        until("it waits", || active(&proxy) == 1).await;
        proxy.drain.send_replace(true);
        assert_eq!(client.reply(false).await.status, 200);
        until("the connection has ended", || proxy.connections.get() == 0).await;
    });
    run(async {
        let (app, _) = answering(OK).await;
        let mut setup = faulty(&[app], delay(HOUR));
        setup.forward().max_stream_duration = Some(Duration::from_millis(50));
        let proxy = setup.start().await;
        assert_eq!(proxy.get("/").await.status, 504);
        assert_eq!(proxy.client().await.post("/", "body").await.status, 504);
    });
}

#[test]
fn faults_over_http2_and_of_the_listener_itself() {
    run(async {
        let (app, _) = answering(OK).await;
        let mut setup = faulty(&[app], FaultInjection::default());
        setup.route.filters.clear();
        let own = abort(AbortStatus::Http(418));
        setup.manager.filters[0].kind = rajut_ir::filter::HttpFilterKind::Fault(Arc::new(own));
        let proxy = setup.start().await;
        let mut client = h2_client(&proxy).await;
        let (response, _) = client.send_request(h2_get("/"), true).unwrap();
        assert_eq!(response.await.unwrap().status().as_u16(), 418);
    });
}

fn cors() -> Cors {
    Cors {
        allow_origins: vec![StringMatcher::exact("https://a.example")],
        allow_methods: "GET,PUT".into(),
        expose_headers: "x-one".into(),
        allow_credentials: Some(true),
        allow_private_network: Some(true),
        forward_not_matching: Some(false),
        ..Cors::default()
    }
}

fn shared(addresses: &[std::net::SocketAddr], cors: Cors) -> Setup {
    let mut setup = faulty(addresses, FaultInjection::default());
    setup.route.filters = vec![(CORS.into(), FilterOverride::Cors(Arc::new(cors)))];
    setup
}

fn asked(method: &str, origin: &str, more: &str) -> String {
    format!("{method} / HTTP/1.1\r\nHost: app\r\nOrigin: {origin}\r\n{more}Content-Length: 0\r\n\r\n")
}

#[test]
fn preflights_are_answered_here() {
    run(async {
        let (app, seen) = answering(OK).await;
        let mut setup = shared(&[app], cors());
        // A less specific place fills in what the route does not say.
        setup.virtual_host = Box::new(|host| {
            let less = Cors {
                max_age: "60".into(),
                allow_methods: "DELETE".into(),
                ..Cors::default()
            };
            host.filters = vec![(CORS.into(), FilterOverride::Cors(Arc::new(less)))];
        });
        let proxy = setup.start().await;
        let mut client = proxy.client().await;
        let more = "Access-Control-Request-Method: PUT\r\nAccess-Control-Request-Private-Network: true\r\n";
        client.send(asked("OPTIONS", "https://a.example", more)).await;
        let reply = client.reply(false).await;
        let field = |name: &str| reply.field(&format!("access-control-{name}"));
        assert_eq!((reply.status, reply.text()), (200, ""));
        assert_eq!(field("allow-origin"), Some("https://a.example"));
        assert_eq!(field("allow-methods"), Some("GET,PUT"));
        assert_eq!(field("allow-credentials"), Some("true"));
        assert_eq!(field("allow-private-network"), Some("true"));
        assert_eq!(field("expose-headers"), Some("x-one"));
        assert_eq!(field("max-age"), Some("60"));
        assert_eq!(field("allow-headers"), None);
        client.send(asked("OPTIONS", "https://b.example", more)).await;
        let reply = client.reply(false).await;
        assert_eq!(
            (reply.status, reply.field("access-control-allow-origin")),
            (200, None)
        );
        assert_eq!(seen.connections.get(), 0);
        let stats = stats(&proxy);
        assert_eq!((stats.sum(C::OriginValid), stats.sum(C::OriginInvalid)), (1, 1));
    });
}

#[test]
fn answers_are_marked_for_allowed_origins_only_and_also_where_the_upstream_is_away() {
    run(async {
        let (app, _) =
            answering("HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: own\r\nContent-Length: 2\r\n\r\nok")
                .await;
        let proxy = shared(&[app], cors()).start().await;
        let mut client = proxy.client().await;
        for (origin, marked) in [
            ("https://a.example", "https://a.example"),
            ("https://b.example", "own"),
            ("", "own"),
        ] {
            client.send(asked("GET", origin, "")).await;
            let reply = client.reply(false).await;
            assert_eq!(
                reply.field("access-control-allow-origin"),
                Some(marked),
                "{origin}"
            );
            assert_eq!(reply.text(), "ok");
        }
        let proxy = shared(&[super::harness::nobody().await], cors()).start().await;
        let mut client = proxy.client().await;
        client.send(asked("GET", "https://a.example", "")).await;
        let reply = client.reply(false).await;
        assert_eq!(reply.status, 503);
        assert_eq!(
            reply.field("access-control-allow-origin"),
            Some("https://a.example")
        );
    });
}

#[test]
fn rules_that_are_switched_off_only_count() {
    run(async {
        let (app, _) = answering(OK).await;
        let shadow = Cors {
            enabled: Percent::NONE,
            shadow: Percent::ALL,
            ..cors()
        };
        let proxy = shared(&[app], shadow).start().await;
        let mut client = proxy.client().await;
        client
            .send(asked(
                "OPTIONS",
                "https://a.example",
                "Access-Control-Request-Method: PUT\r\n",
            ))
            .await;
        let reply = client.reply(false).await;
        assert_eq!(
            (reply.text(), reply.field("access-control-allow-origin")),
            ("ok", None)
        );
        assert_eq!(stats(&proxy).sum(C::OriginValid), 1);
    });
}
