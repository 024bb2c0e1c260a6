//! Modules in images: pulled from registries into the agent's directory, and found there again.
//!
//! A module lies under the digests of its manifest and of itself, and is checked against the latter
//! whenever it is handed out; what a tag stood for is kept beside, for whom that is enough.

pub mod credentials;
pub mod layer;
pub mod reference;
pub mod registry;

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;

use self::{
    credentials::Credentials,
    layer::{LARGEST, Manifest},
    reference::{LATEST, Reference, Version},
    registry::{Network, Registry},
};

/// A pull may take this long.
const LONGEST: Duration = Duration::from_secs(60);
/// Modules that are kept; those that nobody asked for the longest go first.
const MOST: usize = 16;

/// Which image is wanted.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Wanted {
    /// Its name.
    pub reference: Reference,
    /// SHA-256 of its manifest, in small hexadecimal digits; `None`: any will do.
    pub digest: Option<String>,
    /// Whether the registry is asked although the image is here.
    pub always: bool,
    /// The Secret that the registry takes, `NAMESPACE/NAME`; `None`: it lets everybody pull.
    pub secret: Option<String>,
}

impl Wanted {
    /// Reads `oci://IMAGE`, perhaps with `?pull=always` or `?pull=missing` and `&secret=…`; the tag
    /// `latest` is asked for always unless it is said otherwise.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(url: &str, digest: &str) -> Result<Self, String> {
        let text = url.strip_prefix("oci://").ok_or_else(|| format!("{url:?} is no image"))?;
        let (image, told) = text.split_once("?pull=").unwrap_or((text, ""));
        let (pull, secret) = told.split_once("&secret=").unwrap_or((told, ""));
        let reference = Reference::parse(image)?;
        let digest = (!digest.is_empty()).then(|| digest.to_ascii_lowercase());
        let always = match (pull, &reference.version) {
            ("always", Version::Tag(_)) => true,
            ("", Version::Tag(tag)) => tag == LATEST,
            _ => false,
        };
        let secret = (!secret.is_empty()).then(|| secret.to_owned());
        Ok(Self { reference, digest, always, secret })
    }
}

/// A directory of modules, and the way to registries.
#[derive(Clone)]
pub struct Images {
    folder: PathBuf,
    network: Network,
}

impl Images {
    /// Keeps modules in this folder, which is made when it is needed.
    pub fn new(folder: PathBuf, network: Network) -> Self {
        Self { folder, network }
    }

