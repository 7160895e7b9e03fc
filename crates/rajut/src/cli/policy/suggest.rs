//! `rajut policy suggest`: the least policies that let through what the control plane has seen (`/v1/edges`, which `rajut top` shows).
//!
//! One policy for each workload, a rule for each caller with the ports that it called, and the evidence as comments. What the control
//! plane does not know (methods, paths; whether a call was refused) is said, not invented. A workload that nobody called gets a policy
//! that lets nobody through. Gateways are left out: who calls them from outside is no edge of the mesh.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, bail};
use rajut_config::{
    Loaded,
    model::{Deployment, Service, TargetPort},
};
use rajut_types::Labels;
use serde_json::{Value, json};

use super::running;
use crate::{
    cli::{block_on, mesh::Place, top::plain},
    output,
};

/// As long as anything is remembered.
const WINDOW_SECONDS: u32 = 72 * 3600;
/// A file that begins so may be written anew.
const FIRST_LINE: &str = "# Made by `rajut policy suggest`";
/// Labels that say which workload it is, in the order in which they are preferred.
const TELLING: [&str; 2] = ["app", "app.kubernetes.io/name"];

/// `rajut policy suggest`
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  rajut policy suggest --out policies/ && rajut policy matrix -f k8s/ -f policies/ --against k8s/")]
pub(crate) struct SuggestArgs {
    /// A folder for one file a workload [default: all to standard output]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

pub(super) fn suggest(place: &Place, args: &SuggestArgs) -> anyhow::Result<ExitCode> {
    let loaded = running(place)?;
    let control = place.control()?;
    let path = format!("/v1/edges?windowSeconds={WINDOW_SECONDS}");
    let answer = block_on(async move { Ok(control.json("GET", &path, None).await?) })?;
    let suggested = Suggested::new(&loaded, &answer);
    for note in &suggested.notes {
        output::warn(&format!("rajut: {}", plain(note)));
    }
    let Some(folder) = &args.out else {
        let texts: Vec<&str> = suggested.files.values().map(String::as_str).collect();
        output::print(&texts.join("---\n"))?;
        return Ok(ExitCode::SUCCESS);
    };
    std::fs::create_dir_all(folder).with_context(|| format!("can't make {}", folder.display()))?;
    for (name, text) in &suggested.files {
        write(&folder.join(name), text)?;
    }
    let count = suggested.files.len();
    let noun = if count == 1 { "policy" } else { "policies" };
    output::print(&format!("{count} {noun} in {}\n", folder.display()))?;
    Ok(ExitCode::SUCCESS)
}

/// Only what was made so is replaced.
fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let known = match std::fs::read_to_string(path) {
        Ok(known) => known,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error).with_context(|| format!("can't read {}", path.display())),
    };
    if !known.is_empty() && !known.starts_with(FIRST_LINE) {
        bail!("{} is somebody's own and stays as it is", path.display());
    }
    std::fs::write(path, text).with_context(|| format!("can't write {}", path.display()))
}

/// What was seen of one caller at one port of a workload.
#[derive(Debug)]
struct Evidence {
    port: u16,
    line: String,
}

#[derive(Debug, Default)]
struct Suggested {
    /// File name → policy.
    files: BTreeMap<String, String>,
    /// What could not be put into a policy.
    notes: Vec<String>,
}

impl Suggested {
    fn new(loaded: &Loaded, answer: &Value) -> Self {
        let mut suggested = Self::default();
        let mut seen: BTreeMap<(&str, &str), BTreeMap<String, Vec<Evidence>>> = BTreeMap::new();
        let edges = answer.get("edges").and_then(Value::as_array);
        for edge in edges.into_iter().flatten() {
            let principal = text(edge, "/source/principal");
            let called = called(loaded, edge);
            if called.is_empty() {
                continue;
            }
            if principal.is_empty() {
                suggested.notes.push(format!(
                    "{} called {} without an identity: no policy can name it",
                    text(edge, "/source/workload"),
                    text(edge, "/destination/host")
                ));
                continue;
            }
            let principal = principal.strip_prefix("spiffe://").unwrap_or(principal);
            for (deployment, port) in called {
                let of_workload = seen.entry((&deployment.namespace, &deployment.name)).or_default();
                let line = line(edge);
                let evidence = of_workload.entry(principal.to_owned()).or_default();
                evidence.push(Evidence { port, line });
            }
        }
        let since = text(answer, "/since").to_owned();
        let now = text(answer, "/now").to_owned();
        for deployment in loaded.deployments.iter().filter(|it| !it.gateway) {
            let callers = seen.remove(&(&*deployment.namespace, &*deployment.name));
            suggested.add(loaded, deployment, &callers.unwrap_or_default(), (&since, &now));
        }
        suggested
    }

