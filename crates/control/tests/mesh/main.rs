//! The control plane in process, spoken to as its clients do: enrolment and discovery over TLS on a port of the machine's
//! loopback, the admin door on its socket.

mod support;

use std::time::Duration;

use http::{Method, StatusCode};
use rajut_identity::TrustBundle;
use rajut_identity::enrol::{EnrolError, EnrolOptions, Token, enrol, spawn_rotation};
use rajut_runtime::Clock;
use rajut_types::Text;
use rajut_xds::{
    Protocol,
    client::{Event, Refusal},
    type_url,
};
use serde_json::json;
use support::{Mesh, Subscriber, service, within};

#[tokio::test(flavor = "multi_thread")]
async fn a_workload_enrols_subscribes_and_acknowledges_what_is_applied() {
    for protocol in [Protocol::Delta, Protocol::StateOfTheWorld] {
        let mesh = Mesh::start(&format!("enrol-{protocol:?}")).await;
        let identity = mesh.enrol("clinic", "signer", "signer-0").await;
        assert_eq!(
            identity.principal.spiffe_id(),
            "spiffe://cluster.local/ns/clinic/sa/signer"
        );
        let mut signer = mesh.connect(&identity, "signer-0", protocol);
        signer.handle.subscribe_all(type_url::NAME_TABLE).await;
        let update = signer.update().await;
        assert_eq!(update.resources.len(), 1, "{protocol:?}");
        signer.handle.answer(update.ticket, Vec::new()).await;
        mesh.settled("signer-0").await;

        let acknowledging = tokio::spawn(async move {
            let update = signer.update().await;
            signer.handle.answer(update.ticket, Vec::new()).await;
            signer
        });
        let (status, applied) = mesh
            .call(Method::POST, "/v1/apply?namespace=clinic", service("billing"))
            .await;
        assert_eq!(status, StatusCode::OK, "{applied}");
        assert_eq!(
            (&applied["affected"], &applied["acknowledged"]),
            (&json!(1), &json!(1)),
            "{applied}"
        );
        assert_eq!(
            applied["objects"][0],
            json!({"kind": "Service", "namespace": "clinic", "name": "billing"})
        );
        assert_eq!(applied["rejected"], json!([]));
        drop(acknowledging.await.expect("the subscriber ends"));
        mesh.stop();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn apply_names_the_proxy_that_refuses_and_the_one_that_is_silent() {
    let mesh = Mesh::start("nack").await;
    let identity = mesh.enrol("clinic", "signer", "signer-0").await;
    let mut refusing = mesh.connect(&identity, "signer-0", Protocol::Delta);
    let mut silent = mesh.connect(&identity, "signer-1", Protocol::Delta);
    let mut unconcerned = mesh.connect(&identity, "signer-2", Protocol::Delta);
    for proxy in [&mut refusing, &mut silent] {
        proxy.take_names().await;
    }
    unconcerned
        .handle
        .subscribe(type_url::ROUTE, vec!["9090".into()])
        .await;
    let update = unconcerned.update().await;
    unconcerned.handle.answer(update.ticket, Vec::new()).await;
    for name in ["signer-0", "signer-1", "signer-2"] {
        mesh.settled(name).await;
    }
    let refuse = tokio::spawn(async move {
        let update = refusing.update().await;
        let refusal = Refusal {
            resource: "names".into(),
            path: "table".into(),
            reason: "too large".into(),
        };
        refusing.handle.answer(update.ticket, vec![refusal]).await;
        refusing
    });
    let path = "/v1/apply?namespace=clinic&timeoutSeconds=1";
    let (status, applied) = mesh.call(Method::POST, path, service("billing")).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        (&applied["affected"], &applied["acknowledged"]),
        (&json!(2), &json!(0)),
        "{applied}"
    );
    let rejected = &applied["rejected"][0];
    assert!(
        rejected["proxy"]
            .as_str()
            .is_some_and(|id| id.contains("signer-0")),
        "{applied}"
    );
    assert_eq!(rejected["resource"], "NameTable");
    assert_eq!(rejected["reason"], "names table: too large");
    assert!(
        applied["pending"][0]
            .as_str()
            .is_some_and(|id| id.contains("signer-1")),
        "{applied}"
    );
    assert!(
        applied["onUse"][0]
            .as_str()
            .is_some_and(|id| id.contains("signer-2")),
        "{applied}"
    );

    let (_, proxies) = mesh.call(Method::GET, "/v1/proxies", String::new()).await;
    let types = proxies["proxies"][0]["types"].as_array().expect("a list");
    let refused = types
        .iter()
        .find(|one| one["type"] == "names")
        .expect("subscribed");
    assert_eq!(
        (&refused["state"], &refused["rejects"]),
        (&json!("rejected"), &json!(1)),
        "{proxies}"
    );
    drop((refuse.await.expect("ends"), silent, unconcerned));
    mesh.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_survives_the_control_plane_and_is_told_only_what_changed_meanwhile() {
    let mesh = Mesh::start("reconnect").await;
    let identity = mesh.enrol("clinic", "signer", "signer-0").await;
    let mut signer = mesh.connect(&identity, "signer-0", Protocol::Delta);
    let host: Text = "outbound|8080||auth.clinic.svc.cluster.local".into();
    signer.handle.subscribe_all(type_url::NAME_TABLE).await;
    signer
        .handle
        .subscribe(type_url::LOAD_ASSIGNMENT, vec![host])
        .await;
    for _ in 0..2 {
        let update = signer.update().await;
        signer.handle.answer(update.ticket, Vec::new()).await;
    }
    mesh.settled("signer-0").await;
    let mesh = mesh.restart().await;
    signer.reconnected().await;
    mesh.settled("signer-0").await;
    // The endpoints are as they were: of them nothing is sent. Then they change.
    mesh.put_workloads(&["auth-0"]).await;
    let update = signer.update().await;
    assert_eq!(&*update.type_url, type_url::LOAD_ASSIGNMENT);
    drop(signer);
    mesh.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_control_plane_takes_no_endpoint_away_before_it_was_told_what_runs() {
    for protocol in [Protocol::Delta, Protocol::StateOfTheWorld] {
        let mesh = Mesh::start_with(&format!("await-{protocol:?}"), |options| {
            options.awaits_workloads = true;
        })
        .await;
        let (status, pending) = mesh.call(Method::GET, "/ready", String::new()).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(pending["pending"], json!(["workloads"]));
        mesh.put_workloads(&["auth-0"]).await;
        assert_eq!(
            mesh.call(Method::GET, "/ready", String::new()).await.0,
            StatusCode::OK
        );
        let identity = mesh.enrol("clinic", "signer", "signer-0").await;
        let mut signer = mesh.connect(&identity, "signer-0", protocol);
        let host: Text = "outbound|8080||auth.clinic.svc.cluster.local".into();
        signer
            .handle
            .subscribe(type_url::LOAD_ASSIGNMENT, vec![host])
            .await;
        let update = signer.update().await;
        signer.handle.answer(update.ticket, Vec::new()).await;
        mesh.settled("signer-0").await;

        let mesh = mesh.restart().await;
        signer.reconnected().await;
        mesh.connected("signer-0").await;
        // Longer than any push takes; a push in this time would take the endpoint away.
        let early = tokio::time::timeout(Duration::from_millis(300), signer.update()).await;
        assert!(early.is_err(), "{protocol:?}: {early:?}");
        mesh.put_workloads(&["auth-0", "auth-1"]).await;
        let update = signer.update().await;
        assert_eq!(&*update.type_url, type_url::LOAD_ASSIGNMENT);
        let bytes = &update.resources.first().expect("one").body;
        let bytes = bytes.to_bytes();
        let known = bytes.windows(10).filter(|part| part == b"127.10.0.1");
        assert_eq!(known.count(), 2, "{protocol:?}");
        drop(signer);
        mesh.stop();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_rotate_and_discovery_goes_on() {
    let mesh = Mesh::start_with("rotation", |options| {
        options.certificate_ttl = Duration::from_secs(3);
    })
    .await;
    let token = mesh.token("clinic", "signer", "signer-0").await;
    let options = EnrolOptions {
        issuer: mesh.issuer(),
        token: Token::Given(token),
        ttl: Duration::from_hours(1),
    };
    let store = spawn_rotation(options, Clock::system());
    let first = within(store.first()).await.expect("enrolled");
    let mut signer = mesh.connect_store(store.clone(), "signer-0", Protocol::Delta);
    signer.handle.subscribe_all(type_url::NAME_TABLE).await;
    let update = signer.update().await;
    signer.handle.answer(update.ticket, Vec::new()).await;
    let third = within(store.newer_than(2)).await.expect("renewed twice");
    assert_ne!(third.serial, first.serial);
    assert_eq!(third.principal, first.principal);
    assert!(third.not_after > first.not_after);
    mesh.settled("signer-0").await;
    // The stream is the first one still: a new certificate drops no connection.
    let (_, proxies) = mesh.call(Method::GET, "/v1/proxies", String::new()).await;
    assert_eq!(proxies["proxies"][0]["connection"], 1, "{proxies}");
    let (_, certificates) = mesh.call(Method::GET, "/v1/certificates", String::new()).await;
    let issued = certificates["certificates"].as_array().expect("a list");
    assert!(
        issued
            .iter()
            .filter(|one| one["principal"] == first.principal.spiffe_id())
            .count()
            >= 3
    );
    mesh.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_are_refused() {
    let mesh = Mesh::start("strangers").await;
    let other = Mesh::start("strangers-other").await;
    // A token of another mesh, a spoilt one, none at all.
    let foreign = other.token("clinic", "signer", "signer-0").await;
    let own = mesh.token("clinic", "signer", "signer-0").await;
    for token in [
        Token::Given(foreign),
        Token::Given(format!("{own}x")),
        Token::Absent,
    ] {
        let options = EnrolOptions {
            issuer: mesh.issuer(),
            token,
            ttl: Duration::from_mins(1),
        };
        let refused = enrol(&options, None, &Clock::system()).await;
        assert!(
            matches!(
                refused,
                Err(EnrolError::Refused {
                    code: tonic::Code::Unauthenticated,
                    ..
                })
            ),
            "{refused:?}"
        );
    }
    // An issuer that is not the one whose root we were given.
    let mut impostor = mesh.issuer();
    impostor.address = other.issuer().address;
    let options = EnrolOptions {
        issuer: impostor,
        token: Token::Given(own),
        ttl: Duration::from_mins(1),
    };
    let refused = enrol(&options, None, &Clock::system()).await;
    assert!(
        matches!(refused, Err(EnrolError::Unreachable { .. })),
        "{refused:?}"
    );

    // A certificate of another mesh is no certificate here, neither for a renewal nor for discovery.
    let stranger = other.enrol("clinic", "signer", "signer-0").await;
    let options = EnrolOptions {
        issuer: mesh.issuer(),
        token: Token::Absent,
        ttl: Duration::from_mins(1),
    };
    assert!(enrol(&options, Some(&stranger), &Clock::system()).await.is_err());
    let mut lost = mesh.subscriber(&stranger, "signer-0", Protocol::Delta, true);
    lost.handle.subscribe_all(type_url::NAME_TABLE).await;
    assert!(lost.refused().await.len() > 3);

    // A member that says it is somebody else.
    let identity = mesh.enrol("clinic", "signer", "signer-0").await;
    let mut liar = mesh.subscriber_as(
        &identity,
        "sidecar~10.0.0.9~admin-0.finance~finance.svc.cluster.local",
    );
    liar.handle.subscribe_all(type_url::NAME_TABLE).await;
    assert!(liar.refused().await.contains("PermissionDenied"));
    mesh.stop();
    other.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_door_answers_and_refuses() {
    let mesh = Mesh::start("admin").await;
    let (status, ready) = mesh.call(Method::GET, "/ready", String::new()).await;
    assert_eq!((status, &ready["ready"]), (StatusCode::OK, &json!(true)));

    let bad = service("billing").replace("port:", "prt:");
    let (status, refused) = mesh.call(Method::POST, "/v1/apply?namespace=clinic", bad).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(
        refused["diagnostics"][0]["span"]["line"]
            .as_u64()
            .is_some_and(|line| line > 0),
        "{refused}"
    );
    let (_, services) = mesh.call(Method::GET, "/v1/services", String::new()).await;
    assert_eq!(
        services["services"].as_array().map(Vec::len),
        Some(1),
        "{services}"
    );
    assert!(
        services["services"][0]["addresses"][0]
            .as_str()
            .is_some_and(|ip| ip.starts_with("240.240."))
    );

    mesh.put_workloads(&["auth-0", "auth-1"]).await;
    let (status, _) = mesh
        .call(
            Method::PATCH,
            "/v1/workloads/clinic/auth-0",
            json!({"health": "notready"}).to_string(),
        )
        .await;
    assert_eq!(status, StatusCode::OK);
    let (status, _) = mesh
        .call(
            Method::PATCH,
            "/v1/workloads/clinic/nobody",
            json!({"health": "ready"}).to_string(),
        )
        .await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let (_, workloads) = mesh.call(Method::GET, "/v1/workloads", String::new()).await;
    assert_eq!(workloads["workloads"][0]["health"], "notready", "{workloads}");

    let (status, deleted) = mesh
        .call(
            Method::POST,
            "/v1/delete?namespace=clinic&timeoutSeconds=0",
            service("auth"),
        )
        .await;
    assert_eq!(status, StatusCode::OK, "{deleted}");
    let (_, services) = mesh.call(Method::GET, "/v1/services", String::new()).await;
    assert_eq!(services["services"], json!([]));
    let (status, _) = mesh
        .call(Method::POST, "/v1/delete?namespace=clinic", service("auth"))
        .await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    mesh.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn resources_are_read_as_written_and_nonsense_is_refused() {
    let mesh = Mesh::start("read").await;
    let (_, found) = mesh
        .call(
            Method::GET,
            "/v1/resources?kind=services&name=auth",
            String::new(),
        )
        .await;
    assert_eq!(
        found["resources"][0]["object"]["spec"]["ports"][0]["port"], 8080,
        "{found}"
    );
    let (status, _) = mesh
        .call(
            Method::POST,
            "/v1/tokens",
            json!({"namespace": "a/b", "serviceAccount": "c"}).to_string(),
        )
        .await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    for (method, path) in [
        (Method::GET, "/nothing"),
        (Method::DELETE, "/v1/workloads"),
        (Method::GET, "/debug/config_dump?proxy=x"),
    ] {
        assert_eq!(
            mesh.call(method, path, String::new()).await.0,
            StatusCode::NOT_FOUND,
            "{path}"
        );
    }

    mesh.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_proxy_was_told_can_be_read() {
    let mesh = Mesh::start("dump").await;
    let identity = mesh.enrol("clinic", "signer", "signer-0").await;
    let mut signer = mesh.connect(&identity, "signer-0", Protocol::Delta);
    signer.handle.subscribe_all(type_url::NAME_TABLE).await;
    let update = signer.update().await;
    signer.handle.answer(update.ticket, Vec::new()).await;
    mesh.settled("signer-0").await;
    let (_, dump) = mesh
        .call(
            Method::GET,
            "/debug/config_dump?proxy=signer-0.clinic",
            String::new(),
        )
        .await;
    assert!(
        dump["resources"]["ClusterLoadAssignment"][0]["resource"].is_object(),
        "{dump}"
    );
    let metrics = mesh.text("/metrics").await;
    assert!(metrics.contains("pilot_xds 1\n"), "{metrics}");
    assert!(
        metrics.contains("pilot_xds_pushes{type=\"NameTable\"} 1\n"),
        "{metrics}"
    );

    drop(signer);
    mesh.stop();
}

/// The roots that an update tells.
fn roots_of(update: &rajut_xds::client::Update) -> TrustBundle {
    let secret = &update.resources[0].body.to_bytes();
    // PEM stands in the message as it is.
    let text = String::from_utf8_lossy(secret);
    let begin = text.find("-----BEGIN").expect("PEM");
    TrustBundle::from_pem(&text.as_bytes()[begin..]).expect("roots")
}

#[expect(clippy::too_many_lines, reason = "three steps, read top to bottom")]
#[tokio::test(flavor = "multi_thread")]
async fn a_step_of_a_change_of_roots_waits_for_every_proxy_and_names_who_refuses() {
    let mesh = Mesh::start("roots").await;
    let identity = mesh.enrol("clinic", "signer", "signer-0").await;
    let mut following = Vec::new();
    for name in ["signer-0", "signer-1"] {
        let mut proxy = mesh.connect(&identity, name, Protocol::Delta);
        proxy
            .handle
            .subscribe(type_url::SECRET, vec!["ROOTCA".into()])
            .await;
        let update = proxy.update().await;
        assert_eq!(roots_of(&update), identity.roots);
        proxy.handle.answer(update.ticket, Vec::new()).await;
        mesh.settled(name).await;
        following.push(proxy);
    }
    let rotation = |wanted: serde_json::Value| {
        let body = wanted.to_string();
        mesh.call(Method::POST, "/v1/identity/rotation", body)
    };
    let (status, _) = rotation(json!({"resume": true})).await;
    assert_eq!(status, StatusCode::CONFLICT, "there is none to go on with");
    let (status, begun) = rotation(json!({"hold": "reissue"})).await;
    assert_eq!(
        (status, &begun["rotation"]["step"]),
        (StatusCode::OK, &json!("trust"))
    );
    assert_eq!(begun["rotation"]["waitsFor"], "proxies", "{begun}");

    // One takes it, one does not.
    let (mut second, mut first) = (following.pop().expect("two"), following.pop().expect("two"));
    let update = first.update().await;
    let both = roots_of(&update);
    assert_eq!(both.certificates().len(), 2);
    assert_eq!(both.certificates()[0], identity.roots.certificates()[0]);
    first.handle.answer(update.ticket, Vec::new()).await;
    let update = second.update().await;
    let refusal = Refusal {
        resource: "ROOTCA".into(),
        path: String::new(),
        reason: "no room".into(),
    };
    second.handle.answer(update.ticket, vec![refusal]).await;
    let standings = |rotation: &serde_json::Value| -> Vec<String> {
        let proxies = rotation["proxies"].as_array().expect("a list");
        let one = |proxy: &serde_json::Value| {
            let text = |member: &str| proxy[member].as_str().unwrap_or_default().to_owned();
            format!("{} {} {}", text("name"), text("standing"), text("reason"))
        };
        proxies.iter().map(one).collect()
    };
    let until = async |wanted: &[&str]| loop {
        let (_, now) = mesh.call(Method::GET, "/v1/identity", String::new()).await;
        if standings(&now["rotation"]) == wanted {
            return now["rotation"].clone();
        }
        tokio::task::yield_now().await;
    };
    let now = within(until(&[
        "signer-0 acknowledged ",
        "signer-1 refused ROOTCA: no room",
    ]))
    .await;
    assert_eq!(
        (&now["step"], &now["waitsFor"]),
        (&json!("trust"), &json!("proxies"))
    );

    // Who is gone and should not run is not waited for; who is connected and does not follow is.
    let bystander = mesh.connect(&identity, "signer-2", Protocol::Delta);
    bystander.handle.subscribe_all(type_url::NAME_TABLE).await;
    mesh.connected("signer-2").await;
    drop(second);
    let now = within(until(&["signer-0 acknowledged ", "signer-2 notFollowing "])).await;
    assert_eq!(now["step"], "trust");
    drop(bystander);
    let update = first.update().await;
    let reissued = roots_of(&update);
    assert_eq!(reissued.certificates()[0], both.certificates()[1]);
    let now = within(until(&["signer-0 pending "])).await;
    assert_eq!(
        (&now["step"], &now["waitsFor"]),
        (&json!("reissue"), &json!("proxies"))
    );
    let renewed = mesh.enrol("clinic", "signer", "signer-0").await;
    assert!(renewed.follows(&reissued) && !identity.is_current(&reissued));
    first.handle.answer(update.ticket, Vec::new()).await;
    let now = within(until(&["signer-0 acknowledged "])).await;
    assert_eq!(now["waitsFor"], "operator");

    // Workloads that should run are waited for though they are not connected, unless the operator says otherwise.
    mesh.put_workloads(&["signer-0", "signer-9"]).await;
    let (_, now) = rotation(json!({"resume": true})).await;
    assert_eq!(standings(&now["rotation"])[1], "signer-9 away ");
    assert_eq!(
        (&now["rotation"]["step"], &now["rotation"]["waitsFor"]),
        (&json!("reissue"), &json!("proxies"))
    );
    rotation(json!({"resume": true, "withoutAway": true})).await;
    let update = first.update().await;
    assert_eq!(roots_of(&update).certificates(), &reissued.certificates()[..1]);
    first.handle.answer(update.ticket, Vec::new()).await;
    let over = async {
        loop {
            let (_, now) = mesh.call(Method::GET, "/v1/identity", String::new()).await;
            if now["rotation"].is_null() {
                return now;
            }
            tokio::task::yield_now().await;
        }
    };
    let now = within(over).await;
    assert_eq!(now["roots"].as_array().map(Vec::len), Some(1), "{now}");
    assert!(
        mesh.text("/metrics")
            .await
            .contains("rajut_control_root_rotation_step 0\n")
    );
    mesh.stop();
}

impl Subscriber {
    /// Subscribes to the table of names and acknowledges the first one.
    async fn take_names(&mut self) {
        self.handle.subscribe_all(type_url::NAME_TABLE).await;
        let update = self.update().await;
        self.handle.answer(update.ticket, Vec::new()).await;
    }

    /// The next update, whatever else happens.
    async fn update(&mut self) -> rajut_xds::client::Update {
        loop {
            match within(self.events.recv()).await.expect("the client lives") {
                Event::Update(update) => return update,
                Event::Connected | Event::Disconnected { .. } => {}
            }
        }
    }

    async fn reconnected(&mut self) {
        let mut lost = false;
        loop {
            match within(self.events.recv()).await.expect("the client lives") {
                Event::Disconnected { .. } => lost = true,
                Event::Connected if lost => return,
                Event::Connected => {}
                // The table carries the same names: the version is the same and nothing is sent.
                Event::Update(update) => assert!(update.resources.is_empty(), "{update:?} was sent again"),
            }
        }
    }

    async fn refused(&mut self) -> String {
        loop {
            match within(self.events.recv()).await.expect("the client lives") {
                Event::Disconnected { reason, .. } => return reason,
                Event::Connected => {}
                Event::Update(update) => {
                    assert!(update.resources.is_empty(), "a stranger was told {update:?}");
                }
            }
        }
    }
}
