//! The authority on a disk, and several in one store.

use super::*;
use crate::{
    authenticate::{Caller, Credentials, PeerCertificates, Proof, jwt::Uses},
    csr::Csr,
    signer::local::testing,
    store::{Kept, Revision},
};
use ferromesh_proto::TrustDomain;
use std::{fs, os::unix::fs::PermissionsExt};

const ID: &str = "spiffe://cluster.local/ns/shop/sa/cart";
const DAY: Duration = Duration::from_secs(86_400);

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn open(dir: &Path, first_start: FirstStart) -> Result<Authority, OpenError> {
    Authority::open(dir, Settings::new(TrustDomain::default()), first_start, now())
}

fn request(authority: &Authority) -> ApprovedRequest {
    let caller =
        Caller { id: ID.parse().unwrap(), proof: Proof::Token { kind: "test", token_id: None } };
    policy::approve_workload(
        &caller,
        &Csr::parse(&testing::good_csr(&[])).unwrap(),
        None,
        authority.settings(),
    )
    .unwrap()
}

fn root(authority: &Authority) -> Vec<CertificateDer<'static>> {
    authority.trust_bundle().borrow().roots().to_vec()
}

#[test]
fn a_restart_keeps_root_signer_tokens_ledger_and_revocations() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("ca");
    let first = open(&dir, FirstStart::Allowed).unwrap();
    let issued = first.issue(&request(&first), now()).unwrap();
    let token = first.join_tokens().issue(&ID.parse().unwrap(), DAY, Uses::Many, now()).unwrap();
    first.revoke(&issued.serial, now()).unwrap();
    let old_root = root(&first);
    drop(first);

    let second = open(&dir, FirstStart::Refused).unwrap();
    assert_eq!(root(&second), old_root);
    assert_eq!(second.issue(&request(&second), now()).unwrap().intermediates, issued.intermediates);
    assert!(second.join_tokens().verify(&token, now()).is_ok());
    let records = second.issued(10).unwrap();
    assert_eq!(records.len(), 2);
    let record = records.iter().find(|r| r.entry.serial == issued.serial).unwrap();
    assert!(record.revoked);
    assert_eq!(record.entry.spiffe_id, ID);
}

#[test]
fn every_change_is_a_new_generation_of_one_authority() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("ca");
    let first = open(&dir, FirstStart::Allowed).unwrap();
    assert!(!first.is_witnessed());
    let generation = first.generation();
    let before = generation.borrow().clone();
    first.witness().unwrap();
    first.revoke("aa", now()).unwrap();
    let after = generation.borrow().clone();
    assert_eq!((after.root.as_str(), after.sequence), (before.root.as_str(), before.sequence + 2));
    first.witness().unwrap();
    assert_eq!(*generation.borrow(), after, "said already");
    drop(first);
    let second = open(&dir, FirstStart::Refused).unwrap();
    assert!(second.is_witnessed());
    assert_eq!(*second.generation().borrow(), after);
    let other = open(&parent.path().join("other"), FirstStart::Allowed).unwrap();
    assert_ne!(other.generation().borrow().root, after.root);
}

#[test]
fn a_revocation_is_kept_before_it_is_answered() {
    let parent = tempfile::tempdir().unwrap();
    let (dir, left) = (parent.path().join("ca"), parent.path().join("left"));
    let authority = open(&dir, FirstStart::Allowed).unwrap();
    authority.revoke("aa", now()).unwrap();
    // As `kill -9` leaves it: nothing is written any more, and nothing closed.
    fs::create_dir(&left).unwrap();
    for name in ["key", "authority.sealed"] {
        fs::copy(dir.join(name), left.join(name)).unwrap();
    }
    let settings = Settings::new(TrustDomain::default());
    let again = Authority::open_without_ledger(&left, settings, now()).unwrap();
    assert!(again.revoked.contains("aa"));
    assert_eq!(*again.generation().borrow(), *authority.generation().borrow());
}

#[test]
fn a_state_of_a_former_version_opens_and_has_no_witness() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("ca");
    let authority = open(&dir, FirstStart::Allowed).unwrap();
    let mut document = serde_json::to_value(&authority.locked().state).unwrap();
    assert_eq!(document.as_object_mut().unwrap().remove("witnessed"), Some(false.into()));
    let state: State = serde_json::from_value(document).unwrap();
    assert!(!state.witnessed && state.is_same_authority(&authority.locked().state));
}

