use bytes::Bytes;
use proptest::prelude::*;

use super::*;

const T0: Duration = Duration::ZERO;

fn set(generation: u64, of: &[(&str, &[(&str, &str)])]) -> Arc<ResourceSet> {
    let types = of.iter().map(|(url, resources)| {
        let resources = resources.iter().map(|(name, version)| Resource {
            name: (*name).into(),
            version: (*version).into(),
            body: Bytes::from(format!("{name}@{version}")).into(),
        });
        (Text::from(*url), resources.collect::<TypeSet>())
    });
    Arc::new(ResourceSet {
        generation,
        types: types.collect(),
    })
}

type Sent = Response<Arc<Resource>>;

fn names(response: &Sent) -> Vec<&str> {
    response
        .resources
        .iter()
        .map(|resource| &*resource.name)
        .collect()
}

fn ack(response: &Sent) -> Request {
    Request {
        type_url: response.type_url.clone(),
        nonce: response.nonce.clone(),
        ..Request::default()
    }
}

fn drain(stream: &mut ServerStream, now: Duration) -> Vec<Sent> {
    std::iter::from_fn(|| stream.next_response(now)).collect()
}

const CDS: &str = type_url::CLUSTER;
const EDS: &str = type_url::LOAD_ASSIGNMENT;
const LDS: &str = type_url::LISTENER;
const RDS: &str = type_url::ROUTE;

#[test]
fn types_are_pushed_in_make_before_break_order() {
    let mut stream = ServerStream::new(Protocol::Delta);
    for (url, name) in [(RDS, "r"), (LDS, "*"), (EDS, "c"), (CDS, "*")] {
        stream
            .request(Request::subscribe(url, &[name]), T0)
            .expect("valid");
    }
    assert_eq!(stream.next_response(T0), None, "nothing is known yet");
    stream.snapshot(set(
        1,
        &[
            (RDS, &[("r", "1")]),
            (LDS, &[("l", "1")]),
            (EDS, &[("c", "1")]),
            (CDS, &[("c", "1")]),
        ],
    ));
    let order: Vec<_> = drain(&mut stream, T0)
        .iter()
        .map(|r| r.type_url.to_string())
        .collect();
    assert_eq!(order, [CDS, EDS, LDS, RDS]);
}

#[test]
fn a_changed_cluster_has_its_endpoints_sent_again() {
    let mut stream = ServerStream::new(Protocol::Delta);
    stream.snapshot(set(
        1,
        &[(CDS, &[("a", "1"), ("b", "1")]), (EDS, &[("a", "1"), ("b", "1")])],
    ));
    stream.request(Request::subscribe(CDS, &[]), T0).expect("valid");
    stream
        .request(Request::subscribe(EDS, &["a", "b"]), T0)
        .expect("valid");
    for response in drain(&mut stream, T0) {
        stream.request(ack(&response), T0).expect("valid");
    }
    stream.snapshot(set(
        2,
        &[(CDS, &[("a", "2"), ("b", "1")]), (EDS, &[("a", "1"), ("b", "1")])],
    ));
    let pushed = drain(&mut stream, T0);
    assert_eq!(pushed.len(), 2);
    assert_eq!((&*pushed[0].type_url, names(&pushed[0])), (CDS, vec!["a"]));
    assert_eq!((&*pushed[1].type_url, names(&pushed[1])), (EDS, vec!["a"]));
}

#[test]
fn only_the_newest_snapshot_follows_an_unanswered_push() {
    let mut stream = ServerStream::new(Protocol::Delta);
    stream.snapshot(set(1, &[(CDS, &[("a", "1")])]));
    stream
        .request(Request::subscribe(CDS, &["*"]), T0)
        .expect("valid");
    let first = drain(&mut stream, T0);
    for generation in 2..=9 {
        stream.snapshot(set(generation, &[(CDS, &[("a", &generation.to_string())])]));
        assert_eq!(drain(&mut stream, T0), []);
    }
    assert_eq!(stream.status().settled, 0);
    stream.request(ack(&first[0]), T0).expect("valid");
    let second = drain(&mut stream, T0);
    assert_eq!(second.len(), 1);
    assert_eq!(&*second[0].resources[0].version, "9");
    assert_eq!(stream.status().settled, 1);
    stream.request(ack(&second[0]), T0).expect("valid");
    assert_eq!(stream.next_response(T0), None);
    assert_eq!(stream.status().settled, 9);
    assert_eq!(stream.status().last_change, 9);
}

