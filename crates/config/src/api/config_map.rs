//! Kubernetes `Namespace`, `ServiceAccount` and `ConfigMap`.

use std::collections::BTreeMap;

use super::meta::{self, NameForm};
use crate::{
    codes,
    model::{ConfigMap, DEFAULT_DENY, Namespace, ServiceAccount},
    read::{Field, Object, shown},
};

pub(crate) fn namespace(root: &Object<'_>) -> Option<Namespace> {
    root.ignore(&["spec"]);
    let meta = meta::read(root, NameForm::Label)?;
    let default_deny = match meta.annotations.find(DEFAULT_DENY) {
        None | Some("false") => false,
        Some("true") => true,
        Some(other) => {
            root.field().error(
                codes::UNKNOWN_VALUE,
                format!("the annotation `{DEFAULT_DENY}` is `{}`", shown(other)),
                "write \"true\" or \"false\", with quotes",
            );
            false
        }
    };
    Some(Namespace {
        name: meta.name,
        labels: meta.labels,
        default_deny,
        origin: root.field().origin(),
    })
}

pub(crate) fn service_account(root: &Object<'_>) -> Option<ServiceAccount> {
    root.ignore(&["secrets", "imagePullSecrets", "automountServiceAccountToken"]);
    let meta = meta::read(root, NameForm::Subdomain)?;
    Some(ServiceAccount {
        name: meta.name,
        namespace: meta.namespace,
        origin: root.field().origin(),
    })
}

/// A config map; `data` values that are text, `binaryData` not.
pub(crate) fn config_map(root: &Object<'_>) -> Option<ConfigMap> {
    root.ignore(&["binaryData", "immutable"]);
    let meta = meta::read(root, NameForm::Subdomain)?;
    let data = root.get("data").map_or_else(Vec::new, |field| field.map());
    let pairs = data.iter().filter_map(|(name, value)| {
        // `key:` without a value is an empty text for the API server, too.
        let text = if value.node.is_null() {
            Some("".into())
        } else {
            Field::text(value)
        };
        Some((name.clone(), text?))
    });
    Some(ConfigMap {
        name: meta.name,
        namespace: meta.namespace,
        data: pairs.collect::<BTreeMap<_, _>>(),
        origin: root.field().origin(),
    })
}
