//! The choice of a route among 300 virtual hosts × 4 domains × 3 routes: by header, by a longer prefix, by default.

use std::{borrow::Cow, sync::Arc};

use anyhow::{Result, ensure};
use rajut_ir::{
    decide::{Decision, RequestView, RouteTable, decide},
    matcher::{HeaderMatcher, StringMatcher, ValueCondition},
    route::{
        Forward, HeaderMutations, PathMatch, Route, RouteActionKind, RouteConfiguration, RouteMatch, Target,
        VirtualHost,
    },
};
use rajut_types::Origin;

const HOSTS: u64 = 300;

struct Request {
    authority: String,
    path: &'static str,
}

impl RequestView for Request {
    fn method(&self) -> &[u8] {
        b"GET"
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
        (name == "user-agent").then_some(Cow::Borrowed(b"counted"))
    }
}

fn route(path: &str, headers: Vec<HeaderMatcher>, cluster: &str) -> Route {
    Route {
        name: cluster.into(),
        matches: RouteMatch {
            path: PathMatch::Prefix(path.into()),
            case_sensitive: true,
            headers,
            query: Vec::new(),
            grpc: false,
            fraction: None,
            claims: Vec::new(),
        },
        action: RouteActionKind::Forward(Box::new(Forward {
            target: Target::Cluster(cluster.into()),
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
            rate_limits: Vec::new(),
            include_virtual_host_limits: true,
        })),
        headers: HeaderMutations::default(),
        decorator: "".into(),
        filters: Vec::new(),
        origin: Origin::built_in("counted"),
    }
}

fn virtual_host(number: u64) -> VirtualHost {
    let canary = HeaderMatcher {
        name: "x-canary".into(),
        condition: ValueCondition::Matches(StringMatcher::exact("1")),
        invert: false,
        missing_is_empty: false,
    };
    let name = format!("service-{number}.clinic.svc.cluster.local");
    VirtualHost {
        domains: vec![
            name.as_str().into(),
            format!("service-{number}.clinic").into(),
            format!("service-{number}").into(),
            format!("240.240.{}.{}", number / 250, number % 250).into(),
        ],
        routes: vec![
            Arc::new(route("/api", vec![canary], "canary")),
            Arc::new(route("/api/v2/encounters", Vec::new(), "second")),
            Arc::new(route("/", Vec::new(), "first")),
        ],
        name: name.into(),
        retry_policy: None,
        headers: HeaderMutations::default(),
        include_request_attempt_count: false,
        filters: Vec::new(),
        rate_limits: Vec::new(),
        origin: Origin::built_in("counted"),
    }
}

/// Decides so many requests, which go to the hosts in turn and to the last route of each.
pub(crate) fn match_routes(count: u64) -> Result<u64> {
    let table = RouteTable::compile(&Arc::new(RouteConfiguration {
        name: "counted".into(),
        virtual_hosts: (0..HOSTS).map(|number| Arc::new(virtual_host(number))).collect(),
        ignore_port_in_host_matching: false,
        filters: Vec::new(),
        headers: HeaderMutations::default(),
    }));
    let requests: Vec<Request> = (0..HOSTS)
        .map(|number| Request {
            authority: format!("service-{}.clinic.svc.cluster.local", number * 7 % HOSTS),
            path: "/api/patients/4711?page=2",
        })
        .collect();
    let mut decided = 0;
    for request in requests.iter().cycle().take(usize::try_from(count)?) {
        let Decision::Route(chosen) = decide(&table, std::hint::black_box(request), 500_000) else {
            anyhow::bail!("{} has no route", request.authority);
        };
        ensure!(&*chosen.route.name == "first", "the last route takes it");
        decided += u64::try_from(chosen.route_id)?;
    }
    Ok(decided)
}
