//! A mapping that knows which of its keys were asked for.

use std::cell::{Cell, RefCell};

use rajut_types::{Severity, Text};

use super::{Field, shown};
use crate::{
    codes,
    parse::{Entry, Value},
};

/// A mapping. Keys that nobody asked for are reported when it is dropped.
#[derive(Debug)]
pub(crate) struct Object<'a> {
    field: Field<'a>,
    entries: &'a [Entry],
    asked: RefCell<Vec<&'static str>>,
    open: Cell<bool>,
    /// Keys that begin so are anyone's own.
    own_prefix: Cell<Option<&'static str>>,
}

impl<'a> Field<'a> {
    /// This value as a mapping.
    pub(crate) fn object(self) -> Option<Object<'a>> {
        if let Value::Mapping(entries) = &self.node.value {
            Some(Object {
                entries,
                field: self,
                asked: RefCell::default(),
                open: Cell::new(false),
                own_prefix: Cell::new(None),
            })
        } else {
            self.wrong_type("a mapping (`key: value`)");
            None
        }
    }

    /// This value as a list, each item with its path.
    pub(crate) fn list(&self) -> Vec<Self> {
        if let Value::Sequence(items) = &self.node.value {
            items
                .iter()
                .enumerate()
                .map(|(index, node)| Field {
                    scope: self.scope,
                    node,
                    key: node.entries().first().map_or(node.span, |e| e.key.span),
                    path: format!("{}[{index}]", self.path),
                })
                .collect()
        } else {
            self.wrong_type("a list (`- item`)");
            Vec::new()
        }
    }

    /// This value as a mapping of names of the user's own choice.
    pub(crate) fn map(&self) -> Vec<(Text, Self)> {
        if let Value::Mapping(entries) = &self.node.value {
            entries
                .iter()
                .map(|entry| {
                    let field = Field {
                        scope: self.scope,
                        node: &entry.node,
                        key: entry.key.span,
                        path: child(&self.path, &entry.key.text),
                    };
                    (entry.key.text.clone(), field)
                })
                .collect()
        } else {
            self.wrong_type("a mapping (`key: value`)");
            Vec::new()
        }
    }
}

/// The path of `key` below `path`; a key with dots stands in brackets, as in `labels[app.kubernetes.io/name]`.
fn child(path: &str, key: &str) -> String {
    let key = shown(key);
    if key.contains(['.', '[', ']']) {
        format!("{path}[{key}]")
    } else if path.is_empty() {
        key
    } else {
        format!("{path}.{key}")
    }
}

