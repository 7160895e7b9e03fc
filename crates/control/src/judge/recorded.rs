//! What would become of a request that was recorded, under other policies: with the proxy's own rules, and three-valued, since not
//! everything about it was recorded.
//!
//! A condition on something known is judged by the code that the proxy judges it with. Of a path's segments that were recorded as digests
//! it is known whether they equal a text of a policy (by its digest), and that a template's `*` takes them; of headers likewise. The rest
//! (other headers, claims, addresses that trusted proxies told, the query) is unknown, and so is a verdict that depends on it: a refusal that
//! holds either way is one.
//!
//! Does not: bring the recorded path into another normal form, ask providers (policies of action `CUSTOM` are judged as if theirs said yes;
//! what one refused is unknown where one is asked).

use std::{borrow::Cow, cell::RefCell, collections::BTreeSet, net::SocketAddr};

use rajut_config::model::Workload;
use rajut_ir::{
    decide::header_matches,
    filter::HttpFilterKind,
    jwt::{Claim, JwtAuthn},
    listener::{ChainAction, FilterChain},
    matcher::{HeaderMatcher, StringMatch, StringMatcher, ValueCondition},
    rbac::{Action, Condition as _, Permission, Principal, Rbac, Rules},
};
use rajut_telemetry::recording::{self, Digester, Kind, Segment, Token as Recorded, Tuple};
use rajut_types::{Origin, Text};

use super::{
    Because, Call, Inbound, Judge, Request, Seen, Token, UNKNOWN_ADDRESS, of_rule, rule_asked, verified,
};

/// What would become of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Weighed {
    /// It reaches the application.
    Allowed(Because),
    /// It does not.
    Refused(Because),
    /// That depends on these, which were not recorded.
    Unknown(BTreeSet<String>),
}

/// What a condition asks for and nobody recorded, in words.
const PATH: &str = "the path";
const QUERY: &str = "the query";
const CLIENT: &str = "the client's address";
const ADDRESS: &str = "addresses";
const TOKEN: &str = "the token";
const CLAIMS: &str = "claims of the token";
const PROVIDER: &str = "the answer of the provider";

impl Judge<'_> {
    /// What becomes of a recorded request at a workload. One without a sidecar asks nothing.
    pub fn weigh(&mut self, workload: &Workload, tuple: &Tuple, digester: &Digester) -> Weighed {
        let Some(inbound) = self.inbound(workload).filter(|_| workload.mesh) else {
            return Weighed::Allowed(Because::Unguarded);
        };
        let call = call(tuple);
        let port = call.destination.port();
        let Some((chain, tls)) = inbound.chain(port, &call) else {
            let by = inbound.view.mtls.origin(port).clone();
            return Weighed::Refused(Because::PlainText { by });
        };
        let mut weighing = Weighing {
            inbound: &inbound,
            tuple,
            digester,
            seen: Seen::new(&call, tls),
            unknown: RefCell::default(),
            depends: false,
            because: Because::Unguarded,
        };
        match weighing.walk(chain, &call) {
            Err(because) => Weighed::Refused(because),
            Ok(()) if weighing.depends => Weighed::Unknown(weighing.unknown.into_inner()),
            Ok(()) => Weighed::Allowed(weighing.because),
        }
    }
}

/// The call as far as it was recorded.
fn call(tuple: &Tuple) -> Call {
    Call {
        identity: Some(tuple.source.clone()).filter(|source| !source.is_empty()),
        address: tuple.remote.unwrap_or(UNKNOWN_ADDRESS),
        client: None,
        destination: tuple.local.unwrap_or(SocketAddr::new(UNKNOWN_ADDRESS, 0)),
        server_name: tuple.server_name.clone(),
        request: Some(Request {
            method: tuple.method.clone(),
            authority: tuple.authority.clone(),
            path: tuple.path.clone().unwrap_or_default(),
            headers: Vec::new(),
            token: match &tuple.token {
                Recorded::Unknown | Recorded::None => None,
                Recorded::Refused => Some(Token::Invalid),
                Recorded::Good(issuers) => Some(Token::Good(issued_by(issuers))),
            },
        }),
    }
}

