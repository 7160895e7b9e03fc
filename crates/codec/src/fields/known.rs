//! The names that the data path asks for on most messages: each has a number, recognised once when a line is
//! received, so that later questions cost an index instead of a comparison. Fixed table, at most 63 entries (they
//! form a 64-bit set); any other name works everywhere too, only by comparison.

/// Declares the table: variant, name, and the (length, first byte, last byte) by which it is recognised. No two
/// entries may share that triple; a test checks each.
macro_rules! known {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $len:literal, $first:literal, $last:literal;)*) => {
        /// A field name with a slot of its own.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Known {
            // Number 0 stands for "none of these".
            $(#[doc = concat!("`", $name, "`")] $variant,)*
        }

        const ALL: &[Known] = &[$(Known::$variant),*];
        const NAMES: &[&str] = &[$($name),*];

        impl Known {
            /// Slots, the one of "none of these" included.
            pub(super) const COUNT: usize = ALL.len() + 1;

            /// The known name that these bytes spell, in any case.
            #[inline]
            pub fn classify(name: &[u8]) -> Option<Self> {
                let (first, last) = (name.first()? | 0x20, name.last()? | 0x20);
                let candidate = match (name.len(), first, last) {
                    $(($len, $first, $last) => Self::$variant,)*
                    _ => return None,
                };
                spells(name, candidate.as_str().as_bytes()).then_some(candidate)
            }
        }
    };
}

known! {
    Accept = "accept", 6, b'a', b't';
    AcceptEncoding = "accept-encoding", 15, b'a', b'g';
    AccessControlRequestMethod = "access-control-request-method", 29, b'a', b'd';
    Authorization = "authorization", 13, b'a', b'n';
    B3 = "b3", 2, b'b', b'3';
    Baggage = "baggage", 7, b'b', b'e';
    CacheControl = "cache-control", 13, b'c', b'l';
    Connection = "connection", 10, b'c', b'n';
    ContentEncoding = "content-encoding", 16, b'c', b'g';
    ContentLength = "content-length", 14, b'c', b'h';
    ContentType = "content-type", 12, b'c', b'e';
    Cookie = "cookie", 6, b'c', b'e';
    Date = "date", 4, b'd', b'e';
    Expect = "expect", 6, b'e', b't';
    Forwarded = "forwarded", 9, b'f', b'd';
    GrpcMessage = "grpc-message", 12, b'g', b'e';
    GrpcStatus = "grpc-status", 11, b'g', b's';
    GrpcTimeout = "grpc-timeout", 12, b'g', b't';
    Host = "host", 4, b'h', b't';
    Http2Settings = "http2-settings", 14, b'h', b's';
    KeepAlive = "keep-alive", 10, b'k', b'e';
    Location = "location", 8, b'l', b'n';
    Origin = "origin", 6, b'o', b'n';
    ProxyAuthenticate = "proxy-authenticate", 18, b'p', b'e';
    ProxyAuthorization = "proxy-authorization", 19, b'p', b'n';
    ProxyConnection = "proxy-connection", 16, b'p', b'n';
    RetryAfter = "retry-after", 11, b'r', b'r';
    Server = "server", 6, b's', b'r';
    SetCookie = "set-cookie", 10, b's', b'e';
    Te = "te", 2, b't', b'e';
    Traceparent = "traceparent", 11, b't', b't';
    Tracestate = "tracestate", 10, b't', b'e';
    Trailer = "trailer", 7, b't', b'r';
    TransferEncoding = "transfer-encoding", 17, b't', b'g';
    Upgrade = "upgrade", 7, b'u', b'e';
    UserAgent = "user-agent", 10, b'u', b't';
    Via = "via", 3, b'v', b'a';
    XEnvoyAttemptCount = "x-envoy-attempt-count", 21, b'x', b't';
    XEnvoyExpectedRqTimeoutMs = "x-envoy-expected-rq-timeout-ms", 30, b'x', b's';
    XEnvoyUpstreamServiceTime = "x-envoy-upstream-service-time", 29, b'x', b'e';
    XEnvoyPeerMetadata = "x-envoy-peer-metadata", 21, b'x', b'a';
    XEnvoyPeerMetadataId = "x-envoy-peer-metadata-id", 24, b'x', b'd';
    XForwardedClientCert = "x-forwarded-client-cert", 23, b'x', b't';
    XForwardedFor = "x-forwarded-for", 15, b'x', b'r';
    XForwardedHost = "x-forwarded-host", 16, b'x', b't';
    XForwardedProto = "x-forwarded-proto", 17, b'x', b'o';
    XRajutUndelivered = "x-rajut-undelivered", 19, b'x', b'd';
    XRequestId = "x-request-id", 12, b'x', b'd';
}

