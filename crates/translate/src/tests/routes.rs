use std::time::Duration;

use rajut_config::{model::*, snapshot::Configuration};
use rajut_ir::{
    filter::{self, FilterOverride},
    matcher::ValueCondition,
    route::{
        AppendAction, HashPolicy, HostRewrite, PathMatch, PathRewrite, Redirect, RouteActionKind, Target,
        VirtualHost,
    },
};

use rajut_types::Percent;

use super::fixtures::*;

const V1: &str = "outbound|80|v1|api.clinic.svc.cluster.local";

fn routed_as(vs: VirtualService, rules: Vec<DestinationRule>, client: &crate::Proxy) -> VirtualHost {
    let configuration = Configuration {
        services: vec![
            service("api", 1, 80, Protocol::Http),
            service("auth", 2, 8000, Protocol::Http),
        ],
        virtual_services: vec![vs],
        destination_rules: rules,
        ..Configuration::default()
    };
    let found = resources(&snapshot(configuration, vec![]), client);
    virtual_host(routes(&found, "80"), "api.clinic.svc.cluster.local:80").clone()
}

fn routed(http: Vec<HttpRoute>) -> VirtualHost {
    routed_as(virtual_service("api", http), vec![], &proxy("web", netns()))
}

fn on(uri: StringMatch) -> HttpMatch {
    HttpMatch {
        uri: Some(uri),
        ..HttpMatch::default()
    }
}

#[test]
fn weights_are_relative_and_zero_is_left_out() {
    let host = routed(vec![http_route(
        vec![],
        vec![to("api", "v1", 9), to("api", "v2", 1), to("api", "v3", 0)],
    )]);
    let Target::Weighted(entries) = &forward(&host.routes[0]).target else {
        panic!("not weighted");
    };
    let found: Vec<_> = entries.iter().map(|entry| (&*entry.name, entry.weight)).collect();
    assert_eq!(
        found,
        [(V1, 9), ("outbound|80|v2|api.clinic.svc.cluster.local", 1)]
    );
}

#[test]
fn one_destination_takes_all_whatever_its_weight_and_unknown_ones_keep_their_name() {
    let mut ghost = to("api", "", 0);
    ghost.destination.host = host("ghost.clinic.svc.cluster.local");
    let host = routed(vec![http_route(vec![], vec![ghost])]);
    let expected = Target::Cluster("outbound|80||ghost.clinic.svc.cluster.local".into());
    assert_eq!(forward(&host.routes[0]).target, expected);
}

#[test]
fn a_destination_without_a_port_takes_the_services_only_one() {
    let host = routed(vec![http_route(vec![], vec![to("auth", "", 1)])]);
    let expected = Target::Cluster("outbound|8000||auth.clinic.svc.cluster.local".into());
    assert_eq!(forward(&host.routes[0]).target, expected);
}

#[test]
fn order_is_kept_and_what_takes_everything_ends_the_list() {
    let host = routed(vec![
        http_route(
            vec![
                on(StringMatch::Prefix("/static".into())),
                on(StringMatch::Regex("/v[0-9]+".into())),
            ],
            vec![to("api", "v1", 1)],
        ),
        http_route(
            vec![on(StringMatch::Prefix("/".into()))],
            vec![to("api", "v2", 1)],
        ),
        http_route(
            vec![on(StringMatch::Exact("/never".into()))],
            vec![to("api", "v3", 1)],
        ),
    ]);
    assert_eq!(host.routes.len(), 3);
    assert!(matches!(&host.routes[0].matches.path, PathMatch::Prefix(path) if &**path == "/static"));
    assert!(matches!(&host.routes[1].matches.path, PathMatch::Regex(_)));
}

#[test]
fn a_root_prefix_with_a_condition_does_not_end_the_list() {
    let mut picky = on(StringMatch::Prefix("/".into()));
    picky.headers.push(("X-Canary".into(), None));
    let host = routed(vec![
        http_route(vec![picky], vec![to("api", "v1", 1)]),
        http_route(vec![], vec![to("api", "v2", 1)]),
    ]);
    assert_eq!(host.routes.len(), 2);
    let header = &host.routes[0].matches.headers[0];
    assert_eq!(
        (&*header.name, &header.condition),
        ("x-canary", &ValueCondition::Present(true))
    );
}

