//! A Compose file as people write them.

use crate::{
    LoadOptions, Report, Source, codes, load,
    model::{ProbeCheck, Protocol, RunCommand},
};

const FILE: &str = "\
x-defaults: &defaults
  restart: unless-stopped
  environment: &env {LOG: debug}
services:
  web:
    <<: *defaults
    build: .
    command: [node, server.js]
    environment:
      <<: *env
      API_URL: http://api:3000/v1
      RETRIES: 3
      TOKEN: ${TOKEN:-none}
    ports: [\"18080:8080\", \"127.0.0.1:19090:9090/udp\"]
    depends_on:
      api: {condition: service_healthy}
      db: {condition: service_started}
    labels: {team: clinic}
    deploy: {replicas: 2, resources: {limits: {cpus: '1'}}}
  api:
    entrypoint: node api.js
    environment: [\"DB=postgres://u:p@db:5432/x\", \"CACHE=cache:6379\"]
    healthcheck: {test: curl -f http://localhost:3000/health, interval: 5s, retries: 5}
    networks: {back: {aliases: [api.internal]}}
    depends_on: [db]
  db:
    image: postgres:16
  cache:
    image: registry.example/cache
networks: {back: }
volumes: {data: {}}
";

fn values(deployment: &crate::model::Deployment) -> Vec<String> {
    let variables = deployment.env.iter();
    variables
        .map(|(k, v)| format!("{k}={}", v.for_instance(|_| String::new())))
        .collect()
}

#[test]
fn services_ports_probes_and_dependencies_come_from_the_file() {
    let loaded = load(&[Source::new("compose.yaml", FILE)], &LoadOptions::default());
    let report = Report::new(&loaded);
    assert!(!report.failed(), "{report}");
    let deployment = |name: &str| {
        loaded
            .deployments
            .iter()
            .find(|d| &*d.name == name)
            .expect("a workload")
    };
    let service = |name: &str| {
        loaded
            .services
            .iter()
            .find(|s| &*s.name == name)
            .expect("a service")
    };
    let web = deployment("web");
    let env = values(web);
    assert_eq!(
        env,
        [
            "API_URL=http://api:3000/v1",
            "RETRIES=3",
            "TOKEN=none",
            "LOG=debug"
        ]
    );
    assert_eq!(
        (web.replicas, &web.host_ports[..]),
        (2, &[(8080, 18080), (9090, 19090)][..])
    );
    assert_eq!(
        web.depends_on.iter().map(|d| &**d).collect::<Vec<_>>(),
        ["api", "db"]
    );
    assert_eq!(
        (web.run.clone(), web.command.len()),
        (None, 2),
        "a built image's command is only shown"
    );
    assert_eq!(web.labels.find("team"), Some("clinic"));
    let protocols: Vec<_> = service("web")
        .ports
        .iter()
        .map(|p| (p.number, p.protocol))
        .collect();
    assert_eq!(protocols, [(8080, Protocol::Detect), (9090, Protocol::Udp)]);
    let api = deployment("api");
    assert_eq!(api.run, Some(RunCommand::Shell("node api.js".into())));
    let probe = api.readiness.as_ref().expect("a probe");
    assert!(matches!(&probe.check, ProbeCheck::Http { port: 3000, path, .. } if &**path == "/health"));
    assert_eq!((probe.period.as_secs(), probe.failure_threshold), (5, 5));
    // Told by an address in another service's environment, by a known image, by the environment again.
    assert_eq!(service("api").ports[0].number, 3000);
    assert_eq!(service("api").aliases[0].as_str(), "api.internal");
    assert_eq!(service("db").ports[0].number, 5432);
    assert_eq!(service("cache").ports[0].number, 6379);
    // Each service selects its own copies and no others.
    for service in &loaded.services {
        let selector = service.selector.as_ref().expect("a selector");
        let selected: Vec<_> = loaded
            .deployments
            .iter()
            .filter(|d| d.labels.matches(selector))
            .collect();
        assert_eq!(selected.len(), 1, "{}", service.name);
        assert_eq!(selected[0].name, service.name);
    }
}

#[test]
fn entrypoint_and_command_stand_one_behind_the_other_in_either_form() {
    let shell = |line: &str| Some(RunCommand::Shell(line.into()));
    let exec = |words: &[&str]| {
        Some(RunCommand::Exec(
            words.iter().map(|word| (*word).into()).collect(),
        ))
    };
    for (written, wanted) in [
        ("command: node server.js", shell("node server.js")),
        ("command: [node, server.js]", exec(&["node", "server.js"])),
        (
            "{entrypoint: [node], command: [server.js, '8080']}",
            exec(&["node", "server.js", "8080"]),
        ),
        (
            "{entrypoint: node --trace, command: server.js}",
            shell("node --trace server.js"),
        ),
        // Each word of a list stays one word, and what a shell would read in it stays as it is.
        (
            "{entrypoint: [sh, -c, \"echo $$HOME; it's\"], command: now then}",
            shell("'sh' '-c' 'echo $HOME; it'\\''s' now then"),
        ),
        (
            "{entrypoint: ./start.sh, command: [a b]}",
            shell("./start.sh 'a b'"),
        ),
        // Compose's variables have their defaults; the shell sets what has none.
        ("command: listen ${PORT:-80} $$1", shell("listen 80 $1")),
        ("command: listen $PORT", shell("listen $PORT")),
        ("command: [listen, \"${PORT:-80}\"]", exec(&["listen", "80"])),
        // Empty is what Compose takes for `none`.
        ("{entrypoint: '', command: []}", None),
        ("{command: null, expose: [80]}", None),
    ] {
        // In braces: several keys.
        let keys = match written.strip_prefix('{') {
            Some(_) => written.to_owned(),
            None => format!("\n    {written}"),
        };
        let built = match keys.strip_prefix('{') {
            Some(several) => format!("{{build: ., {several}"),
            None => format!("\n    build: .{keys}"),
        };
        let text = format!("services:\n  web: {keys}\n  built: {built}\n");
        let loaded = load(&[Source::new("compose.yaml", &*text)], &LoadOptions::default());
        let run = |name: &str| {
            let found = loaded.deployments.iter().find(|one| &*one.name == name);
            found.map(|one| (one.run.clone(), one.own_command()))
        };
        let kept = |one: &RunCommand| match one {
            RunCommand::Exec(words) if words.len() == 1 => RunCommand::Shell(words[0].clone()),
            other => other.clone(),
        };
        assert_eq!(run("web"), Some((wanted.clone(), None)), "{text}");
        assert_eq!(run("built"), Some((None, wanted.as_ref().map(kept))), "{text}");
    }
}

#[test]
fn variables_of_a_list_without_a_default_are_named() {
    let text = "services: {web: {command: [listen, $PORT]}}";
    let loaded = load(&[Source::new("compose.yaml", text)], &LoadOptions::default());
    let report = Report::new(&loaded).to_string();
    assert!(
        report.contains("variables of a list are not filled in: $PORT"),
        "{report}"
    );
}

#[test]
fn the_main_file_of_a_folder_counts_alone() {
    let sources = [
        Source::new("app/docker-compose.yml", FILE),
        Source::new("app/docker-compose.override.yml", FILE),
        Source::new("other/stack.yml", "services: {solo: {image: redis}}\n"),
    ];
    let loaded = load(&sources, &LoadOptions::default());
    let report = Report::new(&loaded);
    assert!(!report.failed(), "{report}");
    assert_eq!(report.summary(), "3 documents: 2 used, 1 not ours, 0 wrong");
    assert_eq!(loaded.deployments.len(), 5);
    assert!(
        report
            .diagnostics
            .iter()
            .any(|d| d.code == codes::COMPOSE && d.origin.source.ends_with("override.yml"))
    );
}

#[test]
fn manifests_win_over_compose_services_of_the_same_name() {
    let manifest = "apiVersion: mesh.rajut.dev/v1alpha1\nkind: LocalWorkload\nmetadata: {name: api}\nspec: {sample: {}}\n";
    let sources = [Source::new("compose.yaml", FILE), Source::new("z.yaml", manifest)];
    let loaded = load(&sources, &LoadOptions::default());
    let report = Report::new(&loaded);
    assert!(!report.failed(), "{report}");
    let api = loaded
        .deployments
        .iter()
        .find(|d| &*d.name == "api")
        .expect("a workload");
    assert_eq!(&*api.kind, "LocalWorkload");
    assert!(
        report
            .to_string()
            .contains("this service is not used: LocalWorkload default/api at z.yaml:1"),
        "{report}"
    );
}
