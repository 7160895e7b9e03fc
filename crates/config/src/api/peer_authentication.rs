//! Istio `PeerAuthentication`.

use std::collections::BTreeMap;

use super::meta::{self, NameForm};
use crate::{
    codes,
    model::{MtlsMode, PeerAuthentication},
    read::{Field, Object, shown},
};

pub(crate) fn read(root: &Object<'_>) -> Option<PeerAuthentication> {
    let meta = meta::read(root, NameForm::Subdomain);
    let spec = root.object("spec");
    let mut selector = None;
    let mut mode = None;
    let mut ports = BTreeMap::new();
    if let Some(spec) = &spec {
        selector = spec.object("selector").and_then(|object| match_labels(&object));
        mode = spec.get("mtls").and_then(|field| mtls(&field));
        if let Some(field) = spec.get("portLevelMtls") {
            if selector.is_none() {
                field.say_key(
                    rajut_types::Severity::Error,
                    codes::PORT_MTLS,
                    "`portLevelMtls` needs a `selector` that chooses the workloads whose ports are meant",
                    "add `selector: {matchLabels: {app: …}}`; the numbers are the workload's ports, not the service's",
                );
            }
            ports = port_modes(&field);
        }
    }
    let meta = meta?;
    Some(PeerAuthentication {
        name: meta.name,
        namespace: meta.namespace,
        selector,
        mode,
        ports,
        origin: root.field().origin(),
        age: meta.age,
    })
}

/// `selector.matchLabels` of Istio's kinds; empty is everything.
pub(crate) fn match_labels(object: &Object<'_>) -> Option<rajut_types::Labels> {
    let field = object.get("matchLabels")?;
    for (name, value) in field.map() {
        let text = value.node.text().unwrap_or_default();
        if name.contains('*') || text.contains('*') {
            value.error(
                codes::BAD_NAME,
                format!("`{}` can't hold a wildcard", shown(&name)),
                "labels are compared exactly",
            );
        }
    }
    Some(field.labels()).filter(|labels| !labels.is_empty())
}

fn mtls(field: &Field<'_>) -> Option<MtlsMode> {
    field.clone().object()?.get("mode")?.choice(&[
        ("STRICT", Some(MtlsMode::Strict)),
        ("PERMISSIVE", Some(MtlsMode::Permissive)),
        ("DISABLE", Some(MtlsMode::Disable)),
        ("UNSET", None),
    ])?
}

fn port_modes(field: &Field<'_>) -> BTreeMap<u16, Option<MtlsMode>> {
    let mut ports = BTreeMap::new();
    let entries = field.map();
    if entries.is_empty() {
        field.error(
            codes::MISSING_FIELD,
            "`portLevelMtls` needs at least one port",
            "",
        );
    }
    for (key, value) in entries {
        match key.parse::<u16>() {
            Ok(number) if number > 0 => {
                ports.insert(number, mtls(&value));
            }
            _ => value.say_key(
                rajut_types::Severity::Error,
                codes::OUT_OF_RANGE,
                format!("`{}` is not a port number", shown(&key)),
                "write a number from 1 to 65535",
            ),
        }
    }
    ports
}
