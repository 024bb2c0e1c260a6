//! How far a proxy is with a type, as the REST API says it.

use std::{sync::Arc, time::SystemTime};

use ferromesh_proto::Version;
use serde::Serialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// How far a proxy is with one type.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize)]
#[serde(tag = "state")]
pub enum Sync {
    /// It was sent nothing, for it asked for nothing or there is nothing.
    #[default]
    #[serde(rename = "NOT SENT")]
    NotSent,
    /// It has not answered the newest response yet.
    #[serde(rename = "STALE")]
    Stale {
        /// The version on its way.
        #[serde(serialize_with = "as_text")]
        version: Version,
    },
    /// It runs the newest.
    #[serde(rename = "SYNCED")]
    Synced {
        /// The version it runs.
        #[serde(serialize_with = "as_text")]
        version: Version,
    },
    /// It refused something that it has not accepted since, and runs what it had of it.
    #[serde(rename = "NACK")]
    Nack {
        /// Its words; of several refusals, each once.
        message: String,
        /// The refused resources as far as it names them; sorted, may be empty.
        resources: Vec<Arc<str>>,
        /// The version of the response that was refused last.
        #[serde(serialize_with = "as_text")]
        version: Version,
        /// When that was, as RFC 3339.
        at: String,
    },
}

fn as_text<S: serde::Serializer>(version: &Version, s: S) -> Result<S::Ok, S::Error> {
    s.collect_str(version)
}

/// A moment as the API writes it: RFC 3339.
pub(super) fn rfc3339(time: SystemTime) -> String {
    OffsetDateTime::from(time).format(&Rfc3339).unwrap_or_default()
}
