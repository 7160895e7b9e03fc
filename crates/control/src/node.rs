//! From an xDS node and a verified peer to the [`Proxy`] that resources are made for.
//!
//! Rejects: node ids outside Istio's form `<type>~<ip>~<name>.<namespace>~<domain>`, nodes whose namespace or service account
//! is not the certificate's, malformed metadata of ours. Ignores: metadata that is not listed here.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use rajut_translate::{Capture, DataPlane, Proxy, Role, proxy::ExplicitPort};
use rajut_types::{Hostname, Labels, Locality, Principal, Text};
use rajut_xds::Node;
use serde_json::Value;

/// Why a node can't be served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NodeRefused {
    /// The id is not of the known form.
    #[error("node id `{0}` is not of the form `sidecar~<ip>~<name>.<namespace>~<namespace>.svc.<domain>`")]
    Id(String),
    /// A member of the metadata can't be read.
    #[error("node metadata `{member}`: {why}")]
    Metadata {
        /// Which.
        member: &'static str,
        /// What is wrong.
        why: String,
    },
    /// It claims to be somebody else.
    #[error("the node says {claimed}, its certificate says {principal}")]
    Identity {
        /// What the node says.
        claimed: String,
        /// What the certificate says.
        principal: Principal,
    },
}

/// Inbound ports and explicit outbound ports that one node may have.
const PORTS_MAX: usize = 4_096;

/// Reads a node. The principal is the certificate's.
pub fn parse_node(node: &Node, principal: Principal) -> Result<Proxy, NodeRefused> {
    let bad_id = || NodeRefused::Id(node.id.to_string());
    let [kind, ip, name, _domain] = node.id.split('~').collect::<Vec<_>>()[..] else {
        return Err(bad_id());
    };
    let (workload, namespace) = name.rsplit_once('.').ok_or_else(bad_id)?;
    let address: IpAddr = ip.parse().map_err(|_| bad_id())?;
    let metadata = &node.metadata;
    let namespace = text(metadata, "NAMESPACE")?.unwrap_or(namespace);
    let account = text(metadata, "SERVICE_ACCOUNT")?;
    if namespace != principal.namespace()
        || account.is_some_and(|account| account != principal.service_account())
    {
        return Err(NodeRefused::Identity {
            claimed: format!("{namespace}/{}", account.unwrap_or("?")),
            principal,
        });
    }
    let capture = capture(metadata)?;
    let grpc = text(metadata, "GENERATOR")? == Some("grpc");
    let role = match (text(metadata, "RAJUT_ROLE")?, kind) {
        _ if grpc => Role::Grpc,
        (Some("host-gateway"), _) => Role::HostGateway,
        (None | Some("sidecar"), "sidecar") => Role::Sidecar,
        (None, "router") => Role::Gateway,
        (Some(other), _) => {
            return Err(NodeRefused::Metadata {
                member: "RAJUT_ROLE",
                why: format!("`{other}` is not a role"),
            });
        }
        (None, _) => return Err(bad_id()),
    };
    let data_plane = match text(metadata, "RAJUT_DATA_PLANE")? {
        Some("rajut") => DataPlane::Rajut,
        Some("envoy") | None => DataPlane::Envoy,
        Some(other) => {
            return Err(NodeRefused::Metadata {
                member: "RAJUT_DATA_PLANE",
                why: format!("`{other}` is neither `rajut` nor `envoy`"),
            });
        }
    };
    let labels = labels(metadata)?;
    let locality = if node.locality.is_empty() {
        Locality::of_labels(&labels)
    } else {
        node.locality.clone()
    };
    Ok(Proxy {
        id: node.id.clone(),
        role,
        data_plane,
        principal,
        workload: text(metadata, "NAME")?.unwrap_or(workload).into(),
        namespace: namespace.into(),
        labels,
        addresses: addresses(metadata, address)?,
        locality,
        capture,
    })
}

fn text<'a>(metadata: &'a Value, member: &'static str) -> Result<Option<&'a str>, NodeRefused> {
    match metadata.get(member) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.is_empty() => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(wrong(member, "must be a text")),
    }
}

fn labels(metadata: &Value) -> Result<Labels, NodeRefused> {
    match metadata.get("LABELS") {
        None | Some(Value::Null) => Ok(Labels::default()),
        Some(Value::Object(members)) => members
            .iter()
            .map(|(key, value)| match value {
                Value::String(value) => Ok((key.as_str(), value.as_str())),
                _ => Err(wrong("LABELS", "each label must be a text")),
            })
            .collect(),
        Some(_) => Err(wrong("LABELS", "must be an object")),
    }
}

