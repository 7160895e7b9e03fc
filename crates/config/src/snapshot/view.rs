//! Views: what a generator may know. A view's fields are exactly what may be read through it, its equality compares
//! all of them, so a result memoised under a view cannot be stale ("cache keys cannot lie").
//!
//! Bounds: a view holds counted references only. It does not compute resources.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{Hash, Hasher},
    sync::Arc,
};

use rajut_types::{Hostname, Labels, Locality, Principal, Text};

use super::{EffectiveMtls, Shared, Snapshot, holding, rules::Client, telemetry};
use crate::model::{
    AuthorizationPolicy, DestinationRule, KeySource, MeshConfig, Observed, RateLimitPolicy,
    RequestAuthentication, Service, Sidecar, VirtualService, Workload,
};

/// A workload behind a service, with the mTLS mode that its sidecar holds.
#[derive(Debug, Clone)]
pub struct Member {
    /// The instance.
    pub workload: Arc<Workload>,
    /// What its sidecar asks of callers.
    pub mtls: Arc<EffectiveMtls>,
}

impl PartialEq for Member {
    fn eq(&self, other: &Self) -> bool {
        (Arc::ptr_eq(&self.workload, &other.workload) || self.workload == other.workload)
            && (Arc::ptr_eq(&self.mtls, &other.mtls) || self.mtls == other.mtls)
    }
}

impl Eq for Member {}

/// The workloads that a service's selector takes, in the order of their names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Members {
    /// The workloads.
    pub list: Vec<Member>,
    /// Their identities and those of the endpoints given in place, sorted, each once; kept as one allocation while
    /// only addresses and health change.
    pub principals: Arc<[Principal]>,
}

/// A service as one client sees it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ServiceView {
    /// The service.
    pub service: Shared<Service>,
    /// What holds for this client's traffic to it, merged.
    pub rule: Option<Shared<DestinationRule>>,
    /// Its workloads.
    pub members: Shared<Members>,
    /// How this client's requests to it are routed.
    pub virtual_service: Option<Shared<VirtualService>>,
}

/// Everything that a client in a namespace sees.
#[derive(Debug, Clone)]
pub struct ClientView {
    /// Mesh-wide settings.
    pub mesh: Shared<MeshConfig>,
    /// The client's namespace.
    pub namespace: Text,
    /// Those labels of the client that some rule asks about.
    pub labels: Labels,
    /// Sorted by host, each host once.
    pub services: Arc<[ServiceView]>,
    /// Services that it does not see and that its virtual services send to; sorted by host, each host once.
    pub behind: Arc<[ServiceView]>,
    /// Hosts of virtual services that no service stands behind.
    pub unserved: Vec<(Hostname, Shared<VirtualService>)>,
    /// What limits its sight.
    pub sidecar: Option<Shared<Sidecar>>,
    /// What is told of the client's calls.
    pub observed: Arc<Observed>,
}

impl PartialEq for ClientView {
    fn eq(&self, other: &Self) -> bool {
        self.mesh == other.mesh
            && self.namespace == other.namespace
            && self.labels == other.labels
            && self.unserved == other.unserved
            && self.observed == other.observed
            && self.sidecar == other.sidecar
            && self.behind == other.behind
            && (Arc::ptr_eq(&self.services, &other.services) || self.services == other.services)
    }
}

impl Eq for ClientView {}

impl Hash for ClientView {
    /// Cheap on purpose: the services are compared, not hashed.
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.mesh.hash(state);
        self.namespace.hash(state);
        self.labels.hash(state);
    }
}

impl ClientView {
    /// The service of that host, also of one that only virtual services send to.
    pub fn find(&self, host: &Hostname) -> Option<&ServiceView> {
        let among = |list: &'_ [ServiceView]| list.binary_search_by(|view| view.service.host.cmp(host)).ok();
        match among(&self.services) {
            Some(position) => self.services.get(position),
            None => self.behind.get(among(&self.behind)?),
        }
    }

    /// Whether some of its virtual services send to that host.
    pub fn sends_to(&self, host: &Hostname) -> bool {
        let of_services = self
            .services
            .iter()
            .filter_map(|view| view.virtual_service.as_ref());
        let mut all = of_services.chain(self.unserved.iter().map(|(_, routes)| routes));
        all.any(|routes| routes.destinations().any(|to| to.host == *host))
    }
}

/// What concerns the inbound side of one workload.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct WorkloadView {
    /// Mesh-wide settings.
    pub mesh: Shared<MeshConfig>,
    /// Its namespace.
    pub namespace: Text,
    /// The modes of its ports.
    pub mtls: Shared<EffectiveMtls>,
    /// Which calls it lets through.
    pub authorization: Vec<Shared<AuthorizationPolicy>>,
    /// Which tokens it takes.
    pub tokens: Vec<Shared<RequestAuthentication>>,
    /// The key sets that those name, as far as they were fetched.
    pub key_sets: BTreeMap<KeySource, Text>,
    /// How many calls it takes.
    pub rate_limits: Vec<Shared<RateLimitPolicy>>,
    /// The services whose selector takes it, oldest first, each with the rule that its own namespace has for it.
    pub services: Vec<(Shared<Service>, Option<Shared<DestinationRule>>)>,
    /// Container port name → number.
    pub named_ports: BTreeMap<Text, u16>,
    /// What its proxy takes.
    pub sidecar: Option<Shared<Sidecar>>,
    /// What is told of its calls.
    pub observed: Arc<Observed>,
}

