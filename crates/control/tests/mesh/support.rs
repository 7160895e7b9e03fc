//! A control plane with one service, and its clients.

use std::{future::Future, path::PathBuf, time::Duration};

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use rajut_config::Source;
use rajut_control::{Control, ControlOptions, start};
use rajut_identity::{
    Identity, IdentityStore, TrustBundle,
    enrol::{EnrolOptions, Issuer, Token, control_plane_connector, enrol},
};
use rajut_platform::socket::UnixStream;
use rajut_runtime::Clock;
use rajut_xds::{
    Node, Protocol,
    client::{ClientOptions, Event, Handle, spawn},
};
use serde_json::{Value, json};
use tokio::sync::mpsc;

/// Ten times what anything here takes.
const BOUND: Duration = Duration::from_secs(30);

pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(BOUND, future).await.expect("in time")
}

pub(crate) fn service(name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\nspec:\n  selector: {{app: {name}}}\n  ports:\n  - name: http\n    port: 8080\n"
    )
}

pub(crate) struct Mesh {
    control: Control,
    options: ControlOptions,
}

pub(crate) struct Subscriber {
    pub(crate) handle: Handle,
    pub(crate) events: mpsc::Receiver<Event>,
}

impl Mesh {
    pub(crate) async fn start(name: &str) -> Self {
        Self::start_with(name, |_| {}).await
    }

    pub(crate) async fn start_with(name: &str, change: impl FnOnce(&mut ControlOptions)) -> Self {
        let state: PathBuf = std::env::temp_dir().join(format!("rajut-mesh-{name}-{}", std::process::id()));
        // What an earlier run left behind.
        let _ = std::fs::remove_dir_all(&state);
        let mut options = ControlOptions::new(state);
        options.default_namespace = "clinic".into();
        options.texts = vec![Source::new("clinic.yaml", service("auth"))];
        change(&mut options);
        let control = within(start(options.clone())).await.expect("starts");
        Self { control, options }
    }

    /// The same state and port, another process.
    pub(crate) async fn restart(self) -> Self {
        let Self { control, mut options } = self;
        options.listen = control.address();
        control.stop();
        let control = loop {
            // The old listener closes when its task is gone.
            match start(options.clone()).await {
                Ok(control) => break control,
                Err(error) => assert!(error.to_string().contains("can't listen"), "{error}"),
            }
            tokio::task::yield_now().await;
        };
        Self { control, options }
    }

    pub(crate) fn stop(self) {
        self.control.stop();
        // The folder holds keys of a mesh that is no more.
        let _ = std::fs::remove_dir_all(&self.options.state_dir);
    }

    pub(crate) fn issuer(&self) -> Issuer {
        let text = std::fs::read_to_string(self.options.state_dir.join("control.json")).expect("written");
        let description: Value = serde_json::from_str(&text).expect("JSON");
        let root = std::fs::read(description["rootCert"].as_str().expect("a path")).expect("readable");
        Issuer {
            address: description["address"].as_str().expect("an address").to_owned(),
            server_name: description["serverName"].as_str().expect("a name").to_owned(),
            roots: TrustBundle::from_pem(&root).expect("PEM"),
            roots_file: None,
        }
    }

    pub(crate) async fn token(&self, namespace: &str, account: &str, workload: &str) -> String {
        let body = json!({"namespace": namespace, "serviceAccount": account, "workload": workload});
        let (status, answer) = self.call(Method::POST, "/v1/tokens", body.to_string()).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        answer["token"].as_str().expect("a token").to_owned()
    }

    pub(crate) async fn enrol(&self, namespace: &str, account: &str, workload: &str) -> Identity {
        let options = EnrolOptions {
            issuer: self.issuer(),
            token: Token::Given(self.token(namespace, account, workload).await),
            ttl: Duration::from_hours(1),
        };
        within(Box::pin(enrol(&options, None, &Clock::system())))
            .await
            .expect("enrolled")
    }

    pub(crate) fn connect(&self, identity: &Identity, name: &str, protocol: Protocol) -> Subscriber {
        self.connect_store(IdentityStore::fixed(identity.clone()), name, protocol)
    }

