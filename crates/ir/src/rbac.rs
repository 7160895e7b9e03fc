//! Role-based access control: policies, compiled with an index, and the one function that decides ([`Rules::evaluate`]).
//! HTTP and TCP filters, `translate`'s tests and `rajut why` call the same code.
//!
//! **What is decided.** A policy applies where one of its principals and one of its permissions hold. The first that
//! applies, by name, counts. With `Allow` a call passes if a policy applies (so no policies: nothing passes); with
//! `Deny` if none does; with `Log` always. Source: Envoy `envoy.config.rbac.v3.RBAC`.
//!
//! **Cost.** Most policies name peers and paths. For each policy the index keeps what must hold of both: an exact
//! identity or an Istio namespace, and an exact path or a literal prefix. A call is looked up under what it has (three
//! to five identities times its path's prefixes of the lengths that occur), and only the policies found there are
//! evaluated, so that the cost does not grow with policies for other peers or paths. A policy that limits neither is
//! evaluated for every call. The index holds hashes only: a collision costs an evaluation, never a wrong answer.
//!
//! Bounds: at most [`KEYS_MAX`] entries of the index per policy (a policy with more is looked at for every call); sets
//! nest at most [`DEPTH_MAX`] deep. Evaluation allocates nothing but what [`RequestView::header`] does to join a
//! repeated header. Pure.
//!
//! Claims of tokens ([`Principal::Claim`]) are what a filter before this one has verified; where there is none, none hold.
//!
//! Does not: conditions in CEL, metadata but claims; the decoder refuses them by name.

mod explain;
pub mod reach;

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, SocketAddr},
    ops::Range,
    sync::Arc,
};

use ipnet::IpNet;
use rajut_types::Text;

use crate::{
    decide::{RequestView, header_matches},
    hash::{ByHash, Fnv},
    jwt::{Claim, ClaimMatcher},
    matcher::{HeaderMatcher, Regex, StringMatch, StringMatcher},
};

/// Entries of the index that one policy may have.
pub const KEYS_MAX: usize = 512;
/// How deep `and`, `or` and `not` may nest; the decoder refuses more.
pub const DEPTH_MAX: usize = 16;

/// The filter's configuration, for HTTP and TCP alike.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rbac {
    /// What is enforced; `None` lets everything pass.
    pub rules: Option<Arc<Rules>>,
    /// What is only counted.
    pub shadow: Option<Arc<Rules>>,
    /// Stands in the names of the counters of `rules` (HTTP), or before `rbac` (TCP). May be empty.
    pub stat_prefix: Text,
    /// Stands in the names of the counters of `shadow`. May be empty.
    pub shadow_stat_prefix: Text,
}

/// What happens where a policy applies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Action {
    /// The call passes; all others are refused.
    #[default]
    Allow,
    /// The call is refused; all others pass.
    Deny,
    /// Nothing; it is noted.
    Log,
}

/// A policy: one principal and one permission must hold.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// At least one.
    pub permissions: Vec<Rule<Permission>>,
    /// At least one.
    pub principals: Vec<Rule<Principal>>,
}

/// A condition or a set of them.
#[derive(Debug, Clone, PartialEq)]
pub enum Rule<L> {
    /// Holds always.
    Any,
    /// All hold; at least one.
    And(Vec<Self>),
    /// One holds; at least one.
    Or(Vec<Self>),
    /// Does not hold.
    Not(Box<Self>),
    /// A condition.
    Is(L),
}

/// A condition on what is asked for.
#[derive(Debug, Clone, PartialEq)]
pub enum Permission {
    /// A request header.
    Header(HeaderMatcher),
    /// The path without query and fragment.
    UrlPath(StringMatcher),
    /// The path without query and fragment against a template (`/a/*/b/**`).
    UriTemplate(UriTemplate),
    /// The address that was dialled.
    DestinationIp(IpNet),
    /// The port that was dialled.
    DestinationPort(u16),
    /// The port that was dialled, from `start` to below `end`.
    DestinationPorts(Range<u32>),
    /// The server name of the TLS client hello; empty where there is none.
    ServerName(StringMatcher),
}

/// A condition on who asks.
#[derive(Debug, Clone, PartialEq)]
pub enum Principal {
    /// The connection is TLS and, where there is a matcher, one of the certificate's URI or DNS names or its subject
    /// satisfies it.
    Authenticated(Option<StringMatcher>),
    /// The address of the connection's other end.
    DirectRemoteIp(IpNet),
    /// The client's address, which trusted proxies may tell (`x-forwarded-for`).
    RemoteIp(IpNet),
    /// A request header.
    Header(HeaderMatcher),
    /// The path without query and fragment.
    UrlPath(StringMatcher),
    /// A claim of the token that was verified.
    Claim(ClaimMatcher),
}

