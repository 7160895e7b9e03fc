//! Tokens of requests: found, verified, and told to those that follow. Source: Envoy `envoy.filters.http.jwt_authn`.
//!
//! A request is looked at once: which providers find tokens, which of these are good ([`verify`](self::verify)), and whether that
//! fulfils the [`Requirement`]. Only then is it changed: what good tokens say goes into headers and to access control, and the tokens
//! are taken out. A refused request loses its tokens, too, so that no line of a log has them; the answer says why in Envoy's words.
//!
//! What is stricter than in Envoy: every token that a provider finds must be good, also a second one of a parameter or cookie; a
//! token in a cookie is taken out as those in headers and parameters are; headers that tell claims are taken from every request first,
//! whichever provider they belong to; tokens longer than [`token::TOKEN_MAX`], with a critical extension (RFC 7515 §4.1.11) or with a
//! claim twice are none.
//!
//! Bounds: [`TOKENS_MAX`] tokens of a provider in one request. Nothing is kept between requests: an elliptic curve's signature
//! costs some 50 µs, an RSA one less.

mod keys;
mod locate;
mod token;
mod verify;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use rajut_codec::Method;
use rajut_ir::jwt::{Claim, JwtAuthn, JwtProvider, Requirement};
use rajut_types::Text;

use self::{keys::KeySet, locate::Found, verify::Verified};
use crate::{
    failure::{Failure, FailureKind, TokenFault},
    http::record::Record,
    stats::{JwtCounter, JwtStats, Registry},
};

/// Tokens that one provider looks at in one request; with more it is refused.
const TOKENS_MAX: usize = 8;

/// The filter of a chain, with its keys and counters.
#[derive(Debug)]
pub(crate) struct Guard {
    ir: Arc<JwtAuthn>,
    /// In the order of the names.
    keys: BTreeMap<Text, KeySet>,
    /// Headers that verified tokens alone may set.
    told_in: Vec<Text>,
    stats: Arc<JwtStats>,
}

/// What verified tokens say, by the name that providers give it. One entry per name, few in all.
#[derive(Debug, Default)]
pub(crate) struct Told(Vec<(Text, Arc<Claim>)>);

impl Told {
    /// What is said under that name.
    pub(crate) fn get(&self, name: &str) -> Option<&Claim> {
        let found = self.0.iter().find(|(known, _)| **known == *name);
        found.map(|(_, claims)| &**claims)
    }

    /// Who has issued what is said.
    pub(crate) fn issuers(&self) -> impl Iterator<Item = &Text> {
        self.0.iter().filter_map(|(_, claims)| claims.at(["iss"])?.text())
    }

    fn set(&mut self, name: &Text, claims: Arc<Claim>) {
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some((_, known)) => *known = claims,
            None => self.0.push((name.clone(), claims)),
        }
    }
}

/// What a provider says of a request.
type Verdict = Result<Vec<(Found, Verified)>, TokenFault>;

/// A request that is looked at.
struct Look<'g, 'r> {
    guard: &'g Guard,
    record: &'r Record,
    now: u64,
    /// What providers said already.
    known: BTreeMap<&'g str, Verdict>,
}

impl Guard {
    /// `prefix` is the connection manager's prefix of statistics.
    pub(super) fn new(ir: &Arc<JwtAuthn>, prefix: &Text, registry: &Registry) -> Self {
        let keys = |provider: &JwtProvider| {
            let keys = KeySet::parse(&provider.jwks);
            if keys.is_empty() {
                tracing::warn!(issuer = %provider.issuer, "there are no keys of this issuer: its tokens are refused");
            }
            keys
        };
        let providers = ir.providers.iter();
        let mut told_in: Vec<Text> = providers
            .clone()
            .flat_map(|(_, it)| it.told_in().cloned())
            .collect();
        told_in.sort();
        told_in.dedup();
        Self {
            keys: providers.map(|(name, it)| (name.clone(), keys(it))).collect(),
            told_in,
            stats: registry.jwt(prefix),
            ir: ir.clone(),
        }
    }

    /// Lets a request pass or says why not. `true`: what its token says may choose another route.
    pub(super) fn judge(&self, record: &mut Record) -> Result<bool, Failure> {
        for header in &self.told_in {
            record.head.fields.remove(&**header);
        }
        let worker = record.shared.worker.index;
        if self.ir.bypass_cors_preflight && is_preflight(record) {
            self.stats.add(worker, JwtCounter::PreflightBypassed);
            self.stats.add(worker, JwtCounter::Allowed);
            return Ok(false);
        }
        let now = seconds();
        let mut look = Look {
            guard: self,
            record,
            now,
            known: BTreeMap::new(),
        };
        let judged = match &self.ir.requirement {
            Some(requirement) => look.fulfils(requirement),
            None => Ok(Vec::new()),
        };
        match judged {
            Ok(names) => {
                let mut known = look.known;
                let good = names.into_iter().filter_map(|name| {
                    let provider = self.ir.providers.get(name)?;
                    Some((provider, known.remove(name)?.ok()?))
                });
                let good: Vec<_> = good.collect();
                let mut reroutes = false;
                for (provider, verified) in good {
                    reroutes |= provider.clear_route_cache;
                    tell(record, provider, verified);
                }
                self.stats.add(worker, JwtCounter::Allowed);
                Ok(reroutes)
            }
            Err(fault) => {
                self.stats.add(worker, JwtCounter::Denied);
                Err(self.refuse(record, fault))
            }
        }
    }

