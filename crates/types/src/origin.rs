//! Where a configured value was written.

use std::fmt;

use crate::Text;

/// One object of configuration by its kind, namespace and name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
pub struct ObjectRef {
    /// The kind without its group, e.g. `VirtualService`.
    pub kind: Text,
    /// The namespace; empty for objects that have none.
    pub namespace: Text,
    /// The name.
    pub name: Text,
}

impl ObjectRef {
    /// A reference to an object.
    pub fn new(kind: impl Into<Text>, namespace: impl Into<Text>, name: impl Into<Text>) -> Self {
        Self {
            kind: kind.into(),
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{} {}", self.kind, self.name)
        } else {
            write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
        }
    }
}

/// Where a configured value came from: the source (a file's path, `<stdin>`, `kubernetes`, `built-in`), the object,
/// and the path of the field inside the object (`spec.http[0].route[1].weight`).
///
/// It stands on every configured value from the first parse to the proxy's compiled rules, so that diagnostics and
/// `rajut why` can name file and line; on the wire it travels as metadata under [`Origin::METADATA_KEY`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
pub struct Origin {
    /// The file, or the name of another source.
    pub source: Text,
    /// The 1-based line of the field in the source, 0 where it is unknown.
    pub line: u32,
    /// The object.
    pub object: ObjectRef,
    /// The field's path inside the object; empty for the object as a whole.
    pub field_path: Text,
}

impl Origin {
    /// The key of the filter metadata that carries an origin on the wire.
    pub const METADATA_KEY: &'static str = "dev.rajut.origin";

    /// An origin of a whole object, at an unknown line.
    pub fn new(source: impl Into<Text>, object: ObjectRef) -> Self {
        Self {
            source: source.into(),
            line: 0,
            object,
            field_path: Text::default(),
        }
    }

    /// What the mesh itself decided, where nobody wrote anything.
    pub fn built_in(what: &str) -> Self {
        Self::new("built-in", ObjectRef::new("Default", "", what))
    }

    /// The same object, at another field and line.
    #[must_use]
    pub fn at(&self, field_path: impl Into<Text>, line: u32) -> Self {
        Self {
            field_path: field_path.into(),
            line,
            ..self.clone()
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if &*self.source == "built-in" {
            return write!(f, "built-in {}", self.object.name);
        }
        f.write_str(&self.source)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        write!(f, " ({}", self.object)?;
        if !self.field_path.is_empty() {
            write!(f, " {}", self.field_path)?;
        }
        f.write_str(")")
    }
}
