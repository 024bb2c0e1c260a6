//! Strict decoding of JSON values into the declared types, collecting every mistake with its path.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde_json::{Map, Value};

use super::{
    scalar::{parse_duration, parse_port},
    shape::{ChoiceValue, Field, Null, ObjectSchema, Shape},
    suggest::{self, Suggestion},
};
use crate::{
    diagnostic::{Change, Code, Diagnostic, FieldPath, Segment, Severity},
    ir::ObjectId,
};

/// A type that is read from a JSON value. Mistakes go to the decoder; the result is then the
/// default, so that as much as possible of an object can be looked at.
pub trait Decode: Default {
    /// Reads `value`, which sits at the decoder's current path and is not null.
    fn decode(value: &Value, at: &mut Decoder) -> Self;
    /// What a null says as the value of a key: nothing, which is a mistake, but for types that give it
    /// a meaning.
    fn decode_null(at: &mut Decoder) -> Self {
        at.null();
        Self::default()
    }
    /// The type as a schema.
    fn shape() -> Shape;
}

/// Walks a value and notes what is wrong with it.
#[derive(Default)]
pub struct Decoder {
    path: Vec<Step>,
    diagnostics: Vec<Diagnostic>,
    /// Unknown fields that were read as known ones: where they are written, and the name they were
    /// read as.
    renamed: Vec<(FieldPath, &'static str)>,
    /// The object that is read; `None` until its identity is known.
    object: Option<ObjectId>,
}

/// A step of the current path. Names of declared fields are not copied, since most values have no
/// mistakes.
enum Step {
    Field(&'static str),
    Key(Box<str>),
    Index(usize),
}

impl From<&Step> for Segment {
    fn from(step: &Step) -> Self {
        match step {
            Step::Field(name) => Self::Field((*name).into()),
            Step::Key(key) => Self::Field(key.as_ref().into()),
            Step::Index(index) => Self::Index(*index),
        }
    }
}

impl Decoder {
    /// What was found, in the order of the walk.
    pub fn finish(self) -> Vec<Diagnostic> {
        let Self { mut diagnostics, renamed, .. } = self;
        for diagnostic in &mut diagnostics {
            for (written, name) in &renamed {
                as_written(&mut diagnostic.field, written, name);
                if let Some(change) = &mut diagnostic.change {
                    as_written(change.field_mut(), written, name);
                }
            }
        }
        diagnostics
    }

    /// Says which object is read.
    pub(super) fn about(&mut self, id: &ObjectId) {
        self.object = Some(id.clone());
    }

    /// The name of the object that is read; empty where that is not known.
    pub(super) fn name(&self) -> &str {
        self.object.as_ref().map_or("", |id| &id.name)
    }

    /// Its namespace; empty where that is not known, and for cluster-scoped kinds.
    pub(super) fn namespace(&self) -> &str {
        self.object.as_ref().map_or("", |id| &id.namespace)
    }

    /// The current path.
    pub fn path(&self) -> FieldPath {
        FieldPath(self.path.iter().map(Segment::from).collect())
    }

    /// Whether something is refused already at the current path, or below it: what stands there was
    /// read as if it were not written.
    pub(super) fn is_refused_here(&self) -> bool {
        let path = self.path();
        let refused = |d: &&Diagnostic| d.severity == Severity::Error;
        self.diagnostics.iter().filter(refused).any(|d| d.field.0.starts_with(&path.0))
    }

    /// Runs `f` one field deeper.
    pub fn within<T>(&mut self, field: &'static str, f: impl FnOnce(&mut Self) -> T) -> T {
        self.step(Step::Field(field), f)
    }

    /// Runs `f` one list element deeper.
    pub fn within_index<T>(&mut self, index: usize, f: impl FnOnce(&mut Self) -> T) -> T {
        self.step(Step::Index(index), f)
    }

    /// Runs `f` one map key deeper.
    pub fn within_key<T>(&mut self, key: &str, f: impl FnOnce(&mut Self) -> T) -> T {
        self.step(Step::Key(key.into()), f)
    }

    fn step<T>(&mut self, step: Step, f: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(step);
        let result = f(self);
        self.path.pop();
        result
    }

    /// Notes a finding whose path is already set.
    pub fn note(&mut self, diagnostic: Diagnostic) {
        self.diagnostics.push(diagnostic);
    }

