//! Expressions in CEL over what is known of a request or connection: logs ask whether they hold,
//! labels of metrics say what they give.
//!
//! What has no value, or cannot be computed, is an error; an expression whose result is one is not
//! true, and a label's value is unknown. Only `&&`, `||` and `?:` go on without a value that they do not need. Spec:
//! <https://github.com/google/cel-spec>, Envoy "Attributes".

use std::{cmp::Ordering, sync::Arc};

use regex::Regex;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::metadata;

/// A value.
#[derive(Clone, PartialEq, Debug)]
pub enum Value {
    /// Nothing.
    Null,
    /// Yes or no.
    Bool(bool),
    /// A whole number with a sign.
    Int(i64),
    /// A whole number without.
    Uint(u64),
    /// A number.
    Double(f64),
    /// A text.
    Text(Arc<str>),
    /// Nanoseconds.
    Duration(i128),
    /// Nanoseconds since the beginning of 1970.
    Time(i128),
    /// Several values.
    List(Vec<Value>),
    /// Values by keys.
    Map(Vec<(Value, Value)>),
    /// All attributes of one kind.
    Attributes(Root),
    /// All header fields of a message.
    Headers(Part),
    /// What filters have found out, by namespace.
    Found,
}

/// Of what an attribute is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Root {
    /// The request.
    Request,
    /// The response.
    Response,
    /// The client's connection.
    Connection,
    /// The connection to the endpoint.
    Upstream,
    /// The client.
    Source,
    /// Where it wanted to go.
    Destination,
    /// What filters have found out.
    Metadata,
    /// What configuration calls the things that the request has met.
    Xds,
}

/// A part of an exchange that has header fields.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// The request's head.
    Request,
    /// The response's head.
    Response,
    /// What follows the response's body.
    Trailers,
}

/// What an expression is about.
pub trait Attributes {
    /// An attribute; none that is not known of this one.
    fn attribute(&self, root: Root, name: &str) -> Option<Value>;

    /// A header field by its lower-case name.
    fn field(&self, part: Part, name: &str) -> Option<Arc<str>>;

    /// What filters have found out, of a namespace.
    fn found(&self, namespace: &str) -> Option<&metadata::Fields>;
}

/// An expression.
#[derive(Clone, Debug)]
pub enum Expression {
    /// Always the same.
    Constant(Value),
    /// The member of a value, by name or by place.
    Member(Box<(Expression, Expression)>),
    /// Whether there is such a member.
    Has(Box<(Expression, Expression)>),
    /// Negation.
    Not(Box<Expression>),
    /// The opposite number.
    Minus(Box<Expression>),
    /// Both are true.
    Both(Box<(Expression, Expression)>),
    /// One of both is true.
    Either(Box<(Expression, Expression)>),
    /// The second or the third, as the first says.
    Choice(Box<(Expression, Expression, Expression)>),
    /// A comparison.
    Compared(Comparison, Box<(Expression, Expression)>),
    /// An element of a list, or a key of a map.
    In(Box<(Expression, Expression)>),
    /// A computation.
    Computed(Operator, Box<(Expression, Expression)>),
    /// A list.
    List(Vec<Expression>),
    /// A map.
    Map(Vec<(Expression, Expression)>),
    /// A text of which a part matches.
    Matches(Box<Expression>, Regex),
    /// A function.
    Call(Function, Vec<Expression>),
}

/// How two values are compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Comparison {
    /// `==`
    Equal,
    /// `!=`
    Unequal,
    /// `<`
    Less,
    /// `<=`
    AtMost,
    /// `>`
    More,
    /// `>=`
    AtLeast,
}

/// What is computed of two values.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operator {
    /// `+`, of texts, lists and times too.
    Add,
    /// `-`
    Subtract,
    /// `*`
    Multiply,
    /// `/`
    Divide,
    /// `%`
    Remainder,
}

/// A function; what it is called on is its first argument.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Function {
    /// How long a text, list or map is.
    Size,
    /// One text occurs in another.
    Contains,
    /// It begins another.
    StartsWith,
    /// It ends another.
    EndsWith,
    /// As a whole number with a sign.
    Int,
    /// As a whole number without.
    Uint,
    /// As a number.
    Double,
    /// As yes or no.
    Bool,
    /// As it is.
    Dyn,
    /// A length of time out of a text.
    Duration,
    /// A time out of a text.
    Timestamp,
    /// A part of a time in UTC, or all of a length of time in a unit.
    OfTime(TimePart),
}

