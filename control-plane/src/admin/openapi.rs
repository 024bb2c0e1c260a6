//! The API's description of itself, OpenAPI 3.1.

mod schemas;

use axum::Json;
use serde_json::{Map, Value, json};

/// One operation: method, path, summary, whether it writes.
type Operation = (&'static str, &'static str, &'static str, bool);

/// Every operation; a test compares the paths with the router.
const OPERATIONS: [Operation; 36] = [
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
    ("get", "/debug/syncz", "How far each proxy is, as istiod says it", false),
    ("get", "/debug/registryz", "Every service, as istiod says it", false),
    ("get", "/debug/endpointz", "Endpoints of every service, as istiod says it", false),
    ("get", "/debug/clusterz", "The cluster, as istiod says it", false),
    ("get", "/debug/configz", "Objects of the mesh's kinds, as istiod says it", false),
    (
        "get",
        "/debug/config_dump",
        "What the proxy of parameter proxyID was sent, in the form of Envoy's admin interface",
        false,
    ),
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
            "securitySchemes": { "administrator": {
                "type": "http", "scheme": "bearer",
                "description": "The administrator's token or a user's: viewers read, plan and explain, editors write objects, \
                                administrators make join tokens and change the log. Without one, loopback may be read.",
            } },
            "schemas": schemas::all(),
        },
    })
}

fn operation(path: &str, summary: &str, writes: bool, method: &str) -> Value {
    let parameters: Vec<Value> = path
        .split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
        .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }))
        .chain(further(path, method))
        .collect();
    let mut operation = json!({
        "operationId": identifier(path, method), "summary": summary, "parameters": parameters,
        "responses": responses(path, method),
    });
    operation["security"] = match (writes, path.starts_with("/healthz/")) {
        (true, _) => json!([{ "administrator": [] }]),
        // On loopback whoever is on this machine may read.
        (false, false) => json!([{}, { "administrator": [] }]),
        (false, true) => json!([]),
    };
    if let Some(schema) = schemas::request(path, method) {
        operation["requestBody"] =
            json!({ "required": true, "content": { "application/json": { "schema": schema } } });
    }
    operation
}

/// Paths of one object, and that at which new ones are stored.
fn is_of_objects(path: &str) -> bool {
    path.ends_with("{name}") || path == "/api/v1/objects"
}

/// Lists that are given in parts, beside those of one kind.
const PAGED: [&str; 4] =
    ["/api/v1/objects", "/api/v1/proxies", "/api/v1/workloads", "/api/v1/certificates"];

/// What may stand in the query and in headers.
fn further(path: &str, method: &str) -> Vec<Value> {
    let text = json!({ "type": "string" });
    let query =
        |name: &str, schema: &Value| json!({ "name": name, "in": "query", "schema": schema });
    let tag = json!({ "type": "string", "pattern": schemas::TAG });
    let header = |name: &str, what: &str| json!({ "name": name, "in": "header", "description": what, "schema": tag });
    let mut all = Vec::new();
    if path == "/debug/config_dump" {
        let mut proxy = query("proxyID", &text);
        proxy["required"] = json!(true);
        proxy["description"] = json!("NAME.NAMESPACE, or a node id");
        all.push(proxy);
    }
    if (path, method) == ("/api/v1/objects", "get") {
        all.extend(["kind", "namespace"].map(|name| query(name, &text)));
    }
    if method == "get" && (PAGED.contains(&path) || path.ends_with("{plural}")) {
        all.push(query("limit", &json!({ "type": "integer", "minimum": 1 })));
        all.push(query("continue", &text));
        return all;
    }
    if is_of_objects(path) && method != "get" {
        all.push(query("dryRun", &json!({ "enum": ["true", "All", "false"] })));
    }
    if (path, method) == ("/api/v1/objects", "post") {
        let mut only =
            header("If-None-Match", "that there is none, which a new object asks for anyway");
        only["schema"] = json!({ "const": "*" });
        all.push(only);
    } else if is_of_objects(path) {
        all.push(header("If-Match", "the revision that must be there, or *"));
        all.push(header("If-None-Match", "the revision that must not be there, or *"));
    }
    all
}

