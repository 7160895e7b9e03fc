//! Istio `DestinationRule`.

use std::collections::BTreeSet;

use rajut_types::{Percent, Severity};

use super::{
    health_check, locality,
    meta::{self, NameForm},
    peer_authentication::match_labels,
    pool,
};
use crate::{
    codes,
    merge::Defaults,
    model::{
        ClientTls, ClientTlsMode, DestinationRule, HashKey, HashTable, LbAlgorithm, LoadBalancer,
        LocalitySetting, SubsetRule, TrafficPolicy,
    },
    read::{Field, Object, shown},
};

/// Envoy's largest Maglev table.
const MAX_MAGLEV: i64 = 5_000_011;

pub(crate) fn read(root: &Object<'_>, defaults: &Defaults) -> Option<DestinationRule> {
    let meta = meta::read(root, NameForm::Subdomain);
    let spec = root.required("spec", "add `spec:` with `host:`")?.object()?;
    let namespace = root.field().scope().namespace().clone();
    let host = spec
        .required("host", "add the service's name")
        .and_then(|field| field.hostname());
    let policy = spec
        .object("trafficPolicy")
        .map(|o| traffic_policy(&o, true))
        .unwrap_or_default();
    let subsets = subsets(&spec);
    let [_, _, default_export] = &defaults.mesh.default_export;
    let export_to = meta::export_to(&spec, &namespace, default_export);
    let health_check = health_check::read(root);
    let workload_selector = spec.object("workloadSelector").and_then(|o| match_labels(&o));
    let meta = meta?;
    Some(DestinationRule {
        host: host?.qualify(&meta.namespace, &defaults.mesh.domain),
        name: meta.name,
        namespace: meta.namespace,
        policy,
        subsets,
        health_check,
        export_to,
        workload_selector,
        origin: root.field().origin(),
        age: meta.age,
    })
}

fn subsets(spec: &Object<'_>) -> Vec<SubsetRule> {
    let mut names = BTreeSet::new();
    let mut all = Vec::new();
    for field in spec.list("subsets") {
        let Some(object) = field.clone().object() else {
            continue;
        };
        let name_field = object.required("name", "every subset needs a name");
        let name = name_field.as_ref().and_then(|f| {
            let name = f.non_empty_text()?;
            meta::check_name(f, &name.to_ascii_lowercase(), NameForm::Label).then_some(name)
        });
        let labels = object.labels("labels");
        let policy = object
            .object("trafficPolicy")
            .map(|o| traffic_policy(&o, true))
            .unwrap_or_default();
        let (Some(name), Some(name_field)) = (name, name_field) else {
            continue;
        };
        if !names.insert(name.clone()) {
            name_field.error(
                codes::DUPLICATE_NAME,
                format!("two subsets are named `{}`", shown(&name)),
                "give each its own name",
            );
        }
        all.push(SubsetRule {
            name,
            labels,
            policy,
            origin: field.origin(),
        });
    }
    all
}

fn traffic_policy(object: &Object<'_>, with_ports: bool) -> TrafficPolicy {
    let mut policy = TrafficPolicy {
        load_balancer: object.object("loadBalancer").map(|o| load_balancer(&o)),
        connection_pool: object.object("connectionPool").map(|o| pool::connection_pool(&o)),
        outlier_detection: object
            .object("outlierDetection")
            .map(|o| pool::outlier_detection(&o)),
        tls: object.object("tls").and_then(|o| tls(&o)),
        ports: Vec::new(),
        retry_budget: None,
    };
    warn_without_ejection(object, &policy);
    if with_ports {
        object.unsupported(&["tunnel"], "connections go straight to the destination");
        object.unsupported(&["proxyProtocol"], "no PROXY header is sent");
        policy.retry_budget = object.object("retryBudget").map(|o| retry_budget(&o));
        policy.ports = port_policies(object);
    }
    if with_ports && object.field().node.entries().is_empty() {
        object.field().say_key(
            Severity::Warning,
            codes::NO_EFFECT,
            "the traffic policy is empty",
            "take it out",
        );
    }
    policy
}

/// Places are an order only where something says that an endpoint failed.
fn warn_without_ejection(object: &Object<'_>, policy: &TrafficPolicy) {
    let locality = policy.load_balancer.as_ref().and_then(|lb| lb.locality.as_ref());
    if matches!(locality, Some(LocalitySetting::Failover(_))) && policy.outlier_detection.is_none() {
        object.field().say_key(
            Severity::Warning,
            codes::NO_EFFECT,
            "`failover` and `failoverPriority` have an effect together with `outlierDetection` only: all endpoints get requests",
            "add `outlierDetection: {}` beside `loadBalancer`",
        );
    }
}

