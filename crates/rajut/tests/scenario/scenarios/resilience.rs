//! What breaks alone, and what goes on.

use std::{
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use super::clinic;
use crate::{
    client::{Load, get, steady},
    lab::{self, Workload},
    mesh::{Mesh, Setup, eventually, processes_of},
    runner::{BOTH, OURS, Outcome, Plane, Result, Scenario},
};

pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "killing_the_control_plane_leaves_traffic_untouched",
        planes: BOTH,
        run: control_plane,
    },
    Scenario {
        name: "killing_a_sidecar_affects_its_workload_alone_and_it_comes_back",
        planes: BOTH,
        run: sidecar,
    },
    Scenario {
        name: "a_replica_that_answers_503_is_ejected_and_returns_and_500s_do_not_eject",
        planes: BOTH,
        run: outlier,
    },
    Scenario {
        name: "down_leaves_nothing_behind_also_after_a_kill_of_the_supervisor",
        planes: OURS,
        run: clean,
    },
];

fn kill(pid: &serde_json::Value) -> Result {
    let pid = pid
        .as_u64()
        .filter(|pid| *pid > 1)
        .ok_or(format!("not a process: {pid}"))?;
    let killed = Command::new("kill").args(["-9", &pid.to_string()]).status()?;
    if killed.success() {
        Ok(())
    } else {
        Err(format!("process {pid} could not be killed").into())
    }
}

fn control_plane(plane: Plane) -> Result<Outcome> {
    let mesh = Mesh::up(plane, &Setup::default())?;
    let address = mesh.host_address("api-gateway")?;
    let (load, going) = (Load::default(), AtomicBool::new(true));
    std::thread::scope(|scope| -> Result {
        scope.spawn(|| {
            let on = || going.load(Ordering::Relaxed);
            steady(
                &load,
                &address,
                &address,
                "/status/200",
                100,
                4,
                &on,
                &clinic::version,
            );
        });
        let done = (|| -> Result {
            let before = mesh.status()?["controlPlane"]["restarts"].as_u64().unwrap_or(0);
            kill(&mesh.status()?["controlPlane"]["pid"])?;
            eventually("the control plane is back", Duration::from_mins(1), || {
                let status = mesh.status().ok()?;
                let row = &status["controlPlane"];
                (row["restarts"].as_u64() > Some(before) && row["running"] == true).then_some(())
            })?;
            // A change reaches the proxies again: they have resynchronised by themselves.
            eventually(
                "a change is acknowledged by proxies",
                Duration::from_mins(1),
                || {
                    let applied = mesh.apply(&super::traffic::split(0, 100)).ok()?;
                    (applied["acknowledged"].as_u64() > Some(0)).then_some(())
                },
            )?;
            eventually("the change is in force", Duration::from_secs(20), || {
                let versions: Vec<_> = (0..10)
                    .map(|_| {
                        get(&address, &address, "/status/200")
                            .map(|a| clinic::version(&a))
                            .ok()
                    })
                    .collect();
                versions
                    .iter()
                    .all(|version| version.as_deref() == Some("canary"))
                    .then_some(())
            })?;
            // The new control plane, which knows nothing of before, is told of the calls that go on.
            eventually("calls are reported again", Duration::from_secs(30), || {
                let top = mesh.json(&["top"]).ok()?;
                let rows = top["services"].as_array()?;
                let is_called = |row: &serde_json::Value| {
                    let name = row["service"].as_str().unwrap_or_default();
                    name.starts_with("api-gateway.") && row["requests"].as_u64() > Some(0)
                };
                rows.iter().any(is_called).then_some(())
            })
        })();
        going.store(false, Ordering::Relaxed);
        done
    })?;
    load.check()?;
    mesh.down()?;
    Ok(Outcome::Passed)
}

fn sidecar(plane: Plane) -> Result<Outcome> {
    let mesh = Mesh::up(plane, &Setup::default())?;
    let (victim, other) = (
        mesh.host_address("auth-service")?,
        mesh.host_address("threat-detection")?,
    );
    let (load, going) = (Load::default(), AtomicBool::new(true));
    std::thread::scope(|scope| -> Result {
        scope.spawn(|| {
            let on = || going.load(Ordering::Relaxed);
            steady(&load, &other, &other, "/status/200", 50, 4, &on, &clinic::version);
        });
        let done = (|| -> Result {
            kill(&mesh.workload("auth-service-0")?["sidecar"]["pid"])?;
            eventually(
                "the sidecar is back and its workload answers",
                Duration::from_mins(1),
                || {
                    let row = mesh.workload("auth-service-0").ok()?;
                    let restarted = row["sidecar"]["restarts"].as_u64() > Some(0);
                    let answer = get(&victim, &victim, "/status/200").ok()?;
                    (restarted && answer.status == 200).then_some(())
                },
            )
        })();
        going.store(false, Ordering::Relaxed);
        done
    })?;
    load.check()?;
    mesh.down()?;
    Ok(Outcome::Passed)
}

