//! Localities of load balancing: `REGION`, `REGION/ZONE` or `REGION/ZONE/SUBZONE`, with `*` at the
//! end.

use std::sync::Arc;

use crate::{
    diagnostic::{Code, Diagnostic},
    dialect::{
        decode::Decoder,
        forms::{check_range, each},
        istio::destination_rule::{Distribute, Failover, LocalityLbSetting, ZoneAwareLbSetting},
    },
};

/// Labels that say where an endpoint runs (Kubernetes, Istio).
const OF_PLACES: [&str; 3] =
    ["topology.kubernetes.io/region", "topology.kubernetes.io/zone", "topology.istio.io/subzone"];

/// Notes what cannot be distributed or failed over; `ejects`: whether endpoints are ejected.
pub(super) fn check_locality(locality: &LocalityLbSetting, ejects: bool, at: &mut Decoder) {
    if !locality.distribute.is_empty() && !locality.failover.is_empty() {
        at.invalid("only one of `distribute`, `failover` may be given", None);
    }
    each("distribute", &locality.distribute, at, check_shares);
    let origins: Vec<&str> = locality.distribute.iter().map(|d| &*d.from).collect();
    at.within("distribute", |at| {
        for (index, origin) in origins.iter().enumerate() {
            at.within_index(index, |at| {
                at.within("from", |at| check_place(origin, &origins[..index], at))
            });
        }
    });
    check_failover(&locality.failover, at);
    check_priorities(&locality.failover_priority, !locality.failover.is_empty(), at);
    let fails_over = !locality.failover.is_empty() || !locality.failover_priority.is_empty();
    remark_ejection(fails_over, ejects, at);
}

/// As [`check_locality`], of balancing by zones: Envoy decides inside of regions.
pub(super) fn check_zone_aware(zones: &ZoneAwareLbSetting, ejects: bool, at: &mut Decoder) {
    if zones.min_cluster_size == Some(0) {
        check_range("minClusterSize", 0, 1..=i64::MAX, at);
    }
    check_failover(&zones.failover, at);
    check_priorities(&zones.failover_priority, true, at);
    let fails_over = !zones.failover.is_empty() || !zones.failover_priority.is_empty();
    remark_ejection(fails_over, ejects, at);
}

fn check_shares(distribute: &Distribute, at: &mut Decoder) {
    at.within("to", |at| {
        for (place, share) in &distribute.to {
            if !(1..=100).contains(share) {
                at.within_key(place, |at| {
                    let finding = Diagnostic::error(Code::InvalidValue, at.path(), "out of range");
                    at.note(finding.expected("1..=100", share.to_string()));
                });
            }
        }
        let places: Vec<&str> = distribute.to.keys().map(|place| &**place).collect();
        for (index, place) in places.iter().enumerate() {
            at.within_key(place, |at| check_place(place, &places[..index], at));
        }
    });
    let sum: u64 = distribute.to.values().map(|share| u64::from(*share)).sum();
    if sum != 100 {
        let path = at.path().field("to");
        at.note(
            Diagnostic::error(Code::InvalidValue, path, "shares do not add up")
                .expected("100 in sum", sum.to_string()),
        );
    }
}

/// Notes a text that is no locality, or that means places of an earlier one.
fn check_place(place: &str, earlier: &[&str], at: &mut Decoder) {
    let inner = place.strip_suffix('*').unwrap_or(place);
    if inner.contains('*') || place.splitn(3, '/').any(str::is_empty) {
        let finding = Diagnostic::error(Code::InvalidValue, at.path(), "not a locality");
        let expected =
            "`REGION/ZONE/SUBZONE`, `REGION/ZONE` or `REGION`, perhaps with `*` at its end";
        return at.note(finding.expected(expected, format!("`{place}`")));
    }
    if let Some(other) = earlier.iter().find(|other| meet(other, place)) {
        at.invalid(format!("`{place}` and `{other}` overlap"), None);
    }
}

/// Whether every place of `later` is taken by `earlier`, or the other way round without a `*` that
/// says that the rest is meant.
fn meet(earlier: &str, later: &str) -> bool {
    let parts = earlier.splitn(3, '/').zip(later.splitn(3, '/'));
    let mut decided = parts.take_while(|(part, _)| *part != "*");
    decided.all(|(one, other)| one == other)
}

fn check_failover(failover: &[Failover], at: &mut Decoder) {
    each("failover", failover, at, |failover, at| {
        if failover.from == failover.to {
            let message = "a region does not fail over to itself";
            at.within("to", |at| at.invalid(message, None));
        }
        for (field, region) in [("from", &failover.from), ("to", &failover.to)] {
            if region.contains(['/', '*']) {
                let fix = region.split('/').next().filter(|region| !region.contains('*'));
                let fix = fix.map(|region| format!("`{region}`"));
                let message =
                    format!("`{region}` is not a region: zones and `*` have no place here");
                at.within(field, |at| at.invalid(message, fix));
            }
        }
    });
}

/// Notes labels of places where `failover` or Envoy decides by place.
fn check_priorities(labels: &[Arc<str>], by_place: bool, at: &mut Decoder) {
    each("failoverPriority", labels, at, |label, at| {
        if by_place && OF_PLACES.contains(&&**label) {
            let message = format!("`{label}`: the order of places is decided elsewhere already");
            at.invalid(message, Some("take it out".to_owned()));
        }
    });
}

fn remark_ejection(fails_over: bool, ejects: bool, at: &mut Decoder) {
    if fails_over && !ejects {
        let message = "without `outlierDetection` nothing fails over";
        at.remark(|path| {
            Diagnostic::warning(Code::NoEffect, path, message)
                .fix("`outlierDetection` beside `loadBalancer`")
        });
    }
}

#[cfg(test)]
mod tests {
    use super::meet;

    #[test]
    fn a_locality_is_meant_once() {
        let table = [
            ("a", "a/b", true),
            ("a/b", "a", true),
            ("a/*", "a/b/c", true),
            ("a/b/c", "a/b/*", false),
            ("a", "*", false),
            ("*", "a", true),
            ("a/b", "a/c", false),
            ("a/b/c", "a/b/d", false),
            ("a", "b", false),
        ];
        for (earlier, later, expected) in table {
            assert_eq!(meet(earlier, later), expected, "{earlier} {later}");
        }
    }
}
