//! Bad input: a clear refusal with a place, that connection or resource alone, and everything else goes on.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    process::Output,
    time::Duration,
};

use crate::{
    client::get,
    lab,
    mesh::{Mesh, Setup},
    runner::{BOTH, OURS, Outcome, Plane, Result, Scenario},
};

pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "malformed_and_smuggled_requests_are_refused_and_the_listener_goes_on",
        planes: BOTH,
        run: smuggling,
    },
    Scenario {
        name: "http2_floods_end_their_own_connection_only",
        planes: BOTH,
        run: floods,
    },
    Scenario {
        name: "apply_of_a_wrong_resource_names_the_place_and_changes_nothing",
        planes: OURS,
        run: wrong_apply,
    },
    Scenario {
        name: "analyze_reports_every_error_once_at_its_place",
        planes: OURS,
        run: analyze,
    },
    Scenario {
        name: "analyze_survives_garbage",
        planes: OURS,
        run: garbage,
    },
    Scenario {
        name: "a_port_in_use_is_named",
        planes: OURS,
        run: port_in_use,
    },
];

/// What comes back for raw bytes: everything until the connection is closed or nothing comes for a while.
fn raw(address: &str, bytes: &[u8]) -> Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(bytes)?;
    let mut answer = Vec::new();
    let mut piece = [0_u8; 4096];
    while let Ok(length) = stream.read(&mut piece) {
        if length == 0 || answer.len() > 65_536 {
            break;
        }
        answer.extend_from_slice(&piece[..length]);
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn smuggling(plane: Plane) -> Result<Outcome> {
    let address = lab::mesh(plane)?.host_address("web")?;
    let long = "x".repeat(200_000);
    let cases: &[(&str, String)] = &[
        ("both lengths", "POST /echo HTTP/1.1\r\nhost: w\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: w\r\n\r\n".into()),
        ("two lengths", "POST /echo HTTP/1.1\r\nhost: w\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello!".into()),
        ("a length with a sign", "POST /echo HTTP/1.1\r\nhost: w\r\ncontent-length: +5\r\n\r\nhello".into()),
        ("a transfer coding that is not chunked last", "POST /echo HTTP/1.1\r\nhost: w\r\ntransfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n".into()),
        ("white space before the colon", "GET / HTTP/1.1\r\nhost: w\r\nx : y\r\n\r\n".into()),
        ("a bare CR in a value", "GET / HTTP/1.1\r\nhost: w\r\nx: a\rb\r\n\r\n".into()),
        ("a NUL in a value", "GET / HTTP/1.1\r\nhost: w\r\nx: a\0b\r\n\r\n".into()),
        ("no host", "GET / HTTP/1.1\r\n\r\n".into()),
        ("not HTTP at all", "hello there\r\n\r\n".into()),
        ("a head that is too long", format!("GET / HTTP/1.1\r\nhost: w\r\nx: {long}\r\n\r\n")),
        ("a bad chunk size", "POST /echo HTTP/1.1\r\nhost: w\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n".into()),
    ];
    for (what, bytes) in cases {
        // Envoy drops the CR and goes on: nothing is smuggled, but it is not refused either.
        if plane == Plane::Envoy && *what == "a bare CR in a value" {
            continue;
        }
        let said = raw(&address, bytes.as_bytes())?;
        let refused = said.is_empty() || said.starts_with("HTTP/1.1 4") || said.starts_with("HTTP/1.1 5");
        if !refused || said.contains("smuggled") || said.matches("HTTP/1.1 ").count() > 1 {
            return Err(format!(
                "{what} was answered: {}",
                said.chars().take(300).collect::<String>()
            )
            .into());
        }
        let after = get(&address, &address, "/")?;
        if after.status != 200 {
            return Err(format!("after {what} the listener answers {}", after.status).into());
        }
    }
    Ok(Outcome::Passed)
}

/// A frame of HTTP/2 (RFC 9113 §4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(0).to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

fn floods(plane: Plane) -> Result<Outcome> {
    let address = lab::mesh(plane)?.host_address("web")?;
    // GET / with scheme http and authority w: indexed fields 2, 4, 6 and a literal `:authority`.
    let head = [0x82, 0x84, 0x86, 0x41, 0x01, b'w'];
    let settings = frame(4, 0, 0, &[]);
    let begin = [PREFACE, &settings].concat();
    let mut reset = begin.clone();
    let mut continuation = begin.clone();
    let mut pings = begin.clone();
    for number in 0..20_000_u32 {
        let stream = 2 * number + 1;
        reset.extend(frame(1, 0x5, stream, &head));
        reset.extend(frame(3, 0, stream, &8_u32.to_be_bytes()));
        pings.extend(frame(4, 0, 0, &[]));
    }
    continuation.extend(frame(1, 0x1, 1, &head));
    for _ in 0..20_000 {
        continuation.extend(frame(9, 0, 1, &[0x00, 0x01, b'a', 0x01, b'b']));
    }
    for (what, bytes) in [
        ("rapid reset", reset),
        ("CONTINUATION flood", continuation),
        ("SETTINGS flood", pings),
    ] {
        let ended = flood(&address, &bytes);
        let after = get(&address, &address, "/")?;
        if after.status != 200 {
            return Err(format!("after a {what} the listener answers {}", after.status).into());
        }
        println!(
            "    {what}: {}",
            if ended {
                "the connection was ended"
            } else {
                "it was borne"
            }
        );
    }
    Ok(Outcome::Passed)
}

/// Whether the other side ended the connection before it had taken everything.
fn flood(address: &str, bytes: &[u8]) -> bool {
    let Ok(mut stream) = TcpStream::connect(address) else {
        return true;
    };
    drop(stream.set_write_timeout(Some(Duration::from_secs(5))));
    drop(stream.set_read_timeout(Some(Duration::from_secs(5))));
    let reader = stream.try_clone();
    let sent = stream.write_all(bytes);
    let mut piece = [0_u8; 65_536];
    let Ok(mut reader) = reader else { return true };
    for _ in 0..64 {
        match reader.read(&mut piece) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(_) => break,
        }
    }
    sent.is_err()
}

