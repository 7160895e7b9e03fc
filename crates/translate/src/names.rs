//! Names that the two planes and their users rely on. Source: Istio naming (`pkg/model/service.go`), kept verbatim since
//! dashboards, `istioctl` habits and policies quote them.

use std::net::{IpAddr, SocketAddr};

use rajut_types::{Hostname, Text};

/// Everything that the registry does not know, with `ALLOW_ANY`.
pub const PASSTHROUGH: &str = "PassthroughCluster";
/// A cluster without endpoints.
pub const BLACK_HOLE: &str = "BlackHoleCluster";
/// Connections to ports of the workload that no service names.
pub const INBOUND_PASSTHROUGH: &str = "InboundPassthroughCluster";
/// The gateway that all sidecars are.
pub(crate) const MESH: &str = "mesh";
/// The port that outbound connections are redirected to.
pub const OUTBOUND_PORT: u16 = 15_001;
/// The port that inbound connections are redirected to.
pub const INBOUND_PORT: u16 = 15_006;
/// SDS name of the workload's own certificate and key.
pub const OWN_CERTIFICATE: &str = "default";
/// SDS name of the mesh's roots.
pub const MESH_ROOTS: &str = "ROOTCA";

/// `outbound|8080|stable|api.clinic.svc.cluster.local`
pub(crate) fn outbound_cluster(port: u16, subset: &str, host: &Hostname) -> Text {
    format!("outbound|{port}|{subset}|{host}").into()
}

/// `outbound_.8080_.stable_.api.clinic.svc.cluster.local`: the server name of mesh TLS.
pub(crate) fn mesh_sni(port: u16, subset: &str, host: &Hostname) -> Text {
    format!("outbound_.{port}_.{subset}_.{host}").into()
}

/// `inbound|8080||`
pub(crate) fn inbound_cluster(port: u16) -> Text {
    format!("inbound|{port}||").into()
}

/// `10.96.0.7_8080`
pub(crate) fn listener(address: IpAddr, port: u16) -> Text {
    format!("{address}_{port}").into()
}

/// `host:port`, as virtual hosts and sniffed route configurations are named.
pub(crate) fn host_port(host: &Hostname, port: u16) -> Text {
    format!("{host}:{port}").into()
}

/// An IP address as it stands in a `Host` header.
pub(crate) fn host_literal(address: IpAddr) -> Text {
    match address {
        IpAddr::V4(v4) => v4.to_string().into(),
        IpAddr::V6(v6) => format!("[{v6}]").into(),
    }
}

/// All interfaces, in the family of IPv4.
pub(crate) fn wildcard(port: u16) -> SocketAddr {
    SocketAddr::from(([0, 0, 0, 0], port))
}

/// The names by which clients in `client_namespace` may call `host`: the host, and for `<name>.<ns>.svc.<domain>` its
/// shorter forms; the bare name only inside the host's own namespace.
pub(crate) fn forms_of(host: &Hostname, client_namespace: &str, domain: &str) -> Vec<Text> {
    let mut forms = vec![host.text()];
    let suffix = format!(".svc.{domain}");
    let Some(stem) = host.as_str().strip_suffix(suffix.as_str()) else {
        return forms;
    };
    if let Some((name, namespace)) = stem.rsplit_once('.') {
        forms.push(format!("{stem}.svc").into());
        forms.push(stem.into());
        if namespace == client_namespace {
            forms.push(name.into());
        }
    }
    forms
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bare_name_is_for_the_own_namespace_alone() {
        let host: Hostname = "api.clinic.svc.cluster.local".parse().expect("valid");
        let forms = |namespace| {
            forms_of(&host, namespace, "cluster.local")
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
        };
        let all = [
            "api.clinic.svc.cluster.local",
            "api.clinic.svc",
            "api.clinic",
            "api",
        ];
        assert_eq!(forms("clinic"), all);
        assert_eq!(forms("other"), all[..3]);
        let foreign: Hostname = "db.example.org".parse().expect("valid");
        assert_eq!(forms_of(&foreign, "clinic", "cluster.local").len(), 1);
    }
}