/// A part of a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TimePart {
    /// The year.
    Year,
    /// The month, from 0.
    Month,
    /// The day of the month, from 1.
    Date,
    /// The day of the month, from 0.
    DayOfMonth,
    /// The day of the week, Sunday is 0.
    DayOfWeek,
    /// The day of the year, from 0.
    DayOfYear,
    /// The hour.
    Hours,
    /// The minute.
    Minutes,
    /// The second.
    Seconds,
    /// The millisecond.
    Milliseconds,
}

/// There is no value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct NoValue;

type Evaluated = Result<Value, NoValue>;

const SECOND: i128 = 1_000_000_000;

impl Expression {
    /// Whether it is true of these.
    pub fn holds(&self, of: &impl Attributes) -> bool {
        self.value(of) == Ok(Value::Bool(true))
    }

    /// What it gives, as a label says it; `None`: there is no single value.
    pub fn text(&self, of: &impl Attributes) -> Option<Arc<str>> {
        match self.value(of).ok()? {
            Value::Text(text) => Some(text),
            Value::Bool(yes) => Some(if yes { "true" } else { "false" }.into()),
            Value::Int(number) => Some(number.to_string().into()),
            Value::Uint(number) => Some(number.to_string().into()),
            Value::Double(number) => Some(number.to_string().into()),
            _ => None,
        }
    }

    /// Whether it may ask for header fields of the request.
    pub fn asks_request_fields(&self) -> bool {
        /// Attributes that are such fields under names of their own.
        const FIELDS: [&str; 3] = ["referer", "useragent", "id"];
        match self {
            Self::Constant(value) => *value == Value::Headers(Part::Request),
            Self::Member(pair) | Self::Has(pair) => match &**pair {
                (Self::Constant(Value::Attributes(Root::Request)), key) => match key {
                    Self::Constant(Value::Text(name)) => FIELDS.contains(&&**name),
                    _ => true,
                },
                (whole, key) => whole.asks_request_fields() || key.asks_request_fields(),
            },
            Self::Not(inner) | Self::Minus(inner) | Self::Matches(inner, _) => {
                inner.asks_request_fields()
            }
            Self::Both(pair)
            | Self::Either(pair)
            | Self::In(pair)
            | Self::Compared(_, pair)
            | Self::Computed(_, pair) => {
                pair.0.asks_request_fields() || pair.1.asks_request_fields()
            }
            Self::Choice(all) => {
                let (asked, yes, no) = &**all;
                [asked, yes, no].into_iter().any(Self::asks_request_fields)
            }
            Self::List(items) | Self::Call(_, items) => items.iter().any(Self::asks_request_fields),
            Self::Map(pairs) => pairs
                .iter()
                .any(|(key, value)| key.asks_request_fields() || value.asks_request_fields()),
        }
    }

    fn value(&self, of: &impl Attributes) -> Evaluated {
        match self {
            Self::Constant(value) => Ok(value.clone()),
            Self::Member(pair) => member(&pair.0.value(of)?, &pair.1.value(of)?, of),
            Self::Has(pair) => {
                let whole = pair.0.value(of)?;
                Ok(Value::Bool(member(&whole, &pair.1.value(of)?, of).is_ok()))
            }
            Self::Not(inner) => Ok(Value::Bool(!inner.truth(of)?)),
            Self::Minus(inner) => match inner.value(of)? {
                Value::Int(number) => number.checked_neg().map(Value::Int).ok_or(NoValue),
                Value::Double(number) => Ok(Value::Double(-number)),
                _ => Err(NoValue),
            },
            Self::Both(pair) => decided(false, pair.0.truth(of), || pair.1.truth(of)),
            Self::Either(pair) => decided(true, pair.0.truth(of), || pair.1.truth(of)),
            Self::Choice(all) => {
                let (asked, yes, no) = &**all;
                if asked.truth(of)? { yes.value(of) } else { no.value(of) }
            }
            Self::Compared(how, pair) => how.of(&pair.0.value(of)?, &pair.1.value(of)?),
            Self::In(pair) => is_in(&pair.0.value(of)?, &pair.1.value(of)?, of).map(Value::Bool),
            Self::Computed(how, pair) => how.of(pair.0.value(of)?, pair.1.value(of)?),
            Self::List(items) => {
                items.iter().map(|item| item.value(of)).collect::<Result<_, _>>().map(Value::List)
            }
            Self::Map(pairs) => {
                let pair = |(key, value): &(Self, Self)| Ok((key.value(of)?, value.value(of)?));
                pairs.iter().map(pair).collect::<Result<_, _>>().map(Value::Map)
            }
            Self::Matches(text, regex) => match text.value(of)? {
                Value::Text(text) => Ok(Value::Bool(regex.is_match(&text))),
                _ => Err(NoValue),
            },
            Self::Call(function, arguments) => {
                let values: Vec<Value> = arguments
                    .iter()
                    .map(|argument| argument.value(of))
                    .collect::<Result<_, _>>()?;
                function.of(&values)
            }
        }
    }

