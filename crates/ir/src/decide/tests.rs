#![expect(
    clippy::too_many_lines,
    reason = "tables of cases, in the messages' own shapes"
)]

use std::{borrow::Cow, sync::Arc};

use proptest::prelude::*;
use rajut_types::{Origin, Percent};

use super::*;
use crate::{
    matcher::{Regex, StringMatch, StringMatcher},
    route::{DirectResponse, Forward, HeaderMutations},
};

#[derive(Debug, Clone)]
struct Request {
    method: String,
    authority: String,
    path: String,
    headers: Vec<(String, String)>,
    claims: Option<Claim>,
}

impl RequestView for Request {
    fn method(&self) -> &[u8] {
        self.method.as_bytes()
    }
    fn scheme(&self) -> &[u8] {
        b"http"
    }
    fn authority(&self) -> &[u8] {
        self.authority.as_bytes()
    }
    fn path(&self) -> &[u8] {
        self.path.as_bytes()
    }
    fn header(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        let values: Vec<_> = self
            .headers
            .iter()
            .filter(|(it, _)| it == name)
            .map(|(_, v)| v.as_str())
            .collect();
        match values[..] {
            [] => None,
            [one] => Some(Cow::Borrowed(one.as_bytes())),
            _ => Some(Cow::Owned(values.join(",").into_bytes())),
        }
    }
    fn told(&self, name: &str) -> Option<&Claim> {
        self.claims.as_ref().filter(|_| name == "payload")
    }
    fn any_value(&self, name: &str, passes: &mut dyn FnMut(&[u8]) -> bool) -> Option<bool> {
        let mut values = self.headers.iter().filter(|(it, _)| it == name).peekable();
        values.peek()?;
        Some(values.any(|(_, value)| passes(value.as_bytes())))
    }
}

fn get(authority: &str, path: &str) -> Request {
    Request {
        method: "GET".into(),
        authority: authority.into(),
        path: path.into(),
        headers: Vec::new(),
        claims: None,
    }
}

fn origin(name: &str) -> Origin {
    Origin::built_in(name)
}

fn matches(path: PathMatch) -> RouteMatch {
    RouteMatch {
        path,
        case_sensitive: true,
        headers: Vec::new(),
        query: Vec::new(),
        grpc: false,
        fraction: None,
        claims: Vec::new(),
    }
}

fn route(name: &str, matches: RouteMatch, target: Target) -> Arc<Route> {
    Arc::new(Route {
        filters: Vec::new(),
        name: name.into(),
        matches,
        action: RouteActionKind::Forward(Box::new(forward(target))),
        headers: HeaderMutations::default(),
        decorator: Text::default(),
        origin: origin(name),
    })
}

fn forward(target: Target) -> Forward {
    Forward {
        include_virtual_host_limits: false,
        rate_limits: Vec::new(),
        target,
        cluster_not_found_status: 503,
        timeout: None,
        idle_timeout: None,
        max_stream_duration: None,
        grpc_timeout_max: None,
        retry: None,
        path_rewrite: None,
        host_rewrite: None,
        append_x_forwarded_host: false,
        hash: Vec::new(),
        mirrors: Vec::new(),
        upgrades: Vec::new(),
    }
}

fn host(name: &str, domains: &[&str], routes: Vec<Arc<Route>>) -> Arc<VirtualHost> {
    Arc::new(VirtualHost {
        filters: Vec::new(),
        rate_limits: Vec::new(),
        name: name.into(),
        domains: domains.iter().map(|it| Text::from(*it)).collect(),
        routes,
        retry_policy: None,
        headers: HeaderMutations::default(),
        include_request_attempt_count: false,
        origin: origin(name),
    })
}

fn table(hosts: Vec<Arc<VirtualHost>>, ignore_port: bool) -> RouteTable {
    RouteTable::compile(&Arc::new(RouteConfiguration {
        filters: Vec::new(),
        name: "test".into(),
        virtual_hosts: hosts,
        ignore_port_in_host_matching: ignore_port,
        headers: HeaderMutations::default(),
    }))
}

