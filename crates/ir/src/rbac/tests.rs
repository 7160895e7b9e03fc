//! The index against a plain reading of the rules, and Envoy's corner cases.

use std::borrow::Cow;

use proptest::{collection::vec, option, prelude::*, sample::select};

use super::*;
use crate::matcher::ValueCondition;

#[derive(Debug, Clone)]
struct Call {
    tls: bool,
    uris: Vec<Text>,
    subject: &'static str,
    method: &'static str,
    path: String,
    port: u16,
    remote: IpAddr,
    claims: Option<Claim>,
}

impl Default for Call {
    fn default() -> Self {
        Self {
            tls: true,
            uris: vec!["spiffe://cluster.local/ns/clinic/sa/portal".into()],
            subject: "",
            method: "GET",
            path: "/".into(),
            port: 8080,
            remote: [10, 0, 0, 1].into(),
            claims: None,
        }
    }
}

impl RequestView for Call {
    fn method(&self) -> &[u8] {
        self.method.as_bytes()
    }
    fn scheme(&self) -> &[u8] {
        b"http"
    }
    fn authority(&self) -> &[u8] {
        b"records"
    }
    fn path(&self) -> &[u8] {
        self.path.as_bytes()
    }
    fn header(&self, _: &str) -> Option<Cow<'_, [u8]>> {
        None
    }
}

impl CallView for Call {
    fn peer(&self) -> Option<PeerNames<'_>> {
        self.tls.then_some(PeerNames {
            uris: &self.uris,
            dns: &[],
            subject: self.subject,
        })
    }
    fn direct_remote(&self) -> IpAddr {
        self.remote
    }
    fn remote(&self) -> IpAddr {
        self.remote
    }
    fn destination(&self) -> SocketAddr {
        ([10, 0, 0, 2], self.port).into()
    }
    fn server_name(&self) -> &'static str {
        ""
    }
    fn claims(&self, name: &str) -> Option<&Claim> {
        self.claims.as_ref().filter(|_| name == "payload")
    }
}

fn identity(name: &str) -> Rule<Principal> {
    Rule::Is(Principal::Authenticated(Some(StringMatcher::exact(name))))
}

fn matching(pattern: StringMatch) -> StringMatcher {
    StringMatcher {
        pattern,
        ignore_case: false,
    }
}

fn path(pattern: StringMatch) -> Rule<Permission> {
    Rule::Is(Permission::UrlPath(matching(pattern)))
}

fn method(name: &str) -> Rule<Permission> {
    Rule::Is(Permission::Header(HeaderMatcher {
        name: ":method".into(),
        condition: ValueCondition::Matches(StringMatcher::exact(name)),
        invert: false,
        missing_is_empty: false,
    }))
}

fn rules(action: Action, policies: Vec<Policy>) -> Rules {
    let named = policies.into_iter().enumerate();
    Rules::compile(
        action,
        named
            .map(|(at, policy)| (format!("policy {at:03}").into(), policy))
            .collect(),
    )
}

fn policy(principal: Rule<Principal>, permission: Rule<Permission>) -> Policy {
    Policy {
        permissions: vec![permission],
        principals: vec![principal],
    }
}

/// The obvious reading: every policy, in the order of names, with sets spelled out.
fn slowly(rules: &Rules, call: &Call) -> Option<usize> {
    fn rule<L>(it: &Rule<L>, leaf: &impl Fn(&L) -> bool) -> bool {
        match it {
            Rule::Any => true,
            Rule::And(all) => {
                for one in all {
                    if !rule(one, leaf) {
                        return false;
                    }
                }
                true
            }
            Rule::Or(all) => {
                for one in all {
                    if rule(one, leaf) {
                        return true;
                    }
                }
                false
            }
            Rule::Not(one) => !rule(one, leaf),
            Rule::Is(it) => leaf(it),
        }
    }
    rules.policies().iter().position(|(_, policy)| {
        let who = |it: &Rule<Principal>| rule(it, &|leaf: &Principal| leaf.holds(call));
        let what = |it: &Rule<Permission>| rule(it, &|leaf: &Permission| leaf.holds(call));
        policy.principals.iter().any(who) && policy.permissions.iter().any(what)
    })
}

