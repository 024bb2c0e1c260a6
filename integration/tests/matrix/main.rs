//! The traffic matrix: what fields of Istio's kinds do, shown by requests through sidecars and a
//! gateway in network namespaces, with Envoy and with our proxy, and with one calling the other.
//! `ferromesh_integration::matrix` says what a case is, and `docs/fields.md` which field has one.
#![cfg(feature = "e2e")]
#![allow(
    clippy::print_stdout,
    reason = "how many cases there are, and how long they take, is read"
)]

mod application;
mod client;
mod credentials;
mod frames;
mod judge;
mod mesh;
mod peers;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use ferromesh_integration::{
    matrix::{Case, CaseCopy, Company, cases},
    paths,
};
use futures_util::{StreamExt, stream};

use crate::{
    judge::differences,
    mesh::{Mesh, Proxies},
};

/// Copies that are asked at once: most of them wait for times of their own.
const AT_ONCE: usize = 16;
/// Faults of which each may be chance.
const MOST_AGAIN: usize = 30;
/// Longest wait until a copy that is served alone is in force.
const ARRIVAL: Duration = Duration::from_secs(10);

/// Of the cases that are served alone, which take a third of a second for each copy, the test command
/// takes one of so many, always the same; `integration/soak.sh matrix` takes all.
const ALONE_OF: usize = 4;

/// Every case, by its number in the mesh.
type Chosen = Vec<(usize, Case)>;

fn chosen(proxies: Proxies) -> Chosen {
    let ours = [proxies.callers, proxies.callees].contains(&"run");
    let mixed = proxies.callers != proxies.callees;
    let wanted = paths::chosen_cases();
    let of = |(_, case): &(usize, Case)| {
        let named = |text: &str| {
            case.name.contains(text) || case.proofs.iter().any(|proof| proof.field.contains(text))
        };
        let wanted = match &wanted {
            Some(texts) => texts.split('|').any(named),
            None if case.only_in_soak.is_some() => false,
            None => case.company == Company::Others || of_the_test_command(&case.name),
        };
        wanted && (case.not_ours.is_none() || !ours) && (!mixed || case.site.is_two_sided())
    };
    cases().into_iter().enumerate().filter(of).collect()
}

/// Whether a case that is served alone is one of those of the test command.
fn of_the_test_command(name: &str) -> bool {
    let sum: usize = name.bytes().map(usize::from).sum();
    sum.is_multiple_of(ALONE_OF)
}

async fn check(third: u8, proxies: Proxies) {
    let begin = Instant::now();
    let chosen = chosen(proxies);
    let copies: Vec<(Company, CaseCopy)> = chosen
        .iter()
        .flat_map(|(number, case)| {
            case.copies(*number).into_iter().map(|copy| (case.company, copy))
        })
        .collect();
    let of = |company: Company| -> Vec<&CaseCopy> {
        copies.iter().filter(|(own, _)| *own == company).map(|(_, copy)| copy).collect()
    };
    let (together, alone) = (of(Company::Others), of(Company::Alone));
    let mesh = tokio::task::block_in_place(|| Mesh::start(third, proxies, &together));
    let started = begin.elapsed();
    let mut faults = faults_together(&mesh, &together).await;
    let asked = begin.elapsed();
    faults.extend(faults_alone(&mesh, &alone).await);
    println!(
        "{} cases in {} copies through {proxies:?}: {:.1} s to start, {:.1} s together, {:.1} s \
         alone",
        chosen.len(),
        copies.len(),
        started.as_secs_f64(),
        (asked - started).as_secs_f64(),
        (begin.elapsed() - asked).as_secs_f64(),
    );
    let copies: Vec<&CaseCopy> = copies.iter().map(|(_, copy)| copy).collect();
    let told: Vec<String> = chosen.iter().flat_map(|one| told(one, &copies, &faults)).collect();
    tokio::task::block_in_place(|| drop(mesh));
    assert!(told.is_empty(), "{} at fault through {proxies:?}:\n{}", told.len(), told.join("\n"));
}

/// Faults by the copy's name.
type Faults = BTreeMap<String, String>;

