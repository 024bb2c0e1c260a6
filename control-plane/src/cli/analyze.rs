//! `ferromesh analyze`: every finding about configuration files, without a running mesh, and the
//! fixes of those that only one change can mend.

use std::{
    collections::BTreeSet,
    io::{IsTerminal, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use clap::Args;
use ferromesh_xds_translator::{
    analyze::{Fixed, NotFixed, Suppression, Texts, analyze_input, fix, sort},
    diagnostic::{Code, Diagnostic, FieldPath, Severity},
    dialect::{Kind, Object, Parsed},
    ir::MeshDefaults,
};
use serde_json::{Value, json};

use super::{
    inputs::{self, Input},
    print::{print, print_error},
    rewrite::{Rewrite, rewrite},
    table::Form,
    unified::diff,
};
use crate::secret::{self, SecretMaterial};

/// `ferromesh analyze`.
#[derive(Args, Debug)]
#[command(
    after_help = "A later -f replaces objects of an earlier one; the same object twice inside one -f is an error.
Exits with 1 when something is refused or refers to what does not exist.

--fix changes the files where a finding can be mended in one way only: a misspelt field, value, host,
subset or gateway, a value of another type, an apiVersion, the name of a port. Everything else in them
stays as it is, comments too. A change that does not take its finding away, or brings an error, is not
made, and said. The exit code is that of what is left.

Examples:
  ferromesh analyze -f ./mesh
  ferromesh analyze -f base.yaml -f change.yaml -o json
  ferromesh analyze -f ./mesh --suppress 'IST0118=Service *.shop'
  ferromesh analyze -f ./mesh --fix --dry-run          show what would be changed, as a diff
  ferromesh analyze -f ./mesh --fix                    change it
  ferromesh analyze -f ./mesh --fix --dry-run | patch -p0"
)]
pub(crate) struct Analyze {
    /// Files or folders of YAML or JSON; `-` is standard input
    #[arg(short, long = "file", value_name = "PATH", required = true)]
    files: Vec<PathBuf>,
    /// A finding that is not to be told, by FM or IST code; `*` in the name stands for anything;
    /// what is refused is told all the same
    #[arg(short = 'S', long, value_name = "CODE=KIND NAME.NAMESPACE")]
    suppress: Vec<Suppression>,
    /// Mend in the files what only one change can mend
    #[arg(long)]
    fix: bool,
    /// Print what --fix would change, as a unified diff, and change nothing
    #[arg(long, requires = "fix")]
    dry_run: bool,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

/// Prints the findings.
///
/// # Errors
/// A file cannot be read.
pub(crate) fn run(command: &Analyze) -> anyhow::Result<ExitCode> {
    let inputs = inputs::inputs(&command.files)?;
    if command.fix {
        return run_fix(command, &inputs);
    }
    let parsed = inputs::parse(&inputs);
    let findings = find(command, &parsed, SystemTime::now());
    let failed = fails(&findings);
    match command.output {
        Form::Json => print(&serde_json::to_string_pretty(
            &json!({ "passed": !failed, "diagnostics": findings }),
        )?),
        Form::Text => {
            findings.iter().for_each(|finding| print(&finding.to_string()));
            print_error(&summary(parsed.everything().count(), &findings));
        }
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn fails(findings: &[Diagnostic]) -> bool {
    findings.iter().any(|finding| finding.severity.fails_analysis())
}

/// What is to be told of objects, in order.
fn find(command: &Analyze, parsed: &Parsed, now: SystemTime) -> Vec<Diagnostic> {
    let mut findings = analyze_input(parsed, &MeshDefaults::default());
    findings.extend(unusable_credentials(parsed, now));
    sort(&mut findings);
    findings.retain(|finding| !command.suppress.iter().any(|known| known.covers(finding)));
    findings
}

fn summary(objects: usize, findings: &[Diagnostic]) -> String {
    let count = |severity| findings.iter().filter(|d| d.severity == severity).count();
    format!(
        "{objects} objects: {} errors, {} warnings, {} remarks",
        count(Severity::Error) + count(Severity::ErrorRef),
        count(Severity::Warning),
        count(Severity::Info)
    )
}

/// Mends what can be, prints what is left, and exits by that.
fn run_fix(command: &Analyze, inputs: &[Input]) -> anyhow::Result<ExitCode> {
    let from_pipe = command.files.iter().any(|path| path == Path::new("-"));
    if from_pipe && !command.dry_run {
        anyhow::bail!("--fix writes into files, and standard input is none: add --dry-run");
    }
    let now = SystemTime::now();
    let files =
        || inputs.iter().flat_map(|input| input.files.iter().map(move |file| (input, file)));
    let texts: Texts = files()
        .filter_map(|(_, (name, bytes))| {
            Some((name.as_str().into(), String::from_utf8(bytes.clone()).ok()?))
        })
        .collect();
    let read = |texts: &Texts| {
        let inputs: Vec<Input> = inputs.iter().map(|input| input.with(texts)).collect();
        inputs::parse(&inputs)
    };
    let done = fix(texts, |texts| find(command, &read(texts), now));
    let mut diffs = String::new();
    let mut rewrites: Vec<Rewrite<'_>> = Vec::new();
    for (input, (name, old)) in files() {
        let Some(new) = done.texts.get(name.as_str()) else { continue };
        let file = Path::new(name);
        if new.as_bytes() == &old[..] || rewrites.iter().any(|known| known.file == file) {
            continue;
        }
        diffs.push_str(&diff(name, &String::from_utf8_lossy(old), new));
        rewrites.push(Rewrite { named: &input.path, file, old, new: new.as_bytes() });
    }
    if !command.dry_run {
        rewrite(&rewrites)?;
    }
    print_fixed(command, &done, &diffs, rewrites.len(), read(&done.texts).everything().count())?;
    Ok(if fails(&done.findings) { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn print_fixed(
    command: &Analyze,
    done: &Fixed,
    diffs: &str,
    files: usize,
    objects: usize,
) -> anyhow::Result<()> {
    let Fixed { fixed, not_fixed, findings, .. } = done;
    if let Form::Json = command.output {
        let not_fixed: Vec<Value> = not_fixed
            .iter()
            .map(|NotFixed { finding, reason }| json!({ "finding": finding, "reason": reason }))
            .collect();
        let mut answer = json!({
            "passed": !fails(findings),
            "diagnostics": findings,
            "fixed": fixed,
            "notFixed": not_fixed,
        });
        if command.dry_run {
            answer["diff"] = diffs.into();
        }
        print(&serde_json::to_string_pretty(&answer)?);
        return Ok(());
    }
    // Of a dry run only the diff is the result, so that it can be handed on.
    let say = if command.dry_run { print_error } else { print };
    if command.dry_run && std::io::stdout().is_terminal() {
        print(diffs.trim_end_matches('\n'));
    } else if command.dry_run {
        std::io::stdout().write_all(diffs.as_bytes())?;
    }
    fixed.iter().for_each(|finding| say(&format!("fixed: {finding}")));
    for NotFixed { finding, reason } in not_fixed {
        say(&format!("not fixed, since {reason}: {finding}"));
    }
    findings.iter().for_each(|finding| say(&finding.to_string()));
    let verb = if command.dry_run { "to be fixed" } else { "fixed" };
    let (fixed, left) = (fixed.len(), summary(objects, findings));
    print_error(&format!("{fixed} {verb} in {files} files; left in {left}"));
    Ok(())
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
        Ok(Some(material)) => over(object, &material, now)?,
    };
    Some(finding.istio("IST0161").fix("what it is to hold in PEM, still valid"))
}

fn over(object: &Object, material: &SecretMaterial, now: SystemTime) -> Option<Diagnostic> {
    const DAY: u64 = 24 * 3600;
    let days_since = |end: i64| {
        let end = UNIX_EPOCH + Duration::from_secs(u64::try_from(end).ok()?);
        Some(now.duration_since(end).ok()?.as_secs() / DAY)
    };
    let (key, message) = if let Some(days) = days_since(material.fact.not_after) {
        ("tls.crt", format!("the certificate ended {days} days ago"))
    } else {
        let days = days_since(material.revocations_end()?)?;
        let message = format!(
            "a list of revoked certificates ended {days} days ago: proxies take no certificate of \
             its CA until there is a newer one"
        );
        ("ca.crl", message)
    };
    let field = FieldPath::of("data").field(key);
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

    /// A CA whose list of revoked certificates ends at this year's beginning, for the same Gateway.
    fn revocations(year: i32) -> String {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.key_usages = vec![rcgen::KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).expect("a certificate");
        let list = rcgen::CertificateRevocationListParams {
            this_update: rcgen::date_time_ymd(2019, 1, 1),
            next_update: rcgen::date_time_ymd(year, 1, 1),
            crl_number: 1_u64.into(),
            issuing_distribution_point: None,
            revoked_certs: Vec::new(),
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&rcgen::Issuer::new(params, key)).expect("a list");
        let text = |pem: String| serde_json::to_string(&pem).expect("a text");
        format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{name: c-cacert, namespace: edge}}\nstringData: {{ca.crt: {}, ca.crl: {}}}\n",
            text(certificate.pem()),
            text(list.pem().expect("PEM"))
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
            (&*revocations(2020), "a list of revoked certificates ended 1413 days ago"),
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
        assert!(found(&revocations(2100), GATEWAY).is_empty());
    }
}
