use std::{fs, net::SocketAddr};

use rajut_telemetry::recording::Token;
use rajut_types::{Percent, Principal, Text};
use serde_json::json;
use tonic::Code;

use super::*;

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("rajut-recorder-{name}-{}", std::process::id()));
        drop(fs::remove_dir_all(&path));
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

fn clock() -> Clock {
    Clock::manual(UNIX_EPOCH + Duration::from_secs(1_000_000))
}

fn snapshots(
    edit: impl FnOnce(&mut Recording),
) -> (watch::Sender<Arc<Snapshot>>, watch::Receiver<Arc<Snapshot>>) {
    let (sender, receiver) = watch::channel(Arc::default());
    let mut configuration = rajut_config::snapshot::Configuration::default();
    edit(&mut configuration.mesh.recording);
    let snapshot = Snapshot::build(configuration, Vec::new(), &Snapshot::default());
    sender.send_replace(Arc::new(snapshot));
    (sender, receiver)
}

fn peer() -> Extensions {
    let principal: Principal = "spiffe://cluster.local/ns/clinic/sa/records"
        .parse()
        .expect("a principal");
    let mut extensions = Extensions::default();
    extensions.insert(PeerInfo {
        principal: Some(principal),
        address: SocketAddr::from(([127, 0, 0, 1], 1)),
    });
    extensions
}

fn node(name: &str) -> Node {
    Node {
        id: format!("sidecar~10.0.0.1~{name}.clinic~clinic.svc.cluster.local").into(),
        metadata: json!({"SERVICE_ACCOUNT": "records"}),
        ..Node::default()
    }
}

fn tuple(id: u64, path: &str) -> Tuple {
    Tuple {
        id,
        time_ms: 1_000_000_000 - id,
        namespace: "bank".into(),
        workload: "vault".into(),
        source: "spiffe://cluster.local/ns/clinic/sa/web".into(),
        tls: true,
        remote: None,
        forwarded: false,
        local: None,
        server_name: Text::default(),
        listener: "virtualInbound".into(),
        route: "default".into(),
        method: "GET".into(),
        authority: "records".into(),
        path: Some(path.into()),
        headers: Vec::new(),
        token: Token::None,
        refused: false,
        reason: Text::default(),
        status: 200,
        received: id,
        sent: 2,
        micros: 3,
    }
}

fn batch(tuples: &[Tuple]) -> Batch {
    Batch {
        tuples: tuples.iter().map(Tuple::encode).collect(),
        dropped: 0,
    }
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), waiting)
        .await
        .expect(what);
}

fn everything(recorder: &Recorder) -> Vec<Alike> {
    recorder.part(0, UNIX_EPOCH).expect("readable").alike
}

#[tokio::test]
async fn what_a_proxy_tells_is_its_own_and_there_after_a_restart() {
    let folder = Folder::new("own");
    let (_sender, receiver) = snapshots(|_| {});
    let (recorder, keeping) = Recorder::open(&folder.0, receiver.clone(), clock());
    let keeping = tokio::spawn(keeping);
    let (wanted, mut taker) = recorder.open(&peer(), &node("records-0")).expect("its own");
    assert!(
        wanted.borrow().refused,
        "refusals are recorded where nobody says anything"
    );
    assert_eq!(wanted.borrow().share, 0);
    let key = wanted.borrow().key.clone();
    assert_eq!(key.len(), KEY_BYTES);
    taker.take(batch(&[
        tuple(1, "/a"),
        tuple(2, "/a"),
        tuple(2, "/a"),
        tuple(3, "/b"),
    ]));
    taker.take(Batch {
        tuples: vec![vec![0xff; 9]],
        dropped: 4,
    });
    until("written", || recorder.counts().recorded == 4).await;
    assert_eq!((recorder.counts().lost, recorder.counts().dropped), (1, 4));
    keeping.abort();
    drop((recorder, taker));

    let (again, _keeping) = Recorder::open(&folder.0, receiver, clock());
    let found = everything(&again);
    let counts: Vec<(&str, u64)> = found
        .iter()
        .map(|alike| (alike.example.path.as_deref().unwrap_or_default(), alike.count))
        .collect();
    assert_eq!(counts, [("/b", 1), ("/a", 2)], "what came twice counts once");
    for alike in &found {
        // Not the bank's vault.
        let called = (&*alike.example.namespace, &*alike.example.workload);
        assert_eq!(called, ("clinic", "records-0"));
    }
    assert_eq!(again.key().map(Vec::from), Some(key), "digests stay comparable");
    let since = UNIX_EPOCH + Duration::from_millis(999_999_999);
    assert_eq!(
        again.part(0, since).expect("readable").alike.len(),
        1,
        "what is older is left out"
    );
}

