//! Steps 6 to 10 of walk one for a request that goes on: a host, a connection, the exchange, other tries, the
//! response on its way back.
//!
//! Everything runs in the request's own task: one poll moves the request's body, watches for the response and for the
//! client, and looks at the deadlines. Dropping the future cancels all of it.

use std::{
    future::{Future, poll_fn},
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
};

use rajut_codec::{Known, Method, RequestHead, ResponseHead, Version, h1::BodyLength};
use rajut_ir::{
    decide::{Chosen, ChosenCluster, RouteTable},
    route::{Forward, HashPolicy, HostRewrite, RetryPolicy},
};
use rajut_types::Text;
use tokio::time::Instant;

use super::{
    deadline::Deadlines,
    downstream::Downstream,
    filters::Chain,
    headers::{self, Half},
    message::{DownstreamError, Piece},
    mirror,
    open::Watch,
    record::{Details, Record},
    reply,
    retry::{self, Lost},
    source::Source,
    timer::Timer,
    websocket,
};
use crate::{
    clock,
    cluster::{Cluster, Host, PickContext, demand, host::ActiveRequest, outlier::Outcome, pick::stable_hash},
    epoch::Epoch,
    failure::{Failure, FailureKind, Fault, Flags},
    stats::{ClusterCounter, istio::Ends, texts::TextId},
    upstream::{
        exchange::{Head, Upstream},
        pool::Wants,
    },
};

/// Tries over pooled connections that turn out closed, beside the policy's; the last ones use new connections.
const STALE_MAX: u32 = 4;

/// One request that is being forwarded.
pub(crate) struct Forwarding<'a, 'c> {
    pub(crate) record: &'a mut Record,
    pub(crate) downstream: &'a mut Downstream<'c>,
    pub(crate) timer: &'a mut Timer,
    pub(crate) source: Source,
    pub(crate) deadlines: Deadlines,
    pub(crate) body: BodyLength,
    /// The client waits for `100 Continue` and it is passed on.
    pub(crate) wants_continue: bool,
    /// A cookie that was made for consistent hashing.
    pub(crate) cookie: Option<String>,
    /// Whether it may still go on; of exchanges that last.
    pub(crate) watch: Watch,
    /// The configuration by which it was let through.
    pub(crate) version: u64,
}

/// Why a request ended without a whole response.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) failure: Failure,
    /// Tries went before.
    pub(crate) retried: bool,
}

impl From<Failure> for Ended {
    fn from(failure: Failure) -> Self {
        Self {
            failure,
            retried: false,
        }
    }
}

impl From<FailureKind> for Ended {
    fn from(kind: FailureKind) -> Self {
        Failure::from(kind).into()
    }
}

pub(crate) fn downstream_failure(error: DownstreamError) -> Failure {
    match error {
        DownstreamError::Gone => FailureKind::DownstreamGone.into(),
        DownstreamError::Malformed(502) => FailureKind::UpstreamProtocol.into(),
        DownstreamError::Malformed(status) => FailureKind::MalformedRequest { status }.into(),
    }
}

/// What follows from a try.
enum Verdict {
    /// It is passed on.
    Done(Result<Answer, Ended>),
    /// The pooled connection had been closed: at once over another.
    Stale,
    /// The policy wants another try; where its limits forbid it, this is passed on.
    Again(Result<Answer, Ended>),
}

/// A try that got an answer.
struct Answer {
    upstream: Upstream,
    head: ResponseHead,
    length: BodyLength,
    sent: Sent,
}

/// A request on its way to a host, in the books until dropped.
struct Sent {
    cluster: Arc<Cluster>,
    worker: usize,
    _active: ActiveRequest,
}

impl Sent {
    fn new(cluster: &Arc<Cluster>, worker: usize, active: ActiveRequest) -> Self {
        cluster.stats().add(worker, ClusterCounter::RqTotal);
        Self {
            cluster: cluster.clone(),
            worker,
            _active: active,
        }
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        self.cluster.stats().add(self.worker, ClusterCounter::RqCompleted);
    }
}

/// What the tries of one request share.
struct Plan<'p> {
    cluster: &'p Arc<Cluster>,
    epoch: &'p Rc<Epoch>,
    forward: &'p Forward,
    policy: Option<&'p RetryPolicy>,
    hash: Option<u64>,
    counts_attempts: bool,
}

