//! The console, `rajut dashboard`: a small HTTP server on this machine that shows the mesh in a browser.
//!
//! ```text
//!  browser ── Host? session? ──► serve ─► assets (ours, embedded)            the same for everybody, no data in them
//!                                   └───► source ─► the control plane's API, the state directory, the sidecars' admin ports
//! ```
//!
//! It is a client like `rajut top` and `rajut status`: it asks what they ask and adds nothing of its own, and it can only read
//! (`GET`; the one `POST` opens or ends a session). Who may see what is [`auth`]'s. The pages are plain HTML, CSS and ES modules in
//! `dashboard/assets`; their texts, in English and Indonesian, are one table, `texts.json`.
//!
//! **Refused**: any `Host` but its own (DNS rebinding), any method but `GET`, `HEAD` and that `POST`, any path that is not listed, any
//! request without a session but for the assets. **Never answered**: environment, tokens, keys, the text of resources that
//! may hold secrets ([`source`]).
//!
//! Bounds: [`serve::CONNECTIONS_MAX`] connections, [`serve::HEAD_BYTES_MAX`] of a request's head, [`serve::BODY_BYTES_MAX`] of its
//! body, [`auth::SESSIONS_MAX`] sessions, [`source::KEPT_MAX`] answers that are kept for a moment, so that many browsers cost
//! the mesh what one does.

pub(crate) mod assets;
pub(crate) mod auth;
pub(crate) mod serve;
pub(crate) mod source;

#[cfg(test)]
mod tests;
