//! Expressions in CEL (<https://github.com/google/cel-spec>), which say what is logged and what
//! metrics' labels say. One that does not parse costs the listener, one that asks for what nobody
//! knows is true for nothing.

use std::{collections::BTreeSet, str::Chars};

use crate::{
    diagnostic::{Code, Diagnostic},
    dialect::{decode::Decoder, suggest},
};

/// What Envoy 1.40 tells expressions of a request or connection.
const ATTRIBUTES: [&str; 10] = [
    "request",
    "response",
    "connection",
    "upstream",
    "source",
    "destination",
    "metadata",
    "filter_state",
    "upstream_filter_state",
    "xds",
];

/// How a function is called.
#[derive(Clone, Copy, PartialEq)]
enum Form {
    /// Of so many values; the first may stand before a point.
    Either(usize),
    /// Of one value.
    Alone,
    /// Behind a point, perhaps with a time zone.
    OfTime,
    /// Of something that may not be there, written with a point.
    Presence,
}

/// Functions that Envoy 1.40 runs; what a build of it does not run costs the listener.
const FUNCTIONS: [(&str, Form); 25] = [
    ("has", Form::Presence),
    ("size", Form::Either(1)),
    ("contains", Form::Either(2)),
    ("startsWith", Form::Either(2)),
    ("endsWith", Form::Either(2)),
    ("matches", Form::Either(2)),
    ("int", Form::Alone),
    ("uint", Form::Alone),
    ("double", Form::Alone),
    ("bytes", Form::Alone),
    ("bool", Form::Alone),
    ("dyn", Form::Alone),
    ("type", Form::Alone),
    ("duration", Form::Alone),
    ("timestamp", Form::Alone),
    ("getFullYear", Form::OfTime),
    ("getMonth", Form::OfTime),
    ("getDate", Form::OfTime),
    ("getDayOfMonth", Form::OfTime),
    ("getDayOfWeek", Form::OfTime),
    ("getDayOfYear", Form::OfTime),
    ("getHours", Form::OfTime),
    ("getMinutes", Form::OfTime),
    ("getSeconds", Form::OfTime),
    ("getMilliseconds", Form::OfTime),
];

/// What CEL has and Envoy is built or run without.
const SWITCHED_OFF: [&str; 6] = ["all", "exists", "exists_one", "map", "filter", "string"];

/// Words that are no names of values.
const RESERVED: [&str; 18] = [
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// Envoy takes no expression that lies in others deeper, or whose tree is higher.
const DEEPEST: usize = 32;

/// Notes an expression that does not parse, or that names what proxies do not know.
pub(super) fn check_expression(text: &str, at: &mut Decoder) {
    let read = match read(text) {
        Ok(read) => read,
        Err(reason) => return at.invalid(format!("not a CEL expression: {reason}"), None),
    };
    for regex in &read.regexes {
        at.check_regex(regex);
    }
    let known = |name: &&String| ATTRIBUTES.contains(&name.as_str());
    if let Some(name) = read.asked.iter().find(|name| !known(name)) {
        let message = format!("proxies know no `{name}`, so that this is true for nothing");
        let near = suggest::nearest(name, ATTRIBUTES.into_iter());
        at.remark(|path| {
            let finding = Diagnostic::warning(Code::NoEffect, path, message);
            finding.fix(near.map_or_else(|| ATTRIBUTES.join(", "), |near| format!("`{near}`")))
        });
    }
}

/// What an expression asks for and is made of.
#[derive(Default)]
pub(super) struct Read {
    /// Names that are asked for.
    pub(super) asked: BTreeSet<String>,
    /// Members of these that are written out, as `request.path`.
    pub(super) members: BTreeSet<String>,
    /// Functions that are called.
    pub(super) called: BTreeSet<&'static str>,
    /// Regular expressions that are written out.
    pub(super) regexes: Vec<String>,
    /// A text in bytes, a regular expression that is computed, or the part of a time in a zone.
    pub(super) is_rare: bool,
    /// What it gives is many values, or none, whatever they are asked of.
    pub(super) whole: Option<Whole>,
}

/// What is no text, number, or yes or no.
#[derive(Clone, PartialEq)]
pub(super) enum Whole {
    /// What is named, as `request` or `request.time`.
    Named(String),
    /// A list, a map, nothing, a time.
    Other,
}

/// Reads an expression; what it does not say is why it is none.
pub(super) fn read(text: &str) -> Result<Read, String> {
    let mut parser = Parser { tokens: tokens(text)?, ..Parser::default() };
    parser.read.whole = parser.whole()?;
    Ok(parser.read)
}

/// What an expression is written with.
#[derive(Clone, PartialEq, Debug)]
enum Token {
    Name(String),
    Number,
    /// What it says.
    Text(String),
    Bytes,
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
            let is_bytes = rest.starts_with(['b', 'B']);
            (if is_bytes { Token::Bytes } else { Token::Text(text) }, behind)
        } else if first.is_ascii_digit() {
            (Token::Number, number(rest)?)
        } else if first.is_ascii_alphabetic() || first == '_' {
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            let (name, behind) = rest.split_at(end.unwrap_or(rest.len()));
            (Token::Name(name.to_owned()), behind)
        } else {
            let sign = SIGNS.into_iter().find(|sign| rest.starts_with(sign));
            let sign = sign.ok_or_else(|| format!("`{first}` means nothing"))?;
            (Token::Sign(sign), &rest[sign.len()..])
        };
        tokens.push(token);
        rest = behind.trim_start();
    }
    Ok(tokens)
}

