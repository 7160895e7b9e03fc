//! Routes of a gateway that ask for claims of the token that it has verified.

use std::time::Duration;

use serde_json::{Value, json};

use super::issuer::Issuer;
use crate::{
    client::Connection,
    mesh::{Mesh, Setup, eventually},
    runner::{Outcome, Plane, Result},
    scenarios::gateways::{HTTP, address, base, gateway, routes},
};

const HOST: &str = "claims.example.com";
const ME: &str = "https://login.example/me";
const SOON: Duration = Duration::from_secs(15);

/// `by_role`: the condition of the first route.
fn rules(by_role: &str) -> String {
    routes(
        "claims",
        HOST,
        "edge",
        &format!(
            "http:
  - match: [{{headers: {{'{by_role}': {{exact: doctor}}}}}}]
    route: [{{destination: {{host: web}}}}]
  - match: [{{uri: {{prefix: /}}, headers: {{'@request.auth.claims[team][wards]': {{prefix: ward-}}}}}}]
    route: [{{destination: {{host: shop}}}}]
  - match: [{{withoutHeaders: {{'@request.auth.claims.sub': {{regex: '.+'}}}}}}]
    directResponse: {{status: 418}}
  - directResponse: {{status: 403}}
"
        ),
    )
}

fn tokens(keys: &str) -> String {
    format!(
        "---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{name: edge, namespace: istio-system}}
spec:
  selector: {{matchLabels: {{istio: ingressgateway}}}}
  jwtRules: [{{issuer: '{ME}', jwks: '{keys}'}}]
"
    )
}

/// Who answers with 200, else the status.
fn ask(edge: &str, token: Option<&str>, header: Option<(&str, &str)>) -> Result<String> {
    let bearer = token.map(|token| format!("Bearer {token}"));
    let mut fields = vec![("connection", "close")];
    fields.extend(bearer.as_deref().map(|bearer| ("authorization", bearer)));
    fields.extend(header);
    let answer = Connection::open(edge)?.request("GET", HOST, "/", &fields, b"")?;
    Ok(match (answer.status, answer.header("x-sample-service")) {
        (200, Some(service)) => service.to_owned(),
        (status, _) => status.to_string(),
    })
}

pub(super) fn run(plane: Plane) -> Result<Outcome> {
    let (me, other) = (Issuer::new("ES256"), Issuer::new("ES256"));
    let mesh = Mesh::up(plane, &Setup::yaml(&base()).arguments(&["-n", "lab"]))?;
    let objects = |role: &str| tokens(&me.keys()) + &gateway("edge", &[HTTP]) + &rules(role);
    mesh.apply(&objects("@request.auth.claims.role"))?;
    let edge = eventually("the gateway's address", SOON, || address(&mesh, 80).ok())?;
    let signed = |by: &Issuer, more: Value| {
        let mut claims = json!({"iss": ME, "sub": "ann"});
        if let (Some(all), Value::Object(more)) = (claims.as_object_mut(), more) {
            all.extend(more);
        }
        by.token(&claims)
    };
    let doctor = signed(&me, json!({"role": "doctor"}));
    eventually("the routes are in force", SOON, || {
        (ask(&edge, Some(&doctor), None).ok()? == "web").then_some(())
    })?;
    let rows = [
        ("a claim", Some(doctor.clone()), "web"),
        (
            "one of a list",
            Some(signed(&me, json!({"role": ["nurse", "doctor"]}))),
            "web",
        ),
        (
            "another value",
            Some(signed(&me, json!({"role": "doctors"}))),
            "403",
        ),
        (
            "another type",
            Some(signed(&me, json!({"role": {"doctor": true}}))),
            "403",
        ),
        (
            "a claim within another",
            Some(signed(&me, json!({"team": {"wards": ["icu", "ward-3"]}}))),
            "shop",
        ),
        (
            "a claim with dots in its name",
            Some(signed(&me, json!({"team.wards": "ward-3"}))),
            "403",
        ),
        ("no token", None, "418"),
        (
            "somebody else's token",
            Some(signed(&other, json!({"role": "doctor"}))),
            "401",
        ),
    ];
    for (what, token, wanted) in &rows {
        let found = ask(&edge, token.as_deref(), None)?;
        if found != *wanted {
            return Err(format!("{what}: {found} instead of {wanted}").into());
        }
    }
    let pretended = ask(&edge, None, Some(("x-role", "doctor")))?;
    if pretended != "418" {
        return Err(format!("a header is taken for a claim: {pretended}").into());
    }
    // Without the condition on the claim the token leads nowhere.
    mesh.apply(&objects("x-role"))?;
    eventually("the claim is asked for no more", SOON, || {
        (ask(&edge, Some(&doctor), None).ok()? == "403").then_some(())
    })?;
    mesh.down()?;
    Ok(Outcome::Passed)
}
