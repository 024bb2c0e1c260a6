//! A directory of YAML, watched: what is in its files is what is in force.
//!
//! Files are read when they changed (another file, size, or either time), a burst of changes at once. A document
//! that cannot be used is reported, and the last good version of its object keeps serving until the
//! object is gone from the file for good ([`known`]). So does everything of a file that cannot be
//! read: objects go with their file only when it was seen to be gone ([`listing`]).

mod known;
pub(crate) mod listing;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use ferromesh_xds_translator::{diagnostic::Diagnostic, dialect::Object, ir::ObjectId};
use notify::{RecursiveMode, Watcher};
use tokio::sync::mpsc;

use self::{
    known::{Known, WRITING_GRACE, duplicate},
    listing::{Seen, kept, unreadable},
};
use super::{appeared, vanished};
use crate::{
    event::{ConfigEvent, EventSender, SourceId},
    metrics::Metrics,
    secret::{self, Secrets},
};

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

/// Refuses what is no directory that can be read, so that a start is refused before it makes anything.
///
/// # Errors
/// [`DirectoryError::Unreadable`].
pub fn must_be_there(paths: &[PathBuf]) -> Result<(), DirectoryError> {
    for path in paths {
        fs::read_dir(path)
            .map_err(|source| DirectoryError::Unreadable { path: path.clone(), source })?;
    }
    Ok(())
}

