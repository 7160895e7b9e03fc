//! Authorization policies as what a port of a workload enforces: one access control for each action, in the order in which
//! they decide (another is asked, noted, refused, let through).
//!
//! **Others that are asked.** Rules of the action `CUSTOM` say about which calls the provider is asked ([`crate::ext_authz`]): shadow rules
//! of an access control before everything else, tokens included, so that a rule that asks for what a token says holds for no call. Where
//! the provider can't be asked (there is none of that name, the policies of a workload name several, the data plane does not ask
//! anybody) those calls are refused.
//!
//! A rule becomes a policy of the access control ([`rajut_ir::rbac`]), called `ns[NAMESPACE]-policy[NAME]-rule[NUMBER]`, as
//! Istio's users find it in logs. Ports are judged here, since a port that is captured is not the one that was dialled.
//!
//! **Tokens.** What is asked of them is asked of the claims that the filter before has verified (`tokens.rs`). A request principal is
//! the issuer and the subject with a slash between them; since both may hold slashes, every way to part the text counts.
//!
//! **Bytes.** A TCP port knows no hosts, methods, paths, headers and tokens. A rule that lets through and asks for one of them lets nothing
//! through there; one that refuses or notes holds without it. Both refuse rather more than less. Source: Istio
//! `pilot/pkg/security/authz/model`.

use std::{collections::BTreeMap, sync::Arc};

use ipnet::IpNet;
use rajut_config::{
    model::{
        AuthorizationAction, AuthorizationCondition, AuthorizationOperation, AuthorizationPolicy,
        AuthorizationRule, AuthorizationSource, Authorizer, MeshConfig, PathPattern, ServiceAccountName,
        Values, Wild,
    },
    snapshot::Shared,
};
use rajut_ir::{
    filter::{HttpFilter, HttpFilterKind},
    http::HttpConnectionManager,
    jwt::{ClaimCondition, ClaimMatcher},
    listener::{ChainAction, FilterChain},
    matcher::{HeaderMatcher, Regex, StringMatch, StringMatcher, ValueCondition},
    rbac::{Action, Permission, Policy, Principal, Rbac, Rule, Rules, UriTemplate},
};
use rajut_types::{Text, TrustDomain};

use crate::{
    ext_authz::{self, POLICY_PREFIX, SHADOW_PREFIX},
    tokens,
};

/// Stands before the counters of TCP ports (Istio's choice; Envoy wants one).
const TCP_PREFIX: &str = "tcp.";
/// Trust domains of this name mean the mesh's own, whatever it is called.
const DEFAULT_TRUST_DOMAIN: &str = "cluster.local";

/// What a workload lets through, as its proxy enforces it on any of its HTTP ports: for those who ask before there is a call.
pub fn access_controls(
    mesh: &MeshConfig,
    policies: &[Shared<AuthorizationPolicy>],
) -> impl Iterator<Item = Arc<Rbac>> {
    let authorization = Authorization {
        mesh,
        policies,
        knows_tokens: true,
        asks_others: true,
        judges_open: false,
    };
    let guards = authorization.at(None);
    guards.http.into_iter().map(|(_, rbac)| rbac)
}

/// What holds of a workload's ports.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Authorization<'a> {
    pub(crate) mesh: &'a MeshConfig,
    pub(crate) policies: &'a [Shared<AuthorizationPolicy>],
    /// Whether tokens are verified before.
    pub(crate) knows_tokens: bool,
    /// Whether the data plane can ask others.
    pub(crate) asks_others: bool,
    /// Whether what is open can be judged again: by the heads that were sent on, which gateways may have changed.
    pub(crate) judges_open: bool,
}

