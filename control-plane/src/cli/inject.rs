//! `ferromesh inject`: pods as the webhook would make them, without a cluster.

use std::{collections::BTreeMap, path::PathBuf, process::ExitCode, sync::Arc};

use anyhow::bail;
use clap::Args;
use ferromesh_xds_translator::{
    compiler::{Change, Compiler},
    diagnostic::{Diagnostic, FieldPath},
    dialect::{Kind, Object, parse_value},
    ir::{Labels, MeshDefaults},
    snapshot::MeshSnapshot,
    yaml::{self, Document},
};
use serde_json::Value;

use super::{
    inputs,
    print::{print, print_error},
};
use crate::inject::{
    InjectionSettings,
    workload::{Report, inject_document},
};

/// `ferromesh inject`.
#[derive(Args, Debug)]
#[command(
    after_help = "Prints every document, with proxies in those that make pods: Pod, Deployment, StatefulSet, DaemonSet, ReplicaSet, \
ReplicationController, Job, CronJob, and lists of them. All others are printed as they are.

Every pod is injected that does not say `sidecar.istio.io/inject: \"false\"` and does not use its node's network, whatever \
its namespace says; a Namespace among the documents can choose the kind of proxy (label ferromesh.io/proxy), and \
a MeshConfig (`defaultConfig`) or a ProxyConfig what it is started with. \
The webhook leaves what is injected here as it is.

Examples:
  ferromesh inject -f app.yaml | kubectl apply -f -
  kubectl get deployment reviews -o yaml | ferromesh inject -f - | kubectl apply -f -
  ferromesh inject -f ./manifests --settings settings.yaml > injected.yaml"
)]
pub(super) struct Inject {
    /// Files or folders of YAML or JSON; `-` is standard input
    #[arg(short, long = "file", value_name = "PATH", required = true)]
    files: Vec<PathBuf>,
    /// Injection settings, as in the ConfigMap `ferromesh-injection` [default: those of a new
    /// installation]
    #[arg(long, value_name = "FILE")]
    settings: Option<PathBuf>,
    /// Namespace of objects that name none
    #[arg(short, long, value_name = "NAME", default_value = "default")]
    namespace: String,
}

/// Prints the documents; what was left alone, and why, goes to standard error.
///
/// # Errors
/// A file cannot be read.
pub(super) fn run(command: &Inject) -> anyhow::Result<ExitCode> {
    let Some(settings) = settings(command)? else { return Ok(ExitCode::FAILURE) };
    let texts = inputs::texts(&command.files)?;
    if texts.iter().all(|(_, text)| yaml::split(text).is_empty()) {
        bail!("nothing to inject: there is no document");
    }
    match injected(&texts, &command.namespace, &settings) {
        Ok((text, reports)) => {
            reports.iter().for_each(show);
            print(text.trim_end());
            Ok(ExitCode::SUCCESS)
        }
        // Half of the documents would be taken for all of them.
        Err(mistakes) => {
            mistakes.iter().for_each(|mistake| print_error(mistake));
            Ok(ExitCode::FAILURE)
        }
    }
}

/// Every document of files (name, content), injected, and what became of those that make pods; or
/// every mistake.
fn injected(
    files: &[(String, String)],
    namespace: &str,
    settings: &InjectionSettings,
) -> Result<(String, Vec<Report>), Vec<String>> {
    let documents: Vec<(&str, Document<'_>)> = files
        .iter()
        .flat_map(|(name, text)| yaml::split(text).into_iter().map(|d| (name.as_str(), d)))
        .collect();
    let (mut texts, mut reports, mut mistakes) = (Vec::new(), Vec::new(), Vec::new());
    let place = |file: &str, document: &Document<'_>, finding: &Diagnostic| {
        format!("{file}:{}: {finding}", document.first_line)
    };
    let mut objects = Vec::new();
    for (file, document) in &documents {
        match of_mesh(document, namespace) {
            Some(Ok(object)) => objects.push(object),
            Some(Err(found)) => {
                mistakes.extend(found.iter().map(|finding| place(file, document, finding)));
            }
            None => {}
        }
    }
    let labels = |object: &Object| {
        let own = object.id.kind == Kind::NAMESPACE;
        own.then(|| (object.id.name.to_string(), object.meta.labels.clone()))
    };
    let namespaces = objects.iter().filter_map(labels).collect();
    let mesh = mesh(objects, settings);
    for (file, document) in &documents {
        match inject(document, namespace, &namespaces, &mesh, settings) {
            Ok((text, about)) => {
                texts.push(text);
                reports.extend(about);
            }
            Err(found) => {
                mistakes.extend(found.iter().map(|finding| place(file, document, finding)));
            }
        }
    }
    if mistakes.is_empty() { Ok((texts.join("---\n"), reports)) } else { Err(mistakes) }
}

/// `None`: the file has mistakes, which were shown.
fn settings(command: &Inject) -> anyhow::Result<Option<InjectionSettings>> {
    let Some(path) = &command.settings else { return Ok(Some(InjectionSettings::default())) };
    let text = inputs::text(path)?;
    match InjectionSettings::default().read(&path.display().to_string(), &text) {
        Ok(settings) => Ok(Some(settings)),
        Err(findings) => {
            findings.iter().for_each(|finding| print_error(&finding.to_string()));
            Ok(None)
        }
    }
}

