//! Resources as the discovery protocol sees them: a type URL, a name, a version and opaque bytes.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use rajut_types::{PersistentMap, Text};

/// The type URLs that have an order or a meaning of their own here; every other type passes all the same.
pub mod type_url {
    /// CDS.
    pub const CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
    /// EDS.
    pub const LOAD_ASSIGNMENT: &str = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";
    /// LDS.
    pub const LISTENER: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";
    /// RDS.
    pub const ROUTE: &str = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration";
    /// SDS.
    pub const SECRET: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
    /// NDS (Istio's table of names).
    pub const NAME_TABLE: &str = "type.googleapis.com/istio.networking.nds.v1.NameTable";
}

/// The order in which types are pushed, make before break: clusters and their endpoints exist before a route names
/// them. Other types follow in the order of their URLs.
pub const PUSH_ORDER: [&str; 6] = [
    type_url::CLUSTER,
    type_url::LOAD_ASSIGNMENT,
    type_url::LISTENER,
    type_url::ROUTE,
    type_url::SECRET,
    type_url::NAME_TABLE,
];

/// Whether a first subscription without names means "everything", and a state-of-the-world response must be complete.
///
/// Source: xDS protocol, "wildcard subscriptions" (LDS and CDS); NDS has exactly one unnamed resource.
pub fn is_complete_type(url: &str) -> bool {
    matches!(url, type_url::CLUSTER | type_url::LISTENER | type_url::NAME_TABLE)
}

/// One resource.
#[derive(Clone, PartialEq, Eq)]
pub struct Resource {
    /// Unique among its type.
    pub name: Text,
    /// Changes exactly when the body does; ours are hashes of it.
    pub version: Text,
    /// The encoded message (the value of the `Any`).
    pub body: Payload,
}

/// Bytes in one part, or in several that other resources share: a route table is the same in most of its virtual hosts for
/// every namespace. Equal when the bytes are.
#[derive(Clone)]
pub struct Payload {
    parts: Parts,
    len: usize,
}

#[derive(Clone)]
enum Parts {
    One(Bytes),
    Many(Arc<[Bytes]>),
}

impl Payload {
    /// How many bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The parts, which follow one another.
    pub fn parts(&self) -> impl Iterator<Item = &Bytes> {
        match &self.parts {
            Parts::One(part) => std::slice::from_ref(part),
            Parts::Many(parts) => parts,
        }
        .iter()
    }

    /// All of it in one piece; copied only where there are several parts.
    pub fn to_bytes(&self) -> Bytes {
        match &self.parts {
            Parts::One(part) => part.clone(),
            Parts::Many(parts) => parts.concat().into(),
        }
    }
}

impl std::fmt::Debug for Payload {
    /// Without the bytes: they may hold key material.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes in {} parts", self.len, self.parts().count())
    }
}

impl Default for Payload {
    fn default() -> Self {
        Bytes::new().into()
    }
}

impl From<Bytes> for Payload {
    fn from(part: Bytes) -> Self {
        let len = part.len();
        Self {
            parts: Parts::One(part),
            len,
        }
    }
}

impl From<Vec<u8>> for Payload {
    fn from(part: Vec<u8>) -> Self {
        Bytes::from(part).into()
    }
}

impl FromIterator<Bytes> for Payload {
    fn from_iter<I: IntoIterator<Item = Bytes>>(parts: I) -> Self {
        let parts: Arc<[Bytes]> = parts.into_iter().collect();
        let len = parts.iter().map(Bytes::len).sum();
        Self {
            parts: Parts::Many(parts),
            len,
        }
    }
}

impl PartialEq for Payload {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.parts().flatten().eq(other.parts().flatten())
    }
}

impl Eq for Payload {}

impl std::fmt::Debug for Resource {
    /// Without the body: it may hold key material.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{} ({} bytes)", self.name, self.version, self.body.len())
    }
}

/// Resources by name. Versions of it share what is equal, and clients that are told the same share one.
pub type Layer = PersistentMap<Text, Arc<Resource>>;

