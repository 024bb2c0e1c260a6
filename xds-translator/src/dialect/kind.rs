//! What a dialect says about each of its kinds: a row.

use serde_json::{Map, Value};

use super::{
    decode::Decoder,
    definition::Definition,
    reading,
    schema::{Decode, Shape},
    spec::{Content, Spec},
};
use crate::ir::Kind;

/// What a dialect does with one of its kinds.
#[derive(Clone, Copy, Debug)]
pub struct KindRow {
    /// The kind, with its names.
    pub kind: Kind,
    /// What becomes of its objects.
    pub(crate) serving: Serving,
}

/// What becomes of the objects of a kind.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Serving {
    /// They are parsed, checked and translated.
    Served(Served),
    /// They are known, and named as not supported yet. Whether such an object guards access, so
    /// that who wrote it relies on it, and what is in force meanwhile.
    Planned(fn(&Value) -> Option<&'static str>),
    /// Input of an installer, never served as an object.
    Installer,
}

/// How a kind is served. What its values must keep to and what they are lowered to is said by the
/// type that they are decoded to ([`Spec`]).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Served {
    /// Reads the content; the decoder stands at the object's top.
    pub(super) decode: Reading,
    /// What `kubectl` and the API server are told of the kind; `None` for kinds that somebody else
    /// defines, or that are no resource of a cluster.
    pub(crate) definition: Option<&'static Definition>,
    /// What its content is declared to be.
    pub(super) declared: Declared,
    /// What stands in for a guard of which no version was ever accepted; `None`: the kind guards
    /// nothing, or [`stand_in`](super::stand_in) says it.
    pub(super) closed: Option<Closing>,
}

/// From an object as it was written to the `spec` of the one that stands in for it, with every door
/// closed; `None`: it guards nothing.
pub(super) type Closing = fn(&Value) -> Option<Value>;

/// What the content of the objects of a kind is declared to be.
#[derive(Clone, Copy, Debug)]
pub struct Declared {
    /// The field that it stands below; `None`: beside `metadata`.
    pub below: Option<&'static str>,
    /// Its type.
    pub shape: fn() -> Shape,
}

impl Declared {
    /// Content below `spec`.
    pub(super) const fn spec<T: Decode>() -> Self {
        Self { below: Some("spec"), shape: T::shape }
    }

    const fn whole<T: Decode>() -> Self {
        Self { below: None, shape: T::shape }
    }
}

/// Reads the content of an object: the whole of it, and its fields.
pub(super) type Reading = fn(&Value, &Map<String, Value>, &mut Decoder) -> Content;

impl Served {
    /// Content that stands under `spec`, with nothing unknown beside it.
    pub(super) const fn spec<T: Spec + Decode>() -> Self {
        Self {
            decode: reading::spec::<T>,
            definition: None,
            declared: Declared::spec::<T>(),
            closed: None,
        }
    }

    /// Content that stands beside `metadata`.
    pub(super) const fn whole<T: Spec + Decode>() -> Self {
        Self {
            decode: reading::whole::<T>,
            definition: None,
            declared: Declared::whole::<T>(),
            closed: None,
        }
    }

    /// Objects of which only the metadata matters, whose mistakes are noted already.
    pub(super) const fn metadata<T: Spec + Decode>() -> Self {
        Self {
            decode: reading::metadata::<T>,
            definition: None,
            declared: Declared::whole::<T>(),
            closed: None,
        }
    }

    /// Content that stands elsewhere, or is another in another version; `declared`: in the newest.
    pub(super) const fn read(decode: Reading, declared: Declared) -> Self {
        Self { decode, definition: None, declared, closed: None }
    }

    /// The same, defined for API servers.
    pub(super) const fn defined(self, definition: &'static Definition) -> Self {
        Self { definition: Some(definition), ..self }
    }

    /// The same, a guard: what stands in for a refused one.
    pub(super) const fn guarding(self, closed: Closing) -> Self {
        Self { closed: Some(closed), ..self }
    }
}

/// An object of a planned kind that guards nothing.
pub(super) fn guards_nothing(_: &Value) -> Option<&'static str> {
    None
}

/// What is in force instead of a guard that nothing stands in for.
pub(super) const AS_IF_GONE: &str = "it is as if the object were not there";

/// An object of a planned kind that guards access: nothing does so meanwhile.
pub(super) fn guards_access(_: &Value) -> Option<&'static str> {
    Some(AS_IF_GONE)
}

/// Splits `apiVersion` into group (empty for the core group) and version.
pub fn split_api_version(api_version: &str) -> (&str, &str) {
    api_version.rsplit_once('/').unwrap_or(("", api_version))
}

/// Declares the kinds of a dialect: their places begin at the first number, which no other dialect
/// may reach. Each row: the constant, the group, its versions, and the names in the order of
/// [`KindNames`](crate::ir::KindNames).
macro_rules! kinds {
    ($first:literal; $( $(#[doc = $doc:literal])+ $name:ident: $group:literal [$($version:literal),+] $kind:literal $plural:literal $kebab:literal $scope:ident => $service:expr; )+) => {
        #[allow(non_camel_case_types, clippy::upper_case_acronyms, reason = "places of constants")]
        enum Place { $( $name, )+ }

        impl $crate::ir::Kind {
            $(
                $(#[doc = $doc])+
                pub const $name: Self = Self::new(&$crate::ir::KindNames {
                    order: $first + Place::$name as u16,
                    group: $group,
                    versions: &[$($version),+],
                    name: $kind,
                    plural: $plural,
                    kebab: $kebab,
                    scope: $crate::ir::Scope::$scope,
                });
            )+
        }

        /// The rows of the dialect.
        pub(in crate::dialect) static KINDS: &[$crate::dialect::KindRow] = &[
            $( $crate::dialect::KindRow { kind: $crate::ir::Kind::$name, serving: $service }, )+
        ];
    };
}

pub(super) use kinds;
