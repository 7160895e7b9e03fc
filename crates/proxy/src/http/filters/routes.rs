//! Routes with what they say about filters, compiled: the most specific word counts, of the weighted cluster, the
//! route, the virtual host, the route configuration.
//!
//! Shape: position of a route → its overrides, nothing at all where no route says anything; an override of a virtual
//! host is one object (one bucket) for all of its routes.

use std::{collections::HashMap, ops::Deref, sync::Arc};

use rajut_ir::{
    cors::Cors,
    decide::{Chosen, ChosenCluster, RouteTable},
    fault::FaultInjection,
    filter::{FilterOverride, FilterOverrides},
    rbac::Rbac,
    route::{RouteActionKind, RouteConfiguration, Target},
};
use rajut_types::Text;

use super::local_rate_limit::Limiter;
use crate::stats::Registry;

/// A compiled route configuration, shared by all workers.
#[derive(Debug)]
pub struct Routes {
    table: RouteTable,
    /// By [`Chosen::route_id`]; empty where nothing is said.
    filters: Vec<RouteFilters>,
}

#[derive(Debug, Default)]
struct RouteFilters {
    own: Vec<(Text, Override)>,
    /// Cluster → what is said with it.
    clusters: HashMap<Text, Vec<(Text, Override)>>,
}

/// What is said about one filter.
#[derive(Debug, Clone)]
pub(super) enum Override {
    /// It does nothing.
    Disabled,
    /// It does what it is configured to.
    Enabled,
    /// Access control by this.
    Rbac(Arc<Rbac>),
    /// This limit.
    LocalRateLimit(Arc<Limiter>),
    /// These faults.
    Fault(Arc<FaultInjection>),
    /// These cross-origin rules, joined with those of less specific places.
    Cors(Arc<Cors>),
}

impl Deref for Routes {
    type Target = RouteTable;

    fn deref(&self) -> &RouteTable {
        &self.table
    }
}

impl Routes {
    /// Compiles.
    pub fn compile(configuration: &Arc<RouteConfiguration>, registry: &Registry) -> Self {
        Self {
            table: RouteTable::compile(configuration),
            filters: compile_filters(configuration, registry),
        }
    }

    /// What the chosen route says about the filter of that name.
    pub(super) fn filter(&self, chosen: &Chosen<'_>, name: &str) -> Option<&Override> {
        let filters = self.filters.get(chosen.route_id)?;
        let of_cluster = match &chosen.cluster {
            ChosenCluster::Weighted(cluster) => filters.clusters.get(&cluster.name),
            ChosenCluster::Named(_) | ChosenCluster::Header(_) | ChosenCluster::None => None,
        };
        let said = of_cluster.unwrap_or(&filters.own);
        said.iter().find(|(known, _)| **known == *name).map(|(_, it)| it)
    }
}

fn compile_filters(configuration: &RouteConfiguration, registry: &Registry) -> Vec<RouteFilters> {
    let of_all = with(&[], &configuration.filters, registry);
    let mut compiled = Vec::new();
    for host in &configuration.virtual_hosts {
        let of_host = with(&of_all, &host.filters, registry);
        for route in &host.routes {
            let own = with(&of_host, &route.filters, registry);
            let mut clusters = HashMap::new();
            if let RouteActionKind::Forward(forward) = &route.action
                && let Target::Weighted(weighted) = &forward.target
            {
                for cluster in weighted.iter().filter(|it| !it.filters.is_empty()) {
                    let said = with(&own, &cluster.filters, registry);
                    clusters.insert(cluster.name.clone(), said);
                }
            }
            compiled.push(RouteFilters { own, clusters });
        }
    }
    if compiled
        .iter()
        .all(|it| it.own.is_empty() && it.clusters.is_empty())
    {
        compiled = Vec::new();
    }
    compiled
}

