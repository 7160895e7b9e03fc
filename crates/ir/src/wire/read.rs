//! What all decoders share: the collection of faults, the place where one stands, and the small types of `core.v3`.
//!
//! A decoder takes a [`Reader`] and a [`Place`], reports what it can't take, and goes on with a harmless value, so that
//! all faults of a resource are found; [`Reader::finish`] throws the value away if there was one.

#![expect(deprecated, reason = "what Envoy deprecates is still what many senders write")]

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use ipnet::IpNet;
use prost::Message;
use rajut_proto::{
    Any,
    core::{self as pb, address, data_source, socket_address},
    google::protobuf::{self as wkt, value},
    schema, types,
};
use rajut_types::{Locality, Percent, Text};

use super::{
    DecodeError, DecodeErrors, DecodeResult, Decoded, ERRORS_MAX, Fault, IGNORED_MAX, Ignored, support,
};
use crate::{endpoint::EndpointAddress, tls::DataSource};

/// Collects faults and what is ignored while one resource is decoded.
#[derive(Debug, Default)]
pub(super) struct Reader {
    errors: Vec<(String, Fault)>,
    ignored: Vec<Ignored>,
}

/// Where a decoder stands: a chain of stack frames, rendered only for a fault.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place<'a> {
    /// The resource.
    Root,
    /// A field.
    Field(&'a Self, &'static str),
    /// An item of a repeated field.
    Item(&'a Self, &'static str, usize),
    /// An entry of a map.
    Key(&'a Self, &'static str, &'a str),
}

impl Place<'_> {
    pub(super) fn field(&self, name: &'static str) -> Place<'_> {
        Place::Field(self, name)
    }

    pub(super) fn item(&self, name: &'static str, at: usize) -> Place<'_> {
        Place::Item(self, name, at)
    }

    pub(super) fn key<'b>(&'b self, name: &'static str, key: &'b str) -> Place<'b> {
        Place::Key(self, name, key)
    }
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parent = match self {
            Self::Root => return Ok(()),
            Self::Field(parent, _) | Self::Item(parent, ..) | Self::Key(parent, ..) => parent,
        };
        if !matches!(parent, Self::Root) {
            write!(f, "{parent}.")?;
        }
        match self {
            Self::Root => Ok(()),
            Self::Field(_, name) => f.write_str(name),
            Self::Item(_, name, at) => write!(f, "{name}[{at}]"),
            Self::Key(_, name, key) => write!(f, "{name}[{key:?}]"),
        }
    }
}

