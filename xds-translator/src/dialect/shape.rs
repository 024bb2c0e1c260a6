//! Types as data: what a declaration says of fields and words. Suggestions, decoding and CRD schemas
//! read it.

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
    /// Whether fields that are not listed are left alone (Kubernetes' own kinds, of which we read a
    /// part).
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
    /// It is accepted, and nothing follows from it here: why.
    pub idle: Option<&'static str>,
    /// Nothing that it could say is done here, so that no object that says something by it is
    /// accepted: why.
    pub refused: Option<&'static str>,
    /// What a null in it says.
    pub null: Null,
}

impl Field {
    /// Whether something follows from it.
    pub fn is_acted_on(&self) -> bool {
        self.idle.is_none() && self.refused.is_none()
    }
}

/// The first reason of a list, if there is one: for declarations, which are constants.
pub const fn said(reasons: &[Option<&'static str>]) -> Option<&'static str> {
    let mut index = 0;
    while index < reasons.len() {
        if reasons[index].is_some() {
            return reasons[index];
        }
        index += 1;
    }
    None
}

/// What a null says as the value of a field.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Null {
    /// The same as no field at all.
    Absent,
    /// A mistake: without the field more is matched, selected or let in than by any value of it, and
    /// a template whose variable is empty, or a document that is cut off, writes a null.
    Refused,
}
