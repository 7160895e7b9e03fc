//! One client's stream as a pure machine.
//!
//! ```text
//!  snapshot(set) ─► pending ──(nothing unanswered, or ROUND_TIMEOUT)──► applied ─► types dirty
//!  request(r)    ─► names, ACK or NACK ─► that type dirty
//!                                        next_response(): the first due type in push order, or nothing
//! ```
//!
//! What a client holds is not written down name by name: it is what it wants of the set that was sent last (`base`), which it
//! shares with every other client that was sent it. Only what a client brings along, and what must be sent although it did
//! not change, is kept apart, until it is sent.
//!
//! Invariants: at most one snapshot is pending (the newest replaces it); what a client asks for is answered of the newest,
//! whatever else is unanswered or was pushed just now; the settled
//! generation never falls and is never newer than the applied one. Bounds: `limits`; a client that does not answer keeps one
//! older set alive. What it refuses: more types or names
//! than the caps allow ([`StreamFault`]), which ends the stream. What it ignores: answers (not names) whose nonce it never
//! gave or that a newer answer has overtaken.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use rajut_types::Text;

use super::names::Names;
use crate::{
    limits::{NACK_MESSAGE_MAX, NAME_BYTES_MAX, NAMES_MAX, OUTSTANDING_MAX, ROUND_TIMEOUT, TYPES_MAX},
    message::{Protocol, Request, Response},
    resource::{PUSH_ORDER, Resource, ResourceSet, TypeSet, is_complete_type, type_url},
};

/// The machine of one stream.
#[derive(Debug)]
pub struct ServerStream {
    protocol: Protocol,
    /// type URL → state; at most [`TYPES_MAX`].
    types: BTreeMap<Text, TypeState>,
    applied: Option<Arc<ResourceSet>>,
    pending: Option<Arc<ResourceSet>>,
    /// At least so long from one pushed change to the next.
    pause: Duration,
    /// When a change was pushed last.
    pushed: Option<Duration>,
    /// What its subscriptions became since [`ServerStream::take_interest`].
    interest: Vec<Interest>,
    /// When the oldest unanswered response was sent.
    waiting_since: Option<Duration>,
    nonce: u64,
    settled: u64,
    /// The newest generation for which something was sent because the configuration changed.
    last_change: u64,
}

#[derive(Debug, Default)]
struct TypeState {
    wildcard: bool,
    names: Names,
    /// What was sent last; the client holds, or is being sent, what it wants of it and what is not `fresh`.
    base: Option<TypeSet>,
    /// name → version that the client brought along; until the first look.
    told: BTreeMap<Text, Text>,
    /// Names that are sent although they did not change.
    fresh: BTreeSet<Text>,
    /// A response is due even if it is empty.
    owed: bool,
    dirt: Dirt,
    /// Unanswered responses, oldest first; at most [`OUTSTANDING_MAX`].
    outstanding: VecDeque<Outstanding>,
    /// Resources that the client holds; counted anew where its names changed.
    held: Option<usize>,
    status: TypeStatus,
}

/// A change of what a stream subscribes to, for whoever wakes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Interest {
    /// Everything of a type from now on, or not any more.
    All(Text, bool),
    /// These names of a type too.
    More(Text, Vec<Text>),
    /// These names of a type no longer.
    Less(Text, Vec<Text>),
}

impl Interest {
    /// The client will be sent something that it was not sent so far.
    pub fn is_more(&self) -> bool {
        matches!(self, Self::All(_, true) | Self::More(..))
    }
}

/// What changed since the last look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Dirt {
    /// Nothing.
    #[default]
    None,
    /// Names, or what is forced.
    Request,
    /// The applied set (and maybe more).
    Snapshot,
}

#[derive(Debug, Clone, Copy)]
struct Outstanding {
    nonce: u64,
    generation: u64,
}

/// Why a stream must end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StreamFault {
    /// More type URLs than [`TYPES_MAX`].
    #[error("more than {TYPES_MAX} resource types on one stream")]
    TooManyTypes,
    /// More names than [`NAMES_MAX`], or a name longer than [`NAME_BYTES_MAX`].
    #[error("more than {NAMES_MAX} names of {type_url}, or a name of more than {NAME_BYTES_MAX} bytes")]
    TooManyNames {
        /// Which type.
        type_url: Text,
    },
    /// A request without a type URL.
    #[error("a request on an aggregated stream must name its type_url")]
    NoType,
}

