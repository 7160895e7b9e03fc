//! Copies of requests: `mirror` with its two percentages, and `mirrors`.
//!
//! A copy of no request (`0`) is none: what is read here is always sent sometimes.

use rajut_types::{Percent, Severity};

use super::{fault, route};
use crate::{
    codes,
    merge::Defaults,
    model::HttpMirror,
    read::{Field, Object},
};

/// The mirrors of a route.
pub(crate) fn read(route: &Object<'_>, defaults: &Defaults) -> Vec<HttpMirror> {
    route.one_of(&["mirror", "mirrors"]);
    let share = share_of_one(route);
    let one = route
        .get("mirror")
        .and_then(|field| route::destination(&field, defaults))
        .zip(share);
    let many = route
        .list("mirrors")
        .into_iter()
        .filter_map(|field| one_of_many(&field, defaults));
    one.into_iter()
        .chain(many)
        .filter(|(_, share)| *share != Percent::NONE)
        .map(|(destination, share)| HttpMirror { destination, share })
        .collect()
}

/// What `mirrorPercentage`, or `mirrorPercent` before it, says; without both it is all.
fn share_of_one(route: &Object<'_>) -> Option<Percent> {
    let (new, old) = (route.get("mirrorPercentage"), route.get("mirrorPercent"));
    if !route.has("mirror") {
        for field in [&new, &old].into_iter().flatten() {
            field.say_key(
                Severity::Warning,
                codes::NO_EFFECT,
                "a percentage has no effect without `mirror`",
                "each entry of `mirrors` has a `percentage` of its own",
            );
        }
    }
    if let Some(field) = &old {
        deprecated_percent(field, new.is_some(), "mirrorPercentage");
    }
    match (new, old) {
        (Some(field), _) => fault::share(&field),
        (None, Some(field)) => whole_percent(&field),
        (None, None) => Some(Percent::ALL),
    }
}

fn one_of_many(field: &Field<'_>, defaults: &Defaults) -> Option<(crate::model::Destination, Percent)> {
    let object = field.clone().object()?;
    let destination = object
        .required("destination", "add `destination: {host: …}`")
        .and_then(|field| route::destination(&field, defaults));
    let share = match object.get("percentage") {
        Some(field) => fault::share(&field),
        None => Some(Percent::ALL),
    };
    destination.zip(share)
}

/// The old form of a percentage.
pub(super) fn whole_percent(field: &Field<'_>) -> Option<Percent> {
    let whole = u32::try_from(field.integer(0..=100)?).ok()?;
    Some(Percent::from_millionths(whole * 10_000))
}

/// Says that there is a newer field, or that this one does not count beside it.
pub(super) fn deprecated_percent(field: &Field<'_>, beside_new: bool, new: &str) {
    let (code, message) = if beside_new {
        (codes::NO_EFFECT, format!("this has no effect beside `{new}`"))
    } else {
        (
            codes::DEPRECATED,
            format!("Istio has deprecated this for `{new}`"),
        )
    };
    let hint = if beside_new {
        "take it out".to_owned()
    } else {
        format!("write `{new}: {{value: …}}`")
    };
    field.say_key(Severity::Warning, code, message, hint);
}
