//! The patches of one route configuration, which is put together from virtual hosts.
//!
//! Thousands of hosts may be in one, and one of them changes at a time. What can be done to hosts
//! one by one is told apart from what must see all of them, so that its outcome can be kept.

use std::sync::Arc;

use bytes::Bytes;
use ferromesh_proto::ResourceType;

use super::{Report, changed, edit, patched, route};
use crate::{
    emit::{self, Content},
    ir::{Patch, PatchOperation, PatchSubject},
    plan::RouteFrame,
};

const VIRTUAL_HOST: &str = "envoy.config.route.v3.VirtualHost";

/// The patches of one route configuration.
#[derive(Debug)]
pub struct RoutePatches<'a> {
    /// Those that change virtual hosts one by one, whatever else is in the route configuration;
    /// all that are about hosts and routes, or none.
    hosts: Vec<&'a Arc<Patch>>,
    /// The others.
    table: Vec<&'a Arc<Patch>>,
}

impl<'a> RoutePatches<'a> {
    /// Those of `patches` that are about the route configuration `name`, in their order.
    pub fn of(name: &str, patches: &'a [Arc<Patch>]) -> Self {
        let about = |patch: &&Arc<Patch>| patch.subject.routes().is_some_and(|m| m.admits(name));
        let all: Vec<&Arc<Patch>> = patches.iter().filter(about).collect();
        let apart = all.iter().all(|patch| reach(patch) != Reach::AllHosts);
        let (hosts, table) =
            all.into_iter().partition(|patch| apart && reach(patch) == Reach::EachHost);
        Self { hosts, table }
    }

    /// Whether nothing is changed.
    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty() && self.table.is_empty()
    }

    /// All of them as a hash; `None`: there are none.
    pub fn content(&self) -> Option<Content> {
        (!self.is_empty()).then(|| Content::of(&(&self.hosts, &self.table)))
    }

    /// Those of [`Self::host`] as a hash; `None`: it changes nothing.
    pub fn host_content(&self) -> Option<Content> {
        (!self.hosts.is_empty()).then(|| Content::of(&self.hosts))
    }

    /// An encoded virtual host with what is done to each in it.
    pub fn host(&self, body: &Bytes) -> (Bytes, Report) {
        changed(VIRTUAL_HOST, body.clone(), |host, report| {
            route::patch_host(host, &self.hosts, report)
        })
    }

    /// The route configuration from its virtual hosts as [`Self::host`] gives them, in the frame's
    /// order.
    pub fn splice(&self, frame: &RouteFrame, hosts: &[Bytes]) -> (Bytes, Report) {
        if self.table.iter().any(|patch| reach(patch) != Reach::Head) {
            let whole = emit::splice_route(frame, hosts);
            return patched(ResourceType::Route, whole, &self.table);
        }
        let head = emit::splice_route(frame, &[]);
        let (head, report) = match self.table.is_empty() {
            true => (head, Report::default()),
            false => patched(ResourceType::Route, head, &self.table),
        };
        (emit::with_virtual_hosts(&head, hosts), report)
    }

    /// Both at one stroke, from virtual hosts as they were emitted.
    pub fn apply(&self, frame: &RouteFrame, hosts: &[Bytes]) -> (Bytes, Report) {
        let mut all = Report::default();
        let own = hosts.iter().map(|body| {
            let (body, report) = self.host(body);
            all.merge(report);
            body
        });
        let own: Vec<Bytes> = own.collect();
        let (body, report) = self.splice(frame, &own);
        all.merge(report);
        (body, all)
    }
}

/// What a patch must see of a route configuration.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// All but the hosts.
    Head,
    /// One host at a time.
    EachHost,
    /// All hosts: some come or go, or claim other domains.
    AllHosts,
}

fn reach(patch: &Patch) -> Reach {
    let holds = |field: &str| {
        let message = patch.message.as_ref().and_then(edit::open);
        message.is_some_and(|message| message.has_field_by_name(field))
    };
    match (&patch.subject, patch.operation) {
        (PatchSubject::RouteConfiguration(_), _) if !holds("virtual_hosts") => Reach::Head,
        (PatchSubject::VirtualHost(_), PatchOperation::Merge(_)) if !holds("domains") => {
            Reach::EachHost
        }
        (PatchSubject::Route(_), _) => Reach::EachHost,
        _ => Reach::AllHosts,
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use prost_reflect::DynamicMessage;
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        debug,
        descriptors::pool,
        emit::tests::{full_route, virtual_host},
        ir::{Kind, MergedLists, ObjectId, PatchMessage, ProxyCondition, RouteConfigurationMatch},
        plan::PlanItem,
    };

    fn patch(subject: PatchSubject, kind: &str, value: &Value) -> Arc<Patch> {
        let kind = format!("envoy.config.route.v3.{kind}");
        let descriptor = pool().get_message_by_name(&kind).expect("a type");
        let message = DynamicMessage::deserialize(descriptor, value).expect("a message");
        let body = message.encode_to_vec().into();
        Arc::new(Patch {
            origin: ObjectId { kind: Kind::ENVOY_FILTER, namespace: "a".into(), name: "a".into() },
            at: "".into(),
            side: None,
            proxy: ProxyCondition::default(),
            subject,
            operation: PatchOperation::Merge(MergedLists::Joined),
            message: Some(PatchMessage { kind: kind.into(), name: "".into(), body }),
            guards: false,
        })
    }

    #[test]
    fn hosts_one_by_one_and_all_at_once_come_to_the_same() {
        let all = RouteConfigurationMatch::default;
        let header = |name: &str| json!({ "response_headers_to_remove": [name] });
        let host = RouteConfigurationMatch { host: "b".into(), ..all() };
        let claim = json!({ "domains": ["c.example"] });
        let table =
            patch(PatchSubject::RouteConfiguration(all()), "RouteConfiguration", &header("t"));
        let hosts = patch(PatchSubject::VirtualHost(all()), "VirtualHost", &header("h"));
        let routes = patch(PatchSubject::Route(host.clone()), "Route", &header("r"));
        let claims = patch(PatchSubject::VirtualHost(host), "VirtualHost", &claim);
        let frame =
            RouteFrame { name: "80".into(), ignore_port_in_host: true, virtual_hosts: Vec::new() };
        let plain = [("a", "a.example"), ("b", "b.example")].map(|(name, domain)| {
            let plan = virtual_host(vec![full_route()]);
            let plan = crate::plan::VirtualHostPlan {
                name: name.into(),
                domains: vec![domain.into()],
                ..plan
            };
            emit::emit(&PlanItem::VirtualHost(plan))
        });
        let apart = [
            (vec![table.clone()], true),
            (vec![hosts.clone(), routes.clone()], true),
            (vec![routes.clone(), table.clone(), hosts.clone()], true),
            (vec![table, hosts, routes, claims], false),
        ];
        for (patches, apart) in apart {
            let own = RoutePatches::of("80", &patches);
            assert_eq!(own.table.iter().all(|patch| reach(patch) == Reach::Head), apart);
            let (body, report) = own.apply(&frame, &plain);
            let every: Vec<&Arc<Patch>> = patches.iter().collect();
            let (whole, expected) =
                patched(ResourceType::Route, emit::splice_route(&frame, &plain), &every);
            let json = |body: &[u8]| debug::to_json(ResourceType::Route, body).expect("a table");
            assert_eq!(json(&body), json(&whole));
            assert_eq!(report, expected);
            assert!(!report.applied.is_empty());
        }
    }
}