/// A text in quotes, and what stands behind it; `None`: there is none here.
fn quoted(rest: &str) -> Result<Option<(String, &str)>, String> {
    let marks = rest.find(['"', '\'']).filter(|end| *end <= 2).unwrap_or(usize::MAX);
    let Some(prefix) = rest.get(..marks) else { return Ok(None) };
    let lower = prefix.to_ascii_lowercase();
    if !["", "r", "b", "br"].contains(&lower.as_str()) {
        return Ok(None);
    }
    let raw = lower.ends_with('r');
    let body = &rest[marks..];
    let mark = ["\"\"\"", "'''", "\"", "'"].into_iter().find(|mark| body.starts_with(mark));
    let Some(mark) = mark else { return Ok(None) };
    let mut inside = &body[mark.len()..];
    let mut text = String::new();
    loop {
        if let Some(behind) = inside.strip_prefix(mark) {
            return Ok(Some((text, behind)));
        }
        let mut chars = inside.chars();
        match chars.next() {
            Some('\\') if !raw => text.push(escaped(&mut chars)?),
            Some('\n' | '\r') if mark.len() == 1 => return Err("a text ends with its line".into()),
            Some(c) => text.push(c),
            None => return Err("a text has no end".into()),
        }
        inside = chars.as_str();
    }
}

/// The character that stands behind a backslash.
fn escaped(rest: &mut Chars<'_>) -> Result<char, String> {
    let (digits, radix) = match rest.clone().next() {
        Some('x' | 'X') => (2, 16),
        Some('u') => (4, 16),
        Some('U') => (8, 16),
        Some('0'..='3') => (3, 8),
        _ => (0, 10),
    };
    let first = if radix == 8 { None } else { rest.next() };
    if digits > 0 {
        let number = rest.as_str().get(..digits).and_then(|d| u32::from_str_radix(d, radix).ok());
        *rest = rest.as_str().get(digits..).unwrap_or_default().chars();
        let c = number.and_then(char::from_u32);
        return c.ok_or_else(|| "a character by number is incomplete".to_owned());
    }
    match first {
        Some('a') => Ok('\x07'),
        Some('b') => Ok('\x08'),
        Some('f') => Ok('\x0c'),
        Some('n') => Ok('\n'),
        Some('r') => Ok('\r'),
        Some('t') => Ok('\t'),
        Some('v') => Ok('\x0b'),
        Some(c @ ('\\' | '\'' | '"' | '?' | '`')) => Ok(c),
        other => Err(format!("`\\{}` means nothing", other.map(String::from).unwrap_or_default())),
    }
}

/// What stands behind a number.
fn number(rest: &str) -> Result<&str, String> {
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
    let (number, behind) = rest.split_at(end);
    let (plain, unsigned) = match number.strip_suffix(['u', 'U']) {
        Some(plain) => (plain, true),
        None => (number, false),
    };
    let (digits, radix) = match plain.strip_prefix("0x") {
        Some(digits) => (digits, 16),
        None => (plain, 10),
    };
    let whole = if unsigned {
        u64::from_str_radix(digits, radix).is_ok()
    } else {
        i64::from_str_radix(digits, radix).is_ok()
    };
    let fraction = !unsigned && radix == 10 && number.parse::<f64>().is_ok();
    // A whole number that is too big is no fraction.
    let fraction = fraction && number.contains(['.', 'e', 'E']);
    if whole || fraction { Ok(behind) } else { Err(format!("`{number}` is not a number")) }
}

