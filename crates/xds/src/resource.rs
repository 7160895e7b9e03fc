//! Resources as the discovery protocol sees them: a type URL, a name, a version and opaque bytes.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use rajut_types::Text;

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
    pub body: Bytes,
}

impl std::fmt::Debug for Resource {
    /// Without the body: it may hold key material.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{} ({} bytes)", self.name, self.version, self.body.len())
    }
}

/// All resources of one type, by name.
pub type TypeSet = BTreeMap<Text, Resource>;

/// What one client may be told, at one generation. Shared by counting: a type whose resources did not change is the same
/// allocation from one generation to the next, and is not compared again.
#[derive(Debug, Clone, Default)]
pub struct ResourceSet {
    /// Rises with every change of the mesh's configuration.
    pub generation: u64,
    /// type URL → resources.
    pub types: BTreeMap<Text, Arc<TypeSet>>,
}

impl ResourceSet {
    /// The resource of that type and name.
    pub fn find(&self, type_url: &str, name: &str) -> Option<&Resource> {
        self.types.get(type_url)?.get(name)
    }

    /// How many resources differ between `self` and `older`, in one type or in all of them.
    pub fn differences(&self, older: &Self) -> usize {
        let empty = Arc::new(TypeSet::new());
        let mut urls: Vec<&Text> = self.types.keys().chain(older.types.keys()).collect();
        urls.sort_unstable();
        urls.dedup();
        let count = |url: &Text| {
            let new = self.types.get(url).unwrap_or(&empty);
            let old = older.types.get(url).unwrap_or(&empty);
            if Arc::ptr_eq(new, old) {
                return 0;
            }
            let changed = new
                .iter()
                .filter(|(name, resource)| old.get(*name).is_none_or(|old| old.version != resource.version))
                .count();
            changed + old.keys().filter(|name| !new.contains_key(*name)).count()
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

    #[test]
    fn differences_count_added_changed_and_removed() {
        let set = |generation, pairs: &[(&str, &str)]| {
            let resources = pairs.iter().map(|(name, version)| {
                let resource = Resource {
                    name: (*name).into(),
                    version: (*version).into(),
                    body: Bytes::new(),
                };
                (Text::from(*name), resource)
            });
            ResourceSet {
                generation,
                types: [("t".into(), Arc::new(resources.collect::<TypeSet>()))].into(),
            }
        };
        let old = set(1, &[("same", "1"), ("changed", "1"), ("gone", "1")]);
        let new = set(2, &[("same", "1"), ("changed", "2"), ("new", "1")]);
        assert_eq!(new.differences(&old), 3);
        assert_eq!(new.differences(&new.clone()), 0);
    }
}
