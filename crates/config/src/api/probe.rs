//! Kubernetes probes.

use std::{cell::RefCell, time::Duration};

use rajut_types::{Origin, Text};

use crate::{
    codes,
    model::{ContainerPort, Probe, ProbeCheck},
    parse::{Style, Value},
    read::{Field, Object, shown},
};

/// A probe whose port may be named after one of a deployment that is written elsewhere.
#[derive(Debug, Clone)]
pub(crate) struct LateProbe {
    /// Its port is 0 where `port` says a name.
    probe: Probe,
    port: Option<(Text, Origin)>,
}

impl From<Probe> for LateProbe {
    fn from(probe: Probe) -> Self {
        Self { probe, port: None }
    }
}

impl LateProbe {
    /// The probe of a container with those ports; the place of a name that none of them has.
    pub(crate) fn resolve(self, ports: &[ContainerPort]) -> Result<Probe, (Text, Origin)> {
        let Self { mut probe, port } = self;
        let Some((name, origin)) = port else {
            return Ok(probe);
        };
        let Some(found) = ports.iter().find(|port| port.name == name) else {
            return Err((name, origin));
        };
        match &mut probe.check {
            ProbeCheck::Http { port, .. } | ProbeCheck::Tcp { port } | ProbeCheck::Grpc { port, .. } => {
                *port = found.number;
            }
            ProbeCheck::Exec(_) => {}
        }
        Ok(probe)
    }
}

/// What a probe's port may be called.
enum Ports<'a> {
    /// As one of these.
    Known(&'a [ContainerPort]),
    /// As one that is not known yet: the name is kept here, with its place.
    Later(RefCell<Option<(Text, Origin)>>),
}

/// A probe of a container with those ports.
pub(crate) fn read(object: &Object<'_>, ports: &[ContainerPort]) -> Option<Probe> {
    read_with(object, &Ports::Known(ports))
}

/// A probe of a container that is written elsewhere.
pub(crate) fn read_late(object: &Object<'_>) -> Option<LateProbe> {
    let ports = Ports::Later(RefCell::default());
    let probe = read_with(object, &ports)?;
    let port = match ports {
        Ports::Known(_) => None,
        Ports::Later(named) => named.into_inner(),
    };
    Some(LateProbe { probe, port })
}

/// What is said about a name that no port has.
pub(crate) fn no_such_port(name: &str, ports: &[ContainerPort]) -> (String, String) {
    let names = ports.iter().map(|port| &*port.name).filter(|n| !n.is_empty());
    let hint = match crate::read::nearest(name, names) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "name a port of the container in `ports`, or write the number".to_owned(),
    };
    (format!("the container has no port named `{}`", shown(name)), hint)
}

fn read_with(object: &Object<'_>, ports: &Ports<'_>) -> Option<Probe> {
    object.ignore(&["terminationGracePeriodSeconds"]);
    let set = object.one_of(&["httpGet", "tcpSocket", "grpc", "exec"]);
    let check = match set.first().copied() {
        Some("httpGet") => object.object("httpGet").and_then(|o| http(&o, ports)),
        Some("tcpSocket") => object.object("tcpSocket").and_then(|o| {
            o.ignore(&["host"]);
            let port = o.required("port", "the port to connect to")?;
            port_of(&port, ports).map(|port| ProbeCheck::Tcp { port })
        }),
        Some("grpc") => object.object("grpc").and_then(|o| {
            let service = o.text("service").unwrap_or_default();
            let port = o.required("port", "the port to ask")?;
            port.port().map(|port| ProbeCheck::Grpc { port, service })
        }),
        Some(_) => object.object("exec").and_then(|o| {
            let command = o.required("command", "the program and its arguments")?.texts();
            (!command.is_empty()).then_some(ProbeCheck::Exec(command))
        }),
        None => {
            object.field().say_key(
                rajut_types::Severity::Error,
                codes::MISSING_FIELD,
                "a probe asks nothing",
                "add `httpGet`, `tcpSocket`, `grpc` or `exec`",
            );
            None
        }
    };
    let seconds = |name, default: u32, least: i64| {
        let value = object
            .get(name)
            .and_then(|f| f.integer(least..=i64::from(i32::MAX)));
        value.and_then(|n| u32::try_from(n).ok()).unwrap_or(default)
    };
    let probe = Probe {
        initial_delay: Duration::from_secs(seconds("initialDelaySeconds", 0, 0).into()),
        period: Duration::from_secs(seconds("periodSeconds", 10, 1).into()),
        timeout: Duration::from_secs(seconds("timeoutSeconds", 1, 1).into()),
        failure_threshold: seconds("failureThreshold", 3, 1),
        success_threshold: seconds("successThreshold", 1, 1),
        check: check?,
    };
    Some(probe)
}

fn http(object: &Object<'_>, ports: &Ports<'_>) -> Option<ProbeCheck> {
    object.ignore(&["host"]);
    if let Some(field) = object.get("scheme")
        && field.choice(&[("HTTP", false), ("HTTPS", true)]) == Some(true)
    {
        field.warn(
            codes::NOT_SUPPORTED,
            "probes over HTTPS are not supported yet: the probe only connects",
            "serve the health endpoint over HTTP",
        );
        let port = port_of(&object.get("port")?, ports)?;
        object.ignore(&["path", "httpHeaders"]);
        return Some(ProbeCheck::Tcp { port });
    }
    let path = object.text("path").unwrap_or_default();
    let headers = object.list("httpHeaders");
    let headers = headers.iter().filter_map(|field| {
        let header = field.clone().object()?;
        let name = header
            .required("name", "the header's name")
            .and_then(|f| f.non_empty_text());
        let value = header.text("value").unwrap_or_default();
        Some((name?, value))
    });
    let headers = headers.collect();
    let port = object.required("port", "the port to ask")?;
    let path: Text = if path.starts_with('/') {
        path
    } else {
        format!("/{path}").into()
    };
    Some(ProbeCheck::Http {
        port: port_of(&port, ports)?,
        path,
        headers,
    })
}

/// A number, or the name of one of the container's ports.
fn port_of(field: &Field<'_>, ports: &Ports<'_>) -> Option<u16> {
    match &field.node.value {
        Value::Scalar(scalar) if scalar.style == Style::Plain && scalar.text.parse::<i128>().is_ok() => {
            field.port()
        }
        _ => {
            let name = field.non_empty_text()?;
            let ports = match ports {
                Ports::Known(ports) => ports,
                Ports::Later(named) => {
                    named.replace(Some((name, field.origin())));
                    return Some(0);
                }
            };
            let found = ports
                .iter()
                .find(|port| port.name == name)
                .map(|port| port.number);
            if found.is_none() {
                let (message, hint) = no_such_port(&name, ports);
                field.error(codes::PORT_NOT_FOUND, message, hint);
            }
            found
        }
    }
}
