use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use rajut_runtime::connector::Connector;
use tokio::{io::DuplexStream, sync::mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Endpoint, Server};

use super::*;

#[derive(Default)]
struct Heard {
    batches: Vec<Batch>,
    wanted: Vec<Wanted>,
}

type Shared = Arc<Mutex<Heard>>;

/// Gives these, one a call, then nothing; remembers what was wanted.
struct Scripted(VecDeque<Batch>, Shared);

impl RecordSource for Scripted {
    fn want(&mut self, wanted: &Wanted) {
        self.1.lock().expect("whole").wanted.push(wanted.clone());
    }

    fn collect(&mut self) -> Batch {
        self.0.pop_front().unwrap_or_default()
    }
}

fn batch(number: u8) -> Batch {
    Batch {
        tuples: vec![vec![number; 3]],
        dropped: number.into(),
    }
}

#[derive(Clone)]
struct Sink(Shared, watch::Receiver<Wanted>, bool);

struct Taker(Shared);

impl RecordSink for Sink {
    fn open(
        &self,
        _: &Extensions,
        node: &Node,
    ) -> Result<(watch::Receiver<Wanted>, Box<dyn RecordTaker>), Status> {
        if self.2 {
            return Err(Status::permission_denied("not you"));
        }
        assert_eq!(&*node.id, "web-0");
        Ok((self.1.clone(), Box::new(Taker(Arc::clone(&self.0)))))
    }
}

impl RecordTaker for Taker {
    fn take(&mut self, batch: Batch) {
        self.0.lock().expect("whole").batches.push(batch);
    }
}

async fn connect(sink: Sink) -> tonic::transport::Channel {
    let (accept, accepted) = mpsc::channel::<io::Result<DuplexStream>>(4);
    let serving = Server::builder()
        .add_service(RecordServer::new(Arc::new(sink)))
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

fn node() -> Node {
    Node {
        id: "web-0".into(),
        ..Node::default()
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_wanted_comes_first_and_after_each_change_and_reports_go_up_once() {
    let heard = Shared::default();
    let first = Wanted {
        refused: true,
        share: 7,
        key: vec![1; 32],
        identifiers: vec!["P[0-9]+".to_owned()],
        headers: vec!["x-role".to_owned()],
    };
    let (wants, wanted) = watch::channel(first.clone());
    let channel = connect(Sink(Arc::clone(&heard), wanted, false)).await;
    let source = Scripted([batch(1), batch(2)].into(), Arc::clone(&heard));
    let mut recorder = Recorder::new(Box::new(source));
    let introduced = node();
    let everything = async {
        while heard.lock().expect("whole").batches.len() < 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        wants.send_modify(|wanted| wanted.share = 9);
        tokio::time::sleep(Duration::from_secs(2)).await;
    };
    tokio::select! {
        ended = record(channel, &introduced, &mut recorder) => panic!("{ended}"),
        done = tokio::time::timeout(Duration::from_mins(1), everything) => done.expect("in time"),
    }
    let second = Wanted {
        share: 9,
        ..first.clone()
    };
    let heard = heard.lock().expect("whole");
    assert_eq!(heard.batches, [batch(1), batch(2)]);
    assert_eq!(heard.wanted, [first.clone(), second]);
    assert_eq!(recorder.due(), None, "both have arrived");
    assert!(!format!("{first:?}").contains("key"), "no secret is shown");
}

#[tokio::test(start_paused = true)]
async fn who_is_refused_keeps_its_report() {
    let heard = Shared::default();
    let (_wants, wanted) = watch::channel(Wanted::default());
    let channel = connect(Sink(Arc::clone(&heard), wanted, true)).await;
    let mut recorder = Recorder::new(Box::new(Scripted([batch(1)].into(), heard)));
    let ended = record(channel, &node(), &mut recorder).await;
    assert_eq!(ended.code(), tonic::Code::PermissionDenied);
    assert_eq!(recorder.due(), Some(&batch(1)));
}
