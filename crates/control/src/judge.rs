//! What becomes of a call at the workload that is called: its transport (peer authentication), its token, its access control, in
//! the order in which a sidecar has them. What `rajut policy` asks, with or without a mesh.
//!
//! There is no second evaluator: the workload's inbound listener is made by `translate`, the chain is chosen by [`rajut_ir::chain`], the
//! path gets its form by [`rajut_ir::path`], and the rules are judged by [`rajut_ir::rbac`], as in the proxy.
//!
//! **Tokens** are taken at their word: whether a signature is good is not asked, only whether a provider takes that issuer and
//! audience. **Headers** are those of the caller, without what a sidecar writes itself (`x-forwarded-client-cert`, `x-request-id`).
//!
//! Bounds: one inbound half is kept for each workload that is asked about. Pure. What it does not do: gateways, rate limits, what a
//! route does.

pub mod explain;
pub mod matrix;
pub mod recorded;
pub mod row;
pub mod scan;

use std::{
    borrow::Cow,
    collections::{BTreeSet, HashMap},
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use rajut_config::{
    Loaded, Snapshot,
    model::{Workload, WorkloadHealth},
    snapshot::{Configuration, WorkloadView},
};
use rajut_ir::{
    chain::{ChainMatcher, ConnectionView},
    decide::RequestView,
    filter::HttpFilterKind,
    http::HttpConnectionManager,
    jwt::{Claim, JwtAuthn, JwtProvider, Requirement},
    listener::{ChainAction, FilterChain, Listener, TransportProtocol},
    path,
    rbac::{Action, CallView, PeerNames, Rbac, Rules},
};
use rajut_translate::Translator;
use rajut_types::{Locality, Origin, Text};
use serde::Serialize;

use crate::why::sidecar_of;

/// An address that nobody told: it is in no range but those of everything.
pub const UNKNOWN_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// Protocols that a client of the mesh offers for requests, and for bytes (Istio).
const MESH_HTTP: &str = "istio-http/1.1";
const MESH_BYTES: &str = "istio";

/// A call at the port of a workload.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// `spiffe://…`; `None`: in plain text.
    pub identity: Option<Text>,
    /// The connection's other end.
    pub address: IpAddr,
    /// The client's address, where trusted proxies tell another.
    pub client: Option<IpAddr>,
    /// Which address and port of the workload.
    pub destination: SocketAddr,
    /// Of the client hello; may be empty.
    pub server_name: Text,
    /// `None`: bytes.
    pub request: Option<Request>,
}

/// A request.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// `GET`
    pub method: Text,
    /// With the port if it has one.
    pub authority: Text,
    /// With the query.
    pub path: Text,
    /// By lower-case name; a name may stand several times.
    pub headers: Vec<(Text, Text)>,
    /// Its token.
    pub token: Option<Token>,
}

/// A token.
#[derive(Debug, Clone, PartialEq)]
pub enum Token {
    /// Forged, expired or otherwise bad.
    Invalid,
    /// Good, with these claims.
    Good(Claim),
}

/// What becomes of a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// It reaches the application.
    pub allowed: bool,
    /// Who says so.
    pub because: Because,
    /// The caller has an identity that the port cannot know, since it takes plain text alone.
    pub anonymous: bool,
}

/// Who decides.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum Because {
    /// Nothing lets some through alone, and nothing refuses it.
    Unguarded,
    /// A rule of an authorization policy.
    #[serde(rename_all = "camelCase")]
    Rule {
        /// The policy, at that rule.
        #[serde(rename = "where")]
        policy: Origin,
        /// Its number in the policy.
        rule: usize,
    },
    /// It is let through if somebody else says yes, which is not asked here.
    #[serde(rename_all = "camelCase")]
    Asked {
        /// The policy that wants it, at the rule.
        #[serde(rename = "where")]
        policy: Origin,
        /// Who would be asked, by its name in the mesh's configuration.
        provider: Text,
    },
    /// There are policies that let some through, and none lets this one through.
    NotAllowed,
    /// Plain text, where peer authentication wants TLS.
    PlainText {
        /// Who wants it.
        #[serde(rename = "where")]
        by: Origin,
    },
    /// A token that no request authentication takes: answered 401.
    Token {
        /// One that holds for the workload.
        #[serde(rename = "where")]
        by: Origin,
    },
    /// Its path holds an escaped NUL: answered 400.
    BadPath,
    /// Bytes at a port that takes requests alone.
    NotHttp,
}

