//! Names of images: `[REGISTRY/]REPOSITORY[:TAG][@DIGEST]`.
//! Spec: OCI distribution 1.1, "Pulling manifests"; what Docker's tools leave out.

use std::fmt;

/// Where images are whose name has no registry.
const DOCKER_HUB: &str = "docker.io";
/// Where that is asked.
const DOCKER_HUB_SERVER: &str = "registry-1.docker.io";
/// The tag of an image whose name has none.
pub const LATEST: &str = "latest";

/// A name of an image.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Reference {
    /// The registry, with its port if one is written.
    pub registry: String,
    /// The repository in it.
    pub repository: String,
    /// Which image of it.
    pub version: Version,
}

/// Which image of a repository.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Version {
    /// What a tag stands for at the moment.
    Tag(String),
    /// The one whose manifest has this SHA-256, in small hexadecimal digits.
    Digest(String),
}

impl Reference {
    /// Reads a name, without a scheme.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| Err(format!("{text:?} is no name of an image: {what}"));
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest)),
            None => (text, None),
        };
        let (registry, path) = match name.split_once('/') {
            Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => {
                (first, rest)
            }
            _ => (DOCKER_HUB, name),
        };
        let (repository, tag) = match path.rsplit_once(':') {
            Some((repository, tag)) => (repository, Some(tag)),
            None => (path, None),
        };
        let small = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c);
        if !repository.split('/').all(|part| !part.is_empty() && part.chars().all(small)) {
            return wrong("expected a repository of small letters, digits, `.`, `_`, `-` and `/`");
        }
        let word = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if tag.is_some_and(|tag| tag.is_empty() || tag.len() > 128 || !tag.chars().all(word)) {
            return wrong("expected a tag of letters, digits, `.`, `_` and `-`");
        }
        if !registry.chars().all(|c| word(c) || ":[]".contains(c)) {
            return wrong("expected HOST or HOST:PORT of a registry");
        }
        let version = match (digest.map(|digest| digest.strip_prefix("sha256:")), tag) {
            (Some(Some(hex)), _) if is_sha256(hex) => Version::Digest(hex.to_ascii_lowercase()),
            (Some(_), _) => return wrong("expected `@sha256:` and 64 hexadecimal digits"),
            (None, tag) => Version::Tag(tag.unwrap_or(LATEST).to_owned()),
        };
        let official = registry == DOCKER_HUB && !repository.contains('/');
        let repository = if official { format!("library/{repository}") } else { repository.into() };
        Ok(Self { registry: registry.to_owned(), repository, version })
    }

    /// The host, and port if there is one, that answers for the registry.
    pub fn server(&self) -> &str {
        if self.registry == DOCKER_HUB { DOCKER_HUB_SERVER } else { &self.registry }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        match &self.version {
            Version::Tag(tag) => write!(f, ":{tag}"),
            Version::Digest(hex) => write!(f, "@sha256:{hex}"),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => f.write_str(tag),
            Self::Digest(hex) => write!(f, "sha256:{hex}"),
        }
    }
}

/// Whether a text is a SHA-256 in hexadecimal digits.
pub fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.chars().all(|c| c.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_what_docker_means() {
        let hex = "0123456789abcdef".repeat(4);
        let digest = format!("a.test:5000/team/m@sha256:{hex}");
        let both = format!("a.test/m:v1@sha256:{}", hex.to_uppercase());
        let table = [
            ("a.test/m:v1", "a.test/m:v1".to_owned(), "a.test"),
            ("a.test:5000/team/m", "a.test:5000/team/m:latest".into(), "a.test:5000"),
            ("localhost/m", "localhost/m:latest".into(), "localhost"),
            ("[::1]:5000/m", "[::1]:5000/m:latest".into(), "[::1]:5000"),
            ("m", "docker.io/library/m:latest".into(), "registry-1.docker.io"),
            ("team/m:v2", "docker.io/team/m:v2".into(), "registry-1.docker.io"),
            (&digest, digest.clone(), "a.test:5000"),
            (&both, format!("a.test/m@sha256:{hex}"), "a.test"),
        ];
        for (text, expected, server) in table {
            let reference = Reference::parse(text).unwrap();
            assert_eq!((reference.to_string(), reference.server()), (expected, server), "{text}");
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for text in [
            "",
            "a.test/",
            "a.test/M",
            "a.test/m:",
            "a.test/m:v 1",
            "a.test/m@sha256:12",
            "a.test/m@md5:12",
            "user@a.test/m",
            "a.test//m",
            "a b.test/m",
            "a.test/m?x",
        ] {
            assert!(Reference::parse(text).is_err(), "{text}");
        }
    }
}
