//! The mesh over REST: proxies, workloads, certificates, diagnostics, join tokens.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use axum::{
    Extension, Json,
    extract::{Path, State, rejection::JsonRejection},
    http::StatusCode,
};
use ferromesh_cert_authority::{Uses, authority::IssuedRecord};
use ferromesh_proto::{SpiffeId, TrustDomain};
use ferromesh_xds_translator::{dialect::scalar::parse_duration, ir::Workload};
use serde::Deserialize;
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    api::Api,
    page::Page,
    parameters::{NoParameters, Parameters},
    problem::Problem,
    users::Who,
};

/// How many certificates a list shows, newest first.
const SHOWN_CERTIFICATES: usize = 10_000;
/// Longest life of a join token.
const LONGEST_TOKEN: Duration = Duration::from_secs(24 * 3600);

/// `GET /api/v1/diagnostics`
pub(super) async fn diagnostics(
    State(api): State<Arc<Api>>,
    _: Parameters<NoParameters>,
) -> Result<Json<Value>, Problem> {
    Ok(Json(json!({ "items": api.findings.all().await? })))
}

/// `GET /api/v1/proxies`
pub(super) async fn proxies(
    State(api): State<Arc<Api>>,
    Parameters(page): Parameters<Page>,
) -> Result<Json<Value>, Problem> {
    let numbered = api.proxies.numbered().into_iter();
    let items = numbered.map(|(number, proxy)| (ordered(number), json!(proxy))).collect();
    Ok(Json(page.of(items)?))
}

/// A number as text that is sorted like it.
fn ordered(number: u64) -> String {
    format!("{number:020}")
}

/// `GET /api/v1/proxies/{id}/config`
pub(super) async fn config(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    _: Parameters<NoParameters>,
) -> Result<Json<Value>, Problem> {
    let proxy = api
        .proxies
        .find(&id)
        .ok_or_else(|| Problem::not_found(format!("no proxy {id:?} is connected")))?;
    let mut views = Vec::new();
    for key in proxy.view_keys() {
        views.push(api.mesh.lease(&key).await?.current());
    }
    Ok(Json(proxy.dump(&views)))
}

/// `GET /api/v1/workloads`
pub(super) async fn workloads(
    State(api): State<Arc<Api>>,
    Parameters(page): Parameters<Page>,
) -> Result<Json<Value>, Problem> {
    let snapshot = api.mesh.snapshot().await?;
    let item = |workload: &Arc<Workload>| {
        (format!("{}/{}", workload.id.namespace, workload.id.name), json!(&**workload))
    };
    let mut items: Vec<(String, Value)> = snapshot.all_workloads().map(item).collect();
    items.sort_by(|(one, _), (other, _)| one.cmp(other));
    Ok(Json(page.of(items)?))
}

/// `GET /api/v1/certificates`
pub(super) async fn certificates(
    State(api): State<Arc<Api>>,
    Parameters(page): Parameters<Page>,
) -> Result<Json<Value>, Problem> {
    let unavailable = |detail: String| {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the ledger is unreadable", detail)
    };
    let authority = api.authority.clone();
    // The ledger reads a disk.
    let issued = tokio::task::spawn_blocking(move || authority.issued(SHOWN_CERTIFICATES)).await;
    let issued =
        issued.map_err(|e| unavailable(e.to_string()))?.map_err(|e| unavailable(e.to_string()))?;
    let item = |IssuedRecord { entry, revoked }| {
        let item = json!({
            "serial": entry.serial, "spiffeId": entry.spiffe_id, "issued": instant(entry.issued_at),
            "expires": instant(entry.expires_at), "revoked": revoked,
        });
        (format!("{}/{}", ordered(u64::MAX - entry.issued_at), entry.serial), item)
    };
    let mut items: Vec<(String, Value)> = issued.into_iter().map(item).collect();
    items.sort_by(|(one, _), (other, _)| one.cmp(other));
    Ok(Json(page.of(items)?))
}

fn instant(seconds: u64) -> String {
    let time =
        i64::try_from(seconds).ok().and_then(|s| OffsetDateTime::from_unix_timestamp(s).ok());
    time.and_then(|t| t.format(&Rfc3339).ok()).unwrap_or_default()
}

/// What a join token is asked for.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct TokenRequest {
    namespace: String,
    service_account: String,
    #[serde(default = "one_hour")]
    ttl: String,
    #[serde(default)]
    single_use: bool,
}

fn one_hour() -> String {
    "1h".to_owned()
}

/// `POST /api/v1/tokens`
pub(super) async fn create_token(
    State(api): State<Arc<Api>>,
    Extension(who): Extension<Who>,
    _: Parameters<NoParameters>,
    body: Result<Json<TokenRequest>, JsonRejection>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let Json(wanted) =
        body.map_err(|r| Problem::new(r.status(), "unreadable body", r.body_text()))?;
    let ttl = parse_duration(&wanted.ttl).filter(|ttl| !ttl.is_zero() && *ttl <= LONGEST_TOKEN);
    let ttl = ttl.ok_or_else(|| {
        Problem::bad_request(format!(
            "ttl {:?}: expected a duration such as 10m, at most 24h",
            wanted.ttl
        ))
    })?;
    let trust_domain: TrustDomain = api.authority.settings().trust_domain.clone();
    let id = SpiffeId::new(trust_domain, &wanted.namespace, &wanted.service_account);
    let id = id.map_err(|e| Problem::bad_request(e.to_string()))?;
    let refused = |e: String| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "no token", e);
    let uses = if wanted.single_use { Uses::Once } else { Uses::Many };
    let token = api
        .authority
        .join_tokens()
        .issue(&id, ttl, uses, SystemTime::now())
        .map_err(|e| refused(e.to_string()))?;
    tracing::info!(target: "audit", identity = %id, ttl = ?ttl, ?uses, who = %who.name, "join token made");
    Ok((
        StatusCode::CREATED,
        Json(json!({ "token": token, "spiffeId": id.to_string(), "ttl": wanted.ttl })),
    ))
}