/// Claims of which nothing but the issuer is known.
fn issued_by(issuers: &[Text]) -> Claim {
    let issuer = issuers.first().map(|it| &**it).unwrap_or_default();
    Claim::parse(serde_json::json!({"iss": issuer}).to_string().as_bytes()).unwrap_or(Claim::Null)
}

struct Weighing<'w> {
    inbound: &'w Inbound,
    tuple: &'w Tuple,
    digester: &'w Digester,
    seen: Seen<'w>,
    unknown: RefCell<BTreeSet<String>>,
    /// Something that is unknown may have refused it.
    depends: bool,
    because: Because,
}

impl<'w> Weighing<'w> {
    /// As the call walks its chain; an error where it is refused whatever is unknown.
    fn walk(&mut self, chain: &FilterChain, call: &'w Call) -> Result<(), Because> {
        for rbac in &chain.rbac {
            self.access(rbac)?;
        }
        let ChainAction::Http(manager) = &chain.action else {
            // The port takes bytes now: nobody looks into them.
            return Ok(());
        };
        // The recorded path is in its normal form already.
        self.seen.request = call.request.as_ref();
        self.seen.path = call.request.as_ref().map_or(Cow::Borrowed(&b""[..]), |request| {
            Cow::Borrowed(request.path.as_bytes())
        });
        for filter in manager.filters.iter().filter(|filter| !filter.disabled) {
            match &filter.kind {
                HttpFilterKind::JwtAuthn(filter) => self.token(filter)?,
                HttpFilterKind::Rbac(rbac) => {
                    self.access(rbac)?;
                    self.asked(rbac);
                }
                HttpFilterKind::ExtAuthz(_)
                | HttpFilterKind::LocalRateLimit(_)
                | HttpFilterKind::Fault(_)
                | HttpFilterKind::Cors
                | HttpFilterKind::IstioStats(_)
                | HttpFilterKind::Router(_) => {}
            }
        }
        Ok(())
    }

    fn access(&mut self, rbac: &Rbac) -> Result<(), Because> {
        let Some(rules) = rbac.rules.as_ref().filter(|rules| rules.action() != Action::Log) else {
            return Ok(());
        };
        let Some((allowed, policy)) = self.judged(rules) else {
            self.depends = true;
            return Ok(());
        };
        let rule = policy.and_then(|name| of_rule(&self.inbound.view, &name));
        if !allowed {
            return Err(rule.unwrap_or(Because::NotAllowed));
        }
        self.because = rule.unwrap_or_else(|| self.because.clone());
        Ok(())
    }

    /// Whether rules let it pass, and which counts. `None`: unknown, and what of is noted.
    fn judged(&self, rules: &Rules) -> Option<(bool, Option<Text>)> {
        let missing = RefCell::default();
        let permission = |leaf: &Permission| self.permission(leaf).map_err(|it| note(&missing, it)).ok();
        let principal = |leaf: &Principal| self.principal(leaf).map_err(|it| note(&missing, it)).ok();
        let Some(outcome) = rules.weigh(&permission, &principal) else {
            self.unknown.borrow_mut().append(&mut missing.into_inner());
            return None;
        };
        let name = outcome.policy.and_then(|at| rules.policies().get(at));
        Some((outcome.allowed, name.map(|(name, _)| name.clone())))
    }

    /// What a provider refused may be let through now, or not.
    fn asked(&mut self, rbac: &Rbac) {
        let Some(rules) = rule_asked(rbac) else { return };
        if !self.tuple.reason.starts_with("ext_authz") {
            return;
        }
        // Rules that only note let everything pass: the policy tells whether it is asked.
        let asks = self.judged(rules).is_none_or(|(_, policy)| policy.is_some());
        if asks {
            self.depends = true;
            self.unknown.borrow_mut().insert(PROVIDER.to_owned());
        }
    }

    fn token(&mut self, filter: &JwtAuthn) -> Result<(), Because> {
        if self.tuple.token == Recorded::Unknown {
            self.depend(TOKEN);
            return Ok(());
        }
        let request = self.seen.request;
        let token = request.and_then(|request| request.token.as_ref());
        if verified(filter, token, false).is_ok() {
            return Ok(());
        }
        if let Recorded::Good(issuers) = &self.tuple.token {
            // Whom the token is for was not recorded, nor more of it than its issuers.
            let mut takers = filter
                .providers
                .values()
                .filter(|it| issuers.contains(&it.issuer));
            if takers.any(|provider| !provider.audiences.is_empty()) || issuers.len() > 1 {
                self.depend(TOKEN);
                return Ok(());
            }
        }
        let first = self.inbound.view.tokens.first();
        let by = first.map_or_else(
            || Origin::built_in("request-authentication"),
            |it| it.origin.clone(),
        );
        Err(Because::Token { by })
    }