impl Because {
    /// The object that decides.
    pub fn origin(&self) -> Option<&Origin> {
        match self {
            Self::Rule { policy, .. } | Self::Asked { policy, .. } => Some(policy),
            Self::PlainText { by } | Self::Token { by } => Some(by),
            Self::Unguarded | Self::NotAllowed | Self::BadPath | Self::NotHttp => None,
        }
    }

    /// With the places that `refine` knows better.
    #[must_use]
    pub fn at(mut self, refine: impl FnOnce(&Origin) -> Origin) -> Self {
        if let Self::Rule { policy: by, .. }
        | Self::Asked { policy: by, .. }
        | Self::PlainText { by }
        | Self::Token { by } = &mut self
        {
            *by = refine(by);
        }
        self
    }

    /// Whether a person means it by `NAME` or `NAMESPACE/NAME`.
    pub fn is_called(&self, name: &str) -> bool {
        self.origin().is_some_and(|origin| {
            let object = &origin.object;
            let whole = || format!("{}/{}", object.namespace, object.name);
            *name == *object.name || *name == *whole()
        })
    }
}

impl fmt::Display for Because {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unguarded => f.write_str("no policy is about it"),
            Self::Rule { policy, .. } => write!(f, "by {policy}"),
            Self::Asked { policy, provider } => {
                write!(f, "if the provider `{provider}` says yes, whom {policy} asks")
            }
            Self::NotAllowed => f.write_str("no policy of action ALLOW lets it through, and there are such"),
            Self::PlainText { by } => write!(f, "plain text is refused by {by}"),
            Self::Token { by } => write!(f, "the token is not taken by {by}"),
            Self::BadPath => f.write_str("the path holds an escaped NUL"),
            Self::NotHttp => f.write_str("the port takes HTTP alone"),
        }
    }
}

/// One instance of each deployment, as if it ran: for files without a mesh.
pub fn workloads(loaded: &Loaded) -> Vec<Workload> {
    let one = |deployment: &rajut_config::model::Deployment| Workload {
        name: format!("{}-0", deployment.name).into(),
        deployment: deployment.name.clone(),
        namespace: deployment.namespace.clone(),
        labels: deployment.labels.clone(),
        service_account: deployment.service_account.clone(),
        address: UNKNOWN_ADDRESS,
        named_ports: deployment
            .ports
            .iter()
            .filter(|port| !port.name.is_empty())
            .map(|port| (port.name.clone(), port.number))
            .collect(),
        reached_ports: std::collections::BTreeMap::new(),
        gateway: deployment.gateway.then(Default::default),
        mesh: true,
        locality: Locality::default(),
        weight: 1,
        health: WorkloadHealth::Ready,
    };
    loaded.deployments.iter().map(one).collect()
}

/// The snapshot of files, with an instance of each deployment.
pub fn snapshot(loaded: &Loaded) -> Snapshot {
    Snapshot::build(Configuration::of(loaded), workloads(loaded), &Snapshot::default())
}

/// Judges calls under one snapshot.
#[derive(Debug)]
pub struct Judge<'s> {
    snapshot: &'s Snapshot,
    translator: Translator,
    /// By namespace, name and labels; as many as are asked about.
    known: HashMap<(Text, Text, rajut_types::Labels), Arc<Inbound>>,
}

