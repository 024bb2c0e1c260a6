//! The one source of every object's fields.
//!
//! `object!` and `choice!` declare a type once; from that declaration come the Rust type, its
//! strict decoding from JSON with full field paths, and a [`Shape`] with documentation from which
//! CRD schemas and suggestions are made.

pub use super::{
    decode::Decode,
    shape::{ChoiceValue, Field, Null, ObjectSchema, Shape, said},
};

/// Declares an object type. Each field: doc, JSON name, Rust name, type and, in brackets, marks:
/// `required` (must be there), `idle("why")` (accepted, and nothing follows from it here),
/// `refused("why")` (nothing it could say is done here), `no_null` (a null is refused).
/// `object! { open; … }` leaves unknown fields alone, `object! { no_null; … }` marks every field so.
#[macro_export]
macro_rules! object {
    (@flag required required) => { true };
    (@flag no_null no_null) => { true };
    (@flag $want:ident $have:ident) => { false };
    (@why idle idle $why:literal) => { Some($why) };
    (@why refused refused $why:literal) => { Some($why) };
    (@why $want:ident $have:ident $($why:literal)?) => { None };
    (@build $open:literal $no_null:literal $(#[doc = $doc:literal])+ $name:ident {
        $( $(#[doc = $fdoc:literal])+ $json:literal $field:ident : $ty:ty $([$($flag:ident $(($why:literal))?),+])? ),* $(,)?
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
                    idle: $crate::dialect::schema::said(
                        &[$($($crate::object!(@why idle $flag $($why)?)),+)?],
                    ),
                    refused: $crate::dialect::schema::said(
                        &[$($($crate::object!(@why refused $flag $($why)?)),+)?],
                    ),
                    null: if $no_null $($(|| $crate::object!(@flag no_null $flag))+)? {
                        $crate::dialect::schema::Null::Refused
                    } else {
                        $crate::dialect::schema::Null::Absent
                    },
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
    (open; $($rest:tt)+) => { $crate::object!(@build true false $($rest)+); };
    (no_null; $($rest:tt)+) => { $crate::object!(@build false true $($rest)+); };
    ($($rest:tt)+) => { $crate::object!(@build false false $($rest)+); };
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
