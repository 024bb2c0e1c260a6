//! The API's description of itself, OpenAPI 3.1.

use axum::Json;
use serde_json::{Map, Value, json};

/// One operation: method, path, summary, whether it writes.
type Operation = (&'static str, &'static str, &'static str, bool);

/// Every operation; a test compares the paths with the router.
const OPERATIONS: [Operation; 30] = [
    ("get", "/healthz/live", "Alive", false),
    ("get", "/healthz/ready", "Ready: every source has told what it has", false),
    ("get", "/openapi.json", "This document", false),
    ("get", "/api/v1/objects", "Objects in force; filter with kind and namespace", false),
    (
        "post",
        "/api/v1/objects",
        "Store a new object; dryRun=true only judges it, or the objects of a List together",
        true,
    ),
    (
        "get",
        "/api/v1/objects/{kind}/{namespace}/{name}",
        "One object; namespace - for cluster-scoped kinds",
        false,
    ),
    (
        "put",
        "/api/v1/objects/{kind}/{namespace}/{name}",
        "Store an object; If-Match or metadata.resourceVersion names the expected revision",
        true,
    ),
    (
        "delete",
        "/api/v1/objects/{kind}/{namespace}/{name}",
        "Delete an object that was stored here",
        true,
    ),
    ("get", "/apis/{group}/{version}/{plural}", "Objects of a kind that are in force", false),
    (
        "get",
        "/apis/{group}/{version}/namespaces/{namespace}/{plural}",
        "Objects of a kind that are in force",
        false,
    ),
    (
        "get",
        "/api/v1/namespaces/{namespace}/{plural}",
        "Objects of a kind that are in force",
        false,
    ),
    ("get", "/apis/{group}/{version}/{plural}/{name}", "One object", false),
    ("put", "/apis/{group}/{version}/{plural}/{name}", "Store an object", true),
    (
        "delete",
        "/apis/{group}/{version}/{plural}/{name}",
        "Delete an object that was stored here",
        true,
    ),
    ("get", "/apis/{group}/{version}/namespaces/{namespace}/{plural}/{name}", "One object", false),
    (
        "put",
        "/apis/{group}/{version}/namespaces/{namespace}/{plural}/{name}",
        "Store an object",
        true,
    ),
    (
        "delete",
        "/apis/{group}/{version}/namespaces/{namespace}/{plural}/{name}",
        "Delete an object that was stored here",
        true,
    ),
    ("get", "/api/v1/namespaces/{namespace}/{plural}/{name}", "One object", false),
    ("put", "/api/v1/namespaces/{namespace}/{plural}/{name}", "Store an object", true),
    (
        "delete",
        "/api/v1/namespaces/{namespace}/{plural}/{name}",
        "Delete an object that was stored here",
        true,
    ),
    (
        "post",
        "/api/v1/plan",
        "What it would do to proxies and requests to apply items and to delete others; stores nothing",
        true,
    ),
    (
        "post",
        "/api/v1/explain",
        "What becomes of a request of a workload or to a gateway, and which objects decided that",
        true,
    ),
    (
        "get",
        "/api/v1/diagnostics",
        "Findings about the configuration, and what proxies refused",
        false,
    ),
    ("get", "/api/v1/proxies", "Connected proxies and how far each is", false),
    (
        "get",
        "/api/v1/proxies/{id}/config",
        "What a proxy was sent, as protobuf JSON; secrets by name only",
        false,
    ),
    ("get", "/api/v1/workloads", "Workloads of the registry", false),
    ("get", "/api/v1/certificates", "Issued certificates, newest first", false),
    ("get", "/api/v1/log", "What the control plane logs", false),
    ("put", "/api/v1/log", "Log something else from now on", true),
    ("post", "/api/v1/tokens", "Make a join token for one identity", true),
];

/// `GET /openapi.json`
pub(super) async fn document() -> Json<Value> {
    Json(describe())
}

fn describe() -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for (method, path, summary, writes) in OPERATIONS {
        let entry = paths.entry(path).or_insert_with(|| json!({}));
        entry[method] = operation(path, summary, writes, method);
    }
    json!({
        "openapi": "3.1.0",
        "info": { "title": "Ferromesh", "version": env!("CARGO_PKG_VERSION"), "license": { "name": "Apache-2.0" } },
        "paths": paths,
        "components": {
            "securitySchemes": { "administrator": { "type": "http", "scheme": "bearer" } },
            "schemas": {
                "Problem": {
                    "type": "object",
                    "required": ["status", "title", "detail"],
                    "properties": {
                        "status": { "type": "integer" }, "title": { "type": "string" }, "detail": { "type": "string" },
                        "diagnostics": { "type": "array", "items": { "type": "object" } },
                    },
                },
                "Log": {
                    "type": "object",
                    "required": ["filter"],
                    "properties": { "filter": { "type": "string", "examples": ["info", "info,ferromesh_control_plane::ads=debug"] } },
                },
                "TokenRequest": {
                    "type": "object",
                    "required": ["namespace", "serviceAccount"],
                    "properties": {
                        "namespace": { "type": "string" }, "serviceAccount": { "type": "string" },
                        "ttl": { "type": "string", "default": "1h", "examples": ["10m"] },
                        "singleUse": { "type": "boolean", "default": false },
                    },
                },
            },
        },
    })
}

fn operation(path: &str, summary: &str, writes: bool, method: &str) -> Value {
    let parameters: Vec<Value> = path
        .split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
        .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }))
        .chain(dry_run(path, writes))
        .collect();
    let problem = json!({ "description": "Problem", "content": { "application/problem+json": { "schema": { "$ref": "#/components/schemas/Problem" } } } });
    let mut operation = json!({
        "summary": summary,
        "parameters": parameters,
        "responses": { "2XX": { "description": "Done", "content": { "application/json": { "schema": {} } } }, "default": problem },
    });
    if writes {
        operation["security"] = json!([{ "administrator": [] }]);
    }
    if matches!(method, "post" | "put") {
        let schema = match path {
            "/api/v1/tokens" => json!({ "$ref": "#/components/schemas/TokenRequest" }),
            "/api/v1/log" => json!({ "$ref": "#/components/schemas/Log" }),
            _ => json!({ "type": "object" }),
        };
        operation["requestBody"] =
            json!({ "required": true, "content": { "application/json": { "schema": schema } } });
    }
    operation
}

/// The parameter of whatever writes objects.
fn dry_run(path: &str, writes: bool) -> Option<Value> {
    let values = ["true", "All", "false"];
    (writes && !["/api/v1/tokens", "/api/v1/log"].contains(&path))
        .then(|| json!({ "name": "dryRun", "in": "query", "schema": { "enum": values } }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_is_described_and_writing_needs_the_administrator() {
        let router = include_str!("mod.rs");
        let routed: Vec<&str> =
            router.split(".route(").skip(1).filter_map(|r| r.split('"').nth(1)).collect();
        let document = describe();
        let described = document["paths"].as_object().expect("paths");
        for path in &routed {
            assert!(described.contains_key(*path), "{path} is not described");
        }
        assert_eq!(described.len(), routed.len());
        assert_eq!(
            document["paths"]["/api/v1/tokens"]["post"]["security"],
            json!([{ "administrator": [] }])
        );
    }
}
