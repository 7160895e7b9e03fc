//! Virtual hosts of outbound route configurations. [`VirtualHostView`] is the key and the whole input: which service,
//! which virtual service, and which services that one sends to.

use std::sync::Arc;

use rajut_config::{
    model::{DestinationRule, HttpMatch, HttpRoute, MeshConfig, Service, VirtualService},
    snapshot::{ClientView, ServiceView, Shared},
};
use rajut_ir::route::{DirectResponse, HeaderMutations, Route, RouteActionKind, Target, VirtualHost};
use rajut_types::{Hostname, Labels, Origin, Text};

use crate::{
    names,
    route::{self, Destinations, RouteContext},
};

/// Everything that one virtual host is made from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct VirtualHostView {
    mesh: Shared<MeshConfig>,
    service: Option<Shared<Service>>,
    rule: Option<Shared<DestinationRule>>,
    virtual_service: Option<Shared<VirtualService>>,
    host: Hostname,
    port: u16,
    client_namespace: Text,
    client_labels: Labels,
    destinations: Destinations,
    domains: Domains,
}

/// Which hosts a virtual host answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Domains {
    /// The names of its service.
    Names,
    /// Any: the dialled address has told the service already.
    Any,
    /// Any, and the host is rewritten to the service's: a local port that stands for this service alone.
    AnyRewritten,
    /// The names of its service with the port, exactly as a proxyless client dials them; no default retries.
    Dialled,
}

impl VirtualHostView {
    /// The virtual host of a service's port.
    pub(crate) fn of_service(client: &ClientView, view: &ServiceView, port: u16, domains: Domains) -> Self {
        Self {
            mesh: client.mesh.clone(),
            service: Some(view.service.clone()),
            rule: view.rule.clone(),
            virtual_service: view.virtual_service.clone(),
            host: view.service.host.clone(),
            port,
            client_namespace: namespace_that_matters(client, view),
            client_labels: if asks(view, |alternative| !alternative.source_labels.is_empty()) {
                client.labels.clone()
            } else {
                Labels::default()
            },
            destinations: destinations(client, view.virtual_service.as_deref()),
            domains,
        }
    }

    /// The virtual host of a host that only a virtual service names.
    pub(crate) fn unserved(
        client: &ClientView,
        host: &Hostname,
        vs: &Shared<VirtualService>,
        port: u16,
    ) -> Self {
        Self {
            mesh: client.mesh.clone(),
            service: None,
            rule: None,
            virtual_service: Some(vs.clone()),
            host: host.clone(),
            port,
            client_namespace: client.namespace.clone(),
            client_labels: client.labels.clone(),
            destinations: destinations(client, Some(vs)),
            domains: Domains::Names,
        }
    }
}

/// The client's namespace, or nothing where all other namespaces see the same: a Kubernetes service looks alike from everywhere
/// but its own namespace, unless its virtual service asks where a request comes from.
fn namespace_that_matters(client: &ClientView, view: &ServiceView) -> Text {
    let service = &view.service;
    let alike = service.aliases.is_empty()
        && &*service.origin.object.kind == "Service"
        && service.namespace != client.namespace
        && !asks(view, |alternative| alternative.source_namespace.is_some());
    if alike {
        Text::default()
    } else {
        client.namespace.clone()
    }
}

/// Whether some match of the virtual service asks that of the client.
fn asks(view: &ServiceView, that: impl Fn(&HttpMatch) -> bool) -> bool {
    let routes = view.virtual_service.iter().flat_map(|vs| &vs.http);
    routes.flat_map(|route| &route.matches).any(that)
}

fn destinations(client: &ClientView, vs: Option<&VirtualService>) -> Destinations {
    let routes = vs.into_iter().flat_map(|vs| &vs.http);
    routes
        .flat_map(HttpRoute::destinations)
        .filter_map(|to| {
            let view = client.find(&to.host)?;
            let found = (view.service.clone(), view.rule.clone());
            Some((to.host.clone(), found))
        })
        .collect()
}

