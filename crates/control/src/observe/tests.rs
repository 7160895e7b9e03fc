use std::{net::SocketAddr, time::UNIX_EPOCH};

use rajut_types::{Principal, TrustDomain};
use serde_json::{Value, json};
use tonic::Code;

use super::*;

const HOST: &str = "outbound|80||api.clinic.svc.cluster.local";

fn observer() -> (Observer, Clock) {
    let clock = Clock::manual(UNIX_EPOCH + Duration::from_secs(1_000_000));
    let (_, snapshots) = watch::channel(Arc::default());
    (
        Observer::new(snapshots, clock.clone(), Duration::from_mins(1)),
        clock,
    )
}

fn principal(namespace: &str, account: &str) -> Principal {
    format!(
        "spiffe://{}/ns/{namespace}/sa/{account}",
        TrustDomain::default().as_str()
    )
    .parse()
    .expect("a principal")
}

fn peer(principal: Option<Principal>) -> Extensions {
    let mut extensions = Extensions::default();
    extensions.insert(PeerInfo {
        principal,
        address: SocketAddr::from(([127, 0, 0, 1], 1)),
    });
    extensions
}

fn node(name: &str, namespace: &str, metadata: Value) -> Node {
    Node {
        id: format!("sidecar~10.0.0.1~{name}.{namespace}~{namespace}.svc.cluster.local").into(),
        metadata,
        ..Node::default()
    }
}

fn told(cluster: &str, succeeded: u64, failed: u64) -> ClusterLoad {
    ClusterLoad {
        cluster: cluster.into(),
        succeeded,
        failed,
        ..ClusterLoad::default()
    }
}

#[test]
fn a_proxy_speaks_for_the_workload_of_its_certificate_and_for_nobody_else() {
    let (observer, _) = observer();
    let web = principal("clinic", "web");
    let mine = node("web-0", "clinic", json!({"SERVICE_ACCOUNT": "web"}));
    let mut reporter = observer
        .open(&peer(Some(web.clone())), &mine)
        .expect("its own workload");
    reporter.report(vec![told(HOST, 5, 1)], 0);
    let view = observer.view(60);
    assert_eq!(view.edges.len(), 1);
    let caller = &view.edges[0].key.caller;
    assert_eq!((&*caller.namespace, &*caller.workload), ("clinic", "web-0"));
    assert_eq!(*caller.principal, web.to_string());

    let code = |extensions: &Extensions, node: &Node| {
        let opened = observer.open(extensions, node);
        opened.err().map(|status| status.code())
    };
    let other_namespace = node("web-0", "bank", Value::Null);
    assert_eq!(
        code(&peer(Some(web.clone())), &other_namespace),
        Some(Code::PermissionDenied)
    );
    let other_account = node("web-0", "clinic", json!({"SERVICE_ACCOUNT": "api"}));
    assert_eq!(
        code(&peer(Some(web)), &other_account),
        Some(Code::PermissionDenied)
    );
    assert_eq!(code(&peer(None), &mine), Some(Code::Unauthenticated));
    assert_eq!(code(&Extensions::default(), &mine), Some(Code::Unauthenticated));
    assert_eq!(observer.counts().refused, 4);
}

#[test]
fn a_workload_of_the_mesh_is_not_spoken_for_under_another_service_account() {
    let workload = rajut_config::model::Workload {
        name: "api-0".into(),
        deployment: "api".into(),
        namespace: "clinic".into(),
        labels: rajut_types::Labels::default(),
        service_account: "api".into(),
        address: std::net::IpAddr::from([10, 0, 0, 1]),
        named_ports: std::collections::BTreeMap::new(),
        reached_ports: std::collections::BTreeMap::new(),
        gateway: None,
        mesh: true,
        locality: rajut_types::Locality::default(),
        weight: 1,
        health: rajut_config::model::WorkloadHealth::Ready,
    };
    let snapshot = Snapshot::default().with_workloads([workload], []);
    let proxy = |account: &str| {
        parse_node(
            &node("api-0", "clinic", Value::Null),
            principal("clinic", account),
        )
        .expect("a node")
    };
    assert_eq!(
        caller(&proxy("web"), &snapshot).map_err(|status| status.code()),
        Err(Code::PermissionDenied)
    );
    let api = caller(&proxy("api"), &snapshot).expect("it is who it says");
    assert_eq!(
        &*api.workload, "api",
        "all instances of a deployment are one caller"
    );
}

#[test]
fn a_report_counts_once_however_often_it_comes() {
    let (observer, clock) = observer();
    let peer = peer(Some(principal("clinic", "web")));
    let numbered = |number: &str| node("web-0", "clinic", json!({"RAJUT_LOAD_REPORT": number}));
    let mut reporter = observer.open(&peer, &numbered("p1/0")).expect("its own");
    reporter.report(vec![told(HOST, 10, 2)], 0);
    // Its answer was lost with the connection: it comes again, and what came meanwhile after it.
    drop(reporter);
    clock.advance(Duration::from_secs(5));
    let mut reporter = observer.open(&peer, &numbered("p1/0")).expect("its own");
    reporter.report(vec![told(HOST, 10, 2)], 0);
    reporter.report(vec![told(HOST, 1, 0)], 0);
    let view = observer.view(60);
    let amounts = &view.edges[0].amounts;
    assert_eq!((amounts.succeeded, amounts.failed), (11, 2));
    // Another process begins at 0 again.
    drop(reporter);
    let mut reporter = observer.open(&peer, &numbered("p2/0")).expect("its own");
    reporter.report(vec![told(HOST, 100, 0)], 0);
    assert_eq!(observer.view(60).edges[0].amounts.succeeded, 111);
    assert_eq!((observer.counts().repeated, observer.counts().reports), (1, 3));
}

