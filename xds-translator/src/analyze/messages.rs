//! The messages of Istio's analysis (`pkg/config/analysis/msg/messages.yaml` of Istio 1.31), and what
//! becomes of each here.

use crate::diagnostic::Severity;

/// A message of Istio's analysis.
#[derive(Clone, Copy, Debug)]
pub struct Message {
    /// `IST0101`.
    pub code: &'static str,
    /// Its name in Istio.
    pub name: &'static str,
    /// How much it matters to Istio.
    pub severity: Severity,
    /// What becomes of it here.
    pub fate: Fate,
}

/// What becomes of a message here.
#[derive(Clone, Copy, Debug)]
pub enum Fate {
    /// A finding says the same, and has its code.
    Found,
    /// Nothing here can be said so: why.
    Not(&'static str),
}

use Fate::{Found, Not};
use Severity::{Error, Info, Warning};

const INSTALLATION: &str = "about Istio's own installation";
const NO_GATEWAY_API: &str = "Gateway API is not served yet";
const NO_TELEMETRY: &str = "Telemetry is not served yet";
const SEVERAL_CLUSTERS: &str = "a mesh is one cluster";

/// Every message, by code.
pub const MESSAGES: &[Message] = &[
    message("IST0001", "InternalError", Error, Not("about the analysis itself")),
    message("IST0002", "Deprecated", Warning, Found),
    message("IST0101", "ReferencedResourceNotFound", Error, Found),
    message("IST0102", "NamespaceNotInjected", Info, Found),
    message("IST0103", "PodMissingProxy", Warning, Found),
    message("IST0106", "SchemaValidationError", Error, Found),
    message("IST0107", "MisplacedAnnotation", Warning, Found),
    message("IST0108", "UnknownAnnotation", Warning, Found),
    message("IST0109", "ConflictingMeshGatewayVirtualServiceHosts", Error, Found),
    message("IST0110", "ConflictingSidecarWorkloadSelectors", Error, Found),
    message("IST0111", "MultipleSidecarsWithoutWorkloadSelectors", Error, Found),
    message(
        "IST0112",
        "VirtualServiceDestinationPortSelectorRequired",
        Error,
        Not("a destination without port means the port that was called; one that leads to a port \
             that the service lacks is IST0101"),
    ),
    message("IST0116", "DeploymentAssociatedToMultipleServices", Warning, Found),
    message("IST0118", "PortNameIsNotUnderNamingConvention", Info, Found),
    message("IST0123", "NamespaceMultipleInjectionLabels", Warning, Found),
    message("IST0125", "InvalidAnnotation", Warning, Found),
    message("IST0126", "UnknownMeshNetworksServiceRegistry", Error, Not(SEVERAL_CLUSTERS)),
    message("IST0127", "NoMatchingWorkloadsFound", Warning, Found),
    message("IST0128", "NoServerCertificateVerificationDestinationLevel", Warning, Found),
    message("IST0129", "NoServerCertificateVerificationPortLevel", Warning, Found),
    message("IST0130", "VirtualServiceUnreachableRule", Warning, Found),
    message("IST0131", "VirtualServiceIneffectiveMatch", Info, Found),
    message("IST0132", "VirtualServiceHostNotFoundInGateway", Warning, Found),
    message("IST0133", "SchemaWarning", Warning, Found),
    message("IST0134", "ServiceEntryAddressesRequired", Warning, Found),
    message("IST0135", "DeprecatedAnnotation", Info, Found),
    message("IST0136", "AlphaAnnotation", Info, Found),
    message("IST0137", "DeploymentConflictingPorts", Warning, Found),
    message(
        "IST0138",
        "GatewayDuplicateCertificate",
        Warning,
        Not("requests for a host of another server are answered 421, so that clients connect anew"),
    ),
    message("IST0139", "InvalidWebhook", Error, Not(INSTALLATION)),
    message("IST0140", "IngressRouteRulesNotAffected", Warning, Found),
    message("IST0141", "InsufficientPermissions", Error, Not(INSTALLATION)),
    message("IST0142", "UnsupportedKubernetesVersion", Error, Not(INSTALLATION)),
    message(
        "IST0143",
        "LocalhostListener",
        Error,
        Not("needs a look into the pods, which is no part of the configuration"),
    ),
    message("IST0144", "InvalidApplicationUID", Warning, Found),
    message("IST0145", "ConflictingGateways", Error, Found),
    message("IST0146", "ImageAutoWithoutInjectionWarning", Warning, Found),
    message("IST0147", "ImageAutoWithoutInjectionError", Error, Found),
    message("IST0148", "NamespaceInjectionEnabledByDefault", Info, Not(INSTALLATION)),
    message("IST0149", "JwtClaimBasedRoutingWithoutRequestAuthN", Error, Found),
    message("IST0150", "ExternalNameServiceTypeInvalidPortName", Warning, Found),
    message("IST0151", "EnvoyFilterUsesRelativeOperation", Warning, Found),
    message("IST0152", "EnvoyFilterUsesReplaceOperationIncorrectly", Error, Found),
    message("IST0153", "EnvoyFilterUsesAddOperationIncorrectly", Error, Found),
    message("IST0154", "EnvoyFilterUsesRemoveOperationIncorrectly", Error, Found),
    message("IST0155", "EnvoyFilterUsesRelativeOperationWithProxyVersion", Warning, Found),
    message("IST0156", "UnsupportedGatewayAPIVersion", Error, Not(NO_GATEWAY_API)),
    message("IST0157", "InvalidTelemetryProvider", Warning, Not(NO_TELEMETRY)),
    message("IST0158", "PodsIstioProxyImageMismatchInNamespace", Warning, Not(INSTALLATION)),
    message("IST0159", "ConflictingTelemetryWorkloadSelectors", Error, Not(NO_TELEMETRY)),
    message("IST0160", "MultipleTelemetriesWithoutWorkloadSelectors", Error, Not(NO_TELEMETRY)),
    message("IST0161", "InvalidGatewayCredential", Error, Found),
    message("IST0162", "GatewayPortNotDefinedOnService", Warning, Found),
    message("IST0163", "InvalidExternalControlPlaneConfig", Warning, Not(INSTALLATION)),
    message("IST0164", "ExternalControlPlaneAddressIsNotAHostname", Info, Not(INSTALLATION)),
    message(
        "IST0165",
        "ReferencedInternalGateway",
        Warning,
        Not("a name with `~` is refused, as none that a Gateway can have (IST0106)"),
    ),
    message("IST0166", "IneffectiveSelector", Warning, Not(NO_GATEWAY_API)),
    message("IST0167", "IneffectivePolicy", Warning, Not("there is no ambient mode yet")),
    message("IST0168", "UnknownUpgradeCompatibility", Warning, Not(INSTALLATION)),
    message("IST0169", "UpdateIncompatibility", Warning, Not(INSTALLATION)),
    message("IST0170", "MultiClusterInconsistentService", Warning, Not(SEVERAL_CLUSTERS)),
    message("IST0171", "NegativeConditionStatus", Warning, Found),
    message("IST0172", "FutureUnsupportedGatewayAPIVersion", Warning, Not(NO_GATEWAY_API)),
    message("IST0173", "DestinationRuleSubsetNotSelectPods", Error, Found),
    message("IST0174", "UnknownDestinationRuleHost", Warning, Found),
    message("IST0175", "JwksUriFetchUnrestricted", Warning, Not(INSTALLATION)),
    message("IST0176", "GatewayAPICRDVersionBelowMinimum", Warning, Not(NO_GATEWAY_API)),
    message("IST0177", "ConflictingServiceEntryProtocol", Warning, Found),
];

const fn message(
    code: &'static str,
    name: &'static str,
    severity: Severity,
    fate: Fate,
) -> Message {
    Message { code, name, severity, fate }
}
