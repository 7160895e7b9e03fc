//! The formats that people write, one file each: a document's tree in, the validated form of `model` out.
//!
//! Second step of walk two. Every field of a format is read, named as not supported, or is none of the mesh's business;
//! whatever is left is an unknown field and an error. Relations between objects are judged in `merge` and `check`.

pub(crate) mod authorization_policy;
pub(crate) mod compose;
pub(crate) mod config_map;
pub(crate) mod cors;
pub(crate) mod deployment;
pub(crate) mod destination_rule;
pub(crate) mod fault;
pub(crate) mod gateway;
pub(crate) mod health_check;
pub(crate) mod local_workload;
pub(crate) mod locality;
pub(crate) mod matches;
pub(crate) mod mesh_config;
pub(crate) mod meta;
pub(crate) mod mirror;
pub(crate) mod pattern;
pub(crate) mod peer_authentication;
pub(crate) mod pool;
pub(crate) mod probe;
pub(crate) mod protocol;
pub(crate) mod rate_limit_policy;
pub(crate) mod request_authentication;
pub(crate) mod route;
pub(crate) mod secret;
pub(crate) mod service;
pub(crate) mod service_entry;
pub(crate) mod sidecar;
pub(crate) mod telemetry;
pub(crate) mod virtual_service;
pub(crate) mod workload_entry;

use rajut_types::Severity;

/// What becomes of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Support {
    /// It is read.
    Used,
    /// It is known and not read yet: said by name, with the severity that ignoring it deserves.
    Later(Severity),
}

/// A kind of a group that is the mesh's business.
#[derive(Debug)]
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    /// `group`, empty for Kubernetes' core.
    pub(crate) group: &'static str,
    pub(crate) versions: &'static [&'static str],
    /// The `apiVersion` to write.
    pub(crate) write: &'static str,
    pub(crate) support: Support,
}

const NETWORKING: &[&str] = &["v1", "v1beta1", "v1alpha3"];
const SECURITY: &[&str] = &["v1", "v1beta1"];
const OURS: &[&str] = &["v1alpha1"];
/// Left out, something that was meant to be refused would be let through.
const UNSAFE: Support = Support::Later(Severity::Error);
const HARMLESS: Support = Support::Later(Severity::Warning);

const fn kind(
    name: &'static str,
    group: &'static str,
    versions: &'static [&'static str],
    write: &'static str,
    support: Support,
) -> Kind {
    Kind {
        name,
        group,
        versions,
        write,
        support,
    }
}

/// Every kind that is the mesh's business.
pub(crate) const KINDS: &[Kind] = &[
    kind("Namespace", "", &["v1"], "v1", Support::Used),
    kind("Service", "", &["v1"], "v1", Support::Used),
    kind("ServiceAccount", "", &["v1"], "v1", Support::Used),
    kind("ConfigMap", "", &["v1"], "v1", Support::Used),
    kind("Secret", "", &["v1"], "v1", Support::Used),
    kind("Deployment", "apps", &["v1"], "apps/v1", Support::Used),
    kind("StatefulSet", "apps", &["v1"], "apps/v1", Support::Used),
    kind(
        "VirtualService",
        "networking.istio.io",
        NETWORKING,
        "networking.istio.io/v1",
        Support::Used,
    ),
    kind(
        "DestinationRule",
        "networking.istio.io",
        NETWORKING,
        "networking.istio.io/v1",
        Support::Used,
    ),
    kind(
        "ServiceEntry",
        "networking.istio.io",
        NETWORKING,
        "networking.istio.io/v1",
        Support::Used,
    ),
    kind(
        "Gateway",
        "networking.istio.io",
        NETWORKING,
        "networking.istio.io/v1",
        Support::Used,
    ),
    kind(
        "Sidecar",
        "networking.istio.io",
        NETWORKING,
        "networking.istio.io/v1",
        Support::Used,
    ),
    kind(
        "WorkloadEntry",
        "networking.istio.io",
        NETWORKING,
        "networking.istio.io/v1",
        Support::Used,
    ),
    kind(
        "WorkloadGroup",
        "networking.istio.io",
        NETWORKING,
        "networking.istio.io/v1",
        Support::Used,
    ),
    kind(
        "EnvoyFilter",
        "networking.istio.io",
        &["v1alpha3"],
        "networking.istio.io/v1alpha3",
        HARMLESS,
    ),
    kind(
        "ProxyConfig",
        "networking.istio.io",
        &["v1beta1"],
        "networking.istio.io/v1beta1",
        HARMLESS,
    ),
    kind(
        "PeerAuthentication",
        "security.istio.io",
        SECURITY,
        "security.istio.io/v1",
        Support::Used,
    ),
    kind(
        "AuthorizationPolicy",
        "security.istio.io",
        SECURITY,
        "security.istio.io/v1",
        Support::Used,
    ),
    kind(
        "RequestAuthentication",
        "security.istio.io",
        SECURITY,
        "security.istio.io/v1",
        Support::Used,
    ),
    kind(
        "Telemetry",
        "telemetry.istio.io",
        &["v1", "v1alpha1"],
        "telemetry.istio.io/v1",
        Support::Used,
    ),
    kind(
        "WasmPlugin",
        "extensions.istio.io",
        OURS,
        "extensions.istio.io/v1alpha1",
        UNSAFE,
    ),
    kind(
        "TrafficExtension",
        "extensions.istio.io",
        OURS,
        "extensions.istio.io/v1alpha1",
        UNSAFE,
    ),
    kind(
        "LocalWorkload",
        "mesh.rajut.dev",
        OURS,
        "mesh.rajut.dev/v1alpha1",
        Support::Used,
    ),
    kind(
        "RateLimitPolicy",
        "mesh.rajut.dev",
        OURS,
        "mesh.rajut.dev/v1alpha1",
        Support::Used,
    ),
    kind(
        "ProtectionPolicy",
        "mesh.rajut.dev",
        OURS,
        "mesh.rajut.dev/v1alpha1",
        UNSAFE,
    ),
    kind(
        "EmergencyPlan",
        "mesh.rajut.dev",
        OURS,
        "mesh.rajut.dev/v1alpha1",
        HARMLESS,
    ),
    kind(
        "EmergencyActivation",
        "mesh.rajut.dev",
        OURS,
        "mesh.rajut.dev/v1alpha1",
        HARMLESS,
    ),
    kind(
        "MeshGuard",
        "mesh.rajut.dev",
        OURS,
        "mesh.rajut.dev/v1alpha1",
        HARMLESS,
    ),
];

/// Groups of which every kind is the mesh's business: an unknown one there is a mistake, not somebody else's object.
pub(crate) const OWN_GROUPS: &[&str] = &[
    "networking.istio.io",
    "security.istio.io",
    "telemetry.istio.io",
    "extensions.istio.io",
    "mesh.rajut.dev",
];
