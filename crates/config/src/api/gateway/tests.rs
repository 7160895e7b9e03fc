//! What is read of a gateway, what is refused with its place, and what is found beside it.

use crate::{LoadOptions, Loaded, Report, Source, load, model::*};

fn read(text: &str) -> Loaded {
    load(&[Source::new("edge.yaml", text)], &LoadOptions::default())
}

fn gateway(server: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: edge, namespace: lab}}\n\
         spec:\n  selector: {{istio: ingressgateway}}\n  servers:\n  - {server}\n"
    )
}

fn findings(text: &str) -> String {
    Report::new(&read(text)).to_string()
}

const HTTP: &str = "{port: {number: 80, name: http, protocol: HTTP}, hosts: [\"*\"]}";

fn with_tls(tls: &str) -> String {
    gateway(&format!(
        "{{port: {{number: 443, name: https, protocol: HTTPS}}, hosts: [a.example.com], tls: {tls}}}"
    ))
}

#[test]
fn hosts_keep_the_namespaces_that_they_are_for() {
    let loaded = read(&gateway(
        "{port: {number: 80, name: http, protocol: http2}, hosts: [\"*/a.example.com\", ./b.example.com, shop/*.example.com]}",
    ));
    let [gateway] = &loaded.gateways[..] else {
        panic!("{:?}", loaded.diagnostics)
    };
    let hosts: Vec<_> = gateway.servers[0]
        .hosts
        .iter()
        .map(|one| (one.namespace.as_deref(), one.host.as_str()))
        .collect();
    assert_eq!(
        hosts,
        [
            (None, "a.example.com"),
            (Some("lab"), "b.example.com"),
            (Some("shop"), "*.example.com")
        ]
    );
    assert_eq!(gateway.servers[0].protocol, GatewayProtocol::Http);
}

#[test]
fn what_decides_who_may_connect_is_never_left_out() {
    for (tls, named) in [
        (
            "{mode: SIMPLE, credentialName: a, verifyCertificateHash: [aa]}",
            "tls.verifyCertificateHash",
        ),
        (
            "{mode: SIMPLE, credentialName: a, verifyCertificateSpki: [aa]}",
            "tls.verifyCertificateSpki",
        ),
        ("{mode: SIMPLE, credentialName: a, caCrl: /crl}", "tls.caCrl"),
        (
            "{mode: SIMPLE, credentialName: a, cipherSuites: [X]}",
            "tls.cipherSuites",
        ),
        ("{mode: AUTO_PASSTHROUGH}", "tls.mode"),
        ("{mode: SIMPLE}", "there is no certificate to show"),
        (
            "{mode: MUTUAL, serverCertificate: /c, privateKey: /k}",
            "nothing to judge clients",
        ),
        (
            "{mode: SIMPLE, credentialName: a, subjectAltNames: [x]}",
            "tls.subjectAltNames",
        ),
        ("{mode: SIMPLE, credentialNames: [a, b]}", "one is supported"),
        (
            "{mode: SIMPLE, credentialName: a, maxProtocolVersion: TLSV1_1}",
            "tls.maxProtocolVersion",
        ),
        (
            "{mode: SIMPLE, credentialName: a, minProtocolVersion: TLSV1_3, maxProtocolVersion: TLSV1_2}",
            "above the highest",
        ),
        ("{mode: PASSTHROUGH, credentialName: a}", "uses no certificate"),
        ("{mode: SIMPLE, credentialName: a, typo: 1}", "typo"),
    ] {
        let text = with_tls(tls);
        assert!(read(&text).gateways.is_empty(), "{tls} is used");
        let said = findings(&text);
        assert!(said.contains(named) && said.contains("error["), "{tls}:\n{said}");
    }
}

