//! Compiles the `.proto` files that the package `envoy-types` ships into two things in `OUT_DIR`:
//! `descriptors.bin` (a plain `FileDescriptorSet` for JSON) and `schema.rs` (constant tables of messages and fields for
//! scanning wire bytes). No `protoc` is needed; the files are found through `cargo metadata`.
#![expect(clippy::disallowed_methods, reason = "cargo tells build scripts by variables")]

use std::{
    collections::{BTreeMap, HashSet},
    env,
    error::Error,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use protox::prost_reflect::prost_types::{
    DescriptorProto, FieldDescriptorProto, FieldOptions, FileDescriptorProto, FileDescriptorSet,
    MessageOptions,
    field_descriptor_proto::{Label, Type},
};

/// What is compiled, with everything that these import.
const ROOTS: &[&str] = &[
    "envoy/admin/v3/config_dump.proto",
    "envoy/config/bootstrap/v3/bootstrap.proto",
    "envoy/config/trace/v3/opentelemetry.proto",
    "envoy/service/discovery/v3/discovery.proto",
    "envoy/extensions/access_loggers/file/v3/file.proto",
    "envoy/extensions/access_loggers/filters/cel/v3/cel.proto",
    "envoy/extensions/access_loggers/stream/v3/stream.proto",
    "envoy/extensions/clusters/dns/v3/dns_cluster.proto",
    "envoy/extensions/filters/http/cors/v3/cors.proto",
    "envoy/extensions/filters/http/ext_authz/v3/ext_authz.proto",
    "envoy/extensions/filters/http/fault/v3/fault.proto",
    "envoy/extensions/filters/http/grpc_stats/v3/config.proto",
    "envoy/extensions/filters/http/jwt_authn/v3/config.proto",
    "envoy/extensions/filters/http/rbac/v3/rbac.proto",
    "envoy/extensions/filters/http/router/v3/router.proto",
    "envoy/extensions/filters/listener/http_inspector/v3/http_inspector.proto",
    "envoy/extensions/filters/listener/original_dst/v3/original_dst.proto",
    "envoy/extensions/filters/listener/proxy_protocol/v3/proxy_protocol.proto",
    "envoy/extensions/filters/listener/tls_inspector/v3/tls_inspector.proto",
    "envoy/extensions/filters/network/ext_authz/v3/ext_authz.proto",
    "envoy/extensions/filters/network/http_connection_manager/v3/http_connection_manager.proto",
    "envoy/extensions/filters/network/rbac/v3/rbac.proto",
    "envoy/extensions/filters/network/tcp_proxy/v3/tcp_proxy.proto",
    "envoy/extensions/path/match/uri_template/v3/uri_template_match.proto",
    "envoy/extensions/rate_limit_descriptors/expr/v3/expr.proto",
    "envoy/extensions/transport_sockets/raw_buffer/v3/raw_buffer.proto",
    "envoy/extensions/transport_sockets/tls/v3/tls.proto",
    "envoy/extensions/upstreams/http/v3/http_protocol_options.proto",
];

/// Compiled by themselves: they name `common.ratelimit`, which the compiler would look for in
/// `envoy.extensions.filters.common` once another file has opened that package.
const APART: &[&str] = &["envoy/extensions/filters/http/local_ratelimit/v3/local_rate_limit.proto"];

/// Described here, since no package ships them.
const OWN: &[&str] = &["istio/stats.proto"];

/// The configuration of Istio's filter of standard metrics (`istio.stats`), as it is on the wire: written after the published
/// interface. `src/stats.rs` has the same messages for prost.
const ISTIO_STATS: &str = r#"syntax = "proto3";

package stats;

import "google/protobuf/duration.proto";

message MetricConfig {
  map<string, string> dimensions = 1;
  string name = 2;
  repeated string tags_to_remove = 3;
  string match = 4;
  bool drop = 5;
}

enum MetricType {
  COUNTER = 0;
  GAUGE = 1;
  HISTOGRAM = 2;
}

message MetricDefinition {
  string name = 1;
  string value = 2;
  MetricType type = 3;
}

enum Reporter {
  UNSPECIFIED = 0;
  SERVER_GATEWAY = 1;
}

message PluginConfig {
  bool disable_host_header_fallback = 6;
  google.protobuf.Duration tcp_reporting_duration = 7;
  repeated MetricConfig metrics = 8;
  repeated MetricDefinition definitions = 9;
  Reporter reporter = 10;
  google.protobuf.Duration rescoping_duration = 11;
  google.protobuf.Duration scope_grace_period_duration = 12;
}
"#;

/// Included where the package ships them.
const OPTIONAL_ROOTS: &[&str] = &[
    "envoy/extensions/request_id/uuid/v3/uuid.proto",
    "envoy/extensions/retry/host/previous_hosts/v3/previous_hosts.proto",
    "envoy/extensions/retry/priority/previous_priorities/v3/previous_priorities_config.proto",
    "envoy/extensions/http/header_formatters/preserve_case/v3/preserve_case.proto",
    "envoy/extensions/load_balancing_policies/round_robin/v3/round_robin.proto",
    "envoy/extensions/load_balancing_policies/least_request/v3/least_request.proto",
    "envoy/extensions/load_balancing_policies/random/v3/random.proto",
    "envoy/extensions/network/dns_resolver/cares/v3/cares_dns_resolver.proto",
];

/// Folders of the package that hold `.proto` files, relative to its `proto` folder.
const INCLUDES: &[&str] = &[
    "data-plane-api",
    "xds",
    "googleapis",
    "protoc-gen-validate",
    "client_model",
    "opentelemetry-proto",
    "cel-spec/proto",
];

/// Files that define nothing but options, which are dropped.
fn is_annotation(file: &str) -> bool {
    file.starts_with("validate/")
        || file.contains("/annotations/")
        || file == "google/protobuf/descriptor.proto"
        || file == "google/api/annotations.proto"
        || file == "google/api/http.proto"
}

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    let folder = envoy_types_folder()?.join("proto");
    println!("cargo::rerun-if-changed={}", folder.display());
    let mut set = compile(&folder)?;
    for file in &mut set.file {
        strip(file);
    }
    set.file.retain(|file| !is_annotation(file.name()));
    set.file.extend(by_hand());

    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    fs::write(
        out.join("descriptors.bin"),
        protox::prost_reflect::prost::Message::encode_to_vec(&set),
    )?;
    fs::write(out.join("schema.rs"), schema(&set)?)?;
    Ok(())
}

