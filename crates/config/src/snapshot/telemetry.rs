//! What is told of a workload's calls: mesh, then namespace, then workload; later ones win.
//!
//! Source: Istio `Telemetries.applicableTelemetries`, `mergeLogs`, `Tracing`. One object per level, the oldest. Two things
//! differ: `accessLogFile` is a default provider where no other is named, so that a `Telemetry` without providers
//! filters it or turns it off; and a default that only the other end's rules speak of stays as it is.

use std::sync::Arc;

use rajut_types::{Labels, Text};

use crate::model::{
    LogFile, LogFormat, LogRule, Logged, MeshConfig, Observed, ProviderKind, Telemetry, TraceRule, Traced,
};

/// Whether anything in the mesh may be traced.
pub(super) fn traces_anything(sorted: &[Arc<Telemetry>], mesh: &MeshConfig) -> bool {
    let is_tracer = |known: &crate::model::Provider| matches!(known.kind, ProviderKind::OpenTelemetry { .. });
    mesh.providers.iter().any(is_tracer)
        && (!mesh.default_tracing.is_empty() || sorted.iter().any(|one| !one.tracing.is_empty()))
}

/// The one provider of logs that need not be written down: standard output.
const ENVOY: &str = "envoy";

/// What holds for a workload.
pub(super) fn of(sorted: &[Arc<Telemetry>], mesh: &MeshConfig, namespace: &str, labels: &Labels) -> Observed {
    let levels = levels(sorted, &mesh.root_namespace, namespace, labels);
    let overrides = levels.iter().flat_map(|one| one.overrides.iter().cloned());
    Observed {
        metrics: overrides.collect(),
        client_logs: logs(&levels, mesh, true),
        server_logs: logs(&levels, mesh, false),
        client_traces: traces(&levels, mesh, true),
        server_traces: traces(&levels, mesh, false),
    }
}

/// The objects that hold for a workload, in the order of their levels.
fn levels<'t>(
    sorted: &'t [Arc<Telemetry>],
    root_namespace: &str,
    namespace: &str,
    labels: &Labels,
) -> Vec<&'t Telemetry> {
    let wide = |namespace: &str| {
        sorted
            .iter()
            .find(|one| &*one.namespace == namespace && one.selector.is_none())
    };
    let own = sorted.iter().find(|one| {
        &*one.namespace == namespace
            && one
                .selector
                .as_ref()
                .is_some_and(|selector| labels.matches(selector))
    });
    let levels = [
        wide(root_namespace),
        (namespace != root_namespace).then(|| wide(namespace)).flatten(),
        own,
    ];
    levels.into_iter().flatten().map(|one| &**one).collect()
}

/// A provider's name and what was said of it last. `None` is `accessLogFile`.
struct Chosen {
    name: Option<Text>,
    disabled: bool,
    filter: Option<rajut_types::condition::Condition>,
}

/// The logs of one end.
fn logs(levels: &[&Telemetry], mesh: &MeshConfig, client: bool) -> Vec<Logged> {
    let mut defaults: Vec<Option<Text>> = mesh.default_logging.iter().cloned().map(Some).collect();
    if defaults.is_empty() && mesh.access_log.is_some() {
        defaults.push(None);
    }
    let of_this_end = |rule: &&LogRule| rule.ends.includes(client);
    // The last level that names providers says which there are.
    let named = levels.iter().rev().find_map(|level| {
        let rules = level.logging.iter().filter(of_this_end);
        let names: Vec<_> = rules
            .flat_map(|rule| rule.providers.iter().cloned().map(Some))
            .collect();
        (!names.is_empty()).then_some(names)
    });
    let mut chosen: Vec<Chosen> = Vec::new();
    for name in named.as_ref().unwrap_or(&defaults) {
        if !chosen.iter().any(|known| known.name == *name) {
            chosen.push(Chosen {
                name: name.clone(),
                disabled: false,
                filter: None,
            });
        }
    }
    let mut parents = defaults;
    for rule in levels.iter().flat_map(|level| &level.logging).filter(of_this_end) {
        if !rule.providers.is_empty() {
            parents = rule.providers.iter().cloned().map(Some).collect();
        }
        for one in chosen.iter_mut().filter(|one| parents.contains(&one.name)) {
            one.disabled = rule.disabled;
            if rule.filter.is_some() {
                one.filter.clone_from(&rule.filter);
            }
        }
    }
    let logged = chosen.into_iter().filter(|one| !one.disabled).filter_map(|one| {
        Some(Logged {
            log: file(mesh, one.name.as_deref())?,
            filter: one.filter,
        })
    });
    logged.collect()
}

/// The file that a provider is.
fn file(mesh: &MeshConfig, name: Option<&str>) -> Option<LogFile> {
    let Some(name) = name else {
        return Some(LogFile {
            path: mesh.access_log.clone()?,
            format: mesh.log_format.clone(),
        });
    };
    let known = mesh.providers.iter().find(|provider| &*provider.name == name);
    let Some(known) = known else {
        return (name == ENVOY).then(|| LogFile {
            path: "/dev/stdout".into(),
            format: mesh.log_format.clone(),
        });
    };
    let ProviderKind::File { path, format } = &known.kind else {
        return None;
    };
    let of_mesh = || {
        if name == ENVOY {
            mesh.log_format.clone()
        } else {
            LogFormat::default()
        }
    };
    Some(LogFile {
        path: path.clone(),
        format: format.clone().unwrap_or_else(of_mesh),
    })
}

