//! Who can reach what, by which rule, and whether it is encrypted: what an auditor asks. Pure: the snapshot in, a list out.
//!
//! A workload's callers are judged by the rules that its proxy decides their calls with ([`rajut_ir::rbac::reach`]), so this page and
//! the mesh cannot differ; only the caller's identity is known, so that a rule that asks for a path lets it through
//! *sometimes*. Instances of a deployment are one, as long as the same policies hold for them; the first speaks for all.
//!
//! Bounds: [`PAIRS_MAX`] pairs of caller and workload; those beyond are counted. What it does not do: it knows no time (since
//! when a rule holds) and judges every port as HTTP: on a TCP port a rule that asks for a path or a header lets nothing through.

use std::{collections::BTreeMap, sync::Arc};

use rajut_config::{
    Snapshot,
    model::{AuthorizationAction, AuthorizationPolicy, MtlsMode, Workload},
    snapshot::Shared,
};
use rajut_ir::rbac::{
    Action, Rbac, Rules,
    reach::{Known, Reach as Applies},
};
use rajut_translate::access_controls;
use rajut_types::{Origin, Text};
use serde::Serialize;

/// Most pairs of caller and workload that are judged.
pub const PAIRS_MAX: usize = 100_000;

/// Everything that can be called, and by whom.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Reach {
    /// By namespace and name.
    pub workloads: Vec<Reached>,
    /// Pairs that were not judged.
    pub left_out: usize,
}

/// A deployment and its callers.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Reached {
    /// Its namespace.
    pub namespace: Text,
    /// Its name.
    pub deployment: Text,
    /// `spiffe://…`
    pub identity: String,
    /// Its instances.
    pub instances: usize,
    /// Of these, those that take new traffic.
    pub ready: usize,
    /// It has a sidecar; without one nothing is asked of its callers.
    pub mesh: bool,
    /// Labels `app` and `version`, where it has them.
    pub app: Option<Text>,
    /// See `app`.
    pub version: Option<Text>,
    /// Hosts of the services that it stands behind.
    pub services: Vec<String>,
    /// Whether it asks for mutual TLS.
    pub mtls: Mtls,
    /// By container port, where one differs.
    pub ports: BTreeMap<u16, Mtls>,
    /// The policies that hold for it.
    pub policies: Vec<Held>,
    /// Every other deployment, by what becomes of its calls.
    pub callers: Vec<Callers>,
    /// Calls without a certificate, which only mode `PERMISSIVE` and `DISABLE` take.
    pub plaintext: Verdict,
}

/// A mode and who chose it.
#[derive(Debug, Clone, Serialize)]
pub struct Mtls {
    /// `STRICT`, `PERMISSIVE` or `DISABLE`.
    pub mode: &'static str,
    /// Where it is written; `None`: nobody wrote it.
    #[serde(rename = "where")]
    pub place: Option<Origin>,
}

/// A policy that holds for a workload.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Held {
    /// `ALLOW`, `DENY` or `AUDIT`.
    pub action: &'static str,
    /// It is only counted.
    pub dry_run: bool,
    /// How many rules it has.
    pub rules: usize,
    /// Where it is written.
    #[serde(rename = "where")]
    pub place: Origin,
}

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It passes.
    Allowed,
    /// It depends on the request.
    Sometimes,
    /// It does not.
    Refused,
}

/// What becomes of a call, and who says so.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Verdict {
    /// What becomes of it.
    pub outcome: Outcome,
    /// Rules (`ns[N]-policy[P]-rule[0]`) that decide; empty: no rule is about it.
    pub by: Vec<Text>,
    /// There is a policy that lets nobody else through.
    pub guarded: bool,
}

/// Callers with one verdict.
#[derive(Debug, Clone, Serialize)]
pub struct Callers {
    /// What becomes of their calls.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// Deployments as `name.namespace`.
    pub callers: Vec<String>,
}

/// Judges all; without `callers` only what is asked of them is told.
pub fn reach(snapshot: &Snapshot, callers: bool) -> Reach {
    let mut deployments: BTreeMap<(&Text, &Text), Vec<&Arc<Workload>>> = BTreeMap::new();
    for workload in snapshot.workloads.values() {
        deployments
            .entry((&workload.namespace, &workload.deployment))
            .or_default()
            .push(workload);
    }
    let callers: Vec<(String, String)> = deployments
        .iter()
        .filter(|_| callers)
        .filter(|(_, instances)| instances.iter().any(|instance| instance.mesh))
        .filter_map(|((namespace, name), instances)| {
            let identity = instances.first()?.principal(&snapshot.mesh.trust_domain);
            Some((format!("{name}.{namespace}"), identity.spiffe_id()))
        })
        .collect();
    let mut left = PAIRS_MAX;
    let mut left_out = 0;
    let workloads = deployments
        .values()
        .filter_map(|instances| {
            let judged = callers.len().min(left);
            left -= judged;
            left_out += callers.len() - judged;
            of_deployment(snapshot, instances, &callers[..judged])
        })
        .collect();
    Reach { workloads, left_out }
}

