//! `ferromesh plan`: what a change would do to proxies and to requests, before it is made.

use std::{collections::BTreeSet, path::PathBuf, process::ExitCode};

use anyhow::{Context, bail};
use clap::Args;
use ferromesh_xds_translator::{
    analyze::{analyze_among, proxies_across},
    compiler::Change,
    diagnostic::Severity,
    dialect::{Kind, Parsed},
    forecast::{Effect, FieldChange, Forecast, ResourceChange, RouteChange, Step, forecast},
    ir::{MeshDefaults, ObjectId},
    snapshot::Credentials,
};
use serde_json::{Value, json};

use super::{
    changes, inputs,
    print::{print, print_error},
    remote::Remote,
    table::Form,
};
use crate::config::RemoteOptions;

/// How the command ends when requests are treated otherwise.
const TRAFFIC_CHANGES: u8 = 2;
/// Longer values are cut where people read them.
const SHOWN: usize = 100;

/// `ferromesh plan`.
#[derive(Args, Debug)]
#[group(skip)]
#[command(
    after_help = "Nothing is applied. The proxies are those of the known workloads, those that Gateways select, and a sidecar in
each namespace of which none is known; proxies with equal labels are named once.

Exits with 0 if no request is treated otherwise, with 2 if some is, with 1 on an error.