/// What was read.
#[derive(Clone, Default)]
struct Part {
    /// Of its tree.
    height: usize,
    /// It is a member by its name, written with a point.
    selects: bool,
    /// It is a text and nothing else.
    text: Option<String>,
    /// It is many values, or none.
    whole: Option<Whole>,
}

impl Part {
    /// What is made of parts, the highest of which is so high.
    fn above(height: usize) -> Self {
        Self { height: height + 1, ..Self::default() }
    }

    /// The same, of which a label cannot be made.
    fn many(height: usize) -> Self {
        Self { whole: Some(Whole::Other), ..Self::above(height) }
    }
}

fn highest(parts: &[Part]) -> usize {
    parts.iter().map(|part| part.height).max().unwrap_or(0)
}

/// Goes through an expression and notes what it names.
#[derive(Default)]
struct Parser {
    tokens: Vec<Token>,
    place: usize,
    depth: usize,
    read: Read,
}

/// Operators between two values; the binding strength makes no difference to whether a text parses.
const BETWEEN: [&str; 11] = ["==", "!=", "<=", ">=", "<", ">", "+", "-", "*", "/", "%"];

impl Parser {
    fn whole(&mut self) -> Result<Option<Whole>, String> {
        let part = self.expression()?;
        match self.tokens.get(self.place) {
            None if part.height > DEEPEST => Err(format!("more than {DEEPEST} levels")),
            None => Ok(part.whole),
            Some(token) => Err(format!("{} follows what is complete", shown(token))),
        }
    }

