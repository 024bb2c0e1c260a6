//! Every row of `integration/corpus/seeds/EXPECT.md` about a kind of Istio's: what it says of
//! traffic, by requests through real Envoys that run what the translator makes of the example, and
//! what it says of findings, by the words of the row. Examples with mistakes are first fixed as
//! `ferromesh analyze --fix` does.
#![cfg(feature = "e2e")]

mod application;
mod client;
mod edge;
mod ejection;
mod limits;
mod resilience;
mod routing;
mod rows;
mod security;
mod site;
mod telemetry;

use std::{collections::BTreeMap, pin::Pin};

use futures_util::{StreamExt, stream};

use crate::rows::rows;

/// What shows a part of some rows by requests; it panics where they are not what the rows say.
type Case =
    (&'static str, &'static [&'static str], fn() -> Pin<Box<dyn Future<Output = ()> + Send>>);

macro_rules! cases {
    ($($module:ident::$name:ident [$($row:literal)+]),+ $(,)?) => {
        &[$( (stringify!($name), &[$($row),+], || Box::pin($module::$name())) ),+]
    };
}

/// Those that wait long come first.
const CASES: &[Case] = cases![
    resilience::who_waits_for_an_answer_is_told_in_time ["s1-02#1"],
    ejection::five_gateway_errors_eject_for_half_a_minute ["s0-07#1"],
    ejection::five_errors_eject_for_half_a_minute ["s0-07#1"],
    ejection::both_subsets_eject ["s1-02#2"],
    ejection::a_default_counts_to_five ["s2-02#1"],
    ejection::half_of_the_endpoints_may_go ["s4-02#1"],
    ejection::all_of_the_endpoints_may_go ["s4-07#1"],
    resilience::what_may_be_tried_again_is_tried_four_times ["s0-09#1"],
    resilience::only_the_last_rule_tries_again ["s4-01#1"],
    resilience::who_refuses_connections_is_tried_again ["s1-02#1"],
    resilience::a_connection_is_not_waited_for_longer_than_the_rule_says ["s4-02#1"],
    routing::faults_meet_whom_they_are_for ["s4-08#1"],
    routing::a_mirror_gets_a_copy_of_everything_and_answers_nobody ["s4-04#1"],
    routing::a_header_leads_to_a_version ["s0-03#1" "s0-03#2"],
    routing::a_canary_gets_its_share_and_whoever_asks_for_it ["s0-11#1" "s0-11#2"],
    routing::the_first_rule_that_matches_wins ["s1-02#1" "s1-02#2"],
    routing::without_its_subsets_a_route_leads_nowhere ["s2-01#1"],
    routing::headers_come_before_paths ["s4-01#1" "s4-02#1"],
    limits::what_is_over_the_limits_of_a_fixed_rule_is_refused ["s0-07#1"],
    limits::few_may_wait_for_a_connection ["s2-02#1"],
    limits::many_may_wait_for_few_connections ["s4-07#1"],
    limits::subsets_have_limits_of_their_own ["s1-02#2"],
    limits::a_thousand_requests_are_served_at_once ["s4-02#1"],
    limits::endpoints_take_turns_or_who_is_fast_gets_more ["s4-02#1"],
    edge::a_gateway_without_routes_answers_that_there_are_none ["s0-03#1" "s0-03#3"],
    edge::a_gateway_serves_by_certificate_and_sends_there ["s4-03#1" "s4-01#1"],
    security::a_mesh_that_is_strict_refuses_plaintext ["s0-04#1" "s1-03#1" "s2-03#1" "s4-05#3"],
    security::readers_are_who_may_read ["s0-04#2"],
    security::the_oldest_of_equal_policies_is_in_force ["s0-06#1" "s0-06#2"],
    security::without_mutual_tls_plaintext_is_served_and_sent ["s0-06#3"],
    security::a_web_service_may_call_an_api ["s1-03#2"],
    security::tokens_are_checked_before_anybody_is_let_in ["s1-03#3"],
    security::a_frontend_may_call_a_backend ["s2-04#1"],
    security::a_namespace_may_be_strict ["s2-10#1"],
    security::nobody_may_call_where_all_is_denied ["s2-10#2"],
    security::a_workload_beats_its_namespace ["s4-05#1" "s4-05#2"],
    security::two_accounts_may_call_and_everybody_asks_for_health ["s4-06#1"],
    telemetry::a_telemetry_that_is_refused_hides_no_other ["s1-04#1" "s1-04#2"],
    telemetry::a_label_is_there_where_it_is_asked_for ["s1-04#1"],
    telemetry::of_two_the_older_is_in_force ["s1-04#1" "s1-04#2"],
];

/// Rows that do not hold yet, and why. One that holds must go; none may come.
const NOT_YET: &[(&str, &str)] = &[];

/// Cases at a time: most wait more than they compute.
const AT_ONCE: usize = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 16)]
async fn every_row_about_istio_holds() {
    let rows = rows();
    let mut failed: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut proven: BTreeMap<&str, usize> = BTreeMap::new();
    let running = CASES
        .iter()
        .map(|one @ (_, _, case)| async move { (one, tokio::spawn(case()).await.is_ok()) });
    let outcomes: Vec<_> = stream::iter(running).buffer_unordered(AT_ONCE).collect().await;
    for ((name, of, case), passed) in outcomes {
        // Many rows are about seconds, which others take from it on a busy machine: it is asked
        // once more, alone, where nothing but itself can fail it.
        let passed = passed || tokio::spawn(case()).await.is_ok();
        for row in *of {
            *proven.entry(row).or_default() += 1;
            if !passed {
                failed.entry(row).or_default().push(name);
            }
        }
    }
    let mut faults = Vec::new();
    for row in &rows {
        let name = row.name.as_str();
        let mut wrong: Vec<String> =
            failed.get(name).into_iter().flatten().map(|case| format!("traffic: {case}")).collect();
        wrong.extend(row.check_findings().err());
        if !proven.contains_key(name) {
            wrong.push("no request shows it".to_owned());
        }
        let not_yet = NOT_YET.iter().find(|(row, _)| *row == name);
        match (wrong.is_empty(), not_yet) {
            (true, None) => println!("{name} → passed ({} by requests, findings)", proven[name]),
            (false, Some((_, why))) => println!("{name} → not yet: {why}"),
            (holds, _) => {
                if holds {
                    wrong.push("it holds, and is listed as not yet".to_owned());
                }
                println!("{name} → failed: {}", wrong.join("; "));
                faults.push(name);
            }
        }
    }
    let unknown = proven.keys().filter(|name| !rows.iter().any(|row| row.name == **name));
    assert_eq!(
        unknown.collect::<Vec<_>>(),
        Vec::<&&str>::new(),
        "cases of rows that are not there"
    );
    assert!(faults.is_empty(), "rows that do not hold: {faults:?}");
}