/// All resources of one type that a client may be told: what it shares with others, and its own, which hide shared ones of
/// the same name. A copy counts two references.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TypeSet {
    /// The same for all clients of a kind.
    pub shared: Layer,
    /// This client's alone; few.
    pub own: Layer,
}

impl TypeSet {
    /// The resource of that name.
    pub fn get(&self, name: &str) -> Option<&Arc<Resource>> {
        self.own.get(name).or_else(|| self.shared.get(name))
    }

    /// The resources, sorted by name.
    pub fn values(&self) -> impl Iterator<Item = &Arc<Resource>> {
        let mut own = self.own.values().peekable();
        let mut shared = self.shared.values().peekable();
        std::iter::from_fn(move || match (own.peek(), shared.peek()) {
            (Some(first), Some(second)) if first.name > second.name => shared.next(),
            (Some(first), Some(second)) => {
                if first.name == second.name {
                    shared.next();
                }
                own.next()
            }
            (Some(_), None) => own.next(),
            (None, _) => shared.next(),
        })
    }

    /// How many.
    pub fn len(&self) -> usize {
        let hidden = self.own.keys().filter(|name| self.shared.contains_key(*name));
        self.shared.len() + self.own.len() - hidden.count()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.shared.is_empty() && self.own.is_empty()
    }

    /// Whether both are the same version, which is found without looking at a resource.
    pub fn is_same(&self, other: &Self) -> bool {
        self.shared.is_same(&other.shared) && self.own.is_same(&other.own)
    }

    /// Calls `visit` with every name whose resource differs from `older`'s: the one there, and the one here. What both share
    /// costs nothing. Sorted within the shared names and within the own ones.
    pub fn differences<'a>(
        &'a self,
        older: &'a Self,
        mut visit: impl FnMut(&'a Text, Option<&'a Arc<Resource>>, Option<&'a Arc<Resource>>),
    ) {
        let differ = |old: Option<&Arc<Resource>>, new: Option<&Arc<Resource>>| match (old, new) {
            (Some(old), Some(new)) => !Arc::ptr_eq(old, new) && old.version != new.version,
            (None, None) => false,
            _ => true,
        };
        self.shared.differences(&older.shared, |name, old, new| {
            // Most of what stands beside a difference is the same, which must cost no look-up: every stream comes here.
            if !differ(old, new) || self.own.contains_key(name) || older.own.contains_key(name) {
                return;
            }
            visit(name, old, new);
        });
        if self.own.is_same(&older.own) && self.shared.is_same(&older.shared) {
            return;
        }
        let gone = older.own.keys().filter(|name| !self.own.contains_key(*name));
        for name in self.own.keys().chain(gone) {
            let (old, new) = (older.get(name), self.get(name));
            if differ(old, new) {
                visit(name, old, new);
            }
        }
    }
}

impl FromIterator<Resource> for TypeSet {
    /// All of them shared.
    fn from_iter<I: IntoIterator<Item = Resource>>(resources: I) -> Self {
        let entry = |resource: Resource| (resource.name.clone(), Arc::new(resource));
        Self {
            shared: resources.into_iter().map(entry).collect(),
            own: Layer::default(),
        }
    }
}

/// What one client may be told, at one generation.
#[derive(Debug, Clone, Default)]
pub struct ResourceSet {
    /// Rises with every change of the mesh's configuration.
    pub generation: u64,
    /// type URL → resources.
    pub types: BTreeMap<Text, TypeSet>,
}

impl ResourceSet {
    /// The resource of that type and name.
    pub fn find(&self, type_url: &str, name: &str) -> Option<&Arc<Resource>> {
        self.types.get(type_url)?.get(name)
    }

    /// How many resources differ between `self` and `older`, in one type or in all of them.
    pub fn differences(&self, older: &Self) -> usize {
        let empty = TypeSet::default();
        let mut urls: Vec<&Text> = self.types.keys().chain(older.types.keys()).collect();
        urls.sort_unstable();
        urls.dedup();
        let count = |url: &Text| {
            let new = self.types.get(url).unwrap_or(&empty);
            let old = older.types.get(url).unwrap_or(&empty);
            let mut count = 0;
            new.differences(old, |_, _, _| count += 1);
            count
        };
        urls.into_iter().map(count).sum()
    }
}

