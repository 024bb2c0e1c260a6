//! What `integration/dist.sh` makes of a version: the same bytes each time, with true checksums, and
//! a package from which a control plane and a proxy start as it has them.
#![cfg(feature = "e2e")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use ferromesh_integration::{paths, process::Process};
use serde_json::Value;

/// Runs a program; what it printed.
fn run(program: &str, arguments: &[&str], folder: &Path) -> String {
    let output = Command::new(program).args(arguments).current_dir(folder).output();
    let output = output.unwrap_or_else(|e| panic!("{program}: {e}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Makes everything in a folder.
fn make(folder: &Path) {
    let programs = paths::program("ferromesh");
    let mut command = Command::new("bash");
    command.arg(paths::project().join("integration/dist.sh")).arg(folder);
    command.env("FERROMESH_BIN", programs.parent().expect("programs are in a folder"));
    let output = command.output().expect("bash runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry"));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

fn ending<'a>(files: &'a [PathBuf], end: &str) -> &'a str {
    let found = files.iter().find(|path| path.to_string_lossy().ends_with(end));
    found.and_then(|path| path.to_str()).unwrap_or_else(|| panic!("no {end} among {files:?}"))
}

#[test]
fn a_version_is_packed_the_same_each_time_and_starts_from_its_package() {
    let work = tempfile::tempdir().expect("a folder");
    let (first, second) = (work.path().join("first"), work.path().join("second"));
    std::thread::scope(|scope| {
        scope.spawn(|| make(&first));
        make(&second);
    });
    let made = files(&first);
    assert_eq!(made.len(), 4, "{made:?}");
    for path in &made {
        let other = second.join(path.file_name().expect("a name"));
        let same = fs::read(path).expect("a file") == fs::read(&other).expect("a file");
        assert!(same, "{} is another each time", path.display());
    }
    run("sha256sum", &["--check", "--strict", "SHA256SUMS"], &first);
    check_parts(Path::new(ending(&made, ".cdx.json")));

    let root = work.path().join("root");
    let package = ending(&made, ".deb");
    run("dpkg-deb", &["--extract", package, root.to_str().expect("UTF-8")], work.path());
    check_archive(ending(&made, ".tar.gz"), &root, work.path());
    let kept = run("dpkg-deb", &["--info", package, "conffiles"], work.path());
    assert!(kept.contains("/etc/ferromesh/serve.yaml"), "{kept}");
    check_units(&root);
    check_pages(&root);
    start_from(&root, work.path());
}

/// Every crate of the programs is named once, with its hash; what only tests need is not.
fn check_parts(file: &Path) {
    let parts: Value = serde_json::from_slice(&fs::read(file).expect("a file")).expect("JSON");
    assert_eq!((&parts["bomFormat"], &parts["specVersion"]), (&"CycloneDX".into(), &"1.5".into()));
    let components = parts["components"].as_array().expect("components");
    let names: Vec<&str> = components.iter().filter_map(|part| part["purl"].as_str()).collect();
    let unique: BTreeSet<&&str> = names.iter().collect();
    assert_eq!(names.len(), unique.len(), "each once");
    let has = |start: &str| names.iter().any(|name| name.starts_with(start));
    assert!(has("pkg:cargo/rustls@") && has("pkg:cargo/ferromesh-proto@"), "{names:?}");
    assert!(!has("pkg:cargo/proptest@"), "{names:?}");
    for part in components.iter().filter(|part| !part["name"].to_string().contains("ferromesh")) {
        assert_eq!(part["hashes"][0]["content"].as_str().map(str::len), Some(64), "{part}");
        assert!(part["licenses"][0]["expression"].is_string(), "{part}");
    }
}

/// The archive holds what the package holds.
fn check_archive(archive: &str, root: &Path, work: &Path) {
    let listed = run("tar", &["--list", "--gzip", "--file", archive], work);
    let below = |line: &str| line.split_once('/').map(|(_, path)| path.to_owned());
    let is_file = |path: &String| !path.is_empty() && !path.ends_with('/');
    let archived: BTreeSet<String> = listed.lines().filter_map(below).filter(is_file).collect();
    let found = run("find", &[".", "-type", "f"], root);
    let packed: BTreeSet<String> =
        found.lines().map(|line| line.trim_start_matches("./").to_owned()).collect();
    assert_eq!(archived, packed);
}

/// The units leave services next to nothing to misuse.
fn check_units(root: &Path) {
    for unit in ["ferromesh.service", "ferromesh-proxy@.service"] {
        let path = root.join("usr/lib/systemd/system").join(unit);
        let path = path.to_str().expect("UTF-8");
        run("systemd-analyze", &["security", "--offline=true", "--threshold=20", path], root);
    }
}

fn check_pages(root: &Path) {
    for page in ["ferromesh", "ferromesh-serve", "ferromesh-workload-add", "ferromesh-proxy-run"] {
        let path = root.join(format!("usr/share/man/man1/{page}.1.gz"));
        let text = run("gzip", &["-dc", path.to_str().expect("UTF-8")], root);
        assert!(text.contains(".SH NAME") && text.contains(page), "{page}: {text}");
    }
    let completions = root.join("usr/share/bash-completion/completions/ferromesh");
    let script = format!(
        "source '{}'; COMP_WORDS=(ferromesh work); COMP_CWORD=1; _ferromesh ferromesh work \
         ferromesh; echo \"${{COMPREPLY[@]}}\"",
        completions.display()
    );
    assert_eq!(run("bash", &["-c", &script], root).trim(), "workload");
}

/// What is published is static and needs nothing; programs of a developer's build are not.
fn bring_libraries(root: &Path) {
    let output = Command::new("ldd").arg(root.join("usr/bin/ferromesh")).output();
    let said = String::from_utf8_lossy(&output.expect("ldd runs").stdout).into_owned();
    for library in said.split_whitespace().filter(|word| word.starts_with('/')) {
        let place = root.join(library.trim_start_matches('/'));
        fs::create_dir_all(place.parent().expect("a folder")).expect("a folder");
        fs::copy(library, place).expect("a library");
    }
}

/// Starts control plane and proxy with the files of the package as they are, in a root of their own
/// and a network of their own. Static programs draw random numbers from devices alone.
fn start_from(root: &Path, work: &Path) {
    let script = "
trap 'trap - TERM; wait; exit' TERM
ip link set lo up
mkdir -p \"$0/dev\"
for device in random urandom; do
  : > \"$0/dev/$device\"
  mount --bind /dev/$device \"$0/dev/$device\"
done
within() { chroot \"$0\" \"$@\"; }
within /usr/bin/ferromesh serve --settings /etc/ferromesh/serve.yaml &
export FERROMESH_TOKEN_FILE=/var/lib/ferromesh/admin-token
within /usr/bin/ferromesh token create --wait 60s -n default -s cart --single-use > \"$0/cart.token\"
within /usr/bin/ferromesh check
while read -r line; do case $line in FERROMESH_*) export \"$line\" ;; esac; done < \"$0/etc/ferromesh/proxy/example.env\"
export FERROMESH_ROOT_CERT=/var/lib/ferromesh/root-cert.pem FERROMESH_TOKEN_FILE=/cart.token FERROMESH_NAME=cart-1
export FERROMESH_WORK_DIR=/var/lib/ferromesh-proxy/cart-1
within /usr/bin/ferromesh-proxy run &
curl -fsS --retry 60 --retry-delay 1 --retry-all-errors http://127.0.0.1:15021/healthz/ready
test -f \"$0/var/lib/ferromesh-proxy/cart-1/identity.json\"
echo it works
wait
";
    fs::create_dir_all(root.join("var/lib")).expect("a folder");
    bring_libraries(root);
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount", "bash", "-ec", script]).arg(root);
    let mut shell = Process::start("package", work, command);
    let log = work.join("package.log");
    shell.until("started from the package", || {
        fs::read_to_string(&log).is_ok_and(|said| said.contains("it works"))
    });
}
