//! The object that is being read, and a cursor on one of its fields.

use std::cell::{Cell, RefCell};

use rajut_types::{Code, Diagnostic, ObjectRef, Origin, Severity, Span, Text};

use crate::parse::{Node, SourceFile, Value};

/// Findings of one object beyond this many are dropped; one document rarely has ten.
const MAX_FINDINGS: usize = 100;

/// The object that is being read and what was found in it.
#[derive(Debug)]
pub(crate) struct Scope<'a> {
    file: &'a SourceFile,
    object: ObjectRef,
    /// Keys in `snake_case` mean the same (Istio's kinds; Kubernetes' own do not).
    snake: bool,
    diagnostics: RefCell<Vec<Diagnostic>>,
    errors: Cell<usize>,
}

impl<'a> Scope<'a> {
    pub(crate) fn new(file: &'a SourceFile, object: ObjectRef, snake: bool) -> Self {
        Self {
            file,
            object,
            snake,
            diagnostics: RefCell::default(),
            errors: Cell::new(0),
        }
    }

    /// The document's root as a field with an empty path.
    pub(crate) fn root(&'a self, node: &'a Node) -> Field<'a> {
        Field {
            scope: self,
            node,
            key: first_key(node),
            path: String::new(),
        }
    }

    /// A tree of its own inside the document (a text that is YAML itself), at `path`.
    pub(crate) fn nested(&'a self, node: &'a Node, path: &str) -> Field<'a> {
        Field {
            path: path.to_owned(),
            ..self.root(node)
        }
    }

    pub(crate) fn namespace(&self) -> &Text {
        &self.object.namespace
    }

    pub(super) fn snake(&self) -> bool {
        self.snake
    }

    /// Whether further findings would be dropped.
    pub(super) fn is_full(&self) -> bool {
        self.diagnostics.borrow().len() >= MAX_FINDINGS
    }

    /// Errors so far.
    pub(crate) fn errors(&self) -> usize {
        self.errors.get()
    }

    pub(crate) fn report(&self, diagnostic: Diagnostic) {
        if diagnostic.severity == Severity::Error {
            self.errors.set(self.errors.get() + 1);
        }
        let mut all = self.diagnostics.borrow_mut();
        // The same text can be reached twice through a YAML alias: it is reported once.
        if all.len() < MAX_FINDINGS
            && !all.iter().any(|d| {
                d.code == diagnostic.code && d.span == diagnostic.span && d.message == diagnostic.message
            })
        {
            all.push(diagnostic);
        }
    }

    /// What was found.
    pub(crate) fn finish(self) -> Vec<Diagnostic> {
        self.diagnostics.into_inner()
    }

    fn diagnostic(
        &self,
        code: Code,
        severity: Severity,
        path: &str,
        span: Span,
        message: String,
    ) -> Diagnostic {
        let origin = Origin {
            source: self.file.name.clone(),
            line: span.line,
            object: self.object.clone(),
            field_path: path.into(),
        };
        let span = self.file.clip(span);
        Diagnostic::new(code, severity, origin, message).at(span, self.file.excerpt(span))
    }
}

fn first_key(node: &Node) -> Span {
    node.entries().first().map_or(node.span, |e| e.key.span)
}

/// A value inside the object, with its path.
#[derive(Debug, Clone)]
pub(crate) struct Field<'a> {
    pub(super) scope: &'a Scope<'a>,
    pub(crate) node: &'a Node,
    /// Of the key it stands under; of the value for items of a list.
    pub(super) key: Span,
    pub(super) path: String,
}

impl<'a> Field<'a> {
    pub(crate) fn scope(&self) -> &'a Scope<'a> {
        self.scope
    }

    /// Where the field stands, for the validated value.
    pub(crate) fn origin(&self) -> Origin {
        Origin {
            source: self.scope.file.name.clone(),
            line: self.key.line,
            object: self.scope.object.clone(),
            field_path: self.path.as_str().into(),
        }
    }

    /// The value's place; of a mapping or list, its key's.
    fn place(&self) -> Span {
        match &self.node.value {
            Value::Scalar(scalar) if !scalar.text.is_empty() => self.node.span,
            _ => self.key,
        }
    }

    pub(crate) fn error(&self, code: Code, message: impl Into<String>, hint: impl Into<String>) {
        self.say(Severity::Error, code, message, hint);
    }

    pub(crate) fn warn(&self, code: Code, message: impl Into<String>, hint: impl Into<String>) {
        self.say(Severity::Warning, code, message, hint);
    }

    pub(crate) fn note(&self, code: Code, message: impl Into<String>, hint: impl Into<String>) {
        self.say(Severity::Note, code, message, hint);
    }

    /// A finding at the value.
    pub(crate) fn say(
        &self,
        severity: Severity,
        code: Code,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        let diagnostic = self
            .scope
            .diagnostic(code, severity, &self.path, self.place(), message.into());
        self.scope.report(diagnostic.hint(hint));
    }

    /// A finding at the key.
    pub(crate) fn say_key(
        &self,
        severity: Severity,
        code: Code,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        let diagnostic = self
            .scope
            .diagnostic(code, severity, &self.path, self.key, message.into());
        self.scope.report(diagnostic.hint(hint));
    }
}
