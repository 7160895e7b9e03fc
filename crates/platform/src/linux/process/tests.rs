//! Real children, most of them `sh`; what needs a process of its own re-executes this test program.
#![expect(clippy::disallowed_methods, reason = "tests wait for processes of their own")]

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use tokio::io::AsyncReadExt;

use super::survey::Stat;
use super::*;
use crate::linux::netns::tests::namespace;
use crate::netns::{Capability, NetNs, in_namespace, probe};
use crate::network::{WorkloadNetwork, set_up_workload};
use crate::nftables::{CaptureRules, install_in};
use crate::process::*;

fn shell(script: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script]).stdout(Stdio::piped());
    command
}

/// Runs it to its end and gives its output.
async fn output_of(command: Command, isolation: Isolation) -> Result<String, SpawnError> {
    let mut child = spawn(command, isolation)?;
    let mut text = String::new();
    child
        .take_stdout()
        .unwrap()
        .unwrap()
        .read_to_string(&mut text)
        .await
        .unwrap();
    assert!(child.wait().await.unwrap().success(), "{text}");
    Ok(text.trim().to_owned())
}

fn eventually(mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + Duration::from_secs(5);
    while Instant::now() < deadline {
        if condition() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    false
}

/// A file of this test's own, removed at its end.
struct TempFile(PathBuf);

impl TempFile {
    fn new(name: &str, contents: &str) -> Self {
        let path = std::env::temp_dir().join(format!("rajut-process-{}-{name}", std::process::id()));
        std::fs::write(&path, contents).unwrap();
        Self(path)
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[tokio::test]
async fn a_child_lives_in_the_given_namespace() {
    let Some(made) = namespace() else { return };
    let expected = in_namespace(&made, || std::fs::read_link("/proc/thread-self/ns/net").unwrap()).unwrap();
    let isolation = Isolation {
        network: Some(made),
        ..Isolation::default()
    };
    let inside = output_of(shell("readlink /proc/self/ns/net"), isolation)
        .await
        .unwrap();
    assert_eq!(inside, expected.to_string_lossy());
}

#[tokio::test]
async fn files_are_replaced_for_the_child_alone() {
    if namespace().is_none() {
        return;
    }
    // Any file that exists everywhere will do as a target, so that the test does not depend on /etc.
    let target = TempFile::new("target", "theirs");
    let source = TempFile::new("source", "ours");
    let isolation = || Isolation {
        mounts: Mounts::Private(vec![
            FileMount {
                source: source.0.clone(),
                target: target.0.clone(),
                required: true,
            },
            FileMount {
                source: source.0.clone(),
                target: "/no/such/file".into(),
                required: false,
            },
        ]),
        ..Isolation::default()
    };
    let script = format!("cat {}", target.0.display());
    assert_eq!(output_of(shell(&script), isolation()).await.unwrap(), "ours");
    assert_eq!(std::fs::read_to_string(&target.0).unwrap(), "theirs");

    // A command that joins the namespaces of a running child sees the same.
    let mut running = spawn(shell("echo up; exec sleep 60"), isolation()).unwrap();
    let mut line = [0; 3];
    running
        .take_stdout()
        .unwrap()
        .unwrap()
        .read_exact(&mut line)
        .await
        .unwrap();
    let joined = Isolation::of_process(running.pid()).unwrap();
    let mut command = shell(&format!("{script}; echo; pwd"));
    command.current_dir("/usr");
    assert_eq!(output_of(command, joined).await.unwrap(), "ours\n/usr");
    running.signal(Signal::KILL).unwrap();
    running.wait().await.unwrap();
}

#[tokio::test]
async fn resolv_conf_can_be_replaced() {
    let target = PathBuf::from("/etc/resolv.conf");
    if namespace().is_none() || !target.exists() {
        println!("skipped: no namespaces or no /etc/resolv.conf here");
        return;
    }
    let source = TempFile::new("resolv", "nameserver 127.0.0.53\n");
    let mounts = Mounts::Private(vec![FileMount {
        source: source.0.clone(),
        target,
        required: true,
    }]);
    let seen = output_of(
        shell("cat /etc/resolv.conf"),
        Isolation {
            mounts,
            ..Isolation::default()
        },
    )
    .await;
    assert_eq!(seen.unwrap(), "nameserver 127.0.0.53");
}

#[tokio::test]
async fn a_failed_step_is_named() {
    if namespace().is_none() {
        return;
    }
    let source = TempFile::new("failing", "");
    let mounts = Mounts::Private(vec![FileMount {
        source: source.0.clone(),
        target: "/no/such/file".into(),
        required: true,
    }]);
    let error = output_of(
        shell("true"),
        Isolation {
            mounts,
            ..Isolation::default()
        },
    )
    .await
    .unwrap_err();
    let SpawnError::Step { step, source: cause } = error else {
        panic!("{error:?}")
    };
    assert_eq!(step, format!("mount {} over /no/such/file", source.0.display()));
    assert_eq!(cause.kind(), io::ErrorKind::NotFound);

    let missing = spawn(Command::new("/no/such/program"), Isolation::default()).unwrap_err();
    assert_eq!(missing.to_string(), "can't start /no/such/program");
}

#[tokio::test]
async fn inherited_descriptors_keep_their_numbers() {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let script = format!("echo hello > /proc/self/fd/{}", write.as_raw_fd());
    output_of(
        shell(&script),
        Isolation {
            inherit: vec![write],
            ..Isolation::default()
        },
    )
    .await
    .unwrap();
    let mut text = String::new();
    io::Read::read_to_string(&mut std::fs::File::from(read), &mut text).unwrap();
    assert_eq!(text, "hello\n");
}

#[tokio::test]
async fn dangerous_capabilities_are_out_of_reach() {
    let isolation = Isolation {
        drop_capabilities: true,
        ..Isolation::default()
    };
    let text = output_of(shell("grep -E 'CapEff|CapBnd' /proc/self/status"), isolation)
        .await
        .unwrap();
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root has capabilities to lose");
        return;
    }
    for line in text.lines() {
        let mask = u64::from_str_radix(line.split_whitespace().last().unwrap(), 16).unwrap();
        for dropped in [12, 16, 19, 21, 39] {
            assert_eq!(mask & (1 << dropped), 0, "{line}");
        }
    }
}

#[test]
fn a_child_dies_with_the_thread_that_started_it() {
    let child = std::thread::spawn(|| {
        let isolation = Isolation {
            die_with_parent: true,
            ..Isolation::default()
        };
        spawn(shell("exec sleep 60"), isolation).unwrap()
    });
    let mut child = child.join().unwrap();
    let status = child.wait_blocking().unwrap();
    assert_eq!(
        std::os::unix::process::ExitStatusExt::signal(&status),
        Some(libc::SIGKILL)
    );
}

#[tokio::test]
async fn a_session_is_signalled_as_a_whole() {
    let isolation = Isolation {
        new_session: true,
        ..Isolation::default()
    };
    let mut child = spawn(shell("sleep 61 & echo $!; wait"), isolation).unwrap();
    let mut text = [0; 16];
    let length = child
        .take_stdout()
        .unwrap()
        .unwrap()
        .read(&mut text)
        .await
        .unwrap();
    let pid = std::str::from_utf8(&text[..length])
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    let grandchild = ProcessId::of(pid).unwrap();
    assert!(grandchild.is_alive());
    assert!(child.signal_group(Signal::TERM).unwrap());
    child.wait().await.unwrap();
    assert!(eventually(|| !grandchild.is_alive()));
    assert!(!child.signal(Signal::TERM).unwrap());
}

#[tokio::test]
async fn waiting_can_be_given_up_and_taken_up_again() {
    let mut child = spawn(shell("exec sleep 65"), Isolation::default()).unwrap();
    assert!(
        tokio::time::timeout(Duration::from_millis(30), child.wait())
            .await
            .is_err()
    );
    assert_eq!(child.try_wait().unwrap(), None);
    child.signal(Signal::TERM).unwrap();
    let status = tokio::time::timeout(Duration::from_secs(5), child.wait())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        std::os::unix::process::ExitStatusExt::signal(&status),
        Some(libc::SIGTERM)
    );
}

#[tokio::test]
async fn a_daemon_writes_its_log_and_has_its_own_session() {
    let log = TempFile::new("log", "before\n");
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "echo out; echo err >&2; cut -d' ' -f6 /proc/$$/stat"]);
    let mut child = spawn_daemon(command, &log.0).unwrap();
    assert!(child.wait().await.unwrap().success());
    let text = std::fs::read_to_string(&log.0).unwrap();
    assert_eq!(text, format!("before\nout\nerr\n{}\n", child.pid()));
}