#[test]
fn servers_that_make_no_sense_are_refused() {
    for server in [
        "{port: {number: 80, name: http, protocol: HTTP}, hosts: [short]}",
        "{port: {number: 80, name: http, protocol: HTTP}, hosts: [\"~/a.example.com\"]}",
        "{port: {number: 80, name: http, protocol: HTTP}, hosts: []}",
        "{port: {number: 80, protocol: HTTP}, hosts: [\"*\"]}",
        "{port: {number: 80, name: http, protocol: SMTP}, hosts: [\"*\"]}",
        "{port: {number: 80, name: http, protocol: HTTP}, bind: \"unix:///a\", hosts: [\"*\"]}",
        "{port: {number: 80, name: http, protocol: HTTP}, hosts: [\"*\"], tls: {mode: SIMPLE, credentialName: a}}",
        "{port: {number: 443, name: https, protocol: HTTPS}, hosts: [\"*\"]}",
    ] {
        assert!(read(&gateway(server)).gateways.is_empty(), "{server} is used");
    }
    let twice = gateway(&format!("{HTTP}\n  - {HTTP}"));
    assert!(
        findings(&twice).contains("used by an earlier server"),
        "{}",
        findings(&twice)
    );
}

#[test]
fn the_default_ingress_gateway_comes_with_its_service_and_not_beside_one_of_the_sources() {
    let loaded = read(&gateway(HTTP));
    let names: Vec<_> = loaded
        .deployments
        .iter()
        .map(|one| (&*one.name, one.gateway))
        .collect();
    assert_eq!(names, [("istio-ingressgateway", true)]);
    let ports: Vec<_> = loaded
        .services
        .iter()
        .flat_map(|one| &one.ports)
        .map(|port| (port.number, port.target.clone()))
        .collect();
    assert_eq!(ports, [(80, TargetPort::Number(8080))]);

    let own = format!(
        "{}---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: edge, namespace: lab}}\nspec:\n  \
         selector: {{matchLabels: {{istio: ingressgateway}}}}\n  template:\n    metadata:\n      \
         labels: {{istio: ingressgateway}}\n      annotations: {{inject.istio.io/templates: gateway}}\n    \
         spec: {{containers: [{{name: istio-proxy, image: auto}}]}}\n",
        gateway(HTTP)
    );
    let loaded = read(&own);
    let names: Vec<_> = loaded
        .deployments
        .iter()
        .map(|one| (&*one.name, one.gateway))
        .collect();
    assert_eq!(names, [("edge", true)]);
    assert!(!findings(&own).contains("RJ00"), "{}", findings(&own));
}

#[test]
fn a_secret_is_read_in_both_forms_and_never_shown() {
    let pair = "tls.crt: \"-----BEGIN CERTIFICATE-----\\nc2VjcmV0\"\n  tls.key: \"-----BEGIN PRIVATE KEY-----\\nc2VjcmV0\"\n";
    let text = format!(
        "{}---\napiVersion: v1\nkind: Secret\nmetadata: {{name: a, namespace: istio-system}}\nstringData:\n  {pair}",
        with_tls("{mode: SIMPLE, credentialName: a}")
    );
    assert!(!findings(&text).contains("RJ0089"), "{}", findings(&text));
    let loaded = read(&text);
    assert!(loaded.secrets[0].key_pair().is_some());
    assert!(!format!("{:?}", loaded.secrets).contains("c2VjcmV0"));
    let other = text.replace("namespace: istio-system", "namespace: lab");
    assert!(
        findings(&other).contains("it is in `lab`"),
        "{}",
        findings(&other)
    );
    let mutual = text.replace("SIMPLE", "MUTUAL");
    assert!(findings(&mutual).contains("a-cacert"), "{}", findings(&mutual));
}

#[test]
fn ports_that_disagree_and_hosts_that_are_claimed_twice_are_named() {
    let second = |server: &str| {
        format!(
            "{}---\n{}",
            gateway(HTTP),
            gateway(server).replace("name: edge", "name: second")
        )
    };
    let said = findings(&second(
        "{port: {number: 80, name: tls, protocol: TLS}, hosts: [\"*\"], tls: {mode: PASSTHROUGH}}",
    ));
    assert!(said.contains("with TLS and without"), "{said}");
    let tls =
        "{port: {number: 443, name: tls, protocol: TLS}, hosts: [a.example.com], tls: {mode: PASSTHROUGH}}";
    let twice = format!(
        "{}---\n{}",
        gateway(tls),
        gateway(tls).replace("name: edge", "name: second")
    );
    assert!(findings(&twice).contains("comes first"), "{}", findings(&twice));
}
