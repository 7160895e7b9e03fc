//! Whose a document is: an object for the mesh, a Compose file, or somebody else's.

use std::{collections::BTreeSet, sync::Arc};

use rajut_types::{Diagnostic, ObjectRef, Origin, Severity, Span, Text};

use super::{
    Node, Source, SourceFile, Style, Value,
    source::MAX_SOURCE_BYTES,
    tree::{self, Defect, Place},
};
use crate::codes;

/// Findings of one source beyond this many are counted, not shown.
const MAX_FINDINGS: usize = 200;
/// Documents of one source beyond this many are counted, not read: judging relations costs more than reading.
const MAX_DOCUMENTS: usize = 20_000;
/// `List` inside `List`.
const MAX_LIST_DEPTH: usize = 4;

/// A document that is somebody's object.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) file: SourceFile,
    /// Never changed after reading; who reads the same source again gets the same allocation.
    pub(crate) root: Arc<Node>,
    pub(crate) group: Group,
    /// Empty for Compose files.
    pub(crate) kind: Text,
}

/// Who defines the kind of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Group {
    /// `apiVersion`, with its version.
    Api(Text),
    /// A Compose file.
    Compose,
    /// `kustomization.yaml`.
    Kustomization,
    /// A list of JSON patches, or a part of an object with `$patch`.
    Patch,
    /// An object of ours without a kind or version; what is wrong and what to write.
    Half { message: String, hint: String },
    /// Somebody else's file.
    Foreign,
}

/// What reading one source gave.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reading {
    pub(crate) found: Vec<Found>,
    pub(crate) diagnostics: Vec<Diagnostic>,
    /// Documents that could not be read or tell no kind.
    pub(crate) wrong: usize,
    /// Documents that are templates.
    pub(crate) foreign: usize,
    hidden: usize,
    unread: usize,
    helm_noted: bool,
    chart: bool,
}

impl Reading {
    fn push(&mut self, diagnostic: Diagnostic) {
        if self.diagnostics.len() < MAX_FINDINGS {
            self.diagnostics.push(diagnostic);
        } else {
            self.hidden += 1;
        }
    }

    fn defect(&mut self, file: &SourceFile, severity: Severity, object: ObjectRef, defect: Defect) {
        let excerpt = file.excerpt(defect.span);
        let origin = Origin::new(file.name.clone(), object);
        self.push(
            Diagnostic::new(defect.code, severity, origin, defect.message)
                .at(file.clip(defect.span), excerpt)
                .hint(defect.hint),
        );
    }
}

/// Reads a whole source. It never fails: what cannot be read is among the findings.
pub(crate) fn read_source(source: &Source) -> Reading {
    let mut reading = Reading::default();
    let text = match text_of(source) {
        Ok(text) => text,
        Err(finding) => {
            reading.wrong += 1;
            reading.push(*finding);
            return reading;
        }
    };
    let file = SourceFile::new(source.name.clone(), text);
    let parsed: Vec<Piece<'_>> = pieces(text)
        .filter_map(|(line, piece)| Piece::parse(line, piece))
        .collect();
    // What stands between templates is a part of them, whole or not.
    reading.chart = parsed.iter().any(|piece| piece.template);
    for (index, piece) in parsed.into_iter().enumerate() {
        take_piece(&file, piece, index + 1, &mut reading);
    }
    if reading.unread > 0 {
        reading.wrong += reading.unread;
        let origin = Origin::new(file.name.clone(), ObjectRef::new("Source", "", file.name.clone()));
        let message = format!(
            "the source holds more than {MAX_DOCUMENTS} documents; {} of them are not read",
            reading.unread
        );
        reading.diagnostics.push(
            Diagnostic::new(codes::LIMIT, Severity::Error, origin, message)
                .hint("split it into several files"),
        );
    }
    if reading.hidden > 0 {
        let origin = Origin::new(file.name.clone(), ObjectRef::new("Source", "", file.name.clone()));
        let message = format!("{} more findings in this source are not shown", reading.hidden);
        reading.diagnostics.push(Diagnostic::new(
            codes::MORE_FINDINGS,
            Severity::Note,
            origin,
            message,
        ));
    }
    reading
}

