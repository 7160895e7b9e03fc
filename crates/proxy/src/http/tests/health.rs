//! Active health checks, with clusters of scripted servers.

use std::{cell::Cell, net::SocketAddr, rc::Rc, time::Duration};

use rajut_ir::cluster::{HealthCheck, HealthQuestion};
use tokio::task::spawn_local;

use super::harness::*;
use crate::{cluster::health::check_forever, stats::ClusterCounter};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const BUSY: &str = "HTTP/1.1 503 Unavailable\r\nContent-Length: 4\r\n\r\nbusy";

fn checked(addresses: &[SocketAddr], question: HealthQuestion) -> Setup {
    let mut setup = Setup::to(addresses);
    setup.cluster.health_check = Some(HealthCheck {
        timeout: Duration::from_millis(150),
        interval: Duration::from_millis(100),
        interval_jitter: Duration::ZERO,
        unhealthy_threshold: 2,
        healthy_threshold: 2,
        question,
    });
    setup
}

fn http() -> HealthQuestion {
    HealthQuestion::Http {
        host: "app.example".into(),
        path: "/live".into(),
        http2: false,
        expected: std::iter::once(200..300).collect(),
        retriable: std::iter::once(100..600).collect(),
    }
}

/// A server that is well while the cell says so; requests that are no checks are always answered with 200.
async fn moody() -> (SocketAddr, Rc<Cell<bool>>, Rc<Seen>) {
    let well = Rc::new(Cell::new(true));
    let mood = well.clone();
    let (address, seen) = server(move |mut client, seen| {
        let mood = mood.clone();
        async move {
            while let Some(head) = request(&mut client, &seen).await {
                let is_check = head.starts_with("GET /live ");
                client.send(if is_check && !mood.get() { BUSY } else { OK }).await;
            }
        }
    })
    .await;
    (address, well, seen)
}

fn served(seen: &Seen) -> usize {
    let heads = seen.heads.borrow();
    heads
        .iter()
        .filter(|head| !head.starts_with("GET /live "))
        .count()
}

#[test]
fn an_endpoint_that_fails_its_checks_gets_no_requests_until_it_passes_them() {
    run(async {
        let (sick, well, seen_sick) = moody().await;
        let (fine, _, _) = moody().await;
        let proxy = checked(&[sick, fine], http()).start().await;
        spawn_local(check_forever(proxy.worker.clone()));
        let host = proxy.cluster.hosts()[0].clone();
        let checks = |count| proxy.counted(ClusterCounter::HealthChecks) >= count;
        until("both are asked", || checks(2)).await;
        assert!(host.is_usable());
        let head = seen_sick.heads.borrow()[0].to_ascii_lowercase();
        assert!(
            head.contains("host: app.example") && head.contains("connection: close"),
            "{head}"
        );
        well.set(false);
        until("it is out", || !host.is_usable()).await;
        assert_eq!(&*host.record.why_unwell(), "it answered 503");
        let before = served(&seen_sick);
        for _ in 0..8 {
            assert_eq!(proxy.get("/").await.status, 200);
        }
        assert_eq!(served(&seen_sick), before, "no request goes there");
        let mut text = String::new();
        proxy.cluster.status_text(&mut text);
        assert!(
            text.contains(&format!("{sick}::health_flags::/failed_active_hc")),
            "{text}"
        );
        assert!(text.contains("::health_check_failure::it answered 503"), "{text}");
        well.set(true);
        until("it is back", || host.is_usable()).await;
        for _ in 0..4 {
            assert_eq!(proxy.get("/").await.status, 200);
        }
        assert!(served(&seen_sick) > before, "it gets requests again");
    });
}

#[test]
fn endpoints_that_say_nothing_or_are_not_there_are_out_with_a_reason() {
    run(async {
        let (silent, _) = server(|mut client, _| async move { while client.more().await {} }).await;
        let (garbage, _) = answering("not HTTP at all\r\n\r\n").await;
        let gone = nobody().await;
        let proxy = checked(&[silent, garbage, gone], http()).start().await;
        spawn_local(check_forever(proxy.worker.clone()));
        let hosts = proxy.cluster.hosts().to_vec();
        until("all are out", || hosts.iter().all(|host| !host.is_usable())).await;
        for (host, why) in
            hosts
                .iter()
                .zip(["no answer within 150ms", "it did not speak HTTP", "no connection"])
        {
            let said = host.record.why_unwell();
            assert!(said.starts_with(why), "{said}");
        }
        assert_eq!(proxy.get("/").await.status, 503, "nobody is left");
        assert!(proxy.counted(ClusterCounter::HealthCheckFailures) >= 3);
    });
}

#[test]
fn a_connection_is_enough_for_tcp_and_at_the_cap_it_is_still_made() {
    run(async {
        let (silent, _) = server(|mut client, _| async move { while client.more().await {} }).await;
        let gone = nobody().await;
        let mut setup = checked(&[silent, gone], HealthQuestion::Tcp);
        setup.cluster.circuit_breakers.max_connections = 0;
        let proxy = setup.start().await;
        spawn_local(check_forever(proxy.worker.clone()));
        let hosts = proxy.cluster.hosts().to_vec();
        until("who is not there is out", || !hosts[1].is_usable()).await;
        until("several rounds", || {
            proxy.counted(ClusterCounter::HealthChecks) >= 6
        })
        .await;
        assert!(hosts[0].is_usable());
    });
}
