//! Circuit breaking in Envoy's terms: what queues, what is refused, and that it is counted.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use crate::{
    client::{Connection, get},
    lab::{self, Workload},
    mesh::{self, Mesh, Setup, eventually},
    runner::{BOTH, Outcome, Plane, Result, Scenario},
};

pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "max_connections_alone_queues_and_fails_nothing",
        planes: BOTH,
        run: queues,
    },
    Scenario {
        name: "requests_that_wait_beyond_the_pending_limit_are_refused_and_counted",
        planes: BOTH,
        run: pending,
    },
    Scenario {
        name: "the_1001st_request_over_http2_is_refused_and_counted",
        planes: BOTH,
        run: requests,
    },
    Scenario {
        name: "h2_upgrade_makes_the_hop_http2_between_http1_applications",
        planes: BOTH,
        run: upgraded,
    },
];

fn rule(name: &str, pool: &str) -> String {
    format!(
        "---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: {name}, namespace: lab}}
spec:
  host: {name}
  trafficPolicy:
    connectionPool: {pool}
"
    )
}

fn limited(plane: Plane) -> Result<Arc<Mesh>> {
    mesh::shared(plane, "limits", || {
        let mut text = format!(
            "apiVersion: v1\nkind: Namespace\nmetadata: {{name: lab}}\n{}",
            lab::STRICT
        );
        let sample = format!("exec {} sample", env!("CARGO_BIN_EXE_rajut"));
        for (name, pool) in [
            ("queues", "{tcp: {maxConnections: 5}}"),
            (
                "pending",
                "{tcp: {maxConnections: 10}, http: {http1MaxPendingRequests: 10}}",
            ),
            (
                "requests",
                "{tcp: {maxConnections: 2000}, http: {h2UpgradePolicy: UPGRADE, http1MaxPendingRequests: 2000, http2MaxRequests: 1000}}",
            ),
        ] {
            text += &lab::yaml(&Workload {
                name,
                port: 8080,
                port_name: "http",
                replicas: 1,
                run: sample.clone(),
                more: "",
            });
            text += &rule(name, pool);
        }
        Setup::yaml(&text).arguments(&["-n", "lab"])
    })
}

/// Status → how many of `count` requests that are all under way at once were answered with it.
pub fn at_once(address: &str, path: &str, count: usize) -> Result<BTreeMap<String, usize>> {
    let seen = Mutex::new(BTreeMap::new());
    let connections = (0..count)
        .map(|_| Connection::open(address))
        .collect::<Result<Vec<_>>>()?;
    std::thread::scope(|scope| {
        for mut connection in connections {
            let seen = &seen;
            std::thread::Builder::new()
                .stack_size(128 * 1024)
                .spawn_scoped(scope, move || {
                    let answer = connection.request("GET", address, path, &[], b"");
                    let key = match answer {
                        Ok(answer)
                            if answer.status == 503 && answer.header("x-envoy-overloaded").is_some() =>
                        {
                            "overloaded".into()
                        }
                        Ok(answer) => format!(
                            "{} {}",
                            answer.status,
                            if answer.status == 200 {
                                String::new()
                            } else {
                                answer.text()
                            }
                        ),
                        Err(error) => error.to_string(),
                    };
                    *seen
                        .lock()
                        .expect("not poisoned")
                        .entry(key.trim().to_owned())
                        .or_insert(0) += 1;
                })
                .expect("a thread for each request");
        }
    });
    Ok(seen.into_inner().expect("all threads have ended"))
}

/// The sum of a counter of the host gateway whose name and labels contain all of `parts`.
fn counter(mesh: &Mesh, parts: &[&str]) -> Result<f64> {
    let admin = mesh.status()?["hostGateway"]["adminAddress"]
        .as_str()
        .map(str::to_owned);
    let admin = admin.ok_or("status does not tell the host gateway's admin address")?;
    let text = get(&admin, &admin, "/stats/prometheus")?.text();
    let lines = text
        .lines()
        .filter(|line| !line.starts_with('#') && parts.iter().all(|part| line.contains(part)));
    Ok(lines
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum())
}

