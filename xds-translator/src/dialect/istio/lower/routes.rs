//! VirtualServices: HTTP rules.

use std::{collections::BTreeMap, sync::Arc};

use super::retry::{retry, try_timeout};
use crate::dialect::lowering::Lowering;
use crate::{
    diagnostic::{Code, Diagnostic, FieldPath},
    dialect::{
        istio::{
            attribute::{is_routed_claim, routed_claim},
            shared::{Percent, StringMatch as Declared},
            virtual_service::{
                self as vs, RedirectPortSelection, UnmatchedPreflights, VirtualService,
            },
        },
        scalar::GRPC_STATUSES,
    },
    ir::{
        Abort, Attachment, ClaimMatch, Cors, Destination, DestinationPort, Fault, HeaderChanges,
        HeaderOps, HttpAction, HttpMatch, HttpRule, Kind, Mirror, ObjectId, PathMatch, PathRewrite,
        PerMillion, Redirect, RedirectPort, Rewrite, RouteTable, RuleOrder, Standing, StringMatch,
        Timeouts, Unreachable, WeightedDestination,
    },
    snapshot::Item,
};

impl Lowering<'_> {
    pub(in crate::dialect) fn virtual_service(&mut self, spec: &VirtualService) -> Option<Item> {
        let (hosts, fields) = self.routed_hosts(&spec.hosts);
        let attachments = match &spec.gateways[..] {
            // Rules that others delegate to hold wherever those do.
            [] if hosts.is_empty() => Vec::new(),
            [] => vec![Attachment::Mesh],
            gateways => self.attachments(gateways),
        };
        let http = spec.http.iter().enumerate();
        let http = http
            .filter_map(|(i, rule)| self.http_rule(&FieldPath::of("spec.http").index(i), rule))
            .collect();
        Some(Item::Routes(Arc::new(RouteTable {
            origin: self.origin(),
            hosts,
            attachments,
            export_to: self.visibility(&spec.export_to, self.mesh.route_export_to.as_ref()),
            http,
            order: RuleOrder::AsWritten,
            standing: Standing::Usual,
            tls: self.tls_rules(&spec.tls),
            tcp: self.tcp_rules(&spec.tcp),
            fields: self.route_fields(fields, spec),
        })))
    }

    /// A VirtualService's gateways; none means the mesh.
    pub(super) fn attachments(&self, gateways: &[Arc<str>]) -> Vec<Attachment> {
        let mut attachments: Vec<_> = gateways.iter().map(|name| self.attachment(name)).collect();
        attachments.sort();
        attachments.dedup();
        attachments
    }

    pub(super) fn attachment(&self, name: &str) -> Attachment {
        if name == "mesh" {
            return Attachment::Mesh;
        }
        let (namespace, name) = match name.split_once('/') {
            Some((".", name)) => (self.namespace().clone(), name),
            Some((namespace, name)) => (namespace.into(), name),
            None => (self.namespace().clone(), name),
        };
        Attachment::Gateway(ObjectId { kind: Kind::GATEWAY, namespace, name: name.into() })
    }

    fn http_rule(&mut self, at: &FieldPath, rule: &vs::HttpRoute) -> Option<HttpRule> {
        Some(HttpRule {
            at: at.to_string().into(),
            name: rule.name.clone(),
            hosts: Vec::new(),
            matches: rule.matches.iter().map(|m| self.http_match(m)).collect(),
            shared_matches: Vec::new(),
            action: self.http_action(at, rule)?,
            headers: header_ops(rule.headers.as_ref()),
            fault: rule.fault.as_ref().map(|f| self.fault(&at.field("fault"), f)),
            timeouts: Timeouts {
                request: rule.timeout,
                per_try: try_timeout(rule.retries.as_ref()),
                idle: None,
            },
            retry: retry(rule.retries.as_ref()),
            mirrors: self.mirrors(at, rule).into_iter().filter(|m| m.share.0 > 0).collect(),
            cors: rule.cors_policy.as_ref().map(cors),
        })
    }

    fn http_match(&self, m: &vs::HttpMatch) -> HttpMatch {
        HttpMatch {
            name: m.name.clone(),
            path: m.uri.as_ref().and_then(path),
            ignore_path_case: m.ignore_uri_case,
            headers: header_conditions(&m.headers),
            without_headers: header_conditions(&m.without_headers),
            claims: claims(m),
            query: m.query_params.iter().map(|(k, v)| (k.clone(), text(v))).collect(),
            method: m.method.as_ref().map(text),
            authority: m.authority.as_ref().map(text),
            scheme: m.scheme.as_ref().map(text),
            port: m.port,
            source_labels: m.source_labels.clone(),
            source_namespace: (!m.source_namespace.is_empty()).then(|| m.source_namespace.clone()),
            attachments: self.attachments(&m.gateways),
            stat_prefix: (!m.stat_prefix.is_empty()).then(|| m.stat_prefix.clone()),
        }
    }

    fn http_action(&mut self, at: &FieldPath, rule: &vs::HttpRoute) -> Option<HttpAction> {
        if let Some(redirect) = &rule.redirect {
            return Some(HttpAction::Redirect(lower_redirect(redirect)));
        }
        if let Some(direct) = &rule.direct_response {
            return self.direct_response(&at.field("directResponse"), direct);
        }
        let rewrite = rule.rewrite.as_ref().map(lower_rewrite).unwrap_or_default();
        if let Some(delegate) = &rule.delegate {
            return Some(HttpAction::Continue { part: self.delegate(delegate), rewrite });
        }
        if rule.route.is_empty() {
            let message = "the rule sends requests nowhere: it needs `route`, `redirect`, `directResponse` or `delegate`";
            self.note(Diagnostic::error(Code::MissingField, at.clone(), message));
            return None;
        }
        let weighted = rule.route.iter().enumerate().map(|(i, r)| {
            let destination = self.destination(&destination_field(at, i), &r.destination);
            (destination, r.weight, header_ops(r.headers.as_ref()))
        });
        Some(HttpAction::Forward { destinations: shares(weighted.collect()), rewrite })
    }

    /// The VirtualService that a rule delegates to.
    fn delegate(&self, delegate: &vs::Delegate) -> ObjectId {
        let namespace = match &*delegate.namespace {
            "" => self.namespace().clone(),
            _ => delegate.namespace.clone(),
        };
        ObjectId { kind: Kind::VIRTUAL_SERVICE, namespace, name: delegate.name.clone() }
    }

    fn direct_response(
        &mut self,
        at: &FieldPath,
        direct: &vs::HttpDirectResponse,
    ) -> Option<HttpAction> {
        let body: Vec<u8> = match direct.body.as_ref().map(|b| (&b.string, &b.bytes)) {
            Some((Some(string), _)) => string.as_bytes().to_vec(),
            Some((None, Some(encoded))) => match decode_base64(encoded) {
                Some(bytes) => bytes,
                None => {
                    self.invalid(at.field("body").field("bytes"), "base64", encoded);
                    return None;
                }
            },
            _ => Vec::new(),
        };
        let Some(status) = u16::try_from(direct.status).ok().filter(|s| (200..600).contains(s))
        else {
            self.invalid(
                at.field("status"),
                "a status from 200 to 599",
                &direct.status.to_string(),
            );
            return None;
        };
        Some(HttpAction::Direct { status, body: body.into() })
    }

    pub(in crate::dialect) fn destination(
        &self,
        at: &FieldPath,
        destination: &vs::Destination,
    ) -> Destination {
        Destination {
            at: at.field("host").to_string().into(),
            of: None,
            host: self.host(&destination.host),
            port: match &destination.port {
                Some(port) if port.number != 0 => DestinationPort::Number(port.number),
                _ => DestinationPort::Inferred,
            },
            subset: destination.subset.clone(),
        }
    }

    /// Every copy that is asked for, those of no request included.
    pub(super) fn mirrors(&self, at: &FieldPath, rule: &vs::HttpRoute) -> Vec<Mirror> {
        let whole = rule
            .mirror_percent
            .or(rule.mirror_percent_legacy)
            .map(|p| PerMillion(p.min(100) * 10_000));
        let share = |percentage: Option<&Percent>| percentage.map_or(PerMillion::ALL, per_million);
        let one = rule.mirror.as_ref().map(|d| Mirror {
            destination: self.destination(&at.field("mirror"), d),
            share: rule
                .mirror_percentage
                .as_ref()
                .map(per_million)
                .or(whole)
                .unwrap_or(PerMillion::ALL),
        });
        let many = rule.mirrors.iter().enumerate().map(|(i, m)| {
            let at = at.field("mirrors").index(i).field("destination");
            let destination = self.destination(&at, &m.destination);
            Mirror { destination, share: share(m.percentage.as_ref()) }
        });
        one.into_iter().chain(many).collect()
    }

    fn fault(&mut self, at: &FieldPath, fault: &vs::HttpFault) -> Fault {
        let share = |percentage: Option<&Percent>| percentage.map_or(PerMillion::ALL, per_million);
        let delay = fault.delay.as_ref().and_then(|d| {
            let old = d.percent.map(|p| PerMillion(p.min(100) * 10_000));
            Some((
                d.fixed_delay?,
                d.percentage.as_ref().map(per_million).or(old).unwrap_or(PerMillion::ALL),
            ))
        });
        let abort = fault
            .abort
            .as_ref()
            .and_then(|a| Some((self.abort(&at.field("abort"), a)?, share(a.percentage.as_ref()))));
        Fault { delay, abort }
    }

    fn abort(&mut self, at: &FieldPath, abort: &vs::FaultAbort) -> Option<Abort> {
        if let Some(status) = abort.http_status {
            let status = u16::try_from(status).ok().filter(|s| (200..600).contains(s));
            if status.is_none() {
                self.invalid(
                    at.field("httpStatus"),
                    "a status from 200 to 599",
                    &format!("{:?}", abort.http_status),
                );
            }
            return status.map(Abort::Http);
        }
        if abort.grpc_status.is_empty() {
            return None;
        }
        let code = grpc_status(&abort.grpc_status);
        if code.is_none() {
            self.invalid(
                at.field("grpcStatus"),
                "a gRPC status such as UNAVAILABLE or 14",
                &abort.grpc_status,
            );
        }
        code.map(Abort::Grpc)
    }
}

