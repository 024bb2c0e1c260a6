//! Looks up the names of DNS clusters, again and again, and publishes the addresses as endpoints.
//!
//! One task for the process, and one for each cluster of names. A name that cannot be looked up
//! keeps the addresses that it had.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use ferromesh_proto::recurring::Recurring;
use futures_util::future::join_all;

use super::{ClusterState, StateRegistry, cluster_state::Names};
use crate::{
    resolve::{Families, Resolver},
    runtime::endpoint::{DnsFamily, EndpointAddress},
};

/// How often new or changed names are noticed.
const ROUND: Duration = Duration::from_millis(200);
/// Shortest time between two look-ups of one cluster, whatever it or the answer asks for.
const MIN_INTERVAL: Duration = Duration::from_secs(1);
/// Longest wait after a look-up that failed.
const RETRY: Duration = Duration::from_secs(5);

/// Runs until cancelled.
pub async fn run(registry: Arc<StateRegistry>) {
    let resolver = Resolver::default();
    let mut followed: HashMap<usize, Arc<Names>> = HashMap::new();
    loop {
        let mut seen = HashMap::with_capacity(followed.len());
        for cluster in registry.living() {
            let Some(names) = cluster.names() else { continue };
            let key = Arc::as_ptr(&cluster) as usize;
            if !followed.get(&key).is_some_and(|known| Arc::ptr_eq(known, &names)) {
                tokio::spawn(follow(
                    Arc::downgrade(&cluster),
                    Arc::clone(&names),
                    resolver.clone(),
                ));
            }
            seen.insert(key, names);
        }
        followed = seen;
        tokio::time::sleep(ROUND).await;
    }
}

/// What is known of each name and port.
type Known = HashMap<(Arc<str>, u16), Vec<SocketAddr>>;
/// Names whose look-ups failed.
type Failing = HashMap<Arc<str>, Recurring>;

/// Looks up a cluster's names until it is gone or has others.
async fn follow(cluster: Weak<ClusterState>, names: Arc<Names>, resolver: Resolver) {
    let (mut known, mut failing) = (Known::new(), Failing::new());
    loop {
        let wait = look_up_all(&names, &resolver, &mut known, &mut failing).await;
        let Some(cluster) = cluster.upgrade() else { return };
        if !cluster.names().is_some_and(|current| Arc::ptr_eq(&current, &names)) {
            return;
        }
        if !known.is_empty() {
            cluster.publish_resolved(&names.set, |host, port| {
                known.get(&(Arc::from(host), port)).cloned().unwrap_or_default()
            });
        }
        drop(cluster);
        tokio::time::sleep(wait).await;
    }
}

/// Looks up every name once; tells when the next time is due.
async fn look_up_all(
    names: &Names,
    resolver: &Resolver,
    known: &mut Known,
    failing: &mut Failing,
) -> Duration {
    let interval = names.refresh.interval;
    let mut wait = interval;
    let endpoints = names.set.localities.iter().flat_map(|locality| &locality.endpoints);
    let named = endpoints.filter_map(|endpoint| match &endpoint.address {
        EndpointAddress::Name { host, port } => Some((host, port)),
        EndpointAddress::Socket(_) => None,
    });
    // Side by side: a name that nobody answers for must not hold up the others.
    let families = families(names.refresh.family);
    let asked =
        named.map(async |(host, port)| (host, port, resolver.look_up(host, families).await));
    for (host, port, answer) in join_all(asked).await {
        match answer {
            Ok(answer) => {
                let before = failing.get_mut(host).and_then(|name| name.worked(Instant::now()));
                if let Some(failures) = before {
                    tracing::info!(%host, failures, "DNS look-up works again");
                }
                let found = answer
                    .addresses
                    .into_iter()
                    .map(|address| SocketAddr::new(address, *port))
                    .collect();
                known.insert((Arc::clone(host), *port), select(found, names));
                let told = Some(answer.valid_for)
                    .filter(|told| names.refresh.respect_ttl && !told.is_zero());
                wait = wait.min(told.unwrap_or(interval));
            }
            Err(error) => {
                let name = failing.entry(Arc::clone(host)).or_default();
                if let Some(failures) = name.failed(&error, Instant::now()) {
                    tracing::warn!(%error, failures, "DNS look-up failed");
                }
                wait = wait.min(RETRY);
            }
        }
    }
    wait.max(MIN_INTERVAL)
}

/// What a name server is asked for.
fn families(family: DnsFamily) -> Families {
    match family {
        DnsFamily::V4 => Families::V4,
        DnsFamily::V6 => Families::V6,
        DnsFamily::Auto => Families::V6Preferred,
        DnsFamily::V4Preferred => Families::V4Preferred,
        DnsFamily::All => Families::All,
    }
}

/// The addresses of an answer that count, in a stable order so that equal answers give equal sets.
fn select(mut found: Vec<SocketAddr>, names: &Names) -> Vec<SocketAddr> {
    let has = |v6: bool| found.iter().any(|address| address.is_ipv6() == v6);
    let (v4, v6) = match names.refresh.family {
        DnsFamily::V4 => (true, false),
        DnsFamily::V6 => (false, true),
        DnsFamily::Auto => (!has(true), true),
        DnsFamily::V4Preferred => (true, !has(false)),
        DnsFamily::All => (true, true),
    };
    found.retain(|address| if address.is_ipv6() { v6 } else { v4 });
    if names.first_address_only {
        found.truncate(1);
    } else {
        found.sort_unstable();
        found.dedup();
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::endpoint::{DnsRefresh, EndpointSet};

    #[test]
    fn the_family_decides_which_addresses_count() {
        let found: Vec<SocketAddr> = vec![
            "10.0.0.2:1".parse().unwrap(),
            "[fd00::1]:1".parse().unwrap(),
            "10.0.0.1:1".parse().unwrap(),
        ];
        for (family, first_address_only, expected) in [
            (DnsFamily::V4, false, vec!["10.0.0.1:1", "10.0.0.2:1"]),
            (DnsFamily::V4, true, vec!["10.0.0.2:1"]),
            (DnsFamily::V6, false, vec!["[fd00::1]:1"]),
            (DnsFamily::Auto, false, vec!["[fd00::1]:1"]),
            (DnsFamily::V4Preferred, false, vec!["10.0.0.1:1", "10.0.0.2:1"]),
            (DnsFamily::All, false, vec!["10.0.0.1:1", "10.0.0.2:1", "[fd00::1]:1"]),
        ] {
            let refresh =
                DnsRefresh { interval: Duration::from_secs(5), respect_ttl: false, family };
            let names =
                Names { set: Arc::new(EndpointSet::default()), refresh, first_address_only };
            let selected: Vec<String> =
                select(found.clone(), &names).iter().map(ToString::to_string).collect();
            assert_eq!(selected, expected, "{family:?}");
        }
    }
}
