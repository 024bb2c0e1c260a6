//! What a change would do, over REST: `POST /api/v1/plan`.

use std::{collections::BTreeSet, sync::Arc};

use axum::{Json, extract::State, http::StatusCode};
use ferromesh_xds_translator::{
    dialect::{Kind, Object, parse_value},
    ir::ObjectId,
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    api::Api,
    objects::{Body, content},
    parameters::{NoParameters, Parameters},
    problem::Problem,
};
use crate::judge::Foreseen;

/// A change: objects to apply, and objects to delete.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    #[serde(default)]
    items: Vec<Value>,
    #[serde(default)]
    delete: Vec<Named>,
}

/// An object by name.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    kind: String,
    #[serde(default)]
    namespace: String,
    name: String,
}

/// `POST /api/v1/plan`: nothing is stored.
pub(super) async fn plan(
    State(api): State<Arc<Api>>,
    _: Parameters<NoParameters>,
    body: Body,
) -> Result<Json<Value>, Problem> {
    let change: Change = serde_json::from_value(content(body)?)
        .map_err(|error| Problem::bad_request(format!("expected items and delete: {error}")))?;
    let objects = change.items.into_iter().map(read).collect::<Result<Vec<_>, _>>()?;
    let deleted = change.delete.iter().map(named).collect::<Result<BTreeSet<_>, _>>()?;
    if !deleted.is_empty() {
        let in_force = api.mesh.objects().await?;
        let is_there = |id: &&ObjectId| in_force.iter().any(|(_, object)| object.id == **id);
        if let Some(id) = deleted.iter().find(|id| !is_there(id)) {
            return Err(Problem::not_found(format!("{id} is not in force")));
        }
    }
    match api.judge.foresee(objects, deleted).await? {
        Some(Foreseen { findings, forecast: Some(forecast) }) => Ok(Json(json!({
            "changesTraffic": forecast.changes_traffic(),
            "effects": forecast.effects,
            "diagnostics": findings,
        }))),
        Some(Foreseen { findings, forecast: None }) => {
            Err(refused("an object of the change would be refused").with(findings))
        }
        None => Err(Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "no forecast",
            "what the change would do cannot be told; see the log",
        )),
    }
}

fn read(value: Value) -> Result<Object, Problem> {
    let read = parse_value(value);
    read.map(|(object, _)| object).map_err(|diagnostics| {
        let detail = diagnostics.first().map(ToString::to_string).unwrap_or_default();
        refused(detail).with(diagnostics)
    })
}

fn refused(detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid object", detail)
}

fn named(named: &Named) -> Result<ObjectId, Problem> {
    let kind = Kind::named(&named.kind).map_err(|error| Problem::bad_request(error.to_string()))?;
    let namespace = if kind.namespaced() { named.namespace.as_str() } else { "" };
    Ok(ObjectId { kind, namespace: namespace.into(), name: named.name.as_str().into() })
}
