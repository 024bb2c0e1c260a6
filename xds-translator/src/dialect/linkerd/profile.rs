//! `linkerd.io ServiceProfile`: fields, rules, and what they mean.

use std::{sync::Arc, time::Duration};

use serde_json::{Map, Value};

use super::{
    budget::RetryBudget,
    condition::RequestCondition,
    profile_words,
    route::{itself, share},
};
use crate::{
    diagnostic::{Change, Code, Diagnostic},
    dialect::{
        decode::{Decode, Decoder},
        forms::{HostForm, check_host, each},
        lowering::Lowering,
        reading,
        schema::{Shape, object},
        spec::{Content, Spec},
        weight::Weight,
    },
    ir::{
        Attachment, BackendPolicy, DestinationPort, Hostname, HttpRule, Retry, RetryCondition,
        RetryPolicy, RouteFields, RouteTable, RuleOrder, Standing, TcpRule, Timeouts,
        TrafficPolicy, Unreachable, Visibility, WeightedDestination,
    },
    snapshot::Item,
};

object! { no_null;
    /// Routes of a service, which the object's name is.
    ServiceProfile {
        /// The first that matches counts.
        "routes" routes: Vec<ProfileRoute>,
        /// How many requests may be tried again (20 %, and 10 in a second).
        "retryBudget" retry_budget: Option<RetryBudget>,
        /// Other services, to which all requests go instead, by weight.
        "dstOverrides" dst_overrides: Vec<DstOverride>,
        /// Ports at which nothing is detected.
        "opaquePorts" opaque_ports: Vec<Arc<str>> [refused("what a port speaks is said by the Service: annotate it with `config.linkerd.io/opaque-ports`")],
    }
}

object! { no_null;
    /// A route.
    ProfileRoute {
        /// Its name.
        "name" name: Arc<str> [required],
        /// Which requests.
        "condition" condition: RequestCondition [required],
        /// Which answers are failures: as the first says that matches; else a status of 500 to 599.
        "responseClasses" response_classes: Vec<ResponseClass>,
        /// Whether what fails is tried again.
        "isRetryable" is_retryable: bool,
        /// Limit of the whole request, tries included.
        "timeout" timeout: Option<Duration>,
    }
}

object! { no_null;
    /// Whether some answers are failures.
    ResponseClass {
        /// Which answers.
        "condition" condition: ResponseCondition [required],
        /// Whether they are failures.
        "isFailure" is_failure: bool,
    }
}

object! { no_null;
    /// A condition on an answer; what it asks for must all hold.
    ResponseCondition {
        /// Its status.
        "status" status: Option<StatusRange>,
        /// All of these hold.
        "all" all: NestedAnswers,
        /// One of these holds.
        "any" any: NestedAnswers,
        /// None of these holds: one condition, or a list.
        "not" not: NestedAnswers,
    }
}

object! { no_null;
    /// Statuses; one bound alone is the only one.
    StatusRange {
        /// The least.
        "min" min: Option<u16>,
        /// The greatest.
        "max" max: Option<u16>,
    }
}

/// Conditions within a condition, which are anything in a definition for API servers.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct NestedAnswers(pub Vec<ResponseCondition>);

impl Decode for NestedAnswers {
    fn decode(value: &Value, at: &mut Decoder) -> Self {
        match value {
            Value::Array(list) => {
                let each = list.iter().enumerate();
                let decode = |(i, value): (usize, &Value)| {
                    at.within_index(i, |at| ResponseCondition::decode(value, at))
                };
                Self(each.map(decode).collect())
            }
            one => Self(vec![ResponseCondition::decode(one, at)]),
        }
    }

    fn shape() -> Shape {
        Shape::Any
    }
}

object! { no_null;
    /// A service that gets a share.
    DstOverride {
        /// Its full name, perhaps with a port; without one it is called at the port that was asked for.
        "authority" authority: Arc<str> [required],
        /// Its weight, relative to the others'.
        "weight" weight: Weight [required],
    }
}

// -------------------------------------------------------------------------------------------------
// rules

/// Reads a profile, and notes what stands beside its content.
pub(super) fn read(value: &Value, map: &Map<String, Value>, at: &mut Decoder) -> Content {
    at.within("apiVersion", |at| {
        at.remark(|path| {
            let message = "Linkerd keeps ServiceProfiles for compatibility only";
            Diagnostic::info(Code::Deprecated, path, message)
                .fix("Gateway API's HTTPRoute, with annotations for retries and timeouts")
        });
    });
    let name = value.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
    let namespace = value.pointer("/metadata/namespace").and_then(Value::as_str);
    match (service(name), namespace) {
        (None, namespace) => {
            let whole = format!("{name}.{}.svc.cluster.local", namespace.unwrap_or("default"));
            at.within("metadata", |at| at.within("name", |at| note_name(&whole, at)));
        }
        (Some((_, own)), None) if own != "default" => at.within("metadata", |at| {
            let path = at.path().field("namespace");
            let message = "absent: the profile is for clients of namespace `default` only";
            at.note(
                Diagnostic::info(Code::NoEffect, path, message).fix(format!("`namespace: {own}`")),
            );
        }),
        _ => {}
    }
    let map = profile_words::taken_out(map, at);
    reading::spec::<ServiceProfile>(&Value::Object(map.clone()), &map, at)
}

