//! Every document to its reader, every object into the list of its kind, once.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use rajut_types::{Diagnostic, ObjectRef, Origin, Severity, Text};

use super::{
    Counts, Defaults, LoadOptions, Partial, mesh,
    reader::{Meaning, Meanings, Reader},
};
use crate::{
    Index,
    api::{
        self, Support, authorization_policy, compose, config_map, deployment,
        deployment::RawDeployment,
        destination_rule, gateway,
        local_workload::{self, Overlay, RawLocalWorkload},
        meta, peer_authentication, rate_limit_policy, request_authentication, secret, service, service_entry,
        sidecar, telemetry, virtual_service,
        virtual_service::RawVirtualService,
        workload_entry,
    },
    codes,
    model::{
        AuthorizationPolicy, ConfigMap, DestinationRule, Gateway, MeshConfig, Namespace, PeerAuthentication,
        RateLimitPolicy, RequestAuthentication, Secret, Service, ServiceAccount, Sidecar, Telemetry,
        WorkloadEntry,
    },
    parse::{Found, Group, Node, Source, Value, kustomize_patches},
    read::{Object, Scope, nearest, shown},
};

/// What the documents say one by one.
#[derive(Debug, Default)]
pub(super) struct Collected {
    pub(super) namespaces: Vec<Namespace>,
    pub(super) services: Vec<Service>,
    pub(super) deployments: Vec<RawDeployment>,
    pub(super) overlays: Vec<Overlay>,
    pub(super) virtual_services: Vec<RawVirtualService>,
    pub(super) destination_rules: Vec<DestinationRule>,
    pub(super) peer_authentications: Vec<PeerAuthentication>,
    pub(super) authorization_policies: Vec<AuthorizationPolicy>,
    pub(super) rate_limit_policies: Vec<RateLimitPolicy>,
    pub(super) request_authentications: Vec<RequestAuthentication>,
    pub(super) telemetries: Vec<Telemetry>,
    pub(super) gateways: Vec<Gateway>,
    pub(super) secrets: Vec<Secret>,
    pub(super) sidecars: Vec<Sidecar>,
    pub(super) workload_entries: Vec<WorkloadEntry>,
    pub(super) mesh: MeshConfig,
    pub(super) service_accounts: Vec<ServiceAccount>,
    pub(super) config_maps: Vec<ConfigMap>,
    pub(super) diagnostics: Vec<Diagnostic>,
    pub(super) counts: Counts,
    pub(super) index: Index,
    pub(super) broken: BTreeSet<ObjectRef>,
    pub(super) partial: Partial,
    /// Kind, namespace, name → where it was written first, and its root.
    seen: BTreeMap<(Text, Text, Text), (Origin, Arc<Node>)>,
    default_namespace: Text,
    /// Config maps whose mesh settings are wrong.
    wrong_mesh: BTreeSet<ObjectRef>,
    /// (namespace, name) → position in `deployments`.
    by_workload: BTreeMap<(Text, Text), usize>,
    /// What documents mean; the reader's.
    meanings: Meanings,
}

impl Collected {
    pub(super) fn read(sources: &[Source], options: &LoadOptions, reader: &mut Reader) -> Self {
        let mut all = Self {
            default_namespace: options.default_namespace.clone(),
            ..Self::default()
        };
        let mut found = Vec::new();
        for source in sources {
            let mut reading = reader.source(source);
            all.counts.wrong += reading.wrong;
            all.counts.foreign += reading.foreign;
            all.diagnostics.append(&mut reading.diagnostics);
            found.append(&mut reading.found);
        }
        let patches: BTreeSet<String> = found
            .iter()
            .filter(|f| f.group == Group::Kustomization)
            .flat_map(kustomize_patches)
            .collect();
        (all.mesh, all.wrong_mesh) = mesh::find(&found, options, &mut all.diagnostics);
        let defaults = Defaults {
            mesh: all.mesh.clone(),
        };
        all.meanings = reader.lend(&all.mesh, &all.default_namespace);
        let compose = compose_folders(&found);
        // Compose files come last: their services give way to manifests of the same name.
        found.sort_by_key(|document| document.group == Group::Compose);
        for document in found {
            if patches.contains(&*document.file.name) {
                all.counts.foreign += 1;
            } else if is_compose_variant(&document, &compose) {
                all.counts.foreign += 1;
                all.note_variant(&document);
            } else {
                all.take(document, &defaults);
            }
        }
        reader.give_back(std::mem::take(&mut all.meanings));
        let Counts {
            used, foreign, wrong, ..
        } = all.counts;
        all.counts.documents = used + foreign + wrong;
        all
    }

