//! A proxy in memory: one worker on the test's own thread, clients over real sockets, clusters of scripted servers.
#![expect(clippy::disallowed_methods, reason = "tests wait up to a deadline")]

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    future::Future,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use rajut_ir::{
    access_log::{AccessLog, LogFilter, LogFormat, LogSink},
    cluster::{CircuitBreakers, Cluster as ClusterIr, Discovery, DnsSettings, LbPolicy, UpstreamProtocol},
    endpoint::{Endpoint, EndpointAddress, Health, LoadAssignment, LocalityEndpoints},
    filter::HttpFilter,
    http::{
        ClientCertDetails, Codec, ForwardClientCert, HostPort, HttpConnectionManager, RouteSource,
        RouterFilter, ServerHeader,
    },
    listener::{Direction, Inspectors, ListenerAddress},
    route::{
        Forward, HeaderMutations, PathMatch, RetryOn, RetryPolicy, Route, RouteActionKind,
        RouteConfiguration, RouteMatch, Target, VirtualHost,
    },
};
use rajut_platform::socket::{TcpListener, TcpStream};
use rajut_types::{Labels, Locality, Origin, Percent, Text, condition::Condition};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    runtime::{Builder, LocalOptions},
    sync::watch,
    task::spawn_local,
};

use crate::{
    cluster::{Cluster, Slot, Transports},
    connection::{Connection, Peer},
    epoch::{Config, Epoch},
    http::{manager::Manager, serve::serve_connection},
    listener::{Action, Chain, Listener, chain::Matcher},
    stats::{ClusterCounter, Registry},
    stream::Stream,
    worker::Worker,
};

/// Longest a test may take.
const LIMIT: Duration = Duration::from_secs(20);

/// Runs a test on a worker's kind of runtime, within bounds.
pub(super) fn run(test: impl Future<Output = ()> + 'static) {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .unwrap();
    runtime.block_on(async { tokio::time::timeout(LIMIT, test).await.expect("the test hangs") });
}

/// Polls until the condition holds.
pub(super) async fn until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(5), "{what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

pub(super) fn endpoint(address: SocketAddr) -> Endpoint {
    Endpoint {
        address: EndpointAddress::Socket(address),
        health: Health::Unknown,
        weight: 1,
        hostname: Text::default(),
        tls_labels: Labels::default(),
        workload: Text::default(),
        lb_labels: Labels::default(),
    }
}

pub(super) fn assignment(addresses: &[SocketAddr]) -> LoadAssignment {
    LoadAssignment {
        cluster_name: "app".into(),
        localities: vec![LocalityEndpoints {
            locality: Locality::default(),
            priority: 0,
            weight: None,
            endpoints: addresses.iter().copied().map(endpoint).collect(),
        }],
        overprovisioning_percent: None,
    }
}

pub(super) fn cluster_ir(addresses: &[SocketAddr]) -> ClusterIr {
    ClusterIr {
        name: "app".into(),
        alt_stat_name: Text::default(),
        discovery: Discovery::Static(assignment(addresses)),
        connect_timeout: Duration::from_secs(2),
        lb_policy: LbPolicy::RoundRobin,
        locality_weighted: false,
        panic_threshold: Percent::default(),
        circuit_breakers: CircuitBreakers::UNLIMITED,
        outlier_detection: None,
        health_check: None,
        tls: None,
        tls_matches: Vec::new(),
        protocol: UpstreamProtocol::default(),
        idle_timeout: None,
        max_requests_per_connection: None,
        max_connection_duration: None,
        tcp_keepalive: None,
        bind: None,
        per_connection_buffer_limit: None,
        close_connections_on_host_health_failure: false,
        dns: DnsSettings::default(),
        service: None,
        origin: Origin::built_in("test"),
    }
}

