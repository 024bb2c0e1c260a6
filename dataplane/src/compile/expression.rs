//! Expressions of labels, from their text. What this proxy does not evaluate is refused by name.

use super::field::Invalid;
use crate::runtime::expression::{Attribute, Expression, Headers, Operator};

/// Expressions lie in each other no deeper.
const DEEPEST: usize = 32;

/// Attributes that are headers with names of their own.
const NAMED_HEADERS: [(&str, &str); 3] = [
    ("request.useragent", "user-agent"),
    ("request.referer", "referer"),
    ("request.id", "x-request-id"),
];

/// Compiles an expression.
pub(super) fn compile(text: &str) -> Result<Expression, Invalid> {
    let fails = |reason: String| Invalid::new(format!("expression {text:?}: {reason}"));
    let tokens = tokens(text).map_err(fails)?;
    let mut parser = Parser { tokens, place: 0, depth: 0 };
    let expression = parser.choice().and_then(Part::value).map_err(fails)?;
    match parser.tokens.get(parser.place) {
        None => Ok(expression),
        Some(token) => Err(fails(format!("{} is not expected there", token.shown()))),
    }
}

#[derive(Clone, PartialEq, Debug)]
enum Token {
    Name(String),
    Number(i64),
    Text(String),
    Sign(&'static str),
}

impl Token {
    fn shown(&self) -> String {
        match self {
            Self::Name(name) => name.clone(),
            Self::Number(number) => number.to_string(),
            Self::Text(text) => format!("{text:?}"),
            Self::Sign(sign) => (*sign).to_owned(),
        }
    }
}

/// Signs, longer ones before those that they begin with.
const SIGNS: [&str; 17] =
    ["&&", "||", "==", "!=", "<=", ">=", "<", ">", "+", "!", "?", ":", ".", ",", "(", ")", "["];

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let (token, behind) = match first {
            '\'' | '"' => quoted(rest, false)?,
            'r' if rest[1..].starts_with(['\'', '"']) => quoted(&rest[1..], true)?,
            '0'..='9' => {
                let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
                let number = rest[..end].parse().map_err(|_| "a number is too large".to_owned())?;
                (Token::Number(number), &rest[end..])
            }
            'a'..='z' | 'A'..='Z' | '_' => {
                let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
                let (name, behind) = rest.split_at(end.unwrap_or(rest.len()));
                (Token::Name(name.to_owned()), behind)
            }
            ']' => (Token::Sign("]"), &rest[1..]),
            _ => {
                let sign = SIGNS.into_iter().find(|sign| rest.starts_with(sign));
                let sign = sign.ok_or_else(|| format!("{first} is not supported by this proxy"))?;
                (Token::Sign(sign), &rest[sign.len()..])
            }
        };
        tokens.push(token);
        rest = behind.trim_start();
    }
    Ok(tokens)
}

/// A text in quotes, and what stands behind it.
fn quoted(rest: &str, raw: bool) -> Result<(Token, &str), String> {
    let mut chars = rest.chars();
    let mark = chars.next().unwrap_or_default();
    let mut text = String::new();
    while let Some(character) = chars.next() {
        match character {
            c if c == mark => return Ok((Token::Text(text), chars.as_str())),
            '\\' if !raw => text.push(match chars.next() {
                Some('n') => '\n',
                Some('t') => '\t',
                Some(c @ ('\\' | '\'' | '"' | '?' | '`')) => c,
                other => {
                    let other = other.map(String::from).unwrap_or_default();
                    return Err(format!("\\{other} is not supported by this proxy"));
                }
            }),
            c => text.push(c),
        }
    }
    Err("a text has no end".to_owned())
}

/// What is read so far: a value, or names that lead to one.
enum Part {
    Names(String),
    Value(Expression),
}

impl Part {
    fn value(self) -> Result<Expression, String> {
        match self {
            Self::Value(value) => Ok(value),
            Self::Names(names) => {
                if let Some((_, header)) = NAMED_HEADERS.iter().find(|(own, _)| **own == names) {
                    return Ok(Expression::Header(Headers::Request, (*header).into()));
                }
                attribute(&names).map(Expression::Attribute)
            }
        }
    }

    fn headers(&self) -> Result<Headers, String> {
        match self {
            Self::Names(names) if names == "request.headers" => Ok(Headers::Request),
            Self::Names(names) if names == "response.headers" => Ok(Headers::Response),
            _ => Err("only request.headers and response.headers are supported there".to_owned()),
        }
    }
}

fn attribute(names: &str) -> Result<Attribute, String> {
    let known = Attribute::ALL.into_iter().find(|(own, _)| *own == names);
    known.map(|(_, own)| own).ok_or_else(|| format!("{names} is not supported by this proxy"))
}

