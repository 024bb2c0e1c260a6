//! Consistent hashing to the letter of Envoy, so that a key leads to the same endpoint whichever
//! proxy asks: the ring (ketama) and Maglev tables, over endpoints with weights that sum up to one.
//!
//! The sums are of floating point numbers in Envoy's order, since how often an endpoint is on a
//! ring depends on their last bit. Spec: Envoy "Supported load balancers", ring hash and Maglev;
//! Maglev: Eisenbud et al., NSDI 2016, listing 1.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use xxhash_rust::xxh64::xxh64;

use crate::runtime::cluster::{HashFunction, LbPolicy};

/// Seed of the 64-bit MurmurHash2 in GNU's `std::hash`, which is what Envoy's is.
const MURMUR_SEED: u64 = 0xc70f_6907;

/// Where a hash leads to.
#[derive(Debug)]
enum Table {
    /// Points in ascending order, each with the place of its endpoint.
    Ring(Vec<(u64, u32)>),
    /// The place of an endpoint by the rest of a division.
    Maglev(Vec<u32>),
}

/// What an endpoint has of a table.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Share {
    /// What of it is hashed.
    pub(super) key: String,
    /// Its place in its priority.
    pub(super) place: u32,
    /// Its weight, of one for all together.
    pub(super) weight: f64,
}

/// The table of a priority: made at its first use, and again when other endpoints may take
/// requests.
#[derive(Debug, Default)]
pub struct Tables(ArcSwapOption<Made>);

#[derive(Debug)]
struct Made {
    policy: LbPolicy,
    by_locality: bool,
    /// Places of the endpoints that it is made of.
    members: Vec<u32>,
    table: Table,
}

impl Clone for Tables {
    /// A copy of the endpoints finds its own.
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl Tables {
    /// The place of the endpoint that a hash leads to, of those at `members`; attempts after the
    /// first lead further on. `shares` says what each of these has, where there is no table of them
    /// yet. `None` without members.
    pub(super) fn place(
        &self,
        policy: LbPolicy,
        by_locality: bool,
        members: &[u32],
        (hash, attempt): (u64, u32),
        shares: impl FnOnce() -> Vec<Share>,
    ) -> Option<usize> {
        let known = self.0.load();
        let fits = |made: &&Arc<Made>| {
            made.policy == policy && made.by_locality == by_locality && made.members == members
        };
        if let Some(made) = known.as_ref().filter(fits) {
            return made.table.at(hash, attempt);
        }
        let table = Table::build(policy, shares());
        let found = table.at(hash, attempt);
        let made = Made { policy, by_locality, members: members.to_vec(), table };
        self.0.store(Some(Arc::new(made)));
        found
    }
}

impl Table {
    fn build(policy: LbPolicy, shares: Vec<Share>) -> Self {
        match policy {
            LbPolicy::RingHash { minimum, maximum, function, .. } => {
                Self::Ring(ring(&shares, (minimum, maximum), function))
            }
            LbPolicy::Maglev { table_size, .. } => Self::Maglev(maglev(shares, table_size)),
            _ => Self::Maglev(Vec::new()),
        }
    }

