//! Balancing over real hosts, and clusters that change under traffic.

use std::{collections::HashMap, rc::Rc, sync::Arc};

use rajut_ir::{cluster::LbPolicy, endpoint::Health};

use super::harness::{OK, Setup, answering, assignment, cluster_ir, run, until};
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
            routes: proxy.config.routes.clone(),
            clusters: HashMap::from([("app".into(), smaller.clone())]),
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
