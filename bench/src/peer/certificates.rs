//! Certificates for the set `tls2`, made by the `openssl` command: a P-256 authority and one P-256 leaf with a SPIFFE
//! identity, which both sides use. Thrown away with the run.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// What the leaf is for.
const LEAF: &str = "subjectAltName=DNS:bench.example,URI:spiffe://bench.example/ns/default/sa/bench
extendedKeyUsage=serverAuth,clientAuth
keyUsage=critical,digitalSignature
basicConstraints=critical,CA:FALSE
";

/// Writes `ca.pem`, `leaf.pem`, `leaf.key` and `both.pem` (leaf and key, as HAProxy wants them).
pub(crate) fn make(dir: &Path) -> Result<()> {
    fs::write(dir.join("leaf.ext"), LEAF)?;
    let new_key = [
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
    ];
    let authority = [
        "req",
        "-x509",
        "-days",
        "7",
        "-subj",
        "/O=bench authority",
        "-keyout",
        "ca.key",
        "-out",
        "ca.pem",
    ];
    let usage = ["-addext", "keyUsage=critical,keyCertSign,cRLSign"];
    openssl(dir, &[&authority[..], &new_key, &usage].concat())?;
    let request = [
        "req", "-new", "-subj", "/O=bench", "-keyout", "leaf.key", "-out", "leaf.csr",
    ];
    openssl(dir, &[&request[..], &new_key].concat())?;
    let sign = [
        "x509",
        "-req",
        "-in",
        "leaf.csr",
        "-CA",
        "ca.pem",
        "-CAkey",
        "ca.key",
        "-CAcreateserial",
    ];
    openssl(
        dir,
        &[
            &sign[..],
            &["-days", "7", "-extfile", "leaf.ext", "-out", "leaf.pem"],
        ]
        .concat(),
    )?;
    let both = [fs::read(dir.join("leaf.pem"))?, fs::read(dir.join("leaf.key"))?].concat();
    Ok(fs::write(dir.join("both.pem"), both)?)
}

fn openssl(dir: &Path, words: &[&str]) -> Result<()> {
    let output = Command::new("openssl")
        .args(words)
        .current_dir(dir)
        .output()
        .context("openssl, which makes the certificates of the set tls2")?;
    if !output.status.success() {
        bail!(
            "openssl {}: {}",
            words[0],
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}
