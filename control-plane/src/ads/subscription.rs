//! What a client asked for: the wildcard state machine of one resource type on one stream.
//!
//! Knows names only; what exists, and what the client already has, is `track`'s business. Rules:
//! xDS protocol, "how the client specifies what resources to return", and its "unsubscribing"
//! sections for both variants.

use std::sync::Arc;

use ferromesh_proto::{ResourceType, resource::Wildcard as Offer};

/// The name that asks for everything.
pub const WILDCARD: &str = "*";

/// The names of one type that a client is subscribed to.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Subscription {
    wildcard: Wildcard,
    /// Sorted, unique, without `*`; shared with the views wherever a view has the name.
    names: Vec<Arc<str>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
enum Wildcard {
    /// No request yet.
    #[default]
    Unasked,
    /// The first request named nothing, which means everything for LDS and CDS.
    Legacy,
    /// `*` was named.
    Explicit,
    /// Only what is named.
    Off,
}

/// What one request changed. Both lists are sorted and unique.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Change {
    /// Names that the request asks for. In delta they are to be answered even if they were
    /// subscribed before.
    pub added: Vec<Arc<str>>,
    /// Names that were subscribed and no longer are (a wildcard may still cover them).
    pub removed: Vec<Arc<str>>,
    /// Everything is subscribed now and was not before.
    pub wildcard_started: bool,
}

impl Subscription {
    /// Whether a resource of this name is to be sent.
    pub fn covers(&self, name: &str) -> bool {
        self.is_wildcard() || self.names(name)
    }

    /// Those of some things that are to be sent; sorted by name.
    pub(super) fn covered<T>(&self, mut things: Vec<T>, name: impl Fn(&T) -> &Arc<str>) -> Vec<T> {
        if self.is_wildcard() {
            return things;
        }
        let mut names = self.names.iter().peekable();
        things.retain(|thing| {
            let name = name(thing);
            while names.next_if(|before| !Arc::ptr_eq(before, name) && *before < name).is_some() {}
            names.next_if(|same| Arc::ptr_eq(same, name) || *same == name).is_some()
        });
        things
    }

    /// Whether the client named this resource itself.
    pub fn names(&self, name: &str) -> bool {
        self.names.binary_search_by(|n| n.as_ref().cmp(name)).is_ok()
    }

    /// Whether everything is subscribed.
    pub fn is_wildcard(&self) -> bool {
        matches!(self.wildcard, Wildcard::Legacy | Wildcard::Explicit)
    }

    /// Whether nothing is subscribed.
    pub fn is_empty(&self) -> bool {
        !self.is_wildcard() && self.names.is_empty()
    }

    /// The names the client gave, sorted.
    pub fn list(&self) -> &[Arc<str>] {
        &self.names
    }

    /// State of the world: `names` is the whole subscription from now on; `*` among them asks for
    /// everything.
    pub fn replace(&mut self, kind: ResourceType, names: Vec<Arc<str>>) -> Change {
        let was_wildcard = self.is_wildcard();
        let (names, star) = sorted(names);
        self.wildcard = match self.wildcard {
            _ if star && takes_wildcard(kind) => Wildcard::Explicit,
            Wildcard::Unasked if names.is_empty() && kind.wildcard_by_default() => Wildcard::Legacy,
            Wildcard::Legacy if names.is_empty() => Wildcard::Legacy,
            _ => Wildcard::Off,
        };
        let change = Change {
            added: missing_from(&names, &self.names),
            removed: missing_from(&self.names, &names),
            wildcard_started: self.is_wildcard() && !was_wildcard,
        };
        self.names = names;
        change
    }

    /// Delta: adds and removes. A name in both lists stays and counts as asked for.
    pub fn adjust(
        &mut self,
        kind: ResourceType,
        subscribe: Vec<Arc<str>>,
        unsubscribe: Vec<Arc<str>>,
    ) -> Change {
        if subscribe.is_empty() && unsubscribe.is_empty() && self.wildcard != Wildcard::Unasked {
            // Every plain ACK comes here: it must not cost a look at all names.
            return Change::default();
        }
        let was_wildcard = self.is_wildcard();
        let (added, star) = sorted(subscribe);
        let (dropped, end_star) = sorted(unsubscribe);
        self.wildcard = match self.wildcard {
            _ if star && takes_wildcard(kind) => Wildcard::Explicit,
            Wildcard::Unasked if added.is_empty() && kind.wildcard_by_default() => Wildcard::Legacy,
            Wildcard::Unasked => Wildcard::Off,
            _ if end_star => Wildcard::Off,
            kept => kept,
        };
        let removed: Vec<_> = dropped.into_iter().filter(|n| self.names(n)).collect();
        self.names.retain(|n| removed.binary_search(n).is_err());
        self.names.extend(missing_from(&added, &self.names));
        self.names.sort_unstable();
        self.names.shrink_to_fit();
        Change { added, removed, wildcard_started: self.is_wildcard() && !was_wildcard }
    }
}

