//! Which case of the traffic matrix proves a field.

use std::collections::{BTreeMap, BTreeSet};

use ferromesh_integration::{
    matrix::{Case, cases},
    random_mesh::fields_of,
};

/// Cases that are named for a field.
const NAMED: usize = 2;

/// The cases by the fields that they prove. A field is proven by what proves one within it, for it
/// has no meaning but theirs.
pub(crate) struct Proven {
    by_field: BTreeMap<String, Vec<Case>>,
    /// What other tests prove: the test by the field.
    others: BTreeMap<String, String>,
}

impl Proven {
    /// Those of the matrix.
    ///
    /// # Panics
    /// A case is to prove what is no field, or is not acted on.
    pub(crate) fn of_matrix(declared: &BTreeSet<String>, others: BTreeMap<String, String>) -> Self {
        let mut by_field: BTreeMap<String, Vec<Case>> = BTreeMap::new();
        for case in cases() {
            let mut proven = BTreeSet::new();
            for proof in &case.proofs {
                let field = &proof.field;
                assert!(declared.contains(field), "{}: {field} is not acted on", case.name);
                let ends = field.match_indices('.').map(|(at, _)| &field[..at]).skip(1);
                proven.extend(ends.chain([&**field]).map(str::to_owned));
            }
            for field in proven {
                by_field.entry(field).or_default().push(case.clone());
            }
        }
        Self { by_field, others }
    }

    /// Whether a case, or another test, proves a field.
    pub(crate) fn is_proven(&self, field: &str) -> bool {
        self.by_field.contains_key(field) || self.others.contains_key(field)
    }

    /// Some cases that prove a field, and which proxy does not carry any.
    pub(crate) fn named(&self, field: &str) -> String {
        let Some(cases) = self.by_field.get(field) else {
            return self.others.get(field).map(|test| format!("`{test}`")).unwrap_or_default();
        };
        let shown: Vec<String> = cases.iter().take(NAMED).map(|case| case.name.clone()).collect();
        let others = if cases.len() > NAMED { " and others" } else { "" };
        let envoy =
            if cases.iter().all(|case| case.not_ours.is_some()) { " (Envoy alone)" } else { "" };
        format!("{}{others}{envoy}", shown.join("; "))
    }
}

/// The fields in the objects of every case, by the case.
pub(crate) fn inputs() -> Vec<(String, BTreeSet<String>)> {
    let of = |(number, case): (usize, Case)| {
        let whole = case.copies(number).swap_remove(0);
        (format!("matrix: {}", case.name), fields_of(&whole.objects))
    };
    cases().into_iter().enumerate().map(of).collect()
}
