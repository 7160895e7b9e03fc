//! Istio's `Gateway`: what a proxy at the mesh's edge serves, for whom and with which certificates; looked at as clients do,
//! over sockets.

use std::time::Duration;

use crate::{
    client::get,
    lab::{self, Workload},
    mesh::{Mesh, Setup, eventually},
    runner::{BOTH, Outcome, Plane, Result, Scenario},
    tls::{Authority, Client},
};

pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "a_gateway_serves_its_hosts_to_the_virtual_services_that_are_bound_to_it",
        planes: BOTH,
        run: hosts,
    },
    Scenario {
        name: "a_gateway_shows_the_certificate_of_the_server_that_is_asked_for",
        planes: BOTH,
        run: by_server_name,
    },
    Scenario {
        name: "a_gateway_asks_for_certificates_of_clients_and_takes_new_secrets_without_a_break",
        planes: BOTH,
        run: mutual_and_rotation,
    },
    Scenario {
        name: "a_gateway_takes_certificates_of_files_and_clients_of_given_names",
        planes: BOTH,
        run: files_and_names,
    },
    Scenario {
        name: "a_gateway_passes_tls_through_and_routes_bytes",
        planes: BOTH,
        run: bytes,
    },
    Scenario {
        name: "a_gateway_splits_by_weight_and_obeys_its_authorization_policies",
        planes: BOTH,
        run: canary,
    },
    Scenario {
        name: "calls_leave_the_mesh_through_the_egress_gateway",
        planes: BOTH,
        run: egress,
    },
];

/// Time for a change to be in force.
const SOON: Duration = Duration::from_secs(15);

fn sample(name: &str) -> String {
    lab::yaml(&Workload {
        name,
        port: 8080,
        port_name: "http",
        replicas: 1,
        run: format!("exec {} sample", env!("CARGO_BIN_EXE_rajut")),
        more: "",
    })
}

pub(super) fn base() -> String {
    let namespaces = "apiVersion: v1\nkind: Namespace\nmetadata: {name: lab}\n---\n\
                      apiVersion: v1\nkind: Namespace\nmetadata: {name: istio-system}\n";
    format!("{namespaces}{}{}{}", lab::STRICT, sample("web"), sample("shop"))
}

/// A gateway of the default ingress with these servers (YAML flow, one each).
pub(super) fn gateway(name: &str, servers: &[&str]) -> String {
    let servers = servers.join("\n  - ");
    format!(
        "---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: {name}, namespace: lab}}
spec:
  selector: {{istio: ingressgateway}}
  servers:
  - {servers}
"
    )
}

