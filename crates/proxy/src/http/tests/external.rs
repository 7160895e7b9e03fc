//! Requests about which somebody else is asked, over HTTP. The provider is the same server as the application: the first of two requests
//! that it sees is the question.

use std::{sync::Arc, time::Duration};

use rajut_ir::{
    ext_authz::{BodyToCheck, ExtAuthz, HttpProvider, Provider},
    filter::{EXT_AUTHZ, HttpFilter, HttpFilterKind},
    http::RouterFilter,
};

use super::harness::{OK, Proxy, Setup, answering, run};
use crate::stats::{ExtAuthzCounter as C, ExtAuthzStats};

const NO: &str = "HTTP/1.1 401 Unauthorized\r\nx-why: because\r\ncontent-length: 2\r\n\r\nno";

fn authz() -> ExtAuthz {
    ExtAuthz {
        provider: Provider::Http(HttpProvider {
            cluster: "app".into(),
            path_prefix: "/check".into(),
            ..HttpProvider::default()
        }),
        timeout: Some(Duration::from_millis(300)),
        failure_mode_allow: false,
        failure_mode_header: false,
        status_on_error: 403,
        clear_route_cache: false,
        body: None,
        allowed_headers: None,
        disallowed_headers: Vec::new(),
        include_peer_certificate: false,
        include_tls_session: false,
        stat_prefix: "".into(),
        asked: None,
    }
}

fn guarded(addresses: &[std::net::SocketAddr], authz: ExtAuthz) -> Setup {
    let mut setup = Setup::to(addresses);
    setup.manager.filters = vec![
        HttpFilter {
            name: EXT_AUTHZ.into(),
            disabled: false,
            kind: HttpFilterKind::ExtAuthz(Arc::new(authz)),
        },
        HttpFilter::router(RouterFilter::default()),
    ];
    setup
}

fn counted(proxy: &Proxy) -> Arc<ExtAuthzStats> {
    proxy.registry.ext_authz(&"test".into(), &"".into())
}

#[test]
fn a_request_passes_after_the_question_and_with_its_whole_body() {
    run(async {
        let (app, seen) = answering(OK).await;
        let mut authz = authz();
        authz.body = Some(BodyToCheck {
            max_bytes: 5,
            allow_partial: true,
            as_bytes: false,
        });
        let proxy = guarded(&[app], authz).start().await;
        let mut client = proxy.client().await;
        let body = "b".repeat(200_000);
        let reply = client.post("/a", &body).await;
        assert_eq!((reply.status, reply.text()), (200, "ok"));
        let bodies: Vec<usize> = seen.bodies.borrow().iter().map(Vec::len).collect();
        assert_eq!(bodies, [5, body.len()], "the question, then the request");
        assert_eq!(counted(&proxy).sum(C::Ok), 1);
    });
}

#[test]
fn a_refusal_is_the_providers_and_the_connection_goes_on() {
    run(async {
        let (app, seen) = answering(NO).await;
        let log = std::env::temp_dir().join(format!("rajut-authz-log-{}", std::process::id()));
        let mut setup = guarded(&[app], authz());
        setup.log = Some(log.clone());
        let proxy = setup.start().await;
        let mut client = proxy.client().await;
        for path in ["/a", "/b"] {
            let reply = client.get(path).await;
            assert_eq!((reply.status, reply.text()), (401, "no"));
            assert_eq!(reply.field("x-why"), Some("because"));
        }
        drop(client);
        assert_eq!(seen.bodies.borrow().len(), 2, "nobody but the provider was asked");
        assert_eq!(counted(&proxy).sum(C::Denied), 2);
        super::harness::until("the records are closed", || proxy.connections.get() == 0).await;
        proxy.registry.writers().flush();
        let lines = std::fs::read_to_string(&log).unwrap();
        std::fs::remove_file(&log).unwrap();
        assert!(lines.starts_with("401 UAEX GET /a the-route app "), "{lines}");
    });
}

#[test]
fn a_body_that_may_not_be_shown_in_part_is_refused_unread() {
    run(async {
        let (app, seen) = answering(OK).await;
        let mut authz = authz();
        authz.body = Some(BodyToCheck {
            max_bytes: 5,
            allow_partial: false,
            as_bytes: false,
        });
        let proxy = guarded(&[app], authz).start().await;
        let reply = proxy.client().await.post("/", "123456").await;
        assert_eq!((reply.status, reply.text()), (413, "Payload Too Large"));
        assert_eq!(seen.connections.get(), 0);
        let reply = proxy.client().await.post("/", "12345").await;
        assert_eq!(reply.status, 200);
    });
}

#[test]
fn without_an_answer_a_request_is_refused_or_passes_as_configured() {
    run(async {
        // Accepts nothing: there is no answer.
        let silent = rajut_platform::socket::TcpListener::bind("127.0.0.1:0")
            .await
            .unwrap();
        let address = silent.local_addr().unwrap();
        let proxy = guarded(&[address], authz()).start().await;
        let reply = proxy.get("/").await;
        assert_eq!((reply.status, reply.text()), (403, ""));
        assert_eq!(counted(&proxy).sum(C::Timeout), 1);
        assert_eq!(counted(&proxy).sum(C::Error), 1);
        drop(silent);

        let (app, _) = answering("HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n").await;
        let mut open = authz();
        open.failure_mode_allow = true;
        let proxy = guarded(&[app], open).start().await;
        let reply = proxy.get("/").await;
        assert_eq!(reply.status, 503, "the application's own answer");
        assert_eq!(counted(&proxy).sum(C::FailureModeAllowed), 1);
    });
}
