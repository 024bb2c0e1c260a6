//! Reads expressions in CEL. What Envoy's build does not run, and attributes that our proxy does not
//! know, are refused by name. Spec: <https://github.com/google/cel-spec>, "Syntax".

use std::str::Chars;

use regex::Regex;

use super::field::Invalid;
use crate::runtime::cel::{
    Comparison, Expression, Function, Operator, Part, Root, TimePart, Value,
};

/// Expressions lie in each other no deeper, as in Envoy.
const DEEPEST: usize = 32;

/// Reads an expression.
pub(super) fn compile(text: &str) -> Result<Expression, Invalid> {
    let wrong = |reason: String| Invalid::new(format!("not an expression in CEL: {reason}"));
    let tokens = tokens(text).map_err(wrong)?;
    let mut parser = Parser { tokens, place: 0, depth: 0 };
    let expression = parser.expression().map_err(wrong)?;
    match parser.tokens.get(parser.place) {
        None => Ok(expression),
        Some(token) => Err(wrong(format!("{token:?} follows what is complete"))),
    }
}

/// Reads the expression of a label. `string(…)` around it, which Envoy's build does not run, is left
/// away: a label is a text whatever its expression gives.
pub(super) fn label(text: &str) -> Result<Expression, Invalid> {
    let whole = text.trim();
    let inner = whole.strip_prefix("string(").and_then(|rest| rest.strip_suffix(')'));
    let inner = inner.and_then(|inner| compile(inner).ok());
    let expression = inner.map_or_else(|| compile(whole), Ok)?;
    if is_single(&expression) {
        return Ok(expression);
    }
    Err(Invalid::new(format!("{text} gives no single value, which a label needs")))
}

/// Whether it may give a text, a number, or yes or no.
fn is_single(expression: &Expression) -> bool {
    match expression {
        Expression::List(_) | Expression::Map(_) => false,
        Expression::Constant(value) => {
            !matches!(value, Value::Attributes(_) | Value::Headers(_) | Value::Null)
        }
        Expression::Call(function, _) => {
            !matches!(function, Function::Duration | Function::Timestamp)
        }
        Expression::Member(pair) => match &**pair {
            (
                Expression::Constant(Value::Attributes(root)),
                Expression::Constant(Value::Text(name)),
            ) => !matches!(
                (root, &**name),
                (Root::Request, "time" | "duration") | (Root::Metadata, "filter_metadata")
            ),
            _ => true,
        },
        _ => true,
    }
}

/// What an expression is written with.
#[derive(Clone, PartialEq, Debug)]
enum Token {
    Name(String),
    Constant(Value),
    Sign(&'static str),
}

/// Signs, longer ones before those that they begin with.
const SIGNS: [&str; 24] = [
    "&&", "||", "==", "!=", "<=", ">=", "<", ">", "+", "-", "*", "/", "%", "!", "?", ":", ".", ",",
    "(", ")", "[", "]", "{", "}",
];

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let (token, behind) = if let Some((text, behind)) = quoted(rest)? {
            (Token::Constant(Value::Text(text.into())), behind)
        } else if first.is_ascii_digit() {
            let (number, behind) = number(rest)?;
            (Token::Constant(number), behind)
        } else if first.is_ascii_alphabetic() || first == '_' {
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            let (name, behind) = rest.split_at(end.unwrap_or(rest.len()));
            (Token::Name(name.to_owned()), behind)
        } else {
            let sign = SIGNS.into_iter().find(|sign| rest.starts_with(sign));
            let sign = sign.ok_or_else(|| format!("{first:?} means nothing"))?;
            (Token::Sign(sign), &rest[sign.len()..])
        };
        tokens.push(token);
        rest = behind.trim_start();
    }
    Ok(tokens)
}

/// A text in quotes and what stands behind it; none where there is none.
fn quoted(rest: &str) -> Result<Option<(String, &str)>, String> {
    let (raw, body) = match rest.strip_prefix(['r', 'R']) {
        Some(body) if body.starts_with(['"', '\'']) => (true, body),
        _ => (false, rest),
    };
    let marks = ["\"\"\"", "'''", "\"", "'"];
    let Some(mark) = marks.into_iter().find(|mark| body.starts_with(mark)) else {
        return Ok(None);
    };
    let mut inside = body[mark.len()..].chars();
    let mut text = String::new();
    loop {
        if let Some(behind) = inside.as_str().strip_prefix(mark) {
            return Ok(Some((text, behind)));
        }
        match inside.next() {
            Some('\\') if !raw => text.push(escaped(&mut inside)?),
            Some('\n' | '\r') if mark.len() == 1 => return Err("a text has no end".to_owned()),
            Some(c) => text.push(c),
            None => return Err("a text has no end".to_owned()),
        }
    }
}

