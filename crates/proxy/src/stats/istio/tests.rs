use rajut_ir::stats::{Metric, MetricOverride};
use rajut_types::{Labels, Text};

use super::*;
use crate::failure::Flags;

fn store() -> Arc<Store> {
    let store = Arc::<Store>::default();
    let labels: Labels = [("app", "web"), ("version", "v2")].into_iter().collect();
    store.set_own(Workload::new("web-v2", "clinic", "", &labels));
    store
}

fn seen(millis: u64, received: u64, sent: u64) -> Seen {
    Seen {
        duration: Duration::from_millis(millis),
        received,
        sent,
        messages_received: 0,
        messages_sent: 0,
    }
}

fn text(store: &Store, open: bool) -> String {
    let mut out = String::new();
    store.write(&mut out, open);
    out
}

/// The lines of a metric without its types.
fn lines<'t>(text: &'t str, name: &str) -> Vec<&'t str> {
    text.lines()
        .filter(|line| line.starts_with(&format!("{name}{{")))
        .collect()
}

const WEB: &str = "spiffe://cluster.local/ns/clinic/sa/web";
const DB: &str = "spiffe://cluster.local/ns/data/sa/db";

#[test]
fn a_call_is_told_by_its_client_and_by_its_server() {
    let store = store();
    let table = Table::default();
    let client = store.meter(Direction::Outbound, &IstioStats::default());
    let mut key = client.key(Protocol::Http);
    key.code = 200;
    key.service = TextId::of("db.data.svc.cluster.local;db;data");
    key.peer = TextId::of("db-v1;elsewhere;db;latest;");
    key.ends = Ends {
        peer: TextId::of(DB),
        own: TextId::of(WEB),
    };
    table.request(&client, key, seen(3, 0, 12));
    assert_eq!(
        lines(&text(&store, false), "istio_requests_total"),
        [concat!(
            r#"istio_requests_total{reporter="source",source_workload="web-v2",source_workload_namespace="clinic","#,
            r#"source_principal="spiffe://cluster.local/ns/clinic/sa/web",source_app="web",source_version="v2","#,
            r#"source_cluster="unknown",source_canonical_service="web",source_canonical_revision="v2","#,
            r#"destination_workload="db-v1",destination_workload_namespace="data","#,
            r#"destination_principal="spiffe://cluster.local/ns/data/sa/db",destination_app="unknown","#,
            r#"destination_version="unknown",destination_cluster="unknown",destination_canonical_service="db","#,
            r#"destination_canonical_revision="latest",destination_service="db.data.svc.cluster.local","#,
            r#"destination_service_name="db",destination_service_namespace="data",request_protocol="http","#,
            r#"response_code="200",grpc_response_status="",response_flags="-",connection_security_policy="unknown"} 1"#
        )]
    );

    let server = store.meter(Direction::Inbound, &IstioStats::default());
    let mut key = server.key(Protocol::Grpc);
    key.code = 200;
    key.grpc = Some(7);
    table.request(&server, key, seen(1, 0, 0));
    key.ends = Ends {
        peer: TextId::of(DB),
        own: TextId::of(WEB),
    };
    table.request(&server, key, seen(1, 0, 0));
    let text = text(&store, false);
    let of_server: Vec<_> = lines(&text, "istio_requests_total")
        .into_iter()
        .filter(|line| line.contains("reporter=\"destination\""))
        .collect();
    assert_eq!(of_server.len(), 2);
    assert!(
        of_server
            .iter()
            .all(|line| line.contains("destination_workload=\"web-v2\"")
        && line.contains("grpc_response_status=\"7\"")
        // Nothing is known of a service: the own name stands in.
        && line.contains("destination_service=\"web\""))
    );
    assert!(of_server.iter().any(
        |line| line.contains("security_policy=\"none\"") && line.contains("source_principal=\"unknown\"")
    ));
    assert!(
        of_server
            .iter()
            .any(|line| line.contains("security_policy=\"mutual_tls\"")
                && line.contains("source_workload_namespace=\"data\""))
    );
}

