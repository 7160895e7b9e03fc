//! Recorded requests: what is known is judged as the proxy judges it, what is not changes no verdict that is given.

use rajut_telemetry::recording::{self, Digester, Header, KEY_BYTES, Kind, Token as Told, Tuple};

use super::super::recorded::Weighed;
use super::*;

fn digester() -> Digester {
    Digester::new(&[5; KEY_BYTES])
}

/// What is recorded of a call: segments of which `hides` says so as digests, the header `x-a` and the token if they are told.
fn recorded(call: &Call, path: &str, hides: impl Fn(&str) -> bool, headers: bool, token: bool) -> Tuple {
    let request = call.request.as_ref().expect("a request");
    let digester = digester();
    let value = request.headers.iter().find(|(name, _)| &**name == "x-a");
    let header = || Header {
        name: "x-a".into(),
        count: u32::from(value.is_some()),
        digest: value.map_or(0, |(_, value)| {
            digester.digest(Kind::Header("x-a"), value.as_bytes())
        }),
    };
    Tuple {
        id: 1,
        time_ms: 1,
        namespace: "lab".into(),
        workload: "web".into(),
        source: call.identity.clone().unwrap_or_default(),
        tls: call.identity.is_some(),
        remote: Some(call.address),
        forwarded: false,
        local: Some(call.destination),
        server_name: call.server_name.clone(),
        listener: "virtualInbound".into(),
        route: Text::default(),
        method: request.method.clone(),
        authority: request.authority.clone(),
        path: recording::redact(path.as_bytes(), &digester, hides),
        headers: headers.then(header).into_iter().collect(),
        token: match (&request.token, token) {
            (_, false) => Told::Unknown,
            (None, true) => Told::None,
            (Some(_), true) => Told::Good(vec!["me".into()]),
        },
        refused: false,
        reason: Text::default(),
        status: 200,
        received: 0,
        sent: 0,
        micros: 0,
    }
}

/// What becomes of a row that was recorded so, and of the same row as it is.
fn weighed(objects: &str, row: &str, edit: impl FnOnce(&mut Tuple)) -> (Weighed, bool) {
    let loaded = files(objects);
    let snapshot = snapshot(&loaded);
    let (rows_of, mut judge) = (Rows::new(&snapshot, "lab"), Judge::new(&snapshot));
    let row = rows(row).remove(0);
    let (workload, call) = rows_of.resolve(&mut judge, &row).expect("it is clear");
    let path = call.request.as_ref().expect("a request").path.clone();
    let mut tuple = recorded(&call, &path, recording::has_digits, true, true);
    edit(&mut tuple);
    let verdict = judge.judge(&workload, &call);
    (judge.weigh(&workload, &tuple, &digester()), verdict.allowed)
}

fn allowed(weighed: &Weighed) -> Option<bool> {
    match weighed {
        Weighed::Allowed(_) => Some(true),
        Weighed::Refused(_) => Some(false),
        Weighed::Unknown(_) => None,
    }
}

fn get(path: &str) -> String {
    format!(
        "- {{source: {{serviceAccount: nurse}}, destination: {{workload: web, port: 8080}}, \
         request: {{path: '{path}'}}, expect: allow}}\n"
    )
}

#[test]
fn identifiers_in_paths_are_compared_by_their_digests() {
    let rules = |paths: &str| {
        policy(
            "paths",
            &format!("  rules: [{{to: [{{operation: {{paths: ['{paths}']}}}}]}}]"),
        )
    };
    for (paths, path, wanted) in [
        ("/patients/*", "/patients/4711", Some(true)),
        ("/patients/*", "/staff/4711", Some(false)),
        ("/patients/4711", "/patients/4711", Some(true)),
        ("/patients/4711", "/patients/4712", Some(false)),
        ("/patients/4711*", "/patients/4711/notes", Some(true)),
        // May begin so or not.
        ("/patients/47*", "/patients/4711", None),
        ("/patients/47*", "/patients/all", Some(false)),
        ("*/notes", "/patients/4711/notes", Some(true)),
        ("*/4711/notes", "/patients/4711/notes", Some(true)),
        ("*11", "/patients/4711", None),
        ("/patients/{*}/notes", "/patients/4711/notes", Some(true)),
        ("/patients/{*}/notes", "/patients/4711/notes/2", Some(false)),
        ("/patients/{**}", "/patients/4711/notes/2", Some(true)),
        ("/patients/{**}", "/patients", Some(false)),
        ("/patients/{*}", "/patients", Some(false)),
        ("/patients/{*}/4711", "/patients/x/4711", Some(true)),
        ("/patients", "/patients?id=4711", Some(true)),
    ] {
        let (found, whole) = weighed(&rules(paths), &get(path), |_| {});
        assert_eq!(allowed(&found), wanted, "{paths} of {path}: {found:?}");
        assert!(wanted.is_none_or(|wanted| wanted == whole), "{paths} of {path}");
    }
    let (found, _) = weighed(&rules("/patients/*"), &get("/patients/1"), |tuple| {
        tuple.path = None;
    });
    assert_eq!(found, Weighed::Unknown(["the path".to_owned()].into()));
}