#[test]
fn files_are_private() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("ca");
    drop(open(&dir, FirstStart::Allowed).unwrap());
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&dir), 0o700);
    assert_eq!(mode(&dir.join("key")), 0o600);
    assert_eq!(mode(&dir.join("authority.sealed")), 0o600);
}

/// Opening fails with a text that holds `expected`, and nothing on disk changes.
fn check_refused(dir: &Path, first_start: FirstStart, expected: &str) {
    let contents = |name: &str| fs::read(dir.join(name)).ok();
    let before = (contents("key"), contents("authority.sealed"));
    let error = open(dir, first_start).err().expect("refused").to_string();
    assert!(error.contains(expected), "{error}");
    assert_eq!((contents("key"), contents("authority.sealed")), before);
}

#[test]
fn a_lost_or_damaged_authority_is_never_replaced() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("ca");
    check_refused(&dir, FirstStart::Refused, "restore");
    assert!(!dir.exists());
    drop(open(&dir, FirstStart::Allowed).unwrap());
    let (key, sealed) = (dir.join("key"), dir.join("authority.sealed"));
    let (good_key, good_sealed) = (fs::read(&key).unwrap(), fs::read(&sealed).unwrap());

    fs::write(&sealed, &good_sealed[..good_sealed.len() / 2]).unwrap();
    check_refused(&dir, FirstStart::Allowed, "restore");
    fs::write(&sealed, "").unwrap();
    check_refused(&dir, FirstStart::Allowed, "cut short");
    fs::remove_file(&sealed).unwrap();
    check_refused(&dir, FirstStart::Allowed, "authority.sealed is missing");
    fs::write(&sealed, &good_sealed).unwrap();
    fs::write(&key, [0; 32]).unwrap();
    check_refused(&dir, FirstStart::Allowed, "does not open with the key");
    fs::remove_file(&key).unwrap();
    check_refused(&dir, FirstStart::Allowed, "key is missing");
    fs::write(&key, &good_key).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    check_refused(&dir, FirstStart::Allowed, "chmod 600");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    assert!(open(&dir, FirstStart::Refused).is_ok());
}

#[test]
fn a_directory_with_foreign_files_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("notes.txt"), "mine").unwrap();
    check_refused(dir.path(), FirstStart::Allowed, "other files");
}

#[test]
fn another_trust_domain_does_not_open_it() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("ca");
    drop(open(&dir, FirstStart::Allowed).unwrap());
    let settings = Settings::new(TrustDomain::new("other").unwrap());
    let error =
        Authority::open(&dir, settings, FirstStart::Allowed, now()).err().unwrap().to_string();
    assert!(error.contains("\"cluster.local\", expected \"other\""), "{error}");
}

#[test]
fn what_a_crash_left_half_made_is_no_obstacle() {
    let parent = tempfile::tempdir().unwrap();
    let nascent = parent.path().join(".ca.new");
    fs::create_dir(&nascent).unwrap();
    fs::write(nascent.join("key"), "half").unwrap();
    open(&parent.path().join("ca"), FirstStart::Allowed).unwrap();
    assert!(!nascent.exists());
}

#[test]
fn the_signer_is_renewed_at_half_its_life_and_the_root_stays() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("ca");
    let authority = open(&dir, FirstStart::Allowed).unwrap();
    let first = authority.issue(&request(&authority), now()).unwrap();
    assert!(authority.upkeep(now()).unwrap() > now());
    let later = now() + 4 * DAY;
    authority.upkeep(later).unwrap();
    let second = authority.issue(&request(&authority), later).unwrap();
    assert_ne!(first.intermediates, second.intermediates);
    assert_eq!(first.bundle, second.bundle);
    drop(authority);
    let reopened = open(&dir, FirstStart::Refused).unwrap();
    assert_eq!(
        reopened.issue(&request(&reopened), later).unwrap().intermediates,
        second.intermediates
    );
}

#[test]
fn a_signer_that_cannot_be_renewed_signs_until_it_ends() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("ca");
    let settings = Settings::new(TrustDomain::default());
    let authority = Authority::open_without_ledger(&dir, settings, now()).unwrap();
    // Writing fails from now on: the sealed file's directory is gone.
    fs::remove_dir_all(&dir).unwrap();
    let request = request(&authority);
    assert!(authority.issue(&request, now() + 6 * DAY).is_ok());
    assert!(matches!(authority.issue(&request, now() + 7 * DAY), Err(IssueError::State(_))));
}

