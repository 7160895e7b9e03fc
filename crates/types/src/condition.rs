//! Conditions on a request that is over: the part of CEL that filters of access logs are written in.
//!
//! Read where somebody wrote it (so that a mistake is found before it runs), passed on as the same text, and read again by
//! the data plane. Pure. Comparisons (`== != < <= > >=`) of an attribute with a literal, `in` a list, `'name' in
//! request.headers`, `has(attribute)`, `.startsWith()`, `.endsWith()`, `.contains()`, attributes that are true or false,
//! `&&`, `||`, `!` and parentheses. Attributes are Envoy's ([`Attribute::NAMES`]).
//!
//! An attribute that is missing makes its comparison neither true nor false, as in CEL: `&&` and `||` take what the other
//! side says where that decides, and what stays undecided does not hold.
//!
//! Rejected by name: arithmetic, ternaries, macros but `has`, further functions and attributes, comparisons of two types.
//! Bounds: [`TEXT_MAX`], [`DEPTH_MAX`].

mod parse;

use std::time::Duration;

use crate::Text;

/// Longest expression, in bytes.
pub const TEXT_MAX: usize = 4096;
/// How deep parentheses and negations may stand in each other.
pub const DEPTH_MAX: usize = 32;

/// Why an expression is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConditionError(pub String);

/// A condition and the text that it was read from. Equal where the texts are.
#[derive(Debug, Clone)]
pub struct Condition {
    text: Text,
    root: Node,
}

impl PartialEq for Condition {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Condition {}

impl std::hash::Hash for Condition {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

/// What a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A text.
    Text,
    /// A whole number.
    Number,
    /// True or false.
    Truth,
    /// A time span.
    Duration,
}

macro_rules! attributes {
    ($($name:ident $text:literal $kind:ident;)*) => {
        /// What is known of a request. Source: Envoy, "Attributes".
        #[derive(Debug, Clone, PartialEq, Eq)]
        #[expect(missing_docs, reason = "each is Envoy's attribute of that name")]
        pub enum Attribute {
            $($name,)*
            /// `request.headers['…']`, lower case.
            RequestHeader(Text),
            /// `response.headers['…']`, lower case.
            ResponseHeader(Text),
        }

        impl Attribute {
            /// Those without an argument.
            pub const NAMES: &'static [(&'static str, Self)] = &[$(($text, Self::$name)),*];

            /// What its value is.
            pub const fn kind(&self) -> Kind {
                match self {
                    $(Self::$name => Kind::$kind,)*
                    Self::RequestHeader(_) | Self::ResponseHeader(_) => Kind::Text,
                }
            }
        }
    };
}

attributes! {
    RequestPath "request.path" Text;
    RequestUrlPath "request.url_path" Text;
    RequestQuery "request.query" Text;
    RequestHost "request.host" Text;
    RequestScheme "request.scheme" Text;
    RequestMethod "request.method" Text;
    RequestId "request.id" Text;
    RequestProtocol "request.protocol" Text;
    RequestReferer "request.referer" Text;
    RequestUserAgent "request.useragent" Text;
    RequestDuration "request.duration" Duration;
    ResponseCode "response.code" Number;
    ResponseFlags "response.flags" Number;
    ResponseGrpcStatus "response.grpc_status" Number;
    ResponseCodeDetails "response.code_details" Text;
    ConnectionMtls "connection.mtls" Truth;
    ConnectionServerName "connection.requested_server_name" Text;
    ConnectionPeerUri "connection.uri_san_peer_certificate" Text;
    SourceAddress "source.address" Text;
    SourcePort "source.port" Number;
    DestinationAddress "destination.address" Text;
    DestinationPort "destination.port" Number;
    UpstreamAddress "upstream.address" Text;
    ClusterName "xds.cluster_name" Text;
    RouteName "xds.route_name" Text;
}

/// Where a condition takes its values from. `None` (or `false`): there is no such value.
pub trait Facts {
    /// A text's bytes, appended.
    fn text(&self, attribute: &Attribute, out: &mut Vec<u8>) -> bool;
    /// A number.
    fn number(&self, attribute: &Attribute) -> Option<i64>;
    /// True or false.
    fn truth(&self, attribute: &Attribute) -> Option<bool>;
    /// A time span.
    fn duration(&self, attribute: &Attribute) -> Option<Duration>;
}

