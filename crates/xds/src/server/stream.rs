//! One client's stream as a pure machine.
//!
//! ```text
//!  snapshot(set) ─► pending ──(nothing unanswered, or ROUND_TIMEOUT)──► applied ─► types dirty
//!  request(r)    ─► names, ACK or NACK ─► that type dirty
//!                                        next_response(): the first due type in push order, or nothing
//! ```
//!
//! Invariants: at most one snapshot is pending (the newest replaces it); `sent` holds desired names only; the settled
//! generation never falls and is never newer than the applied one. Bounds: `limits`. What it refuses: more types or names
//! than the caps allow ([`StreamFault`]), which ends the stream. What it ignores: answers (not names) whose nonce it never
//! gave or that a newer answer has overtaken.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use rajut_types::Text;

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
    names: BTreeSet<Text>,
    /// name → version that the client holds or is being sent; `None`: it was told that there is no such resource.
    sent: BTreeMap<Text, Option<Text>>,
    /// Names that are sent again although their version did not change.
    forced: BTreeSet<Text>,
    /// A response is due even if it is empty.
    owed: bool,
    dirt: Dirt,
    /// Unanswered responses, oldest first; at most [`OUTSTANDING_MAX`].
    outstanding: VecDeque<Outstanding>,
    status: TypeStatus,
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
            waiting_since: None,
            nonce: 0,
            settled: 0,
            last_change: 0,
        }
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
        let first = !self.types.contains_key(&url);
        let state = self.types.entry(url.clone()).or_default();
        state.answer(&request);
        match self.protocol {
            Protocol::Delta => state.subscribe_delta(&url, first, request),
            // Also where the nonce is stale: a stream keeps its order, so these are the newest names, and a name that was
            // dropped and asked for again while a push was on its way must be sent again.
            Protocol::StateOfTheWorld => state.subscribe_world(&url, first, &request),
        }
        if state.names.len() > NAMES_MAX || state.names.iter().any(|name| name.len() > NAME_BYTES_MAX) {
            return Err(StreamFault::TooManyNames { type_url: url });
        }
        if self.types.values().all(|state| state.outstanding.is_empty()) {
            self.waiting_since = None;
        } else if self.waiting_since.is_none() {
            self.waiting_since = Some(now);
        }
        Ok(())
    }

    /// The next message to send, in push order; call it until there is none after every event.
    pub fn next_response(&mut self, now: Duration) -> Option<Response> {
        loop {
            if let Some(response) = self.first_due(now) {
                return Some(response);
            }
            let idle = self.types.values().all(|state| state.outstanding.is_empty());
            if idle && let Some(applied) = &self.applied {
                self.settled = self.settled.max(applied.generation);
            }
            let overdue = self
                .waiting_since
                .is_some_and(|since| now.saturating_sub(since) >= ROUND_TIMEOUT);
            if !idle && !overdue {
                return None;
            }
            self.apply_pending(now)?;
        }
    }

    /// When [`ServerStream::next_response`] should be called although nothing has happened: a pending push whose
    /// predecessor is unanswered.
    pub fn deadline(&self) -> Option<Duration> {
        self.pending.as_ref()?;
        Some(self.waiting_since? + ROUND_TIMEOUT)
    }

    /// Everything that is known about the stream.
    pub fn status(&self) -> StreamStatus {
        let of_type = |state: &TypeState| TypeStatus {
            wildcard: state.wildcard,
            names: state.names.len(),
            resources: state.sent.values().flatten().count(),
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
            assert!(state.sent.keys().all(|name| state.wants(name)), "{state:?}");
            assert!(state.forced.iter().all(|name| state.wants(name)), "{state:?}");
        }
    }

    fn apply_pending(&mut self, now: Duration) -> Option<()> {
        let set = self.pending.take()?;
        for (url, state) in &mut self.types {
            let same = match (&self.applied, set.types.get(url)) {
                (Some(applied), Some(new)) => applied.types.get(url).is_some_and(|old| Arc::ptr_eq(old, new)),
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

    fn first_due(&mut self, now: Duration) -> Option<Response> {
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
            state.status.pushes += 1;
            state.status.sent_generation = set.generation;
            self.waiting_since.get_or_insert(now);
            if from_snapshot {
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
    fn warm_endpoints(&mut self, clusters: &Response) {
        let Some(endpoints) = self.types.get_mut(type_url::LOAD_ASSIGNMENT) else {
            return;
        };
        for cluster in &clusters.resources {
            if endpoints.sent.contains_key(&cluster.name) {
                endpoints.forced.insert(cluster.name.clone());
                endpoints.soil();
            }
        }
    }
}

impl TypeState {
    /// A request changed something; what a snapshot changed weighs more.
    fn soil(&mut self) {
        self.dirt = self.dirt.max(Dirt::Request);
    }

    fn wants(&self, name: &Text) -> bool {
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

    fn subscribe_delta(&mut self, url: &str, first: bool, request: Request) {
        let legacy_wildcard = first && request.subscribe.is_empty() && is_complete_type(url);
        if legacy_wildcard {
            self.wildcard = true;
        }
        for name in request.subscribe {
            self.soil();
            if &*name == "*" {
                self.owed |= !self.wildcard;
                self.wildcard = true;
            } else if !self.names.insert(name.clone()) {
                // Subscribed already: the client wants to see it again.
                self.forced.insert(name);
            } else if self.sent.get(&name).is_some_and(Option::is_none) {
                self.sent.remove(&name);
            }
        }
        for name in request.unsubscribe {
            if &*name == "*" {
                self.wildcard = false;
            } else {
                self.names.remove(&name);
            }
        }
        if first {
            self.soil();
            // A client that holds something already does not wait for a first answer.
            self.owed = self.wildcard && request.initial_versions.is_empty();
            for (name, version) in request.initial_versions.into_iter().take(NAMES_MAX) {
                if self.wants(&name) {
                    self.sent.insert(name, Some(version));
                }
            }
        }
        self.forget_unwanted();
    }

    fn subscribe_world(&mut self, url: &str, first: bool, request: &Request) {
        let names: BTreeSet<Text> = request
            .subscribe
            .iter()
            .filter(|name| &***name != "*")
            .cloned()
            .collect();
        let explicit = request.subscribe.iter().any(|name| &**name == "*");
        let legacy = request.subscribe.is_empty() && is_complete_type(url) && (first || self.wildcard);
        let wildcard = explicit || legacy;
        if first || wildcard != self.wildcard || names != self.names {
            let gained = names.iter().any(|name| !self.wants(name)) || (wildcard && !self.wildcard);
            if gained {
                self.soil();
            }
            self.owed |= is_complete_type(url) && (first || gained);
            self.wildcard = wildcard;
            self.names = names;
            self.forget_unwanted();
        }
    }

    fn forget_unwanted(&mut self) {
        if !self.wildcard {
            let names = &self.names;
            self.sent.retain(|name, _| names.contains(name));
            self.forced.retain(|name| names.contains(name));
        }
    }

    /// What must be sent so that the client holds what `set` says; `None`: nothing.
    fn changes(
        &mut self,
        protocol: Protocol,
        url: &str,
        set: Option<&Arc<TypeSet>>,
    ) -> Option<(Vec<Resource>, Vec<Text>)> {
        self.dirt = Dirt::None;
        let owed = std::mem::take(&mut self.owed);
        let forced = std::mem::take(&mut self.forced);
        let empty = TypeSet::new();
        let set = set.map_or(&empty, |set| &**set);
        let wanted: BTreeSet<&Text> = if self.wildcard {
            set.keys().chain(&self.names).collect()
        } else {
            self.names.iter().collect()
        };
        let (mut resources, mut removed) = (Vec::new(), Vec::new());
        for &name in &wanted {
            let have = self.sent.get(name);
            match set.get(name) {
                Some(resource)
                    if have.is_none_or(|have| have.as_ref() != Some(&resource.version))
                        || forced.contains(name) =>
                {
                    resources.push(resource.clone());
                }
                None if have.is_none_or(Option::is_some) || forced.contains(name) => {
                    removed.push(name.clone());
                }
                Some(_) | None => {}
            }
        }
        removed.extend(
            self.sent
                .iter()
                .filter(|(name, have)| have.is_some() && !wanted.contains(name))
                .map(|(name, _)| name.clone()),
        );
        let changed = !resources.is_empty() || !removed.is_empty();
        for resource in &resources {
            self.sent
                .insert(resource.name.clone(), Some(resource.version.clone()));
        }
        for name in &removed {
            if self.names.contains(name) {
                self.sent.insert(name.clone(), None);
            } else {
                self.sent.remove(name);
            }
        }
        match protocol {
            Protocol::Delta if changed || owed => Some((resources, removed)),
            Protocol::StateOfTheWorld if is_complete_type(url) && (changed || owed) => {
                let all = set.values().filter(|resource| self.wants(&resource.name));
                Some((all.cloned().collect(), Vec::new()))
            }
            // Other types have no removal in this variant: the client drops what its clusters and listeners stop naming.
            Protocol::StateOfTheWorld if !resources.is_empty() => Some((resources, Vec::new())),
            Protocol::Delta | Protocol::StateOfTheWorld => None,
        }
    }
}

fn cut(message: &str) -> String {
    let end = message.floor_char_boundary(NACK_MESSAGE_MAX);
    message.get(..end).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests;
