//! An answer as a client sees it, whole, and what differs between two.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::probes::Probe;

/// All of a probe ends within this time.
const WAIT: Duration = Duration::from_secs(4);
/// What one probe may be answered with, in bytes.
const ANSWER_MAX: usize = 4 << 20;
/// Fields whose value is made anew each time.
const MADE_ANEW: &[&str] = &[
    "date",
    "x-envoy-upstream-service-time",
    "x-request-id",
    "x-ratelimit-reset",
];

/// What came back for one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    Whole {
        /// Statuses of the interim answers before it.
        interim: Vec<u16>,
        line: String,
        /// Lower-case names, sorted; values that are made anew are `*`.
        fields: Vec<(String, String)>,
        body: String,
        /// The connection ended before the body did.
        cut: bool,
    },
    /// The connection was closed without an answer.
    Closed,
    /// Neither, in time.
    Silent,
    /// Whether one more request on the connection is answered.
    Stays(bool),
}

/// A connection with what was read from it.
struct Talk {
    socket: TcpStream,
    have: Vec<u8>,
    until: Instant,
    ended: bool,
}

/// Sends a probe and reads what comes back.
pub(super) fn ask(port: u16, probe: &Probe) -> Vec<Answer> {
    let Ok(socket) = TcpStream::connect(("127.0.0.1", port)) else {
        return vec![Answer::Closed];
    };
    let _ = socket.set_nodelay(true);
    let _ = socket.set_read_timeout(Some(Duration::from_millis(200)));
    let _ = socket.set_write_timeout(Some(WAIT));
    let mut talk = Talk {
        socket,
        have: Vec::new(),
        until: Instant::now() + WAIT,
        ended: false,
    };
    let mut answers = Vec::new();
    let mut interim = Vec::new();
    for (number, part) in probe.parts.iter().enumerate() {
        if number > 0 {
            talk.interim(&mut interim);
        }
        // A proxy that answered early may have closed its end.
        let _ = talk.socket.write_all(part);
    }
    for with_body in &probe.answers {
        answers.push(talk.answer(std::mem::take(&mut interim), *with_body));
    }
    if matches!(answers.last(), Some(Answer::Whole { cut: false, line, .. }) if !line.contains(" 101 ")) {
        answers.push(Answer::Stays(talk.stays()));
    }
    answers
}

impl Talk {
    /// More bytes; false at the end or after the time.
    fn more(&mut self) -> bool {
        let mut buffer = [0; 16 * 1024];
        while !self.ended && Instant::now() < self.until && self.have.len() < ANSWER_MAX {
            match self.socket.read(&mut buffer) {
                Ok(0) => self.ended = true,
                Ok(n) => {
                    self.have.extend_from_slice(&buffer[..n]);
                    return true;
                }
                Err(error)
                    if matches!(
                        error.kind(),
                        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                    ) => {}
                Err(_) => self.ended = true,
            }
        }
        false
    }

    /// Bytes up to and without `end`, which is taken too.
    fn until(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        loop {
            if let Some(at) = self.have.windows(end.len()).position(|w| w == end) {
                let found = self.have[..at].to_vec();
                self.have.drain(..at + end.len());
                return Some(found);
            }
            if !self.more() {
                return None;
            }
        }
    }

    fn bytes(&mut self, count: usize, into: &mut Vec<u8>) -> bool {
        while self.have.len() < count {
            if !self.more() {
                into.append(&mut self.have);
                return false;
            }
        }
        into.extend(self.have.drain(..count));
        true
    }

    /// Waits for an interim answer and takes it; anything else stays.
    fn interim(&mut self, interim: &mut Vec<u16>) {
        while self.have.len() < 12 {
            if !self.more() {
                return;
            }
        }
        if self.have.starts_with(b"HTTP/1.1 1")
            && let Some(head) = self.until(b"\r\n\r\n")
        {
            interim.push(status(&String::from_utf8_lossy(&head)));
        }
    }

