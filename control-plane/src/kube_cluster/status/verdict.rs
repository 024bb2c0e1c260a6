//! What is to be said in the status of an object, and whether its status says so already. Pure.
//!
//! Three conditions: `Accepted` (whether this generation is in force, and if not, which field is
//! wrong), `Programmed` (whether proxies refuse what it was translated to, and which) and
//! `ReferencesResolved` (whether the hosts, subsets and credentials that it names are there). How many
//! proxies run it is not said: every proxy that comes or goes would be a write to every object.
//! `validationMessages` has the shape of Istio's.

use std::{collections::BTreeSet, net::Ipv4Addr};

use ferromesh_xds_translator::{
    diagnostic::{Code, Diagnostic, Severity},
    ir::Hostname,
};
use serde_json::{Map, Value, json};

use crate::{kube_cluster::status_cache::ObservedStatus, status::ObjectRefusal};

/// Conditions that are ours; those of others stay as they are.
const OURS: [&str; 3] = [ACCEPTED, PROGRAMMED, RESOLVED];
const ACCEPTED: &str = "Accepted";
const PROGRAMMED: &str = "Programmed";
const RESOLVED: &str = "ReferencesResolved";
const REFUSED: &str = "RefusedByProxy";
/// Findings on something that an object names and that is not there.
const REFERENCES: [Code; 4] =
    [Code::MissingReference, Code::MissingCredential, Code::MissingProvider, Code::EmptySubset];
/// Longest text of a condition or message, in characters.
const LONGEST_TEXT: usize = 1_000;
/// Messages of one object at most.
const MOST_MESSAGES: usize = 20;
/// Proxies that are named.
const MOST_NAMES: usize = 5;

/// What is to be said about an object.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Verdict {
    accepted: Condition,
    programmed: Condition,
    resolved: Condition,
    messages: Vec<Value>,
    /// Addresses that are allocated to its hosts, in the shape of Istio's; `None`: nothing is said of
    /// addresses.
    addresses: Option<Vec<Value>>,
    /// What is wrong enough for an Event.
    pub(super) errors: Vec<Complaint>,
}

/// Something that is wrong with an object.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Complaint {
    pub(super) code: Code,
    pub(super) text: String,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Condition {
    status: &'static str,
    reason: String,
    message: String,
}

impl Condition {
    fn new(status: &'static str, reason: impl Into<String>, message: &str) -> Self {
        Self { status, reason: reason.into(), message: shortened(message) }
    }
}

/// Judges an object by what was found in it, in any order, and by who refuses it.
pub(super) fn judge(mut findings: Vec<&Diagnostic>, refused: Option<&ObjectRefusal>) -> Verdict {
    let refusals = refused.into_iter().flat_map(|refused| &refused.findings);
    findings.sort_by_key(|f| (f.severity, &f.field, f.code, &f.message));
    findings.dedup();
    let accepted = accepted(&findings);
    let programmed = programmed(&accepted, refused);
    let resolved = resolved(&accepted, &findings);
    let all: Vec<&Diagnostic> = refusals.chain(findings.iter().copied()).collect();
    let errors = all.iter().filter(|f| f.severity == Severity::Error);
    Verdict {
        accepted,
        programmed,
        resolved,
        messages: all.iter().take(MOST_MESSAGES).map(|f| message(f)).collect(),
        addresses: None,
        errors: errors.map(|f| Complaint { code: f.code, text: shortened(&words(f)) }).collect(),
    }
}

impl Verdict {
    /// The same, saying of an object whose hosts may have addresses allocated which these are.
    pub(super) fn with_addresses(self, allocated: &[(Hostname, Ipv4Addr)]) -> Self {
        let address = |(host, address): &(Hostname, Ipv4Addr)| json!({ "value": address.to_string(), "host": host.as_str() });
        Self { addresses: Some(allocated.iter().map(address).collect()), ..self }
    }
}

fn accepted(findings: &[&Diagnostic]) -> Condition {
    let errors = findings.iter().filter(|f| f.severity == Severity::Error).count();
    match (findings.first(), errors) {
        (Some(first), 1..) => {
            let more =
                if errors > 1 { format!(" (and {} more)", errors - 1) } else { String::new() };
            Condition::new("False", format!("{:?}", first.code), &format!("{}{more}", words(first)))
        }
        (None, _) => Condition::new("True", ACCEPTED, "in force"),
        (Some(_), 0) => Condition::new("True", ACCEPTED, "in force; see validationMessages"),
    }
}

