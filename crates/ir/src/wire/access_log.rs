//! Access logs: files, standard output, standard error.
//!
//! Rejected: other loggers (gRPC, OpenTelemetry), filters (but Istio's "no route" filter on a listener's own log, which
//! says what that log does anyway), JSON formats with anything but texts.

#![expect(deprecated, reason = "what Envoy deprecates is still what many senders write")]

use rajut_proto::{
    accesslog::{
        AccessLog as Message, AccessLogFilter, access_log::ConfigType, access_log_filter::FilterSpecifier,
    },
    core::{SubstitutionFormatString, substitution_format_string::Format},
    envoy::extensions::access_loggers::{
        file::v3::{FileAccessLog, file_access_log},
        stream::v3::{StderrAccessLog, StdoutAccessLog, stderr_access_log, stdout_access_log},
    },
    google::protobuf::{Struct, value},
    type_url,
};
use rajut_types::Text;

use super::{
    read::{Place, Reader},
    write,
};
use crate::{
    access_log::{AccessLog, LogFormat, LogSink},
    tls::DataSource,
};

const SUPPORTED: &str = "envoy.access_loggers.file, envoy.access_loggers.stdout, envoy.access_loggers.stderr";

pub(super) fn encode(logs: &[AccessLog]) -> Vec<Message> {
    logs.iter().map(encode_log).collect()
}

fn encode_log(log: &AccessLog) -> Message {
    let format = encode_format(&log.format);
    let (name, config) = match &log.sink {
        LogSink::File(path) => {
            let config = FileAccessLog {
                path: path.to_string(),
                access_log_format: format.map(file_access_log::AccessLogFormat::LogFormat),
            };
            (
                "envoy.access_loggers.file",
                write::any(type_url::FILE_ACCESS_LOG, &config),
            )
        }
        LogSink::Stdout => {
            let config = StdoutAccessLog {
                access_log_format: format.map(stdout_access_log::AccessLogFormat::LogFormat),
            };
            (
                "envoy.access_loggers.stdout",
                write::any(type_url::STDOUT_ACCESS_LOG, &config),
            )
        }
        LogSink::Stderr => {
            let config = StderrAccessLog {
                access_log_format: format.map(stderr_access_log::AccessLogFormat::LogFormat),
            };
            (
                "envoy.access_loggers.stderr",
                write::any(type_url::STDERR_ACCESS_LOG, &config),
            )
        }
    };
    Message {
        name: name.to_owned(),
        filter: None,
        config_type: Some(ConfigType::TypedConfig(config)),
    }
}

fn encode_format(format: &LogFormat) -> Option<SubstitutionFormatString> {
    let format = match format {
        LogFormat::Default => return None,
        LogFormat::Text(text) => Format::TextFormatSource(write::data_source(&DataSource::Inline(
            text.as_bytes().to_vec().into(),
        ))),
        LogFormat::Json(fields) => Format::JsonFormat(write::texts(fields.iter().map(|(k, v)| (&**k, &**v)))),
    };
    Some(SubstitutionFormatString {
        format: Some(format),
        ..Default::default()
    })
}

/// Decodes the logs in the repeated field `access_log`. A listener's own log may carry Istio's filter on `NR`.
pub(super) fn decode(
    reader: &mut Reader,
    place: &Place<'_>,
    logs: &[Message],
    of_listener: bool,
) -> Vec<AccessLog> {
    let mut decoded = Vec::with_capacity(logs.len());
    for (at, log) in logs.iter().enumerate() {
        let place = place.item("access_log", at);
        if let Some(filter) = &log.filter {
            decode_filter(reader, &place.field("filter"), filter, of_listener);
        }
        decoded.extend(decode_log(reader, &place, log));
    }
    decoded
}

fn decode_filter(reader: &mut Reader, place: &Place<'_>, filter: &AccessLogFilter, of_listener: bool) {
    match &filter.filter_specifier {
        Some(FilterSpecifier::ResponseFlagFilter(flags)) if of_listener && flags.flags == ["NR"] => {
            reader.ignore(place.to_string(), "envoy.config.accesslog.v3.AccessLog.filter");
        }
        _ => reader.value(
            place,
            "filter",
            "every request is logged: filter the lines where they are read",
        ),
    }
}

