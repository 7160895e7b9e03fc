//! The large configuration: all services of a mesh as a sidecar without a `Sidecar` resource gets them in Istio, in one
//! route table, with a cluster each.

use serde_json::{Value, json};

use super::{cluster_of, connection_manager, http_filters, listener, manager, to_cluster};
use crate::peer::Places;
use crate::set::large::{ENDPOINTS, RULED, SERVICES, address, host};

pub(super) fn bootstrap(places: &Places) -> Value {
    let virtual_hosts: Vec<Value> = (0..SERVICES).map(virtual_host).collect();
    let clusters = (0..SERVICES)
        .map(|service| {
            let hosts: Vec<String> = (0..ENDPOINTS).map(|copy| address(service, copy)).collect();
            cluster_of(&cluster_name(service), &hosts, places.backends.wide, false)
        })
        .collect();
    let manager = manager(http_filters(0), json!(virtual_hosts));
    super::bootstrap(
        vec![listener(
            "outbound",
            places.front,
            connection_manager(manager),
            None,
        )],
        clusters,
    )
}

fn cluster_name(service: usize) -> String {
    format!("outbound|8080||{}", host(service))
}

fn virtual_host(service: usize) -> Value {
    let name = host(service);
    let short = format!("service-{service}");
    let vip = format!("10.96.{}.{}", service / 250, 1 + service % 250);
    let mut domains = Vec::new();
    for domain in [
        &name,
        &short,
        &format!("{short}.bench"),
        &format!("{short}.bench.svc"),
        &vip,
    ] {
        domains.push(domain.clone());
        domains.push(format!("{domain}:8080"));
    }
    let cluster = cluster_name(service);
    let mut routes = Vec::new();
    if service * RULED / SERVICES != (service + 1) * RULED / SERVICES {
        routes.push(json!({
            "name": "canary",
            "match": { "prefix": "/", "headers": [{ "name": "x-canary", "string_match": { "exact": "1" } }] },
            "route": to_cluster(&cluster),
        }));
        routes.push(json!({
            "name": "moved",
            "match": { "prefix": "/v1/" },
            "route": {
                "cluster": cluster, "prefix_rewrite": "/", "timeout": "15s",
                "retry_policy": { "num_retries": 3, "retry_on": "5xx,connect-failure" },
            },
            "request_headers_to_add": [{ "header": { "key": "x-version", "value": "1" } }],
        }));
    }
    routes.push(json!({ "name": "default", "match": { "prefix": "/" }, "route": to_cluster(&cluster) }));
    json!({ "name": format!("{name}:8080"), "domains": domains, "routes": routes })
}
