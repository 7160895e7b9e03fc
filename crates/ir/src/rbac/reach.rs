//! What a policy says of a caller before it calls: whether it can apply at all, on the very rules that decide its calls. For
//! who asks who can reach what. Pure; one pass over the policy.
//!
//! Only the identity is known. What is judged by addresses, headers, paths or ports may hold or not.

use super::{Policy, Principal, Rule};

/// How often a policy applies to the calls of one identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reach {
    /// To none.
    Never,
    /// To those with certain addresses, headers, paths or ports.
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

impl Policy {
    /// Of a caller whose certificate has this URI; `None`: a caller without a certificate.
    pub fn reach(&self, identity: Option<&str>) -> Reach {
        let principal = |leaf: &Principal| match leaf {
            Principal::Authenticated(matcher) => Some(identity.is_some_and(|identity| {
                matcher
                    .as_ref()
                    .is_none_or(|matcher| matcher.matches(identity.as_bytes()))
            })),
            _ => None,
        };
        let who = or(self.principals.iter().map(|rule| rule.judge(&principal)));
        let what = or(self.permissions.iter().map(|rule| rule.judge(&|_| None)));
        and([who, what].into_iter()).into()
    }
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
        matcher::{StringMatch, StringMatcher},
        rbac::Permission,
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
            policy(principal.clone(), permission).reach(who)
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
}
