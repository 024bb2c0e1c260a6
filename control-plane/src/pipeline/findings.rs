//! What sources find in configuration is logged when it is new, so that a mistake shows where
//! operators look first.

use std::collections::HashSet;

use ferromesh_xds_translator::diagnostic::{Diagnostic, Severity};

/// Most findings that are logged at once; a directory that was moved has thousands.
const MOST: usize = 20;

/// Logs the findings of a source that it did not have `before`.
pub(super) fn log_new(before: &[Diagnostic], now: &[Diagnostic]) {
    let (new, more) = new_findings(before, now);
    for finding in new {
        match finding.severity {
            Severity::Error | Severity::ErrorRef => tracing::error!(%finding, "configuration"),
            Severity::Warning | Severity::Info => tracing::warn!(%finding, "configuration"),
        }
    }
    if more > 0 {
        tracing::warn!(more, "configuration: `GET /api/v1/diagnostics` lists every finding");
    }
}

/// Warnings and errors that are not among those of `before`, and how many more there are than are
/// logged at once. Remarks are for those who ask.
fn new_findings<'a>(before: &[Diagnostic], now: &'a [Diagnostic]) -> (Vec<&'a Diagnostic>, usize) {
    let before: HashSet<&Diagnostic> = before.iter().collect();
    let worth = |finding: &&Diagnostic| finding.severity != Severity::Info;
    let mut new: Vec<&Diagnostic> =
        now.iter().filter(worth).filter(|finding| !before.contains(finding)).collect();
    let more = new.len().saturating_sub(MOST);
    new.truncate(MOST);
    (new, more)
}

#[cfg(test)]
mod tests {
    use ferromesh_xds_translator::diagnostic::{Code, FieldPath};

    use super::*;

    #[test]
    fn a_finding_is_logged_once_while_it_stands_and_remarks_never() {
        let finding = |severity: fn(Code, FieldPath, String) -> Diagnostic, text: usize| {
            severity(Code::InvalidValue, FieldPath::root(), text.to_string())
        };
        let error = |text| finding(Diagnostic::error, text);
        let remark = finding(Diagnostic::info, 9);
        let texts = |before: &[Diagnostic], now: &[Diagnostic]| {
            let (new, more) = new_findings(before, now);
            (new.iter().map(|f| f.message.clone()).collect::<Vec<_>>(), more)
        };
        assert_eq!(texts(&[], &[error(1), remark]), (vec!["1".to_owned()], 0));
        assert_eq!(texts(&[error(1)], &[error(1), error(2)]), (vec!["2".to_owned()], 0));
        assert_eq!(texts(&[error(1)], &[]), (vec![], 0));
        let many: Vec<Diagnostic> = (0..50).map(error).collect();
        assert_eq!(texts(&[], &many).1, 30);
    }
}
