//! Patches of what proxies are sent: whether anything of any proxy is another by them.
//!
//! Asked of the plans and messages of every kind of proxy that is known, in one of each.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ferromesh_proto::ResourceType;

use super::{clients::nodes, input::Input};
use crate::{
    class::classify,
    closure::{self, References, references},
    diagnostic::{Code, Diagnostic, FieldPath},
    emit,
    ir::{Field, ObjectId, Patch, PatchOperation, PatchSubject},
    patch::{self, Report, RoutePatches},
    plan::{Entry, Outline, ViewKey, item_patches, plan_item, plan_outline},
    snapshot::{Item, Reader},
};

pub(super) fn check(input: &Input<'_>, findings: &mut Vec<Diagnostic>) {
    let all: Vec<&Arc<Patch>> = patches(input).collect();
    if !all.iter().any(|patch| input.is_wanted(&patch.origin)) {
        return;
    }
    let Survey { report, lost, missing, .. } = survey(input, &all);
    for ((object, at), name) in missing.into_iter().filter(|((id, _), _)| input.is_wanted(id)) {
        let message = format!("the filter asks for the configuration `{name}`, which nobody adds");
        let fix = "add it by a patch of EXTENSION_CONFIG for the same proxies";
        let finding = Diagnostic::warning(Code::Translation, FieldPath::of(&at), message);
        findings.push(input.diagnose(&object, finding.fix(fix)));
    }
    for ((object, at), name) in lost.into_iter().filter(|((id, _), _)| input.is_wanted(id)) {
        let message = format!("listeners or routes lead to `{name}`, which this takes out");
        let fix = "change what leads there too, or make the cluster another by MERGE";
        let finding = Diagnostic::warning(Code::Translation, FieldPath::of(&at), message);
        findings.push(input.diagnose(&object, finding.fix(fix)));
    }
    for patch in all.into_iter().filter(|patch| input.is_wanted(&patch.origin)) {
        let refused = report.refused.iter().find(|refused| refused.patch == *patch);
        let at = FieldPath::of(&patch.at);
        let finding = match refused {
            Some(refused) => {
                let message = format!("left out somewhere, since {}", refused.reason);
                Diagnostic::error_ref(Code::Translation, at, message)
            }
            None if is_applied(&report, patch) => continue,
            // What proxies say of themselves is not known here.
            None if !patch.proxy.is_empty() => continue,
            // Who relies on a guard should know.
            None if patch.guards => Diagnostic::warning(Code::NoEffect, at, idle(patch)),
            None => Diagnostic::info(Code::NoEffect, at, idle(patch)),
        };
        findings.push(input.diagnose(&patch.origin, finding));
    }
}

fn patches<'a>(input: &'a Input<'_>) -> impl Iterator<Item = &'a Arc<Patch>> {
    let sets = input.items().iter().filter_map(|item| match item {
        Item::Patches(set) => Some(set),
        _ => None,
    });
    sets.flat_map(|set| &set.patches)
}

fn is_applied(report: &Report, patch: &Patch) -> bool {
    report.applied.contains(&(patch.origin.clone(), patch.at.clone()))
}

/// Why a patch changes nothing.
fn idle(patch: &Patch) -> &'static str {
    match (patch.operation, patch.subject.resource()) {
        (PatchOperation::Add, Some(_)) => {
            "adds nothing: every proxy that gets it has a resource of this name, or none gets it"
        }
        _ => "matches nothing of any proxy that is known",
    }
}

/// What patches do to the proxies that are known.
#[derive(Default)]
struct Survey {
    report: Report,
    /// Clusters that a patch takes out and something leads to, by the patch.
    lost: BTreeSet<((ObjectId, Field), String)>,
    /// Configurations that nobody adds and a filter of a patch asks for, by the patch.
    missing: BTreeSet<((ObjectId, Field), String)>,
    /// The configurations that views have and ask for.
    extensions: BTreeMap<Arc<ViewKey>, Extensions>,
}

/// The configurations that filters ask for by their names, in one view.
#[derive(Default)]
struct Extensions {
    there: BTreeSet<Arc<str>>,
    /// By the patch that holds the filter.
    asked: BTreeSet<((ObjectId, Field), String)>,
}

/// Looks at one proxy of each kind, until nothing new can be learnt.
fn survey(input: &Input<'_>, all: &[&Arc<Patch>]) -> Survey {
    let reader = Reader::new(&input.snapshot);
    let mut survey = Survey::default();
    for node in nodes(input) {
        let Ok(class) = classify(&input.snapshot, &node) else { continue };
        for key in &class.views {
            if !survey.extensions.contains_key(key) {
                let extensions = survey.look_at(&reader, &plan_outline(&reader, key));
                survey.extensions.insert(key.clone(), extensions);
            }
        }
        survey.look_for_extensions(&class.views);
        let settled = |patch: &&Arc<Patch>| {
            let local = matches!(patch.subject, PatchSubject::VirtualHost(_));
            let removes = patch.operation == PatchOperation::Remove;
            !local && !removes && !survey.asks(patch) && is_applied(&survey.report, patch)
        };
        if all.iter().all(settled) {
            break;
        }
    }
    survey
}

