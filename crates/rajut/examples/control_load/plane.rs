//! The control plane as a process: started on a folder, asked over its socket, measured through `/proc`.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use bytes::Bytes;
use rajut_identity::{TrustBundle, enrol::Issuer};
use rajut_local::client::{Ask, Target, ask};
use serde_json::{Value, json};

/// A running control plane; it ends when this is dropped, and its folder goes with it unless something failed.
pub(crate) struct Plane {
    child: Child,
    /// The run has ended well: nobody needs its traces.
    pub(crate) done: bool,
    pub(crate) folder: PathBuf,
    socket: PathBuf,
}

/// The control plane's counters at one moment; see `rajut_control_work_total`.
pub(crate) type Counters = std::collections::BTreeMap<String, f64>;

/// Where it says where it is.
const DESCRIPTION: &str = "state/control.json";

fn spawn(rajut: &Path, folder: &Path, listen: &str) -> anyhow::Result<Child> {
    let log = std::fs::File::options()
        .append(true)
        .create(true)
        .open(folder.join("control.log"))?;
    Command::new(rajut)
        .args(["control", "--await-workloads", "--listen", listen])
        .arg(folder.join("config"))
        .env("RAJUT_STATE_DIR", folder.join("state"))
        .env("RAJUT_LOG", "warn")
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .with_context(|| rajut.display().to_string())
}

impl Plane {
    pub(crate) async fn start(rajut: &Path, folder: PathBuf) -> anyhow::Result<Self> {
        let plane = Self {
            done: false,
            child: spawn(rajut, &folder, "127.0.0.1:0")?,
            socket: folder.join("state/control.sock"),
            folder,
        };
        plane.ready().await?;
        Ok(plane)
    }

    /// Kills it and starts another one in its place: same state, same port.
    pub(crate) async fn restart(&mut self, rajut: &Path) -> anyhow::Result<()> {
        let address = self.issuer()?.address;
        self.child.kill()?;
        self.child.wait()?;
        std::fs::remove_file(self.folder.join(DESCRIPTION))?;
        self.child = spawn(rajut, &self.folder, &address)?;
        self.ready().await
    }

    async fn ready(&self) -> anyhow::Result<()> {
        let started = Instant::now();
        while !self.folder.join(DESCRIPTION).exists() {
            if started.elapsed() > Duration::from_mins(1) {
                bail!("the control plane does not start: {}", self.folder.display());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    pub(crate) fn issuer(&self) -> anyhow::Result<Issuer> {
        let text = std::fs::read_to_string(self.folder.join(DESCRIPTION))?;
        let description: Value = serde_json::from_str(&text)?;
        let member = |name: &str| {
            description[name]
                .as_str()
                .map(str::to_owned)
                .context("control.json")
        };
        Ok(Issuer {
            address: member("address")?,
            server_name: member("serverName")?,
            roots: TrustBundle::from_pem(&std::fs::read(member("rootCert")?)?)?,
            roots_file: None,
        })
    }

    pub(crate) async fn call(&self, method: &str, path: &str, body: String) -> anyhow::Result<Bytes> {
        let request = Ask {
            method,
            path,
            body: Bytes::from(body),
            timeout: Duration::from_mins(2),
            ..Ask::default()
        };
        let answer = ask(&Target::Unix(self.socket.clone()), &request).await?;
        if !answer.status.is_success() {
            bail!(
                "{method} {path}: {} {}",
                answer.status,
                String::from_utf8_lossy(&answer.body)
            );
        }
        Ok(answer.body)
    }

    pub(crate) async fn token(
        &self,
        namespace: &str,
        account: &str,
        workload: &str,
    ) -> anyhow::Result<String> {
        let body = json!({"namespace": namespace, "serviceAccount": account, "workload": workload});
        let answer: Value =
            serde_json::from_slice(&self.call("POST", "/v1/tokens", body.to_string()).await?)?;
        Ok(answer["token"].as_str().context("a token")?.to_owned())
    }

    /// Unlabelled counters as they are, labelled ones under `name{labels}`.
    pub(crate) async fn counters(&self) -> anyhow::Result<Counters> {
        let text = self.call("GET", "/metrics", String::new()).await?;
        let text = String::from_utf8_lossy(&text);
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let pair = |line: &str| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        Ok(lines.filter_map(pair).collect())
    }

    /// What the control plane knows of itself when something has failed, beside its log; the folder stays.
    pub(crate) async fn keep_traces(&self) {
        for (path, file) in [("/metrics", "metrics"), ("/v1/proxies", "proxies.json")] {
            let answer = match self.call("GET", path, String::new()).await {
                Ok(answer) => answer,
                Err(error) => format!("{error:#}").into(),
            };
            if let Err(error) = std::fs::write(self.folder.join(file), answer) {
                eprintln!("{file}: {error}");
            }
        }
        eprintln!("the traces of the failure: {}", self.folder.display());
    }

    /// Seconds of CPU so far, all threads.
    pub(crate) fn cpu(&self) -> f64 {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id()));
        let nanoseconds: u64 = tasks
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|task| std::fs::read_to_string(task.path().join("schedstat")).ok())
            .filter_map(|text| text.split(' ').next()?.parse::<u64>().ok())
            .sum();
        Duration::from_nanos(nanoseconds).as_secs_f64()
    }

    /// MiB of proportional set size.
    pub(crate) fn memory(&self) -> f64 {
        self.status("smaps_rollup", "Pss:")
    }

    /// MiB of resident memory at its highest so far.
    pub(crate) fn peak(&self) -> f64 {
        self.status("status", "VmHWM:")
    }

    fn status(&self, file: &str, field: &str) -> f64 {
        let text = std::fs::read_to_string(format!("/proc/{}/{file}", self.child.id())).unwrap_or_default();
        let kibibytes = text.lines().find_map(|line| {
            line.strip_prefix(field)?
                .trim()
                .split(' ')
                .next()?
                .parse::<f64>()
                .ok()
        });
        kibibytes.unwrap_or_default() / 1024.0
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        // Both errors mean that it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if self.done {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}
