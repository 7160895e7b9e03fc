//! Istio `WorkloadEntry` and `WorkloadGroup`, and the form that the endpoints of a `ServiceEntry` share with them.
//!
//! A group is read and judged, and nothing comes of it: no workload registers itself.

use std::net::IpAddr;

use rajut_types::{Labels, Locality, Severity, Text};

use super::{
    meta::{self, NameForm},
    probe,
};
use crate::{
    codes,
    model::{ServicePort, StaticEndpoint, WorkloadEntry},
    read::{Field, Object, shown},
};

pub(crate) fn read(root: &Object<'_>) -> Option<WorkloadEntry> {
    let meta = meta::read(root, NameForm::Subdomain);
    let spec = root.required("spec", "add `spec:` with `address:`")?.object()?;
    let endpoint = endpoint(&spec, None);
    let meta = meta?;
    Some(WorkloadEntry {
        name: meta.name,
        namespace: meta.namespace,
        endpoint: endpoint?.0,
        origin: root.field().origin(),
        age: meta.age,
    })
}

/// An endpoint and the field of its address. `ports`: those of the service, where they are known.
pub(crate) fn endpoint<'a>(
    object: &Object<'a>,
    ports: Option<&[ServicePort]>,
) -> Option<(StaticEndpoint, Field<'a>)> {
    let address_field = object.required("address", "the endpoint's IP address or name");
    let address = address_field.as_ref().and_then(Field::non_empty_text);
    let rest = template(object, ports);
    let (address, address_field) = (address?, address_field?);
    if let Some(path) = address.strip_prefix("unix://") {
        let good = (path.starts_with('/') || path.starts_with('@')) && !path.ends_with('/');
        if !good || !rest.ports.is_empty() {
            address_field.error(
                codes::EXCLUSIVE,
                "a Unix socket needs an absolute path, `resolution: STATIC`, and no ports",
                "write `unix:///run/name.sock`",
            );
        }
    } else if address.parse::<IpAddr>().is_err() {
        address_field.hostname()?;
    }
    Some((StaticEndpoint { address, ..rest }, address_field))
}

/// All of an endpoint but its address.
fn template(object: &Object<'_>, ports: Option<&[ServicePort]>) -> StaticEndpoint {
    object.unsupported(&["network"], "all endpoints are reached directly");
    let mut own = Vec::new();
    for (name, value) in object.get("ports").map_or_else(Vec::new, |f| f.map()) {
        if ports.is_some_and(|ports| !ports.iter().any(|port| port.name == name)) {
            value.say_key(
                Severity::Error,
                codes::PORT_NOT_FOUND,
                format!("the service entry has no port named `{}`", shown(&name)),
                "",
            );
        } else if let Some(number) = value.port() {
            own.push((name, number));
        }
    }
    let locality = object.text("locality").map(|text| Locality::parse(&text));
    let labels = object.labels("labels");
    StaticEndpoint {
        address: Text::default(),
        ports: own,
        locality: locality.unwrap_or_else(|| Locality::of_labels(&labels)),
        labels,
        weight: object.count("weight").filter(|weight| *weight > 0).unwrap_or(1),
        service_account: object.text("serviceAccount").unwrap_or_default(),
        serves: None,
    }
}

/// A group; nothing of it is kept.
pub(crate) fn read_group(root: &Object<'_>) -> Option<()> {
    let meta = meta::read(root, NameForm::Subdomain);
    let spec = root.required("spec", "add `spec:` with `template:`")?.object()?;
    if let Some(metadata) = spec.object("metadata") {
        let _: [Labels; 2] = [metadata.labels("labels"), metadata.labels("annotations")];
    }
    let template_field = spec.required("template", "what the workloads of the group share");
    if let Some(field) = &template_field {
        field.say_key(
            Severity::Warning,
            codes::NOT_SUPPORTED,
            "the `template` is not supported yet: no workload of the group registers itself",
            "write a WorkloadEntry for each workload",
        );
        let template_object = field.clone().object()?;
        if template_object.has("address") {
            let _ = endpoint(&template_object, None);
        } else {
            let _: StaticEndpoint = template(&template_object, None);
        }
    }
    if let Some(field) = spec.get("probe") {
        field.say_key(
            Severity::Warning,
            codes::NOT_SUPPORTED,
            "the `probe` is not supported yet: nobody asks the workloads of the group for their health",
            "take the WorkloadEntry of a workload out while it is not well",
        );
        let _ = probe::read(&field.object()?, &[]);
    }
    (meta.is_some() && template_field.is_some()).then_some(())
}

#[cfg(test)]
mod tests;