#[test]
fn messages_are_told_of_grpc_calls_alone() {
    let store = store();
    let table = Table::default();
    let meter = store.meter(Direction::Outbound, &IstioStats::default());
    for (protocol, messages) in [(Protocol::Grpc, 3), (Protocol::Grpc, 4), (Protocol::Http, 0)] {
        let seen = Seen {
            messages_received: messages,
            messages_sent: 2 * messages,
            ..seen(1, 0, 0)
        };
        table.request(&meter, meter.key(protocol), seen);
    }
    let text = text(&store, false);
    for (name, count) in [
        ("istio_request_messages_total", " 7"),
        ("istio_response_messages_total", " 14"),
    ] {
        let lines = lines(&text, name);
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(
            lines[0].contains("request_protocol=\"grpc\"") && lines[0].ends_with(count),
            "{lines:?}"
        );
    }
}

#[test]
fn all_workers_are_added_up_and_a_new_configuration_goes_on_counting() {
    let store = store();
    let tables = [Table::default(), Table::default()];
    for table in &tables {
        let meter = store.meter(Direction::Outbound, &IstioStats::default());
        let mut key = meter.key(Protocol::Http);
        key.code = 503;
        key.flags = Flags::NO_HEALTHY_UPSTREAM;
        for millis in [0, 1, 7, 4_000_000] {
            table.request(&meter, key, seen(millis, 10, 100));
        }
    }
    let text = text(&store, false);
    let told = |name: &str| -> Vec<&str> {
        let lines = lines(&text, name).into_iter();
        lines.filter_map(|line| line.rsplit(' ').next()).collect()
    };
    assert_eq!(told("istio_requests_total"), ["8"]);
    let buckets = told("istio_request_duration_milliseconds_bucket");
    assert_eq!(buckets[..4], ["2", "4", "4", "6"], "0.5, 1, 5, 10");
    assert_eq!(buckets[18..], ["6", "8"], "3600000, +Inf");
    assert_eq!(told("istio_request_duration_milliseconds_sum"), ["8000016"]);
    assert_eq!(told("istio_request_duration_milliseconds_count"), ["8"]);
    assert_eq!(told("istio_request_bytes_sum"), ["80"]);
    assert_eq!(told("istio_response_bytes_sum"), ["800"]);
    assert!(text.contains("response_flags=\"UH\""));
    assert_eq!(text.matches("# TYPE").count(), 4);
}

#[test]
fn a_part_of_a_millisecond_stays_in_the_sum() {
    let store = store();
    let table = Table::default();
    let meter = store.meter(Direction::Outbound, &IstioStats::default());
    let duration = Duration::from_micros(1_042);
    let key = meter.key(Protocol::Http);
    table.request(
        &meter,
        key,
        Seen {
            messages_received: 0,
            messages_sent: 0,
            duration,
            received: 0,
            sent: 0,
        },
    );
    let text = text(&store, false);
    let sum = lines(&text, "istio_request_duration_milliseconds_sum");
    assert!(sum[0].ends_with(" 1.042"), "{sum:?}");
}

#[test]
fn what_finds_no_room_is_counted_under_other() {
    let store = store();
    let table = Table::default();
    let meter = store.meter(Direction::Outbound, &IstioStats::default());
    let count = u32::try_from(SERIES_MAX).unwrap() + 500;
    for number in 0..count {
        let mut key = meter.key(Protocol::Http);
        key.code = 404;
        // As if so many services had been called.
        key.flags = Flags::of_bits(number);
        table.request(&meter, key, seen(1, 0, 0));
    }
    assert_eq!(store.folded(), 500);
    assert_eq!(table.0.borrow().len(), SERIES_MAX + 1);
    let text = text(&store, false);
    let total: u32 = lines(&text, "istio_requests_total")
        .iter()
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u32>().ok())
        .sum();
    assert_eq!(total, count, "none is lost");
    let other: Vec<_> = lines(&text, "istio_requests_total")
        .into_iter()
        .filter(|line| line.contains("destination_service=\"other\""))
        .collect();
    assert_eq!(other.len(), 1);
    assert!(
        other[0].contains("response_code=\"400\"") && other[0].ends_with(" 500"),
        "{other:?}"
    );
}

