//! The protocol of a port, told by its name or `appProtocol`. Source: Istio `pkg/config/kube/conversion.go`.

use crate::model::Protocol;

/// The protocols that a name may begin with.
const NAMES: &[(&str, Protocol)] = &[
    ("http", Protocol::Http),
    ("http2", Protocol::Http2),
    ("http_proxy", Protocol::Http),
    ("grpc", Protocol::Grpc),
    ("grpc-web", Protocol::GrpcWeb),
    ("https", Protocol::Https),
    ("tls", Protocol::Tls),
    ("tcp", Protocol::Tcp),
    ("udp", Protocol::Udp),
    ("mongo", Protocol::Tcp),
    ("redis", Protocol::Tcp),
    ("mysql", Protocol::Tcp),
];

/// Ports of protocols in which the server speaks first, which detection would wait for in vain.
const SERVER_FIRST: &[u16] = &[25, 53, 3306, 27017];

/// The protocol that `name` declares: itself, or what stands before its first `-`.
pub(crate) fn by_name(name: &str) -> Option<Protocol> {
    let name = name.to_ascii_lowercase();
    if name == "grpc-web" || name.starts_with("grpc-web-") {
        return Some(Protocol::GrpcWeb);
    }
    let word = name.split('-').next().unwrap_or_default();
    NAMES
        .iter()
        .find(|(known, _)| *known == word)
        .map(|(_, protocol)| *protocol)
}

/// The protocol of a Kubernetes service port.
pub(crate) fn of_port(transport: &str, app_protocol: Option<&str>, name: &str, number: u16) -> Protocol {
    if transport.eq_ignore_ascii_case("UDP") {
        return Protocol::Udp;
    }
    let declared = match app_protocol {
        Some("kubernetes.io/h2c") => Some(Protocol::Http2),
        Some("kubernetes.io/ws") => Some(Protocol::Http),
        Some("kubernetes.io/wss") => Some(Protocol::Https),
        Some(name) => by_name(name),
        None => by_name(name),
    };
    declared.unwrap_or(if SERVER_FIRST.contains(&number) {
        Protocol::Tcp
    } else {
        Protocol::Detect
    })
}

/// The name to write if `name` looks as if it were to declare a protocol, but does not: `httpfoo`, `web-http`.
pub(crate) fn near_miss(name: &str) -> Option<String> {
    if name.is_empty() || by_name(name).is_some() {
        return None;
    }
    let name = name.to_ascii_lowercase();
    let words: Vec<&str> = name.split(['-', '_', '.']).collect();
    if let Some((last, _)) = words.split_last()
        && let Some((known, _)) = NAMES.iter().find(|(known, _)| known == last)
        && words.len() > 1
    {
        return Some(format!("{known}-{}", words.get(..words.len() - 1)?.join("-")));
    }
    let mut longest = NAMES.to_vec();
    longest.sort_by_key(|(known, _)| std::cmp::Reverse(known.len()));
    let (known, _) = longest.into_iter().find(|(known, _)| name.starts_with(known))?;
    let rest = name.strip_prefix(known)?.trim_start_matches(['-', '_', '.']);
    Some(format!("{known}-{rest}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_declare_by_what_stands_before_the_first_dash() {
        for (name, expected) in [
            ("http", Some(Protocol::Http)),
            ("HTTP-web", Some(Protocol::Http)),
            ("http2-x", Some(Protocol::Http2)),
            ("grpc-web", Some(Protocol::GrpcWeb)),
            ("grpc-web-x", Some(Protocol::GrpcWeb)),
            ("grpc-x", Some(Protocol::Grpc)),
            ("httpfoo", None),
            ("foo-http", None),
            ("web", None),
            ("", None),
        ] {
            assert_eq!(by_name(name), expected, "{name}");
        }
        assert_eq!(of_port("TCP", None, "db", 3306), Protocol::Tcp);
        assert_eq!(
            of_port("TCP", Some("kubernetes.io/h2c"), "http", 80),
            Protocol::Http2
        );
        assert_eq!(of_port("UDP", Some("http"), "http", 80), Protocol::Udp);
        assert_eq!(of_port("TCP", None, "", 8080), Protocol::Detect);
    }

    #[test]
    fn near_misses_are_told_what_to_write() {
        assert_eq!(near_miss("httpfoo").as_deref(), Some("http-foo"));
        assert_eq!(near_miss("web-http").as_deref(), Some("http-web"));
        assert_eq!(near_miss("httpsapi").as_deref(), Some("https-api"));
        assert_eq!(near_miss("http-foo"), None);
        assert_eq!(near_miss("metrics"), None);
    }
}