/// A template of paths: `*` is one segment, `**` any number of them. Source: Envoy `UriTemplateMatchConfig`.
#[derive(Debug, Clone, PartialEq)]
pub struct UriTemplate {
    source: Text,
    regex: Regex,
}

/// A template that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a path template: whole segments may be `*`, `**`, `{{*}}` or `{{**}}`, and `**` at most once and last"
)]
pub struct InvalidTemplate(pub String);

impl UriTemplate {
    /// Compiles a template; Istio's `{*}` and `{**}` mean `*` and `**`.
    pub fn parse(source: &str) -> Result<Self, InvalidTemplate> {
        const SEGMENT: &str = "[a-zA-Z0-9\\-._~%!$&'()*+,;:@=]+";
        const REST: &str = "[a-zA-Z0-9\\-._~%!$&'()*+,;:@=/]*";
        let wrong = || InvalidTemplate(source.to_owned());
        let segments = source.strip_prefix('/').ok_or_else(wrong)?;
        let mut pattern = String::new();
        let mut ended = false;
        for segment in segments.split('/') {
            pattern.push('/');
            match segment {
                "*" | "{*}" if !ended => pattern.push_str(SEGMENT),
                "**" | "{**}" if !ended => {
                    pattern.push_str(REST);
                    ended = true;
                }
                literal if !literal.contains(['*', '{', '}']) => pattern.push_str(&regex::escape(literal)),
                _ => return Err(wrong()),
            }
        }
        let regex = Regex::new(&pattern).map_err(|_| wrong())?;
        Ok(Self {
            source: source.replace("{**}", "**").replace("{*}", "*").into(),
            regex,
        })
    }

    fn matches(&self, call: &impl RequestView) -> bool {
        let path = path_of(call);
        !path.is_empty() && self.regex.is_full_match(path)
    }

    /// As Envoy writes it.
    pub fn source(&self) -> &str {
        &self.source
    }
}

/// Names of a peer, as its certificate has them.
#[derive(Debug, Clone, Copy, Default)]
pub struct PeerNames<'a> {
    /// URI SANs.
    pub uris: &'a [Text],
    /// DNS SANs.
    pub dns: &'a [Text],
    /// The subject, may be empty.
    pub subject: &'a str,
}

impl<'a> PeerNames<'a> {
    fn all(self) -> impl Iterator<Item = &'a str> {
        let names = self.uris.iter().chain(self.dns).map(|name| &**name);
        names.chain(std::iter::once(self.subject))
    }
}

/// What a decision needs to know of a call. For TCP the [`RequestView`] part is empty.
pub trait CallView: RequestView {
    /// The peer's names; `None` where the connection is plaintext.
    fn peer(&self) -> Option<PeerNames<'_>>;
    /// The connection's other end.
    fn direct_remote(&self) -> IpAddr;
    /// The client's address, as trusted proxies tell it.
    fn remote(&self) -> IpAddr;
    /// The address that was dialled.
    fn destination(&self) -> SocketAddr;
    /// The server name of the TLS client hello; empty where there is none.
    fn server_name(&self) -> &str;
    /// What verified tokens say under that name (`payload_in_metadata`).
    fn claims(&self, name: &str) -> Option<&Claim>;
}

/// Compiled policies.
#[derive(Debug)]
pub struct Rules {
    action: Action,
    /// By name.
    policies: Vec<(Text, Policy)>,
    /// The text of `%RESPONSE_CODE_DETAILS%` for each policy, and last the one for none.
    details: Vec<Text>,
    index: Index,
}

impl PartialEq for Rules {
    fn eq(&self, other: &Self) -> bool {
        self.action == other.action && self.policies == other.policies
    }
}

/// What became of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// It passes.
    pub allowed: bool,
    /// Position of the policy that applies ([`Rules::policies`]).
    pub policy: Option<usize>,
}

impl Rules {
    /// Sorts the policies by name and makes the index.
    pub fn compile(action: Action, policies: BTreeMap<Text, Policy>) -> Self {
        let policies: Vec<_> = policies.into_iter().collect();
        let mut index = Index::default();
        for (at, (_, policy)) in policies.iter().enumerate() {
            index.add(u32::try_from(at).unwrap_or(u32::MAX), policy);
        }
        index.finish();
        let names = policies.iter().map(|(name, _)| &**name).chain(["none"]);
        let details = names
            .map(|name| {
                let name: String = name
                    .chars()
                    .map(|it| if it.is_ascii_whitespace() { '_' } else { it })
                    .collect();
                format!("rbac_access_denied_matched_policy[{name}]").into()
            })
            .collect();
        Self {
            action,
            policies,
            details,
            index,
        }
    }