/// A virtual service of the namespace `lab`; `rest` is the flow of its routes, e.g. `http: […]`.
pub(super) fn routes(name: &str, host: &str, gateways: &str, rest: &str) -> String {
    format!(
        "---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: {name}, namespace: lab}}
spec:
  hosts: [\"{host}\"]
  gateways: [{gateways}]
  {rest}
"
    )
}

fn to(host: &str) -> String {
    format!("http: [{{route: [{{destination: {{host: {host}}}}}]}}]")
}

pub(super) const HTTP: &str = "{port: {number: 80, name: http, protocol: HTTP}, hosts: [\"*.example.com\"]}";

/// Where clients of this machine reach a port of the ingress gateway.
pub(super) fn address(mesh: &Mesh, port: u16) -> Result<String> {
    let status = mesh.status()?;
    let rows = status["services"].as_array().cloned().unwrap_or_default();
    let found = rows
        .iter()
        .find(|row| row["name"] == "istio-ingressgateway" && row["port"] == port);
    let url = found
        .and_then(|row| row["hostAddress"].as_str())
        .unwrap_or_default();
    match url.rsplit_once('/') {
        Some((_, address)) => Ok(address.to_owned()),
        None => Err(format!("no address of the gateway's port {port}:\n{status:#}").into()),
    }
}

fn status(address: &str, host: &str, path: &str) -> Result<u16> {
    Ok(get(address, host, path)?.status)
}

fn eventually_status(address: &str, host: &str, wanted: u16) -> Result {
    let what = format!("{wanted} for {host}");
    eventually(&what, SOON, || {
        status(address, host, "/")
            .is_ok_and(|found| found == wanted)
            .then_some(())
    })
}

fn check(what: &str, found: u16, wanted: u16) -> Result {
    if found == wanted {
        return Ok(());
    }
    Err(format!("{what}: {found} instead of {wanted}").into())
}

fn hosts(plane: Plane) -> Result<Outcome> {
    let text = base()
        + &gateway("edge", &[HTTP])
        + &gateway(
            "second",
            &["{port: {number: 80, name: http, protocol: HTTP}, hosts: [\"./*.example.org\"]}"],
        )
        + &routes("web", "web.example.com", "edge", &to("web"))
        + &routes("shop", "shop.example.org", "lab/second", &to("shop"))
        + &routes("inside", "inside.example.com", "mesh", &to("web"))
        + &routes("elsewhere", "elsewhere.example.net", "edge", &to("web"))
        + &routes("crossed", "crossed.example.org", "edge", &to("web"));
    let mesh = Mesh::up(plane, &Setup::yaml(&text).arguments(&["-n", "lab"]))?;
    let edge = address(&mesh, 80)?;
    let served = |host: &str| -> Result<String> {
        let answer = get(&edge, host, "/")?;
        check(host, answer.status, 200)?;
        Ok(answer.json()?["instance"].as_str().unwrap_or_default().to_owned())
    };
    if served("web.example.com")? != "web-0" || served("shop.example.org:8080")? != "shop-0" {
        return Err("two gateways of one port lead to the same workload".into());
    }
    check(
        "a host without routes",
        status(&edge, "other.example.com", "/")?,
        404,
    )?;
    check(
        "a rule of the mesh alone",
        status(&edge, "inside.example.com", "/")?,
        404,
    )?;
    check(
        "a host that no server names",
        status(&edge, "elsewhere.example.net", "/")?,
        404,
    )?;
    check(
        "a host of the other gateway of the port",
        status(&edge, "crossed.example.org", "/")?,
        404,
    )?;
    // The rule is taken away from the gateway, and another given to it.
    mesh.apply(&routes("web", "web.example.com", "mesh", &to("web")))?;
    mesh.apply(&routes("inside", "inside.example.com", "mesh, edge", &to("web")))?;
    eventually_status(&edge, "web.example.com", 404)?;
    eventually_status(&edge, "inside.example.com", 200)?;
    let refused = mesh.rajut(&["restart", "istio-ingressgateway"]);
    let why = refused.err().map(|error| error.to_string()).unwrap_or_default();
    if !why.contains("no application to restart") {
        return Err(format!("a gateway was restarted: {why}").into());
    }
    mesh.down()?;
    Ok(Outcome::Passed)
}

const REDIRECT: &str = "{port: {number: 80, name: http, protocol: HTTP}, hosts: [\"*.example.com\"], tls: {httpsRedirect: true}}";

fn https(name: &str, host: &str, tls: &str) -> String {
    format!("{{port: {{number: 443, name: {name}, protocol: HTTPS}}, hosts: [\"{host}\"], tls: {tls}}}")
}

fn by_server_name(plane: Plane) -> Result<Outcome> {
    let ca = Authority::new("gateways")?;
    let text = base()
        + &ca
            .issue(&["a.example.com"])?
            .secret("cert-a", "tls.crt", "tls.key")
        + &ca.issue(&["b.example.com"])?.secret("cert-b", "cert", "key")
        + &gateway(
            "edge",
            &[
                REDIRECT,
                &https("a", "a.example.com", "{mode: SIMPLE, credentialName: cert-a}"),
                &https(
                    "b",
                    "b.example.com",
                    "{mode: SIMPLE, credentialName: cert-b, minProtocolVersion: TLSV1_3}",
                ),
            ],
        )
        + &routes("a", "a.example.com", "edge", &to("web"))
        + &routes("b", "b.example.com", "edge", &to("shop"));
    let mesh = Mesh::up(plane, &Setup::yaml(&text).arguments(&["-n", "lab"]))?;
    let edge = address(&mesh, 443)?;
    for (host, app) in [("a.example.com", "web-0"), ("b.example.com", "shop-0")] {
        let mut client = ca.client().dial(&edge, host)?;
        let (status, answer) = client.ask(host, "/")?;
        check(host, status, 200)?;
        if !answer.contains(app) {
            return Err(format!("{host} leads to another application than {app}: {answer}").into());
        }
        let (status, _) = client.ask("a.example.com", "/")?;
        check(
            "a's host",
            status,
            if host == "a.example.com" { 200 } else { 421 },
        )?;
        let (status, _) = client.ask("nobody.example.com", "/")?;
        check("a host that nobody has", status, 404)?;
    }
    if ca.client().dial(&edge, "nobody.example.com").is_ok() {
        return Err("a server name that nobody has was answered".into());
    }
    let old = ca.client().versions(&[&rustls::version::TLS12]);
    old.dial(&edge, "a.example.com")?.ask("a.example.com", "/")?;
    if old.dial(&edge, "b.example.com").is_ok() {
        return Err("TLS 1.2 was spoken below minProtocolVersion".into());
    }
    let both = ca
        .client()
        .protocols(&["h2", "http/1.1"])
        .dial(&edge, "a.example.com")?;
    if both.protocol() != Some(b"h2".as_slice()) {
        return Err(format!("{:?} was chosen instead of h2", both.protocol()).into());
    }
    // Plaintext is sent to where HTTPS is served on this machine.
    let answer = get(&address(&mesh, 80)?, "a.example.com", "/x?y=1")?;
    check("plaintext", answer.status, 301)?;
    let port = edge.rsplit(':').next().unwrap_or_default();
    let port = if port == "443" {
        String::new()
    } else {
        format!(":{port}")
    };
    let wanted = format!("https://a.example.com{port}/x?y=1");
    if answer.header("location") != Some(wanted.as_str()) {
        return Err(format!("{:?} instead of {wanted}", answer.header("location")).into());
    }
    mesh.down()?;
    Ok(Outcome::Passed)
}

fn mutual_and_rotation(plane: Plane) -> Result<Outcome> {
    let (ca, partner, stranger) = (
        Authority::new("own")?,
        Authority::new("partner")?,
        Authority::new("other")?,
    );
    let first = ca.issue(&["a.example.com"])?;
    let server = https("a", "a.example.com", "{mode: MUTUAL, credentialName: cert-a}");
    let text = base()
        + &first.secret("cert-a", "tls.crt", "tls.key")
        + &partner.roots("cert-a-cacert")
        + &gateway("edge", &[&server])
        + &routes("a", "a.example.com", "edge", &to("web"));
    let mesh = Mesh::up(plane, &Setup::yaml(&text).arguments(&["-n", "lab"]))?;
    let edge = address(&mesh, 443)?;
    let host = "a.example.com";
    let without = ca
        .client()
        .dial(&edge, host)
        .and_then(|mut client| client.ask(host, "/"));
    if without.is_ok() {
        return Err("a client without a certificate was answered".into());
    }
    let other = ca.client().showing(&stranger.issue(&["partner.example"])?);
    if other
        .dial(&edge, host)
        .and_then(|mut client| client.ask(host, "/"))
        .is_ok()
    {
        return Err("a certificate of another issuer was taken".into());
    }
    let client = ca.client().showing(&partner.issue(&["partner.example"])?);
    let mut kept = client.dial(&edge, host)?;
    let (status, answer) = kept.ask(host, "/")?;
    check("the partner", status, 200)?;
    if !answer.contains("DNS=partner.example") {
        return Err(format!("the application is not told who the client is: {answer}").into());
    }
    // A new certificate is shown to new connections, and the old one's connection goes on.
    let second = ca.issue(&["a.example.com"])?;
    mesh.apply(&second.secret("cert-a", "tls.crt", "tls.key"))?;
    eventually("the new certificate", SOON, || {
        let shown = client.dial(&edge, host).ok()?.certificate();
        (shown == Some(second.der())).then_some(())
    })?;
    let (status, _) = kept.ask(host, "/")?;
    check("the connection from before", status, 200)?;
    if kept.certificate() != Some(first.der()) {
        return Err("the connection is not the one from before".into());
    }
    // Other roots: the partner of before is a stranger now.
    mesh.apply(&stranger.roots("cert-a-cacert"))?;
    eventually("other roots", SOON, || {
        other
            .dial(&edge, host)
            .and_then(|mut one| one.ask(host, "/"))
            .ok()
            .map(drop)
    })?;
    if client
        .dial(&edge, host)
        .and_then(|mut one| one.ask(host, "/"))
        .is_ok()
    {
        return Err("the roots of before still count".into());
    }
    mesh.down()?;
    Ok(Outcome::Passed)
}

fn files_and_names(plane: Plane) -> Result<Outcome> {
    let (ca, partner, stranger) = (
        Authority::new("own")?,
        Authority::new("partner")?,
        Authority::new("other")?,
    );
    let names = [
        "named.example.com",
        "open.example.com",
        "key.example.com",
        "hash.example.com",
    ];
    let (first, second) = (ca.issue(&names)?, ca.issue(&names)?);
    let mut setup = Setup::yaml(&base()).arguments(&["-n", "lab"]);
    for (name, text) in [
        ("leaf.pem", &first.chain),
        ("leaf.key", &first.key),
        ("roots.pem", &partner.pem()),
    ] {
        setup.files.push((name.into(), text.clone()));
    }
    let mesh = Mesh::up(plane, &setup)?;
    let folder = mesh.folder.display();
    let files = format!(
        "serverCertificate: {folder}/leaf.pem, privateKey: {folder}/leaf.key, caCertificates: {folder}/roots.pem"
    );
    let clinic = partner.issue(&["clinic.partner.example"])?;
    let pinned = partner.issue(&["pinned.partner.example"])?;
    let by_key = format!(
        "{{mode: MUTUAL, {files}, verifyCertificateSpki: ['{}']}}",
        clinic.key_pin()
    );
    let by_hash = format!(
        "{{mode: MUTUAL, {files}, verifyCertificateHash: ['{}', '{}']}}",
        pinned.certificate_pin(),
        clinic.certificate_pin()
    );
    let named = format!("{{mode: MUTUAL, {files}, subjectAltNames: [clinic.partner.example]}}");
    let open = format!("{{mode: OPTIONAL_MUTUAL, {files}}}");
    let servers = [
        &*https("named", "named.example.com", &named),
        &*https("open", "open.example.com", &open),
        &*https("key", "key.example.com", &by_key),
        &*https("hash", "hash.example.com", &by_hash),
    ];
    let rules = gateway("edge", &servers)
        + &routes("named", "named.example.com", "edge", &to("web"))
        + &routes("open", "open.example.com", "edge", &to("web"))
        + &routes("key", "key.example.com", "edge", &to("web"))
        + &routes("hash", "hash.example.com", "edge", &to("web"));
    mesh.apply(&rules)?;
    let edge = eventually("the gateway's address", SOON, || address(&mesh, 443).ok())?;
    let answers = |client: &Client, host: &str| -> Result<String> {
        let (status, answer) = client.dial(&edge, host)?.ask(host, "/")?;
        check(host, status, 200)?;
        Ok(answer)
    };
    let nobody = ca.client();
    eventually("a gateway that was applied late", SOON, || {
        answers(&nobody, "open.example.com").ok()
    })?;
    let clinic = ca.client().showing(&clinic);
    let pinned = ca.client().showing(&pinned);
    let renewed = ca.client().showing(&partner.issue(&["clinic.partner.example"])?);
    let other = ca.client().showing(&partner.issue(&["other.partner.example"])?);
    let foreign = ca.client().showing(&stranger.issue(&["clinic.partner.example"])?);
    for (who, client, host, wanted) in [
        ("the named client", &clinic, "named.example.com", true),
        ("another of its issuer", &other, "named.example.com", false),
        ("nobody", &nobody, "named.example.com", false),
        ("one of the issuer", &other, "open.example.com", true),
        ("the pinned key", &clinic, "key.example.com", true),
        ("another key of the same name", &renewed, "key.example.com", false),
        ("another of its issuer", &pinned, "key.example.com", false),
        ("nobody", &nobody, "key.example.com", false),
        ("the first pinned certificate", &pinned, "hash.example.com", true),
        ("the second pinned certificate", &clinic, "hash.example.com", true),
        (
            "another certificate of the same name",
            &renewed,
            "hash.example.com",
            false,
        ),
        ("the name by another issuer", &foreign, "open.example.com", false),
        ("the name by another issuer", &foreign, "named.example.com", false),
    ] {
        let answer = answers(client, host);
        if answer.is_ok() != wanted {
            return Err(format!("{who} at {host}: {answer:?}").into());
        }
    }
    if !answers(&clinic, "open.example.com")?.contains("DNS=clinic.partner.example") {
        return Err("a client that shows a certificate where none is asked for stays unknown".into());
    }
    let mut kept = nobody.dial(&edge, "open.example.com")?;
    for (name, text) in [("leaf.pem", &second.chain), ("leaf.key", &second.key)] {
        std::fs::write(mesh.folder.join(name), text)?;
    }
    eventually("the files' new certificate", SOON, || {
        let shown = nobody.dial(&edge, "open.example.com").ok()?.certificate();
        (shown == Some(second.der())).then_some(())
    })?;
    let (status, _) = kept.ask("open.example.com", "/")?;
    check("the connection from before", status, 200)?;
    mesh.down()?;
    Ok(Outcome::Passed)
}

/// Ends TLS itself and says what it was asked for.
const ENDS_TLS: &str = r#"
import http.server, os, ssl
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = b"ended by the application"
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass
server = http.server.ThreadingHTTPServer(("0.0.0.0", int(os.environ.get("PORT", "8443"))), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("leaf.pem", "leaf.key")
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"#;

fn bytes(plane: Plane) -> Result<Outcome> {
    let ca = Authority::new("application")?;
    let leaf = ca.issue(&["vault.example.com"])?;
    let app = |name, port, port_name, run: String| {
        lab::yaml(&Workload {
            name,
            port,
            port_name,
            replicas: 1,
            run,
            more: "",
        })
    };
    let text = base()
        + &app(
            "vault",
            8443,
            "tls",
            format!("exec {} ends_tls.py", lab::python()),
        )
        + &app("pipe", 7001, "tcp", lab::server("echo", 7001))
        + &gateway(
            "edge",
            &[
                "{port: {number: 443, name: tls, protocol: TLS}, hosts: [\"*.example.com\"], tls: {mode: PASSTHROUGH}}",
                "{port: {number: 7100, name: tcp, protocol: TCP}, hosts: [\"*\"]}",
            ],
        )
        + &routes(
            "vault",
            "vault.example.com",
            "edge",
            "tls: [{match: [{port: 443, sniHosts: [vault.example.com]}], route: [{destination: {host: vault}}]}]",
        )
        + &routes(
            "pipe",
            "pipe.example.com",
            "edge",
            "tcp: [{match: [{port: 7100}], route: [{destination: {host: pipe}}]}]",
        );
    let mut setup = Setup::yaml(&text).arguments(&["-n", "lab"]);
    for (name, text) in [
        ("ends_tls.py", ENDS_TLS),
        ("leaf.pem", &leaf.chain),
        ("leaf.key", &leaf.key),
    ] {
        setup.files.push((name.into(), text.into()));
    }
    let mesh = Mesh::up(plane, &setup)?;
    let edge = address(&mesh, 443)?;
    let mut client = ca.client().dial(&edge, "vault.example.com")?;
    let (status, answer) = client.ask("vault.example.com", "/")?;
    check("the application's own TLS", status, 200)?;
    if !answer.ends_with("ended by the application") || client.certificate() != Some(leaf.der()) {
        return Err(format!("somebody else has ended TLS: {answer}").into());
    }
    if ca.client().dial(&edge, "other.example.com").is_ok() {
        return Err("a server name without a route was passed on".into());
    }
    let mut pipe = std::net::TcpStream::connect(address(&mesh, 7100)?)?;
    std::io::Write::write_all(&mut pipe, b"abc")?;
    pipe.shutdown(std::net::Shutdown::Write)?;
    let mut text = String::new();
    std::io::Read::read_to_string(&mut pipe, &mut text)?;
    if !text.starts_with("abc") {
        return Err(format!("the bytes came back as {text:?}").into());
    }
    mesh.down()?;
    Ok(Outcome::Passed)
}

fn split(web: u32, shop: u32) -> String {
    routes(
        "web",
        "web.example.com",
        "edge",
        &format!(
            "http: [{{route: [{{destination: {{host: web}}, weight: {web}}}, {{destination: {{host: shop}}, weight: {shop}}}]}}]"
        ),
    )
}

/// Refuses `/private` at the ingress gateway, and everything that is not its own to the application.
const POLICIES: &str = "
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: edge, namespace: istio-system}
spec:
  selector: {matchLabels: {istio: ingressgateway}}
  action: DENY
  rules: [{to: [{operation: {paths: [/private]}}]}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: web, namespace: lab}
spec:
  selector: {matchLabels: {app: web}}
  rules: [{from: [{source: {principals: [cluster.local/ns/istio-system/sa/istio-ingressgateway-service-account]}}]}]
";

fn canary(plane: Plane) -> Result<Outcome> {
    let text = base() + POLICIES + &gateway("edge", &[HTTP]) + &split(75, 25);
    let mesh = Mesh::up(plane, &Setup::yaml(&text).arguments(&["-n", "lab"]))?;
    let edge = address(&mesh, 80)?;
    let to_shop = || -> Result<usize> {
        let mut found = 0;
        for _ in 0..200 {
            let answer = get(&edge, "web.example.com", "/")?;
            check("a request of the split", answer.status, 200)?;
            found += usize::from(answer.text().contains("shop-0"));
        }
        Ok(found)
    };
    let share = to_shop()?;
    // Five standard deviations about 50 of 200.
    if !(20..=80).contains(&share) {
        return Err(format!("{share} of 200 requests for a weight of 25").into());
    }
    check(
        "refused at the gateway",
        status(&edge, "web.example.com", "/private")?,
        403,
    )?;
    mesh.apply(&split(0, 100))?;
    eventually("all to the canary", SOON, || {
        (to_shop().ok()? == 200).then_some(())
    })?;
    mesh.down()?;
    Ok(Outcome::Passed)
}

/// `web` calls `api.example.net` outside the mesh, which only the egress gateway may reach.
fn egress_rules(port: u16) -> String {
    format!(
        "---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: outside, namespace: lab}}
spec:
  hosts: [api.example.net]
  location: MESH_EXTERNAL
  resolution: STATIC
  ports: [{{number: 80, name: http, protocol: HTTP, targetPort: {port}}}]
  endpoints: [{{address: 127.0.0.1}}]
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: out, namespace: lab}}
spec:
  selector: {{istio: egressgateway}}
  servers: [{{port: {{number: 443, name: https, protocol: HTTPS}}, hosts: [api.example.net], tls: {{mode: ISTIO_MUTUAL}}}}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: out, namespace: lab}}