fn outlier(plane: Plane) -> Result<Outcome> {
    let mut text = format!(
        "apiVersion: v1\nkind: Namespace\nmetadata: {{name: lab}}\n{}",
        lab::STRICT
    );
    for (name, run) in [("flaky", "exec $RAJUT sample"), ("client", "exec $RAJUT sample")] {
        let replicas = if name == "flaky" { 4 } else { 1 };
        let run = run.replace("$RAJUT", env!("CARGO_BIN_EXE_rajut"));
        text += &lab::yaml(&Workload {
            name,
            port: 8080,
            port_name: "http",
            replicas,
            run,
            more: "",
        });
    }
    text += "
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: flaky, namespace: lab}
spec:
  host: flaky
  trafficPolicy:
    loadBalancer: {simple: ROUND_ROBIN}
    outlierDetection: {consecutiveGatewayErrors: 5, consecutive5xxErrors: 0, interval: 1s, baseEjectionTime: 3s, maxEjectionPercent: 50}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: flaky, namespace: lab}
spec:
  hosts: [flaky]
  http:
  - retries: {attempts: 0}
    route: [{destination: {host: flaky}}]
";
    let mesh = Mesh::up(plane, &Setup::yaml(&text).arguments(&["-n", "lab"]))?;
    let address = mesh.host_address("flaky")?;
    let failures = |path: &str, count: usize| -> Result<(usize, std::collections::BTreeSet<String>)> {
        let mut failed = 0;
        let mut instances = std::collections::BTreeSet::new();
        for _ in 0..count {
            let answer = get(&address, &address, path)?;
            failed += usize::from(answer.status != 200);
            if answer.status == 200 {
                instances.insert(answer.json()?["instance"].as_str().unwrap_or("?").to_owned());
            }
        }
        Ok((failed, instances))
    };
    let mut total = 0;
    eventually("the replica is ejected", Duration::from_secs(20), || {
        let (failed, instances) = failures("/fail?rate=1&status=503&instance=flaky-0", 12).ok()?;
        total += failed;
        (failed == 0 && !instances.contains("flaky-0")).then_some(())
    })?;
    println!("    {total} answers 503 until the ejection was in force");
    // Envoy merges such changes over a second before its workers see them; ours are in force with the fifth answer.
    if total < 5 || (plane == Plane::Rajut && total > 6) {
        return Err(format!("a replica is ejected after five 503s, not {total}").into());
    }
    eventually(
        "the replica returns after its ejection",
        Duration::from_secs(40),
        || {
            let (_, instances) = failures("/", 12).ok()?;
            instances.contains("flaky-0").then_some(())
        },
    )?;
    let (failed, _) = failures("/fail?rate=1&status=500&instance=flaky-0", 60)?;
    if failed < 12 {
        return Err(format!("500s must not eject: only {failed} of 60 reached the failing replica").into());
    }
    let limited = limited_of(&address, 60)?;
    if limited < 12 {
        return Err(format!("429s are no errors unless they are named: {limited} of 60 came").into());
    }
    mesh.apply(NAMED)?;
    eventually(
        "who answers with a named status is ejected",
        Duration::from_secs(30),
        || (limited_of(&address, 12).ok()? == 0).then_some(()),
    )?;
    mesh.down()?;
    Ok(Outcome::Passed)
}

/// 429 counts, and nothing else.
const NAMED: &str = "
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: flaky, namespace: lab}
spec:
  host: flaky
  trafficPolicy:
    loadBalancer: {simple: ROUND_ROBIN}
    outlierDetection: {consecutive5xxErrors: 5, outlierDetectionHttpErrorCodes: [401, 429], interval: 1s, baseEjectionTime: 30s, maxEjectionPercent: 50}
";

/// How many of so many requests are answered with 429, by one replica of four.
fn limited_of(address: &str, count: usize) -> Result<usize> {
    let mut failed = 0;
    for _ in 0..count {
        let answer = get(address, address, "/fail?rate=1&status=429&instance=flaky-0")?;
        failed += usize::from(answer.status == 429);
    }
    Ok(failed)
}

fn clean(plane: Plane) -> Result<Outcome> {
    let mesh = Mesh::up(plane, &Setup::default())?;
    let supervisors: Vec<_> = processes_of(&mesh.state)
        .into_iter()
        .filter(|line| line.contains(" up "))
        .collect();
    let supervisor = supervisors
        .first()
        .ok_or("no supervisor")?
        .split(' ')
        .next()
        .unwrap_or_default()
        .to_owned();
    if !Command::new("kill").args(["-9", &supervisor]).status()?.success() {
        return Err("the supervisor could not be killed".into());
    }
    mesh.down()?;
    Ok(Outcome::Passed)
}