    /// Notes that the value here has another type.
    pub fn wrong_type(&mut self, expected: &str, got: &Value, fix: Option<String>) {
        let mut diagnostic = Diagnostic::error(Code::WrongType, self.path(), "wrong type")
            .expected(expected, describe(got));
        diagnostic.fix = fix;
        self.note(diagnostic);
    }

    /// As [`Self::wrong_type`]; `meant` is the value that stands there in another form.
    fn other_form(&mut self, expected: &str, got: &Value, meant: Value, fix: String) {
        let change = Change::Set(self.path(), meant);
        let finding = Diagnostic::error(Code::WrongType, self.path(), "wrong type");
        self.note(finding.expected(expected, describe(got)).fix(fix).change(change));
    }

    /// Notes a null where something must be said.
    pub fn null(&mut self) {
        let diagnostic = Diagnostic::error(
            Code::WrongType,
            self.path(),
            "null says nothing, and is refused here",
        );
        self.note(diagnostic.fix("give it a value, or take it out"));
    }

    /// Notes that the value here is not allowed.
    pub fn invalid(&mut self, message: impl Into<String>, fix: Option<String>) {
        let mut diagnostic = Diagnostic::error(Code::InvalidValue, self.path(), message);
        diagnostic.fix = fix;
        self.note(diagnostic);
    }

    /// Notes that a field below the current path is missing.
    pub fn missing(&mut self, field: &'static str, fix: Option<String>) {
        let mut diagnostic = Diagnostic::error(
            Code::MissingField,
            self.path().field(field),
            "missing, but required",
        );
        diagnostic.fix = fix;
        self.note(diagnostic);
    }

    /// Notes something of lesser weight about the value here.
    pub fn remark(&mut self, make: impl FnOnce(FieldPath) -> Diagnostic) {
        let diagnostic = make(self.path());
        self.note(diagnostic);
    }

    /// Notes a regex that does not compile, or that RE2, which proxies run, does not take.
    pub fn check_regex(&mut self, regex: &str) {
        if let Some(reason) = super::re2::objection(regex) {
            return self.invalid(format!("not an RE2 expression: {reason}"), None);
        }
        if let Err(err) = regex::Regex::new(regex) {
            let reason = err.to_string();
            let reason = reason.lines().last().unwrap_or_default().trim_start_matches("error: ");
            self.invalid(format!("not a regular expression: {reason}"), None);
        }
    }