/// The field of a rule's destination.
pub(super) fn destination_field(rule: &FieldPath, index: usize) -> FieldPath {
    rule.field("route").index(index).field("destination")
}

/// Weights as shares: zero drops a destination, unless all are zero, which means equal shares.
pub(in crate::dialect) fn shares(
    weighted: Vec<(Destination, Option<i32>, HeaderOps)>,
) -> Vec<WeightedDestination> {
    let weight = |w: Option<i32>| w.and_then(|w| u32::try_from(w).ok()).unwrap_or(0);
    let all_zero = weighted.iter().all(|(_, w, _)| weight(*w) == 0);
    let share = |w: Option<i32>| if all_zero { 1 } else { weight(w) };
    let lowered = weighted.into_iter().map(|(destination, w, headers)| WeightedDestination {
        destination,
        weight: share(w),
        unreachable: Unreachable::Fail,
        headers,
    });
    lowered.filter(|d| d.weight > 0).collect()
}

fn text(declared: &Declared) -> StringMatch {
    match declared {
        Declared::Present => StringMatch::Present,
        Declared::Exact(t) => StringMatch::Exact(t.clone()),
        Declared::Prefix(t) => StringMatch::Prefix(t.clone()),
        // Istio takes the bare star for "any value", although it is no expression.
        Declared::Regex(t) if &**t == "*" => StringMatch::Present,
        Declared::Regex(t) => StringMatch::Regex(t.clone()),
    }
}

