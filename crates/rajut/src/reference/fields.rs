//! The page on Istio's fields: each field is put into a document with a value that fits no type, and the parser's own
//! answer says what becomes of it. The list of fields is Istio's API (1.32); the answers are ours.

use std::fmt::Write as _;

use rajut_config::{LoadOptions, Source, codes, load};
use rajut_types::{Diagnostic, Severity};
use serde_json::{Value, json};

use super::{cell, check};

/// A kind, a valid document of it, where its fields begin, and all fields that Istio has there.
struct Kind {
    name: &'static str,
    document: fn() -> Value,
    fields: &'static [&'static str],
    /// Fields that make sense only beside another: where they begin, and the other with its value.
    beside: &'static [(&'static str, &'static str, &'static str)],
}

fn istio(group: &str, kind: &str, spec: Value) -> Value {
    let mut document = json!({
        "apiVersion": format!("{group}/v1"), "kind": kind, "metadata": {"name": "web", "namespace": "shop"},
    });
    document["spec"] = spec;
    document
}

const KINDS: &[Kind] = &[
    Kind {
        name: "VirtualService",
        document: || {
            istio(
                "networking.istio.io",
                "VirtualService",
                json!({
                    "hosts": ["web"],
                    "http": [{"route": [{"destination": {"host": "web"}}]}],
                    "tls": [{"match": [{"sniHosts": ["web"]}], "route": [{"destination": {"host": "web"}}]}],
                    "tcp": [{"route": [{"destination": {"host": "web"}}]}],
                }),
            )
        },
        beside: &[],
        fields: &[
            "hosts",
            "gateways",
            "exportTo",
            "http",
            "tls",
            "tcp",
            "http[].name",
            "http[].match",
            "http[].route",
            "http[].redirect",
            "http[].directResponse",
            "http[].delegate",
            "http[].rewrite",
            "http[].timeout",
            "http[].retries",
            "http[].fault",
            "http[].fault.delay.fixedDelay",
            "http[].fault.delay.exponentialDelay",
            "http[].fault.delay.percentage",
            "http[].fault.delay.percent",
            "http[].fault.abort.httpStatus",
            "http[].fault.abort.grpcStatus",
            "http[].fault.abort.http2Error",
            "http[].fault.abort.percentage",
            "http[].mirror",
            "http[].mirrors",
            "http[].mirrors[].destination",
            "http[].mirrors[].percentage",
            "http[].mirrorPercent",
            "http[].mirrorPercentage",
            "http[].corsPolicy",
            "http[].corsPolicy.allowOrigins",
            "http[].corsPolicy.allowOrigin",
            "http[].corsPolicy.allowMethods",
            "http[].corsPolicy.allowHeaders",
            "http[].corsPolicy.exposeHeaders",
            "http[].corsPolicy.maxAge",
            "http[].corsPolicy.allowCredentials",
            "http[].corsPolicy.unmatchedPreflights",
            "http[].headers",
            "http[].match[].name",
            "http[].match[].statPrefix",
            "http[].match[].uri",
            "http[].match[].uri.exact",
            "http[].match[].uri.prefix",
            "http[].match[].uri.regex",
            "http[].match[].ignoreUriCase",
            "http[].match[].scheme",
            "http[].match[].method",
            "http[].match[].authority",
            "http[].match[].headers",
            "http[].match[].withoutHeaders",
            "http[].match[].queryParams",
            "http[].match[].port",
            "http[].match[].sourceLabels",
            "http[].match[].sourceNamespace",
            "http[].match[].gateways",
            "http[].route[].destination",
            "http[].route[].destination.host",
            "http[].route[].destination.subset",
            "http[].route[].destination.port.number",
            "http[].route[].weight",
            "http[].route[].headers",
            "http[].redirect.uri",
            "http[].redirect.authority",
            "http[].redirect.scheme",
            "http[].redirect.port",
            "http[].redirect.derivePort",
            "http[].redirect.redirectCode",
            "http[].directResponse.status",
            "http[].directResponse.body.string",
            "http[].directResponse.body.bytes",
            "http[].delegate.name",
            "http[].delegate.namespace",
            "http[].rewrite.uri",
            "http[].rewrite.authority",
            "http[].rewrite.uriRegexRewrite",
            "http[].retries.attempts",
            "http[].retries.perTryTimeout",
            "http[].retries.retryOn",
            "http[].retries.retryRemoteLocalities",
            "http[].retries.retryIgnorePreviousHosts",
            "http[].retries.backoff",
            "http[].headers.request.set",
            "http[].headers.request.add",
            "http[].headers.request.remove",
            "http[].headers.response.set",
            "http[].headers.response.add",
            "http[].headers.response.remove",
            "tls[].match[].sniHosts",
            "tls[].match[].destinationSubnets",
            "tls[].match[].port",
            "tls[].match[].sourceLabels",
            "tls[].match[].sourceNamespace",
            "tls[].match[].gateways",
            "tls[].route[].destination",
            "tls[].route[].weight",
            "tcp[].match[].destinationSubnets",
            "tcp[].match[].port",
            "tcp[].match[].sourceSubnet",
            "tcp[].match[].sourceLabels",
            "tcp[].match[].sourceNamespace",
            "tcp[].match[].gateways",
            "tcp[].route[].destination",
            "tcp[].route[].weight",
        ],
    },
    Kind {
        name: "DestinationRule",
        document: || istio("networking.istio.io", "DestinationRule", json!({"host": "web"})),
        beside: &[("trafficPolicy.tls.", "trafficPolicy.tls.mode", "SIMPLE")],
        fields: &[
            "host",
            "exportTo",
            "workloadSelector",
            "subsets",
            "subsets[].name",
            "subsets[].labels",
            "subsets[].trafficPolicy",
            "trafficPolicy",
            "trafficPolicy.portLevelSettings",
            "trafficPolicy.tunnel",
            "trafficPolicy.proxyProtocol",
            "trafficPolicy.retryBudget",
            "trafficPolicy.retryBudget.percent",
            "trafficPolicy.retryBudget.minRetryConcurrency",
            "trafficPolicy.retryBudget.budgetInterval",
            "trafficPolicy.loadBalancer.simple",
            "trafficPolicy.loadBalancer.consistentHash.httpHeaderName",
            "trafficPolicy.loadBalancer.consistentHash.httpCookie",
            "trafficPolicy.loadBalancer.consistentHash.useSourceIp",
            "trafficPolicy.loadBalancer.consistentHash.httpQueryParameterName",
            "trafficPolicy.loadBalancer.consistentHash.ringHash",
            "trafficPolicy.loadBalancer.consistentHash.maglev",
            "trafficPolicy.loadBalancer.consistentHash.minimumRingSize",
            "trafficPolicy.loadBalancer.localityLbSetting",
            "trafficPolicy.loadBalancer.localityLbSetting.enabled",
            "trafficPolicy.loadBalancer.localityLbSetting.distribute",
            "trafficPolicy.loadBalancer.localityLbSetting.distribute[].from",
            "trafficPolicy.loadBalancer.localityLbSetting.distribute[].to",
            "trafficPolicy.loadBalancer.localityLbSetting.failover",
            "trafficPolicy.loadBalancer.localityLbSetting.failover[].from",
            "trafficPolicy.loadBalancer.localityLbSetting.failover[].to",
            "trafficPolicy.loadBalancer.localityLbSetting.failoverPriority",
            "trafficPolicy.loadBalancer.zoneAwareLbSetting",
            "trafficPolicy.loadBalancer.warmupDurationSecs",
            "trafficPolicy.loadBalancer.warmup",
            "trafficPolicy.connectionPool.tcp.maxConnections",
            "trafficPolicy.connectionPool.tcp.connectTimeout",
            "trafficPolicy.connectionPool.tcp.tcpKeepalive",
            "trafficPolicy.connectionPool.tcp.maxConnectionDuration",
            "trafficPolicy.connectionPool.tcp.idleTimeout",
            "trafficPolicy.connectionPool.http.http1MaxPendingRequests",
            "trafficPolicy.connectionPool.http.http2MaxRequests",
            "trafficPolicy.connectionPool.http.maxRequestsPerConnection",
            "trafficPolicy.connectionPool.http.maxRetries",
            "trafficPolicy.connectionPool.http.idleTimeout",
            "trafficPolicy.connectionPool.http.h2UpgradePolicy",
            "trafficPolicy.connectionPool.http.useClientProtocol",
            "trafficPolicy.connectionPool.http.maxConcurrentStreams",
            "trafficPolicy.connectionPool.http.http2KeepAlive",
            "trafficPolicy.outlierDetection.consecutiveErrors",
            "trafficPolicy.outlierDetection.splitExternalLocalOriginErrors",
            "trafficPolicy.outlierDetection.consecutiveLocalOriginFailures",
            "trafficPolicy.outlierDetection.consecutiveGatewayErrors",
            "trafficPolicy.outlierDetection.consecutive5xxErrors",
            "trafficPolicy.outlierDetection.interval",
            "trafficPolicy.outlierDetection.baseEjectionTime",
            "trafficPolicy.outlierDetection.maxEjectionPercent",
            "trafficPolicy.outlierDetection.minHealthPercent",
            "trafficPolicy.outlierDetection.outlierDetectionHttpErrorCodes",
            "trafficPolicy.tls.mode",
            "trafficPolicy.tls.clientCertificate",
            "trafficPolicy.tls.privateKey",
            "trafficPolicy.tls.caCertificates",
            "trafficPolicy.tls.credentialName",
            "trafficPolicy.tls.subjectAltNames",
            "trafficPolicy.tls.sni",
            "trafficPolicy.tls.insecureSkipVerify",
            "trafficPolicy.tls.caCrl",
        ],
    },
    Kind {
        name: "ServiceEntry",
        document: || {
            istio(
                "networking.istio.io",
                "ServiceEntry",
                json!({"hosts": ["api.example.org"], "ports": [{"number": 443, "name": "tls", "protocol": "TLS"}],
                    "location": "MESH_EXTERNAL", "resolution": "STATIC", "endpoints": [{"address": "192.0.2.1"}]}),
            )
        },
        beside: &[],
        fields: &[
            "hosts",
            "addresses",
            "ports",
            "ports[].number",
            "ports[].protocol",
            "ports[].name",
            "ports[].targetPort",
            "location",
            "resolution",
            "endpoints",
            "endpoints[].address",
            "endpoints[].ports",
            "endpoints[].labels",
            "endpoints[].network",
            "endpoints[].locality",
            "endpoints[].weight",
            "endpoints[].serviceAccount",
            "workloadSelector",
            "exportTo",
            "subjectAltNames",
        ],
    },
    Kind {
        name: "PeerAuthentication",
        document: || {
            istio(
                "security.istio.io",
                "PeerAuthentication",
                json!({"selector": {"matchLabels": {"app": "web"}}, "mtls": {"mode": "STRICT"}}),
            )
        },
        beside: &[],
        fields: &["selector.matchLabels", "mtls.mode", "portLevelMtls"],
    },
    Kind {
        name: "AuthorizationPolicy",
        document: || {
            istio(
                "security.istio.io",
                "AuthorizationPolicy",
                json!({"selector": {"matchLabels": {"app": "web"}}, "action": "ALLOW", "rules": [{
                    "from": [{"source": {"principals": ["cluster.local/ns/a/sa/b"]}}],
                    "to": [{"operation": {"methods": ["GET"]}}],
                    "when": [{"key": "source.ip", "values": ["10.0.0.0/8"]}],
                }]}),
            )
        },
        beside: &[("provider", "action", "CUSTOM")],
        fields: &[
            "selector.matchLabels",
            "targetRef",
            "targetRefs",
            "action",
            "provider.name",
            "rules[].from[].source.principals",
            "rules[].from[].source.notPrincipals",
            "rules[].from[].source.requestPrincipals",
            "rules[].from[].source.notRequestPrincipals",
            "rules[].from[].source.namespaces",
            "rules[].from[].source.notNamespaces",
            "rules[].from[].source.serviceAccounts",
            "rules[].from[].source.notServiceAccounts",
            "rules[].from[].source.trustDomains",
            "rules[].from[].source.notTrustDomains",
            "rules[].from[].source.ipBlocks",
            "rules[].from[].source.notIpBlocks",
            "rules[].from[].source.remoteIpBlocks",
            "rules[].from[].source.notRemoteIpBlocks",
            "rules[].to[].operation.hosts",
            "rules[].to[].operation.notHosts",
            "rules[].to[].operation.ports",
            "rules[].to[].operation.notPorts",
            "rules[].to[].operation.methods",
            "rules[].to[].operation.notMethods",
            "rules[].to[].operation.paths",
            "rules[].to[].operation.notPaths",
            "rules[].when[].key",
            "rules[].when[].values",
            "rules[].when[].notValues",
        ],
    },
    Kind {
        name: "RequestAuthentication",
        document: || {
            istio(
                "security.istio.io",
                "RequestAuthentication",
                json!({"selector": {"matchLabels": {"app": "web"}}, "jwtRules": [{"issuer": "https://login.example"}]}),
            )
        },
        beside: &[],
        fields: &[
            "selector.matchLabels",
            "targetRef",
            "targetRefs",
            "jwtRules",
            "jwtRules[].issuer",
            "jwtRules[].audiences",
            "jwtRules[].jwksUri",
            "jwtRules[].jwks",
            "jwtRules[].fromHeaders",
            "jwtRules[].fromHeaders[].name",
            "jwtRules[].fromHeaders[].prefix",
            "jwtRules[].fromParams",
            "jwtRules[].fromCookies",
            "jwtRules[].outputPayloadToHeader",
            "jwtRules[].outputClaimToHeaders",
            "jwtRules[].outputClaimToHeaders[].header",
            "jwtRules[].outputClaimToHeaders[].claim",
            "jwtRules[].forwardOriginalToken",
            "jwtRules[].timeout",
            "jwtRules[].spaceDelimitedClaims",
        ],
    },
    Kind {
        name: "Gateway",
        document: || {
            istio(
                "networking.istio.io",
                "Gateway",
                json!({
                    "selector": {"istio": "ingressgateway"},
                    "servers": [{
                        "port": {"number": 443, "name": "https", "protocol": "HTTPS"},
                        "hosts": ["*"],
                        "tls": {"mode": "SIMPLE", "credentialName": "web"},
                    }],
                }),
            )
        },
        beside: &[],
        fields: &[
            "selector",
            "servers",
            "servers[].port.number",
            "servers[].port.name",
            "servers[].port.protocol",
            "servers[].port.targetPort",
            "servers[].bind",
            "servers[].hosts",
            "servers[].name",
            "servers[].defaultEndpoint",
            "servers[].tls",
            "servers[].tls.mode",
            "servers[].tls.httpsRedirect",
            "servers[].tls.credentialName",
            "servers[].tls.credentialNames",
            "servers[].tls.caCertCredentialName",
            "servers[].tls.serverCertificate",
            "servers[].tls.privateKey",
            "servers[].tls.caCertificates",
            "servers[].tls.tlsCertificates",
            "servers[].tls.caCrl",
            "servers[].tls.subjectAltNames",
            "servers[].tls.verifyCertificateSpki",
            "servers[].tls.verifyCertificateHash",
            "servers[].tls.minProtocolVersion",
            "servers[].tls.maxProtocolVersion",
            "servers[].tls.cipherSuites",
            "servers[].tls.insecureSkipVerify",
        ],
    },
    Kind {
        name: "Sidecar",
        document: || {
            istio(
                "networking.istio.io",
                "Sidecar",
                json!({
                    "workloadSelector": {"labels": {"app": "web"}},
                    "egress": [{"hosts": ["./*"]}],
                    "ingress": [{"port": {"number": 80, "protocol": "HTTP", "name": "http"}}],
                }),
            )
        },
        beside: &[],
        fields: &[
            "workloadSelector",
            "workloadSelector.labels",
            "egress",
            "egress[].port",
            "egress[].bind",
            "egress[].captureMode",
            "egress[].hosts",
            "ingress",
            "ingress[].port",
            "ingress[].port.number",
            "ingress[].port.protocol",
            "ingress[].port.name",
            "ingress[].bind",
            "ingress[].captureMode",
            "ingress[].defaultEndpoint",
            "ingress[].tls",
            "ingress[].connectionPool",
            "inboundConnectionPool",
            "outboundTrafficPolicy.mode",
            "outboundTrafficPolicy.egressProxy",
        ],
    },
    Kind {
        name: "WorkloadEntry",
        document: || {
            istio(
                "networking.istio.io",
                "WorkloadEntry",
                json!({"address": "192.0.2.1", "labels": {"app": "web"}}),
            )
        },
        beside: &[],
        fields: &[
            "address",
            "ports",
            "labels",
            "network",
            "locality",
            "weight",
            "serviceAccount",
        ],
    },
    Kind {
        name: "WorkloadGroup",
        document: || istio("networking.istio.io", "WorkloadGroup", json!({"template": {}})),
        beside: &[],
        fields: &[
            "metadata",
            "metadata.labels",
            "metadata.annotations",
            "template",
            "probe",
        ],
    },
    Kind {
        name: "Telemetry",
        document: || {
            istio(
                "telemetry.istio.io",
                "Telemetry",
                json!({"selector": {"matchLabels": {"app": "web"}}, "metrics": [{
                    "providers": [{"name": "prometheus"}],
                    "overrides": [{"match": {"metric": "REQUEST_COUNT", "mode": "CLIENT"},
                        "tagOverrides": {"host": {"value": "request.host"}}}],
                }]}),
            )
        },
        beside: &[],
        fields: &[
            "selector.matchLabels",
            "targetRef",
            "targetRefs",
            "tracing[].match.mode",
            "tracing[].providers",
            "tracing[].randomSamplingPercentage",
            "tracing[].disableSpanReporting",
            "tracing[].customTags",
            "tracing[].useRequestIdForTraceSampling",
            "tracing[].enableIstioTags",
            "tracing[].disableContextPropagation",
            "accessLogging[].match.mode",
            "accessLogging[].providers",
            "accessLogging[].disabled",
            "accessLogging[].filter.expression",
            "metrics",
            "metrics[].providers",
            "metrics[].reportingInterval",
            "metrics[].overrides",
            "metrics[].overrides[].match.metric",
            "metrics[].overrides[].match.customMetric",
            "metrics[].overrides[].match.mode",
            "metrics[].overrides[].disabled",
            "metrics[].overrides[].tagOverrides",
        ],
    },
];

