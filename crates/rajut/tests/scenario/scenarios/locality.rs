//! Where requests go by the place of the client and of the endpoints: `localityLbSetting`, in its forms, each with the
//! field and without it; and a place that is lost.

use std::{
    collections::BTreeMap,
    process::Command,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::{
    lab,
    mesh::{Mesh, Setup, eventually},
    runner::{BOTH, Outcome, Plane, Result, Scenario},
};

pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "requests_stay_near_by_place_and_label_and_are_shared_as_distribute_says",
        planes: BOTH,
        run: rows,
    },
    Scenario {
        name: "a_place_that_hangs_is_left_for_the_next_one_without_a_failed_request",
        planes: BOTH,
        run: lost,
    },
];

/// How long a change may take on either data plane.
const DEADLINE: Duration = Duration::from_secs(20);

/// A workload of the service `api` (and `away`, where it is), at a place.
fn workload(name: &str, labels: &str) -> String {
    format!(
        "---
apiVersion: mesh.rajut.dev/v1alpha1
kind: LocalWorkload
metadata: {{name: {name}, namespace: lab}}
spec:
  labels: {{{labels}}}
  ports: [{{containerPort: 8080}}]
  readinessProbe: {{tcpSocket: {{port: 8080}}, periodSeconds: 1}}
  run: exec {} sample
",
        env!("CARGO_BIN_EXE_rajut")
    )
}

fn service(name: &str, selector: &str, more: &str) -> String {
    format!(
        "---
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: lab}}
spec:
  selector: {{{selector}}}
  ports: [{{name: http, port: 8080, targetPort: 8080}}]
  {more}
"
    )
}

fn setup() -> Setup {
    let parts = [
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: lab}\n---\n\
         apiVersion: v1\nkind: Namespace\nmetadata: {name: istio-system}\n"
            .to_owned(),
        lab::STRICT.to_owned(),
        service("api", "app: api", ""),
        service("away", "away: \"yes\"", ""),
        workload("near", "app: api, istio-locality: west.a.1, rack: r1"),
        workload(
            "beside",
            "app: api, topology.kubernetes.io/region: west, topology.kubernetes.io/zone: b, rack: r1",
        ),
        workload("far", "app: api, istio-locality: east.a, rack: r2, away: \"yes\""),
        workload(
            "north",
            "app: api, istio-locality: north.a, rack: r3, away: \"yes\"",
        ),
        workload("client", "app: client, istio-locality: west.a.1, rack: r2"),
    ];
    Setup::yaml(&parts.concat()).arguments(&["-n", "lab"])
}

/// A rule for a service; `setting` is that of localities, `ejects` says whether there is outlier detection.
fn rule(service: &str, setting: &str, ejects: bool) -> String {
    let ejection = "    outlierDetection: {consecutiveGatewayErrors: 3, interval: 1s, baseEjectionTime: 30s, maxEjectionPercent: 100}\n";
    format!(
        "apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: {service}, namespace: lab}}
spec:
  host: {service}
  trafficPolicy:
    connectionPool: {{http: {{maxRequestsPerConnection: 1}}, tcp: {{connectTimeout: 250ms}}}}
{}    loadBalancer:
      simple: ROUND_ROBIN
{}",
        if ejects { ejection } else { "" },
        if setting.is_empty() {
            String::new()
        } else {
            format!("      localityLbSetting: {setting}\n")
        }
    )
}

const ASK: &str = "
import collections, json, sys, urllib.request
seen = collections.Counter()
for _ in range(int(sys.argv[2])):
    with urllib.request.urlopen(f'http://{sys.argv[1]}:8080/', timeout=10) as answer:
        seen[answer.headers['x-sample-instance'].rsplit('-', 1)[0]] += 1
print(json.dumps(seen))
";

/// Who answers so many requests of the client.
fn seen(mesh: &Mesh, service: &str, count: u32) -> Result<BTreeMap<String, u32>> {
    let text = mesh.exec(
        "client-0.lab",
        &[&lab::python(), "-c", ASK, service, &count.to_string()],
    )?;
    Ok(serde_json::from_str(&text)?)
}

/// Waits until `so many` requests are answered as `wanted`.
fn until(
    mesh: &Mesh,
    what: &str,
    service: &str,
    count: u32,
    wanted: &dyn Fn(&BTreeMap<String, u32>) -> bool,
) -> Result {
    let mut last = Ok(BTreeMap::new());
    let found = eventually(what, DEADLINE, || {
        last = seen(mesh, service, count);
        last.as_ref().ok().filter(|seen| wanted(seen)).map(drop)
    });
    found.map_err(|error| format!("{error}; the last were {last:?}").into())
}

/// With a setting requests go to `to` alone, without it not.
fn only(mesh: &Mesh, service: &str, with: &str, without: &str, to: &str) -> Result {
    let names = |seen: &BTreeMap<String, u32>| seen.keys().cloned().collect::<Vec<_>>();
    mesh.apply(with)?;
    until(mesh, &format!("all requests go to {to}"), service, 12, &|seen| {
        names(seen) == [to]
    })?;
    mesh.apply(without)?;
    until(mesh, "others get requests without it", service, 12, &|seen| {
        seen.keys().any(|name| name != to)
    })
}

