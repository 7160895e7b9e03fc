use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr};

use super::*;
use crate::socket::tests::loopback;
use crate::socket::{ConnectOptions, Family, reserve_port};

#[test]
fn workers_accept_from_one_queue() {
    let all = listen_shared(loopback(), &ListenOptions::default(), 3).unwrap();
    assert_eq!(all.len(), 3);
    let address = all[0].local_addr().unwrap();
    for listener in &all {
        assert_eq!(listener.local_addr().unwrap(), address);
        listener.set_nonblocking(false).unwrap();
        let _client = std::net::TcpStream::connect(address).unwrap();
        listener.accept().unwrap();
    }
}

#[test]
fn a_reserved_port_is_free_for_everybody() {
    let reserved = reserve_port(IpAddr::V4(Ipv4Addr::LOCALHOST), 0).unwrap();
    let address = reserved.address();
    listen(address, &ListenOptions::default()).unwrap();
    assert_eq!(reserved.release(), address.port());
}

#[test]
fn what_only_linux_has_is_refused_by_name() {
    let refused = |options: ConnectOptions| {
        let error = options.socket(Family::V4).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        error.to_string()
    };
    assert!(
        refused(ConnectOptions {
            mark: Some(1),
            ..ConnectOptions::default()
        })
        .contains("SO_MARK")
    );
    assert!(
        refused(ConnectOptions {
            user_timeout: Some(Duration::from_secs(1)),
            ..ConnectOptions::default()
        })
        .contains("TCP_USER_TIMEOUT")
    );
    let options = ListenOptions {
        freebind: true,
        ..ListenOptions::default()
    };
    let error = listen(loopback(), &options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}
