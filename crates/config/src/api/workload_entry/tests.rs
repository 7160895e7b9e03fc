use crate::{LoadOptions, Loaded, Source, check, load};

fn read(text: &str) -> (Loaded, Vec<String>) {
    let loaded = load(&[Source::new("t.yaml", text)], &LoadOptions::default());
    let relations = check(&loaded);
    let said = loaded
        .diagnostics
        .iter()
        .chain(&relations)
        .map(|it| {
            format!(
                "{} {}: {}",
                it.origin.object.kind, it.origin.field_path, it.message
            )
        })
        .collect();
    (loaded, said)
}

fn entry(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {{name: {name}, namespace: shop}}\nspec: {spec}\n"
    )
}

fn service(resolution: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: old, namespace: shop}}\nspec:\n  \
         hosts: [old.example]\n  location: MESH_INTERNAL\n  resolution: {resolution}\n  \
         ports: [{{number: 80, name: http, protocol: HTTP}}]\n  workloadSelector: {{labels: {{app: old}}}}\n"
    )
}

const KUBERNETES: &str = "---\napiVersion: v1\nkind: Service\nmetadata: {name: old, namespace: shop}\nspec:\n  \
                          selector: {app: old}\n  ports: [{name: http, port: 80, targetPort: 8080}]\n";

fn addresses(loaded: &Loaded, host: &str) -> Vec<String> {
    let service = loaded.services.iter().find(|it| it.host.as_str() == host);
    let endpoints = service.map_or(&[][..], |service| service.endpoints.as_slice());
    endpoints.iter().map(|it| it.address.to_string()).collect()
}

#[test]
fn entries_are_endpoints_of_the_services_that_select_them() {
    let full = "{address: 192.0.2.1, ports: {http: 8081}, labels: {app: old, version: v1}, locality: west/a, weight: 3, serviceAccount: sam}";
    let text = [
        service("STATIC"),
        KUBERNETES.to_owned(),
        entry("one", full),
        entry(
            "two",
            "{address: 192.0.2.2, labels: {app: old, istio-locality: east.b}}",
        ),
        entry("other", "{address: 192.0.2.3, labels: {app: other}}"),
    ];
    let (loaded, said) = read(&text.concat());
    assert_eq!(addresses(&loaded, "old.example"), ["192.0.2.1", "192.0.2.2"]);
    assert_eq!(
        addresses(&loaded, "old.shop.svc.cluster.local"),
        ["192.0.2.1", "192.0.2.2"]
    );
    let endpoints = &loaded.services[0].endpoints;
    assert_eq!(endpoints[0].ports, [("http".into(), 8081)]);
    assert_eq!((endpoints[0].weight, &*endpoints[0].service_account), (3, "sam"));
    assert_eq!(endpoints[0].locality.to_string(), "west/a/");
    assert_eq!(endpoints[1].locality.to_string(), "east/b/");
    assert_eq!(endpoints[0].labels.find("version"), Some("v1"));
    assert!(
        said.iter()
            .any(|it| it.starts_with("WorkloadEntry") && it.contains("no service")),
        "{said:?}"
    );
    assert_eq!(said.len(), 1, "{said:?}");
}

#[test]
fn names_are_for_services_that_look_them_up() {
    let named = entry("one", "{address: vm.example, labels: {app: old}}");
    let (loaded, said) = read(&format!("{}{named}", service("DNS")));
    assert_eq!(addresses(&loaded, "old.example"), ["vm.example"]);
    assert!(said.is_empty(), "{said:?}");
    let (loaded, said) = read(&format!("{}{KUBERNETES}{named}", service("STATIC")));
    assert!(addresses(&loaded, "old.example").is_empty());
    assert!(addresses(&loaded, "old.shop.svc.cluster.local").is_empty());
    assert!(
        said.iter()
            .any(|it| it.starts_with("WorkloadEntry spec.address") && it.contains("vm.example")),
        "{said:?}"
    );
}

#[test]
fn each_mistake_is_refused_where_it_stands() {
    for (spec, wanted) in [
        ("{labels: {app: old}}", "`address` is missing"),
        ("{address: 'not a host'}", "spec.address"),
        ("{address: 'unix://relative'}", "spec.address: a Unix socket"),
        (
            "{address: 'unix:///a.sock', ports: {http: 1}}",
            "spec.address: a Unix socket",
        ),
        ("{address: 192.0.2.1, ports: {http: 70000}}", "spec.ports.http"),
        ("{address: 192.0.2.1, weight: -1}", "spec.weight"),
        ("{address: 192.0.2.1, labels: 3}", "spec.labels"),
        (
            "{address: 192.0.2.1, network: other}",
            "`network` is not supported",
        ),
        ("{address: 192.0.2.1, nonsense: other}", "nonsense"),
    ] {
        let (_, said) = read(&entry("one", spec));
        assert!(said.iter().any(|it| it.contains(wanted)), "{spec}: {said:?}");
    }
}

#[test]
fn a_group_is_judged_and_says_that_nothing_registers() {
    let group = |spec: &str| {
        let text = format!(
            "apiVersion: networking.istio.io/v1\nkind: WorkloadGroup\nmetadata: {{name: g}}\nspec: {spec}\n"
        );
        read(&text).1
    };
    let good = group(
        "{metadata: {labels: {app: a}, annotations: {a: b}}, template: {serviceAccount: a, ports: {http: 80}}, \
         probe: {periodSeconds: 5, httpGet: {path: /ready, port: 80}}}",
    );
    assert!(
        good.iter()
            .any(|it| it.contains("spec.template") && it.contains("registers itself")),
        "{good:?}"
    );
    assert!(
        good.iter()
            .any(|it| it.contains("spec.probe") && it.contains("nobody asks")),
        "{good:?}"
    );
    assert_eq!(good.len(), 2, "{good:?}");
    for (spec, wanted) in [
        ("{}", "`template` is missing"),
        ("{template: {weight: -1}}", "spec.template.weight"),
        (
            "{template: {}, probe: {httpGet: {port: 0}}}",
            "spec.probe.httpGet.port",
        ),
        ("{template: {}, metadata: {labels: 1}}", "spec.metadata.labels"),
        ("{template: {}, nonsense: 1}", "nonsense"),
    ] {
        let said = group(spec);
        assert!(said.iter().any(|it| it.contains(wanted)), "{spec}: {said:?}");
    }
}
