//! The parts of `MeshConfig` that say where logs and spans go: `accessLog*`, `enableTracing`, `extensionProviders`,
//! `defaultProviders`, and of `defaultConfig` `tracing` and what logs may not show.

use rajut_types::Text;

use super::{authorizers, recording};
use crate::{
    api::telemetry,
    codes,
    model::{Collector, LogFormat, MeshConfig, Provider, ProviderKind, Redaction},
    read::{Field, Object, shown},
};

/// Providers of Istio that nothing here sends to.
const NOT_FOLLOWED: [&str; 11] = [
    "zipkin",
    "lightstep",
    "datadog",
    "stackdriver",
    "opencensus",
    "skywalking",
    "envoyHttpAls",
    "envoyTcpAls",
    "envoyOtelAls",
    "sds",
    "envoyExtProc",
];

/// Fields of `ProxyConfig` that have no effect.
const PROXY: [&str; 30] = [
    "configPath",
    "binaryPath",
    "serviceCluster",
    "tracingServiceName",
    "drainDuration",
    "parentShutdownDuration",
    "discoveryAddress",
    "discoveryRefreshDelay",
    "zipkinAddress",
    "statsdUdpAddress",
    "proxyAdminPort",
    "controlPlaneAuthPolicy",
    "customConfigFile",
    "statNameLength",
    "concurrency",
    "proxyBootstrapTemplatePath",
    "interceptionMode",
    "sds",
    "envoyAccessLogService",
    "envoyMetricsService",
    "statusPort",
    "extraStatTags",
    "gatewayTopology",
    "terminationDrainDuration",
    "meshId",
    "readinessProbe",
    "proxyStatsMatcher",
    "holdApplicationUntilProxyStarts",
    "caCertificatesPem",
    "image",
];

/// More of them.
const PROXY_MORE: [&str; 10] = [
    "privateKeyProvider",
    "proxyHeaders",
    "runtimeValues",
    "connectionSettings",
    "fileFlushInterval",
    "fileFlushMinSizeKb",
    "statsCompression",
    "availabilityZone",
    "tracingServiceNameTemplate",
    "outlierLogPath",
];

pub(super) fn read(object: &Object<'_>, mesh: &mut MeshConfig) {
    if let Some(file) = object.text("accessLogFile") {
        mesh.access_log = (!file.is_empty()).then_some(file);
    }
    if let Some(text) = object.get("accessLogFormat").and_then(|field| field.text()) {
        mesh.log_format.text = text;
    }
    if let Some(field) = object.get("accessLogFormat") {
        // The text of a JSON object has the same operators.
        known_operators(&field, &mesh.log_format.text);
    }
    if let Some(json) = object
        .get("accessLogEncoding")
        .and_then(|field| field.choice(&[("TEXT", false), ("JSON", true)]))
    {
        mesh.log_format.json = json;
    }
    mesh.tracing = object.bool("enableTracing").unwrap_or(mesh.tracing);
    if object.has("extensionProviders") {
        let providers = object.list("extensionProviders").into_iter();
        mesh.providers = providers.filter_map(read_provider).collect();
    }
    if let Some(defaults) = object.object("defaultProviders") {
        mesh.default_logging = defaults.texts("accessLogging");
        mesh.default_tracing = defaults.texts("tracing");
        for name in defaults.list("metrics") {
            telemetry::only_prometheus(&name);
        }
    }
    if let Some(config) = object.object("defaultConfig") {
        read_proxy(&config, mesh);
    }
}

fn read_provider(field: Field<'_>) -> Option<Provider> {
    let object = field.object()?;
    let name = object
        .required("name", "providers are chosen by their names")
        .and_then(|field| field.non_empty_text());
    for kind in NOT_FOLLOWED {
        object.unsupported(&[kind], "what chooses this provider gets nothing of it");
    }
    let authorizer = authorizers::read(&object);
    let file = object.object("envoyFileAccessLog").map(|file| read_file(&file));
    let tracer = object.object("opentelemetry").map(|tracer| read_tracer(&tracer));
    // A provider that is wrong is still one that somebody may name.
    let wrong_tracer = matches!(tracer, Some(None));
    let is_prometheus = object.has("prometheus");
    if let Some(prometheus) = object.object("prometheus") {
        drop(prometheus);
    }
    let kind = match (file.or(authorizer), tracer.flatten()) {
        (Some(kind), _) | (None, Some(kind)) => kind,
        (None, None) if is_prometheus => ProviderKind::Prometheus,
        (None, None) => {
            if !wrong_tracer && !NOT_FOLLOWED.iter().any(|kind| object.has(kind)) {
                object.required("envoyFileAccessLog", "or `opentelemetry`: what the provider is");
            }
            ProviderKind::NotFollowed
        }
    };
    Some(Provider { name: name?, kind })
}

