//! Golden files: one folder an intent, with the resources (`in.yaml`), the proxy (`proxy.yaml`), simulated calls with
//! their outcomes (`calls.yaml`, the intent itself) and everything that was made (`out.snap`).
//!
//! Deployments of `in.yaml` run as one workload per replica, at 10.0.0.1, 10.0.0.2 … in the order of their names;
//! services get addresses from 240.240.0.1 in the order of hosts.

#[path = "golden/call.rs"]
mod call;
#[path = "golden/render.rs"]
mod render;

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

use rajut_config::{
    LoadOptions, Snapshot, Source, load,
    model::{Deployment, Workload, WorkloadHealth},
    snapshot::Configuration,
};
use rajut_translate::{Capture, DataPlane, ExplicitPort, Proxy, Role, Translator, translate};
use rajut_types::{Locality, TrustDomain};

/// `proxy.yaml`.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct ProxyFile {
    /// The workload, e.g. `web-0`; for gateways any name.
    workload: String,
    #[serde(default = "clinic")]
    namespace: String,
    #[serde(default)]
    role: RoleName,
    #[serde(default)]
    capture: CaptureName,
    /// `host:port` of services with a local port, from 127.0.0.1:18000.
    #[serde(default)]
    explicit: Vec<String>,
    #[serde(default)]
    envoy: bool,
}

fn clinic() -> String {
    "clinic".to_owned()
}

#[derive(serde::Deserialize, Default)]
#[serde(rename_all = "camelCase")]
enum RoleName {
    #[default]
    Sidecar,
    HostGateway,
    Gateway,
    Grpc,
}

#[derive(serde::Deserialize, Default)]
#[serde(rename_all = "camelCase")]
enum CaptureName {
    #[default]
    Netns,
    Explicit,
    Redirect,
}

fn workloads(deployments: &[Deployment]) -> Vec<Workload> {
    let mut sorted: Vec<_> = deployments.iter().collect();
    sorted.sort_by_key(|deployment| &deployment.name);
    let mut found = Vec::new();
    for deployment in sorted {
        for replica in 0..deployment.replicas {
            let last = u8::try_from(found.len() + 1).expect("a small mesh");
            found.push(Workload {
                name: format!("{}-{replica}", deployment.name).into(),
                deployment: deployment.name.clone(),
                namespace: deployment.namespace.clone(),
                labels: deployment.labels.clone(),
                service_account: deployment.service_account.clone(),
                address: IpAddr::from([10, 0, 0, last]),
                named_ports: deployment
                    .ports
                    .iter()
                    .map(|port| (port.name.clone(), port.number))
                    .collect(),
                reached_ports: BTreeMap::new(),
                gateway: deployment
                    .gateway
                    .then(|| [(80, ([127, 0, 0, 1], 18_080).into())].into()),
                mesh: true,
                locality: Locality::default(),
                weight: 1,
                health: WorkloadHealth::Ready,
            });
        }
    }
    found
}