fn chosen(table: &RouteTable, request: &Request, draw: u32) -> String {
    match decide(table, request, draw) {
        Decision::Route(chosen) => format!(
            "{} {} {}",
            chosen.virtual_host.name,
            chosen.route.name,
            chosen.cluster.name().map_or("-", |it| it)
        ),
        Decision::NoVirtualHost => "no host".into(),
        Decision::NoRoute { virtual_host } => format!("{} no route", virtual_host.name),
    }
}

fn everything(name: &str) -> Vec<Arc<Route>> {
    vec![route(
        name,
        matches(PathMatch::Prefix("/".into())),
        Target::Cluster("c".into()),
    )]
}

#[test]
fn the_most_specific_virtual_host_is_taken() {
    let hosts = vec![
        host("any", &["*"], everything("r")),
        host("long", &["*.b.example.com"], everything("r")),
        host("short", &["*.example.com"], everything("r")),
        host("exact", &["a.b.example.com", "a:8080"], everything("r")),
        host("prefix", &["a.*"], everything("r")),
    ];
    let table = table(hosts, false);
    for (authority, expected) in [
        ("a.b.example.com", "exact"),
        ("A.B.EXAMPLE.com", "exact"),
        ("x.b.example.com", "long"),
        ("b.example.com", "short"),
        (".example.com", "any"),
        ("example.com", "any"),
        ("a.org", "prefix"),
        ("a.", "any"),
        ("a:8080", "exact"),
        ("a:8081", "any"),
        ("a.b.example.com:80", "prefix"),
        ("", "any"),
    ] {
        let found = table
            .virtual_host(authority.as_bytes())
            .expect("`*` has everything");
        assert_eq!(&*found.name, expected, "{authority}");
    }
    let long = vec![b'A'; 5000];
    assert_eq!(&*table.virtual_host(&long).expect("`*`").name, "any");
}

#[test]
fn ports_are_ignored_where_the_configuration_says_so() {
    let hosts = vec![
        host("v6", &["[::1]"], everything("r")),
        host("a", &["a"], everything("r")),
    ];
    let table = table(hosts, true);
    let name = |authority: &str| {
        table
            .virtual_host(authority.as_bytes())
            .map(|it| it.name.to_string())
    };
    assert_eq!(name("a:8080").as_deref(), Some("a"));
    assert_eq!(name("a").as_deref(), Some("a"));
    assert_eq!(name("a:x"), None);
    assert_eq!(name("[::1]:80").as_deref(), Some("v6"));
    assert_eq!(name("[::1]").as_deref(), Some("v6"));
}

#[test]
fn the_first_route_whose_conditions_all_hold_is_taken() {
    let header = |name: &str, condition, invert, missing_is_empty| HeaderMatcher {
        name: name.into(),
        condition,
        invert,
        missing_is_empty,
    };
    let with = |path, change: fn(&mut RouteMatch)| {
        let mut it = matches(path);
        change(&mut it);
        it
    };
    let post = header(
        ":method",
        ValueCondition::Matches(StringMatcher::exact("POST")),
        false,
        false,
    );
    let mut posts = matches(PathMatch::Prefix("/api".into()));
    posts.headers = vec![post];
    let mut versioned = matches(PathMatch::Prefix("/api".into()));
    versioned.query = vec![QueryMatcher {
        name: "v".into(),
        condition: ValueCondition::Matches(StringMatcher::exact("2")),
    }];
    let cluster = || Target::Cluster("c".into());
    let routes = vec![
        route("connect", matches(PathMatch::Connect), cluster()),
        route("post", posts, cluster()),
        route("v2", versioned, cluster()),
        route("exact", matches(PathMatch::Exact("/api/exact".into())), cluster()),
        route(
            "below",
            matches(PathMatch::SeparatedPrefix("/api/below".into())),
            cluster(),
        ),
        route(
            "regex",
            matches(PathMatch::Regex(Regex::new("/api/items/?[0-9]*").expect("valid"))),
            cluster(),
        ),
        route(
            "fold",
            with(PathMatch::Exact("/Fold".into()), |it| it.case_sensitive = false),
            cluster(),
        ),
        route(
            "grpc",
            with(PathMatch::Prefix("/grpc".into()), |it| it.grpc = true),
            cluster(),
        ),
        route("api", matches(PathMatch::Prefix("/api".into())), cluster()),
    ];
    let table = table(vec![host("h", &["*"], routes)], false);
    let with_path = |path: &str| chosen(&table, &get("h", path), 0);
    assert_eq!(with_path("/api?v=2"), "h v2 c");
    assert_eq!(with_path("/api?w=1&v=2&v=3"), "h v2 c");
    assert_eq!(with_path("/api?v=3&v=2"), "h api c");
    assert_eq!(with_path("/api/exact?x"), "h exact c");
    assert_eq!(with_path("/api/exactly"), "h api c");
    assert_eq!(with_path("/api/below"), "h below c");
    assert_eq!(with_path("/api/below/x"), "h below c");
    assert_eq!(with_path("/api/belowx"), "h api c");
    assert_eq!(with_path("/api/items"), "h regex c");
    assert_eq!(with_path("/api/items/12"), "h regex c");
    assert_eq!(with_path("/fOLD"), "h fold c");
    assert_eq!(with_path("/grpc"), "h no route");
    assert_eq!(with_path("/ap"), "h no route");
    let mut request = get("h", "/api/exact");
    request.method = "POST".into();
    assert_eq!(chosen(&table, &request, 0), "h post c");
    request.method = "CONNECT".into();
    request.path = String::new();
    assert_eq!(chosen(&table, &request, 0), "h connect c");
    let mut request = get("h", "/grpc");
    for (content_type, expected) in [
        ("application/grpc", "h grpc c"),
        ("application/grpc+proto", "h grpc c"),
        ("application/grpcx", "h no route"),
    ] {
        request.headers = vec![("content-type".into(), content_type.into())];
        assert_eq!(chosen(&table, &request, 0), expected, "{content_type}");
    }
}

