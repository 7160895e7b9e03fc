//! Resources as a person reads them: one line a thing, in a stable order. What is Istio's or Envoy's default is left out.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use rajut_ir::{
    Resources,
    cluster::{CircuitBreakers, Cluster, Discovery, UpstreamProtocol},
    endpoint::LoadAssignment,
    filter::FilterOverride,
    http::RouteSource,
    listener::{ChainAction, FilterChain, Listener},
    matcher::{HeaderMatcher, StringMatch, StringMatcher, ValueCondition},
    route::{HeaderMutations, PathMatch, Route, RouteActionKind, RouteConfiguration, Target},
    tls::UpstreamTls,
};
use rajut_types::Diagnostic;

pub(super) fn text(resources: &Resources, findings: &[Diagnostic]) -> String {
    let mut out = String::new();
    for finding in findings {
        let _ = writeln!(out, "{} {}: {}", finding.severity, finding.code, finding.message);
    }
    for found in resources.listeners.values() {
        listener(&mut out, found);
    }
    for found in resources.routes.values() {
        routes(&mut out, found, "");
    }
    for found in resources.clusters.values() {
        cluster(&mut out, found);
    }
    for found in resources.assignments.values() {
        let _ = writeln!(out, "endpoints {}", found.cluster_name);
        endpoints(&mut out, found);
    }
    let names: BTreeMap<_, _> = resources.names.iter().flat_map(|table| table.iter()).collect();
    for (name, addresses) in names {
        let _ = writeln!(out, "name {name} {addresses:?}");
    }
    out
}

fn listener(out: &mut String, found: &Listener) {
    let _ = write!(out, "listener {} {}", found.name, found.address.socket);
    if let Some(netns) = &found.address.netns {
        let _ = write!(out, " in {netns}");
    }
    for (on, word) in [
        (found.bind_to_port, " bound"),
        (found.use_original_dst, " hands-over"),
        (found.inspectors.original_dst, " original-dst"),
        (found.inspectors.tls, " tls?"),
        (found.inspectors.http, " http?"),
    ] {
        out.push_str(if on { word } else { "" });
    }
    let _ = writeln!(out, " <- {}", found.origin);
    if let Some(manager) = &found.api_listener {
        let _ = writeln!(out, "  api {}", source(&manager.routes));
    }
    for found in &found.filter_chains {
        chain(out, found, "chain");
    }
    if let Some(found) = &found.default_filter_chain {
        chain(out, found, "rest");
    }
}

fn source(routes: &RouteSource) -> String {
    match routes {
        RouteSource::Rds(name) => format!("routes {name}"),
        RouteSource::Inline(_) => "routes in place".to_owned(),
    }
}

fn chain(out: &mut String, found: &FilterChain, word: &str) {
    let _ = write!(out, "  {word} {}", found.name);
    let matches = &found.matches;
    if let Some(port) = matches.destination_port {
        let _ = write!(out, " port={port}");
    }
    if let Some(transport) = matches.transport_protocol {
        let _ = write!(out, " {transport:?}");
    }
    for (what, list) in [
        ("sni", &matches.server_names),
        ("alpn", &matches.application_protocols),
    ] {
        if !list.is_empty() {
            let _ = write!(out, " {what}={}", list.join(","));
        }
    }
    if !matches.prefix_ranges.is_empty() {
        let _ = write!(out, " to={:?}", matches.prefix_ranges);
    }
    if let Some(tls) = &found.tls {
        let _ = write!(out, " [mTLS alpn={}]", tls.common.alpn.join(","));
    }
    match &found.action {
        ChainAction::Http(manager) => {
            let _ = writeln!(out, " -> {}", source(&manager.routes));
            if let RouteSource::Inline(found) = &manager.routes {
                routes(out, found, "    ");
            }
        }
        ChainAction::Tcp(proxy) => {
            let _ = writeln!(out, " -> {:?}", proxy.clusters);
        }
    }
}

fn routes(out: &mut String, found: &RouteConfiguration, indent: &str) {
    let _ = writeln!(out, "{indent}routes {}", found.name);
    for host in &found.virtual_hosts {
        let _ = writeln!(out, "{indent}  host {} {}", host.name, host.domains.join(" "));
        for found in &host.routes {
            route(out, found, indent);
        }
    }
}

