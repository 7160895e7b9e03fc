//! Istio `Gateway`.
//!
//! Nothing that decides who may connect is left out in silence: what is not followed there is an error, and the object is
//! then not used.

use std::collections::BTreeSet;

use rajut_types::{Hostname, Severity, Text};

use super::meta::{self, NameForm};
use crate::{
    codes,
    model::{
        Credential, Gateway, GatewayHost, GatewayProtocol, GatewayServer, ServerTls, ServerTlsMode,
        TlsProtocol,
    },
    read::{Field, Object, shown},
};

/// Servers of one gateway; a hundred are many.
const SERVERS_MAX: usize = 1_000;
/// Hosts of one server.
const HOSTS_MAX: usize = 1_000;

pub(crate) fn read(root: &Object<'_>) -> Option<Gateway> {
    let meta = meta::read(root, NameForm::Subdomain);
    let spec = root
        .required("spec", "add `spec:` with `selector:` and `servers:`")?
        .object()?;
    let selector = spec.labels("selector");
    if selector.is_empty() {
        spec.field().say_key(
            Severity::Warning,
            codes::GATEWAY_SELECTOR,
            "without a selector every gateway workload serves this",
            "name the workload's labels, e.g. `selector: {istio: ingressgateway}`",
        );
    }
    let items = spec
        .required("servers", "add `servers:`, each with `port:` and `hosts:`")
        .map_or_else(Vec::new, |field| {
            let items = field.list();
            if items.is_empty() || items.len() > SERVERS_MAX {
                let message = format!("there are {} servers", items.len());
                let hint = format!("write 1 to {SERVERS_MAX}");
                field.say_key(Severity::Error, codes::OUT_OF_RANGE, message, hint);
            }
            items
        });
    let mut names = BTreeSet::new();
    let servers = items
        .iter()
        .filter_map(|field| server(field, &mut names))
        .collect();
    let meta = meta?;
    Some(Gateway {
        name: meta.name,
        namespace: meta.namespace,
        selector,
        servers,
        origin: root.field().origin(),
        age: meta.age,
    })
}

fn server(field: &Field<'_>, names: &mut BTreeSet<Text>) -> Option<GatewayServer> {
    let object = field.clone().object()?;
    let name = object.text("name").unwrap_or_default();
    object.unsupported(&["defaultEndpoint"], "Istio does not use it either");
    let port = object
        .required("port", "add `port: {number: 80, name: http, protocol: HTTP}`")
        .and_then(|field| port(&field, names));
    let bind = object.get("bind").and_then(|field| bind(&field));
    let hosts = hosts(&object);
    let tls_field = object.get("tls");
    let (number, port_name, protocol) = port?;
    let (tls, https_redirect) = match (tls_field, protocol) {
        (Some(field), GatewayProtocol::Http) => (None, redirect_only(&field)?),
        (Some(field), _) => (Some(tls(&field)?), false),
        (None, GatewayProtocol::Https | GatewayProtocol::Tls) => {
            field.say_key(
                Severity::Error,
                codes::GATEWAY_TLS,
                "a server with TLS needs `tls`",
                "write `tls: {mode: SIMPLE, credentialName: …}`, or `mode: PASSTHROUGH` to leave it to the application",
            );
            return None;
        }
        (None, _) => (None, false),
    };
    let protocol = match (protocol, &tls) {
        (GatewayProtocol::Tcp, Some(_)) => GatewayProtocol::Tls,
        (other, _) => other,
    };
    Some(GatewayServer {
        name,
        port: number,
        port_name,
        protocol,
        bind,
        hosts,
        tls,
        https_redirect,
        origin: field.origin(),
    })
}

fn port(field: &Field<'_>, names: &mut BTreeSet<Text>) -> Option<(u16, Text, GatewayProtocol)> {
    let object = field.clone().object()?;
    object.unsupported(
        &["targetPort"],
        "the gateway's Service says which port of the workload it is",
    );
    let number = object
        .required("number", "the port that clients dial")
        .and_then(|field| field.port());
    let name = object.required("name", "every port of a gateway needs a name of its own");
    let name = name.and_then(|field| {
        let name = field.non_empty_text()?;
        if !names.insert(name.clone()) {
            field.error(
                codes::DUPLICATE_NAME,
                format!("the port name `{}` is used by an earlier server", shown(&name)),
                "give each server's port a name of its own",
            );
        }
        Some(name)
    });
    let protocol = object
        .required("protocol", "e.g. `protocol: HTTP`")
        .and_then(|field| protocol(&field));
    Some((number?, name?, protocol?))
}

