use std::{sync::Arc, time::Duration};

use proptest::prelude::*;

use super::*;
use crate::{
    resource::{ResourceSet, TypeSet, type_url},
    server::ServerStream,
};

const CDS: &str = type_url::CLUSTER;
const EDS: &str = type_url::LOAD_ASSIGNMENT;

fn resource(name: &str, version: &str) -> Resource {
    Resource {
        name: name.into(),
        version: version.into(),
        body: crate::Payload::default(),
    }
}

fn response(nonce: &str, resources: &[(&str, &str)]) -> Response {
    Response {
        type_url: CDS.into(),
        version: nonce.into(),
        nonce: nonce.into(),
        resources: resources
            .iter()
            .map(|(name, version)| resource(name, version))
            .collect(),
        removed: Vec::new(),
    }
}

fn refusal(name: &str) -> Refusal {
    Refusal {
        resource: name.into(),
        path: "lb_policy".into(),
        reason: "unknown".into(),
    }
}

fn machine(protocol: Protocol) -> ClientMachine {
    let node = Node {
        id: "me".into(),
        ..Node::default()
    };
    ClientMachine::new(protocol, node)
}

#[test]
fn a_nack_names_the_refused_resources_and_keeps_the_others() {
    let mut client = machine(Protocol::Delta);
    client.subscribe_all(CDS);
    assert_eq!(client.next_request(), None, "nothing is connected");
    client.connected();
    let first = client.next_request().expect("the first request");
    assert_eq!(first.subscribe, [Text::from("*")]);
    assert_eq!(&*first.node.expect("on the first request").id, "me");
    let update = client
        .response(response("1", &[("good", "1"), ("bad", "1")]))
        .expect("it was asked for");
    assert_eq!(client.next_request(), None, "not adopted yet");
    client.answer(&update.ticket, &[refusal("bad")]);
    let nack = client.next_request().expect("the answer");
    assert_eq!(
        (&*nack.nonce, nack.error.as_deref()),
        ("1", Some("bad lb_policy: unknown"))
    );
    assert_eq!(nack.node, None);

    client.disconnected();
    client.connected();
    let again = client
        .next_request()
        .expect("the first request of the next stream");
    assert!(again.node.is_some());
    let held: Vec<_> = again.initial_versions.iter().map(|(n, v)| (&**n, &**v)).collect();
    assert_eq!(held, [("good", "1")]);
}

#[test]
fn a_late_answer_is_remembered_but_not_sent_to_another_stream() {
    let mut client = machine(Protocol::Delta);
    client.subscribe_all(CDS);
    client.connected();
    client.next_request();
    let update = client
        .response(response("1", &[("a", "1")]))
        .expect("it was asked for");
    client.disconnected();
    client.connected();
    client.next_request().expect("first");
    client.answer(&update.ticket, &[]);
    assert_eq!(client.next_request(), None);
    assert_eq!(client.accepted(CDS).len(), 1);
    client.answer(&update.ticket, &[]);
    assert_eq!(client.next_request(), None, "a second answer is none");
}

#[test]
fn names_come_and_go_as_differences() {
    let mut client = machine(Protocol::Delta);
    client.subscribe(EDS, ["a".into(), "b".into()]);
    client.connected();
    assert_eq!(client.next_request().expect("first").subscribe.len(), 2);
    client.subscribe(EDS, ["c".into(), "d".into()]);
    client.unsubscribe(EDS, ["a", "d"]);
    let change = client.next_request().expect("a change");
    assert_eq!(
        (change.subscribe, change.unsubscribe),
        (vec!["c".into()], vec!["a".into()])
    );
    assert_eq!(client.next_request(), None);
}

#[test]
fn what_was_dropped_and_is_wanted_again_is_asked_for_again() {
    let mut client = machine(Protocol::Delta);
    client.subscribe(CDS, ["a".into()]);
    client.connected();
    client.next_request();
    client.unsubscribe(CDS, ["a"]);
    client.subscribe(CDS, ["a".into()]);
    let change = client.next_request().expect("the proxy forgot it in between");
    assert_eq!((change.subscribe, change.unsubscribe), (vec!["a".into()], vec![]));
    client.unsubscribe(CDS, ["a"]);
    client.subscribe(CDS, ["a".into()]);
    client.unsubscribe(CDS, ["a"]);
    let change = client.next_request().expect("the server knows it");
    assert_eq!((change.subscribe, change.unsubscribe), (vec![], vec!["a".into()]));
}