/// The listener `test`, whose default chain the manager serves.
pub(super) fn listener_of(manager: &Arc<Manager>) -> Arc<Listener> {
    let chain = Chain {
        name: "test".into(),
        tls: None,
        handshake_timeout: Duration::ZERO,
        access: Vec::new(),
        asker: None,
        shows_certificate: false,
        judges_open: false,
        action: Action::Http(manager.clone()),
    };
    let ir = rajut_ir::listener::Listener {
        name: "test".into(),
        address: ListenerAddress {
            socket: ([127, 0, 0, 1], 0).into(),
            netns: None,
        },
        bind_to_port: true,
        use_original_dst: false,
        inspectors: Inspectors::default(),
        inspection_timeout: Duration::ZERO,
        continue_on_inspection_timeout: true,
        filter_chains: Vec::new(),
        default_filter_chain: None,
        direction: Direction::Outbound,
        access_logs: Vec::new(),
        per_connection_buffer_limit: None,
        api_listener: None,
        origin: Origin::built_in("test"),
    };
    Arc::new(Listener {
        ir: Arc::new(ir),
        matcher: Matcher::compile(&[]),
        chains: Vec::new(),
        default_chain: Some(Arc::new(chain)),
        logs: Vec::new(),
    })
}

pub(super) fn manager_ir() -> HttpConnectionManager {
    HttpConnectionManager {
        tracing: None,
        codec: Codec::Auto,
        stat_prefix: "test".into(),
        routes: RouteSource::Rds("routes".into()),
        filters: vec![HttpFilter::router(RouterFilter::default())],
        access_logs: Vec::new(),
        use_remote_address: false,
        xff_num_trusted_hops: 0,
        forward_client_cert: ForwardClientCert::Sanitize,
        client_cert_details: ClientCertDetails::default(),
        idle_timeout: Some(Duration::from_hours(1)),
        stream_idle_timeout: None,
        request_timeout: None,
        request_headers_timeout: None,
        max_connection_duration: None,
        max_requests_per_connection: None,
        drain_timeout: Duration::from_secs(5),
        max_request_headers_kb: 60,
        max_request_headers_count: 100,
        generate_request_id: true,
        preserve_external_request_id: false,
        upgrades: vec![("websocket".into(), true)],
        normalize_path: true,
        merge_slashes: false,
        unescape_slashes: false,
        server_name: "rajut".into(),
        server_header: ServerHeader::Overwrite,
        proxy_100_continue: true,
        strip_host_port: HostPort::Keep,
        http1: rajut_ir::cluster::Http1Options::default(),
        http2: rajut_ir::cluster::Http2Options {
            allow_connect: true,
            ..Default::default()
        },
    }
}

pub(super) fn forward_to(cluster: &str) -> Forward {
    Forward {
        include_virtual_host_limits: false,
        rate_limits: Vec::new(),
        target: Target::Cluster(cluster.into()),
        cluster_not_found_status: 503,
        timeout: None,
        idle_timeout: None,
        max_stream_duration: None,
        grpc_timeout_max: None,
        retry: None,
        path_rewrite: None,
        host_rewrite: None,
        append_x_forwarded_host: false,
        hash: Vec::new(),
        mirrors: Vec::new(),
        upgrades: Vec::new(),
    }
}

pub(super) fn retry_on(on: RetryOn, num_retries: u32) -> RetryPolicy {
    RetryPolicy {
        on,
        num_retries,
        per_try_timeout: None,
        per_try_idle_timeout: None,
        base_interval: Duration::from_millis(1),
        max_interval: Duration::from_millis(2),
        status_codes: Vec::new(),
        avoid_previous_hosts_attempts: 5,
        previous_priorities_update: None,
    }
}

pub(super) fn route(action: RouteActionKind) -> Route {
    Route {
        filters: Vec::new(),
        name: "the-route".into(),
        matches: RouteMatch {
            path: PathMatch::Prefix("/".into()),
            case_sensitive: true,
            headers: Vec::new(),
            query: Vec::new(),
            grpc: false,
            fraction: None,
            claims: Vec::new(),
        },
        action,
        headers: HeaderMutations::default(),
        decorator: Text::default(),
        origin: Origin::built_in("test"),
    }
}

