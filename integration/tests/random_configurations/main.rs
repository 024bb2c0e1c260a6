//! Random configurations with objects of every kind that is served, one after the other through the
//! real control plane to two real Envoys, a sidecar's and a gateway's: what is taken without an
//! error is refused by no proxy.
#![cfg(feature = "e2e")]

mod site;

use std::{collections::BTreeSet, fs, path::PathBuf};

use ferromesh_integration::{
    paths,
    random_mesh::{Dice, declared_fields, fields_of, objects},
};
use serde_json::Value;

use crate::site::Site;

/// Configurations with refusals after which the test ends.
const ENOUGH: usize = 5;

#[test]
fn envoys_take_every_configuration_that_is_taken() {
    let (count, seed) = paths::configuration_settings();
    println!("{count} configurations, FERROMESH_SEED={seed}");
    let site = Site::start(61);
    let mut set = BTreeSet::new();
    let mut refused = Vec::new();
    let mut made = 0;
    for number in 0..count {
        let number_of = seed.wrapping_add(number);
        let objects = objects(&mut Dice::new(number_of));
        made += objects.len();
        set.extend(fields_of(&objects));
        let file = site.serve(number, &objects);
        let said = site.refusals();
        if !said.is_empty() {
            site.forget();
            let kept = keep(number_of, &file);
            refused.push(format!(
                "FERROMESH_SEED={number_of} ({}):\n{}",
                kept.display(),
                said.join("\n")
            ));
            if refused.len() == ENOUGH {
                break;
            }
        }
    }
    let declared = declared_fields();
    let covered = declared.intersection(&set).count();
    println!("{made} objects, {covered} of {} fields set", declared.len());
    assert!(refused.is_empty(), "{} refused:\n{}", refused.len(), refused.join("\n\n"));
}

/// Keeps a configuration that was refused.
fn keep(number: u64, text: &str) -> PathBuf {
    let name = format!("ferromesh-configuration-{number}-");
    let file = tempfile::Builder::new().prefix(&name).suffix(".yaml").tempfile().expect("a file");
    let (_, path) = file.keep().expect("it stays");
    fs::write(&path, text).expect("a file");
    path
}

/// Objects as documents of one file.
fn text_of<'a>(objects: impl IntoIterator<Item = &'a Value>) -> String {
    objects.into_iter().map(|object| format!("{object}\n---\n")).collect()
}
