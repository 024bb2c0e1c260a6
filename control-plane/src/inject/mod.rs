//! Injection: what a pod needs to be part of the mesh is written into it before it exists.
//!
//! Pure: a pod as JSON and [`InjectionSettings`] go in, a pod or the reason why it is left alone
//! comes out; the webhook ([`crate::webhook`]) and `ferromesh inject` call the same function. Knows
//! no API server, file or clock.
//!
//! Every step brings the pod to a state and never counts on the one before: what is there already
//! is kept, so that a pod that comes by twice, or comes back with containers that other webhooks
//! have added, is not injected twice.
//!
//! The proxy is a native sidecar: an init container that always restarts, after the one that
//! redirects traffic and before all others, which find the network as the application will. The
//! application starts once the proxy is ready, Jobs end, and at the end of the pod the proxy
//! outlives the application.

mod annotations;
mod decide;
mod fragment;
mod names;
mod overlay;
mod own_words;
pub mod patch;
mod pod;
mod probes;
mod scrape;
pub mod selector;
pub mod settings;
mod statistics;
mod template;
#[cfg(test)]
mod tests;
mod values;
pub mod workload;

use ferromesh_xds_translator::{
    diagnostic::Diagnostic,
    dialect::{Kind, decode::Decoder},
    ir::{Labels, ObjectId},
    snapshot::MeshSnapshot,
};
use serde_json::Value;

pub use decide::Reason;
pub(crate) use decide::is_system;
pub use settings::InjectionSettings;

use annotations::{Chosen, PodOverrides, Template};

/// Where a pod is to run.
#[derive(Clone, Copy, Default, Debug)]
pub struct Surroundings<'a> {
    /// Its namespace; empty: what the pod itself says.
    pub namespace: &'a str,
    /// Labels of the namespace, as far as they are known.
    pub namespace_labels: Option<&'a Labels>,
    /// The workload that makes it; `None`: what its owner references say.
    pub workload: Option<&'a str>,
    /// The mesh, whose objects say what proxies are started with; `None`: nobody says anything.
    pub mesh: Option<&'a MeshSnapshot>,
}

/// What became of a pod.
#[derive(Clone, PartialEq, Debug)]
pub enum Outcome {
    /// It is part of the mesh now.
    Injected {
        /// The pod.
        pod: Value,
        /// What its author should know.
        warnings: Vec<Diagnostic>,
    },
    /// It stays as it is.
    LeftAlone(Reason),
}

/// Injects a pod. Whether its namespace asks for that is the caller's to know.
///
/// # Errors
/// The pod asks for something that cannot be; each finding names the field, what was expected and
/// what it says.
pub fn inject(
    pod: &Value,
    around: &Surroundings<'_>,
    settings: &InjectionSettings,
) -> Result<Outcome, Vec<Diagnostic>> {
    let namespace = match around.namespace {
        "" => pod::text(pod, "/metadata/namespace").unwrap_or("default"),
        namespace => namespace,
    };
    let workload = around.workload.map_or_else(|| names::workload(pod), str::to_owned);
    let complete = |found: Vec<Diagnostic>| -> Vec<Diagnostic> {
        let name = pod::text(pod, "/metadata/name").unwrap_or(&workload);
        let id = ObjectId { kind: Kind::POD, namespace: namespace.into(), name: name.into() };
        found.into_iter().map(|finding| finding.object(id.clone())).collect()
    };
    if let Err(reason) = decide::check(pod, namespace, settings).map_err(&complete)? {
        return Ok(Outcome::LeftAlone(reason));
    }
    let mut at = Decoder::default();
    let chosen = Chosen::read(pod, settings, &mut at);
    let mut pod = pod.clone();
    // First of all: what they write into the pod is acted on as if its author had written it, now
    // and when the pod comes by again.
    fragments(&chosen, settings).for_each(|fragment| overlay::merge(&mut pod, fragment));
    let (overrides, warnings) =
        PodOverrides::read(&pod, namespace, chosen, around, settings, at).map_err(&complete)?;
    let pod =
        write(pod, &overrides, &workload, settings).map_err(|finding| complete(vec![*finding]))?;
    Ok(Outcome::Injected { pod, warnings: complete(warnings) })
}

/// The templates that are merged into a pod, in order.
fn fragments<'a>(
    chosen: &'a Chosen,
    settings: &'a InjectionSettings,
) -> impl Iterator<Item = &'a Value> + Clone {
    chosen.templates.iter().filter_map(move |name| settings.templates.get(name))
}

/// Writes everything into the pod, which holds the templates already.
fn write(
    mut pod: Value,
    overrides: &PodOverrides,
    workload: &str,
    settings: &InjectionSettings,
) -> Result<Value, Box<Diagnostic>> {
    let fragments = fragments(&overrides.chosen, settings);
    let template = overrides.chosen.proxy;
    let mut proxy = template::proxy(overrides, settings);
    fragments.clone().for_each(|fragment| overlay::lay_fragment(&mut proxy, fragment));
    own_words::lay(&mut proxy, &overrides.containers);
    template::name(&mut proxy, workload);
    let written = pod::take_container(&mut pod, pod::PROXY);
    if template == Template::Sidecar && overrides.rewrite_probes {
        let known =
            written.as_ref().map(|(_, container)| probes::known(container)).unwrap_or_default();
        let known = probes::rewrite(&mut pod, known, overrides.agent_port);
        template::tell(&mut proxy, probes::VARIABLE, &known);
    }
    if let Some(endpoint) = scrape::take_over(&mut pod, overrides) {
        template::tell(&mut proxy, scrape::VARIABLE, &endpoint);
    }
    let place = written.map(|(place, container)| {
        overlay::lay(&mut proxy, probes::without_known(container));
        place
    });
    match template {
        Template::Sidecar => {
            let mut redirect = template::redirect(overrides, settings);
            fragments.for_each(|fragment| overlay::lay_fragment(&mut redirect, fragment));
            own_words::lay(&mut redirect, &overrides.containers);
            template::add_sidecar(&mut pod, redirect, proxy)?;
        }
        Template::Gateway => template::add_gateway(&mut pod, proxy, place),
    }
    template::add_volumes(&mut pod, &overrides.volumes.volumes);
    template::add_pull_secrets(&mut pod, settings);
    names::label(&mut pod, workload);
    template::mark(&mut pod, overrides, settings);
    Ok(pod)
}
