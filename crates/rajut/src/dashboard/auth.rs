//! Who may see what: tokens that are printed at the start, sessions that they are exchanged for, hosts that are ours.
//!
//! A token is 32 random bytes and compared in constant time; guessing it is hopeless, so that wrong ones need no count. A session is
//! 32 random bytes in a cookie that no script can read (`HttpOnly`) and that no other site's request carries (`SameSite=Strict`);
//! only its digest is kept. All of it ends with the process.
//!
//! Bounds: [`SESSIONS_MAX`] sessions, the one that was used longest ago goes; each ends after [`SESSION_LIFE`].

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use aws_lc_rs::{
    constant_time::verify_slices_are_equal,
    digest::{SHA256, digest},
    rand,
};

/// Sessions at once.
pub(crate) const SESSIONS_MAX: usize = 64;
/// How long a session lives.
pub(crate) const SESSION_LIFE: Duration = Duration::from_hours(12);

/// What a session may see. Nobody may change anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// What passes in the mesh, and its alarms.
    Viewer,
    /// Everything: also who can reach what, and what the configuration says.
    Auditor,
}

impl Role {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Auditor => "auditor",
        }
    }
}

/// 32 random bytes as hexadecimal digits. Its `Debug` shows nothing.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Secret {
    pub(crate) fn random() -> anyhow::Result<Self> {
        let mut bytes = [0; 32];
        rand::fill(&mut bytes)
            .ok()
            .context("the system gives no random bytes")?;
        let mut digits = String::with_capacity(64);
        for byte in bytes {
            append!(digits, "{byte:02x}");
        }
        Ok(Self(digits))
    }

    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }

    fn is(&self, other: &str) -> bool {
        verify_slices_are_equal(self.0.as_bytes(), other.as_bytes()).is_ok()
    }
}

type Digest = [u8; 32];

#[derive(Debug)]
struct Session {
    role: Role,
    opened: Instant,
    used: Instant,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Door {
    pub(crate) viewer: Secret,
    pub(crate) auditor: Secret,
    /// `name:port` by which it may be called, in lower case.
    hosts: Vec<String>,
    cookie: String,
    /// Digest of a session's secret → the session; ≤ [`SESSIONS_MAX`].
    sessions: HashMap<Digest, Session>,
}

impl Door {
    /// `port`: the one that is listened on; `hosts`: names besides those of this machine's loopback.
    pub(crate) fn new(port: u16, hosts: &[String]) -> anyhow::Result<Self> {
        let own = ["127.0.0.1", "localhost", "[::1]"].map(str::to_owned);
        let with_port = |host: &String| match host.rsplit_once(':') {
            Some((_, after)) if after.parse::<u16>().is_ok() => host.to_ascii_lowercase(),
            _ => format!("{}:{port}", host.to_ascii_lowercase()),
        };
        Ok(Self {
            viewer: Secret::random()?,
            auditor: Secret::random()?,
            hosts: own.iter().chain(hosts).map(with_port).collect(),
            // Cookies know no ports: consoles of two meshes on one machine must not take each other's.
            cookie: format!("rajut_console_{port}"),
            sessions: HashMap::new(),
        })
    }

    /// Whether a request that names this `Host` is meant for us.
    pub(crate) fn is_own_host(&self, host: &str) -> bool {
        self.hosts.iter().any(|own| own.eq_ignore_ascii_case(host))
    }

    /// Whether a page of this origin is ours.
    pub(crate) fn is_own_origin(&self, origin: &str) -> bool {
        let host = origin
            .strip_prefix("http://")
            .or_else(|| origin.strip_prefix("https://"));
        host.is_some_and(|host| self.is_own_host(host))
    }

    /// Exchanges a token for a session: its role, and the `Set-Cookie` that carries it.
    pub(crate) fn open(&mut self, token: &str, now: Instant) -> anyhow::Result<Option<(Role, String)>> {
        // Both are compared, whatever the first says.
        let (viewer, auditor) = (self.viewer.is(token), self.auditor.is(token));
        let role = match (auditor, viewer) {
            (true, _) => Role::Auditor,
            (false, true) => Role::Viewer,
            (false, false) => return Ok(None),
        };
        self.sessions
            .retain(|_, session| now < session.opened + SESSION_LIFE);
        if self.sessions.len() >= SESSIONS_MAX
            && let Some(oldest) = self
                .sessions
                .iter()
                .min_by_key(|(_, session)| session.used)
                .map(|(key, _)| *key)
        {
            self.sessions.remove(&oldest);
        }
        let secret = Secret::random()?;
        let session = Session {
            role,
            opened: now,
            used: now,
        };
        self.sessions.insert(key(secret.reveal()), session);
        let cookie = format!(
            "{}={}; HttpOnly; SameSite=Strict; Path=/; Max-Age={}",
            self.cookie,
            secret.reveal(),
            SESSION_LIFE.as_secs()
        );
        Ok(Some((role, cookie)))
    }

