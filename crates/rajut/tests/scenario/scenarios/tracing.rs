//! Traces as `Telemetry` says, at a collector that somebody else wrote.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::Value;

use crate::{
    lab,
    mesh::{Mesh, Setup, eventually},
    runner::{BOTH, OURS, Outcome, Plane, Result, Scenario},
};

pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "a_trace_has_the_client_and_server_spans_of_three_services_at_an_otlp_collector",
        planes: BOTH,
        run: traced,
    },
    // Envoy's OpenTelemetry tracer knows W3C's header alone.
    Scenario {
        name: "traces_go_on_by_w3c_b3_and_jaeger_headers",
        planes: OURS,
        run: propagated,
    },
];

const MISSING: &str = "grpcio and opentelemetry-proto are not here (pip install grpcio opentelemetry-proto)";

/// A collector, ended when dropped.
struct Collector {
    process: Child,
    port: u16,
    file: PathBuf,
}

impl Collector {
    fn start(plane: Plane, of: &str) -> Result<Self> {
        let name = format!("rajut-spans-{}-{of}-{}", std::process::id(), plane.name());
        let file = std::env::temp_dir().join(name);
        fs::write(&file, "")?;
        let mut process = Command::new(lab::python())
            .arg(lab::app("otlp_receiver.py"))
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        let output = process.stdout.take().ok_or("no output")?;
        BufReader::new(output).read_line(&mut line)?;
        let port = line
            .trim()
            .parse()
            .map_err(|_| format!("the collector says {line:?}"))?;
        Ok(Self { process, port, file })
    }

    fn spans(&self) -> Vec<Value> {
        let text = fs::read_to_string(&self.file).unwrap_or_default();
        text.lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
        drop(fs::remove_file(&self.file));
    }
}

/// `client` → `front` → `middle` → `back`, all of which is traced.
fn mesh(plane: Plane, collector: &Collector, sampling: &str) -> Result<Mesh> {
    let mut text = format!(
        "apiVersion: v1\nkind: Namespace\nmetadata: {{name: lab}}\n{}",
        lab::STRICT
    );
    text += &lab::chain();
    text += &format!(
        "
---
apiVersion: v1
kind: ConfigMap
metadata: {{name: istio, namespace: istio-system}}
data:
  mesh: |
    extensionProviders:
    - name: otel
      opentelemetry: {{service: host.rajut.internal, port: {}}}
    defaultProviders: {{tracing: [otel]}}
---
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {{name: mesh, namespace: istio-system}}
spec:
  tracing:
  - randomSamplingPercentage: {sampling}
    customTags:
      team: {{literal: {{value: records}}}}
      caller: {{header: {{name: X-Caller, defaultValue: nobody}}}}
",
        collector.port
    );
    let host_port = format!("grpc-otel={}", collector.port);
    Mesh::up(
        plane,
        &Setup::yaml(&text).arguments(&["-n", "lab", "--host-port", &host_port]),
    )
}

fn call(mesh: &Mesh, headers: &[&str]) -> Result<String> {
    let mut arguments = vec!["curl", "-s", "-f", "--max-time", "20"];
    for header in headers {
        arguments.extend(["-H", header]);
    }
    arguments.push("http://front:8080/records/7?token=abc");
    mesh.exec("client-0.lab", &arguments)
}

/// `name of the service` `kind` (2 server, 3 client) of each span on the way, outermost first.
const HOPS: [(&str, u64); 6] = [
    ("client.lab", 3),
    ("front.lab", 2),
    ("front.lab", 3),
    ("middle.lab", 2),
    ("middle.lab", 3),
    ("back.lab", 2),
];

fn of_hop(spans: &[Value], (service, kind): (&str, u64)) -> Option<Value> {
    let found = spans
        .iter()
        .find(|span| span["service"] == service && span["kind"] == kind);
    found.cloned()
}

