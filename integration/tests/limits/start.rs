//! What stands in the way of a start, and damage to what was stored.

use std::{
    fs,
    net::TcpListener,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use ferromesh_integration::{paths, plane::ControlPlane, process::Process};
use nix::sys::signal::Signal;

use crate::{
    plane::{cluster_of, put_host},
    watcher::{Watcher, connect},
};

const STORED: usize = 12;

/// Stops a control plane as an operator does.
fn stop(mut process: Process) {
    process.signal(Signal::SIGTERM);
    let status = process.ended(Duration::from_secs(15));
    assert_eq!(status.and_then(|s| s.code()), Some(0), "{}", process.output());
}

/// A control plane that stored some objects and was stopped.
async fn stopped(host: &'static str) -> ControlPlane {
    let plane = ControlPlane::new(host);
    let process = plane.start();
    for i in 0..STORED {
        let answer = put_host(&plane, &format!("kept-{i}")).await;
        assert_eq!(answer.status, 201, "{}", answer.text);
    }
    stop(process);
    plane
}

/// Starts it again: everything is there, and served.
async fn has_everything(plane: &ControlPlane) -> Process {
    let process = plane.start();
    let mut watcher = Watcher::open(connect(&plane.host).await, "watcher").await.expect("a stream");
    for i in 0..STORED {
        let answer = plane
            .ask("GET", &format!("/api/v1/objects/serviceentries/default/kept-{i}"), &[], None)
            .await;
        assert_eq!(answer.status, 200, "kept-{i}: {}", answer.text);
        watcher.until_has(&cluster_of(&format!("kept-{i}")), Duration::from_secs(20)).await;
    }
    process
}

/// Every file below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder").map(|e| e.expect("an entry").path()) {
        if entry.is_dir() { found.extend(files(&entry)) } else { found.push(entry) }
    }
    found
}

#[test]
fn a_port_in_use_is_named_with_its_option() {
    let plane = ControlPlane::new("127.80.3.1");
    for (port, option) in
        [(15010, "--xds-address"), (15012, "--xds-tls-address"), (8080, "--http-address")]
    {
        let _taken = TcpListener::bind((plane.host.as_str(), port)).expect("a free port");
        let line = plane.refused(plane.command());
        assert!(line.contains(&plane.address(port)) && line.contains(option), "{line}");
        assert!(!plane.path("data").exists(), "something was made although nothing could start");
    }
}

#[test]
fn an_unusable_setting_or_directory_is_named() {
    let plane = ControlPlane::new("127.80.4.1");
    fs::write(plane.path("file"), "").expect("a file");
    let with = |arguments: &[&str]| {
        let mut command = plane.serve();
        command.args(arguments);
        plane.refused(command)
    };
    let below_a_file = plane.path("file/data").display().to_string();
    let data = plane.path("data").display().to_string();
    let nowhere = plane.path("nowhere").display().to_string();
    let table: [(&[&str], &[&str]); 6] = [
        (&["--data-dir", &below_a_file], &[&below_a_file, "--data-dir"]),
        (&["--data-dir", &data, "--config", &nowhere], &[&nowhere, "--config"]),
        (&["--data-dir", &data, "--leaf-ttl", "soon"], &["--leaf-ttl", "soon"]),
        (&["--data-dir", &data, "--settings", &nowhere], &[&nowhere]),
        (&["--data-dir", &data, "--api-users", &nowhere], &[&nowhere, "the file of users"]),
        (&["--data-dir", &data, "--proxy-grace", "0s"], &["--proxy-grace", "1s to 87600h"]),
    ];
    for (arguments, words) in table {
        let line = with(arguments);
        assert!(words.iter().all(|word| line.contains(word)), "{arguments:?}: {line}");
    }
    assert!(!plane.path("data").exists(), "something was made although nothing could start");
}

