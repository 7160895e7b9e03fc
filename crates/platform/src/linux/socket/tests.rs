use std::net::{IpAddr, Ipv4Addr};

use socket2::SockRef;

use super::*;
use crate::socket::tests::loopback;
use crate::socket::{ConnectOptions, Keepalive, TcpListener, connect, reserve_port};

#[tokio::test]
async fn freebind_binds_an_address_that_does_not_exist() {
    let absent: SocketAddr = "192.0.2.77:0".parse().unwrap();
    let plain = listen(absent, &ListenOptions::default()).unwrap_err();
    assert_eq!(plain.kind(), io::ErrorKind::AddrNotAvailable);
    listen(
        absent,
        &ListenOptions {
            freebind: true,
            ..ListenOptions::default()
        },
    )
    .unwrap();
}

#[tokio::test]
async fn transparent_listening_needs_a_capability_and_nothing_else() {
    match listen(
        "192.0.2.77:0".parse().unwrap(),
        &ListenOptions {
            transparent: true,
            ..ListenOptions::default()
        },
    ) {
        Ok(listener) => assert!(SockRef::from(&listener).ip_transparent_v4().unwrap()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            println!("skipped: IP_TRANSPARENT needs CAP_NET_ADMIN");
        }
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn connecting_applies_source_keepalive_and_user_timeout() {
    let listener = TcpListener::from_std(listen(loopback(), &ListenOptions::default()).unwrap()).unwrap();
    let options = ConnectOptions {
        source: Some("127.0.0.9:0".parse().unwrap()),
        keepalive: Some(Keepalive {
            time: Some(Duration::from_millis(300)),
            interval: Some(Duration::from_secs(7)),
            probes: Some(4),
        }),
        user_timeout: Some(Duration::from_millis(2_500)),
        timeout: Some(Duration::from_secs(5)),
        ..ConnectOptions::default()
    };
    let address = listener.local_addr().unwrap();
    let (client, accepted) = tokio::join!(connect(address, &options), async { listener.accept().await });
    let (client, (_server, peer)) = (client.unwrap(), accepted.unwrap());
    assert_eq!(peer.ip(), IpAddr::V4(Ipv4Addr::new(127, 0, 0, 9)));
    let socket = SockRef::from(&client);
    // 300 ms is below what the kernel can count.
    assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(1));
    assert_eq!(socket.tcp_keepalive_interval().unwrap(), Duration::from_secs(7));
    assert_eq!(socket.tcp_keepalive_retries().unwrap(), 4);
    assert_eq!(
        socket.tcp_user_timeout().unwrap(),
        Some(Duration::from_millis(2_500))
    );
}

#[test]
fn a_reserved_port_is_free_for_servers_and_for_nobody_else() {
    let reserved = reserve_port(IpAddr::V4(Ipv4Addr::LOCALHOST), 0).unwrap();
    let address = reserved.address();
    // A bind without SO_REUSEADDR is refused…
    let plain = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    assert_eq!(
        plain.bind(&address.into()).unwrap_err().kind(),
        io::ErrorKind::AddrInUse
    );
    // …a server's isn't, even while the reservation stands.
    let server = listen(address, &ListenOptions::default()).unwrap();
    drop(server);
    assert_eq!(reserved.release(), address.port());
}
