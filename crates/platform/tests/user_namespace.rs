//! A mesh in a user namespace, seen from outside, with the steps of `rajut up`, `rajut exec` and a `kill -9`.
//!
//! ```text
//!  main (root or not) ─► as an ordinary user: tester ─► up ── unshares, or starts ──► supervisor, root inside
//!                                               │                                        ├─ holder of the namespace
//!                                               └── enters, kills, looks for remains      └─ workload
//! ```
//!
//! A program of its own, without the test harness, because entering a user namespace needs a single thread.
#![expect(
    clippy::disallowed_methods,
    reason = "a test waits for a process of its own, told its part by a variable"
)]
#![expect(clippy::panic, reason = "a test fails by panicking")]

use std::io::{self, BufRead};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rajut_platform::netns::{Capability, NamespaceHolder, in_namespace, probe, unshare_user};
use rajut_platform::process::{
    FileMount, Isolation, Mounts, ProcessId, UserNamespace, processes_with_variable, spawn,
};
use tokio::io::AsyncReadExt;

const ROLE: &str = "RAJUT_TEST_ROLE";
const NOBODY: u32 = 65_534;

fn main() {
    let role = std::env::var(ROLE).unwrap_or_default();
    match role.as_str() {
        "" => {
            // Root can do everything anyway: play the ordinary user.
            if rustix::process::geteuid().is_root() {
                let status = again("tester")
                    .uid(NOBODY)
                    .gid(NOBODY)
                    .status()
                    .expect("it runs already");
                assert!(status.success());
            } else {
                tester();
            }
            println!("test a_user_enters_the_workloads_of_a_mesh_in_a_user_namespace ... ok");
        }
        "tester" => tester(),
        // Both ways of getting inside give the same mesh.
        "unshare" => {
            unshare_user().expect("the probe said so");
            supervisor();
        }
        "spawn" => {
            let isolation = Isolation {
                user: Some(UserNamespace::New),
                die_with_parent: true,
                ..Isolation::default()
            };
            let mut inside = spawn(again("supervisor"), isolation).expect("the probe said so");
            assert!(inside.wait_blocking().expect("it is our child").success());
        }
        _ => supervisor(),
    }
}

fn again(role: &str) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.env(ROLE, role);
    command
}

fn tester() {
    match probe() {
        Capability::Rootless => {}
        Capability::Refused { reason } => {
            println!("skipped: {reason}");
            return;
        }
        Capability::Root => panic!("an ordinary user has root's capabilities"),
    }
    for way in ["unshare", "spawn"] {
        a_mesh_is_entered_and_killed(way);
    }
}

fn a_mesh_is_entered_and_killed(way: &str) {
    let run = format!("{}-{way}", std::process::id());
    let mut up = again(way)
        .env("RAJUT_TEST_RUN", &run)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it runs already");
    let mut said = io::BufReader::new(up.stdout.take().expect("it is piped"));
    let [workload, holder, namespace] = std::array::from_fn(|_| {
        let mut line = String::new();
        said.read_line(&mut line).expect("the supervisor speaks text");
        line.trim().to_owned()
    });
    let process = |pid: &str| ProcessId::of(pid.parse().expect("a pid")).expect("it runs");
    let (workload, holder) = (process(&workload), process(&holder));

    // `rajut exec`: into all namespaces of the workload, from outside.
    let isolation = Isolation::of_process(workload.pid()).expect("one's own processes can be looked at");
    assert!(isolation.user.is_some());
    let mut shell = Command::new("/bin/sh");
    shell
        .args(["-c", "cat /etc/hosts; readlink /proc/self/ns/net; id -u"])
        .stdout(Stdio::piped());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let mut seen = String::new();
    runtime.block_on(async {
        let mut child = spawn(shell, isolation).expect("the user owns the namespaces");
        let mut output = child.take_stdout().expect("it is piped").expect("a pipe");
        output.read_to_string(&mut seen).await.expect("text");
        assert!(child.wait().await.expect("it is our child").success());
    });
    assert_eq!(seen, format!("10.96.0.10 signer\n{namespace}\n0\n"));

    // `rajut down` after a kill: what belongs to a run is found from outside.
    let found = processes_with_variable("RAJUT_TEST_RUN", &run).expect("/proc is mounted");
    assert!(found.contains(&workload), "{found:?}");

    // The supervisor is killed: nothing of it stays.
    assert!(workload.is_alive() && holder.is_alive());
    up.kill().expect("it is our child");
    up.wait().expect("it is our child");
    let deadline = Instant::now() + Duration::from_secs(5);
    while workload.is_alive() || holder.is_alive() {
        assert!(
            Instant::now() < deadline,
            "the workload or the namespace's holder outlived the supervisor"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Root inside: a workload in a namespace, then nothing until it is killed.
fn supervisor() {
    let holder = NamespaceHolder::spawn().expect("root of the user namespace");
    let hosts = std::env::temp_dir().join(format!("rajut-user-namespace-{}", std::process::id()));
    std::fs::write(&hosts, "10.96.0.10 signer\n").expect("the folder for temporary files is writable");
    let isolation = Isolation {
        network: Some(holder.namespace().clone()),
        mounts: Mounts::Private(vec![FileMount {
            source: hosts.clone(),
            target: "/etc/hosts".into(),
            required: true,
        }]),
        die_with_parent: true,
        drop_capabilities: true,
        ..Isolation::default()
    };
    let mut command = Command::new("/bin/sleep");
    command.arg("66").stdin(Stdio::null()).stdout(Stdio::null());
    let child = spawn(command, isolation).expect("root of the user namespace");
    // The mount keeps the file; its name is not needed any more.
    std::fs::remove_file(&hosts).expect("it was just written");
    let link = in_namespace(holder.namespace(), || {
        std::fs::read_link("/proc/thread-self/ns/net")
    });
    let link = link.expect("it can be entered").expect("/proc is mounted");
    // A sidecar is another process: it opens the namespace by the holder's pid.
    let mut sidecar = Command::new("/bin/sh");
    sidecar.args(["-c", &format!("exec 9<{}", holder.path().display())]);
    let mut sidecar = spawn(sidecar, Isolation::default()).expect("it needs nothing");
    assert!(
        sidecar.wait_blocking().expect("it is our child").success(),
        "the sidecar can't open the namespace"
    );
    println!("{}\n{}\n{}", child.pid(), holder.pid(), link.display());
    // Nobody ever writes: this ends with the process.
    let mut line = String::new();
    assert!(io::stdin().read_line(&mut line).is_ok());
}
