//! What a workload's proxy sees and takes (`Sidecar`), and workloads outside (`WorkloadEntry`): each field once with it and
//! once without.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::TcpListener,
    time::Duration,
};

use super::egress::{Outside, outer_address};
use crate::{
    lab::{self, Workload},
    mesh::{Mesh, Setup, eventually},
    runner::{BOTH, Outcome, Plane, Result, Scenario},
};

pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "workload_entries_are_endpoints_with_weight_ports_labels_place_and_identity",
        planes: BOTH,
        run: entries,
    },
    Scenario {
        name: "service_entries_of_one_host_are_one_service_and_each_port_keeps_its_endpoints",
        planes: BOTH,
        run: one_host,
    },
    Scenario {
        name: "a_sidecar_limits_what_is_seen_and_says_where_the_application_is",
        planes: BOTH,
        run: sidecars,
    },
];

/// How long a change may take on either data plane.
const DEADLINE: Duration = Duration::from_secs(20);

/// A server of this machine, outside the mesh, that answers with its name; its port. It ends with the test's process.
fn server(name: &'static str) -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let port = listener.local_addr()?.port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut piece = [0; 4096];
                // A request fits into one read; what is no HTTP (a TLS greeting) gets nothing.
                let length = stream.read(&mut piece).unwrap_or(0);
                if piece[..length].starts_with(b"GET ") {
                    let answer = format!(
                        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{name}",
                        name.len()
                    );
                    let _ = stream.write_all(answer.as_bytes());
                }
            });
        }
    });
    Ok(port)
}

const ASK: &str = "
import collections, json, sys, urllib.request
seen = collections.Counter()
for _ in range(int(sys.argv[2])):
    with urllib.request.urlopen(sys.argv[1], timeout=10) as answer:
        name = answer.headers['x-sample-instance']
        body = answer.read(99).decode()
        seen[name.rsplit('-', 1)[0] if name else body] += 1
print(json.dumps(seen))
";

/// Who answers so many requests of the client; an error where one is not answered with 200.
fn seen(mesh: &Mesh, url: &str, count: u32) -> Result<BTreeMap<String, u32>> {
    let text = mesh.exec(
        "client-0.lab",
        &[&lab::python(), "-c", ASK, url, &count.to_string()],
    )?;
    Ok(serde_json::from_str(&text)?)
}

/// Waits until so many requests are answered by these, each so often; none: until they fail.
fn until(
    mesh: &Mesh,
    what: &str,
    url: &str,
    wanted: &[(&str, std::ops::RangeInclusive<u32>)],
    count: u32,
) -> Result {
    let mut last = String::new();
    let found = eventually(what, DEADLINE, || {
        let seen = seen(mesh, url, count);
        let good = match &seen {
            Ok(seen) => {
                seen.len() == wanted.len()
                    && wanted
                        .iter()
                        .all(|(name, range)| seen.get(*name).is_some_and(|count| range.contains(count)))
            }
            Err(_) => wanted.is_empty(),
        };
        last = format!("{seen:?}");
        good.then_some(())
    });
    found.map_err(|error| format!("{error}; the last were {last}").into())
}

fn sample(name: &str) -> String {
    lab::yaml(&Workload {
        name,
        port: 8080,
        port_name: "http",
        replicas: 1,
        run: format!("exec {} sample", env!("CARGO_BIN_EXE_rajut")),
        more: "",
    })
}

fn entry(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {{name: {name}, namespace: lab}}\nspec: {spec}\n"
    )
}

fn rule(policy: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: old, namespace: lab}}\nspec:\n  \
         host: old.example\n  subsets: [{{name: v2, labels: {{version: v2}}}}]\n  trafficPolicy:\n    \
         loadBalancer: {{simple: ROUND_ROBIN}}\n    {policy}\n"
    )
}

