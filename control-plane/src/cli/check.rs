//! `ferromesh check`: whether this machine can run a mesh, and whether a running mesh is well. Each
//! line says what was looked at; one that is not good says why, and what to do.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;
use ferromesh_xds_translator::{analyze::analyze_input, ir::MeshDefaults};
use nix::{
    sys::resource::{Resource, getrlimit},
    unistd::geteuid,
};
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    inputs,
    print::print,
    remote::Remote,
    table::{Form, text},
    version,
};
use crate::config::{RemoteOptions, search_path};

/// Ports that a control plane takes by default.
const PORTS: [u16; 4] = [8080, 15010, 15012, 15014];
/// Fewer open files are a mesh of a few proxies.
const FILES: u64 = 4096;

/// `ferromesh check`.
#[derive(Args, Debug)]
#[group(skip)]
#[command(
    after_help = "Exits with 1 when something is not good (×); what may become a trouble (‼) is no failure.

Examples:
  ferromesh check --pre                           before a mesh is started on this machine
  ferromesh check --pre -f ./mesh                 and whether its configuration has mistakes
  ferromesh check                                 a running mesh
  ferromesh check -o json"
)]
pub(crate) struct Check {
    /// Before a mesh is started: ports, files, programs
    #[arg(long)]
    pre: bool,
    /// Configuration to be looked at too, as by `ferromesh analyze`
    #[arg(short, long = "file", value_name = "PATH", requires = "pre")]
    files: Vec<PathBuf>,
    /// The data directory that the control plane will have
    #[arg(long, value_name = "DIR", default_value = "ferromesh-data")]
    data_dir: PathBuf,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

/// How something was found to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    Good,
    Doubtful,
    Bad,
}

/// What was looked at.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct Line {
    about: String,
    verdict: Verdict,
    /// Why it is not good, and what to do; empty otherwise.
    why: String,
}

fn good(about: impl Into<String>) -> Line {
    Line { about: about.into(), verdict: Verdict::Good, why: String::new() }
}

fn doubtful(about: impl Into<String>, why: impl Into<String>) -> Line {
    Line { about: about.into(), verdict: Verdict::Doubtful, why: why.into() }
}

fn bad(about: impl Into<String>, why: impl Into<String>) -> Line {
    Line { about: about.into(), verdict: Verdict::Bad, why: why.into() }
}