/// The character that is written behind a backslash.
fn escaped(rest: &mut Chars<'_>) -> Result<char, String> {
    let before = rest.as_str();
    let (skipped, digits, radix) = match rest.next() {
        Some('x' | 'X') => (1, 2, 16),
        Some('u') => (1, 4, 16),
        Some('U') => (1, 8, 16),
        Some('0'..='3') => (0, 3, 8),
        Some('a') => return Ok('\x07'),
        Some('b') => return Ok('\x08'),
        Some('f') => return Ok('\x0c'),
        Some('n') => return Ok('\n'),
        Some('r') => return Ok('\r'),
        Some('t') => return Ok('\t'),
        Some('v') => return Ok('\x0b'),
        Some(c @ ('\\' | '\'' | '"' | '?' | '`')) => return Ok(c),
        _ => return Err("a backslash stands before what it cannot".to_owned()),
    };
    let text = before.get(skipped..skipped + digits);
    let number = text.and_then(|text| u32::from_str_radix(text, radix).ok());
    *rest = before.get(skipped + digits..).unwrap_or_default().chars();
    number.and_then(char::from_u32).ok_or_else(|| "a character has no such number".to_owned())
}

/// A number and what stands behind it.
fn number(rest: &str) -> Result<(Value, &str), String> {
    let mut end = 0;
    let mut before = ' ';
    for (place, c) in rest.char_indices() {
        let exponent = matches!(c, '+' | '-') && matches!(before, 'e' | 'E');
        // A point that no digit follows asks for a member.
        let point = c == '.' && rest[place + 1..].starts_with(|c: char| c.is_ascii_digit());
        if !(c.is_ascii_alphanumeric() || exponent || point) {
            break;
        }
        (end, before) = (place + c.len_utf8(), c);
    }
    let (text, behind) = rest.split_at(end);
    let plain = text.strip_suffix(['u', 'U']);
    let (digits, radix) = match plain.unwrap_or(text).strip_prefix("0x") {
        Some(digits) => (digits, 16),
        None => (plain.unwrap_or(text), 10),
    };
    let value = match plain {
        Some(_) => u64::from_str_radix(digits, radix).ok().map(Value::Uint),
        None if radix == 10 && text.contains(['.', 'e', 'E']) => {
            text.parse().ok().map(Value::Double)
        }
        None => i64::from_str_radix(digits, radix).ok().map(Value::Int),
    };
    Ok((value.ok_or_else(|| format!("{text} is no number"))?, behind))
}

struct Parser {
    tokens: Vec<Token>,
    place: usize,
    depth: usize,
}

type Read = Result<Expression, String>;

/// Operators that compare, and those that compute, the weaker ones first.
const COMPARISONS: [(&str, Comparison); 6] = [
    ("==", Comparison::Equal),
    ("!=", Comparison::Unequal),
    ("<=", Comparison::AtMost),
    (">=", Comparison::AtLeast),
    ("<", Comparison::Less),
    (">", Comparison::More),
];
const SUMS: [(&str, Operator); 2] = [("+", Operator::Add), ("-", Operator::Subtract)];
const PRODUCTS: [(&str, Operator); 3] =
    [("*", Operator::Multiply), ("/", Operator::Divide), ("%", Operator::Remainder)];

impl Parser {
    fn takes(&mut self, sign: &str) -> bool {
        let is_next = matches!(self.tokens.get(self.place), Some(Token::Sign(s)) if *s == sign);
        self.place += usize::from(is_next);
        is_next
    }

    fn takes_in(&mut self) -> bool {
        let is_next = matches!(self.tokens.get(self.place), Some(Token::Name(n)) if n == "in");
        self.place += usize::from(is_next);
        is_next
    }

    fn expect(&mut self, sign: &str) -> Result<(), String> {
        match self.takes(sign) {
            true => Ok(()),
            false => Err(format!("{sign} is missing")),
        }
    }

    fn expression(&mut self) -> Read {
        self.nested(Self::choice)
    }

    fn choice(&mut self) -> Read {
        let read = self.any()?;
        if !self.takes("?") {
            return Ok(read);
        }
        let yes = self.any()?;
        self.expect(":")?;
        Ok(Expression::Choice(Box::new((read, yes, self.expression()?))))
    }

    fn any(&mut self) -> Read {
        let mut read = self.all()?;
        while self.takes("||") {
            read = Expression::Either(Box::new((read, self.all()?)));
        }
        Ok(read)
    }

