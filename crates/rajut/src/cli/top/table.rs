//! The control plane's answer as rows: filtered, added up, ordered, written. Pure.
//!
//! What is not known is `–` and, where a row has no figure at all, `no data`; never 0. Names come from configuration and
//! from proxies: what could move the cursor is replaced ([`plain`]).

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
};

use rajut_control::observe::series::Amounts;
use serde_json::{Value, json};

use crate::output::Table;

/// What is not known.
const NONE: &str = "–";

/// What rows are ordered by; the largest first, names from a to z. What is not known comes last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Sort {
    /// Requests per second
    #[default]
    Rate,
    /// Share of requests that failed
    Errors,
    /// Response time that half of the requests stay below
    P50,
    /// Response time that 99 of 100 requests stay below
    P99,
    /// Requests and connections under way
    InProgress,
    /// The name
    Name,
}

const ORDERS: [Sort; 6] = [
    Sort::Rate,
    Sort::Errors,
    Sort::P50,
    Sort::P99,
    Sort::InProgress,
    Sort::Name,
];

/// What is shown, and how.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shown {
    pub(crate) edges: bool,
    pub(crate) sort: Sort,
    /// The smallest first, names from z to a.
    pub(crate) is_turned: bool,
    pub(crate) namespace: Option<String>,
    pub(crate) filter: String,
    pub(crate) window: u32,
}

/// Longest filter.
const FILTER_MAX: usize = 100;

/// One service, or one edge.
#[derive(Debug, Clone, Default)]
struct Row {
    /// Empty for a service.
    caller: String,
    callee: String,
    namespace: String,
    requests: Option<u64>,
    failed: Option<u64>,
    rate: Option<f64>,
    connection_rate: Option<f64>,
    in_progress: Option<u64>,
    /// Response times; only these are set.
    times: Amounts,
    /// (requests and connections whose mTLS is known, of these with it)
    secured: (f64, f64),
    callers: BTreeSet<String>,
}

impl Shown {
    /// Obeys a key that asks for no other figures.
    pub(crate) fn press(&mut self, key: u8) {
        match key {
            b'e' => self.edges = !self.edges,
            b'r' => self.is_turned = !self.is_turned,
            b's' => {
                let place = ORDERS.iter().position(|order| *order == self.sort).unwrap_or(0);
                self.sort = ORDERS[(place + 1) % ORDERS.len()];
                self.is_turned = false;
            }
            _ => {}
        }
    }

    /// Another byte of the filter; whether more is to be typed.
    pub(crate) fn type_key(&mut self, key: u8) -> bool {
        match key {
            b'\r' | b'\n' => return false,
            // Escape, or Ctrl-C.
            0x1b | 3 => {
                self.filter.clear();
                return false;
            }
            // Backspace, one way or the other.
            0x7f | 8 => drop(self.filter.pop()),
            b' '..=b'~' if self.filter.len() < FILTER_MAX => self.filter.push(char::from(key)),
            _ => {}
        }
        true
    }

    /// The table; `screen`: (columns, rows) that it has to fit into.
    pub(crate) fn text(&self, answer: &Value, screen: Option<(usize, usize)>) -> String {
        let rows = self.rows(answer);
        let mut table = Table::new(if self.edges {
            &[
                "CALLER", "SERVICE", "RATE/S", "ERRORS", "P50", "P99", "ACTIVE", "MTLS",
            ]
        } else {
            &[
                "SERVICE",
                "NAMESPACE",
                "RATE/S",
                "ERRORS",
                "P50",
                "P99",
                "ACTIVE",
                "MTLS",
                "CALLERS",
            ]
        });
        for row in &rows {
            table.row(self.cells(row));
        }
        let number = |field: &str| answer.get(field).and_then(Value::as_u64).unwrap_or_default();
        let text = |field: &str| plain(answer.get(field).and_then(Value::as_str).unwrap_or_default());
        let mut head = format!(
            "{} of the last {} s at {}, known since {}; {} proxies report",
            if self.edges { "edges" } else { "services" },
            number("windowSeconds"),
            text("now"),
            text("since"),
            number("reporters"),
        );
        if !self.filter.is_empty() {
            append!(head, "; names with `{}`", plain(&self.filter));
        }
        head.push('\n');
        head.push_str(&table.render());
        if rows.is_empty() {
            head.push_str("no data\n");
        }
        let unplaced = number("unplacedRequests");
        if unplaced > 0 {
            append!(head, "{unplaced} requests on edges beyond what is kept\n");
        }
        match screen {
            None => head,
            Some((columns, height)) => {
                let lines = head.lines().take(height.saturating_sub(1));
                lines
                    .map(|line| line.chars().take(columns).chain(['\n']).collect::<String>())
                    .collect()
            }
        }
    }