#[test]
fn missing_and_inverted_headers_are_judged_as_envoy_does() {
    let exact = || ValueCondition::Matches(StringMatcher::exact("1"));
    let matcher = |condition, invert, missing_is_empty| HeaderMatcher {
        name: "x".into(),
        condition,
        invert,
        missing_is_empty,
    };
    let mut with = get("h", "/");
    with.headers = vec![("x".into(), "1".into())];
    let mut twice = get("h", "/");
    twice.headers = vec![("x".into(), "1".into()), ("x".into(), "2".into())];
    let without = get("h", "/");
    for (condition, invert, missing, on_with, on_without) in [
        (exact(), false, false, true, false),
        (exact(), true, false, false, false),
        (exact(), true, true, false, true),
        (ValueCondition::Present(true), false, false, true, false),
        (ValueCondition::Present(true), true, false, false, true),
        (ValueCondition::Present(false), false, false, false, true),
        (ValueCondition::Range(0..2), false, false, true, false),
        (ValueCondition::Range(2..9), true, false, true, false),
    ] {
        let it = matcher(condition, invert, missing);
        assert_eq!(header_matches(&it, &with), on_with, "{it:?}");
        assert_eq!(header_matches(&it, &without), on_without, "{it:?}");
    }
    assert!(header_matches(&matcher(exact(), false, false), &twice));
    let joined = ValueCondition::Matches(StringMatcher::exact("1,2"));
    assert!(!header_matches(&matcher(joined, false, false), &twice));
}

fn weighted(entries: &[(&str, u32)]) -> Target {
    Target::Weighted(
        entries
            .iter()
            .map(|(name, weight)| WeightedCluster {
                filters: Vec::new(),
                name: (*name).into(),
                weight: *weight,
                headers: HeaderMutations::default(),
                host_rewrite: None,
                origin: origin(name),
            })
            .collect(),
    )
}

#[test]
fn weights_split_the_draws_exactly() {
    let split = weighted(&[("stable", 90), ("none", 0), ("canary", 10)]);
    let routes = vec![route("r", matches(PathMatch::Prefix("/".into())), split)];
    let table = table(vec![host("h", &["*"], routes)], false);
    let request = get("h", "/");
    let canary = (0..DRAW_END)
        .filter(|draw| chosen_cluster(&table, &request, *draw) == "canary")
        .count();
    assert_eq!(canary, 100_000);
    assert_eq!(chosen_cluster(&table, &request, 899_999), "stable");
    assert_eq!(chosen_cluster(&table, &request, 900_000), "canary");
}

fn chosen_cluster<'t>(table: &'t RouteTable, request: &Request, draw: u32) -> &'t str {
    match decide(table, request, draw) {
        Decision::Route(chosen) => chosen.cluster.name().map_or("-", |it| it),
        _ => "none",
    }
}