    fn add(
        &mut self,
        loaded: &Loaded,
        deployment: &Deployment,
        callers: &BTreeMap<String, Vec<Evidence>>,
        (since, now): (&str, &str),
    ) {
        let whole = format!("{}.{}", deployment.name, deployment.namespace);
        let Some(selector) = selector(loaded, deployment) else {
            self.notes.push(format!(
                "{whole} has no labels of its own by which a policy could select it"
            ));
            return;
        };
        let mut file = format!(
            "{FIRST_LINE}: who called {whole} from {} to {}.\n# Methods and paths are not recorded, nor whether a call was refused: \
             narrow the rules where you know more.\n",
            plain(since),
            plain(now)
        );
        append!(
            file,
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata:\n  name: {}\n  namespace: {}\nspec:\n  \
             selector:\n    matchLabels:\n",
            json!(format!("{}-observed", deployment.name)),
            json!(&*deployment.namespace)
        );
        for (key, value) in selector.iter() {
            append!(file, "      {}: {}\n", json!(key), json!(value));
        }
        file += "  action: ALLOW\n";
        if callers.is_empty() {
            file += "  # Nobody called it: without rules nobody is let through.\n";
        } else {
            file += "  rules:\n";
        }
        for (principal, evidence) in callers {
            let ports: BTreeSet<u16> = evidence.iter().map(|one| one.port).collect();
            let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
            for one in evidence {
                append!(file, "  # {}\n", one.line);
            }
            append!(
                file,
                "  - from:\n    - source:\n        principals: {}\n    to:\n    - operation:\n        ports: {}\n",
                json!([principal]),
                json!(ports)
            );
        }
        let name = format!("{}-{}.yaml", deployment.namespace, deployment.name);
        self.files.insert(name, file);
    }
}

fn text<'v>(value: &'v Value, pointer: &str) -> &'v str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// `web.lab to api.lab.svc.cluster.local:80: 40 requests, 2 failed, from … to …`
fn line(edge: &Value) -> String {
    let number = |name: &str| edge.get(name).and_then(Value::as_u64);
    let mut amounts = Vec::new();
    for (name, noun) in [
        ("requests", "requests"),
        ("failed", "failed"),
        ("connections", "connections"),
    ] {
        if let Some(amount) = number(name).filter(|amount| *amount > 0) {
            amounts.push(format!("{amount} {noun}"));
        }
    }
    if amounts.is_empty() {
        amounts.push("how often is no longer known".to_owned());
    }
    let port = edge.pointer("/destination/port").and_then(Value::as_u64);
    plain(&format!(
        "{}.{} to {}:{}: {}, from {} to {}",
        text(edge, "/source/workload"),
        text(edge, "/source/namespace"),
        text(edge, "/destination/host"),
        port.unwrap_or_default(),
        amounts.join(", "),
        text(edge, "/firstSeen"),
        text(edge, "/lastSeen")
    ))
}

/// The workloads that stand behind what was called, each with its own port.
fn called<'l>(loaded: &'l Loaded, edge: &Value) -> Vec<(&'l Deployment, u16)> {
    let host = text(edge, "/destination/host");
    let subset = text(edge, "/destination/subset");
    let number = edge.pointer("/destination/port").and_then(Value::as_u64);
    let Some(number) = number.and_then(|number| u16::try_from(number).ok()) else {
        return Vec::new();
    };
    let services = loaded.services.iter().filter(|it| it.host.as_str() == host);
    services
        .filter_map(|service| Some((service, service.port(number)?, service.selector.as_ref()?)))
        .flat_map(|(service, port, selector)| {
            let narrowed = labels_of_subset(loaded, service, subset);
            let behind = loaded.deployments.iter().filter(move |deployment| {
                !deployment.gateway
                    && deployment.namespace == service.namespace
                    && deployment.labels.matches(selector)
                    && narrowed.is_none_or(|labels| deployment.labels.matches(labels))
            });
            behind.filter_map(|deployment| {
                let own = match &port.target {
                    TargetPort::Number(number) => Some(*number),
                    TargetPort::Name(name) => {
                        let named = deployment.ports.iter().find(|port| port.name == *name);
                        named.map(|port| port.number)
                    }
                };
                Some((deployment, own?))
            })
        })
        .collect()
}

/// `None`: no subset, or one that nobody describes any more, which may be all of them.
fn labels_of_subset<'l>(loaded: &'l Loaded, service: &Service, subset: &str) -> Option<&'l Labels> {
    let rules = loaded
        .destination_rules
        .iter()
        .filter(|rule| rule.host == service.host);
    rules
        .flat_map(|rule| &rule.subsets)
        .find(|rule| !subset.is_empty() && *rule.name == *subset)
        .map(|rule| &rule.labels)
}

