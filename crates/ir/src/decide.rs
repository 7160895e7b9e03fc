//! From a request to a route and a cluster: [`RouteTable`] is a compiled [`RouteConfiguration`], [`decide`] is the one
//! function that reads it (step 5 of walk one), and [`explain`] is the same code that also records each rule it tried, for
//! `rajut why`.
//!
//! Order, as Envoy has it: the virtual host by the request's host (exact, then the longest `*suffix`, then the longest
//! `prefix*`, then `*`), then the first of its routes whose conditions all hold, then a cluster by weight. Hosts are
//! compared without letter case; a port in the host counts unless the configuration ignores it.
//!
//! Invariants: pure, no clock and no randomness (the draw is an argument); no allocation in [`decide`]. Routes are pre-filtered by the first eight bytes of
//! the path, one comparison of integers each.
//!
//! Does not: rewrite, redirect, strip ports off the host, look whether a cluster exists.

use std::{borrow::Cow, collections::HashMap, sync::Arc};

use rajut_types::{Origin, Text};

use crate::{
    jwt::Claim,
    matcher::{HeaderMatcher, QueryMatcher, ValueCondition},
    route::{
        PathMatch, Route, RouteActionKind, RouteClaim, RouteConfiguration, RouteMatch, Target, VirtualHost,
        WeightedCluster,
    },
};

/// What a decision needs to know of a request.
pub trait RequestView {
    /// `GET`.
    fn method(&self) -> &[u8];
    /// `http` or `https`.
    fn scheme(&self) -> &[u8];
    /// `Host` or `:authority`, with its port if it has one.
    fn authority(&self) -> &[u8];
    /// With the query; empty where there is none (CONNECT).
    fn path(&self) -> &[u8];
    /// A header's value by its lower-case name (no pseudo headers); several are joined with `,`.
    fn header(&self, name: &str) -> Option<Cow<'_, [u8]>>;
    /// Whether one of the header's values passes; `None` without the header. What stands on lines of its own is judged
    /// on its own (Envoy `match_headers_individually`), or a second line would take a request past a rule about the
    /// first. To be written anew by views whose [`RequestView::header`] joins several lines.
    fn any_value(&self, name: &str, passes: &mut dyn FnMut(&[u8]) -> bool) -> Option<bool> {
        self.header(name).map(|value| passes(&value))
    }
    /// What verified tokens say, by the name that their provider gives it; nothing before a filter has verified one.
    fn told(&self, _name: &str) -> Option<&Claim> {
        None
    }
}

/// The uniform draw of a decision is below this.
pub const DRAW_END: u32 = 1_000_000;

/// A compiled route configuration.
#[derive(Debug)]
pub struct RouteTable {
    configuration: Arc<RouteConfiguration>,
    /// Lower-case host → position of its virtual host.
    exact: HashMap<Box<[u8]>, usize>,
    /// `*suffix`, longest first.
    suffixes: Vec<ByLength>,
    /// `prefix*`, longest first.
    prefixes: Vec<ByLength>,
    /// `*`.
    fallback: Option<usize>,
    /// In the order of the configuration.
    hosts: Vec<CompiledHost>,
}

/// Wildcards of one length: text → position of the virtual host.
#[derive(Debug)]
struct ByLength {
    length: usize,
    hosts: HashMap<Box<[u8]>, usize>,
}

#[derive(Debug)]
struct CompiledHost {
    routes: Vec<CompiledRoute>,
    /// A route takes a share of requests only: the draw for weights must not be the draw for shares.
    has_fractions: bool,
    /// Position of its first route among all routes of the table.
    first_id: usize,
}

#[derive(Debug)]
struct CompiledRoute {
    /// A path can match only if its first eight bytes, masked, equal `head`.
    mask: u64,
    head: u64,
    /// Sum of the weights.
    total_weight: u64,
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy)]
pub enum Decision<'t> {
    /// A route takes it.
    Route(Chosen<'t>),
    /// No virtual host has that host.
    NoVirtualHost,
    /// The virtual host has no route for it.
    NoRoute {
        /// The virtual host.
        virtual_host: &'t Arc<VirtualHost>,
    },
}