fn text_of(source: &Source) -> Result<&str, Box<Diagnostic>> {
    let origin = Origin::new(
        source.name.clone(),
        ObjectRef::new("Source", "", source.name.clone()),
    );
    let finding = |code, message: String, hint: &str| {
        Box::new(Diagnostic::new(code, Severity::Error, origin.clone(), message).hint(hint))
    };
    let bytes = &source.bytes[..];
    if bytes.len() > MAX_SOURCE_BYTES {
        return Err(finding(
            codes::TOO_LARGE,
            format!(
                "the source has {} bytes; at most {MAX_SOURCE_BYTES} are read",
                bytes.len()
            ),
            "is this the right file? Split it if it is",
        ));
    }
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err(finding(
            codes::NOT_TEXT,
            "the source is UTF-16".to_owned(),
            "save it as UTF-8",
        ));
    }
    let line_of = |at: usize| 1 + bytes.iter().take(at).filter(|b| **b == b'\n').count();
    match std::str::from_utf8(bytes) {
        Err(error) => Err(finding(
            codes::NOT_TEXT,
            format!(
                "the source is not text: byte {} (line {}) is not UTF-8",
                error.valid_up_to(),
                line_of(error.valid_up_to())
            ),
            "save it as UTF-8, or leave it out",
        )),
        Ok(text) => match text.find('\0') {
            Some(at) => Err(finding(
                codes::NOT_TEXT,
                format!("the source is not text: byte {at} (line {}) is zero", line_of(at)),
                "leave the file out",
            )),
            None => Ok(text.strip_prefix('\u{feff}').unwrap_or(text)),
        },
    }
}

/// Cuts at lines that begin with `---`: by YAML's rules such a line begins a document wherever it stands, so that one
/// broken document does not take the next with it. Gives each piece with the number of its first line.
fn pieces(text: &str) -> impl Iterator<Item = (u32, &str)> {
    let mut rest = text;
    let mut line = 1;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let first = line;
        let mut end = 0;
        for (index, part) in rest.split_inclusive('\n').enumerate() {
            let begins = part
                .strip_prefix("---")
                .is_some_and(|tail| tail.chars().next().is_none_or(char::is_whitespace));
            if begins && index > 0 {
                break;
            }
            end += part.len();
            line += 1;
        }
        let (piece, tail) = rest.split_at(end);
        rest = tail;
        Some((first, piece))
    })
}

/// One piece of a source, parsed.
struct Piece<'t> {
    first_line: u32,
    text: &'t str,
    roots: Vec<Node>,
    defects: Vec<Defect>,
    template: bool,
}

impl<'t> Piece<'t> {
    /// `None` for one that holds nothing.
    fn parse(first_line: u32, text: &'t str) -> Option<Self> {
        let empty = text.lines().all(|line| {
            let line = line.strip_prefix("---").unwrap_or(line).trim();
            line.is_empty() || line.starts_with('#') || line.starts_with('%')
        });
        if empty {
            return None;
        }
        let mut defects = Vec::new();
        let mut roots = Vec::new();
        let place = Place::From {
            line: first_line,
            columns: 0,
        };
        let end = tree::read(text, place, &mut defects, |root| roots.push(root));
        let template = looks_like_helm(text) && (end.is_err() || roots.iter().any(holds_template));
        defects.extend(end.err());
        Some(Self {
            first_line,
            text,
            roots,
            defects,
            template,
        })
    }
}

fn take_piece(file: &SourceFile, piece: Piece<'_>, number: usize, reading: &mut Reading) {
    if piece.template {
        reading.foreign += 1;
        note_helm(file, piece.first_line, piece.text, reading);
        return;
    }
    if !piece.defects.is_empty() {
        if reading.chart {
            reading.foreign += 1;
            return;
        }
        let object = piece
            .roots
            .first()
            .map_or_else(|| unnamed(number), |root| describe(root, number));
        for defect in piece.defects {
            reading.defect(file, Severity::Error, object.clone(), defect);
        }
        reading.wrong += 1;
        return;
    }
    for root in piece.roots {
        if !root.is_null() {
            sort(file, root, number, 0, reading);
        }
    }
}

fn unnamed(number: usize) -> ObjectRef {
    ObjectRef::new("document", "", number.to_string())
}

/// The object's reference as far as it can be read.
fn describe(root: &Node, number: usize) -> ObjectRef {
    let kind = root
        .get("kind")
        .and_then(Node::text)
        .filter(|kind| !kind.is_empty());
    let metadata = root.get("metadata");
    let field = |name| metadata.and_then(|m| m.get(name)).and_then(Node::text);
    match (kind, field("name")) {
        (Some(kind), Some(name)) => ObjectRef::new(
            super::source::shown(kind),
            super::source::shown(field("namespace").unwrap_or_default()),
            super::source::shown(name),
        ),
        (Some(kind), None) => ObjectRef::new(super::source::shown(kind), "", format!("document {number}")),
        _ => unnamed(number),
    }
}

