//! From parser events to a tree.

use std::collections::{BTreeMap, BTreeSet};

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, Tag};
use serde_json::Value;

use super::{
    Content, Entry, MAX_ALIAS_NODES, MAX_DEPTH, Node, YamlError,
    flow::{self, Moves},
    resolve_plain, too_deep,
};
use crate::diagnostic::Code;

/// Reads one document; `None` if it holds nothing but comments.
pub fn parse(text: &str) -> Result<Option<Node>, YamlError> {
    let built = build(text, Moves::default());
    match built {
        Err(YamlError { code: Code::Syntax, .. }) => match flow::indent(text) {
            Some((moved, moves)) => build(&moved, moves),
            None => built,
        },
        built => built,
    }
}

fn build(text: &str, moves: Moves) -> Result<Option<Node>, YamlError> {
    let mut builder = Builder { moves, ..Builder::default() };
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|err| syntax_error(&err, &builder.moves))?;
        builder.take(event, span)?;
    }
    Ok(builder.root.filter(|root| root.content != Content::Scalar(Value::Null)))
}

/// What can be read of a text that [`parse`] refuses, for want of better: everything before the
/// mistake, of two equal keys that there is such a key (null), and, where a key of the outermost map comes a second time,
/// as without the line between two documents, a further tree from there.
pub fn salvage(text: &str) -> Vec<Node> {
    let (text, moves) = flow::indent(text).unwrap_or_else(|| (text.to_owned(), Moves::default()));
    let mut builder = Builder { duplicates: Duplicates::Salvaged, moves, ..Builder::default() };
    for event in Parser::new_from_str(&text) {
        let Ok((event, span)) = event else { break };
        if builder.take(event, span).is_err() {
            break;
        }
    }
    while !builder.stack.is_empty() && builder.close().is_ok() {}
    builder.salvaged.into_iter().chain(builder.root).collect()
}

fn syntax_error(err: &ScanError, moves: &Moves) -> YamlError {
    let (line, col) = position(err.marker().line(), err.marker().col());
    let col = moves.written(line, col);
    let tabs = err.info().contains("tab");
    YamlError {
        code: Code::Syntax,
        line,
        col,
        message: format!("not YAML: {}", err.info()),
        fix: tabs.then(|| "indent with blanks, not tabs".to_owned()),
    }
}

fn position(line: usize, col: usize) -> (u32, u32) {
    let clamp = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    (clamp(line.max(1)), clamp(col.saturating_add(1)))
}

/// A list or map that is still open.
struct Frame {
    open: Open,
    anchor: usize,
    line: u32,
    col: u32,
}

enum Open {
    List(Vec<Node>),
    Map(MapFrame),
}

#[derive(Default)]
struct MapFrame {
    entries: Vec<Entry>,
    /// Line of every key so far.
    seen: BTreeMap<String, u32>,
    key: Option<(String, u32, u32)>,
    merges: Vec<Node>,
    /// The entry whose key was there already.
    refused: Option<Entry>,
}

/// What becomes of a key that comes a second time.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum Duplicates {
    #[default]
    Refused,
    Salvaged,
}

#[derive(Default)]
struct Builder {
    /// Where the text that is read is not the one that was written.
    moves: Moves,
    duplicates: Duplicates,
    /// Trees that ended where a key came a second time.
    salvaged: Vec<Node>,
    stack: Vec<Frame>,
    anchors: BTreeMap<usize, Node>,
    aliased: usize,
    root: Option<Node>,
}

