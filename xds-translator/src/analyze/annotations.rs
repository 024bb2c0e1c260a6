//! Annotations of Istio's: whether they exist, where they are looked for, what they may say.

use ipnet::IpNet;

use super::input::Input;
use crate::{
    diagnostic::{Code, Diagnostic, FieldPath},
    dialect::{
        Kind,
        istio::{
            annotation::{
                self, ANNOTATIONS, INJECT, INTERCEPTION, Marks, PROXY_CONFIG,
                Stage::{self, Alpha, Deprecated, Settled},
            },
            pod_config,
        },
        kubernetes::Deployment,
    },
};

pub(super) fn check(input: &Input<'_>, findings: &mut Vec<Diagnostic>) {
    for object in input.objects().filter(|object| input.is_wanted(&object.id)) {
        let kind = object.id.kind;
        let meta = &object.meta;
        let own = FieldPath::of("metadata");
        let looked_at = [Kind::NAMESPACE, Kind::SERVICE, Kind::POD, Kind::DEPLOYMENT];
        let mut found = match looked_at.contains(&kind) {
            true => check_all(kind.kind_name(), &meta.annotations, &meta.labels, &own),
            // Its own are said by its rules; what it does not have may be a slip of the pen.
            false if is_of_mesh(kind) => {
                annotation::in_vain(kind.kind_name(), &meta.annotations, &meta.labels, &own)
            }
            false => continue,
        };
        if let Some(Deployment { spec }) = object.content() {
            let meta = &spec.template.metadata;
            let at = FieldPath::of("spec.template.metadata");
            found.extend(check_all("Pod", &meta.annotations, &meta.labels, &at));
        }
        findings.extend(found.into_iter().map(|finding| input.diagnose(&object.id, finding)));
    }
}

/// Whether people write objects of a kind to configure a mesh by Istio's kinds.
fn is_of_mesh(kind: Kind) -> bool {
    kind.group().ends_with("istio.io") || kind == Kind::INGRESS
}

/// The findings on the annotations and labels of an object of a kind, which stand below `meta`.
fn check_all(kind: &str, annotations: &Marks, labels: &Marks, meta: &FieldPath) -> Vec<Diagnostic> {
    let mut found = annotation::in_vain(kind, annotations, labels, meta);
    let at = meta.field("annotations");
    for known in ANNOTATIONS {
        let Some(value) = annotations.get(known.name) else { continue };
        let field = at.field(known.name);
        let replaced = known.name == INJECT && labels.contains_key(known.name);
        found.extend(unsettled(known.name, known.stage, replaced, field.clone()));
        if !known.kinds.is_empty() && !known.kinds.contains(&kind) {
            continue;
        }
        if let Some(expected) = objection(known.name, value) {
            let finding = Diagnostic::warning(Code::InvalidAnnotation, field, "cannot be used");
            found.push(finding.expected(expected, format!("`{value}`")));
        } else if known.name == INTERCEPTION && &**value != "REDIRECT" {
            found.push(pod_config::only_redirection(field, value));
        }
    }
    if let Some(text) = annotations.get(PROXY_CONFIG).filter(|_| kind == "Pod") {
        found.extend(pod_config::check(text, &at.field(PROXY_CONFIG)));
    }
    found
}

fn unsettled(name: &str, stage: Stage, replaced: bool, field: FieldPath) -> Option<Diagnostic> {
    let finding = |message| Diagnostic::info(Code::UnsettledAnnotation, field, message);
    match stage {
        Settled => None,
        // Who has the label too knows it.
        Deprecated if replaced => None,
        Deprecated if name == INJECT => Some(
            finding("deprecated").istio("IST0135").fix(format!("the label `{INJECT}` instead")),
        ),
        Deprecated => Some(finding("deprecated").istio("IST0135").fix("remove it")),
        Alpha => Some(
            finding("an alpha feature of Istio, which may change")
                .fix("remove it, or see what becomes of it with each release"),
        ),
    }
}

