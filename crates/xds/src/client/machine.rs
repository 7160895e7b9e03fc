//! A client's side of one aggregated subscription as a pure machine. It outlives its streams: what was accepted stays
//! known while nothing is connected, and the next stream begins with it.
//!
//! ```text
//!  subscribe/unsubscribe ─► names ──┐
//!  connected() ─────────────────────┼─► next_request(): first requests, changes of names, answers
//!  answer(ticket, refusals) ────────┘
//!  response(r) ─► Update { ticket, resources, removed } ─► the proxy adopts it, then answer()
//! ```
//!
//! Invariants: every response is answered at most once and only on the stream that it came from; a version is remembered
//! only for what was accepted, so a refused resource is offered again by the next stream. Of what arrives only what was asked
//! for goes on to the proxy: a control plane can't fill it with types or names that nobody wants, nor with more than
//! [`NAMES_MAX`] resources of a type that is wanted whole. Bounds: `limits`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use rajut_types::Text;

use crate::{
    limits::{NACK_MESSAGE_MAX, NAMES_MAX, OUTSTANDING_MAX},
    message::{Node, Protocol, Request, Response},
    resource::{PUSH_ORDER, Resource, is_complete_type},
};

/// The machine.
#[derive(Debug)]
pub struct ClientMachine {
    protocol: Protocol,
    node: Node,
    types: BTreeMap<Text, TypeState>,
    /// Counts streams; a ticket of an earlier one is not sent.
    session: u64,
    connected: bool,
    node_sent: bool,
    updates: u64,
}

#[derive(Debug, Default)]
struct TypeState {
    wildcard: bool,
    names: BTreeSet<Text>,
    /// name → (accepted version, the update that brought it).
    accepted: BTreeMap<Text, (Text, u64)>,
    /// Names to tell on the open stream.
    changes: BTreeMap<Text, Change>,
    /// The first request of this stream is sent.
    begun: bool,
    /// State of the world: the names or the wildcard changed since the last request.
    names_changed: bool,
    answers: VecDeque<Answer>,
    /// Updates that the proxy has not answered; at most [`OUTSTANDING_MAX`].
    open: BTreeMap<u64, Open>,
    /// State of the world: version and nonce of the last response.
    version: Text,
    nonce: Text,
}

/// What the server is to be told about a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Add,
    /// It was dropped, which the server was not told yet, and is wanted again: meanwhile the proxy has forgotten it. To ask
    /// for what one is subscribed to means to be sent it again.
    Again,
    Drop,
}

#[derive(Debug)]
struct Answer {
    nonce: Text,
    error: Option<String>,
}

#[derive(Debug)]
struct Open {
    version: Text,
    resources: Vec<(Text, Text)>,
    removed: Vec<Text>,
    /// There was no room for something.
    overflow: Option<Refusal>,
}

/// What an answer refers to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Ticket {
    type_url: Text,
    nonce: Text,
    session: u64,
    update: u64,
}

/// What a response means for the proxy.
#[derive(Debug, Clone)]
pub struct Update {
    /// For [`ClientMachine::answer`].
    pub ticket: Ticket,
    /// Which type.
    pub type_url: Text,
    /// The server's version of the whole, for people.
    pub version: Text,
    /// New or changed resources.
    pub resources: Vec<Resource>,
    /// Names that are gone.
    pub removed: Vec<Text>,
}

/// A resource that the proxy does not take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Its name.
    pub resource: Text,
    /// The field's path; empty where the whole is meant.
    pub path: String,
    /// What is wrong.
    pub reason: String,
}

impl ClientMachine {
    /// A machine without subscriptions, not connected.
    pub fn new(protocol: Protocol, node: Node) -> Self {
        Self {
            protocol,
            node,
            types: BTreeMap::new(),
            session: 0,
            connected: false,
            node_sent: false,
            updates: 0,
        }
    }

