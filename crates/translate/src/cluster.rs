//! Outbound clusters, and the three that every sidecar has.
//!
//! [`ClusterView`] is the key and the whole input: a changed endpoint changes no cluster, unless an identity came or went.

use rajut_config::{
    model::{
        DestinationRule, HashTable, HealthQuestion as Asked, LbAlgorithm, LocalitySetting, MeshConfig,
        Protocol, Resolution, Service, ServicePort, SubsetRule,
    },
    snapshot::{ServiceView, Shared},
};
use rajut_ir::cluster::{
    CircuitBreakers, Cluster, Discovery, DnsSettings, HealthCheck, HealthQuestion, Http1Options,
    Http2Options, LbPolicy, OutlierDetection, RetryBudget, ServiceRef, TcpKeepalive, TlsMatch, UpstreamBind,
    UpstreamProtocol,
};
use rajut_ir::endpoint::LoadAssignment;
use rajut_types::{Labels, Origin, Percent, Principal, Text};

use crate::{
    assignment, names,
    policy::{Effective, IDLE_DEFAULT},
    preference::{self, Preference},
    tls::{self, Payload},
};

/// The label of endpoints that speak the mesh's mTLS, and its value.
pub(crate) const TLS_MODE: (&str, &str) = ("tlsMode", "istio");

/// Everything that one outbound cluster is made from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct ClusterView {
    mesh: Shared<MeshConfig>,
    service: Shared<Service>,
    rule: Option<Shared<DestinationRule>>,
    principals: Shared<[Principal]>,
    /// Whether mTLS is spoken where no endpoint says so (original destination): some workload is of the mesh.
    speaks_mtls: bool,
    port: u16,
    subset: Option<Text>,
    /// What the client's place means, where the endpoints stand in the cluster.
    preference: Preference,
    /// The dialled address is known (redirected traffic), so services without virtual addresses are sent there.
    redirected: bool,
}

impl ClusterView {
    pub(crate) fn new(
        mesh: &Shared<MeshConfig>,
        view: &ServiceView,
        port: u16,
        subset: Option<&SubsetRule>,
        preference: &Preference,
        redirected: bool,
    ) -> Self {
        let by_name = matches!(
            view.service.resolution,
            Resolution::Dns | Resolution::DnsRoundRobin
        );
        let by_destination = is_original_destination(&view.service, redirected);
        Self {
            mesh: mesh.clone(),
            service: view.service.clone(),
            rule: view.rule.clone(),
            principals: Shared::from(&view.members.principals),
            speaks_mtls: by_destination && view.members.list.iter().any(|member| member.workload.mesh),
            port,
            subset: subset.map(|subset| subset.name.clone()),
            preference: if by_name {
                preference.clone()
            } else {
                Preference::None
            },
            redirected,
        }
    }

    fn port(&self) -> Option<&ServicePort> {
        self.service.port(self.port)
    }

    fn subset(&self) -> Option<&SubsetRule> {
        let name = self.subset.as_ref()?;
        self.rule
            .as_ref()?
            .subsets
            .iter()
            .find(|subset| subset.name == *name)
    }

    fn subset_name(&self) -> &str {
        self.subset.as_deref().unwrap_or_default()
    }
}

/// Whether connections go to the address that the client dialled: services without an own address, or `NONE`.
pub(crate) fn is_original_destination(service: &Service, redirected: bool) -> bool {
    redirected && (service.headless || service.resolution == Resolution::None)
}

/// How an endpoint of the cluster is found and chosen.
pub(crate) fn uses_eds(service: &Service, algorithm: &LbAlgorithm, redirected: bool) -> bool {
    let by_destination = is_original_destination(service, redirected)
        || (redirected && *algorithm == LbAlgorithm::Passthrough);
    !by_destination && matches!(service.resolution, Resolution::Static | Resolution::None)
}

