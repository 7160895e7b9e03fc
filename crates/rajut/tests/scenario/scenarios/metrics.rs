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
    mesh.down()?;
    Ok(Outcome::Passed)
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
