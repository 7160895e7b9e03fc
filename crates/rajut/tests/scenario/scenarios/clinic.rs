//! The built-in example, as somebody sees it who has just typed `rajut up`. The mesh is shared: nothing here changes it.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use crate::{
    client::{Answer, Connection, get},
    mesh::{self, Mesh, Setup},
    runner::{BOTH, Outcome, Plane, Result, Scenario},
};

pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "clinic_is_ready_with_identities_certificates_and_host_addresses",
        planes: BOTH,
        run: ready,
    },
    Scenario {
        name: "clinic_services_reach_each_other_by_every_form_of_name",
        planes: BOTH,
        run: names,
    },
    Scenario {
        name: "clinic_canary_takes_a_tenth_of_2000_requests",
        planes: BOTH,
        run: canary,
    },
    Scenario {
        name: "clinic_request_headers_tie_a_chain_of_services_together",
        planes: BOTH,
        run: chain,
    },
    Scenario {
        name: "clinic_proxies_have_acknowledged_everything",
        planes: BOTH,
        run: acknowledged,
    },
];

pub const NAMESPACE: &str = "phoenix-guardian";

pub fn mesh(plane: Plane) -> Result<Arc<Mesh>> {
    mesh::shared(plane, "clinic", Setup::default)
}

fn ready(plane: Plane) -> Result<Outcome> {
    let mesh = mesh(plane)?;
    let status = mesh.status()?;
    let workloads = status["workloads"].as_array().ok_or("no workloads")?;
    // Eight services; the gateway in two versions, the encounter service three times.
    if workloads.len() < 11 {
        return Err(format!("{} workloads instead of 11 or more:\n{status:#}", workloads.len()).into());
    }
    for row in workloads {
        if row["ready"] != true {
            return Err(format!("not ready: {row:#}").into());
        }
        let identity = row["identity"].as_str().unwrap_or_default();
        if !identity.starts_with(&format!("spiffe://cluster.local/ns/{NAMESPACE}/sa/")) {
            return Err(format!("no identity: {row:#}").into());
        }
        let age = &row["certificate"]["remainingSeconds"];
        if !age
            .as_f64()
            .is_some_and(|seconds| (3600.0..=86_400.0 + 120.0).contains(&seconds))
        {
            return Err(format!("the certificate should live for a day: {row:#}").into());
        }
    }
    let services = status["services"].as_array().ok_or("no services")?;
    if services.len() != 8 {
        return Err(format!("{} services instead of 8:\n{status:#}", services.len()).into());
    }
    for row in services {
        let name = row["name"].as_str().ok_or("a service without a name")?;
        let address = mesh.host_address(name)?;
        let answer = get(&address, &address, "/")?;
        if answer.status != 200 || answer.json()?["service"] != name {
            return Err(format!(
                "{name} at {address} answered {}: {}",
                answer.status,
                answer.text()
            )
            .into());
        }
    }
    Ok(Outcome::Passed)
}

fn names(plane: Plane) -> Result<Outcome> {
    let mesh = mesh(plane)?;
    let caller = format!("auth-service-0.{NAMESPACE}");
    for name in [
        "encounter-service".to_owned(),
        format!("encounter-service.{NAMESPACE}"),
        format!("encounter-service.{NAMESPACE}.svc"),
        format!("encounter-service.{NAMESPACE}.svc.cluster.local"),
    ] {
        let url = format!("http://{name}:8080/");
        let body = mesh.exec(&caller, &["curl", "-sS", "--fail", "--max-time", "10", &url])?;
        let answer: serde_json::Value =
            serde_json::from_str(&body).map_err(|error| format!("{url}: {error}: {body}"))?;
        if answer["service"] != "encounter-service" {
            return Err(format!("{url} was answered by {answer:#}").into());
        }
    }
    Ok(Outcome::Passed)
}

fn canary(plane: Plane) -> Result<Outcome> {
    let mesh = mesh(plane)?;
    let address = mesh.host_address("api-gateway")?;
    let started = Instant::now();
    let mut versions: BTreeMap<String, u32> = BTreeMap::new();
    let mut connection = Connection::open(&address)?;
    for _ in 0..2000 {
        // The path is answered by the gateway itself: the split is what is measured, not the chain behind it.
        let answer = connection.request("GET", &address, "/status/200", &[], b"")?;
        let version = answer
            .header("x-sample-version")
            .ok_or("the sample server tells its version")?;
        *versions.entry(version.to_owned()).or_default() += 1;
    }
    println!(
        "    2,000 requests in {:.1} s: {versions:?}",
        started.elapsed().as_secs_f64()
    );
    let canary = versions.get("canary").copied().unwrap_or_default();
    if versions.values().sum::<u32>() == 2000 && (140..=260).contains(&canary) {
        Ok(Outcome::Passed)
    } else {
        Err(format!("the canary took {canary} of 2000: {versions:?}").into())
    }
}

/// The version that the sample server tells.
pub fn version(answer: &Answer) -> String {
    let body = answer.json().unwrap_or_default();
    body["version"].as_str().unwrap_or("?").to_owned()
}

fn chain(plane: Plane) -> Result<Outcome> {
    let mesh = mesh(plane)?;
    let address = mesh.host_address("api-gateway")?;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let answer = Connection::open(&address)?.request("GET", &address, "/", &[("traceparent", trace)], b"")?;
    let text = answer.text();
    let hops = text.matches("0af7651916cd43dd8448eb211c80319c").count();
    if answer.status != 200 || hops < 2 {
        return Err(format!("the trace was seen {hops} times in {}:\n{text}", answer.status).into());
    }
    Ok(Outcome::Passed)
}

fn acknowledged(plane: Plane) -> Result<Outcome> {
    let mesh = mesh(plane)?;
    let status = mesh.json(&["proxy-status"])?;
    let proxies = status["proxies"].as_array().ok_or("no proxies")?;
    if proxies.len() < 12 {
        return Err(format!(
            "{} proxies instead of 12 (11 sidecars and the host gateway)",
            proxies.len()
        )
        .into());
    }
    let text = status.to_string();
    if text.contains("NACK") || text.contains("\"rejected\":true") {
        return Err(format!("something was refused: {status:#}").into());
    }
    Ok(Outcome::Passed)
}