fn failing(mesh: &Mesh, arguments: &[&str]) -> Result<Output> {
    let output = mesh.command(arguments).output()?;
    if output.status.code() == Some(1) {
        Ok(output)
    } else {
        Err(format!("`rajut {}` ended with {}", arguments.join(" "), output.status).into())
    }
}

fn said(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

const WRONG: &str = "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: wrong, namespace: lab}
spec:
  hosts: [web]
  http:
  - route:
    - destination: {host: web}
      weight: -5
";

fn wrong_apply(plane: Plane) -> Result<Outcome> {
    let mesh = lab::mesh(plane)?;
    let file = mesh.folder.join("wrong.yaml.txt");
    fs::write(&file, WRONG)?;
    let output = failing(&mesh, &["apply", "-f", &file.display().to_string()])?;
    let said = said(&output);
    for wanted in ["wrong.yaml.txt:9", "weight", "RJ"] {
        if !said.contains(wanted) {
            return Err(format!("{wanted:?} is not in:\n{said}").into());
        }
    }
    let kept = mesh.json(&["get", "virtualservice", "-n", "lab"])?;
    if kept.to_string().contains("\"wrong\"") {
        return Err(format!("the wrong resource was taken: {kept:#}").into());
    }
    Ok(Outcome::Passed)
}

const BAD: &str = "apiVersion: v1
kind: Service
metadata: {name: api, namespace: shop}
spec:
  ports: [{name: http, port: 80}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: typo, namespace: shop}
spec:
  hosts: [api]
  http:
  - route:
    - destination: {host: api}
      weigth: 10
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: elsewhere, namespace: shop}
spec:
  hosts: [api]
  http:
  - route:
    - destination: {host: apii}
      weight: 90
    - destination: {host: api, subset: green}
      weight: 10