impl Forwarding<'_, '_> {
    /// Forwards the request and the response.
    pub(crate) async fn run(
        &mut self,
        epoch: &Rc<Epoch>,
        table: &RouteTable,
        chosen: &Chosen<'_>,
        forward: &Forward,
    ) -> Result<(), Ended> {
        let name = cluster_name(&chosen.cluster, self.record);
        let fetched;
        let cluster = if let Some(cluster) = epoch.cluster(&name) {
            cluster
        } else {
            let not_found = FailureKind::NoCluster {
                status: forward.cluster_not_found_status,
            };
            let fetching = demand::cluster(self.record.worker(), epoch, &name, not_found);
            // Boxed: it happens once for each cluster.
            fetched = Box::pin(fetching).await.map_err(|kind| {
                self.record.edits = headers::response_edits(table, chosen);
                Failure::new(kind, name.clone())
            })?;
            &fetched
        };
        self.record.cluster = Some(cluster.clone());
        let plan = Plan {
            cluster,
            epoch,
            forward,
            policy: forward
                .retry
                .as_ref()
                .or(chosen.virtual_host.retry_policy.as_ref()),
            hash: hash_key(self.record, &forward.hash, &mut self.cookie),
            counts_attempts: chosen.virtual_host.include_request_attempt_count,
        };
        prepare_request(self.record, table, chosen, forward);
        let worker = self.record.worker().index;
        let Some(_permit) = cluster.breakers().request() else {
            cluster.stats().add(worker, ClusterCounter::RqOverflow);
            self.record.edits = headers::response_edits(table, chosen);
            return Err(FailureKind::RequestOverflow.into());
        };
        let answered = self.tries(&plan).await;
        if !forward.mirrors.is_empty() {
            // Also of what failed here: a mirror sees what came.
            mirror::send(self.record, epoch, forward, self.source.copy());
        }
        let answer = answered.inspect_err(|_| {
            self.record.edits = headers::response_edits(table, chosen);
        })?;
        self.source.forget();
        self.respond(table, chosen, answer).await.map_err(Ended::from)
    }

    /// Tries until there is an answer to pass on, or none will come.
    async fn tries(&mut self, plan: &Plan<'_>) -> Result<Answer, Ended> {
        let stats = plan.cluster.stats();
        let worker = self.record.worker().clone();
        let avoids_hosts = plan
            .policy
            .is_some_and(|policy| policy.avoid_previous_hosts_attempts > 0);
        let (mut retries, mut stale) = (0, 0);
        let mut tried = Vec::new();
        // Held while the retry that it is for is under way.
        let mut _place = None;
        loop {
            self.record.attempts += 1;
            let outcome = self.try_once(plan, &tried, stale >= 2).await;
            let result = match self.judge(plan, outcome, retries, stale) {
                Verdict::Done(result) => return result,
                Verdict::Stale => {
                    stale += 1;
                    self.record.attempts -= 1;
                    self.source.rewind();
                    continue;
                }
                Verdict::Again(result) => result,
            };
            if avoids_hosts && let Some(host) = &self.record.host {
                tried.push(host.id);
            }
            // The place of the retry before is given back first.
            _place = None;
            let Some(place) = plan.cluster.breakers().retry() else {
                stats.add(worker.index, ClusterCounter::RqRetryOverflow);
                return result;
            };
            _place = Some(place);
            retries += 1;
            stats.add(worker.index, ClusterCounter::RqRetry);
            if let Ok(answer) = result {
                discard(answer).await;
            }
            self.source.rewind();
            self.deadlines.end_try();
            if let Some(policy) = plan.policy {
                let pause = retry::pause(policy, retries, worker.random());
                self.wait(pause).await?;
            }
        }
    }