    fn take(&mut self, document: Found, defaults: &Defaults) {
        match &document.group {
            Group::Foreign | Group::Patch => self.counts.foreign += 1,
            Group::Kustomization => {
                self.counts.foreign += 1;
                self.note_kustomization(&document);
            }
            Group::Half { message, hint } => {
                let (message, hint) = (message.clone(), hint.clone());
                self.refuse(
                    &document,
                    "",
                    codes::NOT_AN_OBJECT,
                    Severity::Error,
                    message,
                    hint,
                );
            }
            Group::Compose => self.compose(&document, defaults),
            Group::Api(_) if mesh::is_operator(&document) => self.operator(&document),
            Group::Api(api) => {
                let api = api.clone();
                self.object(document, &api, defaults);
            }
        }
    }

    /// Its settings of the mesh have been read before everything else.
    fn operator(&mut self, document: &Found) {
        let reference = meta::peek(&document.root, &document.kind, &self.default_namespace);
        if self.wrong_mesh.contains(&reference) {
            self.counts.wrong += 1;
        } else if document
            .root
            .get("spec")
            .and_then(|s| s.get("meshConfig"))
            .is_some()
        {
            self.counts.used += 1;
        } else {
            self.counts.foreign += 1;
        }
    }

    fn object(&mut self, document: Found, api: &str, defaults: &Defaults) {
        let (group, version) = api.split_once('/').unwrap_or(("", api));
        let kinds = || api::KINDS.iter().filter(|k| k.group == group);
        let Some(known) = kinds().find(|k| k.name == &*document.kind) else {
            if api::OWN_GROUPS.contains(&group) {
                let hint = match nearest(&document.kind, kinds().map(|k| k.name)) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => String::new(),
                };
                let message = format!("`{group}` has no kind `{}`", shown(&document.kind));
                self.refuse(
                    &document,
                    "kind",
                    codes::UNKNOWN_KIND,
                    Severity::Error,
                    message,
                    hint,
                );
            } else if let Some(meant) = api::KINDS.iter().find(|k| {
                k.name == &*document.kind
                    && k.support == Support::Used
                    && nearest(group, [k.group].into_iter()).is_some()
            }) {
                let message = format!("there is no group `{}`", shown(group));
                let hint = format!("write `apiVersion: {}`", meant.write);
                self.refuse(
                    &document,
                    "apiVersion",
                    codes::UNKNOWN_KIND,
                    Severity::Error,
                    message,
                    hint,
                );
            } else {
                self.counts.foreign += 1;
            }
            return;
        };
        if !known.versions.contains(&version) {
            let message = format!("`{}` has no version `{}`", known.name, shown(version));
            let hint = format!("write `apiVersion: {}`", known.write);
            self.refuse(
                &document,
                "apiVersion",
                codes::UNKNOWN_KIND,
                Severity::Error,
                message,
                hint,
            );
            return;
        }
        if let Support::Later(severity) = known.support {
            let message = match severity {
                Severity::Error => format!(
                    "{} is not supported yet, and without it more would be allowed than is meant",
                    known.name
                ),
                _ => format!("{} is not supported yet: it changes nothing here", known.name),
            };
            let hint = "take it out, or leave it for a later version";
            self.refuse(
                &document,
                "kind",
                codes::KIND_NOT_SUPPORTED,
                severity,
                message,
                hint.to_owned(),
            );
            return;
        }
        self.used(document, known.name, known.group, defaults);
    }

    /// A document of a kind that is read.
    fn used(&mut self, document: Found, kind: &'static str, group: &str, defaults: &Defaults) {
        let reference = meta::peek(&document.root, kind, &self.default_namespace);
        let snake = api::OWN_GROUPS.contains(&group);
        let Meaning {
            parsed,
            errors,
            findings,
        } = self.meanings.of(&document.root, || {
            let scope = Scope::new(&document.file, reference.clone(), snake);
            mean(scope, &document.root, kind, defaults)
        });
        self.diagnostics.extend(findings);
        let good = errors == 0 && !self.wrong_mesh.contains(&reference);
        let (parsed, partial) = if good { (parsed, None) } else { (None, parsed) };
        let Some(parsed) = parsed else {
            self.keep_partial(partial);
            self.broken.insert(reference.clone());
            self.counts.wrong += 1;
            self.index.add(document.file, reference, document.root);
            return;
        };
        // What is no text is somebody else's.
        if matches!(&parsed, Parsed::Secret(secret) if secret.texts.is_empty()) {
            self.counts.foreign += 1;
            return;
        }
        if self.duplicate(&document, kind, &reference) {
            return;
        }
        self.counts.used += 1;
        self.add(parsed);
        self.index.add(document.file, reference, document.root);
    }

    /// Rules that name others: those names can be judged though something else in the rule is wrong.
    fn keep_partial(&mut self, parsed: Option<Parsed>) {
        match parsed {
            Some(Parsed::VirtualService(raw)) => {
                let mut rule = raw.rule;
                let own = raw.http.into_iter().filter(|route| route.delegate.is_none());
                rule.http = own.map(|route| route.route).collect();
                self.partial.virtual_services.push(rule);
            }
            Some(Parsed::DestinationRule(rule)) => self.partial.destination_rules.push(*rule),
            _ => {}
        }
    }

    fn add(&mut self, parsed: Parsed) {
        match parsed {
            Parsed::Namespace(it) => self.namespaces.push(it),
            Parsed::ServiceAccount(it) => self.service_accounts.push(it),
            Parsed::ConfigMap(it) => self.config_maps.push(it),
            Parsed::Services(all) => self.services.extend(all),
            Parsed::Deployment(it) => self.add_deployment(*it),
            Parsed::Overlay(it) => self.overlays.push(*it),
            Parsed::VirtualService(it) => self.virtual_services.push(*it),
            Parsed::DestinationRule(it) => self.destination_rules.push(*it),
            Parsed::PeerAuthentication(it) => self.peer_authentications.push(it),
            Parsed::AuthorizationPolicy(it) => self.authorization_policies.push(it),
            Parsed::RateLimitPolicy(it) => self.rate_limit_policies.push(it),
            Parsed::RequestAuthentication(it) => self.request_authentications.push(it),
            Parsed::Gateway(it) => self.gateways.push(it),
            Parsed::Secret(it) => self.secrets.push(it),
            Parsed::Sidecar(it) => self.sidecars.push(it),
            Parsed::WorkloadEntry(it) => self.workload_entries.push(it),
            Parsed::WorkloadGroup => {}
            Parsed::Telemetry(it) if it.targeted => {}
            Parsed::Telemetry(it) => self.telemetries.push(it),
        }
    }

    fn add_deployment(&mut self, raw: RawDeployment) {
        let key = (raw.deployment.namespace.clone(), raw.deployment.name.clone());
        self.by_workload.insert(key, self.deployments.len());
        self.deployments.push(raw);
    }

    /// The position of the workload among `deployments`.
    pub(super) fn workload(&self, namespace: &Text, name: &Text) -> Option<usize> {
        self.by_workload.get(&(namespace.clone(), name.clone())).copied()
    }

    /// Whether the object was written before; the second one is reported and counted here.
    fn duplicate(&mut self, document: &Found, kind: &str, reference: &ObjectRef) -> bool {
        // Everything that runs shares one space of names, since the names of its copies come from it.
        let space = match kind {
            "Deployment" | "StatefulSet" | "ComposeService" => "Deployment",
            "LocalWorkload"
                if document
                    .root
                    .get("spec")
                    .and_then(|s| s.get("deploymentRef"))
                    .is_none() =>
            {
                "Deployment"
            }
            other => other,
        };
        let key = (
            Text::from(space),
            reference.namespace.clone(),
            reference.name.clone(),
        );
        let scope = Scope::new(&document.file, reference.clone(), false);
        let place = scope.root(&document.root);
        let Some((first, root)) = self.seen.get(&key) else {
            let origin = place.origin();
            self.seen.insert(key, (origin, document.root.clone()));
            return false;
        };
        let where_first = format!("{}:{}", first.source, first.line);
        if same(root, &document.root) {
            if !matches!(kind, "Namespace" | "ServiceAccount" | "ConfigMap" | "Secret") {
                place.warn(
                    codes::DUPLICATE_OBJECT,
                    format!(
                        "{reference} is written twice, with the same content; the first is at {where_first}"
                    ),
                    "take one of the two out",
                );
            }
            self.counts.used += 1;
        } else {
            place.error(
                codes::DUPLICATE_OBJECT,
                if first.object.kind == reference.kind {
                    format!("{reference} is written twice; the first is at {where_first}")
                } else {
                    format!(
                        "{reference} has the name of the {} at {where_first}: what runs shares one space of names",
                        first.object.kind
                    )
                },
                "give one of the two another name or namespace, or take it out",
            );
            self.counts.wrong += 1;
        }
        self.diagnostics.extend(scope.finish());
        true
    }

    fn compose(&mut self, document: &Found, defaults: &Defaults) {
        let reference = ObjectRef::new(
            "Compose",
            self.default_namespace.clone(),
            base_name(&document.file.name),
        );
        let scope = Scope::new(&document.file, reference.clone(), false);
        let parsed = scope
            .root(&document.root)
            .object()
            .map(|root| compose::read(&root, defaults));
        let errors = scope.errors();
        self.diagnostics.extend(scope.finish());
        if errors > 0 {
            self.counts.wrong += 1;
            self.broken.insert(reference.clone());
        } else {
            self.counts.used += 1;
        }
        self.index
            .add(document.file.clone(), reference, document.root.clone());
        // A Compose file is many objects in one: those services that are good are used.
        for (raw, service) in parsed.into_iter().flatten() {
            let (name, origin) = (raw.deployment.name.clone(), raw.deployment.origin.clone());
            let key = (
                Text::from("Deployment"),
                raw.deployment.namespace.clone(),
                name.clone(),
            );
            if let Some((first, _)) = self.seen.get(&key) {
                let place = format!("{}:{}", first.source, first.line);
                let finding = if &*first.object.kind == "Compose" {
                    let message = format!("the workload `{name}` is written twice; the first is at {place}");
                    self.index
                        .diagnostic(codes::DUPLICATE_OBJECT, Severity::Error, &origin, message)
                        .hint("give one of the two another name, or take it out")
                } else {
                    // Teams keep a Compose file beside their manifests; the manifests are what is deployed.
                    let message = format!(
                        "this service is not used: {} at {place} has its name",
                        first.object
                    );
                    self.index
                        .diagnostic(codes::COMPOSE, Severity::Note, &origin, message)
                        .hint("read the Compose file alone to use it")
                };
                self.diagnostics.push(finding);
                continue;
            }
            self.seen.insert(key, (origin, document.root.clone()));
            self.add_deployment(raw);
            if let Some(service) = service {
                self.services.push(service);
            }
        }
    }

    /// A document that is not read: counted as wrong with an error, else as not ours.
    fn refuse(
        &mut self,
        document: &Found,
        key: &'static str,
        code: rajut_types::Code,
        severity: Severity,
        message: String,
        hint: String,
    ) {
        let reference = meta::peek(&document.root, &shown(&document.kind), &self.default_namespace);
        if severity == Severity::Error {
            self.counts.wrong += 1;
            self.broken.insert(reference.clone());
        } else {
            self.counts.foreign += 1;
        }
        let scope = Scope::new(&document.file, reference, false);
        if let Some(root) = scope.root(&document.root).object() {
            root.ignore_rest();
            let field = root.get(key).unwrap_or_else(|| root.field().clone());
            field.say(severity, code, message, hint);
        }
        self.diagnostics.extend(scope.finish());
    }

    fn note_variant(&mut self, document: &Found) {
        let reference = ObjectRef::new("Compose", "", base_name(&document.file.name));
        let scope = Scope::new(&document.file, reference, false);
        scope.root(&document.root).note(
            codes::COMPOSE,
            "this file is not read: as in Compose, the folder's main file counts alone",
            "to read both together: `docker compose -f FILE -f FILE config | rajut analyze -`",
        );
        self.diagnostics.extend(scope.finish());
    }

    fn note_kustomization(&mut self, document: &Found) {
        const CHANGES: &[&str] = &[
            "patches",
            "patchesStrategicMerge",
            "patchesJson6902",
            "namePrefix",
            "nameSuffix",
            "namespace",
            "commonLabels",
            "labels",
            "configMapGenerator",
            "replicas",
            "replacements",
            "components",
            "transformers",
            "helmCharts",
        ];
        let Some(name) = CHANGES.iter().find(|name| document.root.get(name).is_some()) else {
            return;
        };
        let reference = ObjectRef::new("Kustomization", "", base_name(&document.file.name));
        let scope = Scope::new(&document.file, reference, false);
        if let Some(root) = scope.root(&document.root).object() {
            root.ignore_rest();
            if let Some(field) = root.get(name) {
                field.say_key(
                    Severity::Note,
                    codes::KUSTOMIZE,
                    format!("Kustomize's `{name}` is not applied: resources are read as they stand"),
                    "to read what will be deployed: `kustomize build DIR | rajut analyze -`",
                );
            }
        }
        self.diagnostics.extend(scope.finish());
    }
}