/// What is expected instead of a value, as Istio's injector reads them.
fn objection(name: &str, value: &str) -> Option<&'static str> {
    let unless = |valid: bool, expected: &'static str| (!valid).then_some(expected);
    let (_, last) = name.rsplit_once('/')?;
    match last {
        "interceptionMode" => {
            unless(matches!(value, "REDIRECT" | "TPROXY" | "NONE"), "REDIRECT, TPROXY or NONE")
        }
        "port" | "initialDelaySeconds" | "periodSeconds" | "failureThreshold" => {
            let largest = if last == "port" { u32::from(u16::MAX) } else { u32::MAX };
            let number = value.parse::<u32>().is_ok_and(|number| number <= largest);
            unless(number, "a whole number")
        }
        "includeOutboundIPRanges" => {
            unless(value == "*" || networks(value), "`*`, or networks separated by commas")
        }
        "excludeOutboundIPRanges" => unless(networks(value), "networks separated by commas"),
        "includeInboundPorts" => {
            unless(value == "*" || ports(value), "`*`, or ports separated by commas")
        }
        "excludeInboundPorts" | "excludeOutboundPorts" => {
            unless(ports(value), "ports separated by commas")
        }
        "excludeInterfaces" | "kubevirtInterfaces" | "reroute-virtual-interfaces" => {
            unless(interfaces(value), "names of interfaces separated by commas")
        }
        "merge-metrics" => {
            unless(crate::dialect::istio::dry_run::means(value).is_some(), "true or false")
        }
        "proxyCPU" | "proxyCPULimit" | "proxyMemory" | "proxyMemoryLimit" => {
            unless(quantity(value), "a quantity such as `100m` or `128Mi`")
        }
        _ => None,
    }
}

fn networks(text: &str) -> bool {
    text.is_empty() || text.split(',').all(|network| network.parse::<IpNet>().is_ok())
}

fn ports(text: &str) -> bool {
    text.trim().is_empty() || text.split(',').all(|port| port.trim().parse::<u16>().is_ok())
}

fn interfaces(text: &str) -> bool {
    /// `IFNAMSIZ` of Linux without the NUL at its end.
    const LONGEST: usize = 15;
    let name = |name: &str| {
        (1..=LONGEST).contains(&name.len())
            && name.chars().all(|c| c.is_ascii_graphic() && !matches!(c, '/' | ';' | '\'' | '"'))
    };
    text.is_empty() || text.split(',').all(|part| name(part.trim()))
}

/// Whether a text is a quantity of Kubernetes: a number, perhaps with a unit.
fn quantity(text: &str) -> bool {
    const UNITS: [&str; 17] =
        ["", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei", "e3"];
    let digits = text.trim_start_matches(['+', '-']);
    let end = digits.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(digits.len());
    let (number, unit) = digits.split_at(end);
    number.parse::<f64>().is_ok() && UNITS.contains(&unit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{analyze::analyze_input, dialect::parse_files, ir::MeshDefaults};

    #[test]
    fn a_slip_in_an_annotation_of_an_object_of_the_mesh_is_named() {
        let policy = |annotation: &str| {
            let text = format!(
                "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: a, namespace: shop, annotations: {{{annotation}: 'true'}}}}\nspec: {{action: DENY, rules: [{{}}]}}\n"
            );
            let input = parse_files([("a.yaml", text.as_bytes())]);
            let found = analyze_input(&input, &MeshDefaults::default());
            let found = found.into_iter().filter(|f| f.code == Code::UnknownAnnotation);
            found.map(|finding| finding.to_string()).collect::<String>()
        };
        // Whoever writes it believes that nothing is refused yet.
        assert!(policy("istio.io/dryrun").contains("`istio.io/dry-run`"));
        assert_eq!(policy("istio.io/dry-run"), "");
        assert_eq!(policy("example.org/dryrun"), "");
    }
}