/// The spans of one end; `None` where nothing is traced.
fn traces(levels: &[&Telemetry], mesh: &MeshConfig, client: bool) -> Option<Traced> {
    let mut provider = mesh.default_tracing.first();
    let mut disabled = !mesh.tracing;
    let (mut sampling, mut tags) = (mesh.sampling, &mesh.span_tags);
    let mut has_istio_tags = true;
    let of_this_end = |rule: &&TraceRule| rule.ends.includes(client);
    for rule in levels.iter().flat_map(|level| &level.tracing).filter(of_this_end) {
        provider = rule.provider.as_ref().or(provider);
        disabled = rule.disabled.unwrap_or(disabled);
        sampling = rule.sampling.unwrap_or(sampling);
        has_istio_tags = rule.has_istio_tags.unwrap_or(has_istio_tags);
        if !rule.tags.is_empty() {
            tags = &rule.tags;
        }
    }
    let name = provider.filter(|_| !disabled)?;
    let known = mesh.providers.iter().find(|known| known.name == *name)?;
    let ProviderKind::OpenTelemetry {
        collector,
        max_path_length,
    } = &known.kind
    else {
        return None;
    };
    Some(Traced {
        collector: collector.clone(),
        sampling,
        tags: tags.clone(),
        has_istio_tags,
        max_path_length: max_path_length.unwrap_or(mesh.max_path_length),
    })
}

#[cfg(test)]
mod tests {
    use rajut_types::{ObjectRef, Origin, Percent, condition::Condition};

    use super::*;
    use crate::model::{Collector, Ends, MetricChange, Provider};

    fn telemetry(namespace: &str, selector: Option<&str>, metric: &str) -> Arc<Telemetry> {
        Arc::new(Telemetry {
            name: metric.into(),
            namespace: namespace.into(),
            selector: selector.map(|app| [("app", app)].into_iter().collect()),
            targeted: false,
            overrides: vec![MetricChange {
                ends: Ends::Both,
                metric: Some(metric.into()),
                disabled: Some(true),
                tags: Vec::new(),
            }],
            logging: Vec::new(),
            tracing: Vec::new(),
            origin: Origin::new("t.yaml", ObjectRef::new("Telemetry", namespace, metric)),
            age: 0,
        })
    }

    #[test]
    fn levels_follow_one_another_and_the_oldest_of_each_counts() {
        let all = [
            telemetry("a", Some("web"), "workload"),
            telemetry("istio-system", None, "mesh"),
            telemetry("a", None, "namespace"),
            telemetry("a", None, "younger"),
            telemetry("istio-system", Some("web"), "of the root alone"),
        ];
        let found = |namespace: &str, app: &str| -> Vec<String> {
            let labels = [("app", app)].into_iter().collect();
            of(&all, &MeshConfig::default(), namespace, &labels)
                .metrics
                .iter()
                .map(|change| change.metric.as_deref().unwrap_or_default().to_owned())
                .collect()
        };
        assert_eq!(found("a", "web"), ["mesh", "namespace", "workload"]);
        assert_eq!(found("a", "db"), ["mesh", "namespace"]);
        assert_eq!(found("b", "web"), ["mesh"]);
        assert_eq!(found("istio-system", "web"), ["mesh", "of the root alone"]);
    }

    fn rule(ends: Ends, providers: &[&str], disabled: bool, filter: Option<&str>) -> LogRule {
        LogRule {
            ends,
            providers: providers.iter().map(|name| Text::from(*name)).collect(),
            disabled,
            filter: filter.map(|text| Condition::parse(text).unwrap()),
            origin: Origin::built_in("test"),
        }
    }

    fn logging(namespace: &str, selector: Option<&str>, rules: Vec<LogRule>) -> Arc<Telemetry> {
        Arc::new(Telemetry {
            overrides: Vec::new(),
            logging: rules,
            ..(*telemetry(namespace, selector, "x")).clone()
        })
    }

    /// `path filter` of each log of the workload `web` in `a`.
    fn logged(all: &[Arc<Telemetry>], mesh: &MeshConfig) -> (Vec<String>, Vec<String>) {
        let labels = [("app", "web")].into_iter().collect();
        let found = of(all, mesh, "a", &labels);
        let shown = |logs: &[Logged]| {
            let shown = |log: &Logged| {
                let filter = log.filter.as_ref().map_or("", |filter| filter.text());
                format!("{} {filter}", log.log.path).trim_end().to_owned()
            };
            logs.iter().map(shown).collect()
        };
        (shown(&found.client_logs), shown(&found.server_logs))
    }

