//! Pulling from a registry that a test plays.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    extract::{Request, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use tokio::net::TcpListener;

use super::*;

const MODULE: &[u8] = b"\0asm\x01\0\0\0";

/// What a registry has by path, whether it wants a token, and what it was asked.
#[derive(Clone, Default)]
struct Site {
    content: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
    asked: Arc<Mutex<Vec<String>>>,
    wants_token: bool,
}

async fn answer(State(site): State<Site>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    site.asked.lock().unwrap().push(path.clone());
    let shown =
        request.headers().get(header::AUTHORIZATION).map(|v| v.to_str().unwrap().to_owned());
    let host = request.headers()[header::HOST].to_str().unwrap().to_owned();
    if path == "/token" {
        let query = request.uri().query().unwrap_or_default().to_owned();
        assert_eq!(query, "service=here&scope=repository:team/tea:pull");
        return r#"{"token": "let-me-in"}"#.into_response();
    }
    if site.wants_token && shown.as_deref() != Some("Bearer let-me-in") {
        let asks = format!(r#"Bearer realm="http://{host}/token",service="here""#);
        return (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, asks)]).into_response();
    }
    match site.content.lock().unwrap().get(&path).cloned() {
        Some(moved) if moved.starts_with(b"/v2/") => {
            let to = String::from_utf8(moved).unwrap();
            (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, to)]).into_response()
        }
        Some(content) => content.into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

struct Fixture {
    site: Site,
    images: Images,
    registry: String,
    _dir: tempfile::TempDir,
}