    /// The same for programs; edges as the control plane has them.
    pub(crate) fn json(&self, answer: &Value) -> Value {
        let mut out = json!({});
        for field in [
            "now",
            "since",
            "windowSeconds",
            "resolutionSeconds",
            "reporters",
            "unplacedRequests",
        ] {
            out[field] = answer.get(field).cloned().unwrap_or_default();
        }
        if self.edges {
            out["edges"] = edges(answer).filter(|edge| self.wants(edge)).cloned().collect();
        } else {
            out["services"] = self.rows(answer).iter().map(Row::json).collect();
        }
        out
    }

    fn wants(&self, edge: &Value) -> bool {
        let text = |pointer: &str| edge.pointer(pointer).and_then(Value::as_str);
        let in_namespace = self.namespace.as_deref().is_none_or(|namespace| {
            [text("/source/namespace"), text("/destination/namespace")].contains(&Some(namespace))
        });
        let caller = text("/source/workload").filter(|_| self.edges);
        let names = [caller, text("/destination/host")];
        let is_named = names.iter().flatten().any(|name| name.contains(&self.filter));
        in_namespace && is_named
    }

    fn rows(&self, answer: &Value) -> Vec<Row> {
        let mut rows: BTreeMap<(String, String), Row> = BTreeMap::new();
        for edge in edges(answer).filter(|edge| self.wants(edge)) {
            let edge = Row::of_edge(edge);
            let caller = if self.edges {
                edge.caller.clone()
            } else {
                String::new()
            };
            let row = rows
                .entry((caller.clone(), edge.callee.clone()))
                .or_insert_with(|| Row {
                    caller,
                    callee: edge.callee.clone(),
                    namespace: edge.namespace.clone(),
                    ..Row::default()
                });
            row.add(&edge);
        }
        let mut rows: Vec<Row> = rows.into_values().collect();
        rows.sort_by(|a, b| self.order(a, b));
        rows
    }

    fn order(&self, a: &Row, b: &Row) -> Ordering {
        let key = |row: &Row| match self.sort {
            Sort::Rate => row.rate.or(row.connection_rate),
            Sort::Errors => row.error_share(),
            Sort::P50 => row.times.quantile(500),
            Sort::P99 => row.times.quantile(990),
            // A float for the order alone.
            Sort::InProgress => row.in_progress.map(float),
            Sort::Name => None,
        };
        let by_value = match (key(a), key(b)) {
            (Some(a), Some(b)) if self.is_turned => a.total_cmp(&b),
            (Some(a), Some(b)) => b.total_cmp(&a),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => Ordering::Equal,
        };
        let by_name = (&a.caller, &a.callee).cmp(&(&b.caller, &b.callee));
        by_value.then(if self.sort == Sort::Name && self.is_turned {
            by_name.reverse()
        } else {
            by_name
        })
    }

    fn cells(&self, row: &Row) -> Vec<String> {
        let known = |text: Option<String>| text.unwrap_or_else(|| NONE.to_owned());
        let rate = match (row.rate, row.connection_rate) {
            (None, _) => "no data".to_owned(),
            // Opaque connections have no requests.
            (Some(rate), Some(connections)) if rate == 0.0 && connections > 0.0 => {
                format!("{connections:.1} conn")
            }
            (Some(rate), _) => format!("{rate:.1}"),
        };
        let share = row.error_share().map(|share| format!("{:.1} %", share * 100.0));
        let (of, with) = row.secured;
        let mtls = (of > 0.0).then(|| format!("{:.0} %", (with / of * 100.0).floor()));
        let mut cells = if self.edges {
            vec![plain(&row.caller), plain(&row.callee)]
        } else {
            vec![plain(&row.callee), plain(&row.namespace)]
        };
        cells.extend([
            rate,
            known(share),
            known(row.times.quantile(500).map(millis)),
            known(row.times.quantile(990).map(millis)),
            known(row.in_progress.map(|count| count.to_string())),
            known(mtls),
        ]);
        if !self.edges {
            cells.push(row.callers.len().to_string());
        }
        cells
    }
}

fn edges(answer: &Value) -> impl Iterator<Item = &Value> {
    answer
        .get("edges")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
}

fn millis(millis: f64) -> String {
    match millis {
        short if short < 10.0 => format!("{short:.1} ms"),
        short if short < 10_000.0 => format!("{short:.0} ms"),
        long => format!("{:.0} s", long / 1000.0),
    }
}

