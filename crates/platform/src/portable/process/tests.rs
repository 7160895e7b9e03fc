#![expect(clippy::disallowed_methods, reason = "tests wait for processes of their own")]

use std::process::Command;
use std::time::Duration;

use super::*;
use crate::process::{FileMount, Mounts, Signal, SpawnError, kill_all};

#[test]
fn a_line_of_ps_becomes_a_date() {
    let seen = ps::parse("  123 Ss   Sat Nov 21 21:06:24 2026 /bin/x").unwrap();
    assert_eq!(seen.id.to_string(), "123:1795295184:0");
    for (date, seconds) in [
        ("Thu Jan  1 00:00:00 1970", 0_u64),
        ("Thu Feb 29 12:00:00 2024", 1_709_208_000),
        ("Fri Mar  1 00:00:00 2024", 1_709_251_200),
        ("Mon Mar  1 00:00:00 2100", 4_107_542_400),
    ] {
        let seen = ps::parse(&format!("7 S {date}")).unwrap();
        assert_eq!(seen.id.to_string(), format!("7:{seconds}:0"), "{date}");
    }
    for bad in [
        "",
        "x S Sat Nov 21 21:06:24 2026",
        "1 S Sat Brumaire 21 21:06:24 2026",
        "1 S Sat Nov 21 25:06:24 2026",
    ] {
        assert_eq!(ps::parse(bad), None, "{bad}");
    }
}

#[test]
fn a_process_is_known_by_pid_and_start() {
    let me = ProcessId::current().unwrap();
    assert!(me.is_alive());
    assert_eq!(me.to_string().parse::<ProcessId>().unwrap().pid(), me.pid());
    let stranger: ProcessId = format!("{}:5:0", me.pid()).parse().unwrap();
    assert!(!stranger.is_alive());
    assert!(!stranger.signal(Signal::KILL).unwrap());
}

#[tokio::test]
async fn a_child_is_waited_for_and_its_group_ends_with_it() {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "exit 3"]);
    let mut child = spawn(command, Isolation::default()).unwrap();
    assert_eq!(child.wait().await.unwrap().code(), Some(3));

    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", "sleep 100 & sleep 100"])
        .env("RAJUT_PORTABLE_TEST", std::process::id().to_string());
    let isolation = Isolation {
        new_session: true,
        die_with_parent: true,
        ..Isolation::default()
    };
    let mut child = spawn(command, isolation).unwrap();
    let marked = || processes_with_variable("RAJUT_PORTABLE_TEST", &std::process::id().to_string()).unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    // The shell and what it has started.
    while marked().len() < 3 {
        assert!(std::time::Instant::now() < deadline, "{:?}", marked());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(child.signal_group(Signal::KILL).unwrap());
    assert!(!child.wait().await.unwrap().success());
    while !marked().is_empty() {
        assert!(std::time::Instant::now() < deadline, "{:?}", marked());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn who_ignores_the_order_is_killed() {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "trap '' TERM; while :; do sleep 0.05; done"]);
    let mut child = spawn(command, Isolation::default()).unwrap();
    assert_eq!(kill_all(&[child.id()], Duration::from_millis(100)), []);
    assert!(!child.wait_blocking().unwrap().success());
}

#[test]
fn namespaces_are_refused_by_name() {
    let isolation = Isolation {
        mounts: Mounts::Private(vec![FileMount {
            source: "/a".into(),
            target: "/b".into(),
            required: false,
        }]),
        ..Isolation::default()
    };
    let error = spawn(Command::new("/bin/true"), isolation).unwrap_err();
    assert!(matches!(error, SpawnError::Unsupported(_)));
    assert_eq!(error.to_string(), "this system has no mount namespaces");
}