/// The package's folder, first without the network.
fn envoy_types_folder() -> Result<PathBuf, Box<dyn Error>> {
    let mut complaint = String::new();
    for offline in [true, false] {
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args(["metadata", "--format-version", "1", "--filter-platform"]);
        cargo.arg(env::var("TARGET")?);
        cargo.arg("--manifest-path");
        cargo.arg(Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("Cargo.toml"));
        if offline {
            cargo.arg("--offline");
        }
        let output = cargo.output()?;
        if !output.status.success() {
            complaint = String::from_utf8_lossy(&output.stderr).into_owned();
            continue;
        }
        let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        let manifest = metadata["packages"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|package| package["name"] == "envoy-types")
            .and_then(|package| package["manifest_path"].as_str())
            .ok_or("the package envoy-types is not among the dependencies")?;
        return Ok(Path::new(manifest)
            .parent()
            .ok_or("a manifest has a folder")?
            .to_owned());
    }
    Err(format!("cargo metadata failed: {complaint}").into())
}

fn compile(folder: &Path) -> Result<FileDescriptorSet, Box<dyn Error>> {
    let optional = OPTIONAL_ROOTS
        .iter()
        .filter(|root| folder.join("data-plane-api").join(root).exists());
    let mut set = FileDescriptorSet::default();
    let together: Vec<_> = ROOTS.iter().chain(OWN).chain(optional).collect();
    let own = Path::new(&env::var("OUT_DIR")?).join("own");
    fs::create_dir_all(own.join("istio"))?;
    fs::write(own.join("istio/stats.proto"), ISTIO_STATS)?;
    for group in [together, APART.iter().collect()] {
        let packaged = INCLUDES.iter().map(|include| folder.join(include));
        let mut compiler = protox::Compiler::new(packaged.chain([own.clone()]))?;
        compiler.include_imports(true).include_source_info(false);
        compiler.open_files(group)?;
        for file in compiler.file_descriptor_set().file {
            if !set.file.iter().any(|known| known.name == file.name) {
                set.file.push(file);
            }
        }
    }
    Ok(set)
}