    fn at(&self, hash: u64, attempt: u32) -> Option<usize> {
        match self {
            Self::Ring(points) if points.is_empty() => None,
            Self::Ring(points) => {
                let first = points.partition_point(|(point, _)| *point < hash) % points.len();
                Some(points[(first + attempt as usize) % points.len()].1 as usize)
            }
            Self::Maglev(table) => {
                // A retry changes most bits, so that retries do not all meet at one endpoint.
                let hash =
                    if attempt > 0 { hash ^ u64::from(attempt).wrapping_neg() } else { hash };
                let rest = hash.checked_rem(table.len() as u64)?;
                Some(table[usize::try_from(rest).ok()?] as usize)
            }
        }
    }
}

/// As many points for each endpoint as its weight says, where the lightest gets a whole number of
/// them; the rests of the others are handed on.
fn ring(
    endpoints: &[Share],
    (minimum, maximum): (u64, u64),
    function: HashFunction,
) -> Vec<(u64, u32)> {
    let lightest = endpoints.iter().map(|one| one.weight).fold(1.0, f64::min);
    let wanted = (lightest * minimum as f64).ceil() / lightest;
    let size = wanted.min(maximum as f64);
    let mut points = Vec::new();
    let (mut made, mut due) = (0.0, 0.0);
    for Share { key, place, weight } in endpoints {
        due += size * weight;
        let mut number = 0;
        while made < due {
            let text = format!("{key}_{number}");
            let point = match function {
                HashFunction::XxHash => xxh64(text.as_bytes(), 0),
                HashFunction::Murmur2 => murmur2(text.as_bytes(), MURMUR_SEED),
            };
            points.push((point, *place));
            number += 1;
            made += 1.0;
        }
    }
    points.sort_by_key(|(point, _)| *point);
    points
}

/// Every endpoint walks through the table in an order of its own and takes the next free entry when
/// it is its turn; the heaviest has one in every round.
fn maglev(mut endpoints: Vec<Share>, size: u64) -> Vec<u32> {
    const FREE: u32 = u32::MAX;
    struct Walker {
        place: u32,
        at: u64,
        skip: u64,
        weight: f64,
        due: f64,
    }
    if endpoints.is_empty() || size < 2 {
        return Vec::new();
    }
    endpoints.sort_by(|a, b| a.key.cmp(&b.key));
    let heaviest = endpoints.iter().map(|one| one.weight).fold(0.0, f64::max);
    let walker = |Share { key, place, weight }: &Share| Walker {
        place: *place,
        at: xxh64(key.as_bytes(), 0) % size,
        skip: xxh64(key.as_bytes(), 1) % (size - 1) + 1,
        weight: *weight,
        due: 0.0,
    };
    let mut walkers: Vec<Walker> = endpoints.iter().map(walker).collect();
    let mut table = vec![FREE; usize::try_from(size).unwrap_or(0)];
    let (mut left, mut round) = (table.len(), 0.0);
    while left > 0 {
        round += 1.0;
        for walker in &mut walkers {
            if left == 0 {
                break;
            }
            if round * walker.weight < walker.due {
                continue;
            }
            walker.due += heaviest;
            // The size is a prime, so that every entry is passed.
            while table[walker.at as usize] != FREE {
                walker.at = (walker.at + walker.skip) % size;
            }
            table[walker.at as usize] = walker.place;
            left -= 1;
        }
    }
    table
}

/// 64-bit MurmurHash2 with the mixing of each word by 47 bits.
fn murmur2(text: &[u8], seed: u64) -> u64 {
    const FACTOR: u64 = 0xc6a4_a793_5bd1_e995;
    let mix = |value: u64| value ^ (value >> 47);
    let (words, rest) = text.as_chunks::<8>();
    let mut hash = seed ^ (text.len() as u64).wrapping_mul(FACTOR);
    for word in words {
        let word = mix(u64::from_le_bytes(*word).wrapping_mul(FACTOR)).wrapping_mul(FACTOR);
        hash = (hash ^ word).wrapping_mul(FACTOR);
    }
    if !rest.is_empty() {
        let last = rest.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        hash = (hash ^ last).wrapping_mul(FACTOR);
    }
    mix(mix(hash).wrapping_mul(FACTOR))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What GNU's `std::hash<std::string>` answers.
    #[test]
    fn murmur_is_that_of_the_standard_library_of_c_plus_plus() {
        for (text, expected) in [
            ("", 0x553e_9390_1e46_2a6e),
            ("a", 0x454d_dee4_88c1_ed6b),
            ("12345678", 0x8c5b_90a3_3a04_dca5),
            ("10.0.0.1:80_7", 0x8318_d8fc_1aa5_a2e0),
            ("127.0.0.1:8080_123", 0x375e_9cbe_9323_92db),
        ] {
            assert_eq!(murmur2(text.as_bytes(), MURMUR_SEED), expected, "{text}");
        }
    }

    #[test]
    fn a_ring_has_whole_numbers_of_points_up_to_its_limit() {
        let keyed = |weights: &[f64]| -> Vec<Share> {
            let share = |(weight, place): (&f64, u32)| Share {
                key: place.to_string(),
                place,
                weight: *weight,
            };
            weights.iter().zip(0..).map(share).collect()
        };
        let points = |weights: &[f64], limits| {
            let points = ring(&keyed(weights), limits, HashFunction::XxHash);
            let count = |place| points.iter().filter(|(_, of)| *of == place).count();
            (0..weights.len()).map(|place| count(u32::try_from(place).unwrap())).collect::<Vec<_>>()
        };
        assert_eq!(points(&[0.25; 4], (6, 100)), [2, 2, 2, 2]);
        assert_eq!(points(&[0.25; 4], (1, 6)), [1, 1, 1, 1]);
        // Envoy's own example: six points among four endpoints.
        assert_eq!(points(&[0.25; 4], (6, 6)), [2, 1, 2, 1]);
        assert_eq!(points(&[0.1, 0.9], (10, 100)), [1, 9]);
    }
}
