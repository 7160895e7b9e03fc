//! Large bodies through two sidecars: what they hold of them stays the same however large they are.

use std::{
    fs,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use crate::{
    lab::{self, Workload},
    mesh::{Mesh, Setup},
    runner::{BOTH, Outcome, Plane, Result, Scenario},
};

pub const SCENARIOS: &[Scenario] = &[Scenario {
    name: "a_gibibyte_up_and_down_passes_two_sidecars_in_constant_memory",
    planes: BOTH,
    run: bulk,
}];

/// What a sidecar's memory may grow by while a body passes.
const GROWTH_MAX_KIB: u64 = 40 * 1024;
const SIZE: u64 = 1 << 30;

fn resident_kib(pid: u64) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// Most that each of the processes had while `work` was done, in KiB.
fn watched<T>(pids: &[u64], work: impl FnOnce() -> Result<T>) -> Result<(T, Vec<u64>)> {
    let going = AtomicBool::new(true);
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut most = vec![0; pids.len()];
            while going.load(Ordering::Relaxed) {
                for (most, pid) in most.iter_mut().zip(pids) {
                    *most = (*most).max(resident_kib(*pid).unwrap_or(u64::MAX));
                }
                std::thread::sleep(Duration::from_millis(50));
            }
            most
        });
        let done = work();
        going.store(false, Ordering::Relaxed);
        let most = watcher.join().map_err(|_| "the watcher panicked")?;
        Ok((done?, most))
    })
}

/// Bytes from a pipe, so in chunks; the server says how many it read.
fn upload(mesh: &Mesh, size: u64) -> Result {
    let line = format!(
        "head -c {size} /dev/zero | curl -sS --fail --max-time 300 -T - -X POST http://store:8080/upload"
    );
    counted(&mesh.exec("client-0.lab", &["sh", "-c", &line])?, size)
}

/// A body of a stated length, which curl counts.
fn download(mesh: &Mesh, size: u64) -> Result {
    let url = format!("http://store:8080/bytes/{size}");
    let call = [
        "curl",
        "-sS",
        "--fail",
        "--max-time",
        "300",
        "-o",
        "/dev/null",
        "-w",
        "%{size_download}",
        &url,
    ];
    counted(&mesh.exec("client-0.lab", &call)?, size)
}

fn counted(said: &str, size: u64) -> Result {
    if said.contains(&size.to_string()) {
        Ok(())
    } else {
        Err(format!("{size} bytes were sent, and what came is {said:?}").into())
    }
}

fn two() -> Setup {
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
    let text = format!("{namespace}{}{}{}", lab::STRICT, one("store"), one("client"));
    Setup::yaml(&text).arguments(&["-n", "lab"])
}

fn bulk(plane: Plane) -> Result<Outcome> {
    let mesh = Mesh::up(plane, &two())?;
    let mut pids = Vec::new();
    for workload in ["client-0", "store-0"] {
        let row = mesh.workload(workload)?;
        pids.push(row["sidecar"]["pid"].as_u64().ok_or("no sidecar")?);
    }
    // What the first bytes of all take (TLS, pools, buffers) is there before, whatever the size.
    upload(&mesh, 1 << 20)?;
    download(&mesh, 1 << 20)?;
    for (what, transfer) in [("up", upload as fn(&Mesh, u64) -> Result), ("down", download)] {
        let before: Vec<u64> = pids.iter().filter_map(|pid| resident_kib(*pid)).collect();
        let started = Instant::now();
        let ((), most) = watched(&pids, || transfer(&mesh, SIZE))?;
        println!(
            "    {} MiB {what} in {:.1} s; KiB of the caller's and the callee's sidecar: {before:?}, at most {most:?}",
            SIZE >> 20,
            started.elapsed().as_secs_f64()
        );
        for (before, most) in before.iter().zip(&most) {
            if *most > before + GROWTH_MAX_KIB {
                return Err(format!(
                    "a proxy grew from {before} to {most} KiB while {} MiB went {what}",
                    SIZE >> 20
                )
                .into());
            }
        }
    }
    mesh.down()?;
    Ok(Outcome::Passed)
}
