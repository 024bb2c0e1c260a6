//! The settings file of injection, followed: a mounted ConfigMap changes without a restart.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context, bail};
use arc_swap::ArcSwap;
use ferromesh_cert_authority::files;
use tokio::task::spawn_blocking;

use crate::{config::Settings, inject::InjectionSettings};

/// How often the file is read. Mounted ConfigMaps change by the minute, and by links that no watch
/// of the file sees.
const PAUSE: Duration = Duration::from_secs(3);
/// No ConfigMap is larger.
const LARGEST: u64 = 1 << 20;

/// The settings in force, and the file that they come from.
pub struct Followed {
    /// In force.
    pub settings: Arc<ArcSwap<InjectionSettings>>,
    base: InjectionSettings,
    file: Option<PathBuf>,
    text: String,
}

impl Followed {
    /// Reads the file, if one is given, over the settings of this control plane.
    ///
    /// # Errors
    /// The file cannot be read or is wrong; every mistake with its place.
    pub fn open(settings: &Settings) -> anyhow::Result<Self> {
        let base =
            InjectionSettings::new(settings.root_namespace.clone(), settings.trust_domain.clone());
        let text = match &settings.injection_settings {
            Some(file) => files::read_named(file, LARGEST)
                .with_context(|| format!("--injection-settings {}", file.display()))?,
            None => String::new(),
        };
        let mut followed = Self {
            settings: Arc::new(ArcSwap::from_pointee(base.clone())),
            base,
            file: settings.injection_settings.clone(),
            text: String::new(),
        };
        followed.take(text)?;
        Ok(followed)
    }

    /// Follows the file for as long as it is polled. A broken file leaves the last good settings in
    /// force.
    pub async fn follow(mut self) {
        let Some(file) = self.file.clone() else { return std::future::pending().await };
        loop {
            tokio::time::sleep(PAUSE).await;
            // Between two versions a mounted file may be away for a moment.
            let named = file.clone();
            let read = spawn_blocking(move || files::read_named(&named, LARGEST)).await;
            let Ok(Ok(text)) = read else { continue };
            if text == self.text {
                continue;
            }
            match self.take(text) {
                Ok(()) => {
                    tracing::info!(file = %file.display(), "new injection settings are in force")
                }
                Err(error) => {
                    tracing::error!("the last good injection settings stay in force: {error:#}")
                }
            }
        }
    }

    /// Puts a file's content in force.
    fn take(&mut self, text: String) -> anyhow::Result<()> {
        self.text = text;
        let name = self.file.as_ref().map(|file| file.display().to_string()).unwrap_or_default();
        let read = self.base.clone().read(&name, &self.text);
        let new = read.map_err(|found| {
            let lines: Vec<String> = found.iter().map(ToString::to_string).collect();
            anyhow::anyhow!("{}", lines.join("\n"))
        })?;
        self.belongs_here(&new).with_context(|| name)?;
        self.settings.store(Arc::new(new));
        Ok(())
    }

    /// Proxies of another mesh would find nobody here.
    fn belongs_here(&self, new: &InjectionSettings) -> anyhow::Result<()> {
        if new.root_namespace != self.base.root_namespace {
            bail!(
                "rootNamespace: expected {}, as --root-namespace says, got {}",
                self.base.root_namespace,
                new.root_namespace
            );
        }
        if new.trust_domain != self.base.trust_domain {
            bail!(
                "trustDomain: expected {}, as --trust-domain says, got {}",
                self.base.trust_domain,
                new.trust_domain
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use crate::config::ServeOptions;

    use super::*;

    fn settings(file: Option<PathBuf>) -> Settings {
        ServeOptions { injection_settings: file, ..ServeOptions::default() }
            .check()
            .expect("good options")
    }

    #[test]
    fn a_broken_file_stops_the_start_and_later_leaves_the_last_good_settings_in_force() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("settings.yaml");
        fs::write(&file, "proxy: envoi\n").expect("a file");
        let error = Followed::open(&settings(Some(file.clone()))).map(|_| ()).expect_err("refused");
        assert!(format!("{error:#}").contains("settings.yaml:1:1"), "{error:#}");
        fs::write(&file, "revision: a\n").expect("a file");
        let mut followed = Followed::open(&settings(Some(file))).expect("good settings");
        for (text, revision) in [
            ("revision: b", "b"),
            ("revsion: c", "b"),
            ("rootNamespace: other", "b"),
            ("", "default"),
        ] {
            let _ = followed.take(text.to_owned());
            assert_eq!(&*followed.settings.load().revision, revision, "{text}");
        }
    }

    #[test]
    fn settings_of_another_mesh_are_refused() {
        let mut followed = Followed::open(&settings(None)).expect("defaults");
        for (text, option) in [
            ("rootNamespace: other", "--root-namespace"),
            ("trustDomain: other.example", "--trust-domain"),
        ] {
            let error = followed.take(text.to_owned()).expect_err("refused");
            assert!(format!("{error:#}").contains(option), "{error:#}");
        }
    }
}
