//! `rajut scan`: what is weak in a mesh, and how much of it is encrypted and guarded.

use std::{path::PathBuf, process::ExitCode};

use rajut_config::{Loaded, Report, codes};
use rajut_control::judge::{
    Judge,
    scan::{Coverage, scan as look},
    snapshot,
};
use rajut_types::Severity;
use serde_json::{Value, json};

use super::{answer, block_on, mesh::Place, policy, top::plain};
use crate::output;

/// As long as anything is remembered.
const WINDOW_SECONDS: u32 = 72 * 3600;
/// Callers in plain text that are named.
const CALLERS_SHOWN: usize = 20;

/// `rajut scan`
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit status 0: nothing is weak; 1: something is; 2: the input is wrong.

Examples:
  rajut scan                        the running mesh, with what passes
  rajut scan -f k8s/ -o sarif       files, for code review")]
pub(crate) struct ScanArgs {
    /// Files and folders instead of the running mesh; may be repeated; `-` is standard input
    #[arg(short = 'f', long = "file", value_name = "PATH")]
    files: Vec<PathBuf>,
    /// The namespace of documents without one
    #[arg(short = 'n', long, default_value = "default")]
    namespace: String,
    /// How the answer is written
    #[arg(short = 'o', long = "output", value_enum, default_value = "text")]
    format: Form,
}

/// `-o` of `scan`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Form {
    /// For people
    Text,
    /// For programs
    Json,
    /// For code review tools
    Sarif,
}

pub(crate) fn scan(place: &Place, args: &ScanArgs) -> anyhow::Result<ExitCode> {
    let (loaded, traffic) = if args.files.is_empty() {
        let control = place.control()?;
        let path = format!("/v1/edges?windowSeconds={WINDOW_SECONDS}");
        let edges = block_on(async move { Ok(control.json("GET", &path, None).await?) })?;
        (policy::running(place)?, Some(Traffic::new(&edges)))
    } else {
        (policy::load(&args.files, &args.namespace)?, None)
    };
    let (report, coverage) = report(&loaded);
    match args.format {
        Form::Text => output::print(&text(&report, &coverage, traffic.as_ref()))?,
        Form::Sarif => output::print_json(&report.sarif())?,
        Form::Json => {
            let mut body = report.json();
            body["coverage"] = json!(coverage);
            body["traffic"] = traffic.as_ref().map_or(Value::Null, Traffic::json);
            output::print_json(&body)?;
        }
    }
    Ok(answer(
        report.diagnostics.is_empty() && traffic.is_none_or(|it| it.plain.is_empty()),
    ))
}

/// The weak spots, with the policies that select nothing.
fn report(loaded: &Loaded) -> (Report, Coverage) {
    let snapshot = snapshot(loaded);
    let found = look(loaded, &mut Judge::new(&snapshot));
    let mut report = Report::new(loaded);
    report.diagnostics.retain(|it| it.code == codes::SELECTOR_EMPTY);
    report.diagnostics.extend(found.findings);
    (report, found.coverage)
}

/// What passed, as far as the callers' proxies tell how.
#[derive(Debug, Default)]
struct Traffic {
    /// Requests and connections of edges whose share of mTLS is known.
    told: f64,
    /// Of these those over mTLS.
    secured: f64,
    /// Edges of which nobody tells how.
    unknown: usize,
    /// Calls in plain text to services of the mesh.
    plain: Vec<String>,
}

impl Traffic {
    fn new(edges: &Value) -> Self {
        let mut traffic = Self::default();
        let all = edges.get("edges").and_then(Value::as_array);
        for edge in all.into_iter().flatten() {
            let text = |pointer: &str| edge.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
            let number = |name: &str| edge.get(name).and_then(Value::as_f64).unwrap_or_default();
            // What leaves the mesh is no matter of its mTLS.
            if text("/destination/namespace").is_empty() {
                continue;
            }
            let Some(share) = edge.get("mtlsShare").and_then(Value::as_f64) else {
                traffic.unknown += 1;
                continue;
            };
            let calls = number("requests") + number("connections");
            traffic.told += calls;
            traffic.secured += share * calls;
            if share < 1.0 {
                traffic.plain.push(plain(&format!(
                    "{}.{} to {}",
                    text("/source/workload"),
                    text("/source/namespace"),
                    text("/destination/host")
                )));
            }
        }
        traffic
    }

    fn share(&self) -> Option<f64> {
        (self.told > 0.0).then(|| self.secured / self.told)
    }

    fn json(&self) -> Value {
        json!({
            "mtlsShare": self.share(),
            "edgesUnknown": self.unknown,
            "plainText": self.plain,
        })
    }
}

