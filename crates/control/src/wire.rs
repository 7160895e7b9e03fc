//! What touches protobuf: resources encoded once for each allocation, the gRPC services on one port, JSON for people.
//!
//! Bound: [`Encoder`] remembers twice what the proxies use.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, LazyLock},
    time::Duration,
};

use aws_lc_rs::digest;
use rajut_ir::{
    NameTable, ResourceKind, Resources,
    cluster::Cluster,
    endpoint::LoadAssignment,
    listener::Listener,
    route::RouteConfiguration,
    wire::{
        Encoded, encode_cluster, encode_listener, encode_load_assignment, encode_name_table,
        encode_route_configuration, encode_secret,
    },
};
use rajut_proto::{Any, ca::CertificateServer, reflect};
use rajut_runtime::{Clock, drain::Drain};
use rajut_translate::Outbound;
use rajut_types::{PersistentMap, Text};
use rajut_xds::{Resource, ResourceSet, TypeSet, resource::Layer, server::AdsServer};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::{
    accept::Accepted,
    ca::{CertificateAuthorityService, SharedAuthority},
    discovery::Discovery,
};

/// Resources of one kind, by name.
type Named<T> = PersistentMap<Text, Arc<T>>;

/// HTTP/2 pings, so that a proxy whose machine is gone is noticed.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(10));

/// Serves discovery and the issuer on the accepted connections until the drain begins.
pub async fn serve_grpc(
    accepted: mpsc::Receiver<io::Result<Accepted>>,
    discovery: Discovery,
    authority: SharedAuthority,
    clock: Clock,
    drain: Drain,
) {
    let serving = tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE.0))
        .http2_keepalive_timeout(Some(KEEPALIVE.1))
        .add_service(AdsServer::service(Arc::new(discovery), clock))
        .add_service(CertificateServer::new(CertificateAuthorityService::new(
            authority,
        )))
        .serve_with_incoming_shutdown(
            ReceiverStream::new(accepted),
            async move { drain.started().await },
        );
    // Boxed: the whole server is one large future.
    let served = Box::pin(serving).await;
    if let Err(error) = served {
        tracing::error!(%error, "the control plane's port is closed");
    }
}

/// Resources of all types, by name: a scope's, or a proxy's own.
#[derive(Debug, Clone, Default)]
pub struct Layers([Layer; KINDS.len()]);

/// The types, in the order of [`Layers`].
const KINDS: [ResourceKind; 6] = [
    ResourceKind::Cluster,
    ResourceKind::LoadAssignment,
    ResourceKind::Listener,
    ResourceKind::RouteConfiguration,
    ResourceKind::Secret,
    ResourceKind::NameTable,
];

/// (type, name) of resources that became others, came or went.
pub type Changed = Vec<(&'static str, Text)>;

impl Layers {
    /// What a proxy of this scope may be told.
    pub fn with_own(&self, own: &Self, generation: u64) -> ResourceSet {
        let of_kind = |((kind, shared), own): ((ResourceKind, &Layer), &Layer)| {
            let set = TypeSet {
                shared: shared.clone(),
                own: own.clone(),
            };
            (type_name(kind), set)
        };
        ResourceSet {
            generation,
            types: KINDS.into_iter().zip(&self.0).zip(&own.0).map(of_kind).collect(),
        }
    }

    /// Whether both hold the same resources.
    pub fn is_same(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).all(|(a, b)| {
            a.len() == b.len()
                && a.values()
                    .zip(b.values())
                    .all(|(a, b)| Arc::ptr_eq(a, b) || (a.name == b.name && a.version == b.version))
        })
    }
}

/// One text for each type, however many proxies there are.
fn type_name(kind: ResourceKind) -> Text {
    static NAMES: LazyLock<Vec<(ResourceKind, Text)>> =
        LazyLock::new(|| KINDS.map(|kind| (kind, Text::from(kind.type_url()))).into());
    let known = NAMES.iter().find(|(known, _)| *known == kind);
    known.map_or_else(|| kind.type_url().into(), |(_, name)| name.clone())
}