/// A workload's inbound half.
#[derive(Debug)]
pub(crate) struct Inbound {
    pub(crate) view: WorkloadView,
    listener: Arc<Listener>,
    matcher: ChainMatcher,
}

impl<'s> Judge<'s> {
    /// Of that snapshot.
    pub fn new(snapshot: &'s Snapshot) -> Self {
        let mut translator = Translator::default();
        translator.turn(snapshot);
        Self {
            snapshot,
            translator,
            known: HashMap::new(),
        }
    }

    /// The snapshot.
    pub const fn snapshot(&self) -> &'s Snapshot {
        self.snapshot
    }

    /// The inbound half of a workload, which the snapshot need not hold. `None`: it has none.
    pub(crate) fn inbound(&mut self, workload: &Workload) -> Option<Arc<Inbound>> {
        let key = (
            workload.namespace.clone(),
            workload.name.clone(),
            workload.labels.clone(),
        );
        if let Some(known) = self.known.get(&key) {
            return Some(Arc::clone(known));
        }
        let proxy = sidecar_of(self.snapshot, workload);
        let resources = self.translator.own(self.snapshot, &proxy);
        let listener = resources.listeners.get("virtualInbound")?;
        let chains = listener.filter_chains.iter().map(|chain| &chain.matches);
        let inbound = Arc::new(Inbound {
            view: self
                .snapshot
                .workload_view(&workload.namespace, &workload.name, &workload.labels),
            matcher: ChainMatcher::compile(chains),
            listener: Arc::clone(listener),
        });
        self.known.insert(key, Arc::clone(&inbound));
        Some(inbound)
    }

    /// What becomes of a call. A workload without a sidecar asks nothing.
    pub fn judge(&mut self, workload: &Workload, call: &Call) -> Verdict {
        let verdict = |allowed, because| Verdict {
            allowed,
            because,
            anonymous: false,
        };
        let Some(inbound) = self.inbound(workload).filter(|_| workload.mesh) else {
            return verdict(true, Because::Unguarded);
        };
        let port = call.destination.port();
        let Some((chain, tls)) = inbound.chain(port, call) else {
            let by = inbound.view.mtls.origin(port).clone();
            return verdict(false, Because::PlainText { by });
        };
        let (allowed, because) = match judged(&inbound.view, chain, tls, call) {
            Ok(because) => (true, because),
            Err(because) => (false, because),
        };
        Verdict {
            allowed,
            because,
            anonymous: call.identity.is_some() && !tls,
        }
    }
}

impl Inbound {
    /// Ports that services lead to or policies name, ascending.
    pub(crate) fn ports(&self) -> BTreeSet<u16> {
        let chains = self.listener.filter_chains.iter();
        chains
            .filter_map(|chain| chain.matches.destination_port)
            .filter(|port| *port != self.listener.address.socket.port())
            .collect()
    }

    /// The chain that takes a connection, and whether it is mTLS. A port that takes plain text alone gets it of callers with an
    /// identity, too, since that is how the mesh's own clients call it.
    fn chain(&self, port: u16, call: &Call) -> Option<(&Arc<FilterChain>, bool)> {
        let http = call.request.is_some();
        let select = |tls| self.select(port, tls, http, &call.server_name);
        if call.identity.is_some()
            && let Some(chain) = select(true)
            && chain.tls.is_some()
        {
            return Some((chain, true));
        }
        select(false).map(|chain| (chain, false))
    }

