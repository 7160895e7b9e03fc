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
//! Does not: wait. Where a request has to, [`Passed::Wait`] says how long and [`Passed::Ask`] for whose answer, and where it goes
//! on.

mod cors;
pub(crate) mod ext_authz;
mod fault;
pub(crate) mod jwt_authn;
pub(crate) mod local_rate_limit;
pub(crate) mod rbac;
mod routes;

pub use routes::Routes;

use std::{sync::Arc, time::Duration};

use rajut_codec::Fields;
use rajut_ir::{
    decide::Chosen,
    filter::{HttpFilter, HttpFilterKind},
    rbac::Rbac,
};
use rajut_types::{Percent, Text};

use self::{local_rate_limit::Limiter, routes::Override};
use super::record::Record;
use crate::{
    failure::Failure,
    stats::{LateStats, Registry},
};

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
    Jwt(jwt_authn::Guard),
    Rbac(rbac::Access),
    ExtAuthz(Arc<ext_authz::Asker>),
    LocalRateLimit(Arc<Limiter>),
    Fault(fault::Injector),
    Cors(LateStats),
}

/// What became of a request at the filters.
#[derive(Debug)]
pub(crate) enum Passed {
    /// All let it pass.
    All,
    /// It waits before it goes on.
    Wait(Wait),
    /// Somebody else is asked whether it goes on, at the filter after the one of that position.
    Ask(Arc<ext_authz::Asker>, Resume),
    /// It gets its route anew, and goes on there.
    Reroute(Resume),
    /// One has answered it: 200 with these fields.
    Preflight(Fields),
}

/// A wait at a filter.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wait {
    /// How long.
    pub(crate) pause: Duration,
    /// At which filter.
    pub(crate) at: usize,
}

/// Where a request goes on.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Resume {
    /// At which filter.
    at: usize,
    /// It has waited at that filter.
    waited: bool,
}

impl Resume {
    /// After a wait.
    pub(crate) const fn after(wait: Wait) -> Self {
        Self {
            at: wait.at,
            waited: true,
        }
    }
}

/// A shadow policy that applies to a request.
#[derive(Debug)]
pub(crate) struct Noted {
    ir: Arc<Rbac>,
    /// Position of the policy among the shadow rules.
    policy: usize,
}

impl Noted {
    /// The prefix of the shadow rules.
    pub(crate) fn prefix(&self) -> &str {
        &self.ir.shadow_stat_prefix
    }

    /// The policy's name.
    pub(crate) fn policy(&self) -> &str {
        let policies = self.ir.shadow.as_ref().map_or(&[][..], |rules| rules.policies());
        policies.get(self.policy).map_or("", |(name, _)| name)
    }
}

/// What filters remember of a request until its response.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// The limit that the response tells (`x-ratelimit-*`).
    pub(crate) limit: Option<local_rate_limit::Telling>,
    /// The limit that refused the request, for the headers of the refusal.
    pub(crate) refused_by: Option<Arc<Limiter>>,
    /// What verified tokens say.
    pub(crate) told: jwt_authn::Told,
    /// Shadow policies that apply to it, one for each filter of access control that has some.
    pub(crate) noted: Vec<Noted>,
    /// What a provider that has allowed it wants the client to know.
    pub(crate) authorized: Option<Box<ext_authz::Edits>>,
    /// It counts among the requests that have a fault.
    fault: Option<fault::Active>,
    /// What a page of an allowed origin is told.
    cors: Option<Box<cors::Allowed>>,
}