    /// What follows from a try.
    fn judge(
        &mut self,
        plan: &Plan<'_>,
        outcome: Result<Answer, (Failure, Lost)>,
        retries: u32,
        stale: u32,
    ) -> Verdict {
        let stats = plan.cluster.stats();
        let worker = self.record.worker().index;
        let can_replay = self.source.can_replay();
        let (again, result) = match outcome {
            Ok(answer) => {
                let of_mesh = self
                    .record
                    .host
                    .as_ref()
                    .and_then(|host| plan.cluster.originator(host))
                    .is_some_and(|originator| originator.verifies_mesh());
                let again = plan
                    .policy
                    .is_some_and(|policy| retry::after_answer(policy, &answer.head, of_mesh));
                if !again && retries > 0 {
                    stats.add(worker, ClusterCounter::RqRetrySuccess);
                }
                (again, Ok(answer))
            }
            Err((failure, lost)) => {
                let method = &self.record.head.method;
                // A server that closed a kept connection may be ending: what it closes next, new as it is, is no other case.
                let lost = Lost {
                    reused: lost.reused || stale > 0,
                    ..lost
                };
                let over_stale = retry::over_stale_connection(method, &failure, lost);
                if can_replay && over_stale && stale < STALE_MAX {
                    return Verdict::Stale;
                }
                let again = plan
                    .policy
                    .is_some_and(|policy| retry::after_failure(policy, method, &failure, lost));
                let retried = retries > 0;
                (again, Err(Ended { failure, retried }))
            }
        };
        if !again || !can_replay {
            return Verdict::Done(result);
        }
        let most = plan.policy.map_or(0, |policy| policy.num_retries);
        if retries < most {
            return Verdict::Again(result);
        }
        if most > 0 {
            self.record.flags = self.record.flags.with(Flags::RETRY_LIMIT);
            stats.add(worker, ClusterCounter::RqRetryLimit);
        }
        Verdict::Done(result)
    }

    /// A pause between two tries, cut short by the deadlines and by the client's end.
    async fn wait(&mut self, pause: std::time::Duration) -> Result<(), Ended> {
        let until = Instant::now() + pause;
        let mut pause = Timer::default();
        poll_fn(|cx| {
            if pause.poll(cx, Some(until)) {
                return Poll::Ready(Ok(()));
            }
            self.poll_watch(cx).map(Err)
        })
        .await
        .map_err(|kind: FailureKind| Ended {
            failure: kind.into(),
            retried: true,
        })
    }

    /// One try: a host, a connection, the request's head and body, until the response's head.
    async fn try_once(
        &mut self,
        plan: &Plan<'_>,
        tried: &[u64],
        fresh: bool,
    ) -> Result<Answer, (Failure, Lost)> {
        let unseen = Lost {
            unseen: true,
            reused: false,
        };
        let worker = self.record.worker().index;
        let host = self
            .choose_host(plan, tried)
            .map_err(|failure| (failure, unseen))?;
        if self.source.is_ended() {
            self.begin_try(plan.policy);
        }
        let active = host.begin_request();
        let upstream = self.acquire(plan, fresh).await.map_err(|failure| {
            self.blame(plan.cluster, &failure);
            (failure, unseen)
        })?;
        self.record.upstream_local = upstream.local_address();
        self.record.upstream_ends = upstream.ends();
        let sent = Sent::new(plan.cluster, worker, active);
        let mut exchange = Exchange {
            upstream,
            policy: plan.policy,
            broken: None,
        };
        match self.exchange(&mut exchange).await {
            Ok((head, length)) => {
                plan.cluster.stats().add_status(worker, head.status);
                if head.status >= 500 {
                    host.count_error(false);
                }
                plan.cluster
                    .report(worker, &host, Outcome::Status(outcome_status(&head)));
                Ok(Answer {
                    upstream: exchange.upstream,
                    head,
                    length,
                    sent,
                })
            }
            Err(failure) => {
                let upstream = exchange.upstream;
                let lost = Lost {
                    unseen: upstream.nothing_sent() || upstream.closed_before_request(&failure),
                    reused: upstream.is_reused(),
                };
                // A pooled connection that the server closed in that moment says nothing against the server.
                if !(lost.reused && lost.unseen) {
                    self.blame(plan.cluster, &failure);
                }
                Err((failure, lost))
            }
        }
    }

    /// A host for the next try, and what the request's head says because of it.
    fn choose_host(&mut self, plan: &Plan<'_>, tried: &[u64]) -> Result<Arc<Host>, Failure> {
        let worker = self.record.worker().clone();
        let context = PickContext {
            worker: &worker,
            hash: plan.hash,
            exclude: tried,
            destination: Some(self.record.shared.connection.local),
            skip_priorities: plan
                .policy
                .and_then(|policy| policy.previous_priorities_update)
                .map_or(0, |frequency| (self.record.attempts - 1) / frequency.max(1)),
        };
        let host = plan.cluster.pick(&context).inspect_err(|_| {
            plan.cluster
                .stats()
                .add(worker.index, ClusterCounter::NoneHealthy);
        })?;
        self.record.host = Some(host.clone());
        self.record.upstream_ends = Ends::default();
        let attempts = self.record.attempts;
        let head = &mut self.record.head;
        if matches!(plan.forward.host_rewrite, Some(HostRewrite::Auto)) && !host.hostname.is_empty() {
            if !self.record.manager.suppresses_envoy_headers() {
                // The client's own was taken out; what is there is the host before the first try.
                let _ = head.fields.set_default(ORIGINAL_HOST, head.authority.clone());
            }
            // A host name from the configuration that is no authority leaves the request's own.
            let _ = head.set_authority(bytes::Bytes::copy_from_slice(host.hostname.as_bytes()));
        }
        if plan.counts_attempts {
            // Only a head at its bound refuses it.
            let _ = head.fields.set_number(Known::XEnvoyAttemptCount, attempts.into());
        }
        Ok(host)
    }

