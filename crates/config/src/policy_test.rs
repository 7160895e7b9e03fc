//! Tables of requests and the verdicts that are expected of them: what `rajut policy test` reads.
//!
//! ```yaml
//! tests:
//! - name: nurses read records
//!   source: {workload: nurse.clinic}
//!   destination: {workload: records.clinic, port: 8080}
//!   request: {method: GET, path: /records/7}
//!   expect: allow
//!   by: clinic/readers
//! ```
//!
//! Read with the readers of resources, so that a mistake has its place and what was meant. A table is no resource: a folder of
//! manifests may hold it, and `rajut up` passes it by. Who is meant by a name is found later, by whoever knows the workloads.
//!
//! Bounds: [`ROWS_MAX`] tests of all sources together. Pure.

use std::net::IpAddr;

use rajut_types::{Diagnostic, Labels, ObjectRef, Origin, Severity, Text};

use crate::{
    Source, codes,
    parse::{Found, Group, read_source},
    read::{Field, Object, Scope, shown},
};

/// Most tests of one invocation.
pub const ROWS_MAX: usize = 100_000;

/// A call and what is expected of it.
#[derive(Debug, Clone, PartialEq)]
pub struct PolicyTest {
    /// What people call it; made of its number where nothing is written.
    pub name: Text,
    /// Who calls.
    pub source: TestSource,
    /// What is called.
    pub destination: TestDestination,
    /// What is asked for.
    pub request: TestRequest,
    /// It passes.
    pub expect: bool,
    /// The policy that decides, as `NAME` or `NAMESPACE/NAME`.
    pub by: Option<Text>,
    /// Where it is written.
    pub origin: Origin,
}

/// Who calls. Without an identity it calls in plain text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TestSource {
    /// Its identity.
    pub identity: TestIdentity,
    /// The address of the connection's other end.
    pub ip: Option<IpAddr>,
    /// The client's address, where trusted proxies tell another.
    pub remote_ip: Option<IpAddr>,
}

/// How an identity is written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum TestIdentity {
    /// None: plain text.
    #[default]
    None,
    /// Whole, with or without `spiffe://`.
    Principal(Text),
    /// A service account of the mesh's own trust domain.
    ServiceAccount {
        /// `None`: the default namespace.
        namespace: Option<Text>,
        /// Its name.
        name: Text,
    },
    /// That of a workload, as `NAME` or `NAME.NAMESPACE`.
    Workload(Text),
}

/// What is called.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TestDestination {
    /// A workload that the files have, as `NAME` or `NAME.NAMESPACE`.
    pub workload: Option<Text>,
    /// Without `workload`: the namespace of one that need not exist; `None`: the default namespace.
    pub namespace: Option<Text>,
    /// Its labels.
    pub labels: Labels,
    /// The container's port; `None`: the only one that there is.
    pub port: Option<u16>,
    /// The address that is dialled.
    pub ip: Option<IpAddr>,
}

/// What is asked for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TestRequest {
    /// It is no HTTP request but a connection.
    pub tcp: bool,
    /// Default `GET`.
    pub method: Option<Text>,
    /// With the query; default `/`.
    pub path: Option<Text>,
    /// Default: the workload's service.
    pub host: Option<Text>,
    /// Lower-case name and value; a name may stand several times.
    pub headers: Vec<(Text, Text)>,
    /// Server name of the client hello.
    pub sni: Text,
    /// The token that it carries.
    pub token: Option<TestToken>,
}

/// A token.
#[derive(Debug, Clone, PartialEq)]
pub enum TestToken {
    /// Expired, forged or otherwise bad.
    Invalid,
    /// What it says, `iss`, `sub` and `aud` among it.
    Claims(serde_json::Value),
}

/// The tests of all sources, and what is wrong with them.
pub fn read(sources: &[Source]) -> (Vec<PolicyTest>, Vec<Diagnostic>) {
    let mut tests = Vec::new();
    let mut findings = Vec::new();
    for source in sources {
        let before = (tests.len(), findings.len());
        let reading = read_source(source);
        findings.extend(reading.diagnostics);
        for found in &reading.found {
            read_document(found, &mut tests, &mut findings);
        }
        if before == (tests.len(), findings.len()) {
            let message = "there are no tests in it";
            findings.push(finding(source, message, "write `tests:` with a list of tests"));
        }
        if tests.len() > ROWS_MAX {
            let message = format!("there are more than {ROWS_MAX} tests");
            findings.push(finding(source, &message, "test them in several steps"));
            break;
        }
    }
    (tests, findings)
}