    fn truth(&self, of: &impl Attributes) -> Result<bool, NoValue> {
        match self.value(of)? {
            Value::Bool(yes) => Ok(yes),
            _ => Err(NoValue),
        }
    }
}

/// Of two that one may decide alone: whichever says `decisive` does, even if the other has no value.
fn decided(
    decisive: bool,
    first: Result<bool, NoValue>,
    second: impl FnOnce() -> Result<bool, NoValue>,
) -> Evaluated {
    if first == Ok(decisive) {
        return Ok(Value::Bool(decisive));
    }
    match second() {
        Ok(yes) if yes == decisive => Ok(Value::Bool(decisive)),
        Ok(yes) => first.map(|_| Value::Bool(yes)),
        Err(none) => Err(none),
    }
}

fn member(whole: &Value, key: &Value, of: &impl Attributes) -> Evaluated {
    match (whole, key) {
        (Value::Attributes(Root::Metadata), Value::Text(name)) if **name == *"filter_metadata" => {
            Ok(Value::Found)
        }
        (Value::Attributes(root), Value::Text(name)) => of.attribute(*root, name).ok_or(NoValue),
        (Value::Headers(part), Value::Text(name)) => {
            of.field(*part, &name.to_ascii_lowercase()).map(Value::Text).ok_or(NoValue)
        }
        (Value::Found, Value::Text(name)) => of.found(name).map(Value::from).ok_or(NoValue),
        (Value::Map(pairs), key) => {
            let found = pairs.iter().find(|(other, _)| order(other, key) == Some(Ordering::Equal));
            found.map(|(_, value)| value.clone()).ok_or(NoValue)
        }
        (Value::List(items), Value::Int(at)) => {
            usize::try_from(*at).ok().and_then(|at| items.get(at).cloned()).ok_or(NoValue)
        }
        _ => Err(NoValue),
    }
}

fn is_in(item: &Value, whole: &Value, of: &impl Attributes) -> Result<bool, NoValue> {
    match whole {
        Value::List(items) => {
            Ok(items.iter().any(|other| order(other, item) == Some(Ordering::Equal)))
        }
        Value::Map(_) | Value::Headers(_) | Value::Found => Ok(member(whole, item, of).is_ok()),
        _ => Err(NoValue),
    }
}

