//! Reads labels as Kubernetes' downward API writes them into a file.

use std::{collections::BTreeMap, path::Path};

use crate::file;

/// The labels in a file, one `KEY="VALUE"` a line.
///
/// # Errors
/// The file cannot be read, or a line has another form.
pub(super) fn read(path: &Path) -> Result<BTreeMap<String, String>, String> {
    parse(&file::read_text(path).map_err(|e| e.to_string())?)
}

fn parse(text: &str) -> Result<BTreeMap<String, String>, String> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let pairs = lines.map(|(index, line)| {
        pair(line)
            .ok_or_else(|| format!("line {}: expected KEY=\"VALUE\", got {line:?}", index + 1))
    });
    pairs.collect()
}

fn pair(line: &str) -> Option<(String, String)> {
    let (key, quoted) = line.trim().split_once('=')?;
    // What may stand in a label is quoted alike by Go and by JSON.
    let value = serde_json::from_str(quoted).ok()?;
    (!key.is_empty()).then(|| (key.to_owned(), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_label_a_line() {
        let labels =
            parse("app=\"cart\"\nsecurity.istio.io/tlsMode=\"istio\"\n\nempty=\"\"\n").unwrap();
        let expected = [("app", "cart"), ("empty", ""), ("security.istio.io/tlsMode", "istio")];
        assert!(labels.iter().map(|(key, value)| (&**key, &**value)).eq(expected), "{labels:?}");
    }

    #[test]
    fn a_wrong_line_is_named() {
        for text in ["app=\"a\"\nversion", "app=\"a\"\nversion=v1", "app=\"a\"\n=\"x\""] {
            assert!(parse(text).unwrap_err().starts_with("line 2: expected"), "{text}");
        }
    }
}