    fn depend(&mut self, on: &str) {
        self.depends = true;
        self.unknown.borrow_mut().insert(on.to_owned());
    }

    /// What a condition comes to; an error names what it asks for and nobody recorded.
    fn permission(&self, leaf: &Permission) -> Result<bool, String> {
        match leaf {
            Permission::Header(matcher) => self.header(matcher),
            Permission::UrlPath(matcher) => self.path(matcher, leaf.holds(&self.seen)),
            Permission::UriTemplate(template) => {
                if self.path_is_clear()? {
                    return Ok(leaf.holds(&self.seen));
                }
                self.template(template.source()).ok_or_else(|| PATH.to_owned())
            }
            Permission::DestinationIp(_)
            | Permission::DestinationPort(_)
            | Permission::DestinationPorts(_) => match self.tuple.local {
                Some(_) => Ok(leaf.holds(&self.seen)),
                None => Err(ADDRESS.to_owned()),
            },
            Permission::ServerName(_) => Ok(leaf.holds(&self.seen)),
        }
    }

    fn principal(&self, leaf: &Principal) -> Result<bool, String> {
        match leaf {
            Principal::Authenticated(_) => Ok(leaf.holds(&self.seen)),
            Principal::DirectRemoteIp(_) if self.tuple.remote.is_some() => Ok(leaf.holds(&self.seen)),
            Principal::DirectRemoteIp(_) => Err(ADDRESS.to_owned()),
            Principal::RemoteIp(_) if self.tuple.remote.is_some() && !self.tuple.forwarded => {
                Ok(leaf.holds(&self.seen))
            }
            Principal::RemoteIp(_) => Err(CLIENT.to_owned()),
            Principal::Header(matcher) => self.header(matcher),
            Principal::UrlPath(matcher) => self.path(matcher, leaf.holds(&self.seen)),
            // Where nobody looks at tokens, no claims hold.
            Principal::Claim(_) => match &self.tuple.token {
                _ if !self.looks_at_tokens() => Ok(false),
                Recorded::None => Ok(false),
                Recorded::Unknown | Recorded::Refused | Recorded::Good(_) => Err(CLAIMS.to_owned()),
            },
        }
    }

    fn looks_at_tokens(&self) -> bool {
        !self.inbound.view.tokens.is_empty()
    }

    fn header(&self, matcher: &HeaderMatcher) -> Result<bool, String> {
        match &*matcher.name {
            ":method" | ":authority" | "host" | ":scheme" => return Ok(header_matches(matcher, &self.seen)),
            ":path" => return Err(QUERY.to_owned()),
            _ => {}
        }
        let missing = || format!("header {}", matcher.name);
        let mut told = self.tuple.headers.iter();
        let told = told
            .find(|header| header.name == matcher.name)
            .ok_or_else(missing)?;
        if told.count == 0 {
            return Ok(header_matches(matcher, &self.seen));
        }
        let holds = match &matcher.condition {
            ValueCondition::Present(wanted) => *wanted,
            ValueCondition::Matches(StringMatcher {
                pattern: StringMatch::Exact(value),
                ignore_case: false,
            }) if told.digest != 0 => {
                let digest = self.digester.digest(Kind::Header(&told.name), value.as_bytes());
                digest == told.digest
            }
            ValueCondition::Matches(_) | ValueCondition::Range(_) => return Err(missing()),
        };
        Ok(holds != matcher.invert)
    }

    /// Whether the path has no digests; an error where it was not recorded.
    fn path_is_clear(&self) -> Result<bool, String> {
        let path = self.tuple.path.as_deref().ok_or_else(|| PATH.to_owned())?;
        Ok(recording::segments(path).all(|segment| matches!(segment, Segment::Clear(_))))
    }

