//! Istio's standard metrics of requests: what is counted, by whom, and whom a server believes.

use std::{rc::Rc, sync::Arc};

use rajut_ir::{
    filter::HttpFilter,
    listener::Direction,
    stats::{IstioStats, MetricOverride},
};
use rajut_telemetry::workload::{HEADER, Workload};
use rajut_types::tag::TagValue;

use super::harness::{OK, Proxy, Setup, answering, nobody, run, until};
use crate::{
    connection::{Peer, PeerIdentity},
    stats::Exposition,
};

fn counting(mut setup: Setup, direction: Direction) -> Setup {
    let filter = HttpFilter::istio_stats(Arc::new(IstioStats::default()));
    setup.manager.filters.insert(0, filter);
    setup.direction = direction;
    setup
}

fn text(proxy: &Proxy) -> String {
    proxy.registry.exposition(&[], Exposition::Prometheus)
}

/// The sum of a metric's series that have all of `labels`.
fn sum(proxy: &Proxy, metric: &str, labels: &[&str]) -> u64 {
    let text = text(proxy);
    let lines = text
        .lines()
        .filter(|line| line.starts_with(&format!("{metric}{{")));
    lines
        .filter(|line| labels.iter().all(|label| line.contains(label)))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
        .sum()
}

fn web() -> String {
    let labels = [("app", "web"), ("version", "v1")].into_iter().collect();
    Workload::new("web-v1", "clinic", "", &labels).to_header()
}

fn mesh_peer() -> Peer {
    Peer::Verified(Rc::new(PeerIdentity {
        uris: vec!["spiffe://cluster.local/ns/clinic/sa/web".into()],
        own_uri: "spiffe://cluster.local/ns/clinic/sa/app".into(),
        ..PeerIdentity::default()
    }))
}

#[test]
fn every_request_of_a_client_is_counted_by_its_answer() {
    run(async {
        let (app, _) = answering(OK).await;
        let proxy = counting(Setup::to(&[app]), Direction::Outbound).start().await;
        let mut client = proxy.client().await;
        for _ in 0..3 {
            client.get("/").await;
        }
        client.post("/", "four").await;
        until("four requests", || sum(&proxy, "istio_requests_total", &[]) == 4).await;
        let labels = [
            "reporter=\"source\"",
            "response_code=\"200\"",
            "request_protocol=\"http\"",
            "destination_service=\"app\"",
            "connection_security_policy=\"unknown\"",
        ];
        assert_eq!(
            sum(&proxy, "istio_requests_total", &labels),
            4,
            "{}",
            text(&proxy)
        );
        assert_eq!(sum(&proxy, "istio_request_bytes_sum", &[]), 4);
        assert_eq!(sum(&proxy, "istio_response_bytes_sum", &[]), 8);
        let sized = sum(&proxy, "istio_response_bytes_bucket", &["le=\"5\""]);
        assert_eq!(sized, 4, "each answer has two bytes");
    });
}

#[test]
fn labels_may_tell_what_a_request_says() {
    run(async {
        let (app, _) = answering(OK).await;
        let value = |text: &str| TagValue::parse(text).expect("valid");
        let set = [
            ("method", "request.method"),
            ("path", "request.url_path"),
            ("team", "request.headers['x-team']"),
        ];
        let stats = IstioStats {
            metrics: vec![MetricOverride {
                metric: None,
                drop: false,
                remove: Vec::new(),
                set: set.map(|(name, text)| (name.into(), value(text))).to_vec(),
            }],
            ..IstioStats::default()
        };
        let mut setup = Setup::to(&[app]);
        setup
            .manager
            .filters
            .insert(0, HttpFilter::istio_stats(Arc::new(stats)));
        let proxy = setup.start().await;
        let mut client = proxy.client().await;
        client
            .send("GET /a?b=1 HTTP/1.1\r\nHost: app\r\nX-Team: red\r\n\r\n")
            .await;
        client.reply(false).await;
        let labels = ["method=\"GET\"", "path=\"/a\"", "team=\"red\""];
        until("the request", || {
            sum(&proxy, "istio_requests_total", &labels) == 1
        })
        .await;
        client.post("/c", "").await;
        let labels = ["method=\"POST\"", "path=\"/c\"", "team=\"unknown\""];
        until("the other", || sum(&proxy, "istio_requests_total", &labels) == 1).await;
    });
}

#[test]
fn a_request_that_reaches_nobody_is_counted_with_its_flag() {
    run(async {
        let gone = nobody().await;
        let proxy = counting(Setup::to(&[gone]), Direction::Outbound).start().await;
        assert_eq!(proxy.get("/").await.status, 503);
        let labels = ["response_code=\"503\"", "response_flags=\"UF\""];
        until("the request", || {
            sum(&proxy, "istio_requests_total", &labels) == 1
        })
        .await;
    });
}

#[test]
fn a_server_believes_a_client_of_the_mesh_once_for_its_connection() {
    run(async {
        let (app, seen) = answering(OK).await;
        let mut setup = counting(Setup::to(&[app]), Direction::Inbound);
        setup.peer = mesh_peer();
        let proxy = setup.start().await;
        let mut client = proxy.client().await;
        let told = web();
        client
            .send(format!("GET / HTTP/1.1\r\nHost: app\r\n{HEADER}: {told}\r\n\r\n"))
            .await;
        client.reply(false).await;
        client.get("/").await;
        let labels = [
            "reporter=\"destination\"",
            "source_workload=\"web-v1\"",
            "source_version=\"v1\"",
            "source_principal=\"spiffe://cluster.local/ns/clinic/sa/web\"",
            "destination_principal=\"spiffe://cluster.local/ns/clinic/sa/app\"",
            "connection_security_policy=\"mutual_tls\"",
        ];
        until("both requests", || {
            sum(&proxy, "istio_requests_total", &labels) == 2
        })
        .await;
        assert!(seen.heads.borrow().iter().all(|head| !head.contains(HEADER)));
    });
}

#[test]
fn what_no_certificate_backs_is_not_believed_and_not_passed_on() {
    run(async {
        let (app, seen) = answering(OK).await;
        let proxy = counting(Setup::to(&[app]), Direction::Inbound).start().await;
        let told = web();
        let mut client = proxy.client().await;
        client
            .send(format!("GET / HTTP/1.1\r\nHost: app\r\n{HEADER}: {told}\r\n\r\n"))
            .await;
        client.reply(false).await;
        let labels = [
            "source_workload=\"unknown\"",
            "source_principal=\"unknown\"",
            "connection_security_policy=\"none\"",
        ];
        until("the request", || {
            sum(&proxy, "istio_requests_total", &labels) == 1
        })
        .await;
        assert!(!seen.heads.borrow()[0].contains(HEADER));
    });
}
