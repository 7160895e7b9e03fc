//! Whom the mesh believes, and the change to another root, at the admin door.

use std::path::PathBuf;

use http::StatusCode;
use rajut_identity::certificate::Facts;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Admin, answer::Refused};
use crate::{
    ca::{
        RevocationError, RotationError, Whom,
        revoked::Reason,
        rotation::{Rotation, Standing, Step, Wait},
        unix_seconds,
    },
    time::{rfc3339, rfc3339_of},
    trust::followers,
};

/// What is wanted of a change to another root.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RotationWanted {
    /// The folder of the new issuer; where there is none, a root is made.
    #[serde(default)]
    from: Option<PathBuf>,
    /// The step after which it waits for the operator.
    #[serde(default)]
    hold: Option<Step>,
    /// Proxies that are not connected are not waited for.
    #[serde(default)]
    without_away: bool,
    /// Only go on with one that is under way.
    #[serde(default)]
    resume: bool,
}

/// Begins a change, or says how the one that is under way goes on.
pub(super) fn rotate(admin: &Admin, wanted: &RotationWanted) -> Result<Value, Refused> {
    let RotationWanted {
        from,
        hold,
        without_away,
        resume,
    } = wanted;
    let authority = &admin.authority;
    if authority.rotation().is_none() {
        if *resume {
            return Err(refused(&RotationError::None));
        }
        authority
            .begin_rotation(from.as_deref(), *hold)
            .map_err(|error| refused(&error))?;
    } else if from.is_some() {
        return Err(refused(&RotationError::UnderWay));
    }
    authority
        .steer_rotation(*hold, *without_away)
        .map_err(|error| refused(&error))?;
    Ok(identity(admin))
}

fn refused(error: &RotationError) -> Refused {
    let status = match error {
        RotationError::UnderWay | RotationError::None => StatusCode::CONFLICT,
        RotationError::Keystore(_) => StatusCode::UNPROCESSABLE_ENTITY,
    };
    Refused::new(status, error.to_string())
}

/// What is to be believed no longer, or an identity that may have certificates again.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RevocationWanted {
    #[serde(default)]
    serial: Option<String>,
    #[serde(default)]
    identity: Option<String>,
    #[serde(default)]
    reason: Reason,
    #[serde(default)]
    reinstate: bool,
}

/// Revokes or reinstates. Gives the serial numbers that were revoked, and the generation that carries it.
pub(super) fn revoke(admin: &Admin, wanted: &RevocationWanted) -> Result<(Vec<String>, u64), Refused> {
    let authority = &admin.authority;
    let refused = |error: RevocationError| {
        let status = match error {
            RevocationError::Unknown(_) | RevocationError::NotBarred(_) => StatusCode::NOT_FOUND,
            RevocationError::TooMany => StatusCode::CONFLICT,
            RevocationError::Keystore(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Refused::new(status, error.to_string())
    };
    let RevocationWanted {
        serial,
        identity,
        reason,
        reinstate,
    } = wanted;
    let whom = match (serial, identity) {
        (Some(serial), None) if !reinstate => Whom::Serial(serial.clone()),
        (None, Some(identity)) => Whom::Identity(identity.clone()),
        _ => {
            return Err(Refused::bad(
                "say either `serial` or `identity`; an identity alone is reinstated",
            ));
        }
    };
    let serials = match whom {
        Whom::Identity(identity) if *reinstate => {
            authority.reinstate(&identity).map_err(refused)?;
            Vec::new()
        }
        whom => authority.revoke(&whom, *reason).map_err(refused)?,
    };
    Ok((serials, admin.registry.set_trust(authority.told())))
}

/// Everything that is revoked.
pub(super) fn revocations(admin: &Admin) -> Value {
    let revoked = admin.authority.revocations();
    let certificates: Vec<Value> = revoked
        .certificates
        .iter()
        .map(|(serial, one)| {
            json!({
                "serial": serial, "identity": one.principal, "reason": one.reason,
                "since": rfc3339(one.since), "notAfter": rfc3339(one.not_after),
            })
        })
        .collect();
    let identities: Vec<Value> = revoked
        .identities
        .iter()
        .map(|(identity, one)| json!({"identity": identity, "reason": one.reason, "since": rfc3339(one.since)}))
        .collect();
    json!({"certificates": certificates, "identities": identities})
}

/// Roots, the issuer, and the change that is under way.
pub(super) fn identity(admin: &Admin) -> Value {
    let authority = &admin.authority;
    let issuing = authority.issuing();
    let now = unix_seconds(admin.clock.wall());
    let roots: Vec<Value> = authority
        .roots()
        .certificates()
        .iter()
        .filter_map(|der| Facts::parse(der).ok())
        .enumerate()
        .map(|(at, root)| {
            json!({
                "subject": root.subject,
                "serial": root.serial,
                "sha256": root.sha256,
                "notBefore": rfc3339_of(root.not_before),
                "notAfter": rfc3339_of(root.not_after),
                "secondsLeft": unix_seconds(root.not_after).saturating_sub(now),
                "issuing": at == 0,
            })
        })
        .collect();
    json!({
        "trustDomain": authority.trust_domain().as_str(),
        "issuer": {
            "subject": issuing.subject,
            "serial": issuing.serial,
            "notAfter": rfc3339_of(issuing.not_after),
        },
        "roots": roots,
        "rotation": authority.rotation().map(|rotation| of_rotation(admin, &rotation)),
    })
}

fn of_rotation(admin: &Admin, rotation: &Rotation) -> Value {
    let followers = followers(&admin.authority, &admin.discovery, &admin.registry.snapshot());
    let waits_for = match rotation.wait(&followers) {
        Wait::ForProxies => "proxies",
        Wait::ForOperator => "operator",
        Wait::Over => "nothing",
    };
    let Rotation {
        step,
        began,
        since,
        hold,
        without_away,
        old_roots: _,
    } = rotation;
    let proxies: Vec<Value> = followers
        .iter()
        .map(|follower| {
            let reason = match &follower.standing {
                Standing::Refused(reason) => Some(reason),
                _ => None,
            };
            json!({
                "name": &*follower.name,
                "namespace": &*follower.namespace,
                "standing": follower.standing.text(),
                "reason": reason,
            })
        })
        .collect();
    json!({
        "step": step,
        "began": rfc3339(*began),
        "since": rfc3339(*since),
        "hold": hold,
        "withoutAway": without_away,
        "waitsFor": waits_for,
        "proxies": proxies,
    })
}