/// A condition on the path; `None`: any path.
fn path(declared: &Declared) -> Option<PathMatch> {
    match text(declared) {
        StringMatch::Exact(path) => Some(PathMatch::Exact(path)),
        StringMatch::Prefix(path) => Some(PathMatch::Prefix(path)),
        StringMatch::Regex(path) => Some(PathMatch::Regex(path)),
        StringMatch::Suffix(_) | StringMatch::Present => None,
    }
}

fn header_conditions(declared: &BTreeMap<Arc<str>, Declared>) -> BTreeMap<Arc<str>, StringMatch> {
    let headers = declared.iter().filter(|(name, _)| !is_routed_claim(name));
    headers.map(|(name, value)| (lower_case(name), text(value))).collect()
}

fn claims(m: &vs::HttpMatch) -> Vec<ClaimMatch> {
    let of = |declared: &BTreeMap<Arc<str>, Declared>, refused| {
        let claims = declared.iter().filter_map(|(name, value)| {
            Some(ClaimMatch { path: routed_claim(name)?, condition: text(value), refused })
        });
        claims.collect::<Vec<_>>()
    };
    let mut claims = of(&m.headers, false);
    claims.extend(of(&m.without_headers, true));
    claims.sort_by(|a, b| (&a.path, a.refused).cmp(&(&b.path, b.refused)));
    claims
}

fn lower_case(name: &str) -> Arc<str> {
    name.to_ascii_lowercase().into()
}

fn header_ops(headers: Option<&vs::Headers>) -> HeaderOps {
    let changes = |o: Option<&vs::HeaderOperations>| o.map(header_changes).unwrap_or_default();
    headers
        .map(|h| HeaderOps {
            request: changes(h.request.as_ref()),
            response: changes(h.response.as_ref()),
        })
        .unwrap_or_default()
}

