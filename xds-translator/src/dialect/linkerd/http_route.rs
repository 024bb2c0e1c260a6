//! `policy.linkerd.io HTTPRoute`: fields, rules, and what they mean.

use std::{sync::Arc, time::Duration};

use super::{
    annotations::Tries,
    reference::POLICY,
    route::{authority, itself, share},
};
use crate::{
    diagnostic::{Change, Code, Diagnostic},
    dialect::{
        Kind,
        decode::Decoder,
        forms::{HostForm, check_host, each},
        lowering::Lowering,
        schema::{choice, object},
        spec::Spec,
    },
    ir::{
        AccessAction, AccessRule, Attachment, DestinationPort, HeaderChanges, HeaderOps, Hostname,
        HttpAction, HttpMatch, HttpRule, ObjectId, PathMatch, PathRewrite, Redirect, RedirectPort,
        Rewrite, RouteFields, RouteTable, RuleOrder, Standing, StringMatch, Timeouts, Unmatched,
        Unreachable, Visibility, WhichPorts,
    },
    snapshot::Item,
};

object! { no_null;
    /// Routes of Services.
    PortRoute {
        /// The Services.
        "parentRefs" parent_refs: Vec<ParentRef> [required],
        /// Hosts that requests ask for; absent: any.
        "hostnames" hostnames: Vec<Arc<str>>,
        /// The most specific match counts; absent: every request goes to the Service itself.
        "rules" rules: Option<Vec<RouteRule>>,
    }
}

object! { no_null;
    /// What a route is for.
    ParentRef {
        /// Its group (`policy.linkerd.io`).
        "group" group: Option<Arc<str>>,
        /// Its kind (`Gateway`).
        "kind" kind: Option<Arc<str>>,
        /// Its namespace; absent: the route's own.
        "namespace" namespace: Arc<str>,
        /// Its name.
        "name" name: Arc<str> [required],
        /// A part of it.
        "sectionName" section_name: Arc<str> [refused("a Service is meant by its `port`")],
        /// Its port; absent: all.
        "port" port: Option<u16>,
    }
}

object! { no_null;
    /// What becomes of some requests.
    RouteRule {
        /// Its name.
        "name" name: Arc<str>,
        /// Which; alternatives. Absent: all.
        "matches" matches: Vec<RouteMatch>,
        /// What changes.
        "filters" filters: Vec<RouteFilter>,
        /// Where they go, by weight; absent: to the Service itself.
        "backendRefs" backend_refs: Vec<BackendRef>,
        /// How long they may take.
        "timeouts" timeouts: Option<RouteTimeouts>,
    }
}

object! { no_null;
    /// Conditions on a request; all must hold.
    RouteMatch {
        /// On the path; absent: any.
        "path" path: Option<RoutePath>,
        /// On headers.
        "headers" headers: Vec<NamedValue>,
        /// On query parameters.
        "queryParams" query_params: Vec<NamedValue>,
        /// The method.
        "method" method: Arc<str>,
    }
}

object! { no_null;
    /// A condition on a path.
    RoutePath {
        /// How it is compared.
        "type" kind: PathKind,
        /// With what (`/`).
        "value" value: Option<Arc<str>>,
    }
}

choice! {
    /// How a path is compared.
    PathKind {
        /// By its first segments.
        PathPrefix = "PathPrefix",
        /// As a whole.
        Exact = "Exact",
        /// By an expression for the whole.
        RegularExpression = "RegularExpression",
    }
}

object! { no_null;
    /// A condition on a header or query parameter.
    NamedValue {
        /// How it is compared.
        "type" kind: ValueKind,
        /// Its name.
        "name" name: Arc<str> [required],
        /// With what.
        "value" value: Arc<str> [required],
    }
}

choice! {
    /// How a value is compared.
    ValueKind {
        /// As a whole.
        Exact = "Exact",
        /// By an expression for the whole.
        RegularExpression = "RegularExpression",
    }
}

