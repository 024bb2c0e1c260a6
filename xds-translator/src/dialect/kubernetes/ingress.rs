//! `networking.k8s.io Ingress`: fields, rules, and what it means.
//!
//! An Ingress is a gateway configuration and a table of routes for it, as in Istio: port 80 for
//! every host, port 443 for those with a certificate, which lies in the namespace of the gateway's
//! pods.

use std::{collections::BTreeSet, sync::Arc};

use crate::{
    diagnostic::{Code, Diagnostic, FieldPath},
    dialect::{
        decode::Decoder,
        forms::{HostForm, check_host, check_range, each},
        lowering::Lowering,
        schema::object,
        spec::Spec,
    },
    ir::{
        Attachment, Destination, DestinationPort, Field, GatewayConfig, GatewayHost,
        GatewayProtocol, GatewayServer, HeaderOps, Hostname, HttpMatch, HttpRule, PathMatch, Pins,
        RouteFields, RouteTable, RuleOrder, ServerTls, ServerTlsMode, Standing, TlsWords,
        Unreachable, Visibility, WeightedDestination,
    },
    snapshot::Item,
};

/// The annotation that named a class before `ingressClassName` did.
const CLASS: &str = "kubernetes.io/ingress.class";

object! { open;
    /// Routes of Services for clients outside.
    Ingress {
        /// Its specification.
        "spec" spec: IngressSpec,
    }
}

object! { open;
    /// Specification of an Ingress.
    IngressSpec {
        /// Whose it is.
        "ingressClassName" class: Arc<str>,
        /// For requests that no rule is for.
        "defaultBackend" default_backend: Option<IngressBackend>,
        /// Certificates.
        "tls" tls: Vec<IngressTls>,
        /// Hosts with their paths.
        "rules" rules: Vec<IngressRule>,
    }
}

object! { open;
    /// A certificate.
    IngressTls {
        /// Hosts that it is for; absent: every host.
        "hosts" hosts: Vec<Arc<str>>,
        /// The Secret that holds it.
        "secretName" secret_name: Arc<str>,
    }
}

object! { open;
    /// A host with its paths.
    IngressRule {
        /// The host; absent: every host.
        "host" host: Arc<str>,
        /// Paths; absent: every request goes to the default backend.
        "http" http: Option<IngressPaths>,
    }
}

object! { open;
    /// Paths of a host.
    IngressPaths {
        /// The paths; the most specific counts.
        "paths" paths: Vec<IngressPath>,
    }
}

object! { open;
    /// A path.
    IngressPath {
        /// What it is compared with.
        "path" path: Arc<str>,
        /// How: `Exact`, `Prefix` (by segments) or `ImplementationSpecific` (as in Istio: equal, or
        /// with `*` or `.*` at its end a beginning).
        "pathType" path_type: Arc<str>,
        /// Where requests go.
        "backend" backend: IngressBackend,
    }
}

object! { open;
    /// Where requests go.
    IngressBackend {
        /// A Service.
        "service" service: Option<IngressService>,
    }
}

object! { open;
    /// A Service with its port.
    IngressService {
        /// Its name.
        "name" name: Arc<str> [required],
        /// Its port.
        "port" port: IngressPort,
    }
}

object! { open;
    /// A port, by one of both.
    IngressPort {
        /// Its name.
        "name" name: Arc<str>,
        /// Its number.
        "number" number: u16,
    }
}

impl Spec for Ingress {
    fn check(&self, at: &mut Decoder) {
        at.within("spec", |at| check(&self.spec, at));
    }

    fn lower(&self, lowering: &mut Lowering<'_>) -> Vec<Item> {
        match lowering.takes_ingress(&self.spec) {
            true => vec![lowering.ingress_gateway(&self.spec), lowering.ingress_routes(&self.spec)],
            false => Vec::new(),
        }
    }
}

