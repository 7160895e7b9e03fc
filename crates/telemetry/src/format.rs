//! Envoy's format strings for access logs and header values: `%START_TIME%`, `%REQ(X?Y):20%`, …
//!
//! Parsed when configured ([`Format::text`], [`Format::json`]); an operator that is not in [`Operator`] is refused by
//! name, never printed as text. Rendering appends to the caller's buffer and allocates nothing else. Values come from
//! a [`Record`]; a missing one is `-` (in JSON `null`).
//!
//! Bounds: a format has at most [`OPERATORS_MAX`] operators.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rajut_types::{
    Text,
    operator::{self, Part},
};

/// Most operators of one format.
pub const OPERATORS_MAX: usize = 256;

/// Envoy's default access-log format.
pub const ENVOY_DEFAULT: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" \
    %RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% \
    %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \
    \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\"\n";

/// Why a format string is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// A `%` without its partner.
    #[error("`{0}`: a % sign has no partner (write %% for one)")]
    Unterminated(String),
    /// An operator that is not supported.
    #[error("%{0}% is not a supported operator")]
    Unknown(String),
    /// Its arguments are wrong.
    #[error("%{0}%: the arguments are wrong")]
    Arguments(String),
    /// More than [`OPERATORS_MAX`].
    #[error("more than {OPERATORS_MAX} operators")]
    TooMany,
}

/// Values without arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is Envoy's operator of that name")]
pub enum Value {
    Protocol,
    ResponseCode,
    ResponseCodeDetails,
    ResponseFlags,
    ResponseFlagsLong,
    ConnectionTerminationDetails,
    UpstreamTransportFailureReason,
    BytesReceived,
    BytesSent,
    Duration,
    RequestDuration,
    ResponseDuration,
    ResponseTxDuration,
    UpstreamHost,
    UpstreamCluster,
    UpstreamLocalAddress,
    UpstreamRequestAttemptCount,
    UpstreamWireBytesSent,
    UpstreamWireBytesReceived,
    DownstreamLocalAddress,
    DownstreamLocalAddressWithoutPort,
    DownstreamLocalPort,
    DownstreamRemoteAddress,
    DownstreamRemoteAddressWithoutPort,
    DownstreamRemotePort,
    DownstreamDirectRemoteAddress,
    DownstreamDirectRemoteAddressWithoutPort,
    DownstreamPeerUriSan,
    DownstreamPeerDnsSan,
    DownstreamPeerSubject,
    DownstreamPeerFingerprint256,
    DownstreamLocalUriSan,
    RequestedServerName,
    RouteName,
    VirtualHost,
    ConnectionId,
    Hostname,
    TraceId,
    StreamId,
    GrpcStatus,
    GrpcStatusSnake,
    GrpcStatusNumber,
    RequestTxDuration,
    UpstreamHostWithoutPort,
    UpstreamHostPort,
    QueryParams,
}

