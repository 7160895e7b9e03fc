use rajut_config::{
    model::{LogFormat as LogFormat_, *},
    snapshot::Configuration,
};
use rajut_ir::{
    access_log::{AccessLog, JsonFormat, LogFilter, LogFormat, LogSink},
    listener::{ChainAction, Direction, Listener},
};
use rajut_types::condition::Condition;

use super::fixtures::*;
use crate::proxy::DataPlane;

fn rule(ends: Ends, provider: &str, filter: Option<&str>) -> LogRule {
    LogRule {
        ends,
        providers: vec![provider.into()],
        disabled: false,
        filter: filter.map(|text| Condition::parse(text).expect("valid")),
        origin: origin("Telemetry", "clinic", "default"),
    }
}

fn listeners(mesh: MeshConfig, rules: Vec<LogRule>, data_plane: DataPlane) -> Vec<Listener> {
    let configuration = Configuration {
        mesh,
        services: vec![
            service("web", 1, 80, Protocol::Http),
            service("db", 2, 5432, Protocol::Tcp),
        ],
        telemetries: vec![Telemetry {
            name: "default".into(),
            namespace: "clinic".into(),
            selector: None,
            targeted: false,
            overrides: Vec::new(),
            logging: rules,
            tracing: Vec::new(),
            origin: origin("Telemetry", "clinic", "default"),
            age: 0,
        }],
        ..Configuration::default()
    };
    let mut proxy = proxy("web", netns());
    proxy.data_plane = data_plane;
    let found = resources(&snapshot(configuration, vec![workload("web", 1, "v1")]), &proxy);
    found
        .listeners
        .values()
        .map(|listener| (**listener).clone())
        .collect()
}

fn logs(listener: &Listener) -> Vec<&[AccessLog]> {
    let chains = listener
        .filter_chains
        .iter()
        .chain(&listener.default_filter_chain);
    let of_chains = chains.map(|chain| match &chain.action {
        ChainAction::Http(manager) => &manager.access_logs[..],
        ChainAction::Tcp(proxy) => &proxy.access_logs[..],
    });
    of_chains.collect()
}

#[test]
fn every_chain_has_the_logs_of_its_end_and_a_listener_those_that_no_chain_takes() {
    for data_plane in [DataPlane::Rajut, DataPlane::Envoy] {
        let rules = vec![
            rule(Ends::Client, "envoy", None),
            rule(Ends::Server, "audit", Some("response.code >= 400")),
        ];
        let mesh = MeshConfig {
            providers: vec![Provider {
                name: "audit".into(),
                kind: ProviderKind::File {
                    path: "/audit".into(),
                    format: Some(LogFormat_ {
                        text: r#"{"b":{"c":["%PROTOCOL%",1,true,null]},"a":"x"}"#.into(),
                        json: true,
                    }),
                },
            }],
            ..MeshConfig::default()
        };
        let listeners = listeners(mesh, rules, data_plane);
        assert!(listeners.len() >= 3, "{}", listeners.len());
        for listener in &listeners {
            let inbound = listener.direction == Direction::Inbound;
            for logs in logs(listener) {
                let [log] = logs else { panic!("{logs:?}") };
                if inbound {
                    assert_eq!(log.sink, LogSink::File("/audit".into()));
                    let inner = vec![
                        JsonFormat::Text("%PROTOCOL%".into()),
                        JsonFormat::Number(1.0),
                        JsonFormat::Truth(true),
                        JsonFormat::Null,
                    ];
                    let b = JsonFormat::Object(vec![("c".into(), JsonFormat::List(inner))]);
                    let keys = vec![("a".into(), JsonFormat::Text("x".into())), ("b".into(), b)];
                    assert_eq!(log.format, LogFormat::Json(keys));
                    assert!(matches!(&log.filter, Some(LogFilter::Condition(_))));
                } else {
                    assert_eq!((&log.sink, &log.filter), (&LogSink::Stdout, &None));
                }
            }
            let [own] = &listener.access_logs[..] else {
                panic!("{:?}", listener.access_logs)
            };
            assert_eq!(
                own.filter,
                Some(LogFilter::NoRoute),
                "else every connection would be a line"
            );
        }
    }
}

#[test]
fn credentials_and_what_the_operator_names_are_in_no_format() {
    let format = "%REQ(Authorization)% %REQ(X?cookie):9% %RESP(SET-COOKIE)% %REQ(X-NIK)% %REQ(X)% %PATH(NQ)% \
                  %REQ(X-ENVOY-ORIGINAL-PATH?:PATH):64% %QUERY_PARAM(token)% %QUERY_PARAM(page)% %QUERY_PARAMS% %REQ_WITHOUT_QUERY(:PATH)% %REQ(REFERER)% 5%%";
    let shown = |redaction: Redaction| {
        let mesh = MeshConfig {
            log_format: LogFormat_ {
                text: format.into(),
                json: false,
            },
            redaction,
            ..MeshConfig::default()
        };
        let listeners = listeners(mesh, vec![rule(Ends::Both, "envoy", None)], DataPlane::Envoy);
        match &logs(&listeners[0])[0][0].format {
            LogFormat::Text(text) => text.to_string(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(
        shown(Redaction::default()),
        "[redacted] [redacted] [redacted] %REQ(X-NIK)% %REQ(X)% %PATH(NQ)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH):64% \
         %QUERY_PARAM(token)% %QUERY_PARAM(page)% %QUERY_PARAMS% %PATH(NQ:PATH)% %REQ(REFERER)% 5%%\n"
    );
    assert_eq!(
        shown(Redaction {
            headers: vec!["x-nik".into()],
            query: vec!["token".into()],
        }),
        "[redacted] [redacted] [redacted] [redacted] %REQ(X)% %PATH(NQ)% \
         %PATH(NQ):64% [redacted] %QUERY_PARAM(page)% [redacted] %PATH(NQ:PATH)% [redacted] 5%%\n"
    );
}
