//! Routing that changes under load.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use crate::{
    client::{Load, steady},
    mesh::{Mesh, Setup},
    runner::{BOTH, Outcome, Plane, Result, Scenario},
};

pub const SCENARIOS: &[Scenario] = &[Scenario {
    name: "weights_that_change_under_load_lose_no_request",
    planes: BOTH,
    run: weights,
}];

pub fn split(stable: u32, canary: u32) -> String {
    format!(
        "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: api-gateway, namespace: phoenix-guardian}}
spec:
  hosts: [api-gateway]
  http:
  - route:
    - {{destination: {{host: api-gateway, subset: stable}}, weight: {stable}}}
    - {{destination: {{host: api-gateway, subset: canary}}, weight: {canary}}}
"
    )
}

/// One change of weights: when it was in force, and the canary's share from then on.
struct Change {
    at: f64,
    canary: u32,
}

fn weights(plane: Plane) -> Result<Outcome> {
    let mesh = Mesh::up(plane, &Setup::default())?;
    let address = mesh.host_address("api-gateway")?;
    let (load, going) = (Load::default(), AtomicBool::new(true));
    let started = Instant::now();
    let changes = std::thread::scope(|scope| -> Result<Vec<Change>> {
        scope.spawn(|| {
            let on = || going.load(Ordering::Relaxed);
            steady(
                &load,
                &address,
                &address,
                "/status/200",
                500,
                8,
                &on,
                &super::clinic::version,
            );
        });
        let changes = change_weights(&mesh, started);
        going.store(false, Ordering::Relaxed);
        changes
    })?;
    load.check()?;
    let answers = load.answers.lock().expect("not poisoned").clone();
    println!(
        "    {} requests over {} changes of weights",
        answers.len(),
        changes.len()
    );
    let (mut judged, mut outside) = (0, 0);
    for (number, change) in changes.iter().enumerate() {
        let end = changes.get(number + 1).map_or(f64::MAX, |next| next.at);
        let window: Vec<_> = answers
            .iter()
            .filter(|(at, _)| (change.at + 1.0..end).contains(at))
            .take(200)
            .collect();
        if window.len() < 200 {
            continue;
        }
        judged += 1;
        let canary = window.iter().filter(|(_, version)| version == "canary").count();
        // Two in two hundred are one percent. Each request is a draw of its own: at 50 % one window of 270 lies more than ten
        // points off by chance, one of 50,000 more than fifteen.
        let off = canary.abs_diff(2 * usize::try_from(change.canary)?);
        outside += usize::from(off > 20);
        if off > 30 || outside > 1 {
            return Err(format!(
                "after change {number} to {} % the canary took {canary} of 200 ({outside} windows more than ten points off)",
                change.canary
            )
            .into());
        }
    }
    // A machine that is too slow for 500 requests a second fills fewer windows; without any nothing is shown.
    if judged < 5 {
        return Err(format!("only {judged} windows of 200 answers could be judged").into());
    }
    let deleted = mesh.delete(&split(90, 10))?;
    if deleted["acknowledged"].as_u64().unwrap_or(0) == 0 {
        return Err(format!("nobody acknowledged the removal: {deleted:#}").into());
    }
    mesh.down()?;
    Ok(Outcome::Passed)
}

fn change_weights(mesh: &Mesh, started: Instant) -> Result<Vec<Change>> {
    let mut changes = Vec::new();
    for round in 0..20 {
        let canary = if round % 2 == 0 { 50 } else { 10 };
        let applied = mesh.apply(&split(100 - canary, canary))?;
        if applied["rejected"]
            .as_array()
            .is_some_and(|rejected| !rejected.is_empty())
        {
            return Err(format!("refused: {applied:#}").into());
        }
        changes.push(Change {
            at: started.elapsed().as_secs_f64(),
            canary,
        });
        // The window that is judged begins a second after the change and takes 200 requests at 500 a second.
        std::thread::sleep(Duration::from_millis(1600));
    }
    Ok(changes)
}
