//! The keeper against an issuer of its own: keys come, change, and stay when the issuer is gone.

use std::{io::Write as _, path::PathBuf, sync::Arc};

use rajut_config::Source;
use rajut_registry::RegistryOptions;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::watch,
};

use super::*;

const A: &str = r#"{"keys":[{"kty":"OKP","kid":"a","alg":"EdDSA","crv":"Ed25519","x":"wcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcE"}]}"#;

fn state(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("rajut-keys-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).unwrap();
    path
}

fn registry(state: &Path, rules: &str) -> Registry {
    let text = format!(
        "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {{name: t}}\nspec:\n  jwtRules:\n{rules}"
    );
    Registry::open(RegistryOptions {
        paths: Vec::new(),
        texts: vec![Source::new("t.yaml", text)],
        state: state.to_owned(),
        default_namespace: "default".into(),
        trust_domain: rajut_types::TrustDomain::default(),
    })
    .unwrap()
}

type Answers = Arc<dyn Fn(&str) -> String + Send + Sync>;

/// An issuer: path → what is answered there. An empty answer is none.
async fn issuer(answers: watch::Receiver<Answers>) -> u16 {
    let listener = rajut_platform::socket::TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = vec![0; 4096];
            let length = stream.read(&mut head).await.unwrap_or(0);
            let head = String::from_utf8_lossy(&head[..length]).into_owned();
            let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
            let answer = answers.borrow().clone()(&path);
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    port
}

fn ok(body: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\ncache-control: max-age=0\r\n\r\n{body}",
        body.len()
    )
}

async fn until(registry: &Registry, what: impl Fn(&Snapshot) -> bool) -> Arc<Snapshot> {
    let mut snapshots = registry.snapshots();
    let found = tokio::time::timeout(Duration::from_secs(20), snapshots.wait_for(|it| what(it)));
    found.await.expect("in time").expect("a registry").clone()
}

#[tokio::test]
async fn keys_come_change_and_stay_when_the_issuer_is_gone() {
    let state = state("rotation");
    let first: Answers = Arc::new(|path| match path {
        "/.well-known/openid-configuration" => String::new(),
        _ => ok(A),
    });
    let (answers, heard) = watch::channel(first);
    let port = issuer(heard).await;
    let url = format!("http://127.0.0.1:{port}/keys");
    let registry = registry(&state, &format!("  - {{issuer: a, jwksUri: '{url}'}}\n"));
    let keeping = tokio::spawn(keep(registry.clone(), state.clone()));
    let source = KeySource::Url(url.into());
    until(&registry, |it| {
        it.key_sets
            .get(&source)
            .is_some_and(|keys| keys.contains(r#""kid":"a""#))
    })
    .await;
    answers.send_replace(Arc::new(|_| ok(&A.replace(r#""kid":"a""#, r#""kid":"b""#))));
    until(&registry, |it| it.key_sets[&source].contains(r#""kid":"b""#)).await;
    let (asked, mut times) = watch::channel(0_u32);
    answers.send_replace(Arc::new(move |_| {
        asked.send_modify(|times| *times += 1);
        "HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n".to_owned()
    }));
    // Remembered over a restart, too.
    keeping.abort();
    let known = remembered(&state);
    assert!(known[&source].contains(r#""kid":"b""#));
    registry.set_key_sets(known);
    let keeping = tokio::spawn(keep(registry.clone(), state.clone()));
    // The second time after the restart comes when the first answer was taken.
    let so_far = *times.borrow();
    let again = times.wait_for(|times| *times >= so_far + 2);
    tokio::time::timeout(Duration::from_secs(20), again)
        .await
        .unwrap()
        .unwrap();
    assert!(registry.snapshot().key_sets[&source].contains(r#""kid":"b""#));
    keeping.abort();
    std::fs::remove_dir_all(&state).unwrap();
}

#[tokio::test]
async fn an_issuer_says_where_its_keys_are_and_what_is_no_key_set_is_none() {
    let state = state("discovery");
    let bound: Arc<std::sync::OnceLock<u16>> = Arc::default();
    let own = bound.clone();
    let answer: Answers = Arc::new(move |path| match path {
        "/a/.well-known/openid-configuration" => ok(&format!(
            r#"{{"jwks_uri":"http://127.0.0.1:{}/keys"}}"#,
            own.get().unwrap()
        )),
        "/keys" => ok(A),
        "/moved" => "HTTP/1.1 302 Found\r\nlocation: /keys\r\ncontent-length: 0\r\n\r\n".to_owned(),
        "/long" => ok(&" ".repeat(ANSWER_MAX + 1)),
        "/secret" => ok(r#"{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}"#),
        _ => String::new(),
    });
    let (_answers, heard) = watch::channel(answer);
    let port = issuer(heard).await;
    bound.set(port).unwrap();
    let fetcher = Fetcher::default();
    let fetch = async |source: KeySource| {
        let fetched = fetcher.key_set(&source, Duration::from_secs(5)).await;
        fetched.map(|(keys, _)| keys).map_err(|error| error.to_string())
    };
    let url = |path: &str| KeySource::Url(format!("http://127.0.0.1:{port}{path}").into());
    let described = format!("http://127.0.0.1:{port}/a/.well-known/openid-configuration");
    assert!(
        fetch(KeySource::Discovery(described.into()))
            .await
            .unwrap()
            .contains("Ed25519")
    );
    assert!(fetch(url("/keys")).await.unwrap().contains("Ed25519"));
    assert_eq!(fetch(url("/moved")).await.unwrap_err(), "the answer is 302");
    assert!(
        fetch(url("/long"))
            .await
            .unwrap_err()
            .starts_with("the answer can't be read")
    );
    assert!(
        fetch(url("/secret"))
            .await
            .unwrap_err()
            .starts_with("the key set is of no use")
    );
    assert!(fetch(url("/nothing")).await.unwrap_err().starts_with("no answer"));
    std::fs::remove_dir_all(&state).unwrap();
}

#[test]
fn what_is_remembered_is_believed_only_as_far_as_it_is_of_use() {
    let state = state("file");
    let secret = r#"{\"keys\":[{\"kty\":\"oct\",\"k\":\"c2VjcmV0\"}]}"#;
    let mut file = std::fs::File::create(state.join(FILE)).unwrap();
    write!(
        file,
        r#"[{{"url":"http://a","discovery":false,"keys":"{secret}"}}]"#
    )
    .unwrap();
    assert_eq!(remembered(&state), KeySets::new());
    std::fs::write(state.join(FILE), "{").unwrap();
    assert_eq!(remembered(&state), KeySets::new());
    std::fs::remove_dir_all(&state).unwrap();
}
