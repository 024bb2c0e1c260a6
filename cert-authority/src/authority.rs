//! The authority itself: its kept keys, its signer, its ledger and the bundle that it publishes.
//!
//! Authorities that share a store are one: each change is made on what is kept now, and what
//! another changed is taken over, at the latest when [`Authority::refresh`] is called.

use std::{
    net::IpAddr,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, RwLock},
    time::{Duration, Instant, SystemTime},
};

use aws_lc_rs::digest;
use ferromesh_proto::recurring::Recurring;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::{
    authenticate::{
        Authenticator, AuthenticatorSet,
        client_cert::ClientCertificates,
        jwt::{self, JoinTokens},
    },
    ledger::{self, Ledger, LedgerEntry, LedgerError, MemoryLedger, sled::SledLedger},
    pem,
    policy::{self, ApprovedRequest},
    rotation::{self, Action, Validity},
    settings::{FirstStart, Seconds, Settings, SettingsError},
    signer::{
        SignError, SignedChain, Signer,
        local::{self, LocalSigner},
    },
    state::{CaPair, SealedState, Secret, State, StateError},
    store::{StateStore, StoreError, directory::Directory},
    trust::{self, Revocations, TrustBundle},
};

const LEDGER_DIR: &str = "ledger";
/// Upkeep also prunes the ledger, so it runs at least this often.
const UPKEEP_AT_MOST: Duration = Duration::from_secs(60 * 60);
/// After a failure, and as a lower bound against a spinning loop.
const UPKEEP_AT_LEAST: Duration = Duration::from_secs(1);
/// How often a change is made again that another's change has overtaken.
const ATTEMPTS: usize = 5;
/// Pause before the signer's renewal is tried again: a store may be far away, and the old signer
/// still signs.
const RENEW_AGAIN: Duration = Duration::from_secs(30);
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
        "no certificate authority in {place}, but this control plane has run before: a new root would cut off every workload; \
         restore {place} from a backup, or remove all state to begin a new mesh"
    )]
    Lost {
        /// Where it should lie.
        place: String,
    },
    /// Only a part of it is there.
    #[error(
        "the certificate authority in {place} is incomplete: {why}; restore all of it from a backup (nothing was changed)"
    )]
    Incomplete {
        /// Where it lies.
        place: String,
        /// What is missing.
        why: String,
    },
    /// It cannot be read, made or written, or is damaged.
    #[error(
        "the certificate authority cannot be opened: {why}; if it is damaged, restore {place} from a backup (nothing was changed)"
    )]
    Sealed {
        /// Where it lies.
        place: String,
        /// Which part, and what is wrong with it.
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
    /// The changed state could not be written, or what another changed cannot be read.
    #[error("the authority's state cannot be read or written: {0}")]
    State(String),
    /// The kept state is another authority's now.
    #[error("{0} holds another root by now: restart the control plane to take it over")]
    Replaced(String),
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
    /// In the shape that Istio's agents and ztunnel expect: leaf, each intermediate, and last all
    /// roots as one text.
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

/// Which state an authority keeps, for a witness elsewhere: it shows that another authority's state,
/// or an older one, has taken its place.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Generation {
    /// SHA-256 of the root certificate, in lower-case hexadecimal: which authority it is.
    pub root: String,
    /// Rises with every change: a renewed signer, a revocation.
    pub sequence: u64,
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
    /// When a renewal that failed may be tried again.
    renew_again: SystemTime,
    /// Renewals that failed, as far as that was logged.
    renewals: Recurring,
}

impl Store {
    fn new(sealed: SealedState, state: State) -> Self {
        Self { sealed, state, renew_again: SystemTime::UNIX_EPOCH, renewals: Recurring::default() }
    }
}

