//! `rajut proxy-status` and `rajut proxy-config`: what the proxies have acknowledged, and what they run on.
//!
//! `proxy-config` reads the admin port's `/config_dump` in Envoy's form, so it shows what the proxy has, not what the
//! control plane believes it has, on both data planes.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::{
    OutputFormat, admin, answer, block_on,
    mesh::{Place, workload},
};
use crate::output::{self, Format, Table};

/// `rajut proxy-config`
#[derive(Debug, clap::Args)]
pub(crate) struct ProxyConfigArgs {
    /// What to show
    #[arg(value_enum)]
    part: Part,
    /// NAME or NAME.NAMESPACE; `host-gateway` is the services' door on this host
    workload: String,
    #[command(flatten)]
    output: OutputFormat,
}

/// A part of a proxy's configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Where it accepts connections
    Listeners,
    /// Virtual hosts and their routes
    Routes,
    /// Whom it can send to
    Clusters,
    /// Addresses behind its clusters, with their health
    Endpoints,
    /// Certificates and roots, without keys
    Secrets,
}

impl Part {
    const fn plural(self) -> &'static str {
        match self {
            Self::Listeners => "listeners",
            Self::Routes => "routes",
            Self::Clusters => "clusters",
            Self::Endpoints => "endpoints",
            Self::Secrets => "secrets",
        }
    }

    /// The lists of `/config_dump` and the field of the resource in each entry.
    const fn lists(self) -> (&'static [&'static str], &'static str) {
        match self {
            Self::Listeners => (&["static_listeners", "dynamic_listeners"], "listener"),
            Self::Routes => (&["static_route_configs", "dynamic_route_configs"], "route_config"),
            Self::Clusters => (&["static_clusters", "dynamic_active_clusters"], "cluster"),
            Self::Endpoints => (
                &["static_endpoint_configs", "dynamic_endpoint_configs"],
                "endpoint_config",
            ),
            Self::Secrets => (&["static_secrets", "dynamic_active_secrets"], "secret"),
        }
    }
}

fn text_at(value: &Value, pointer: &str) -> String {
    match value.pointer(pointer) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Null) | None => String::new(),
        Some(other) => other.to_string(),
    }
}

fn items<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value
        .pointer(pointer)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

/// The resources of one part, each with the version that it came with.
fn resources(dump: &Value, part: Part) -> Vec<(String, Value)> {
    let (lists, field) = part.lists();
    let mut found = Vec::new();
    for config in items(dump, "/configs") {
        for list in lists {
            for entry in config
                .get(list)
                .and_then(Value::as_array)
                .map_or(&[][..], Vec::as_slice)
            {
                // Dynamic listeners stand one level deeper.
                let entry = entry.get("active_state").unwrap_or(entry);
                if let Some(resource) = entry.get(field) {
                    let mut resource = resource.clone();
                    // A secret's name stands beside it.
                    if let (Some(fields), Some(name)) = (resource.as_object_mut(), entry.get("name")) {
                        fields.entry("name").or_insert_with(|| name.clone());
                    }
                    found.push((text_at(entry, "/version_info"), resource));
                }
            }
        }
    }
    found
}

pub(crate) fn config(place: &Place, args: &ProxyConfigArgs) -> anyhow::Result<ExitCode> {
    let mesh = place.running()?;
    let admin = if args.workload == super::lifecycle::GATEWAY_NAME {
        mesh.gateway_admin
    } else {
        workload(&mesh, &args.workload)?.admin
    };
    let (dump, clusters, certs) = block_on(async {
        let dump = admin::json(admin, "/config_dump?include_eds").await?;
        let clusters = admin::json(admin, "/clusters?format=json").await?;
        let certs = admin::json(admin, "/certs").await?;
        Ok((dump, clusters, certs))
    })?;
    let found = resources(&dump, args.part);
    if args.output.format == Format::Json {
        let list: Vec<Value> = match args.part {
            Part::Endpoints => items(&clusters, "/cluster_statuses").to_vec(),
            Part::Secrets => found
                .into_iter()
                .map(|(_, secret)| secret)
                .chain(items(&certs, "/certificates").iter().cloned())
                .collect(),
            _ => found.into_iter().map(|(_, resource)| resource).collect(),
        };
        let empty = list.is_empty();
        output::print_json(&json!({ args.part.plural(): list }))?;
        return Ok(answer(!empty));
    }
    let table = match args.part {
        Part::Listeners => listener_table(&found),
        Part::Routes => route_table(&found),
        Part::Clusters => cluster_table(&found),
        Part::Endpoints => endpoint_table(&clusters),
        Part::Secrets => secret_table(&found, &certs),
    };
    output::print(&table.render())?;
    Ok(ExitCode::SUCCESS)
}

