//! Pods, and what they are made from: their proxies, users and Services.

use std::collections::{BTreeMap, BTreeSet};

use super::input::{Input, has_proxy};
use crate::{
    diagnostic::{Code, Diagnostic, FieldPath},
    dialect::{
        Kind, Object,
        kubernetes::{Deployment, IntegerOrText, Pod, PodSpec, PodTemplate, ServicePort},
    },
    ir::{Labels, ObjectId},
};

/// Labels and annotations by which pods and namespaces ask for a proxy.
const INJECT: &str = "sidecar.istio.io/inject";
const INJECTION: &str = "istio-injection";
const REVISION: &str = "istio.io/rev";

/// The user that proxies run as: its traffic is the proxy's own, and not redirected to it.
const PROXY_USER: i64 = 1337;

pub(super) fn check(input: &Input<'_>, findings: &mut Vec<Diagnostic>) {
    for object in input.objects().filter(|object| input.is_wanted(&object.id)) {
        let mut found = Vec::new();
        if let Some(Pod { spec, .. }) = object.content() {
            check_pod(input, object, spec, &mut found);
        } else if let Some(Deployment { spec }) = object.content() {
            check_deployment(input, object, &spec.template, &mut found);
        }
        findings.extend(found.into_iter().map(|finding| input.diagnose(&object.id, finding)));
    }
}

fn check_pod(input: &Input<'_>, pod: &Object, spec: &PodSpec, found: &mut Vec<Diagnostic>) {
    let at = FieldPath::of("spec");
    found.extend(check_user(spec, &at));
    found.extend(awaited_image(spec, &at).map(|field| {
        let message = "`auto` stands for the image that the injector gives, and it gave none";
        Diagnostic::error_ref(Code::ImageAuto, field, message)
            .istio("IST0147")
            .fix("the namespace's label `istio-injection: enabled`, then make the pod anew")
    }));
    let labels = &pod.meta.labels;
    let asked = labels.get(INJECT).or_else(|| pod.meta.annotations.get(INJECT));
    let refused = asked.is_some_and(|word| word.eq_ignore_ascii_case("false"));
    let namespace = namespace_labels(input, &pod.id);
    let injected = namespace.is_some_and(|labels| is(labels, INJECTION, "enabled"));
    let meshed = labels.get("security.istio.io/tlsMode").is_some_and(|mode| &**mode == "istio");
    if injected && !refused && !spec.host_network && !has_proxy(spec) && !meshed {
        let message = "no proxy, though pods of its namespace get one: it was made before";
        let finding =
            Diagnostic::warning(Code::MissingProxy, FieldPath::of("metadata.name"), message);
        found.push(finding.fix("make it anew, as by `kubectl rollout restart`"));
    }
}

fn check_deployment(
    input: &Input<'_>,
    deployment: &Object,
    template: &PodTemplate,
    found: &mut Vec<Diagnostic>,
) {
    let at = FieldPath::of("spec.template.spec");
    found.extend(check_user(&template.spec, &at));
    let injected = is_injected(input, &deployment.id, template);
    if !injected {
        found.extend(awaited_image(&template.spec, &at).map(|field| {
            let message = "`auto` stands for the image that the injector gives, which is not asked";
            Diagnostic::warning(Code::ImageAuto, field, message)
                .fix("the label `sidecar.istio.io/inject: \"true\"` of the template")
        }));
        return;
    }
    let services: Vec<(&Object, &[ServicePort])> = input
        .services()
        .filter(|(object, service)| {
            let selector = &service.spec.selector;
            object.id.namespace == deployment.id.namespace
                && !selector.is_empty()
                && selector.iter().all(|(k, v)| template.metadata.labels.get(k) == Some(v))
        })
        .map(|(object, service)| (object, &service.spec.ports[..]))
        .collect();
    check_transports(input, &services, found);
    check_targets(input, &services, found);
}

/// Services of one port by several transports: sidecars have one listener for it.
fn check_transports(
    input: &Input<'_>,
    services: &[(&Object, &[ServicePort])],
    found: &mut Vec<Diagnostic>,
) {
    let mut by_port: BTreeMap<u16, BTreeMap<String, BTreeSet<&ObjectId>>> = BTreeMap::new();
    for (object, ports) in services {
        for port in *ports {
            let transport = match &*port.protocol {
                "" => "TCP".to_owned(),
                transport => transport.to_ascii_uppercase(),
            };
            let here = by_port.entry(port.port).or_default();
            here.entry(transport).or_default().insert(&object.id);
        }
    }
    for (port, transports) in by_port.iter().filter(|(_, transports)| transports.len() > 1) {
        let all: Vec<&str> = transports.keys().map(String::as_str).collect();
        let message = format!("its Services have port {port} for {}", all.join(" and "));
        let finding =
            Diagnostic::warning(Code::SharedPorts, FieldPath::of("metadata.name"), message)
                .fix("another port for one of them");
        found.push(relate(input, finding, transports.values().flatten()));
    }
}

