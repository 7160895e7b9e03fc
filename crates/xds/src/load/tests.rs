use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Mutex},
};

use rajut_proto::load_stats::LoadStatsRequest;
use rajut_runtime::connector::Connector;
use serde_json::json;
use tokio::{io::DuplexStream, sync::mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Endpoint, Server};

use super::*;

fn told(cluster: &str, succeeded: u64) -> ClusterLoad {
    ClusterLoad {
        cluster: cluster.into(),
        succeeded,
        failed: 1,
        in_progress: 2,
        metrics: vec![("m".to_owned(), 3, 4.5)],
    }
}

/// Gives these, one a call, then nothing.
struct Scripted(VecDeque<Vec<ClusterLoad>>);

impl LoadSource for Scripted {
    fn collect(&mut self) -> Vec<ClusterLoad> {
        self.0.pop_front().unwrap_or_default()
    }
}

fn reporter(reports: &[&[ClusterLoad]]) -> Reporter {
    let reports = reports.iter().map(|report| report.to_vec()).collect();
    Reporter::new(Box::new(Scripted(reports)), "p")
}

fn node() -> Node {
    Node {
        id: "web-0".into(),
        metadata: json!({"NAMESPACE": "clinic"}),
        ..Node::default()
    }
}

#[test]
fn a_report_is_due_until_it_has_arrived_under_the_same_number() {
    let (first, second) = (told("a", 1), told("a", 2));
    let mut reporter = reporter(&[std::slice::from_ref(&first), std::slice::from_ref(&second)]);
    let number = |reporter: &Reporter| ReportNumber::of(&reporter.introduce(&node())).expect("it has one");
    assert_eq!(number(&reporter).number, 0);
    assert_eq!(reporter.due(), Some(&[first.clone()][..]));
    // The stream broke before an answer.
    assert_eq!(number(&reporter).number, 0);
    assert_eq!(reporter.due(), Some(&[first][..]));
    reporter.arrived();
    assert_eq!(number(&reporter).number, 1);
    assert_eq!(reporter.due(), Some(&[second][..]));
    reporter.arrived();
    assert_eq!(reporter.due(), None, "nothing has happened since");
    reporter.arrived();
    let number = number(&reporter);
    assert_eq!((&*number.process, number.number), ("p", 2));
    let introduced = reporter.introduce(&node());
    assert_eq!(introduced.metadata["NAMESPACE"], "clinic", "the rest stays");
}

#[test]
fn what_a_report_has_too_much_of_is_left_out() {
    let (_, loads, left_out) = wire::decode(wire::encode_report(&[told("a", 7)], Duration::from_secs(1)));
    assert_eq!((loads, left_out), (vec![told("a", 7)], 0));
    let long = "x".repeat(NAME_BYTES_MAX + 1);
    let mut many = vec![told("a", 1); CLUSTERS_MAX + 2];
    many.push(told(&long, 1));
    many[0].metrics = vec![("m".to_owned(), 1, 1.0); METRICS_MAX + 1];
    let (_, loads, left_out) = wire::decode(wire::encode_report(&many, Duration::from_secs(1)));
    assert_eq!((loads.len(), left_out), (CLUSTERS_MAX, 3));
    assert_eq!(loads[0].metrics.len(), METRICS_MAX);
    let empty = wire::decode(LoadStatsRequest::default());
    assert!(empty.0.is_none() && empty.1.is_empty());
}

type Taken = Arc<Mutex<Vec<(u64, Vec<ClusterLoad>)>>>;

/// Remembers what it took; ends the stream of a report that it was told to lose, after it has taken it.
#[derive(Clone, Default)]
struct Sink {
    taken: Taken,
    refuses: bool,
}

struct Taker {
    taken: Taken,
    next: u64,
}

impl LoadSink for Sink {
    fn open(&self, _: &Extensions, node: &Node) -> Result<Box<dyn LoadReporter>, Status> {
        if self.refuses {
            return Err(Status::permission_denied("not you"));
        }
        let next = ReportNumber::of(node).expect("our client has numbers").number;
        Ok(Box::new(Taker {
            taken: Arc::clone(&self.taken),
            next,
        }))
    }
}

impl LoadReporter for Taker {
    fn report(&mut self, loads: Vec<ClusterLoad>, _: usize) -> Duration {
        self.taken.lock().expect("not poisoned").push((self.next, loads));
        self.next += 1;
        Duration::ZERO
    }

    fn first_due(&self) -> Duration {
        Duration::ZERO
    }
}

/// A channel to a server of this sink.
async fn connect(sink: Sink) -> tonic::transport::Channel {
    let (accept, accepted) = mpsc::channel::<io::Result<DuplexStream>>(4);
    let serving = Server::builder()
        .add_service(LoadServer::new(Arc::new(sink)))
        .serve_with_incoming(ReceiverStream::new(accepted));
    tokio::spawn(serving);
    let connector = Connector::new(move || {
        let accept = accept.clone();
        async move {
            let (near, far) = tokio::io::duplex(1 << 16);
            accept.send(Ok(far)).await.map_err(io::Error::other)?;
            Ok(near)
        }
    });
    Endpoint::from_static("http://control-plane")
        .connect_with_connector(connector)
        .await
        .expect("a server is there")
}

#[tokio::test(start_paused = true)]
async fn reports_go_over_a_connection_one_after_the_other() {
    let sink = Sink::default();
    let channel = connect(sink.clone()).await;
    let mut reporter = reporter(&[&[told("a", 1), told("b", 2)], &[told("a", 3)]]);
    let introduced = node();
    let everything = async {
        while sink.taken.lock().expect("not poisoned").len() < 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // Its answer is on the way.
        tokio::time::sleep(Duration::from_secs(1)).await;
    };
    tokio::select! {
        ended = report(channel, &introduced, &mut reporter) => panic!("{ended}"),
        done = tokio::time::timeout(Duration::from_mins(1), everything) => done.expect("in time"),
    }
    assert_eq!(
        *sink.taken.lock().expect("not poisoned"),
        [(0, vec![told("a", 1), told("b", 2)]), (1, vec![told("a", 3)])]
    );
    assert_eq!(reporter.due(), None, "both have arrived");
}

#[tokio::test(start_paused = true)]
async fn who_is_refused_keeps_its_report() {
    let sink = Sink {
        refuses: true,
        ..Sink::default()
    };
    let channel = connect(sink).await;
    let mut reporter = reporter(&[&[told("a", 1)]]);
    let ended = report(channel, &node(), &mut reporter).await;
    assert_eq!(ended.code(), tonic::Code::PermissionDenied);
    assert_eq!(reporter.due(), Some(&[told("a", 1)][..]));
}