impl Snapshot {
    /// What a client sees. `labels` are those of the client's workload; of these the view keeps what rules ask about.
    /// `limited`: a Sidecar may limit it (not so gateways).
    pub fn client_view(&self, namespace: &str, labels: &Labels, limited: bool) -> ClientView {
        let labels = self.asked_labels(labels);
        let sidecar = self.sidecar_of(namespace, &labels).filter(|_| limited);
        let client = self.client(namespace, &labels, limited);
        let services: Arc<[ServiceView]> = self
            .visible_services(client)
            .map(|service| self.service_view(service, client))
            .collect();
        let unserved = self
            .index
            .virtual_services
            .hosts()
            .filter(|host| {
                services
                    .binary_search_by(|view| view.service.host.cmp(host))
                    .is_err()
            })
            .filter_map(|host| {
                let found = self
                    .index
                    .virtual_services
                    .find(namespace, host, client.sidecar)?;
                Some((host.clone(), Shared::from(found)))
            })
            .collect();
        let mut view = ClientView {
            mesh: self.settings_under(sidecar),
            namespace: namespace.into(),
            observed: self.observed(namespace, &labels),
            labels: Labels::default(),
            services,
            behind: Arc::default(),
            unserved,
            sidecar: sidecar.map(Shared::from),
        };
        if sidecar.is_some() {
            view.behind = self.behind(&view, client);
        }
        view.labels = labels;
        view
    }

    /// The services that a limited client does not see, and reaches by its virtual services all the same.
    fn behind(&self, view: &ClientView, client: Client<'_>) -> Arc<[ServiceView]> {
        let of_services = view
            .services
            .iter()
            .filter_map(|view| view.virtual_service.as_ref());
        let all = of_services.chain(view.unserved.iter().map(|(_, routes)| routes));
        let hosts: BTreeSet<&Hostname> = all
            .flat_map(|routes| routes.destinations())
            .map(|to| &to.host)
            .collect();
        hosts
            .into_iter()
            .filter(|host| view.find(host).is_none())
            .filter_map(|host| self.find_service(client.namespace, host))
            .map(|service| self.service_view(service, client))
            .collect()
    }

