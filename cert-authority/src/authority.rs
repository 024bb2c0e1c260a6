//! The authority itself: its keys on disk, its signer, its ledger and the bundle that it publishes.

use std::{
    io,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, RwLock},
    time::{Duration, SystemTime},
};

use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use serde::Serialize;
use tokio::sync::watch;

use crate::{
    authenticate::{Authenticator, AuthenticatorSet, client_cert::ClientCertificates, jwt::JoinTokens},
    ledger::{self, Ledger, LedgerEntry, LedgerError, MemoryLedger, sled::SledLedger},
    pem,
    policy::{self, ApprovedRequest},
    rotation::{self, Action, Validity},
    seal::SealError,
    settings::{FirstStart, Seconds, Settings, SettingsError},
    signer::{
        SignError, SignedChain, Signer,
        local::{self, LocalSigner},
    },
    state::{self, CaPair, Found, SealedState, Secret, State},
    trust::{self, Revocations, TrustBundle},
};

const LEDGER_DIR: &str = "ledger";
/// Upkeep also prunes the ledger, so it runs at least this often.
const UPKEEP_AT_MOST: Duration = Duration::from_secs(60 * 60);
/// After a failure, and as a lower bound against a spinning loop.
const UPKEEP_AT_LEAST: Duration = Duration::from_secs(1);
/// From then on the log says that the root nears its end.
const ROOT_WARNING: Duration = Duration::from_secs(180 * 24 * 60 * 60);

/// Why an authority cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A setting that cannot work.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// There is none, and other state proves that there was.
    #[error(
        "no certificate authority in {dir}, but this control plane has run before: a new root would cut off every workload; \
         restore {dir} from a backup, or remove all state to begin a new mesh", dir = .dir.display()
    )]
    Lost {
        /// Where it should lie.
        dir: PathBuf,
    },
    /// Only a part of it is there.
    #[error(
        "the certificate authority in {dir} is incomplete: {why}; restore the whole directory from a backup (nothing was changed)",
        dir = .dir.display()
    )]
    Incomplete {
        /// Where it lies.
        dir: PathBuf,
        /// What is missing.
        why: String,
    },
    /// It cannot be read, made or written, or is damaged.
    #[error("the certificate authority cannot be opened: {why}; if it is damaged, restore {dir} from a backup (nothing was changed)", dir = .dir.display())]
    Sealed {
        /// Where it lies.
        dir: PathBuf,
        /// Which file, and what is wrong with it.
        why: String,
    },
    /// Its keys and certificates do not fit together, or cannot sign.
    #[error("the certificate authority's keys do not work: {0}")]
    Keys(String),
    /// Its list of issued certificates cannot be opened.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// Why no certificate was issued although policy allows it.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The signer cannot sign now.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// The root is over.
    #[error("the root certificate has expired: the mesh needs a new root")]
    RootExpired,
    /// The issued certificate could not be recorded, so it was dropped.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The changed state could not be written.
    #[error("the authority's state cannot be written: {0}")]
    State(String),
}

/// A new certificate with everything that its holder and its peers need.
#[derive(Clone, Debug)]
pub struct IssuedChain {
    /// The certificate.
    pub leaf: CertificateDer<'static>,
    /// From the signer upwards, without root.
    pub intermediates: Vec<CertificateDer<'static>>,
    /// The trust bundle at this moment.
    pub bundle: Arc<TrustBundle>,
    /// Lower-case hexadecimal, 32 digits.
    pub serial: String,
    /// End of validity.
    pub not_after: SystemTime,
}

impl IssuedChain {
    /// In the shape that Istio's agents and ztunnel expect: leaf, each intermediate, and last all roots as one text.
    pub fn pem_elements(&self) -> Vec<String> {
        let chain = std::iter::once(&self.leaf).chain(&self.intermediates).map(pem::certificate);
        chain.chain([self.bundle.pem()]).collect()
    }
}