fn programmed(accepted: &Condition, refused: Option<&ObjectRefusal>) -> Condition {
    match refused {
        Some(ObjectRefusal { proxies, findings }) => {
            let named =
                proxies.iter().take(MOST_NAMES).map(String::as_str).collect::<Vec<_>>().join(", ");
            let more = proxies.len().checked_sub(MOST_NAMES).filter(|n| *n > 0);
            let more = more.map(|n| format!(" and {n} more")).unwrap_or_default();
            let said = findings.first().map(|f| f.message.as_str()).unwrap_or_default();
            Condition::new("False", REFUSED, &format!("refused by {named}{more}: {said}"))
        }
        None if accepted.status == "False" => {
            let message = "this generation is not in force; the last one that was accepted stays";
            Condition::new("False", "NotAccepted", message)
        }
        None => Condition::new("True", PROGRAMMED, "no proxy refuses it"),
    }
}

fn resolved(accepted: &Condition, findings: &[&Diagnostic]) -> Condition {
    let missing: Vec<&&Diagnostic> =
        findings.iter().filter(|f| REFERENCES.contains(&f.code)).collect();
    match missing[..] {
        [] if accepted.status == "False" => {
            let message = "this generation is not in force; what it names was not looked for";
            Condition::new("Unknown", "NotAccepted", message)
        }
        [] => Condition::new("True", RESOLVED, "all that it names is there"),
        [first, ref others @ ..] => {
            let more = match others.len() {
                0 => String::new(),
                more => format!(" (and {more} more)"),
            };
            let reason = format!("{:?}", first.code);
            Condition::new("False", reason, &format!("{}{more}", words(first)))
        }
    }
}

/// A finding without its object, which is where it stands.
fn words(finding: &Diagnostic) -> String {
    let mut text = finding.message.clone();
    if !finding.field.is_empty() {
        text = format!("{}: {text}", finding.field);
    }
    if let (Some(expected), Some(got)) = (&finding.expected, &finding.got) {
        text = format!("{text}: expected {expected}, got {got}");
    }
    match &finding.fix {
        // Who was first differs from time to time, and the condition names them all.
        Some(fix) if finding.code != Code::RefusedByProxy => format!("{text}; fix: {fix}"),
        _ => text,
    }
}

/// A finding in the shape of Istio's `AnalysisMessageBase`, with its words.
fn message(finding: &Diagnostic) -> Value {
    let level = match finding.severity {
        Severity::Error | Severity::ErrorRef => "ERROR",
        Severity::Warning => "WARNING",
        Severity::Info => "INFO",
    };
    let code = finding.istio_code.unwrap_or(finding.code.as_str());
    let mut said = json!({
        "type": { "name": format!("{:?}", finding.code), "code": code },
        "level": level,
        "message": shortened(&words(finding)),
    });
    if let Some(code) = finding.istio_code {
        said["documentationUrl"] = json!(format!(
            "https://istio.io/latest/docs/reference/config/analysis/{}/",
            code.to_lowercase()
        ));
    }
    said
}

fn shortened(text: &str) -> String {
    let shown = |c: char| if c.is_control() { ' ' } else { c };
    let mut short: String = text.chars().take(LONGEST_TEXT).map(shown).collect();
    if text.chars().nth(LONGEST_TEXT).is_some() {
        short.push('…');
    }
    short
}

/// What must change in a status so that it says what `verdict` says at `now` (RFC 3339); `None`: it
/// says so already. Whole lists: conditions of others are in it, as they are.
pub(super) fn change(observed: &ObservedStatus, verdict: &Verdict, now: &str) -> Option<Value> {
    let mut change = Map::new();
    let mut set = |name: &str, value: Value| {
        if observed.status.get(name) != Some(&value) {
            change.insert(name.to_owned(), value);
        }
    };
    set("observedGeneration", json!(observed.generation));
    set("conditions", conditions(&observed.status["conditions"], verdict, now));
    match &verdict.messages[..] {
        [] if observed.status.get("validationMessages").is_none() => {}
        messages => set("validationMessages", json!(messages)),
    }
    match verdict.addresses.as_deref() {
        None => {}
        Some([]) if observed.status.get("addresses").is_none() => {}
        Some(addresses) => set("addresses", json!(addresses)),
    }
    (!change.is_empty()).then_some(Value::Object(change))
}

/// Whether a status says of the object as it is that proxies refuse it.
pub(super) fn says_refused(observed: &ObservedStatus) -> bool {
    let conditions: &[Value] = observed.status["conditions"].as_array().map_or(&[], Vec::as_slice);
    let refused =
        |c: &Value| c["type"] == PROGRAMMED && c["status"] == "False" && c["reason"] == REFUSED;
    observed.status["observedGeneration"] == json!(observed.generation)
        && conditions.iter().any(refused)
}

