//! Istio `MeshConfig`: the text under the key `mesh` of the ConfigMap `istio`.

mod authorizers;
mod providers;
mod recording;

use rajut_types::{Severity, TrustDomain};

use super::{locality, meta, pool, route};
use crate::{
    codes,
    model::{MeshConfig, OutboundPolicy, PathNormalization},
    read::{Field, Object},
};

/// Fields that say how Istio itself is installed, or that are about ingress and other planes: each is named, once.
const IGNORED: &[&str] = &[
    "configSources",
    "disableEnvoyListenerLog",
    "dnsRefreshRate",
    "enablePrometheusMerge",
    "inboundClusterStatName",
    "outboundClusterStatName",
    "ingressClass",
    "ingressControllerMode",
    "ingressSelector",
    "ingressService",
    "meshId",
    "proxyHttpPort",
    "proxyListenPort",
    "proxyInboundListenPort",
    "serviceScopeConfigs",
    "verifyCertificateAtClient",
    "hboneIdleTimeout",
];

/// Lays what is written over `base`.
pub(crate) fn read(object: &Object<'_>, base: &MeshConfig) -> MeshConfig {
    let mut mesh = base.clone();
    not_followed(object);
    if let Some(domain) = object.get("trustDomain").and_then(|f| f.non_empty_text()) {
        mesh.trust_domain = TrustDomain::new(&domain);
    }
    if object.has("trustDomainAliases") {
        mesh.trust_domain_aliases = object
            .texts("trustDomainAliases")
            .iter()
            .map(|t| TrustDomain::new(t))
            .collect();
    }
    if let Some(root) = object.get("rootNamespace").and_then(|f| f.non_empty_text()) {
        mesh.root_namespace = root;
    }
    if let Some(policy) = object.object("outboundTrafficPolicy") {
        policy.unsupported(&["tls"], "unknown destinations get what the client sends");
        // The enum's zero is REGISTRY_ONLY, so an empty block means that.
        mesh.outbound_policy = match policy.get("mode") {
            None => OutboundPolicy::RegistryOnly,
            Some(field) => field
                .choice(&[
                    ("ALLOW_ANY", OutboundPolicy::AllowAny),
                    ("REGISTRY_ONLY", OutboundPolicy::RegistryOnly),
                ])
                .unwrap_or(mesh.outbound_policy),
        };
    }
    if let Some(on) = object.bool("enableAutoMtls") {
        mesh.auto_mtls = on;
    }
    if let Some(timeout) = object.positive_duration("connectTimeout") {
        mesh.connect_timeout = timeout;
    }
    if let Some(timeout) = object.get("protocolDetectionTimeout").and_then(|f| f.duration()) {
        // Istio's 0 waits for ever, which hangs servers that speak first; ours stays bounded.
        if !timeout.is_zero() {
            mesh.protocol_detection_timeout = timeout;
        }
    }
    if let Some(field) = object.get("h2UpgradePolicy") {
        mesh.h2_upgrade = pool::h2_upgrade(&field).unwrap_or(false);
    }
    if let Some(retries) = object.object("defaultHttpRetryPolicy") {
        mesh.default_retries = route::retry_policy(&retries);
    }
    if let Some(policy) = object.object("defaultTrafficPolicy") {
        policy.unsupported(&["outlierDetection"], "set it in a DestinationRule");
        mesh.default_connection_pool = policy.object("connectionPool").map(|o| pool::connection_pool(&o));
    }
    if let Some(setting) = object.object("localityLbSetting") {
        mesh.locality = locality::setting(&setting);
    }
    mesh.path_normalization = path_normalization(object).unwrap_or(mesh.path_normalization);
    providers::read(object, &mut mesh);
    exports(object, &mut mesh);
    mesh
}

/// Settings that are none of ours, and those that are not followed.
fn not_followed(object: &Object<'_>) {
    for name in IGNORED {
        if let Some(field) = object.get(name) {
            let message = format!("`{name}` has no effect: it is about how Istio itself is installed");
            field.say_key(
                Severity::Note,
                codes::NOT_SUPPORTED,
                message,
                "nothing needs to be changed",
            );
        }
    }
    object.unsupported(
        &["zoneAwareLbSetting"],
        "write `localityLbSetting`: nearer endpoints come first",
    );
    object.unsupported(
        &["discoverySelectors", "serviceSettings", "serviceEntryVisibility"],
        "all namespaces are seen",
    );
    object.unsupported(&["tcpKeepalive"], "set it in a DestinationRule");
    object.unsupported(
        &["meshMTLS", "tlsDefaults"],
        "inside the mesh TLS 1.3 is spoken, whatever stands here",
    );
    object.unsupported(
        &["caCertificates", "ca", "certificates"],
        "the mesh has its own authority",
    );
    object.unsupported(
        &["inboundTrafficPolicy"],
        "inbound traffic goes to the workload's address",
    );
    object.unsupported(
        &["defaultInboundHttpRetryPolicy"],
        "inbound requests are not retried",
    );
    object.unsupported(
        &["enableEnvoyAccessLogService"],
        "logs are written to files and standard output",
    );
}

fn path_normalization(object: &Object<'_>) -> Option<PathNormalization> {
    object
        .object("pathNormalization")?
        .get("normalization")?
        .choice(&[
            ("DEFAULT", PathNormalization::Base),
            ("BASE", PathNormalization::Base),
            ("NONE", PathNormalization::None),
            ("MERGE_SLASHES", PathNormalization::MergeSlashes),
            (
                "DECODE_AND_MERGE_SLASHES",
                PathNormalization::DecodeAndMergeSlashes,
            ),
        ])
}

fn exports(object: &Object<'_>, mesh: &mut MeshConfig) {
    let names = [
        "defaultServiceExportTo",
        "defaultVirtualServiceExportTo",
        "defaultDestinationRuleExportTo",
    ];
    for (name, slot) in names.into_iter().zip(&mut mesh.default_export) {
        let Some(field) = object.get(name) else { continue };
        let values = field.texts();
        if values.iter().any(|v| &**v == ".") {
            // `.` is the namespace of each object, which one list for all can't hold.
            field_not_relative(&field);
            continue;
        }
        *slot = meta::visibility(&values, &mesh.root_namespace, slot);
    }
}

fn field_not_relative(field: &Field<'_>) {
    field.warn(
        codes::NOT_SUPPORTED,
        "`.` as a default is not supported yet: objects are exported to all namespaces",
        "write `exportTo: [\".\"]` on the objects",
    );
}
