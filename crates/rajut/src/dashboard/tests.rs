use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream as Client},
    path::Path,
    sync::Mutex,
    time::Duration,
};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use rajut_local::state::StateDir;
use rajut_platform::socket::{ListenOptions, TcpListener, listen};
use rajut_runtime::Clock;

use super::{
    assets::ASSETS,
    auth::Door,
    serve::{Answer, BODY_BYTES_MAX, CONNECTIONS_MAX, Console, HEAD_BYTES_MAX, HEADERS, answer, serve},
    source::Source,
};

const HOST: &str = "127.0.0.1:7470";

fn console() -> Console {
    let state = StateDir::locate(Some(Path::new("/nonexistent/rajut")), None, None).expect("a short path");
    Console {
        door: Mutex::new(Door::new(7470, &[]).expect("random bytes")),
        source: Source::new(state),
        clock: Clock::system(),
    }
}

fn ask(console: &Console, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request
        .body(Full::new(Bytes::copy_from_slice(body.as_bytes())))
        .expect("a request");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(answer(console, request))
}

fn text(answer: Answer) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    let bytes = runtime
        .block_on(answer.into_body().collect())
        .expect("a whole body")
        .to_bytes();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The `Cookie` of a new session of the auditor or the viewer.
fn session(console: &Console, auditor: bool) -> String {
    let token = {
        let door = console.door.lock().expect("not poisoned");
        let secret = if auditor { &door.auditor } else { &door.viewer };
        secret.reveal().to_owned()
    };
    let opened = ask(
        console,
        "POST",
        "/session",
        &[("host", HOST)],
        &format!("{{\"token\": \"{token}\"}}"),
    );
    assert_eq!(opened.status(), StatusCode::OK);
    let cookie = opened.headers()["set-cookie"].to_str().expect("text").to_owned();
    assert!(cookie.contains("; HttpOnly; SameSite=Strict;"), "{cookie}");
    cookie.split(';').next().expect("a pair").to_owned()
}

#[test]
fn without_a_session_there_is_no_data_and_with_one_what_its_role_may_see() {
    let console = console();
    for path in ["/api/session", "/api/edges", "/api/reach", "/api/nothing", "/x"] {
        let answer = ask(&console, "GET", path, &[("host", HOST)], "");
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{path}");
    }
    for wrong in ["{\"token\": \"\"}", "{\"token\": 1}", "{}", "", "no json"] {
        let answer = ask(&console, "POST", "/session", &[("host", HOST)], wrong);
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{wrong}");
        assert!(!answer.headers().contains_key("set-cookie"));
    }
    let viewer = session(&console, false);
    let auditor = session(&console, true);
    let status = |cookie: &str, path: &str| {
        ask(&console, "GET", path, &[("host", HOST), ("cookie", cookie)], "").status()
    };
    assert_eq!(status(&viewer, "/api/session"), StatusCode::OK);
    for secret in ["/api/reach", "/api/resources"] {
        assert_eq!(status(&viewer, secret), StatusCode::FORBIDDEN);
        assert_eq!(
            status(&auditor, secret),
            StatusCode::BAD_GATEWAY,
            "no mesh runs here"
        );
    }
    assert_eq!(status(&viewer, "/api/nothing"), StatusCode::NOT_FOUND);
    assert_eq!(status(&viewer, "/api/edges?window=0"), StatusCode::BAD_REQUEST);
    let ended = ask(
        &console,
        "POST",
        "/session/end",
        &[("host", HOST), ("cookie", &viewer)],
        "",
    );
    assert_eq!(ended.status(), StatusCode::OK);
    assert_eq!(status(&viewer, "/api/session"), StatusCode::UNAUTHORIZED);
}

