//! Findings that somebody has seen and does not want to see again.

use std::sync::Arc;

use crate::{
    diagnostic::{Diagnostic, Severity},
    ir::{Labels, ObjectId},
};

/// The annotation with codes of findings that are not said of an object, separated by commas; `*`:
/// none is.
const ANNOTATION: &str = "galley.istio.io/analyze-suppress";

/// A code that is not said of some objects, `CODE=KIND NAME.NAMESPACE` as in Istio's analysis; `*`
/// in the name stands for anything.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Suppression {
    code: Arc<str>,
    kind: Arc<str>,
    /// `NAME.NAMESPACE`, or `NAME` of what has none.
    name: Arc<str>,
}

/// A text that is no [`Suppression`].
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{text:?}: expected CODE=KIND NAME.NAMESPACE, such as \"IST0102=Namespace shop\"")]
pub struct UnknownSuppression {
    text: String,
}

impl std::str::FromStr for Suppression {
    type Err = UnknownSuppression;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts = text.split_once('=').and_then(|(code, object)| {
            let (kind, name) = object.trim().split_once(' ')?;
            Some((code.trim(), kind, name.trim()))
        });
        match parts {
            Some((code, kind, name)) if !code.is_empty() && !name.is_empty() => {
                Ok(Self { code: code.into(), kind: kind.into(), name: name.into() })
            }
            _ => Err(UnknownSuppression { text: text.to_owned() }),
        }
    }
}

impl Suppression {
    /// Whether a finding is one of those. A refusal ([`Severity::Error`]) never is: the object is
    /// not in force, whoever looks away.
    pub fn covers(&self, finding: &Diagnostic) -> bool {
        let Some(id) = &finding.object else { return false };
        finding.severity != Severity::Error
            && has_code(finding, &self.code)
            && id.kind.kind_name().eq_ignore_ascii_case(&self.kind)
            && matches(&self.name, &full_name(id))
    }
}

fn full_name(id: &ObjectId) -> String {
    match &*id.namespace {
        "" => id.name.to_string(),
        namespace => format!("{}.{namespace}", id.name),
    }
}

fn has_code(finding: &Diagnostic, code: &str) -> bool {
    finding.code.as_str() == code || finding.istio_code == Some(code)
}

/// Whether a pattern, in which each `*` stands for anything, matches a whole text.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

/// Whether an object's annotations say that a finding about it is not to be said.
pub(super) fn is_silenced(finding: &Diagnostic, annotations: &Labels) -> bool {
    let Some(codes) = annotations.get(ANNOTATION) else { return false };
    let named = |code: &str| code == "*" || has_code(finding, code);
    finding.severity != Severity::Error && codes.split(',').map(str::trim).any(named)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        diagnostic::{Code, FieldPath},
        dialect::Kind,
    };

    fn finding() -> Diagnostic {
        let id = ObjectId { kind: Kind::SERVICE, namespace: "shop".into(), name: "cart".into() };
        Diagnostic::info(Code::PortName, FieldPath::root(), "x").object(id)
    }

    #[test]
    fn a_suppression_names_code_kind_and_name() {
        let table = [
            ("IST0118=Service cart.shop", true),
            ("FM0205=service cart.*", true),
            ("IST0118=Service *", true),
            ("IST0118=Service c*t.s*p", true),
            ("IST0118=Service c*x.shop", false),
            ("IST0118=Pod cart.shop", false),
            ("IST0119=Service cart.shop", false),
            ("IST0118=Service cart", false),
        ];
        for (text, expected) in table {
            let suppression: Suppression = text.parse().expect("a suppression");
            assert_eq!(suppression.covers(&finding()), expected, "{text}");
        }
        for text in ["", "IST0118", "IST0118=Service", "=Service a", "IST0118=Service "] {
            let err = text.parse::<Suppression>().expect_err("no suppression");
            assert!(err.to_string().contains("expected CODE=KIND NAME.NAMESPACE"), "{err}");
        }
    }

    #[test]
    fn a_refusal_is_always_said() {
        let error = Diagnostic { severity: Severity::Error, ..finding() };
        let suppression: Suppression = "FM0205=Service *".parse().expect("a suppression");
        assert!(!suppression.covers(&error));
        let all: Labels = [(ANNOTATION.into(), "*".into())].into();
        assert!(is_silenced(&finding(), &all) && !is_silenced(&error, &all));
        let other: Labels = [(ANNOTATION.into(), "IST0001, IST0118".into())].into();
        assert!(is_silenced(&finding(), &other));
    }
}
