//! Where RE2, which Envoy runs, takes less than the engine that checks expressions here.

/// Why RE2 refuses an expression that this crate's engine takes; `None`: no such reason is known.
pub(super) fn objection(regex: &str) -> Option<String> {
    let mut rest = regex.chars();
    while let Some(c) = rest.next() {
        let reason = match c {
            '\\' => rest.next().and_then(escape),
            '(' => rest.as_str().strip_prefix('?').and_then(flags),
            '{' => repetition(rest.as_str()),
            _ => None,
        };
        if reason.is_some() {
            return reason;
        }
    }
    None
}

fn escape(c: char) -> Option<String> {
    matches!(c, 'u' | 'U')
        .then(|| format!("`\\{c}` is unknown; `\\x{{…}}` gives a character by number"))
}

/// Flags before `:` or `)`.
fn flags(group: &str) -> Option<String> {
    let end = group.find(|c: char| !c.is_ascii_alphabetic() && c != '-')?;
    let (flags, behind) = group.split_at(end);
    let unknown = flags.chars().find(|f| !matches!(f, 'i' | 'm' | 's' | 'U' | '-'))?;
    behind.starts_with([':', ')']).then(|| format!("flag `{unknown}` is unknown"))
}

/// `{N}` or `{N,M}` with more than a thousand.
fn repetition(behind: &str) -> Option<String> {
    const MOST: u32 = 1000;
    let counts = behind.split_once('}')?.0;
    let too_many = |n: &str| n.trim().parse::<u32>().is_ok_and(|n| n > MOST);
    counts
        .split(',')
        .any(too_many)
        .then(|| format!("`{{{counts}}}` repeats more than {MOST} times"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_that_only_one_engine_takes_are_refused() {
        let table = [
            (r"/a/[0-9]+\.png", true),
            (r"(?i)a(?:b)(?P<n>c)", true),
            (r"a{1000}", true),
            (r"\\u0041", true),
            (r"\u0041", false),
            (r"(?x)a b", false),
            (r"a{2,1001}", false),
        ];
        for (regex, taken) in table {
            assert_eq!(objection(regex).is_none(), taken, "{regex}");
        }
    }
}