---
apiVersion: example.com/v1
kind: Elsewhere
metadata: {name: other}
";

fn analyze(plane: Plane) -> Result<Outcome> {
    let mesh = Mesh::prepare(
        plane,
        &Setup {
            files: vec![("bad.yaml".into(), BAD.into())],
            arguments: Vec::new(),
        },
    )?;
    let folder = mesh.folder.display().to_string();
    let output = failing(&mesh, &["analyze", &folder])?;
    let said = said(&output);
    for (wanted, times) in [
        ("bad.yaml:15", 1),
        ("bad.yaml:24", 1),
        ("bad.yaml:26", 1),
        ("weigth", 1),
        ("did you mean", 2),
        ("green", 1),
    ] {
        if said.matches(wanted).count() < times {
            return Err(format!("{wanted:?} is not in:\n{said}").into());
        }
    }
    let last = said.trim().lines().last().unwrap_or_default();
    if !last.starts_with("4 documents: ") || !last.contains("1 not ours") {
        return Err(format!("the last line should count: {last}").into());
    }
    Ok(Outcome::Passed)
}

fn garbage(plane: Plane) -> Result<Outcome> {
    let mut bytes: Vec<u8> = Vec::with_capacity(10_000_000);
    let mut state = 88_172_645_463_325_252_u64;
    while bytes.len() < 10_000_000 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    let mesh = Mesh::prepare(
        plane,
        &Setup::yaml("apiVersion: v1\nkind: Namespace\nmetadata: {name: fine}\n"),
    )?;
    fs::write(mesh.folder.join("garbage.yaml"), &bytes)?;
    fs::write(mesh.folder.join("deep.yaml"), "[".repeat(100_000))?;
    let bomb = "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n\
                d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: [*e,*e,*e,*e,*e,*e,*e,*e,*e]\n";
    fs::write(mesh.folder.join("bomb.yaml"), bomb)?;
    let started = std::time::Instant::now();
    let output = failing(&mesh, &["analyze", &mesh.folder.display().to_string()])?;
    let said = said(&output);
    println!(
        "    {:.1} s for 10 MB of garbage, a nest and a bomb",
        started.elapsed().as_secs_f64()
    );
    for file in ["garbage.yaml", "deep.yaml", "bomb.yaml"] {
        if !said.contains(file) {
            return Err(format!(
                "{file} is not named in:\n{}",
                said.chars().take(2000).collect::<String>()
            )
            .into());
        }
    }
    Ok(Outcome::Passed)
}

fn port_in_use(plane: Plane) -> Result<Outcome> {
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    let port = taken.local_addr()?.port();
    let bootstrap = format!(
        "{{\"node\":{{\"id\":\"x\",\"cluster\":\"x\"}},\"static_resources\":{{\"listeners\":[{{\"name\":\"taken\",\"address\":{{\"socket_address\":{{\"address\":\"127.0.0.1\",\"port_value\":{port}}}}},\
         \"filter_chains\":[{{\"filters\":[{{\"name\":\"envoy.filters.network.tcp_proxy\",\"typed_config\":{{\"@type\":\"type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy\",\
         \"stat_prefix\":\"x\",\"cluster\":\"c\"}}}}]}}]}}],\"clusters\":[{{\"name\":\"c\",\"type\":\"STATIC\",\"connect_timeout\":\"1s\",\"load_assignment\":{{\"cluster_name\":\"c\"}}}}]}}}}"
    );
    let mesh = Mesh::prepare(plane, &Setup::default())?;
    let file = mesh.folder.join("bootstrap.json");
    fs::write(&file, bootstrap)?;
    let output = failing(&mesh, &["proxy", "-c", &file.display().to_string()])?;
    let said = said(&output);
    if said.contains(&port.to_string()) && said.contains("taken") {
        Ok(Outcome::Passed)
    } else {
        Err(format!("the port is not named:\n{said}").into())
    }
}