    /// The chain for a client of the mesh (`tls`) or one in plain text.
    pub(crate) fn select(
        &self,
        port: u16,
        tls: bool,
        http: bool,
        server_name: &str,
    ) -> Option<&Arc<FilterChain>> {
        let protocol = match (tls, http) {
            (true, true) => Some(MESH_HTTP),
            (true, false) => Some(MESH_BYTES),
            (false, true) => Some("http/1.1"),
            (false, false) => None,
        };
        let protocols: Vec<Text> = protocol.into_iter().map(Text::from).collect();
        let view = ConnectionView {
            destination: SocketAddr::new(UNKNOWN_ADDRESS, port),
            source: SocketAddr::new(UNKNOWN_ADDRESS, 0),
            server_name: Some(server_name).filter(|name| tls && !name.is_empty()),
            transport: if tls {
                TransportProtocol::Tls
            } else {
                TransportProtocol::RawBuffer
            },
            application_protocols: &protocols,
        };
        let chosen = self.matcher.select(&view)?;
        self.listener.filter_chains.get(chosen)
    }
}

/// The access controls of a chain, in their order.
pub(crate) fn controls(chain: &FilterChain) -> impl Iterator<Item = &Arc<Rbac>> {
    let filters = match &chain.action {
        ChainAction::Http(manager) => &manager.filters[..],
        ChainAction::Tcp(_) => &[],
    };
    let of_requests = filters.iter().filter_map(|filter| match &filter.kind {
        HttpFilterKind::Rbac(rbac) if !filter.disabled => Some(rbac),
        _ => None,
    });
    chain.rbac.iter().chain(of_requests)
}

/// Walks a chain as a call does.
fn judged(view: &WorkloadView, chain: &FilterChain, tls: bool, call: &Call) -> Result<Because, Because> {
    let mut seen = Seen::new(call, tls);
    let (mut because, mut asked) = (Because::Unguarded, None);
    for rbac in &chain.rbac {
        access(view, rbac, &seen, &mut because)?;
        asked = asked.or_else(|| asks(view, rbac, &seen).filter(|_| chain.ext_authz.is_some()));
    }
    let ChainAction::Http(manager) = &chain.action else {
        return Ok(asked.unwrap_or(because));
    };
    let request = call.request.as_ref().ok_or(Because::NotHttp)?;
    seen.request(manager, request)?;
    for filter in manager.filters.iter().filter(|filter| !filter.disabled) {
        match &filter.kind {
            HttpFilterKind::JwtAuthn(filter) => {
                let refused = || Because::Token {
                    by: view.tokens.first().map_or_else(
                        || Origin::built_in("request-authentication"),
                        |it| it.origin.clone(),
                    ),
                };
                seen.claims = verified(filter, request.token.as_ref(), is_preflight(request))
                    .map_err(|()| refused())?;
            }
            HttpFilterKind::Rbac(rbac) => {
                access(view, rbac, &seen, &mut because)?;
                asked = asked.or_else(|| asks(view, rbac, &seen));
            }
            // Whether it is asked was said by the access control before.
            HttpFilterKind::ExtAuthz(_)
            | HttpFilterKind::LocalRateLimit(_)
            | HttpFilterKind::Fault(_)
            | HttpFilterKind::Cors
            | HttpFilterKind::IstioStats(_)
            | HttpFilterKind::Router(_) => {}
        }
    }
    Ok(asked.unwrap_or(because))
}

/// Who is asked about a call, if the access control notes that somebody is.
fn asks(view: &WorkloadView, rbac: &Rbac, seen: &Seen<'_>) -> Option<Because> {
    let rules = rule_asked(rbac)?;
    let (name, _) = rules.policies().get(rules.evaluate(seen).policy?)?;
    let Because::Rule { policy, .. } = of_rule(view, name)? else {
        return None;
    };
    let mut policies = view.authorization.iter();
    let meant = policies.find(|it| {
        let origin = &it.origin;
        (&origin.source, &origin.object) == (&policy.source, &policy.object)
    });
    Some(Because::Asked {
        provider: meant?.provider.clone()?,
        policy,
    })
}

/// The rules that note about what a provider is asked.
fn rule_asked(rbac: &Rbac) -> Option<&Arc<Rules>> {
    let shadow = rbac.shadow.as_ref();
    shadow.filter(|_| &*rbac.shadow_stat_prefix == rajut_translate::ASKED_PREFIX)
}

