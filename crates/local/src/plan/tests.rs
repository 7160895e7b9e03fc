use rajut_config::model::{Resolution, ServicePort, Visibility};
use rajut_types::{ObjectRef, Origin};

use super::*;

fn origin() -> Origin {
    Origin {
        source: "test.yaml".into(),
        object: ObjectRef::new("Deployment", "clinic", "x"),
        field_path: "".into(),
        line: 1,
    }
}

fn deployment(name: &str, replicas: u32, run: Option<RunCommand>) -> Deployment {
    Deployment {
        name: name.into(),
        namespace: "clinic".into(),
        kind: "Deployment".into(),
        replicas,
        labels: [("app", name)].into_iter().collect(),
        service_account: "default".into(),
        env: vec![("AUTH".into(), EnvValue::new("http://auth:8080", false))],
        ports: vec![ContainerPort {
            name: "http".into(),
            number: 8080,
        }],
        readiness: None,
        liveness: None,
        run,
        working_directory: None,
        host_ports: Vec::new(),
        command: Vec::new(),
        image_arguments: Vec::new(),
        image: "".into(),
        gateway: false,
        grace_period: Duration::from_secs(30),
        depends_on: Vec::new(),
        origin: origin(),
    }
}

fn service(name: &str, namespace: &str, ports: &[(u16, u16)]) -> Service {
    Service {
        host: format!("{name}.{namespace}.svc.cluster.local").parse().unwrap(),
        name: name.into(),
        namespace: namespace.into(),
        ports: ports
            .iter()
            .map(|(number, target)| ServicePort {
                name: "http".into(),
                number: *number,
                target: TargetPort::Number(*target),
                protocol: Protocol::Http,
                origin: origin(),
            })
            .collect(),
        selector: Some([("app", name)].into_iter().collect()),
        resolution: Resolution::Static,
        addresses: Vec::new(),
        headless: false,
        external: false,
        endpoints: Vec::new(),
        subject_alt_names: Vec::new(),
        export_to: Visibility::All,
        aliases: Vec::new(),
        traffic_distribution: None,
        origin: origin(),
        age: 0,
    }
}

fn made(
    deployments: &[Deployment],
    services: &[Service],
    runs: &[(String, Option<String>)],
    mode: CaptureMode,
) -> Result<Plan, PlanError> {
    let block = AddressBlock::claim().unwrap();
    let input = PlanInput {
        deployments,
        services,
        runs,
        mode,
        block: &block,
        previous: &[],
    };
    let mut next = 41_000;
    plan(&input, || {
        next += 1;
        Ok(next)
    })
}

#[test]
fn every_instance_has_a_number_and_an_address() {
    let deployments = [
        deployment("b", 1, Some(RunCommand::Sample)),
        deployment("a", 2, Some(RunCommand::Sample)),
    ];
    let plan = made(&deployments, &[], &[], CaptureMode::Netns).unwrap();
    let names: Vec<_> = plan.instances.iter().map(|instance| &*instance.name).collect();
    assert_eq!(names, ["a-0", "a-1", "b-0"]);
    let addresses: BTreeSet<_> = plan.instances.iter().map(|instance| instance.address).collect();
    assert_eq!(addresses.len(), 3);
}

#[test]
fn what_has_no_command_is_listed_with_the_line_to_add() {
    let deployments = [deployment("signer", 2, None)];
    let plan = made(&deployments, &[], &[], CaptureMode::Netns).unwrap();
    assert!(plan.instances.is_empty());
    assert_eq!(plan.not_started[0].add, "--run signer='COMMAND'");
}

#[test]
fn a_command_line_run_wins_and_may_name_the_namespace() {
    let deployments = [deployment("signer", 1, Some(RunCommand::Sample))];
    for name in ["signer", "signer.clinic"] {
        let runs = [(name.to_owned(), Some("node x.js".to_owned()))];
        let plan = made(&deployments, &[], &runs, CaptureMode::Netns).unwrap();
        assert_eq!(plan.instances[0].run, RunCommand::Shell("node x.js".into()));
        assert_eq!(plan.instances[0].directory, None, "it runs where `up` was called");
    }
    for name in ["sign", "signer.other", "signers"] {
        let runs = [(name.to_owned(), Some("x".to_owned()))];
        let error = made(&deployments, &[], &runs, CaptureMode::Netns).unwrap_err();
        assert!(matches!(error, PlanError::UnknownRun { .. }), "{error}");
    }
}