#[test]
fn another_host_another_origin_and_other_methods_are_refused() {
    let console = console();
    let cookie = session(&console, true);
    for host in ["evil.example:7470", "127.0.0.1", "127.0.0.1:7471", ""] {
        for path in ["/", "/assets/main.js", "/api/edges"] {
            let answer = ask(&console, "GET", path, &[("host", host), ("cookie", &cookie)], "");
            assert_eq!(answer.status(), StatusCode::MISDIRECTED_REQUEST, "{host} {path}");
        }
    }
    assert_eq!(
        ask(&console, "GET", "/", &[], "").status(),
        StatusCode::MISDIRECTED_REQUEST
    );
    for method in ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT"] {
        for path in ["/", "/session", "/api/edges", "/v1/tokens"] {
            let answer = ask(&console, method, path, &[("host", HOST), ("cookie", &cookie)], "");
            assert_eq!(answer.status(), StatusCode::METHOD_NOT_ALLOWED, "{method} {path}");
        }
    }
    let posted = ask(
        &console,
        "POST",
        "/api/edges",
        &[("host", HOST), ("cookie", &cookie)],
        "",
    );
    assert_eq!(posted.status(), StatusCode::METHOD_NOT_ALLOWED);
    let foreign = [
        ("host", HOST),
        ("origin", "http://evil.example"),
        ("cookie", &*cookie),
    ];
    assert_eq!(
        ask(&console, "POST", "/session", &foreign, "{}").status(),
        StatusCode::FORBIDDEN
    );
    assert_eq!(
        ask(&console, "POST", "/session/end", &foreign, "").status(),
        StatusCode::FORBIDDEN
    );
    let long = format!("{{\"token\": \"{}\"}}", "0".repeat(BODY_BYTES_MAX));
    let answer = ask(&console, "POST", "/session", &[("host", HOST)], &long);
    assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE);
}

#[test]
fn every_answer_has_the_headers_that_keep_it_to_itself() {
    let console = console();
    for (path, host) in [
        ("/", HOST),
        ("/assets/style.css", HOST),
        ("/api/edges", HOST),
        ("/", "evil.example"),
    ] {
        let answer = ask(&console, "GET", path, &[("host", host)], "");
        for (name, value) in HEADERS {
            assert_eq!(answer.headers()[name], value, "{path}");
        }
    }
    let policy = HEADERS[0].1;
    assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"));
    assert!(!policy.contains("unsafe") && !policy.contains("http"));
}

/// Every embedded file as text.
fn assets() -> BTreeMap<&'static str, &'static str> {
    let text = |bytes| std::str::from_utf8(bytes).expect("all are texts");
    ASSETS
        .iter()
        .map(|(path, _, bytes)| (*path, text(bytes)))
        .collect()
}

/// What stands in `text` between `before` and `after`.
fn between<'a>(text: &'a str, before: &'a str, after: &'a str) -> impl Iterator<Item = &'a str> {
    text.split(before)
        .skip(1)
        .filter_map(move |rest| rest.split_once(after))
        .map(|(found, _)| found)
}

#[test]
fn every_asset_that_is_named_is_embedded_and_every_file_is_named() {
    let assets = assets();
    let mut named = BTreeSet::from(["/".to_owned(), "/assets/main.js".to_owned()]);
    for (path, text) in &assets {
        for name in between(text, "from \"./", "\"") {
            named.insert(format!("/assets/{name}"));
        }
        for name in between(text, "\"/assets/", "\"") {
            named.insert(format!("/assets/{name}"));
        }
        assert!(text.len() < 100_000, "{path} is large");
    }
    let embedded: BTreeSet<String> = assets.keys().map(|path| (*path).to_owned()).collect();
    assert_eq!(named, embedded);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/dashboard/assets");
    assert_eq!(
        std::fs::read_dir(folder).expect("the folder").count(),
        embedded.len()
    );
}

#[test]
fn nothing_is_loaded_from_elsewhere_and_no_text_becomes_markup() {
    for (path, text) in assets() {
        // The name of SVG's elements is no address that anybody asks.
        let text = text.replace("http://www.w3.org/2000/svg", "");
        for foreign in ["http:", "https:", "//cdn", "@import", "url(http", "src=\"//"] {
            assert!(!text.contains(foreign), "{path}: {foreign}");
        }
        for markup in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "new Function",
            "setHTML",
        ] {
            assert!(!text.contains(markup), "{path}: {markup}");
        }
        let inline =
            path == "/" && (text.contains("<style") || text.contains("style=") || text.contains("onclick"));
        assert!(!inline, "the policy forbids what stands in the document itself");
        let head = text.trim_start().lines().next().unwrap_or_default();
        let has_head = head.starts_with("//")
            || head.starts_with("/*")
            || !Path::new(path)
                .extension()
                .is_some_and(|kind| kind == "js" || kind == "css");
        assert!(has_head, "{path} does not say what it is");
    }
}

