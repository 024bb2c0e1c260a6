//! The mesh configuration.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use ferromesh_proto::TrustDomain;

use super::{
    authorizer::authorizers,
    backend::{connection_pool, keepalive, locality_policy, outlier, zone_policy},
    provider::telemetry_defaults,
    proxy::mesh_start,
    retry::{retry, try_timeout},
};
use crate::dialect::lowering::Lowering;
use crate::{
    diagnostic::FieldPath,
    dialect::istio::{
        destination_rule::H2UpgradePolicy,
        mesh_config::{
            ForwardClientCert, GatewayTopology, HeaderSwitch, InboundTrafficMode,
            IngressControllerMode as Mode, MeshConfig, MeshTls, NamespaceExpression,
            NamespaceSelector, Normalization, ProxyHeaders as Written, SelectorOperator,
        },
        shared::TlsProtocol,
    },
    ir::{
        CertPart, ClientCertHeader, Edge, IngressDefaults, IngressScope, LabelCondition,
        LabelExpression, MeshDefaults, OmittedHeaders, PathNormalization, ProxyHeaders, Selector,
        StatNames, TlsVersion, TlsWords, Visibility,
    },
    snapshot::Item,
};

impl Lowering<'_> {
    pub(in crate::dialect) fn mesh_config(&mut self, spec: &MeshConfig) -> Option<Item> {
        // What the configuration leaves out is as the control plane was started with.
        let base = self.mesh.clone();
        let trust_domain = self.trust_domain(&spec.trust_domain, base.trust_domain)?;
        let policy = spec.default_traffic_policy.clone().unwrap_or_default();
        let some = |text: &Arc<str>, default: Arc<str>| {
            if text.is_empty() { default } else { text.clone() }
        };
        let time = |duration: Option<Duration>, default| {
            duration.filter(|d| !d.is_zero()).unwrap_or(default)
        };
        Some(Item::Mesh(Arc::new(MeshDefaults {
            trust_domain,
            trust_domain_aliases: spec
                .trust_domain_aliases
                .iter()
                .cloned()
                .collect::<BTreeSet<_>>()
                .into_iter()
                .collect(),
            root_namespace: some(&spec.root_namespace, base.root_namespace),
            domain: base.domain,
            connect_timeout: time(spec.connect_timeout, base.connect_timeout),
            detection_timeout: spec.protocol_detection_timeout.unwrap_or(base.detection_timeout),
            outbound_traffic: spec
                .outbound_traffic_policy
                .as_ref()
                .map_or(base.outbound_traffic, |policy| self.outbound_traffic(policy)),
            inbound_passthrough: spec
                .inbound_traffic_policy
                .as_ref()
                .is_none_or(|p| p.mode == InboundTrafficMode::Passthrough),
            auto_mtls: spec.enable_auto_mtls.unwrap_or(base.auto_mtls),
            default_retry: retry(spec.default_http_retry_policy.as_ref()),
            default_try_timeout: try_timeout(spec.default_http_retry_policy.as_ref()),
            service_export_to: export(&spec.default_service_export_to),
            route_export_to: export(&spec.default_virtual_service_export_to),
            backend_export_to: export(&spec.default_destination_rule_export_to),
            locality: spec.locality_lb_setting.as_ref().map(locality_policy).unwrap_or_default(),
            zones: spec.zone_aware_lb_setting.as_ref().map(zone_policy),
            connection_pool: policy.connection_pool.as_ref().map(connection_pool),
            outlier: policy.outlier_detection.as_ref().map(outlier),
            tcp_keepalive: spec.tcp_keepalive.as_ref().map(keepalive),
            h2_upgrade: spec.h2_upgrade_policy == Some(H2UpgradePolicy::Upgrade),
            telemetry: telemetry_defaults(spec),
            outbound_port: spec.proxy_listen_port.filter(|p| *p != 0).unwrap_or(base.outbound_port),
            inbound_port: spec
                .proxy_inbound_listen_port
                .filter(|p| *p != 0)
                .unwrap_or(base.inbound_port),
            http_proxy_port: spec.proxy_http_port.filter(|p| *p != 0),
            dns_refresh_rate: time(spec.dns_refresh_rate, base.dns_refresh_rate),
            path_normalization: spec
                .path_normalization
                .as_ref()
                .map_or(PathNormalization::Base, |p| normalization(p.normalization)),
            authorizers: authorizers(&spec.extension_providers),
            mesh_tls_min: spec.mesh_mtls.as_ref().map_or(base.mesh_tls_min, least_version),
            mesh_tls_suites: spec
                .mesh_mtls
                .as_ref()
                .map_or(base.mesh_tls_suites, |tls| tls.cipher_suites.clone()),
            tls: spec
                .tls_defaults
                .as_ref()
                .map_or(base.tls, |tls| TlsWords::new(&tls.cipher_suites, &tls.ecdh_curves)),
            inbound_retry: retry(spec.default_inbound_http_retry_policy.as_ref()),
            inbound_try_timeout: try_timeout(spec.default_inbound_http_retry_policy.as_ref()),
            edge: spec
                .default_config
                .as_ref()
                .and_then(|config| config.gateway_topology.as_ref())
                .map_or(base.edge, |topology| edge(topology, base.edge)),
            headers: spec
                .default_config
                .as_ref()
                .and_then(|config| config.proxy_headers.as_ref())
                .map_or(base.headers, proxy_headers),
            ingress: ingress(spec, base.ingress),
            proxy: mesh_start(spec).over(&base.proxy),
            stat_names: StatNames {
                inbound: spec.inbound_cluster_stat_name.clone(),
                outbound: spec.outbound_cluster_stat_name.clone(),
            },
            discovery: spec.discovery_selectors.iter().map(namespaces).collect(),
        })))
    }

    fn trust_domain(&mut self, text: &str, default: TrustDomain) -> Option<TrustDomain> {
        if text.is_empty() {
            return Some(default);
        }
        let parsed = TrustDomain::new(text);
        if parsed.is_err() {
            self.invalid(
                FieldPath::of("spec.trustDomain"),
                "1 to 255 of a-z, 0-9, '.', '-', '_'",
                text,
            );
        }
        parsed.ok()
    }
}