/// The whole kinds of Istio, by the version in which they are asked.
const ALL_KINDS: &[(&str, &str)] = &[
    ("networking.istio.io/v1", "VirtualService"),
    ("networking.istio.io/v1", "DestinationRule"),
    ("networking.istio.io/v1", "ServiceEntry"),
    ("networking.istio.io/v1", "Gateway"),
    ("networking.istio.io/v1", "Sidecar"),
    ("networking.istio.io/v1", "WorkloadEntry"),
    ("networking.istio.io/v1", "WorkloadGroup"),
    ("networking.istio.io/v1alpha3", "EnvoyFilter"),
    ("networking.istio.io/v1beta1", "ProxyConfig"),
    ("security.istio.io/v1", "PeerAuthentication"),
    ("security.istio.io/v1", "RequestAuthentication"),
    ("security.istio.io/v1", "AuthorizationPolicy"),
    ("telemetry.istio.io/v1", "Telemetry"),
    ("extensions.istio.io/v1alpha1", "WasmPlugin"),
    ("extensions.istio.io/v1alpha1", "TrafficExtension"),
];

/// What can't stand beside `route` is asked without it.
const INSTEAD_OF_ROUTE: &[&str] = &["http[].redirect", "http[].directResponse", "http[].delegate"];

/// What the parser says of a field.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    Read,
    /// Read, and named as old.
    Deprecated(String),
    /// It has no meaning for a mesh on one machine, and is left out without a word.
    NoMeaning,
    /// Named when it is there, with what happens instead.
    Unsupported(Severity, String),
    Unknown,
}