/// The cluster of a view; `None` where the service has no such port.
pub(crate) fn outbound(view: &ClusterView) -> Option<Cluster> {
    let port = view.port()?;
    let service = &*view.service;
    let subset = view.subset();
    let policy = Effective::new(&view.mesh, view.rule.as_deref(), subset, view.port);
    let name = names::outbound_cluster(view.port, view.subset_name(), &service.host);
    let protocol = upstream_protocol(port.protocol, &policy, &view.mesh);
    let algorithm = policy.algorithm();
    let discovery = discovery(view, port, &algorithm, &name);
    let (tls, tls_matches) = transport(view, &policy, payload(port.protocol, &protocol), &discovery);
    let lb_policy = if matches!(discovery, Discovery::OriginalDst) {
        LbPolicy::ClusterProvided
    } else {
        lb_policy(&algorithm)
    };
    let health_check = view
        .rule
        .as_ref()
        .and_then(|rule| rule.health_check.as_ref())
        .filter(|_| !matches!(discovery, Discovery::OriginalDst))
        .and_then(|check| health_check(check, port.protocol, &protocol, &service.host.text()));
    let by_dns = matches!(discovery, Discovery::StrictDns(_) | Discovery::LogicalDns(_));
    let pool = &policy.pool;
    let origin = subset.map(|subset| subset.origin.clone());
    Some(Cluster {
        alt_stat_name: Text::default(),
        discovery,
        connect_timeout: pool.connect_timeout.unwrap_or(view.mesh.connect_timeout),
        lb_policy,
        panic_threshold: policy
            .outlier
            .as_ref()
            .map_or(Percent::default(), |outlier| outlier.min_health_percent),
        locality_weighted: matches!(
            preference::setting(&view.mesh, service, &policy),
            LocalitySetting::Distribute(_)
        ),
        circuit_breakers: circuit_breakers(&policy),
        outlier_detection: policy.outlier.as_ref().map(outlier_detection),
        health_check,
        tls,
        tls_matches,
        protocol,
        idle_timeout: Some(
            pool.http_idle_timeout
                .or(pool.tcp_idle_timeout)
                .unwrap_or(IDLE_DEFAULT),
        ),
        max_requests_per_connection: pool.max_requests_per_connection,
        max_connection_duration: pool.max_connection_duration,
        tcp_keepalive: pool.tcp_keepalive.map(|(probes, time, interval)| TcpKeepalive {
            probes,
            time,
            interval,
        }),
        bind: None,
        per_connection_buffer_limit: None,
        close_connections_on_host_health_failure: false,
        dns: DnsSettings {
            respect_ttl: by_dns,
            ..DnsSettings::default()
        },
        service: Some(ServiceRef {
            host: service.host.text(),
            name: service.name.clone(),
            namespace: service.namespace.clone(),
        }),
        origin: origin.unwrap_or_else(|| port.origin.clone()),
        name,
    })
}

fn discovery(view: &ClusterView, port: &ServicePort, algorithm: &LbAlgorithm, name: &Text) -> Discovery {
    let service = &*view.service;
    let by_destination = is_original_destination(service, view.redirected)
        || (view.redirected && *algorithm == LbAlgorithm::Passthrough);
    if by_destination {
        return Discovery::OriginalDst;
    }
    let by_name = || assignment::by_name(service, port, view.subset(), &view.preference, name);
    match service.resolution {
        Resolution::Static | Resolution::None => Discovery::Eds {
            service_name: name.clone(),
        },
        Resolution::Dns => Discovery::StrictDns(by_name()),
        Resolution::DnsRoundRobin => Discovery::LogicalDns(by_name()),
    }
}

/// What mesh TLS of this cluster will carry.
fn payload(declared: Protocol, upstream: &UpstreamProtocol) -> Payload {
    match (declared, upstream) {
        (Protocol::Tcp | Protocol::Tls | Protocol::Https | Protocol::Udp, _) => Payload::Tcp,
        // A detected port carries bytes too, whatever HTTP version its requests are upgraded to.
        (Protocol::Detect, _) | (_, UpstreamProtocol::UseDownstream(..) | UpstreamProtocol::Auto(..)) => {
            Payload::Any
        }
        (_, UpstreamProtocol::Http1(_)) => Payload::Http1,
        (_, UpstreamProtocol::Http2(_)) => Payload::Http2,
    }
}