    /// Counts a failure for the host and the cluster.
    fn blame(&mut self, cluster: &Cluster, failure: &Failure) {
        let worker = self.record.worker().index;
        let counter = match failure.kind {
            FailureKind::UpstreamTimeout => Some(ClusterCounter::RqTimeout),
            FailureKind::PerTryTimeout => Some(ClusterCounter::RqPerTryTimeout),
            FailureKind::UpstreamReset | FailureKind::StreamRefused => Some(ClusterCounter::RqRxReset),
            FailureKind::DownstreamGone => Some(ClusterCounter::RqTxReset),
            _ => None,
        };
        if let Some(counter) = counter {
            cluster.stats().add(worker, counter);
        }
        let spec = failure.spec();
        if matches!(spec.fault, Fault::Upstream | Fault::Overload) {
            // Envoy counts the answer that a failure becomes.
            cluster.stats().add_status(worker, spec.status);
        }
        if let Some(host) = &self.record.host
            && spec.blames_host
        {
            host.count_error(spec.status == 504);
            cluster.report(worker, host, Outcome::LocalFailure);
        }
    }

    fn begin_try(&mut self, policy: Option<&RetryPolicy>) {
        let now = clock::now();
        let (most, idle) = policy.map_or((None, None), |policy| {
            (policy.per_try_timeout, policy.per_try_idle_timeout)
        });
        self.deadlines.begin_try(now, most, idle);
    }

    async fn acquire(&mut self, plan: &Plan<'_>, fresh: bool) -> Result<Upstream, Failure> {
        let worker = self.record.worker().clone();
        let host = self.record.host.clone().ok_or(FailureKind::Internal)?;
        let method = &self.record.head.method;
        let wants = Wants {
            version: self.record.head.version,
            careful: !method.is_idempotent(),
            fresh,
        };
        let pools = &plan.epoch.pools;
        if let Some(upstream) = pools.acquire_ready(plan.cluster, &host, wants) {
            return Ok(upstream);
        }
        let authority = String::from_utf8_lossy(self.record.head.host()).into_owned();
        // Boxed: connecting needs kilobytes that an idle connection's task should not carry.
        let mut acquire = Box::pin(pools.acquire(&worker, plan.cluster, &host, wants, &authority));
        poll_fn(|cx| {
            if let Poll::Ready(acquired) = acquire.as_mut().poll(cx) {
                return Poll::Ready(acquired);
            }
            self.poll_watch(cx).map(|kind| Err(kind.into()))
        })
        .await
    }

    /// Whether the client went away or a deadline passed.
    fn poll_watch(&mut self, cx: &mut Context<'_>) -> Poll<FailureKind> {
        if self.source.is_ended() {
            match self.downstream.poll_gone(cx) {
                Poll::Ready(true) => return Poll::Ready(FailureKind::DownstreamGone),
                Poll::Ready(false) => self.deadlines.half_closed(),
                Poll::Pending => {}
            }
        }
        self.poll_deadlines(cx)
    }

    fn poll_deadlines(&mut self, cx: &mut Context<'_>) -> Poll<FailureKind> {
        if self.timer.poll(cx, self.deadlines.next())
            && let Some(kind) = self.deadlines.expired(Instant::now())
        {
            return Poll::Ready(kind);
        }
        Poll::Pending
    }

