//! HTTP filters in their phases, by a filter that does what a test says.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use bytes::Bytes;
use h2::Reason;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::Full;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Notify,
};

use super::{
    blame::{at_once, is_ejected, outcome, until},
    fixture::*,
    peer::{Server, client, get, send},
};
use crate::runtime::{
    HttpFilter, Rbac,
    access_log::AccessLog,
    authz::{Condition, Policy, RbacAction},
    filter::{Answer, Call, CallFailure, FilterState, Payload, Step, notes::Notes, probe::Probe},
    flags::Flags,
    format::{Field, FormatOp},
    matcher::StringMatcher,
    metadata::{MetadataMatcher, Value, ValueMatcher},
};

/// A call of the cluster `oracle`.
fn call(path: &str) -> Step {
    Step::Call(wanted(path))
}

fn wanted(path: &str) -> Box<Call> {
    let request = Request::get(format!("http://oracle{path}")).body(Bytes::new()).unwrap();
    Box::new(Call { cluster: "oracle".into(), request, timeout: Duration::from_secs(5) })
}

fn answer(text: &'static str) -> Step {
    let payload = Payload::Text { status: 403, text: text.into(), grpc: None };
    let (flag, details, changes) = (Flags::UNAUTHORIZED, "probe".into(), None);
    Step::Answer(Box::new(Answer { payload, flag, details, changes, headers: HeaderMap::new() }))
}

fn was_told(notes: &Notes, place: usize) -> bool {
    matches!(notes.kept(place), Some(FilterState::Probe(_)))
}

/// A proxy with these filters before its router, to `a` and with an `oracle` to call.
async fn through(
    filters: Vec<HttpFilter>,
    server: &Server,
    oracle: &Server,
    log: Option<AccessLog>,
) -> Proxy {
    let mut proxy = Proxy::start(None);
    let mut manager = with_routes(vec![to("a", |_| {})]);
    for filter in filters.into_iter().rev() {
        manager.filters.insert(0, filter);
    }
    manager.access_logs.extend(log);
    let clusters =
        vec![proxy.cluster("a", &[server.address]), proxy.cluster("oracle", &[oracle.address])];
    let listener = proxy.listener(http_chain(manager));
    assert_eq!(proxy.configure(vec![listener], clusters).await, []);
    proxy
}

#[tokio::test]
async fn a_filter_that_calls_holds_up_its_own_request_alone() {
    let (server, may_answer) = (Server::saying("ok").await, Arc::new(Notify::new()));
    let waits = Arc::clone(&may_answer);
    let oracle = Server::start(move |_, _| {
        let waits = Arc::clone(&waits);
        async move {
            waits.notified().await;
            Response::new(Full::from("so be it"))
        }
    })
    .await;
    let probe = Arc::new(Probe {
        request_headers: Some(Box::new(|request| match request.path.as_str() {
            "/asks" if !was_told(request.notes, request.place) => call("/may"),
            _ => Step::Continue,
        })),
        ..Probe::default()
    });
    let proxy = through(vec![HttpFilter::Probe(probe.clone())], &server, &oracle, None).await;
    let asking = tokio::spawn({
        let (client, url) = (client(), proxy.url("/asks"));
        async move { get(&client, url).await }
    });
    until("the call", || oracle.hits() == 1).await;
    // The only worker has the call under way.
    assert_eq!(get(&client(), proxy.url("/other")).await.body, "ok");
    assert!(!asking.is_finished() && probe.told().is_empty());
    may_answer.notify_one();
    assert_eq!(asking.await.unwrap().body, "ok");
    let told = probe.told();
    let answer = told[0].as_ref().expect("an answer");
    assert_eq!((answer.status.as_u16(), &answer.body[..]), (200, &b"so be it"[..]));
}

#[tokio::test]
async fn a_call_that_fails_is_told_as_such() {
    let server = Server::saying("ok").await;
    let gone = dead_address();
    let probe = Arc::new(Probe {
        request_headers: Some(Box::new(|request| match was_told(request.notes, request.place) {
            true => answer("the oracle is silent"),
            false => call("/may"),
        })),
        ..Probe::default()
    });
    let mut proxy = Proxy::start(None);
    let mut manager = with_routes(vec![to("a", |_| {})]);
    manager.filters.insert(0, HttpFilter::Probe(probe.clone()));
    let clusters =
        vec![proxy.cluster("a", &[server.address]), proxy.cluster("oracle", &[gone.address])];
    let listener = proxy.listener(http_chain(manager));
    proxy.configure(vec![listener], clusters).await;
    let denied = get(&client(), proxy.url("/")).await;
    assert_eq!((denied.status, denied.body.as_str()), (403, "the oracle is silent"));
    assert_eq!(probe.told(), [Err(CallFailure::Broken)]);
    assert_eq!(server.hits(), 0);
}

