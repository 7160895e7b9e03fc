//! `GET /v1/alarms`: what was noticed without a rule, and the silences. `POST /v1/alarms/NUMBER/acknowledge`, `POST /v1/silences`,
//! `DELETE /v1/silences/ID`: what people say to it. Who says it is the user at the other end of the socket, not what is written.
//!
//! What is said is on disk when it is answered; where it can't be written the answer is 500, and it holds until the next start.

use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Admin,
    answer::{Answer, Refused, json_answer},
    edges::{destination, source},
};
use crate::{
    observe::{
        Observer,
        alarm::{Alarm, Evidence, Kind},
        silence::{Silence, TEXT_MAX, Wish},
    },
    time::rfc3339,
};

/// The body of an acknowledgement.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Seen {
    /// A name beside the user id.
    #[serde(default)]
    by: Option<String>,
    #[serde(default)]
    why: String,
}

/// The body of a silence.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Quiet {
    #[serde(default)]
    by: Option<String>,
    #[serde(default)]
    kind: Option<Kind>,
    caller: String,
    service: String,
    seconds: u64,
    why: String,
}

pub(super) fn alarms(observer: &Observer) -> Value {
    let noticed = observer.noticed();
    let now = crate::ca::unix_seconds(noticed.now);
    json!({
        "now": rfc3339(now),
        "learningUntil": rfc3339(crate::ca::unix_seconds(noticed.learning_until)),
        "raised": noticed.raised,
        "alarms": noticed.alarms.iter().map(|(alarm, silence)| alarm_json(alarm, *silence)).collect::<Vec<_>>(),
        "silences": noticed.silences.iter().map(|silence| silence_json(silence, now)).collect::<Vec<_>>(),
    })
}

pub(super) async fn acknowledge(
    admin: &Admin,
    uid: u32,
    number: &str,
    said: Seen,
) -> Result<Answer, Refused> {
    let number = number_of(number)?;
    if said.why.len() > TEXT_MAX {
        return Err(Refused::bad(format!("`why` has more than {TEXT_MAX} bytes")));
    }
    let by = who(uid, said.by.as_deref())?;
    let alarm = admin
        .observer
        .acknowledge(number, by.as_str().into(), said.why.into())
        .ok_or_else(|| Refused::new(StatusCode::NOT_FOUND, format!("there is no alarm {number}")))?;
    tracing::info!(alarm = number, kind = alarm.kind.name(), by, "alarm acknowledged");
    saved(admin, &alarm_json(&alarm, None)).await
}

pub(super) async fn silence(admin: &Admin, uid: u32, quiet: Quiet) -> Result<Answer, Refused> {
    let by = who(uid, quiet.by.as_deref())?;
    let wish = Wish {
        kind: quiet.kind,
        caller: quiet.caller.into(),
        service: quiet.service.into(),
        seconds: quiet.seconds,
        why: quiet.why.into(),
    };
    let silence = admin
        .observer
        .silence(wish, by.as_str().into())
        .map_err(|error| Refused::bad(error.to_string()))?;
    tracing::info!(
        silence = silence.id, caller = %silence.caller, service = %silence.service, until = rfc3339(silence.until), by,
        "alarms silenced"
    );
    saved(admin, &silence_json(&silence, silence.from)).await
}

pub(super) async fn end_silence(admin: &Admin, uid: u32, id: &str) -> Result<Answer, Refused> {
    let id = number_of(id)?;
    let by = who(uid, None)?;
    let silence = admin.observer.end_silence(id).ok_or_else(|| {
        Refused::new(
            StatusCode::NOT_FOUND,
            format!("there is no silence {id} that holds"),
        )
    })?;
    tracing::info!(silence = id, by, "silence ended");
    saved(admin, &silence_json(&silence, silence.until)).await
}

async fn saved(admin: &Admin, body: &Value) -> Result<Answer, Refused> {
    admin.observer.save().await.map_err(|error| {
        Refused::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("it holds, and is lost when the control plane ends: it can't be written: {error}"),
        )
    })?;
    Ok(json_answer(StatusCode::OK, body))
}

fn number_of(text: &str) -> Result<u64, Refused> {
    text.parse()
        .map_err(|_| Refused::bad(format!("`{text}` is no number: `rajut alarms` has them")))
}

/// The user that the system names, and what they call themselves.
fn who(uid: u32, said: Option<&str>) -> Result<String, Refused> {
    match said {
        None | Some("") => Ok(format!("uid {uid}")),
        Some(name) if name.len() <= 100 && !name.chars().any(char::is_control) => {
            Ok(format!("{name} (uid {uid})"))
        }
        Some(_) => Err(Refused::bad("`by` is a name of at most 100 bytes")),
    }
}

fn alarm_json(alarm: &Alarm, silence: Option<u64>) -> Value {
    json!({
        "number": alarm.number,
        "kind": alarm.kind.name(),
        "at": rfc3339(alarm.at),
        "open": alarm.ended.is_none(),
        "endedAt": alarm.ended.map(rfc3339),
        "source": source(&alarm.caller),
        "destination": alarm.target.as_ref().map(destination),
        "evidence": alarm.evidence.as_ref().map(|found| evidence(alarm.kind, found)),
        "acknowledged": alarm.acknowledged.as_ref().map(|seen| json!({
            "at": rfc3339(seen.at),
            "by": &*seen.by,
            "why": &*seen.why,
        })),
        "silence": silence,
        "runbook": alarm.kind.runbook(),
    })
}

fn silence_json(silence: &Silence, now: u64) -> Value {
    json!({
        "id": silence.id,
        "kind": silence.kind.map(Kind::name),
        "caller": &*silence.caller,
        "service": &*silence.service,
        "from": rfc3339(silence.from),
        "until": rfc3339(silence.until),
        "holds": silence.holds(now),
        "by": &*silence.by,
        "why": &*silence.why,
    })
}

fn evidence(kind: Kind, found: &Evidence) -> Value {
    json!({
        "measure": kind.measure(),
        "before": found.before,
        "usualFrom": found.usual.0,
        "usualTo": found.usual.1,
        "now": found.now,
        "windowSeconds": found.window,
        "hosts": found.hosts.iter().map(|host| &**host).collect::<Vec<_>>(),
        "firstCalls": found.first_calls,
    })
}
