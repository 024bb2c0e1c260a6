//! Objects over REST: read, validate, write, delete, with revisions for compare-and-set.

use std::sync::Arc;

use axum::{
    Extension, Json,
    body::Bytes,
    extract::{Path, State, rejection::JsonRejection},
    http::{HeaderMap, StatusCode, Uri, header::ETAG},
    response::{IntoResponse, Response},
};
use ferromesh_xds_translator::{
    dialect::{Kind, Object},
    ir::ObjectId,
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    api::Api,
    deletion,
    page::Page,
    parameters::{NoParameters, Parameters, WriteParameters},
    precondition::{answer_instead, expectation},
    problem::Problem,
    users::Who,
};
use crate::{
    event::SourceId,
    json::Written,
    source::rest::{Accepted, Deletion, Kept, Mode, WriteError},
    store::{Expect, StoreError},
};

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    kind: Option<String>,
    namespace: Option<String>,
    limit: Option<String>,
    #[serde(rename = "continue")]
    mark: Option<String>,
}

type Place = Path<(String, String, String)>;
pub(super) type Body = Result<Json<Written>, JsonRejection>;

/// `GET /api/v1/objects?kind=…&namespace=…`
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    Parameters(query): Parameters<ListQuery>,
) -> Result<Json<Value>, Problem> {
    let kind = query.kind.as_deref().map(kind).transpose()?;
    let page = Page::new(query.limit, query.mark);
    in_force(&api, kind, query.namespace.as_deref(), &page).await
}

/// A part of the objects in force and the Secrets that are stored here, sorted by identity; `None`: of
/// every kind, of every namespace.
pub(super) async fn in_force(
    api: &Api,
    kind: Option<Kind>,
    namespace: Option<&str>,
    page: &Page,
) -> Result<Json<Value>, Problem> {
    let wanted = |id: &ObjectId| {
        kind.is_none_or(|k| id.kind == k) && namespace.is_none_or(|n| n == &*id.namespace)
    };
    let objects = api.mesh.objects().await?;
    let mut items: Vec<(ObjectId, Value)> = objects
        .iter()
        .filter(|(_, o)| wanted(&o.id))
        .map(|(source, o)| (o.id.clone(), summary(api, *source, o)))
        .collect();
    let secrets = api.objects.secrets().into_iter().filter(|(id, _)| wanted(id));
    items.extend(secrets.map(|(id, revision)| {
        let item = summarized(&id, SourceId::Rest, Some(revision), None);
        (id, item)
    }));
    items.sort_by(|(one, _), (other, _)| one.cmp(other));
    Ok(Json(page.of(items)?))
}

/// An object that is in force, by name; its content is one request away.
fn summary(api: &Api, source: SourceId, object: &Object) -> Value {
    let id = &object.id;
    let revision = (source == SourceId::Rest).then(|| api.objects.revision(id)).flatten();
    summarized(id, source, revision, object.written_at())
}

fn summarized(
    id: &ObjectId,
    source: SourceId,
    revision: Option<u64>,
    written_at: Option<String>,
) -> Value {
    json!({
        "kind": id.kind.kind_name(), "namespace": id.namespace, "name": id.name, "source": source,
        "revision": revision, "writtenAt": written_at,
    })
}

/// `POST /api/v1/objects`: a new object, or with `dryRun=true` several as a `List`.
pub(super) async fn create(
    State(api): State<Arc<Api>>,
    Extension(who): Extension<Who>,
    Parameters(query): Parameters<WriteParameters>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let mode = query.mode()?;
    let condition = expectation(&headers)?;
    if !matches!(condition, Expect::Any | Expect::Absent) {
        return Err(Problem::bad_request(
            "a new object replaces no revision: expected no condition, or If-None-Match: *",
        ));
    }
    let value = content(body)?;
    if value["kind"] == "List" {
        return judge_list(&api, value, mode).await;
    }
    let named = named(&value);
    match api.objects.put(value, Expect::Absent, &who.name, mode).await {
        Ok(accepted) => Ok(written(accepted, mode)),
        // Whoever asked that there be none is told that this does not hold (RFC 9110 section 13.1.2).
        Err(error) if condition == Expect::Any && error.is_conflict() => {
            let detail = format!("{named} exists: replace it with PUT");
            Err(Problem::new(StatusCode::CONFLICT, "already exists", detail))
        }
        Err(error) => Err(error.into()),
    }
}

