//! All sources together: every document read, references between objects resolved, one list per kind.
//!
//! Third step of walk two. A bad object is left out and reported; the rest goes on. The result does not depend on the
//! order of the sources, except that of two differing documents for one object the first is used (and the second
//! reported). Lists are sorted by age, then name, then namespace: Istio's order of precedence; objects without a
//! `creationTimestamp` are all equally young.

mod collect;
mod delegate;
pub(crate) mod entries;
mod environment;
pub(crate) mod gateways;
mod mesh;
mod reader;
mod services;

use std::collections::{BTreeMap, BTreeSet};

use rajut_types::{Diagnostic, ObjectRef, Severity, Text};

use crate::{
    Index, codes,
    model::{
        AuthorizationAction, AuthorizationPolicy, ConfigMap, DEFAULT_DENY, Deployment, DestinationRule,
        Gateway, MeshConfig, Namespace, PeerAuthentication, RateLimitPolicy, RequestAuthentication,
        RunCommand, Secret, Service, ServiceAccount, Sidecar, Telemetry, VirtualService, WorkloadEntry,
    },
    parse::Source,
    read::nearest,
};
use collect::Collected;
pub use reader::Reader;

/// How to read.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// The namespace of documents without one: `-n`, else `default`.
    pub default_namespace: Text,
    /// `--run NAME=COMMAND`: what to start for a workload, by `name`, `name.namespace` or `namespace/name`.
    pub run: BTreeMap<Text, Text>,
    /// What the mesh's settings are where nothing is written.
    pub base: MeshConfig,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            default_namespace: "default".into(),
            run: BTreeMap::new(),
            base: MeshConfig::default(),
        }
    }
}

/// What the API readers need to know of the whole.
#[derive(Debug, Clone)]
pub(crate) struct Defaults {
    pub(crate) mesh: MeshConfig,
}

/// How many documents there were.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    /// All; the sum of the others.
    pub documents: usize,
    /// Read and part of the result.
    pub used: usize,
    /// Somebody else's: other kinds, templates, patches.
    pub foreign: usize,
    /// With an error: left out, or, in a report, naming what is not there.
    pub wrong: usize,
}

/// What the sources say, validated. Every list is sorted.
#[derive(Debug, Clone, Default)]
pub struct Loaded {
    /// Those written down; a namespace need not be.
    pub namespaces: Vec<Namespace>,
    /// Of Kubernetes, Istio and Compose.
    pub services: Vec<Service>,
    /// Of Kubernetes and Compose, and local workloads; environments and run commands resolved.
    pub deployments: Vec<Deployment>,
    /// With hosts; delegates are inlined.
    pub virtual_services: Vec<VirtualService>,
    /// As written.
    pub destination_rules: Vec<DestinationRule>,
    /// As written.
    pub peer_authentications: Vec<PeerAuthentication>,
    /// As written.
    pub authorization_policies: Vec<AuthorizationPolicy>,
    /// As written.
    pub rate_limit_policies: Vec<RateLimitPolicy>,
    /// As written.
    pub request_authentications: Vec<RequestAuthentication>,
    /// As written.
    pub telemetries: Vec<Telemetry>,
    /// As written.
    pub gateways: Vec<Gateway>,
    /// As far as gateways use them.
    pub secrets: Vec<Secret>,
    /// As written.
    pub sidecars: Vec<Sidecar>,
    /// As written; they stand among the endpoints of the services that select them, too.
    pub workload_entries: Vec<WorkloadEntry>,
    /// The base with what is written laid over it.
    pub mesh: MeshConfig,
    /// As written.
    pub service_accounts: Vec<ServiceAccount>,
    /// As written.
    pub config_maps: Vec<ConfigMap>,
    /// What was found while reading; relations are judged by [`check`](crate::check).
    pub diagnostics: Vec<Diagnostic>,
    /// How many documents.
    pub counts: Counts,
    /// From origins back to the text.
    pub index: Index,
    /// Objects that were left out: what refers to them is not reported a second time.
    pub(crate) broken: BTreeSet<ObjectRef>,
    /// Of those, what could be read: their relations are judged, and nothing else is made of them.
    pub(crate) partial: Partial,
    /// Objects that were read, with an error in what they say of others.
    pub(crate) unrelated: BTreeSet<ObjectRef>,
}

/// Objects with errors, as far as they could be read.
#[derive(Debug, Clone, Default)]
pub(crate) struct Partial {
    pub(crate) virtual_services: Vec<VirtualService>,
    pub(crate) destination_rules: Vec<DestinationRule>,
}

/// Reads all sources. Who does so again and again keeps a [`Reader`].
pub fn load(sources: &[Source], options: &LoadOptions) -> Loaded {
    read(sources, options, &mut Reader::default())
}

fn read(sources: &[Source], options: &LoadOptions, reader: &mut Reader) -> Loaded {
    let mut collected = Collected::read(sources, options, reader);
    let overlays = std::mem::take(&mut collected.overlays);
    let (virtual_services, mut findings) = delegate::inline(&collected);
    let mut deployments = environment::resolve(&mut collected, overlays, &mut findings);
    run_commands(&mut deployments, options, &mut findings);
    let mut loaded = Loaded {
        namespaces: collected.namespaces,
        services: collected.services,
        deployments,
        virtual_services,
        destination_rules: collected.destination_rules,
        peer_authentications: collected.peer_authentications,
        authorization_policies: collected.authorization_policies,
        rate_limit_policies: collected.rate_limit_policies,
        request_authentications: collected.request_authentications,
        telemetries: collected.telemetries,
        gateways: collected.gateways,
        secrets: collected.secrets,
        sidecars: collected.sidecars,
        workload_entries: collected.workload_entries,
        mesh: collected.mesh,
        service_accounts: collected.service_accounts,
        config_maps: collected.config_maps,
        diagnostics: collected.diagnostics,
        counts: collected.counts,
        index: collected.index,
        broken: collected.broken,
        partial: collected.partial,
        unrelated: findings
            .iter()
            .filter(|found| found.severity == Severity::Error && &*found.origin.object.kind != "--run")
            .map(|found| found.origin.object.clone())
            .collect(),
    };
    loaded.services = services::join(loaded.services, &loaded.index, &mut findings);
    loaded.diagnostics.extend(findings);
    external_names(&mut loaded.services);
    gateways::add_workloads(&mut loaded);
    default_deny(&mut loaded);
    sort(&mut loaded);
    entries::add_endpoints(&mut loaded);
    loaded
}

