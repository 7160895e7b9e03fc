//! What touches protobuf: resources encoded once for each allocation, the gRPC services on one port, JSON for people.
//!
//! Bound: [`Encoder`] remembers what the proxies of the last two rounds use.

use std::{
    collections::{HashMap, hash_map::Entry},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io,
    sync::Arc,
    time::Duration,
};

use aws_lc_rs::digest;
use rajut_ir::{
    NameTable, ResourceKind, Resources,
    cluster::Cluster,
    endpoint::LoadAssignment,
    listener::Listener,
    route::RouteConfiguration,
    secret::Secret,
    wire::{
        Encoded, encode_cluster, encode_listener, encode_load_assignment, encode_name_table,
        encode_route_configuration, encode_secret,
    },
};
use rajut_proto::{Any, ca::CertificateServer, reflect};
use rajut_runtime::{Clock, drain::Drain};
use rajut_types::Text;
use rajut_xds::{Resource, ResourceSet, TypeSet, server::AdsServer};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::{
    accept::Accepted,
    ca::{CertificateAuthorityService, SharedAuthority},
    discovery::Discovery,
};

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

/// What keeps an allocation alive as long as its address is a key.
#[derive(Debug, Clone)]
#[expect(dead_code, reason = "held so that the address is not used again")]
enum Held {
    Cluster(Arc<Cluster>),
    LoadAssignment(Arc<LoadAssignment>),
    Listener(Arc<Listener>),
    RouteConfiguration(Arc<RouteConfiguration>),
    Secret(Arc<Secret>),
    NameTable(Arc<NameTable>),
}

/// Encodes resources, each allocation once.
#[derive(Debug, Default)]
pub struct Encoder {
    current: HashMap<usize, (Held, Resource)>,
    previous: HashMap<usize, (Held, Resource)>,
    /// Sets by the hash of their names and versions: proxies that are told the same share it. Turned with the rest.
    sets: HashMap<u64, Arc<TypeSet>>,
}

impl Encoder {
    /// A new round begins: what the one before last did not use is dropped.
    pub fn turn(&mut self) {
        self.previous = std::mem::take(&mut self.current);
        self.sets.clear();
    }

    /// All resources of one proxy; a type that did not change keeps the allocation of `previous`.
    pub fn encode(
        &mut self,
        resources: &Resources,
        generation: u64,
        previous: Option<&ResourceSet>,
    ) -> ResourceSet {
        let Resources {
            listeners,
            routes,
            clusters,
            assignments,
            secrets,
            names,
        } = resources;
        let mut set = ResourceSet {
            generation,
            ..ResourceSet::default()
        };
        let mut put = |sets: &mut HashMap<u64, Arc<TypeSet>>, kind: ResourceKind, encoded: TypeSet| {
            let url = Text::from(kind.type_url());
            let known = previous.and_then(|previous| previous.types.get(&url));
            let shared = match known {
                Some(known) if same(known, &encoded) => Arc::clone(known),
                _ => intern(sets, encoded),
            };
            set.types.insert(url, shared);
        };
        let encoded = self.all(clusters.values(), Held::Cluster, encode_cluster);
        put(&mut self.sets, ResourceKind::Cluster, encoded);
        let encoded = self.all(assignments.values(), Held::LoadAssignment, encode_load_assignment);
        put(&mut self.sets, ResourceKind::LoadAssignment, encoded);
        let encoded = self.all(listeners.values(), Held::Listener, encode_listener);
        put(&mut self.sets, ResourceKind::Listener, encoded);
        let encoded = self.all(
            routes.values(),
            Held::RouteConfiguration,
            encode_route_configuration,
        );
        put(&mut self.sets, ResourceKind::RouteConfiguration, encoded);
        let encoded = self.all(secrets.values(), Held::Secret, encode_secret);
        put(&mut self.sets, ResourceKind::Secret, encoded);
        let encoded = self.all(names, Held::NameTable, encode_name_table);
        put(&mut self.sets, ResourceKind::NameTable, encoded);
        set
    }

    fn all<'r, T: 'r>(
        &mut self,
        values: impl IntoIterator<Item = &'r Arc<T>>,
        hold: fn(Arc<T>) -> Held,
        encode: fn(&T) -> Encoded,
    ) -> TypeSet {
        let one = |value: &Arc<T>| {
            let key = Arc::as_ptr(value).addr();
            let entry = match (self.current.get(&key), self.previous.remove(&key)) {
                (Some(known), _) => return (known.1.name.clone(), known.1.clone()),
                (None, Some(known)) => known,
                (None, None) => (hold(Arc::clone(value)), versioned(encode(value))),
            };
            let resource = entry.1.clone();
            self.current.insert(key, entry);
            (resource.name.clone(), resource)
        };
        values.into_iter().map(one).collect()
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

fn intern(sets: &mut HashMap<u64, Arc<TypeSet>>, encoded: TypeSet) -> Arc<TypeSet> {
    let mut hasher = DefaultHasher::new();
    for (name, resource) in &encoded {
        (name, &resource.version).hash(&mut hasher);
    }
    match sets.entry(hasher.finish()) {
        Entry::Occupied(known) if same(known.get(), &encoded) => Arc::clone(known.get()),
        // Another set of the same hash: not shared, and no harm done.
        Entry::Occupied(_) => Arc::new(encoded),
        Entry::Vacant(free) => Arc::clone(free.insert(Arc::new(encoded))),
    }
}

fn same(a: &TypeSet, b: &TypeSet) -> bool {
    a.len() == b.len()
        && a.iter()
            .zip(b)
            .all(|(a, b)| a.0 == b.0 && a.1.version == b.1.version)
}

/// What a proxy was told, in the form of protobuf's JSON, by type.
pub fn dump(set: &ResourceSet) -> Value {
    let of_type = |(url, resources): (&Text, &Arc<TypeSet>)| {
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