fn asks_for(value: &str) -> HttpFilter {
    let matcher = MetadataMatcher {
        namespace: "probe".into(),
        path: vec!["path".into()],
        value: ValueMatcher::Text(StringMatcher::Exact(value.into())),
        invert: false,
    };
    let (permission, principal) = (Condition::Metadata(matcher), Condition::Any);
    let policies = vec![Policy { name: "p".into(), permission, principal }];
    HttpFilter::Rbac(Arc::new(Rbac { action: RbacAction::Allow, policies }.into()))
}

#[tokio::test]
async fn metadata_reaches_access_control_and_logs() {
    let (server, oracle) = (Server::saying("ok").await, Server::saying("").await);
    let probe = Probe {
        request_headers: Some(Box::new(|request| {
            let path = Value::Text(request.path.as_str().into());
            request.notes.set_metadata("probe", "path", path);
            Step::Continue
        })),
        ..Probe::default()
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let field = |field| FormatOp::Field { field, limit: None };
    let format = [
        field(Field::DynamicMetadata("probe".into(), ["path".into()].into())),
        FormatOp::Literal(" ".into()),
        field(Field::ResponseCode),
        FormatOp::Literal("\n".into()),
    ];
    let log = log_to(&path, format);
    let filters = vec![HttpFilter::Probe(Arc::new(probe)), asks_for("/in")];
    let proxy = through(filters, &server, &oracle, Some(log)).await;
    assert_eq!(get(&client(), proxy.url("/in")).await.status, 200);
    assert_eq!(get(&client(), proxy.url("/out")).await.status, 403);
    let expected = "/in 200\n/out 403\n";
    until(expected, || std::fs::read_to_string(&path).is_ok_and(|text| text == expected)).await;
}

#[tokio::test]
async fn a_filter_sees_a_requests_body_before_anything_is_sent_on() {
    let (server, oracle) = (Server::echoing().await, Server::saying("").await);
    let probe = Probe {
        request_body: Some(Box::new(|_, piece| match piece.is_last {
            false => Step::More,
            true if piece.bytes.starts_with(b"bad") => answer("not this"),
            true => {
                piece.bytes = Bytes::from(piece.bytes.to_ascii_uppercase());
                Step::Continue
            }
        })),
        ..Probe::default()
    };
    let proxy = through(vec![HttpFilter::Probe(Arc::new(probe))], &server, &oracle, None).await;
    let post = |body: &'static str| Request::post(proxy.url("/x")).body(Full::from(body)).unwrap();
    let refused = send(&client(), post("bad news")).await;
    assert_eq!((refused.status, server.hits()), (403, 0));
    let passed = send(&client(), post("good news")).await;
    assert!(passed.body.contains("GOOD NEWS"), "{}", passed.body);
    assert!(passed.body.contains("content-length: 9"), "{}", passed.body);
    let empty = get(&client(), proxy.url("/x")).await;
    assert_eq!((empty.status, server.hits()), (200, 2));
}

/// How a client breaks off what a filter reads.
#[derive(Clone, Copy, Debug)]
enum Breaks {
    /// Ends its side of HTTP/1.
    HalfCloses,
    /// Sends a chunk that is none.
    Garbles,
    /// Resets its stream of HTTP/2.
    Resets,
}

/// The client's part; what it is answered, and what keeps its connection open.
async fn break_off(
    proxy: &Proxy,
    read: &AtomicUsize,
    how: Breaks,
) -> (String, Option<h2::client::SendRequest<Bytes>>) {
    let mut stream = TcpStream::connect(proxy.address).await.unwrap();
    let has_read = || until("the filter reads", || read.load(SeqCst) == 2);
    if let Breaks::Resets = how {
        let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let request = Request::post("http://a/").body(()).unwrap();
        let (_answer, mut body) = sender.send_request(request, false).unwrap();
        body.send_data(Bytes::from_static(b"ab"), false).unwrap();
        has_read().await;
        body.send_reset(Reason::CANCEL);
        return (String::new(), Some(sender));
    }
    let head = b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n";
    stream.write_all(head).await.unwrap();
    has_read().await;
    match how {
        Breaks::Garbles => stream.write_all(b"zz\r\n").await.unwrap(),
        Breaks::HalfCloses | Breaks::Resets => stream.shutdown().await.unwrap(),
    }
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    (String::from_utf8_lossy(&answer).into_owned(), None)
}

#[tokio::test]
async fn who_breaks_what_a_filter_reads_is_blamed_and_no_endpoint() {
    for (how, code, flags) in
        [(Breaks::HalfCloses, 0, "DC"), (Breaks::Garbles, 400, "DPE"), (Breaks::Resets, 0, "DR")]
    {
        let server = Server::echoing().await;
        let read = Arc::<AtomicUsize>::default();
        let noted = Arc::clone(&read);
        let probe = Probe {
            request_body: Some(Box::new(move |_, piece| {
                noted.fetch_max(piece.bytes.len(), SeqCst);
                if piece.is_last { Step::Continue } else { Step::More }
            })),
            ..Probe::default()
        };
        let mut proxy = Proxy::start(None);
        let mut manager = with_routes(vec![to("a", |_| {})]);
        manager.filters.insert(0, HttpFilter::Probe(Arc::new(probe)));
        let mut cluster = proxy.cluster("a", &[server.address]);
        cluster.outlier = Some(at_once(false));
        let listener = proxy.listener(http_chain(manager));
        assert_eq!(proxy.configure(vec![listener], vec![cluster]).await, []);
        let (answer, _open) = break_off(&proxy, &read, how).await;
        let seen = outcome(&proxy, "the end").await;
        assert_eq!(seen, (code, flags.to_owned()), "{how:?}: {answer}");
        assert_eq!(answer.starts_with("HTTP/1.1 400 "), code == 400, "{how:?}: {answer}");
        assert!(server.hits() == 0 && !is_ejected(&proxy, "a"), "{how:?}");
        assert_eq!(get(&client(), proxy.url("/next")).await.status, 200, "{how:?}");
    }
}

#[tokio::test]
async fn a_filter_sees_the_response_and_may_answer_instead() {
    let (server, oracle) = (Server::saying("from upstream").await, Server::saying("yes").await);
    let probe = Arc::new(Probe {
        request_headers: Some(Box::new(|request| {
            let instead = *request.path == "/instead";
            request.notes.set_metadata("probe", "instead", Value::Bool(instead));
            Step::Continue
        })),
        response_headers: Some(Box::new(|response| {
            let instead =
                response.notes.metadata().and_then(|m| m.get("probe", &["instead".into()]));
            if instead == Some(&Value::Bool(true)) && response.status == 200 {
                return answer("instead");
            }
            if !was_told(response.notes, response.place) {
                return call("/head");
            }
            response.headers.remove("content-length");
            response.headers.insert("x-told", HeaderValue::from_static("yes"));
            Step::Continue
        })),
        response_body: Some(Box::new(|_, piece, _| {
            let mut text = piece.bytes.to_ascii_uppercase();
            if piece.is_last {
                text.extend_from_slice(b"!");
            }
            piece.bytes = text.into();
            Step::Continue
        })),
        ..Probe::default()
    });
    let proxy = through(vec![HttpFilter::Probe(probe.clone())], &server, &oracle, None).await;
    let changed = get(&client(), proxy.url("/")).await;
    assert_eq!((changed.header("x-told"), changed.body.as_str()), ("yes", "FROM UPSTREAM!"));
    assert_eq!((oracle.hits(), probe.told().len()), (1, 1));
    let instead = get(&client(), proxy.url("/instead")).await;
    assert_eq!((instead.status, instead.body.as_str()), (403, "instead"));
}

#[tokio::test]
async fn a_filter_is_shown_the_end_and_what_it_calls_then_holds_up_nobody() {
    let server = Server::saying("ok").await;
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&asked);
    let oracle = Server::start(move |request, _| {
        seen.lock().unwrap().push(request.uri().path().to_owned());
        async { std::future::pending::<Response<Full<Bytes>>>().await }
    })
    .await;
    let probe = Probe {
        log: Some(Box::new(|_, status| Some(wanted(&format!("/{status}"))))),
        ..Probe::default()
    };
    let proxy = through(vec![HttpFilter::Probe(Arc::new(probe))], &server, &oracle, None).await;
    assert_eq!(get(&client(), proxy.url("/")).await.body, "ok");
    until("the call", || oracle.hits() == 1).await;
    assert_eq!(*asked.lock().unwrap(), ["/200"]);
    assert_eq!(get(&client(), proxy.url("/")).await.body, "ok");
}