fn finding(source: &Source, message: &str, hint: &str) -> Diagnostic {
    let object = ObjectRef::new("Source", "", source.name.clone());
    let origin = Origin::new(source.name.clone(), object);
    Diagnostic::new(codes::MISSING_FIELD, Severity::Error, origin, message).hint(hint)
}

fn read_document(found: &Found, tests: &mut Vec<PolicyTest>, findings: &mut Vec<Diagnostic>) {
    let scope = Scope::new(&found.file, ObjectRef::new("PolicyTest", "", ""), false);
    let root = scope.root(&found.root);
    if matches!(found.group, Group::Api(_) | Group::Half { .. } | Group::Compose) {
        root.error(
            codes::WRONG_TYPE,
            "this is no table of tests but an object",
            "policies are given with `-f`; a table begins with `tests:`",
        );
    } else if let Some(object) = root.object() {
        let list = object.required("tests", "write `tests:` with a list of tests");
        let rows = list.map(|field| field.list()).unwrap_or_default();
        for (at, row) in rows.into_iter().enumerate() {
            if tests.len() > ROWS_MAX {
                break;
            }
            tests.extend(row.object().and_then(|object| test(&object, at)));
        }
    }
    findings.extend(scope.finish());
}

fn test(row: &Object<'_>, at: usize) -> Option<PolicyTest> {
    let name = row.get("name").and_then(|field| field.non_empty_text());
    let source = row.object("source").map(|object| source(&object));
    let destination = row
        .required(
            "destination",
            "for example `destination: {workload: records, port: 8080}`",
        )
        .and_then(Field::object)
        .map(|object| destination(&object));
    let request = row.object("request").map(|object| request(&object));
    let by = row.get("by").and_then(|field| field.non_empty_text());
    let expect = row
        .required("expect", "write `expect: allow` or `expect: deny`")
        .and_then(|field| field.choice(&[("allow", true), ("deny", false)]));
    Some(PolicyTest {
        name: name.unwrap_or_else(|| format!("test {}", at + 1).into()),
        source: source.unwrap_or_default(),
        destination: destination?,
        request: request.unwrap_or_default(),
        expect: expect?,
        by,
        origin: row.field().origin(),
    })
}

fn source(object: &Object<'_>) -> TestSource {
    let named = |name| object.get(name).and_then(|field| field.non_empty_text());
    object.one_of(&["principal", "serviceAccount", "workload"]);
    let namespace = named("namespace");
    let identity = match (named("principal"), named("serviceAccount"), named("workload")) {
        (Some(principal), ..) => {
            if principal.parse::<rajut_types::Principal>().is_err()
                && let Some(field) = object.get("principal")
            {
                field.error(
                    codes::WRONG_TYPE,
                    format!("`{}` is no identity of a mesh", shown(&principal)),
                    "write TRUST-DOMAIN/ns/NAMESPACE/sa/SERVICE-ACCOUNT, or `serviceAccount:`",
                );
            }
            TestIdentity::Principal(principal)
        }
        (None, Some(name), _) => TestIdentity::ServiceAccount {
            namespace: namespace.clone(),
            name,
        },
        (None, None, Some(name)) => TestIdentity::Workload(name),
        (None, None, None) => TestIdentity::None,
    };
    if let Some(field) = object.get("namespace").filter(|_| namespace.is_some())
        && !matches!(identity, TestIdentity::ServiceAccount { .. })
    {
        field.say_key(
            Severity::Error,
            codes::MISSING_FIELD,
            "a namespace alone calls nobody: `serviceAccount` is missing",
            "write `serviceAccount: default` beside it, or `workload: NAME.NAMESPACE`",
        );
    }
    TestSource {
        identity,
        ip: object.get("ip").and_then(|field| field.ip()),
        remote_ip: object.get("remoteIp").and_then(|field| field.ip()),
    }
}

