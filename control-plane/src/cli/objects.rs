//! `ferromesh apply`, `get`, `describe` and `delete`: objects over REST.

use std::{collections::BTreeSet, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{anyhow, bail};
use clap::{Args, ValueEnum};
use ferromesh_xds_translator::{
    diagnostic::{Code, Diagnostic, Severity},
    dialect::{Kind, Object, parse_value},
};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::{
    inputs,
    print::{print, print_error},
    remote::{Remote, encode, explain, path_of, remarks},
    table::{finding, plain_table, text},
    yaml,
};

/// Most bytes of objects that are judged together; less than the server reads of a request.
const LARGEST_LIST: usize = 3 << 20;
/// Between two looks of `--watch`.
const WATCH: Duration = Duration::from_secs(1);

/// `ferromesh apply`.
#[derive(Args, Debug)]
#[group(skip)]
#[command(after_help = "Exits with 1 when any document was not applied, whatever the reason.

Examples:
  ferromesh apply -f routes.yaml --dry-run
  ferromesh apply -f ./mesh")]
pub(crate) struct Apply {
    /// Files or folders of YAML or JSON; `-` is standard input
    #[arg(short, long = "file", value_name = "PATH", required = true)]
    files: Vec<PathBuf>,
    /// Validate on the server, store nothing
    #[arg(long)]
    dry_run: bool,
}

/// `ferromesh get`.
#[derive(Args, Debug)]
#[group(skip)]
#[command(after_help = "Examples:
  ferromesh get virtualservices
  ferromesh get vs -n shop -o wide
  ferromesh get vs reviews -n default -o yaml
  ferromesh get se -A -o name
  ferromesh get pods -w
  ferromesh get gateways.networking.istio.io")]
pub(crate) struct Get {
    /// Kind, such as virtualservice, vs or virtualservices.networking.istio.io
    kind: String,
    /// Name; all when absent
    name: Option<String>,
    /// Namespace; without it a name is looked up in `default`, and a list is of all namespaces
    #[arg(short, long)]
    namespace: Option<String>,
    /// Of all namespaces, a name too
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    all_namespaces: bool,
    /// How to print [default: table, and json for one object]
    #[arg(short, long, value_enum)]
    output: Option<ObjectForm>,
    /// Go on, and print what changes
    #[arg(short, long)]
    watch: bool,
}

/// How objects are printed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum ObjectForm {
    /// A line for each.
    Table,
    /// The same with where it is written and how many findings it has.
    Wide,
    /// Whole, as JSON.
    Json,
    /// Whole, as YAML.
    Yaml,
    /// `KIND/NAME`, to be used in other commands.
    Name,
}

/// `ferromesh describe`.
#[derive(Args, Debug)]
#[group(skip)]
#[command(after_help = "Example:\n  ferromesh describe virtualservice reviews -n default")]
pub(crate) struct Describe {
    /// Kind, such as virtualservice, vs or virtualservices.networking.istio.io
    kind: String,
    /// Name
    name: String,
    /// Namespace
    #[arg(short, long, default_value = "default")]
    namespace: String,
}

/// `ferromesh delete`.
#[derive(Args, Debug)]
#[group(skip)]
#[command(after_help = "Example:\n  ferromesh delete virtualservice reviews -n default")]
pub(crate) struct Delete {
    /// Kind, such as virtualservice, vs or virtualservices.networking.istio.io
    kind: String,
    /// Name
    name: String,
    /// Namespace
    #[arg(short, long, default_value = "default")]
    namespace: String,
}

impl Remote {
    /// Sends every object of the files; goes on after a refused one.
    ///
    /// # Errors
    /// A file cannot be read, or a document was not applied.
    pub(crate) async fn apply(&self, command: &Apply) -> anyhow::Result<()> {
        let parsed = inputs::read(&command.files)?;
        for diagnostic in &parsed.diagnostics {
            print_error(&diagnostic.to_string());
        }
        let sent = match command.dry_run {
            true => self.rehearse(&parsed.objects).await?,
            false => self.store(&parsed.objects).await,
        };
        match not_read(&parsed.diagnostics) + sent {
            0 => Ok(()),
            one => bail!("{one} documents were not applied"),
        }
    }