impl Authorization<'_> {
    /// What the HTTP and the TCP chains of a port enforce. `port`: the workload's; `None`: the one that was dialled.
    pub(crate) fn at(&self, port: Option<u16>) -> Guards {
        let of = |http| {
            let place = Place {
                mesh: self.mesh,
                port,
                http,
                knows_tokens: http && self.knows_tokens,
            };
            place.guards(self.policies)
        };
        Guards {
            http: of(true),
            tcp: of(false),
            custom: self.custom(port),
            judges_open: self.judges_open && self.policies.iter().any(|policy| policy.closes_open),
        }
    }

    /// What comes of the action `CUSTOM`.
    fn custom(&self, port: Option<u16>) -> Option<Custom> {
        let meant = || {
            let policies = self.policies.iter();
            policies.filter(|policy| policy.action == AuthorizationAction::Custom)
        };
        let mut names = meant().map(|policy| policy.provider.as_ref());
        let first = names.next()?;
        // Istio: a workload has one provider.
        let only = names.all(|name| name == first).then_some(first).flatten();
        let authorizer = only.and_then(|name| ext_authz::provider(self.mesh, name));
        let authorizer = authorizer.filter(|_| self.asks_others);
        let rules = |http| {
            let place = Place {
                mesh: self.mesh,
                port,
                http,
                knows_tokens: http && self.knows_tokens,
            };
            let compiled = meant().flat_map(|policy| place.compile(policy));
            let named = compiled.map(|(name, rule)| match authorizer {
                Some(_) => (format!("{POLICY_PREFIX}-{name}").into(), rule),
                None => (format!("{name}{REFUSED_SUFFIX}").into(), rule),
            });
            let compiled: BTreeMap<Text, Policy> = named.collect();
            (!compiled.is_empty()).then(|| Arc::new(Rules::compile(Action::Deny, compiled)))
        };
        Some(Custom {
            authorizer: authorizer.cloned(),
            http: rules(true),
            tcp: rules(false),
        })
    }
}

/// What follows the names of rules whose provider can't be asked. Source: Istio.
const REFUSED_SUFFIX: &str = "-deny-due-to-bad-CUSTOM-action";

/// The rule behind the name that a policy of an access control has: `ns[NAMESPACE]-policy[NAME]-rule[NUMBER]`.
pub fn rule_name(name: &str) -> &str {
    let name = name
        .strip_prefix(POLICY_PREFIX)
        .and_then(|rest| rest.strip_prefix('-'))
        .unwrap_or(name);
    name.strip_suffix(REFUSED_SUFFIX).unwrap_or(name)
}

/// Calls about which somebody else is asked; all are refused where nobody can be.
#[derive(Debug)]
struct Custom {
    authorizer: Option<Authorizer>,
    http: Option<Arc<Rules>>,
    tcp: Option<Arc<Rules>>,
}

impl Custom {
    /// The access control that notes which calls are meant, or refuses them.
    fn control(&self, rules: &Arc<Rules>, prefix: &str) -> Rbac {
        let rules = Some(rules.clone());
        let none = None;
        let asks = self.authorizer.is_some();
        let (rules, shadow) = if asks { (none, rules) } else { (rules, none) };
        Rbac {
            rules,
            shadow,
            stat_prefix: prefix.into(),
            shadow_stat_prefix: if asks { SHADOW_PREFIX } else { "" }.into(),
        }
    }

    /// The filters of an HTTP chain.
    fn filters(&self) -> Vec<HttpFilter> {
        let Some(rules) = &self.http else {
            return Vec::new();
        };
        let control = HttpFilter {
            name: CUSTOM.into(),
            disabled: false,
            kind: HttpFilterKind::Rbac(Arc::new(self.control(rules, ""))),
        };
        let asks = self.authorizer.as_ref().map(ext_authz::http_filter);
        std::iter::once(control).chain(asks).collect()
    }

    /// Puts what it says of connections before all else that judges them.
    fn protect(&self, chain: &mut FilterChain) {
        let Some(rules) = &self.tcp else { return };
        if let Some(authorizer) = &self.authorizer {
            let Some(asked) = ext_authz::network_filter(authorizer) else {
                return;
            };
            chain.ext_authz = Some((1, Arc::new(asked)));
        }
        chain.rbac.insert(0, Arc::new(self.control(rules, TCP_PREFIX)));
    }
}

/// The name of the filter that says about which requests somebody else is asked.
const CUSTOM: &str = "authorization.custom";

