//! External authorization: another service is asked whether a request may pass. Source: Envoy `envoy.filters.http.ext_authz`.
//!
//! ```text
//!  request ─► meant? ─ no ─► goes on
//!               │ yes
//!               ▼
//!         body, as far as it is shown ─ too large ─► 413
//!               ▼
//!         the call, through the provider's cluster ─ fails, too late ─► passes (failure_mode_allow), or status_on_error
//!               │
//!               ├─ allows ─► head changed, goes on (routed anew where that is wanted)
//!               └─ refuses ─► its status, headers and body for the client
//! ```
//!
//! A request is meant if the configuration says nothing about it, or if access control before has noted the shadow policy that it
//! names ([`super::State::noted`]). One question is asked, without retries.
//!
//! What a provider may not change: method, path but for its query, host, and what frames a message ([`GUARDED`]); such fields of its
//! answers are left out. An answer with a header that is none is refused as a whole (500, `ext_authz_invalid`), as in Envoy with
//! `validate_mutations`.
//!
//! Bounds: what is shown of a body as configured ([`rajut_ir::ext_authz::BODY_MAX`]), answers [`ANSWER_MAX`], the call its timeout. While a
//! request waits it holds no place in a pool but that of the call; a client that goes away ends it.

mod answer;
mod grpc;
mod http;
mod wire;

use std::{rc::Rc, sync::Arc};

use bytes::Bytes;
use rajut_codec::{Fields, Known};
use rajut_ir::ext_authz::{Asked, ExtAuthz, Provider};
use rajut_types::Text;

pub(super) use answer::tell;
pub(crate) use answer::{Allowed, Edits};
pub(crate) use grpc::{allows, call};
pub(crate) use wire::check_connection;

use crate::{
    cluster::demand,
    epoch::Epoch,
    failure::{Failure, FailureKind, Flags},
    http::{
        mirror::Aside,
        record::{Details, Record},
    },
    stats::{ExtAuthzCounter, ExtAuthzStats, Registry},
    worker::Worker,
};

/// Bytes of a provider's answer.
pub(crate) const ANSWER_MAX: usize = 1 << 20;

/// Fields that frame a message or say where it goes, which no provider changes.
const GUARDED: [&str; 11] = [
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "upgrade",
    "http2-settings",
    "expect",
];

fn is_guarded(name: &str) -> bool {
    name.starts_with(':') || GUARDED.iter().any(|guarded| guarded.eq_ignore_ascii_case(name))
}

/// The filter of a chain, with its counters.
#[derive(Debug)]
pub(crate) struct Asker {
    ir: Arc<ExtAuthz>,
    stats: Arc<ExtAuthzStats>,
}

/// What is shown of a request's body.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shown {
    pub(crate) bytes: Bytes,
    /// There is more of it.
    pub(crate) partial: bool,
}

/// What came of a question.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// The request goes on; whether its head is another now and is to be routed anew.
    Pass { reroute: bool },
    /// The client gets this.
    Refused(Box<Refusal>),
}

/// A provider's refusal.
#[derive(Debug, Default)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    pub(crate) fields: Fields,
    pub(crate) body: Bytes,
}

/// What a provider says, before anything comes of it.
#[derive(Debug)]
enum Answer {
    Allowed(Box<Allowed>),
    Refused(Box<Refusal>),
}

/// Why there is no answer.
#[derive(Debug)]
enum NoAnswer {
    /// The call failed, or the provider said that it can't tell.
    Failed(Text),
    /// It says something that can't be done.
    Invalid(Text),
    /// It can't tell, and says what the client is to get.
    Refused(Box<Refusal>),
}

impl From<Failure> for NoAnswer {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure.to_string().into())
    }
}

impl Asker {
    /// `prefix` is the connection manager's prefix of statistics.
    pub(super) fn new(ir: &Arc<ExtAuthz>, prefix: &Text, registry: &Registry) -> Self {
        Self {
            stats: registry.ext_authz(prefix, &ir.stat_prefix),
            ir: ir.clone(),
        }
    }

    /// What is configured.
    pub(crate) fn ir(&self) -> &ExtAuthz {
        &self.ir
    }

    /// Whether the request is one that the provider is asked about.
    pub(super) fn means(&self, record: &Record) -> bool {
        let meant = self.ir.asked.as_ref().is_none_or(|asked| is_noted(asked, record));
        if !meant {
            self.count(record, ExtAuthzCounter::Disabled);
        }
        meant
    }

    fn count(&self, record: &Record, counter: ExtAuthzCounter) {
        self.stats.add(record.shared.worker.index, counter);
    }

    /// The provider's answer, within its time. Holds nothing of the request, so that its client can be watched meanwhile.
    pub(crate) async fn ask(&self, worker: &Rc<Worker>, epoch: &Rc<Epoch>, question: Question) -> Outcome {
        let asking = self.call(worker, epoch, question);
        let asked = match self.ir.timeout {
            Some(limit) => tokio::time::timeout(limit, asking).await.ok(),
            None => Some(asking.await),
        };
        Outcome(asked)
    }