#[test]
fn a_documents_own_command_is_run_where_the_command_line_says_so() {
    let mut signer = deployment("signer", 1, None);
    signer.command = vec!["node".into(), "a b.js".into()];
    let runs = [("signer".to_owned(), None)];
    let plan = made(&[signer.clone()], &[], &runs, CaptureMode::Netns).unwrap();
    assert_eq!(plan.instances[0].run, RunCommand::Exec(signer.command.clone()));
    assert!(
        plan.instances[0].directory.is_some(),
        "it runs where its document is"
    );
    // A line for a shell stays one, and without the option it is only shown.
    signer.command = vec!["node a.js && true".into()];
    let plan = made(&[signer.clone()], &[], &runs, CaptureMode::Netns).unwrap();
    assert_eq!(
        plan.instances[0].run,
        RunCommand::Shell("node a.js && true".into())
    );
    let plan = made(&[signer.clone()], &[], &[], CaptureMode::Netns).unwrap();
    assert!(plan.instances.is_empty());
    // Nothing to run.
    signer.command.clear();
    let error = made(&[signer.clone()], &[], &runs, CaptureMode::Netns).unwrap_err();
    assert!(error.to_string().contains("--run signer='COMMAND'"), "{error}");
    // Arguments of a program that only the image names are not a command.
    signer.image_arguments = vec!["--port".into(), "4 6".into()];
    let error = made(&[signer.clone()], &[], &runs, CaptureMode::Netns).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("--run signer='COMMAND --port \"4 6\"'"),
        "{error}"
    );
    // What a LocalWorkload says goes on.
    signer.run = Some(RunCommand::Sample);
    let plan = made(&[signer], &[], &runs, CaptureMode::Netns).unwrap();
    assert_eq!(plan.instances[0].run, RunCommand::Sample);
}

#[test]
fn explicit_mode_gives_ports_of_its_own_and_tells_them() {
    let deployments = [deployment("web", 1, Some(RunCommand::Sample))];
    let services = [
        service("auth", "clinic", &[(8080, 8080)]),
        service("web", "clinic", &[(80, 8080)]),
    ];
    let plan = made(&deployments, &services, &[], CaptureMode::Explicit).unwrap();
    let instance = &plan.instances[0];
    let env: BTreeMap<_, _> = instance.env.iter().cloned().collect();
    assert_eq!(env["PORT"], "41001");
    assert_eq!(env["RAJUT_APP_PORT_8080"], "41001");
    assert_eq!(env["AUTH_URL"], format!("http://{}:20000", instance.address));
    assert_eq!(
        env["AUTH"], env["AUTH_URL"],
        "the manifest's address is that of the listener"
    );
    assert_eq!(
        instance
            .app_socket(CaptureMode::Explicit, 8080)
            .unwrap()
            .to_string(),
        "127.0.0.1:41001"
    );
}

#[test]
fn in_a_namespace_everything_is_as_the_manifest_says() {
    let deployments = [deployment("web", 1, Some(RunCommand::Sample))];
    let plan = made(
        &deployments,
        &[service("auth", "clinic", &[(8080, 8080)])],
        &[],
        CaptureMode::Netns,
    )
    .unwrap();
    let env: BTreeMap<_, _> = plan.instances[0].env.iter().cloned().collect();
    assert_eq!(env["AUTH"], "http://auth:8080");
    assert_eq!(env["PORT"], "8080");
    assert!(plan.instances[0].outbound.is_empty());
}

