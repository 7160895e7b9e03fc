//! Who is believed.

use http::StatusCode;
use rajut_identity::rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use rajut_platform::socket::TcpListener;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsAcceptor;

use super::*;

/// Answers `body` to all, with a certificate of its own for `localhost`; gives its port and that certificate.
async fn server(body: &'static str) -> (u16, String) {
    let key = rcgen::KeyPair::generate().expect("a key");
    let certificate = rcgen::CertificateParams::new(["localhost".to_owned()])
        .and_then(|params| params.self_signed(&key))
        .expect("a certificate");
    let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], der)
        .expect("a pair");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("bound").port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else {
                continue;
            };
            let mut head = [0; 4096];
            let _ = stream.read(&mut head).await;
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    });
    (port, certificate.pem())
}

fn request(url: &str) -> Request<Full<Bytes>> {
    Request::post(url).body(Full::from("{}")).expect("a request")
}

#[tokio::test]
async fn a_server_is_believed_that_the_roots_vouch_for_by_its_name_and_no_other() {
    let (port, pem) = server("hello").await;
    let file = std::env::temp_dir().join(format!("rajut-outside-{}.pem", std::process::id()));
    std::fs::write(&file, pem).expect("written");
    let url = format!("https://localhost:{port}/x");
    let known = Outside::with_roots(Some(file.clone()));
    let answer = known.exchange(request(&url), 100).await.expect("an answer");
    assert_eq!(
        (answer.status(), &answer.body()[..]),
        (StatusCode::OK, &b"hello"[..])
    );
    assert!(
        matches!(known.exchange(request(&url), 4).await, Err(OutsideError::Body(_))),
        "an answer has a bound"
    );
    let other = format!("https://127.0.0.1:{port}/x");
    for (outside, url) in [(Outside::default(), &url), (known, &other)] {
        let error = outside
            .exchange(request(url), 100)
            .await
            .expect_err("nobody vouches");
        assert!(
            matches!(error, OutsideError::Connect(_) | OutsideError::Roots(_)),
            "{error}"
        );
    }
    let _ = std::fs::remove_file(&file);
    let gone = Outside::with_roots(Some(file));
    let error = gone.exchange(request(&url), 100).await.expect_err("no roots");
    assert!(matches!(error, OutsideError::Roots(_)), "{error}");
    for url in ["ftp://localhost/x", "/x"] {
        let error = Outside::default().exchange(request(url), 100).await;
        assert!(matches!(error, Err(OutsideError::Url)), "{url}");
    }
}