fn listener_table(found: &[(String, Value)]) -> Table {
    let mut table = Table::new(&["NAME", "ADDRESS", "FILTER CHAINS", "VERSION"]);
    for (version, listener) in found {
        table.row([
            text_at(listener, "/name"),
            format!(
                "{}:{}",
                text_at(listener, "/address/socket_address/address"),
                text_at(listener, "/address/socket_address/port_value")
            ),
            items(listener, "/filter_chains").len().to_string(),
            version.clone(),
        ]);
    }
    table
}

fn route_table(found: &[(String, Value)]) -> Table {
    let mut table = Table::new(&["ROUTE TABLE", "VIRTUAL HOST", "DOMAINS", "MATCH", "TO"]);
    for (_, routes) in found {
        for host in items(routes, "/virtual_hosts") {
            let domains: Vec<String> = items(host, "/domains")
                .iter()
                .take(3)
                .map(|domain| text_at(domain, ""))
                .collect();
            for route in items(host, "/routes") {
                table.row([
                    text_at(routes, "/name"),
                    text_at(host, "/name"),
                    domains.join(","),
                    route_match(route),
                    route_target(route),
                ]);
            }
        }
    }
    table
}

fn route_match(route: &Value) -> String {
    for (kind, mark) in [("prefix", "*"), ("path", ""), ("path_separated_prefix", "/*")] {
        let text = text_at(route, &format!("/match/{kind}"));
        if !text.is_empty() {
            return text + mark;
        }
    }
    text_at(route, "/match/safe_regex/regex")
}

fn route_target(route: &Value) -> String {
    let single = text_at(route, "/route/cluster");
    if !single.is_empty() {
        return single;
    }
    let weighted: Vec<String> = items(route, "/route/weighted_clusters/clusters")
        .iter()
        .map(|cluster| format!("{}% {}", text_at(cluster, "/weight"), text_at(cluster, "/name")))
        .collect();
    if !weighted.is_empty() {
        return weighted.join(", ");
    }
    let direct = text_at(route, "/direct_response/status");
    if direct.is_empty() {
        "redirect".to_owned()
    } else {
        format!("answer {direct}")
    }
}

fn cluster_table(found: &[(String, Value)]) -> Table {
    let mut table = Table::new(&["NAME", "TYPE", "BALANCING", "TLS", "VERSION"]);
    for (version, cluster) in found {
        let tls = !items(cluster, "/transport_socket_matches").is_empty()
            || cluster.get("transport_socket").is_some();
        let balancing = text_at(cluster, "/lb_policy");
        table.row([
            text_at(cluster, "/name"),
            text_at(cluster, "/type"),
            if balancing.is_empty() {
                "ROUND_ROBIN".to_owned()
            } else {
                balancing
            },
            if tls { "yes" } else { "no" }.to_owned(),
            version.clone(),
        ]);
    }
    table
}

fn endpoint_table(clusters: &Value) -> Table {
    let mut table = Table::new(&["CLUSTER", "ENDPOINT", "HEALTH", "EJECTED", "WEIGHT"]);
    for cluster in items(clusters, "/cluster_statuses") {
        for host in items(cluster, "/host_statuses") {
            let address = match host.pointer("/address/socket_address") {
                Some(socket) => format!(
                    "{}:{}",
                    text_at(socket, "/address"),
                    text_at(socket, "/port_value")
                ),
                None => text_at(host, "/address/pipe/path"),
            };
            let mut health = text_at(host, "/health_status/eds_health_status");
            if let Some(why) = failed_check(host) {
                health = why;
            }
            let ejected = is_ejected(host);
            table.row([
                text_at(cluster, "/name"),
                address,
                if health.is_empty() {
                    "HEALTHY".to_owned()
                } else {
                    health
                },
                if ejected { "yes" } else { "no" }.to_owned(),
                text_at(host, "/weight"),
            ]);
        }
    }
    table
}

fn is_ejected(host: &Value) -> bool {
    host.pointer("/health_status/failed_outlier_check") == Some(&Value::Bool(true))
}

/// What the health check said that a host does not pass.
fn failed_check(host: &Value) -> Option<String> {
    let failed = host.pointer("/health_status/failed_active_health_check") == Some(&Value::Bool(true));
    let why = text_at(host, "/health_status/rajut_health_check_failure");
    failed.then(|| {
        if why.is_empty() {
            "FAILED CHECK".to_owned()
        } else {
            format!("FAILED CHECK: {why}")
        }
    })
}

