//! What is known of one file: its objects, and what became of those that it does not hold any more.
//!
//! Text that was an object and is none now keeps its last good version, as a field that is broken
//! does: a slip of the pen in a group, a kind or a name must not take a policy out of force. An
//! object goes when its document goes, or becomes another object that is accepted. So an object
//! that is missing is looked for among the documents that are no accepted objects ([`Suspect`]) and
//! were not there before. A file that ends in the middle of a line is taken for one that is being
//! written, for a short while; one that is empty for a save that failed, for as long as it is empty:
//! who means that it holds nothing removes it, or leaves a comment in it.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map},
    fs, io,
    os::unix::fs::MetadataExt,
    path::Path,
    time::{Duration, Instant, SystemTime},
};

use ferromesh_xds_translator::{
    diagnostic::{Code, Diagnostic, FieldPath, Severity},
    dialect::{Kind, Object, Parsed, Stranger, parse_file_in, split_api_version, stand_in},
    ir::ObjectId,
};
use xxhash_rust::xxh3::xxh3_64;

use super::listing::read_regular;
use crate::source::kubernetes::MESH_CONFIG_MAP;

/// How long a file without an end is taken for one that is being written.
pub(super) const WRITING_GRACE: Duration = Duration::from_secs(1);

/// A stamp that is younger does not tell a file from what it is a moment later: clocks of file
/// systems tick up to a hundred times a second, some each second or two.
const TICK: Duration = Duration::from_secs(2);

/// A file as it was last read.
#[derive(Default)]
pub(super) struct Known {
    /// `None`: it was not read yet, or is too young to be told from what it may be now.
    stamp: Option<Stamp>,
    was_read: bool,
    content: u64,
    /// Whether its last line was whole.
    ended: bool,
    /// Good objects, and the last good version of those that are bad now.
    objects: BTreeMap<ObjectId, ServingObject>,
    /// Documents that may have been an object.
    suspects: BTreeSet<Suspect>,
    diagnostics: Vec<Diagnostic>,
    unfinished_since: Option<Instant>,
    /// Whether it is empty for longer than anybody writes.
    emptied: bool,
}

/// What tells a file from another one in its place, and from what it was: the time of the content
/// may be anything, so that the system's own time of the last change counts too.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Stamp {
    device: u64,
    inode: u64,
    length: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(meta: &fs::Metadata) -> Self {
        Self {
            device: meta.dev(),
            inode: meta.ino(),
            length: meta.len(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        }
    }

    /// Whether no further change can have had the same times.
    fn is_settled(&self, now: SystemTime) -> bool {
        let (Ok(seconds), Ok(nanoseconds)) =
            (u64::try_from(self.changed.0), u32::try_from(self.changed.1))
        else {
            return true;
        };
        let changed = SystemTime::UNIX_EPOCH + Duration::new(seconds, nanoseconds);
        // Of clocks that disagree, the distance counts.
        let distance = now.duration_since(changed).unwrap_or_else(|ahead| ahead.duration());
        distance >= TICK
    }
}

/// An object that serves.
struct ServingObject {
    content: u64,
    object: Object,
    /// The document for which it is kept, although it is in none.
    kept_for: Option<Suspect>,
    /// Whether it is no version of the object, but closed in the place of one that is refused.
    stands_in: bool,
}

/// A document that is no accepted object, and may be what became of one.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Suspect {
    /// Text in which no object can be found: it may have been any.
    Unreadable,
    /// An object that was never accepted, or of a kind that is not served.
    Object(ObjectId),
    /// A second object of this identity, which is left out.
    Double(ObjectId),
    /// A document of a kind that means nothing here.
    Stranger(Stranger),
}

impl Known {
    /// Whether somebody seems to be writing it.
    pub(super) fn is_being_written(&self) -> bool {
        self.unfinished_since.is_some() && !self.emptied
    }

    /// What serves of what it holds, with a hash of what it says; sorted by identity.
    pub(super) fn objects(&self) -> impl Iterator<Item = (&ObjectId, u64, &Object)> {
        self.serving(|held| !held.stands_in && held.kept_for.is_none())
    }

    /// What is kept although it does not hold it any more, as [`Self::objects`]; what another file
    /// holds is newer.
    pub(super) fn kept(&self) -> impl Iterator<Item = (&ObjectId, u64, &Object)> {
        self.serving(|held| !held.stands_in && held.kept_for.is_some())
    }