fn note_name(whole: &str, at: &mut Decoder) {
    let path = at.path();
    let message = "the name is no full name of a service, so that nothing follows the profile";
    let finding = Diagnostic::warning(Code::NoEffect, path.clone(), message);
    at.note(finding.fix(format!("`{whole}`")).change(Change::Set(path, whole.into())));
}

/// Name and namespace of the service that a full name means.
fn service(name: &str) -> Option<(&str, &str)> {
    let (service, rest) = name.split_once('.')?;
    let (namespace, rest) = rest.split_once('.')?;
    (rest == "svc" || rest.starts_with("svc.")).then_some((service, namespace))
}

impl Spec for ServiceProfile {
    fn check(&self, at: &mut Decoder) {
        at.within("spec", |at| self.check_spec(at));
    }

    fn lower(&self, lowering: &mut Lowering<'_>) -> Vec<Item> {
        let Some((_, namespace)) = service(&lowering.id.name) else { return Vec::new() };
        let host = Hostname::new(&lowering.id.name);
        let export_to = match *namespace == **lowering.namespace() {
            true => Visibility::Public,
            false => Visibility::Namespaces([lowering.namespace().clone()].into()),
        };
        let mut items = vec![self.table(lowering, &host, export_to.clone())];
        if self.routes.iter().any(|route| route.is_retryable) {
            items.push(self.budget(lowering, host, export_to));
        }
        items
    }
}

impl ServiceProfile {
    fn check_spec(&self, at: &mut Decoder) {
        each("routes", &self.routes, at, ProfileRoute::check);
        each("dstOverrides", &self.dst_overrides, at, |one, at| {
            at.within("authority", |at| {
                let (host, port) = authority(&one.authority);
                check_host(host, HostForm::Exact, at);
                if port == Some(None) {
                    at.invalid("not the number of a port", None);
                }
            });
        });
        let nobody = self.dst_overrides.iter().all(|one| one.weight == Weight(0));
        if nobody && !self.dst_overrides.is_empty() {
            at.within("dstOverrides", |at| at.invalid("every weight is 0", None));
        }
        let Some(budget) = &self.retry_budget else { return };
        at.within("retryBudget", |at| budget.check(at));
        if !self.routes.iter().any(|route| route.is_retryable) {
            at.within("routes", |at| {
                at.remark(|path| {
                    let message = "no route is retryable, so that the budget does nothing";
                    Diagnostic::warning(Code::NoEffect, path, message)
                        .fix("`isRetryable: true` on a route")
                });
            });
        }
    }

    fn destinations(&self, host: &Hostname) -> Vec<WeightedDestination> {
        if self.dst_overrides.is_empty() {
            return itself("metadata.name", host);
        }
        let overrides = self.dst_overrides.iter().enumerate();
        let one = |(i, one): (usize, &DstOverride)| {
            let (host, port) = authority(&one.authority);
            let port = port.flatten().map_or(DestinationPort::Requested, DestinationPort::Number);
            let at = format!("spec.dstOverrides[{i}].authority");
            share(&at, Hostname::new(host), port, one.weight.0, Unreachable::Fail)
        };
        overrides.map(one).collect()
    }

    /// What no route matches is served without any of their settings.
    fn table(&self, lowering: &Lowering<'_>, host: &Hostname, export_to: Visibility) -> Item {
        let forward = |at: &str| HttpRule::forward(at.into(), self.destinations(host));
        let routes = self.routes.iter().enumerate();
        let rules = routes.map(|(i, route)| HttpRule {
            name: route.name.clone(),
            matches: route.condition.matches(),
            timeouts: Timeouts { request: route.timeout, ..Timeouts::default() },
            retry: route.retry(),
            ..forward(&format!("spec.routes[{i}]"))
        });
        // A condition that no request meets has no match, which would be one for every request.
        let met = rules.filter(|rule| !rule.matches.is_empty());
        let at = if self.dst_overrides.is_empty() { "metadata.name" } else { "spec.dstOverrides" };
        Item::Routes(Arc::new(RouteTable {
            origin: lowering.origin(),
            hosts: vec![host.clone()],
            attachments: vec![Attachment::Mesh],
            export_to,
            http: met.chain([forward(at)]).collect(),
            order: RuleOrder::AsWritten,
            standing: Standing::First,
            tls: Vec::new(),
            tcp: vec![TcpRule {
                at: at.into(),
                matches: Vec::new(),
                destinations: self.destinations(host),
            }],
            fields: RouteFields {
                hosts: vec!["metadata.name".into()],
                gateways: Vec::new(),
                idle: Vec::new(),
            },
        }))
    }