/// Istio takes any case of letters.
fn protocol(field: &Field<'_>) -> Option<GatewayProtocol> {
    let text = field.text()?;
    let found = match text.to_ascii_uppercase().as_str() {
        "HTTP" | "HTTP2" | "GRPC" | "GRPC-WEB" => GatewayProtocol::Http,
        "HTTPS" => GatewayProtocol::Https,
        "TLS" => GatewayProtocol::Tls,
        "TCP" | "MONGO" | "MYSQL" | "REDIS" => GatewayProtocol::Tcp,
        _ => {
            field.error(
                codes::GATEWAY_PORT,
                format!("`{}` is not a protocol of a gateway's port", shown(&text)),
                "write HTTP, HTTPS, HTTP2, GRPC, TLS or TCP",
            );
            return None;
        }
    };
    Some(found)
}

fn bind(field: &Field<'_>) -> Option<std::net::IpAddr> {
    if field.node.text().is_some_and(|text| text.starts_with("unix://")) {
        field.error(
            codes::NOT_SUPPORTED,
            "listening on a Unix socket is not supported",
            "write an IP address, or leave `bind` out",
        );
        return None;
    }
    field.ip()
}

fn hosts(object: &Object<'_>) -> Vec<GatewayHost> {
    let Some(field) = object.required("hosts", "add `hosts:`, e.g. `[\"*.example.com\"]`") else {
        return Vec::new();
    };
    let items = field.list();
    if items.is_empty() || items.len() > HOSTS_MAX {
        let message = format!("there are {} hosts", items.len());
        field.say_key(
            Severity::Error,
            codes::OUT_OF_RANGE,
            message,
            format!("write 1 to {HOSTS_MAX}; `\"*\"` is every host"),
        );
    }
    items.iter().filter_map(host).collect()
}

fn host(field: &Field<'_>) -> Option<GatewayHost> {
    let text = field.text()?;
    let (namespace, name) = match text.split_once('/') {
        Some((namespace, name)) => (Some(namespace), name),
        None => (None, &*text),
    };
    let namespace = match namespace {
        None | Some("*") => None,
        Some(".") => Some(field.scope().namespace().clone()),
        Some("~" | "") => {
            field.error(
                codes::GATEWAY_HOST,
                format!("`{}` names no namespace", shown(&text)),
                "write `namespace/host`, `./host` for this namespace, or the host alone for all",
            );
            return None;
        }
        Some(other) => meta::check_name(field, other, NameForm::Label).then(|| Text::from(other)),
    };
    let host: Hostname = match name.parse() {
        Ok(host) => host,
        Err(error) => {
            field.error(
                codes::GATEWAY_HOST,
                format!("{error}"),
                "write a host such as `shop.example.com`",
            );
            return None;
        }
    };
    if !host.is_wildcard() && !host.as_str().contains('.') {
        field.error(
            codes::GATEWAY_HOST,
            format!("`{host}` is a short name: clients outside the mesh send full ones"),
            "write the full name, e.g. `shop.example.com`",
        );
        return None;
    }
    Some(GatewayHost { namespace, host })
}

/// The `tls` of an HTTP server, which can only send its clients elsewhere.
fn redirect_only(field: &Field<'_>) -> Option<bool> {
    let object = field.clone().object()?;
    let redirect = object.bool("httpsRedirect").unwrap_or(false);
    let others = [
        "mode",
        "credentialName",
        "credentialNames",
        "serverCertificate",
        "privateKey",
        "caCertificates",
        "tlsCertificates",
        "caCertCredentialName",
        "caCrl",
        "subjectAltNames",
        "verifyCertificateSpki",
        "verifyCertificateHash",
        "minProtocolVersion",
        "maxProtocolVersion",
        "cipherSuites",
        "insecureSkipVerify",
    ];
    for name in others {
        if let Some(field) = object.get(name) {
            field.say_key(
                Severity::Error,
                codes::GATEWAY_TLS,
                format!("an HTTP server speaks no TLS: of `tls` it can have `httpsRedirect` only, and not `{name}`"),
                "write `protocol: HTTPS`, or take it out",
            );
        }
    }
    Some(redirect)
}

