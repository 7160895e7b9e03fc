//! A request about which somebody else is asked (`filters/ext_authz.rs`): its body is gathered as far as it is shown, the question is
//! asked while its client is watched, and what comes of the answer is done.
//!
//! A client that waits for `100 Continue` is told to go on where its body is wanted here: nobody else would tell it before the answer.
//!
//! Bounds: those of the filter. A body whose announced length is too large is refused before it is read.

use rajut_codec::{Method, ResponseHead, h1::BodyLength};

use super::{
    filters::ext_authz::{self, Asker, Shown, Verdict},
    forward,
    pause::Waiting,
    record::Record,
    serve::Received,
};
use crate::failure::{Failure, FailureKind};

/// Asks about a request.
pub(super) async fn ask(
    record: &mut Record,
    mut waiting: Waiting<'_, '_>,
    received: &mut Received,
    asker: &Asker,
) -> Result<Verdict, Failure> {
    let shown = show(record, &mut waiting, received, asker).await?;
    let question = asker.question(record, shown)?;
    let worker = record.worker().clone();
    let epoch = worker.epoch();
    let outcome = waiting
        .work(Box::pin(asker.ask(&worker, &epoch, question)))
        .await?;
    asker.judge(record, outcome)
}

/// What is shown of the body.
async fn show(
    record: &mut Record,
    waiting: &mut Waiting<'_, '_>,
    received: &mut Received,
    asker: &Asker,
) -> Result<Shown, Failure> {
    let is_tunnel = received.upgrade || record.head.method == Method::Connect;
    let Some(body) = asker.ir().body.filter(|_| !is_tunnel) else {
        return Ok(Shown::default());
    };
    let most = u64::from(body.max_bytes);
    let too_large =
        !body.allow_partial && matches!(received.body, BodyLength::Exact(length) if length > most);
    if too_large {
        return Err(FailureKind::BodyTooLarge.into());
    }
    if received.expect_continue && ext_authz::takes_expectation(record) {
        received.expect_continue = false;
        waiting
            .downstream
            .push_informational(&ResponseHead::new(100))
            .map_err(forward::downstream_failure)?;
    }
    waiting.gather(most).await?;
    let (bytes, whole) = waiting.source.start(usize::try_from(most).unwrap_or(usize::MAX));
    if !whole && !body.allow_partial {
        return Err(FailureKind::BodyTooLarge.into());
    }
    Ok(Shown {
        bytes,
        partial: !whole,
    })
}
