//! Which locality takes a request where a cluster balances over zones: as much as possible stays in
//! the proxy's own, while every endpoint gets about as much as the others.
//!
//! What the proxy's replicas are is what Envoy calls the local cluster: by their share of a locality
//! one knows how much comes from there. Spec: Envoy, "Zone aware routing".

use std::sync::Arc;

use arc_swap::ArcSwap;
use smallvec::SmallVec;

use crate::runtime::{
    cluster::ZoneSettings,
    endpoint::{EndpointSet, HealthStatus, Locality},
};

/// A whole, in the parts in which shares are counted.
const WHOLE: u64 = 10_000;

/// Where the proxy is, and where its replicas are.
#[derive(Debug, Default)]
pub struct Peers {
    here: Locality,
    places: ArcSwap<Places>,
}

/// Of each locality how many replicas there are.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Places {
    /// Those that take traffic; sorted; what nobody is in is left out, unless all are ill there.
    healthy: Vec<(Locality, u64)>,
    ill: u64,
}

impl Peers {
    /// Of a proxy that is here; nobody else is known yet.
    pub fn new(here: Locality) -> Self {
        Self { here, places: ArcSwap::default() }
    }

    /// Replaces what is known of the replicas.
    pub fn publish(&self, set: &EndpointSet) {
        let mut places = Places::default();
        for group in set.localities.iter().filter(|group| !group.endpoints.is_empty()) {
            let all = group.endpoints.len() as u64;
            let healthy =
                group.endpoints.iter().filter(|e| e.health == HealthStatus::Healthy).count() as u64;
            places.ill += all - healthy;
            match places.healthy.iter_mut().find(|(place, _)| *place == group.locality) {
                Some((_, count)) => *count += healthy,
                None => places.healthy.push((group.locality.clone(), healthy)),
            }
        }
        self.places.store(Arc::new(places));
    }

    /// The locality that takes a request, as a place in `upstream`, which holds of each how many
    /// endpoints may take requests; `None`: all of them together, as without zones.
    pub(super) fn choose(
        &self,
        settings: &ZoneSettings,
        upstream: &[(&Locality, u64)],
        random: &mut impl FnMut() -> u64,
    ) -> Option<usize> {
        let places = self.places.load();
        let available: u64 = upstream.iter().map(|(_, count)| count).sum();
        let few = upstream.len() < 2 || available < settings.min_endpoints;
        if few || !places.can_compare(&self.here, settings.panic_threshold) {
            return None;
        }
        if random() % WHOLE >= settings.routed_parts {
            return None;
        }
        let peers: u64 = places.healthy.iter().map(|(_, count)| count).sum();
        let share = |count: u64, of: u64| if of == 0 { 0 } else { WHOLE * count / of };
        let shares: SmallVec<[(u64, u64); 8]> = upstream
            .iter()
            .map(|(place, count)| (share(*count, available), share(places.at(place), peers)))
            .collect();
        let here = upstream.iter().position(|(place, _)| **place == self.here);
        if let Some(here) = here {
            let (capacity, load) = shares[here];
            let stays = capacity > 0 && capacity >= load;
            if stays || (load > 0 && random() % WHOLE < capacity * WHOLE / load) {
                return Some(here);
            }
        }
        let left: SmallVec<[u64; 8]> = shares
            .iter()
            .enumerate()
            .map(|(at, (capacity, load))| match here == Some(at) {
                // It took what it can already.
                true => 0,
                false => capacity.saturating_sub(*load),
            })
            .collect();
        let all_left: u64 = left.iter().sum();
        if all_left == 0 {
            return Some((random() % upstream.len() as u64) as usize);
        }
        let mut point = random() % all_left;
        left.iter().position(|part| {
            let takes = point < *part;
            point = point.saturating_sub(*part);
            takes
        })
    }
}

impl Places {
    fn at(&self, place: &Locality) -> u64 {
        self.healthy.iter().find(|(known, _)| known == place).map_or(0, |(_, count)| *count)
    }