/// The objects of a `List`, judged together: what a write of each would be answered, in their
/// order.
async fn judge_list(api: &Api, mut list: Value, mode: Mode) -> Result<Response, Problem> {
    if mode == Mode::Commit {
        return Err(Problem::bad_request(
            "a List is only judged, with dryRun=true; objects are written one by one",
        ));
    }
    let Value::Array(items) = list["items"].take() else {
        return Err(Problem::bad_request("items: expected a list of objects"));
    };
    let answer = |outcome| match outcome {
        Ok(Accepted { object, diagnostics, .. }) => {
            json!({ "object": object, "diagnostics": diagnostics })
        }
        Err(refused) => json!(Problem::from(refused)),
    };
    let outcomes = api.objects.rehearse(items).await?;
    let items: Vec<Value> = outcomes.into_iter().map(answer).collect();
    Ok(Json(json!({ "items": items })).into_response())
}

/// `GET /api/v1/objects/{kind}/{namespace}/{name}`
pub(super) async fn read(
    State(api): State<Arc<Api>>,
    Path(place): Place,
    _: Parameters<NoParameters>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    find(&api, identity(&place)?, &headers).await
}

/// An object that is in force, with its revision if it was stored here.
pub(super) async fn find(
    api: &Api,
    id: ObjectId,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    let expect = expectation(headers)?;
    if let Some(entry) = api.objects.get(id.kind, &id.namespace, &id.name) {
        if let Some(status) = answer_instead(expect, Some(entry.revision)) {
            return Ok((status, [(ETAG, tag(entry.revision))]).into_response());
        }
        let body =
            json!({ "revision": entry.revision, "source": SourceId::Rest, "object": entry.value });
        return Ok(([(ETAG, tag(entry.revision))], Json(body)).into_response());
    }
    let serving = api.mesh.objects().await?.into_iter().find(|(_, object)| object.id == id);
    let missing = || Problem::not_found(format!("no {id} is in force"));
    let (source, object) = serving.ok_or_else(missing)?;
    if let Some(status) = answer_instead(expect, None) {
        return Ok(status.into_response());
    }
    Ok(Json(json!({ "revision": Value::Null, "source": source, "object": object.to_json() }))
        .into_response())
}

/// `PUT /api/v1/objects/{kind}/{namespace}/{name}`: new or changed; `If-Match` or the object's
/// `resourceVersion` names the expected revision.
pub(super) async fn replace(
    State(api): State<Arc<Api>>,
    Extension(who): Extension<Who>,
    Path(place): Place,
    Parameters(query): Parameters<WriteParameters>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    write((&api, &who), &identity(&place)?, &query, &headers, body).await
}

/// Stores an object under its identity.
pub(super) async fn write(
    (api, who): (&Api, &Who),
    id: &ObjectId,
    query: &WriteParameters,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let (mode, expect) = (query.mode()?, expectation(headers)?);
    let value = content(body)?;
    agrees(&value, id)?;
    let accepted = api.objects.put(value, expect, &who.name, mode).await?;
    Ok(written(accepted, mode))
}

