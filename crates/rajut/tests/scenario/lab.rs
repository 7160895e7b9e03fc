//! A mesh of small test applications: what the protocol, limit and resilience scenarios share.

use std::{path::PathBuf, sync::Arc};

use crate::{
    mesh::{self, Mesh, Setup},
    runner::{Plane, Result},
};

/// The applications of this folder.
pub fn app(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/scenario/apps")
        .join(name)
}

/// The Python that has grpcio where there is one.
pub fn python() -> String {
    std::env::var("RAJUT_TEST_PYTHON").unwrap_or_else(|_| "python3".into())
}

/// Whether Python can import `module`.
pub fn python_has(module: &str) -> bool {
    std::process::Command::new(python())
        .args(["-c", &format!("import {module}")])
        .stderr(std::process::Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// A workload of its own, with its service.
pub struct Workload<'a> {
    pub name: &'a str,
    pub port: u16,
    /// Name of the service's port: it tells the protocol.
    pub port_name: &'a str,
    pub replicas: u32,
    /// Shell command. With captured ports it listens where the service says, without on `$PORT`.
    pub run: String,
    /// More lines of the local workload's `spec`, two spaces deep.
    pub more: &'a str,
}

pub fn yaml(workload: &Workload<'_>) -> String {
    let Workload {
        name,
        port,
        port_name,
        replicas,
        run,
        more,
    } = workload;
    let named = if port_name.is_empty() {
        String::new()
    } else {
        format!("name: {port_name}, ")
    };
    format!(
        "---
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: lab}}
spec:
  selector: {{app: {name}}}
  ports: [{{{named}port: {port}, targetPort: {port}}}]
---
apiVersion: mesh.rajut.dev/v1alpha1
kind: LocalWorkload
metadata: {{name: {name}, namespace: lab}}
spec:
  labels: {{app: {name}}}
  serviceAccount: {name}
  replicas: {replicas}
  ports: [{{containerPort: {port}}}]
  readinessProbe: {{tcpSocket: {{port: {port}}}, periodSeconds: 1}}
  run: |
    {run}
{more}"
    )
}

/// A Python server in `mode`.
pub fn server(mode: &str, port: u16) -> String {
    format!(
        "exec {} {} {mode} ${{PORT:-{port}}}",
        python(),
        app("server.py").display()
    )
}

/// `client` → `front` → `middle` → `back`: each calls the next and passes on the headers that tie requests together.
pub fn chain() -> String {
    let script = app("chain.py");
    [
        ("front", "http://middle:8080"),
        ("middle", "http://back:8080"),
        ("back", ""),
        ("client", ""),
    ]
    .iter()
    .map(|(name, next)| {
        yaml(&Workload {
            name,
            port: 8080,
            port_name: "http",
            replicas: 1,
            run: format!("exec {} {} 8080 {next}", python(), script.display()),
            more: "",
        })
    })
    .collect()
}

pub const STRICT: &str = "
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: lab}
spec: {mtls: {mode: STRICT}}
";

/// `web` (declared HTTP), `auto` (HTTP on an undeclared port), `greet` (speaks first, undeclared), `pipe` (opaque TCP),
/// and `client`, from which calls are made.
pub fn mesh(plane: Plane) -> Result<Arc<Mesh>> {
    mesh::shared(plane, "lab", || {
        let plain = |name, port, port_name, run| {
            yaml(&Workload {
                name,
                port,
                port_name,
                replicas: 1,
                run,
                more: "",
            })
        };
        let mut text = format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: lab}}\n{STRICT}");
        text += &plain("web", 8080, "http", server("http", 8080));
        text += &plain("auto", 8081, "", server("http", 8081));
        text += &plain("greet", 7000, "", server("greeting", 7000));
        text += &plain("pipe", 7001, "tcp", server("echo", 7001));
        text += &plain("client", 8090, "http", server("http", 8090));
        if python_has("grpc") {
            let run = format!(
                "exec {} {} ${{PORT:-9000}}",
                python(),
                app("grpc_server.py").display()
            );
            text += &plain("rpc", 9000, "grpc", run);
        }
        Setup::yaml(&text).arguments(&["-n", "lab"])
    })
}

/// Runs a Python script inside the workload `client`; its standard output.
pub fn from_client(mesh: &Mesh, script: &str) -> Result<String> {
    mesh.exec("client-0.lab", &[&python(), "-c", script])
}
