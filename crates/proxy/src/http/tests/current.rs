//! Connections that are older than the configuration.

use std::{collections::BTreeMap, collections::HashMap, rc::Rc, sync::Arc};

use rajut_ir::{
    filter::HttpFilter,
    listener::Direction,
    rbac::{Action, Rbac, Rules},
};

use super::harness::*;
use crate::{epoch::Config, http::manager::Manager};

/// Has the proxy take a configuration with these listeners.
fn adopt(proxy: &Proxy, version: u64, listeners: &[Arc<crate::listener::Listener>]) {
    let config = Arc::new(Config {
        version,
        listeners: listeners
            .iter()
            .map(|listener| (listener.ir.name.clone(), listener.clone()))
            .collect::<HashMap<_, _>>(),
        routes: proxy.config.routes.clone(),
        clusters: proxy.config.clusters.clone(),
        ..Config::default()
    });
    proxy.worker.adopt(Rc::new(proxy.worker.epoch().next(config)));
}

#[test]
fn a_request_is_judged_by_what_is_in_force_when_it_comes() {
    run(async {
        let (server, seen) = answering(OK).await;
        let proxy = Setup::to(&[server]).start().await;
        let mut client = proxy.client().await;
        assert_eq!(client.get("/").await.status, 200);
        let mut guarded = manager_ir();
        let nobody = Rbac {
            rules: Some(Arc::new(Rules::compile(Action::Allow, BTreeMap::new()))),
            ..Rbac::default()
        };
        guarded.filters.insert(0, HttpFilter::rbac(nobody));
        let manager = Manager::compile(Arc::new(guarded), Direction::Outbound, &proxy.registry).unwrap();
        adopt(&proxy, 2, &[listener_of(&manager)]);
        assert_eq!(client.get("/").await.status, 403);
        adopt(
            &proxy,
            3,
            &proxy.config.listeners.values().cloned().collect::<Vec<_>>(),
        );
        assert_eq!(client.get("/").await.status, 200);
        assert_eq!(seen.heads.borrow().len(), 2);
    });
}

#[test]
fn a_connection_whose_chain_is_gone_ends_with_its_next_answer() {
    run(async {
        let (server, _) = answering(OK).await;
        let proxy = Setup::to(&[server]).start().await;
        let mut client = proxy.client().await;
        assert_eq!(client.get("/").await.field("connection"), None);
        adopt(&proxy, 2, &[]);
        let last = client.get("/").await;
        assert_eq!((last.status, last.field("connection")), (200, Some("close")));
        assert!(!client.more().await);
    });
}