fn sort(file: &SourceFile, root: Node, number: usize, depth: usize, reading: &mut Reading) {
    let base = file.name.rsplit(['/', '\\']).next().unwrap_or(&file.name);
    let kustomization = matches!(base, "kustomization.yaml" | "kustomization.yml" | "Kustomization");
    let api = root.get("apiVersion").and_then(Node::text).map(Text::from);
    let kind = root.get("kind").and_then(Node::text).map(Text::from);
    let group = match (&root.value, api, &kind) {
        (Value::Scalar(_), ..) if reading.chart => Group::Foreign,
        (Value::Scalar(_), ..) => {
            reading.wrong += 1;
            reading.defect(file, Severity::Error, unnamed(number), not_an_object(root.span));
            return;
        }
        (Value::Sequence(_), ..) => Group::Patch,
        _ if kustomization => Group::Kustomization,
        (_, Some(api), _) if api.starts_with("kustomize.config.k8s.io/") => Group::Kustomization,
        (_, Some(api), Some(kind)) if kind.ends_with("List") && root.get("items").is_some() => {
            return flatten(file, root, &api, number, depth, reading);
        }
        _ if has_patch_mark(&root) => Group::Patch,
        (_, Some(api), Some(_)) => Group::Api(api),
        (_, None, None) if root.get("services").is_some_and(|s| !s.entries().is_empty()) => Group::Compose,
        (_, None, None) if root.get("metadata").is_none() || root.get("spec").is_none() => Group::Foreign,
        _ if reading.chart => Group::Foreign,
        (_, api, kind) if is_meant_for_us(&root, api.as_deref(), kind.as_deref()) => {
            let (message, hint) = half_object(&root, api.is_none(), kind.is_none());
            Group::Half { message, hint }
        }
        _ => Group::Foreign,
    };
    if reading.found.len() >= MAX_DOCUMENTS {
        reading.unread += 1;
        return;
    }
    reading.found.push(Found {
        file: file.clone(),
        root: Arc::new(root),
        group,
        kind: kind.unwrap_or_default(),
    });
}

fn flatten(file: &SourceFile, root: Node, api: &str, number: usize, depth: usize, reading: &mut Reading) {
    let item_kind: Option<Text> = root
        .get("kind")
        .and_then(Node::text)
        .and_then(|kind| kind.strip_suffix("List"))
        .filter(|kind| !kind.is_empty())
        .map(Text::from);
    let Value::Mapping(entries) = root.value else {
        return;
    };
    let items = entries.into_iter().find(|e| &*e.key.text == "items");
    let Some(Value::Sequence(items)) = items.map(|e| e.node.value) else {
        return;
    };
    for mut item in items {
        // In a typed list (`ServiceList`) the items need not repeat their kind.
        if let (Some(kind), Value::Mapping(fields)) = (&item_kind, &mut item.value)
            && !fields.iter().any(|e| &*e.key.text == "kind")
        {
            fields.push(tree::Entry::implied("kind", kind, item.span));
            if !fields.iter().any(|e| &*e.key.text == "apiVersion") {
                fields.push(tree::Entry::implied("apiVersion", api, item.span));
            }
        }
        if depth < MAX_LIST_DEPTH {
            sort(file, item, number, depth + 1, reading);
        } else {
            reading.wrong += 1;
        }
    }
}

fn not_an_object(span: Span) -> Defect {
    Defect {
        code: codes::NOT_AN_OBJECT,
        span,
        message: "this is a single text, not an object".to_owned(),
        hint: "an object begins with `apiVersion:` and `kind:`, a Compose file with `services:`".to_owned(),
    }
}

/// Whether an object that lacks its kind or version is one of those that are read.
fn is_meant_for_us(root: &Node, api: Option<&str>, kind: Option<&str>) -> bool {
    let object = matches!(root.get("metadata").map(|m| &m.value), Some(Value::Mapping(_)));
    let kinds = crate::api::KINDS;
    object
        && match (api, kind) {
            (None, Some(kind)) => kinds.iter().any(|known| known.name == kind),
            (Some(api), None) => kinds
                .iter()
                .any(|known| known.write == api || api.starts_with(&format!("{}/", known.group))),
            _ => true,
        }
}

