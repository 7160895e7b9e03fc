//! What each policy of a workload makes of a call, one by one, for `rajut why`: which rule applies, which does not and at which condition
//! ([`rajut_ir::rbac::Policy::unmet`]), whom a policy asks, which tokens are taken, which limits count it. The verdict is that of
//! [`Judge::judge`]; here is only what led to it, in the order of the sidecar's filters, up to the one that refuses.
//!
//! Bounds: [`LOOKS_MAX`] rules that do not apply are named, the rest is counted. Pure.

use rajut_config::{
    model::{AuthorizationAction, JwtRule, KeySource, LimitKey, RateLimit, Workload},
    snapshot::WorkloadView,
};
use rajut_ir::{
    decide::header_matches,
    ext_authz::ExtAuthz,
    filter::HttpFilterKind,
    http::HttpConnectionManager,
    jwt::{Claim, JwtAuthn},
    listener::{ChainAction, FilterChain},
    rate_limit::{LocalRateLimit, RateLimitAction},
    rbac::{Action, Rbac, Rules},
};
use rajut_types::{Origin, Text};

use super::{Because, Call, Judge, Request, Seen, Token, Verdict, is_preflight, is_taken, verified};

/// Rules that do not apply and are named.
const LOOKS_MAX: usize = 100;

/// What one policy makes of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// Of which kind: `authorization`, `custom`, `token`, `rate limit`.
    pub stage: &'static str,
    /// A sentence.
    pub text: String,
    /// The policy, at the rule.
    pub origin: Option<Origin>,
}

impl Judge<'_> {
    /// What becomes of a call, and what each policy made of it.
    pub fn explain(&mut self, workload: &Workload, call: &Call) -> (Verdict, Vec<Look>) {
        let mut verdict = self.judge(workload, call);
        let inbound = self.inbound(workload).filter(|_| workload.mesh);
        let chain = inbound
            .as_ref()
            .and_then(|inbound| Some((&inbound.view, inbound.chain(call.destination.port(), call)?)));
        let Some((view, (chain, tls))) = chain else {
            return (verdict, Vec::new());
        };
        let mut walk = Walk {
            view,
            seen: Seen::new(call, tls),
            looks: Vec::new(),
            passed_over: 0,
            without_keys: None,
        };
        walk.chain(chain, call);
        if walk.passed_over > LOOKS_MAX {
            let more = walk.passed_over - LOOKS_MAX;
            walk.say("authorization", format!("{more} more rules do not apply"), None);
        }
        if let Some(by) = walk.without_keys.filter(|_| verdict.allowed) {
            (verdict.allowed, verdict.because) = (false, Because::Token { by });
        }
        (verdict, walk.looks)
    }
}

struct Walk<'a, 'c> {
    view: &'a WorkloadView,
    seen: Seen<'c>,
    looks: Vec<Look>,
    passed_over: usize,
    /// Takes the token, but nobody has its keys.
    without_keys: Option<Origin>,
}

/// The call goes no further.
struct Refused;