    fn all(&mut self) -> Read {
        let mut read = self.comparison()?;
        while self.takes("&&") {
            read = Expression::Both(Box::new((read, self.comparison()?)));
        }
        Ok(read)
    }

    fn comparison(&mut self) -> Read {
        let mut read = self.sum()?;
        loop {
            if let Some((_, how)) = COMPARISONS.into_iter().find(|(sign, _)| self.takes(sign)) {
                read = Expression::Compared(how, Box::new((read, self.sum()?)));
            } else if self.takes_in() {
                read = Expression::In(Box::new((read, self.sum()?)));
            } else {
                return Ok(read);
            }
        }
    }

    fn sum(&mut self) -> Read {
        let mut read = self.product()?;
        while let Some((_, how)) = SUMS.into_iter().find(|(sign, _)| self.takes(sign)) {
            read = Expression::Computed(how, Box::new((read, self.product()?)));
        }
        Ok(read)
    }

    fn product(&mut self) -> Read {
        let mut read = self.unary()?;
        while let Some((_, how)) = PRODUCTS.into_iter().find(|(sign, _)| self.takes(sign)) {
            read = Expression::Computed(how, Box::new((read, self.unary()?)));
        }
        Ok(read)
    }

    fn unary(&mut self) -> Read {
        if self.takes("!") {
            return Ok(Expression::Not(Box::new(self.nested(Self::unary)?)));
        }
        if self.takes("-") {
            return Ok(Expression::Minus(Box::new(self.nested(Self::unary)?)));
        }
        self.value()
    }

    fn nested(&mut self, inner: fn(&mut Self) -> Read) -> Read {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(format!("more than {DEEPEST} levels"));
        }
        let read = inner(self)?;
        self.depth -= 1;
        Ok(read)
    }

    fn value(&mut self) -> Read {
        let mut read = self.primary()?;
        loop {
            if self.takes(".") {
                let name = self.name()?;
                read = match self.takes("(") {
                    true => {
                        let rest = self.list(")", Self::expression)?;
                        call(&name, [vec![read], rest].concat())?
                    }
                    false => member(read, Expression::Constant(Value::Text(name.into())))?,
                };
            } else if self.takes("[") {
                let key = self.expression()?;
                self.expect("]")?;
                read = member(read, key)?;
            } else {
                return Ok(read);
            }
        }
    }

    fn name(&mut self) -> Result<String, String> {
        match self.tokens.get(self.place) {
            Some(Token::Name(name)) if !matches!(&**name, "in" | "true" | "false" | "null") => {
                self.place += 1;
                Ok(name.clone())
            }
            _ => Err("a name is missing".to_owned()),
        }
    }

    /// What stands between commas, up to the sign that ends it.
    fn list<T>(
        &mut self,
        end: &str,
        mut item: impl FnMut(&mut Self) -> Result<T, String>,
    ) -> Result<Vec<T>, String> {
        let mut items = Vec::new();
        while !self.takes(end) {
            items.push(item(self)?);
            if !self.takes(",") {
                self.expect(end)?;
                break;
            }
        }
        Ok(items)
    }

    fn primary(&mut self) -> Read {
        if self.takes("(") {
            let read = self.expression()?;
            self.expect(")")?;
            return Ok(read);
        }
        if self.takes("[") {
            return self.list("]", Self::expression).map(Expression::List);
        }
        if self.takes("{") {
            let pairs = self.list("}", |parser| {
                let key = parser.expression()?;
                parser.expect(":")?;
                Ok((key, parser.expression()?))
            });
            return pairs.map(Expression::Map);
        }
        match self.tokens.get(self.place).cloned() {
            Some(Token::Constant(value)) => {
                self.place += 1;
                Ok(Expression::Constant(value))
            }
            Some(Token::Name(name)) => {
                self.place += 1;
                self.named(&name)
            }
            _ => Err("a value is missing".to_owned()),
        }
    }

    fn named(&mut self, name: &str) -> Read {
        let constant = |value| Ok(Expression::Constant(value));
        match name {
            "true" => constant(Value::Bool(true)),
            "false" => constant(Value::Bool(false)),
            "null" => constant(Value::Null),
            _ if self.takes("(") => {
                let arguments = self.list(")", Self::expression)?;
                match (name, &arguments[..]) {
                    ("has", [Expression::Member(pair)]) => Ok(Expression::Has(pair.clone())),
                    // A message has a map of fields, if an empty one.
                    ("has", [Expression::Constant(Value::Headers(_))]) => {
                        constant(Value::Bool(true))
                    }
                    _ => call(name, arguments),
                }
            }
            _ => {
                let root =
                    root(name).ok_or_else(|| format!("{name} is not known to this proxy"))?;
                constant(Value::Attributes(root))
            }
        }
    }
}

