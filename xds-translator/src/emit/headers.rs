//! Header changes on requests and responses.

use super::pb::core::{HeaderValue, HeaderValueOption, header_value_option::HeaderAppendAction};
use crate::ir::{HeaderChanges, HeaderOps};

/// Header changes as routes and weighted clusters write them.
pub(super) struct Headers {
    pub(super) request_add: Vec<HeaderValueOption>,
    pub(super) request_remove: Vec<String>,
    pub(super) response_add: Vec<HeaderValueOption>,
    pub(super) response_remove: Vec<String>,
}

impl Headers {
    pub(super) fn new(ops: &HeaderOps) -> Self {
        Self {
            request_add: additions(&ops.request),
            request_remove: removals(&ops.request),
            response_add: additions(&ops.response),
            response_remove: removals(&ops.response),
        }
    }
}

fn additions(changes: &HeaderChanges) -> Vec<HeaderValueOption> {
    let set = changes.set.iter().map(|(k, v)| (k, v, HeaderAppendAction::OverwriteIfExistsOrAdd));
    let add = changes.add.iter().map(|(k, v)| (k, v, HeaderAppendAction::AppendIfExistsOrAdd));
    set.chain(add).map(|(k, v, action)| addition(k, v, action)).collect()
}

fn addition(key: &str, value: &str, action: HeaderAppendAction) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(HeaderValue {
            key: key.to_owned(),
            value: value.to_owned(),
            ..Default::default()
        }),
        append_action: action as i32,
        ..Default::default()
    }
}

/// A header that has this value, whatever it had before.
pub(super) fn set(key: &str, value: &str) -> HeaderValueOption {
    addition(key, value, HeaderAppendAction::OverwriteIfExistsOrAdd)
}

fn removals(changes: &HeaderChanges) -> Vec<String> {
    changes.remove.iter().map(|name| name.to_string()).collect()
}
