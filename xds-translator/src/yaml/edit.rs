//! Changes of single places of a text, which leave every other byte as it is.
//!
//! Nothing is written anew from the tree: a change is made where the text at a place is found to be
//! what the tree says of it, in the way of writing that is found there, and nowhere else.

use serde_json::Value;

use super::{Content, Entry, Node, resolve_plain};
use crate::diagnostic::{Change, FieldPath, Segment, TextEdit};

/// Furthest column that is changed, so that many places in one endless line cost no more than that.
const LAST_COLUMN: usize = 10_000;

/// A text by its lines.
pub struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    /// Finds where lines begin.
    pub fn of(text: &'a str) -> Self {
        let starts =
            std::iter::once(0).chain(text.match_indices('\n').map(|(i, _)| i + 1)).collect();
        Self { text, starts }
    }

    /// The lines from `first` (counted from 1) to before `end`, at least one.
    pub fn slice(&self, first: u32, end: Option<u32>) -> &'a str {
        let start =
            |line: u32| self.starts.get(line as usize - 1).copied().unwrap_or(self.text.len());
        let end = end.map_or(self.text.len(), |end| start(end.max(first + 1)));
        &self.text[start(first)..end]
    }

    /// Whether there is such a line.
    fn has(&self, line: u32) -> bool {
        usize::try_from(line).is_ok_and(|line| (1..=self.starts.len()).contains(&line))
    }

    /// What is written from a place to the end of its line.
    fn from(&self, line: u32, col: u32) -> Option<&'a str> {
        let start = *self.starts.get(usize::try_from(line).ok()?.checked_sub(1)?)?;
        let line = self.text[start..].split('\n').next()?;
        let column = usize::try_from(col).ok()?.checked_sub(1).filter(|c| *c < LAST_COLUMN)?;
        let start = line.char_indices().map(|(i, _)| i).chain([line.len()]).nth(column)?;
        Some(&line[start..])
    }
}

/// The change of the tree's text, if its place is written in a way that can be changed alone: not by
/// an alias, a tag, in several lines or with escapes. Lines count from the text's first one.
pub fn text_edit(lines: &Lines<'_>, root: &Node, change: &Change) -> Option<TextEdit> {
    match change {
        Change::Rename(field, name) => {
            let entry = entry(root, field)?;
            let (token, _) = token(lines.from(entry.line, entry.col)?, &key_of(entry))?;
            Some(replace((entry.line, entry.col), token, token.spell(&Value::from(&**name))?))
        }
        Change::Set(field, value) => {
            let node = root.find(field)?;
            if let Content::List(items) = &node.content {
                return set_list(lines, (root, field), (node, &items[..]), value);
            }
            let Content::Scalar(old) = &node.content else { return None };
            let (token, _) = token(lines.from(node.line, node.col)?, old)?;
            Some(replace((node.line, node.col), token, token.spell(value)?))
        }
        Change::Replace(field, text) => {
            let entry = entry(root, field)?;
            let (key, _) = token(lines.from(entry.line, entry.col)?, &key_of(entry))?;
            key.quote.is_none().then_some(())?;
            let (end_line, end_col) = end(lines, &entry.value)?;
            let text = text.to_string();
            Some(TextEdit { line: entry.line, col: entry.col, end_line, end_col, text })
        }
        Change::Remove(field) => remove(lines, root, field),
        Change::Add(map, key, value) => {
            let node = root.find(map)?;
            let Content::Map(entries) = &node.content else { return None };
            let first = entries.iter().min_by_key(|entry| (entry.line, entry.col))?;
            let (token, rest) = token(lines.from(first.line, first.col)?, &key_of(first))?;
            // Not a key that an alias or a merge brought in, and none in the long form.
            rest.trim_start().strip_prefix(':')?;
            let is_flow = lines.from(node.line, node.col)?.starts_with('{');
            let margin = usize::try_from(first.col).ok()? - 1;
            let behind = if is_flow { ", ".to_owned() } else { format!("\n{:margin$}", "") };
            let (key, value) = (token.spell(&Value::from(*key))?, token.spell(value)?);
            let (line, col) = (first.line, first.col);
            let text = format!("{key}: {value}{behind}");
            Some(TextEdit { line, col, end_line: line, end_col: col, text })
        }
    }
}