#[test]
fn a_virtual_service_that_concerns_nobody_here_leaves_no_route() {
    let elsewhere = HttpMatch {
        source_namespace: Some("other".into()),
        ..HttpMatch::default()
    };
    let host = routed(vec![http_route(vec![elsewhere], vec![to("api", "", 1)])]);
    assert!(host.routes.is_empty(), "unmatched requests are answered 404");
}

#[test]
fn sources_and_dialled_ports_are_settled_here() {
    let mine = HttpMatch {
        source_labels: [("app", "web")].into_iter().collect(),
        port: Some(80),
        ..HttpMatch::default()
    };
    let mut theirs = mine.clone();
    theirs.source_labels = [("app", "else")].into_iter().collect();
    let mut elsewhere = mine.clone();
    elsewhere.port = Some(81);
    let host = routed(vec![
        http_route(vec![theirs], vec![to("api", "v1", 1)]),
        http_route(vec![elsewhere], vec![to("api", "v2", 1)]),
        http_route(vec![mine], vec![to("api", "v3", 1)]),
    ]);
    assert_eq!(host.routes.len(), 1);
    assert_eq!(
        forward(&host.routes[0]).target,
        Target::Cluster("outbound|80|v3|api.clinic.svc.cluster.local".into())
    );
}

#[test]
fn gateways_of_a_match_replace_its_source_conditions() {
    let both = HttpMatch {
        gateways: vec!["mesh".into()],
        source_namespace: Some("other".into()),
        ..HttpMatch::default()
    };
    let gateway_only = HttpMatch {
        gateways: vec!["clinic/door".into()],
        ..HttpMatch::default()
    };
    let host = routed(vec![
        http_route(vec![gateway_only], vec![to("api", "v1", 1)]),
        http_route(vec![both], vec![to("api", "v2", 1)]),
    ]);
    assert_eq!(host.routes.len(), 1);
}

#[test]
fn absent_headers_count_as_empty_where_a_value_is_excluded() {
    let without = HttpMatch {
        without_headers: vec![
            ("x-a".into(), Some(StringMatch::Regex(".*".into()))),
            ("x-b".into(), None),
        ],
        ..HttpMatch::default()
    };
    let host = routed(vec![http_route(vec![without], vec![to("api", "", 1)])]);
    let headers = &host.routes[0].matches.headers;
    assert!(headers.iter().all(|header| header.invert));
    assert!(headers[0].missing_is_empty && !headers[1].missing_is_empty);
}

fn named_headers(pairs: &[(&str, &str)]) -> HeaderOperations {
    let mut operations = HeaderOperations::default();
    for (name, value) in pairs {
        operations.request.set.push(((*name).into(), (*value).into()));
    }
    operations
}

#[test]
fn with_one_destination_its_header_operations_come_last() {
    let mut destination = to("api", "", 1);
    destination.headers = named_headers(&[("X-Who", "destination"), ("Host", "d.example")]);
    let mut route = http_route(vec![], vec![destination]);
    route.headers = named_headers(&[("X-Who", "route")]);
    let host = routed(vec![route.clone()]);
    let set: Vec<_> = host.routes[0]
        .headers
        .request_set
        .iter()
        .map(|header| &*header.value)
        .collect();
    assert_eq!(set, ["route", "destination"]);
    assert_eq!(
        host.routes[0].headers.request_set[0].append,
        AppendAction::Overwrite
    );
    let rewrite = &forward(&host.routes[0]).host_rewrite;
    assert_eq!(*rewrite, Some(HostRewrite::Literal("d.example".into())));
    // The route's own authority beats the destination's.
    route
        .headers
        .request
        .set
        .push((":authority".into(), "r.example".into()));
    let host = routed(vec![route]);
    let rewrite = &forward(&host.routes[0]).host_rewrite;
    assert_eq!(*rewrite, Some(HostRewrite::Literal("r.example".into())));
}

