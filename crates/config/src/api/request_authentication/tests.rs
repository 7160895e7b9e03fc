use super::*;
use crate::{Loaded, merge::LoadOptions, merge::load, parse::Source};

const KEYS: &str =
    r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"wcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcE"}]}"#;

fn read_spec(spec: &str) -> Loaded {
    let text = format!(
        "apiVersion: security.istio.io/v1beta1\nkind: RequestAuthentication\n\
         metadata: {{name: tokens, namespace: clinic}}\nspec:\n{spec}\n"
    );
    load(&[Source::new("t.yaml", text)], &LoadOptions::default())
}

fn rules(spec: &str) -> Vec<JwtRule> {
    let mut loaded = read_spec(spec);
    assert_eq!(loaded.diagnostics, [], "{spec}");
    loaded.request_authentications.remove(0).rules
}

#[test]
fn every_field_is_read() {
    let spec = format!(
        "  selector: {{matchLabels: {{app: web}}}}
  jwtRules:
  - issuer: https://login
    audiences: [a, b]
    jwks: '{KEYS}'
    fromHeaders: [{{name: X-Token, prefix: 'Token '}}, {{name: x-raw}}]
    fromParams: [t]
    fromCookies: [session]
    outputPayloadToHeader: X-Payload
    forwardOriginalToken: true
    outputClaimToHeaders: [{{header: X-Sub, claim: a.sub}}]
    timeout: 2s
    spaceDelimitedClaims: [roles]"
    );
    let loaded = read_spec(&spec);
    assert_eq!(loaded.diagnostics, []);
    let object = &loaded.request_authentications[0];
    assert_eq!(object.selector, Some([("app", "web")].into_iter().collect()));
    let expected = JwtRule {
        issuer: "https://login".into(),
        audiences: vec!["a".into(), "b".into()],
        keys: KeySource::Inline(key_set::usable(KEYS).unwrap()),
        from_headers: vec![("x-token".into(), "Token ".into()), ("x-raw".into(), "".into())],
        from_params: vec!["t".into()],
        from_cookies: vec!["session".into()],
        output_payload: Some("x-payload".into()),
        forward: true,
        output_claims: vec![("x-sub".into(), "a.sub".into())],
        timeout: Duration::from_secs(2),
        space_delimited: vec!["roles".into()],
        origin: object.rules[0].origin.clone(),
    };
    assert_eq!(object.rules, [expected]);
}

#[test]
fn keys_are_in_place_at_a_url_or_where_the_issuer_says() {
    let keys = |rule: &str| rules(&format!("  jwtRules: [{{{rule}}}]")).remove(0).keys;
    assert_eq!(
        keys("issuer: me, jwksUri: 'http://localhost:8080/keys?v=1'"),
        KeySource::Url("http://localhost:8080/keys?v=1".into())
    );
    let described = KeySource::Discovery("https://login/.well-known/openid-configuration".into());
    assert_eq!(keys("issuer: 'https://login'"), described);
    assert_eq!(keys("issuer: 'https://login/'"), described);
    let rule = &rules("  jwtRules: [{issuer: 'https://login'}]")[0];
    assert_eq!((rule.timeout, rule.forward), (Duration::from_secs(5), false));
}

#[test]
fn what_is_wrong_is_said_where_it_stands_and_the_object_is_not_used() {
    let secret = r#"{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}"#;
    for (rule, place, code) in [
        ("issuer: ''", "issuer", codes::MISSING_FIELD),
        ("jwksUri: 'https://a/b'", "", codes::MISSING_FIELD),
        ("issuer: me", "", codes::MISSING_FIELD),
        (
            "issuer: me, jwksUri: 'https://a', jwks: '{}'",
            "jwksUri",
            codes::EXCLUSIVE,
        ),
        ("issuer: me, jwksUri: 'ftp://a'", "jwksUri", codes::BAD_URL),
        ("issuer: me, jwksUri: 'https://'", "jwksUri", codes::BAD_URL),
        ("issuer: me, jwksUri: 'https://u@a/'", "jwksUri", codes::BAD_URL),
        ("issuer: me, jwksUri: 'https://a/ b'", "jwksUri", codes::BAD_URL),
        ("issuer: me, jwks: '{'", "jwks", codes::BAD_KEYS),
        (&format!("issuer: me, jwks: '{secret}'"), "jwks", codes::BAD_KEYS),
        (
            "issuer: 'https://a', fromHeaders: [{prefix: a}]",
            "fromHeaders[0]",
            codes::MISSING_FIELD,
        ),
        (
            "issuer: 'https://a', fromHeaders: [{name: 'a b'}]",
            "fromHeaders[0].name",
            codes::BAD_HEADER,
        ),
        (
            "issuer: 'https://a', fromHeaders: []",
            "fromHeaders",
            codes::MISSING_FIELD,
        ),
        (
            "issuer: 'https://a', fromCookies: ['a=b']",
            "fromCookies[0]",
            codes::BAD_HEADER,
        ),
        (
            "issuer: 'https://a', outputClaimToHeaders: [{header: a}]",
            "outputClaimToHeaders[0]",
            codes::MISSING_FIELD,
        ),
        (
            "issuer: 'https://a', outputPayloadToHeader: ':path'",
            "outputPayloadToHeader",
            codes::BAD_HEADER,
        ),
        ("issuer: 'https://a', timeout: 0s", "timeout", codes::BAD_DURATION),
        (
            "issuer: 'https://a', clockSkew: 1s",
            "clockSkew",
            codes::UNKNOWN_FIELD,
        ),
    ] {
        let loaded = read_spec(&format!("  jwtRules: [{{{rule}}}]"));
        let found: Vec<_> = loaded.diagnostics.iter().filter(|it| it.code == code).collect();
        assert!(loaded.request_authentications.is_empty(), "{rule}");
        let at = match place {
            "" => "spec.jwtRules[0]".to_owned(),
            place => format!("spec.jwtRules[0].{place}"),
        };
        assert!(
            found.iter().any(|it| *it.origin.field_path == *at),
            "{rule}: {:#?}",
            loaded.diagnostics
        );
    }
    let targeted = read_spec("  targetRefs: [{kind: Service, name: a}]\n  jwtRules: [{issuer: 'https://a'}]");
    assert_eq!(targeted.diagnostics[0].code, codes::NOT_SUPPORTED);
    assert!(targeted.request_authentications.is_empty());
}

#[test]
fn that_there_are_no_rules_is_said_where_none_is_written() {
    let says = |spec: &str| {
        let found = read_spec(spec).diagnostics;
        found.iter().any(|one| one.message.contains("asks for nothing"))
    };
    assert!(says("  selector: {matchLabels: {app: web}}"));
    assert!(says("  jwtRules: []"));
    assert!(!says("  jwtRules: [{issuer: ''}]"));
}