fn proxy(file: &ProxyFile, deployments: &[Deployment], workloads: &[Workload]) -> Proxy {
    let own = workloads.iter().find(|workload| *workload.name == *file.workload);
    let address = own.map_or(IpAddr::from([127, 0, 0, 1]), |own| own.address);
    let ports: Vec<u16> = deployments
        .iter()
        .filter(|deployment| own.is_some_and(|own| own.deployment == deployment.name))
        .flat_map(|deployment| &deployment.ports)
        .map(|port| port.number)
        .collect();
    let outside = ports.iter().map(|port| (*port, SocketAddr::new(address, *port)));
    let capture = match file.capture {
        CaptureName::Redirect => Capture::Redirect,
        CaptureName::Netns => Capture::Netns {
            path: "/run/netns/w".into(),
            app_address: IpAddr::from([127, 0, 0, 1]),
            inbound: outside.collect(),
        },
        CaptureName::Explicit => Capture::Explicit {
            outbound: explicit_ports(&file.explicit),
            inbound: outside
                .map(|(port, at)| {
                    (
                        port,
                        (at, SocketAddr::from(([127, 0, 0, 1], 30_000 + port % 1000))),
                    )
                })
                .collect(),
        },
    };
    let account = own.map_or("default", |own| &*own.service_account);
    Proxy {
        id: format!("sidecar~{address}~{}.{}~x", file.workload, file.namespace).into(),
        role: match file.role {
            RoleName::Sidecar => Role::Sidecar,
            RoleName::HostGateway => Role::HostGateway,
            RoleName::Gateway => Role::Gateway,
            RoleName::Grpc => Role::Grpc,
        },
        data_plane: if file.envoy {
            DataPlane::Envoy
        } else {
            DataPlane::Rajut
        },
        principal: rajut_types::Principal::new(&TrustDomain::default(), &file.namespace, account),
        workload: file.workload.as_str().into(),
        namespace: file.namespace.as_str().into(),
        labels: own.map(|own| own.labels.clone()).unwrap_or_default(),
        addresses: vec![address],
        locality: Locality::default(),
        capture,
    }
}

fn explicit_ports(texts: &[String]) -> Vec<ExplicitPort> {
    let mut ports = Vec::new();
    for (position, text) in texts.iter().enumerate() {
        let (host, port) = text.rsplit_once(':').expect("host:port");
        ports.push(ExplicitPort {
            host: host.parse().expect("a host"),
            port: port.parse().expect("a port"),
            listen: SocketAddr::from(([127, 0, 0, 1], 18_000 + u16::try_from(position).expect("few"))),
        });
    }
    ports
}

fn run(folder: &Path) {
    let name = folder
        .file_name()
        .expect("a folder")
        .to_string_lossy()
        .into_owned();
    let read = |file: &str| {
        std::fs::read_to_string(folder.join(file))
            .expect("each folder has in.yaml, proxy.yaml and calls.yaml")
    };
    let options = LoadOptions {
        default_namespace: "clinic".into(),
        ..LoadOptions::default()
    };
    let loaded = load(&[Source::new("in.yaml", read("in.yaml"))], &options);
    let mut configuration = Configuration::of(&loaded);
    configuration.services.sort_by(|a, b| a.host.cmp(&b.host));
    for (position, service) in configuration.services.iter_mut().enumerate() {
        if service.addresses.is_empty() && !service.headless {
            let last = u8::try_from(position + 1).expect("a small mesh");
            service.addresses.push(IpAddr::from([240, 240, 0, last]));
        }
    }
    let instances = workloads(&loaded.deployments);
    let file: ProxyFile = serde_saphyr::from_str(&read("proxy.yaml")).expect("proxy.yaml is right");
    let proxy = proxy(&file, &loaded.deployments, &instances);
    let snapshot = Snapshot::build(configuration, instances, &Snapshot::default());
    let (resources, translated) = translate(&snapshot, &proxy, &mut Translator::default());
    let mut findings = loaded.diagnostics;
    findings.extend(translated);

    let calls: Vec<BTreeMap<String, String>> =
        serde_saphyr::from_str(&read("calls.yaml")).expect("calls.yaml is right");
    let mut wrong = String::new();
    for call in &calls {
        let outcome = call::outcome(&resources, call);
        if outcome != call["expect"] {
            let _ = writeln!(wrong, "{name}: {call:?}\n  is: {outcome}");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    let text = render::text(&resources, &findings);
    insta::with_settings!({ snapshot_path => folder, prepend_module_to_snapshot => false, omit_expression => true }, {
        insta::assert_snapshot!("out", text);
    });
}

#[test]
fn golden_files() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut folders: Vec<PathBuf> = std::fs::read_dir(&root)
        .expect("the folder is there")
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.is_dir())
        .collect();
    folders.sort();
    assert!(!folders.is_empty());
    for folder in folders {
        run(&folder);
    }
}
