//! Endpoints of outbound clusters: workloads behind a service's port, in one subset.
//!
//! [`AssignmentView`] is the key and the whole input; one endpoint's change touches the assignments of its own services
//! alone. Subsets are filtered here, so no proxy needs subset balancing.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use rajut_config::{
    model::{
        MtlsMode, Service, ServicePort, StaticEndpoint, SubsetRule, TargetPort, Workload, WorkloadHealth,
    },
    model::{canonical_revision, canonical_service},
    snapshot::{Member, Members, ServiceView, Shared},
};
use rajut_ir::endpoint::{Endpoint, EndpointAddress, Health, LoadAssignment};
use rajut_types::{Labels, Locality, Text};

use crate::{cluster::TLS_MODE, names, preference::Preference};

/// Endpoints by distance and locality.
type Places = BTreeMap<(u32, Locality), Vec<Endpoint>>;

/// The label of pods (and of endpoints given in place) that speak the mesh's mTLS.
const TLS_MODE_LABEL: &str = "security.istio.io/tlsMode";

/// Everything that one assignment is made from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct AssignmentView {
    service: Shared<Service>,
    members: Shared<Members>,
    port: u16,
    /// The subset's name and labels.
    subset: Option<(Text, Labels)>,
    /// What the client's place means.
    preference: Preference,
}

impl AssignmentView {
    pub(crate) fn new(
        view: &ServiceView,
        port: u16,
        subset: Option<&SubsetRule>,
        preference: Preference,
    ) -> Self {
        Self {
            service: view.service.clone(),
            members: view.members.clone(),
            port,
            subset: subset.map(|subset| (subset.name.clone(), subset.labels.clone())),
            preference,
        }
    }

    fn selects(&self, labels: &Labels, place: &Locality) -> bool {
        self.subset
            .as_ref()
            .is_none_or(|(_, wanted)| selects(wanted, labels, place))
    }
}

/// Whether a subset takes an endpoint: by its labels and, as in Istio, by where it stands.
fn selects(wanted: &Labels, labels: &Labels, place: &Locality) -> bool {
    wanted
        .iter()
        .all(|(key, value)| place.label(labels, key) == Some(value))
}

/// The assignment of a view; a service without endpoints has an empty one, so that its cluster gets ready.
pub(crate) fn outbound(view: &AssignmentView) -> LoadAssignment {
    let subset = view.subset.as_ref().map_or("", |(name, _)| name);
    let mut places: Places = BTreeMap::new();
    let mut add = |place: &Locality, labels: &Labels, endpoint: Endpoint| {
        let distance = view.preference.distance(place, labels);
        places
            .entry((distance, place.clone()))
            .or_default()
            .push(endpoint);
    };
    if let Some(port) = view.service.port(view.port) {
        for member in &view.members.list {
            let Workload { labels, locality, .. } = &*member.workload;
            if view.selects(labels, locality)
                && let Some(endpoint) = of_workload(member, port)
            {
                add(locality, labels, endpoint);
            }
        }
        for given in &view.service.endpoints {
            if view.selects(&given.labels, &given.locality)
                && let Some(endpoint) = of_static(given, port)
                && !matches!(endpoint.address, EndpointAddress::Dns { .. })
            {
                add(&given.locality, &given.labels, endpoint);
            }
        }
    }
    LoadAssignment {
        cluster_name: names::outbound_cluster(view.port, subset, &view.service.host),
        localities: view.preference.localities(places),
        overprovisioning_percent: None,
    }
}

/// The container port behind a service port on a workload; `None` where it has no port of that name.
pub(crate) fn target_port(port: &ServicePort, named_ports: &BTreeMap<Text, u16>) -> Option<u16> {
    match &port.target {
        TargetPort::Number(number) => Some(*number),
        TargetPort::Name(name) => named_ports.get(name).copied(),
    }
}

