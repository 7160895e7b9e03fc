//! Gateways with their workloads, the virtual services that name them, and the secrets that they name.

use std::collections::{BTreeMap, BTreeSet};

use rajut_types::{Origin, Severity, Text};

use super::{Checker, field};
use crate::{
    codes,
    model::{
        Credential, Deployment, Gateway, GatewayHost, GatewayServer, Secret, ServerTlsMode, VirtualService,
    },
    read::nearest,
    snapshot::{companion, intersection},
};

pub(super) fn check(checker: &mut Checker<'_>) {
    let loaded = checker.loaded;
    for gateway in &loaded.gateways {
        selects(checker, gateway);
        for (index, server) in gateway.servers.iter().enumerate() {
            credentials(checker, gateway, index, server);
        }
    }
    for rule in &loaded.virtual_services {
        bound(checker, rule);
    }
    shared_ports(checker);
}

fn workloads<'a>(checker: &Checker<'a>, gateway: &'a Gateway) -> impl Iterator<Item = &'a Deployment> {
    let loaded = checker.loaded;
    loaded
        .deployments
        .iter()
        .filter(|known| known.gateway && known.labels.matches(&gateway.selector))
}

fn selects(checker: &mut Checker<'_>, gateway: &Gateway) {
    if gateway.selector.is_empty() || workloads(checker, gateway).next().is_some() {
        return;
    }
    let is_selected = |known: &&Deployment| known.labels.matches(&gateway.selector);
    let application = checker.loaded.deployments.iter().find(is_selected);
    let (message, hint) = match application {
        Some(known) => (
            format!(
                "the gateway selects `{}`, which is an application and no gateway",
                known.name
            ),
            "a gateway workload has the annotation `inject.istio.io/templates: gateway` and nothing to run",
        ),
        None => (
            "no workload has these labels: nobody serves this gateway".to_owned(),
            "write `istio: ingressgateway` for the one that `rajut up` starts by itself, or add a Deployment with \
             the annotation `inject.istio.io/templates: gateway`",
        ),
    };
    let origin = field(&gateway.origin, "spec.selector");
    checker.say(codes::GATEWAY_SELECTOR, Severity::Warning, &origin, message, hint);
}

/// What a server's `credentialName` names, in the namespace of each workload that serves it.
fn credentials(checker: &mut Checker<'_>, gateway: &Gateway, index: usize, server: &GatewayServer) {
    let Some(tls) = &server.tls else { return };
    let Some(Credential::Secret { name, roots }) = &tls.credential else {
        return;
    };
    let origin = field(
        &gateway.origin,
        format!("spec.servers[{index}].tls.credentialName"),
    );
    let namespaces: BTreeSet<Text> = workloads(checker, gateway)
        .map(|known| known.namespace.clone())
        .collect();
    for namespace in namespaces {
        let mut broken = checker.loaded.broken.iter();
        if broken.any(|it| &*it.kind == "Secret" && it.name == *name && it.namespace == namespace) {
            continue;
        }
        let asks = matches!(tls.mode, ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual);
        let problem = no_certificate(&checker.loaded.secrets, &namespace, name).or_else(|| {
            asks.then(|| no_roots(&checker.loaded.secrets, &namespace, name, roots.as_ref()))
                .flatten()
        });
        if let Some((message, hint)) = problem {
            checker.say(codes::CREDENTIAL, Severity::Error, &origin, message, hint);
        }
    }
}

fn find<'a>(secrets: &'a [Secret], namespace: &str, name: &str) -> Option<&'a Secret> {
    secrets
        .iter()
        .find(|secret| &*secret.namespace == namespace && &*secret.name == name)
}

/// What is wrong, and what to write, where a secret has no certificate with its key.
fn no_certificate(secrets: &[Secret], namespace: &str, name: &str) -> Option<(String, String)> {
    let secret = find(secrets, namespace, name);
    if secret.and_then(Secret::key_pair).is_some() {
        return None;
    }
    let missing = format!("there is no Secret `{name}` in `{namespace}`: these connections are closed");
    let here = secrets.iter().filter(|secret| &*secret.namespace == namespace);
    let elsewhere = secrets.iter().find(|secret| &*secret.name == name);
    Some(
        match (secret, elsewhere, nearest(name, here.map(|one| &*one.name))) {
            (Some(_), ..) => (
                format!(
                    "the Secret `{name}` holds no certificate with its key: these connections are closed"
                ),
                "put them under `tls.crt` and `tls.key`, in the PEM form".to_owned(),
            ),
            (None, Some(other), _) => (
                missing,
                format!(
                    "it is in `{}`: put it into the gateway workload's namespace",
                    other.namespace
                ),
            ),
            (None, None, Some(near)) => (missing, format!("did you mean `{near}`?")),
            (None, None, None) => (
                missing,
                format!(
                    "`kubectl create secret tls {name} -n {namespace} --cert=… --key=… --dry-run=client -o yaml` writes it"
                ),
            ),
        },
    )
}

/// The same where nothing says whose certificates clients may show.
fn no_roots(
    secrets: &[Secret],
    namespace: &str,
    name: &str,
    named: Option<&Text>,
) -> Option<(String, String)> {
    let of = |name: &str| find(secrets, namespace, name).and_then(Secret::roots);
    let roots = match named {
        Some(named) => of(named),
        None => of(name).or_else(|| of(&companion(name))),
    };
    if roots.is_some() {
        return None;
    }
    Some((
        format!(
            "no Secret of `{namespace}` says whose certificates clients may show: these connections are closed"
        ),
        format!("add `ca.crt` to `{name}`, or a Secret `{name}-cacert` with it"),
    ))
}

