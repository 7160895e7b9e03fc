//! Destinations that the mesh does not know, where its configuration refuses them (Istio's `outboundTrafficPolicy` of
//! `REGISTRY_ONLY`): the log names each once, with the document that lets it through.
//!
//! Steps 4 and 5 of walk one call it for what is refused only, so its lock is on no path of a request that goes on.
//! Bounds: [`SAID_MAX`] destinations per process; a client that tries more names than that is not written down any
//! further. It decides nothing.

use std::{collections::BTreeSet, net::SocketAddr, sync::Mutex};

use rajut_types::Hostname;

/// Istio's name of the virtual host that takes what no other takes and refuses it.
pub(crate) const BLOCK_ALL: &str = "block_all";
/// Istio's name of the cluster without endpoints for the same.
pub(crate) const BLACK_HOLE: &str = "BlackHoleCluster";

/// Destinations that are written down.
const SAID_MAX: usize = 256;

static SAID: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// What a connection spoke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spoke {
    Http,
    Tls,
    Bytes,
}

/// Writes a refused destination down: by the name that the client used, where it is one, else by address.
pub(crate) fn say(name: &str, address: SocketAddr, spoke: Spoke) {
    let destination = Destination::new(name, address, spoke);
    let text = destination.to_string();
    let is_new = {
        // Poisoned by a panic elsewhere: a set of names is as good as before.
        let mut said = SAID.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        said.len() < SAID_MAX && said.insert(text.clone())
    };
    if is_new {
        tracing::warn!(
            "refused: the mesh does not know {text}, and outboundTrafficPolicy is REGISTRY_ONLY; this lets it through: {}",
            destination.document()
        );
    }
}

struct Destination {
    /// A name that a `ServiceEntry` may hold.
    name: Option<String>,
    address: SocketAddr,
    port: u16,
    spoke: Spoke,
}

impl std::fmt::Display for Destination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{name}:{}", self.port),
            None => self.address.fmt(f),
        }
    }
}

impl Destination {
    /// `name` comes from the client (`host`, `host:port`, a server name) and may be anything.
    fn new(name: &str, address: SocketAddr, spoke: Spoke) -> Self {
        let (host, port) = match name.rsplit_once(':') {
            Some((host, port)) => (host, port.parse().unwrap_or(address.port())),
            None => (name, address.port()),
        };
        let is_name = host.contains('.') && host.parse::<std::net::IpAddr>().is_err() && !host.contains('*');
        let parsed = host.parse::<Hostname>().ok().filter(|_| is_name);
        Self {
            name: parsed.map(|host| host.to_string()),
            address,
            port,
            spoke,
        }
    }

    /// One line of YAML.
    fn document(&self) -> String {
        let (port_name, protocol) = match self.spoke {
            Spoke::Http => ("http", "HTTP"),
            Spoke::Tls => ("tls", "TLS"),
            Spoke::Bytes => ("tcp", "TCP"),
        };
        let (host, rest, port) = if let Some(name) = &self.name {
            (name.clone(), "resolution: DNS".to_owned(), self.port)
        } else {
            let ip = self.address.ip();
            let host = format!("ip-{}.external", ip.to_string().replace(['.', ':'], "-"));
            let rest =
                format!("addresses: [\"{ip}\"], resolution: STATIC, endpoints: [{{address: \"{ip}\"}}]");
            (host, rest, self.address.port())
        };
        format!(
            "{{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {{name: {}}}, spec: {{hosts: [{host}], \
             location: MESH_EXTERNAL, {rest}, ports: [{{number: {port}, name: {port_name}, protocol: {protocol}}}]}}}}",
            host.replace('.', "-")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(name: &str, spoke: Spoke) -> String {
        let destination = Destination::new(name, "192.0.2.7:5432".parse().expect("valid"), spoke);
        format!("{destination} {}", destination.document())
    }

    #[test]
    fn a_name_becomes_a_service_entry_by_dns() {
        assert_eq!(
            text("Example.org:8080", Spoke::Http),
            "example.org:8080 {apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: example-org}, \
             spec: {hosts: [example.org], location: MESH_EXTERNAL, resolution: DNS, ports: [{number: 8080, name: http, \
             protocol: HTTP}]}}"
        );
    }

    #[test]
    fn what_is_no_name_is_said_by_its_address() {
        let by_address = "192.0.2.7:5432 {apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: \
            {name: ip-192-0-2-7-external}, spec: {hosts: [ip-192-0-2-7.external], location: MESH_EXTERNAL, \
            addresses: [\"192.0.2.7\"], resolution: STATIC, endpoints: [{address: \"192.0.2.7\"}], \
            ports: [{number: 5432, name: tcp, protocol: TCP}]}}";
        for name in ["", "192.0.2.7", "x{y: z}.org\n", "*.example.org", "db"] {
            assert_eq!(text(name, Spoke::Bytes), by_address, "{name:?}");
        }
    }
}