const VALUES: &[(&str, Value)] = &[
    ("PROTOCOL", Value::Protocol),
    ("RESPONSE_CODE", Value::ResponseCode),
    ("RESPONSE_CODE_DETAILS", Value::ResponseCodeDetails),
    ("RESPONSE_FLAGS", Value::ResponseFlags),
    ("RESPONSE_FLAGS_LONG", Value::ResponseFlagsLong),
    (
        "CONNECTION_TERMINATION_DETAILS",
        Value::ConnectionTerminationDetails,
    ),
    (
        "UPSTREAM_TRANSPORT_FAILURE_REASON",
        Value::UpstreamTransportFailureReason,
    ),
    ("BYTES_RECEIVED", Value::BytesReceived),
    ("BYTES_SENT", Value::BytesSent),
    ("DURATION", Value::Duration),
    ("REQUEST_DURATION", Value::RequestDuration),
    ("RESPONSE_DURATION", Value::ResponseDuration),
    ("RESPONSE_TX_DURATION", Value::ResponseTxDuration),
    ("UPSTREAM_HOST", Value::UpstreamHost),
    ("UPSTREAM_REMOTE_ADDRESS", Value::UpstreamHost),
    ("UPSTREAM_CLUSTER", Value::UpstreamCluster),
    ("UPSTREAM_CLUSTER_RAW", Value::UpstreamCluster),
    ("UPSTREAM_LOCAL_ADDRESS", Value::UpstreamLocalAddress),
    (
        "UPSTREAM_REQUEST_ATTEMPT_COUNT",
        Value::UpstreamRequestAttemptCount,
    ),
    ("UPSTREAM_WIRE_BYTES_SENT", Value::UpstreamWireBytesSent),
    ("UPSTREAM_WIRE_BYTES_RECEIVED", Value::UpstreamWireBytesReceived),
    ("DOWNSTREAM_LOCAL_ADDRESS", Value::DownstreamLocalAddress),
    (
        "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT",
        Value::DownstreamLocalAddressWithoutPort,
    ),
    ("DOWNSTREAM_LOCAL_PORT", Value::DownstreamLocalPort),
    ("DOWNSTREAM_REMOTE_ADDRESS", Value::DownstreamRemoteAddress),
    (
        "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
        Value::DownstreamRemoteAddressWithoutPort,
    ),
    ("DOWNSTREAM_REMOTE_PORT", Value::DownstreamRemotePort),
    (
        "DOWNSTREAM_DIRECT_REMOTE_ADDRESS",
        Value::DownstreamDirectRemoteAddress,
    ),
    (
        "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT",
        Value::DownstreamDirectRemoteAddressWithoutPort,
    ),
    ("DOWNSTREAM_PEER_URI_SAN", Value::DownstreamPeerUriSan),
    ("DOWNSTREAM_PEER_DNS_SAN", Value::DownstreamPeerDnsSan),
    ("DOWNSTREAM_PEER_SUBJECT", Value::DownstreamPeerSubject),
    (
        "DOWNSTREAM_PEER_FINGERPRINT_256",
        Value::DownstreamPeerFingerprint256,
    ),
    ("DOWNSTREAM_LOCAL_URI_SAN", Value::DownstreamLocalUriSan),
    ("REQUESTED_SERVER_NAME", Value::RequestedServerName),
    ("ROUTE_NAME", Value::RouteName),
    ("VIRTUAL_HOST_NAME", Value::VirtualHost),
    ("CONNECTION_ID", Value::ConnectionId),
    ("HOSTNAME", Value::Hostname),
    ("TRACE_ID", Value::TraceId),
    ("STREAM_ID", Value::StreamId),
    ("GRPC_STATUS", Value::GrpcStatus),
    ("GRPC_STATUS(CAMEL_STRING)", Value::GrpcStatus),
    ("GRPC_STATUS(SNAKE_STRING)", Value::GrpcStatusSnake),
    ("GRPC_STATUS(NUMBER)", Value::GrpcStatusNumber),
    ("GRPC_STATUS_NUMBER", Value::GrpcStatusNumber),
    ("REQUEST_TX_DURATION", Value::RequestTxDuration),
    ("UPSTREAM_HOST_NAME", Value::UpstreamHost),
    (
        "UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
        Value::UpstreamHostWithoutPort,
    ),
    ("UPSTREAM_REMOTE_PORT", Value::UpstreamHostPort),
    ("DOWNSTREAM_WIRE_BYTES_SENT", Value::BytesSent),
    ("DOWNSTREAM_WIRE_BYTES_RECEIVED", Value::BytesReceived),
    ("QUERY_PARAMS", Value::QueryParams),
];

impl Value {
    /// Whether JSON has it as a number.
    const fn is_number(self) -> bool {
        matches!(
            self,
            Self::ResponseCode
                | Self::BytesReceived
                | Self::BytesSent
                | Self::Duration
                | Self::RequestDuration
                | Self::ResponseDuration
                | Self::ResponseTxDuration
                | Self::UpstreamRequestAttemptCount
                | Self::UpstreamWireBytesSent
                | Self::UpstreamWireBytesReceived
                | Self::DownstreamLocalPort
                | Self::DownstreamRemotePort
                | Self::ConnectionId
                | Self::GrpcStatusNumber
                | Self::RequestTxDuration
                | Self::UpstreamHostPort
        )
    }
}

/// Where a header is looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    /// The request's head, pseudo headers included.
    Request,
    /// The response's head.
    Response,
    /// The response's trailers.
    Trailers,
}