    /// What stands in, closed, for guards of which no version was accepted, as
    /// [`Self::objects`]; an accepted version elsewhere is better.
    pub(super) fn stand_ins(&self) -> impl Iterator<Item = (&ObjectId, u64, &Object)> {
        self.serving(|held| held.stands_in)
    }

    fn serving(
        &self,
        is_wanted: impl Fn(&ServingObject) -> bool,
    ) -> impl Iterator<Item = (&ObjectId, u64, &Object)> {
        let wanted = self.objects.iter().filter(move |(_, held)| is_wanted(held));
        wanted.map(|(id, held)| (id, held.content, &held.object))
    }

    /// Whether anything of it is in force.
    pub(super) fn serves(&self) -> bool {
        !self.objects.is_empty()
    }

    /// What is to be said about it.
    pub(super) fn diagnostics(&self) -> &[Diagnostic] {
        &self.diagnostics
    }

    /// Reads the file again if it changed.
    ///
    /// # Errors
    /// It cannot be read, or is empty and was not; nothing changed then.
    pub(super) fn refresh(
        &mut self,
        path: &Path,
        root_namespace: &str,
        now: Instant,
    ) -> io::Result<()> {
        let stamp = Stamp::of(&fs::metadata(path)?);
        if self.stamp == Some(stamp) {
            (self.unfinished_since, self.emptied) = (None, false);
            return Ok(());
        }
        let read_at = SystemTime::now();
        let bytes = read_regular(path)?;
        if self.is_unfinished(&bytes) {
            let since = *self.unfinished_since.get_or_insert(now);
            if now.duration_since(since) < WRITING_GRACE {
                return Ok(());
            }
            if bytes.is_empty() {
                self.emptied = true;
                let why = "it is empty, as if saving it had failed";
                return Err(io::Error::new(io::ErrorKind::InvalidData, why));
            }
        }
        (self.unfinished_since, self.emptied) = (None, false);
        let content = xxh3_64(&bytes);
        if !self.was_read || self.content != content {
            self.parse(path, root_namespace, &bytes);
        }
        self.stamp = stamp.is_settled(read_at).then_some(stamp);
        (self.was_read, self.content, self.ended) = (true, content, bytes.ends_with(b"\n"));
        Ok(())
    }

    /// Whether the end is missing, of a file that had one.
    fn is_unfinished(&self, bytes: &[u8]) -> bool {
        let cut = bytes.is_empty() || (self.ended && !bytes.ends_with(b"\n"));
        cut && !self.objects.is_empty()
    }

    fn parse(&mut self, path: &Path, root_namespace: &str, bytes: &[u8]) {
        let mut parsed = parse_file_in(root_namespace, &path.display().to_string(), bytes);
        let mut suspects = self.suspects_of(&parsed);
        let mut objects: BTreeMap<ObjectId, ServingObject> = BTreeMap::new();
        for object in std::mem::take(&mut parsed.objects) {
            let content = xxh3_64(object.raw().to_string().as_bytes());
            match objects.entry(object.id.clone()) {
                btree_map::Entry::Vacant(place) => {
                    place.insert(ServingObject::accepted(content, object));
                }
                btree_map::Entry::Occupied(first) => {
                    suspects.insert(Suspect::Double(object.id.clone()));
                    if first.get().content != content {
                        parsed.diagnostics.push(duplicate(&object, &first.get().object));
                    }
                }
            }
        }
        let before = std::mem::take(&mut self.objects);
        let stood_in: BTreeSet<ObjectId> =
            before.iter().filter(|(_, held)| held.stands_in).map(|(id, _)| id.clone()).collect();
        for (id, held) in before {
            if objects.contains_key(&id) {
                continue;
            }
            // What is wrong with an object that is refused is said already.
            let refused = parsed.rejected.iter().any(|rejected| rejected.id == id);
            let suspect = if refused { None } else { held.suspect(&suspects, &self.suspects) };
            match suspect {
                // Made again from what is written now.
                None if held.stands_in => {}
                None if !refused => {
                    tracing::info!(object = %id, file = %path.display(), "not in its file any more")
                }
                suspect => {
                    parsed.diagnostics.extend(suspect.as_ref().map(|_| kept(path, &id)));
                    objects.insert(id, ServingObject { kept_for: suspect, ..held });
                }
            }
        }
        for (id, object) in closed(&parsed, &objects) {
            if !stood_in.contains(&object.id) {
                tracing::error!(
                    object = %id, file = %path.display(),
                    "it guards access, is refused, and no version of it was accepted: it is in force closed"
                );
            }
            objects.insert(object.id.clone(), ServingObject::closed(object));
        }
        (self.objects, self.suspects, self.diagnostics) = (objects, suspects, parsed.diagnostics);
    }

