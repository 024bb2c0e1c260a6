//! Commands that talk to a running control plane: the REST API from a shell.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context, bail};
use bytes::Bytes;
use clap::Subcommand;
use ferromesh_xds_translator::{
    dialect::{Kind, Object},
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
    print::{print, print_error},
    table::text,
};
use crate::config::RemoteOptions;

/// Between two questions whether a control plane is ready.
const AGAIN: Duration = Duration::from_millis(100);

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
        // A control plane that is waited for may have to make it first.
        if options.wait.is_none() {
            options.token()?;
        }
        let server = options.target()?.server.trim_end_matches('/').to_owned();
        Ok(Self { server, options: options.clone() })
    }

    /// Asks for what is there.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub(super) async fn read(&self, path: &str) -> anyhow::Result<Value> {
        self.ask(Method::GET, path, None).await
    }

    /// Asks, and waits first for a control plane that is not ready if that was asked for.
    ///
    /// # Errors
    /// No answer, or one that is an error, in the server's words.
    pub(super) async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<Value> {
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

/// An error answer in words, with its findings.
pub(super) fn explain(status: StatusCode, problem: &Value) -> String {
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

/// What an answer says of an accepted object, a line each.
pub(super) fn remarks(answer: &Value) -> String {
    let found = answer["diagnostics"].as_array().into_iter().flatten();
    found
        .map(|d| {
            format!("\n  {}: {}: {}", text(&d["severity"]), text(&d["field"]), text(&d["message"]))
        })
        .collect()
}

/// Where an object is.
pub(super) fn path_of(kind: Kind, namespace: &str, name: &str) -> String {
    let namespace = if kind.namespaced() { namespace } else { "-" };
    format!("/api/v1/objects/{}/{}/{}", kind.resource(), encode(namespace), encode(name))
}

/// Percent-encodes one path segment.
pub(super) fn encode(segment: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    segment
        .bytes()
        .map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect()
}