    /// What the policies do.
    pub const fn action(&self) -> Action {
        self.action
    }

    /// By name.
    pub fn policies(&self) -> &[(Text, Policy)] {
        &self.policies
    }

    /// `%RESPONSE_CODE_DETAILS%` of a refusal.
    pub fn details(&self, policy: Option<usize>) -> &Text {
        let none = self.details.len() - 1;
        &self.details[policy.unwrap_or(none).min(none)]
    }

    /// Decides.
    pub fn evaluate(&self, call: &impl CallView) -> Outcome {
        let policy = self.index.first(call, |at| {
            self.policies
                .get(at)
                .is_some_and(|(_, policy)| policy.applies(call))
        });
        let allowed = match self.action {
            Action::Allow => policy.is_some(),
            Action::Deny => policy.is_none(),
            Action::Log => true,
        };
        Outcome { allowed, policy }
    }
}

impl Policy {
    /// Whether one principal and one permission hold.
    pub fn applies(&self, call: &impl CallView) -> bool {
        self.principals.iter().any(|rule| rule.holds(call))
            && self.permissions.iter().any(|rule| rule.holds(call))
    }
}

impl Policy {
    /// Whether a condition looks at what only HTTP has.
    pub fn needs_http(&self) -> bool {
        let permission = |leaf: &Permission| {
            matches!(
                leaf,
                Permission::Header(_) | Permission::UrlPath(_) | Permission::UriTemplate(_)
            )
        };
        let principal = |leaf: &Principal| {
            matches!(
                leaf,
                Principal::Header(_) | Principal::UrlPath(_) | Principal::Claim(_)
            )
        };
        self.permissions.iter().any(|rule| rule.any(&permission))
            || self.principals.iter().any(|rule| rule.any(&principal))
    }
}

impl<L> Rule<L> {
    /// Whether `found` holds of a condition in it.
    fn any(&self, found: &impl Fn(&L) -> bool) -> bool {
        match self {
            Self::Any => false,
            Self::And(rules) | Self::Or(rules) => rules.iter().any(|rule| rule.any(found)),
            Self::Not(rule) => rule.any(found),
            Self::Is(condition) => found(condition),
        }
    }
}

/// A condition that can be evaluated.
pub trait Condition {
    /// Whether it holds.
    fn holds(&self, call: &impl CallView) -> bool;
}

impl<L: Condition> Rule<L> {
    /// Whether it holds.
    pub fn holds(&self, call: &impl CallView) -> bool {
        match self {
            Self::Any => true,
            Self::And(rules) => rules.iter().all(|rule| rule.holds(call)),
            Self::Or(rules) => rules.iter().any(|rule| rule.holds(call)),
            Self::Not(rule) => !rule.holds(call),
            Self::Is(condition) => condition.holds(call),
        }
    }
}

impl Condition for Permission {
    fn holds(&self, call: &impl CallView) -> bool {
        match self {
            Self::Header(matcher) => header_matches(matcher, call),
            Self::UrlPath(matcher) => path_matches(matcher, call),
            Self::UriTemplate(template) => template.matches(call),
            Self::DestinationIp(net) => contains(*net, call.destination().ip()),
            Self::DestinationPort(port) => call.destination().port() == *port,
            Self::DestinationPorts(ports) => ports.contains(&call.destination().port().into()),
            Self::ServerName(matcher) => matcher.matches(call.server_name().as_bytes()),
        }
    }
}

impl Condition for Principal {
    fn holds(&self, call: &impl CallView) -> bool {
        match self {
            Self::Authenticated(matcher) => call.peer().is_some_and(|peer| {
                matcher
                    .as_ref()
                    .is_none_or(|matcher| peer.all().any(|name| matcher.matches(name.as_bytes())))
            }),
            Self::DirectRemoteIp(net) => contains(*net, call.direct_remote()),
            Self::RemoteIp(net) => contains(*net, call.remote()),
            Self::Header(matcher) => header_matches(matcher, call),
            Self::UrlPath(matcher) => path_matches(matcher, call),
            Self::Claim(matcher) => claim_matches(matcher, call),
        }
    }
}

fn claim_matches(matcher: &ClaimMatcher, call: &impl CallView) -> bool {
    matcher.holds(|name| call.claims(name))
}

