//! One proxy: the machines of both ends, the wire between them left out.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use rajut_control::{accept::PeerInfo, discovery::Discovery};
use rajut_types::{Principal, Text, TrustDomain};
use rajut_xds::{
    Node, Protocol, Resource,
    client::ClientMachine,
    message::Response,
    server::{Connection, ResourceSource as _, ServerStream},
    type_url,
};
use serde_json::json;

use crate::mesh::{WHOLE, cluster, namespace};

/// How it subscribes.
#[derive(Debug, Clone)]
pub(crate) enum Form {
    /// To everything, and to the endpoints of every cluster that it hears of.
    Everything,
    /// To the clusters and endpoints of these services, and to its own listener.
    Names(Vec<usize>),
}

pub(crate) struct Proxy {
    pub(crate) id: Text,
    protocol: Protocol,
    connection: Connection,
    server: ServerStream,
    client: ClientMachine,
    wanted: BTreeSet<(Text, Text)>,
    held: BTreeMap<(Text, Text), Bytes>,
    pub(crate) updates: usize,
    /// Takes what comes and answers nothing.
    pub(crate) silent: bool,
    unanswered: Vec<rajut_xds::client::Update>,
}

impl Proxy {
    pub(crate) fn connect(discovery: &Discovery, service: usize, form: &Form, protocol: Protocol) -> Self {
        // Two may stand beside one workload: an instance is told apart by its address.
        static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(1);
        let namespace = namespace(service);
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let address = Ipv4Addr::from_bits(0x0aff_0000 | number);
        let node = Node {
            id: format!("sidecar~{address}~svc-{service:03}-0.{namespace}~{namespace}.svc.cluster.local")
                .into(),
            metadata: json!({"RAJUT_DATA_PLANE": "rajut", "LABELS": {"app": format!("svc-{service:03}"), "version": "v1"}}),
            ..Node::default()
        };
        let account = format!("svc-{service:03}");
        let mut extensions = tonic::Extensions::new();
        extensions.insert(PeerInfo {
            principal: Some(Principal::new(&TrustDomain::default(), &namespace, &account)),
            address: SocketAddr::from((address, 1)),
        });
        let connection = discovery.connect(&extensions, &node, protocol).expect("welcome");
        let mut proxy = Self {
            id: node.id.clone(),
            protocol,
            connection,
            server: ServerStream::new(protocol),
            client: ClientMachine::new(protocol, node),
            wanted: BTreeSet::new(),
            held: BTreeMap::new(),
            updates: 0,
            silent: false,
            unanswered: Vec::new(),
        };
        proxy.client.connected();
        proxy.subscribe(form);
        proxy
    }

    fn subscribe(&mut self, form: &Form) {
        match form {
            Form::Everything => {
                for url in WHOLE {
                    self.client.subscribe_all(url);
                    self.wanted.insert((url.into(), "*".into()));
                }
                self.subscribe_names(type_url::ROUTE, vec!["8080".into()]);
            }
            Form::Names(services) => {
                let names: Vec<Text> = services.iter().map(|service| cluster(*service)).collect();
                self.subscribe_names(type_url::CLUSTER, names.clone());
                self.subscribe_names(type_url::LOAD_ASSIGNMENT, names);
                self.subscribe_names(type_url::LISTENER, vec!["virtualInbound".into()]);
            }
        }
    }

    fn subscribe_names(&mut self, url: &str, names: Vec<Text>) {
        self.wanted
            .extend(names.iter().map(|name| (Text::from(url), name.clone())));
        self.client.subscribe(url, names);
    }

    pub(crate) fn wants(&self, url: &Text, name: &Text) -> bool {
        self.wanted.contains(&(url.clone(), name.clone())) || self.wanted.contains(&(url.clone(), "*".into()))
    }

    pub(crate) fn held_by_type(&self) -> BTreeMap<(Text, Text), Bytes> {
        self.held.clone()
    }

    /// In state-of-the-world form nothing tells that a resource of a type that goes by name is gone.
    pub(crate) fn may_linger(&self, (url, _): &(Text, Text)) -> bool {
        self.protocol == Protocol::StateOfTheWorld
            && [type_url::LOAD_ASSIGNMENT, type_url::ROUTE].contains(&&**url)
    }

    /// Until its resources are known.
    pub(crate) async fn known(&mut self) {
        let woken = tokio::time::timeout(Duration::from_mins(1), self.connection.woken.changed());
        woken.await.expect("in time").expect("the discovery lives");
        self.connection.woken.mark_unchanged();
        if let Some(set) = self.connection.feed.newest() {
            self.server.snapshot(set);
        }
    }

    /// What the stream's task and the proxy do until neither has anything to say.
    pub(crate) fn pump(&mut self) {
        if self.connection.woken.has_changed().expect("the discovery lives") {
            self.connection.woken.mark_unchanged();
            if let Some(set) = self.connection.feed.newest() {
                self.server.snapshot(set);
            }
        }
        if !self.silent {
            for update in std::mem::take(&mut self.unanswered) {
                self.client.answer(&update.ticket, &[]);
            }
        }
        loop {
            let mut quiet = true;
            while let Some(request) = self.client.next_request() {
                quiet = false;
                self.server
                    .request(request, Duration::ZERO)
                    .expect("within the caps");
                let interest = self.server.take_interest();
                if !interest.is_empty() {
                    self.connection.feed.interested(interest);
                    if let Some(set) = self.connection.feed.newest() {
                        self.server.snapshot(set);
                    }
                }
            }
            while let Some(response) = self.server.next_response(Duration::ZERO) {
                quiet = false;
                self.receive(response);
            }
            self.connection.status.send_replace(self.server.status());
            if quiet {
                return;
            }
        }
    }

    fn receive(&mut self, response: Response<Arc<Resource>>) {
        let response = Response {
            resources: response
                .resources
                .iter()
                .map(|one| Resource::clone(one))
                .collect(),
            type_url: response.type_url,
            version: response.version,
            nonce: response.nonce,
            removed: response.removed,
        };
        self.updates += 1;
        let Some(update) = self.client.response(response) else {
            return;
        };
        let url = &update.type_url;
        for resource in &update.resources {
            self.held
                .insert((url.clone(), resource.name.clone()), resource.body.to_bytes());
        }
        for name in &update.removed {
            self.held.remove(&(url.clone(), name.clone()));
        }
        let everything = self.wanted.contains(&(type_url::CLUSTER.into(), "*".into()));
        if everything && **url == *type_url::CLUSTER {
            let outbound = update.resources.iter().map(|resource| &resource.name);
            let fresh = outbound
                .filter(|name| name.starts_with("outbound|"))
                .cloned()
                .collect();
            self.subscribe_names(type_url::LOAD_ASSIGNMENT, fresh);
        }
        if self.silent {
            self.unanswered.push(update);
        } else {
            self.client.answer(&update.ticket, &[]);
        }
    }
}
