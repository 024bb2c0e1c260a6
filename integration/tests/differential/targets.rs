//! Random request targets: paths that policies speak of in other spellings, and targets of other
//! forms.

use crate::{configuration::Configuration, dice::Dice, rules::PATHS};

/// A path with an optional query, most of the time one of which rules or policies speak, spelled in
/// some way.
pub(crate) fn origin(dice: &mut Dice, configuration: &Configuration) -> String {
    let known = configuration.paths();
    let path =
        if known.is_empty() || dice.chance(20) { *dice.pick(&PATHS) } else { *dice.pick(&known) };
    let path = match dice.below(5) {
        0..=2 => path.to_owned(),
        3 => format!("{path}/x"),
        _ => format!("{path}x"),
    };
    let path = if dice.chance(55) { spelled(dice, &path) } else { path };
    match dice.below(10) {
        0 => format!("{path}?q=one"),
        1 => format!("{path}?q=two&q=one"),
        2 => format!("{path}?x=/../y%2f//"),
        3 => format!("{path}?"),
        _ => path,
    }
}

/// Another spelling of a path: some are the same after normalisation, some are not.
fn spelled(dice: &mut Dice, path: &str) -> String {
    let tail = &path[1..];
    match dice.below(34) {
        0 => format!("/x/..{path}"),
        1 => format!("/.{path}"),
        2 => format!("/{path}"),
        3 => format!("//{path}"),
        4 => format!("/x/%2e%2e{path}"),
        5 => format!("/x/%2E.{path}"),
        6 => format!("/x/..;{path}"),
        7 => format!("/x/..;a=b{path}"),
        8 => format!("{path};a=b"),
        9 => format!("/;{path}"),
        10 => format!("/%2f{tail}"),
        11 => format!("/x%2f..{path}"),
        12 => format!("/x%5c..{path}"),
        13 => format!("/x\\..{path}"),
        14 => format!("\\{tail}"),
        15 => path.replace('/', "%2F"),
        16 => path.to_uppercase(),
        17 => encoded(path, false),
        18 => encoded(path, true),
        19 => format!("{path}/"),
        20 => format!("{path}/."),
        21 => format!("{path}/.."),
        22 => format!("{path}/../{tail}"),
        23 => format!("/../..{path}"),
        24 => format!("{path}%00"),
        25 => format!("{path}%"),
        26 => format!("{path}%2"),
        27 => format!("{path}%zz"),
        28 => format!("{path}%252f.."),
        29 => format!("{path}#fragment"),
        30 => format!("/#{path}"),
        31 => format!("{path}%20x+y"),
        32 => format!("/x/.%09./..{path}"),
        _ => path.replace('/', "/./"),
    }
}

/// The first letter percent-encoded, which says the same (RFC 3986 section 6.2.2.2).
fn encoded(path: &str, upper: bool) -> String {
    let mut chars = path.chars();
    let slash = chars.next().unwrap_or('/');
    let Some(first) = chars.next() else { return path.to_owned() };
    let code = u32::from(first);
    let code = if upper { format!("%{code:02X}") } else { format!("%{code:02x}") };
    format!("{slash}{code}{}", chars.as_str())
}

/// A target that is no plain path.
pub(crate) fn odd(dice: &mut Dice, host: &str) -> Vec<u8> {
    let bare = host.split(':').next().unwrap_or(host);
    let text = match dice.below(30) {
        0 => "*".to_owned(),
        1 => host.to_owned(),
        2 => format!("{bare}:80"),
        3..=5 => format!("http://{host}/admin"),
        6 => format!("http://{host}"),
        7 => format!("https://{host}/admin"),
        8 => format!("HTTP://{host}/q"),
        9 => "http://other.example.com/admin".to_owned(),
        10 => format!("http://user@{host}/"),
        11 => format!("http://{host}?q=one"),
        12 => format!("http://{host}/#f"),
        13 => "http:///admin".to_owned(),
        14 => "http:/admin".to_owned(),
        15 => format!("ftp://{host}/admin"),
        16 => format!("//{host}/admin"),
        17 => "admin".to_owned(),
        18 => "?q=one".to_owned(),
        19 => "#f".to_owned(),
        20 => String::new(),
        21 => "/a b".to_owned(),
        22 => "/a\tb".to_owned(),
        23 => "/a\u{7f}b".to_owned(),
        24 => "/a\u{1}b".to_owned(),
        25 => "/a<>\"{}|^`b".to_owned(),
        26 => "/a[b]".to_owned(),
        27 => return b"/a\xc3\xa9b".to_vec(),
        28 => return b"/a\xffb".to_vec(),
        _ => "**".to_owned(),
    };
    text.into_bytes()
}