Examples:
  ferromesh plan -f canary.yaml
  ferromesh plan --current ./mesh -f canary.yaml
  ferromesh plan --current ./mesh --delete virtualservice/shop/reviews -o json"
)]
pub(crate) struct Plan {
    /// The configuration as it is, offline: files or folders of YAML or JSON; without it, what the
    /// control plane serves
    #[arg(long, value_name = "PATH")]
    current: Vec<PathBuf>,
    /// What is to be applied: files or folders of YAML or JSON; `-` is standard input
    #[arg(short, long = "file", value_name = "PATH", required_unless_present = "delete")]
    files: Vec<PathBuf>,
    /// What is to be deleted: KIND/NAMESPACE/NAME, or KIND/NAME for kinds without namespaces
    #[arg(long, value_name = "OBJECT")]
    delete: Vec<String>,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

/// Prints what the change would do.
///
/// # Errors
/// A file cannot be read, an object to delete is not there, an object of the change is refused, or
/// no control plane answers.
pub(crate) async fn run(command: &Plan, remote: &RemoteOptions) -> anyhow::Result<ExitCode> {
    let deleted: BTreeSet<ObjectId> =
        command.delete.iter().map(|text| named(text)).collect::<Result<_, _>>()?;
    let change = inputs::read_any(&command.files)?;
    change.diagnostics.iter().for_each(|finding| print_error(&finding.to_string()));
    if change.refused() > 0 {
        bail!("the change is not valid as it is");
    }
    let forecast = match command.current.as_slice() {
        [] => Remote::new(remote)?.plan(&change.objects, &deleted).await?,
        current => offline(current, change, &deleted)?,
    };
    match command.output {
        Form::Json => print(&serde_json::to_string_pretty(&json!({
            "changesTraffic": forecast.changes_traffic(), "effects": forecast.effects,
        }))?),
        Form::Text => print(text(&forecast).trim_end()),
    }
    Ok(match forecast.changes_traffic() {
        true => ExitCode::from(TRAFFIC_CHANGES),
        false => ExitCode::SUCCESS,
    })
}

/// Without a control plane: what is there is read of files.
fn offline(
    current: &[PathBuf],
    change: Parsed,
    deleted: &BTreeSet<ObjectId>,
) -> anyhow::Result<Forecast> {
    let (mesh, none) = (MeshDefaults::default(), Credentials::new());
    let current = inputs::read(current)?;
    let is_there = |id: &ObjectId| current.objects.iter().any(|object| object.id == *id);
    if let Some(missing) = deleted.iter().find(|id| !is_there(id)) {
        bail!("--delete: {missing} is not part of the current configuration");
    }
    let findings = analyze_among(&change.objects, &current.objects, &none, &mesh);
    findings.iter().for_each(|finding| print_error(&finding.to_string()));
    if findings.iter().any(|finding| finding.severity == Severity::Error) {
        bail!("the change is not valid as it is");
    }
    let known = proxies_across(&current.objects, &change.objects, deleted, &none, &mesh);
    let mut changes = changes::of(change);
    changes.extend(deleted.iter().cloned().map(Change::Delete));
    Ok(forecast(mesh, changes::of(current), changes, &known)?)
}

/// The object that `KIND/NAMESPACE/NAME` names.
fn named(text: &str) -> anyhow::Result<ObjectId> {
    let parts: Vec<&str> = text.split('/').collect();
    let kind = parts.first().copied().unwrap_or_default();
    let kind = Kind::named(kind).with_context(|| format!("--delete {text:?}"))?;
    match (kind.namespaced(), parts.as_slice()) {
        (true, [_, namespace, name]) => {
            Ok(ObjectId { kind, namespace: (*namespace).into(), name: (*name).into() })
        }
        (false, [_, name]) => Ok(ObjectId { kind, namespace: "".into(), name: (*name).into() }),
        (true, _) => bail!("--delete {text:?}: expected KIND/NAMESPACE/NAME"),
        (false, _) => bail!("--delete {text:?}: expected KIND/NAME"),
    }
}

fn text(forecast: &Forecast) -> String {
    let mut lines = Vec::new();
    for effect in &forecast.effects {
        tell_effect(effect, &mut lines);
    }
    lines.push(match (forecast.effects.is_empty(), forecast.changes_traffic()) {
        (true, _) => "No proxy gets anything else.".to_owned(),
        (false, false) => "Requests are treated as before.".to_owned(),
        (false, true) => "Requests are treated otherwise than before.".to_owned(),
    });
    lines.join("\n")
}

fn tell_effect(effect: &Effect, lines: &mut Vec<String>) {
    let proxies: Vec<&str> = effect.proxies.iter().map(String::as_str).collect();
    lines.push(format!("{}:", proxies.join(", ")));
    effect.resources.iter().for_each(|resource| tell_resource(resource, lines));
    lines.push(String::new());
}

fn tell_resource(resource: &ResourceChange, lines: &mut Vec<String>) {
    let (sign, fields): (_, &[FieldChange]) = match &resource.step {
        Step::Added => ('+', &[]),
        Step::Removed => ('-', &[]),
        Step::Changed { fields } => ('~', fields),
    };
    lines.push(format!("  {sign} {} {}", resource.kind, resource.name));
    resource.routes.iter().for_each(|route| tell_route(route, lines));
    // What routes say is said in their words already.
    let told =
        |field: &&FieldChange| resource.routes.is_empty() || !field.path.contains(".routes[");
    for FieldChange { path, before, after } in fields.iter().filter(told) {
        lines.push(format!("      {path}: {} → {}", short(before.as_ref()), short(after.as_ref())));
    }
}

fn tell_route(route: &RouteChange, lines: &mut Vec<String>) {
    lines.push(format!("      {}: {}: {}", route.host, route.requests, route.change));
    for share in &route.shares {
        lines.push(format!(
            "        {}: {} % → {} %",
            share.to,
            whole(share.before),
            whole(share.after)
        ));
    }
}

/// A percentage without what nobody needs to read.
fn whole(share: f64) -> f64 {
    (share * 100.0).round() / 100.0
}

fn short(value: Option<&Value>) -> String {
    let Some(value) = value else { return "nothing".to_owned() };
    let text = value.to_string();
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_to_delete_is_named_by_kind_namespace_and_name() {
        let id = named("vs/shop/reviews").expect("an object");
        assert_eq!(
            (id.kind, &*id.namespace, &*id.name),
            (Kind::VIRTUAL_SERVICE, "shop", "reviews")
        );
        for (text, word) in [
            ("vs/reviews", "expected KIND/NAMESPACE/NAME"),
            ("namespace/a/b", "expected KIND/NAME"),
            ("virtalservice/shop/reviews", "virtalservice"),
        ] {
            let error = format!("{:#}", named(text).expect_err("refused"));
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
