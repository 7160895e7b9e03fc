//! Folders of files that were not written for Rajut: Compose, plain Kubernetes, a Node platform.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use crate::{
    client::get,
    lab,
    mesh::{Mesh, Setup, eventually},
    runner::{BOTH, OURS, Outcome, Plane, Result, Scenario},
};

pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "a_compose_folder_runs_what_it_is_told_and_names_what_it_does_not",
        planes: BOTH,
        run: compose,
    },
    Scenario {
        name: "deployments_and_config_maps_run_with_commands_from_the_command_line_netns",
        planes: BOTH,
        run: |plane| deployments(plane, "netns"),
    },
    Scenario {
        name: "deployments_and_config_maps_run_with_commands_from_the_command_line_explicit",
        planes: BOTH,
        run: |plane| deployments(plane, "explicit"),
    },
    Scenario {
        name: "analyze_reads_standard_input_and_says_which_namespace_has_the_host",
        planes: OURS,
        run: analyze,
    },
    Scenario {
        name: "the_child_welfare_platform_runs_on_node",
        planes: BOTH,
        run: child_welfare,
    },
];

const COMPOSE: &str = "
name: shop
services:
  front:
    image: example.org/shop/front:3
    command: python3 front.py
    depends_on:
      back: {condition: service_healthy}
    ports: ['8080']
    environment:
      BACK_URL: http://back:9000
  back:
    image: example.org/shop/back:3
    command: [python3, -m, http.server, '9000']
    expose: ['9000']
    healthcheck: {test: [CMD, curl, -f, 'http://localhost:9000/'], interval: 1s}
    depends_on: [db]
  db:
    image: postgres:17
    environment: {POSTGRES_PASSWORD: not-a-secret}
    volumes: ['data:/var/lib/postgresql/data']
volumes: {data: }
";

fn contains_all(text: &str, wanted: &[&str]) -> Result {
    for word in wanted {
        if !text.contains(word) {
            return Err(format!("{word:?} is not in:\n{text}").into());
        }
    }
    Ok(())
}

fn compose(plane: Plane) -> Result<Outcome> {
    let mut setup = Setup::default();
    setup.files.push(("compose.yaml".into(), COMPOSE.into()));
    let mesh = Mesh::prepare(plane, &setup)?;
    fs::copy(lab::app("front.py"), mesh.folder.join("front.py"))?;
    fs::write(mesh.folder.join("stock.txt"), "three jars of honey")?;
    // Images are not run here, and a command is that of an image: nothing starts, and the very lines to add are there.
    let folder = mesh.folder.display().to_string();
    let up = ["up", "--detach", "--data-plane", plane.name(), &folder];
    let refused = mesh.command(&up).output()?;
    let said = String::from_utf8_lossy(&[refused.stdout, refused.stderr].concat()).into_owned();
    if refused.status.code() != Some(1) {
        return Err("`up` started something, though nothing says what".into());
    }
    contains_all(
        &said,
        &[
            "--run front='python3 front.py'",
            "--run back='python3 -m http.server 9000'",
            "--run db='COMMAND'",
        ],
    )?;
    // A command of one's own, and the document's, which runs in the document's folder.
    let front = format!("front=cd '{folder}' && exec python3 front.py");
    let mut arguments = up.to_vec();
    arguments.extend(["--run", &front, "--run", "back"]);
    let started = mesh.rajut(&arguments)?;
    contains_all(&started, &["not started", "--run db='COMMAND'"])?;
    let address = mesh.host_address("front")?;
    let answer = get(&address, &address, "/stock.txt")?;
    if (answer.status, &*answer.text()) != (200, "front, then three jars of honey") {
        return Err(format!("{} {}", answer.status, answer.text()).into());
    }
    let status = mesh.status()?;
    if status["notStarted"][0]["name"] != "db" {
        return Err(format!("db is not listed as not started: {status:#}").into());
    }
    mesh.down()?;
    Ok(Outcome::Passed)
}

const MANIFESTS: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, namespace: shop}
data: {GREETING: from a config map, COLOUR: blue}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: front, namespace: shop}
spec:
  replicas: 2
  selector: {matchLabels: {app: front}}
  template:
    metadata: {labels: {app: front}}
    spec:
      serviceAccountName: front
      containers:
      - name: front
        image: example.org/shop/front:3
        envFrom: [{configMapRef: {name: settings}}]
        env:
        - {name: COLOUR, value: green}
        - {name: HUE, valueFrom: {configMapKeyRef: {name: settings, key: COLOUR}}}
        ports: [{name: http, containerPort: 8080}]
        readinessProbe: {httpGet: {path: /environment, port: http}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: front, namespace: shop}
spec:
  selector: {app: front}
  ports: [{name: http, port: 80, targetPort: http}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: back, namespace: shop}
spec:
  selector: {matchLabels: {app: back}}
  template:
    metadata: {labels: {app: back}}
    spec:
      containers:
      - name: back
        image: example.org/shop/back:3
        ports: [{containerPort: 9000}]
        readinessProbe: {tcpSocket: {port: 9000}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: back, namespace: shop}
spec:
  selector: {app: back}
  ports: [{name: http, port: 9000}]
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: shop}
spec: {mtls: {mode: STRICT}}
";