    /// Sends the request and waits for the response's head.
    async fn exchange(&mut self, exchange: &mut Exchange<'_>) -> Result<(ResponseHead, BodyLength), Failure> {
        if self.record.head.fields.contains(Known::Upgrade) {
            exchange.upstream.wait_for_upgrades().await;
        }
        let tells = self.introduce(&exchange.upstream);
        exchange.upstream.push_head(&self.record.head, self.body)?;
        if tells {
            self.record.head.fields.remove(Known::XEnvoyPeerMetadata);
        }
        poll_fn(|cx| {
            self.poll_send(exchange, cx)?;
            self.record.sent();
            loop {
                match exchange.upstream.poll_head(cx) {
                    Poll::Ready(Ok(Head::Final(head, length))) => {
                        self.record.answered();
                        return Poll::Ready(Ok((head, length)));
                    }
                    Poll::Ready(Ok(Head::Informational(head))) => self.inform(head)?,
                    Poll::Ready(Err(failure)) => return Poll::Ready(Err(failure)),
                    Poll::Pending => break,
                }
            }
            // Writing failed and nothing can be read: there was no early answer.
            if let Some(failure) = exchange.broken.take() {
                return Poll::Ready(Err(failure));
            }
            // Interim responses go out at once; a client that is gone shows in `poll_watch`.
            let _ = self.downstream.poll_flush(cx);
            if self.record.is_grpc
                && let Poll::Ready(failure) = self.watch.poll(self.record, self.version, cx)
            {
                return Poll::Ready(Err(failure));
            }
            self.poll_watch(cx).map(|kind| Err(kind.into()))
        })
        .await
    }

    /// Tells a server of the mesh who calls, until it has answered once on the connection; `true` where the head says so.
    fn introduce(&mut self, upstream: &Upstream) -> bool {
        if upstream.is_answered() || self.record.upstream_ends.peer == TextId::UNKNOWN {
            return false;
        }
        let manager = self.record.manager.clone();
        let Some(meter) = manager.meter().filter(|meter| meter.is_client()) else {
            return false;
        };
        let of_mesh = self
            .record
            .cluster
            .as_ref()
            .zip(self.record.host.as_ref())
            .and_then(|(cluster, host)| cluster.originator(host))
            .is_some_and(|originator| originator.verifies_mesh());
        let fields = &mut self.record.head.fields;
        // A head at its bound goes on without.
        of_mesh && fields.set(Known::XEnvoyPeerMetadata, meter.header()).is_ok()
    }

    /// Passes an interim response on where the client understands it.
    fn inform(&mut self, head: ResponseHead) -> Result<(), Failure> {
        if head.status == 100 && !self.wants_continue {
            return Ok(());
        }
        let mut head = head;
        let stripped =
            rajut_codec::forward::strip_response(&mut head.fields, rajut_codec::forward::Upgrade::Drop);
        if stripped.is_err() {
            return Ok(());
        }
        self.downstream
            .push_informational(&head)
            .map_err(downstream_failure)
    }

    /// Moves the request's body on as far as both sides allow.
    fn poll_send(&mut self, exchange: &mut Exchange<'_>, cx: &mut Context<'_>) -> Result<(), Failure> {
        let mut moved = false;
        while exchange.broken.is_none() {
            let mut stalled = self.source.sent;
            while !self.source.sent
                && (exchange.upstream.has_room() || self.source.is_at_end(self.downstream))
            {
                match self.source.poll_next(self.downstream, cx) {
                    Poll::Ready(Ok(piece)) => {
                        moved = true;
                        self.note_piece(&piece, exchange.policy);
                        if let Err(failure) = exchange.upstream.push(piece) {
                            exchange.broken = Some(failure);
                            break;
                        }
                    }
                    Poll::Ready(Err(error)) => return Err(downstream_failure(error)),
                    Poll::Pending => {
                        stalled = true;
                        break;
                    }
                }
            }
            match exchange.upstream.poll_flush(cx) {
                Poll::Ready(Ok(())) if !stalled && !self.source.sent => {}
                Poll::Ready(Err(failure)) => exchange.broken = Some(failure),
                Poll::Ready(Ok(())) | Poll::Pending => break,
            }
        }
        if moved && self.deadlines.counts_idle() {
            self.deadlines.touch(clock::now());
        }
        Ok(())
    }

    fn note_piece(&mut self, piece: &Piece, policy: Option<&RetryPolicy>) {
        match piece {
            Piece::Data(_) => {
                self.record.bytes_received = self.source.received();
                self.record.messages_received = self.source.messages();
            }
            Piece::Trailers(_) => {}
            Piece::End => {
                self.source.sent = true;
                if self.record.request_end.is_none() {
                    let now = clock::now();
                    self.record.request_end = Some(now);
                    self.deadlines.request_ended(now);
                    self.begin_try(policy);
                }
            }
        }
    }