    /// Walks the fields of an object, handing each known one to `field`.
    pub fn object(
        &mut self,
        value: &Value,
        schema: &'static ObjectSchema,
        mut field: impl FnMut(&'static str, &Value, &mut Self),
    ) {
        let Value::Object(map) = value else {
            return self.wrong_type("an object", value, None);
        };
        for (key, value) in map {
            match schema.fields.iter().find(|f| f.name == key) {
                Some(known) => self.known_field(known, value, &mut field),
                None if schema.open => {}
                None => self.unknown_field(key, value, map, schema, &mut field),
            }
        }
        for required in schema.fields.iter().filter(|f| f.required) {
            let given = map.get(required.name);
            match given {
                Some(Value::Array(list)) if list.is_empty() => {
                    self.within(required.name, |at| at.invalid("empty, but one is required", None));
                }
                Some(Value::String(text))
                    if text.is_empty() && matches!((required.shape)(), Shape::Text) =>
                {
                    self.within(required.name, |at| at.invalid("empty, but required", None));
                }
                _ => {}
            }
            let absent = given.is_none_or(Value::is_null);
            if absent && !self.stands_in(required.name, map, schema) {
                self.missing(required.name, None);
            }
        }
    }

    fn known_field(
        &mut self,
        known: &'static Field,
        value: &Value,
        field: &mut impl FnMut(&'static str, &Value, &mut Self),
    ) {
        if value.is_null() {
            // What is required is missing, which is said.
            if known.null == Null::Refused && !known.required {
                self.within(known.name, Self::null);
            }
            return;
        }
        self.within(known.name, |at| {
            if let Some(why) = known.idle {
                at.remark(|path| {
                    Diagnostic::info(Code::NotActedOn, path, format!("no effect: {why}"))
                });
            }
            if let Some(why) = known.refused.filter(|_| asks_for_something(value)) {
                at.remark(|path| Diagnostic::error(Code::NotActedOn, path, why));
            }
            field(known.name, value, at);
        });
    }

    /// Notes an unknown field, and reads its value as that of the field it stands for, so that
    /// mistakes below it show too.
    fn unknown_field(
        &mut self,
        key: &str,
        value: &Value,
        map: &Map<String, Value>,
        schema: &'static ObjectSchema,
        field: &mut impl FnMut(&'static str, &Value, &mut Self),
    ) {
        let suggestion = suggest::for_field(key, value, schema);
        self.within_key(key, |at| {
            at.unknown(key, &suggestion, map, schema);
            if let Suggestion::Rename(name) = suggestion
                && !map.contains_key(name)
            {
                let written = at.path();
                at.renamed.push((written, name));
                field(name, value, at);
            }
        });
    }

    /// Notes that the field `key` of `map`, which is the one here, is unknown.
    pub(super) fn unknown(
        &mut self,
        key: &str,
        suggestion: &Suggestion,
        map: &Map<String, Value>,
        schema: &'static ObjectSchema,
    ) {
        let mut finding = unknown_field(self.path(), suggestion, schema);
        let there = matches!(suggestion, Suggestion::Rename(name) if map.contains_key(*name));
        finding.change = suggest::change(key, self.path(), suggestion, schema).filter(|_| !there);
        self.note(finding);
    }

    /// Whether an unknown field of the object is taken for `required`.
    fn stands_in(
        &self,
        required: &str,
        map: &Map<String, Value>,
        schema: &'static ObjectSchema,
    ) -> bool {
        let unknown =
            map.iter().filter(|(key, _)| schema.fields.iter().all(|f| f.name != key.as_str()));
        unknown.into_iter().any(|(key, value)| matches!(suggest::for_field(key, value, schema), Suggestion::Rename(name) if name == required))
    }

    /// Reads one of a fixed set of words; a near miss is noted and taken for the word it resembles.
    pub fn choice(&mut self, value: &Value, words: &'static [ChoiceValue]) -> Option<&'static str> {
        let names: Vec<&'static str> = words.iter().map(|w| w.name).collect();
        match value {
            Value::String(text) => self.word(text, &names),
            _ => {
                self.wrong_type(&format!("one of {}", names.join(", ")), value, None);
                None
            }
        }
    }

    /// As [`Self::choice`], of words that are known when the program runs.
    pub fn word<'a>(&mut self, text: &str, words: &[&'a str]) -> Option<&'a str> {
        if let Some(word) = words.iter().find(|word| **word == text) {
            return Some(*word);
        }
        let finding = Diagnostic::error(Code::InvalidValue, self.path(), "not a known value")
            .expected(format!("one of {}", words.join(", ")), format!("`{text}`"));
        self.note(suggest::advise(finding, text, words.iter().copied()));
        suggest::nearest(text, words.iter().copied())
    }
}

impl Decoder {
    /// Notes, as a warning, that the word at the current path is none of `words`, which are known when
    /// the program runs.
    pub fn unknown_word(&mut self, word: &str, words: &[&str]) {
        let finding =
            Diagnostic::warning(Code::UnknownField, self.path(), "no such field: not read");
        self.note(suggest::advise(finding, word, words.iter().copied()));
    }
}

/// Whether a value is more than the absence of one.
fn says_something(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        _ => true,
    }
}

/// Whether a value asks for more than what holds without it.
fn asks_for_something(value: &Value) -> bool {
    match value {
        Value::Bool(flag) => *flag,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::Object(fields) => fields.values().any(asks_for_something),
        _ => says_something(value),
    }
}

/// Turns a path below a field that was read as `name` into one below the field that is written.
fn as_written(path: &mut FieldPath, written: &FieldPath, name: &str) {
    let Some((key, parent)) = written.0.split_last() else { return };
    let same = path.0.starts_with(parent)
        && matches!(path.0.get(parent.len()), Some(Segment::Field(field)) if **field == *name);
    if same {
        path.0[parent.len()] = key.clone();
    }
}

fn unknown_field(path: FieldPath, suggestion: &Suggestion, schema: &ObjectSchema) -> Diagnostic {
    let error = |message: String| Diagnostic::error(Code::UnknownField, path.clone(), message);
    match suggestion {
        Suggestion::Rename(name) => error(format!("unknown field, did you mean `{name}`?"))
            .fix(format!("rename it to `{name}`")),
        Suggestion::Advice { message, fix } => error(format!("unknown field: {message}")).fix(*fix),
        Suggestion::None => {
            let known = schema.fields.iter().map(|f| f.name).collect::<Vec<_>>().join(", ");
            error(format!("unknown field; known fields here: {known}")).fix("remove it")
        }
    }
}

/// A value in words, shortened.
pub fn describe(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Bool(b) => format!("the boolean {b}"),
        Value::Number(n) => format!("the number {n}"),
        Value::String(s) if s.chars().count() > 40 => {
            format!("the text \"{}…\"", s.chars().take(40).collect::<String>())
        }
        Value::String(s) => format!("the text {s:?}"),
        Value::Array(list) => format!("a list of {}", list.len()),
        Value::Object(_) => "an object".to_owned(),
    }
}

impl Decode for Arc<str> {
    fn decode(value: &Value, at: &mut Decoder) -> Self {
        match value {
            Value::String(text) => return text.as_str().into(),
            Value::Array(list)
                if list.iter().all(|v| v.is_string() || v.is_number()) && !list.is_empty() =>
            {
                let joined = list.iter().map(plain).collect::<Vec<_>>().join(",");
                at.other_form("text", value, joined.as_str().into(), format!("{joined:?}"));
                return joined.into();
            }
            Value::Bool(_) | Value::Number(_) => {
                let text = plain(value);
                at.other_form("text", value, text.as_str().into(), format!("quote it: \"{text}\""));
                return text.into();
            }
            _ => at.wrong_type("text", value, None),
        }
        Self::default()
    }