fn of_workload(member: &Member, port: &ServicePort) -> Option<Endpoint> {
    let workload = &*member.workload;
    let target = target_port(port, &workload.named_ports)?;
    let speaks_mtls = workload.mesh && member.mtls.mode(target) != MtlsMode::Disable;
    Some(Endpoint {
        address: EndpointAddress::Socket(workload.reached(target)),
        health: match workload.health {
            WorkloadHealth::Ready => Health::Healthy,
            WorkloadHealth::NotReady => Health::Unhealthy,
            WorkloadHealth::Terminating => Health::Draining,
        },
        weight: workload.weight.max(1),
        hostname: Text::default(),
        tls_labels: tls_labels(speaks_mtls),
        workload: describe(workload),
        lb_labels: Labels::default(),
    })
}

fn tls_labels(speaks_mtls: bool) -> Labels {
    speaks_mtls.then_some(TLS_MODE).into_iter().collect()
}

/// `name;namespace;canonical-name;canonical-revision;cluster`, as Istio's telemetry reads it, and `;app;version` of those
/// that have such labels, for ours.
fn describe(workload: &Workload) -> Text {
    let label = |key| workload.labels.find(key).unwrap_or_default();
    let (app, version) = (label("app"), label("version"));
    let mut described = format!(
        "{};{};{};{};",
        workload.deployment,
        workload.namespace,
        canonical_service(&workload.labels, &workload.deployment),
        canonical_revision(&workload.labels),
    );
    if !(app.is_empty() && version.is_empty()) {
        for part in [";", app, ";", version] {
            described.push_str(part);
        }
    }
    described.into()
}

/// An endpoint given in place: an address, a name, or a Unix socket.
fn of_static(given: &StaticEndpoint, port: &ServicePort) -> Option<Endpoint> {
    if !given.serves(port.number) {
        return None;
    }
    let number = given
        .ports
        .iter()
        .find(|(name, _)| *name == port.name)
        .map(|(_, number)| *number)
        .or(match port.target {
            TargetPort::Number(number) => Some(number),
            TargetPort::Name(_) => None,
        })
        .unwrap_or(port.number);
    let address = if let Some(path) = given.address.strip_prefix("unix://") {
        EndpointAddress::Pipe(path.into())
    } else if let Ok(ip) = given.address.parse::<IpAddr>() {
        EndpointAddress::Socket(SocketAddr::new(ip, number))
    } else if given.address.is_empty() {
        return None;
    } else {
        EndpointAddress::Dns {
            host: given.address.clone(),
            port: number,
        }
    };
    Some(Endpoint {
        address,
        health: Health::Healthy,
        weight: given.weight.max(1),
        hostname: Text::default(),
        // As Istio takes it: what has an identity speaks the mesh's TLS, unless its label says otherwise.
        tls_labels: tls_labels(match given.labels.find(TLS_MODE_LABEL) {
            Some(mode) => mode == TLS_MODE.1,
            None => !given.service_account.is_empty(),
        }),
        workload: Text::default(),
        lb_labels: Labels::default(),
    })
}

/// The names that a `DNS` cluster looks up: its endpoints', or the service's own host.
pub(crate) fn by_name(
    service: &Service,
    port: &ServicePort,
    subset: Option<&SubsetRule>,
    preference: &Preference,
    cluster_name: &Text,
) -> LoadAssignment {
    let mut places: Places = BTreeMap::new();
    for given in &service.endpoints {
        let place = &given.locality;
        if subset.is_none_or(|subset| selects(&subset.labels, &given.labels, place))
            && let Some(endpoint) = of_static(given, port)
        {
            let distance = preference.distance(place, &given.labels);
            places
                .entry((distance, place.clone()))
                .or_default()
                .push(endpoint);
        }
    }
    let nobody = !service.endpoints.iter().any(|given| given.serves(port.number));
    if nobody && !service.host.is_wildcard() {
        let itself = StaticEndpoint {
            address: service.host.text(),
            ports: Vec::new(),
            labels: Labels::default(),
            locality: Locality::default(),
            weight: 1,
            service_account: Text::default(),
            serves: None,
        };
        places
            .entry((0, Locality::default()))
            .or_default()
            .extend(of_static(&itself, port));
    }
    LoadAssignment {
        cluster_name: cluster_name.clone(),
        localities: preference.localities(places),
        overprovisioning_percent: None,
    }
}
