//! HTTP/1.1 on both sides.

use rajut_ir::{
    matcher::Regex,
    route::{AppendAction, DirectResponse, HeaderValue, HostRewrite, PathRewrite, Redirect, RouteActionKind},
};

use super::harness::{OK, Setup, answering, nobody, request, run, server, until};
use crate::stats::ClusterCounter;

#[test]
fn a_request_is_forwarded_and_connections_are_kept_on_both_sides() {
    run(async {
        let (app, seen) = answering(
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-App: Yes\r\nConnection: keep-alive\r\n\r\nok",
        )
        .await;
        let proxy = Setup::to(&[app]).start().await;
        let mut client = proxy.client().await;
        for _ in 0..5 {
            client.send("GET /a?b=1 HTTP/1.1\r\nHost: App\r\nX-Thing: 1\r\nConnection: keep-alive, x-hop\r\nX-Hop: 1\r\n\r\n").await;
            let reply = client.reply(false).await;
            assert_eq!((reply.status, reply.text()), (200, "ok"));
            assert_eq!(reply.field("server"), Some("rajut"));
            assert_eq!(reply.field("x-app"), Some("Yes"));
            assert!(reply.field("date").is_some() && reply.field("x-envoy-upstream-service-time").is_some());
        }
        assert_eq!((seen.connections.get(), seen.heads.borrow().len()), (1, 5));
        let head = seen.heads.borrow()[0].clone();
        assert!(head.starts_with("GET /a?b=1 HTTP/1.1\r\n"), "{head}");
        assert!(
            head.contains("X-Thing: 1\r\n") && head.contains("x-forwarded-proto: http\r\n"),
            "{head}"
        );
        assert!(
            head.contains("x-request-id: ") && !head.contains("X-Hop"),
            "{head}"
        );
        assert_eq!(proxy.counted(ClusterCounter::RqTotal), 5);
        assert_eq!(proxy.counted(ClusterCounter::Rq2xx), 5);
        until("requests are over", || {
            proxy.cluster.stats().requests_active() == 0
        })
        .await;
        assert_eq!(proxy.cluster.hosts()[0].counts().rq_success, 5);
    });
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    run(async {
        let (app, seen) = server(|mut client, seen| async move {
            while let Some(head) = request(&mut client, &seen).await {
                let path = head.split(' ').nth(1).unwrap().to_owned();
                client
                    .send(format!(
                        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{path}",
                        path.len()
                    ))
                    .await;
            }
        })
        .await;
        let proxy = Setup::to(&[app]).start().await;
        let mut client = proxy.client().await;
        client
            .send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n")
            .await;
        assert_eq!(client.reply(false).await.text(), "/1");
        assert_eq!(client.reply(false).await.text(), "/2");
        assert_eq!(seen.heads.borrow().len(), 2);
    });
}

#[test]
fn malformed_requests_are_refused_and_the_connection_closed_while_others_go_on() {
    run(async {
        let (app, seen) = answering(OK).await;
        let proxy = Setup::to(&[app]).start().await;
        let long = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(70_000));
        for (bytes, status) in [
            (
                "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
                "400",
            ),
            (
                "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
                "400",
            ),
            ("GET / HTTP/1.1\nHost: a\n\n", "400"),
            ("GET / HTTP/1.1\r\n\r\n", "400"),
            (
                "GET / HTTP/1.1\r\nHost: a\r\nConnection: authorization\r\nAuthorization: x\r\n\r\n",
                "400",
            ),
            (long.as_str(), "431"),
        ] {
            let mut client = proxy.client().await;
            client.send(bytes).await;
            let answer = String::from_utf8(client.rest().await).unwrap();
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status} ")),
                "{bytes:.60}: {answer}"
            );
            assert!(answer.contains("connection: close"), "{answer}");
        }
        assert_eq!(seen.heads.borrow().len(), 0);
        assert_eq!(proxy.get("/").await.status, 200);
    });
}