fn addresses(metadata: &Value, own: IpAddr) -> Result<Vec<IpAddr>, NodeRefused> {
    let mut addresses = vec![own];
    // Istio writes them as one text, separated by commas.
    for ip in text(metadata, "INSTANCE_IPS")?
        .into_iter()
        .flat_map(|all| all.split(','))
    {
        let ip = ip
            .trim()
            .parse()
            .map_err(|_| wrong("INSTANCE_IPS", "must be IP addresses"))?;
        if !addresses.contains(&ip) {
            addresses.push(ip);
        }
    }
    Ok(addresses)
}

fn capture(metadata: &Value) -> Result<Capture, NodeRefused> {
    let mode = text(metadata, "INTERCEPTION_MODE")?;
    let value = match metadata.get("RAJUT_CAPTURE") {
        Some(Value::Null) | None => match mode {
            // TPROXY listens on the same two ports; NONE has no listener that we could make without explicit ports.
            None | Some("REDIRECT" | "TPROXY") => return Ok(Capture::Redirect),
            Some("NONE") => {
                return Ok(Capture::Explicit {
                    outbound: Vec::new(),
                    inbound: BTreeMap::new(),
                });
            }
            Some(other) => {
                return Err(wrong("INTERCEPTION_MODE", format!("`{other}` is not a mode")));
            }
        },
        // Envoy's bootstrap has texts only where somebody passes the metadata through the environment.
        Some(Value::String(json)) => {
            serde_json::from_str(json).map_err(|error| wrong("RAJUT_CAPTURE", error.to_string()))?
        }
        Some(value) => value.clone(),
    };
    let written: CaptureWritten =
        serde_json::from_value(value).map_err(|error| wrong("RAJUT_CAPTURE", error.to_string()))?;
    written.check()
}