struct Parser {
    tokens: Vec<Token>,
    place: usize,
    depth: usize,
}

type Parsed = Result<Part, String>;

impl Parser {
    fn choice(&mut self) -> Parsed {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err("it is nested too deep".to_owned());
        }
        let mut part = self.or()?;
        if self.takes("?") {
            let yes = self.or()?.value()?;
            self.expect(":")?;
            let no = self.choice()?.value()?;
            part = Part::Value(Expression::Choice(Box::new((part.value()?, yes, no))));
        }
        self.depth -= 1;
        Ok(part)
    }

    fn or(&mut self) -> Parsed {
        self.chain(&[("||", Operator::Or)], Self::and)
    }

    fn and(&mut self) -> Parsed {
        self.chain(&[("&&", Operator::And)], Self::relation)
    }

    fn relation(&mut self) -> Parsed {
        const RELATIONS: [(&str, Operator); 6] = [
            ("==", Operator::Equal),
            ("!=", Operator::Unequal),
            ("<=", Operator::AtMost),
            (">=", Operator::AtLeast),
            ("<", Operator::Less),
            (">", Operator::Greater),
        ];
        let part = self.chain(&RELATIONS, Self::sum)?;
        if !self.takes_name("in") {
            return Ok(part);
        }
        let name = header_name(part.value()?)?;
        let headers = self.sum()?.headers()?;
        Ok(Part::Value(Expression::HasHeader(headers, name)))
    }

    fn sum(&mut self) -> Parsed {
        self.chain(&[("+", Operator::Plus)], Self::unary)
    }

    /// Values with operators of one rank between them, from the left.
    fn chain(
        &mut self,
        operators: &[(&'static str, Operator)],
        operand: impl Fn(&mut Self) -> Parsed,
    ) -> Parsed {
        let mut part = operand(self)?;
        while let Some(operator) = self.takes_any(operators) {
            self.depth += 1;
            if self.depth > DEEPEST {
                return Err("it is nested too deep".to_owned());
            }
            let both = (part.value()?, operand(self)?.value()?);
            part = Part::Value(Expression::Between(operator, Box::new(both)));
        }
        Ok(part)
    }

    fn unary(&mut self) -> Parsed {
        let mut negations = 0;
        while self.takes("!") {
            negations += 1;
        }
        let mut part = self.member()?;
        if negations > 0 {
            let not = |value| Expression::Not(Box::new(value));
            part = Part::Value(match negations % 2 {
                1 => not(part.value()?),
                _ => not(not(part.value()?)),
            });
        }
        Ok(part)
    }

    fn member(&mut self) -> Parsed {
        let mut part = self.primary()?;
        loop {
            if self.takes(".") {
                let name = self.name()?;
                part =
                    if self.takes("(") { self.method(&name, part)? } else { field(part, &name)? };
            } else if self.takes("[") {
                let headers = part.headers()?;
                let name = header_name(self.choice()?.value()?)?;
                self.expect("]")?;
                part = Part::Value(Expression::Header(headers, name));
            } else {
                return Ok(part);
            }
        }
    }

    fn primary(&mut self) -> Parsed {
        if self.takes("(") {
            let part = self.choice()?;
            self.expect(")")?;
            return Ok(part);
        }
        let token = self.tokens.get(self.place).cloned();
        self.place += 1;
        Ok(match token {
            Some(Token::Text(text)) => Part::Value(Expression::Text(text.into())),
            Some(Token::Number(number)) => Part::Value(Expression::Number(number)),
            Some(Token::Name(name)) if name == "true" => Part::Value(Expression::Truth(true)),
            Some(Token::Name(name)) if name == "false" => Part::Value(Expression::Truth(false)),
            Some(Token::Name(name)) if self.takes("(") => self.function(&name)?,
            Some(Token::Name(name)) => Part::Names(name),
            other => {
                let before = other.map_or("the end".to_owned(), |token| token.shown());
                return Err(format!("a value is missing before {before}"));
            }
        })
    }

    /// A call, behind its parenthesis.
    fn function(&mut self, name: &str) -> Parsed {
        let part = self.choice()?;
        self.expect(")")?;
        Ok(Part::Value(match (name, part) {
            ("has", Part::Names(names)) => match attribute(&names) {
                Ok(attribute) => Expression::Has(attribute),
                Err(_) => return has_header(&names),
            },
            ("has", Part::Value(Expression::Header(of, name))) => Expression::HasHeader(of, name),
            ("size", part) => Expression::Size(Box::new(part.value()?)),
            // A label is a text, whatever its expression gives.
            ("string", part) => part.value()?,
            (other, _) => return Err(format!("{other}() is not supported by this proxy")),
        }))
    }

    fn method(&mut self, name: &str, on: Part) -> Parsed {
        let operator = match name {
            "contains" => Operator::Contains,
            "startsWith" => Operator::StartsWith,
            "endsWith" => Operator::EndsWith,
            "size" => {
                self.expect(")")?;
                return Ok(Part::Value(Expression::Size(Box::new(on.value()?))));
            }
            other => return Err(format!("{other}() is not supported by this proxy")),
        };
        let both = (on.value()?, self.choice()?.value()?);
        self.expect(")")?;
        Ok(Part::Value(Expression::Between(operator, Box::new(both))))
    }

    fn takes(&mut self, sign: &str) -> bool {
        let there = matches!(self.tokens.get(self.place), Some(Token::Sign(own)) if *own == sign);
        self.place += usize::from(there);
        there
    }

    fn takes_any(&mut self, operators: &[(&'static str, Operator)]) -> Option<Operator> {
        operators.iter().find(|(sign, _)| self.takes(sign)).map(|(_, operator)| *operator)
    }

    fn takes_name(&mut self, name: &str) -> bool {
        let there = matches!(self.tokens.get(self.place), Some(Token::Name(own)) if own == name);
        self.place += usize::from(there);
        there
    }

    fn expect(&mut self, sign: &str) -> Result<(), String> {
        if self.takes(sign) { Ok(()) } else { Err(format!("{sign} is missing")) }
    }

    fn name(&mut self) -> Result<String, String> {
        match self.tokens.get(self.place) {
            Some(Token::Name(name)) => {
                self.place += 1;
                Ok(name.clone())
            }
            _ => Err("a name is missing behind a point".to_owned()),
        }
    }
}

/// A field of what is read so far; of headers, one of them.
fn field(part: Part, name: &str) -> Parsed {
    if let Ok(headers) = part.headers() {
        return Ok(Part::Value(Expression::Header(headers, name.to_ascii_lowercase().into())));
    }
    match part {
        Part::Names(names) => Ok(Part::Names(format!("{names}.{name}"))),
        Part::Value(_) => Err(format!(".{name} is not supported by this proxy")),
    }
}

fn has_header(names: &str) -> Parsed {
    let (_, header) = NAMED_HEADERS
        .iter()
        .find(|(own, _)| *own == names)
        .ok_or_else(|| format!("has({names}) is not supported by this proxy"))?;
    Ok(Part::Value(Expression::HasHeader(Headers::Request, (*header).into())))
}

fn header_name(value: Expression) -> Result<std::sync::Arc<str>, String> {
    match value {
        Expression::Text(name) => Ok(name.to_ascii_lowercase().into()),
        _ => Err("headers are only supported by a name in quotes".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_users_write_for_labels_is_taken() {
        for text in [
            "request.url_path",
            "request.headers['X-User']",
            "request.headers.accept",
            "has(request.host) ? request.host : 'unknown'",
            "'x-user' in request.headers && request.headers['x-user'] != ''",
            "request.method + ' ' + string(response.code)",
            "response.code >= 500 || response.code == 0 ? 'bad' : \"good\"",
            "!connection.mtls",
            "(request.path.startsWith('/api') || request.path.contains(r'\\')) ? 'a' : 'b'",
            "request.useragent.size() > 9",
            "has(request.useragent) && has(request.headers.x)",
            "string(destination.port)",
        ] {
            assert!(compile(text).is_ok(), "{text}: {:?}", compile(text));
        }
    }

    #[test]
    fn what_is_not_evaluated_is_refused_by_name() {
        for (text, expected) in [
            ("", "a value is missing before the end"),
            ("request.time", "request.time is not supported"),
            ("response.flags", "response.flags is not supported"),
            ("filter_state['a']", "only request.headers and response.headers"),
            ("node.id", "node.id is not supported"),
            ("request.headers", "request.headers is not supported"),
            ("request.headers[request.host]", "by a name in quotes"),
            ("request.size * 2", "* is not supported"),
            ("int('1')", "int() is not supported"),
            ("request.path.matches('a')", "matches() is not supported"),
            ("'a' in [1]", "a value is missing before ["),
            ("request.path )", ") is not expected"),
            ("'a", "a text has no end"),
            ("true ? 'a'", ": is missing"),
            ("99999999999999999999", "too large"),
        ] {
            let error = compile(text).expect_err(text).reason;
            assert!(error.contains(expected), "{text}: {error}");
        }
        for deep in ["(".repeat(1_000), ["'a'"; 1_000].join(" + "), "!".repeat(100_000) + "true"] {
            let _ = compile(&deep);
        }
        assert!(compile(&["'a'"; 1_000].join(" + ")).is_err());
        assert!(compile(&"(".repeat(1_000)).is_err());
    }
}
