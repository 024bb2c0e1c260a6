//! A module out of the layers of an image: what a manifest says, and what a layer holds.
//!
//! Spec: OCI image 1.1, "Image Manifest"; WebAssembly artifact images, variants "OCI" (one layer that
//! is the module) and "compat" (a container image whose last layer holds `plugin.wasm`).

use std::io::{self, Read};

use flate2::read::GzDecoder;
use serde::Deserialize;

/// What is asked for: manifests of both families, and lists of them.
pub const MANIFESTS: &str = "application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.v2+json, \
     application/vnd.oci.image.index.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json";
/// Layers that are a module.
const MODULES: [&str; 2] =
    ["application/vnd.module.wasm.content.layer.v1+wasm", "application/wasm"];
/// Layers that are archives.
const ARCHIVES: [&str; 2] = [
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
];
/// The file in an archive that is the module.
const FILE: &str = "plugin.wasm";
/// The largest module.
pub const LARGEST: usize = 64 << 20;
/// Blocks of a tape archive.
const BLOCK: usize = 512;
/// What an archive may have before the module; a container image has little else.
const MOST_BEFORE: usize = 16 * LARGEST;

/// A manifest, or a list of them.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    #[serde(default)]
    layers: Vec<Descriptor>,
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

/// Says which content is meant.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    #[serde(default)]
    media_type: String,
    /// `sha256:` and hexadecimal digits.
    pub digest: String,
    /// Bytes.
    pub size: u64,
    platform: Option<Platform>,
}

#[derive(Clone, Deserialize)]
struct Platform {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
}

impl Manifest {
    /// Reads either.
    ///
    /// # Errors
    /// It is neither.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(text)
            .map_err(|error| format!("the manifest cannot be read: {error}"))
    }

    /// Of a list the manifest of modules: that for WebAssembly, else the one that registries take
    /// for whoever does not say; `None`: it is no list.
    pub fn listed(&self) -> Option<&Descriptor> {
        let of = |architecture: &str, os: &[&str]| {
            self.manifests.iter().find(|listed| {
                let platform = listed.platform.as_ref();
                platform.is_some_and(|p| p.architecture == architecture && os.contains(&&*p.os))
            })
        };
        let wasm = of("wasm", &["wasip1", "wasi", "linux", "unknown", ""]);
        wasm.or_else(|| of("amd64", &["linux"])).or(self.manifests.first())
    }

    /// The layer that holds the module.
    ///
    /// # Errors
    /// There is none, or it is too large.
    pub fn module(&self) -> Result<&Descriptor, String> {
        let whole = self.layers.iter().find(|layer| MODULES.contains(&&*layer.media_type));
        let last = self.layers.last();
        let layer = whole.or(last.filter(|last| ARCHIVES.contains(&&*last.media_type)));
        let layer = layer.ok_or_else(|| {
            let last = last.map_or("no layer", |last| &*last.media_type);
            format!(
                "the image holds no module: got {last}, expected one of {MODULES:?} or {ARCHIVES:?}"
            )
        })?;
        match usize::try_from(layer.size) {
            Ok(size) if size <= LARGEST => Ok(layer),
            _ => Err(format!("its layer has {} bytes: more than {LARGEST}", layer.size)),
        }
    }
}

impl Descriptor {
    /// The module that this layer is or holds.
    ///
    /// # Errors
    /// There is none, or it is too large.
    pub fn unpack(&self, content: Vec<u8>) -> Result<Vec<u8>, String> {
        let module = match ARCHIVES.contains(&&*self.media_type) {
            true => find(&mut GzDecoder::new(&*content))?,
            false => content,
        };
        match module.starts_with(b"\0asm") {
            true => Ok(module),
            false => Err("what the image holds is no WebAssembly module".to_owned()),
        }
    }
}

/// The module's file in a tape archive (POSIX.1-2017, `ustar` of pax).
fn find(archive: &mut impl Read) -> Result<Vec<u8>, String> {
    let broken = |error: io::Error| format!("its layer cannot be unpacked: {error}");
    let (mut header, mut before) = ([0; BLOCK], 0usize);
    loop {
        archive.read_exact(&mut header).map_err(broken)?;
        if header.iter().all(|byte| *byte == 0) {
            return Err(format!("its layer holds no {FILE}"));
        }
        let size = octal(&header[124..136]).ok_or("its layer is no archive")?;
        let name = header[..100].split(|byte| *byte == 0).next().unwrap_or_default();
        let name = name.strip_prefix(b"./").unwrap_or(name);
        if matches!(header[156], 0 | b'0') && name == FILE.as_bytes() {
            if size > LARGEST {
                return Err(format!("its module has {size} bytes: more than {LARGEST}"));
            }
            let mut module = Vec::new();
            let read = archive.take(size as u64).read_to_end(&mut module).map_err(broken)?;
            return if read == size { Ok(module) } else { Err("its layer ends early".to_owned()) };
        }
        let padded = size.div_ceil(BLOCK).saturating_mul(BLOCK);
        before = before.saturating_add(padded).saturating_add(BLOCK);
        if before > MOST_BEFORE {
            return Err("its layer is too large".to_owned());
        }
        let skipped = io::copy(&mut archive.take(padded as u64), &mut io::sink());
        if skipped.map_err(broken)? != padded as u64 {
            return Err(format!("its layer holds no {FILE}"));
        }
    }
}

