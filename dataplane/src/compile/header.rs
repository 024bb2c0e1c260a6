//! Header changes of routes, virtual hosts and weighted clusters.

use envoy_types::pb::envoy::config::core::v3::{
    HeaderValueOption, header_value_option::HeaderAppendAction,
};

use super::{
    field::{At, Invalid, each, required},
    format,
};
use crate::runtime::format::{HeaderMutations, HeaderOps, HeaderWrite, WriteAction};

/// The four lists that several messages share.
pub(super) struct Lists<'a> {
    pub(super) request_add: &'a [HeaderValueOption],
    pub(super) request_remove: &'a [String],
    pub(super) response_add: &'a [HeaderValueOption],
    pub(super) response_remove: &'a [String],
}

/// Takes the four lists out of a message.
macro_rules! lists {
    ($message:expr) => {
        $crate::compile::header::Lists {
            request_add: &$message.request_headers_to_add,
            request_remove: &$message.request_headers_to_remove,
            response_add: &$message.response_headers_to_add,
            response_remove: &$message.response_headers_to_remove,
        }
    };
}
pub(super) use lists;

/// Compiles the header changes of a message.
pub(super) fn compile(lists: &Lists<'_>) -> Result<HeaderMutations, Invalid> {
    Ok(HeaderMutations {
        request: HeaderOps {
            remove: lower_case(lists.request_remove),
            ..added("request_headers_to_add", lists.request_add)?
        },
        response: HeaderOps {
            remove: lower_case(lists.response_remove),
            ..added("response_headers_to_add", lists.response_add)?
        },
    })
}

/// Compiles fields that are added, of a list of this name.
pub(super) fn added(field: &str, options: &[HeaderValueOption]) -> Result<HeaderOps, Invalid> {
    Ok(HeaderOps { remove: Vec::new(), write: each(field, options, write)? })
}

fn lower_case(names: &[String]) -> Vec<std::sync::Arc<str>> {
    names.iter().map(|name| name.to_ascii_lowercase().into()).collect()
}

fn write(option: &HeaderValueOption) -> Result<HeaderWrite, Invalid> {
    let header = required("header", option.header.as_ref())?;
    Ok(HeaderWrite {
        name: header.key.to_ascii_lowercase().into(),
        value: format::compile(&header.value).at("header.value")?,
        action: action(option)?,
        keep_empty: option.keep_empty_value,
    })
}

#[allow(deprecated, reason = "`append` is what older control planes send")]
fn action(option: &HeaderValueOption) -> Result<WriteAction, Invalid> {
    let unknown =
        || Invalid::new(format!("unknown value {}", option.append_action)).at("append_action");
    let action = HeaderAppendAction::try_from(option.append_action).map_err(|_| unknown())?;
    Ok(match (action, &option.append) {
        (HeaderAppendAction::AppendIfExistsOrAdd, Some(append)) if !append.value => {
            WriteAction::Overwrite
        }
        (HeaderAppendAction::AppendIfExistsOrAdd, _) => WriteAction::Append,
        (HeaderAppendAction::AddIfAbsent, _) => WriteAction::AddIfAbsent,
        (HeaderAppendAction::OverwriteIfExistsOrAdd, _) => WriteAction::Overwrite,
        (HeaderAppendAction::OverwriteIfExists, _) => WriteAction::OverwriteIfExists,
    })
}