const NAMES: [&str; 4] = [
    "spiffe://cluster.local/ns/clinic/sa/portal",
    "spiffe://cluster.local/ns/clinic/sa/records",
    "spiffe://cluster.local/ns/lab/sa/portal",
    "CN=portal",
];

const PATHS: [&str; 9] = [
    "/",
    "/a",
    "/a/",
    "/a/b",
    "/a/b?c=/a",
    "/ab",
    "/records/17/notes",
    "/records/18#x",
    "",
];

fn any_rule<L: Clone + std::fmt::Debug + 'static>(leaf: BoxedStrategy<L>) -> BoxedStrategy<Rule<L>> {
    prop_oneof![1 => Just(Rule::Any), 6 => leaf.prop_map(Rule::Is)]
        .prop_recursive(3, 12, 3, |inner| {
            prop_oneof![
                3 => vec(inner.clone(), 1..4).prop_map(Rule::And),
                3 => vec(inner.clone(), 1..4).prop_map(Rule::Or),
                1 => inner.prop_map(|it| Rule::Not(Box::new(it))),
            ]
        })
        .boxed()
}

fn any_policy() -> BoxedStrategy<Policy> {
    let text = || select(PATHS[..8].to_vec()).prop_map(Text::from);
    let paths = prop_oneof![
        text().prop_map(StringMatch::Exact),
        text().prop_map(StringMatch::Prefix),
        text().prop_map(StringMatch::Suffix),
    ];
    let permission = prop_oneof![
        4 => (paths, any::<bool>()).prop_map(|(pattern, ignore_case)| {
            Permission::UrlPath(StringMatcher { pattern, ignore_case })
        }),
        1 => select(vec!["/a/{*}", "/records/{*}/notes", "/{**}"])
            .prop_map(|it| Permission::UriTemplate(UriTemplate::parse(it).unwrap())),
        1 => select(vec![80, 8080]).prop_map(Permission::DestinationPort),
    ];
    let principal = prop_oneof![
        4 => select(NAMES.to_vec()).prop_map(|it| Principal::Authenticated(Some(StringMatcher::exact(it)))),
        2 => select(vec![".*/ns/clinic/.*", ".*/ns/lab/.*", ".*/sa/portal"]).prop_map(|it| {
            let regex = StringMatch::Regex(Regex::new(it).unwrap());
            Principal::Authenticated(Some(matching(regex)))
        }),
        1 => Just(Principal::Authenticated(None)),
        1 => Just(Principal::DirectRemoteIp("10.0.0.1/32".parse().unwrap())),
    ];
    (
        vec(any_rule(permission.boxed()), 1..3),
        vec(any_rule(principal.boxed()), 1..3),
    )
        .prop_map(|(permissions, principals)| Policy {
            permissions,
            principals,
        })
        .boxed()
}

proptest! {
    #[test]
    fn the_index_finds_the_first_policy_that_applies(
        policies in vec(any_policy(), 0..12),
        calls in vec((any::<bool>(), vec(select(NAMES[..3].to_vec()), 0..3), option::of(Just("CN=portal")),
            select(PATHS.to_vec()), select(vec![80_u16, 8080])), 8),
        action in select(vec![Action::Allow, Action::Deny, Action::Log]),
    ) {
        let rules = rules(action, policies);
        for (tls, uris, subject, path, port) in calls {
            let call = Call {
                tls,
                uris: uris.into_iter().map(Text::from).collect(),
                subject: subject.unwrap_or(""),
                path: path.to_owned(),
                port,
                ..Call::default()
            };
            let expected = slowly(&rules, &call);
            let outcome = rules.evaluate(&call);
            prop_assert_eq!(outcome.policy, expected, "{:?}", call);
            prop_assert_eq!(outcome.allowed, match action {
                Action::Allow => expected.is_some(),
                Action::Deny => expected.is_none(),
                Action::Log => true,
            });
        }
    }
}

#[test]
fn allow_without_policies_refuses_and_deny_passes() {
    let call = Call::default();
    assert!(!rules(Action::Allow, vec![]).evaluate(&call).allowed);
    assert!(rules(Action::Deny, vec![]).evaluate(&call).allowed);
    assert!(rules(Action::Log, vec![]).evaluate(&call).allowed);
}