    /// Step 10 and 12: the response's head and body to the client.
    async fn respond(
        &mut self,
        table: &RouteTable,
        chosen: &Chosen<'_>,
        answer: Answer,
    ) -> Result<(), Failure> {
        let Answer {
            mut upstream,
            head,
            length,
            sent,
        } = answer;
        self.deadlines.end_try();
        let tunnel = length == BodyLength::Tunnel;
        prepare_response(self.record, table, chosen, head);
        self.record.response.fields.remove(reply::UNDELIVERED);
        if let Some(cookie) = self.cookie.take() {
            // Name and path come from the configuration; what is no field value is left out.
            let _ = self.record.response.fields.append(Known::SetCookie, cookie);
        }
        headers::finish_response(self.record, tunnel).inspect_err(|_| {
            self.record.edits = headers::response_edits(table, chosen);
        })?;
        if tunnel {
            let to_h1 = matches!(self.downstream, Downstream::H1(_));
            websocket::translate_answer(self.record, to_h1);
            self.deadlines.become_tunnel();
            self.source.become_tunnel();
        }
        if self.record.worker().draining() {
            self.downstream.close_after();
        }
        self.downstream
            .push_head(&self.record.response, length)
            .map_err(downstream_failure)?;
        let mut exchange = Exchange {
            upstream,
            policy: None,
            broken: None,
        };
        let mut relay = Relay {
            tunnel,
            received: length == BodyLength::Empty,
            upstream_shut: false,
        };
        let relayed = poll_fn(|cx| {
            let relayed = self.poll_relay(&mut exchange, &mut relay, cx);
            self.record.passed_on();
            relayed
        })
        .await;
        upstream = exchange.upstream;
        if relayed.is_ok() {
            upstream.finish();
        }
        drop(sent);
        relayed
    }

    /// Moves both bodies on as far as the sides allow; ready when the response (or the tunnel) is complete.
    fn poll_relay(
        &mut self,
        exchange: &mut Exchange<'_>,
        relay: &mut Relay,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Failure>> {
        // What was handed over may still wait for the server's windows.
        if exchange.broken.is_none() && (!self.source.sent || exchange.upstream.has_unsent()) {
            self.poll_send(exchange, cx)?;
        }
        if relay.tunnel && self.source.sent && !relay.upstream_shut {
            match exchange.upstream.poll_shutdown(cx) {
                // A peer that is gone already needs no orderly end.
                Poll::Ready(_) => relay.upstream_shut = true,
                Poll::Pending => {}
            }
        }
        let mut moved = false;
        let flushed = loop {
            let mut stalled = relay.received;
            while !relay.received && (self.downstream.has_room() || exchange.upstream.is_at_end()) {
                match exchange.upstream.poll_piece(cx) {
                    Poll::Ready(Ok(piece)) => {
                        moved = true;
                        self.pass_on(piece, relay)?;
                    }
                    Poll::Ready(Err(failure)) => return Poll::Ready(Err(failure)),
                    Poll::Pending => {
                        stalled = true;
                        break;
                    }
                }
            }
            match self.downstream.poll_flush(cx) {
                Poll::Ready(Ok(())) if !stalled && !relay.received => {}
                Poll::Ready(Ok(())) => break true,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(downstream_failure(error))),
                Poll::Pending => break false,
            }
        };
        if moved && (self.deadlines.counts_idle() || self.deadlines.is_half_closed()) {
            self.deadlines.touch(clock::now());
        }
        if relay.received && flushed {
            if !relay.tunnel {
                return Poll::Ready(Ok(()));
            }
            if self.poll_shut_tunnel(cx) && (relay.upstream_shut || exchange.broken.is_some()) {
                return Poll::Ready(Ok(()));
            }
        }
        if (relay.tunnel || self.record.is_grpc)
            && let Poll::Ready(failure) = self.watch.poll(self.record, self.version, cx)
        {
            return Poll::Ready(Err(failure));
        }
        if relay.tunnel {
            return self.poll_deadlines(cx).map(|kind| Err(kind.into()));
        }
        self.poll_watch(cx).map(|kind| Err(kind.into()))
    }

