//! `ferromesh analyze`: every finding about configuration files, without a running mesh.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use clap::Args;
use ferromesh_xds_translator::{
    analyze::{Suppression, analyze_input, sort},
    diagnostic::{Code, Diagnostic, FieldPath, Severity},
    dialect::{Kind, Object, Parsed},
    ir::MeshDefaults,
};
use serde_json::{Value, json};

use super::{
    inputs,
    print::{print, print_error},
    remote::Form,
};
use crate::secret;

/// `ferromesh analyze`.
#[derive(Args, Debug)]
#[command(
    after_help = "A later -f replaces objects of an earlier one; the same object twice inside one -f is an error.
Exits with 1 when something is refused or refers to what does not exist.

Examples:
  ferromesh analyze -f ./mesh
  ferromesh analyze -f base.yaml -f change.yaml -o json
  ferromesh analyze -f ./mesh --suppress 'IST0118=Service *.shop'"
)]
pub(crate) struct Analyze {
    /// Files or folders of YAML or JSON; `-` is standard input
    #[arg(short, long = "file", value_name = "PATH", required = true)]
    files: Vec<PathBuf>,
    /// A finding that is not to be told, by FM or IST code; `*` in the name stands for anything;
    /// what is refused is told all the same
    #[arg(short = 'S', long, value_name = "CODE=KIND NAME.NAMESPACE")]
    suppress: Vec<Suppression>,
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
    let mut findings = analyze_input(&parsed, &MeshDefaults::default());
    findings.extend(unusable_credentials(&parsed, SystemTime::now()));
    sort(&mut findings);
    findings.retain(|finding| !command.suppress.iter().any(|known| known.covers(finding)));
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

/// Credentials that Gateways and DestinationRules name and that no proxy could use: what cannot be
/// read, and what is not valid any more. A server refuses them at its door, where the content of
/// Secrets ends; here nobody has seen it yet.
fn unusable_credentials(parsed: &Parsed, now: SystemTime) -> Vec<Diagnostic> {
    let mut named = BTreeSet::new();
    for object in parsed.everything() {
        if [Kind::GATEWAY, Kind::DESTINATION_RULE].contains(&object.id.kind) {
            names(&object.to_json(), &mut named);
        }
    }
    let is_named = |object: &&Object| {
        let name = &*object.id.name;
        object.id.kind == Kind::SECRET
            && (named.contains(name)
                || name.strip_suffix("-cacert").is_some_and(|name| named.contains(name)))
    };
    parsed.everything().filter(is_named).filter_map(|secret| unusable(secret, now)).collect()
}

/// Collects the credentials that are named below a value.
fn names(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                match (key.as_str(), value) {
                    ("credentialName" | "caCertCredentialName", Value::String(name)) => {
                        found.insert(name.clone());
                    }
                    ("credentialNames", Value::Array(list)) => {
                        found.extend(list.iter().filter_map(Value::as_str).map(str::to_owned));
                    }
                    _ => names(value, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| names(item, found)),
        _ => {}
    }
}

fn unusable(object: &Object, now: SystemTime) -> Option<Diagnostic> {
    let finding = match secret::split(object) {
        Err(finding) => Diagnostic { severity: Severity::ErrorRef, ..*finding },
        Ok(None) => {
            let message = "holds neither `tls.crt` with `tls.key` nor `ca.crt`";
            let field = FieldPath::of("data");
            object.diagnose(Diagnostic::error_ref(Code::MissingCredential, field, message))
        }
        Ok(Some(material)) => expired(object, material.fact.not_after, now)?,
    };
    Some(finding.istio("IST0161").fix("a certificate chain and its key in PEM, still valid"))
}

fn expired(object: &Object, not_after: i64, now: SystemTime) -> Option<Diagnostic> {
    let end = UNIX_EPOCH + Duration::from_secs(u64::try_from(not_after).ok()?);
    let since = now.duration_since(end).ok()?;
    const DAY: u64 = 24 * 3600;
    let message = format!("the certificate ended {} days ago", since.as_secs() / DAY);
    let field = FieldPath::of("data").field("tls.crt");
    Some(object.diagnose(Diagnostic::error_ref(Code::MissingCredential, field, message)))
}

#[cfg(test)]
mod tests {
    use ferromesh_xds_translator::dialect::parse_files;

    use super::*;

    /// A certificate that ends at this year's beginning, and its key, as a Secret and a Gateway that
    /// names it.
    fn secret(year: i32) -> String {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params = rcgen::CertificateParams::new(vec!["a.test".to_owned()]).expect("a name");
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        let certificate = params.self_signed(&key).expect("a certificate");
        let text = |pem: String| serde_json::to_string(&pem).expect("a text");
        format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{name: c, namespace: edge}}\ntype: kubernetes.io/tls\nstringData: {{tls.crt: {}, tls.key: {}}}\n",
            text(certificate.pem()),
            text(key.serialize_pem())
        )
    }

    #[test]
    fn credentials_that_no_proxy_could_use_are_named() {
        const GATEWAY: &str = "---\napiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: g, namespace: edge}\nspec: {servers: [{port: {number: 443, name: a, protocol: HTTPS}, hosts: [a.test], tls: {mode: SIMPLE, credentialName: c}}]}\n";
        let now = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let found = |secret: &str, gateway: &str| {
            let text = format!("{secret}{gateway}");
            unusable_credentials(&parse_files([("a.yaml", text.as_bytes())]), now)
        };
        let garbage = "apiVersion: v1\nkind: Secret\nmetadata: {name: c, namespace: edge}\ndata: {tls.crt: eA==, tls.key: eA==}\n";
        let empty =
            "apiVersion: v1\nkind: Secret\nmetadata: {name: c, namespace: edge}\ndata: {a: eA==}\n";
        for (text, expected) in [
            (garbage, "unusable secret"),
            (empty, "holds neither"),
            (&*secret(2020), "the certificate ended 1413 days ago"),
        ] {
            let [finding] = &found(text, GATEWAY)[..] else { panic!("{text}") };
            assert!(finding.message.contains(expected), "{finding}");
            assert_eq!(
                (finding.istio_code, finding.severity),
                (Some("IST0161"), Severity::ErrorRef)
            );
            assert!(found(text, "").is_empty(), "nobody names it");
        }
        assert!(found(&secret(2100), GATEWAY).is_empty());
    }
}
