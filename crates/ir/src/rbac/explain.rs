//! Why a policy does not apply to a call, in words: the conditions that fail, on the very rules that decide ([`Policy::applies`]). For
//! who asks why a call is refused. Pure; one pass over the policy.
//!
//! Bounds: [`SHOWN_MAX`] values of a list are named, and [`TEXT_MAX`] bytes of what a caller sent.

use super::{CallView, Condition, Permission, Policy, Principal, Rule, header_matches, path_of};
use crate::{
    jwt::{Claim, ClaimCondition},
    matcher::{HeaderMatcher, StringMatch, StringMatcher, ValueCondition},
};

/// Values of a list that are named.
const SHOWN_MAX: usize = 8;
/// Bytes of a value of the call that are shown.
const TEXT_MAX: usize = 120;

impl Policy {
    /// What of the call keeps the policy from applying to it; `None` where it applies.
    pub fn unmet(&self, call: &impl CallView) -> Option<String> {
        unmet_of_any(&self.principals, call).or_else(|| unmet_of_any(&self.permissions, call))
    }
}

/// What a condition looks at, what the call has there, and what is wanted.
struct Told {
    subject: String,
    found: String,
    wanted: String,
}

trait Tell: Condition {
    fn tell(&self, call: &impl CallView) -> Told;
}

fn unmet_of_any<L: Tell>(rules: &[Rule<L>], call: &impl CallView) -> Option<String> {
    if rules.iter().any(|rule| rule.holds(call)) {
        return None;
    }
    // Where all ask for the same thing, it is said once.
    let leaves: Option<Vec<&L>> = rules
        .iter()
        .map(|rule| match rule {
            Rule::Is(leaf) => Some(leaf),
            _ => None,
        })
        .collect();
    if let Some(leaves) = leaves {
        let told: Vec<Told> = leaves.iter().map(|leaf| leaf.tell(call)).collect();
        if let [first, rest @ ..] = &told[..]
            && rest.iter().all(|it| it.subject == first.subject)
        {
            let wanted = listed(told.iter().map(|it| it.wanted.clone()), ", ");
            let which = if rest.is_empty() { "not" } else { "none of" };
            return Some(format!("{} is {}, {which} {wanted}", first.subject, first.found));
        }
    }
    let each: Vec<String> = rules.iter().filter_map(|rule| unmet(rule, call)).collect();
    Some(listed(each.into_iter(), "; "))
}

/// The first condition that fails; `None` where the rule holds.
fn unmet<L: Tell>(rule: &Rule<L>, call: &impl CallView) -> Option<String> {
    match rule {
        Rule::Any => None,
        Rule::And(rules) => rules.iter().find_map(|rule| unmet(rule, call)),
        Rule::Or(rules) => unmet_of_any(rules, call),
        Rule::Not(inner) => inner.holds(call).then(|| match met(inner, call) {
            Some(Told {
                subject,
                found,
                wanted,
            }) => format!("{subject} is {found}, and may not be {wanted}"),
            None => "what may not hold holds".to_owned(),
        }),
        Rule::Is(_) => unmet_of_any(std::slice::from_ref(rule), call),
    }
}

/// A condition that holds.
fn met<L: Tell>(rule: &Rule<L>, call: &impl CallView) -> Option<Told> {
    match rule {
        Rule::Any | Rule::Not(_) => None,
        Rule::And(rules) | Rule::Or(rules) => rules.iter().find_map(|rule| met(rule, call)),
        Rule::Is(leaf) => leaf.holds(call).then(|| leaf.tell(call)),
    }
}

fn listed(items: impl Iterator<Item = String>, between: &str) -> String {
    let mut items: Vec<String> = items.collect();
    let more = items.len().saturating_sub(SHOWN_MAX);
    items.truncate(SHOWN_MAX);
    let shown = items.join(between);
    if more == 0 {
        shown
    } else {
        format!("{shown} and {more} more")
    }
}

impl Tell for Permission {
    fn tell(&self, call: &impl CallView) -> Told {
        let destination = call.destination();
        let (subject, found, wanted) = match self {
            Self::Header(matcher) => return of_header(matcher, call),
            Self::UrlPath(matcher) => return of_path(pattern(matcher), call),
            Self::UriTemplate(template) => return of_path(template.source().to_owned(), call),
            Self::DestinationIp(net) => ("the address", destination.ip().to_string(), net.to_string()),
            Self::DestinationPort(port) => ("the port", destination.port().to_string(), port.to_string()),
            Self::DestinationPorts(ports) => {
                let last = ports.end.saturating_sub(1);
                let wanted = format!("{} to {last}", ports.start);
                ("the port", destination.port().to_string(), wanted)
            }
            Self::ServerName(matcher) => {
                let name = shown(call.server_name().as_bytes());
                ("the server name", name, pattern(matcher))
            }
        };
        Told {
            subject: subject.to_owned(),
            found,
            wanted,
        }
    }
}

