//! Request authentication as what the HTTP ports of a workload verify: one filter with a provider for each rule of all objects that
//! hold for the workload, before everything that asks for what tokens say.
//!
//! **What is required.** Of one rule: a token that it finds is valid, or there is none. Of several: one of them finds a valid
//! token; or all that find one find valid ones. Source: Istio `pilot/pkg/security/authn`, so that both data planes decide alike.
//!
//! **Keys** stand in the filter. Where they are not there yet, every token fails ([`NO_KEYS`]).
//!
//! **Headers that tell claims** are for verified tokens alone. Envoy takes those of a provider from a request when that provider
//! looks for a token, which the others of several need not do; so each provider names the headers of all, with a claim that no
//! token has ([`NOTHING`]) where the header is another's.

use std::{collections::BTreeMap, sync::Arc};

use rajut_config::{
    key_set::NO_KEYS,
    model::{JwtRule, KeySource, RequestAuthentication},
    snapshot::Shared,
};
use rajut_ir::{
    filter::HttpFilter,
    http::HttpConnectionManager,
    jwt::{CLOCK_SKEW_DEFAULT, JwtAuthn, JwtProvider, Requirement},
    listener::{ChainAction, FilterChain},
};
use rajut_types::Text;

/// The name under which access control finds claims. Source: Istio.
pub(crate) const PAYLOAD: &str = "payload";
/// Claims that are lists of words to everybody. Source: Istio.
const WORDS: [&str; 2] = ["scope", "permission"];
/// A name that no issuer gives a claim: it is none that JSON's writers of tokens use.
const NOTHING: &str = "\u{1}";

/// The chain with the filter before all others.
pub(crate) fn verify(chain: Arc<FilterChain>, filter: Option<&HttpFilter>) -> Arc<FilterChain> {
    let (ChainAction::Http(manager), Some(filter)) = (&chain.action, filter) else {
        return chain;
    };
    let filters = std::iter::once(filter).chain(&manager.filters);
    let manager = HttpConnectionManager {
        filters: filters.cloned().collect(),
        ..(**manager).clone()
    };
    Arc::new(FilterChain {
        action: ChainAction::Http(Arc::new(manager)),
        ..(*chain).clone()
    })
}

/// The filter for these objects; `None`: nothing is verified. `reroutes`: routes ask for claims.
pub(crate) fn filter(
    objects: &[Shared<RequestAuthentication>],
    key_sets: &BTreeMap<KeySource, Text>,
    reroutes: bool,
) -> Option<HttpFilter> {
    let rules: Vec<&JwtRule> = objects.iter().flat_map(|object| &object.rules).collect();
    let mut providers: Vec<JwtProvider> = rules.iter().map(|rule| provider(rule, key_sets)).collect();
    for provider in &mut providers {
        provider.clear_route_cache = reroutes;
    }
    strip_each_others(&mut providers);
    let names: Vec<Text> = (0..providers.len())
        .map(|at| format!("origins-{at}").into())
        .collect();
    let requirement = requirement(&names)?;
    Some(HttpFilter::jwt_authn(JwtAuthn {
        providers: names.into_iter().zip(providers).collect(),
        requirement: Some(requirement),
        bypass_cors_preflight: true,
    }))
}

fn provider(rule: &JwtRule, key_sets: &BTreeMap<KeySource, Text>) -> JwtProvider {
    let jwks = match &rule.keys {
        KeySource::Inline(keys) => Some(keys),
        fetched => key_sets.get(fetched),
    };
    let mut words: Vec<Text> = WORDS.iter().map(|word| Text::from(*word)).collect();
    words.extend(
        rule.space_delimited
            .iter()
            .filter(|it| !WORDS.contains(&&***it))
            .cloned(),
    );
    JwtProvider {
        issuer: rule.issuer.clone(),
        audiences: rule.audiences.clone(),
        jwks: jwks.cloned().unwrap_or_else(|| NO_KEYS.into()),
        forward: rule.forward,
        from_headers: rule.from_headers.clone(),
        from_params: rule.from_params.clone(),
        from_cookies: rule.from_cookies.clone(),
        payload_header: rule.output_payload.clone().unwrap_or_default(),
        claim_headers: rule.output_claims.clone(),
        metadata: PAYLOAD.into(),
        space_delimited: words,
        clock_skew: CLOCK_SKEW_DEFAULT,
        clear_route_cache: false,
    }
}

fn strip_each_others(providers: &mut [JwtProvider]) {
    let told: Vec<Vec<Text>> = providers
        .iter()
        .map(|it| it.told_in().cloned().collect())
        .collect();
    for (at, provider) in providers.iter_mut().enumerate() {
        let others = told.iter().enumerate().filter(|(other, _)| *other != at);
        for header in others.flat_map(|(_, headers)| headers) {
            if provider.told_in().all(|own| own != header) {
                provider.claim_headers.push((header.clone(), NOTHING.into()));
            }
        }
    }
}

fn requirement(names: &[Text]) -> Option<Requirement> {
    let of = |name: &Text| Requirement::Provider(name.clone());
    let optional = |name: &Text| Requirement::Any(vec![of(name), Requirement::AllowMissing]);
    match names {
        [] => None,
        [one] => Some(optional(one)),
        several => {
            let all = Requirement::All(several.iter().map(optional).collect());
            Some(Requirement::Any(several.iter().map(of).chain([all]).collect()))
        }
    }
}
