//! Name tables. Source: Istio `istio.networking.nds.v1.NameTable`.
//!
//! Rejected: addresses that do not parse. The registry's name and the short name are ignored (Istio sends every form of
//! a name as an entry of its own).

use std::{collections::BTreeMap, net::IpAddr};

use bytes::Bytes;
use prost::Message;
use rajut_proto::{nds, type_url};
use rajut_types::Text;

use super::{DecodeResult, Encoded, Fault, read::Place, read::Reader};
use crate::{NameTable, Names};

/// Encodes; the table is one resource without a name.
pub fn encode_name_table(table: &NameTable) -> Encoded {
    Encoded {
        name: Text::default(),
        type_url: type_url::NAME_TABLE,
        value: encode(table.iter()),
    }
}

/// Encodes a part of a table. The parts of a table one behind the other are the whole message: entries of a map may stand in any
/// order.
pub fn encode_names(names: &Names) -> Bytes {
    encode(names.iter().map(|(name, addresses)| (name, &**addresses)))
}

fn encode<'n>(names: impl Iterator<Item = (&'n Text, &'n [IpAddr])>) -> Bytes {
    let table = names.map(|(name, addresses)| {
        let info = nds::NameInfo {
            ips: addresses.iter().map(ToString::to_string).collect(),
            registry: "External".to_owned(),
            ..Default::default()
        };
        (name.to_string(), info)
    });
    let message = nds::NameTable {
        table: table.collect(),
    };
    message.encode_to_vec().into()
}

/// Decodes.
pub fn decode_name_table(bytes: &[u8]) -> DecodeResult<NameTable> {
    let mut reader = Reader::default();
    let message = match nds::NameTable::decode(bytes) {
        Ok(message) => message,
        Err(error) => {
            reader.fault(&Place::Root, Fault::Malformed(error.to_string()));
            return reader.finish(Text::default(), None);
        }
    };
    let mut names = BTreeMap::new();
    for (name, info) in message.table {
        let nds::NameInfo {
            ips,
            registry: _,
            shortname: _,
            namespace: _,
        } = info;
        let place = Place::Root.key("table", &name).to_string();
        let mut addresses = Vec::with_capacity(ips.len());
        for (at, ip) in ips.into_iter().enumerate() {
            match ip.parse() {
                Ok(address) => addresses.push(address),
                Err(_) => reader.fault_at(
                    format!("{place}.ips[{at}]"),
                    Fault::Text {
                        value: ip,
                        expected: "an IP address",
                    },
                ),
            }
        }
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        names.insert(name.into(), addresses.into());
    }
    reader.finish(Text::default(), Some(NameTable::new(names)))
}
