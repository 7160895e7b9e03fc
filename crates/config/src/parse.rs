//! Bytes of a source → documents with the place of every key and value.
//!
//! First step of walk two. A source is a file, standard input, or one object of another place; it may hold many
//! documents (YAML 1.2, of which JSON is a part). A document that is broken is reported and the next one is read.
//!
//! Bounds: 10 MiB per source, 100 levels of nesting, 100 000 nodes added by aliases per document, 200 findings per
//! source (the rest is counted). It does no I/O and knows no kind beyond what is needed to tell whose a document is.

mod classify;
mod source;
mod tree;

pub(crate) use classify::{Found, Group, Reading, kustomize_patches, read_source};
pub use source::{MAX_SOURCE_BYTES, Source};
pub(crate) use source::{SourceFile, shown};
pub(crate) use tree::{Entry, Node, Place, Scalar, Style, Value, read as read_tree};

#[cfg(test)]
mod tests;