#[test]
fn a_silent_client_gets_the_next_push_after_the_timeout() {
    let mut stream = ServerStream::new(Protocol::Delta);
    stream.snapshot(set(1, &[(CDS, &[("a", "1")])]));
    stream
        .request(Request::subscribe(CDS, &["*"]), T0)
        .expect("valid");
    drain(&mut stream, T0);
    stream.snapshot(set(2, &[(CDS, &[("a", "2")])]));
    let deadline = stream.deadline().expect("a push waits");
    assert_eq!(
        drain(&mut stream, deadline.saturating_sub(Duration::from_millis(1))),
        []
    );
    assert_eq!(drain(&mut stream, deadline).len(), 1);
}

#[test]
fn a_nack_is_kept_with_its_reason_and_nothing_is_repeated() {
    let mut stream = ServerStream::new(Protocol::Delta);
    stream.snapshot(set(5, &[(LDS, &[("a", "1")])]));
    stream
        .request(Request::subscribe(LDS, &["*"]), T0)
        .expect("valid");
    let response = stream.next_response(T0).expect("the first push");
    let mut nack = ack(&response);
    nack.error = Some("a filter_chains[0]: no".into());
    stream.request(nack, T0).expect("valid");
    assert_eq!(stream.next_response(T0), None);
    let status = stream.status();
    assert_eq!(status.settled, 5, "a refusal settles too");
    let listeners = &status.types[LDS];
    assert_eq!((listeners.acked_generation, listeners.rejects), (0, 1));
    assert_eq!(
        listeners.nack.as_ref().expect("kept").message,
        "a filter_chains[0]: no"
    );
    stream.snapshot(set(6, &[(LDS, &[("a", "2")])]));
    let response = stream.next_response(T0).expect("the new version");
    stream.request(ack(&response), T0).expect("valid");
    assert_eq!(stream.status().types[LDS].nack, None);
}

#[test]
fn a_reconnecting_client_gets_only_what_changed_and_what_is_gone() {
    let mut stream = ServerStream::new(Protocol::Delta);
    stream.snapshot(set(3, &[(CDS, &[("same", "1"), ("changed", "2"), ("new", "1")])]));
    let mut first = Request::subscribe(CDS, &["*"]);
    for name in ["same", "changed", "gone"] {
        first.initial_versions.insert(name.into(), "1".into());
    }
    stream.request(first, T0).expect("valid");
    let response = stream.next_response(T0).expect("changes");
    assert_eq!(names(&response), ["changed", "new"]);
    assert_eq!(response.removed, [Text::from("gone")]);
}

#[test]
fn names_that_do_not_exist_are_said_to_be_removed_once_and_appear_later() {
    let mut stream = ServerStream::new(Protocol::Delta);
    stream.snapshot(set(1, &[]));
    stream
        .request(Request::subscribe(RDS, &["later"]), T0)
        .expect("valid");
    let response = stream.next_response(T0).expect("an answer");
    assert_eq!(response.removed, [Text::from("later")]);
    stream.request(ack(&response), T0).expect("valid");
    assert_eq!(stream.next_response(T0), None);
    stream.snapshot(set(2, &[(RDS, &[("later", "1"), ("unasked", "1")])]));
    assert_eq!(
        names(&stream.next_response(T0).expect("it exists now")),
        ["later"]
    );
}

#[test]
fn asking_again_for_a_name_sends_it_again() {
    let mut stream = ServerStream::new(Protocol::Delta);
    stream.snapshot(set(1, &[(EDS, &[("a", "1")])]));
    for _ in 0..2 {
        stream
            .request(Request::subscribe(EDS, &["a"]), T0)
            .expect("valid");
        let response = stream.next_response(T0).expect("sent each time");
        assert_eq!(names(&response), ["a"]);
        stream.request(ack(&response), T0).expect("valid");
    }
}

