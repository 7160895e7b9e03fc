//! Certificates and TLS clients for tests: who is asked for, what is shown, and which versions are spoken, is said call by
//! call.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::Arc,
    time::Duration,
};

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName},
};

use crate::runner::Result;

/// An issuer of certificates.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate with its key.
pub struct Leaf {
    der: CertificateDer<'static>,
    /// `SubjectPublicKeyInfo`.
    public_key: Vec<u8>,
    pub chain: String,
    pub key: String,
}

impl Authority {
    pub fn new(name: &str) -> Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        Ok(Self(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?))
    }

    /// For servers and clients of these names.
    pub fn issue(&self, names: &[&str]) -> Result<Leaf> {
        let key = KeyPair::generate()?;
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names)?;
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let leaf = params.signed_by(&key, &self.0)?;
        Ok(Leaf {
            der: leaf.der().clone(),
            public_key: unwrapped(&key.public_key_pem())?,
            chain: leaf.pem(),
            key: key.serialize_pem(),
        })
    }

    /// A secret with this issuer's certificate alone.
    pub fn roots(&self, name: &str) -> String {
        secret(name, &[("ca.crt", &self.pem())])
    }

    /// This issuer's certificate.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A client that believes this issuer.
    pub fn client(&self) -> Client {
        Client {
            root: self.0.der().clone(),
            versions: vec![&rustls::version::TLS12, &rustls::version::TLS13],
            protocols: Vec::new(),
            shown: None,
        }
    }
}

impl Leaf {
    /// A secret of the gateways' namespace.
    pub fn secret(&self, name: &str, chain: &str, key: &str) -> String {
        secret(name, &[(chain, &self.chain), (key, &self.key)])
    }

    pub fn der(&self) -> CertificateDer<'static> {
        self.der.clone()
    }

    /// SHA-256 of the public key, in base64.
    pub fn key_pin(&self) -> String {
        STANDARD.encode(digest(&SHA256, &self.public_key))
    }

    /// SHA-256 of the certificate, in hexadecimal with colons, as `openssl x509 -fingerprint` has it.
    pub fn certificate_pin(&self) -> String {
        let hash = digest(&SHA256, &self.der);
        let pairs: Vec<String> = hash.as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
        pairs.join(":")
    }
}

/// What a PEM block holds.
fn unwrapped(pem: &str) -> Result<Vec<u8>> {
    let lines = pem.lines().filter(|line| !line.starts_with('-'));
    Ok(STANDARD.decode(lines.collect::<String>())?)
}

fn secret(name: &str, entries: &[(&str, &str)]) -> String {
    let mut text = format!(
        "---\napiVersion: v1\nkind: Secret\nmetadata: {{name: {name}, namespace: istio-system}}\nstringData:\n"
    );
    for (key, value) in entries {
        text.push_str(&format!("  {key}: |\n"));
        for line in value.lines() {
            text.push_str(&format!("    {line}\n"));
        }
    }
    text
}

/// How connections are made.
#[derive(Clone)]
pub struct Client {
    root: CertificateDer<'static>,
    versions: Vec<&'static SupportedProtocolVersion>,
    protocols: Vec<Vec<u8>>,
    shown: Option<(CertificateDer<'static>, String)>,
}

impl Client {
    #[must_use]
    pub fn versions(mut self, versions: &[&'static SupportedProtocolVersion]) -> Self {
        self.versions = versions.to_vec();
        self
    }

    #[must_use]
    pub fn protocols(mut self, names: &[&str]) -> Self {
        self.protocols = names.iter().map(|name| name.as_bytes().to_vec()).collect();
        self
    }

    #[must_use]
    pub fn showing(mut self, leaf: &Leaf) -> Self {
        self.shown = Some((leaf.der(), leaf.key.clone()));
        self
    }

    /// Connects and finishes the handshake.
    pub fn dial(&self, address: &str, server_name: &str) -> Result<Connection> {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone())?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&self.versions)?
            .with_root_certificates(roots);
        let mut config = match &self.shown {
            Some((chain, key)) => {
                let key: PrivateKeyDer<'static> =
                    rustls::pki_types::pem::PemObject::from_pem_slice(key.as_bytes())?;
                builder.with_client_auth_cert(vec![chain.clone()], key)?
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols.clone_from(&self.protocols);
        let name = ServerName::try_from(server_name.to_owned())?;
        let mut tls = ClientConnection::new(Arc::new(config), name)?;
        let mut stream = TcpStream::connect_timeout(&address.parse()?, Duration::from_secs(5))?;
        stream.set_read_timeout(Some(Duration::from_secs(15)))?;
        while tls.is_handshaking() {
            tls.complete_io(&mut stream)?;
        }
        Ok(Connection(StreamOwned::new(tls, stream)))
    }
}

/// A connection that is kept.
pub struct Connection(StreamOwned<ClientConnection, TcpStream>);

impl Connection {
    /// A GET; the status, and the whole answer.
    pub fn ask(&mut self, host: &str, path: &str) -> Result<(u16, String)> {
        self.0
            .write_all(format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n").as_bytes())?;
        let mut answer = Vec::new();
        let mut piece = [0; 4096];
        loop {
            let read = self.0.read(&mut piece)?;
            if read == 0 {
                return Err("the connection was closed before an answer".into());
            }
            answer.extend_from_slice(&piece[..read]);
            let text = String::from_utf8_lossy(&answer).into_owned();
            let Some((head, body)) = text.split_once("\r\n\r\n") else {
                continue;
            };
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case("content-length")
                    .then(|| value.trim().parse::<usize>().ok())?
            });
            if body.len() >= length.unwrap_or(0) {
                let status = head.split(' ').nth(1).and_then(|text| text.parse().ok());
                return Ok((status.ok_or("no status line")?, text));
            }
        }
    }

    /// The server's certificate.
    pub fn certificate(&self) -> Option<CertificateDer<'static>> {
        Some(self.0.conn.peer_certificates()?.first()?.clone().into_owned())
    }

    /// The protocol that was agreed on.
    pub fn protocol(&self) -> Option<&[u8]> {
        self.0.conn.alpn_protocol()
    }
}