    /// Whether shares say anything: replicas are in several localities, one of them this, and
    /// enough of them are well.
    fn can_compare(&self, here: &Locality, panic_threshold: u32) -> bool {
        let well: u64 = self.healthy.iter().map(|(_, count)| count).sum();
        let percent = well * 100 / (well + self.ill).max(1);
        self.healthy.len() >= 2
            && self.healthy.iter().any(|(place, _)| place == here)
            && percent >= u64::from(panic_threshold)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{runtime::endpoint::LocalityEndpoints, upstream::cluster_state::tests::endpoint};

    fn place(zone: &str) -> Locality {
        Locality { region: "eu".into(), zone: zone.into(), sub_zone: "".into() }
    }

    fn peers(here: &str, counts: &[(&str, u16)]) -> Peers {
        let peers = Peers::new(place(here));
        let group = |(zone, count): &(&str, u16)| LocalityEndpoints {
            locality: place(zone),
            priority: 0,
            weight: 1,
            endpoints: (1..=*count).map(|port| endpoint(port, 1)).collect(),
        };
        let localities = counts.iter().map(group).collect();
        peers.publish(&EndpointSet { localities, overprovisioning_factor: 140 });
        peers
    }

    const SETTINGS: ZoneSettings =
        ZoneSettings { min_endpoints: 1, routed_parts: WHOLE, panic_threshold: 0 };

    /// Parts of 10,000 that each zone of `upstream` takes; empty: zones do not matter.
    fn shares(peers: &Peers, settings: &ZoneSettings, upstream: &[(&str, u64)]) -> Vec<u64> {
        let mut state = 0x9E37_79B9_7F4A_7C15u64;
        let mut random = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 8
        };
        let places: Vec<_> = upstream.iter().map(|(zone, count)| (place(zone), *count)).collect();
        let upstream: Vec<_> = places.iter().map(|(place, count)| (place, *count)).collect();
        let mut taken = vec![0; upstream.len()];
        for _ in 0..WHOLE {
            match peers.choose(settings, &upstream, &mut random) {
                Some(at) => taken[at] += 1,
                None => return Vec::new(),
            }
        }
        taken
    }

    fn check(peers: &Peers, upstream: &[(&str, u64)], expected: &[u64]) {
        let got = shares(peers, &SETTINGS, upstream);
        let near = |(got, expected): (&u64, &u64)| got.abs_diff(*expected) <= 250;
        let alike = got.len() == expected.len() && got.iter().zip(expected).all(near);
        assert!(alike, "expected about {expected:?}, got {got:?}");
    }

    #[test]
    fn a_zone_that_can_take_its_own_keeps_all_of_it() {
        let even = peers("a", &[("a", 1), ("b", 1), ("c", 1)]);
        check(&even, &[("a", 1), ("b", 1), ("c", 1)], &[10_000, 0, 0]);
        check(&even, &[("a", 4), ("b", 1), ("c", 1)], &[10_000, 0, 0]);
    }

    #[test]
    fn what_a_zone_cannot_take_goes_where_capacity_is_left() {
        let most = peers("a", &[("a", 2), ("b", 1), ("c", 1)]);
        check(&most, &[("a", 1), ("b", 2), ("c", 1)], &[5_000, 5_000, 0]);
        check(&most, &[("a", 1), ("b", 1), ("c", 1)], &[6_666, 1_667, 1_667]);
        check(&most, &[("b", 1), ("c", 3)], &[0, 10_000]);
        check(&most, &[("a", 0), ("b", 1), ("c", 1)], &[0, 5_000, 5_000]);
    }

    #[test]
    fn zones_do_not_matter_where_little_is_known() {
        let upstream = [("a", 1), ("b", 1)];
        let alone = peers("a", &[("a", 3)]);
        let away = peers("d", &[("a", 1), ("b", 1)]);
        let even = peers("a", &[("a", 1), ("b", 1)]);
        for (peers, upstream, min_endpoints) in [
            (&alone, &upstream[..], 1),
            (&away, &upstream, 1),
            (&peers("a", &[]), &upstream, 1),
            (&even, &upstream[..1], 1),
            (&even, &upstream, 3),
        ] {
            let settings = ZoneSettings { min_endpoints, ..SETTINGS };
            assert_eq!(shares(peers, &settings, upstream), [] as [u64; 0], "{peers:?}");
        }
        let off = ZoneSettings { routed_parts: 0, ..SETTINGS };
        assert_eq!(shares(&even, &off, &upstream), [] as [u64; 0]);
        check(&even, &upstream, &[10_000, 0]);
    }
}
