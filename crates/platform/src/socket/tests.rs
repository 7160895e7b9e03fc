//! Every option is read back from the kernel, every state is produced by a real peer.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

pub(crate) fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// A connected pair over loopback: (client, server).
async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::from_std(listen(loopback(), &ListenOptions::default()).unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let (client, server) = tokio::join!(dial(address), async { listener.accept().await });
    (client.unwrap(), server.unwrap().0)
}

/// Connects with the default options.
async fn dial(address: SocketAddr) -> io::Result<TcpStream> {
    connect(address, &ConnectOptions::default()).await
}

/// Polls a condition for at most five seconds.
async fn eventually(mut condition: impl FnMut() -> bool) -> bool {
    for _ in 0..500 {
        if condition() {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    false
}

#[tokio::test]
async fn listeners_share_a_port_only_with_reuse_port() {
    let shared = ListenOptions {
        reuse_port: true,
        ..ListenOptions::default()
    };
    let first = listen(loopback(), &shared).unwrap();
    let address = first.local_addr().unwrap();
    let second = listen(address, &shared).unwrap();
    assert!(SockRef::from(&second).reuse_port().unwrap());
    let refused = listen(address, &ListenOptions::default()).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
}

#[tokio::test]
async fn accepted_connections_inherit_no_delay_and_keepalive() {
    let options = ListenOptions {
        keepalive: Some(Keepalive {
            time: Some(Duration::from_secs(33)),
            ..Keepalive::default()
        }),
        ..ListenOptions::default()
    };
    let listener = TcpListener::from_std(listen(loopback(), &options).unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let (client, server) = tokio::join!(dial(address), async { listener.accept().await });
    let (server, _) = server.unwrap();
    assert!(client.unwrap().nodelay().unwrap());
    assert!(server.nodelay().unwrap());
    assert!(SockRef::from(&server).keepalive().unwrap());
    assert_eq!(
        SockRef::from(&server).tcp_keepalive_time().unwrap(),
        Duration::from_secs(33)
    );
}

#[tokio::test]
async fn a_refused_and_a_hanging_connection_have_their_own_errors() {
    let reserved = reserve_port(IpAddr::V4(Ipv4Addr::LOCALHOST), 0).unwrap();
    let refused = connect(reserved.address(), &ConnectOptions::default())
        .await
        .unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);

    // A listener whose queue is full drops further handshakes: the connection hangs.
    let full = listen(
        loopback(),
        &ListenOptions {
            backlog: 0,
            ..ListenOptions::default()
        },
    )
    .unwrap();
    let address = full.local_addr().unwrap();
    let hurried = ConnectOptions {
        timeout: Some(Duration::from_millis(200)),
        ..ConnectOptions::default()
    };
    let mut kept = Vec::new();
    let error = loop {
        match connect(address, &hurried).await {
            Ok(stream) => kept.push(stream),
            Err(error) => break error,
        }
        assert!(kept.len() < 64, "the queue never fills");
    };
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
}

#[tokio::test]
async fn an_unredirected_connection_has_no_original_destination() {
    let (_client, server) = pair().await;
    assert_eq!(
        original_destination(&server).unwrap_err().kind(),
        io::ErrorKind::NotFound
    );
}

#[tokio::test]
async fn idle_state_tells_open_unread_closed_and_broken_apart() {
    let (client, mut server) = pair().await;
    assert_eq!(idle_state(&client), IdleState::Open);
    server.write_all(b"HTTP/1.1 408 ").await.unwrap();
    assert!(eventually(|| idle_state(&client) == IdleState::Unread).await);

    let (client, server) = pair().await;
    drop(server);
    assert!(eventually(|| idle_state(&client) == IdleState::Closed).await);

    let (client, server) = pair().await;
    set_reset_on_close(&server).unwrap();
    drop(server);
    assert!(eventually(|| idle_state(&client) == IdleState::Broken).await);
}

#[tokio::test]
async fn peeking_waits_for_more_and_consumes_nothing() {
    let (mut client, mut server) = pair().await;
    let mut buffer = [0_u8; 32];
    assert_eq!(
        try_peek(&server, &mut buffer).unwrap_err().kind(),
        io::ErrorKind::WouldBlock
    );
    client.write_all(b"PRI").await.unwrap();
    assert_eq!(
        peek_more(&server, &mut buffer, 0).await.unwrap(),
        Peeked {
            length: 3,
            finished: false
        }
    );
    // With the same three bytes it has to wait, not to spin or to return.
    let waiting = tokio::time::timeout(Duration::from_millis(50), peek_more(&server, &mut buffer, 3)).await;
    assert!(waiting.is_err());
    let (peeked, written) = tokio::join!(peek_more(&server, &mut buffer, 3), client.write_all(b" * HTTP"));
    written.unwrap();
    let peeked = peeked.unwrap();
    assert!(peeked.length > 3 && !peeked.finished);
    let mut read = [0_u8; 10];
    server.read_exact(&mut read).await.unwrap();
    assert_eq!(&read, b"PRI * HTTP");
}

#[tokio::test]
async fn peeking_ends_when_the_peer_has_finished() {
    let (mut client, server) = pair().await;
    client.write_all(b"ab").await.unwrap();
    let mut buffer = [0_u8; 8];
    assert_eq!(peek_more(&server, &mut buffer, 0).await.unwrap().length, 2);
    let (peeked, closed) = tokio::join!(peek_more(&server, &mut buffer, 2), client.shutdown());
    closed.unwrap();
    assert_eq!(
        peeked.unwrap(),
        Peeked {
            length: 2,
            finished: true
        }
    );
    let (client, server) = pair().await;
    drop(client);
    assert_eq!(
        peek_more(&server, &mut buffer, 0).await.unwrap(),
        Peeked {
            length: 0,
            finished: true
        }
    );
}

#[tokio::test]
async fn unix_peers_are_known_and_stale_sockets_are_replaced() {
    let folder = tempdir();
    let path = folder.0.join("control.sock");
    let listener = listen_unix(&path, 0o600).unwrap();
    assert_eq!(
        listen_unix(&path, 0o600).unwrap_err().kind(),
        io::ErrorKind::AddrInUse
    );
    drop(listener);
    let listener = UnixListener::from_std(listen_unix(&path, 0o600).unwrap()).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let (client, accepted) = tokio::join!(UnixStream::connect(&path), listener.accept());
    let _client = client.unwrap();
    let credentials = peer_credentials(&accepted.unwrap().0).unwrap();
    assert_eq!(credentials.pid, i32::try_from(std::process::id()).ok());
    assert_eq!(credentials.uid, rustix::process::geteuid().as_raw());
    let file = folder.0.join("file");
    std::fs::write(&file, b"precious").unwrap();
    assert_eq!(
        listen_unix(&file, 0o600).unwrap_err().kind(),
        io::ErrorKind::AlreadyExists
    );
    assert_eq!(std::fs::read(&file).unwrap(), b"precious");
}

#[tokio::test]
async fn a_listener_travels_over_a_unix_socket() {
    let (here, there) = UnixStream::pair().unwrap();
    let listener = listen(loopback(), &ListenOptions::default()).unwrap();
    let address = listener.local_addr().unwrap();
    assert_eq!(
        send_fds(&here, b"listeners", &[listener.as_fd(), here.as_fd()])
            .await
            .unwrap(),
        9
    );
    drop(listener);
    let mut buffer = [0_u8; 64];
    let (length, mut fds) = receive_fds(&there, &mut buffer).await.unwrap();
    assert_eq!((&buffer[..length], fds.len()), (&b"listeners"[..], 2));
    for fd in &fds {
        assert!(
            rustix::io::fcntl_getfd(fd)
                .unwrap()
                .contains(rustix::io::FdFlags::CLOEXEC)
        );
    }
    let received = TcpListener::from_std(std::net::TcpListener::from(fds.swap_remove(0))).unwrap();
    let (client, accepted) = tokio::join!(dial(address), received.accept());
    client.unwrap();
    accepted.unwrap();
    drop((here, fds));
    assert_eq!(receive_fds(&there, &mut buffer).await.unwrap().0, 0);
}

#[test]
fn too_many_descriptors_are_refused_on_both_ends() {
    let (here, there) = std::os::unix::net::UnixStream::pair().unwrap();
    let many = vec![here.as_fd(); MAX_PASSED_FDS + 1];
    assert_eq!(
        send_fds_blocking(&here, b"x", &many).unwrap_err().kind(),
        io::ErrorKind::InvalidInput
    );
    assert_eq!(
        send_fds_blocking(&here, b"", &many[..1]).unwrap_err().kind(),
        io::ErrorKind::InvalidInput
    );
    assert_eq!(
        send_fds_blocking(&here, b"x", &many[..MAX_PASSED_FDS]).unwrap(),
        1
    );
    let (length, fds) = receive_fds_blocking(&there, &mut [0_u8; 4]).unwrap();
    assert_eq!((length, fds.len()), (1, MAX_PASSED_FDS));
}

#[test]
fn accept_errors_are_sorted() {
    let fault = |errno| accept_fault(&io::Error::from_raw_os_error(errno));
    assert_eq!(fault(libc::ECONNABORTED), AcceptFault::Connection);
    assert_eq!(fault(libc::EMFILE), AcceptFault::Exhausted);
    assert_eq!(fault(libc::EINVAL), AcceptFault::Listener);
}

/// A folder of this test's own, removed at its end.
struct TempDir(std::path::PathBuf);

fn tempdir() -> TempDir {
    let path = std::env::temp_dir().join(format!("rajut-socket-{}", std::process::id()));
    std::fs::create_dir_all(&path).unwrap();
    TempDir(path)
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