/// A scalar instead of a list of scalars.
fn set_list(
    lines: &Lines<'_>,
    (root, field): (&Node, &FieldPath),
    (node, items): (&Node, &[Node]),
    value: &Value,
) -> Option<TextEdit> {
    let (end_line, end_col) = end(lines, node)?;
    let first = items.first()?;
    let Content::Scalar(old) = &first.content else { return None };
    let text = token(lines.from(first.line, first.col)?, old)?.0.spell(value)?;
    if lines.from(node.line, node.col)?.starts_with('[') {
        return Some(TextEdit { line: node.line, col: node.col, end_line, end_col, text });
    }
    // Of a list below its key nothing is left but the value behind the key.
    let entry = entry(root, field)?;
    let (key, rest) = token(lines.from(entry.line, entry.col)?, &key_of(entry))?;
    (rest.trim_end() == ":" && entry.line + 1 == node.line).then_some(())?;
    let col = entry.col + key.columns() + 1;
    Some(TextEdit { line: entry.line, col, end_line, end_col, text: format!(" {text}") })
}

/// A field less, with its line or lines, or with the comma behind it.
fn remove(lines: &Lines<'_>, root: &Node, field: &FieldPath) -> Option<TextEdit> {
    let entry = entry(root, field)?;
    let (_, parent) = field.0.split_last()?;
    let map = root.find(&FieldPath(parent.to_vec()))?;
    // Nothing but this would leave nothing at all, which means another thing.
    matches!(&map.content, Content::Map(entries) if entries.len() > 1).then_some(())?;
    token(lines.from(entry.line, entry.col)?, &key_of(entry))?;
    let (end_line, end_col) = end(lines, &entry.value)?;
    let behind = lines.from(end_line, end_col)?;
    let text = String::new();
    if lines.from(map.line, map.col)?.starts_with('{') {
        let rest = behind.trim_start().strip_prefix(',')?.trim_start();
        let gone = u32::try_from(behind.chars().count() - rest.chars().count()).ok()?;
        let end_col = end_col + gone;
        return Some(TextEdit { line: entry.line, col: entry.col, end_line, end_col, text });
    }
    let margin = usize::try_from(entry.col).ok()? - 1;
    let alone = lines.from(entry.line, 1)?.chars().take(margin).all(char::is_whitespace)
        && (behind.trim().is_empty() || behind.trim_start().starts_with('#'));
    (alone && lines.has(end_line + 1)).then_some(())?;
    Some(TextEdit { line: entry.line, col: 1, end_line: end_line + 1, end_col: 1, text })
}

/// Where a value ends: a scalar, or a list of scalars with nothing between them but their signs.
fn end(lines: &Lines<'_>, node: &Node) -> Option<(u32, u32)> {
    let scalar = |node: &Node| {
        let Content::Scalar(value) = &node.content else { return None };
        let (token, rest) = token(lines.from(node.line, node.col)?, value)?;
        Some((node.col + token.columns(), rest))
    };
    let Content::List(items) = &node.content else {
        return Some((node.line, scalar(node)?.0));
    };
    let last = items.last()?;
    let (end_col, rest) = scalar(last)?;
    if lines.from(node.line, node.col)?.starts_with('[') {
        let behind = rest.trim_start().trim_start_matches(',').trim_start();
        let behind = behind.strip_prefix(']')?;
        let signs = u32::try_from(rest.chars().count() - behind.chars().count()).ok()?;
        return (last.line == node.line).then_some((last.line, end_col + signs));
    }
    for (line, item) in (node.line..).zip(items) {
        let (_, rest) = scalar(item)?;
        let before = lines.from(item.line, 1)?.chars().take(usize::try_from(item.col).ok()? - 1);
        let sign = before.collect::<String>();
        (item.line == line && rest.trim().is_empty() && sign.trim() == "-").then_some(())?;
    }
    Some((last.line, end_col))
}