fn check_hop(span: &Value, parent: &Value, server: &str) -> Result {
    let attributes = &span["attributes"];
    let service = span["service"].as_str().unwrap_or_default();
    let wanted = [
        ("istio.canonical_service", service.trim_end_matches(".lab")),
        ("istio.canonical_revision", "latest"),
        ("istio.namespace", "lab"),
        ("istio.mesh_id", "cluster.local"),
        ("component", "proxy"),
        ("http.method", "GET"),
        ("http.status_code", "200"),
        ("response_flags", "-"),
        ("team", "records"),
    ];
    for (key, value) in wanted {
        if attributes[key] != value {
            return Err(format!(
                "{service}: {key} is {} instead of {value}: {span:#}",
                attributes[key]
            )
            .into());
        }
    }
    let url = attributes["http.url"].as_str().unwrap_or_default();
    let is_right = url.ends_with("/records/7?token=abc")
        && attributes["guid:x-request-id"]
            .as_str()
            .is_some_and(|id| id.len() == 36)
        && attributes["node_id"]
            .as_str()
            .is_some_and(|node| !node.is_empty())
        && attributes["peer.address"].is_string()
        && attributes["upstream_cluster"].is_string();
    if !is_right || span["name"] != format!("{server}.lab.svc.cluster.local:8080/*") {
        return Err(format!("{service}: {span:#}").into());
    }
    if span["parent"] != parent["span"] || span["trace"] != parent["trace"] {
        return Err(format!("{service}: its parent is not {parent:#}\n{span:#}").into());
    }
    Ok(())
}

fn traced(plane: Plane) -> Result<Outcome> {
    if !lab::python_has("grpc, opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc") {
        return Ok(Outcome::Skipped(MISSING.into()));
    }
    let collector = Collector::start(plane, "hops")?;
    let mesh = mesh(plane, &collector, "100")?;
    call(&mesh, &["x-caller: nurse"])?;
    let mut spans = Vec::new();
    eventually(
        "all six spans are at the collector",
        Duration::from_secs(30),
        || {
            spans = collector.spans();
            HOPS.iter()
                .all(|hop| of_hop(&spans, *hop).is_some())
                .then_some(())
        },
    )
    .map_err(|error| format!("{error}: {spans:#?}"))?;
    let mut hops = HOPS.iter().filter_map(|hop| of_hop(&spans, *hop));
    let first = hops.next().ok_or("no span")?;
    if first["parent"] != "" || first["attributes"]["caller"] != "nurse" {
        return Err(format!("the first span: {first:#}").into());
    }
    let mut parent = first;
    for (span, server) in hops.zip(["front", "middle", "middle", "back", "back"]) {
        check_hop(&span, &parent, server)?;
        // One machine, one clock. When a span ends says less: an answer may be read before its sender is done with it.
        if parent["start"].as_u64() > span["start"].as_u64() {
            return Err(format!("a span begins before its parent: {parent:#}\n{span:#}").into());
        }
        parent = span;
    }
    if spans.len() != HOPS.len() {
        return Err(format!("{} spans of one request: {spans:#?}", spans.len()).into());
    }
    // Envoy trusts no address where nobody tells it to (since 1.33), and keeps spans too long for silence to be told.
    if plane == Plane::Rajut {
        rarer(&mesh, &collector, &spans)?;
    }
    mesh.down()?;
    Ok(Outcome::Passed)
}

/// The namespace's own word: nothing is traced at random, the server of `back` reports nothing at all.
const RARER: &str = "
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: rare, namespace: lab}
spec:
  tracing: [{randomSamplingPercentage: 0}]
---
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: silent, namespace: lab}
spec:
  selector: {matchLabels: {app: back}}
  tracing: [{match: {mode: SERVER}, disableSpanReporting: true}]
";

fn rarer(mesh: &Mesh, collector: &Collector, before: &[Value]) -> Result {
    mesh.apply(RARER)?;
    // It has arrived where a request leaves no span; those before it may.
    let mut known = before.len();
    eventually("nothing is traced", Duration::from_secs(30), || {
        call(mesh, &[]).ok()?;
        std::thread::sleep(Duration::from_millis(2500));
        let now = collector.spans().len();
        let settled = now == known;
        known = now;
        settled.then_some(())
    })?;
    // A trusted caller forces it: one private address before it, as a gateway writes it.
    call(mesh, &["x-envoy-force-trace: true", "x-forwarded-for: 10.1.2.3"])?;
    let forced = |spans: &[Value]| -> Vec<Value> {
        let new = spans.iter().skip(known);
        new.cloned().collect()
    };
    eventually(
        "the forced trace is there, but for its last span",
        Duration::from_secs(30),
        || {
            let spans = forced(&collector.spans());
            HOPS[..5]
                .iter()
                .all(|hop| of_hop(&spans, *hop).is_some())
                .then_some(())
        },
    )?;
    let spans = forced(&collector.spans());
    if of_hop(&spans, HOPS[5]).is_some() {
        return Err("the silent server has reported a span".into());
    }
    // Anybody else asks in vain.
    let known = collector.spans().len();
    call(
        mesh,
        &["x-envoy-force-trace: true", "x-forwarded-for: 203.0.113.9"],
    )?;
    std::thread::sleep(Duration::from_millis(2500));
    let now = collector.spans().len();
    if now != known {
        return Err(format!("{} spans for a caller from outside", now - known).into());
    }
    Ok(())
}