const OLD: &str = "---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: old, namespace: lab}
spec:
  hosts: [old.example]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP}]
  workloadSelector: {labels: {app: old}}
";

const TO_V2: &str = "---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: old, namespace: lab}
spec:
  hosts: [old.example]
  http: [{route: [{destination: {host: old.example, subset: v2}}]}]
";

fn entries(plane: Plane) -> Result<Outcome> {
    let (one, two, three) = (server("one")?, server("two")?, server("three")?);
    let url = "http://old.example/";
    let of_one = |more: &str| {
        entry(
            "one",
            &format!(
                "{{address: 127.0.0.1, ports: {{http: {one}}}, labels: {{app: old, version: v1}}{more}}}"
            ),
        )
    };
    let of_two = |version: &str, more: &str| {
        let labels = format!("{{app: old{version}}}");
        entry(
            "two",
            &format!("{{address: 127.0.0.1, ports: {{http: {two}}}, labels: {labels}{more}}}"),
        )
    };
    let of_three = entry(
        "three",
        &format!("{{address: 127.0.0.1, ports: {{http: {three}}}, labels: {{app: mixed}}}}"),
    );
    let text = [
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: lab}\n",
        lab::STRICT,
        OLD,
        &rule("connectionPool: {http: {maxRequestsPerConnection: 1}}"),
        &of_one(", weight: 3"),
        &of_two(", version: v2", ""),
        &of_three,
        &sample("mixed"),
        &sample("client").replace(
            "labels: {app: client}",
            "labels: {app: client, istio-locality: west.a}",
        ),
    ];
    let mesh = Mesh::up(plane, &Setup::yaml(&text.concat()).arguments(&["-n", "lab"]))?;
    until(&mesh, "weights", url, &[("one", 24..=36), ("two", 4..=16)], 40)?;
    mesh.apply(&of_one(""))?;
    until(
        &mesh,
        "equal without a weight",
        url,
        &[("one", 17..=23), ("two", 17..=23)],
        40,
    )?;
    // A Service takes entries beside its pods.
    let mixed = "http://mixed:8080/";
    until(
        &mesh,
        "a pod and an entry",
        mixed,
        &[("mixed", 1..=39), ("three", 1..=39)],
        40,
    )?;
    mesh.delete(&of_three)?;
    until(&mesh, "the pod alone", mixed, &[("mixed", 10..=10)], 10)?;
    // Where it stands.
    mesh.apply(&rule("outlierDetection: {interval: 1s}"))?;
    mesh.apply(&of_one(", locality: west/a"))?;
    until(&mesh, "the near one alone", url, &[("one", 10..=10)], 10)?;
    mesh.apply(&of_one(""))?;
    until(
        &mesh,
        "both without a place",
        url,
        &[("one", 5..=5), ("two", 5..=5)],
        10,
    )?;
    // Labels, by a subset.
    mesh.apply(TO_V2)?;
    until(&mesh, "the subset alone", url, &[("two", 10..=10)], 10)?;
    mesh.apply(&of_two("", ""))?;
    until(&mesh, "nobody without the label", url, &[], 1)?;
    // An identity: the mesh's TLS is spoken, which this server does not understand.
    mesh.apply(&of_two(", version: v2", ""))?;
    until(&mesh, "plaintext without an identity", url, &[("two", 2..=2)], 2)?;
    mesh.apply(&of_two(", version: v2", ", serviceAccount: old"))?;
    until(&mesh, "the mesh's TLS with one", url, &[], 1)?;
    // Ports: without them it is the service's own, where nobody listens.
    mesh.apply(&of_two(", version: v2", ""))?;
    until(&mesh, "its own port", url, &[("two", 2..=2)], 2)?;
    mesh.apply(&entry(
        "two",
        "{address: 127.0.0.9, labels: {app: old, version: v2}}",
    ))?;
    until(&mesh, "nobody without the port", url, &[], 1)?;
    mesh.down()?;
    Ok(Outcome::Passed)
}