#[test]
fn nothing_is_issued_after_the_root_or_before_it() {
    let parent = tempfile::tempdir().unwrap();
    let authority = open(&parent.path().join("ca"), FirstStart::Allowed).unwrap();
    let request = request(&authority);
    assert!(matches!(authority.issue(&request, now() + 3651 * DAY), Err(IssueError::RootExpired)));
    assert!(matches!(
        authority.issue(&request, now() - DAY),
        Err(IssueError::Sign(SignError::ClockBehind))
    ));
}

#[test]
fn the_control_plane_gets_names_beside_its_own_id() {
    let parent = tempfile::tempdir().unwrap();
    let authority = open(&parent.path().join("ca"), FirstStart::Allowed).unwrap();
    let address: IpAddr = "127.0.0.1".parse().unwrap();
    let server =
        authority.server_certificate(vec!["ferromesh.local".into()], vec![address], now()).unwrap();
    assert_eq!(server.chain.len(), 2);
    assert_eq!(server.renew_at, now() + DAY / 2);
    let (_, leaf) = x509_parser::parse_x509_certificate(&server.chain[0]).unwrap();
    let names =
        format!("{:?}", leaf.subject_alternative_name().unwrap().unwrap().value.general_names);
    for expected in
        ["spiffe://cluster.local/ns/istio-system/sa/ferromesh", "ferromesh.local", "127"]
    {
        assert!(names.contains(expected), "{expected} in {names}");
    }
}

/// A store that several authorities share.
#[derive(Default)]
struct Shared(Mutex<Option<Halves>>);

/// Key, sealed half, and how often it was written.
type Halves = (Vec<u8>, Vec<u8>, u64);

impl StateStore for Shared {
    fn place(&self) -> String {
        "the shared store".into()
    }
    fn read(&self) -> Result<Option<Kept>, StoreError> {
        let kept = self.0.lock().unwrap().clone();
        Ok(kept.map(|(key, sealed, n)| Kept {
            key: key.into(),
            sealed,
            revision: Revision(n.to_string()),
        }))
    }
    fn create(&self, key: &[u8], sealed: &[u8]) -> Result<Revision, StoreError> {
        let mut kept = self.0.lock().unwrap();
        if kept.is_some() {
            return Err(StoreError::Conflict);
        }
        *kept = Some((key.to_vec(), sealed.to_vec(), 1));
        Ok(Revision("1".into()))
    }
    fn replace(&self, new: &[u8], revision: &Revision) -> Result<Revision, StoreError> {
        let mut kept = self.0.lock().unwrap();
        let (_, sealed, n) = kept.as_mut().ok_or(StoreError::Gone)?;
        if revision.0 != n.to_string() {
            return Err(StoreError::Conflict);
        }
        (*sealed, *n) = (new.to_vec(), *n + 1);
        Ok(Revision(n.to_string()))
    }
}

fn replica(store: &Arc<Shared>, first_start: FirstStart) -> Result<Authority, OpenError> {
    let settings = Settings::new(TrustDomain::default());
    settings.check()?;
    let store: Arc<dyn StateStore> = store.clone();
    let store = read_or_create(&store, &settings, first_start, now())?;
    Authority::assemble(settings, store, Box::new(MemoryLedger::default()))
}

