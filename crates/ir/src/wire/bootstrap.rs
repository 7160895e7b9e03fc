//! Envoy bootstrap files, YAML or JSON.
//!
//! What is taken: the node, the admin address, static listeners, clusters and secrets (each decoded as if it came by
//! xDS), the aggregated discovery stream (`ads_config` over an `envoy_grpc` cluster, state of the world or delta), and whether
//! load is reported over the same connection (`load_stats_config`).
//! **Rejected**, by name: discovery from files or over streams of its own, statistics sinks, everything that the lists of
//! [`support_table`](super::support_table) refuse. **Left out and reported**: statistics, tracing, watchdogs, runtime layers
//! and the like. Every fault of every resource is reported, not the first.
//!
//! Bounds: a file of [`TEXT_MAX`] bytes.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use prost::Message as _;
use rajut_proto::{
    bootstrap as pb,
    core::{
        ApiConfigSource, ConfigSource, address, api_config_source::ApiType,
        config_source::ConfigSourceSpecifier, grpc_service::TargetSpecifier,
    },
    reflect::{Descriptors, JsonError},
    type_url,
};
use rajut_types::{Locality, Text};
use serde_json::{Map, Value};

use super::{
    DecodeError, DecodeErrors, DecodeResult, Decoded, Fault, Ignored, decode_cluster, decode_listener,
    decode_secret,
    read::{self, Place, Reader},
};
use crate::Resources;

/// Largest file.
pub const TEXT_MAX: usize = 32 << 20;

/// What a proxy starts with.
#[derive(Debug, Clone, PartialEq)]
pub struct Bootstrap {
    /// Who the proxy is to its control plane.
    pub node: Node,
    /// Where the admin interface listens.
    pub admin: Option<SocketAddr>,
    /// Static listeners, clusters and secrets.
    pub resources: Resources,
    /// The control plane.
    pub ads: Option<Ads>,
    /// What was set and left out.
    pub ignored: Vec<Ignored>,
}

/// Who the proxy is. Source: Envoy `core.v3.Node`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Node {
    /// Istio: `sidecar~10.0.0.1~pod.namespace~namespace.svc.cluster.local`.
    pub id: Text,
    /// The service or workload.
    pub cluster: Text,
    /// An object, or null.
    pub metadata: Value,
    /// Where it runs.
    pub locality: Locality,
}

/// The aggregated discovery stream. Source: Envoy `bootstrap.v3.Bootstrap.DynamicResources.ads_config`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a setting of its own in the file"
)]
pub struct Ads {
    /// The static cluster that leads to the control plane.
    pub cluster: Text,
    /// The incremental protocol is spoken.
    pub delta: bool,
    /// Listeners come over it (`lds_config: {ads: {}}`).
    pub listeners: bool,
    /// Clusters come over it (`cds_config: {ads: {}}`).
    pub clusters: bool,
    /// Load is reported to the same control plane (`cluster_manager.load_stats_config`).
    pub load_reports: bool,
}

/// Reads a bootstrap file. All faults are returned together.
pub fn parse_bootstrap(text: &str) -> Result<Bootstrap, DecodeErrors> {
    let mut parser = Parser {
        descriptors: Descriptors::load(),
        errors: Vec::new(),
        ignored: Vec::new(),
    };
    let parsed = parse_text(text)
        .map_err(|fault| parser.fail(Text::default(), "", fault))
        .ok()
        .and_then(|json| parser.bootstrap(json));
    match parsed {
        Some(bootstrap) if parser.errors.is_empty() => Ok(Bootstrap {
            ignored: parser.ignored,
            ..bootstrap
        }),
        _ => Err(DecodeErrors {
            resource: Text::default(),
            errors: parser.errors,
        }),
    }
}

