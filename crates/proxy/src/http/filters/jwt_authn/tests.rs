//! Tokens that are made here, with keys that are made here: what passes, what does not, and that nothing panics.

use aws_lc_rs::{
    rand::SystemRandom,
    rsa::KeySize,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED_SIGNING,
        EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512,
        RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512, RsaKeyPair,
    },
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use proptest::prelude::*;
use rajut_ir::jwt::JwtProvider;
use serde_json::{Value, json};

use super::{keys::KeySet, token::TOKEN_MAX, verify::*};
use crate::failure::TokenFault;

const NOW: u64 = 1_700_000_000;

type Sign = Box<dyn Fn(&[u8]) -> Vec<u8>>;

/// Signs for an algorithm, and what verifies it.
struct Signer {
    alg: &'static str,
    key: Value,
    sign: Sign,
}

fn b64(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn rsa_signers() -> Vec<Signer> {
    let pair = std::sync::Arc::new(RsaKeyPair::generate(KeySize::Rsa2048).unwrap());
    // RFC 8017 A.1.1: a sequence of the modulus and the exponent.
    let der = pair.public_key().as_ref().to_vec();
    let key = json!({"kty": "RSA", "n": b64(&der[9..265]), "e": b64(&[1, 0, 1])});
    let algorithms: [(_, &'static dyn aws_lc_rs::signature::RsaEncoding); 6] = [
        ("RS256", &RSA_PKCS1_SHA256),
        ("RS384", &RSA_PKCS1_SHA384),
        ("RS512", &RSA_PKCS1_SHA512),
        ("PS256", &RSA_PSS_SHA256),
        ("PS384", &RSA_PSS_SHA384),
        ("PS512", &RSA_PSS_SHA512),
    ];
    let signer = |(alg, encoding)| {
        let pair = pair.clone();
        Signer {
            alg,
            key: key.clone(),
            sign: Box::new(move |text| {
                let mut out = vec![0; pair.public_modulus_len()];
                pair.sign(encoding, &SystemRandom::new(), text, &mut out).unwrap();
                out
            }),
        }
    };
    algorithms.map(signer).into()
}

fn curve_signers() -> Vec<Signer> {
    let signer = |(alg, curve, algorithm)| {
        let pair = EcdsaKeyPair::generate(algorithm).unwrap();
        let point = pair.public_key().as_ref()[1..].to_vec();
        let (x, y) = point.split_at(point.len() / 2);
        Signer {
            alg,
            key: json!({"kty": "EC", "crv": curve, "x": b64(x), "y": b64(y)}),
            sign: Box::new(move |text| pair.sign(&SystemRandom::new(), text).unwrap().as_ref().to_vec()),
        }
    };
    let mut all: Vec<_> = [
        ("ES256", "P-256", &ECDSA_P256_SHA256_FIXED_SIGNING),
        ("ES384", "P-384", &ECDSA_P384_SHA384_FIXED_SIGNING),
        ("ES512", "P-521", &ECDSA_P521_SHA512_FIXED_SIGNING),
    ]
    .map(signer)
    .into();
    all.push(edwards());
    all
}

fn edwards() -> Signer {
    let pair = Ed25519KeyPair::generate().unwrap();
    Signer {
        alg: "EdDSA",
        key: json!({"kty": "OKP", "crv": "Ed25519", "x": b64(pair.public_key().as_ref())}),
        sign: Box::new(move |text| pair.sign(text).as_ref().to_vec()),
    }
}

impl Signer {
    fn raw(&self, head: &str, claims: &str) -> String {
        let signed = format!("{}.{}", b64(head.as_bytes()), b64(claims.as_bytes()));
        let signature = (self.sign)(signed.as_bytes());
        format!("{signed}.{}", b64(&signature))
    }

    fn token(&self, claims: &Value) -> String {
        self.raw(
            &json!({"alg": self.alg, "typ": "JWT"}).to_string(),
            &claims.to_string(),
        )
    }

    fn keys(&self) -> KeySet {
        KeySet::parse(&json!({"keys": [self.key]}).to_string())
    }
}

fn provider() -> JwtProvider {
    JwtProvider {
        issuer: "me".into(),
        clock_skew: 60,
        ..JwtProvider::default()
    }
}

fn judged(token: &str, keys: &KeySet) -> Result<(), TokenFault> {
    verify(token.as_bytes(), &provider(), keys, NOW).map(drop)
}

/// Signed by nobody who counts.
fn is_forged(fault: TokenFault) -> bool {
    matches!(fault, TokenFault::BadSignature | TokenFault::SignatureLength)
}

#[test]
fn every_algorithm_verifies_its_own_and_nothing_else() {
    let signers: Vec<Signer> = rsa_signers().into_iter().chain(curve_signers()).collect();
    let others = [rsa_signers().remove(0), curve_signers().remove(0), edwards()];
    for signer in &signers {
        let keys = signer.keys();
        let good = signer.token(&json!({"iss": "me", "sub": "a"}));
        assert_eq!(judged(&good, &keys), Ok(()), "{}", signer.alg);
        for other in &others {
            let bad = judged(&good, &other.keys()).unwrap_err();
            assert!(is_forged(bad), "{} by {}", signer.alg, other.alg);
        }
        // Another claim, another signature, none at all.
        let parts: Vec<&str> = good.split('.').collect();
        let swapped = format!("{}.{}.{}", parts[0], b64(br#"{"iss":"me","sub":"b"}"#), parts[2]);
        assert_eq!(judged(&swapped, &keys), Err(TokenFault::BadSignature));
        let mut signature = URL_SAFE_NO_PAD.decode(parts[2]).unwrap();
        signature.pop();
        let cut = format!("{}.{}.{}", parts[0], parts[1], b64(&signature));
        assert!(is_forged(judged(&cut, &keys).unwrap_err()));
        let unsigned = format!("{}.{}.", parts[0], parts[1]);
        assert_eq!(judged(&unsigned, &keys), Err(TokenFault::BadFormat));
        // The key's own word on its algorithm.
        let mut named = signer.key.clone();
        named["alg"] = json!("RS999");
        assert!(KeySet::parse(&json!({"keys": [named]}).to_string()).is_empty());
    }
}

#[test]
fn what_a_token_says_of_its_algorithm_makes_no_key_another() {
    let signers: Vec<Signer> = rsa_signers().into_iter().chain(curve_signers()).collect();
    let claims = json!({"iss": "me"}).to_string();
    for signer in &signers {
        for alg in signers.iter().map(|it| it.alg).filter(|alg| *alg != signer.alg) {
            let lying = signer.raw(&json!({"alg": alg}).to_string(), &claims);
            assert!(is_forged(judged(&lying, &signer.keys()).unwrap_err()), "{alg}");
        }
    }
    // A public key as a shared secret, and none.
    let signer = edwards();
    for alg in ["none", "None", "HS256", "HS512", "RS1", "ES256K", "eddsa", ""] {
        let lying = signer.raw(&json!({"alg": alg}).to_string(), &claims);
        assert_eq!(
            judged(&lying, &signer.keys()),
            Err(TokenFault::AlgorithmUnknown),
            "{alg}"
        );
    }
    let secret = r#"{"keys":[{"kty":"oct","k":"c2VjcmV0","alg":"HS256"}]}"#;
    assert!(KeySet::parse(secret).is_empty());
}

#[test]
fn a_key_is_chosen_by_its_name_and_algorithm() {
    let (one, two) = (edwards(), edwards());
    let named = |signer: &Signer, id: &str| {
        let mut key = signer.key.clone();
        key["kid"] = json!(id);
        key
    };
    let set = |keys: Vec<Value>| KeySet::parse(&json!({ "keys": keys }).to_string());
    let both = set(vec![named(&one, "1"), named(&two, "2")]);
    let token = |head: Value| two.raw(&head.to_string(), r#"{"iss":"me"}"#);
    let of = |id: &str| token(json!({"alg": "EdDSA", "kid": id}));
    assert_eq!(judged(&of("2"), &both), Ok(()));
    assert_eq!(judged(&of("1"), &both), Err(TokenFault::BadSignature));
    assert_eq!(judged(&of("3"), &both), Err(TokenFault::NoSuchKey));
    assert_eq!(judged(&token(json!({"alg": "EdDSA"})), &both), Ok(()));
    assert_eq!(judged(&of("3"), &set(vec![two.key.clone()])), Ok(()));
    assert_eq!(judged(&of("2"), &KeySet::default()), Err(TokenFault::NoKeys));
    let mut confined = two.key.clone();
    confined["alg"] = json!("ES256");
    assert_eq!(judged(&of("2"), &set(vec![confined])), Err(TokenFault::NoSuchKey));
}

#[test]
fn times_issuers_and_audiences_are_judged_to_the_second() {
    let signer = edwards();
    let keys = signer.keys();
    let for_us = JwtProvider {
        audiences: vec!["api".into(), "https://x.example/".into()],
        ..provider()
    };
    let rows = [
        (json!({"iss": "me"}), Ok(()), Err(TokenFault::OtherAudience)),
        (json!({"iss": "me", "aud": "api"}), Ok(()), Ok(())),
        (json!({"iss": "me", "aud": ["a", "x.example"]}), Ok(()), Ok(())),
        (
            json!({"iss": "me", "aud": ["a", "apis"]}),
            Ok(()),
            Err(TokenFault::OtherAudience),
        ),
    ];
    for (claims, anybody, us) in rows {
        let token = signer.token(&claims);
        assert_eq!(judged(&token, &keys), anybody, "{claims}");
        let found = verify(token.as_bytes(), &for_us, &keys, NOW).map(drop);
        assert_eq!(found, us, "{claims}");
    }
    let late = Err(TokenFault::Expired);
    let early = Err(TokenFault::NotYet);
    for (claims, wanted) in [
        (json!({"iss": "me", "exp": NOW + 10}), Ok(())),
        (json!({"iss": "me", "exp": NOW - 60}), Ok(())),
        (json!({"iss": "me", "exp": NOW - 61}), late),
        (json!({"iss": "me", "exp": 0}), late),
        (json!({"iss": "me", "nbf": NOW + 60}), Ok(())),
        (json!({"iss": "me", "nbf": NOW + 61}), early),
        (json!({"iss": "me", "exp": 1.5e9}), late),
        (
            json!({"iss": "me", "exp": "tomorrow"}),
            Err(TokenFault::ExpiresNotTime),
        ),
        (json!({"iss": "me", "exp": -1}), Err(TokenFault::ExpiresNotTime)),
        (
            json!({"iss": "me", "exp": 1e300}),
            Err(TokenFault::ExpiresNotTime),
        ),
        (
            json!({"iss": "me", "nbf": null}),
            Err(TokenFault::NotBeforeNotTime),
        ),
        (json!({"iss": "me", "iat": []}), Err(TokenFault::IssuedNotTime)),
        (json!({"iss": "you"}), Err(TokenFault::OtherIssuer)),
        (json!({"iss": "me/"}), Err(TokenFault::OtherIssuer)),
        (json!({}), Err(TokenFault::OtherIssuer)),
        (json!({"iss": ["me"]}), Err(TokenFault::IssuerNotText)),
        (json!({"iss": "me", "sub": 1}), Err(TokenFault::SubjectNotText)),
        (json!({"iss": "me", "jti": 1}), Err(TokenFault::IdNotText)),
        (json!({"iss": "me", "aud": [1]}), Err(TokenFault::AudienceNotText)),
        (json!({"iss": "me", "aud": {}}), Err(TokenFault::AudienceNotText)),
    ] {
        assert_eq!(judged(&signer.token(&claims), &keys), wanted, "{claims}");
    }
}

#[test]
fn what_is_no_token_says_what_is_wrong_with_it() {
    let signer = edwards();
    let keys = signer.keys();
    let head = r#"{"alg":"EdDSA"}"#;
    let claims = r#"{"iss":"me"}"#;
    let good = signer.raw(head, claims);
    let parts: Vec<&str> = good.split('.').collect();
    let with = |at: usize, part: &str| {
        let mut parts = parts.clone();
        parts[at] = part;
        parts.join(".")
    };
    let long = signer.raw(
        head,
        &format!(r#"{{"iss":"me","x":"{}"}}"#, "x".repeat(TOKEN_MAX)),
    );
    for (token, fault) in [
        (String::new(), TokenFault::BadFormat),
        ("a.b".into(), TokenFault::BadFormat),
        ("..".into(), TokenFault::BadFormat),
        (format!("{good}."), TokenFault::BadFormat),
        (format!("{good}.x"), TokenFault::BadFormat),
        (with(0, "%%"), TokenFault::HeaderNotBase64),
        (with(0, &format!("{}=", parts[0])), TokenFault::HeaderNotBase64),
        (with(0, &b64(b"{")), TokenFault::HeaderNotJson),
        (with(0, &b64(b"[]")), TokenFault::HeaderNotJson),
        (
            with(0, &b64(br#"{"alg":"EdDSA","alg":"none"}"#)),
            TokenFault::HeaderNotJson,
        ),
        (with(0, &b64(b"{}")), TokenFault::AlgorithmMissing),
        (with(0, &b64(br#"{"alg":1}"#)), TokenFault::AlgorithmMissing),
        (with(1, "a+/b"), TokenFault::PayloadNotBase64),
        (with(1, &b64(b"me")), TokenFault::PayloadNotJson),
        (with(1, &b64(br#""me""#)), TokenFault::PayloadNotJson),
        (with(2, "!"), TokenFault::SignatureNotBase64),
        (
            signer.raw(head, r#"{"iss":"me","sub":"a","sub":"b"}"#),
            TokenFault::PayloadNotJson,
        ),
        (
            signer.raw(r#"{"alg":"EdDSA","kid":1}"#, claims),
            TokenFault::KeyIdNotText,
        ),
        (
            signer.raw(r#"{"alg":"EdDSA","crit":["exp"]}"#, claims),
            TokenFault::Critical,
        ),
        (
            signer.raw(r#"{"alg":"EdDSA","crit":[]}"#, claims),
            TokenFault::Critical,
        ),
        (long, TokenFault::TooLong),
    ] {
        assert_eq!(judged(&token, &keys), Err(fault), "{token}");
    }
}

#[test]
fn claims_are_told_as_envoy_tells_them() {
    let told = |value: Value| {
        let claim = rajut_ir::jwt::Claim::parse(value.to_string().as_bytes()).unwrap();
        as_header(&claim).map(std::borrow::Cow::into_owned)
    };
    assert_eq!(told(json!("a b")).as_deref(), Some("a b"));
    assert_eq!(told(json!(12)).as_deref(), Some("12"));
    assert_eq!(told(json!(-12)).as_deref(), Some("-12.000000"));
    assert_eq!(told(json!(0.5)).as_deref(), Some("0.500000"));
    assert_eq!(told(json!(true)).as_deref(), Some("true"));
    for nothing in [json!(""), json!(null), json!(["a"]), json!({"a": 1})] {
        assert_eq!(told(nothing), None);
    }
    let claims = rajut_ir::jwt::Claim::parse(br#"{"scope":"a  b","roles":"c d"}"#).unwrap();
    let words = claims.with_words(&["scope".into(), "nothing".into()]);
    let expected = rajut_ir::jwt::Claim::parse(br#"{"scope":["a","b"],"roles":"c d"}"#).unwrap();
    assert_eq!(words, expected);
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_no_token_and_harm_nobody(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let keys = edwards().keys();
        prop_assert!(verify(&bytes, &provider(), &keys, NOW).is_err());
    }

    #[test]
    fn arbitrary_json_in_the_parts_is_no_token(head in "\\PC{0,40}", claims in "\\PC{0,40}", signature in "[A-Za-z0-9_-]{0,90}") {
        let keys = edwards().keys();
        let token = format!("{}.{}.{signature}", b64(head.as_bytes()), b64(claims.as_bytes()));
        prop_assert!(verify(token.as_bytes(), &provider(), &keys, NOW).is_err());
    }

    #[test]
    fn a_changed_byte_makes_a_good_token_a_bad_one(at in any::<prop::sample::Index>(), by in 1..=255_u8) {
        let signer = edwards();
        let mut token = signer.token(&json!({"iss": "me", "sub": "a"})).into_bytes();
        let at = at.index(token.len());
        token[at] ^= by;
        prop_assert!(verify(&token, &provider(), &signer.keys(), NOW).is_err());
    }

    #[test]
    fn arbitrary_key_sets_are_read(text in "\\PC{0,80}") {
        let _ = KeySet::parse(&text);
        let _ = KeySet::parse(&format!(r#"{{"keys":[{{"kty":"RSA","n":"{text}","e":"AQAB"}}]}}"#));
    }
}
