//! Patterns of access policies: texts with at most one `*`, at one end.
//!
//! One that nothing can match is refused: of a policy that denies it would guard nothing, and of one
//! that allows it would let nobody in.

use super::line::check_line;
use crate::{
    diagnostic::{Code, Diagnostic},
    dialect::decode::Decoder,
};

/// What identities begin with, and principals do not (Istio `Source.principals`).
const SPIFFE: &str = "spiffe://";

/// A pattern in its parts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form<'a> {
    /// `*`
    Any,
    Exact(&'a str),
    Prefix(&'a str),
    Suffix(&'a str),
}

impl<'a> Form<'a> {
    /// `None`: a `*` stands elsewhere, or twice.
    fn of(text: &'a str) -> Option<Self> {
        let form = match (text.strip_prefix('*'), text.strip_suffix('*')) {
            (Some(""), _) => Self::Any,
            (Some(suffix), _) => Self::Suffix(suffix),
            (None, Some(prefix)) => Self::Prefix(prefix),
            (None, None) => Self::Exact(text),
        };
        (!form.text().contains('*')).then_some(form)
    }

    /// What is written beside the `*`.
    fn text(self) -> &'a str {
        match self {
            Self::Any => "",
            Self::Exact(text) | Self::Prefix(text) | Self::Suffix(text) => text,
        }
    }

    /// Whether what it matches begins with [`Self::text`].
    fn is_anchored(self) -> bool {
        matches!(self, Self::Exact(_) | Self::Prefix(_))
    }

    /// `text` with the `*` where it is.
    fn with(self, text: &str) -> String {
        match self {
            Self::Any => "`*`".to_owned(),
            Self::Exact(_) => format!("`{text}`"),
            Self::Prefix(_) => format!("`{text}*`"),
            Self::Suffix(_) => format!("`*{text}`"),
        }
    }
}

/// Reads a pattern, and notes one that is empty or has a `*` in a wrong place.
fn form<'a>(text: &'a str, at: &mut Decoder) -> Option<Form<'a>> {
    if text.is_empty() {
        at.invalid("empty", None);
        return None;
    }
    let form = Form::of(text);
    if form.is_none() {
        at.invalid(format!("`{text}`: `*` may only stand at one end"), None);
    }
    form
}

fn unmatched(text: &str, message: &str, expected: &str, fix: Option<String>, at: &mut Decoder) {
    let message = format!("{message}, so that it would never match");
    let mut finding = Diagnostic::error(Code::InvalidValue, at.path(), message)
        .expected(expected, format!("`{text}`"));
    finding.fix = fix;
    at.note(finding);
}

/// Notes a pattern with characters that `allowed` does not take; one whose lower case would do is
/// suggested so.
fn check_characters(
    text: &str,
    expected: &str,
    allowed: impl Fn(char) -> bool,
    at: &mut Decoder,
) -> bool {
    let Some(form) = form(text, at) else { return false };
    if form.text().chars().all(&allowed) {
        return true;
    }
    let near = form.text().trim().to_ascii_lowercase();
    let fix = (!near.is_empty() && near.chars().all(&allowed)).then(|| form.with(&near));
    unmatched(text, "it holds what none has", expected, fix, at);
    false
}

/// Notes a pattern that no text of a kind without further form can match.
pub(super) fn check_text(text: &str, at: &mut Decoder) {
    form(text, at);
}

/// Notes a pattern of a header's value that no value can match: blanks at its ends are none of it.
pub(super) fn check_value(text: &str, at: &mut Decoder) {
    check_line(text, at);
    let Some(form) = form(text, at) else { return };
    let written = form.text();
    let begins = form.is_anchored() && written.starts_with([' ', '\t']);
    let ends = !matches!(form, Form::Prefix(_)) && written.ends_with([' ', '\t']);
    if begins || ends {
        let fix = Some(form.with(written.trim()));
        unmatched(text, "it has a blank at an end", "a value without it", fix, at);
    }
}

/// Notes a pattern that no request's authority can match.
pub(super) fn check_authority(text: &str, at: &mut Decoder) {
    let allowed = |c: char| c.is_ascii_alphanumeric() || ".-_:[]".contains(c);
    check_characters(text, "a host, perhaps with a port, with `*` at one end", allowed, at);
}

/// Notes a pattern that no name of a server in a handshake can match: it has no port, and is no
/// address.
pub(super) fn check_server_name(text: &str, at: &mut Decoder) {
    let allowed = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
    check_characters(text, "a host without port, with `*` at one end", allowed, at);
}