/// The access controls of a port, in their order, with the action's name.
#[derive(Debug, Default)]
pub(crate) struct Guards {
    http: Vec<(&'static str, Arc<Rbac>)>,
    tcp: Vec<(&'static str, Arc<Rbac>)>,
    custom: Option<Custom>,
    judges_open: bool,
}

impl Guards {
    /// The chain with its access control in force.
    pub(crate) fn protect(&self, chain: Arc<FilterChain>) -> Arc<FilterChain> {
        if self.http.is_empty() && self.tcp.is_empty() && self.custom.is_none() {
            return chain;
        }
        let mut chain = Arc::unwrap_or_clone(chain);
        chain.judges_open = self.judges_open;
        match &chain.action {
            ChainAction::Http(manager) => chain.action = ChainAction::Http(self.of_manager(manager)),
            ChainAction::Tcp(_) => {
                chain.rbac.extend(self.tcp.iter().map(|(_, rbac)| rbac.clone()));
                if let Some(custom) = &self.custom {
                    custom.protect(&mut chain);
                }
            }
        }
        Arc::new(chain)
    }

    /// The HTTP chain with the question to others before all that judges requests, tokens included.
    pub(crate) fn ask_first(&self, chain: Arc<FilterChain>) -> Arc<FilterChain> {
        let filters = self.custom.as_ref().map(Custom::filters).unwrap_or_default();
        let ChainAction::Http(manager) = &chain.action else {
            return chain;
        };
        if filters.is_empty() {
            return chain;
        }
        let filters = filters.into_iter().chain(manager.filters.iter().cloned());
        let manager = HttpConnectionManager {
            filters: filters.collect(),
            ..(**manager).clone()
        };
        Arc::new(FilterChain {
            action: ChainAction::Http(Arc::new(manager)),
            ..(*chain).clone()
        })
    }

    /// Before everything else that the manager does with a request.
    fn of_manager(&self, manager: &HttpConnectionManager) -> Arc<HttpConnectionManager> {
        let own = self.http.iter().map(|(name, rbac)| HttpFilter {
            name: (*name).into(),
            disabled: false,
            kind: HttpFilterKind::Rbac(rbac.clone()),
        });
        Arc::new(HttpConnectionManager {
            filters: own.chain(manager.filters.iter().cloned()).collect(),
            ..manager.clone()
        })
    }
}

/// Where a policy is judged.
#[derive(Clone, Copy)]
struct Place<'a> {
    mesh: &'a MeshConfig,
    port: Option<u16>,
    http: bool,
    knows_tokens: bool,
}

/// What is known of a condition before any call.
enum Fold<L> {
    Holds,
    Fails,
    Depends(Rule<L>),
}

/// A condition that can't be judged here: a TCP port has nothing that it could be judged by.
struct NotHere;

type Folded<L> = Result<Fold<L>, NotHere>;

impl Place<'_> {
    fn guards(self, policies: &[Shared<AuthorizationPolicy>]) -> Vec<(&'static str, Arc<Rbac>)> {
        let actions = [
            ("authorization.audit", AuthorizationAction::Audit, ""),
            (
                "authorization.deny",
                AuthorizationAction::Deny,
                "istio_dry_run_deny_",
            ),
            (
                "authorization.allow",
                AuthorizationAction::Allow,
                "istio_dry_run_allow_",
            ),
        ];
        let of_action = |(name, action, shadow_prefix): (&'static str, AuthorizationAction, &str)| {
            let rules = |dry_run: bool| {
                let mut meant = policies
                    .iter()
                    .filter(|policy| policy.action == action && policy.dry_run == dry_run)
                    .peekable();
                meant.peek()?;
                let compiled: BTreeMap<_, _> = meant.flat_map(|policy| self.compile(policy)).collect();
                // Nothing to refuse or note is nothing to do; nothing to let through refuses everything.
                (action == AuthorizationAction::Allow || !compiled.is_empty())
                    .then(|| Arc::new(Rules::compile(enforced(action), compiled)))
            };
            let (rules, shadow) = (rules(false), rules(true));
            if rules.is_none() && shadow.is_none() {
                return None;
            }
            let prefix = if self.http { "" } else { TCP_PREFIX };
            let shadow_stat_prefix = if shadow.is_some() { shadow_prefix } else { "" };
            let rbac = Rbac {
                rules,
                shadow,
                stat_prefix: prefix.into(),
                shadow_stat_prefix: shadow_stat_prefix.into(),
            };
            Some((name, Arc::new(rbac)))
        };
        actions.into_iter().filter_map(of_action).collect()
    }