/// Watches directories until the pipeline is gone. The mesh configuration is that of
/// `root_namespace`.
///
/// # Errors
/// A directory cannot be read or watched at the start. Later trouble becomes diagnostics.
pub async fn run(
    paths: Vec<PathBuf>,
    root_namespace: Arc<str>,
    secrets: Arc<Secrets>,
    events: EventSender,
    metrics: Arc<Metrics>,
) -> Result<(), DirectoryError> {
    must_be_there(&paths)?;
    let (wake, mut woken) = mpsc::channel(1);
    let mut watcher = notify::recommended_watcher(move |_| {
        // One pending wake-up says as much as many.
        let _ = wake.try_send(());
    })
    .map_err(|source| DirectoryError::Unwatchable {
        path: paths.first().cloned().unwrap_or_default(),
        source,
    })?;
    for path in &paths {
        watcher
            .watch(path, RecursiveMode::Recursive)
            .map_err(|source| DirectoryError::Unwatchable { path: path.clone(), source })?;
    }
    let mut directory = Directory { paths, root_namespace, secrets, ..Directory::default() };
    let mut first = true;
    loop {
        let scanned = tokio::task::spawn_blocking(move || {
            let event = directory.scan(Instant::now());
            (directory, event)
        });
        let Ok((back, event)) = scanned.await else { return Ok(()) };
        directory = back;
        metrics.kept_files.set(i64::try_from(directory.kept.len()).unwrap_or(i64::MAX));
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
    while begin.elapsed() < LONGEST_WAIT
        && tokio::time::timeout(QUIET, woken.recv()).await.is_ok_and(|w| w.is_some())
    {}
    Some(())
}

/// What is known of the watched files.
#[derive(Default)]
struct Directory {
    paths: Vec<PathBuf>,
    root_namespace: Arc<str>,
    secrets: Arc<Secrets>,
    files: BTreeMap<PathBuf, Known>,
    /// Those that have objects in force and could not be read at the last look.
    kept: BTreeSet<PathBuf>,
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
        let mut seen = Seen::default();
        for path in &self.paths {
            seen.look(path);
        }
        self.files.retain(|path, _| seen.files.contains(path) || seen.may_hold(path));
        let mut unread: BTreeSet<PathBuf> =
            self.files.keys().filter(|path| !seen.files.contains(*path)).cloned().collect();
        for path in &seen.files {
            let known = self.files.entry(path.clone()).or_default();
            if let Err(error) = known.refresh(path, &self.root_namespace, now) {
                // Deleted since it was listed: the next scan knows.
                if error.kind() != io::ErrorKind::NotFound {
                    seen.trouble.push(unreadable(path, &error));
                    unread.insert(path.clone());
                }
            }
        }
        unread.retain(|path| self.files[path].serves());
        self.say_kept(unread);
        seen.trouble.extend(self.kept.iter().map(|path| kept(path)));
        self.compare(seen.trouble)
    }

    /// Says which files are kept from now on, and which are read again.
    fn say_kept(&mut self, kept: BTreeSet<PathBuf>) {
        for path in kept.difference(&self.kept) {
            let file = path.display();
            tracing::error!(%file, "it cannot be read; its last good version stays in force");
        }
        for path in self.kept.difference(&kept) {
            tracing::info!(file = %path.display(), "it is read again, or gone");
        }
        self.kept = kept;
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
        let kept = self.files.iter().flat_map(|(path, file)| file.kept().map(move |k| (path, k)));
        let closed =
            self.files.iter().flat_map(|(path, file)| file.stand_ins().map(move |s| (path, s)));
        for (path, (id, content, object)) in kept.chain(closed) {
            serving.entry(id).or_insert((path, content, object));
        }
        let mut changes = Vec::new();
        let gone: Vec<ObjectId> =
            self.told.keys().filter(|id| !serving.contains_key(id)).cloned().collect();
        let mut told = BTreeMap::new();
        for (id, (path, content, object)) in serving {
            if self.told.get(id).is_none_or(|(_, before)| *before != content) {
                match appeared(SourceId::Directory, &self.secrets, object) {
                    Ok(change) => changes.push(change),
                    Err(diagnostic) => diagnostics.push(*diagnostic),
                }
            } else if let Err(diagnostic) = secret::split(object) {
                diagnostics.push(*diagnostic);
            }
            told.insert(id.clone(), (path.clone(), content));
        }
        for id in gone {
            let (path, _) = &self.told[&id];
            // Of a file that is there, it was said already what it does not hold any more.
            if !self.files.contains_key(path) {
                tracing::info!(object = %id, file = %path.display(), "its file is gone: it is not in force any more");
            }
            changes.push(vanished(SourceId::Directory, &self.secrets, &id));
        }
        self.told = told;
        let diagnostics = (diagnostics != self.diagnostics).then(|| {
            self.diagnostics.clone_from(&diagnostics);
            diagnostics
        });
        let changed = !changes.is_empty() || diagnostics.is_some();
        changed.then_some(ConfigEvent {
            source: SourceId::Directory,
            changes,
            diagnostics,
            synced: true,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::symlink, path::Path};

    use tracing_subscriber::EnvFilter;

    use super::*;
    use crate::{event::SourceChange, logged::logged};

    const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: NAME}\nspec: {ports: [{name: http, port: 80}]}\n";
    const BROKEN: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: NAME}\nspec: {ports: [{name: http, port: eighty}]}\n";

    struct Watched {
        dir: tempfile::TempDir,
        directory: Directory,
        now: Instant,
    }

    impl Watched {
        fn new() -> Self {
            let dir = tempfile::tempdir().expect("a directory");
            let directory =
                Directory { paths: vec![dir.path().to_owned()], ..Directory::default() };
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
                SourceChange::Connection { .. } | SourceChange::Member { .. } => {
                    unreachable!("streams tell of these")
                }
                SourceChange::KeySet { .. } => unreachable!("where keys are fetched"),
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
    fn what_is_kept_of_a_file_gives_way_to_what_another_file_holds() {
        let mut w = Watched::new();
        w.write("a.yaml", &format!("{}---\n{}", service("one"), service("two")));
        assert_eq!(w.changes(), ["+one", "+two"]);
        // Moved to another file, beside an edit that leaves text which may be either.
        w.write("b.yaml", &service("one").replace("port: 80", "port: 81"));
        w.write("a.yaml", &format!("{}---\nkind: [\n", service("two")));
        let event = w.directory.scan(w.now).expect("news");
        let [SourceChange::Upsert(object)] = &event.changes[..] else { panic!("{event:?}") };
        assert!(object.raw().to_string().contains("81"), "{object:?}");
        // Where no file holds it, what is kept stays.
        w.write("b.yaml", "# moved back\n");
        assert_eq!(w.changes(), ["+one"]);
    }

    #[test]
    fn every_object_that_goes_is_named_in_the_log_with_its_file() {
        let mut w = Watched::new();
        w.write("a.yaml", &format!("{}---\n{}", service("one"), service("two")));
        w.write("b.yaml", &format!("{}---\n{}", service("two"), service("three")));
        w.changes();
        let said = |w: &mut Watched| {
            let (said, _) = logged(EnvFilter::new("info"), || w.changes());
            let about = |name: &str| {
                said.lines()
                    .filter(|l| l.contains(&format!("/{name} ")) && l.contains(".yaml"))
                    .count()
            };
            ["one", "two", "three"].map(about)
        };
        w.write("b.yaml", &service("two"));
        assert_eq!(said(&mut w), [0, 0, 1], "a document is gone");
        fs::remove_file(w.dir.path().join("a.yaml")).expect("removing");
        assert_eq!(
            said(&mut w),
            [1, 0, 0],
            "a file is gone, and another one has one of its objects"
        );
        fs::remove_file(w.dir.path().join("b.yaml")).expect("removing");
        assert_eq!(said(&mut w), [0, 1, 0]);
    }

    #[test]
    fn another_file_of_the_same_size_and_time_is_read() {
        let mut w = Watched::new();
        let long_ago = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1);
        let write = |w: &Watched, file: &str, name: &str| {
            w.write(file, &service(name));
            let opened = fs::File::options().write(true).open(w.dir.path().join(file));
            opened.expect("a file").set_modified(long_ago).expect("a time");
        };
        let path = |w: &Watched, name: &str| w.dir.path().join(name);
        write(&w, "a.yaml", "one");
        assert_eq!(w.changes(), ["+one"]);
        // Prepared elsewhere and moved.
        write(&w, ".prepared", "two");
        fs::rename(path(&w, ".prepared"), path(&w, "a.yaml")).expect("moving");
        assert_eq!(w.changes(), ["+two", "-one"]);
        // In place.
        write(&w, "a.yaml", "six");
        assert_eq!(w.changes(), ["+six", "-two"]);
        // A tree behind a link, as volumes have it.
        fs::remove_file(path(&w, "a.yaml")).expect("removing");
        for (tree, name) in [("..old", "ten"), ("..new", "six")] {
            fs::create_dir(path(&w, tree)).expect("a folder");
            write(&w, &format!("{tree}/a.yaml"), name);
        }
        symlink("..old", path(&w, "..data")).expect("a link");
        symlink("..data/a.yaml", path(&w, "a.yaml")).expect("a link");
        assert_eq!(w.changes(), ["+ten", "-six"]);
        symlink("..new", path(&w, "..fresh")).expect("a link");
        fs::rename(path(&w, "..fresh"), path(&w, "..data")).expect("moving");
        assert_eq!(w.changes(), ["+six", "-ten"]);
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
        assert_eq!(
            w.changes(),
            Vec::<String>::new(),
            "text that names no object takes nothing away"
        );
    }

    #[test]
    fn an_emptied_file_is_half_saved_for_as_long_as_it_is_empty() {
        let mut w = Watched::new();
        w.write("a.yaml", &service("one"));
        assert_eq!(w.changes(), ["+one"]);
        w.write("a.yaml", "");
        assert_eq!(w.scan(), (vec![], 0), "somebody may be writing it");
        for _ in 0..3 {
            w.now += WRITING_GRACE;
            let (changes, diagnostics) = w.scan();
            assert_eq!((changes, diagnostics), (vec![], 2), "{:#?}", w.directory.diagnostics);
            assert!(!w.directory.waiting());
        }
        w.write("a.yaml", "# nothing\n");
        assert_eq!(w.scan(), (vec!["-one".to_owned()], 0), "that was meant");
        w.write("b.yaml", "");
        assert_eq!(w.scan(), (vec![], 0), "a file that never held anything may be empty");
        w.write("a.yaml", &service("one"));
        assert_eq!(w.changes(), ["+one"]);
        w.write("a.yaml", "");
        w.scan();
        fs::remove_file(w.dir.path().join("a.yaml")).expect("removing");
        assert_eq!(w.changes(), ["-one"]);
    }

    /// Puts something at the first path, of which the files are moved to the second.
    type Loss = fn(&Path, &Path);

    /// What may become of a file, or of a folder above it, that does not show it to be gone. The
    /// files themselves wait in `aside`.
    const LOSSES: [(&str, Loss); 6] = [
        ("renamed away", |_, _| {}),
        ("a pipe", |path, _| {
            nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).expect("a pipe")
        }),
        ("a folder", |path, _| fs::create_dir(path).expect("a folder")),
        ("a link out", |path, aside| symlink(aside, path).expect("a link")),
        ("a link to nowhere", |path, _| symlink("nowhere", path).expect("a link")),
        ("a link to itself", |path, _| symlink(path, path).expect("a link")),
    ];

    #[test]
    fn what_cannot_be_seen_stays_in_force_until_it_is_seen_to_be_gone() {
        for (place, losses) in [
            ("", &LOSSES[..2]),
            ("", &LOSSES[4..]),
            ("sub", &LOSSES[1..2]),
            ("sub", &LOSSES[3..]),
            ("sub/b.yaml", &LOSSES[1..]),
        ] {
            for (what, loss) in losses {
                let above = tempfile::tempdir().expect("a directory");
                let (root, aside) = (above.path().join("mesh"), above.path().join("aside"));
                fs::create_dir_all(root.join("sub")).expect("folders");
                let mut w = Watched::new();
                w.directory.paths = vec![root.clone()];
                fs::write(root.join("sub/b.yaml"), service("one")).expect("a file");
                assert_eq!(w.changes(), ["+one"]);
                let lost = if place.is_empty() { root.clone() } else { root.join(place) };
                fs::rename(&lost, &aside).expect("moving");
                loss(&lost, &aside);
                let (changes, diagnostics) = w.scan();
                assert_eq!(changes, Vec::<String>::new(), "{place} became {what}");
                assert!(diagnostics > 0 && w.directory.kept.len() == 1, "{place}, {what}");
                match fs::symlink_metadata(&lost) {
                    Ok(found) if found.is_dir() => fs::remove_dir(&lost).expect("removing"),
                    Ok(_) => fs::remove_file(&lost).expect("removing"),
                    Err(_) => {}
                }
                fs::rename(&aside, &lost).expect("moving back");
                assert_eq!(w.scan(), (vec![], 0), "{place} was {what}");
                assert!(w.directory.kept.is_empty());
                fs::remove_file(root.join("sub/b.yaml")).expect("removing");
                assert_eq!(w.changes(), ["-one"], "{place} was {what}");
            }
        }
    }

    #[test]
    fn a_closed_guard_gives_way_to_an_accepted_one_of_another_file() {
        let mut w = Watched::new();
        let guard = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: p}\nspec: {mtls: {mode: MODE}}\n";
        w.write("a.yaml", &guard.replace("MODE", "STRONG"));
        assert_eq!(w.changes(), ["+p"], "closed");
        w.write("b.yaml", &guard.replace("MODE", "STRICT"));
        assert_eq!(w.changes(), ["+p"], "as it is written");
        fs::remove_file(w.dir.path().join("b.yaml")).expect("removing");
        assert_eq!(w.changes(), ["+p"], "closed again");
        fs::remove_file(w.dir.path().join("a.yaml")).expect("removing");
        assert_eq!(w.changes(), ["-p"]);
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
        let certificate = rcgen::generate_simple_self_signed(vec!["shop.example".to_owned()])
            .expect("a certificate");
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
        nix::unistd::mkfifo(&path("pipe.yaml"), nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
        assert_eq!(w.changes(), ["+one"]);
        let said: Vec<String> = w.directory.diagnostics.iter().map(ToString::to_string).collect();
        let about = |name: &str| said.iter().filter(|finding| finding.contains(name)).count();
        for name in ["token.yaml", "elsewhere", "loop.yaml", "pipe.yaml"] {
            assert_eq!(about(name), 1, "{name}: {said:#?}");
        }
        assert_eq!(
            (about("circle"), about("gone.yaml"), about("kept-to-itself")),
            (0, 0, 0),
            "{said:#?}"
        );
    }
}