/// The virtual host of a view. Its domains may still clash with those of others: see [`without_clashes`].
pub(crate) fn build(view: &VirtualHostView) -> VirtualHost {
    let name = names::host_port(&view.host, view.port);
    let context = RouteContext {
        mesh: &view.mesh,
        port: view.port,
        seen_port: view.port,
        gateways: &[names::MESH.into()],
        client_namespace: &view.client_namespace,
        client_labels: &view.client_labels,
        destinations: &view.destinations,
        host: (view.domains == Domains::AnyRewritten).then_some(&name),
        default_retries: view.domains != Domains::Dialled,
    };
    let rules = view.virtual_service.as_ref().filter(|vs| !vs.http.is_empty());
    let service_origin = view.service.as_ref().map(|service| &service.origin);
    let (routes, origin) = match (rules, &view.service) {
        (Some(vs), _) => (route::of_virtual_service(vs, context), vs.origin.clone()),
        (None, Some(service)) => {
            let default = route::default(service, view.rule.as_deref(), &service.origin, context);
            (vec![default], service.origin.clone())
        }
        (None, None) => (Vec::new(), Origin::built_in("virtual-host")),
    };
    VirtualHost {
        filters: Vec::new(),
        rate_limits: Vec::new(),
        domains: domains(view),
        name: name.clone(),
        routes,
        retry_policy: None,
        headers: HeaderMutations::default(),
        include_request_attempt_count: true,
        origin: service_origin
            .cloned()
            .filter(|_| rules.is_none())
            .unwrap_or(origin),
    }
}

fn domains(view: &VirtualHostView) -> Vec<Text> {
    if matches!(view.domains, Domains::Any | Domains::AnyRewritten) {
        return vec!["*".into()];
    }
    let Some(service) = &view.service else {
        return vec![view.host.text()];
    };
    let mut domains: Vec<Text> = Vec::new();
    for host in std::iter::once(&service.host).chain(&service.aliases) {
        let bare = !host.as_str().contains('.');
        if bare && service.namespace != view.client_namespace {
            continue;
        }
        let forms = names::forms_of(host, &view.client_namespace, &view.mesh.domain);
        if !host.is_wildcard() {
            domains.push(format!("{host}.").into());
        }
        // Pods of a headless service are called by their own names below the service's.
        if service.headless && !host.is_wildcard() && !bare {
            domains.extend(forms.iter().map(|form| Text::from(format!("*.{form}"))));
        }
        domains.extend(forms);
    }
    domains.extend(
        service
            .addresses
            .iter()
            .map(|address| names::host_literal(*address)),
    );
    if view.domains == Domains::Dialled {
        domains.retain(|domain| !domain.ends_with('.') && !domain.starts_with('*'));
        for domain in &mut domains {
            *domain = format!("{domain}:{}", view.port).into();
        }
    }
    domains
}

/// Drops domains that an earlier virtual host of the list claims (Envoy refuses a table with one twice), and virtual
/// hosts that have none left. Full host names are claimed before shorter forms.
pub(crate) fn without_clashes(hosts: Vec<Arc<VirtualHost>>) -> Vec<Arc<VirtualHost>> {
    let mut owner = std::collections::HashMap::new();
    for full_names in [true, false] {
        for (position, host) in hosts.iter().enumerate() {
            let full_name = host.name.rsplit_once(':').map(|(name, _)| name);
            for domain in &host.domains {
                if (full_name == Some(&**domain)) == full_names {
                    owner.entry(domain.clone()).or_insert(position);
                }
            }
        }
    }
    hosts
        .into_iter()
        .enumerate()
        .filter_map(|(position, host)| {
            let mut seen = std::collections::HashSet::new();
            let own = |domain: &&Text| owner.get(*domain) == Some(&position);
            let kept: Vec<Text> = host
                .domains
                .iter()
                .filter(own)
                .filter(|domain| seen.insert((*domain).clone()))
                .cloned()
                .collect();
            if kept.is_empty() {
                return None;
            }
            if kept.len() == host.domains.len() {
                return Some(host);
            }
            Some(Arc::new(VirtualHost {
                domains: kept,
                ..(*host).clone()
            }))
        })
        .collect()
}

/// The virtual host of hosts that nobody knows: passed through, or answered 502.
pub(crate) fn unknown_hosts(mesh: &MeshConfig) -> VirtualHost {
    let allowed = mesh.outbound_policy == rajut_config::model::OutboundPolicy::AllowAny;
    let (name, action) = if allowed {
        let forward = route::forward(Target::Cluster(names::PASSTHROUGH.into()), None, None);
        ("allow_any", RouteActionKind::Forward(Box::new(forward)))
    } else {
        let refusal = DirectResponse {
            status: 502,
            body: Vec::new().into(),
        };
        ("block_all", RouteActionKind::DirectResponse(refusal))
    };
    let origin = Origin::built_in("outbound-traffic-policy");
    VirtualHost {
        filters: Vec::new(),
        rate_limits: Vec::new(),
        name: name.into(),
        domains: vec!["*".into()],
        routes: vec![Arc::new(Route {
            filters: Vec::new(),
            name: name.into(),
            matches: route::everything(),
            action,
            headers: HeaderMutations::default(),
            decorator: Text::default(),
            origin: origin.clone(),
        })],
        retry_policy: None,
        headers: HeaderMutations::default(),
        include_request_attempt_count: true,
        origin,
    }
}