fn queues(plane: Plane) -> Result<Outcome> {
    let mesh = limited(plane)?;
    let seen = at_once(&mesh.host_address("queues")?, "/delay/100", 60)?;
    if seen == BTreeMap::from([("200".to_owned(), 60)]) {
        Ok(Outcome::Passed)
    } else {
        Err(format!("{seen:?}").into())
    }
}

fn pending(plane: Plane) -> Result<Outcome> {
    let mesh = limited(plane)?;
    let address = mesh.host_address("pending")?;
    // Warm: a request that waits for a connection that is being made counts as waiting, too.
    let cold = at_once(&address, "/delay/300", 40)?;
    if !cold.contains_key("overloaded") || cold.values().sum::<usize>() != 40 {
        return Err(format!("cold, the requests beyond the pending limit are refused: {cold:?}").into());
    }
    at_once(&address, "/delay/300", 10)?;
    let seen = at_once(&address, "/delay/1500", 40)?;
    let (served, refused) = (
        seen.get("200").copied().unwrap_or(0),
        seen.get("overloaded").copied().unwrap_or(0),
    );
    println!("    {seen:?}");
    // Ten are served at once, ten wait; which of the rest is refused depends on when each arrives.
    if served + refused != 40 || !(20..=24).contains(&served) {
        return Err(format!("ten connections and ten waiting: {seen:?}").into());
    }
    let counted = counter(&mesh, &["upstream_rq_pending_overflow", "pending.lab"])?;
    #[expect(clippy::cast_precision_loss, reason = "a few dozens")]
    if counted < refused as f64 {
        return Err(format!("{refused} were refused, {counted} counted").into());
    }
    Ok(Outcome::Passed)
}

/// Requests that are under way to the service `requests`, as the host gateway counts them.
fn under_way(mesh: &Mesh) -> Result<f64> {
    counter(mesh, &["upstream_rq_active{", "requests.lab"])
}

fn requests(plane: Plane) -> Result<Outcome> {
    let mesh = limited(plane)?;
    let address = mesh.host_address("requests")?;
    // Warm the connection first: cold, the pending limit would be met before the request limit.
    for _ in 0..5 {
        get(&address, &address, "/")?;
    }
    let mut held = Vec::new();
    for _ in 0..1000 {
        let mut connection = Connection::open(&address)?;
        connection.send(format!("GET /delay/60000 HTTP/1.1\r\nhost: {address}\r\n\r\n").as_bytes())?;
        held.push(connection);
    }
    eventually("1,000 requests are under way", Duration::from_secs(20), || {
        (under_way(&mesh).ok()? >= 1000.0).then_some(())
    })?;
    let seen = at_once(&address, "/", 40)?;
    println!("    beside 1,000 that are under way: {seen:?}");
    if seen != BTreeMap::from([("overloaded".to_owned(), 40)]) {
        return Err(format!("at most 1,000 are under way: {seen:?}").into());
    }
    eventually("the refused are counted", Duration::from_secs(10), || {
        let counted = counter(&mesh, &["upstream_rq_active_overflow", "requests.lab"]).ok()?;
        (counted >= 40.0).then_some(())
    })?;
    // Clients that go away make room again. Envoy ends a connection of which most streams were reset; what is sent on it
    // just then is answered 503, too.
    drop(held);
    eventually("there is room again", Duration::from_secs(20), || {
        (get(&address, &address, "/").ok()?.status == 200).then_some(())
    })?;
    eventually("nothing is under way any more", Duration::from_secs(20), || {
        (under_way(&mesh).ok()? < 1.0).then_some(())
    })?;
    Ok(Outcome::Passed)
}

fn upgraded(plane: Plane) -> Result<Outcome> {
    let mesh = limited(plane)?;
    let address = mesh.host_address("requests")?;
    let answer = get(&address, &address, "/")?;
    if answer.status != 200 {
        return Err(format!("{}: {}", answer.status, answer.text()).into());
    }
    let http2 = counter(&mesh, &["upstream_cx_http2_total", "requests.lab"])?;
    let http1 = counter(&mesh, &["upstream_cx_http1_total", "requests.lab"])?;
    if http2 >= 1.0 && http1 < 1.0 {
        Ok(Outcome::Passed)
    } else {
        Err(format!("HTTP/2: {http2}, HTTP/1: {http1}").into())
    }
}