impl Fixture {
    async fn start(wants_token: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let registry = listener.local_addr().unwrap().to_string();
        let site = Site { wants_token, ..Site::default() };
        let router = Router::new().fallback(answer).with_state(site.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        let dir = tempfile::tempdir().unwrap();
        let network = Network::new([registry.clone()].into());
        let images = Images::new(dir.path().join("modules"), network);
        Self { site, images, registry, _dir: dir }
    }

    fn put(&self, path: &str, content: impl Into<Vec<u8>>) {
        let path = format!("/v2/team/tea/{path}");
        self.site.content.lock().unwrap().insert(path, content.into());
    }

    /// Puts an image of one layer, and returns the digest of its manifest.
    fn image(&self, tag: &str, kind: &str, layer: &[u8]) -> String {
        let (digest, size) = (sha256(layer), layer.len());
        let manifest = format!(
            r#"{{"layers": [{{"mediaType": "{kind}", "digest": "sha256:{digest}", "size": {size}}}]}}"#
        );
        self.put(&format!("blobs/sha256:{digest}"), layer);
        self.put(&format!("manifests/{tag}"), manifest.clone());
        self.put(&format!("manifests/sha256:{}", sha256(manifest.as_bytes())), manifest.clone());
        sha256(manifest.as_bytes())
    }

    async fn pull(&self, version: &str, digest: &str) -> Result<Vec<u8>, String> {
        let url = format!("oci://{}/team/tea{version}", self.registry);
        let wanted = Wanted::parse(&url, digest)?;
        let secret = wanted.secret.as_deref().map(secret);
        let path = self.images.module(&wanted, secret).await?;
        Ok(fs::read(path).unwrap())
    }

    fn asked(&self) -> usize {
        std::mem::take(&mut *self.site.asked.lock().unwrap()).len()
    }
}

/// No secret is there but one, whose registry is nobody's.
async fn secret(name: &str) -> Result<Bytes, String> {
    match name {
        "shop/pull" => Ok(Bytes::from_static(br#"{"auths": {"a.test": {"auth": "dTpw"}}}"#)),
        _ => Err(format!("{name} is not to be had")),
    }
}

const WASM: &str = "application/vnd.module.wasm.content.layer.v1+wasm";
const ARCHIVE: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

#[tokio::test]
async fn both_forms_of_images_are_pulled_once() {
    let fixture = Fixture::start(false).await;
    fixture.image("v1", WASM, MODULE);
    assert_eq!(fixture.pull(":v1", "").await.unwrap(), MODULE);
    assert_eq!(fixture.asked(), 2);
    assert_eq!(fixture.pull(":v1", "").await.unwrap(), MODULE);
    assert_eq!(fixture.asked(), 0, "it is here");
    assert_eq!(fixture.pull(":v1?pull=always", "").await.unwrap(), MODULE);
    assert_eq!(fixture.asked(), 1, "what the tag stands for is here");

    let second = [MODULE, b"second"].concat();
    let packed = layer::tests::archive(&[("plugin.wasm", &second)]);
    let digest = fixture.image("v1", ARCHIVE, &packed);
    assert_eq!(fixture.pull(":v1", "").await.unwrap(), MODULE, "the former is enough");
    assert_eq!(fixture.pull(":v1?pull=always", "").await.unwrap(), second);
    assert_eq!(fixture.pull(&format!("@sha256:{digest}"), "").await.unwrap(), second);
    fixture.asked();
    assert_eq!(fixture.pull(":v1", &digest).await.unwrap(), second);
    assert_eq!(fixture.asked(), 0);
}

#[tokio::test]
async fn a_list_and_a_redirect_lead_to_the_module() {
    let fixture = Fixture::start(true).await;
    let digest = fixture.image("one", WASM, MODULE);
    let list = format!(r#"{{"manifests": [{{"digest": "sha256:{digest}", "size": 1}}]}}"#);
    fixture.put("manifests/v1", list);
    let blob = format!("blobs/sha256:{}", sha256(MODULE));
    fixture.put(&blob, "/v2/team/tea/elsewhere");
    fixture.put("elsewhere", MODULE);
    assert_eq!(fixture.pull(":v1", &digest).await.unwrap(), MODULE);
    let error = fixture.pull(":v1?pull=always&secret=shop/none", "").await.unwrap_err();
    assert!(error.contains("shop/none is not to be had"), "{error}");
    assert_eq!(fixture.pull(":v1?pull=always&secret=shop/pull", "").await.unwrap(), MODULE);
}

#[tokio::test]
async fn what_is_not_what_it_should_be_is_not_kept() {
    let fixture = Fixture::start(false).await;
    let digest = fixture.image("v1", WASM, MODULE);
    let other = "0".repeat(64);
    fixture.put(&format!("manifests/sha256:{other}"), "{}");
    let text = fixture.image("text", WASM, b"text");
    for (version, expected, why) in [
        (":v2", "", "404"),
        (":v1", &*other, "not sha256:0000"),
        (&format!("@sha256:{other}"), "", "the registry sent"),
        (&format!("@sha256:{text}"), "", "no WebAssembly module"),
    ] {
        let error = fixture.pull(version, expected).await.unwrap_err();
        assert!(error.contains(why), "{version}: {error}");
    }
    fixture.put(&format!("blobs/sha256:{}", sha256(MODULE)), "other bytes");
    let error = fixture.pull(&format!("@sha256:{digest}"), "").await.unwrap_err();
    assert!(error.contains("other bytes"), "{error}");
    assert!(fixture.images.find(&digest).is_none());
}

#[tokio::test]
async fn a_file_that_was_changed_is_pulled_again() {
    let fixture = Fixture::start(false).await;
    let digest = fixture.image("v1", WASM, MODULE);
    fixture.pull(":v1", "").await.unwrap();
    fs::write(fixture.images.find(&digest).unwrap(), "else").unwrap();
    fixture.asked();
    assert_eq!(fixture.pull(":v1", "").await.unwrap(), MODULE);
    assert_eq!(fixture.asked(), 2);
}

#[tokio::test]
async fn a_registry_that_is_not_listed_is_asked_by_tls_and_not_on_this_machine() {
    let fixture = Fixture::start(false).await;
    let dir = tempfile::tempdir().unwrap();
    let images = Images::new(dir.path().into(), Network::new(Default::default()));
    let url = format!("oci://{}/team/tea:v1", fixture.registry);
    let nobody = None::<std::future::Ready<Result<Bytes, String>>>;
    let error = images.module(&Wanted::parse(&url, "").unwrap(), nobody).await.unwrap_err();
    assert!(error.contains("not called at"), "{error}");
    assert_eq!(fixture.asked(), 0);
}
