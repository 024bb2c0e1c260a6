//! `ferromesh crds`: the CustomResourceDefinitions for an API server.

use ferromesh_xds_translator::crds::custom_resource_definitions;

use super::{print, yaml};

/// Prints one document per definition, to be applied as it is.
pub(super) fn run() {
    let documents: Vec<String> = custom_resource_definitions().iter().map(yaml::block).collect();
    print(documents.join("---\n").trim_end());
}
