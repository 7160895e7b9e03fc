//! What the console's pages ask, and from whom they get it: the interfaces of `rajut top`, `alarms`, `status` and `get`.
//!
//! | question | answered by | who may |
//! | --- | --- | --- |
//! | `edges`, `history`, `alarms`, `services`, `service`, `proxies` | the control plane's API | viewer |
//! | `findings` | the same, without excerpts of resources that may hold secrets | viewer |
//! | `coverage` | `/v1/reach`, without who may call | viewer |
//! | `status` | the state directory and the sidecars, as `rajut status` | viewer |
//! | `endpoints` | the callers' sidecars | viewer |
//! | `reach` | `/v1/reach` | auditor |
//! | `resources` | `/v1/resources`: the text of the mesh's own kinds | auditor |
//!
//! **Secrets.** Only kinds of [`SHOWN`] are shown as they are written; of others no more than their name is told. In what is shown, values
//! under names like `authorization` or `token` are replaced ([`redacted`]).
//!
//! Bounds: an answer is kept for [`FRESH`] and asked for once, however many ask ([`KEPT_MAX`] of them); [`SIDECARS_MAX`] sidecars are
//! asked about endpoints.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::StatusCode;
use rajut_local::{
    client::{ClientError, ControlClient, query_escape},
    state::{MeshRecord, StateDir},
};
use rajut_runtime::Clock;
use serde_json::{Value, json};

use crate::cli::{admin, status};

/// How long an answer is as good as a new one.
const FRESH: Duration = Duration::from_millis(900);
/// The same of what asks every sidecar, or judges all pairs.
const FRESH_LONG: Duration = Duration::from_secs(4);
/// Answers that are kept; with more all are forgotten.
pub(crate) const KEPT_MAX: usize = 128;
/// Sidecars that are asked about endpoints.
const SIDECARS_MAX: usize = 50;
/// Longest window, seconds.
const WINDOW_MAX: u32 = 259_200;
/// Longest host or name.
const NAME_MAX: usize = 300;

/// Kinds whose text is shown: the mesh's own. Deployments and Compose files have environments, Secrets are secrets.
const SHOWN: [&str; 13] = [
    "AuthorizationPolicy",
    "DestinationRule",
    "Gateway",
    "Namespace",
    "PeerAuthentication",
    "RateLimitPolicy",
    "RequestAuthentication",
    "Service",
    "ServiceEntry",
    "Sidecar",
    "Telemetry",
    "VirtualService",
    "WorkloadEntry",
];
/// What a field's name has in it whose value is not shown.
const HIDDEN: [&str; 8] = [
    "authorization",
    "cookie",
    "credential",
    "passw",
    "secret",
    "token",
    "api-key",
    "apikey",
];

/// One question, in one spelling, so that it can be a key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Question {
    Edges(u32),
    History(u32, String),
    Alarms,
    Services,
    Service(String),
    Proxies,
    Findings,
    Coverage,
    Status,
    Endpoints(String),
    Reach,
    Resources,
}

