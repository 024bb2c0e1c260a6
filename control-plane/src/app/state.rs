//! What outlives a process: the certificate authority, the store of objects, the administrator's
//! token, and the file of roots for agents on this machine.

use std::{
    fs::{File, TryLockError},
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use anyhow::{Context, anyhow, bail};
use ferromesh_cert_authority::{
    Authority, FirstStart, LedgerError, OpenError, Settings as AuthoritySettings, TrustBundle,
    files,
    lock::{SOON, take_soon},
};
use ferromesh_proto::SpiffeId;

use super::witness::{self, Copies, Seen, WitnessKeeper, must_be_there, way_back};
use crate::{
    admin::AdminToken,
    config::Settings,
    kube_cluster::{
        KubeCluster,
        authority::{self, Opening},
    },
    metrics::Metrics,
    secret::sealed::{self, Vault},
    source::rest::LocalStore,
    store::{AcceptState, Durable, Expect, Opening as StoreOpening, Recovery, Store, StoreKey},
};

/// A busy machine renews a certificate of this life well before its end.
const SHORTEST_SERVER_TTL: Duration = Duration::from_secs(30);

/// Larger files of roots are not ours.
const MAX_ROOTS: u64 = 16 << 20;

/// What must outlive this process.
pub(super) struct PersistentState {
    pub(super) authority: Arc<Authority>,
    pub(super) token: AdminToken,
    /// What is kept on this machine's disk; `None`: a cluster has it.
    pub(super) local: Option<LocalState>,
}

/// What a control plane without a cluster keeps.
pub(super) struct LocalState {
    pub(super) objects: LocalStore,
    pub(super) witness: Arc<WitnessKeeper>,
}

impl PersistentState {
    /// Opens everything. Without a cluster, whatever is damaged, missing, another mesh's or older
    /// than what was seen before is refused before anything is changed.
    ///
    /// # Errors
    /// Something cannot be used, with what to do.
    pub(super) async fn open(
        settings: &Settings,
        cluster: Option<&KubeCluster>,
    ) -> anyhow::Result<Self> {
        let data = &settings.data_dir;
        files::create_directories(data).with_context(|| {
            format!("cannot make {}; choose another --data-dir", data.display())
        })?;
        let authority = match cluster {
            Some(cluster) => Some(authority::open(cluster, opening(settings)?).await?),
            None => None,
        };
        let settings = settings.clone();
        let open = move || match authority {
            Some(authority) => {
                let token = administrator(&settings)?;
                Ok(Self { authority: Arc::new(authority), token, local: None })
            }
            None => Self::open_local(&settings),
        };
        tokio::task::spawn_blocking(open).await.context("opening state")?
    }

    fn open_local(settings: &Settings) -> anyhow::Result<Self> {
        keep_others_out(&settings.data_dir);
        let alone = use_alone(&settings.data_dir)?;
        begin(settings)?;
        let accept = AcceptState::at(settings.accept_file());
        let authority = Arc::new(local_authority(settings, &accept)?);
        let files = [settings.witness_file()].into_iter().chain(settings.witness_copies());
        let copies = match accept.stands() {
            true => Copies::unread(files),
            false => Copies::read(files, &authority, &accept)?,
        };
        let seen = copies.seen();
        if let Some(seen) = &seen {
            seen.check_authority(&authority, &settings.authority_dir(), &accept)?;
        }
        check_roots(settings, &authority, &accept)?;
        // One that is given in a file of its own was perhaps never made here.
        let had_token = seen.as_ref().is_none_or(|seen| seen.admin_token);
        if settings.admin_token_file.is_none() && had_token {
            must_be_there(&settings.token_file(), &accept)?;
        }
        let store = Arc::new(open_store(settings, seen.as_ref(), &accept)?);
        let (vault, secrets_key) = open_vault(settings, &store, seen.as_ref(), &accept)?;
        hide_history(&store, &vault);
        let token = administrator(settings)?;
        let objects = LocalStore { store: store.clone(), vault };
        let keeper = WitnessKeeper {
            copies: Mutex::new(copies),
            authority: authority.clone(),
            store,
            secrets_key,
            admin_token: settings.token_file().exists(),
            trouble: Mutex::default(),
            _alone: alone,
        };
        keeper.begin()?;
        Ok(Self {
            authority,
            token,
            local: Some(LocalState { objects, witness: Arc::new(keeper) }),
        })
    }
}

/// Others may read the roots in the data directory, and nobody else may write to it.
fn keep_others_out(data: &Path) {
    if let Err(error) = files::tighten_shared(data) {
        tracing::warn!(directory = %data.display(), %error, "others can write to the data directory");
    }
}

/// Keeps every other process out of the data directory until the file is dropped: two first starts
/// at once would each make a part of what must be of one mesh. The lock is on the directory itself,
/// so that there is no file to lose.
fn use_alone(data: &Path) -> anyhow::Result<File> {
    let shown = data.display();
    let unusable = || format!("cannot lock {shown}; choose another --data-dir");
    let directory = File::open(data).with_context(unusable)?;
    let is_held = |error: &TryLockError| matches!(error, TryLockError::WouldBlock);
    match take_soon(SOON, || directory.try_lock(), is_held) {
        Ok(()) => Ok(directory),
        Err(TryLockError::WouldBlock) => {
            bail!("{shown} is in use by another process; stop it, or choose another --data-dir")
        }
        Err(TryLockError::Error(error)) => Err(error).with_context(unusable),
    }
}

/// Where no part of an earlier run is, everything may be made; otherwise what is missing is lost.
fn begin(settings: &Settings) -> anyhow::Result<()> {
    let file = settings.accept_file();
    let stood = AcceptState::at(file.clone()).begin(&settings.state_parts()).map_err(|error| {
        // What stands in the way is named, with what to do.
        if error.kind() == io::ErrorKind::InvalidInput {
            return anyhow!("cannot use {}: {error}", file.display());
        }
        let data = settings.data_dir.display();
        anyhow!(error).context(format!(
            "cannot write to {data}; give a directory with room that this user may write to with --data-dir"
        ))
    })?;
    if stood {
        tracing::warn!(
            file = %file.display(),
            "what the data directory holds is accepted as all that there is; what is missing is made anew"
        );
    }
    Ok(())
}

/// From now on, what is missing is lost. Called before anybody is served, so that nothing was
/// acknowledged while things could still be made anew.
pub(super) fn end_of_first_start(settings: &Settings) -> anyhow::Result<()> {
    let file = settings.accept_file();
    AcceptState::at(file.clone())
        .end()
        .with_context(|| format!("cannot remove {}; remove it", file.display()))
}

fn open_store(
    settings: &Settings,
    seen: Option<&Seen>,
    accept: &AcceptState,
) -> anyhow::Result<Durable> {
    let (dir, mark) = (settings.store_dir(), settings.mark_file());
    let witness = seen.map_or_else(|| settings.witness_file(), |seen| seen.store_file.clone());
    let known = seen.map(|seen| &seen.store);
    let (store, recovery) =
        Durable::open(&StoreOpening { dir: &dir, mark: &mark, witness: &witness, known, accept })?;
    recovery.iter().for_each(say);
    Ok(store)
}

/// The key of the Secrets in the store, and its fingerprint.
fn open_vault(
    settings: &Settings,
    store: &Durable,
    seen: Option<&Seen>,
    accept: &AcceptState,
) -> anyhow::Result<(Vault, String)> {
    let (file, discards, entries) =
        (settings.vault_file(), settings.discard_sealed_secrets, store.list());
    // Where there are Secrets, the vault says how many are lost.
    if !discards && !entries.iter().any(|entry| entry.key.kind() == "Secret") {
        must_be_there(&file, accept)?;
    }
    let discard = |key: &StoreKey| -> anyhow::Result<()> {
        store.delete(key, Expect::Any, "--discard-sealed-secrets")?;
        tracing::warn!(target: "audit", object = %key.0, "a Secret whose key is lost was deleted");
        Ok(())
    };
    let vault = Vault::open_beside(&file, &entries, discards.then_some(discard))?;
    let key = witness::fingerprint(&file)?;
    if let Some(seen) = seen.filter(|_| !discards) {
        seen.check_key(&key, &file, accept)?;
    }
    Ok((vault, key))
}

/// Seals what former versions left readable of Secrets: in what is in force by writing it again, in
/// the journal's past by taking it out. A disk that refuses is asked again at the next start.
fn hide_history(store: &Durable, vault: &Vault) {
    for entry in store.list().into_iter().filter(|e| sealed::readable(&e.value).is_some()) {
        let (key, expect) = (entry.key.clone(), Expect::Revision(entry.revision));
        let object = vault.open_object(&key, entry.value).map_err(|error| error.to_string());
        let sealed = object.map(|object| vault.seal(&key, object));
        let stored = sealed.and_then(|sealed| {
            store.put(&key, sealed, expect, "upgrade").map_err(|error| error.to_string())
        });
        match stored {
            Ok(revision) => {
                tracing::info!(target: "audit", object = %key.0, revision, "sealed anew")
            }
            Err(error) => {
                tracing::error!(object = %key.0, %error, "a part of it stays readable in the journal")
            }
        }
    }
    match store.redact(sealed::readable) {
        Ok(hidden) if hidden.is_empty() => {}
        Ok(hidden) => {
            let names: Vec<String> = hidden.into_iter().map(|key| key.0).collect();
            tracing::warn!(
                secrets = names.join(", "),
                "keys of these Secrets may have been readable in the journal of a former version, and are not any more; \
                 copies of that journal still hold them: replace the keys"
            );
        }
        Err(error) => {
            tracing::error!(%error, "keys of Secrets may stay readable in the journal's past")
        }
    }
}

fn say(recovery: &Recovery) {
    match recovery {
        Recovery::TornTail => {
            tracing::warn!(
                "the journal's last line was incomplete: a write that was never acknowledged is dropped"
            )
        }
        Recovery::GivenBack => {
            tracing::warn!(
                "the journal's last record was lost and was restored from the store's database"
            )
        }
        Recovery::Proven => {
            tracing::warn!(
                "the mark of the last acknowledged write was lost; the store's database proves the journal"
            )
        }
        Recovery::Unmarked(records) => {
            tracing::warn!(
                records,
                "the store is of a former version, which did not mark what it acknowledged: its journal is taken as it is; \
                 the store's database does not prove the last records"
            )
        }
        Recovery::Rebuilt(reason) => {
            tracing::warn!(reason, "the store's database was rebuilt from the journal")
        }
    }
}

fn administrator(settings: &Settings) -> anyhow::Result<AdminToken> {
    if let Some(given) = &settings.admin_token_file {
        return Ok(AdminToken::read(given)?);
    }
    let (token, shown) = AdminToken::open(&settings.token_file())?;
    if let Some(shown) = shown {
        show_token(&shown, &settings.token_file());
    }
    Ok(token)
}

/// Shows the new administrator's token to a person; a log file only learns where it lies.
fn show_token(token: &str, file: &Path) {
    if std::io::stderr().is_terminal() {
        // To the terminal itself: it must not enter the log. One that is gone shows nothing.
        let _ = writeln!(
            std::io::stderr(),
            "administrator's token, kept in {}: {token}",
            file.display()
        );
    } else {
        tracing::info!(file = %file.display(), "an administrator's token was made");
    }
}

/// The authority on this machine's disk.
fn local_authority(settings: &Settings, accept: &AcceptState) -> anyhow::Result<Authority> {
    let first = if accept.stands() { FirstStart::Allowed } else { FirstStart::Refused };
    let (wanted, dir) = (authority_settings(settings)?, settings.authority_dir());
    Authority::open(&dir, wanted, first, SystemTime::now()).map_err(|error| match error {
        OpenError::Lost { .. } | OpenError::Ledger(LedgerError::Missing { .. }) => {
            anyhow!("{error}, or, to make a new one, run: {}", accept.step())
        }
        error => error.into(),
    })
}

/// The authority of a cluster.
fn opening(settings: &Settings) -> anyhow::Result<Opening> {
    Ok(Opening {
        root_namespace: settings.root_namespace.clone(),
        settings: authority_settings(settings)?,
        ledger: settings.ledger_dir(),
        new_root: settings.new_root,
    })
}

fn authority_settings(settings: &Settings) -> anyhow::Result<AuthoritySettings> {
    let mut wanted = AuthoritySettings::new(settings.trust_domain.clone());
    wanted.leaf_ttl = settings.leaf_ttl;
    wanted.max_ttl = settings.leaf_ttl;
    wanted.intermediate_ttl =
        settings.signer_ttl.unwrap_or(wanted.intermediate_ttl.max(6 * settings.leaf_ttl));
    // Ours live no longer than others', so that who tries out short lives tries out ours too.
    wanted.server_ttl = wanted.server_ttl.min(settings.leaf_ttl.max(SHORTEST_SERVER_TTL));
    let account = wanted.server_id.service_account().to_owned();
    wanted.server_id =
        SpiffeId::new(settings.trust_domain.clone(), &settings.root_namespace, &account)
            .context("--root-namespace")?;
    Ok(wanted)
}

/// Refuses an authority whose root is not the one that was published: workloads trust that one.
fn check_roots(
    settings: &Settings,
    authority: &Authority,
    accept: &AcceptState,
) -> anyhow::Result<()> {
    let file = settings.root_file();
    must_be_there(&file, accept)?;
    let published = match files::read(&file, MAX_ROOTS) {
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Vec::new(),
        // Something else than a file is replaced by one.
        Err(_) if accept.stands() => return Ok(()),
        outcome => outcome.with_context(|| format!("reading {}", file.display()))?,
    };
    if accept.stands() || published == authority.trust_bundle().borrow().pem().as_bytes() {
        return Ok(());
    }
    bail!(
        "{} is not the root of the certificate authority in {}: one of them is another mesh's, or was changed; {}",
        file.display(),
        settings.authority_dir().display(),
        way_back(
            accept,
            "go on with that authority (workloads that trust another root are cut off)"
        )
    )
}

/// Keeps the file of roots up to date.
pub(super) async fn follow_roots(authority: Arc<Authority>, file: PathBuf, metrics: Arc<Metrics>) {
    let mut bundle = authority.trust_bundle();
    while bundle.changed().await.is_ok() {
        let roots = bundle.borrow_and_update().clone();
        if let Err(error) = publish_roots(&file, &roots, &metrics) {
            tracing::error!(%error, "the file of roots is out of date");
        }
    }
}

/// Replaces the file if it says something else: a full disk is no reason not to start with roots
/// that it has already.
pub(super) fn publish_roots(
    file: &Path,
    bundle: &TrustBundle,
    metrics: &Metrics,
) -> anyhow::Result<()> {
    let end = |root: &_| {
        x509_parser::parse_x509_certificate(root)
            .ok()
            .map(|(_, c)| c.validity().not_after.timestamp())
    };
    metrics.root_expiry.set(bundle.roots().iter().filter_map(|root| end(root)).min().unwrap_or(0));
    let pem = bundle.pem();
    if files::read(file, MAX_ROOTS).is_ok_and(|written| written == pem.as_bytes()) {
        return Ok(());
    }
    files::replace(file, 0o644, pem.as_bytes())
        .with_context(|| format!("cannot write the mesh's roots to {}", file.display()))
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{MetadataExt, PermissionsExt},
    };

    use serde_json::json;

    use super::*;
    use crate::config::ServeOptions;

    /// A data directory, and a control plane's start on it that serves nobody.
    struct Data(tempfile::TempDir);

    impl Data {
        fn new() -> Self {
            Self(tempfile::tempdir().expect("a directory"))
        }

        /// One that a first start has made, with this many objects.
        fn with(objects: usize) -> Self {
            let data = Self::new();
            data.write(0..objects);
            data
        }

        fn path(&self, part: &str) -> PathBuf {
            self.0.path().join(part)
        }

        fn settings(&self) -> Settings {
            let data_dir = Some(self.0.path().to_owned());
            ServeOptions { data_dir, ..ServeOptions::default() }.check().expect("good settings")
        }

        fn open(&self) -> Result<PersistentState, String> {
            let settings = self.settings();
            let state =
                PersistentState::open_local(&settings).map_err(|error| format!("{error:#}"))?;
            let roots = state.authority.trust_bundle().borrow().clone();
            publish_roots(&settings.root_file(), &roots, &Metrics::new()).expect("published");
            end_of_first_start(&settings).expect("ended");
            Ok(state)
        }

        fn refused(&self) -> String {
            let error = self.open().map(|_| ()).expect_err("refused");
            assert!(error.contains("restore") && error.contains("run: touch "), "{error}");
            error
        }

        fn write(&self, objects: std::ops::Range<usize>) {
            let local = self.open().expect("it opens").local.expect("no cluster");
            for i in objects {
                let key = StoreKey::new("Service", "shop", &format!("s{i}"));
                local.objects.store.put(&key, json!({}), Expect::Any, "test").expect("a write");
            }
            local.witness.write().expect("at the end");
        }

        fn objects(&self) -> usize {
            self.open().expect("it opens").local.expect("no cluster").objects.store.list().len()
        }

        /// Everything that it holds, but what sled writes whenever it is opened.
        fn content(&self) -> Vec<(PathBuf, Vec<u8>)> {
            let mut found = Vec::new();
            let mut folders = vec![self.0.path().to_owned()];
            while let Some(folder) = folders.pop() {
                for entry in fs::read_dir(folder).expect("a folder").map(|e| e.expect("an entry")) {
                    let path = entry.path();
                    if !path.is_dir() {
                        found.push((path.clone(), fs::read(path).expect("a file")));
                    } else if !path.ends_with("ledger") && !path.ends_with("objects.sled") {
                        folders.push(path);
                    }
                }
            }
            found.sort();
            found
        }
    }

    fn remove(path: &Path) {
        if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
            .expect("removing");
    }

    /// Puts parts of one data directory in the place of those of another.
    fn swap_in(parts: &[&str], from: &Data, to: &Data) {
        for part in parts {
            remove(&to.path(part));
            let mut copy = std::process::Command::new("cp");
            copy.arg("-a").args([from.path(part), to.path(part)]);
            assert!(copy.status().expect("cp starts").success(), "{part}");
        }
    }

    fn copy_of(data: &Data) -> Data {
        let copy = Data::new();
        for entry in fs::read_dir(data.0.path()).expect("a folder").map(|e| e.expect("an entry")) {
            let name = entry.file_name();
            let mut cp = std::process::Command::new("cp");
            cp.arg("-a").arg(entry.path()).arg(copy.0.path().join(name));
            assert!(cp.status().expect("cp starts").success());
        }
        copy
    }

    #[test]
    fn first_starts_at_once_make_one_mesh() {
        for _ in 0..5 {
            let data = Data::new();
            let roots: Vec<_> = std::thread::scope(|scope| {
                let starts = [(); 3].map(|()| {
                    scope.spawn(|| {
                        let state = data.open().expect("each in its turn");
                        state.authority.trust_bundle().borrow().clone()
                    })
                });
                starts.into_iter().map(|start| start.join().expect("no panic")).collect()
            });
            assert!(roots.iter().all(|root| *root == roots[0]), "one authority");
        }
    }

    #[test]
    fn parts_of_another_mesh_are_refused_and_left_as_they_are() {
        let table: [(&[&str], &str); 9] = [
            (&["ca"], "not the one of this data directory"),
            (&["root-cert.pem"], "not the root of the certificate authority"),
            (&["ca", "root-cert.pem"], "not the one of this data directory"),
            (&["witness"], "not the one of this data directory"),
            (&["ca", "root-cert.pem", "witness"], "the store with the journal"),
            (&["store"], "the store with the journal"),
            (&["acknowledged"], "journal"),
            (&["store", "acknowledged"], "the store with the journal"),
            (&["secrets.key"], "not the key of this data directory"),
        ];
        let (mine, other) = (Data::with(3), Data::with(2));
        for (parts, word) in table {
            let data = copy_of(&mine);
            swap_in(parts, &other, &data);
            let before = data.content();
            for _ in 0..2 {
                let error = data.refused();
                assert!(error.contains(word), "{parts:?}: {error}");
                assert!(data.content() == before, "{parts:?}: something was changed");
            }
            // The step that it names works, and holds.
            fs::write(data.path("accept-state"), "").expect("the step");
            let objects = data.objects();
            assert_eq!(data.objects(), objects, "{parts:?}");
        }
        assert_eq!(copy_of(&mine).objects(), 3);
    }

    #[test]
    fn parts_from_another_moment_are_refused() {
        let data = Data::with(1);
        let old = copy_of(&data);
        data.write(1..2);
        let state = data.open().expect("it opens");
        state.authority.revoke("aa", SystemTime::now()).expect("revoked");
        state.local.expect("no cluster").witness.write().expect("seen");
        drop(state.authority);
        for (parts, word) in [
            (&["ca"][..], "an older state"),
            (&["ca", "witness"], "an older state"),
            (&["ca", "acknowledged", "witness"], "an older state"),
            (&["store"], "ends at record 1 although record 2"),
            (&["store", "acknowledged"], "ends at record 1 although record 2"),
            (&["store", "witness"], "ends at record 1 although record 2"),
            (&["store", "acknowledged", "witness"], "ends at record 1 although record 2"),
        ] {
            let data = copy_of(&data);
            swap_in(parts, &old, &data);
            let error = data.refused();
            assert!(error.contains(word), "{parts:?}: {error}");
        }
        // An older witness asks for less, and the whole of an older directory is a backup.
        swap_in(&["witness"], &old, &data);
        assert_eq!((data.objects(), old.objects()), (2, 1));
    }

    #[test]
    fn a_copy_of_the_witness_proves_what_the_witness_itself_does() {
        let data = Data::with(1);
        let copies = ["ca/witness", "store/witness"];
        let said = |part: &str| fs::read(data.path(part)).expect("it is there");
        assert!(copies.iter().all(|copy| said(copy) == said("witness")));
        // A former version kept none.
        let former = copy_of(&data);
        copies.iter().for_each(|copy| remove(&former.path(copy)));
        assert_eq!(former.objects(), 1);
        assert!(copies.iter().all(|copy| former.path(copy).exists()));
        for copy in copies {
            let data = copy_of(&data);
            fs::write(data.path(copy), "something else").expect("damaging");
            let error = data.refused();
            assert!(error.contains(copy) && error.contains("damaged"), "{error}");
            fs::write(data.path("accept-state"), "").expect("the step");
            drop(data.open().expect("it is accepted"));
            assert_eq!(data.objects(), 1, "from then on it holds");
        }
    }

    #[test]
    fn a_full_disk_keeps_no_copy_of_the_witness_from_proving_what_it_saw() {
        let data = Data::with(1);
        // No file can be made there, whoever tries.
        fs::create_dir_all(data.path("ca/witness.new/in the way")).expect("a folder");
        let local = data.open().expect("it opens").local.expect("no cluster");
        let key = StoreKey::new("Service", "shop", "new");
        local.objects.store.put(&key, json!({}), Expect::Any, "test").expect("a write");
        let error = local.witness.write().expect_err("a file cannot be written").to_string();
        assert!(error.contains("ca/witness"), "{error}");
        drop(local);
        let said = |part: &str| fs::read(data.path(part)).expect("it is there");
        assert!(said("witness") == said("store/witness") && said("witness") != said("ca/witness"));
        assert_eq!(data.objects(), 2, "an older copy asks for less");
    }

    /// Whether some file holds these words.
    fn holds(data: &Data, words: &str) -> bool {
        let mut folders = vec![data.0.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).expect("a folder").map(|e| e.expect("an entry")) {
                let path = entry.path();
                if path.is_dir() {
                    folders.push(path);
                } else if fs::read(path)
                    .expect("a file")
                    .windows(words.len())
                    .any(|found| found == words.as_bytes())
                {
                    return true;
                }
            }
        }
        false
    }

    #[test]
    fn what_a_former_version_left_readable_of_secrets_is_sealed_once_and_for_all() {
        let data = Data::with(1);
        let key = StoreKey::new("Secret", "shop", "cert");
        let object = |n: u32| {
            json!({
                "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
                "metadata": {
                    "name": "cert", "namespace": "shop",
                    "annotations": { "copy": format!("very private {n}") },
                },
                "stringData": { "password": format!("more private {n}") },
            })
        };
        let local = data.open().expect("it opens").local.expect("no cluster");
        let put = |n: u32| {
            // It sealed the content alone.
            let mut value = local.objects.vault.seal(&key, object(n));
            value["metadata"]["annotations"] = object(n)["metadata"]["annotations"].clone();
            local.objects.store.put(&key, value, Expect::Any, "test").expect("a write")
        };
        let last = [1, 2, 3].map(put)[2];
        local.witness.write().expect("at the end");
        drop(local);
        assert!(holds(&data, "very private 1") && holds(&data, "very private 3"));
        let mut revisions = Vec::new();
        for _ in 0..2 {
            let local = data.open().expect("it opens").local.expect("no cluster");
            let entry = local.objects.store.get(&key).expect("it is there");
            revisions.push(entry.revision);
            let opened = local.objects.vault.open_object(&key, entry.value).expect("sealed");
            assert_eq!(opened, object(3));
            local.witness.write().expect("at the end");
            drop(local);
            assert!(!holds(&data, "very private") && !holds(&data, "more private"));
        }
        assert_eq!(revisions, [last + 1; 2], "it is written again once");
        assert_eq!(data.objects(), 2);
    }

    #[test]
    fn what_is_missing_is_not_made_anew() {
        let whole = Data::with(1);
        for part in
            ["admin-token", "secrets.key", "root-cert.pem", "ca/ledger", "ca", "store", "witness"]
        {
            let data = copy_of(&whole);
            remove(&data.path(part));
            for _ in 0..2 {
                let error = data.refused();
                assert!(error.contains("missing") || part == "ca", "{part}: {error}");
                let left = fs::read_dir(data.path(part)).map(Iterator::count).unwrap_or(0);
                let is_made = left > 0 && part != "store" || data.path(part).is_file();
                assert!(!is_made, "{part} was made");
            }
            fs::write(data.path("accept-state"), "").expect("the step");
            drop(data.open().expect(part));
            assert!(data.path(part).exists() && !data.path("accept-state").exists(), "{part}");
        }
    }

    #[test]
    fn a_token_that_was_given_elsewhere_is_made_when_it_is_not_any_more() {
        let data = Data::new();
        let given = data.path("given");
        fs::write(&given, "t".repeat(43)).expect("a token");
        fs::set_permissions(&given, fs::Permissions::from_mode(0o600)).expect("chmod");
        let settings = Settings { admin_token_file: Some(given.clone()), ..data.settings() };
        let state = PersistentState::open_local(&settings).expect("a first start");
        let roots = state.authority.trust_bundle().borrow().clone();
        publish_roots(&settings.root_file(), &roots, &Metrics::new()).expect("published");
        end_of_first_start(&settings).expect("ended");
        drop(state);
        assert!(!data.path("admin-token").exists());
        drop(data.open().expect("it is made"));
        remove(&data.path("admin-token"));
        data.refused();
    }

    #[test]
    fn a_directory_of_a_former_version_is_taken_over_once() {
        let (data, store) = (Data::new(), Data::with(2));
        let settings = data.settings();
        let ca = settings.authority_dir();
        let domain = AuthoritySettings::new(settings.trust_domain.clone());
        let authority = Authority::open(&ca, domain, FirstStart::Allowed, SystemTime::now())
            .expect("an authority");
        let roots = authority.trust_bundle().borrow().clone();
        publish_roots(&settings.root_file(), &roots, &Metrics::new()).expect("published");
        drop(authority);
        AdminToken::open(&settings.token_file()).expect("a token");
        Vault::open(&settings.vault_file()).expect("a key");
        fs::create_dir(data.path("store")).expect("a folder");
        for part in ["store/journal", "store/objects.sled"] {
            let mut cp = std::process::Command::new("cp");
            cp.arg("-a").args([store.path(part), data.path(part)]);
            assert!(cp.status().expect("cp starts").success());
        }
        let first_version = copy_of(&data);
        assert_eq!((data.objects(), data.objects()), (2, 2));
        assert!(data.path("witness").exists() && data.path("acknowledged").exists());
        remove(&data.path("witness"));
        remove(&data.path("acknowledged"));
        assert!(data.refused().contains("witness"), "it is of this version now");
        fs::write(first_version.path("store/journal"), "").expect("emptying");
        assert!(first_version.refused().contains("acknowledged"));
    }

    #[test]
    fn nobody_else_may_write_to_the_directory() {
        let data = Data::with(0);
        fs::set_permissions(data.0.path(), fs::Permissions::from_mode(0o777)).expect("chmod");
        drop(data.open().expect("it opens"));
        let mode = fs::metadata(data.0.path()).expect("it is there").mode() & 0o777;
        assert_eq!(mode, 0o755, "{mode:o}");
    }

    #[test]
    fn what_stands_in_the_place_of_the_word_is_refused() {
        let data = Data::with(0);
        fs::create_dir(data.path("accept-state")).expect("a directory");
        let error = data.open().map(|_| ()).expect_err("refused");
        assert!(error.contains("accept-state") && error.contains("remove it"), "{error}");
        assert!(!error.contains("touch"), "{error}");
    }
}
