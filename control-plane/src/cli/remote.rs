//! Commands that talk to a running control plane: the REST API from a shell.

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use anyhow::{Context, anyhow, bail};
use bytes::Bytes;
use clap::{Args, Subcommand, ValueEnum};
use comfy_table::{Table, presets::NOTHING};
use ferromesh_xds_translator::{
    dialect::{Kind, Object, parse_value},
    explain::Explanation,
    forecast::Forecast,
    ir::ObjectId,
};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use super::{
    inputs,
    print::{print, print_error},
};
use crate::config::RemoteOptions;

/// Most bytes of objects that are judged together; less than the server reads of a request.
const LARGEST_LIST: usize = 3 << 20;
/// Between two questions whether a control plane is ready.
const AGAIN: Duration = Duration::from_millis(100);

/// A form of output.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub(crate) enum Form {
    /// A table.
    #[default]
    Text,
    /// JSON.
    Json,
}

/// `ferromesh apply`.
#[derive(Args, Debug)]
#[group(skip)]
#[command(after_help = "Example:\n  ferromesh apply -f routes.yaml --dry-run")]
pub(crate) struct Apply {
    /// Files or folders of YAML or JSON; `-` is standard input
    #[arg(short, long = "file", value_name = "PATH", required = true)]
    files: Vec<PathBuf>,
    /// Validate on the server, store nothing
    #[arg(long)]
    dry_run: bool,
}

/// `ferromesh get`.
#[derive(Args, Debug)]
#[group(skip)]
#[command(
    after_help = "Examples:\n  ferromesh get virtualservices\n  ferromesh get virtualservices -n shop\n  ferromesh get vs reviews -n default -o json\n  ferromesh get gateways.networking.istio.io"
)]
pub(crate) struct Get {
    /// Kind, such as virtualservice, vs or virtualservices.networking.istio.io
    kind: String,
    /// Name; all when absent
    name: Option<String>,
    /// Namespace; without it a name is looked up in `default`, and a list is of all namespaces
    #[arg(short, long)]
    namespace: Option<String>,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

/// `ferromesh delete`.
#[derive(Args, Debug)]
#[group(skip)]
#[command(after_help = "Example:\n  ferromesh delete virtualservice reviews -n default")]
pub(crate) struct Delete {
    /// Kind, such as virtualservice, vs or virtualservices.networking.istio.io
    kind: String,
    /// Name
    name: String,
    /// Namespace
    #[arg(short, long, default_value = "default")]
    namespace: String,
}

/// `ferromesh proxy-status`.
#[derive(Args, Debug)]
#[group(skip)]
#[command(after_help = "Example:\n  ferromesh proxy-status")]
pub(crate) struct ProxyStatus {
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

/// `ferromesh proxy-config`.
#[derive(Args, Debug)]
#[group(skip)]
#[command(after_help = "Example:\n  ferromesh proxy-config productpage-v1-0.default clusters")]
pub(crate) struct ProxyConfig {
    /// The proxy: its node id, or NAME.NAMESPACE
    proxy: String,
    /// Only this section: listeners, routes, clusters, endpoints or secrets
    section: Option<String>,
}

/// `ferromesh token`.
#[derive(Subcommand, Debug)]
pub(crate) enum Token {
    /// Make a join token: a short-lived proof for one identity, to be used by an agent's first call
    #[command(
        after_help = "Example:\n  ferromesh token create --namespace shop --service-account cart --ttl 10m > cart.token"
    )]
    Create {
        /// Namespace of the identity
        #[arg(short, long)]
        namespace: String,
        /// Service account of the identity
        #[arg(short, long)]
        service_account: String,
        /// How long the token is good for
        #[arg(long, default_value = "1h")]
        ttl: String,
        /// Good for one certificate, with which its agent goes on: whoever reads the token later has
        /// nothing by it
        #[arg(long)]
        single_use: bool,
    },
}

/// What a join token is asked for.
pub(crate) struct TokenRequest<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) service_account: &'a str,
    pub(crate) ttl: &'a str,
    /// Whether it is good for one certificate only.
    pub(crate) single_use: bool,
}

