//! Single values: text, numbers, durations, names, choices.

use std::{net::IpAddr, time::Duration};

use ipnet::IpNet;
use rajut_types::{Hostname, Labels, Percent, Text};

use super::{
    Field, Object,
    object::{listed, nearest},
    shown,
};
use crate::{
    codes,
    parse::{Node, Scalar, Style, Value},
};

/// The longest duration that is taken: 10 years. Envoy refuses more than 315 576 000 000 s; nobody means that.
const MAX_DURATION: Duration = Duration::from_hours(87600);

fn to_json(node: &Node) -> serde_json::Value {
    match &node.value {
        Value::Mapping(entries) => entries
            .iter()
            .map(|entry| (entry.key.text.to_string(), to_json(&entry.node)))
            .collect(),
        Value::Sequence(items) => items.iter().map(to_json).collect(),
        Value::Scalar(scalar) => {
            let plain = (scalar.style == Style::Plain).then(|| plain_type(&scalar.text));
            let text = || serde_json::Value::from(&*scalar.text);
            match plain {
                Some(PlainType::Null) => serde_json::Value::Null,
                Some(PlainType::Bool) => scalar.text.eq_ignore_ascii_case("true").into(),
                Some(PlainType::Number) => scalar.text.parse::<f64>().map_or_else(|_| text(), Into::into),
                Some(PlainType::Yaml11(_) | PlainType::Text) | None => text(),
            }
        }
    }
}

/// What a scalar without quotes is, by the YAML rules that kubectl and we share or differ in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PlainType {
    Null,
    Bool,
    Number,
    /// Text here (YAML 1.2), something else for tools that follow YAML 1.1, kubectl among them.
    Yaml11(&'static str),
    Text,
}

/// What `text` without quotes is.
pub(crate) fn plain_type(text: &str) -> PlainType {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return PlainType::Null,
        "true" | "True" | "TRUE" | "false" | "False" | "FALSE" => return PlainType::Bool,
        "yes" | "Yes" | "YES" | "no" | "No" | "NO" | "on" | "On" | "ON" | "off" | "Off" | "OFF" | "y"
        | "Y" | "n" | "N" => return PlainType::Yaml11("a boolean"),
        ".nan" | ".NaN" | ".NAN" | ".inf" | "-.inf" | "+.inf" => return PlainType::Number,
        _ => {}
    }
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return PlainType::Text;
    }
    if digits.len() > 1 && digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit()) {
        return PlainType::Yaml11("an octal number");
    }
    if let Some(hex) = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0o"))
        && !hex.is_empty()
        && hex.bytes().all(|b| b.is_ascii_hexdigit())
    {
        return PlainType::Number;
    }
    let numeric =
        |t: &str| t.parse::<f64>().is_ok() && t.bytes().all(|b| b.is_ascii_digit() || b".eE+-".contains(&b));
    if numeric(digits) {
        return PlainType::Number;
    }
    if digits.contains('_') && numeric(&digits.replace('_', "")) {
        return PlainType::Yaml11("a number");
    }
    let clock: Vec<&str> = digits.split(':').collect();
    if clock.len() > 1
        && clock
            .iter()
            .all(|part| !part.is_empty() && part.len() <= 2 && part.bytes().all(|b| b.is_ascii_digit()))
    {
        return PlainType::Yaml11("a number to the base of 60");
    }
    PlainType::Text
}

impl<'a> Field<'a> {
    pub(super) fn wrong_type(&self, expected: &str) {
        let found = match &self.node.value {
            Value::Sequence(_) => "a list".to_owned(),
            Value::Mapping(_) => "a mapping".to_owned(),
            Value::Scalar(scalar) => {
                let what = match plain_type(&scalar.text) {
                    PlainType::Null if scalar.style == Style::Plain => {
                        return self.say_wrong(expected, "nothing");
                    }
                    PlainType::Bool if scalar.style == Style::Plain => "the boolean",
                    PlainType::Number if scalar.style == Style::Plain => "the number",
                    _ => "the text",
                };
                format!("{what} `{}`", shown(&scalar.text))
            }
        };
        self.say_wrong(expected, &found);
    }

    fn say_wrong(&self, expected: &str, found: &str) {
        self.error(
            codes::WRONG_TYPE,
            format!("this must be {expected}; here stands {found}"),
            "",
        );
    }