impl Tell for Principal {
    fn tell(&self, call: &impl CallView) -> Told {
        let (subject, found, wanted) = match self {
            Self::Authenticated(matcher) => {
                let found = match call.peer() {
                    None => "unknown (no mTLS)".to_owned(),
                    Some(peer) => shown(peer.all().next().unwrap_or_default().as_bytes()),
                };
                let wanted = matcher
                    .as_ref()
                    .map_or("anybody with a certificate".into(), identity);
                ("the caller", found, wanted)
            }
            Self::DirectRemoteIp(net) => (
                "the caller's address",
                call.direct_remote().to_string(),
                net.to_string(),
            ),
            Self::RemoteIp(net) => ("the client's address", call.remote().to_string(), net.to_string()),
            Self::Header(matcher) => return of_header(matcher, call),
            Self::UrlPath(matcher) => return of_path(pattern(matcher), call),
            Self::Claim(matcher) => {
                let mut path = matcher.path.iter().map(|name| &**name);
                let claims = path.next().and_then(|name| call.claims(name));
                let names: Vec<&str> = path.clone().collect();
                let found = match (claims, claims.and_then(|claims| claims.at(path))) {
                    (None, _) => "not there (no verified token)".to_owned(),
                    (Some(_), None) => "not there".to_owned(),
                    (Some(_), Some(claim)) => of_claim(claim),
                };
                return Told {
                    subject: format!("the claim {}", names.join(".")),
                    found,
                    wanted: wanted_claim(&matcher.value),
                };
            }
        };
        Told {
            subject: subject.to_owned(),
            found,
            wanted,
        }
    }
}

fn of_path(wanted: String, call: &impl CallView) -> Told {
    Told {
        subject: "the path".to_owned(),
        found: shown(path_of(call)),
        wanted,
    }
}

fn of_header(matcher: &HeaderMatcher, call: &impl CallView) -> Told {
    let (subject, found) = match &*matcher.name {
        ":method" => ("the method".to_owned(), Some(shown(call.method()))),
        ":authority" => ("the host".to_owned(), Some(shown(call.authority()))),
        ":path" => ("the path".to_owned(), Some(shown(call.path()))),
        name => {
            let value = call.header(name).map(|value| shown(&value));
            (format!("the header {name}"), value)
        }
    };
    let wanted = match &matcher.condition {
        ValueCondition::Present(true) => "there".to_owned(),
        ValueCondition::Present(false) => "missing".to_owned(),
        ValueCondition::Matches(matcher) => pattern(matcher),
        ValueCondition::Range(range) => format!("{} to {}", range.start, range.end.saturating_sub(1)),
    };
    let inverted = matcher.invert && !header_matches(matcher, call);
    Told {
        subject,
        found: found.unwrap_or_else(|| "not there".to_owned()),
        wanted: if inverted {
            format!("other than {wanted}")
        } else {
            wanted
        },
    }
}

fn of_claim(claim: &Claim) -> String {
    match claim {
        Claim::Null => "null".to_owned(),
        Claim::Bool(it) => it.to_string(),
        Claim::Number(it) => it.to_string(),
        Claim::Text(text) => shown(text.as_bytes()),
        Claim::List(all) => format!("[{}]", listed(all.iter().map(of_claim), ", ")),
        Claim::Object(_) => "an object".to_owned(),
    }
}

fn wanted_claim(condition: &ClaimCondition) -> String {
    match condition {
        ClaimCondition::Text(matcher) => pattern(matcher),
        ClaimCondition::Element(inner) => wanted_claim(inner),
        // A text or a list with such a text: the same is wanted of both.
        ClaimCondition::Any(all) => all.first().map(wanted_claim).unwrap_or_default(),
    }
}

/// As a policy has it: without the scheme of identities, and with Istio's forms of namespaces and accounts.
fn identity(matcher: &StringMatcher) -> String {
    if let StringMatch::Regex(regex) = &matcher.pattern {
        let source = regex.source();
        let namespace = source
            .strip_prefix(".*/ns/")
            .and_then(|rest| rest.strip_suffix("/.*"));
        if let Some(name) = namespace {
            return format!(
                "in the namespace {}",
                name.replace("[^/]*", "*").replace('\\', "")
            );
        }
        if let Some(account) = source.strip_prefix("spiffe://[^/]+/") {
            return account.replace('\\', "");
        }
    }
    let text = pattern(matcher);
    text.strip_prefix("spiffe://").unwrap_or(&text).to_owned()
}

fn pattern(matcher: &StringMatcher) -> String {
    match &matcher.pattern {
        StringMatch::Exact(text) => text.to_string(),
        StringMatch::Prefix(text) => format!("{text}*"),
        StringMatch::Suffix(text) => format!("*{text}"),
        StringMatch::Contains(text) => format!("*{text}*"),
        StringMatch::Regex(regex) if regex.source() == ".+" => "*".to_owned(),
        StringMatch::Regex(regex) => format!("/{}/", regex.source()),
    }
}

/// Of a caller: what a terminal would obey is escaped.
fn shown(value: &[u8]) -> String {
    let cut = value.get(..TEXT_MAX).unwrap_or(value);
    let mut text = cut.escape_ascii().to_string();
    if cut.len() < value.len() {
        text.push('…');
    }
    if text.is_empty() { "empty".to_owned() } else { text }
}