/// The route that takes a request.
#[derive(Debug, Clone, Copy)]
pub struct Chosen<'t> {
    /// The virtual host.
    pub virtual_host: &'t Arc<VirtualHost>,
    /// The route.
    pub route: &'t Arc<Route>,
    /// Position of the route among all of the table ([`RouteTable::route_count`]), for what is kept per route.
    pub route_id: usize,
    /// Where it goes.
    pub cluster: ChosenCluster<'t>,
}

/// Where a route sends a request.
#[derive(Debug, Clone, Copy)]
pub enum ChosenCluster<'t> {
    /// The one cluster.
    Named(&'t Text),
    /// One of several, drawn by weight.
    Weighted(&'t WeightedCluster),
    /// The cluster that this request header names.
    Header(&'t Text),
    /// Nowhere: a redirection or an answer in place.
    None,
}

impl<'t> ChosenCluster<'t> {
    /// The cluster's name, where the route itself names it.
    pub fn name(&self) -> Option<&'t Text> {
        match self {
            Self::Named(name) => Some(name),
            Self::Weighted(cluster) => Some(&cluster.name),
            Self::Header(_) | Self::None => None,
        }
    }
}

impl RouteTable {
    /// Compiles. Where two virtual hosts have a domain in common the first has it (the decoder refuses that).
    pub fn compile(configuration: &Arc<RouteConfiguration>) -> Self {
        let mut table = Self {
            exact: HashMap::new(),
            suffixes: Vec::new(),
            prefixes: Vec::new(),
            fallback: None,
            hosts: Vec::with_capacity(configuration.virtual_hosts.len()),
            configuration: Arc::clone(configuration),
        };
        let mut first_id = 0;
        for (at, host) in configuration.virtual_hosts.iter().enumerate() {
            for domain in &host.domains {
                table.add_domain(&domain.to_ascii_lowercase(), at);
            }
            table.hosts.push(CompiledHost {
                routes: host
                    .routes
                    .iter()
                    .map(|route| CompiledRoute::new(route))
                    .collect(),
                has_fractions: host.routes.iter().any(|route| route.matches.fraction.is_some()),
                first_id,
            });
            first_id += host.routes.len();
        }
        for wildcards in [&mut table.suffixes, &mut table.prefixes] {
            wildcards.sort_by_key(|group| std::cmp::Reverse(group.length));
        }
        table
    }

    fn add_domain(&mut self, domain: &str, at: usize) {
        if domain == "*" {
            self.fallback.get_or_insert(at);
        } else if let Some(suffix) = domain.strip_prefix('*') {
            add_wildcard(&mut self.suffixes, suffix, at);
        } else if let Some(prefix) = domain.strip_suffix('*') {
            add_wildcard(&mut self.prefixes, prefix, at);
        } else {
            self.exact.entry(domain.as_bytes().into()).or_insert(at);
        }
    }

    /// What was compiled.
    pub fn configuration(&self) -> &Arc<RouteConfiguration> {
        &self.configuration
    }

    /// Routes of all virtual hosts; [`Chosen::route_id`] is below it.
    pub fn route_count(&self) -> usize {
        self.hosts
            .last()
            .map_or(0, |host| host.first_id + host.routes.len())
    }

    /// All routes, by [`Chosen::route_id`].
    pub fn routes(&self) -> impl Iterator<Item = (&Arc<VirtualHost>, &Arc<Route>)> {
        let hosts = &self.configuration.virtual_hosts;
        hosts
            .iter()
            .flat_map(|host| host.routes.iter().map(move |route| (host, route)))
    }

    /// The virtual host of a request's host.
    pub fn virtual_host(&self, authority: &[u8]) -> Option<&Arc<VirtualHost>> {
        self.find_host(authority, &mut ())
            .map(|at| &self.configuration.virtual_hosts[at])
    }

    fn find_host(&self, authority: &[u8], watch: &mut impl Watch) -> Option<usize> {
        let host = if self.configuration.ignore_port_in_host_matching {
            without_port(authority)
        } else {
            authority
        };
        let mut buffer = [0; HOST_MAX];
        let at = lower_case(host, &mut buffer).and_then(|host| {
            let exact = self.exact.get(host).copied();
            exact
                .or_else(|| {
                    self.suffixes.iter().find_map(|group| {
                        let start = host.len().checked_sub(group.length).filter(|start| *start > 0)?;
                        group.hosts.get(&host[start..]).copied()
                    })
                })
                .or_else(|| {
                    self.prefixes.iter().find_map(|group| {
                        (host.len() > group.length)
                            .then(|| group.hosts.get(&host[..group.length]).copied())?
                    })
                })
        });
        let at = at.or(self.fallback);
        watch.host(host, at.map(|at| &*self.configuration.virtual_hosts[at]));
        at
    }
}

fn add_wildcard(groups: &mut Vec<ByLength>, text: &str, at: usize) {
    let length = text.len();
    let group = if let Some(found) = groups.iter().position(|group| group.length == length) {
        found
    } else {
        groups.push(ByLength {
            length,
            hosts: HashMap::new(),
        });
        groups.len() - 1
    };
    groups[group].hosts.entry(text.as_bytes().into()).or_insert(at);
}

/// Longest host that can equal a domain: a name has at most 253 bytes, a port six more.
const HOST_MAX: usize = 320;

/// `text` in lower case, in `buffer` where it is not already; `None` where it is too long for any domain.
pub(crate) fn lower_case<'a>(text: &'a [u8], buffer: &'a mut [u8; HOST_MAX]) -> Option<&'a [u8]> {
    if !text.iter().any(u8::is_ascii_uppercase) {
        return Some(text);
    }
    let lower = buffer.get_mut(..text.len())?;
    lower.copy_from_slice(text);
    lower.make_ascii_lowercase();
    Some(lower)
}

/// The host without `:port`; an IPv6 address in brackets keeps its colons.
fn without_port(authority: &[u8]) -> &[u8] {
    match authority.iter().rposition(|byte| *byte == b':') {
        Some(at)
            if authority[at + 1..].iter().all(u8::is_ascii_digit)
                && (authority[..at].ends_with(b"]") || !authority[..at].contains(&b':')) =>
        {
            &authority[..at]
        }
        _ => authority,
    }
}

/// The first eight bytes as a number, missing ones as zero.
fn head_of(path: &[u8]) -> u64 {
    match path.first_chunk::<8>() {
        Some(head) => u64::from_le_bytes(*head),
        None => path
            .iter()
            .enumerate()
            .fold(0, |head, (at, byte)| head | u64::from(*byte) << (8 * at)),
    }
}

impl CompiledRoute {
    fn new(route: &Route) -> Self {
        let literal = if route.matches.case_sensitive || matches!(route.matches.path, PathMatch::Regex(_)) {
            literal_head(&route.matches.path)
        } else {
            &[]
        };
        let length = literal.len().min(8);
        let mask = match length {
            0 => 0,
            length => u64::MAX >> (64 - 8 * length),
        };
        let total_weight = match &route.action {
            RouteActionKind::Forward(forward) => match &forward.target {
                Target::Weighted(clusters) => clusters.iter().map(|it| u64::from(it.weight)).sum(),
                Target::Cluster(_) | Target::Header(_) => 0,
            },
            RouteActionKind::Redirect(_)
            | RouteActionKind::DirectResponse(_)
            | RouteActionKind::NonForwarding => 0,
        };
        Self {
            mask,
            head: head_of(&literal[..length]),
            total_weight,
        }
    }

    /// Whether the path's head allows a match.
    fn may_match(&self, head: u64) -> bool {
        head & self.mask == self.head
    }
}

/// Bytes that every path that matches begins with.
fn literal_head(path: &PathMatch) -> &[u8] {
    match path {
        PathMatch::Prefix(text) | PathMatch::Exact(text) | PathMatch::SeparatedPrefix(text) => {
            text.as_bytes()
        }
        PathMatch::Connect => &[],
        PathMatch::Regex(regex) => {
            let source = regex.source().as_bytes();
            if source.contains(&b'|') {
                return &[];
            }
            let end = source
                .iter()
                .position(|byte| !(byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'-' | b'_')))
                .unwrap_or(source.len());
            // What repeats may be absent.
            let repeats = matches!(source.get(end), Some(b'*' | b'?' | b'{' | b'+'));
            &source[..if repeats { end.saturating_sub(1) } else { end }]
        }
    }
}