impl Question {
    /// `Ok(None)`: there is no such question.
    pub(crate) fn parse(path: &str, query: &str) -> Result<Option<Self>, String> {
        let mut asked = BTreeMap::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            if value.len() > NAME_MAX {
                return Err(format!("{name} is too long"));
            }
            asked.insert(name, value);
        }
        let window = |otherwise: u32| match asked.get("window") {
            None => Ok(otherwise),
            Some(text) => text
                .parse()
                .ok()
                .filter(|window| (1..=WINDOW_MAX).contains(window))
                .ok_or_else(|| format!("window is 1 to {WINDOW_MAX} seconds")),
        };
        // Hosts need no escapes.
        let host = || match asked.get("host") {
            Some(host)
                if host
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"-._*:".contains(&byte)) =>
            {
                Ok((*host).to_owned())
            }
            Some(_) => Err("host is no host".to_owned()),
            None => Ok(String::new()),
        };
        Ok(Some(match path {
            "/api/edges" => Self::Edges(window(60)?),
            "/api/history" => Self::History(window(300)?, host()?),
            "/api/alarms" => Self::Alarms,
            "/api/services" => Self::Services,
            "/api/service" => Self::Service(host()?),
            "/api/proxies" => Self::Proxies,
            "/api/findings" => Self::Findings,
            "/api/coverage" => Self::Coverage,
            "/api/status" => Self::Status,
            "/api/endpoints" => Self::Endpoints(host()?),
            "/api/reach" => Self::Reach,
            "/api/resources" => Self::Resources,
            _ => return Ok(None),
        }))
    }

    pub(crate) const fn needs_auditor(&self) -> bool {
        matches!(self, Self::Reach | Self::Resources)
    }

    const fn fresh(&self) -> Duration {
        match self {
            Self::Coverage | Self::Status | Self::Endpoints(_) | Self::Reach | Self::Resources => FRESH_LONG,
            _ => FRESH,
        }
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoAnswer {
    /// It is away, or says no.
    #[error("{0}")]
    Control(#[from] ClientError),
    /// No mesh runs, or its record can't be read.
    #[error("{0}")]
    Mesh(String),
}

impl NoAnswer {
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Control(ClientError::Status { status, .. }) if status.is_client_error() => *status,
            Self::Control(_) | Self::Mesh(_) => StatusCode::BAD_GATEWAY,
        }
    }
}

type Kept = Arc<tokio::sync::Mutex<Option<(Instant, Bytes)>>>;

/// See the module.
#[derive(Debug)]
pub(crate) struct Source {
    state: StateDir,
    control: ControlClient,
    /// ≤ [`KEPT_MAX`].
    kept: Mutex<HashMap<Question, Kept>>,
}

impl Source {
    pub(crate) fn new(state: StateDir) -> Self {
        Self {
            control: ControlClient::new(&state.control_socket()),
            state,
            kept: Mutex::default(),
        }
    }

    /// JSON; from a moment ago where somebody else has just asked.
    pub(crate) async fn answer(&self, question: &Question, clock: &Clock) -> Result<Bytes, NoAnswer> {
        let kept = {
            let mut all = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            if all.len() >= KEPT_MAX && !all.contains_key(question) {
                all.clear();
            }
            Arc::clone(all.entry(question.clone()).or_default())
        };
        // Whoever comes meanwhile waits for the same answer.
        let mut kept = kept.lock().await;
        if let Some((at, bytes)) = &*kept
            && clock.now().saturating_duration_since(*at) < question.fresh()
        {
            return Ok(bytes.clone());
        }
        let bytes = Bytes::from(self.ask(question).await?.to_string());
        *kept = Some((clock.now(), bytes.clone()));
        Ok(bytes)
    }

    async fn ask(&self, question: &Question) -> Result<Value, NoAnswer> {
        Ok(match question {
            Question::Edges(window) => self.get(&format!("/v1/edges?windowSeconds={window}")).await?,
            Question::History(window, host) => {
                let host = query_escape(host);
                self.get(&format!("/v1/history?windowSeconds={window}&host={host}"))
                    .await?
            }
            Question::Alarms => self.get("/v1/alarms").await?,
            Question::Services => self.get("/v1/services").await?,
            Question::Service(host) => {
                self.get(&format!("/v1/service?host={}", query_escape(host)))
                    .await?
            }
            Question::Proxies => self.get("/v1/proxies").await?,
            Question::Findings => findings(self.get("/v1/diagnostics").await?),
            Question::Coverage => coverage(self.get("/v1/reach?callers=no").await?),
            Question::Reach => self.get("/v1/reach").await?,
            Question::Resources => resources(&self.get("/v1/resources").await?),
            Question::Status => {
                let seen = status::json(&self.mesh()?).await;
                trimmed(&seen.map_err(|error| NoAnswer::Mesh(format!("{error:#}")))?)
            }
            Question::Endpoints(host) => endpoints(&self.mesh()?, host).await,
        })
    }

    async fn get(&self, path: &str) -> Result<Value, NoAnswer> {
        Ok(self.control.json("GET", path, None).await?)
    }