/// The text with changes made, of which no two touch. `None`: some do, or one lies outside.
pub fn apply(text: &str, edits: &[TextEdit]) -> Option<String> {
    let mut edits: Vec<&TextEdit> = edits.iter().collect();
    edits.sort_by_key(|edit| (edit.line, edit.col));
    let Lines { starts, .. } = Lines::of(text);
    let mut changed = String::with_capacity(text.len());
    let mut done = 0;
    for edit in edits {
        let start = offset(text, &starts, edit.line, edit.col)?;
        let end = offset(text, &starts, edit.end_line, edit.end_col)?;
        changed.push_str(text.get(done..start)?);
        changed.push_str(&edit.text);
        done = Some(end).filter(|end| *end >= start)?;
    }
    changed.push_str(&text[done..]);
    Some(changed)
}

/// Where a line's column is in the text; marks of the byte order before a line are no columns.
fn offset(text: &str, starts: &[usize], line: u32, col: u32) -> Option<usize> {
    let start = *starts.get(usize::try_from(line).ok()?.checked_sub(1)?)?;
    let line = text[start..].split('\n').next()?;
    let own = line.trim_start_matches(super::BYTE_ORDER_MARK);
    let column = usize::try_from(col).ok()?.checked_sub(1)?;
    let mut places = own.char_indices().map(|(i, _)| i).chain([own.len()]);
    Some(start + (line.len() - own.len()) + places.nth(column)?)
}

/// A scalar as it is written.
#[derive(Clone, Copy)]
struct Token<'a> {
    written: &'a str,
    quote: Option<char>,
}

impl Token<'_> {
    fn columns(&self) -> u32 {
        u32::try_from(self.written.chars().count()).unwrap_or(u32::MAX)
    }

    /// A value in the same way of writing; quoted where it would be read as something else without.
    fn spell(&self, value: &Value) -> Option<String> {
        match (value, self.quote) {
            (Value::String(text), Some('\'')) if !text.contains(char::is_control) => {
                Some(format!("'{}'", text.replace('\'', "''")))
            }
            (Value::String(text), None) if is_plain(text) => Some(text.clone()),
            (Value::String(_), _) => serde_json::to_string(value).ok(),
            (Value::Array(items), _) => {
                let items: Option<Vec<String>> = items.iter().map(|v| self.spell(v)).collect();
                Some(format!("[{}]", items?.join(", ")))
            }
            (Value::Bool(_) | Value::Number(_), _) => Some(value.to_string()),
            (Value::Null | Value::Object(_), _) => None,
        }
    }
}

/// What YAML 1.1, which other tools read, takes for something else than text.
const WORDS: [&str; 9] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null"];

/// Whether a text stands for itself everywhere in a document, whoever reads it.
fn is_plain(text: &str) -> bool {
    let all = text.chars().all(|c| c.is_ascii_alphanumeric() || "_./-".contains(c));
    match text.chars().next() {
        Some('/') => all,
        Some(c) if c.is_ascii_alphabetic() => all && !WORDS.contains(&&*text.to_ascii_lowercase()),
        // A duration.
        Some('0'..='9') => {
            text.ends_with(['s', 'm', 'h'])
                && text.chars().all(|c| c.is_ascii_digit() || ".hmsun".contains(c))
        }
        _ => false,
    }
}