#[test]
fn a_process_is_more_than_its_pid() {
    let me = ProcessId::current().unwrap();
    assert!(me.is_alive());
    assert_eq!(me.to_string().parse(), Ok(me));
    let mut child = spawn(shell("exec sleep 62"), Isolation::default()).unwrap();
    // What a stale pid file would say: the same pid, another start.
    let text = child.id().to_string();
    let (pid, rest) = text.split_once(':').unwrap();
    let (start, boot) = rest.split_once(':').unwrap();
    let stranger: ProcessId = format!("{pid}:{}:{boot}", start.parse::<u64>().unwrap() - 1)
        .parse()
        .unwrap();
    let other_boot: ProcessId = format!("{pid}:{start}:1").parse().unwrap();
    for stale in [stranger, other_boot] {
        assert!(!stale.is_alive());
        assert!(!stale.signal(Signal::KILL).unwrap());
    }
    assert!(child.id().is_alive());
    assert!(kill_all(&[child.id(), stranger], Duration::from_secs(5)).is_empty());
    // Ended, although not collected yet.
    assert!(!child.id().is_alive());
    child.wait_blocking().unwrap();
    assert_eq!(
        ProcessId::of(child.pid()).unwrap_err().kind(),
        io::ErrorKind::NotFound
    );
}