/// Kinds that say what proxies get, or what is seen.
const OF_MESH: [Kind; 3] = [Kind::NAMESPACE, Kind::MESH_CONFIG, Kind::PROXY_CONFIG];

/// The object of a document that is of one of these kinds, or what is wrong with it.
fn of_mesh(document: &Document<'_>, namespace: &str) -> Option<Result<Object, Vec<Diagnostic>>> {
    let mut value = yaml::parse(document.text).ok()??.to_json();
    let text = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default();
    let kind = Kind::from_api(text("apiVersion"), text("kind"))?;
    if !OF_MESH.contains(&kind) {
        return None;
    }
    if kind.namespaced()
        && let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut)
    {
        metadata.entry("namespace").or_insert_with(|| namespace.into());
    }
    match parse_value(value) {
        Ok((object, _)) => Some(Ok(object)),
        // What a Namespace says wrongly is nothing that its pods are started with.
        Err(_) if kind == Kind::NAMESPACE => None,
        Err(found) => Some(Err(found)),
    }
}

/// The mesh of these objects.
fn mesh(objects: Vec<Object>, settings: &InjectionSettings) -> Arc<MeshSnapshot> {
    let base = MeshDefaults {
        root_namespace: settings.root_namespace.clone(),
        trust_domain: settings.trust_domain.clone(),
        ..MeshDefaults::default()
    };
    let mut compiler = Compiler::new(base);
    let changes = objects.into_iter().map(|object| Change::Upsert(Box::new(object)));
    compiler.apply(changes.collect());
    compiler.snapshot().clone()
}

/// A document as it is to be printed.
fn inject(
    document: &Document<'_>,
    namespace: &str,
    namespaces: &BTreeMap<String, Labels>,
    mesh: &MeshSnapshot,
    settings: &InjectionSettings,
) -> Result<(String, Vec<Report>), Vec<Diagnostic>> {
    let parsed = yaml::parse(document.text).map_err(|error| {
        let message = format!("line {} of the document: {}", error.line, error.message);
        let mut finding = Diagnostic::error(error.code, FieldPath::root(), message);
        finding.fix = error.fix;
        vec![finding]
    })?;
    let as_written = format!("{}\n", document.text.trim_end());
    let Some(node) = parsed else { return Ok((as_written, Vec::new())) };
    let mut value = node.to_json();
    let reports = inject_document(&mut value, namespace, namespaces, mesh, settings)?;
    let changed = reports.iter().any(|report| report.left_alone.is_none());
    Ok((if changed { super::yaml::block(&value) } else { as_written }, reports))
}

fn show(report: &Report) {
    if let Some(reason) = report.left_alone {
        print_error(&format!("{} is left alone: {reason}", report.object));
    }
    report.warnings.iter().for_each(|warning| print_error(&warning.to_string()));
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn files(text: &str) -> Vec<(String, String)> {
        vec![("app.yaml".to_owned(), text.to_owned())]
    }

    /// Files `tests/golden/inject/CASE.yaml`, injected as `CASE.settings.yaml` says, are
    /// `CASE.injected.yaml`, and injecting them again changes nothing. `UPDATE_GOLDEN=1` writes the
    /// results anew, to be read in review like code.
    #[test]
    fn manifests_are_injected_as_agreed() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/inject");
        for case in
            ["workloads", "probes", "annotations", "overlay", "gateway", "envoy", "proxy-config"]
        {
            let path = |ending: &str| format!("{folder}/{case}{ending}");
            let given = fs::read_to_string(path(".yaml")).expect("a case");
            let written = fs::read_to_string(path(".settings.yaml")).unwrap_or_default();
            let settings = InjectionSettings::default()
                .read("settings.yaml", &written)
                .expect("good settings");
            let (text, _) = injected(&files(&given), "default", &settings).expect("it is injected");
            if std::env::var_os("UPDATE_GOLDEN").is_some() {
                fs::write(path(".injected.yaml"), &text).expect("a file");
            }
            let agreed = fs::read_to_string(path(".injected.yaml")).unwrap_or_default();
            let differs = text.lines().zip(agreed.lines()).position(|(a, b)| a != b);
            assert!(text == agreed, "{case}: line {differs:?} differs; UPDATE_GOLDEN=1 accepts it");
            let (again, _) = injected(&files(&text), "default", &settings).expect("it is injected");
            assert_eq!(again, text, "{case}: injected twice");
        }
    }

    #[test]
    fn what_makes_no_pods_is_printed_as_it_is_written() {
        let text = "# ours\napiVersion: v1\nkind: Service # a comment\nmetadata: {name: a}\n";
        let (printed, reports) =
            injected(&files(text), "default", &InjectionSettings::default()).expect("it is read");
        assert_eq!((printed.as_str(), reports.len()), (text, 0));
    }

    #[test]
    fn every_mistake_is_shown_with_its_document() {
        let text = "a: b: c\n---\napiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n  \
                    annotations: {ferromesh.io/proxy: nginx}\nspec: {containers: [{name: a}]}\n";
        let mistakes =
            injected(&files(text), "shop", &InjectionSettings::default()).expect_err("mistakes");
        assert!(mistakes[0].starts_with("app.yaml:1: error[FM0002]"), "{mistakes:?}");
        assert!(mistakes[1].starts_with("app.yaml:3: error[FM0103]: Pod shop/a: "), "{mistakes:?}");
        assert!(
            mistakes[1].contains("expected one of ferromesh, envoy, got `nginx`"),
            "{mistakes:?}"
        );
    }
}