/// What one access control makes of a call.
fn access(view: &WorkloadView, rbac: &Rbac, seen: &Seen<'_>, because: &mut Because) -> Result<(), Because> {
    let Some(rules) = &rbac.rules else {
        return Ok(());
    };
    let outcome = rules.evaluate(seen);
    let rule = outcome
        .policy
        .and_then(|at| rules.policies().get(at))
        .and_then(|(name, _)| of_rule(view, name));
    match (rules.action(), outcome.allowed) {
        (Action::Log, _) => {}
        (Action::Deny | Action::Allow, true) => *because = rule.unwrap_or_else(|| because.clone()),
        (Action::Deny | Action::Allow, false) => return Err(rule.unwrap_or(Because::NotAllowed)),
    }
    Ok(())
}

/// The policy and rule of `ns[NAMESPACE]-policy[NAME]-rule[NUMBER]`.
pub(crate) fn of_rule(view: &WorkloadView, name: &str) -> Option<Because> {
    let name = rajut_translate::rule_name(name);
    view.authorization.iter().find_map(|policy| {
        let begin = format!("ns[{}]-policy[{}]-rule[", policy.namespace, policy.name);
        let rule: usize = name.strip_prefix(&begin)?.strip_suffix(']')?.parse().ok()?;
        let origin = &policy.origin;
        Some(Because::Rule {
            policy: origin.at(
                format!("spec.rules[{rule}]"),
                policy.rules.get(rule).map_or(origin.line, |rule| rule.line),
            ),
            rule,
        })
    })
}

/// Source: Fetch, "CORS-preflight request".
fn is_preflight(request: &Request) -> bool {
    let says = |name: &str| {
        request
            .headers
            .iter()
            .any(|(own, value)| **own == *name && !value.is_empty())
    };
    &*request.method == "OPTIONS" && says("origin") && says("access-control-request-method")
}

/// What verified tokens say, by name; an error where the request is refused.
fn verified(filter: &JwtAuthn, token: Option<&Token>, preflight: bool) -> Result<Vec<(Text, Claim)>, ()> {
    let Some(requirement) = filter
        .requirement
        .as_ref()
        .filter(|_| !(preflight && filter.bypass_cors_preflight))
    else {
        return Ok(Vec::new());
    };
    let takes = |name: &Text| {
        let provider = filter.providers.get(name)?;
        match token {
            Some(Token::Good(claims)) if is_taken(provider, claims) => Some((provider, claims)),
            _ => None,
        }
    };
    if !fulfilled(requirement, token.is_none(), &|name| takes(name).is_some()) {
        return Err(());
    }
    let told = filter.providers.keys().filter_map(takes);
    Ok(told
        .filter(|(provider, _)| !provider.metadata.is_empty())
        .map(|(provider, claims)| {
            let claims = claims.clone().with_words(&provider.space_delimited);
            (provider.metadata.clone(), claims)
        })
        .collect())
}

fn fulfilled(requirement: &Requirement, missing: bool, takes: &impl Fn(&Text) -> bool) -> bool {
    match requirement {
        Requirement::Provider(name) => takes(name),
        Requirement::Any(of) => of.iter().any(|it| {
            *it != Requirement::AllowMissing && fulfilled(it, missing, takes)
                || *it == Requirement::AllowMissing && missing
        }),
        Requirement::All(of) => of.iter().all(|it| fulfilled(it, missing, takes)),
        Requirement::AllowMissing => true,
    }
}

/// Whether the issuer and one of the audiences are the provider's.
fn is_taken(provider: &JwtProvider, claims: &Claim) -> bool {
    let text_of = |name| claims.at([name]).and_then(Claim::text);
    let audiences: Vec<&Text> = match claims.at(["aud"]) {
        Some(Claim::List(all)) => all.iter().filter_map(Claim::text).collect(),
        other => other.and_then(Claim::text).into_iter().collect(),
    };
    text_of("iss") == Some(&provider.issuer)
        && (provider.audiences.is_empty() || audiences.iter().any(|one| provider.audiences.contains(one)))
}