object! { no_null;
    /// A change.
    RouteFilter {
        /// Which; the field of this name says what.
        "type" kind: FilterKind [required],
        /// Headers of the request.
        "requestHeaderModifier" request_header_modifier: Option<HeaderModifier>,
        /// Headers of the response.
        "responseHeaderModifier" response_header_modifier: Option<HeaderModifier>,
        /// An answer that leads elsewhere.
        "requestRedirect" request_redirect: Option<RequestRedirect>,
    }
}

choice! {
    /// What a filter changes.
    FilterKind {
        /// Headers of the request.
        RequestHeaderModifier = "RequestHeaderModifier",
        /// Headers of the response.
        ResponseHeaderModifier = "ResponseHeaderModifier",
        /// It answers.
        RequestRedirect = "RequestRedirect",
    }
}

object! { no_null;
    /// Changes of headers.
    HeaderModifier {
        /// Overwritten.
        "set" set: Vec<HeaderValue>,
        /// Appended.
        "add" add: Vec<HeaderValue>,
        /// Removed.
        "remove" remove: Vec<Arc<str>>,
    }
}

object! { no_null;
    /// A header.
    HeaderValue {
        /// Its name.
        "name" name: Arc<str> [required],
        /// Its value.
        "value" value: Arc<str> [required],
    }
}

object! { no_null;
    /// An answer that leads elsewhere.
    RequestRedirect {
        /// The new scheme.
        "scheme" scheme: Arc<str>,
        /// The new host.
        "hostname" hostname: Arc<str>,
        /// The new path.
        "path" path: Option<RedirectPath>,
        /// The new port.
        "port" port: Option<u16>,
        /// The status (302).
        "statusCode" status_code: Option<u16>,
    }
}

object! { no_null;
    /// How the path changes.
    RedirectPath {
        /// Which part; the field of this name says what stands there.
        "type" kind: RedirectKind [required],
        /// The whole path.
        "replaceFullPath" replace_full_path: Option<Arc<str>>,
        /// The segments that were matched.
        "replacePrefixMatch" replace_prefix_match: Option<Arc<str>>,
    }
}

choice! {
    /// Which part of a path changes.
    RedirectKind {
        /// All of it.
        ReplaceFullPath = "ReplaceFullPath",
        /// The segments that were matched.
        ReplacePrefixMatch = "ReplacePrefixMatch",
    }
}

object! { no_null;
    /// Where requests go.
    BackendRef {
        /// Its group; absent: the core one.
        "group" group: Arc<str>,
        /// Its kind (`Service`).
        "kind" kind: Option<Arc<str>>,
        /// Its name.
        "name" name: Arc<str> [required],
        /// Its namespace; absent: the route's own.
        "namespace" namespace: Arc<str>,
        /// Its port.
        "port" port: Option<u16>,
        /// Its share, relative to the others' (1).
        "weight" weight: Option<u32>,
        /// What changes for this one alone.
        "filters" filters: Vec<RouteFilter> [refused("filters hold for a whole rule: write one rule for each backend that has its own")],
    }
}

object! { no_null;
    /// Limits of time.
    RouteTimeouts {
        /// Of the whole request, tries included.
        "request" request: Option<Duration>,
        /// Of one try.
        "backendRequest" backend_request: Option<Duration>,
    }
}

// -------------------------------------------------------------------------------------------------
// rules

/// What a parent turns out to be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Parent {
    Service,
    Server,
    /// Nothing that routes are for.
    Nothing,
}

impl ParentRef {
    fn names(&self) -> (&str, &str) {
        let group = self.group.as_deref().unwrap_or(POLICY);
        (if group == "core" { "" } else { group }, self.kind.as_deref().unwrap_or("Gateway"))
    }

    fn parent(&self) -> Parent {
        match self.names() {
            ("", "Service") => Parent::Service,
            (POLICY, "Server") => Parent::Server,
            _ => Parent::Nothing,
        }
    }

