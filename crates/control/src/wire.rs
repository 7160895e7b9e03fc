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
use bytes::Bytes;
use hyper::{body::Incoming, server::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rajut_ir::{
    NameTable, Names, ResourceKind, Resources,
    cluster::Cluster,
    endpoint::LoadAssignment,
    listener::Listener,
    route::{RouteConfiguration, VirtualHost},
    wire::{
        Encoded, encode_cluster, encode_listener, encode_load_assignment, encode_name_table, encode_names,
        encode_route_configuration, encode_route_head, encode_secret, encode_virtual_host,
    },
};
use rajut_proto::{Any, ca::CertificateServer, reflect};
use rajut_runtime::{Clock, drain::Drain};
use rajut_translate::Outbound;
use rajut_types::{PersistentMap, Text};
use rajut_xds::{
    Payload, Resource, ResourceSet, TypeSet, load::LoadServer, recording::RecordServer, resource::Layer,
    server::AdsServer,
};
use serde_json::{Value, json};
use tokio::{sync::mpsc, task::JoinSet};
use tonic::service::Routes;
use tower_service::Service as _;

use crate::{
    accept::Accepted,
    ca::{CertificateAuthorityService, SharedAuthority},
    discovery::Discovery,
    observe::Observer,
    recorder::Recorder,
};

/// Resources of one kind, by name.
type Named<T> = PersistentMap<Text, Arc<T>>;

/// HTTP/2 pings, so that a proxy whose machine is gone is noticed.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(10));

/// What may wait in a stream to be sent. Of what waits each piece has a place that the connection keeps for ever: hyper's own 400 KiB
/// were thirty pieces of a thousand proxies' first answers.
const SEND_BUFFER_BYTES: usize = 64 * 1024;

/// Serves discovery, the issuer, the observer and the recorder on the accepted connections until the drain begins.
///
/// On hyper's connections: tonic's server, which is the same, can't limit what waits.
pub async fn serve_grpc(
    mut accepted: mpsc::Receiver<io::Result<Accepted>>,
    discovery: Discovery,
    authority: SharedAuthority,
    (observer, recorder): (Observer, Recorder),
    clock: Clock,
    drain: Drain,
) {
    let services = Routes::new(AdsServer::service(Arc::new(discovery), clock))
        .add_service(CertificateServer::new(CertificateAuthorityService::new(
            authority,
        )))
        .add_service(LoadServer::new(Arc::new(observer)))
        .add_service(RecordServer::new(Arc::new(recorder)))
        .prepare();
    // Ended with this task.
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = accepted.recv() => accepted,
            () = drain.started() => break,
        };
        while connections.try_join_next().is_some() {}
        match accepted {
            Some(Ok(accepted)) => {
                connections.spawn(serve_connection(accepted, services.clone(), drain.clone()));
            }
            Some(Err(error)) => {
                tracing::error!(%error, "the control plane's port is closed");
                break;
            }
            None => break,
        }
    }
    while connections.join_next().await.is_some() {}
}

/// One proxy's connection, until it ends or the drain does away with it.
async fn serve_connection(accepted: Accepted, services: Routes, drain: Drain) {
    let Accepted { stream, peer } = accepted;
    let service = hyper::service::service_fn(move |mut request: http::Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        services.clone().call(request)
    });
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEPALIVE.0)
        .keep_alive_timeout(KEEPALIVE.1)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = drain.started() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a proxy's connection ended");
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

/// How a resource that scopes share is encoded.
type Encode<T> = fn(&mut Encoder, &T) -> Resource;

/// A part of resources, which those of many scopes share: a virtual host, the names of a service.
#[derive(Debug)]
struct SharedPart<T: ?Sized> {
    /// Held, so that its address is not used again.
    value: Arc<T>,
    bytes: Bytes,
    digest: digest::Digest,
}

/// By the value's address.
type SharedParts<T> = HashMap<usize, SharedPart<T>>;

/// The encoded form of a part; `fresh` grows by what had to be made.
fn shared_part<'p, T: ?Sized>(
    known: &'p mut SharedParts<T>,
    value: &Arc<T>,
    encode: fn(&T) -> Bytes,
    fresh: &mut usize,
) -> &'p SharedPart<T> {
    let address = Arc::as_ptr(value).cast::<()>().addr();
    known.entry(address).or_insert_with(|| {
        let bytes = encode(value);
        *fresh += bytes.len();
        SharedPart {
            value: Arc::clone(value),
            digest: digest::digest(&digest::SHA256, &bytes),
            bytes,
        }
    })
}