#[test]
fn without_permission_the_directory_and_the_way_out_are_named() {
    const NOBODY: u32 = 65_534;
    let plane = ControlPlane::new("127.80.5.1");
    // Where another user can run it, whatever the rights of the build's folder.
    let program = plane.path("ferromesh");
    fs::copy(paths::program("ferromesh"), &program).expect("a copy");
    fs::set_permissions(plane.folder(), fs::Permissions::from_mode(0o755)).expect("chmod");
    fs::create_dir(plane.path("data")).expect("a directory");
    let mut command = Command::new(&program);
    command.args(plane.command().get_args()).uid(NOBODY).gid(NOBODY);
    let line = plane.refused(command);
    assert!(line.contains("data") && line.to_lowercase().contains("permission denied"), "{line}");
    assert!(files(&plane.path("data")).is_empty());
}

#[tokio::test]
async fn a_damaged_store_is_rebuilt_and_said_so() {
    let plane = stopped("127.80.6.1").await;
    let database = plane.path("data/store/objects.sled");
    type Damage = (&'static str, fn(&Path));
    let damages: [Damage; 3] = [
        ("cut in half", |database| {
            for file in files(database) {
                let bytes = fs::read(&file).expect("reading");
                fs::write(&file, &bytes[..bytes.len() / 2]).expect("cutting");
            }
        }),
        ("flipped bytes", |database| {
            for file in files(database) {
                let mut bytes = fs::read(&file).expect("reading");
                bytes.iter_mut().step_by(101).for_each(|b| *b ^= 0x5a);
                fs::write(&file, &bytes).expect("damaging");
            }
        }),
        ("deleted", |database| fs::remove_dir_all(database).expect("removing")),
    ];
    for (what, damage) in damages {
        damage(&database);
        let process = has_everything(&plane).await;
        assert!(
            process.output().contains("rebuilt from the journal"),
            "{what}: {}",
            process.output()
        );
        stop(process);
    }
}

#[tokio::test]
async fn a_damaged_journal_is_refused_with_the_step_that_restores_it() {
    let plane = stopped("127.80.7.1").await;
    let (data, kept) = (plane.path("data"), plane.path("kept"));
    copy(&data, &kept);
    let journal = plane.path("data/store/journal");
    let good = fs::read(&journal).expect("the journal");
    let mut bad = good.clone();
    let middle = good.len() / 2;
    bad[middle] ^= 0x20;
    fs::write(&journal, &bad).expect("damaging");
    for _ in 0..2 {
        let line = plane.refused(plane.command());
        assert!(
            line.contains(&journal.display().to_string())
                && line.contains("restore the whole data directory from a backup"),
            "{line}"
        );
        assert_eq!(
            fs::read(&journal).expect("the journal"),
            bad,
            "a refused start changed the journal"
        );
    }
    // The step that it names works: what was before the damage is served again.
    let line = plane.refused(plane.command());
    let step = line.split("run: ").nth(1).expect("a command");
    assert!(Command::new("sh").args(["-c", step]).status().expect("a shell").success(), "{step}");
    let process = plane.start();
    let first = plane.ask("GET", "/api/v1/objects/serviceentries/default/kept-0", &[], None).await;
    assert_eq!(first.status, 200, "{}", first.text);
    stop(process);
    // And so does the backup.
    fs::remove_dir_all(&data).expect("removing");
    copy(&kept, &data);
    stop(has_everything(&plane).await);
}

/// Copies a folder.
fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status().expect("cp starts");
    assert!(copied.success());
}