    /// The documents that are no accepted objects, and not the present form of one that serves.
    fn suspects_of(&self, parsed: &Parsed) -> BTreeSet<Suspect> {
        let unreadable =
            parsed.diagnostics.iter().any(|d| d.severity == Severity::Error && d.object.is_none());
        let objects =
            parsed.rejected.iter().map(|r| &r.id).chain(parsed.unserved.iter().map(|o| &o.id));
        let objects =
            objects.filter(|id| !self.objects.contains_key(*id)).cloned().map(Suspect::Object);
        let strangers = parsed.strangers.iter().cloned().map(Suspect::Stranger);
        unreadable
            .then_some(Suspect::Unreadable)
            .into_iter()
            .chain(objects)
            .chain(strangers)
            .collect()
    }
}

/// What stands in, closed, for the guards of a file that are refused. Not for those whose last good
/// version, perhaps under another name, is kept for them: which of several it was cannot be told, so
/// that there must be one for each.
fn closed<'p>(
    parsed: &'p Parsed,
    serving: &BTreeMap<ObjectId, ServingObject>,
) -> Vec<(&'p ObjectId, Object)> {
    let absent = |id: &ObjectId| !serving.contains_key(id);
    let rejected = || parsed.rejected.iter().filter(|rejected| absent(&rejected.id));
    let fragments = || parsed.fragments.iter().filter(|fragment| absent(&fragment.id));
    // Those that are kept for text that says itself that it is theirs are kept for no other.
    let kept = serving.iter().filter(|(_, held)| held.kept_for.is_some() && !held.stands_in);
    let kept: Vec<(&ObjectId, &ServingObject)> =
        kept.filter(|(id, _)| parsed.fragments.iter().all(|f| f.id != **id)).collect();
    let (mut read, mut unread) = (BTreeMap::new(), BTreeMap::new());
    for (id, held) in kept {
        let count = match &held.kept_for {
            Some(Suspect::Unreadable) => &mut unread,
            Some(Suspect::Object(now)) if rejected().any(|rejected| rejected.id == *now) => {
                &mut read
            }
            _ => continue,
        };
        *count.entry(id.kind).or_insert(0) += 1;
    }
    let refused = outnumbering(rejected().map(|rejected| rejected.id.kind), &read);
    let unreadable = outnumbering(fragments().map(|fragment| fragment.id.kind), &unread);
    let rejected = rejected().filter(|r| refused.contains(&r.id.kind));
    let fragments = fragments().filter(|f| unreadable.contains(&f.id.kind));
    let closed = rejected
        .map(|r| (&r.id, stand_in::of_rejected(r)))
        .chain(fragments.map(|f| (&f.id, stand_in::of_fragment(f))));
    closed.filter_map(|(id, object)| Some((id, object?))).collect()
}

/// The kinds of which there are more than `kept`.
fn outnumbering(kinds: impl Iterator<Item = Kind>, kept: &BTreeMap<Kind, usize>) -> BTreeSet<Kind> {
    let mut count: BTreeMap<Kind, usize> = BTreeMap::new();
    kinds.for_each(|kind| *count.entry(kind).or_insert(0) += 1);
    let kept = |kind| kept.get(kind).copied().unwrap_or_default();
    count.iter().filter(|(kind, count)| **count > kept(*kind)).map(|(kind, _)| *kind).collect()
}

impl ServingObject {
    fn accepted(content: u64, object: Object) -> Self {
        Self { content, object, kept_for: None, stands_in: false }
    }

    fn closed(object: Object) -> Self {
        let content = xxh3_64(object.raw().to_string().as_bytes());
        Self { content, object, kept_for: None, stands_in: true }
    }

