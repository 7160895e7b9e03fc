//! What is told when, and that no secret is.

use std::time::UNIX_EPOCH;

use super::*;
use crate::observe::{
    alarm::{Alarms, Evidence},
    edge::{Caller, Target},
};

fn alarms() -> Alarms {
    let mut alarms = Alarms::new(0);
    let caller = Caller {
        namespace: "lab".into(),
        workload: "nurse".into(),
        principal: "spiffe://cluster.local/ns/lab/sa/nurse".into(),
    };
    let web = Target::of_cluster("outbound|8080||web.lab.svc.cluster.local").expect("an edge");
    let evidence = Evidence {
        before: 0.25,
        usual: (0.0, 1.0),
        now: 12.0,
        window: 5,
        ..Evidence::default()
    };
    alarms.raise(Kind::Denials, &caller, Some(&web), Some(evidence), 100);
    alarms.raise(Kind::FanOut, &caller, None, None, 100);
    alarms
}

fn noticed(alarms: &Alarms, silenced: Option<u64>, now: u64) -> Noticed {
    Noticed {
        now: UNIX_EPOCH + Duration::from_secs(now),
        learning_until: UNIX_EPOCH,
        alarms: alarms
            .all()
            .map(|alarm| (alarm.clone(), silenced.filter(|number| *number == alarm.number)))
            .collect(),
        silences: Vec::new(),
        raised: 0,
    }
}

fn numbers(due: &[&Alarm]) -> Vec<u64> {
    due.iter().map(|alarm| alarm.number).collect()
}

#[tokio::test(start_paused = true)]
async fn an_alarm_is_told_at_its_begin_again_while_it_lasts_and_once_at_its_end() {
    let (mut book, mut alarms) = (Book::default(), alarms());
    let now = Instant::now();
    let all = noticed(&alarms, Some(2), 101);
    let (due, dropped) = book.due(&all, now);
    assert_eq!(
        (numbers(&due), dropped),
        (vec![1], 0),
        "the other one is silenced"
    );
    assert_eq!(numbers(&book.due(&all, now).0), [1], "nobody was told yet");
    book.told(&due, now);
    assert!(book.due(&all, now + Duration::from_secs(59)).0.is_empty());
    assert_eq!(numbers(&book.due(&all, now + RESEND).0), [1]);
    let all = noticed(&alarms, None, 130);
    assert_eq!(numbers(&book.due(&all, now).0), [2], "its silence is over");

    alarms.of_number(1).expect("kept").ended = Some(140);
    let all = noticed(&alarms, None, 141);
    let (due, _) = book.due(&all, now);
    assert_eq!(numbers(&due), [1, 2]);
    book.told(&due, now);
    assert!(book.due(&all, now).0.is_empty());
    alarms.of_number(1).expect("kept").ended = None;
    assert_eq!(
        numbers(&book.due(&noticed(&alarms, None, 150), now).0),
        [1],
        "it goes on"
    );

    // Another process: what ended long ago is no news.
    alarms.of_number(1).expect("kept").ended = Some(160);
    alarms.of_number(2).expect("kept").ended = Some(700);
    let mut book = Book::default();
    assert_eq!(
        numbers(&book.due(&noticed(&alarms, None, 160 + OLD + 1), now).0),
        [2]
    );
}

#[tokio::test(start_paused = true)]
async fn what_went_before_it_could_be_told_is_counted() {
    let (mut book, mut alarms) = (Book::default(), alarms());
    let now = Instant::now();
    let all = noticed(&alarms, None, 101);
    let (due, _) = book.due(&all, now);
    book.told(&due[..1], now);
    let caller = alarms.all().next().expect("one").caller.clone();
    for _ in 0..crate::observe::alarm::ALARMS_MAX + 5 {
        alarms.raise(Kind::FanOut, &caller, None, None, 110);
    }
    let all = noticed(&alarms, None, 111);
    let (due, dropped) = book.due(&all, now);
    // Numbers 3 to 7 were never seen; 1 was told as open only.
    assert_eq!((due.len(), dropped), (crate::observe::alarm::ALARMS_MAX, 6));
    assert_eq!(book.due(&all, now).1, 0, "counted once");
}

#[test]
fn an_alert_has_the_form_that_alertmanager_takes() {
    let mut alarms = alarms();
    alarms.acknowledge(1, "me (uid 0)".into(), "".into(), 120);
    let all: Vec<&Alarm> = alarms.all().collect();
    assert_eq!(
        alert(all[0], 130),
        json!({
            "labels": {
                "alertname": "MeshDenialsBurst",
                "severity": "page",
                "kind": "denials",
                "source_workload": "nurse",
                "source_namespace": "lab",
                "source_principal": "spiffe://cluster.local/ns/lab/sa/nurse",
                "destination_service": "web.lab.svc.cluster.local",
                "destination_port": "8080",
            },
            "annotations": {
                "summary": "nurse.lab → web.lab.svc.cluster.local: denials",
                "alarm": "1",
                "runbook": "docs/runbooks/refused-calls.md",
                "description": "0.250 before (usually 0.000 to 1.000), 12.000 now, over 5 s: calls refused per second",
                "acknowledged": "me (uid 0) at 1970-01-01T00:02:00Z",
            },
            "startsAt": "1970-01-01T00:01:40Z",
            "endsAt": "1970-01-01T00:06:10Z",
        })
    );
    alarms.of_number(2).expect("kept").ended = Some(125);
    let over = alert(alarms.all().last().expect("one"), 130);
    assert_eq!(over["endsAt"], "1970-01-01T00:02:05Z");
    assert!(over["labels"].get("destination_service").is_none());
}

#[test]
fn a_url_is_one_and_holds_no_secret() {
    let alerts = |url: &str| Alertmanager::new(url, None, None).map(|it| it.alerts.to_string());
    assert_eq!(
        alerts("http://localhost:9093/"),
        Ok("http://localhost:9093/api/v2/alerts".to_owned())
    );
    assert_eq!(
        alerts("https://a.example/am"),
        Ok("https://a.example/am/api/v2/alerts".to_owned())
    );
    for url in ["", "localhost:9093", "ftp://a/", "/api", "http:///x"] {
        assert_eq!(alerts(url), Err(InvalidUrl::NoUrl), "{url}");
    }
    assert_eq!(alerts("https://me:word@a.example"), Err(InvalidUrl::Credentials));
    assert_eq!(alerts("https://a.example/?token=x"), Err(InvalidUrl::Query));
    let shown = format!("{:?}", Alertmanager::new("https://a.example/secret", None, None));
    assert!(shown.contains("https://a.example"));
}