fn decode_log(reader: &mut Reader, place: &Place<'_>, log: &Message) -> Option<AccessLog> {
    let place = place.field("typed_config");
    let Some(ConfigType::TypedConfig(config)) = &log.config_type else {
        return reader.required(&place, None, "the logger's configuration");
    };
    let (sink, format) = match &*config.type_url {
        type_url::FILE_ACCESS_LOG => {
            let file: FileAccessLog = reader.unpack(&place, config)?;
            let path = reader.named(&place.field("path"), &file.path, "the file's path");
            let sink = match &*path {
                "/dev/stdout" => LogSink::Stdout,
                "/dev/stderr" => LogSink::Stderr,
                _ => LogSink::File(path),
            };
            (sink, decode_file_format(reader, &place, file.access_log_format)?)
        }
        type_url::STDOUT_ACCESS_LOG => {
            let log: StdoutAccessLog = reader.unpack(&place, config)?;
            let format = log.access_log_format.map(|it| {
                let stdout_access_log::AccessLogFormat::LogFormat(format) = it;
                format
            });
            (LogSink::Stdout, decode_format(reader, &place, format.as_ref())?)
        }
        type_url::STDERR_ACCESS_LOG => {
            let log: StderrAccessLog = reader.unpack(&place, config)?;
            let format = log.access_log_format.map(|it| {
                let stderr_access_log::AccessLogFormat::LogFormat(format) = it;
                format
            });
            (LogSink::Stderr, decode_format(reader, &place, format.as_ref())?)
        }
        _ => {
            reader.extension(&place, "access logger", &log.name, Some(config), SUPPORTED);
            return None;
        }
    };
    Some(AccessLog { sink, format })
}

fn decode_file_format(
    reader: &mut Reader,
    place: &Place<'_>,
    format: Option<file_access_log::AccessLogFormat>,
) -> Option<LogFormat> {
    use file_access_log::AccessLogFormat;
    match format {
        Some(AccessLogFormat::LogFormat(format)) => decode_format(reader, place, Some(&format)),
        Some(AccessLogFormat::Format(text)) => Some(text_format(&text)),
        Some(AccessLogFormat::JsonFormat(fields)) => {
            Some(decode_json(reader, &place.field("json_format"), &fields))
        }
        Some(AccessLogFormat::TypedJsonFormat(fields)) => {
            Some(decode_json(reader, &place.field("typed_json_format"), &fields))
        }
        None => Some(LogFormat::Default),
    }
}

fn decode_format(
    reader: &mut Reader,
    place: &Place<'_>,
    format: Option<&SubstitutionFormatString>,
) -> Option<LogFormat> {
    let Some(format) = format else {
        return Some(LogFormat::Default);
    };
    let place = place.field("log_format");
    match &format.format {
        Some(Format::TextFormat(text)) => Some(text_format(text)),
        Some(Format::TextFormatSource(source)) => {
            let place = place.field("text_format_source");
            match reader.data_source(&place, Some(source))? {
                DataSource::Inline(bytes) => {
                    if let Ok(text) = std::str::from_utf8(&bytes) {
                        Some(text_format(text))
                    } else {
                        reader.bad_text(&place, &String::from_utf8_lossy(&bytes), "UTF-8");
                        None
                    }
                }
                DataSource::File(path) => {
                    reader.value(
                        &place.field("filename"),
                        path,
                        "write the format with inline_string",
                    );
                    None
                }
            }
        }
        Some(Format::JsonFormat(fields)) => Some(decode_json(reader, &place.field("json_format"), fields)),
        None => reader.required(&place, None, "text_format_source or json_format"),
    }
}

/// Envoy: an empty format is the default one.
fn text_format(text: &str) -> LogFormat {
    if text.is_empty() {
        LogFormat::Default
    } else {
        LogFormat::Text(text.into())
    }
}

/// The wire has no order of keys: they come sorted.
fn decode_json(reader: &mut Reader, place: &Place<'_>, fields: &Struct) -> LogFormat {
    let mut sorted: Vec<(Text, Text)> = Vec::with_capacity(fields.fields.len());
    for (key, value) in &fields.fields {
        match &value.kind {
            Some(value::Kind::StringValue(text)) => sorted.push((key.as_str().into(), text.as_str().into())),
            _ => reader.value(
                &place.key("fields", key),
                "that is no text",
                "write texts with operators; nested objects are not supported",
            ),
        }
    }
    sorted.sort();
    LogFormat::Json(sorted)
}
