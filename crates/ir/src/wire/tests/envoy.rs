//! Envoy as the judge of what is encoded: skipped, and said so, where there is no `envoy` on the path.

use std::{fs, process::Command};

use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
use rajut_proto::reflect;
use serde_json::{Value, json};

use super::{super::*, generate};
use crate::{
    cluster::{Discovery, LbPolicy, UpstreamProtocol},
    endpoint::EndpointAddress,
};

const FRONT_PROXY: &str = include_str!("../../../tests/bootstraps/front-proxy.yaml");
const TCP: &str = include_str!("../../../tests/bootstraps/tcp.json");
const ADS: &str = include_str!("../../../tests/bootstraps/ads.yaml");

/// Envoy's complaint about a bootstrap, or nothing.
fn complaint(name: &str, bootstrap: &str) -> Option<String> {
    let file = std::env::temp_dir().join(format!("rajut-wire-{}-{name}", std::process::id()));
    fs::write(&file, bootstrap).expect("the temporary folder can be written");
    let output = Command::new("envoy")
        .args(["--mode", "validate", "--log-level", "error", "-c"])
        .arg(&file)
        .output()
        .expect("envoy runs: it was found before");
    let _ = fs::remove_file(&file);
    (!output.status.success()).then(|| {
        let both = [output.stdout, output.stderr].concat();
        String::from_utf8_lossy(&both).chars().take(2000).collect()
    })
}

fn has_envoy() -> bool {
    let found = Command::new("envoy")
        .arg("--version")
        .output()
        .is_ok_and(|it| it.status.success());
    if !found {
        eprintln!("skipped: there is no program `envoy` on the path");
    }
    found
}

fn json_of(encoded: &Encoded) -> Value {
    let mut json = reflect::message_to_json(&encoded.to_any()).expect("what we encode has descriptors");
    json.as_object_mut()
        .expect("a message is an object")
        .shift_remove("@type");
    json
}

/// Our decoder's reading of a file, encoded again as a file.
fn re_encoded(text: &str) -> String {
    let bootstrap = bootstrap::parse_bootstrap(text).unwrap_or_else(|errors| panic!("{errors}"));
    let resources = &bootstrap.resources;
    let mut file = json!({
        "node": {"id": "n", "cluster": "c"},
        "static_resources": {
            "listeners": resources.listeners.values().map(|it| json_of(&encode_listener(it))).collect::<Vec<_>>(),
            "clusters": resources.clusters.values().map(|it| json_of(&encode_cluster(it))).collect::<Vec<_>>(),
        }
    });
    if bootstrap.ads.is_some() {
        file["dynamic_resources"] = json!({"lds_config": {"ads": {}}, "ads_config": {
            "api_type": "GRPC", "transport_api_version": "V3",
            "grpc_services": [{"envoy_grpc": {"cluster_name": "xds"}}]}});
    }
    file.to_string()
}

#[test]
fn envoy_takes_the_hand_written_files_and_our_reading_of_them() {
    if !has_envoy() {
        return;
    }
    // SDS by a name that stands in the same file is our own reading; Envoy wants a source.
    let front = FRONT_PROXY
        .replace(
            "- name: server\n            validation",
            "- { name: server, sds_config: { ads: {} } }\n            validation",
        )
        .replace("{ name: roots }", "{ name: roots, sds_config: { ads: {} } }");
    let front = format!("{front}\nnode: {{ id: front, cluster: front }}\ndynamic_resources: {{ ads_config: {{ api_type: GRPC, transport_api_version: V3, grpc_services: [{{ envoy_grpc: {{ cluster_name: encounters-canary }} }}] }} }}\n")
        .replace("/etc/clinic/", "/nonexistent/");
    // Files of secrets are read when they are used, which Envoy does at once.
    let secrets = front.find("  secrets:").expect("the file has secrets");
    let dynamic = front.find("\nnode:").expect("added above");
    let front = format!("{}{}", &front[..secrets], &front[dynamic..]);
    for (name, text) in [("front.yaml", &*front), ("tcp.json", TCP), ("ads.yaml", ADS)] {
        assert_eq!(complaint(name, text), None, "Envoy refuses {name} as written");
        let ours = re_encoded(text);
        let ours = if name == "front.yaml" {
            let mut file: Value = serde_json::from_str(&ours).expect("our own JSON");
            file["dynamic_resources"] = json!({"ads_config": {
                "api_type": "GRPC", "transport_api_version": "V3",
                "grpc_services": [{"envoy_grpc": {"cluster_name": "encounters-canary"}}]}});
            file.to_string()
        } else {
            ours
        };
        assert_eq!(
            complaint(&format!("ours-{name}.json"), &ours),
            None,
            "Envoy refuses {name} as we read it: {ours}"
        );
    }
}