/// Sets `path` (`http[].route[].weight`) below `target`; a list is made or its first item taken.
fn set(target: &mut Value, path: &str, value: Value) {
    let (first, rest) = path
        .split_once('.')
        .map_or((path, None), |(first, rest)| (first, Some(rest)));
    let (name, in_list) = first
        .strip_suffix("[]")
        .map_or((first, false), |name| (name, true));
    if !target.is_object() {
        *target = json!({});
    }
    let mut inner = &mut target[name];
    if in_list {
        if !inner.is_array() {
            *inner = json!([{}]);
        }
        inner = &mut inner[0];
    }
    match rest {
        Some(rest) => set(inner, rest, value),
        None => *inner = value,
    }
}

fn found(document: &Value, path: &str) -> Vec<Diagnostic> {
    let place = format!("spec.{}", path.replace("[]", "[0]"));
    let source = Source::new("probe.json", document.to_string());
    let loaded = load(&[source], &LoadOptions::default());
    loaded
        .diagnostics
        .into_iter()
        .filter(|it| *it.origin.field_path == place)
        .collect()
}

/// Two values of different types: a field that minds neither is not looked at.
fn ask(kind: &Kind, path: &str) -> Said {
    let mut silent = true;
    for value in [json!({}), json!("\u{fffd} ")] {
        let mut document = (kind.document)();
        for (prefix, other, value) in kind.beside {
            if path.starts_with(prefix) && path != *other {
                set(&mut document["spec"], other, json!(value));
            }
        }
        if INSTEAD_OF_ROUTE.iter().any(|it| path.starts_with(it))
            && let Some(http) = document["spec"]["http"][0].as_object_mut()
        {
            http.remove("route");
        }
        set(&mut document["spec"], path, value);
        for diagnostic in found(&document, path) {
            match diagnostic.code {
                codes::NOT_SUPPORTED => return Said::Unsupported(diagnostic.severity, diagnostic.message),
                codes::UNKNOWN_FIELD => return Said::Unknown,
                codes::DEPRECATED => return Said::Deprecated(diagnostic.hint),
                _ => silent = false,
            }
        }
    }
    if silent { Said::NoMeaning } else { Said::Read }
}