/// A client's refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nack {
    /// The refused response.
    pub nonce: u64,
    /// The generation that it carried.
    pub generation: u64,
    /// The client's words, cut at [`NACK_MESSAGE_MAX`] bytes.
    pub message: String,
}

/// One type on one stream, for people and for `apply`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TypeStatus {
    /// Everything is subscribed.
    pub wildcard: bool,
    /// Names that are subscribed one by one.
    pub names: usize,
    /// Resources that the client holds or is being sent.
    pub resources: usize,
    /// Generation of the last response.
    pub sent_generation: u64,
    /// Generation of the last response that was accepted in full.
    pub acked_generation: u64,
    /// Responses.
    pub pushes: u64,
    /// Responses that were refused.
    pub rejects: u64,
    /// Resources in the responses.
    pub sent_resources: u64,
    /// Bytes of those.
    pub sent_bytes: u64,
    /// The last refusal, until a later response is accepted.
    pub nack: Option<Nack>,
}

/// One stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StreamStatus {
    /// Everything up to this generation is answered (accepted or refused).
    pub settled: u64,
    /// The newest generation for which a change was sent.
    pub last_change: u64,
    /// type URL → status.
    pub types: BTreeMap<Text, TypeStatus>,
}

impl ServerStream {
    /// A stream without subscriptions.
    pub fn new(protocol: Protocol) -> Self {
        Self {
            protocol,
            types: BTreeMap::new(),
            applied: None,
            pending: None,
            pause: Duration::ZERO,
            pushed: None,
            interest: Vec::new(),
            waiting_since: None,
            nonce: 0,
            settled: 0,
            last_change: 0,
        }
    }

    /// The same, with at least so long between two pushed changes; what comes meanwhile is pushed together.
    #[must_use]
    pub fn with_pause(self, pause: Duration) -> Self {
        Self { pause, ..self }
    }

    /// What its subscriptions became since the last call.
    pub fn take_interest(&mut self) -> Vec<Interest> {
        std::mem::take(&mut self.interest)
    }

    /// The newest resources; replaces a pending set that was not yet pushed.
    pub fn snapshot(&mut self, set: Arc<ResourceSet>) {
        self.pending = Some(set);
    }

    /// A client's message: subscriptions, and the answer to a response.
    pub fn request(&mut self, request: Request, now: Duration) -> Result<(), StreamFault> {
        if request.type_url.is_empty() {
            return Err(StreamFault::NoType);
        }
        if !self.types.contains_key(&request.type_url) && self.types.len() >= TYPES_MAX {
            return Err(StreamFault::TooManyTypes);
        }
        let url = request.type_url.clone();
        if request.subscribe.len() > NAMES_MAX
            || request.subscribe.iter().any(|name| name.len() > NAME_BYTES_MAX)
        {
            return Err(StreamFault::TooManyNames { type_url: url });
        }
        let first = !self.types.contains_key(&url);
        let state = self.types.entry(url.clone()).or_default();
        let was_wildcard = state.wildcard;
        state.answer(&request);
        let newest = self.pending.as_ref().or(self.applied.as_ref());
        let known = newest.and_then(|set| set.types.get(&url));
        let (more, less) = match self.protocol {
            Protocol::Delta => state.subscribe_delta(&url, first, request, known),
            // Also where the nonce is stale: a stream keeps its order, so these are the newest names, and a name that was
            // dropped and asked for again while a push was on its way must be sent again.
            Protocol::StateOfTheWorld => state.subscribe_world(&url, first, &request, known),
        };
        if state.names.len() > NAMES_MAX {
            return Err(StreamFault::TooManyNames { type_url: url });
        }
        if state.wildcard != was_wildcard {
            self.interest.push(Interest::All(url.clone(), state.wildcard));
        }
        if !more.is_empty() {
            self.interest.push(Interest::More(url.clone(), more));
        }
        if !less.is_empty() {
            self.interest.push(Interest::Less(url, less));
        }
        if self.types.values().all(|state| state.outstanding.is_empty()) {
            self.waiting_since = None;
        } else if self.waiting_since.is_none() {
            self.waiting_since = Some(now);
        }
        Ok(())
    }

