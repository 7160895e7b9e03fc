//! Readiness and liveness probes of applications, run from where Kubernetes would run them: next to the application,
//! inside its namespace, past its sidecar.
//!
//! ```text
//!            success × successThreshold
//!   NotReady ───────────────────────────► Ready
//!            ◄───────────────────────────
//!            failure × failureThreshold
//! ```
//!
//! Source: Kubernetes `core/v1.Probe`. While a workload starts it is asked more often than its period says, since a
//! developer waits for it: every [`STARTING_PERIOD`]. [`Tally`] is the pure state machine, [`check`] does the I/O.

use std::{net::SocketAddr, time::Duration};

use rajut_config::model::{Probe, ProbeCheck};
use rajut_platform::netns::NetNs;

use crate::client::{Answer, Ask, ClientError, Target, ask, connect};

/// Between two questions until the first success.
pub const STARTING_PERIOD: Duration = Duration::from_millis(100);

/// Counts results of one probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tally {
    healthy: bool,
    successes: u32,
    failures: u32,
    success_threshold: u32,
    failure_threshold: u32,
    last_failure: String,
}

impl Tally {
    /// Not healthy, nothing seen.
    pub fn new(probe: &Probe) -> Self {
        Self {
            healthy: false,
            successes: 0,
            failures: 0,
            success_threshold: probe.success_threshold.max(1),
            failure_threshold: probe.failure_threshold.max(1),
            last_failure: String::new(),
        }
    }

    /// Takes in one result; tells whether the state changed.
    pub fn step(&mut self, result: Result<(), String>) -> bool {
        let before = self.healthy;
        match result {
            Ok(()) => {
                self.successes = self.successes.saturating_add(1);
                self.failures = 0;
                self.healthy |= self.successes >= self.success_threshold;
            }
            Err(why) => {
                self.failures = self.failures.saturating_add(1);
                self.successes = 0;
                self.last_failure = why;
                self.healthy &= self.failures < self.failure_threshold;
            }
        }
        before != self.healthy
    }

    /// Whether enough successes were seen since the last failures.
    pub const fn is_healthy(&self) -> bool {
        self.healthy
    }

    /// Whether so many failures were seen in a row that a liveness probe has failed.
    pub const fn is_dead(&self) -> bool {
        self.failures >= self.failure_threshold
    }

    /// The last failure and how often in a row: `GET :4601/health answered 404, 12 times`.
    pub fn reason(&self) -> String {
        match self.failures {
            0 => String::new(),
            1 => self.last_failure.clone(),
            times => format!("{}, {times} times", self.last_failure),
        }
    }
}

/// Where an application is asked.
#[derive(Debug, Clone)]
pub struct Place {
    /// Its namespace; `None` in explicit mode.
    pub namespace: Option<NetNs>,
    /// Container port → where the application listens.
    pub ports: Vec<(u16, SocketAddr)>,
}

impl Place {
    pub(crate) fn socket(&self, port: u16) -> Option<SocketAddr> {
        self.ports
            .iter()
            .find(|(container, _)| *container == port)
            .map(|(_, socket)| *socket)
            // A probe may ask a port that no manifest declares; inside the namespace it is where it is.
            .or_else(|| {
                let (_, any) = self.ports.first()?;
                self.namespace.as_ref().map(|_| SocketAddr::new(any.ip(), port))
            })
    }

    pub(crate) fn target(&self, socket: SocketAddr) -> Target {
        match &self.namespace {
            Some(namespace) => Target::Inside(namespace.clone(), socket),
            None => Target::Tcp(socket),
        }
    }
}

