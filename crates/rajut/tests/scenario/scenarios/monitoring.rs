//! A real Prometheus beside the clinic: it finds the mesh by the file that the supervisor keeps, takes the shipped rules, and every
//! query of the guide's table and every panel of the dashboard has an answer.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::Value;

use super::clinic::NAMESPACE;
use crate::{
    client::get,
    mesh::{Mesh, Setup, eventually, have},
    runner::{OURS, Outcome, Plane, Result, Scenario},
};

pub const SCENARIOS: &[Scenario] = &[Scenario {
    // On Envoy there are Envoy's metrics.
    name: "prometheus_reads_the_mesh_and_every_figure_of_the_guide_has_an_answer",
    planes: OURS,
    run: read,
}];

const POLICY: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: callers, namespace: phoenix-guardian}
spec:
  selector: {matchLabels: {app: encounter-service}}
  rules: [{from: [{source: {namespaces: [phoenix-guardian]}}]}]
";

/// Ended when dropped.
struct Prometheus {
    process: Child,
    folder: PathBuf,
    address: String,
}

impl Prometheus {
    fn start(mesh: &Mesh) -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("rajut-prometheus-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        // Scraped and evaluated so often, minutes of a real mesh are seconds here.
        let rules = fs::read_to_string(monitoring("rules.yaml"))?.replace("interval: 15s", "interval: 1s");
        fs::write(folder.join("rules.yaml"), rules)?;
        let config = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [rules.yaml]\n\
             scrape_configs:\n- job_name: rajut\n  file_sd_configs: [{{files: [{}]}}]\n",
            mesh.state.join("prometheus.json").display()
        );
        fs::write(folder.join("prometheus.yml"), config)?;
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let address = format!("127.0.0.1:{port}");
        let process = Command::new("prometheus")
            .arg(format!(
                "--config.file={}",
                folder.join("prometheus.yml").display()
            ))
            .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(folder.join("log"))?)
            .spawn()?;
        let prometheus = Self {
            process,
            folder,
            address,
        };
        eventually("Prometheus is ready", Duration::from_mins(1), || {
            prometheus
                .ask("/-/ready")
                .ok()
                .filter(|text| text.contains("Ready"))
        })?;
        Ok(prometheus)
    }

    fn ask(&self, path: &str) -> Result<String> {
        Ok(get(&self.address, &self.address, path)?.text())
    }

    fn json(&self, path: &str) -> Result<Value> {
        Ok(serde_json::from_str(&self.ask(path)?)?)
    }

    /// What a query gives now: a value for each series.
    fn query(&self, expression: &str) -> Result<Vec<f64>> {
        let encoded: String = expression
            .bytes()
            .map(|byte| match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
                other => format!("%{other:02X}"),
            })
            .collect();
        let answer = self.json(&format!("/api/v1/query?query={encoded}"))?;
        if answer["status"] != "success" {
            return Err(format!("{expression}: {}", answer["error"]).into());
        }
        let series = answer["data"]["result"].as_array().cloned().unwrap_or_default();
        let value = |one: &Value| one["value"][1].as_str().and_then(|text| text.parse().ok());
        Ok(series.iter().filter_map(value).collect())
    }
}