#[test]
fn failures_have_envoys_statuses_and_bodies() {
    run(async {
        let refused = Setup::to(&[nobody().await]).start().await;
        let reply = refused.get("/").await;
        assert_eq!(reply.status, 503);
        assert!(
            reply.text().starts_with("upstream connect error or disconnect/reset before headers. reset reason: \
                remote connection failure, transport failure reason: delayed connect error: Connection refused"),
            "{}",
            reply.text()
        );
        let empty = Setup::to(&[]).start().await;
        assert_eq!(empty.get("/").await.text(), "no healthy upstream");
        let mut missing = Setup::to(&[]);
        *missing.forward() = super::harness::forward_to("other");
        assert_eq!(missing.start().await.get("/").await.status, 503);
        let mut hostless = Setup::to(&[]);
        hostless.virtual_host = Box::new(|host| host.domains = vec!["elsewhere".into()]);
        assert_eq!(hostless.start().await.get("/").await.status, 404);
    });
}

#[test]
fn grpc_clients_get_a_grpc_status() {
    run(async {
        let proxy = Setup::to(&[]).start().await;
        let mut client = proxy.client().await;
        client.send("POST /s/m HTTP/1.1\r\nHost: a\r\nContent-Type: application/grpc\r\nContent-Length: 0\r\n\r\n").await;
        let reply = client.reply(false).await;
        assert_eq!((reply.status, reply.field("grpc-status")), (200, Some("14")));
        assert_eq!(reply.field("grpc-message"), Some("no healthy upstream"));
    });
}

#[test]
fn heads_are_changed_as_the_route_says() {
    run(async {
        let (app, seen) = answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Secret: 1\r\n\r\nok").await;
        let mut setup = Setup::to(&[app]);
        let value = |name: &str, value: &str, append| HeaderValue {
            name: name.into(),
            value: value.into(),
            append,
        };
        setup.route.headers.request_set = vec![
            value("x-protocol", "%PROTOCOL%/%REQ(X-ONE)%", AppendAction::Overwrite),
            value("x-one", "2", AppendAction::Append),
        ];
        setup.route.headers.request_remove = vec!["x-two".into()];
        setup.route.headers.response_set =
            vec![value("x-code", "%RESPONSE_CODE%", AppendAction::AddIfAbsent)];
        setup.route.headers.response_remove = vec!["x-secret".into()];
        setup.forward().path_rewrite = Some(PathRewrite::Regex {
            pattern: Regex::new("/v([0-9]+)").unwrap(),
            substitution: "/version/\\1".into(),
        });
        setup.forward().host_rewrite = Some(HostRewrite::Literal("other.example".into()));
        setup.forward().append_x_forwarded_host = true;
        setup.virtual_host = Box::new(|host| host.include_request_attempt_count = true);
        let proxy = setup.start().await;
        let mut client = proxy.client().await;
        client
            .send("GET /v2/x?y HTTP/1.1\r\nHost: app\r\nX-One: 1\r\nX-Two: 1\r\nX-Envoy-Original-Host: forged\r\n\r\n")
            .await;
        let reply = client.reply(false).await;
        assert_eq!(reply.field("x-secret"), None);
        assert_eq!(reply.field("x-code"), Some("200"), "{}", reply.head);
        let head = seen.heads.borrow()[0].clone();
        for line in [
            "GET /version/2/x?y HTTP/1.1",
            "Host: other.example",
            "x-forwarded-host: app",
            "x-protocol: HTTP/1.1/1",
            "X-One: 1",
            "x-one: 2",
            "x-envoy-original-path: /v2/x?y",
            "x-envoy-original-host: app",
            "x-envoy-attempt-count: 1",
        ] {
            assert!(head.lines().any(|it| it == line), "{line} in {head}");
        }
        assert!(!head.contains("X-Two") && !head.contains("forged"));
    });
}