/// Commands given on the command line win over those in files.
fn run_commands(deployments: &mut [Deployment], options: &LoadOptions, findings: &mut Vec<Diagnostic>) {
    for (name, command) in &options.run {
        let mut hit = false;
        for deployment in deployments.iter_mut() {
            let named = *name == deployment.name
                || **name == *format!("{}.{}", deployment.name, deployment.namespace)
                || **name == *format!("{}/{}", deployment.namespace, deployment.name);
            if named {
                deployment.run = Some(RunCommand::Shell(command.clone()));
                hit = true;
            }
        }
        if !hit {
            let origin = rajut_types::Origin::new("command line", ObjectRef::new("--run", "", name.clone()));
            let hint = match nearest(name, deployments.iter().map(|d| &*d.name)) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "add a Deployment or a LocalWorkload of that name".to_owned(),
            };
            let message = format!("there is no workload `{name}` to run");
            findings.push(Diagnostic::new(codes::NO_DEPLOYMENT, Severity::Error, origin, message).hint(hint));
        }
    }
}

/// A namespace that refuses whoever no policy lets through has a policy of action `ALLOW` without rules. Its name is one that nobody
/// can write.
fn default_deny(loaded: &mut Loaded) {
    let namespaces = loaded.namespaces.iter().filter(|it| it.default_deny);
    let policies = namespaces.map(|namespace| AuthorizationPolicy {
        name: "(default-deny)".into(),
        namespace: namespace.name.clone(),
        selector: None,
        action: AuthorizationAction::Allow,
        provider: None,
        dry_run: false,
        closes_open: false,
        rules: Vec::new(),
        origin: namespace.origin.at(
            format!("metadata.annotations[{DEFAULT_DENY}]"),
            namespace.origin.line,
        ),
        age: u64::MAX,
    });
    loaded.authorization_policies.extend(policies);
}

/// A service of type `ExternalName` that stands for a service of the mesh and has no ports is an alias of it.
fn external_names(services: &mut Vec<Service>) {
    let (aliases, mut rest): (Vec<Service>, Vec<Service>) = std::mem::take(services)
        .into_iter()
        .partition(|s| s.external && s.ports.is_empty() && s.endpoints.len() == 1);
    for alias in aliases {
        let target = alias
            .endpoints
            .first()
            .map(|e| e.address.clone())
            .unwrap_or_default();
        if let Some(service) = rest.iter_mut().find(|s| s.host.as_str() == &*target) {
            service.aliases.push(alias.host);
            service.aliases.sort();
        } else {
            rest.push(alias);
        }
    }
    *services = rest;
}

fn sort(loaded: &mut Loaded) {
    loaded.namespaces.sort_by(|a, b| a.name.cmp(&b.name));
    loaded
        .service_accounts
        .sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    loaded
        .config_maps
        .sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    loaded
        .deployments
        .sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    loaded.services.sort_by(|a, b| {
        (a.age, &a.name, &a.namespace, &a.host).cmp(&(b.age, &b.name, &b.namespace, &b.host))
    });
    loaded
        .virtual_services
        .sort_by(|a, b| (a.age, &a.name, &a.namespace).cmp(&(b.age, &b.name, &b.namespace)));
    loaded
        .destination_rules
        .sort_by(|a, b| (a.age, &a.name, &a.namespace).cmp(&(b.age, &b.name, &b.namespace)));
    loaded
        .peer_authentications
        .sort_by(|a, b| (a.age, &a.name, &a.namespace).cmp(&(b.age, &b.name, &b.namespace)));
    loaded
        .authorization_policies
        .sort_by(|a, b| (a.age, &a.name, &a.namespace).cmp(&(b.age, &b.name, &b.namespace)));
    loaded
        .rate_limit_policies
        .sort_by(|a, b| (a.age, &a.name, &a.namespace).cmp(&(b.age, &b.name, &b.namespace)));
    loaded
        .request_authentications
        .sort_by(|a, b| (a.age, &a.name, &a.namespace).cmp(&(b.age, &b.name, &b.namespace)));
    loaded
        .gateways
        .sort_by(|a, b| (a.age, &a.name, &a.namespace).cmp(&(b.age, &b.name, &b.namespace)));
    loaded
        .sidecars
        .sort_by(|a, b| (a.age, &a.name, &a.namespace).cmp(&(b.age, &b.name, &b.namespace)));
    loaded
        .workload_entries
        .sort_by(|a, b| (a.age, &a.name, &a.namespace).cmp(&(b.age, &b.name, &b.namespace)));
    loaded
        .secrets
        .sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    loaded
        .telemetries
        .sort_by(|a, b| (a.age, &a.name, &a.namespace).cmp(&(b.age, &b.name, &b.namespace)));
}

#[cfg(test)]
mod tests;
