//! Who may call what: every identity, every workload, every port and every path that a policy names, with the verdict and the rule
//! behind it; and what differs between two configurations.
//!
//! Judged by [`crate::reach`] on the controls of the chain that takes such a call, so by the rules of the proxy. A path with a
//! wildcard is asked for by a path of that form; `(other)` stands for one that no policy names. What depends on an address, a header
//! or a token *depends*.
//!
//! Bounds: [`CELLS_MAX`] verdicts; those beyond are counted. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use rajut_config::{
    Snapshot,
    model::{AuthorizationCondition, AuthorizationPolicy, PathPattern, Values, Wild, Workload},
    snapshot::Shared,
};
use rajut_ir::{listener::ChainAction, rbac::reach::Known};
use rajut_types::{Principal, Text};
use serde::Serialize;

use super::{Because, Inbound, Judge, controls, of_rule};
use crate::reach::{self, Outcome};

/// Most verdicts of a matrix.
pub const CELLS_MAX: usize = 1_000_000;
/// Paths that policies name for one workload; those beyond are not asked for.
const ROUTES_MAX: usize = 1_000;
/// A segment that nobody writes into a policy, of characters that a template's `{*}` takes.
const SOME: &str = "~any~";

/// What is asked of a workload.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Route {
    /// `None`: any.
    pub method: Option<Text>,
    /// As a policy writes it; `None`: any.
    pub path: Option<Text>,
    /// A path of that form.
    #[serde(skip)]
    sample: Option<Text>,
}

/// One question.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Question {
    /// Of the workload.
    pub namespace: Text,
    /// The deployment.
    pub workload: Text,
    /// `None`: any that no service leads to.
    pub port: Option<u16>,
    /// What is asked for.
    #[serde(flatten)]
    pub route: Route,
    /// `spiffe://…`; `None`: a caller in plain text.
    pub caller: Option<Text>,
}

/// One answer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// What becomes of it.
    pub outcome: Outcome,
    /// Who says so; several where it depends.
    pub by: Vec<Because>,
}

/// All answers.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Matrix {
    /// By workload, port, route and caller.
    pub cells: BTreeMap<Question, Answer>,
    /// Questions that were not asked.
    pub left_out: usize,
}

/// What there is to ask.
#[derive(Debug, Clone, Default)]
pub struct Probes {
    callers: BTreeSet<Option<Text>>,
    /// By namespace and deployment.
    workloads: BTreeMap<(Text, Text), Asked>,
}

#[derive(Debug, Clone, Default)]
struct Asked {
    ports: BTreeSet<Option<u16>>,
    routes: BTreeSet<Route>,
}

impl Probes {
    /// Adds what that configuration has and names.
    pub fn add(&mut self, judge: &mut Judge<'_>) {
        let snapshot = judge.snapshot();
        self.callers.insert(None);
        for workload in snapshot.workloads.values().filter(|it| it.mesh) {
            let principal = workload.principal(&snapshot.mesh.trust_domain);
            self.callers.insert(Some(principal.spiffe_id().into()));
        }
        for policy in &snapshot.authorization_policies {
            add_callers(policy, snapshot, &mut self.callers);
        }
        for (key, workload) in deployments(snapshot) {
            let asked = self.workloads.entry(key).or_default();
            let Some(inbound) = judge.inbound(&workload).filter(|_| workload.mesh) else {
                asked.ports.insert(None);
                continue;
            };
            let ports = inbound.ports();
            if ports.is_empty() {
                asked.ports.insert(None);
            }
            asked.ports.extend(ports.into_iter().map(Some));
            add_routes(&inbound.view.authorization, &mut asked.routes);
        }
    }
}

/// The first instance of each, gateways aside: what those let through is decided by their routes, too.
fn deployments(snapshot: &Snapshot) -> BTreeMap<(Text, Text), Arc<Workload>> {
    let mut found = BTreeMap::new();
    for workload in snapshot.workloads.values().filter(|it| it.gateway.is_none()) {
        let key = (workload.namespace.clone(), workload.deployment.clone());
        found.entry(key).or_insert_with(|| Arc::clone(workload));
    }
    found
}

/// Identities that policies spell out: they may be nobody's yet.
fn add_callers(policy: &AuthorizationPolicy, snapshot: &Snapshot, callers: &mut BTreeSet<Option<Text>>) {
    let mut add = |principal: Option<Principal>| {
        callers.extend(principal.map(|it| Some(it.spiffe_id().into())));
    };
    let exact = |value: &Wild| match value {
        Wild::Exact(text) => text.parse().ok(),
        Wild::Prefix(_) | Wild::Suffix(_) | Wild::Present => None,
    };
    for rule in &policy.rules {
        for source in &rule.sources {
            for value in each(&source.principals) {
                add(exact(value));
            }
            for account in each(&source.service_accounts) {
                let domain = &snapshot.mesh.trust_domain;
                add(Some(Principal::new(domain, &account.namespace, &account.name)));
            }
        }
        for condition in &rule.conditions {
            if let AuthorizationCondition::SourcePrincipal(values) = condition {
                for value in each(values) {
                    add(exact(value));
                }
            }
        }
    }
}

fn each<T>(values: &Values<T>) -> impl Iterator<Item = &T> {
    values.any.iter().chain(&values.none)
}