    fn shape() -> Shape {
        Shape::Text
    }
}

/// A number as it is written shortest.
fn shortest(n: f64) -> Value {
    if n.fract() == 0.0 && n.abs() < 1e15 { Value::from(n as i64) } else { Value::from(n) }
}

/// A scalar without quotes.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

impl Decode for bool {
    fn decode(value: &Value, at: &mut Decoder) -> Self {
        if let Value::Bool(b) = value {
            return *b;
        }
        let meant = match value.as_str().map(str::to_ascii_lowercase).as_deref() {
            Some("true" | "yes" | "on") => Some(true),
            Some("false" | "no" | "off") => Some(false),
            _ => None,
        };
        const EXPECTED: &str = "true or false";
        match meant {
            Some(b) => at.other_form(EXPECTED, value, b.into(), format!("`{b}` without quotes")),
            None => at.wrong_type(EXPECTED, value, None),
        }
        meant.unwrap_or_default()
    }

    fn shape() -> Shape {
        Shape::Bool
    }
}

macro_rules! integer {
    ($($ty:ty),+) => {$(
        impl Decode for $ty {
            fn decode(value: &Value, at: &mut Decoder) -> Self {
                whole_number(value, at, i64::try_from(<$ty>::MIN).unwrap_or(i64::MIN), i64::try_from(<$ty>::MAX).unwrap_or(i64::MAX))
                    .and_then(|n| <$ty>::try_from(n).ok())
                    .unwrap_or_default()
            }

            fn shape() -> Shape {
                Shape::Integer { min: i64::try_from(<$ty>::MIN).unwrap_or(i64::MIN), max: i64::try_from(<$ty>::MAX).unwrap_or(i64::MAX) }
            }
        }
    )+};
}
integer!(u16, u32, u64, i32, i64);

fn whole_number(value: &Value, at: &mut Decoder, min: i64, max: i64) -> Option<i64> {
    let number = match value {
        // `90.0` is how some tools write 90.
        Value::Number(n) => n.as_i64().or_else(|| {
            n.as_f64().filter(|f| f.fract() == 0.0 && f.abs() < 1e15).map(|f| f as i64)
        }),
        Value::String(text) => {
            let number = text.trim().parse::<i64>().ok();
            match number {
                Some(n) => {
                    let fix = format!("`{n}` without quotes");
                    at.other_form("a whole number", value, n.into(), fix);
                }
                None => at.wrong_type("a whole number", value, None),
            }
            return number.filter(|n| (min..=max).contains(n));
        }
        _ => {
            at.wrong_type("a whole number", value, None);
            return None;
        }
    };
    let allowed = number.filter(|n| (min..=max).contains(n));
    if allowed.is_none() {
        at.note(
            Diagnostic::error(Code::InvalidValue, at.path(), "out of range")
                .expected(format!("{min}..={max}"), value.to_string()),
        );
    }
    allowed
}

impl Decode for f64 {
    fn decode(value: &Value, at: &mut Decoder) -> Self {
        if let Some(number) = value.as_f64() {
            return number;
        }
        let number = value
            .as_str()
            .and_then(|s| s.trim().trim_end_matches('%').parse::<f64>().ok())
            .filter(|n| n.is_finite());
        match number {
            Some(n) => {
                let fix = format!("`{n}` without quotes");
                at.other_form("a number", value, shortest(n), fix);
            }
            None => at.wrong_type("a number", value, None),
        }
        number.unwrap_or_default()
    }

