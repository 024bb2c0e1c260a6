//! What requests and answers are made of, as JSON Schema: what is written in them, and not what
//! objects mean, which is found out when they are judged.

use serde_json::{Value, json};

/// A revision in quotes, as ETag gives it, or whatever is there.
pub(super) const TAG: &str = r#"^(\*|"[0-9]{1,18}")$"#;
/// A name of DNS (RFC 1123).
const LABEL: &str = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$";
/// Minutes, since a day is the longest.
const DURATION: &str = "^([1-9][0-9]{0,2}m|[1-9][0-9]{0,3}s|[1-9]h)$";
/// A level, and others of some targets.
const FILTER: &str =
    "^(error|warn|info|debug|trace|off)(,[a-z_]+(::[a-z_]+)*=(error|warn|info|debug|trace|off))*$";

/// A reference to one of [`all`].
pub(super) fn of(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

/// What an operation is given; `None`: it has no body.
pub(super) fn request(path: &str, method: &str) -> Option<Value> {
    matches!(method, "post" | "put").then(|| match path {
        "/api/v1/tokens" => of("TokenRequest"),
        "/api/v1/log" => of("Log"),
        "/api/v1/plan" => of("Change"),
        "/api/v1/explain" => of("Question"),
        "/api/v1/objects" => json!({ "anyOf": [of("Object"), of("Objects")] }),
        _ => of("Object"),
    })
}

/// What an operation answers where it is done.
pub(super) fn answer(path: &str, method: &str) -> Value {
    match (path, method) {
        ("/api/v1/objects", "post") => json!({ "anyOf": [of("Stored"), of("Judged")] }),
        ("/api/v1/tokens", _) => of("Token"),
        ("/api/v1/log", _) => of("Log"),
        ("/api/v1/plan", _) => of("Forecast"),
        ("/api/v1/diagnostics", _) => of("Diagnostics"),
        ("/api/v1/proxies" | "/api/v1/workloads" | "/api/v1/certificates", _) => of("Part"),
        (path, "get") if path == "/api/v1/objects" || path.ends_with("{plural}") => of("Summaries"),
        (path, "get") if path.ends_with("{name}") => of("Found"),
        (path, "put") if path.ends_with("{name}") => of("Stored"),
        (_, "delete") => of("Deleted"),
        ("/debug/syncz" | "/debug/registryz" | "/debug/endpointz" | "/debug/clusterz", _)
        | ("/debug/configz", _) => json!({ "type": "array", "items": { "type": "object" } }),
        (path, _) if path.starts_with("/healthz/") => json!({ "type": "string" }),
        _ => json!({ "type": "object" }),
    }
}

/// Every schema by its name.
pub(super) fn all() -> Value {
    let text = json!({ "type": "string" });
    let number = json!({ "type": "integer", "minimum": 0 });
    let list = |items: Value| json!({ "type": "array", "items": items });
    let findings = list(of("Diagnostic"));
    let closed = |required: &[&str], properties: Value| json!({ "type": "object", "required": required, "properties": properties, "additionalProperties": false });
    let open = |required: &[&str], properties: Value| json!({ "type": "object", "required": required, "properties": properties });
    let revision = json!({ "type": "integer", "minimum": 0, "description": "0 for a dry run" });
    let more = json!({ "type": "object", "description": "where there is more", "required": ["continue", "remainingItemCount"],
        "properties": { "continue": text, "remainingItemCount": number } });
    let metadata = open(&["name"], json!({ "name": text, "namespace": text }));
    let object = open(
        &["apiVersion", "kind", "metadata"],
        json!({ "apiVersion": text, "kind": text, "metadata": metadata }),
    );
    let summary = open(
        &["kind", "namespace", "name", "source", "revision"],
        json!({ "kind": text, "namespace": text, "name": text, "source": text,
            "revision": { "type": ["integer", "null"], "description": "of what is stored here" },
            "writtenAt": { "type": ["string", "null"], "description": "the file and its line" } }),
    );
    json!({
        "Problem": open(&["status", "title", "detail"], json!({
            "status": number, "title": text, "detail": text, "errors": list(of("FieldError")), "diagnostics": findings,
        })),
        "FieldError": open(&["pointer", "detail"], json!({
            "pointer": { "type": "string", "description": "a field of the request's object, as the fragment of a URI (RFC 6901)" },
            "detail": text,
        })),
        "Diagnostic": open(&["code", "severity", "message"], json!({
            "code": text, "severity": text, "message": text, "object": { "type": ["object", "null"] }, "field": text, "fix": text,
        })),
        "Diagnostics": open(&["items"], json!({ "items": findings })),
        "Object": object,
        "Objects": open(&["kind", "items"], json!({ "kind": { "const": "List" }, "items": list(of("Object")) })),
        "Summaries": open(&["items"], json!({ "items": list(summary), "metadata": more })),
        "Part": open(&["items"], json!({ "items": list(json!({ "type": "object" })), "metadata": more })),
        "Found": open(&["revision", "source", "object"], json!({
            "revision": { "type": ["integer", "null"], "description": "of what is stored here" }, "source": text, "object": of("Object"),
        })),
        "Stored": open(&["revision", "object", "diagnostics"], json!({
            "revision": revision, "object": of("Object"), "diagnostics": findings,
        })),
        "Judged": open(&["items"], json!({ "items": list(json!({ "type": "object" })) })),
        "Deleted": open(&["revision"], json!({ "revision": revision })),
        "Log": closed(&["filter"], json!({ "filter": {
            "type": "string", "pattern": FILTER, "examples": ["info", "info,ferromesh_control_plane::ads=debug"],
        } })),
        "TokenRequest": closed(&["namespace", "serviceAccount"], json!({
            "namespace": { "type": "string", "pattern": LABEL }, "serviceAccount": { "type": "string", "pattern": LABEL },
            "ttl": { "type": "string", "pattern": DURATION, "default": "1h", "examples": ["10m"] },
            "singleUse": { "type": "boolean", "default": false },
        })),
        "Token": open(&["token", "spiffeId", "ttl"], json!({ "token": text, "spiffeId": text, "ttl": text })),
        "Change": closed(&[], json!({
            "items": list(of("Object")),
            "delete": list(closed(&["kind", "name"], json!({ "kind": text, "namespace": text, "name": text }))),
        })),
        "Forecast": open(&["changesTraffic", "effects", "diagnostics"], json!({
            "changesTraffic": { "type": "boolean" }, "effects": list(json!({})), "diagnostics": findings,
        })),
        "Question": {
            "type": "object",
            "required": ["method", "url"],
            "oneOf": [{ "required": ["from"] }, { "required": ["gateway"] }],
            "properties": {
                "from": text, "gateway": text, "method": { "type": "string", "pattern": "^[A-Z]{1,16}$" },
                "url": { "type": "string", "pattern": "^https?://[a-z0-9.-]+(:[1-9][0-9]{0,3})?(/[A-Za-z0-9._-]*)*$" },
                "headers": { "description": "as NAME: VALUE", "type": "array", "items": { "type": "string", "pattern": "^[a-z-]+: [A-Za-z0-9 ]*$" } },
            },
            "additionalProperties": false,
        },
    })
}
