//! Questions over gRPC: `envoy.service.auth.v3.Authorization/Check`.

use bytes::{BufMut, Bytes, BytesMut};
use rajut_codec::{Known, Method, RequestHead, Version};
use rajut_ir::ext_authz::ExtAuthz;

use super::{Answer, NoAnswer, Question, Shown, wire};
use crate::{
    failure::{Failure, FailureKind},
    http::{message::Piece, mirror::Aside, record::Record},
};

pub(crate) const METHOD: &str = "/envoy.service.auth.v3.Authorization/Check";
/// Whether it is compressed, and its length.
const PREFIX: usize = 5;

pub(super) fn question(
    ir: &ExtAuthz,
    authority: &str,
    record: &Record,
    shown: Shown,
) -> Result<Question, Failure> {
    call(authority, &wire::check(ir, record, shown))
}

/// The call with that message.
pub(crate) fn call(authority: &str, message: &[u8]) -> Result<Question, Failure> {
    let mut head = RequestHead::new(Method::Post, METHOD);
    head.version = Version::Http2;
    let malformed = |_| Failure::from(FailureKind::Internal);
    head.set_authority(Bytes::copy_from_slice(authority.as_bytes()))
        .map_err(malformed)?;
    head.fields
        .set(Known::ContentType, "application/grpc")
        .map_err(malformed)?;
    head.fields.set(Known::Te, "trailers").map_err(malformed)?;
    let length = u32::try_from(message.len()).map_err(|_| Failure::from(FailureKind::Internal))?;
    let mut body = BytesMut::with_capacity(PREFIX + message.len());
    body.put_u8(0);
    body.put_u32(length);
    body.put_slice(message);
    Ok(Question {
        head,
        body: vec![Piece::Data(body.freeze()), Piece::End],
    })
}

/// The one message of an answer.
fn message(aside: &Aside) -> Result<&[u8], NoAnswer> {
    match aside.grpc_status() {
        Some(0) => {}
        Some(status) => return Err(NoAnswer::Failed(format!("gRPC status {status}").into())),
        None => return Err(NoAnswer::Failed(format!("HTTP status {}", aside.status()).into())),
    }
    let malformed = || NoAnswer::Failed("the answer is no gRPC message".into());
    let (prefix, rest) = aside.body().split_at_checked(PREFIX).ok_or_else(malformed)?;
    let [compressed, length @ ..] = prefix else {
        return Err(malformed());
    };
    let length = <[u8; 4]>::try_from(length).map_or(u32::MAX, u32::from_be_bytes);
    if *compressed != 0 || usize::try_from(length) != Ok(rest.len()) {
        return Err(malformed());
    }
    Ok(rest)
}

pub(super) fn read(aside: &Aside) -> Result<Answer, NoAnswer> {
    wire::answer(message(aside)?)
}

/// Whether an answer about a connection allows it.
pub(crate) fn allows(aside: &Aside) -> Result<bool, rajut_types::Text> {
    let read = message(aside).and_then(wire::answer);
    match read {
        Ok(Answer::Allowed(_)) => Ok(true),
        Ok(Answer::Refused(_)) => Ok(false),
        Err(NoAnswer::Failed(why) | NoAnswer::Invalid(why)) => Err(why),
        Err(NoAnswer::Refused(_)) => Err("the provider can't tell".into()),
    }
}
