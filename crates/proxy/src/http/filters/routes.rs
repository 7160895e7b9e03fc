//! Routes with what they say about filters, compiled: the most specific word counts, of the weighted cluster, the
//! route, the virtual host, the route configuration.
//!
//! Shape: position of a route → its overrides, nothing at all where no route says anything; an override of a virtual
//! host is one object (one bucket) for all of its routes.

use std::{collections::HashMap, ops::Deref, sync::Arc};

use rajut_ir::{
    decide::{Chosen, ChosenCluster, RouteTable},
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
        };
        match all.iter_mut().find(|(known, _)| known == name) {
            // A configuration that is there stays when the filter is only switched on.
            Some((_, Override::Rbac(_) | Override::LocalRateLimit(_)))
                if matches!(over, Override::Enabled) => {}
            Some((_, known)) => *known = over,
            None => all.push((name.clone(), over)),
        }
    }
    all
}
