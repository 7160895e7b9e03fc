//! What is deployed changes while the mesh runs: workloads come, go and change with `apply`, `delete` and edited files,
//! and no request of those that stay is lost.

use std::{
    collections::BTreeSet,
    fs,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use crate::{
    client::{Load, get, steady},
    lab::{self, Workload},
    mesh::{Mesh, Setup, eventually},
    runner::{BOTH, Outcome, Plane, Result, Scenario},
};

pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "workloads_that_are_applied_edited_scaled_and_deleted_start_and_stop_without_a_lost_request",
        planes: BOTH,
        run: scaling,
    },
    Scenario {
        name: "with_explicit_ports_a_service_that_came_late_is_named_and_reached_after_a_restart",
        planes: BOTH,
        run: late,
    },
];

/// As long as starting and draining take on a loaded machine.
const PATIENCE: Duration = Duration::from_mins(1);

fn workload(name: &str, replicas: u32, more: &str) -> String {
    lab::yaml(&Workload {
        name,
        port: 8080,
        port_name: "http",
        replicas,
        run: format!("exec {} sample", env!("CARGO_BIN_EXE_rajut")),
        more,
    })
}

/// The names of what runs and is ready, where nothing else is listed.
fn ready(mesh: &Mesh) -> Option<Vec<String>> {
    let status = mesh.status().ok()?;
    let rows = status["workloads"].as_array()?;
    let name =
        |row: &serde_json::Value| (row["ready"] == true).then(|| row["name"].as_str().map(str::to_owned))?;
    rows.iter().map(name).collect()
}

fn becomes(mesh: &Mesh, wanted: &[&str]) -> Result {
    let mut last = None;
    eventually("", PATIENCE, || {
        last = ready(mesh);
        (last.as_deref()? == wanted).then_some(())
    })
    .map_err(|error| format!("{error}{wanted:?} is not what runs: {last:?}").into())
}

/// Which instances answer.
fn instances(address: &str) -> Result<BTreeSet<String>> {
    (0..12)
        .map(|_| {
            let answer = get(address, address, "/status/200")?;
            Ok(answer.json()?["instance"].as_str().unwrap_or("?").to_owned())
        })
        .collect()
}

fn answered_by(address: &str, wanted: &[&str]) -> Result {
    let mut last = None;
    eventually("", PATIENCE, || {
        last = instances(address).ok();
        last.as_ref()?.iter().eq(wanted).then_some(())
    })
    .map_err(|error| format!("{error}{wanted:?} are not who answers: {last:?}").into())
}

fn scaling(plane: Plane) -> Result<Outcome> {
    let namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: lab}\n";
    let mut setup = Setup::yaml(&format!("{namespace}{}", lab::STRICT)).arguments(&["-n", "lab"]);
    setup.files.push(("a.yaml".into(), workload("a", 1, "")));
    let mesh = Mesh::up(plane, &setup)?;
    let address = mesh.host_address("a")?;
    let (load, going) = (Load::default(), AtomicBool::new(true));
    std::thread::scope(|scope| -> Result {
        scope.spawn(|| {
            let on = || going.load(Ordering::Relaxed);
            let label = |_: &crate::client::Answer| String::new();
            steady(&load, &address, &address, "/status/200", 50, 4, &on, &label);
        });
        let done = changes(&mesh, &address);
        going.store(false, Ordering::Relaxed);
        done
    })?;
    load.check()?;
    println!("    {} requests", load.sent.load(Ordering::Relaxed));
    mesh.down()?;
    Ok(Outcome::Passed)
}

fn late(plane: Plane) -> Result<Outcome> {
    let namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: lab}\n";
    let arguments = ["-n", "lab", "--capture", "explicit"];
    let mut setup = Setup::yaml(&format!("{namespace}{}", lab::STRICT)).arguments(&arguments);
    setup.files.push(("a.yaml".into(), workload("a", 1, "")));
    let mesh = Mesh::up(plane, &setup)?;
    let late = || -> Result<Vec<String>> {
        let names = mesh.workload("a-0")?["lateServices"].as_array().cloned();
        let text = |name: serde_json::Value| name.as_str().map(str::to_owned);
        Ok(names.unwrap_or_default().into_iter().filter_map(text).collect())
    };
    if !late()?.is_empty() {
        return Err("a service is called late before one has come".into());
    }
    mesh.apply(&workload("b", 1, ""))?;
    becomes(&mesh, &["a-0", "b-0"])?;
    eventually("the late service is named", PATIENCE, || {
        (late().ok()? == ["b.lab:8080"]).then_some(())
    })?;
    let said = mesh.rajut(&["status"])?;
    if !said.contains("no ports yet: a-0 was started before b.lab:8080 came; `rajut restart a-0`") {
        return Err(format!("status does not name the late service:\n{said}").into());
    }
    mesh.rajut(&["restart", "a"])?;
    if !late()?.is_empty() {
        return Err("a service is called late after the restart".into());
    }
    let call = "curl -sS --fail --max-time 10 \"$B_URL/status/200\"";
    mesh.exec("a-0.lab", &["sh", "-c", call])?;
    answered_by(&mesh.host_address("a")?, &["a-0"])?;
    mesh.down()?;
    Ok(Outcome::Passed)
}

fn changes(mesh: &Mesh, address: &str) -> Result {
    // A new one, with its address on this host and its name for the others.
    mesh.apply(&workload("b", 1, ""))?;
    becomes(mesh, &["a-0", "b-0"])?;
    let other = mesh.host_address("b")?;
    answered_by(&other, &["b-0"])?;
    let call = [
        "curl",
        "-sS",
        "--fail",
        "--max-time",
        "10",
        "http://b:8080/status/200",
    ];
    mesh.exec("a-0.lab", &call)?;

    // More copies, then a change of each, then fewer.
    mesh.apply(&workload("a", 3, ""))?;
    becomes(mesh, &["a-0", "a-1", "a-2", "b-0"])?;
    answered_by(address, &["a-0", "a-1", "a-2"])?;
    let pids = |mesh: &Mesh| -> Result<Vec<u64>> {
        ["a-0", "a-1", "a-2"]
            .iter()
            .map(|name| Ok(mesh.workload(name)?["application"]["pid"].as_u64().unwrap_or(0)))
            .collect()
    };
    let before = pids(mesh)?;
    mesh.apply(&workload("a", 3, "  env: [{name: CHANGED, value: '1'}]\n"))?;
    eventually("every copy is another process", PATIENCE, || {
        let now = pids(mesh).ok()?;
        now.iter()
            .zip(&before)
            .all(|(now, before)| now != before && *now != 0)
            .then_some(())
    })?;
    becomes(mesh, &["a-0", "a-1", "a-2", "b-0"])?;
    mesh.apply(&workload("a", 1, "  env: [{name: CHANGED, value: '1'}]\n"))?;
    becomes(mesh, &["a-0", "b-0"])?;
    answered_by(address, &["a-0"])?;
    mesh.delete(&workload("b", 1, ""))?;
    becomes(mesh, &["a-0"])?;

    // By files, too.
    let file = mesh.folder.join("c.yaml");
    fs::write(&file, workload("c", 2, ""))?;
    becomes(mesh, &["a-0", "c-0", "c-1"])?;
    answered_by(&mesh.host_address("c")?, &["c-0", "c-1"])?;
    fs::remove_file(&file)?;
    becomes(mesh, &["a-0"])
}