/// Text → JSON value. Scalars are read as YAML 1.2 has them: `yes` is a text, `0755` too.
fn parse_text(text: &str) -> Result<Map<String, Value>, Fault> {
    if text.len() > TEXT_MAX {
        return Err(Fault::OutOfRange {
            value: format!("{} bytes", text.len()),
            allowed: "33554432 bytes",
        });
    }
    let value: Value = if text.trim_start().starts_with('{') && serde_json::from_str::<Value>(text).is_ok() {
        serde_json::from_str(text).map_err(|error| Fault::Syntax(error.to_string()))?
    } else {
        let options = serde_saphyr::options! {
            strict_booleans: true,
            leading_zero_numbers_as_strings: true,
            underscored_numbers_as_strings: true,
        };
        serde_saphyr::from_str_with_options(text, options)
            .map_err(|error| Fault::Syntax(error.to_string().trim_end().to_owned()))?
    };
    match value {
        Value::Object(fields) => Ok(fields),
        other => Err(Fault::Text {
            value: other.to_string().chars().take(40).collect(),
            expected: "an object with the fields of a bootstrap",
        }),
    }
}

struct Parser {
    descriptors: Descriptors,
    errors: Vec<DecodeError>,
    ignored: Vec<Ignored>,
}

const BOOTSTRAP: &str = "envoy.config.bootstrap.v3.Bootstrap";
const STATIC: [&str; 2] = ["static_resources", "staticResources"];

impl Parser {
    fn fail(&mut self, resource: Text, path: &str, fault: Fault) {
        self.errors.push(DecodeError {
            resource,
            path: path.to_owned(),
            fault,
        });
    }

    fn bootstrap(&mut self, mut json: Map<String, Value>) -> Option<Bootstrap> {
        let resources = self.static_resources(&mut json);
        let metadata = json
            .get("node")
            .and_then(|node| node.get("metadata"))
            .cloned()
            .unwrap_or_default();
        let bytes = self.encode(Text::default(), "", BOOTSTRAP, &Value::Object(json))?;
        let mut reader = Reader::default();
        reader.check(BOOTSTRAP, &bytes, &Place::Root);
        let message = match pb::Bootstrap::decode(&*bytes) {
            Ok(message) => message,
            Err(error) => {
                self.fail(Text::default(), "", Fault::Malformed(error.to_string()));
                return None;
            }
        };
        let bootstrap = build(&mut reader, &message, metadata, resources);
        let built = reader.finish(Text::default(), Some(bootstrap));
        self.keep("", built)
    }

    /// Takes the static resources out of the file and decodes each by itself.
    fn static_resources(&mut self, json: &mut Map<String, Value>) -> Resources {
        let mut resources = Resources::default();
        let Some(name) = STATIC.into_iter().find(|name| json.contains_key(*name)) else {
            return resources;
        };
        let Some(Value::Object(groups)) = json.get_mut(name) else {
            return resources;
        };
        let mut take = |group| match groups.get(group) {
            Some(Value::Array(_)) => match groups.shift_remove(group) {
                Some(Value::Array(items)) => items,
                _ => Vec::new(),
            },
            // Another type is reported with the rest of the file.
            _ => Vec::new(),
        };
        let (listeners, clusters, secrets) = (take("listeners"), take("clusters"), take("secrets"));
        resources.listeners = self.group(name, "listeners", type_url::LISTENER, listeners, decode_listener);
        resources.clusters = self.group(name, "clusters", type_url::CLUSTER, clusters, decode_cluster);
        resources.secrets = self.group(name, "secrets", type_url::SECRET, secrets, decode_secret);
        resources
    }

