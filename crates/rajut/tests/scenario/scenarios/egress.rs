//! Ways out of a workload: to servers on this machine by a documented name, to unknown destinations where the mesh
//! allows them, and none past the sidecar.

use std::{
    io::{Read, Write},
    net::{IpAddr, TcpListener, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use crate::{
    lab::{self, Workload},
    mesh::{Mesh, Setup, eventually},
    runner::{BOTH, Outcome, Plane, Result, Scenario},
};

pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "registry_only_refuses_what_is_unknown_and_allow_any_lets_it_through",
        planes: BOTH,
        run: policies,
    },
    Scenario {
        name: "what_is_refused_is_in_the_log_with_the_lines_that_let_it_through",
        planes: BOTH,
        run: lines,
    },
    Scenario {
        name: "the_only_way_out_of_a_namespace_is_its_sidecar",
        planes: BOTH,
        run: bypass,
    },
];

fn settings(mode: &str) -> String {
    format!(
        "---
apiVersion: v1
kind: ConfigMap
metadata: {{name: istio, namespace: istio-system}}
data:
  mesh: |
    outboundTrafficPolicy: {{mode: {mode}}}
"
    )
}

fn setup(mode: &str) -> Setup {
    let one = |name| {
        lab::yaml(&Workload {
            name,
            port: 8080,
            port_name: "http",
            replicas: 1,
            run: format!("exec {} sample", env!("CARGO_BIN_EXE_rajut")),
            more: "",
        })
    };
    let namespaces = "apiVersion: v1\nkind: Namespace\nmetadata: {name: lab}\n---\n\
                      apiVersion: v1\nkind: Namespace\nmetadata: {name: istio-system}\n";
    let text = format!("{namespaces}{}{}{}", settings(mode), one("web"), one("client"));
    Setup::yaml(&text).arguments(&["-n", "lab"])
}

/// A server outside the mesh: it answers anything with an HTTP answer and counts connections.
pub(super) struct Outside {
    pub(super) port: u16,
    accepted: Arc<AtomicU32>,
}

