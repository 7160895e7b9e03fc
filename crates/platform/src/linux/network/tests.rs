//! Each request is judged by what the kernel then does.

use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};

use std::net::Ipv4Addr;

use super::*;
use crate::linux::netns::tests::namespace;
use crate::network::*;

#[test]
fn a_workload_reaches_itself_and_has_its_address_as_source() {
    let Some(made) = namespace() else { return };
    let network = WorkloadNetwork {
        v4: Ipv4Addr::new(10, 99, 0, 7),
        v6: "fd00:99::7".parse().ok(),
    };
    let report = set_up_workload(&made, network).unwrap();
    in_namespace(&made, || {
        let listener = TcpListener::bind("10.99.0.7:80").unwrap();
        let client = TcpStream::connect("10.99.0.7:80").unwrap();
        assert_eq!(listener.accept().unwrap().1, client.local_addr().unwrap());
        // The default route chooses the source for an address that is nowhere.
        let away = UdpSocket::bind("0.0.0.0:0").unwrap();
        away.connect("198.51.100.1:9").unwrap();
        assert_eq!(away.local_addr().unwrap().ip(), IpAddr::V4(network.v4));
        match report.v6 {
            Some(Ok(())) => {
                let away = UdpSocket::bind("[::]:0").unwrap();
                away.connect("[2001:db8::1]:9".parse::<SocketAddr>().unwrap())
                    .unwrap();
                assert_eq!(away.local_addr().unwrap().ip(), IpAddr::V6(network.v6.unwrap()));
            }
            Some(Err(error)) => println!("skipped: no IPv6 here: {error}"),
            None => panic!("IPv6 was asked for"),
        }
    })
    .unwrap();
}

#[test]
fn setting_up_twice_is_the_same_as_once() {
    let Some(made) = namespace() else { return };
    let network = WorkloadNetwork {
        v4: Ipv4Addr::new(10, 99, 0, 7),
        v6: None,
    };
    set_up_workload(&made, network).unwrap();
    set_up_workload(&made, network).unwrap();
}

#[test]
fn a_refusal_says_what_was_tried() {
    let Some(made) = namespace() else { return };
    // Loopback is down: the route has no source address.
    let error = in_namespace(&made, || route_everything_to_loopback([10, 1, 2, 3].into()))
        .unwrap()
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "can't add a default route with source 10.1.2.3"
    );
}
