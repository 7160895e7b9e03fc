//! What a policy says of a caller before it calls: whether it can apply at all, on the very rules that decide its calls. For
//! who asks who can reach what. Pure; one pass over the policy.
//!
//! Only what [`Known`] has is known. What is judged by addresses, headers and claims, and by what it has not, may hold or not.

use std::borrow::Cow;

use super::{Action, Outcome, Permission, Policy, Principal, Rule, Rules, path_matches};
use crate::{
    decide::{RequestView, header_matches},
    matcher::StringMatcher,
};

/// How often a policy applies to the calls of one identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reach {
    /// To none.
    Never,
    /// To those with what is not known: certain addresses, headers, claims.
    Sometimes,
    /// To all.
    Always,
}

impl From<Option<bool>> for Reach {
    fn from(known: Option<bool>) -> Self {
        match known {
            Some(false) => Self::Never,
            None => Self::Sometimes,
            Some(true) => Self::Always,
        }
    }
}

/// What is known of calls before they come; what is not may be anything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Known<'k> {
    /// The URI in the caller's certificate; `None`: it has no certificate.
    pub identity: Option<&'k str>,
    /// `GET`
    pub method: Option<&'k str>,
    /// Without a query, in the form in which it is judged.
    pub path: Option<&'k str>,
    /// The port that is dialled.
    pub port: Option<u16>,
}

impl RequestView for Known<'_> {
    fn method(&self) -> &[u8] {
        self.method.unwrap_or_default().as_bytes()
    }
    fn scheme(&self) -> &[u8] {
        b""
    }
    fn authority(&self) -> &[u8] {
        b""
    }
    fn path(&self) -> &[u8] {
        self.path.unwrap_or_default().as_bytes()
    }
    fn header(&self, _: &str) -> Option<Cow<'_, [u8]>> {
        None
    }
}

impl Rules {
    /// [`Rules::evaluate`] of a call of which not all is known, by what each condition comes to (`None`: it depends on what is not
    /// known). `None`: the outcome depends on it, too. Walks all policies.
    pub fn weigh(
        &self,
        permission: &impl Fn(&Permission) -> Option<bool>,
        principal: &impl Fn(&Principal) -> Option<bool>,
    ) -> Option<Outcome> {
        let mut depends = false;
        let mut found = None;
        for (at, (_, policy)) in self.policies.iter().enumerate() {
            let who = or(policy.principals.iter().map(|rule| rule.judge(principal)));
            let applies = and([who].into_iter().chain(std::iter::once_with(|| {
                or(policy.permissions.iter().map(|rule| rule.judge(permission)))
            })));
            match applies {
                Some(true) => {
                    found = Some(at);
                    break;
                }
                Some(false) => {}
                None => depends = true,
            }
        }
        let allowed = match self.action {
            Action::Log => true,
            _ if found.is_none() && depends => return None,
            Action::Allow => found.is_some(),
            Action::Deny => found.is_none(),
        };
        Some(Outcome {
            allowed,
            policy: found,
        })
    }
}

impl Policy {
    /// Of calls of which this is known.
    pub fn reach(&self, known: &Known<'_>) -> Reach {
        and([self.who(known), self.what(known)].into_iter()).into()
    }

    /// The same, whatever is asked for.
    pub fn callers(&self, known: &Known<'_>) -> Reach {
        self.who(known).into()
    }

    fn who(&self, known: &Known<'_>) -> Option<bool> {
        let principal = |leaf: &Principal| match leaf {
            Principal::Authenticated(matcher) => Some(known.identity.is_some_and(|identity| {
                matcher
                    .as_ref()
                    .is_none_or(|matcher| matcher.matches(identity.as_bytes()))
            })),
            Principal::UrlPath(matcher) => path_reaches(matcher, known),
            Principal::DirectRemoteIp(_)
            | Principal::RemoteIp(_)
            | Principal::Header(_)
            | Principal::Claim(_) => None,
        };
        or(self.principals.iter().map(|rule| rule.judge(&principal)))
    }

    fn what(&self, known: &Known<'_>) -> Option<bool> {
        let permission = |leaf: &Permission| match leaf {
            Permission::UrlPath(matcher) => path_reaches(matcher, known),
            Permission::UriTemplate(template) => known.path.map(|_| template.matches(known)),
            Permission::Header(matcher) if &*matcher.name == ":method" => {
                known.method.map(|_| header_matches(matcher, known))
            }
            Permission::DestinationPort(port) => known.port.map(|known| known == *port),
            Permission::DestinationPorts(ports) => known.port.map(|known| ports.contains(&known.into())),
            Permission::Header(_) | Permission::DestinationIp(_) | Permission::ServerName(_) => None,
        };
        or(self.permissions.iter().map(|rule| rule.judge(&permission)))
    }
}

fn path_reaches(matcher: &StringMatcher, known: &Known<'_>) -> Option<bool> {
    known.path.map(|_| path_matches(matcher, known))
}

impl<L> Rule<L> {
    /// `None`: it depends on what is not known.
    fn judge(&self, leaf: &impl Fn(&L) -> Option<bool>) -> Option<bool> {
        match self {
            Self::Any => Some(true),
            Self::And(rules) => and(rules.iter().map(|rule| rule.judge(leaf))),
            Self::Or(rules) => or(rules.iter().map(|rule| rule.judge(leaf))),
            Self::Not(rule) => rule.judge(leaf).map(|held| !held),
            Self::Is(condition) => leaf(condition),
        }
    }
}