    fn expression(&mut self) -> Result<Part, String> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(format!("more than {DEEPEST} levels"));
        }
        let mut part = self.operands()?;
        if self.takes("?") {
            let yes = self.operands()?;
            self.expect(":")?;
            part = Part::above(highest(&[part, yes, self.expression()?]));
        }
        self.depth -= 1;
        Ok(part)
    }

    /// Values with operators between them. Of its tree no more is known than the height that it
    /// has at most: `&&` and `||` are balanced, all others lean to one side.
    fn operands(&mut self) -> Result<Part, String> {
        let first = self.value()?;
        let (mut top, mut leaning, mut height, mut runs) = (first.height, 0, 0, 1_usize);
        let mut single = true;
        loop {
            if self.takes("&&") || self.takes("||") {
                height = height.max(top + leaning);
                (top, leaning) = (self.value()?.height, 0);
                runs += 1;
            } else if BETWEEN.into_iter().any(|sign| self.takes(sign)) || self.takes_name("in") {
                top = top.max(self.value()?.height);
                leaning += 1;
            } else {
                break;
            }
            single = false;
        }
        if single {
            return Ok(first);
        }
        let balanced = 2 * runs.next_power_of_two().trailing_zeros() as usize;
        Ok(Part { height: height.max(top + leaning) + balanced, ..Part::default() })
    }

    fn value(&mut self) -> Result<Part, String> {
        let sign = ["!", "-"].into_iter().find(|sign| self.takes(sign));
        while sign.is_some_and(|sign| self.takes(sign)) {}
        let mut part = self.primary()?;
        loop {
            if self.takes(".") {
                let name = self.name()?;
                if matches!(name.as_str(), "in" | "true" | "false" | "null") {
                    return Err(format!("`{name}` is no name of a member"));
                }
                part = if self.takes("(") {
                    self.called(&name, Some(part))?
                } else {
                    Part { selects: true, ..self.member(&part, Some(&name), part.height) }
                };
            } else if self.takes("[") {
                let key = self.expression()?;
                let height = part.height.max(key.height);
                part = self.member(&part, key.text.as_deref(), height);
                self.expect("]")?;
            } else {
                return Ok(if sign.is_some() { Part::above(part.height) } else { part });
            }
        }
    }

    /// The member of a part, by a name if that is written out.
    fn member(&mut self, of: &Part, name: Option<&str>, height: usize) -> Part {
        let mut part = Part::above(height);
        if let (Some(Whole::Named(whole)), Some(name)) = (&of.whole, name)
            && !whole.contains('.')
        {
            let member = format!("{whole}.{name}");
            self.read.members.insert(member.clone());
            part.whole = Some(Whole::Named(member));
        }
        part
    }

    fn primary(&mut self) -> Result<Part, String> {
        if self.takes("(") {
            let part = self.expression()?;
            self.expect(")")?;
            return Ok(part);
        }
        if self.takes("[") {
            return Ok(Part::many(highest(&self.list("]", Self::expression)?)));
        }
        if self.takes("{") {
            let pairs = self.list("}", |parser| {
                let key = parser.expression()?;
                parser.expect(":")?;
                Ok(Part::above(highest(&[key, parser.expression()?])))
            });
            return Ok(Part::many(highest(&pairs?)));
        }
        match self.tokens.get(self.place).cloned() {
            Some(Token::Number) => {
                self.place += 1;
                Ok(Part::above(0))
            }
            Some(Token::Bytes) => {
                self.place += 1;
                self.read.is_rare = true;
                Ok(Part::above(0))
            }
            Some(Token::Text(text)) => {
                self.place += 1;
                Ok(Part { text: Some(text), ..Part::above(0) })
            }
            Some(Token::Name(name)) => {
                self.place += 1;
                self.named(name)
            }
            other => {
                let before = other.as_ref().map_or("the end", shown);
                Err(format!("a value is missing before {before}"))
            }
        }
    }

    fn named(&mut self, name: String) -> Result<Part, String> {
        if RESERVED.contains(&name.as_str()) {
            return Err(format!("`{name}` is a word of the language"));
        }
        if self.takes("(") {
            return self.called(&name, None);
        }
        match name.as_str() {
            "true" | "false" => Ok(Part::above(0)),
            "null" => Ok(Part::many(0)),
            _ => {
                self.read.asked.insert(name.clone());
                Ok(Part { whole: Some(Whole::Named(name)), ..Part::above(0) })
            }
        }
    }

    /// A call, up to the parenthesis that ends it; `before`: what stands before its point.
    fn called(&mut self, name: &str, before: Option<Part>) -> Result<Part, String> {
        let behind = before.is_some();
        let mut parts: Vec<Part> = before.into_iter().collect();
        if !self.takes(")") {
            loop {
                parts.push(self.expression()?);
                if !self.takes(",") {
                    break;
                }
            }
            self.expect(")")?;
        }
        let (known, form) = check_call(name, behind, &parts)?;
        self.read.called.insert(known);
        if known == "matches" {
            let regex = parts.last().and_then(|part| part.text.clone());
            self.read.is_rare |= regex.is_none();
            self.read.regexes.extend(regex);
        }
        self.read.is_rare |= form == Form::OfTime && parts.len() > 1;
        Ok(match known {
            "duration" | "timestamp" => Part::many(highest(&parts)),
            _ => Part::above(highest(&parts)),
        })
    }

    /// Elements between commas, of which the last may have one behind it.
    fn list(
        &mut self,
        end: &'static str,
        element: impl Fn(&mut Self) -> Result<Part, String>,
    ) -> Result<Vec<Part>, String> {
        let mut parts = Vec::new();
        while !self.takes(end) {
            parts.push(element(self)?);
            if !self.takes(",") {
                self.expect(end)?;
                break;
            }
        }
        Ok(parts)
    }

    fn takes(&mut self, sign: &str) -> bool {
        let there = matches!(self.tokens.get(self.place), Some(Token::Sign(own)) if *own == sign);
        self.place += usize::from(there);
        there
    }

    fn takes_name(&mut self, name: &str) -> bool {
        let there = matches!(self.tokens.get(self.place), Some(Token::Name(own)) if own == name);
        self.place += usize::from(there);
        there
    }

    fn expect(&mut self, sign: &'static str) -> Result<(), String> {
        if self.takes(sign) {
            return Ok(());
        }
        let got = self.tokens.get(self.place).map_or("the end", shown);
        Err(format!("`{sign}` is missing before {got}"))
    }

    fn name(&mut self) -> Result<String, String> {
        match self.tokens.get(self.place) {
            Some(Token::Name(name)) => {
                self.place += 1;
                Ok(name.clone())
            }
            other => Err(format!("a name is missing before {}", other.map_or("the end", shown))),
        }
    }
}