    fn group<T>(
        &mut self,
        parent: &str,
        group: &str,
        url: &str,
        items: Vec<Value>,
        decode: fn(&[u8]) -> DecodeResult<T>,
    ) -> BTreeMap<Text, Arc<T>> {
        let mut decoded = BTreeMap::new();
        for (at, item) in items.into_iter().enumerate() {
            let path = format!("{parent}.{group}[{at}]");
            let given = item.get("name").and_then(Value::as_str);
            // Envoy names a listener without a name itself.
            let name: Text = match given {
                Some(name) => name.into(),
                None => path.as_str().into(),
            };
            let Some(bytes) = self.encode(name.clone(), &path, type_url::message_name(url), &item) else {
                continue;
            };
            let Some(value) = self.keep(&path, decode(&bytes)) else {
                continue;
            };
            if decoded.insert(name.clone(), Arc::new(value)).is_some() {
                let fault = Fault::Duplicate(name.to_string());
                self.fail(name, &format!("{path}.name"), fault);
            }
        }
        decoded
    }

    /// JSON → wire bytes.
    fn encode(&mut self, resource: Text, place: &str, type_name: &str, json: &Value) -> Option<Vec<u8>> {
        match self.descriptors.json_to_message(type_name, json) {
            Ok(bytes) => Some(bytes),
            Err(JsonError::Malformed { path, reason }) => {
                self.fail(resource, &join(place, &path), Fault::Syntax(reason));
                None
            }
            Err(error @ (JsonError::UnknownType(_) | JsonError::Bytes { .. })) => {
                self.fail(resource, place, Fault::Syntax(error.to_string()));
                None
            }
        }
    }

    fn keep<T>(&mut self, place: &str, decoded: DecodeResult<T>) -> Option<T> {
        match decoded {
            Ok(Decoded { value, ignored }) => {
                self.ignored.extend(ignored.into_iter().map(|it| Ignored {
                    path: join(place, &it.path),
                    what: it.what,
                }));
                Some(value)
            }
            Err(errors) => {
                self.errors.extend(errors.into_iter().map(|error| DecodeError {
                    path: join(place, &error.path),
                    ..error
                }));
                None
            }
        }
    }
}

fn join(parent: &str, path: &str) -> String {
    match (parent, path) {
        (parent, "") => parent.to_owned(),
        ("", path) => path.to_owned(),
        (parent, path) => format!("{parent}.{path}"),
    }
}

fn build(reader: &mut Reader, message: &pb::Bootstrap, metadata: Value, resources: Resources) -> Bootstrap {
    let node = message.node.clone().unwrap_or_default();
    let admin = message.admin.as_ref().and_then(|admin| {
        let place = Place::Root.field("admin");
        decode_admin(reader, &place.field("address"), admin)
    });
    let dynamic = message.dynamic_resources.clone().unwrap_or_default();
    let place = Place::Root.field("dynamic_resources");
    let listeners = over_ads(reader, &place.field("lds_config"), dynamic.lds_config.as_ref());
    let clusters = over_ads(reader, &place.field("cds_config"), dynamic.cds_config.as_ref());
    let ads_place = place.field("ads_config");
    let mut ads = match &dynamic.ads_config {
        Some(config) => decode_ads(reader, &ads_place, config).map(|(cluster, delta)| Ads {
            cluster,
            delta,
            listeners,
            clusters,
            load_reports: false,
        }),
        None if listeners || clusters => reader.required(
            &ads_place,
            None,
            "the stream that lds_config and cds_config refer to",
        ),
        None => None,
    };
    let manager = message.cluster_manager.as_ref();
    if let Some(config) = manager.and_then(|manager| manager.load_stats_config.as_ref()) {
        let place = Place::Root.field("cluster_manager");
        decode_load_reports(reader, &place.field("load_stats_config"), config, ads.as_mut());
    }
    if let Some(ads) = &ads {
        if !resources.clusters.contains_key(&ads.cluster) && reader.is_clean() {
            reader.bad_text(&ads_place, &ads.cluster, "a cluster of static_resources");
        }
        if node.id.is_empty() {
            let node_place = Place::Root.field("node");
            reader.fault(
                &node_place.field("id"),
                Fault::Missing("who this proxy is to its control plane"),
            );
        }
    }
    Bootstrap {
        node: Node {
            id: node.id.as_str().into(),
            cluster: node.cluster.as_str().into(),
            metadata,
            locality: read::locality(node.locality.as_ref()),
        },
        admin,
        resources,
        ads,
        ignored: Vec::new(),
    }
}