    #[test]
    fn access_logs_follow_the_levels_and_the_ends() {
        let mut mesh = MeshConfig {
            providers: vec![
                Provider {
                    name: "audit".into(),
                    kind: ProviderKind::File {
                        path: "/audit".into(),
                        format: None,
                    },
                },
                Provider {
                    name: "zipkin".into(),
                    kind: ProviderKind::NotFollowed,
                },
            ],
            ..MeshConfig::default()
        };
        let both = |logs: &[&str]| {
            let logs: Vec<String> = logs.iter().map(|log| (*log).to_owned()).collect();
            (logs.clone(), logs)
        };
        assert_eq!(logged(&[], &mesh), both(&[]));
        // Nothing is a provider yet.
        let bare = [logging(
            "istio-system",
            None,
            vec![rule(Ends::Both, &[], false, None)],
        )];
        assert_eq!(logged(&bare, &mesh), both(&[]));
        mesh.access_log = Some("/log".into());
        assert_eq!(logged(&[], &mesh), both(&["/log"]));
        let errors = Some("response.code >= 400");
        let of_mesh = logging(
            "istio-system",
            None,
            vec![rule(Ends::Both, &["envoy"], false, errors)],
        );
        assert_eq!(
            logged(std::slice::from_ref(&of_mesh), &mesh),
            both(&["/dev/stdout response.code >= 400"])
        );
        // A namespace that names others: the filter of the wider level was of another provider.
        let of_namespace = logging(
            "a",
            None,
            vec![rule(Ends::Server, &["audit", "zipkin", "nobody"], false, None)],
        );
        let (client, server) = logged(&[of_mesh.clone(), of_namespace.clone()], &mesh);
        assert_eq!(client, ["/dev/stdout response.code >= 400"]);
        assert_eq!(server, ["/audit"]);
        // A workload without providers: those of the wider level, whose filter stays.
        let quiet = logging("a", Some("web"), vec![rule(Ends::Client, &[], true, None)]);
        assert_eq!(
            logged(&[of_mesh.clone(), quiet], &mesh),
            (vec![], vec!["/dev/stdout response.code >= 400".to_owned()])
        );
        let again = logging(
            "a",
            Some("web"),
            vec![rule(Ends::Both, &[], false, Some("connection.mtls"))],
        );
        assert_eq!(
            logged(&[of_mesh, again], &mesh),
            both(&["/dev/stdout connection.mtls"])
        );
        // `accessLogFile` is filtered and turned off as a provider is.
        let off = logging("a", None, vec![rule(Ends::Client, &[], true, None)]);
        assert_eq!(logged(&[off], &mesh), (vec![], vec!["/log".to_owned()]));
        mesh.default_logging = vec!["audit".into()];
        assert_eq!(logged(&[], &mesh), both(&["/audit"]));
    }

    #[test]
    fn traces_need_a_provider_and_later_levels_win_field_by_field() {
        let collector = |host: &str| Provider {
            name: host.into(),
            kind: ProviderKind::OpenTelemetry {
                collector: Collector {
                    host: host.parse().unwrap(),
                    port: 4317,
                    timeout: None,
                },
                max_path_length: None,
            },
        };
        let mut mesh = MeshConfig {
            providers: vec![collector("one"), collector("two")],
            ..MeshConfig::default()
        };
        let rule = |ends, provider: Option<&str>, percent: Option<f64>, disabled| TraceRule {
            ends,
            provider: provider.map(Into::into),
            sampling: percent.map(|percent| Percent::new(percent).unwrap()),
            disabled,
            tags: Vec::new(),
            has_istio_tags: None,
            origin: Origin::built_in("test"),
        };
        let tracing = |namespace: &str, rules| {
            Arc::new(Telemetry {
                overrides: Vec::new(),
                tracing: rules,
                ..(*telemetry(namespace, None, "x")).clone()
            })
        };
        let traced = |all: &[Arc<Telemetry>], mesh: &MeshConfig| {
            let found = of(all, mesh, "a", &Labels::default());
            let shown = |traced: Option<Traced>| {
                traced.map(|it| (it.collector.host.to_string(), it.sampling.millionths()))
            };
            (shown(found.client_traces), shown(found.server_traces))
        };
        let is = |host: &str, millionths: u32| Some((host.to_owned(), millionths));
        let of_mesh = tracing("istio-system", vec![rule(Ends::Both, None, Some(50.0), None)]);
        assert_eq!(traced(std::slice::from_ref(&of_mesh), &mesh), (None, None));
        mesh.default_tracing = vec!["one".into()];
        assert_eq!(traced(&[], &mesh), (is("one", 10_000), is("one", 10_000)));
        let own = tracing("a", vec![rule(Ends::Client, Some("two"), None, None)]);
        assert_eq!(
            traced(&[of_mesh.clone(), own], &mesh),
            (is("two", 500_000), is("one", 500_000))
        );
        let silent = tracing("a", vec![rule(Ends::Server, None, None, Some(true))]);
        assert_eq!(traced(&[of_mesh, silent], &mesh), (is("one", 500_000), None));
        mesh.tracing = false;
        assert_eq!(traced(&[], &mesh), (None, None));
    }
}