#[test]
fn fields_of_istio() {
    let mut page = String::from(
        "What becomes of each field of Istio's API (1.32). Made by asking the parser, field by field. *Used*: read, \
         validated and handed on. *Not supported*: named with file, line and field where it stands, and what happens \
         instead. Anything else in a document is an unknown field: an error.\n\n\
         All versions of a kind are read alike (`v1`, `v1beta1`, `v1alpha3`).\n\n## Kinds\n\n| kind | |\n| --- | --- |\n",
    );
    for (version, kind) in ALL_KINDS {
        let document = json!({"apiVersion": version, "kind": kind, "metadata": {"name": "web"}, "spec": {}});
        let loaded = load(
            &[Source::new("probe.json", document.to_string())],
            &LoadOptions::default(),
        );
        let later = loaded
            .diagnostics
            .iter()
            .find(|it| it.code == codes::KIND_NOT_SUPPORTED);
        assert!(
            !loaded.diagnostics.iter().any(|it| it.code == codes::UNKNOWN_KIND),
            "{kind} is unknown"
        );
        let said = match later {
            None => "used".to_owned(),
            Some(it) if it.severity == Severity::Error => {
                "not supported: **error**, since leaving it out would let \
                 through what was meant to be refused"
                    .to_owned()
            }
            Some(_) => "not supported: warning".to_owned(),
        };
        writeln!(page, "| `{kind}` ({version}) | {said} |").unwrap();
    }
    let mut unknown = Vec::new();
    for kind in KINDS {
        writeln!(
            page,
            "\n## {}\n\n| field below `spec` | |\n| --- | --- |",
            kind.name
        )
        .unwrap();
        for path in kind.fields {
            let said = match ask(kind, path) {
                Said::Read => "used".to_owned(),
                Said::Deprecated(hint) => format!("used, with a warning: {hint}"),
                Said::NoMeaning => "no meaning here; left out".to_owned(),
                Said::Unsupported(severity, message) => {
                    let effect = message.split_once("yet").map_or(&*message, |(_, rest)| rest);
                    format!("not supported ({severity}){effect}")
                }
                Said::Unknown => {
                    unknown.push(format!("{}.{path}", kind.name));
                    continue;
                }
            };
            writeln!(page, "| `{path}` | {} |", cell(&said)).unwrap();
        }
    }
    assert!(
        unknown.is_empty(),
        "unknown to the parser: {}",
        unknown.join(", ")
    );
    check("istio-support.md", "Istio's fields", &page);
}