impl Chain {
    /// Compiles. `prefix` is the connection manager's prefix of statistics.
    pub(crate) fn compile(filters: &[HttpFilter], prefix: &Text, registry: &Registry) -> Self {
        let filters = filters.iter().filter_map(|filter| {
            let kind = match &filter.kind {
                HttpFilterKind::JwtAuthn(ir) => Kind::Jwt(jwt_authn::Guard::new(ir, prefix, registry)),
                HttpFilterKind::Rbac(ir) => Kind::Rbac(rbac::Access::new(ir, prefix, registry)),
                HttpFilterKind::ExtAuthz(ir) => {
                    Kind::ExtAuthz(Arc::new(ext_authz::Asker::new(ir, prefix, registry)))
                }
                HttpFilterKind::LocalRateLimit(ir) => {
                    Kind::LocalRateLimit(Arc::new(Limiter::new(ir.clone(), registry)))
                }
                HttpFilterKind::Fault(ir) => {
                    Kind::Fault(fault::Injector::new(ir.clone(), registry.on_routes(prefix)))
                }
                HttpFilterKind::Cors => Kind::Cors(registry.on_routes(prefix)),
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

    /// Lets a request pass, or says why not. `chosen` is its route, if it has one; `resume` is where it goes on.
    pub(crate) fn on_request(
        &self,
        record: &mut Record,
        routes: Option<&Routes>,
        chosen: Option<&Chosen<'_>>,
        resume: Resume,
    ) -> Result<Passed, Failure> {
        let first = resume.at;
        for (at, filter) in self.filters.iter().enumerate().skip(first) {
            let over = routes
                .zip(chosen)
                .and_then(|(routes, chosen)| routes.filter(chosen, &filter.name));
            if matches!(over, Some(Override::Disabled)) || (filter.disabled && over.is_none()) {
                continue;
            }
            match (&filter.kind, over) {
                (Kind::Jwt(guard), _) => {
                    if guard.judge(record)? {
                        return Ok(Passed::Reroute(Resume {
                            at: at + 1,
                            waited: false,
                        }));
                    }
                }
                (Kind::ExtAuthz(asker), _) => {
                    if asker.means(record) {
                        let resume = Resume {
                            at: at + 1,
                            waited: false,
                        };
                        return Ok(Passed::Ask(asker.clone(), resume));
                    }
                }
                (Kind::Rbac(access), Some(Override::Rbac(ir))) => access.judge(ir, record)?,
                (Kind::Rbac(access), _) => access.judge(access.ir(), record)?,
                (Kind::LocalRateLimit(_), Some(Override::LocalRateLimit(limiter)))
                | (Kind::LocalRateLimit(limiter), _) => local_rate_limit::take(limiter, record, chosen)?,
                (Kind::Fault(injector), over) => {
                    let ir = match over {
                        Some(Override::Fault(ir)) => ir,
                        _ => injector.ir(),
                    };
                    let has_waited = resume.waited && at == first;
                    if let Some(pause) = injector.inject(ir, record, chosen, has_waited)? {
                        return Ok(Passed::Wait(Wait { pause, at }));
                    }
                }
                (Kind::Cors(stats), Some(Override::Cors(policy))) => {
                    let answer = chosen.and_then(|chosen| cors::on_request(stats, policy, record, chosen));
                    if let Some(fields) = answer {
                        return Ok(Passed::Preflight(fields));
                    }
                }
                // The filter itself has no rules.
                (Kind::Cors(_), _) => {}
            }
        }
        Ok(Passed::All)
    }

    /// Whether one of them looks at tokens.
    pub(crate) fn looks_at_tokens(&self) -> bool {
        let is_on = |filter: &Filter| !filter.disabled && matches!(filter.kind, Kind::Jwt(_));
        self.filters.iter().any(is_on)
    }

    /// Why the listener's access control refuses a request that it has let pass before, if it does now.
    pub(crate) fn refusal(&self, record: &Record) -> Option<Text> {
        let mut controls = self.filters.iter().filter(|filter| !filter.disabled);
        controls.find_map(|filter| match &filter.kind {
            Kind::Rbac(access) => access.refusal(record),
            _ => None,
        })
    }

    /// What filters add to a response, whoever made it.
    pub(crate) fn on_response(record: &mut Record) {
        if record.filters.limit.is_some() || record.filters.refused_by.is_some() {
            local_rate_limit::tell(record);
        }
        if record.filters.cors.is_some() {
            cors::tell(record);
        }
        if record.filters.authorized.is_some() {
            ext_authz::tell(record);
        }
    }
}

/// Whether this request is one of a share.
fn drawn(share: Percent, record: &Record) -> bool {
    share == Percent::ALL || (share != Percent::NONE && share.includes(record.worker().draw()))
}
