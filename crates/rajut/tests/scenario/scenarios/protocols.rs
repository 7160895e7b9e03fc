//! What applications say to each other arrives as it was said, whatever the protocol.

use crate::{
    client::Connection,
    lab,
    runner::{BOTH, Outcome, Plane, Result, Scenario},
};

pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "http_bodies_and_bodiless_answers_are_as_they_were_sent",
        planes: BOTH,
        run: bodies,
    },
    Scenario {
        name: "expect_100_continue_is_the_applications_to_answer",
        planes: BOTH,
        run: expect,
    },
    Scenario {
        name: "an_early_answer_reaches_a_client_that_still_sends",
        planes: BOTH,
        run: early,
    },
    Scenario {
        name: "chunked_trailers_survive_both_hops",
        planes: BOTH,
        run: trailers,
    },
    Scenario {
        name: "a_websocket_is_upgraded_and_carries_bytes_both_ways",
        planes: BOTH,
        run: upgrade,
    },
    Scenario {
        name: "http_on_an_undeclared_port_is_detected",
        planes: BOTH,
        run: undeclared,
    },
    Scenario {
        name: "a_server_that_speaks_first_on_an_undeclared_port_is_heard",
        planes: BOTH,
        run: server_first,
    },
    Scenario {
        name: "half_closed_tcp_delivers_the_rest",
        planes: BOTH,
        run: half_closed,
    },
    Scenario {
        name: "grpc_of_every_form_with_trailers_and_deadlines",
        planes: BOTH,
        run: grpc,
    },
];

fn expect_eq<T: PartialEq + std::fmt::Debug>(what: &str, found: T, wanted: T) -> Result {
    if found == wanted {
        Ok(())
    } else {
        Err(format!("{what}: {found:?} instead of {wanted:?}").into())
    }
}

fn web(plane: Plane) -> Result<(String, Connection)> {
    let address = lab::mesh(plane)?.host_address("web")?;
    let connection = Connection::open(&address)?;
    Ok((address, connection))
}

fn bodies(plane: Plane) -> Result<Outcome> {
    let (host, mut connection) = web(plane)?;
    for size in [0, 1, 1024, 65_536, 3_000_000] {
        let body: Vec<u8> = (0..size).map(|at| u8::try_from(at % 251).unwrap_or(0)).collect();
        let answer = connection.request("POST", &host, "/echo", &[], &body)?;
        expect_eq("status", answer.status, 200)?;
        expect_eq("echo has the body", answer.body == body, true)?;
    }
    connection.send(format!("POST /echo HTTP/1.1\r\nhost: {host}\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n6;x=y\r\n world\r\n0\r\n\r\n").as_bytes())?;
    expect_eq("chunked", connection.answer("POST")?.text(), "hello world".into())?;
    let head = connection.request("HEAD", &host, "/", &[], b"")?;
    expect_eq(
        "HEAD",
        (head.status, head.header("content-length")),
        (200, Some("1234")),
    )?;
    for status in [204, 304] {
        let answer = connection.request("GET", &host, &format!("/status/{status}"), &[], b"")?;
        expect_eq("status", (answer.status, answer.body.len()), (status, 0))?;
    }
    let after = connection.request("GET", &host, "/x?a=b&c=%20d", &[("X-Case", "Kept")], b"")?;
    expect_eq(
        "the connection is still good",
        after.text().starts_with("GET /x?a=b&c=%20d\n"),
        true,
    )?;
    Ok(Outcome::Passed)
}

fn expect(plane: Plane) -> Result<Outcome> {
    let (host, mut connection) = web(plane)?;
    connection.send(
        format!("POST /echo HTTP/1.1\r\nhost: {host}\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n")
            .as_bytes(),
    )?;
    expect_eq("interim answer", connection.any_answer("POST")?.status, 100)?;
    connection.send(b"ok")?;
    let answer = connection.answer("POST")?;
    expect_eq("answer", (answer.status, answer.text()), (200, "ok".into()))?;
    let mut refused = Connection::open(&host)?;
    refused.send(format!("POST /refuse-expect HTTP/1.1\r\nhost: {host}\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n").as_bytes())?;
    expect_eq("refusal", refused.any_answer("POST")?.status, 417)?;
    Ok(Outcome::Passed)
}