    /// The next message to send, in push order; call it until there is none after every event.
    pub fn next_response(&mut self, now: Duration) -> Option<Response<Arc<Resource>>> {
        if self.is_asked() {
            // A stream is not woken for what it did not subscribe to: of that, the applied set may be long out of date.
            self.apply_pending(now);
        }
        loop {
            let idle = self.types.values().all(|state| state.outstanding.is_empty());
            if idle && self.pause_end().is_none_or(|end| now >= end) {
                // Nothing is on its way: what is sent next is of the newest.
                self.settle();
                self.apply_pending(now);
            }
            if let Some(response) = self.first_due(now) {
                return Some(response);
            }
            let idle = self.types.values().all(|state| state.outstanding.is_empty());
            if idle {
                self.settle();
            }
            let overdue = self
                .waiting_since
                .is_some_and(|since| now.saturating_sub(since) >= ROUND_TIMEOUT);
            if (!idle && !overdue) || self.pause_end().is_some_and(|end| now < end) {
                return None;
            }
            self.apply_pending(now)?;
        }
    }

    /// When [`ServerStream::next_response`] should be called although nothing has happened: a pending push whose
    /// predecessor is unanswered, or too recent.
    pub fn deadline(&self) -> Option<Duration> {
        self.pending.as_ref()?;
        let unanswered = self.waiting_since.map(|since| since + ROUND_TIMEOUT);
        unanswered.max(self.pause_end())
    }

    /// When the next change may be pushed.
    fn pause_end(&self) -> Option<Duration> {
        self.pushed.map(|pushed| pushed + self.pause)
    }

    /// Everything that is known about the stream.
    pub fn status(&self) -> StreamStatus {
        let of_type = |state: &TypeState| TypeStatus {
            wildcard: state.wildcard,
            names: state.names.len(),
            resources: state.held(),
            ..state.status.clone()
        };
        StreamStatus {
            settled: self.settled,
            last_change: self.last_change,
            types: self
                .types
                .iter()
                .map(|(url, state)| (url.clone(), of_type(state)))
                .collect(),
        }
    }

    /// Panics where an invariant is broken; for tests.
    #[cfg(test)]
    pub(crate) fn check_invariants(&self) {
        assert!(self.settled <= self.applied.as_ref().map_or(0, |set| set.generation));
        for state in self.types.values() {
            assert!(state.outstanding.len() <= OUTSTANDING_MAX);
            assert!(
                state
                    .outstanding
                    .iter()
                    .all(|response| response.nonce <= self.nonce)
            );
            assert!(
                state
                    .outstanding
                    .iter()
                    .is_sorted_by_key(|response| response.nonce)
            );
            assert!(state.told.keys().all(|name| state.wants(name)), "{state:?}");
            assert!(state.fresh.iter().all(|name| state.wants(name)), "{state:?}");
            assert!(state.told.is_empty() || state.base.is_none(), "{state:?}");
        }
    }

    /// A client's question waits for its answer.
    fn is_asked(&self) -> bool {
        let waits = |state: &TypeState| state.dirt == Dirt::Request || state.owed;
        self.types.values().any(waits)
    }

    /// Nothing is unanswered: the applied set is settled, unless some of it was not sent yet.
    fn settle(&mut self) {
        let unsent = self.types.values().any(|state| state.dirt == Dirt::Snapshot);
        if let Some(applied) = self.applied.as_ref().filter(|_| !unsent) {
            self.settled = self.settled.max(applied.generation);
        }
    }

    fn apply_pending(&mut self, now: Duration) -> Option<()> {
        let set = self.pending.take()?;
        for (url, state) in &mut self.types {
            let same = match (&self.applied, set.types.get(url)) {
                (Some(applied), Some(new)) => applied.types.get(url).is_some_and(|old| old.is_same(new)),
                (Some(applied), None) => !applied.types.contains_key(url),
                (None, _) => false,
            };
            if !same {
                state.dirt = Dirt::Snapshot;
            }
        }
        self.applied = Some(set);
        if self.waiting_since.is_some() {
            self.waiting_since = Some(now);
        }
        Some(())
    }

