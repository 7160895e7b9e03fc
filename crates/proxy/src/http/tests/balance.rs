//! Balancing over real hosts, and clusters that change under traffic.

use std::{collections::HashMap, rc::Rc, sync::Arc};

use rajut_ir::{cluster::LbPolicy, endpoint::Health};

use super::harness::{OK, Setup, answering, assignment, cluster_ir, retry_on, run, until};
use crate::{
    cluster::{Cluster, PickContext, Transports},
    epoch::Config,
};

#[test]
fn round_robin_takes_turns_and_respects_weights() {
    run(async {
        let (one, seen_one) = answering(OK).await;
        let (two, seen_two) = answering(OK).await;
        let mut setup = Setup::to(&[one, two]);
        let mut weighted = assignment(&[one, two]);
        weighted.localities[0].endpoints[0].weight = 3;
        setup.cluster.discovery = rajut_ir::cluster::Discovery::Static(weighted);
        let proxy = setup.start().await;
        let mut client = proxy.client().await;
        for _ in 0..40 {
            client.get("/").await;
        }
        assert_eq!(
            (seen_one.heads.borrow().len(), seen_two.heads.borrow().len()),
            (30, 10)
        );
    });
}

#[test]
fn least_request_avoids_the_busy_host() {
    run(async {
        let (one, _) = answering(OK).await;
        let (two, seen_two) = answering(OK).await;
        let mut setup = Setup::to(&[one, two]);
        setup.cluster.lb_policy = LbPolicy::LeastRequest { choices: 8 };
        let proxy = setup.start().await;
        let _busy: Vec<_> = (0..3).map(|_| proxy.cluster.hosts()[0].begin_request()).collect();
        let mut client = proxy.client().await;
        for _ in 0..20 {
            client.get("/").await;
        }
        assert!(seen_two.heads.borrow().len() >= 18);
    });
}

#[test]
fn hosts_that_are_unhealthy_or_draining_get_nothing_and_panic_uses_all() {
    run(async {
        let (one, seen_one) = answering(OK).await;
        let (two, _) = answering(OK).await;
        for health in [Health::Unhealthy, Health::Draining] {
            let mut setup = Setup::to(&[one, two]);
            let mut marked = assignment(&[one, two]);
            marked.localities[0].endpoints[0].health = health;
            setup.cluster.discovery = rajut_ir::cluster::Discovery::Static(marked);
            let proxy = setup.start().await;
            let mut client = proxy.client().await;
            for _ in 0..6 {
                client.get("/").await;
            }
            assert_eq!(seen_one.heads.borrow().len(), 0);
        }
        let mut panicking = Setup::to(&[one, two]);
        let mut marked = assignment(&[one, two]);
        for endpoint in &mut marked.localities[0].endpoints {
            endpoint.health = Health::Unhealthy;
        }
        panicking.cluster.discovery = rajut_ir::cluster::Discovery::Static(marked);
        panicking.cluster.panic_threshold = rajut_types::Percent::new(50.0).unwrap();
        assert_eq!(panicking.start().await.get("/").await.status, 200);
    });
}

#[test]
fn the_same_key_goes_to_the_same_host_and_few_keys_move() {
    run(async {
        let addresses: Vec<_> = (1..=10)
            .map(|n| format!("10.0.0.{n}:80").parse().unwrap())
            .collect();
        let proxy = Setup::to(&addresses).start().await;
        let mut ir = cluster_ir(&addresses);
        ir.lb_policy = LbPolicy::RingHash {
            minimum_ring_size: 1024,
        };
        let cluster = |ir: rajut_ir::cluster::Cluster| {
            Cluster::build(Arc::new(ir), None, Transports::default(), &proxy.registry, None)
        };
        let pick = |cluster: &Cluster, key: u64| {
            let context = PickContext {
                worker: &proxy.worker,
                hash: Some(key),
                exclude: &[],
                destination: None,
                skip_priorities: 0,
            };
            cluster.pick(&context).unwrap().address.clone()
        };
        let all = cluster(ir.clone());
        let mut fewer = cluster_ir(&addresses[..9]);
        fewer.lb_policy = ir.lb_policy.clone();
        let fewer = cluster(fewer);
        let mut moved = 0;
        for key in 0..1000 {
            let first = pick(&all, key);
            assert_eq!(first, pick(&all, key));
            moved += usize::from(first != pick(&fewer, key));
        }
        assert!((50..150).contains(&moved), "{moved} of 1000 keys moved");
    });
}