    fn budget(&self, lowering: &Lowering<'_>, host: Hostname, export_to: Visibility) -> Item {
        let retry_budget = Some(RetryBudget::lower(self.retry_budget.as_ref()));
        Item::Backend(Arc::new(BackendPolicy {
            origin: lowering.origin(),
            host,
            export_to,
            workload_selector: None,
            fills_in: true,
            traffic: TrafficPolicy { retry_budget, ..TrafficPolicy::default() },
            subsets: Vec::new(),
        }))
    }
}

/// Host and port of an authority: `Some(None)` is a port that is none.
fn authority(text: &str) -> (&str, Option<Option<u16>>) {
    match text.rsplit_once(':') {
        Some((host, port)) => (host, Some(port.parse().ok().filter(|port| *port != 0))),
        None => (text, None),
    }
}

impl ProfileRoute {
    fn check(&self, at: &mut Decoder) {
        if !at.is_refused_here() {
            at.within("condition", |at| self.condition.check(at));
        }
        each("responseClasses", &self.response_classes, at, |class, at| {
            at.within("condition", |at| class.condition.check(at));
        });
        if self.is_retryable && self.condition.is_for("POST") {
            at.remark(|path| {
                let message = "POST would be retried, which may do twice what is to be done once";
                Diagnostic::warning(Code::Retries, path, message)
                    .fix("no `isRetryable`, unless the application takes a request twice")
            });
        }
    }

    fn retry(&self) -> Retry {
        if !self.is_retryable {
            return Retry::MeshDefault;
        }
        let failing: Vec<u16> = (100..600).filter(|status| self.fails(*status)).collect();
        let usual = failing.len() == 100 && failing.first() == Some(&500);
        let conditions = if usual {
            vec![
                RetryCondition::ServerError,
                RetryCondition::GrpcDeadlineExceeded,
                RetryCondition::GrpcInternal,
                RetryCondition::GrpcUnavailable,
            ]
        } else {
            vec![RetryCondition::ConnectFailure, RetryCondition::RefusedStream]
        };
        Retry::Policy(RetryPolicy {
            attempts: 1,
            conditions: Some(conditions),
            statuses: if usual { Vec::new() } else { failing },
            remote_localities: false,
            ignore_previous_hosts: None,
            backoff: None,
        })
    }

    fn fails(&self, status: u16) -> bool {
        let class = self.response_classes.iter().find(|class| class.condition.holds(status));
        class.map_or(status >= 500, |class| class.is_failure)
    }
}

impl ResponseCondition {
    fn check(&self, at: &mut Decoder) {
        let lists = [&self.all, &self.any, &self.not];
        match &self.status {
            Some(status) => at.within("status", |at| status.check(at)),
            None if lists.iter().all(|list| list.0.is_empty()) => {
                at.invalid("asks for nothing: one of `status`, `all`, `any`, `not`", None);
            }
            None => {}
        }
        for (field, list) in ["all", "any", "not"].into_iter().zip(lists) {
            each(field, &list.0, at, Self::check);
        }
    }

    fn holds(&self, status: u16) -> bool {
        let any = &self.any.0;
        self.status.as_ref().is_none_or(|range| range.contains(status))
            && self.all.0.iter().all(|one| one.holds(status))
            && (any.is_empty() || any.iter().any(|one| one.holds(status)))
            && !self.not.0.iter().any(|one| one.holds(status))
    }
}

impl StatusRange {
    fn check(&self, at: &mut Decoder) {
        let known = |status: u16| (100..600).contains(&status);
        let (min, max) = self.bounds();
        if self.min.is_none() && self.max.is_none() {
            at.invalid("neither `min` nor `max`", None);
        } else if !known(min) || !known(max) || min > max {
            at.invalid("not a range of statuses from 100 to 599", None);
        }
    }

    fn bounds(&self) -> (u16, u16) {
        let only = self.min.or(self.max).unwrap_or_default();
        (self.min.unwrap_or(only), self.max.unwrap_or(only))
    }

    fn contains(&self, status: u16) -> bool {
        let (min, max) = self.bounds();
        (min..=max).contains(&status)
    }
}
