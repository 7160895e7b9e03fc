//! Service entries of one host in one namespace are one service: the ports of all, each with the endpoints that were written for it.
//!
//! Source: Istio (`pilot/pkg/model/sidecar.go`): what holds for the whole service is the first one's, a Kubernetes `Service` before all
//! service entries. What of the others is not used is said.

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};

use rajut_types::{Diagnostic, Hostname, ObjectRef, Severity, Text};

use crate::{
    Index, codes,
    model::{Service, StaticEndpoint, TargetPort},
};

/// Which of several is the first.
fn rank(service: &Service) -> (bool, u64) {
    (&*service.origin.object.kind != "Service", service.age)
}

/// `services`, each host of a namespace once.
pub(super) fn join(
    mut services: Vec<Service>,
    index: &Index,
    findings: &mut Vec<Diagnostic>,
) -> Vec<Service> {
    // Stable: those of one age stay in the order of reading.
    services.sort_by_key(rank);
    let mut joined: Vec<Service> = Vec::with_capacity(services.len());
    let mut places: BTreeMap<(Hostname, Text), usize> = BTreeMap::new();
    // An entry of many hosts says once what of it is not used.
    let mut said: BTreeSet<(ObjectRef, String)> = BTreeSet::new();
    for service in services {
        match places.entry((service.host.clone(), service.namespace.clone())) {
            Entry::Vacant(place) => {
                place.insert(joined.len());
                joined.push(service);
            }
            Entry::Occupied(place) => {
                let Some(first) = joined.get_mut(*place.get()) else {
                    continue;
                };
                for finding in unused(first, &service, index) {
                    if said.insert((service.origin.object.clone(), finding.message.clone())) {
                        findings.push(finding);
                    }
                }
                add(first, service);
            }
        }
    }
    joined
}

/// What of `later` has no effect beside `first`.
fn unused(first: &Service, later: &Service, index: &Index) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    // A Compose file gives way to manifests, and says so nowhere: it is written for another tool.
    if &*later.origin.object.kind != "ServiceEntry" {
        return found;
    }
    let place = format!(
        "{} ({}:{})",
        first.origin.object, first.origin.source, first.origin.line
    );
    let mut say = |origin, message: String, hint: &str| {
        found.push(
            index
                .diagnostic(codes::HOST_TWICE, Severity::Warning, origin, message)
                .hint(hint),
        );
    };
    for port in &later.ports {
        if let Some(same) = first.port(port.number)
            && same.protocol != port.protocol
        {
            let message = format!(
                "the protocol of the port {} is not used: {place} has the same host, comes first, and declares another",
                port.number
            );
            say(&port.origin, message, "declare one protocol for the port");
        }
    }
    let settings = [
        ("`resolution`", first.resolution == later.resolution),
        ("`location`", first.external == later.external),
        ("`workloadSelector`", first.selector == later.selector),
        (
            "`addresses`",
            later.addresses.is_empty() || first.addresses == later.addresses,
        ),
        (
            "`subjectAltNames`",
            later.subject_alt_names.is_empty() || first.subject_alt_names == later.subject_alt_names,
        ),
        ("`exportTo`", first.export_to == later.export_to),
    ];
    let other: Vec<&str> = settings
        .iter()
        .filter(|(_, same)| !same)
        .map(|(name, _)| *name)
        .collect();
    if !other.is_empty() {
        let message = format!(
            "{} of this entry are not used: {place} has the same host and comes first",
            other.join(", ")
        );
        say(
            &later.origin,
            message,
            "write the same in both, or put all ports into one entry",
        );
    }
    found
}

/// The ports that `first` lacks, and the endpoints of `later` for its own ports alone.
fn add(first: &mut Service, later: Service) {
    let own: Vec<u16> = first.ports.iter().map(|port| port.number).collect();
    let theirs: Vec<u16> = later.ports.iter().map(|port| port.number).collect();
    let endpoints: Vec<StaticEndpoint> = later
        .endpoints
        .iter()
        .map(|endpoint| StaticEndpoint {
            ports: renamed(endpoint, &later, first),
            serves: Some(theirs.clone()),
            ..endpoint.clone()
        })
        .collect();
    for endpoint in &mut first.endpoints {
        endpoint.serves.get_or_insert_with(|| own.clone());
    }
    first.endpoints.extend(endpoints);
    for port in later.ports {
        if first.port(port.number).is_none() {
            first.ports.push(port);
        }
    }
}

/// The ports of an endpoint of `later`, under the names that `first` has for them.
fn renamed(endpoint: &StaticEndpoint, later: &Service, first: &Service) -> Vec<(Text, u16)> {
    let all = later.ports.iter().filter_map(|port| {
        let written = endpoint.ports.iter().find(|(name, _)| *name == port.name);
        let number = match (written, &port.target) {
            (Some((_, number)), _) | (None, TargetPort::Number(number)) => *number,
            (None, TargetPort::Name(_)) => return None,
        };
        let name = first.port(port.number).map_or(&port.name, |same| &same.name);
        Some((name.clone(), number))
    });
    all.collect()
}

