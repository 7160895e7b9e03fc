//! Tracing as connection managers carry it: sampling, attributes, where spans go.
//!
//! Source: Istio `tracing.go`. Spans say whose they are (`service.name`, `istio.*`), so that proxies share their outbound half
//! only with those of the same service and revision where something is traced ([`Teller`]).

use std::sync::Arc;

use rajut_config::{
    Snapshot,
    model::{MeshConfig, Observed, SpanTag, Traced, canonical_revision, canonical_service},
};
use rajut_ir::{
    http::HttpConnectionManager,
    listener::{ChainAction, Direction, FilterChain, Listener},
    tracing::{CustomTag, OpenTelemetry, TagValue, Tracing},
};
use rajut_types::{Percent, Text};

use crate::{
    names,
    proxy::{Proxy, Role},
};

/// What stands in for a value that may not be shown.
const REDACTED: &str = "[redacted]";

/// Who tells of calls, as its spans say it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Teller {
    service: Text,
    revision: Text,
    namespace: Text,
}

impl Teller {
    /// Of a proxy; `None` where nothing in the mesh is traced.
    pub(crate) fn of(snapshot: &Snapshot, proxy: &Proxy) -> Option<Self> {
        if !snapshot.traces_anything() || proxy.role == Role::Grpc {
            return None;
        }
        let key = (proxy.namespace.clone(), proxy.workload.clone());
        let known = snapshot.workloads.get(&key);
        let name = match known {
            Some(workload) => &workload.deployment,
            None if proxy.workload.is_empty() => &proxy.id,
            None => &proxy.workload,
        };
        let labels = known.map_or(&proxy.labels, |workload| &workload.labels);
        Some(Self {
            service: canonical_service(labels, name).into(),
            revision: canonical_revision(labels).into(),
            namespace: proxy.namespace.clone(),
        })
    }
}

/// The listener with the tracing of its end.
pub(crate) fn observe(
    listener: &Arc<Listener>,
    observed: &Observed,
    teller: Option<&Teller>,
    mesh: &MeshConfig,
) -> Arc<Listener> {
    let traced = match listener.direction {
        Direction::Inbound => &observed.server_traces,
        Direction::Outbound | Direction::Unspecified => &observed.client_traces,
    };
    let Some((traced, teller)) = traced.as_ref().zip(teller) else {
        return Arc::clone(listener);
    };
    let tracing = tracing(traced, teller, mesh);
    Arc::new(Listener {
        filter_chains: listener
            .filter_chains
            .iter()
            .map(|chain| with(chain, &tracing))
            .collect(),
        default_filter_chain: listener
            .default_filter_chain
            .as_ref()
            .map(|chain| with(chain, &tracing)),
        ..(**listener).clone()
    })
}

fn with(chain: &Arc<FilterChain>, tracing: &Tracing) -> Arc<FilterChain> {
    let ChainAction::Http(manager) = &chain.action else {
        return Arc::clone(chain);
    };
    let manager = HttpConnectionManager {
        tracing: Some(tracing.clone()),
        ..(**manager).clone()
    };
    Arc::new(FilterChain {
        action: ChainAction::Http(Arc::new(manager)),
        ..(**chain).clone()
    })
}

fn tracing(traced: &Traced, teller: &Teller, mesh: &MeshConfig) -> Tracing {
    let literal = |tag: &str, value: &str| CustomTag {
        tag: tag.into(),
        value: TagValue::Literal(value.into()),
    };
    let mut tags = Vec::new();
    if traced.has_istio_tags {
        tags.extend([
            literal("istio.canonical_revision", &teller.revision),
            literal("istio.canonical_service", &teller.service),
            literal("istio.mesh_id", mesh.trust_domain.as_str()),
            literal("istio.namespace", &teller.namespace),
        ]);
    }
    if !mesh.redaction.query.is_empty() {
        // The address has the whole query, in our spans as in Envoy's.
        tags.push(literal("http.url", REDACTED));
    }
    tags.extend(traced.tags.iter().map(|(name, value)| match value {
        SpanTag::Literal(value) => literal(name, value),
        SpanTag::Header { name: header, .. } if mesh.redaction.hides(header) => literal(name, REDACTED),
        SpanTag::Header {
            name: header,
            default,
        } => CustomTag {
            tag: name.clone(),
            value: TagValue::RequestHeader {
                name: header.clone(),
                default: default.clone(),
            },
        },
    }));
    let collector = &traced.collector;
    Tracing {
        client: Percent::ALL,
        random: traced.sampling,
        overall: Percent::ALL,
        max_path_length: traced.max_path_length,
        tags,
        provider: Some(OpenTelemetry {
            cluster: names::outbound_cluster(collector.port, "", &collector.host),
            authority: collector.host.as_str().into(),
            timeout: collector.timeout,
            service_name: format!("{}.{}", teller.service, teller.namespace).into(),
        }),
    }
}
