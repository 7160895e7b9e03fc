//! The control plane's own counters in Prometheus' text form. The names are those that Istio's dashboards ask for, where there
//! is one. Label values are resource types: a closed set.

use std::{fmt::Write as _, sync::atomic::Ordering::Relaxed};

use super::Admin;
use crate::{
    ca::rotation::Step,
    discovery::Totals,
    notify::Notifier,
    observe::{alarm::Kind, store::Counts},
};

/// Name, kind, help.
type Metric = (&'static str, &'static str, &'static str);

const CPU: Metric = (
    "process_cpu_seconds_total",
    "counter",
    "Processor time of the control plane, in user and kernel mode.",
);
const MEMORY: Metric = (
    "process_resident_memory_bytes",
    "gauge",
    "Memory of the control plane in RAM.",
);
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
const ROOT_ENDS: Metric = (
    "citadel_server_root_cert_expiry_timestamp",
    "gauge",
    "When the root that certificates are issued under ends, seconds since 1970.",
);
const ROOT_STEP: Metric = (
    "rajut_control_root_rotation_step",
    "gauge",
    "Where the change to another root is: 0 none, 1 both roots are believed, 2 certificates are reissued, 3 the old root is retired.",
);
const ROUNDS: Metric = (
    "rajut_control_push_rounds_total",
    "counter",
    "Snapshots that were pushed.",
);
const PUSH_FAILURES: Metric = (
    "rajut_control_push_failures_total",
    "counter",
    "Snapshots that could not be pushed because of a fault of the control plane itself.",
);
const PUSHED: Metric = (
    "rajut_control_pushed_generation",
    "gauge",
    "The generation that the proxies were woken for last.",
);
const GENERATED: Metric = (
    "rajut_control_generated_total",
    "counter",
    "Generator calls: pieces of resources that were made, not remembered.",
);
const ENCODED: Metric = (
    "rajut_control_encoded_total",
    "counter",
    "Resources that were encoded.",
);
const ENCODED_BYTES: Metric = (
    "rajut_control_encoded_bytes_total",
    "counter",
    "Bytes of the resources that were encoded.",
);
const WOKEN: Metric = (
    "rajut_control_proxies_woken_total",
    "counter",
    "Streams that were woken because something they subscribe to changed.",
);
const RESPONSES: Metric = ("rajut_control_pushes_total", "counter", "Responses sent.");
const RESOURCES: Metric = (
    "rajut_control_resources_sent_total",
    "counter",
    "Resources in the responses that were sent.",
);
const SENT_BYTES: Metric = (
    "rajut_control_resource_bytes_sent_total",
    "counter",
    "Bytes of the resources that were sent.",
);
const EDGES: Metric = (
    "rajut_control_edges",
    "gauge",
    "Edges (caller, service) whose history is kept.",
);
const REPORTERS: Metric = (
    "rajut_control_load_reporters",
    "gauge",
    "Proxies that report their load.",
);
const REPORTS: Metric = (
    "rajut_control_load_reports_total",
    "counter",
    "Load reports that were taken.",
);
const REPEATED: Metric = (
    "rajut_control_load_reports_repeated_total",
    "counter",
    "Load reports that had come before and were not counted again.",
);
const UNPLACED: Metric = (
    "rajut_control_load_unplaced_total",
    "counter",
    "Requests and connections on edges for which there was no room.",
);
const LEFT_OUT: Metric = (
    "rajut_control_load_clusters_left_out_total",
    "counter",
    "Clusters of load reports that named too many.",
);
const LOAD_REFUSED: Metric = (
    "rajut_control_load_refused_total",
    "counter",
    "Streams of load reports that were refused for who sent them.",
);
const ALARMS: Metric = (
    "rajut_control_alarms_total",
    "counter",
    "Alarms that were raised without a rule, by kind.",
);
const ALARMS_OPEN: Metric = (
    "rajut_control_alarms_open",
    "gauge",
    "Alarms that are not over, by kind.",
);
const FIRST_CALLS_UNWATCHED: Metric = (
    "rajut_control_first_calls_unwatched_total",
    "counter",
    "First calls that raised no alarm since too many pairs are known.",
);
const TOLD: Metric = (
    "rajut_control_alarm_notifications_total",
    "counter",
    "Requests to the Alertmanager, by result.",
);
const UNTOLD: Metric = (
    "rajut_control_alarms_untold_total",
    "counter",
    "Alarms that were pushed out by newer ones before the Alertmanager could be told of them.",
);
const RECORDS: Metric = (
    "rajut_control_records_total",
    "counter",
    "Requests that were recorded on disk.",
);
const RECORDS_LOST: Metric = (
    "rajut_control_records_lost_total",
    "counter",
    "Requests that proxies told and that could not be kept.",
);
const RECORDS_DROPPED: Metric = (
    "rajut_control_records_dropped_total",
    "counter",
    "Requests that were to be recorded and for which proxies had no room.",
);
const RECORDS_REFUSED: Metric = (
    "rajut_control_records_refused_total",
    "counter",
    "Streams of recordings that were refused for who opened them.",
);
const RECORDS_BYTES: Metric = (
    "rajut_control_records_bytes",
    "gauge",
    "Size of what is recorded.",
);
const RECORDS_STOPPED: Metric = (
    "rajut_control_recording_stopped",
    "gauge",
    "1 while the disk takes no records.",
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
    let (connected, unsettled) = admin.discovery.counts();
    let totals = admin.discovery.totals();
    let work = admin.discovery.work();
    let observed = admin.observer.counts();
    let recorded = admin.recorder.counts();
    let size = |length: usize| u64::try_from(length).unwrap_or(u64::MAX);
    let sum = |pick: fn(&Totals) -> u64| totals.values().map(pick).sum();
    let single = [
        (CONNECTED, size(connected)),
        (SERVICES, size(snapshot.services.len())),
        (VIRTUAL_SERVICES, size(snapshot.virtual_services.len())),
        (REJECTS, sum(|totals| totals.rejects)),
        (GENERATION, snapshot.generation),
        (UNSETTLED, size(unsettled)),
        (REFUSED, admin.discovery.refused_nodes()),
        (ISSUED, admin.authority.issued_total()),
        (ROOT_ENDS, admin.authority.root_ends()),
        (ROOT_STEP, root_step(admin)),
        (ROUNDS, work.rounds.load(Relaxed)),
        (PUSH_FAILURES, work.failed.load(Relaxed)),
        (PUSHED, admin.discovery.pushed()),
        (GENERATED, work.generated.load(Relaxed)),
        (ENCODED, work.encoded.load(Relaxed)),
        (ENCODED_BYTES, work.encoded_bytes.load(Relaxed)),
        (WOKEN, work.woken.load(Relaxed)),
        (RESPONSES, sum(|totals| totals.pushes)),
        (RESOURCES, sum(|totals| totals.resources)),
        (SENT_BYTES, sum(|totals| totals.bytes)),
        (EDGES, size(observed.edges)),
        (REPORTERS, size(observed.reporters)),
        (REPORTS, observed.reports),
        (REPEATED, observed.repeated),
        (UNPLACED, observed.unplaced),
        (LEFT_OUT, observed.left_out),
        (LOAD_REFUSED, observed.refused),
        (FIRST_CALLS_UNWATCHED, observed.first_calls_unwatched),
        (RECORDS, recorded.recorded),
        (RECORDS_LOST, recorded.lost),
        (RECORDS_DROPPED, recorded.dropped),
        (RECORDS_REFUSED, recorded.refused),
        (RECORDS_BYTES, recorded.bytes),
        (RECORDS_STOPPED, recorded.stopped.into()),
    ];
    let mut text = String::new();
    process(&mut text);
    for (metric, value) in single {
        head(&mut text, metric);
        // Writing to a String can't fail.
        let _ = writeln!(text, "{} {value}", metric.0);
    }
    alarms(&mut text, &observed);
    notifications(&mut text, admin);
    head(&mut text, PUSHES);
    for (kind, totals) in &totals {
        let _ = writeln!(text, "{}{{type=\"{kind}\"}} {}", PUSHES.0, totals.pushes);
    }
    head(&mut text, REJECTS_BY_TYPE);
    for (kind, totals) in &totals {
        let _ = writeln!(
            text,
            "{}{{type=\"{kind}\"}} {}",
            REJECTS_BY_TYPE.0, totals.rejects
        );
    }
    text
}

fn alarms(text: &mut String, observed: &Counts) {
    for (metric, by_kind) in [(ALARMS, observed.alarms), (ALARMS_OPEN, observed.alarms_open)] {
        head(text, metric);
        for (kind, count) in Kind::ALL.iter().zip(by_kind) {
            // Writing to a String can't fail.
            let _ = writeln!(text, "{}{{kind=\"{}\"}} {count}", metric.0, kind.name());
        }
    }
}

fn root_step(admin: &Admin) -> u64 {
    match admin.authority.rotation().map(|rotation| rotation.step) {
        None => 0,
        Some(Step::Trust) => 1,
        Some(Step::Reissue) => 2,
        Some(Step::Retire) => 3,
    }
}

/// Nothing where nobody is to be told.
fn notifications(text: &mut String, admin: &Admin) {
    let Some(counts) = admin.notifier.as_ref().map(Notifier::counts) else {
        return;
    };
    head(text, TOLD);
    for (result, count) in [("success", counts.sent), ("failure", counts.failed)] {
        // Writing to a String can't fail.
        let _ = writeln!(text, "{}{{result=\"{result}\"}} {count}", TOLD.0);
    }
    head(text, UNTOLD);
    let _ = writeln!(text, "{} {}", UNTOLD.0, counts.dropped);
}

/// What this process uses; nothing where the system does not say.
fn process(text: &mut String) {
    let Ok(used) = rajut_platform::process::usage(std::process::id()) else {
        return;
    };
    head(text, CPU);
    // Writing to a String can't fail.
    let _ = writeln!(text, "{} {:.3}", CPU.0, used.cpu.as_secs_f64());
    head(text, MEMORY);
    let _ = writeln!(text, "{} {}", MEMORY.0, used.resident);
}

fn head(text: &mut String, (name, kind, help): Metric) {
    // Writing to a String can't fail.
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}
