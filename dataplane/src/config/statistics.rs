//! What is asked of Envoy's statistics, as the injector writes it.

use std::{collections::BTreeMap, time::Duration};

use ferromesh_proto::bootstrap::MoreStatistics;
use serde::Deserialize;

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Written {
    prefixes: Vec<String>,
    suffixes: Vec<String>,
    regexes: Vec<String>,
    tags: Vec<String>,
    buckets: BTreeMap<String, Vec<f64>>,
    flush_interval: Option<String>,
}

/// Reads `{"prefixes": ["cluster."], "flushInterval": "5s"}`.
///
/// # Errors
/// What is wrong with it.
pub(super) fn read(text: &str) -> Result<Box<MoreStatistics>, String> {
    let written: Written = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let flush_interval: Option<Duration> =
        written.flush_interval.as_deref().map(super::duration).transpose()?;
    Ok(Box::new(MoreStatistics {
        prefixes: written.prefixes,
        suffixes: written.suffixes,
        regexes: written.regexes,
        tags: written.tags,
        buckets: written.buckets,
        flush_interval,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_injector_writes_is_read_and_what_nobody_writes_is_not() {
        let text = r#"{"buckets":{"istio":[1.0]},"flushInterval":"1500ms","tags":["tier"]}"#;
        let read = read(text).unwrap();
        assert_eq!(read.flush_interval, Some(Duration::from_millis(1500)));
        assert_eq!(read.tags, ["tier"]);
        assert!(super::read("{\"prefixs\": []}").is_err());
        assert!(super::read("{\"flushInterval\": \"soon\"}").is_err());
    }
}
