//! Istio's standard metrics against a record that the load generator keeps of its own.

use std::{
    collections::BTreeMap,
    io::Write as _,
    process::{Command, Stdio},
    time::Duration,
};

use super::clinic::NAMESPACE;
use crate::{
    client::get,
    lab,
    mesh::{Mesh, Setup, eventually, have},
    runner::{OURS, Outcome, Plane, Result, Scenario},
};

pub const SCENARIOS: &[Scenario] = &[
    // Upstream Envoy has no filter of these metrics: it is given none.
    Scenario {
        name: "istio_metrics_equal_the_load_generators_own_record_across_a_change",
        planes: OURS,
        run: equal,
    },
    Scenario {
        name: "istio_metrics_count_opaque_connections_and_grpc_calls_at_both_ends",
        planes: OURS,
        run: opaque_and_grpc,
    },
];

const CALLER: &str = "auth-service";
const SERVER: &str = "encounter-service";
/// Code → requests of one round. None of them is retried.
const ROUND: [(u16, u32); 3] = [(200, 137), (404, 31), (500, 12)];

const CHANGE: &str = "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: encounter-service, namespace: phoenix-guardian}
spec:
  hosts: [encounter-service]
  http:
  - headers: {request: {set: {x-changed: 'yes'}}}
    route: [{destination: {host: encounter-service, port: {number: 8080}}}]
";

/// The generator: curl inside the caller's network, which writes down each answer's code.
fn round(mesh: &Mesh, record: &mut BTreeMap<u16, u64>) -> Result {
    for (code, count) in ROUND {
        let url = format!("http://{SERVER}:8080/status/{code}?n=[1-{count}]");
        let caller = format!("{CALLER}-0.{NAMESPACE}");
        let arguments = [
            "curl",
            "-s",
            "--max-time",
            "60",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}\\n",
            &url,
        ];
        for line in mesh.exec(&caller, &arguments)?.lines() {
            *record.entry(line.parse()?).or_default() += 1;
        }
    }
    Ok(())
}

/// The admin addresses of a service's sidecars.
fn admins(mesh: &Mesh, service: &str) -> Result<Vec<String>> {
    let status = mesh.status()?;
    let rows = status["workloads"].as_array().cloned().unwrap_or_default();
    Ok(rows
        .iter()
        .filter(|row| row["name"].as_str().is_some_and(|name| name.starts_with(service)))
        .filter_map(|row| Some(row["adminAddress"].as_str()?.to_owned()))
        .collect())
}

/// The value of a label in a series.
fn label<'s>(series: &'s str, name: &str) -> &'s str {
    series
        .split_once(&format!("{name}=\""))
        .and_then(|(_, rest)| rest.split_once('"'))
        .map_or("", |(value, _)| value)
}

/// Requests by code that the sidecars' series of the one edge tell, all of which have `labels`.
fn counted(admins: &[String], reporter: &str, labels: &[String]) -> Result<BTreeMap<u16, u64>> {
    let mut counted = BTreeMap::new();
    for admin in admins {
        let text = get(admin, admin, "/stats/prometheus")?.text();
        for line in text
            .lines()
            .filter(|line| line.starts_with("istio_requests_total{"))
        {
            let of_edge = label(line, "source_workload") == CALLER
                && label(line, "destination_service_name") == SERVER
                && label(line, "reporter") == reporter;
            if !of_edge {
                continue;
            }
            if let Some(missing) = labels.iter().find(|wanted| !line.contains(wanted.as_str())) {
                return Err(format!("{missing} is not in {line}").into());
            }
            let (_, value) = line.rsplit_once(' ').ok_or("a line without a value")?;
            *counted.entry(label(line, "response_code").parse()?).or_default() += value.parse::<u64>()?;
        }
    }
    Ok(counted)
}

