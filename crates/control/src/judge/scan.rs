//! What is weak in a mesh's configuration: ports that take plain text, workloads that everybody may call, rules that ask nobody who
//! they are, identities that unlike workloads share, calls that leave the mesh unencrypted. What `rajut scan` shows.
//!
//! Judged on the listeners and rules of the proxies, as the rest of [`super`]. Pure. What it does not do: gateways (they are there to be
//! called by anybody), and what passes: that is told by those who count it.

use std::collections::{BTreeMap, BTreeSet};

use rajut_config::{
    Loaded, codes,
    model::{
        AuthorizationAction, ClientTlsMode, Deployment, DestinationRule, MtlsMode, Protocol, Service,
        TrafficPolicy, Workload,
    },
};
use rajut_ir::rbac::{
    Action, Rules,
    reach::{Known, Reach},
};
use rajut_types::{Code, Diagnostic, Origin, Severity, Text};
use serde::Serialize;

use super::{Because, Inbound, Judge, controls, of_rule, workloads};

/// A namespace and account that nobody writes into a policy.
const STRANGER: &str = "/ns/~any~/sa/~any~";

/// What is there, and how much of it is guarded.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Coverage {
    /// Deployments with a sidecar, gateways aside.
    pub workloads: usize,
    /// Those with a policy that says who may call them.
    pub guarded: usize,
    /// Their ports that services lead to or policies name.
    pub ports: usize,
    /// Those that take mTLS alone.
    pub strict: usize,
}

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct Scan {
    /// In the order of what they are about.
    pub findings: Vec<Diagnostic>,
    /// How much is covered.
    pub coverage: Coverage,
}

/// Looks at everything that was loaded, of which `judge` has the snapshot.
pub fn scan(loaded: &Loaded, judge: &mut Judge<'_>) -> Scan {
    let mut scan = Scan::default();
    let mut open_rules = BTreeSet::new();
    let all = workloads(loaded);
    for (deployment, workload) in loaded.deployments.iter().zip(&all) {
        let Some(inbound) = judge.inbound(workload).filter(|_| !deployment.gateway) else {
            continue;
        };
        scan.coverage.workloads += 1;
        plain_ports(loaded, deployment, &inbound, &mut scan);
        let mut policies = inbound.view.authorization.iter();
        if policies.any(|it| it.action == AuthorizationAction::Allow && !it.dry_run) {
            scan.coverage.guarded += 1;
        } else {
            let message = format!("nothing says who may call `{}`: everybody may", whole(deployment));
            let hint = "write an AuthorizationPolicy (`rajut policy suggest` does, from what was seen), or turn on default deny";
            scan.say(loaded, codes::UNGUARDED, &deployment.origin, message, hint);
        }
        open_rules.extend(rules_for_anybody(judge, workload, &inbound));
    }
    for rule in open_rules {
        let message = "this rule lets every caller through, whoever it is";
        let hint = "name the callers in `from`, or say by a token or an address who is meant";
        scan.say(loaded, codes::OPEN_RULE, &rule, message, hint);
    }
    shared_identities(loaded, &mut scan);
    for service in loaded.services.iter().filter(|service| service.external) {
        plain_egress(loaded, service, &mut scan);
    }
    scan
}

impl Scan {
    fn say(
        &mut self,
        loaded: &Loaded,
        code: Code,
        origin: &Origin,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        let finding = loaded.index.diagnostic(code, Severity::Warning, origin, message);
        self.findings.push(finding.hint(hint));
    }
}

fn whole(deployment: &Deployment) -> String {
    format!("{}.{}", deployment.name, deployment.namespace)
}

/// One finding for all ports of a workload that one policy, or none, leaves open.
fn plain_ports(loaded: &Loaded, deployment: &Deployment, inbound: &Inbound, scan: &mut Scan) {
    let mtls = &inbound.view.mtls;
    let mut open: BTreeMap<&Origin, Vec<String>> = BTreeMap::new();
    for port in inbound.ports() {
        scan.coverage.ports += 1;
        if mtls.mode(port) == MtlsMode::Strict {
            scan.coverage.strict += 1;
        } else {
            open.entry(mtls.origin(port)).or_default().push(port.to_string());
        }
    }
    for (origin, ports) in open {
        let written = origin.line > 0;
        let noun = if ports.len() == 1 { "port" } else { "ports" };
        let message = format!(
            "`{}` takes plain text at {noun} {}",
            whole(deployment),
            ports.join(", ")
        );
        let hint = if written {
            "set `mtls: {mode: STRICT}` here once nobody calls in plain text"
        } else {
            "nobody wrote a mode, and PERMISSIVE is the default: add a PeerAuthentication with `mtls: {mode: STRICT}`"
        };
        let place = if written { origin } else { &deployment.origin };
        scan.say(loaded, codes::PLAIN_PORT, place, message, hint);
    }
}

