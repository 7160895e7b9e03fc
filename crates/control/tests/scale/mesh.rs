//! A mesh by its shape, the discovery that serves it, and the proxies that are connected.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    net::IpAddr,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use bytes::Bytes;
use rajut_config::{
    LoadOptions, Snapshot, Source, load,
    model::{Workload, WorkloadHealth},
    snapshot::Configuration,
};
use rajut_control::discovery::Discovery;
use rajut_ir::wire;
use rajut_runtime::{Clock, readiness::Readiness};
use rajut_translate::{Translator, translate};
use rajut_types::{Locality, Severity, Text};
use rajut_xds::{Protocol, type_url};
use tokio::sync::watch;

use crate::{
    Cost,
    proxy::{Form, Proxy},
};

/// Services of one namespace.
const PER_NAMESPACE: usize = 20;

pub(crate) fn namespace(service: usize) -> String {
    format!("team-{:02}", service / PER_NAMESPACE)
}

pub(crate) fn cluster(service: usize) -> Text {
    format!(
        "outbound|8080||svc-{service:03}.{}.svc.cluster.local",
        namespace(service)
    )
    .into()
}

/// Everything that is configured and that runs. Every seventh service (from the fifth) is headless and opaque, every seventh (from
/// the sixth) opaque.
#[derive(Debug, Clone)]
pub(crate) struct Shape {
    services: usize,
    instances: usize,
    pub(crate) health: BTreeMap<(usize, usize), WorkloadHealth>,
    pub(crate) gone: BTreeSet<(usize, usize)>,
    pub(crate) removed: BTreeSet<usize>,
    /// Services with a destination rule: connections at most.
    pub(crate) limits: BTreeMap<usize, u32>,
    pub(crate) subsets: BTreeSet<usize>,
    /// Virtual services: host → where it sends to.
    pub(crate) routes: BTreeMap<usize, usize>,
    pub(crate) strict: BTreeSet<usize>,
    /// Whether unknown destinations are let through.
    pub(crate) outside: bool,
}

impl Shape {
    pub(crate) fn new(services: usize, instances: usize) -> Self {
        Self {
            services,
            instances,
            health: BTreeMap::new(),
            gone: BTreeSet::new(),
            removed: BTreeSet::new(),
            limits: BTreeMap::new(),
            subsets: BTreeSet::new(),
            routes: BTreeMap::new(),
            strict: BTreeSet::new(),
            outside: true,
        }
    }

    fn configuration(&self) -> Configuration {
        let mut text = String::new();
        for service in (0..self.services).filter(|service| !self.removed.contains(service)) {
            self.write_service(service, &mut text);
        }
        for (service, limit) in &self.limits {
            self.write_rule(*service, *limit, &mut text);
        }
        for (service, to) in &self.routes {
            Self::write_routes(*service, *to, &mut text);
        }
        for service in &self.strict {
            let namespace = namespace(*service);
            writeln!(
                text,
                "---\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: svc-{service:03}, namespace: \
                 {namespace}}}\nspec:\n  selector: {{matchLabels: {{app: svc-{service:03}}}}}\n  mtls: {{mode: STRICT}}"
            )
            .expect("a string");
        }
        let loaded = load(
            &[Source::new("mesh.yaml", text.as_bytes())],
            &LoadOptions::default(),
        );
        let errors = loaded
            .diagnostics
            .iter()
            .filter(|found| found.severity == Severity::Error);
        assert_eq!(errors.count(), 0, "{:?}", loaded.diagnostics);
        let mut configuration = Configuration::of(&loaded);
        configuration.mesh.outbound_policy = if self.outside {
            rajut_config::model::OutboundPolicy::AllowAny
        } else {
            rajut_config::model::OutboundPolicy::RegistryOnly
        };
        for service in configuration
            .services
            .iter_mut()
            .filter(|service| !service.headless)
        {
            // As the registry does: an address that follows from the name.
            let number: u8 = service.name[4..].parse().expect("a small number");
            service.addresses = vec![IpAddr::from([240, 240, 0, number])];
        }
        configuration
    }