/// A call as rules see it.
struct Seen<'c> {
    call: &'c Call,
    tls: bool,
    uris: Vec<Text>,
    request: Option<&'c Request>,
    path: Cow<'c, [u8]>,
    client: IpAddr,
    claims: Vec<(Text, Claim)>,
}

impl<'c> Seen<'c> {
    fn new(call: &'c Call, tls: bool) -> Self {
        Self {
            call,
            tls,
            uris: call.identity.iter().cloned().collect(),
            request: None,
            path: Cow::Borrowed(b""),
            client: call.client.unwrap_or(call.address),
            claims: Vec::new(),
        }
    }

    /// From here on a request is judged.
    fn request(&mut self, manager: &HttpConnectionManager, request: &'c Request) -> Result<(), Because> {
        let path = request.path.as_bytes();
        let normal = path::normalize(manager, path).map_err(|path::BadPath| Because::BadPath)?;
        self.path = normal.map_or(Cow::Borrowed(path), Cow::Owned);
        self.request = Some(request);
        if self.call.client.is_none() {
            let mut told = request
                .headers
                .iter()
                .filter(|(name, _)| &**name == "x-forwarded-for");
            let last = || told.next_back().map(|(_, value)| value.as_bytes());
            self.client = manager.told_client(last).unwrap_or(self.call.address);
        }
        Ok(())
    }
}

impl RequestView for Seen<'_> {
    fn method(&self) -> &[u8] {
        self.request.map_or(b"", |request| request.method.as_bytes())
    }

    fn scheme(&self) -> &[u8] {
        match (self.request, self.tls) {
            (None, _) => b"",
            (_, true) => b"https",
            (_, false) => b"http",
        }
    }

    fn authority(&self) -> &[u8] {
        self.request.map_or(b"", |request| request.authority.as_bytes())
    }

    fn path(&self) -> &[u8] {
        &self.path
    }

    fn header(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        let request = self.request?;
        let of_name = request.headers.iter().filter(|(own, _)| **own == *name);
        let values: Vec<&[u8]> = of_name.map(|(_, value)| value.as_bytes()).collect();
        match values[..] {
            // What a sidecar writes where nothing stands.
            [] => (name == "x-forwarded-proto").then(|| Cow::Borrowed(self.scheme())),
            [one] => Some(Cow::Borrowed(one)),
            _ => Some(Cow::Owned(values.join(&b','))),
        }
    }

    fn any_value(&self, name: &str, passes: &mut dyn FnMut(&[u8]) -> bool) -> Option<bool> {
        let request = self.request?;
        let mut of_name = request
            .headers
            .iter()
            .filter(|(own, _)| **own == *name)
            .peekable();
        if of_name.peek().is_none() {
            return self.header(name).map(|value| passes(&value));
        }
        Some(of_name.any(|(_, value)| passes(value.as_bytes())))
    }
}

impl CallView for Seen<'_> {
    fn peer(&self) -> Option<PeerNames<'_>> {
        self.tls.then_some(PeerNames {
            uris: &self.uris,
            dns: &[],
            subject: "",
        })
    }

    fn direct_remote(&self) -> IpAddr {
        self.call.address
    }

    fn remote(&self) -> IpAddr {
        self.client
    }

    fn destination(&self) -> SocketAddr {
        self.call.destination
    }

    fn server_name(&self) -> &str {
        if self.tls { &self.call.server_name } else { "" }
    }

    fn claims(&self, name: &str) -> Option<&Claim> {
        let told = self.claims.iter().find(|(own, _)| **own == *name);
        told.map(|(_, claims)| claims)
    }
}

#[cfg(test)]
mod tests;
