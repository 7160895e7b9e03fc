//! Step 11 of walk one: what can go wrong, and what it means to the client, the log and the retry decision.
//!
//! One enum of what happened ([`FailureKind`]) and one exhaustive table ([`FailureKind::spec`]) that maps each to its
//! stage, fault, retry rule, response flag, status, gRPC status, body and details, in Envoy's words. A failure that is
//! not in the table does not compile. What it does not do: write the answer (`http/reply.rs`) or retry
//! (`http/retry.rs`).

use rajut_types::Text;

/// The stage of walk one in which a request failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Reading the head.
    Head,
    /// Choosing a route.
    Decide,
    /// The HTTP filters.
    Filter,
    /// Choosing an endpoint.
    Pick,
    /// Making or waiting for a connection.
    Connect,
    /// Sending the request, receiving the response.
    Exchange,
    /// Writing the response.
    Respond,
}

/// Whose fault it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The client's.
    Downstream,
    /// The endpoint's.
    Upstream,
    /// The configuration says so.
    Policy,
    /// A limit is reached.
    Overload,
    /// Ours.
    Internal,
}

/// Whether the request may be sent a second time, as far as the failure itself tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Retry {
    /// No.
    Never,
    /// Yes: the endpoint has not seen the request.
    Safe,
    /// Only where repeating it has the effect of sending it once: it may have been processed.
    IfIdempotent,
}

/// A set of Envoy's response flags.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Flags(u32);

