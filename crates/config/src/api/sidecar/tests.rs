use crate::{
    LoadOptions, Loaded, Source, check, load,
    model::{OutboundPolicy, Protocol},
};

const SERVICE: &str = "---\napiVersion: v1\nkind: Service\nmetadata: {name: api, namespace: shop}\nspec:\n  \
                       ports: [{name: http, port: 80}]\n";

fn read(spec: &str) -> (Loaded, Vec<String>) {
    let text = format!(
        "apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {{name: default, namespace: shop}}\nspec: {spec}\n{SERVICE}"
    );
    let loaded = load(&[Source::new("t.yaml", text)], &LoadOptions::default());
    let relations = check(&loaded);
    let said = loaded
        .diagnostics
        .iter()
        .chain(&relations)
        .filter(|it| &*it.origin.object.kind == "Sidecar")
        .map(|it| format!("{}: {}", it.origin.field_path, it.message))
        .collect();
    (loaded, said)
}

#[test]
fn each_field_is_read() {
    let (loaded, said) = read(
        "{workloadSelector: {labels: {app: web}}, outboundTrafficPolicy: {mode: ALLOW_ANY}, \
         egress: [{hosts: ['./*', '*/api.shop.svc.cluster.local']}, {captureMode: DEFAULT, hosts: ['other/*.example.com', '~/*']}], \
         ingress: [{port: {number: 9080, protocol: HTTP, name: http}, defaultEndpoint: '127.0.0.1:8080', \
         connectionPool: {tcp: {maxConnections: 3}}}, {port: {number: 9090, name: tcp-x}}], \
         inboundConnectionPool: {http: {http2MaxRequests: 7}}}",
    );
    assert_eq!(said, Vec::<String>::new());
    let sidecar = &loaded.sidecars[0];
    assert_eq!(
        sidecar.selector.as_ref().and_then(|it| it.find("app")),
        Some("web")
    );
    assert_eq!(sidecar.outbound_policy, Some(OutboundPolicy::AllowAny));
    let egress: Vec<_> = sidecar.egress.iter().flatten().collect();
    assert_eq!(egress.len(), 3, "`~/*` is nothing");
    assert_eq!(
        (egress[0].namespace.as_deref(), &egress[0].host),
        (Some("shop"), &None)
    );
    assert_eq!(egress[1].namespace, None);
    assert_eq!(
        egress[2].host.as_ref().map(rajut_types::Hostname::as_str),
        Some("*.example.com")
    );
    assert_eq!(
        (sidecar.ingress[0].port, sidecar.ingress[0].protocol),
        (9080, Protocol::Http)
    );
    assert_eq!(sidecar.ingress[0].endpoint.map(|it| it.port()), Some(8080));
    assert_eq!(
        sidecar.ingress[0].pool.as_ref().and_then(|it| it.max_connections),
        Some(3)
    );
    assert_eq!(sidecar.ingress[1].protocol, Protocol::Tcp);
    assert_eq!(
        sidecar.inbound_pool.as_ref().and_then(|it| it.http2_max_requests),
        Some(7)
    );
    let (loaded, _) = read("{outboundTrafficPolicy: {}}");
    assert_eq!(
        loaded.sidecars[0].outbound_policy,
        Some(OutboundPolicy::RegistryOnly)
    );
    assert_eq!(loaded.sidecars[0].egress, None);
}

#[test]
fn each_mistake_is_named_where_it_stands() {
    for (spec, wanted) in [
        ("{egress: [{}]}", "spec.egress[0]: `hosts` is missing"),
        ("{egress: [{hosts: []}]}", "spec.egress[0].hosts: there must be"),
        (
            "{egress: [{hosts: [api]}]}",
            "spec.egress[0].hosts[0]: `api` names no namespace",
        ),
        ("{egress: [{hosts: ['./a b']}]}", "spec.egress[0].hosts[0]"),
        ("{egress: [{hosts: ['A_/x.y']}]}", "spec.egress[0].hosts[0]"),
        (
            "{egress: [{hosts: ['~a/*']}]}",
            "spec.egress[0].hosts[0]: leaving out",
        ),
        (
            "{egress: [{hosts: ['./*'], port: {number: 80}}]}",
            "spec.egress[0].port: `port` is not supported",
        ),
        (
            "{egress: [{hosts: ['./*'], bind: 127.0.0.1}]}",
            "spec.egress[0].bind: `bind` is not supported",
        ),
        (
            "{egress: [{hosts: ['./*'], captureMode: NONE}]}",
            "spec.egress[0].captureMode: `captureMode: NONE`",
        ),
        (
            "{egress: [{hosts: ['./*'], captureMode: X}]}",
            "spec.egress[0].captureMode",
        ),
        (
            "{egress: [{hosts: ['./gone.example']}]}",
            "spec.egress: no service",
        ),
        ("{ingress: [{}]}", "spec.ingress[0]: `port` is missing"),
        (
            "{ingress: [{port: {}}]}",
            "spec.ingress[0].port: `number` is missing",
        ),
        (
            "{ingress: [{port: {number: 80}}, {port: {number: 80}}]}",
            "spec.ingress[1].port.number: the port 80",
        ),
        (
            "{ingress: [{port: {number: 80, protocol: X}}]}",
            "spec.ingress[0].port.protocol: the protocol",
        ),
        (
            "{ingress: [{port: {number: 80}, defaultEndpoint: 'unix:///a'}]}",
            "spec.ingress[0].defaultEndpoint: a Unix",
        ),
        (
            "{ingress: [{port: {number: 80}, defaultEndpoint: '192.0.2.1:1'}]}",
            "spec.ingress[0].defaultEndpoint: `192",
        ),
        (
            "{ingress: [{port: {number: 80}, defaultEndpoint: '127.0.0.1:0'}]}",
            "spec.ingress[0].defaultEndpoint: `127",
        ),
        (
            "{ingress: [{port: {number: 80}, tls: {mode: SIMPLE}}]}",
            "spec.ingress[0].tls: `tls` is not supported",
        ),
        (
            "{ingress: [{port: {number: 80}, bind: 1.1.1.1}]}",
            "spec.ingress[0].bind: `bind` is not supported",
        ),
        (
            "{outboundTrafficPolicy: {mode: X}}",
            "spec.outboundTrafficPolicy.mode",
        ),
        (
            "{outboundTrafficPolicy: {egressProxy: {host: a}}}",
            "spec.outboundTrafficPolicy.egressProxy",
        ),
        (
            "{inboundConnectionPool: {tcp: {maxConnections: -1}}}",
            "spec.inboundConnectionPool.tcp.maxConnections",
        ),
        ("{workloadSelector: {labels: 1}}", "spec.workloadSelector.labels"),
        ("{nonsense: 1}", "spec.nonsense"),
    ] {
        let (_, said) = read(spec);
        assert!(said.iter().any(|it| it.starts_with(wanted)), "{spec}: {said:?}");
    }
}

#[test]
fn what_leads_nowhere_is_told() {
    let (_, said) = read("{workloadSelector: {labels: {app: nobody}}}");
    assert_eq!(
        said,
        Vec::<String>::new(),
        "no workload is known, so nothing can be said"
    );
    let text = "apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {name: NAME, namespace: shop}\nspec: {egress: [{hosts: ['./*']}]}\n";
    let both = format!("{}---\n{}", text.replace("NAME", "a"), text.replace("NAME", "b"));
    let loaded = load(&[Source::new("t.yaml", both)], &LoadOptions::default());
    let said = check(&loaded);
    assert!(
        said.iter().any(|it| it.message.contains("is not used")),
        "{said:?}"
    );
}
