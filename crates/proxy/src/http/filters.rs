//! Step 6 of walk one: the HTTP filters of a listener, in its order. The request has its route by then; the router
//! follows.
//!
//! A [`Chain`] is compiled with its connection manager and shared by all workers; what routes say about filters is
//! compiled with the routes ([`Routes`]) and found by the position of the chosen route. There is one place where
//! requests meet the filters ([`Chain::on_request`]) and one where responses do ([`Chain::on_response`]); what a filter
//! must remember in between is in the request's record ([`State`]).
//!
//! A filter is a variant of an enum, never a trait object; passing one allocates nothing. A refusal is a
//! [`Failure`], answered like every other (`failure.rs`, `reply.rs`).
//!
//! Does not: wait. A filter that asks somebody else makes [`Chain::on_request`] asynchronous; its caller is.

pub(crate) mod local_rate_limit;
pub(crate) mod rbac;
mod routes;

pub use routes::Routes;

use std::sync::Arc;

use rajut_ir::{
    decide::Chosen,
    filter::{HttpFilter, HttpFilterKind},
};
use rajut_types::Text;

use self::{local_rate_limit::Limiter, routes::Override};
use super::record::Record;
use crate::{failure::Failure, stats::Registry};

/// The filters of a connection manager but the router, in the listener's order.
#[derive(Debug, Default)]
pub struct Chain {
    filters: Box<[Filter]>,
}

#[derive(Debug)]
struct Filter {
    name: Text,
    /// It does nothing unless a route says so.
    disabled: bool,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Rbac(rbac::Access),
    LocalRateLimit(Arc<Limiter>),
}

/// What filters remember of a request until its response.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// The limit that the response tells (`x-ratelimit-*`).
    pub(crate) limit: Option<local_rate_limit::Telling>,
    /// The limit that refused the request, for the headers of the refusal.
    pub(crate) refused_by: Option<Arc<Limiter>>,
}

impl Chain {
    /// Compiles. `prefix` is the connection manager's prefix of statistics.
    pub(crate) fn compile(filters: &[HttpFilter], prefix: &Text, registry: &Registry) -> Self {
        let filters = filters.iter().filter_map(|filter| {
            let kind = match &filter.kind {
                HttpFilterKind::Rbac(ir) => Kind::Rbac(rbac::Access::new(ir, prefix, registry)),
                HttpFilterKind::LocalRateLimit(ir) => {
                    Kind::LocalRateLimit(Arc::new(Limiter::new(ir.clone(), registry)))
                }
                // It only looks on: the request's record does it.
                HttpFilterKind::IstioStats(_) | HttpFilterKind::Router(_) => return None,
            };
            Some(Filter {
                name: filter.name.clone(),
                disabled: filter.disabled,
                kind,
            })
        });
        Self {
            filters: filters.collect(),
        }
    }

    /// Lets a request pass, or says why not. `chosen` is its route, if it has one.
    pub(crate) fn on_request(
        &self,
        record: &mut Record,
        routes: Option<&Routes>,
        chosen: Option<&Chosen<'_>>,
    ) -> Result<(), Failure> {
        for filter in &self.filters {
            let over = routes
                .zip(chosen)
                .and_then(|(routes, chosen)| routes.filter(chosen, &filter.name));
            if matches!(over, Some(Override::Disabled)) || (filter.disabled && over.is_none()) {
                continue;
            }
            match (&filter.kind, over) {
                (Kind::Rbac(access), Some(Override::Rbac(ir))) => access.judge(ir, record)?,
                (Kind::Rbac(access), _) => access.judge(access.ir(), record)?,
                (Kind::LocalRateLimit(_), Some(Override::LocalRateLimit(limiter)))
                | (Kind::LocalRateLimit(limiter), _) => local_rate_limit::take(limiter, record, chosen)?,
            }
        }
        Ok(())
    }

    /// What filters add to a response, whoever made it.
    pub(crate) fn on_response(record: &mut Record) {
        if record.filters.limit.is_some() || record.filters.refused_by.is_some() {
            local_rate_limit::tell(record);
        }
    }
}