impl<'c> Walk<'_, 'c> {
    fn say(&mut self, stage: &'static str, text: impl Into<String>, origin: Option<&Origin>) {
        self.looks.push(Look {
            stage,
            text: text.into(),
            origin: origin.cloned(),
        });
    }

    fn chain(&mut self, chain: &FilterChain, call: &'c Call) {
        let reached = self.connection(chain);
        if let (Ok(()), ChainAction::Http(manager), Some(request)) = (reached, &chain.action, &call.request) {
            // What is said is all that there is to do about a refusal.
            let _ = self.request(manager, request);
        }
    }

    fn connection(&mut self, chain: &FilterChain) -> Result<(), Refused> {
        for rbac in &chain.rbac {
            let asks = self.access(rbac)?;
            if let Some((_, asked)) = chain.ext_authz.as_ref().filter(|_| asks) {
                let without = if asked.failure_mode_allow {
                    "passes"
                } else {
                    "is closed"
                };
                let text = format!(
                    "asks {}; without an answer the connection {without}",
                    asked.cluster
                );
                self.say("custom", text, None);
            }
        }
        Ok(())
    }

    fn request(&mut self, manager: &HttpConnectionManager, request: &'c Request) -> Result<(), Refused> {
        self.seen.request(manager, request).map_err(|_| Refused)?;
        let mut asks = false;
        for filter in manager.filters.iter().filter(|filter| !filter.disabled) {
            match &filter.kind {
                HttpFilterKind::Rbac(rbac) => asks |= self.access(rbac)?,
                HttpFilterKind::ExtAuthz(authz) if asks => self.asked(authz),
                HttpFilterKind::JwtAuthn(jwt) => self.tokens(jwt, request)?,
                HttpFilterKind::LocalRateLimit(limit) => self.limit(&filter.name, limit),
                HttpFilterKind::ExtAuthz(_)
                | HttpFilterKind::Fault(_)
                | HttpFilterKind::Cors
                | HttpFilterKind::IstioStats(_)
                | HttpFilterKind::Router(_) => {}
            }
        }
        Ok(())
    }

    /// One access control; whether it notes that somebody is asked.
    fn access(&mut self, rbac: &Rbac) -> Result<bool, Refused> {
        let asks = &*rbac.shadow_stat_prefix == rajut_translate::ASKED_PREFIX;
        let mut noted = false;
        if let Some(rules) = &rbac.shadow {
            let action = if asks {
                AuthorizationAction::Custom
            } else {
                action_of(rules)
            };
            self.rules(rules, action, !asks);
            noted = asks && rules.evaluate(&self.seen).policy.is_some();
        }
        if let Some(rules) = &rbac.rules {
            self.rules(rules, action_of(rules), false);
            if !rules.evaluate(&self.seen).allowed {
                return Err(Refused);
            }
        }
        Ok(noted)
    }

    /// Every policy of that action, rule by rule.
    fn rules(&mut self, rules: &Rules, action: AuthorizationAction, dry_run: bool) {
        let view = self.view;
        let meant = view.authorization.iter();
        for policy in meant.filter(|policy| policy.action == action && policy.dry_run == dry_run) {
            let name = format!("{}/{}", policy.namespace, policy.name);
            let before = if dry_run { "dry-run of " } else { "" };
            if policy.rules.is_empty() {
                let text = format!("{before}{name} ({}) has no rules, so none applies", word(action));
                self.say("authorization", text, Some(&policy.origin));
            }
            for (number, rule) in policy.rules.iter().enumerate() {
                let wanted = format!("ns[{}]-policy[{}]-rule[{number}]", policy.namespace, policy.name);
                let mut compiled = rules.policies().iter();
                let compiled = compiled.find(|(name, _)| rajut_translate::rule_name(name) == wanted);
                let unmet = match compiled {
                    Some((_, compiled)) => compiled.unmet(&self.seen),
                    None => Some("it holds for nothing at this port".to_owned()),
                };
                let what = match unmet {
                    None if dry_run => format!("applies, and would {}", would(action)),
                    None => format!("applies: {}", effect(action, compiled.map(|(name, _)| name))),
                    Some(why) => {
                        self.passed_over += 1;
                        if self.passed_over > LOOKS_MAX {
                            continue;
                        }
                        format!("does not apply: {why}")
                    }
                };
                let origin = policy.origin.at(format!("spec.rules[{number}]"), rule.line);
                let text = format!("{before}{name} ({}) rule {number} {what}", word(action));
                self.say("authorization", text, Some(&origin));
            }
        }
    }

    /// The provider that a policy wants asked.
    fn asked(&mut self, authz: &ExtAuthz) {
        let within = authz
            .timeout
            .map(|limit| format!(" within {limit:?}"))
            .unwrap_or_default();
        let without = if authz.failure_mode_allow {
            "the request passes".to_owned()
        } else {
            format!("it is refused with {}", authz.status_on_error)
        };
        let cluster = authz.provider.cluster();
        let text = format!("asks {cluster}, which answers{within}, or {without}; nobody is asked here");
        self.say("custom", text, None);
    }

    fn tokens(&mut self, filter: &JwtAuthn, request: &'c Request) -> Result<(), Refused> {
        let view = self.view;
        for authentication in &view.tokens {
            for rule in &authentication.rules {
                let keyless = !matches!(rule.keys, KeySource::Inline(_))
                    && view.key_sets.get(&rule.keys).is_none_or(|keys| keys.is_empty());
                let (taken, mut text) = of_token(rule, request.token.as_ref());
                if keyless {
                    text += "; its keys could never be fetched (`rajut logs control`), so every token of it is refused";
                    if taken {
                        self.without_keys = Some(rule.origin.clone());
                    }
                }
                self.say("token", text, Some(&rule.origin));
            }
        }
        if let Ok(claims) = verified(filter, request.token.as_ref(), is_preflight(request)) {
            self.seen.claims = claims;
            Ok(())
        } else {
            self.say("token", "the request is answered 401", None);
            Err(Refused)
        }
    }

    fn limit(&mut self, filter: &str, limit: &LocalRateLimit) {
        let view = self.view;
        let all = view.rate_limits.iter().flat_map(|policy| {
            let own = policy.limits.iter();
            own.map(move |limit| (policy, limit))
        });
        let named =
            |namespace: &str, policy: &str, name: &str| format!("rate-limit.{namespace}.{policy}.{name}");
        let mut meant =
            all.filter(|(policy, limit)| named(&policy.namespace, &policy.name, &limit.name) == filter);
        let Some((policy, own)) = meant.next() else {
            return;
        };
        let asked = limit.rate_limits.iter().filter_map(|it| it.actions.first());
        let counts = asked.clone().all(|action| match action {
            RateLimitAction::HeaderValueMatch { headers, .. } => {
                headers.iter().all(|header| header_matches(header, &self.seen))
            }
            _ => true,
        });
        let text = format!(
            "{}/{} limit {} {}",
            policy.namespace,
            policy.name,
            own.name,
            if counts {
                counted(own, policy.shadow)
            } else {
                "is not about it".to_owned()
            }
        );
        self.say("rate limit", text, Some(&policy.origin));
    }
}