fn and(mut parts: impl Iterator<Item = Option<bool>>) -> Option<bool> {
    parts
        .try_fold(Some(true), |all, part| match part {
            Some(false) => Err(()),
            Some(true) => Ok(all),
            None => Ok(None),
        })
        .unwrap_or(Some(false))
}

fn or(parts: impl Iterator<Item = Option<bool>>) -> Option<bool> {
    and(parts.map(|part| part.map(|held| !held))).map(|none| !none)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        matcher::{HeaderMatcher, StringMatch, ValueCondition},
        rbac::UriTemplate,
    };

    fn is(identity: &str) -> Rule<Principal> {
        Rule::Is(Principal::Authenticated(Some(StringMatcher {
            pattern: StringMatch::Exact(identity.into()),
            ignore_case: false,
        })))
    }

    fn policy(principal: Rule<Principal>, permission: Rule<Permission>) -> Policy {
        Policy {
            permissions: vec![permission],
            principals: vec![principal],
        }
    }

    #[test]
    fn an_identity_is_known_and_what_is_asked_for_is_not() {
        let web = Some("spiffe://td/ns/a/sa/web");
        let of_web = is("spiffe://td/ns/a/sa/web");
        let port = || Rule::Is(Permission::DestinationPort(80));
        let reach = |principal: &Rule<Principal>, permission: Rule<Permission>, who| {
            let known = Known {
                identity: who,
                ..Known::default()
            };
            policy(principal.clone(), permission).reach(&known)
        };
        assert_eq!(reach(&of_web, Rule::Any, web), Reach::Always);
        assert_eq!(reach(&of_web, port(), web), Reach::Sometimes);
        assert_eq!(
            reach(&of_web, port(), Some("spiffe://td/ns/a/sa/job")),
            Reach::Never
        );
        assert_eq!(
            reach(&of_web, Rule::Any, None),
            Reach::Never,
            "plain text has no identity"
        );
        let not_web = Rule::Not(Box::new(of_web.clone()));
        assert_eq!(reach(&not_web, Rule::Any, None), Reach::Always);
        let either = Rule::Or(vec![
            of_web.clone(),
            Rule::Is(Principal::RemoteIp("10.0.0.0/8".parse().expect("a net"))),
        ]);
        assert_eq!(reach(&either, Rule::Any, web), Reach::Always);
        assert_eq!(reach(&either, Rule::Any, None), Reach::Sometimes);
        let both = Rule::And(vec![of_web, Rule::Not(Box::new(either))]);
        assert_eq!(reach(&both, Rule::Any, web), Reach::Never);
    }
    #[test]
    fn an_outcome_is_known_where_what_is_unknown_can_not_change_it() {
        let remote = || Rule::Is(Principal::RemoteIp("10.0.0.0/8".parse().expect("a net")));
        let web = is("web");
        let rules = |action, principals: Vec<Rule<Principal>>| {
            let policies = principals.into_iter().enumerate();
            let named = policies.map(|(at, it)| (at.to_string().into(), policy(it, Rule::Any)));
            Rules::compile(action, named.collect())
        };
        let weigh = |rules: &Rules, who: bool| {
            let principal = |leaf: &Principal| matches!(leaf, Principal::Authenticated(_)).then_some(who);
            rules.weigh(&|_| None, &principal)
        };
        let outcome = |allowed, policy| Some(Outcome { allowed, policy });
        let either = rules(Action::Allow, vec![remote(), web.clone()]);
        assert_eq!(weigh(&either, true), outcome(true, Some(1)));
        assert_eq!(weigh(&either, false), None);
        let denied = rules(Action::Deny, vec![remote(), web.clone()]);
        assert_eq!(weigh(&denied, true), outcome(false, Some(1)));
        assert_eq!(weigh(&denied, false), None);
        let both = rules(Action::Allow, vec![Rule::And(vec![web.clone(), remote()])]);
        assert_eq!(weigh(&both, false), outcome(false, None));
        assert_eq!(weigh(&both, true), None);
        assert_eq!(
            weigh(&rules(Action::Log, vec![remote()]), false),
            outcome(true, None)
        );
        assert_eq!(weigh(&rules(Action::Deny, vec![]), false), outcome(true, None));
    }

    #[test]
    fn a_method_and_a_path_that_are_known_are_judged() {
        let anybody = Rule::Any;
        let get = Rule::Is(Permission::Header(HeaderMatcher {
            name: ":method".into(),
            condition: ValueCondition::Matches(StringMatcher::exact("GET")),
            invert: false,
            missing_is_empty: false,
        }));
        let below = UriTemplate::parse("/records/{*}").expect("a template");
        let policy = policy(
            anybody,
            Rule::And(vec![get, Rule::Is(Permission::UriTemplate(below))]),
        );
        let of = |method, path| {
            policy.reach(&Known {
                method,
                path,
                ..Known::default()
            })
        };
        assert_eq!(of(Some("GET"), Some("/records/7")), Reach::Always);
        assert_eq!(of(None, Some("/records/7")), Reach::Sometimes);
        assert_eq!(of(None, Some("/x")), Reach::Never);
        assert_eq!(of(Some("PUT"), None), Reach::Never);
        assert_eq!(of(None, None), Reach::Sometimes);
        assert_eq!(policy.callers(&Known::default()), Reach::Always);
    }
}