/// A proxy with one listener and the cluster `app`.
pub(super) struct Proxy {
    pub(super) address: SocketAddr,
    pub(super) cluster: Arc<Cluster>,
    pub(super) registry: Arc<Registry>,
    pub(super) worker: Rc<Worker>,
    pub(super) drain: watch::Sender<bool>,
    pub(super) connections: Rc<Cell<usize>>,
    pub(super) config: Arc<Config>,
}

pub(super) struct Setup {
    pub(super) cluster: ClusterIr,
    pub(super) manager: HttpConnectionManager,
    pub(super) route: Route,
    pub(super) virtual_host: Box<dyn Fn(&mut VirtualHost)>,
    /// What the whole table changes.
    pub(super) table: HeaderMutations,
    pub(super) log: Option<std::path::PathBuf>,
    pub(super) log_filter: Option<String>,
    /// Whose traffic the listener takes.
    pub(super) direction: Direction,
    /// Who the client has proven to be.
    pub(super) peer: Peer,
}

impl Setup {
    pub(super) fn to(addresses: &[SocketAddr]) -> Self {
        Self {
            cluster: cluster_ir(addresses),
            manager: manager_ir(),
            route: route(RouteActionKind::Forward(Box::new(forward_to("app")))),
            virtual_host: Box::new(|_| {}),
            table: HeaderMutations::default(),
            log: None,
            log_filter: None,
            direction: Direction::Outbound,
            peer: Peer::None,
        }
    }

    pub(super) fn forward(&mut self) -> &mut Forward {
        match &mut self.route.action {
            RouteActionKind::Forward(forward) => forward,
            _ => panic!("the route forwards"),
        }
    }

    pub(super) fn start(self) -> std::pin::Pin<Box<dyn Future<Output = Proxy>>> {
        Box::pin(self.started())
    }

    #[expect(clippy::too_many_lines, reason = "one proxy from nothing, read top to bottom")]
    async fn started(mut self) -> Proxy {
        let registry = Registry::new(1);
        let cluster = Cluster::build(
            Arc::new(self.cluster),
            None,
            Transports::default(),
            &registry,
            None,
        );
        if let Some(path) = &self.log {
            self.manager.access_logs.push(AccessLog {
                sink: LogSink::File(path.to_str().unwrap().into()),
                filter: self.log_filter.as_deref().map(|text| {
                    LogFilter::Condition(Condition::parse(text).unwrap())
                }),
                format: LogFormat::Text(
                    "%RESPONSE_CODE% %RESPONSE_FLAGS% %REQ(:METHOD)% %REQ(:PATH)% %ROUTE_NAME% %UPSTREAM_CLUSTER% \
                     %BYTES_RECEIVED% %BYTES_SENT% %PROTOCOL% %UPSTREAM_REQUEST_ATTEMPT_COUNT%\n"
                        .into(),
                ),
            });
        }
        let manager = Manager::compile(Arc::new(self.manager), self.direction, &registry).unwrap();
        let mut virtual_host = VirtualHost {
            filters: Vec::new(),
            rate_limits: Vec::new(),
            name: "all".into(),
            domains: vec!["*".into()],
            routes: vec![Arc::new(self.route)],
            retry_policy: None,
            headers: HeaderMutations::default(),
            include_request_attempt_count: false,
            origin: Origin::built_in("test"),
        };
        (self.virtual_host)(&mut virtual_host);
        let routes = RouteConfiguration {
            filters: Vec::new(),
            name: "routes".into(),
            virtual_hosts: vec![Arc::new(virtual_host)],
            ignore_port_in_host_matching: false,
            headers: self.table,
        };
        let table = Arc::new(crate::http::filters::Routes::compile(
            &Arc::new(routes),
            &registry,
        ));
        let config = Arc::new(Config {
            version: 1,
            listeners: HashMap::from([("test".into(), listener_of(&manager))]),
            routes: HashMap::from([("routes".into(), table)]),
            clusters: HashMap::from([("app".into(), Slot::of(&cluster, &registry))]),
            ..Config::default()
        });
        let (drain, draining) = watch::channel(false);
        let worker = Worker::new(
            0,
            Rc::new(Epoch::first(config.clone())),
            7,
            draining,
            Arc::default(),
        );
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Rc::new(Cell::new(0));
        let (accepting, counting) = (worker.clone(), connections.clone());
        let (direction, peer) = (self.direction, self.peer);
        spawn_local(async move {
            while let Ok((tcp, remote)) = listener.accept().await {
                let connection = Rc::new(Connection {
                    id: accepting.next_connection_id(),
                    listener: "test".into(),
                    chain: None,
                    direction,
                    local: address,
                    remote,
                    sni: None,
                    peer: peer.clone(),
                    certificate: None,
                    version: 0,
                    opened: Instant::now(),
                });
                let (worker, manager, counting) = (accepting.clone(), manager.clone(), counting.clone());
                counting.set(counting.get() + 1);
                spawn_local(async move {
                    serve_connection(worker, Stream::Tcp(tcp), connection, manager).await;
                    counting.set(counting.get() - 1);
                });
            }
        });
        Proxy {
            address,
            cluster,
            registry,
            worker,
            drain,
            connections,
            config,
        }
    }
}