fn equal(plane: Plane) -> Result<Outcome> {
    let mesh = Mesh::up(plane, &Setup::default())?;
    let mut record = BTreeMap::new();
    round(&mesh, &mut record)?;
    mesh.apply(CHANGE)?;
    round(&mesh, &mut record)?;
    let (clients, servers) = (admins(&mesh, CALLER)?, admins(&mesh, SERVER)?);
    let principal = |account: &str| format!("spiffe://cluster.local/ns/{NAMESPACE}/sa/{account}");
    let both = [
        format!("source_principal=\"{}\"", principal(CALLER)),
        format!("source_workload_namespace=\"{NAMESPACE}\""),
        format!("source_canonical_service=\"{CALLER}\""),
        format!("destination_principal=\"{}\"", principal(SERVER)),
        format!("destination_workload=\"{SERVER}\""),
        format!("destination_canonical_service=\"{SERVER}\""),
        format!("destination_service=\"{SERVER}.{NAMESPACE}.svc.cluster.local\""),
        format!("destination_service_namespace=\"{NAMESPACE}\""),
        "request_protocol=\"http\"".to_owned(),
        "response_flags=\"-\"".to_owned(),
    ];
    let with = |more: &str| [&both[..], &[more.to_owned()]].concat();
    let source = with("connection_security_policy=\"unknown\"");
    let destination = with("connection_security_policy=\"mutual_tls\"");
    let mut told = (BTreeMap::new(), BTreeMap::new());
    // A request is counted once its last byte is written, which its client may see first.
    let settled = eventually(
        "both ends have counted every request",
        Duration::from_secs(10),
        || {
            told = (
                counted(&clients, "source", &source).ok()?,
                counted(&servers, "destination", &destination).ok()?,
            );
            (told.0 == record && told.1 == record).then_some(())
        },
    );
    if let Err(error) = settled {
        // The reason, where a label is wrong.
        counted(&clients, "source", &source)?;
        counted(&servers, "destination", &destination)?;
        return Err(format!(
            "{error}\n    record {record:?}\n    client {:?}\n    servers {:?}",
            told.0, told.1
        )
        .into());
    }
    println!("    {record:?}, by both ends");
    scraped(&clients[0])?;
    // A cluster that the control plane does not know is let go of after 5 s; the scrapers' is none of its business.
    std::thread::sleep(Duration::from_secs(6));
    scraped(&clients[0])?;
    changed(&mesh, &clients, &mut record)?;
    let all = counted(&servers, "destination", &destination)?;
    if all != record {
        return Err(format!("after the change of the metrics: {all:?} instead of {record:?}").into());
    }
    mesh.down()?;
    Ok(Outcome::Passed)
}

/// The sum of a metric's series at one end that have all of `labels`.
fn sum(admin: &str, metric: &str, labels: &[&str]) -> Result<u64> {
    let text = get(admin, admin, "/stats/prometheus")?.text();
    let lines = text
        .lines()
        .filter(|line| line.starts_with(&format!("{metric}{{")));
    Ok(lines
        .filter(|line| labels.iter().all(|label| line.contains(label)))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
        .sum())
}

/// Three connections, each of which sends this much and reads to the end.
const TALK: &str = "import socket
total=0
for _ in range(3):
    s=socket.create_connection(('pipe',7001),20)
    s.sendall(b'x'*1000)
    s.shutdown(socket.SHUT_WR)
    while True:
        p=s.recv(65536)
        if not p: break
        total+=len(p)
print(total)";

fn opaque_and_grpc(plane: Plane) -> Result<Outcome> {
    let mesh = lab::mesh(plane)?;
    let admin = |name: &str| -> Result<String> {
        let row = mesh.workload(name)?;
        Ok(row["adminAddress"].as_str().unwrap_or_default().to_owned())
    };
    let client = admin("client-0")?;
    let ends = [("source", client.clone()), ("destination", admin("pipe-0")?)];
    let tcp = |(reporter, admin): &(&str, String)| -> Result<[u64; 4]> {
        let labels = [
            &*format!("reporter=\"{reporter}\""),
            "source_principal=\"spiffe://cluster.local/ns/lab/sa/client\"",
            "source_workload_namespace=\"lab\"",
            "destination_principal=\"spiffe://cluster.local/ns/lab/sa/pipe\"",
            "destination_workload=\"pipe\"",
            "destination_service=\"pipe.lab.svc.cluster.local\"",
            "request_protocol=\"tcp\"",
            "response_flags=\"-\"",
        ];
        let of = |metric: &str| sum(admin, &format!("istio_tcp_{metric}_total"), &labels);
        Ok([
            of("connections_opened")?,
            of("connections_closed")?,
            of("received_bytes")?,
            of("sent_bytes")?,
        ])
    };
    let before = ends.iter().map(tcp).collect::<Result<Vec<_>>>()?;
    let answered: u64 = lab::from_client(&mesh, TALK)?.trim().parse()?;
    let wanted = [3, 3, 3000, answered];
    for (end, before) in ends.iter().zip(before) {
        let what = format!("{} tells {wanted:?} more than {before:?}", end.0);
        eventually(&what, Duration::from_secs(10), || {
            let now = tcp(end).ok()?;
            (0..4).all(|at| now[at] == before[at] + wanted[at]).then_some(())
        })?;
    }
    if !lab::python_has("grpc") {
        return Ok(Outcome::Skipped("grpcio is not here (pip install grpcio)".into()));
    }
    let servers = admin("rpc-0")?;
    // FAILED_PRECONDITION: the client makes exactly one such call.
    let failed = |reporter: &str, admin: &str| {
        let reporter = format!("reporter=\"{reporter}\"");
        let labels = [
            &*reporter,
            "source_workload=\"client\"",
            "destination_service_name=\"rpc\"",
            "request_protocol=\"grpc\"",
            "response_code=\"200\"",
            "grpc_response_status=\"9\"",
        ];
        sum(admin, "istio_requests_total", &labels)
    };
    // Those of the calls that it makes, of which one is a stream each way, one fails and one is not waited for.
    let messages = |reporter: &str, admin: &str| -> Result<[u64; 2]> {
        let reporter = format!("reporter=\"{reporter}\"");
        let labels = [
            &*reporter,
            "destination_service_name=\"rpc\"",
            "request_protocol=\"grpc\"",
        ];
        Ok([
            sum(admin, "istio_request_messages_total", &labels)?,
            sum(admin, "istio_response_messages_total", &labels)?,
        ])
    };
    let before = (failed("source", &client)?, failed("destination", &servers)?);
    let said = [messages("source", &client)?, messages("destination", &servers)?];
    let script = lab::app("grpc_client.py").display().to_string();
    mesh.exec("client-0.lab", &[&lab::python(), &script, "rpc:9000"])?;
    eventually("both ends count the failed call", Duration::from_secs(10), || {
        let now = (
            failed("source", &client).ok()?,
            failed("destination", &servers).ok()?,
        );
        (now == (before.0 + 1, before.1 + 1)).then_some(())
    })?;
    let wanted = said.map(|[requests, responses]| [requests + 8, responses + 15]);
    eventually("both ends count the messages", Duration::from_secs(10), || {
        let now = [
            messages("source", &client).ok()?,
            messages("destination", &servers).ok()?,
        ];
        (now == wanted).then_some(())
    })?;
    Ok(Outcome::Passed)
}

