//! The word that what a data directory holds is all that there is.
//!
//! State that is lost looks like state that was never made. So nothing is made in the place of what
//! is missing, unless this file stands in the data directory: a first start makes it before
//! anything else and removes it before anybody is served; later it is an operator's own step, for
//! one start.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use ferromesh_cert_authority::files;

/// Where that word lies.
#[derive(Clone, Debug)]
pub struct AcceptState(PathBuf);

impl AcceptState {
    /// The file at this path, which need not exist.
    pub fn at(path: PathBuf) -> Self {
        Self(path)
    }

    /// Makes the file where none of `parts` exists: this is the first start. Returns whether it
    /// stands, although this is none: then an operator made it, or a first start was cut off.
    ///
    /// # Errors
    /// The file cannot be made, or something else stands in its place.
    pub fn begin(&self, parts: &[PathBuf]) -> io::Result<bool> {
        if let Ok(found) = fs::symlink_metadata(&self.0) {
            return if found.is_file() {
                Ok(true)
            } else {
                Err(self.obstructed(found.file_type()))
            };
        }
        if parts.iter().all(|part| is_nothing(part)) {
            files::create(&self.0, 0o600, b"")?;
            files::sync_parent(&self.0)?;
        }
        Ok(false)
    }

    /// Whether what is missing may be made.
    pub fn stands(&self) -> bool {
        fs::symlink_metadata(&self.0).is_ok_and(|found| found.is_file())
    }

    /// From now on what is missing is lost.
    ///
    /// # Errors
    /// The file cannot be removed.
    pub fn end(&self) -> io::Result<()> {
        match fs::remove_file(&self.0) {
            Ok(()) => files::sync_parent(&self.0),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// No command that makes the file works where something else stands.
    fn obstructed(&self, kind: fs::FileType) -> io::Error {
        let what = files::what(kind);
        let message = format!(
            "it is {what}, expected a regular file or nothing; remove it to start as usual, or replace it by an empty file \
             to go on with what the data directory holds"
        );
        io::Error::new(io::ErrorKind::InvalidInput, message)
    }

    /// The step with which an operator says it.
    pub fn step(&self) -> String {
        format!("touch {}", self.0.display())
    }
}

/// Whether nothing is there that could be left of an earlier run; what cannot be looked at may be.
fn is_nothing(part: &Path) -> bool {
    match fs::symlink_metadata(part) {
        Err(error) => error.kind() == io::ErrorKind::NotFound,
        Ok(found) => {
            found.is_dir() && fs::read_dir(part).is_ok_and(|mut entries| entries.next().is_none())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn every_part_alone_proves_an_earlier_run() {
        type Make = fn(&PathBuf) -> io::Result<()>;
        let makes: [(bool, Make); 4] = [
            (false, |part| fs::write(part, "")),
            (false, |part| symlink("nowhere", part)),
            (false, |part| fs::create_dir(part).and_then(|()| fs::write(part.join("x"), ""))),
            (true, |part| fs::create_dir(part)),
        ];
        for (first, make) in makes {
            for name in ["ca", "secrets.key"] {
                let dir = tempfile::tempdir().expect("a directory");
                let parts = ["ca", "secrets.key"].map(|part| dir.path().join(part));
                make(&dir.path().join(name)).expect("made");
                let accept = AcceptState::at(dir.path().join("accept-state"));
                assert!(!accept.begin(&parts).expect("looked at"));
                assert_eq!(accept.stands(), first, "{name}");
            }
        }
    }

    #[test]
    fn what_stands_in_its_place_is_named_and_removing_it_is_the_step() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("accept-state");
        let accept = AcceptState::at(path.clone());
        type Make = fn(&Path) -> io::Result<()>;
        let makes: [(&str, Make); 3] = [
            ("a directory", |path| fs::create_dir(path)),
            ("a link", |path| symlink("nowhere", path)),
            ("a link", |path| symlink("admin-token", path)),
        ];
        fs::write(dir.path().join("admin-token"), "").expect("a file");
        for (what, make) in makes {
            make(&path).expect("made");
            let error = accept.begin(&[]).expect_err(what).to_string();
            assert!(error.contains(what) && error.contains("remove it"), "{error}");
            assert!(!accept.stands());
            if path.is_dir() { fs::remove_dir(&path) } else { fs::remove_file(&path) }
                .expect("removed");
        }
    }

    #[test]
    fn it_holds_until_its_end_even_if_the_first_start_is_cut_off() {
        let dir = tempfile::tempdir().expect("a directory");
        let parts = [dir.path().join("ca")];
        let accept = AcceptState::at(dir.path().join("accept-state"));
        accept.begin(&parts).expect("begun");
        fs::write(&parts[0], "").expect("made");
        assert!(accept.begin(&parts).expect("begun again") && accept.stands());
        accept.end().expect("ended");
        accept.end().expect("ended already");
        assert!(!accept.begin(&parts).expect("a later start") && !accept.stands());
    }
}
