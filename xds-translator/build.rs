//! Writes `descriptors.bin`: the descriptors of the whole Envoy API, without comments.
//!
//! The `envoy-types` package ships them beside its generated code but does not export them, so they
//! are read from the package's directory, as cargo resolved it.

#![allow(
    clippy::disallowed_methods,
    reason = "cargo speaks to build scripts through the environment"
)]

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use prost::encoding::{decode_varint, encode_varint};

/// `FileDescriptorSet.file`, `FileDescriptorProto.source_code_info`.
const FILE: u64 = 1;
const SOURCE_CODE_INFO: u64 = 9;
const LENGTH_DELIMITED: u64 = 2;

fn main() {
    let set = package_directory("envoy-types").join("src/generated/types.bin");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={}", set.display());
    // The lock file decides which version of the package it is.
    println!("cargo::rerun-if-changed=../Cargo.lock");
    let bytes = fs::read(&set).unwrap_or_else(|e| panic!("reading {}: {e}", set.display()));
    let out =
        PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("descriptors.bin");
    fs::write(&out, without_comments(&bytes))
        .unwrap_or_else(|e| panic!("writing {}: {e}", out.display()));
}

/// Where cargo keeps the sources of a dependency.
fn package_directory(name: &str) -> PathBuf {
    let cargo = env::var_os("CARGO").expect("cargo sets CARGO");
    let manifest = env::var("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR");
    // Only the packages of this platform: those of others need not have been downloaded.
    let platform = env::var("HOST").expect("cargo sets HOST");
    let ask = |network: &[&str]| {
        Command::new(&cargo)
            .args(["metadata", "--filter-platform", &platform])
            .args(network)
            .args(["--format-version", "1", "--manifest-path"])
            .arg(Path::new(&manifest).join("Cargo.toml"))
            .output()
            .expect("cargo metadata starts")
    };
    // A build downloads only what it compiles, so on a clean machine cargo may still miss packages
    // that tests need.
    let mut output = ask(&["--offline"]);
    if !output.status.success() {
        output = ask(&[]);
    }
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value =
        serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON");
    let packages = metadata["packages"].as_array().expect("cargo metadata lists packages");
    let package = packages
        .iter()
        .find(|p| p["name"] == name)
        .unwrap_or_else(|| panic!("{name} is not a dependency"));
    let manifest = package["manifest_path"].as_str().expect("a package has a manifest");
    Path::new(manifest).parent().expect("a manifest lies in a directory").to_owned()
}

/// The descriptor set without `source_code_info`, which is two thirds of it.
///
/// Works on the wire, because decoding into `prost_types` would drop the options that mark secrets.
fn without_comments(set: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(set.len());
    for (tag, content) in records(set) {
        let file = if tag >> 3 == FILE { strip(content) } else { content.to_vec() };
        append(&mut out, tag, &file);
    }
    out
}

fn strip(file: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(file.len());
    for (tag, content) in records(file).filter(|(tag, _)| tag >> 3 != SOURCE_CODE_INFO) {
        append(&mut out, tag, content);
    }
    out
}

fn append(out: &mut Vec<u8>, tag: u64, content: &[u8]) {
    encode_varint(tag, out);
    if tag & 7 == LENGTH_DELIMITED {
        encode_varint(content.len() as u64, out);
    }
    out.extend_from_slice(content);
}

/// The fields of a message: tag, and the content (for numbers: the number as written).
fn records(mut message: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    std::iter::from_fn(move || {
        if message.is_empty() {
            return None;
        }
        let tag = decode_varint(&mut message).expect("a tag");
        let length = match tag & 7 {
            LENGTH_DELIMITED => decode_varint(&mut message).expect("a length"),
            0 => message.iter().position(|b| b & 0x80 == 0).expect("a whole number") as u64 + 1,
            wire_type => panic!("wire type {wire_type} does not occur in descriptors"),
        };
        let (content, rest) =
            message.split_at(usize::try_from(length).expect("a length in memory"));
        message = rest;
        Some((tag, content))
    })
}
