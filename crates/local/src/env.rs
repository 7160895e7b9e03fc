//! The environment that a workload's process gets, on top of what its manifest says.
//!
//! In a network namespace nothing is needed: names resolve, ports are the workload's own. In explicit mode the program
//! learns from here on which port to listen and where its sidecar listens for each service. Pure.

use std::collections::BTreeMap;

use rajut_config::model::{Protocol, Service};

use crate::plan::OutboundPort;

/// A service's name as the prefix of environment variables: `encounter-service` → `ENCOUNTER_SERVICE`.
///
/// Source: Kubernetes, environment variables of services: upper case, `-` and `.` become `_`.
pub fn service_variable(name: &str) -> String {
    name.chars()
        .map(|letter| match letter {
            'a'..='z' => letter.to_ascii_uppercase(),
            'A'..='Z' | '0'..='9' => letter,
            _ => '_',
        })
        .collect()
}

/// The variables that point a process in `namespace` to its sidecar's outbound listeners.
///
/// `<SERVICE>_URL`, `_HOST`, `_PORT` stand for a service's first port, and as Kubernetes has them
/// `<SERVICE>_SERVICE_HOST`, `_SERVICE_PORT`, and for each port `<SERVICE>_PORT_<n>_TCP_ADDR` and `…_TCP_PORT`. A
/// service of another namespace has the namespace behind its name (`<SERVICE>_<NAMESPACE>_URL`).
pub fn outbound_variables(namespace: &str, outbound: &[OutboundPort]) -> Vec<(String, String)> {
    let mut variables = Vec::new();
    let mut seen = Vec::new();
    for port in outbound {
        let service = if &*port.namespace == namespace {
            service_variable(&port.service)
        } else {
            service_variable(&format!("{}_{}", port.service, port.namespace))
        };
        let (address, number) = (port.listen.ip().to_string(), port.listen.port().to_string());
        if !seen.contains(&service) {
            let url = format!("{}://{}", url_scheme(port.protocol), port.listen);
            variables.push((format!("{service}_URL"), url));
            variables.push((format!("{service}_HOST"), address.clone()));
            variables.push((format!("{service}_PORT"), number.clone()));
            variables.push((format!("{service}_SERVICE_HOST"), address.clone()));
            variables.push((format!("{service}_SERVICE_PORT"), number.clone()));
            seen.push(service.clone());
        }
        variables.push((format!("{service}_PORT_{}_TCP_ADDR", port.port), address));
        variables.push((format!("{service}_PORT_{}_TCP_PORT", port.port), number));
    }
    variables
}

/// The scheme that a person would write for a port.
pub fn url_scheme(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Http | Protocol::Http2 | Protocol::Grpc | Protocol::GrpcWeb | Protocol::Detect => "http",
        Protocol::Tls | Protocol::Https => "https",
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    }
}

/// In explicit mode names don't resolve: an address of a service that a manifest's value holds
/// (`http://auth-service:8080/login`, `auth-service.clinic:8080`) becomes that of the sidecar's listener.
///
/// Only whole `host:port` pairs (and `scheme://host`, port 80 or 443) of known services are replaced; everything else
/// is left as it is written.
pub fn rewrite_addresses(value: &str, namespace: &str, outbound: &[OutboundPort]) -> String {
    let listeners = name_table(namespace, outbound);
    let mut result = String::with_capacity(value.len());
    let mut rest = value;
    while !rest.is_empty() {
        let length = rest.find(|letter| !is_authority(letter)).unwrap_or(rest.len());
        let (token, tail) = rest.split_at(length);
        let default_port = if result.ends_with("http://") {
            Some(80)
        } else if result.ends_with("https://") {
            Some(443)
        } else {
            None
        };
        result.push_str(&replacement(token, default_port, &listeners).unwrap_or_else(|| token.to_owned()));
        let separator = tail.chars().next().map_or(0, char::len_utf8);
        let (between, after) = tail.split_at(separator);
        result.push_str(between);
        rest = after;
    }
    result
}

