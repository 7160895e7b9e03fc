//! The client half of the mesh's identities: key, certificate request, enrolment, rotation, trust bundle, verification of
//! peers, and the rustls configurations of both directions.
//!
//! Both walks of `ARCHITECTURE.md`: step 3 (`tls/terminate`) and step 8 (`tls/originate`) of a request use the
//! configurations, the connection to the control plane uses [`enrol::control_plane_connector`].
//!
//! | module | what |
//! | --- | --- |
//! | [`store`] | [`Identity`], and [`IdentityStore`] that hands the newest one to every worker |
//! | [`certificate`] | what a certificate says: names, validity, serial |
//! | [`trust`] | roots |
//! | [`verify`] | who the peer is: chain, exactly one SPIFFE name, trust domain, expected names |
//! | [`tls`] | rustls configurations inside the mesh: TLS 1.3, X25519MLKEM768 first, no resumption |
//! | [`context`] | rustls configurations from `ir`'s TLS contexts (egress, gateways, foreign bootstraps) |
//! | [`enrol`] | asking the issuer for a certificate, and keeping it fresh |
//!
//! Rejects: peers without exactly one SPIFFE URI, of a foreign trust domain or issuer, expired certificates, key files that
//! do not parse. `Debug` of nothing here prints key material. It issues nothing: the issuer is `control::ca`.

pub mod certificate;
pub mod context;
pub mod enrol;
pub mod store;
pub mod tls;
pub mod trust;
pub mod verify;

pub use store::{Attempts, Identity, IdentityStore, Key};
pub use trust::{Revoked, TrustBundle};
pub use verify::{PeerRules, principal_of};

/// The types of rustls that stand in this crate's interface.
pub use rustls::{self, pki_types};