/// What keeps an allocation alive as long as its address is a key.
#[derive(Debug, Clone)]
#[expect(dead_code, reason = "held so that the address is not used again")]
enum Held {
    Cluster(Arc<Cluster>),
    LoadAssignment(Arc<LoadAssignment>),
    Listener(Arc<Listener>),
    RouteConfiguration(Arc<RouteConfiguration>),
    NameTable(Arc<NameTable>),
}

/// Encodes resources, each allocation once, and keeps one of equal results.
#[derive(Debug, Default)]
pub struct Encoder {
    /// Address → what stands there, and its encoded form; as long as a scope uses it.
    known: HashMap<usize, (Held, Arc<Resource>)>,
    /// Version → resource, of proxies' own: many stand beside workloads that are alike.
    own: HashMap<Text, Arc<Resource>>,
    /// At so many entries of both the unused ones are dropped.
    limit: usize,
    encoded: usize,
    bytes: usize,
}

/// Below so many entries nothing is dropped.
const ENTRIES_MIN: usize = 4_096;

impl Encoder {
    /// A round has ended: where there is too much, what nobody uses is dropped.
    pub fn turn(&mut self) {
        if self.known.len() + self.own.len() > self.limit.max(ENTRIES_MIN) {
            self.known
                .retain(|_, (_, resource)| Arc::strong_count(resource) > 1);
            self.own.retain(|_, resource| Arc::strong_count(resource) > 1);
            self.limit = 2 * (self.known.len() + self.own.len());
        }
    }

    /// (resources, bytes) encoded since the last call.
    pub fn take_counts(&mut self) -> (usize, usize) {
        (std::mem::take(&mut self.encoded), std::mem::take(&mut self.bytes))
    }

    /// Brings a scope's layers from `old` to `new`. Gives what became another.
    pub fn renew(&mut self, layers: &mut Layers, new: &Outbound, old: &Outbound) -> Changed {
        let mut changed = Changed::new();
        let Layers([clusters, assignments, listeners, routes, _, names]) = layers;
        let pair = (&new.clusters, &old.clusters);
        self.differences(
            (clusters, ResourceKind::Cluster.type_url()),
            pair,
            Held::Cluster,
            encode_cluster,
            &mut changed,
        );
        let pair = (&new.assignments, &old.assignments);
        self.differences(
            (assignments, ResourceKind::LoadAssignment.type_url()),
            pair,
            Held::LoadAssignment,
            encode_load_assignment,
            &mut changed,
        );
        let pair = (&new.listeners, &old.listeners);
        self.differences(
            (listeners, ResourceKind::Listener.type_url()),
            pair,
            Held::Listener,
            encode_listener,
            &mut changed,
        );
        let pair = (&new.routes, &old.routes);
        self.differences(
            (routes, ResourceKind::RouteConfiguration.type_url()),
            pair,
            Held::RouteConfiguration,
            encode_route_configuration,
            &mut changed,
        );
        // The one resource of its type has no name.
        let table = |table: &Option<Arc<NameTable>>| {
            let entry = |table: &Arc<NameTable>| (Text::default(), Arc::clone(table));
            table.iter().map(entry).collect::<PersistentMap<_, _>>()
        };
        let pair = (&table(&new.names), &table(&old.names));
        self.differences(
            (names, ResourceKind::NameTable.type_url()),
            pair,
            Held::NameTable,
            encode_name_table,
            &mut changed,
        );
        changed
    }

    /// A proxy's own resources. They are made anew each time, so equal ones are found by their version.
    pub fn own(&mut self, resources: &Resources) -> Layers {
        let Resources {
            listeners,
            routes,
            clusters,
            assignments,
            secrets,
            names,
        } = resources;
        Layers([
            self.all_own(clusters.values(), encode_cluster),
            self.all_own(assignments.values(), encode_load_assignment),
            self.all_own(listeners.values(), encode_listener),
            self.all_own(routes.values(), encode_route_configuration),
            self.all_own(secrets.values(), encode_secret),
            self.all_own(names, encode_name_table),
        ])
    }