    fn scalar(&self, expected: &str) -> Option<&'a Scalar> {
        if let Value::Scalar(scalar) = &self.node.value {
            Some(scalar)
        } else {
            self.wrong_type(expected);
            None
        }
    }

    /// Text. A number or boolean without quotes is refused, as the API server would.
    pub(crate) fn text(&self) -> Option<Text> {
        let scalar = self.scalar("text")?;
        if scalar.style == Style::Plain {
            let found = match plain_type(&scalar.text) {
                PlainType::Text => return Some(scalar.text.clone()),
                PlainType::Yaml11(what) => {
                    self.warn(
                        codes::YAML_11,
                        format!(
                            "`{}` without quotes is text here, but {what} for kubectl (YAML 1.1)",
                            shown(&scalar.text)
                        ),
                        format!("write \"{}\"", shown(&scalar.text)),
                    );
                    return Some(scalar.text.clone());
                }
                PlainType::Null => "nothing",
                PlainType::Bool => "a boolean",
                PlainType::Number => "a number",
            };
            self.error(
                codes::WRONG_TYPE,
                format!(
                    "this must be text; `{}` without quotes is {found}",
                    shown(&scalar.text)
                ),
                format!("write \"{}\"", shown(&scalar.text)),
            );
            return None;
        }
        Some(scalar.text.clone())
    }

    /// Text, a number or a boolean, as the text that was written (Compose).
    pub(crate) fn loose_text(&self) -> Option<Text> {
        self.scalar("text").map(|scalar| scalar.text.clone())
    }

    pub(crate) fn non_empty_text(&self) -> Option<Text> {
        let text = self.text()?;
        if text.is_empty() {
            self.error(codes::MISSING_FIELD, "this can't be empty", "");
            return None;
        }
        Some(text)
    }

    pub(crate) fn bool(&self) -> Option<bool> {
        let scalar = self.scalar("`true` or `false`")?;
        match &*scalar.text {
            "true" if scalar.style == Style::Plain => Some(true),
            "false" if scalar.style == Style::Plain => Some(false),
            text => {
                let hint = match text.to_ascii_lowercase().as_str() {
                    "true" | "yes" | "on" | "y" => "write `true`",
                    "false" | "no" | "off" | "n" => "write `false`",
                    _ => "",
                };
                self.error(
                    codes::WRONG_TYPE,
                    format!("this must be `true` or `false`, not `{}`", shown(text)),
                    hint,
                );
                None
            }
        }
    }

    /// A whole number in `range`.
    pub(crate) fn integer(&self, range: std::ops::RangeInclusive<i64>) -> Option<i64> {
        let scalar = self.scalar("a whole number")?;
        let (low, high) = (*range.start(), *range.end());
        let number = scalar.text.parse::<i128>();
        match number {
            Ok(_) if scalar.style != Style::Plain => {
                self.error(
                    codes::WRONG_TYPE,
                    format!("this must be a number; \"{}\" is text", shown(&scalar.text)),
                    "take away the quotes",
                );
                None
            }
            Ok(number) => {
                if let Some(number) = i64::try_from(number).ok().filter(|n| range.contains(n)) {
                    Some(number)
                } else {
                    self.error(
                        codes::OUT_OF_RANGE,
                        format!("{} is outside {low} to {high}", shown(&scalar.text)),
                        "",
                    );
                    None
                }
            }
            Err(_) => {
                self.wrong_type("a whole number");
                None
            }
        }
    }

    pub(crate) fn u32(&self) -> Option<u32> {
        let number = self.integer(0..=i64::from(u32::MAX))?;
        u32::try_from(number).ok()
    }

    /// A count that must be below 2^31 (Istio's `int32` fields) and not negative.
    pub(crate) fn count(&self) -> Option<u32> {
        let number = self.integer(0..=i64::from(i32::MAX))?;
        u32::try_from(number).ok()
    }

    pub(crate) fn port(&self) -> Option<u16> {
        let number = self.integer(1..=65535)?;
        u16::try_from(number).ok()
    }

    pub(crate) fn float(&self) -> Option<f64> {
        let scalar = self.scalar("a number")?;
        match scalar.text.parse::<f64>() {
            Ok(number) if number.is_finite() && scalar.style == Style::Plain => Some(number),
            _ => {
                self.wrong_type("a number");
                None
            }
        }
    }

    /// A number from 0 to 100.
    pub(crate) fn percent(&self) -> Option<Percent> {
        match Percent::new(self.float()?) {
            Ok(percent) => Some(percent),
            Err(error) => {
                self.error(codes::OUT_OF_RANGE, error.to_string(), "");
                None
            }
        }
    }

    /// A duration as Go writes it (`1.5s`, `1h30m`), 0 included.
    pub(crate) fn duration(&self) -> Option<Duration> {
        let scalar = self.scalar("a duration such as `1.5s`")?;
        match parse_duration(&scalar.text) {
            Some(duration) if duration <= MAX_DURATION => Some(duration),
            Some(_) => {
                self.error(codes::BAD_DURATION, "the duration is longer than ten years", "");
                None
            }
            None => {
                let hint = match scalar.text.parse::<f64>() {
                    Ok(number) if number >= 0.0 => format!("write `{}s` for seconds", shown(&scalar.text)),
                    _ => "write a number with a unit: `500ms`, `1.5s`, `2m`, `1h30m`".to_owned(),
                };
                self.error(
                    codes::BAD_DURATION,
                    format!("`{}` is not a duration", shown(&scalar.text)),
                    hint,
                );
                None
            }
        }
    }

    /// A duration of at least 1 ms: Istio refuses `0s`, which could mean "none" or "at once".
    pub(crate) fn positive_duration(&self) -> Option<Duration> {
        let duration = self.duration()?;
        if duration < Duration::from_millis(1) {
            self.error(
                codes::BAD_DURATION,
                "the duration must be at least 1 ms",
                "leave the field out if there should be no bound",
            );
            return None;
        }
        Some(duration)
    }

    /// The value as JSON, numbers and booleans by the rules of YAML 1.2.
    pub(crate) fn json(&self) -> serde_json::Value {
        to_json(self.node)
    }

    /// One of `choices`, by its name.
    pub(crate) fn choice<T: Copy>(&self, choices: &[(&'static str, T)]) -> Option<T> {
        let scalar = self.scalar("one of the known names")?;
        let found = choices.iter().find(|(name, _)| *name == &*scalar.text);
        if found.is_none() {
            let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
            let hint = match nearest(&scalar.text, names.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("write {}", listed(&names)),
            };
            self.error(
                codes::UNKNOWN_VALUE,
                format!("`{}` is not known here", shown(&scalar.text)),
                hint,
            );
        }
        found.map(|(_, value)| *value)
    }

    /// A host name, perhaps with a wildcard.
    pub(crate) fn hostname(&self) -> Option<Hostname> {
        let text = self.text()?;
        match text.parse() {
            Ok(host) => Some(host),
            Err(error) => {
                let hint = if text.contains("://") {
                    "write the name alone, without a scheme"
                } else if text.contains(':') {
                    "write the name alone; the port has a field of its own"
                } else {
                    ""
                };
                self.error(codes::BAD_HOSTNAME, shown(&error.to_string()), hint);
                None
            }
        }
    }

    pub(crate) fn ip(&self) -> Option<IpAddr> {
        let text = self.text()?;
        let address = text.parse().ok();
        if address.is_none() {
            self.error(
                codes::WRONG_TYPE,
                format!("`{}` is not an IP address", shown(&text)),
                "",
            );
        }
        address
    }

    /// A range of addresses, or one address.
    pub(crate) fn net(&self) -> Option<IpNet> {
        let text = self.text()?;
        let net = text.parse().ok().or_else(|| text.parse().ok().map(IpAddr::into));
        if net.is_none() {
            self.error(
                codes::WRONG_TYPE,
                format!(
                    "`{}` is neither an address nor a range of addresses",
                    shown(&text)
                ),
                "write `10.0.0.0/8` or `10.1.2.3`",
            );
        }
        net
    }

    /// A list of texts.
    pub(crate) fn texts(&self) -> Vec<Text> {
        self.list().iter().filter_map(Field::text).collect()
    }

    /// A mapping of label names to values.
    pub(crate) fn labels(&self) -> Labels {
        let mut labels = Labels::default();
        for (name, value) in self.map() {
            if name.is_empty() || name.len() > 317 || name.contains(char::is_whitespace) {
                value.error(
                    codes::BAD_NAME,
                    format!("`{}` can't be a label's name", shown(&name)),
                    "",
                );
            } else if let Some(text) = value.text() {
                labels.insert(name, text);
            }
        }
        labels
    }
}

impl Object<'_> {
    pub(crate) fn text(&self, name: &'static str) -> Option<Text> {
        self.get(name)?.text()
    }

    pub(crate) fn bool(&self, name: &'static str) -> Option<bool> {
        self.get(name)?.bool()
    }

    pub(crate) fn count(&self, name: &'static str) -> Option<u32> {
        self.get(name)?.count()
    }

    pub(crate) fn positive_duration(&self, name: &'static str) -> Option<Duration> {
        self.get(name)?.positive_duration()
    }

    pub(crate) fn texts(&self, name: &'static str) -> Vec<Text> {
        self.get(name).map_or_else(Vec::new, |field| field.texts())
    }

    pub(crate) fn labels(&self, name: &'static str) -> Labels {
        self.get(name)
            .map_or_else(Labels::default, |field| field.labels())
    }
}

/// Go's `time.ParseDuration` without signs: numbers with units, one after the other.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    if text.is_empty() || text.len() > 40 {
        return None;
    }
    let mut rest = text;
    let mut total = 0f64;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(end);
        let unit_end = tail
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let seconds = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        total += number.parse::<f64>().ok()? * seconds;
        rest = tail;
    }
    // Rounded to whole nanoseconds, so that `0.1s` is exactly 100 ms.
    Duration::try_from_secs_f64(total).ok()
}