fn early(plane: Plane) -> Result<Outcome> {
    let (host, mut connection) = web(plane)?;
    connection.send(
        format!("POST /early HTTP/1.1\r\nhost: {host}\r\ncontent-length: 100000000\r\n\r\n").as_bytes(),
    )?;
    // Little, so that it is in the kernel's hands before anybody closes: what is unread at a close resets the answer away.
    connection.send(&[b'x'; 1000])?;
    expect_eq("early answer", connection.answer("POST")?.status, 413)?;
    Ok(Outcome::Passed)
}

fn trailers(plane: Plane) -> Result<Outcome> {
    let (host, mut connection) = web(plane)?;
    let answer = connection.request("GET", &host, "/trailers", &[("te", "trailers")], b"")?;
    expect_eq("body", answer.text(), "hello".into())?;
    expect_eq("trailer", answer.header("trailer:x-sum"), Some("42"))?;
    Ok(Outcome::Passed)
}

fn upgrade(plane: Plane) -> Result<Outcome> {
    let (host, mut connection) = web(plane)?;
    connection.send(format!("GET /upgrade HTTP/1.1\r\nhost: {host}\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\r\n").as_bytes())?;
    let mut stream = connection.stream().try_clone()?;
    let mut head = Vec::new();
    let mut byte = [0_u8; 1];
    while !head.ends_with(b"\r\n\r\n") {
        use std::io::Read;
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).to_lowercase();
    expect_eq(
        "switched",
        head.starts_with("http/1.1 101") && head.contains("upgrade: websocket"),
        true,
    )?;
    for round in 0..5 {
        use std::io::{Read, Write};
        let said = format!("\u{1}frame {round}");
        stream.write_all(said.as_bytes())?;
        let mut heard = vec![0; said.len()];
        stream.read_exact(&mut heard)?;
        expect_eq("echo", heard, said.into_bytes())?;
    }
    Ok(Outcome::Passed)
}

fn undeclared(plane: Plane) -> Result<Outcome> {
    let mesh = lab::mesh(plane)?;
    let said = lab::from_client(
        &mesh,
        "import urllib.request as u; print(u.urlopen('http://auto:8081/hello', timeout=20).read().decode())",
    )?;
    expect_eq(
        "request id is issued: it was served as HTTP",
        said.contains("x-request-id"),
        true,
    )?;
    Ok(Outcome::Passed)
}

fn server_first(plane: Plane) -> Result<Outcome> {
    let mesh = lab::mesh(plane)?;
    let said = lab::from_client(
        &mesh,
        "import socket,time\nt=time.time()\ns=socket.create_connection(('greet',7000),20)\nf=s.makefile('rw')\n\
         print(f.readline().strip())\nf.write('hello\\n');f.flush()\nprint(f.readline().strip())\nprint(time.time()-t)",
    )?;
    let lines: Vec<_> = said.lines().collect();
    expect_eq(
        "lines",
        lines.get(..2),
        Some(&["I am first", "you said hello"][..]),
    )?;
    println!("    heard after {} s", lines.get(2).unwrap_or(&"?"));
    Ok(Outcome::Passed)
}

fn half_closed(plane: Plane) -> Result<Outcome> {
    let mesh = lab::mesh(plane)?;
    let said = lab::from_client(
        &mesh,
        "import socket\ns=socket.create_connection(('pipe',7001),20)\ns.sendall(b'x'*300000)\ns.shutdown(socket.SHUT_WR)\n\
         d=b''\nwhile True:\n p=s.recv(65536)\n if not p: break\n d+=p\nprint(len(d), d[-40:].decode().strip())",
    )?;
    let rest = "300000 bytes, then the end";
    expect_eq("the end", said.trim().ends_with(rest), true)?;
    Ok(Outcome::Passed)
}

fn grpc(plane: Plane) -> Result<Outcome> {
    if !lab::python_has("grpc") {
        return Ok(Outcome::Skipped("grpcio is not here (pip install grpcio)".into()));
    }
    let mesh = lab::mesh(plane)?;
    let script = lab::app("grpc_client.py").display().to_string();
    let said = mesh.exec("client-0.lab", &[&lab::python(), &script, "rpc:9000"])?;
    let found: serde_json::Value = serde_json::from_str(&said).map_err(|error| format!("{error}: {said}"))?;
    let wanted = serde_json::json!({
        "unary": "hello", "trailer": "behind", "status": "FAILED_PRECONDITION",
        "stream": (0..10).map(|n| format!("n{n}")).collect::<Vec<_>>(), "chat": ["a", "b", "c"],
        "deadline": "DEADLINE_EXCEEDED", "big": 1_000_000,
    });
    expect_eq("gRPC", found, wanted)?;
    Ok(Outcome::Passed)
}
