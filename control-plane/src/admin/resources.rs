//! Objects at the paths at which Kubernetes has them, with the answers of [`super::objects`]:
//! `/apis/GROUP/VERSION/namespaces/NAMESPACE/PLURAL/NAME`, and `/api/v1/…` for the core group.

use std::sync::Arc;

use axum::{
    Extension, Json,
    body::Bytes,
    extract::{Path, State},
    http::HeaderMap,
    response::Response,
};
use ferromesh_xds_translator::{dialect::Kind, ir::ObjectId};
use serde::Deserialize;
use serde_json::Value;

use super::{
    api::Api,
    objects::{self, Body},
    page::Page,
    parameters::{NoParameters, Parameters, WriteParameters},
    problem::Problem,
    users::Who,
};

/// Objects of a kind, or one of them. Parts that a path lacks are empty: the group of the core
/// group, the namespace of objects that have none, the name of a list.
#[derive(Deserialize)]
pub(super) struct Resource {
    #[serde(default)]
    group: String,
    #[serde(default = "core_version")]
    version: String,
    #[serde(default)]
    namespace: String,
    plural: String,
    #[serde(default)]
    name: String,
}

fn core_version() -> String {
    "v1".to_owned()
}

impl Resource {
    fn kind(&self) -> Result<Kind, Problem> {
        let kind = Kind::from_resource(&self.group, &self.plural);
        let kind = kind.filter(|kind| kind.versions().contains(&&*self.version));
        kind.ok_or_else(|| {
            let detail = match Kind::named(&self.plural) {
                Ok(near) => format!(
                    "no {} in {}/{}; {} is served in {}",
                    self.plural,
                    self.group,
                    self.version,
                    near.resource(),
                    near.versions().join(", ")
                ),
                Err(unknown) => unknown.to_string(),
            };
            Problem::not_found(detail)
        })
    }

    /// The object that the path names.
    fn identity(&self) -> Result<ObjectId, Problem> {
        let kind = self.kind()?;
        if kind.namespaced() == self.namespace.is_empty() {
            let where_it_is = if kind.namespaced() { "in a namespace" } else { "in no namespace" };
            return Err(Problem::not_found(format!("objects of {kind} are {where_it_is}")));
        }
        let (namespace, name) = (self.namespace.as_str().into(), self.name.as_str().into());
        Ok(ObjectId { kind, namespace, name })
    }
}

/// `GET` of a kind, in one namespace or in all.
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    Path(resource): Path<Resource>,
    Parameters(page): Parameters<Page>,
) -> Result<Json<Value>, Problem> {
    let namespace = Some(&*resource.namespace).filter(|namespace| !namespace.is_empty());
    objects::in_force(&api, Some(resource.kind()?), namespace, &page).await
}

/// `GET` of an object.
pub(super) async fn read(
    State(api): State<Arc<Api>>,
    Path(resource): Path<Resource>,
    _: Parameters<NoParameters>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    objects::find(&api, resource.identity()?, &headers).await
}

/// `PUT` of an object.
pub(super) async fn replace(
    State(api): State<Arc<Api>>,
    Extension(who): Extension<Who>,
    Path(resource): Path<Resource>,
    Parameters(query): Parameters<WriteParameters>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    objects::write((&api, &who), &resource.identity()?, &query, &headers, body).await
}

/// `DELETE` of an object.
pub(super) async fn delete(
    State(api): State<Arc<Api>>,
    Extension(who): Extension<Who>,
    Path(resource): Path<Resource>,
    Parameters(query): Parameters<WriteParameters>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Value>, Problem> {
    objects::remove((&api, &who), &resource.identity()?, &query, &headers, &body).await
}