impl Builder {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), YamlError> {
        let (line, col) = position(span.start.line(), span.start.col());
        let col = self.moves.written(line, col);
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let content = Content::Scalar(resolve(&text, style, tag.as_deref()));
                self.complete(Node { content, line, col, size: 1 }, anchor)
            }
            Event::SequenceStart(anchor, _) => self.open(Open::List(Vec::new()), anchor, line, col),
            Event::MappingStart(anchor, _) => {
                self.open(Open::Map(MapFrame::default()), anchor, line, col)
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            Event::Alias(anchor) => self.alias(anchor, line, col),
            Event::DocumentStart(_) if self.root.is_some() => {
                Err(error(Code::Syntax, line, col, "a second document begins here"))
            }
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => Ok(()),
        }
    }

    fn open(&mut self, open: Open, anchor: usize, line: u32, col: u32) -> Result<(), YamlError> {
        if self.stack.len() >= MAX_DEPTH {
            return Err(error(Code::TooLarge, line, col, too_deep()));
        }
        self.stack.push(Frame { open, anchor, line, col });
        Ok(())
    }

    fn close(&mut self) -> Result<(), YamlError> {
        let Some(Frame { open, anchor, line, col }) = self.stack.pop() else { return Ok(()) };
        let content = match open {
            Open::List(items) => Content::List(items),
            Open::Map(map) => Content::Map(map.finish()),
        };
        let size = match &content {
            Content::List(items) => items.iter().map(|n| n.size).sum::<usize>(),
            Content::Map(entries) => entries.iter().map(|e| e.value.size).sum(),
            Content::Scalar(_) => 0,
        };
        self.complete(Node { content, line, col, size: size + 1 }, anchor)
    }

    fn alias(&mut self, anchor: usize, line: u32, col: u32) -> Result<(), YamlError> {
        let Some(target) = self.anchors.get(&anchor) else {
            return Err(error(Code::Syntax, line, col, "an alias without an anchor before it"));
        };
        let node = target.clone();
        self.spend(&node)?;
        self.complete(Node { line, col, ..node }, 0)
    }

    fn complete(&mut self, node: Node, anchor: usize) -> Result<(), YamlError> {
        if anchor != 0 {
            self.spend(&node)?;
            self.anchors.insert(anchor, node.clone());
        }
        let salvages = self.duplicates == Duplicates::Salvaged;
        match self.stack.last_mut().map(|frame| &mut frame.open) {
            None => self.root = Some(node),
            Some(Open::List(items)) => items.push(node),
            Some(Open::Map(map)) => match map.take(node) {
                Err(_) if salvages && map.refused.is_some() => self.salvage(),
                taken => taken?,
            },
        }
        Ok(())
    }

    /// The key and value that a map did not take begin another tree, or say nothing further in.
    fn salvage(&mut self) {
        let outermost = self.stack.len() == 1;
        let Some(Frame { open: Open::Map(map), line, col, .. }) = self.stack.last_mut() else {
            return;
        };
        let Some(refused) = map.refused.take() else { return };
        if !outermost {
            // Which of the two is meant cannot be told.
            let first = map.entries.iter_mut().find(|entry| entry.key == refused.key);
            first.into_iter().for_each(|entry| entry.value.content = Content::Scalar(Value::Null));
            return;
        }
        let (line, col) = (*line, *col);
        let next = MapFrame {
            seen: BTreeMap::from([(refused.key.clone(), refused.line)]),
            entries: vec![refused],
            ..MapFrame::default()
        };
        let content = Content::Map(std::mem::replace(map, next).finish());
        self.salvaged.push(Node { content, line, col, size: 1 });
    }

    /// Copies for anchors and aliases come out of one budget, since both can multiply a document's
    /// size.
    fn spend(&mut self, node: &Node) -> Result<(), YamlError> {
        self.aliased += node.size;
        if self.aliased > MAX_ALIAS_NODES {
            return Err(error(
                Code::TooLarge,
                node.line,
                node.col,
                format!("aliases expand to more than {MAX_ALIAS_NODES} values"),
            ));
        }
        Ok(())
    }
}

impl MapFrame {
    fn take(&mut self, node: Node) -> Result<(), YamlError> {
        let Some((key, line, col)) = self.key.take() else {
            self.key = Some(key_of(node)?);
            return Ok(());
        };
        if key == "<<" && !matches!(node.content, Content::Scalar(_)) {
            if !merges(&node) {
                let message = "`<<` takes a map, or a list of maps: what else it names is lost";
                return Err(error(Code::Syntax, line, col, message));
            }
            self.merges.push(node);
            return Ok(());
        }
        if let Some(first) = self.seen.insert(key.clone(), line) {
            let message = format!("duplicate key `{key}`: it stands on line {first} already");
            self.refused = Some(Entry { key, line, col, value: node });
            return Err(YamlError {
                fix: Some("keep one of them".to_owned()),
                ..error(Code::DuplicateKey, line, col, message)
            });
        }
        self.entries.push(Entry { key, line, col, value: node });
        Ok(())
    }

    /// The entries, with what `<<` names where the map does not say otherwise itself.
    fn finish(self) -> Vec<Entry> {
        let Self { mut entries, seen, merges, .. } = self;
        let mut keys: BTreeSet<String> = seen.into_keys().collect();
        let sources = merges.into_iter().flat_map(|node| match node.content {
            Content::List(items) => items,
            _ => vec![node],
        });
        for source in sources {
            let Content::Map(inherited) = source.content else { continue };
            entries.extend(inherited.into_iter().filter(|e| keys.insert(e.key.clone())));
        }
        entries
    }
}

/// Whether a map may take in the entries of a value.
fn merges(node: &Node) -> bool {
    let is_map = |node: &Node| matches!(node.content, Content::Map(_));
    match &node.content {
        Content::List(items) => items.iter().all(is_map),
        _ => is_map(node),
    }
}

fn key_of(node: Node) -> Result<(String, u32, u32), YamlError> {
    let Node { content, line, col, .. } = node;
    match content {
        Content::Scalar(Value::String(text)) => Ok((text, line, col)),
        Content::Scalar(Value::Null) => Ok((String::new(), line, col)),
        Content::Scalar(value) => Ok((value.to_string(), line, col)),
        _ => Err(error(Code::Syntax, line, col, "a key must be a text, not a list or map")),
    }
}

