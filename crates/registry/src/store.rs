//! [`Registry`]: all sources joined into snapshots.
//!
//! ```text
//!  files ──► sources ─┐
//!  apply/delete ─► overlay ─┴─► load ─► errors? last good text ─► Configuration ─┐
//!  supervisor ─► workloads ────────────────────────────────────────────────────┴─► Snapshot ─► watch channel
//! ```
//!
//! Invariants: the generation rises with every published snapshot; `apply` that is refused changes nothing. Bounds:
//! [`WORKLOADS_MAX`]. Methods block for as long as reading and building take (milliseconds); call them off the event loop.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rajut_config::{
    LoadOptions, Loaded, Reader, Snapshot, Source, check, load,
    model::{MeshConfig, Workload, WorkloadHealth},
    snapshot::{Configuration, KeySets},
};
use rajut_types::{Diagnostic, ObjectRef, Severity, Text, TrustDomain};
use tokio::sync::watch;

use crate::{
    document::{self, Document},
    files::{self, FilesError},
    overlay::{Overlay, OverlayError},
    vips::Vips,
};

/// Workloads at most.
pub const WORKLOADS_MAX: usize = 100_000;

/// Where things are.
#[derive(Debug, Clone)]
pub struct RegistryOptions {
    /// Files and folders.
    pub paths: Vec<PathBuf>,
    /// Texts that were read elsewhere (`<stdin>`).
    pub texts: Vec<Source>,
    /// Where the overlay and the virtual addresses are kept.
    pub state: PathBuf,
    /// Namespace of documents without one.
    pub default_namespace: Text,
    /// Trust domain where the configuration says none.
    pub trust_domain: TrustDomain,
}

/// Why a registry can't start.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The paths can't be read.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// The state can't be read.
    #[error(transparent)]
    Overlay(#[from] OverlayError),
}

/// Why an `apply` or `delete` changed nothing.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The text has errors.
    #[error("{} errors in the configuration", .0.iter().filter(|found| found.severity == Severity::Error).count())]
    Invalid(Vec<Diagnostic>),
    /// No object in it.
    #[error("there is no object in the text")]
    Empty,
    /// Neither applied nor in a file.
    #[error("{0} does not exist")]
    Unknown(ObjectRef),
    /// It stands in a `List` of a file, from which one object can't be hidden.
    #[error("{0} is part of a List in `{1}`; change it there")]
    InList(ObjectRef, String),
    /// The state can't be written.
    #[error(transparent)]
    Overlay(#[from] OverlayError),
}

/// What an `apply` or `delete` did.
#[derive(Debug, Clone)]
pub struct Applied {
    /// The objects.
    pub objects: Vec<ObjectRef>,
    /// The generation that carries the change.
    pub generation: u64,
    /// Warnings and notes about them.
    pub diagnostics: Vec<Diagnostic>,
}

/// An object as it was written.
#[derive(Debug, Clone)]
pub struct Written {
    /// Which.
    pub object: ObjectRef,
    /// The file.
    pub source: Text,
    /// The 1-based line where its document begins.
    pub line: u32,
    /// As written.
    pub text: String,
    /// As JSON.
    pub value: serde_json::Value,
}

/// The registry; cloned freely.
#[derive(Debug, Clone)]
pub struct Registry(Arc<Inner>);

/// File → (its contents, its documents); as many as there are files.
type Splits = HashMap<Text, (Arc<[u8]>, Arc<[Document]>)>;

#[derive(Debug)]
struct Inner {
    options: RegistryOptions,
    state: Mutex<State>,
    splits: Mutex<Splits>,
    snapshots: watch::Sender<Arc<Snapshot>>,
    configured: watch::Sender<u64>,
}

#[derive(Debug)]
struct State {
    overlay: Overlay,
    vips: Vips,
    /// file → contents as last read.
    files: BTreeMap<Text, Arc<[u8]>>,
    /// file → contents that had no error.
    good: BTreeMap<Text, Arc<[u8]>>,
    diagnostics: Vec<Diagnostic>,
    /// A failure to list the sources, while the last ones are served.
    failure: Option<String>,
    /// What the newest configuration was made of.
    in_force: Vec<Source>,
    /// What was read of the sources, so that a change costs the reading of what it changes.
    reader: Reader,
}

