//! What is declared of fields that no case of the matrix proves: the test that does (`others.yaml`),
//! or why none can (`reasons.yaml`). Both are checked: a test has the field in its input, and what
//! is said to decide nothing is proven by nobody.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use ferromesh_integration::{matrix::is_like, paths};
use ferromesh_xds_translator::yaml;
use serde::Deserialize;

/// Fields, each spelled whole or with `*` for anything.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Listed {
    /// The test's file, or why there is none.
    #[serde(alias = "test", alias = "why")]
    said: String,
    fields: Vec<String>,
}

/// What a file beside this one says of each declared field that one of its lists is about.
///
/// # Panics
/// The file has another form, or an entry is about no declared field.
fn of_fields(file: &str, declared: &BTreeSet<String>) -> BTreeMap<String, String> {
    let path = paths::project().join("integration/tests/proven_fields").join(file);
    let text = fs::read_to_string(path).expect("a file beside this one");
    let tree = yaml::parse(&text).expect("YAML").expect("lists");
    let lists: Vec<Listed> = serde_json::from_value(tree.to_json()).expect("lists of fields");
    let mut said = BTreeMap::new();
    for list in lists {
        for pattern in &list.fields {
            let meant = declared.iter().filter(|field| is_like(field, pattern));
            let before = said.len();
            said.extend(meant.map(|field| (field.clone(), list.said.clone())));
            assert!(said.len() > before, "{pattern}: no field that is acted on, or said twice");
        }
    }
    said
}

/// Tests beside the matrix, by the fields that they prove.
///
/// # Panics
/// A test that is named has a field not in its input.
pub(crate) fn other_proofs(
    declared: &BTreeSet<String>,
    cases: &BTreeMap<String, BTreeSet<String>>,
) -> BTreeMap<String, String> {
    let proofs = of_fields("others.yaml", declared);
    for (field, test) in &proofs {
        let has = cases.get(field).is_some_and(|all| all.iter().any(|case| case.starts_with(test)));
        assert!(has, "{test} has no {field} in its input");
    }
    proofs
}

/// Why a field decides no request, by the field.
pub(crate) fn reasons(declared: &BTreeSet<String>) -> BTreeMap<String, String> {
    of_fields("reasons.yaml", declared)
}