#[test]
fn answers_of_our_own_carry_the_changes_of_route_virtual_host_and_table() {
    run(async {
        let value = |name: &str| HeaderValue {
            name: name.into(),
            value: "%RESPONSE_CODE%".into(),
            append: AppendAction::Overwrite,
        };
        let mut refused = Setup::to(&[nobody().await]);
        let mut direct = Setup::to(&[]);
        direct.route.action = RouteActionKind::DirectResponse(DirectResponse {
            status: 418,
            body: bytes::Bytes::from_static(b"tea"),
        });
        for (setup, status) in [(&mut refused, "503"), (&mut direct, "418")] {
            setup.route.headers.response_set = vec![value("x-of-route")];
            setup.table.response_set = vec![value("x-of-table")];
            setup.virtual_host = Box::new(move |host| {
                host.headers.response_set = vec![value("x-of-host")];
                host.headers.response_remove = vec!["content-type".into()];
            });
            let setup = std::mem::replace(setup, Setup::to(&[]));
            let reply = setup.start().await.get("/").await;
            for name in ["x-of-route", "x-of-host", "x-of-table"] {
                assert_eq!(reply.field(name), Some(status), "{name} in {}", reply.head);
            }
            assert_eq!(reply.field("content-type"), None);
        }
        // No route, no changes but none.
        let mut nowhere = Setup::to(&[]);
        nowhere.table.response_set = vec![value("x-of-table")];
        nowhere.virtual_host = Box::new(|host| host.domains = vec!["elsewhere".into()]);
        let reply = nowhere.start().await.get("/").await;
        assert_eq!((reply.status, reply.field("x-of-table")), (404, None));
    });
}

