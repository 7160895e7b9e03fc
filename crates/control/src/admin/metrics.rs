//! The control plane's own counters in Prometheus' text form. The names are those that Istio's dashboards ask for, where there
//! is one. Label values are resource types: a closed set.

use std::fmt::Write as _;

use super::Admin;

/// Name, kind, help.
type Metric = (&'static str, &'static str, &'static str);

const CONNECTED: Metric = ("pilot_xds", "gauge", "Proxies that are connected.");
const SERVICES: Metric = ("pilot_services", "gauge", "Services known.");
const VIRTUAL_SERVICES: Metric = ("pilot_virt_services", "gauge", "Virtual services known.");
const REJECTS: Metric = (
    "pilot_total_xds_rejects",
    "counter",
    "Responses refused by proxies.",
);
const GENERATION: Metric = (
    "rajut_control_generation",
    "gauge",
    "Generation of the newest snapshot.",
);
const UNSETTLED: Metric = (
    "rajut_control_proxies_unsettled",
    "gauge",
    "Proxies that have not answered the newest generation.",
);
const REFUSED: Metric = (
    "rajut_control_nodes_refused_total",
    "counter",
    "Streams refused for their node.",
);
const ISSUED: Metric = (
    "citadel_server_success_cert_issuance_count",
    "counter",
    "Certificates issued.",
);
const PUSHES: Metric = ("pilot_xds_pushes", "counter", "Responses sent, by type.");
const REJECTS_BY_TYPE: Metric = (
    "rajut_control_xds_rejects_total",
    "counter",
    "Responses refused, by type.",
);

/// Everything at this moment.
pub(super) fn text(admin: &Admin) -> String {
    let snapshot = admin.registry.snapshot();
    let proxies = admin.discovery.proxies();
    let totals = admin.discovery.totals();
    let unsettled = proxies
        .iter()
        .filter(|known| known.status.settled < snapshot.generation);
    let size = |length: usize| u64::try_from(length).unwrap_or(u64::MAX);
    let single = [
        (CONNECTED, size(proxies.len())),
        (SERVICES, size(snapshot.services.len())),
        (VIRTUAL_SERVICES, size(snapshot.virtual_services.len())),
        (REJECTS, totals.values().map(|(_, rejects)| rejects).sum()),
        (GENERATION, snapshot.generation),
        (UNSETTLED, size(unsettled.count())),
        (REFUSED, admin.discovery.refused_nodes()),
        (ISSUED, admin.authority.issued_total()),
    ];
    let mut text = String::new();
    for (metric, value) in single {
        head(&mut text, metric);
        // Writing to a String can't fail.
        let _ = writeln!(text, "{} {value}", metric.0);
    }
    let by_type =
        |pick: fn(&(u64, u64)) -> u64| totals.iter().map(move |(kind, counts)| (kind, pick(counts)));
    head(&mut text, PUSHES);
    for (kind, count) in by_type(|counts| counts.0) {
        let _ = writeln!(text, "{}{{type=\"{kind}\"}} {count}", PUSHES.0);
    }
    head(&mut text, REJECTS_BY_TYPE);
    for (kind, count) in by_type(|counts| counts.1) {
        let _ = writeln!(text, "{}{{type=\"{kind}\"}} {count}", REJECTS_BY_TYPE.0);
    }
    text
}

fn head(text: &mut String, (name, kind, help): Metric) {
    // Writing to a String can't fail.
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}