fn is_authority(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.' | ':')
}

fn replacement(
    token: &str,
    default_port: Option<u16>,
    listeners: &BTreeMap<(String, u16), String>,
) -> Option<String> {
    // `http://host` reaches here as `http:` and then `host`, since `/` ends a token.
    let (host, port) = match token.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().ok()?),
        None => (token, default_port?),
    };
    listeners.get(&(host.to_ascii_lowercase(), port)).cloned()
}

fn name_table(namespace: &str, outbound: &[OutboundPort]) -> BTreeMap<(String, u16), String> {
    let mut table = BTreeMap::new();
    for port in outbound {
        let listen = port.listen.to_string();
        let mut names = vec![
            port.host.to_string(),
            format!("{}.{}", port.service, port.namespace),
        ];
        names.push(format!("{}.{}.svc", port.service, port.namespace));
        if &*port.namespace == namespace {
            names.push(port.service.to_string());
        }
        for name in names {
            table.insert((name, port.port), listen.clone());
        }
    }
    table
}

/// The names under which a service is known to people in messages: short in its own namespace.
pub fn display_name(service: &Service, namespace: &str) -> String {
    if &*service.namespace == namespace {
        service.name.to_string()
    } else {
        format!("{}.{}", service.name, service.namespace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(service: &str, namespace: &str, number: u16, listen: &str) -> OutboundPort {
        OutboundPort {
            host: format!("{service}.{namespace}.svc.cluster.local")
                .parse()
                .expect("valid"),
            service: service.into(),
            namespace: namespace.into(),
            port: number,
            protocol: Protocol::Http,
            listen: listen.parse().expect("valid"),
        }
    }

    #[test]
    fn variables_name_the_first_port_and_every_port() {
        let outbound = [
            port("auth-service", "clinic", 8080, "127.10.0.1:20000"),
            port("auth-service", "clinic", 9090, "127.10.0.1:20001"),
            port("audit.log", "other", 80, "127.10.0.1:20002"),
        ];
        let variables: BTreeMap<_, _> = outbound_variables("clinic", &outbound).into_iter().collect();
        assert_eq!(variables["AUTH_SERVICE_URL"], "http://127.10.0.1:20000");
        assert_eq!(variables["AUTH_SERVICE_PORT"], "20000");
        assert_eq!(variables["AUTH_SERVICE_PORT_9090_TCP_PORT"], "20001");
        assert_eq!(variables["AUDIT_LOG_OTHER_HOST"], "127.10.0.1");
        assert!(!variables.contains_key("AUDIT_LOG_HOST"));
    }

    #[test]
    fn addresses_of_services_in_values_are_replaced_and_nothing_else() {
        let outbound = [
            port("auth-service", "clinic", 8080, "127.10.0.1:20000"),
            port("web", "clinic", 80, "127.10.0.1:20001"),
            port("db", "data", 5432, "127.10.0.1:20002"),
        ];
        let rewrite = |value| rewrite_addresses(value, "clinic", &outbound);
        assert_eq!(
            rewrite("http://auth-service:8080/login"),
            "http://127.10.0.1:20000/login"
        );
        assert_eq!(
            rewrite("auth-service.clinic.svc.cluster.local:8080"),
            "127.10.0.1:20000"
        );
        assert_eq!(
            rewrite("http://web/a,http://web:80/b"),
            "http://127.10.0.1:20001/a,http://127.10.0.1:20001/b"
        );
        assert_eq!(
            rewrite("postgres://u:p@db.data:5432/x"),
            "postgres://u:p@127.10.0.1:20002/x"
        );
        for same in [
            "auth-service",
            "db:5432",
            "my-auth-service:8080",
            "auth-service:8081",
            "größe",
            "",
        ] {
            assert_eq!(rewrite(same), same);
        }
    }
}