fn root(name: &str) -> Option<Root> {
    Some(match name {
        "request" => Root::Request,
        "response" => Root::Response,
        "connection" => Root::Connection,
        "upstream" => Root::Upstream,
        "source" => Root::Source,
        "destination" => Root::Destination,
        "metadata" => Root::Metadata,
        "xds" => Root::Xds,
        _ => return None,
    })
}

/// What our proxy knows of each.
fn known(root: Root) -> &'static [&'static str] {
    match root {
        Root::Request => &[
            "path",
            "url_path",
            "host",
            "scheme",
            "method",
            "headers",
            "referer",
            "useragent",
            "time",
            "id",
            "protocol",
            "query",
            "duration",
            "size",
        ],
        Root::Response => &["code", "code_details", "grpc_status", "headers", "trailers", "size"],
        Root::Connection => &[
            "mtls",
            "requested_server_name",
            "tls_version",
            "subject_peer_certificate",
            "dns_san_peer_certificate",
            "uri_san_peer_certificate",
            "uri_san_local_certificate",
            "sha256_peer_certificate_digest",
            "termination_details",
        ],
        Root::Upstream => &[
            "address",
            "port",
            "local_address",
            "transport_failure_reason",
            "request_attempt_count",
        ],
        Root::Source | Root::Destination => &["address", "port"],
        Root::Metadata => &["filter_metadata"],
        Root::Xds => &["cluster_name", "route_name"],
    }
}

/// The member of a value; one that is written out must be known.
fn member(whole: Expression, key: Expression) -> Read {
    if let (
        Expression::Constant(Value::Attributes(root)),
        Expression::Constant(Value::Text(name)),
    ) = (&whole, &key)
    {
        if !known(*root).contains(&&**name) {
            return Err(format!("{name} of {root:?} is not known to this proxy"));
        }
        let part = match (root, &**name) {
            (Root::Request, "headers") => Some(Part::Request),
            (Root::Response, "headers") => Some(Part::Response),
            (Root::Response, "trailers") => Some(Part::Trailers),
            _ => None,
        };
        if let Some(part) = part {
            return Ok(Expression::Constant(Value::Headers(part)));
        }
    }
    Ok(Expression::Member(Box::new((whole, key))))
}

fn call(name: &str, mut arguments: Vec<Expression>) -> Read {
    let (function, count) = match name {
        "size" => (Function::Size, 1),
        "contains" => (Function::Contains, 2),
        "startsWith" => (Function::StartsWith, 2),
        "endsWith" => (Function::EndsWith, 2),
        "int" => (Function::Int, 1),
        "uint" => (Function::Uint, 1),
        "double" => (Function::Double, 1),
        "bool" => (Function::Bool, 1),
        "dyn" => (Function::Dyn, 1),
        "duration" => (Function::Duration, 1),
        "timestamp" => (Function::Timestamp, 1),
        "getFullYear" => (Function::OfTime(TimePart::Year), 1),
        "getMonth" => (Function::OfTime(TimePart::Month), 1),
        "getDate" => (Function::OfTime(TimePart::Date), 1),
        "getDayOfMonth" => (Function::OfTime(TimePart::DayOfMonth), 1),
        "getDayOfWeek" => (Function::OfTime(TimePart::DayOfWeek), 1),
        "getDayOfYear" => (Function::OfTime(TimePart::DayOfYear), 1),
        "getHours" => (Function::OfTime(TimePart::Hours), 1),
        "getMinutes" => (Function::OfTime(TimePart::Minutes), 1),
        "getSeconds" => (Function::OfTime(TimePart::Seconds), 1),
        "getMilliseconds" => (Function::OfTime(TimePart::Milliseconds), 1),
        "matches" => return matches(arguments),
        _ => return Err(format!("{name}() is not supported by this proxy")),
    };
    if arguments.len() != count {
        return Err(format!("{name}() takes {count} values, not {}", arguments.len()));
    }
    arguments.shrink_to_fit();
    Ok(Expression::Call(function, arguments))
}

/// A regular expression must be written out, so that it is compiled once.
fn matches(arguments: Vec<Expression>) -> Read {
    match <[Expression; 2]>::try_from(arguments) {
        Ok([text, Expression::Constant(Value::Text(regex))]) => {
            let regex = Regex::new(&regex).map_err(|error| error.to_string())?;
            Ok(Expression::Matches(Box::new(text), regex))
        }
        _ => Err("matches() takes a value and a regular expression that is written out".to_owned()),
    }
}

#[cfg(test)]
mod tests;