fn service_entry(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: {name}, namespace: lab}}\nspec: {{hosts: \
         [old.example], resolution: STATIC, {spec}}}\n"
    )
}

fn one_host(plane: Plane) -> Result<Outcome> {
    let (one, two, three) = (server("one")?, server("two")?, server("three")?);
    let first = service_entry(
        "first",
        &format!(
            "ports: [{{number: 80, name: http, protocol: HTTP}}], endpoints: [{{address: 127.0.0.1, ports: {{http: {one}}}}}]"
        ),
    );
    let second = service_entry(
        "second",
        &format!(
            "ports: [{{number: 81, name: http, protocol: HTTP}}], endpoints: [{{address: 127.0.0.1, ports: {{http: {two}}}}}]"
        ),
    );
    let third = service_entry(
        "third",
        &format!(
            "ports: [{{number: 80, name: web, protocol: HTTP, targetPort: {three}}}], endpoints: [{{address: 127.0.0.1}}]"
        ),
    );
    let text = [
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: lab}\n",
        lab::STRICT,
        &first,
        &second,
        &sample("client"),
    ];
    let mesh = Mesh::up(plane, &Setup::yaml(&text.concat()).arguments(&["-n", "lab"]))?;
    let (web, other) = ("http://old.example/", "http://old.example:81/");
    until(&mesh, "the first one's port", web, &[("one", 10..=10)], 10)?;
    until(&mesh, "the second one's port", other, &[("two", 10..=10)], 10)?;
    mesh.apply(&third)?;
    until(
        &mesh,
        "a port of two entries has the endpoints of both",
        web,
        &[("one", 1..=39), ("three", 1..=39)],
        40,
    )?;
    mesh.delete(&third)?;
    until(&mesh, "and of one again", web, &[("one", 10..=10)], 10)?;
    mesh.delete(&second)?;
    until(&mesh, "the second one's port goes with it", other, &[], 1)?;
    until(&mesh, "and the first one's stays", web, &[("one", 10..=10)], 10)?;
    mesh.down()?;
    Ok(Outcome::Passed)
}

fn sidecar(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {{name: {name}, namespace: lab}}\nspec: {spec}\n"
    )
}

/// Six requests at once that take half a second each: how many were not answered with 200.
const AT_ONCE: &str = "
import concurrent.futures, urllib.request, urllib.error
def ask(_):
    try:
        return urllib.request.urlopen('http://web:8080/delay/500', timeout=20).status
    except urllib.error.HTTPError as error:
        return error.code
with concurrent.futures.ThreadPoolExecutor(6) as pool:
    print(sum(status != 200 for status in pool.map(ask, range(6))))
";

