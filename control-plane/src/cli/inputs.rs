//! Files that offline commands read: `-f PATH`, several times; a folder means every YAML and JSON
//! file in it, by the rules of a watched directory.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

use anyhow::{Context, anyhow, bail};
use ferromesh_xds_translator::{
    analyze::Texts,
    diagnostic::Diagnostic,
    dialect::{MAX_FILE_BYTES, Parsed, overlay, parse_files},
};

use crate::source::directory::listing::{Seen, read_bounded, read_regular, unreadable};

/// One `-f`.
#[derive(Default)]
pub(crate) struct Input {
    /// What was named.
    pub(crate) path: PathBuf,
    /// Its files by name, with their content; of one that is too large, more than is allowed.
    pub(crate) files: Vec<(String, Vec<u8>)>,
    /// What is said of everything else that looks like configuration and was not read.
    pub(crate) trouble: Vec<Diagnostic>,
}

impl Input {
    /// The same with other texts in the files that have one.
    pub(crate) fn with(&self, texts: &Texts) -> Self {
        let other = |(name, bytes): &(String, Vec<u8>)| {
            let text = texts.get(name.as_str()).map(|text| text.clone().into_bytes());
            (name.clone(), text.unwrap_or_else(|| bytes.clone()))
        };
        let files = self.files.iter().map(other).collect();
        Self { path: self.path.clone(), files, trouble: self.trouble.clone() }
    }
}

/// Reads every `-f` as one set; objects of a later set replace those of an earlier one. What a
/// folder holds and cannot be read is among the findings.
///
/// # Errors
/// A path does not exist or cannot be read, or a folder has no file to read.
pub(crate) fn read(paths: &[PathBuf]) -> anyhow::Result<Parsed> {
    Ok(parse(&inputs(paths)?))
}

/// Every `-f` as it is written.
///
/// # Errors
/// As [`read`].
pub(crate) fn inputs(paths: &[PathBuf]) -> anyhow::Result<Vec<Input>> {
    paths.iter().map(|path| input(path)).collect()
}

/// The set that [`read`] reads.
pub(crate) fn parse(inputs: &[Input]) -> Parsed {
    let sets = inputs.iter().map(|Input { files, trouble, .. }| {
        let files = files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice()));
        let mut set = parse_files(files);
        set.diagnostics.extend(trouble.iter().cloned());
        set
    });
    overlay(sets)
}

/// As [`read`], of no `-f` too.
///
/// # Errors
/// As [`read`].
pub(crate) fn read_any(paths: &[PathBuf]) -> anyhow::Result<Parsed> {
    if paths.is_empty() { Ok(Parsed::default()) } else { read(paths) }
}

/// The texts of every `-f`, by name.
///
/// # Errors
/// As [`read`]; something cannot be read, is too large, or is no text.
pub(crate) fn texts(paths: &[PathBuf]) -> anyhow::Result<Vec<(String, String)>> {
    let mut texts = Vec::new();
    for path in paths {
        let Input { files, trouble, .. } = input(path)?;
        if !trouble.is_empty() {
            let said: Vec<String> = trouble.iter().map(ToString::to_string).collect();
            bail!("{}", said.join("\n"));
        }
        for (name, bytes) in files {
            let text = checked(&name, bytes)?;
            texts.push((name, text));
        }
    }
    Ok(texts)
}

/// The text of a file that an option names.
///
/// # Errors
/// It cannot be read, is too large, or is no text.
pub(crate) fn text(path: &Path) -> anyhow::Result<String> {
    checked(&path.display().to_string(), named(path)?)
}

fn checked(name: &str, bytes: Vec<u8>) -> anyhow::Result<String> {
    if bytes.len() > MAX_FILE_BYTES {
        bail!("{name}: the file is too large: at most {} MiB are read", MAX_FILE_BYTES >> 20);
    }
    String::from_utf8(bytes).map_err(|_| anyhow!("{name}: not UTF-8 text"))
}

