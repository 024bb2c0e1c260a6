//! What is said of a request: plain values, which a server sends and a shell reads.

use serde::{Deserialize, Serialize};

/// What becomes of a request.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Explanation {
    /// Method and URL.
    pub request: String,
    /// At the proxy that the client calls through.
    pub client: Hop,
    /// Where its requests go on to, with their shares; none if they go nowhere.
    pub branches: Vec<Branch>,
    /// Where keys of tokens are that are not at hand; whoever fetches them may take tokens that are
    /// said to be refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unfetched: Vec<String>,
}

/// What one proxy does with a request.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Hop {
    /// Which proxy, and how that is known.
    pub proxy: String,
    /// What was decided, in order.
    pub steps: Vec<Step>,
    /// What the outcome rests on and is not known beforehand.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub depends: Vec<String>,
    /// How it ends there.
    pub end: End,
}

/// A share of requests that go to one cluster.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Branch {
    /// Percent of the requests.
    pub share: f64,
    /// The cluster.
    pub cluster: String,
    /// What was decided, in order.
    pub steps: Vec<Step>,
    /// What the outcome rests on and is not known beforehand.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub depends: Vec<String>,
    /// Which take requests.
    pub endpoints: Vec<Target>,
    /// What the proxies before the endpoints do, each once for endpoints that are alike.
    pub servers: Vec<Server>,
    /// How it ends, if it comes to no endpoint.
    pub end: End,
}

/// An endpoint.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Target {
    /// Address and port, or a name.
    pub address: String,
    /// The workload behind it, as far as it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<String>,
    /// Whether requests go there; if not, why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unused: Option<String>,
}

/// What the proxy before some endpoints does.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Server {
    /// The addresses of these endpoints.
    pub endpoints: Vec<String>,
    /// What it does.
    pub hop: Hop,
}

/// What is decided.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Where the client believes the host to be.
    Address,
    /// The listener.
    Listener,
    /// The filter chain.
    FilterChain,
    /// TLS and who it proves.
    Tls,
    /// A filter that guards, asks or changes.
    Filter,
    /// The virtual host.
    VirtualHost,
    /// The route.
    Route,
    /// The cluster.
    Cluster,
    /// The endpoints.
    Endpoints,
    /// What a running proxy says.
    Proxy,
}

impl Stage {
    /// As people say it.
    pub fn words(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::Listener => "listener",
            Self::FilterChain => "filter chain",
            Self::Tls => "TLS",
            Self::Filter => "filter",
            Self::VirtualHost => "virtual host",
            Self::Route => "route",
            Self::Cluster => "cluster",
            Self::Endpoints => "endpoints",
            Self::Proxy => "proxy",
        }
    }
}

/// A decision.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// What is decided.
    pub stage: Stage,
    /// What was chosen, by its name; may be empty.
    pub name: String,
    /// What that means.
    pub what: String,
    /// The objects that decided it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub decided_by: Vec<Decider>,
    /// What it nearly was.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nearly: Vec<Near>,
}

/// An object that decided something.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Decider {
    /// Kind, namespace and name.
    pub object: String,
    /// The field, as its author writes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// `FILE:LINE` of the field, if it is in a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
}

/// What something nearly was.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Near {
    /// What.
    pub name: String,
    /// What is missing, or in the way.
    pub unmet: String,
    /// Who decided that.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub decided_by: Vec<Decider>,
}

/// How a request ends somewhere.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum End {
    /// It goes on: from a client's proxy to clusters, from a server's to the application.
    Passes,
    /// A proxy answers as it was told to.
    Answered {
        /// The status.
        status: u16,
        /// What it answers.
        what: String,
    },
    /// It is refused.
    Refused {
        /// The status; absent: the connection is closed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        status: Option<u16>,
        /// Why.
        what: String,
    },
    /// It leads nowhere.
    Nowhere {
        /// The status; absent: the connection is closed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        status: Option<u16>,
        /// Why.
        what: String,
    },
}

impl End {
    pub(super) fn refused(status: u16, what: impl Into<String>) -> Self {
        Self::Refused { status: Some(status), what: what.into() }
    }

    pub(super) fn closed(what: impl Into<String>) -> Self {
        Self::Refused { status: None, what: what.into() }
    }

    pub(super) fn nowhere(status: u16, what: impl Into<String>) -> Self {
        Self::Nowhere { status: Some(status), what: what.into() }
    }
}

/// What a request comes to at last; the worst of its shares.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// It reaches endpoints.
    Reached,
    /// A proxy answers as it was told to.
    Answered,
    /// It is refused or leads nowhere.
    Failed,
}

impl Explanation {
    /// What it comes to at last.
    pub fn outcome(&self) -> Outcome {
        let ends = self.branches.iter().flat_map(|branch| {
            let servers = branch.servers.iter().map(|server| &server.hop.end);
            servers.chain([&branch.end])
        });
        let outcome = |end: &End| match end {
            End::Passes => Outcome::Reached,
            End::Answered { .. } => Outcome::Answered,
            End::Refused { .. } | End::Nowhere { .. } => Outcome::Failed,
        };
        ends.chain([&self.client.end]).map(outcome).max().unwrap_or(Outcome::Failed)
    }

    /// What every proxy on the way does, the client's first.
    pub fn hops(&self) -> impl Iterator<Item = &Hop> {
        let servers = self.branches.iter().flat_map(|branch| &branch.servers);
        [&self.client].into_iter().chain(servers.map(|server| &server.hop))
    }

    /// Everything that the outcome rests on and that is not known beforehand.
    pub fn depends(&self) -> Vec<&str> {
        let branches = self.branches.iter().flat_map(|branch| {
            let servers = branch.servers.iter().flat_map(|server| &server.hop.depends);
            branch.depends.iter().chain(servers)
        });
        let mut all: Vec<&str> =
            self.client.depends.iter().chain(branches).map(String::as_str).collect();
        all.dedup();
        all
    }
}