fn check(spec: &IngressSpec, at: &mut Decoder) {
    if spec.rules.is_empty() && spec.default_backend.is_none() {
        at.invalid("no routes: one of `rules`, `defaultBackend` must be given", None);
    }
    if let Some(backend) = &spec.default_backend {
        at.within("defaultBackend", |at| check_backend(backend, at));
    }
    each("tls", &spec.tls, at, |tls, at| {
        each("hosts", &tls.hosts, at, |host, at| check_host(host, HostForm::Wildcard, at));
    });
    each("rules", &spec.rules, at, |rule, at| {
        if !rule.host.is_empty() {
            at.within("host", |at| check_host(&rule.host, HostForm::Wildcard, at));
        }
        let paths = rule.http.as_ref().map_or(&[][..], |http| &http.paths);
        at.within("http", |at| each("paths", paths, at, check_path));
    });
}

fn check_path(path: &IngressPath, at: &mut Decoder) {
    const TYPES: &[&str] = &["Exact", "Prefix", "ImplementationSpecific"];
    if !TYPES.contains(&&*path.path_type) {
        let finding = Diagnostic::error(
            Code::InvalidValue,
            at.path().field("pathType"),
            "not a way to compare paths",
        );
        let got = format!("`{}`", path.path_type);
        at.note(finding.expected(format!("one of {}", TYPES.join(", ")), got));
    }
    let any = path.path.is_empty() && &*path.path_type == "ImplementationSpecific";
    if !any && !path.path.starts_with('/') {
        let message = format!("`{}` does not begin with a slash", path.path);
        at.within("path", |at| at.invalid(message, Some(format!("`/{}`", path.path))));
    }
    at.within("backend", |at| check_backend(&path.backend, at));
}

fn check_backend(backend: &IngressBackend, at: &mut Decoder) {
    let Some(service) = &backend.service else {
        at.missing("service", Some("a Service; other resources are not served".to_owned()));
        return;
    };
    at.within("service", |at| {
        let IngressPort { name, number } = &service.port;
        match (name.is_empty(), number) {
            (true, 0) => at.missing("port", Some("`number` or `name`".to_owned())),
            (false, 1..) => at.within("port", |at| {
                at.invalid("only one of `name`, `number` may be given", None);
            }),
            (true, number) => at.within("port", |at| {
                check_range("number", i64::from(*number), 1..=65535, at);
            }),
            (false, 0) => {}
        }
    });
}