/// The function that is called, and how; `parts`: with what stands before the point, if one does.
fn check_call(
    name: &str,
    behind_point: bool,
    parts: &[Part],
) -> Result<(&'static str, Form), String> {
    if SWITCHED_OFF.contains(&name) {
        return Err(format!("`{name}` is switched off in Envoy"));
    }
    let Some((known, form)) = FUNCTIONS.into_iter().find(|(known, _)| *known == name) else {
        let near = suggest::nearest(name, FUNCTIONS.into_iter().map(|(name, _)| name));
        let near = near.map(|near| format!("; `{near}`?")).unwrap_or_default();
        return Err(format!("no function is called `{name}`{near}"));
    };
    let (fits, usage) = match form {
        Form::Either(1) => (parts.len() == 1, format!("`{name}(VALUE)`")),
        Form::Either(count) => (parts.len() == count, format!("`VALUE.{name}(VALUE)`")),
        Form::Alone => (parts.len() == 1 && !behind_point, format!("`{name}(VALUE)`")),
        Form::OfTime => (behind_point && parts.len() <= 2, format!("`TIME.{name}()`")),
        Form::Presence => {
            let member = !behind_point && matches!(parts, [part] if part.selects);
            (member, "`has(VALUE.NAME)`; a key of a map: `KEY in MAP`".to_owned())
        }
    };
    if fits { Ok((known, form)) } else { Err(format!("`{name}` is called as {usage}")) }
}

fn shown(token: &Token) -> &str {
    match token {
        Token::Name(name) => name,
        Token::Number => "a number",
        Token::Text(_) | Token::Bytes => "a text",
        Token::Sign(sign) => sign,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The finding of an expression; empty: none.
    fn finding(text: &str) -> String {
        let mut at = Decoder::default();
        check_expression(text, &mut at);
        at.finish().first().map(ToString::to_string).unwrap_or_default()
    }

    #[test]
    fn expressions_of_users_are_taken() {
        for text in [
            "response.code >= 400",
            "response.code >= 400 || connection.mtls == false",
            "request.headers['x-a'].startsWith(\"b\") && !(r'\\x' in request.headers)",
            "has(request.url_path) ? request.url_path != '/healthz' : true",
            "request.method in ['GET', 'POST',]",
            "filter_state['a.b'].size() == 1u && -1.5e+3 < 0x1F",
            "has(request.headers) && size(request.path) < 9 && request.path.matches('^/\\\\d+$')",
            "request.time.getHours('UTC') == 1 || int(request.headers['a']) == 1",
            "{'a': 1}['a'] == 1",
            "xds.cluster_name.matches('''out.*''')",
        ] {
            assert_eq!(finding(text), "", "{text}");
        }
    }

    #[test]
    fn what_does_not_parse_says_why() {
        for (text, expected) in [
            ("response.code >=", "a value is missing before the end"),
            ("(response.code", "`)` is missing before the end"),
            ("response.code = 200", "`=` means nothing"),
            ("request.method == 'GET", "a text has no end"),
            ("response code", "code follows what is complete"),
            ("request.", "a name is missing before the end"),
            ("request.path.starts_with('/')", "no function is called `starts_with`"),
            ("has(request.headers['x-a'])", "called as `has(VALUE.NAME)`; a key of a map"),
            ("has(request)", "called as `has(VALUE.NAME)`"),
            ("request.headers.exists(x, x == 'a')", "`exists` is switched off"),
            ("string(response.code) == '1'", "`string` is switched off"),
            ("request.path.startsWith('a', 'b')", "called as `VALUE.startsWith(VALUE)`"),
            ("request.path.int() == 1", "called as `int(VALUE)`"),
            ("getHours(request.time) == 1", "called as `TIME.getHours()`"),
            ("int('1',) == 1", "a value is missing before )"),
            ("request.path.matches('(')", "not a regular expression"),
            ("a ? b ? c : d : e", "`:` is missing before ?"),
            ("-!true", "a value is missing before !"),
            ("request.in", "no name of a member"),
            ("as == 1", "a word of the language"),
            ("9223372036854775808 == 1", "is not a number"),
            ("12ab == 1", "is not a number"),
            ("'\\q' == 'a'", "means nothing"),
            ("respons.code == 1", "proxies know no `respons`"),
        ] {
            assert!(finding(text).contains(expected), "{text}: {}", finding(text));
        }
        assert!(finding(&"(".repeat(1_000)).contains("levels"));
        assert!(finding(&["1"; 33].join(" + ")).contains("levels"));
        assert!(finding(&format!("request{}", ".a".repeat(32))).contains("levels"));
        assert_eq!(finding(&["request.a"; 300].join(" || ")), "");
    }
}