    fn check(&self, has_rules: bool, at: &mut Decoder) {
        let (group, kind) = self.names();
        match (self.parent(), group, kind) {
            (Parent::Service, ..) => {}
            (Parent::Server, ..) if has_rules => {
                let message = "routes of a Server are not served: as long as this object is not \
                               taken back, the Server takes no requests";
                let fix = "an AuthorizationPolicy for the Server".to_owned();
                at.within("kind", |at| at.invalid(message, Some(fix)));
            }
            (Parent::Server, ..) => {}
            (_, POLICY, "EgressNetwork") => {
                let message = "routes of an EgressNetwork are not served";
                let fix = "a ServiceEntry for the hosts that may be reached".to_owned();
                at.within("kind", |at| at.invalid(message, Some(fix)));
            }
            (_, POLICY, "Service") => {
                let path = at.path();
                let field = path.field("group");
                let message = "the group of Services is the core one: this parent is nothing, and \
                               the route is not followed";
                let change = match self.group.is_some() {
                    true => Change::Set(field.clone(), "core".into()),
                    false => Change::Add(path, "group", "core".into()),
                };
                let finding = Diagnostic::warning(Code::NoEffect, field, message);
                at.note(finding.fix("`group: core`").change(change));
            }
            _ => {
                let message = format!("routes are not for a {kind} of `{group}`: not followed");
                let finding = Diagnostic::warning(Code::NoEffect, at.path().field("kind"), message);
                at.note(finding.fix("`group: core`, `kind: Service`"));
            }
        }
        if self.port == Some(0) {
            at.within("port", |at| at.invalid("not the number of a port", None));
        }
    }
}

impl Spec for PortRoute {
    fn check(&self, at: &mut Decoder) {
        at.within("spec", |at| {
            let has_rules = self.rules.as_ref().is_none_or(|rules| !rules.is_empty());
            each("parentRefs", &self.parent_refs, at, |parent, at| parent.check(has_rules, at));
            each("hostnames", &self.hostnames, at, |host, at| {
                check_host(host, HostForm::Wildcard, at);
            });
            each("rules", self.rules.as_deref().unwrap_or_default(), at, RouteRule::check);
        });
    }

    fn lower(&self, lowering: &mut Lowering<'_>) -> Vec<Item> {
        let mut items = self.closed_servers(lowering);
        let tries = Tries::read(lowering);
        items.extend(self.table(lowering, &tries));
        items
    }
}

impl RouteRule {
    fn check(&self, at: &mut Decoder) {
        each("matches", &self.matches, at, RouteMatch::check);
        each("filters", &self.filters, at, RouteFilter::check);
        each("backendRefs", &self.backend_refs, at, BackendRef::check);
        let Some(timeouts) = &self.timeouts else { return };
        if let (Some(request), Some(one)) = (timeouts.request, timeouts.backend_request)
            && one > request
        {
            at.within("timeouts", |at| {
                let message = "longer than `request`, which holds for all tries";
                at.within("backendRequest", |at| at.invalid(message, None));
            });
        }
    }
}

impl RouteMatch {
    fn check(&self, at: &mut Decoder) {
        if let Some(path) = &self.path {
            at.within("path", |at| at.within("value", |at| path.check_value(at)));
        }
        for (field, list) in [("headers", &self.headers), ("queryParams", &self.query_params)] {
            each(field, list, at, |one, at| {
                if one.kind == ValueKind::RegularExpression {
                    at.within("value", |at| at.check_regex(&one.value));
                }
            });
        }
        if !self.method.chars().all(|c| c.is_ascii_uppercase()) {
            at.within("method", |at| at.invalid("not a method", None));
        }
    }
}

impl RoutePath {
    fn text(&self) -> &str {
        self.value.as_deref().unwrap_or("/")
    }

    fn check_value(&self, at: &mut Decoder) {
        match self.kind {
            PathKind::RegularExpression => at.check_regex(self.text()),
            _ if !self.text().starts_with('/') => at.invalid("does not begin with `/`", None),
            _ => {}
        }
    }
}