/// A default visibility; `.` stays as it is, because every object means its own namespace by it.
fn export(names: &[Arc<str>]) -> Option<Visibility> {
    match names {
        [] => None,
        names if names.iter().any(|n| &**n == "*") => Some(Visibility::Public),
        names => Some(Visibility::Namespaces(names.iter().cloned().collect())),
    }
}

/// Which namespaces are seen.
fn namespaces(written: &NamespaceSelector) -> Selector {
    let condition = |expression: &NamespaceExpression| {
        let values = || expression.values.iter().cloned().collect();
        let condition = match expression.operator {
            SelectorOperator::In => LabelCondition::In(values()),
            SelectorOperator::NotIn => LabelCondition::NotIn(values()),
            SelectorOperator::Exists => LabelCondition::Exists,
            SelectorOperator::DoesNotExist => LabelCondition::DoesNotExist,
        };
        LabelExpression { key: expression.key.clone(), condition }
    };
    Selector {
        labels: written.match_labels.clone(),
        expressions: written.match_expressions.iter().map(condition).collect(),
    }
}

/// Nothing below TLS 1.2 is taken between proxies, whatever is asked for.
fn least_version(tls: &MeshTls) -> TlsVersion {
    match tls.min_protocol_version {
        Some(TlsProtocol::V1_3) => TlsVersion::V1_3,
        _ => TlsVersion::V1_2,
    }
}

/// Gateways are found by the label `istio` with the value of `ingressSelector`; without it by
/// `ingressService`, of which the usual one stands for the usual gateway.
fn ingress(mesh: &MeshConfig, base: IngressDefaults) -> IngressDefaults {
    let some = |text: &Arc<str>| (!text.is_empty()).then(|| text.clone());
    let service = some(&mesh.ingress_service).filter(|name| &**name != "istio-ingressgateway");
    IngressDefaults {
        scope: match mesh.ingress_controller_mode {
            None => base.scope,
            Some(Mode::Off) => IngressScope::Nothing,
            Some(Mode::Default) => IngressScope::NoClass,
            Some(Mode::Strict | Mode::Unspecified) => IngressScope::OwnClass,
        },
        class: some(&mesh.ingress_class).unwrap_or(base.class),
        selector: some(&mesh.ingress_selector).or(service).unwrap_or(base.selector),
        classes: base.classes,
    }
}

fn client_cert(forwarding: ForwardClientCert) -> ClientCertHeader {
    match forwarding {
        ForwardClientCert::Undefined | ForwardClientCert::SanitizeSet => ClientCertHeader::Set,
        ForwardClientCert::Sanitize => ClientCertHeader::Remove,
        ForwardClientCert::ForwardOnly => ClientCertHeader::PassOn,
        ForwardClientCert::AppendForward => ClientCertHeader::Append,
        ForwardClientCert::AlwaysForwardOnly => ClientCertHeader::PassOnAlways,
    }
}

/// Headers that proxies add; what is not said is as Istio has it.
fn proxy_headers(written: &Written) -> ProxyHeaders {
    let off =
        |switch: &Option<HeaderSwitch>| switch.as_ref().and_then(|s| s.disabled) == Some(true);
    let said = written.forwarded_client_cert.filter(|f| *f != ForwardClientCert::Undefined);
    let parts = written.set_current_client_cert_details.as_ref().map(|details| {
        [
            (CertPart::Subject, details.subject),
            (CertPart::Certificate, details.cert),
            (CertPart::Chain, details.chain),
            (CertPart::Dns, details.dns),
            (CertPart::Uri, details.uri),
        ]
    });
    let parts = parts.into_iter().flatten();
    ProxyHeaders {
        server: match &written.server {
            Some(server) if server.disabled == Some(true) => None,
            Some(server) if !server.value.is_empty() => Some(server.value.clone()),
            _ => ProxyHeaders::default().server,
        },
        client_cert: said.map(client_cert),
        cert_parts: parts.filter_map(|(part, told)| Some((part, told?))).collect(),
        omitted: OmittedHeaders {
            request_id: off(&written.request_id),
            attempt_count: off(&written.attempt_count),
            debug: off(&written.envoy_debug_headers),
        },
    }
}

/// What stands before gateways, where it is said; else as before all of them.
pub(in crate::dialect) fn edge(topology: &GatewayTopology, base: Edge) -> Edge {
    let client_cert = topology.forward_client_cert_details.map(client_cert);
    Edge {
        trusted_proxies: topology.num_trusted_proxies.unwrap_or(base.trusted_proxies),
        client_cert: client_cert.unwrap_or(base.client_cert),
        proxy_protocol: topology.proxy_protocol.is_some() || base.proxy_protocol,
    }
}

fn normalization(degree: Normalization) -> PathNormalization {
    match degree {
        Normalization::None => PathNormalization::None,
        Normalization::Default | Normalization::Base => PathNormalization::Base,
        Normalization::MergeSlashes => PathNormalization::MergeSlashes,
        Normalization::DecodeAndMergeSlashes => PathNormalization::DecodeAndMergeSlashes,
    }
}
