//! One change in a mesh of 200 services, from the new snapshot to one sidecar's resources: an instance of one service
//! gets another address, as it does when it restarts; a destination rule gets another limit (which makes the snapshot of
//! the whole configuration anew, a copy of it included).

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    net::{IpAddr, SocketAddr},
};

use anyhow::{Context, Result, ensure};
use rajut_config::{
    LoadOptions, Snapshot, Source, load,
    model::{Workload, WorkloadHealth},
    snapshot::Configuration,
};
use rajut_translate::{Capture, DataPlane, Proxy, Role, Translator};
use rajut_types::{Locality, Principal, TrustDomain};

const SERVICES: usize = 200;

/// Every service with one deployment and, each tenth, a rule of its own.
/// `limit`: what the destination rule of the last service says.
fn yaml(limit: u32) -> String {
    let mut text = String::new();
    for number in 0..SERVICES {
        let _ = write!(
            text,
            "---
apiVersion: v1
kind: Service
metadata: {{name: service-{number}, namespace: clinic}}
spec: {{selector: {{app: service-{number}}}, ports: [{{name: http, port: 80, targetPort: 8080}}]}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: service-{number}, namespace: clinic}}
spec:
  replicas: 1
  selector: {{matchLabels: {{app: service-{number}}}}}
  template:
    metadata: {{labels: {{app: service-{number}}}}}
    spec: {{containers: [{{name: app, image: example.org/app, ports: [{{name: http, containerPort: 8080}}]}}]}}
"
        );
        if number % 10 == 0 {
            let _ = write!(
                text,
                "---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: service-{number}, namespace: clinic}}
spec:
  hosts: [service-{number}]
  http:
  - match: [{{uri: {{prefix: /api}}}}]
    route: [{{destination: {{host: service-{number}}}}}]
    timeout: 5s
  - route: [{{destination: {{host: service-{number}}}}}]
"
            );
        }
    }
    let _ = write!(
        text,
        "---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: last, namespace: clinic}}
spec:
  host: service-{}
  trafficPolicy: {{connectionPool: {{tcp: {{maxConnections: {limit}}}}}}}
",
        SERVICES - 1
    );
    text
}

fn address(number: usize, generation: u64) -> Result<IpAddr> {
    let byte = |value: u64| u8::try_from(value % 250);
    let number = u64::try_from(number)?;
    Ok(IpAddr::from([
        10,
        byte(generation)?,
        byte(number / 250)?,
        byte(number)? + 1,
    ]))
}

/// A mesh and the sidecar beside its first workload.
struct Mesh {
    configuration: Configuration,
    workloads: Vec<Workload>,
    proxy: Proxy,
}

impl Mesh {
    fn new(limit: u32) -> Result<Self> {
        let options = LoadOptions {
            default_namespace: "clinic".into(),
            ..LoadOptions::default()
        };
        let loaded = load(&[Source::new("mesh.yaml", yaml(limit))], &options);
        let mut configuration = Configuration::of(&loaded);
        let said = &loaded.diagnostics;
        ensure!(configuration.services.len() == SERVICES, "{said:?}");
        ensure!(configuration.destination_rules.len() == 1, "{said:?}");
        for (number, service) in configuration.services.iter_mut().enumerate() {
            let last = u8::try_from(number % 250)?;
            service.addresses = vec![IpAddr::from([240, 240, u8::try_from(number / 250)?, last])];
        }
        let mut workloads = Vec::new();
        for (number, deployment) in loaded.deployments.iter().enumerate() {
            workloads.push(Workload {
                name: format!("{}-0", deployment.name).into(),
                deployment: deployment.name.clone(),
                namespace: deployment.namespace.clone(),
                labels: deployment.labels.clone(),
                service_account: deployment.service_account.clone(),
                address: address(number, 0)?,
                named_ports: BTreeMap::from([("http".into(), 8080)]),
                reached_ports: BTreeMap::new(),
                gateway: None,
                mesh: true,
                locality: Locality::default(),
                weight: 1,
                health: WorkloadHealth::Ready,
            });
        }
        let proxy = proxy_of(workloads.first().context("a workload")?);
        Ok(Self {
            configuration,
            workloads,
            proxy,
        })
    }

    /// The two halves of the sidecar's resources, as the control plane asks for them; gives how many there are.
    fn translated(&self, snapshot: &Snapshot, translator: &mut Translator) -> Result<u64> {
        translator.turn(snapshot);
        let scope = translator.scope(snapshot, &self.proxy);
        let outbound = translator.outbound(snapshot, &scope);
        let own = translator.own(snapshot, &self.proxy);
        ensure!(outbound.clusters.len() >= SERVICES, "every service has a cluster");
        Ok(u64::try_from(outbound.assignments.len() + own.clusters.len())?)
    }
}

fn proxy_of(own: &Workload) -> Proxy {
    Proxy {
        id: "sidecar~10.0.0.1~counted~x".into(),
        role: Role::Sidecar,
        data_plane: DataPlane::Rajut,
        principal: Principal::new(&TrustDomain::default(), "clinic", "default"),
        workload: own.name.clone(),
        namespace: own.namespace.clone(),
        labels: own.labels.clone(),
        addresses: vec![own.address],
        locality: Locality::default(),
        capture: Capture::Netns {
            path: "/run/netns/counted".into(),
            app_address: IpAddr::from([127, 0, 0, 1]),
            inbound: BTreeMap::from([(8080, SocketAddr::new(own.address, 8080))]),
        },
    }
}

/// An instance moves so many times.
pub(crate) fn endpoint_changes(count: u64) -> Result<u64> {
    let mesh = Mesh::new(100)?;
    let mut changing = mesh.workloads.last().context("a workload")?.clone();
    let workloads = mesh.workloads.clone();
    let mut snapshot = Snapshot::build(mesh.configuration.clone(), workloads, &Snapshot::default());
    let mut translator = Translator::default();
    let mut made = mesh.translated(&snapshot, &mut translator)?;
    for generation in 1..=count {
        changing.address = address(SERVICES, generation)?;
        snapshot = snapshot.with_workloads([changing.clone()], []);
        made += mesh.translated(&snapshot, &mut translator)?;
    }
    Ok(made)
}

/// A destination rule changes so many times, to and fro.
pub(crate) fn policy_changes(count: u64) -> Result<u64> {
    let mesh = Mesh::new(100)?;
    let forms = [mesh.configuration.clone(), Mesh::new(101)?.configuration];
    ensure!(
        forms[0].destination_rules != forms[1].destination_rules,
        "the limit is what differs"
    );
    let mut snapshot = Snapshot::default();
    let mut translator = Translator::default();
    let mut made = 0;
    for form in forms.iter().cycle().take(usize::try_from(count)? + 1) {
        snapshot = Snapshot::build(form.clone(), mesh.workloads.clone(), &snapshot);
        made += mesh.translated(&snapshot, &mut translator)?;
    }
    Ok(made)
}
