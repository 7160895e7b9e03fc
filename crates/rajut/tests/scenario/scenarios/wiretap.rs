//! What somebody reads who listens between two sidecars, beside what the applications say (the control).

use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    lab::{self, Workload},
    mesh::{Mesh, Setup, eventually},
    runner::{BOTH, Outcome, Plane, Result, Scenario},
};

pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "a_wiretap_between_sidecars_reads_nothing_until_mtls_is_disabled",
        planes: BOTH,
        run: wiretap,
    },
    Scenario {
        name: "verify_mtls_shows_tls_1_3_its_group_and_both_identities",
        planes: BOTH,
        run: verify,
    },
];

const DISABLE: &str = "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: lab}
spec: {mtls: {mode: DISABLE}}
";

fn two() -> Setup {
    let sample = format!("exec {} sample", env!("CARGO_BIN_EXE_rajut"));
    let one = |name| {
        lab::yaml(&Workload {
            name,
            port: 8080,
            port_name: "http",
            replicas: 1,
            run: sample.clone(),
            more: "",
        })
    };
    let text = format!(
        "apiVersion: v1\nkind: Namespace\nmetadata: {{name: lab}}\n{}{}{}",
        lab::STRICT,
        one("web"),
        one("client")
    );
    Setup::yaml(&text).arguments(&["-n", "lab"])
}

/// A running sniffer.
struct Tap {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
}

/// Nothing where the machine does not let us listen.
fn tap(mut command: Command, network: &str, markers: &[&str]) -> Result<Option<Tap>> {
    let mut child = command
        .arg(lab::app("sniffer.py"))
        .arg(network)
        .args(markers)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut output = BufReader::new(child.stdout.take().ok_or("no standard output")?);
    let mut line = String::new();
    output.read_line(&mut line)?;
    if line.trim() == "ready" {
        return Ok(Some(Tap { child, output }));
    }
    let mut error = String::new();
    child
        .stderr
        .take()
        .ok_or("no standard error")?
        .read_to_string(&mut error)?;
    child.wait()?;
    if error.contains("PermissionError") {
        return Ok(None);
    }
    Err(format!("the sniffer does not start:\n{error}").into())
}

impl Tap {
    /// What it read until now.
    fn stop(mut self) -> Result<Value> {
        drop(self.child.stdin.take());
        let mut text = String::new();
        self.output.read_to_string(&mut text)?;
        self.child.wait()?;
        let found: Value = serde_json::from_str(&text).map_err(|error| format!("{error}: {text:?}"))?;
        if found["dropped"] != 0 {
            return Err(format!("the sniffer missed packets, so it proves nothing: {found:#}").into());
        }
        Ok(found)
    }
}

/// What both sniffers read of one call whose path, header and both bodies hold markers.
struct Round {
    /// Markers in path, header, request's body (which is also the answer's).
    markers: [String; 3],
    application: Value,
    wire: Value,
}

fn listen(mesh: &Mesh, network: &str, round: &str) -> Result<Option<Round>> {
    let nonce = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)?
        .as_nanos();
    let markers = ["path", "header", "body"].map(|place| format!("marker-{round}-{place}-{nonce:x}"));
    let [path, header, body] = markers.each_ref().map(String::as_str);
    let mut inside = mesh.command(&["exec", "client-0.lab", "--"]);
    inside.arg(lab::python());
    let Some(application) = tap(inside, "any", &[path, header, body])? else {
        return Ok(None);
    };
    let Some(wire) = tap(Command::new(lab::python()), network, &[path, header, body])? else {
        application.stop()?;
        return Ok(None);
    };
    let (url, header) = (
        format!("http://web:8080/echo?{path}"),
        format!("x-marker: {header}"),
    );
    let call = [
        "curl",
        "-sS",
        "--fail",
        "--max-time",
        "20",
        "-H",
        &header,
        "-d",
        body,
        &url,
    ];
    let answer = mesh.exec("client-0.lab", &call)?;
    if answer != body {
        return Err(format!("the answer is {answer:?} instead of {body:?}").into());
    }
    let (application, wire) = (application.stop()?, wire.stop()?);
    Ok(Some(Round {
        markers,
        application,
        wire,
    }))
}

/// The markers must be in plain text there: path and header in one direction, the body in both.
fn readable(found: &Value, markers: &[String; 3]) -> bool {
    let directions = |marker: &String| found["markers"][marker].as_u64().unwrap_or(0);
    markers.iter().all(|marker| directions(marker) >= 1) && directions(&markers[2]) >= 2
}

fn wiretap(plane: Plane) -> Result<Outcome> {
    let mesh = Mesh::up(plane, &two())?;
    if mesh.status()?["capture"] != "netns" {
        return Ok(Outcome::Skipped("namespaces are not allowed here".into()));
    }
    let row = mesh.workload("web-0")?;
    let address = row["address"].as_str().ok_or("no address")?;
    let network = address
        .rsplitn(3, '.')
        .last()
        .ok_or("an address has four parts")?
        .to_owned();
    let Some(hidden) = listen(&mesh, &network, "mtls")? else {
        return Ok(Outcome::Skipped("CAP_NET_RAW is not ours here".into()));
    };
    println!(
        "    application's side {}\n    between sidecars {}",
        hidden.application, hidden.wire
    );
    if !readable(&hidden.application, &hidden.markers) {
        return Err(format!("the control does not find the markers: {:#}", hidden.application).into());
    }
    let counted = |name: &str| hidden.wire[name].as_u64().unwrap_or(0);
    if counted("tls13") == 0 || counted("records") < 2 {
        return Err(format!("no TLS 1.3 between the sidecars: {:#}", hidden.wire).into());
    }
    for marker in &hidden.markers {
        if hidden.wire["markers"][marker] != 0 {
            return Err(format!("{marker} is readable between the sidecars: {:#}", hidden.wire).into());
        }
    }
    let started = Instant::now();
    mesh.apply(DISABLE)?;
    // The caller may still hold a connection with TLS, which is as good as a new one without.
    let bare = eventually("a call without mTLS", Duration::from_secs(20), || {
        match listen(&mesh, &network, "bare") {
            Ok(Some(round)) if readable(&round.wire, &round.markers) => Some(Ok(round)),
            Ok(_) => None,
            Err(error) => Some(Err(error)),
        }
    })??;
    println!(
        "    with mTLS disabled, after {:.1} s: {}",
        started.elapsed().as_secs_f64(),
        bare.wire
    );
    mesh.down()?;
    Ok(Outcome::Passed)
}

fn verify(plane: Plane) -> Result<Outcome> {
    let mesh = Mesh::up(plane, &two())?;
    let said = mesh.json(&["verify", "mtls", "client-0", "web-0"])?;
    let mut wanted = vec![
        "TLS 1.3",
        "spiffe://cluster.local/ns/lab/sa/client",
        "spiffe://cluster.local/ns/lab/sa/web",
    ];
    if plane == Plane::Rajut {
        wanted.push("X25519MLKEM768");
    }
    let text = mesh.rajut(&["verify", "mtls", "client-0", "web-0"])?;
    for word in wanted {
        if !text.contains(word) || !said.to_string().contains(word) {
            return Err(format!("{word} is not in\n{text}\n{said:#}").into());
        }
    }
    mesh.apply(DISABLE)?;
    let output = mesh.command(&["verify", "mtls", "client-0", "web-0"]).output()?;
    if output.status.code() != Some(1) {
        return Err(format!(
            "without mTLS the answer must be no, exit status 1:\n{}",
            String::from_utf8_lossy(&output.stdout)
        )
        .into());
    }
    mesh.down()?;
    Ok(Outcome::Passed)
}
