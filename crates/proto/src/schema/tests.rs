use std::collections::HashMap;

use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::{
    Any, core,
    google::protobuf::{Struct, Value, value::Kind},
    hcm, listener, type_url,
};

const LISTENER: &str = "envoy.config.listener.v3.Listener";

fn paths(found: Vec<FoundField>) -> Vec<String> {
    found.into_iter().map(|it| it.path).collect()
}

/// A listener with a connection manager in an `Any`.
fn nested() -> listener::Listener {
    let manager = hcm::HttpConnectionManager {
        stat_prefix: "p".into(),
        upgrade_configs: vec![
            hcm::http_connection_manager::UpgradeConfig::default(),
            hcm::http_connection_manager::UpgradeConfig {
                upgrade_type: "websocket".into(),
                ..Default::default()
            },
        ],
        ..Default::default()
    };
    listener::Listener {
        filter_chains: vec![listener::FilterChain {
            filters: vec![listener::Filter {
                name: "hcm".into(),
                config_type: Some(listener::filter::ConfigType::TypedConfig(Any {
                    type_url: type_url::HTTP_CONNECTION_MANAGER.into(),
                    value: manager.encode_to_vec(),
                })),
            }],
            ..Default::default()
        }],
        metadata: Some(core::Metadata {
            filter_metadata: [("a.b".to_owned(), Struct::default())].into(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

#[test]
fn set_fields_are_found_at_every_depth_with_their_paths() {
    let found = set_fields(LISTENER, &nested().encode_to_vec()).expect("valid");
    assert_eq!(
        paths(found),
        [
            "filter_chains[0]",
            "filter_chains[0].filters[0]",
            "filter_chains[0].filters[0].name",
            "filter_chains[0].filters[0].typed_config",
            "filter_chains[0].filters[0].typed_config.stat_prefix",
            "filter_chains[0].filters[0].typed_config.upgrade_configs[0]",
            "filter_chains[0].filters[0].typed_config.upgrade_configs[1]",
            "filter_chains[0].filters[0].typed_config.upgrade_configs[1].upgrade_type",
            "metadata",
            "metadata.filter_metadata",
        ]
    );
}

#[test]
fn unknown_numbers_are_found_inside_an_any() {
    let mut listener = nested();
    let Some(listener::filter::ConfigType::TypedConfig(config)) =
        &mut listener.filter_chains[0].filters[0].config_type
    else {
        panic!("a typed configuration");
    };
    prost::encoding::encode_key(900, prost::encoding::WireType::Varint, &mut config.value);
    prost::encoding::encode_varint(1, &mut config.value);
    let found = unknown_fields(LISTENER, &listener.encode_to_vec()).expect("valid");
    assert_eq!(
        found,
        [FoundField {
            path: "filter_chains[0].filters[0].typed_config.#900".into(),
            field: "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.#900"
                .into(),
            number: 900,
        }]
    );
    assert_eq!(unknown_fields(LISTENER, &nested().encode_to_vec()), Ok(vec![]));
}

#[test]
fn what_is_no_message_is_told_with_its_place() {
    assert_eq!(
        set_fields("no.Such", &[]),
        Err(ScanError::UnknownType("no.Such".into()))
    );
    for (bytes, what) in [
        (&[0x0a][..], "a cut-off length"),
        (&[0x0a, 0x05, b'a'], "a length beyond the end"),
        (&[0x80], "a cut-off tag"),
        (&[0x00], "a field number of zero"),
        (&[0x0b], "a wire type that proto3 does not have"),
        (&[0xff; 11], "a cut-off tag"),
    ] {
        let found = set_fields(LISTENER, bytes);
        assert!(
            matches!(&found, Err(ScanError::Malformed { what: it, .. }) if *it == what),
            "{bytes:?}: {found:?}"
        );
    }
    // filter_chains (3) with garbage inside.
    let found = set_fields(LISTENER, &[0x1a, 0x01, 0x80]);
    assert_eq!(
        found,
        Err(ScanError::Malformed {
            path: "filter_chains[0]".into(),
            what: "a cut-off tag"
        })
    );
}

#[test]
fn nesting_without_end_is_refused() {
    // Struct → fields → Value → struct_value → …
    let mut bytes = Vec::new();
    for _ in 0..400 {
        let inner = std::mem::take(&mut bytes);
        let mut value = Vec::new();
        put_length_delimited(5, &inner, &mut value);
        let mut entry = Vec::new();
        put_length_delimited(2, &value, &mut entry);
        put_length_delimited(1, &entry, &mut bytes);
    }
    let found = set_fields("google.protobuf.Struct", &bytes);
    assert!(
        matches!(
            found,
            Err(ScanError::Malformed {
                what: "too deep a nesting",
                ..
            })
        ),
        "{found:?}"
    );
    assert_eq!(in_order("google.protobuf.Struct", bytes.clone()), bytes);
}

#[test]
fn maps_are_put_in_order_wherever_they_stand() {
    let keys = ["k3", "k1", "k2", "k10", "k0"];
    let metadata = || core::Metadata {
        filter_metadata: keys
            .iter()
            .map(|key| {
                let fields: HashMap<_, _> = keys
                    .iter()
                    .map(|key| {
                        let kind = Some(Kind::StringValue((*key).to_owned()));
                        ((*key).to_owned(), Value { kind })
                    })
                    .collect();
                ((*key).to_owned(), Struct { fields })
            })
            .collect(),
        ..Default::default()
    };
    let inside = |metadata| listener::Listener {
        name: "l".into(),
        metadata: Some(metadata),
        drain_type: 1,
        ..Default::default()
    };
    let encoded: Vec<_> = (0..8)
        .map(|_| in_order(LISTENER, inside(metadata()).encode_to_vec()))
        .collect();
    assert!(encoded.iter().all(|it| *it == encoded[0]));
    let decoded = listener::Listener::decode(&*encoded[0]).expect("still a listener");
    assert_eq!(decoded, inside(metadata()));
}

#[test]
fn the_tables_are_sorted_and_complete() {
    assert!(messages().is_sorted_by_key(|it| it.name));
    assert!(messages().len() > 500, "{}", messages().len());
    for message in messages() {
        assert!(
            message.fields.is_sorted_by_key(|it| it.number),
            "{}",
            message.name
        );
        assert_eq!(
            MessageSchema::named(message.name).map(|it| it.name),
            Some(message.name)
        );
    }
    let listener = MessageSchema::named(LISTENER).expect("it is a root");
    let field = listener.field_named("filter_chains").expect("it has chains");
    assert_eq!((field.number, field.repeated), (3, true));
    assert_eq!(field.type_name(), "envoy.config.listener.v3.FilterChain");
}

proptest! {
    #[test]
    fn scanning_random_bytes_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = set_fields(LISTENER, &bytes);
        let _ = unknown_fields("google.protobuf.Struct", &bytes);
        let _ = in_order(LISTENER, bytes);
    }

    #[test]
    fn whatever_prost_takes_the_scan_takes(bytes in prop::collection::vec(0..64u8, 0..40)) {
        // The scan is stricter only where prost skips what it does not know.
        if listener::Listener::decode(&*bytes).is_ok() && set_fields(LISTENER, &bytes).is_err() {
            prop_assert!(unknown_fields(LISTENER, &bytes).is_err());
        }
    }
}