fn deployments(plane: Plane, capture: &str) -> Result<Outcome> {
    let front = format!(
        // Without a namespace of its own the neighbour's address is in the environment, as in Kubernetes.
        "front=export BACK_URL=${{BACK_URL:-http://back:9000}}; exec {} {}",
        lab::python(),
        lab::app("front.py").display()
    );
    let back = format!("back=exec {} sample", env!("CARGO_BIN_EXE_rajut"));
    let setup = Setup::yaml(MANIFESTS).arguments(&["--capture", capture, "--run", &front, "--run", &back]);
    let mesh = Mesh::up(plane, &setup)?;
    let status = mesh.status()?;
    if status["workloads"].as_array().map(Vec::len) != Some(3) || status["capture"] != capture {
        return Err(format!("three workloads are expected, captured by {capture}: {status:#}").into());
    }
    if status["bypassPossible"] != (capture == "explicit") {
        return Err(format!("`status` must say whether sidecars can be bypassed: {status:#}").into());
    }
    let address = mesh.host_address("front")?;
    let environment = get(&address, &address, "/environment")?.json()?;
    for (name, value) in [
        ("GREETING", "from a config map"),
        ("COLOUR", "green"),
        ("HUE", "blue"),
    ] {
        if environment[name] != value {
            return Err(format!("{name} is {} instead of {value}", environment[name]).into());
        }
    }
    let answer = get(&address, &address, "/")?;
    // The callee was told by its sidecar who called: the hop between the two had mTLS.
    contains_all(
        &answer.text(),
        &[
            "front, then ",
            "\"service\":\"back\"",
            "URI=spiffe://cluster.local/ns/shop/sa/front",
        ],
    )?;
    mesh.down()?;
    Ok(Outcome::Passed)
}

const ELSEWHERE: &str = "---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: back}
spec:
  hosts: [back]
  http: [{route: [{destination: {host: back}}]}]
---
apiVersion: monitoring.coreos.com/v1
kind: ServiceMonitor
metadata: {name: front, namespace: shop}
spec: {}
";

fn analyze(plane: Plane) -> Result<Outcome> {
    let mesh = Mesh::prepare(plane, &Setup::default())?;
    let run = |text: &str| -> Result<(Option<i32>, String)> {
        let file = mesh.folder.join("input.yaml");
        fs::write(&file, text)?;
        let output = mesh
            .command(&["analyze", "-", "-n", "clinic"])
            .stdin(fs::File::open(&file)?)
            .output()?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok((output.status.code(), text(&output.stdout) + &text(&output.stderr)))
    };
    let (code, said) = run(MANIFESTS)?;
    if code != Some(0) {
        return Err(format!("plain manifests are not wrong: {code:?}\n{said}").into());
    }
    contains_all(&said, &["7 documents: 7 used, 0 not ours, 0 wrong"])?;
    let (code, said) = run(&format!("{MANIFESTS}{ELSEWHERE}"))?;
    contains_all(
        &said,
        &[
            "the host `back` does not exist in the namespace `clinic`",
            "back.shop.svc.cluster.local",
            "<stdin>:",
            "1 not ours",
        ],
    )?;
    if code != Some(1) {
        return Err(format!("the exit status is {code:?} instead of 1:\n{said}").into());
    }
    Ok(Outcome::Passed)
}

fn copy(from: &Path, to: &Path) -> Result {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if entry.file_name() == "node_modules" {
            continue;
        }
        if path.is_dir() {
            copy(&path, &target)?;
        } else {
            fs::copy(&path, &target)?;
        }
    }
    Ok(())
}

/// Runs a program to its end in a folder; what it said where it failed.
fn run_in(folder: &Path, program: &str, arguments: &[&str]) -> Result {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!(
        "{program} {}: {}{}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
    .into())
}

fn child_welfare(plane: Plane) -> Result<Outcome> {
    if !crate::mesh::have("node") {
        return Ok(Outcome::Skipped("node is not here".into()));
    }
    let mesh = Mesh::prepare(plane, &Setup::default())?;
    let example = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../examples/child-welfare");
    let folder = mesh.folder.join("child-welfare");
    copy(&example, &folder)?;
    let started = Instant::now();
    // Without a registry in reach the JavaScript that is committed beside the sources is run.
    let built = run_in(&folder, "npm", &["install", "--no-audit", "--no-fund"])
        .and_then(|()| run_in(&folder, "npm", &["run", "build"]));
    match built {
        Ok(()) => println!("    built in {:.1} s", started.elapsed().as_secs_f64()),
        Err(error) if std::env::var_os("CI").is_some() => return Err(error),
        Err(error) => println!("    not built, so what is committed is run: {error}"),
    }
    let started = Instant::now();
    let place = folder.display().to_string();
    mesh.rajut(&["up", "--detach", "--data-plane", plane.name(), &place])?;
    println!("    up in {:.1} s", started.elapsed().as_secs_f64());
    let address = mesh.host_address("portal")?;
    let overview = eventually("an overview", Duration::from_secs(20), || {
        let answer = get(&address, &address, "/overview/c-1").ok()?;
        (answer.status == 200).then(|| answer.text())
    })?;
    contains_all(&overview, &["c-1"])?;
    let said = mesh.rajut(&["verify", "mtls", "portal-0", "case-files-0"])?;
    contains_all(
        &said,
        &["TLS 1.3", "spiffe://cluster.local/ns/child-welfare/sa/case-files"],
    )?;
    mesh.down()?;
    Ok(Outcome::Passed)
}