/// Why a route does not take a request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Mismatch<'t> {
    /// The path.
    Path(&'t PathMatch),
    /// A header.
    Header(&'t HeaderMatcher),
    /// A query parameter.
    Query(&'t QueryMatcher),
    /// It is no gRPC request.
    Grpc,
    /// A claim of the token.
    Claim(&'t RouteClaim),
    /// The draw is outside the route's share.
    Fraction(rajut_types::Percent),
}

/// What [`explain`] adds to a decision; nothing in [`decide`].
trait Watch {
    fn host(&mut self, host: &[u8], found: Option<&VirtualHost>);
    fn route(&mut self, position: usize, route: &Route, mismatch: Option<Mismatch<'_>>);
    fn weight(&mut self, draw: u64, total: u64, chosen: &WeightedCluster);
}

impl Watch for () {
    fn host(&mut self, _: &[u8], _: Option<&VirtualHost>) {}
    fn route(&mut self, _: usize, _: &Route, _: Option<Mismatch<'_>>) {}
    fn weight(&mut self, _: u64, _: u64, _: &WeightedCluster) {}
}

/// Chooses virtual host, route and cluster. `draw` is uniform in `0..`[`DRAW_END`].
pub fn decide<'t>(table: &'t RouteTable, request: &impl RequestView, draw: u32) -> Decision<'t> {
    choose(table, request, draw, &mut ())
}

/// The same decision, and each rule that was tried.
pub fn explain<'t>(
    table: &'t RouteTable,
    request: &impl RequestView,
    draw: u32,
) -> (Decision<'t>, Vec<Step>) {
    let mut steps = Steps(Vec::new());
    let decision = choose(table, request, draw, &mut steps);
    (decision, steps.0)
}

fn choose<'t>(
    table: &'t RouteTable,
    request: &impl RequestView,
    draw: u32,
    watch: &mut impl Watch,
) -> Decision<'t> {
    let Some(at) = table.find_host(request.authority(), watch) else {
        return Decision::NoVirtualHost;
    };
    let virtual_host = &table.configuration.virtual_hosts[at];
    let compiled = &table.hosts[at];
    let whole = request.path();
    let end = whole
        .iter()
        .position(|byte| matches!(byte, b'?' | b'#'))
        .unwrap_or(whole.len());
    let (path, query) = (&whole[..end], query_of(&whole[end..]));
    let head = head_of(path);
    for (position, (rule, route)) in compiled.routes.iter().zip(&virtual_host.routes).enumerate() {
        let mismatch = if rule.may_match(head) {
            mismatch(&route.matches, request, path, query, draw)
        } else {
            Some(Mismatch::Path(&route.matches.path))
        };
        watch.route(position, route, mismatch);
        if mismatch.is_none() {
            // Requests inside a share are not spread evenly over the draws: stir before drawing again.
            let draw = if compiled.has_fractions { stir(draw) } else { draw };
            return Decision::Route(Chosen {
                virtual_host,
                route,
                route_id: compiled.first_id + position,
                cluster: choose_cluster(route, rule.total_weight, draw, watch),
            });
        }
    }
    Decision::NoRoute { virtual_host }
}

