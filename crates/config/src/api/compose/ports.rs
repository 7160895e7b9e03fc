//! `ports`, `expose`, and addresses in texts.

use rajut_types::Text;

use crate::{
    api::protocol,
    codes,
    model::Protocol,
    parse::Value,
    read::{Field, Object, shown},
};

/// A range of ports may have that many; more is rather a mistake.
const MAX_RANGE: u16 = 100;

/// Ports of a service.
#[derive(Debug, Default)]
pub(super) struct Ports {
    pub(super) container: Vec<KnownPort>,
    /// Container port → port of this machine.
    pub(super) host: Vec<(u16, u16)>,
}

#[derive(Debug)]
pub(super) struct KnownPort {
    pub(super) number: u16,
    pub(super) name: Option<Text>,
    pub(super) protocol: Protocol,
}

pub(super) fn read(object: &Object<'_>) -> Ports {
    let mut ports = Ports::default();
    for field in object.list("ports") {
        match &field.node.value {
            Value::Mapping(_) => long(&field, &mut ports),
            _ => short(&field, &mut ports),
        }
    }
    for field in object.list("expose") {
        let Some(text) = field.loose_text() else { continue };
        let (text, transport) = text.split_once('/').unwrap_or((&text, "tcp"));
        match range(text) {
            Some((first, last)) => {
                for number in first..=last {
                    ports.add(number, None, transport, None);
                }
            }
            None => bad(&field, text),
        }
    }
    ports
}

impl Ports {
    fn add(&mut self, number: u16, name: Option<Text>, transport: &str, app: Option<&str>) {
        let label = name.as_deref().unwrap_or_default();
        self.container.push(KnownPort {
            number,
            protocol: protocol::of_port(transport, app, label, number),
            name: name.filter(|n| !n.is_empty()),
        });
    }
}

/// `[[IP:]HOST:]CONTAINER[/PROTOCOL]`, with ranges.
fn short(field: &Field<'_>, ports: &mut Ports) {
    let Some(text) = field.loose_text() else { return };
    let (text, complete) = interpolate(&text);
    if !complete {
        field.note(
            codes::COMPOSE,
            format!(
                "the port `{}` depends on a variable without a default",
                shown(&text)
            ),
            "write `${NAME:-8080}`",
        );
        return;
    }
    let (rest, transport) = text.split_once('/').unwrap_or((&text, "tcp"));
    let (host, container) = match rest.rsplit_once(':') {
        Some((host, container)) => (host.rsplit(':').next().filter(|h| !h.is_empty()), container),
        None => (None, rest),
    };
    let Some((first, last)) = range(container) else {
        return bad(field, &text);
    };
    let host = match host.map(range) {
        Some(None) => return bad(field, &text),
        Some(Some(host)) => Some(host),
        None => None,
    };
    if let Some((low, high)) = host
        && high - low != last - first
    {
        field.error(
            codes::OUT_OF_RANGE,
            "the two ranges of ports have different lengths",
            "",
        );
        return;
    }
    for (offset, number) in (first..=last).enumerate() {
        ports.add(number, None, transport, None);
        if let (Some((low, _)), Ok(offset)) = (host, u16::try_from(offset)) {
            ports.host.push((number, low.saturating_add(offset)));
        }
    }
}

fn long(field: &Field<'_>, ports: &mut Ports) {
    let Some(object) = field.clone().object() else {
        return;
    };
    object.ignore(&["mode", "host_ip"]);
    let name = object.text("name");
    let app = object.text("app_protocol");
    let transport = object.text("protocol").unwrap_or_else(|| "tcp".into());
    let target = object
        .required("target", "the port that the service listens on")
        .and_then(|f| f.port());
    let published = object
        .get("published")
        .and_then(|f| f.loose_text().map(|text| (f, text)));
    let Some(target) = target else { return };
    ports.add(target, name, &transport, app.as_deref());
    if let Some((field, text)) = published {
        let (text, complete) = interpolate(&text);
        match range(&text) {
            Some((first, _)) => ports.host.push((target, first)),
            None if complete => bad(&field, &text),
            None => {}
        }
    }
}

