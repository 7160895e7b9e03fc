//! The mesh goes from one root to another: under load, with the control plane killed on the way, with a proxy that is away, and
//! with peers of openssl that know the old root or the new one alone at every step.

use std::{
    fs,
    io::{Read, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use serde_json::Value;

use super::streams::{Stream, two};
use crate::{
    client::{Load, get, steady},
    lab::{self, Workload},
    mesh::{Mesh, eventually, processes_of},
    runner::{BOTH, Outcome, Plane, Result, Scenario},
};

pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "the_mesh_goes_to_another_root_under_load_and_nothing_fails",
        planes: BOTH,
        run: under_load,
    },
    Scenario {
        name: "a_change_of_roots_waits_for_a_proxy_that_is_away_which_comes_back_when_it_was_left",
        planes: BOTH,
        run: away,
    },
    Scenario {
        name: "a_revoked_certificate_is_refused_everywhere_and_a_revoked_identity_gets_no_other",
        planes: BOTH,
        run: revoked,
    },
];

/// A connection for a few requests, so that handshakes go on all the time.
const SHORT: &str = "---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web, namespace: lab}
spec:
  host: web.lab.svc.cluster.local
  trafficPolicy: {connectionPool: {http: {maxRequestsPerConnection: 5}}}
";

/// Someone outside who holds a certificate and knows one root.
struct Peer {
    folder: PathBuf,
    serial: String,
}

impl Peer {
    /// Of the root that certificates are issued under now.
    fn issued(mesh: &Mesh, name: &str) -> Result<Self> {
        let folder = mesh.folder.with_file_name(name);
        let shown = folder.display().to_string();
        let issued = mesh.json(&["identity", "issue", "--as", "lab/client", "--out", &shown])?;
        let serial = issued["serial"].as_str().ok_or("no serial number")?.to_owned();
        Ok(Self { folder, serial })
    }

    /// Of the root that the mesh is on its way to, signed by openssl with its key.
    fn of_the_next(mesh: &Mesh, name: &str) -> Result<Self> {
        let (folder, next) = (mesh.folder.with_file_name(name), mesh.state.join("ca/next"));
        fs::create_dir_all(&folder)?;
        let file = |name: &str| folder.join(name).display().to_string();
        fs::write(
            folder.join("names"),
            "subjectAltName=URI:spiffe://cluster.local/ns/lab/sa/client\nextendedKeyUsage=clientAuth,serverAuth\n",
        )?;
        let (key, request, chain, names) = (
            file("key.pem"),
            file("request"),
            file("cert-chain.pem"),
            file("names"),
        );
        let (ca, ca_key) = (next.join("ca-cert.pem"), next.join("ca-key.pem"));
        let (ca, ca_key) = (ca.display().to_string(), ca_key.display().to_string());
        openssl(&[
            "req",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-subj",
            "/O=lab",
            "-keyout",
            &key,
            "-out",
            &request,
        ])?;
        openssl(&[
            "x509", "-req", "-in", &request, "-CA", &ca, "-CAkey", &ca_key, "-days", "1", "-extfile", &names,
            "-out", &chain,
        ])?;
        fs::copy(&ca, folder.join("root-cert.pem"))?;
        let serial = String::new();
        Ok(Self { folder, serial })
    }

