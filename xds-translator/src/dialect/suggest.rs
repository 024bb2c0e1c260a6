//! What a misspelt word was meant to be: names that people really write, then the nearest by edit
//! distance.

use serde_json::Value;

use super::shape::{ObjectSchema, Shape};
use crate::diagnostic::{Change, Diagnostic, FieldPath};

/// What to do about an unknown field.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Suggestion {
    /// It is this field.
    Rename(&'static str),
    /// It is no field; what to know and what to do.
    Advice {
        /// What to know.
        message: &'static str,
        /// What to do.
        fix: &'static str,
    },
    /// Nothing is known.
    None,
}

/// Names that are too far from the right one for edit distance, by type.
const ALIASES: &[(&str, &str, &str)] = &[
    ("HttpRoute", "retry", "retries"),
    ("HttpRoute", "retryPolicy", "retries"),
    ("HttpRoute", "matches", "match"),
    ("HttpRoute", "destination", "route"),
    ("HttpRoute", "cors", "corsPolicy"),
    ("HttpRoute", "requestTimeout", "timeout"),
    ("HttpRoute", "mirroring", "mirror"),
    ("HttpMatch", "path", "uri"),
    ("HttpMatch", "queryParameters", "queryParams"),
    ("HttpMatch", "host", "authority"),
    ("HttpRetry", "retries", "attempts"),
    ("HttpRetry", "numRetries", "attempts"),
    ("HttpRetry", "timeout", "perTryTimeout"),
    ("HttpRetry", "conditions", "retryOn"),
    ("HttpRetry", "backOff", "backoff"),
    ("OutlierDetection", "consecutiveGatewayFailure", "consecutiveGatewayErrors"),
    ("OutlierDetection", "consecutiveGatewayFailures", "consecutiveGatewayErrors"),
    ("OutlierDetection", "consecutive5xx", "consecutive5xxErrors"),
    ("OutlierDetection", "consecutiveLocalOriginFailure", "consecutiveLocalOriginFailures"),
    ("TrafficPolicy", "outlier", "outlierDetection"),
    ("TrafficPolicy", "circuitBreaker", "outlierDetection"),
    ("TrafficPolicy", "lb", "loadBalancer"),
    ("PeerAuthentication", "mutualTls", "mtls"),
    ("PeerAuthentication", "peers", "mtls"),
    ("AuthorizationPolicy", "rule", "rules"),
    ("Source", "principal", "principals"),
    ("Source", "serviceAccount", "serviceAccounts"),
    ("Operation", "method", "methods"),
    ("Operation", "path", "paths"),
    ("Operation", "host", "hosts"),
    ("Operation", "port", "ports"),
    ("ServerTls", "secretName", "credentialName"),
    ("ClientTls", "secretName", "credentialName"),
    ("VirtualService", "host", "hosts"),
    ("VirtualService", "gateway", "gateways"),
    ("VirtualService", "routes", "http"),
    ("DestinationRule", "hosts", "host"),
    ("Telemetry", "accessLogs", "accessLogging"),
    ("Tracing", "sampling", "randomSamplingPercentage"),
    ("Tracing", "tags", "customTags"),
    ("DestinationRule", "subset", "subsets"),
];

/// Fields that never existed and have no counterpart, by type.
const ADVICE: &[(&str, &str, &str, &str)] = &[
    (
        "OutlierDetection",
        "minRequestVolume",
        "it never existed and has no equivalent (the nearest, success-rate ejection, is not exposed)",
        "remove it",
    ),
    (
        "OutlierDetection",
        "errorThresholdPercentage",
        "it never existed and has no equivalent (ejection counts consecutive errors)",
        "remove it, and set `consecutive5xxErrors`",
    ),
    ("HttpFault", "percentage", "shares belong to each fault", "move it into `delay` or `abort`"),
    (
        "VirtualService",
        "subsets",
        "subsets are declared by a DestinationRule",
        "move it to a DestinationRule for the same host",
    ),
    ("HttpRoute", "weight", "weights belong to destinations", "move it into `route[]`"),
    ("Destination", "weight", "weights stand beside `destination`", "move it one level up"),
    (
        "Metrics",
        "dimensions",
        "labels are changed by metric; response code and destination service are labels already",
        "`overrides: [{match: {metric: ALL_METRICS}, tagOverrides: {request_path: {operation: UPSERT, \
         value: request.url_path}}}]`",
    ),
    (
        "MeshConfig",
        "mtls",
        "it was removed",
        "a PeerAuthentication `default` in the root namespace with `mtls.mode: STRICT`",
    ),
];

/// What an unknown field of a type was meant to be. A field whose value cannot be that of the field
/// is not suggested by distance.
pub(super) fn for_field(written: &str, value: &Value, schema: &'static ObjectSchema) -> Suggestion {
    if let Some((.., name)) =
        ALIASES.iter().find(|(ty, alias, _)| *ty == schema.name && *alias == written)
    {
        return Suggestion::Rename(name);
    }
    if let Some((_, _, message, fix)) =
        ADVICE.iter().find(|(ty, alias, ..)| *ty == schema.name && *alias == written)
    {
        return Suggestion::Advice { message, fix };
    }
    let fits = |name: &&'static str| {
        let field = schema.fields.iter().find(|f| f.name == *name);
        field.is_some_and(|f| {
            !matches!(((f.shape)(), value), (Shape::Object(_), Value::String(_) | Value::Number(_)))
        })
    };
    let names = schema.fields.iter().map(|f| f.name);
    nearest(written, names).filter(fits).map_or(Suggestion::None, Suggestion::Rename)
}

