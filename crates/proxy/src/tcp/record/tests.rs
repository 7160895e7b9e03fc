use std::{rc::Rc, time::Instant};

use rajut_ir::listener::Direction;
use rajut_telemetry::format::Format;
use rajut_types::condition::Condition;

use super::*;
use crate::{connection::PeerIdentity, failure::FailureKind};

#[test]
fn a_refused_connection_has_a_line_with_its_reason_and_no_request() {
    let connection = Connection {
        id: 7,
        listener: "l".into(),
        chain: None,
        direction: Direction::Inbound,
        local: "10.0.0.1:5432".parse().unwrap(),
        remote: "10.0.0.2:999".parse().unwrap(),
        sni: Some("db".into()),
        peer: Peer::Verified(Rc::new(PeerIdentity {
            uris: vec!["spiffe://mesh/ns/a/sa/b".into()],
            ..PeerIdentity::default()
        })),
        certificate: None,
        version: 0,
        #[expect(clippy::disallowed_methods, reason = "a connection has an age")]
        opened: Instant::now(),
    };
    let reached = Reached::default();
    let failure = Failure::new(FailureKind::NoCluster { status: 503 }, "db");
    let record = Record {
        received: 3,
        ..Record::failed(&connection, &reached, &failure)
    };
    let format = Format::text(
        "%RESPONSE_FLAGS% %BYTES_RECEIVED% %REQ(:METHOD)% %DOWNSTREAM_LOCAL_ADDRESS% %REQUESTED_SERVER_NAME% \
         %DOWNSTREAM_PEER_URI_SAN% %UPSTREAM_CLUSTER% %PROTOCOL%",
    );
    let mut line = Vec::new();
    format.unwrap().render(&record, &mut line);
    assert_eq!(
        String::from_utf8(line).unwrap(),
        "NC 3 - 10.0.0.1:5432 db spiffe://mesh/ns/a/sa/b - -"
    );
    let holds = |text: &str| Condition::parse(text).unwrap().holds(&record);
    assert!(holds(
        "connection.mtls && response.flags == 16777216 && destination.port == 5432"
    ));
    assert!(!holds("response.code >= 0"), "a connection has no answer");
    assert!(!holds("request.path != ''"));
}