/// The scalar at the beginning of `line`, and what follows it, if it is written as `value` can be in
/// one line without escapes.
fn token<'a>(line: &'a str, value: &Value) -> Option<(Token<'a>, &'a str)> {
    let text = value.as_str();
    for quote in ['"', '\''] {
        let Some(inner) = line.strip_prefix(quote) else { continue };
        let rest = inner.strip_prefix(text?)?.strip_prefix(quote)?;
        // Twice is a quote within.
        let ends = !rest.starts_with(quote) && !text?.contains(['"', '\'', '\\']);
        let written = &line[..line.len() - rest.len()];
        return ends.then_some((Token { written, quote: Some(quote) }, rest));
    }
    let length = text.map(str::len).or_else(|| {
        let end = |c: char| c.is_whitespace() || matches!(c, ',' | ']' | '}' | ':');
        Some(line.find(end).unwrap_or(line.len()))
    })?;
    let (written, rest) = (line.get(..length)?, line.get(length..)?);
    let ends = rest.is_empty()
        || rest.starts_with([',', ']', '}', ':', '\r'])
        || rest.trim_start_matches([' ', '\t']).trim_end_matches('\r').is_empty()
        || rest.starts_with([' ', '\t'])
            && rest.trim_start_matches([' ', '\t']).starts_with(['#', ',', ']', '}', ':']);
    let same = !written.is_empty() && resolve_plain(written) == *value;
    (same && ends).then_some((Token { written, quote: None }, rest))
}

fn replace((line, col): (u32, u32), token: Token<'_>, text: String) -> TextEdit {
    TextEdit { line, col, end_line: line, end_col: col.saturating_add(token.columns()), text }
}

/// A key as the scalar that it was read from.
fn key_of(entry: &Entry) -> Value {
    // A key that is a number is kept as text.
    match resolve_plain(&entry.key) {
        Value::String(_) | Value::Null => Value::from(entry.key.as_str()),
        other => other,
    }
}