#[test]
fn state_of_the_world_is_complete_for_clusters_and_partial_for_endpoints() {
    let mut stream = ServerStream::new(Protocol::StateOfTheWorld);
    stream.snapshot(set(
        1,
        &[(CDS, &[("a", "1"), ("b", "1")]), (EDS, &[("a", "1"), ("b", "1")])],
    ));
    stream.request(Request::subscribe(CDS, &[]), T0).expect("valid");
    let clusters = stream.next_response(T0).expect("all clusters");
    assert_eq!(names(&clusters), ["a", "b"]);
    stream.request(ack(&clusters), T0).expect("valid");
    stream
        .request(Request::subscribe(EDS, &["a", "b"]), T0)
        .expect("valid");
    let endpoints = stream.next_response(T0).expect("both");
    let mut answer = ack(&endpoints);
    answer.subscribe = vec!["a".into(), "b".into()];
    stream.request(answer.clone(), T0).expect("valid");
    assert_eq!(stream.next_response(T0), None);

    stream.snapshot(set(2, &[(CDS, &[("a", "1")]), (EDS, &[("a", "2"), ("b", "1")])]));
    let pushed = drain(&mut stream, T0);
    assert_eq!(names(&pushed[0]), ["a"], "without b, so b is removed");
    assert_eq!(names(&pushed[1]), ["a"], "only what changed");
    assert_eq!(&*pushed[1].version, "2");
}

#[test]
fn a_name_that_is_dropped_and_asked_for_again_during_a_push_is_sent_again() {
    let mut stream = ServerStream::new(Protocol::StateOfTheWorld);
    stream.snapshot(set(1, &[(EDS, &[("b", "1")])]));
    stream
        .request(Request::subscribe(EDS, &["a", "b"]), T0)
        .expect("valid");
    let first = stream.next_response(T0).expect("b");
    let with = |names: &[&str], nonce: &Text| {
        let mut request = Request::subscribe(EDS, names);
        request.nonce = nonce.clone();
        request
    };
    stream
        .request(with(&["a", "b"], &first.nonce), T0)
        .expect("valid");
    stream.snapshot(set(2, &[(EDS, &[("a", "1"), ("b", "1")])]));
    let second = stream.next_response(T0).expect("a");
    // On its way when the push left: the client drops b, then wants it again, then acknowledges the push.
    for (names, nonce) in [
        (&["a"][..], &first.nonce),
        (&["a", "b"], &first.nonce),
        (&["a", "b"], &second.nonce),
    ] {
        stream.request(with(names, nonce), T0).expect("valid");
    }
    assert_eq!(names(&stream.next_response(T0).expect("b again")), ["b"]);
}

#[test]
fn changes_are_pushed_at_most_so_often_and_the_newest_wins() {
    let pause = Duration::from_millis(200);
    let mut stream = ServerStream::new(Protocol::Delta).with_pause(pause);
    let at = |version: &str, generation| set(generation, &[(CDS, &[("a", version)])]);
    stream.snapshot(at("1", 1));
    stream
        .request(Request::subscribe(CDS, &["*"]), T0)
        .expect("valid");
    let (mut pushed, mut now, mut generation) = (Vec::new(), T0, 1);
    while now < Duration::from_secs(2) {
        for response in drain(&mut stream, now) {
            stream.request(ack(&response), now).expect("valid");
            pushed.push((now, response.resources[0].version.to_string()));
        }
        generation += 1;
        stream.snapshot(at(&generation.to_string(), generation));
        now += Duration::from_millis(10);
    }
    assert_eq!(pushed.len(), 10, "five per second: {pushed:?}");
    assert!(pushed.windows(2).all(|pair| pair[1].0 >= pair[0].0 + pause));
    let deadline = stream.deadline().expect("the newest waits");
    let last = drain(&mut stream, deadline);
    assert_eq!(&*last[0].resources[0].version, generation.to_string());
    // What a client asks for is not a change: it does not wait.
    stream.request(ack(&last[0]), deadline).expect("valid");
    stream
        .request(Request::subscribe(RDS, &["r"]), deadline)
        .expect("valid");
    assert_eq!(drain(&mut stream, deadline).len(), 1);
}