    /// The file of an image's module, pulled if need be; `secret`: the content of the Secret that
    /// the registry takes, if one is wanted, which is asked for then.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn module(
        &self,
        wanted: &Wanted,
        secret: Option<impl Future<Output = Result<Bytes, String>>>,
    ) -> Result<PathBuf, String> {
        if let Some(path) = self.known(wanted).filter(|_| !wanted.always) {
            return Ok(path);
        }
        let pull = async {
            let credentials = match secret {
                Some(secret) => Credentials::parse(&secret.await?)?,
                None => Credentials::default(),
            };
            self.pull(wanted, &credentials).await
        };
        let pull = tokio::time::timeout(LONGEST, pull).await;
        let pulled = pull.unwrap_or_else(|_| Err(format!("not pulled within {LONGEST:?}")));
        pulled.map_err(|why| format!("image {}: {why}", wanted.reference))
    }

    /// The module that is here, by the digest that is wanted or what the tag stood for last.
    fn known(&self, wanted: &Wanted) -> Option<PathBuf> {
        let manifest = match (&wanted.reference.version, &wanted.digest) {
            (Version::Digest(hex), _) => hex.clone(),
            (Version::Tag(_), Some(hex)) => hex.clone(),
            (Version::Tag(_), None) => fs::read_to_string(self.tag(&wanted.reference)).ok()?,
        };
        self.find(&manifest)
    }

    async fn pull(&self, wanted: &Wanted, credentials: &Credentials) -> Result<PathBuf, String> {
        let mut registry = Registry::new(&self.network, &wanted.reference, credentials);
        let version = wanted.reference.version.to_string();
        let mut body = registry.manifest(&version).await?;
        let named = sha256(&body);
        if let Version::Digest(hex) = &wanted.reference.version
            && *hex != named
        {
            return Err(format!("the registry sent sha256:{named} for it"));
        }
        let mut manifest = Manifest::parse(&body)?;
        let mut chosen = named.clone();
        if let Some(listed) = manifest.listed() {
            let wanted = listed.digest.clone();
            body = registry.manifest(&wanted).await?;
            chosen = sha256(&body);
            if wanted != format!("sha256:{chosen}") {
                return Err(format!("the registry sent sha256:{chosen} for {wanted}"));
            }
            manifest = Manifest::parse(&body)?;
        }
        if let Some(expected) = wanted.digest.as_ref().filter(|e| **e != named && **e != chosen) {
            return Err(format!("it is sha256:{named}, not sha256:{expected}"));
        }
        let path = match self.find(&named) {
            Some(path) => path,
            None => {
                let layer = manifest.module()?.clone();
                let content = registry.blob(&layer.digest, LARGEST).await?;
                if format!("sha256:{}", sha256(&content)) != layer.digest {
                    return Err(format!("the registry sent other bytes for {}", layer.digest));
                }
                let module = tokio::task::spawn_blocking(move || layer.unpack(content.into()));
                let module = module.await.map_err(|error| error.to_string())??;
                self.keep(&named, &module).map_err(|error| self.unwritable(&error))?
            }
        };
        if named != chosen && wanted.digest.as_ref() == Some(&chosen) {
            self.keep(&chosen, &fs::read(&path).map_err(|error| self.unwritable(&error))?)
                .map_err(|error| self.unwritable(&error))?;
        }
        if matches!(wanted.reference.version, Version::Tag(_)) {
            let tag = self.tag(&wanted.reference);
            write(&tag, named.as_bytes()).map_err(|error| self.unwritable(&error))?;
        }
        Ok(path)
    }

    fn unwritable(&self, error: &io::Error) -> String {
        format!("{}: {error}", self.folder.display())
    }

    /// The module of a manifest, if it is here as it was pulled.
    fn find(&self, manifest: &str) -> Option<PathBuf> {
        let mut files = fs::read_dir(&self.folder).ok()?.flatten();
        let path = files.find_map(|file| {
            let name = file.file_name().into_string().ok()?;
            let own = name.strip_suffix(".wasm")?.strip_prefix(manifest)?.strip_prefix('.')?;
            let content = fs::read(file.path()).ok()?;
            (sha256(&content) == own).then(|| file.path())
        })?;
        // So that it is not the one that goes.
        let _ = fs::File::open(&path).and_then(|file| file.set_modified(SystemTime::now()));
        Some(path)
    }

    fn keep(&self, manifest: &str, module: &[u8]) -> io::Result<PathBuf> {
        let path = self.folder.join(format!("{manifest}.{}.wasm", sha256(module)));
        write(&path, module)?;
        self.forget_oldest()?;
        Ok(path)
    }

    fn forget_oldest(&self) -> io::Result<()> {
        let mut modules = Vec::new();
        for file in fs::read_dir(&self.folder)?.flatten() {
            let path = file.path();
            if path.extension().is_some_and(|extension| extension == "wasm") {
                modules.push((file.metadata()?.modified()?, path));
            }
        }
        modules.sort();
        let too_many = modules.len().saturating_sub(MOST);
        modules.into_iter().take(too_many).try_for_each(|(_, path)| fs::remove_file(path))
    }

    /// Where it is written what a tag stood for.
    fn tag(&self, reference: &Reference) -> PathBuf {
        self.folder.join(format!("{}.tag", sha256(reference.to_string().as_bytes())))
    }
}

/// Writes a file as a whole, for the agent's user alone.
fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let nascent = path.with_extension("new");
    let mut file = fs::OpenOptions::new();
    let mut file = file.write(true).create(true).truncate(true).mode(0o600).open(&nascent)?;
    file.write_all(content)?;
    fs::rename(&nascent, path)
}

fn sha256(content: &[u8]) -> String {
    digest(&SHA256, content).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
