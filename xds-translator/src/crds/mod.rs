//! CustomResourceDefinitions of Istio's kinds and our own, made from the declarations that decode
//! them.
//!
//! Group, kind, names, versions and the stored version of Istio's are Istio's, so that the
//! definitions install over Istio's own and objects that are stored there stay readable. The mesh
//! configuration is no resource of a cluster. Knows the kinds and their shapes, and nothing of
//! clusters: the output is a value to print or to apply.

mod structural;

use serde_json::{Value, json};

use crate::{
    dialect::{
        definition::{Column, Definition},
        schema::ObjectSchema,
    },
    ir::{Kind, Scope},
};

const AGE: Column = Column {
    name: "Age",
    path: ".metadata.creationTimestamp",
    shape: "date",
    doc: "Time since it was made.",
};
/// Columns of every kind, after its own.
const STATE: &[Column] = &[
    Column::text(
        "Accepted",
        ".status.conditions[?(@.type==\"Accepted\")].status",
        "Whether it is in force.",
    ),
    Column::text(
        "Programmed",
        ".status.conditions[?(@.type==\"Programmed\")].status",
        "Whether proxies take what it was translated to.",
    ),
    Column::text(
        "References",
        ".status.conditions[?(@.type==\"ReferencesResolved\")].status",
        "Whether the hosts, subsets and credentials that it names are there.",
    ),
    AGE,
];
/// Every definition, in the order of the table of kinds.
pub fn custom_resource_definitions() -> Vec<Value> {
    defined().map(|(kind, row)| definition(kind, row)).collect()
}

/// The kinds that have one.
fn defined() -> impl Iterator<Item = (Kind, &'static Definition)> {
    Kind::all_served().filter_map(|kind| Some((kind, kind.serving()?.definition?)))
}

fn definition(kind: Kind, row: &Definition) -> Value {
    let (area, domain) = kind.group().split_once('.').unwrap_or_default();
    let family = domain.replace('.', "-");
    let schema = resource(row.schema);
    let columns: Vec<Value> = row.columns.iter().chain(STATE).map(column).collect();
    let version = |(i, name): (usize, &&str)| {
        json!({
            "name": name,
            "served": true,
            "storage": i == 0,
            "additionalPrinterColumns": columns,
            "schema": { "openAPIV3Schema": schema },
            "subresources": { "status": {} },
        })
    };
    let versions: Vec<Value> = row.versions.iter().enumerate().map(version).collect();
    let mut names = json!({
        "kind": kind.kind_name(),
        "listKind": format!("{}List", kind.kind_name()),
        "plural": kind.plural(),
        "singular": kind.kind_name().to_lowercase(),
        "categories": [family, format!("{area}-{family}")],
    });
    if !row.short.is_empty() {
        names["shortNames"] = json!(row.short);
    }
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": format!("{}.{}", kind.plural(), kind.group()),
            "labels": { "app.kubernetes.io/part-of": "ferromesh" },
        },
        "spec": {
            "group": kind.group(),
            "names": names,
            "scope": match kind.scope() { Scope::Namespaced => "Namespaced", Scope::Cluster => "Cluster" },
            "conversion": { "strategy": "None" },
            "versions": versions,
        },
    })
}

fn column(column: &Column) -> Value {
    json!({ "name": column.name, "jsonPath": column.path, "type": column.shape, "description": column.doc })
}

/// The schema of a whole object: metadata is the API server's own business.
fn resource(spec: &'static ObjectSchema) -> Value {
    json!({
        "type": "object",
        "description": structural::prose(spec.doc),
        "properties": { "spec": structural::object(spec), "status": status() },
    })
}