/// A connection to the REST API.
pub(crate) struct Remote {
    server: String,
    options: RemoteOptions,
}

impl Remote {
    /// A client for the given options.
    ///
    /// # Errors
    /// The token's file cannot be read.
    pub(crate) fn new(options: &RemoteOptions) -> anyhow::Result<Self> {
        options.token()?;
        let server = options.server.trim_end_matches('/').to_owned();
        Ok(Self { server, options: options.clone() })
    }

    async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        if let Some(limit) = self.options.wait {
            self.until_ready(limit).await;
        }
        self.exchange(method, path, body).await
    }

    /// Waits until the control plane says that it is ready, or for `limit`: whoever asks then finds
    /// out why it is not.
    async fn until_ready(&self, limit: Duration) {
        let ready = async {
            while self.exchange(Method::GET, "/healthz/ready", None).await.is_err() {
                sleep(AGAIN).await;
            }
        };
        let _ = timeout(limit, ready).await;
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<Value> {
        let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.server));
        // Read for each: a control plane that starts for the first time has just made it.
        if let Some(token) = self.options.token()? {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let body = match body {
            Some(value) => {
                request = request.header("content-type", "application/json");
                Full::from(value.to_string())
            }
            None => Full::default(),
        };
        let request = request.body(body).with_context(|| {
            format!("{}: expected a URL such as http://127.0.0.1:8080", self.server)
        })?;
        let response = client.request(request).await;
        let response = response.with_context(|| {
            format!("no control plane answers at {}; start one with `ferromesh serve`, or give --server", self.server)
        })?;
        let status = response.status();
        let bytes = response.into_body().collect().await?.to_bytes();
        let value: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        if status.is_success() { Ok(value) } else { bail!("{}", explain(status, &value)) }
    }

    /// Sends every object of the files; goes on after a refused one.
    ///
    /// # Errors
    /// A file cannot be read, or the server refused an object.
    pub(crate) async fn apply(&self, command: &Apply) -> anyhow::Result<()> {
        let parsed = inputs::read(&command.files)?;
        for diagnostic in &parsed.diagnostics {
            print_error(&diagnostic.to_string());
        }
        let sent = match command.dry_run {
            true => self.rehearse(&parsed.objects).await?,
            false => self.store(&parsed.objects).await,
        };
        match parsed.refused() + sent {
            0 => Ok(()),
            refused => bail!("{refused} objects were refused"),
        }
    }

    /// Stores objects one by one; how many the server refused.
    async fn store(&self, objects: &[Object]) -> usize {
        let mut refused = 0;
        for object in objects {
            let (id, name) = (&object.id, title(object));
            let path = path_of(id.kind, &id.namespace, &id.name);
            match self.ask(Method::PUT, &path, Some(&object.raw())).await {
                Ok(answer) => print(&format!(
                    "{name} stored as revision {}{}",
                    answer["revision"],
                    remarks(&answer)
                )),
                Err(error) => {
                    refused += 1;
                    print_error(&format!("{name} refused: {error:#}"));
                }
            }
        }
        refused
    }

    /// Stores an object.
    ///
    /// # Errors
    /// The server refuses it, or does not answer.
    pub(crate) async fn store_one(&self, object: Value) -> anyhow::Result<()> {
        let (object, _) = parse_value(object).map_err(|findings| {
            let said: Vec<String> = findings.iter().map(ToString::to_string).collect();
            anyhow!("{}", said.join("\n"))
        })?;
        match self.store(&[object]).await {
            0 => Ok(()),
            _ => bail!("the object was refused"),
        }
    }

    /// Has objects judged together, as they would serve; how many the server would refuse. What
    /// is too much for one request is judged in parts.
    async fn rehearse(&self, objects: &[Object]) -> anyhow::Result<usize> {
        let mut refused = 0;
        let (mut first, mut size) = (0, 0);
        for (i, object) in objects.iter().enumerate() {
            let more = object.raw().to_string().len();
            if size + more > LARGEST_LIST {
                refused += self.rehearse_list(&objects[first..i]).await?;
                (first, size) = (i, 0);
            }
            size += more;
        }
        Ok(refused + self.rehearse_list(&objects[first..]).await?)
    }

    async fn rehearse_list(&self, objects: &[Object]) -> anyhow::Result<usize> {
        let items: Vec<Value> = objects.iter().map(Object::raw).collect();
        let list = json!({ "apiVersion": "v1", "kind": "List", "items": items });
        let path = "/api/v1/objects?dryRun=true";
        let answer = self.ask(Method::POST, path, Some(&list)).await?;
        let mut refused = 0;
        let answers = answer["items"].as_array().into_iter().flatten();
        for (object, answer) in objects.iter().zip(answers) {
            let name = title(object);
            let status = answer["status"].as_u64().and_then(|s| u16::try_from(s).ok());
            match status.and_then(|s| StatusCode::from_u16(s).ok()) {
                Some(status) => {
                    refused += 1;
                    print_error(&format!("{name} refused: {}", explain(status, answer)));
                }
                None => print(&format!("{name} valid{}", remarks(answer))),
            }
        }
        Ok(refused)
    }

    /// What it would do to proxies and requests to apply some objects and to delete others.
    ///
    /// # Errors
    /// The server refuses an object, or does not have one that is to be deleted; or no answer.
    pub(crate) async fn plan(
        &self,
        objects: &[Object],
        deleted: &BTreeSet<ObjectId>,
    ) -> anyhow::Result<Forecast> {
        let items: Vec<Value> = objects.iter().map(Object::raw).collect();
        let named = |id: &ObjectId| json!({ "kind": id.kind.resource(), "namespace": id.namespace, "name": id.name });
        let delete: Vec<Value> = deleted.iter().map(named).collect();
        let change = json!({ "items": items, "delete": delete });
        let mut answer = self.ask(Method::POST, "/api/v1/plan", Some(&change)).await?;
        let remarks = remarks(&answer);
        if !remarks.is_empty() {
            print_error(remarks.trim_start());
        }
        let effects = serde_json::from_value(answer["effects"].take());
        Ok(Forecast { effects: effects.context("the server answers in words of another version")? })
    }

    /// What becomes of a request, which `question` holds as the server takes it.
    ///
    /// # Errors
    /// Nobody is known who asks, or no answer.
    pub(crate) async fn explain(&self, question: &Value) -> anyhow::Result<Explanation> {
        let answer = self.ask(Method::POST, "/api/v1/explain", Some(question)).await?;
        serde_json::from_value(answer).context("the server answers in words of another version")
    }

    /// Prints objects.
    ///
    /// # Errors
    /// There is no such kind or object, or no answer.
    pub(crate) async fn get(&self, command: &Get) -> anyhow::Result<()> {
        let kind = Kind::named(&command.kind)?;
        if let Some(name) = &command.name {
            let namespace = command.namespace.as_deref().unwrap_or("default");
            let object = self.ask(Method::GET, &path_of(kind, namespace, name), None).await?;
            print(&serde_json::to_string_pretty(&object["object"])?);
            return Ok(());
        }
        let list = list_of(kind, command.namespace.as_deref());
        let list = self.ask(Method::GET, &list, None).await?;
        if command.output == Form::Json {
            print(&serde_json::to_string_pretty(&list)?);
            return Ok(());
        }
        let mut table = plain_table(&["NAMESPACE", "NAME", "SOURCE", "REVISION"]);
        for item in list["items"].as_array().into_iter().flatten() {
            table.add_row([
                text(&item["namespace"]),
                text(&item["name"]),
                text(&item["source"]),
                text(&item["revision"]),
            ]);
        }
        print(&table.to_string());
        Ok(())
    }

    /// Deletes an object.
    ///
    /// # Errors
    /// There is no such object, or no answer.
    pub(crate) async fn delete(&self, command: &Delete) -> anyhow::Result<()> {
        let kind = Kind::named(&command.kind)?;
        self.ask(Method::DELETE, &path_of(kind, &command.namespace, &command.name), None).await?;
        print(&format!("{} {}/{} deleted", kind.kind_name(), command.namespace, command.name));
        Ok(())
    }

    /// Prints every connected proxy and how far it is.
    ///
    /// # Errors
    /// No answer.
    pub(crate) async fn proxy_status(&self, command: &ProxyStatus) -> anyhow::Result<()> {
        let list = self.ask(Method::GET, "/api/v1/proxies", None).await?;
        if command.output == Form::Json {
            print(&serde_json::to_string_pretty(&list)?);
            return Ok(());
        }
        print(&status_table(&list).to_string());
        if let Some(refusals) = refusal_table(&list) {
            print(&format!("\n{refusals}"));
        }
        Ok(())
    }

    /// Prints what a proxy was sent.
    ///
    /// # Errors
    /// There is no such proxy or section, or no answer.
    pub(crate) async fn proxy_config(&self, command: &ProxyConfig) -> anyhow::Result<()> {
        let mut dump = self
            .ask(Method::GET, &format!("/api/v1/proxies/{}/config", encode(&command.proxy)), None)
            .await?;
        let shown = match &command.section {
            Some(section) => match dump.get_mut(section) {
                Some(value) => value.take(),
                None => bail!(
                    "no section {section:?}: expected listeners, routes, clusters, endpoints or secrets"
                ),
            },
            None => dump,
        };
        print(&serde_json::to_string_pretty(&shown)?);
        Ok(())
    }

    /// Makes a join token.
    ///
    /// # Errors
    /// The names cannot be an identity, or no answer.
    pub(crate) async fn token(&self, command: &Token) -> anyhow::Result<()> {
        let Token::Create { namespace, service_account, ttl, single_use } = command;
        let request = TokenRequest { namespace, service_account, ttl, single_use: *single_use };
        print(&self.join_token(&request).await?);
        Ok(())
    }

    /// A join token for an identity.
    ///
    /// # Errors
    /// As [`Self::token`].
    pub(crate) async fn join_token(&self, request: &TokenRequest<'_>) -> anyhow::Result<String> {
        let TokenRequest { namespace, service_account, ttl, single_use } = request;
        let wanted = json!({
            "namespace": namespace, "serviceAccount": service_account, "ttl": ttl,
            "singleUse": single_use,
        });
        let answer = self.ask(Method::POST, "/api/v1/tokens", Some(&wanted)).await?;
        answer["token"].as_str().map(str::to_owned).context("the server's answer has no token")
    }
}