macro_rules! flags {
    ($($name:ident = $bit:literal, $envoy:literal, $short:literal, $long:literal;)*) => {
        impl Flags {
            $(#[doc = concat!("`", $short, "`: ", $long)] pub const $name: Self = Self(1 << $bit);)*
            const NAMES: &'static [(Self, &'static str, &'static str)] = &[$((Self::$name, $short, $long)),*];
            /// The bits that Envoy has for them. Source: Envoy `CoreResponseFlag`.
            const ENVOY: &'static [(Self, u32)] = &[$((Self::$name, 1 << $envoy)),*];
        }
    };
}

flags! {
    NO_HEALTHY_UPSTREAM = 0, 1, "UH", "NoHealthyUpstream";
    UPSTREAM_FAILURE = 1, 5, "UF", "UpstreamConnectionFailure";
    UPSTREAM_OVERFLOW = 2, 7, "UO", "UpstreamOverflow";
    NO_ROUTE = 3, 8, "NR", "NoRouteFound";
    RETRY_LIMIT = 4, 15, "URX", "UpstreamRetryLimitExceeded";
    NO_CLUSTER = 5, 24, "NC", "NoClusterFound";
    DURATION_TIMEOUT = 6, 22, "DT", "DurationTimeout";
    DOWNSTREAM_TERMINATION = 7, 14, "DC", "DownstreamConnectionTermination";
    LOCAL_RESET = 8, 3, "LR", "LocalReset";
    UPSTREAM_REMOTE_RESET = 9, 4, "UR", "UpstreamRemoteReset";
    UPSTREAM_TERMINATION = 10, 6, "UC", "UpstreamConnectionTermination";
    STREAM_IDLE = 11, 16, "SI", "StreamIdleTimeout";
    DOWNSTREAM_PROTOCOL = 12, 18, "DPE", "DownstreamProtocolError";
    UPSTREAM_PROTOCOL = 13, 23, "UPE", "UpstreamProtocolError";
    UPSTREAM_TIMEOUT = 14, 2, "UT", "UpstreamRequestTimeout";
    UPSTREAM_MAX_DURATION = 15, 19, "UMSDR", "UpstreamMaxStreamDurationReached";
    OVERLOAD = 16, 25, "OM", "OverloadManagerTerminated";
    DNS_FAILURE = 17, 26, "DF", "DnsResolutionFailed";
    RATE_LIMITED = 18, 11, "RL", "RateLimited";
    DELAY_INJECTED = 19, 9, "DI", "DelayInjected";
    FAULT_INJECTED = 20, 10, "FI", "FaultInjected";
    UNAUTHORIZED_EXTERNAL_SERVICE = 21, 12, "UAEX", "UnauthorizedExternalService";
}

impl Flags {
    /// No flag.
    pub const NONE: Self = Self(0);

    /// Both sets.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The set as a number.
    pub(crate) const fn bits(self) -> u32 {
        self.0
    }

    /// The set as Envoy numbers it (`response.flags`).
    pub(crate) fn envoy_bits(self) -> u32 {
        let set = Self::ENVOY.iter().filter(|(flag, _)| self.has(*flag));
        set.fold(0, |bits, (_, bit)| bits | bit)
    }

    /// A set of any bits.
    #[cfg(test)]
    pub(crate) const fn of_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// Whether one of `other`'s flags is set.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// The short form of Envoy's `%RESPONSE_FLAGS%`, `-` for none.
    pub fn write_short(self, out: &mut Vec<u8>) {
        self.write(out, |(_, short, _)| short);
    }

    /// Envoy's `%RESPONSE_FLAGS_LONG%`.
    pub fn write_long(self, out: &mut Vec<u8>) {
        self.write(out, |(_, _, long)| long);
    }

    fn write(
        self,
        out: &mut Vec<u8>,
        name: impl Fn(&'static (Self, &'static str, &'static str)) -> &'static str,
    ) {
        if self == Self::NONE {
            out.push(b'-');
            return;
        }
        let mut first = true;
        for entry in Self::NAMES.iter().filter(|(flag, ..)| self.has(*flag)) {
            if !first {
                out.push(b',');
            }
            first = false;
            out.extend_from_slice(name(entry).as_bytes());
        }
    }
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// The request's head or body breaks HTTP (`status` says how: 400, 413, 414, 426, 431, 501, 505).
    MalformedRequest {
        /// The answer.
        status: u16,
    },
    /// What is asked for is no path (`OPTIONS *`): nothing here has it.
    NoPath,
    /// The path can't be brought into its normal form.
    BadPath,
    /// The head did not arrive in time.
    RequestHeadersTimeout,
    /// The request did not arrive in time.
    RequestTimeout,
    /// Nothing moved on the stream for too long (408 while the request is incomplete, else 504).
    StreamIdleTimeout {
        /// The answer.
        status: u16,
    },
    /// The client went away.
    DownstreamGone,
    /// No route takes the request.
    NoRoute,
    /// The route's cluster is unknown (`status` is the route's).
    NoCluster {
        /// The answer.
        status: u16,
    },
    /// The cluster was asked for and has not come in time.
    ClusterFetchTimeout,
    /// Too many requests wait for clusters that were asked for.
    ClusterFetchOverflow,
    /// The upgrade (or CONNECT) is not allowed here.
    UpgradeRefused,
    /// A policy refuses the request.
    AccessDenied,
    /// A token of the request is missing or no good.
    TokenRefused {
        /// What is wrong.
        fault: TokenFault,
        /// It stood in the query, which the answer therefore does not repeat.
        in_query: bool,
    },
    /// Nobody has answered whether the request may pass.
    AuthorizationFailed {
        /// The answer.
        status: u16,
    },
    /// Whoever was asked whether the request may pass wants what can't be done.
    AuthorizationInvalid,
    /// The request's body is larger than what is shown of bodies.
    BodyTooLarge,
    /// The request is over a rate.
    RateLimited {
        /// The answer.
        status: u16,
        /// A gRPC client gets `RESOURCE_EXHAUSTED`.
        exhausted: bool,
    },
    /// The configuration wants the request to fail.
    FaultInjected {
        /// The answer.
        status: u16,
        /// What a gRPC client gets, where it does not follow from `status`.
        grpc: Option<u8>,
    },
    /// No endpoint can be used.
    NoHealthyUpstream,
    /// A name of the cluster could not be resolved.
    DnsFailure,
    /// Too many requests wait for a connection.
    PendingOverflow,
    /// Too many requests are in flight.
    RequestOverflow,
    /// Too many connections (TCP, where nothing can wait).
    ConnectionOverflow,
    /// The connection was refused, reset or unreachable while it was made.
    ConnectFailure,
    /// The connection was not made in time.
    ConnectTimeout,
    /// The TLS handshake failed.
    TlsFailure,
    /// A pooled connection was found closed before anything was written to it.
    StaleConnection,
    /// The upstream closed the connection before the response's head.
    UpstreamClosed,
    /// The upstream reset the stream or connection before the response's head.
    UpstreamReset,
    /// HTTP/2 `REFUSED_STREAM`, or a GOAWAY that does not cover the stream: not processed.
    StreamRefused,
    /// The upstream's bytes are not HTTP.
    UpstreamProtocol,
    /// The response did not come in the route's time.
    UpstreamTimeout,
    /// The response did not come in the time of one try.
    PerTryTimeout,
    /// The stream lasted too long.
    MaxStreamDuration,
    /// Something of ours broke.
    Internal,
}

/// What a [`FailureKind`] means. Bodies and details are Envoy's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spec {
    /// Where it happened.
    pub stage: Stage,
    /// Whose fault it is.
    pub fault: Fault,
    /// May the request be sent again?
    pub retry: Retry,
    /// The response flag.
    pub flag: Flags,
    /// The answer's status; 0 where no answer is possible.
    pub status: u16,
    /// The answer's gRPC status.
    pub grpc: u8,
    /// The answer's body; with `reset_reason`, Envoy's sentence around it is used instead.
    pub body: &'static str,
    /// The reason inside Envoy's "upstream connect error or disconnect/reset before headers" sentence.
    pub reset_reason: Option<&'static str>,
    /// `%RESPONSE_CODE_DETAILS%`.
    pub details: &'static str,
    /// It counts as a failure of the endpoint (outlier detection, local origin).
    pub blames_host: bool,
}

const UNAVAILABLE: u8 = 14;

/// The gRPC status for an HTTP status, as Envoy and the gRPC documents map them.
pub const fn grpc_status_of(status: u16) -> u8 {
    match status {
        400 | 431 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502 | 503 | 504 => UNAVAILABLE,
        _ => 2,
    }
}

/// Whether a gRPC status means one of HTTP's 5xx: unknown, deadline exceeded, unimplemented, internal, unavailable, data loss.
/// Source: Envoy `Grpc::Utility::grpcToHttpStatus`.
pub const fn is_grpc_server_error(status: u8) -> bool {
    matches!(status, 2 | 4 | 12 | 13 | 14 | 15)
}

const fn downstream(status: u16, flag: Flags, body: &'static str, details: &'static str) -> Spec {
    Spec {
        stage: Stage::Head,
        fault: Fault::Downstream,
        retry: Retry::Never,
        flag,
        status,
        grpc: grpc_status_of(status),
        body,
        reset_reason: None,
        details,
        blames_host: false,
    }
}

const fn policy(stage: Stage, status: u16, flag: Flags, body: &'static str, details: &'static str) -> Spec {
    Spec {
        stage,
        fault: Fault::Policy,
        ..downstream(status, flag, body, details)
    }
}

const fn overflow(stage: Stage) -> Spec {
    Spec {
        stage,
        fault: Fault::Overload,
        retry: Retry::Never,
        flag: Flags::UPSTREAM_OVERFLOW,
        status: 503,
        grpc: UNAVAILABLE,
        body: "",
        reset_reason: Some("overflow"),
        details: "upstream_reset_before_response_started{overflow}",
        blames_host: false,
    }
}

const fn reset(
    stage: Stage,
    retry: Retry,
    flag: Flags,
    status: u16,
    reason: &'static str,
    details: &'static str,
) -> Spec {
    Spec {
        stage,
        fault: Fault::Upstream,
        retry,
        flag,
        status,
        grpc: UNAVAILABLE,
        body: "",
        reset_reason: Some(reason),
        details,
        blames_host: true,
    }
}

const fn timeout(flag: Flags, retry: Retry, details: &'static str) -> Spec {
    Spec {
        stage: Stage::Exchange,
        fault: Fault::Upstream,
        retry,
        flag,
        status: 504,
        grpc: 4,
        body: "upstream request timeout",
        reset_reason: None,
        details,
        blames_host: true,
    }
}

impl FailureKind {
    /// The one table.
    #[expect(clippy::too_many_lines, reason = "one table")]
    pub const fn spec(self) -> Spec {
        use Flags as F;
        match self {
            Self::MalformedRequest { status } => {
                downstream(status, F::DOWNSTREAM_PROTOCOL, "", "http1.codec_error")
            }
            Self::NoPath => policy(Stage::Head, 404, F::NONE, "", "absolute_path_rejected"),
            Self::BadPath => downstream(400, F::NONE, "", "path_normalization_failed"),
            Self::RequestHeadersTimeout => {
                downstream(408, F::NONE, "request header timeout", "request_header_timeout")
            }
            Self::RequestTimeout => downstream(408, F::NONE, "request timeout", "request_overall_timeout"),
            Self::StreamIdleTimeout { status } => {
                downstream(status, F::STREAM_IDLE, "stream timeout", "stream_idle_timeout")
            }
            Self::DownstreamGone => {
                downstream(0, F::DOWNSTREAM_TERMINATION, "", "downstream_remote_disconnect")
            }
            Self::NoRoute => policy(Stage::Decide, 404, F::NO_ROUTE, "", "route_not_found"),
            Self::NoCluster { status } => {
                policy(Stage::Decide, status, F::NO_CLUSTER, "", "cluster_not_found")
            }
            Self::ClusterFetchTimeout => Spec {
                fault: Fault::Internal,
                grpc: UNAVAILABLE,
                ..policy(
                    Stage::Decide,
                    503,
                    F::NO_CLUSTER,
                    "the control plane does not answer",
                    "cluster_fetch_timeout",
                )
            },
            Self::ClusterFetchOverflow => Spec {
                fault: Fault::Overload,
                grpc: UNAVAILABLE,
                ..policy(
                    Stage::Decide,
                    503,
                    F::NO_CLUSTER.with(F::UPSTREAM_OVERFLOW),
                    "too many requests wait for the control plane",
                    "cluster_fetch_overflow",
                )
            },
            Self::UpgradeRefused => policy(Stage::Decide, 403, F::NONE, "", "upgrade_failed"),
            Self::AccessDenied => policy(
                Stage::Filter,
                403,
                F::NONE,
                "RBAC: access denied",
                "rbac_access_denied",
            ),
            Self::TokenRefused { fault, .. } => {
                let (status, body, details) = fault.answer();
                policy(Stage::Filter, status, F::NONE, body, details)
            }
            Self::AuthorizationFailed { status } => policy(
                Stage::Filter,
                status,
                F::UNAUTHORIZED_EXTERNAL_SERVICE,
                "",
                "ext_authz_error",
            ),
            Self::AuthorizationInvalid => policy(
                Stage::Filter,
                500,
                F::UNAUTHORIZED_EXTERNAL_SERVICE,
                "",
                "ext_authz_invalid",
            ),
            Self::BodyTooLarge => downstream(413, F::NONE, "Payload Too Large", "request_payload_too_large"),
            Self::RateLimited { status, exhausted } => Spec {
                grpc: if exhausted { 8 } else { UNAVAILABLE },
                ..policy(
                    Stage::Filter,
                    status,
                    F::RATE_LIMITED,
                    "local_rate_limited",
                    "local_rate_limited",
                )
            },
            Self::FaultInjected { status, grpc } => {
                let spec = policy(
                    Stage::Filter,
                    status,
                    F::FAULT_INJECTED,
                    "fault filter abort",
                    "fault_filter_abort",
                );
                match grpc {
                    Some(grpc) => Spec { grpc, ..spec },
                    None => spec,
                }
            }
            Self::NoHealthyUpstream => Spec {
                stage: Stage::Pick,
                fault: Fault::Upstream,
                grpc: UNAVAILABLE,
                ..downstream(
                    503,
                    F::NO_HEALTHY_UPSTREAM,
                    "no healthy upstream",
                    "no_healthy_upstream",
                )
            },
            Self::DnsFailure => Spec {
                stage: Stage::Pick,
                fault: Fault::Upstream,
                grpc: UNAVAILABLE,
                ..downstream(
                    503,
                    F::DNS_FAILURE,
                    "DNS resolution failure",
                    "dns_resolution_failure",
                )
            },
            Self::PendingOverflow | Self::ConnectionOverflow => overflow(Stage::Connect),
            Self::RequestOverflow => overflow(Stage::Exchange),
            Self::ConnectFailure => reset(
                Stage::Connect,
                Retry::Safe,
                F::UPSTREAM_FAILURE,
                503,
                "remote connection failure",
                "upstream_reset_before_response_started{remote_connection_failure}",
            ),
            Self::ConnectTimeout => reset(
                Stage::Connect,
                Retry::Safe,
                F::UPSTREAM_FAILURE,
                503,
                "connection timeout",
                "upstream_reset_before_response_started{connection_timeout}",
            ),
            Self::TlsFailure => reset(
                Stage::Connect,
                Retry::Safe,
                F::UPSTREAM_FAILURE,
                503,
                "remote connection failure",
                "upstream_reset_before_response_started{remote_connection_failure|TLS_error}",
            ),
            Self::StaleConnection => Spec {
                blames_host: false,
                ..reset(
                    Stage::Connect,
                    Retry::Safe,
                    F::UPSTREAM_TERMINATION,
                    503,
                    "connection termination",
                    "upstream_reset_before_response_started{connection_termination}",
                )
            },
            Self::UpstreamClosed => reset(
                Stage::Exchange,
                Retry::IfIdempotent,
                F::UPSTREAM_TERMINATION,
                503,
                "connection termination",
                "upstream_reset_before_response_started{connection_termination}",
            ),
            Self::UpstreamReset => reset(
                Stage::Exchange,
                Retry::IfIdempotent,
                F::UPSTREAM_REMOTE_RESET,
                503,
                "remote reset",
                "upstream_reset_before_response_started{remote_reset}",
            ),
            Self::StreamRefused => reset(
                Stage::Exchange,
                Retry::Safe,
                F::UPSTREAM_REMOTE_RESET,
                503,
                "remote refused stream reset",
                "upstream_reset_before_response_started{remote_refused_stream_reset}",
            ),
            Self::UpstreamProtocol => reset(
                Stage::Exchange,
                Retry::IfIdempotent,
                F::UPSTREAM_PROTOCOL,
                502,
                "protocol error",
                "upstream_reset_before_response_started{protocol_error}",
            ),
            Self::UpstreamTimeout => timeout(F::UPSTREAM_TIMEOUT, Retry::Never, "response_timeout"),
            Self::PerTryTimeout => timeout(
                F::UPSTREAM_TIMEOUT,
                Retry::IfIdempotent,
                "upstream_per_try_timeout",
            ),
            Self::MaxStreamDuration => Spec {
                blames_host: false,
                ..timeout(
                    F::UPSTREAM_MAX_DURATION,
                    Retry::Never,
                    "upstream_max_stream_duration_reached",
                )
            },
            Self::Internal => Spec {
                fault: Fault::Internal,
                ..downstream(500, F::NONE, "", "internal_error")
            },
        }
    }
}

macro_rules! token_faults {
    ($($(#[$doc:meta])* $name:ident = $status:literal, $text:literal, $details:literal;)*) => {
        /// What is wrong with a token. Worded as Envoy words it, where Envoy has it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum TokenFault { $($(#[$doc])* $name,)* }

        impl TokenFault {
            /// Status, body and `%RESPONSE_CODE_DETAILS%`.
            pub const fn answer(self) -> (u16, &'static str, &'static str) {
                match self { $(Self::$name => ($status, $text, concat!("jwt_authn_access_denied{", $details, "}")),)* }
            }
        }
    };
}

token_faults! {
    /// There is none.
    Missing = 401, "Jwt is missing", "Jwt_is_missing";
    /// It is not valid yet.
    NotYet = 401, "Jwt not yet valid", "Jwt_not_yet_valid";
    /// It is not valid any more.
    Expired = 401, "Jwt is expired", "Jwt_is_expired";
    /// It has not three parts.
    BadFormat = 401, "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections", "Jwt_is_not_in_the_form_of_Header.Payload.Signature_with_two_dots_and_3_sections";
    /// Its first part is not base64url.
    HeaderNotBase64 = 401, "Jwt header is an invalid Base64url encoded", "Jwt_header_is_an_invalid_Base64url_encoded";
    /// Its first part is not a JSON object.
    HeaderNotJson = 401, "Jwt header is an invalid JSON", "Jwt_header_is_an_invalid_JSON";
    /// It names no algorithm.
    AlgorithmMissing = 401, "Jwt header [alg] field is required and must be a string", "Jwt_header_[alg]_field_is_required_and_must_be_a_string";
    /// Its algorithm is none that is taken.
    AlgorithmUnknown = 401, "Jwt header [alg] is not supported", "Jwt_header_[alg]_is_not_supported";
    /// The name of its key is not text.
    KeyIdNotText = 401, "Jwt header [kid] field is not a string", "Jwt_header_[kid]_field_is_not_a_string";
    /// It has an extension that must be understood, and is not.
    Critical = 401, "Jwt header [crit] is not supported", "Jwt_header_[crit]_is_not_supported";
    /// Its second part is not base64url.
    PayloadNotBase64 = 401, "Jwt payload is an invalid Base64url encoded", "Jwt_payload_is_an_invalid_Base64url_encoded";
    /// Its second part is not a JSON object.
    PayloadNotJson = 401, "Jwt payload is an invalid JSON", "Jwt_payload_is_an_invalid_JSON";
    /// Its issuer is not text.
    IssuerNotText = 401, "Jwt payload [iss] field is not a string", "Jwt_payload_[iss]_field_is_not_a_string";
    /// Its subject is not text.
    SubjectNotText = 401, "Jwt payload [sub] field is not a string", "Jwt_payload_[sub]_field_is_not_a_string";
    /// Its number is not text.
    IdNotText = 401, "Jwt payload [jti] field is not a string", "Jwt_payload_[jti]_field_is_not_a_string";
    /// When it was issued is no time.
    IssuedNotTime = 401, "Jwt payload [iat] field is not an integer", "Jwt_payload_[iat]_field_is_not_an_integer";
    /// From when it is valid is no time.
    NotBeforeNotTime = 401, "Jwt payload [nbf] field is not an integer", "Jwt_payload_[nbf]_field_is_not_an_integer";
    /// Until when it is valid is no time.
    ExpiresNotTime = 401, "Jwt payload [exp] field is not an integer", "Jwt_payload_[exp]_field_is_not_an_integer";
    /// Its audience is neither text nor texts.
    AudienceNotText = 401, "Jwt payload [aud] field is not a string or string list", "Jwt_payload_[aud]_field_is_not_a_string_or_string_list";
    /// Its third part is not base64url.
    SignatureNotBase64 = 401, "Jwt signature is an invalid Base64url encoded", "Jwt_signature_is_an_invalid_Base64url_encoded";
    /// Its signature has not the length of its key's signatures.
    SignatureLength = 401, "Jwt ED25519 signature is wrong length", "Jwt_ED25519_signature_is_wrong_length";
    /// It is longer than the bound.
    TooLong = 401, "Jwt is too long", "Jwt_is_too_long";
    /// There are more than are looked at.
    TooMany = 401, "Found multiple Jwt tokens", "Found_multiple_Jwt_tokens";
    /// Nobody trusts its issuer.
    OtherIssuer = 401, "Jwt issuer is not configured", "Jwt_issuer_is_not_configured";
    /// It is for somebody else.
    OtherAudience = 403, "Audiences in Jwt are not allowed", "Audiences_in_Jwt_are_not_allowed";
    /// None of the keys is the one that it names, or of its algorithm.
    NoSuchKey = 401, "Jwks doesn't have key to match kid or alg from Jwt", "Jwks_doesn't_have_key_to_match_kid_or_alg_from_Jwt";
    /// There are no keys of its issuer.
    NoKeys = 401, "Jwks doesn't have any valid public key", "Jwks_doesn't_have_any_valid_public_key";
    /// None of the keys has signed it.
    BadSignature = 401, "Jwt verification fails", "Jwt_verification_fails";
}

impl TokenFault {
    /// How much it says of a request in which several issuers looked for a token.
    pub(crate) const fn tells(self) -> u8 {
        match self {
            Self::Missing => 0,
            Self::OtherIssuer => 1,
            _ => 2,
        }
    }
}

/// A failure and, where the transport told one, its reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind:?}{}", self.reason.as_deref().map(|r| format!(": {r}")).unwrap_or_default())]
pub struct Failure {
    /// What happened.
    pub kind: FailureKind,
    /// `%UPSTREAM_TRANSPORT_FAILURE_REASON%`.
    pub reason: Option<Text>,
    /// `%RESPONSE_CODE_DETAILS%`, where it is not what the table says.
    pub details: Option<Text>,
}

impl From<FailureKind> for Failure {
    fn from(kind: FailureKind) -> Self {
        Self {
            kind,
            reason: None,
            details: None,
        }
    }
}

impl Failure {
    /// A failure with the transport's own words.
    pub fn new(kind: FailureKind, reason: impl Into<Text>) -> Self {
        Self {
            kind,
            reason: Some(reason.into()),
            details: None,
        }
    }

    /// The response flag in its short form.
    pub fn flag(&self) -> String {
        let mut out = Vec::new();
        self.spec().flag.write_short(&mut out);
        String::from_utf8(out).unwrap_or_default()
    }

    /// What it means.
    pub const fn spec(&self) -> Spec {
        self.kind.spec()
    }

    /// The body of the answer, as Envoy words it. `retried`: tries went before.
    pub fn body(&self, retried: bool) -> String {
        let spec = self.spec();
        let Some(reset) = spec.reset_reason else {
            return spec.body.to_owned();
        };
        let mut body = String::from("upstream connect error or disconnect/reset before headers. ");
        body.push_str(if retried {
            "retried and the latest reset reason: "
        } else {
            "reset reason: "
        });
        body.push_str(reset);
        if let Some(reason) = &self.reason {
            body.push_str(", transport failure reason: ");
            body.push_str(reason);
        }
        body
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_may_have_been_processed_is_safe_to_send_again() {
        for kind in [
            FailureKind::UpstreamClosed,
            FailureKind::UpstreamReset,
            FailureKind::UpstreamProtocol,
            FailureKind::PerTryTimeout,
        ] {
            assert_eq!(kind.spec().retry, Retry::IfIdempotent, "{kind:?}");
        }
        assert_eq!(FailureKind::UpstreamTimeout.spec().retry, Retry::Never);
        assert_eq!(FailureKind::ConnectFailure.spec().retry, Retry::Safe);
    }

    #[test]
    fn bodies_read_like_envoys() {
        let refused = Failure::new(
            FailureKind::ConnectFailure,
            "delayed connect error: Connection refused",
        );
        assert_eq!(
            refused.body(false),
            "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure, \
             transport failure reason: delayed connect error: Connection refused"
        );
        assert!(refused.body(true).contains("retried and the latest reset reason"));
        assert_eq!(
            Failure::from(FailureKind::NoHealthyUpstream).body(false),
            "no healthy upstream"
        );
    }

    #[test]
    fn flags_are_joined_and_none_is_a_dash() {
        let mut out = Vec::new();
        Flags::UPSTREAM_FAILURE
            .with(Flags::RETRY_LIMIT)
            .write_short(&mut out);
        out.push(b' ');
        Flags::NONE.write_short(&mut out);
        assert_eq!(out, b"UF,URX -");
    }
}