    fn mesh(&self) -> Result<MeshRecord, NoAnswer> {
        let mesh = self
            .state
            .read_mesh()
            .map_err(|error| NoAnswer::Mesh(error.to_string()))?;
        mesh.ok_or_else(|| NoAnswer::Mesh("no mesh runs here".to_owned()))
    }
}

/// Whether a kind is shown as it is written.
fn is_shown(kind: &str) -> bool {
    SHOWN.contains(&kind)
}

fn findings(mut answer: Value) -> Value {
    let all = answer.get_mut("diagnostics").and_then(Value::as_array_mut);
    for finding in all.into_iter().flatten() {
        let kind = finding.pointer("/origin/object/kind").and_then(Value::as_str);
        let excerpt = finding.get("excerpt").and_then(Value::as_str).unwrap_or_default();
        let shown = if kind.is_some_and(is_shown) {
            redacted(excerpt)
        } else {
            String::new()
        };
        finding["redacted"] = json!(shown != excerpt);
        finding["excerpt"] = json!(shown);
    }
    answer
}

/// How many are protected, not who may call whom.
fn coverage(mut answer: Value) -> Value {
    let all = answer.get_mut("workloads").and_then(Value::as_array_mut);
    for workload in all.into_iter().flatten().filter_map(Value::as_object_mut) {
        for hidden in ["callers", "plaintext"] {
            workload.shift_remove(hidden);
        }
    }
    answer
}

fn resources(answer: &Value) -> Value {
    let all = answer.get("resources").and_then(Value::as_array);
    let one = |resource: &Value| {
        let told = |name: &str| resource.get(name).and_then(Value::as_str).unwrap_or_default();
        let text = is_shown(told("kind")).then(|| redacted(told("text")));
        json!({
            "kind": told("kind"), "namespace": told("namespace"), "name": told("name"),
            "source": told("source"), "line": resource["line"], "text": text,
        })
    };
    json!({"resources": all.into_iter().flatten().map(one).collect::<Vec<_>>()})
}

/// What `rajut status` shows, without addresses and process numbers.
fn trimmed(status: &Value) -> Value {
    let keep = |from: &Value, names: &[&str]| -> Value {
        let known = names
            .iter()
            .filter_map(|name| Some(((*name).to_owned(), from.get(*name)?.clone())));
        Value::Object(known.collect())
    };
    let mut kept = keep(
        status,
        &[
            "health",
            "healthy",
            "reasons",
            "bypassPossible",
            "dataPlane",
            "started",
            "sources",
        ],
    );
    kept["controlPlane"] = keep(&status["controlPlane"], &["running", "restarts", "lastExit"]);
    let workloads = status.get("workloads").and_then(Value::as_array);
    let names = [
        "name",
        "namespace",
        "deployment",
        "state",
        "reason",
        "certificateExpiresSeconds",
        "openCircuits",
        "ejections",
        "sidecarError",
    ];
    kept["workloads"] = workloads
        .into_iter()
        .flatten()
        .map(|one| keep(one, &names))
        .collect();
    kept
}

/// A service's endpoints as its callers' sidecars see them.
async fn endpoints(mesh: &MeshRecord, host: &str) -> Value {
    let looks: Vec<_> = mesh
        .workloads
        .iter()
        .take(SIDECARS_MAX)
        .map(|workload| {
            let (admin, name) = (workload.admin, workload.name.clone());
            tokio::spawn(async move { (name, admin::json(admin, "/clusters?format=json").await) })
        })
        .collect();
    let asked = looks.len();
    let mut seen = Seen::default();
    for look in looks {
        if let Ok((name, Ok(clusters))) = look.await {
            seen.answered += 1;
            seen.take(&name, &clusters, host);
        }
    }
    let rows = seen.endpoints.into_iter().map(|((address, subset), one)| {
        json!({
            "address": address, "subset": (!subset.is_empty()).then_some(subset),
            "seenBy": one.seen_by, "ejectedBy": one.ejected_by, "health": one.health,
        })
    });
    json!({
        "asked": asked, "answered": seen.answered, "notAsked": mesh.workloads.len() - asked,
        "endpoints": rows.collect::<Vec<_>>(),
    })
}

