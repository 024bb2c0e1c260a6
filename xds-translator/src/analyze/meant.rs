//! Which host is meant where a name leads nowhere.

use super::input::Input;
use crate::{
    diagnostic::FieldPath,
    dialect::suggest,
    ir::{Hostname, ObjectId},
    snapshot::Item,
};

/// The host that is meant by the one that `field` of an object names and nobody defines: the only one
/// of which one part of the name is a slip away. Spelled as the field is, short or whole.
pub(super) fn meant_host(
    input: &Input<'_>,
    id: &ObjectId,
    field: &FieldPath,
    host: &Hostname,
) -> Option<String> {
    let written = input.written(id, field)?;
    let short = host.as_str().strip_prefix(&*written)?;
    let hosts = input.items().iter().filter_map(|item| match item {
        Item::Service(service) => Some(&service.service.key.host),
        _ => None,
    });
    let candidates = hosts.filter_map(|host| host.as_str().strip_suffix(short));
    let mut slips = candidates.filter(|candidate| is_slip(&written, candidate));
    let meant = slips.next()?;
    slips.all(|other| other == meant).then(|| meant.to_owned())
}

/// Whether two names differ in one part, and there by a slip.
fn is_slip(written: &str, meant: &str) -> bool {
    const FURTHEST: usize = 4;
    if written.len().abs_diff(meant.len()) > FURTHEST {
        return false;
    }
    let parts = |name: &str| name.split('.').count();
    let mut differing = written.split('.').zip(meant.split('.')).filter(|(a, b)| a != b);
    let Some((a, b)) = differing.next() else { return false };
    parts(written) == parts(meant)
        && differing.next().is_none()
        && suggest::meant(a, std::iter::once(b)).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_part_of_a_name_may_be_a_slip() {
        for (written, meant, expected) in [
            ("revews", "reviews", true),
            ("revews.shop.svc.cluster.local", "reviews.shop.svc.cluster.local", true),
            ("reviews.shpo.svc.cluster.local", "reviews.shop.svc.cluster.local", true),
            ("revews.shpo", "reviews.shop", false),
            ("cart.shop.svc.cluster.local", "auth.shop.svc.cluster.local", false),
            ("api-v1.test", "api-v2.test", false),
            ("reviews", "reviews.shop", false),
        ] {
            assert_eq!(is_slip(written, meant), expected, "{written} {meant}");
        }
    }
}