#[test]
fn who_ignores_the_polite_signal_is_killed() {
    let (read, write) = rustix::pipe::pipe().unwrap();
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", "trap '' TERM; echo; sleep 63; sleep 63"])
        .stdout(write);
    let mut child = spawn(
        command,
        Isolation {
            new_session: true,
            ..Isolation::default()
        },
    )
    .unwrap();
    rustix::io::read(&read, &mut [0; 1]).unwrap();
    assert!(kill_all(&[child.id()], Duration::from_millis(50)).is_empty());
    child.signal_group(Signal::KILL).unwrap();
    child.wait_blocking().unwrap();
}

#[test]
fn usage_grows_with_work() {
    let before = usage(std::process::id()).unwrap();
    assert!(before.resident > 100_000 && before.threads >= 1);
    let grown = eventually(|| {
        let mut sum = 0_u64;
        for n in 0..3_000_000_u64 {
            sum = std::hint::black_box(sum.wrapping_mul(31).wrapping_add(n));
        }
        usage(std::process::id()).unwrap().cpu > before.cpu
    });
    assert!(grown);
    assert_eq!(usage(u32::MAX).unwrap_err().kind(), io::ErrorKind::NotFound);
}

#[test]
fn descendants_are_found_by_their_environment_and_namespace() {
    let marker = format!("{}", std::process::id());
    let mut command = shell("sleep 64 & wait");
    command.env("RAJUT_TEST_MARKER", &marker);
    let mut child = spawn(
        command,
        Isolation {
            new_session: true,
            ..Isolation::default()
        },
    )
    .unwrap();
    assert!(eventually(|| processes_with_variable(
        "RAJUT_TEST_MARKER",
        &marker
    )
    .unwrap()
    .len()
        == 2));
    let found = processes_with_variable("RAJUT_TEST_MARKER", &marker).unwrap();
    assert!(found.contains(&child.id()));
    let here = processes_in_namespace(NetNs::current().unwrap().id()).unwrap();
    assert!(found.iter().all(|process| here.contains(process)));
    // `sleep` is not our child; when its parent has ended somebody else collects it, so it may stay a zombie.
    assert!(kill_all(&found, Duration::from_secs(5)).is_empty());
    child.wait_blocking().unwrap();
}