#[test]
fn a_removed_host_gets_nothing_more_and_its_idle_connections_close() {
    run(async {
        let (one, seen_one) = answering(OK).await;
        let (two, seen_two) = answering(OK).await;
        let proxy = Setup::to(&[one, two]).start().await;
        let mut client = proxy.client().await;
        client.get("/").await;
        client.get("/").await;
        assert_eq!(seen_one.active.get(), 1);
        let smaller = Cluster::build(
            Arc::new(cluster_ir(&[two])),
            None,
            Transports::default(),
            &proxy.registry,
            Some(&proxy.cluster),
        );
        let config = Arc::new(Config {
            version: 2,
            listeners: proxy.config.listeners.clone(),
            routes: proxy.config.routes.clone(),
            clusters: HashMap::from([("app".into(), crate::cluster::Slot::of(&smaller, &proxy.registry))]),
            ..Config::default()
        });
        proxy.worker.adopt(Rc::new(proxy.worker.epoch().next(config)));
        for _ in 0..4 {
            assert_eq!(client.get("/").await.status, 200);
        }
        assert_eq!(
            (seen_one.heads.borrow().len(), seen_two.heads.borrow().len()),
            (1, 5)
        );
        assert_eq!(
            seen_two.connections.get(),
            1,
            "connections to hosts that stay are kept"
        );
        until("the idle connection is closed", || seen_one.active.get() == 0).await;
        assert_eq!(
            smaller.hosts()[0].counts().rq_total,
            5,
            "counts outlive the update"
        );
    });
}

#[test]
fn localities_share_load_by_their_weights_whatever_their_size() {
    run(async {
        let (one, seen_one) = answering(OK).await;
        let (two, seen_two) = answering(OK).await;
        let (three, seen_three) = answering(OK).await;
        let mut setup = Setup::to(&[one]);
        let mut spread = assignment(&[one]);
        let mut other = assignment(&[two, three]).localities.remove(0);
        other.weight = Some(1);
        spread.localities[0].weight = Some(3);
        spread.localities.push(other);
        setup.cluster.discovery = rajut_ir::cluster::Discovery::Static(spread);
        setup.cluster.locality_weighted = true;
        let proxy = setup.start().await;
        let mut client = proxy.client().await;
        for _ in 0..80 {
            client.get("/").await;
        }
        let counts = [&seen_one, &seen_two, &seen_three].map(|seen| seen.heads.borrow().len());
        assert_eq!(counts, [60, 10, 10]);
    });
}

/// Envoy's example of locality weights: a locality with half of its hosts in service weighs 70 % of what it did.
#[test]
fn a_locality_that_lost_hosts_gives_up_the_share_that_it_can_not_carry() {
    run(async {
        let address = |number: u8| format!("10.0.0.{number}:80").parse().unwrap();
        let proxy = Setup::to(&[address(1)]).start().await;
        let near_share = |unhealthy: bool, picks: u32| {
            let mut spread = assignment(&[address(1), address(2)]);
            let mut other = assignment(&[address(3)]).localities.remove(0);
            spread.localities[0].weight = Some(80);
            other.weight = Some(20);
            if unhealthy {
                spread.localities[0].endpoints[1].health = Health::Unhealthy;
            }
            spread.localities.push(other);
            let mut ir = cluster_ir(&[address(1)]);
            ir.discovery = rajut_ir::cluster::Discovery::Static(spread);
            ir.locality_weighted = true;
            ir.lb_policy = LbPolicy::LeastRequest { choices: 2 };
            let cluster = Cluster::build(Arc::new(ir), None, Transports::default(), &proxy.registry, None);
            let context = PickContext {
                worker: &proxy.worker,
                hash: None,
                exclude: &[],
                destination: None,
                skip_priorities: 0,
            };
            let picked = (0..picks).filter(|_| {
                let host = cluster.pick(&context).unwrap();
                assert!(!unhealthy || host.address.to_string() != "10.0.0.2:80");
                host.address.to_string() != "10.0.0.3:80"
            });
            u32::try_from(picked.count()).unwrap()
        };
        // Five standard deviations of 4,000 draws are about 140.
        let (all, half) = (near_share(false, 4_000), near_share(true, 4_000));
        assert!((3_060..3_340).contains(&all), "80 %: {all}");
        assert!((2_807..3_087).contains(&half), "56 of 76: {half}");
    });
}