/// Notes a pattern that no scheme can match: they are in lower case.
pub(super) fn check_scheme(text: &str, at: &mut Decoder) {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "+-.".contains(c);
    check_characters(text, "a scheme in lower case, such as `https`", allowed, at);
}

/// Notes a pattern that no method can match: they are told apart by case.
pub(super) fn check_method(text: &str, at: &mut Decoder) {
    let Some(form) = form(text, at) else { return };
    let valid = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || "-_.!#$&+^|~".contains(c);
    if !form.text().chars().all(valid) {
        let near = form.text().trim().to_ascii_uppercase();
        let fix = near.chars().all(valid).then(|| form.with(&near));
        unmatched(text, "it is no method", "a method in upper case, such as `GET`", fix, at);
    }
}

/// Notes a pattern of paths that no normalised path can match.
pub(super) fn check_path(text: &str, at: &mut Decoder) {
    let Some(form) = form(text, at) else { return };
    let expected = "a path such as `/a`, `/a/*` or `*/b`";
    check_absolute(form, text, expected, at);
    check_normal(text, form.text(), matches!(form, Form::Prefix(_)), at);
}

/// Notes a pattern of `:path`, which holds the query too.
pub(super) fn check_target(text: &str, at: &mut Decoder) {
    let Some(form) = form(text, at) else { return };
    check_absolute(form, text, "a path such as `/a`, `/a/*` or `*/b`", at);
}

fn check_absolute(form: Form<'_>, text: &str, expected: &str, at: &mut Decoder) {
    if form.is_anchored() && !form.text().starts_with('/') {
        let fix = Some(form.with(&format!("/{}", form.text().trim_start())));
        unmatched(text, "paths begin with `/`", expected, fix, at);
    }
}

/// Notes what a path does not hold any more when it is matched: the query, `.` and `..`, and what
/// no target may hold. `open`: its last segment may go on.
pub(super) fn check_normal(text: &str, written: &str, open: bool, at: &mut Decoder) {
    let expected = "a path without query, as it is after normalization";
    if let Some((path, _)) = written.split_once(['?', '#']) {
        let fix = (!path.is_empty()).then(|| format!("`{path}`"));
        return unmatched(text, "paths are matched without their query", expected, fix, at);
    }
    let odd = |c: char| c == '\\' || c.is_ascii_whitespace() || c.is_control();
    if written.contains(odd) {
        return unmatched(text, "no path holds a blank or `\\`", expected, None, at);
    }
    let mut segments: Vec<&str> = written.split('/').skip(1).collect();
    if open {
        segments.pop();
    }
    if segments.iter().any(|segment| matches!(*segment, "." | "..")) {
        unmatched(text, "`.` and `..` are resolved before paths are matched", expected, None, at);
    }
}

/// Notes a pattern that issuer and subject of no token can match: the last slash parts them, or
/// there is none beside the `*` (Istio `Source.requestPrincipals`).
pub(super) fn check_request_principal(text: &str, at: &mut Decoder) {
    let Some(form) = form(text, at) else { return };
    let expected = "`ISSUER/SUBJECT`, with `*` at one end";
    match (form, text.rsplit_once('/')) {
        (Form::Exact(_), None) => unmatched(text, "it names no subject", expected, None, at),
        (Form::Exact(_) | Form::Prefix(_), Some((issuer, subject))) => {
            if issuer.is_empty() || subject.is_empty() {
                unmatched(text, "issuer or subject is missing", expected, None, at);
            } else if issuer.ends_with(":/") {
                let message = "the last `/` ends the issuer, which is no URL then";
                let fix = Some(form.with(&format!("{}/", form.text().trim_end_matches('/'))));
                unmatched(text, message, expected, fix, at);
            }
        }
        (Form::Suffix(_), Some((_, ""))) => {
            unmatched(text, "the subject is missing", expected, None, at);
        }
        _ => {}
    }
}

