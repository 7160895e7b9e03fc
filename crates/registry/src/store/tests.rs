use std::{fs, path::Path, time::Duration};

use super::*;

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("rajut-registry-{name}-{}", std::process::id()));
        // What an earlier run left behind.
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(path.join("config")).expect("a temporary folder");
        Self(path)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.0.join("config").join(name), text).expect("writable");
    }

    fn options(&self) -> RegistryOptions {
        RegistryOptions {
            paths: vec![self.0.join("config")],
            texts: Vec::new(),
            state: self.0.join("state"),
            default_namespace: "clinic".into(),
            trust_domain: TrustDomain::default(),
        }
    }

    fn registry(&self) -> Registry {
        Registry::open(self.options()).expect("readable")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A leftover folder in the temporary folder does no harm.
        let _ = fs::remove_dir_all(&self.0);
    }
}

const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata:\n  name: auth\nspec:\n  selector: {app: auth}\n  ports:\n  - name: http\n    port: 8080\n";

fn rule(seconds: u32) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata:\n  name: auth\nspec:\n  hosts: [auth]\n  http:\n  - timeout: {seconds}s\n    route:\n    - destination: {{host: auth}}\n"
    )
}

fn timeout(registry: &Registry) -> Vec<Option<Duration>> {
    let snapshot = registry.snapshot();
    snapshot
        .virtual_services
        .iter()
        .flat_map(|rule| rule.http.iter().map(|route| route.timeout))
        .collect()
}

#[test]
fn services_get_virtual_addresses_that_survive_a_restart() {
    let folder = Folder::new("vips");
    folder.write("a.yaml", SERVICE);
    let address = |registry: &Registry| {
        let snapshot = registry.snapshot();
        snapshot
            .services
            .values()
            .next()
            .expect("one service")
            .addresses
            .clone()
    };
    let first = address(&folder.registry());
    assert_eq!(first.len(), 1);
    folder.write("b.yaml", &SERVICE.replace("auth", "billing"));
    assert_eq!(address(&folder.registry()), first);
}

#[test]
fn a_broken_edit_keeps_the_last_good_text_and_says_what_is_wrong() {
    let folder = Folder::new("broken");
    folder.write("service.yaml", SERVICE);
    folder.write("rule.yaml", &rule(5));
    let registry = folder.registry();
    assert_eq!(timeout(&registry), [Some(Duration::from_secs(5))]);
    folder.write("rule.yaml", &rule(7).replace("timeout: 7s", "timeout: never"));
    registry.reload();
    assert_eq!(timeout(&registry), [Some(Duration::from_secs(5))]);
    let found = registry.diagnostics();
    assert!(
        found
            .iter()
            .any(|found| found.severity == Severity::Error && found.span.line == 8),
        "{found:?}"
    );
    folder.write("rule.yaml", &rule(9));
    registry.reload();
    assert_eq!(timeout(&registry), [Some(Duration::from_secs(9))]);
    assert!(
        !registry
            .diagnostics()
            .iter()
            .any(|found| found.severity == Severity::Error)
    );
}

#[test]
fn a_file_that_is_removed_goes_and_a_folder_that_is_removed_keeps_the_last_snapshot() {
    let folder = Folder::new("removed");
    folder.write("service.yaml", SERVICE);
    folder.write("rule.yaml", &rule(5));
    let registry = folder.registry();
    fs::remove_file(folder.0.join("config/rule.yaml")).expect("ours");
    registry.reload();
    assert!(timeout(&registry).is_empty());
    fs::remove_dir_all(folder.0.join("config")).expect("ours");
    registry.reload();
    assert_eq!(registry.snapshot().services.len(), 1);
    assert!(registry.failure().is_some());
}

#[test]
fn apply_replaces_what_a_file_says_and_survives_a_restart_until_it_is_deleted() {
    let folder = Folder::new("apply");
    folder.write("all.yaml", &format!("{SERVICE}---\n{}", rule(5)));
    let registry = folder.registry();
    let before = registry.snapshot().generation;
    let applied = registry.apply(&rule(6), "clinic").expect("valid");
    assert_eq!(applied.generation, before + 1);
    assert_eq!(applied.objects[0].to_string(), "VirtualService clinic/auth");
    assert_eq!(timeout(&registry), [Some(Duration::from_secs(6))]);
    let again = folder.registry();
    assert_eq!(timeout(&again), [Some(Duration::from_secs(6))]);
    assert_eq!(again.snapshot().services.len(), 1, "the rest of the file stays");
    again.delete(&rule(6), "clinic").expect("it exists");
    assert!(
        timeout(&again).is_empty(),
        "neither the applied one nor the file's"
    );
    assert!(timeout(&folder.registry()).is_empty());
    assert!(matches!(
        again.delete(&rule(6), "clinic"),
        Err(ApplyError::Unknown(_))
    ));
    again.apply(&rule(8), "clinic").expect("it may come back");
    assert_eq!(timeout(&again), [Some(Duration::from_secs(8))]);
}