fn decode_admin(reader: &mut Reader, place: &Place<'_>, admin: &pb::Admin) -> Option<SocketAddr> {
    match admin.address.as_ref()?.address.as_ref() {
        Some(address::Address::SocketAddress(socket)) => {
            Some(reader.socket(&place.field("socket_address"), socket, false)?.0)
        }
        Some(address::Address::Pipe(pipe)) => {
            reader.value(&place.field("pipe"), &pipe.path, "write an IP address and port");
            None
        }
        Some(address::Address::EnvoyInternalAddress(_)) | None => {
            reader.required(place, None, "socket_address")
        }
    }
}

/// Whether a kind of resource comes over the aggregated stream; other sources are refused.
fn over_ads(reader: &mut Reader, place: &Place<'_>, source: Option<&ConfigSource>) -> bool {
    match source.map(|it| it.config_source_specifier.as_ref()) {
        None => false,
        Some(Some(ConfigSourceSpecifier::Ads(_))) => true,
        Some(Some(ConfigSourceSpecifier::ApiConfigSource(_))) => {
            reader.value(
                &place.field("api_config_source"),
                "a stream of its own",
                "write `ads: {}` and give the stream in ads_config",
            );
            false
        }
        Some(other) => {
            let name = if other.is_some() {
                "a file, or self"
            } else {
                "nothing"
            };
            reader.value(place, name, "write `ads: {}` and give the stream in ads_config");
            false
        }
    }
}

/// Load is reported over the connection to the control plane, so it must be the same one.
fn decode_load_reports(
    reader: &mut Reader,
    place: &Place<'_>,
    config: &ApiConfigSource,
    ads: Option<&mut Ads>,
) {
    let Some((cluster, delta)) = decode_ads(reader, place, config) else {
        return;
    };
    if delta {
        reader.value(
            &place.field("api_type"),
            ApiType::DeltaGrpc.as_str_name(),
            "write GRPC",
        );
    }
    match ads {
        Some(ads) if ads.cluster == cluster => ads.load_reports = true,
        _ => reader.bad_text(place, &cluster, "the cluster of ads_config"),
    }
}

/// The cluster and whether the protocol is incremental.
fn decode_ads(reader: &mut Reader, place: &Place<'_>, config: &ApiConfigSource) -> Option<(Text, bool)> {
    let kind_place = place.field("api_type");
    let delta = match reader.enumerator(&kind_place, config.api_type) {
        ApiType::Grpc => false,
        ApiType::DeltaGrpc => true,
        other => {
            reader.value(&kind_place, other.as_str_name(), "write GRPC or DELTA_GRPC");
            false
        }
    };
    if config.grpc_services.len() > 1 {
        reader.value(
            &place.field("grpc_services"),
            format_args!("{} services", config.grpc_services.len()),
            "write one",
        );
    }
    let place = place.item("grpc_services", 0);
    match config
        .grpc_services
        .first()
        .and_then(|it| it.target_specifier.as_ref())
    {
        Some(TargetSpecifier::EnvoyGrpc(grpc)) => {
            let place = place.field("envoy_grpc");
            let name = reader.named(
                &place.field("cluster_name"),
                &grpc.cluster_name,
                "the cluster's name",
            );
            Some((name, delta))
        }
        Some(TargetSpecifier::GoogleGrpc(grpc)) => {
            reader.value(
                &place.field("google_grpc"),
                &grpc.target_uri,
                "write envoy_grpc and a static cluster",
            );
            None
        }
        None => reader.required(&place, None, "envoy_grpc with the control plane's cluster"),
    }
}

#[cfg(test)]
mod tests;