#[cfg(test)]
mod tests {
    use crate::{
        LoadOptions, Loaded, Source, load,
        model::{Resolution, Service},
    };

    fn entry(name: &str, spec: &str) -> String {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: {name}}}\nspec: {{hosts: [db.example.com], {spec}}}\n---\n"
        )
    }

    fn read(texts: &[String]) -> Loaded {
        load(&[Source::new("a.yaml", texts.concat())], &LoadOptions::default())
    }

    fn only(loaded: &Loaded) -> &Service {
        assert_eq!(loaded.services.len(), 1, "one service of one host");
        loaded.services.first().expect("one")
    }

    fn messages(loaded: &Loaded) -> Vec<&str> {
        let all = loaded.diagnostics.iter();
        all.map(|found| found.message.as_ref()).collect()
    }

    const MYSQL: &str = "resolution: STATIC, ports: [{number: 3306, name: tcp-mysql, protocol: TCP}], endpoints: [{address: 10.0.0.1}]";
    const ADMIN: &str = "resolution: STATIC, ports: [{number: 8080, name: http, protocol: HTTP}], endpoints: [{address: 10.0.0.2}]";

    #[test]
    fn each_port_keeps_the_endpoints_that_were_written_for_it() {
        let loaded = read(&[entry("a", MYSQL), entry("b", ADMIN)]);
        let service = only(&loaded);
        let ports: Vec<u16> = service.ports.iter().map(|port| port.number).collect();
        assert_eq!(ports, [3306, 8080]);
        let of = |port: u16| -> Vec<&str> {
            let all = service.endpoints.iter().filter(|it| it.serves(port));
            all.map(|it| &*it.address).collect()
        };
        assert_eq!(of(3306), ["10.0.0.1"]);
        assert_eq!(of(8080), ["10.0.0.2"]);
        assert_eq!(messages(&loaded), Vec::<&str>::new());
    }

    #[test]
    fn a_port_of_both_has_the_endpoints_of_both_under_the_first_ones_name() {
        let more = "resolution: STATIC, ports: [{number: 3306, name: mysql, protocol: TCP, targetPort: 3307}], endpoints: [{address: 10.0.0.2}, {address: 10.0.0.3, ports: {mysql: 3308}}]";
        let loaded = read(&[entry("a", MYSQL), entry("b", more)]);
        let service = only(&loaded);
        let ports: Vec<Vec<(&str, u16)>> = service
            .endpoints
            .iter()
            .map(|it| it.ports.iter().map(|(name, port)| (&**name, *port)).collect())
            .collect();
        assert_eq!(
            ports,
            [vec![], vec![("tcp-mysql", 3307)], vec![("tcp-mysql", 3308)]]
        );
        assert!(service.endpoints.iter().all(|it| it.serves(3306)));
    }

    #[test]
    fn the_oldest_comes_first_and_what_differs_is_said_once() {
        let young = "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: young, creationTimestamp: '2026-02-01T00:00:00Z'}\nspec: {hosts: [a.example.com, b.example.com], resolution: DNS, location: MESH_INTERNAL, ports: [{number: 80, name: http, protocol: HTTP}]}\n---\n";
        let old = "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: old, creationTimestamp: '2026-01-01T00:00:00Z'}\nspec: {hosts: [a.example.com, b.example.com], resolution: NONE, ports: [{number: 80, name: tls, protocol: TLS}]}\n---\n";
        let loaded = read(&[young.to_owned(), old.to_owned()]);
        assert_eq!(loaded.services.len(), 2);
        assert!(loaded.services.iter().all(|it| it.resolution == Resolution::None));
        let said = messages(&loaded);
        assert_eq!(
            said.len(),
            2,
            "its port and its settings, once for both hosts: {said:?}"
        );
        assert!(
            said.iter()
                .all(|it| it.contains("ServiceEntry default/old (a.yaml:6)")),
            "{said:?}"
        );
        assert!(
            said.iter().any(|it| it.contains("`resolution`, `location`")),
            "{said:?}"
        );
        assert!(
            said.iter().any(|it| it.contains("protocol of the port 80")),
            "{said:?}"
        );
    }

    #[test]
    fn a_kubernetes_service_comes_before_service_entries() {
        let service = "apiVersion: v1\nkind: Service\nmetadata: {name: db}\nspec: {clusterIP: 10.1.1.1, ports: [{name: tcp, port: 3306}]}\n";
        let text = entry("a", ADMIN).replace("db.example.com", "db.default.svc.cluster.local");
        let loaded = read(&[text, service.to_owned()]);
        let service = only(&loaded);
        assert_eq!(&*service.origin.object.kind, "Service");
        assert_eq!(service.addresses.len(), 1);
        assert_eq!(service.ports.len(), 2);
    }
}
