//! One run: a control plane, a mesh, proxies, and what changes cost.

use std::{
    path::Path,
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use serde_json::json;

use crate::{
    mesh::{self, Size},
    plane::{Counters, Plane},
    proxies::{Board, Fleet, Form, used},
};

/// No wait takes longer.
pub(crate) const BOUND: Duration = Duration::from_mins(5);
/// Between two measured changes, so that no push waits for the last one's pause.
const REST: Duration = Duration::from_millis(300);
/// So long without an answer before memory is read: what the start used goes back to the system meanwhile.
const SETTLED: Duration = Duration::from_secs(15);
/// The sustained load.
const PER_SECOND: u64 = 50;
const SUSTAINED: Duration = Duration::from_secs(10);

/// What one run found.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) form: Form,
    pub(crate) size: Size,
    /// Seconds from the process's start until it serves.
    pub(crate) ready: f64,
    /// MiB (PSS): the mesh known and nobody connected; everybody acknowledged; the most ever (resident).
    pub(crate) memory: [f64; 3],
    /// Seconds from the first connection until the last proxy's last first answer, and of CPU meanwhile.
    pub(crate) start: [f64; 2],
    pub(crate) started_bytes: u64,
    pub(crate) endpoint: Changes,
    pub(crate) policy: Changes,
    pub(crate) peer: Changes,
    pub(crate) sustained: Sustained,
    pub(crate) storm: Storm,
}

/// Changes of one kind, one after the other.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// Proxies that each one touches.
    pub(crate) touched: usize,
    /// Milliseconds from the write to the last answer, sorted.
    pub(crate) milliseconds: Vec<f64>,
    /// Milliseconds of CPU per change.
    pub(crate) cpu: f64,
    /// Counters per change.
    pub(crate) work: Counters,
}

#[derive(Debug, Default)]
pub(crate) struct Sustained {
    pub(crate) written: usize,
    pub(crate) seconds: f64,
    /// CPU seconds per second.
    pub(crate) cpu: f64,
    /// Updates per second that the average proxy was sent.
    pub(crate) updates: f64,
    /// Milliseconds from the last write to the last answer that holds it.
    pub(crate) tail: f64,
}

#[derive(Debug, Default)]
pub(crate) struct Storm {
    /// Seconds from the new process's readiness until everybody is connected and has answered.
    pub(crate) seconds: f64,
    pub(crate) cpu: f64,
    /// MiB, resident, at most.
    pub(crate) peak: f64,
}

pub(crate) fn run(rajut: &Path, size: Size, form: Form, changes: usize) -> anyhow::Result<Run> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(Box::pin(measure(rajut, size, form, changes)))
}

async fn measure(rajut: &Path, size: Size, form: Form, changes: usize) -> anyhow::Result<Run> {
    let folder = std::env::temp_dir().join(format!("rajut-load-{}", std::process::id()));
    // What an earlier run left behind.
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(folder.join("config"))?;
    mesh::write(size, &folder.join("config"))?;
    let began = Instant::now();
    let mut plane = Plane::start(rajut, folder).await?;
    let ready = began.elapsed().as_secs_f64();
    let outcome = measure_on(&mut plane, rajut, size, form, changes, ready).await;
    match &outcome {
        Ok(_) => plane.done = true,
        Err(_) => plane.keep_traces().await,
    }
    outcome
}

async fn measure_on(
    plane: &mut Plane,
    rajut: &Path,
    size: Size,
    form: Form,
    changes: usize,
    ready: f64,
) -> anyhow::Result<Run> {
    let workloads = mesh::workloads(size).to_string();
    plane.call("PUT", "/v1/workloads", workloads.clone()).await?;
    eprintln!("{form:?}, {size:?}: enrolling");
    let mut fleet = Fleet::enrol(plane, size, form).await?;
    let empty = plane.memory();
    eprintln!("connecting");
    let cpu = plane.cpu();
    let board = std::sync::Arc::clone(&fleet.board);
    let connecting = board.now();
    fleet.connect()?;
    wait(|| board.complete.load(Relaxed) == size.proxies)
        .await
        .with_context(|| {
            format!(
                "complete: {} connected: {}",
                board.complete.load(Relaxed),
                board.connected.load(Relaxed)
            )
        })?;
    let start = [
        seconds(board.last_answer.load(Relaxed) - connecting),
        plane.cpu() - cpu,
    ];
    let started_bytes = board.bytes.load(Relaxed);
    eprintln!("complete after {start:?}");
    quiet(&board, SETTLED).await;
    let memory = [empty, plane.memory(), plane.peak()];
    eprintln!("{memory:?} MiB; changing");
    let endpoint = endpoint_changes(plane, &board, size, form, changes).await?;
    let policy = policy_changes(plane, &board, size, form, changes).await?;
    let peer = peer_changes(plane, &board, size, changes).await?;
    eprintln!("sustained");
    let sustained = sustained(plane, &board, size, form).await?;
    eprintln!("storm");
    let storm = storm(rajut, plane, &board, size, workloads).await?;
    Ok(Run {
        form,
        size,
        ready,
        memory,
        start,
        started_bytes,
        endpoint,
        policy,
        peer,
        sustained,
        storm,
    })
}

