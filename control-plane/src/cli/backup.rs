//! `ferromesh backup` and `ferromesh restore`: what a control plane keeps on this machine, under a
//! passphrase.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use ferromesh_cert_authority::files;
use zeroize::Zeroizing;

use super::print::print;
use crate::backup::{self, Copied, sealed};

/// More of a file with a passphrase is not read.
const LARGEST_PASSPHRASE: u64 = 4 << 10;
/// More of a backup is not read.
const LARGEST_BACKUP: u64 = 16 << 30;

/// Where state is kept, and what it is sealed with.
#[derive(Args, Debug)]
struct Kept {
    /// Folder in which the control plane keeps its state
    #[arg(long, value_name = "DIR", env = "FERROMESH_DATA_DIR", default_value = "ferromesh-data")]
    data_dir: PathBuf,
    /// File with the passphrase, in one line; `/dev/stdin` reads it from a pipe
    #[arg(long, value_name = "FILE")]
    passphrase_file: PathBuf,
}

/// `ferromesh backup`.
#[derive(Args, Debug)]
#[command(after_help = "Whoever has the file and the passphrase has the mesh's keys.

Examples:
  ferromesh backup mesh.backup --passphrase-file passphrase
  pass mesh | ferromesh backup mesh.backup --data-dir /var/lib/ferromesh --passphrase-file /dev/stdin")]
pub(super) struct Backup {
    /// The file to write, which must not be there yet
    file: PathBuf,
    #[command(flatten)]
    kept: Kept,
}

/// `ferromesh restore`.
#[derive(Args, Debug)]
#[command(after_help = "Example:
  ferromesh restore mesh.backup --data-dir /var/lib/ferromesh --passphrase-file passphrase")]
pub(super) struct Restore {
    /// The file that `ferromesh backup` wrote
    file: PathBuf,
    #[command(flatten)]
    kept: Kept,
}

/// Writes a backup.
///
/// # Errors
/// There is nothing to copy, or it cannot be written.
pub(super) fn back_up(command: &Backup) -> anyhow::Result<()> {
    let Backup { file, kept } = command;
    let passphrase = passphrase(&kept.passphrase_file)?;
    let copied = backup::read(&kept.data_dir)?;
    let sealed = sealed::seal(&passphrase, copied.encode());
    files::create(file, 0o600, &sealed)
        .and_then(|()| files::sync_parent(file))
        .with_context(|| format!("cannot write {}, which must not be there yet", file.display()))?;
    print(&format!(
        "{} files of {} are in {} ({} bytes); the list of past certificates is not",
        copied.count(),
        kept.data_dir.display(),
        file.display(),
        sealed.len()
    ));
    Ok(())
}

/// Puts a backup back.
///
/// # Errors
/// It cannot be opened, or not be put there.
pub(super) fn restore(command: &Restore) -> anyhow::Result<()> {
    let Restore { file, kept } = command;
    let passphrase = passphrase(&kept.passphrase_file)?;
    let named = || file.display().to_string();
    let sealed = files::open_linked(file, std::fs::OpenOptions::new().read(true))
        .and_then(|opened| files::read_opened(opened, LARGEST_BACKUP))
        .with_context(|| format!("reading {}", file.display()))?;
    let opened = sealed::open(&passphrase, &sealed).with_context(named)?;
    let copied = Copied::decode(&opened).with_context(named)?;
    copied.put_back(&kept.data_dir)?;
    let data = kept.data_dir.display();
    print(&format!(
        "{} files are in {data}; start with `ferromesh serve --data-dir {data}`, while no other control plane goes on with \
         this state.\nWhat was revoked, and which join tokens of a single use were used, since the backup was made is not known \
         there: revoke again what has to be.",
        copied.count()
    ));
    Ok(())
}

fn passphrase(file: &Path) -> anyhow::Result<Zeroizing<String>> {
    let text = files::read_named(file, LARGEST_PASSPHRASE)
        .map(Zeroizing::new)
        .with_context(|| format!("reading {}", file.display()))?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.chars().count() < sealed::SHORTEST {
        bail!(
            "{}: expected a passphrase of at least {} characters, since whoever guesses it has the mesh's keys",
            file.display(),
            sealed::SHORTEST
        );
    }
    if line.contains('\n') {
        bail!("{}: expected a passphrase in one line", file.display());
    }
    Ok(Zeroizing::new(line.to_owned()))
}