fn contains(net: IpNet, address: IpAddr) -> bool {
    net.contains(&address) || net.contains(&address.to_canonical())
}

/// Without query and fragment.
fn path_of(call: &impl RequestView) -> &[u8] {
    let whole = call.path();
    let end = whole.iter().position(|byte| matches!(byte, b'?' | b'#'));
    &whole[..end.unwrap_or(whole.len())]
}

/// Without a path (CONNECT, TCP) no matcher holds.
fn path_matches(matcher: &StringMatcher, call: &impl RequestView) -> bool {
    let path = path_of(call);
    !path.is_empty() && matcher.matches(path)
}

/// What must hold of a call for a policy to apply.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Key {
    /// A name of the peer.
    Name(Text),
    /// The peer has `/ns/…/` in a name.
    Namespace(Text),
    /// The path.
    Path(Text),
    /// What the path begins with.
    Prefix(Text),
}

/// Alternatives of which one must hold; `None`: nothing is known.
type Keys = Option<Vec<Key>>;

/// The keys of an alternative of several rules.
fn keys_of_any<L>(rules: &[Rule<L>], leaf: &impl Fn(&L) -> Keys) -> Keys {
    let mut all = Vec::new();
    for rule in rules {
        all.extend(keys_of(rule, leaf)?);
        if all.len() > KEYS_MAX {
            return None;
        }
    }
    Some(all)
}

fn keys_of<L>(rule: &Rule<L>, leaf: &impl Fn(&L) -> Keys) -> Keys {
    match rule {
        Rule::Any | Rule::Not(_) => None,
        Rule::And(rules) => rules
            .iter()
            .filter_map(|rule| keys_of(rule, leaf))
            .min_by_key(Vec::len),
        Rule::Or(rules) => keys_of_any(rules, leaf),
        Rule::Is(condition) => leaf(condition),
    }
}

fn principal_keys(principal: &Principal) -> Keys {
    let Principal::Authenticated(Some(matcher)) = principal else {
        return None;
    };
    match &matcher.pattern {
        StringMatch::Exact(name) if !matcher.ignore_case => Some(vec![Key::Name(name.clone())]),
        StringMatch::Regex(regex) => {
            // Istio's form of a namespace.
            let namespace = regex.source().strip_prefix(".*/ns/")?.strip_suffix("/.*")?;
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
            namespace
                .bytes()
                .all(plain)
                .then(|| vec![Key::Namespace(namespace.into())])
        }
        _ => None,
    }
}

fn permission_keys(permission: &Permission) -> Keys {
    match permission {
        Permission::UrlPath(matcher) if !matcher.ignore_case => match &matcher.pattern {
            StringMatch::Exact(path) => Some(vec![Key::Path(path.clone())]),
            StringMatch::Prefix(prefix) => Some(vec![Key::Prefix(prefix.clone())]),
            _ => None,
        },
        Permission::UriTemplate(template) => {
            let end = template.source.find('*').unwrap_or(template.source.len());
            Some(vec![Key::Prefix(template.source[..end].into())])
        }
        _ => None,
    }
}

/// Hash of peer and path → the policies for which these hold.
#[derive(Debug, Default)]
struct Index {
    entries: HashMap<u64, Vec<u32>, ByHash>,
    /// Lengths of prefixes that occur, rising.
    lengths: Vec<usize>,
    /// Which kinds of peers occur with which kinds of paths: a bit for each pair.
    pairs: u32,
}

/// What a part of an entry is, mixed into its hash.
const ANY: u32 = 0;
const NAME: u32 = 1;
const NAMESPACE: u32 = 2;
const PATH: u32 = 1;
const PREFIX: u32 = 2;

/// A part of an entry: what kind it is, and its hash.
#[derive(Debug, Clone, Copy, Default)]
struct Part {
    kind: u32,
    hash: u64,
}

impl Part {
    fn new(kind: u32, hash: u64) -> Self {
        let hash = hash ^ u64::from(kind).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Self {
            kind,
            hash: hash.wrapping_mul(0xff51_afd7_ed55_8ccd),
        }
    }

    /// The bit of this kind of peer with that kind of path.
    const fn pair(self, path: u32) -> u32 {
        1 << (self.kind * 3 + path)
    }
}

/// Keys of a peer that are kept for all of a call's lookups; a peer with more is read again for each.
const PEERS_MAX: usize = 8;