    fn file(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    /// Opens a connection to a port that gives back what it gets.
    fn open(&self, address: &str) -> Result<Child> {
        let (chain, key) = (self.file("cert-chain.pem"), self.file("key.pem"));
        let mut child = Command::new("openssl")
            .args([
                "s_client", "-connect", address, "-alpn", "istio", "-quiet", "-cert", &chain, "-key", &key,
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        child
            .stdin
            .as_mut()
            .ok_or("no standard input")?
            .write_all(b"ping\n")?;
        let mut echo = [0; 5];
        let read = child
            .stdout
            .as_mut()
            .ok_or("no standard output")?
            .read_exact(&mut echo);
        if read.is_err() {
            drop(child.kill());
            return Err(format!("{address} gives nothing back").into());
        }
        Ok(child)
    }

    /// Whether a workload takes its certificate.
    fn is_taken(&self, address: &str) -> Result<bool> {
        let (chain, key) = (self.file("cert-chain.pem"), self.file("key.pem"));
        let said = ask(address, &["-cert", &chain, "-key", &key, "-quiet"])?;
        Ok(said.contains("HTTP/1.1 200"))
    }

    /// Whether it believes the workload, knowing its own root alone.
    fn believes(&self, address: &str) -> Result<bool> {
        let (chain, key, root) = (
            self.file("cert-chain.pem"),
            self.file("key.pem"),
            self.file("root-cert.pem"),
        );
        let more = [
            "-cert",
            &chain,
            "-key",
            &key,
            "-CAfile",
            &root,
            "-verify_return_error",
        ];
        Ok(ask(address, &more)?.contains("Verify return code: 0 (ok)"))
    }
}

fn openssl(arguments: &[&str]) -> Result {
    let output = Command::new("openssl").args(arguments).output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!(
        "openssl {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    )
    .into())
}

/// What `openssl s_client` says that sends a request.
fn ask(address: &str, more: &[&str]) -> Result<String> {
    let mut child = Command::new("openssl")
        .args(["s_client", "-connect", address, "-alpn", "istio-http/1.1"])
        .args(more)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut stdin = child.stdin.take().ok_or("no standard input")?;
    drop(stdin.write_all(b"GET /status/200 HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n"));
    std::thread::sleep(Duration::from_millis(500));
    drop(stdin);
    let output = child.wait_with_output()?;
    Ok(format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    ))
}

/// What the peers meet at a workload: is the old one's certificate taken, the new one's; does the old one believe it, the new one.
fn look(address: &str, old: &Peer, new: &Peer) -> Result<[bool; 4]> {
    Ok([
        old.is_taken(address)?,
        new.is_taken(address)?,
        old.believes(address)?,
        new.believes(address)?,
    ])
}

fn expect(step: &str, address: &str, old: &Peer, new: &Peer, wanted: [bool; 4]) -> Result {
    let seen = look(address, old, new)?;
    if seen == wanted {
        return Ok(());
    }
    let said = ask(address, &["-showcerts"])?;
    Err(format!(
        "{step}: [takes the old peer, takes the new one, the old one believes it, the new one does] is {seen:?}, not \
         {wanted:?}; it shows\n{said}"
    )
    .into())
}

fn step(mesh: &Mesh) -> Result<String> {
    let status = mesh.json(&["identity", "status"])?;
    Ok(status["rotation"]["step"].as_str().unwrap_or("none").to_owned())
}

/// Kills the control plane and waits until its successor answers.
fn kill_control(mesh: &Mesh) -> Result {
    let pid = |mesh: &Mesh| -> Option<u64> {
        let record: Value = serde_json::from_slice(&fs::read(mesh.state.join("mesh.json")).ok()?).ok()?;
        record["control"]["pid"].as_u64().filter(|pid| *pid > 0)
    };
    let before = pid(mesh).ok_or("no control plane")?;
    let done = Command::new("kill").args(["-9", &before.to_string()]).status()?;
    if !done.success() {
        return Err("the control plane can't be killed".into());
    }
    eventually("another control plane", Duration::from_secs(30), || {
        let other = pid(mesh).is_some_and(|now| now != before);
        (other && mesh.json(&["identity", "status"]).is_ok()).then_some(())
    })
}

fn address(mesh: &Mesh, workload: &str) -> Result<String> {
    let row = mesh.workload(workload)?;
    let address = row["address"].as_str().ok_or("no address")?;
    Ok(format!("{address}:8080"))
}

fn under_load(plane: Plane) -> Result<Outcome> {
    if !crate::mesh::have("openssl") {
        return Ok(Outcome::Skipped("openssl is not here".into()));
    }
    let mut setup = two();
    setup.files.push(("short.yaml".into(), SHORT.into()));
    let mesh = Mesh::up(plane, &setup)?;
    let host = mesh.host_address("web")?;
    let stream = Stream::open(&mesh)?;
    let (load, going) = (Load::default(), AtomicBool::new(true));
    let started = Instant::now();
    std::thread::scope(|scope| -> Result {
        scope.spawn(|| {
            let on = || going.load(Ordering::Relaxed);
            let label = |_: &crate::client::Answer| String::new();
            steady(&load, &host, &host, "/status/200", 100, 4, &on, &label);
        });
        let turned = turn(&mesh, started);
        going.store(false, Ordering::Relaxed);
        turned
    })?;
    load.check()?;
    println!(
        "    {} requests and {} lines of one answer",
        load.sent.load(Ordering::Relaxed),
        stream.goes_on()?
    );
    drop(stream);
    mesh.rajut(&["verify", "mtls", "client-0", "web-0"])?;
    mesh.down()?;
    Ok(Outcome::Passed)
}

fn turn(mesh: &Mesh, started: Instant) -> Result {
    let told = |what: &str| println!("    {what} after {:.1} s", started.elapsed().as_secs_f64());
    let web = address(mesh, "web-0")?;
    let old = Peer::issued(mesh, "old")?;
    mesh.rajut(&["identity", "rotate-root", "--until", "trust"])?;
    told("both roots are believed");
    let new = Peer::of_the_next(mesh, "new")?;
    expect("both are believed", &web, &old, &new, [true, true, true, false])?;
    kill_control(mesh)?;
    if step(mesh)? != "trust" {
        return Err("a killed control plane has forgotten where it was".into());
    }
    expect("after a kill", &web, &old, &new, [true, true, true, false])?;

    // Killed while it works at the next step, too.
    let mut going_on = mesh
        .command(&["identity", "rotate-root", "--resume", "--until", "reissue"])
        .stdout(Stdio::null())
        .spawn()?;
    eventually("the next step", Duration::from_secs(30), || {
        (step(mesh).ok()? == "reissue").then_some(())
    })?;
    kill_control(mesh)?;
    if !going_on.wait()?.success() {
        return Err("the command did not outlive the control plane".into());
    }
    told("certificates are reissued");
    expect("reissued", &web, &old, &new, [true, true, false, true])?;
    mesh.rajut(&["identity", "rotate-root", "--resume"])?;
    told("the old root is retired");
    expect("retired", &web, &old, &new, [false, true, false, true])?;
    kill_control(mesh)?;
    let status = mesh.json(&["identity", "status"])?;
    if !status["rotation"].is_null() || status["roots"].as_array().map(Vec::len) != Some(1) {
        return Err(format!("it is not over: {status:#}").into());
    }
    let known = fs::read_to_string(mesh.state.join("ca/root-cert.pem"))?;
    if known != fs::read_to_string(new.file("root-cert.pem"))? {
        return Err("the roots' file does not hold the new root alone".into());
    }
    // A workload's certificate is renewed by those who believe the new root alone.
    Peer::issued(mesh, "later")?;
    Ok(())
}

/// The processes beside a workload, its application not among them.
fn beside(state: &Path, workload: &str) -> Vec<String> {
    let folder = format!("sidecars/{workload}.lab/");
    let lines = processes_of(state);
    let is_beside = |line: &&String| {
        line.contains(&folder)
            && [" proxy ", " agent ", "envoy"]
                .iter()
                .any(|word| line.contains(word))
    };
    lines
        .iter()
        .filter(is_beside)
        .filter_map(|line| line.split(' ').next().map(str::to_owned))
        .collect()
}

fn signal(pids: &[String], signal: &str) -> Result {
    let done = Command::new("kill").arg(signal).args(pids).status()?;
    if done.success() {
        Ok(())
    } else {
        Err(format!("kill {signal} {pids:?}").into())
    }
}

fn away(plane: Plane) -> Result<Outcome> {
    if !crate::mesh::have("openssl") {
        return Ok(Outcome::Skipped("openssl is not here".into()));
    }
    let mesh = Mesh::up(plane, &two())?;
    let client = address(&mesh, "client-0")?;
    let pids = beside(&mesh.state, "client-0");
    if pids.is_empty() {
        return Err("nothing stands beside client-0".into());
    }
    signal(&pids, "-STOP")?;
    let turned = left(&mesh);
    signal(&pids, "-CONT")?;
    turned?;
    // It believes the new root alone, and is believed by those who do.
    let new = Peer::issued(&mesh, "new")?;
    let started = Instant::now();
    eventually("the proxy that was away follows", Duration::from_mins(1), || {
        let follows = new.is_taken(&client).ok()? && new.believes(&client).ok()?;
        follows.then_some(())
    })?;
    mesh.exec(
        "client-0",
        &["curl", "-sS", "--fail", "http://web:8080/status/200"],
    )?;
    println!(
        "    it follows {:.1} s after it is back",
        started.elapsed().as_secs_f64()
    );
    mesh.down()?;
    Ok(Outcome::Passed)
}

/// While it is away, the change waits for it; and goes on without it when the operator says so.
fn left(mesh: &Mesh) -> Result {
    let output = mesh
        .command(&["identity", "rotate-root", "--timeout", "3", "-o", "json"])
        .output()?;
    let status: Value = serde_json::from_slice(&output.stdout)?;
    let waits = status["rotation"]["proxies"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let waits: Vec<&Value> = waits
        .iter()
        .filter(|it| it["standing"] != "acknowledged")
        .collect();
    let is_named = matches!(&waits[..], [one] if one["name"] == "client-0");
    if output.status.code() != Some(1) || status["rotation"]["step"] != "trust" || !is_named {
        return Err(format!("it does not wait for client-0 alone: {status:#}").into());
    }
    mesh.rajut(&[
        "identity",
        "rotate-root",
        "--resume",
        "--without-away",
        "--timeout",
        "120",
    ])?;
    Ok(())
}

/// What gives back what it gets.
fn pipe() -> String {
    lab::yaml(&Workload {
        name: "pipe",
        port: 7001,
        port_name: "tcp",
        replicas: 1,
        run: lab::server("echo", 7001),
        more: "",
    })
}

/// How many handshakes a workload has refused for a revoked certificate.
fn refused(plane: Plane, address: &str) -> Result<u64> {
    let host = address.split(':').next().unwrap_or_default();
    let stats = get(&format!("{host}:15090"), host, "/stats/prometheus")?.text();
    // Envoy does not say why a chain is not good.
    let is_meant = |line: &&str| match plane {
        Plane::Rajut => line.starts_with("rajut_proxy_certificates_refused_total{reason=\"revoked\"}"),
        Plane::Envoy => line.starts_with("envoy_listener_") && line.contains("ssl_fail_verify_error"),
    };
    let counts = stats.lines().filter(is_meant);
    Ok(counts
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
        .sum())
}

fn revoked(plane: Plane) -> Result<Outcome> {
    const CLIENT: &str = "spiffe://cluster.local/ns/lab/sa/client";
    if !crate::mesh::have("openssl") {
        return Ok(Outcome::Skipped("openssl is not here".into()));
    }
    let mut setup = two();
    setup.files.push(("pipe.yaml".into(), pipe()));
    let mesh = Mesh::up(plane, &setup)?;
    let (web, echo) = (
        address(&mesh, "web-0")?,
        address(&mesh, "pipe-0")?.replace(":8080", ":7001"),
    );
    let call = || {
        mesh.exec(
            "client-0",
            &["curl", "-sS", "--fail", "http://web:8080/status/200"],
        )
    };
    let (first, second) = (Peer::issued(&mesh, "first")?, Peer::issued(&mesh, "second")?);
    if !first.is_taken(&web)? || !second.is_taken(&web)? {
        return Err("they are refused before they are revoked".into());
    }
    // One certificate. As openssl writes its number.
    let before = refused(plane, &web)?;
    let number = first.serial.to_uppercase();
    mesh.rajut(&["identity", "revoke", &number, "--reason", "key-compromise"])?;
    if first.is_taken(&web)? || !second.is_taken(&web)? {
        return Err("the first alone should be refused".into());
    }
    if refused(plane, &web)? <= before {
        return Err("the refusal is not counted".into());
    }
    call()?;

    // The whole identity, with what is open.
    let mut open = second.open(&echo)?;
    mesh.command(&["identity", "revoke", CLIENT]).status()?;
    let started = Instant::now();
    if second.is_taken(&web)? {
        return Err("a certificate of a revoked identity is taken".into());
    }
    if plane == Plane::Rajut {
        eventually("what is open ends", Duration::from_secs(2), || {
            open.try_wait().ok().flatten()
        })?;
        println!(
            "    ended {:.1} s after the acknowledgement",
            started.elapsed().as_secs_f64()
        );
        if call().is_ok() {
            return Err("the workload of a revoked identity still calls".into());
        }
    }
    drop(open.kill());
    drop(open.wait());
    if Peer::issued(&mesh, "third").is_ok() {
        return Err("a revoked identity was given a certificate".into());
    }
    let revoked = mesh.json(&["identity", "revoked"])?;
    if revoked["identities"][0]["identity"] != CLIENT
        || revoked["certificates"].as_array().map(Vec::len) < Some(3)
    {
        return Err(format!("it does not show what is revoked: {revoked:#}").into());
    }
    mesh.rajut(&["identity", "reinstate", CLIENT])?;
    let third = Peer::issued(&mesh, "third")?;
    if !third.is_taken(&web)? || second.is_taken(&web)? {
        return Err("a new certificate should be taken, and an old one not".into());
    }
    eventually("the workload calls again", Duration::from_mins(1), || call().ok())?;
    mesh.down()?;
    Ok(Outcome::Passed)
}