    /// The rules of a policy that may hold here, by their names.
    fn compile(self, policy: &AuthorizationPolicy) -> Vec<(Text, Policy)> {
        let named = |(number, rule): (usize, &AuthorizationRule)| {
            let name = format!("ns[{}]-policy[{}]-rule[{number}]", policy.namespace, policy.name);
            Some((name.into(), self.rule(rule, policy.action)?))
        };
        policy.rules.iter().enumerate().filter_map(named).collect()
    }

    /// `None`: it holds for no call here.
    fn rule(self, rule: &AuthorizationRule, action: AuthorizationAction) -> Option<Policy> {
        let strict = action == AuthorizationAction::Allow;
        let (mut of_caller, mut of_target) = (Vec::new(), Vec::new());
        for condition in &rule.conditions {
            match self.condition(condition) {
                Judged::Caller(folded) => of_caller.push(folded),
                Judged::Target(folded) => of_target.push(folded),
            }
        }
        let of_caller = all(of_caller, strict)?;
        let of_target = all(of_target, strict)?;
        let principals = alternatives(&rule.sources, of_caller, |source| {
            all(self.source(source), strict)
        })?;
        let permissions = alternatives(&rule.operations, of_target, |operation| {
            all(self.operation(operation), strict)
        })?;
        Some(Policy {
            permissions,
            principals,
        })
    }

    fn source(self, source: &AuthorizationSource) -> Vec<Folded<Principal>> {
        vec![
            values(&source.principals, |value| self.principal(value)),
            values(&source.namespaces, namespace),
            values(&source.service_accounts, service_account),
            values(&source.trust_domains, |value| self.trust_domain(value)),
            values(&source.ip_blocks, |net| one(Principal::DirectRemoteIp(*net))),
            values(&source.remote_ip_blocks, |net| one(Principal::RemoteIp(*net))),
            values(&source.request_principals, |value| self.request_principal(value)),
        ]
    }

    fn operation(self, operation: &AuthorizationOperation) -> Vec<Folded<Permission>> {
        vec![
            values(&operation.hosts, |host| {
                let header = self.header(":authority", host, true)?;
                one(Permission::Header(header))
            }),
            values(&operation.ports, |port| self.port(*port)),
            values(&operation.methods, |method| {
                one(Permission::Header(self.header(":method", method, false)?))
            }),
            values(&operation.paths, |path| self.path(path)),
        ]
    }

    fn condition(self, condition: &AuthorizationCondition) -> Judged {
        let nets = |nets: &Values<IpNet>, leaf: fn(IpNet) -> Principal| values(nets, |net| one(leaf(*net)));
        Judged::Caller(match condition {
            AuthorizationCondition::Header(name, found) => values(found, |value| {
                one(Principal::Header(self.header(name, value, false)?))
            }),
            AuthorizationCondition::SourceIp(found) => nets(found, Principal::DirectRemoteIp),
            AuthorizationCondition::RemoteIp(found) => nets(found, Principal::RemoteIp),
            AuthorizationCondition::SourceNamespace(found) => values(found, namespace),
            AuthorizationCondition::SourcePrincipal(found) => values(found, |value| self.principal(value)),
            AuthorizationCondition::SourceServiceAccount(found) => values(found, service_account),
            AuthorizationCondition::SourceTrustDomain(found) => {
                values(found, |value| self.trust_domain(value))
            }
            AuthorizationCondition::DestinationIp(found) => {
                return Judged::Target(values(found, |net| one(Permission::DestinationIp(*net))));
            }
            AuthorizationCondition::DestinationPort(found) => {
                return Judged::Target(values(found, |port| self.port(*port)));
            }
            AuthorizationCondition::ServerName(found) => {
                return Judged::Target(values(found, |name| {
                    one(Permission::ServerName(matcher(name, "", false)?))
                }));
            }
            AuthorizationCondition::RequestPrincipal(found) => {
                values(found, |value| self.request_principal(value))
            }
            AuthorizationCondition::Claim(path, found) => values(found, |value| self.claim(path, value)),
        })
    }

