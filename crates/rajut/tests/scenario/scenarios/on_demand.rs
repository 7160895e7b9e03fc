//! Clusters on demand: a sidecar is told of a service when its application first calls it, and forgets it after disuse.

use std::{collections::BTreeSet, fs, time::Duration};

use crate::{
    lab::{self, Workload},
    mesh::{Mesh, Setup, eventually},
    runner::{OURS, Outcome, Plane, Result, Scenario},
};

pub const SCENARIOS: &[Scenario] = &[Scenario {
    name: "fifty_unused_services_answer_at_once_and_are_forgotten_after_disuse",
    planes: OURS,
    run: fifty,
}];

const SERVICES: usize = 50;
/// The goal is 100 ms.
const FIRST_MAX_MS: f64 = 1000.0;
/// How much more a sidecar may hold after it has forgotten.
const LEFT_MAX_KIB: u64 = 2 * 1024;
/// Disuse after which a service is forgotten here.
const FORGET_AFTER: &str = "4s";

fn setup() -> Setup {
    let one = |name| {
        lab::yaml(&Workload {
            name,
            port: 8080,
            port_name: "http",
            replicas: 1,
            run: format!("exec {} sample", env!("CARGO_BIN_EXE_rajut")),
            more: "",
        })
    };
    let namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: lab}\n";
    let mut text = format!("{namespace}{}{}{}", lab::STRICT, one("store"), one("client"));
    for number in 0..SERVICES {
        text += &format!(
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: svc-{number:02}, namespace: lab}}\nspec:\n  selector: {{app: \
             store}}\n  ports: [{{name: http, port: 8080, targetPort: 8080}}]\n"
        );
    }
    Setup::yaml(&text).arguments(&["-n", "lab"])
}

/// Calls every service once, `width` at a time; prints the milliseconds of the first and of the slowest call.
fn calls(width: usize) -> String {
    format!(
        r#"
import time, urllib.request
from concurrent.futures import ThreadPoolExecutor
def call(number):
    began = time.monotonic()
    with urllib.request.urlopen(f"http://svc-{{number:02}}:8080/status/200", timeout=20) as answer:
        assert answer.status == 200
        answer.read()
    return (time.monotonic() - began) * 1000
with ThreadPoolExecutor({width}) as pool:
    took = list(pool.map(call, range({SERVICES})))
print(took[0], max(took))
"#
    )
}

fn timed(mesh: &Mesh, width: usize) -> Result<(f64, f64)> {
    let said = lab::from_client(mesh, &calls(width))?;
    let mut numbers = said.split_whitespace().map(str::parse::<f64>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(first)), Some(Ok(slowest))) => Ok((first, slowest)),
        _ => Err(format!("the client said {said:?}").into()),
    }
}

/// The services of which the client's sidecar has the cluster.
fn known(mesh: &Mesh) -> Option<usize> {
    let dump = mesh
        .json(&["proxy-config", "clusters", "client-0.lab"])
        .ok()?
        .to_string();
    let names = dump.split("svc-").skip(1).filter_map(|rest| rest.get(..2));
    Some(names.collect::<BTreeSet<_>>().len())
}

fn anonymous_kib(pid: u64) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = text.lines().find(|line| line.starts_with("Pss_Anon:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

fn fifty(plane: Plane) -> Result<Outcome> {
    let mesh = Mesh::prepare(plane, &setup())?;
    let folder = mesh.folder.display().to_string();
    let up = [
        "up",
        "--detach",
        "-n",
        "lab",
        "--data-plane",
        plane.name(),
        &folder,
    ];
    let output = mesh
        .command(&up)
        .env("RAJUT_FORGET_AFTER", FORGET_AFTER)
        .output()?;
    if !output.status.success() {
        return Err(format!("`up` failed: {}", String::from_utf8_lossy(&output.stdout)).into());
    }
    let patience = Duration::from_mins(1);
    eventually("the sidecar knows no service", patience, || {
        (known(&mesh)? == 0).then_some(())
    })?;
    let (first, _) = timed(&mesh, 1)?;
    println!("    the first service of all within {first:.1} ms");
    let pid = mesh.workload("client-0")?["sidecar"]["pid"]
        .as_u64()
        .ok_or("no sidecar")?;
    // What the first calls of all take (TLS, code that writes to its data) is no service's: it is there before.
    eventually("all services are forgotten", patience, || {
        (known(&mesh)? == 0).then_some(())
    })?;
    let before = anonymous_kib(pid).ok_or("no memory figure")?;
    for (what, width) in [("one after the other", 1), ("in a burst", SERVICES)] {
        let (first, slowest) = timed(&mesh, width)?;
        let now = known(&mesh);
        println!(
            "    {SERVICES} services {what}: the first within {first:.1} ms, the slowest {slowest:.1} ms"
        );
        if first > FIRST_MAX_MS {
            return Err(format!("the first call took {first:.1} ms").into());
        }
        if now.is_none_or(|now| now == 0) {
            return Err(format!("after the calls the sidecar knows {now:?} services").into());
        }
        eventually("all services are forgotten", patience, || {
            (known(&mesh)? == 0).then_some(())
        })?;
    }
    let after = eventually("the memory is back", patience, || {
        anonymous_kib(pid).filter(|now| *now <= before + LEFT_MAX_KIB)
    })?;
    println!("    the sidecar held {before} KiB of its own before, {after} KiB after it had forgotten");
    mesh.down()?;
    Ok(Outcome::Passed)
}
