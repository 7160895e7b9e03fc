use prost::Message;
use serde_json::json;

use super::*;
use crate::{cluster, type_url};

const BOOTSTRAP: &str = "envoy.config.bootstrap.v3.Bootstrap";

fn misfit(type_name: &str, json: &Value) -> (String, String) {
    match json_to_message(type_name, json) {
        Err(JsonError::Malformed { path, reason }) => (path, reason),
        other => panic!("{other:?}"),
    }
}

#[test]
fn json_becomes_the_message_and_comes_back() {
    let json = json!({
        "name": "c",
        "connect_timeout": "0.250s",
        "lb_policy": "RANDOM",
        "per_connection_buffer_limit_bytes": 1024,
        "typed_extension_protocol_options": {"x": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}}
        }}
    });
    let bytes = json_to_message("envoy.config.cluster.v3.Cluster", &json).expect("it fits");
    let cluster = cluster::Cluster::decode(&*bytes).expect("it is a cluster");
    assert_eq!(cluster.connect_timeout.map(|it| it.nanos), Some(250_000_000));
    assert_eq!(cluster.lb_policy, 3);
    let any = Any {
        type_url: type_url::CLUSTER.into(),
        value: bytes,
    };
    let mut back = message_to_json(&any).expect("it is known");
    assert_eq!(back["@type"], type_url::CLUSTER);
    back.as_object_mut().expect("an object").shift_remove("@type");
    assert_eq!(back, json);
}

#[test]
fn what_does_not_fit_is_told_with_its_place() {
    let cluster = |change: Value| json!({"static_resources": {"clusters": [{"name": "a"}, change]}});
    for (json, place, reason) in [
        (
            json!({"nod": {}}),
            "",
            "`envoy.config.bootstrap.v3.Bootstrap` has no field `nod`",
        ),
        (
            cluster(json!({"nam": "b"})),
            "static_resources.clusters[1]",
            "has no field `nam`",
        ),
        (
            cluster(json!({"name": 5})),
            "static_resources.clusters[1].name",
            "string",
        ),
        (
            cluster(json!({"connect_timeout": "soon"})),
            "static_resources.clusters[1].connect_timeout",
            "",
        ),
        (
            cluster(json!({"connectTimeout": 5})),
            "static_resources.clusters[1].connectTimeout",
            "",
        ),
        (
            cluster(json!({"lb_policy": "BEST"})),
            "static_resources.clusters[1].lb_policy",
            "BEST",
        ),
        (
            cluster(
                json!({"typed_extension_protocol_options": {"x": {"@type": "type.googleapis.com/no.Such"}}}),
            ),
            "static_resources.clusters[1].typed_extension_protocol_options[\"x\"]",
            "the type `no.Such` is not known",
        ),
        (
            cluster(json!({"transport_socket": {"typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                "common_tls_context": {"alpn_protocols": [1]}}}})),
            "static_resources.clusters[1].transport_socket.typed_config.common_tls_context.alpn_protocols",
            "",
        ),
        (json!([]), "", ""),
    ] {
        let (found, complaint) = misfit(BOOTSTRAP, &json);
        assert_eq!(found, place, "{json}: {complaint}");
        assert!(complaint.contains(reason), "{json}: {complaint}");
    }
}

#[test]
fn types_that_are_not_known_are_told() {
    assert!(matches!(
        json_to_message("no.Such", &json!({})),
        Err(JsonError::UnknownType(name)) if name == "no.Such"
    ));
    let any = |url: &str, value: &[u8]| Any {
        type_url: url.into(),
        value: value.to_vec(),
    };
    assert!(matches!(
        message_to_json(&any("type.googleapis.com/no.Such", &[])),
        Err(JsonError::UnknownType(_))
    ));
    assert!(matches!(
        message_to_json(&any(type_url::CLUSTER, &[0x0a, 0xff])),
        Err(JsonError::Bytes { .. })
    ));
}

#[test]
fn istios_own_messages_have_descriptors() {
    let table = crate::nds::NameTable {
        table: [(
            "a.b".to_owned(),
            crate::nds::NameInfo {
                ips: vec!["10.0.0.1".into()],
                ..Default::default()
            },
        )]
        .into(),
    };
    let any = Any {
        type_url: type_url::NAME_TABLE.into(),
        value: table.encode_to_vec(),
    };
    let json = message_to_json(&any).expect("it is known");
    assert_eq!(json["table"]["a.b"]["ips"][0], "10.0.0.1");
}
