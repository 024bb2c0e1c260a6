//! `ferromesh explain`: what becomes of a request, and which objects decided that.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    process::ExitCode,
};

use clap::Args;
use ferromesh_xds_translator::{
    compiler::Compiler,
    dialect::Object,
    explain::{
        Asker, Branch, Decider, End, Explanation, Hop, Near, Outcome, Request, Step, World, explain,
    },
    ir::{MeshDefaults, ObjectId},
};
use serde_json::{Value, json};

use super::{
    changes, inputs,
    print::{print, print_error},
    remote::Remote,
    table::Form,
};
use crate::{config::RemoteOptions, signatures::Verifier};

/// How the command ends when the question is malformed or nobody is known who asks.
const USAGE: u8 = 2;
/// How it ends when a share of the requests is refused or leads nowhere.
const FAILED: u8 = 3;
/// How it ends when a proxy answers as it was told to: a redirect, a direct response.
const ANSWERED: u8 = 4;
/// More endpoints of a cluster are counted.
const SHOWN: usize = 8;

/// `ferromesh explain`.
#[derive(Args, Debug)]
#[group(skip)]
#[command(
    after_help = "Judges what proxies are sent, as Envoy does; nothing is sent to anybody. HTTP/1.1 is taken to be spoken. What nobody
can tell beforehand (chance, ejection, the answers of services that are asked, code in filters) is said and not guessed.
Without files, what the control plane serves is judged, with what its proxies refuse.

Exits with 0 if the request reaches endpoints, with 3 if a share of such requests is refused or leads nowhere, with 4 if a
proxy answers it as it was told to (a redirect, a direct response), with 2 if the question is malformed, with 1 on an error.

Examples:
  ferromesh explain -f ./mesh --from web.shop GET http://reviews/api?page=2
  ferromesh explain -f ./mesh --gateway public.edge -H 'end-user: jason' GET https://shop.example.com/
  ferromesh explain --from web.shop -H \"authorization: Bearer $TOKEN\" POST http://reviews.shop:9080/ -o json"
)]
pub(crate) struct Explain {
    /// The configuration, offline: files or folders of YAML or JSON; `-` is standard input; without
    /// it, what the control plane serves
    #[arg(short, long = "file", value_name = "PATH")]
    files: Vec<PathBuf>,
    /// Who sends the request: a pod, what owns it, or a service account, as NAME.NAMESPACE
    #[arg(long, value_name = "WORKLOAD", required_unless_present = "gateway")]
    from: Option<String>,
    /// The gateway that somebody outside of the mesh sends it to: a workload or an object that
    /// configures one, as NAME.NAMESPACE
    #[arg(long, value_name = "NAME", conflicts_with = "from")]
    gateway: Option<String>,
    /// A header of the request, as NAME: VALUE
    #[arg(short = 'H', long = "header", value_name = "HEADER")]
    headers: Vec<String>,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
    /// The method of the request
    #[arg(value_name = "METHOD")]
    method: String,
    /// Its URL: http or https
    #[arg(value_name = "URL")]
    url: String,
}

/// Prints what becomes of the request.
///
/// # Errors
/// A file cannot be read, or no control plane answers.
pub(crate) async fn run(command: &Explain, remote: &RemoteOptions) -> anyhow::Result<ExitCode> {
    let request = match Request::parse(&command.method, &command.url, &command.headers) {
        Ok(request) => request,
        Err(error) => return Ok(misused(&error.to_string())),
    };
    let asker = match (&command.from, &command.gateway) {
        (Some(name), _) => Asker::From(name.clone()),
        (None, Some(name)) => Asker::Gateway(name.clone()),
        (None, None) => return Ok(misused("--from or --gateway is needed")),
    };
    let explanation = match command.files.as_slice() {
        [] => Remote::new(remote)?.explain(&question(&asker, command)).await?,
        files => match offline(files, &asker, &request)? {
            Ok(explanation) => explanation,
            Err(error) => return Ok(misused(&error)),
        },
    };
    match command.output {
        Form::Json => {
            let mut value = serde_json::to_value(&explanation)?;
            value["outcome"] = serde_json::to_value(explanation.outcome())?;
            print(&serde_json::to_string_pretty(&value)?);
        }
        Form::Text => print(text(&explanation).trim_end()),
    }
    Ok(match explanation.outcome() {
        Outcome::Reached => ExitCode::SUCCESS,
        Outcome::Answered => ExitCode::from(ANSWERED),
        Outcome::Failed => ExitCode::from(FAILED),
    })
}

/// The question as a server takes it.
fn question(asker: &Asker, command: &Explain) -> Value {
    let Explain { method, url, headers, .. } = command;
    let mut question = json!({ "method": method, "url": url, "headers": headers });
    match asker {
        Asker::From(name) => question["from"] = name.as_str().into(),
        Asker::Gateway(name) => question["gateway"] = name.as_str().into(),
    }
    question
}

fn misused(what: &str) -> ExitCode {
    print_error(&format!("error: {what}"));
    ExitCode::from(USAGE)
}