#[test]
fn replicas_that_start_at_once_share_one_root() {
    let store = Arc::new(Shared::default());
    let replicas: Vec<Authority> = std::thread::scope(|scope| {
        let start = || scope.spawn(|| replica(&store, FirstStart::Allowed).unwrap());
        let starting: Vec<_> = (0..4).map(|_| start()).collect();
        starting.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert!(replicas.iter().all(|r| root(r) == root(&replicas[0])));
    let token =
        replicas[0].join_tokens().issue(&ID.parse().unwrap(), DAY, Uses::Many, now()).unwrap();
    assert!(replicas[3].join_tokens().verify(&token, now()).is_ok());
}

#[test]
fn what_one_replica_changes_the_others_take_over() {
    let store = Arc::new(Shared::default());
    let [a, b] = [(); 2].map(|()| replica(&store, FirstStart::Allowed).unwrap());
    a.revoke("aa", now()).unwrap();
    // `b` has not heard of it: its own change comes on top.
    b.revoke("bb", now()).unwrap();
    a.refresh().unwrap();
    for replica in [&a, &b] {
        assert!(replica.revoked.contains("aa") && replica.revoked.contains("bb"));
    }
    let before = a.issue(&request(&a), now()).unwrap();
    let [first, second] = [&a, &b].map(|r| r.issue(&request(r), now() + 4 * DAY).unwrap());
    assert_ne!(before.intermediates, first.intermediates);
    assert_eq!(
        first.intermediates, second.intermediates,
        "one of them renewed, the other took it over"
    );
}

#[test]
fn state_that_is_taken_away_is_put_back_and_a_foreign_one_is_not_gone_on_with() {
    let store = Arc::new(Shared::default());
    let authority = replica(&store, FirstStart::Allowed).unwrap();
    store.0.lock().unwrap().take();
    assert!(matches!(replica(&store, FirstStart::Refused), Err(OpenError::Lost { .. })));
    authority.refresh().unwrap();
    assert_eq!(root(&replica(&store, FirstStart::Refused).unwrap()), root(&authority));
    store.0.lock().unwrap().take();
    authority.revoke("aa", now()).unwrap();
    assert!(replica(&store, FirstStart::Refused).unwrap().revoked.contains("aa"));

    let other = Arc::new(Shared::default());
    replica(&other, FirstStart::Allowed).unwrap().revoke("bb", now()).unwrap();
    *store.0.lock().unwrap() =
        other.0.lock().unwrap().clone().map(|(key, sealed, _)| (key, sealed, 99));
    let error = authority.refresh().unwrap_err();
    assert!(matches!(error, IssueError::Replaced(_)), "{error}");
    assert!(authority.revoke("cc", now()).is_err());
}

#[test]
fn damaged_state_that_is_shared_is_refused_and_left_alone() {
    let store = Arc::new(Shared::default());
    drop(replica(&store, FirstStart::Allowed).unwrap());
    store.0.lock().unwrap().as_mut().unwrap().1[40] ^= 1;
    let before = store.0.lock().unwrap().clone();
    let error = replica(&store, FirstStart::Allowed).err().unwrap().to_string();
    assert!(error.contains("restore the shared store from a backup"), "{error}");
    assert_eq!(*store.0.lock().unwrap(), before);
}

async fn authenticate(
    authority: &Authority,
    leaf: Option<&CertificateDer<'static>>,
    bearer: Option<&str>,
    at: SystemTime,
) -> Result<String, String> {
    let certificates = leaf.into_iter().cloned().collect();
    let credentials = Credentials {
        peer_certificates: PeerCertificates(Arc::new(certificates)),
        bearer: bearer.map(|t| t.to_owned().into()),
    };
    let outcome = authority.authenticator([]).authenticate(&credentials, at).await;
    outcome.map(|caller| caller.id.to_string()).map_err(|e| e.to_string())
}

#[tokio::test]
async fn callers_prove_themselves_by_token_by_certificate_or_by_both_in_agreement() {
    let parent = tempfile::tempdir().unwrap();
    let authority = open(&parent.path().join("ca"), FirstStart::Allowed).unwrap();
    let issued = authority.issue(&request(&authority), now()).unwrap();
    let token =
        authority.join_tokens().issue(&ID.parse().unwrap(), DAY, Uses::Many, now()).unwrap();
    let other = "spiffe://cluster.local/ns/shop/sa/other".parse().unwrap();
    let other = authority.join_tokens().issue(&other, DAY, Uses::Many, now()).unwrap();
    let leaf = Some(&issued.leaf);
    let presented = PeerCertificates(Arc::new(vec![issued.leaf.clone()]));
    assert_eq!(
        (presented.not_after(), PeerCertificates::default().not_after()),
        (Some(issued.not_after), None)
    );
    let ok = Ok(ID.to_owned());
    assert_eq!(authenticate(&authority, None, Some(&token), now()).await, ok);
    assert_eq!(authenticate(&authority, leaf, None, now()).await, ok);
    assert_eq!(authenticate(&authority, leaf, Some(&token), now()).await, ok);
    assert!(authenticate(&authority, None, None, now()).await.is_err());
    assert!(
        authenticate(&authority, leaf, Some(&other), now())
            .await
            .unwrap_err()
            .contains("the token names")
    );
    assert!(authenticate(&authority, leaf, Some("rubbish"), now()).await.is_err());
    assert!(
        authenticate(&authority, leaf, None, now() + 2 * DAY)
            .await
            .unwrap_err()
            .contains("valid from")
    );
    assert!(authenticate(&authority, Some(&root(&authority)[0]), None, now()).await.is_err());
    authority.revoke(&issued.serial, now()).unwrap();
    assert!(authenticate(&authority, leaf, None, now()).await.unwrap_err().contains("revoked"));
}