    fn first_due(&mut self, now: Duration) -> Option<Response<Arc<Resource>>> {
        let set = self.applied.clone()?;
        let others = self
            .types
            .keys()
            .filter(|url| !PUSH_ORDER.contains(&&***url))
            .cloned()
            .collect::<Vec<_>>();
        let order = PUSH_ORDER.into_iter().chain(others.iter().map(|url| &**url));
        for url in order {
            let Some(state) = self
                .types
                .get_mut(url)
                .filter(|state| state.dirt > Dirt::None || state.owed)
            else {
                continue;
            };
            let from_snapshot = state.dirt == Dirt::Snapshot;
            let Some((resources, removed)) = state.changes(self.protocol, url, set.types.get(url)) else {
                continue;
            };
            self.nonce += 1;
            let response = Response {
                type_url: url.into(),
                version: set.generation.to_string().into(),
                nonce: self.nonce.to_string().into(),
                resources,
                removed,
            };
            state.outstanding.push_back(Outstanding {
                nonce: self.nonce,
                generation: set.generation,
            });
            if state.outstanding.len() > OUTSTANDING_MAX {
                state.outstanding.pop_front();
            }
            state.status.count(&response.resources);
            state.status.sent_generation = set.generation;
            self.waiting_since.get_or_insert(now);
            if from_snapshot {
                self.pushed = Some(now);
                self.last_change = self.last_change.max(set.generation);
            }
            if url == type_url::CLUSTER {
                self.warm_endpoints(&response);
            }
            return Some(response);
        }
        None
    }

    /// A client that takes a changed cluster warms it: it waits for the cluster's endpoints although they did not change.
    /// Source: xDS protocol, "resource warming". Endpoints go by the cluster's name, as `translate` names them.
    fn warm_endpoints(&mut self, clusters: &Response<Arc<Resource>>) {
        let Some(endpoints) = self.types.get_mut(type_url::LOAD_ASSIGNMENT) else {
            return;
        };
        for cluster in &clusters.resources {
            if endpoints.told.remove(&cluster.name).is_some() {
                endpoints.soil();
            } else if endpoints.base.is_some() && endpoints.wants(&cluster.name) {
                endpoints.fresh.insert(cluster.name.clone());
                endpoints.soil();
            }
        }
    }
}

impl TypeStatus {
    fn count(&mut self, resources: &[Arc<Resource>]) {
        let bytes: usize = resources.iter().map(|resource| resource.body.len()).sum();
        self.pushes += 1;
        self.sent_resources += u64::try_from(resources.len()).unwrap_or(u64::MAX);
        self.sent_bytes += u64::try_from(bytes).unwrap_or(u64::MAX);
    }
}

impl TypeState {
    /// A request changed something; what a snapshot changed weighs more.
    fn soil(&mut self) {
        self.dirt = self.dirt.max(Dirt::Request);
    }

    fn held(&self) -> usize {
        let count = |base: &TypeSet| {
            if self.wildcard {
                base.len()
            } else {
                self.names.iter().filter(|name| base.get(name).is_some()).count()
            }
        };
        self.held.unwrap_or_else(|| self.base.as_ref().map_or(0, count))
    }

    fn wants(&self, name: &str) -> bool {
        self.wildcard || self.names.contains(name)
    }

    /// Takes the answer that a request may carry.
    fn answer(&mut self, request: &Request) {
        let Ok(nonce) = request.nonce.parse::<u64>() else {
            return;
        };
        let mut answered = None;
        while let Some(oldest) = self
            .outstanding
            .front()
            .filter(|response| response.nonce <= nonce)
        {
            answered = Some(*oldest);
            self.outstanding.pop_front();
        }
        // A repeated nonce (a change of subscription) answers nothing again.
        if let Some(response) = answered.filter(|response| response.nonce == nonce) {
            if let Some(message) = &request.error {
                self.status.rejects += 1;
                self.status.nack = Some(Nack {
                    nonce,
                    generation: response.generation,
                    message: cut(message),
                });
            } else {
                self.status.acked_generation = response.generation;
                self.status.nack = None;
            }
        }
    }

