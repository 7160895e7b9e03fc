use std::collections::BTreeMap;

use rajut_config::model::{
    Distribution, Failover, LoadBalancer, LocalitySetting, MeshConfig, OutlierDetection, TrafficDistribution,
};
use rajut_ir::endpoint::{Endpoint, EndpointAddress, Health};
use rajut_types::{Labels, Locality, Percent, Text};

use super::*;
use crate::tests::fixtures;

fn outlier() -> OutlierDetection {
    OutlierDetection {
        consecutive_5xx: Some(5),
        consecutive_gateway: None,
        consecutive_local_origin: None,
        split_local_origin: false,
        interval: std::time::Duration::from_secs(1),
        base_ejection_time: std::time::Duration::from_secs(1),
        max_ejection_percent: Percent::ALL,
        min_health_percent: Percent::default(),
        error_statuses: Vec::new(),
    }
}

fn policy(locality: Option<LocalitySetting>, ejects: bool) -> Effective {
    Effective {
        load_balancer: Some(LoadBalancer {
            algorithm: None,
            warmup: None,
            locality,
        }),
        outlier: ejects.then(outlier),
        ..Effective::default()
    }
}

fn preference(setting: Option<LocalitySetting>, ejects: bool, place: &str, labels: &Labels) -> Preference {
    let service = fixtures::service("api", 1, 80, rajut_config::model::Protocol::Http);
    let place = Locality::parse(place);
    Preference::new(
        &MeshConfig::default(),
        &service,
        &policy(setting, ejects),
        &place,
        labels,
    )
}

fn labels(list: &[(&str, &str)]) -> Labels {
    list.iter().copied().collect()
}

fn endpoint(weight: u32) -> Endpoint {
    Endpoint {
        address: EndpointAddress::Pipe("x".into()),
        health: Health::Healthy,
        weight,
        hostname: Text::default(),
        tls_labels: Labels::default(),
        workload: Text::default(),
        lb_labels: Labels::default(),
    }
}

/// Place, priority and weight of the localities that stand at these places, one endpoint each of the weight given.
fn placed(preference: &Preference, places: &[(&str, u32)]) -> Vec<(String, u32, Option<u32>)> {
    let mut all: BTreeMap<(u32, Locality), Vec<Endpoint>> = BTreeMap::new();
    for (place, weight) in places {
        let place = Locality::parse(place);
        let distance = preference.distance(&place, &Labels::default());
        all.entry((distance, place)).or_default().push(endpoint(*weight));
    }
    let localities = preference.localities(all);
    localities
        .iter()
        .map(|it| (it.locality.to_string(), it.priority, it.weight))
        .collect()
}

fn priorities(preference: &Preference, places: &[&str]) -> Vec<u32> {
    let given: Vec<_> = places.iter().map(|place| (*place, 1)).collect();
    let found = placed(preference, &given);
    let of = |place: &str| {
        let place = Locality::parse(place).to_string();
        found.iter().find(|it| it.0 == place).map_or(99, |it| it.1)
    };
    places.iter().map(|place| of(place)).collect()
}

const PLACES: [&str; 5] = ["west/a/1", "west/a/2", "west/b/1", "east/a/1", "north/a/1"];

#[test]
fn nearer_places_come_first_with_ejection_only() {
    let none = Labels::default();
    let near = |setting, ejects| priorities(&preference(setting, ejects, "west/a/1", &none), &PLACES);
    assert_eq!(near(None, true), [0, 1, 2, 3, 3]);
    assert_eq!(near(None, false), [0; 5]);
    assert_eq!(near(Some(LocalitySetting::Off), true), [0; 5]);
    let next = LocalitySetting::Failover(Failover {
        regions: vec![("west".into(), "north".into())],
        ..Failover::default()
    });
    assert_eq!(near(Some(next.clone()), true), [0, 1, 2, 4, 3]);
    let elsewhere = preference(Some(next), true, "east/a/1", &none);
    assert_eq!(
        priorities(&elsewhere, &PLACES),
        [1, 1, 1, 0, 1],
        "no failover for the east"
    );
    let compacted = preference(None, true, "west/a/1", &none);
    assert_eq!(priorities(&compacted, &["west/b/1", "east/a/1"]), [0, 1]);
}