/// `RAJUT_CAPTURE` as written.
#[derive(Debug, serde::Deserialize)]
#[serde(tag = "mode", rename_all = "lowercase", deny_unknown_fields)]
enum CaptureWritten {
    Netns {
        path: String,
        #[serde(rename = "appAddress")]
        app_address: IpAddr,
        #[serde(default)]
        inbound: BTreeMap<String, SocketAddr>,
    },
    Explicit {
        #[serde(default)]
        outbound: Vec<OutboundWritten>,
        #[serde(default)]
        inbound: BTreeMap<String, InboundWritten>,
    },
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct OutboundWritten {
    host: String,
    port: u16,
    listen: SocketAddr,
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct InboundWritten {
    listen: SocketAddr,
    app: SocketAddr,
}

impl CaptureWritten {
    fn check(self) -> Result<Capture, NodeRefused> {
        let too_many = || wrong("RAJUT_CAPTURE", format!("more than {PORTS_MAX} ports"));
        match self {
            Self::Netns {
                path,
                app_address,
                inbound,
            } => {
                if inbound.len() > PORTS_MAX {
                    return Err(too_many());
                }
                Ok(Capture::Netns {
                    path: path.into(),
                    app_address,
                    inbound: by_port(inbound, |listen| listen)?,
                })
            }
            Self::Explicit { outbound, inbound } => {
                if outbound.len() > PORTS_MAX || inbound.len() > PORTS_MAX {
                    return Err(too_many());
                }
                let port = |written: OutboundWritten| {
                    let OutboundWritten { host, port, listen } = written;
                    let host: Hostname = host
                        .parse()
                        .map_err(|error| wrong("RAJUT_CAPTURE", format!("{error}")))?;
                    Ok(ExplicitPort { host, port, listen })
                };
                Ok(Capture::Explicit {
                    outbound: outbound.into_iter().map(port).collect::<Result<_, _>>()?,
                    inbound: by_port(inbound, |InboundWritten { listen, app }| (listen, app))?,
                })
            }
        }
    }
}

/// Keys are texts in JSON, and serde reads them as numbers only where no tag stands beside them.
fn by_port<W, T>(
    written: BTreeMap<String, W>,
    into: impl Fn(W) -> T,
) -> Result<BTreeMap<u16, T>, NodeRefused> {
    let one = |(port, value): (String, W)| {
        let number = port
            .parse()
            .map_err(|_| wrong("RAJUT_CAPTURE", format!("`{port}` is not a port")))?;
        Ok((number, into(value)))
    };
    written.into_iter().map(one).collect()
}

fn wrong(member: &'static str, why: impl Into<String>) -> NodeRefused {
    NodeRefused::Metadata {
        member,
        why: why.into(),
    }
}

/// The short name of a type URL, for people: `Cluster`.
pub fn short_type(type_url: &str) -> Text {
    type_url.rsplit('.').next().unwrap_or(type_url).into()
}

#[cfg(test)]
mod tests {
    use rajut_types::TrustDomain;
    use serde_json::json;

    use super::*;

    fn node(metadata: Value) -> Node {
        Node {
            id: "sidecar~10.1.0.4~signer-0.clinic~clinic.svc.cluster.local".into(),
            metadata,
            ..Node::default()
        }
    }

    fn signer() -> Principal {
        Principal::new(&TrustDomain::default(), "clinic", "signer")
    }

    #[test]
    fn istios_node_is_a_redirected_sidecar_of_envoy() {
        let metadata = json!({"LABELS": {"app": "signer"}, "INSTANCE_IPS": "10.1.0.4,fd00::4", "SERVICE_ACCOUNT": "signer"});
        let proxy = parse_node(&node(metadata), signer()).expect("valid");
        assert_eq!((proxy.role, proxy.data_plane), (Role::Sidecar, DataPlane::Envoy));
        assert_eq!(proxy.capture, Capture::Redirect);
        assert_eq!((&*proxy.workload, &*proxy.namespace), ("signer-0", "clinic"));
        assert_eq!(proxy.addresses.len(), 2);
        assert_eq!(proxy.labels.find("app"), Some("signer"));
    }

    #[test]
    fn both_forms_of_our_capture_are_read() {
        let netns = json!({"RAJUT_DATA_PLANE": "rajut", "RAJUT_CAPTURE": {
            "mode": "netns", "path": "/proc/1/ns/net", "appAddress": "10.1.0.4", "inbound": {"8080": "127.10.0.5:8080"}
        }});
        let proxy = parse_node(&node(netns), signer()).expect("valid");
        assert_eq!(proxy.data_plane, DataPlane::Rajut);
        let Capture::Netns { inbound, .. } = proxy.capture else {
            panic!("another capture")
        };
        assert_eq!(inbound[&8080].to_string(), "127.10.0.5:8080");

        let explicit = json!({"RAJUT_CAPTURE": {
            "mode": "explicit",
            "outbound": [{"host": "auth.clinic.svc.cluster.local", "port": 8080, "listen": "127.0.0.1:40001"}],
            "inbound": {"8080": {"listen": "127.10.0.5:8080", "app": "127.0.0.1:41000"}}
        }});
        let proxy = parse_node(&node(explicit), signer()).expect("valid");
        let Capture::Explicit { outbound, inbound } = proxy.capture else {
            panic!("another capture")
        };
        assert_eq!(outbound[0].listen.port(), 40_001);
        assert_eq!(inbound[&8080].1.port(), 41_000);
    }

    #[test]
    fn nobody_gets_resources_of_another_account_or_namespace() {
        for metadata in [json!({"NAMESPACE": "other"}), json!({"SERVICE_ACCOUNT": "admin"})] {
            let refused = parse_node(&node(metadata), signer());
            assert!(
                matches!(refused, Err(NodeRefused::Identity { .. })),
                "{refused:?}"
            );
        }
    }

    #[test]
    fn malformed_nodes_are_refused_by_name() {
        for id in [
            "",
            "sidecar~10.0.0.1~a.b",
            "sidecar~x~a.b~d",
            "sidecar~10.0.0.1~ab~d",
            "alien~10.0.0.1~a.clinic~d",
        ] {
            let node = Node {
                id: id.into(),
                ..Node::default()
            };
            assert!(
                matches!(parse_node(&node, signer()), Err(NodeRefused::Id(_))),
                "{id}"
            );
        }
        for metadata in [
            json!({"LABELS": 3}),
            json!({"RAJUT_ROLE": "king"}),
            json!({"RAJUT_CAPTURE": {"mode": "magic"}}),
            json!({"RAJUT_CAPTURE": {"mode": "explicit", "typo": 1}}),
            json!({"RAJUT_DATA_PLANE": "nginx"}),
            json!({"INSTANCE_IPS": "x"}),
        ] {
            let refused = parse_node(&node(metadata.clone()), signer());
            assert!(
                matches!(refused, Err(NodeRefused::Metadata { .. })),
                "{metadata}: {refused:?}"
            );
        }
    }
}