impl Outside {
    /// Port 0: any.
    pub(super) fn listen(address: &str, port: u16) -> Result<Self> {
        let listener = TcpListener::bind((address, port))?;
        let port = listener.local_addr()?.port();
        let accepted = Arc::new(AtomicU32::new(0));
        let counter = accepted.clone();
        // It ends with the test's process.
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                counter.fetch_add(1, Ordering::Relaxed);
                std::thread::spawn(move || {
                    let mut piece = [0; 4096];
                    while stream.read(&mut piece).is_ok_and(|length| length > 0) {
                        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\noutside\n";
                        if stream.write_all(answer).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Ok(Self { port, accepted })
    }

    fn accepted(&self) -> u32 {
        self.accepted.load(Ordering::Relaxed)
    }
}

/// An address of this machine that is not loopback.
pub(super) fn outer_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    // Nothing is sent: the address that would be used is all that is asked for.
    socket.connect("198.51.100.1:9").ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback() && !address.is_unspecified()).then_some(address)
}

const TRY: &str = "
import socket, sys, urllib.request, urllib.error
kind, host, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
try:
    if kind == 'http':
        print(urllib.request.urlopen(f'http://{host}:{port}/', timeout=20).status)
    else:
        s = socket.create_connection((host, port), 20)
        s.settimeout(20)
        s.sendall(b'\\x00\\x01\\x02')
        print('bytes' if s.recv(100) else 'closed')
except urllib.error.HTTPError as error:
    print(error.code)
except OSError as error:
    reason = getattr(error, 'reason', error)
    print('closed' if isinstance(reason, ConnectionError) else repr(error))
";

/// What becomes of a call from `client`: a status, `bytes` or `closed`.
fn call(mesh: &Mesh, kind: &str, host: &str, port: u16) -> Result<String> {
    let port = port.to_string();
    let said = mesh.exec("client-0.lab", &[&lab::python(), "-c", TRY, kind, host, &port])?;
    Ok(said.trim().to_owned())
}

fn expect(mesh: &Mesh, kind: &str, host: &str, port: u16, wanted: &str) -> Result {
    let found = call(mesh, kind, host, port)?;
    if found == wanted {
        Ok(())
    } else {
        Err(format!("{kind} to {host}:{port}: {found} instead of {wanted}").into())
    }
}

fn policies(plane: Plane) -> Result<Outcome> {
    let Some(outer) = outer_address() else {
        return Ok(Outcome::Skipped(
            "network: this machine has loopback addresses only".into(),
        ));
    };
    let outer = outer.to_string();
    let (http, tcp) = (Outside::listen("127.0.0.1", 0)?, Outside::listen("127.0.0.1", 0)?);
    // A port on which the mesh has HTTP is answered as HTTP, whatever the address; another one is bytes.
    let (unknown, bytes) = (Outside::listen(&outer, http.port)?, Outside::listen(&outer, 0)?);
    let (http_port, tcp_port) = (
        format!("http-stub={}", http.port),
        format!("tcp-stub={}", tcp.port),
    );
    let arguments = ["--host-port", &http_port, "--host-port", &tcp_port];
    let mesh = Mesh::up(plane, &setup("REGISTRY_ONLY").arguments(&arguments))?;
    expect(&mesh, "http", "host.rajut.internal", http.port, "200")?;
    expect(&mesh, "tcp", "host.rajut.internal", tcp.port, "bytes")?;
    expect(&mesh, "http", &outer, unknown.port, "502")?;
    expect(&mesh, "tcp", &outer, bytes.port, "closed")?;
    if (http.accepted(), tcp.accepted()) != (1, 1) || unknown.accepted() + bytes.accepted() > 0 {
        return Err("the unknown server was reached, or the known ones were not".into());
    }
    mesh.apply(&settings("ALLOW_ANY"))?;
    // The mesh's settings are no resource of a proxy, so `apply` may return before the last one has what follows.
    eventually("ALLOW_ANY is in force", Duration::from_secs(20), || {
        (call(&mesh, "http", &outer, unknown.port).ok()? == "200").then_some(())
    })?;
    expect(&mesh, "tcp", &outer, bytes.port, "bytes")?;
    expect(&mesh, "http", "host.rajut.internal", http.port, "200")?;
    mesh.apply(&settings("REGISTRY_ONLY"))?;
    eventually("REGISTRY_ONLY is in force", Duration::from_secs(20), || {
        (call(&mesh, "http", &outer, unknown.port).ok()? == "502").then_some(())
    })?;
    mesh.down()?;
    Ok(Outcome::Passed)
}

/// The object that the log of `client`'s sidecar tells to apply for `host` and `port`.
fn told(mesh: &Mesh, host: &str, port: u16) -> Option<String> {
    let log = mesh.rajut(&["logs", "client-0", "--sidecar"]).ok()?;
    let wanted = format!("refused: the mesh does not know {host}:{port},");
    let line = log.lines().rfind(|line| line.contains(&wanted))?;
    Some(line.split_once("lets it through: ")?.1.to_owned())
}

fn lines(plane: Plane) -> Result<Outcome> {
    let Some(outer) = outer_address() else {
        return Ok(Outcome::Skipped(
            "network: this machine has loopback addresses only".into(),
        ));
    };
    let outer = outer.to_string();
    let known = Outside::listen("127.0.0.1", 0)?;
    let stub = format!("http-stub={}", known.port);
    let mesh = Mesh::up(plane, &setup("REGISTRY_ONLY").arguments(&["--host-port", &stub]))?;
    for (kind, port, refused, allowed) in [("http", known.port, "502", "200"), ("tcp", 0, "closed", "bytes")]
    {
        let server = Outside::listen(&outer, port)?;
        expect(&mesh, kind, &outer, server.port, refused)?;
        let object = eventually("the log says so", Duration::from_secs(10), || {
            told(&mesh, &outer, server.port)
        })?;
        println!("    {object}");
        mesh.apply(&object)?;
        expect(&mesh, kind, &outer, server.port, allowed)?;
        mesh.delete(&object)?;
        expect(&mesh, kind, &outer, server.port, refused)?;
    }
    mesh.down()?;
    Ok(Outcome::Passed)
}

const BYPASS: &str = "
import socket, sys
def attempt(name, work):
    try:
        print(name, work())
    except OSError as error:
        print(name, 'refused')
def udp():
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.settimeout(2)
    s.sendto(b'x', (sys.argv[1], int(sys.argv[2])))
    return s.recv(10)
attempt('udp', udp)
attempt('sidecar', lambda: socket.create_connection((sys.argv[3], 15000), 5) and 'reached')
attempt('interfaces', lambda: sorted(l.split(':')[0].strip() for l in open('/proc/net/dev') if ':' in l))
";

fn bypass(plane: Plane) -> Result<Outcome> {
    let mesh = Mesh::up(plane, &setup("ALLOW_ANY"))?;
    if mesh.status()?["capture"] != "netns" {
        return Ok(Outcome::Skipped("namespaces are not allowed here".into()));
    }
    let server = UdpSocket::bind("0.0.0.0:0")?;
    server.set_read_timeout(Some(Duration::from_millis(200)))?;
    let port = server.local_addr()?.port().to_string();
    let target = outer_address().map_or_else(|| "198.51.100.1".to_owned(), |address| address.to_string());
    // The neighbour's sidecar is on this machine's loopback, for other sidecars and its operator.
    let row = mesh.workload("web-0")?;
    let neighbour = row["address"].as_str().ok_or("no address")?;
    let said = mesh.exec(
        "client-0.lab",
        &[&lab::python(), "-c", BYPASS, &target, &port, neighbour],
    )?;
    let wanted = "udp refused\nsidecar refused\ninterfaces ['lo']";
    if said.trim() != wanted {
        return Err(format!("{said:?} instead of {wanted:?}").into());
    }
    if server.recv(&mut [0; 16]).is_ok() {
        return Err("a datagram came out of the namespace".into());
    }
    mesh.down()?;
    Ok(Outcome::Passed)
}
