//! A directory of YAML, watched: what is in its files is what is in force.
//!
//! Files are read when they changed (size, time or content), a burst of changes at once. A document that cannot be used is
//! reported, and the last good version of its object keeps serving until the object is gone from the file for good
//! ([`known`]).

mod known;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use ferromesh_xds_translator::{
    diagnostic::{Code, Diagnostic, FieldPath},
    dialect::Object,
    ir::ObjectId,
};
use notify::{RecursiveMode, Watcher};
use tokio::sync::mpsc;

use self::known::{Known, WRITING_GRACE, duplicate};
use super::{ConfigEvent, EventSender, SourceChange, SourceId};
use crate::secret::{self, Secrets};

/// Quiet time after which a burst of file events is read.
const QUIET: Duration = Duration::from_millis(20);
/// A steady stream of file events is read at least this often.
const LONGEST_WAIT: Duration = Duration::from_millis(500);
/// Changes are looked for this often without any event: some file systems send none.
const RESCAN: Duration = Duration::from_secs(5);

/// Why a directory cannot be watched.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// It is not there, or not a directory, or not readable.
    #[error("cannot read the configuration directory {path}: {source}; give an existing directory with --config", path = path.display())]
    Unreadable {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The system refuses to watch it.
    #[error("cannot watch {path}: {source}; raise fs.inotify.max_user_watches", path = path.display())]
    Unwatchable {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: notify::Error,
    },
}

/// Watches directories until the pipeline is gone.
///
/// # Errors
/// A directory cannot be read or watched at the start. Later trouble becomes diagnostics.
pub async fn run(paths: Vec<PathBuf>, secrets: Arc<Secrets>, events: EventSender) -> Result<(), DirectoryError> {
    for path in &paths {
        fs::read_dir(path).map_err(|source| DirectoryError::Unreadable { path: path.clone(), source })?;
    }
    let (wake, mut woken) = mpsc::channel(1);
    let mut watcher = notify::recommended_watcher(move |_| {
        // One pending wake-up says as much as many.
        let _ = wake.try_send(());
    })
    .map_err(|source| DirectoryError::Unwatchable { path: paths.first().cloned().unwrap_or_default(), source })?;
    for path in &paths {
        watcher
            .watch(path, RecursiveMode::Recursive)
            .map_err(|source| DirectoryError::Unwatchable { path: path.clone(), source })?;
    }
    let mut directory = Directory { paths, secrets, ..Directory::default() };
    let mut first = true;
    loop {
        let scanned = tokio::task::spawn_blocking(move || {
            let event = directory.scan(Instant::now());
            (directory, event)
        });
        let Ok((back, event)) = scanned.await else { return Ok(()) };
        directory = back;
        if let Some(event) = event.or_else(|| first.then(ConfigEvent::nothing)) {
            let event = ConfigEvent { synced: true, ..event };
            if events.send(event).await.is_err() {
                return Ok(());
            }
        }
        first = false;
        let pause = if directory.waiting() { WRITING_GRACE } else { RESCAN };
        if let Ok(None) = tokio::time::timeout(pause, settle(&mut woken)).await {
            return Ok(());
        }
    }
}

impl ConfigEvent {
    fn nothing() -> Self {
        Self { source: SourceId::Directory, changes: Vec::new(), diagnostics: None, synced: true }
    }
}

/// Waits for a file event and then for quiet.
async fn settle(woken: &mut mpsc::Receiver<()>) -> Option<()> {
    woken.recv().await?;
    let begin = Instant::now();
    while begin.elapsed() < LONGEST_WAIT && tokio::time::timeout(QUIET, woken.recv()).await.is_ok_and(|w| w.is_some()) {
    }
    Some(())
}

/// What is known of the watched files.
#[derive(Default)]
struct Directory {
    paths: Vec<PathBuf>,
    secrets: Arc<Secrets>,
    files: BTreeMap<PathBuf, Known>,
    /// What the pipeline was told: the file and the content that serves for each object.
    told: BTreeMap<ObjectId, (PathBuf, u64)>,
    diagnostics: Vec<Diagnostic>,
}

impl Directory {
    fn waiting(&self) -> bool {
        self.files.values().any(Known::is_being_written)
    }