    fn answer(&mut self, mut interim: Vec<u16>, with_body: bool) -> Answer {
        let head = loop {
            let Some(head) = self.until(b"\r\n\r\n") else {
                return if self.ended {
                    Answer::Closed
                } else {
                    Answer::Silent
                };
            };
            let head = String::from_utf8_lossy(&head).into_owned();
            match status(&head) {
                100 | 102..=199 => interim.push(status(&head)),
                _ => break head,
            }
        };
        let status = status(&head);
        let mut lines = head.split("\r\n");
        let line = lines.next().unwrap_or_default().to_owned();
        let mut fields: Vec<(String, String)> = lines
            .map(|line| {
                let (name, value) = line.split_once(':').unwrap_or((line, ""));
                (name.to_ascii_lowercase(), value.trim().to_owned())
            })
            .collect();
        fields.sort_by(|a, b| a.0.cmp(&b.0));
        let field = |name: &str| {
            fields
                .iter()
                .find(|(n, _)| n == name)
                .map(|(_, value)| value.clone())
        };
        let mut body = Vec::new();
        let whole = if !with_body || matches!(status, 101 | 204 | 304) {
            true
        } else if field("transfer-encoding").is_some() {
            self.chunks(&mut body)
        } else if let Some(length) = field("content-length") {
            let length = length.parse().unwrap_or(0);
            self.bytes(length, &mut body)
        } else {
            while self.more() {}
            body.append(&mut self.have);
            self.ended
        };
        for (name, value) in &mut fields {
            if MADE_ANEW.contains(&name.as_str()) {
                "*".clone_into(value);
            }
        }
        Answer::Whole {
            interim,
            line,
            fields,
            body: String::from_utf8_lossy(&body).into_owned(),
            cut: !whole,
        }
    }

    fn chunks(&mut self, body: &mut Vec<u8>) -> bool {
        loop {
            let Some(size) = self.until(b"\r\n") else {
                return false;
            };
            let size = String::from_utf8_lossy(&size).into_owned();
            let Ok(size) = usize::from_str_radix(size.split(';').next().unwrap_or_default().trim(), 16)
            else {
                return false;
            };
            if size == 0 {
                break;
            }
            if !self.bytes(size, body) || self.until(b"\r\n").is_none() {
                return false;
            }
        }
        loop {
            match self.until(b"\r\n") {
                None => return false,
                Some(trailer) if trailer.is_empty() => return true,
                Some(trailer) => body.extend([b"\ntrailer ", &trailer[..]].concat()),
            }
        }
    }

    /// Whether one more request is answered. (`/direct/teapot`: no access rule and no server behind takes part.)
    fn stays(&mut self) -> bool {
        let request = b"GET /direct/teapot HTTP/1.1\r\nhost: bench.example\r\nx-probe: after\r\n\r\n";
        self.until = Instant::now() + Duration::from_secs(2);
        self.socket.write_all(request).is_ok()
            && matches!(self.answer(Vec::new(), true), Answer::Whole { line, .. } if line.contains(" 418 "))
    }
}

fn status(head: &str) -> u16 {
    head.split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .unwrap_or(0)
}

/// What differs, one line each.
pub(super) fn differences(ours: &[Answer], theirs: &[Answer]) -> Vec<String> {
    let mut differences = Vec::new();
    for number in 0..ours.len().max(theirs.len()) {
        match (ours.get(number), theirs.get(number)) {
            (Some(our), Some(their)) => between(our, their, &mut differences),
            (our, their) => differences.push(format!("answer: {}, envoy {}", said(our), said(their))),
        }
    }
    differences
}

fn said(answer: Option<&Answer>) -> String {
    match answer {
        None => "none".to_owned(),
        Some(Answer::Whole { line, .. }) => line.clone(),
        Some(other) => format!("{other:?}").to_lowercase(),
    }
}

