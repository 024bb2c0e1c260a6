//! Looks up the names of DNS clusters, again and again, and publishes the addresses as endpoints.
//!
//! One task for the process. A look-up that fails or finds nothing leaves the endpoints as they are.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{ClusterState, StateRegistry, cluster_state::Names};
use crate::runtime::endpoint::{DnsFamily, EndpointAddress};

/// How often new or changed names are noticed.
const ROUND: Duration = Duration::from_millis(200);
/// Shortest time between two look-ups of one cluster, whatever it asks for.
const MIN_INTERVAL: Duration = Duration::from_secs(1);

/// Runs until cancelled.
pub async fn run(registry: Arc<StateRegistry>) {
    let mut due: HashMap<usize, (Arc<Names>, Instant)> = HashMap::new();
    loop {
        let mut seen = HashMap::with_capacity(due.len());
        for cluster in registry.living() {
            let Some(names) = cluster.names() else { continue };
            let key = Arc::as_ptr(&cluster) as usize;
            let next = match due.remove(&key) {
                Some((of, next)) if Arc::ptr_eq(&of, &names) && next > Instant::now() => next,
                _ => {
                    let next = Instant::now() + names.refresh.interval.max(MIN_INTERVAL);
                    tokio::spawn(refresh(cluster, Arc::clone(&names)));
                    next
                }
            };
            seen.insert(key, (names, next));
        }
        due = seen;
        tokio::time::sleep(ROUND).await;
    }
}

/// Looks up every name of a cluster once and publishes what was found.
async fn refresh(cluster: Arc<ClusterState>, names: Arc<Names>) {
    let mut answers: HashMap<(Arc<str>, u16), Vec<SocketAddr>> = HashMap::new();
    for endpoint in names.set.localities.iter().flat_map(|locality| &locality.endpoints) {
        let EndpointAddress::Name { host, port } = &endpoint.address else { continue };
        match tokio::net::lookup_host((&**host, *port)).await {
            Ok(found) => {
                answers.insert((Arc::clone(host), *port), select(found.collect(), &names));
            }
            Err(error) => tracing::warn!(cluster = %cluster.name, %host, %error, "DNS look-up failed"),
        }
    }
    let of_same_names = cluster.names().is_some_and(|current| Arc::ptr_eq(&current, &names));
    if of_same_names && !answers.values().all(Vec::is_empty) {
        cluster.publish_resolved(&names.set, |host, port| {
            answers.get(&(Arc::from(host), port)).cloned().unwrap_or_default()
        });
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
        let found: Vec<SocketAddr> =
            vec!["10.0.0.2:1".parse().unwrap(), "[fd00::1]:1".parse().unwrap(), "10.0.0.1:1".parse().unwrap()];
        for (family, first_address_only, expected) in [
            (DnsFamily::V4, false, vec!["10.0.0.1:1", "10.0.0.2:1"]),
            (DnsFamily::V4, true, vec!["10.0.0.2:1"]),
            (DnsFamily::V6, false, vec!["[fd00::1]:1"]),
            (DnsFamily::Auto, false, vec!["[fd00::1]:1"]),
            (DnsFamily::V4Preferred, false, vec!["10.0.0.1:1", "10.0.0.2:1"]),
            (DnsFamily::All, false, vec!["10.0.0.1:1", "10.0.0.2:1", "[fd00::1]:1"]),
        ] {
            let refresh = DnsRefresh { interval: Duration::from_secs(5), family };
            let names = Names { set: Arc::new(EndpointSet::default()), refresh, first_address_only };
            let selected: Vec<String> = select(found.clone(), &names).iter().map(ToString::to_string).collect();
            assert_eq!(selected, expected, "{family:?}");
        }
    }
}