#[tokio::test]
async fn what_is_lost_beside_other_state_is_refused_and_a_restored_folder_serves() {
    let plane = stopped("127.80.14.1").await;
    let (data, kept) = (plane.path("data"), plane.path("kept"));
    copy(&data, &kept);
    let root = fs::read(data.join("root-cert.pem")).expect("the root");
    let table: [(&str, &str); 20] = [
        ("rm -r store", "journal"),
        ("rm -r store; mkdir store", "journal"),
        ("rm -r store/journal store/objects.sled", "journal"),
        (": > store/journal; : > store/objects.sled/db", "acknowledged"),
        (
            "rm store/journal; ln -s nowhere store/journal; rm -r store/objects.sled",
            "no regular file",
        ),
        ("rm -r ca store", "certificate authority"),
        ("rm -r ca store admin-token secrets.key", "certificate authority"),
        ("rm -r ca; rm -r store/*", "certificate authority"),
        (
            "head -n -5 store/journal > j; mv j store/journal; rm -r store/objects.sled",
            "acknowledged",
        ),
        ("rm store/lock; mkfifo store/lock", "no regular file"),
        ("rm store/lock; ln -s journal store/lock", "no regular file"),
        ("rm ca/key; mkfifo -m 600 ca/key", "no regular file"),
        ("rm admin-token; mkfifo -m 600 admin-token", "no regular file"),
        ("rm secrets.key; mkdir secrets.key", "no regular file"),
        ("rm admin-token", "admin-token"),
        ("rm secrets.key", "secrets.key"),
        ("rm -r ca/ledger", "ledger"),
        ("rm witness", "witness"),
        ("echo something else > witness", "witness"),
        ("rm acknowledged; rm -r store/objects.sled", "acknowledged"),
    ];
    for (damage, word) in table {
        let damaged = Command::new("sh").current_dir(&data).args(["-c", damage]).status();
        assert!(damaged.expect("a shell").success(), "{damage}");
        for _ in 0..2 {
            let line = plane.refused(plane.command());
            assert!(line.contains(word) && line.contains("restore"), "{damage}: {line}");
        }
        assert_eq!(fs::read(data.join("root-cert.pem")).expect("the root"), root, "{damage}");
        fs::remove_dir_all(&data).expect("removing");
        copy(&kept, &data);
    }
    stop(has_everything(&plane).await);
}

#[tokio::test]
async fn roots_that_are_not_the_authoritys_are_refused_and_not_written_again() {
    let plane = stopped("127.80.15.1").await;
    let (journal, roots) = (plane.path("data/store/journal"), plane.path("data/root-cert.pem"));
    let kept = fs::read(&journal).expect("the journal");
    std::os::unix::fs::symlink("store/journal", plane.path("data/root-cert.pem.new"))
        .expect("a link");
    for damage in [Some("something else"), None] {
        match damage {
            Some(text) => fs::write(&roots, text).expect("damaging"),
            None => fs::remove_file(&roots).expect("removing"),
        }
        for _ in 0..2 {
            let line = plane.refused(plane.command());
            assert!(line.contains("root-cert.pem") && line.contains("restore"), "{line}");
            assert_eq!(fs::read_to_string(&roots).ok().as_deref(), damage, "it was written");
        }
        fs::write(plane.path("data/accept-state"), "").expect("the step");
        stop(has_everything(&plane).await);
        assert_eq!(fs::read(&journal).expect("the journal"), kept, "written through a link");
    }
    let written = || fs::metadata(&roots).expect("it is there").modified();
    let before = written().expect("a time");
    stop(has_everything(&plane).await);
    assert_eq!(written().expect("a time"), before);
}

#[tokio::test]
async fn parts_of_another_mesh_or_moment_are_refused() {
    let (plane, other) = (stopped("127.80.16.1").await, ControlPlane::new("127.80.16.2"));
    stop(other.start());
    let (data, old, kept) = (plane.path("data"), plane.path("old"), plane.path("kept"));
    copy(&data, &old);
    let process = plane.start();
    assert_eq!(put_host(&plane, "two").await.status, 201);
    stop(process);
    copy(&data, &kept);
    let table: [(&Path, &[&str], &str); 4] = [
        (&other.path("data"), &["ca"], "certificate authority"),
        (&other.path("data"), &["store"], "store"),
        (&old, &["store"], "acknowledged"),
        (&old, &["store", "acknowledged"], "witness"),
    ];
    let root = fs::read(data.join("root-cert.pem")).expect("the root");
    for (from, parts, word) in table {
        for part in parts {
            let new = data.join(part);
            if new.is_dir() { fs::remove_dir_all(&new) } else { fs::remove_file(&new) }
                .expect("removing");
            copy(&from.join(part), &new);
        }
        for _ in 0..2 {
            let line = plane.refused(plane.command());
            assert!(line.contains(word) && line.contains("restore"), "{parts:?}: {line}");
        }
        assert_eq!(fs::read(data.join("root-cert.pem")).expect("the root"), root, "{parts:?}");
        fs::remove_dir_all(&data).expect("removing");
        copy(&kept, &data);
    }
    stop(has_everything(&plane).await);
}