#[derive(Debug, Default)]
struct Seen {
    answered: usize,
    /// (address, subset) → what is said of it.
    endpoints: BTreeMap<(String, String), Endpoint>,
}

#[derive(Debug, Default)]
struct Endpoint {
    seen_by: usize,
    ejected_by: Vec<String>,
    /// The worst that one says.
    health: String,
}

impl Seen {
    /// `clusters`: Envoy's form, of both data planes.
    fn take(&mut self, caller: &str, clusters: &Value, host: &str) {
        let items = |value: &Value, name: &str| {
            value
                .get(name)
                .and_then(Value::as_array)
                .cloned()
                .unwrap_or_default()
        };
        for cluster in items(clusters, "cluster_statuses") {
            let name = cluster.get("name").and_then(Value::as_str).unwrap_or_default();
            let mut parts = name.splitn(4, '|');
            let (Some("outbound"), Some(_), Some(subset), Some(of)) =
                (parts.next(), parts.next(), parts.next(), parts.next())
            else {
                continue;
            };
            if of != host {
                continue;
            }
            for endpoint in items(&cluster, "host_statuses") {
                let socket = endpoint
                    .pointer("/address/socket_address")
                    .cloned()
                    .unwrap_or_default();
                let address = socket.get("address").and_then(Value::as_str).unwrap_or_default();
                let port = socket
                    .get("port_value")
                    .and_then(Value::as_u64)
                    .unwrap_or_default();
                let known = self
                    .endpoints
                    .entry((format!("{address}:{port}"), subset.to_owned()))
                    .or_default();
                known.seen_by += 1;
                let failed = endpoint.pointer("/health_status/failed_active_health_check");
                let health = if failed == Some(&Value::Bool(true)) {
                    Some("FAILED CHECK")
                } else {
                    endpoint
                        .pointer("/health_status/eds_health_status")
                        .and_then(Value::as_str)
                };
                if let Some(health) = health.filter(|health| *health != "HEALTHY") {
                    health.clone_into(&mut known.health);
                } else if known.health.is_empty() {
                    "HEALTHY".clone_into(&mut known.health);
                }
                let ejected = endpoint.pointer("/health_status/failed_outlier_check");
                if ejected.and_then(Value::as_bool) == Some(true) {
                    known.ejected_by.push(caller.to_owned());
                }
            }
        }
    }
}

/// Values under names that say that they are secret, and what belongs to such a name on the lines below, are replaced.
pub(crate) fn redacted(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    // (indent of the name, it stands in a list itself)
    let mut hidden: Option<(usize, bool)> = None;
    for line in text.split_inclusive('\n') {
        let end = if line.ends_with('\n') { "\n" } else { "" };
        let content = line.trim();
        let indent = line.len() - line.trim_start().len();
        let is_item = content.starts_with("- ");
        let belongs =
            |(above, in_list): (usize, bool)| indent > above || (indent == above && is_item && !in_list);
        if hidden.is_some_and(belongs) && !content.is_empty() {
            append!(shown, "{}…{end}", " ".repeat(indent));
            continue;
        }
        hidden = None;
        match hidden_value(line) {
            Some(at) => {
                hidden = Some((indent, is_item));
                append!(shown, "{} …{end}", line.get(..at).unwrap_or_default());
            }
            None => shown.push_str(line),
        }
    }
    shown
}