    /// The variant that it speaks.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Wants everything of a type.
    pub fn subscribe_all(&mut self, type_url: &str) {
        let state = self.types.entry(type_url.into()).or_default();
        if !state.wildcard {
            state.wildcard = true;
            state.names_changed = true;
            state.changes.insert("*".into(), Change::Add);
        }
    }

    /// Wants these resources of a type.
    pub fn subscribe(&mut self, type_url: &str, names: impl IntoIterator<Item = Text>) {
        let state = self.types.entry(type_url.into()).or_default();
        for name in names {
            if state.names.insert(name.clone()) {
                state.names_changed = true;
                let again = state.changes.get(&name) == Some(&Change::Drop);
                state
                    .changes
                    .insert(name, if again { Change::Again } else { Change::Add });
            }
        }
    }

    /// Does not want these any more. What is known of them is forgotten when the server is told: until then it takes them
    /// for known here, and would not send them again to one who changes their mind.
    pub fn unsubscribe<'a>(&mut self, type_url: &str, names: impl IntoIterator<Item = &'a str>) {
        let Some(state) = self.types.get_mut(type_url) else {
            return;
        };
        for name in names {
            if state.names.remove(name) {
                state.names_changed = true;
                // A subscription that was not told yet need not be taken back.
                if state.changes.remove(name) != Some(Change::Add) {
                    state.changes.insert(name.into(), Change::Drop);
                }
            }
        }
    }

    /// Holds these versions already, from an earlier life of the process: the next stream begins with them. `false` where a
    /// stream has begun without them, which then has to be opened anew, or the server would not tell what is gone.
    pub fn remember(&mut self, type_url: &str, versions: impl IntoIterator<Item = (Text, Text)>) -> bool {
        let state = self.types.entry(type_url.into()).or_default();
        for (name, version) in versions {
            state.accepted.entry(name).or_insert((version, 0));
        }
        !(self.connected && state.begun)
    }

    /// A stream is open: the first requests are due.
    pub fn connected(&mut self) {
        self.session += 1;
        self.connected = true;
        self.node_sent = false;
        for state in self.types.values_mut() {
            state.begun = false;
            state.names_changed = false;
            state.changes.clear();
            state.answers.clear();
            state.nonce = Text::default();
        }
    }

    /// The stream has ended. What was accepted stays.
    pub fn disconnected(&mut self) {
        self.connected = false;
        for state in self.types.values_mut() {
            state.answers.clear();
        }
    }

    /// The server's message as an update for the proxy; `None` where nobody asked for anything of that type, and such a
    /// message is not answered either. Resources that nobody asked for by name are left out.
    pub fn response(&mut self, response: Response) -> Option<Update> {
        let Response {
            type_url,
            version,
            nonce,
            mut resources,
            mut removed,
        } = response;
        let state = self.types.get_mut(&type_url).filter(|state| state.begun)?;
        self.updates += 1;
        if self.protocol == Protocol::StateOfTheWorld {
            state.nonce = nonce.clone();
            if is_complete_type(&type_url) {
                let named: BTreeSet<&Text> = resources.iter().map(|resource| &resource.name).collect();
                removed.extend(
                    state
                        .accepted
                        .keys()
                        .filter(|name| !named.contains(name))
                        .cloned(),
                );
            }
        }
        let overflow = state.retain_wanted(&mut resources, &mut removed);
        state.open.insert(
            self.updates,
            Open {
                version: version.clone(),
                resources: resources
                    .iter()
                    .map(|resource| (resource.name.clone(), resource.version.clone()))
                    .collect(),
                removed: removed.clone(),
                overflow,
            },
        );
        if state.open.len() > OUTSTANDING_MAX {
            state.open.pop_first();
        }
        Some(Update {
            ticket: Ticket {
                type_url: type_url.clone(),
                nonce,
                session: self.session,
                update: self.updates,
            },
            type_url,
            version,
            resources,
            removed,
        })
    }

    /// The proxy has adopted an update, but for the refused resources.
    pub fn answer(&mut self, ticket: &Ticket, refusals: &[Refusal]) {
        let Some(state) = self.types.get_mut(&ticket.type_url) else {
            return;
        };
        let Some(open) = state.open.remove(&ticket.update) else {
            return;
        };
        let refusals: Vec<&Refusal> = refusals.iter().chain(&open.overflow).collect();
        let refused: BTreeSet<&str> = refusals.iter().map(|refusal| &*refusal.resource).collect();
        for name in &open.removed {
            if state
                .accepted
                .get(name)
                .is_some_and(|(_, update)| *update < ticket.update)
            {
                state.accepted.remove(name);
            }
        }
        for (name, version) in open.resources {
            let newer = state
                .accepted
                .get(&name)
                .is_none_or(|(_, update)| *update < ticket.update);
            if newer && !refused.contains(&*name) && (state.wildcard || state.names.contains(&name)) {
                state.accepted.insert(name, (version, ticket.update));
            }
        }
        if refusals.is_empty() {
            state.version = open.version;
        }
        if self.connected && ticket.session == self.session {
            state.answers.push_back(Answer {
                nonce: ticket.nonce.clone(),
                error: (!refusals.is_empty()).then(|| error_detail(&refusals)),
            });
        }
    }

    /// The next message to send on the open stream; call it until there is none after every event.
    pub fn next_request(&mut self) -> Option<Request> {
        if !self.connected {
            return None;
        }
        let protocol = self.protocol;
        let ordered = PUSH_ORDER.iter().copied();
        let others = self
            .types
            .keys()
            .filter(|url| !PUSH_ORDER.contains(&&***url))
            .cloned()
            .collect::<Vec<_>>();
        let mut request = None;
        for url in ordered.chain(others.iter().map(|url| &**url)) {
            let Some(state) = self.types.get_mut(url) else {
                continue;
            };
            request = match protocol {
                Protocol::Delta => state.next_delta(),
                Protocol::StateOfTheWorld => state.next_world(),
            };
            if let Some(request) = &mut request {
                request.type_url = url.into();
                break;
            }
        }
        let mut request = request?;
        if !std::mem::replace(&mut self.node_sent, true) {
            request.node = Some(self.node.clone());
        }
        Some(request)
    }

    /// The versions that were accepted, by name.
    pub fn accepted(&self, type_url: &str) -> BTreeMap<Text, Text> {
        self.types
            .get(type_url)
            .map(TypeState::versions)
            .unwrap_or_default()
    }
}

