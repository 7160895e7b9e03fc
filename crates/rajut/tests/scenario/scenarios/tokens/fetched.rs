//! Keys that the control plane fetches from an issuer that runs here: taken, renewed, kept while it is away.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Write as _},
    net::TcpListener,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde_json::json;

use super::{Ask, Wanted, calls, issuer::Issuer, laboratory, passes, refused, tables::authentication};
use crate::{
    mesh::{Mesh, eventually},
    runner::{Outcome, Plane, Result},
};

/// Path → body, and how often each was asked for. What has no body is not answered.
#[derive(Default)]
struct Site {
    bodies: BTreeMap<String, String>,
    asked: BTreeMap<String, u32>,
}

/// Serves a site on an address of the host until the process ends.
fn serve() -> Result<(u16, Arc<Mutex<Site>>)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    let site = Arc::new(Mutex::new(Site::default()));
    let served = site.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut line = String::new();
            if BufReader::new(&stream).read_line(&mut line).is_err() {
                continue;
            }
            let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
            let mut site = served.lock().unwrap_or_else(PoisonError::into_inner);
            *site.asked.entry(path.clone()).or_default() += 1;
            if let Some(body) = site.bodies.get(&path) {
                let head = format!(
                    "HTTP/1.1 200 OK\r\ncontent-length: {}\r\ncache-control: max-age=1\r\n\r\n",
                    body.len()
                );
                let _ = (&stream).write_all(format!("{head}{body}").as_bytes());
            }
        }
    });
    Ok((port, site))
}

/// Waits until every request comes to what it should.
fn until(mesh: &Mesh, what: &str, rows: &[(&str, Ask, Wanted)]) -> Result {
    let asked: Vec<&Ask> = rows.iter().map(|(_, ask, _)| ask).collect();
    let mut last = String::new();
    let held = eventually(what, Duration::from_secs(40), || {
        let found = calls(mesh, &asked).ok()?;
        let wrong = rows.iter().zip(&found).find_map(|((what, _, wanted), found)| {
            wanted.differs(found).map(|differs| format!("{what}: {differs}"))
        });
        last = wrong.unwrap_or_default();
        last.is_empty().then_some(())
    });
    held.map_err(|error| format!("{error}\n{last}").into())
}

pub(super) fn run(plane: Plane) -> Result<Outcome> {
    let mesh = laboratory(plane)?;
    let (port, site) = serve()?;
    let site = || site.lock().unwrap_or_else(PoisonError::into_inner);
    let base = format!("http://127.0.0.1:{port}");
    let (old, mut new, described) = (Issuer::new("RS256"), Issuer::new("ES256"), Issuer::new("EdDSA"));
    new.id = "two";
    site().bodies.insert("/keys".into(), old.keys());
    site().bodies.insert("/its-keys".into(), described.keys());
    let description = json!({"issuer": base, "jwks_uri": format!("{base}/its-keys")});
    site().bodies.insert(
        "/.well-known/openid-configuration".into(),
        description.to_string(),
    );
    let objects = authentication(
        "tokens",
        &[
            format!("  - {{issuer: me, jwksUri: '{base}/keys'}}\n"),
            format!("  - {{issuer: '{base}'}}\n"),
            format!("  - {{issuer: away, jwksUri: '{base}/nothing', timeout: 1s}}\n"),
        ],
    );
    mesh.apply(&objects)?;
    let token = |issuer: &Issuer, name: &str| Ask::bearer(&issuer.token(&json!({"iss": name, "sub": "ann"})));
    let no_keys = refused("Jwks doesn't have key to match kid or alg from Jwt");
    until(
        &mesh,
        "keys are fetched",
        &[
            ("of the key set", token(&old, "me"), passes()),
            ("of the issuer's description", token(&described, &base), passes()),
            ("of nobody's key set", token(&old, "away"), no_keys),
            ("no token", Ask::at("/"), passes()),
        ],
    )?;
    let log = mesh.rajut(&["logs", "control"])?;
    if !log.contains("keys of tokens can't be fetched") || !log.contains("/nothing") {
        return Err(format!("the log says nothing of the issuer that is away:\n{log}").into());
    }
    // The keys change.
    site().bodies.insert("/keys".into(), new.keys());
    let renewed = [
        ("by the new key", token(&new, "me"), passes()),
        (
            "by the old key",
            token(&old, "me"),
            refused("Jwks doesn't have key to match kid or alg from Jwt"),
        ),
    ];
    until(&mesh, "keys are renewed", &renewed)?;
    // The issuer goes away, and is asked in vain.
    site().bodies.clear();
    let so_far = site().asked.get("/keys").copied().unwrap_or(0);
    eventually("the issuer is asked in vain", Duration::from_secs(30), || {
        (site().asked.get("/keys").copied().unwrap_or(0) >= so_far + 2).then_some(())
    })?;
    until(&mesh, "keys are kept", &renewed)?;
    mesh.delete(&objects)?;
    until(
        &mesh,
        "without the object",
        &[("any", token(&old, "away"), passes())],
    )?;
    Ok(Outcome::Passed)
}
