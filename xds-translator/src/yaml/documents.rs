//! Cutting a file into documents before anything is parsed, so that a broken one does not spoil the
//! others.

/// What programs write before the text of a file, and so before any of its documents where several
/// files were put together (YAML 1.2 section 5.2).
pub const BYTE_ORDER_MARK: char = '\u{feff}';

/// One document of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Document<'a> {
    /// Its text; a `---` line that begins it is left out, what follows the marker on its line is
    /// kept.
    pub text: &'a str,
    /// The file's line on which the text begins, from 1.
    pub first_line: u32,
}

/// The documents of a file, without those that hold only blanks, comments and directives.
pub fn split(text: &str) -> Vec<Document<'_>> {
    let mut documents = Vec::new();
    let (mut start, mut first_line, mut offset) = (0, 1, 0);
    let mut number = 0u32;
    for line in text.split_inclusive('\n') {
        number = number.saturating_add(1);
        let end = offset + line.len();
        if let Some(rest) = after_marker(line) {
            documents.push(Document { text: &text[start..offset], first_line });
            let inline = !(rest.trim().is_empty() || rest.trim_start().starts_with('#'));
            // Blanks instead of the marker would change columns only on its own line, which the
            // parser accepts as it is.
            (start, first_line) = if inline { (offset, number) } else { (end, number + 1) };
        }
        offset = end;
    }
    documents.push(Document { text: &text[start..], first_line });
    for document in &mut documents {
        document.text = document.text.trim_start_matches(BYTE_ORDER_MARK);
    }
    documents.retain(|d| d.text.lines().any(is_content));
    documents
}

/// What follows `---` or `...` at the beginning of a line.
fn after_marker(line: &str) -> Option<&str> {
    let line = line.trim_start_matches(BYTE_ORDER_MARK);
    let rest = line.strip_prefix("---").or_else(|| line.strip_prefix("..."))?;
    (rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n'])).then_some(rest)
}

/// Whether a line holds anything but blanks, a comment or a directive.
pub(super) fn is_content(line: &str) -> bool {
    let trimmed = line.trim();
    !(trimmed.is_empty()
        || trimmed.starts_with('#')
        || line.starts_with('%')
        || matches!(trimmed, "---" | "..."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_keep_their_line_numbers() {
        let cases: &[(&str, &[(&str, u32)])] = &[
            ("a: 1\n---\nb: 2\n", &[("a: 1\n", 1), ("b: 2\n", 3)]),
            ("%YAML 1.2\n---\na: 1\n...\n---\n# only\n", &[("a: 1\n", 3)]),
            ("--- {a: 1}\n--- # c\nb: 2", &[("--- {a: 1}\n", 1), ("b: 2", 3)]),
            ("a: |\n  ---\n", &[("a: |\n  ---\n", 1)]),
            ("---x: 1", &[("---x: 1", 1)]),
            ("# nothing\n\n", &[]),
            ("a: 1\r\n---\r\nb: 2\r\n", &[("a: 1\r\n", 1), ("b: 2\r\n", 3)]),
            ("\u{feff}a: 1\n\u{feff}---\n\u{feff}b: 2\n", &[("a: 1\n", 1), ("b: 2\n", 3)]),
            ("a: 1\n---\n\u{feff}--- {b: 2}\n", &[("a: 1\n", 1), ("--- {b: 2}\n", 3)]),
        ];
        for (text, expected) in cases {
            let got: Vec<(&str, u32)> =
                split(text).iter().map(|d| (d.text, d.first_line)).collect();
            assert_eq!(got, *expected, "{text:?}");
        }
    }
}