    /// `clear`: what the proxy makes of the path as it stands there.
    fn path(&self, matcher: &StringMatcher, clear: bool) -> Result<bool, String> {
        if self.path_is_clear()? {
            return Ok(clear);
        }
        self.compared(matcher).ok_or_else(|| PATH.to_owned())
    }

    /// A path with digests against a text; `None`: unknown.
    fn compared(&self, matcher: &StringMatcher) -> Option<bool> {
        let path: Vec<Segment<'_>> = recording::segments(self.tuple.path.as_deref()?).collect();
        if matcher.ignore_case {
            return None;
        }
        match &matcher.pattern {
            StringMatch::Exact(text) => {
                let wanted: Vec<&str> = text.split('/').collect();
                let equal = |(own, wanted): (&Segment<'_>, &&str)| self.equals(*own, wanted);
                Some(wanted.len() == path.len() && path.iter().zip(&wanted).all(equal))
            }
            StringMatch::Prefix(text) => {
                let wanted: Vec<&str> = text.split('/').collect();
                self.begins(&path, &wanted, |own, part| own.starts_with(part))
            }
            StringMatch::Suffix(text) => {
                let wanted: Vec<&str> = text.rsplit('/').collect();
                let path: Vec<Segment<'_>> = path.into_iter().rev().collect();
                self.begins(&path, &wanted, |own, part| own.ends_with(part))
            }
            StringMatch::Contains(text) => {
                let mut runs = path.split(|segment| matches!(segment, Segment::Digest { .. }));
                let found = runs.any(|run| {
                    let clear: Vec<&str> = run.iter().filter_map(|segment| clear(*segment)).collect();
                    clear.join("/").contains(&**text)
                });
                found.then_some(true)
            }
            StringMatch::Regex(_) => None,
        }
    }

    /// Whether segments begin with those of a text, of whose last one only a part needs to be there.
    fn begins(
        &self,
        path: &[Segment<'_>],
        wanted: &[&str],
        part: impl Fn(&str, &str) -> bool,
    ) -> Option<bool> {
        let (last, whole) = wanted.split_last()?;
        let Some(next) = path.get(whole.len()) else {
            return Some(false);
        };
        if !path
            .iter()
            .zip(whole)
            .all(|(own, wanted)| self.equals(*own, wanted))
        {
            return Some(false);
        }
        match next {
            Segment::Clear(text) => Some(part(text, last)),
            Segment::Digest { .. } if last.is_empty() || self.equals(*next, last) => Some(true),
            Segment::Digest { .. } => None,
        }
    }

    fn equals(&self, own: Segment<'_>, wanted: &str) -> bool {
        match own {
            Segment::Clear(text) => text == wanted,
            Segment::Digest { digest, .. } => {
                digest == self.digester.digest(Kind::Segment, wanted.as_bytes())
            }
        }
    }

    /// A path with digests against a template; `None`: unknown.
    fn template(&self, source: &str) -> Option<bool> {
        let mut path = recording::segments(self.tuple.path.as_deref()?);
        let takes = |segment: Segment<'_>, empty: bool| match segment {
            Segment::Clear(text) => {
                Some(recording::is_template_segment(text.as_bytes()) || empty && text.is_empty())
            }
            Segment::Digest { plain, .. } => plain.then_some(true),
        };
        let mut known = Some(true);
        for wanted in source.split('/') {
            let held = match wanted {
                "**" => {
                    // One at least, if only an empty one.
                    let first = path.next();
                    let mut rest = first.into_iter().chain(path.by_ref());
                    let all = rest.try_fold(true, |all, segment| Some(all && takes(segment, true)?));
                    if first.is_some() { all } else { Some(false) }
                }
                "*" => path.next().map_or(Some(false), |segment| takes(segment, false)),
                text => Some(path.next().is_some_and(|segment| self.equals(segment, text))),
            };
            match held {
                Some(false) => return Some(false),
                Some(true) => {}
                None => known = None,
            }
        }
        if path.next().is_some() { Some(false) } else { known }
    }
}

fn note(missing: &RefCell<BTreeSet<String>>, what: String) {
    missing.borrow_mut().insert(what);
}

const fn clear(segment: Segment<'_>) -> Option<&str> {
    match segment {
        Segment::Clear(text) => Some(text),
        Segment::Digest { .. } => None,
    }
}
