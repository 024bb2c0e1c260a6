//! Patches of clusters.

use std::sync::Arc;

use prost_reflect::{DynamicMessage, MapKey, Value};

use super::{edit, merge::merge_patch, report::Report};
use crate::ir::{Patch, PatchSubject};

/// Merges patches into a cluster.
pub(super) fn patch(cluster: &mut DynamicMessage, patches: &[&Arc<Patch>], report: &mut Report) {
    let (name, hosts) = (edit::text(cluster, "name"), hosts(cluster));
    for patch in patches {
        let PatchSubject::Cluster(matches) = &patch.subject else { continue };
        if matches.admits(&name, hosts.iter().map(String::as_str))
            && let Some(message) = patch.message.as_ref().and_then(edit::open)
        {
            merge_patch(patch, cluster, &message);
            report.apply(patch);
        }
    }
}

/// The hosts of the services that a cluster stands for, as its metadata says
/// (`filter_metadata.istio.services[].host`).
fn hosts(cluster: &DynamicMessage) -> Vec<String> {
    let metadata = edit::part(cluster, "metadata");
    let sections = metadata.as_ref().and_then(|m| m.get_field_by_name("filter_metadata"));
    let own = sections
        .as_deref()
        .and_then(Value::as_map)
        .and_then(|sections| sections.get(&MapKey::String("istio".to_owned()))?.as_message());
    let services = own.and_then(|own| field(own, "services"));
    let list = services.and_then(|services| edit::part(&services, "list_value"));
    let list = list.as_ref().and_then(|list| list.get_field_by_name("values"));
    let entries = list.as_deref().and_then(Value::as_list).unwrap_or_default();
    let host = |entry: &Value| {
        let fields = edit::part(entry.as_message()?, "struct_value")?;
        Some(edit::text(&field(&fields, "host")?, "string_value"))
    };
    entries.iter().filter_map(host).collect()
}

/// A field of a `Struct`.
fn field(fields: &DynamicMessage, name: &str) -> Option<DynamicMessage> {
    let all = fields.get_field_by_name("fields")?;
    let key = MapKey::String(name.to_owned());
    all.as_map()?.get(&key)?.as_message().cloned()
}