/// What is answered: what was done, and problems for all else.
fn responses(path: &str, method: &str) -> Value {
    let plain = path.starts_with("/healthz/");
    let media = if plain { "text/plain" } else { "application/json" };
    let done = |what: &str| {
        let mut done = json!({ "description": what, "content": { media: { "schema": schemas::answer(path, method) } } });
        if path.ends_with("{name}") && method != "delete" {
            done["headers"] = json!({ "ETag": {
                "description": "the revision of an object that is stored here", "schema": { "type": "string" },
            } });
        }
        done
    };
    let problem = json!({ "description": "What is wrong", "content": { "application/problem+json": {
        "schema": schemas::of("Problem"),
    } } });
    let mut all = match (path, method) {
        ("/api/v1/tokens", _) => json!({ "201": done("It was made") }),
        ("/api/v1/objects", "post") => {
            json!({ "200": done("It would be stored"), "201": done("It is stored") })
        }
        (path, "put") if is_of_objects(path) => {
            json!({ "200": done("It is stored in the place of another, or would be"), "201": done("It is stored, and was not there") })
        }
        (path, "get") if path.ends_with("{name}") => {
            json!({ "200": done("Done"), "304": { "description": "It is at the revision that If-None-Match names" } })
        }
        _ => json!({ "200": done("Done") }),
    };
    match plain {
        true => {
            all["503"] = json!({ "description": "Not yet", "content": { media: { "schema": { "type": "string" } } } })
        }
        false => all["default"] = problem,
    }
    all
}

/// A name for the operation that no other has: `putApiV1ObjectsByKindByNamespaceByName`.
fn identifier(path: &str, method: &str) -> String {
    let capital = |word: &str| {
        let (first, rest) = word.split_at_checked(1).unwrap_or_default();
        first.to_uppercase() + rest
    };
    let part = |part: &str| match part.strip_prefix('{').and_then(|name| name.strip_suffix('}')) {
        Some(name) => format!("By{}", capital(name)),
        None => part.split(|c: char| !c.is_ascii_alphanumeric()).map(capital).collect(),
    };
    path.split('/').map(part).fold(method.to_owned(), |all, part| all + &part)
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
        assert_eq!(
            document["paths"]["/api/v1/proxies"]["get"]["security"],
            json!([{}, { "administrator": [] }])
        );
    }

    #[test]
    fn every_schema_that_is_named_is_there_and_every_one_is_named() {
        let text = describe().to_string();
        let schemas = schemas::all();
        let known = schemas.as_object().expect("schemas");
        for name in text.split("#/components/schemas/").skip(1).filter_map(|r| r.split('"').next())
        {
            assert!(known.contains_key(name), "{name}");
        }
        for name in known.keys() {
            assert!(text.contains(&format!("#/components/schemas/{name}\"")), "{name} is nobody's");
        }
    }

    #[test]
    fn every_operation_has_a_name_of_its_own_and_says_what_it_answers() {
        let document = describe();
        let paths = document["paths"].as_object().expect("paths");
        let operations =
            paths.values().flat_map(|methods| methods.as_object().expect("methods").values());
        let operations: Vec<&Value> = operations.collect();
        let names: std::collections::BTreeSet<&str> =
            operations.iter().filter_map(|operation| operation["operationId"].as_str()).collect();
        assert_eq!(names.len(), OPERATIONS.len());
        assert!(names.contains("putApiV1ObjectsByKindByNamespaceByName"), "{names:?}");
        for operation in operations {
            let answers = operation["responses"].as_object().expect("responses");
            assert!(answers.len() > 1 && !answers.contains_key("2XX"), "{operation}");
        }
        let dump = &document["paths"]["/debug/config_dump"]["get"]["parameters"];
        assert_eq!(
            (dump[0]["name"].as_str(), dump[0]["required"].as_bool()),
            (Some("proxyID"), Some(true))
        );
        let stored = &document["paths"]["/api/v1/objects/{kind}/{namespace}/{name}"]["put"];
        let names: Vec<&str> = stored["parameters"]
            .as_array()
            .expect("parameters")
            .iter()
            .filter_map(|parameter| parameter["name"].as_str())
            .collect();
        assert_eq!(names, ["kind", "namespace", "name", "dryRun", "If-Match", "If-None-Match"]);
        assert!(stored["responses"]["201"]["headers"]["ETag"].is_object());
    }
}
