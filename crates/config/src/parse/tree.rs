//! The tree of one YAML document: every key and value with its place.
//!
//! Scalars stay text until a field asks for a type, so that no value is lost to YAML 1.1's surprises (`no`, `0755`,
//! `1_000`): a field that wants text can see that it was written without quotes.

use std::collections::{HashMap, HashSet};

use granit_parser::{Event, Parser, ScalarStyle, Span as Mark, Tag};
use rajut_types::{Code, Span, Text};

use crate::codes;

/// Nesting of blocks and of brackets, each.
const MAX_DEPTH: usize = 100;
/// Nodes that aliases and merge keys may add to one document.
const MAX_ALIAS_NODES: usize = 100_000;

/// Nodes under anchors, kept so that aliases can repeat them; nested anchors count each time.
const MAX_ANCHORED_NODES: usize = 300_000;

/// A value with its place.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    pub(crate) value: Value,
    /// Scalars: the text. Mappings and sequences: their first character.
    pub(crate) span: Span,
}

/// What a value is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Scalar(Scalar),
    Sequence(Vec<Node>),
    Mapping(Vec<Entry>),
}

/// A scalar as written.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Scalar {
    pub(crate) text: Text,
    pub(crate) style: Style,
}

/// How a scalar was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// Without quotes: may be a number, a boolean, null.
    Plain,
    /// In quotes, or tagged `!!str`: text.
    Quoted,
    /// `|` or `>`: text.
    Block,
}

/// A key with its value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub(crate) key: Key,
    pub(crate) node: Node,
}

/// A key with its place.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Key {
    pub(crate) text: Text,
    pub(crate) span: Span,
    plain: bool,
}

/// Why a document could not be read, or what is wrong in it although it could.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Defect {
    pub(crate) code: Code,
    pub(crate) span: Span,
    pub(crate) message: String,
    pub(crate) hint: String,
}

impl Node {
    /// The entry of that key, if this is a mapping and has it.
    pub(crate) fn get(&self, key: &str) -> Option<&Self> {
        match &self.value {
            Value::Mapping(entries) => entries.iter().find(|e| &*e.key.text == key).map(|e| &e.node),
            _ => None,
        }
    }

    /// The text, if this is a scalar.
    pub(crate) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar(scalar) => Some(&scalar.text),
            _ => None,
        }
    }

    /// The items, if this is a sequence.
    pub(crate) fn items(&self) -> &[Self] {
        match &self.value {
            Value::Sequence(items) => items,
            _ => &[],
        }
    }

    /// The entries, if this is a mapping.
    pub(crate) fn entries(&self) -> &[Entry] {
        match &self.value {
            Value::Mapping(entries) => entries,
            _ => &[],
        }
    }

    /// Whether it is YAML's null: nothing, `~` or `null` without quotes.
    pub(crate) fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar(Scalar { text, style: Style::Plain })
            if matches!(&**text, "" | "~" | "null" | "Null" | "NULL"))
    }

    /// How many nodes it is made of.
    fn weight(&self) -> usize {
        1 + match &self.value {
            Value::Scalar(_) => 0,
            Value::Sequence(items) => items.iter().map(Self::weight).sum(),
            Value::Mapping(entries) => entries.iter().map(|e| 1 + e.node.weight()).sum(),
        }
    }
}

/// Where a text stands in its source.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Place {
    /// Its first line is that line, and each line begins after so many columns.
    From { line: u32, columns: u32 },
    /// Somewhere inside this value (an escaped text): everything in it is reported there.
    Within(Span),
}

/// Reads `text`, which stands at `place` in its source, and gives each document's root to `document`.
///
/// What is wrong without hiding the rest (a duplicate key) goes to `defects`; the error is what ends the reading.
pub(crate) fn read(
    text: &str,
    place: Place,
    defects: &mut Vec<Defect>,
    mut document: impl FnMut(Node),
) -> Result<(), Defect> {
    let mut options = granit_parser::options! {
        simple_key_max_lookahead: 4096,
        flow_nesting_limit: MAX_DEPTH,
        block_nesting_limit: MAX_DEPTH,
    };
    options.set_emit_comments(false);
    let mut builder = Builder {
        parser: Parser::new_from_str_with_options(text, options),
        text,
        place,
        anchors: HashMap::new(),
        alias_budget: MAX_ALIAS_NODES,
        anchor_budget: MAX_ANCHORED_NODES,
        defects,
    };
    while let Some((event, mark)) = builder.next()? {
        match event {
            Event::DocumentStart(..) => {
                builder.anchors.clear();
                builder.alias_budget = MAX_ALIAS_NODES;
                builder.anchor_budget = MAX_ANCHORED_NODES;
            }
            Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
            event => {
                let root = builder.node(event, mark)?;
                document(root);
            }
        }
    }
    Ok(())
}

struct Builder<'text, 'defects> {
    parser: Parser<'text, granit_parser::StrInput<'text>>,
    text: &'text str,
    place: Place,
    anchors: HashMap<usize, Node>,
    alias_budget: usize,
    anchor_budget: usize,
    defects: &'defects mut Vec<Defect>,
}