/// A number in octal digits.
fn octal(field: &[u8]) -> Option<usize> {
    let text = std::str::from_utf8(field).ok()?.trim_matches(['\0', ' ']);
    usize::from_str_radix(if text.is_empty() { "0" } else { text }, 8).ok()
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Write;

    use flate2::{Compression, write::GzEncoder};

    use super::*;

    const MODULE: &[u8] = b"\0asm\x01\0\0\0";

    /// A compressed archive of these files.
    pub(crate) fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        for (name, content) in files {
            let mut header = [0; BLOCK];
            header[..name.len()].copy_from_slice(name.as_bytes());
            let size = format!("{:011o}", content.len());
            header[124..135].copy_from_slice(size.as_bytes());
            header[156] = b'0';
            let padding = vec![0; content.len().next_multiple_of(BLOCK) - content.len()];
            for part in [&header[..], content, &padding] {
                packed.write_all(part).unwrap();
            }
        }
        packed.write_all(&[0; 2 * BLOCK]).unwrap();
        packed.finish().unwrap()
    }

    fn layer(media_type: &str) -> Descriptor {
        let (digest, media_type) = (String::new(), media_type.to_owned());
        Descriptor { media_type, digest, size: 1, platform: None }
    }

    #[test]
    fn a_module_is_found_in_either_form() {
        assert_eq!(layer(MODULES[0]).unpack(MODULE.to_vec()).unwrap(), MODULE);
        for file in ["plugin.wasm", "./plugin.wasm"] {
            let packed = archive(&[("etc/passwd", &[7; 700]), (file, MODULE), ("x", b"y")]);
            for kind in ARCHIVES {
                assert_eq!(layer(kind).unpack(packed.clone()).unwrap(), MODULE, "{file} {kind}");
            }
        }
    }

    #[test]
    fn what_is_no_module_is_said() {
        let whole = archive(&[("plugin.wasm", MODULE)]);
        for (kind, content, expected) in [
            (MODULES[0], b"text".to_vec(), "no WebAssembly module"),
            (ARCHIVES[0], archive(&[("plugin.wasm", b"text")]), "no WebAssembly module"),
            (ARCHIVES[0], archive(&[("a/plugin.wasm", MODULE)]), "holds no plugin.wasm"),
            (ARCHIVES[0], MODULE.to_vec(), "cannot be unpacked"),
            (ARCHIVES[0], whole[..whole.len() / 2].to_vec(), "its layer"),
        ] {
            let error = layer(kind).unpack(content).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_manifest_says_which_layer_it_is() {
        let of = |layers: &str| {
            let text = format!(r#"{{"schemaVersion": 2, "layers": [{layers}]}}"#);
            Manifest::parse(text.as_bytes())
                .and_then(|manifest| manifest.module().map(|layer| layer.digest.clone()))
        };
        let one = |kind: &str, digest: &str, size: u64| {
            format!(r#"{{"mediaType": "{kind}", "digest": "{digest}", "size": {size}}}"#)
        };
        let (module, archive) = (one(MODULES[0], "m", 8), one(ARCHIVES[1], "a", 9));
        assert_eq!(of(&module).unwrap(), "m");
        assert_eq!(of(&format!("{archive}, {module}")).unwrap(), "m");
        assert_eq!(of(&format!("{}, {archive}", one(ARCHIVES[0], "base", 3))).unwrap(), "a");
        assert!(of(&one("text/plain", "t", 1)).unwrap_err().contains("holds no module"));
        assert!(of("").unwrap_err().contains("no layer"));
        assert!(of(&one(MODULES[0], "m", 1 << 40)).unwrap_err().contains("more than"));
    }

    #[test]
    fn of_a_list_the_module_s_manifest_counts() {
        let of = |platforms: &[(&str, &str)]| {
            let one = |(index, (os, architecture)): (usize, &(&str, &str))| {
                format!(
                    r#"{{"digest": "{index}", "size": 1,
                        "platform": {{"os": "{os}", "architecture": "{architecture}"}}}}"#
                )
            };
            let all: Vec<String> = platforms.iter().enumerate().map(one).collect();
            let text = format!(r#"{{"manifests": [{}]}}"#, all.join(","));
            Manifest::parse(text.as_bytes()).unwrap().listed().map(|one| one.digest.clone())
        };
        assert_eq!(of(&[("linux", "arm64"), ("linux", "amd64"), ("wasip1", "wasm")]).unwrap(), "2");
        assert_eq!(of(&[("linux", "arm64"), ("linux", "amd64")]).unwrap(), "1");
        assert_eq!(of(&[("linux", "arm64")]).unwrap(), "0");
        assert_eq!(of(&[]), None);
    }
}
