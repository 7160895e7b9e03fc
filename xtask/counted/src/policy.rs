//! The decision on access under 7 and 500 policies as Istio makes them: two sets, what is denied, then what is allowed.
//! Each policy names a team's identities, methods and paths; four policies name the same team. The calls that are decided
//! come from several teams in turn and are allowed by the last policy, which names all peers of a namespace.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use anyhow::{Result, ensure};
use rajut_ir::{
    decide::RequestView,
    jwt::Claim,
    matcher::{HeaderMatcher, Regex, StringMatch, StringMatcher, ValueCondition},
    rbac::{Action, CallView, PeerNames, Permission, Policy, Principal, Rule, Rules},
};
use rajut_types::Text;

struct Call {
    names: Vec<Text>,
}

impl RequestView for Call {
    fn method(&self) -> &[u8] {
        b"GET"
    }

    fn scheme(&self) -> &[u8] {
        b"http"
    }

    fn authority(&self) -> &[u8] {
        b"records.clinic.svc.cluster.local"
    }

    fn path(&self) -> &[u8] {
        b"/bench/patients/4711?page=2"
    }

    fn header(&self, _: &str) -> Option<Cow<'_, [u8]>> {
        None
    }
}

impl CallView for Call {
    fn peer(&self) -> Option<PeerNames<'_>> {
        Some(PeerNames {
            uris: &self.names,
            dns: &[],
            subject: "",
        })
    }

    fn direct_remote(&self) -> IpAddr {
        [10, 0, 0, 1].into()
    }

    fn remote(&self) -> IpAddr {
        [10, 0, 0, 1].into()
    }

    fn destination(&self) -> SocketAddr {
        ([10, 0, 0, 2], 8080).into()
    }

    fn server_name(&self) -> &'static str {
        "outbound_.8080_._.records.clinic.svc.cluster.local"
    }

    fn claims(&self, _: &str) -> Option<&Claim> {
        None
    }
}

fn identity(team: usize) -> Text {
    format!("spiffe://cluster.local/ns/clinic/sa/team-{team}").into()
}

fn methods(names: &[&str]) -> Rule<Permission> {
    let method = |name: &&str| {
        Rule::Is(Permission::Header(HeaderMatcher {
            name: ":method".into(),
            condition: ValueCondition::Matches(StringMatcher::exact(*name)),
            invert: false,
            missing_is_empty: false,
        }))
    };
    Rule::Or(names.iter().map(method).collect())
}

fn path(pattern: StringMatch) -> Rule<Permission> {
    Rule::Is(Permission::UrlPath(StringMatcher {
        pattern,
        ignore_case: false,
    }))
}

fn authenticated(pattern: StringMatch) -> Rule<Principal> {
    Rule::Is(Principal::Authenticated(Some(StringMatcher {
        pattern,
        ignore_case: false,
    })))
}

fn policy(number: usize) -> Policy {
    let paths = Rule::Or(vec![
        path(StringMatch::Prefix(format!("/admin/{number}/").into())),
        path(StringMatch::Exact(format!("/internal/{number}").into())),
    ]);
    Policy {
        permissions: vec![Rule::And(vec![methods(&["DELETE", "PUT"]), paths])],
        principals: vec![Rule::And(vec![Rule::Or(vec![authenticated(
            StringMatch::Exact(identity(number / 4)),
        )])])],
    }
}

fn last() -> Result<Policy> {
    let namespace = Regex::new(".*/ns/clinic/.*")?;
    let paths = path(StringMatch::Prefix("/bench/".into()));
    Ok(Policy {
        permissions: vec![Rule::And(vec![methods(&["GET", "POST"]), Rule::Or(vec![paths])])],
        principals: vec![Rule::And(vec![authenticated(StringMatch::Regex(namespace))])],
    })
}

/// Three sevenths deny.
fn decide(policies: usize, count: u64) -> Result<u64> {
    let denying = policies * 3 / 7;
    let named = |numbers: std::ops::Range<usize>| -> BTreeMap<Text, Policy> {
        let name = |number| format!("ns[clinic]-policy[rule-{number:04}]-rule[0]").into();
        numbers.map(|number| (name(number), policy(number))).collect()
    };
    let deny = Rules::compile(Action::Deny, named(0..denying));
    let mut allowed = named(denying..policies - 1);
    allowed.insert("ns[clinic]-policy[the-load]-rule[0]".into(), last()?);
    let allow = Rules::compile(Action::Allow, allowed);
    let calls: Vec<Call> = (0..policies.div_ceil(4))
        .map(|team| Call {
            names: vec![identity(team)],
        })
        .collect();
    let mut passed = 0;
    for call in calls.iter().cycle().take(usize::try_from(count)?) {
        let call = std::hint::black_box(call);
        ensure!(deny.evaluate(call).allowed, "nothing denies it");
        ensure!(allow.evaluate(call).allowed, "the last policy allows it");
        passed += 1;
    }
    Ok(passed)
}

/// Decides so many calls under 7 policies.
pub(crate) fn seven(count: u64) -> Result<u64> {
    decide(7, count)
}

/// Decides so many calls under 500 policies.
pub(crate) fn five_hundred(count: u64) -> Result<u64> {
    decide(500, count)
}