#[test]
fn each_copy_gets_what_it_alone_knows() {
    let mut web = deployment("web", 2, Some(RunCommand::Sample));
    for (name, field) in [
        ("POD", InstanceField::Name),
        ("IP", InstanceField::Address),
        ("NODE", InstanceField::Node),
    ] {
        let mut value = EnvValue::new("<", false);
        value.push_field(field);
        value.push_text(">");
        web.env.push((name.into(), value));
    }
    let of = |mode: CaptureMode| {
        let plan = made(&[web.clone()], &[], &[], mode).unwrap();
        let copies = plan.instances.iter();
        copies
            .map(|copy| {
                let env: BTreeMap<_, _> = copy.env.iter().cloned().collect();
                assert_eq!(env["POD"], format!("<{}>", copy.name));
                assert_eq!(env["NODE"], format!("<{}>", rajut_platform::host::hostname()));
                let address = match mode {
                    CaptureMode::Netns => copy.app_address,
                    CaptureMode::Explicit => copy.address,
                };
                assert_eq!(env["IP"], format!("<{address}>"));
                env["POD"].clone()
            })
            .collect::<Vec<_>>()
    };
    for mode in [CaptureMode::Netns, CaptureMode::Explicit] {
        let [first, second] = &of(mode)[..] else {
            panic!("two copies")
        };
        assert_ne!(first, second);
    }
}

#[test]
fn a_port_that_only_a_service_names_is_served_too() {
    let deployments = [deployment("web", 1, Some(RunCommand::Sample))];
    let services = [
        service("web", "clinic", &[(80, 9090)]),
        service("web", "other", &[(80, 7070)]),
    ];
    let plan = made(&deployments, &services, &[], CaptureMode::Netns).unwrap();
    let ports: Vec<_> = plan.instances[0]
        .ports
        .iter()
        .map(|port| port.container)
        .collect();
    assert_eq!(ports, [8080, 9090]);
}

#[test]
fn a_working_directory_is_relative_to_the_file_that_names_it() {
    let mut one = deployment("web", 2, Some(RunCommand::Sample));
    one.working_directory = Some("services/web".into());
    one.host_ports = vec![(8080, 18)];
    one.origin.source = "/repo/mesh/run.yaml".into();
    let plan = made(&[one], &[], &[], CaptureMode::Netns).unwrap();
    assert_eq!(
        plan.instances[0].directory.as_deref(),
        Some(Path::new("/repo/mesh/services/web"))
    );
    assert_eq!(plan.instances[0].host_ports, [(8080, 18)]);
    assert!(plan.instances[1].host_ports.is_empty());
}

#[test]
fn services_that_come_late_are_named_for_what_runs_already() {
    let workloads = [deployment("web", 1, Some(RunCommand::Sample))];
    let of_web = [(8080, 8080)];
    let services = [
        service("catalog", "clinic", &of_web),
        service("stock", "clinic", &of_web),
    ];
    let of = |services: &[Service]| {
        made(&workloads, services, &[], CaptureMode::Explicit)
            .unwrap()
            .instances
    };
    let (before, after) = (of(&services[..1]), of(&services));
    assert!(before[0].runs_as(&after[0]), "it runs on");
    assert_eq!(before[0].lacks(&after[0]), ["stock.clinic:8080"]);
    assert!(after[0].lacks(&before[0]).is_empty());
    let in_namespaces = made(&workloads, &services, &[], CaptureMode::Netns).unwrap();
    assert!(before[0].lacks(&in_namespaces.instances[0]).is_empty());
}

#[test]
fn what_runs_keeps_its_place_and_what_comes_gets_one_that_is_free() {
    let block = AddressBlock::claim().unwrap();
    let mut next = 41_000;
    let mut made = |deployments: &[Deployment], previous: &[Instance]| {
        let input = PlanInput {
            deployments,
            services: &[],
            runs: &[],
            mode: CaptureMode::Explicit,
            block: &block,
            previous,
        };
        plan(&input, || {
            next += 1;
            Ok(next)
        })
        .unwrap()
        .instances
    };
    let mut b = deployment("b", 2, Some(RunCommand::Sample));
    b.origin.source = "/repo/b.yaml".into();
    let first = made(&[b.clone()], &[]);
    b.replicas = 1;
    b.origin.source = "<apply>".into();
    let second = made(&[deployment("a", 1, Some(RunCommand::Sample)), b.clone()], &first);
    assert_eq!(&*second[0].name, "a-0");
    assert_eq!(second[0].index, 2, "b-1 may still be on its way out");
    assert!(first[0].runs_as(&second[1]), "{:?} {:?}", first[0], second[1]);
    assert_eq!(first[0], second[1]);
    b.env.push(("NEW".into(), EnvValue::new("1", false)));
    let third = made(&[b], &second);
    assert!(!second[1].runs_as(&third[0]));
    assert_eq!(third[0].ports, second[1].ports);
}