/// Notes a principal that no workload of the mesh can be. It is taken as it is written, as in Istio:
/// clients from outside, with certificates of others, may have any identity.
pub(super) fn check_principal(text: &str, at: &mut Decoder) {
    let id = text.strip_prefix(SPIFFE).unwrap_or(text);
    if id.is_empty() {
        return at.invalid("empty", None);
    }
    if id.len() < text.len() {
        at.remark(|path| {
            let message =
                "a principal is written without `spiffe://`: it is taken for the identity that it \
                 names, where Istio's control plane matches nobody";
            Diagnostic::warning(Code::InvalidValue, path, message).fix(format!("`{id}`"))
        });
    }
    if let Some(message) = foreign(id) {
        let expected = "`TRUSTDOMAIN/ns/NAMESPACE/sa/ACCOUNT`, with `*` at one end";
        at.remark(|path| {
            let finding = Diagnostic::warning(Code::NoEffect, path, message);
            finding.expected(expected, format!("`{id}`"))
        });
    }
}

/// Why no workload of the mesh is meant; `None`: some may be.
fn foreign(id: &str) -> Option<&'static str> {
    let Some(form) = Form::of(id) else {
        return Some("a `*` that does not stand at one end is a letter, which no identity has");
    };
    let own = |c: char| is_label(c) || "._/".contains(c);
    if !form.text().chars().all(own) {
        return Some("it holds what no identity of the mesh has, so that no workload matches");
    }
    (!may_be_identity(form)).then_some("no workload of the mesh has an identity of this form")
}

fn may_be_identity(form: Form<'_>) -> bool {
    /// What stands between the parts; the others are names.
    const PARTS: [&str; 5] = ["", "ns", "", "sa", ""];
    let parts: Vec<&str> = form.text().split('/').collect();
    let whole = |(part, word): (&&str, &&str)| match *word {
        "" => !part.is_empty(),
        word => *part == word,
    };
    let last = parts.len().saturating_sub(1);
    match form {
        Form::Any => true,
        Form::Exact(_) => parts.len() == PARTS.len() && parts.iter().zip(&PARTS).all(whole),
        Form::Prefix(_) => {
            parts.len() <= PARTS.len()
                && parts[..last].iter().zip(&PARTS).all(whole)
                && (PARTS[last].is_empty() || PARTS[last].starts_with(parts[last]))
        }
        Form::Suffix(_) => {
            let words = PARTS.len().saturating_sub(parts.len());
            parts.len() <= PARTS.len()
                && parts.iter().zip(&PARTS[words..]).skip(1).all(whole)
                && (PARTS[words].is_empty() || PARTS[words].ends_with(parts[0]))
        }
    }
}

/// Notes a pattern that no namespace can match. In a namespace alone, `*` may stand anywhere, and
/// more than once (Istio's control plane; its documentation knows one at an end).
pub(super) fn check_namespace(text: &str, at: &mut Decoder) {
    if text.is_empty() {
        return at.invalid("empty", None);
    }
    let allowed = |c: char| is_label(c) || c == '*';
    if !text.chars().all(allowed) {
        let near = text.trim().to_ascii_lowercase();
        let fix = (!near.is_empty() && near.chars().all(allowed)).then(|| format!("`{near}`"));
        let expected = "a namespace in lower case, with `*` for any part of it";
        unmatched(text, "it holds what none has", expected, fix, at);
    }
}

fn is_label(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'
}

/// Notes a text that is no service account. Istio takes no wildcards here: a `*` would be a letter
/// that no account has, and the rule would match nobody.
pub(super) fn check_account(text: &str, at: &mut Decoder) {
    let parts: Vec<&str> = text.split('/').collect();
    let account = |name: &str| !name.is_empty() && name.chars().all(|c| is_label(c) || c == '.');
    let valid = match parts[..] {
        [name] => account(name),
        [namespace, name] => {
            !namespace.is_empty() && namespace.chars().all(is_label) && account(name)
        }
        _ => false,
    };
    /// Of Istio's definitions.
    const LONGEST: usize = 320;
    if !valid || text.len() > LONGEST {
        let finding = Diagnostic::error(Code::InvalidValue, at.path(), "not a service account");
        at.note(
            finding.expected("`ACCOUNT` or `NAMESPACE/ACCOUNT`, without `*`", format!("`{text}`")),
        );
    }
}

