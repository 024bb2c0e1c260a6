//! What commands print, and what a terminal must not obey.

use std::{borrow::Cow, io::Write};

/// Prints a result. A closed pipe (`| head`) is no reason to panic.
pub(super) fn print(text: &str) {
    let _ = writeln!(std::io::stdout(), "{}", harmless(text));
}

/// Prints what is for a person to read beside the result.
pub(super) fn print_error(text: &str) {
    let _ = writeln!(std::io::stderr(), "{}", harmless(text));
}

/// An error and its causes in one line. Many messages hold their cause already, with what to do
/// about it: a cause that was said is not said again.
pub(super) fn line_of(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if line.is_empty() {
            line = cause;
        } else if !line.contains(&cause) {
            line = format!("{line}: {cause}");
        }
    }
    line
}

/// The text with control characters written out, as JSON does: names, messages and documents come
/// from others, and a terminal would obey what stands in them.
fn harmless(text: &str) -> Cow<'_, str> {
    let obeyed = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    if !text.contains(obeyed) {
        return Cow::Borrowed(text);
    }
    let shown = text
        .chars()
        .map(|c| if obeyed(c) { format!("\\u{:04x}", u32::from(c)) } else { c.to_string() });
    Cow::Owned(shown.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_said_once() {
        let cause = || std::io::Error::from_raw_os_error(21);
        let holds_it = anyhow::anyhow!("cannot read x: {}; remove it", cause());
        let error = anyhow::Error::new(cause()).context(holds_it.to_string()).context("starting");
        assert_eq!(
            line_of(&error),
            "starting: cannot read x: Is a directory (os error 21); remove it"
        );
        let error = anyhow::Error::new(cause()).context("cannot read x");
        assert_eq!(line_of(&error), "cannot read x: Is a directory (os error 21)");
    }

    #[test]
    fn a_terminal_has_nothing_to_obey_in_what_others_wrote() {
        assert_eq!(harmless("two\n\tlines, ünïcode"), "two\n\tlines, ünïcode");
        let hostile = "\u{1b}[2J\u{9b}31m\r\u{7f}\u{8}x";
        assert_eq!(harmless(hostile), r"\u001b[2J\u009b31m\u000d\u007f\u0008x");
        // Within JSON too, it stays the text that it was.
        let json = format!("\"{}\"", harmless("\u{9b}x"));
        assert_eq!(serde_json::from_str::<String>(&json).expect("JSON"), "\u{9b}x");
    }
}