    async fn call(
        &self,
        worker: &Rc<Worker>,
        epoch: &Rc<Epoch>,
        question: Question,
    ) -> Result<Answer, NoAnswer> {
        let name = self.ir.provider.cluster();
        let unknown = FailureKind::NoCluster { status: 503 };
        let cluster = demand::cluster(worker, epoch, name, unknown)
            .await
            .map_err(|kind| Failure::new(kind, name.clone()))?;
        let Question { head, body } = question;
        let aside: Aside =
            crate::http::mirror::send_aside(worker, epoch, &cluster, &head, body, None, ANSWER_MAX).await?;
        match &self.ir.provider {
            Provider::Grpc { .. } => grpc::read(&aside),
            Provider::Http(http) => http::read(http, &aside),
        }
    }

    /// The question about a request.
    pub(crate) fn question(&self, record: &Record, shown: Shown) -> Result<Question, Failure> {
        match &self.ir.provider {
            Provider::Grpc { cluster, authority } => {
                let authority = if authority.is_empty() { cluster } else { authority };
                grpc::question(&self.ir, authority, record, shown)
            }
            Provider::Http(http) => http::question(&self.ir, http, record, shown),
        }
    }

    /// What comes of an answer, or of none.
    pub(crate) fn judge(&self, record: &mut Record, outcome: Outcome) -> Result<Verdict, Failure> {
        match outcome.0 {
            Some(Ok(Answer::Allowed(allowed))) => {
                let before = self.ir.clear_route_cache && allowed.changes_request();
                match allowed.apply(record) {
                    Ok(()) => {
                        self.count(record, ExtAuthzCounter::Ok);
                        Ok(Verdict::Pass { reroute: before })
                    }
                    Err(why) => Err(self.invalid(record, &why)),
                }
            }
            Some(Ok(Answer::Refused(refusal))) => {
                self.count(record, ExtAuthzCounter::Denied);
                record.flags = record.flags.with(Flags::UNAUTHORIZED_EXTERNAL_SERVICE);
                record.details = Details::Fixed("ext_authz_denied");
                Ok(Verdict::Refused(refusal))
            }
            Some(Err(NoAnswer::Invalid(why))) => Err(self.invalid(record, &why)),
            Some(Err(NoAnswer::Failed(why))) => self.failed(record, why, None),
            Some(Err(NoAnswer::Refused(refusal))) => {
                self.failed(record, "the provider can't tell".into(), Some(refusal))
            }
            None => {
                self.count(record, ExtAuthzCounter::Timeout);
                self.failed(record, "timeout".into(), None)
            }
        }
    }

    fn failed(
        &self,
        record: &mut Record,
        why: Text,
        refusal: Option<Box<Refusal>>,
    ) -> Result<Verdict, Failure> {
        self.count(record, ExtAuthzCounter::Error);
        tracing::debug!(provider = %self.ir.provider.cluster(), reason = %why, "external authorization does not answer");
        if self.ir.failure_mode_allow {
            self.count(record, ExtAuthzCounter::FailureModeAllowed);
            if self.ir.failure_mode_header {
                // A request that has no room for it would be refused further on.
                let _ = record
                    .head
                    .fields
                    .set("x-envoy-auth-failure-mode-allowed", "true");
            }
            return Ok(Verdict::Pass { reroute: false });
        }
        if let Some(refusal) = refusal {
            record.flags = record.flags.with(Flags::UNAUTHORIZED_EXTERNAL_SERVICE);
            record.details = Details::Fixed("ext_authz_error");
            return Ok(Verdict::Refused(refusal));
        }
        let status = self.ir.status_on_error;
        Err(Failure::new(FailureKind::AuthorizationFailed { status }, why))
    }

    fn invalid(&self, record: &Record, why: &str) -> Failure {
        self.count(record, ExtAuthzCounter::Invalid);
        tracing::debug!(provider = %self.ir.provider.cluster(), "external authorization answers nonsense: {why}");
        FailureKind::AuthorizationInvalid.into()
    }
}

/// What came of a call; `None`: nothing in time.
#[derive(Debug)]
pub(crate) struct Outcome(Option<Result<Answer, NoAnswer>>);

/// A call that is to be made.
#[derive(Debug)]
pub(crate) struct Question {
    head: rajut_codec::RequestHead,
    body: Vec<crate::http::message::Piece>,
}

impl Question {
    /// Its head and its body.
    pub(crate) fn into_parts(self) -> (rajut_codec::RequestHead, Vec<crate::http::message::Piece>) {
        (self.head, self.body)
    }
}

/// Whether access control has noted a policy of that name.
fn is_noted(asked: &Asked, record: &Record) -> bool {
    let mut noted = record.filters.noted.iter();
    noted.any(|noted| {
        noted.prefix() == &*asked.shadow_prefix && asked.policy.matches(noted.policy().as_bytes())
    })
}

/// Whether a field of the request is shown, and under which name.
fn shown_name(ir: &ExtAuthz, name: &[u8]) -> Option<String> {
    let name = std::str::from_utf8(name).ok()?.to_ascii_lowercase();
    ir.shows(&name).then_some(name)
}

/// The path and the query as one text.
fn path_of(record: &Record) -> String {
    String::from_utf8_lossy(&record.head.path_and_query).into_owned()
}

/// Whether the client must be told to send its body before it can be shown.
pub(crate) fn takes_expectation(record: &mut Record) -> bool {
    record.head.fields.remove(Known::Expect) > 0
}