impl RouteFilter {
    fn check(&self, at: &mut Decoder) {
        let given = match self.kind {
            FilterKind::RequestHeaderModifier => self.request_header_modifier.is_some(),
            FilterKind::ResponseHeaderModifier => self.response_header_modifier.is_some(),
            FilterKind::RequestRedirect => self.request_redirect.is_some(),
        };
        let fields = [
            self.request_header_modifier.is_some(),
            self.response_header_modifier.is_some(),
            self.request_redirect.is_some(),
        ];
        if !given || fields.iter().filter(|there| **there).count() != 1 {
            let message = format!("exactly the field of its type `{}`", self.kind.as_str());
            at.invalid(message, None);
        }
        for (field, modifier) in [
            ("requestHeaderModifier", &self.request_header_modifier),
            ("responseHeaderModifier", &self.response_header_modifier),
        ] {
            if let Some(modifier) = modifier {
                at.within(field, |at| modifier.check(at));
            }
        }
        if let Some(redirect) = &self.request_redirect {
            at.within("requestRedirect", |at| redirect.check(at));
        }
    }
}

impl HeaderModifier {
    fn check(&self, at: &mut Decoder) {
        let is_name = |name: &str| {
            let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
            !name.is_empty() && name.chars().all(token)
        };
        for (field, list) in [("set", &self.set), ("add", &self.add)] {
            each(field, list, at, |header, at| {
                if !is_name(&header.name) {
                    at.within("name", |at| at.invalid("not the name of a header", None));
                }
                if header.value.chars().any(|c| c.is_control() || c == '%') {
                    let message =
                        "a value without control characters and `%`, which proxies replace";
                    at.within("value", |at| at.invalid(message, None));
                }
            });
        }
        each("remove", &self.remove, at, |name, at| {
            if !is_name(name) || name.eq_ignore_ascii_case("host") {
                at.invalid("not the name of a header that can be removed", None);
            }
        });
    }

    fn changes(&self) -> HeaderChanges {
        let named = |list: &[HeaderValue]| {
            let lower = |h: &HeaderValue| (h.name.to_ascii_lowercase().into(), h.value.clone());
            list.iter().map(lower).collect()
        };
        HeaderChanges {
            set: named(&self.set),
            add: named(&self.add),
            remove: self.remove.iter().map(|name| name.to_ascii_lowercase().into()).collect(),
        }
    }
}

impl RequestRedirect {
    fn check(&self, at: &mut Decoder) {
        if !matches!(&*self.scheme, "" | "http" | "https") {
            at.within("scheme", |at| at.invalid("neither `http` nor `https`", None));
        }
        if !self.hostname.is_empty() {
            at.within("hostname", |at| check_host(&self.hostname, HostForm::Exact, at));
        }
        if self.port == Some(0) {
            at.within("port", |at| at.invalid("not the number of a port", None));
        }
        if self.status_code.is_some_and(|code| !matches!(code, 301 | 302 | 303 | 307 | 308)) {
            let message = "one of 301, 302, 303, 307, 308";
            at.within("statusCode", |at| at.invalid(message, None));
        }
        let Some(path) = &self.path else { return };
        at.within("path", |at| {
            let given = match path.kind {
                RedirectKind::ReplaceFullPath => &path.replace_full_path,
                RedirectKind::ReplacePrefixMatch => &path.replace_prefix_match,
            };
            match given {
                None => at.invalid(format!("`{}` asks for its field", path.kind.as_str()), None),
                Some(text) if !text.starts_with('/') => {
                    at.invalid("does not begin with `/`", None);
                }
                Some(_) => {}
            }
        });
    }

    fn lower(&self) -> Redirect {
        let path = self.path.as_ref().and_then(|path| match path.kind {
            RedirectKind::ReplaceFullPath => path.replace_full_path.clone().map(PathRewrite::Full),
            RedirectKind::ReplacePrefixMatch => {
                path.replace_prefix_match.clone().map(PathRewrite::Segments)
            }
        });
        let given = |text: &Arc<str>| (!text.is_empty()).then(|| text.clone());
        let port = match (self.port, self.scheme.is_empty()) {
            (Some(port), _) => RedirectPort::Number(port),
            (None, false) => RedirectPort::ProtocolDefault,
            (None, true) => RedirectPort::Request,
        };
        Redirect {
            path,
            authority: given(&self.hostname),
            port: Some(port),
            scheme: given(&self.scheme),
            code: self.status_code.unwrap_or(302),
        }
    }
}