    /// Gives the names that were gained and lost. `known`: the newest set, whose texts are kept in the place of the request's.
    fn subscribe_delta(
        &mut self,
        url: &str,
        first: bool,
        request: Request,
        known: Option<&TypeSet>,
    ) -> (Vec<Text>, Vec<Text>) {
        let legacy_wildcard = first && request.subscribe.is_empty() && is_complete_type(url);
        if legacy_wildcard {
            self.wildcard = true;
        }
        let (all, names): (Vec<Text>, Vec<Text>) =
            request.subscribe.into_iter().partition(|name| &**name == "*");
        if !all.is_empty() || !names.is_empty() {
            self.soil();
            self.held = None;
        }
        // Subscribed already, one by one: the client wants to see it again. Those that are new are sent if the client does
        // not hold them as part of everything.
        for name in names.iter().filter(|name| self.names.contains(name)) {
            self.told.remove(name);
            self.fresh.insert(name.clone());
        }
        let more = self
            .names
            .extend(names.into_iter().map(|name| canonical(name, known)));
        let held_as_all = |name: &&Text| {
            let base = self.base.as_ref();
            self.wildcard && base.is_some_and(|base| base.get(name).is_some())
        };
        let unheld: Vec<Text> = more.iter().filter(|name| !held_as_all(name)).cloned().collect();
        self.fresh.extend(unheld);
        if !all.is_empty() {
            self.owed |= !self.wildcard;
            self.want_all();
        }
        let mut less = Vec::new();
        for name in request.unsubscribe {
            self.held = None;
            if &*name == "*" {
                self.wildcard = false;
            } else if self.names.remove(&name) {
                less.push(name);
            }
        }
        if first {
            self.soil();
            // A client that holds something already does not wait for a first answer.
            self.owed = self.wildcard && request.initial_versions.is_empty();
            for (name, version) in request.initial_versions.into_iter().take(NAMES_MAX) {
                if self.wants(&name) {
                    self.fresh.remove(&name);
                    self.told.insert(canonical(name, known), version);
                }
            }
        }
        self.forget_unwanted();
        (more, less)
    }

    fn subscribe_world(
        &mut self,
        url: &str,
        first: bool,
        request: &Request,
        known: Option<&TypeSet>,
    ) -> (Vec<Text>, Vec<Text>) {
        let mut names: Vec<Text> = request
            .subscribe
            .iter()
            .filter(|name| &***name != "*")
            .cloned()
            .collect();
        names.sort_unstable();
        names.dedup();
        let explicit = request.subscribe.iter().any(|name| &**name == "*");
        let legacy = request.subscribe.is_empty() && is_complete_type(url) && (first || self.wildcard);
        let wildcard = explicit || legacy;
        if !first && wildcard == self.wildcard && self.names.iter().eq(&names) {
            return (Vec::new(), Vec::new());
        }
        self.held = None;
        let gained = names.iter().any(|name| !self.wants(name)) || (wildcard && !self.wildcard);
        if gained {
            self.soil();
        }
        self.owed |= is_complete_type(url) && (first || gained);
        let unheld: Vec<Text> = names.iter().filter(|name| !self.wants(name)).cloned().collect();
        self.fresh.extend(unheld);
        let less = self.names.keep(&names);
        let more = self
            .names
            .extend(names.into_iter().map(|name| canonical(name, known)));
        if wildcard {
            self.want_all();
        }
        self.wildcard = wildcard;
        self.forget_unwanted();
        (more, less)
    }

    /// From now on everything is wanted; what is held already are the names alone.
    fn want_all(&mut self) {
        if !std::mem::replace(&mut self.wildcard, true)
            && let Some(base) = self.base.take()
        {
            let held = self.names.iter().filter(|name| !self.fresh.contains(*name));
            let versions = held.filter_map(|name| Some((name.clone(), base.get(name)?.version.clone())));
            self.told = versions.collect();
        }
    }

    fn forget_unwanted(&mut self) {
        if !self.wildcard {
            let names = &self.names;
            self.told.retain(|name, _| names.contains(name));
            self.fresh.retain(|name| names.contains(name));
        }
    }

