//! What the API's answers are made of.

use std::sync::Arc;

use ferromesh_cert_authority::Authority;

use crate::{
    findings::Findings, judge::Judge, log::Log, pipeline, source::rest::RestSource, status::Proxies,
};

/// What the API's answers are made of.
pub struct Api {
    /// Objects written through the API.
    pub objects: RestSource,
    /// The mesh as the pipeline knows it.
    pub mesh: pipeline::Mesh,
    /// What is said of objects.
    pub judge: Judge,
    /// All that is found.
    pub findings: Findings,
    /// Connected proxies.
    pub proxies: Arc<Proxies>,
    /// Certificates and join tokens.
    pub authority: Arc<Authority>,
    /// What is logged.
    pub log: Arc<Log>,
}