/// Which endpoints of a cluster a proxy has taken out of service, and why: the proxy alone knows.
pub(crate) fn endpoints_out(statuses: &Value, cluster: &str) -> Vec<String> {
    let mut out = Vec::new();
    let all = items(statuses, "/cluster_statuses");
    for found in all.iter().filter(|it| text_at(it, "/name") == cluster) {
        for host in items(found, "/host_statuses") {
            let address = format!(
                "{}:{}",
                text_at(host, "/address/socket_address/address"),
                text_at(host, "/address/socket_address/port_value")
            );
            if let Some(why) = failed_check(host) {
                out.push(format!("{address}: {}", why.to_ascii_lowercase()));
            }
            if is_ejected(host) {
                out.push(format!("{address}: ejected by outlier detection"));
            }
        }
    }
    out
}

fn secret_table(found: &[(String, Value)], certs: &Value) -> Table {
    let mut table = Table::new(&["NAME", "IDENTITY", "FROM", "UNTIL"]);
    for (_, secret) in found {
        table.row([
            text_at(secret, "/name"),
            String::new(),
            String::new(),
            String::new(),
        ]);
    }
    if let Some(certificate) = rajut_local::certificate::certificate(certs) {
        table.row([
            "(in use)".to_owned(),
            certificate.identity,
            certificate.not_before,
            certificate.not_after,
        ]);
    }
    table
}

/// `rajut proxy-status`: exit status 0 when every proxy has acknowledged everything that was sent.
pub(crate) fn status(place: &Place, format: Format) -> anyhow::Result<ExitCode> {
    let control = place.control()?;
    let found = block_on(async { Ok(control.json("GET", "/v1/proxies", None).await?) })?;
    let proxies = items(&found, "/proxies");
    let synced = !proxies.is_empty()
        && proxies
            .iter()
            .all(|proxy| kinds(proxy).iter().all(|(_, state)| is_synced(state)));
    if format == Format::Json {
        output::print_json(&found)?;
        return Ok(answer(synced));
    }
    let mut table = Table::new(&[
        "PROXY",
        "CLUSTERS",
        "LISTENERS",
        "ENDPOINTS",
        "ROUTES",
        "SECRETS",
        "VERSION",
    ]);
    for proxy in proxies {
        let kinds = kinds(proxy);
        let cell = |column: &str| {
            kinds
                .iter()
                .find(|(kind, _)| kind == column)
                .map_or_else(|| "-".to_owned(), |(_, state)| state.clone())
        };
        let mut row = vec![name(proxy)];
        row.extend(COLUMNS.iter().map(|column| cell(column)));
        row.push(text_at(proxy, "/settledGeneration"));
        table.row(row);
    }
    output::print(&table.render())?;
    for proxy in proxies {
        for (kind, reason) in refusals(proxy) {
            output::print_line(&format!("{} refused {kind}: {reason}", name(proxy)))?;
        }
    }
    Ok(answer(synced))
}

/// The types in the order of the table.
const COLUMNS: [&str; 5] = ["clusters", "listeners", "endpoints", "routes", "secrets"];

fn name(proxy: &Value) -> String {
    format!("{}.{}", text_at(proxy, "/workload"), text_at(proxy, "/namespace"))
}

fn is_synced(state: &str) -> bool {
    state == "synced"
}

/// (type, state) of each resource type that a proxy subscribes to.
fn kinds(proxy: &Value) -> Vec<(String, String)> {
    items(proxy, "/types")
        .iter()
        .map(|entry| (text_at(entry, "/type"), text_at(entry, "/state")))
        .collect()
}

/// (type, reason) of what a proxy refused.
fn refusals(proxy: &Value) -> Vec<(String, String)> {
    items(proxy, "/types")
        .iter()
        .map(|entry| (text_at(entry, "/type"), text_at(entry, "/nack/reason")))
        .filter(|(_, reason)| !reason.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn static_and_dynamic_resources_of_a_dump_are_found_with_their_versions() {
        let dump = json!({"configs": [
            {"static_listeners": [], "dynamic_listeners": [
                {"name": "a", "active_state": {"version_info": "7", "listener": {"name": "a"}}}]},
            {"static_clusters": [{"cluster": {"name": "xds-grpc"}}],
             "dynamic_active_clusters": [{"version_info": "7", "cluster": {"name": "b"}}]},
            {"dynamic_active_secrets": [{"name": "default", "secret": {}}]},
        ]});
        assert_eq!(
            resources(&dump, Part::Listeners),
            [("7".to_owned(), json!({"name": "a"}))]
        );
        assert_eq!(resources(&dump, Part::Clusters).len(), 2);
        assert_eq!(resources(&dump, Part::Secrets)[0].1, json!({"name": "default"}));
    }

    #[test]
    fn a_weighted_route_shows_its_shares() {
        let route = json!({"match": {"prefix": "/"}, "route": {"weighted_clusters": {"clusters": [
            {"name": "a", "weight": 90}, {"name": "b", "weight": 10}]}}});
        assert_eq!(route_match(&route), "/*");
        assert_eq!(route_target(&route), "90% a, 10% b");
    }
}