    fn pass_on(&mut self, piece: Piece, relay: &mut Relay) -> Result<(), Failure> {
        match &piece {
            Piece::Data(bytes) => {
                self.record.bytes_sent += bytes.len() as u64;
                if self.record.is_grpc {
                    self.record.messages_sent.pass(bytes);
                }
            }
            Piece::Trailers(_) => {}
            Piece::End => relay.received = true,
        }
        let Piece::Trailers(fields) = piece else {
            return self.downstream.push(piece).map_err(downstream_failure);
        };
        let pushed = self.downstream.push_trailers(&fields);
        self.record.trailers = Some(fields);
        pushed.map_err(downstream_failure)
    }

    /// The upstream's direction of a tunnel has ended: the client sees that; `true` once it does.
    fn poll_shut_tunnel(&mut self, cx: &mut Context<'_>) -> bool {
        match self.downstream {
            Downstream::H1(server) => server.transport.poll_shutdown(cx).is_ready(),
            Downstream::H2(_) => true,
        }
    }
}

/// The upstream's side while it is used.
struct Exchange<'p> {
    upstream: Upstream,
    policy: Option<&'p RetryPolicy>,
    /// Sending failed; an early response may still be there to be read.
    broken: Option<Failure>,
}

/// How far the way back is.
struct Relay {
    tunnel: bool,
    /// The response's end has been handed to the client's side.
    received: bool,
    /// The upstream knows that the client's direction has ended.
    upstream_shut: bool,
}

/// gRPC answers carry their status in a field; outlier detection judges by what it maps to.
fn outcome_status(head: &ResponseHead) -> u16 {
    match head.fields.get(Known::GrpcStatus) {
        Some(b"14") => 503,
        Some(b"4") => 504,
        Some(b"2" | b"13" | b"15") => 500,
        _ => head.status,
    }
}

/// Reads what has already arrived of an answer that is not passed on, so that its connection can be used again.
async fn discard(answer: Answer) {
    let mut upstream = answer.upstream;
    let complete = poll_fn(|cx| {
        for _ in 0..16 {
            match upstream.poll_piece(cx) {
                Poll::Ready(Ok(Piece::End)) => return Poll::Ready(true),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(_)) | Poll::Pending => return Poll::Ready(false),
            }
        }
        Poll::Ready(false)
    })
    .await;
    if complete || answer.length == BodyLength::Empty {
        upstream.finish();
    }
    drop(answer.sent);
}

pub(crate) fn cluster_name(cluster: &ChosenCluster<'_>, record: &Record) -> Text {
    match cluster {
        ChosenCluster::Named(name) => (*name).clone(),
        ChosenCluster::Weighted(weighted) => weighted.name.clone(),
        ChosenCluster::Header(header) => record
            .head
            .fields
            .get_str(&***header)
            .map_or_else(Text::default, Text::from),
        ChosenCluster::None => Text::default(),
    }
}

/// What consistent hashing hashes: each policy's value mixed into the ones before.
fn hash_key(record: &Record, policies: &[HashPolicy], made: &mut Option<String>) -> Option<u64> {
    let mut key = None;
    for policy in policies {
        let value = match policy {
            HashPolicy::Header(name) => record.head.fields.get(&**name).map(stable_hash),
            HashPolicy::Cookie { name, ttl, path } => match (cookie(&record.head, name), ttl) {
                (Some(value), _) => Some(stable_hash(value)),
                // Where a life is given a missing cookie is made, and this request goes where the next ones will.
                (None, Some(ttl)) => {
                    let value = format!("{:016x}", record.worker().random());
                    let key = stable_hash(value.as_bytes());
                    *made = Some(set_cookie(name, &value, *ttl, path));
                    Some(key)
                }
                (None, None) => None,
            },
            HashPolicy::SourceIp => Some(stable_hash(
                record.shared.connection.remote.ip().to_string().as_bytes(),
            )),
            HashPolicy::QueryParameter(name) => record.head.query().and_then(|query| {
                query
                    .split(|byte| *byte == b'&')
                    .find_map(|pair| pair.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
                    .map(stable_hash)
            }),
        };
        if let Some(value) = value {
            key = Some(key.unwrap_or(0_u64).rotate_left(1) ^ value);
        }
    }
    key
}

fn set_cookie(name: &str, value: &str, ttl: std::time::Duration, path: &str) -> String {
    let mut cookie = format!("{name}=\"{value}\"");
    if !ttl.is_zero() {
        cookie.push_str("; Max-Age=");
        cookie.push_str(&ttl.as_secs().to_string());
    }
    if !path.is_empty() {
        cookie.push_str("; Path=");
        cookie.push_str(path);
    }
    cookie.push_str("; HttpOnly");
    cookie
}

fn cookie<'h>(head: &'h RequestHead, name: &str) -> Option<&'h [u8]> {
    let value = head
        .fields
        .get_all(Known::Cookie)
        .flat_map(|value| value.split(|byte| *byte == b';'))
        .find_map(|pair| {
            pair.trim_ascii()
                .strip_prefix(name.as_bytes())?
                .strip_prefix(b"=")
        })?;
    let unquoted = value
        .strip_prefix(b"\"")
        .and_then(|value| value.strip_suffix(b"\""));
    Some(unquoted.unwrap_or(value))
}