#[test]
fn what_is_under_way_goes_with_the_stream_and_what_is_no_edge_is_left_out() {
    let (observer, _) = observer();
    let peer = peer(Some(principal("clinic", "web")));
    let mut reporter = observer
        .open(&peer, &node("web-0", "clinic", Value::Null))
        .expect("its own");
    let mut load = told(HOST, 1, 0);
    load.in_progress = 4;
    reporter.report(vec![load, told("inbound|80||", 7, 7), told("xds-grpc", 1, 0)], 0);
    let view = observer.view(60);
    assert_eq!(view.edges.len(), 1, "{:?}", view.edges);
    assert_eq!(view.edges[0].under_way, Some(4));
    reporter.report(vec![told(HOST, 3, 0)], 0);
    assert_eq!(observer.view(60).edges[0].under_way, Some(0));
    drop(reporter);
    assert_eq!(observer.view(60).edges[0].under_way, None);
}

#[test]
fn the_more_clusters_a_proxy_names_the_less_often_it_is_asked() {
    assert_eq!(interval(0), INTERVAL);
    assert_eq!(interval(200), INTERVAL);
    assert_eq!(interval(900), Duration::from_secs(5));
    assert_eq!(interval(usize::MAX), INTERVAL_MAX);
}

#[test]
fn a_workload_that_calls_what_it_never_called_raises_one_alarm() {
    let (observer, clock) = observer();
    let peer = peer(Some(principal("clinic", "web")));
    let mut reporter = observer
        .open(&peer, &node("web-0", "clinic", Value::Null))
        .expect("its own");
    reporter.report(vec![told(HOST, 1, 0)], 0);
    clock.advance(Duration::from_mins(2));
    reporter.report(vec![told(HOST, 1, 0)], 0);
    let noticed = observer.noticed();
    assert_eq!(
        noticed.learning_until,
        UNIX_EPOCH + Duration::from_secs(1_000_060)
    );
    assert!(noticed.alarms.is_empty(), "{noticed:?}");
    for _ in 0..2 {
        reporter.report(
            vec![told("outbound|3306||records.clinic.svc.cluster.local", 0, 1)],
            0,
        );
    }
    let alarms: Vec<_> = observer
        .noticed()
        .alarms
        .into_iter()
        .map(|(alarm, _)| alarm)
        .collect();
    assert_eq!(alarms.len(), 1);
    assert_eq!(
        (
            &*alarms[0].caller.workload,
            alarms[0].target.as_ref().map(|target| target.port)
        ),
        ("web-0", Some(3306))
    );
    assert_eq!(observer.counts().alarms, [1, 0, 0, 0, 0, 0, 0]);
}

#[tokio::test]
async fn what_was_acknowledged_and_silenced_stays_so_in_another_process() {
    let folder = std::env::temp_dir().join(format!("rajut-observer-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let peer = peer(Some(principal("clinic", "web")));
    let node = node("web-0", "clinic", Value::Null);
    let wish = Wish {
        kind: None,
        caller: "web-0".into(),
        service: "records".into(),
        seconds: 3_600,
        why: "a rehearsal".into(),
    };
    {
        let (observer, clock) = observer();
        observer.keep_in(&folder);
        let mut reporter = observer.open(&peer, &node).expect("its own");
        clock.advance(Duration::from_mins(2));
        reporter.report(
            vec![told("outbound|80||records.clinic.svc.cluster.local", 1, 0)],
            0,
        );
        reporter.report(vec![told(HOST, 1, 0)], 0);
        let seen = observer.acknowledge(2, "me (uid 0)".into(), "it is new".into());
        assert!(
            seen.is_some_and(|alarm| alarm.ended.is_some()),
            "an event is over when it was seen"
        );
        assert!(observer.acknowledge(3, "me".into(), "".into()).is_none());
        observer.silence(wish, "me (uid 0)".into()).expect("a silence");
        observer.save().await.expect("written");
    }
    let (observer, clock) = observer();
    clock.advance(Duration::from_mins(3));
    observer.keep_in(&folder);
    let noticed = observer.noticed();
    let told: Vec<_> = noticed
        .alarms
        .iter()
        .map(|(alarm, silence)| {
            (
                alarm.number,
                alarm.ended.is_some(),
                alarm.acknowledged.is_some(),
                *silence,
            )
        })
        .collect();
    assert_eq!(told, [(1, true, false, Some(1)), (2, true, true, None)]);
    let by = noticed.alarms[1].0.acknowledged.as_ref().expect("seen");
    assert_eq!((&*by.by, &*by.why, by.at), ("me (uid 0)", "it is new", 1_000_120));
    assert!(observer.end_silence(1).is_some() && observer.end_silence(1).is_none());
    let _ = std::fs::remove_dir_all(&folder);
}
