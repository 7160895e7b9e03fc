//! [`Reader`]: reading with its memory, so that who reads the same sources again and again pays for those that changed.
//!
//! Two things are remembered: the documents of a source, as long as its bytes stay, and what a document means, as long as
//! the mesh's settings stay too. Pure in effect: what is read is the same whatever was read before. Bounds: the sources of the
//! last reading, and the documents in them. What it does not save: putting the objects together, which is done each time.

use std::{collections::HashMap, sync::Arc};

use rajut_types::{Diagnostic, Text};

use super::{LoadOptions, Loaded, collect::Parsed, read};
use crate::{
    model::MeshConfig,
    parse::{Node, Reading, Source, read_source},
};

/// See the module.
#[derive(Debug, Default)]
pub struct Reader {
    /// Name → (its bytes, its documents).
    sources: HashMap<Text, (Arc<[u8]>, Reading)>,
    meanings: Meanings,
}

impl Reader {
    /// Reads all sources, as [`load`](super::load) does.
    pub fn load(&mut self, sources: &[Source], options: &LoadOptions) -> Loaded {
        self.meanings.keep = true;
        let loaded = read(sources, options, self);
        let names: std::collections::HashSet<&Text> = sources.iter().map(|source| &source.name).collect();
        self.sources.retain(|name, _| names.contains(name));
        self.meanings.forget_unused();
        loaded
    }

    /// The documents of a source.
    pub(super) fn source(&mut self, source: &Source) -> Reading {
        if !self.meanings.keep {
            return read_source(source);
        }
        match self.sources.get(&source.name) {
            Some((known, reading)) if Arc::ptr_eq(known, &source.bytes) || *known == source.bytes => {
                reading.clone()
            }
            _ => {
                let reading = read_source(source);
                let known = (Arc::clone(&source.bytes), reading.clone());
                self.sources.insert(source.name.clone(), known);
                reading
            }
        }
    }

    /// Lends what documents mean; to be given back by [`Reader::give_back`].
    pub(super) fn lend(&mut self, mesh: &MeshConfig, default_namespace: &Text) -> Meanings {
        let mut meanings = std::mem::take(&mut self.meanings);
        let read_with = Some((mesh, default_namespace));
        if meanings
            .read_with
            .as_ref()
            .map(|(mesh, namespace)| (mesh, namespace))
            != read_with
        {
            meanings.known.clear();
            meanings.read_with = read_with.map(|(mesh, namespace)| (mesh.clone(), namespace.clone()));
        }
        meanings.turn += 1;
        meanings
    }

    pub(super) fn give_back(&mut self, meanings: Meanings) {
        self.meanings = meanings;
    }
}

/// What a document means.
#[derive(Debug, Clone)]
pub(super) struct Meaning {
    pub(super) parsed: Option<Parsed>,
    pub(super) errors: usize,
    pub(super) findings: Vec<Diagnostic>,
}

/// The meanings of documents, by the allocation of their root.
#[derive(Debug, Default)]
pub(super) struct Meanings {
    keep: bool,
    turn: u64,
    read_with: Option<(MeshConfig, Text)>,
    /// By the root's address; it is held, so that no other document can take its place in memory.
    known: HashMap<usize, Known>,
}

#[derive(Debug)]
struct Known {
    _root: Arc<Node>,
    used: u64,
    meaning: Meaning,
}

impl Meanings {
    pub(super) fn of(&mut self, root: &Arc<Node>, read: impl FnOnce() -> Meaning) -> Meaning {
        if !self.keep {
            return read();
        }
        let known = self
            .known
            .entry(Arc::as_ptr(root).addr())
            .or_insert_with(|| Known {
                _root: Arc::clone(root),
                used: 0,
                meaning: read(),
            });
        known.used = self.turn;
        known.meaning.clone()
    }

    fn forget_unused(&mut self) {
        let turn = self.turn;
        self.known.retain(|_, known| known.used == turn);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load;

    fn service(name: &str, port: u16) -> String {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec:\n  ports: [{{port: {port}, name: http}}]\n---\n"
        )
    }

    /// Everything that a reading gives, as text.
    fn shown(loaded: &Loaded) -> String {
        format!(
            "{:#?}{:#?}{:#?}{:#?}{:?}",
            loaded.services, loaded.destination_rules, loaded.mesh, loaded.diagnostics, loaded.counts
        )
    }

    #[test]
    fn what_is_read_again_is_what_is_read_at_first() {
        let mesh = |domain: &str| {
            format!(
                "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: istio}}\ndata:\n  mesh: 'trustDomain: {domain}'\n"
            )
        };
        let rule = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: a}\nspec: {host: a, nonsense: 1}\n";
        let steps: [Vec<(&str, String)>; 6] = [
            vec![("a", service("a", 80)), ("b", service("b", 80))],
            // One changes, one is new, one stays.
            vec![
                ("a", service("a", 80)),
                ("b", service("b", 81)),
                ("c", rule.into()),
            ],
            // The same document twice, in two sources.
            vec![
                ("a", service("a", 80)),
                ("b", service("a", 80)),
                ("c", rule.into()),
            ],
            // Other settings: everything is read with them.
            vec![("a", service("a", 80)), ("m", mesh("one.example"))],
            vec![("a", service("a", 80)), ("m", mesh("two.example"))],
            vec![("b", service("b", 81)), ("c", "kind: [".into())],
        ];
        let mut reader = Reader::default();
        let options = LoadOptions::default();
        for step in steps {
            let sources: Vec<Source> = step
                .iter()
                .map(|(name, text)| Source::new(*name, text.as_bytes()))
                .collect();
            assert_eq!(
                shown(&reader.load(&sources, &options)),
                shown(&load(&sources, &options))
            );
            assert_eq!(reader.sources.len(), sources.len(), "what is gone is forgotten");
        }
    }

    #[test]
    fn only_what_changed_is_read() {
        let mut reader = Reader::default();
        let options = LoadOptions::default();
        let read = |reader: &mut Reader, port| {
            let sources = [
                Source::new("a", service("a", 80) + &service("b", 80)),
                Source::new("c", service("c", port)),
            ];
            reader.load(&sources, &options);
            reader
                .meanings
                .known
                .keys()
                .copied()
                .collect::<std::collections::BTreeSet<_>>()
        };
        let first = read(&mut reader, 80);
        assert_eq!(first.len(), 3);
        assert_eq!(read(&mut reader, 80), first, "nothing is read again");
        let after = read(&mut reader, 81);
        assert_eq!(after.len(), 3, "the document that is gone is forgotten");
        assert_eq!(after.intersection(&first).count(), 2);
    }
}