/// Without a control plane: what is there is read of files.
fn offline(
    files: &[PathBuf],
    asker: &Asker,
    request: &Request,
) -> anyhow::Result<Result<Explanation, String>> {
    let parsed = inputs::read(files)?;
    parsed.diagnostics.iter().for_each(|finding| print_error(&finding.to_string()));
    let objects: BTreeMap<ObjectId, Object> =
        parsed.objects.iter().map(|object| (object.id.clone(), object.clone())).collect();
    let mut compiler = Compiler::new(MeshDefaults::default());
    compiler.apply(changes::of(parsed));
    let world = World {
        signatures: &Verifier,
        locate: &|id, field| objects.get(id)?.locate(field),
        running: &|_| None,
        refused: &BTreeMap::new(),
    };
    Ok(explain(&mut compiler, &world, asker, request).map_err(|error| error.to_string()))
}

fn text(explanation: &Explanation) -> String {
    let mut lines = vec![explanation.request.clone()];
    tell_hop(&explanation.client, "", &mut lines);
    for branch in &explanation.branches {
        tell_branch(branch, &mut lines);
    }
    if !explanation.unfetched.is_empty() {
        let from = explanation.unfetched.join(", ");
        lines.push(format!("keys of tokens are not at hand that are fetched from {from}"));
    }
    lines.push(format!("=> {}", conclusion(explanation)));
    lines.join("\n")
}

fn conclusion(explanation: &Explanation) -> String {
    let ends = explanation.hops().map(|hop| &hop.end);
    let ends = ends.chain(explanation.branches.iter().map(|branch| &branch.end));
    let unusual: BTreeSet<String> = ends.filter(|end| **end != End::Passes).map(words_of).collect();
    let reached = explanation.branches.iter().any(|branch| {
        branch.end == End::Passes && branch.servers.iter().any(|s| s.hop.end == End::Passes)
    });
    let mut words: Vec<String> = unusual.into_iter().collect();
    if reached {
        words.insert(0, "it reaches endpoints".to_owned());
    }
    match explanation.depends().is_empty() {
        true => words.join("; "),
        false => format!("{}, as far as can be told beforehand", words.join("; ")),
    }
}

fn words_of(end: &End) -> String {
    let status = |status: &Option<u16>| match status {
        Some(status) => status.to_string(),
        None => "the connection is closed".to_owned(),
    };
    match end {
        End::Passes => "it passes".to_owned(),
        End::Answered { status, what } => format!("{status}, {what}"),
        End::Refused { status: code, what } => format!("refused, {}: {what}", status(code)),
        End::Nowhere { status: code, what } => format!("leads nowhere, {}: {what}", status(code)),
    }
}

fn tell_hop(hop: &Hop, indent: &str, lines: &mut Vec<String>) {
    lines.push(format!("{indent}at {}:", hop.proxy));
    let indent = format!("{indent}  ");
    hop.steps.iter().for_each(|step| tell_step(step, &indent, lines));
    hop.depends.iter().for_each(|on| lines.push(format!("{indent}depends on: {on}")));
    if hop.end != End::Passes {
        lines.push(format!("{indent}{}", words_of(&hop.end)));
    }
}

fn tell_branch(branch: &Branch, lines: &mut Vec<String>) {
    let share = (branch.share * 100.0).round() / 100.0;
    lines.push(format!("{share} % of requests, to {}:", branch.cluster));
    branch.steps.iter().for_each(|step| tell_step(step, "  ", lines));
    branch.depends.iter().for_each(|on| lines.push(format!("  depends on: {on}")));
    for target in branch.endpoints.iter().take(SHOWN) {
        let workload = target.workload.as_ref().map(|name| format!(" ({name})"));
        let unused = target.unused.as_ref().map(|why| format!(", unused: {why}"));
        lines.push(format!(
            "  endpoint {}{}{}",
            target.address,
            workload.unwrap_or_default(),
            unused.unwrap_or_default()
        ));
    }
    if branch.endpoints.len() > SHOWN {
        lines.push(format!("  and {} more", branch.endpoints.len() - SHOWN));
    }
    if branch.end != End::Passes {
        lines.push(format!("  {}", words_of(&branch.end)));
    }
    for server in &branch.servers {
        let shown: Vec<&str> = server.endpoints.iter().take(SHOWN).map(String::as_str).collect();
        let more = server.endpoints.len().saturating_sub(SHOWN);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        lines.push(format!("  before {}{more}:", shown.join(", ")));
        tell_hop(&server.hop, "    ", lines);
    }
}

fn tell_step(step: &Step, indent: &str, lines: &mut Vec<String>) {
    let name = if step.name.is_empty() { String::new() } else { format!(" {}", step.name) };
    lines.push(format!("{indent}{}{name}: {}", step.stage.words(), step.what));
    for decider in &step.decided_by {
        lines.push(format!("{indent}    decided by {}", who(decider)));
    }
    for near in &step.nearly {
        lines.push(format!("{indent}    nearly {}", nearly(near)));
    }
}

fn who(decider: &Decider) -> String {
    let mut words = decider.object.clone();
    if let Some(at) = &decider.at {
        words += &format!(", {at}");
    }
    if let Some(field) = &decider.field {
        words += &format!(" {field}");
    }
    words
}

fn nearly(near: &Near) -> String {
    let by: Vec<String> = near.decided_by.iter().map(who).collect();
    let by = if by.is_empty() { String::new() } else { format!(" ({})", by.join("; ")) };
    format!("{}, but: {}{by}", near.name, near.unmet)
}
