//! Why received bytes are not HTTP/2 as we accept it, and the codes with which peers tell each other (RFC 9113 §7). Each
//! variant is one rule; the tests make each of them happen.

use thiserror::Error;

/// An error code of `RST_STREAM` and GOAWAY (RFC 9113 §7), known or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Reason(pub u32);

impl Reason {
    /// Nothing went wrong.
    pub const NO_ERROR: Self = Self(0);
    /// The protocol was broken in a way that has no code of its own.
    pub const PROTOCOL_ERROR: Self = Self(1);
    /// Something went wrong inside.
    pub const INTERNAL_ERROR: Self = Self(2);
    /// More was sent than the window allowed.
    pub const FLOW_CONTROL_ERROR: Self = Self(3);
    /// Settings were not acknowledged in time.
    pub const SETTINGS_TIMEOUT: Self = Self(4);
    /// A frame for a stream whose sender had ended it.
    pub const STREAM_CLOSED: Self = Self(5);
    /// A frame has a wrong size.
    pub const FRAME_SIZE_ERROR: Self = Self(6);
    /// The request was not looked at and may be sent again.
    pub const REFUSED_STREAM: Self = Self(7);
    /// The stream is no longer needed.
    pub const CANCEL: Self = Self(8);
    /// The header compression is out of step.
    pub const COMPRESSION_ERROR: Self = Self(9);
    /// The connection of a CONNECT was reset.
    pub const CONNECT_ERROR: Self = Self(10);
    /// The peer asks for more than its share.
    pub const ENHANCE_YOUR_CALM: Self = Self(11);
    /// The transport is not safe enough.
    pub const INADEQUATE_SECURITY: Self = Self(12);
    /// HTTP/1.1 is wanted instead.
    pub const HTTP_1_1_REQUIRED: Self = Self(13);

    /// The name in the registry, in lower case; `unknown` for a code that is not in it.
    pub const fn name(self) -> &'static str {
        const NAMES: [&str; 14] = [
            "no_error",
            "protocol_error",
            "internal_error",
            "flow_control_error",
            "settings_timeout",
            "stream_closed",
            "frame_size_error",
            "refused_stream",
            "cancel",
            "compression_error",
            "connect_error",
            "enhance_your_calm",
            "inadequate_security",
            "http_1_1_required",
        ];
        if (self.0 as usize) < NAMES.len() {
            NAMES[self.0 as usize]
        } else {
            "unknown"
        }
    }
}