#[test]
fn both_languages_have_every_text_and_every_text_is_used() {
    let assets = assets();
    let texts: BTreeMap<String, Vec<String>> =
        serde_json::from_str(assets["/assets/texts.json"]).expect("the table");
    let scripts: String = assets
        .iter()
        .filter(|(path, _)| Path::new(path).extension().is_some_and(|kind| kind == "js"))
        .map(|(_, text)| *text)
        .collect();
    let parts = |text: &str| -> BTreeSet<String> { between(text, "{", "}").map(str::to_owned).collect() };
    for (key, both) in &texts {
        assert_eq!(both.len(), 2, "{key}");
        assert!(both.iter().all(|text| !text.trim().is_empty()), "{key}");
        assert_eq!(parts(&both[0]), parts(&both[1]), "{key}");
        // Of a family (`outcome.allowed`) the code names the stem (`outcome.${…}`).
        let stem = key.rsplit_once('.').map(|(stem, _)| format!("`{stem}.${{"));
        let used =
            scripts.contains(&format!("\"{key}\"")) || stem.is_some_and(|stem| scripts.contains(&stem));
        assert!(used, "nobody says {key}");
    }
    for call in [" t(\"", "(t(\"", "[t(\"", "{t(\""] {
        for key in between(&scripts, call, "\"") {
            assert!(texts.contains_key(key), "{key} has no text");
        }
    }
}

#[test]
fn the_document_and_the_scripts_are_served_without_a_session() {
    let console = console();
    for (path, kind, _) in ASSETS {
        let answer = ask(&console, "GET", path, &[("host", HOST)], "");
        assert_eq!(
            (answer.status(), &answer.headers()["content-type"]),
            (StatusCode::OK, &http::HeaderValue::from_static(kind))
        );
    }
    let document = text(ask(&console, "GET", "/", &[("host", HOST)], ""));
    assert!(document.starts_with("<!doctype html>"));
}

/// Sends bytes and reads what comes first within that time.
fn exchange(stream: &mut Client, sent: &[u8], wait: Duration) -> String {
    stream.set_read_timeout(Some(wait)).expect("a socket");
    // A server that has had enough closes while we write.
    let _ = stream.write_all(sent);
    let mut part = [0; 64];
    let count = stream.read(&mut part).unwrap_or(0);
    String::from_utf8_lossy(&part[..count]).into_owned()
}

#[test]
fn heads_and_connections_have_a_bound() {
    const SOON: Duration = Duration::from_secs(10);
    let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
    let listener = listen(loopback, &ListenOptions::default()).expect("a port");
    let address = listener.local_addr().expect("its address");
    // It serves until the test's process ends.
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let listener = TcpListener::from_std(listener).expect("a listener");
            serve(listener, console()).await;
        });
    });
    let connect = || Client::connect(address).expect("it listens");

    let ordinary = format!("GET /assets/dom.js HTTP/1.1\r\nhost: {HOST}\r\n\r\n");
    assert!(exchange(&mut connect(), ordinary.as_bytes(), SOON).starts_with("HTTP/1.1 200 "));
    let long = format!(
        "GET / HTTP/1.1\r\nhost: {HOST}\r\nx: {}\r\n\r\n",
        "y".repeat(2 * HEAD_BYTES_MAX)
    );
    assert!(exchange(&mut connect(), long.as_bytes(), SOON).starts_with("HTTP/1.1 431 "));

    let mut open: Vec<Client> = (0..CONNECTIONS_MAX).map(|_| connect()).collect();
    for stream in &mut open {
        assert!(exchange(stream, ordinary.as_bytes(), SOON).starts_with("HTTP/1.1 200 "));
    }
    let mut another = connect();
    assert_eq!(
        exchange(&mut another, ordinary.as_bytes(), Duration::from_millis(200)),
        "",
        "it waits"
    );
    drop(open.pop());
    assert!(
        exchange(&mut another, b"", SOON).starts_with("HTTP/1.1 200 "),
        "its turn has come"
    );
}