impl Lowering<'_> {
    /// Whether the mesh's gateways serve an Ingress: by its class, or for want of one.
    fn takes_ingress(&self, spec: &IngressSpec) -> bool {
        let annotated = self.meta.annotations.get(CLASS).map_or("", |class| &**class);
        self.mesh.ingress.takes(annotated, &spec.class)
    }

    fn ingress_gateway(&self, spec: &IngressSpec) -> Item {
        let id = self.id;
        let at = FieldPath::of("spec");
        let plain = GatewayServer {
            at: at.to_string().into(),
            port: 80,
            port_name: format!("http-80-ingress-{}-{}", id.name, id.namespace).into(),
            protocol: GatewayProtocol::Http,
            bind: None,
            hosts: vec![any_namespace("*")],
            https_redirect: false,
            tls: None,
        };
        // Without a name Kubernetes leaves the certificate to whoever serves, who has none.
        let certified = spec.tls.iter().enumerate().filter(|(_, tls)| !tls.secret_name.is_empty());
        let secure = certified.map(|(i, tls)| {
            let at = at.field("tls").index(i);
            let hosts: Vec<GatewayHost> =
                tls.hosts.iter().map(|host| any_namespace(host)).collect();
            GatewayServer {
                at: at.to_string().into(),
                port: 443,
                port_name: format!("https-443-ingress-{}-{}-{i}", id.name, id.namespace).into(),
                protocol: GatewayProtocol::Https,
                hosts: if hosts.is_empty() { vec![any_namespace("*")] } else { hosts },
                tls: Some(simple_tls(&at.field("secretName"), &tls.secret_name)),
                ..plain.clone()
            }
        });
        let servers = std::iter::once(plain.clone()).chain(secure).collect();
        let selector = [("istio".into(), self.mesh.ingress.selector.clone())];
        let selector = crate::ir::Labels::from(selector).into();
        Item::Gateway(Arc::new(GatewayConfig { origin: self.origin(), selector, servers }))
    }

    fn ingress_routes(&self, spec: &IngressSpec) -> Item {
        let at = FieldPath::of("spec");
        let mut rules = Vec::new();
        for (i, rule) in spec.rules.iter().enumerate() {
            let at = at.field("rules").index(i);
            let host = Hostname::new(if rule.host.is_empty() { "*" } else { &rule.host });
            let paths = rule.http.as_ref().map_or(&[][..], |http| &http.paths);
            for (j, path) in paths.iter().enumerate() {
                let at = at.field("http").field("paths").index(j);
                let matches = condition(path).into_iter().collect();
                rules.extend(self.ingress_rule(&at, (&host, matches), &path.backend, "backend"));
            }
            let rest = spec.default_backend.as_ref().filter(|_| paths.is_empty());
            rules.extend(rest.and_then(|backend| {
                self.ingress_rule(&at_default(), (&host, Vec::new()), backend, "defaultBackend")
            }));
        }
        rules.extend(spec.default_backend.as_ref().and_then(|backend| {
            let every = Hostname::new("*");
            self.ingress_rule(&at_default(), (&every, Vec::new()), backend, "defaultBackend")
        }));
        let hosts: BTreeSet<Hostname> = rules.iter().flat_map(|rule| rule.hosts.clone()).collect();
        let field_of = |host: &Hostname| -> Field {
            let rule = spec.rules.iter().position(|rule| Hostname::new(&rule.host) == *host);
            rule.map_or(at.clone(), |i| at.field("rules").index(i).field("host")).to_string().into()
        };
        let fields = hosts.iter().map(field_of).collect();
        Item::Routes(Arc::new(RouteTable {
            origin: self.origin(),
            attachments: vec![Attachment::Gateway(self.id.clone())],
            export_to: Visibility::Public,
            http: rules,
            order: RuleOrder::BySpecificity,
            standing: Standing::Usual,
            tls: Vec::new(),
            tcp: Vec::new(),
            fields: RouteFields { hosts: fields, gateways: Vec::new(), idle: Vec::new() },
            hosts: hosts.into_iter().collect(),
        }))
    }

    /// `None`: the backend is none that was taken, which is said.
    fn ingress_rule(
        &self,
        at: &FieldPath,
        (host, matches): (&Hostname, Vec<HttpMatch>),
        backend: &IngressBackend,
        field: &'static str,
    ) -> Option<HttpRule> {
        let service = backend.service.as_ref()?;
        let named = at.field(field).field("service").field("name");
        let destination = Destination {
            host: self.host(&service.name),
            port: match service.port.number {
                0 => DestinationPort::Named(service.port.name.clone()),
                number => DestinationPort::Number(number),
            },
            subset: "".into(),
            at: named.to_string().into(),
            of: None,
        };
        let destinations = vec![WeightedDestination {
            destination,
            weight: 1,
            unreachable: Unreachable::Fail,
            headers: HeaderOps::default(),
        }];
        let rule = HttpRule::forward(at.to_string().into(), destinations);
        Some(HttpRule { hosts: vec![host.clone()], matches, ..rule })
    }
}

/// Where the default backend is written below.
fn at_default() -> FieldPath {
    FieldPath::of("spec")
}

fn any_namespace(host: &str) -> GatewayHost {
    GatewayHost { namespace: None, host: Hostname::new(host) }
}

fn simple_tls(at: &FieldPath, secret: &Arc<str>) -> ServerTls {
    ServerTls {
        mode: ServerTlsMode::Simple,
        credentials: vec![secret.clone()],
        ca_credential: None,
        files: Vec::new(),
        ca_file: "".into(),
        crl_file: "".into(),
        subject_alt_names: Vec::new(),
        pins: Pins::default(),
        min_version: None,
        max_version: None,
        words: TlsWords::default(),
        credential_fields: vec![at.to_string().into()],
        ca_credential_field: "".into(),
    }
}

/// What a path asks for; `None`: nothing.
fn condition(path: &IngressPath) -> Option<HttpMatch> {
    let text = &*path.path;
    let path = match &*path.path_type {
        "Exact" => PathMatch::Exact(text.into()),
        "Prefix" => PathMatch::segments(text),
        _ if text.is_empty() => return None,
        _ => match text.strip_suffix(".*").or(text.strip_suffix('*')) {
            Some(beginning) => PathMatch::Prefix(beginning.into()),
            None => PathMatch::Exact(text.into()),
        },
    };
    Some(HttpMatch { path: Some(path), ..HttpMatch::default() })
}
