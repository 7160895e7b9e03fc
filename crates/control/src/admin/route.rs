//! From a request to what it does.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use rajut_config::{
    Source,
    model::{Workload, WorkloadHealth},
};
use rajut_registry::{Applied, ApplyError};
use rajut_translate::{Proxy, Translator, translate};
use rajut_types::{Labels, Locality, Principal};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Admin, BODY_BYTES_MAX, alarms,
    answer::{Answer, Refused, json_answer, text_answer},
    edges, identity, metrics, reach, recording, view,
};
use crate::why::{Question, find_proxy, follow};

/// How long `apply` and `delete` wait for acknowledgements where the caller says nothing, and at most.
const WAIT: Duration = Duration::from_secs(30);
const WAIT_MAX: Duration = Duration::from_mins(5);
/// How long a supervisor's question stays open.
const SUPERVISION_WAIT: Duration = Duration::from_secs(20);

/// `uid`: who asks.
pub(super) async fn route(admin: &Admin, uid: u32, request: Request<Incoming>) -> Answer {
    let (parts, body) = request.into_parts();
    let query = parse_query(parts.uri.query().unwrap_or_default());
    let path: Vec<&str> = parts
        .uri
        .path()
        .split('/')
        .filter(|part| !part.is_empty())
        .collect();
    let answer = match (&parts.method, &path[..]) {
        (&Method::GET, ["v1", "supervision"]) => supervision(admin, &query).await,
        (&Method::GET, ["v1", "reach"]) => {
            // Many pairs take a while.
            let admin = admin.clone();
            let found = blocking(move || reach::reach(&admin, &query)).await;
            found.map(|body| json_answer(StatusCode::OK, &body))
        }
        (&Method::GET, ["v1", "records"]) => {
            let (recorder, recording) = (
                admin.recorder.clone(),
                admin.registry.snapshot().mesh.recording.clone(),
            );
            let now = admin.clock.wall();
            let found = blocking(move || recording::records(&recorder, &recording, now, &query)).await;
            found.and_then(|read| Ok(json_answer(StatusCode::OK, &read?)))
        }
        (&Method::GET, _) => read(admin, &path, &query),
        (&Method::POST, ["v1", "alarms", number, "acknowledge"]) => match read_json(body).await {
            Ok(said) => alarms::acknowledge(admin, uid, number, said).await,
            Err(refused) => Err(refused),
        },
        (&Method::POST, ["v1", "silences"]) => match read_json(body).await {
            Ok(wish) => alarms::silence(admin, uid, wish).await,
            Err(refused) => Err(refused),
        },
        (&Method::DELETE, ["v1", "silences", id]) => alarms::end_silence(admin, uid, id).await,
        (&Method::PUT, ["v1", "workloads"]) => put_workloads(admin, body).await,
        (&Method::PATCH, ["v1", "workloads", namespace, name]) => {
            patch_workload(admin, (namespace, name), &query, body).await
        }
        (&Method::POST, ["v1", "workloads", namespace, name, "restart"]) => restart(admin, namespace, name),
        (&Method::POST, ["v1", "identity", "rotation"]) => rotate(admin, body).await,
        (&Method::POST, ["v1", "identity", "revocations"]) => revoke(admin, &query, body).await,
        (&Method::POST, ["v1", "tokens"]) => post_token(admin, body).await,
        (&Method::POST, ["v1", "why"]) => why(admin, body).await,
        (&Method::POST, ["v1", "apply"]) => change(admin, &query, body, Change::Apply).await,
        (&Method::POST, ["v1", "delete"]) => change(admin, &query, body, Change::Delete).await,
        _ => Err(no_such(&parts.method, &path)),
    };
    answer.unwrap_or_else(|refused| json_answer(refused.status, &refused.body))
}

fn read(admin: &Admin, path: &[&str], query: &Query) -> Result<Answer, Refused> {
    let body = match path {
        ["ready"] => {
            let pending = admin.readiness.pending();
            let status = if pending.is_empty() {
                StatusCode::OK
            } else {
                StatusCode::SERVICE_UNAVAILABLE
            };
            return Ok(json_answer(
                status,
                &json!({"ready": pending.is_empty(), "pending": pending}),
            ));
        }
        ["metrics"] => return Ok(text_answer(metrics::text(admin))),
        ["v1", "resources"] => view::resources(admin, query),
        ["v1", "proxies"] => view::proxies(admin),
        ["v1", "services"] => view::services(admin),
        ["v1", "workloads"] => view::workloads(admin),
        ["v1", "certificates"] => view::certificates(admin),
        ["v1", "identity"] => identity::identity(admin),
        ["v1", "identity", "revocations"] => identity::revocations(admin),
        ["v1", "diagnostics"] => view::diagnostics(admin),
        ["v1", "alarms"] => alarms::alarms(&admin.observer),
        ["v1", "edges"] => edges::edges(admin, query)?,
        ["v1", "history"] => edges::history(admin, query)?,
        ["v1", "service"] => reach::service(admin, query)?,
        ["debug", "config_dump"] => {
            let proxy = query
                .get("proxy")
                .ok_or_else(|| Refused::bad("say which: ?proxy=NAME"))?;
            view::config_dump(admin, proxy)
                .ok_or_else(|| Refused::new(StatusCode::NOT_FOUND, format!("no connected proxy `{proxy}`")))?
        }
        _ => return Err(no_such(&Method::GET, path)),
    };
    Ok(json_answer(StatusCode::OK, &body))
}

