//! Situations that users reported (`integration/corpus/reported`): each gives its right value through
//! Envoys, and through our proxies.
#![cfg(feature = "e2e")]
#![allow(clippy::print_stdout, reason = "which situation is right is read")]

mod application;
mod cases;
mod mesh;

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
};

use ferromesh_integration::paths;
use ferromesh_xds_translator::{
    analyze::analyze_input, diagnostic::Severity, dialect::parse_files, ir::MeshDefaults,
};

use crate::mesh::{Mesh, Proxy};

/// A case, and what shows its right value.
type Case = (&'static str, fn(&Mesh));

const CASES: [Case; 11] = [
    ("01", cases::a_long_url_stays_in_the_mesh),
    ("02", cases::a_server_outside_is_told_and_proves_its_name),
    ("03", cases::who_has_no_cookie_gets_one_and_comes_back_with_it),
    ("04", cases::two_entries_of_one_host_are_one_service),
    ("05", cases::a_websocket_crosses_http2),
    ("07", cases::the_application_learns_the_clients_certificate),
    ("10", cases::a_rule_continues_elsewhere),
    ("11", cases::a_balancer_is_believed),
    ("12", cases::a_sidecar_of_the_root_means_each_namespace),
    ("13", cases::an_alias_without_ports_is_what_it_names),
    ("14", cases::an_entry_of_a_workload_is_its_own_service),
];

/// Cases that are about no proxy.
const FINDINGS: [&str; 1] = ["08"];

/// Cases that our proxy does not serve: it does not upgrade over HTTP/2 (RFC 8441).
const NOT_OURS: &[&str] = &["05"];

fn check(third: u8, proxy: Proxy) {
    let mesh = Mesh::start(third, proxy);
    let mut wrong = Vec::new();
    for (number, case) in CASES {
        if proxy == Proxy::Ours && NOT_OURS.contains(&number) {
            continue;
        }
        match catch_unwind(AssertUnwindSafe(|| case(&mesh))) {
            Ok(()) => println!("{number} through {proxy:?} → passed"),
            Err(_) => wrong.push(number),
        }
    }
    assert!(wrong.is_empty(), "not right through {proxy:?}: {wrong:?}");
}

#[test]
fn reported_situations_are_right_through_envoys() {
    check(65, Proxy::Envoy);
}

#[test]
fn reported_situations_are_right_through_our_proxies() {
    check(66, Proxy::Ours);
}

#[test]
fn every_reported_situation_is_checked() {
    let folder = paths::project().join("integration/corpus/reported");
    let mut there: Vec<String> = fs::read_dir(folder)
        .expect("the corpus")
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy()[..2].to_owned())
        .collect();
    there.sort();
    let mut checked: Vec<&str> = CASES.iter().map(|(number, _)| *number).chain(FINDINGS).collect();
    checked.sort_unstable();
    assert_eq!(there, checked);
}

/// What was reported to be found by nobody (`08`). A path's prefix without text is taken: every path
/// begins with it.
#[test]
fn what_was_silent_is_found() {
    let text = cases::input("08");
    let parsed = parse_files([("08.yaml", text.as_bytes())]);
    let found = analyze_input(&parsed, &MeshDefaults::default());
    let listed: String = found.iter().map(|finding| format!("  {finding}\n")).collect();
    for (object, field, least) in [
        ("ServiceEntry shop/pg2", "spec", Severity::Warning),
        ("DestinationRule shop/api", "spec.trafficPolicy.tls", Severity::Warning),
        ("VirtualService shop/api", "spec.http[0]", Severity::Warning),
        ("VirtualService shop/cart2", "spec.http[1].match[0].headers", Severity::Error),
        ("Gateway ingress/g", "spec.servers[0].tls.credentialName", Severity::Error),
        ("VirtualService shop/t", "spec.tcp[0]", Severity::Error),
        ("VirtualService shop/u", "spec.tls[0].route", Severity::Error),
    ] {
        let mut of = found.iter().filter(|finding| {
            finding.object.as_ref().is_some_and(|o| o.to_string() == object)
                && finding.field.to_string().starts_with(field)
        });
        let is_grave = |severity: Severity| match least {
            Severity::Error => severity == Severity::Error,
            _ => severity != Severity::Info,
        };
        assert!(of.any(|finding| is_grave(finding.severity)), "{object} {field}:\n{listed}");
    }
}
