//! What the recorder keeps: keys of `defaultConfig.proxyMetadata`.

use rajut_types::{Percent, Text};

use crate::{
    api::matches,
    codes,
    model::{Recording, Redaction},
    read::{Field, shown},
};

/// Most expressions for identifiers, and most headers.
const EACH_MAX: usize = 16;
/// The longest time and the largest size that can be asked for.
const DAYS_MAX: u32 = 400;
const MEGABYTES_MAX: u32 = 1 << 20;

/// Takes a key if it is one of the recorder's.
pub(super) fn read(key: &str, value: &Field<'_>, recording: &mut Recording) -> bool {
    let Some(text) = Recording::KEYS.contains(&key).then(|| value.text()) else {
        return false;
    };
    let text = text.unwrap_or_default();
    match key {
        Recording::MODE_KEY => mode(value, &text, recording),
        Recording::IDENTIFIERS_KEY => identifiers(value, &text, recording),
        Recording::HEADERS_KEY => headers(value, &text, recording),
        Recording::DAYS_KEY => whole(value, &text, DAYS_MAX, &mut recording.days),
        _ => whole(value, &text, MEGABYTES_MAX, &mut recording.megabytes),
    }
    true
}

fn wrong(value: &Field<'_>, text: &str, hint: &str) {
    value.error(
        codes::UNKNOWN_VALUE,
        format!("`{}` is not one of its values", shown(text)),
        hint,
    );
}

fn mode(value: &Field<'_>, text: &str, recording: &mut Recording) {
    let percent = || {
        let number: f64 = text.strip_suffix('%')?.trim().parse().ok()?;
        Percent::new(number).ok()
    };
    (recording.refused, recording.share) = match text.trim() {
        "off" => (false, Percent::NONE),
        "refused" => (true, Percent::NONE),
        "all" => (true, Percent::ALL),
        _ => match percent() {
            Some(share) => (true, share),
            None => {
                return wrong(
                    value,
                    text,
                    "write `off`, `refused`, `all`, or a share of the requests that are let through, as in `10%`",
                );
            }
        },
    };
}

fn identifiers(value: &Field<'_>, text: &str, recording: &mut Recording) {
    let all: Vec<Text> = text.split_whitespace().map(Text::from).collect();
    if all.len() > EACH_MAX {
        return wrong(value, text, "write at most 16 expressions");
    }
    // Of several one may be wrong: which is said by itself.
    if all.iter().all(|one| matches::compiles(value, one)) {
        recording.identifiers = all;
    }
}

fn headers(value: &Field<'_>, text: &str, recording: &mut Recording) {
    let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
    let names: Vec<Text> = names.map(|name| name.to_ascii_lowercase().into()).collect();
    let is_name = |name: &Text| {
        let takes = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$&'*+-.^_`|~".contains(&byte);
        name.len() <= 64 && name.bytes().all(takes)
    };
    if names.len() > EACH_MAX || !names.iter().all(is_name) {
        return wrong(
            value,
            text,
            "write at most 16 names of headers with commas between them",
        );
    }
    if let Some(secret) = names.iter().find(|name| Redaction::ALWAYS.contains(&&***name)) {
        let message = format!("`{secret}` holds credentials, of which nothing is recorded");
        return value.error(codes::BAD_HEADER, message, "take it out");
    }
    recording.headers = names;
}

fn whole(value: &Field<'_>, text: &str, most: u32, slot: &mut u32) {
    match text.trim().parse() {
        Ok(number) if (1..=most).contains(&number) => *slot = number,
        _ => wrong(value, text, &format!("write a whole number from 1 to {most}")),
    }
}