    /// Looks at every file and says what changed; `None`: nothing.
    fn scan(&mut self, now: Instant) -> Option<ConfigEvent> {
        let mut listing = BTreeSet::new();
        let mut trouble = Vec::new();
        for path in &self.paths {
            list(path, &mut listing, &mut trouble);
        }
        self.files.retain(|path, _| listing.contains(path));
        for path in listing {
            let known = self.files.entry(path.clone()).or_default();
            if let Err(error) = known.refresh(&path, now) {
                // Deleted since it was listed: the next scan knows.
                if error.kind() != io::ErrorKind::NotFound {
                    trouble.push(unreadable(&path, &error));
                }
            }
        }
        self.compare(trouble)
    }

    /// Compares what the files say with what the pipeline was told.
    fn compare(&mut self, mut diagnostics: Vec<Diagnostic>) -> Option<ConfigEvent> {
        let mut serving: BTreeMap<&ObjectId, (&PathBuf, u64, &Object)> = BTreeMap::new();
        for (path, file) in &self.files {
            diagnostics.extend(file.diagnostics().iter().cloned());
            for (id, content, object) in file.objects() {
                match serving.get(id) {
                    // The first by path serves.
                    Some((_, _, first)) => diagnostics.push(duplicate(object, first)),
                    None => drop(serving.insert(id, (path, content, object))),
                }
            }
        }
        let mut changes = Vec::new();
        let gone: Vec<ObjectId> = self.told.keys().filter(|id| !serving.contains_key(id)).cloned().collect();
        let mut told = BTreeMap::new();
        for (id, (path, content, object)) in serving {
            if self.told.get(id).is_none_or(|(_, before)| *before != content) {
                match SourceChange::appeared(SourceId::Directory, &self.secrets, object) {
                    Ok(change) => changes.push(change),
                    Err(diagnostic) => diagnostics.push(*diagnostic),
                }
            } else if let Err(diagnostic) = secret::split(object) {
                diagnostics.push(*diagnostic);
            }
            told.insert(id.clone(), (path.clone(), content));
        }
        changes.extend(gone.iter().map(|id| SourceChange::vanished(SourceId::Directory, &self.secrets, id)));
        self.told = told;
        let diagnostics = (diagnostics != self.diagnostics).then(|| {
            self.diagnostics.clone_from(&diagnostics);
            diagnostics
        });
        let changed = !changes.is_empty() || diagnostics.is_some();
        changed.then_some(ConfigEvent { source: SourceId::Directory, changes, diagnostics, synced: true })
    }
}

/// Levels of folders that are looked into.
const DEEPEST: usize = 32;

/// One look at the files of a directory. Links are resolved once, and only what lies in the directory counts: whoever may put
/// a link into it may not have anything else read by it.
struct Listing<'a> {
    root: PathBuf,
    found: &'a mut BTreeSet<PathBuf>,
    trouble: &'a mut Vec<Diagnostic>,
    /// Folders on the way to here and those that were looked into, so that links in circles end.
    visited: BTreeSet<PathBuf>,
}

/// Every YAML or JSON file below `path`, hidden ones (editors' drafts) left out.
fn list(path: &Path, found: &mut BTreeSet<PathBuf>, trouble: &mut Vec<Diagnostic>) {
    match fs::canonicalize(path) {
        Ok(root) => Listing { root: root.clone(), found, trouble, visited: BTreeSet::from([root]) }.folder(path, 0),
        Err(error) => trouble.push(unreadable(path, &error)),
    }
}