    /// The refusal of a request, whose tokens nobody sees after this.
    fn refuse(&self, record: &mut Record, fault: TokenFault) -> Failure {
        let mut in_query = false;
        for provider in self.ir.providers.values() {
            for found in locate::find(provider, record).unwrap_or_default() {
                in_query |= matches!(found, Found::Param { .. });
                found.take_out(record);
            }
        }
        Failure::from(FailureKind::TokenRefused { fault, in_query })
    }
}

impl<'g> Look<'g, '_> {
    /// The providers whose tokens fulfil the requirement.
    fn fulfils(&mut self, requirement: &'g Requirement) -> Result<Vec<&'g str>, TokenFault> {
        match requirement {
            Requirement::Provider(name) => self.provider(name).map(|()| vec![&**name]),
            Requirement::All(of) => {
                let mut names = Vec::new();
                for requirement in of {
                    for name in self.fulfils(requirement)? {
                        if !names.contains(&name) {
                            names.push(name);
                        }
                    }
                }
                Ok(names)
            }
            Requirement::Any(of) => {
                let mut fault: Option<TokenFault> = None;
                let mut all_missing = true;
                for requirement in of.iter().filter(|it| **it != Requirement::AllowMissing) {
                    match self.fulfils(requirement) {
                        Ok(names) => return Ok(names),
                        Err(found) => {
                            all_missing &= found == TokenFault::Missing;
                            // What is wrong with a token of this issuer says more than that it is another's.
                            if fault.is_none_or(|fault| found.tells() >= fault.tells()) {
                                fault = Some(found);
                            }
                        }
                    }
                }
                if all_missing && of.contains(&Requirement::AllowMissing) {
                    return Ok(Vec::new());
                }
                Err(fault.unwrap_or(TokenFault::Missing))
            }
            Requirement::AllowMissing => Ok(Vec::new()),
        }
    }

    /// Whether a provider finds a good token and no bad one.
    fn provider(&mut self, name: &'g str) -> Result<(), TokenFault> {
        let (guard, record, now) = (self.guard, self.record, self.now);
        let verdict = self.known.entry(name).or_insert_with(|| {
            let provider = guard.ir.providers.get(name).ok_or(TokenFault::Missing)?;
            let keys = guard.keys.get(name).ok_or(TokenFault::NoKeys)?;
            let found = locate::find(provider, record).ok_or(TokenFault::TooMany)?;
            if found.is_empty() {
                return Err(TokenFault::Missing);
            }
            let verify = |found: Found| {
                let verified = verify::verify(found.token(), provider, keys, now)?;
                Ok((found, verified))
            };
            found.into_iter().map(verify).collect()
        });
        match verdict {
            Ok(_) => Ok(()),
            Err(fault) => Err(*fault),
        }
    }
}

/// Since 1970.
#[expect(
    clippy::disallowed_methods,
    reason = "tokens are valid by the calendar, and only a request that is to have one asks"
)]
fn seconds() -> u64 {
    let time = SystemTime::now().duration_since(UNIX_EPOCH);
    time.unwrap_or_default().as_secs()
}

/// What a good token says goes where the provider wants it, and the token goes.
fn tell(record: &mut Record, provider: &JwtProvider, verified: Vec<(Found, Verified)>) {
    for (found, verified) in verified {
        let fields = &mut record.head.fields;
        if !provider.payload_header.is_empty() {
            // A request that has no room for it would be refused further on.
            let _ = fields.append(&*provider.payload_header, &verified.payload);
        }
        for (header, claim) in &provider.claim_headers {
            let value = verified.claims.at(claim.split('.')).and_then(verify::as_header);
            if let Some(value) = value {
                // A text that no header can hold is not told.
                let _ = fields.append(&**header, value.as_bytes());
            }
        }
        if !provider.forward {
            found.take_out(record);
        }
        if !provider.metadata.is_empty() {
            let claims = verified.claims.with_words(&provider.space_delimited);
            record.filters.told.set(&provider.metadata, Arc::new(claims));
        }
    }
}

/// Source: Fetch, "CORS-preflight request".
fn is_preflight(record: &Record) -> bool {
    let says = |name: &str| {
        record
            .head
            .fields
            .get(name)
            .is_some_and(|value| !value.is_empty())
    };
    record.head.method == Method::Options && says("origin") && says("access-control-request-method")
}

#[cfg(test)]
mod tests;