/// How two values of one type, or two numbers, follow each other; equal or not where they have no
/// order, and nothing where they cannot be compared.
fn order(first: &Value, second: &Value) -> Option<Ordering> {
    use Value::{Bool, Double, Duration, Int, List, Map, Null, Text, Time, Uint};
    let same = |equal: bool| if equal { Ordering::Equal } else { Ordering::Less };
    match (first, second) {
        (Int(a), Int(b)) => Some(a.cmp(b)),
        (Uint(a), Uint(b)) => Some(a.cmp(b)),
        (Int(a), Uint(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
        (Uint(a), Int(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
        (Double(a), Double(b)) => a.partial_cmp(b),
        (Double(a), Int(b)) => a.partial_cmp(&(*b as f64)),
        (Int(a), Double(b)) => (*a as f64).partial_cmp(b),
        (Double(a), Uint(b)) => a.partial_cmp(&(*b as f64)),
        (Uint(a), Double(b)) => (*a as f64).partial_cmp(b),
        (Text(a), Text(b)) => Some(a.cmp(b)),
        (Bool(a), Bool(b)) => Some(a.cmp(b)),
        (Duration(a), Duration(b)) | (Time(a), Time(b)) => Some(a.cmp(b)),
        (Null, Null) => Some(Ordering::Equal),
        (List(_), List(_)) | (Map(_), Map(_)) => Some(same(first == second)),
        _ => None,
    }
}

impl Comparison {
    fn of(self, first: &Value, second: &Value) -> Evaluated {
        let null = matches!(first, Value::Null) || matches!(second, Value::Null);
        let ordered = order(first, second);
        let whole = matches!(first, Value::List(_) | Value::Map(_) | Value::Null);
        let holds = match self {
            Self::Equal if null => ordered.is_some(),
            Self::Unequal if null => ordered.is_none(),
            Self::Equal => ordered.ok_or(NoValue)?.is_eq(),
            Self::Unequal => ordered.ok_or(NoValue)?.is_ne(),
            _ if whole => return Err(NoValue),
            Self::Less => ordered.ok_or(NoValue)?.is_lt(),
            Self::AtMost => ordered.ok_or(NoValue)?.is_le(),
            Self::More => ordered.ok_or(NoValue)?.is_gt(),
            Self::AtLeast => ordered.ok_or(NoValue)?.is_ge(),
        };
        Ok(Value::Bool(holds))
    }
}

impl Operator {
    fn of(self, first: Value, second: Value) -> Evaluated {
        use Value::{Double, Duration, Int, List, Text, Time, Uint};
        let computed = match (self, first, second) {
            (how, Int(a), Int(b)) => Int(how.int(a, b).ok_or(NoValue)?),
            (how, Uint(a), Uint(b)) => Uint(how.uint(a, b).ok_or(NoValue)?),
            (Self::Remainder, Double(_), Double(_)) => return Err(NoValue),
            (how, Double(a), Double(b)) => Double(how.double(a, b)),
            (Self::Add, Text(a), Text(b)) => Text(format!("{a}{b}").into()),
            (Self::Add, List(mut a), List(b)) => {
                a.extend(b);
                List(a)
            }
            (Self::Add, Duration(a), Duration(b)) => Duration(a + b),
            (Self::Subtract, Duration(a), Duration(b)) => Duration(a - b),
            (Self::Add, Time(a), Duration(b)) | (Self::Add, Duration(a), Time(b)) => Time(a + b),
            (Self::Subtract, Time(a), Duration(b)) => Time(a - b),
            (Self::Subtract, Time(a), Time(b)) => Duration(a - b),
            _ => return Err(NoValue),
        };
        Ok(computed)
    }

    fn int(self, a: i64, b: i64) -> Option<i64> {
        match self {
            Self::Add => a.checked_add(b),
            Self::Subtract => a.checked_sub(b),
            Self::Multiply => a.checked_mul(b),
            Self::Divide => a.checked_div(b),
            Self::Remainder => a.checked_rem(b),
        }
    }

    fn uint(self, a: u64, b: u64) -> Option<u64> {
        match self {
            Self::Add => a.checked_add(b),
            Self::Subtract => a.checked_sub(b),
            Self::Multiply => a.checked_mul(b),
            Self::Divide => a.checked_div(b),
            Self::Remainder => a.checked_rem(b),
        }
    }

    fn double(self, a: f64, b: f64) -> f64 {
        match self {
            Self::Add => a + b,
            Self::Subtract => a - b,
            Self::Multiply => a * b,
            Self::Divide => a / b,
            Self::Remainder => a % b,
        }
    }
}

impl Function {
    fn of(self, arguments: &[Value]) -> Evaluated {
        use Value::{Bool, Double, Duration, Int, List, Map, Text, Time, Uint};
        let length = |length: usize| i64::try_from(length).map(Int).map_err(|_| NoValue);
        match (self, arguments) {
            (Self::Size, [Text(text)]) => length(text.chars().count()),
            (Self::Size, [List(items)]) => length(items.len()),
            (Self::Size, [Map(pairs)]) => length(pairs.len()),
            (Self::Contains, [Text(whole), Text(part)]) => Ok(Bool(whole.contains(&**part))),
            (Self::StartsWith, [Text(whole), Text(part)]) => Ok(Bool(whole.starts_with(&**part))),
            (Self::EndsWith, [Text(whole), Text(part)]) => Ok(Bool(whole.ends_with(&**part))),
            (Self::Int, [value]) => int(value).map(Int).ok_or(NoValue),
            (Self::Uint, [value]) => match value {
                Uint(number) => Ok(Uint(*number)),
                Text(text) => text.parse().map(Uint).map_err(|_| NoValue),
                other => {
                    let number = int(other).ok_or(NoValue)?;
                    u64::try_from(number).map(Uint).map_err(|_| NoValue)
                }
            },
            (Self::Double, [Double(number)]) => Ok(Double(*number)),
            (Self::Double, [Int(number)]) => Ok(Double(*number as f64)),
            (Self::Double, [Uint(number)]) => Ok(Double(*number as f64)),
            (Self::Double, [Text(text)]) => text.parse().map(Double).map_err(|_| NoValue),
            (Self::Bool, [Bool(yes)]) => Ok(Bool(*yes)),
            (Self::Bool, [Text(text)]) => match &**text {
                "true" | "True" | "TRUE" | "t" | "1" => Ok(Bool(true)),
                "false" | "False" | "FALSE" | "f" | "0" => Ok(Bool(false)),
                _ => Err(NoValue),
            },
            (Self::Dyn, [value]) => Ok(value.clone()),
            (Self::Duration, [Duration(time)]) => Ok(Duration(*time)),
            (Self::Duration, [Text(text)]) => duration(text).map(Duration).ok_or(NoValue),
            (Self::Timestamp, [Time(time)]) => Ok(Time(*time)),
            (Self::Timestamp, [Text(text)]) => match OffsetDateTime::parse(text, &Rfc3339) {
                Ok(time) => Ok(Time(time.unix_timestamp_nanos())),
                Err(_) => Err(NoValue),
            },
            (Self::OfTime(part), [Time(time)]) => part.of(*time).map(Int).ok_or(NoValue),
            (Self::OfTime(part), [Duration(time)]) => part.all_of(*time).map(Int).ok_or(NoValue),
            _ => Err(NoValue),
        }
    }
}

fn int(value: &Value) -> Option<i64> {
    match value {
        Value::Int(number) => Some(*number),
        Value::Uint(number) => i64::try_from(*number).ok(),
        Value::Double(number) if number.abs() < 9.2e18 => Some(number.trunc() as i64),
        Value::Text(text) => text.parse().ok(),
        Value::Time(time) => i64::try_from(time.div_euclid(SECOND)).ok(),
        _ => None,
    }
}

/// A length of time such as `1h30m`, `1.5s`, `-250ms`.
fn duration(text: &str) -> Option<i128> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text),
    };
    if rest == "0" {
        return Some(0);
    }
    let mut nanos = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, behind) = rest.split_at(digits);
        let end = behind.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(behind.len());
        let unit = match &behind[..end] {
            "h" => 3600e9,
            "m" => 60e9,
            "s" => 1e9,
            "ms" => 1e6,
            "us" => 1e3,
            "ns" => 1.0,
            _ => return None,
        };
        nanos += number.parse::<f64>().ok()? * unit;
        rest = &behind[end..];
    }
    (!text.is_empty() && nanos < 1e28).then_some((sign * nanos) as i128)
}