fn port_policies(object: &Object<'_>) -> Vec<(u16, TrafficPolicy)> {
    let mut seen = BTreeSet::new();
    let mut ports = Vec::new();
    for field in object.list("portLevelSettings") {
        let Some(entry) = field.clone().object() else {
            continue;
        };
        let number_field = entry
            .required("port", "add `port: {number: …}`")
            .and_then(Field::object)
            .and_then(|port| port.required("number", "the service port's number"));
        let number = number_field.as_ref().and_then(Field::port);
        let policy = traffic_policy(&entry, false);
        let (Some(number), Some(number_field)) = (number, number_field) else {
            continue;
        };
        if seen.insert(number) {
            ports.push((number, policy));
        } else {
            number_field.error(
                codes::DUPLICATE_NAME,
                format!("the port {number} is listed twice"),
                "",
            );
        }
    }
    ports
}

fn retry_budget(object: &Object<'_>) -> (Percent, u32) {
    object.unsupported(&["budgetInterval"], "retries are counted while they run");
    let percent = object.get("percent").and_then(|f| f.percent());
    let concurrency = object.count("minRetryConcurrency");
    (
        percent.unwrap_or(Percent::from_millionths(200_000)),
        concurrency.unwrap_or(3),
    )
}

fn load_balancer(object: &Object<'_>) -> LoadBalancer {
    object.unsupported(
        &["zoneAwareLbSetting"],
        "write `localityLbSetting`: nearer endpoints come first",
    );
    let locality = object.object("localityLbSetting").map(|o| locality::setting(&o));
    object.one_of(&["simple", "consistentHash"]);
    let simple = object.get("simple").and_then(|field| {
        if field.node.text() == Some("LEAST_CONN") {
            field.warn(
                codes::DEPRECATED,
                "`LEAST_CONN` is the old name of `LEAST_REQUEST`",
                "write `LEAST_REQUEST`",
            );
        }
        field.choice(&[
            ("UNSPECIFIED", 0),
            ("LEAST_REQUEST", 1),
            ("LEAST_CONN", 1),
            ("ROUND_ROBIN", 2),
            ("RANDOM", 3),
            ("PASSTHROUGH", 4),
        ])
    });
    let hash = object.object("consistentHash").and_then(|o| consistent_hash(&o));
    let algorithm = match simple {
        Some(1) => Some(LbAlgorithm::LeastRequest),
        Some(2) => Some(LbAlgorithm::RoundRobin),
        Some(3) => Some(LbAlgorithm::Random),
        Some(4) => Some(LbAlgorithm::Passthrough),
        _ => hash,
    };
    let warmup = warmup(object);
    if warmup.is_some()
        && !matches!(
            algorithm,
            None | Some(LbAlgorithm::LeastRequest | LbAlgorithm::RoundRobin)
        )
    {
        object.field().warn(
            codes::NO_EFFECT,
            "a warm-up has an effect with `LEAST_REQUEST` and `ROUND_ROBIN` only",
            "take it out",
        );
    }
    LoadBalancer {
        algorithm,
        warmup,
        locality,
    }
}

fn warmup(object: &Object<'_>) -> Option<std::time::Duration> {
    object.one_of(&["warmup", "warmupDurationSecs"]);
    if let Some(old) = object.get("warmupDurationSecs") {
        old.say_key(
            Severity::Warning,
            codes::DEPRECATED,
            "`warmupDurationSecs` is deprecated",
            "write `warmup: {duration: …}`",
        );
        return old.positive_duration();
    }
    let warmup = object.object("warmup")?;
    warmup.unsupported(
        &["minimumPercent", "aggression"],
        "the share grows evenly from 10 %, Istio's default",
    );
    warmup
        .required("duration", "e.g. `duration: 60s`")?
        .positive_duration()
}

fn consistent_hash(object: &Object<'_>) -> Option<LbAlgorithm> {
    const KEYS: &[&str] = &[
        "httpHeaderName",
        "httpCookie",
        "useSourceIp",
        "httpQueryParameterName",
    ];
    let set = object.one_of(KEYS);
    object.one_of(&["ringHash", "maglev", "minimumRingSize"]);
    let key = match set.first().copied() {
        Some("httpHeaderName") => object
            .get("httpHeaderName")?
            .non_empty_text()
            .map(HashKey::Header),
        Some("httpCookie") => object.object("httpCookie").and_then(|o| cookie(&o)),
        Some("useSourceIp") => match object.bool("useSourceIp") {
            Some(true) => Some(HashKey::SourceIp),
            _ => None,
        },
        Some(_) => object
            .get("httpQueryParameterName")?
            .non_empty_text()
            .map(HashKey::QueryParameter),
        None => None,
    };
    if key.is_none() {
        object.field().say_key(
            Severity::Error,
            codes::MISSING_FIELD,
            "consistent hashing needs something to hash",
            "add one of `httpHeaderName`, `httpCookie`, `useSourceIp: true`, `httpQueryParameterName`",
        );
    }
    let table = if let Some(field) = object.get("minimumRingSize") {
        field.say_key(
            Severity::Warning,
            codes::DEPRECATED,
            "`minimumRingSize` is deprecated here",
            "write `ringHash: {minimumRingSize: …}`",
        );
        ring(&field)
    } else if let Some(maglev) = object.object("maglev") {
        HashTable::Maglev(maglev.get("tableSize").map_or(65_537, |f| table_size(&f)))
    } else {
        let size = object.object("ringHash").and_then(|o| o.get("minimumRingSize"));
        size.map_or(HashTable::Ring(1024), |f| ring(&f))
    };
    Some(LbAlgorithm::ConsistentHash { key: key?, table })
}