impl Listing<'_> {
    fn folder(&mut self, path: &Path, depth: usize) {
        let entries = match fs::read_dir(path) {
            Ok(entries) => entries,
            Err(error) => return self.trouble.push(unreadable(path, &error)),
        };
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        // In an order that does not depend on the file system, since of two ways to a folder the first counts.
        paths.sort_unstable();
        for path in paths {
            let hidden = path.file_name().is_none_or(|name| name.to_string_lossy().starts_with('.'));
            if !hidden {
                self.entry(&path, depth);
            }
        }
    }

    fn entry(&mut self, path: &Path, depth: usize) {
        let named = matches!(path.extension().and_then(|e| e.to_str()), Some("yaml" | "yml" | "json"));
        let (target, kind) = match fs::canonicalize(path).and_then(|target| Ok((fs::metadata(&target)?, target))) {
            Ok((metadata, target)) => (target, metadata.file_type()),
            // Deleted since it was listed, or somebody's broken link.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) if named => return self.trouble.push(unreadable(path, &error)),
            Err(_) => return,
        };
        let inside = target.starts_with(&self.root);
        if kind.is_dir() && inside && depth < DEEPEST {
            if self.visited.insert(target) {
                self.folder(path, depth + 1);
            }
        } else if kind.is_file() && named && inside {
            self.found.insert(path.to_owned());
        } else if named || kind.is_dir() {
            self.trouble.push(left_out(path, kind, inside));
        }
    }
}

/// Why something that looks like configuration is not read.
fn left_out(path: &Path, kind: fs::FileType, inside: bool) -> Diagnostic {
    let (why, fix) = match (kind.is_file() || kind.is_dir(), inside) {
        (true, false) => ("it is a link that leads out of the directory", "put the file itself there"),
        (true, true) => ("its folder lies too deep", "move it up"),
        (false, _) => ("it is no regular file", "put a file there"),
    };
    let message = format!("{} is not read: {why}", path.display());
    Diagnostic::error(Code::UnreadableFile, FieldPath::root(), message).fix(fix)
}

