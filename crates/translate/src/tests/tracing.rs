use rajut_config::{model::*, snapshot::Configuration};
use rajut_ir::{
    listener::{ChainAction, Direction},
    tracing::{TagValue, Tracing},
};
use rajut_types::{Labels, Percent, Text};

use super::fixtures::*;

fn configuration(redaction: Redaction) -> Configuration {
    let collector = Collector {
        host: fqdn("otel"),
        port: 4317,
        timeout: None,
    };
    let header = |name: &str| SpanTag::Header {
        name: name.into(),
        default: "nobody".into(),
    };
    let rule = |ends, sampling: f64| TraceRule {
        ends,
        provider: None,
        sampling: Some(Percent::new(sampling).expect("valid")),
        disabled: None,
        tags: vec![
            ("caller".into(), header("x-caller")),
            ("secret".into(), header("authorization")),
        ],
        has_istio_tags: None,
        origin: origin("Telemetry", "clinic", "default"),
    };
    Configuration {
        mesh: MeshConfig {
            providers: vec![Provider {
                name: "otel".into(),
                kind: ProviderKind::OpenTelemetry {
                    collector,
                    max_path_length: Some(99),
                },
            }],
            default_tracing: vec!["otel".into()],
            redaction,
            ..MeshConfig::default()
        },
        services: vec![
            service("web", 1, 80, Protocol::Http),
            service("otel", 2, 4317, Protocol::Grpc),
        ],
        telemetries: vec![Telemetry {
            name: "default".into(),
            namespace: "clinic".into(),
            selector: None,
            targeted: false,
            overrides: Vec::new(),
            logging: Vec::new(),
            tracing: vec![rule(Ends::Client, 5.0), rule(Ends::Server, 7.0)],
            origin: origin("Telemetry", "clinic", "default"),
            age: 0,
        }],
        ..Configuration::default()
    }
}

fn tracing(direction: Direction, redaction: Redaction) -> Tracing {
    let snapshot = snapshot(configuration(redaction), vec![workload("web", 1, "v1")]);
    let found = resources(&snapshot, &proxy("web", netns()));
    let listeners = found.listeners.values().filter(|it| it.direction == direction);
    let chains = listeners.flat_map(|it| it.filter_chains.iter().chain(&it.default_filter_chain).cloned());
    let mut found = chains.filter_map(|chain| match &chain.action {
        ChainAction::Http(manager) => manager.tracing.clone(),
        ChainAction::Tcp(_) => None,
    });
    found.next().expect("it is traced")
}

#[test]
fn spans_say_whose_they_are_and_go_to_the_collector() {
    let client = tracing(Direction::Outbound, Redaction::default());
    let server = tracing(Direction::Inbound, Redaction::default());
    assert_eq!(
        (client.random.millionths(), server.random.millionths()),
        (50_000, 70_000)
    );
    assert_eq!((client.overall, client.max_path_length), (Percent::ALL, 99));
    let provider = client.provider.as_ref().expect("a collector");
    assert_eq!(&*provider.cluster, "outbound|4317||otel.clinic.svc.cluster.local");
    assert_eq!(&*provider.service_name, "web.clinic");
    let shown: Vec<String> = client
        .tags
        .iter()
        .map(|tag| match &tag.value {
            TagValue::Literal(value) => format!("{}={value}", tag.tag),
            TagValue::RequestHeader { name, default } => format!("{}<{name}?{default}", tag.tag),
        })
        .collect();
    assert_eq!(
        shown,
        [
            "istio.canonical_revision=v1",
            "istio.canonical_service=web",
            "istio.mesh_id=cluster.local",
            "istio.namespace=clinic",
            "caller<x-caller?nobody",
            "secret=[redacted]",
        ]
    );
    let hidden = Redaction {
        headers: Vec::new(),
        query: vec!["token".into()],
    };
    let tags = tracing(Direction::Inbound, hidden).tags;
    assert!(
        tags.iter().any(|tag| &*tag.tag == "http.url"),
        "the query is in it"
    );
}

#[test]
fn proxies_share_listeners_only_where_their_spans_would_say_the_same() {
    let cache = crate::Translator::default();
    let scopes = |configuration: Configuration| {
        let workloads = vec![workload("web", 1, "v1"), workload("otel", 2, "v1")];
        let snapshot = snapshot(configuration, workloads);
        let mut other = proxy("web", netns());
        other.workload = Text::from("otel-2");
        other.labels = Labels::default();
        (
            cache.scope(&snapshot, &proxy("web", netns())),
            cache.scope(&snapshot, &other),
        )
    };
    let (one, other) = scopes(configuration(Redaction::default()));
    assert_ne!(one, other);
    let untraced = Configuration {
        mesh: MeshConfig::default(),
        ..configuration(Redaction::default())
    };
    let (one, other) = scopes(untraced);
    assert_eq!(one, other);
}