/// Secrets are given by name only: nobody gets "all of them".
const fn takes_wildcard(kind: ResourceType) -> bool {
    !matches!(kind.row().wildcard, Offer::Never)
}

/// The names sorted, once each, and whether `*` was among them.
fn sorted(mut names: Vec<Arc<str>>) -> (Vec<Arc<str>>, bool) {
    let before = names.len();
    names.retain(|n| n.as_ref() != WILDCARD);
    let star = names.len() < before;
    names.sort_unstable();
    names.dedup();
    (names, star)
}

fn missing_from(wanted: &[Arc<str>], present: &[Arc<str>]) -> Vec<Arc<str>> {
    wanted.iter().filter(|n| present.binary_search(n).is_err()).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ResourceType::{Cluster, Endpoint, Secret};

    fn names(text: &str) -> Vec<Arc<str>> {
        text.split_whitespace().map(Arc::from).collect()
    }

    /// A subscription as text: `*` when it is a wildcard, then the names.
    fn show(s: &Subscription) -> String {
        let star = s.is_wildcard().then_some(WILDCARD);
        star.into_iter().chain(s.list().iter().map(AsRef::as_ref)).collect::<Vec<_>>().join(" ")
    }

    fn check_sotw(kind: ResourceType, script: &[(&str, &str)]) {
        let mut s = Subscription::default();
        for (request, expected) in script {
            s.replace(kind, names(request));
            assert_eq!(show(&s), *expected, "after {request:?} in {script:?}");
        }
    }

    #[test]
    fn sotw_requests_walk_the_wildcard_machine() {
        check_sotw(
            Cluster,
            &[
                ("", "*"),
                ("", "*"),
                ("a", "a"),
                ("", ""),
                ("", ""),
                ("*", "*"),
                ("* a", "* a"),
                ("*", "*"),
            ],
        );
        check_sotw(Cluster, &[("* a", "* a"), ("a", "a"), ("b a", "a b"), ("", "")]);
        check_sotw(Cluster, &[("a", "a"), ("", ""), ("* b", "* b")]);
        check_sotw(Endpoint, &[("", ""), ("", ""), ("a a", "a"), ("", "")]);
        check_sotw(Secret, &[("*", ""), ("* a", "a")]);
    }

    #[test]
    fn delta_requests_walk_the_wildcard_machine() {
        let check = |kind, script: &[(&str, &str, &str)]| {
            let mut s = Subscription::default();
            for (subscribe, unsubscribe, expected) in script {
                s.adjust(kind, names(subscribe), names(unsubscribe));
                assert_eq!(
                    show(&s),
                    *expected,
                    "after +{subscribe:?} -{unsubscribe:?} in {script:?}"
                );
            }
        };
        check(
            Cluster,
            &[
                ("", "", "*"),
                ("a", "", "* a"),
                ("", "a", "*"),
                ("", "*", ""),
                ("", "", ""),
                ("b", "", "b"),
            ],
        );
        check(Cluster, &[("a", "", "a"), ("", "a", ""), ("", "", ""), ("*", "", "*")]);
        check(Cluster, &[("* a", "", "* a"), ("", "*", "a"), ("", "zz", "a"), ("a", "a", "a")]);
        check(Endpoint, &[("", "", ""), ("a b", "", "a b"), ("", "a", "b")]);
    }

    #[test]
    fn an_empty_name_is_a_name_like_any_other() {
        let mut s = Subscription::default();
        s.replace(Cluster, vec![]);
        s.replace(Cluster, vec!["".into()]);
        assert!(!s.is_wildcard() && s.names("") && !s.covers("a"));
    }

    #[test]
    fn delta_reports_every_name_asked_for_and_only_real_removals() {
        let mut s = Subscription::default();
        s.adjust(Endpoint, names("a b"), vec![]);
        let change = s.adjust(Endpoint, names("b c"), names("a x"));
        assert_eq!((change.added, change.removed), (names("b c"), names("a")));
    }
}
