//! The one source of every object's fields.
//!
//! `object!` and `choice!` declare a type once; from that declaration come the Rust type, its strict decoding from JSON
//! with full field paths, and a [`Shape`] with documentation from which CRD schemas and suggestions are made.

use serde_json::Value;

use super::decode::Decoder;

/// A type that is read from a JSON value. Mistakes go to the decoder; the result is then the default, so that as much as
/// possible of an object can be looked at.
pub trait Decode: Default {
    /// Reads `value`, which sits at the decoder's current path and is not null.
    fn decode(value: &Value, at: &mut Decoder) -> Self;
    /// The type as a schema.
    fn shape() -> Shape;
}

/// A type as a schema.
#[derive(Clone, Copy, Debug)]
pub enum Shape {
    /// Text.
    Text,
    /// `true` or `false`.
    Bool,
    /// A whole number within the bounds.
    Integer {
        /// Least.
        min: i64,
        /// Greatest.
        max: i64,
    },
    /// A number.
    Number,
    /// `1h30m`, `5s`, `100ms`.
    Duration,
    /// A whole number or text (`targetPort`).
    IntegerOrText,
    /// One of a fixed set of words.
    Choice(&'static [ChoiceValue]),
    /// A list.
    List(fn() -> Shape),
    /// A map by text.
    Map(fn() -> Shape),
    /// An object with fields.
    Object(&'static ObjectSchema),
    /// Anything.
    Any,
}

/// One word of a choice.
#[derive(Clone, Copy, Debug)]
pub struct ChoiceValue {
    /// As written.
    pub name: &'static str,
    /// What it means.
    pub doc: &'static str,
}

/// The fields of an object.
#[derive(Clone, Copy, Debug)]
pub struct ObjectSchema {
    /// Name of the type.
    pub name: &'static str,
    /// What it is.
    pub doc: &'static str,
    /// Whether fields that are not listed are left alone (Kubernetes' own kinds, of which we read a part).
    pub open: bool,
    /// Its fields, in the order declared.
    pub fields: &'static [Field],
}

/// A field of an object.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Its JSON name.
    pub name: &'static str,
    /// What it is.
    pub doc: &'static str,
    /// Its type.
    pub shape: fn() -> Shape,
    /// It must be there.
    pub required: bool,
    /// It is accepted, but not acted on yet.
    pub later: bool,
    /// It guards access and is not acted on yet, so that no object with it is accepted.
    pub guard: bool,
}

/// Declares an object type. Each field: doc, JSON name, Rust name, type and, in brackets, marks: `required` (must be
/// there), `later` (accepted, not acted on yet), `guard` (refused: guards access, not acted on yet). `object! { open; … }` leaves unknown fields alone.
#[macro_export]
macro_rules! object {
    (@flag required required) => { true };
    (@flag later later) => { true };
    (@flag guard guard) => { true };
    (@flag $want:ident $have:ident) => { false };
    (@build $open:literal $(#[doc = $doc:literal])+ $name:ident {
        $( $(#[doc = $fdoc:literal])+ $json:literal $field:ident : $ty:ty $([$($flag:ident),+])? ),* $(,)?
    }) => {
        $(#[doc = $doc])+
        #[derive(Clone, PartialEq, Default, Debug)]
        pub struct $name { $( $(#[doc = $fdoc])+ pub $field: $ty, )* }

        impl $name {
            /// The fields as a schema.
            pub const SCHEMA: &'static $crate::dialect::schema::ObjectSchema = &$crate::dialect::schema::ObjectSchema {
                name: stringify!($name),
                doc: concat!($($doc, "\n",)+),
                open: $open,
                fields: &[$( $crate::dialect::schema::Field {
                    name: $json,
                    doc: concat!($($fdoc, "\n",)+),
                    shape: <$ty as $crate::dialect::schema::Decode>::shape,
                    required: false $($(|| $crate::object!(@flag required $flag))+)?,
                    later: false $($(|| $crate::object!(@flag later $flag))+)?,
                    guard: false $($(|| $crate::object!(@flag guard $flag))+)?,
                }, )*],
            };
        }

        impl $crate::dialect::schema::Decode for $name {
            fn decode(value: &serde_json::Value, at: &mut $crate::dialect::decode::Decoder) -> Self {
                let mut decoded = Self::default();
                at.object(value, Self::SCHEMA, |name, value, at| match name {
                    $( $json => decoded.$field = $crate::dialect::schema::Decode::decode(value, at), )*
                    // The decoder only hands over names of the schema above.
                    _ => {}
                });
                decoded
            }

            fn shape() -> $crate::dialect::schema::Shape {
                $crate::dialect::schema::Shape::Object(Self::SCHEMA)
            }
        }
    };
    (open; $($rest:tt)+) => { $crate::object!(@build true $($rest)+); };
    ($($rest:tt)+) => { $crate::object!(@build false $($rest)+); };
}

/// Declares a choice of words. The first variant is the default.
#[macro_export]
macro_rules! choice {
    ($(#[doc = $doc:literal])+ $name:ident {
        $(#[doc = $d0:literal])+ $v0:ident = $s0:literal
        $(, $(#[doc = $vdoc:literal])+ $variant:ident = $word:literal )* $(,)?
    }) => {
        $(#[doc = $doc])+
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
        pub enum $name { $(#[doc = $d0])+ #[default] $v0, $( $(#[doc = $vdoc])+ $variant, )* }

        impl $name {
            /// The words and what they mean.
            pub const VALUES: &'static [$crate::dialect::schema::ChoiceValue] = &[
                $crate::dialect::schema::ChoiceValue { name: $s0, doc: concat!($($d0,)+) },
                $( $crate::dialect::schema::ChoiceValue { name: $word, doc: concat!($($vdoc,)+) }, )*
            ];

            /// The word as written.
            pub fn as_str(self) -> &'static str {
                match self { Self::$v0 => $s0, $( Self::$variant => $word, )* }
            }
        }

        impl $crate::dialect::schema::Decode for $name {
            fn decode(value: &serde_json::Value, at: &mut $crate::dialect::decode::Decoder) -> Self {
                match at.choice(value, Self::VALUES) {
                    $( Some($word) => Self::$variant, )*
                    _ => Self::$v0,
                }
            }

            fn shape() -> $crate::dialect::schema::Shape {
                $crate::dialect::schema::Shape::Choice(Self::VALUES)
            }
        }
    };
}

pub(crate) use {choice, object};