#[test]
fn what_is_asked_for_is_answered_of_the_newest_whatever_was_pushed_just_now() {
    let listeners = |version: &'static str, of: &'static str, generation| {
        set(generation, &[(LDS, &[("l", version)]), (EDS, &[("a", of)])])
    };
    for answered in [true, false] {
        let mut stream = ServerStream::new(Protocol::Delta).with_pause(Duration::from_millis(200));
        stream.snapshot(listeners("1", "old", 1));
        stream
            .request(Request::subscribe(LDS, &["*"]), T0)
            .expect("valid");
        let pushed = drain(&mut stream, T0);
        if answered {
            stream.request(ack(&pushed[0]), T0).expect("valid");
        }
        // Within the pause, of a resource that the client did not want until now.
        let soon = Duration::from_millis(50);
        stream.snapshot(listeners("1", "new", 2));
        assert_eq!(drain(&mut stream, soon), []);
        stream
            .request(Request::subscribe(EDS, &["a"]), soon)
            .expect("valid");
        let answer = drain(&mut stream, soon);
        assert_eq!(answer.len(), 1, "answered: {answered}");
        assert_eq!(&*answer[0].resources[0].version, "new", "answered: {answered}");
    }
}

#[test]
fn interest_is_told_as_it_changes() {
    let mut stream = ServerStream::new(Protocol::Delta);
    let mut tell = |request: Request| {
        stream.request(request, T0).expect("valid");
        stream.take_interest()
    };
    let eds = Text::from(EDS);
    let names = |names: &[&str]| names.iter().map(|name| Text::from(*name)).collect::<Vec<_>>();
    assert_eq!(
        tell(Request::subscribe(CDS, &[])),
        [Interest::All(CDS.into(), true)]
    );
    let both = Request::subscribe(EDS, &["b", "a", "b"]);
    assert_eq!(tell(both), [Interest::More(eds.clone(), names(&["a", "b"]))]);
    assert_eq!(tell(Request::subscribe(EDS, &["a"])), []);
    let drop = Request {
        unsubscribe: names(&["b", "never"]),
        ..Request::subscribe(EDS, &[])
    };
    assert_eq!(tell(drop), [Interest::Less(eds, names(&["b"]))]);

    let mut stream = ServerStream::new(Protocol::StateOfTheWorld);
    stream
        .request(Request::subscribe(EDS, &["a", "b"]), T0)
        .expect("valid");
    stream.take_interest();
    stream
        .request(Request::subscribe(EDS, &["b", "c"]), T0)
        .expect("valid");
    let expected = [
        Interest::More(EDS.into(), names(&["c"])),
        Interest::Less(EDS.into(), names(&["a"])),
    ];
    assert_eq!(stream.take_interest(), expected);
}

#[test]
fn caps_end_the_stream() {
    let mut stream = ServerStream::new(Protocol::Delta);
    for index in 0..TYPES_MAX {
        stream
            .request(Request::subscribe(&format!("t{index}"), &["a"]), T0)
            .expect("below the cap");
    }
    assert_eq!(
        stream.request(Request::subscribe("one more", &["a"]), T0),
        Err(StreamFault::TooManyTypes)
    );
    let long = "x".repeat(NAME_BYTES_MAX + 1);
    assert!(matches!(
        stream.request(Request::subscribe("t0", &[&long]), T0),
        Err(StreamFault::TooManyNames { .. })
    ));
    assert_eq!(stream.request(Request::default(), T0), Err(StreamFault::NoType));
}

/// What may happen to a stream, with small numbers for names, types and versions.
#[derive(Debug, Clone)]
enum Step {
    Subscribe { url: usize, name: usize },
    Unsubscribe { url: usize, name: usize },
    All { url: usize },
    Answer { refuse: bool },
    Change { url: usize, name: usize, version: usize },
    Tick,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let url = 0..4_usize;
    let name = 0..4_usize;
    let step = prop_oneof![
        3 => (url.clone(), name.clone()).prop_map(|(url, name)| Step::Subscribe { url, name }),
        1 => (url.clone(), name.clone()).prop_map(|(url, name)| Step::Unsubscribe { url, name }),
        1 => url.clone().prop_map(|url| Step::All { url }),
        5 => any::<bool>().prop_map(|refuse| Step::Answer { refuse }),
        5 => (url, name, 0..4_usize).prop_map(|(url, name, version)| Step::Change { url, name, version }),
        1 => Just(Step::Tick),
    ];
    proptest::collection::vec(step, 1..120)
}

const URLS: [&str; 4] = [CDS, EDS, LDS, RDS];
const NAMES: [&str; 4] = ["a", "b", "c", "d"];

/// A mesh of four names per type and a delta client that believes what it is told.
#[derive(Default)]
struct World {
    generation: u64,
    now: Duration,
    configured: BTreeMap<&'static str, BTreeMap<&'static str, String>>,
    held: BTreeMap<Text, BTreeMap<Text, Text>>,
    wanted: BTreeMap<&'static str, BTreeSet<Text>>,
    everything: BTreeSet<&'static str>,
    unanswered: VecDeque<Sent>,
}