/// One operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operator {
    /// A value without arguments.
    Value(Value),
    /// `REQ`, `RESP`, `TRAILER`: a header, or else the alternative; `REQ_WITHOUT_QUERY`, `PATH`.
    Header {
        /// Which head.
        section: Section,
        /// Lower case.
        name: Text,
        /// Lower case.
        alternative: Option<Text>,
        /// Bytes at most.
        max: Option<usize>,
        /// What follows a `?` is left out.
        without_query: bool,
    },
    /// `QUERY_PARAM`: the first parameter of that name, as it was sent.
    QueryParam {
        /// Its name.
        name: Text,
        /// Bytes at most.
        max: Option<usize>,
    },
    /// The request's start.
    StartTime(Time),
}

/// How a time is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Time {
    /// `2026-11-21T08:00:00.123Z`.
    Iso,
    /// A subset of strftime.
    Parts(Vec<TimePart>),
}

/// A part of a written time.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "each says itself")]
pub enum TimePart {
    Literal(Text),
    Year,
    Month,
    Day,
    Hour,
    Minute,
    Second,
    UnixSeconds,
    /// That many digits of the second's fraction.
    Fraction(u8),
}

/// What a format takes its values from.
pub trait Record {
    /// Appends the value; `false` where there is none (nothing is appended then).
    fn value(&self, value: Value, out: &mut Vec<u8>) -> bool;
    /// Appends the header of that lower-case name; `false` where there is none.
    fn header(&self, section: Section, name: &str, out: &mut Vec<u8>) -> bool;
    /// When the request started.
    fn start(&self) -> SystemTime;
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Literal(Text),
    Operator(Operator),
}

/// A parsed text with operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Piece>);

impl Template {
    /// Parses a text with operators.
    pub fn parse(text: &str) -> Result<Self, FormatError> {
        let mut pieces = Vec::new();
        let mut literal = String::new();
        for part in operator::parts(text) {
            match part {
                Part::Literal("%%") => literal.push('%'),
                Part::Literal(text) => literal.push_str(text),
                Part::Unterminated(_) => return Err(FormatError::Unterminated(text.to_owned())),
                Part::Operator(operator) => {
                    if !literal.is_empty() {
                        pieces.push(Piece::Literal(std::mem::take(&mut literal).into()));
                    }
                    pieces.push(Piece::Operator(parse_operator(operator)?));
                }
            }
            if pieces.len() > 2 * OPERATORS_MAX {
                return Err(FormatError::TooMany);
            }
        }
        if !literal.is_empty() {
            pieces.push(Piece::Literal(literal.into()));
        }
        Ok(Self(pieces))
    }

    /// The text, where it holds no operator.
    pub fn literal(&self) -> Option<&str> {
        match self.0.as_slice() {
            [] => Some(""),
            [Piece::Literal(text)] => Some(text),
            _ => None,
        }
    }

    /// Its operators.
    pub fn operators(&self) -> impl Iterator<Item = &Operator> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Operator(operator) => Some(operator),
            Piece::Literal(_) => None,
        })
    }

    /// Appends the text; `missing` stands for a missing value.
    pub fn render(&self, record: &impl Record, missing: &str, out: &mut Vec<u8>) {
        for piece in &self.0 {
            match piece {
                Piece::Literal(text) => out.extend_from_slice(text.as_bytes()),
                Piece::Operator(operator) => {
                    if !render_operator(operator, record, out) {
                        out.extend_from_slice(missing.as_bytes());
                    }
                }
            }
        }
    }

    /// Appends the text as a JSON value: an operator alone keeps its type.
    fn render_json(&self, record: &impl Record, out: &mut Vec<u8>) {
        if let [Piece::Operator(operator)] = self.0.as_slice() {
            let before = out.len();
            out.push(b'"');
            let found = render_operator(operator, record, out);
            if !found {
                out.truncate(before);
                out.extend_from_slice(b"null");
            } else if matches!(operator, Operator::Value(value) if value.is_number()) {
                out.remove(before);
            } else {
                escape_from(out, before + 1);
                out.push(b'"');
            }
            return;
        }
        out.push(b'"');
        let before = out.len();
        self.render(record, "-", out);
        escape_from(out, before);
        out.push(b'"');
    }
}

/// A parsed access-log format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Format {
    /// A text; the line's end is part of it.
    Text(Template),
    /// One JSON object a line.
    Json(Json),
}

/// A JSON value with operators in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Json {
    /// A text with operators; an operator alone keeps its type.
    Template(Template),
    /// JSON as it stands.
    Literal(Text),
    /// Made by [`Json::object`]: each key is escaped and has its quotes and colon.
    Object(Vec<(Text, Self)>),
    /// A list.
    List(Vec<Self>),
}

