//! What is recorded of requests for the control plane, and that it costs nothing else.

use std::{collections::BTreeMap, rc::Rc, sync::Arc, time::SystemTime};

use rajut_ir::{
    filter::HttpFilter,
    listener::Direction,
    rbac::{Action, Rbac, Rules},
};
use rajut_runtime::Clock;
use rajut_telemetry::recording::{Digester, KEY_BYTES, Kind, Token, Tuple};
use rajut_xds::recording::{RecordSource as _, Wanted};

use super::harness::{OK, Proxy, Setup, answering, run};
use crate::{
    connection::{Peer, PeerIdentity},
    recorder::{Source, WAITING_MAX},
};

const KEY: [u8; KEY_BYTES] = [3; KEY_BYTES];

fn wanted(refused: bool, share: u32) -> Wanted {
    Wanted {
        refused,
        share,
        key: KEY.to_vec(),
        identifiers: Vec::new(),
        headers: vec!["x-role".to_owned(), "x-none".to_owned()],
    }
}

/// A sidecar's server side; with `guarded` nobody is let through.
async fn sidecar(direction: Direction, guarded: bool) -> (Proxy, Source) {
    let (app, _) = answering(OK).await;
    let mut setup = Setup::to(&[app]);
    setup.direction = direction;
    setup.peer = Peer::Verified(Rc::new(PeerIdentity {
        uris: vec!["spiffe://cluster.local/ns/clinic/sa/web".into()],
        ..PeerIdentity::default()
    }));
    if guarded {
        let nobody = Rbac {
            rules: Some(Arc::new(Rules::compile(Action::Allow, BTreeMap::new()))),
            ..Rbac::default()
        };
        setup.manager.filters.insert(0, HttpFilter::rbac(nobody));
    }
    let proxy = setup.start().await;
    let clock = Clock::manual(SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000));
    let source = Source::new(proxy.registry.recorder(), clock);
    (proxy, source)
}

fn told(source: &mut Source) -> Vec<Tuple> {
    let batch = source.collect();
    let decode = |bytes: &Vec<u8>| Tuple::decode(bytes).expect("a tuple");
    batch.tuples.iter().map(decode).collect()
}

#[test]
fn a_refusal_is_told_without_what_identifies_people() {
    run(async {
        let (proxy, mut source) = sidecar(Direction::Inbound, true).await;
        source.want(&wanted(true, 0));
        let request = "GET /patients/4711/records?name=jane HTTP/1.1\r\nhost: app:80\r\nx-role: nurse\r\n\
                       authorization: Bearer secret\r\n\r\n";
        let mut client = proxy.client().await;
        client.send(request).await;
        assert_eq!(client.reply(false).await.status, 403);
        let tuples = told(&mut source);
        let [tuple] = &tuples[..] else {
            panic!("{tuples:?}")
        };
        let digester = Digester::new(&KEY);
        let patient = digester.digest(Kind::Segment, b"4711");
        assert_eq!(
            tuple.path.as_deref(),
            Some(&*format!("/patients/{{{patient:016x}}}/records"))
        );
        assert_eq!(
            tuple.headers[0].digest,
            digester.digest(Kind::Header("x-role"), b"nurse")
        );
        assert_eq!((tuple.headers[0].count, tuple.headers[1].count), (1, 0));
        assert_eq!(&*tuple.source, "spiffe://cluster.local/ns/clinic/sa/web");
        assert_eq!((tuple.refused, tuple.status, &*tuple.method), (true, 403, "GET"));
        assert_eq!(&*tuple.reason, "rbac_access_denied_matched_policy[none]");
        assert_eq!((&*tuple.authority, &*tuple.listener), ("app:80", "test"));
        assert_eq!(tuple.token, Token::Unknown);
        assert!(
            (999_990_000..=1_000_000_000).contains(&tuple.time_ms),
            "{}",
            tuple.time_ms
        );
        let bytes = String::from_utf8_lossy(&tuple.encode()).into_owned();
        for secret in ["4711", "jane", "nurse", "secret"] {
            assert!(!bytes.contains(secret), "{bytes}");
        }
        assert!(told(&mut source).is_empty(), "nothing is told twice");
    });
}

#[test]
fn what_is_let_through_is_told_where_it_is_wanted_and_of_the_server_alone() {
    run(async {
        let (proxy, mut source) = sidecar(Direction::Inbound, false).await;
        proxy.get("/before").await;
        source.want(&wanted(true, 0));
        proxy.get("/refusals-alone").await;
        assert!(told(&mut source).is_empty());
        source.want(&wanted(true, 1_000_000));
        for _ in 0..3 {
            proxy.get("/all").await;
        }
        let tuples = told(&mut source);
        assert_eq!(tuples.len(), 3);
        assert!(tuples.iter().all(|tuple| !tuple.refused && tuple.status == 200));
        assert!(tuples.iter().all(|tuple| tuple.path.as_deref() == Some("/all")));
        assert_ne!(tuples[0].id, tuples[1].id);
        source.want(&wanted(true, 300_000));
        for _ in 0..200 {
            proxy.get("/share").await;
        }
        let share = told(&mut source).len();
        assert!(
            (20..120).contains(&share),
            "{share} of 200, where three of ten are wanted"
        );
        source.want(&Wanted::default());
        proxy.get("/off").await;
        assert!(told(&mut source).is_empty());
        let broken = Wanted {
            identifiers: vec!["(".to_owned()],
            ..wanted(true, 1_000_000)
        };
        source.want(&broken);
        proxy.get("/not-to-be-redacted").await;
        assert!(told(&mut source).is_empty(), "rather nothing than in clear");

        let (client, mut source) = sidecar(Direction::Outbound, false).await;
        source.want(&wanted(true, 1_000_000));
        client.get("/").await;
        assert!(told(&mut source).is_empty(), "the server tells it");
    });
}

#[test]
fn a_buffer_that_is_full_drops_and_counts() {
    run(async {
        let (proxy, mut source) = sidecar(Direction::Inbound, true).await;
        source.want(&wanted(true, 0));
        let mut client = proxy.client().await;
        for _ in 0..WAITING_MAX + 5 {
            assert_eq!(client.get("/x").await.status, 403);
        }
        let batch = source.collect();
        assert_eq!((batch.tuples.len(), batch.dropped), (WAITING_MAX, 5));
        assert!(source.collect().is_empty());
        assert_eq!(proxy.registry.recorder().counts(), (WAITING_MAX as u64, 5));
    });
}

#[test]
fn long_paths_and_control_characters_do_no_harm() {
    run(async {
        let (proxy, mut source) = sidecar(Direction::Inbound, true).await;
        source.want(&wanted(true, 0));
        let long = format!("/{}", "a/".repeat(20_000));
        proxy.get(&long).await;
        proxy.get("/%1b[2Ja/%00").await;
        // More than a head may hold: refused before there is a path.
        proxy.get(&format!("/{}", "a".repeat(64 << 10))).await;
        let tuples = told(&mut source);
        assert_eq!(tuples[0].path, None);
        for tuple in &tuples {
            let path = tuple.path.as_deref().unwrap_or_default();
            assert!(path.bytes().all(|byte| byte.is_ascii_graphic()), "{path}");
            assert!(!path.contains("2J"), "{path}");
        }
    });
}
