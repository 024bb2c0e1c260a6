//! `policy.linkerd.io Server`: a port of some pods, and who passes there whom no policy allows.

use std::sync::Arc;

use super::selector::LabelSelector;
use crate::{
    diagnostic::FieldPath,
    dialect::{
        decode::Decoder,
        kubernetes::IntegerOrText,
        lowering::Lowering,
        schema::{choice, object},
        spec::Spec,
    },
    ir::{
        AccessAction, AccessPolicy, AccessRule, CallerMatch, PolicyScope, PolicyTarget, PortName,
        Protocol, Selector, SharedPorts, StringMatch, Unmatched, Values, WhichPorts, WorkloadPort,
    },
    snapshot::Item,
};

object! { no_null;
    /// A port of some pods.
    PortServer {
        /// The pods, of the same namespace.
        "podSelector" pod_selector: Option<LabelSelector>,
        /// Machines, which are not served by this name.
        "externalWorkloadSelector" external_workload_selector: Option<LabelSelector>,
        /// The port, by its number or by the name that the pods give it.
        "port" port: IntegerOrText [required],
        /// What is spoken there.
        "proxyProtocol" proxy_protocol: ProxyProtocol,
        /// Who passes whom no policy allows (`deny`).
        "accessPolicy" access_policy: DefaultAccess,
    }
}

choice! {
    /// What is spoken at a port.
    ProxyProtocol {
        /// It is found out.
        Unknown = "unknown",
        /// HTTP/1.
        Http1 = "HTTP/1",
        /// HTTP/2.
        Http2 = "HTTP/2",
        /// GRPC.
        Grpc = "gRPC",
        /// Bytes.
        Opaque = "opaque",
        /// The application's own TLS.
        Tls = "TLS",
    }
}

choice! {
    /// Who passes whom no policy allows.
    DefaultAccess {
        /// Nobody.
        Deny = "deny",
        /// Everybody, and who would not is told of.
        Audit = "audit",
        /// Everybody.
        AllUnauthenticated = "all-unauthenticated",
        /// Whoever proves an identity of the mesh.
        AllAuthenticated = "all-authenticated",
        /// Whoever proves one and calls from within the cluster.
        ClusterAuthenticated = "cluster-authenticated",
        /// Whoever calls from within the cluster.
        ClusterUnauthenticated = "cluster-unauthenticated",
    }
}

/// The networks of clusters, as Linkerd has them unless it is told others.
const CLUSTER: [&str; 5] =
    ["10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16", "fd00::/8"];

impl DefaultAccess {
    /// Who passes.
    pub(super) fn rules(self) -> Vec<AccessRule> {
        let proven = || {
            let wanted = vec![StringMatch::Present];
            CallerMatch::Principal(Values { wanted, refused: Vec::new() })
        };
        let within = || {
            let wanted = CLUSTER.iter().filter_map(|network| network.parse().ok()).collect();
            CallerMatch::DirectIp(Values { wanted, refused: Vec::new() })
        };
        let all = |when_from| vec![AccessRule { when_from, ..AccessRule::default() }];
        match self {
            Self::Deny => Vec::new(),
            Self::Audit | Self::AllUnauthenticated => all(Vec::new()),
            Self::AllAuthenticated => all(vec![proven()]),
            Self::ClusterAuthenticated => all(vec![proven(), within()]),
            Self::ClusterUnauthenticated => all(vec![within()]),
        }
    }
}

impl Spec for PortServer {
    fn check(&self, at: &mut Decoder) {
        at.within("spec", |at| {
            match &self.pod_selector {
                Some(selector) => at.within("podSelector", |at| selector.check(at)),
                None if self.external_workload_selector.is_some() => {}
                None => at.missing("podSelector", Some("`podSelector: {}` for all pods".into())),
            }
            if self.external_workload_selector.is_some() {
                let message = "ExternalWorkloads are not served: a Server selects pods, or \
                               WorkloadEntries by their labels";
                let fix = "`podSelector`".to_owned();
                at.within("externalWorkloadSelector", |at| at.invalid(message, Some(fix)));
            }
            at.within("port", |at| check_port(&self.port, at));
        });
    }

    fn lower(&self, lowering: &mut Lowering<'_>) -> Vec<Item> {
        let port = match &self.port {
            IntegerOrText::Number(number) => PortName::Number(*number),
            IntegerOrText::Name(name) => PortName::Named(name.clone()),
            IntegerOrText::Absent => return Vec::new(),
        };
        if self.access_policy == DefaultAccess::Audit {
            let message = "whom no policy allows passes, and nothing tells of it";
            lowering.unserved(FieldPath::of("spec.accessPolicy"), message);
        }
        let described = WorkloadPort {
            origin: lowering.origin(),
            labels: lowering.meta.labels.clone(),
            selector: self.pod_selector.as_ref().map(LabelSelector::selector).unwrap_or_default(),
            port,
            protocol: self.protocol(),
        };
        let itself = WhichPorts::Of(lowering.id.clone());
        let guard = lowering.allowing("spec.port", itself, self.access_policy.rules());
        vec![Item::Port(Arc::new(described)), Item::Access(Arc::new(guard))]
    }
}

impl PortServer {
    fn protocol(&self) -> Option<Protocol> {
        Some(match self.proxy_protocol {
            ProxyProtocol::Unknown => return None,
            ProxyProtocol::Http1 => Protocol::Http,
            ProxyProtocol::Http2 => Protocol::Http2,
            ProxyProtocol::Grpc => Protocol::Grpc,
            ProxyProtocol::Opaque => Protocol::Tcp,
            ProxyProtocol::Tls => Protocol::Tls,
        })
    }
}

fn check_port(port: &IntegerOrText, at: &mut Decoder) {
    let letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let valid = match port {
        IntegerOrText::Absent => return,
        IntegerOrText::Number(number) => *number != 0,
        IntegerOrText::Name(name) => name.len() <= 15 && name.chars().all(letter),
    };
    if !valid {
        at.invalid("neither the number of a port nor the name of one", None);
    }
}

impl Lowering<'_> {
    /// A policy that lets pass whom a rule matches at ports that Servers describe, where nobody else
    /// passes whom no other policy lets pass.
    pub(super) fn allowing(
        &self,
        at: &str,
        which: WhichPorts,
        rules: Vec<AccessRule>,
    ) -> AccessPolicy {
        AccessPolicy {
            origin: self.origin(),
            scope: PolicyScope::Namespace(self.namespace().clone()),
            selector: Selector::default(),
            target: PolicyTarget::All,
            ports: Some(SharedPorts { at: at.into(), which }),
            action: AccessAction::Allow,
            authorizer: None,
            rules,
            shared_callers: Vec::new(),
            unmatched: Unmatched::Refuse,
            dry_run: false,
        }
    }
}