impl Prometheus {
    /// The first series' value, once there is one: what is scraped from different processes comes at different moments.
    fn known(&self, expression: &str) -> Result<f64> {
        // A wrong expression is wrong for ever.
        self.query(expression)?;
        eventually(expression, Duration::from_secs(30), || {
            let values = self.query(expression).ok()?;
            values.first().copied().filter(|value| value.is_finite())
        })
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn monitoring(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../docs/monitoring")
        .join(file)
}

/// Figure, query and alarm of each row of the guide's table.
fn figures() -> Result<Vec<[String; 3]>> {
    let guide = fs::read_to_string(monitoring("../guide/monitoring.md"))?;
    let rows: Vec<_> = guide
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| ---") && !line.starts_with("| figure"))
        .map(|line| {
            let mut cells = line
                .trim_matches('|')
                .split(" | ")
                .map(|cell| cell.trim().trim_matches('`').to_owned());
            std::array::from_fn(|_| cells.next().unwrap_or_default())
        })
        .collect();
    Ok(rows)
}

fn read(plane: Plane) -> Result<Outcome> {
    if !have("prometheus") {
        return Ok(Outcome::Skipped(
            "prometheus is not here (Debian: prometheus)".into(),
        ));
    }
    let mesh = Mesh::up(plane, &Setup::default())?;
    mesh.apply(POLICY)?;
    let prometheus = Prometheus::start(&mesh)?;
    let workloads = mesh.status()?["workloads"].as_array().map_or(0, Vec::len);
    let scraped = eventually("everything is scraped", Duration::from_secs(30), || {
        traffic(&mesh).ok()?;
        let up = prometheus.query("up == 1").ok()?;
        (up.len() == workloads + 1).then_some(up.len())
    })?;
    println!("    {scraped} processes are scraped: {workloads} proxies and the control plane");
    eventually("the rules know rates", Duration::from_mins(1), || {
        traffic(&mesh).ok()?;
        let known = prometheus.query("mesh:mtls:ratio_rate5m and mesh:own_time_milliseconds:p99_5m");
        known.ok()?.first().copied().filter(|value| value.is_finite())
    })?;
    figures_are_known(&prometheus)?;
    panels_are_known(&prometheus)?;
    let health = prometheus.json("/api/v1/rules")?;
    let groups = health["data"]["groups"].as_array().cloned().unwrap_or_default();
    for rule in groups
        .iter()
        .flat_map(|group| group["rules"].as_array().cloned().unwrap_or_default())
    {
        if rule["health"] != "ok" {
            return Err(format!("{}: {}", rule["name"], rule["lastError"]).into());
        }
        let runbook = rule["annotations"]["runbook"].as_str();
        if rule["type"] == "alerting" && !runbook.is_some_and(|page| monitoring("../..").join(page).exists())
        {
            return Err(format!("{} has no runbook", rule["name"]).into());
        }
    }
    Ok(Outcome::Passed)
}

/// A few calls of a service by another one.
fn traffic(mesh: &Mesh) -> Result {
    let caller = format!("auth-service-0.{NAMESPACE}");
    mesh.exec(
        &caller,
        &[
            "curl",
            "-s",
            "--max-time",
            "30",
            "-o",
            "/dev/null",
            "http://encounter-service:8080/status/200?n=[1-40]",
        ],
    )
    .map(drop)
}

fn figures_are_known(prometheus: &Prometheus) -> Result {
    let rules = fs::read_to_string(monitoring("rules.yaml"))?;
    let figures = figures()?;
    if figures.len() < 20 {
        return Err(format!("the guide's table has {} rows", figures.len()).into());
    }
    for [figure, query, alarm] in figures {
        let value = prometheus.known(&query)?;
        println!("    {value:>14.4}  {figure}");
        if !rules.contains(&format!("alert: {alarm}\n")) {
            return Err(format!("{figure}: there is no alarm `{alarm}`").into());
        }
    }
    Ok(())
}

/// Every panel of the dashboard can be drawn. Those that show failures have nothing to show.
fn panels_are_known(prometheus: &Prometheus) -> Result {
    let dashboard: Value = serde_json::from_str(&fs::read_to_string(monitoring("dashboard.json"))?)?;
    let panels = dashboard["panels"].as_array().cloned().unwrap_or_default();
    for panel in &panels {
        let title = panel["title"].as_str().unwrap_or_default();
        for target in panel["targets"].as_array().cloned().unwrap_or_default() {
            let expression = target["expr"]
                .as_str()
                .unwrap_or_default()
                .replace("$__rate_interval", "30s")
                .replace("$namespace", ".*")
                .replace("$workload", ".*");
            if ["Failed requests by edge", "Plain text by edge"].contains(&title) {
                prometheus.query(&expression)?;
            } else {
                prometheus.known(&expression)?;
            }
        }
    }
    println!(
        "    {} panels of the dashboard have what they ask for",
        panels.len()
    );
    Ok(())
}