fn read_file(file: &Object<'_>) -> ProviderKind {
    file.unsupported(&["omitEmptyValues"], "missing values are `-`, in JSON `null`");
    let path = file.text("path").filter(|path| !path.is_empty());
    let format = file.object("logFormat").and_then(|format| {
        let labels = format.get("labels");
        if let Some(field) = format.get("text") {
            let text = field.text()?;
            known_operators(&field, &text);
            return Some(LogFormat { text, json: false });
        }
        // Without keys it is Istio's default object.
        let labels = labels?;
        let text = labels.json().to_string();
        known_operators(&labels, &text);
        let text = if text == "{}" {
            Text::default()
        } else {
            text.into()
        };
        Some(LogFormat { text, json: true })
    });
    ProviderKind::File {
        path: path.unwrap_or_else(|| "/dev/stdout".into()),
        format,
    }
}

/// No proxy takes a log whose format has others.
fn known_operators(field: &Field<'_>, format: &str) {
    if let Some(why) = rajut_types::operator::unknown(format) {
        field.error(codes::NOT_SUPPORTED, shown(&why), "take it out of the format");
    }
}

fn read_tracer(tracer: &Object<'_>) -> Option<ProviderKind> {
    tracer.unsupported(&["http"], "spans are sent by OTLP over gRPC");
    tracer.unsupported(
        &["resourceDetectors", "dynatraceSampler"],
        "spans tell of their workload by Istio's attributes, and are chosen by `randomSamplingPercentage`",
    );
    let mut timeout = None;
    if let Some(grpc) = tracer.object("grpc") {
        grpc.unsupported(
            &["initialMetadata"],
            "calls of the collector carry no further metadata",
        );
        timeout = grpc.positive_duration("timeout");
    }
    let service = tracer.required("service", "the collector's full host name");
    let port = tracer.required("port", "the collector's port for OTLP over gRPC");
    let port = port.and_then(|field| field.port());
    let max_path_length = tracer.get("maxTagLength").and_then(|field| field.u32());
    Some(ProviderKind::OpenTelemetry {
        collector: Collector {
            host: service.and_then(|field| host(&field))?,
            port: port?,
            timeout,
        },
        max_path_length,
    })
}

/// `host`, or `namespace/host`, which says whose service is meant where several have the name: hosts are full here.
pub(super) fn host(field: &Field<'_>) -> Option<rajut_types::Hostname> {
    let text = field.non_empty_text()?;
    let name = text.split_once('/').map_or(&*text, |(_, name)| name);
    match name.parse() {
        Ok(host) => Some(host),
        Err(error) => {
            field.error(codes::BAD_HOSTNAME, shown(&error.to_string()), "");
            None
        }
    }
}

fn read_proxy(config: &Object<'_>, mesh: &mut MeshConfig) {
    config.unsupported(&PROXY, "proxies are configured by Rajut itself");
    config.unsupported(&PROXY_MORE, "proxies are configured by Rajut itself");
    if let Some(tracing) = config.object("tracing") {
        tracing.unsupported(
            &[
                "zipkin",
                "lightstep",
                "datadog",
                "stackdriver",
                "openCensusAgent",
                "tlsSettings",
            ],
            "spans go to an `extensionProvider` with `opentelemetry`",
        );
        if let Some(sampling) = tracing.get("sampling").and_then(|field| field.percent()) {
            mesh.sampling = sampling;
        }
        if let Some(tags) = tracing.get("customTags") {
            mesh.span_tags = telemetry::read_tags(&tags);
        }
        if let Some(length) = tracing.get("maxPathTagLength").and_then(|field| field.u32()) {
            mesh.max_path_length = length;
        }
    }
    for (key, value) in config
        .get("proxyMetadata")
        .map(|field| field.map())
        .unwrap_or_default()
    {
        let names = || {
            let text = value.text().unwrap_or_default();
            let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
            names.map(Text::from).collect::<Vec<_>>()
        };
        match &*key {
            Redaction::HEADERS_KEY => {
                mesh.redaction.headers = names()
                    .iter()
                    .map(|name| name.to_ascii_lowercase().into())
                    .collect();
            }
            Redaction::QUERY_KEY => mesh.redaction.query = names(),
            key if recording::read(key, &value, &mut mesh.recording) => {}
            _ => value.warn(
                codes::NOT_SUPPORTED,
                format!(
                    "`{}` is not supported yet: no proxy is started with it",
                    shown(&key)
                ),
                "take it out",
            ),
        }
    }
}