    /// A claim that is a text, or a list with such a text.
    fn claim(self, path: &[Text], value: &Wild) -> Folded<Principal> {
        let text = ClaimCondition::Text(matcher(value, "", false)?);
        let element = ClaimCondition::Element(Box::new(text.clone()));
        self.claim_at(path, ClaimCondition::Any(vec![text, element]))
    }

    fn claim_at(self, path: &[Text], value: ClaimCondition) -> Folded<Principal> {
        if !self.knows_tokens {
            return Err(NotHere);
        }
        let path = std::iter::once(&tokens::PAYLOAD.into())
            .chain(path)
            .cloned()
            .collect();
        one(Principal::Claim(ClaimMatcher { path, value }))
    }

    /// `ISSUER/SUBJECT`.
    fn request_principal(self, value: &Wild) -> Folded<Principal> {
        let both_are = |issuer: &Wild, subject: &Wild| {
            let part = |name: &str, value: &Wild| {
                let text = ClaimCondition::Text(matcher(value, "", false)?);
                self.claim_at(&[name.into()], text)
            };
            let parts = [part("iss", issuer)?, part("sub", subject)?];
            Ok(both(parts.into()))
        };
        let exact = |text: &str| Wild::Exact(text.into());
        let ways = |text: &Text| -> Vec<(String, String)> {
            let slashes = text.match_indices('/');
            slashes
                .map(|(at, _)| (text[..at].to_owned(), text[at + 1..].to_owned()))
                .collect()
        };
        let mut rules = Vec::new();
        match value {
            Wild::Present => rules.push(both_are(&Wild::Present, &Wild::Present)),
            Wild::Exact(text) => {
                let parted = ways(text);
                rules.extend(parted.iter().map(|(iss, sub)| both_are(&exact(iss), &exact(sub))));
            }
            Wild::Prefix(text) => {
                rules.push(both_are(&Wild::Prefix(text.clone()), &Wild::Present));
                for (iss, sub) in ways(text) {
                    let rest = if sub.is_empty() {
                        Wild::Present
                    } else {
                        Wild::Prefix(sub.into())
                    };
                    rules.push(both_are(&exact(&iss), &rest));
                }
            }
            Wild::Suffix(text) => {
                rules.push(both_are(&Wild::Present, &Wild::Suffix(text.clone())));
                for (iss, sub) in ways(text) {
                    let rest = if iss.is_empty() {
                        Wild::Present
                    } else {
                        Wild::Suffix(iss.into())
                    };
                    rules.push(both_are(&rest, &exact(&sub)));
                }
            }
        }
        any(rules)
    }

    #[expect(clippy::unnecessary_wraps, reason = "all that judge a value have one shape")]
    fn port(self, wanted: u16) -> Folded<Permission> {
        Ok(match self.port {
            Some(own) if own == wanted => Fold::Holds,
            Some(_) => Fold::Fails,
            None => Fold::Depends(Rule::Is(Permission::DestinationPort(wanted))),
        })
    }

    fn header(self, name: &str, value: &Wild, ignore_case: bool) -> Result<HeaderMatcher, NotHere> {
        if !self.http {
            return Err(NotHere);
        }
        let condition = match value {
            Wild::Present => ValueCondition::Present(true),
            other => ValueCondition::Matches(matcher(other, "", ignore_case)?),
        };
        Ok(HeaderMatcher {
            name: name.into(),
            condition,
            invert: false,
            missing_is_empty: false,
        })
    }

    fn path(self, path: &PathPattern) -> Folded<Permission> {
        if !self.http {
            return Err(NotHere);
        }
        one(match path {
            PathPattern::Wild(value) => Permission::UrlPath(matcher(value, "", false)?),
            PathPattern::Template(source) => {
                Permission::UriTemplate(UriTemplate::parse(source).map_err(|_| NotHere)?)
            }
        })
    }