impl Index {
    fn add(&mut self, at: u32, policy: &Policy) {
        let peers = keys_of_any(&policy.principals, &principal_keys);
        let paths = keys_of_any(&policy.permissions, &permission_keys);
        let peers = self.parts(&peers.unwrap_or_default());
        let mut paths = self.parts(&paths.unwrap_or_default());
        if peers.len() * paths.len() > KEYS_MAX {
            paths = vec![Part::default()];
        }
        for peer in &peers {
            for path in &paths {
                self.pairs |= peer.pair(path.kind);
                let entry = self
                    .entries
                    .entry(peer.hash ^ path.hash.rotate_left(32))
                    .or_default();
                if entry.last() != Some(&at) {
                    entry.push(at);
                }
            }
        }
    }

    fn parts(&mut self, keys: &[Key]) -> Vec<Part> {
        if keys.is_empty() {
            return vec![Part::default()];
        }
        let part = |kind, text: &Text| Part::new(kind, Fnv::of(text.as_bytes()));
        keys.iter()
            .map(|key| match key {
                Key::Name(name) => part(NAME, name),
                Key::Namespace(name) => part(NAMESPACE, name),
                Key::Path(path) => part(PATH, path),
                Key::Prefix(prefix) => {
                    self.lengths.push(prefix.len());
                    part(PREFIX, prefix)
                }
            })
            .collect()
    }

    fn finish(&mut self) {
        self.lengths.sort_unstable();
        self.lengths.dedup();
    }

    /// Whether peers of that kind occur.
    const fn has_peers(&self, kind: u32) -> bool {
        self.pairs & (0b111 << (kind * 3)) != 0
    }

    /// Whether paths of that kind occur.
    const fn has_paths(&self, kind: u32) -> bool {
        self.pairs & (0b1_001_001 << kind) != 0
    }

    /// The lowest position among those that the call's keys lead to for which `applies` holds.
    fn first(&self, call: &impl CallView, applies: impl Fn(usize) -> bool) -> Option<usize> {
        let mut kept = [Part::default(); PEERS_MAX];
        let mut count = 0;
        self.each_peer(call, |peer| {
            if let Some(place) = kept.get_mut(count) {
                *place = peer;
            }
            count += 1;
        });
        let mut best: Option<u32> = None;
        let mut look = |peer: Part, path: Part| {
            if self.pairs & peer.pair(path.kind) == 0 {
                return;
            }
            let Some(entry) = self.entries.get(&(peer.hash ^ path.hash.rotate_left(32))) else {
                return;
            };
            let below = best.unwrap_or(u32::MAX);
            let found = entry
                .iter()
                .take_while(|at| **at < below)
                .find(|at| applies(usize::try_from(**at).unwrap_or(usize::MAX)));
            if let Some(found) = found {
                best = Some(*found);
            }
        };
        self.each_path(call, |path| match kept.get(..count) {
            Some(peers) => peers.iter().for_each(|peer| look(*peer, path)),
            None => self.each_peer(call, |peer| look(peer, path)),
        });
        best.and_then(|at| usize::try_from(at).ok())
    }

    fn each_peer(&self, call: &impl CallView, mut visit: impl FnMut(Part)) {
        if self.has_peers(ANY) {
            visit(Part::default());
        }
        let (names, namespaces) = (self.has_peers(NAME), self.has_peers(NAMESPACE));
        if !names && !namespaces {
            return;
        }
        let Some(peer) = call.peer() else { return };
        for name in peer.all() {
            if names {
                visit(Part::new(NAME, Fnv::of(name.as_bytes())));
            }
            if namespaces {
                let mut rest = name;
                while let Some(at) = rest.find("/ns/") {
                    rest = &rest[at + 4..];
                    let end = rest.find('/').unwrap_or(rest.len());
                    visit(Part::new(NAMESPACE, Fnv::of(&rest.as_bytes()[..end])));
                    // The slash that ends this one may begin the next.
                    rest = &rest[end..];
                }
            }
        }
    }

    fn each_path(&self, call: &impl CallView, mut visit: impl FnMut(Part)) {
        if self.has_paths(ANY) {
            visit(Part::default());
        }
        let exact = self.has_paths(PATH);
        if !exact && self.lengths.is_empty() {
            return;
        }
        let path = path_of(call);
        let (mut hash, mut done) = (Fnv::default(), 0);
        for length in &self.lengths {
            let Some(part) = path.get(done..*length) else {
                break;
            };
            hash.update(part);
            done = *length;
            visit(Part::new(PREFIX, hash.value()));
        }
        if exact {
            hash.update(&path[done..]);
            visit(Part::new(PATH, hash.value()));
        }
    }
}

#[cfg(test)]
mod tests;
