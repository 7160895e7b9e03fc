use proptest::prelude::*;

use super::*;

fn net(text: &str) -> IpNet {
    text.parse().expect("a valid prefix in the test")
}

fn connection<'a>(destination: &str, name: &'a str, protocols: &'a [Text]) -> ConnectionView<'a> {
    ConnectionView {
        destination: destination.parse().expect("a valid address in the test"),
        source: "192.0.2.9:40000".parse().expect("valid"),
        server_name: Some(name).filter(|name| !name.is_empty()),
        transport: protocol(!name.is_empty()),
        application_protocols: protocols,
    }
}

fn protocol(tls: bool) -> TransportProtocol {
    if tls {
        TransportProtocol::Tls
    } else {
        TransportProtocol::RawBuffer
    }
}

fn none() -> FilterChainMatch {
    FilterChainMatch::default()
}

#[test]
fn a_more_specific_level_is_never_left_again() {
    let chains = [
        FilterChainMatch {
            prefix_ranges: vec![net("10.0.0.0/8")],
            ..none()
        },
        FilterChainMatch {
            destination_port: Some(80),
            server_names: vec!["a.example.com".into()],
            ..none()
        },
        FilterChainMatch {
            prefix_ranges: vec![net("10.1.0.0/16")],
            transport_protocol: Some(TransportProtocol::Tls),
            ..none()
        },
    ];
    let matcher = ChainMatcher::compile(&chains);
    assert_eq!(matcher.select(&connection("10.2.0.1:443", "", &[])), Some(0));
    // Port 80 has an entry, which asks for a server name: the chain for 10/8 is out of reach.
    assert_eq!(matcher.select(&connection("10.2.0.1:80", "", &[])), None);
    assert_eq!(
        matcher.select(&connection("10.2.0.1:80", "A.example.com", &[])),
        Some(1)
    );
    // 10.1/16 is more specific than 10/8 and wants TLS.
    assert_eq!(matcher.select(&connection("10.1.0.1:443", "", &[])), None);
    assert_eq!(matcher.select(&connection("10.1.0.1:443", "x", &[])), Some(2));
    assert_eq!(
        matcher.select(&connection("[::ffff:10.2.0.1]:443", "", &[])),
        Some(0)
    );
    assert_eq!(matcher.select(&connection("[2001:db8::1]:443", "", &[])), None);
}

#[test]
fn server_names_go_from_exact_to_the_longest_wildcard_to_any() {
    let named = |name: &str| FilterChainMatch {
        server_names: vec![name.into()],
        ..none()
    };
    let chains = [
        named("a.b.example.com"),
        named("*.example.com"),
        named("*.b.example.com"),
        named("*.com"),
        none(),
    ];
    let matcher = ChainMatcher::compile(&chains);
    for (name, expected) in [
        ("a.b.example.com", 0),
        ("x.b.example.com", 2),
        ("y.x.b.example.com", 2),
        ("b.example.com", 1),
        ("example.com", 3),
        ("com", 4),
        ("", 4),
        (".", 4),
    ] {
        assert_eq!(
            matcher.select(&connection("10.0.0.1:443", name, &[])),
            Some(expected),
            "{name}"
        );
    }
}

#[test]
fn application_protocols_follow_the_clients_order() {
    let spoken = |protocols: &[&str]| FilterChainMatch {
        application_protocols: protocols.iter().map(|it| Text::from(*it)).collect(),
        ..none()
    };
    let chains = [spoken(&["http/1.1", "http/1.0"]), spoken(&["h2"]), none()];
    let matcher = ChainMatcher::compile(&chains);
    assert_eq!(
        matcher.select(&connection("10.0.0.1:1", "", &["h2".into(), "http/1.1".into()])),
        Some(1)
    );
    assert_eq!(
        matcher.select(&connection("10.0.0.1:1", "", &["x".into(), "http/1.0".into()])),
        Some(0)
    );
    assert_eq!(
        matcher.select(&connection("10.0.0.1:1", "", &["istio".into()])),
        Some(2)
    );
}

#[test]
fn the_source_is_looked_at_last() {
    let chains = [
        FilterChainMatch {
            source_prefix_ranges: vec![net("192.0.2.0/24")],
            source_ports: vec![40000],
            ..none()
        },
        FilterChainMatch {
            source_prefix_ranges: vec![net("192.0.2.0/24")],
            ..none()
        },
        none(),
    ];
    let matcher = ChainMatcher::compile(&chains);
    let mut view = connection("10.0.0.1:1", "", &[]);
    assert_eq!(matcher.select(&view), Some(0));
    view.source.set_port(1);
    assert_eq!(matcher.select(&view), Some(1));
    view.source = "198.51.100.1:40000".parse().expect("valid");
    assert_eq!(matcher.select(&view), Some(2));
}

#[test]
fn explaining_tells_what_decided_on_each_level() {
    let chains = [FilterChainMatch {
        destination_port: Some(80),
        prefix_ranges: vec![net("10.0.0.0/8")],
        ..none()
    }];
    let matcher = ChainMatcher::compile(&chains);
    let (chosen, levels) = matcher.explain(&connection("10.0.0.1:80", "", &[]));
    assert_eq!(chosen, Some(0));
    assert_eq!(levels[0], "destination port 80: chains for it");
    assert_eq!(levels[1], "destination address 10.0.0.1: chains for its /8");
    assert_eq!(levels[2], "no server name: chains for any");
    let (chosen, levels) = matcher.explain(&connection("11.0.0.1:80", "", &[]));
    assert_eq!(chosen, None);
    assert_eq!(
        levels.last().map(String::as_str),
        Some("destination address 11.0.0.1: no chain")
    );
}