/// TLS of a cluster: the rule's where it has one, else by endpoint (auto mTLS), else none.
fn transport(
    view: &ClusterView,
    policy: &Effective,
    payload: Payload,
    discovery: &Discovery,
) -> (Option<rajut_ir::tls::UpstreamTls>, Vec<TlsMatch>) {
    let service = &*view.service;
    let sans = tls::expected_identities(&view.mesh, &view.principals);
    let sni = names::mesh_sni(view.port, view.subset_name(), &service.host);
    if let Some(rule) = &policy.tls {
        let tls = tls::from_rule(rule, sans, sni, &service.subject_alt_names, payload);
        return (tls, Vec::new());
    }
    if !view.mesh.auto_mtls || service.external {
        return (None, Vec::new());
    }
    let mesh = tls::mesh_client(sans, sni, payload);
    if matches!(discovery, Discovery::OriginalDst) {
        // No endpoint carries a label there: all or nothing, as in Istio.
        return (view.speaks_mtls.then_some(mesh), Vec::new());
    }
    let matches = vec![
        TlsMatch {
            name: "tlsMode-istio".into(),
            labels: [TLS_MODE].into_iter().collect(),
            tls: Some(mesh),
        },
        TlsMatch {
            name: "tlsMode-disabled".into(),
            labels: Labels::default(),
            tls: None,
        },
    ];
    (None, matches)
}

fn lb_policy(algorithm: &LbAlgorithm) -> LbPolicy {
    match algorithm {
        // Without redirection nobody dialled an address that could be kept.
        LbAlgorithm::LeastRequest | LbAlgorithm::Passthrough => LbPolicy::LeastRequest { choices: 2 },
        LbAlgorithm::RoundRobin => LbPolicy::RoundRobin,
        LbAlgorithm::Random => LbPolicy::Random,
        LbAlgorithm::ConsistentHash { table, .. } => match table {
            HashTable::Ring(minimum) => LbPolicy::RingHash {
                minimum_ring_size: *minimum,
            },
            HashTable::Maglev(size) => LbPolicy::Maglev { table_size: *size },
        },
    }
}

/// Limits, none of which exists unless somebody wrote it.
pub(crate) fn circuit_breakers(policy: &Effective) -> CircuitBreakers {
    let pool = &policy.pool;
    let or_unlimited = |limit: Option<u32>| limit.unwrap_or(u32::MAX);
    CircuitBreakers {
        max_connections: or_unlimited(pool.max_connections),
        max_pending_requests: or_unlimited(pool.http1_max_pending_requests),
        max_requests: or_unlimited(pool.http2_max_requests),
        max_retries: or_unlimited(pool.max_retries),
        retry_budget: policy.retry_budget.map(|(percent, min_concurrency)| RetryBudget {
            percent,
            min_concurrency,
        }),
    }
}

fn outlier_detection(outlier: &rajut_config::model::OutlierDetection) -> OutlierDetection {
    /// Envoy's upper bound of an ejection.
    const MAX_EJECTION: std::time::Duration = std::time::Duration::from_mins(5);
    OutlierDetection {
        consecutive_5xx: outlier.consecutive_5xx,
        consecutive_gateway_failure: outlier.consecutive_gateway,
        consecutive_local_origin_failure: outlier.consecutive_local_origin,
        split_external_local_origin_errors: outlier.split_local_origin,
        interval: outlier.interval,
        base_ejection_time: outlier.base_ejection_time,
        max_ejection_time: MAX_EJECTION.max(outlier.base_ejection_time),
        max_ejection_percent: outlier.max_ejection_percent,
        error_statuses: outlier.error_statuses.clone(),
    }
}

/// The check of a port's endpoints; `None` where the port does not speak what is asked.
fn health_check(
    check: &rajut_config::model::HealthCheck,
    declared: Protocol,
    upstream: &UpstreamProtocol,
    host: &Text,
) -> Option<HealthCheck> {
    // All that an answer may be but what is expected: it counts towards the threshold, as no answer does.
    let any_status = std::iter::once(100..600).collect();
    let question = match &check.question {
        Asked::Tcp if declared != Protocol::Udp => HealthQuestion::Tcp,
        Asked::Grpc { service } if matches!(declared, Protocol::Grpc | Protocol::Http2) => {
            HealthQuestion::Grpc {
                service: service.clone(),
                authority: host.clone(),
            }
        }
        Asked::Http { path, statuses }
            if !matches!(
                declared,
                Protocol::Tcp | Protocol::Udp | Protocol::Tls | Protocol::Https
            ) =>
        {
            HealthQuestion::Http {
                host: host.clone(),
                path: path.clone(),
                http2: matches!(upstream, UpstreamProtocol::Http2(_)),
                expected: statuses.iter().map(|(from, to)| *from..to + 1).collect(),
                retriable: any_status,
            }
        }
        Asked::Tcp | Asked::Grpc { .. } | Asked::Http { .. } => return None,
    };
    Some(HealthCheck {
        timeout: check.timeout,
        interval: check.interval,
        // So that the clients of an endpoint do not ask in step.
        interval_jitter: check.interval / 10,
        unhealthy_threshold: check.unhealthy_threshold,
        healthy_threshold: check.healthy_threshold,
        question,
    })
}