/// Encodes resources, each allocation once, and keeps one of equal results.
#[derive(Debug, Default)]
pub struct Encoder {
    /// Address → what stands there, and its encoded form; as long as a scope uses it.
    known: HashMap<usize, (Held, Arc<Resource>)>,
    hosts: SharedParts<VirtualHost>,
    names: SharedParts<Names>,
    /// Version → resource, of proxies' own: many stand beside workloads that are alike.
    own: HashMap<Text, Arc<Resource>>,
    /// At so many entries of all four the unused ones are dropped.
    limit: usize,
    encoded: usize,
    bytes: usize,
}

/// Below so many entries nothing is dropped.
const ENTRIES_MIN: usize = 4_096;

impl Encoder {
    /// A round has ended: where there is too much, what nobody uses is dropped.
    pub fn turn(&mut self) {
        if self.entries() > self.limit.max(ENTRIES_MIN) {
            self.known
                .retain(|_, (_, resource)| Arc::strong_count(resource) > 1);
            self.own.retain(|_, resource| Arc::strong_count(resource) > 1);
            self.hosts.retain(|_, known| Arc::strong_count(&known.value) > 1);
            self.names.retain(|_, known| Arc::strong_count(&known.value) > 1);
            self.limit = 2 * self.entries();
        }
    }