fn destination(object: &Object<'_>) -> TestDestination {
    let named = |name| object.get(name).and_then(|field| field.non_empty_text());
    object.one_of(&["workload", "labels"]);
    object.one_of(&["workload", "namespace"]);
    let workload = named("workload");
    if workload.is_none() && !object.has("labels") && !object.has("namespace") {
        object.field().say_key(
            Severity::Error,
            codes::MISSING_FIELD,
            "nobody is called: `workload` is missing",
            "write `workload: NAME.NAMESPACE`, or `namespace` and `labels` of one that the files do not have",
        );
    }
    TestDestination {
        workload,
        namespace: named("namespace"),
        labels: object.labels("labels"),
        port: object.get("port").and_then(|field| field.port()),
        ip: object.get("ip").and_then(|field| field.ip()),
    }
}

fn request(object: &Object<'_>) -> TestRequest {
    let named = |name| object.get(name).and_then(|field| field.non_empty_text());
    let tcp = object
        .get("protocol")
        .and_then(|field| field.choice(&[("http", false), ("tcp", true)]));
    let tcp = tcp.unwrap_or(false);
    if tcp {
        for name in ["method", "path", "host", "headers", "jwt"] {
            if let Some(field) = object.get(name) {
                field.say_key(
                    Severity::Error,
                    codes::EXCLUSIVE,
                    format!("a connection has no `{name}`"),
                    "take it out, or write `protocol: http`",
                );
            }
        }
    }
    let (mut path, mut host) = (named("path"), named("host"));
    // RFC 9112 section 3.2.2: the host of a target in absolute form counts, whatever the request's field says.
    if let Some((target, own)) = path.as_deref().and_then(absolute) {
        (path, host) = (Some(target), own.or(host));
    }
    if let Some(text) = &path
        && !text.starts_with('/')
        && let Some(field) = object.get("path")
    {
        field.error(
            codes::WRONG_TYPE,
            format!("`{}` is no path of a request", shown(text)),
            "it begins with `/`",
        );
    }
    TestRequest {
        tcp,
        method: named("method"),
        path,
        host,
        headers: object
            .get("headers")
            .map(|field| headers(&field))
            .unwrap_or_default(),
        sni: object.text("sni").unwrap_or_default(),
        token: object.object("jwt").map(|object| token(&object)),
    }
}