/// The proxies that hold the resources of a service.
fn subscribers(service: usize, size: Size, form: Form) -> usize {
    match form {
        Form::Full | Form::World => size.proxies,
        Form::Demand => (0..size.proxies)
            .filter(|proxy| used(*proxy, size).any(|one| one == service))
            .count(),
    }
}

/// Services that are changed: spread over the namespaces in which there are proxies, each once in a [`lap`].
fn changed_service(change: usize, size: Size) -> usize {
    let lap = lap(size);
    // Whatever the lap: a step that shares a factor with it comes back early, to a service that is changed already.
    let step = (37..=37 + lap).find(|step| greatest_common_divisor(*step, lap) == 1);
    (change * step.unwrap_or(1) + 21) % lap
}

/// So many changes each concern another service. One stays for the change behind a series of others.
fn lap(size: Size) -> usize {
    (size.pool - 1).max(1)
}

fn greatest_common_divisor(a: usize, b: usize) -> usize {
    if b == 0 {
        a
    } else {
        greatest_common_divisor(b, a % b)
    }
}

/// One of two, by turns: what is written once more must differ from what was written a lap before.
fn by_turns<T>(change: usize, size: Size, [one, other]: [T; 2]) -> T {
    if (change / lap(size)).is_multiple_of(2) {
        one
    } else {
        other
    }
}

async fn endpoint_changes(
    plane: &Plane,
    board: &Board,
    size: Size,
    form: Form,
    count: usize,
) -> anyhow::Result<Changes> {
    let services: Vec<usize> = (0..count).map(|change| changed_service(change, size)).collect();
    let mut measured = Measured::begin(plane, subscribers(services[0], size, form)).await?;
    for (change, service) in services.into_iter().enumerate() {
        board.watch(&mesh::cluster(service));
        measured.expected = subscribers(service, size, form);
        let path = format!("/v1/workloads/{}/svc-{service}-3", mesh::namespace(service));
        let body = json!({"health": by_turns(change, size, ["notready", "ready"])}).to_string();
        measured
            .one(board, plane.call("PATCH", &path, body))
            .await
            .context("endpoint")?;
    }
    measured.end(plane).await
}

async fn policy_changes(
    plane: &Plane,
    board: &Board,
    size: Size,
    form: Form,
    count: usize,
) -> anyhow::Result<Changes> {
    // Those that have a rule already: the same clusters and subsets, another limit.
    let services: Vec<usize> = (0..count)
        .map(|change| changed_service(change, size) / 10 * 10)
        .collect();
    let mut measured = Measured::begin(plane, subscribers(services[0], size, form)).await?;
    for (change, service) in services.into_iter().enumerate() {
        board.watch(&mesh::cluster(service));
        let text = mesh::rule(service, 2_000 + change);
        measured.expected = subscribers(service, size, form);
        // The changed cluster, and its endpoints once more, for whoever warms it.
        measured.per_proxy = 2;
        measured
            .one(board, plane.call("POST", "/v1/apply?timeoutSeconds=0", text))
            .await
            .context("policy")?;
    }
    measured.end(plane).await
}

/// A `PeerAuthentication` that concerns one proxy's own listener.
async fn peer_changes(plane: &Plane, board: &Board, size: Size, count: usize) -> anyhow::Result<Changes> {
    let mut measured = Measured::begin(plane, 1).await?;
    for change in 0..count {
        let service = changed_service(change, size);
        let instances = (0..size.proxies)
            .filter(|proxy| proxy % size.pool == service)
            .count();
        measured.expected = instances;
        board.watch("virtualInbound");
        let text = format!(
            "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: svc-{service}, namespace: {}}}\nspec:\n  \
             selector: {{matchLabels: {{app: svc-{service}}}}}\n  mtls: {{mode: {}}}\n",
            mesh::namespace(service),
            by_turns(change, size, ["PERMISSIVE", "STRICT"]),
        );
        measured
            .one(board, plane.call("POST", "/v1/apply?timeoutSeconds=0", text))
            .await
            .context("peer")?;
    }
    measured.end(plane).await
}

/// A series of changes under way.
struct Measured {
    expected: usize,
    per_proxy: usize,
    milliseconds: Vec<f64>,
    cpu: f64,
    counters: Counters,
}

impl Measured {
    async fn begin(plane: &Plane, expected: usize) -> anyhow::Result<Self> {
        tokio::time::sleep(REST * 3).await;
        Ok(Self {
            expected,
            per_proxy: 1,
            milliseconds: Vec::new(),
            counters: plane.counters().await?,
            cpu: plane.cpu(),
        })
    }