impl World {
    fn take(&mut self, stream: &mut ServerStream, step: &Step) {
        match *step {
            Step::Subscribe { url, name } => {
                self.wanted
                    .entry(URLS[url])
                    .or_default()
                    .insert(NAMES[name].into());
                stream
                    .request(Request::subscribe(URLS[url], &[NAMES[name]]), self.now)
                    .expect("small");
            }
            Step::Unsubscribe { url, name } => {
                let Some(wanted) = self.wanted.get_mut(URLS[url]) else {
                    return;
                };
                if !wanted.remove(NAMES[name]) {
                    return;
                }
                if !self.everything.contains(URLS[url]) {
                    self.held.entry(URLS[url].into()).or_default().remove(NAMES[name]);
                }
                let request = Request {
                    type_url: URLS[url].into(),
                    unsubscribe: vec![NAMES[name].into()],
                    ..Request::default()
                };
                stream.request(request, self.now).expect("small");
            }
            Step::All { url } => {
                self.everything.insert(URLS[url]);
                self.wanted.entry(URLS[url]).or_default();
                stream
                    .request(Request::subscribe(URLS[url], &["*"]), self.now)
                    .expect("small");
            }
            Step::Answer { refuse } => {
                let Some(response) = self.unanswered.pop_front() else {
                    return;
                };
                let mut answer = ack(&response);
                answer.error = refuse.then(|| "no".to_owned());
                stream.request(answer, self.now).expect("small");
            }
            Step::Change { url, name, version } => {
                let resources = self.configured.entry(URLS[url]).or_default();
                if version == 0 {
                    resources.remove(NAMES[name]);
                } else {
                    resources.insert(NAMES[name], version.to_string());
                }
                self.generation += 1;
                stream.snapshot(self.snapshot());
            }
            Step::Tick => self.now += Duration::from_secs(4),
        }
    }

    fn snapshot(&self) -> Arc<ResourceSet> {
        let types: Vec<(&str, Vec<(&str, &str)>)> = self
            .configured
            .iter()
            .map(|(url, resources)| (*url, resources.iter().map(|(n, v)| (*n, v.as_str())).collect()))
            .collect();
        let types: Vec<(&str, &[(&str, &str)])> = types.iter().map(|(url, r)| (*url, r.as_slice())).collect();
        set(self.generation, &types)
    }

    /// Takes everything that is due, as the client would.
    fn receive(&mut self, stream: &mut ServerStream) {
        while let Some(response) = stream.next_response(self.now) {
            let held = self.held.entry(response.type_url.clone()).or_default();
            for resource in &response.resources {
                held.insert(resource.name.clone(), resource.version.clone());
            }
            for name in &response.removed {
                held.remove(name);
            }
            self.unanswered.push_back(response);
            stream.check_invariants();
        }
    }
}

proptest! {
    /// Whatever happens in whatever order: the invariants hold at each step, and once everything is answered the client
    /// holds exactly what is configured and wanted, and the stream is settled at the newest generation.
    #[test]
    fn the_client_converges_under_any_interleaving(steps in steps()) {
        let mut stream = ServerStream::new(Protocol::Delta);
        let mut world = World::default();
        let mut settled = 0;
        for step in &steps {
            world.take(&mut stream, step);
            stream.check_invariants();
            world.receive(&mut stream);
            prop_assert!(stream.status().settled >= settled);
            settled = stream.status().settled;
        }
        while !world.unanswered.is_empty() {
            world.take(&mut stream, &Step::Answer { refuse: false });
            world.receive(&mut stream);
        }
        for (url, wanted) in &world.wanted {
            let configured = world.configured.get(url).cloned().unwrap_or_default();
            let expected: BTreeMap<Text, Text> = configured
                .iter()
                .filter(|(name, _)| world.everything.contains(url) || wanted.contains(**name))
                .map(|(name, version)| (Text::from(*name), Text::from(version.as_str())))
                .collect();
            let held = world.held.get(*url).cloned().unwrap_or_default();
            prop_assert_eq!(held, expected, "{}", url);
        }
        prop_assert_eq!(stream.status().settled, world.generation);
    }
}
