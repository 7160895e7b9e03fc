//! Our own service `mesh.rajut.recorder.v1.Recorder`: proxies hand what they recorded of requests to the control plane.
//!
//! Envoy has no such service, and no part in it. A stream begins with the proxy's node; the control plane answers what it wants to
//! have recorded, and again whenever that changes or a report was taken. What the fields mean stands in `telemetry`'s `recording`.

use tonic::codegen::{Body, StdError, http};
use tonic_prost::ProstCodec;

use crate::envoy::config::core::v3::Node;

/// The service's full name.
pub const SERVICE_NAME: &str = "mesh.rajut.recorder.v1.Recorder";
/// The path of its one method.
pub const RECORD: &str = "/mesh.rajut.recorder.v1.Recorder/Record";

/// What a proxy sends.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Report {
    /// Who reports; in the first message of a stream, which holds nothing else.
    #[prost(message, optional, tag = "1")]
    pub node: Option<Node>,
    /// Encoded [`Tuple`]s.
    #[prost(bytes = "vec", repeated, tag = "2")]
    pub tuples: Vec<Vec<u8>>,
    /// Requests since the last report that were to be recorded and found no room.
    #[prost(uint64, tag = "3")]
    pub dropped: u64,
}

/// What the control plane wants.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Wanted {
    /// Requests that a policy refuses.
    #[prost(bool, tag = "1")]
    pub refused: bool,
    /// How many of a million others.
    #[prost(uint32, tag = "2")]
    pub share: u32,
    /// Of the digests. Secret.
    #[prost(bytes = "vec", tag = "3")]
    pub key: Vec<u8>,
    /// Regular expressions of segments of paths that are identifiers; none: what has a digit.
    #[prost(string, repeated, tag = "4")]
    pub identifiers: Vec<String>,
    /// Headers whose digest is recorded, lower case.
    #[prost(string, repeated, tag = "5")]
    pub headers: Vec<String>,
    /// Reports of this stream that were taken.
    #[prost(uint64, tag = "6")]
    pub taken: u64,
}

/// One request.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Tuple {
    /// Its number, drawn.
    #[prost(fixed64, tag = "1")]
    pub id: u64,
    /// When it came, milliseconds since 1970.
    #[prost(uint64, tag = "2")]
    pub time_ms: u64,
    /// Of the workload that was called; the control plane writes it.
    #[prost(string, tag = "3")]
    pub namespace: String,
    /// The workload that was called; the control plane writes it.
    #[prost(string, tag = "4")]
    pub workload: String,
    /// The caller's identity.
    #[prost(string, tag = "5")]
    pub source: String,
    /// The connection was TLS.
    #[prost(bool, tag = "6")]
    pub tls: bool,
    /// The connection's other end, an address.
    #[prost(string, tag = "7")]
    pub remote: String,
    /// The client's address is another, which is not told.
    #[prost(bool, tag = "8")]
    pub forwarded: bool,
    /// Address and port that were dialled.
    #[prost(string, tag = "9")]
    pub local: String,
    /// Of the client hello.
    #[prost(string, tag = "10")]
    pub server_name: String,
    /// The listener's name.
    #[prost(string, tag = "11")]
    pub listener: String,
    /// The route's name.
    #[prost(string, tag = "12")]
    pub route: String,
    /// `GET`
    #[prost(string, tag = "13")]
    pub method: String,
    /// With the port if it had one.
    #[prost(string, tag = "14")]
    pub authority: String,
    /// The path without its query, with digests where identifiers stood.
    #[prost(string, optional, tag = "15")]
    pub path: Option<String>,
    /// Headers that were asked for.
    #[prost(message, repeated, tag = "16")]
    pub headers: Vec<Header>,
    /// What is known of its token, see `recording::Token`.
    #[prost(uint32, tag = "17")]
    pub token: u32,
    /// Issuers of its good tokens.
    #[prost(string, repeated, tag = "18")]
    pub issuers: Vec<String>,
    /// A policy refused it.
    #[prost(bool, tag = "19")]
    pub refused: bool,
    /// The response code details.
    #[prost(string, tag = "20")]
    pub reason: String,
    /// Of the answer; 0: there was none.
    #[prost(uint32, tag = "21")]
    pub status: u32,
    /// Bytes of its body.
    #[prost(uint64, tag = "22")]
    pub received: u64,
    /// Bytes of the answer's body.
    #[prost(uint64, tag = "23")]
    pub sent: u64,
    /// From its head to the end of the answer.
    #[prost(uint64, tag = "24")]
    pub micros: u64,
}

/// One header.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Header {
    /// Lower case.
    #[prost(string, tag = "1")]
    pub name: String,
    /// How often it stood there.
    #[prost(uint32, tag = "2")]
    pub count: u32,
    /// Of its value, where it stood there once.
    #[prost(fixed64, tag = "3")]
    pub digest: u64,
}

/// Opens streams.
#[derive(Debug, Clone)]
pub struct RecorderClient<T> {
    grpc: tonic::client::Grpc<T>,
}

impl<T> RecorderClient<T>
where
    T: tonic::client::GrpcService<tonic::body::Body>,
    T::Error: Into<StdError>,
    T::ResponseBody: Body<Data = tonic::codegen::Bytes> + Send + 'static,
    <T::ResponseBody as Body>::Error: Into<StdError> + Send,
{
    /// Over that channel.
    pub fn new(channel: T) -> Self {
        Self {
            grpc: tonic::client::Grpc::new(channel),
        }
    }

    /// Opens a stream of reports.
    pub async fn record(
        &mut self,
        reports: impl tonic::IntoStreamingRequest<Message = Report>,
    ) -> Result<tonic::Response<tonic::codec::Streaming<Wanted>>, tonic::Status> {
        self.grpc.ready().await.map_err(|error| {
            tonic::Status::unavailable(format!("the recorder is not ready: {}", error.into()))
        })?;
        self.grpc
            .streaming(
                reports.into_streaming_request(),
                http::uri::PathAndQuery::from_static(RECORD),
                ProstCodec::default(),
            )
            .await
    }
}
