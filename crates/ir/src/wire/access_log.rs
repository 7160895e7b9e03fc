//! Access logs: files, standard output, standard error.
//!
//! Filters: CEL, as far as [`Condition`] reads it; on a listener's own log Istio's "no route" filter.
//!
//! Rejected: other loggers (gRPC, OpenTelemetry), other filters.

#![expect(deprecated, reason = "what Envoy deprecates is still what many senders write")]

use rajut_proto::{
    accesslog::{
        AccessLog as Message, AccessLogFilter, ExtensionFilter, ResponseFlagFilter, access_log::ConfigType,
        access_log_filter::FilterSpecifier, extension_filter,
    },
    core::{SubstitutionFormatString, substitution_format_string::Format},
    envoy::extensions::access_loggers::{
        file::v3::{FileAccessLog, file_access_log},
        filters::cel::v3::ExpressionFilter,
        stream::v3::{StderrAccessLog, StdoutAccessLog, stderr_access_log, stdout_access_log},
    },
    google::protobuf::{ListValue, Struct, Value, value},
    type_url,
};
use rajut_types::{Text, condition::Condition};

use super::{
    read::{Place, Reader},
    write,
};
use crate::{
    access_log::{AccessLog, JSON_DEPTH_MAX, JsonFormat, LogFilter, LogFormat, LogSink},
    tls::DataSource,
};

const CEL: &str = "envoy.access_loggers.extension_filters.cel";
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
        filter: log.filter.as_ref().map(encode_filter),
        config_type: Some(ConfigType::TypedConfig(config)),
    }
}

fn encode_filter(filter: &LogFilter) -> AccessLogFilter {
    let specifier = match filter {
        LogFilter::NoRoute => FilterSpecifier::ResponseFlagFilter(ResponseFlagFilter {
            flags: vec!["NR".to_owned()],
        }),
        LogFilter::Condition(condition) => {
            let filter = ExpressionFilter {
                expression: condition.text().to_string(),
                ..Default::default()
            };
            FilterSpecifier::ExtensionFilter(ExtensionFilter {
                name: CEL.to_owned(),
                config_type: Some(extension_filter::ConfigType::TypedConfig(write::any(
                    type_url::CEL_FILTER,
                    &filter,
                ))),
            })
        }
    };
    AccessLogFilter {
        filter_specifier: Some(specifier),
    }
}

fn encode_format(format: &LogFormat) -> Option<SubstitutionFormatString> {
    let format = match format {
        LogFormat::Default => return None,
        LogFormat::Text(text) => Format::TextFormatSource(write::data_source(&DataSource::Inline(
            text.as_bytes().to_vec().into(),
        ))),
        LogFormat::Json(fields) => Format::JsonFormat(encode_object(fields)),
    };
    Some(SubstitutionFormatString {
        format: Some(format),
        ..Default::default()
    })
}

fn encode_object(fields: &[(Text, JsonFormat)]) -> Struct {
    Struct {
        fields: fields
            .iter()
            .map(|(key, value)| (key.to_string(), encode_value(value)))
            .collect(),
    }
}

fn encode_value(value: &JsonFormat) -> Value {
    let kind = match value {
        JsonFormat::Text(text) => value::Kind::StringValue(text.to_string()),
        JsonFormat::Number(number) => value::Kind::NumberValue(*number),
        JsonFormat::Truth(truth) => value::Kind::BoolValue(*truth),
        JsonFormat::Null => value::Kind::NullValue(0),
        JsonFormat::Object(fields) => value::Kind::StructValue(encode_object(fields)),
        JsonFormat::List(items) => value::Kind::ListValue(ListValue {
            values: items.iter().map(encode_value).collect(),
        }),
    };
    Value { kind: Some(kind) }
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
        let filter = match &log.filter {
            Some(filter) => decode_filter(reader, &place.field("filter"), filter, of_listener),
            None => None,
        };
        decoded.extend(decode_log(reader, &place, log).map(|(sink, format)| AccessLog {
            sink,
            format,
            filter,
        }));
    }
    decoded
}

fn decode_filter(
    reader: &mut Reader,
    place: &Place<'_>,
    filter: &AccessLogFilter,
    of_listener: bool,
) -> Option<LogFilter> {
    match &filter.filter_specifier {
        Some(FilterSpecifier::ResponseFlagFilter(flags)) if of_listener && flags.flags == ["NR"] => {
            Some(LogFilter::NoRoute)
        }
        Some(FilterSpecifier::ExtensionFilter(extension)) if !of_listener => {
            let place = place.field("extension_filter");
            let place = place.field("typed_config");
            let config = extension
                .config_type
                .as_ref()
                .map(|extension_filter::ConfigType::TypedConfig(config)| config);
            let Some(config) = config.filter(|it| it.type_url == type_url::CEL_FILTER) else {
                reader.extension(&place, "filter of an access log", &extension.name, config, CEL);
                return None;
            };
            let message: ExpressionFilter = reader.unpack(&place, config)?;
            match Condition::parse(&message.expression) {
                Ok(condition) => Some(LogFilter::Condition(condition)),
                Err(error) => {
                    let why = format!("{} ({error})", message.expression);
                    reader.value(
                        &place.field("expression"),
                        &why,
                        "write a condition of the supported part of CEL",
                    );
                    None
                }
            }
        }
        _ => {
            reader.value(
                place,
                "filter",
                "write extension_filter with CEL, or filter the lines where they are read",
            );
            None
        }
    }
}

fn decode_log(reader: &mut Reader, place: &Place<'_>, log: &Message) -> Option<(LogSink, LogFormat)> {
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
    Some((sink, format))
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

fn decode_json(reader: &mut Reader, place: &Place<'_>, fields: &Struct) -> LogFormat {
    LogFormat::Json(decode_object(reader, place, fields, 0))
}

/// The wire has no order of keys: they come sorted.
fn decode_object(
    reader: &mut Reader,
    place: &Place<'_>,
    fields: &Struct,
    depth: usize,
) -> Vec<(Text, JsonFormat)> {
    let mut sorted: Vec<_> = fields
        .fields
        .iter()
        .map(|(key, value)| {
            let place = place.key("fields", key);
            (
                Text::from(key.as_str()),
                decode_value(reader, &place, value, depth),
            )
        })
        .collect();
    sorted.sort_by(|(a, _), (b, _)| a.cmp(b));
    sorted
}

fn decode_value(reader: &mut Reader, place: &Place<'_>, value: &Value, depth: usize) -> JsonFormat {
    if depth > JSON_DEPTH_MAX {
        reader.value(place, "nested", "write it less deep");
        return JsonFormat::Null;
    }
    match &value.kind {
        Some(value::Kind::StringValue(text)) => JsonFormat::Text(text.as_str().into()),
        Some(value::Kind::NumberValue(number)) => JsonFormat::Number(*number),
        Some(value::Kind::BoolValue(truth)) => JsonFormat::Truth(*truth),
        Some(value::Kind::NullValue(_)) | None => JsonFormat::Null,
        Some(value::Kind::StructValue(fields)) => {
            let place = place.field("struct_value");
            JsonFormat::Object(decode_object(reader, &place, fields, depth + 1))
        }
        Some(value::Kind::ListValue(list)) => {
            let items = list.values.iter().enumerate();
            let items =
                items.map(|(at, item)| decode_value(reader, &place.item("values", at), item, depth + 1));
            JsonFormat::List(items.collect())
        }
    }
}