    fn shape() -> Shape {
        Shape::Number
    }
}

impl Decode for Duration {
    fn decode(value: &Value, at: &mut Decoder) -> Self {
        const EXPECTED: &str = "a duration such as `5s`, `1h30m` or `100ms`";
        let seconds = match value {
            Value::String(text) => match parse_duration(text) {
                Some(duration) => return duration,
                None => text.parse::<f64>().ok(),
            },
            Value::Number(n) => n.as_f64(),
            _ => None,
        };
        let seconds = seconds.filter(|n| *n >= 0.0);
        match seconds {
            Some(n) => {
                let text = format!("{n}s");
                at.other_form(EXPECTED, value, text.as_str().into(), format!("`{text}`"));
            }
            None => at.wrong_type(EXPECTED, value, None),
        }
        seconds.and_then(|n| Duration::try_from_secs_f64(n).ok()).unwrap_or_default()
    }

    fn shape() -> Shape {
        Shape::Duration
    }
}

impl<T: Decode> Decode for Option<T> {
    fn decode(value: &Value, at: &mut Decoder) -> Self {
        (!value.is_null()).then(|| T::decode(value, at))
    }

    fn shape() -> Shape {
        T::shape()
    }
}

/// Reads the value of a key.
fn entry<T: Decode>(value: &Value, at: &mut Decoder) -> T {
    if value.is_null() { T::decode_null(at) } else { T::decode(value, at) }
}

/// Reads an element of a list.
fn element<T: Decode>(value: &Value, at: &mut Decoder) -> T {
    if !value.is_null() {
        return T::decode(value, at);
    }
    at.null();
    T::default()
}

impl<T: Decode> Decode for Vec<T> {
    fn decode(value: &Value, at: &mut Decoder) -> Self {
        let Value::Array(list) = value else {
            match value {
                Value::Object(_) => {
                    at.wrong_type("a list", value, Some("begin it with `- `".to_owned()));
                }
                _ => {
                    let list = Value::Array(vec![value.clone()]);
                    at.other_form("a list", value, list, format!("[{}]", plain(value)));
                }
            }
            let one = T::decode(value, &mut Decoder::default());
            return vec![one];
        };
        list.iter()
            .enumerate()
            .map(|(i, value)| at.within_index(i, |at| element(value, at)))
            .collect()
    }

    fn shape() -> Shape {
        Shape::List(T::shape)
    }
}

impl<T: Decode> Decode for BTreeMap<Arc<str>, T> {
    fn decode(value: &Value, at: &mut Decoder) -> Self {
        let Value::Object(map) = value else {
            at.wrong_type("a map", value, None);
            return Self::new();
        };
        map.iter()
            .map(|(key, value)| (key.as_str().into(), at.within_key(key, |at| entry(value, at))))
            .collect()
    }

    fn shape() -> Shape {
        Shape::Map(T::shape)
    }
}

/// Maps by port number: JSON keys are text.
impl<T: Decode> Decode for BTreeMap<u16, T> {
    fn decode(value: &Value, at: &mut Decoder) -> Self {
        let by_text = BTreeMap::<Arc<str>, T>::decode(value, at);
        let mut by_port = Self::new();
        for (key, value) in by_text {
            match parse_port(&key) {
                Some(port) => drop(by_port.insert(port, value)),
                None => at.within_key(&key, |at| {
                    at.invalid(format!("expected a port number 1..=65535, got `{key}`"), None)
                }),
            }
        }
        by_port
    }

    fn shape() -> Shape {
        Shape::Map(T::shape)
    }
}

impl Decode for Value {
    fn decode(value: &Value, _: &mut Decoder) -> Self {
        value.clone()
    }

    fn shape() -> Shape {
        Shape::Any
    }
}