#[test]
fn what_nobody_asked_for_is_not_kept() {
    let mut client = machine(Protocol::Delta);
    client.subscribe(CDS, ["a".into(), "b".into()]);
    client.connected();
    client.next_request();
    for number in 0..1000 {
        let other = Response {
            type_url: format!("type.googleapis.com/other.Type{number}").into(),
            ..response("1", &[("a", "1")])
        };
        assert!(client.response(other).is_none());
    }
    assert_eq!(client.types.len(), 1, "one type is subscribed");
    let mut some = response("2", &[("a", "1"), ("unasked", "1")]);
    some.removed = vec!["b".into(), "unasked-too".into()];
    let update = client.response(some).expect("of a subscribed type");
    let names: Vec<_> = update.resources.iter().map(|resource| &*resource.name).collect();
    assert_eq!((names, update.removed), (vec!["a"], vec!["b".into()]));
    client.answer(&update.ticket, &[]);
    let answer = client.next_request().expect("the answer");
    assert_eq!((&*answer.nonce, answer.error), ("2", None));
    assert_eq!(client.accepted(CDS).len(), 1);
}

#[test]
fn a_type_that_is_wanted_whole_has_room_for_so_many() {
    let mut client = machine(Protocol::Delta);
    client.subscribe_all(CDS);
    client.connected();
    client.next_request();
    let many = |from: usize, count: usize| Response {
        resources: (from..from + count)
            .map(|number| resource(&number.to_string(), "1"))
            .collect(),
        ..response("1", &[])
    };
    let update = client.response(many(0, NAMES_MAX)).expect("it was asked for");
    assert_eq!(update.resources.len(), NAMES_MAX);
    client.answer(&update.ticket, &[]);
    assert_eq!(client.next_request().expect("the answer").error, None);
    let update = client.response(many(NAMES_MAX - 1, 3)).expect("it was asked for");
    assert_eq!(update.resources.len(), 1, "the known one");
    client.answer(&update.ticket, &[]);
    let answer = client.next_request().expect("the answer");
    assert!(
        answer.error.expect("a refusal").contains("more than 100000"),
        "told"
    );
    assert_eq!(client.accepted(CDS).len(), NAMES_MAX);
}

#[test]
fn state_of_the_world_finds_what_is_gone_and_repeats_the_last_good_version() {
    let mut client = machine(Protocol::StateOfTheWorld);
    client.subscribe_all(CDS);
    client.connected();
    assert!(client.next_request().expect("first").subscribe.is_empty());
    let update = client
        .response(response("1", &[("a", "1"), ("b", "1")]))
        .expect("it was asked for");
    client.answer(&update.ticket, &[]);
    assert_eq!(&*client.next_request().expect("ack").version, "1");
    let update = client
        .response(response("2", &[("b", "2")]))
        .expect("it was asked for");
    assert_eq!(update.removed, [Text::from("a")]);
    client.answer(&update.ticket, &[refusal("b")]);
    let nack = client.next_request().expect("nack");
    assert_eq!((&*nack.version, &*nack.nonce), ("1", "2"));
    assert!(nack.error.is_some());
}

#[derive(Debug, Clone)]
enum Step {
    Subscribe(usize),
    Unsubscribe(usize),
    Change(usize, usize),
    ToServer,
    ToClient,
    Answer,
    Cut,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        2 => (0..4_usize).prop_map(Step::Subscribe),
        1 => (0..4_usize).prop_map(Step::Unsubscribe),
        4 => (0..4_usize, 0..4_usize).prop_map(|(name, version)| Step::Change(name, version)),
        4 => Just(Step::ToServer),
        4 => Just(Step::ToClient),
        4 => Just(Step::Answer),
        1 => Just(Step::Cut),
    ];
    proptest::collection::vec(step, 1..150)
}

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

/// Both machines with a queue in each direction that is cut now and then.
struct Pair {
    protocol: Protocol,
    client: ClientMachine,
    server: ServerStream,
    generation: u64,
    configured: BTreeMap<Text, Text>,
    wanted: BTreeSet<Text>,
    to_server: VecDeque<Request>,
    to_client: VecDeque<Response>,
    open: VecDeque<Update>,
}