    /// Stores objects one by one; how many the server refused.
    async fn store(&self, objects: &[Object]) -> usize {
        let mut refused = 0;
        for object in objects {
            let (id, name) = (&object.id, title(object));
            let path = path_of(id.kind, &id.namespace, &id.name);
            match self.ask(Method::PUT, &path, Some(&object.raw())).await {
                Ok(answer) => print(&format!(
                    "{name} stored as revision {}{}",
                    answer["revision"],
                    remarks(&answer)
                )),
                Err(error) => {
                    refused += 1;
                    print_error(&format!("{name} refused: {error:#}"));
                }
            }
        }
        refused
    }

    /// Stores an object.
    ///
    /// # Errors
    /// The server refuses it, or does not answer.
    pub(crate) async fn store_one(&self, object: Value) -> anyhow::Result<()> {
        let (object, _) = parse_value(object).map_err(|findings| {
            let said: Vec<String> = findings.iter().map(ToString::to_string).collect();
            anyhow!("{}", said.join("\n"))
        })?;
        match self.store(&[object]).await {
            0 => Ok(()),
            _ => bail!("the object was refused"),
        }
    }

    /// Has objects judged together, as they would serve; how many the server would refuse. What
    /// is too much for one request is judged in parts.
    async fn rehearse(&self, objects: &[Object]) -> anyhow::Result<usize> {
        let mut refused = 0;
        let (mut first, mut size) = (0, 0);
        for (i, object) in objects.iter().enumerate() {
            let more = object.raw().to_string().len();
            if size + more > LARGEST_LIST {
                refused += self.rehearse_list(&objects[first..i]).await?;
                (first, size) = (i, 0);
            }
            size += more;
        }
        Ok(refused + self.rehearse_list(&objects[first..]).await?)
    }

    async fn rehearse_list(&self, objects: &[Object]) -> anyhow::Result<usize> {
        let items: Vec<Value> = objects.iter().map(Object::raw).collect();
        let list = json!({ "apiVersion": "v1", "kind": "List", "items": items });
        let path = "/api/v1/objects?dryRun=true";
        let answer = self.ask(Method::POST, path, Some(&list)).await?;
        let mut refused = 0;
        let answers = answer["items"].as_array().into_iter().flatten();
        for (object, answer) in objects.iter().zip(answers) {
            let name = title(object);
            let status = answer["status"].as_u64().and_then(|s| u16::try_from(s).ok());
            match status.and_then(|s| StatusCode::from_u16(s).ok()) {
                Some(status) => {
                    refused += 1;
                    print_error(&format!("{name} refused: {}", explain(status, answer)));
                }
                None => print(&format!("{name} valid{}", remarks(answer))),
            }
        }
        Ok(refused)
    }

    /// Prints objects.
    ///
    /// # Errors
    /// There is no such kind or object, or no answer.
    pub(crate) async fn get(&self, command: &Get) -> anyhow::Result<()> {
        let kind = Kind::named(&command.kind)?;
        let mut before = String::new();
        loop {
            let shown = self.shown(kind, command).await?;
            if !command.watch {
                print(&shown);
                return Ok(());
            }
            let old: BTreeSet<&str> = before.lines().collect();
            let new: Vec<&str> = shown.lines().filter(|line| !old.contains(line)).collect();
            if !new.is_empty() {
                print(&new.join("\n"));
            }
            before = shown;
            sleep(WATCH).await;
        }
    }

    async fn shown(&self, kind: Kind, command: &Get) -> anyhow::Result<String> {
        let items = self.listed(kind, command).await?;
        let form = command.output.unwrap_or(match command.name {
            Some(_) => ObjectForm::Json,
            None => ObjectForm::Table,
        });
        Ok(match form {
            ObjectForm::Table => table(&items),
            ObjectForm::Wide => wide(&items, &self.read("/api/v1/diagnostics").await?),
            ObjectForm::Name => {
                let name = |item: &Value| format!("{}/{}", kind.resource(), text(&item["name"]));
                items.iter().map(name).collect::<Vec<_>>().join("\n")
            }
            ObjectForm::Json | ObjectForm::Yaml => {
                let objects = self.whole(kind, &items).await?;
                written(objects, command.name.is_some(), form)?
            }
        })
    }

    /// The objects that are asked for, each as the list has it; one that is named must be there.
    async fn listed(&self, kind: Kind, command: &Get) -> anyhow::Result<Vec<Value>> {
        let namespace = match (&command.name, &command.namespace) {
            _ if command.all_namespaces => None,
            (Some(_), None) => Some("default"),
            (_, namespace) => namespace.as_deref(),
        };
        let mut list = self.read(&list_of(kind, namespace)).await?;
        let Value::Array(mut items) = list["items"].take() else {
            bail!("an answer without items")
        };
        if let Some(name) = &command.name {
            items.retain(|item| item["name"] == **name);
            if items.is_empty() {
                let place = namespace.filter(|_| kind.namespaced());
                let place = place.map(|namespace| format!(" in namespace {namespace}"));
                bail!("no {} {name} is in force{}", kind.kind_name(), place.unwrap_or_default());
            }
        }
        Ok(items)
    }