#[test]
fn what_was_not_recorded_is_named_and_changes_no_verdict_that_holds_either_way() {
    let of_header = policy(
        "header",
        "  rules: [{when: [{key: 'request.headers[x-a]', values: [v]}]}]",
    );
    let with = "- {source: {serviceAccount: nurse}, destination: {workload: web, port: 8080}, \
                request: {headers: {x-a: v}}, expect: allow}\n";
    let (found, _) = weighed(&of_header, with, |_| {});
    assert!(
        matches!(found, Weighed::Allowed(Because::Rule { .. })),
        "{found:?}"
    );
    let (found, _) = weighed(&of_header, &get("/"), |_| {});
    assert_eq!(found, Weighed::Refused(Because::NotAllowed));
    let (found, _) = weighed(&of_header, with, |tuple| tuple.headers.clear());
    assert_eq!(found, Weighed::Unknown(["header x-a".to_owned()].into()));

    let denied = of_header.clone()
        + &policy(
            "deny",
            "  action: DENY\n  rules: [{to: [{operation: {methods: [GET]}}]}]",
        );
    let (found, _) = weighed(&denied, with, |tuple| tuple.headers.clear());
    assert!(
        matches!(found, Weighed::Refused(Because::Rule { .. })),
        "{found:?}"
    );

    let remote = policy(
        "remote",
        "  rules: [{from: [{source: {remoteIpBlocks: ['0.0.0.0/8']}}]}]",
    );
    let (found, _) = weighed(&remote, &get("/"), |_| {});
    assert_eq!(allowed(&found), Some(true));
    let (found, _) = weighed(&remote, &get("/"), |tuple| tuple.forwarded = true);
    assert_eq!(
        found,
        Weighed::Unknown(["the client's address".to_owned()].into())
    );

    let (found, _) = weighed(&peers("{mtls: {mode: STRICT}}"), &get("/"), |tuple| {
        tuple.source = Text::default();
        tuple.tls = false;
    });
    assert!(
        matches!(found, Weighed::Refused(Because::PlainText { .. })),
        "{found:?}"
    );
}

#[test]
fn tokens_are_known_by_their_issuers_alone() {
    let keys = "jwksUri: 'https://login.example/keys'";
    let guarded = tokens(&format!("[{{issuer: me, {keys}}}]"));
    let role = guarded.clone()
        + &policy(
            "role",
            "  rules: [{when: [{key: 'request.auth.claims[role]', values: [a]}]}]",
        );
    let unknown = |what: &str| Weighed::Unknown([what.to_owned()].into());
    let of = |objects: &str, token: Told| weighed(objects, &get("/"), |tuple| tuple.token = token).0;
    let good = || Told::Good(vec!["me".into()]);
    assert_eq!(allowed(&of(&guarded, Told::None)), Some(true));
    assert_eq!(allowed(&of(&guarded, good())), Some(true));
    assert!(matches!(
        of(&guarded, Told::Refused),
        Weighed::Refused(Because::Token { .. })
    ));
    assert!(matches!(
        of(&guarded, Told::Good(vec!["you".into()])),
        Weighed::Refused(Because::Token { .. })
    ));
    assert_eq!(of(&guarded, Told::Unknown), unknown("the token"));
    assert_eq!(of(&role, good()), unknown("claims of the token"));
    assert_eq!(of(&role, Told::None), Weighed::Refused(Because::NotAllowed));
    let audience = tokens(&format!("[{{issuer: me, audiences: [us], {keys}}}]"));
    assert_eq!(of(&audience, good()), unknown("the token"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]
    #[test]
    fn a_verdict_on_a_recorded_request_is_the_one_on_the_request(
        policies in any_policies(),
        calls in vec((any_call(), any::<[bool; 2]>(), any::<u8>()), 40),
    ) {
        let loaded = files(&(tokens("[{issuer: me, jwksUri: 'https://login.example/keys'}]") + &policies));
        let snapshot = snapshot(&loaded);
        let (rows, mut judge) = (Rows::new(&snapshot, "lab"), Judge::new(&snapshot));
        for (drawn, [headers, token], hidden) in calls {
            let (row, facts) = row_of(&drawn);
            let (workload, call) = rows.resolve(&mut judge, &row).expect("it is clear");
            let hides = |segment: &str| {
                let sum = segment.bytes().fold(0, |sum: u8, byte| sum.wrapping_add(byte));
                sum & hidden != 0
            };
            let tuple = recorded(&call, facts.path, hides, headers, token);
            let found = judge.weigh(&workload, &tuple, &digester());
            let whole = judge.judge(&workload, &call);
            if let Some(allowed) = allowed(&found) {
                prop_assert_eq!(allowed, whole.allowed, "{:?}: {:?} but {}\n{}", tuple, found, whole.because, policies);
            }
            if hidden == 0 && headers && token && facts.token.is_none() {
                prop_assert!(allowed(&found).is_some(), "{:?}: {:?}\n{}", tuple, found, policies);
            }
        }
    }
}