    async fn one(
        &mut self,
        board: &Board,
        write: impl Future<Output = anyhow::Result<bytes::Bytes>>,
    ) -> anyhow::Result<()> {
        let began = board.now();
        write.await?;
        let expected = self.expected * self.per_proxy;
        wait(|| board.hits.load(Relaxed) >= expected)
            .await
            .with_context(|| format!("{} of {expected} answers", board.hits.load(Relaxed)))?;
        self.milliseconds
            .push(seconds(board.last_hit.load(Relaxed).saturating_sub(began)) * 1e3);
        tokio::time::sleep(REST).await;
        Ok(())
    }

    async fn end(mut self, plane: &Plane) -> anyhow::Result<Changes> {
        let cpu = plane.cpu() - self.cpu;
        let now = plane.counters().await?;
        let changes = self.milliseconds.len();
        let per_change = |value: f64| value / f64::from(u32::try_from(changes.max(1)).unwrap_or(1));
        let work = now
            .iter()
            .map(|(name, value)| {
                (
                    name.clone(),
                    per_change(value - self.counters.get(name).copied().unwrap_or(0.0)),
                )
            })
            .collect();
        self.milliseconds.sort_by(f64::total_cmp);
        Ok(Changes {
            touched: self.expected,
            milliseconds: self.milliseconds,
            cpu: per_change(cpu * 1e3),
            work,
        })
    }
}

async fn sustained(plane: &Plane, board: &Board, size: Size, form: Form) -> anyhow::Result<Sustained> {
    let (cpu, updates, began) = (plane.cpu(), board.updates.load(Relaxed), Instant::now());
    let mut pace = tokio::time::interval(Duration::from_millis(1_000 / PER_SECOND));
    let mut written = 0;
    while began.elapsed() < SUSTAINED {
        pace.tick().await;
        // Another instance than the ones before, back and forth.
        let service = changed_service(written, size);
        let health = by_turns(written, size, ["terminating", "ready"]);
        let path = format!("/v1/workloads/{}/svc-{service}-5", mesh::namespace(service));
        plane
            .call("PATCH", &path, json!({ "health": health }).to_string())
            .await?;
        written += 1;
    }
    let elapsed = began.elapsed().as_secs_f64();
    let (spent, sent) = (plane.cpu() - cpu, board.updates.load(Relaxed) - updates);
    // One more, whose way is timed behind the others.
    let last = changed_service(written, size) + 1;
    board.watch(&mesh::cluster(last));
    let wrote = board.now();
    let path = format!("/v1/workloads/{}/svc-{last}-6", mesh::namespace(last));
    plane
        .call("PATCH", &path, json!({"health": "notready"}).to_string())
        .await?;
    let expected = subscribers(last, size, form);
    wait(|| board.hits.load(Relaxed) >= expected)
        .await
        .context("sustained")?;
    let proxies = f64::from(u32::try_from(size.proxies)?);
    Ok(Sustained {
        written,
        seconds: elapsed,
        cpu: spent / elapsed,
        #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
        updates: sent as f64 / elapsed / proxies,
        tail: seconds(board.last_hit.load(Relaxed).saturating_sub(wrote)) * 1e3,
    })
}

/// The control plane dies and another one takes its place: everybody comes back at once.
async fn storm(
    rajut: &Path,
    plane: &mut Plane,
    board: &Board,
    size: Size,
    workloads: String,
) -> anyhow::Result<Storm> {
    let connected = board.connected.load(Relaxed);
    plane.restart(rajut).await?;
    let began = Instant::now();
    plane.call("PUT", "/v1/workloads", workloads).await?;
    wait(|| board.connected.load(Relaxed) >= connected + size.proxies)
        .await
        .context("reconnecting")?;
    loop {
        let counters = plane.counters().await?;
        let value = |name: &str| counters.get(name).copied().unwrap_or(f64::NAN);
        #[expect(clippy::cast_precision_loss, reason = "a small count")]
        let everybody = value("pilot_xds") >= size.proxies as f64;
        if everybody && value("rajut_control_proxies_unsettled") == 0.0 {
            break;
        }
        if began.elapsed() > BOUND {
            bail!("not settled after the storm");
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Ok(Storm {
        seconds: began.elapsed().as_secs_f64(),
        cpu: plane.cpu(),
        peak: plane.peak(),
    })
}

async fn wait(done: impl Fn() -> bool) -> anyhow::Result<()> {
    let began = Instant::now();
    while !done() {
        if began.elapsed() > BOUND {
            bail!("not within {BOUND:?}");
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}

/// Until nothing was answered for so long.
async fn quiet(board: &Board, pause: Duration) {
    let mut seen = u64::MAX;
    while seen != board.updates.load(Relaxed) {
        seen = board.updates.load(Relaxed);
        tokio::time::sleep(pause).await;
    }
}

fn seconds(microseconds: u64) -> f64 {
    Duration::from_micros(microseconds).as_secs_f64()
}
