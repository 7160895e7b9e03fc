//! Retries, stale connections, ejection.

use std::{cell::Cell, rc::Rc, time::Duration};

use rajut_ir::{cluster::OutlierDetection, route::RetryOn};
use rajut_types::Percent;

use super::harness::{OK, Setup, answering, nobody, request, retry_on, run, server, until};
use crate::{cluster::outlier::now_ms, stats::ClusterCounter};

#[test]
fn a_connect_failure_is_tried_on_another_host_also_for_a_post() {
    run(async {
        let (app, seen) = answering(OK).await;
        let mut setup = Setup::to(&[nobody().await, app]);
        setup.forward().retry = Some(retry_on(RetryOn::CONNECT_FAILURE, 2));
        let proxy = setup.start().await;
        for _ in 0..4 {
            let reply = proxy.client().await.post("/", "once").await;
            assert_eq!(reply.status, 200);
        }
        assert_eq!(seen.bodies.borrow().len(), 4);
        assert!(proxy.counted(ClusterCounter::RqRetry) >= 2);
        assert_eq!(
            proxy.counted(ClusterCounter::RqRetry),
            proxy.counted(ClusterCounter::RqRetrySuccess)
        );
    });
}

#[test]
fn a_post_that_was_read_is_never_sent_twice_and_a_get_is() {
    run(async {
        let (app, seen) = server(|mut client, seen| async move {
            request(&mut client, &seen).await;
            rajut_platform::socket::set_reset_on_close(&client.0).unwrap();
        })
        .await;
        let mut setup = Setup::to(&[app]);
        setup.forward().retry = Some(retry_on(RetryOn(u32::MAX), 2));
        let proxy = setup.start().await;
        let reply = proxy.client().await.post("/", "once").await;
        assert_eq!(reply.status, 503);
        assert_eq!(seen.heads.borrow().len(), 1);
        let reply = proxy.get("/").await;
        assert_eq!(reply.status, 503);
        assert!(
            reply.text().contains("retried and the latest reset reason"),
            "{}",
            reply.text()
        );
        assert_eq!(seen.heads.borrow().len(), 1 + 3);
        assert_eq!(proxy.counted(ClusterCounter::RqRetryLimit), 1);
    });
}

#[test]
fn a_post_read_on_a_kept_connection_and_reset_is_not_sent_twice() {
    run(async {
        let (app, seen) = server(|mut client, seen| async move {
            request(&mut client, &seen).await;
            client.send(OK).await;
            request(&mut client, &seen).await;
            rajut_platform::socket::set_reset_on_close(&client.0).unwrap();
        })
        .await;
        let mut setup = Setup::to(&[app]);
        setup.forward().retry = Some(retry_on(RetryOn(u32::MAX), 2));
        let proxy = setup.start().await;
        let mut client = proxy.client().await;
        assert_eq!(client.post("/", "one").await.status, 200);
        assert_eq!(client.post("/", "two").await.status, 503);
        assert_eq!(seen.heads.borrow().len(), 2);
    });
}

#[test]
fn a_get_outlives_a_server_that_is_ending_and_a_post_that_was_read_is_told() {
    for (method, status, delivered) in [("GET", 200, 4), ("POST", 503, 2)] {
        run(async move {
            let accepted = Rc::new(Cell::new(0));
            let (app, seen) = server(move |mut client, seen| {
                accepted.set(accepted.get() + 1);
                let number = accepted.get();
                async move {
                    request(&mut client, &seen).await;
                    if number == 2 {
                        // As from the queue of a listener that closes.
                        rajut_platform::socket::set_reset_on_close(&client.0).unwrap();
                        return;
                    }
                    client.send(OK).await;
                    request(&mut client, &seen).await;
                }
            })
            .await;
            let proxy = Setup::to(&[app]).start().await;
            let mut client = proxy.client().await;
            assert_eq!(client.post("/", "one").await.status, 200);
            let text = format!("{method} / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n");
            client.send(&text).await;
            assert_eq!(client.reply(false).await.status, status);
            assert_eq!(seen.heads.borrow().len(), delivered, "{method}");
        });
    }
}