impl<'text> Builder<'text, '_> {
    fn next(&mut self) -> Result<Option<(Event<'text>, Mark)>, Defect> {
        match self.parser.next_event() {
            None => Ok(None),
            Some(Ok(event)) => Ok(Some(event)),
            Some(Err(error)) => Err(self.scan_error(&error)),
        }
    }

    fn scan_error(&self, error: &granit_parser::ScanError) -> Defect {
        let mark = error.marker();
        let span = self.at(mark.line(), mark.col(), 1);
        if matches!(error.kind(), granit_parser::ErrorKind::RecursionLimitExceeded) {
            return limit(
                span,
                format!("the document is nested deeper than {MAX_DEPTH} levels"),
            );
        }
        let line = self.text.lines().nth(mark.line().saturating_sub(1)).unwrap_or("");
        let hint = scan_hint(error.kind(), line, mark.col());
        Defect {
            code: codes::SYNTAX,
            span,
            message: format!("this is not YAML: {}", super::source::shown(&error.info())),
            hint: hint.to_owned(),
        }
    }

    fn at(&self, line: usize, column: usize, length: usize) -> Span {
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        match self.place {
            Place::From { line: first, columns } => Span {
                line: number(line.saturating_sub(1)).saturating_add(first),
                column: number(column).saturating_add(1).saturating_add(columns),
                length: number(length).max(1),
            },
            Place::Within(span) => span,
        }
    }

    fn span(&self, mark: &Mark) -> Span {
        let (start, end) = (mark.start, mark.end);
        let length = if start.line() == end.line() {
            end.col().saturating_sub(start.col())
        } else {
            1
        };
        self.at(start.line(), start.col(), length)
    }

    fn node(&mut self, event: Event<'text>, mark: Mark) -> Result<Node, Defect> {
        let span = self.span(&mark);
        let first = Span { length: 1, ..span };
        let (node, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let scalar = scalar_of(&text, style, tag.as_deref(), span)?;
                let value = Value::Scalar(scalar);
                (Node { value, span }, anchor)
            }
            Event::SequenceStart(_, anchor, _) => {
                let mut items = Vec::new();
                loop {
                    match self.next()? {
                        None | Some((Event::SequenceEnd, _)) => break,
                        Some((event, mark)) => items.push(self.node(event, mark)?),
                    }
                }
                let value = Value::Sequence(items);
                (Node { value, span: first }, anchor)
            }
            Event::MappingStart(_, anchor, _) => {
                let value = Value::Mapping(self.mapping()?);
                (Node { value, span: first }, anchor)
            }
            Event::Alias(id) => return self.alias(id, span),
            _ => {
                return Err(Defect {
                    code: codes::SYNTAX,
                    span,
                    message: "this is not YAML: a value is missing here".to_owned(),
                    hint: String::new(),
                });
            }
        };
        if anchor != 0 {
            self.anchor_budget = self.anchor_budget.checked_sub(node.weight()).ok_or_else(|| {
                limit(
                    span,
                    format!("the document's anchors hold more than {MAX_ANCHORED_NODES} values"),
                )
            })?;
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn mapping(&mut self) -> Result<Vec<Entry>, Defect> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut merged: Vec<Node> = Vec::new();
        let mut seen: HashSet<Text> = HashSet::new();
        loop {
            let (event, mark) = match self.next()? {
                None | Some((Event::MappingEnd, _)) => break,
                Some(next) => next,
            };
            let key = self.key(event, &mark)?;
            let (event, mark) = self.next()?.ok_or_else(|| Defect {
                code: codes::SYNTAX,
                span: key.span,
                message: "this is not YAML: the key has no value".to_owned(),
                hint: String::new(),
            })?;
            let node = self.node(event, mark)?;
            if key.plain && &*key.text == "<<" {
                merged.push(node);
            } else if seen.insert(key.text.clone()) {
                entries.push(Entry { key, node });
            } else {
                self.defects.push(duplicate(&key, &entries));
            }
        }
        for node in merged {
            merge(node, &mut entries, &mut seen)?;
        }
        Ok(entries)
    }

    fn key(&mut self, event: Event<'text>, mark: &Mark) -> Result<Key, Defect> {
        let span = self.span(mark);
        match event {
            Event::Scalar(text, style, anchor, _) => {
                let plain = style == ScalarStyle::Plain;
                if anchor != 0 {
                    let style = if plain { Style::Plain } else { Style::Quoted };
                    let value = Value::Scalar(Scalar {
                        text: (&*text).into(),
                        style,
                    });
                    self.anchors.insert(anchor, Node { value, span });
                }
                Ok(Key {
                    text: (&*text).into(),
                    span,
                    plain,
                })
            }
            Event::Alias(id) => match self.alias(id, span)?.text() {
                Some(text) => Ok(Key {
                    text: text.into(),
                    span,
                    plain: false,
                }),
                None => Err(complex_key(span)),
            },
            _ => Err(complex_key(span)),
        }
    }

    fn alias(&mut self, id: usize, span: Span) -> Result<Node, Defect> {
        // An alias to a node that is not finished yet (one that holds itself) has no entry.
        let Some(target) = self.anchors.get(&id) else {
            return Err(Defect {
                code: codes::SYNTAX,
                span,
                message: "this alias refers to the value that it stands in".to_owned(),
                hint: String::new(),
            });
        };
        match self.alias_budget.checked_sub(target.weight()) {
            Some(rest) => self.alias_budget = rest,
            None => {
                return Err(limit(
                    span,
                    format!("the document's aliases add more than {MAX_ALIAS_NODES} values"),
                ));
            }
        }
        // The place is that of the anchor: it is the text there that has to be changed.
        Ok(target.clone())
    }
}

