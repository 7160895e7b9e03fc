//! The mesh's access log as every listener carries it. Source: Istio `telemetry_logging.go` for the default formats.

use rajut_config::model::{AccessLogSettings, MeshConfig};
use rajut_ir::access_log::{AccessLog, LogFormat, LogSink};
use rajut_types::Text;

/// Istio's default line.
const TEXT: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" \
    %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% \
    \"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% \
    %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \
    \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% \
    %UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% \
    %REQUESTED_SERVER_NAME% %ROUTE_NAME%\n";

/// Istio's default keys.
const JSON: [(&str, &str); 24] = [
    ("start_time", "%START_TIME%"),
    ("route_name", "%ROUTE_NAME%"),
    ("method", "%REQ(:METHOD)%"),
    ("path", "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%"),
    ("protocol", "%PROTOCOL%"),
    ("response_code", "%RESPONSE_CODE%"),
    ("response_flags", "%RESPONSE_FLAGS%"),
    ("response_code_details", "%RESPONSE_CODE_DETAILS%"),
    (
        "connection_termination_details",
        "%CONNECTION_TERMINATION_DETAILS%",
    ),
    ("bytes_received", "%BYTES_RECEIVED%"),
    ("bytes_sent", "%BYTES_SENT%"),
    ("duration", "%DURATION%"),
    ("upstream_service_time", "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%"),
    ("x_forwarded_for", "%REQ(X-FORWARDED-FOR)%"),
    ("user_agent", "%REQ(USER-AGENT)%"),
    ("request_id", "%REQ(X-REQUEST-ID)%"),
    ("authority", "%REQ(:AUTHORITY)%"),
    ("upstream_host", "%UPSTREAM_HOST%"),
    ("upstream_cluster", "%UPSTREAM_CLUSTER_RAW%"),
    ("upstream_local_address", "%UPSTREAM_LOCAL_ADDRESS%"),
    ("downstream_local_address", "%DOWNSTREAM_LOCAL_ADDRESS%"),
    ("downstream_remote_address", "%DOWNSTREAM_REMOTE_ADDRESS%"),
    ("requested_server_name", "%REQUESTED_SERVER_NAME%"),
    (
        "upstream_transport_failure_reason",
        "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
    ),
];

/// The logs of every connection manager and byte proxy; none where the mesh has it off.
pub(crate) fn of(mesh: &MeshConfig) -> Vec<AccessLog> {
    mesh.access_log.iter().map(log).collect()
}

fn log(settings: &AccessLogSettings) -> AccessLog {
    let sink = match &*settings.file {
        "/dev/stdout" => LogSink::Stdout,
        "/dev/stderr" => LogSink::Stderr,
        _ => LogSink::File(settings.file.clone()),
    };
    let format = if settings.json {
        LogFormat::Json(json_keys(&settings.format))
    } else if settings.format.is_empty() {
        LogFormat::Text(TEXT.into())
    } else if settings.format.ends_with('\n') {
        LogFormat::Text(settings.format.clone())
    } else {
        LogFormat::Text(format!("{}\n", settings.format).into())
    };
    AccessLog { sink, format }
}

/// The keys of a JSON format that somebody wrote (one flat object of texts), or Istio's default.
fn json_keys(written: &str) -> Vec<(Text, Text)> {
    let own: Option<Vec<(Text, Text)>> =
        serde_json::from_str::<serde_json::Map<_, _>>(written)
            .ok()
            .map(|object| {
                object
                    .into_iter()
                    .map(|(key, value): (String, serde_json::Value)| {
                        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                        (key.into(), value.into())
                    })
                    .collect()
            });
    own.unwrap_or_else(|| {
        JSON.iter()
            .map(|(key, value)| ((*key).into(), (*value).into()))
            .collect()
    })
}
