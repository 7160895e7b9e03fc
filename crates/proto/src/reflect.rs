//! Descriptors of the messages, for protobuf's JSON form (`/config_dump`, bootstrap files).
//!
//! The descriptor set is compiled by `build.rs` and lies in the program; the pool that is built from it costs some
//! megabytes of heap, so that it is made on first use. A proxy that only reads a bootstrap file once takes a
//! [`Descriptors`] of its own and drops it; who serves JSON for life takes [`Descriptors::shared`].
//!
//! Rejects: fields that the message lacks, wrong types, `@type`s that this build does not know. Degrades nothing.

use std::sync::OnceLock;

use prost::Message as _;
use prost_reflect::{DescriptorPool, DeserializeOptions, DynamicMessage, SerializeOptions};
use serde_json::Value;

use crate::{Any, schema::MessageSchema, type_url::message_name};

static DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// A pool of descriptors.
#[derive(Debug, Clone)]
pub struct Descriptors {
    pool: DescriptorPool,
}

/// JSON could not be turned into a message, or the reverse.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// The type is not in the pool.
    #[error("the message type `{0}` is not known to this build")]
    UnknownType(String),
    /// The JSON does not fit the message.
    #[error("{path}: {reason}")]
    Malformed {
        /// Where: `static_resources.listeners[0].address`; empty for the root.
        path: String,
        /// What does not fit, and what is expected.
        reason: String,
    },
    /// The bytes do not decode.
    #[error("the bytes are not a `{type_name}`: {source}")]
    Bytes {
        /// The message's full name.
        type_name: String,
        /// The decoder's complaint.
        #[source]
        source: prost::DecodeError,
    },
}

impl Descriptors {
    /// A pool of its own, gone when dropped.
    ///
    /// # Panics
    ///
    /// Never: `build.rs` wrote the descriptor set.
    pub fn load() -> Self {
        Self {
            pool: DescriptorPool::decode(DESCRIPTOR_SET).expect("build.rs wrote a valid descriptor set"),
        }
    }

    /// The pool that lives as long as the process.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Descriptors> = OnceLock::new();
        SHARED.get_or_init(Self::load)
    }

    /// Encodes protobuf's JSON form of a message.
    pub fn json_to_message(&self, type_name: &str, json: &Value) -> Result<Vec<u8>, JsonError> {
        let descriptor = self
            .pool
            .get_message_by_name(type_name)
            .ok_or_else(|| JsonError::UnknownType(type_name.to_owned()))?;
        let options = DeserializeOptions::new().deny_unknown_fields(true);
        match DynamicMessage::deserialize_with_options(descriptor, json, &options) {
            Ok(message) => Ok(message.encode_to_vec()),
            Err(error) => Err(self.place(type_name, json, &error.to_string())),
        }
    }

    /// The JSON form of a packed message, with its `@type`.
    pub fn message_to_json(&self, any: &Any) -> Result<Value, JsonError> {
        let type_name = message_name(&any.type_url);
        let descriptor = self
            .pool
            .get_message_by_name(type_name)
            .ok_or_else(|| JsonError::UnknownType(type_name.to_owned()))?;
        let message = DynamicMessage::decode(descriptor, &*any.value).map_err(|source| JsonError::Bytes {
            type_name: type_name.to_owned(),
            source,
        })?;
        let options = SerializeOptions::new().use_proto_field_name(true);
        let json = message
            .serialize_with_options(serde_json::value::Serializer, &options)
            .map_err(|error| JsonError::Malformed {
                path: String::new(),
                reason: error.to_string(),
            })?;
        Ok(match json {
            Value::Object(fields) => {
                let mut object = serde_json::Map::new();
                object.insert("@type".to_owned(), Value::String(any.type_url.clone()));
                object.extend(fields);
                Value::Object(object)
            }
            other => other,
        })
    }

    /// Finds the smallest part of `json` that does not fit, since the deserialiser does not name it.
    fn place(&self, type_name: &str, json: &Value, reason: &str) -> JsonError {
        let (path, reason) = MessageSchema::named(type_name)
            .and_then(|schema| self.narrow(schema, json, String::new()))
            .unwrap_or_else(|| (String::new(), reason.to_owned()));
        JsonError::Malformed { path, reason }
    }

    /// Tries each field alone; the first that fails is gone into.
    fn narrow(&self, schema: &'static MessageSchema, json: &Value, path: String) -> Option<(String, String)> {
        let complaint = self.complaint(schema.name, json)?;
        if WELL_KNOWN.contains(&schema.name) {
            return Some((path, complaint));
        }
        let Value::Object(fields) = json else {
            return Some((path, complaint));
        };
        if schema.name == "google.protobuf.Any" {
            let held = fields
                .get("@type")
                .and_then(Value::as_str)
                .and_then(|url| MessageSchema::named(message_name(url)));
            let mut rest = fields.clone();
            rest.shift_remove("@type");
            return match held {
                Some(held) => self
                    .narrow(held, &Value::Object(rest), path.clone())
                    .or(Some((path, complaint))),
                None => Some((path, unknown_type(fields.get("@type")))),
            };
        }
        for (key, value) in fields {
            let alone = Value::Object(serde_json::Map::from_iter([(key.clone(), value.clone())]));
            let Some(complaint) = self.complaint(schema.name, &alone) else {
                continue;
            };
            let Some(field) = schema
                .fields
                .iter()
                .find(|field| field.name == key || camel_case(field.name) == *key)
            else {
                return Some((path, unknown_field(schema, key)));
            };
            let here = if path.is_empty() {
                key.clone()
            } else {
                format!("{path}.{key}")
            };
            return Some(
                self.narrow_field(field.message(), value, here.clone())
                    .unwrap_or((here, complaint)),
            );
        }
        Some((path, complaint))
    }

    fn narrow_field(
        &self,
        inner: Option<&'static MessageSchema>,
        value: &Value,
        path: String,
    ) -> Option<(String, String)> {
        let inner = inner?;
        match value {
            Value::Array(items) if inner.name != "google.protobuf.ListValue" => items
                .iter()
                .enumerate()
                .find_map(|(at, item)| self.narrow(inner, item, format!("{path}[{at}]"))),
            Value::Object(entries) if inner.map_entry => {
                let target = inner.field(2)?.message()?;
                entries
                    .iter()
                    .find_map(|(key, item)| self.narrow(target, item, format!("{path}[{key:?}]")))
            }
            _ => self.narrow(inner, value, path),
        }
    }

    fn complaint(&self, type_name: &str, json: &Value) -> Option<String> {
        let descriptor = self.pool.get_message_by_name(type_name)?;
        let options = DeserializeOptions::new().deny_unknown_fields(true);
        DynamicMessage::deserialize_with_options(descriptor, json, &options)
            .err()
            .map(|error| error.to_string())
    }
}