fn route(out: &mut String, found: &Route, indent: &str) {
    let path = match &found.matches.path {
        PathMatch::Prefix(text) => format!("{text}*"),
        PathMatch::Exact(text) => text.to_string(),
        PathMatch::Regex(regex) => format!("{regex:?}"),
        other => format!("{other:?}"),
    };
    let _ = write!(out, "{indent}    route {} {path}", found.name);
    for header in &found.matches.headers {
        let _ = write!(out, " {}", header_text(header));
    }
    for parameter in &found.matches.query {
        let _ = write!(out, " ?{}{}", parameter.name, condition(&parameter.condition));
    }
    match &found.action {
        RouteActionKind::Forward(forward) => {
            match &forward.target {
                Target::Cluster(name) => _ = write!(out, " -> {name}"),
                Target::Weighted(entries) => {
                    for entry in entries {
                        let _ = write!(out, " -> {} {}", entry.weight, entry.name);
                        headers(out, &entry.headers);
                    }
                }
                Target::Header(name) => _ = write!(out, " -> by {name}"),
            }
            if let Some(timeout) = forward.timeout {
                let _ = write!(out, " timeout={timeout:?}");
            }
            if let Some(retry) = &forward.retry {
                let _ = write!(out, " retry={}x{}", retry.num_retries, retry.on);
            }
            if let Some(rewrite) = &forward.path_rewrite {
                let _ = write!(out, " path={rewrite:?}");
            }
            if let Some(rewrite) = &forward.host_rewrite {
                let _ = write!(out, " host={rewrite:?}");
            }
            if !forward.hash.is_empty() {
                let _ = write!(out, " hash={:?}", forward.hash);
            }
            for mirror in &forward.mirrors {
                let _ = write!(out, " mirror={} {}", mirror.fraction, mirror.cluster);
            }
        }
        RouteActionKind::DirectResponse(answer) => _ = write!(out, " -> answer {}", answer.status),
        other => _ = write!(out, " -> {other:?}"),
    }
    headers(out, &found.headers);
    for (_, over) in &found.filters {
        let _ = match over {
            FilterOverride::Fault(it) => write!(out, " delay={:?} abort={:?}", it.delay, it.abort),
            other => write!(out, " {other:?}"),
        };
    }
    let _ = writeln!(out, " <- {}", found.origin);
}

fn header_text(header: &HeaderMatcher) -> String {
    let turned = if header.invert { "not " } else { "" };
    format!("{turned}{}{}", header.name, condition(&header.condition))
}

fn condition(condition: &ValueCondition) -> String {
    match condition {
        ValueCondition::Present(there) => format!(" present={there}"),
        ValueCondition::Matches(matcher) => string(matcher),
        ValueCondition::Range(range) => format!(" in {range:?}"),
    }
}

fn string(matcher: &StringMatcher) -> String {
    match &matcher.pattern {
        StringMatch::Exact(text) => format!("={text}"),
        StringMatch::Prefix(text) => format!("={text}*"),
        other => format!("={other:?}"),
    }
}

fn headers(out: &mut String, headers: &HeaderMutations) {
    for value in headers.request_set.iter().chain(&headers.response_set) {
        let _ = write!(out, " {:?} {}={}", value.append, value.name, value.value);
    }
    for name in headers.request_remove.iter().chain(&headers.response_remove) {
        let _ = write!(out, " remove {name}");
    }
}

fn cluster(out: &mut String, found: &Cluster) {
    let protocol = match &found.protocol {
        UpstreamProtocol::Http1(_) => "http1",
        UpstreamProtocol::Http2(_) => "http2",
        UpstreamProtocol::UseDownstream(..) => "as-downstream",
        UpstreamProtocol::Auto(..) => "alpn",
    };
    let _ = write!(out, "cluster {} {protocol} {:?}", found.name, found.lb_policy);
    if found.connect_timeout != Duration::from_secs(10) {
        let _ = write!(out, " connect={:?}", found.connect_timeout);
    }
    if found.circuit_breakers != CircuitBreakers::UNLIMITED {
        let limits = &found.circuit_breakers;
        for (what, limit) in [
            ("connections", limits.max_connections),
            ("pending", limits.max_pending_requests),
            ("requests", limits.max_requests),
            ("retries", limits.max_retries),
        ] {
            if limit != u32::MAX {
                let _ = write!(out, " {what}<={limit}");
            }
        }
    }
    if let Some(bind) = &found.bind {
        let _ = write!(out, " from {:?} in {:?}", bind.source, bind.netns);
    }
    if let Some(context) = &found.tls {
        let _ = write!(out, " always {}", tls(context));
    }
    for entry in &found.tls_matches {
        let way = entry.tls.as_ref().map_or_else(|| "plaintext".to_owned(), tls);
        let _ = write!(out, " {}: {way}", entry.name);
    }
    let _ = writeln!(out, " <- {}", found.origin);
    if let Some(outlier) = &found.outlier_detection {
        let _ = writeln!(out, "  {outlier:?}");
    }
    match &found.discovery {
        Discovery::Static(list) => endpoints(out, list),
        Discovery::StrictDns(list) | Discovery::LogicalDns(list) => {
            let _ = writeln!(out, "  by DNS");
            endpoints(out, list);
        }
        Discovery::Eds { .. } => {}
        Discovery::OriginalDst => _ = writeln!(out, "  to the dialled address"),
    }
}

fn tls(context: &UpstreamTls) -> String {
    let sans: Vec<String> = context
        .common
        .validation
        .iter()
        .flat_map(|validation| &validation.context.subject_alt_names)
        .map(|name| string(&name.matcher))
        .collect();
    format!(
        "[sni={} alpn={} san{}{}]",
        context.sni,
        context.common.alpn.join(","),
        sans.join(","),
        context
            .common
            .certificate_provider
            .as_ref()
            .map(|name| format!(" provider={name}"))
            .unwrap_or_default(),
    )
}

fn endpoints(out: &mut String, list: &LoadAssignment) {
    for place in &list.localities {
        for endpoint in &place.endpoints {
            let _ = write!(out, "  {} {:?}", endpoint.address, endpoint.health);
            for (key, value) in endpoint.tls_labels.iter() {
                let _ = write!(out, " {key}={value}");
            }
            if place.priority > 0 || !place.locality.is_empty() {
                let _ = write!(out, " {} priority={}", place.locality, place.priority);
            }
            let _ = writeln!(out, " {}", endpoint.workload);
        }
    }
}