fn header_changes(operations: &vs::HeaderOperations) -> HeaderChanges {
    let lower = |m: &BTreeMap<Arc<str>, Arc<str>>| {
        m.iter().map(|(k, v)| (lower_case(k), v.clone())).collect()
    };
    HeaderChanges {
        set: lower(&operations.set),
        add: lower(&operations.add),
        remove: operations.remove.iter().map(|name| lower_case(name)).collect(),
    }
}

fn lower_redirect(redirect: &vs::HttpRedirect) -> Redirect {
    let some = |t: &Arc<str>| (!t.is_empty()).then(|| t.clone());
    let derived = redirect.derive_port.map(|d| match d {
        RedirectPortSelection::ProtocolDefault => RedirectPort::ProtocolDefault,
        RedirectPortSelection::RequestPort => RedirectPort::Request,
    });
    let prefix = some(&redirect.prefix_rewrite).map(PathRewrite::Prefix);
    Redirect {
        path: some(&redirect.uri).map(PathRewrite::Full).or(prefix),
        authority: some(&redirect.authority),
        port: redirect.port.filter(|p| *p != 0).map(RedirectPort::Number).or(derived),
        scheme: some(&redirect.scheme),
        code: redirect
            .redirect_code
            .and_then(|c| u16::try_from(c).ok())
            .filter(|c| *c != 0)
            .unwrap_or(301),
    }
}

fn lower_rewrite(rewrite: &vs::HttpRewrite) -> Rewrite {
    let regex = rewrite.uri_regex_rewrite.as_ref();
    let regex = regex.map(|r| PathRewrite::Regex {
        pattern: r.pattern.clone(),
        substitution: r.rewrite.clone(),
    });
    let prefix = (!rewrite.uri.is_empty()).then(|| PathRewrite::Prefix(rewrite.uri.clone()));
    Rewrite {
        path: prefix.or(regex),
        authority: (!rewrite.authority.is_empty()).then(|| rewrite.authority.clone()),
    }
}

fn cors(policy: &vs::CorsPolicy) -> Cors {
    let old = policy.allow_origin.iter().map(|o| match &**o {
        "*" => StringMatch::Present,
        _ => StringMatch::Exact(o.clone()),
    });
    Cors {
        origins: policy.allow_origins.iter().map(text).chain(old).collect(),
        methods: policy.allow_methods.clone(),
        headers: policy.allow_headers.clone(),
        expose_headers: policy.expose_headers.clone(),
        max_age: policy.max_age,
        credentials: policy.allow_credentials,
        forward_unmatched_preflights: policy.unmatched_preflights != UnmatchedPreflights::Ignore,
    }
}

fn per_million(percent: &Percent) -> PerMillion {
    // Within 0 to 1,000,000, so that nothing is lost.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped to 0..=1_000_000"
    )]
    PerMillion((percent.value.clamp(0.0, 100.0) * 10_000.0).round() as u32)
}

/// A gRPC status by name or number.
fn grpc_status(text: &str) -> Option<u32> {
    let number = text.parse().ok().filter(|n| (*n as usize) < GRPC_STATUSES.len());
    number.or_else(|| {
        (0u32..)
            .zip(GRPC_STATUSES)
            .find(|(_, name)| name.eq_ignore_ascii_case(text))
            .map(|(code, _)| code)
    })
}

/// Standard base64 with padding; `None` when the text is something else.
fn decode_base64(text: &str) -> Option<Vec<u8>> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = text.trim_end_matches('=');
    if !text.len().is_multiple_of(4) || text.len() - digits.len() > 2 {
        return None;
    }
    let mut out = Vec::with_capacity(digits.len() * 3 / 4);
    let (mut bits, mut held) = (0u32, 0);
    for digit in digits.bytes() {
        let value = ALPHABET.iter().position(|c| *c == digit)?;
        bits = (bits << 6) | u32::try_from(value).ok()?;
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push(u8::try_from((bits >> held) & 0xff).ok()?);
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_read_and_anything_else_refused() {
        let table = [
            ("aGVsbG8=", Some("hello")),
            ("aGVsbG8", None),
            ("", Some("")),
            ("aGk=", Some("hi")),
            ("a!==", None),
            ("a===", None),
        ];
        for (text, expected) in table {
            assert_eq!(decode_base64(text), expected.map(|e| e.as_bytes().to_vec()), "{text:?}");
        }
    }

    #[test]
    fn grpc_statuses_go_by_name_or_number() {
        for (text, expected) in [
            ("UNAVAILABLE", Some(14)),
            ("unavailable", Some(14)),
            ("14", Some(14)),
            ("17", None),
            ("X", None),
        ] {
            assert_eq!(grpc_status(text), expected, "{text}");
        }
    }
}
