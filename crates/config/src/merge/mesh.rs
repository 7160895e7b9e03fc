//! The mesh's settings, which everything else is read with: the ConfigMap `istio`, key `mesh`.

use std::collections::BTreeSet;

use rajut_types::{Diagnostic, ObjectRef, Severity};

use super::LoadOptions;
use crate::{
    api::{mesh_config, meta},
    codes,
    model::MeshConfig,
    parse::{Found, Group, Node, Place, Style, Value, read_tree},
    read::Scope,
};

/// The settings in `found`, laid over the base. A part that is wrong is reported and the base stays.
///
/// Gives the config maps that are wrong, too.
pub(super) fn find(
    found: &[Found],
    options: &LoadOptions,
    diagnostics: &mut Vec<Diagnostic>,
) -> (MeshConfig, BTreeSet<ObjectRef>) {
    let mut mesh = options.base.clone();
    let mut wrong = BTreeSet::new();
    for document in found {
        if !matches!(&document.group, Group::Api(api) if &**api == "v1") || &*document.kind != "ConfigMap" {
            continue;
        }
        let name = document
            .root
            .get("metadata")
            .and_then(|m| m.get("name"))
            .and_then(Node::text);
        if name != Some("istio") {
            continue;
        }
        let Some(node) = document.root.get("data").and_then(|d| d.get("mesh")) else {
            continue;
        };
        let reference = meta::peek(&document.root, "ConfigMap", &options.default_namespace);
        match read(document, node, reference.clone(), &mesh, diagnostics) {
            Some(read) => mesh = read,
            None => {
                wrong.insert(reference);
            }
        }
    }
    (mesh, wrong)
}

fn read(
    document: &Found,
    node: &Node,
    reference: ObjectRef,
    base: &MeshConfig,
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<MeshConfig> {
    let text = node.text()?;
    let mut defects = Vec::new();
    let mut roots = Vec::new();
    let end = read_tree(text, place(document, node), &mut defects, |root| roots.push(root));
    let scope = Scope::new(&document.file, reference, true);
    let broken = end.is_err() || !defects.is_empty();
    for defect in defects.into_iter().chain(end.err()) {
        let place = Node {
            value: Value::Sequence(Vec::new()),
            span: defect.span,
        };
        scope
            .nested(&place, "data.mesh")
            .say(Severity::Error, defect.code, defect.message, defect.hint);
    }
    let root = roots.into_iter().find(|root| !root.is_null());
    let empty = root.is_none() && !broken;
    let mesh = match &root {
        Some(root) if !broken => scope
            .nested(root, "data.mesh")
            .object()
            .map(|object| mesh_config::read(&object, base)),
        _ => empty.then(|| base.clone()),
    };
    let errors = scope.errors();
    if errors > 0 {
        scope.nested(node, "data.mesh").note(
            codes::NO_EFFECT,
            "none of the mesh's settings here are used until they are right",
            "",
        );
    }
    diagnostics.extend(scope.finish());
    mesh.filter(|_| errors == 0)
}

/// A literal block's lines stand in the file as they are, behind their indentation; any other text is one place.
fn place(document: &Found, node: &Node) -> Place {
    let literal = matches!(&node.value, Value::Scalar(scalar) if scalar.style == Style::Block);
    let first = node
        .text()
        .and_then(|text| text.lines().next())
        .unwrap_or_default();
    let near = node.span.line..=node.span.line.saturating_add(2);
    let line = near.into_iter().find_map(|number| {
        let line = document.file.line(number)?;
        let columns = line.strip_suffix(first)?.chars().count();
        (!first.is_empty() && line.trim_start().len() <= first.len()).then_some((number, columns))
    });
    match line {
        Some((line, columns)) if literal => Place::From {
            line,
            columns: u32::try_from(columns).unwrap_or(0),
        },
        _ => Place::Within(node.span),
    }
}
