//! The tables.

use serde_json::{Value, json};

use super::{
    Ask, Table, Wanted, denied,
    issuer::{ALGORITHMS, Issuer, b64, from_now},
    passes, refused, seen,
};

/// A `RequestAuthentication` of the namespace `lab` for `web`, with these rules.
pub(super) fn authentication(name: &str, rules: &[String]) -> String {
    format!(
        "---\napiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {{name: {name}, namespace: lab}}\n\
         spec:\n  selector: {{matchLabels: {{app: web}}}}\n  jwtRules:\n{}",
        rules.concat()
    )
}

/// A rule with keys in place. `more`: `, name: value`…
pub(super) fn rule(issuer: &str, keys: &str, more: &str) -> String {
    format!("  - {{issuer: '{issuer}', jwks: '{keys}'{more}}}\n")
}

fn policy(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: {name}, namespace: lab}}\n\
         spec:\n  selector: {{matchLabels: {{app: web}}}}\n{spec}\n"
    )
}

const ME: &str = "https://login.example/me";

fn claims() -> Value {
    json!({"iss": ME, "sub": "ann"})
}

pub(super) fn verified() -> Vec<Table> {
    vec![algorithms(), judged(), locations(), told(), several(), scopes()]
}

fn algorithms() -> Table {
    let issuers: Vec<Issuer> = ALGORITHMS.map(Issuer::new).into();
    let name = |issuer: &Issuer| format!("https://login.example/{}", issuer.algorithm);
    let rules: Vec<String> = issuers.iter().map(|it| rule(&name(it), &it.keys(), "")).collect();
    let mut rows = Vec::new();
    for (at, issuer) in issuers.iter().enumerate() {
        let claims = json!({"iss": name(issuer), "sub": "ann"});
        rows.push((issuer.algorithm, Ask::bearer(&issuer.token(&claims)), passes()));
        // Signed by another's key, under its own name.
        let other = &issuers[(at + 1) % issuers.len()];
        let head = json!({"alg": issuer.algorithm, "kid": "one"}).to_string();
        let forged = other.raw(&head, &claims.to_string());
        rows.push((issuer.algorithm, Ask::bearer(&forged), Wanted::Refused(401, "")));
    }
    Table {
        what: "every algorithm",
        objects: authentication("tokens", &rules),
        rows,
    }
}