#[expect(clippy::cast_precision_loss, reason = "a count for a share or an order")]
fn float(count: u64) -> f64 {
    count as f64
}

fn sum<T: std::ops::Add<Output = T>>(a: Option<T>, b: Option<T>) -> Option<T> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a + b),
        (a, b) => a.or(b),
    }
}

impl Row {
    fn of_edge(edge: &Value) -> Self {
        let text = |pointer: &str| edge.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let number = |field: &str| edge.get(field).and_then(Value::as_u64);
        let share = |field: &str| edge.get(field).and_then(Value::as_f64);
        let mut callee = text("/destination/host").to_owned();
        if let Some(port) = edge.pointer("/destination/port").and_then(Value::as_u64) {
            append!(callee, ":{port}");
        }
        let mut times = Amounts::default();
        let buckets = edge.get("latencyBuckets").and_then(Value::as_array);
        for (bucket, told) in times.times.iter_mut().zip(buckets.into_iter().flatten()) {
            *bucket = u32::try_from(told.as_u64().unwrap_or_default()).unwrap_or(u32::MAX);
        }
        let passed =
            float(number("requests").unwrap_or_default() + number("connections").unwrap_or_default());
        Self {
            caller: format!("{}.{}", text("/source/workload"), text("/source/namespace")),
            callee,
            namespace: text("/destination/namespace").to_owned(),
            requests: number("requests"),
            failed: number("failed"),
            rate: share("rate"),
            connection_rate: share("connectionRate"),
            in_progress: number("inProgress"),
            times,
            secured: share("mtlsShare").map_or((0.0, 0.0), |share| (passed, share * passed)),
            callers: BTreeSet::new(),
        }
    }

    /// Subsets of a service are one row, and where services are shown, its callers too.
    fn add(&mut self, other: &Self) {
        self.requests = sum(self.requests, other.requests);
        self.failed = sum(self.failed, other.failed);
        self.rate = sum(self.rate, other.rate);
        self.connection_rate = sum(self.connection_rate, other.connection_rate);
        self.in_progress = sum(self.in_progress, other.in_progress);
        self.times.add(&other.times);
        self.secured.0 += other.secured.0;
        self.secured.1 += other.secured.1;
        self.callers.insert(other.caller.clone());
    }

    fn error_share(&self) -> Option<f64> {
        let (requests, failed) = (self.requests?, self.failed?);
        (requests > 0).then(|| float(failed) / float(requests))
    }

    fn json(&self) -> Value {
        let quantiles = [500, 900, 990].map(|thousandths| self.times.quantile(thousandths));
        let latency = match quantiles {
            [Some(p50), Some(p90), Some(p99)] => json!({"p50": p50, "p90": p90, "p99": p99}),
            _ => Value::Null,
        };
        json!({
            "service": self.callee,
            "namespace": (!self.namespace.is_empty()).then_some(&self.namespace),
            "requests": self.requests,
            "failed": self.failed,
            "rate": self.rate,
            "connectionRate": self.connection_rate,
            "errorShare": self.error_share(),
            "latencyMs": latency,
            "inProgress": self.in_progress,
            "mtlsShare": (self.secured.0 > 0.0).then(|| self.secured.1 / self.secured.0),
            "callers": self.callers.len(),
        })
    }
}

