//! What relations say, found and left alone.

use crate::{LoadOptions, Loaded, Source, check, load};

fn read(text: &str) -> Loaded {
    load(&[Source::new("a.yaml", text)], &LoadOptions::default())
}

/// The code and message of each finding, of reading and of relations.
fn findings(text: &str) -> Vec<String> {
    let loaded = read(text);
    let relations = check(&loaded);
    let all = loaded.diagnostics.iter().chain(&relations);
    all.map(|found| format!("{} {} {}", found.code, found.origin.field_path, found.message))
        .collect()
}

const WORKLOADS: &str = "\
apiVersion: mesh.rajut.dev/v1alpha1
kind: LocalWorkload
metadata: {name: api}
spec: {labels: {app: api, tier: web}, serviceAccount: api, run: 'true'}
---
apiVersion: mesh.rajut.dev/v1alpha1
kind: LocalWorkload
metadata: {name: files}
spec: {labels: {app: files, tier: web}, serviceAccount: files, run: 'true'}
---
apiVersion: v1
kind: Namespace
metadata: {name: clinic}
---
";

#[test]
fn of_several_objects_that_select_a_workload_the_later_are_named() {
    for (kind, version, selector) in [
        (
            "Sidecar",
            "networking.istio.io/v1",
            "workloadSelector: {labels: {KEY}}",
        ),
        (
            "Telemetry",
            "telemetry.istio.io/v1",
            "selector: {matchLabels: {KEY}}",
        ),
        (
            "PeerAuthentication",
            "security.istio.io/v1",
            "selector: {matchLabels: {KEY}}",
        ),
    ] {
        let object = |name: &str, key: &str| {
            let selector = selector.replace("KEY", key);
            format!(
                "apiVersion: {version}\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {{{selector}}}\n---\n"
            )
        };
        let apart = format!(
            "{WORKLOADS}{}{}",
            object("a", "app: api"),
            object("b", "app: files")
        );
        assert_eq!(findings(&apart), Vec::<String>::new(), "{kind}");

        let over = format!(
            "{WORKLOADS}{}{}",
            object("a", "app: api"),
            object("b", "tier: web")
        );
        let found = findings(&over);
        assert_eq!(found.len(), 1, "{found:?}");
        let message = found.first().expect("one");
        assert!(message.contains("RJ0078"), "{message}");
        assert!(message.contains("not used for `api`"), "{message}");
        assert!(message.contains(&format!("{kind} default/a")), "{message}");

        let same = format!(
            "{WORKLOADS}{}{}",
            object("a", "tier: web"),
            object("b", "tier: web")
        );
        let found = findings(&same);
        assert!(
            found.iter().any(|it| it.contains("`api` and 1 more")),
            "{found:?}"
        );
    }
}

fn policy(source: &str) -> String {
    format!(
        "{WORKLOADS}apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: p}}\nspec:\n  rules:\n  - from:\n    - source: {{ipBlocks: [10.0.0.0/8]}}\n    - source: {source}\n"
    )
}

#[test]
fn a_caller_that_is_not_there_is_named_where_its_neighbours_are() {
    for (source, path, hint) in [
        (
            "{principals: [cluster.local/ns/default/sa/apy]}",
            "principals[0]",
            "`apy`",
        ),
        (
            "{principals: ['*', cluster.local/ns/default/sa/nobody]}",
            "principals[1]",
            "`nobody`",
        ),
        (
            "{notPrincipals: [cluster.local/ns/default/sa/fils]}",
            "notPrincipals[0]",
            "`fils`",
        ),
        (
            "{principals: [cluster.local/ns/defualt/sa/api]}",
            "principals[0]",
            "no namespace `defualt`",
        ),
        ("{serviceAccounts: [fiels]}", "serviceAccounts[0]", "`fiels`"),
        ("{namespaces: [clinik]}", "namespaces[0]", "no namespace `clinik`"),
        (
            "{notNamespaces: [clinik]}",
            "notNamespaces[0]",
            "no namespace `clinik`",
        ),
    ] {
        let found = findings(&policy(source));
        assert_eq!(found.len(), 1, "{source}: {found:?}");
        let message = found.first().expect("one");
        assert!(message.contains("RJ0091"), "{message}");
        assert!(
            message.contains(&format!("spec.rules[0].from[1].source.{path}")),
            "{message}"
        );
        assert!(message.contains(hint), "{message}");
    }
}

#[test]
fn a_caller_that_is_there_or_may_be_elsewhere_is_not_named() {
    for source in [
        "{principals: [cluster.local/ns/default/sa/api]}",
        "{principals: [cluster.local/ns/default/sa/*, '*/sa/files']}",
        // Another mesh's, and one of a namespace of which nothing is known.
        "{principals: [partner.example/ns/default/sa/apy, cluster.local/ns/monitoring/sa/prometheus]}",
        "{principals: [cluster.local/ns/clinic/sa/anybody]}",
        "{namespaces: [clinic, default, observability]}",
        "{principals: [cluster.local/ns/istio-system/sa/istio-ingressgateway-service-account]}",
        "{serviceAccounts: [files, monitoring/prometheus]}",
    ] {
        assert_eq!(findings(&policy(source)), Vec::<String>::new(), "{source}");
    }
    // A workload that was left out because of an error of its own may be the one.
    let broken = format!(
        "{}---\napiVersion: mesh.rajut.dev/v1alpha1\nkind: LocalWorkload\nmetadata: {{name: apy}}\nspec: {{run: 7, serviceAccount: apy}}\n",
        policy("{principals: [cluster.local/ns/default/sa/apy]}")
    );
    let found = findings(&broken);
    assert!(
        !found.is_empty() && !found.iter().any(|it| it.contains("RJ0091")),
        "{found:?}"
    );
}

#[test]
fn routes_without_hosts_that_nobody_delegates_to_are_named() {
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: api}\nspec: {ports: [{name: http, port: 80}]}\n---\n";
    let child = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: child}\nspec: {http: [{route: [{destination: {host: api}}]}]}\n---\n";
    let root = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: root}\nspec: {hosts: [api], http: [{delegate: {name: child}}]}\n";
    let alone = findings(&format!("{service}{child}"));
    assert!(
        alone
            .iter()
            .any(|it| it.contains("RJ0062") && it.contains("nothing is delegated")),
        "{alone:?}"
    );
    let both = findings(&format!("{service}{child}{root}"));
    assert!(!both.iter().any(|it| it.contains("RJ0062")), "{both:?}");
}