/// Messages whose JSON form is not an object of their fields.
const WELL_KNOWN: &[&str] = &[
    "google.protobuf.BoolValue",
    "google.protobuf.BytesValue",
    "google.protobuf.DoubleValue",
    "google.protobuf.Duration",
    "google.protobuf.FieldMask",
    "google.protobuf.FloatValue",
    "google.protobuf.Int32Value",
    "google.protobuf.Int64Value",
    "google.protobuf.ListValue",
    "google.protobuf.StringValue",
    "google.protobuf.Struct",
    "google.protobuf.Timestamp",
    "google.protobuf.UInt32Value",
    "google.protobuf.UInt64Value",
    "google.protobuf.Value",
];

fn unknown_type(url: Option<&Value>) -> String {
    match url.and_then(Value::as_str) {
        Some(url) => format!("the type `{}` is not known to this build", message_name(url)),
        None => "an `@type` is required".to_owned(),
    }
}

fn unknown_field(schema: &MessageSchema, key: &str) -> String {
    let known: Vec<_> = schema.fields.iter().map(|field| field.name).collect();
    format!(
        "`{}` has no field `{key}`; it has {}",
        schema.name,
        known.join(", ")
    )
}

/// protobuf's JSON name of a field: `stat_prefix` is `statPrefix`.
fn camel_case(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    let mut upper = false;
    for letter in name.chars() {
        if letter == '_' {
            upper = true;
        } else if std::mem::take(&mut upper) {
            out.push(letter.to_ascii_uppercase());
        } else {
            out.push(letter);
        }
    }
    out
}

/// Encodes protobuf's JSON form of a message, by the shared pool.
pub fn json_to_message(type_name: &str, json: &Value) -> Result<Vec<u8>, JsonError> {
    Descriptors::shared().json_to_message(type_name, json)
}

/// The JSON form of a packed message, with its `@type`, by the shared pool.
pub fn message_to_json(any: &Any) -> Result<Value, JsonError> {
    Descriptors::shared().message_to_json(any)
}

#[cfg(test)]
mod tests;
