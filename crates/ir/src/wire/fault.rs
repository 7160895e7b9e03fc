//! Faults on purpose.
//!
//! Rejected: faults that a request's own headers steer, slowed responses, bodies of one's own. Left out: the names of
//! runtime keys (there is no runtime), statistics per calling cluster.

use rajut_proto::envoy::extensions::filters::{
    common::fault::v3::{FaultDelay, fault_delay::FaultDelaySecifier},
    http::fault::v3::{FaultAbort, HttpFault, fault_abort::ErrorType},
};
use rajut_types::Percent;

use super::{
    Fault, matcher,
    read::{Place, Reader, number},
    write,
};
use crate::fault::{Abort, AbortStatus, Delay, FaultInjection};

// --- encode ---

pub(super) fn encode(fault: &FaultInjection) -> HttpFault {
    HttpFault {
        delay: fault.delay.map(|delay| FaultDelay {
            percentage: Some(write::fraction(delay.share)),
            fault_delay_secifier: Some(FaultDelaySecifier::FixedDelay(write::duration(delay.fixed))),
        }),
        abort: fault.abort.map(|abort| FaultAbort {
            percentage: Some(write::fraction(abort.share)),
            error_type: Some(match abort.status {
                AbortStatus::Http(status) => ErrorType::HttpStatus(status.into()),
                AbortStatus::Grpc(status) => ErrorType::GrpcStatus(status.into()),
            }),
            ..Default::default()
        }),
        upstream_cluster: fault.upstream_cluster.to_string(),
        headers: fault.headers.iter().map(matcher::encode_header).collect(),
        downstream_nodes: fault.downstream_nodes.iter().map(ToString::to_string).collect(),
        max_active_faults: fault.max_active.map(write::number),
        ..Default::default()
    }
}

// --- decode ---

pub(super) fn decode(reader: &mut Reader, place: &Place<'_>, message: &HttpFault) -> FaultInjection {
    let delay = message
        .delay
        .as_ref()
        .and_then(|delay| decode_delay(reader, &place.field("delay"), delay));
    let abort = message
        .abort
        .as_ref()
        .and_then(|abort| decode_abort(reader, &place.field("abort"), abort));
    let headers = message
        .headers
        .iter()
        .enumerate()
        .filter_map(|(at, it)| matcher::decode_header(reader, &place.item("headers", at), it))
        .collect();
    FaultInjection {
        delay,
        abort,
        upstream_cluster: message.upstream_cluster.as_str().into(),
        headers,
        downstream_nodes: message
            .downstream_nodes
            .iter()
            .map(|node| node.as_str().into())
            .collect(),
        max_active: number(message.max_active_faults.as_ref()),
    }
}

fn decode_delay(reader: &mut Reader, place: &Place<'_>, delay: &FaultDelay) -> Option<Delay> {
    let share = delay.percentage.map_or(Percent::NONE, |it| {
        reader.fraction(&place.field("percentage"), it)
    });
    let fixed = match &delay.fault_delay_secifier {
        Some(FaultDelaySecifier::FixedDelay(fixed)) => {
            let place = place.field("fixed_delay");
            let fixed = reader.duration(&place, Some(fixed))?;
            if fixed.is_zero() {
                reader.out_of_range(&place, 0, "more than 0 s");
            }
            fixed
        }
        // Refused by the list of supported fields.
        Some(FaultDelaySecifier::HeaderDelay(_)) => return None,
        None => {
            reader.fault(place, Fault::Missing("fixed_delay"));
            return None;
        }
    };
    Some(Delay { fixed, share })
}

fn decode_abort(reader: &mut Reader, place: &Place<'_>, abort: &FaultAbort) -> Option<Abort> {
    let share = abort.percentage.map_or(Percent::NONE, |it| {
        reader.fraction(&place.field("percentage"), it)
    });
    let status = match &abort.error_type {
        Some(ErrorType::HttpStatus(status)) => {
            let Some(status) = u16::try_from(*status).ok().filter(|it| (200..600).contains(it)) else {
                reader.out_of_range(&place.field("http_status"), *status, "200 to 599");
                return None;
            };
            AbortStatus::Http(status)
        }
        Some(ErrorType::GrpcStatus(status)) => {
            let Ok(status) = u8::try_from(*status) else {
                reader.out_of_range(&place.field("grpc_status"), *status, "0 to 255");
                return None;
            };
            AbortStatus::Grpc(status)
        }
        // Refused by the list of supported fields.
        Some(ErrorType::HeaderAbort(_)) => return None,
        None => {
            reader.fault(place, Fault::Missing("http_status or grpc_status"));
            return None;
        }
    };
    Some(Abort { status, share })
}
