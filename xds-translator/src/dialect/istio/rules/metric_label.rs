//! Expressions whose values are labels of metrics.

use super::{
    cel::{check_expression, read},
    own_cel::{self, gives_one_value},
};
use crate::dialect::decode::Decoder;

/// Notes an expression that does not parse, or that cannot be told to every proxy.
pub(super) fn check(text: &str, at: &mut Decoder) {
    let expression = label_expression(text);
    // Envoy ends a command of a format there.
    if expression.contains(")%") {
        return at.invalid("`)%` ends the expression where Envoys read it", None);
    }
    check_expression(expression, at);
    let what = "listeners whose metrics have such a label";
    own_cel::remark(expression, gives_one_value, what, at);
}

/// An expression without the `string(…)` around it, if there is one: a label is a text whatever its
/// expression gives, and Envoys have no such function.
pub(in crate::dialect::istio) fn label_expression(text: &str) -> &str {
    let text = text.trim();
    let inner = text.strip_prefix("string(").and_then(|rest| rest.strip_suffix(')'));
    inner.filter(|inner| read(inner).is_ok()).unwrap_or(text)
}