/// A certificate for one of the control plane's own ports, with its key.
pub struct ServerCertificate {
    /// Leaf first, then intermediates.
    pub chain: Vec<CertificateDer<'static>>,
    /// Its private key; `Debug` of this type does not print it.
    pub key: PrivatePkcs8KeyDer<'static>,
    /// End of validity.
    pub not_after: SystemTime,
    /// Half of its life: the control plane asks for the next one then.
    pub renew_at: SystemTime,
}

/// A ledger entry as the REST API shows it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct IssuedRecord {
    /// What was signed.
    #[serde(flatten)]
    pub entry: LedgerEntry,
    /// Whether it may no longer renew itself.
    pub revoked: bool,
}

struct Store {
    sealed: SealedState,
    state: State,
}

/// The certificate authority of one trust domain. Shared by `Arc`; every method may block for a signature or a disk
/// write, so call them off the reactor.
pub struct Authority {
    settings: Settings,
    store: Mutex<Store>,
    signer: RwLock<Arc<LocalSigner>>,
    root: Validity,
    bundle: watch::Sender<Arc<TrustBundle>>,
    ledger: Box<dyn Ledger>,
    join_tokens: Arc<JoinTokens>,
    revoked: Arc<Revocations>,
}

impl Authority {
    /// Opens the authority in `dir`; makes a new root there only if nothing lies there and `first_start` allows it.
    ///
    /// `dir` appears complete or not at all, so its parent must be on the same file system (not a mount point itself).
    ///
    /// # Errors
    /// [`OpenError`] says what is wrong and what to do; what is on disk is never changed by a failure.
    pub fn open(dir: &Path, settings: Settings, first_start: FirstStart, now: SystemTime) -> Result<Self, OpenError> {
        settings.check()?;
        let io =
            |source: io::Error| OpenError::Sealed { dir: dir.to_owned(), why: format!("{}: {source}", dir.display()) };
        let store = match state::find(dir).map_err(io)? {
            Found::Both => read(dir, &settings)?,
            Found::Nothing if first_start == FirstStart::Allowed => create(dir, &settings, now)?,
            Found::Nothing => return Err(OpenError::Lost { dir: dir.to_owned() }),
            Found::Incomplete { why } => return Err(OpenError::Incomplete { dir: dir.to_owned(), why }),
        };
        let ledger = SledLedger::open(&dir.join(LEDGER_DIR))?;
        Self::assemble(settings, store, Box::new(ledger))
    }

