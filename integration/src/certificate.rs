//! Certificates as a user would make them.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// What openssl makes a new key by.
const NEW_KEY: [&str; 5] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];

/// Makes a key in the file `key`, and a certificate request without a subject, as PEM. `about`:
/// openssl's further arguments.
///
/// # Panics
/// As [`self_signed`].
pub fn request(key: &Path, about: &[&str]) -> String {
    let mut command = Command::new("openssl");
    command.args(["req", "-new"]).args(NEW_KEY).args(["-subj", "/"]).args(about);
    let made = command.arg("-keyout").arg(key).output().expect("openssl runs");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    String::from_utf8(made.stdout).expect("PEM")
}

/// Makes a certificate that signs itself and its key, as PEM, in `folder`: the files `NAME.crt` and
/// `NAME.key`. `about`: openssl's arguments that say whose it is.
///
/// # Panics
/// openssl does not run or refuses, with its words.
pub fn self_signed(folder: &Path, name: &str, about: &[&str]) -> (PathBuf, PathBuf) {
    let path = |kind: &str| folder.join(format!("{name}.{kind}"));
    let (certificate, key) = (path("crt"), path("key"));
    let made = Command::new("openssl")
        .args(["req", "-x509"])
        .args(NEW_KEY)
        .args(["-days", "2"])
        .args(about)
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .output()
        .expect("openssl runs");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    (certificate, key)
}

/// [`self_signed`] for one that `authority` (its certificate and key, as files) signs. `subject`:
/// `/` for none, or as `/CN=NAME`; `alternative`: as openssl spells subjectAltName, `URI:…` or
/// `DNS:…,DNS:…`.
///
/// # Panics
/// As [`self_signed`], and where a path is no UTF-8.
pub fn signed(
    folder: &Path,
    name: &str,
    subject: &str,
    authority: &(PathBuf, PathBuf),
    alternative: &str,
) -> (PathBuf, PathBuf) {
    let path = |path: &Path| path.to_str().expect("a path of ours is text").to_owned();
    let (certificate, key) = (path(&authority.0), path(&authority.1));
    let alternative = format!("subjectAltName={alternative}");
    let constraint = "basicConstraints=critical,CA:FALSE";
    let signer = ["-CA", &certificate, "-CAkey", &key];
    let about = ["-subj", subject, "-addext", constraint, "-addext", &alternative];
    self_signed(folder, name, &[&signer[..], &about].concat())
}