/// The types, as columns.
const SYNCED_TYPES: [&str; 5] = ["CDS", "EDS", "LDS", "RDS", "SDS"];

/// A row for every proxy, one line each: what it refuses stands below.
fn status_table(list: &Value) -> Table {
    let mut table = plain_table(&[&["PROXY", "IDENTITY"], &SYNCED_TYPES[..]].concat());
    for proxy in list["items"].as_array().into_iter().flatten() {
        let states = SYNCED_TYPES.map(|kind| text(&proxy["sync"][kind]["state"]));
        table.add_row([text(&proxy["id"]), text(&proxy["identity"])].into_iter().chain(states));
    }
    table
}

/// A row for every type of which a proxy refuses something; `None` when none does.
fn refusal_table(list: &Value) -> Option<Table> {
    let mut table = plain_table(&["PROXY", "REFUSES", "RESOURCES", "SINCE", "REASON"]);
    for proxy in list["items"].as_array().into_iter().flatten() {
        for kind in SYNCED_TYPES.into_iter().filter(|kind| proxy["sync"][kind]["state"] == "NACK") {
            let sync = &proxy["sync"][kind];
            let named: Vec<String> =
                sync["resources"].as_array().into_iter().flatten().map(text).collect();
            let named = if named.is_empty() { "-".to_owned() } else { named.join(" ") };
            let cells = [
                text(&proxy["id"]),
                kind.to_owned(),
                named,
                text(&sync["at"]),
                text(&sync["message"]),
            ];
            table.add_row(cells.map(|cell| one_line(&cell)));
        }
    }
    (table.row_count() > 0).then_some(table)
}

