//! The figures as a table for people and as JSON for programs.

use serde_json::{Map, Value, json};

use crate::{
    figures::{Event, Figures, medians, of},
    options::Options,
    scenario::Outcome,
};

/// The table: medians beside istiod's figures, and the ratio of both.
pub(crate) fn table(options: &Options, outcome: &Outcome) -> String {
    let Options { services, proxies, runs, .. } = options;
    let [clusters, assignments, listeners, routes] = outcome.resources;
    let mut text = format!(
        "{services} services, {proxies} clients with {clusters} clusters, {assignments} assignments, {listeners} listeners, \
         {routes} route configurations each; median of {runs}\n\n{:<34}{:<27}{:>12}{:>14}{:>9}\n",
        "event", "figure", "istiod 1.31", "ferromesh", "ratio"
    );
    for (event, runs) in &outcome.runs {
        let recorded = event.istiod(*services, *proxies);
        let mut title = event.title();
        for (figure, ours) in medians(runs) {
            let theirs = value(&recorded, figure);
            let shown = theirs.map_or_else(String::new, |value| figure.show(value).to_string());
            let ratio = theirs.map_or_else(String::new, |value| format!("{:.3}", ours / value));
            let row = format!(
                "{title:<34}{:<27}{shown:>12}{:>14}{ratio:>9}",
                figure.title(),
                figure.show(ours)
            );
            text.push_str(row.trim_end());
            text.push('\n');
            title = "";
        }
    }
    text
}

/// Setting, medians, every run, istiod's figures and ratios.
pub(crate) fn json(options: &Options, outcome: &Outcome) -> Value {
    let Options { services, proxies, runs, .. } = options;
    let events: Vec<Value> =
        outcome.runs.iter().map(|(event, runs)| of_event(*event, runs, options)).collect();
    let [clusters, assignments, listeners, routes] = outcome.resources;
    json!({
        "setting": {"services": services, "proxies": proxies, "runs": runs},
        "per_client": {"clusters": clusters, "assignments": assignments, "listeners": listeners, "routes": routes},
        "events": events,
    })
}

fn of_event(event: Event, runs: &[Figures], options: &Options) -> Value {
    let recorded = event.istiod(options.services, options.proxies);
    let figures: Map<String, Value> = medians(runs)
        .into_iter()
        .map(|(figure, median)| {
            let theirs = value(&recorded, figure);
            let ratio = theirs.map(|theirs| median / theirs);
            let all = of(runs, figure);
            (
                figure.key().to_owned(),
                json!({"ferromesh": median, "runs": all, "istiod": theirs, "ratio": ratio}),
            )
        })
        .collect();
    json!({"event": event.title(), "figures": figures})
}

fn value(figures: &Figures, wanted: crate::figures::Figure) -> Option<f64> {
    figures.iter().find(|(figure, _)| *figure == wanted).map(|(_, value)| *value)
}