#[tokio::test]
async fn who_is_nobody_tells_nothing() {
    let folder = Folder::new("nobody");
    let (_sender, receiver) = snapshots(|_| {});
    let (recorder, _keeping) = Recorder::open(&folder.0, receiver, clock());
    let code = |extensions: &Extensions, node: &Node| {
        recorder.open(extensions, node).err().map(|status| status.code())
    };
    assert_eq!(
        code(&Extensions::default(), &node("records-0")),
        Some(Code::Unauthenticated)
    );
    let mut other = node("records-0");
    other.metadata = json!({"SERVICE_ACCOUNT": "vault"});
    assert_eq!(code(&peer(), &other), Some(Code::PermissionDenied));
    assert_eq!(recorder.counts().refused, 2);
}

#[tokio::test]
async fn what_is_wanted_follows_the_configuration_and_off_leaves_no_folder() {
    let folder = Folder::new("wanted");
    let (sender, receiver) = snapshots(|recording| recording.refused = false);
    let (recorder, keeping) = Recorder::open(&folder.0, receiver, clock());
    tokio::spawn(keeping);
    let (wanted, _taker) = recorder.open(&peer(), &node("records-0")).expect("its own");
    assert_eq!(*wanted.borrow(), Wanted::default());
    assert!(!folder.0.join("records").exists());
    let (on, _) = snapshots(|recording| {
        recording.share = Percent::from_millionths(250_000);
        recording.identifiers = vec!["P[0-9]+".into()];
        recording.headers = vec!["x-role".into()];
    });
    sender.send_replace(on.borrow().clone());
    until("told", || wanted.borrow().share == 250_000).await;
    let told = wanted.borrow().clone();
    assert!(told.refused && !told.key.is_empty());
    assert_eq!(
        (told.identifiers, told.headers),
        (vec!["P[0-9]+".to_owned()], vec!["x-role".to_owned()])
    );
}

#[tokio::test]
async fn a_disk_that_takes_nothing_is_said_counted_and_tried_again() {
    let folder = Folder::new("full");
    let (_sender, receiver) = snapshots(|_| {});
    let clock = clock();
    let (recorder, keeping) = Recorder::open(&folder.0, receiver, clock.clone());
    tokio::spawn(keeping);
    let (_wanted, mut taker) = recorder.open(&peer(), &node("records-0")).expect("its own");
    if let Some(segments) = &mut recorder.0.lock().segments {
        segments.room = Some(30);
    }
    taker.take(batch(&[tuple(1, "/a")]));
    until("lost", || recorder.counts().lost == 1).await;
    assert!(recorder.counts().stopped);
    assert!(recorder.stopped().is_some_and(|(_, why)| !why.is_empty()));
    if let Some(segments) = &mut recorder.0.lock().segments {
        segments.room = None;
    }
    taker.take(batch(&[tuple(2, "/a")]));
    until("left alone for a while", || recorder.counts().lost == 2).await;
    clock.advance(RETRY_AFTER);
    taker.take(batch(&[tuple(3, "/a")]));
    until("recorded", || recorder.counts().recorded == 1).await;
    assert!(!recorder.counts().stopped);
    assert_eq!(everything(&recorder)[0].example.id, 3);
}

#[tokio::test]
async fn a_folder_that_can_not_be_made_stops_nothing_else() {
    let folder = Folder::new("blocked");
    fs::create_dir_all(&folder.0).expect("made");
    fs::write(folder.0.join("records"), "a file").expect("written");
    let (_sender, receiver) = snapshots(|_| {});
    let (recorder, _keeping) = Recorder::open(&folder.0, receiver, clock());
    let (wanted, mut taker) = recorder.open(&peer(), &node("records-0")).expect("its own");
    assert_eq!(*wanted.borrow(), Wanted::default(), "nobody records for nothing");
    assert!(recorder.counts().stopped);
    taker.take(batch(&[tuple(1, "/a")]));
    assert!(everything(&recorder).is_empty());
}
