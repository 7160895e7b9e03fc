//! The plain reading of Istio's `AuthorizationPolicy`: each field by the sentence that documents it, nothing compiled, nothing
//! indexed. It knows one HTTP port of one workload.

use std::net::IpAddr;

use ipnet::IpNet;
use rajut_config::model::{
    AuthorizationAction, AuthorizationCondition as When, AuthorizationOperation, AuthorizationPolicy,
    AuthorizationRule, AuthorizationSource, PathPattern, ServiceAccountName, Values, Wild,
};

/// A call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts {
    /// Namespace and service account; `None`: plain text.
    pub(super) caller: Option<(&'static str, &'static str)>,
    pub(super) ip: IpAddr,
    /// `x-a`
    pub(super) header: Option<&'static str>,
    /// As it is judged.
    pub(super) path: &'static str,
    pub(super) method: &'static str,
    pub(super) host: &'static str,
    pub(super) sni: &'static str,
    /// Subject and role.
    pub(super) token: Option<(&'static str, &'static str)>,
    pub(super) port: u16,
}

/// Refused by one that refuses; else let through if none lets some through, or one lets this through.
pub(super) fn allowed(policies: &[AuthorizationPolicy], facts: &Facts) -> bool {
    let of = |action| policies.iter().filter(move |policy| policy.action == action);
    let matches = |policy: &AuthorizationPolicy| policy.rules.iter().any(|rule| facts.rule(rule));
    if of(AuthorizationAction::Deny).any(matches) {
        return false;
    }
    let mut allow = of(AuthorizationAction::Allow).peekable();
    allow.peek().is_none() || allow.any(matches)
}

/// One of `any` or there are none, and none of `none`.
fn values<T>(values: &Values<T>, holds: impl Fn(&T) -> bool) -> bool {
    (values.any.is_empty() || values.any.iter().any(&holds)) && !values.none.iter().any(&holds)
}

fn wild(pattern: &Wild, text: &str) -> bool {
    match pattern {
        Wild::Exact(own) => **own == *text,
        Wild::Prefix(own) => text.starts_with(&**own),
        Wild::Suffix(own) => text.ends_with(&**own),
        Wild::Present => !text.is_empty(),
    }
}

fn path(pattern: &PathPattern, text: &str) -> bool {
    let template = match pattern {
        PathPattern::Wild(pattern) => return wild(pattern, text),
        PathPattern::Template(template) => template,
    };
    let mut given = text.split('/');
    for segment in template.split('/') {
        if segment == "{**}" {
            return given.next().is_some();
        }
        match given.next() {
            Some(given) if segment == given || segment == "{*}" && !given.is_empty() => {}
            _ => return false,
        }
    }
    given.next().is_none()
}

impl Facts {
    fn principal(&self) -> String {
        let caller = self.caller;
        caller.map_or_else(String::new, |(namespace, name)| {
            format!("cluster.local/ns/{namespace}/sa/{name}")
        })
    }

    fn request_principal(&self) -> String {
        self.token
            .map_or_else(String::new, |(subject, _)| format!("me/{subject}"))
    }

    fn namespace(&self) -> &str {
        self.caller.map_or("", |(namespace, _)| namespace)
    }

    fn is_account(&self, account: &ServiceAccountName) -> bool {
        self.caller == Some((&*account.namespace, &*account.name))
    }

    fn is_in(&self, net: &IpNet) -> bool {
        net.contains(&self.ip)
    }

    fn rule(&self, rule: &AuthorizationRule) -> bool {
        (rule.sources.is_empty() || rule.sources.iter().any(|it| self.source(it)))
            && (rule.operations.is_empty() || rule.operations.iter().any(|it| self.operation(it)))
            && rule.conditions.iter().all(|it| self.condition(it))
    }

    fn source(&self, source: &AuthorizationSource) -> bool {
        values(&source.principals, |it| wild(it, &self.principal()))
            && values(&source.namespaces, |it| wild(it, self.namespace()))
            && values(&source.service_accounts, |it| self.is_account(it))
            && values(&source.ip_blocks, |it| self.is_in(it))
            && values(&source.remote_ip_blocks, |it| self.is_in(it))
            && values(&source.request_principals, |it| {
                wild(it, &self.request_principal())
            })
            && source.trust_domains.is_empty()
    }

    fn operation(&self, operation: &AuthorizationOperation) -> bool {
        let host = self.host.to_lowercase();
        let is_host = |it: &Wild| match it {
            Wild::Exact(own) => *own.to_lowercase() == *host,
            Wild::Prefix(own) => host.starts_with(&own.to_lowercase()),
            Wild::Suffix(own) => host.ends_with(&own.to_lowercase()),
            Wild::Present => true,
        };
        values(&operation.hosts, is_host)
            && values(&operation.ports, |it| *it == self.port)
            && values(&operation.methods, |it| wild(it, self.method))
            && values(&operation.paths, |it| path(it, self.path))
    }

    fn condition(&self, condition: &When) -> bool {
        match condition {
            When::Header(name, of) => {
                assert_eq!(&**name, "x-a");
                // Present is enough for `*`, whatever it holds.
                values(of, |it| {
                    self.header.is_some_and(|value| match it {
                        Wild::Present => true,
                        other => wild(other, value),
                    })
                })
            }
            When::SourceIp(of) | When::RemoteIp(of) => values(of, |it| self.is_in(it)),
            When::SourceNamespace(of) => values(of, |it| wild(it, self.namespace())),
            When::SourcePrincipal(of) => values(of, |it| wild(it, &self.principal())),
            When::DestinationPort(of) => values(of, |it| *it == self.port),
            When::ServerName(of) => values(of, |it| wild(it, self.sni)),
            When::Claim(name, of) => {
                assert_eq!(&*name[0], "role");
                let claims = self.token.map(|(_, role)| [role, "x"]);
                values(of, |it| {
                    claims.is_some_and(|claims| claims.iter().any(|claim| wild(it, claim)))
                })
            }
            When::SourceServiceAccount(of) => values(of, |it| self.is_account(it)),
            When::RequestPrincipal(of) => values(of, |it| wild(it, &self.request_principal())),
            When::SourceTrustDomain(_) | When::DestinationIp(_) => unreachable!("not drawn"),
        }
    }
}