const TELEMETRY: &str = "
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: default, namespace: phoenix-guardian}
spec:
  metrics:
  - overrides:
    - match: {metric: REQUEST_SIZE, mode: CLIENT}
      disabled: true
    - match: {metric: REQUEST_COUNT, mode: CLIENT}
      tagOverrides:
        request_method: {value: request.method}
        source_cluster: {operation: REMOVE}
";

/// One more round under a `Telemetry`: it tells what it was asked for, and no request is lost or told twice.
fn changed(mesh: &Mesh, clients: &[String], record: &mut BTreeMap<u16, u64>) -> Result {
    let of_round: u64 = ROUND.iter().map(|(_, count)| u64::from(*count)).sum();
    let edge = "destination_service_name=\"encounter-service\"";
    let sizes = sum(&clients[0], "istio_request_bytes_count", &[edge])?;
    mesh.apply(TELEMETRY)?;
    round(mesh, record)?;
    eventually("the client tells the method", Duration::from_secs(10), || {
        let told = sum(
            &clients[0],
            "istio_requests_total",
            &[edge, "request_method=\"GET\""],
        )
        .ok()?;
        (told == of_round).then_some(())
    })?;
    let with_cluster = sum(
        &clients[0],
        "istio_requests_total",
        &[edge, "request_method=\"GET\"", "source_cluster"],
    )?;
    let sizes_now = sum(&clients[0], "istio_request_bytes_count", &[edge])?;
    if with_cluster != 0 || sizes_now != sizes {
        return Err(
            format!("{with_cluster} with the removed label, {sizes_now} sizes instead of {sizes}").into(),
        );
    }
    let all = counted(clients, "source", &[])?;
    if all == *record {
        Ok(())
    } else {
        Err(format!("the client tells {all:?} instead of {record:?}").into())
    }
}

/// What a scraper finds at Istio's address, in both forms; `promtool` judges it where it is there.
fn scraped(admin: &str) -> Result {
    let (address, _) = admin.rsplit_once(':').ok_or("an address without a port")?;
    let stats = format!("{address}:15090");
    let plain = get(&stats, &stats, "/stats/prometheus")?;
    if plain.status != 200
        || !plain
            .text()
            .contains("istio_request_duration_milliseconds_bucket{")
    {
        return Err(format!("{stats} answers {}: {}", plain.status, plain.text()).into());
    }
    if get(&stats, &stats, "/quitquitquit")?.status != 404 {
        return Err("the port of the scrapers passes more on than metrics".into());
    }
    let accept = [("accept", "application/openmetrics-text;version=1.0.0")];
    let open =
        crate::client::Connection::open(&stats)?.request("GET", &stats, "/stats/prometheus", &accept, b"")?;
    let kind = open.header("content-type").unwrap_or_default().to_owned();
    if !kind.starts_with("application/openmetrics-text") || !open.text().ends_with("# EOF\n") {
        return Err(format!("{kind}: {}", open.text()).into());
    }
    if !have("promtool") {
        println!("    promtool is not here (Debian: prometheus): the text is not judged");
        return Ok(());
    }
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut input = promtool.stdin.take().ok_or("no input")?;
    input.write_all(plain.text().as_bytes())?;
    drop(input);
    let judged = promtool.wait_with_output()?;
    let said =
        String::from_utf8_lossy(&judged.stderr).into_owned() + &String::from_utf8_lossy(&judged.stdout);
    // The unit in a name is Istio's.
    let of_istio: Vec<_> = said
        .lines()
        .filter(|line| line.contains("istio_") && !line.contains("base unit"))
        .collect();
    // 3: readable, and there is something to say of Envoy's names.
    if !matches!(judged.status.code(), Some(0 | 3)) || !of_istio.is_empty() {
        return Err(format!("promtool: {said}").into());
    }
    Ok(())
}