/// The certificate authority of one trust domain. Shared by `Arc`; every method may block for a
/// signature or a disk write, so call them off the reactor.
pub struct Authority {
    settings: Settings,
    store: Mutex<Store>,
    signer: RwLock<Arc<LocalSigner>>,
    root: Validity,
    bundle: watch::Sender<Arc<TrustBundle>>,
    generation: watch::Sender<Generation>,
    ledger: Box<dyn Ledger>,
    join_tokens: Arc<JoinTokens>,
    revoked: Arc<Revocations>,
}

impl Authority {
    /// Opens the authority in `dir`; makes a new root there only if nothing lies there, and a
    /// ledger only if there is none, and only where `first_start` allows it.
    ///
    /// `dir` appears complete or not at all, so its parent must be on the same file system (not a
    /// mount point itself).
    ///
    /// # Errors
    /// [`OpenError`] says what is wrong and what to do; what is on disk is never changed by a
    /// failure.
    pub fn open(
        dir: &Path,
        settings: Settings,
        first_start: FirstStart,
        now: SystemTime,
    ) -> Result<Self, OpenError> {
        settings.check()?;
        let store: Arc<dyn StateStore> = Arc::new(Directory::new(dir));
        let store = read_or_create(&store, &settings, first_start, now)?;
        let ledger = SledLedger::open(&dir.join(LEDGER_DIR), first_start)?;
        Self::assemble(settings, store, Box::new(ledger))
    }