#[test]
fn what_is_no_path_is_not_found_and_the_connection_goes_on() {
    run(async {
        let (app, seen) = answering(OK).await;
        let proxy = Setup::to(&[app]).start().await;
        let mut client = proxy.client().await;
        client.send("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(client.reply(false).await.status, 404);
        assert_eq!(client.get("/").await.status, 200);
        assert_eq!(seen.heads.borrow().len(), 1);
    });
}

#[test]
fn only_fields_of_the_client_count_for_the_limit() {
    run(async {
        let (app, seen) = answering(OK).await;
        let mut setup = Setup::to(&[app]);
        setup.manager.max_request_headers_count = 10;
        let proxy = setup.start().await;
        for (count, status) in [(9, 200), (10, 431)] {
            // `host` is one of them.
            let fields = "x-more: 1\r\n".repeat(count);
            let mut client = proxy.client().await;
            client
                .send(format!("GET / HTTP/1.1\r\nhost: a\r\n{fields}\r\n"))
                .await;
            assert_eq!(client.reply(false).await.status, status, "{count}");
        }
        assert_eq!(seen.heads.borrow().len(), 1);
    });
}

#[test]
fn a_redirection_keeps_a_port_that_was_not_its_schemes_own() {
    run(async {
        let redirect = |scheme: Option<&str>, port| {
            RouteActionKind::Redirect(Box::new(Redirect {
                scheme: scheme.map(Into::into),
                host: None,
                port,
                path: None,
                status: 301,
                strip_query: false,
            }))
        };
        for (scheme, port, host, location) in [
            (Some("https"), None, "app:8080", "https://app:8080/"),
            (Some("https"), None, "app:80", "https://app/"),
            (Some("https"), None, "app", "https://app/"),
            (Some("https"), Some(8443), "app:8080", "https://app:8443/"),
            (Some("https"), Some(443), "app:8080", "https://app/"),
            (None, None, "app:8080", "http://app:8080/"),
            (None, Some(81), "app:8080", "http://app:81/"),
        ] {
            let mut setup = Setup::to(&[]);
            setup.route.action = redirect(scheme, port);
            let proxy = setup.start().await;
            let mut client = proxy.client().await;
            client
                .send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"))
                .await;
            let reply = client.reply(false).await;
            assert_eq!(
                reply.field("location"),
                Some(location),
                "{scheme:?} {port:?} {host}"
            );
        }
    });
}

#[test]
fn redirections_and_direct_responses_are_given_here() {
    run(async {
        let mut setup = Setup::to(&[]);
        setup.route.action = RouteActionKind::Redirect(Box::new(Redirect {
            scheme: Some("https".into()),
            host: None,
            port: None,
            path: Some(rajut_ir::route::RedirectPath::Prefix("/new/".into())),
            status: 308,
            strip_query: false,
        }));
        let reply = setup.start().await.get("/old?x=1").await;
        assert_eq!(
            (reply.status, reply.field("location")),
            (308, Some("https://app/new/old?x=1"))
        );
        let mut setup = Setup::to(&[]);
        setup.route.action = RouteActionKind::DirectResponse(DirectResponse {
            status: 502,
            body: bytes::Bytes::new(),
        });
        assert_eq!(setup.start().await.get("/").await.status, 502);
    });
}

#[test]
fn the_access_log_has_one_line_a_request_also_for_failures() {
    run(async {
        let (app, _) = answering(OK).await;
        let path = std::env::temp_dir().join(format!("rajut-http-log-{}", std::process::id()));
        let mut setup = Setup::to(&[app]);
        setup.log = Some(path.clone());
        let proxy = setup.start().await;
        let mut client = proxy.client().await;
        client.post("/a", "hello").await;
        client.send("nonsense\r\n\r\n").await;
        client.rest().await;
        proxy.registry.writers().flush();
        let lines = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(
            lines,
            "200 - POST /a the-route app 5 2 HTTP/1.1 1\n400 DPE GET - - - 0 0 HTTP/1.1 0\n"
        );
    });
}

#[test]
fn a_filtered_access_log_has_what_its_condition_holds_for() {
    run(async {
        let (app, _) = answering(OK).await;
        let path = std::env::temp_dir().join(format!("rajut-http-filter-{}", std::process::id()));
        let mut setup = Setup::to(&[app]);
        setup.log = Some(path.clone());
        setup.log_filter = Some(
            "response.code == 400 && response.flags != 0 || request.path.startsWith('/kept') \
             && request.method == 'GET' && !connection.mtls && xds.cluster_name == 'app' \
             && request.headers['host'] == 'app' && request.duration < duration('1m')"
                .into(),
        );
        let proxy = setup.start().await;
        let mut client = proxy.client().await;
        client.get("/kept").await;
        client.get("/left").await;
        client.send("nonsense\r\n\r\n").await;
        client.rest().await;
        proxy.registry.writers().flush();
        let lines = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let codes: Vec<&str> = lines.lines().filter_map(|line| line.get(..3)).collect();
        assert_eq!(codes, ["200", "400"], "{lines}");
    });
}

#[test]
fn an_idle_connection_closes_when_the_proxy_drains_and_a_busy_one_finishes() {
    run(async {
        let (app, _) = server(|mut client, seen| async move {
            request(&mut client, &seen).await;
            until("the proxy drains", || seen.bodies.borrow().len() == 9).await;
            client.send(OK).await;
        })
        .await;
        let (quick, _) = answering(OK).await;
        let proxy = Setup::to(&[quick]).start().await;
        let mut idle = proxy.client().await;
        idle.get("/").await;
        proxy.drain.send_replace(true);
        assert_eq!(idle.rest().await, b"");
        let busy = Setup::to(&[app]).start().await;
        let mut client = busy.client().await;
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        until("the request is there", || {
            busy.counted(ClusterCounter::RqTotal) == 1
        })
        .await;
        busy.drain.send_replace(true);
        drop(client);
        until("the request is cancelled", || {
            busy.cluster.stats().requests_active() == 0 || busy.connections.get() > 0
        })
        .await;
    });
}
