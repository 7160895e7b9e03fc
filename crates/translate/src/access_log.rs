//! Access logs as listeners carry them. Source: Istio `telemetry_logging.go` for the default formats.
//!
//! What they may not show is taken out of their formats here ([`redact`]).

use std::sync::Arc;

use rajut_config::model::{Logged, Observed, Redaction};
use rajut_ir::{
    access_log::{AccessLog, JsonFormat, LogFilter, LogFormat, LogSink},
    http::HttpConnectionManager,
    listener::{ChainAction, Direction, FilterChain, Listener, TcpProxy},
};
use rajut_types::{
    Text,
    operator::{self, Part},
};

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

/// The listener with the logs of its end: requests of connection managers, connections of byte proxies, and its own,
/// which has connections that no filter chain takes.
pub(crate) fn observe(listener: &Arc<Listener>, observed: &Observed, redaction: &Redaction) -> Arc<Listener> {
    let logged = match listener.direction {
        Direction::Inbound => &observed.server_logs,
        Direction::Outbound | Direction::Unspecified => &observed.client_logs,
    };
    if logged.is_empty() {
        return Arc::clone(listener);
    }
    let logs: Vec<AccessLog> = logged.iter().map(|one| log(one, redaction)).collect();
    let own = logs.iter().map(|log| AccessLog {
        filter: Some(LogFilter::NoRoute),
        ..log.clone()
    });
    Arc::new(Listener {
        access_logs: own.collect(),
        filter_chains: listener
            .filter_chains
            .iter()
            .map(|chain| with(chain, &logs))
            .collect(),
        default_filter_chain: listener
            .default_filter_chain
            .as_ref()
            .map(|chain| with(chain, &logs)),
        ..(**listener).clone()
    })
}

fn with(chain: &FilterChain, logs: &[AccessLog]) -> Arc<FilterChain> {
    let access_logs = logs.to_vec();
    let action = match &chain.action {
        ChainAction::Http(manager) => ChainAction::Http(Arc::new(HttpConnectionManager {
            access_logs,
            ..(**manager).clone()
        })),
        ChainAction::Tcp(proxy) => ChainAction::Tcp(Arc::new(TcpProxy {
            access_logs,
            ..(**proxy).clone()
        })),
    };
    Arc::new(FilterChain {
        action,
        ..chain.clone()
    })
}

fn log(logged: &Logged, redaction: &Redaction) -> AccessLog {
    let file = &logged.log;
    let sink = match &*file.path {
        "/dev/stdout" => LogSink::Stdout,
        "/dev/stderr" => LogSink::Stderr,
        _ => LogSink::File(file.path.clone()),
    };
    let text = &file.format.text;
    let format = if file.format.json {
        LogFormat::Json(json_keys(text, redaction))
    } else if text.is_empty() {
        LogFormat::Text(redact(TEXT, redaction).into())
    } else {
        let end = if text.ends_with('\n') { "" } else { "\n" };
        LogFormat::Text(format!("{}{end}", redact(text, redaction)).into())
    };
    AccessLog {
        sink,
        format,
        filter: logged.filter.clone().map(LogFilter::Condition),
    }
}

/// The keys of a JSON format that somebody wrote (an object), or Istio's default.
fn json_keys(written: &str, redaction: &Redaction) -> Vec<(Text, JsonFormat)> {
    let own = serde_json::from_str::<serde_json::Map<_, _>>(written).ok();
    let own = own.map(|object| json_object(object, redaction));
    own.unwrap_or_else(|| {
        let keys = JSON.iter().map(|(key, value)| {
            let value = JsonFormat::Text(redact(value, redaction).into());
            (Text::from(*key), value)
        });
        keys.collect()
    })
}

fn json_object(
    object: serde_json::Map<String, serde_json::Value>,
    redaction: &Redaction,
) -> Vec<(Text, JsonFormat)> {
    let keys = object.into_iter();
    let mut keys: Vec<_> = keys
        .map(|(key, value)| (Text::from(key), json_value(value, redaction)))
        .collect();
    // The wire has no order.
    keys.sort_by(|(a, _), (b, _)| a.cmp(b));
    keys
}

fn json_value(value: serde_json::Value, redaction: &Redaction) -> JsonFormat {
    match value {
        serde_json::Value::String(text) => JsonFormat::Text(redact(&text, redaction).into()),
        serde_json::Value::Number(number) => JsonFormat::Number(number.as_f64().unwrap_or_default()),
        serde_json::Value::Bool(truth) => JsonFormat::Truth(truth),
        serde_json::Value::Null => JsonFormat::Null,
        serde_json::Value::Object(object) => JsonFormat::Object(json_object(object, redaction)),
        serde_json::Value::Array(items) => JsonFormat::List(
            items
                .into_iter()
                .map(|item| json_value(item, redaction))
                .collect(),
        ),
    }
}

/// What stands for a value that may not be shown.
const REDACTED: &str = "[redacted]";

/// The format without what may not be shown: operators that ask for such a header are replaced by a word, whether or not
/// the request has it; where parameters of queries are hidden, paths are logged without their query.
///
/// Done here and not in the proxy, so that it holds for Envoy too.
fn redact(format: &str, redaction: &Redaction) -> String {
    let mut out = String::with_capacity(format.len());
    for part in operator::parts(format) {
        match part {
            Part::Literal(text) | Part::Unterminated(text) => out.push_str(text),
            Part::Operator(operator) => match judge(operator, redaction) {
                Shown::As(operator) => {
                    out.push('%');
                    out.push_str(&operator);
                    out.push('%');
                }
                Shown::Hidden => out.push_str(REDACTED),
            },
        }
    }
    out
}

enum Shown {
    As(String),
    Hidden,
}

fn judge(operator: &str, redaction: &Redaction) -> Shown {
    let as_it_is = || Shown::As(operator.to_owned());
    let (name, rest) = operator.split_once('(').unwrap_or((operator, ")"));
    let Some((arguments, _)) = rest.rsplit_once(')') else {
        return as_it_is();
    };
    match name {
        "REQ" | "RESP" | "TRAILER" | "REQ_WITHOUT_QUERY" => {
            if arguments.split('?').any(|header| redaction.hides(header.trim())) {
                return Shown::Hidden;
            }
            let hides_query = !redaction.query.is_empty();
            if name == "REQ_WITHOUT_QUERY" || (name == "REQ" && hides_query) {
                if let Some(path) = operator::path_without_query(operator) {
                    return Shown::As(path);
                }
                // A path among other headers, and the address of the page before.
                let has_query = |header: &str| {
                    let names = [":path", "x-envoy-original-path", "referer"];
                    names.iter().any(|name| name.eq_ignore_ascii_case(header.trim()))
                };
                if hides_query && arguments.split('?').any(has_query) {
                    return Shown::Hidden;
                }
            }
            as_it_is()
        }
        "PATH" if arguments.starts_with("NQ") => as_it_is(),
        "PATH" | "QUERY_PARAMS" if !redaction.query.is_empty() => Shown::Hidden,
        "QUERY_PARAM" if redaction.query.iter().any(|hidden| **hidden == *arguments) => Shown::Hidden,
        _ => as_it_is(),
    }
}
