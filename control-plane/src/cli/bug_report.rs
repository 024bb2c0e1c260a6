//! `ferromesh bug-report`: what somebody needs who is to find out what is wrong with a mesh, without
//! anything that is secret in it.
//!
//! Of objects it holds names and what was found about them, of proxies what they run by name: what
//! users write into headers or filters may be secret, and is nobody's to pass on unseen. Findings and
//! what proxies refuse may quote a little of it, so that whatever looks like a key or a token is taken
//! out of every text ([`super::redacted`]).

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use ferromesh_cert_authority::files;
use serde_json::{Map, Value, json};

use super::{check, print::print, redacted::redact, remote::Remote};

/// What the control plane is asked, by the names that answers have in the report.
const ASKED: [(&str, &str); 6] = [
    ("log", "/api/v1/log"),
    ("diagnostics", "/api/v1/diagnostics"),
    ("objects", "/api/v1/objects"),
    ("proxies", "/api/v1/proxies"),
    ("workloads", "/api/v1/workloads"),
    ("certificates", "/api/v1/certificates"),
];
/// Standard output.
const PIPE: &str = "-";

/// `ferromesh bug-report`.
#[derive(Args, Debug)]
#[group(skip)]
#[command(
    after_help = "It holds names, addresses, labels and findings of the mesh, and no keys, tokens or contents of objects.
Logs are not in it: add those of the control plane and of the proxies that it is about.

Examples:
  ferromesh bug-report
  ferromesh bug-report --output - | less"
)]
pub(crate) struct BugReport {
    /// The file to write, which must not be there yet; `-` prints it
    #[arg(short, long, value_name = "FILE", default_value = "ferromesh-bug-report.json")]
    output: PathBuf,
}

impl Remote {
    /// Writes the report. What cannot be found out is part of it.
    ///
    /// # Errors
    /// It cannot be written.
    pub(crate) async fn bug_report(&self, command: &BugReport) -> anyhow::Result<()> {
        let mut report = Map::new();
        report.insert("client".to_owned(), client());
        report.insert("checks".to_owned(), json!(check::running(self).await));
        let server = self.read("/openapi.json").await;
        let version = server.map(|mut document| document["info"]["version"].take());
        report.insert("controlPlane".to_owned(), version.unwrap_or_else(|e| failed(&e)));
        for (name, path) in ASKED {
            let answer = self.read(path).await.unwrap_or_else(|error| failed(&error));
            report.insert(name.to_owned(), answer);
        }
        let mut report = Value::Object(report);
        redact(&mut report);
        let text = serde_json::to_string_pretty(&report)?;
        if command.output == Path::new(PIPE) {
            print(&text);
            return Ok(());
        }
        let shown = command.output.display();
        files::create(&command.output, 0o600, text.as_bytes()).with_context(|| {
            format!("cannot write {shown}, which must not be there yet; --output names another")
        })?;
        print(&format!(
            "{shown} holds names, addresses, labels and findings of the mesh; look it through before you pass it on"
        ));
        Ok(())
    }
}

fn client() -> Value {
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "system": std::env::consts::OS, "machine": std::env::consts::ARCH,
    })
}

fn failed(error: &anyhow::Error) -> Value {
    json!({ "error": format!("{error:#}") })
}