#[test]
fn weights_inside_a_share_are_still_split() {
    let mut tenth = matches(PathMatch::Prefix("/".into()));
    tenth.fraction = Some(Percent::from_millionths(100_000));
    let routes = vec![
        route("tenth", tenth, weighted(&[("a", 50), ("b", 50)])),
        route(
            "rest",
            matches(PathMatch::Prefix("/".into())),
            Target::Cluster("c".into()),
        ),
    ];
    let table = table(vec![host("h", &["*"], routes)], false);
    let request = get("h", "/");
    let count = |name| {
        (0..DRAW_END)
            .filter(|draw| chosen_cluster(&table, &request, *draw) == name)
            .count()
    };
    assert_eq!(count("c"), 900_000);
    let first = count("a");
    assert!(
        (49_000..=51_000).contains(&first),
        "{first} of 100000 went to the first half"
    );
}

#[test]
fn explaining_names_each_route_and_why_it_did_not_match() {
    let mut headers = matches(PathMatch::Prefix("/".into()));
    headers.headers = vec![HeaderMatcher {
        name: "x-tier".into(),
        condition: ValueCondition::Matches(StringMatcher::exact("gold")),
        invert: false,
        missing_is_empty: false,
    }];
    let routes = vec![
        route("gold", headers, Target::Cluster("g".into())),
        route(
            "admin",
            matches(PathMatch::Prefix("/admin".into())),
            Target::Cluster("a".into()),
        ),
        route(
            "rest",
            matches(PathMatch::Prefix("/".into())),
            weighted(&[("v1", 1), ("v2", 1)]),
        ),
    ];
    let table = table(vec![host("h", &["h"], routes)], false);
    let (decision, steps) = explain(&table, &get("H", "/x"), 600_000);
    assert!(matches!(decision, Decision::Route(chosen) if chosen.route_id == 2));
    let [Step::VirtualHost { host, found }, tried @ ..] = &steps[..] else {
        panic!("{steps:?}");
    };
    assert_eq!(host, "H");
    assert_eq!(found.as_ref().map(|it| &*it.0), Some("h"));
    let reasons: Vec<_> = tried
        .iter()
        .map(|step| match step {
            Step::Route { name, mismatch, .. } => {
                format!("{name}: {}", mismatch.as_deref().unwrap_or("takes it"))
            }
            Step::Weight {
                cluster,
                weight,
                total,
                ..
            } => format!("{cluster} {weight}/{total}"),
            Step::VirtualHost { .. } => "again?".into(),
        })
        .collect();
    assert_eq!(
        reasons,
        [
            "gold: the header `x-tier` must be `gold`",
            "admin: the path does not begin with `/admin`",
            "rest: takes it",
            "v2 1/2"
        ]
    );
    let (decision, steps) = explain(&table, &get("other", "/x"), 0);
    assert!(matches!(decision, Decision::NoVirtualHost));
    assert_eq!(steps.len(), 1);
}

#[test]
fn routes_are_numbered_across_virtual_hosts() {
    let answer = Arc::new(Route {
        action: RouteActionKind::DirectResponse(DirectResponse {
            status: 200,
            body: bytes::Bytes::new(),
        }),
        ..(*everything("answer")[0]).clone()
    });
    let table = table(
        vec![
            host("a", &["a"], everything("r")),
            host("b", &["b"], vec![answer]),
        ],
        false,
    );
    assert_eq!(table.route_count(), 2);
    let Decision::Route(chosen) = decide(&table, &get("b", "/"), 0) else {
        panic!("b has a route");
    };
    assert_eq!(chosen.route_id, 1);
    assert!(matches!(chosen.cluster, ChosenCluster::None));
    assert_eq!(
        table.routes().map(|(_, route)| &*route.name).collect::<Vec<_>>(),
        ["r", "answer"]
    );
}

// --- compiled equals naive ---

