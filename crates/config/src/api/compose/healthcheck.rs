//! `healthcheck`: a request over HTTP where its command is one, else the command itself.

use std::time::Duration;

use rajut_types::Text;

use crate::{
    model::{Probe, ProbeCheck},
    parse::Value,
    read::{Field, Object},
};

/// The probe, and the port that its command asks.
pub(super) fn read(object: &Object<'_>) -> (Option<Probe>, Option<u16>) {
    let Some(check) = object.object("healthcheck") else {
        return (None, None);
    };
    check.ignore(&["start_interval"]);
    let disabled = check.bool("disable") == Some(true);
    let duration = |name, default: u64| {
        let value = check
            .get(name)
            .and_then(|f| f.duration())
            .filter(|d| !d.is_zero());
        value.unwrap_or(Duration::from_secs(default))
    };
    let period = duration("interval", 30);
    let timeout = duration("timeout", 30);
    let initial_delay = check
        .get("start_period")
        .and_then(|f| f.duration())
        .unwrap_or(Duration::ZERO);
    let failure_threshold = check.count("retries").filter(|n| *n > 0).unwrap_or(3);
    let words: Vec<Text> = match check.get("test") {
        None => Vec::new(),
        Some(field) => match &field.node.value {
            Value::Sequence(_) => field.list().iter().filter_map(Field::loose_text).collect(),
            _ => field
                .loose_text()
                .map(|text| vec!["CMD-SHELL".into(), text])
                .unwrap_or_default(),
        },
    };
    let what = match words.split_first() {
        Some((kind, rest)) if !disabled && !rest.is_empty() => match &**kind {
            "CMD" => Some(rest.to_vec()),
            "CMD-SHELL" => Some(vec!["sh".into(), "-c".into(), rest.join(" ").into()]),
            _ => None,
        },
        _ => None,
    };
    let Some(command) = what else {
        return (None, None);
    };
    let address = command.iter().find_map(|word| local_address(word));
    let port = address.as_ref().map(|(port, _)| *port);
    let check = match address {
        Some((port, path)) => ProbeCheck::Http {
            port,
            path,
            headers: Vec::new(),
        },
        None => ProbeCheck::Exec(command),
    };
    let probe = Probe {
        check,
        initial_delay,
        period,
        timeout,
        failure_threshold,
        success_threshold: 1,
    };
    (Some(probe), port)
}

/// Port and path of an `http://localhost…` inside `text`.
fn local_address(text: &str) -> Option<(u16, Text)> {
    let (_, rest) = text.split_once("http://")?;
    let rest = ["localhost", "127.0.0.1", "0.0.0.0", "[::1]"]
        .iter()
        .find_map(|host| rest.strip_prefix(host))?;
    let end = rest
        .find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | ')' | '|' | ';' | '&'))
        .unwrap_or(rest.len());
    let address = rest.get(..end)?;
    let (port, path) = match address.split_once('/') {
        Some((port, path)) => (port, format!("/{path}")),
        None => (address, "/".to_owned()),
    };
    let port = match port.strip_prefix(':') {
        Some(number) => number.parse().ok().filter(|n| *n > 0)?,
        None if port.is_empty() => 80,
        None => return None,
    };
    Some((port, path.into()))
}

#[cfg(test)]
mod tests {
    use super::local_address;

    #[test]
    fn addresses_of_this_machine_are_found_in_commands() {
        for (text, expected) in [
            (
                "curl -f http://localhost:3000/health || exit 1",
                Some((3000, "/health")),
            ),
            ("wget -qO- http://127.0.0.1/", Some((80, "/"))),
            ("fetch('http://localhost:8080')", Some((8080, "/"))),
            ("pg_isready -U postgres", None),
            ("curl http://other:3000/", None),
            ("curl http://localhost:99999/", None),
        ] {
            assert_eq!(
                local_address(text),
                expected.map(|(p, s)| (p, s.into())),
                "{text}"
            );
        }
    }
}