impl Proxy {
    pub(super) async fn client(&self) -> Client {
        Client(TcpStream::connect(self.address).await.unwrap(), Vec::new())
    }

    /// One request on a connection of its own.
    pub(super) async fn get(&self, path: &str) -> Reply {
        self.client().await.get(path).await
    }

    pub(super) fn counted(&self, counter: ClusterCounter) -> u64 {
        self.cluster.stats().sum(counter)
    }
}

/// A response as a client saw it.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: Vec<u8>,
}

impl Reply {
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub(super) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

/// An HTTP/1 client over a socket: writes what it is told, reads what comes.
pub(super) struct Client(pub(super) TcpStream, Vec<u8>);

impl Client {
    pub(super) fn over(stream: TcpStream) -> Self {
        Self(stream, Vec::new())
    }

    pub(super) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).await.unwrap();
    }

    pub(super) async fn get(&mut self, path: &str) -> Reply {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: app\r\n\r\n"))
            .await;
        self.reply(false).await
    }

    pub(super) async fn post(&mut self, path: &str, body: &str) -> Reply {
        let length = body.len();
        self.send(format!(
            "POST {path} HTTP/1.1\r\nHost: app\r\nContent-Length: {length}\r\n\r\n{body}"
        ))
        .await;
        self.reply(false).await
    }

    /// Reads more; `false` at the end.
    pub(super) async fn more(&mut self) -> bool {
        self.0.read_buf(&mut self.1).await.is_ok_and(|count| count > 0)
    }

    /// A head up to its empty line.
    pub(super) async fn head(&mut self) -> String {
        loop {
            if let Some(end) = self.1.windows(4).position(|four| four == b"\r\n\r\n") {
                let head: Vec<u8> = self.1.drain(..end + 4).collect();
                return String::from_utf8(head).unwrap();
            }
            assert!(
                self.more().await,
                "the connection ended within a head: {:?}",
                String::from_utf8_lossy(&self.1)
            );
        }
    }

    pub(super) async fn exactly(&mut self, length: usize) -> Vec<u8> {
        while self.1.len() < length {
            assert!(self.more().await, "the connection ended within a body");
        }
        self.1.drain(..length).collect()
    }

    pub(super) async fn line(&mut self) -> String {
        loop {
            if let Some(end) = self.1.windows(2).position(|two| two == b"\r\n") {
                let line: Vec<u8> = self.1.drain(..end + 2).collect();
                return String::from_utf8(line[..end].to_vec()).unwrap();
            }
            assert!(self.more().await, "the connection ended within a line");
        }
    }

    /// Everything until the server closes.
    pub(super) async fn rest(&mut self) -> Vec<u8> {
        while self.more().await {}
        std::mem::take(&mut self.1)
    }

    /// A whole response; `bodiless`: it answers HEAD.
    pub(super) async fn reply(&mut self, bodiless: bool) -> Reply {
        let head = self.head().await;
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let mut reply = Reply {
            status,
            head,
            body: Vec::new(),
        };
        if bodiless || matches!(status, 100..=199 | 204 | 304) {
            return reply;
        }
        if let Some(length) = reply.field("content-length") {
            reply.body = self.exactly(length.parse().unwrap()).await;
        } else if reply.field("transfer-encoding") == Some("chunked") {
            loop {
                let size = usize::from_str_radix(&self.line().await, 16).unwrap();
                if size == 0 {
                    while !self.line().await.is_empty() {}
                    break;
                }
                reply.body.extend(self.exactly(size).await);
                self.line().await;
            }
        } else {
            reply.body = self.rest().await;
        }
        reply
    }
}