fn input(path: &Path) -> anyhow::Result<Input> {
    let of = |files, trouble| Input { path: path.to_owned(), files, trouble };
    if path == Path::new("-") {
        let bytes = read_bounded(io::stdin().lock()).context("reading standard input")?;
        return Ok(of(vec![("<stdin>".to_owned(), bytes)], Vec::new()));
    }
    if !path.is_dir() {
        let file = (path.display().to_string(), named(path)?);
        return Ok(of(vec![file], Vec::new()));
    }
    let mut seen = Seen::default();
    seen.look(path);
    if seen.files.is_empty() && seen.trouble.is_empty() {
        bail!("{}: no file ends in .yaml, .yml or .json", path.display());
    }
    let mut input = of(Vec::new(), seen.trouble);
    for path in seen.files {
        match read_regular(&path) {
            Ok(bytes) => input.files.push((path.display().to_string(), bytes)),
            Err(error) => input.trouble.push(unreadable(&path, &error)),
        }
    }
    Ok(input)
}

/// Reads what the user named, which may be a pipe.
fn named(path: &Path) -> anyhow::Result<Vec<u8>> {
    let read = File::open(path).and_then(read_bounded);
    read.with_context(|| format!("reading {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write, os::unix::fs::symlink, thread};

    use nix::{sys::stat::Mode, unistd::mkfifo};

    use super::*;

    const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: one}\nspec: {ports: [{name: http, port: 80}]}\n";

    fn folder() -> (tempfile::TempDir, PathBuf) {
        let above = tempfile::tempdir().expect("a directory");
        let folder = above.path().join("mesh");
        fs::create_dir(&folder).expect("a folder");
        fs::write(folder.join("a.yaml"), SERVICE).expect("a file");
        (above, folder)
    }

    #[test]
    fn a_folder_is_read_as_a_watched_one() {
        let (above, folder) = folder();
        let outside = above.path().join("outside");
        fs::create_dir(&outside).expect("a folder");
        fs::write(outside.join("b.yaml"), "kept: [to itself\n").expect("a file");
        symlink(".", folder.join("loop")).expect("a link");
        let given = [folder.clone()];
        assert_eq!(texts(&given).expect("one file").len(), 1);
        assert_eq!(read(&given).expect("one file").diagnostics, []);
        mkfifo(&folder.join("pipe.yaml"), Mode::S_IRWXU).expect("a pipe");
        symlink(&outside, folder.join("elsewhere")).expect("a link out");
        symlink(outside.join("b.yaml"), folder.join("b.yaml")).expect("a link out");
        let parsed = read(&given).expect("what can be read");
        let said: Vec<String> = parsed.diagnostics.iter().map(ToString::to_string).collect();
        assert_eq!((parsed.objects.len(), parsed.refused(), said.len()), (1, 3, 3), "{said:#?}");
        for name in ["pipe.yaml", "elsewhere", "b.yaml"] {
            assert!(said.iter().any(|finding| finding.contains(name)), "{name}: {said:#?}");
        }
        let error = texts(&given).expect_err("half of it would be taken for all").to_string();
        assert!(error.contains("pipe.yaml") && error.contains("elsewhere"), "{error}");
    }

    #[test]
    fn a_pipe_that_is_named_is_read_and_what_never_ends_is_refused() {
        let (_above, folder) = folder();
        let pipe = folder.join("pipe");
        mkfifo(&pipe, Mode::S_IRWXU).expect("a pipe");
        let writer = thread::spawn({
            let pipe = pipe.clone();
            move || {
                let mut file = fs::OpenOptions::new().write(true).open(pipe).expect("a reader");
                file.write_all(SERVICE.as_bytes()).expect("written");
            }
        });
        assert_eq!(read(&[pipe]).expect("the pipe").objects.len(), 1);
        writer.join().expect("it wrote");
        for endless in [[PathBuf::from("/dev/zero")], [sparse(&folder)]] {
            assert_eq!(read(&endless).expect("a finding").refused(), 1);
            let error = text(&endless[0]).expect_err("too large").to_string();
            assert!(error.contains("too large"), "{error}");
        }
        let missing = text(&folder.join("none")).expect_err("missing");
        assert!(format!("{missing:#}").contains("reading"), "{missing:#}");
    }

    fn sparse(folder: &Path) -> PathBuf {
        let path = folder.join("sparse.yaml");
        File::create(&path).and_then(|file| file.set_len(3 << 30)).expect("a sparse file");
        path
    }
}