/// Messages that the package does not ship, as they are on the wire.
fn by_hand() -> [FileDescriptorProto; 3] {
    const STRUCT: &str = ".google.protobuf.Struct";
    const INFO: &str = ".istio.networking.nds.v1.NameTable.NameInfo";
    let typed_struct = || {
        message(
            "TypedStruct",
            &[("type_url", 1, false, ""), ("value", 2, false, STRUCT)],
        )
    };
    let info = message(
        "NameInfo",
        &[
            ("ips", 1, true, ""),
            ("registry", 2, false, ""),
            ("shortname", 3, false, ""),
            ("namespace", 4, false, ""),
        ],
    );
    let mut entry = message("TableEntry", &[("key", 1, false, ""), ("value", 2, false, INFO)]);
    entry.options = Some(MessageOptions {
        map_entry: Some(true),
        ..Default::default()
    });
    let mut table = message(
        "NameTable",
        &[("table", 1, true, ".istio.networking.nds.v1.NameTable.TableEntry")],
    );
    table.nested_type = vec![info, entry];
    [
        file("xds.type.v3", "xds/type/v3/typed_struct.proto", typed_struct()),
        file("udpa.type.v1", "udpa/type/v1/typed_struct.proto", typed_struct()),
        file("istio.networking.nds.v1", "networking/nds/v1/nds.proto", table),
    ]
}

fn file(package: &str, name: &str, message: DescriptorProto) -> FileDescriptorProto {
    FileDescriptorProto {
        name: Some(name.to_owned()),
        package: Some(package.to_owned()),
        dependency: vec!["google/protobuf/struct.proto".to_owned()],
        message_type: vec![message],
        syntax: Some("proto3".to_owned()),
        ..Default::default()
    }
}

/// A message of texts (no type) and messages: name, number, repeated, type.
fn message(name: &str, fields: &[(&str, i32, bool, &str)]) -> DescriptorProto {
    let field = |(name, number, repeated, of): &(&str, i32, bool, &str)| FieldDescriptorProto {
        name: Some((*name).to_owned()),
        number: Some(*number),
        label: Some(
            if *repeated {
                Label::Repeated
            } else {
                Label::Optional
            }
            .into(),
        ),
        r#type: Some(
            if of.is_empty() {
                Type::String
            } else {
                Type::Message
            }
            .into(),
        ),
        type_name: (!of.is_empty()).then(|| (*of).to_owned()),
        ..Default::default()
    };
    DescriptorProto {
        name: Some(name.to_owned()),
        field: fields.iter().map(field).collect(),
        ..Default::default()
    }
}