/// What a document of a known kind means, alone.
fn mean(scope: Scope<'_>, root: &Node, kind: &str, defaults: &Defaults) -> Meaning {
    let parsed = scope
        .root(root)
        .object()
        .and_then(|root| parse(&root, kind, defaults));
    if parsed.is_none() && scope.errors() == 0 {
        // Every reader says why it gives nothing; should one fail to, the object is not lost in silence.
        let message = "the object can't be read";
        scope.root(root).error(codes::NOT_AN_OBJECT, message, "");
    }
    Meaning {
        parsed,
        errors: scope.errors(),
        findings: scope.finish(),
    }
}

/// An object as its reader gives it.
#[derive(Debug, Clone)]
pub(super) enum Parsed {
    Namespace(Namespace),
    ServiceAccount(ServiceAccount),
    ConfigMap(ConfigMap),
    Services(Vec<Service>),
    Deployment(Box<RawDeployment>),
    Overlay(Box<Overlay>),
    VirtualService(Box<RawVirtualService>),
    DestinationRule(Box<DestinationRule>),
    PeerAuthentication(PeerAuthentication),
    AuthorizationPolicy(AuthorizationPolicy),
    RateLimitPolicy(RateLimitPolicy),
    RequestAuthentication(RequestAuthentication),
    Telemetry(Telemetry),
    Gateway(Gateway),
    Secret(Secret),
    Sidecar(Sidecar),
    WorkloadEntry(WorkloadEntry),
    /// Judged, and not kept.
    WorkloadGroup,
}