/// Envoy's largest ring has 8 388 608 entries.
fn ring(field: &Field<'_>) -> HashTable {
    let size = field.integer(0..=8_388_608).unwrap_or(0);
    HashTable::Ring(match u64::try_from(size) {
        Ok(size) if size > 0 => size,
        _ => 1024,
    })
}

fn table_size(field: &Field<'_>) -> u64 {
    let Some(size) = field.integer(2..=MAX_MAGLEV) else {
        return 65_537;
    };
    // The largest table has a root below 2 237.
    let prime = (2..2_240).take_while(|d| d * d <= size).all(|d| size % d != 0);
    if !prime {
        field.error(
            codes::OUT_OF_RANGE,
            format!("{size} is not prime"),
            "write 65537, the default",
        );
    }
    u64::try_from(size).unwrap_or(65_537)
}

fn cookie(object: &Object<'_>) -> Option<HashKey> {
    object.unsupported(&["attributes"], "the cookie has its name, path and life only");
    Some(HashKey::Cookie {
        name: object.required("name", "the cookie's name")?.non_empty_text()?,
        path: object.text("path").unwrap_or_default(),
        ttl: object.get("ttl").and_then(|f| f.duration()),
    })
}

fn tls(object: &Object<'_>) -> Option<ClientTls> {
    object.refused(
        &["credentialName"],
        "without it the connection would have no certificate",
    );
    object.refused(&["caCrl"], "without it revoked certificates would be taken");
    let mode_field = object.required("mode", "write `DISABLE`, `SIMPLE`, `MUTUAL` or `ISTIO_MUTUAL`")?;
    let mode = mode_field.choice(&[
        ("DISABLE", ClientTlsMode::Disable),
        ("SIMPLE", ClientTlsMode::Simple),
        ("MUTUAL", ClientTlsMode::Mutual),
        ("ISTIO_MUTUAL", ClientTlsMode::IstioMutual),
    ]);
    let certificate = object.text("clientCertificate").filter(|t| !t.is_empty());
    let key = object.text("privateKey").filter(|t| !t.is_empty());
    let ca = object.text("caCertificates").filter(|t| !t.is_empty());
    let names = object.texts("subjectAltNames");
    let sni = object.text("sni").filter(|t| !t.is_empty());
    let skip_field = object.get("insecureSkipVerify");
    let skip = skip_field.as_ref().and_then(Field::bool).unwrap_or(false);
    if mode == Some(ClientTlsMode::IstioMutual) && (certificate.is_some() || key.is_some() || ca.is_some()) {
        mode_field.error(
            codes::EXCLUSIVE,
            "`ISTIO_MUTUAL` uses the workload's own certificate, yet files are named",
            "take the files out, or write `MUTUAL`",
        );
    }
    if mode == Some(ClientTlsMode::Mutual)
        && !object.has("credentialName")
        && (certificate.is_none() || key.is_none())
    {
        mode_field.error(
            codes::MISSING_FIELD,
            "`MUTUAL` needs `clientCertificate` and `privateKey`",
            "add both, or write `SIMPLE`",
        );
    }
    if let (Some(field), true) = (&skip_field, skip) {
        if ca.is_some() || !names.is_empty() {
            field.error(
                codes::EXCLUSIVE,
                "`insecureSkipVerify` contradicts `caCertificates` and `subjectAltNames`",
                "take `insecureSkipVerify` out",
            );
        } else {
            field.warn(
                codes::INSECURE,
                "any certificate is taken: whoever answers is believed",
                "name the roots in `caCertificates`",
            );
        }
    }
    Some(ClientTls {
        mode: mode?,
        client_certificate: certificate.zip(key),
        ca_certificates: ca,
        subject_alt_names: names,
        sni,
        insecure_skip_verify: skip,
    })
}