async fn faults_together(mesh: &Mesh, copies: &[&CaseCopy]) -> Faults {
    let one =
        move |copy: CaseCopy| async move { Some((copy.id.clone(), fault(mesh, &copy, 0).await?)) };
    let copies_of_their_own = copies.iter().copied().cloned();
    let all = stream::iter(copies_of_their_own).map(one).buffer_unordered(AT_ONCE);
    let mut faults: Faults = all.filter_map(std::future::ready).collect().await;
    // Machines are busy, and shares are of chance: what is at fault is asked once more, alone.
    let again: Vec<&&CaseCopy> = match faults.len() > MOST_AGAIN {
        true => Vec::new(),
        false => copies.iter().filter(|copy| faults.contains_key(&copy.id)).collect(),
    };
    for copy in again {
        if fault(mesh, copy, 1).await.is_none() {
            faults.remove(&copy.id);
        }
    }
    faults.extend(refusals(mesh, copies));
    faults
}

/// Serves one copy after the other, whole ones and others in turn, so that each is another than
/// what was in force before it; what does not come to be so in time.
async fn faults_alone(mesh: &Mesh, copies: &[&CaseCopy]) -> Faults {
    let mut faults = Faults::new();
    for copy in copies {
        mesh.write(&[copy]);
        let begin = Instant::now();
        let mut attempt = 0;
        let mut last = fault(mesh, copy, attempt).await;
        while last.is_some() && begin.elapsed() < ARRIVAL {
            attempt += 1;
            last = fault(mesh, copy, attempt).await;
        }
        faults.extend(last.map(|fault| (copy.id.clone(), fault)));
        faults.extend(refusals(mesh, &[copy]));
    }
    faults
}

/// What is wrong with a copy: a whole one is not as expected, another one is. `attempt`: how often
/// it was asked before.
async fn fault(mesh: &Mesh, copy: &CaseCopy, attempt: usize) -> Option<String> {
    let differences = differences(mesh, copy, attempt).await;
    match &copy.without {
        None => (!differences.is_empty()).then(|| differences.join("\n    ")),
        Some(field) => {
            differences.is_empty().then(|| format!("proves nothing: it holds without {field}"))
        }
    }
}

/// Copies with objects that are at fault. Without a field they may name what is not there (`FM02`),
/// but nothing may be refused: that would show no more than that the field is needed.
fn refusals(mesh: &Mesh, copies: &[&CaseCopy]) -> Faults {
    let refusal = |[name, code, said]: [String; 3]| {
        // The settings of the mesh are those of the one copy that is served alone.
        let of = |copy: &&&CaseCopy| {
            let of_mesh = name == "default" && copies.len() == 1;
            of_mesh || copy.id == name || name.starts_with(&format!("{}-", copy.id))
        };
        let copy = copies.iter().find(of)?;
        let counts = copy.without.is_none() || !code.starts_with("FM02");
        counts.then(|| (copy.id.clone(), format!("is at fault: {code} {said}")))
    };
    mesh.errors().into_iter().filter_map(refusal).collect()
}

fn told((number, case): &(usize, Case), copies: &[&CaseCopy], faults: &Faults) -> Vec<String> {
    let prefix = format!("c{number}x");
    let own = copies.iter().filter(|copy| copy.id.starts_with(&prefix));
    own.filter_map(|copy| {
        let fault = faults.get(&copy.id)?;
        let of = copy.without.as_ref().map(|field| format!(" without {field}"));
        Some(format!("* {}{} ({}): {fault}", case.name, of.unwrap_or_default(), copy.id))
    })
    .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fields_do_what_they_say_through_envoys() {
    check(71, Proxies { callers: "envoy", callees: "envoy" }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fields_do_what_they_say_through_our_proxies() {
    check(72, Proxies { callers: "run", callees: "run" }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fields_do_what_they_say_from_envoy_to_our_proxy() {
    check(73, Proxies { callers: "envoy", callees: "run" }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fields_do_what_they_say_from_our_proxy_to_envoy() {
    check(74, Proxies { callers: "run", callees: "envoy" }).await;
}
