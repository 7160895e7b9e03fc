//! Whole workers: threads, sockets, a configuration as it is read from a bootstrap file.
#![expect(clippy::disallowed_methods, reason = "a test waits for threads of its own")]

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use bytes::Bytes;
use h2::client::SendRequest;
use rajut_ir::wire::bootstrap::parse_bootstrap;
use rajut_platform::socket::{ListenOptions, TcpListener, TcpStream, listen};
use tokio::{
    runtime::{Builder, LocalOptions},
    sync::watch,
    task::{JoinHandle, spawn_local},
};

use super::Workers;
use crate::{
    assemble::{Assembler, Given},
    epoch::Config,
    stats::Registry,
};

const WORKERS: usize = 4;
const CONNECTIONS: usize = 3;
const STREAMS: usize = 4;
/// Requests of each stream's slot.
const REQUESTS: usize = 400;

fn bootstrap(backend: SocketAddr) -> String {
    format!(
        r#"
static_resources:
  listeners:
  - name: front
    address: {{socket_address: {{address: 127.0.0.1, port_value: 1}}}}
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
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - match: {{prefix: /}}
                route: {{cluster: backend}}
  clusters:
  - name: backend
    type: STATIC
    connect_timeout: 5s
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {{http2_protocol_options: {{}}}}
    load_assignment:
      cluster_name: backend
      endpoints:
      - lb_endpoints:
        - endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {}}}}}}}
"#,
        backend.port()
    )
}

async fn backend() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            spawn_local(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    let mut body = respond.send_response(http::Response::new(()), false).unwrap();
                    body.send_data(Bytes::from_static(&[b'x'; 512]), true).unwrap();
                }
            });
        }
    });
    address
}

async fn connect(address: SocketAddr) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(address).await.unwrap();
    let (send, connection) = h2::client::handshake(stream).await.unwrap();
    spawn_local(async move {
        // Ends with the test.
        let _ = connection.await;
    });
    send.ready().await.unwrap()
}

async fn get(send: SendRequest<Bytes>) {
    let mut send = send.ready().await.unwrap();
    let request = http::Request::get("http://app/").body(()).unwrap();
    let (response, _) = send.send_request(request, true).unwrap();
    let response = response.await.unwrap();
    assert_eq!(response.status(), 200);
    let mut body = response.into_body();
    while let Some(piece) = body.data().await {
        let piece = piece.unwrap();
        body.flow_control().release_capacity(piece.len()).unwrap();
    }
}

/// Nanoseconds on a processor, by worker thread.
fn worker_cpu() -> BTreeMap<String, u64> {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let of = |path: std::path::PathBuf| {
        let name = fs::read_to_string(path.join("comm")).ok()?.trim().to_owned();
        let spent = fs::read_to_string(path.join("schedstat")).ok()?;
        let spent = spent.split(' ').next()?.parse().ok()?;
        name.starts_with("worker-").then_some((name, spent))
    };
    tasks.filter_map(|task| of(task.ok()?.path())).collect()
}

fn config_for(backend: SocketAddr) -> Arc<Config> {
    let bootstrap = parse_bootstrap(&bootstrap(backend)).unwrap();
    let mut assembler = Assembler::new(Registry::new(WORKERS));
    let assembled = assembler.assemble(&Given {
        held: &bootstrap.resources.into(),
        resolved: &HashMap::new(),
        secrets: &Arc::default(),
        on_demand: None,
        now: Instant::now(),
    });
    assert!(assembled.refused.is_empty(), "{:?}", assembled.refused);
    assembled.config
}

/// One socket per worker on one port, as `sockets.rs` opens them.
fn sockets() -> (SocketAddr, Vec<std::net::TcpListener>) {
    let options = ListenOptions {
        reuse_port: true,
        ..ListenOptions::default()
    };
    let first = listen("127.0.0.1:0".parse().unwrap(), &options).unwrap();
    let address = first.local_addr().unwrap();
    let more = (1..WORKERS).map(|_| listen(address, &options).unwrap());
    (address, std::iter::once(first).chain(more).collect())
}

async fn few_long_connections() {
    let backend = backend().await;
    let (_drain, draining) = watch::channel(false);
    let workers = Workers::start(WORKERS, &config_for(backend), &draining, |at| at as u64 + 1).unwrap();
    let (address, sockets) = sockets();
    let (_stop, stopped) = watch::channel(false);
    workers.listen(&"front".into(), sockets, &stopped).await.unwrap();

    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        let send = connect(address).await;
        // Answered: it has its worker.
        get(send.clone()).await;
        connections.push(send);
    }
    let before = worker_cpu();
    let slots: Vec<JoinHandle<()>> = connections
        .iter()
        .flat_map(|send| (0..STREAMS).map(|_| send.clone()))
        .map(|send| {
            spawn_local(async move {
                for _ in 0..REQUESTS {
                    get(send.clone()).await;
                }
            })
        })
        .collect();
    for slot in slots {
        slot.await.unwrap();
    }
    let spent: BTreeMap<String, u64> = worker_cpu()
        .into_iter()
        .map(|(name, after)| {
            (
                name.clone(),
                after.saturating_sub(before.get(&name).copied().unwrap_or(0)),
            )
        })
        .collect();
    let all: u64 = spent.values().sum();
    let mut shares: Vec<u64> = spent.values().map(|spent| spent * 100 / all.max(1)).collect();
    let mut served: Vec<u64> = workers
        .counters()
        .iter()
        .map(|counters| counters.connections.load(Ordering::Relaxed))
        .collect();
    println!(
        "connections per worker {served:?}, share of the workers' CPU in percent {spent:?} -> {shares:?}"
    );
    served.sort_unstable();
    assert_eq!(served, [0, 1, 1, 1], "each connection has a worker of its own");
    shares.sort_unstable();
    assert!(
        shares[1] >= 20 && shares[3] <= 50,
        "the same streams, the same share: {shares:?}"
    );
}

#[test]
fn few_long_connections_are_spread_over_the_workers() {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .unwrap();
    runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(30), few_long_connections())
            .await
            .expect("the test hangs");
    });
}