fn between(our: &Answer, their: &Answer, differences: &mut Vec<String>) {
    let (
        Answer::Whole {
            interim,
            line,
            fields,
            body,
            cut,
        },
        Answer::Whole {
            interim: their_interim,
            line: their_line,
            fields: their_fields,
            body: their_body,
            cut: their_cut,
        },
    ) = (our, their)
    else {
        if our != their {
            differences.push(format!(
                "answer: {}, envoy {}",
                said(Some(our)),
                said(Some(their))
            ));
        }
        return;
    };
    if interim != their_interim {
        differences.push(format!("interim: {interim:?}, envoy {their_interim:?}"));
    }
    let parts = |line: &str| {
        let mut parts = line.splitn(3, ' ').map(str::to_owned);
        std::array::from_fn::<String, 3, _>(|_| parts.next().unwrap_or_default())
    };
    let ([version, code, phrase], [their_version, their_code, their_phrase]) =
        (parts(line), parts(their_line));
    if code != their_code {
        differences.push(format!("status: {line}, envoy {their_line}"));
    } else if phrase != their_phrase {
        differences.push(format!("phrase: {line}, envoy {their_line}"));
    }
    if version != their_version {
        differences.push(format!("version: {version}, envoy {their_version}"));
    }
    // What follows from one that is told already is not told again.
    let refusal = body.is_empty() && their_line.ends_with(their_body.as_str()) && code.as_str() >= "400";
    let (ours_told, theirs_told) = if refusal && !their_body.is_empty() {
        differences.push(format!("refusal: no body, envoy `{their_body}`"));
        let without = |(name, _): &&(String, String)| name != "content-type" && name != "content-length";
        let told = |fields: &[(String, String)]| fields.iter().filter(without).cloned().collect::<Vec<_>>();
        (told(fields), told(their_fields))
    } else if body != their_body {
        let without = |(name, _): &&(String, String)| name != "content-length";
        let told = |fields: &[(String, String)]| fields.iter().filter(without).cloned().collect::<Vec<_>>();
        (told(fields), told(their_fields))
    } else {
        (fields.clone(), their_fields.clone())
    };
    if cut != their_cut {
        differences.push(format!("cut: {cut}, envoy {their_cut}"));
    }
    let lines = |fields: &[(String, String)]| -> Vec<String> {
        fields
            .iter()
            .map(|(name, value)| format!("{name}: {value}"))
            .collect()
    };
    list("field", &lines(&ours_told), &lines(&theirs_told), differences);
    if !refusal {
        let lines = |body: &str| -> Vec<String> { body.split('\n').map(str::to_owned).collect() };
        list("body", &lines(body), &lines(their_body), differences);
    }
}

/// What stands in one list and not in the other.
fn list(what: &str, ours: &[String], theirs: &[String], differences: &mut Vec<String>) {
    let short = |text: &String| text.chars().take(160).collect::<String>();
    let mut rest: Vec<&String> = theirs.iter().collect();
    for our in ours {
        match rest.iter().position(|their| *their == our) {
            Some(at) => drop(rest.remove(at)),
            None => differences.push(format!("{what}: only rajut: {}", short(our))),
        }
    }
    for their in rest {
        differences.push(format!("{what}: only envoy: {}", short(their)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(line: &str, fields: &[(&str, &str)], body: &str) -> Answer {
        Answer::Whole {
            interim: Vec::new(),
            line: line.to_owned(),
            fields: fields
                .iter()
                .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
                .collect(),
            body: body.to_owned(),
            cut: false,
        }
    }

    #[test]
    fn each_difference_is_told() {
        let ours = [
            whole("HTTP/1.1 200 OK", &[("a", "1"), ("b", "2")], "x\ny"),
            Answer::Stays(true),
        ];
        assert_eq!(differences(&ours, &ours), [] as [String; 0]);
        let theirs = [
            whole("HTTP/1.1 404 Not Found", &[("a", "1"), ("b", "3")], "x"),
            Answer::Stays(false),
        ];
        assert_eq!(
            differences(&ours, &theirs),
            [
                "status: HTTP/1.1 200 OK, envoy HTTP/1.1 404 Not Found",
                "field: only rajut: b: 2",
                "field: only envoy: b: 3",
                "body: only rajut: y",
                "answer: stays(true), envoy stays(false)",
            ]
        );
        let silent = [whole("HTTP/1.1 400 Bad Request", &[("content-length", "0")], "")];
        let loud = [whole(
            "HTTP/1.1 400 Bad Request",
            &[("content-length", "11")],
            "Bad Request",
        )];
        assert_eq!(
            differences(&silent, &loud),
            ["refusal: no body, envoy `Bad Request`"]
        );
        let other = [whole("HTTP/1.1 400 Wrong", &[], "")];
        assert_eq!(
            differences(&other, &[whole("HTTP/1.1 400 Bad Request", &[], "")]),
            ["phrase: HTTP/1.1 400 Wrong, envoy HTTP/1.1 400 Bad Request"]
        );
        assert_eq!(
            differences(&ours, &[Answer::Closed]),
            [
                "answer: HTTP/1.1 200 OK, envoy closed",
                "answer: stays(true), envoy none"
            ]
        );
    }
}
