//! Kubernetes `Secret`: certificates, keys and roots in the PEM form for gateways, and texts for the environments of workloads that
//! are started on this machine. No finding shows a value.
//!
//! What a gateway or a workload needs and does not find is said there, where the secret is named.

use std::collections::BTreeMap;

use base64::{
    Engine as _,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use bytes::Bytes;

use super::meta::{self, NameForm};
use crate::{
    model::Secret,
    read::{Field, Object},
};

/// Kubernetes' bound of a whole secret, bytes.
const SECRET_MAX: usize = 1024 * 1024;

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

pub(crate) fn read(root: &Object<'_>) -> Option<Secret> {
    root.ignore_rest();
    let (mut data, mut texts) = (BTreeMap::new(), BTreeMap::new());
    // Kubernetes writes `stringData` over `data`.
    for (encoded, part) in [(true, "data"), (false, "stringData")] {
        let Some(field) = root.get(part) else { continue };
        for (key, value) in field.map() {
            let Some(bytes) = content(&value, encoded) else {
                continue;
            };
            if let Ok(text) = std::str::from_utf8(&bytes) {
                texts.insert(key.clone(), text.into());
            }
            if Secret::KEYS.contains(&&*key) && is_pem(&key, &bytes) {
                data.insert(key, bytes);
            }
        }
    }
    let meta = meta::read(root, NameForm::Subdomain)?;
    Some(Secret {
        name: meta.name,
        namespace: meta.namespace,
        data,
        texts,
        origin: root.field().origin(),
    })
}

fn content(field: &Field<'_>, encoded: bool) -> Option<Bytes> {
    let text = field.node.text().filter(|text| text.len() <= 2 * SECRET_MAX)?;
    if !encoded {
        return Some(Bytes::copy_from_slice(text.as_bytes()));
    }
    let packed: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    BASE64.decode(packed).ok().map(Bytes::from)
}

/// Whether the value looks like what its key promises. What is inside is judged by the proxy.
fn is_pem(key: &str, bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let holds = |what: &str| text.contains(&format!("-----BEGIN {what}"));
    if matches!(key, "tls.key" | "key") {
        ["PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY"]
            .into_iter()
            .any(holds)
    } else {
        holds("CERTIFICATE")
    }
}
