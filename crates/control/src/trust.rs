//! Whom the mesh believes: told to everybody, and carried from one root to the next ([`rotation`](crate::ca::rotation)).
//!
//! ```text
//!  issuer ──roots──► registry (snapshot) ──► every proxy's secret `ROOTCA` ──► its acknowledgement
//!     ▲                                                                            │
//!     └──────────────── the step is over when everybody has acknowledged ◄─────────┘
//! ```
//!
//! Bound: one look at all connected proxies per [`LOOK`] while a change is under way, none otherwise.

use std::{sync::Arc, time::Duration};

use rajut_config::{Snapshot, model::WorkloadHealth, snapshot::Trust};
use rajut_translate::Role;
use tokio::task::JoinSet;

use crate::{
    admin::Admin,
    ca::{
        SharedAuthority,
        rotation::{Follower, GATHER, Standing, Step, Wait},
        unix_seconds,
    },
    discovery::Discovery,
};

/// Between two looks at who has acknowledged.
const LOOK: Duration = Duration::from_millis(100);
/// After a step that can't be written down.
const AGAIN: Duration = Duration::from_secs(5);
/// A root that ends sooner is warned of.
const ENDS_SOON: Duration = Duration::from_hours(90 * 24);
/// Between two warnings.
const WARN_EVERY: Duration = Duration::from_hours(24);

/// How everybody stands to what the mesh is told now.
pub(crate) fn followers(
    authority: &SharedAuthority,
    discovery: &Discovery,
    snapshot: &Snapshot,
) -> Vec<Follower> {
    let (roots, crl) = authority.told();
    let is_news = |trust: &Trust| trust.roots == roots && trust.crl == crl;
    let is_told = |trust: &Arc<Trust>| is_news(trust) && trust.since <= discovery.pushed();
    let is_told = snapshot.trust.as_ref().is_some_and(is_told);
    let mut standings = discovery.standings();
    for (_, standing) in &mut standings {
        // What was acknowledged is what was told before.
        if !is_told && *standing == Standing::Acknowledged {
            *standing = Standing::Pending;
        }
    }
    let is_beside = |namespace: &str, name: &str| {
        let mut here = standings.iter();
        here.any(|(proxy, _)| *proxy.namespace == *namespace && *proxy.workload == *name)
    };
    let mut followers: Vec<Follower> = standings
        .iter()
        // A proxyless process believes its files, for which its agent answers.
        .filter(|(proxy, standing)| {
            let mut others = standings.iter();
            let is_agent = |(other, standing): &(Arc<rajut_translate::Proxy>, Standing)| {
                other.id == proxy.id && *standing != Standing::NotFollowing
            };
            proxy.role != Role::Grpc || *standing != Standing::NotFollowing || !others.any(is_agent)
        })
        .map(|(proxy, standing)| Follower {
            name: proxy.workload.clone(),
            namespace: proxy.namespace.clone(),
            standing: standing.clone(),
        })
        .collect();
    let away = snapshot
        .workloads
        .values()
        .filter(|workload| workload.mesh && workload.health == WorkloadHealth::Ready)
        .filter(|workload| !is_beside(&workload.namespace, &workload.name));
    followers.extend(away.map(|workload| Follower {
        name: workload.name.clone(),
        namespace: workload.namespace.clone(),
        standing: Standing::Away,
    }));
    followers.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    followers
}

/// Starts what follows the issuer.
pub(crate) fn spawn(tasks: &mut JoinSet<()>, admin: &Admin) {
    tasks.spawn(carry(admin.clone()));
    tasks.spawn(watch_ends(admin.clone()));
}

/// Tells everybody, for ever, and goes on with a change of roots step by step.
async fn carry(admin: Admin) {
    let Admin {
        authority,
        registry,
        discovery,
        readiness,
        ..
    } = admin;
    // Before that nobody is told anything, and who runs is not known.
    readiness.ready().await;
    if let Some(rotation) = authority.rotation() {
        tracing::info!(step = ?rotation.step, "the change to another root goes on where it was");
        tokio::time::sleep(GATHER).await;
    }
    loop {
        let version = authority.version();
        let (told, registry_of_it) = (authority.told(), registry.clone());
        let generation = tokio::task::spawn_blocking(move || registry_of_it.set_trust(told)).await;
        let Ok(generation) = generation else { return };
        let Some(rotation) = authority.rotation() else {
            authority.changed(&version).await;
            continue;
        };
        discovery.reached(generation).await;
        let followers = followers(&authority, &discovery, &registry.snapshot());
        if rotation.wait(&followers) == Wait::Over {
            advance(&authority, rotation.step, followers.len()).await;
        } else {
            // The operator may want something else.
            let _ = tokio::time::timeout(LOOK, authority.changed(&version)).await;
        }
    }
}

async fn advance(authority: &SharedAuthority, done: Step, proxies: usize) {
    let turning = Arc::clone(authority);
    let turned = tokio::task::spawn_blocking(move || turning.advance_rotation(done)).await;
    match turned {
        Ok(Ok(())) => tracing::info!(?done, next = ?done.next(), proxies, "every proxy has acknowledged"),
        Ok(Err(error)) => {
            tracing::error!(%error, "the change to another root can't go on");
            tokio::time::sleep(AGAIN).await;
        }
        Err(error) => tracing::error!(%error, "the change to another root can't go on"),
    }
}

/// Says in time that the root ends.
async fn watch_ends(admin: Admin) {
    loop {
        let ends = admin.authority.root_ends();
        let left = ends.saturating_sub(unix_seconds(admin.clock.wall()));
        if left < ENDS_SOON.as_secs() {
            tracing::warn!(
                days = left / 86_400,
                "the mesh's root ends: go to another one in time (`rajut identity rotate-root`)"
            );
        }
        tokio::time::sleep(WARN_EVERY).await;
    }
}
