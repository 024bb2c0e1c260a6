//! Fields that ServiceProfiles never had, though examples show them: each is refused with what to
//! write instead.

use serde_json::{Map, Value, json};

use crate::{
    diagnostic::{Code, Diagnostic},
    dialect::decode::Decoder,
};

/// The object without such fields, each of which is noted.
pub(super) fn taken_out(map: &Map<String, Value>, at: &mut Decoder) -> Map<String, Value> {
    let mut map = map.clone();
    let routes = map.get_mut("spec").and_then(|spec| spec.get_mut("routes"));
    let Some(Value::Array(routes)) = routes else { return map };
    at.within("spec", |at| {
        at.within("routes", |at| {
            for (i, route) in routes.iter_mut().enumerate() {
                let Value::Object(route) = route else { continue };
                at.within_index(i, |at| check_route(route, at));
            }
        });
    });
    map
}

fn check_route(route: &mut Map<String, Value>, at: &mut Decoder) {
    if let Some(breakers) = route.remove("circuitBreakers") {
        note(at, "circuitBreakers", &breaking(&breakers));
    }
    if route.remove("retries").is_some() {
        let fix = "`isRetryable: true` here, and `spec.retryBudget: {retryRatio: 0.2, \
                   minRetriesPerSecond: 10, ttl: 10s}`; delays and percentiles have no equivalent";
        note(at, "retries", fix);
        // What the route is then about is looked at too.
        route.entry("isRetryable").or_insert(Value::Bool(true));
    }
    let Some(Value::Array(classes)) = route.get_mut("responseClasses") else { return };
    at.within("responseClasses", |at| {
        for (i, class) in classes.iter_mut().enumerate() {
            let Value::Object(class) = class else { continue };
            let known = class.contains_key("condition") || !class.contains_key("statusCodes");
            if known {
                continue;
            }
            let ranges = ranges(class.get("statusCodes"));
            let fix = format!("`condition: {}`, and no `name`", written(&ranges));
            at.within_index(i, |at| note_class(at, &fix));
            class.remove("name");
            class.remove("statusCodes");
            class.insert("condition".to_owned(), condition(&ranges));
        }
    });
}

/// What breaks circuits: annotations of the Service.
fn breaking(written: &Value) -> String {
    let failures = written.get("consecutiveErrors").and_then(Value::as_u64).unwrap_or(7);
    let penalty = written.get("trippingTimeout").and_then(Value::as_str).unwrap_or("1s");
    format!(
        "on the Service, `balancer.linkerd.io/failure-accrual: consecutive`, \
         `balancer.linkerd.io/failure-accrual-consecutive-max-failures: \"{failures}\"` and \
         `balancer.linkerd.io/failure-accrual-consecutive-min-penalty: {penalty}`; intervals and \
         limits of waiting requests have no equivalent"
    )
}

fn note(at: &mut Decoder, field: &'static str, fix: &str) {
    let path = at.path().field(field);
    let finding = Diagnostic::error(Code::UnknownField, path, format!("unknown field `{field}`"));
    at.note(finding.fix(fix));
}

fn note_class(at: &mut Decoder, fix: &str) {
    let message = "unknown fields `name` and `statusCodes`, and no `condition`";
    at.note(Diagnostic::error(Code::UnknownField, at.path(), message).fix(fix));
}

/// Runs of statuses that follow each other.
fn ranges(codes: Option<&Value>) -> Vec<(u64, u64)> {
    let codes = codes.and_then(Value::as_array);
    let mut codes: Vec<u64> = codes.into_iter().flatten().filter_map(Value::as_u64).collect();
    codes.sort_unstable();
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for code in codes {
        match runs.last_mut() {
            Some((_, last)) if code <= *last + 1 => *last = code,
            _ => runs.push((code, code)),
        }
    }
    runs
}

fn condition(ranges: &[(u64, u64)]) -> Value {
    let one = |(min, max): &(u64, u64)| json!({ "status": { "min": min, "max": max } });
    match ranges {
        [only] => one(only),
        several => json!({ "any": several.iter().map(one).collect::<Vec<_>>() }),
    }
}

fn written(ranges: &[(u64, u64)]) -> String {
    let one = |(min, max): &(u64, u64)| format!("{{status: {{min: {min}, max: {max}}}}}");
    match ranges {
        [only] => one(only),
        several => format!("{{any: [{}]}}", several.iter().map(one).collect::<Vec<_>>().join(", ")),
    }
}
