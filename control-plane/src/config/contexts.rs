//! Control planes by name, for commands that talk to one: a file of the user's configuration
//! (`ferromesh/contexts.json` below `XDG_CONFIG_HOME`, by default `~/.config`; XDG Base Directory
//! Specification 0.8).

use std::{
    collections::BTreeMap,
    env, fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use ferromesh_cert_authority::files;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Longer files are not ours.
const LARGEST: u64 = 1 << 20;

/// A control plane.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Target {
    /// Its REST API.
    pub server: String,
    /// The file with its administrator's token; `None`: as without a context.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin_token_file: Option<PathBuf>,
}

/// Every control plane that has a name, and the one that is asked unless another is named.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Contexts {
    /// The one that is asked; one of [`Self::contexts`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<String>,
    /// By name.
    #[serde(default)]
    pub contexts: BTreeMap<String, Target>,
}

impl Contexts {
    /// Reads the user's file; nothing where there is none.
    ///
    /// # Errors
    /// It cannot be read, or says something else.
    pub fn read() -> anyhow::Result<Self> {
        place().map_or(Ok(Self::default()), |file| Self::read_from(&file))
    }

    /// Replaces the user's file.
    ///
    /// # Errors
    /// There is no place for it, or it cannot be written.
    pub fn write(&self) -> anyhow::Result<()> {
        let Some(file) = place() else { bail!("neither XDG_CONFIG_HOME nor HOME is set") };
        self.write_to(&file)
    }

    /// The one with this name.
    ///
    /// # Errors
    /// There is none, with those that there are.
    pub fn named(&self, name: &str) -> anyhow::Result<&Target> {
        let known = || self.contexts.keys().cloned().collect::<Vec<_>>().join(", ");
        self.contexts.get(name).with_context(|| match self.contexts.is_empty() {
            true => format!("no context {name:?}: `ferromesh context add {name} --server URL`"),
            false => format!("no context {name:?}: expected one of {}", known()),
        })
    }

    fn read_from(file: &Path) -> anyhow::Result<Self> {
        let shown = || format!("reading {}", file.display());
        let text = match files::read_named(file, LARGEST) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            read => read.with_context(shown)?,
        };
        // An object, where serde would take a list of its values too.
        let object: serde_json::Map<String, Value> =
            serde_json::from_str(&text).with_context(shown)?;
        let read = Self::deserialize(Value::Object(object)).with_context(shown)?;
        if let Some(current) = &read.current {
            read.named(current).with_context(shown)?;
        }
        Ok(read)
    }

    fn write_to(&self, file: &Path) -> anyhow::Result<()> {
        let shown = || format!("writing {}", file.display());
        fs::create_dir_all(file.parent().unwrap_or(Path::new("."))).with_context(shown)?;
        let text = serde_json::to_string_pretty(self)? + "\n";
        files::replace(file, 0o600, text.as_bytes()).with_context(shown)
    }
}

/// Where the user's file is; `None`: the user has no place for it.
#[allow(clippy::disallowed_methods, reason = "configuration reads the environment")]
fn place() -> Option<PathBuf> {
    // A relative path is to be ignored.
    let absolute = |name| env::var(name).ok().map(PathBuf::from).filter(|path| path.is_absolute());
    let base = absolute("XDG_CONFIG_HOME").or_else(|| Some(absolute("HOME")?.join(".config")))?;
    Some(base.join("ferromesh/contexts.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again_and_what_is_no_list_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("a/contexts.json");
        assert_eq!(Contexts::read_from(&file).expect("none yet"), Contexts::default());
        let server = "http://127.0.0.1:8080".to_owned();
        let target = Target { server, admin_token_file: Some("/token".into()) };
        let contexts = Contexts {
            current: Some("shop".to_owned()),
            contexts: [("shop".to_owned(), target)].into(),
        };
        contexts.write_to(&file).expect("written");
        assert_eq!(Contexts::read_from(&file).expect("read"), contexts);
        let unknown = contexts.named("bank").expect_err("there is none").to_string();
        assert!(unknown.contains("expected one of shop"), "{unknown}");
        for text in ["[]", r#"{"current": "bank"}"#, r#"{"contexts": {"a": {"servers": ""}}}"#] {
            fs::write(&file, text).expect("a file");
            let error = Contexts::read_from(&file).expect_err(text);
            assert!(format!("{error:#}").contains("contexts.json"), "{error:#}");
        }
    }
}