fn judged() -> Table {
    let me = Issuer::new("RS256");
    let other = Issuer::new("RS256");
    let with = |more: Value| {
        let mut all = claims();
        for (name, value) in more.as_object().into_iter().flatten() {
            all[name] = value.clone();
        }
        all["aud"] = more.get("aud").cloned().unwrap_or_else(|| json!("web"));
        all
    };
    let token = |more: Value| Ask::bearer(&me.token(&with(more)));
    let good = me.token(&with(json!({})));
    let parts: Vec<&str> = good.split('.').collect();
    let raw = |head: Value, claims: &str| Ask::bearer(&me.raw(&head.to_string(), claims));
    let text = with(json!({})).to_string();
    let secret = {
        // The public key as if it were a shared secret.
        let signed = format!("{}.{}", b64(r#"{"alg":"HS256","kid":"one"}"#), b64(&text));
        format!(
            "{signed}.{}",
            b64(aws_lc_rs::hmac::sign(
                &aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, me.keys().as_bytes()),
                signed.as_bytes(),
            ))
        )
    };
    let rows: Vec<(&'static str, Ask, Wanted)> = vec![
        ("no token", Ask::at("/"), passes()),
        (
            "a good one",
            Ask::bearer(&good),
            seen(&["GET /"], &["authorization"]),
        ),
        (
            "other credentials",
            Ask::at("/").with("authorization", "Basic YTpi"),
            seen(&["authorization: Basic YTpi"], &[]),
        ),
        (
            "an empty one",
            Ask::at("/").with("authorization", "Bearer"),
            passes(),
        ),
        (
            "expired",
            token(json!({"exp": from_now(-100)})),
            refused("Jwt is expired"),
        ),
        (
            "expired within the clocks' difference",
            token(json!({"exp": from_now(-5)})),
            passes(),
        ),
        (
            "not yet",
            token(json!({"nbf": from_now(200)})),
            refused("Jwt not yet valid"),
        ),
        (
            "soon, within the clocks' difference",
            token(json!({"nbf": from_now(30)})),
            passes(),
        ),
        (
            "a time that is none",
            token(json!({"exp": "soon"})),
            refused("Jwt payload [exp] field is not an integer"),
        ),
        (
            "another issuer",
            token(json!({"iss": "https://login.example/you"})),
            refused("Jwt issuer is not configured"),
        ),
        (
            "an issuer with a slash more",
            token(json!({"iss": format!("{ME}/")})),
            refused("Jwt issuer is not configured"),
        ),
        (
            "another audience",
            token(json!({"aud": "db"})),
            Wanted::Refused(403, "Audiences in Jwt are not allowed"),
        ),
        (
            "one of several audiences",
            token(json!({"aud": ["db", "web"]})),
            passes(),
        ),
        (
            "no audience",
            token(json!({"aud": []})),
            Wanted::Refused(403, "Audiences in Jwt are not allowed"),
        ),
        (
            "another's signature",
            Ask::bearer(&other.token(&with(json!({})))),
            refused("Jwt verification fails"),
        ),
        (
            "another's claims",
            Ask::bearer(&format!(
                "{}.{}.{}",
                parts[0],
                b64(with(json!({"sub": "eve"})).to_string()),
                parts[2]
            )),
            refused("Jwt verification fails"),
        ),
        (
            "another key's name",
            raw(json!({"alg": "RS256", "kid": "two"}), &text),
            refused("Jwks doesn't have key to match kid or alg from Jwt"),
        ),
        ("no key's name", raw(json!({"alg": "RS256"}), &text), passes()),
        (
            "no algorithm",
            raw(json!({"kid": "one"}), &text),
            refused("Jwt header [alg] field is required and must be a string"),
        ),
        (
            "the algorithm none",
            raw(json!({"alg": "none"}), &text),
            refused("Jwt header [alg] is not supported"),
        ),
        (
            "none, unsigned",
            Ask::bearer(&format!("{}.{}.", b64(r#"{"alg":"none"}"#), parts[1])),
            refused("Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections"),
        ),
        (
            "another algorithm of the key",
            raw(json!({"alg": "RS512", "kid": "one"}), &text),
            refused("Jwt verification fails"),
        ),
        (
            "an algorithm of other keys",
            raw(json!({"alg": "ES256", "kid": "one"}), &text),
            refused("Jwt verification fails"),
        ),
        (
            "two parts",
            Ask::bearer(&format!("{}.{}", parts[0], parts[1])),
            refused("Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections"),
        ),
        (
            "four parts",
            Ask::bearer(&format!("{good}.a")),
            refused("Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections"),
        ),
        (
            "a head that is no base64",
            Ask::bearer(&format!("a+b.{}.{}", parts[1], parts[2])),
            refused("Jwt header is an invalid Base64url encoded"),
        ),
        (
            "a head that is no JSON",
            Ask::bearer(&format!("{}.{}.{}", b64("{"), parts[1], parts[2])),
            refused("Jwt header is an invalid JSON"),
        ),
        (
            "claims that are no JSON",
            Ask::bearer(&format!("{}.{}.{}", parts[0], b64("me"), parts[2])),
            refused("Jwt payload is an invalid JSON"),
        ),
        (
            "a signature that is no base64",
            Ask::bearer(&format!("{}.{}.!", parts[0], parts[1])),
            refused("Jwt signature is an invalid Base64url encoded"),
        ),
        (
            "a preflight",
            Ask {
                method: "OPTIONS",
                ..Ask::bearer("bad")
                    .with("origin", "http://a")
                    .with("access-control-request-method", "GET")
            },
            passes(),
        ),
        ("a shared secret", Ask::bearer(&secret), Wanted::Refused(401, "")),
    ];
    Table {
        what: "what makes a token a good one",
        objects: authentication("tokens", &[rule(ME, &me.keys(), ", audiences: [web]")]),
        rows,
    }
}

fn locations() -> Table {
    let me = Issuer::new("ES256");
    let rule = |at: &str, more: &str| rule(&format!("{ME}/{at}"), &me.keys(), more);
    let token = |at: &str| me.token(&json!({"iss": format!("{ME}/{at}"), "sub": "ann"}));
    let bad = "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections";
    let (header, raw, param, cookie, usual) = (
        token("header"),
        token("raw"),
        token("param"),
        token("cookie"),
        token("usual"),
    );
    let rows = vec![
        (
            "header",
            Ask::at("/").with("x-token", &format!("Token {header}")),
            seen(&[], &["x-token"]),
        ),
        (
            "header, another prefix",
            Ask::at("/").with("x-token", &format!("Bearer {header}")),
            seen(&[&format!("x-token: Bearer {header}")], &[]),
        ),
        (
            "header, bad",
            Ask::at("/").with("x-token", "Token a.b"),
            refused(bad),
        ),
        (
            "header without prefix",
            Ask::at("/").with("x-raw", &raw),
            seen(&[], &["x-raw"]),
        ),
        (
            "another's header",
            Ask::at("/").with("x-raw", &header),
            refused("Jwt issuer is not configured"),
        ),
        (
            "parameter",
            Ask::at(&format!("/a?b=1&token={param}&c=2")),
            seen(&["GET /a?b=1&c=2"], &[]),
        ),
        (
            "parameter alone",
            Ask::at(&format!("/a?token={param}")),
            seen(&["GET /a"], &[]),
        ),
        ("parameter, bad", Ask::at("/a?token=a.b"), refused(bad)),
        (
            "cookie",
            Ask::at("/").with("cookie", &format!("a=1; session={cookie}; b=2")),
            passes(),
        ),
        (
            "cookie, bad",
            Ask::at("/").with("cookie", "session=a.b"),
            refused(bad),
        ),
        (
            "the usual header",
            Ask::bearer(&usual),
            seen(&[], &["authorization"]),
        ),
        (
            "the usual parameter",
            Ask::at(&format!("/a?access_token={usual}")),
            seen(&["GET /a"], &[]),
        ),
        (
            "not where it is looked for",
            Ask::bearer(&header),
            refused("Jwt issuer is not configured"),
        ),
    ];
    Table {
        what: "where tokens stand",
        objects: authentication(
            "tokens",
            &[
                rule("header", ", fromHeaders: [{name: X-Token, prefix: 'Token '}]"),
                rule("raw", ", fromHeaders: [{name: x-raw}]"),
                rule("param", ", fromParams: [token]"),
                rule("cookie", ", fromCookies: [session]"),
                rule("usual", ""),
            ],
        ),
        rows,
    }
}

fn told() -> Table {
    let me = Issuer::new("EdDSA");
    let all = json!({
        "iss": ME, "sub": "ann", "exp": from_now(3600), "age": 42, "half": 0.5, "minus": -3, "yes": true, "list": ["a", "b"],
        "nested": {"team": "ward 3", "deep": {"er": "x"}}, "empty": "",
    });
    let token = me.token(&all);
    let payload = token.split('.').nth(1).unwrap_or_default().to_owned();
    let outputs = ", forwardOriginalToken: true, outputPayloadToHeader: X-Payload, outputClaimToHeaders: [\
        {header: X-Sub, claim: sub}, {header: x-age, claim: age}, {header: x-half, claim: half}, {header: x-yes, claim: yes}, \
        {header: x-team, claim: nested.team}, {header: x-deep, claim: nested.deep.er}, {header: x-none, claim: nothing}, \
        {header: x-minus, claim: minus}, {header: x-empty, claim: empty}]";
    let spoofed = |ask: Ask| {
        ask.with("x-sub", "root")
            .with("x-payload", "root")
            .with("x-none", "root")
            .with("x-empty", "root")
    };
    Table {
        what: "what the application is told",
        objects: authentication("tokens", &[rule(ME, &me.keys(), outputs)]),
        rows: vec![
            (
                "a good token",
                spoofed(Ask::bearer(&token)),
                seen(
                    &[
                        &format!("authorization: Bearer {token}"),
                        &format!("x-payload: {payload}"),
                        "x-sub: ann",
                        "x-age: 42",
                        "x-half: 0.500000",
                        "x-yes: true",
                        "x-team: ward 3",
                        "x-deep: x",
                        "x-minus: -3.000000",
                    ],
                    &["x-none", "x-empty"],
                ),
            ),
            (
                "no token, made-up headers",
                spoofed(Ask::at("/")),
                seen(&[], &["x-sub", "x-payload", "x-none", "x-empty"]),
            ),
        ],
    }
}

/// Several issuers, of which one need be satisfied.
fn several() -> Table {
    let (a, b) = (Issuer::new("ES256"), Issuer::new("ES256"));
    let token = |issuer: &Issuer, name: &str| issuer.token(&json!({"iss": name, "sub": "ann"}));
    let (of_a, of_b) = (token(&a, "a"), token(&b, "b"));
    let both = |one: &str, other: &str| Ask::bearer(one).with("x-b", other);
    Table {
        what: "several issuers",
        objects: authentication(
            "tokens",
            &[rule(
                "a",
                &a.keys(),
                ", outputClaimToHeaders: [{header: x-of-a, claim: sub}]",
            )],
        ) + &authentication(
            "more",
            &[rule(
                "b",
                &b.keys(),
                ", fromHeaders: [{name: x-b}, {name: authorization, prefix: 'Bearer '}], outputClaimToHeaders: [{header: x-of-b, claim: sub}]",
            )],
        ),
        rows: vec![
            ("none", Ask::at("/"), passes()),
            (
                "of one",
                Ask::bearer(&of_a).with("x-of-b", "eve"),
                seen(&["x-of-a: ann"], &["x-of-b"]),
            ),
            (
                "of the other",
                Ask::bearer(&of_b).with("x-of-a", "eve"),
                seen(&["x-of-b: ann"], &["x-of-a"]),
            ),
            (
                "of neither",
                Ask::bearer(&token(&a, "c")),
                refused("Jwt issuer is not configured"),
            ),
            (
                "under the other's name",
                Ask::bearer(&token(&a, "b")),
                refused("Jwt verification fails"),
            ),
            ("one good, one bad", both(&of_a, "x"), passes()),
            (
                "expired, of the first",
                Ask::bearer(&a.token(&json!({"iss": "a", "exp": from_now(-100)}))),
                refused("Jwt is expired"),
            ),
            (
                "expired, of the second",
                Ask::bearer(&b.token(&json!({"iss": "b", "exp": from_now(-100)}))),
                refused("Jwt is expired"),
            ),
        ],
    }
}

/// For whom an object holds.
fn scopes() -> Table {
    let issuers: Vec<Issuer> = (0..4).map(|_| Issuer::new("ES256")).collect();
    let of = |at: usize, name: &str| authentication(name, &[rule(name, &issuers[at].keys(), "")]);
    let token = |at: usize, name: &str| Ask::bearer(&issuers[at].token(&json!({"iss": name, "sub": "ann"})));
    let everywhere = |text: String| text.replace("  selector: {matchLabels: {app: web}}\n", "");
    let unknown = refused("Jwt issuer is not configured");
    Table {
        what: "objects of the mesh, the namespace and the workload hold together",
        objects: everywhere(of(0, "mesh")).replace("namespace: lab", "namespace: istio-system")
            + &everywhere(of(1, "lab"))
            + &of(2, "web")
            + &of(3, "nurse").replace("app: web", "app: nurse"),
        rows: vec![
            ("of the mesh", token(0, "mesh"), passes()),
            ("of the namespace", token(1, "lab"), passes()),
            ("of the workload", token(2, "web"), passes()),
            ("of another workload", token(3, "nurse"), unknown),
        ],
    }
}

/// Rows of which each has a policy of its own, chosen by the header `x-case`.
pub(super) fn asked_for() -> Vec<Table> {
    let me = Issuer::new("RS256");
    let object = authentication(
        "tokens",
        &[
            rule(ME, &me.keys(), ", spaceDelimitedClaims: [roles]"),
            rule("plain", &me.keys(), ""),
        ],
    );
    vec![
        required(&me, &object),
        conditions(&me, &object),
        forbidden(&me, &object),
    ]
}

fn required(me: &Issuer, object: &str) -> Table {
    Table {
        what: "a policy asks for a token",
        objects: object.to_owned()
            + &policy(
                "tokens",
                "  rules: [{from: [{source: {requestPrincipals: ['*']}}]}]",
            ),
        rows: vec![
            ("none", Ask::at("/"), denied()),
            ("one", Ask::bearer(&me.token(&claims())), passes()),
            (
                "one without a subject",
                Ask::bearer(&me.token(&json!({"iss": ME}))),
                denied(),
            ),
            (
                "a bad one",
                Ask::bearer("a.b.c"),
                refused("Jwt header is an invalid Base64url encoded"),
            ),
        ],
    }
}

fn forbidden(me: &Issuer, object: &str) -> Table {
    let token = |more: Value| {
        let mut all = claims();
        all["group"] = more;
        Ask::bearer(&me.token(&all))
    };
    Table {
        what: "what is refused by a claim, and what without a token",
        objects: object.to_owned()
            + &policy(
                "guests",
                "  action: DENY\n  rules: [{when: [{key: 'request.auth.claims[group]', values: [guest]}]}]",
            )
            + &policy(
                "nobody",
                "  action: DENY\n  rules: [{from: [{source: {notRequestPrincipals: ['*']}}], to: [{operation: {paths: [/private]}}]}]",
            ),
        rows: vec![
            ("no token", Ask::at("/"), passes()),
            ("no token, private", Ask::at("/private"), denied()),
            ("a guest", token(json!("guest")), denied()),
            ("a guest among others", token(json!(["nurse", "guest"])), denied()),
            ("a nurse", token(json!("nurse")), passes()),
            (
                "a nurse, private",
                Ask {
                    path: "/private".into(),
                    ..token(json!("nurse"))
                },
                passes(),
            ),
        ],
    }
}

fn conditions(me: &Issuer, object: &str) -> Table {
    // Claims, the condition, whether it holds.
    let full = json!({
        "iss": ME, "sub": "ann", "aud": ["web", "db"], "azp": "app", "scope": "read write", "roles": "a b", "words": "a b",
        "groups": ["nurses", "ward-3"], "n": {"team": "x", "list": ["p", "q"], "deep": {"er": "y"}}, "age": 42, "url/x": "u",
    });
    let claim = |path: &str, values: &str| format!("when: [{{key: 'request.auth.claims{path}', {values}}}]");
    let principal = |values: &str| format!("from: [{{source: {{{values}}}}}]");
    let key = |key: &str, values: &str| format!("when: [{{key: request.auth.{key}, {values}}}]");
    let cases: Vec<(&'static str, String, bool)> = vec![
        ("the principal", principal(&format!("requestPrincipals: ['{ME}/ann']")), true),
        ("another subject", principal(&format!("requestPrincipals: ['{ME}/ann2']")), false),
        ("a part of the subject", principal(&format!("requestPrincipals: ['{ME}/an']")), false),
        ("of the issuer", principal(&format!("requestPrincipals: ['{ME}/*']")), true),
        ("of another issuer", principal("requestPrincipals: ['https://login.example/you/*']"), false),
        ("of issuers", principal("requestPrincipals: ['https://login.example/*']"), true),
        ("the subject of any issuer", principal("requestPrincipals: ['*/ann']"), true),
        ("another's subject", principal("requestPrincipals: ['*/eve']"), false),
        ("not this one", principal(&format!("notRequestPrincipals: ['{ME}/ann']")), false),
        ("not another", principal(&format!("notRequestPrincipals: ['{ME}/eve']")), true),
        ("by the condition", key("principal", &format!("values: ['{ME}/ann']")), true),
        ("by the condition, not", key("principal", &format!("notValues: ['{ME}/ann']")), false),
        ("an audience", key("audiences", "values: [db]"), true),
        ("another audience", key("audiences", "values: [cache]"), false),
        ("not that audience", key("audiences", "notValues: [db]"), false),
        ("the presenter", key("presenter", "values: [app]"), true),
        ("another presenter", key("presenter", "values: [apps]"), false),
        ("one of a list", claim("[groups]", "values: [nurses]"), true),
        ("none of a list", claim("[groups]", "values: [doctors]"), false),
        ("a prefix", claim("[groups]", "values: ['ward-*']"), true),
        ("a suffix", claim("[groups]", "values: ['*-3']"), true),
        ("any", claim("[groups]", "values: ['*']"), true),
        ("any of nothing", claim("[nothing]", "values: ['*']"), false),
        ("not, of nothing", claim("[nothing]", "notValues: [a]"), true),
        ("nested", claim("[n][team]", "values: [x]"), true),
        ("nested, a list", claim("[n][list]", "values: [q]"), true),
        ("nested deeper", claim("[n][deep][er]", "values: [y]"), true),
        ("nested, another", claim("[n][team]", "values: [y]"), false),
        ("an object is no text", claim("[n]", "values: ['*']"), false),
        ("a number is no text", claim("[age]", "values: ['42']"), false),
        ("words of the scope", claim("[scope]", "values: [write]"), true),
        ("the whole scope is no word", claim("[scope]", "values: ['read write']"), false),
        ("words of a claim that is a list of such", claim("[roles]", "values: [b]"), true),
        ("words of one that is not", claim("[words]", "values: [b]"), false),
        ("a name with a slash", claim("[url/x]", "values: [u]"), true),
        ("two conditions", "when: [{key: 'request.auth.claims[groups]', values: [nurses]}, {key: 'request.auth.claims[scope]', values: [admin]}]".into(), false),
    ];
    let rules: Vec<String> = cases
        .iter()
        .enumerate()
        .map(|(at, (_, rule, _))| {
            // A rule has one `when`.
            let chosen = format!("{{key: 'request.headers[x-case]', values: [c{at}]}}");
            if let Some(rest) = rule.strip_prefix("when: [") {
                format!("  - {{when: [{chosen}, {rest}}}\n")
            } else {
                format!("  - {{{rule}, when: [{chosen}]}}\n")
            }
        })
        .collect();
    let token = me.token(&full);
    let rows = cases.iter().enumerate().map(|(at, (what, _, holds))| {
        let ask = Ask::bearer(&token).with("x-case", &format!("c{at}"));
        (*what, ask, if *holds { passes() } else { denied() })
    });
    Table {
        what: "conditions",
        objects: object.to_owned() + &policy("cases", &format!("  rules:\n{}", rules.concat())),
        rows: rows.collect(),
    }
}