fn scalar_of(text: &str, style: ScalarStyle, tag: Option<&Tag>, span: Span) -> Result<Scalar, Defect> {
    let style = match style {
        ScalarStyle::Plain => Style::Plain,
        ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => Style::Quoted,
        ScalarStyle::Literal | ScalarStyle::Folded => Style::Block,
    };
    let style = match tag.map(|tag| (tag.handle(), tag.suffix())) {
        None => style,
        Some(("tag:yaml.org,2002:", "str") | ("!", "")) => Style::Quoted,
        Some(("tag:yaml.org,2002:", "int" | "float" | "bool" | "null")) => Style::Plain,
        Some((handle, suffix)) => {
            return Err(Defect {
                code: codes::SYNTAX,
                span,
                message: format!(
                    "the tag `{}` is not known here",
                    super::source::shown(&format!("{handle}{suffix}"))
                ),
                hint: "write the value without a tag".to_owned(),
            });
        }
    };
    Ok(Scalar {
        text: text.into(),
        style,
    })
}

/// `<<`: entries of another mapping that are not written here.
fn merge(node: Node, entries: &mut Vec<Entry>, seen: &mut HashSet<Text>) -> Result<(), Defect> {
    let span = node.span;
    match node.value {
        Value::Mapping(others) => {
            for other in others {
                if seen.insert(other.key.text.clone()) {
                    entries.push(other);
                }
            }
            Ok(())
        }
        Value::Sequence(nodes) => {
            for node in nodes {
                if !matches!(node.value, Value::Mapping(_)) {
                    return Err(bad_merge(span));
                }
                merge(node, entries, seen)?;
            }
            Ok(())
        }
        Value::Scalar(_) => Err(bad_merge(span)),
    }
}

/// What to write instead, where the cause can be guessed.
fn scan_hint(kind: &granit_parser::ErrorKind, line: &str, column: usize) -> &'static str {
    use granit_parser::ErrorKind as Kind;
    let blank = line.len() - line.trim_start().len();
    let before: String = line.chars().take(column).collect();
    match kind {
        _ if line.bytes().take(blank).any(|b| b == b'\t') => "YAML is indented with blanks, never with tabs",
        Kind::UnclosedQuotedScalar => "close the quotes",
        Kind::UnclosedFlowCollection { .. } | Kind::MismatchedFlowCollectionEnd { .. } => {
            "close the bracket that was opened"
        }
        Kind::UnknownAnchor => "a text that begins with `*` must stand in quotes",
        _ if before.contains(": ") => "a value that holds `: ` must stand in quotes",
        _ if line.trim_start().starts_with(['@', '`', '%']) => {
            "a text that begins with one of @ ` % must stand in quotes"
        }
        _ => "check the indentation of this line and of the one above",
    }
}

fn duplicate(key: &Key, entries: &[Entry]) -> Defect {
    let first = entries.iter().find(|e| e.key.text == key.text);
    let line = first.map_or(0, |e| e.key.span.line);
    Defect {
        code: codes::DUPLICATE_KEY,
        span: key.span,
        message: format!(
            "the key `{}` stands here a second time; the first is on line {line}",
            super::source::shown(&key.text)
        ),
        hint: "keep one of the two, or make them one list".to_owned(),
    }
}

fn complex_key(span: Span) -> Defect {
    Defect {
        code: codes::SYNTAX,
        span,
        message: "a key must be plain text, not a list or a mapping".to_owned(),
        hint: "a text that begins with `{` or `[` must stand in quotes".to_owned(),
    }
}

fn bad_merge(span: Span) -> Defect {
    Defect {
        code: codes::SYNTAX,
        span,
        message: "`<<` takes a mapping or a list of mappings".to_owned(),
        hint: String::new(),
    }
}

fn limit(span: Span, message: String) -> Defect {
    Defect {
        code: codes::LIMIT,
        span,
        message,
        hint: "write the values out, or split the file".to_owned(),
    }
}

impl Entry {
    /// An entry that nobody wrote but that is meant, with the place of the object.
    pub(super) fn implied(key: &str, text: &str, span: Span) -> Self {
        Self {
            key: Key {
                text: key.into(),
                span,
                plain: true,
            },
            node: Node {
                value: Value::Scalar(Scalar {
                    text: text.into(),
                    style: Style::Quoted,
                }),
                span,
            },
        }
    }
}