/// A permutation of the draws that spreads neighbours far apart (the factor shares no divisor with a million).
fn stir(draw: u32) -> u32 {
    let stirred = (u64::from(draw) * 618_033 + 271_828) % u64::from(DRAW_END);
    u32::try_from(stirred).unwrap_or(0)
}

/// After the `?`, without a fragment.
fn query_of(rest: &[u8]) -> &[u8] {
    let query = rest.strip_prefix(b"?").unwrap_or_default();
    let end = query.iter().position(|byte| *byte == b'#').unwrap_or(query.len());
    &query[..end]
}

fn choose_cluster<'t>(
    route: &'t Route,
    total_weight: u64,
    draw: u32,
    watch: &mut impl Watch,
) -> ChosenCluster<'t> {
    let RouteActionKind::Forward(forward) = &route.action else {
        return ChosenCluster::None;
    };
    match &forward.target {
        Target::Cluster(name) => ChosenCluster::Named(name),
        Target::Header(name) => ChosenCluster::Header(name),
        Target::Weighted(clusters) => {
            let mut rest = u64::from(draw) * total_weight / u64::from(DRAW_END);
            for cluster in clusters {
                let weight = u64::from(cluster.weight);
                if rest < weight {
                    watch.weight(u64::from(draw), total_weight, cluster);
                    return ChosenCluster::Weighted(cluster);
                }
                rest -= weight;
            }
            // Only weights that are all zero come here, and the decoder refuses them.
            clusters
                .first()
                .map_or(ChosenCluster::None, ChosenCluster::Weighted)
        }
    }
}