#[test]
fn the_programs_name_can_not_confuse_the_parser() {
    let stat = b"12 (a) R (b) S 1 2 3 4 5 6 7 8 9 10 21 22 15 16 17 18 3 20 999 21 77 0";
    let parsed = Stat::parse(stat).unwrap();
    assert_eq!((parsed.state, parsed.start), (b'S', 999));
    assert!(Stat::parse(b"12 (a) S 1 2").is_none());
    assert!(Stat::parse(b"").is_none());
}

proptest! {
    #[test]
    fn identities_survive_their_text(pid in any::<u32>(), start in any::<u64>(), boot in any::<u128>()) {
        let text = format!("{pid}:{start}:{boot:x}");
        let parsed: ProcessId = text.parse().unwrap();
        prop_assert_eq!(parsed.to_string(), text);
    }

    #[test]
    fn any_text_is_parsed_or_refused(text in ".{0,40}") {
        let _ = text.parse::<ProcessId>();
    }
}

/// Which part of a test the re-executed program plays.
const ROLE: &str = "RAJUT_TEST_ROLE";

/// This test program again, to run one test in a process of its own.
fn again(test: &str, role: &str) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.args([
        &format!("process::tests::{test}"),
        "--exact",
        "--nocapture",
        "--test-threads=1",
    ]);
    command
        .env(ROLE, role)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn role() -> String {
    std::env::var(ROLE).unwrap_or_default()
}

