//! Files that offline commands read: `-f PATH`, several times; a folder means every YAML and JSON file in it.

use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use ferromesh_xds_translator::dialect::{Parsed, overlay, parse_files};

/// Reads every `-f` as one set; objects of a later set replace those of an earlier one.
///
/// # Errors
/// A path does not exist or cannot be read, or a folder has no file to read.
pub(crate) fn read(paths: &[PathBuf]) -> anyhow::Result<Parsed> {
    let mut sets = Vec::new();
    for path in paths {
        let files = files(path)?;
        sets.push(parse_files(files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice()))));
    }
    Ok(overlay(sets))
}

/// The files of one `-f`, by name, with their content.
///
/// # Errors
/// As [`read`].
pub(crate) fn files(path: &Path) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    if path == Path::new("-") {
        let mut bytes = Vec::new();
        io::stdin().read_to_end(&mut bytes).context("reading standard input")?;
        return Ok(vec![("<stdin>".to_owned(), bytes)]);
    }
    let meta = fs::metadata(path).with_context(|| format!("reading {}", path.display()))?;
    let mut found = Vec::new();
    if meta.is_dir() {
        list(path, &mut found)?;
        if found.is_empty() {
            bail!("{}: no file ends in .yaml, .yml or .json", path.display());
        }
        found.sort();
    } else {
        found.push(path.to_owned());
    }
    let read = |path: PathBuf| {
        let bytes = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        Ok((path.display().to_string(), bytes))
    };
    found.into_iter().map(read).collect()
}

fn list(folder: &Path, found: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let path = entry.with_context(|| format!("reading {}", folder.display()))?.path();
        if path.is_dir() {
            list(&path, found)?;
        } else if matches!(path.extension().and_then(|e| e.to_str()), Some("yaml" | "yml" | "json")) {
            found.push(path);
        }
    }
    Ok(())
}