impl TypeState {
    fn versions(&self) -> BTreeMap<Text, Text> {
        self.accepted
            .iter()
            .map(|(name, (version, _))| (name.clone(), version.clone()))
            .collect()
    }

    /// The versions that a new stream may rely on: not those that an update still on its way through the proxy is about to
    /// change, or the server would take the old version for the final one.
    fn certain_versions(&self) -> BTreeMap<Text, Text> {
        let mut versions = self.versions();
        for open in self.open.values() {
            for name in open.resources.iter().map(|(name, _)| name).chain(&open.removed) {
                versions.remove(name);
            }
        }
        versions
    }

    /// Leaves out what nobody asked for, and what there is no room for; tells of the latter.
    fn retain_wanted(&self, resources: &mut Vec<Resource>, removed: &mut Vec<Text>) -> Option<Refusal> {
        if !self.wildcard {
            resources.retain(|resource| self.names.contains(&resource.name));
            removed.retain(|name| self.names.contains(name) || self.accepted.contains_key(name));
            return None;
        }
        // What an update still on its way will bring is not counted: its names are at most as many again.
        let mut room = NAMES_MAX.saturating_sub(self.accepted.len());
        let mut over = None;
        resources.retain(|Resource { name, .. }| {
            let fits = self.accepted.contains_key(name) || room > 0;
            if !fits {
                over.get_or_insert_with(|| name.clone());
            } else if !self.accepted.contains_key(name) {
                room -= 1;
            }
            fits
        });
        Some(Refusal {
            resource: over?,
            path: String::new(),
            reason: format!("more than {NAMES_MAX} resources of this type"),
        })
    }