// --- compiled equals naive ---

/// Keeps, level by level, the chains that are most specific for the connection.
fn naive(chains: &[FilterChainMatch], view: &ConnectionView<'_>) -> Option<usize> {
    let mut left: Vec<usize> = (0..chains.len()).collect();
    let mut keep = |rank: &dyn Fn(&FilterChainMatch) -> Option<i64>| {
        let best = left.iter().filter_map(|at| rank(&chains[*at])).max();
        left.retain(|at| best.is_some() && rank(&chains[*at]) == best);
    };
    let longest = |nets: &[IpNet], address: IpAddr| {
        if nets.is_empty() {
            return Some(0);
        }
        nets.iter()
            .filter(|net| net.contains(&address))
            .map(|net| i64::from(net.prefix_len()))
            .max()
    };
    keep(&|it| match it.destination_port {
        None => Some(0),
        Some(port) => (port == view.destination.port()).then_some(1),
    });
    keep(&|it| longest(&it.prefix_ranges, view.destination.ip()));
    let name = view.server_name.unwrap_or_default().to_ascii_lowercase();
    keep(&|it| {
        if it.server_names.is_empty() {
            return Some(0);
        }
        it.server_names
            .iter()
            .filter_map(|wanted| match wanted.strip_prefix('*') {
                Some(suffix) => (name.len() > suffix.len() && name.ends_with(suffix))
                    .then_some(i64::try_from(suffix.len()).expect("short")),
                None => (**wanted == *name).then_some(1000),
            })
            .max()
    });
    keep(&|it| match it.transport_protocol {
        None => Some(0),
        Some(wanted) => (wanted == view.transport).then_some(1),
    });
    keep(&|it| {
        if it.application_protocols.is_empty() {
            return Some(0);
        }
        let position = view
            .application_protocols
            .iter()
            .position(|offered| it.application_protocols.iter().any(|known| known == offered))?;
        Some(100 - i64::try_from(position).expect("short"))
    });
    keep(&|it| longest(&it.source_prefix_ranges, view.source.ip()));
    keep(&|it| {
        if it.source_ports.is_empty() {
            Some(0)
        } else {
            it.source_ports.contains(&view.source.port()).then_some(1)
        }
    });
    left.first().copied()
}

fn some_of<T: Clone + std::fmt::Debug + 'static>(values: &[T]) -> impl Strategy<Value = Vec<T>> + use<T> {
    prop_oneof![
        2 => Just(Vec::new()),
        1 => prop::sample::subsequence(values.to_vec(), 1..=2),
    ]
}

fn any_condition() -> impl Strategy<Value = FilterChainMatch> {
    let nets = ["10.0.0.0/8", "10.1.0.0/16", "10.1.2.3/32", "2001:db8::/32"].map(net);
    (
        prop::option::weighted(0.3, prop::sample::select(vec![80u16, 443])),
        some_of(&nets),
        some_of(&["a.x", "*.x", "*.a.x"].map(Text::from)),
        prop::option::weighted(
            0.3,
            prop::sample::select(vec![TransportProtocol::Tls, TransportProtocol::RawBuffer]),
        ),
        some_of(&["h2", "http/1.1"].map(Text::from)),
        some_of(&nets),
        some_of(&[1000u16, 2000]),
    )
        .prop_map(
            |(port, prefixes, names, transport, protocols, sources, ports)| FilterChainMatch {
                destination_port: port,
                prefix_ranges: prefixes,
                server_names: names,
                transport_protocol: transport,
                application_protocols: protocols,
                source_prefix_ranges: sources,
                source_ports: ports,
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]
    #[test]
    fn compiled_selects_as_the_naive_reading(
        chains in prop::collection::vec(any_condition(), 0..8),
        addresses in prop::sample::subsequence(
            vec!["10.1.2.3", "10.1.9.9", "10.9.9.9", "172.16.0.1", "2001:db8::1"], 2),
        ports in (prop::sample::select(vec![80u16, 443, 8080]), prop::sample::select(vec![1000u16, 2000, 3000])),
        name in prop::sample::select(vec!["", "a.x", "b.x", "c.a.x", "y"]),
        tls in any::<bool>(),
        protocols in prop::sample::subsequence(["h2", "http/1.1", "other"].map(Text::from).to_vec(), 0..=3).prop_shuffle(),
    ) {
        let view = ConnectionView {
            destination: SocketAddr::new(addresses[0].parse().expect("valid"), ports.0),
            source: SocketAddr::new(addresses[1].parse().expect("valid"), ports.1),
            server_name: Some(name).filter(|name| !name.is_empty()),
            transport: protocol(tls),
            application_protocols: &protocols,
        };
        let matcher = ChainMatcher::compile(&chains);
        prop_assert_eq!(matcher.select(&view), naive(&chains, &view));
        prop_assert_eq!(matcher.explain(&view).0, naive(&chains, &view));
    }
}