impl Json {
    /// A text with operators.
    pub fn text(text: &str) -> Result<Self, FormatError> {
        Template::parse(text).map(Self::Template)
    }

    /// An object, its keys in this order.
    pub fn object<'a>(fields: impl IntoIterator<Item = (&'a str, Self)>) -> Self {
        let fields = fields.into_iter().map(|(key, value)| {
            let mut quoted = vec![b'"'];
            quoted.extend_from_slice(key.as_bytes());
            escape_from(&mut quoted, 1);
            quoted.extend_from_slice(b"\":");
            (String::from_utf8_lossy(&quoted).into_owned().into(), value)
        });
        Self::Object(fields.collect())
    }

    fn render(&self, record: &impl Record, out: &mut Vec<u8>) {
        match self {
            Self::Template(template) => template.render_json(record, out),
            Self::Literal(text) => out.extend_from_slice(text.as_bytes()),
            Self::Object(fields) => {
                out.push(b'{');
                for (index, (key, value)) in fields.iter().enumerate() {
                    if index > 0 {
                        out.push(b',');
                    }
                    out.extend_from_slice(key.as_bytes());
                    value.render(record, out);
                }
                out.push(b'}');
            }
            Self::List(items) => {
                out.push(b'[');
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        out.push(b',');
                    }
                    item.render(record, out);
                }
                out.push(b']');
            }
        }
    }

    fn templates<'j>(&'j self, found: &mut Vec<&'j Template>) {
        match self {
            Self::Template(template) => found.push(template),
            Self::Literal(_) => {}
            Self::Object(fields) => fields.iter().for_each(|(_, value)| value.templates(found)),
            Self::List(items) => items.iter().for_each(|item| item.templates(found)),
        }
    }
}

impl Format {
    /// A text with operators.
    pub fn text(text: &str) -> Result<Self, FormatError> {
        Template::parse(text).map(Self::Text)
    }

    /// One JSON object a line.
    pub fn json<'a>(fields: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, FormatError> {
        let fields: Result<Vec<_>, _> = fields
            .into_iter()
            .map(|(key, value)| Ok((key, Json::text(value)?)))
            .collect();
        Ok(Self::Json(Json::object(fields?)))
    }

    /// All operators.
    pub fn operators(&self) -> impl Iterator<Item = &Operator> {
        let mut templates = Vec::new();
        match self {
            Self::Text(template) => templates.push(template),
            Self::Json(json) => json.templates(&mut templates),
        }
        templates.into_iter().flat_map(Template::operators)
    }

    /// Appends one line.
    pub fn render(&self, record: &impl Record, out: &mut Vec<u8>) {
        match self {
            Self::Text(template) => template.render(record, "-", out),
            Self::Json(json) => {
                json.render(record, out);
                out.push(b'\n');
            }
        }
    }
}

fn parse_operator(text: &str) -> Result<Operator, FormatError> {
    let wrong = || FormatError::Arguments(text.to_owned());
    let (name, arguments, max) = match text.find('(') {
        Some(open) => {
            let close = text.rfind(')').ok_or_else(wrong)?;
            let max = match &text[close + 1..] {
                "" => None,
                rest => Some(
                    rest.strip_prefix(':')
                        .and_then(|digits| digits.parse().ok())
                        .ok_or_else(wrong)?,
                ),
            };
            (&text[..open], Some(&text[open + 1..close]), max)
        }
        None => (text, None, None),
    };
    let section = match name {
        "REQ" | "REQ_WITHOUT_QUERY" | "PATH" => Section::Request,
        "RESP" => Section::Response,
        "TRAILER" => Section::Trailers,
        "START_TIME" => {
            return parse_time(arguments.unwrap_or_default())
                .map(Operator::StartTime)
                .ok_or_else(wrong);
        }
        "QUERY_PARAM" => {
            return Ok(Operator::QueryParam {
                name: arguments
                    .filter(|name| !name.is_empty())
                    .ok_or_else(wrong)?
                    .into(),
                max,
            });
        }
        _ => {
            let value = VALUES.iter().find(|(known, _)| *known == text);
            return match value {
                Some((_, value)) => Ok(Operator::Value(*value)),
                None if VALUES.iter().any(|(known, _)| *known == name) => Err(wrong()),
                None => Err(FormatError::Unknown(text.to_owned())),
            };
        }
    };
    if name == "PATH" {
        return path(arguments.unwrap_or_default(), max).ok_or_else(wrong);
    }
    let (first, alternative) = match arguments.ok_or_else(wrong)?.split_once('?') {
        Some((first, alternative)) => (first, Some(alternative)),
        None => (arguments.unwrap_or_default(), None),
    };
    if first.is_empty() || alternative == Some("") {
        return Err(wrong());
    }
    Ok(Operator::Header {
        section,
        name: first.to_ascii_lowercase().into(),
        alternative: alternative.map(|name| name.to_ascii_lowercase().into()),
        max,
        without_query: name == "REQ_WITHOUT_QUERY",
    })
}

