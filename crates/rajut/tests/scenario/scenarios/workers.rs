//! Limits are the proxy's and not a worker's: the proxy alone, from a bootstrap file, with four workers.

use std::{
    collections::BTreeMap,
    fs,
    process::{Child, Command, Stdio},
    time::Duration,
};

use super::limits::at_once;
use crate::{
    client::get,
    mesh::{Mesh, Setup, eventually},
    runner::{OURS, Outcome, Plane, Result, Scenario},
};

pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "connection_and_pending_limits_hold_for_four_workers_together",
        planes: OURS,
        run: breakers,
    },
    Scenario {
        name: "five_failures_spread_over_four_workers_eject_at_five",
        planes: OURS,
        run: ejection,
    },
];

/// Processes that end with the test, however it ends.
struct Processes(Vec<Child>);

impl Drop for Processes {
    fn drop(&mut self) {
        for process in &mut self.0 {
            drop(process.kill());
            drop(process.wait());
        }
    }
}

fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn rajut() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rajut"));
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// A proxy with four workers before `backends` sample servers; its address.
fn proxy(mesh: &Mesh, backends: usize, cluster: &str, processes: &mut Processes) -> Result<String> {
    let mut endpoints = Vec::new();
    for number in 0..backends {
        let port = free_port()?;
        let name = format!("backend-{number}");
        processes.0.push(
            rajut()
                .arg("sample")
                .env("PORT", port.to_string())
                .env("RAJUT_WORKLOAD", name)
                .spawn()?,
        );
        endpoints.push(format!(
            "{{\"endpoint\":{{\"address\":{{\"socket_address\":{{\"address\":\"127.0.0.1\",\"port_value\":{port}}}}}}}}}"
        ));
        eventually("a backend serves", Duration::from_secs(20), || {
            get(&format!("127.0.0.1:{port}"), "backend", "/health").ok()
        })?;
    }
    let port = free_port()?;
    let bootstrap = BOOTSTRAP
        .replace("PORT", &port.to_string())
        .replace("ENDPOINTS", &endpoints.join(","))
        .replace("CLUSTER", cluster);
    let file = mesh.folder.join("bootstrap.json");
    fs::write(&file, bootstrap)?;
    let arguments = ["proxy", "-c", &file.display().to_string(), "--concurrency", "4"].map(str::to_owned);
    processes.0.push(rajut().args(arguments).spawn()?);
    let address = format!("127.0.0.1:{port}");
    eventually("the proxy serves", Duration::from_secs(20), || {
        get(&address, "backend", "/health").ok()
    })?;
    Ok(address)
}

const BOOTSTRAP: &str = r#"{"node":{"id":"four","cluster":"four"},"static_resources":{
"listeners":[{"name":"in","address":{"socket_address":{"address":"127.0.0.1","port_value":PORT}},"filter_chains":[{"filters":[
 {"name":"envoy.filters.network.http_connection_manager","typed_config":{
  "@type":"type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
  "stat_prefix":"in","http_filters":[{"name":"envoy.filters.http.router","typed_config":{
   "@type":"type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}],
  "route_config":{"name":"r","virtual_hosts":[{"name":"v","domains":["*"],"routes":[
   {"match":{"prefix":"/"},"route":{"cluster":"c"}}]}]}}}]}]}],
"clusters":[{"name":"c","type":"STATIC","connect_timeout":"5s",CLUSTER,
 "load_assignment":{"cluster_name":"c","endpoints":[{"lb_endpoints":[ENDPOINTS]}]}}]}}"#;

fn breakers(plane: Plane) -> Result<Outcome> {
    let mesh = Mesh::prepare(plane, &Setup::default())?;
    let mut processes = Processes(Vec::new());
    let limits = "\"circuit_breakers\":{\"thresholds\":[{\"max_connections\":8,\"max_pending_requests\":8}]}";
    let address = proxy(&mesh, 1, limits, &mut processes)?;
    // Warm, since a request whose connection is being made counts as waiting.
    at_once(&address, "/delay/300", 8)?;
    let seen = at_once(&address, "/delay/1500", 60)?;
    println!("    {seen:?}");
    let (served, refused) = (
        seen.get("200").copied().unwrap_or(0),
        seen.get("overloaded").copied().unwrap_or(0),
    );
    // Eight connections, of which a worker may have to make some anew, and eight that wait.
    if served + refused == 60 && (9..=16).contains(&served) {
        Ok(Outcome::Passed)
    } else {
        Err(format!("eight under way and eight waiting, for all workers together: {seen:?}").into())
    }
}

fn ejection(plane: Plane) -> Result<Outcome> {
    let mesh = Mesh::prepare(plane, &Setup::default())?;
    let mut processes = Processes(Vec::new());
    let detection = "\"outlier_detection\":{\"consecutive_5xx\":5,\"base_ejection_time\":\"300s\",\"max_ejection_percent\":50}";
    let address = proxy(&mesh, 2, detection, &mut processes)?;
    let mut seen: BTreeMap<u16, u32> = BTreeMap::new();
    // Each on a connection of its own: the kernel spreads them over the workers' sockets.
    for _ in 0..80 {
        let answer = get(&address, "backend", "/fail?rate=1&status=500&instance=backend-0")?;
        *seen.entry(answer.status).or_default() += 1;
    }
    println!("    {seen:?}");
    if seen.get(&500) == Some(&5) && seen.get(&200) == Some(&75) {
        Ok(Outcome::Passed)
    } else {
        Err(format!("ejected after five failures, not {seen:?}").into())
    }
}