/// Runs to its end; a failure inside is a failure here, and what it says is said here.
fn finish(command: &mut Command) {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    for line in text.lines().filter(|line| line.starts_with("skipped:")) {
        println!("{line}");
    }
    assert!(
        output.status.success(),
        "{text}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn orphans_are_adopted_and_collected() {
    if role() != "adopt" {
        return finish(&mut again("orphans_are_adopted_and_collected", "adopt"));
    }
    become_subreaper().unwrap();
    let mut child = spawn(shell("sleep 0.05 & exit 0"), Isolation::default()).unwrap();
    let owned = child.pid();
    let mut reaped = Vec::new();
    assert!(eventually(|| {
        reaped.extend(reap_adopted(|pid| pid == owned).unwrap());
        reaped.len() == 1
    }));
    // The one that is known was left to its owner.
    assert!(child.wait_blocking().unwrap().success());
}

#[test]
fn an_ordinary_user_gets_a_captured_workload() {
    const TEST: &str = "an_ordinary_user_gets_a_captured_workload";
    match role().as_str() {
        "inside" => rootless_inside(),
        _ if as_ordinary_user(TEST) => {
            assert!(NetNs::create().is_err());
            let isolation = Isolation {
                user: Some(UserNamespace::New),
                die_with_parent: true,
                ..Isolation::default()
            };
            let mut child = spawn(again(TEST, "inside"), isolation).unwrap();
            assert!(child.wait_blocking().unwrap().success());
        }
        _ => {}
    }
}

/// Runs the test again as a user without privileges, or says why that is not possible. `true`: this is that user, go on.
fn as_ordinary_user(test: &str) -> bool {
    const NOBODY: u32 = 65_534;
    if role().is_empty() && rustix::process::geteuid().is_root() {
        finish(again(test, "user").uid(NOBODY).gid(NOBODY));
        return false;
    }
    match probe() {
        Capability::Refused { reason } => println!("skipped: {reason}"),
        Capability::Root => panic!("an ordinary user has root's capabilities"),
        Capability::Rootless => return true,
    }
    false
}

#[tokio::test]
async fn an_ordinary_user_may_run_a_command_beside_an_unisolated_process() {
    const TEST: &str = "an_ordinary_user_may_run_a_command_beside_an_unisolated_process";
    if role().is_empty() && rustix::process::geteuid().is_root() {
        return finish(again(TEST, "user").uid(65_534).gid(65_534));
    }
    let mut neighbour = spawn(shell("exec sleep 67"), Isolation::default()).unwrap();
    let isolation = Isolation::of_process(neighbour.pid()).unwrap();
    assert!(isolation.network.is_none() && isolation.user.is_none());
    assert_eq!(output_of(shell("echo here"), isolation).await.unwrap(), "here");
    neighbour.signal(Signal::KILL).unwrap();
    neighbour.wait().await.unwrap();
}

#[test]
fn root_without_capabilities_falls_back_to_a_user_namespace() {
    const TEST: &str = "root_without_capabilities_falls_back_to_a_user_namespace";
    match role().as_str() {
        "" if rustix::process::geteuid().is_root() => {
            let isolation = Isolation {
                drop_capabilities: true,
                ..Isolation::default()
            };
            let mut child = spawn(again(TEST, "dropped"), isolation).unwrap();
            assert!(child.wait_blocking().unwrap().success());
        }
        "dropped" => assert_ne!(probe(), Capability::Root),
        _ => println!("skipped: only root has capabilities to lose"),
    }
}

#[test]
fn a_refusal_names_the_setting_that_refuses() {
    const TEST: &str = "a_refusal_names_the_setting_that_refuses";
    if role() == "limited" {
        // These settings belong to the user namespace, so that nobody else is affected.
        let limit = |name: &str| std::fs::write(format!("/proc/sys/user/{name}"), "0").unwrap();
        limit("max_net_namespaces");
        let Capability::Refused { reason } = probe() else {
            panic!("not refused")
        };
        assert!(reason.contains("user.max_net_namespaces"), "{reason}");
        // What stops root is told even if user namespaces are refused as well.
        limit("max_user_namespaces");
        assert_eq!(probe(), Capability::Refused { reason });
        return;
    }
    let isolation = Isolation {
        user: Some(UserNamespace::New),
        ..Isolation::default()
    };
    match spawn(again(TEST, "limited"), isolation) {
        Ok(mut child) => assert!(child.wait_blocking().unwrap().success()),
        Err(error) => println!("skipped: {error}"),
    }
}

/// Root of a user namespace, nobody outside: everything that `rajut up` does with a workload's network.
fn rootless_inside() {
    assert!(rustix::process::geteuid().is_root());
    assert_eq!(probe(), Capability::Root);
    let holder = crate::linux::netns::NamespaceHolder::spawn().unwrap();
    let made = NetNs::open(&holder.path()).unwrap();
    set_up_workload(
        &made,
        WorkloadNetwork {
            v4: [10, 99, 0, 8].into(),
            v6: None,
        },
    )
    .unwrap();
    install_in(&made, &CaptureRules::local(vec![[10, 99, 0, 8].into()])).unwrap();
    let hosts = TempFile::new("hosts", "10.96.0.10 encounter-service\n");
    let isolation = Isolation {
        network: Some(made.clone()),
        mounts: Mounts::Private(vec![FileMount {
            source: hosts.0.clone(),
            target: "/etc/hosts".into(),
            required: true,
        }]),
        drop_capabilities: true,
        die_with_parent: true,
        new_session: true,
        ..Isolation::default()
    };
    let mut text = String::new();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let listener = in_namespace(&made, || {
            let address = "127.0.0.1:15001".parse().unwrap();
            crate::socket::listen(address, &crate::socket::ListenOptions::default()).unwrap()
        });
        let listener = crate::socket::TcpListener::from_std(listener.unwrap()).unwrap();
        let thread = crate::linux::netns::NamespaceThread::start(&made, 4).unwrap();
        let connector =
            crate::linux::netns::NamespaceConnector::new(thread, crate::socket::ConnectOptions::default());
        let to = "10.96.0.10:80".parse().unwrap();
        for _ in 0..20 {
            let (client, accepted) = tokio::join!(connector.connect(to), listener.accept());
            client.unwrap();
            assert_eq!(
                crate::socket::original_destination(&accepted.unwrap().0).unwrap(),
                to
            );
        }
        // The host's own loopback is still there for the sidecar.
        let outside = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        std::net::TcpStream::connect(outside.local_addr().unwrap()).unwrap();
        text = output_of(shell("cat /etc/hosts; readlink /proc/self/ns/net"), isolation)
            .await
            .unwrap();
    });
    let expected = in_namespace(&made, || std::fs::read_link("/proc/thread-self/ns/net").unwrap()).unwrap();
    assert_eq!(
        text,
        format!("10.96.0.10 encounter-service\n{}", expected.display())
    );
}