#[test]
fn an_apply_with_an_error_changes_nothing() {
    let folder = Folder::new("refused");
    folder.write("all.yaml", &format!("{SERVICE}---\n{}", rule(5)));
    let registry = folder.registry();
    let generation = registry.snapshot().generation;
    let bad = format!("{}---\n{}", rule(6), rule(7).replace("timeout", "tmeout"));
    let refused = registry.apply(&bad, "clinic");
    assert!(
        matches!(&refused, Err(ApplyError::Invalid(found)) if !found.is_empty()),
        "{refused:?}"
    );
    assert!(matches!(
        registry.apply("# nothing\n", "clinic"),
        Err(ApplyError::Empty)
    ));
    assert_eq!(registry.snapshot().generation, generation);
    assert_eq!(timeout(&registry), [Some(Duration::from_secs(5))]);
    assert_eq!(
        fs::read_dir(folder.0.join("state/applied"))
            .expect("there")
            .count(),
        0
    );
}

#[test]
fn an_applied_object_that_names_an_unknown_host_gets_the_finding_of_analyze() {
    let folder = Folder::new("unknown-host");
    let registry = folder.registry();
    let text = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: x}\nspec:\n  hosts: [nobody]\n  \
                http: [{route: [{destination: {host: nobody}}]}]\n";
    let applied = registry.apply(text, "clinic").expect("taken");
    let loaded = load(&[Source::new("x.yaml", text)], &registry.load_options());
    let said: BTreeSet<_> = applied
        .diagnostics
        .iter()
        .map(|found| (found.code, found.message.clone()))
        .collect();
    let wanted: BTreeSet<_> = check(&loaded)
        .iter()
        .map(|found| (found.code, found.message.clone()))
        .collect();
    assert!(!wanted.is_empty());
    assert_eq!(said, wanted, "{:#?}", applied.diagnostics);
}

#[test]
fn an_applied_document_keeps_the_namespace_it_was_applied_to() {
    let folder = Folder::new("namespace");
    folder.write("all.yaml", SERVICE);
    let registry = folder.registry();
    registry
        .apply(&SERVICE.replace("auth", "billing"), "finance")
        .expect("valid");
    let names = |registry: &Registry| {
        let snapshot = registry.snapshot();
        snapshot
            .services
            .keys()
            .map(|(host, _)| host.to_string())
            .collect::<Vec<_>>()
    };
    let expected = [
        "auth.clinic.svc.cluster.local",
        "billing.finance.svc.cluster.local",
    ];
    assert_eq!(names(&registry), expected);
    assert_eq!(names(&folder.registry()), expected);
}

#[test]
fn one_object_of_a_list_can_not_be_replaced_silently() {
    let folder = Folder::new("list");
    let item = |name: &str| {
        format!(
            "- apiVersion: v1\n  kind: Service\n  metadata: {{name: {name}}}\n  spec: {{ports: [{{port: 80}}]}}\n"
        )
    };
    folder.write(
        "list.yaml",
        &format!(
            "apiVersion: v1\nkind: List\nitems:\n{}{}",
            item("auth"),
            item("b")
        ),
    );
    let registry = folder.registry();
    assert!(matches!(
        registry.apply(SERVICE, "clinic"),
        Err(ApplyError::InList(..))
    ));
}

fn workload(name: &str) -> Workload {
    Workload {
        name: name.into(),
        deployment: "auth".into(),
        namespace: "clinic".into(),
        labels: [("app", "auth")].into_iter().collect(),
        service_account: "auth".into(),
        address: "127.10.0.1".parse().expect("an address"),
        named_ports: BTreeMap::new(),
        reached_ports: BTreeMap::new(),
        gateway: None,
        mesh: true,
        locality: rajut_types::Locality::default(),
        weight: 1,
        health: WorkloadHealth::NotReady,
    }
}

#[test]
fn workloads_come_change_and_go_without_reading_files() {
    let folder = Folder::new("workloads");
    folder.write("a.yaml", SERVICE);
    let registry = folder.registry();
    let first = registry.set_workloads(vec![workload("auth-0"), workload("auth-1")]);
    assert_eq!(registry.snapshot().workloads.len(), 2);
    assert_eq!(
        registry.set_workloads(vec![workload("auth-0"), workload("auth-1")]),
        first,
        "nothing changed"
    );
    let second = registry
        .set_health("clinic", "auth-0", WorkloadHealth::Ready)
        .expect("it exists");
    assert_eq!(second, first + 1);
    assert_eq!(
        registry.set_health("clinic", "nobody", WorkloadHealth::Ready),
        None
    );
    registry.set_workloads(vec![workload("auth-1")]);
    assert_eq!(registry.snapshot().workloads.len(), 1);
    folder.write("b.yaml", &SERVICE.replace("auth", "billing"));
    registry.reload();
    assert_eq!(
        registry.snapshot().workloads.len(),
        1,
        "a new configuration keeps what runs"
    );
}

#[tokio::test]
async fn a_changed_file_is_read_by_itself() {
    let folder = Folder::new("watch");
    folder.write("service.yaml", SERVICE);
    folder.write("rule.yaml", &rule(5));
    let registry = folder.registry();
    crate::watch::spawn(registry.clone(), &folder.options().paths);
    let mut snapshots = registry.snapshots();
    // An editor's way: a new file renamed over the old one.
    let config = |name: &str| Path::new(&folder.0).join("config").join(name);
    fs::write(config(".rule.swp"), rule(9)).expect("writable");
    fs::rename(config(".rule.swp"), config("rule.yaml")).expect("ours");
    let seen = snapshots.wait_for(|_| timeout(&registry) == [Some(Duration::from_secs(9))]);
    tokio::time::timeout(Duration::from_secs(10), seen)
        .await
        .expect("read in time")
        .expect("published");
}