/// A proxy's words may have line breaks and control characters, which would take the table apart.
fn one_line(text: &str) -> String {
    let plain: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    plain.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// `VirtualService shop/cart`
fn title(object: &Object) -> String {
    format!("{} {}/{}", object.id.kind.kind_name(), object.id.namespace, object.id.name)
}

fn explain(status: StatusCode, problem: &Value) -> String {
    let mut message = problem["detail"].as_str().map_or_else(|| status.to_string(), str::to_owned);
    for finding in problem["diagnostics"].as_array().into_iter().flatten() {
        message.push_str(&format!(
            "\n  {}: {}",
            text(&finding["field"]),
            text(&finding["message"])
        ));
        if let Some(fix) = finding["fix"].as_str() {
            message.push_str(&format!(" ({fix})"));
        }
    }
    message
}

fn remarks(answer: &Value) -> String {
    let found = answer["diagnostics"].as_array().into_iter().flatten();
    found
        .map(|d| {
            format!("\n  {}: {}: {}", text(&d["severity"]), text(&d["field"]), text(&d["message"]))
        })
        .collect()
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn plain_table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(header.iter().copied());
    table
}

fn path_of(kind: Kind, namespace: &str, name: &str) -> String {
    let namespace = if kind.namespaced() { namespace } else { "-" };
    format!("/api/v1/objects/{}/{}/{}", kind.resource(), encode(namespace), encode(name))
}

/// The objects of a kind; in a namespace, if it is one that has namespaces.
fn list_of(kind: Kind, namespace: Option<&str>) -> String {
    let list = format!("/api/v1/objects?kind={}", kind.resource());
    match namespace.filter(|_| kind.namespaced()) {
        Some(namespace) => format!("{list}&namespace={}", encode(namespace)),
        None => list,
    }
}

/// Percent-encodes one path segment.
fn encode(segment: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    segment
        .bytes()
        .map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_of_the_namespace_that_is_asked_for() {
        let secrets = "/api/v1/objects?kind=secrets";
        assert_eq!(list_of(Kind::SECRET, None), secrets);
        assert_eq!(list_of(Kind::SECRET, Some("a&b")), format!("{secrets}&namespace=a%26b"));
        let mesh = list_of(Kind::MESH_CONFIG, Some("shop"));
        assert!(!mesh.contains("shop"), "{mesh}");
    }

    #[test]
    fn a_refusal_leaves_one_line_a_proxy_and_is_told_below() {
        let nack = json!({
            "state": "NACK", "message": "Error adding listener(s) 0.0.0.0_80:\n\u{1b}[31mbad regex\n", "at": "2026-01-01T00:00:00Z",
            "resources": ["0.0.0.0_80", "virtualInbound"],
        });
        let list = json!({ "items": [
            { "id": "a.shop", "identity": "spiffe://td/ns/shop/sa/a", "sync": { "CDS": { "state": "SYNCED" }, "LDS": nack } },
            { "id": "b.shop", "sync": { "CDS": { "state": "STALE" } } },
        ] });
        let lines = |table: &Table| table.lines().map(|line| one_line(&line)).collect::<Vec<_>>();
        assert_eq!(
            lines(&status_table(&list)),
            [
                "PROXY IDENTITY CDS EDS LDS RDS SDS",
                "a.shop spiffe://td/ns/shop/sa/a SYNCED - NACK - -",
                "b.shop - STALE - - - -",
            ]
        );
        let refusals = refusal_table(&list).expect("a refusal");
        assert_eq!(
            lines(&refusals),
            [
                "PROXY REFUSES RESOURCES SINCE REASON",
                "a.shop LDS 0.0.0.0_80 virtualInbound 2026-01-01T00:00:00Z Error adding listener(s) 0.0.0.0_80: [31mbad regex",
            ]
        );
        assert!(refusal_table(&json!({ "items": [] })).is_none());
    }
}