    fn write_service(&self, service: usize, text: &mut String) {
        let (headless, port) = match service % 7 {
            4 if self.services < 20 => ("clusterIP: None, ", "tcp"),
            5 if self.services < 20 => ("", "tcp"),
            _ => ("", "http"),
        };
        writeln!(
            text,
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: svc-{service:03}, namespace: {}}}\nspec: {{{headless}selector: {{app: \
             svc-{service:03}}}, ports: [{{name: {port}, port: 8080}}]}}",
            namespace(service)
        )
        .expect("a string");
    }

    fn write_rule(&self, service: usize, limit: u32, text: &mut String) {
        let subsets = if self.subsets.contains(&service) {
            "\n  subsets: [{name: v1, labels: {version: v1}}]"
        } else {
            ""
        };
        writeln!(
            text,
            "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: svc-{service:03}, namespace: \
             {namespace}}}\nspec:\n  host: svc-{service:03}.{namespace}.svc.cluster.local\n  trafficPolicy: {{connectionPool: {{tcp: \
             {{maxConnections: {limit}}}}}}}{subsets}",
            namespace = namespace(service)
        )
        .expect("a string");
    }

    fn write_routes(service: usize, to: usize, text: &mut String) {
        writeln!(
            text,
            "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: svc-{service:03}, namespace: {}}}\nspec:\n  \
             hosts: [svc-{service:03}.{}.svc.cluster.local]\n  http: [{{route: [{{destination: {{host: \
             svc-{to:03}.{}.svc.cluster.local}}}}]}}]",
            namespace(service),
            namespace(service),
            namespace(to)
        )
        .expect("a string");
    }

    fn workloads(&self) -> impl Iterator<Item = Workload> {
        let all = (0..self.services)
            .flat_map(|service| (0..self.instances).map(move |instance| (service, instance)));
        all.filter(|key| !self.gone.contains(key))
            .map(|(service, instance)| {
                let app = format!("svc-{service:03}");
                let version = if instance == 0 { "v1" } else { "v2" };
                Workload {
                    name: format!("{app}-{instance}").into(),
                    deployment: app.as_str().into(),
                    namespace: namespace(service).into(),
                    labels: [("app", app.as_str()), ("version", version)]
                        .into_iter()
                        .collect(),
                    service_account: app.as_str().into(),
                    address: IpAddr::from([
                        10,
                        0,
                        u8::try_from(service).expect("small"),
                        u8::try_from(instance).expect("small"),
                    ]),
                    named_ports: BTreeMap::new(),
                    reached_ports: BTreeMap::new(),
                    gateway: None,
                    mesh: true,
                    locality: Locality::default(),
                    weight: 1,
                    health: self
                        .health
                        .get(&(service, instance))
                        .copied()
                        .unwrap_or(WorkloadHealth::Ready),
                }
            })
    }
}

pub(crate) struct Mesh {
    pub(crate) shape: Shape,
    /// What the newest snapshot was made of.
    published: Shape,
    snapshots: watch::Sender<Arc<Snapshot>>,
    pub(crate) discovery: Discovery,
    pub(crate) proxies: Vec<Proxy>,
}

impl Mesh {
    pub(crate) fn start(shape: Shape) -> Self {
        let snapshot = Snapshot::build(shape.configuration(), shape.workloads(), &Snapshot::default());
        let (snapshots, newest) = watch::channel(Arc::new(snapshot));
        let discovery = Discovery::new(Clock::system());
        discovery.spawn_push(newest, Readiness::default());
        Self {
            published: shape.clone(),
            shape,
            snapshots,
            discovery,
            proxies: Vec::new(),
        }
    }

    /// A proxy beside the first instance of a service, with its first answers taken.
    pub(crate) async fn connect(&mut self, service: usize, form: Form, protocol: Protocol) {
        let mut proxy = Proxy::connect(&self.discovery, service, &form, protocol);
        proxy.known().await;
        proxy.pump();
        self.proxies.push(proxy);
    }

    /// Makes the shape known, as the registry would: workloads alone where nothing else changed.
    pub(crate) fn publish(&mut self) {
        let current = self.snapshots.borrow().clone();
        let (new, old) = (self.shape.configuration(), self.published.configuration());
        let workloads: Vec<Workload> = self.shape.workloads().collect();
        let key = |workload: &Workload| (workload.namespace.clone(), workload.name.clone());
        let named: BTreeSet<(Text, Text)> = workloads.iter().map(key).collect();
        let gone = current
            .workloads
            .keys()
            .filter(|key| !named.contains(*key))
            .cloned();
        let mut next = current.with_workloads(workloads, gone.collect::<Vec<_>>());
        let same = new.mesh == old.mesh
            && new.services == old.services
            && new.virtual_services == old.virtual_services
            && new.destination_rules == old.destination_rules
            && new.peer_authentications == old.peer_authentications;
        if !same {
            next = next.with_configuration(new);
        }
        self.published = self.shape.clone();
        self.snapshots.send_replace(Arc::new(next));
    }