/// The rules as the documentation states them, without any index.
fn naive(configuration: &RouteConfiguration, request: &Request, draw: u32) -> String {
    let host = request.authority.to_ascii_lowercase();
    let rank = |domain: &str| -> Option<(u8, usize)> {
        if domain == "*" {
            Some((0, 0))
        } else if let Some(suffix) = domain.strip_prefix('*') {
            (host.len() > suffix.len() && host.ends_with(suffix)).then_some((2, suffix.len()))
        } else if let Some(prefix) = domain.strip_suffix('*') {
            (host.len() > prefix.len() && host.starts_with(prefix)).then_some((1, prefix.len()))
        } else {
            (host == domain).then_some((3, 0))
        }
    };
    let mut best: Option<((u8, usize), &VirtualHost)> = None;
    for virtual_host in &configuration.virtual_hosts {
        for domain in &virtual_host.domains {
            if let Some(rank) = rank(domain)
                && best.is_none_or(|(known, _)| rank > known)
            {
                best = Some((rank, virtual_host));
            }
        }
    }
    let Some((_, virtual_host)) = best else {
        return "no host".into();
    };
    let path = request.path.split(['?', '#']).next().unwrap_or_default();
    for route in &virtual_host.routes {
        let it = &route.matches;
        let path_holds = match &it.path {
            PathMatch::Prefix(text) => path.starts_with(&**text),
            PathMatch::Exact(text) => path == &**text,
            PathMatch::Regex(regex) => regex.is_full_match(path.as_bytes()),
            PathMatch::SeparatedPrefix(text) => path == &**text || path.starts_with(&format!("{text}/")),
            PathMatch::Connect => request.method == "CONNECT",
        };
        let headers_hold = it.headers.iter().all(|header| header_matches(header, request));
        if path_holds && headers_hold && it.fraction.is_none_or(|share| share.includes(draw)) {
            return format!("{} {}", virtual_host.name, route.name);
        }
    }
    format!("{} no route", virtual_host.name)
}

fn any_path() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "/",
        "/a",
        "/a/b",
        "/a/bc",
        "/ab",
        "/abcdefgh",
        "/abcdefghi",
        "/abcdefgx",
        "/12",
    ])
    .prop_map(str::to_owned)
}

fn any_matcher() -> impl Strategy<Value = PathMatch> {
    any_path().prop_flat_map(|path| {
        let text: Text = path.as_str().into();
        prop_oneof![
            Just(PathMatch::Prefix(text.clone())),
            Just(PathMatch::Exact(text.clone())),
            Just(PathMatch::SeparatedPrefix(text.clone())),
            prop::sample::select(vec![
                "/a.*",
                "/ab?c*",
                "/a/b|/12",
                "/[0-9]+",
                "/abcdefgh?i?",
                "(?i)/A"
            ])
            .prop_map(|source| PathMatch::Regex(Regex::new(source).expect("valid"))),
        ]
    })
}

fn any_domain() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "*", "*.x", "*.b.x", "*b.x", "a.*", "a.b.*", "a.b.x", "b.x", "a.b.x:80",
    ])
}

fn any_configuration() -> impl Strategy<Value = RouteConfiguration> {
    let any_route = (
        any_matcher(),
        prop::option::of(0..3u32),
        prop::option::weighted(0.2, 0..1_000_000u32),
    );
    let any_host = prop::collection::vec(any_route, 0..6);
    (
        Just(vec![
            "*", "*.x", "*.b.x", "*b.x", "a.*", "a.b.*", "a.b.x", "b.x", "a.b.x:80",
        ])
        .prop_shuffle(),
        prop::collection::vec(any_host, 1..5),
    )
        .prop_map(|(domains, hosts)| {
            let virtual_hosts = hosts
                .into_iter()
                .enumerate()
                .map(|(at, routes)| {
                    let routes = routes
                        .into_iter()
                        .enumerate()
                        .map(|(position, (path, header, fraction))| {
                            let mut it = matches(path);
                            it.fraction = fraction.map(Percent::from_millionths);
                            it.headers = header
                                .map(|value| HeaderMatcher {
                                    name: "x".into(),
                                    condition: ValueCondition::Matches(StringMatcher {
                                        pattern: StringMatch::Exact(value.to_string().into()),
                                        ignore_case: false,
                                    }),
                                    invert: value == 0,
                                    missing_is_empty: value == 0,
                                })
                                .into_iter()
                                .collect();
                            route(&format!("r{position}"), it, Target::Cluster("c".into()))
                        })
                        .collect();
                    host(&format!("h{at}"), &domains[at * 2..at * 2 + 2], routes)
                })
                .collect();
            RouteConfiguration {
                filters: Vec::new(),
                name: "p".into(),
                virtual_hosts,
                ignore_port_in_host_matching: false,
                headers: HeaderMutations::default(),
            }
        })
}

