use super::*;

const ID: &str = "6d1f8f0e-35c0-9f3b-8a47-0c9ad2c3f1aa";

/// A line of Istio's text format.
fn text(started: &str, duration: u64, cluster: &str, id: &str, [client, server]: [u16; 2]) -> String {
    let (local, remote) = if cluster.starts_with("outbound") {
        (format!("10.0.0.1:{client}"), "10.0.0.1:9".to_owned())
    } else {
        ("127.0.0.1:8".to_owned(), format!("10.0.0.1:{client}"))
    };
    format!(
        "[2026-11-21T18:34:{started}Z] \"GET /a?b=\\x22 HTTP/1.1\" 200 - via_upstream - \"-\" 0 5 {duration} 1 \"-\" \
         \"curl\" \"{id}\" \"web\" \"10.0.0.2:{server}\" {cluster} {local} 10.0.0.2:{server} {remote} - default"
    )
}

fn folder(name: &str, logs: &[(&str, &[String])]) -> std::path::PathBuf {
    let folder = std::env::temp_dir().join(format!("rajut-request-{name}-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    for (file, lines) in logs {
        fs::write(folder.join(file), lines.join("\n")).unwrap();
    }
    folder
}

fn found(folder: std::path::PathBuf, id: &str) -> Vec<String> {
    let lines = of_request(&folder, id).unwrap();
    fs::remove_dir_all(folder).unwrap();
    lines
        .iter()
        .map(|line| {
            let end = if line.end == Some(End::Client) {
                "out"
            } else {
                "in"
            };
            format!("{} {end}", line.workload)
        })
        .collect()
}

#[test]
fn a_request_is_followed_from_hop_to_hop_across_logs_that_turned_over() {
    let other = format!("{ID}1");
    let folder = folder(
        "hops",
        &[
            ("a.lab.log", &[format!("the application's own line about {ID}")]),
            (
                "a.lab.sidecar.log.1",
                &[text("56.100", 30, "outbound|80||b", ID, [1001, 80])],
            ),
            (
                "a.lab.sidecar.log",
                &[text("56.100", 30, "outbound|80||b", &other, [1002, 80])],
            ),
            (
                "b.lab.sidecar.log",
                &[
                    text("56.102", 20, "outbound|80||c", ID, [1003, 81]),
                    text("56.101", 28, "inbound|80||", ID, [1001, 80]),
                ],
            ),
            (
                "c.lab.sidecar.log",
                &[text("56.103", 2, "inbound|80||", ID, [1003, 81])],
            ),
        ],
    );
    assert_eq!(
        found(folder, ID),
        ["a.lab out", "b.lab in", "b.lab out", "c.lab in"],
        "the line of another id that begins alike does not belong to it, nor what applications write"
    );
}

#[test]
fn hops_within_one_millisecond_are_in_order_by_their_connections() {
    let line = |cluster, ports| text("56.100", 1, cluster, ID, ports);
    let folder = folder(
        "alike",
        &[
            ("a.lab.sidecar.log", &[line("inbound|80||", [1003, 81])]),
            (
                "b.lab.sidecar.log",
                &[
                    line("outbound|80||a", [1003, 81]),
                    line("inbound|80||", [1001, 80]),
                ],
            ),
            ("c.lab.sidecar.log", &[line("outbound|80||b", [1001, 80])]),
        ],
    );
    assert_eq!(
        found(folder, ID),
        ["c.lab out", "b.lab in", "b.lab out", "a.lab in"]
    );
}

#[test]
fn the_inner_end_of_a_hop_may_be_done_after_the_outer_one() {
    let folder = folder(
        "longer",
        &[
            (
                "a.lab.sidecar.log",
                &[text("56.100", 5, "outbound|80||b", ID, [1001, 80])],
            ),
            (
                "b.lab.sidecar.log",
                &[text("56.100", 7, "inbound|80||", ID, [1001, 80])],
            ),
        ],
    );
    assert_eq!(found(folder, ID), ["a.lab out", "b.lab in"]);
}

#[test]
fn json_is_read_and_what_has_no_time_stands_at_the_end() {
    let json = |duration: u64, cluster: &str| {
        serde_json::json!({
            "upstream_cluster": cluster, "request_id": ID, "duration": duration, "start_time": "2026-11-21T18:34:56.100Z"
        })
        .to_string()
    };
    let folder = folder(
        "json",
        &[
            ("a.lab.sidecar.log", &[format!("outbound|80||b {ID}")]),
            ("b.lab.sidecar.log", &[json(3, "inbound|80||")]),
            ("c.lab.sidecar.log", &[json(4, "outbound|80||b")]),
        ],
    );
    assert_eq!(found(folder, ID), ["c.lab out", "b.lab in", "a.lab out"]);
}

#[test]
fn no_folder_and_no_id_find_nothing() {
    assert_eq!(of_request(Path::new("/nonexistent"), ID).unwrap(), []);
    let folder = folder("empty", &[("a.lab.sidecar.log", &["x".to_owned()])]);
    assert!(found(folder, "").is_empty());
}