#[test]
fn rewrites_timeouts_and_names() {
    let mut route = http_route(
        vec![on(StringMatch::Prefix("/old".into()))],
        vec![to("api", "", 1)],
    );
    route.name = "first".into();
    route.matches[0].name = "m".into();
    route.timeout = Some(Duration::from_secs(3));
    route.rewrite = Some(Rewrite {
        uri: Some("/new".into()),
        uri_regex: None,
        authority: Some("a.example".into()),
    });
    let host = routed(vec![route]);
    let built = &host.routes[0];
    assert_eq!(&*built.name, "first.m");
    let action = forward(built);
    assert_eq!(action.path_rewrite, Some(PathRewrite::Prefix("/new".into())));
    assert_eq!(
        action.host_rewrite,
        Some(HostRewrite::Literal("a.example".into()))
    );
    assert_eq!(
        (action.timeout, action.grpc_timeout_max),
        (Some(Duration::from_secs(3)), Some(Duration::from_secs(3)))
    );
}

#[test]
fn redirections_and_answers_in_place() {
    let mut redirect = http_route(vec![on(StringMatch::Exact("/a".into()))], vec![]);
    redirect.action = HttpAction::Redirect(HttpRedirect {
        uri: Some("/b".into()),
        prefix: None,
        authority: None,
        scheme: Some("https".into()),
        port: RedirectPort::ProtocolDefault,
        status: 301,
    });
    let mut direct = http_route(vec![], vec![]);
    direct.action = HttpAction::Direct {
        status: 503,
        body: b"closed".to_vec().into(),
    };
    let host = routed(vec![redirect, direct]);
    let RouteActionKind::Redirect(found) = &host.routes[0].action else {
        panic!("not a redirection");
    };
    let Redirect {
        port,
        status,
        strip_query,
        ..
    } = &**found;
    assert_eq!((*port, *status, *strip_query), (Some(443), 301, false));
    let RouteActionKind::DirectResponse(answer) = &host.routes[1].action else {
        panic!("not an answer");
    };
    assert_eq!((answer.status, &answer.body[..]), (503, &b"closed"[..]));
}

#[test]
fn only_a_single_hashing_destination_forgets_tried_endpoints() {
    let hashing = TrafficPolicy {
        load_balancer: Some(LoadBalancer {
            locality: None,
            algorithm: Some(LbAlgorithm::ConsistentHash {
                key: HashKey::Header("X-User".into()),
                table: HashTable::Ring(1024),
            }),
            warmup: None,
        }),
        ..TrafficPolicy::default()
    };
    let avoided = |http: Vec<HttpRoute>| {
        let rules = vec![rule("api", hashing.clone(), &["v1", "v2"])];
        let host = routed_as(virtual_service("api", http), rules, &proxy("web", netns()));
        let action = forward(&host.routes[0]).clone();
        assert_eq!(action.hash[0], HashPolicy::Header("x-user".into()));
        action.retry.expect("a policy").avoid_previous_hosts_attempts
    };
    assert_eq!(avoided(vec![http_route(vec![], vec![to("api", "v1", 1)])]), 0);
    assert_eq!(
        avoided(vec![http_route(
            vec![],
            vec![to("api", "v1", 1), to("api", "v2", 1)]
        )]),
        5
    );
    assert_eq!(avoided(vec![]), 5, "the default route keeps avoiding");
}

#[test]
fn a_host_that_only_a_virtual_service_names_is_routed_on_port_80() {
    let mut vs = virtual_service("api", vec![http_route(vec![], vec![to("api", "", 1)])]);
    vs.hosts = vec![host("portal.example.org")];
    let configuration = Configuration {
        services: vec![service("api", 1, 80, Protocol::Http)],
        virtual_services: vec![vs],
        ..Configuration::default()
    };
    let found = resources(&snapshot(configuration, vec![]), &proxy("web", netns()));
    let own = virtual_host(routes(&found, "80"), "portal.example.org:80");
    assert_eq!(own.domains, ["portal.example.org".into()]);
    assert_eq!(
        forward(&own.routes[0]).target,
        Target::Cluster("outbound|80||api.clinic.svc.cluster.local".into())
    );
}

#[test]
fn no_domain_stands_twice_in_a_table() {
    let mut twin = service("api", 3, 80, Protocol::Http);
    twin.host = host("api");
    twin.addresses = vec![];
    let mut aliased = service("auth", 4, 80, Protocol::Http);
    aliased.aliases = vec![fqdn("api")];
    let configuration = Configuration {
        services: vec![twin, aliased, service("api", 1, 80, Protocol::Http)],
        ..Configuration::default()
    };
    let found = resources(&snapshot(configuration, vec![]), &proxy("web", netns()));
    let table = routes(&found, "80");
    let mut domains: Vec<_> = table
        .virtual_hosts
        .iter()
        .flat_map(|host| &host.domains)
        .collect();
    let count = domains.len();
    domains.sort();
    domains.dedup();
    assert_eq!(domains.len(), count);
    let real = virtual_host(table, "api.clinic.svc.cluster.local:80");
    assert!(real.domains.contains(&"api.clinic.svc.cluster.local".into()));
}

