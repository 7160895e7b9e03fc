//! What two sides are to say to each other, as data.

use bytes::Bytes;
use proptest::prelude::*;
use rajut_codec::Fields;

/// Names and values in order.
pub(crate) type Section = Vec<(String, String)>;

/// How an exchange ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Both messages are whole.
    Whole,
    /// The server resets the stream behind the head of its response, with this code.
    ServerResets(u32),
    /// The client resets the stream once it has the head of the response.
    ClientResets,
}

/// One message's fields, body in pieces, and trailers.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) fields: Section,
    pub(crate) pieces: Vec<usize>,
    pub(crate) trailers: Option<Section>,
    pub(crate) announced: bool,
}

impl Message {
    /// Its body: every piece has its own byte.
    pub(crate) fn body(&self) -> Vec<u8> {
        self.pieces().concat()
    }

    pub(crate) fn pieces(&self) -> Vec<Bytes> {
        let piece = |(index, size): (usize, &usize)| Bytes::from(vec![u8::try_from(index).unwrap(); *size]);
        self.pieces.iter().enumerate().map(piece).collect()
    }

    /// The fields with the length, if it is announced.
    pub(crate) fn section(&self) -> Section {
        let mut section = self.fields.clone();
        if self.announced {
            section.push(("content-length".into(), self.body().len().to_string()));
        }
        section
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pieces.is_empty() && self.trailers.is_none()
    }
}

/// A request and its answer.
#[derive(Clone, Debug)]
pub(crate) struct Exchange {
    pub(crate) method: &'static str,
    pub(crate) request: Message,
    pub(crate) status: u16,
    pub(crate) informational: bool,
    pub(crate) response: Message,
    pub(crate) end: End,
}

/// One exchange as one side has seen it: fields, body, trailers of what it received, or the code of a reset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Whole {
        start: String,
        fields: Section,
        body: Vec<u8>,
        trailers: Option<Section>,
    },
    Reset(u32),
    Nothing,
}

/// Sorted by name; fields of one name stay in order. A map of fields keeps no more.
pub(crate) fn sorted(mut section: Section) -> Section {
    section.sort_by(|one, other| one.0.cmp(&other.0));
    // RFC 9113 §8.2.3.
    let crumbs: Vec<String> = section
        .iter()
        .filter(|(name, _)| name == "cookie")
        .map(|(_, value)| value.clone())
        .collect();
    if let Some(at) = section.iter().position(|(name, _)| name == "cookie") {
        section.retain(|(name, _)| name != "cookie");
        section.insert(at, ("cookie".into(), crumbs.join("; ")));
    }
    section
}

pub(crate) fn section_of(fields: &Fields) -> Section {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    fields
        .iter()
        .map(|field| (text(field.name), text(field.value)))
        .collect()
}

pub(crate) fn fields_of(section: &Section) -> Fields {
    let mut fields = Fields::new();
    for (name, value) in section {
        fields.append(name.as_str(), value).unwrap();
    }
    fields
}

fn section(most: usize) -> impl Strategy<Value = Section> {
    let name = prop_oneof![
        4 => "x-[a-z0-9_.!-]{0,12}",
        1 => Just("x-request-id".to_owned()),
        1 => Just("authorization".to_owned()),
        1 => Just("content-type".to_owned()),
        1 => Just("user-agent".to_owned()),
    ];
    let value = prop_oneof![
        6 => "([!-~]([ -~]{0,20}[!-~])?)?",
        2 => Just("application/grpc".to_owned()),
        1 => "[a-z]{200,400}",
    ];
    prop::collection::vec((name, value), 0..most)
}

fn message() -> impl Strategy<Value = Message> {
    let size = prop_oneof![8 => 1_usize..200, 2 => 200_usize..20_000, 1 => 20_000_usize..200_000];
    // Credentials are never sent as trailers.
    let allowed = |mut section: Section| {
        section.retain(|(name, _)| name != "authorization");
        section
    };
    let trailers = prop_oneof![2 => Just(None), 1 => section(5).prop_map(allowed).prop_map(Some)];
    (
        section(15),
        prop::collection::vec(size, 0..5),
        trailers,
        any::<bool>(),
    )
        .prop_map(|(fields, pieces, trailers, announced)| Message {
            fields,
            pieces,
            trailers,
            announced,
        })
}

pub(crate) fn exchange() -> impl Strategy<Value = Exchange> {
    let end = prop_oneof![
        8 => Just(End::Whole),
        1 => (1_u32..14).prop_map(End::ServerResets),
        1 => Just(End::ClientResets),
    ];
    let method = prop_oneof![Just("GET"), Just("POST"), Just("PUT"), Just("REPORT")];
    let status = prop_oneof![Just(200_u16), Just(404), Just(503), Just(299)];
    (
        method,
        message(),
        status,
        any::<bool>(),
        message(),
        end,
        prop::option::of(0..4_usize),
    )
        .prop_map(
            |(method, mut request, status, informational, response, end, crumbs)| {
                for crumb in 0..crumbs.unwrap_or(0) {
                    request.fields.push(("cookie".into(), format!("c{crumb}=1")));
                }
                Exchange {
                    method,
                    request,
                    status,
                    informational,
                    response,
                    end,
                }
            },
        )
}
