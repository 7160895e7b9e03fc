//! What a stranger meets at a workload's door, and what a wiretap sees between sidecars.

use std::{
    io::{Read, Write},
    net::TcpStream,
    process::{Command, Stdio},
    time::Duration,
};

use super::clinic;
use crate::runner::{BOTH, Outcome, Plane, Result, Scenario};

pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "strict_refuses_plaintext_at_the_workloads_address",
        planes: BOTH,
        run: plaintext,
    },
    Scenario {
        name: "a_workloads_certificate_shows_its_spiffe_identity_over_tls_1_3",
        planes: BOTH,
        run: certificate,
    },
    Scenario {
        name: "strict_refuses_a_certificate_of_another_authority",
        planes: BOTH,
        run: foreign,
    },
];

/// The address and application port of a workload, e.g. `127.10.0.5:8080`.
fn address(plane: Plane, workload: &str) -> Result<String> {
    let row = clinic::mesh(plane)?.workload(workload)?;
    let address = row["address"]
        .as_str()
        .ok_or(format!("no address: {row:#}"))?
        .to_owned();
    Ok(format!("{address}:8080"))
}

fn plaintext(plane: Plane) -> Result<Outcome> {
    let mut stream = TcpStream::connect(address(plane, "auth-service-0")?)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: auth-service\r\n\r\n")?;
    let mut answer = [0_u8; 64];
    match stream.read(&mut answer) {
        Ok(0) | Err(_) => Ok(Outcome::Passed),
        Ok(length) => Err(format!(
            "plaintext was answered: {:?}",
            String::from_utf8_lossy(&answer[..length])
        )
        .into()),
    }
}

fn openssl(address: &str, more: &[&str]) -> Result<String> {
    let mut child = Command::new("openssl")
        .args([
            "s_client",
            "-connect",
            address,
            "-alpn",
            "istio-http/1.1",
            "-showcerts",
        ])
        .args(more)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    // A request, so that the refusal (which TLS 1.3 sends after the client's handshake is done) is read.
    let mut stdin = child.stdin.take().ok_or("no standard input")?;
    drop(stdin.write_all(b"GET / HTTP/1.1\r\nhost: auth-service\r\nconnection: close\r\n\r\n"));
    std::thread::sleep(Duration::from_millis(500));
    drop(stdin);
    let output = child.wait_with_output()?;
    Ok(format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    ))
}

fn certificate(plane: Plane) -> Result<Outcome> {
    if !crate::mesh::have("openssl") {
        return Ok(Outcome::Skipped("openssl is not here".into()));
    }
    let said = openssl(&address(plane, "auth-service-0")?, &[])?;
    let pem = said
        .split("-----BEGIN CERTIFICATE-----")
        .nth(1)
        .ok_or(format!("no certificate in:\n{said}"))?;
    let pem = pem.split("-----END CERTIFICATE-----").next().unwrap_or_default();
    let pem = format!("-----BEGIN CERTIFICATE-----{pem}-----END CERTIFICATE-----\n");
    let mut reading = Command::new("openssl")
        .args(["x509", "-noout", "-text"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    reading
        .stdin
        .take()
        .ok_or("no standard input")?
        .write_all(pem.as_bytes())?;
    let text = String::from_utf8_lossy(&reading.wait_with_output()?.stdout).into_owned();
    let identity = format!(
        "URI:spiffe://cluster.local/ns/{}/sa/auth-service",
        clinic::NAMESPACE
    );
    for (what, wanted, place) in [
        ("the identity", identity.as_str(), &text),
        ("TLS 1.3", "TLSv1.3", &said),
        ("P-256", "prime256v1", &text),
    ] {
        if !place.contains(wanted) {
            return Err(format!("{what} ({wanted}) is not in:\n{place}").into());
        }
    }
    Ok(Outcome::Passed)
}

fn foreign(plane: Plane) -> Result<Outcome> {
    if !crate::mesh::have("openssl") {
        return Ok(Outcome::Skipped("openssl is not here".into()));
    }
    let mesh = clinic::mesh(plane)?;
    let (certificate, key) = (mesh.folder.join("foreign.pem"), mesh.folder.join("foreign.key"));
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "1",
        ])
        .args([
            "-subj",
            "/",
            "-addext",
            "subjectAltName=URI:spiffe://cluster.local/ns/phoenix-guardian/sa/api-gateway",
        ])
        .arg("-out")
        .arg(&certificate)
        .arg("-keyout")
        .arg(&key)
        .stderr(Stdio::null())
        .status()?;
    if !made.success() {
        return Err("openssl could not make a certificate".into());
    }
    let address = address(plane, "auth-service-0")?;
    let said = openssl(
        &address,
        &[
            "-cert",
            &certificate.display().to_string(),
            "-key",
            &key.display().to_string(),
            "-quiet",
        ],
    )?;
    if said.contains("HTTP/1.1 200") {
        return Err(format!("a certificate of another authority was accepted:\n{said}").into());
    }
    Ok(Outcome::Passed)
}
