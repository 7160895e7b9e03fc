//! These run in real namespaces; without the right to make them they say so and pass.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use super::*;
use crate::netns::*;
use crate::socket::{ConnectOptions, ListenOptions, listen};

/// A new namespace, or `None` after saying why not.
pub(crate) fn namespace() -> Option<NetNs> {
    match NetNs::create() {
        Ok(namespace) => Some(namespace),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            println!("skipped: network namespaces are refused: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn interfaces() -> usize {
    std::fs::read_to_string("/proc/thread-self/net/dev")
        .unwrap()
        .lines()
        .count()
        - 2
}

#[test]
fn a_new_namespace_is_another_one_and_the_caller_stays() {
    let before = NetNs::current().unwrap();
    let Some(made) = namespace() else { return };
    assert_ne!(made.id(), before.id());
    assert_eq!(NetNs::current().unwrap().id(), before.id());
    let inside = in_namespace(&made, || (NetNs::current().unwrap().id(), interfaces())).unwrap();
    assert_eq!(inside, (made.id(), 1));
}

#[test]
fn only_namespaces_can_be_opened() {
    assert_eq!(
        NetNs::open(Path::new("/proc/self/status")).unwrap_err().kind(),
        io::ErrorKind::InvalidInput
    );
    assert_eq!(
        NetNs::open(Path::new("/no/such")).unwrap_err().kind(),
        io::ErrorKind::NotFound
    );
}

#[test]
fn a_holder_is_openable_by_pid_and_ends_with_its_owner() {
    if namespace().is_none() {
        return;
    }
    let holder = NamespaceHolder::spawn().unwrap();
    let opened = NetNs::open(&holder.path()).unwrap();
    assert_eq!(opened.id(), holder.namespace().id());
    assert_ne!(opened.id(), NetNs::current().unwrap().id());
    let pid = holder.pid();
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap();
    assert_eq!(name.trim(), "rajut-netns");
    assert_eq!(
        std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count(),
        1,
        "descriptors leaked"
    );
    drop(holder);
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
    // The open descriptor outlives the process.
    in_namespace(&opened, || ()).unwrap();
}

#[tokio::test]
async fn a_thread_inside_makes_sockets_that_are_used_outside() {
    let Some(made) = namespace() else { return };
    let thread = NamespaceThread::start(&made, 4).unwrap();
    let inside = thread
        .run(|| NetNs::current().map(|ns| ns.id()))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(inside, made.id());
    // The port is free in both namespaces: the sockets do not collide.
    let address: SocketAddr = "0.0.0.0:0".parse().unwrap();
    let there = thread
        .run(move || listen(address, &ListenOptions::default()))
        .await
        .unwrap()
        .unwrap();
    let same = SocketAddr::new("0.0.0.0".parse().unwrap(), there.local_addr().unwrap().port());
    if let Err(error) = listen(same, &ListenOptions::default()) {
        assert_ne!(
            error.kind(),
            io::ErrorKind::AddrInUse,
            "both sockets are in one namespace"
        );
    }
    // Loopback is down in a new namespace: connecting from inside can't reach the host's loopback.
    let host = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let connector = NamespaceConnector::new(
        thread.clone(),
        ConnectOptions {
            timeout: Some(Duration::from_secs(2)),
            ..ConnectOptions::default()
        },
    );
    let error = connector.connect(host.local_addr().unwrap()).await.unwrap_err();
    assert!(
        matches!(
            error.kind(),
            io::ErrorKind::NetworkUnreachable | io::ErrorKind::AddrNotAvailable
        ),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_panicking_job_is_reported_and_ends_the_thread() {
    let Some(made) = namespace() else { return };
    let thread = NamespaceThread::start(&made, 1).unwrap();
    assert_eq!(
        thread.run(|| panic!("as intended")).await,
        Err::<(), _>(NamespaceGone)
    );
    assert_eq!(thread.run(|| 1).await, Err(NamespaceGone));
}

#[test]
fn jobs_run_in_order_and_wait_for_room() {
    let Some(made) = namespace() else { return };
    let thread = NamespaceThread::start(&made, 1).unwrap();
    let results: Vec<_> = (0..50).map(|n| thread.run_blocking(move || n).unwrap()).collect();
    assert_eq!(results, (0..50).collect::<Vec<_>>());
}

#[test]
fn a_process_with_threads_can_not_enter_a_user_namespace() {
    // The test harness has at least two threads here.
    assert!(matches!(unshare_user(), Err(UserNamespaceError::Threads { threads }) if threads > 1));
}