/// What is to become of the unknown field `written` at `path`, if only one thing can be meant;
/// `suggestion` is what [`for_field`] says.
pub(super) fn change(
    written: &str,
    path: FieldPath,
    suggestion: &Suggestion,
    schema: &'static ObjectSchema,
) -> Option<Change> {
    match suggestion {
        Suggestion::Rename(name) => {
            let known =
                |(ty, alias, _): &(&str, &str, &str)| (*ty, *alias) == (schema.name, written);
            let alone = || meant(written, schema.fields.iter().map(|f| f.name)) == Some(*name);
            (ALIASES.iter().any(known) || alone()).then(|| Change::Rename(path, (*name).into()))
        }
        Suggestion::Advice { fix: "remove it", .. } => Some(Change::Remove(path)),
        Suggestion::Advice { fix, .. } => {
            let written = fix.strip_prefix('`')?.strip_suffix('`')?;
            Some(Change::Replace(path, written.into()))
        }
        Suggestion::None => None,
    }
}

/// The word that differs only in case or separators, else the nearest one if it is near enough to
/// be a slip of the pen.
pub(crate) fn nearest<'a>(
    written: &str,
    words: impl Iterator<Item = &'a str> + Clone,
) -> Option<&'a str> {
    let folded = fold(written);
    if let Some(same) = words.clone().find(|w| fold(w) == folded) {
        return Some(same);
    }
    let limit = (folded.len() / 3).clamp(1, 4);
    // Whoever writes decides how long the word is: what cannot be near is not compared.
    let near = words
        .filter(|w| fold(w).len().abs_diff(folded.len()) <= limit)
        .map(|w| (strsim::damerau_levenshtein(&folded, &fold(w)), w))
        .filter(|(distance, _)| *distance <= limit);
    near.min_by_key(|(distance, _)| *distance).map(|(_, w)| w)
}

/// The word of these that is meant, where only one can be: no other is near, and digits are none that
/// the pen slips over (`v1` is not `v2`).
pub(crate) fn meant<'a>(
    written: &str,
    words: impl Iterator<Item = &'a str> + Clone,
) -> Option<&'a str> {
    let near = nearest(written, words.clone())?;
    let folded = fold(written);
    let distance = |word: &str| strsim::damerau_levenshtein(&folded, &fold(word));
    let own = distance(near);
    // A word that differs in case or separators alone is meant, whatever else resembles it.
    let crowd = if own == 0 { 0 } else { own + 1 };
    let alone = words.filter(|word| *word != near).all(|word| distance(word) > crowd);
    let digits = |word: &str| word.chars().filter(char::is_ascii_digit).collect::<String>();
    let slip = own < fold(near).len() && digits(near) == digits(written);
    (alone && slip).then_some(near)
}

/// Says which of `words` is near to what is written in the finding's field, and that it is to stand
/// there if it alone can be meant.
pub(crate) fn advise<'a>(
    finding: Diagnostic,
    written: &str,
    words: impl Iterator<Item = &'a str> + Clone,
) -> Diagnostic {
    match (meant(written, words.clone()), nearest(written, words)) {
        (Some(word), _) => finding.instead(word),
        (None, Some(near)) => finding.fix(format!("`{near}`")),
        (None, None) => finding,
    }
}

fn fold(word: &str) -> String {
    word.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_word_is_meant_where_no_other_is_near() {
        let words = ["v1", "v2", "canary", "reviews", "review", "TLSV1_2", "STRICT", "*"];
        let table = [
            ("v3", None),
            ("v1 ", Some("v1")),
            ("canry", Some("canary")),
            ("reviws", None),
            ("Canary", Some("canary")),
            ("x", None),
            ("TLSV1_3", None),
            ("TLSv1_2", Some("TLSV1_2")),
            ("strct", Some("STRICT")),
            ("*", None),
        ];
        for (written, expected) in table {
            assert_eq!(meant(written, words.into_iter()), expected, "{written}");
        }
    }

    #[test]
    fn near_words_are_found_and_far_ones_are_not() {
        let words = ["enableAutoMtls", "retries", "timeout", "LEAST_REQUEST", "STRICT"];
        let table = [
            ("enableAutoMTLS", Some("enableAutoMtls")),
            ("timeuot", Some("timeout")),
            ("least-request", Some("LEAST_REQUEST")),
            ("strict", Some("STRICT")),
            ("STRCIT", Some("STRICT")),
            ("something", None),
            ("x", None),
        ];
        for (written, expected) in table {
            assert_eq!(nearest(written, words.into_iter()), expected, "{written}");
        }
    }
}
