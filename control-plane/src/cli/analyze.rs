//! `ferromesh analyze`: every finding about configuration files, without a running mesh.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use ferromesh_xds_translator::{analyze::analyze_input, diagnostic::Severity, ir::MeshDefaults};
use serde_json::json;

use super::{
    inputs,
    print::{print, print_error},
    remote::Form,
};

/// `ferromesh analyze`.
#[derive(Args, Debug)]
#[command(
    after_help = "A later -f replaces objects of an earlier one; the same object twice inside one -f is an error.
Exits with 1 when something is refused or refers to what does not exist.

Examples:
  ferromesh analyze -f ./mesh
  ferromesh analyze -f base.yaml -f change.yaml -o json"
)]
pub(crate) struct Analyze {
    /// Files or folders of YAML or JSON; `-` is standard input
    #[arg(short, long = "file", value_name = "PATH", required = true)]
    files: Vec<PathBuf>,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

/// Prints the findings.
///
/// # Errors
/// A file cannot be read.
pub(crate) fn run(command: &Analyze) -> anyhow::Result<ExitCode> {
    let parsed = inputs::read(&command.files)?;
    let findings = analyze_input(&parsed, &MeshDefaults::default());
    let count = |severity| findings.iter().filter(|d| d.severity == severity).count();
    let failed = findings.iter().any(|d| d.severity.fails_analysis());
    match command.output {
        Form::Json => print(&serde_json::to_string_pretty(
            &json!({ "passed": !failed, "diagnostics": findings }),
        )?),
        Form::Text => {
            findings.iter().for_each(|finding| print(&finding.to_string()));
            let errors = count(Severity::Error) + count(Severity::ErrorRef);
            let objects = parsed.everything().count();
            print_error(&format!(
                "{objects} objects: {errors} errors, {} warnings, {} remarks",
                count(Severity::Warning),
                count(Severity::Info)
            ));
        }
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
