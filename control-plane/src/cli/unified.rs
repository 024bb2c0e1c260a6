//! What changed in a text, as `patch` and reviewers read it.

/// Lines around a change that are shown with it.
const CONTEXT: usize = 3;
/// Most lines that one change may have put in: further on, lines are told apart one by one.
const FURTHEST: usize = 16;

/// The unified diff of a file; empty if nothing changed.
pub(super) fn diff(name: &str, old: &str, new: &str) -> String {
    let lines = lines(old, new);
    let mut text = String::new();
    let (mut at, mut old_line, mut new_line) = (0, 1, 1);
    while let Some(first) = lines[at..].iter().position(|line| line.sign != ' ') {
        let first = at + first;
        let begin = first.saturating_sub(CONTEXT).max(at);
        // What is near to a change is shown with it.
        let mut last = first;
        while let Some(next) =
            lines[last + 1..].iter().take(2 * CONTEXT + 1).position(|line| line.sign != ' ')
        {
            last += 1 + next;
        }
        let end = (last + 1 + CONTEXT).min(lines.len());
        // Between hunks nothing differs.
        old_line += begin - at;
        new_line += begin - at;
        let hunk = &lines[begin..end];
        let count = |other| hunk.iter().filter(|line| line.sign != other).count();
        let (olds, news) = (count('+'), count('-'));
        let range = |line: usize, count: usize| match count {
            0 => format!("{},0", line - 1),
            1 => line.to_string(),
            _ => format!("{line},{count}"),
        };
        text.push_str(&format!("@@ -{} +{} @@\n", range(old_line, olds), range(new_line, news)));
        hunk.iter().for_each(|line| line.write(&mut text));
        (at, old_line, new_line) = (end, old_line + olds, new_line + news);
    }
    if text.is_empty() { text } else { format!("--- {name}\n+++ {name}\n{text}") }
}

/// A line and whether it is in both texts (` `), the old one (`-`) or the new one (`+`).
struct Line<'a> {
    sign: char,
    text: &'a str,
}

impl Line<'_> {
    fn write(&self, to: &mut String) {
        to.push(self.sign);
        to.push_str(self.text);
        if !self.text.ends_with('\n') {
            to.push_str("\n\\ No newline at end of file\n");
        }
    }
}

/// Both texts by lines. Edits change lines or put lines in, so that where texts go on alike is near.
fn lines<'a>(old: &'a str, new: &'a str) -> Vec<Line<'a>> {
    let old: Vec<&str> = old.split_inclusive('\n').collect();
    let new: Vec<&str> = new.split_inclusive('\n').collect();
    let mut lines = Vec::new();
    let (mut o, mut n) = (0, 0);
    while o < old.len() || n < new.len() {
        match (old.get(o), new.get(n)) {
            (Some(a), Some(b)) if a == b => {
                lines.push(Line { sign: ' ', text: a });
                (o, n) = (o + 1, n + 1);
            }
            (Some(a), Some(_)) => {
                let inserted = new[n..].iter().take(FURTHEST).position(|b| b == a);
                let (gone, put) = inserted.map_or((1, 1), |put| (0, put));
                lines.extend(old[o..o + gone].iter().map(|text| Line { sign: '-', text }));
                lines.extend(new[n..n + put].iter().map(|text| Line { sign: '+', text }));
                (o, n) = (o + gone, n + put);
            }
            (Some(a), None) => {
                lines.push(Line { sign: '-', text: a });
                o += 1;
            }
            (None, Some(b)) => {
                lines.push(Line { sign: '+', text: b });
                n += 1;
            }
            (None, None) => {}
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The new text, by the old one and the diff alone.
    fn patched(old: &str, diff: &str) -> String {
        let old: Vec<&str> = old.split_inclusive('\n').collect();
        let mut new = String::new();
        let mut at = 0;
        let body: Vec<&str> = diff.split_inclusive('\n').skip(2).collect();
        for (i, line) in body.iter().enumerate() {
            let (sign, text) = line.split_at(1);
            let cut = body.get(i + 1).is_some_and(|next| next.starts_with('\\'));
            let text = if cut { text.trim_end_matches('\n') } else { text };
            match sign {
                "@" => {
                    let range = text.split(' ').nth(1).expect("a range").trim_start_matches('-');
                    let (line, count) = range.split_once(',').unwrap_or((range, "1"));
                    let line: usize = line.parse().expect("a line");
                    let begin = if count == "0" { line } else { line - 1 };
                    new.extend(old[at..begin].iter().copied());
                    at = begin;
                }
                "+" => new.push_str(text),
                "\\" => {}
                _ => {
                    assert_eq!(old[at], text, "what is said to be there");
                    at += 1;
                    if sign == " " {
                        new.push_str(text);
                    }
                }
            }
        }
        new.extend(old[at..].iter().copied());
        new
    }

    #[test]
    fn a_change_is_shown_with_what_is_around_it() {
        let old = "1\n2\n3\n4\n5\n6\n7\n8\n9\n";
        let new = "1\n2\n3\n4\nfive\n6\n7\n8\n9\n10";
        assert_eq!(diff("a", old, old), "");
        assert_eq!(
            diff("a", old, new),
            "--- a\n+++ a\n@@ -2,8 +2,9 @@\n 2\n 3\n 4\n-5\n+five\n 6\n 7\n 8\n 9\n+10\n\\ No newline at end of file\n"
        );
    }

    proptest! {
        #[test]
        fn a_diff_says_what_changed(old in "([ab]?\n){0,40}[ab]?", new in "([ab]?\n){0,40}[ab]?") {
            let diff = diff("a", &old, &new);
            prop_assert_eq!(patched(&old, &diff), new, "{}", diff);
        }

        #[test]
        fn a_diff_of_few_changes_is_short(at in prop::collection::btree_set(0..200usize, 1..5)) {
            let old: String = (0..200).map(|line| format!("{line}\n")).collect();
            let new: String = (0..200)
                .map(|line| if at.contains(&line) { format!("x\n{line}y\n") } else { format!("{line}\n") })
                .collect();
            let diff = diff("a", &old, &new);
            prop_assert_eq!(patched(&old, &diff), new, "{}", &diff);
            prop_assert!(diff.lines().count() <= 2 + at.len() * (3 + 2 * CONTEXT + 1), "{}", diff);
        }
    }
}