/// Drops options (but those that change the encoding) and imports of files that define options only.
fn strip(file: &mut FileDescriptorProto) {
    fn message(it: &mut DescriptorProto) {
        if let Some(options) = it.options.take()
            && options.map_entry()
        {
            it.options = Some(MessageOptions {
                map_entry: Some(true),
                ..Default::default()
            });
        }
        for field in &mut it.field {
            if let Some(options) = field.options.take()
                && (options.packed.is_some() || options.deprecated())
            {
                field.options = Some(FieldOptions {
                    packed: options.packed,
                    deprecated: options.deprecated,
                    ..Default::default()
                });
            }
        }
        for nested in &mut it.enum_type {
            nested.options = None;
            for value in &mut nested.value {
                value.options = None;
            }
        }
        for oneof in &mut it.oneof_decl {
            oneof.options = None;
        }
        it.extension.clear();
        it.nested_type.iter_mut().for_each(message);
    }
    file.options = None;
    file.extension.clear();
    file.service.clear();
    file.public_dependency.clear();
    file.weak_dependency.clear();
    file.dependency.retain(|import| !is_annotation(import));
    file.message_type.iter_mut().for_each(message);
    for it in &mut file.enum_type {
        it.options = None;
        for value in &mut it.value {
            value.options = None;
        }
    }
}

/// The tables that `src/schema.rs` includes.
fn schema(set: &FileDescriptorSet) -> Result<String, Box<dyn Error>> {
    let mut messages = BTreeMap::new();
    for file in &set.file {
        for message in &file.message_type {
            collect(file.package(), message, &mut messages);
        }
    }
    let index: BTreeMap<&str, usize> = messages
        .keys()
        .enumerate()
        .map(|(at, name)| (name.as_str(), at))
        .collect();
    let mapped = holding_maps(&messages);
    let mut field_count = 0;
    let mut out = format!("static MESSAGES: [MessageSchema; {}] = [\n", messages.len());
    for (name, message) in &messages {
        write!(
            out,
            "MessageSchema {{ name: {name:?}, map_entry: {}, holds_maps: {}, fields: &[",
            message.options.as_ref().is_some_and(MessageOptions::map_entry),
            mapped.contains(name.as_str())
        )?;
        let mut fields: Vec<_> = message.field.iter().collect();
        fields.sort_by_key(|field| field.number());
        for field in fields {
            let kind = match field.r#type() {
                Type::Message | Type::Group => {
                    let target = field.type_name().trim_start_matches('.');
                    let at = index
                        .get(target)
                        .ok_or_else(|| format!("unknown type {target}"))?;
                    format!("FieldKind::Message({at})")
                }
                Type::Enum => "FieldKind::Enum".to_owned(),
                Type::Bool => "FieldKind::Bool".to_owned(),
                Type::String => "FieldKind::Text".to_owned(),
                Type::Bytes => "FieldKind::Bytes".to_owned(),
                _ => "FieldKind::Number".to_owned(),
            };
            write!(
                out,
                "FieldSchema {{ id: {field_count}, number: {}, name: {:?}, repeated: {}, deprecated: {}, kind: {kind} }},",
                field.number(),
                field.name(),
                field.label() == Label::Repeated,
                field.options.as_ref().is_some_and(FieldOptions::deprecated),
            )?;
            field_count += 1;
        }
        out.push_str("] },\n");
    }
    writeln!(out, "];\nstatic FIELD_COUNT: usize = {field_count};")?;
    Ok(out)
}

fn collect<'a>(scope: &str, message: &'a DescriptorProto, into: &mut BTreeMap<String, &'a DescriptorProto>) {
    let name = format!("{scope}.{}", message.name());
    for nested in &message.nested_type {
        collect(&name, nested, into);
    }
    into.insert(name, message);
}

/// Messages in which a map may stand at some depth (an `Any` may hold one): their encoding has to be put in order.
fn holding_maps(messages: &BTreeMap<String, &DescriptorProto>) -> HashSet<String> {
    let mut holding = HashSet::new();
    loop {
        let before = holding.len();
        for (name, message) in messages {
            let holds = message.field.iter().any(|field| {
                let target = field.type_name().trim_start_matches('.');
                target == "google.protobuf.Any"
                    || holding.contains(target)
                    || messages
                        .get(target)
                        .is_some_and(|it| it.options.as_ref().is_some_and(MessageOptions::map_entry))
            });
            if holds || name == "google.protobuf.Any" {
                holding.insert(name.clone());
            }
        }
        if holding.len() == before {
            return holding;
        }
    }
}