#[test]
fn mirrors_keep_the_host_and_go_to_the_only_port_of_their_service() {
    let mut route = http_route(vec![], vec![to("api", "v1", 1)]);
    route.mirrors = vec![HttpMirror {
        destination: to("auth", "", 1).destination,
        share: Percent::from_millionths(5_000),
    }];
    let host = routed(vec![route]);
    let [mirror] = &forward(&host.routes[0]).mirrors[..] else {
        panic!("one mirror");
    };
    assert_eq!(&*mirror.cluster, "outbound|8000||auth.clinic.svc.cluster.local");
    assert_eq!(mirror.fraction, Percent::from_millionths(5_000));
    assert!(!mirror.shadow_host_suffix && !mirror.traced);
}

#[test]
fn routes_tell_the_filters_of_every_outbound_chain_their_faults_and_origins() {
    let mut faulty = http_route(
        vec![on(StringMatch::Prefix("/f".into()))],
        vec![to("api", "v1", 1)],
    );
    let origin = faulty.origin.clone();
    faulty.fault = Some(HttpFault {
        delay: None,
        abort: Some(FaultAbort {
            status: AbortStatus::Grpc(14),
            share: Percent::ALL,
        }),
        origin: origin.clone(),
    });
    faulty.cors = Some(CorsPolicy {
        origins: vec![StringMatch::Exact("*".into())],
        methods: vec!["GET".into(), "PUT".into()],
        headers: Vec::new(),
        expose: Vec::new(),
        max_age: Some(Duration::from_mins(1)),
        credentials: None,
        forward_unmatched: false,
        origin,
    });
    let plain = http_route(vec![], vec![to("api", "v1", 1)]);
    let host = routed(vec![faulty, plain]);
    let names = |route: &rajut_ir::route::Route| -> Vec<String> {
        route.filters.iter().map(|(name, _)| name.to_string()).collect()
    };
    assert_eq!(names(&host.routes[0]), [filter::CORS, filter::FAULT]);
    assert_eq!(names(&host.routes[1]), [""; 0]);
    let FilterOverride::Cors(cors) = &host.routes[0].filters[0].1 else {
        panic!("origins");
    };
    assert_eq!((&*cors.allow_methods, &*cors.max_age), ("GET,PUT", "60"));
    assert_eq!(cors.forward_not_matching, Some(false));
    assert!(cors.allows(b"https://shop.example"));
    let FilterOverride::Fault(fault) = &host.routes[0].filters[1].1 else {
        panic!("faults");
    };
    assert_eq!(
        fault.abort.map(|it| it.status),
        Some(rajut_ir::fault::AbortStatus::Grpc(14))
    );
}

#[test]
fn a_fault_that_is_switched_on_changes_no_listener() {
    let listeners = |fault: Option<FaultDelay>| {
        let mut route = http_route(vec![], vec![to("api", "v1", 1)]);
        route.fault = fault.map(|delay| HttpFault {
            delay: Some(delay),
            abort: None,
            origin: route.origin.clone(),
        });
        let configuration = Configuration {
            services: vec![service("api", 1, 80, Protocol::Http)],
            virtual_services: vec![virtual_service("api", vec![route])],
            ..Configuration::default()
        };
        resources(&snapshot(configuration, vec![]), &proxy("web", netns())).listeners
    };
    let with = listeners(Some(FaultDelay {
        fixed: Duration::from_secs(1),
        share: Percent::ALL,
    }));
    assert_eq!(with, listeners(None));
    let outbound = manager(&with["0.0.0.0_80"].filter_chains[0]);
    let names: Vec<_> = outbound.filters.iter().map(|it| &*it.name).collect();
    let wanted = [filter::FAULT, filter::CORS, filter::ISTIO_STATS, filter::ROUTER];
    assert_eq!(names, wanted);
}