/// Random clusters, within what Envoy's own rules allow.
#[test]
fn envoy_takes_random_clusters_as_we_encode_them() {
    if !has_envoy() {
        return;
    }
    let mut runner = TestRunner::deterministic();
    let mut sample =
        |strategy: &BoxedStrategy<Cluster>| strategy.new_tree(&mut runner).expect("no filters").current();
    let strategy = generate::cluster().boxed();
    let mut clusters = Vec::new();
    for at in 0..40 {
        let mut cluster = sample(&strategy);
        cluster.name = format!("cluster{at}").into();
        restrict(&mut cluster);
        clusters.push(json_of(&encode_cluster(&cluster)));
    }
    let xds = json!({"name": "xds", "load_assignment": {"cluster_name": "xds", "endpoints": [{"lb_endpoints": [
        {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 1}}}}]}]},
        "http2_protocol_options": {}});
    clusters.push(xds);
    let file = json!({
        "node": {"id": "n", "cluster": "c"},
        "dynamic_resources": {"ads_config": {"api_type": "GRPC", "transport_api_version": "V3",
            "grpc_services": [{"envoy_grpc": {"cluster_name": "xds"}}]}},
        "static_resources": {"clusters": clusters},
    });
    assert_eq!(complaint("random.json", &file.to_string()), None);
}

/// Envoy checks more than shapes: certificates are parsed, groups looked up, policies fitted to types.
fn restrict(cluster: &mut Cluster) {
    let sockets = cluster
        .tls
        .iter_mut()
        .chain(cluster.tls_matches.iter_mut().filter_map(|it| it.tls.as_mut()));
    for tls in sockets {
        // Envoy 1.40 in this mode crashes on a static cluster whose secrets come over ADS.
        tls.common.certificates.clear();
        tls.common.groups.clear();
        tls.common.max_version = None;
        tls.common.validation = None;
        tls.auto_san_validation = false;
        tls.max_session_keys = None;
    }
    let mut names = std::collections::BTreeSet::new();
    cluster.tls_matches.retain(|it| names.insert(it.name.clone()));
    // The same crash as with secrets over ADS.
    if matches!(cluster.discovery, Discovery::Eds { .. }) {
        cluster.discovery = Discovery::OriginalDst;
    }
    match &mut cluster.discovery {
        Discovery::OriginalDst => cluster.lb_policy = LbPolicy::ClusterProvided,
        Discovery::Static(assignment) | Discovery::StrictDns(assignment) => {
            if cluster.lb_policy == LbPolicy::ClusterProvided {
                cluster.lb_policy = LbPolicy::RoundRobin;
            }
            // Priorities must have no gaps, localities of a priority must differ.
            for (at, locality) in assignment.localities.iter_mut().enumerate() {
                locality.priority = u32::try_from(at).expect("few");
                locality.weight = Some(1);
                locality
                    .endpoints
                    .retain(|it| !matches!(it.address, EndpointAddress::Pipe(_)));
            }
        }
        Discovery::LogicalDns(_) | Discovery::Eds { .. } => {
            if cluster.lb_policy == LbPolicy::ClusterProvided {
                cluster.lb_policy = LbPolicy::RoundRobin;
            }
        }
    }
    if let LbPolicy::RingHash { minimum_ring_size } = &mut cluster.lb_policy {
        *minimum_ring_size = 1024;
    }
    if let LbPolicy::Maglev { table_size } = &mut cluster.lb_policy {
        *table_size = 65_537;
    }
    if let UpstreamProtocol::Auto(one, two) = &cluster.protocol {
        // ALPN needs TLS on every socket.
        cluster.protocol = UpstreamProtocol::UseDownstream(one.clone(), two.clone());
    }
    cluster.bind = None;
}