/// Decodes a whole resource: bytes → message, the lists of [`support`], then `build`. `name` reads the resource's name
/// from the message, for the errors.
pub(super) fn resource<M: Message + prost::Name + Default, T>(
    bytes: &[u8],
    name: impl FnOnce(&M) -> &str,
    build: impl FnOnce(&mut Reader, M, &Place<'_>) -> Option<T>,
) -> DecodeResult<T> {
    let mut reader = Reader::default();
    match M::decode(bytes) {
        Ok(message) => {
            let resource = Text::from(name(&message));
            reader.check(&M::full_name(), bytes, &Place::Root);
            let built = build(&mut reader, message, &Place::Root);
            reader.finish(resource, built)
        }
        Err(error) => {
            reader.fault(&Place::Root, Fault::Malformed(error.to_string()));
            reader.finish(Text::default(), None)
        }
    }
}

impl Reader {
    /// Reports a fault.
    pub(super) fn fault(&mut self, place: &Place<'_>, fault: Fault) {
        self.fault_at(place.to_string(), fault);
    }

    pub(super) fn fault_at(&mut self, path: String, fault: Fault) {
        if self.errors.len() < ERRORS_MAX
            && !self
                .errors
                .iter()
                .any(|known| known.0 == path && known.1 == fault)
        {
            self.errors.push((path, fault));
        }
    }

    /// Notes that something ignorable is left out.
    pub(super) fn ignore(&mut self, path: String, what: impl Into<Text>) {
        if self.ignored.len() < IGNORED_MAX {
            self.ignored.push(Ignored {
                path,
                what: what.into(),
            });
        }
    }

    /// Whether nothing was wrong so far.
    pub(super) fn is_clean(&self) -> bool {
        self.errors.is_empty()
    }

    /// The value if nothing was wrong.
    pub(super) fn finish<T>(self, resource: Text, value: Option<T>) -> DecodeResult<T> {
        match value {
            Some(value) if self.errors.is_empty() => Ok(Decoded {
                value,
                ignored: self.ignored,
            }),
            _ => Err(DecodeErrors {
                errors: self.into_errors(&resource),
                resource,
            }),
        }
    }

    /// The faults, each with the resource's name; never none.
    pub(super) fn into_errors(self, resource: &Text) -> Vec<DecodeError> {
        let mut errors = self.errors;
        if errors.is_empty() {
            errors.push((
                String::new(),
                Fault::Malformed("the message can't be used".to_owned()),
            ));
        }
        errors
            .into_iter()
            .map(|(path, fault)| DecodeError {
                resource: resource.clone(),
                path,
                fault,
            })
            .collect()
    }

    /// Compares the fields that are set with the lists of [`support`].
    pub(super) fn check(&mut self, type_name: &str, bytes: &[u8], place: &Place<'_>) {
        let under = |path: &schema::Path<'_>| match place {
            Place::Root => path.to_string(),
            _ => format!("{place}.{path}"),
        };
        let scanned = schema::scan(
            type_name,
            bytes,
            &mut |visit, path| match support::judge(&visit) {
                support::Verdict::Supported => schema::Descend::Into,
                support::Verdict::Opaque => schema::Descend::Over,
                support::Verdict::Ignored => {
                    let field = visit.field.map_or("", |field| field.name);
                    self.ignore(under(path), format!("{}.{field}", visit.message.name));
                    schema::Descend::Over
                }
                support::Verdict::Refused(fault) => {
                    self.fault_at(under(path), fault);
                    schema::Descend::Over
                }
            },
        );
        if let Err(error) = scanned {
            self.fault(place, Fault::Malformed(error.to_string()));
        }
    }

    /// Decodes what an `Any` holds.
    pub(super) fn unpack<M: Message + prost::Name + Default>(
        &mut self,
        place: &Place<'_>,
        any: &Any,
    ) -> Option<M> {
        match M::decode(&*any.value) {
            Ok(message) => Some(message),
            Err(error) => {
                self.fault(place, Fault::Malformed(format!("{}: {error}", M::full_name())));
                None
            }
        }
    }

    /// A field that must be there.
    pub(super) fn required<T>(
        &mut self,
        place: &Place<'_>,
        value: Option<T>,
        what: &'static str,
    ) -> Option<T> {
        if value.is_none() {
            self.fault(place, Fault::Missing(what));
        }
        value
    }

    /// A text that must not be empty.
    pub(super) fn named(&mut self, place: &Place<'_>, text: &str, what: &'static str) -> Text {
        if text.is_empty() {
            self.fault(place, Fault::Missing(what));
        }
        text.into()
    }

    /// The enumerator of that number.
    pub(super) fn enumerator<E: TryFrom<i32> + Default>(&mut self, place: &Place<'_>, value: i32) -> E {
        E::try_from(value).unwrap_or_else(|_| {
            self.fault(place, Fault::Enumerator(value));
            E::default()
        })
    }

    /// A value that this build does not do.
    pub(super) fn value(&mut self, place: &Place<'_>, value: impl fmt::Display, instead: &'static str) {
        self.fault(
            place,
            Fault::Value {
                value: value.to_string(),
                instead,
            },
        );
    }

    /// An extension that this build does not have.
    pub(super) fn extension(
        &mut self,
        place: &Place<'_>,
        kind: &'static str,
        name: &str,
        any: Option<&Any>,
        supported: &'static str,
    ) {
        let type_name = any.map_or("no configuration", |any| {
            rajut_proto::type_url::message_name(&any.type_url)
        });
        self.fault(
            place,
            Fault::Extension {
                kind,
                name: name.to_owned(),
                type_name: type_name.to_owned(),
                supported,
            },
        );
    }

    pub(super) fn duration(&mut self, place: &Place<'_>, value: Option<&wkt::Duration>) -> Option<Duration> {
        let value = value?;
        let read = || {
            let seconds = u64::try_from(value.seconds).ok()?;
            let nanos = u32::try_from(value.nanos)
                .ok()
                .filter(|nanos| *nanos < 1_000_000_000)?;
            // protobuf's own limit, 10,000 years.
            (seconds <= 315_576_000_000).then(|| Duration::new(seconds, nanos))
        };
        let duration = read();
        if duration.is_none() {
            self.out_of_range(
                place,
                format!("{}s {}ns", value.seconds, value.nanos),
                "0s to 315576000000s",
            );
        }
        duration
    }

    /// A duration whose zero means "none".
    pub(super) fn bound(
        &mut self,
        place: &Place<'_>,
        value: Option<&wkt::Duration>,
        default: Option<Duration>,
    ) -> Option<Duration> {
        match self.duration(place, value) {
            Some(Duration::ZERO) => None,
            Some(set) => Some(set),
            None => default,
        }
    }

    pub(super) fn out_of_range(
        &mut self,
        place: &Place<'_>,
        value: impl fmt::Display,
        allowed: &'static str,
    ) {
        self.fault(
            place,
            Fault::OutOfRange {
                value: value.to_string(),
                allowed,
            },
        );
    }

    pub(super) fn bad_text(&mut self, place: &Place<'_>, value: &str, expected: &'static str) {
        self.fault(
            place,
            Fault::Text {
                value: value.to_owned(),
                expected,
            },
        );
    }

    pub(super) fn percent(&mut self, place: &Place<'_>, value: f64) -> Percent {
        Percent::new(value).unwrap_or_else(|_| {
            self.out_of_range(place, value, "0 to 100");
            Percent::ALL
        })
    }

    /// `type.v3.FractionalPercent`; more than all counts as all.
    pub(super) fn fraction(&mut self, place: &Place<'_>, value: types::FractionalPercent) -> Percent {
        use types::fractional_percent::DenominatorType;
        let denominator: DenominatorType = self.enumerator(&place.field("denominator"), value.denominator);
        let factor = match denominator {
            DenominatorType::Hundred => 10_000,
            DenominatorType::TenThousand => 100,
            DenominatorType::Million => 1,
        };
        Percent::from_millionths(value.numerator.saturating_mul(factor))
    }

    /// `core.v3.RuntimeFractionalPercent`; its runtime key is ignorable.
    pub(super) fn runtime_fraction(
        &mut self,
        place: &Place<'_>,
        value: &pb::RuntimeFractionalPercent,
    ) -> Percent {
        let place = place.field("default_value");
        if let Some(fraction) = &value.default_value {
            self.fraction(&place, *fraction)
        } else {
            self.fault(&place, Fault::Missing("the share of requests"));
            Percent::ALL
        }
    }

    /// A range of addresses, masked to its prefix, as Envoy does.
    pub(super) fn range(&mut self, place: &Place<'_>, range: &pb::CidrRange) -> Option<IpNet> {
        let Ok(address) = range.address_prefix.parse() else {
            self.bad_text(
                &place.field("address_prefix"),
                &range.address_prefix,
                "an IP address",
            );
            return None;
        };
        let length = number(range.prefix_len.as_ref()).unwrap_or(0);
        let net = u8::try_from(length)
            .ok()
            .and_then(|length| IpNet::new(address, length).ok());
        if net.is_none() {
            self.out_of_range(&place.field("prefix_len"), length, "0 to 32 (IPv4) or 128 (IPv6)");
        }
        net.map(|net| net.trunc())
    }

    pub(super) fn port(&mut self, place: &Place<'_>, value: u32) -> u16 {
        u16::try_from(value).unwrap_or_else(|_| {
            self.out_of_range(place, value, "0 to 65535");
            0
        })
    }

    /// An IP address and port; `netns` tells whether a network namespace may stand there.
    pub(super) fn socket(
        &mut self,
        place: &Place<'_>,
        value: &pb::SocketAddress,
        netns: bool,
    ) -> Option<(SocketAddr, Option<Text>)> {
        match self.host_and_port(place, value, netns)? {
            (Host::Ip(ip), port, netns) => Some((SocketAddr::new(ip, port), netns)),
            (Host::Name(name), ..) => {
                self.bad_text(&place.field("address"), &name, "an IP address");
                None
            }
        }
    }

    fn host_and_port(
        &mut self,
        place: &Place<'_>,
        value: &pb::SocketAddress,
        netns: bool,
    ) -> Option<(Host, u16, Option<Text>)> {
        let protocol: socket_address::Protocol = self.enumerator(&place.field("protocol"), value.protocol);
        if protocol == socket_address::Protocol::Udp {
            self.value(&place.field("protocol"), "UDP", "only TCP is carried");
        }
        if !netns && !value.network_namespace_filepath.is_empty() {
            self.value(
                &place.field("network_namespace_filepath"),
                &value.network_namespace_filepath,
                "a network namespace is taken for listeners and for upstream_bind_config",
            );
        }
        let port = match &value.port_specifier {
            Some(socket_address::PortSpecifier::PortValue(port)) => {
                self.port(&place.field("port_value"), *port)
            }
            Some(socket_address::PortSpecifier::NamedPort(name)) => {
                self.value(&place.field("named_port"), name, "write port_value");
                return None;
            }
            None => 0,
        };
        let host = match value.address.parse() {
            Ok(ip) => Host::Ip(ip),
            Err(_) if value.address.is_empty() => {
                self.fault(&place.field("address"), Fault::Missing("an IP address or name"));
                return None;
            }
            Err(_) => Host::Name(value.address.as_str().into()),
        };
        let namespace = (!value.network_namespace_filepath.is_empty())
            .then(|| value.network_namespace_filepath.as_str().into());
        Some((host, port, namespace))
    }

    /// The address of an endpoint.
    pub(super) fn endpoint_address(
        &mut self,
        place: &Place<'_>,
        value: Option<&pb::Address>,
    ) -> Option<EndpointAddress> {
        let address = value.and_then(|it| it.address.as_ref());
        match self.required(place, address, "an address")? {
            address::Address::SocketAddress(socket) => {
                match self.host_and_port(&place.field("socket_address"), socket, false)? {
                    (Host::Ip(ip), port, _) => Some(EndpointAddress::Socket(SocketAddr::new(ip, port))),
                    (Host::Name(host), port, _) => Some(EndpointAddress::Dns { host, port }),
                }
            }
            address::Address::Pipe(pipe) => {
                let path = self.named(
                    &place.field("pipe").field("path"),
                    &pipe.path,
                    "the socket's path",
                );
                Some(EndpointAddress::Pipe(path))
            }
            address::Address::EnvoyInternalAddress(_) => {
                self.value(
                    &place.field("envoy_internal_address"),
                    "internal listener",
                    "give the address of a socket",
                );
                None
            }
        }
    }

    pub(super) fn data_source(
        &mut self,
        place: &Place<'_>,
        value: Option<&pb::DataSource>,
    ) -> Option<DataSource> {
        use data_source::Specifier;
        match value?.specifier.as_ref() {
            Some(Specifier::Filename(path)) => Some(DataSource::File(self.named(
                &place.field("filename"),
                path,
                "a path",
            ))),
            Some(Specifier::InlineBytes(bytes)) => Some(DataSource::Inline(bytes.clone().into())),
            Some(Specifier::InlineString(text)) => Some(DataSource::Inline(text.clone().into_bytes().into())),
            Some(Specifier::EnvironmentVariable(name)) => {
                self.value(
                    &place.field("environment_variable"),
                    name,
                    "write filename, inline_string or inline_bytes",
                );
                None
            }
            None => self.required(place, None, "filename, inline_string or inline_bytes"),
        }
    }

    /// A `core.v3.ConfigSource` of which only the name beside it matters: it must lead to the control plane.
    pub(super) fn config_source(&mut self, place: &Place<'_>, value: Option<&pb::ConfigSource>) {
        use pb::config_source::ConfigSourceSpecifier;
        let source = value.and_then(|it| it.config_source_specifier.as_ref());
        match source {
            Some(
                ConfigSourceSpecifier::Ads(_)
                | ConfigSourceSpecifier::Self_(_)
                | ConfigSourceSpecifier::ApiConfigSource(_),
            )
            | None => {}
            Some(ConfigSourceSpecifier::Path(path)) => {
                self.value(&place.field("path"), path, CONFIG_FROM_FILE);
            }
            Some(ConfigSourceSpecifier::PathConfigSource(path)) => {
                self.value(&place.field("path_config_source"), &path.path, CONFIG_FROM_FILE);
            }
        }
    }
}