fn no_such(method: &Method, path: &[&str]) -> Refused {
    Refused::new(
        StatusCode::NOT_FOUND,
        format!("there is no {method} /{}", path.join("/")),
    )
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WorkloadsWritten {
    workloads: Vec<WorkloadWritten>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WorkloadWritten {
    name: String,
    deployment: String,
    namespace: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    service_account: String,
    address: IpAddr,
    #[serde(default)]
    named_ports: BTreeMap<String, u16>,
    #[serde(default)]
    reached_ports: BTreeMap<u16, u16>,
    #[serde(default)]
    gateway: Option<BTreeMap<u16, SocketAddr>>,
    mesh: bool,
    #[serde(default)]
    locality: LocalityWritten,
    #[serde(default = "one")]
    weight: u32,
    health: WorkloadHealth,
}

fn one() -> u32 {
    1
}

/// Istio's one-text form, or the parts.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum LocalityWritten {
    Text(String),
    Parts {
        #[serde(default)]
        region: String,
        #[serde(default)]
        zone: String,
        #[serde(default, alias = "sub_zone", alias = "subZone")]
        subzone: String,
    },
    None(()),
}

impl Default for LocalityWritten {
    fn default() -> Self {
        Self::None(())
    }
}

impl From<WorkloadWritten> for Workload {
    fn from(written: WorkloadWritten) -> Self {
        let WorkloadWritten {
            name,
            deployment,
            namespace,
            labels,
            service_account,
            address,
            named_ports,
            reached_ports,
            gateway,
            mesh,
            locality,
            weight,
            health,
        } = written;
        let labels: Labels = labels.into_iter().collect();
        Self {
            name: name.into(),
            deployment: deployment.into(),
            namespace: namespace.into(),
            service_account: service_account.into(),
            address,
            named_ports: named_ports
                .into_iter()
                .map(|(name, port)| (name.into(), port))
                .collect(),
            reached_ports,
            gateway,
            mesh,
            locality: match locality {
                LocalityWritten::Text(text) => Locality::parse(&text),
                LocalityWritten::Parts {
                    region,
                    zone,
                    subzone,
                } => Locality {
                    region: region.into(),
                    zone: zone.into(),
                    sub_zone: subzone.into(),
                },
                LocalityWritten::None(()) => Locality::of_labels(&labels),
            },
            labels,
            weight: weight.max(1),
            health,
        }
    }
}

async fn put_workloads(admin: &Admin, body: Incoming) -> Result<Answer, Refused> {
    let WorkloadsWritten { workloads } = read_json(body).await?;
    let count = workloads.len();
    let workloads = workloads.into_iter().map(Workload::from).collect();
    let registry = admin.registry.clone();
    let generation = blocking(move || registry.set_workloads(workloads)).await?;
    admin.workloads.open();
    Ok(json_answer(
        StatusCode::OK,
        &json!({"workloads": count, "generation": generation}),
    ))
}

/// The supervisor is told to start that workload anew.
fn restart(admin: &Admin, namespace: &str, name: &str) -> Result<Answer, Refused> {
    let key = (namespace.into(), name.into());
    if !admin.registry.snapshot().workloads.contains_key(&key) {
        let text = format!("no workload {namespace}/{name}");
        return Err(Refused::new(StatusCode::NOT_FOUND, text));
    }
    let order = admin.orders.restart(namespace, name);
    Ok(json_answer(StatusCode::OK, &json!({"order": order})))
}

/// Answers when there is something for the supervisor to do that it has not seen, or after [`SUPERVISION_WAIT`]: a newer
/// configuration (`configuration=N` is the last that it saw) with its texts, or orders (`order=N`).
async fn supervision(admin: &Admin, query: &Query) -> Result<Answer, Refused> {
    let number = |key: &str| match query.get(key).map(|text| text.parse::<u64>()) {
        None => Ok(0),
        Some(Ok(number)) => Ok(number),
        Some(Err(_)) => Err(Refused::bad(format!("{key} must be a whole number"))),
    };
    let (seen, order) = (number("configuration")?, number("order")?);
    let mut configured = admin.registry.configured();
    let news = async {
        tokio::select! {
            _ = configured.wait_for(|now| *now > seen) => {}
            () = admin.orders.arrived(order) => {}
        }
    };
    // Nothing to do is an answer too: the caller asks again.
    let _ = tokio::time::timeout(SUPERVISION_WAIT, news).await;
    let restarts = admin.orders.after(order);
    let configuration = *admin.registry.configured().borrow();
    let mut body = json!({
        "configuration": configuration,
        "order": restarts.last().map_or(order, |last| last.number),
        "restarts": restarts,
    });
    if configuration > seen {
        let texts = admin.registry.sources_in_force();
        let text =
            |source: &Source| json!({"name": source.name, "text": String::from_utf8_lossy(&source.bytes)});
        body["sources"] = texts.iter().map(text).collect();
    }
    Ok(json_answer(StatusCode::OK, &body))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct HealthWritten {
    health: WorkloadHealth,
}

/// With `timeoutSeconds` it answers when every proxy has acknowledged, or names those that have not by then.
async fn patch_workload(
    admin: &Admin,
    (namespace, name): (&str, &str),
    query: &Query,
    body: Incoming,
) -> Result<Answer, Refused> {
    let wait = query
        .contains_key("timeoutSeconds")
        .then(|| wait_of(query))
        .transpose()?;
    let HealthWritten { health } = read_json(body).await?;
    let generation = admin
        .registry
        .set_health(namespace, name, health)
        .ok_or_else(|| Refused::new(StatusCode::NOT_FOUND, format!("no workload {namespace}/{name}")))?;
    let pending = match wait {
        Some(wait) => admin.discovery.spread(generation, wait).await.silent,
        None => Vec::new(),
    };
    let body = json!({"generation": generation, "pending": pending});
    Ok(json_answer(StatusCode::OK, &body))
}

/// How long the caller wants to wait for acknowledgements.
fn wait_of(query: &Query) -> Result<Duration, Refused> {
    match query.get("timeoutSeconds") {
        None => Ok(WAIT),
        Some(text) => text
            .parse()
            .map(|seconds| Duration::from_secs(seconds).min(WAIT_MAX))
            .map_err(|_| Refused::bad("timeoutSeconds must be a whole number")),
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct TokenWritten {
    namespace: String,
    service_account: String,
    #[serde(default)]
    workload: String,
}

async fn post_token(admin: &Admin, body: Incoming) -> Result<Answer, Refused> {
    let TokenWritten {
        namespace,
        service_account,
        workload,
    } = read_json(body).await?;
    let authority = &admin.authority;
    let token = authority
        .tokens()
        .issue(
            authority.trust_domain(),
            &namespace,
            &service_account,
            &workload,
            admin.clock.wall(),
        )
        .map_err(|error| Refused::bad(error.to_string()))?;
    Ok(json_answer(StatusCode::OK, &json!({"token": token})))
}

async fn rotate(admin: &Admin, body: Incoming) -> Result<Answer, Refused> {
    let wanted = read_json(body).await?;
    let admin = admin.clone();
    let turned = blocking(move || identity::rotate(&admin, &wanted)).await??;
    Ok(json_answer(StatusCode::OK, &turned))
}

/// Answers when every proxy has acknowledged, or names those that have not in time.
async fn revoke(admin: &Admin, query: &Query, body: Incoming) -> Result<Answer, Refused> {
    let wait = wait_of(query)?;
    let wanted = read_json(body).await?;
    let revoking = admin.clone();
    let (serials, generation) = blocking(move || identity::revoke(&revoking, &wanted)).await??;
    let spread = admin.discovery.spread(generation, wait).await;
    // Now that they know: a proxy that has heard that its own certificate is revoked goes on asking for another one.
    let revoked = admin.authority.revocations();
    let is_barred = |principal: &Principal| revoked.identities.contains_key(&principal.spiffe_id());
    admin.discovery.expel(is_barred);
    let body = json!({
        "serials": serials,
        "affected": spread.affected.len(),
        "acknowledged": spread.acknowledged.len(),
        "rejected": spread.rejected,
        "pending": spread.silent,
    });
    Ok(json_answer(StatusCode::OK, &body))
}

async fn why(admin: &Admin, body: Incoming) -> Result<Answer, Refused> {
    let question: Question = read_json(body).await?;
    let snapshot = admin.registry.snapshot();
    let connected: Vec<Arc<Proxy>> = admin
        .discovery
        .proxies()
        .into_iter()
        .map(|known| known.proxy)
        .collect();
    let found = blocking(move || {
        let proxy = find_proxy(&snapshot, &connected, &question.from)?;
        let (resources, _) = translate(&snapshot, &proxy, &mut Translator::default());
        follow(&snapshot, &proxy, &resources, &question)
    })
    .await?;
    let found = found.map_err(|error| Refused::bad(error.to_string()))?;
    let body = serde_json::to_value(found)
        .map_err(|error| Refused::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    Ok(json_answer(StatusCode::OK, &body))
}

#[derive(Debug, Clone, Copy)]
enum Change {
    Apply,
    Delete,
}

async fn change(admin: &Admin, query: &Query, body: Incoming, change: Change) -> Result<Answer, Refused> {
    let started = admin.clock.now();
    let namespace = query
        .get("namespace")
        .cloned()
        .unwrap_or_else(|| "default".to_owned());
    let wait = wait_of(query)?;
    let text =
        String::from_utf8(read_body(body).await?).map_err(|_| Refused::bad("the text is not UTF-8"))?;
    let registry = admin.registry.clone();
    let applied: Result<Applied, ApplyError> = blocking(move || match change {
        Change::Apply => registry.apply(&text, &namespace),
        Change::Delete => registry.delete(&text, &namespace),
    })
    .await?;
    let Applied {
        objects,
        generation,
        diagnostics,
    } = applied?;
    let spread = admin.discovery.spread(generation, wait).await;
    let milliseconds = admin.clock.now().saturating_duration_since(started).as_millis();
    let body = json!({
        "objects": objects.iter().map(view::object).collect::<Vec<Value>>(),
        "generation": generation,
        "affected": spread.affected.len(),
        "acknowledged": spread.acknowledged.len(),
        "onUse": spread.on_use,
        "rejected": spread.rejected,
        "pending": spread.silent,
        "milliseconds": u64::try_from(milliseconds).unwrap_or(u64::MAX),
        "diagnostics": diagnostics,
    });
    Ok(json_answer(StatusCode::OK, &body))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Refused> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Refused::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
}

async fn read_body(body: Incoming) -> Result<Vec<u8>, Refused> {
    let collected = Limited::new(body, BODY_BYTES_MAX)
        .collect()
        .await
        .map_err(|error| Refused::new(StatusCode::PAYLOAD_TOO_LARGE, error.to_string()))?;
    Ok(collected.to_bytes().to_vec())
}

async fn read_json<T: for<'de> Deserialize<'de>>(body: Incoming) -> Result<T, Refused> {
    let bytes = read_body(body).await?;
    serde_json::from_slice(&bytes).map_err(|error| Refused::bad(error.to_string()))
}

pub(super) type Query = BTreeMap<String, String>;

/// `a=b&c=d` with percent-encoding; a malformed escape stays as it is.
pub(super) fn parse_query(query: &str) -> Query {
    let pair = |pair: &str| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (unescape(key), unescape(value))
    };
    query
        .split('&')
        .filter(|part| !part.is_empty())
        .map(pair)
        .collect()
}

fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let hex = |byte: u8| {
            char::from(byte)
                .to_digit(16)
                .and_then(|digit| u8::try_from(digit).ok())
        };
        let mut ahead = rest.clone();
        let escaped = || Some(hex(ahead.next()?)? << 4 | hex(ahead.next()?)?);
        match (byte, { escaped }()) {
            (b'%', Some(decoded)) => {
                rest.nth(1);
                bytes.push(decoded);
            }
            (b'+', _) => bytes.push(b' '),
            (byte, _) => bytes.push(byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_unescaped() {
        let query = parse_query("a=b%20c&proxy=sidecar%7E1&bad=%zz&flag&x=1+2");
        assert_eq!(query["a"], "b c");
        assert_eq!(query["proxy"], "sidecar~1");
        assert_eq!(query["bad"], "%zz");
        assert_eq!(query["flag"], "");
        assert_eq!(query["x"], "1 2");
    }

    #[test]
    fn a_workload_takes_its_locality_in_both_forms() {
        let workload = |locality: Value| {
            let written = json!({
                "name": "a-0", "deployment": "a", "namespace": "n", "serviceAccount": "a", "address": "10.0.0.1",
                "mesh": true, "health": "ready", "locality": locality
            });
            let written: WorkloadWritten = serde_json::from_value(written).expect("valid");
            Workload::from(written).locality.to_string()
        };
        assert_eq!(workload(json!("r/z/s")), "r/z/s");
        assert_eq!(workload(json!({"region": "r", "zone": "z"})), "r/z/");
        assert_eq!(workload(Value::Null), "//");
    }
}