/// Asks once. The error is one line for people.
pub async fn check(probe: &Probe, place: &Place) -> Result<(), String> {
    let unknown = |port: u16| format!("the probe asks port {port}, which no container port names");
    match &probe.check {
        ProbeCheck::Http { port, path, headers } => {
            let socket = place.socket(*port).ok_or_else(|| unknown(*port))?;
            let headers: Vec<_> = headers
                .iter()
                .map(|(name, value)| (name.to_string(), value.to_string()))
                .collect();
            let request = Ask {
                path,
                headers: &headers,
                timeout: probe.timeout,
                ..Ask::default()
            };
            http_result(*port, path, ask(&place.target(socket), &request).await)
        }
        ProbeCheck::Tcp { port } => {
            let socket = place.socket(*port).ok_or_else(|| unknown(*port))?;
            accepts(&place.target(socket), probe.timeout)
                .await
                .map_err(|why| format!("port {port} {why}"))
        }
        ProbeCheck::Grpc { port, .. } => {
            let socket = place.socket(*port).ok_or_else(|| unknown(*port))?;
            crate::grpc_health::check(&place.target(socket), probe)
                .await
                .map_err(|why| format!("gRPC health on :{port} {why}"))
        }
        ProbeCheck::Exec(_) => Err("exec probes are run by the supervisor".to_owned()),
    }
}

fn http_result(port: u16, path: &str, answer: Result<Answer, ClientError>) -> Result<(), String> {
    match answer {
        Ok(answer) if (200..400).contains(&answer.status.as_u16()) => Ok(()),
        Ok(answer) => Err(format!("GET :{port}{path} answered {}", answer.status.as_u16())),
        Err(ClientError::Connect { source, .. }) => {
            Err(format!("GET :{port}{path} can't connect ({})", short(&source)))
        }
        Err(ClientError::Timeout { after, .. }) => Err(format!(
            "GET :{port}{path} gave no answer within {} s",
            after.as_secs_f32()
        )),
        Err(other) => Err(format!("GET :{port}{path}: {other}")),
    }
}

async fn accepts(target: &Target, timeout: Duration) -> Result<(), String> {
    match tokio::time::timeout(timeout, connect(target)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(format!("does not accept connections ({})", short(&error))),
        Err(_) => Err("does not accept connections".to_owned()),
    }
}

fn short(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        std::io::ErrorKind::ConnectionReset => "connection reset".to_owned(),
        _ => error.to_string(),
    }
}

/// The probe of a workload without one: its first port accepts connections. (Kubernetes would call it ready as soon as
/// its process runs; a mesh that starts everything at once would send it requests before it listens.)
pub fn default_probe(port: u16) -> Probe {
    Probe {
        check: ProbeCheck::Tcp { port },
        initial_delay: Duration::ZERO,
        period: Duration::from_secs(10),
        timeout: Duration::from_secs(1),
        failure_threshold: 3,
        success_threshold: 1,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn tally(success_threshold: u32, failure_threshold: u32) -> Tally {
        Tally::new(&Probe {
            success_threshold,
            failure_threshold,
            ..default_probe(1)
        })
    }

    #[test]
    fn thresholds_count_results_in_a_row() {
        let mut tally = tally(2, 3);
        assert!(!tally.step(Ok(())));
        assert!(!tally.step(Err("x".into())));
        assert!(!tally.step(Ok(())));
        assert!(tally.step(Ok(())));
        assert!(tally.is_healthy());
        assert!(!tally.step(Err("x".into())));
        assert!(!tally.step(Err("x".into())));
        assert!(!tally.step(Ok(())));
        for _ in 0..2 {
            assert!(!tally.step(Err("GET :1/ answered 404".into())));
        }
        assert!(tally.step(Err("GET :1/ answered 404".into())));
        assert!(tally.is_dead());
        assert_eq!(tally.reason(), "GET :1/ answered 404, 3 times");
    }

    #[test]
    fn answers_from_200_to_399_are_healthy_and_others_are_named() {
        let answer = |status| {
            Ok(Answer {
                status: http::StatusCode::from_u16(status).expect("valid"),
                body: Bytes::new(),
            })
        };
        assert_eq!(http_result(4601, "/health", answer(302)), Ok(()));
        assert_eq!(
            http_result(4601, "/health", answer(404)),
            Err("GET :4601/health answered 404".into())
        );
    }
}