/// Where the value of a name that is hidden begins, behind its colon.
fn hidden_value(line: &str) -> Option<usize> {
    let lower = line.to_ascii_lowercase();
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.\"'".contains(byte);
    let colons = lower.bytes().enumerate().filter(|(_, byte)| *byte == b':');
    for (colon, _) in colons {
        let before = lower.as_bytes().get(..colon)?;
        let begin = before
            .iter()
            .rposition(|byte| !is_name(byte))
            .map_or(0, |at| at + 1);
        let name = lower.get(begin..colon)?;
        if HIDDEN.iter().any(|hidden| name.contains(hidden)) {
            return Some(colon + 1);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let text = "headers:\n  request:\n    set:\n      Authorization: Bearer abc\n      x-api-key: \"k\"\n      plain: yes\n";
        let shown = redacted(text);
        assert!(!shown.contains("abc") && !shown.contains("\"k\""), "{shown}");
        assert!(
            shown.contains("Authorization: …\n") && shown.contains("plain: yes"),
            "{shown}"
        );
        let flow = redacted("set: {authorization: Bearer abc, other: 1}");
        assert_eq!(flow, "set: {authorization: …");
        let block = redacted("password: |\n  line one\n  line two\nnext: 1\n");
        assert_eq!(block, "password: …\n  …\n  …\nnext: 1\n");
        for plain in [
            "principals: [cluster.local/ns/a/sa/token-service]",
            "a: b:c\n",
            "",
        ] {
            assert_eq!(redacted(plain), plain);
        }
        let found = findings(json!({"diagnostics": [
            {"origin": {"object": {"kind": "Deployment"}}, "excerpt": "value: hunter2"},
            {"origin": {"object": {"kind": "VirtualService"}}, "excerpt": "  hosts: [a]"},
        ]}));
        assert_eq!(found["diagnostics"][0]["excerpt"], "");
        assert_eq!(found["diagnostics"][1]["excerpt"], "  hosts: [a]");
        let written = resources(&json!({"resources": [
            {"kind": "Secret", "name": "s", "text": "x", "object": {"data": "x"}},
            {"kind": "VirtualService", "name": "v", "text": "a: b", "object": {}},
        ]}));
        assert_eq!(written["resources"][0]["text"], Value::Null);
        assert_eq!(written["resources"][1]["text"], "a: b");
        assert!(written["resources"][0].get("object").is_none());
    }

    #[test]
    fn questions_are_few_and_their_values_bounded() {
        let parse = Question::parse;
        assert_eq!(parse("/api/edges", ""), Ok(Some(Question::Edges(60))));
        assert_eq!(
            parse("/api/history", "window=600&host=a.b.svc.cluster.local"),
            Ok(Some(Question::History(600, "a.b.svc.cluster.local".into())))
        );
        for wrong in ["window=0", "window=-1", "window=999999999", "window=x"] {
            assert!(parse("/api/edges", wrong).is_err(), "{wrong}");
        }
        for wrong in ["a/b", "a%20b", "a b", &"a".repeat(NAME_MAX + 1)] {
            assert!(
                parse("/api/service", &format!("host={wrong}")).is_err(),
                "{wrong}"
            );
        }
        for none in ["/api/tokens", "/v1/edges", "/api/../v1/tokens", ""] {
            assert_eq!(parse(none, ""), Ok(None));
        }
    }

    #[test]
    fn endpoints_are_added_up_over_those_who_see_them() {
        let cluster = |ejected: bool, health: &str| {
            json!({"cluster_statuses": [
                {"name": "outbound|8080|v1|api.a.svc.cluster.local", "host_statuses": [{
                    "address": {"socket_address": {"address": "10.0.0.1", "port_value": 8080}},
                    "health_status": {"eds_health_status": health, "failed_outlier_check": ejected}}]},
                {"name": "outbound|8080||other.a.svc.cluster.local", "host_statuses": [{}]},
                {"name": "inbound|8080||", "host_statuses": [{}]},
            ]})
        };
        let mut seen = Seen::default();
        seen.take("web-0", &cluster(false, "HEALTHY"), "api.a.svc.cluster.local");
        seen.take("web-1", &cluster(true, "DRAINING"), "api.a.svc.cluster.local");
        assert_eq!(seen.endpoints.len(), 1);
        let one = &seen.endpoints[&("10.0.0.1:8080".to_owned(), "v1".to_owned())];
        assert_eq!(
            (one.seen_by, &one.ejected_by[..], &*one.health),
            (2, &["web-1".to_owned()][..], "DRAINING")
        );
    }
}