fn tls(field: &Field<'_>) -> Option<ServerTls> {
    let object = field.clone().object()?;
    if let Some(redirect) = object.get("httpsRedirect")
        && redirect.bool() == Some(true)
    {
        redirect.say_key(
            Severity::Error,
            codes::GATEWAY_TLS,
            "`httpsRedirect` is for a server with `protocol: HTTP`",
            "add a server for the port 80 with `tls: {httpsRedirect: true}`",
        );
    }
    object.refused(
        &["caCrl"],
        "revocation lists are not read, and without it revoked certificates would be let in",
    );
    object.refused(
        &["insecureSkipVerify"],
        "clients' certificates are always verified",
    );
    object.refused(
        &["cipherSuites"],
        "the library's suites are used, all of them with forward secrecy and authenticated encryption",
    );
    let mode = mode(&object);
    let credential = credential(&object);
    let subject_alt_names = object.texts("subjectAltNames");
    let key_pins = pins(
        &object,
        "verifyCertificateSpki",
        is_key_pin,
        "the SHA-256 of a public key in base64",
    );
    let certificate_pins = pins(
        &object,
        "verifyCertificateHash",
        is_certificate_pin,
        "the SHA-256 of a certificate in hexadecimal",
    );
    let min_version = version(&object, "minProtocolVersion");
    let max_version = version(&object, "maxProtocolVersion");
    if min_version.zip(max_version).is_some_and(|(min, max)| min > max) {
        object.field().say_key(
            Severity::Error,
            codes::GATEWAY_TLS,
            "the lowest TLS version is above the highest",
            "",
        );
    }
    let mode = mode?;
    check_credential(&object, mode, credential.as_ref());
    judges_clients(&object, mode);
    Some(ServerTls {
        mode,
        credential: credential.filter(|_| needs_credential(mode)),
        subject_alt_names,
        key_pins,
        certificate_pins,
        min_version,
        max_version,
        origin: field.origin(),
    })
}

/// Certificates that are taken, each as `is_pin` has it.
fn pins(object: &Object<'_>, name: &'static str, is_pin: fn(&str) -> bool, what: &str) -> Vec<Text> {
    let mut all = Vec::new();
    for item in object.values(name) {
        let Some(text) = item.text() else { continue };
        if is_pin(&text) {
            all.push(text);
        } else {
            item.error(
                codes::GATEWAY_TLS,
                format!("`{}` is not {what}", shown(&text)),
                "openssl tells it: see the guide, docs/guide/gateways.md",
            );
        }
    }
    all
}

fn is_key_pin(text: &str) -> bool {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    STANDARD.decode(text).is_ok_and(|bytes| bytes.len() == 32)
}

/// 64 digits, or 32 pairs with colons between them.
fn is_certificate_pin(text: &str) -> bool {
    let hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let pairs = || text.split(':').all(|pair| pair.len() == 2 && hex(pair));
    (text.len() == 64 && hex(text)) || (text.len() == 95 && pairs())
}

/// Reports conditions on clients' certificates where the mode asks for none.
fn judges_clients(object: &Object<'_>, mode: ServerTlsMode) {
    for name in [
        "subjectAltNames",
        "verifyCertificateSpki",
        "verifyCertificateHash",
    ] {
        let field = object.get(name).filter(|_| !asks_for_client(mode));
        if let Some(field) = field.filter(|field| !field.list().is_empty()) {
            field.say_key(
                Severity::Error,
                codes::GATEWAY_TLS,
                format!("`{name}` judges clients' certificates, for which this mode does not ask"),
                "write `mode: MUTUAL`, or take it out",
            );
        }
    }
}

const fn asks_for_client(mode: ServerTlsMode) -> bool {
    matches!(
        mode,
        ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual | ServerTlsMode::IstioMutual
    )
}

const fn needs_credential(mode: ServerTlsMode) -> bool {
    matches!(
        mode,
        ServerTlsMode::Simple | ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual
    )
}

fn mode(object: &Object<'_>) -> Option<ServerTlsMode> {
    let Some(field) = object.get("mode") else {
        object.field().say_key(
            Severity::Warning,
            codes::GATEWAY_TLS,
            "`tls` without `mode` is PASSTHROUGH: the application ends TLS itself",
            "write `mode: SIMPLE` with a certificate, or `mode: PASSTHROUGH`",
        );
        return Some(ServerTlsMode::Passthrough);
    };
    if field.node.text() == Some("AUTO_PASSTHROUGH") {
        field.error(
            codes::NOT_SUPPORTED,
            "AUTO_PASSTHROUGH is not supported: it joins the networks of several clusters, and there is one",
            "write `mode: PASSTHROUGH` and a VirtualService with `tls` routes",
        );
        return None;
    }
    field.choice(&[
        ("SIMPLE", ServerTlsMode::Simple),
        ("MUTUAL", ServerTlsMode::Mutual),
        ("OPTIONAL_MUTUAL", ServerTlsMode::OptionalMutual),
        ("ISTIO_MUTUAL", ServerTlsMode::IstioMutual),
        ("PASSTHROUGH", ServerTlsMode::Passthrough),
    ])
}