fn of_deployment(
    snapshot: &Snapshot,
    instances: &[&Arc<Workload>],
    callers: &[(String, String)],
) -> Option<Reached> {
    let first = *instances.first()?;
    let view = snapshot.workload_view(&first.namespace, &first.name, &first.labels);
    let rules: Vec<Arc<Rbac>> = if first.mesh {
        access_controls(&view.mesh, &view.authorization).collect()
    } else {
        Vec::new()
    };
    let ports = view.mtls.ports.values().map(|(mode, _)| *mode);
    let modes: Vec<MtlsMode> = std::iter::once(view.mtls.mode).chain(ports).collect();
    let own = format!("{}.{}", first.deployment, first.namespace);
    let mut by_verdict: BTreeMap<Verdict, Vec<String>> = BTreeMap::new();
    for (name, identity) in callers.iter().filter(|(name, _)| *name != own) {
        by_verdict
            .entry(judge_by_modes(&rules, identity, &modes))
            .or_default()
            .push(name.clone());
    }
    // One port that takes it is enough.
    let plaintext = if first.mesh && modes.iter().all(|mode| *mode == MtlsMode::Strict) {
        Verdict {
            outcome: Outcome::Refused,
            by: Vec::new(),
            guarded: true,
        }
    } else {
        judge(&rules, &Known::default())
    };
    let mtls = |mode: MtlsMode, origin: &Origin| Mtls {
        mode: if first.mesh { mode_name(mode) } else { "DISABLE" },
        place: (first.mesh && origin.line > 0).then(|| origin.clone()),
    };
    Some(Reached {
        namespace: first.namespace.clone(),
        deployment: first.deployment.clone(),
        identity: first.principal(&snapshot.mesh.trust_domain).spiffe_id(),
        instances: instances.len(),
        ready: instances
            .iter()
            .filter(|instance| instance.health == rajut_config::model::WorkloadHealth::Ready)
            .count(),
        mesh: first.mesh,
        app: first.labels.find("app").map(Into::into),
        version: first.labels.find("version").map(Into::into),
        services: view
            .services
            .iter()
            .map(|(service, _)| service.host.to_string())
            .collect(),
        mtls: mtls(view.mtls.mode, &view.mtls.origin),
        ports: view
            .mtls
            .ports
            .iter()
            .map(|(port, (mode, origin))| (*port, mtls(*mode, origin)))
            .collect(),
        policies: view.authorization.iter().map(held).collect(),
        callers: by_verdict
            .into_iter()
            .map(|(verdict, callers)| Callers { verdict, callers })
            .collect(),
        plaintext,
    })
}

fn held(policy: &Shared<AuthorizationPolicy>) -> Held {
    Held {
        action: match policy.action {
            AuthorizationAction::Custom => "CUSTOM",
            AuthorizationAction::Audit => "AUDIT",
            AuthorizationAction::Deny => "DENY",
            AuthorizationAction::Allow => "ALLOW",
        },
        dry_run: policy.dry_run,
        rules: policy.rules.len(),
        place: policy.origin.clone(),
    }
}

const fn mode_name(mode: MtlsMode) -> &'static str {
    match mode {
        MtlsMode::Disable => "DISABLE",
        MtlsMode::Permissive => "PERMISSIVE",
        MtlsMode::Strict => "STRICT",
    }
}

/// In mode DISABLE a port takes plain text alone, and knows nobody; where that changes the verdict and only some ports have it,
/// it depends.
fn judge_by_modes(controls: &[Arc<Rbac>], identity: &str, modes: &[MtlsMode]) -> Verdict {
    let blind = modes.iter().filter(|mode| **mode == MtlsMode::Disable).count();
    if blind == modes.len() {
        return judge(controls, &Known::default());
    }
    let known = Known {
        identity: Some(identity),
        ..Known::default()
    };
    let mut verdict = judge(controls, &known);
    if blind > 0 && judge(controls, &Known::default()).outcome != verdict.outcome {
        verdict.outcome = Outcome::Sometimes;
    }
    verdict
}

/// In the order in which the access controls decide: each may refuse.
pub(crate) fn judge<'r>(controls: impl IntoIterator<Item = &'r Arc<Rbac>>, known: &Known<'_>) -> Verdict {
    let mut verdict = Verdict {
        outcome: Outcome::Allowed,
        by: Vec::new(),
        guarded: false,
    };
    for rules in controls.into_iter().filter_map(|rbac| rbac.rules.as_deref()) {
        let (applies, by) = strongest(rules, known);
        let outcome = match (rules.action(), applies) {
            (Action::Log, _) | (Action::Deny, Applies::Never) => continue,
            (Action::Deny, Applies::Always) | (Action::Allow, Applies::Never) => Outcome::Refused,
            (_, Applies::Sometimes) => Outcome::Sometimes,
            (Action::Allow, Applies::Always) => Outcome::Allowed,
        };
        verdict.guarded |= rules.action() == Action::Allow;
        verdict.by.extend(by);
        verdict.outcome = verdict.outcome.max(outcome);
        if verdict.outcome == Outcome::Refused {
            break;
        }
    }
    verdict
}

/// How surely one of the rules applies, and those that do so.
fn strongest(rules: &Rules, known: &Known<'_>) -> (Applies, Vec<Text>) {
    let mut strongest = (Applies::Never, Vec::new());
    for (name, policy) in rules.policies() {
        let applies = policy.reach(known);
        if applies == Applies::Never || applies < strongest.0 {
            continue;
        }
        if applies > strongest.0 {
            strongest = (applies, Vec::new());
        }
        strongest.1.push(name.clone());
    }
    strongest
}

#[cfg(test)]
mod tests;
