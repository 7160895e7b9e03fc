//! The end of the way: what the policies of the workload that is called make of a request, as its sidecar judges it ([`crate::judge`]).
//!
//! A token is read where the workload's issuers say that it stands, and taken at its word. The request is the one that the route sends on:
//! its path and host rewritten, its headers changed. What it does not do: headers that sidecars write themselves, `%VARIABLES%` of
//! headers that routes set, the policies of gateways.

use base64::Engine;
use rajut_config::model::Workload;
use rajut_ir::{
    decide::{Chosen, ChosenCluster, RouteTable},
    jwt::Claim,
    route::{AppendAction, HeaderMutations, HostRewrite, RouteActionKind},
};
use rajut_types::Text;

use super::{Call, Way};
use crate::judge::{self, Because, Judge, Token};

/// The request as the chosen route sends it on; `None` where it does not.
pub(super) fn sent(call: &Call, table: &RouteTable, chosen: &Chosen<'_>) -> Option<judge::Request> {
    let RouteActionKind::Forward(forward) = &chosen.route.action else {
        return None;
    };
    let rewritten = forward
        .path_rewrite
        .as_ref()
        .and_then(|rewrite| rewrite.apply(call.path.as_bytes(), &chosen.route.matches.path));
    let path = rewritten.map_or_else(
        || call.path.clone(),
        |path| String::from_utf8_lossy(&path).into_owned(),
    );
    let mut headers: Vec<(Text, Text)> = call
        .headers
        .iter()
        .filter(|(name, _)| *name != "host")
        .map(|(name, value)| (name.as_str().into(), value.as_str().into()))
        .collect();
    let mut host = match &forward.host_rewrite {
        Some(HostRewrite::Literal(host)) => Some(host.clone()),
        Some(HostRewrite::Header(name)) => call.headers.get(&**name).map(|value| value.as_str().into()),
        Some(HostRewrite::Auto) | None => None,
    };
    if let ChosenCluster::Weighted(weighted) = &chosen.cluster {
        change(&mut headers, &weighted.headers);
        host = weighted.host_rewrite.clone().or(host);
    }
    change(&mut headers, &chosen.route.headers);
    change(&mut headers, &chosen.virtual_host.headers);
    change(&mut headers, &table.configuration().headers);
    Some(judge::Request {
        method: call.method.as_str().into(),
        authority: host.unwrap_or_else(|| call.authority.as_str().into()),
        path: path.into(),
        headers,
        token: None,
    })
}

fn change(headers: &mut Vec<(Text, Text)>, changes: &HeaderMutations) {
    headers.retain(|(name, _)| !changes.request_remove.contains(name));
    for set in &changes.request_set {
        let there = headers.iter().any(|(name, _)| *name == set.name);
        let wanted = match set.append {
            AppendAction::Append => true,
            AppendAction::AddIfAbsent => !there,
            AppendAction::Overwrite => {
                headers.retain(|(name, _)| *name != set.name);
                true
            }
            AppendAction::OverwriteIfExists => {
                headers.retain(|(name, _)| *name != set.name);
                there
            }
        };
        if wanted {
            headers.push((set.name.clone(), set.value.clone()));
        }
    }
}

impl Way<'_> {
    /// What the workload makes of the call. `server_name`: of TLS, if there is any.
    pub(super) fn policies(
        &mut self,
        workload: &Workload,
        port: u16,
        server_name: Option<Text>,
        reaches: &str,
    ) {
        if workload.gateway.is_some() {
            self.say("policies", "those of gateways are not judged here", None);
            self.end(true, reaches);
            return;
        }
        let mut judge = Judge::new(self.snapshot);
        let mut request = self.sent.take();
        if let Some(request) = &mut request {
            let view = self
                .snapshot
                .workload_view(&workload.namespace, &workload.name, &workload.labels);
            let rules = view.tokens.iter().flat_map(|it| &it.rules);
            request.token = rules
                .map(|rule| token(rule, request))
                .find(Option::is_some)
                .flatten();
        }
        let identity = server_name
            .is_some()
            .then(|| self.proxy.principal.spiffe_id().into());
        let call = judge::Call {
            identity,
            address: self
                .proxy
                .addresses
                .first()
                .copied()
                .unwrap_or(judge::UNKNOWN_ADDRESS),
            client: None,
            destination: std::net::SocketAddr::new(workload.address, port),
            server_name: server_name.unwrap_or_default(),
            request,
        };
        let (verdict, looks) = judge.explain(workload, &call);
        for look in looks {
            self.say(look.stage, look.text, look.origin.as_ref());
        }
        let text = match (&verdict.because, verdict.allowed) {
            (because @ (Because::Rule { .. } | Because::NotAllowed), false) => {
                format!("refused (403) {because}")
            }
            (because @ Because::Token { .. }, false) => format!("refused (401): {because}"),
            (because, false) => format!("refused: {because}"),
            (Because::Unguarded, true) => format!("{reaches}; no policy is about it"),
            (because @ Because::Rule { .. }, true) => format!("{reaches}, let through {because}"),
            (because, true) => format!("{reaches}, {because}"),
        };
        self.end(verdict.allowed, text);
        self.found.access = Some(verdict);
    }
}

/// The token where an issuer's are looked for: in its headers and parameters, or where they stand if it names none.
fn token(rule: &rajut_config::model::JwtRule, request: &judge::Request) -> Option<Token> {
    let nowhere = rule.from_headers.is_empty() && rule.from_params.is_empty() && rule.from_cookies.is_empty();
    let bearer = [("authorization".into(), "Bearer ".into())];
    let parameter = ["access_token".into()];
    let (headers, parameters): (&[(Text, Text)], &[Text]) = if nowhere {
        (&bearer, &parameter)
    } else {
        (&rule.from_headers, &rule.from_params)
    };
    let in_headers = headers.iter().find_map(|(name, before)| {
        let mut own = request.headers.iter().filter(|(own, _)| own == name);
        own.find_map(|(_, value)| value.split_once(&**before).map(|(_, token)| token))
    });
    let in_query = || {
        let (_, query) = request.path.split_once('?')?;
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.find_map(|(key, value)| parameters.iter().any(|name| **name == *key).then_some(value))
    };
    let in_cookies = || {
        let mut own = request.headers.iter().filter(|(name, _)| &**name == "cookie");
        own.find_map(|(_, value)| {
            let mut pairs = value.split(';').filter_map(|pair| pair.trim().split_once('='));
            pairs.find_map(|(key, value)| {
                rule.from_cookies
                    .iter()
                    .any(|name| **name == *key)
                    .then_some(value)
            })
        })
    };
    let text = in_headers.or_else(in_query).or_else(in_cookies)?;
    Some(claims(text).map_or(Token::Invalid, Token::Good))
}

/// What a token says of itself.
fn claims(token: &str) -> Option<Claim> {
    let [_, payload, _] = token.split('.').collect::<Vec<_>>()[..] else {
        return None;
    };
    let json = base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(payload)
        .ok()?;
    Claim::parse(&json)
}