fn rows(plane: Plane) -> Result<Outcome> {
    let mesh = Mesh::up(plane, &setup())?;
    // Nearness needs something that says that an endpoint failed.
    only(
        &mesh,
        "api",
        &rule("api", "", true),
        &rule("api", "", false),
        "near",
    )?;
    let off = rule("api", "{enabled: false}", true);
    only(&mesh, "api", &rule("api", "{enabled: true}", true), &off, "near")?;
    // The client's own label, and a value that is written.
    let by_rack = rule("api", "{failoverPriority: [rack]}", true);
    only(&mesh, "api", &by_rack, &rule("api", "", true), "far")?;
    let by_value = rule("api", "{failoverPriority: [rack=r3]}", true);
    only(&mesh, "api", &by_value, &rule("api", "", true), "north")?;
    // Of foreign regions one comes first.
    let next = rule("away", "{failover: [{from: west, to: north}]}", true);
    only(&mesh, "away", &next, &rule("away", "", true), "north")?;
    // The mesh's own setting, under a rule that says nothing.
    mesh.apply(&rule("api", "", true))?;
    let settings = |text: &str| {
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: istio, namespace: istio-system}}\ndata:\n  mesh: |\n    \
             localityLbSetting: {text}\n"
        )
    };
    let (on, off) = (settings("{enabled: true}"), settings("{enabled: false}"));
    only(&mesh, "api", &on, &off, "near")?;
    // A service's own, without a rule.
    mesh.delete(&rule("api", "", true))?;
    let close = service("api", "app: api", "trafficDistribution: PreferClose");
    only(&mesh, "api", &close, &service("api", "app: api", ""), "near")?;
    // Shares.
    let shares = "{distribute: [{from: 'west/a/*', to: {'west/*': 80, east: 20}}]}";
    mesh.apply(&rule("api", shares, false))?;
    until(&mesh, "80 and 20 percent", "api", 200, &|seen| {
        let of = |names: &[&str]| names.iter().filter_map(|name| seen.get(*name)).sum::<u32>();
        // Five standard deviations, should they be drawn.
        (130..=188).contains(&of(&["near", "beside"])) && of(&["far"]) == 200 - of(&["near", "beside"])
    })?;
    mesh.apply(&rule("api", "", false))?;
    until(&mesh, "all alike without it", "api", 80, &|seen| {
        seen.values().filter(|count| (10..=30).contains(*count)).count() == 4
    })?;
    mesh.down()?;
    Ok(Outcome::Passed)
}

/// One request every 20 ms until the time is over: when it began, how long it took, who answered with which status.
const WATCH: &str = "
import json, sys, time, urllib.request, urllib.error
rows, end = [], time.time() + float(sys.argv[1])
while time.time() < end:
    began = time.time()
    try:
        with urllib.request.urlopen('http://api:8080/', timeout=10) as answer:
            row = [answer.status, answer.headers['x-sample-instance'].rsplit('-', 1)[0]]
    except urllib.error.HTTPError as error:
        row = [error.code, '']
    rows.append([began, time.time() - began] + row)
    time.sleep(max(0, began + 0.02 - time.time()))
print(json.dumps(rows))
";

const RETRIES: &str = "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: api, namespace: lab}
spec:
  hosts: [api]
  http:
  - retries: {attempts: 5, perTryTimeout: 250ms, retryOn: 'connect-failure,refused-stream,reset,5xx', backoff: 25ms}
    route: [{destination: {host: api}}]
";

fn signal(pid: u64, name: &str) -> Result {
    let sent = Command::new("kill").args([name, &pid.to_string()]).status()?;
    if sent.success() {
        Ok(())
    } else {
        Err(format!("{name} was not sent to {pid}").into())
    }
}

fn lost(plane: Plane) -> Result<Outcome> {
    let mesh = Mesh::up(plane, &setup())?;
    mesh.apply(&format!("{}---\n{RETRIES}", rule("api", "", true)))?;
    until(&mesh, "all requests stay near", "api", 12, &|seen| {
        seen.keys().map(String::as_str).eq(["near"])
    })?;
    let pid = mesh.workload("near-0")?["sidecar"]["pid"].as_u64();
    let pid = pid.filter(|pid| *pid > 1).ok_or("near has no sidecar")?;
    let (stopped, text) = std::thread::scope(|scope| {
        let python = lab::python();
        let watch = scope.spawn({
            let mesh = &mesh;
            move || {
                mesh.exec("client-0.lab", &[&python, "-c", WATCH, "8"])
                    .map_err(|error| error.to_string())
            }
        });
        // Nothing is waited for here but that requests are under way.
        std::thread::sleep(Duration::from_millis(1500));
        let stopped = signal(pid, "-STOP").map(|()| SystemTime::now());
        let text = watch.join().unwrap_or_else(|_| Err("the client panicked".into()));
        (stopped, text)
    });
    let continued = signal(pid, "-CONT");
    let stopped = stopped?.duration_since(UNIX_EPOCH)?.as_secs_f64();
    continued?;
    let rows: Vec<(f64, f64, u16, String)> = serde_json::from_str(&text?)?;
    let failed = rows.iter().filter(|row| row.2 != 200).count();
    // Traffic has moved with the first request that is answered elsewhere; from then on all are.
    let ended = |row: &&(f64, f64, u16, String)| row.0 + row.1 - stopped;
    let elsewhere = rows.iter().filter(|row| ended(row) > 0.0 && row.3 == "beside");
    let moved = elsewhere.map(|row| ended(&row)).fold(f64::INFINITY, f64::min);
    let after: Vec<_> = rows.iter().filter(|row| ended(row) > moved).collect();
    println!(
        "    {} requests, {failed} failed; traffic had moved {:.0} ms after the place hung",
        rows.len(),
        moved * 1000.0
    );
    if failed > 0 {
        return Err(format!("{failed} of {} requests failed", rows.len()).into());
    }
    if moved > 10.0 || after.len() < 20 || after.iter().any(|row| row.3 != "beside") {
        return Err(format!("traffic moved after {moved:.1} s: {:?}", after.last()).into());
    }
    mesh.down()?;
    Ok(Outcome::Passed)
}