#[test]
fn answers_that_the_policy_names_are_retried_with_the_body() {
    run(async {
        let count = Rc::new(Cell::new(0));
        let (app, seen) = server(move |mut client, seen| {
            let count = count.clone();
            async move {
                while request(&mut client, &seen).await.is_some() {
                    count.set(count.get() + 1);
                    client
                        .send(if count.get() < 3 {
                            "HTTP/1.1 503 Unavailable\r\nContent-Length: 4\r\n\r\nbusy"
                        } else {
                            OK
                        })
                        .await;
                }
            }
        })
        .await;
        let mut setup = Setup::to(&[app]);
        setup.forward().retry = Some(retry_on(RetryOn::FIVE_XX, 2));
        setup.virtual_host = Box::new(|host| host.include_request_attempt_count = true);
        let log = std::env::temp_dir().join(format!("rajut-http-log-again-{}", std::process::id()));
        setup.log = Some(log.clone());
        let proxy = setup.start().await;
        assert_eq!(proxy.client().await.post("/", "again").await.status, 200);
        let line = || std::fs::read_to_string(&log).unwrap_or_default();
        until("the line is written", || {
            proxy.registry.writers().flush();
            line().ends_with('\n')
        })
        .await;
        assert!(
            line().contains(" app 5 2 "),
            "five bytes were received, however often sent on: {}",
            line()
        );
        let _ = std::fs::remove_file(&log);
        assert_eq!(*seen.bodies.borrow(), vec![b"again".to_vec(); 3]);
        assert!(seen.heads.borrow()[2].contains("x-envoy-attempt-count: 3"));
        assert_eq!(seen.connections.get(), 1, "answered connections are kept");
    });
}

#[test]
fn a_try_that_takes_too_long_is_given_up_for_another() {
    run(async {
        let first = Rc::new(Cell::new(true));
        let (app, _) = server(move |mut client, seen| {
            let first = first.clone();
            async move {
                request(&mut client, &seen).await;
                if first.replace(false) {
                    while client.more().await {}
                }
                client.send(OK).await;
            }
        })
        .await;
        let mut setup = Setup::to(&[app]);
        let mut policy = retry_on(RetryOn::FIVE_XX, 1);
        policy.per_try_timeout = Some(Duration::from_millis(50));
        setup.forward().retry = Some(policy);
        let proxy = setup.start().await;
        assert_eq!(proxy.get("/").await.status, 200);
        assert_eq!(proxy.counted(ClusterCounter::RqPerTryTimeout), 1);
    });
}

#[test]
fn retries_stop_at_the_breaker() {
    run(async {
        let (app, seen) = answering("HTTP/1.1 503 Unavailable\r\nContent-Length: 0\r\n\r\n").await;
        let mut setup = Setup::to(&[app]);
        setup.forward().retry = Some(retry_on(RetryOn::FIVE_XX, 5));
        setup.cluster.circuit_breakers.max_retries = 0;
        let proxy = setup.start().await;
        assert_eq!(proxy.get("/").await.status, 503);
        assert_eq!(seen.heads.borrow().len(), 1);
        assert_eq!(proxy.counted(ClusterCounter::RqRetryOverflow), 1);
    });
}

#[test]
fn a_server_that_closes_idle_connections_fails_nothing() {
    run(async {
        // It closes right after each answer, without saying so.
        let (app, seen) = server(|mut client, seen| async move {
            request(&mut client, &seen).await;
            client.send(OK).await;
        })
        .await;
        let proxy = Setup::to(&[app]).start().await;
        let mut client = proxy.client().await;
        for round in 0..200 {
            let reply = if round % 2 == 0 {
                client.post("/", "x").await
            } else {
                client.get("/").await
            };
            assert_eq!(reply.status, 200, "round {round}: {}", reply.text());
        }
        assert_eq!(seen.heads.borrow().len(), 200, "nothing is sent twice");
    });
}

