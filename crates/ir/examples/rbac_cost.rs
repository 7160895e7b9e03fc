//! What a decision of access control costs: evaluates calls against as many policies as asked for, to be counted with
//! callgrind. `cargo run --release -p rajut-ir --example rbac_cost -- POLICIES CALLS`; the difference between two
//! numbers of calls, divided by it, is the cost of one.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    hint::black_box,
    net::{IpAddr, SocketAddr},
};

use rajut_ir::{
    decide::RequestView,
    matcher::{HeaderMatcher, StringMatch, StringMatcher, ValueCondition},
    rbac::{Action, CallView, PeerNames, Permission, Policy, Principal, Rule, Rules},
};
use rajut_types::Text;

struct Call {
    uris: Vec<Text>,
    path: &'static str,
}

impl RequestView for Call {
    fn method(&self) -> &[u8] {
        b"GET"
    }
    fn scheme(&self) -> &[u8] {
        b"https"
    }
    fn authority(&self) -> &[u8] {
        b"records.clinic"
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
        Some(PeerNames {
            uris: &self.uris,
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
        ""
    }
}

/// As Istio writes them: one peer, one method, one path each. The last is the one that applies.
fn rules(count: usize) -> Rules {
    let policies: BTreeMap<Text, Policy> = (0..count)
        .map(|at| {
            let who = format!("spiffe://cluster.local/ns/clinic/sa/caller-{}", count - 1 - at);
            let method = Rule::Is(Permission::Header(HeaderMatcher {
                name: ":method".into(),
                condition: ValueCondition::Matches(StringMatcher::exact("GET")),
                invert: false,
                missing_is_empty: false,
            }));
            let path = Rule::Is(Permission::UrlPath(StringMatcher {
                pattern: StringMatch::Prefix(format!("/records/{}/", count - 1 - at).into()),
                ignore_case: false,
            }));
            let who = Rule::Is(Principal::Authenticated(Some(StringMatcher::exact(who))));
            let policy = Policy {
                permissions: vec![Rule::And(vec![Rule::Or(vec![method]), Rule::Or(vec![path])])],
                principals: vec![Rule::And(vec![Rule::Or(vec![who])])],
            };
            (format!("ns[clinic]-policy[p{at:04}]-rule[0]").into(), policy)
        })
        .collect();
    Rules::compile(Action::Allow, policies)
}

fn main() {
    let mut numbers = std::env::args().skip(1).filter_map(|it| it.parse().ok());
    let (policies, calls) = (numbers.next().unwrap_or(7), numbers.next().unwrap_or(1000));
    let rules = rules(policies);
    let call = Call {
        uris: vec!["spiffe://cluster.local/ns/clinic/sa/caller-0".into()],
        path: "/records/0/notes?page=1",
    };
    for _ in 0..calls {
        assert!(black_box(rules.evaluate(black_box(&call))).allowed);
    }
}