/// Without what could move a terminal's cursor or turn text round.
pub(crate) fn plain(text: &str) -> String {
    let is_harmful = |character: char| {
        character.is_control()
            || matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars()
        .map(|character| {
            if is_harmful(character) {
                char::REPLACEMENT_CHARACTER
            } else {
                character
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edge(caller: &str, host: &str, figures: &Value) -> Value {
        let mut edge = json!({
            "source": {"namespace": "clinic", "workload": caller, "principal": "p"},
            "destination": {"host": host, "namespace": "data", "port": 80, "subset": null},
        });
        for (field, value) in figures.as_object().into_iter().flatten() {
            edge[field] = value.clone();
        }
        edge
    }

    fn answer() -> Value {
        let mut fast = vec![0; 20];
        fast[1] = 90;
        let mut slow = vec![0; 20];
        slow[9] = 10;
        json!({
            "now": "2026-11-22T10:00:00Z", "since": "2026-11-22T09:00:00Z", "windowSeconds": 60, "resolutionSeconds": 1,
            "reporters": 3, "unplacedRequests": 0,
            "edges": [
                edge("web", "db", &json!({
                    "requests": 90, "failed": 9, "rate": 1.5, "errorShare": 0.1, "latencyBuckets": fast,
                    "inProgress": 1, "mtlsShare": 1.0, "connections": 0, "connectionRate": 0.0,
                })),
                edge("job", "db", &json!({
                    "requests": 10, "failed": 1, "rate": 0.5, "errorShare": 0.1, "latencyBuckets": slow,
                    "inProgress": 0, "mtlsShare": 0.0, "connections": 0, "connectionRate": 0.0,
                })),
                // Two subsets, one caller.
                edge("web", "api", &json!({"requests": 500, "failed": 0, "rate": 9.0, "inProgress": 2})),
                edge("web", "api", &json!({"requests": 100, "failed": 0, "rate": 1.0, "inProgress": 0})),
                edge("gone", "old", &json!({"requests": null, "failed": null, "rate": null, "inProgress": null})),
            ],
        })
    }

    fn lines(shown: &Shown, answer: &Value) -> Vec<Vec<String>> {
        let text = shown.text(answer, None);
        let cells = |line: &str| -> Vec<String> {
            line.split("  ")
                .map(str::trim)
                .filter(|cell| !cell.is_empty())
                .map(str::to_owned)
                .collect()
        };
        text.lines().skip(2).map(cells).collect()
    }

    #[test]
    fn a_services_row_adds_its_callers_up_and_unknown_is_no_zero() {
        let rows = lines(&Shown::default(), &answer());
        assert_eq!(rows[0][..7], ["api:80", "data", "10.0", "0.0 %", "–", "–", "2"]);
        assert_eq!(
            rows[0][7..],
            ["–", "1"],
            "Envoy does not tell response times and mTLS"
        );
        assert_eq!(
            rows[1],
            [
                "db:80", "data", "2.0", "10.0 %", "0.8 ms", "950 ms", "1", "90 %", "2"
            ]
        );
        assert_eq!(
            rows[2],
            ["old:80", "data", "no data", "–", "–", "–", "–", "–", "1"]
        );
    }

    #[test]
    fn rows_are_ordered_turned_and_filtered() {
        let first = |shown: &Shown| lines(shown, &answer())[0][0].clone();
        let mut shown = Shown {
            edges: true,
            ..Shown::default()
        };
        assert_eq!(first(&shown), "web.clinic");
        shown.sort = Sort::P99;
        assert_eq!(first(&shown), "job.clinic");
        shown.press(b'r');
        assert_eq!(first(&shown), "web.clinic");
        shown.sort = Sort::Name;
        assert_eq!(first(&shown), "web.clinic", "from z to a");
        shown.filter = "go".to_owned();
        assert_eq!(first(&shown), "gone.clinic");
        assert_eq!(lines(&shown, &answer()).len(), 1);
        shown.filter.clear();
        shown.namespace = Some("elsewhere".to_owned());
        assert_eq!(lines(&shown, &answer()), [["no data"]]);
        shown.namespace = Some("data".to_owned());
        assert_eq!(lines(&shown, &answer()).len(), 4);
    }

    #[test]
    fn the_same_figures_are_told_to_programs() {
        let json = Shown::default().json(&answer());
        let db = json["services"]
            .as_array()
            .expect("rows")
            .iter()
            .find(|row| row["service"] == "db:80");
        let db = db.expect("it is called");
        assert_eq!(
            (&db["requests"], &db["failed"], &db["callers"]),
            (&json!(100), &json!(10), &json!(2))
        );
        assert_eq!(db["errorShare"], 0.1);
        let shown = Shown {
            edges: true,
            filter: "job".to_owned(),
            ..Shown::default()
        };
        let json = shown.json(&answer());
        assert_eq!(json["edges"].as_array().map(Vec::len), Some(1));
    }

    #[test]
    fn names_cannot_move_the_cursor_and_the_picture_fits_its_screen() {
        let mut answer = answer();
        answer["edges"][0]["destination"]["host"] = json!("\u{1b}[2Jevil\u{202e}");
        let text = Shown::default().text(&answer, Some((40, 4)));
        assert!(!text.contains('\u{1b}') && !text.contains('\u{202e}'));
        assert_eq!(text.lines().count(), 3);
        assert!(text.lines().all(|line| line.chars().count() <= 40));
    }

    #[test]
    fn a_filter_is_typed_and_given_up() {
        let mut shown = Shown::default();
        for key in *b"abx\x7f" {
            assert!(shown.type_key(key));
        }
        assert!(!shown.type_key(b'\r'));
        assert_eq!(shown.filter, "ab");
        assert!(!shown.type_key(0x1b));
        assert_eq!(shown.filter, "");
    }
}
