//! A whole proxy in this process and a control plane that comes and goes: how soon it is ready with its first
//! configuration, and clusters on demand when the control plane is lost meanwhile. (With its last known configuration:
//! `crates/rajut/tests/footprint.rs`.)
//!
//! Every test prints what it measured. Each has a proxy of its own, which runs until this process ends.
#![expect(
    clippy::disallowed_methods,
    reason = "tests wait for a proxy of their own and measure it"
)]

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rajut_ir::{
    ResourceKind, Resources,
    wire::{self, bootstrap},
};
use rajut_proxy::run::{ProxyOptions, run};
use rajut_runtime::Clock;
use rajut_types::Text;
use rajut_xds::{
    Node, Protocol,
    resource::{Resource, ResourceSet},
    server::{AdsServer, Connection, Feed, Interest, ResourceSource, StreamStatus},
    type_url,
};
use tokio::sync::{oneshot, watch};
use tonic::{Extensions, Status};

/// How long anything here may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// From the first configuration to ready; the goal is a tenth.
const FIRST_MAX: Duration = Duration::from_secs(1);

/// What a control plane knows; nothing changes while it runs.
struct Known(Option<Arc<ResourceSet>>);

impl Feed for Known {
    fn newest(&self) -> Option<Arc<ResourceSet>> {
        self.0.clone()
    }

    fn interested(&self, _: Vec<Interest>) {}
}

/// A control plane for one kind of proxy.
struct Source {
    known: Arc<Known>,
    woken: watch::Receiver<u64>,
    connected: Arc<AtomicUsize>,
}

impl ResourceSource for Source {
    fn connect(&self, _: &Extensions, _: &Node, _: Protocol) -> Result<Connection, Status> {
        self.connected.fetch_add(1, Ordering::SeqCst);
        let (status, _) = watch::channel(StreamStatus::default());
        Ok(Connection {
            feed: self.known.clone(),
            woken: self.woken.clone(),
            status,
        })
    }
}

/// Runs until it is dropped, then all its connections are closed.
struct ControlPlane {
    connected: Arc<AtomicUsize>,
    end: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl ControlPlane {
    /// `None` for the resources: it accepts subscriptions and says nothing.
    fn start(address: SocketAddr, resources: Option<ResourceSet>) -> Self {
        let connected = Arc::new(AtomicUsize::new(0));
        let (wake, woken) = watch::channel(0);
        let source = Arc::new(Source {
            known: Arc::new(Known(resources.map(Arc::new))),
            woken,
            connected: Arc::clone(&connected),
        });
        let (end, ended) = oneshot::channel::<()>();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            let service = AdsServer::service(source, Clock::system());
            let server = tonic::transport::Server::builder().add_service(service);
            runtime.block_on(async {
                tokio::select! {
                    served = server.serve(address) => served.expect("the port is free"),
                    _ = ended => {}
                }
            });
            drop(wake);
        });
        Self {
            connected,
            end: Some(end),
            thread: Some(thread),
        }
    }

    fn await_client(&self) {
        until("a proxy connects", || self.connected.load(Ordering::SeqCst) > 0);
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        // The error means that it has ended already, which the join tells.
        let _ = self.end.take().map(|end| end.send(()));
        let ended = self.thread.take().map(thread::JoinHandle::join);
        assert!(ended.is_none_or(|ended| ended.is_ok()) || thread::panicking());
    }
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "{what}: not within {PATIENCE:?}");
        thread::sleep(Duration::from_millis(1));
    }
}

fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("it is bound")
}

/// Answers every request with 200 until this process ends.
fn backend() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(1..) = stream.read(&mut buffer) {
                    if stream
                        .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                        .is_err()
                    {
                        return;
                    }
                }
            });
        }
    });
    address
}

/// A listener whose path `/NAME` goes to the service of that name, and the clusters of `services`.
fn resources(listen: SocketAddr, services: &[(&str, SocketAddr)]) -> Resources {
    let mut text = format!(
        r#"
static_resources:
  listeners:
  - name: front
    address: {{socket_address: {{address: 127.0.0.1, port_value: {}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: front
          http_filters:
          - name: envoy.filters.http.router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
          route_config:
            name: routes
            validate_clusters: false
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - match: {{path: /one}}
                route: {{cluster: "outbound|80||one"}}
              - match: {{path: /two}}
                route: {{cluster: "outbound|80||two"}}
  clusters:
"#,
        listen.port()
    );
    for (name, address) in services {
        let cluster = format!(
            r#"
  - name: "outbound|80||{name}"
    type: STATIC
    load_assignment:
      cluster_name: "outbound|80||{name}"
      endpoints:
      - lb_endpoints:
        - endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {}}}}}}}
"#,
            address.port()
        );
        text.push_str(&cluster);
    }
    bootstrap::parse_bootstrap(&text).expect("a bootstrap").resources
}

fn encoded(resources: &Resources) -> Vec<(ResourceKind, wire::Encoded)> {
    let clusters = resources.clusters.values();
    let listeners = resources.listeners.values();
    clusters
        .map(|cluster| (ResourceKind::Cluster, wire::encode_cluster(cluster)))
        .chain(listeners.map(|listener| (ResourceKind::Listener, wire::encode_listener(listener))))
        .collect()
}

