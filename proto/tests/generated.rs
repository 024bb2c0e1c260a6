//! The committed code is what the `.proto` files generate; `UPDATE_GENERATED=1` rewrites it.

use std::{fs, path::Path};

#[test]
#[allow(clippy::disallowed_methods, reason = "a test reads its own switch")]
fn generated_code_is_fresh() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = [
        "discovery.proto",
        "secret.proto",
        "sds.proto",
        "ecds.proto",
        "istio_ca.proto",
        "accesslog_entry.proto",
        "accesslog.proto",
    ];
    let descriptors =
        protox::compile(files, [root.join("proto")]).expect("our .proto files compile");
    let out = tempfile::tempdir().expect("a temporary directory");
    tonic_prost_build::configure()
        .bytes(".envoy.service.discovery.v3.Any")
        .bytes(".envoy.extensions.transport_sockets.tls.v3")
        .out_dir(out.path())
        .compile_fds(descriptors)
        .expect("code generation");
    let committed = root.join("src/generated");
    let update = std::env::var_os("UPDATE_GENERATED").is_some();
    for entry in fs::read_dir(out.path()).expect("generated files") {
        let entry = entry.expect("a directory entry");
        let fresh = fs::read_to_string(entry.path()).expect("generated code is text");
        let kept = committed.join(entry.file_name());
        if update {
            fs::create_dir_all(&committed).expect("the folder of generated code");
            fs::write(&kept, &fresh).expect("writing generated code");
        }
        let old = fs::read_to_string(&kept).unwrap_or_default();
        assert!(old == fresh, "{} is stale: run with UPDATE_GENERATED=1", kept.display());
    }
}
