//! The settings file of `ferromesh serve`.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use ferromesh_cert_authority::files;

/// More of a settings file is not read.
const LARGEST_SETTINGS: u64 = 1 << 20;

/// A settings file: one `key: value` per line, so that every value has one form everywhere.
#[derive(Default, Debug)]
pub(super) struct SettingsFile {
    path: PathBuf,
    values: BTreeMap<String, String>,
}

impl SettingsFile {
    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let text = files::read_named(path, LARGEST_SETTINGS)
            .with_context(|| format!("reading the settings file {}", path.display()))?;
        let mut values = BTreeMap::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.split(" #").next().unwrap_or_default().trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let Some((key, value)) = line.split_once(':') else {
                bail!("{}:{}: expected `option: value`, got {line:?}", path.display(), number + 1);
            };
            let (key, value) = (key.trim().to_owned(), value.trim().trim_matches('"').to_owned());
            if let Some(first) = values.insert(key.clone(), value) {
                bail!(
                    "{}:{}: {key:?} is written twice, first as {first:?}; keep one of them",
                    path.display(),
                    number + 1
                );
            }
        }
        Ok(Self { path: path.to_owned(), values })
    }

    pub(super) fn take(&mut self, key: &str) -> Option<String> {
        self.values.remove(key)
    }

    /// What was given, else what the file lists.
    pub(super) fn list<T: From<String>>(&mut self, key: &str, given: Vec<T>) -> Vec<T> {
        let written = self.take(key).unwrap_or_default();
        let listed = written.split(',').filter(|part| !part.is_empty());
        if given.is_empty() { listed.map(|part| part.to_owned().into()).collect() } else { given }
    }

    /// Whether a switch is on.
    pub(super) fn says(&mut self, key: &str) -> anyhow::Result<bool> {
        match self.take(key).as_deref() {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(other) => {
                bail!("{}: {key}: expected true or false, got {other:?}", self.path.display())
            }
        }
    }

    pub(super) fn address(
        &mut self,
        key: &str,
        given: Option<SocketAddr>,
        default: SocketAddr,
    ) -> anyhow::Result<SocketAddr> {
        Ok(self.optional_address(key, given)?.unwrap_or(default))
    }

    pub(super) fn optional_address(
        &mut self,
        key: &str,
        given: Option<SocketAddr>,
    ) -> anyhow::Result<Option<SocketAddr>> {
        let written = self.take(key);
        let (None, Some(text)) = (given, written) else { return Ok(given) };
        let address = text.parse().with_context(|| {
            format!("{}: {key}: expected IP:PORT, got {text:?}", self.path.display())
        });
        address.map(Some)
    }

    pub(super) fn nothing_left(&self) -> anyhow::Result<()> {
        match self.values.keys().next() {
            Some(key) => bail!(
                "{}: unknown option {key:?}; `ferromesh serve --help` lists them",
                self.path.display()
            ),
            None => Ok(()),
        }
    }
}