    fn all_own<'r, T: 'r>(
        &mut self,
        values: impl IntoIterator<Item = &'r Arc<T>>,
        encode: fn(&T) -> Encoded,
    ) -> Layer {
        let one = |value: &Arc<T>| {
            let resource = Arc::new(self.encode(encode(value)));
            let known = self.own.entry(resource.version.clone()).or_insert(resource);
            (known.name.clone(), Arc::clone(known))
        };
        values.into_iter().map(one).collect()
    }

    /// The encoded form of what scopes share.
    fn shared<T>(
        &mut self,
        value: &Arc<T>,
        hold: fn(Arc<T>) -> Held,
        encode: fn(&T) -> Encoded,
    ) -> Arc<Resource> {
        let key = Arc::as_ptr(value).addr();
        if let Some((_, resource)) = self.known.get(&key) {
            return Arc::clone(resource);
        }
        let resource = Arc::new(self.encode(encode(value)));
        self.known
            .insert(key, (hold(Arc::clone(value)), Arc::clone(&resource)));
        resource
    }

    fn encode(&mut self, encoded: Encoded) -> Resource {
        self.encoded += 1;
        self.bytes += encoded.value.len();
        versioned(encoded)
    }

    fn differences<T>(
        &mut self,
        (layer, url): (&mut Layer, &'static str),
        (new, old): (&Named<T>, &Named<T>),
        hold: fn(Arc<T>) -> Held,
        encode: fn(&T) -> Encoded,
        changed: &mut Changed,
    ) {
        let mut steps = Vec::new();
        new.differences(old, |name, old, new| {
            if !old.zip(new).is_some_and(|(old, new)| Arc::ptr_eq(old, new)) {
                steps.push((name, new));
            }
        });
        for (name, new) in steps {
            let Some(value) = new else {
                if let Some(gone) = layer.remove(name) {
                    changed.push((url, gone.name.clone()));
                }
                continue;
            };
            let resource = self.shared(value, hold, encode);
            if layer
                .get(name)
                .is_none_or(|known| known.version != resource.version)
            {
                changed.push((url, resource.name.clone()));
                layer.insert(resource.name.clone(), resource);
            }
        }
    }
}

fn versioned(encoded: Encoded) -> Resource {
    let Encoded {
        name,
        type_url: _,
        value,
    } = encoded;
    // Half of the digest is far more than two versions of one resource could collide in.
    let digest = digest::digest(&digest::SHA256, &value);
    let version: String = digest
        .as_ref()
        .iter()
        .take(16)
        .flat_map(|byte| [byte >> 4, byte & 15])
        .filter_map(|digit| char::from_digit(u32::from(digit), 16))
        .collect();
    Resource {
        name,
        version: version.into(),
        body: value,
    }
}

/// What a proxy was told, in the form of protobuf's JSON, by type.
pub fn dump(set: &ResourceSet) -> Value {
    let of_type = |(url, resources): (&Text, &TypeSet)| {
        let resources: Vec<Value> = resources
            .values()
            .map(|resource| dump_one(url, resource))
            .collect();
        (crate::node::short_type(url).to_string(), Value::Array(resources))
    };
    Value::Object(set.types.iter().map(of_type).collect())
}

fn dump_one(url: &str, resource: &Resource) -> Value {
    let any = Any {
        type_url: url.to_owned(),
        value: resource.body.to_vec(),
    };
    let body = match reflect::message_to_json(&any) {
        Ok(body) => body,
        Err(error) => json!({"notShown": error.to_string()}),
    };
    json!({"name": &*resource.name, "version": &*resource.version, "resource": body})
}
