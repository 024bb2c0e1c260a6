//! Certificates as a user would make them.

use std::{
    fs,
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

/// What an authority has revoked, as openssl's command `ca` keeps it, in a folder of its own.
pub struct Revocations {
    folder: PathBuf,
    authority: (PathBuf, PathBuf),
}

impl Revocations {
    /// Nothing is revoked yet of what `authority` (its certificate and key, as files) has signed.
    ///
    /// # Panics
    /// The folder cannot be made.
    pub fn new(folder: PathBuf, authority: &(PathBuf, PathBuf)) -> Self {
        fs::create_dir(&folder).expect("a new folder");
        let at = folder.display();
        // Without extensions openssl makes lists of the first version, which not everybody reads.
        let settings = format!(
            "[ca]\ndefault_ca = own\n[own]\ndatabase = {at}/index\ncrlnumber = {at}/number\n\
             default_md = sha256\ndefault_crl_days = 30\ncrl_extensions = extensions\n\
             [extensions]\nauthorityKeyIdentifier = keyid:always\n"
        );
        for (file, text) in [("settings", &*settings), ("index", ""), ("number", "01")] {
            fs::write(folder.join(file), text).expect("a file");
        }
        Self { folder, authority: authority.clone() }
    }

    /// Revokes a certificate.
    ///
    /// # Panics
    /// As [`self_signed`].
    pub fn revoke(&self, certificate: &Path) {
        self.run(|command| command.arg("-revoke").arg(certificate));
    }

    /// The list, as PEM. `times`: openssl's further arguments.
    ///
    /// # Panics
    /// As [`self_signed`].
    pub fn list(&self, times: &[&str]) -> String {
        self.run(|command| command.arg("-gencrl").args(times))
    }

    fn run(&self, about: impl FnOnce(&mut Command) -> &mut Command) -> String {
        let mut command = Command::new("openssl");
        command.arg("ca").arg("-config").arg(self.folder.join("settings"));
        command.arg("-cert").arg(&self.authority.0).arg("-keyfile").arg(&self.authority.1);
        let done = about(&mut command).output().expect("openssl runs");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).expect("PEM")
    }
}