/// What is missing, and what to write.
fn half_object(root: &Node, no_api: bool, no_kind: bool) -> (String, String) {
    let missing = match (no_api, no_kind) {
        (true, true) => "`apiVersion` and `kind`",
        (true, false) => "`apiVersion`",
        _ => "`kind`",
    };
    let near = root
        .entries()
        .iter()
        .find(|e| ["apiversion", "kind"].contains(&&*e.key.text.to_ascii_lowercase().replace('_', "")));
    let known = root.get("kind").and_then(Node::text).and_then(known_api);
    let hint = match (near, known) {
        (Some(entry), _) if !["apiVersion", "kind"].contains(&&*entry.key.text) => {
            format!(
                "`{}` is written differently: mind the letters' case",
                entry.key.text
            )
        }
        (_, Some(api)) => format!("add `apiVersion: {api}`"),
        _ => format!("add {missing}"),
    };
    (format!("the object has no {missing}"), hint)
}

/// The version to write for a kind that the mesh reads.
fn known_api(kind: &str) -> Option<&'static str> {
    crate::api::KINDS
        .iter()
        .find(|known| known.name == kind)
        .map(|known| known.write)
}

/// A template that must be rendered first: `{{ .Values.x }}`, `{{- if … }}`.
fn looks_like_helm(piece: &str) -> bool {
    const WORDS: &[&str] = &[
        "if", "else", "end", "range", "with", "include", "template", "define", "block", "toYaml", "tpl",
        "default", "required", "printf", "quote", "lookup", "fail", "eq", "not", "and", "or",
    ];
    piece.match_indices("{{").any(|(at, _)| {
        let inside = piece.get(at + 2..).unwrap_or_default();
        let line = inside.lines().next().unwrap_or_default();
        let Some((inside, _)) = line.split_once("}}") else {
            // A comment may go on over several lines.
            return line.starts_with("/*") || line.starts_with("- /*");
        };
        let inside = inside.trim_matches('-').trim();
        let word = inside.split([' ', '(']).next().unwrap_or_default();
        WORDS.contains(&word)
            || word.strip_prefix(['.', '$']).is_some_and(|name| {
                name.chars()
                    .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '$'))
            })
    })
}

/// Whether a key or a value without quotes holds a template.
fn holds_template(node: &Node) -> bool {
    match &node.value {
        Value::Scalar(scalar) => scalar.style == Style::Plain && scalar.text.contains("{{"),
        Value::Sequence(items) => items.iter().any(holds_template),
        Value::Mapping(entries) => entries
            .iter()
            .any(|e| e.key.text.contains("{{") || holds_template(&e.node)),
    }
}

fn note_helm(file: &SourceFile, first_line: u32, piece: &str, reading: &mut Reading) {
    if std::mem::replace(&mut reading.helm_noted, true) {
        return;
    }
    let (line, column) = piece
        .lines()
        .zip(first_line..)
        .find_map(|(text, line)| {
            let before = text.split("{{").next()?;
            (before.len() < text.len()).then(|| (line, before.chars().count()))
        })
        .unwrap_or((first_line, 0));
    let defect = Defect {
        code: codes::HELM_TEMPLATE,
        span: Span {
            line,
            column: u32::try_from(column).unwrap_or(0) + 1,
            length: 2,
        },
        message: "this is a Helm template; it is not read".to_owned(),
        hint: "render it first: `helm template CHART | rajut analyze -`".to_owned(),
    };
    let object = unnamed(1);
    reading.defect(file, Severity::Note, object, defect);
}

/// `$patch: delete` and its like, which only strategic-merge patches hold.
fn has_patch_mark(node: &Node) -> bool {
    match &node.value {
        Value::Scalar(_) => false,
        Value::Sequence(items) => items.iter().any(has_patch_mark),
        Value::Mapping(entries) => entries
            .iter()
            .any(|e| &*e.key.text == "$patch" || has_patch_mark(&e.node)),
    }
}

/// The sources that a `kustomization.yaml` names as patches, by their path as the source names have it.
pub(crate) fn kustomize_patches(found: &Found) -> BTreeSet<String> {
    let folder = found.file.name.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut paths = BTreeSet::new();
    for list in ["patches", "patchesStrategicMerge", "patchesJson6902"] {
        for item in found.root.get(list).map_or(&[][..], Node::items) {
            if let Some(path) = item.text().or_else(|| item.get("path").and_then(Node::text)) {
                paths.insert(join(folder, path));
            }
        }
    }
    paths
}

/// `folder/path` without `.` and `..` where they can be resolved.
fn join(folder: &str, path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in folder.split('/').chain(path.split('/')) {
        match part {
            "." => {}
            ".." if parts.last().is_some_and(|last| *last != ".." && !last.is_empty()) => {
                parts.pop();
            }
            "" if !parts.is_empty() || folder.is_empty() => {}
            part => parts.push(part),
        }
    }
    parts.join("/")
}