#[derive(Debug, Clone)]
enum Literal {
    Text(Text),
    Number(i64),
    Truth(bool),
    Duration(Duration),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Search {
    StartsWith,
    EndsWith,
    Contains,
}

#[derive(Debug, Clone)]
enum Node {
    All(Vec<Self>),
    Any(Vec<Self>),
    Not(Box<Self>),
    Constant(bool),
    Truth(Attribute),
    Has(Attribute),
    Compare(Attribute, Operator, Literal),
    In(Attribute, Vec<Literal>),
    Search(Attribute, Search, Text),
}

impl Condition {
    /// Reads an expression.
    pub fn parse(text: &str) -> Result<Self, ConditionError> {
        Ok(Self {
            root: parse::read(text)?,
            text: text.trim().into(),
        })
    }

    /// As it was written.
    pub const fn text(&self) -> &Text {
        &self.text
    }

    /// Whether it holds. What can't be decided does not.
    pub fn holds(&self, facts: &impl Facts) -> bool {
        self.root.decide(facts).unwrap_or(false)
    }
}

impl Operator {
    const fn of(self, order: std::cmp::Ordering) -> bool {
        match self {
            Self::Equal => order.is_eq(),
            Self::NotEqual => order.is_ne(),
            Self::Less => order.is_lt(),
            Self::LessOrEqual => order.is_le(),
            Self::Greater => order.is_gt(),
            Self::GreaterOrEqual => order.is_ge(),
        }
    }
}

impl Node {
    fn decide(&self, facts: &impl Facts) -> Option<bool> {
        match self {
            Self::All(nodes) => decide_all(nodes, facts, false),
            Self::Any(nodes) => decide_all(nodes, facts, true),
            Self::Not(node) => node.decide(facts).map(|holds| !holds),
            Self::Constant(holds) => Some(*holds),
            Self::Truth(attribute) => facts.truth(attribute),
            Self::Has(attribute) => Some(match attribute.kind() {
                Kind::Text => facts.text(attribute, &mut Vec::new()),
                Kind::Number => facts.number(attribute).is_some(),
                Kind::Truth => facts.truth(attribute).is_some(),
                Kind::Duration => facts.duration(attribute).is_some(),
            }),
            Self::Compare(attribute, operator, literal) => {
                compare(facts, attribute, literal).map(|order| operator.of(order))
            }
            Self::In(attribute, literals) => literals.iter().try_fold(false, |found, literal| {
                Some(found || compare(facts, attribute, literal)?.is_eq())
            }),
            Self::Search(attribute, search, wanted) => {
                let mut text = Vec::new();
                let wanted = wanted.as_bytes();
                facts.text(attribute, &mut text).then(|| match search {
                    Search::StartsWith => text.starts_with(wanted),
                    Search::EndsWith => text.ends_with(wanted),
                    Search::Contains => {
                        wanted.is_empty() || text.windows(wanted.len()).any(|part| part == wanted)
                    }
                })
            }
        }
    }
}

/// `decides`: what one side alone settles.
fn decide_all(nodes: &[Node], facts: &impl Facts, decides: bool) -> Option<bool> {
    let mut all = Some(!decides);
    for node in nodes {
        match node.decide(facts) {
            Some(holds) if holds == decides => return Some(decides),
            Some(_) => {}
            None => all = None,
        }
    }
    all
}

fn compare(facts: &impl Facts, attribute: &Attribute, literal: &Literal) -> Option<std::cmp::Ordering> {
    match literal {
        Literal::Text(wanted) => {
            let mut text = Vec::new();
            facts
                .text(attribute, &mut text)
                .then(|| text.as_slice().cmp(wanted.as_bytes()))
        }
        Literal::Number(wanted) => facts.number(attribute).map(|number| number.cmp(wanted)),
        Literal::Truth(wanted) => facts.truth(attribute).map(|holds| holds.cmp(wanted)),
        Literal::Duration(wanted) => facts.duration(attribute).map(|duration| duration.cmp(wanted)),
    }
}

#[cfg(test)]
mod tests;
