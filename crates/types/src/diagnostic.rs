//! What is said to a person about configuration: a stable code, the place, what is wrong, what to write instead.

use std::fmt;

use crate::{Origin, Text};

/// A stable code such as `RJ0042`; `rajut explain RJ0042` tells more. The table of codes is `config::codes`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Code(pub u16);

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RJ{:04}", self.0)
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl serde::Serialize for Code {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The object or the field is not used.
    Error,
    /// It works, but probably not as its author thinks.
    Warning,
    /// Worth knowing.
    Note,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        })
    }
}

/// A place in a source: 1-based line and column, and how many characters are meant. A line of 0 is unknown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
pub struct Span {
    /// 1-based, 0 where unknown.
    pub line: u32,
    /// 1-based, 0 where unknown.
    pub column: u32,
    /// In characters; 0 where unknown.
    pub length: u32,
}

/// One finding about configuration.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Diagnostic {
    /// The stable code.
    pub code: Code,
    /// How bad it is.
    pub severity: Severity,
    /// Source, object and field.
    pub origin: Origin,
    /// The place in the source.
    pub span: Span,
    /// The text of the line that is meant, for underlining; empty where unknown.
    pub excerpt: Text,
    /// What is wrong, one sentence without a full stop.
    pub message: String,
    /// What to write instead; empty where there is nothing to say.
    pub hint: String,
}

impl Diagnostic {
    /// A finding at `origin`; the span takes the origin's line.
    pub fn new(code: Code, severity: Severity, origin: Origin, message: impl Into<String>) -> Self {
        let span = Span {
            line: origin.line,
            column: 0,
            length: 0,
        };
        Self {
            code,
            severity,
            origin,
            span,
            excerpt: Text::default(),
            message: message.into(),
            hint: String::new(),
        }
    }

    /// Adds what to write instead.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    /// Adds the exact place and the text of its line.
    #[must_use]
    pub fn at(mut self, span: Span, excerpt: impl Into<Text>) -> Self {
        self.origin.line = span.line;
        self.span = span;
        self.excerpt = excerpt.into();
        self
    }
}

impl fmt::Display for Diagnostic {
    /// The form that a terminal shows: head line, place, the offending line with a mark below, and the hint.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}[{}]: {}", self.severity, self.code, self.message)?;
        write!(f, "  --> {}", self.origin.source)?;
        if self.span.line > 0 {
            write!(f, ":{}", self.span.line)?;
            if self.span.column > 0 {
                write!(f, ":{}", self.span.column)?;
            }
        }
        write!(f, " ({}", self.origin.object)?;
        if !self.origin.field_path.is_empty() {
            write!(f, " {}", self.origin.field_path)?;
        }
        writeln!(f, ")")?;
        if !self.excerpt.is_empty() {
            let number = self.span.line.to_string();
            writeln!(f, " {number} | {}", self.excerpt)?;
            if self.span.column > 0 {
                let indent = usize::try_from(self.span.column - 1).unwrap_or(0);
                let marks = usize::try_from(self.span.length.max(1)).unwrap_or(1);
                writeln!(
                    f,
                    " {:number_width$} | {:indent$}{}",
                    "",
                    "",
                    "^".repeat(marks),
                    number_width = number.len()
                )?;
            }
        }
        if !self.hint.is_empty() {
            writeln!(f, "  help: {}", self.hint)?;
        }
        Ok(())
    }
}