#[test]
fn connections_are_counted_while_they_last() {
    let store = store();
    let table = Table::default();
    let meter = store.meter(Direction::Inbound, &IstioStats::default());
    let open = table.connection(&meter, meter.key(Protocol::Tcp));
    open.opened();
    open.passed(5, 7);
    let told = |name: &str| {
        let text = text(&store, false);
        let line = lines(&text, name)[0].to_owned();
        assert!(line.contains("request_protocol=\"tcp\"") && !line.contains("response_code"));
        line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()
    };
    assert_eq!(told("istio_tcp_connections_opened_total"), 1);
    assert_eq!(told("istio_tcp_connections_closed_total"), 0);
    open.passed(1, 1);
    drop(open);
    assert_eq!(told("istio_tcp_connections_closed_total"), 1);
    assert_eq!(told("istio_tcp_received_bytes_total"), 6);
    assert_eq!(told("istio_tcp_sent_bytes_total"), 8);
}

#[test]
fn a_host_stands_in_for_a_service_and_openmetrics_names_counters_without_total() {
    let store = store();
    let table = Table::default();
    let meter = store.meter(Direction::Outbound, &IstioStats::default());
    let mut key = meter.key(Protocol::Http);
    key.code = 200;
    key.service = TextId::of(";PassthroughCluster;");
    key.host = TextId::of("example.org\"\n");
    table.request(&meter, key, seen(1, 0, 0));
    let text = text(&store, true);
    assert!(text.contains("# TYPE istio_requests counter\nistio_requests_total{"));
    assert!(
        text.contains(
            r#"destination_service="example.org\"\n",destination_service_name="PassthroughCluster""#
        )
    );
    assert!(text.contains(r#"destination_service_namespace="unknown""#));
}

#[test]
fn metrics_and_labels_are_told_as_they_are_configured() {
    let store = store();
    let table = Table::default();
    let over = |metric, drop, remove: &[&str], set: &[(&str, TagValue)]| MetricOverride {
        metric,
        drop,
        remove: remove.iter().map(|name| Text::from(*name)).collect(),
        set: set
            .iter()
            .map(|(name, value)| (Text::from(*name), value.clone()))
            .collect(),
    };
    let ir = IstioStats {
        metrics: vec![
            over(Some(Metric::RequestBytes), true, &[], &[]),
            over(None, false, &["source_principal", "destination_principal"], &[]),
            over(
                Some(Metric::Requests),
                false,
                &[],
                &[
                    ("request_host", TagValue::RequestHost),
                    ("response_code", TagValue::Literal("any".into())),
                    ("no name", TagValue::Literal("x".into())),
                ],
            ),
        ],
        ..IstioStats::default()
    };
    let meter = store.meter(Direction::Outbound, &ir);
    for (host, code) in [("a.example", 200), ("a.example", 404), ("b.example", 200)] {
        let mut key = meter.key(Protocol::Http);
        key.code = code;
        key.ends.peer = TextId::of(DB);
        key.extra = TextId::of(&format!("{host}{SEPARATOR}"));
        table.request(&meter, key, seen(1, 0, 0));
    }
    let text = text(&store, false);
    let requests = lines(&text, "istio_requests_total");
    assert_eq!(
        requests.len(),
        2,
        "added up where labels no longer tell them apart: {requests:?}"
    );
    assert!(
        requests[0].contains("response_code=\"any\"")
            && requests[0].ends_with("request_host=\"a.example\"} 2")
    );
    assert!(requests[1].ends_with("request_host=\"b.example\"} 1"));
    assert!(
        !text.contains("istio_request_bytes") && !text.contains("principal") && !text.contains("no name")
    );
    let durations = lines(&text, "istio_request_duration_milliseconds_count");
    assert_eq!(durations.len(), 2, "by code: {durations:?}");
    assert!(durations.iter().all(|line| !line.contains("request_host")));
}
