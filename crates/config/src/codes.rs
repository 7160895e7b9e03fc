//! Every code of a finding: what it is called, what it means, what is wrong and what is right.
//!
//! `rajut explain RJ0042` prints an entry; `docs/reference/diagnostics.md` is made of them. A code keeps its number for
//! ever; a code that is no longer used is left out, never given to something else.

use std::fmt;

use rajut_types::Code;

/// What there is to say about a code.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// The code.
    pub code: Code,
    /// The constant's name, for tests and lists.
    pub name: &'static str,
    /// A few words.
    pub title: &'static str,
    /// What it means and what to do.
    pub explanation: &'static str,
    /// YAML that gives the finding; empty where it takes more than a text.
    pub wrong: &'static str,
    /// The same, as it should be.
    pub right: &'static str,
}

/// The entry of a code.
pub fn find(code: Code) -> Option<&'static Entry> {
    ENTRIES.iter().find(|entry| entry.code == code)
}

/// The code of a text such as `RJ0042`, in any letter case and without leading zeros if need be.
pub fn parse(text: &str) -> Option<Code> {
    let digits = text
        .trim()
        .get(2..)
        .filter(|_| text.trim().get(..2).is_some_and(|p| p.eq_ignore_ascii_case("rj")))?;
    digits.parse().ok().map(Code)
}

/// The page `docs/reference/diagnostics.md`.
pub fn markdown() -> String {
    let mut page = String::from(
        "# Diagnostics\n\nEvery finding of `rajut analyze` has a code that keeps its meaning. `rajut explain CODE` prints \
         the same text. This page is made from the table in `crates/config/src/codes/table.rs`.\n",
    );
    for entry in ENTRIES {
        page.push_str(&entry.to_string());
    }
    page
}

impl fmt::Display for Entry {
    /// As Markdown: what `rajut explain` prints, and a section of the page.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n## {}: {}\n\n{}", self.code, self.title, self.explanation)?;
        if !self.wrong.is_empty() {
            writeln!(
                f,
                "\nWrong:\n\n```yaml\n{}```\n\nRight:\n\n```yaml\n{}```",
                self.wrong, self.right
            )?;
        }
        Ok(())
    }
}

macro_rules! codes {
    ($($number:literal $name:ident $title:literal: $explanation:literal $(wrong $wrong:literal right $right:literal)?)*) => {
        $(
            #[doc = concat!($title, ".")]
            pub const $name: Code = Code($number);
        )*
        /// All entries, by number.
        pub const ENTRIES: &[Entry] = &[$(
            Entry {
                code: $name,
                name: stringify!($name),
                title: $title,
                explanation: $explanation,
                wrong: concat!($($wrong)?),
                right: concat!($($right)?),
            },
        )*];
    };
}

mod table;

pub use table::*;

#[cfg(test)]
mod tests;