/// Whether `name` is `lower` (letters in lower case, digits, hyphens; of the same length) in any case. Eight bytes at
/// a time: a letter's case is bit 5, and no byte but a control character (which has neither bit 5 nor 6) becomes a
/// digit or a hyphen by setting it.
fn spells(name: &[u8], lower: &[u8]) -> bool {
    const CASE: u64 = 0x2020_2020_2020_2020;
    let differs = |name: u64, lower: u64| ((name | CASE) ^ lower) | (!(name | name >> 1) & CASE);
    let word = |bytes: &[u8; 8]| u64::from_le_bytes(*bytes);
    if let (Some(name_end), Some(lower_end)) = (name.last_chunk(), lower.last_chunk()) {
        let mut difference = differs(word(name_end), word(lower_end));
        for (name, lower) in name.as_chunks().0.iter().zip(lower.as_chunks().0) {
            difference |= differs(word(name), word(lower));
        }
        return name.len() == lower.len() && difference == 0;
    }
    name.eq_ignore_ascii_case(lower)
}

impl Known {
    /// The name in lower case.
    pub const fn as_str(self) -> &'static str {
        NAMES[self as usize]
    }

    /// All known names.
    pub const fn all() -> &'static [Self] {
        ALL
    }

    /// 1 and up; 0 stands for every other name.
    pub(super) const fn number(self) -> u8 {
        self as u8 + 1
    }

    pub(super) fn from_number(number: u8) -> Option<Self> {
        usize::from(number)
            .checked_sub(1)
            .and_then(|index| ALL.get(index).copied())
    }
}

const _: () = assert!(Known::COUNT <= 64, "a set of known names is 64 bits");

/// A set of known names, as one word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KnownSet(u64);

impl KnownSet {
    /// No name.
    pub const EMPTY: Self = Self(0);

    /// The set of these names.
    pub const fn of(names: &[Known]) -> Self {
        let mut bits = 0;
        let mut index = 0;
        while index < names.len() {
            bits |= 1 << names[index].number();
            index += 1;
        }
        Self(bits)
    }

    /// This set and one more.
    #[must_use]
    pub const fn with(self, name: Known) -> Self {
        Self(self.0 | 1 << name.number())
    }

    /// This set without one.
    #[must_use]
    pub const fn without(self, name: Known) -> Self {
        Self(self.0 & !(1 << name.number()))
    }

    /// Whether the name is in the set.
    pub const fn contains(self, name: Known) -> bool {
        self.0 >> name.number() & 1 != 0
    }

    /// As `contains`, by number; 0 is never in a set.
    pub(super) const fn contains_number(self, number: u8) -> bool {
        self.0 >> (number & 63) & 1 != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_name_is_recognised_in_any_case_and_nothing_else_is() {
        for known in Known::all() {
            let name = known.as_str();
            assert_eq!(Known::classify(name.as_bytes()), Some(*known), "{name}");
            assert_eq!(
                Known::classify(name.to_ascii_uppercase().as_bytes()),
                Some(*known),
                "{name}"
            );
            let mut other = name.as_bytes().to_vec();
            if other.len() > 2 {
                other[1] = b'0';
                assert_eq!(Known::classify(&other), None, "{name} with another second byte");
            }
            other.push(b'x');
            assert_eq!(Known::classify(&other), None);
            assert_eq!(Known::from_number(known.number()), Some(*known));
        }
        assert_eq!(Known::classify(b""), None);
        // 0x20 set on a non-letter must not make a match: CR | 0x20 is '-', 0x14 | 0x20 is '4'.
        assert_eq!(Known::classify(b"hos\x54"), Some(Known::Host));
        assert_eq!(Known::classify(b"b\x13"), None);
        assert_eq!(Known::classify(b"content\x0dlength"), None);
        assert_eq!(Known::classify(b"http\x12-settings"), None);
        assert_eq!(Known::classify(b"keep\x0dalive"), None);
    }

    #[test]
    fn sets() {
        let set = KnownSet::of(&[Known::Te, Known::XRequestId]).with(Known::Accept);
        assert!(set.contains(Known::Te) && set.contains(Known::XRequestId) && set.contains(Known::Accept));
        assert!(!set.contains(Known::Host));
        assert!(!set.contains_number(0));
    }
}