fn unreadable(path: &Path, error: &io::Error) -> Diagnostic {
    let message = format!("cannot read {}: {error}", path.display());
    Diagnostic::error(Code::UnreadableFile, FieldPath::root(), message).fix("check its permissions")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVICE: &str =
        "apiVersion: v1\nkind: Service\nmetadata: {name: NAME}\nspec: {ports: [{name: http, port: 80}]}\n";
    const BROKEN: &str =
        "apiVersion: v1\nkind: Service\nmetadata: {name: NAME}\nspec: {ports: [{name: http, port: eighty}]}\n";

    struct Watched {
        dir: tempfile::TempDir,
        directory: Directory,
        now: Instant,
    }

    impl Watched {
        fn new() -> Self {
            let dir = tempfile::tempdir().expect("a directory");
            let directory = Directory { paths: vec![dir.path().to_owned()], ..Directory::default() };
            Self { dir, directory, now: Instant::now() }
        }

        fn write(&self, file: &str, text: &str) {
            fs::write(self.dir.path().join(file), text).expect("writing");
        }

        /// What changed, as `+name` and `-name`, and the number of diagnostics now.
        fn scan(&mut self) -> (Vec<String>, usize) {
            let event = self.directory.scan(self.now);
            let changes = event.into_iter().flat_map(|e| e.changes).map(|change| match change {
                SourceChange::Upsert(object) => format!("+{}", object.id.name),
                SourceChange::Delete(id) => format!("-{}", id.name),
                SourceChange::Credential { name, fact, .. } => {
                    format!("{}{name}", if fact.is_some() { "*" } else { "/" })
                }
            });
            (changes.collect(), self.directory.diagnostics.len())
        }

        fn changes(&mut self) -> Vec<String> {
            self.scan().0
        }
    }

    fn service(name: &str) -> String {
        SERVICE.replace("NAME", name)
    }

    #[test]
    fn files_come_change_and_go() {
        let mut w = Watched::new();
        w.write("a.yaml", &format!("{}---\n{}", service("one"), service("two")));
        w.write("notes.txt", "not ours");
        w.write(".draft.yaml", &service("hidden"));
        assert_eq!(w.changes(), ["+one", "+two"]);
        assert_eq!(w.changes(), Vec::<String>::new());
        w.write("a.yaml", &format!("{}---\n{}", service("one"), service("three")));
        assert_eq!(w.changes(), ["+three", "-two"]);
        fs::rename(w.dir.path().join("a.yaml"), w.dir.path().join("b.yaml")).expect("renaming");
        assert_eq!(w.changes(), Vec::<String>::new(), "the same objects under another file name");
        fs::remove_file(w.dir.path().join("b.yaml")).expect("removing");
        assert_eq!(w.changes(), ["-one", "-three"]);
    }

    #[test]
    fn a_broken_document_keeps_its_last_good_version_and_spares_its_neighbours() {
        let mut w = Watched::new();
        w.write("a.yaml", &format!("{}---\n{}", service("one"), service("two")));
        assert_eq!(w.scan().0, ["+one", "+two"]);
        w.write("a.yaml", &format!("{}---\n{}", BROKEN.replace("NAME", "one"), service("three")));
        let (changes, diagnostics) = w.scan();
        assert_eq!(changes, ["+three", "-two"]);
        assert!(diagnostics > 0, "nothing was reported");
        w.write("a.yaml", "apiVersion: v1\nkind: Service\nmetadata: {name: one\n---\n: : :\n");
        assert_eq!(w.changes(), Vec::<String>::new(), "text that names no object takes nothing away");
    }

    #[test]
    fn an_empty_file_is_one_that_is_being_written_for_a_moment() {
        let mut w = Watched::new();
        w.write("a.yaml", &service("one"));
        assert_eq!(w.changes(), ["+one"]);
        w.write("a.yaml", "");
        assert_eq!(w.changes(), Vec::<String>::new());
        w.now += WRITING_GRACE;
        assert_eq!(w.changes(), ["-one"]);
    }

    #[test]
    fn of_two_files_with_one_object_the_first_serves_until_it_goes() {
        let mut w = Watched::new();
        w.write("a.yaml", &service("one"));
        w.write("b.yaml", &service("one").replace("port: 80", "port: 81"));
        let (changes, diagnostics) = w.scan();
        assert_eq!((changes, diagnostics), (vec!["+one".to_owned()], 1));
        fs::remove_file(w.dir.path().join("a.yaml")).expect("removing");
        assert_eq!(w.scan(), (vec!["+one".to_owned()], 0));
    }

    #[test]
    fn a_secret_is_split_and_its_key_never_told() {
        let mut w = Watched::new();
        let certificate = rcgen::generate_simple_self_signed(vec!["shop.example".to_owned()]).expect("a certificate");
        let text = serde_json::json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "cert", "namespace": "shop" },
            "stringData": { "tls.crt": certificate.cert.pem(), "tls.key": certificate.signing_key.serialize_pem() },
        });
        w.write("cert.json", &text.to_string());
        assert_eq!(w.changes(), ["*cert"]);
        fs::remove_file(w.dir.path().join("cert.json")).expect("removing");
        assert_eq!(w.changes(), ["/cert"]);
        let broken = text.to_string().replace("BEGIN CERTIFICATE", "BEGIN NOTHING");
        w.write("cert.json", &broken);
        let (changes, diagnostics) = w.scan();
        assert_eq!((changes.len(), diagnostics), (0, 1));
    }

    #[test]
    fn only_regular_files_of_the_directory_are_read_and_links_end() {
        use std::os::unix::fs::symlink;
        let mut w = Watched::new();
        let outside = tempfile::tempdir().expect("a directory");
        let token = outside.path().join("token");
        fs::write(&token, "kept-to-itself: [x\n").expect("a file");
        w.write("a.yaml", &service("one"));
        let path = |name: &str| w.dir.path().join(name);
        symlink(&token, path("token.yaml")).expect("a link out");
        symlink(outside.path(), path("elsewhere")).expect("a link out");
        symlink(w.dir.path(), path("circle")).expect("a link in a circle");
        symlink("loop.yaml", path("loop.yaml")).expect("a link to itself");
        symlink("a.yaml", path("b.yaml")).expect("a link within");
        symlink("nowhere.yaml", path("gone.yaml")).expect("a broken link");
        let made = std::process::Command::new("mkfifo").arg(path("pipe.yaml")).status().expect("mkfifo");
        assert!(made.success());
        assert_eq!(w.changes(), ["+one"]);
        let said: Vec<String> = w.directory.diagnostics.iter().map(ToString::to_string).collect();
        let about = |name: &str| said.iter().filter(|finding| finding.contains(name)).count();
        for name in ["token.yaml", "elsewhere", "loop.yaml", "pipe.yaml"] {
            assert_eq!(about(name), 1, "{name}: {said:#?}");
        }
        assert_eq!((about("circle"), about("gone.yaml"), about("kept-to-itself")), (0, 0, 0), "{said:#?}");
    }
}