/// What was said before, and what a more specific place says.
fn with(before: &[(Text, Override)], more: &FilterOverrides, registry: &Registry) -> Vec<(Text, Override)> {
    let mut all = before.to_vec();
    for (name, over) in more {
        let over = match over {
            FilterOverride::Disabled => Override::Disabled,
            FilterOverride::Enabled => Override::Enabled,
            FilterOverride::Rbac(ir) => Override::Rbac(ir.clone()),
            FilterOverride::LocalRateLimit(ir) => {
                Override::LocalRateLimit(Arc::new(Limiter::new(ir.clone(), registry)))
            }
            FilterOverride::Fault(ir) => Override::Fault(ir.clone()),
            FilterOverride::Cors(ir) => Override::Cors(ir.clone()),
        };
        match (all.iter_mut().find(|(known, _)| known == name), over) {
            // A configuration that is there stays when the filter is only switched on.
            (Some((_, known)), Override::Enabled) if !matches!(known, Override::Disabled) => {}
            (Some((_, Override::Cors(less))), Override::Cors(more)) => *less = Arc::new(more.over(less)),
            (Some((_, known)), over) => *known = over,
            (None, over) => all.push((name.clone(), over)),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use rajut_ir::{
        decide::{Decision, RequestView, decide},
        http::RouteSource,
        listener::ChainAction,
        wire::bootstrap::parse_bootstrap,
    };

    use super::*;

    const RBAC: &str = "envoy.filters.http.rbac";
    const CONFIG: &str = r#"
node: { id: n, cluster: c }
static_resources:
  listeners:
  - name: l
    address: { socket_address: { address: 127.0.0.1, port_value: 1 } }
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: s
          http_filters:
          - name: envoy.filters.http.router
            typed_config: { "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }
          route_config:
            name: r
            virtual_hosts:
            - name: guarded
              domains: [guarded]
              typed_per_filter_config:
                envoy.filters.http.rbac:
                  "@type": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBACPerRoute
                  rbac: { rules: { action: DENY } }
              routes:
              - match: { path: /off }
                direct_response: { status: 200 }
                typed_per_filter_config:
                  envoy.filters.http.rbac: { "@type": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBACPerRoute }
              - match: { path: /on }
                direct_response: { status: 200 }
                typed_per_filter_config:
                  envoy.filters.http.rbac: { "@type": type.googleapis.com/envoy.config.route.v3.FilterConfig }
              - match: { path: /weighted }
                route:
                  weighted_clusters:
                    clusters:
                    - name: open
                      weight: 1
                      typed_per_filter_config:
                        envoy.filters.http.rbac: { "@type": type.googleapis.com/envoy.config.route.v3.FilterConfig, disabled: true }
              - match: { prefix: / }
                direct_response: { status: 200 }
            - name: plain
              domains: ["*"]
              routes: [{ match: { prefix: / }, direct_response: { status: 200 } }]
"#;

    struct Ask(&'static str, &'static str);

    impl RequestView for Ask {
        fn method(&self) -> &[u8] {
            b"GET"
        }
        fn scheme(&self) -> &[u8] {
            b"http"
        }
        fn authority(&self) -> &[u8] {
            self.0.as_bytes()
        }
        fn path(&self) -> &[u8] {
            self.1.as_bytes()
        }
        fn header(&self, _: &str) -> Option<std::borrow::Cow<'_, [u8]>> {
            None
        }
    }

    #[test]
    fn the_most_specific_word_counts_and_switching_on_keeps_the_configuration() {
        let bootstrap = parse_bootstrap(CONFIG).unwrap_or_else(|errors| panic!("{errors}"));
        let listener = bootstrap.resources.listeners.values().next().unwrap();
        let ChainAction::Http(manager) = &listener.filter_chains[0].action else {
            panic!("an HTTP chain");
        };
        let RouteSource::Inline(routes) = &manager.routes else {
            panic!("routes in place");
        };
        let routes = Routes::compile(routes, &Registry::new(1));
        let said = |host, path| {
            let Decision::Route(chosen) = decide(&routes, &Ask(host, path), 0) else {
                panic!("a route");
            };
            match routes.filter(&chosen, RBAC) {
                None => "nothing",
                Some(Override::Disabled) => "off",
                Some(Override::Enabled) => "on",
                Some(Override::Rbac(_)) => "own rules",
                Some(Override::LocalRateLimit(_)) => "a limit",
                Some(Override::Fault(_)) => "faults",
                Some(Override::Cors(_)) => "origins",
            }
        };
        assert_eq!(said("guarded", "/off"), "off");
        assert_eq!(said("guarded", "/on"), "own rules");
        assert_eq!(said("guarded", "/weighted"), "off");
        assert_eq!(said("guarded", "/else"), "own rules");
        assert_eq!(said("plain", "/"), "nothing");
    }
}