/// The first condition that does not hold.
fn mismatch<'t>(
    matches: &'t RouteMatch,
    request: &impl RequestView,
    path: &[u8],
    query: &[u8],
    draw: u32,
) -> Option<Mismatch<'t>> {
    if !path_matches(&matches.path, matches.case_sensitive, request.method(), path) {
        return Some(Mismatch::Path(&matches.path));
    }
    if let Some(header) = matches.headers.iter().find(|it| !header_matches(it, request)) {
        return Some(Mismatch::Header(header));
    }
    if let Some(parameter) = matches.query.iter().find(|it| !query_matches(it, query)) {
        return Some(Mismatch::Query(parameter));
    }
    if matches.grpc && !is_grpc(request) {
        return Some(Mismatch::Grpc);
    }
    let holds = |claim: &&RouteClaim| claim.matcher.holds(|name| request.told(name)) != claim.invert;
    if let Some(claim) = matches.claims.iter().find(|claim| !holds(claim)) {
        return Some(Mismatch::Claim(claim));
    }
    match matches.fraction {
        Some(share) if !share.includes(draw) => Some(Mismatch::Fraction(share)),
        _ => None,
    }
}

/// Envoy: a CONNECT request without a path is taken by a connect matcher only.
fn path_matches(matcher: &PathMatch, case_sensitive: bool, method: &[u8], path: &[u8]) -> bool {
    let eq = |a: &[u8], b: &[u8]| {
        if case_sensitive {
            a == b
        } else {
            a.eq_ignore_ascii_case(b)
        }
    };
    let begins = |text: &[u8]| path.get(..text.len()).is_some_and(|head| eq(head, text));
    match matcher {
        PathMatch::Connect => method == b"CONNECT",
        _ if path.is_empty() => false,
        PathMatch::Prefix(text) => begins(text.as_bytes()),
        PathMatch::Exact(text) => eq(path, text.as_bytes()),
        PathMatch::Regex(regex) => regex.is_full_match(path),
        PathMatch::SeparatedPrefix(text) => {
            begins(text.as_bytes()) && matches!(path.get(text.len()), None | Some(b'/'))
        }
    }
}

/// Whether a request's header satisfies a matcher; shared with policies.
pub fn header_matches(matcher: &HeaderMatcher, request: &impl RequestView) -> bool {
    let mut passes = |value: &[u8]| value_matches(&matcher.condition, value);
    let one = |value: &[u8]| (!value.is_empty()).then(|| value_matches(&matcher.condition, value));
    let found = match &*matcher.name {
        ":method" => one(request.method()),
        ":authority" | "host" => one(request.authority()),
        ":path" => one(request.path()),
        ":scheme" => one(request.scheme()),
        name => request.any_value(name, &mut passes),
    };
    let holds = match (&matcher.condition, found) {
        (ValueCondition::Present(wanted), found) => found.is_some() == *wanted,
        (_, Some(holds)) => holds,
        // Envoy: without the header the matcher does not hold, inverted or not.
        (_, None) if !matcher.missing_is_empty => return false,
        (_, None) => passes(b""),
    };
    holds != matcher.invert
}

fn value_matches(condition: &ValueCondition, value: &[u8]) -> bool {
    match condition {
        ValueCondition::Present(wanted) => *wanted,
        ValueCondition::Matches(matcher) => matcher.matches(value),
        ValueCondition::Range(range) => std::str::from_utf8(value)
            .ok()
            .and_then(|text| text.trim_ascii().parse().ok())
            .is_some_and(|number: i64| range.contains(&number)),
    }
}

/// The first parameter of that name counts; nothing is decoded, as in Envoy.
fn query_matches(matcher: &QueryMatcher, query: &[u8]) -> bool {
    let value = query.split(|byte| *byte == b'&').find_map(|pair| {
        let (name, value) = match pair.iter().position(|byte| *byte == b'=') {
            Some(at) => (&pair[..at], &pair[at + 1..]),
            None => (pair, &[][..]),
        };
        (name == matcher.name.as_bytes() && !pair.is_empty()).then_some(value)
    });
    match (&matcher.condition, value) {
        (ValueCondition::Present(wanted), value) => value.is_some() == *wanted,
        (_, None) => false,
        (condition, Some(value)) => value_matches(condition, value),
    }
}

