//! The rules as text, and what they do to real packets in a real namespace.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use ipnet::IpNet;

use super::*;
use crate::linux::netns::tests::namespace;
use crate::network::{WorkloadNetwork, set_up_workload};
use crate::nftables::*;
use crate::socket::{ListenOptions, listen, original_destination};

const OWN: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 7);

/// A workload's namespace with rules, or `None` after saying why not.
fn captured(rules: &CaptureRules) -> Option<NetNs> {
    let made = namespace()?;
    set_up_workload(
        &made,
        WorkloadNetwork {
            v4: OWN,
            v6: "fd00:99::7".parse().ok(),
        },
    )
    .unwrap();
    match install_in(&made, rules) {
        Ok(installed) => {
            if let Some(Err(error)) = installed.ipv6 {
                println!("skipped: IPv6 rules: {error}");
            }
            Some(made)
        }
        Err(NftablesError::Refused { reason, source })
            if matches!(
                source.raw_os_error(),
                Some(libc::EPERM | libc::ENOENT | libc::EOPNOTSUPP)
            ) =>
        {
            println!("skipped: {reason}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn local() -> CaptureRules {
    CaptureRules::local(vec![OWN.into(), "fd00:99::7".parse().unwrap()])
}

/// Connects from the calling thread and gives what the listener says that the client dialled.
fn dialled(listener: &TcpListener, to: &str) -> io::Result<SocketAddr> {
    let client = TcpStream::connect_timeout(&to.parse().unwrap(), Duration::from_secs(2))?;
    // The listener is non-blocking; the handshake is complete, so the connection is there.
    let (server, _) = listener.accept()?;
    drop(client);
    server.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    let _inside = runtime.enter();
    original_destination(&crate::socket::TcpStream::from_std(server)?)
}

fn listener(address: &str) -> TcpListener {
    listen(address.parse().unwrap(), &ListenOptions::default()).unwrap()
}

#[test]
fn outbound_tcp_reaches_the_sidecar_which_learns_the_destination() {
    let Some(made) = captured(&local()) else { return };
    in_namespace(&made, || {
        let sidecar = listener("127.0.0.1:15001");
        for to in ["10.96.0.10:80", "198.51.100.7:443", "1.1.1.1:15001"] {
            assert_eq!(dialled(&sidecar, to).unwrap(), to.parse().unwrap());
        }
        // The workload's own listeners stay its own.
        for own in ["127.0.0.1:8080", "10.99.0.7:8081", "127.0.0.53:8082"] {
            let application = listener(own);
            let error = dialled(&application, own).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::NotFound, "{own} was redirected");
        }
    })
    .unwrap();
}

#[test]
fn bytes_flow_both_ways_through_a_redirection() {
    let Some(made) = captured(&local()) else { return };
    in_namespace(&made, || {
        let sidecar = listener("127.0.0.1:15001");
        let mut client = TcpStream::connect("10.96.0.10:80").unwrap();
        let (mut server, _) = sidecar.accept().unwrap();
        server.set_nonblocking(false).unwrap();
        client.write_all(b"ping").unwrap();
        let mut buffer = [0; 4];
        server.read_exact(&mut buffer).unwrap();
        server.write_all(b"pong").unwrap();
        client.read_exact(&mut buffer).unwrap();
        assert_eq!(&buffer, b"pong");
    })
    .unwrap();
}

#[test]
fn loopback_addresses_of_other_workloads_are_captured_before_local_sockets() {
    let rules = CaptureRules {
        own_addresses: vec![[127, 10, 0, 7].into()],
        capture_loopback: vec!["127.10.0.0/16".parse().unwrap()],
        ..local()
    };
    let Some(made) = namespace() else { return };
    set_up_workload(
        &made,
        WorkloadNetwork {
            v4: [127, 10, 0, 7].into(),
            v6: None,
        },
    )
    .unwrap();
    if let Err(error) = install_in(&made, &rules) {
        println!("skipped: {error}");
        return;
    }
    in_namespace(&made, || {
        let sidecar = listener("127.0.0.1:15001");
        // Somebody listens on that very address; the redirection comes first.
        let _decoy = listener("127.10.0.9:80");
        assert_eq!(
            dialled(&sidecar, "127.10.0.9:80").unwrap(),
            "127.10.0.9:80".parse().unwrap()
        );
        let own = listener("127.10.0.7:80");
        assert_eq!(
            dialled(&own, "127.10.0.7:80").unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
        // And with such an address as the source, other destinations work as well.
        assert_eq!(
            dialled(&sidecar, "10.96.0.10:80").unwrap(),
            "10.96.0.10:80".parse().unwrap()
        );
    })
    .unwrap();
}

/// Asks over UDP and gives the answer, whose source must be the address that was asked.
fn ask(to: &str) -> io::Result<Vec<u8>> {
    let client = UdpSocket::bind("0.0.0.0:0")?;
    client.set_read_timeout(Some(Duration::from_secs(2)))?;
    client.connect(to)?;
    client.send(b"question")?;
    let mut buffer = [0; 64];
    let length = client.recv(&mut buffer)?;
    Ok(buffer[..length].to_vec())
}

#[test]
fn dns_reaches_the_sidecar_and_no_other_udp_leaves() {
    let Some(made) = captured(&local()) else { return };
    in_namespace(&made, || {
        let dns = UdpSocket::bind("127.0.0.1:15053").unwrap();
        dns.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let server = std::thread::spawn({
            // This thread is inside the namespace, its children are too; the socket would be anyway.
            move || {
                for _ in 0..3 {
                    let mut buffer = [0; 64];
                    let (length, from) = dns.recv_from(&mut buffer).unwrap();
                    assert_eq!(&buffer[..length], b"question");
                    dns.send_to(b"answer", from).unwrap();
                }
            }
        });
        for resolver in ["8.8.8.8:53", "127.0.0.53:53", "10.99.0.7:53"] {
            assert_eq!(ask(resolver).unwrap(), b"answer", "{resolver}");
        }
        server.join().unwrap();
        for to in ["8.8.8.8:54", "198.51.100.9:443"] {
            // The rejection meets the packet before it is sent, so that `send` itself fails, with EPERM.
            assert_eq!(
                ask(to).unwrap_err().kind(),
                io::ErrorKind::PermissionDenied,
                "{to}"
            );
        }
        let tcp = listener("127.0.0.1:15053");
        assert_eq!(
            dialled(&tcp, "8.8.8.8:53").unwrap(),
            "8.8.8.8:53".parse().unwrap()
        );
    })
    .unwrap();
}

#[test]
fn exclusions_are_left_alone_and_isolated() {
    let rules = CaptureRules {
        exclude_outbound: vec!["192.0.2.0/25".parse().unwrap()],
        exclude_outbound_ports: vec![9999],
        ..local()
    };
    let Some(made) = captured(&rules) else { return };
    in_namespace(&made, || {
        let sidecar = listener("127.0.0.1:15001");
        // Nothing would take them out of the namespace: refused at once instead of hanging.
        for to in ["192.0.2.1:80", "192.0.2.127:80", "198.51.100.1:9999"] {
            assert_eq!(
                dialled(&sidecar, to).unwrap_err().kind(),
                io::ErrorKind::ConnectionRefused,
                "{to}"
            );
        }
        for to in ["192.0.2.128:80", "198.51.100.1:9998"] {
            assert_eq!(dialled(&sidecar, to).unwrap(), to.parse().unwrap());
        }
    })
    .unwrap();
}

#[test]
fn only_included_ranges_are_captured() {
    let rules = CaptureRules {
        include_outbound: vec!["10.96.0.0/12".parse().unwrap()],
        ..local()
    };
    let Some(made) = captured(&rules) else { return };
    in_namespace(&made, || {
        let sidecar = listener("127.0.0.1:15001");
        assert_eq!(
            dialled(&sidecar, "10.111.255.255:80").unwrap(),
            "10.111.255.255:80".parse().unwrap()
        );
        let outside = dialled(&sidecar, "10.112.0.0:80").unwrap_err();
        assert_eq!(outside.kind(), io::ErrorKind::ConnectionRefused);
    })
    .unwrap();
}

#[test]
fn ipv6_is_captured_where_it_exists() {
    let Some(made) = captured(&CaptureRules {
        ipv6: true,
        ..local()
    }) else {
        return;
    };
    in_namespace(&made, || {
        let Ok(sidecar) = listen("[::1]:15001".parse().unwrap(), &ListenOptions::default()) else {
            println!("skipped: no IPv6 here");
            return;
        };
        assert_eq!(
            dialled(&sidecar, "[2001:db8::5]:80").unwrap(),
            "[2001:db8::5]:80".parse().unwrap()
        );
        let own = listener("[fd00:99::7]:80");
        assert_eq!(
            dialled(&own, "[fd00:99::7]:80").unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
    })
    .unwrap();
}

#[test]
fn without_ipv6_capture_an_isolated_workload_is_refused_ipv6() {
    let Some(made) = captured(&local()) else { return };
    in_namespace(&made, || {
        let client = TcpStream::connect_timeout(&"[2001:db8::5]:80".parse().unwrap(), Duration::from_secs(2));
        let kind = client.unwrap_err().kind();
        assert!(
            matches!(
                kind,
                io::ErrorKind::ConnectionRefused | io::ErrorKind::NetworkUnreachable
            ),
            "{kind:?}"
        );
    })
    .unwrap();
}

#[test]
fn the_sidecars_own_user_is_exempt() {
    // The test runs as this user, so it plays the sidecar in a pod.
    let me = rustix::process::geteuid().as_raw();
    let rules = CaptureRules {
        exempt_uid: Some(me),
        exempt_gid: None,
        ..CaptureRules::kubernetes(vec![])
    };
    let Some(made) = captured(&rules) else { return };
    in_namespace(&made, || {
        let inbound = listener("0.0.0.0:15006");
        // To its own workload through loopback but not to 127.0.0.1: an arrival.
        assert_eq!(
            dialled(&inbound, "10.99.0.7:80").unwrap(),
            "10.99.0.7:80".parse().unwrap()
        );
        // The tunnel's port and 127.0.0.1 are not.
        for to in ["10.99.0.7:15008", "127.0.0.1:8080"] {
            let plain = listener(to);
            assert_eq!(
                dialled(&plain, to).unwrap_err().kind(),
                io::ErrorKind::NotFound,
                "{to}"
            );
        }
    })
    .unwrap();
}

#[test]
fn installing_again_replaces_and_removing_removes() {
    let Some(made) = captured(&CaptureRules {
        outbound_port: 15101,
        ..local()
    }) else {
        return;
    };
    install_in(&made, &local()).unwrap();
    in_namespace(&made, || {
        let sidecar = listener("127.0.0.1:15001");
        assert_eq!(
            dialled(&sidecar, "10.96.0.10:80").unwrap(),
            "10.96.0.10:80".parse().unwrap()
        );
        remove().unwrap();
        remove().unwrap();
        let error = TcpStream::connect_timeout(&"10.96.0.10:80".parse().unwrap(), Duration::from_millis(300));
        assert!(error.is_err(), "still redirected");
    })
    .unwrap();
}

#[test]
fn impossible_rules_are_refused_before_the_kernel_sees_them() {
    let zero = CaptureRules {
        dns_port: Some(0),
        ..CaptureRules::default()
    };
    assert!(matches!(
        zero.ruleset(),
        Err(NftablesError::PortZero { field: "dns_port" })
    ));
    let many = CaptureRules {
        exclude_outbound_ports: vec![1; MAX_ENTRIES + 1],
        ..CaptureRules::default()
    };
    assert!(matches!(
        many.ruleset(),
        Err(NftablesError::TooMany {
            list: "exclude_outbound_ports",
            entries: 129
        })
    ));
}

#[test]
fn the_longest_allowed_lists_fit_one_transaction() {
    let rules = CaptureRules {
        exclude_outbound_ports: (1000..).take(MAX_ENTRIES).collect(),
        exclude_outbound: (0..128)
            .map(|n| IpNet::new([10, n, 0, 0].into(), 17).unwrap())
            .collect(),
        capture_loopback: (0..128)
            .map(|n| IpNet::new([127, 9, n, 0].into(), 24).unwrap())
            .collect(),
        ..local()
    };
    let Some(made) = captured(&rules) else { return };
    in_namespace(&made, || {
        let sidecar = listener("127.0.0.1:15001");
        assert_eq!(
            dialled(&sidecar, "127.9.127.1:80").unwrap(),
            "127.9.127.1:80".parse().unwrap()
        );
    })
    .unwrap();
}

#[test]
fn the_rules_read_like_nft() {
    let rules = CaptureRules {
        exclude_outbound_ports: vec![22],
        own_addresses: vec![OWN.into()],
        dns_servers: vec![[10, 96, 0, 10].into()],
        exempt_gid: None,
        ipv6: false,
        ..CaptureRules::kubernetes(vec![])
    };
    assert_eq!(
        rules.ruleset().unwrap().to_string().replace('\t', "  "),
        "table ip rajut {
  chain capture-outbound {
    type nat hook output priority -100; policy accept;
    ip saddr 127.0.0.6 oif \"lo\" accept
    meta l4proto tcp th dport != 15008 oif \"lo\" ip daddr != 127.0.0.1/32 meta skuid 1337 redirect to :15006
    meta skuid 1337 accept
    meta l4proto tcp th dport 22 accept
    meta l4proto udp th dport 53 ip daddr 10.96.0.10/32 redirect to :15053
    meta l4proto tcp th dport 53 ip daddr 10.96.0.10/32 redirect to :15053
    ip daddr 10.99.0.7/32 accept
    ip daddr 127.0.0.0/8 accept
    meta l4proto tcp redirect to :15001
  }
  chain capture-inbound {
    type nat hook prerouting priority -100; policy accept;
    meta l4proto tcp th dport 15008 accept
    meta l4proto tcp th dport 15020 accept
    meta l4proto tcp th dport 15021 accept
    meta l4proto tcp th dport 15090 accept
    meta l4proto tcp redirect to :15006
  }
}
"
    );
}

#[test]
fn the_longest_allowed_lists_fit_an_ordinary_users_send_buffer() {
    let many = |a: u8| {
        (0..128)
            .map(|n| IpNet::new([a, n, 0, 0].into(), 17).unwrap())
            .collect::<Vec<_>>()
    };
    let rules = CaptureRules {
        dns_servers: (0..128).map(|n| [10, 0, 0, n].into()).collect(),
        include_inbound_ports: Some((1..).take(MAX_ENTRIES).collect()),
        exclude_inbound_ports: (1..).take(MAX_ENTRIES).collect(),
        own_addresses: (0..128).map(|n| [10, 1, 0, n].into()).collect(),
        capture_loopback: many(127),
        include_outbound: many(10),
        exclude_outbound: many(11),
        exclude_outbound_ports: (1..).take(MAX_ENTRIES).collect(),
        isolate: true,
        ..CaptureRules::kubernetes(vec![])
    };
    let ruleset = rules.ruleset().unwrap();
    let bytes = encode::replace_table(&ruleset.tables[0]).unwrap().bytes.len();
    println!("{bytes} bytes");
    // Linux: twice net.core.wmem_max, whose default is 212,992.
    assert!(bytes < 2 * 212_992, "{bytes} bytes");
}

#[test]
fn the_nft_program_agrees_where_there_is_one() {
    let Some(made) = captured(&CaptureRules {
        ipv6: true,
        ..CaptureRules::kubernetes(vec![OWN.into()])
    }) else {
        return;
    };
    in_namespace(&made, || {
        let Ok(listed) = std::process::Command::new("nft")
            .args(["list", "ruleset"])
            .output()
        else {
            println!("skipped: no nft program here");
            return;
        };
        let text = String::from_utf8_lossy(&listed.stdout);
        for part in [
            "table ip rajut",
            "chain capture-outbound",
            "redirect to :15001",
            "skuid 1337",
        ] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
    })
    .unwrap();
}