/// Of an access control that is in force: what refuses because nobody can be asked has the names that say so.
fn action_of(rules: &Rules) -> AuthorizationAction {
    let custom = |(name, _): &(Text, _)| rajut_translate::rule_name(name) != &**name;
    match rules.action() {
        Action::Deny if rules.policies().iter().any(custom) => AuthorizationAction::Custom,
        Action::Deny => AuthorizationAction::Deny,
        Action::Allow => AuthorizationAction::Allow,
        Action::Log => AuthorizationAction::Audit,
    }
}

const fn word(action: AuthorizationAction) -> &'static str {
    match action {
        AuthorizationAction::Custom => "CUSTOM",
        AuthorizationAction::Audit => "AUDIT",
        AuthorizationAction::Deny => "DENY",
        AuthorizationAction::Allow => "ALLOW",
    }
}

fn effect(action: AuthorizationAction, name: Option<&Text>) -> &'static str {
    match action {
        AuthorizationAction::Custom
            if name.is_some_and(|name| name.starts_with(rajut_translate::ASKED_NAME)) =>
        {
            "its provider is asked"
        }
        AuthorizationAction::Custom => "refused, since its provider can't be asked",
        AuthorizationAction::Audit => "noted",
        AuthorizationAction::Deny => "refused",
        AuthorizationAction::Allow => "let through",
    }
}

const fn would(action: AuthorizationAction) -> &'static str {
    match action {
        AuthorizationAction::Deny | AuthorizationAction::Custom => "refuse it",
        AuthorizationAction::Allow => "let it through",
        AuthorizationAction::Audit => "note it",
    }
}

/// Whether an issuer's rule takes a token, and what it makes of it.
fn of_token(rule: &JwtRule, token: Option<&Token>) -> (bool, String) {
    let issuer = &rule.issuer;
    let claims = match token {
        None => return (false, format!("{issuer}: there is no token")),
        Some(Token::Invalid) => return (false, format!("{issuer}: the token can't be read")),
        Some(Token::Good(claims)) => claims,
    };
    let own = claims.at(["iss"]).and_then(Claim::text);
    if own != Some(issuer) {
        let other = own.map_or("nobody", |own| own);
        return (
            false,
            format!("{issuer}: the token is of {}", other.escape_debug()),
        );
    }
    let wanted = rule.audiences.join(", ");
    let provider = rajut_ir::jwt::JwtProvider {
        issuer: issuer.clone(),
        audiences: rule.audiences.clone(),
        ..rajut_ir::jwt::JwtProvider::default()
    };
    if !is_taken(&provider, claims) {
        return (false, format!("{issuer}: the token is for nobody of {wanted}"));
    }
    let text =
        format!("{issuer}: the token is taken at its word (signature and times are not looked at here)");
    (true, text)
}

/// How a limit counts.
fn counted(limit: &RateLimit, shadow: bool) -> String {
    let keys: Vec<String> = limit
        .keys
        .iter()
        .map(|key| match key {
            LimitKey::Identity => "caller".to_owned(),
            LimitKey::Address => "address".to_owned(),
            LimitKey::Header(name) => format!("header {name}"),
        })
        .collect();
    let each = if keys.is_empty() {
        String::new()
    } else {
        format!(" for each {}", keys.join(" and "))
    };
    let beyond = if shadow {
        "what is beyond is only counted"
    } else {
        "what is beyond is answered 429"
    };
    let (requests, per) = (limit.requests, limit.per);
    format!("counts it: {requests} requests in {per:?}{each}; {beyond}; what is left is not known here")
}
