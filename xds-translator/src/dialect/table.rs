//! The table of kinds: the rows of every dialect. It drives parsing, lowering, REST paths, watches,
//! definitions and diagnostics; nothing else lists kinds.

use super::{
    cilium, ferromesh, flagger, gateway_api, istio,
    kind::{Declared, KindRow, Served, Serving, split_api_version},
    kubernetes, linkerd,
    lowering::Lowering,
    smi, suggest,
};
use crate::{ir::Kind, snapshot::Item};

/// The rows of each dialect, in the order of [`Kind`].
static DIALECTS: [&[KindRow]; 8] = [
    kubernetes::KINDS,
    istio::KINDS,
    gateway_api::KINDS,
    linkerd::KINDS,
    smi::KINDS,
    cilium::KINDS,
    flagger::KINDS,
    ferromesh::KINDS,
];

/// What dialects read in the metadata of other dialects' objects: each sees an object with the items
/// that its own dialect lowered it to, and may change them or add some.
static ANNOTATED: [Annotated; 1] = [linkerd::annotate];

/// Reads what an object's metadata says in the words of another dialect.
pub(super) type Annotated = fn(&mut Lowering<'_>, &mut Vec<Item>);

/// The items of an object with what other dialects make of its metadata.
pub(super) fn annotate(lowering: &mut Lowering<'_>, items: &mut Vec<Item>) {
    if !lowering.meta.annotations.is_empty() {
        ANNOTATED.iter().for_each(|read| read(lowering, items));
    }
}

/// Every known kind, in the order of [`Kind`].
pub fn kinds() -> impl Iterator<Item = &'static KindRow> + Clone {
    DIALECTS.iter().flat_map(|rows| rows.iter())
}

/// No kind, or not one kind, goes by a name.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NoSuchKind {
    /// None does.
    #[error("no kind {name:?}{}: expected one of {resources}", meant(*near))]
    None {
        /// The name.
        name: String,
        /// A plural that is near it.
        near: Option<&'static str>,
        /// All that are served.
        resources: String,
    },
    /// Several do, in different groups.
    #[error("{name:?} is a kind of several groups: expected one of {resources}")]
    Several {
        /// The name.
        name: String,
        /// Those that do.
        resources: String,
    },
}

fn meant(near: Option<&str>) -> String {
    near.map(|near| format!(" (did you mean {near}?)")).unwrap_or_default()
}

/// How kinds are named without doubt, as a list.
fn resources(kinds: impl IntoIterator<Item = Kind>) -> String {
    kinds.into_iter().map(Kind::resource).collect::<Vec<_>>().join(", ")
}