    fn wanted(&self) -> Vec<Text> {
        let all = self.wildcard.then(|| Text::from("*"));
        all.into_iter().chain(self.names.iter().cloned()).collect()
    }

    /// Called with every message that tells which names are wanted.
    fn forget_unwanted(&mut self) {
        if !self.wildcard {
            let names = &self.names;
            self.accepted.retain(|name, _| names.contains(name));
        }
    }

    fn next_delta(&mut self) -> Option<Request> {
        if !self.begun {
            if !self.wildcard && self.names.is_empty() {
                return None;
            }
            self.begun = true;
            self.changes.clear();
            self.forget_unwanted();
            return Some(Request {
                subscribe: self.wanted(),
                initial_versions: self.certain_versions(),
                ..Request::default()
            });
        }
        let mut request = Request::default();
        if !self.changes.is_empty() {
            self.forget_unwanted();
        }
        for (name, change) in std::mem::take(&mut self.changes) {
            match change {
                Change::Add | Change::Again => &mut request.subscribe,
                Change::Drop => &mut request.unsubscribe,
            }
            .push(name);
        }
        if let Some(answer) = self.answers.pop_front() {
            request.nonce = answer.nonce;
            request.error = answer.error;
        }
        (request != Request::default()).then_some(request)
    }

    fn next_world(&mut self) -> Option<Request> {
        if !self.begun {
            if !self.wildcard && self.names.is_empty() {
                return None;
            }
            self.begun = true;
            // Nothing was told on this stream that could be taken back.
            self.changes.clear();
            let first = Answer {
                nonce: Text::default(),
                error: None,
            };
            return Some(self.tell_world(first));
        }
        if let Some(answer) = self.answers.pop_front() {
            return Some(self.tell_world(answer));
        }
        // A response that is not answered yet must not be acknowledged by a change of names.
        (self.names_changed && self.open.is_empty()).then(|| {
            let repeat = Answer {
                nonce: self.nonce.clone(),
                error: None,
            };
            self.tell_world(repeat)
        })
    }

    /// All names that are wanted, with an answer. A name that was dropped unbeknown to the server and is wanted again is left out
    /// once, and told by the next message: to the server it never went, so that it would not send it again.
    fn tell_world(&mut self, answer: Answer) -> Request {
        let again: BTreeSet<Text> = std::mem::take(&mut self.changes)
            .into_iter()
            .filter(|(name, change)| *change == Change::Again && self.names.contains(name))
            .map(|(name, _)| name)
            .collect();
        self.names_changed = !again.is_empty();
        self.forget_unwanted();
        if !self.wildcard {
            self.accepted.retain(|name, _| !again.contains(name));
        }
        // Legacy form: no name at all means everything.
        let subscribe = if self.wildcard && self.names.is_empty() {
            Vec::new()
        } else {
            let mut wanted = self.wanted();
            wanted.retain(|name| !again.contains(name));
            wanted
        };
        Request {
            subscribe,
            version: self.version.clone(),
            nonce: answer.nonce,
            error: answer.error,
            ..Request::default()
        }
    }
}

fn error_detail(refusals: &[&Refusal]) -> String {
    let mut text = String::new();
    for Refusal {
        resource,
        path,
        reason,
    } in refusals
    {
        let separator = if text.is_empty() { "" } else { "; " };
        let dot = if path.is_empty() { "" } else { " " };
        text.extend([separator, resource, dot, path, ": ", reason]);
        if text.len() > NACK_MESSAGE_MAX {
            let end = text.floor_char_boundary(NACK_MESSAGE_MAX);
            text.truncate(end);
            break;
        }
    }
    text
}

#[cfg(test)]
mod tests;