fn conditions(observed: &Value, verdict: &Verdict, now: &str) -> Value {
    let observed: &[Value] = observed.as_array().map_or(&[], Vec::as_slice);
    let is = |name: &'static str| move |c: &&Value| c["type"] == name;
    let ours = [
        (ACCEPTED, &verdict.accepted),
        (PROGRAMMED, &verdict.programmed),
        (RESOLVED, &verdict.resolved),
    ];
    let ours = ours.map(|(name, condition)| {
        let before =
            observed.iter().find(is(name)).filter(|before| before["status"] == condition.status);
        let since = before.and_then(|before| before["lastTransitionTime"].as_str()).unwrap_or(now);
        json!({
            "type": name,
            "status": condition.status,
            "reason": condition.reason,
            "message": condition.message,
            "lastTransitionTime": since,
        })
    });
    let others = observed.iter().filter(|c| !OURS.iter().any(|name| c["type"] == *name));
    others.cloned().chain(ours).collect()
}

/// The errors of which a status does not speak yet for this generation; one of each code.
pub(super) fn unsaid<'a>(observed: &ObservedStatus, verdict: &'a Verdict) -> Vec<&'a Complaint> {
    let current = observed.status["observedGeneration"] == json!(observed.generation);
    let said: &[Value] =
        observed.status["validationMessages"].as_array().map_or(&[], Vec::as_slice);
    let is_said = |complaint: &Complaint| {
        current
            && said.iter().any(|m| {
                m["type"]["name"] == format!("{:?}", complaint.code) && m["level"] == "ERROR"
            })
    };
    let mut codes = BTreeSet::new();
    verdict
        .errors
        .iter()
        .filter(|complaint| !is_said(complaint) && codes.insert(complaint.code))
        .collect()
}

#[cfg(test)]
mod tests {
    use ferromesh_xds_translator::diagnostic::FieldPath;

    use super::*;

    const NOW: &str = "2026-01-01T00:00:00Z";
    const LATER: &str = "2026-01-02T00:00:00Z";

    fn observed(generation: i64, status: Value) -> ObservedStatus {
        ObservedStatus {
            api_version: "networking.istio.io/v1".into(),
            uid: "u".into(),
            generation,
            resource_version: "1".into(),
            status,
        }
    }

    fn invalid() -> Diagnostic {
        Diagnostic::error(Code::InvalidValue, FieldPath::of("spec.http[2].weight"), "out of range")
            .expected("0..=100", "120")
    }

    fn refused(proxies: &[&str]) -> ObjectRefusal {
        let finding = Diagnostic::error(
            Code::RefusedByProxy,
            FieldPath::root(),
            "a proxy refused route 80: no",
        );
        ObjectRefusal {
            proxies: proxies.iter().map(|p| (*p).to_owned()).collect(),
            findings: vec![finding.fix("x")],
        }
    }

    /// Conditions in words: `Accepted=True Accepted: in force`.
    fn check(findings: &[Diagnostic], refused: Option<&ObjectRefusal>, expected: [&str; 2]) {
        let status =
            change(&observed(1, Value::Null), &judge(findings.iter().collect(), refused), NOW)
                .expect("a change");
        let conditions = status["conditions"].as_array().expect("a list");
        let word = |c: &Value| {
            ["status", "reason", "message"]
                .map(|k| c[k].as_str().expect("text").to_owned())
                .join(" ")
        };
        assert_eq!(conditions[..2].iter().map(word).collect::<Vec<_>>(), expected);
        let resolved = match expected[0].starts_with("True") {
            true => "True ReferencesResolved all that it names is there",
            false => {
                "Unknown NotAccepted this generation is not in force; what it names was not looked for"
            }
        };
        assert_eq!(word(&conditions[2]), resolved);
        let count = findings.len() + refused.map_or(0, |r| r.findings.len());
        assert_eq!(status["validationMessages"].as_array().map_or(0, Vec::len), count);
    }