#[test]
fn a_connection_is_retired_before_the_server_said_it_would_close_it() {
    run(async {
        let (app, seen) = answering(
            "HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nKeep-Alive: timeout=1\r\nContent-Length: 2\r\n\r\nok",
        )
        .await;
        let proxy = Setup::to(&[app]).start().await;
        let mut client = proxy.client().await;
        client.get("/").await;
        client.get("/").await;
        assert_eq!(seen.connections.get(), 1);
        tokio::time::sleep(Duration::from_millis(600)).await;
        assert_eq!(client.get("/").await.field("keep-alive"), None);
        assert_eq!(seen.connections.get(), 2);
    });
}

fn detection() -> OutlierDetection {
    OutlierDetection {
        consecutive_5xx: None,
        consecutive_gateway_failure: Some(5),
        consecutive_local_origin_failure: None,
        split_external_local_origin_errors: false,
        interval: Duration::from_millis(10),
        base_ejection_time: Duration::from_millis(100),
        max_ejection_time: Duration::from_secs(1),
        max_ejection_percent: Percent::new(50.0).unwrap(),
        error_statuses: Vec::new(),
    }
}

#[test]
fn a_host_is_ejected_after_five_gateway_errors_and_returns() {
    run(async {
        let (bad, bad_seen) = answering("HTTP/1.1 503 Unavailable\r\nContent-Length: 0\r\n\r\n").await;
        let (good, _) = answering(OK).await;
        let mut setup = Setup::to(&[bad, good]);
        setup.cluster.outlier_detection = Some(detection());
        let proxy = setup.start().await;
        let mut client = proxy.client().await;
        for _ in 0..30 {
            client.get("/").await;
        }
        assert_eq!(bad_seen.heads.borrow().len(), 5);
        assert_eq!(proxy.cluster.ejected(), 1);
        let mut text = String::new();
        proxy.cluster.status_text(&mut text);
        assert!(
            text.contains(&format!("app::{bad}::health_flags::/failed_outlier_check")),
            "{text}"
        );
        until("it returns", || {
            proxy.cluster.sweep(now_ms());
            proxy.cluster.ejected() == 0
        })
        .await;
        for _ in 0..4 {
            client.get("/").await;
        }
        assert!(bad_seen.heads.borrow().len() > 5);
    });
}

#[test]
fn plain_500s_do_not_eject_where_only_gateway_errors_count() {
    run(async {
        let (bad, _) = answering("HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n").await;
        let (good, _) = answering(OK).await;
        let mut setup = Setup::to(&[bad, good]);
        setup.cluster.outlier_detection = Some(detection());
        let proxy = setup.start().await;
        let mut client = proxy.client().await;
        for _ in 0..30 {
            client.get("/").await;
        }
        assert_eq!(proxy.cluster.ejected(), 0);
    });
}

#[test]
fn the_statuses_that_are_named_eject_and_no_others() {
    for (status, ejected) in [("429 Slow", 1), ("503 Unavailable", 0)] {
        run(async move {
            let text = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
            let (bad, _) = answering(text.leak()).await;
            let (good, _) = answering(OK).await;
            let mut setup = Setup::to(&[bad, good]);
            setup.cluster.outlier_detection = Some(OutlierDetection {
                consecutive_5xx: Some(5),
                error_statuses: vec![401, 429],
                base_ejection_time: Duration::from_secs(10),
                ..detection()
            });
            let proxy = setup.start().await;
            let mut client = proxy.client().await;
            for _ in 0..30 {
                client.get("/").await;
            }
            assert_eq!(proxy.cluster.ejected(), ejected, "{status}");
        });
    }
}

#[test]
fn never_more_hosts_are_out_than_the_cap_allows() {
    run(async {
        let hosts = [nobody().await, nobody().await, nobody().await];
        let mut setup = Setup::to(&hosts);
        setup.cluster.outlier_detection = Some(detection());
        let proxy = setup.start().await;
        for _ in 0..40 {
            assert_eq!(proxy.get("/").await.status, 503);
        }
        // Half of three is one.
        assert_eq!(proxy.cluster.ejected(), 1);
    });
}