/// `DELETE /api/v1/objects/{kind}/{namespace}/{name}`, with `DeleteOptions` or nothing.
pub(super) async fn delete(
    State(api): State<Arc<Api>>,
    Extension(who): Extension<Who>,
    Path(place): Place,
    Parameters(query): Parameters<WriteParameters>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Value>, Problem> {
    remove((&api, &who), &identity(&place)?, &query, &headers, &body).await
}

/// Deletes an object that was stored here, unless it is a dry run.
pub(super) async fn remove(
    (api, who): (&Api, &Who),
    id: &ObjectId,
    query: &WriteParameters,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Json<Value>, Problem> {
    let options = deletion::read(body)?;
    let mode = if options.mode == Mode::DryRun { Mode::DryRun } else { query.mode()? };
    let (expect, version) = (expectation(headers)?, options.version.as_str());
    let asked = Deletion { expect, version, who: &who.name, mode };
    match api.objects.delete(id, asked).await {
        Ok(revision) => Ok(Json(json!({ "revision": revision }))),
        Err(error @ WriteError::Store(StoreError::NotFound(_))) => {
            Err(of_a_file(api, id).await?.unwrap_or_else(|| error.into()))
        }
        Err(error) => Err(error.into()),
    }
}

/// That an object was not stored here but is written in a file, if it is.
async fn of_a_file(api: &Api, id: &ObjectId) -> Result<Option<Problem>, Problem> {
    let written = api.mesh.object(id.clone()).await?.and_then(|object| object.written_at());
    Ok(written.map(|place| {
        let detail = format!("{id} is written in {place}: take it out there");
        Problem::new(StatusCode::CONFLICT, "written in a file", detail)
    }))
}

/// Any other path.
pub(super) async fn no_such_path(uri: Uri) -> Problem {
    Problem::not_found(format!("no such path: {}; /openapi.json lists them", uri.path()))
}

/// 201 for what is there from now on and was not before, 200 for all else.
fn written(accepted: Accepted, mode: Mode) -> Response {
    let Accepted { kept: Kept { revision, created }, object, diagnostics } = accepted;
    let status = match (mode, created) {
        (Mode::Commit, true) => StatusCode::CREATED,
        _ => StatusCode::OK,
    };
    let body = Json(json!({ "revision": revision, "object": object, "diagnostics": diagnostics }));
    (status, [(ETAG, tag(revision))], body).into_response()
}

fn tag(revision: u64) -> String {
    format!("\"{revision}\"")
}

/// The JSON of a request's body.
pub(super) fn content(body: Body) -> Result<Value, Problem> {
    match body {
        Ok(Json(Written { value, mistake: None })) => Ok(value),
        Ok(Json(Written { mistake: Some(mistake), .. })) => {
            Err(WriteError::Invalid(vec![*mistake]).into())
        }
        Err(rejection) => {
            Err(Problem::new(rejection.status(), "unreadable body", rejection.body_text()))
        }
    }
}

fn kind(name: &str) -> Result<Kind, Problem> {
    Kind::named(name).map_err(|unknown| Problem::not_found(unknown.to_string()))
}

/// The object of a path: kind, namespace (`-` stands for none) and name.
fn identity((kind_name, namespace, name): &(String, String, String)) -> Result<ObjectId, Problem> {
    let kind = kind(kind_name)?;
    let namespace = if kind.namespaced() { namespace.as_str() } else { "" };
    Ok(ObjectId { kind, namespace: namespace.into(), name: name.as_str().into() })
}

/// The body must be the object that the path names.
fn agrees(value: &Value, id: &ObjectId) -> Result<(), Problem> {
    let (namespace, name) = (text(value, "/metadata/namespace"), text(value, "/metadata/name"));
    let same_kind = Kind::of_value(value).is_ok_and(|kind| kind == id.kind);
    let same_namespace = *namespace == *id.namespace
        || (namespace.is_empty() && matches!(&*id.namespace, "" | "default"));
    if same_kind && same_namespace && *name == *id.name {
        return Ok(());
    }
    Err(Problem::bad_request(format!("the path names {id}, the body {}", named(value))))
}

/// What an object calls itself.
fn named(value: &Value) -> String {
    let [kind, namespace, name] =
        ["/kind", "/metadata/namespace", "/metadata/name"].map(|pointer| text(value, pointer));
    format!("{kind} {namespace}/{name}")
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}