    #[test]
    fn conditions_say_what_is_wrong_where_and_who_refuses() {
        let fine = "True Programmed no proxy refuses it";
        let warning =
            Diagnostic::warning(Code::NoEffect, FieldPath::of("spec.http[1]"), "never matches");
        check(&[], None, ["True Accepted in force", fine]);
        check(
            std::slice::from_ref(&warning),
            None,
            ["True Accepted in force; see validationMessages", fine],
        );
        let rejected = "False NotAccepted this generation is not in force; the last one that was accepted stays";
        let what =
            "False InvalidValue spec.http[2].weight: out of range: expected 0..=100, got 120";
        check(&[warning, invalid()], None, [what, rejected]);
        let missing =
            Diagnostic::error(Code::MissingField, FieldPath::of("spec.hosts"), "required");
        let what = "False MissingField spec.hosts: required (and 1 more)";
        check(&[invalid(), missing], None, [what, rejected]);
        let said = "a proxy refused route 80: no";
        let few = format!("False RefusedByProxy refused by a.shop, b.shop: {said}");
        check(&[], Some(&refused(&["b.shop", "a.shop"])), ["True Accepted in force", &few]);
        let many = format!("False RefusedByProxy refused by 1, 2, 3, 4, 5 and 2 more: {said}");
        check(
            &[],
            Some(&refused(&["1", "2", "3", "4", "5", "6", "7"])),
            ["True Accepted in force", &many],
        );
    }

    #[test]
    fn what_an_object_names_and_nobody_has_is_a_condition_of_its_own() {
        let host = FieldPath::of("spec.http[0].route[0].destination.host");
        let nowhere = Diagnostic::error_ref(Code::MissingReference, host, "no host `nowhere`");
        let secret = Diagnostic::warning(
            Code::MissingCredential,
            FieldPath::of("spec.servers[0].tls.credentialName"),
            "Secret `x` is in no namespace",
        );
        let conditions = |findings: &[&Diagnostic]| {
            let status = change(&observed(1, Value::Null), &judge(findings.to_vec(), None), NOW);
            status.expect("a change")["conditions"].clone()
        };
        let found = conditions(&[&secret, &nowhere]);
        assert_eq!(found[0]["status"], "True", "{found}");
        assert_eq!(
            (&found[2]["status"], &found[2]["reason"]),
            (&json!("False"), &json!("MissingReference"))
        );
        let message = found[2]["message"].as_str().expect("text");
        assert!(message.contains("nowhere") && message.ends_with("(and 1 more)"), "{message}");
        assert_eq!(conditions(&[&secret])[2]["reason"], "MissingCredential");
        assert_eq!(conditions(&[])[2]["status"], "True");
    }

    #[test]
    fn a_reference_that_comes_clears_its_condition_and_then_nothing_is_written() {
        let host = FieldPath::of("spec.http[0].route[0].destination.host");
        let nowhere = Diagnostic::error_ref(Code::MissingReference, host, "no host `nowhere`");
        let (lost, found) = (judge(vec![&nowhere], None), judge(vec![], None));
        let before = change(&observed(1, Value::Null), &lost, NOW).expect("a change");
        assert_eq!(change(&observed(1, before.clone()), &lost, LATER), None, "said already");
        let after = change(&observed(1, before), &found, LATER).expect("a change");
        let condition = &after["conditions"][2];
        assert_eq!(
            (&condition["status"], &condition["lastTransitionTime"]),
            (&json!("True"), &json!(LATER))
        );
        assert_eq!(after["conditions"][0]["lastTransitionTime"], NOW, "others keep their time");
        let whole = json!({ "observedGeneration": 1, "conditions": after["conditions"], "validationMessages": [] });
        assert_eq!(change(&observed(1, whole), &found, LATER), None);
    }

    #[test]
    fn messages_have_istios_shape() {
        let invalid = invalid();
        let status =
            change(&observed(3, Value::Null), &judge(vec![&invalid], None), NOW).expect("a change");
        assert_eq!(status["observedGeneration"], 3);
        let expected = json!([{
            "type": { "name": "InvalidValue", "code": "IST0106" },
            "level": "ERROR",
            "message": "spec.http[2].weight: out of range: expected 0..=100, got 120",
            "documentationUrl": "https://istio.io/latest/docs/reference/config/analysis/ist0106/",
        }]);
        assert_eq!(status["validationMessages"], expected);
    }

    #[test]
    fn nothing_is_written_when_the_status_says_so_already_and_only_what_differs_otherwise() {
        let invalid = invalid();
        let (bad, good) = (judge(vec![&invalid], None), judge(vec![], None));
        let written = change(&observed(1, Value::Null), &bad, NOW).expect("a change");
        assert_eq!(change(&observed(1, written.clone()), &bad, LATER), None);
        assert_eq!(
            change(&observed(2, written.clone()), &bad, LATER),
            Some(json!({ "observedGeneration": 2 }))
        );
        let mended = change(&observed(1, written), &good, LATER).expect("a change");
        assert_eq!(mended["validationMessages"], json!([]));
        assert_eq!(mended["conditions"][0]["lastTransitionTime"], LATER);
        assert!(mended.get("observedGeneration").is_none());
    }

