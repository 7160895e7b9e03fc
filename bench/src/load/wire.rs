//! A client's connection, plain or under mutual TLS 1.3.

use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

/// Addresses of this machine from which connections come in turn, so that those that wait for their end do not use up
/// the ports of one.
const SOURCES: usize = 200;

/// What all connections under TLS share.
pub(super) type Tls = Arc<ClientConfig>;

/// With the run's certificates; no session is resumed.
pub(super) fn tls(dir: &Path) -> Result<Tls> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(dir.join("ca.pem"))?)?;
    let leaf = CertificateDer::from_pem_slice(&fs::read(dir.join("leaf.pem"))?)?;
    let key = PrivateKeyDer::from_pem_file(dir.join("leaf.key"))?;
    let mut config = ClientConfig::builder_with_protocol_versions(&[&rustls::version::TLS13])
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![leaf], key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

#[derive(Debug)]
pub(super) struct Wire {
    pub(super) socket: TcpStream,
    tls: Option<Box<ClientConnection>>,
}

impl Wire {
    /// Connects to a port of this machine; `number` chooses the address that it comes from.
    pub(super) fn connect(port: u16, number: usize, tls: Option<&Tls>) -> Result<Self> {
        let socket = rustix::net::socket_with(
            AddressFamily::INET,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )?;
        let source = Ipv4Addr::new(127, 0, 1, u8::try_from(1 + number % SOURCES).unwrap_or(1));
        rustix::net::bind(&socket, &SocketAddrV4::new(source, 0))?;
        rustix::net::connect(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)).context("connecting")?;
        let socket = TcpStream::from(socket);
        socket.set_nonblocking(true)?;
        socket.set_nodelay(true)?;
        let tls = match tls {
            None => None,
            Some(config) => {
                let name = ServerName::try_from("bench.example")?;
                Some(Box::new(ClientConnection::new(config.clone(), name)?))
            }
        };
        Ok(Self { socket, tls })
    }

    /// Reads what is there, once; `None`: nothing yet. The end of the connection is an error.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Result<Option<usize>> {
        let Some(tls) = &mut self.tls else {
            return match self.socket.read(buffer) {
                Ok(0) => bail!("closed"),
                other => again(other),
            };
        };
        match again(tls.read_tls(&mut self.socket))? {
            None => return Ok(None),
            Some(0) => bail!("closed"),
            Some(_) => tls.process_new_packets()?,
        };
        again(tls.reader().read(buffer))
    }

    /// Writes as much of `out` as goes; whether more waits.
    pub(super) fn write(&mut self, out: &mut Vec<u8>) -> Result<bool> {
        let Some(tls) = &mut self.tls else {
            while !out.is_empty() {
                match again(self.socket.write(out))? {
                    Some(n) => drop(out.drain(..n)),
                    None => break,
                }
            }
            return Ok(!out.is_empty());
        };
        if !out.is_empty() {
            tls.writer().write_all(out)?;
            out.clear();
        }
        while tls.wants_write() {
            if again(tls.write_tls(&mut self.socket))?.is_none() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn again(done: io::Result<usize>) -> Result<Option<usize>> {
    match done {
        Ok(n) => Ok(Some(n)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error.into()),
    }
}