    /// What must be sent so that the client holds what `set` says; `None`: nothing.
    fn changes(
        &mut self,
        protocol: Protocol,
        url: &str,
        set: Option<&TypeSet>,
    ) -> Option<(Vec<Arc<Resource>>, Vec<Text>)> {
        self.dirt = Dirt::None;
        let owed = std::mem::take(&mut self.owed);
        let set = set.cloned().unwrap_or_default();
        let (resources, removed) = match self.base.take() {
            None => {
                // What it asked for before the resources were known.
                self.names
                    .share(|name| set.get(name).map(|resource| &resource.name));
                self.first_look(&set)
            }
            Some(base) => self.later_look(&set, &base),
        };
        let changed = !resources.is_empty() || !removed.is_empty();
        if self.wildcard {
            self.held = Some(set.len());
        } else if self.held.is_none() {
            self.held = Some(self.names.iter().filter(|name| set.get(name).is_some()).count());
        }
        let answer = match protocol {
            Protocol::Delta if changed || owed => Some((resources, removed)),
            Protocol::StateOfTheWorld if is_complete_type(url) && (changed || owed) => {
                let all = set.values().filter(|resource| self.wants(&resource.name));
                Some((all.cloned().collect(), Vec::new()))
            }
            // Other types have no removal in this variant: the client drops what its clusters and listeners stop naming.
            Protocol::StateOfTheWorld if !resources.is_empty() => Some((resources, Vec::new())),
            Protocol::Delta | Protocol::StateOfTheWorld => None,
        };
        self.base = Some(set);
        answer
    }

    /// Everything that is wanted, but for what the client brought along.
    fn first_look(&mut self, set: &TypeSet) -> (Vec<Arc<Resource>>, Vec<Text>) {
        let told = std::mem::take(&mut self.told);
        let fresh = std::mem::take(&mut self.fresh);
        let is_known = |resource: &Resource| {
            told.get(&resource.name) == Some(&resource.version) && !fresh.contains(&resource.name)
        };
        let resources: Vec<Arc<Resource>> = if self.wildcard {
            set.values()
                .filter(|resource| !is_known(resource))
                .cloned()
                .collect()
        } else {
            let wanted = self.names.iter().filter_map(|name| set.get(name));
            wanted.filter(|resource| !is_known(resource)).cloned().collect()
        };
        let mut removed: Vec<Text> = self.names.iter().chain(told.keys()).cloned().collect();
        removed.retain(|name| set.get(name).is_none());
        removed.sort_unstable();
        removed.dedup();
        (resources, removed)
    }

    /// What differs from `base`, and what is to be sent in any case.
    fn later_look(&mut self, set: &TypeSet, base: &TypeSet) -> (Vec<Arc<Resource>>, Vec<Text>) {
        let fresh = std::mem::take(&mut self.fresh);
        let (mut resources, mut removed) = (Vec::new(), Vec::new());
        let mut held = self.held;
        set.differences(base, |name, old, new| {
            if !self.wants(name) {
                return;
            }
            match (old, new) {
                (None, Some(_)) => held = held.map(|held| held + 1),
                (Some(_), None) => held = held.map(|held| held.saturating_sub(1)),
                _ => {}
            }
            if fresh.contains(name) {
                return;
            }
            match new {
                Some(resource) => resources.push(Arc::clone(resource)),
                None => removed.push(name.clone()),
            }
        });
        self.held = held;
        for name in fresh {
            match set.get(&name) {
                Some(resource) => resources.push(Arc::clone(resource)),
                None => removed.push(name),
            }
        }
        resources.sort_by(|a, b| a.name.cmp(&b.name));
        removed.sort_unstable();
        (resources, removed)
    }
}

/// The text that the resource of that name carries, where there is one.
fn canonical(name: Text, known: Option<&TypeSet>) -> Text {
    known
        .and_then(|set| set.get(&name))
        .map_or(name, |resource| resource.name.clone())
}

fn cut(message: &str) -> String {
    let end = message.floor_char_boundary(NACK_MESSAGE_MAX);
    message.get(..end).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests;