impl Kind {
    /// The table's row.
    ///
    /// # Panics
    /// Never: a constant and its row come from one declaration.
    pub(crate) fn row(self) -> &'static KindRow {
        kinds().find(|row| row.kind == self).expect("every kind is declared with its row")
    }

    /// How objects are served; `None` where they are not.
    pub(crate) fn serving(self) -> Option<&'static Served> {
        match &self.row().serving {
            Serving::Served(served) => Some(served),
            Serving::Planned(_) | Serving::Installer => None,
        }
    }

    /// What the content of its objects is declared to be; `None` where they are not served.
    pub fn declared(self) -> Option<Declared> {
        self.serving().map(|served| served.declared)
    }

    /// Whether objects are parsed, validated and translated.
    pub fn served(self) -> bool {
        self.serving().is_some()
    }

    /// Whether objects have a status that controllers write: kinds whose definition here gives them
    /// one.
    pub fn has_status(self) -> bool {
        self.serving().is_some_and(|served| served.definition.is_some())
    }

    /// Every kind that is served, in order.
    pub fn all_served() -> impl Iterator<Item = Self> + Clone {
        kinds().map(|row| row.kind).filter(|kind| kind.served())
    }

    /// The kind of a group and a name, whatever the version.
    pub fn find(group: &str, name: &str) -> Option<Self> {
        kinds().map(|row| row.kind).find(|kind| kind.group() == group && kind.kind_name() == name)
    }

    /// Whether a written kind is this one, or so near that it may be a slip of the pen.
    pub fn resembles(self, written: &str) -> bool {
        suggest::nearest(written, std::iter::once(self.kind_name())).is_some()
    }

    /// The served kind of a group with this REST resource name.
    pub fn from_resource(group: &str, plural: &str) -> Option<Self> {
        Self::all_served().find(|kind| kind.group() == group && kind.plural() == plural)
    }

    /// The served kind that a person means, case aside: its name, its plural or a short name, each
    /// alone or followed by a dot and the group (`vs`, `virtualservices.networking.istio.io`).
    ///
    /// # Errors
    /// No kind has that name, or several have it and no group was given.
    pub fn named(name: &str) -> Result<Self, NoSuchKind> {
        let wanted = name.to_ascii_lowercase();
        let (word, group) = match wanted.split_once('.') {
            Some((word, group)) => (word, Some(group)),
            None => (&*wanted, None),
        };
        let mut meant: Vec<Self> = Self::all_served()
            .filter(|kind| group.is_none_or(|group| kind.group() == group))
            .filter(|kind| kind.goes_by(word))
            .collect();
        // Kinds that others define give way to those that we do.
        if meant.len() > 1 && meant.iter().filter(|kind| kind.has_status()).count() == 1 {
            meant.retain(|kind| kind.has_status());
        }
        match (meant.pop(), meant.is_empty()) {
            (Some(only), true) => Ok(only),
            (Some(last), false) => {
                meant.push(last);
                Err(NoSuchKind::Several { name: name.to_owned(), resources: resources(meant) })
            }
            (None, _) => {
                let resources = resources(Self::all_served());
                let near = suggest::nearest(word, Self::all_served().map(Self::plural));
                Err(NoSuchKind::None { name: name.to_owned(), near, resources })
            }
        }
    }

    fn goes_by(self, word: &str) -> bool {
        let short = self.serving().and_then(|served| served.definition).map(|d| d.short);
        self.plural() == word
            || self.kind_name().eq_ignore_ascii_case(word)
            || short.is_some_and(|short| short.contains(&word))
            || KUBERNETES_SHORT.contains(&(self, word))
    }

    /// The kind of an object's `apiVersion` and `kind`, if the version is one that is read.
    pub fn from_api(api_version: &str, name: &str) -> Option<Self> {
        let (group, version) = split_api_version(api_version);
        Self::find(group, name).filter(|kind| kind.versions().contains(&version))
    }
}

/// What Kubernetes itself calls kinds for short.
const KUBERNETES_SHORT: [(Kind, &str); 7] = [
    (Kind::SERVICE, "svc"),
    (Kind::POD, "po"),
    (Kind::NAMESPACE, "ns"),
    (Kind::SERVICE_ACCOUNT, "sa"),
    (Kind::NODE, "no"),
    (Kind::INGRESS, "ing"),
    (Kind::DEPLOYMENT, "deploy"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_finds_its_own_row() {
        for row in kinds() {
            let kind = row.kind;
            assert_eq!(kind.row().kind, kind);
            for version in kind.versions() {
                let api = if kind.group().is_empty() {
                    (*version).to_owned()
                } else {
                    format!("{}/{version}", kind.group())
                };
                assert_eq!(Kind::from_api(&api, kind.kind_name()), Some(kind));
            }
        }
    }

    #[test]
    fn places_are_unique_and_in_the_order_of_the_table() {
        let places: Vec<Kind> = kinds().map(|row| row.kind).collect();
        assert!(places.windows(2).all(|pair| pair[0] < pair[1]), "{places:?}");
    }

    #[test]
    fn a_served_kind_is_found_by_group_and_plural_and_by_every_name() {
        for kind in Kind::all_served() {
            assert_eq!(Kind::from_resource(kind.group(), kind.plural()), Some(kind));
            let full = |word: &str| match kind.group() {
                "" => word.to_owned(),
                group => format!("{word}.{group}"),
            };
            for name in
                [full(kind.plural()), full(kind.kind_name()), full(kind.plural()).to_uppercase()]
            {
                assert_eq!(Kind::named(&name), Ok(kind), "{name}");
            }
        }
        for name in
            ["vs", "virtualservice", "virtualservices", "VirtualService", "vs.networking.istio.io"]
        {
            assert_eq!(Kind::named(name), Ok(Kind::VIRTUAL_SERVICE), "{name}");
        }
        // A kind that others define has that name too.
        assert_eq!(Kind::named("authorizationpolicies"), Ok(Kind::AUTHORIZATION_POLICY));
        let message = |name: &str| Kind::named(name).expect_err("no kind").to_string();
        assert!(message("virtualservces").contains("did you mean virtualservices?"));
        assert!(message("gateways.example.com").starts_with("no kind \"gateways.example.com\""));
    }
}
