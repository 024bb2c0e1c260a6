//! Texts that travel in requests, responses and logs. What Envoy refuses in one of them costs every
//! rule beside it, since it takes or refuses a whole resource.

use crate::{
    diagnostic::{Code, Diagnostic},
    dialect::decode::Decoder,
};

/// Notes a text that would end the line it is written on.
pub(super) fn check_line(text: &str, at: &mut Decoder) {
    if text.contains(['\0', '\r', '\n']) {
        at.invalid("a line break or NUL is not allowed here", None);
    }
}

/// Says that Envoy takes what is here, and that our own proxy refuses `what` holds it.
pub(super) fn remark_refused_by_ours(what: &str, at: &mut Decoder) {
    let message = format!(
        "Ferromesh's own proxy refuses {what} and goes on with what it had; Envoy acts on it"
    );
    at.remark(|path| {
        Diagnostic::warning(Code::NotActedOn, path, message)
            .fix("take it out where such proxies are in use")
    });
}

/// The path of a Unix socket's address; `None`: it is an address of another kind.
pub(super) fn socket_path(address: &str) -> Option<&str> {
    address.strip_prefix("unix://")
}

/// Notes a Unix socket whose path names no file, or is none that a system takes, and says that our
/// own proxy calls none.
pub(super) fn check_socket(address: &str, at: &mut Decoder) {
    /// `sun_path` of Linux without the NUL at its end.
    const LONGEST: usize = 107;
    let Some(path) = socket_path(address) else { return };
    if path.len() > LONGEST {
        let finding = Diagnostic::error(Code::InvalidValue, at.path(), "too long for a socket");
        let got = format!("{} bytes", path.len());
        return at.note(finding.expected(format!("a path of at most {LONGEST} bytes"), got));
    }
    let is_file = path.starts_with('/') && !path.ends_with('/');
    if !is_file && !path.starts_with('@') {
        let finding = Diagnostic::error(Code::InvalidValue, at.path(), "not the path of a socket");
        let expected = "`unix:///path/of/file` or `unix://@name`";
        return at.note(finding.expected(expected, format!("`{address}`")));
    }
    remark_refused_by_ours("endpoints on Unix sockets", at);
}

/// Whether `name` may name a header.
pub(super) fn is_header_name(name: &str) -> bool {
    !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?={}".contains(&b))
}

/// Whether `name` may name a header where Istio takes fewer names than HTTP has.
pub(super) fn is_plain_header_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_names_are_tokens() {
        for (name, valid) in
            [("x-a", true), ("", false), ("a b", false), (":path", false), ("a\u{e9}", false)]
        {
            assert_eq!(is_header_name(name), valid, "{name}");
        }
    }
}
