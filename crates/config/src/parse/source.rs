//! A source's text and its lines.

use std::{fmt, sync::Arc};

use rajut_types::{Span, Text};

/// The largest source that is read: 10 MiB. Kubernetes itself refuses an object of more than 1.5 MiB.
pub const MAX_SOURCE_BYTES: usize = 10 * 1024 * 1024;

/// The longest line that is shown with a finding, in characters.
const MAX_EXCERPT: usize = 200;

/// Something to read configuration from, before anything is known of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Source {
    /// A file's path as the user knows it, or `<stdin>`, `kubernetes`, `built-in`.
    pub name: Text,
    /// What it holds, unchecked. Counted: a file that stays is kept once, whoever remembers it.
    pub bytes: Arc<[u8]>,
}

impl Source {
    /// A source of that name and content.
    pub fn new(name: impl Into<Text>, bytes: impl Into<Vec<u8>>) -> Self {
        Self {
            name: name.into(),
            bytes: bytes.into().into(),
        }
    }
}

impl fmt::Debug for Source {
    /// Without the content, which may be large or hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Source({}, {} bytes)", self.name, self.bytes.len())
    }
}

/// A source that is text, with the beginning of each line.
#[derive(Debug, Clone)]
pub(crate) struct SourceFile {
    pub(crate) name: Text,
    text: Arc<str>,
    /// Byte offsets; the first is 0.
    lines: Arc<[u32]>,
}

impl SourceFile {
    /// The caller has checked [`MAX_SOURCE_BYTES`], so offsets fit in 32 bits.
    pub(crate) fn new(name: Text, text: &str) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1));
        Self {
            name,
            lines: starts.map(|at| u32::try_from(at).unwrap_or(u32::MAX)).collect(),
            text: text.into(),
        }
    }

    /// The 1-based line without its end; `None` past the end.
    pub(crate) fn line(&self, number: u32) -> Option<&str> {
        let index = usize::try_from(number).ok()?.checked_sub(1)?;
        let start = usize::try_from(*self.lines.get(index)?).ok()?;
        let end = match self.lines.get(index + 1) {
            Some(next) => usize::try_from(*next).ok()?,
            None => self.text.len(),
        };
        Some(self.text.get(start..end)?.trim_end_matches(['\n', '\r']))
    }

    /// The line of `span`, fit for a terminal: tabs are blanks and control characters are replaced, one for one, so
    /// that columns stay. Empty where the line is too long to be shown with its mark.
    pub(crate) fn excerpt(&self, span: Span) -> Text {
        let Some(line) = self.line(span.line) else {
            return Text::default();
        };
        let column = usize::try_from(span.column).unwrap_or(usize::MAX);
        if column > MAX_EXCERPT {
            return Text::default();
        }
        line.chars()
            .take(MAX_EXCERPT)
            .map(visible)
            .collect::<String>()
            .into()
    }

    /// `span` cut to what its excerpt shows.
    pub(crate) fn clip(&self, span: Span) -> Span {
        let Some(line) = self.line(span.line) else {
            return span;
        };
        let width = u32::try_from(line.chars().take(MAX_EXCERPT).count()).unwrap_or(0);
        let room = (width + 1).saturating_sub(span.column);
        Span {
            length: span.length.min(room.max(1)),
            ..span
        }
    }
}

/// `c` as it may be printed.
pub(crate) fn visible(c: char) -> char {
    match c {
        '\t' => ' ',
        // Bidirectional overrides and other controls could make a terminal show something else than what stands there.
        c if c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}') =>
        {
            '\u{fffd}'
        }
        c => c,
    }
}

/// Foreign text as it may stand inside a message: at most 60 characters, printable.
pub(crate) fn shown(text: &str) -> String {
    let mut short: String = text.chars().take(60).map(visible).collect();
    if text.chars().nth(60).is_some() {
        short.push('…');
    }
    short
}