impl TimePart {
    fn of(self, nanos: i128) -> Option<i64> {
        let at = OffsetDateTime::from_unix_timestamp_nanos(nanos).ok()?;
        Some(match self {
            Self::Year => at.year().into(),
            Self::Month => i64::from(u8::from(at.month())) - 1,
            Self::Date => at.day().into(),
            Self::DayOfMonth => i64::from(at.day()) - 1,
            Self::DayOfWeek => at.weekday().number_days_from_sunday().into(),
            Self::DayOfYear => i64::from(at.ordinal()) - 1,
            Self::Hours => at.hour().into(),
            Self::Minutes => at.minute().into(),
            Self::Seconds => at.second().into(),
            Self::Milliseconds => at.millisecond().into(),
        })
    }

    fn all_of(self, nanos: i128) -> Option<i64> {
        let unit = match self {
            Self::Hours => 3600 * SECOND,
            Self::Minutes => 60 * SECOND,
            Self::Seconds => SECOND,
            // Only what the others leave, as in Envoy.
            Self::Milliseconds => return i64::try_from(nanos % SECOND / 1_000_000).ok(),
            _ => return None,
        };
        i64::try_from(nanos / unit).ok()
    }
}

impl From<&metadata::Fields> for Value {
    fn from(fields: &metadata::Fields) -> Self {
        let pair = |(key, value): (&Arc<str>, &metadata::Value)| {
            (Self::Text(Arc::clone(key)), Self::from(value))
        };
        Self::Map(fields.iter().map(pair).collect())
    }
}

impl From<&metadata::Value> for Value {
    fn from(value: &metadata::Value) -> Self {
        match value {
            metadata::Value::Null => Self::Null,
            metadata::Value::Bool(yes) => Self::Bool(*yes),
            metadata::Value::Number(number) => Self::Double(*number),
            metadata::Value::Text(text) => Self::Text(Arc::clone(text)),
            metadata::Value::List(items) => Self::List(items.iter().map(Self::from).collect()),
            metadata::Value::Struct(fields) => Self::from(fields),
        }
    }
}