macro_rules! rules {
    ($($(#[$doc:meta])* $variant:ident $name:literal $reason:ident $text:literal;)*) => {
        /// A rule that received bytes break. Which of them end the connection is decided where they are found: what
        /// leaves both sides in step ends only its stream.
        #[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
        pub enum DecodeError {
            $($(#[$doc])* #[error($text)] $variant,)*
        }

        impl DecodeError {
            /// A short stable name, for the response's detail and for counters.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// The code that the peer is told.
            pub const fn reason(self) -> Reason {
                match self {
                    $(Self::$variant => Reason::$reason,)*
                }
            }

            /// All rules, for tables and tests.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];
        }
    };
}

rules! {
    /// The connection does not begin with the preface (RFC 9113 §3.4).
    Preface "preface" PROTOCOL_ERROR "the connection does not begin with the preface";
    /// The first frame is not SETTINGS (RFC 9113 §3.4).
    SettingsMissing "settings_missing" PROTOCOL_ERROR "the first frame is not SETTINGS";
    /// A frame larger than our `SETTINGS_MAX_FRAME_SIZE` (RFC 9113 §4.2).
    FrameTooLarge "frame_too_large" FRAME_SIZE_ERROR "the frame is too large";
    /// A frame of a fixed size has another one.
    FrameSize "frame_size" FRAME_SIZE_ERROR "the frame has a wrong size";
    /// A frame for a stream on stream 0, or the other way round.
    FrameStream "frame_stream" PROTOCOL_ERROR "the frame is on a stream where it must not be";
    /// Another frame between HEADERS and its last CONTINUATION, or a CONTINUATION without HEADERS (RFC 9113 §6.10).
    Continuation "continuation" PROTOCOL_ERROR "a header block is interrupted or not begun";
    /// Padding that is longer than the frame (RFC 9113 §6.1).
    Padding "padding" PROTOCOL_ERROR "the padding is longer than the frame";
    /// A setting's value is out of its range (RFC 9113 §6.5.2).
    Setting "setting" PROTOCOL_ERROR "a setting has an invalid value";
    /// An initial window beyond 2^31-1, or one that makes a stream's window exceed it.
    SettingWindow "setting_window" FLOW_CONTROL_ERROR "the initial window is too large";
    /// An acknowledgement of settings that were not sent, or with content.
    SettingsAck "settings_ack" PROTOCOL_ERROR "unexpected acknowledgement of settings";
    /// `PUSH_PROMISE`: a server gets none, and as a client we have forbidden it.
    PushPromise "push_promise" PROTOCOL_ERROR "unexpected PUSH_PROMISE";
    /// A frame on a stream that was never opened (RFC 9113 §5.1).
    IdleStream "idle_stream" PROTOCOL_ERROR "a frame on a stream that was never opened";
    /// A stream identifier that its sender may not use, or lower than one before (RFC 9113 §5.1.1).
    StreamId "stream_id" PROTOCOL_ERROR "invalid stream identifier";
    /// DATA or HEADERS on a stream that its sender had ended (RFC 9113 §5.1).
    StreamClosed "stream_closed" STREAM_CLOSED "a frame on a closed stream";
    /// A `WINDOW_UPDATE` of 0 (RFC 9113 §6.9).
    WindowUpdateZero "window_update_zero" PROTOCOL_ERROR "a window update of 0";
    /// A window beyond 2^31-1 (RFC 9113 §6.9.1).
    WindowOverflow "window_overflow" FLOW_CONTROL_ERROR "a window exceeds its maximum";
    /// More DATA than the window of the connection or the stream allowed.
    WindowExceeded "window_exceeded" FLOW_CONTROL_ERROR "more data than the window allows";
    /// The header block can't be decompressed (RFC 7541).
    Compression "compression" COMPRESSION_ERROR "the header block can't be decompressed";
    /// A header block with more bytes or frames than its limits can need.
    HeaderFlood "header_flood" ENHANCE_YOUR_CALM "the header block is too large";
    /// More streams reset than `Config::max_resets` (rapid reset, CVE-2023-44487), by the peer or for its mistakes.
    ResetFlood "reset_flood" ENHANCE_YOUR_CALM "too many streams are reset";
    /// More frames that carry nothing than `Config::max_control_frames`.
    ControlFlood "control_flood" ENHANCE_YOUR_CALM "too many control frames";
    /// The peer makes us answer and does not read the answers.
    OutputFlood "output_flood" ENHANCE_YOUR_CALM "the peer does not read";
    /// The peer closed in the middle of a frame or with open streams.
    Truncated "truncated" PROTOCOL_ERROR "the connection ended within a message";
    /// The machine was asked to go on after it had failed; a defect of the caller.
    OutOfStep "out_of_step" INTERNAL_ERROR "decoding in a state that does not allow it";

    /// More streams at once than our settings allow.
    TooManyStreams "too_many_streams" REFUSED_STREAM "too many streams at once";
    /// A head larger than `Config::max_head_bytes`.
    HeadTooLarge "head_too_large" PROTOCOL_ERROR "the head is too large";
    /// More fields than `Config::max_headers`.
    TooManyHeaders "too_many_headers" PROTOCOL_ERROR "too many header fields";
    /// A field name that is empty, no token or not in lower case (RFC 9113 §8.2.1).
    HeaderName "header_name" PROTOCOL_ERROR "invalid header field name";
    /// A control character in a field value, or white space around it (RFC 9113 §8.2.1).
    HeaderValue "header_value" PROTOCOL_ERROR "invalid header field value";
    /// A field about the connection (RFC 9113 §8.2.2).
    ConnectionField "connection_field" PROTOCOL_ERROR "a field that HTTP/2 does not have";
    /// `te` with anything but `trailers` (RFC 9113 §8.2.2).
    Te "te" PROTOCOL_ERROR "invalid te field";
    /// A pseudo header field that is unknown or does not belong into this message (RFC 9113 §8.3).
    PseudoUnknown "pseudo_unknown" PROTOCOL_ERROR "unexpected pseudo header field";
    /// A pseudo header field twice.
    PseudoDuplicate "pseudo_duplicate" PROTOCOL_ERROR "a pseudo header field twice";
    /// A pseudo header field behind others.
    PseudoOrder "pseudo_order" PROTOCOL_ERROR "a pseudo header field behind others";
    /// A pseudo header field that every such message has is missing.
    PseudoMissing "pseudo_missing" PROTOCOL_ERROR "a pseudo header field is missing";
    /// A pseudo header field among trailers.
    PseudoInTrailers "pseudo_in_trailers" PROTOCOL_ERROR "a pseudo header field among trailers";
    /// The method is no token.
    Method "method" PROTOCOL_ERROR "invalid method";
    /// A scheme other than http and https.
    Scheme "scheme" PROTOCOL_ERROR "unsupported scheme";
    /// The path has a forbidden character or form, or CONNECT has one.
    Target "target" PROTOCOL_ERROR "invalid path";
    /// CONNECT without `:authority`.
    HostMissing "host_missing" PROTOCOL_ERROR "the authority is missing";
    /// `host` more than once, and no `:authority`.
    HostDuplicate "host_duplicate" PROTOCOL_ERROR "more than one host field";
    /// The authority is no `host[:port]`.
    HostInvalid "host_invalid" PROTOCOL_ERROR "invalid authority";
    /// The status is not three digits from 100, or 101.
    Status "status" PROTOCOL_ERROR "invalid status";
    /// `content-length` more than once or not a plain decimal number of 64 bits.
    ContentLength "content_length" PROTOCOL_ERROR "invalid content-length";
    /// More or less DATA than `content-length` says (RFC 9113 §8.1.1).
    ContentLengthMismatch "content_length_mismatch" PROTOCOL_ERROR "the body is not as long as content-length says";
    /// DATA before the head of the response, or for a response that has no body.
    UnexpectedData "unexpected_data" PROTOCOL_ERROR "data where there can be none";
    /// A second header section that does not end the stream (RFC 9113 §8.1).
    TrailersNotLast "trailers_not_last" PROTOCOL_ERROR "trailers that do not end the stream";
    /// Trailers larger than `Config::max_trailer_bytes` or more than `Config::max_trailers`.
    TrailersTooLarge "trailers_too_large" PROTOCOL_ERROR "the trailers are too large";
    /// A trailer that frames or routes (RFC 9110 §6.5.1).
    TrailerForbidden "trailer_forbidden" PROTOCOL_ERROR "forbidden trailer field";
    /// An interim response that ends the stream (RFC 9113 §8.1).
    InformationalEnd "informational_end" PROTOCOL_ERROR "an interim response ends the stream";
    /// More interim responses than `Config::max_informational`.
    TooManyInformational "too_many_informational" PROTOCOL_ERROR "too many interim responses";
}

/// Why something can't be sent. Nothing was written.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum EncodeError {
    /// The stream has ended or was reset, or the connection has failed.
    #[error("the stream is closed")]
    Closed,
    /// Method, target, authority or status can't stand in a head.
    #[error("invalid head")]
    InvalidHead,
    /// More body bytes than the head announced.
    #[error("the body is longer than announced")]
    BodyTooLong,
    /// The body ended before the announced length.
    #[error("the body is shorter than announced")]
    BodyTooShort,
    /// The peer takes no further streams: too many at once, it is going away, or the identifiers are used up.
    #[error("no stream can be opened")]
    NoStream,
    /// Not allowed in this state (a second head, a body before the head); a defect of the caller.
    #[error("encoding in a state that does not allow it")]
    OutOfStep,
}