/// Looks, and prints what was found.
///
/// # Errors
/// A file cannot be read.
pub(crate) async fn run(command: &Check, remote: &RemoteOptions) -> anyhow::Result<ExitCode> {
    let lines = match command.pre {
        true => before(command)?,
        false => running(&Remote::new(remote)?).await,
    };
    let fails = lines.iter().any(|line| line.verdict == Verdict::Bad);
    match command.output {
        Form::Json => {
            print(&serde_json::to_string_pretty(&json!({ "passed": !fails, "checks": lines }))?)
        }
        Form::Text => lines.iter().for_each(|line| print(&shown(line))),
    }
    Ok(if fails { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn shown(Line { about, verdict, why }: &Line) -> String {
    match verdict {
        Verdict::Good => format!("√ {about}"),
        Verdict::Doubtful => format!("‼ {about}: {why}"),
        Verdict::Bad => format!("× {about}: {why}"),
    }
}

fn before(command: &Check) -> anyhow::Result<Vec<Line>> {
    let mut lines: Vec<Line> = PORTS.into_iter().map(port).collect();
    lines.push(data_directory(&command.data_dir));
    lines.push(open_files());
    lines.push(loopback());
    lines.push(interception());
    lines.push(match search_path("ferromesh-proxy") {
        Some(path) => good(format!("ferromesh-proxy is {}", path.display())),
        None => doubtful("ferromesh-proxy", "not on the PATH: workloads of this machine need it"),
    });
    lines.push(match search_path("envoy") {
        Some(path) => good(format!("envoy is {}", path.display())),
        None => good("no envoy on the PATH: our own proxy needs none"),
    });
    if !command.files.is_empty() {
        lines.push(configuration(&command.files)?);
    }
    Ok(lines)
}

fn port(number: u16) -> Line {
    let about = format!("port {number} of 127.0.0.1 is free");
    match TcpListener::bind((Ipv4Addr::LOCALHOST, number)) {
        Ok(_) => good(about),
        Err(error) => bad(
            about,
            format!("{error}; end what has it, or choose others (`ferromesh serve --help`)"),
        ),
    }
}

fn data_directory(path: &Path) -> Line {
    let about = format!("{} can be written", path.display());
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let tried = if path.is_dir() { path } else { parent.unwrap_or(Path::new(".")) };
    match tempfile::tempdir_in(tried) {
        Ok(_) => good(about),
        Err(error) => bad(about, format!("{error}; choose another with --data-dir")),
    }
}

fn open_files() -> Line {
    let about = "many files may be open";
    match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((_, most)) if most >= FILES => good(about),
        Ok((_, most)) => doubtful(about, format!("at most {most}: as many proxies can connect")),
        Err(error) => doubtful(about, error.to_string()),
    }
}

fn loopback() -> Line {
    let about = "every loopback address can be used, so that a mesh needs no root here";
    match TcpListener::bind(SocketAddr::from(([127, 20, 1, 2], 0))) {
        Ok(_) => good(about),
        Err(error) => {
            doubtful(about, format!("{error}; give each workload an address, or a namespace"))
        }
    }
}

fn interception() -> Line {
    let about = "traffic can be redirected to proxies (nf_tables)";
    match geteuid().is_root() {
        true => good(about),
        false => doubtful(
            about,
            "not as this user: run `ferromesh-proxy redirect` as root, or use --interception none",
        ),
    }
}

fn configuration(files: &[PathBuf]) -> anyhow::Result<Line> {
    let parsed = inputs::read(files)?;
    let findings = analyze_input(&parsed, &MeshDefaults::default());
    let wrong = findings.iter().filter(|finding| finding.severity.fails_analysis()).count();
    let about = format!("{} objects of configuration have no mistake", parsed.everything().count());
    Ok(match (wrong, findings.len()) {
        (0, 0) => good(about),
        (0, remarks) => doubtful(about, format!("{remarks} remarks; see `ferromesh analyze`")),
        (wrong, _) => bad(about, format!("{wrong} mistakes; see `ferromesh analyze`")),
    })
}

/// Looks at a running mesh.
pub(super) async fn running(remote: &Remote) -> Vec<Line> {
    let server = match remote.read("/openapi.json").await {
        Ok(mut server) => server["info"]["version"].take(),
        Err(error) => return vec![bad("a control plane answers", error.to_string())],
    };
    let mut lines = vec![good("a control plane answers"), versions(&server)];
    lines.push(match remote.read("/healthz/ready").await {
        Ok(_) => good("it has read its configuration"),
        Err(error) => bad("it has read its configuration", error.to_string()),
    });
    for (path, judge) in
        [("/api/v1/diagnostics", findings as fn(&Value) -> Vec<Line>), ("/api/v1/proxies", proxies)]
    {
        match remote.read(path).await {
            Ok(answer) => lines.extend(judge(&answer)),
            Err(error) => lines.push(bad(format!("{path} answers"), error.to_string())),
        }
    }
    lines
}

fn versions(server: &Value) -> Line {
    let own = env!("CARGO_PKG_VERSION");
    let about = "control plane and this program are of one version";
    match server == own {
        true => good(about),
        false => doubtful(about, format!("{} and {own}", text(server))),
    }
}

fn findings(answer: &Value) -> Vec<Line> {
    let items = answer["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    let count = |words: &[&str]| {
        let is = |item: &&Value| words.iter().any(|word| item["severity"] == *word);
        items.iter().filter(is).count()
    };
    let see = "see `ferromesh diagnostics`";
    let about = "nothing is refused, and every reference leads somewhere";
    let mut lines = vec![match count(&["error", "error-ref"]) {
        0 => good(about),
        errors => bad(about, format!("{errors} errors; {see}")),
    }];
    let warnings = count(&["warn"]);
    if warnings > 0 {
        lines.push(doubtful("no warning", format!("{warnings} warnings; {see}")));
    }
    lines
}

fn proxies(answer: &Value) -> Vec<Line> {
    let items = answer["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    let within = |state: &str| {
        let is = |item: &&Value| {
            let types = item["sync"].as_object().into_iter().flatten();
            types.clone().any(|(_, sync)| sync["state"] == state)
        };
        let ids = items.iter().filter(is).map(|item| text(&item["id"]));
        ids.collect::<Vec<_>>()
    };
    if items.is_empty() {
        return vec![doubtful("proxies are connected", "none is")];
    }
    let mut lines = vec![good(format!("{} proxies are connected", items.len()))];
    let about = "every proxy runs what it was sent";
    lines.push(match (&within("NACK")[..], &within("STALE")[..]) {
        ([], []) => good(about),
        ([], late) => doubtful(about, format!("not yet: {}", late.join(", "))),
        (refusing, _) => {
            bad(about, format!("refused by {}; see `ferromesh proxy-status`", refusing.join(", ")))
        }
    });
    let unproven = items.iter().filter(|item| item["identity"].is_null()).count();
    if unproven > 0 {
        let why = format!("{unproven} use port 15010, where everybody is believed");
        lines.push(doubtful("every proxy has proved its identity", why));
    }
    let programs = version::counted(answer);
    if programs.len() > 1 {
        let all: Vec<String> = programs.iter().map(|(name, n)| format!("{n} × {name}")).collect();
        lines.push(good(format!("proxies: {}", all.join(", "))));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdicts(lines: &[Line]) -> Vec<Verdict> {
        lines.iter().map(|line| line.verdict).collect()
    }

    #[test]
    fn a_mesh_is_judged_by_its_findings_and_proxies() {
        use Verdict::{Bad, Doubtful, Good};
        let found = |words: &[&str]| {
            let items: Vec<Value> = words.iter().map(|word| json!({ "severity": word })).collect();
            verdicts(&findings(&json!({ "items": items })))
        };
        assert_eq!(found(&["info"]), [Good]);
        assert_eq!(found(&["warn", "error-ref"]), [Bad, Doubtful]);
        let connected = |states: &[&str]| {
            let proxy = |state: &&str| json!({ "id": "a", "identity": "b", "sync": { "CDS": { "state": state } } });
            verdicts(&proxies(&json!({ "items": states.iter().map(proxy).collect::<Vec<_>>() })))
        };
        assert_eq!(connected(&[]), [Doubtful]);
        assert_eq!(connected(&["SYNCED"]), [Good, Good]);
        assert_eq!(connected(&["SYNCED", "STALE"]), [Good, Doubtful]);
        assert_eq!(connected(&["NACK", "STALE"]), [Good, Bad]);
    }

    #[test]
    fn what_is_taken_or_cannot_be_written_is_bad_and_said() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let number = taken.local_addr().expect("an address").port();
        let line = port(number);
        assert!(line.verdict == Verdict::Bad && shown(&line).contains("choose others"), "{line:?}");
        assert_eq!(data_directory(Path::new("/proc/nowhere/data")).verdict, Verdict::Bad);
        let parent = tempfile::tempdir().expect("a folder");
        assert_eq!(data_directory(&parent.path().join("data")).verdict, Verdict::Good);
        assert!(!parent.path().join("data").exists(), "nothing is left behind");
    }
}