    /// The role of the session that a `Cookie` header carries.
    pub(crate) fn session(&mut self, cookies: &str, now: Instant) -> Option<Role> {
        let session = self.sessions.get_mut(&key(secret_of(cookies, &self.cookie)?))?;
        if now >= session.opened + SESSION_LIFE {
            return None;
        }
        session.used = now;
        Some(session.role)
    }

    /// Ends a session; the `Set-Cookie` that forgets it.
    pub(crate) fn close(&mut self, cookies: &str) -> String {
        if let Some(secret) = secret_of(cookies, &self.cookie) {
            self.sessions.remove(&key(secret));
        }
        format!("{}=; HttpOnly; SameSite=Strict; Path=/; Max-Age=0", self.cookie)
    }
}

fn key(secret: &str) -> Digest {
    let mut key = [0; 32];
    key.copy_from_slice(digest(&SHA256, secret.as_bytes()).as_ref());
    key
}

fn secret_of<'a>(cookies: &'a str, name: &str) -> Option<&'a str> {
    cookies
        .split(';')
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use rajut_runtime::Clock;

    use super::*;

    fn door() -> Door {
        Door::new(7470, &["mesh.example".to_owned(), "proxy.example:443".to_owned()]).expect("random bytes")
    }

    #[test]
    fn a_token_opens_a_session_of_its_role_and_no_other_text_does() {
        let (mut door, now) = (door(), Clock::system().now());
        let (viewer, auditor) = (door.viewer.clone(), door.auditor.clone());
        assert_ne!(viewer, auditor);
        for wrong in ["", "0", &viewer.reveal()[1..], &format!("{}0", viewer.reveal())] {
            assert!(door.open(wrong, now).expect("random bytes").is_none(), "{wrong}");
        }
        for (token, role) in [(viewer, Role::Viewer), (auditor, Role::Auditor)] {
            let opened = door.open(token.reveal(), now).expect("random bytes");
            let (found, cookie) = opened.expect("a session");
            assert_eq!(found, role);
            for attribute in ["; HttpOnly", "; SameSite=Strict", "; Path=/", "; Max-Age=43200"] {
                assert!(cookie.contains(attribute), "{cookie}");
            }
            assert!(!cookie.contains(token.reveal()), "the cookie is not the token");
            let sent = format!("other=1; {}", cookie.split(';').next().expect("a pair"));
            assert_eq!(door.session(&sent, now), Some(role));
            assert_eq!(door.session(&sent, now + SESSION_LIFE), None, "it ends");
            assert!(door.close(&sent).ends_with("Max-Age=0"));
            assert_eq!(door.session(&sent, now), None, "it was ended");
        }
        assert_eq!(door.session("rajut_console_7470=0; x", now), None);
        assert!(!format!("{door:?}").contains(door.viewer.reveal()));
    }

    #[test]
    fn the_oldest_session_goes_where_there_are_too_many() {
        let (mut door, now) = (door(), Clock::system().now());
        let token = door.viewer.reveal().to_owned();
        let mut cookies = Vec::new();
        for second in 0..=SESSIONS_MAX {
            let at = now + Duration::from_secs(second as u64);
            let (_, cookie) = door.open(&token, at).expect("random bytes").expect("a session");
            cookies.push(cookie);
        }
        assert_eq!(door.sessions.len(), SESSIONS_MAX);
        let later = now + Duration::from_mins(5);
        assert_eq!(door.session(&cookies[0], later), None);
        assert_eq!(door.session(&cookies[1], later), Some(Role::Viewer));
    }

    #[test]
    fn only_names_of_this_machine_and_given_ones_are_own_hosts() {
        let door = door();
        for own in [
            "127.0.0.1:7470",
            "localhost:7470",
            "LOCALHOST:7470",
            "[::1]:7470",
            "mesh.example:7470",
            "proxy.example:443",
        ] {
            assert!(door.is_own_host(own), "{own}");
        }
        for foreign in [
            "",
            "127.0.0.1",
            "127.0.0.1:80",
            "evil.example:7470",
            "localhost.evil.example:7470",
        ] {
            assert!(!door.is_own_host(foreign), "{foreign}");
        }
        assert!(door.is_own_origin("http://localhost:7470") && !door.is_own_origin("null"));
    }
}