    /// The document for which a missing object is kept: the one that it was kept for, else a new
    /// one that resembles it.
    fn suspect(&self, now: &BTreeSet<Suspect>, before: &BTreeSet<Suspect>) -> Option<Suspect> {
        let former = self.kept_for.as_ref().filter(|suspect| now.contains(suspect));
        let new = || now.iter().find(|s| s.is_news(before) && s.may_have_been(&self.object.id));
        former.or_else(new).cloned()
    }
}

impl Suspect {
    fn is_news(&self, before: &BTreeSet<Self>) -> bool {
        *self == Self::Unreadable || !before.contains(self)
    }

    fn may_have_been(&self, id: &ObjectId) -> bool {
        match self {
            Self::Unreadable => true,
            // A ConfigMap is the mesh configuration by its name and key alone.
            Self::Object(now) if id.kind == Kind::MESH_CONFIG => {
                [Kind::CONFIG_MAP, Kind::MESH_CONFIG].contains(&now.kind)
            }
            Self::Object(now) => {
                now.kind == id.kind
                    || (now.name == id.name && id.kind.resembles(now.kind.kind_name()))
            }
            Self::Double(now) => now.kind == id.kind,
            // Half an object may have no name yet.
            Self::Stranger(now) if now.name.is_empty() => true,
            Self::Stranger(now) if id.kind == Kind::MESH_CONFIG => {
                *now.name == *MESH_CONFIG_MAP
                    || Kind::CONFIG_MAP.resembles(&now.kind)
                    || Kind::MESH_CONFIG.resembles(&now.kind)
            }
            Self::Stranger(now) => {
                let group = split_api_version(&now.api_version).0;
                now.name == id.name && (group == id.kind.group() || id.kind.resembles(&now.kind))
            }
        }
    }
}

/// Two objects of one identity, of which the second is left out.
pub(super) fn duplicate(object: &Object, first: &Object) -> Diagnostic {
    let message = "the same object is defined twice; the first by path serves";
    let diagnostic = Diagnostic::error(
        Code::DuplicateObject,
        FieldPath::root().field("metadata").field("name"),
        message,
    );
    let elsewhere = first.locate(&FieldPath::root());
    object.diagnose(diagnostic).fix("delete one of them").related(first.id.clone(), elsewhere)
}