impl BackendRef {
    fn check(&self, at: &mut Decoder) {
        let kind = self.kind.as_deref().unwrap_or("Service");
        if !matches!(&*self.group, "" | "core") || kind != "Service" {
            let message = format!("no backend can be a {kind} of `{}`", self.group);
            let fix = "`kind: Service`, and no `group`".to_owned();
            at.within("kind", |at| at.invalid(message, Some(fix)));
        }
        if self.port == Some(0) {
            at.within("port", |at| at.invalid("not the number of a port", None));
        }
        if self.weight.is_some_and(|weight| weight > 1_000_000) {
            at.within("weight", |at| at.invalid("more than 1000000", None));
        }
    }
}

// -------------------------------------------------------------------------------------------------
// meaning

impl PortRoute {
    /// A Server with a route takes what it matches alone. Only routes that match nothing are served.
    fn closed_servers(&self, lowering: &Lowering<'_>) -> Vec<Item> {
        let servers = self.parent_refs.iter().enumerate();
        let mut servers = servers.filter(|(_, parent)| parent.parent() == Parent::Server);
        // One object holds one policy: of several Servers each has a route of its own.
        let Some((i, server)) = servers.next() else { return Vec::new() };
        let id = ObjectId {
            kind: Kind::LINKERD_SERVER,
            namespace: lowering.namespace().clone(),
            name: server.name.clone(),
        };
        let at = format!("spec.parentRefs[{i}].name");
        let mut closed = lowering.allowing(&at, WhichPorts::Of(id), vec![AccessRule::default()]);
        closed.action = AccessAction::Deny;
        closed.unmatched = Unmatched::Pass;
        vec![Item::Access(Arc::new(closed))]
    }

    /// `None`: no parent is a Service.
    fn table(&self, lowering: &Lowering<'_>, tries: &Tries) -> Option<Item> {
        let parents = self.parent_refs.iter().enumerate();
        let services: Vec<(usize, &ParentRef)> =
            parents.filter(|(_, parent)| parent.parent() == Parent::Service).collect();
        let host = |parent: &ParentRef| lowering.service_host(&parent.name, &parent.namespace);
        let mut hosts: Vec<Hostname> = Vec::new();
        let mut fields = Vec::new();
        for (i, parent) in &services {
            let host = host(parent);
            if !hosts.contains(&host) {
                hosts.push(host);
                fields.push(format!("spec.parentRefs[{i}].name").into());
            }
        }
        if hosts.is_empty() {
            return None;
        }
        let whole = [RouteRule::default()];
        let rules = self.rules.as_deref().unwrap_or(&whole).iter().enumerate();
        let rules = services.iter().flat_map(|(_, parent)| {
            let host = host(parent);
            let lower = move |(i, rule): (usize, &RouteRule)| {
                self.rule(lowering, (&host, parent.port), (i, rule), tries)
            };
            rules.clone().map(lower).collect::<Vec<_>>()
        });
        // A route beside its Service is for everybody, another one for clients of its namespace.
        let own = |(_, p): &(usize, &ParentRef)| {
            p.namespace.is_empty() || *p.namespace == **lowering.namespace()
        };
        let export_to = match services.iter().all(own) {
            true => Visibility::Public,
            false => Visibility::Namespaces([lowering.namespace().clone()].into()),
        };
        Some(Item::Routes(Arc::new(RouteTable {
            origin: lowering.origin(),
            http: rules.collect(),
            hosts,
            attachments: vec![Attachment::Mesh],
            export_to,
            order: RuleOrder::BySpecificity,
            standing: Standing::Usual,
            tls: Vec::new(),
            tcp: Vec::new(),
            fields: RouteFields { hosts: fields, gateways: Vec::new(), idle: Vec::new() },
        })))
    }