fn sidecars(plane: Plane) -> Result<Outcome> {
    let hidden = lab::yaml(&Workload {
        name: "moved",
        port: 8081,
        port_name: "http",
        replicas: 1,
        // It listens elsewhere than its service says.
        run: format!("exec {} -m http.server 8080", lab::python()),
        more: "",
    });
    let hidden = hidden
        .replace("ports: [{containerPort: 8081}]", "ports: [{containerPort: 8080}]")
        .replace("tcpSocket: {port: 8081}", "tcpSocket: {port: 8080}");
    let text = [
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: lab}\n---\napiVersion: v1\nkind: Namespace\nmetadata: {name: other}\n",
        lab::STRICT,
        &sample("web"),
        &sample("client"),
        &sample("api").replace("namespace: lab", "namespace: other"),
        &hidden,
    ];
    let mesh = Mesh::up(plane, &Setup::yaml(&text.concat()).arguments(&["-n", "lab"]))?;
    let (web, api) = ("http://web:8080/", "http://api.other:8080/");
    let (sees_web, sees_api) = ([("web", 1..=1)], [("api", 1..=1)]);
    until(&mesh, "everything is seen", api, &sees_api, 1)?;
    // Which hosts are seen: of the own namespace, of another by name.
    mesh.apply(&sidecar(
        "default",
        "{egress: [{hosts: ['./*']}], outboundTrafficPolicy: {mode: REGISTRY_ONLY}}",
    ))?;
    until(&mesh, "the other namespace is not seen", api, &[], 1)?;
    until(&mesh, "the own one is", web, &sees_web, 1)?;
    let why = mesh.rajut(&["why", "--from", "client-0.lab", "--to", api]);
    let why = why.unwrap_or_else(|error| error.to_string());
    if !why.contains("the Sidecar `default` of lab") {
        return Err(format!("`why` does not name the Sidecar:\n{why}").into());
    }
    // Whom it is for.
    let of_client = "{workloadSelector: {labels: {app: client}}, egress: [{hosts: ['other/api.other.svc.cluster.local']}], \
                     outboundTrafficPolicy: {mode: REGISTRY_ONLY}}";
    mesh.apply(&sidecar("client", of_client))?;
    until(&mesh, "the selecting one counts", api, &sees_api, 1)?;
    until(&mesh, "and what it does not name is not seen", web, &[], 1)?;
    mesh.delete(&sidecar("client", of_client))?;
    until(&mesh, "the namespace's own counts again", api, &[], 1)?;
    mesh.delete(&sidecar("default", "{}"))?;
    until(&mesh, "without any everything is seen", api, &sees_api, 1)?;
    if let Some(address) = outer_address() {
        let outside = Outside::listen("0.0.0.0", 0)?;
        let url = format!("http://{address}:{}/", outside.port);
        let answer = [("outside\n", 1..=1)];
        until(&mesh, "what is unknown is let through", &url, &answer, 1)?;
        mesh.apply(&sidecar(
            "default",
            "{outboundTrafficPolicy: {mode: REGISTRY_ONLY}}",
        ))?;
        until(&mesh, "and is not under REGISTRY_ONLY", &url, &[], 1)?;
        mesh.apply(&sidecar("default", "{outboundTrafficPolicy: {mode: ALLOW_ANY}}"))?;
        until(&mesh, "and is under ALLOW_ANY", &url, &answer, 1)?;
        mesh.delete(&sidecar("default", "{}"))?;
    }
    // Where the application is.
    let moved = "http://moved:8081/";
    let status = |wanted: bool, what: &str| {
        eventually(what, DEADLINE, || {
            (seen(&mesh, moved, 1).is_ok() == wanted).then_some(())
        })
    };
    status(false, "nobody listens on the service's port")?;
    let spec = "{workloadSelector: {labels: {app: moved}}, ingress: [{port: {number: 8081, protocol: HTTP, name: http}, \
                defaultEndpoint: 'ADDRESS:8080'}]}";
    for address in ["127.0.0.1", "0.0.0.0"] {
        mesh.apply(&sidecar("moved", &spec.replace("ADDRESS", address)))?;
        status(true, "the Sidecar says where the application is")?;
        mesh.delete(&sidecar("moved", "{}"))?;
        status(false, "nobody answers without it")?;
    }
    // How many it takes at once.
    let refused = |wanted: bool, what: &str| {
        eventually(what, DEADLINE, || {
            let count: u32 = lab::from_client(&mesh, AT_ONCE).ok()?.trim().parse().ok()?;
            ((count > 0) == wanted).then_some(())
        })
    };
    refused(false, "six at once are answered")?;
    let limits = "{workloadSelector: {labels: {app: web}}, inboundConnectionPool: {http: {http2MaxRequests: 1, http1MaxPendingRequests: 1}}}";
    mesh.apply(&sidecar("web", limits))?;
    refused(true, "the limit refuses some of six")?;
    mesh.delete(&sidecar("web", "{}"))?;
    refused(false, "six at once are answered without it")?;
    mesh.down()?;
    Ok(Outcome::Passed)
}