/// The fewest labels by which this workload and no other of its namespace is meant. `None`: there are none.
fn selector(loaded: &Loaded, deployment: &Deployment) -> Option<Labels> {
    let own = &deployment.labels;
    let is_alone = |selector: &Labels| {
        let others = loaded
            .deployments
            .iter()
            .filter(|other| other.namespace == deployment.namespace && other.name != deployment.name);
        others.into_iter().all(|other| !other.labels.matches(selector))
    };
    let first = TELLING.iter().filter_map(|key| Some((*key, own.find(key)?)));
    let single = first
        .chain(own.iter())
        .map(|pair| std::iter::once(pair).collect::<Labels>());
    let mut candidates = single.chain([own.clone()]);
    candidates.find(|selector| !selector.is_empty() && is_alone(selector))
}

#[cfg(test)]
mod tests {
    use rajut_config::{LoadOptions, Source, load};
    use rajut_control::judge::{Judge, row::Rows, snapshot};

    use super::*;

    const LAB: &str = "
apiVersion: v1
kind: Service
metadata: {name: api, namespace: lab}
spec: {selector: {app: api}, ports: [{name: http, port: 80, targetPort: web}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: api, namespace: lab}
spec: {host: api, subsets: [{name: v2, labels: {version: v2}}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: api, namespace: lab}
spec:
  selector: {matchLabels: {app: api}}
  template:
    metadata: {labels: {app: api, version: v1}}
    spec: {containers: [{name: a, image: a, ports: [{name: web, containerPort: 8080}]}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: api-v2, namespace: lab}
spec:
  selector: {matchLabels: {app: api}}
  template:
    metadata: {labels: {app: api, version: v2}}
    spec: {containers: [{name: a, image: a, ports: [{name: web, containerPort: 9090}]}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: job, namespace: lab}
spec:
  selector: {matchLabels: {app: job}}
  template:
    metadata: {labels: {app: job}}
    spec: {serviceAccountName: job, containers: [{name: a, image: a}]}
";

    fn edge(principal: &str, subset: Option<&str>) -> Value {
        json!({
            "source": {"namespace": "lab", "workload": "job\nevil: true", "principal": principal},
            "destination": {"host": "api.lab.svc.cluster.local", "namespace": "lab", "port": 80, "subset": subset},
            "firstSeen": "2026-01-01T00:00:00Z", "lastSeen": "2026-01-01T01:00:00Z", "requests": 40, "failed": 2,
        })
    }

    fn loaded(text: &str) -> Loaded {
        let loaded = load(&[Source::new("t.yaml", text)], &LoadOptions::default());
        let wrong = |it: &&rajut_types::Diagnostic| it.severity == rajut_types::Severity::Error;
        assert!(
            !loaded.diagnostics.iter().any(|it| wrong(&it)),
            "{:#?}",
            loaded.diagnostics
        );
        loaded
    }

    #[test]
    fn what_was_seen_is_let_through_and_nothing_else() {
        let before = loaded(LAB);
        let job = "spiffe://cluster.local/ns/lab/sa/job";
        let outside =
            json!({"source": {"principal": job}, "destination": {"host": "x.example", "port": 443}});
        let answer = json!({"edges": [edge(job, None), edge("spiffe://cluster.local/ns/lab/sa/web", Some("v2")),
            edge("", None), outside]});
        let suggested = Suggested::new(&before, &answer);
        let names: Vec<&str> = suggested.files.keys().map(String::as_str).collect();
        assert_eq!(names, ["lab-api-v2.yaml", "lab-api.yaml", "lab-job.yaml"]);
        let api = &suggested.files["lab-api.yaml"];
        assert!(
            api.contains("40 requests, 2 failed, from 2026-01-01T00:00:00Z"),
            "{api}"
        );
        assert!(!api.contains("\nevil"), "{api}");
        assert_eq!(suggested.notes.len(), 1, "{:?}", suggested.notes);
        let texts: Vec<String> = suggested.files.values().map(|it| format!("---\n{it}")).collect();
        let after = loaded(&format!("{LAB}{}", texts.concat()));
        let snapshot = snapshot(&after);
        let (rows, mut judge) = (Rows::new(&snapshot, "lab"), Judge::new(&snapshot));
        let (tests, findings) = rajut_config::policy_test::read(&[Source::new(
            "tests.yaml",
            "tests:\n\
             - {source: {serviceAccount: job}, destination: {workload: api, port: 8080}, expect: allow}\n\
             - {source: {serviceAccount: job}, destination: {workload: api-v2, port: 9090}, expect: allow}\n\
             - {source: {serviceAccount: job}, destination: {workload: api, port: 9090}, expect: deny}\n\
             - {source: {serviceAccount: web}, destination: {workload: api, port: 8080}, expect: deny}\n\
             - {source: {serviceAccount: web}, destination: {workload: api-v2, port: 9090}, expect: allow}\n\
             - {source: {serviceAccount: web}, destination: {workload: job, port: 1}, expect: deny}\n\
             - {destination: {workload: api, port: 8080}, expect: deny}\n",
        )]);
        assert!(findings.is_empty(), "{findings:?}");
        for test in tests {
            let found = rows.judge(&mut judge, &test).expect("it is clear");
            assert_eq!(found.allowed, test.expect, "{:?}: {}", test.origin, found.because);
        }
    }
}