/// The value of a header that `back` was sent.
fn told<'t>(answer: &'t str, name: &str) -> &'t str {
    let line = answer
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    line.unwrap_or_default()
}

fn propagated(plane: Plane) -> Result<Outcome> {
    if !lab::python_has("grpc, opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc") {
        return Ok(Outcome::Skipped(MISSING.into()));
    }
    let collector = Collector::start(plane, "headers")?;
    let mesh = mesh(plane, &collector, "100")?;
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let span = "b7ad6b7169203331";
    let w3c = format!("traceparent: 00-{trace}-{span}-01");
    let single = format!("b3: {trace}-{span}-1");
    let multi = [
        format!("x-b3-traceid: {trace}"),
        format!("x-b3-spanid: {span}"),
        "x-b3-sampled: 1".to_owned(),
    ];
    let uber = format!("uber-trace-id: {trace}:{span}:0:1");
    let cases: [(&str, Vec<&str>); 4] = [
        ("traceparent", vec![&w3c, "tracestate: a=b", "baggage: patient=7"]),
        ("b3", vec![&single]),
        ("x-b3-traceid", multi.iter().map(String::as_str).collect()),
        ("uber-trace-id", vec![&uber]),
    ];
    for (header, headers) in cases {
        let before = collector.spans().len();
        let answer = call(&mesh, &headers)?;
        let value = told(&answer, header).to_owned();
        // A new span of the same trace, in the form that the caller speaks.
        if !value.contains(trace) || value.contains(span) {
            return Err(format!("{header}: {value} arrives: {answer}").into());
        }
        if header == "traceparent"
            && (told(&answer, "tracestate"), told(&answer, "baggage")) != ("a=b", "patient=7")
        {
            return Err(format!("{header}: {answer}").into());
        }
        let mut spans = Vec::new();
        eventually(
            "the spans are of the caller's trace",
            Duration::from_secs(20),
            || {
                spans = collector.spans().into_iter().skip(before).collect();
                HOPS.iter()
                    .all(|hop| of_hop(&spans, *hop).is_some())
                    .then_some(())
            },
        )?;
        let first = of_hop(&spans, HOPS[0]).unwrap_or_default();
        let last = of_hop(&spans, HOPS[5]).unwrap_or_default();
        if first["parent"] != span || spans.iter().any(|one| one["trace"] != trace) {
            return Err(format!("{header}: {spans:#?}").into());
        }
        let parent = last["parent"].as_str().unwrap_or_default();
        let is_right = match header {
            "x-b3-traceid" => {
                told(&answer, "x-b3-spanid") == last["span"] && told(&answer, "x-b3-parentspanid") == parent
            }
            _ => last["span"].as_str().is_some_and(|span| value.contains(span)),
        };
        if !is_right {
            return Err(format!("{header}: {value} arrives, the last span is {last:#}").into());
        }
    }
    collector_goes(mesh, collector)?;
    Ok(Outcome::Passed)
}

/// Without its collector no request waits, and what is lost is counted.
fn collector_goes(mesh: Mesh, collector: Collector) -> Result {
    drop(collector);
    for _ in 0..5 {
        call(&mesh, &[])?;
    }
    let admin = mesh.workload("client-0")?["adminAddress"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    eventually("lost spans are counted", Duration::from_secs(30), || {
        let text = crate::client::get(&admin, &admin, "/stats/prometheus")
            .ok()?
            .text();
        let line = text
            .lines()
            .find(|line| line.contains("spans_dropped") && !line.starts_with('#'))?;
        let lost: u64 = line.rsplit(' ').next()?.parse().ok()?;
        (lost >= 5).then_some(())
    })?;
    mesh.down()
}
