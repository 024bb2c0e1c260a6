//! The table of the reference examples: each row of what is expected has a row of tests, and the
//! tests are there.

use std::{collections::BTreeSet, fs};

use ferromesh_integration::paths;

#[test]
fn every_row_of_the_examples_names_tests_that_are_there() {
    let folder = paths::project().join("integration/corpus/seeds");
    let rows = |file: &str| -> Vec<(String, String)> {
        let text = fs::read_to_string(folder.join(file)).expect("a table");
        let rows = text.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
        rows.map(|(row, rest)| (row.to_owned(), rest.to_owned())).collect()
    };
    let names = |rows: &[(String, String)]| -> BTreeSet<String> {
        rows.iter().map(|(row, _)| row.clone()).collect()
    };
    let tests = rows("TESTS.md");
    assert_eq!(names(&tests), names(&rows("EXPECT.md")));
    for (row, named) in &tests {
        for test in named.split('`').skip(1).step_by(2) {
            let (file, function) = test.split_once("::").unwrap_or((test, ""));
            let source = fs::read_to_string(paths::project().join(file));
            let source = source.unwrap_or_else(|e| panic!("{row}: {file}: {e}"));
            assert!(source.contains(&format!("fn {function}")), "{row}: no {function} in {file}");
        }
    }
}
