//! What is noted on the way of a request: decisions, what they rest on, and what access rules say.

use ferromesh_proto::ResourceType;

use super::{
    access::{self, Caller, Verdict},
    answer::{Decider, End, Near, Stage, Step},
    pb::{protobuf::Any, rbac::Rbac},
    proxy::Proxy,
    request::Request,
};

/// What a proxy did with a request.
pub(super) struct Passage {
    pub(super) steps: Vec<Step>,
    pub(super) depends: Vec<String>,
    pub(super) end: End,
    /// Where it goes on to, if it does.
    pub(super) onward: Vec<Onward>,
}

/// A share of requests that go on to a cluster.
#[derive(Clone)]
pub(super) struct Onward {
    /// Percent.
    pub(super) share: f64,
    pub(super) cluster: String,
    /// As it is sent on; `None`: its bytes are.
    pub(super) request: Option<Request>,
    /// Whether connections offer the protocols that the cluster's metadata list.
    pub(super) offers: bool,
    /// The status where the cluster is not known.
    pub(super) missing: u16,
}

/// What is noted on the way.
pub(super) struct Walk<'a> {
    pub(super) proxy: &'a Proxy<'a>,
    pub(super) steps: Vec<Step>,
    pub(super) depends: Vec<String>,
}

impl Walk<'_> {
    pub(super) fn step(
        &mut self,
        stage: Stage,
        name: impl Into<String>,
        what: impl Into<String>,
        decided_by: Vec<Decider>,
    ) -> &mut Step {
        self.steps.push(Step {
            stage,
            name: name.into(),
            what: what.into(),
            decided_by,
            nearly: Vec::new(),
        });
        self.steps.last_mut().expect("just pushed")
    }

    pub(super) fn depends(&mut self, on: impl Into<String>) {
        let on = on.into();
        if !self.depends.contains(&on) {
            self.depends.push(on);
        }
    }

    /// Notes what running proxies say against a resource.
    pub(super) fn refusals(&mut self, kind: ResourceType, name: &str) {
        for said in self.proxy.refusals(kind, name) {
            self.depends(format!("{said}: it runs what it had before"));
        }
    }
}

/// Filters that neither refuse nor lead elsewhere, by the type of their configuration.
const HARMLESS: [&str; 10] = [
    "envoy.extensions.filters.http.router.v3.Router",
    "envoy.extensions.filters.http.grpc_stats.v3.FilterConfig",
    "envoy.extensions.filters.http.grpc_web.v3.GrpcWeb",
    "envoy.extensions.filters.http.dynamic_forward_proxy.v3.FilterConfig",
    "envoy.extensions.filters.network.sni_dynamic_forward_proxy.v3.FilterConfig",
    "envoy.extensions.filters.network.set_filter_state.v3.Config",
    "envoy.tcp.metadataexchange.config.MetadataExchange",
    "io.istio.http.peer_metadata.Config",
    "istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig",
    "stats.PluginConfig",
];

/// Whether a filter neither refuses nor leads elsewhere.
pub(super) fn is_harmless(config: &Any) -> bool {
    config.type_url.rsplit('/').next().is_some_and(|kind| HARMLESS.contains(&kind))
}

/// What enforced rules say; the refusal, if they refuse.
pub(super) fn rules_say(walk: &mut Walk<'_>, rules: &Rbac, caller: &Caller<'_>) -> Option<String> {
    match access::judge(rules, caller) {
        Verdict::Pass(Some(policy)) => {
            let by = walk.proxy.access_rule(&policy);
            walk.step(Stage::Filter, "access", format!("allowed by {policy}"), by);
            None
        }
        Verdict::Pass(None) => {
            let what = "no rule that refuses is met";
            walk.step(Stage::Filter, "access", what, Vec::new());
            None
        }
        Verdict::Unknown(what) => {
            walk.depends(format!("access rules, which ask for {what}"));
            None
        }
        Verdict::Refuse(Some(policy)) => {
            let by = walk.proxy.access_rule(&policy);
            let what = format!("refused by {policy}");
            walk.step(Stage::Filter, "access", what.clone(), by);
            Some(what)
        }
        Verdict::Refuse(None) => {
            let who = caller.identity.unwrap_or("a client that proves nothing");
            let what = format!("no rule allows it to {who}");
            let by = walk.proxy.access_policies();
            let near = access::nearly(rules, caller);
            let near: Vec<Near> = near
                .into_iter()
                .map(|(name, unmet)| {
                    let decided_by = walk.proxy.access_rule(&name);
                    Near { name, unmet: unmet.to_owned(), decided_by }
                })
                .collect();
            walk.step(Stage::Filter, "access", what.clone(), by).nearly = near;
            Some(what)
        }
    }
}

/// What rules say that are only tried out.
pub(super) fn dry_run(walk: &mut Walk<'_>, rules: &Rbac, prefix: &str, caller: &Caller<'_>) {
    if !prefix.starts_with("istio_dry_run_") {
        return;
    }
    let (what, by) = match access::judge(rules, caller) {
        Verdict::Refuse(Some(policy)) => {
            (format!("would be refused by {policy}"), walk.proxy.access_rule(&policy))
        }
        Verdict::Refuse(None) => ("would be refused: no rule allows it".to_owned(), Vec::new()),
        Verdict::Pass(Some(policy)) => {
            (format!("would be allowed by {policy}"), walk.proxy.access_rule(&policy))
        }
        Verdict::Pass(None) => return,
        Verdict::Unknown(what) => (format!("depends on {what}"), Vec::new()),
    };
    walk.step(Stage::Filter, "access, dry run", format!("{what}; nothing is refused by it"), by);
}