fn set(resources: &Resources) -> ResourceSet {
    let mut types = BTreeMap::from([(type_url::CLUSTER, Vec::new()), (type_url::LISTENER, Vec::new())]);
    for (kind, one) in encoded(resources) {
        let resource = Resource {
            name: one.name,
            version: "1".into(),
            body: one.value.into(),
        };
        types
            .get_mut(kind.type_url())
            .expect("one of the two")
            .push(resource);
    }
    let types = types
        .into_iter()
        .map(|(url, all)| (Text::from(url), all.into_iter().collect()));
    ResourceSet {
        generation: 1,
        types: types.collect(),
    }
}

/// A folder for what a proxy reads; removed with this.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("rajut-control-plane-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder for the test");
        Self(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Another test's failure must not hide behind this one.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Starts a proxy that has everything from the control plane at that address.
fn start_proxy(folder: &Path, control: SocketAddr) {
    let text = format!(
        r"
node: {{id: tested}}
dynamic_resources:
  ads_config: {{api_type: DELTA_GRPC, transport_api_version: V3, grpc_services: [{{envoy_grpc: {{cluster_name: xds}}}}]}}
  lds_config: {{ads: {{}}}}
  cds_config: {{ads: {{}}}}
static_resources:
  clusters:
  - name: xds
    type: STATIC
    load_assignment:
      cluster_name: xds
      endpoints:
      - lb_endpoints:
        - endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {}}}}}}}
",
        control.port()
    );
    let bootstrap = folder.join("bootstrap.yaml");
    std::fs::write(&bootstrap, text).expect("the bootstrap file");
    let options = ProxyOptions {
        bootstrap,
        concurrency: 1,
        enrolment: None,
        dns: None,
        drain_time: Duration::ZERO,
        last_known: None,
        on_demand: Some(Duration::from_mins(1)),
    };
    thread::spawn(move || run(options));
}

/// The status of one request on a connection of its own.
fn ask(listen: SocketAddr, path: &str) -> u16 {
    let mut stream = TcpStream::connect(listen).expect("the proxy listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nhost: tested\r\nconnection: close\r\n\r\n"
    )
    .expect("it goes out");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let status = answer.split(' ').nth(1).map(str::parse);
    status.expect("an answer").expect("a number")
}

#[test]
fn a_proxy_is_ready_soon_after_its_first_configuration() {
    let folder = Folder::new("first");
    let (control, listen) = (free_address(), free_address());
    let silent = ControlPlane::start(control, None);
    start_proxy(&folder.0, control);
    silent.await_client();
    drop(silent);
    let plane = ControlPlane::start(control, Some(set(&resources(listen, &[("one", backend())]))));
    plane.await_client();
    let began = Instant::now();
    until("the proxy listens", || TcpStream::connect(listen).is_ok());
    let ready = began.elapsed();
    assert_eq!(ask(listen, "/one"), 200);
    println!(
        "ready {ready:?} after the control plane heard of it, first answer after {:?}",
        began.elapsed()
    );
    assert!(ready < FIRST_MAX, "{ready:?}");
}

#[test]
fn a_request_that_waits_for_a_cluster_outlives_the_control_plane() {
    let folder = Folder::new("lost");
    let (control, listen) = (free_address(), free_address());
    let whole = set(&resources(listen, &[("one", backend())]));
    let first = ControlPlane::start(control, Some(whole.clone()));
    start_proxy(&folder.0, control);
    until("the proxy listens", || TcpStream::connect(listen).is_ok());
    drop(first);
    // It takes the question and dies with it.
    let silent = ControlPlane::start(control, None);
    silent.await_client();
    let began = Instant::now();
    let waiting = thread::spawn(move || ask(listen, "/one"));
    thread::sleep(Duration::from_millis(100));
    assert!(!waiting.is_finished(), "nobody has answered");
    drop(silent);
    let _last = ControlPlane::start(control, Some(whole));
    assert_eq!(waiting.join().expect("an answer"), 200);
    println!(
        "answered {:?} after it was asked, by the third control plane",
        began.elapsed()
    );
}

#[test]
fn after_a_reconnect_what_is_known_stays_what_is_gone_goes_and_what_is_new_comes() {
    let folder = Folder::new("reconnect");
    let (control, listen) = (free_address(), free_address());
    let (one, two) = (("one", backend()), ("two", backend()));
    let first = ControlPlane::start(control, Some(set(&resources(listen, &[one, two]))));
    start_proxy(&folder.0, control);
    until("the proxy listens", || TcpStream::connect(listen).is_ok());
    assert_eq!(ask(listen, "/one"), 200);
    drop(first);
    assert_eq!(ask(listen, "/one"), 200, "served on what is known");

    let second = ControlPlane::start(control, Some(set(&resources(listen, &[one, two]))));
    assert_eq!(ask(listen, "/two"), 200, "fetched from the next control plane");
    assert_eq!(ask(listen, "/one"), 200, "still known");
    drop(second);

    let _third = ControlPlane::start(control, Some(set(&resources(listen, &[two]))));
    let began = Instant::now();
    until("what is gone is no longer served", || ask(listen, "/one") == 503);
    println!("what is gone is no longer served after {:?}", began.elapsed());
    assert_eq!(ask(listen, "/two"), 200);
}