fn parse(root: &Object<'_>, kind: &str, defaults: &Defaults) -> Option<Parsed> {
    match kind {
        "Namespace" => config_map::namespace(root).map(Parsed::Namespace),
        "ServiceAccount" => config_map::service_account(root).map(Parsed::ServiceAccount),
        "ConfigMap" => config_map::config_map(root).map(Parsed::ConfigMap),
        "Service" => service::read(root, defaults).map(Parsed::Services),
        "ServiceEntry" => service_entry::read(root, defaults).map(Parsed::Services),
        "Deployment" | "StatefulSet" => deployment::read(root, kind).map(|d| Parsed::Deployment(Box::new(d))),
        "LocalWorkload" => local_workload::read(root).map(|it| match it {
            RawLocalWorkload::Own(own) => Parsed::Deployment(own),
            RawLocalWorkload::Over(over) => Parsed::Overlay(over),
        }),
        "VirtualService" => {
            virtual_service::read(root, defaults).map(|v| Parsed::VirtualService(Box::new(v)))
        }
        "DestinationRule" => {
            destination_rule::read(root, defaults).map(|d| Parsed::DestinationRule(Box::new(d)))
        }
        "PeerAuthentication" => peer_authentication::read(root).map(Parsed::PeerAuthentication),
        "AuthorizationPolicy" => authorization_policy::read(root).map(Parsed::AuthorizationPolicy),
        "Gateway" => gateway::read(root).map(Parsed::Gateway),
        "Secret" => secret::read(root).map(Parsed::Secret),
        "Sidecar" => sidecar::read(root, defaults).map(Parsed::Sidecar),
        "WorkloadEntry" => workload_entry::read(root).map(Parsed::WorkloadEntry),
        "WorkloadGroup" => workload_entry::read_group(root).map(|()| Parsed::WorkloadGroup),
        "RateLimitPolicy" => rate_limit_policy::read(root).map(Parsed::RateLimitPolicy),
        "RequestAuthentication" => request_authentication::read(root).map(Parsed::RequestAuthentication),
        "Telemetry" => telemetry::read(root).map(Parsed::Telemetry),
        _ => None,
    }
}