impl<'a> Object<'a> {
    /// The mapping as a field, for findings about the whole.
    pub(crate) fn field(&self) -> &Field<'a> {
        &self.field
    }

    /// The field of that name; `None` if it is absent or null.
    pub(crate) fn get(&self, name: &'static str) -> Option<Field<'a>> {
        let field = self.find(name)?;
        (!field.node.is_null()).then_some(field)
    }

    /// As [`Self::get`], null included.
    pub(crate) fn find(&self, name: &'static str) -> Option<Field<'a>> {
        self.asked.borrow_mut().push(name);
        let mut named = self.entries.iter().filter(|e| self.is(&e.key.text, name));
        let entry = named.next()?;
        let field = self.at(entry);
        if let Some(second) = named.next() {
            self.at(second).say_key(
                Severity::Error,
                codes::DUPLICATE_KEY,
                format!(
                    "`{}` and `{}` are the same field",
                    entry.key.text, second.key.text
                ),
                "keep one of the two",
            );
        }
        Some(field)
    }

    /// The field of that name; it is an error if it is absent.
    pub(crate) fn required(&self, name: &'static str, hint: &str) -> Option<Field<'a>> {
        let field = self.get(name);
        if field.is_none() {
            self.field.say_key(
                Severity::Error,
                codes::MISSING_FIELD,
                format!("`{name}` is missing"),
                hint,
            );
        }
        field
    }

    /// Whether nothing but null stands in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.iter().all(|entry| entry.node.is_null())
    }

    /// Whether the field is there and not null.
    pub(crate) fn has(&self, name: &'static str) -> bool {
        self.get(name).is_some()
    }

    /// The object in that field.
    pub(crate) fn object(&self, name: &'static str) -> Option<Self> {
        self.get(name)?.object()
    }

    /// The items of the list in that field; none if it is absent.
    pub(crate) fn list(&self, name: &'static str) -> Vec<Field<'a>> {
        self.get(name).map_or_else(Vec::new, |field| field.list())
    }

    /// The items of the list in that field; none if it is absent. A list that is there and empty is an error: it may mean
    /// anything or nothing, as the reader likes.
    pub(crate) fn values(&self, name: &'static str) -> Vec<Field<'a>> {
        let Some(field) = self.get(name) else {
            return Vec::new();
        };
        let items = field.list();
        if items.is_empty() {
            field.say_key(
                Severity::Error,
                codes::MISSING_FIELD,
                format!("`{name}` needs at least one value"),
                format!("leave `{name}` out if anything will do"),
            );
        }
        items
    }

    /// Fields of the format that mean nothing to a mesh.
    pub(crate) fn ignore(&self, names: &[&'static str]) {
        self.asked.borrow_mut().extend(names);
    }

    /// Further keys are not ours to judge.
    pub(crate) fn ignore_rest(&self) {
        self.open.set(true);
    }

    /// Keys that begin with `prefix` are not ours to judge.
    pub(crate) fn ignore_prefix(&self, prefix: &'static str) {
        self.own_prefix.set(Some(prefix));
    }

    /// Fields of the format that we do not follow: each is named if it is there.
    pub(crate) fn unsupported(&self, names: &[&'static str], effect: &str) {
        for name in names {
            if let Some(field) = self.get(name) {
                field.say_key(
                    Severity::Warning,
                    codes::NOT_SUPPORTED,
                    format!("`{name}` is not supported yet: {effect}"),
                    "take it out, or leave it for a later version",
                );
            }
        }
    }

    /// As [`Self::unsupported`], where ignoring it would leave something unprotected: the object is not used.
    pub(crate) fn refused(&self, names: &[&'static str], why: &str) {
        for name in names {
            if let Some(field) = self.get(name) {
                field.say_key(
                    Severity::Error,
                    codes::NOT_SUPPORTED,
                    format!("`{name}` is not supported yet, and {why}"),
                    "take it out; the object is not used as it stands",
                );
            }
        }
    }

    /// The names among `names` that are set; more than one is an error.
    pub(crate) fn one_of(&self, names: &[&'static str]) -> Vec<&'static str> {
        let set: Vec<&'static str> = names.iter().copied().filter(|name| self.has(name)).collect();
        if let [first, second, ..] = set[..]
            && let Some(field) = self.get(second)
        {
            field.say_key(
                Severity::Error,
                codes::EXCLUSIVE,
                format!("`{second}` can't stand beside `{first}`"),
                format!("keep one of {}", listed(names)),
            );
        }
        set
    }

    fn at(&self, entry: &'a Entry) -> Field<'a> {
        Field {
            scope: self.field.scope,
            node: &entry.node,
            key: entry.key.span,
            path: child(&self.field.path, &entry.key.text),
        }
    }

    fn is(&self, key: &str, name: &str) -> bool {
        key == name || (self.field.scope.snake() && key.contains('_') && *key == snake_case(name))
    }

    fn report_unknown(&self) {
        if self.open.get() {
            return;
        }
        let asked = self.asked.borrow();
        for entry in self.entries {
            if self.field.scope.is_full() {
                return;
            }
            let own = self
                .own_prefix
                .get()
                .is_some_and(|prefix| entry.key.text.starts_with(prefix));
            if own || asked.iter().any(|name| self.is(&entry.key.text, name)) {
                continue;
            }
            let hint = match nearest(&entry.key.text, asked.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None if asked.is_empty() => "nothing can be set here".to_owned(),
                None if asked.len() <= 12 => {
                    let mut names = asked.clone();
                    names.sort_unstable();
                    names.dedup();
                    format!("known here: {}", names.join(", "))
                }
                None => String::new(),
            };
            self.at(entry).say_key(
                Severity::Error,
                codes::UNKNOWN_FIELD,
                format!("there is no field `{}` here", shown(&entry.key.text)),
                hint,
            );
        }
    }
}

impl Drop for Object<'_> {
    fn drop(&mut self) {
        self.report_unknown();
    }
}

/// `` `a`, `b` or `c` ``.
pub(crate) fn listed(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    match quoted.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
        None => String::new(),
    }
}

/// Names that are compared with a mistyped one.
const MAX_NAMES: usize = 2_000;

/// The name among `names` that is most like `text`, if any is like it at all.
pub fn nearest<'n>(text: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    // The measure costs the product of the lengths; nobody mistypes so long a name.
    if text.len() > 128 {
        return None;
    }
    let lower = text.to_lowercase();
    names
        .filter(|name| name.len() <= 256)
        .take(MAX_NAMES)
        .map(|name| (strsim::damerau_levenshtein(&lower, &name.to_lowercase()), name))
        .filter(|(distance, name)| *distance <= (name.chars().count().max(lower.chars().count()) / 3).max(1))
        .min()
        .map(|(_, name)| name)
}

/// `maxConnections` → `max_connections`.
fn snake_case(name: &str) -> String {
    let mut text = String::with_capacity(name.len() + 4);
    for c in name.chars() {
        if c.is_ascii_uppercase() {
            text.push('_');
        }
        text.push(c.to_ascii_lowercase());
    }
    text
}