impl Survey {
    fn note(&mut self, patch: &Patch) {
        self.report.applied.insert((patch.origin.clone(), patch.at.clone()));
    }

    fn look_at(&mut self, reader: &Reader<'_>, outline: &Outline) -> Extensions {
        let patches = &outline.patches;
        if patches.is_empty() {
            return Extensions::default();
        }
        outline.effective.iter().for_each(|patch| self.note(patch));
        let mut referred = References::new();
        for entry in closure::referring().flat_map(|kind| outline.of(kind)) {
            match entry {
                Entry::Shared(key) => {
                    item_patches(reader, key).iter().for_each(|patch| self.note(patch));
                }
                Entry::Own(item) => {
                    let (body, report) = patch::encode(item, patches);
                    self.report.merge(report);
                    referred.extend(references(item.resource_type(), &body));
                }
            }
        }
        let removes = |patch: &Arc<Patch>| patch.operation == PatchOperation::Remove;
        let removing = outline.effective.iter().any(removes);
        for frame in &outline.routes {
            let own = RoutePatches::of(&frame.name, patches);
            if removing || !own.is_empty() {
                let hosts = frame.virtual_hosts.iter().filter_map(|key| plan_item(reader, key));
                let parts: Vec<_> = hosts.map(|host| emit::emit(&host)).collect();
                let (body, report) = own.apply(frame, &parts);
                self.report.merge(report);
                referred.extend(references(ResourceType::Route, &body));
            }
        }
        self.look_for(&referred, outline);
        Extensions::of(&referred, outline)
    }

    /// Whether a patch holds a filter that asks for its configuration.
    fn asks(&self, patch: &Patch) -> bool {
        let mut asked = self.extensions.values().flat_map(|view| &view.asked);
        asked.any(|((id, at), _)| (id, at) == (&patch.origin, &patch.at))
    }

    /// Notes what a proxy's filters ask for and none of its views has.
    fn look_for_extensions(&mut self, views: &[Arc<ViewKey>]) {
        let views: Vec<&Extensions> =
            views.iter().filter_map(|key| self.extensions.get(key)).collect();
        let is_there = |name: &str| views.iter().any(|view| view.there.contains(name));
        let asked = views.iter().flat_map(|view| &view.asked);
        let missing: Vec<_> = asked.filter(|(_, name)| !is_there(name)).cloned().collect();
        self.missing.extend(missing);
    }

    /// Notes the clusters that something leads to and a patch takes out.
    fn look_for(&mut self, referred: &References, outline: &Outline) {
        let clusters = outline.of(ResourceType::Cluster).iter().map(Entry::resource_name);
        let there: BTreeSet<Arc<str>> = clusters.collect();
        for (kind, name) in referred {
            if *kind != ResourceType::Cluster || there.contains(&**name) {
                continue;
            }
            let taker = outline.effective.iter().find(|patch| match &patch.subject {
                PatchSubject::Cluster(matches) => {
                    // The own clusters of a workload do not say of which service they are.
                    let own = name.starts_with("inbound|") && matches.name.is_empty();
                    let admits = own || matches.admits(name, std::iter::empty());
                    patch.operation == PatchOperation::Remove && admits
                }
                _ => false,
            });
            let taker = taker.map(|patch| (patch.origin.clone(), patch.at.clone()));
            self.lost.extend(taker.map(|taker| (taker, name.clone())));
        }
    }
}

impl Extensions {
    fn of(referred: &References, outline: &Outline) -> Self {
        let of_kind = |(kind, _): &&(ResourceType, String)| *kind == ResourceType::Extension;
        let mut asked = BTreeSet::new();
        for (_, name) in referred.iter().filter(of_kind) {
            let asks = |patch: &&Arc<Patch>| {
                let message = patch.message.as_ref();
                patch.subject.is_filter() && message.is_some_and(|message| *message.name == *name)
            };
            let askers = outline.patches.iter().filter(asks);
            let askers = askers.map(|patch| (patch.origin.clone(), patch.at.clone()));
            asked.extend(askers.map(|asker| (asker, name.clone())));
        }
        let there = outline.of(ResourceType::Extension).iter().map(Entry::resource_name);
        Self { there: there.collect(), asked }
    }
}