    async fn whole(&self, kind: Kind, items: &[Value]) -> anyhow::Result<Vec<Value>> {
        let mut objects = Vec::new();
        for item in items {
            let field = |field: &str| item[field].as_str().unwrap_or_default().to_owned();
            let path = path_of(kind, &field("namespace"), &field("name"));
            objects.push(self.read(&path).await?["object"].take());
        }
        Ok(objects)
    }

    /// Prints all that is known of an object: where it comes from, what was found, who refuses it,
    /// and the object.
    ///
    /// # Errors
    /// There is no such kind or object, or no answer.
    pub(crate) async fn describe(&self, command: &Describe) -> anyhow::Result<()> {
        let kind = Kind::named(&command.kind)?;
        let (namespace, name) = (&command.namespace, &command.name);
        let answer = self.read(&path_of(kind, namespace, name)).await?;
        let list = self.read(&list_of(kind, Some(namespace))).await?;
        let items = list["items"].as_array().into_iter().flatten();
        let item = items.clone().find(|item| item["name"] == **name).unwrap_or(&Value::Null);
        let found = self.read("/api/v1/diagnostics").await?;
        let own: Vec<String> = found_about(&found, item).map(finding).collect();
        print(&description(kind, item, &answer, &own));
        Ok(())
    }

    /// Deletes an object.
    ///
    /// # Errors
    /// There is no such object, or no answer.
    pub(crate) async fn delete(&self, command: &Delete) -> anyhow::Result<ExitCode> {
        let kind = Kind::named(&command.kind)?;
        let path = path_of(kind, &command.namespace, &command.name);
        self.ask(Method::DELETE, &path, None).await?;
        print(&format!("{} {}/{} deleted", kind.kind_name(), command.namespace, command.name));
        Ok(ExitCode::SUCCESS)
    }
}

/// How many documents came to no object: each refused one, and each of which no object is made
/// whatever the severity says.
fn not_read(findings: &[Diagnostic]) -> usize {
    let lost = |finding: &&Diagnostic| {
        finding.severity == Severity::Error
            || matches!(
                finding.code,
                Code::UnreadableFile | Code::UnknownKind | Code::UnsupportedKind
            )
    };
    let lost = findings.iter().filter(lost);
    let (named, others): (Vec<_>, Vec<_>) = lost.partition(|finding| finding.object.is_some());
    let named: BTreeSet<_> = named.iter().map(|finding| &finding.object).collect();
    let places: BTreeSet<_> =
        others.iter().map(|finding| (&finding.position, finding.code)).collect();
    named.len() + places.len()
}

/// `VirtualService shop/cart`
fn title(object: &Object) -> String {
    format!("{} {}/{}", object.id.kind.kind_name(), object.id.namespace, object.id.name)
}

/// The objects of a kind; in a namespace, if it is one that has namespaces.
fn list_of(kind: Kind, namespace: Option<&str>) -> String {
    let list = format!("/api/v1/objects?kind={}", kind.resource());
    match namespace.filter(|_| kind.namespaced()) {
        Some(namespace) => format!("{list}&namespace={}", encode(namespace)),
        None => list,
    }
}

fn cells(item: &Value) -> Vec<String> {
    ["namespace", "name", "source", "revision"].map(|field| text(&item[field])).to_vec()
}

fn table(items: &[Value]) -> String {
    let mut table = plain_table(&["NAMESPACE", "NAME", "SOURCE", "REVISION"]);
    for item in items {
        table.add_row(cells(item));
    }
    table.to_string()
}

/// The same with where each is written, and what was found about it.
fn wide(items: &[Value], found: &Value) -> String {
    let mut table =
        plain_table(&["NAMESPACE", "NAME", "SOURCE", "REVISION", "WRITTEN AT", "FINDINGS"]);
    for item in items {
        let mut cells = cells(item);
        cells.push(text(&item["writtenAt"]));
        cells.push(counted(found_about(found, item)));
        table.add_row(cells);
    }
    table.to_string()
}