/// Notes a pattern that no trust domain can match.
pub(super) fn check_trust_domain(text: &str, at: &mut Decoder) {
    if let Some((domain, _)) = text.split_once('/') {
        return at
            .invalid(format!("`{text}`: a trust domain has no `/`"), Some(format!("`{domain}`")));
    }
    let allowed = |c: char| is_label(c) || "._".contains(c);
    check_characters(text, "a trust domain in lower case, with `*` at one end", allowed, at);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Texts of a kind: those that are taken, and those that are refused.
    fn check(kind: fn(&str, &mut Decoder), taken: &[&str], refused: &[&str]) {
        for (text, valid) in
            taken.iter().map(|t| (t, true)).chain(refused.iter().map(|t| (t, false)))
        {
            let mut at = Decoder::default();
            kind(text, &mut at);
            let found = at.finish();
            assert_eq!(found.is_empty(), valid, "{text}: {found:?}");
        }
    }

    #[test]
    fn paths_are_as_they_are_after_normalization() {
        let taken = ["*", "/", "/a", "/a*", "/a/*", "*/b", "*.png", "/.well-known/*", "/a/.*"];
        let refused = [
            "",
            "/admin/**",
            "*admin*",
            "/x/../admin",
            "admin",
            " /admin",
            "/admin?x=1",
            "/a/.",
            "/a/*/b",
            "/a b",
            "**",
            "/a/../*",
        ];
        check(check_path, &taken, &refused);
        check(check_target, &["/a?b=1", "/a*", "*/b", "*"], &["a", "/a*b", ""]);
    }

    #[test]
    fn names_hold_what_names_can_hold() {
        check(check_method, &["GET", "P*", "*", "M-SEARCH"], &["delete", "Get", "G*T", "", "GET "]);
        check(
            check_authority,
            &["a.example.com", "A.Example.COM", "*.example.com", "a.test:*", "b*", "*", "[::1]:80"],
            &["a*b{c", "a b", "", "a/b", "https://a"],
        );
        check(
            check_server_name,
            &["a.b", "A.b", "*.b", "*"],
            &["a:443", "a b", "", "a/b", "[::1]"],
        );
        check(check_scheme, &["https", "http*", "*"], &["HTTPS", "https:", ""]);
        check(
            check_namespace,
            &["shop", "shop*", "*shop", "*", "*a*", "team-*-prod"],
            &["Shop", "shop ", "a.b", ""],
        );
        check(check_trust_domain, &["prod.corp", "*.corp", "*"], &["Prod.corp", "a/b", "a b"]);
        check(check_account, &["a", "shop/my.a"], &["A", "a/b/c", "a*", "a /b", ""]);
        check(check_value, &["one two", "o*", "*ne", "a *"], &["", "*bad*", "a*b", " a", "a "]);
    }

    #[test]
    fn request_principals_are_issuer_and_subject() {
        check(
            check_request_principal,
            &[
                "*",
                "a/b",
                "https://a.test/b",
                "https://a.test/*",
                "a*",
                "*a",
                "*/b",
                "a/b*",
                "*a/b",
            ],
            &["", "a", "/b", "a/", "https://a*", "https://a.test", "a*b", "*a*", "*a/"],
        );
    }

    #[test]
    fn what_no_workload_can_be_is_taken_and_said() {
        let mut at = Decoder::default();
        check_principal("spiffe://td/ns/a/sa/b", &mut at);
        let found = at.finish();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].severity, crate::diagnostic::Severity::Warning);
        assert_eq!(found[0].fix.as_deref(), Some("`td/ns/a/sa/b`"));
        for (text, refused) in
            [("td/a", false), ("td/ns/*/sa/b", false), ("", true), (SPIFFE, true)]
        {
            let mut at = Decoder::default();
            check_principal(text, &mut at);
            let errors = at.finish().into_iter();
            let mut errors = errors.filter(|f| f.severity == crate::diagnostic::Severity::Error);
            assert_eq!(errors.next().is_some(), refused, "{text}");
        }
        check(
            check_principal,
            &[
                "*",
                "td/*",
                "td*",
                "td/n*",
                "td/ns/a/*",
                "td/ns/a/s*",
                "td/ns/a/sa/b",
                "*/sa/b",
                "*/ns/a/sa/b",
                "*.corp",
                "*.corp/ns/a/sa/b",
                "*a/b",
                "td/ns/a/sa/b*",
                "*b",
            ],
            &[
                "td/ns/a/sa/b ",
                "td",
                "a",
                "td/a/b",
                "td/ns/a",
                "td/ns/a/sa/b/c",
                "td/x*",
                "*/x/b",
                "td/ns/*/sa/b",
                "spiffe://",
                "spiffe://td/a",
                "td/ns//sa/b",
                "td/ns/Shop/sa/b",
                "TD/*",
                "",
            ],
        );
    }
}
