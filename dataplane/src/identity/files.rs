//! Certificates that lie in files of the proxy's machine, by the names under which Istio's agents
//! serve them.
//!
//! The control plane names them as secrets and never as files: an Envoy refuses a whole resource
//! for a file that is not there and goes on with the one before it, perhaps in plaintext, whereas a
//! secret that is not there closes what needs it. Which file holds the roots of the public PKI only
//! the machine knows.

use std::{
    io,
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

use crate::file;

/// Where distributions keep the roots of the public PKI, as one file in PEM.
const SYSTEM_ROOTS: [&str; 6] = [
    // Debian, Ubuntu, Alpine, Arch, Gentoo, and our images.
    "/etc/ssl/certs/ca-certificates.crt",
    // Fedora, RHEL.
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    // SUSE.
    "/etc/ssl/ca-bundle.pem",
    // OpenELEC.
    "/etc/pki/tls/cacert.pem",
    // Alpine, OpenBSD, macOS.
    "/etc/ssl/cert.pem",
];

/// A secret in files.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FileSecret {
    /// `file-root:ROOTS`, or, as Istio's agents do not have it, `file-root:ROOTS~REVOKED`.
    Roots {
        /// Where roots are; `None` (`system`): the roots of the public PKI, wherever this machine
        /// keeps them.
        roots: Option<PathBuf>,
        /// Lists of revoked certificates.
        revoked: Option<PathBuf>,
    },
    /// `file-cert:CHAIN~KEY`.
    Certificate {
        /// The chain, leaf first.
        chain: PathBuf,
        /// The leaf's key.
        key: PathBuf,
    },
}

/// What the files hold, in PEM.
pub enum FileContent {
    /// Roots, and what they have revoked.
    Roots {
        /// Certificates.
        roots: Vec<u8>,
        /// Lists; `None`: none was named.
        revoked: Option<Vec<u8>>,
    },
    /// A chain and its key.
    Certificate(Vec<u8>, Zeroizing<Vec<u8>>),
}

/// Why a secret cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// A file cannot be read.
    #[error("cannot read {path}: {source}", path = .path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// None of the usual files is there.
    #[error(
        "this machine has no roots of the public PKI: expected one of {}; install ca-certificates, or name a file \
         (caCertificates)",
        SYSTEM_ROOTS.join(", ")
    )]
    NoSystemRoots,
}

impl FileSecret {
    /// The secret that a name stands for; `None` for a name of another kind.
    pub fn parse(name: &str) -> Option<Self> {
        match (name.strip_prefix("file-root:"), name.strip_prefix("file-cert:")) {
            (Some(paths), _) => {
                let (roots, revoked) = match paths.split_once('~') {
                    Some((roots, revoked)) => (roots, Some(revoked)),
                    None => (paths, None),
                };
                let named = !roots.is_empty() && revoked.is_none_or(|path| !path.is_empty());
                named.then(|| Self::Roots {
                    roots: (roots != "system").then(|| roots.into()),
                    revoked: revoked.map(Into::into),
                })
            }
            (_, Some(pair)) => {
                let (chain, key) = pair
                    .split_once('~')
                    .filter(|(chain, key)| !chain.is_empty() && !key.is_empty())?;
                Some(Self::Certificate { chain: chain.into(), key: key.into() })
            }
            _ => None,
        }
    }

    /// Reads the files as they are now.
    ///
    /// # Errors
    /// [`FileError`] names the file, or the files that were looked for.
    pub fn read(&self) -> Result<FileContent, FileError> {
        match self {
            Self::Roots { roots, revoked } => Ok(FileContent::Roots {
                roots: match roots {
                    Some(path) => read(path)?,
                    None => system_roots(SYSTEM_ROOTS.iter().map(Path::new))?,
                },
                revoked: revoked.as_deref().map(read).transpose()?,
            }),
            Self::Certificate { chain, key } => {
                Ok(FileContent::Certificate(read(chain)?, Zeroizing::new(read(key)?)))
            }
        }
    }
}

fn system_roots<'a>(mut places: impl Iterator<Item = &'a Path>) -> Result<Vec<u8>, FileError> {
    places.find(|path| path.is_file()).map_or(Err(FileError::NoSystemRoots), read)
}

fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    file::read(path).map_err(|source| FileError::Read { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn names_are_those_of_istios_agents() {
        let roots = |roots: Option<&str>, revoked: Option<&str>| {
            let (roots, revoked) = (roots.map(Into::into), revoked.map(Into::into));
            Some(FileSecret::Roots { roots, revoked })
        };
        for (name, expected) in [
            ("file-root:system", roots(None, None)),
            ("file-root:/etc/a.pem", roots(Some("/etc/a.pem"), None)),
            ("file-root:/a.pem~/a.crl", roots(Some("/a.pem"), Some("/a.crl"))),
            ("file-root:system~/a.crl", roots(None, Some("/a.crl"))),
            ("file-root:/a.pem~", None),
            ("file-root:~/a.crl", None),
            (
                "file-cert:/a~/b",
                Some(FileSecret::Certificate { chain: "/a".into(), key: "/b".into() }),
            ),
            ("file-cert:/a", None),
            ("file-root:", None),
            ("default", None),
            ("kubernetes://a", None),
        ] {
            assert_eq!(FileSecret::parse(name), expected, "{name}");
        }
    }

    #[test]
    fn the_first_bundle_that_the_machine_has_is_taken_and_none_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let (missing, there) = (folder.path().join("missing"), folder.path().join("there"));
        fs::write(&there, "roots").unwrap();
        let found = system_roots([missing.as_path(), &there].into_iter()).unwrap();
        assert_eq!(found, b"roots");
        let error = system_roots([missing.as_path()].into_iter()).unwrap_err().to_string();
        assert!(error.contains("/etc/pki/tls/certs/ca-bundle.crt"), "{error}");
    }
}