/// The gateways that a virtual service names, and its hosts there.
fn bound(checker: &mut Checker<'_>, rule: &VirtualService) {
    let loaded = checker.loaded;
    let mut named: BTreeMap<&Text, Origin> = BTreeMap::new();
    for (index, name) in rule.gateways.iter().enumerate() {
        named
            .entry(name)
            .or_insert_with(|| field(&rule.origin, format!("spec.gateways[{index}]")));
    }
    for (index, route) in rule.http.iter().enumerate() {
        for name in route.matches.iter().flat_map(|one| &one.gateways) {
            named
                .entry(name)
                .or_insert_with(|| field(&rule.origin, format!("spec.http[{index}].match")));
        }
    }
    for (name, origin) in named {
        if &**name == "mesh" {
            continue;
        }
        let found = loaded.gateways.iter().find(|gateway| gateway.key() == *name);
        let Some(gateway) = found else {
            let short = name.rsplit('/').next().unwrap_or(name);
            if is_broken(checker, name) {
                continue;
            }
            let elsewhere = loaded.gateways.iter().find(|gateway| &*gateway.name == short);
            let keys: Vec<Text> = loaded.gateways.iter().map(Gateway::key).collect();
            let hint = match (elsewhere, nearest(name, keys.iter().map(|key| &**key))) {
                (Some(other), _) => format!("did you mean `{}`?", other.key()),
                (None, Some(near)) => format!("did you mean `{near}`?"),
                (None, None) => {
                    "add the Gateway, or write `mesh` for the traffic between services".to_owned()
                }
            };
            let message = format!("there is no Gateway `{name}`: nothing is routed there");
            checker.say(codes::GATEWAY_NOT_FOUND, Severity::Error, &origin, message, hint);
            continue;
        };
        served_hosts(checker, rule, gateway);
    }
}

fn is_broken(checker: &Checker<'_>, key: &str) -> bool {
    checker
        .loaded
        .broken
        .iter()
        .any(|object| &*object.kind == "Gateway" && format!("{}/{}", object.namespace, object.name) == key)
}

fn served_hosts(checker: &mut Checker<'_>, rule: &VirtualService, gateway: &Gateway) {
    for (index, host) in rule.hosts.iter().enumerate() {
        let hosts = || gateway.servers.iter().flat_map(|server| &server.hosts);
        let admitted = |one: &&GatewayHost| one.namespace.as_ref().is_none_or(|ns| *ns == rule.namespace);
        if hosts()
            .filter(admitted)
            .any(|one| intersection(&one.host, host).is_some())
        {
            continue;
        }
        // Of a rule that also holds inside the mesh, some hosts are for there.
        let inside = rule.gateways.iter().any(|name| &**name == "mesh");
        if inside && checker.service(host, &rule.namespace).is_some() {
            continue;
        }
        let refused = hosts().find(|one| intersection(&one.host, host).is_some());
        let hint = match refused {
            Some(one) => format!(
                "the Gateway serves it for the namespace `{}` only",
                one.namespace.as_deref().unwrap_or_default()
            ),
            None => "add it to `hosts` of a server of the Gateway".to_owned(),
        };
        checker.say(
            codes::GATEWAY_HOST,
            Severity::Warning,
            &field(&rule.origin, format!("spec.hosts[{index}]")),
            format!("the Gateway `{}` does not serve `{host}`", gateway.key()),
            hint,
        );
    }
}

/// A server, with its number in its gateway.
type Place<'a> = (&'a Gateway, usize, &'a GatewayServer);

/// Servers that share a port of the same workloads.
fn shared_ports(checker: &mut Checker<'_>) {
    let loaded = checker.loaded;
    let mut ports: BTreeMap<(Vec<_>, u16), Vec<Place<'_>>> = BTreeMap::new();
    for gateway in &loaded.gateways {
        for (index, server) in gateway.servers.iter().enumerate() {
            let key = (gateway.selector.iter().collect(), server.port);
            ports.entry(key).or_default().push((gateway, index, server));
        }
    }
    for servers in ports.values() {
        for (at, (gateway, index, server)) in servers.iter().enumerate() {
            let before = servers.get(..at).unwrap_or_default();
            let place = |what: &str| field(&gateway.origin, format!("spec.servers[{index}].{what}"));
            if let Some((first, ..)) = before
                .iter()
                .find(|(_, _, known)| known.is_tls() != server.is_tls())
            {
                let message = format!(
                    "the port {} is with TLS and without: this server is not used, {} ({}:{}) comes first",
                    server.port, first.origin.object, first.origin.source, first.origin.line
                );
                let hint = "give one of the two another port";
                checker.say(
                    codes::GATEWAY_PORT,
                    Severity::Error,
                    &place("port"),
                    message,
                    hint,
                );
                continue;
            }
            if !server.is_tls() {
                continue;
            }
            for (host_index, host) in server.hosts.iter().enumerate() {
                let claimed =
                    |(_, _, known): &&Place<'_>| known.hosts.iter().any(|one| one.host == host.host);
                if let Some((first, ..)) = before.iter().find(claimed) {
                    let message = format!(
                        "`{}` at the port {} is served by {} ({}:{}), which comes first",
                        host.host, server.port, first.origin.object, first.origin.source, first.origin.line
                    );
                    let origin = place(&format!("hosts[{host_index}]"));
                    let hint = "serve each host once on a port with TLS";
                    checker.say(codes::GATEWAY_PORT, Severity::Warning, &origin, message, hint);
                }
            }
        }
    }
}