/// Names that Compose reads by itself, the first that is there.
const COMPOSE_FILES: &[&str] = &[
    "compose.yaml",
    "compose.yml",
    "docker-compose.yaml",
    "docker-compose.yml",
];

/// Folder → name of the Compose file that counts there.
fn compose_folders(found: &[Found]) -> BTreeMap<String, &'static str> {
    let mut folders: BTreeMap<String, &'static str> = BTreeMap::new();
    for document in found.iter().filter(|f| f.group == Group::Compose) {
        let (folder, name) = split_path(&document.file.name);
        if let Some(known) = COMPOSE_FILES.iter().find(|known| **known == name) {
            let rank = |name: &str| COMPOSE_FILES.iter().position(|known| *known == name);
            let best = folders.entry(folder.to_owned()).or_insert(known);
            if rank(known) < rank(best) {
                *best = known;
            }
        }
    }
    folders
}

fn is_compose_variant(document: &Found, folders: &BTreeMap<String, &'static str>) -> bool {
    let (folder, name) = split_path(&document.file.name);
    document.group == Group::Compose && folders.get(folder).is_some_and(|main| *main != name)
}

fn split_path(path: &str) -> (&str, &str) {
    path.rsplit_once(['/', '\\']).unwrap_or(("", path))
}

/// The file's name without its folder, for objects that have no name of their own.
fn base_name(path: &str) -> Text {
    split_path(path).1.into()
}

/// Whether two trees say the same, wherever they stand; the version of the API does not count.
fn same(a: &Node, b: &Node) -> bool {
    match (&a.value, &b.value) {
        (Value::Scalar(a), Value::Scalar(b)) => a == b,
        (Value::Sequence(a), Value::Sequence(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Value::Mapping(a), Value::Mapping(b)) => {
            a.len() == b.len()
                && a.iter().all(|x| {
                    b.iter().any(|y| {
                        x.key.text == y.key.text && (same(&x.node, &y.node) || &*x.key.text == "apiVersion")
                    })
                })
        }
        _ => false,
    }
}