impl Pair {
    fn new(protocol: Protocol) -> Self {
        let mut client = machine(protocol);
        client.connected();
        Self {
            protocol,
            client,
            server: ServerStream::new(protocol),
            generation: 0,
            configured: BTreeMap::new(),
            wanted: BTreeSet::new(),
            to_server: VecDeque::new(),
            to_client: VecDeque::new(),
            open: VecDeque::new(),
        }
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Subscribe(name) => {
                self.wanted.insert(NAMES[name].into());
                self.client.subscribe(EDS, [NAMES[name].into()]);
            }
            Step::Unsubscribe(name) => {
                self.wanted.remove(NAMES[name]);
                self.client.unsubscribe(EDS, [NAMES[name]]);
            }
            Step::Change(name, version) => {
                if version == 0 {
                    self.configured.remove(NAMES[name]);
                } else {
                    self.configured
                        .insert(NAMES[name].into(), version.to_string().into());
                }
                self.generation += 1;
                self.server.snapshot(self.snapshot());
            }
            Step::ToServer => {
                if let Some(request) = self.to_server.pop_front() {
                    self.server.request(request, Duration::ZERO).expect("small");
                }
            }
            Step::ToClient => {
                if let Some(response) = self.to_client.pop_front() {
                    self.open.extend(self.client.response(response));
                }
            }
            Step::Answer => {
                if let Some(update) = self.open.pop_front() {
                    self.client.answer(&update.ticket, &[]);
                }
            }
            Step::Cut => {
                self.client.disconnected();
                self.to_server.clear();
                self.to_client.clear();
                self.server = ServerStream::new(self.protocol);
                self.server.snapshot(self.snapshot());
                self.client.connected();
            }
        }
        self.server.check_invariants();
        self.to_server
            .extend(std::iter::from_fn(|| self.client.next_request()));
        self.to_client.extend(std::iter::from_fn(|| {
            self.server.next_response(Duration::ZERO).map(owned)
        }));
    }

    fn snapshot(&self) -> Arc<ResourceSet> {
        let resources = self
            .configured
            .iter()
            .map(|(name, version)| resource(name, version));
        Arc::new(ResourceSet {
            generation: self.generation,
            types: [(EDS.into(), resources.collect::<TypeSet>())].into(),
        })
    }

    fn settle(&mut self) {
        for _ in 0..1_000 {
            if self.to_server.is_empty() && self.to_client.is_empty() && self.open.is_empty() {
                return;
            }
            for step in [Step::ToServer, Step::ToClient, Step::Answer] {
                self.take(&step);
            }
        }
        panic!("the two never come to rest");
    }
}

/// As it arrives at the other end.
fn owned(response: Response<Arc<Resource>>) -> Response {
    Response {
        type_url: response.type_url,
        version: response.version,
        nonce: response.nonce,
        resources: response
            .resources
            .iter()
            .map(|one| Resource::clone(one))
            .collect(),
        removed: response.removed,
    }
}

proptest! {
    /// Both machines talk, streams are cut anywhere: when they come to rest, the client has accepted exactly what is
    /// configured and wanted, at its newest version.
    #[test]
    fn client_and_server_converge_through_cuts(steps in steps()) {
        let mut pair = Pair::new(Protocol::Delta);
        for step in &steps {
            pair.take(step);
        }
        pair.settle();
        let expected: BTreeMap<Text, Text> = pair
            .configured
            .iter()
            .filter(|(name, _)| pair.wanted.contains(*name))
            .map(|(name, version)| (name.clone(), version.clone()))
            .collect();
        prop_assert_eq!(pair.client.accepted(EDS), expected);
    }

    /// The same in state-of-the-world form always comes to rest (endpoints have no removal there).
    #[test]
    fn state_of_the_world_comes_to_rest_through_cuts(steps in steps()) {
        let mut pair = Pair::new(Protocol::StateOfTheWorld);
        for step in &steps {
            pair.take(step);
        }
        pair.settle();
        let accepted = pair.client.accepted(EDS);
        for (name, _) in pair.configured.iter().filter(|(name, _)| pair.wanted.contains(*name)) {
            prop_assert!(accepted.contains_key(name), "{} is missing", name);
        }
    }
}