/// `PATH`: `WQ` or `NQ` (with or without the query), then `ORIG`, `PATH` or `ORIG_OR_PATH`.
fn path(arguments: &str, max: Option<usize>) -> Option<Operator> {
    let (query, which) = arguments.split_once(':').unwrap_or((arguments, ""));
    let original = || Text::from("x-envoy-original-path");
    let (name, alternative) = match which {
        "" | "ORIG_OR_PATH" => (original(), Some(Text::from(":path"))),
        "ORIG" => (original(), None),
        "PATH" => (Text::from(":path"), None),
        _ => return None,
    };
    Some(Operator::Header {
        section: Section::Request,
        name,
        alternative,
        max,
        without_query: match query {
            "" | "WQ" => false,
            "NQ" => true,
            _ => return None,
        },
    })
}

fn parse_time(format: &str) -> Option<Time> {
    if format.is_empty() {
        return Some(Time::Iso);
    }
    let mut parts = Vec::new();
    let mut literal = String::new();
    let mut characters = format.chars();
    while let Some(character) = characters.next() {
        if character != '%' {
            literal.push(character);
            continue;
        }
        let mut push = |part: &[TimePart]| {
            if !literal.is_empty() {
                parts.push(TimePart::Literal(std::mem::take(&mut literal).into()));
            }
            parts.extend_from_slice(part);
        };
        let colon = || TimePart::Literal(":".into());
        let dash = || TimePart::Literal("-".into());
        match characters.next()? {
            '%' => literal.push('%'),
            'Y' => push(&[TimePart::Year]),
            'm' => push(&[TimePart::Month]),
            'd' => push(&[TimePart::Day]),
            'H' => push(&[TimePart::Hour]),
            'M' => push(&[TimePart::Minute]),
            'S' => push(&[TimePart::Second]),
            's' => push(&[TimePart::UnixSeconds]),
            'f' => push(&[TimePart::Fraction(9)]),
            'T' => push(&[
                TimePart::Hour,
                colon(),
                TimePart::Minute,
                colon(),
                TimePart::Second,
            ]),
            'F' => push(&[TimePart::Year, dash(), TimePart::Month, dash(), TimePart::Day]),
            'z' => literal.push_str("+0000"),
            'Z' => literal.push_str("UTC"),
            digit @ '1'..='9' if characters.next() == Some('f') => {
                push(&[TimePart::Fraction(u8::try_from(digit.to_digit(10)?).ok()?)]);
            }
            _ => return None,
        }
    }
    if !literal.is_empty() {
        parts.push(TimePart::Literal(literal.into()));
    }
    Some(Time::Parts(parts))
}

fn render_operator(operator: &Operator, record: &impl Record, out: &mut Vec<u8>) -> bool {
    match operator {
        Operator::Value(value) => record.value(*value, out),
        Operator::StartTime(time) => {
            write_time(time, record.start(), out);
            true
        }
        Operator::Header {
            section,
            name,
            alternative,
            max,
            without_query,
        } => {
            let before = out.len();
            let found = record.header(*section, name, out)
                || alternative
                    .as_ref()
                    .is_some_and(|name| record.header(*section, name, out));
            if *without_query && let Some(at) = out[before..].iter().position(|byte| *byte == b'?') {
                out.truncate(before + at);
            }
            cut(out, before, *max);
            found
        }
        Operator::QueryParam { name, max } => {
            let before = out.len();
            if !record.header(Section::Request, ":path", out) {
                return false;
            }
            let path = out.split_off(before);
            let query = path.splitn(2, |byte| *byte == b'?').nth(1).unwrap_or_default();
            let value = query.split(|byte| *byte == b'&').find_map(|pair| {
                let mut parts = pair.splitn(2, |byte| *byte == b'=');
                (parts.next()? == name.as_bytes()).then(|| parts.next().unwrap_or_default())
            });
            out.extend_from_slice(value.unwrap_or_default());
            cut(out, before, *max);
            value.is_some()
        }
    }
}

