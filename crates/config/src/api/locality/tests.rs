use crate::{LoadOptions, Source, load, model::LocalitySetting};

/// The setting of a rule with this text, and what is said of it.
fn read(setting: &str) -> (Option<LocalitySetting>, Vec<String>) {
    let text = format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: a}}\nspec:\n  host: a\n  \
         trafficPolicy:\n    outlierDetection: {{interval: 1s}}\n    loadBalancer:\n      localityLbSetting: {setting}\n"
    );
    let mut loaded = load(&[Source::new("t.yaml", text)], &LoadOptions::default());
    let said = loaded
        .diagnostics
        .iter()
        .map(|it| format!("{}: {}", it.origin.field_path, it.message))
        .collect();
    let rule = loaded.destination_rules.pop();
    let setting = rule.and_then(|rule| rule.policy.load_balancer?.locality);
    (setting, said)
}

#[test]
fn each_form_is_read() {
    assert_eq!(read("{enabled: false}").0, Some(LocalitySetting::Off));
    assert_eq!(read("{enabled: true}").0, Some(LocalitySetting::Nearest));
    let (setting, said) = read("{distribute: [{from: 'west/*', to: {'west/z1/*': 80, east: 20}}]}");
    let Some(LocalitySetting::Distribute(all)) = setting else {
        panic!("{said:?}")
    };
    assert_eq!(&*all[0].from, "west/*");
    assert_eq!(all[0].to, [("west/z1/*".into(), 80), ("east".into(), 20)]);
    let (setting, said) = read("{failover: [{from: west, to: east}], failoverPriority: [rack, 'tier=gold']}");
    let Some(LocalitySetting::Failover(failover)) = setting else {
        panic!("{said:?}")
    };
    assert_eq!(failover.regions, [("west".into(), "east".into())]);
    assert_eq!(
        failover.labels,
        [("rack".into(), None), ("tier".into(), Some("gold".into()))]
    );
    assert!(!failover.forced);
}

#[test]
#[expect(clippy::too_many_lines, reason = "one row after the other")]
fn each_mistake_is_refused_where_it_stands() {
    let place = "spec.trafficPolicy.loadBalancer.localityLbSetting";
    for (setting, field, words) in [
        ("{enabled: 1}", ".enabled", "true"),
        (
            "{distribute: [{to: {west: 100}}]}",
            ".distribute[0]",
            "`from` is missing",
        ),
        (
            "{distribute: [{from: west}]}",
            ".distribute[0]",
            "`to` is missing",
        ),
        (
            "{distribute: [{from: '*/z', to: {west: 100}}]}",
            ".distribute[0].from",
            "not a place",
        ),
        (
            "{distribute: [{from: west, to: {west: 90}}]}",
            ".distribute[0].to",
            "90 together",
        ),
        (
            "{distribute: [{from: west, to: {west: 0}}]}",
            ".distribute[0].to.west",
            "0",
        ),
        (
            "{distribute: [{from: west, to: {west: 101}}]}",
            ".distribute[0].to.west",
            "101",
        ),
        (
            "{distribute: [{from: west, to: {west: 50, 'west/z': 50}}]}",
            ".distribute[0].to.west/z",
            "overlap",
        ),
        (
            "{distribute: [{from: '*', to: {a: 100}}, {from: west, to: {a: 100}}]}",
            ".distribute[1].from",
            "overlap",
        ),
        (
            "{failover: [{from: west, to: west}]}",
            ".failover[0]",
            "its own failover",
        ),
        (
            "{failover: [{from: 'w*', to: west}]}",
            ".failover[0].from",
            "region's name",
        ),
        ("{failover: [{from: west}]}", ".failover[0]", "`to` is missing"),
        (
            "{failoverPriority: ['a=b=c']}",
            ".failoverPriority[0]",
            "not a label",
        ),
        ("{failoverPriority: [a, a]}", ".failoverPriority[1]", "twice"),
        (
            "{distribute: [{from: west, to: {west: 100}}], failover: [{from: a, to: b}]}",
            "",
            "failover",
        ),
        (
            "{distribute: [{from: west, to: {west: 100}}], failoverPriority: [a]}",
            "",
            "failoverPriority",
        ),
        ("{nonsense: 1}", ".nonsense", "nonsense"),
    ] {
        let (_, said) = read(setting);
        let wanted = format!("{place}{field}");
        assert!(
            said.iter()
                .any(|line| line.starts_with(&wanted) && line.contains(words)),
            "{setting}: {said:?}"
        );
    }
}

#[test]
fn a_failover_without_outlier_detection_is_warned_of() {
    let text = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: a}\nspec:\n  host: a\n  \
                trafficPolicy: {loadBalancer: {localityLbSetting: {failoverPriority: [rack]}}}\n";
    let loaded = load(&[Source::new("t.yaml", text)], &LoadOptions::default());
    assert!(
        loaded
            .diagnostics
            .iter()
            .any(|it| it.message.contains("outlierDetection")),
        "{:?}",
        loaded.diagnostics
    );
}

#[test]
fn the_meshs_setting_and_a_services_distribution_are_read() {
    let mesh = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio}\ndata:\n  mesh: 'localityLbSetting: {enabled: false}'\n";
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec:\n  trafficDistribution: PreferClose\n  \
                   ports: [{port: 80, name: http}]\n";
    let loaded = load(
        &[Source::new("m.yaml", mesh), Source::new("s.yaml", service)],
        &LoadOptions::default(),
    );
    assert_eq!(loaded.mesh.locality, LocalitySetting::Off);
    assert_eq!(
        loaded.services[0].traffic_distribution,
        Some(crate::model::TrafficDistribution::SameZone)
    );
}
