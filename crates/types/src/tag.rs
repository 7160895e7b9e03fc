//! The values that labels of metrics may be given: texts in quotes, and the few attributes of a request that are followed.
//!
//! Written as in Istio's `tagOverrides` (CEL). What is rejected: operators, functions but `string(…)`, attributes beyond
//! [`TagValue`].

use crate::Text;

/// Where a label's value comes from.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TagValue {
    /// This text.
    Literal(Text),
    /// The host that was asked for.
    RequestHost,
    /// The method.
    RequestMethod,
    /// The path without its query.
    RequestPath,
    /// A header of the request, its name in lower case.
    RequestHeader(Text),
    /// The answer's status.
    ResponseCode,
    /// The port that the client dialled.
    DestinationPort,
}

/// The attributes without arguments, by name.
const ATTRIBUTES: [(&str, TagValue); 5] = [
    ("request.host", TagValue::RequestHost),
    ("request.method", TagValue::RequestMethod),
    ("request.url_path", TagValue::RequestPath),
    ("response.code", TagValue::ResponseCode),
    ("destination.port", TagValue::DestinationPort),
];

/// What may be written.
pub const TAG_VALUES: &str = "a text in quotes, request.host, request.method, request.url_path, request.headers['NAME'], \
                              response.code, destination.port, or string() of one of them";

impl TagValue {
    /// Reads an expression; `None` where it is none of [`TAG_VALUES`].
    pub fn parse(expression: &str) -> Option<Self> {
        let text = expression.trim();
        if let Some(inner) = text
            .strip_prefix("string(")
            .and_then(|rest| rest.strip_suffix(')'))
        {
            return Self::parse(inner);
        }
        if let Some(literal) = quoted(text) {
            return Some(Self::Literal(literal.into()));
        }
        if let Some(header) = text
            .strip_prefix("request.headers[")
            .and_then(|rest| rest.strip_suffix(']'))
        {
            let name = quoted(header.trim()).filter(|name| !name.is_empty())?;
            return Some(Self::RequestHeader(name.to_ascii_lowercase().into()));
        }
        let known = ATTRIBUTES.iter().find(|(name, _)| *name == text);
        known.map(|(_, value)| value.clone())
    }

    /// The expression that [`TagValue::parse`] reads as this.
    pub fn expression(&self) -> String {
        match self {
            Self::Literal(text) => format!("'{text}'"),
            Self::RequestHeader(name) => format!("request.headers['{name}']"),
            attribute => {
                let known = ATTRIBUTES.iter().find(|(_, value)| value == attribute);
                known.map_or_else(String::new, |(name, _)| (*name).to_owned())
            }
        }
    }
}

/// The inside of quotes that hold neither quotes nor escapes.
fn quoted(text: &str) -> Option<&str> {
    ['\'', '"'].into_iter().find_map(|quote| {
        let inner = text.strip_prefix(quote)?.strip_suffix(quote)?;
        (!inner.contains(['\'', '"', '\\'])).then_some(inner)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        for written in [
            "'a b'",
            "request.host",
            "request.method",
            "request.url_path",
            "request.headers['x-team']",
            "response.code",
            "destination.port",
        ] {
            let value = TagValue::parse(written).unwrap();
            assert_eq!(value.expression(), written);
        }
        assert_eq!(
            TagValue::parse(" string( request.headers[\"X-Team\"] ) "),
            Some(TagValue::RequestHeader("x-team".into()))
        );
    }

    #[test]
    fn what_is_not_followed_is_refused() {
        for written in [
            "",
            "request",
            "'a' + 'b'",
            "has(request.host)",
            "'it''s'",
            "request.headers[x]",
            "string('a'",
        ] {
            assert_eq!(TagValue::parse(written), None, "{written}");
        }
    }
}
