//! Objects over REST: read, validate, write, delete, with revisions for compare-and-set.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, Query, State, rejection::JsonRejection},
    http::{
        HeaderMap, StatusCode, Uri,
        header::{ETAG, IF_MATCH, IF_NONE_MATCH},
    },
    response::{IntoResponse, Response},
};
use ferromesh_xds_translator::{dialect::Kind, ir::ObjectId};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Api, problem::Problem};
use crate::{
    source::{
        SourceId,
        rest::{Accepted, Mode},
    },
    store::Expect,
};

/// Who writes, as the journal records it. The API has one administrator.
const ADMINISTRATOR: &str = "administrator";

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct WriteQuery {
    #[serde(default)]
    dry_run: bool,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    kind: Option<String>,
    namespace: Option<String>,
}

type Place = Path<(String, String, String)>;
type Body = Result<Json<Value>, JsonRejection>;

/// `GET /api/v1/objects?kind=…&namespace=…`
pub(super) async fn list(State(api): State<Arc<Api>>, Query(query): Query<ListQuery>) -> Result<Json<Value>, Problem> {
    let kind = query.kind.as_deref().map(kind).transpose()?;
    let wanted = |id: &ObjectId| {
        kind.is_none_or(|k| id.kind == k) && query.namespace.as_deref().is_none_or(|n| n == &*id.namespace)
    };
    let objects = api.mesh.objects().await?;
    // Already sorted by identity.
    let items: Vec<Value> =
        objects.iter().filter(|(_, o)| wanted(&o.id)).map(|(source, o)| summary(&api, *source, &o.id)).collect();
    Ok(Json(json!({ "items": items })))
}

/// An object that is in force, by name; its content is one request away.
fn summary(api: &Api, source: SourceId, id: &ObjectId) -> Value {
    let stored = (source == SourceId::Rest).then(|| api.objects.get(id.kind, &id.namespace, &id.name)).flatten();
    json!({
        "kind": id.kind.kind_name(), "namespace": id.namespace, "name": id.name, "source": source,
        "revision": stored.map(|e| e.revision),
    })
}

/// `POST /api/v1/objects`: a new object.
pub(super) async fn create(
    State(api): State<Arc<Api>>,
    Query(query): Query<WriteQuery>,
    body: Body,
) -> Result<Response, Problem> {
    let value = content(body)?;
    let accepted = api.objects.put(value, Expect::Absent, ADMINISTRATOR, query.mode()).await?;
    Ok(written(accepted, StatusCode::CREATED))
}

/// `GET /api/v1/objects/{kind}/{namespace}/{name}`
pub(super) async fn read(State(api): State<Arc<Api>>, Path(place): Place) -> Result<Response, Problem> {
    let (kind, namespace, name) = parse(&place)?;
    if let Some(entry) = api.objects.get(kind, namespace, name) {
        let body = json!({ "revision": entry.revision, "source": SourceId::Rest, "object": entry.value });
        return Ok(([(ETAG, tag(entry.revision))], Json(body)).into_response());
    }
    let id = ObjectId { kind, namespace: namespace.into(), name: name.into() };
    let serving = api.mesh.objects().await?.into_iter().find(|(_, object)| object.id == id);
    let missing = || Problem::not_found(format!("no {} {namespace}/{name} is in force", kind.kind_name()));
    let (source, object) = serving.ok_or_else(missing)?;
    Ok(Json(json!({ "revision": Value::Null, "source": source, "object": object.to_json() })).into_response())
}

/// `PUT /api/v1/objects/{kind}/{namespace}/{name}`: new or changed; `If-Match` names the expected revision.
pub(super) async fn replace(
    State(api): State<Arc<Api>>,
    Path(place): Place,
    Query(query): Query<WriteQuery>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let (kind, namespace, name) = parse(&place)?;
    let value = content(body)?;
    agrees(&value, kind, namespace, name)?;
    let accepted = api.objects.put(value, expectation(&headers)?, ADMINISTRATOR, query.mode()).await?;
    Ok(written(accepted, StatusCode::OK))
}

/// `DELETE /api/v1/objects/{kind}/{namespace}/{name}`
pub(super) async fn delete(
    State(api): State<Arc<Api>>,
    Path(place): Place,
    headers: HeaderMap,
) -> Result<Json<Value>, Problem> {
    let (kind, namespace, name) = parse(&place)?;
    let revision = api.objects.delete(kind, namespace, name, expectation(&headers)?, ADMINISTRATOR).await?;
    Ok(Json(json!({ "revision": revision })))
}

/// Any other path.
pub(super) async fn no_such_path(uri: Uri) -> Problem {
    Problem::not_found(format!("no such path: {}; /openapi.json lists them", uri.path()))
}

impl WriteQuery {
    fn mode(&self) -> Mode {
        if self.dry_run { Mode::DryRun } else { Mode::Commit }
    }
}

fn written(accepted: Accepted, status: StatusCode) -> Response {
    let Accepted { revision, object, diagnostics } = accepted;
    let body = Json(json!({ "revision": revision, "object": object, "diagnostics": diagnostics }));
    (status, [(ETAG, tag(revision))], body).into_response()
}

fn tag(revision: u64) -> String {
    format!("\"{revision}\"")
}

fn content(body: Body) -> Result<Value, Problem> {
    match body {
        Ok(Json(value)) => Ok(value),
        Err(rejection) => Err(Problem::new(rejection.status(), "unreadable body", rejection.body_text())),
    }
}

fn kind(plural: &str) -> Result<Kind, Problem> {
    Kind::from_plural(plural).filter(|k| k.served()).ok_or_else(|| {
        let known: Vec<&str> = Kind::all_served().map(Kind::plural).collect();
        Problem::not_found(format!("no kind {plural:?}: expected one of {}", known.join(", ")))
    })
}

/// Kind, namespace (`-` stands for none) and name of a path.
fn parse(place: &(String, String, String)) -> Result<(Kind, &str, &str), Problem> {
    let kind = kind(&place.0)?;
    let namespace = if kind.namespaced() { place.1.as_str() } else { "" };
    Ok((kind, namespace, &place.2))
}

/// The body must be the object that the path names.
fn agrees(value: &Value, kind: Kind, namespace: &str, name: &str) -> Result<(), Problem> {
    let field = |pointer: &str| value.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let written = (field("/kind"), field("/metadata/namespace"), field("/metadata/name"));
    let same_namespace = written.1 == namespace || (written.1.is_empty() && matches!(namespace, "" | "default"));
    if written.0 == kind.kind_name() && same_namespace && written.2 == name {
        return Ok(());
    }
    let detail = format!(
        "the path names {} {namespace}/{name}, the body {} {}/{}",
        kind.kind_name(),
        written.0,
        written.1,
        written.2
    );
    Err(Problem::bad_request(detail))
}

fn expectation(headers: &HeaderMap) -> Result<Expect, Problem> {
    let text = |name| headers.get(name).and_then(|v| v.to_str().ok());
    if text(IF_NONE_MATCH) == Some("*") {
        return Ok(Expect::Absent);
    }
    match text(IF_MATCH) {
        None | Some("*") => Ok(Expect::Any),
        Some(tag) => match tag.trim_matches('"').parse() {
            Ok(revision) => Ok(Expect::Revision(revision)),
            Err(_) => {
                Err(Problem::bad_request(format!("If-Match {tag:?}: expected a revision in quotes, as ETag gave it")))
            }
        },
    }
}
