//! The command line of every command here: words, `--flag`s and `--option VALUE`s.

use std::collections::HashMap;
use std::str::FromStr;

use anyhow::{Result, bail};

/// Options that stand alone.
const FLAGS: &[&str] = &["fresh", "full", "hold", "rt", "short", "smoke", "splice"];
/// Options that take a value.
const OPTIONS: &[&str] = &[
    "conns", "expect", "held", "listen", "peers", "port", "profile", "proto", "rate", "rest", "root",
    "rounds", "secs", "streams", "tls", "to",
];

/// A parsed command line.
#[derive(Debug, Default)]
pub(crate) struct Args {
    words: Vec<String>,
    options: HashMap<String, String>,
}

impl Args {
    pub(crate) fn parse(mut words: impl Iterator<Item = String>) -> Result<Self> {
        let mut args = Self::default();
        while let Some(word) = words.next() {
            let Some(name) = word.strip_prefix("--") else {
                args.words.push(word);
                continue;
            };
            let value = if FLAGS.contains(&name) {
                String::new()
            } else if OPTIONS.contains(&name) {
                match words.next() {
                    Some(value) => value,
                    None => bail!("--{name} needs a value"),
                }
            } else {
                bail!("unknown option --{name}");
            };
            args.options.insert(name.to_owned(), value);
        }
        Ok(args)
    }

    pub(crate) fn words(&self) -> &[String] {
        &self.words
    }

    pub(crate) fn flag(&self, name: &str) -> bool {
        self.options.contains_key(name)
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.options.get(name).map(String::as_str)
    }

    pub(crate) fn number<T: FromStr>(&self, name: &str, default: T) -> Result<T> {
        match self.options.get(name) {
            None => Ok(default),
            Some(text) => match text.parse() {
                Ok(number) => Ok(number),
                Err(_) => bail!("--{name}: not a number in range: {text}"),
            },
        }
    }
}