fn upstream_protocol(declared: Protocol, policy: &Effective, mesh: &MeshConfig) -> UpstreamProtocol {
    let pool = &policy.pool;
    let http1 = Http1Options {
        enable_trailers: true,
        ..Http1Options::default()
    };
    let http2 = Http2Options {
        max_concurrent_streams: pool.max_concurrent_streams,
        // A WebSocket crosses an upgraded hop as an extended CONNECT.
        allow_connect: true,
        keepalive: pool.http2_keepalive,
        ..Http2Options::default()
    };
    let upgrade = pool.h2_upgrade.unwrap_or(mesh.h2_upgrade);
    match declared {
        Protocol::Http2 | Protocol::Grpc => UpstreamProtocol::Http2(http2),
        Protocol::Tcp | Protocol::Udp | Protocol::Tls | Protocol::Https => UpstreamProtocol::Http1(http1),
        _ if pool.use_client_protocol => UpstreamProtocol::UseDownstream(http1, http2),
        Protocol::Http | Protocol::Detect if upgrade => UpstreamProtocol::Http2(http2),
        Protocol::Detect => UpstreamProtocol::UseDownstream(http1, http2),
        Protocol::Http | Protocol::GrpcWeb => UpstreamProtocol::Http1(http1),
    }
}

/// A cluster with nothing but a name and a way to find endpoints.
pub(crate) fn plain(name: Text, discovery: Discovery, mesh: &MeshConfig, origin: Origin) -> Cluster {
    let lb_policy = if matches!(discovery, Discovery::OriginalDst) {
        LbPolicy::ClusterProvided
    } else {
        LbPolicy::LeastRequest { choices: 2 }
    };
    Cluster {
        name,
        alt_stat_name: Text::default(),
        discovery,
        connect_timeout: mesh.connect_timeout,
        lb_policy,
        panic_threshold: Percent::default(),
        locality_weighted: false,
        circuit_breakers: CircuitBreakers::UNLIMITED,
        outlier_detection: None,
        health_check: None,
        tls: None,
        tls_matches: Vec::new(),
        protocol: UpstreamProtocol::UseDownstream(
            Http1Options {
                enable_trailers: true,
                ..Http1Options::default()
            },
            Http2Options {
                allow_connect: true,
                ..Http2Options::default()
            },
        ),
        idle_timeout: Some(IDLE_DEFAULT),
        max_requests_per_connection: None,
        max_connection_duration: None,
        tcp_keepalive: None,
        bind: None,
        per_connection_buffer_limit: None,
        close_connections_on_host_health_failure: false,
        dns: DnsSettings::default(),
        service: None,
        origin,
    }
}

/// Where unknown destinations go.
pub(crate) fn passthrough(mesh: &MeshConfig) -> Cluster {
    let origin = Origin::built_in("outbound-traffic-policy");
    plain(names::PASSTHROUGH.into(), Discovery::OriginalDst, mesh, origin)
}

/// Where nothing comes out again.
pub(crate) fn black_hole(mesh: &MeshConfig) -> Cluster {
    let nothing = LoadAssignment {
        cluster_name: names::BLACK_HOLE.into(),
        localities: Vec::new(),
        overprovisioning_percent: None,
    };
    let origin = Origin::built_in("outbound-traffic-policy");
    plain(names::BLACK_HOLE.into(), Discovery::Static(nothing), mesh, origin)
}

/// Connections to the workload's ports that no service names, from the address that marks them as seen.
pub(crate) fn inbound_passthrough(mesh: &MeshConfig) -> Cluster {
    let origin = Origin::built_in("inbound-passthrough");
    Cluster {
        bind: Some(UpstreamBind {
            source: Some(crate::inbound::INBOUND_SOURCE),
            netns: None,
        }),
        ..plain(
            names::INBOUND_PASSTHROUGH.into(),
            Discovery::OriginalDst,
            mesh,
            origin,
        )
    }
}
