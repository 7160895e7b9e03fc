//! Access control of requests: policies are judged per request, on the peer's identity and on the head as it was
//! received and normalised. The decision itself is [`rajut_ir::rbac`].

use std::sync::Arc;

use rajut_ir::rbac::Rbac;
use rajut_types::Text;

use super::Noted;
use crate::{
    failure::{Failure, FailureKind},
    http::{record::Record, view::View},
    stats::{RbacCounter, RbacStats, Registry},
};

/// A filter of a chain, with its counters.
#[derive(Debug)]
pub(crate) struct Access {
    ir: Arc<Rbac>,
    stats: Arc<RbacStats>,
}

impl Access {
    /// `prefix` is the connection manager's prefix of statistics.
    pub(super) fn new(ir: &Arc<Rbac>, prefix: &Text, registry: &Registry) -> Self {
        Self {
            stats: registry.http_rbac(prefix, &ir.stat_prefix, &ir.shadow_stat_prefix),
            ir: ir.clone(),
        }
    }

    /// What the listener's filter says.
    pub(super) const fn ir(&self) -> &Arc<Rbac> {
        &self.ir
    }

    /// Why the filter's own rules refuse a request, if they do. Counts nothing but that.
    pub(super) fn refusal(&self, record: &Record) -> Option<Text> {
        let rules = self.ir.rules.as_ref()?;
        let outcome = rules.evaluate(&View { record });
        if outcome.allowed {
            return None;
        }
        self.stats.add(record.shared.worker.index, RbacCounter::Denied);
        Some(rules.details(outcome.policy).clone())
    }

    /// Judges a request by `ir`, which is this filter's or a route's.
    pub(super) fn judge(&self, ir: &Arc<Rbac>, record: &mut Record) -> Result<(), Failure> {
        let worker = record.shared.worker.index;
        if let Some(shadow) = &ir.shadow {
            let outcome = shadow.evaluate(&View { record });
            self.stats.add(
                worker,
                if outcome.allowed {
                    RbacCounter::ShadowAllowed
                } else {
                    RbacCounter::ShadowDenied
                },
            );
            if let Some(policy) = outcome.policy {
                let ir = ir.clone();
                record.filters.noted.push(Noted { ir, policy });
            }
        }
        let Some(rules) = &ir.rules else { return Ok(()) };
        let outcome = rules.evaluate(&View { record });
        if outcome.allowed {
            self.stats.add(worker, RbacCounter::Allowed);
            return Ok(());
        }
        self.stats.add(worker, RbacCounter::Denied);
        let mut failure = Failure::from(FailureKind::AccessDenied);
        failure.details = Some(rules.details(outcome.policy).clone());
        Err(failure)
    }
}