    fn entries(&self) -> usize {
        self.known.len() + self.own.len() + self.hosts.len() + self.names.len()
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
            |encoder, value| encoder.encode(encode_cluster(value)),
            &mut changed,
        );
        let pair = (&new.assignments, &old.assignments);
        self.differences(
            (assignments, ResourceKind::LoadAssignment.type_url()),
            pair,
            Held::LoadAssignment,
            |encoder, value| encoder.encode(encode_load_assignment(value)),
            &mut changed,
        );
        let pair = (&new.listeners, &old.listeners);
        self.differences(
            (listeners, ResourceKind::Listener.type_url()),
            pair,
            Held::Listener,
            |encoder, value| encoder.encode(encode_listener(value)),
            &mut changed,
        );
        let pair = (&new.routes, &old.routes);
        self.differences(
            (routes, ResourceKind::RouteConfiguration.type_url()),
            pair,
            Held::RouteConfiguration,
            Self::encode_routes,
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
            Self::encode_names,
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
    fn shared<T>(&mut self, value: &Arc<T>, hold: fn(Arc<T>) -> Held, encode: Encode<T>) -> Arc<Resource> {
        let key = Arc::as_ptr(value).addr();
        if let Some((_, resource)) = self.known.get(&key) {
            return Arc::clone(resource);
        }
        let resource = Arc::new(encode(self, value));
        self.known
            .insert(key, (hold(Arc::clone(value)), Arc::clone(&resource)));
        resource
    }

    fn encode(&mut self, encoded: Encoded) -> Resource {
        self.encoded += 1;
        self.bytes += encoded.value.len();
        versioned(encoded)
    }

    /// A route table, of which each virtual host is encoded once for all the tables that it stands in. Its version is made of theirs,
    /// so that a table costs what differs, and a pointer for each of the rest.
    fn encode_routes(&mut self, routes: &RouteConfiguration) -> Resource {
        self.encoded += 1;
        let head = encode_route_head(routes);
        let mut fresh = head.value.len();
        let mut version = digest::Context::new(&digest::SHA256);
        version.update(&head.value);
        let hosts = routes.virtual_hosts.iter().map(|host| {
            let known = shared_part(&mut self.hosts, host, encode_virtual_host, &mut fresh);
            version.update(known.digest.as_ref());
            known.bytes.clone()
        });
        let body: Payload = std::iter::once(head.value).chain(hosts).collect();
        self.bytes += fresh;
        Resource {
            name: head.name,
            version: version_text(&version.finish()),
            body,
        }
    }

    /// A table of names, of which those of each service are encoded once for all the tables that they stand in.
    fn encode_names(&mut self, table: &NameTable) -> Resource {
        self.encoded += 1;
        let mut fresh = 0;
        let mut version = digest::Context::new(&digest::SHA256);
        let parts = table.parts().iter().map(|names| {
            let known = shared_part(&mut self.names, names, encode_names, &mut fresh);
            version.update(known.digest.as_ref());
            known.bytes.clone()
        });
        let body: Payload = parts.collect();
        self.bytes += fresh;
        Resource {
            name: Text::default(),
            version: version_text(&version.finish()),
            body,
        }
    }

    fn differences<T>(
        &mut self,
        (layer, url): (&mut Layer, &'static str),
        (new, old): (&Named<T>, &Named<T>),
        hold: fn(Arc<T>) -> Held,
        encode: Encode<T>,
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
    Resource {
        version: version_text(&digest::digest(&digest::SHA256, &encoded.value)),
        name: encoded.name,
        body: encoded.value.into(),
    }
}

/// Half of the digest is far more than two versions of one resource could collide in.
fn version_text(digest: &digest::Digest) -> Text {
    let half = digest.as_ref().iter().take(16);
    let digits = half.flat_map(|byte| [byte >> 4, byte & 15]);
    let text: String = digits
        .filter_map(|digit| char::from_digit(u32::from(digit), 16))
        .collect();
    text.into()
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
    // Keys are in it.
    if url == ResourceKind::Secret.type_url() {
        return json!({"name": &*resource.name, "version": &*resource.version, "resource": {"notShown": "a secret"}});
    }
    let any = Any {
        type_url: url.to_owned(),
        value: resource.body.to_bytes().into(),
    };
    let body = match reflect::message_to_json(&any) {
        Ok(body) => body,
        Err(error) => json!({"notShown": error.to_string()}),
    };
    json!({"name": &*resource.name, "version": &*resource.version, "resource": body})
}

#[cfg(test)]
mod tests {
    use rajut_ir::{route::HeaderMutations, wire::decode_route_configuration};
    use rajut_types::Origin;

    use super::*;

    fn host(name: &str) -> Arc<VirtualHost> {
        Arc::new(VirtualHost {
            filters: Vec::new(),
            rate_limits: Vec::new(),
            name: name.into(),
            domains: vec![name.into()],
            routes: Vec::new(),
            retry_policy: None,
            headers: HeaderMutations::default(),
            include_request_attempt_count: true,
            origin: Origin::built_in("test"),
        })
    }

    fn table(hosts: Vec<Arc<VirtualHost>>) -> Outbound {
        let routes = RouteConfiguration {
            name: "80".into(),
            virtual_hosts: hosts,
            ignore_port_in_host_matching: true,
            filters: Vec::new(),
            headers: HeaderMutations::default(),
        };
        Outbound {
            routes: [("80".into(), Arc::new(routes))].into_iter().collect(),
            ..Outbound::default()
        }
    }

    #[test]
    fn a_virtual_host_of_many_tables_is_encoded_once() {
        let (own, shared): (_, Vec<_>) = (host("a"), (0..100).map(|n| host(&format!("b{n}"))).collect());
        let first = table([vec![own], shared.clone()].concat());
        let second = table([shared, vec![host("c")]].concat());
        let mut encoder = Encoder::default();
        let nothing = Outbound::default();
        let (mut one, mut two) = (Layers::default(), Layers::default());
        encoder.renew(&mut one, &first, &nothing);
        let (tables, all) = encoder.take_counts();
        encoder.renew(&mut two, &second, &nothing);
        let (_, fresh) = encoder.take_counts();
        assert_eq!(tables, 1);
        assert!(fresh < all / 20, "{fresh} of {all} bytes");

        for (layers, outbound) in [(&one, &first), (&two, &second)] {
            let resource = layers.0[3].get("80").expect("the table");
            let read = decode_route_configuration(&resource.body.to_bytes()).expect("a table");
            assert_eq!(read.value.virtual_hosts.len(), 101);
            let named =
                |hosts: &[Arc<VirtualHost>]| hosts.iter().map(|host| host.name.clone()).collect::<Vec<_>>();
            assert_eq!(
                named(&read.value.virtual_hosts),
                named(&outbound.routes.get("80").expect("it").virtual_hosts)
            );
        }
        let versions = [&one, &two].map(|layers| layers.0[3].get("80").expect("the table").version.clone());
        assert_ne!(versions[0], versions[1]);

        drop((first, second, one, two));
        encoder.limit = 0;
        for _ in 0..ENTRIES_MIN {
            let (host, bytes) = (host("unused"), Bytes::new());
            let digest = digest::digest(&digest::SHA256, &bytes);
            let key = Arc::as_ptr(&host).addr();
            let part = SharedPart {
                value: host,
                bytes,
                digest,
            };
            encoder.hosts.insert(key, part);
        }
        encoder.turn();
        assert!(
            encoder.hosts.is_empty() && encoder.known.is_empty(),
            "what nobody uses is forgotten"
        );
    }
}