    pub(crate) fn connect_store(&self, store: IdentityStore, name: &str, protocol: Protocol) -> Subscriber {
        Self::open(store, id_of(name), protocol, self.issuer())
    }

    /// `own_roots`: the server is judged by this mesh's root, whatever the identity brings.
    pub(crate) fn subscriber(
        &self,
        identity: &Identity,
        name: &str,
        protocol: Protocol,
        own_roots: bool,
    ) -> Subscriber {
        let mut identity = identity.clone();
        if own_roots {
            identity.roots = self.issuer().roots;
        }
        Self::open(
            IdentityStore::fixed(identity),
            id_of(name),
            protocol,
            self.issuer(),
        )
    }

    pub(crate) fn subscriber_as(&self, identity: &Identity, id: &str) -> Subscriber {
        let store = IdentityStore::fixed(identity.clone());
        Self::open(store, id.to_owned(), Protocol::Delta, self.issuer())
    }

    fn open(store: IdentityStore, id: String, protocol: Protocol, issuer: Issuer) -> Subscriber {
        let node = Node {
            id: id.into(),
            metadata: json!({"RAJUT_DATA_PLANE": "rajut"}),
            ..Node::default()
        };
        let mut options = ClientOptions::new(node, control_plane_connector(issuer, store));
        options.protocol = protocol;
        let (handle, events) = spawn(options);
        Subscriber { handle, events }
    }

    pub(crate) async fn put_workloads(&self, names: &[&str]) {
        let workload = |name: &&str| {
            json!({
                "name": name, "deployment": "auth", "namespace": "clinic", "labels": {"app": "auth"},
                "serviceAccount": "auth", "address": "127.10.0.1", "namedPorts": {}, "mesh": true, "weight": 1,
                "health": "ready"
            })
        };
        let body = json!({"workloads": names.iter().map(workload).collect::<Vec<_>>()});
        let (status, answer) = self.call(Method::PUT, "/v1/workloads", body.to_string()).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
    }

    /// Waits until that proxy is connected and has answered everything.
    pub(crate) async fn settled(&self, workload: &str) {
        let settled = async {
            loop {
                let (_, body) = self.call(Method::GET, "/v1/proxies", String::new()).await;
                let proxies = body["proxies"].as_array().cloned().unwrap_or_default();
                let done = |proxy: &Value| {
                    proxy["workload"] == workload && proxy["upToDate"] == true && proxy["types"] != json!([])
                };
                if proxies.iter().any(done) {
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        within(settled).await;
    }

    /// Waits until that proxy is connected.
    pub(crate) async fn connected(&self, workload: &str) {
        let connected = async {
            loop {
                let (_, body) = self.call(Method::GET, "/v1/proxies", String::new()).await;
                let proxies = body["proxies"].as_array().cloned().unwrap_or_default();
                if proxies.iter().any(|proxy| proxy["workload"] == workload) {
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        within(connected).await;
    }

    pub(crate) async fn call(&self, method: Method, path: &str, body: String) -> (StatusCode, Value) {
        let (status, text) = self.exchange(method, path, body).await;
        let value = serde_json::from_str(&text).expect(&text);
        (status, value)
    }

    pub(crate) async fn text(&self, path: &str) -> String {
        self.exchange(Method::GET, path, String::new()).await.1
    }

    async fn exchange(&self, method: Method, path: &str, body: String) -> (StatusCode, String) {
        let stream = UnixStream::connect(self.options.state_dir.join("control.sock"))
            .await
            .expect("open");
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .expect("HTTP");
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "control")
            .body(Full::new(Bytes::from(body)))
            .expect("a request");
        let answer = within(sender.send_request(request)).await.expect("an answer");
        let status = answer.status();
        let bytes = answer.into_body().collect().await.expect("a body").to_bytes();
        (status, String::from_utf8(bytes.to_vec()).expect("UTF-8"))
    }
}

fn id_of(name: &str) -> String {
    format!("sidecar~10.0.0.1~{name}.clinic~clinic.svc.cluster.local")
}
