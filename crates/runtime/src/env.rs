//! The environment variables of a process, read once from one declarative table.
//!
//! A program lists its variables as [`Variable`]s; [`Environment::read`] checks them all and reports every mistake
//! together. The only place that calls `std::env::var`. [`page`] prints the table as documentation.
#![expect(
    clippy::disallowed_methods,
    reason = "the one place that reads the environment"
)]

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

/// What a variable's text must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Any text.
    Text,
    /// `true`, `false`, `1`, `0`.
    Bool,
    /// A whole number.
    Number,
    /// A number with `ms`, `s`, `m` or `h`.
    Duration,
}

/// One environment variable.
#[derive(Debug, Clone, Copy)]
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// What its text must be.
    pub kind: Kind,
    /// The value where it is not set; empty is "not set".
    pub default: &'static str,
    /// One sentence for the reference page.
    pub help: &'static str,
}

/// The variables that concern every process of the mesh.
pub const COMMON: &[Variable] = &[
    Variable {
        name: "RAJUT_STATE_DIR",
        kind: Kind::Text,
        default: "",
        help: "Where a local mesh keeps its state; the user's XDG state folder where it is not set.",
    },
    Variable {
        name: "RAJUT_LOG",
        kind: Kind::Text,
        default: "info",
        help: "Log filter, as `info` or `warn,rajut_xds=debug`.",
    },
    Variable {
        name: "RAJUT_LOG_FORMAT",
        kind: Kind::Text,
        default: "text",
        help: "`text` or `json`.",
    },
];

/// The checked values.
#[derive(Debug, Clone, Default)]
pub struct Environment(BTreeMap<&'static str, String>);

/// Every variable that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("; "))]
pub struct InvalidEnvironment(pub Vec<String>);

impl Environment {
    /// Reads the process's environment.
    pub fn read(table: &[Variable]) -> Result<Self, InvalidEnvironment> {
        Self::from_lookup(table, |name| match std::env::var(name) {
            Ok(text) => Ok(Some(text)),
            Err(std::env::VarError::NotPresent) => Ok(None),
            Err(std::env::VarError::NotUnicode(_)) => Err("it is not UTF-8".to_owned()),
        })
    }

    /// Reads from anything that answers by name.
    pub fn from_lookup(
        table: &[Variable],
        lookup: impl Fn(&str) -> Result<Option<String>, String>,
    ) -> Result<Self, InvalidEnvironment> {
        let (mut values, mut wrong) = (BTreeMap::new(), Vec::new());
        for variable in table {
            let text = match lookup(variable.name) {
                Ok(text) => text.unwrap_or_else(|| variable.default.to_owned()),
                Err(why) => {
                    wrong.push(format!("{}: {why}", variable.name));
                    continue;
                }
            };
            if text.is_empty() {
                continue;
            }
            let valid = match variable.kind {
                Kind::Text => true,
                Kind::Bool => parse_bool(&text).is_some(),
                Kind::Number => text.parse::<u64>().is_ok(),
                Kind::Duration => parse_duration(&text).is_some(),
            };
            if valid {
                values.insert(variable.name, text);
            } else {
                let wanted = match variable.kind {
                    Kind::Text => "a text",
                    Kind::Bool => "`true` or `false`",
                    Kind::Number => "a whole number",
                    Kind::Duration => "a duration such as `30s`",
                };
                wrong.push(format!("{}=`{text}` is not {wanted}", variable.name));
            }
        }
        if wrong.is_empty() {
            Ok(Self(values))
        } else {
            Err(InvalidEnvironment(wrong))
        }
    }

    /// The text of a variable, unless it is not set.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// A variable of [`Kind::Bool`]; false where it is not set.
    pub fn flag(&self, name: &str) -> bool {
        self.text(name).and_then(parse_bool).unwrap_or(false)
    }

    /// A variable of [`Kind::Number`].
    pub fn number(&self, name: &str) -> Option<u64> {
        self.text(name).and_then(|text| text.parse().ok())
    }

    /// A variable of [`Kind::Duration`].
    pub fn duration(&self, name: &str) -> Option<Duration> {
        self.text(name).and_then(parse_duration)
    }
}

/// The table as a Markdown page.
pub fn page(table: &[Variable]) -> String {
    let mut page = String::from("| variable | kind | default | meaning |\n| --- | --- | --- | --- |\n");
    for Variable {
        name,
        kind,
        default,
        help,
    } in table
    {
        // Writing to a String can't fail.
        let _ = writeln!(page, "| `{name}` | {kind:?} | `{default}` | {help} |");
    }
    page
}

fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "true" | "1" => Some(true),
        "false" | "0" => Some(false),
        _ => None,
    }
}

/// Parses `250ms`, `30s`, `5m`, `24h`; whole numbers only.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    match unit {
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        "m" => number.checked_mul(60).map(Duration::from_secs),
        "h" => number.checked_mul(3_600).map(Duration::from_secs),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[Variable] = &[
        Variable {
            name: "A",
            kind: Kind::Duration,
            default: "24h",
            help: "",
        },
        Variable {
            name: "B",
            kind: Kind::Bool,
            default: "",
            help: "",
        },
    ];

    #[test]
    fn all_mistakes_are_reported_together() {
        let wrong = Environment::from_lookup(TABLE, |name| Ok(Some(format!("bad-{name}"))));
        assert_eq!(wrong.expect_err("both are wrong").0.len(), 2);
    }

    #[test]
    fn defaults_stand_where_nothing_is_set() {
        let environment = Environment::from_lookup(TABLE, |_| Ok(None)).expect("defaults are valid");
        assert_eq!(environment.duration("A"), Some(Duration::from_hours(24)));
        assert!(!environment.flag("B"));
        assert_eq!(environment.text("B"), None);
    }

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(parse_duration("250ms"), Some(Duration::from_millis(250)));
        for bad in ["", "5", "s", "-1s", "1.5s", "1d", "99999999999999999999s"] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
    }
}