proptest! {
    #[test]
    fn compiled_decides_as_the_naive_reading(
        configuration in any_configuration(),
        authority in any_domain(),
        path in any_path(),
        query in prop::sample::select(vec!["", "?x=1", "#f"]),
        header in prop::option::of(0..3u32),
        draw in 0..DRAW_END,
    ) {
        let mut request = get(&authority.replace('*', "q").to_uppercase(), &format!("{path}{query}"));
        request.headers = header.map(|it| ("x".to_owned(), it.to_string())).into_iter().collect();
        let expected = naive(&configuration, &request, draw);
        let table = RouteTable::compile(&Arc::new(configuration));
        let found = match decide(&table, &request, draw) {
            Decision::Route(chosen) => format!("{} {}", chosen.virtual_host.name, chosen.route.name),
            Decision::NoVirtualHost => "no host".into(),
            Decision::NoRoute { virtual_host } => format!("{} no route", virtual_host.name),
        };
        prop_assert_eq!(found, expected);
        let (explained, _) = explain(&table, &request, draw);
        prop_assert_eq!(
            std::mem::discriminant(&explained),
            std::mem::discriminant(&decide(&table, &request, draw))
        );
    }
}

#[test]
fn each_line_of_a_repeated_header_is_judged_on_its_own() {
    let matcher = |invert| HeaderMatcher {
        name: "x-way".into(),
        condition: ValueCondition::Matches(StringMatcher::exact("one")),
        invert,
        missing_is_empty: false,
    };
    let with = |values: &[&str]| Request {
        headers: values
            .iter()
            .map(|value| ("x-way".to_owned(), (*value).to_owned()))
            .collect(),
        ..get("a", "/")
    };
    // (lines, holds, holds inverted)
    for (values, plain, inverted) in [
        (&["one"][..], true, false),
        (&["no", "one"], true, false),
        (&["no,one"], false, true),
        (&["no", "two"], false, true),
        (&[], false, false),
    ] {
        let request = with(values);
        assert_eq!(header_matches(&matcher(false), &request), plain, "{values:?}");
        assert_eq!(
            header_matches(&matcher(true), &request),
            inverted,
            "{values:?}, inverted"
        );
    }
}

#[test]
fn routes_ask_for_claims_that_a_token_has_told() {
    use crate::jwt::{ClaimCondition, ClaimMatcher};
    let claim = |name: &str, invert: bool| {
        let text = ClaimCondition::Text(StringMatcher::exact("doctor"));
        RouteClaim {
            matcher: ClaimMatcher {
                path: vec!["payload".into(), name.into()],
                value: ClaimCondition::Any(vec![text.clone(), ClaimCondition::Element(Box::new(text))]),
            },
            invert,
        }
    };
    let asking = |name: &str, claim: RouteClaim| {
        let matches = RouteMatch {
            claims: vec![claim],
            ..matches(PathMatch::Prefix("/".into()))
        };
        route(name, matches, Target::Cluster(name.into()))
    };
    let routes = vec![
        asking("doctors", claim("role", false)),
        asking("others", claim("kind", true)),
    ];
    let table = table(vec![host("a", &["*"], routes)], false);
    let told = |json: Option<&str>| Request {
        claims: json.map(|json| Claim::parse(json.as_bytes()).unwrap()),
        ..get("a", "/")
    };
    let to = |json| match decide(&table, &told(json), 0) {
        Decision::Route(chosen) => chosen.route.name.to_string(),
        _ => String::new(),
    };
    assert_eq!(to(Some(r#"{"role":"doctor"}"#)), "doctors");
    assert_eq!(to(Some(r#"{"role":["nurse","doctor"]}"#)), "doctors");
    assert_eq!(to(Some(r#"{"role":"nurse","kind":"doctor"}"#)), "");
    assert_eq!(to(Some(r#"{"role":{"doctor":1}}"#)), "others");
    assert_eq!(to(None), "others");
    let (_, steps) = explain(&table, &told(None), 0);
    assert!(
        format!("{steps:?}").contains("the claim `role` of a verified token must be as asked"),
        "{steps:?}"
    );
}