/// `application/grpc`, or that and `+`.
fn is_grpc(request: &impl RequestView) -> bool {
    const GRPC: &[u8] = b"application/grpc";
    request.header("content-type").is_some_and(|it| {
        it.strip_prefix(GRPC)
            .is_some_and(|rest| matches!(rest.first(), None | Some(b'+')))
    })
}

/// A rule that was tried.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// The choice of a virtual host.
    VirtualHost {
        /// The request's host as it was compared.
        host: String,
        /// The virtual host's name and origin, if one has it.
        found: Option<(Text, Origin)>,
    },
    /// A route was tried.
    Route {
        /// Its position in the virtual host.
        position: usize,
        /// Its name, may be empty.
        name: Text,
        /// Who wrote it.
        origin: Origin,
        /// Which of its conditions does not hold; `None`: it takes the request.
        mismatch: Option<String>,
    },
    /// A cluster was drawn by weight.
    Weight {
        /// The cluster.
        cluster: Text,
        /// Its weight.
        weight: u32,
        /// The sum.
        total: u64,
        /// Who wrote it.
        origin: Origin,
    },
}

struct Steps(Vec<Step>);

impl Watch for Steps {
    fn host(&mut self, host: &[u8], found: Option<&VirtualHost>) {
        self.0.push(Step::VirtualHost {
            host: String::from_utf8_lossy(host).into_owned(),
            found: found.map(|it| (it.name.clone(), it.origin.clone())),
        });
    }

    fn route(&mut self, position: usize, route: &Route, mismatch: Option<Mismatch<'_>>) {
        self.0.push(Step::Route {
            position,
            name: route.name.clone(),
            origin: route.origin.clone(),
            mismatch: mismatch.map(|it| it.to_string()),
        });
    }

    fn weight(&mut self, _: u64, total: u64, chosen: &WeightedCluster) {
        self.0.push(Step::Weight {
            cluster: chosen.name.clone(),
            weight: chosen.weight,
            total,
            origin: chosen.origin.clone(),
        });
    }
}

impl std::fmt::Display for Mismatch<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Path(path) => match path {
                PathMatch::Prefix(text) => write!(f, "the path does not begin with `{text}`"),
                PathMatch::Exact(text) => write!(f, "the path is not `{text}`"),
                PathMatch::Regex(regex) => write!(f, "the path does not match {regex:?}"),
                PathMatch::SeparatedPrefix(text) => write!(f, "the path is not `{text}` or below it"),
                PathMatch::Connect => f.write_str("it is no CONNECT request"),
            },
            Self::Header(header) => {
                let not = if header.invert { "not " } else { "" };
                write!(
                    f,
                    "the header `{}` must {not}{}",
                    header.name,
                    Condition(&header.condition)
                )
            }
            Self::Query(query) => {
                write!(
                    f,
                    "the parameter `{}` must {}",
                    query.name,
                    Condition(&query.condition)
                )
            }
            Self::Grpc => f.write_str("it is no gRPC request"),
            Self::Claim(claim) => {
                let path: Vec<&str> = claim.matcher.path.iter().skip(1).map(|name| &**name).collect();
                let must = if claim.invert { "must not" } else { "must" };
                write!(
                    f,
                    "the claim `{}` of a verified token {must} be as asked",
                    path.join(".")
                )
            }
            Self::Fraction(share) => {
                let percent = f64::from(share.millionths()) / 10_000.0;
                write!(f, "the draw is outside the {percent} % that this route takes")
            }
        }
    }
}

struct Condition<'a>(&'a ValueCondition);

impl std::fmt::Display for Condition<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        use crate::matcher::StringMatch;
        match self.0 {
            ValueCondition::Present(true) => f.write_str("be there"),
            ValueCondition::Present(false) => f.write_str("be absent"),
            ValueCondition::Range(range) => write!(f, "be from {} to below {}", range.start, range.end),
            ValueCondition::Matches(matcher) => match &matcher.pattern {
                StringMatch::Exact(text) => write!(f, "be `{text}`"),
                StringMatch::Prefix(text) => write!(f, "begin with `{text}`"),
                StringMatch::Suffix(text) => write!(f, "end with `{text}`"),
                StringMatch::Contains(text) => write!(f, "contain `{text}`"),
                StringMatch::Regex(regex) => write!(f, "match {regex:?}"),
            },
        }
    }
}

#[cfg(test)]
mod tests;