#[test]
fn labels_in_their_order_say_what_is_near() {
    let setting = |labels: &[(&str, Option<&str>)], regions: Vec<(Text, Text)>| {
        let labels = labels
            .iter()
            .map(|(key, value)| ((*key).into(), value.map(Text::from)));
        LocalitySetting::Failover(Failover {
            regions,
            labels: labels.collect(),
            forced: false,
        })
    };
    let own = labels(&[("rack", "r1"), ("tier", "gold"), ("other", "x")]);
    let by_rack = setting(&[("rack", None), ("tier", Some("silver"))], Vec::new());
    let found = preference(Some(by_rack), true, "west/a/1", &own);
    let Preference::Near { labels: kept, .. } = &found else {
        panic!("{found:?}")
    };
    assert_eq!(
        *kept,
        labels(&[("rack", "r1"), ("tier", "gold")]),
        "what is asked for"
    );
    let distance = |list: &[(&str, &str)]| found.distance(&Locality::parse("east/a/1"), &labels(list));
    assert_eq!(distance(&[("rack", "r1"), ("tier", "silver")]), 0);
    assert_eq!(distance(&[("rack", "r1"), ("tier", "gold")]), 1);
    assert_eq!(distance(&[("rack", "r2"), ("tier", "silver")]), 2);
    assert_eq!(distance(&[]), 2);
    // Topology labels are what the place says; places count beneath labels where `failover` stands beside.
    let by_zone = setting(
        &[("topology.kubernetes.io/region", None)],
        vec![("west".into(), "east".into())],
    );
    let found = preference(Some(by_zone), true, "west/a/1", &Labels::default());
    assert_eq!(priorities(&found, &PLACES), [0, 1, 2, 3, 4]);
}

#[test]
fn shares_are_by_the_clients_place_and_leave_out_what_they_do_not_name() {
    let setting = LocalitySetting::Distribute(vec![
        Distribution {
            from: "west/a/*".into(),
            to: vec![("west/a/*".into(), 80), ("east".into(), 20)],
        },
        Distribution {
            from: "west".into(),
            to: vec![("west".into(), 100)],
        },
    ]);
    let of = |place: &str| preference(Some(setting.clone()), false, place, &Labels::default());
    let given = [("west/a/1", 1), ("west/a/2", 3), ("west/b/1", 1), ("east/a/1", 5)];
    let row = |place: &str, weight: u32| (Locality::parse(place).to_string(), 0, Some(weight));
    assert_eq!(
        placed(&of("west/a/1"), &given),
        [row("east/a/1", 20), row("west/a/1", 20), row("west/a/2", 60)]
    );
    assert_eq!(
        placed(&of("west/b/1"), &[("east/a/1", 1), ("west/b/1", 7)]),
        [row("west/b/1", 100)]
    );
    assert_eq!(
        placed(&of("north/a/1"), &given),
        [
            row("east/a/1", 5),
            row("west/a/1", 1),
            row("west/a/2", 3),
            row("west/b/1", 1)
        ],
        "nobody said anything of the north: each locality by its endpoints"
    );
}

#[test]
fn a_services_own_distribution_needs_no_ejection_and_a_rule_goes_before_it() {
    let mut service = fixtures::service("api", 1, 80, rajut_config::model::Protocol::Http);
    service.traffic_distribution = Some(TrafficDistribution::SameZone);
    let place = Locality::parse("west/a/1");
    let of = |setting| {
        let policy = policy(setting, false);
        Preference::new(
            &MeshConfig::default(),
            &service,
            &policy,
            &place,
            &Labels::default(),
        )
    };
    assert_eq!(priorities(&of(None), &PLACES), [0, 1, 2, 3, 3]);
    assert_eq!(priorities(&of(Some(LocalitySetting::Nearest)), &PLACES), [0; 5]);
}