    /// Opens the authority that `store` keeps, as [`open`](Self::open) does, with a ledger of its
    /// own in the directory `ledger`, which is made where there is none. Of several that make a root in one store at once, all open
    /// the one that came first.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_in(
        store: Arc<dyn StateStore>,
        ledger: &Path,
        settings: Settings,
        first_start: FirstStart,
        now: SystemTime,
    ) -> Result<Self, OpenError> {
        settings.check()?;
        let store = read_or_create(&store, &settings, first_start, now)?;
        Self::assemble(settings, store, Box::new(SledLedger::open(ledger, FirstStart::Allowed)?))
    }

    /// [`open`](Self::open) with a ledger that a restart empties, for tests of other parts.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_without_ledger(
        dir: &Path,
        settings: Settings,
        now: SystemTime,
    ) -> Result<Self, OpenError> {
        settings.check()?;
        let store: Arc<dyn StateStore> = Arc::new(Directory::new(dir));
        let store = read_or_create(&store, &settings, FirstStart::Allowed, now)?;
        Self::assemble(settings, store, Box::new(MemoryLedger::default()))
    }

    fn assemble(
        settings: Settings,
        store: Store,
        ledger: Box<dyn Ledger>,
    ) -> Result<Self, OpenError> {
        let keys = |e: SignError| OpenError::Keys(e.to_string());
        let root = store.state.root.material().certificate;
        let join_tokens =
            JoinTokens::new(settings.trust_domain.clone(), &store.state.join_token_key.0)
                .ok_or_else(|| {
                    OpenError::Keys("the key of join tokens is not a P-256 key".into())
                })?;
        let authority = Self {
            signer: RwLock::new(Arc::new(
                LocalSigner::new(&store.state.intermediate.material()).map_err(keys)?,
            )),
            root: local::validity(&root).map_err(keys)?,
            bundle: watch::Sender::new(Arc::new(TrustBundle::new(
                settings.trust_domain.clone(),
                [root.clone()],
            ))),
            generation: watch::Sender::new(Generation {
                root: fingerprint(&root),
                sequence: store.sealed.sequence(),
            }),
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
    pub fn issue(
        &self,
        request: &ApprovedRequest,
        now: SystemTime,
    ) -> Result<IssuedChain, IssueError> {
        let SignedChain { leaf, intermediates, serial, not_after } =
            self.current_signer(now)?.sign(request, now)?;
        self.ledger.append(&LedgerEntry {
            serial: serial.clone(),
            spiffe_id: request.id().to_string(),
            issued_at: seconds(now),
            expires_at: seconds(not_after),
        })?;
        let bundle = self.bundle.borrow().clone();
        Ok(IssuedChain { leaf, intermediates, bundle, serial, not_after })
    }

    /// Makes a certificate and key for the control plane's own TLS ports, with these names beside
    /// its own id.
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
        let issued =
            self.issue(&policy::approve_server(dns_names, addresses, public, &self.settings), now)?;
        let chain = std::iter::once(issued.leaf).chain(issued.intermediates).collect();
        let life = issued.not_after.duration_since(now).unwrap_or_default();
        Ok(ServerCertificate { chain, key, not_after: issued.not_after, renew_at: now + life / 2 })
    }

    /// The newest trust bundle, and word of every change.
    pub fn trust_bundle(&self) -> watch::Receiver<Arc<TrustBundle>> {
        self.bundle.subscribe()
    }

    /// Which state is kept, and word of every change, once it is kept.
    pub fn generation(&self) -> watch::Receiver<Generation> {
        self.generation.subscribe()
    }

    /// Whether a witness of its state must be somewhere ([`Self::witness`]).
    pub fn is_witnessed(&self) -> bool {
        self.locked().state.witnessed
    }

    /// Remembers, durably, that a witness of its state is kept: from now on one that is missing is
    /// lost.
    ///
    /// # Errors
    /// [`IssueError::State`] when that cannot be written.
    pub fn witness(&self) -> Result<(), IssueError> {
        let unwitnessed = |state: &mut State| Ok(!std::mem::replace(&mut state.witnessed, true));
        self.change(&mut self.locked(), unwitnessed).map(drop)
    }

    /// Makes and checks join tokens.
    pub fn join_tokens(&self) -> &Arc<JoinTokens> {
        &self.join_tokens
    }

    /// Accepts certificates of this authority, its join tokens, and tokens that any of `further`
    /// accepts.
    pub fn authenticator(
        &self,
        further: impl IntoIterator<Item = Arc<dyn Authenticator>>,
    ) -> AuthenticatorSet {
        let certificates =
            ClientCertificates::new(self.settings.trust_domain.clone(), self.revoked.clone());
        let tokens = std::iter::once::<Arc<dyn Authenticator>>(self.join_tokens.clone())
            .chain(further)
            .collect();
        AuthenticatorSet::new(Arc::new(certificates), tokens)
    }

    /// The newest `limit` certificates, newest first; those long expired are forgotten.
    ///
    /// # Errors
    /// [`LedgerError`] when the store fails.
    pub fn issued(&self, limit: usize) -> Result<Vec<IssuedRecord>, LedgerError> {
        let record = |entry: LedgerEntry| IssuedRecord {
            revoked: self.revoked.contains(&entry.serial),
            entry,
        };
        Ok(self.ledger.newest(limit)?.into_iter().map(record).collect())
    }

    /// Bars the certificate with this serial (lower-case hexadecimal) from renewing itself,
    /// durably.
    ///
    /// # Errors
    /// [`IssueError::State`] when that cannot be written; the certificate is not revoked then.
    pub fn revoke(&self, serial: &str, now: SystemTime) -> Result<(), IssueError> {
        let mut store = self.locked();
        self.change(&mut store, |state| {
            // Certificates that the ledger forgot, too: no leaf outlives the longest lifetime.
            state.revoked.insert(serial.to_owned(), seconds(now + self.settings.max_ttl));
            trust::forget_expired(&mut state.revoked, now);
            Ok(true)
        })?;
        tracing::warn!(target: "audit", serial, "certificate revoked");
        Ok(())
    }

    /// Uses up a join token of a single use that ends at `expires`, in seconds since 1970, durably;
    /// `false`: it was used before, here or by another replica.
    ///
    /// # Errors
    /// [`IssueError::State`] when that cannot be written; it is not used up then.
    pub fn use_up(&self, token: &str, expires: u64, now: SystemTime) -> Result<bool, IssueError> {
        self.change(&mut self.locked(), |state| {
            if state.used_tokens.contains_key(token) {
                return Ok(false);
            }
            trust::forget_expired(&mut state.used_tokens, now - jwt::LEEWAY);
            state.used_tokens.insert(token.to_owned(), expires);
            Ok(true)
        })
    }

    /// Takes over what others have changed in the store, and puts back what was taken away there.
    ///
    /// # Errors
    /// [`IssueError::Replaced`] when the store holds another authority's state: this one must not
    /// go on. [`IssueError::State`] when it cannot be read or written; nothing changed then.
    pub fn refresh(&self) -> Result<(), IssueError> {
        self.take_over(&mut self.locked())
    }

    /// Does what is due (renews the signer, forgets old records) and says when to call again at the
    /// latest.
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
        let mut trouble = Recurring::default();
        loop {
            let authority = self.clone();
            let outcome = tokio::task::spawn_blocking(move || authority.upkeep(clock())).await;
            let pause = match outcome {
                Ok(Ok(next)) => {
                    if let Some(failures) = trouble.worked(Instant::now()) {
                        tracing::info!(failures, "certificate authority: upkeep works again");
                    }
                    next.duration_since(clock()).unwrap_or_default().max(UPKEEP_AT_LEAST)
                }
                Ok(Err(error)) => {
                    if let Some(failures) = trouble.failed(&error, Instant::now()) {
                        tracing::error!(%error, failures, "certificate authority: upkeep failed, trying again");
                    }
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

    /// The signer to use now, renewed if that is due. One that is due but cannot be renewed still
    /// signs until it ends, and nobody waits for a renewal while it does.
    fn current_signer(&self, now: SystemTime) -> Result<Arc<LocalSigner>, IssueError> {
        match self.due(now) {
            Action::Keep { .. } => return Ok(self.signer()),
            Action::ClockBehind => return Err(SignError::ClockBehind.into()),
            Action::RootExpired => return Err(IssueError::RootExpired),
            Action::RenewIntermediate => {}
        }
        let current = self.signer();
        let ended = current.validity().remaining(now).is_zero();
        let mut store = match self.store.try_lock() {
            Ok(store) => store,
            Err(_) if ended => self.locked(),
            Err(_) => return Ok(current),
        };
        if !ended && now < store.renew_again {
            return Ok(current);
        }
        let renewed = self.renew(&mut store, now);
        if renewed.is_ok() {
            store.renewals.worked(Instant::now());
        }
        renewed.or_else(|error| {
            if let Some(failures) = store.renewals.failed(&error, Instant::now()) {
                tracing::error!(%error, failures, "the signing certificate is due and cannot be renewed");
            }
            store.renew_again = now + RENEW_AGAIN;
            if ended { Err(error) } else { Ok(current) }
        })
    }

    fn renew(&self, store: &mut Store, now: SystemTime) -> Result<Arc<LocalSigner>, IssueError> {
        let Settings { trust_domain, intermediate_ttl, .. } = &self.settings;
        let changed = self.change(store, |state| {
            // Another thread or replica may have renewed before.
            if self.due(now) != Action::RenewIntermediate {
                return Ok(false);
            }
            let material = local::create_intermediate(
                &state.root.material(),
                trust_domain,
                *intermediate_ttl,
                now,
            )?;
            state.intermediate = CaPair::from(material);
            Ok(true)
        })?;
        let signer = self.signer();
        if changed {
            tracing::info!(target: "audit", lifetime = %Seconds(signer.validity().remaining(now)), "signing certificate renewed");
        }
        Ok(signer)
    }

    /// Makes and keeps a change; whether there was any. `edit` says whether there is anything to
    /// change; it runs again on newer state when another's change came first.
    fn change(
        &self,
        store: &mut Store,
        edit: impl Fn(&mut State) -> Result<bool, IssueError>,
    ) -> Result<bool, IssueError> {
        for _ in 0..ATTEMPTS {
            let mut next = store.state.clone();
            if !edit(&mut next)? {
                return Ok(false);
            }
            match store.sealed.write(&next) {
                Ok(()) => return self.adopt(store, next).map(|()| true),
                Err(StoreError::Conflict) => self.take_over(store)?,
                Err(error) => return Err(IssueError::State(error.to_string())),
            }
        }
        Err(IssueError::State("others keep changing it".to_owned()))
    }

    /// Brings this authority to what is kept.
    fn take_over(&self, store: &mut Store) -> Result<(), IssueError> {
        match store.sealed.reread() {
            Ok(None) => Ok(()),
            Ok(Some((sealed, kept))) if kept.is_same_authority(&store.state) => {
                store.sealed = sealed;
                self.adopt(store, kept)
            }
            Ok(Some(_)) => Err(IssueError::Replaced(store.sealed.place())),
            Err(StateError::Store(StoreError::Gone)) => {
                tracing::error!(target: "audit", place = store.sealed.place(), "the authority's state was taken away: putting it back");
                store.sealed.write(&store.state).map_err(|e| IssueError::State(e.to_string()))
            }
            Err(error) => Err(IssueError::State(error.to_string())),
        }
    }

    fn adopt(&self, store: &mut Store, state: State) -> Result<(), IssueError> {
        if state.intermediate != store.state.intermediate {
            let signer = LocalSigner::new(&state.intermediate.material())?;
            *self.signer.write().expect("no holder of this lock panics") = Arc::new(signer);
        }
        self.revoked.replace(state.revoked.clone());
        store.state = state;
        let sequence = store.sealed.sequence();
        self.generation
            .send_if_modified(|now| std::mem::replace(&mut now.sequence, sequence) != sequence);
        Ok(())
    }
}

fn read_or_create(
    store: &Arc<dyn StateStore>,
    settings: &Settings,
    first_start: FirstStart,
    now: SystemTime,
) -> Result<Store, OpenError> {
    let place = store.place();
    if let Some((sealed, state)) = read(store, settings)? {
        return Ok(Store::new(sealed, state));
    }
    if first_start == FirstStart::Refused {
        return Err(OpenError::Lost { place });
    }
    let state = new_state(settings, now).map_err(|e| OpenError::Keys(e.to_string()))?;
    match SealedState::create(store.clone(), settings.trust_domain.as_str(), &state) {
        Ok(sealed) => {
            tracing::info!(target: "audit", trust_domain = %settings.trust_domain, place, "a new root certificate was made");
            Ok(Store::new(sealed, state))
        }
        Err(StoreError::Conflict) => {
            let (sealed, state) = read(store, settings)?.ok_or(OpenError::Lost { place })?;
            Ok(Store::new(sealed, state))
        }
        Err(error) => Err(OpenError::Sealed { place, why: error.to_string() }),
    }
}

fn read(
    store: &Arc<dyn StateStore>,
    settings: &Settings,
) -> Result<Option<(SealedState, State)>, OpenError> {
    SealedState::open(store.clone(), settings.trust_domain.as_str()).map_err(|error| match error {
        StateError::Store(StoreError::Incomplete(why)) => {
            OpenError::Incomplete { place: store.place(), why }
        }
        error => OpenError::Sealed { place: store.place(), why: error.to_string() },
    })
}

fn new_state(settings: &Settings, now: SystemTime) -> Result<State, SignError> {
    let root = local::create_root(&settings.trust_domain, settings.root_ttl, now)?;
    let intermediate =
        local::create_intermediate(&root, &settings.trust_domain, settings.intermediate_ttl, now)?;
    Ok(State {
        join_token_key: Secret(local::generate_key()?),
        root: root.into(),
        intermediate: intermediate.into(),
        revoked: Default::default(),
        witnessed: false,
        used_tokens: Default::default(),
    })
}

fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    let digest = digest::digest(&digest::SHA256, certificate);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests;