/// Services that lead to one port of the pods by several ports of their own.
fn check_targets(
    input: &Input<'_>,
    services: &[(&Object, &[ServicePort])],
    found: &mut Vec<Diagnostic>,
) {
    let mut by_target: BTreeMap<String, BTreeMap<u16, BTreeSet<&ObjectId>>> = BTreeMap::new();
    for (object, ports) in services {
        for port in *ports {
            let target = match &port.target_port {
                IntegerOrText::Absent | IntegerOrText::Number(0) => port.port.to_string(),
                IntegerOrText::Number(number) => number.to_string(),
                IntegerOrText::Name(name) => name.to_string(),
            };
            by_target.entry(target).or_default().entry(port.port).or_default().insert(&object.id);
        }
    }
    for (target, ports) in by_target.iter().filter(|(_, ports)| ports.len() > 1) {
        let all: Vec<String> = ports.keys().map(u16::to_string).collect();
        let message =
            format!("its Services lead to `targetPort: {target}` by ports {}", all.join(" and "));
        let finding =
            Diagnostic::warning(Code::SharedPorts, FieldPath::of("metadata.name"), message)
                .istio("IST0137")
                .fix("one port, or a `targetPort` for each");
        found.push(relate(input, finding, ports.values().flatten()));
    }
}

fn relate<'a, 'b: 'a>(
    input: &Input<'_>,
    finding: Diagnostic,
    ids: impl Iterator<Item = &'a &'b ObjectId>,
) -> Diagnostic {
    let ids: BTreeSet<&ObjectId> = ids.copied().collect();
    ids.into_iter().fold(finding, |f, id| input.relate(f, id, &FieldPath::of("spec.ports")))
}

/// Whether the pods of a template get a proxy.
fn is_injected(input: &Input<'_>, id: &ObjectId, template: &PodTemplate) -> bool {
    let meta = &template.metadata;
    let asked = meta.labels.get(INJECT).or_else(|| meta.annotations.get(INJECT));
    if let Some(word) = asked {
        return word.eq_ignore_ascii_case("true");
    }
    let of_namespace = namespace_labels(input, id);
    meta.labels.contains_key(REVISION)
        || of_namespace.is_some_and(|labels| match labels.get(INJECTION) {
            Some(word) => &**word == "enabled",
            None => labels.contains_key(REVISION),
        })
}

fn is(labels: &Labels, key: &str, value: &str) -> bool {
    labels.get(key).is_some_and(|word| &**word == value)
}

fn namespace_labels<'a>(input: &Input<'a>, id: &ObjectId) -> Option<&'a Labels> {
    let namespace =
        ObjectId { kind: Kind::NAMESPACE, namespace: "".into(), name: id.namespace.clone() };
    input.object(&namespace).map(|object| &object.meta.labels)
}

/// The field of a proxy's image that somebody else is to fill in.
fn awaited_image(spec: &PodSpec, at: &FieldPath) -> Option<FieldPath> {
    let auto = |c: &crate::dialect::kubernetes::Container| {
        matches!(&*c.name, "istio-proxy" | "ferromesh-proxy") && &*c.image == "auto"
    };
    let index = spec.containers.iter().position(auto)?;
    Some(at.field("containers").index(index).field("image"))
}

/// Applications that run as the proxy's user: what they send is not redirected to the proxy.
fn check_user(spec: &PodSpec, at: &FieldPath) -> Vec<Diagnostic> {
    let user = |context: &Option<crate::dialect::kubernetes::SecurityContext>| {
        context.as_ref().and_then(|context| context.run_as_user) == Some(PROXY_USER)
    };
    let applications = spec.containers.iter().enumerate().filter(|(_, container)| {
        !matches!(&*container.name, "istio-proxy" | "ferromesh-proxy")
            && user(&container.security_context)
    });
    let of_pod = user(&spec.security_context).then(|| at.clone());
    let of_containers = applications.map(|(index, _)| at.field("containers").index(index));
    let message = format!("user {PROXY_USER} is the proxy's: what the application sends passes it");
    let finding = |at: FieldPath| {
        let field = at.field("securityContext").field("runAsUser");
        Diagnostic::warning(Code::ReservedUser, field, message.clone()).fix("another user")
    };
    of_pod.into_iter().chain(of_containers).map(finding).collect()
}
