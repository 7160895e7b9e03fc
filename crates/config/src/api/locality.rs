//! Istio's `LocalityLoadBalancerSetting`, of a `DestinationRule` and of the mesh.
//!
//! Refused, as Istio's validation does: `distribute` beside `failover` or `failoverPriority`, shares that are not 100
//! together, places that overlap, a failover into the region itself.

use std::collections::BTreeSet;

use rajut_types::Text;

use crate::{
    codes,
    model::{Distribution, Failover, LocalitySetting},
    read::{Field, Object, shown},
};

pub(crate) fn setting(object: &Object<'_>) -> LocalitySetting {
    let enabled = object.bool("enabled").unwrap_or(true);
    let distribute = distributions(object);
    let regions = regions(object);
    let labels = labels(object);
    for name in ["failover", "failoverPriority"] {
        if object.has("distribute") {
            object.one_of(&["distribute", name]);
        }
    }
    if !enabled {
        LocalitySetting::Off
    } else if !distribute.is_empty() {
        LocalitySetting::Distribute(distribute)
    } else if regions.is_empty() && labels.is_empty() {
        LocalitySetting::Nearest
    } else {
        LocalitySetting::Failover(Failover {
            regions,
            labels,
            forced: false,
        })
    }
}

fn distributions(object: &Object<'_>) -> Vec<Distribution> {
    let mut all = Vec::new();
    let mut froms: Vec<Text> = Vec::new();
    for field in object.list("distribute") {
        let Some(entry) = field.clone().object() else {
            continue;
        };
        let from_field = entry.required("from", "the clients' place, e.g. `from: west/zone1/*`");
        let from = from_field.as_ref().and_then(place);
        if let (Some(from), Some(field)) = (&from, &from_field) {
            refuse_overlap(field, from, &froms);
            froms.push(from.clone());
        }
        let to = entry.required(
            "to",
            "places and shares, e.g. `to: {\"west/*\": 80, \"east/*\": 20}`",
        );
        let to = to.map(|field| shares(&field)).unwrap_or_default();
        if let Some(from) = from {
            all.push(Distribution { from, to });
        }
    }
    all
}

/// Places with their shares.
fn shares(field: &Field<'_>) -> Vec<(Text, u32)> {
    let mut places: Vec<Text> = Vec::new();
    let mut all = Vec::new();
    let mut complete = true;
    for (name, value) in field.map() {
        let share = value.integer(1..=100).and_then(|share| u32::try_from(share).ok());
        let good = check_place(&value, &name);
        if good {
            refuse_overlap(&value, &name, &places);
            places.push(name.clone());
        }
        match share {
            Some(share) if good => all.push((name, share)),
            _ => complete = false,
        }
    }
    let sum: u32 = all.iter().map(|(_, share)| share).sum();
    if complete && sum != 100 {
        field.error(
            codes::OUT_OF_RANGE,
            format!("the shares are {sum} together, not 100"),
            "write percentages of all requests",
        );
    }
    all
}

/// A place as a text.
fn place(field: &Field<'_>) -> Option<Text> {
    let text = field.non_empty_text()?;
    check_place(field, &text).then_some(text)
}

fn check_place(field: &Field<'_>, text: &str) -> bool {
    let parts: Vec<&str> = text.split('/').collect();
    let named = parts.iter().take_while(|part| !part.is_empty() && **part != "*");
    let rest = &parts[named.count()..];
    let good = parts.len() <= 3 && matches!(rest, [] | ["*"]);
    if !good {
        field.error(
            codes::BAD_NAME,
            format!("`{}` is not a place", shown(text)),
            "write `region/zone/subzone`; a `*` stands at the end",
        );
    }
    good
}

fn refuse_overlap(field: &Field<'_>, text: &str, known: &[Text]) {
    let parts = |text: &str| -> Vec<String> {
        let named = text.split('/').filter(|part| *part != "*");
        named.map(str::to_owned).collect()
    };
    let own = parts(text);
    let overlaps = |other: &&Text| {
        let other = parts(other);
        own.iter().zip(&other).all(|(a, b)| a == b)
    };
    if let Some(other) = known.iter().find(overlaps) {
        field.error(
            codes::DUPLICATE_NAME,
            format!("`{}` and `{}` overlap", shown(text), shown(other)),
            "write places of which none holds another",
        );
    }
}

fn regions(object: &Object<'_>) -> Vec<(Text, Text)> {
    let mut all = Vec::new();
    for field in object.list("failover") {
        let Some(entry) = field.clone().object() else {
            continue;
        };
        let region = |name, hint| {
            let field = entry.required(name, hint)?;
            let text = field.non_empty_text()?;
            if text.contains(['*', '/']) {
                let message = format!("`{}` is not a region's name", shown(&text));
                field.error(codes::BAD_NAME, message, "failover is from region to region");
                return None;
            }
            Some(text)
        };
        let from = region("from", "the clients' region");
        let to = region("to", "the region that is next");
        if let (Some(from), Some(to)) = (from, to) {
            if from == to {
                let message = format!("`{}` can't be its own failover", shown(&from));
                field.error(codes::EXCLUSIVE, message, "name another region in `to`");
            }
            all.push((from, to));
        }
    }
    all
}

fn labels(object: &Object<'_>) -> Vec<(Text, Option<Text>)> {
    let mut seen = BTreeSet::new();
    let mut all = Vec::new();
    for field in object.list("failoverPriority") {
        let Some(text) = field.non_empty_text() else {
            continue;
        };
        let (key, value) = match text.split_once('=') {
            Some((key, value)) => (Text::from(key), Some(Text::from(value))),
            None => (text.clone(), None),
        };
        let bad = key.is_empty() || value.as_deref().is_some_and(|value| value.contains('='));
        if bad || key.contains(char::is_whitespace) {
            field.error(
                codes::BAD_NAME,
                format!("`{}` is not a label", shown(&text)),
                "write `label` (near is what has the client's own value) or `label=value`",
            );
        } else if seen.insert(key.clone()) {
            all.push((key, value));
        } else {
            let message = format!("the label `{}` is listed twice", shown(&key));
            field.error(codes::DUPLICATE_NAME, message, "");
        }
    }
    all
}

#[cfg(test)]
mod tests;