fn cut(out: &mut Vec<u8>, before: usize, max: Option<usize>) {
    if let Some(max) = max {
        out.truncate(out.len().min(before.saturating_add(max)));
    }
}

/// Appends a number in decimal.
pub fn write_number(mut number: u64, out: &mut Vec<u8>) {
    let mut digits = [0_u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + u8::try_from(number % 10).unwrap_or(0);
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

fn write_padded(number: u64, width: usize, out: &mut Vec<u8>) {
    let before = out.len();
    write_number(number, out);
    while out.len() - before < width {
        out.insert(before, b'0');
    }
}

fn write_time(time: &Time, at: SystemTime, out: &mut Vec<u8>) {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let seconds = since.as_secs();
    let (year, month, day) = civil(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let Time::Parts(parts) = time else {
        for (number, width, after) in [
            (year, 4, b'-'),
            (month, 2, b'-'),
            (day, 2, b'T'),
            (hour, 2, b':'),
            (minute, 2, b':'),
            (second, 2, b'.'),
            (u64::from(since.subsec_millis()), 3, b'Z'),
        ] {
            write_padded(number, width, out);
            out.push(after);
        }
        return;
    };
    for part in parts {
        match part {
            TimePart::Literal(text) => out.extend_from_slice(text.as_bytes()),
            TimePart::Year => write_padded(year, 4, out),
            TimePart::Month => write_padded(month, 2, out),
            TimePart::Day => write_padded(day, 2, out),
            TimePart::Hour => write_padded(hour, 2, out),
            TimePart::Minute => write_padded(minute, 2, out),
            TimePart::Second => write_padded(second, 2, out),
            TimePart::UnixSeconds => write_number(seconds, out),
            TimePart::Fraction(digits) => {
                let before = out.len();
                write_padded(u64::from(since.subsec_nanos()), 9, out);
                out.truncate(before + usize::from(*digits));
            }
        }
    }
}

/// Year, month and day of a day since 1970-01-01, by the proleptic Gregorian calendar.
pub fn civil(days: u64) -> (u64, u64, u64) {
    // Years begin in March, so that the leap day is the last: 719 468 days lie between 0000-03-01 and 1970-01-01.
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

/// Escapes what stands from `start` on as the inside of a JSON string; bytes that are not UTF-8 become U+FFFD.
fn escape_from(out: &mut Vec<u8>, start: usize) {
    let plain = |byte: &u8| (0x20..0x7f).contains(byte) && *byte != b'"' && *byte != b'\\';
    if out[start..].iter().all(plain) {
        return;
    }
    let text = String::from_utf8_lossy(&out[start..]).into_owned();
    out.truncate(start);
    for character in text.chars() {
        match character {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            '\n' => out.extend_from_slice(b"\\n"),
            '\r' => out.extend_from_slice(b"\\r"),
            '\t' => out.extend_from_slice(b"\\t"),
            control if (control as u32) < 0x20 => {
                out.extend_from_slice(format!("\\u{:04x}", control as u32).as_bytes());
            }
            other => out.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Sample;

    impl Record for Sample {
        fn value(&self, value: Value, out: &mut Vec<u8>) -> bool {
            match value {
                Value::ResponseCode => write_number(200, out),
                Value::Protocol => out.extend_from_slice(b"HTTP/1.1"),
                _ => return false,
            }
            true
        }

        fn header(&self, _: Section, name: &str, out: &mut Vec<u8>) -> bool {
            let value: &[u8] = match name {
                "x" => b"a\"b",
                ":path" => b"/a?token=t&b=2&b=3&c",
                _ => return false,
            };
            out.extend_from_slice(value);
            true
        }

        fn start(&self) -> SystemTime {
            UNIX_EPOCH + Duration::new(1_795_286_096, 123_456_789)
        }
    }

    fn text(format: &str) -> String {
        let mut out = Vec::new();
        Format::text(format).unwrap().render(&Sample, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn texts() {
        assert_eq!(
            text("%PROTOCOL% %RESPONSE_CODE% %ROUTE_NAME% 100%%"),
            "HTTP/1.1 200 - 100%"
        );
        assert_eq!(text("%REQ(Y?X)% %REQ(X):2% %REQ(Z)%"), "a\"b a\" -");
        assert_eq!(text("%START_TIME%"), "2026-11-21T18:34:56.123Z");
        assert_eq!(
            text("%START_TIME(%s.%3f %F %T)%"),
            "1795286096.123 2026-11-21 18:34:56"
        );
        Format::text(ENVOY_DEFAULT).unwrap();
    }

    #[test]
    fn paths_and_their_queries() {
        assert_eq!(
            text(
                "%REQ_WITHOUT_QUERY(X-ENVOY-ORIGINAL-PATH?:PATH)% %PATH(NQ)% %PATH(WQ:PATH):4% %PATH(NQ:ORIG)%"
            ),
            "/a /a /a?t -"
        );
        assert_eq!(
            text("%QUERY_PARAM(b)% %QUERY_PARAM(token):0%. %QUERY_PARAM(c)%. %QUERY_PARAM(d)%"),
            "2 . . -"
        );
        for wrong in [
            "%PATH(NO)%",
            "%PATH(NQ:X)%",
            "%QUERY_PARAM()%",
            "%GRPC_STATUS(X)%",
        ] {
            assert!(
                matches!(Template::parse(wrong), Err(FormatError::Arguments(_))),
                "{wrong}"
            );
        }
        Format::text("%GRPC_STATUS% %GRPC_STATUS(NUMBER)% %STREAM_ID% %UPSTREAM_REMOTE_PORT%").unwrap();
    }

    #[test]
    fn json_has_numbers_nulls_and_escapes() {
        let format = Format::json([
            ("code", "%RESPONSE_CODE%"),
            ("x", "%REQ(X)%"),
            ("r", "%ROUTE_NAME%"),
            ("m", "a %PROTOCOL%"),
        ]);
        let mut out = Vec::new();
        format.unwrap().render(&Sample, &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "{\"code\":200,\"x\":\"a\\\"b\",\"r\":null,\"m\":\"a HTTP/1.1\"}\n"
        );
    }

    #[test]
    fn json_has_objects_and_lists_inside() {
        let format = Format::Json(Json::object([
            (
                "a\"",
                Json::object([("code", Json::text("%RESPONSE_CODE%").unwrap())]),
            ),
            (
                "list",
                Json::List(vec![
                    Json::Literal("1.5".into()),
                    Json::text("%REQ(X)%").unwrap(),
                    Json::List(Vec::new()),
                ]),
            ),
        ]));
        let mut out = Vec::new();
        format.render(&Sample, &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "{\"a\\\"\":{\"code\":200},\"list\":[1.5,\"a\\\"b\",[]]}\n"
        );
        assert_eq!(format.operators().count(), 2);
    }

    #[test]
    fn the_names_that_others_know_are_those_that_are_rendered() {
        for name in operator::OPERATORS {
            let format = format!("%{name}%");
            assert!(
                !matches!(Template::parse(&format), Err(FormatError::Unknown(_))),
                "{name}"
            );
        }
        // Envoy has no such name.
        let ours = |name: &str| name == "VIRTUAL_HOST_NAME";
        for (name, _) in VALUES.iter().filter(|(name, _)| !ours(name)) {
            assert_eq!(operator::unknown(&format!("%{name}%")), None);
        }
    }

    #[test]
    fn what_is_not_understood_is_refused_by_name() {
        assert_eq!(Template::parse("%FOO%"), Err(FormatError::Unknown("FOO".into())));
        assert_eq!(
            Template::parse("%PROTOCOL"),
            Err(FormatError::Unterminated("%PROTOCOL".into()))
        );
        assert_eq!(
            Template::parse("%REQ%"),
            Err(FormatError::Arguments("REQ".into()))
        );
        assert_eq!(
            Template::parse("%PROTOCOL(x)%"),
            Err(FormatError::Arguments("PROTOCOL(x)".into()))
        );
    }

    #[test]
    fn days_become_dates_across_leap_years() {
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(civil(19_782), (2024, 2, 29));
        assert_eq!(civil(19_783), (2024, 3, 1));
    }
}
