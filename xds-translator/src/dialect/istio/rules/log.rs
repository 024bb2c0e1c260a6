//! Rules of access logs: files, and fields of entries.

use super::format::check_format;
use crate::{
    diagnostic::{Code, Diagnostic},
    dialect::decode::Decoder,
};

/// Notes malformed formats in the fields of a log.
pub(super) fn check_log_fields(fields: &serde_json::Value, at: &mut Decoder) {
    match fields {
        serde_json::Value::String(format) => check_format(format, at),
        serde_json::Value::Array(items) => items.iter().for_each(|item| check_log_fields(item, at)),
        serde_json::Value::Object(fields) => {
            fields.values().for_each(|field| check_log_fields(field, at))
        }
        _ => {}
    }
}

/// Where every proxy can write: the directories of files are those of its image or machine, and a
/// file that cannot be opened costs every listener.
const LOG_FILES: &[&str] = &["/dev/stdout", "/dev/stderr", "/dev/null"];

/// Notes a file that some proxy cannot write.
pub(super) fn check_log_file(path: &str, at: &mut Decoder) {
    if !path.is_empty() && !LOG_FILES.contains(&path) {
        let message = "proxies that cannot write there would refuse every listener";
        let finding = Diagnostic::error(Code::InvalidValue, at.path(), message);
        let finding =
            finding.expected(format!("one of {}", LOG_FILES.join(", ")), format!("`{path}`"));
        at.note(finding.fix("`/dev/stdout`, and a collector of the containers' output"));
    }
}
