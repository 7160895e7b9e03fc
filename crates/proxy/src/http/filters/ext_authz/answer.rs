//! What an answer that allows changes: the request before it goes on, and its response.

use rajut_codec::Fields;
use rajut_types::Text;

use super::is_guarded;
use crate::http::record::Record;

/// How a field joins those that are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// In the place of those of its name.
    Set,
    /// Beside those of its name.
    Append,
    /// If there is none of its name.
    IfAbsent,
    /// In the place of those of its name, if there is one.
    IfPresent,
}

/// Changes of a head, in order.
#[derive(Debug, Default)]
pub(crate) struct Edits(Vec<(String, Vec<u8>, Mode)>);

impl Edits {
    /// Fields that frame a message are left out.
    pub(super) fn push(&mut self, name: &str, value: impl Into<Vec<u8>>, mode: Mode) {
        if !is_guarded(name) {
            self.0.push((name.to_ascii_lowercase(), value.into(), mode));
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Makes them; a field that is none is named.
    pub(super) fn apply(&self, fields: &mut Fields) -> Result<(), Text> {
        for (name, value, mode) in &self.0 {
            let present = fields.contains(&**name);
            let done = match mode {
                Mode::Append => fields.append(&**name, value),
                Mode::Set => fields.set(&**name, value),
                Mode::IfAbsent if !present => fields.append(&**name, value),
                Mode::IfPresent if present => fields.set(&**name, value),
                Mode::IfAbsent | Mode::IfPresent => Ok(()),
            };
            done.map_err(|error| Text::from(format!("`{name}`: {error}")))?;
        }
        Ok(())
    }
}

/// An answer that allows.
#[derive(Debug, Default)]
pub(crate) struct Allowed {
    /// To the request.
    pub(super) request: Edits,
    /// From the request.
    pub(super) remove: Vec<String>,
    /// To the response.
    pub(super) response: Edits,
    /// Parameters of the query, which replace those of their names.
    pub(super) set_query: Vec<(String, String)>,
    /// Parameters that go.
    pub(super) remove_query: Vec<String>,
}

impl Allowed {
    /// Whether the request is another afterwards.
    pub(super) fn changes_request(&self) -> bool {
        !self.request.is_empty()
            || !self.remove.is_empty()
            || !self.set_query.is_empty()
            || !self.remove_query.is_empty()
    }

    /// Changes the request, and leaves what is for the response with its record.
    pub(super) fn apply(self, record: &mut Record) -> Result<(), Text> {
        let fields = &mut record.head.fields;
        for name in self.remove.iter().filter(|name| !is_guarded(name)) {
            fields.remove(&**name);
        }
        self.request.apply(fields)?;
        if !self.set_query.is_empty() || !self.remove_query.is_empty() {
            let changed = query(&record.head.path_and_query, &self.set_query, &self.remove_query);
            record.head.path_and_query = changed.into();
        }
        if !self.response.is_empty() {
            // Tried here, where a bad one can still be told.
            self.response.apply(&mut Fields::new())?;
            record.filters.authorized = Some(Box::new(self.response));
        }
        Ok(())
    }
}

/// Adds what the provider wants the client to know.
pub(in crate::http::filters) fn tell(record: &mut Record) {
    let Some(edits) = record.filters.authorized.take() else {
        return;
    };
    // They have been tried: only a head at its bound refuses them.
    let _ = edits.apply(&mut record.response.fields);
}

/// The path with other parameters.
fn query(target: &[u8], set: &[(String, String)], remove: &[String]) -> Vec<u8> {
    let mut parts = target.splitn(2, |byte| *byte == b'?');
    let path = parts.next().unwrap_or_default();
    let goes = |pair: &[u8]| {
        let name = pair.split(|byte| *byte == b'=').next().unwrap_or_default();
        let is = |other: &str| encoded(other) == name || other.as_bytes() == name;
        remove.iter().any(|other| is(other)) || set.iter().any(|(other, _)| is(other))
    };
    let kept = parts.next().unwrap_or_default().split(|byte| *byte == b'&');
    let mut pairs: Vec<Vec<u8>> = kept
        .filter(|pair| !pair.is_empty() && !goes(pair))
        .map(<[u8]>::to_vec)
        .collect();
    pairs.extend(
        set.iter()
            .map(|(name, value)| [&encoded(name)[..], b"=", &encoded(value)].concat()),
    );
    let query = pairs.join(&b'&');
    if query.is_empty() {
        return path.to_vec();
    }
    [path, b"?", &query].concat()
}

/// RFC 3986 §2.3: unreserved characters stay.
fn encoded(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(byte);
        } else {
            out.extend_from_slice(format!("%{byte:02X}").as_bytes());
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_replaced_and_taken_out_and_nothing_else_of_the_path_changes() {
        let set = [("b".to_owned(), "x &y".to_owned())];
        let remove = ["a".to_owned()];
        let changed = |target: &str| String::from_utf8(query(target.as_bytes(), &set, &remove)).unwrap();
        assert_eq!(changed("/p?a=1&b=2&c=3&a"), "/p?c=3&b=x%20%26y");
        assert_eq!(changed("/p"), "/p?b=x%20%26y");
        assert_eq!(query(b"/p?a=1", &[], &remove), b"/p");
    }

    #[test]
    fn what_frames_a_message_is_left_out_and_what_is_no_field_is_named() {
        let mut edits = Edits::default();
        for name in ["Content-Length", ":path", "host", "Transfer-Encoding"] {
            edits.push(name, "1", Mode::Set);
        }
        assert!(edits.is_empty());
        edits.push("x-user", "a", Mode::Set);
        edits.push("x-user", "b", Mode::Append);
        edits.push("x-user", "c", Mode::IfAbsent);
        edits.push("x-other", "d", Mode::IfPresent);
        let mut fields = Fields::new();
        edits.apply(&mut fields).unwrap();
        let values: Vec<_> = fields.get_all("x-user").collect();
        assert_eq!(values, [b"a", b"b"]);
        assert!(!fields.contains("x-other"));
        edits.push("x-bad", "a\r\nb: c", Mode::Set);
        assert!(edits.apply(&mut fields).unwrap_err().contains("x-bad"));
    }
}