const CONFIG_FROM_FILE: &str = "discovery from a file is not done: use ads, or write the resource in place";

enum Host {
    Ip(IpAddr),
    Name(Text),
}

pub(super) fn locality(value: Option<&pb::Locality>) -> Locality {
    value.map_or_else(Locality::default, |it| Locality {
        region: it.region.as_str().into(),
        zone: it.zone.as_str().into(),
        sub_zone: it.sub_zone.as_str().into(),
    })
}

/// The text in a `Struct`'s field, empty where there is none.
pub(super) fn text_in<'a>(fields: &'a wkt::Struct, key: &str) -> &'a str {
    match fields.fields.get(key).and_then(|it| it.kind.as_ref()) {
        Some(value::Kind::StringValue(text)) => text,
        _ => "",
    }
}

/// The filter metadata under a key.
pub(super) fn metadata<'a>(value: Option<&'a pb::Metadata>, key: &str) -> Option<&'a wkt::Struct> {
    value.and_then(|it| it.filter_metadata.get(key))
}

/// Whether an optional boolean is set to true.
pub(super) fn is_true(value: Option<&wkt::BoolValue>) -> bool {
    value.is_some_and(|it| it.value)
}

pub(super) fn number(value: Option<&wkt::UInt32Value>) -> Option<u32> {
    value.map(|it| it.value)
}
