//! Flow collections (`[…]`, `{…}`) over several lines.
//!
//! Between their brackets indentation means nothing to Kubernetes' tools, while the parser wants
//! every line deeper than the block around it. So those lines are moved to the right, and columns
//! are counted as if they had not been.

use std::collections::BTreeMap;

use saphyr_parser::{Event, Parser};

/// Most text that is read over and over for one document: each pass finds one collection.
const MOST_READ: usize = 64 << 20;

/// How many blanks were put before which lines, counted from 1.
#[derive(Default)]
pub(super) struct Moves(BTreeMap<u32, u32>);

impl Moves {
    /// The column of a line as it was written.
    pub(super) fn written(&self, line: u32, col: u32) -> u32 {
        let moved = self.0.get(&line).copied().unwrap_or_default();
        col.saturating_sub(moved).max(1)
    }
}

/// The text with the lines of flow collections moved as far as the parser needs; `None`: none is
/// what it stumbles over.
pub(super) fn indent(text: &str) -> Option<(String, Moves)> {
    let mut moves = Moves::default();
    let mut moved = text.to_owned();
    let mut read = 0;
    while let Some(flow) = stumble(&moved) {
        read += moved.len();
        let lines = lines_within(&moved, flow)?;
        if read > MOST_READ || lines.clone().any(|line| moves.0.contains_key(&line)) {
            break;
        }
        let blanks = flow.1;
        moves.0.extend(lines.map(|line| (line, blanks)));
        moved = shifted(text, &moves);
    }
    (!moves.0.is_empty()).then_some((moved, moves))
}

/// Line and column of the outermost flow collection in which the parser stumbles.
fn stumble(text: &str) -> Option<(u32, u32)> {
    let place = |line: usize, col: usize| {
        Some((u32::try_from(line).ok()?, u32::try_from(col.checked_add(1)?).ok()?))
    };
    let mut open = Vec::new();
    let mut behind = (1, 1);
    for event in Parser::new_from_str(text) {
        let Ok((event, span)) = event else {
            // The start of one that may be a key is told only once its end is known.
            let told = open.into_iter().find(|place| is_flow(text, *place));
            return told.or_else(|| next_bracket(text, behind));
        };
        behind = place(span.end.line(), span.end.col())?;
        match event {
            Event::SequenceStart(..) | Event::MappingStart(..) => {
                open.push(place(span.start.line(), span.start.col())?);
            }
            Event::SequenceEnd | Event::MappingEnd => drop(open.pop()),
            _ => {}
        }
    }
    None
}

/// The first bracket at or behind a place that is in no comment.
fn next_bracket(text: &str, (first, col): (u32, u32)) -> Option<(u32, u32)> {
    for (index, line) in text.lines().enumerate().skip(first as usize - 1) {
        let number = u32::try_from(index + 1).ok()?;
        let skipped = if number == first { col as usize - 1 } else { 0 };
        let written = line.chars().enumerate().skip(skipped).take_while(|(_, c)| *c != '#');
        let mut brackets = written.filter(|(_, c)| matches!(c, '[' | '{'));
        if let Some((at, _)) = brackets.next() {
            return Some((number, u32::try_from(at + 1).ok()?));
        }
    }
    None
}

fn is_flow(text: &str, (line, col): (u32, u32)) -> bool {
    let at =
        text.lines().nth(line as usize - 1).and_then(|line| line.chars().nth(col as usize - 1));
    matches!(at, Some('[' | '{'))
}

/// The lines behind the first one of a flow collection, to its end.
fn lines_within(text: &str, (first, col): (u32, u32)) -> Option<std::ops::RangeInclusive<u32>> {
    let mut depth = 0usize;
    let mut quote = None;
    for (index, line) in text.lines().enumerate().skip(first as usize - 1) {
        let number = u32::try_from(index + 1).ok()?;
        let skipped = if number == first { col as usize - 1 } else { 0 };
        // Behind what a quote or a comment may begin.
        let mut before = ' ';
        let mut chars = line.chars().skip(skipped).peekable();
        while let Some(c) = chars.next() {
            match (quote, c) {
                (Some('"'), '\\') => drop(chars.next()),
                (Some('\''), '\'') if chars.peek() == Some(&'\'') => drop(chars.next()),
                (Some(open), c) if open == c => quote = None,
                (Some(_), _) => {}
                (None, '#') if before.is_whitespace() => break,
                (None, '"' | '\'') if before.is_whitespace() || "[{,:".contains(before) => {
                    quote = Some(c);
                }
                (None, '[' | '{') => depth += 1,
                (None, ']' | '}') => depth = depth.checked_sub(1)?,
                (None, _) => {}
            }
            if depth == 0 {
                return (number > first).then_some(first + 1..=number);
            }
            before = c;
        }
    }
    None
}

fn shifted(text: &str, moves: &Moves) -> String {
    let mut shifted = String::with_capacity(text.len() * 2);
    for (number, line) in (1u32..).zip(text.split_inclusive('\n')) {
        let blanks = moves.0.get(&number).copied().unwrap_or_default();
        shifted.extend(std::iter::repeat_n(' ', blanks as usize));
        shifted.push_str(line);
    }
    shifted
}

#[cfg(test)]
mod tests {
    use crate::yaml::{Node, parse};

    fn json(text: &str) -> String {
        parse(text).expect("YAML").as_ref().map(Node::to_json).expect("a node").to_string()
    }

    #[test]
    fn brackets_close_at_any_column() {
        let table = [
            ("a:\n  b: [\n    c,\n  ]\n", r#"{"a":{"b":["c"]}}"#),
            ("a:\n  b: [\n  c\n  ]\nd: e\n", r#"{"a":{"b":["c"]},"d":"e"}"#),
            ("a:\n  b: [\nc\n]\nd: e\n", r#"{"a":{"b":["c"]},"d":"e"}"#),
            ("- a: {\n  b: c\n}\n- [\nd]\n", r#"[{"a":{"b":"c"}},["d"]]"#),
            ("a:\n  b: [ # ]\n'x]y',\n\"]\\\"\"\n]\n", r#"{"a":{"b":["x]y","]\""]}}"#),
            (
                "a:\n  b: [[\nc], {d: it's,\ne: f}\n]\n  g: h[\n",
                r#"{"a":{"b":[["c"],{"d":"it's","e":"f"}],"g":"h["}}"#,
            ),
        ];
        for (text, expected) in table {
            assert_eq!(json(text), expected, "{text}");
        }
    }

    #[test]
    fn places_are_those_of_the_text() {
        let tree = parse("a:\n  b: [\nc,\n d\n]\n").expect("YAML").expect("a node");
        let path = crate::diagnostic::FieldPath::of("a.b");
        assert_eq!((tree.locate(&path.index(0)), tree.locate(&path.index(1))), ((3, 1), (4, 2)));
        let err = parse("a:\n  b: [\nc,\n]\n  d: [\nx\n: }\n").expect_err("no YAML");
        assert!(err.line >= 6, "{err}");
    }
}