    /// The same with a ledger that a restart empties, for tests of other parts.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_without_ledger(dir: &Path, settings: Settings, now: SystemTime) -> Result<Self, OpenError> {
        settings.check()?;
        let store = create(dir, &settings, now)?;
        Self::assemble(settings, store, Box::new(MemoryLedger::default()))
    }

    fn assemble(settings: Settings, store: Store, ledger: Box<dyn Ledger>) -> Result<Self, OpenError> {
        let keys = |e: SignError| OpenError::Keys(e.to_string());
        let root = store.state.root.material().certificate;
        let join_tokens = JoinTokens::new(settings.trust_domain.clone(), &store.state.join_token_key.0)
            .ok_or_else(|| OpenError::Keys("the key of join tokens is not a P-256 key".into()))?;
        let authority = Self {
            signer: RwLock::new(Arc::new(LocalSigner::new(&store.state.intermediate.material()).map_err(keys)?)),
            root: local::validity(&root).map_err(keys)?,
            bundle: watch::Sender::new(Arc::new(TrustBundle::new(settings.trust_domain.clone(), [root]))),
            revoked: Arc::new(Revocations::new(store.state.revoked.clone())),
            join_tokens: Arc::new(join_tokens),
            store: Mutex::new(store),
            settings,
            ledger,
        };
        Ok(authority)
    }

    /// What the operator chose.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Signs and records an approved request.
    ///
    /// # Errors
    /// [`IssueError`] when signing or recording fails; nothing was issued then.
    pub fn issue(&self, request: &ApprovedRequest, now: SystemTime) -> Result<IssuedChain, IssueError> {
        let SignedChain { leaf, intermediates, serial, not_after } = self.current_signer(now)?.sign(request, now)?;
        self.ledger.append(&LedgerEntry {
            serial: serial.clone(),
            spiffe_id: request.id().to_string(),
            issued_at: seconds(now),
            expires_at: seconds(not_after),
        })?;
        let bundle = self.bundle.borrow().clone();
        Ok(IssuedChain { leaf, intermediates, bundle, serial, not_after })
    }

    /// Makes a certificate and key for the control plane's own TLS ports, with these names beside its own id.
    ///
    /// # Errors
    /// As [`issue`](Self::issue).
    pub fn server_certificate(
        &self,
        dns_names: Vec<String>,
        addresses: Vec<IpAddr>,
        now: SystemTime,
    ) -> Result<ServerCertificate, IssueError> {
        let (key, public) = local::generate_leaf_key()?;
        let issued = self.issue(&policy::approve_server(dns_names, addresses, public, &self.settings), now)?;
        let chain = std::iter::once(issued.leaf).chain(issued.intermediates).collect();
        let life = issued.not_after.duration_since(now).unwrap_or_default();
        Ok(ServerCertificate { chain, key, not_after: issued.not_after, renew_at: now + life / 2 })
    }

    /// The newest trust bundle, and word of every change.
    pub fn trust_bundle(&self) -> watch::Receiver<Arc<TrustBundle>> {
        self.bundle.subscribe()
    }

    /// Makes and checks join tokens.
    pub fn join_tokens(&self) -> &Arc<JoinTokens> {
        &self.join_tokens
    }

    /// Accepts certificates of this authority, its join tokens, and tokens that any of `further` accepts.
    pub fn authenticator(&self, further: impl IntoIterator<Item = Arc<dyn Authenticator>>) -> AuthenticatorSet {
        let certificates = ClientCertificates::new(self.settings.trust_domain.clone(), self.revoked.clone());
        let tokens = std::iter::once::<Arc<dyn Authenticator>>(self.join_tokens.clone()).chain(further).collect();
        AuthenticatorSet::new(Arc::new(certificates), tokens)
    }

    /// The newest `limit` certificates, newest first; those long expired are forgotten.
    ///
    /// # Errors
    /// [`LedgerError`] when the store fails.
    pub fn issued(&self, limit: usize) -> Result<Vec<IssuedRecord>, LedgerError> {
        let record = |entry: LedgerEntry| IssuedRecord { revoked: self.revoked.contains(&entry.serial), entry };
        Ok(self.ledger.newest(limit)?.into_iter().map(record).collect())
    }

    /// Bars the certificate with this serial (lower-case hexadecimal) from renewing itself, durably.
    ///
    /// # Errors
    /// [`IssueError::State`] when that cannot be written; the certificate is not revoked then.
    pub fn revoke(&self, serial: &str, now: SystemTime) -> Result<(), IssueError> {
        let mut store = self.locked();
        let before = store.state.revoked.clone();
        // Certificates that the ledger forgot, too: no leaf outlives the longest lifetime.
        store.state.revoked.insert(serial.to_owned(), seconds(now + self.settings.max_ttl));
        trust::forget_expired(&mut store.state.revoked, now);
        if let Err(e) = store.write() {
            store.state.revoked = before;
            return Err(e);
        }
        self.revoked.replace(store.state.revoked.clone());
        tracing::warn!(target: "audit", serial, "certificate revoked");
        Ok(())
    }

    /// Does what is due (renews the signer, forgets old records) and says when to call again at the latest.
    ///
    /// # Errors
    /// [`IssueError`] when something due cannot be done; nothing changed then.
    pub fn upkeep(&self, now: SystemTime) -> Result<SystemTime, IssueError> {
        self.current_signer(now)?;
        if self.root.remaining(now) < ROOT_WARNING {
            tracing::warn!(remaining = %Seconds(self.root.remaining(now)), "the root certificate nears its end");
        }
        self.ledger.prune(now - ledger::RETENTION)?;
        match self.due(now) {
            Action::Keep { until } => Ok(until.min(now + UPKEEP_AT_MOST)),
            _ => Ok(now + UPKEEP_AT_LEAST),
        }
    }

    /// Calls [`upkeep`](Self::upkeep) for as long as it is polled.
    pub async fn run_upkeep(self: Arc<Self>, clock: fn() -> SystemTime) {
        loop {
            let authority = self.clone();
            let outcome = tokio::task::spawn_blocking(move || authority.upkeep(clock())).await;
            let pause = match outcome {
                Ok(Ok(next)) => next.duration_since(clock()).unwrap_or_default().max(UPKEEP_AT_LEAST),
                Ok(Err(error)) => {
                    tracing::error!(%error, "certificate authority: upkeep failed, trying again");
                    60 * UPKEEP_AT_LEAST
                }
                // The runtime is shutting down.
                Err(_) => return,
            };
            tokio::time::sleep(pause).await;
        }
    }

    fn due(&self, now: SystemTime) -> Action {
        rotation::decide(self.root, self.signer().validity(), self.settings.intermediate_ttl, now)
    }

    fn signer(&self) -> Arc<LocalSigner> {
        self.signer.read().expect("no holder of this lock panics").clone()
    }

    fn locked(&self) -> MutexGuard<'_, Store> {
        self.store.lock().expect("no holder of this lock panics")
    }

    /// The signer to use now, renewed if that is due. One that is due but cannot be renewed still signs until it ends.
    fn current_signer(&self, now: SystemTime) -> Result<Arc<LocalSigner>, IssueError> {
        match self.due(now) {
            Action::Keep { .. } => Ok(self.signer()),
            Action::ClockBehind => Err(SignError::ClockBehind.into()),
            Action::RootExpired => Err(IssueError::RootExpired),
            Action::RenewIntermediate => self.renew(now).or_else(|error| {
                tracing::error!(%error, "the signing certificate is due and cannot be renewed");
                let current = self.signer();
                if current.validity().remaining(now).is_zero() { Err(error) } else { Ok(current) }
            }),
        }
    }

    fn renew(&self, now: SystemTime) -> Result<Arc<LocalSigner>, IssueError> {
        let mut store = self.locked();
        // Another thread may have renewed while this one waited.
        if self.due(now) != Action::RenewIntermediate {
            return Ok(self.signer());
        }
        let Settings { trust_domain, intermediate_ttl, .. } = &self.settings;
        let material = local::create_intermediate(&store.state.root.material(), trust_domain, *intermediate_ttl, now)?;
        let renewed = Arc::new(LocalSigner::new(&material)?);
        let before = std::mem::replace(&mut store.state.intermediate, CaPair::from(material));
        if let Err(e) = store.write() {
            store.state.intermediate = before;
            return Err(e);
        }
        *self.signer.write().expect("no holder of this lock panics") = renewed.clone();
        tracing::info!(target: "audit", lifetime = %Seconds(renewed.validity().remaining(now)), "signing certificate renewed");
        Ok(renewed)
    }
}