    /// One of the mesh's own trust domains stands for all of them.
    fn principal(self, value: &Wild) -> Folded<Principal> {
        let (text, of): (&Text, fn(Text) -> Wild) = match value {
            Wild::Exact(text) => (text, Wild::Exact),
            Wild::Prefix(text) => (text, Wild::Prefix),
            Wild::Suffix(_) | Wild::Present => return identity(value),
        };
        let own = text.split_once('/').filter(|(domain, _)| self.is_own(domain));
        let Some((_, rest)) = own else {
            return identity(value);
        };
        let spelled = self
            .trust_domains()
            .map(|domain| identity(&of(format!("{domain}/{rest}").into())));
        any(spelled.collect())
    }

    fn trust_domain(self, value: &Wild) -> Folded<Principal> {
        let begins = |text: String| {
            authenticated(StringMatcher {
                pattern: StringMatch::Prefix(text.into()),
                ignore_case: false,
            })
        };
        match value {
            Wild::Exact(domain) if self.is_own(domain) => any(self
                .trust_domains()
                .map(|domain| begins(format!("spiffe://{domain}/")))
                .collect()),
            Wild::Exact(domain) => begins(format!("spiffe://{domain}/")),
            Wild::Prefix(prefix) => begins(format!("spiffe://{prefix}")),
            Wild::Suffix(suffix) => expression(&format!("spiffe://[^/]*{}/.*", Regex::escape(suffix))),
            Wild::Present => begins("spiffe://".to_owned()),
        }
    }

    fn is_own(self, domain: &str) -> bool {
        domain == DEFAULT_TRUST_DOMAIN || self.trust_domains().any(|own| own == domain)
    }

    fn trust_domains(&self) -> impl Iterator<Item = &str> {
        let own = std::iter::once(&self.mesh.trust_domain);
        own.chain(&self.mesh.trust_domain_aliases)
            .map(TrustDomain::as_str)
    }
}

/// What a condition of `when` is about.
enum Judged {
    Caller(Folded<Principal>),
    Target(Folded<Permission>),
}

const fn enforced(action: AuthorizationAction) -> Action {
    match action {
        AuthorizationAction::Audit => Action::Log,
        AuthorizationAction::Deny | AuthorizationAction::Custom => Action::Deny,
        AuthorizationAction::Allow => Action::Allow,
    }
}

#[expect(clippy::unnecessary_wraps, reason = "all that judge a value have one shape")]
fn one<L>(leaf: L) -> Folded<L> {
    Ok(Fold::Depends(Rule::Is(leaf)))
}

/// One of the values, and none of those that may not be.
fn values<T, L>(values: &Values<T>, leaf: impl Fn(&T) -> Folded<L>) -> Folded<L> {
    let mut parts = Vec::new();
    if !values.any.is_empty() {
        parts.push(any(values.any.iter().map(&leaf).collect())?);
    }
    if !values.none.is_empty() {
        parts.push(match any(values.none.iter().map(&leaf).collect())? {
            Fold::Holds => Fold::Fails,
            Fold::Fails => Fold::Holds,
            Fold::Depends(rule) => Fold::Depends(Rule::Not(Box::new(rule))),
        });
    }
    Ok(both(parts))
}

fn any<L>(parts: Vec<Folded<L>>) -> Folded<L> {
    let mut rules = Vec::new();
    for part in parts {
        match part? {
            Fold::Holds => return Ok(Fold::Holds),
            Fold::Fails => {}
            Fold::Depends(rule) => rules.push(rule),
        }
    }
    Ok(match rules.len() {
        0 => Fold::Fails,
        1 => Fold::Depends(rules.remove(0)),
        _ => Fold::Depends(Rule::Or(rules)),
    })
}