/// The name that an encoded resource gives itself: its field 1, which is the name in every type of xDS that is fetched in
/// state-of-the-world form without a wrapper. `None` where the bytes do not begin a well-formed message that has it.
pub fn name_of(body: &[u8]) -> Option<&str> {
    let mut rest = body;
    loop {
        let key = varint(&mut rest)?;
        let (field, wire_type) = (key >> 3, key & 7);
        let length = match wire_type {
            0 => {
                varint(&mut rest)?;
                continue;
            }
            1 => 8,
            2 => usize::try_from(varint(&mut rest)?).ok()?,
            5 => 4,
            _ => return None,
        };
        let value = rest.get(..length)?;
        if field == 1 && wire_type == 2 {
            return std::str::from_utf8(value).ok();
        }
        rest = &rest[length..];
    }
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (&byte, tail) = rest.split_first()?;
        *rest = tail;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_found_behind_other_fields_and_garbage_has_none() {
        assert_eq!(name_of(&[0x0a, 2, b'a', b'b']), Some("ab"));
        assert_eq!(name_of(&[0x18, 0x96, 1, 0x12, 1, 9, 0x0a, 1, b'x']), Some("x"));
        for bad in [
            &[][..],
            &[0x0a],
            &[0x0a, 9, b'a'],
            &[0xff; 20],
            &[0x0b],
            &[0x0a, 1, 0xff],
        ] {
            assert_eq!(name_of(bad), None, "{bad:?}");
        }
    }

    fn of(pairs: &[(&str, &str)]) -> TypeSet {
        let resources = pairs.iter().map(|(name, version)| Resource {
            name: (*name).into(),
            version: (*version).into(),
            body: Payload::default(),
        });
        resources.collect()
    }

    #[test]
    fn differences_count_added_changed_and_removed() {
        let set = |generation, pairs: &[(&str, &str)]| ResourceSet {
            generation,
            types: [("t".into(), of(pairs))].into(),
        };
        let old = set(1, &[("same", "1"), ("changed", "1"), ("gone", "1")]);
        let new = set(2, &[("same", "1"), ("changed", "2"), ("new", "1")]);
        assert_eq!(new.differences(&old), 3);
        assert_eq!(new.differences(&new.clone()), 0);
    }

    #[test]
    fn own_resources_hide_shared_ones_of_their_name() {
        let layered = |shared: &[(&str, &str)], own: &[(&str, &str)]| TypeSet {
            shared: of(shared).shared,
            own: of(own).shared,
        };
        let versions = |set: &TypeSet| -> Vec<String> {
            set.values()
                .map(|one| format!("{}{}", one.name, one.version))
                .collect()
        };
        let old = layered(&[("a", "1"), ("b", "1"), ("d", "1")], &[("b", "9"), ("c", "1")]);
        assert_eq!(versions(&old), ["a1", "b9", "c1", "d1"]);
        assert_eq!((old.len(), old.get("b").map(|one| &*one.version)), (4, Some("9")));
        let changed = |new: &TypeSet| {
            let mut found = Vec::new();
            new.differences(&old, |name, _, now| {
                found.push((name.to_string(), now.map(|one| one.version.to_string())));
            });
            found
        };
        // A hidden change is none; what is not hidden any more is one.
        let hidden = layered(&[("a", "1"), ("b", "2"), ("d", "1")], &[("b", "9"), ("c", "1")]);
        assert_eq!(changed(&hidden), []);
        let bare = layered(&[("a", "2"), ("b", "2"), ("d", "1")], &[("c", "1")]);
        assert_eq!(
            changed(&bare),
            [("a".into(), Some("2".into())), ("b".into(), Some("2".into()))]
        );
        let gone = layered(&[("a", "1"), ("b", "1"), ("d", "1")], &[]);
        assert_eq!(
            changed(&gone),
            [("b".into(), Some("1".into())), ("c".into(), None)]
        );
    }
}