fn kept(path: &Path, id: &ObjectId) -> Diagnostic {
    let message = format!(
        "{} does not hold it any more, but holds text that may be what became of it; the last good version stays in force",
        path.display()
    );
    Diagnostic::error(Code::NotAnObject, FieldPath::root(), message)
        .fix("mend that text, or delete the whole of it")
        .object(id.clone())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Objects in the block form that people write, each in a document of its own.
    const OBJECTS: [&str; 5] = [
        "\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata:
  name: deny-admin
  namespace: shop
spec:
  action: DENY
  rules:
  - to:
    - operation:
        paths: [/admin*]
",
        "\
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata:
  name: strict
  namespace: shop
spec:
  mtls:
    mode: STRICT
",
        "\
apiVersion: v1
kind: Service
metadata:
  name: cart
  namespace: shop
spec:
  selector:
    app: cart
  ports:
  - name: http
    port: 80
",
        "\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata:
  name: cart
  namespace: shop
spec:
  hosts: [cart]
  http:
  - route:
    - destination:
        host: cart
",
        "\
apiVersion: v1
kind: ConfigMap
metadata:
  name: istio
  namespace: istio-system
data:
  mesh: |
    outboundTrafficPolicy:
      mode: REGISTRY_ONLY
",
    ];
    /// Another program's document.
    const FOREIGN: &str =
        "apiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nmetadata:\n  name: cart\n";

    const ROOT: &str = "istio-system";

    fn file(documents: &[&str]) -> String {
        documents.join("---\n")
    }

    fn read(texts: &[&str]) -> Known {
        let mut known = Known::default();
        for text in texts {
            known.parse(Path::new("a.yaml"), ROOT, text.as_bytes());
        }
        known
    }

    fn accepted(known: &Known) -> BTreeSet<ObjectId> {
        known.objects().chain(known.kept()).map(|(id, ..)| id.clone()).collect()
    }

    fn names(known: &Known) -> Vec<String> {
        accepted(known).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_stamp_is_believed_only_when_the_clock_has_gone_on() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a.yaml");
        fs::write(&path, OBJECTS[2]).expect("a file");
        let metadata = fs::metadata(&path).expect("it is there");
        let changed = metadata.ctime();
        let at = |seconds: i64| {
            let since = u64::try_from(changed + seconds).expect("a clock that is set");
            SystemTime::UNIX_EPOCH + Duration::from_secs(since)
        };
        let table = [(-60, true), (-1, false), (0, false), (1, false), (4, true), (60, true)];
        for (seconds, settled) in table {
            assert_eq!(Stamp::of(&metadata).is_settled(at(seconds)), settled, "{seconds}");
        }
    }

    #[test]
    fn a_change_of_equal_length_right_after_a_look_is_seen() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a.yaml");
        let mut known = Known::default();
        for port in (10..99).map(|port| format!("port: {port}")) {
            fs::write(&path, OBJECTS[2].replace("port: 80", &port)).expect("a file");
            known.refresh(&path, ROOT, Instant::now()).expect("it is read");
            let (.., object) = known.objects().next().expect("a service");
            let served = object.raw()["spec"]["ports"][0]["port"].to_string();
            assert_eq!(format!("port: {served}"), port);
        }
    }

    #[test]
    fn a_document_that_is_no_object_any_more_keeps_its_last_good_version() {
        let [deny, .., mesh] = OBJECTS;
        let table: [(&str, &[(&str, &str)]); 2] = [
            (
                deny,
                &[
                    ("security.istio.io", "securty.istio.io"),
                    ("security.istio.io", "security.example.com"),
                    ("apiVersion: security.istio.io/v1", "apiVersion: v1"),
                    ("istio.io/v1", "istio.io/v2"),
                    ("apiVersion", "apiversion"),
                    ("AuthorizationPolicy", "AuthorisationPolicy"),
                    ("AuthorizationPolicy", "Auth"),
                    ("kind: AuthorizationPolicy", "kind:"),
                    ("kind: AuthorizationPolicy\n", ""),
                    ("  name: deny-admin\n", ""),
                    ("name: deny-admin", "nmae: deny-admin"),
                    ("name: deny-admin", "name: Deny_Admin"),
                    ("  namespace: shop", "  namspace: shop"),
                    ("metadata:\n  name", "metadata:\n name"),
                    (deny, "apiVersion: security.istio.io/v1\nkind: Author"),
                    (deny, "apiVersion"),
                    (deny, "- a list\n"),
                    (deny, "{\n"),
                ],
            ),
            (
                mesh,
                &[
                    ("ConfigMap", "ConfigMaps"),
                    ("name: istio", "name: istoi"),
                    ("namespace: istio-system", "namespace: istio-sytem"),
                    ("  mesh: |", "  mehs: |"),
                    ("outboundTrafficPolicy:", "outbound: TrafficPolicy:"),
                    ("mode: REGISTRY_ONLY", "mode: REGISTRY_ON"),
                ],
            ),
        ];
        for (document, edits) in table {
            for (written, slip) in edits {
                let before = file(&[OBJECTS[2], document, FOREIGN]);
                let after = before.replace(written, slip);
                assert_ne!(before, after);
                let mut known = read(&[&before, &after]);
                assert_eq!(names(&known), names(&read(&[&before])), "{after}");
                assert!(
                    known.diagnostics.iter().any(|d| d.severity == Severity::Error),
                    "{after}\nnothing is said"
                );
                // An edit elsewhere does not end it; only the end of the document does, or its
                // mending.
                let elsewhere = after.replace("port: 80", "port: 81");
                known.parse(Path::new("a.yaml"), ROOT, elsewhere.as_bytes());
                assert_eq!(names(&known), names(&read(&[&before])), "{elsewhere}");
                let mended = read(&[&before, &after, &before]);
                assert!(
                    mended.diagnostics.iter().all(|d| d.severity != Severity::Error),
                    "{:#?}",
                    mended.diagnostics
                );
                let gone = file(&[OBJECTS[2], FOREIGN]);
                assert_eq!(
                    names(&read(&[&before, &after, &gone])),
                    names(&read(&[&gone])),
                    "{after}"
                );
            }
        }
    }

    #[test]
    fn a_guard_that_was_never_accepted_stands_in_closed() {
        let [deny, strict, service, ..] = OBJECTS;
        let broken = [
            deny.replace("rules", "rulez"),
            strict.replace("STRICT", "STRONG"),
            service.replace("port: 80", "port: eighty"),
        ];
        let broken = file(&broken.each_ref().map(String::as_str));
        let closed = |known: &Known| {
            known.stand_ins().map(|(_, _, object)| object.raw()["spec"].clone()).collect::<Vec<_>>()
        };
        let mut known = read(&[&broken]);
        assert!(names(&known).is_empty());
        assert_eq!(
            closed(&known),
            [
                serde_json::json!({ "mtls": { "mode": "STRICT" } }),
                serde_json::json!({ "action": "DENY", "rules": [{}] })
            ]
        );
        // Whatever becomes of it, it is closed until it is accepted or gone.
        let unreadable = broken.replace("kind: AuthorizationPolicy", "kind: [");
        known.parse(Path::new("a.yaml"), ROOT, unreadable.as_bytes());
        assert_eq!(closed(&known).len(), 2, "{unreadable}");
        known.parse(Path::new("a.yaml"), ROOT, file(&[deny, service]).as_bytes());
        assert_eq!((closed(&known).len(), names(&known).len()), (0, 2));
        // An accepted version is better than a closed door.
        known.parse(Path::new("a.yaml"), ROOT, broken.as_bytes());
        assert_eq!((closed(&known).len(), names(&known).len()), (1, 2));
        // So is one that has another name by mistake.
        let misnamed = file(&[&deny.replace("deny-admin", "Deny_Admin"), service]);
        known.parse(Path::new("a.yaml"), ROOT, misnamed.as_bytes());
        assert_eq!((closed(&known).len(), names(&known).len()), (0, 2));
        known.parse(Path::new("a.yaml"), ROOT, b"# nothing\n");
        assert!(!known.serves());
    }

    #[test]
    fn a_guard_in_a_text_that_cannot_be_read_stands_in_closed() {
        let [deny, strict, ..] = OBJECTS;
        let closed = |text: &str| {
            let known = read(&[text]);
            assert!(names(&known).is_empty(), "{text}");
            known.stand_ins().map(|(id, ..)| id.kind).collect::<Vec<_>>()
        };
        let (denies, takes) = (Kind::AUTHORIZATION_POLICY, Kind::PEER_AUTHENTICATION);
        let table = [
            (deny.replace("  action: DENY", "  action: DENY\n  action: DENY"), vec![denies]),
            (strict.replace("STRICT", "STRICT\n    mode: STRICT"), vec![takes]),
            (format!("{strict}\n{deny}"), vec![takes, denies]),
            (format!("{deny}\n{strict}"), vec![takes, denies]),
            (format!("{deny}\n  - ["), vec![denies]),
            (format!("{deny}\n\tx: y"), vec![denies]),
            (format!("{strict}\nkubectl apply -f x.yaml"), vec![takes]),
            (deny.replace("name: deny-admin", "nam: deny-admin\n  nam: x"), vec![denies]),
            (deny.replace("name: deny-admin", "nam: deny-admin"), vec![denies]),
            (deny.replace("istio.io/v1", "istio.io/v2"), vec![denies]),
            (strict.replace("istio.io/v1", "istoi.io/v1"), vec![takes]),
            (strict.replace("PeerAuthentication", "PeerAuthentcation"), vec![takes]),
            (strict.replace("  ", "\t"), vec![takes]),
            (strict.replace("  ", ""), vec![takes]),
            (format!("{{{{ if .on }}}}\n{strict}"), vec![takes]),
            (
                strict.replace('\n', "\r") + &format!("---\r{deny}").replace('\n', "\r"),
                vec![takes, denies],
            ),
            (
                list(&[&strict.replace("STRICT", "STRICT\n    mode: STRICT"), deny]),
                vec![takes, denies],
            ),
            (list(&[&list(&[&strict.replace("STRICT", "STRONG")])]), vec![takes]),
            (
                format!("\u{feff}{}---\n\u{feff}{deny}x: [", strict.replace("STRICT", "STRONG")),
                vec![takes, denies],
            ),
        ];
        for (text, expected) in table {
            let mut kinds = closed(&text);
            kinds.sort_by_key(|kind| *kind != takes);
            assert_eq!(kinds, expected, "{text}");
        }
    }

    /// A List, as kubectl prints one.
    fn list(items: &[&str]) -> String {
        let item = |text: &&str| format!("- {}\n", text.trim_end().replace('\n', "\n  "));
        format!(
            "apiVersion: v1\nkind: List\nitems:\n{}",
            items.iter().map(item).collect::<String>()
        )
    }

    #[test]
    fn bytes_that_are_no_text_cost_no_guard_but_close_its_own() {
        let [deny, strict, service, ..] = OBJECTS;
        let latin = |text: &str| {
            text.replace('~', "\u{e9}")
                .chars()
                .map(|c| u8::try_from(c).expect("Latin-1"))
                .collect::<Vec<u8>>()
        };
        let spoilt = deny.replace("deny-admin", "deny-admin # caf~");
        let bytes = latin(&file(&[strict, &spoilt, service]));
        let mut known = Known::default();
        known.parse(Path::new("a.yaml"), ROOT, &bytes);
        assert_eq!(names(&known), ["Service shop/cart", "PeerAuthentication shop/strict"]);
        let closed: Vec<String> = known.stand_ins().map(|(id, ..)| id.to_string()).collect();
        assert_eq!(closed, ["AuthorizationPolicy shop/deny-admin"]);
        let lines: Vec<_> =
            known.diagnostics.iter().filter_map(|d| Some(d.position.as_ref()?.line)).collect();
        assert_eq!(lines, [13]);
        for encode in [u16::to_le_bytes, u16::to_be_bytes] {
            let bytes: Vec<u8> =
                "\u{feff}".encode_utf16().chain(deny.encode_utf16()).flat_map(encode).collect();
            let mut known = Known::default();
            known.parse(Path::new("a.yaml"), ROOT, &bytes);
            assert_eq!(known.stand_ins().count(), 1, "UTF-16");
        }
    }

    #[test]
    fn what_is_kept_for_one_document_closes_no_door_of_another() {
        let [deny, .., service, _, _] = OBJECTS;
        let misnamed = deny.replace("deny-admin", "Deny_Admin");
        let second = deny.replace("deny-admin", "deny-root").replace("rules", "rulez");
        let unreadable = deny.replace("metadata:", "metadata: [");
        let table = [
            // A last good version that is kept is enough for the document that it is kept for.
            (vec![misnamed.clone()], vec![]),
            (vec![unreadable.clone()], vec![]),
            (vec![deny.replace("name: deny-admin", "name: {{ .name }}")], vec![]),
            // What is new is closed.
            (vec![misnamed, second.clone()], vec!["deny-root", "refused"]),
            (vec![unreadable.clone(), second.clone()], vec!["deny-root"]),
            (vec![unreadable, format!("{second}\t[")], vec!["deny-root"]),
        ];
        for (after, expected) in table {
            let parts: Vec<&str> = after.iter().map(String::as_str).chain([service]).collect();
            let known = read(&[&file(&[deny, service]), &file(&parts)]);
            assert_eq!(names(&known).len(), 2, "{after:?}");
            let name = |id: &ObjectId| match id.name.starts_with("refused-") {
                true => "refused".to_owned(),
                false => id.name.to_string(),
            };
            let closed: Vec<String> = known.stand_ins().map(|(id, ..)| name(id)).collect();
            assert_eq!(closed, expected, "{after:?}");
        }
    }

    #[test]
    fn a_deleted_document_is_gone_whatever_else_the_file_holds() {
        let broken = OBJECTS[1].replace("STRICT", "STRONG");
        let unknown = OBJECTS[1]
            .replace("security.istio.io", "security.example.com")
            .replace("strict", "cart");
        for other in [FOREIGN, broken.as_str(), unknown.as_str()] {
            let known =
                read(&[&file(&[OBJECTS[2], OBJECTS[3], other]), &file(&[OBJECTS[3], other])]);
            assert_eq!(names(&known), ["VirtualService shop/cart"], "beside {other}");
        }
        // What comes new at the same time is no slip of the pen if it is of quite another kind.
        let known = read(&[&file(&[OBJECTS[2], OBJECTS[0]]), &file(&[FOREIGN, OBJECTS[0]])]);
        assert_eq!(names(&known), ["AuthorizationPolicy shop/deny-admin"]);
    }

    #[test]
    fn a_document_that_becomes_another_object_is_replaced() {
        let renamed = OBJECTS[0].replace("deny-admin", "deny-root");
        let known = read(&[&file(&[OBJECTS[0], OBJECTS[1]]), &file(&[&renamed, OBJECTS[1]])]);
        assert_eq!(
            names(&known),
            ["PeerAuthentication shop/strict", "AuthorizationPolicy shop/deny-root"]
        );
        assert!(known.diagnostics.is_empty(), "{:#?}", known.diagnostics);
        // Not if its new name is taken, so that it is left out.
        let (first, second) = (OBJECTS[0], renamed.replace("admin*", "root*"));
        let known = read(&[
            &file(&[first, &second]),
            &file(&[first, &second.replace("deny-root", "deny-admin")]),
        ]);
        assert_eq!(
            names(&known),
            ["AuthorizationPolicy shop/deny-admin", "AuthorizationPolicy shop/deny-root"]
        );
        assert_eq!(known.diagnostics.len(), 2, "{:#?}", known.diagnostics);
    }

    /// One edit of a text, as fingers make them.
    #[derive(Clone, Debug)]
    enum Edit {
        Insert(char),
        Delete(usize),
        Replace(char),
        DeleteLine,
        DoubleLine,
        SwapLines,
        Indent,
        Outdent,
        CutLastDocument,
    }

    fn edit() -> impl Strategy<Value = Edit> {
        let typed = || {
            let word = proptest::char::range('a', 'z');
            prop_oneof![
                word,
                Just('#'),
                Just(':'),
                Just('-'),
                Just(' '),
                Just('\n'),
                Just('\t'),
                Just('{'),
                Just('"')
            ]
        };
        prop_oneof![
            typed().prop_map(Edit::Insert),
            (1usize..4).prop_map(Edit::Delete),
            typed().prop_map(Edit::Replace),
            Just(Edit::DeleteLine),
            Just(Edit::DoubleLine),
            Just(Edit::SwapLines),
            Just(Edit::Indent),
            Just(Edit::Outdent),
            Just(Edit::CutLastDocument),
        ]
    }

    /// The text with one edit at a place between its beginning (0) and its end (1).
    fn edited(text: &str, edit: &Edit, place: f64) -> String {
        let at = |len: usize| ((len as f64 * place) as usize).min(len.saturating_sub(1));
        let (byte, mut lines) =
            (at(text.len()), text.lines().map(str::to_owned).collect::<Vec<_>>());
        let line = at(lines.len());
        let (before, after) = text.split_at(byte);
        match edit {
            Edit::Insert(typed) => return format!("{before}{typed}{after}"),
            Edit::Delete(count) => {
                return format!("{before}{}", &after[(*count).min(after.len())..]);
            }
            Edit::Replace(typed) => return format!("{before}{typed}{}", &after[1..]),
            Edit::CutLastDocument => {
                let last = text.rfind("---\n").expect("several documents") + 4;
                // At least one character is left, or it would be the deletion of the document.
                return text[..last + 1 + at(text.len() - last - 1)].to_owned();
            }
            Edit::DeleteLine => drop(lines.remove(line)),
            Edit::DoubleLine => lines.insert(line, lines[line].clone()),
            Edit::SwapLines => lines.swap(line, (line + 1).min(text.lines().count() - 1)),
            Edit::Indent => lines[line].insert_str(0, "  "),
            Edit::Outdent => lines[line] = lines[line].trim_start().to_owned(),
        }
        lines.iter().map(|line| format!("{line}\n")).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        #[test]
        fn no_edit_of_a_document_takes_an_object_out_of_force(order in Just(OBJECTS.to_vec()).prop_shuffle(), edit in edit(), place in 0.0..1.0) {
            let before = file(&order);
            let after = edited(&before, &edit, place);
            let (old, new) = (read(&[&before]), read(&[&before, &after]));
            let gone: Vec<_> = old.objects.keys().filter(|id| !new.objects.contains_key(*id)).collect();
            let came: Vec<_> = accepted(&new).into_iter().filter(|id| !old.objects.contains_key(id)).collect();
            // A document may become another object, and that one is in force then.
            prop_assert!(gone.len() <= came.len(), "{edit:?}:\n{after}\n{gone:?} went for {came:?}: {:#?}", new.diagnostics);
        }
    }
}