fn entry<'a>(root: &'a Node, field: &FieldPath) -> Option<&'a Entry> {
    let (Segment::Field(name), parent) = field.0.split_last()? else { return None };
    match &root.find(&FieldPath(parent.to_vec()))?.content {
        Content::Map(entries) => entries.iter().find(|entry| entry.key == **name),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::parse, *};

    fn check(text: &str, change: &Change, expected: Option<&str>) {
        let root = parse(text).expect("valid").expect("not empty");
        let edit = text_edit(&Lines::of(text), &root, change);
        let got = edit.map(|edit| apply(text, &[edit]).expect("within the text"));
        assert_eq!(got.as_deref(), expected, "{text:?} {change:?}");
    }

    #[test]
    fn a_key_is_renamed_in_the_way_it_is_written() {
        let rename = |at: &str| Change::Rename(FieldPath::of(at), "retries".into());
        for (text, at, expected) in [
            ("a: # x\n  retry:   1 # y\n", "a.retry", Some("a: # x\n  retries:   1 # y\n")),
            ("- {\"retry\": 1, b: 2}\n", "[0].retry", Some("- {\"retries\": 1, b: 2}\n")),
            ("'retry': 1\r\n", "retry", Some("'retries': 1\r\n")),
            ("é: 1\nü: {é: [], retry: 1}", "ü.retry", Some("é: 1\nü: {é: [], retries: 1}")),
            ("a: {retry : 1}", "a.retry", Some("a: {retries : 1}")),
            ("a: &x {retry: 1}\nb: *x\n", "b.retry", Some("a: &x {retries: 1}\nb: *x\n")),
            ("\"ret\\x72y\": 1", "retry", None),
            ("a: 1\n", "a.b", None),
            ("a: {\nretry: 1,\nb: 2\n}\n", "a.retry", Some("a: {\nretries: 1,\nb: 2\n}\n")),
        ] {
            check(text, &rename(at), expected);
        }
    }

    #[test]
    fn a_value_is_replaced_in_the_way_it_is_written() {
        let set = |value: Value| Change::Set(FieldPath::of("a[0].b"), value);
        let word = || Value::from("x/y.z-1");
        for (text, value, expected) in [
            ("a: [{b: old}]", word(), Some("a: [{b: x/y.z-1}]")),
            ("a:\n- b: 'old' # why\n  c: 1", word(), Some("a:\n- b: 'x/y.z-1' # why\n  c: 1")),
            ("a: [{\"b\":\"old\"}]", word(), Some("a: [{\"b\":\"x/y.z-1\"}]")),
            ("a:\n- b: old one \n", word(), Some("a:\n- b: x/y.z-1 \n")),
            ("a:\n- b: \"5\"\n", 5.into(), Some("a:\n- b: 5\n")),
            ("a:\n- b: 5\n", "5".into(), Some("a:\n- b: \"5\"\n")),
            ("a:\n- b: 5\n", "5s".into(), Some("a:\n- b: 5s\n")),
            ("a:\n- b: 5\n", "No".into(), Some("a:\n- b: \"No\"\n")),
            ("a:\n- b: 5\n", "1_0".into(), Some("a:\n- b: \"1_0\"\n")),
            ("a: [{b: 5}]", "a, b".into(), Some("a: [{b: \"a, b\"}]")),
            ("a:\n- b: 'it'\n", "a'b".into(), Some("a:\n- b: 'a''b'\n")),
            ("a:\n- b: GET\n", serde_json::json!(["GET"]), Some("a:\n- b: [GET]\n")),
            ("a:\n- b: x@y\n", serde_json::json!(["x@y"]), Some("a:\n- b: [\"x@y\"]\n")),
            ("a:\n- b: |\n    old\n", word(), None),
            ("a:\n- b: old\n     two\n", word(), None),
            ("a:\n- b: !!str old\n", word(), None),
            ("c: &c old\na:\n- b: *c\n", word(), None),
            ("a:\n- b: 'o''d'\n", word(), None),
            ("a:\n- b: {c: 1}\n", word(), None),
        ] {
            check(text, &set(value), expected);
        }
    }

    #[test]
    fn a_list_becomes_one_value() {
        let set = |text: &str, expected| {
            check(text, &Change::Set(FieldPath::of("a.b"), "x,y".into()), expected);
        };
        set("a:\n  b:\n  - x # no\n  - y\n", None);
        set("a:\n  b:\n  - x\n  # no\n  - y\n", None);
        set("a:\n  b: # no\n  - x\n", None);
        set("a:\n  b:\n    - x\n    - y\n  c: 1\n", Some("a:\n  b: \"x,y\"\n  c: 1\n"));
        set("a: {b: [x, y], c: 1}\n", Some("a: {b: \"x,y\", c: 1}\n"));
        set("a: {'b': [ 'x', ]}\n", Some("a: {'b': 'x,y'}\n"));
        set("a: {b: [{x: 1}]}\n", None);
    }

    #[test]
    fn a_field_is_taken_out_or_replaced() {
        let remove = |text, expected| check(text, &Change::Remove(FieldPath::of("a.b")), expected);
        remove("a:\n  c: 1\n  b: 2 # of b\nd: 3\n", Some("a:\n  c: 1\nd: 3\n"));
        remove("a:\n  b:\n  - 1\n  - 2\n  c: 1\n", Some("a:\n  c: 1\n"));
        remove("a: {b: 1, c: 2}\n", Some("a: {c: 2}\n"));
        remove("a: {c: 2, b: 1}\n", None);
        remove("a:\n  b: 1\n", None);
        remove("a:\n  c: 1\n  b: 2", None);
        remove("a:\n  c: 1\n  b: {x: 1}\n", None);
        let replace = |text, expected| {
            check(text, &Change::Replace(FieldPath::of("a.b"), "c: [{d: 1}]".into()), expected);
        };
        replace("a:\n  b:\n  - x\n  - y\n  e: 1\n", Some("a:\n  c: [{d: 1}]\n  e: 1\n"));
        replace("a: {b: [x], e: 1}\n", Some("a: {c: [{d: 1}], e: 1}\n"));
        replace("a: {\"b\": [x]}\n", None);
    }

    #[test]
    fn a_field_is_added_before_the_others() {
        let add = |at: &str| Change::Add(FieldPath::of(at), "mode", "SIMPLE".into());
        for (text, at, expected) in [
            ("# c\nkind: X\nb: 1\n", "", Some("# c\nmode: SIMPLE\nkind: X\nb: 1\n")),
            (
                "a:\n  - b: 1\n    c: 2\n",
                "a[0]",
                Some("a:\n  - mode: SIMPLE\n    b: 1\n    c: 2\n"),
            ),
            ("a: {b: 1}", "a", Some("a: {mode: SIMPLE, b: 1}")),
            ("{\"a\": {\"b\": 1}}", "a", Some("{\"a\": {\"mode\": \"SIMPLE\", \"b\": 1}}")),
            ("a: {}", "a", None),
            ("? b\n: 1\n", "", None),
        ] {
            check(text, &add(at), expected);
        }
    }

    #[test]
    fn edits_that_touch_are_not_made_together() {
        let edit = |col, end_col| TextEdit { line: 2, col, end_line: 2, end_col, text: "_".into() };
        let text = "\u{feff}a\n\u{feff}bcde\n";
        let both = apply(text, &[edit(3, 4), edit(1, 2)]);
        assert_eq!(both.as_deref(), Some("\u{feff}a\n\u{feff}_c_e\n"));
        assert_eq!(apply(text, &[edit(1, 3), edit(2, 4)]), None);
        assert_eq!(apply(text, &[edit(1, 9)]), None);
    }

    fn tree() -> impl Strategy<Value = Value> {
        let word = || "[a-zA-Z0-9_./ :#'\"-]{1,8}";
        let scalar = prop_oneof![
            word().prop_map(Value::from),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
        ];
        scalar.prop_recursive(4, 32, 4, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 1..4).prop_map(Value::from),
                prop::collection::btree_map("[a-z]{1,3}", inner, 1..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    fn paths(value: &Value, at: &FieldPath, found: &mut Vec<FieldPath>) {
        match value {
            Value::Object(map) => {
                map.iter().for_each(|(key, v)| paths(v, &at.field(key.as_str()), found));
            }
            Value::Array(list) => {
                list.iter().enumerate().for_each(|(i, v)| paths(v, &at.index(i), found));
            }
            _ => found.push(at.clone()),
        }
    }

    fn set(value: &mut Value, path: &[Segment], new: &Value) {
        match path {
            [] => *value = new.clone(),
            [Segment::Field(name), rest @ ..] => set(&mut value[&**name], rest, new),
            [Segment::Index(index), rest @ ..] => set(&mut value[*index], rest, new),
        }
    }

    proptest! {
        #[test]
        fn what_is_set_is_read_and_everything_else_stays(
            value in tree(), pretty in any::<bool>(), new in "[ -~]{0,9}", pick in any::<prop::sample::Index>()
        ) {
            let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) };
            let text = text.expect("plain data");
            let mut all = Vec::new();
            paths(&value, &FieldPath::root(), &mut all);
            let path = pick.get(&all).clone();
            let root = parse(&text).expect("JSON is YAML").expect("not empty");
            let change = Change::Set(path.clone(), Value::from(new.as_str()));
            if let Some(edit) = text_edit(&Lines::of(&text), &root, &change) {
                let changed = apply(&text, std::slice::from_ref(&edit)).expect("within the text");
                let mut expected = value.clone();
                set(&mut expected, &path.0, &Value::from(new.as_str()));
                let read = parse(&changed).expect("still valid").expect("not empty");
                prop_assert_eq!(read.to_json(), expected, "{} {:?}", changed, edit);
            }
        }
    }
}
