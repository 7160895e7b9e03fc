//! From an [`Origin`] back to the text: findings about relations are made long after parsing, yet point at the very
//! field.
//!
//! Holds the documents that were used, as long as [`Loaded`](crate::Loaded) lives. It is not part of a snapshot.

use std::{collections::BTreeMap, sync::Arc};

use rajut_types::{Code, Diagnostic, ObjectRef, Origin, Severity, Span};

use crate::parse::{Node, SourceFile, Value};

/// The documents by their object.
#[derive(Debug, Clone, Default)]
pub struct Index {
    documents: BTreeMap<ObjectRef, Vec<Document>>,
}

#[derive(Debug, Clone)]
struct Document {
    file: SourceFile,
    root: Arc<Node>,
}

impl Index {
    pub(crate) fn add(&mut self, file: SourceFile, object: ObjectRef, root: Arc<Node>) {
        self.documents
            .entry(object)
            .or_default()
            .push(Document { file, root });
    }

    /// A finding at `origin`, with its place and the text of its line.
    pub fn diagnostic(
        &self,
        code: Code,
        severity: Severity,
        origin: &Origin,
        message: impl Into<String>,
    ) -> Diagnostic {
        let diagnostic = Diagnostic::new(code, severity, origin.clone(), message);
        match self.find(origin) {
            Some((file, span)) => diagnostic.at(file.clip(span), file.excerpt(span)),
            None => diagnostic,
        }
    }

    /// The same origin at the line of its very field, as far as that is known.
    pub fn placed(&self, origin: &Origin) -> Origin {
        let line = self.find(origin).map_or(origin.line, |(_, span)| span.line);
        Origin {
            line,
            ..origin.clone()
        }
    }

    /// The text of a field of an object that was left out.
    pub(crate) fn text(&self, object: &ObjectRef, path: &[&str]) -> Option<&str> {
        let document = self.documents.get(object).and_then(|all| all.first())?;
        path.iter()
            .try_fold(&*document.root, |node, key| node.get(key))?
            .text()
    }

    /// The texts of a list two keys deep in an object that was left out.
    pub(crate) fn texts<'i>(
        &'i self,
        object: &ObjectRef,
        first: &str,
        second: &str,
    ) -> impl Iterator<Item = &'i str> + use<'i> {
        let document = self.documents.get(object).and_then(|all| all.first());
        let list = document
            .and_then(|d| d.root.get(first))
            .and_then(|node| node.get(second));
        list.map_or(&[][..], Node::items).iter().filter_map(Node::text)
    }

    fn find(&self, origin: &Origin) -> Option<(&SourceFile, Span)> {
        self.documents
            .get(&origin.object)?
            .iter()
            .filter(|d| d.file.name == origin.source)
            .filter_map(|d| locate(&d.root, &origin.field_path).map(|span| (&d.file, span)))
            // Of two documents with one name the one that holds the line is meant.
            .min_by_key(|(_, span)| span.line.abs_diff(origin.line))
    }
}

/// The place of the field at `path` below `root`: the value if it is a single one, else the key.
fn locate(root: &Node, path: &str) -> Option<Span> {
    let mut node = root;
    let mut key = root.entries().first().map_or(root.span, |e| e.key.span);
    let mut rest = path;
    while !rest.is_empty() {
        let (step, tail) = step(rest)?;
        rest = tail;
        match (&node.value, step) {
            (Value::Sequence(items), Step::Bracket(text)) => {
                node = items.get(text.parse::<usize>().ok()?)?;
                key = node.entries().first().map_or(node.span, |e| e.key.span);
            }
            (Value::Mapping(entries), Step::Bracket(text) | Step::Name(text)) => {
                let entry = entries.iter().find(|e| crate::read::shown(&e.key.text) == text)?;
                node = &entry.node;
                key = entry.key.span;
            }
            _ => return None,
        }
    }
    Some(match &node.value {
        Value::Scalar(scalar) if !scalar.text.is_empty() => node.span,
        _ => key,
    })
}

enum Step<'p> {
    Name(&'p str),
    Bracket(&'p str),
}

fn step(path: &str) -> Option<(Step<'_>, &str)> {
    let path = path.strip_prefix('.').unwrap_or(path);
    if let Some(inner) = path.strip_prefix('[') {
        let (text, tail) = inner.split_once(']')?;
        return Some((Step::Bracket(text), tail));
    }
    let end = path.find(['.', '[']).unwrap_or(path.len());
    let (name, tail) = path.split_at(end);
    (!name.is_empty()).then_some((Step::Name(name), tail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_leads_to_the_value_it_names() {
        let text = "metadata:\n  labels:\n    app.kubernetes.io/name: x\nspec:\n  http:\n  - route:\n    - weight: 10\n";
        let mut roots = Vec::new();
        let mut defects = Vec::new();
        crate::parse::read_tree(
            text,
            crate::parse::Place::From { line: 1, columns: 0 },
            &mut defects,
            |root| roots.push(root),
        )
        .expect("valid YAML");
        let place = |path| locate(&roots[0], path).map(|s| (s.line, s.column));
        assert_eq!(place("spec.http[0].route[0].weight"), Some((7, 15)));
        assert_eq!(place("metadata.labels[app.kubernetes.io/name]"), Some((3, 29)));
        assert_eq!(place("spec.http[0]"), Some((6, 5)));
        assert_eq!(place(""), Some((1, 1)));
        assert_eq!(place("spec.http[1]"), None);
        assert_eq!(place("spec..x]["), None);
    }
}