    #[test]
    fn an_object_that_never_had_messages_gets_no_empty_list() {
        let status =
            change(&observed(1, Value::Null), &judge(vec![], None), NOW).expect("a change");
        assert!(status.get("validationMessages").is_none(), "{status}");
    }

    #[test]
    fn conditions_of_others_stay_and_a_condition_keeps_its_time() {
        let foreign = json!({ "type": "Reconciled", "status": "True" });
        let accepted = json!({ "type": "Accepted", "status": "True", "lastTransitionTime": NOW });
        let observed = observed(
            1,
            json!({ "conditions": [accepted, foreign], "addresses": [{ "value": "240.240.0.1" }] }),
        );
        let changed = change(&observed, &judge(vec![], None), LATER).expect("a change");
        assert_eq!(changed["conditions"][0], foreign);
        assert_eq!(changed["conditions"][1]["lastTransitionTime"], NOW);
        assert_eq!(changed["conditions"][2]["lastTransitionTime"], LATER);
        assert_eq!(changed["conditions"][3]["type"], "ReferencesResolved");
        assert!(changed.get("addresses").is_none());
    }

    #[test]
    fn allocated_addresses_are_said_until_there_are_none() {
        let of = |addresses: &[(Hostname, Ipv4Addr)]| judge(vec![], None).with_addresses(addresses);
        let one = [(Hostname::new("a.test"), Ipv4Addr::new(240, 240, 0, 1))];
        let none = change(&observed(1, Value::Null), &of(&[]), NOW).expect("a change");
        assert!(none.get("addresses").is_none(), "{none}");
        let written = change(&observed(1, none), &of(&one), NOW).expect("a change");
        let expected = json!({ "addresses": [{ "value": "240.240.0.1", "host": "a.test" }] });
        assert_eq!(written, expected);
        let said = |verdict: &Verdict| {
            let status = change(&observed(1, Value::Null), verdict, NOW).expect("a change");
            observed(1, status)
        };
        assert_eq!(change(&said(&of(&one)), &of(&one), LATER), None);
        assert_eq!(change(&said(&of(&one)), &of(&[]), LATER), Some(json!({ "addresses": [] })));
    }

    #[test]
    fn an_error_is_unsaid_once_per_generation() {
        let (invalid, another) =
            (invalid(), Diagnostic::error(Code::InvalidValue, FieldPath::of("spec.hosts"), "no"));
        let verdict = judge(vec![&invalid, &another], None);
        assert_eq!(unsaid(&observed(1, Value::Null), &verdict).len(), 1);
        let written = change(&observed(1, Value::Null), &verdict, NOW).expect("a change");
        assert_eq!(unsaid(&observed(1, written.clone()), &verdict), Vec::<&Complaint>::new());
        assert_eq!(unsaid(&observed(2, written), &verdict).len(), 1);
        assert_eq!(
            unsaid(&observed(1, Value::Null), &judge(vec![], None)),
            Vec::<&Complaint>::new()
        );
    }

    #[test]
    fn a_status_says_whether_proxies_refuse_the_object_as_it_is() {
        let written = |refused: Option<&ObjectRefusal>| {
            change(&observed(1, Value::Null), &judge(vec![], refused), NOW).expect("a change")
        };
        let refused = written(Some(&refused(&["a.shop"])));
        assert!(says_refused(&observed(1, refused.clone())));
        // Another generation has not been refused by anybody yet.
        assert!(!says_refused(&observed(2, refused)));
        assert!(
            !says_refused(&observed(1, written(None))) && !says_refused(&observed(1, Value::Null))
        );
    }

    #[test]
    fn texts_and_lists_are_bounded() {
        let long = Diagnostic::error(Code::InvalidValue, FieldPath::root(), "x\n".repeat(10_000));
        let many: Vec<Diagnostic> = (0..100)
            .map(|i| {
                Diagnostic::warning(Code::NoEffect, FieldPath::root().field("spec").index(i), "no")
            })
            .collect();
        let verdict = judge(many.iter().chain([&long]).collect(), None);
        let status = change(&observed(1, Value::Null), &verdict, NOW).expect("a change");
        assert_eq!(status["validationMessages"].as_array().map(Vec::len), Some(MOST_MESSAGES));
        assert!(status.to_string().len() < 16 << 10);
        assert!(!status["conditions"][0]["message"].as_str().expect("text").contains('\n'));
    }
}