#[test]
fn a_retry_goes_to_another_priority_where_the_policy_says_so() {
    run(async {
        let (local, _) = answering("HTTP/1.1 503 Unavailable\r\nContent-Length: 0\r\n\r\n").await;
        let (remote, seen) = answering(OK).await;
        let mut setup = Setup::to(&[local]);
        let mut spread = assignment(&[local]);
        let mut other = assignment(&[remote]).localities.remove(0);
        other.priority = 1;
        spread.localities.push(other);
        setup.cluster.discovery = rajut_ir::cluster::Discovery::Static(spread);
        let mut policy = retry_on(rajut_ir::route::RetryOn::FIVE_XX, 1);
        policy.previous_priorities_update = Some(1);
        setup.forward().retry = Some(policy);
        let proxy = setup.start().await;
        assert_eq!(proxy.get("/").await.status, 200);
        assert_eq!(seen.heads.borrow().len(), 1);
    });
}

#[test]
fn a_hash_cookie_is_made_once_and_keeps_its_host() {
    run(async {
        let (one, seen_one) = answering(OK).await;
        let (two, seen_two) = answering(OK).await;
        let mut setup = Setup::to(&[one, two]);
        setup.cluster.lb_policy = LbPolicy::Maglev { table_size: 65_537 };
        setup.forward().hash = vec![rajut_ir::route::HashPolicy::Cookie {
            name: "route".into(),
            ttl: Some(std::time::Duration::from_mins(1)),
            path: "/".into(),
        }];
        let proxy = setup.start().await;
        let first = proxy.get("/").await;
        let cookie = first
            .field("set-cookie")
            .unwrap()
            .split(';')
            .next()
            .unwrap()
            .to_owned();
        assert!(
            first
                .field("set-cookie")
                .unwrap()
                .ends_with("; Max-Age=60; Path=/; HttpOnly")
        );
        for _ in 0..10 {
            let mut client = proxy.client().await;
            client
                .send(format!(
                    "GET / HTTP/1.1\r\nHost: a\r\nCookie: x=1; {cookie}\r\n\r\n"
                ))
                .await;
            assert_eq!(client.reply(false).await.field("set-cookie"), None);
        }
        let counts = (seen_one.heads.borrow().len(), seen_two.heads.borrow().len());
        assert!(counts == (11, 0) || counts == (0, 11), "{counts:?}");
    });
}

#[test]
fn a_waiter_at_the_cap_gets_the_place_that_another_worker_holds_idle() {
    run(async {
        let (app, seen) = answering(OK).await;
        let mut setup = Setup::to(&[app]);
        setup.cluster.circuit_breakers.max_connections = 1;
        let proxy = setup.start().await;
        assert_eq!(proxy.get("/").await.status, 200);
        assert_eq!(proxy.cluster.breakers().connections_now(), 1);
        // A second worker: pools of its own, the same cluster.
        let pools: Rc<crate::upstream::pool::Pools> = Rc::default();
        let host = proxy.cluster.hosts()[0].clone();
        let wants = crate::upstream::pool::Wants {
            version: rajut_codec::Version::Http11,
            careful: false,
            fresh: false,
        };
        let got = tokio::time::timeout(
            std::time::Duration::from_secs(3),
            pools.acquire(&proxy.worker, &proxy.cluster, &host, wants, "app"),
        )
        .await;
        let _held = got.expect("the idle connection is given up").unwrap();
        until("one was closed", || seen.active.get() == 1).await;
        assert_eq!(seen.connections.get(), 2);
    });
}
