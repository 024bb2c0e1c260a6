//! Files that are written anew in their place: all of them or, where one cannot be, none.

use std::{
    fs::{self, Metadata},
    io::Write,
    os::unix::fs::{MetadataExt, fchown},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use tempfile::NamedTempFile;

use crate::source::directory::listing::read_regular;

/// A file and what is to stand in it.
pub(super) struct Rewrite<'a> {
    /// What the user named: the file, or a folder above it. Nothing outside is written.
    pub(super) named: &'a Path,
    /// The file as it was read.
    pub(super) file: &'a Path,
    /// Its content as it was read.
    pub(super) old: &'a [u8],
    /// Its content from now on.
    pub(super) new: &'a [u8],
}

/// Writes files, each in one step, with the permissions and the owner that they have.
///
/// # Errors
/// One is no file of its own, lies outside of what was named, was changed meanwhile, or cannot be
/// written. Then none is changed, but if the file system fails between two of them, which is said.
pub(super) fn rewrite(files: &[Rewrite<'_>]) -> anyhow::Result<()> {
    let prepared: Vec<(PathBuf, NamedTempFile)> =
        files.iter().map(prepare).collect::<anyhow::Result<_>>()?;
    for (target, temporary) in prepared {
        temporary.persist(&target).with_context(|| format!("replacing {}", target.display()))?;
    }
    Ok(())
}

fn prepare(rewrite: &Rewrite<'_>) -> anyhow::Result<(PathBuf, NamedTempFile)> {
    let file = rewrite.file.display();
    let target = fs::canonicalize(rewrite.file).with_context(|| format!("finding {file}"))?;
    let root = folder_of(rewrite.named)?;
    if !target.starts_with(&root) {
        bail!("{file} is a link out of {}, to {}: not written", root.display(), target.display());
    }
    let is = fs::metadata(&target).with_context(|| format!("reading {file}"))?;
    if !is.is_file() {
        bail!("{file} is no file that could be written anew");
    }
    if is.permissions().readonly() {
        bail!("{file} is read-only: not written");
    }
    if read_regular(&target).with_context(|| format!("reading {file}"))? != rewrite.old {
        bail!("{file} was changed meanwhile: not written; run it again");
    }
    let temporary =
        filled(&target, &is, rewrite.new).with_context(|| format!("writing beside {file}"))?;
    Ok((target, temporary))
}

/// The folder that a named file is in, or the named folder.
fn folder_of(named: &Path) -> anyhow::Result<PathBuf> {
    let folder = match named.parent() {
        _ if named.is_dir() => named,
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    fs::canonicalize(folder).with_context(|| format!("finding {}", folder.display()))
}

fn filled(target: &Path, is: &Metadata, content: &[u8]) -> std::io::Result<NamedTempFile> {
    let folder = target.parent().unwrap_or(Path::new("/"));
    let mut temporary = NamedTempFile::new_in(folder)?;
    temporary.write_all(content)?;
    let made = temporary.as_file().metadata()?;
    if (made.uid(), made.gid()) != (is.uid(), is.gid()) {
        fchown(temporary.as_file(), Some(is.uid()), Some(is.gid()))?;
    }
    temporary.as_file().set_permissions(is.permissions())?;
    temporary.as_file().sync_all()?;
    Ok(temporary)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn one(named: &Path, file: &Path, old: &str) -> anyhow::Result<()> {
        rewrite(&[Rewrite { named, file, old: old.as_bytes(), new: b"new" }])
    }

    fn refusal(named: &Path, file: &Path, old: &str) -> String {
        format!("{:#}", one(named, file, old).expect_err("refused"))
    }

    #[test]
    fn a_file_is_replaced_with_its_permissions() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("a.yaml");
        fs::write(&file, "old").expect("written");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).expect("set");
        one(&file, &file, "old").expect("replaced");
        assert_eq!(fs::read_to_string(&file).expect("there"), "new");
        let mode = fs::metadata(&file).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1, "nothing is left");
        assert!(refusal(&file, &file, "old").contains("changed meanwhile"));
        fs::set_permissions(&file, fs::Permissions::from_mode(0o440)).expect("set");
        assert!(refusal(&file, &file, "new").contains("read-only"));
    }

    #[test]
    fn links_are_followed_within_what_was_named_only() {
        let outside = tempfile::tempdir().expect("a folder");
        let folder = tempfile::tempdir().expect("a folder");
        let (target, inner) = (outside.path().join("a.yaml"), folder.path().join("inner.yaml"));
        for file in [&target, &inner] {
            fs::write(file, "old").expect("written");
        }
        let out = folder.path().join("out.yaml");
        symlink(&target, &out).expect("a link");
        let within = folder.path().join("within.yaml");
        symlink("inner.yaml", &within).expect("a link");
        for named in [&*out, folder.path()] {
            assert!(refusal(named, &out, "old").contains("is a link out of"));
        }
        assert_eq!(fs::read_to_string(&target).expect("there"), "old");
        one(folder.path(), &within, "old").expect("replaced");
        assert!(within.is_symlink(), "the link stays");
        assert_eq!(fs::read_to_string(&inner).expect("there"), "new");
        let fifo = folder.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
        assert!(refusal(&fifo, &fifo, "old").contains("is no file"));
    }

    #[test]
    fn where_one_cannot_be_written_none_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let files = ["a.yaml", "b.yaml"].map(|name| folder.path().join(name));
        files.iter().for_each(|file| fs::write(file, "old").expect("written"));
        let each = |file, old| Rewrite { named: folder.path(), file, old, new: b"new" };
        rewrite(&[each(&files[0], b"old"), each(&files[1], b"other")]).expect_err("refused");
        for file in &files {
            assert_eq!(fs::read_to_string(file).expect("there"), "old");
        }
    }
}