/// Rules of action `ALLOW` under which it does not matter who calls.
fn rules_for_anybody(judge: &Judge<'_>, workload: &Workload, inbound: &Inbound) -> Vec<Origin> {
    let stranger = format!("spiffe://{}{STRANGER}", judge.snapshot().mesh.trust_domain);
    let known = Known {
        identity: Some(&stranger),
        ..Known::default()
    };
    let ports = inbound.ports().into_iter().chain([0]);
    let chains = ports.filter_map(|port| inbound.select(port, true, true, ""));
    let rules = chains
        .filter(|_| workload.mesh)
        .flat_map(|chain| controls(chain))
        .filter_map(|rbac| rbac.rules.as_deref())
        .filter(|rules| rules.action() == Action::Allow);
    rules
        .flat_map(Rules::policies)
        .filter(|(_, policy)| policy.callers(&known) == Reach::Always)
        .filter_map(|(name, _)| match of_rule(&inbound.view, name)? {
            Because::Rule { policy, .. } => Some(policy),
            _ => None,
        })
        .collect()
}

/// Workloads of one identity that are not versions of one another.
fn shared_identities(loaded: &Loaded, scan: &mut Scan) {
    let mut bearers: BTreeMap<(&Text, &Text), Vec<&Deployment>> = BTreeMap::new();
    for deployment in &loaded.deployments {
        let identity = (&deployment.namespace, &deployment.service_account);
        bearers.entry(identity).or_default().push(deployment);
    }
    for ((namespace, account), all) in bearers {
        let service_of = |it: &Deployment| it.labels.canonical_service(&it.name).to_owned();
        let services: BTreeSet<String> = all.iter().map(|it| service_of(it)).collect();
        let Some(second) = all.iter().find(|it| service_of(it) != service_of(all[0])) else {
            continue;
        };
        let names: Vec<&str> = services.iter().map(String::as_str).collect();
        let message = format!(
            "{} share the identity {namespace}/{account}: no policy can tell them apart",
            names.join(", ")
        );
        let hint = "give each a service account of its own (`serviceAccountName`)";
        scan.say(loaded, codes::SHARED_IDENTITY, &second.origin, message, hint);
    }
}

/// Whether a rule has its clients speak TLS to that port.
fn speaks_tls(rule: &DestinationRule, port: u16) -> bool {
    let of = |policy: &TrafficPolicy| policy.tls.as_ref().map(|tls| tls.mode);
    let own = rule.policy.ports.iter().find(|(number, _)| *number == port);
    let mode = match own {
        Some((_, policy)) => of(policy),
        None => of(&rule.policy),
    };
    mode.is_some_and(|mode| mode != ClientTlsMode::Disable)
}

/// Calls that leave the mesh as they are; those to this very machine aside.
fn plain_egress(loaded: &Loaded, service: &Service, scan: &mut Scan) {
    let is_local = |address: &Text| address.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
    if !service.endpoints.is_empty() && service.endpoints.iter().all(|it| is_local(&it.address)) {
        return;
    }
    let rules: Vec<&DestinationRule> = loaded
        .destination_rules
        .iter()
        .filter(|rule| rule.host == service.host || rule.host.covers(&service.host))
        .collect();
    for port in &service.ports {
        let secured = port.protocol.is_tls() || port.protocol == Protocol::Udp;
        if secured || rules.iter().any(|rule| speaks_tls(rule, port.number)) {
            continue;
        }
        let message = format!(
            "calls to {} leave the mesh without TLS at port {}",
            service.host, port.number
        );
        let hint = "have the sidecar speak TLS (DestinationRule `tls: {mode: SIMPLE}`), or declare the port as TLS if the application does";
        scan.say(loaded, codes::PLAIN_EGRESS, &service.origin, message, hint);
    }
}
