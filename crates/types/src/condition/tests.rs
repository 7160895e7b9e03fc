use super::*;

struct Failed;

impl Facts for Failed {
    fn text(&self, attribute: &Attribute, out: &mut Vec<u8>) -> bool {
        let value = match attribute {
            Attribute::RequestPath => "/records/7?token=x",
            Attribute::RequestMethod => "GET",
            Attribute::RequestHeader(name) if &**name == "x-team" => "a",
            _ => return false,
        };
        out.extend_from_slice(value.as_bytes());
        true
    }

    fn number(&self, attribute: &Attribute) -> Option<i64> {
        match attribute {
            Attribute::ResponseCode => Some(503),
            Attribute::ResponseFlags => Some(0),
            _ => None,
        }
    }

    fn truth(&self, attribute: &Attribute) -> Option<bool> {
        (*attribute == Attribute::ConnectionMtls).then_some(true)
    }

    fn duration(&self, attribute: &Attribute) -> Option<Duration> {
        (*attribute == Attribute::RequestDuration).then(|| Duration::from_millis(600))
    }
}

fn holds(text: &str) -> bool {
    Condition::parse(text)
        .unwrap_or_else(|error| panic!("{text}: {error}"))
        .holds(&Failed)
}

#[test]
fn conditions_hold_or_not() {
    for text in [
        "response.code >= 400",
        "400 <= response.code",
        "response.code in [500, 503]",
        "connection.mtls",
        "connection.mtls == true && true",
        "!(response.code < 400) && request.method == 'GET'",
        "request.path.startsWith(\"/records\") && request.path.contains('token=')",
        "request.headers['X-Team'] == 'a'",
        "'x-team' in request.headers && !('x-other' in request.headers)",
        "request.duration > duration('500ms')",
        "!has(response.grpc_status) && has(response.code)",
        // The side that is known decides.
        "response.grpc_status == 1 || response.code == 503",
        "response.flags == 0",
    ] {
        assert!(holds(text), "{text}");
    }
    for text in [
        "response.code < 400",
        "response.code != 503",
        "response.code in []",
        "!connection.mtls",
        "false",
        "request.path.endsWith('/7')",
        "request.duration > duration('1s')",
        // Undecided, also when it is turned round.
        "response.grpc_status == 0",
        "!(response.grpc_status == 0)",
        "request.headers['x-other'] != 'a'",
    ] {
        assert!(!holds(text), "{text}");
    }
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    for (text, part) in [
        ("", "missing at the end"),
        ("response.code", "compared with nothing"),
        (
            "response.code >= '400'",
            "`response.code` is a number, not a text",
        ),
        ("request.duration > 500", "duration('500ms')"),
        ("response.code + 1 > 400", "`+`"),
        ("response.code > 400 ? true : false", "ternaries"),
        ("request.path.matches('a.*')", "`matches`"),
        ("size(request.path) > 3", "`size`"),
        ("request.time > 3", "`request.time`"),
        ("metadata.x == 'a'", "`metadata.x`"),
        ("response.code == request.code", "`request` is no text"),
        ("(response.code == 1", "`)` is missing"),
        ("response.code == 1)", "one too many"),
        ("request.path == 'a", "closing quote"),
        ("request.path == 'a\\n'", "escapes"),
        ("response.code == 99999999999999999999", "too large"),
        ("response.code > 1.5", "fractions"),
        ("request.headers == 'a'", "`[` is missing"),
        ("'a' in request.path", "`in` takes"),
        ("'a' == 'b'", "one side"),
    ] {
        let error = Condition::parse(text).expect_err(text);
        assert!(error.0.contains(part), "{text}: {error}");
    }
    let deep = format!("{}true{}", "(".repeat(60), ")".repeat(60));
    assert!(Condition::parse(&deep).expect_err("deep").0.contains("nested"));
    assert!(Condition::parse(&"!".repeat(TEXT_MAX + 1)).is_err());
}

#[test]
fn any_text_is_read_or_refused() {
    // Every text over these parts up to four long.
    let parts = [
        "response.code",
        "==",
        "!",
        "(",
        ")",
        "4",
        "'a'",
        "in",
        "[",
        "]",
        "&&",
        ".",
        "é",
        "",
    ];
    for a in parts {
        for b in parts {
            for c in parts {
                for d in parts {
                    drop(Condition::parse(&format!("{a} {b}{c} {d}")));
                }
            }
        }
    }
}
