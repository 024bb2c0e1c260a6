//! `ferromesh init`: a small mesh of one's own as files, with the commands that run it.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use clap::Args;

use super::print::print;

/// What is written, by path.
const FILES: [(&str, &str); 8] = [
    ("README.md", include_str!("init/README.md")),
    ("mesh/10-services.yaml", include_str!("init/10-services.yaml")),
    ("mesh/20-gateway.yaml", include_str!("init/20-gateway.yaml")),
    ("mesh/30-policies.yaml", include_str!("init/30-policies.yaml")),
    ("loopback/workloads.yaml", include_str!("init/loopback.yaml")),
    ("interception/workloads.yaml", include_str!("init/interception.yaml")),
    ("loopback.sh", include_str!("init/loopback.sh")),
    ("interception.sh", include_str!("init/interception.sh")),
];

/// `ferromesh init`.
#[derive(Args, Debug)]
#[group(skip)]
#[command(after_help = "Example:\n  ferromesh init my-mesh && cd my-mesh && cat README.md")]
pub(crate) struct Init {
    /// The folder to make; one that is there must be empty
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

/// Writes the files.
///
/// # Errors
/// The folder holds something already, or cannot be written.
pub(crate) fn run(command: &Init) -> anyhow::Result<()> {
    let folder = &command.folder;
    let shown = folder.display();
    fs::create_dir_all(folder).with_context(|| format!("making {shown}"))?;
    let mut held = fs::read_dir(folder).with_context(|| format!("reading {shown}"))?;
    if held.next().is_some() {
        bail!("{shown} is not empty: choose another folder; nothing was written");
    }
    for (name, text) in FILES {
        write(&folder.join(name), text)?;
    }
    print(&format!("a mesh of two services, a gateway and policies: read {shown}/README.md"));
    Ok(())
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let failed = || format!("writing {}", path.display());
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).with_context(failed)?;
    }
    let file = OpenOptions::new().write(true).create_new(true).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).with_context(failed)
}

#[cfg(test)]
mod tests {
    use ferromesh_xds_translator::{
        analyze::analyze_input, dialect::parse_files, ir::MeshDefaults,
    };

    use super::*;

    #[test]
    fn what_is_written_has_no_mistake_in_either_form() {
        let parent = tempfile::tempdir().expect("a folder");
        let folder = parent.path().join("mesh");
        run(&Init { folder: folder.clone() }).expect("written");
        assert!(run(&Init { folder: folder.clone() }).is_err(), "it is not empty any more");
        for form in ["loopback", "interception"] {
            let wanted = |name: &&str| name.starts_with("mesh/") || name.starts_with(form);
            let files = FILES.iter().map(|(name, _)| *name).filter(wanted);
            let yaml = files.filter(|name| name.ends_with(".yaml"));
            let texts: Vec<(&str, Vec<u8>)> =
                yaml.map(|name| (name, fs::read(folder.join(name)).expect("a file"))).collect();
            assert_eq!(texts.len(), 4);
            let parsed = parse_files(texts.iter().map(|(name, text)| (*name, text.as_slice())));
            let findings = analyze_input(&parsed, &MeshDefaults::default());
            assert!(findings.is_empty(), "{form}: {findings:#?}");
        }
    }
}