#[tokio::test]
async fn no_new_root_is_minted_over_an_old_one() {
    let plane = stopped("127.80.8.1").await;
    let authority = plane.path("data/ca");
    let kept = plane.path("ca-backup");
    fs::rename(&authority, &kept).expect("moving");
    for _ in 0..2 {
        let line = plane.refused(plane.command());
        assert!(
            line.contains("restore") && line.contains(&authority.display().to_string()),
            "{line}"
        );
        assert!(!authority.exists() || files(&authority).is_empty(), "a root was made");
    }
    if authority.exists() {
        fs::remove_dir_all(&authority).expect("removing");
    }
    fs::rename(&kept, &authority).expect("moving back");
    let root = fs::read(plane.path("data/root-cert.pem")).expect("the root");
    stop(has_everything(&plane).await);
    assert_eq!(fs::read(plane.path("data/root-cert.pem")).expect("the root"), root);
}

/// A small disk of its own for the data.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: PathBuf) -> Self {
        fs::create_dir(&at).expect("a directory");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=48m", "tmpfs"]).arg(&at);
        assert!(mount.status().expect("mount starts").success(), "mounting needs root");
        Self(at)
    }

    fn fill(&self) {
        let mut size = 16 << 20;
        let mut count = 0;
        while size > 0 {
            let file = self.0.join(format!("filler-{count}"));
            count += 1;
            if fs::write(file, vec![0; size]).is_err() {
                size /= 2;
            }
        }
    }

    fn empty(&self) {
        for file in fs::read_dir(&self.0).expect("the disk").map(|e| e.expect("an entry").path()) {
            if file.file_name().is_some_and(|n| n.to_string_lossy().starts_with("filler")) {
                fs::remove_file(file).expect("removing");
            }
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test]
async fn a_full_disk_refuses_writes_and_keeps_serving() {
    let plane = ControlPlane::new("127.80.9.1");
    let disk = SmallDisk::mount(plane.path("data"));
    let process = plane.start();
    let mut watcher = Watcher::open(connect(&plane.host).await, "watcher").await.expect("a stream");
    assert_eq!(put_host(&plane, "kept-0").await.status, 201);
    disk.fill();
    let (mut last, mut accepted) = (put_host(&plane, "more-0").await, 0);
    // The journal's last block may have room for some more.
    while last.status == 201 && accepted < 1000 {
        accepted += 1;
        last = put_host(&plane, &format!("more-{accepted}")).await;
    }
    assert_eq!(last.status, 507, "{}", last.text);
    assert!(last.text.contains("free some space"), "{}", last.text);
    has_exactly(&plane, accepted).await;
    watcher.until_has(&cluster_of("kept-0"), Duration::from_secs(20)).await;

    disk.empty();
    for i in 1..STORED {
        let answer = put_host(&plane, &format!("kept-{i}")).await;
        assert_eq!(answer.status, 201, "{}", answer.text);
    }
    drop(process);
    let process = has_everything(&plane).await;
    has_exactly(&plane, accepted).await;
    stop(process);
}

/// Of `more-0`, `more-1`, … the first `accepted` are stored, and the next is not.
async fn has_exactly(plane: &ControlPlane, accepted: usize) {
    for i in 0..=accepted {
        let answer = plane
            .ask("GET", &format!("/api/v1/objects/serviceentries/default/more-{i}"), &[], None)
            .await;
        assert_eq!(
            answer.status,
            if i < accepted { 200 } else { 404 },
            "more-{i} of {accepted}: {}",
            answer.text
        );
    }
}