fn both<L>(parts: Vec<Fold<L>>) -> Fold<L> {
    let mut rules = Vec::new();
    for part in parts {
        match part {
            Fold::Holds => {}
            Fold::Fails => return Fold::Fails,
            Fold::Depends(rule) => rules.push(rule),
        }
    }
    match rules.len() {
        0 => Fold::Holds,
        1 => Fold::Depends(rules.remove(0)),
        _ => Fold::Depends(Rule::And(rules)),
    }
}

/// All of them. What can't be judged here makes a rule hold for nothing if it is `strict`, and is left out otherwise. `None`:
/// it holds for nothing.
fn all<L>(parts: Vec<Folded<L>>, strict: bool) -> Option<Fold<L>> {
    let mut known = Vec::new();
    for part in parts {
        match part {
            Ok(part) => known.push(part),
            Err(NotHere) if strict => return None,
            Err(NotHere) => {}
        }
    }
    Some(both(known))
}

/// Each entry with what must hold besides; `None`: none can hold, or one can't be judged and must be.
fn alternatives<T, L: Clone>(
    entries: &[T],
    besides: Fold<L>,
    read: impl Fn(&T) -> Option<Fold<L>>,
) -> Option<Vec<Rule<L>>> {
    let besides = match besides {
        Fold::Holds => None,
        Fold::Fails => return None,
        Fold::Depends(rule) => Some(rule),
    };
    let with = |fold: Fold<L>| {
        let more = besides.clone().map(Fold::Depends);
        match both(std::iter::once(fold).chain(more).collect()) {
            Fold::Holds => Some(Rule::Any),
            Fold::Fails => None,
            Fold::Depends(rule) => Some(rule),
        }
    };
    if entries.is_empty() {
        return with(Fold::Holds).map(|rule| vec![rule]);
    }
    let mut rules = Vec::new();
    for entry in entries {
        rules.extend(with(read(entry)?));
    }
    (!rules.is_empty()).then_some(rules)
}

fn authenticated(matcher: StringMatcher) -> Folded<Principal> {
    one(Principal::Authenticated(Some(matcher)))
}

fn expression(source: &str) -> Folded<Principal> {
    authenticated(regex(source)?)
}

/// An identity, without `spiffe://`.
fn identity(value: &Wild) -> Folded<Principal> {
    authenticated(matcher(value, "spiffe://", false)?)
}

/// Whatever the trust domain. The form of a whole name is the one by which policies are indexed.
fn namespace(value: &Wild) -> Folded<Principal> {
    let pattern = match value {
        Wild::Exact(name) => part(name),
        Wild::Prefix(prefix) => format!("{}[^/]*", part(prefix)),
        Wild::Suffix(suffix) => format!("[^/]*{}", part(suffix)),
        Wild::Present => "[^/]+".to_owned(),
    };
    expression(&format!(".*/ns/{pattern}/.*"))
}

fn service_account(account: &ServiceAccountName) -> Folded<Principal> {
    expression(&format!(
        "spiffe://[^/]+/ns/{}/sa/{}",
        part(&account.namespace),
        part(&account.name)
    ))
}

/// A part of an identity, of letters, digits, `-`, `_` and `.`, of which the last alone means something to an expression.
fn part(text: &str) -> String {
    text.replace('.', "\\.")
}

/// The matcher of a text that begins with `prefix`.
fn matcher(value: &Wild, prefix: &str, ignore_case: bool) -> Result<StringMatcher, NotHere> {
    let pattern = match value {
        Wild::Exact(text) => StringMatch::Exact(format!("{prefix}{text}").into()),
        Wild::Prefix(text) => StringMatch::Prefix(format!("{prefix}{text}").into()),
        Wild::Suffix(text) if prefix.is_empty() => StringMatch::Suffix(text.clone()),
        Wild::Suffix(text) => return regex(&format!("{prefix}.*{}", Regex::escape(text))),
        Wild::Present => return regex(".+"),
    };
    Ok(StringMatcher { pattern, ignore_case })
}

/// An expression that is too large can't be judged anywhere.
fn regex(source: &str) -> Result<StringMatcher, NotHere> {
    let regex = Regex::new(source).map_err(|_| NotHere)?;
    Ok(StringMatcher {
        pattern: StringMatch::Regex(regex),
        ignore_case: false,
    })
}