#[test]
fn the_first_by_name_counts_and_its_name_loses_its_spaces() {
    let everyone = || policy(Rule::Any, Rule::Any);
    let rules = rules(Action::Deny, vec![everyone(), everyone()]);
    let outcome = rules.evaluate(&Call::default());
    assert_eq!((outcome.allowed, outcome.policy), (false, Some(0)));
    assert_eq!(
        &**rules.details(outcome.policy),
        "rbac_access_denied_matched_policy[policy_000]"
    );
    assert_eq!(&**rules.details(None), "rbac_access_denied_matched_policy[none]");
}

#[test]
fn plaintext_is_nobody_and_a_certificate_without_that_name_neither() {
    let anybody = policy(Rule::Is(Principal::Authenticated(None)), Rule::Any);
    let portal = policy(identity(NAMES[0]), Rule::Any);
    let subject = policy(identity("CN=portal"), Rule::Any);
    let rules = rules(Action::Allow, vec![portal, subject, anybody]);
    let found = |call: &Call| rules.evaluate(call).policy;
    assert_eq!(found(&Call::default()), Some(0));
    let plain = Call {
        tls: false,
        ..Call::default()
    };
    assert_eq!(found(&plain), None);
    let other = Call {
        uris: vec![NAMES[1].into()],
        ..Call::default()
    };
    assert_eq!(found(&other), Some(2));
    let by_subject = Call {
        uris: vec![],
        subject: "CN=portal",
        ..Call::default()
    };
    assert_eq!(found(&by_subject), Some(1));
}

#[test]
fn paths_are_compared_without_query_and_a_call_without_path_has_none() {
    let exact = policy(Rule::Any, path(StringMatch::Exact("/a".into())));
    let below = policy(Rule::Any, path(StringMatch::Prefix("/a/".into())));
    let rules = rules(Action::Allow, vec![exact, below]);
    let found = |path: &str| {
        let call = Call {
            path: path.into(),
            ..Call::default()
        };
        rules.evaluate(&call).policy
    };
    assert_eq!(found("/a"), Some(0));
    assert_eq!(found("/a?x=/a/"), Some(0));
    assert_eq!(found("/a/x"), Some(1));
    assert_eq!(found("/ab"), None);
    assert_eq!(found(""), None);
}

#[test]
fn templates_take_whole_segments() {
    let matches = |template: &str, path: &str| {
        UriTemplate::parse(template)
            .unwrap()
            .regex
            .is_full_match(path.as_bytes())
    };
    assert!(matches("/a/{*}/b", "/a/x/b"));
    assert!(!matches("/a/{*}/b", "/a/x/y/b"));
    assert!(!matches("/a/{*}/b", "/a//b"));
    assert!(matches("/a/{**}", "/a/x/y"));
    assert!(matches("/a/{**}", "/a/"));
    assert!(!matches("/a.b", "/aXb"));
    for wrong in ["a/{*}", "/a/x*", "/a/{**}/{*}", "/a/{b}"] {
        assert!(UriTemplate::parse(wrong).is_err(), "{wrong}");
    }
}

/// A call may be evaluated against few policies only, however many there are for other peers and paths.
#[test]
fn policies_for_others_are_not_looked_at() {
    let many: Vec<_> = (0..500)
        .map(|at| {
            let who = identity(&format!("spiffe://cluster.local/ns/clinic/sa/s{}", at % 50));
            let what = path(StringMatch::Prefix(format!("/records/{at}/").into()));
            policy(
                Rule::And(vec![Rule::Or(vec![who])]),
                Rule::And(vec![Rule::Or(vec![method("GET")]), Rule::Or(vec![what])]),
            )
        })
        .collect();
    let rules = rules(Action::Allow, many);
    let call = Call {
        uris: vec!["spiffe://cluster.local/ns/clinic/sa/s7".into()],
        path: "/records/407/notes".into(),
        ..Call::default()
    };
    let looked = std::cell::Cell::new(0);
    let found = rules.index.first(&call, |at| {
        looked.set(looked.get() + 1);
        rules.policies[at].1.applies(&call)
    });
    assert_eq!(found, Some(407));
    assert_eq!(looked.get(), 1);
}
