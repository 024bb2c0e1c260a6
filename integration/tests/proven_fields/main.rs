//! The page `docs/fields.md`: of every field that is acted on, which test cases have it in their input. The
//! page is made from the declarations of the kinds and from the tests' own texts; `UPDATE_GOLDEN=1`
//! writes it anew. Fields that no test names are listed, and that list only shrinks.

mod inputs;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
};

use ferromesh_integration::{
    paths,
    random_mesh::{Dice, declared_fields, fields_of, objects},
};

/// Cases that are named for a field.
const NAMED: usize = 3;
/// Heading of the list that only shrinks.
const UNNAMED: &str = "## Fields that no test names";

#[test]
fn the_page_of_fields_is_current_and_what_no_test_names_only_shrinks() {
    let declared = declared_fields();
    let cases = inputs::cases();
    let random = served_at_random();
    let page = page(&declared, &cases, &random);
    let path = paths::project().join("docs/fields.md");
    let committed = fs::read_to_string(&path).unwrap_or_default();
    let grown: Vec<String> = match committed.is_empty() {
        true => Vec::new(),
        false => unnamed(&page).difference(&unnamed(&committed)).cloned().collect(),
    };
    assert!(grown.is_empty(), "no test names these fields any more, or yet: {grown:#?}");
    if paths::updates_goldens() {
        fs::write(&path, &page).expect("the page can be written");
        return;
    }
    assert!(page == committed, "docs/fields.md is not current; UPDATE_GOLDEN=1 writes it anew");
}

/// The fields of the configurations that the short run of `random_configurations` serves.
fn served_at_random() -> BTreeSet<String> {
    let (count, seed) = paths::CONFIGURATIONS;
    (0..count).flat_map(|number| fields_of(&objects(&mut Dice::new(seed + number)))).collect()
}

/// The fields of the list that only shrinks.
fn unnamed(page: &str) -> BTreeSet<String> {
    let list = page.split_once(UNNAMED).map(|(_, list)| list).unwrap_or_default();
    let fields = list.lines().filter_map(|line| line.strip_prefix("* `")?.split_once('`'));
    fields.map(|(field, _)| field.to_owned()).collect()
}

fn page(
    declared: &BTreeSet<String>,
    cases: &BTreeMap<String, BTreeSet<String>>,
    random: &BTreeSet<String>,
) -> String {
    let mut page = String::from(
        "# Fields, and the tests that have them in their input\n\n\
         Made by `integration/tests/proven_fields` from the declarations of the kinds and the texts of \
         the tests; `UPDATE_GOLDEN=1` writes it anew. A test that has a field in its input compares what \
         comes of all of it: bytes (goldens), findings, or what became of requests; which of these, its \
         name says. Fields that are accepted and not acted on are not listed. \"Envoy\": a real Envoy \
         takes what comes of it in the short run of `random_configurations`.\n",
    );
    let mut kind = "";
    for field in declared {
        let (of, path) = field.split_once('.').unwrap_or((field, ""));
        if of != kind {
            kind = of;
            let _ = write!(page, "\n## {kind}\n\n| field | tests | Envoy |\n|---|---|---|\n");
        }
        let tests = cases.get(field).map(named).unwrap_or_default();
        let taken = if random.contains(field) { "yes" } else { "" };
        let _ = writeln!(page, "| `{path}` | {tests} | {taken} |");
    }
    let lacking: Vec<&String> =
        declared.iter().filter(|field| !cases.contains_key(*field)).collect();
    let _ = write!(
        page,
        "\n{UNNAMED}\n\n{} of {}. An entry goes when a test has it in its input; none may come.\n\n",
        lacking.len(),
        declared.len()
    );
    for field in lacking {
        let _ = writeln!(page, "* `{field}`");
    }
    page
}

/// Some of the cases by name, shortest first, since these say most of one field.
fn named(cases: &BTreeSet<String>) -> String {
    let mut sorted: Vec<&String> = cases.iter().collect();
    sorted.sort_by_key(|case| (case.len(), (*case).clone()));
    let shown: Vec<String> = sorted.iter().take(NAMED).map(|case| format!("`{case}`")).collect();
    // How many more there are would change with every test.
    let others = if cases.len() > NAMED { " and others" } else { "" };
    shown.join(", ") + others
}