/// What the operations name, together as they stand, and one that none names.
fn add_routes(policies: &[Shared<AuthorizationPolicy>], routes: &mut BTreeSet<Route>) {
    let operations = policies.iter().flat_map(|policy| &policy.rules);
    let (mut paths_named, mut methods_named) = (false, false);
    for operation in operations.flat_map(|rule| &rule.operations) {
        let mut methods: Vec<Option<Text>> = each(&operation.methods).map(method).collect();
        let mut paths: Vec<Option<(Text, Text)>> =
            each(&operation.paths).map(|path| Some(sample(path))).collect();
        methods_named |= !methods.is_empty();
        paths_named |= !paths.is_empty();
        if methods.is_empty() {
            methods.push(None);
        }
        if paths.is_empty() {
            paths.push(None);
        }
        for method in &methods {
            for path in &paths {
                if routes.len() >= ROUTES_MAX {
                    break;
                }
                let (path, sample) = path.clone().unzip();
                routes.insert(Route {
                    method: method.clone(),
                    path,
                    sample,
                });
            }
        }
    }
    // What is named says nothing of all else.
    routes.insert(Route {
        method: (methods_named && !paths_named).then(|| "(other)".into()),
        path: paths_named.then(|| "(other)".into()),
        sample: paths_named.then(|| format!("/{SOME}").into()),
    });
}

/// A method of that form.
fn method(value: &Wild) -> Option<Text> {
    match value {
        Wild::Exact(text) => Some(text.clone()),
        Wild::Prefix(text) => Some(format!("{text}{SOME}").into()),
        Wild::Suffix(text) => Some(format!("{SOME}{text}").into()),
        Wild::Present => None,
    }
}

/// A path as it is written, and one of that form.
fn sample(path: &PathPattern) -> (Text, Text) {
    match path {
        PathPattern::Wild(Wild::Exact(text)) => (text.clone(), text.clone()),
        PathPattern::Wild(Wild::Prefix(text)) => (format!("{text}*").into(), format!("{text}{SOME}").into()),
        PathPattern::Wild(Wild::Suffix(text)) => (format!("*{text}").into(), format!("/{SOME}{text}").into()),
        PathPattern::Wild(Wild::Present) => ("*".into(), format!("/{SOME}").into()),
        PathPattern::Template(text) => {
            let sample = text.replace("{**}", SOME).replace("{*}", SOME);
            (text.clone(), sample.into())
        }
    }
}

/// Asks everything.
pub fn matrix(judge: &mut Judge<'_>, probes: &Probes) -> Matrix {
    let mut matrix = Matrix::default();
    let snapshot = judge.snapshot();
    let workloads = deployments(snapshot);
    for ((namespace, name), asked) in &probes.workloads {
        let Some(workload) = workloads.get(&(namespace.clone(), name.clone())) else {
            continue;
        };
        let inbound = judge.inbound(workload).filter(|_| workload.mesh);
        let none = BTreeSet::from([Route::default()]);
        for port in &asked.ports {
            let chain = inbound
                .as_deref()
                .and_then(|inbound| inbound.select(port.unwrap_or(0), true, true, ""));
            let bytes = chain.is_some_and(|chain| matches!(chain.action, ChainAction::Tcp(_)));
            // A connection has no paths.
            let routes = if asked.routes.is_empty() || bytes {
                &none
            } else {
                &asked.routes
            };
            for route in routes {
                for caller in &probes.callers {
                    if matrix.cells.len() >= CELLS_MAX {
                        matrix.left_out += 1;
                        continue;
                    }
                    let question = Question {
                        namespace: namespace.clone(),
                        workload: name.clone(),
                        port: *port,
                        route: route.clone(),
                        caller: caller.clone(),
                    };
                    let answer = answer(inbound.as_deref(), &question);
                    matrix.cells.insert(question, answer);
                }
            }
        }
    }
    matrix
}

fn answer(inbound: Option<&Inbound>, question: &Question) -> Answer {
    let of = |outcome, because| Answer {
        outcome,
        by: vec![because],
    };
    let Some(inbound) = inbound else {
        return of(Outcome::Allowed, Because::Unguarded);
    };
    let port = question.port.unwrap_or(0);
    let secured = question
        .caller
        .as_ref()
        .and_then(|_| inbound.select(port, true, true, ""))
        .filter(|chain| chain.tls.is_some());
    let Some(chain) = secured.or_else(|| inbound.select(port, false, true, "")) else {
        let by = inbound.view.mtls.origin(port).clone();
        return of(Outcome::Refused, Because::PlainText { by });
    };
    let known = Known {
        identity: question.caller.as_deref().filter(|_| chain.tls.is_some()),
        method: question.route.method.as_deref(),
        path: question.route.sample.as_deref(),
        port: question.port,
    };
    let verdict = reach::judge(controls(chain), &known);
    let mut by: Vec<Because> = verdict
        .by
        .iter()
        .filter_map(|name| of_rule(&inbound.view, name))
        .collect();
    if by.is_empty() {
        by.push(if verdict.outcome == Outcome::Refused {
            Because::NotAllowed
        } else {
            Because::Unguarded
        });
    }
    Answer {
        outcome: verdict.outcome,
        by,
    }
}

/// What differs: the answer before and after; `None` where that configuration has no such workload or port.
pub fn difference(before: &Matrix, after: &Matrix) -> BTreeMap<Question, (Option<Answer>, Option<Answer>)> {
    let keys: BTreeSet<&Question> = before.cells.keys().chain(after.cells.keys()).collect();
    let mut differences = BTreeMap::new();
    for key in keys {
        let (old, new) = (before.cells.get(key), after.cells.get(key));
        if old.map(|it| it.outcome) != new.map(|it| it.outcome) {
            differences.insert(key.clone(), (old.cloned(), new.cloned()));
        }
    }
    differences
}
