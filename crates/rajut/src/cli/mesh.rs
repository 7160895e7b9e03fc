//! The mesh that a command is about: its state directory, what runs in it, its control plane.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use rajut_local::{
    client::ControlClient,
    state::{MeshRecord, StateDir, WorkloadRecord},
};
use rajut_runtime::env::{COMMON, Environment, Kind, Variable};

/// Variables that only the tool reads.
pub(crate) const VARIABLES: &[Variable] = &[
    Variable {
        name: "XDG_STATE_HOME",
        kind: Kind::Text,
        default: "",
        help: "Where state lives when RAJUT_STATE_DIR is not set.",
    },
    Variable {
        name: "HOME",
        kind: Kind::Text,
        default: "",
        help: "Where state lives when neither is set: ~/.local/state/rajut.",
    },
    Variable {
        name: "PATH",
        kind: Kind::Text,
        default: "",
        help: "Where programs are looked for.",
    },
    Variable {
        name: "RAJUT_ENVOY",
        kind: Kind::Text,
        default: "",
        help: "The Envoy program for `up --data-plane envoy`; without it `envoy` on PATH.",
    },
    Variable {
        name: "RAJUT_CERTIFICATE_TTL",
        kind: Kind::Duration,
        default: "24h",
        help: "How long certificates are asked to live, from `10s` to `24h`; they are renewed at half of that.",
    },
    Variable {
        name: "RAJUT_LEARN_FOR",
        kind: Kind::Duration,
        default: "10m",
        help: "How long after the control plane's start a workload's first call of a service is no alarm.",
    },
    Variable {
        name: "RAJUT_FULL_PUSH",
        kind: Kind::Bool,
        default: "false",
        help: "Our proxies are told every cluster at once, also with `--on-demand`.",
    },
    Variable {
        name: "RAJUT_FORGET_AFTER",
        kind: Kind::Duration,
        default: "10m",
        help: "What was fetched on demand is forgotten when no request has used it for so long, at least `1s`.",
    },
];

/// The state directory of this invocation.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) state: StateDir,
    pub(crate) env: Environment,
}

impl Place {
    pub(crate) fn new(state_dir: Option<&Path>) -> anyhow::Result<Self> {
        let table: Vec<Variable> = COMMON.iter().chain(VARIABLES).copied().collect();
        let env = Environment::read(&table)?;
        let path = |name| env.text(name).map(PathBuf::from);
        let state = StateDir::locate(
            state_dir,
            path("XDG_STATE_HOME").as_deref(),
            path("HOME").as_deref(),
        )?;
        Ok(Self { state, env })
    }

    /// What runs, or why nothing does.
    pub(crate) fn running(&self) -> anyhow::Result<MeshRecord> {
        let mesh = self.state.read_mesh()?;
        match mesh {
            Some(mesh) if self.state.is_locked() => Ok(mesh),
            Some(_) => bail!(
                "the mesh in {} is no longer supervised (its supervisor was killed); `rajut down` cleans up",
                self.state.path().display()
            ),
            None => bail!(
                "no mesh runs here ({}); start one with `rajut up`",
                self.state.path().display()
            ),
        }
    }

    /// The running mesh's control plane.
    pub(crate) fn control(&self) -> anyhow::Result<ControlClient> {
        self.running()?;
        Ok(ControlClient::new(&self.state.control_socket()))
    }
}

/// Finds a workload by `NAME` or `NAME.NAMESPACE`; the name of a deployment means its first instance.
pub(crate) fn workload<'a>(mesh: &'a MeshRecord, name: &str) -> anyhow::Result<&'a WorkloadRecord> {
    let matching = |test: fn(&WorkloadRecord) -> &str| -> Vec<&'a WorkloadRecord> {
        mesh.workloads
            .iter()
            .filter(|workload| {
                let own = test(workload);
                name == own
                    || name
                        .strip_prefix(own)
                        .and_then(|rest| rest.strip_prefix('.'))
                        .is_some_and(|namespace| namespace == workload.namespace)
            })
            .collect()
    };
    let mut found = matching(|workload| &workload.name);
    if found.is_empty() {
        found = matching(|workload| &workload.deployment);
        found.truncate(1);
    }
    match found[..] {
        [one] => Ok(one),
        [] => {
            let names: Vec<_> = mesh
                .workloads
                .iter()
                .map(|workload| workload.name.as_str())
                .collect();
            Err(anyhow::anyhow!("there are {}", names.join(", ")))
                .with_context(|| format!("there is no workload {name}"))
        }
        _ => {
            let names: Vec<_> = found
                .iter()
                .map(|workload| format!("{}.{}", workload.name, workload.namespace))
                .collect();
            bail!("{name} is in several namespaces: say {}", names.join(" or "))
        }
    }
}
