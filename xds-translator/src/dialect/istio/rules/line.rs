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

/// Notes a Unix socket whose path no system takes, and says that our own proxy calls none.
pub(super) fn check_socket(address: &str, at: &mut Decoder) {
    /// `sun_path` of Linux without the NUL at its end.
    const LONGEST: usize = 107;
    let Some(path) = address.strip_prefix("unix://") else { return };
    if path.len() > LONGEST {
        let finding = Diagnostic::error(Code::InvalidValue, at.path(), "too long for a socket");
        let got = format!("{} bytes", path.len());
        return at.note(finding.expected(format!("a path of at most {LONGEST} bytes"), got));
    }
    remark_refused_by_ours("endpoints on Unix sockets", at);
}

/// Whether `name` may name a header.
pub(super) fn is_header_name(name: &str) -> bool {
    !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?={}".contains(&b))
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