/// Findings about an object of a list.
fn found_about<'a>(found: &'a Value, item: &'a Value) -> impl Iterator<Item = &'a Value> {
    let found = found["items"].as_array().into_iter().flatten();
    found.filter(move |finding| {
        ["kind", "namespace", "name"].iter().all(|field| finding["object"][field] == item[field])
    })
}

/// `2 error, 1 warn`; `-` for none.
fn counted<'a>(found: impl Iterator<Item = &'a Value>) -> String {
    let mut counts: Vec<(String, usize)> = Vec::new();
    for severity in found.map(|finding| text(&finding["severity"])) {
        match counts.iter_mut().find(|(known, _)| *known == severity) {
            Some((_, count)) => *count += 1,
            None => counts.push((severity, 1)),
        }
    }
    let words: Vec<String> =
        counts.iter().map(|(severity, count)| format!("{count} {severity}")).collect();
    if words.is_empty() { "-".to_owned() } else { words.join(", ") }
}

/// One object as it is, several as a List.
fn written(mut objects: Vec<Value>, single: bool, form: ObjectForm) -> anyhow::Result<String> {
    let value = match (single, objects.len()) {
        (true, 1) => objects.remove(0),
        _ => json!({ "apiVersion": "v1", "kind": "List", "items": objects }),
    };
    match form {
        ObjectForm::Yaml => Ok(yaml::block(&value).trim_end().to_owned()),
        _ => Ok(serde_json::to_string_pretty(&value)?),
    }
}

fn description(kind: Kind, item: &Value, answer: &Value, findings: &[String]) -> String {
    let mut lines = vec![
        format!("Kind:       {}", kind.resource()),
        format!("Namespace:  {}", text(&item["namespace"])),
        format!("Name:       {}", text(&item["name"])),
        format!("Source:     {}", text(&answer["source"])),
        format!("Written at: {}", text(&item["writtenAt"])),
        format!("Revision:   {}", text(&answer["revision"])),
    ];
    match findings {
        [] => lines.push("Findings:   none".to_owned()),
        findings => {
            lines.push("Findings:".to_owned());
            lines.extend(findings.iter().map(|finding| format!("  {finding}")));
        }
    }
    lines.push("Object:".to_owned());
    lines.extend(yaml::block(&answer["object"]).lines().map(|line| format!("  {line}")));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use ferromesh_xds_translator::dialect::parse_files;

    use super::*;

    #[test]
    fn a_list_is_of_the_namespace_that_is_asked_for() {
        let secrets = "/api/v1/objects?kind=secrets";
        assert_eq!(list_of(Kind::SECRET, None), secrets);
        assert_eq!(list_of(Kind::SECRET, Some("a&b")), format!("{secrets}&namespace=a%26b"));
        let mesh = list_of(Kind::MESH_CONFIG, Some("shop"));
        assert!(!mesh.contains("shop"), "{mesh}");
    }

    #[test]
    fn every_document_that_comes_to_no_object_counts() {
        let count = |text: &str| not_read(&parse_files([("a.yaml", text.as_bytes())]).diagnostics);
        let entry =
            "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {name: a}\n";
        assert_eq!(count(&format!("{entry}spec: {{address: 10.0.0.1}}\n")), 0);
        assert_eq!(count(&format!("{entry}spec: {{address: [1]}}\n")), 1);
        assert_eq!(count("apiVersion: example.org/v1\nkind: Nonsense\nmetadata: {name: a}\n"), 1);
        assert_eq!(count("apiVersion: batch/v1\nkind: Job\nmetadata: {name: a}\n"), 1);
        assert_eq!(count("a: [\n"), 1);
        assert_eq!(count("just text\n---\nmore text\n"), 2);
    }

    #[test]
    fn a_wide_row_says_where_an_object_is_written_and_what_is_found() {
        let item = json!({
            "kind": "Sidecar", "namespace": "shop", "name": "a", "source": "directory",
            "revision": null, "writtenAt": "mesh/a.yaml:3",
        });
        let about = |name: &str, severity: &str| json!({ "severity": severity, "object": { "kind": "Sidecar", "namespace": "shop", "name": name } });
        let found =
            json!({ "items": [about("a", "warn"), about("b", "error"), about("a", "warn")] });
        let said = wide(&[item], &found);
        let row: Vec<&str> = said.lines().nth(1).expect("a row").split_whitespace().collect();
        assert_eq!(row.join(" "), "shop a directory - mesh/a.yaml:3 2 warn");
    }
}