/// What controllers write. Those of other meshes may write more, which stays.
fn status() -> Value {
    let text = || json!({ "type": "string" });
    let time = || json!({ "type": "string", "format": "date-time" });
    json!({
        "type": "object",
        "description": "What became of the object; written by controllers.",
        "x-kubernetes-preserve-unknown-fields": true,
        "properties": {
            "observedGeneration": {
                "description": "Generation of the object that the rest speaks of.",
                "x-kubernetes-int-or-string": true,
            },
            "conditions": {
                "type": "array",
                "description": "Whether it is in force, and if not, why.",
                "items": {
                    "type": "object",
                    "x-kubernetes-preserve-unknown-fields": true,
                    "properties": {
                        "type": text(),
                        "status": text(),
                        "reason": text(),
                        "message": text(),
                        "lastProbeTime": time(),
                        "lastTransitionTime": time(),
                    },
                },
            },
            "validationMessages": {
                "type": "array",
                "description": "What was found in it.",
                "items": { "type": "object", "x-kubernetes-preserve-unknown-fields": true },
            },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_served_kind_of_istio_and_of_ours_has_a_definition() {
        let defined: Vec<Kind> = defined().map(|(kind, _)| kind).collect();
        let groups = [
            "networking.istio.io",
            "security.istio.io",
            "telemetry.istio.io",
            "extensions.istio.io",
            "policy.ferromesh.io",
        ];
        let own = |kind: &Kind| groups.contains(&kind.group());
        assert_eq!(defined, Kind::all_served().filter(own).collect::<Vec<_>>());
    }

    #[test]
    fn every_version_of_a_definition_is_one_that_is_read_and_the_first_is_stored() {
        for ((kind, row), definition) in defined().zip(custom_resource_definitions()) {
            assert_eq!(row.versions[0], kind.versions()[0], "{kind:?}");
            assert!(row.versions.iter().all(|v| kind.versions().contains(v)), "{kind:?}");
            let versions = definition["spec"]["versions"].as_array().expect("versions");
            let stored: Vec<bool> = versions.iter().map(|v| v["storage"] == true).collect();
            assert!(stored[0] && !stored[1..].contains(&true), "{kind:?}");
        }
    }

    #[test]
    fn names_are_istios() {
        let table = [
            ("virtualservices.networking.istio.io", "VirtualServiceList", "virtualservice", "vs"),
            (
                "destinationrules.networking.istio.io",
                "DestinationRuleList",
                "destinationrule",
                "dr",
            ),
            ("gateways.networking.istio.io", "GatewayList", "gateway", "gw"),
            ("serviceentries.networking.istio.io", "ServiceEntryList", "serviceentry", "se"),
            ("workloadentries.networking.istio.io", "WorkloadEntryList", "workloadentry", "we"),
            ("sidecars.networking.istio.io", "SidecarList", "sidecar", ""),
            (
                "peerauthentications.security.istio.io",
                "PeerAuthenticationList",
                "peerauthentication",
                "pa",
            ),
            (
                "authorizationpolicies.security.istio.io",
                "AuthorizationPolicyList",
                "authorizationpolicy",
                "ap",
            ),
            (
                "requestauthentications.security.istio.io",
                "RequestAuthenticationList",
                "requestauthentication",
                "ra",
            ),
            ("telemetries.telemetry.istio.io", "TelemetryList", "telemetry", "telemetry"),
        ];
        for (definition, (name, list, singular, short)) in
            custom_resource_definitions().into_iter().zip(table)
        {
            assert_eq!(definition["metadata"]["name"], name);
            let names = &definition["spec"]["names"];
            assert_eq!(names["listKind"], list);
            assert_eq!(names["singular"], singular);
            assert_eq!(names["shortNames"][0].as_str().unwrap_or_default(), short);
            assert_eq!(definition["spec"]["scope"], "Namespaced");
        }
    }

    /// `kubectl apply` keeps a copy of what was applied in an annotation, and annotations may have
    /// 256 KiB.
    #[test]
    fn a_definition_fits_into_the_annotation_of_kubectl() {
        for definition in custom_resource_definitions() {
            let bytes = definition.to_string().len();
            assert!(bytes < 240 << 10, "{}: {bytes} bytes", definition["metadata"]["name"]);
        }
    }
}
