//! What a connection offers and bears.

/// What a connection tells its peer in SETTINGS, and what it bears. The defaults are those of the product's proxy.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Streams that the peer may have open at once (a server), or that we open at most even if the peer allows more (a
    /// client). Default 1,024.
    pub max_concurrent_streams: u32,
    /// Bytes that a stream may receive before they are released, at most 2^31-1. Default 256 KiB
    /// (Envoy: `Http2ProtocolOptions.initial_stream_window_size`).
    pub stream_window: u32,
    /// The same for the connection; not less than 65,535 (RFC 9113 §6.9.2). Default 1 MiB
    /// (Envoy: `Http2ProtocolOptions.initial_connection_window_size`).
    pub connection_window: u32,
    /// Bytes of a frame's payload that the peer may send, 16,384 to 2^24-1. A frame is taken when it is there as a whole, so the
    /// read buffer must be able to hold one. Default 16,384.
    pub max_frame_size: u32,
    /// Size of the decompression's table, at most 64 KiB. Default 4,096.
    pub header_table_size: u16,
    /// Bytes of a head, counted as `SETTINGS_MAX_HEADER_LIST_SIZE` does (32 more for each field). Default 60 KiB
    /// (Envoy: `HttpConnectionManager.max_request_headers_kb`).
    pub max_head_bytes: usize,
    /// Fields of a head, default 100 (Envoy: `HttpProtocolOptions.max_headers_count`); at most 4,096.
    pub max_headers: usize,
    /// Bytes of a trailer section, default 16 KiB.
    pub max_trailer_bytes: usize,
    /// Fields of a trailer section, default 64.
    pub max_trailers: usize,
    /// Interim responses (1xx) before the final one, default 16.
    pub max_informational: u8,
    /// Streams that may be reset in ten seconds, by the peer before they were answered or for its mistakes. Default 2,000.
    pub max_resets: u32,
    /// Frames in ten seconds that carry nothing: PING, SETTINGS, PRIORITY, `WINDOW_UPDATE`, unknown ones, empty DATA, frames on
    /// closed streams; beyond four for each head and DATA frame that we sent. Default 4,000.
    pub max_control_frames: u32,
    /// Bytes of output from which [`Conn::encode_data`](super::Conn::encode_data) takes no more. Default 64 KiB.
    pub output_high: usize,
    /// A server: offer extended CONNECT (RFC 8441).
    pub enable_connect_protocol: bool,
    /// Whether literals are Huffman coded if that is shorter. Off by default: it costs both sides a pass over each string.
    pub use_huffman: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_concurrent_streams: 1024,
            stream_window: 256 * 1024,
            connection_window: 1024 * 1024,
            max_frame_size: 16_384,
            header_table_size: 4096,
            max_head_bytes: 60 * 1024,
            max_headers: 100,
            max_trailer_bytes: 16 * 1024,
            max_trailers: 64,
            max_informational: 16,
            max_resets: 2_000,
            max_control_frames: 4_000,
            output_high: 64 * 1024,
            enable_connect_protocol: false,
            use_huffman: false,
        }
    }
}