    fn rule(
        &self,
        lowering: &Lowering<'_>,
        (host, port): (&Hostname, Option<u16>),
        (i, rule): (usize, &RouteRule),
        tries: &Tries,
    ) -> HttpRule {
        let at = format!("spec.rules[{i}]");
        let any = [RouteMatch::default()];
        let matches = if rule.matches.is_empty() { &any[..] } else { &rule.matches };
        let matches = matches.iter().flat_map(|m| self.requests(m, port)).collect();
        let written = rule.timeouts.as_ref();
        let timeouts = Timeouts {
            request: written.and_then(|timeouts| timeouts.request),
            per_try: written.and_then(|timeouts| timeouts.backend_request),
            idle: None,
        };
        let destinations = match rule.backend_refs.is_empty() {
            true => itself(&at, host),
            false => rule.backends(lowering, &at),
        };
        let redirect = rule.filters.iter().find_map(|filter| filter.request_redirect.as_ref());
        let action = match redirect {
            Some(redirect) => HttpAction::Redirect(redirect.lower()),
            None => HttpAction::Forward { destinations, rewrite: Rewrite::default() },
        };
        HttpRule {
            name: rule.name.clone(),
            hosts: vec![host.clone()],
            matches,
            action,
            headers: rule.header_ops(),
            timeouts: tries.timeouts(timeouts),
            retry: tries.retry.clone(),
            ..HttpRule::forward(at.into(), Vec::new())
        }
    }

    /// A match for each host name that requests may ask for.
    fn requests(&self, m: &RouteMatch, port: Option<u16>) -> Vec<HttpMatch> {
        let authorities: Vec<Option<StringMatch>> = match self.hostnames.is_empty() {
            true => vec![None],
            false => self.hostnames.iter().map(|host| Some(authority(host))).collect(),
        };
        let value = |one: &NamedValue| match one.kind {
            ValueKind::Exact => StringMatch::Exact(one.value.clone()),
            ValueKind::RegularExpression => StringMatch::Regex(one.value.clone()),
        };
        let path = m.path.as_ref().map(|path| match path.kind {
            PathKind::Exact => PathMatch::Exact(path.text().into()),
            PathKind::PathPrefix => PathMatch::segments(path.text()),
            PathKind::RegularExpression => PathMatch::Regex(path.text().into()),
        });
        let of = |authority| HttpMatch {
            path: path.clone(),
            // Of equal names the first counts.
            headers: m
                .headers
                .iter()
                .rev()
                .map(|h| (h.name.to_ascii_lowercase().into(), value(h)))
                .collect(),
            query: m.query_params.iter().rev().map(|q| (q.name.clone(), value(q))).collect(),
            method: (!m.method.is_empty()).then(|| StringMatch::Exact(m.method.clone())),
            authority,
            port,
            ..HttpMatch::default()
        };
        authorities.into_iter().map(of).collect()
    }
}

impl RouteRule {
    fn backends(&self, lowering: &Lowering<'_>, at: &str) -> Vec<crate::ir::WeightedDestination> {
        let one = |(i, backend): (usize, &BackendRef)| {
            share(
                &format!("{at}.backendRefs[{i}].name"),
                lowering.service_host(&backend.name, &backend.namespace),
                backend.port.map_or(DestinationPort::Requested, DestinationPort::Number),
                backend.weight.unwrap_or(1),
                Unreachable::Misconfigured,
            )
        };
        self.backend_refs.iter().enumerate().map(one).collect()
    }

    fn header_ops(&self) -> HeaderOps {
        let mut ops = HeaderOps::default();
        for filter in &self.filters {
            for (changes, modifier) in [
                (&mut ops.request, &filter.request_header_modifier),
                (&mut ops.response, &filter.response_header_modifier),
            ] {
                let Some(more) = modifier.as_ref().map(HeaderModifier::changes) else { continue };
                changes.set.extend(more.set);
                changes.add.extend(more.add);
                changes.remove.extend(more.remove);
            }
        }
        ops
    }
}
