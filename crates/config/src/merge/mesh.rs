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
        let Group::Api(api) = &document.group else {
            continue;
        };
        let reference = meta::peek(&document.root, &document.kind, &options.default_namespace);
        let read = if &**api == "v1" && &*document.kind == "ConfigMap" && &*reference.name == "istio" {
            let Some(node) = document.root.get("data").and_then(|d| d.get("mesh")) else {
                continue;
            };
            from_text(document, node, reference.clone(), &mesh, diagnostics)
        } else if is_operator(document) {
            let Some(node) = document.root.get("spec").and_then(|s| s.get("meshConfig")) else {
                continue;
            };
            let scope = Scope::new(&document.file, reference.clone(), true);
            from_tree(scope, node, "spec.meshConfig", &mesh, diagnostics)
        } else {
            continue;
        };
        match read {
            Some(read) => mesh = read,
            None => {
                wrong.insert(reference);
            }
        }
    }

    (mesh, wrong)
}

/// An `IstioOperator`, of which the mesh's settings are read.
pub(super) fn is_operator(document: &Found) -> bool {
    matches!(&document.group, Group::Api(api) if api.starts_with("install.istio.io/"))
        && &*document.kind == "IstioOperator"
}

fn from_text(
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
        let field = scope.nested(&place, "data.mesh");
        field.say(Severity::Error, defect.code, defect.message, defect.hint);
    }
    if broken {
        diagnostics.extend(scope.finish());
        return None;
    }
    match roots.into_iter().find(|root| !root.is_null()) {
        Some(root) => from_tree(scope, &root, "data.mesh", base, diagnostics),
        None => Some(base.clone()),
    }
}

fn from_tree(
    scope: Scope<'_>,
    node: &Node,
    path: &str,
    base: &MeshConfig,
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<MeshConfig> {
    let mesh = read_settings(&scope, node, path, base);
    let errors = scope.errors();
    diagnostics.extend(scope.finish());
    mesh.filter(|_| errors == 0)
}

fn read_settings<'s>(
    scope: &'s Scope<'s>,
    node: &'s Node,
    path: &str,
    base: &MeshConfig,
) -> Option<MeshConfig> {
    let mesh = scope
        .nested(node, path)
        .object()
        .map(|object| mesh_config::read(&object, base));
    if scope.errors() > 0 {
        scope.nested(node, path).note(
            codes::NO_EFFECT,
            "none of the mesh's settings here are used until they are right",
            "",
        );
    }
    mesh
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