fn resolve(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Value {
    let as_text = || Value::String(text.to_owned());
    match tag.filter(|t| t.is_yaml_core_schema()).map(|t| t.suffix.as_str()) {
        Some("str") => as_text(),
        None if style != ScalarStyle::Plain => as_text(),
        _ => resolve_plain(text),
    }
}

fn error(code: Code, line: u32, col: u32, message: impl Into<String>) -> YamlError {
    YamlError { code, line, col, message: message.into(), fix: None }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::diagnostic::FieldPath;

    fn check(text: &str, expected: Result<&str, (Code, u32, u32)>) {
        let got = parse(text);
        match (&got, expected) {
            (Ok(node), Ok(json)) => {
                let value = node.as_ref().map_or(Value::Null, Node::to_json);
                assert_eq!(value.to_string(), json, "{text}");
            }
            (Err(err), Err((code, line, col))) => {
                assert_eq!((err.code, err.line, err.col), (code, line, col), "{text}: {err}")
            }
            _ => panic!("{text}: expected {expected:?}, got {got:?}"),
        }
    }

    #[test]
    fn documents_become_json() {
        check("a: 1\nb: [x, 'y']\nc: {d: ~}", Ok(r#"{"a":1,"b":["x","y"],"c":{"d":null}}"#));
        check("# nothing\n", Ok("null"));
        check("", Ok("null"));
        check("{\"a\": [1, 2.5, \"x\"],\n\t\"b\": true}", Ok(r#"{"a":[1,2.5,"x"],"b":true}"#));
        check("a: \"1\"\nb: !!str 2\n8080: c", Ok(r#"{"8080":"c","a":"1","b":"2"}"#));
        check(
            "base: &b {x: 1, y: 2}\nt: {<<: *b, y: 3}",
            Ok(r#"{"base":{"x":1,"y":2},"t":{"x":1,"y":3}}"#),
        );
        check("a: |-\n  x\n  y\nb: >\n  z\n", Ok(r#"{"a":"x\ny","b":"z\n"}"#));
    }

    #[test]
    fn mistakes_have_a_place() {
        check("a: 1\nb: 2\na: 3", Err((Code::DuplicateKey, 3, 1)));
        check("a: *nobody", Err((Code::Syntax, 1, 4)));
        check("a: &a [1]\nb: {<<: *a}", Err((Code::Syntax, 2, 5)));
        check("a: &a {x: 1}\nb:\n  <<: [*a, [*a]]", Err((Code::Syntax, 3, 3)));
        check("[a]: b", Err((Code::Syntax, 1, 1)));
        assert_eq!(parse("a: [1, 2").expect_err("open list").code, Code::Syntax);
    }

    #[test]
    fn hostile_documents_are_refused_quickly() {
        let bomb = (1..12).fold("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned(), |text, i| {
            let parts = vec![format!("*a{}", i - 1); 10].join(",");
            format!("{text}a{i}: &a{i} [{parts}]\n")
        });
        assert_eq!(parse(&bomb).expect_err("bomb").code, Code::TooLarge);
        assert!(parse(&"[".repeat(100_000)).is_err());
        assert!(parse(&format!("{}x{}", "[".repeat(200), "]".repeat(200))).is_err());
        assert!(parse(&"- ".repeat(5_000)).is_err());
    }

    #[test]
    fn fields_are_found_by_their_path() {
        let text = "spec:\n  http:\n  - route: 1\n    name: x\n";
        let node = parse(text).expect("valid").expect("not empty");
        assert_eq!(node.locate(&FieldPath::of("spec.http[0].name")), (4, 5));
        assert_eq!(node.locate(&FieldPath::of("spec.http[0].nobody.below")), (3, 5));
        assert_eq!(node.locate(&FieldPath::of("spec.http[7]")), (2, 3));
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC*") {
            drop(parse(&text));
        }

        #[test]
        fn no_yaml_like_text_makes_the_parser_panic(text in "([-:,?&*!|>%@`#'\"{}\\[\\] \n\tab01<.]|- |: |\n  ){0,60}") {
            drop(parse(&text));
        }
    }

    #[test]
    fn what_can_be_read_beside_a_mistake_is_saved() {
        let table: [(&str, &[&str]); 8] = [
            ("a: 1\nb: {c: 2, c: 3, d: 4}\n", &[r#"{"a":1,"b":{"c":null,"d":4}}"#]),
            ("a: 1\nb: 2\na: 3\nc: 4\n", &[r#"{"a":1,"b":2}"#, r#"{"a":3,"c":4}"#]),
            ("a: 1\nb: [1, {c: 2", &[r#"{"a":1,"b":[1,{"c":2}]}"#]),
            ("a: 1\nb: {c: 2}\n\td: 3\n", &[r#"{"a":1,"b":{"c":2}}"#]),
            ("a: *none\nb: 1\n", &[r#"{}"#]),
            ("a: 1\n? {b: 1}\n: 2\nc: 3\n", &[r#"{"a":1}"#]),
            ("- 1\n- 2\n", &["[1,2]"]),
            ("", &[]),
        ];
        for (text, expected) in table {
            let trees: Vec<String> =
                salvage(text).iter().map(|node| node.to_json().to_string()).collect();
            assert_eq!(trees, expected, "{text}");
        }
    }
}