spec:
  host: istio-egressgateway.istio-system.svc.cluster.local
  trafficPolicy: {{portLevelSettings: [{{port: {{number: 443}}, tls: {{mode: ISTIO_MUTUAL, sni: api.example.net}}}}]}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: out, namespace: lab}}
spec:
  hosts: [api.example.net]
  gateways: [mesh, out]
  http:
  - match: [{{gateways: [mesh], port: 80}}]
    route: [{{destination: {{host: istio-egressgateway.istio-system.svc.cluster.local, port: {{number: 443}}}}}}]
  - match: [{{gateways: [out], port: 443}}]
    route: [{{destination: {{host: api.example.net, port: {{number: 80}}}}}}]
"
    )
}

fn egress(plane: Plane) -> Result<Outcome> {
    let outside = std::net::TcpListener::bind("127.0.0.1:0")?;
    let port = outside.local_addr()?.port();
    let (seen, heads) = std::sync::mpsc::channel();
    // It ends with the test's process.
    std::thread::spawn(move || {
        for mut stream in outside.incoming().flatten() {
            let mut head = Vec::new();
            let mut piece = [0; 4096];
            while !head.ends_with(b"\r\n\r\n") {
                match std::io::Read::read(&mut stream, &mut piece) {
                    Ok(read @ 1..) => head.extend_from_slice(&piece[..read]),
                    _ => break,
                }
            }
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\nconnection: close\r\n\r\noutside";
            drop(std::io::Write::write_all(&mut stream, answer));
            drop(seen.send(String::from_utf8_lossy(&head).into_owned()));
        }
    });
    let text = base() + &egress_rules(port);
    let mesh = Mesh::up(plane, &Setup::yaml(&text).arguments(&["-n", "lab"]))?;
    let script = "import urllib.request; print(urllib.request.urlopen('http://api.example.net/x', timeout=10).read().decode())";
    let answer = mesh.exec("web-0.lab", &[&lab::python(), "-c", script])?;
    if answer.trim() != "outside" {
        return Err(format!("the server outside was not reached: {answer}").into());
    }
    // The egress gateway is a hop of its own, and has counted the one before it.
    let head = heads.recv_timeout(SOON)?.to_ascii_lowercase();
    if !head.contains("host: api.example.net") {
        return Err(format!("the host was changed on the way:\n{head}").into());
    }
    let clusters = mesh.rajut(&["proxy-config", "clusters", "istio-egressgateway-0"])?;
    if !clusters.contains("api.example.net") {
        return Err(format!("the egress gateway knows no such host:\n{clusters}").into());
    }
    if !head.contains("ns/lab/sa/web") {
        return Err(
            format!("the call did not pass the egress gateway with the caller's identity:\n{head}").into(),
        );
    }
    mesh.down()?;
    Ok(Outcome::Passed)
}
