//! The annotation by which an AuthorizationPolicy is only tried out: what it would refuse is counted.

/// Its key.
pub(crate) const ANNOTATION: &str = "istio.io/dry-run";

/// What a value means, by the words of Go's `ParseBool`, which Istio reads it with; `None`: nothing.
pub(crate) fn means(word: &str) -> Option<bool> {
    match word {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}