fn credential(object: &Object<'_>) -> Option<Credential> {
    let set = object.one_of(&[
        "credentialName",
        "credentialNames",
        "tlsCertificates",
        "serverCertificate",
    ]);
    let roots_secret = object
        .get("caCertCredentialName")
        .and_then(|field| secret_name(&field));
    let roots_file = object.text("caCertificates").filter(|path| !path.is_empty());
    let key = object.text("privateKey").filter(|path| !path.is_empty());
    match set.first().copied() {
        Some("credentialName") => {
            if let (Some(_), Some(field)) = (&roots_file, object.get("caCertificates")) {
                field.say_key(
                    Severity::Error,
                    codes::EXCLUSIVE,
                    "with `credentialName` the roots come from the secret, too",
                    "put them into the secret as `ca.crt`, or into `<name>-cacert`",
                );
            }
            Some(Credential::Secret {
                name: secret_name(&object.get("credentialName")?)?,
                roots: roots_secret,
            })
        }
        Some("credentialNames") => Some(Credential::Secret {
            name: secret_name(&only(&object.get("credentialNames")?)?)?,
            roots: roots_secret,
        }),
        Some("tlsCertificates") => {
            let pair = only(&object.get("tlsCertificates")?)?.object()?;
            let roots = pair.text("caCertificates").or(roots_file);
            Some(Credential::Files {
                chain: pair
                    .required("serverCertificate", "the certificate's file")?
                    .non_empty_text()?,
                key: pair.required("privateKey", "the key's file")?.non_empty_text()?,
                roots,
            })
        }
        Some(_) => Some(Credential::Files {
            chain: object.get("serverCertificate")?.non_empty_text()?,
            key: key?,
            roots: roots_file,
        }),
        None => None,
    }
}

/// The only item of a list of which one is followed.
fn only<'a>(field: &Field<'a>) -> Option<Field<'a>> {
    let mut items = field.list();
    if items.len() != 1 {
        field.say_key(
            Severity::Error,
            codes::NOT_SUPPORTED,
            format!("there are {} certificates: one is supported", items.len()),
            "keep one",
        );
        return None;
    }
    items.pop()
}

/// A secret's name; Istio's longer forms name where it is looked for, which here is always the same place.
fn secret_name(field: &Field<'_>) -> Option<Text> {
    let text = field.non_empty_text()?;
    let name = text.strip_prefix("kubernetes://").unwrap_or(&text);
    if name.contains("://") || name.contains('/') {
        field.error(
            codes::NOT_SUPPORTED,
            format!(
                "`{}`: secrets are those of the gateway workload's namespace",
                shown(&text)
            ),
            "write the name of a Secret alone",
        );
        return None;
    }
    Some(name.into())
}

fn check_credential(object: &Object<'_>, mode: ServerTlsMode, credential: Option<&Credential>) {
    let say = |message: &str, hint: &str| {
        object.field().say_key(
            Severity::Error,
            codes::GATEWAY_TLS,
            message.to_owned(),
            hint.to_owned(),
        );
    };
    if !needs_credential(mode) {
        if credential.is_some() {
            say(
                "this mode uses no certificate of its own",
                "take `credentialName` and the files out, or write `mode: SIMPLE`",
            );
        }
        return;
    }
    match credential {
        None => say(
            "there is no certificate to show",
            "write `credentialName:` with the name of a Secret, or `serverCertificate:` and `privateKey:`",
        ),
        Some(Credential::Files { roots: None, .. }) if mode != ServerTlsMode::Simple => say(
            "there is nothing to judge clients' certificates by",
            "write `caCertificates:` with the file of their issuer",
        ),
        Some(_) => {}
    }
}

fn version(object: &Object<'_>, name: &'static str) -> Option<TlsProtocol> {
    let field = object.get(name)?;
    let (is_old, version) = field.choice(&[
        ("TLS_AUTO", (false, None)),
        ("TLSV1_0", (true, None)),
        ("TLSV1_1", (true, None)),
        ("TLSV1_2", (false, Some(TlsProtocol::V1_2))),
        ("TLSV1_3", (false, Some(TlsProtocol::V1_3))),
    ])?;
    if is_old {
        let highest = name == "maxProtocolVersion";
        let severity = if highest {
            Severity::Error
        } else {
            Severity::Warning
        };
        let message = "TLS below 1.2 is never spoken";
        field.say_key(
            severity,
            codes::NOT_SUPPORTED,
            message,
            "write TLSV1_2 or TLSV1_3",
        );
    }
    version
}

#[cfg(test)]
mod tests;
