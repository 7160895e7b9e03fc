//! Documents of a YAML text: where each begins, and which objects it holds. Enough to replace or show one object of a file;
//! its meaning is `config`'s affair.

use rajut_types::{ObjectRef, Text};
use serde_json::Value;

/// One document.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// The 1-based line of its first line.
    pub line: u32,
    /// As written, without the separators.
    pub text: String,
    /// Its objects: one, several for a `List`, none where it is no object (a comment, a Compose file, not YAML).
    pub objects: Vec<(ObjectRef, Value)>,
}

/// Kinds without a namespace.
const CLUSTER_KINDS: [&str; 8] = [
    "Namespace",
    "ClusterRole",
    "ClusterRoleBinding",
    "CustomResourceDefinition",
    "GatewayClass",
    "IngressClass",
    "Node",
    "PersistentVolume",
];

/// Splits a text into its documents.
pub fn split(text: &str, default_namespace: &str) -> Vec<Document> {
    let mut documents = Vec::new();
    let (mut first, mut current) = (1, String::new());
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let number = u32::try_from(index).unwrap_or(u32::MAX).saturating_add(1);
        if is_separator(line) {
            documents.push(document(first, std::mem::take(&mut current), default_namespace));
            first = number.saturating_add(1);
        } else {
            current.push_str(line);
        }
    }
    documents.push(document(first, current, default_namespace));
    documents.retain(|document| !document.text.trim().is_empty());
    documents
}

/// `---` or `...` alone on a line, or with a comment.
fn is_separator(line: &str) -> bool {
    let line = line.trim_end();
    let rest = line.strip_prefix("---").or_else(|| line.strip_prefix("..."));
    rest.is_some_and(|rest| rest.trim_start().is_empty() || rest.trim_start().starts_with('#'))
}

fn document(line: u32, text: String, default_namespace: &str) -> Document {
    let value = parse(&text).unwrap_or(Value::Null);
    let objects = match (value["kind"].as_str(), &value["items"]) {
        (Some(kind), Value::Array(items)) if kind.ends_with("List") => items.clone(),
        (Some(_), _) => vec![value],
        (None, _) => Vec::new(),
    };
    let named = objects
        .into_iter()
        .filter_map(|object| Some((reference(&object, default_namespace)?, object)));
    Document {
        line,
        objects: named.collect(),
        text,
    }
}

/// Scalars are read as JSON would have them: `yes` and `0755` stay texts.
fn parse(text: &str) -> Option<Value> {
    let options = serde_saphyr::options! {
        strict_booleans: true,
    };
    serde_saphyr::from_str_with_options(text, options).ok()
}

fn reference(object: &Value, default_namespace: &str) -> Option<ObjectRef> {
    let kind = object["kind"].as_str()?;
    let metadata = &object["metadata"];
    let name = metadata["name"].as_str()?;
    let namespace = if CLUSTER_KINDS.contains(&kind) {
        ""
    } else {
        metadata["namespace"].as_str().unwrap_or(default_namespace)
    };
    Some(ObjectRef::new(kind, namespace, name))
}

/// The text with the namespace written into it where it has none, so that it keeps its meaning wherever it is read.
/// Block style gets a line; anything else is written anew as JSON, which is YAML too.
pub fn with_namespace(document: &Document, namespace: &str) -> String {
    let lacks = |(reference, object): &(ObjectRef, Value)| {
        !CLUSTER_KINDS.contains(&&*reference.kind) && object["metadata"]["namespace"].as_str().is_none()
    };
    let [only] = &document.objects[..] else {
        return document.text.clone();
    };
    if !lacks(only) {
        return document.text.clone();
    }
    let mut lines: Vec<&str> = document.text.lines().collect();
    let at = lines.iter().position(|line| line.trim_end() == "metadata:");
    let indent = at.and_then(|at| {
        let next = lines
            .get(at + 1..)?
            .iter()
            .find(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#'))?;
        let width = next.len() - next.trim_start().len();
        (width > 0).then(|| " ".repeat(width))
    });
    if let (Some(at), Some(indent)) = (at, indent) {
        let line = format!("{indent}namespace: {namespace}");
        lines.insert(at + 1, &line);
        return lines.join("\n") + "\n";
    }
    let mut object = only.1.clone();
    object["metadata"]["namespace"] = Value::from(namespace);
    // A JSON value always has a text.
    serde_json::to_string_pretty(&object).unwrap_or_default() + "\n"
}

/// The text with the documents of these objects blanked, line by line, so that every other place stays where it is. A
/// document that also holds other objects is left alone.
/// `documents`: what [`split`] gives of the text.
pub fn without(text: &str, documents: &[Document], hidden: impl Fn(&ObjectRef) -> bool) -> String {
    let mut lines: Vec<&str> = text.split_inclusive('\n').collect();
    for document in documents {
        if document.objects.is_empty() || !document.objects.iter().all(|(object, _)| hidden(object)) {
            continue;
        }
        let start = usize::try_from(document.line - 1).unwrap_or(usize::MAX);
        let length = document.text.split_inclusive('\n').count();
        for line in lines.iter_mut().skip(start).take(length) {
            *line = "\n";
        }
    }
    lines.concat()
}

/// What makes two objects one: kind, namespace and name.
pub fn file_name(object: &ObjectRef) -> Text {
    let namespace = if object.namespace.is_empty() {
        "_"
    } else {
        &object.namespace
    };
    format!("{}.{namespace}.{}.yaml", object.kind, object.name).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = "# head\nkind: A\nmetadata:\n  name: x\n--- # next\nkind: B\nmetadata:\n  name: y\n  namespace: other\n";

    #[test]
    fn documents_know_their_lines_and_names() {
        let documents = split(TWO, "ns");
        let found: Vec<_> = documents
            .iter()
            .map(|document| (document.line, document.objects[0].0.to_string()))
            .collect();
        assert_eq!(found, [(1, "A ns/x".to_owned()), (6, "B other/y".to_owned())]);
    }

    #[test]
    fn a_blanked_document_moves_nothing() {
        let text = without(TWO, &split(TWO, "ns"), |object| &*object.kind == "A");
        assert_eq!(text.lines().count(), TWO.lines().count());
        let documents = split(&text, "ns");
        assert_eq!(documents.len(), 1);
        assert_eq!((documents[0].line, &*documents[0].objects[0].0.kind), (6, "B"));
    }

    #[test]
    fn the_namespace_is_written_in_once() {
        let documents = split(TWO, "ns");
        let text = with_namespace(&documents[0], "ns");
        assert_eq!(text, "# head\nkind: A\nmetadata:\n  namespace: ns\n  name: x\n");
        assert_eq!(with_namespace(&documents[1], "ns"), documents[1].text);
        let json = split("{\"kind\": \"A\", \"metadata\": {\"name\": \"x\"}}", "ns");
        assert!(with_namespace(&json[0], "ns").contains("\"namespace\": \"ns\""));
    }

    #[test]
    fn garbage_and_lists_are_no_surprise() {
        assert!(split("\u{0}[[[", "ns")[0].objects.is_empty());
        assert!(split("services:\n  a: {}\n", "ns")[0].objects.is_empty());
        assert!(split("", "ns").is_empty());
        let list = "kind: List\nitems:\n- kind: A\n  metadata: {name: x}\n- kind: B\n  metadata: {name: y}\n";
        assert_eq!(split(list, "ns")[0].objects.len(), 2);
        let text = without(list, &split(list, "ns"), |object| &*object.kind == "A");
        assert_eq!(text, list, "B would go with it");
    }
}