    /// The same, and everybody takes and answers what follows.
    pub(crate) async fn push(&mut self) {
        self.publish();
        let generation = self.snapshots.borrow().generation;
        let pushed = self.discovery.reached(generation);
        tokio::time::timeout(Duration::from_mins(1), pushed)
            .await
            .expect("in time");
        self.pump();
    }

    pub(crate) fn pump(&mut self) {
        for proxy in &mut self.proxies {
            proxy.pump();
        }
    }

    pub(crate) fn counters(&self) -> (BTreeMap<&'static str, u64>, Vec<usize>) {
        let work = self.discovery.work();
        let sent = self.discovery.totals();
        let sum = |pick: fn(&rajut_control::discovery::Totals) -> u64| sent.values().map(pick).sum();
        let counters = [
            ("generated", work.generated.load(Relaxed)),
            ("encoded", work.encoded.load(Relaxed)),
            ("encoded bytes", work.encoded_bytes.load(Relaxed)),
            ("woken", work.woken.load(Relaxed)),
            ("resources", sum(|sent| sent.resources)),
            ("bytes", sum(|sent| sent.bytes)),
            ("pushes", sum(|sent| sent.pushes)),
        ];
        (
            counters.into(),
            self.proxies.iter().map(|proxy| proxy.updates).collect(),
        )
    }

    pub(crate) fn cost_since(&self, (before, wakes): (BTreeMap<&'static str, u64>, Vec<usize>)) -> Cost {
        let (now, wakes_now) = self.counters();
        let cost = now
            .into_iter()
            .map(|(name, count)| (name, count - before[name]))
            .collect();
        let woken = wakes
            .iter()
            .zip(&wakes_now)
            .enumerate()
            .filter(|(_, (before, now))| before != now);
        (cost, woken.map(|(proxy, _)| proxy).collect())
    }

    /// What a proxy must hold: a translation from nothing, as far as it subscribes to it.
    pub(crate) fn expected(&self, proxy: &Proxy) -> BTreeMap<(Text, Text), Bytes> {
        let snapshot = self.snapshots.borrow().clone();
        let known = self.discovery.proxies();
        let known = known
            .iter()
            .find(|known| known.proxy.id == proxy.id)
            .expect("connected");
        // Not the newest snapshot's descendant: made of the same shape, from nothing.
        let fresh = Snapshot::build(
            self.published.configuration(),
            self.published.workloads(),
            &Snapshot::default(),
        );
        assert_eq!(fresh.services, snapshot.services);
        let (resources, _) = translate(&fresh, &known.proxy, &mut Translator::default());
        let clusters = resources.clusters.values().map(|one| wire::encode_cluster(one));
        let assignments = resources
            .assignments
            .values()
            .map(|one| wire::encode_load_assignment(one));
        let listeners = resources.listeners.values().map(|one| wire::encode_listener(one));
        let routes = resources.routes.values().map(|one| {
            // In the order in which the parts that tables share are sent.
            let mut whole = wire::encode_route_head(one);
            let hosts = one
                .virtual_hosts
                .iter()
                .map(|host| wire::encode_virtual_host(host));
            whole.value = std::iter::once(whole.value)
                .chain(hosts)
                .collect::<Vec<Bytes>>()
                .concat()
                .into();
            whole
        });
        let names = resources.names.iter().map(|one| {
            let parts: Vec<Bytes> = one.parts().iter().map(|part| wire::encode_names(part)).collect();
            let mut whole = wire::encode_name_table(&rajut_ir::NameTable::default());
            whole.value = parts.concat().into();
            whole
        });
        clusters
            .chain(assignments)
            .chain(listeners)
            .chain(routes)
            .chain(names)
            .map(|one| ((Text::from(one.type_url), one.name), one.value))
            .filter(|((url, name), _)| proxy.wants(url, name))
            .collect()
    }
}

/// The types that are subscribed to as a whole.
pub(crate) const WHOLE: [&str; 3] = [type_url::CLUSTER, type_url::LISTENER, type_url::NAME_TABLE];
