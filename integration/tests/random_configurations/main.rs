//! Random configurations with objects of every kind that is served, one after the other through the
//! real control plane to two real Envoys, a sidecar's and a gateway's: what is taken without an
//! error is refused by no proxy, and ends none.
#![cfg(feature = "e2e")]

mod site;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
};

use ferromesh_integration::{
    paths,
    random_mesh::{Dice, declared_fields, fields_of, kinds, objects},
};
use serde_json::Value;

use crate::site::Site;

/// Configurations with a fault after which the test ends.
const ENOUGH: usize = 5;

#[test]
fn envoys_take_every_configuration_that_is_taken() {
    let (count, seed) = paths::configuration_settings();
    println!("{count} configurations, FERROMESH_SEED={seed}");
    let mut site = Site::start(61);
    let mut tally = Tally::default();
    let mut faults = Vec::new();
    let mut before = String::new();
    for number in 0..count {
        let seed = seed.wrapping_add(number);
        let objects = objects(&mut Dice::new(seed));
        tally.count(&objects);
        let (text, arrived) = site.serve(number, &objects);
        let mut said = site.refusals();
        said.extend(arrived.err());
        said.extend(site.endings());
        if !said.is_empty() {
            // What dies may do so of the step from one to the other.
            let kept = keep(seed, &before, &text);
            faults.push(format!(
                "FERROMESH_SEED={seed} ({}):\n{}",
                kept.display(),
                said.join("\n")
            ));
            if faults.len() == ENOUGH {
                break;
            }
            // What one configuration left unfinished is no fault of the next.
            drop(site);
            site = Site::start(61);
        }
        before = text;
    }
    println!("{}", tally.text());
    assert!(faults.is_empty(), "{} at fault:\n{}", faults.len(), faults.join("\n\n"));
    tally.assert_complete(count);
}

/// What the configurations had in them.
#[derive(Default)]
struct Tally {
    /// Objects by kind.
    objects: BTreeMap<String, u64>,
    /// Configurations with objects of a kind.
    configurations: BTreeMap<String, u64>,
    fields: BTreeSet<String>,
}

impl Tally {
    fn count(&mut self, objects: &[Value]) {
        let kinds = objects.iter().filter_map(|object| object["kind"].as_str());
        for kind in kinds.clone() {
            *self.objects.entry(kind.to_owned()).or_default() += 1;
        }
        for kind in kinds.collect::<BTreeSet<_>>() {
            *self.configurations.entry(kind.to_owned()).or_default() += 1;
        }
        self.fields.extend(fields_of(objects));
    }

    fn text(&self) -> String {
        let declared = declared_fields();
        let covered = declared.intersection(&self.fields).count();
        let made: u64 = self.objects.values().sum();
        let all = declared.len();
        format!("{made} objects, {covered} of {all} fields set: {:?}", self.objects)
    }

    /// Every kind was in every configuration.
    fn assert_complete(&self, count: u64) {
        for kind in kinds() {
            let with = self.configurations.get(kind.kind_name()).copied().unwrap_or_default();
            assert!(with >= count, "{kind} was in {with} of {count} configurations");
        }
    }
}

/// Keeps a configuration that is at fault, and the one before it, in one folder.
fn keep(number: u64, before: &str, text: &str) -> PathBuf {
    let name = format!("ferromesh-configuration-{number}-");
    let folder = tempfile::Builder::new().prefix(&name).tempdir().expect("a folder").keep();
    for (file, text) in [("before.yaml", before), ("mesh.yaml", text)] {
        fs::write(folder.join(file), text).expect("a file");
    }
    folder
}

/// Objects as documents of one file.
fn text_of<'a>(objects: impl IntoIterator<Item = &'a Value>) -> String {
    objects.into_iter().map(|object| format!("{object}\n---\n")).collect()
}