    fn client<'a>(&'a self, namespace: &'a str, labels: &'a Labels, limited: bool) -> Client<'a> {
        let sidecar = self.sidecar_of(namespace, labels).filter(|_| limited);
        Client {
            namespace,
            labels,
            root_namespace: &self.mesh.root_namespace,
            sidecar: sidecar.map(|sidecar| &**sidecar),
        }
    }

    /// Whether anything in the mesh may be traced: only then does it matter to a proxy whose spans are whose.
    pub fn traces_anything(&self) -> bool {
        telemetry::traces_anything(&self.telemetries, &self.mesh)
    }

    /// What is told of the calls of a workload with these labels.
    fn observed(&self, namespace: &str, labels: &Labels) -> Arc<Observed> {
        Arc::new(telemetry::of(&self.telemetries, &self.mesh, namespace, labels))
    }

    /// Those of a client's labels that some rule asks about; clients that agree in them and in the namespace see the same.
    pub fn asked_labels(&self, labels: &Labels) -> Labels {
        labels
            .iter()
            .filter(|(key, _)| self.index.asked_labels.contains(*key))
            .collect()
    }

    /// One host as a client sees it. `labels`: those that rules ask about; `limited` as in [`Self::client_view`].
    pub fn service_of(
        &self,
        host: &Hostname,
        namespace: &str,
        labels: &Labels,
        limited: bool,
    ) -> Option<ServiceView> {
        let client = self.client(namespace, labels, limited);
        let service = self.find_seen(client, host)?;
        Some(self.service_view(service, client))
    }

    /// One host that a client does not see, as its virtual services send to it.
    pub fn service_behind(&self, host: &Hostname, namespace: &str, labels: &Labels) -> Option<ServiceView> {
        let client = self.client(namespace, labels, true);
        let service = self.find_service(namespace, host)?;
        Some(self.service_view(service, client))
    }

    /// The routes that a client has for a host that no service stands behind.
    pub fn routes_of(
        &self,
        host: &Hostname,
        namespace: &str,
        labels: &Labels,
        limited: bool,
    ) -> Option<Shared<VirtualService>> {
        let client = self.client(namespace, labels, limited);
        let found = self.index.virtual_services.find(namespace, host, client.sidecar);
        found.map(Shared::from)
    }

    fn service_view(&self, service: &Arc<Service>, client: Client<'_>) -> ServiceView {
        let key = (service.host.clone(), service.namespace.clone());
        ServiceView {
            rule: self
                .index
                .rules
                .find(client, &service.host, &service.namespace)
                .map(Shared::from),
            members: self
                .index
                .members
                .get(&key)
                .cloned()
                .unwrap_or_else(|| self.index.nobody.clone()),
            virtual_service: self
                .index
                .virtual_services
                .find(client.namespace, &service.host, client.sidecar)
                .map(Shared::from),
            service: Shared::from(service),
        }
    }

    /// The services that a namespace sees, sorted by host, each host once: its own before Kubernetes services before
    /// the oldest other.
    fn visible_services<'a>(&'a self, client: Client<'a>) -> impl Iterator<Item = &'a Arc<Service>> {
        let namespace = client.namespace;
        let rank = move |service: &Service| {
            (
                *service.namespace != *namespace,
                &*service.origin.object.kind != "Service",
                service.age,
            )
        };
        let mut rest = self.services.values().peekable();
        std::iter::from_fn(move || {
            loop {
                let mut best: Option<&Arc<Service>> = None;
                let host = &rest.peek()?.host;
                while let Some(service) = rest.next_if(|service| service.host == *host) {
                    if service.export_to.includes(namespace)
                        && client.sidecar.is_none_or(|sidecar| sidecar.sees(service))
                        && best.is_none_or(|best| rank(service) < rank(best))
                    {
                        best = Some(service);
                    }
                }
                if best.is_some() {
                    return best;
                }
            }
        })
    }

    /// What concerns the inbound side of a workload; `name` finds its named ports, `labels` its services and policies.
    pub fn workload_view(&self, namespace: &str, name: &str, labels: &Labels) -> WorkloadView {
        let known = self.workloads.get(&(Text::from(namespace), Text::from(name)));
        let labels = known.map_or(labels, |workload| &workload.labels);
        let sidecar = self.sidecar_of(namespace, labels);
        let client = self.client(namespace, labels, true);
        let mut services: Vec<&Arc<Service>> = self
            .index
            .selecting(namespace, labels)
            .filter_map(|key| self.services.get(key))
            .collect();
        services.sort_by_key(|service| (service.age, &service.name));
        let root = &self.mesh.root_namespace;
        let tokens = holding::of(&self.request_authentications, root, namespace, labels);
        let rules = tokens.iter().flat_map(|it| &it.rules);
        let key_sets = rules.filter_map(|rule| self.key_sets.get_key_value(&rule.keys));
        let key_sets = key_sets
            .map(|(from, keys)| (from.clone(), keys.clone()))
            .collect();
        WorkloadView {
            mesh: self.settings_under(sidecar),
            sidecar: sidecar.map(Shared::from),
            namespace: namespace.into(),
            mtls: self.index.mtls_of(namespace, name, labels),
            authorization: holding::of(
                &self.authorization_policies,
                &self.mesh.root_namespace,
                namespace,
                labels,
            ),
            tokens,
            key_sets,
            rate_limits: holding::of(
                &self.rate_limit_policies,
                &self.mesh.root_namespace,
                namespace,
                labels,
            ),
            observed: self.observed(namespace, labels),
            services: services
                .into_iter()
                .map(|service| {
                    let rule = self.index.rules.find(client, &service.host, &service.namespace);
                    (Shared::from(service), rule.map(Shared::from))
                })
                .collect(),
            named_ports: known.map_or_else(BTreeMap::new, |workload| workload.named_ports.clone()),
        }
    }

    /// The workload of that name and the mode of its ports.
    pub fn member(&self, namespace: &str, name: &str) -> Option<Member> {
        let workload = self.workloads.get(&(Text::from(namespace), Text::from(name)))?;
        Some(Member {
            workload: Arc::clone(workload),
            mtls: Arc::clone(self.index.mtls_of(namespace, name, &workload.labels).arc()),
        })
    }

    /// The service of that host as a client in `namespace` would see it.
    pub fn find_service(&self, namespace: &str, host: &Hostname) -> Option<&Arc<Service>> {
        let labels = Labels::default();
        let client = Client {
            namespace,
            labels: &labels,
            root_namespace: &self.mesh.root_namespace,
            sidecar: None,
        };
        self.find_seen(client, host)
    }

    /// The service of that host as a client sees it.
    fn find_seen(&self, client: Client<'_>, host: &Hostname) -> Option<&Arc<Service>> {
        let namespace = client.namespace;
        self.services
            .range_from(&(host.clone(), Text::from("")))
            .take_while(|((found, _), _)| found == host)
            .map(|(_, service)| service)
            .filter(|service| {
                service.export_to.includes(namespace)
                    && client.sidecar.is_none_or(|sidecar| sidecar.sees(service))
            })
            .min_by_key(|service| {
                (
                    *service.namespace != *namespace,
                    &*service.origin.object.kind != "Service",
                    service.age,
                )
            })
    }

    /// The location of a workload, where it is known.
    pub fn locality(&self, namespace: &str, name: &str) -> Option<&Locality> {
        self.workloads
            .get(&(Text::from(namespace), Text::from(name)))
            .map(|workload| &workload.locality)
    }
}
