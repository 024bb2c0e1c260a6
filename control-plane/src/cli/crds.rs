//! `ferromesh crds`: the CustomResourceDefinitions for an API server.

use ferromesh_xds_translator::crds::custom_resource_definitions;

use super::{print::print, yaml};

/// Prints one document per definition, to be applied as it is.
pub(super) fn run() {
    let documents: Vec<String> = custom_resource_definitions().iter().map(yaml::block).collect();
    print(documents.join("---\n").trim_end());
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fs, path::Path};

    use super::*;

    /// The files of the chart `ferromesh-crds`, by name.
    fn committed(folder: &Path) -> BTreeMap<String, String> {
        let files =
            fs::read_dir(folder).expect("the chart's folder").map(|file| file.expect("a file"));
        let text = |path| fs::read_to_string(path).expect("a text");
        files
            .map(|file| (file.file_name().into_string().expect("UTF-8"), text(file.path())))
            .collect()
    }

    #[test]
    fn the_chart_has_the_definitions_that_are_printed() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../helm/ferromesh-crds/files");
        let definitions = custom_resource_definitions();
        let names = definitions
            .iter()
            .map(|d| format!("{}.yaml", d["metadata"]["name"].as_str().expect("a name")));
        let printed: BTreeMap<_, _> = names.zip(definitions.iter().map(yaml::block)).collect();
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            committed(&folder)
                .keys()
                .for_each(|name| fs::remove_file(folder.join(name)).expect("removed"));
            printed
                .iter()
                .for_each(|(name, text)| fs::write(folder.join(name), text).expect("written"));
        }
        let committed = committed(&folder);
        let differing: Vec<_> = printed
            .keys()
            .chain(committed.keys())
            .filter(|name| printed.get(*name) != committed.get(*name))
            .collect();
        assert!(
            differing.is_empty(),
            "{differing:?} differ from `ferromesh crds`; UPDATE_GOLDEN=1 refreshes them"
        );
    }
}
