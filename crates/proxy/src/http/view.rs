//! A request as decisions see it: routes, policies, rate limits.

use std::{
    borrow::Cow,
    net::{IpAddr, SocketAddr},
};

use rajut_codec::Known;
use rajut_ir::{
    decide::RequestView,
    jwt::Claim,
    rbac::{CallView, PeerNames},
};

use super::record::Record;
use crate::connection::{Connection, Peer};

/// A request as decisions see it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View<'r> {
    pub(crate) record: &'r Record,
}

impl RequestView for View<'_> {
    fn method(&self) -> &[u8] {
        self.record.head.method.as_str().as_bytes()
    }

    fn scheme(&self) -> &[u8] {
        if self.record.shared.is_tls {
            b"https"
        } else {
            b"http"
        }
    }

    fn authority(&self) -> &[u8] {
        &self.record.head.authority
    }

    fn path(&self) -> &[u8] {
        &self.record.head.path_and_query
    }

    fn header(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        let fields = &self.record.head.fields;
        let first = fields.get(name)?;
        if fields.count(name) == 1 {
            return Some(Cow::Borrowed(first));
        }
        let values: Vec<&[u8]> = fields.get_all(name).collect();
        Some(Cow::Owned(values.join(&b',')))
    }

    fn any_value(&self, name: &str, passes: &mut dyn FnMut(&[u8]) -> bool) -> Option<bool> {
        let fields = &self.record.head.fields;
        fields.contains(name).then(|| fields.get_all(name).any(passes))
    }

    fn told(&self, name: &str) -> Option<&Claim> {
        self.record.filters.told.get(name)
    }
}

impl CallView for View<'_> {
    fn peer(&self) -> Option<PeerNames<'_>> {
        peer_names(&self.record.shared.connection, self.record.shared.is_tls)
    }

    fn direct_remote(&self) -> IpAddr {
        self.record.shared.connection.remote.ip()
    }

    fn remote(&self) -> IpAddr {
        client_address(self.record).ip()
    }

    fn destination(&self) -> SocketAddr {
        self.record.shared.connection.local
    }

    fn server_name(&self) -> &str {
        self.record.shared.connection.sni.as_deref().unwrap_or("")
    }

    fn claims(&self, name: &str) -> Option<&Claim> {
        self.record.filters.told.get(name)
    }
}

/// The names in the peer's certificate; `None` for plaintext, no names for TLS without a certificate.
pub(crate) fn peer_names(connection: &Connection, is_tls: bool) -> Option<PeerNames<'_>> {
    match &connection.peer {
        Peer::Verified(peer) => Some(PeerNames {
            uris: &peer.uris,
            dns: &peer.dns_names,
            subject: &peer.subject,
        }),
        Peer::None => is_tls.then(PeerNames::default),
    }
}

/// The client's address: the connection's, or the one that trusted proxies tell in `x-forwarded-for`, with port 0.
/// Source: Envoy `use_remote_address`, `xff_num_trusted_hops`.
pub(crate) fn client_address(record: &Record) -> SocketAddr {
    let direct = record.shared.connection.remote;
    let forwarded_for = || record.head.fields.get_all(Known::XForwardedFor).last();
    let told = record.manager.ir().told_client(forwarded_for);
    told.map_or(direct, |address| SocketAddr::new(address, 0))
}