/// The host before a route's rewrite (Envoy).
const ORIGINAL_HOST: &str = "x-envoy-original-host";

/// The route's changes to the request's head, the most specific first.
fn prepare_request(record: &mut Record, table: &RouteTable, chosen: &Chosen<'_>, forward: &Forward) {
    let tells = !record.manager.suppresses_envoy_headers();
    if let Some(rewrite) = &forward.path_rewrite
        && let Some(path) =
            headers::rewritten(&record.head.path_and_query, rewrite, &chosen.route.matches.path)
    {
        let before = std::mem::replace(&mut record.head.path_and_query, path);
        if tells {
            let _ = record.head.fields.set("x-envoy-original-path", before);
        }
    }
    if let ChosenCluster::Weighted(weighted) = &chosen.cluster {
        headers::mutate(record, &weighted.headers, Half::Request);
    }
    headers::mutate(record, &chosen.route.headers, Half::Request);
    headers::mutate(record, &chosen.virtual_host.headers, Half::Request);
    headers::mutate(record, &table.configuration().headers, Half::Request);
    let weighted_rewrite = match &chosen.cluster {
        ChosenCluster::Weighted(weighted) => weighted.host_rewrite.as_ref(),
        ChosenCluster::Named(_) | ChosenCluster::Header(_) | ChosenCluster::None => None,
    };
    let authority = match (weighted_rewrite, &forward.host_rewrite) {
        (Some(host), _) | (None, Some(HostRewrite::Literal(host))) => {
            Some(bytes::Bytes::copy_from_slice(host.as_bytes()))
        }
        (None, Some(HostRewrite::Header(name))) => record.head.fields.get_shared(&**name),
        // The endpoint's name is known once one is chosen.
        (None, Some(HostRewrite::Auto) | None) => None,
    };
    if tells && (weighted_rewrite.is_some() || forward.host_rewrite.is_some()) {
        record.head.fields.remove(ORIGINAL_HOST);
    }
    if let Some(authority) = authority {
        if tells {
            let before = record.head.authority.clone();
            let _ = record.head.fields.set(ORIGINAL_HOST, before);
        }
        if forward.append_x_forwarded_host {
            let before = record.head.authority.clone();
            let _ = record.head.fields.join(Known::XForwardedHost, before);
        }
        // What is no authority leaves the request's own.
        let _ = record.head.set_authority(authority);
    }
    if record.head.version == Version::Http2 {
        websocket::complete_request(record);
    }
    if let Some(timeout) = forward.timeout
        && tells
    {
        let millis = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        let _ = record
            .head
            .fields
            .set_number(Known::XEnvoyExpectedRqTimeoutMs, millis);
    }
    if record.head.method == Method::Connect {
        record.head.fields.remove(Known::ContentLength);
    }
}

/// The route's changes to the response's head.
fn prepare_response(record: &mut Record, table: &RouteTable, chosen: &Chosen<'_>, head: ResponseHead) {
    record.response = head;
    record.has_response = true;
    let now = clock::now();
    record.response_start = Some(now);
    if !record.manager.suppresses_envoy_headers() {
        let since = record.request_end.unwrap_or(record.start);
        let millis = u64::try_from(now.duration_since(since).as_millis()).unwrap_or(u64::MAX);
        let _ = record
            .response
            .fields
            .set_number(Known::XEnvoyUpstreamServiceTime, millis);
    }
    record.details = Details::Fixed("via_upstream");
    if let ChosenCluster::Weighted(weighted) = &chosen.cluster {
        headers::mutate(record, &weighted.headers, Half::Response);
    }
    headers::mutate(record, &chosen.route.headers, Half::Response);
    headers::mutate(record, &chosen.virtual_host.headers, Half::Response);
    headers::mutate(record, &table.configuration().headers, Half::Response);
    Chain::on_response(record);
}