impl Store {
    fn write(&mut self) -> Result<(), IssueError> {
        self.sealed.write(&self.state).map_err(|e| IssueError::State(e.to_string()))
    }
}

fn sealed_error(dir: &Path) -> impl FnOnce(SealError) -> OpenError {
    |error| OpenError::Sealed { dir: dir.to_owned(), why: error.to_string() }
}

fn read(dir: &Path, settings: &Settings) -> Result<Store, OpenError> {
    let (sealed, state) = SealedState::open(dir, settings.trust_domain.as_str()).map_err(sealed_error(dir))?;
    Ok(Store { sealed, state })
}

fn create(dir: &Path, settings: &Settings, now: SystemTime) -> Result<Store, OpenError> {
    let keys = |e: SignError| OpenError::Keys(e.to_string());
    let root = local::create_root(&settings.trust_domain, settings.root_ttl, now).map_err(keys)?;
    let intermediate =
        local::create_intermediate(&root, &settings.trust_domain, settings.intermediate_ttl, now).map_err(keys)?;
    let state = State {
        join_token_key: Secret(local::generate_key().map_err(keys)?),
        root: root.into(),
        intermediate: intermediate.into(),
        revoked: Default::default(),
    };
    let sealed = SealedState::create(dir, settings.trust_domain.as_str(), &state).map_err(sealed_error(dir))?;
    tracing::info!(target: "audit", trust_domain = %settings.trust_domain, "a new root certificate was made");
    Ok(Store { sealed, state })
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        authenticate::{Caller, Credentials, PeerCertificates, Proof},
        csr::Csr,
        signer::local::testing,
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
        let caller = Caller { id: ID.parse().unwrap(), proof: Proof::Token { kind: "test", token_id: None } };
        policy::approve_workload(&caller, &Csr::parse(&testing::good_csr(&[])).unwrap(), None, authority.settings())
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
        let token = first.join_tokens().issue(&ID.parse().unwrap(), DAY, now()).unwrap();
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
        let error = Authority::open(&dir, settings, FirstStart::Allowed, now()).err().unwrap().to_string();
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
        assert_eq!(reopened.issue(&request(&reopened), later).unwrap().intermediates, second.intermediates);
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
        assert!(matches!(authority.issue(&request, now() - DAY), Err(IssueError::Sign(SignError::ClockBehind))));
    }

    #[test]
    fn the_control_plane_gets_names_beside_its_own_id() {
        let parent = tempfile::tempdir().unwrap();
        let authority = open(&parent.path().join("ca"), FirstStart::Allowed).unwrap();
        let address: IpAddr = "127.0.0.1".parse().unwrap();
        let server = authority.server_certificate(vec!["ferromesh.local".into()], vec![address], now()).unwrap();
        assert_eq!(server.chain.len(), 2);
        assert_eq!(server.renew_at, now() + DAY / 2);
        let (_, leaf) = x509_parser::parse_x509_certificate(&server.chain[0]).unwrap();
        let names = format!("{:?}", leaf.subject_alternative_name().unwrap().unwrap().value.general_names);
        for expected in ["spiffe://cluster.local/ns/istio-system/sa/ferromesh", "ferromesh.local", "127"] {
            assert!(names.contains(expected), "{expected} in {names}");
        }
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
        let token = authority.join_tokens().issue(&ID.parse().unwrap(), DAY, now()).unwrap();
        let other = "spiffe://cluster.local/ns/shop/sa/other".parse().unwrap();
        let other = authority.join_tokens().issue(&other, DAY, now()).unwrap();
        let leaf = Some(&issued.leaf);
        let presented = PeerCertificates(Arc::new(vec![issued.leaf.clone()]));
        assert_eq!((presented.not_after(), PeerCertificates::default().not_after()), (Some(issued.not_after), None));
        let ok = Ok(ID.to_owned());
        assert_eq!(authenticate(&authority, None, Some(&token), now()).await, ok);
        assert_eq!(authenticate(&authority, leaf, None, now()).await, ok);
        assert_eq!(authenticate(&authority, leaf, Some(&token), now()).await, ok);
        assert!(authenticate(&authority, None, None, now()).await.is_err());
        assert!(authenticate(&authority, leaf, Some(&other), now()).await.unwrap_err().contains("the token names"));
        assert!(authenticate(&authority, leaf, Some("rubbish"), now()).await.is_err());
        assert!(authenticate(&authority, leaf, None, now() + 2 * DAY).await.unwrap_err().contains("valid from"));
        assert!(authenticate(&authority, Some(&root(&authority)[0]), None, now()).await.is_err());
        authority.revoke(&issued.serial, now()).unwrap();
        assert!(authenticate(&authority, leaf, None, now()).await.unwrap_err().contains("revoked"));
    }
}