fn bad(field: &Field<'_>, text: &str) {
    field.error(
        codes::WRONG_TYPE,
        format!("`{}` is not a port", shown(text)),
        "write `\"8080\"`, `\"18080:8080\"` or `\"127.0.0.1:18080:8080/tcp\"`, in quotes",
    );
}

/// `8080` or `8080-8090`.
fn range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.parse::<u16>().ok()?, last.parse::<u16>().ok()?);
    (first > 0 && first <= last && last - first < MAX_RANGE).then_some((first, last))
}

/// Compose's `${NAME:-default}`, `${NAME-default}` and `$$`, as if no variable were set. The flag tells whether every
/// variable had a default.
pub(super) fn interpolate(text: &str) -> (Text, bool) {
    let mut out = String::with_capacity(text.len());
    let mut complete = true;
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        rest = after;
        if let Some(tail) = after.strip_prefix('$') {
            out.push('$');
            rest = tail;
        } else if let Some((inner, tail)) = after.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
            match inner.split_once(":-").or_else(|| inner.split_once('-')) {
                Some((_, default)) => out.push_str(default),
                None => complete = false,
            }
            rest = tail;
        } else if after.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
            complete = false;
            rest = after.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '_');
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    (out.into(), complete)
}

/// Ports of `name` in addresses such as `http://name:3000/`, `user@name:5432` and plain `name:6379`.
pub(super) fn mentioned<'t>(text: &'t str, name: &'t str) -> impl Iterator<Item = u16> + 't {
    text.match_indices(name).filter_map(move |(at, _)| {
        let before = text.get(..at)?.chars().next_back();
        let begins = before.is_none_or(|c| matches!(c, '/' | '@' | ',' | ' ' | '=' | ';'));
        let after = text.get(at + name.len()..)?.strip_prefix(':')?;
        let digits = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
        let number: u16 = after.get(..digits)?.parse().ok()?;
        (begins && number > 0).then_some(number)
    })
}

/// Ports that widely used images listen on (their `EXPOSE`), by the image's name without registry and tag.
const IMAGES: &[(&str, &[u16])] = &[
    ("postgres", &[5432]),
    ("postgis", &[5432]),
    ("mysql", &[3306]),
    ("mariadb", &[3306]),
    ("mongo", &[27017]),
    ("redis", &[6379]),
    ("valkey", &[6379]),
    ("memcached", &[11211]),
    ("rabbitmq", &[5672]),
    ("nats", &[4222]),
    ("nginx", &[80]),
    ("httpd", &[80]),
    ("elasticsearch", &[9200]),
    ("minio", &[9000]),
    ("mailhog", &[1025, 8025]),
    ("keycloak", &[8080]),
];

/// The ports of a widely used image.
pub(super) fn of_image(image: &str) -> &'static [u16] {
    let name = image.rsplit('/').next().unwrap_or_default();
    let name = name.split([':', '@']).next().unwrap_or_default();
    IMAGES
        .iter()
        .find(|(known, _)| *known == name)
        .map_or(&[], |(_, ports)| ports)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_take_their_defaults() {
        assert_eq!(interpolate("a${X:-1}b$$c"), ("a1b$c".into(), true));
        assert_eq!(interpolate("a${X}b"), ("ab".into(), false));
        assert_eq!(interpolate("$X/y"), ("/y".into(), false));
        assert_eq!(interpolate("5$"), ("5$".into(), true));
    }

    #[test]
    fn images_are_known_by_their_name() {
        assert_eq!(of_image("docker.io/library/postgres:16-alpine"), [5432]);
        assert_eq!(of_image("redis"), [6379]);
        assert_eq!(of_image("my-redis-client:1"), [0u16; 0]);
        assert_eq!(of_image(""), [0u16; 0]);
    }

    #[test]
    fn addresses_tell_ports() {
        let ports = |text| mentioned(text, "api").collect::<Vec<_>>();
        assert_eq!(ports("http://api:3000/x,http://api:3001"), [3000, 3001]);
        assert_eq!(ports("postgres://u:p@api:5432/db"), [5432]);
        assert_eq!(ports("api:6379"), [6379]);
        assert_eq!(ports("http://my-api:3000"), [0u16; 0]);
        assert_eq!(ports("http://api/x"), [0u16; 0]);
        assert_eq!(ports("api:99999"), [0u16; 0]);
    }
}