impl Registry {
    /// Reads everything once. Findings do not stop it, unreadable paths do.
    pub fn open(options: RegistryOptions) -> Result<Self, RegistryError> {
        let overlay = Overlay::open(&options.state.join("applied"), &options.default_namespace)?;
        let vips = Vips::open(options.state.join("vips.json"));
        let read = files::sources(files::read(&options.paths)?, |_| None);
        let registry = Self(Arc::new(Inner {
            splits: Mutex::default(),
            state: Mutex::new(State {
                overlay,
                vips,
                files: BTreeMap::new(),
                good: BTreeMap::new(),
                diagnostics: Vec::new(),
                failure: None,
                in_force: Vec::new(),
                reader: Reader::default(),
            }),
            snapshots: watch::Sender::new(Arc::new(Snapshot::default())),
            configured: watch::Sender::new(0),
            options,
        }));
        let mut state = registry.lock();
        let texts = registry.0.options.texts.iter().cloned();
        state.files = read
            .into_iter()
            .chain(texts)
            .map(|source| (source.name, source.bytes))
            .collect();
        registry.rebuild(&mut state);
        drop(state);
        Ok(registry)
    }

    /// The newest snapshot and all that follow.
    pub fn snapshots(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.0.snapshots.subscribe()
    }

    /// The newest snapshot.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.0.snapshots.borrow().clone()
    }

    /// What was found in the sources as they stand now.
    pub fn diagnostics(&self) -> Vec<Diagnostic> {
        self.lock().diagnostics.clone()
    }

    /// Why the sources can't be listed at the moment; the last ones are served.
    pub fn failure(&self) -> Option<String> {
        self.lock().failure.clone()
    }

    /// Rises whenever the configuration was read anew; workloads' coming and going does not count.
    pub fn configured(&self) -> watch::Receiver<u64> {
        self.0.configured.subscribe()
    }

    /// The texts that the newest configuration was made of: the last good ones, with what was applied.
    pub fn sources_in_force(&self) -> Vec<Source> {
        self.lock().in_force.clone()
    }

    /// Reads the files again; publishes only if something changed.
    pub fn reload(&self) {
        let read = files::read(&self.0.options.paths);
        let mut state = self.lock();
        let read = match read {
            Ok(read) => read,
            Err(error) => {
                tracing::warn!(%error, "the configuration can't be listed, the last one stays");
                state.failure = Some(error.to_string());
                return;
            }
        };
        state.failure = None;
        let sources = files::sources(read, |name| state.files.get(name).cloned());
        let texts = self.0.options.texts.iter().cloned();
        let files: BTreeMap<Text, Arc<[u8]>> = sources
            .into_iter()
            .chain(texts)
            .map(|source| {
                // What stays is told from what changed by its allocation, and is kept once.
                let known = state
                    .files
                    .get(&source.name)
                    .filter(|known| **known == source.bytes);
                let bytes = known.cloned().unwrap_or(source.bytes);
                (source.name, bytes)
            })
            .collect();
        if files == state.files {
            return;
        }
        state.files = files;
        self.rebuild(&mut state);
    }

    /// Lays objects over what the files say. All or nothing.
    pub fn apply(&self, text: &str, namespace: &str) -> Result<Applied, ApplyError> {
        let documents = document::split(text, namespace);
        let objects: Vec<ObjectRef> = objects_of(&documents);
        // First alone: what is wrong is told at the place in the user's text.
        let alone = load(
            &[Source::new("<apply>", text)],
            &LoadOptions {
                default_namespace: namespace.into(),
                ..self.load_options()
            },
        );
        if alone
            .diagnostics
            .iter()
            .any(|found| found.severity == Severity::Error)
        {
            return Err(ApplyError::Invalid(alone.diagnostics));
        }
        if objects.is_empty() || alone.counts.used == 0 {
            return Err(ApplyError::Empty);
        }
        let mut state = self.lock();
        self.refuse_lists(&state, &objects)?;
        let next = state.overlay.with(&documents, namespace)?;
        self.adopt(&mut state, next, objects, alone.diagnostics)
    }

    /// Takes objects away. All or nothing.
    pub fn delete(&self, text: &str, namespace: &str) -> Result<Applied, ApplyError> {
        let objects = objects_of(&document::split(text, namespace));
        if objects.is_empty() {
            return Err(ApplyError::Empty);
        }
        let mut state = self.lock();
        let in_files = self.objects_in_files(&state);
        for object in &objects {
            let known = state.overlay.applied.contains_key(object)
                || (in_files.contains(object) && !state.overlay.deleted.contains(object));
            if !known {
                return Err(ApplyError::Unknown(object.clone()));
            }
        }
        self.refuse_lists(&state, &objects)?;
        let next = state.overlay.without(&objects, &in_files);
        self.adopt(&mut state, next, objects, Vec::new())
    }

    /// Everything as written, what was applied in the place of what it replaces.
    pub fn written(&self) -> Vec<Written> {
        let state = self.lock();
        let mut all = Vec::new();
        for source in self.effective_sources(&state) {
            let text = String::from_utf8_lossy(&source.bytes).into_owned();
            for document in document::split(&text, &self.0.options.default_namespace) {
                for (object, value) in document.objects {
                    all.push(Written {
                        object,
                        source: source.name.clone(),
                        line: document.line,
                        text: document.text.clone(),
                        value,
                    });
                }
            }
        }
        all.sort_by(|a, b| a.object.cmp(&b.object));
        all
    }

    /// The whole set of what runs. Returns the generation that carries it.
    pub fn set_workloads(&self, workloads: Vec<Workload>) -> u64 {
        let _state = self.lock();
        let current = self.snapshot();
        let next: BTreeMap<(Text, Text), Workload> = workloads
            .into_iter()
            .take(WORKLOADS_MAX)
            .map(|workload| ((workload.namespace.clone(), workload.name.clone()), workload))
            .collect();
        let removed: Vec<(Text, Text)> = current
            .workloads
            .keys()
            .filter(|key| !next.contains_key(*key))
            .cloned()
            .collect();
        let is_new = |key: &(Text, Text), workload: &Workload| {
            current
                .workloads
                .get(key)
                .is_none_or(|known| **known != *workload)
        };
        let changed = next.into_iter().filter(|(key, workload)| is_new(key, workload));
        let changed: Vec<Workload> = changed.map(|(_, workload)| workload).collect();
        self.publish_workloads(&current, changed, removed)
    }

    /// The key sets of token issuers, as far as they are known. Returns the generation that carries them.
    pub fn set_key_sets(&self, key_sets: KeySets) -> u64 {
        let _state = self.lock();
        let current = self.snapshot();
        if *current.key_sets == key_sets {
            return current.generation;
        }
        let next = Arc::new(current.with_key_sets(key_sets));
        let generation = next.generation;
        self.0.snapshots.send_replace(next);
        generation
    }

    /// Whom everybody of the mesh believes: roots and revocation lists, PEM. Returns the generation that carries them.
    pub fn set_trust(&self, (roots, crl): (Text, Text)) -> u64 {
        let _state = self.lock();
        let current = self.snapshot();
        let mut known = current.trust.iter();
        if let Some(trust) = known.find(|trust| trust.roots == roots && trust.crl == crl) {
            return trust.since;
        }
        let next = Arc::new(current.with_trust(roots, crl));
        let generation = next.generation;
        self.0.snapshots.send_replace(next);
        generation
    }

    /// One workload's health. `None`: there is no such workload.
    pub fn set_health(&self, namespace: &str, name: &str, health: WorkloadHealth) -> Option<u64> {
        let _state = self.lock();
        let current = self.snapshot();
        let known = current.workloads.get(&(namespace.into(), name.into()))?;
        if known.health == health {
            return Some(current.generation);
        }
        let changed = Workload {
            health,
            ..(**known).clone()
        };
        Some(self.publish_workloads(&current, vec![changed], Vec::new()))
    }

    /// The lock of `state` is held by the caller, so that snapshots are published in order.
    fn publish_workloads(
        &self,
        current: &Snapshot,
        changed: Vec<Workload>,
        removed: Vec<(Text, Text)>,
    ) -> u64 {
        if changed.is_empty() && removed.is_empty() {
            return current.generation;
        }
        let next = Arc::new(current.with_workloads(changed, removed));
        let generation = next.generation;
        self.0.snapshots.send_replace(next);
        generation
    }

    fn adopt(
        &self,
        state: &mut State,
        next: Overlay,
        objects: Vec<ObjectRef>,
        mut diagnostics: Vec<Diagnostic>,
    ) -> Result<Applied, ApplyError> {
        let previous = std::mem::replace(&mut state.overlay, next);
        // Then together with everything else: only what is new counts against it.
        let known: BTreeSet<(String, Text)> = state
            .diagnostics
            .iter()
            .map(|found| (found.message.clone(), found.origin.source.clone()))
            .collect();
        let own: BTreeSet<Text> = objects
            .iter()
            .map(|object| state.overlay.path(object).display().to_string().into())
            .collect();
        let sources = self.effective_sources(state);
        let loaded = state.reader.load(&sources, &self.load_options());
        let fresh: Vec<Diagnostic> = loaded
            .diagnostics
            .iter()
            .filter(|found| own.contains(&found.origin.source))
            .filter(|found| !known.contains(&(found.message.clone(), found.origin.source.clone())))
            .cloned()
            .collect();
        if fresh.iter().any(|found| found.severity == Severity::Error) {
            state.overlay = previous;
            return Err(ApplyError::Invalid(fresh));
        }
        if let Err(error) = state.overlay.persist(&previous) {
            state.overlay = previous;
            return Err(error.into());
        }
        let generation = self.take_over(state, sources, loaded);
        let of_relations = state
            .diagnostics
            .iter()
            .filter(|found| own.contains(&found.origin.source));
        for found in of_relations {
            if !diagnostics
                .iter()
                .any(|known| known.code == found.code && known.message == found.message)
            {
                diagnostics.push(found.clone());
            }
        }
        Ok(Applied {
            objects,
            generation,
            diagnostics,
        })
    }

    /// Reads all sources and publishes the snapshot. Returns its generation.
    fn rebuild(&self, state: &mut State) -> u64 {
        let sources = self.effective_sources(state);
        let loaded = state.reader.load(&sources, &self.load_options());
        self.take_over(state, sources, loaded)
    }

    /// Publishes what was read of the effective sources, or of the last good ones.
    fn take_over(&self, state: &mut State, mut sources: Vec<Source>, mut loaded: Loaded) -> u64 {
        let relations = check(&loaded);
        let mut found = std::mem::take(&mut loaded.diagnostics);
        let broken: BTreeSet<Text> = found
            .iter()
            .filter(|found| found.severity == Severity::Error)
            .map(|found| found.origin.source.clone())
            .collect();
        // What is wrong between objects makes no text bad: the other half may be on its way.
        found.extend(relations);
        state.diagnostics = found;
        for (name, bytes) in &state.files {
            if !broken.contains(name) {
                state.good.insert(name.clone(), Arc::clone(bytes));
            }
        }
        let files = &state.files;
        state.good.retain(|name, _| files.contains_key(name));
        let mut splits = self.0.splits.lock().unwrap_or_else(PoisonError::into_inner);
        splits.retain(|name, _| files.contains_key(name));
        drop(splits);
        if broken.iter().any(|name| state.good.contains_key(name)) {
            tracing::warn!(files = ?broken, "errors in the configuration, the last good contents stay");
            sources = self.sources_of(state, |name| {
                let broken = broken.contains(name);
                state
                    .good
                    .get(name)
                    .filter(|_| broken)
                    .or_else(|| state.files.get(name))
            });
            loaded = state.reader.load(&sources, &self.load_options());
        }
        state.in_force = sources;
        let generation = self.publish(state, loaded);
        self.0.configured.send_modify(|configured| *configured += 1);
        generation
    }

    fn publish(&self, state: &mut State, loaded: Loaded) -> u64 {
        let mut configuration = Configuration {
            mesh: loaded.mesh,
            namespaces: loaded.namespaces,
            services: loaded.services,
            virtual_services: loaded.virtual_services,
            destination_rules: loaded.destination_rules,
            peer_authentications: loaded.peer_authentications,
            authorization_policies: loaded.authorization_policies,
            rate_limit_policies: loaded.rate_limit_policies,
            request_authentications: loaded.request_authentications,
            telemetries: loaded.telemetries,
            gateways: loaded.gateways,
            secrets: loaded.secrets,
            sidecars: loaded.sidecars,
        };
        state.vips.assign(&mut configuration.services);
        let next = Arc::new(self.snapshot().with_configuration(configuration));
        let generation = next.generation;
        self.0.snapshots.send_replace(next);
        generation
    }

    fn effective_sources(&self, state: &State) -> Vec<Source> {
        self.sources_of(state, |name| state.files.get(name))
    }

    /// The files without what the overlay hides, then the overlay.
    fn sources_of<'s>(
        &self,
        state: &'s State,
        contents: impl Fn(&Text) -> Option<&'s Arc<[u8]>>,
    ) -> Vec<Source> {
        let overlay = &state.overlay;
        let nothing_hidden = overlay.applied.is_empty() && overlay.deleted.is_empty();
        let of_files = state.files.keys().filter_map(|name| {
            let bytes = contents(name)?;
            let hidden = |document: &Document| {
                let mut objects = document.objects.iter();
                objects.any(|(object, _)| overlay.hides(object))
            };
            // Not text at all: `config` says so.
            let text = std::str::from_utf8(bytes).ok().filter(|_| !nothing_hidden);
            let documents = text.map(|text| (text, self.documents_of(name, bytes, text)));
            let visible = match documents.filter(|(_, documents)| documents.iter().any(hidden)) {
                Some((text, documents)) => {
                    let text = document::without(text, &documents, |object| overlay.hides(object));
                    text.into_bytes().into()
                }
                None => Arc::clone(bytes),
            };
            let name = name.clone();
            Some(Source { name, bytes: visible })
        });
        of_files.chain(overlay.sources()).collect()
    }

    fn objects_in_files(&self, state: &State) -> BTreeSet<ObjectRef> {
        let texts = state
            .files
            .iter()
            .filter_map(|(name, bytes)| Some((name, bytes, std::str::from_utf8(bytes).ok()?)));
        texts
            .flat_map(|(name, bytes, text)| objects_of(&self.documents_of(name, bytes, text)))
            .collect()
    }

    /// The documents of a file, split once for each of its contents.
    fn documents_of(&self, name: &Text, contents: &Arc<[u8]>, text: &str) -> Arc<[Document]> {
        let mut splits = self.0.splits.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, documents)) = splits.get(name)
            && (Arc::ptr_eq(known, contents) || known == contents)
        {
            return Arc::clone(documents);
        }
        let documents: Arc<[Document]> = document::split(text, &self.0.options.default_namespace).into();
        splits.insert(name.clone(), (Arc::clone(contents), Arc::clone(&documents)));
        documents
    }

    fn refuse_lists(&self, state: &State, objects: &[ObjectRef]) -> Result<(), ApplyError> {
        for (name, bytes) in &state.files {
            let Ok(text) = std::str::from_utf8(bytes) else {
                continue;
            };
            for document in self
                .documents_of(name, bytes, text)
                .iter()
                .filter(|document| document.objects.len() > 1)
            {
                let hidden = document.objects.iter().map(|(object, _)| object);
                if let Some(object) = hidden.clone().find(|object| objects.contains(object))
                    && hidden
                        .clone()
                        .any(|other| !objects.contains(other) && !state.overlay.hides(other))
                {
                    return Err(ApplyError::InList(object.clone(), name.to_string()));
                }
            }
        }
        Ok(())
    }

    fn load_options(&self) -> LoadOptions {
        LoadOptions {
            default_namespace: self.0.options.default_namespace.clone(),
            base: MeshConfig {
                trust_domain: self.0.options.trust_domain.clone(),
                ..MeshConfig::default()
            },
            ..LoadOptions::default()
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn objects_of(documents: &[Document]) -> Vec<ObjectRef> {
    documents
        .iter()
        .flat_map(|document| document.objects.iter().map(|(object, _)| object.clone()))
        .collect()
}

#[cfg(test)]
mod tests;