/// The path and the host of a target in absolute form.
fn absolute(target: &str) -> Option<(Text, Option<Text>)> {
    let rest = ["http://", "https://"]
        .iter()
        .find_map(|scheme| target.strip_prefix(scheme))?;
    let (host, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let slash = if path.starts_with('/') { "" } else { "/" };
    let host = Some(host).filter(|host| !host.is_empty());
    Some((format!("{slash}{path}").into(), host.map(Text::from)))
}

fn headers(field: &Field<'_>) -> Vec<(Text, Text)> {
    let mut headers = Vec::new();
    for (name, value) in field.map() {
        let own_field = match &*name.to_ascii_lowercase() {
            ":method" => Some("method"),
            ":path" => Some("path"),
            ":authority" | "host" => Some("host"),
            _ => None,
        };
        if let Some(own_field) = own_field {
            value.say_key(
                Severity::Error,
                codes::EXCLUSIVE,
                format!("`{}` has a field of its own", shown(&name)),
                format!("write `{own_field}:` beside `headers:`"),
            );
            continue;
        }
        let lower: Text = name.to_ascii_lowercase().into();
        let is_list = matches!(value.node.value, crate::parse::Value::Sequence(_));
        let values = if is_list { value.list() } else { vec![value] };
        headers.extend(
            values
                .iter()
                .filter_map(Field::loose_text)
                .map(|text| (lower.clone(), text)),
        );
    }
    headers
}

fn token(object: &Object<'_>) -> TestToken {
    let named = |name| object.get(name).and_then(|field| field.non_empty_text());
    let valid = object.bool("valid").unwrap_or(true);
    let mut claims = match object.get("claims") {
        Some(field) if matches!(field.node.value, crate::parse::Value::Mapping(_)) => field.json(),
        Some(field) => {
            field.map();
            serde_json::json!({})
        }
        None => serde_json::json!({}),
    };
    for (name, claim) in [("issuer", "iss"), ("subject", "sub")] {
        if let Some(text) = named(name) {
            claims[claim] = serde_json::Value::from(&*text);
        }
    }
    if let Some(field) = object.get("audience") {
        let is_list = matches!(field.node.value, crate::parse::Value::Sequence(_));
        let all = if is_list {
            field.texts()
        } else {
            field.text().into_iter().collect()
        };
        claims["aud"] = all.iter().map(|text| serde_json::Value::from(&**text)).collect();
    }
    if valid && claims.get("iss").is_none() {
        object.field().say_key(
            Severity::Error,
            codes::MISSING_FIELD,
            "`issuer` is missing",
            "whether a token counts depends on who issued it; `valid: false` stands for one that is no good",
        );
    }
    if valid {
        TestToken::Claims(claims)
    } else {
        TestToken::Invalid
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> (Vec<PolicyTest>, Vec<String>) {
        let (tests, findings) = read(&[Source::new("t.yaml", text)]);
        let findings = findings
            .iter()
            .map(|it| format!("{}: {} ({})", it.span.line, it.message, it.hint))
            .collect();
        (tests, findings)
    }

    #[test]
    fn a_row_has_everything_that_policies_ask_for() {
        let (tests, findings) = found(
            "tests:\n- name: one\n  source: {serviceAccount: nurse, namespace: lab, ip: 10.0.0.1, remoteIp: 192.0.2.9}\n  \
             destination: {workload: web.lab, port: 8080}\n  request:\n    method: POST\n    path: /x?y\n    host: web\n    \
             headers: {X-A: 1, x-b: [c, d]}\n    jwt: {issuer: me, subject: ann, audience: web, claims: {role: [a]}}\n  \
             expect: deny\n  by: lab/readers\n---\n{\"tests\": [{\"destination\": {\"namespace\": \"lab\", \"labels\": \
             {\"app\": \"db\"}, \"port\": 1}, \"request\": {\"protocol\": \"tcp\"}, \"expect\": \"allow\"}]}\n",
        );
        assert!(findings.is_empty(), "{findings:?}");
        let [one, two] = &tests[..] else {
            panic!("two tests: {tests:?}");
        };
        assert_eq!((&*one.name, one.origin.line, one.expect), ("one", 2, false));
        assert_eq!(
            one.request.headers,
            [("x-a", "1"), ("x-b", "c"), ("x-b", "d")].map(|(name, value)| (name.into(), value.into()))
        );
        let claims = serde_json::json!({"iss": "me", "sub": "ann", "aud": ["web"], "role": ["a"]});
        assert_eq!(one.request.token, Some(TestToken::Claims(claims)));
        assert_eq!(one.by.as_deref(), Some("lab/readers"));
        assert_eq!((&*two.name, two.request.tcp, two.expect), ("test 1", true, true));
    }

    #[test]
    fn what_is_wrong_has_its_place_and_what_was_meant() {
        let row = |text: &str| found(&format!("tests:\n- {{{text}}}\n")).1;
        let whole = "destination: {workload: web}, expect: allow";
        for (text, wanted) in [
            (
                "destination: {workload: web}, expct: allow".to_owned(),
                "did you mean `expect`?",
            ),
            (
                format!("{whole}, request: {{methd: GET}}"),
                "did you mean `method`?",
            ),
            (whole.replace("allow", "alow"), "did you mean `allow`?"),
            (
                format!("{whole}, source: {{namespace: lab}}"),
                "`serviceAccount` is missing",
            ),
            (
                format!("{whole}, request: {{protocol: tcp, path: /}}"),
                "has no `path`",
            ),
            (format!("{whole}, request: {{headers: {{host: a}}}}"), "`host:`"),
            (
                format!("{whole}, request: {{jwt: {{subject: a}}}}"),
                "`issuer` is missing",
            ),
            (format!("{whole}, source: {{principal: nurse}}"), "no identity"),
            (
                "destination: {port: 1}, expect: deny".to_owned(),
                "nobody is called",
            ),
        ] {
            let findings = row(&text);
            assert!(
                findings
                    .iter()
                    .any(|it| it.starts_with("2: ") && it.contains(wanted)),
                "{text}: {findings:?}"
            );
        }
        for (text, wanted) in [
            ("", "no tests"),
            ("tests: []\n", "no tests"),
            ("# nothing\n", "no tests"),
            ("test: []\n", "did you mean `tests`?"),
            ("apiVersion: v1\nkind: Service\nmetadata: {name: a}\n", "`-f`"),
            ("tests: [\n", ""),
        ] {
            let (tests, findings) = found(text);
            assert!(tests.is_empty());
            assert!(
                findings.iter().any(|it| it.contains(wanted)),
                "{text}: {findings:?}"
            );
        }
    }
}