fn text(report: &Report, coverage: &Coverage, traffic: Option<&Traffic>) -> String {
    let mut text = String::new();
    for finding in &report.diagnostics {
        append!(text, "{finding}\n");
    }
    let Coverage {
        workloads,
        guarded,
        ports,
        strict,
    } = coverage;
    append!(
        text,
        "mTLS:      {strict} of {ports} ports take it alone\npolicies:  {guarded} of {workloads} workloads have one that says who may call them\n"
    );
    if let Some(traffic) = traffic {
        match traffic.share() {
            Some(share) => append!(text, "traffic:   {:.1} % over mTLS", share * 100.0),
            None => text += "traffic:   nothing was seen of which is known how it came",
        }
        if traffic.unknown > 0 {
            append!(text, "; of {} pairs nobody tells how they call", traffic.unknown);
        }
        text.push('\n');
        for pair in traffic.plain.iter().take(CALLERS_SHOWN) {
            append!(text, "           in plain text: {pair}\n");
        }
        if traffic.plain.len() > CALLERS_SHOWN {
            let more = traffic.plain.len() - CALLERS_SHOWN;
            append!(text, "           and {more} more pairs\n");
        }
    }
    let count = report.count(Severity::Warning) + report.count(Severity::Error);
    let noun = if count == 1 { "weak spot" } else { "weak spots" };
    append!(text, "{count} {noun}\n");
    text
}

#[cfg(test)]
mod tests {
    use rajut_config::{LoadOptions, Source, load};

    use super::*;

    const WEAK: &str = "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: lab}
spec: {selector: {app: web}, ports: [{name: http, port: 80}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: lab}
spec:
  selector: {matchLabels: {app: web}}
  template: {metadata: {labels: {app: web}}, spec: {containers: [{name: a, image: a}]}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: job, namespace: lab}
spec:
  selector: {matchLabels: {app: job}}
  template: {metadata: {labels: {app: job}}, spec: {containers: [{name: a, image: a}]}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: open, namespace: lab}
spec: {selector: {matchLabels: {app: web}}, rules: [{to: [{operation: {methods: [GET]}}]}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: nobody, namespace: lab}
spec: {selector: {matchLabels: {app: wep}}}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: out, namespace: lab}
spec: {hosts: [api.example.org], location: MESH_EXTERNAL, resolution: DNS, ports: [{number: 80, name: http, protocol: HTTP}, {number: 443, name: tls, protocol: TLS}]}
";
    const STRONG: &str = "
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: lab}
spec: {mtls: {mode: STRICT}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: job, namespace: lab}
spec: {selector: {matchLabels: {app: job}}, rules: [{from: [{source: {principals: [cluster.local/ns/lab/sa/web]}}]}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: out, namespace: lab}
spec: {host: api.example.org, trafficPolicy: {tls: {mode: SIMPLE}}}
";

    fn found(text: &str) -> (Vec<String>, Coverage) {
        let loaded = load(&[Source::new("t.yaml", text)], &LoadOptions::default());
        let (report, coverage) = report(&loaded);
        let lines = report
            .diagnostics
            .iter()
            .map(|it| format!("{} {}", it.code, it.message));
        (lines.collect(), coverage)
    }

    #[test]
    fn weak_spots_are_found_and_gone_when_they_are_mended() {
        let (weak, coverage) = found(WEAK);
        for wanted in [
            format!("{} the policy selects no workload", codes::SELECTOR_EMPTY),
            format!("{} `web.lab` takes plain text at port 80", codes::PLAIN_PORT),
            format!("{} nothing says who may call `job.lab`", codes::UNGUARDED),
            format!("{} this rule lets every caller through", codes::OPEN_RULE),
            format!(
                "{} job, web share the identity lab/default",
                codes::SHARED_IDENTITY
            ),
            format!(
                "{} calls to api.example.org leave the mesh without TLS at port 80",
                codes::PLAIN_EGRESS
            ),
        ] {
            assert!(
                weak.iter().any(|it| it.starts_with(&wanted)),
                "{wanted}: {weak:#?}"
            );
        }
        assert_eq!(weak.len(), 6, "{weak:#?}");
        assert_eq!((coverage.ports, coverage.strict, coverage.guarded), (1, 0, 1));
        let mended = WEAK
            .replace("{name: job, namespace: lab}\nspec:\n  selector: {matchLabels: {app: job}}\n  template: {metadata: {labels: {app: job}}, spec: {", "{name: job, namespace: lab}\nspec:\n  selector: {matchLabels: {app: job}}\n  template: {metadata: {labels: {app: job}}, spec: {serviceAccountName: job, ")
            .replace("app: wep", "app: web")
            .replace("rules: [{to:", "rules: [{from: [{source: {namespaces: [lab]}}], to:");
        let (strong, coverage) = found(&(mended + STRONG));
        assert!(strong.is_empty(), "{strong:#?}");
        assert_eq!((coverage.strict, coverage.guarded, coverage.workloads), (1, 2, 2));
    }

    #[test]
    fn what_is_not_told_is_not_taken_for_encrypted() {
        let edge = |share: Value| {
            json!({
                "source": {"workload": "web", "namespace": "lab"}, "destination": {"host": "api", "namespace": "lab"},
                "mtlsShare": share, "requests": 10,
            })
        };
        let outside = json!({"destination": {"host": "x.example", "namespace": null}, "mtlsShare": 0.0});
        let edges = json!({"edges": [edge(json!(1.0)), edge(json!(0.5)), edge(Value::Null), outside]});
        let traffic = Traffic::new(&edges);
        assert_eq!(traffic.share(), Some(0.75));
        assert_eq!((traffic.unknown, traffic.plain.len()), (1, 1));
        assert_eq!(Traffic::new(&json!({})).share(), None);
    }
}