/// What a scripted server saw.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) heads: RefCell<Vec<String>>,
    pub(super) bodies: RefCell<Vec<Vec<u8>>>,
    pub(super) connections: Cell<usize>,
    pub(super) active: Cell<usize>,
    /// Most connections at once.
    pub(super) peak: Cell<usize>,
}

/// A server whose connections are each handled by `serve`.
pub(super) async fn server<F>(serve: impl Fn(Client, Rc<Seen>) -> F + 'static) -> (SocketAddr, Rc<Seen>)
where
    F: Future<Output = ()> + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Rc::new(Seen::default());
    let seeing = seen.clone();
    spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            seeing.connections.set(seeing.connections.get() + 1);
            seeing.active.set(seeing.active.get() + 1);
            seeing.peak.set(seeing.peak.get().max(seeing.active.get()));
            let served = serve(Client::over(stream), seeing.clone());
            let seeing = seeing.clone();
            spawn_local(async move {
                served.await;
                seeing.active.set(seeing.active.get() - 1);
            });
        }
    });
    (address, seen)
}

/// Reads one request, notes it; `None` at the connection's end.
pub(super) async fn request(client: &mut Client, seen: &Seen) -> Option<String> {
    loop {
        if client.1.windows(4).any(|four| four == b"\r\n\r\n") {
            break;
        }
        if !client.more().await {
            return None;
        }
    }
    let head = client.head().await;
    let reply = Reply {
        status: 0,
        head: head.clone(),
        body: Vec::new(),
    };
    let mut body = Vec::new();
    if let Some(length) = reply.field("content-length") {
        body = client.exactly(length.parse().unwrap()).await;
    } else if reply.field("transfer-encoding").is_some() {
        loop {
            let size = usize::from_str_radix(&client.line().await, 16).unwrap();
            if size == 0 {
                loop {
                    let line = client.line().await;
                    if line.is_empty() {
                        break;
                    }
                    body.extend_from_slice(format!("[{line}]").as_bytes());
                }
                break;
            }
            body.extend(client.exactly(size).await);
            client.line().await;
        }
    }
    seen.heads.borrow_mut().push(head.clone());
    seen.bodies.borrow_mut().push(body);
    Some(head)
}

/// A server that answers every request with these bytes and keeps its connections.
pub(super) async fn answering(answer: &'static str) -> (SocketAddr, Rc<Seen>) {
    server(move |mut client, seen| async move {
        while request(&mut client, &seen).await.is_some() {
            client.send(answer).await;
        }
    })
    .await
}

/// An address where nobody listens.
pub(super) async fn nobody() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}

pub(super) const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
