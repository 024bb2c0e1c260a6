//! Kubernetes' own kinds, as far as a mesh reads them. Fields that are not listed are left alone.

use std::{collections::BTreeMap, fmt, sync::Arc};

use serde_json::Value;

use crate::dialect::{
    decode::Decoder,
    object_meta::ObjectMeta,
    schema::{Decode, Shape, object},
};

object! { open;
    /// A Namespace, of which the labels matter.
    Namespace {
        /// Its labels say whether pods get a sidecar.
        "metadata" metadata: ObjectMeta,
    }
}

object! { open;
    /// A Node, of which the labels that say where it is matter.
    Node {
        /// Its labels say where it is.
        "metadata" metadata: ObjectMeta,
    }
}

object! { open;
    /// A ServiceAccount, whose existence matters.
    ServiceAccount {
        /// Its name is what identities are made of.
        "metadata" metadata: ObjectMeta,
    }
}

object! { open;
    /// A Deployment: read, without an effect of its own.
    Deployment {
        /// Its specification.
        "spec" spec: DeploymentSpec,
    }
}

object! { open;
    /// Specification of a Deployment.
    DeploymentSpec {
        /// Number of pods.
        "replicas" replicas: Option<i32>,
        /// What its pods are made from.
        "template" template: PodTemplate,
    }
}

object! { open;
    /// What pods are made from.
    PodTemplate {
        /// Their metadata.
        "metadata" metadata: ObjectMeta,
        /// Their specification.
        "spec" spec: PodSpec,
    }
}

object! { open;
    /// A Pod.
    Pod {
        /// Its specification.
        "spec" spec: PodSpec,
        /// Its state.
        "status" status: PodStatus,
    }
}

object! { open;
    /// Specification of a Pod.
    PodSpec {
        /// Its service account; absent: `default`.
        "serviceAccountName" service_account_name: Arc<str>,
        /// Deprecated name of the above.
        "serviceAccount" service_account: Arc<str>,
        /// Whether it uses its node's network.
        "hostNetwork" host_network: bool,
        /// The node it runs on.
        "nodeName" node_name: Arc<str>,
        /// Its containers.
        "containers" containers: Vec<Container>,
        /// Containers that run before, or beside when they restart.
        "initContainers" init_containers: Vec<Container>,
        /// As whom its containers run, if they do not say it.
        "securityContext" security_context: Option<SecurityContext>,
    }
}

object! { open;
    /// As whom something runs.
    SecurityContext {
        /// The number of a user.
        "runAsUser" run_as_user: Option<i64>,
    }
}

object! { open;
    /// A container.
    Container {
        /// Its name.
        "name" name: Arc<str>,
        /// Its image.
        "image" image: Arc<str>,
        /// Its ports.
        "ports" ports: Vec<ContainerPort>,
        /// As whom it runs.
        "securityContext" security_context: Option<SecurityContext>,
    }
}

object! { open;
    /// A port of a container.
    ContainerPort {
        /// Its name.
        "name" name: Arc<str>,
        /// Its number.
        "containerPort" container_port: u16,
        /// TCP (default), UDP or SCTP.
        "protocol" protocol: Arc<str>,
    }
}

object! { open;
    /// State of a Pod.
    PodStatus {
        /// Pending, Running, Succeeded, Failed or Unknown.
        "phase" phase: Arc<str>,
        /// Its main address.
        "podIP" pod_ip: Arc<str>,
        /// All its addresses.
        "podIPs" pod_ips: Vec<PodIp>,
        /// Conditions.
        "conditions" conditions: Vec<Condition>,
    }
}

object! { open;
    /// An address of a Pod.
    PodIp {
        /// The address.
        "ip" ip: Arc<str>,
    }
}

object! { open;
    /// A condition.
    Condition {
        /// What it is about.
        "type" kind: Arc<str>,
        /// True, False or Unknown.
        "status" status: Arc<str>,
    }
}

object! { open;
    /// A Service.
    Service {
        /// Its specification.
        "spec" spec: ServiceSpec,
    }
}

object! { open;
    /// Specification of a Service.
    ServiceSpec {
        /// ClusterIP (default), NodePort, LoadBalancer or ExternalName.
        "type" kind: Arc<str>,
        /// Its ports.
        "ports" ports: Vec<ServicePort>,
        /// Labels of its pods; empty: endpoints come from elsewhere.
        "selector" selector: BTreeMap<Arc<str>, Arc<str>>,
        /// Its main address, or `None`.
        "clusterIP" cluster_ip: Arc<str>,
        /// All its addresses.
        "clusterIPs" cluster_ips: Vec<Arc<str>>,
        /// The host it stands for (ExternalName).
        "externalName" external_name: Arc<str>,
        /// Send to pods that are not ready too.
        "publishNotReadyAddresses" publish_not_ready_addresses: bool,
        /// Preference of close endpoints: `PreferClose`, `PreferSameZone` or `PreferSameNode`.
        "trafficDistribution" traffic_distribution: Arc<str>,
    }
}

object! { open;
    /// A port of a Service.
    ServicePort {
        /// Its name.
        "name" name: Arc<str>,
        /// Its number.
        "port" port: u16 [required],
        /// TCP (default), UDP or SCTP.
        "protocol" protocol: Arc<str>,
        /// What is spoken on it.
        "appProtocol" app_protocol: Arc<str>,
        /// Where it arrives at the pod; absent: the same number.
        "targetPort" target_port: IntegerOrText,
        /// The port on every node.
        "nodePort" node_port: u16,
    }
}

/// A port by number or name.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug)]
pub enum IntegerOrText {
    /// Nothing said.
    #[default]
    Absent,
    /// A number.
    Number(u16),
    /// A name.
    Name(Arc<str>),
}

impl Decode for IntegerOrText {
    fn decode(value: &Value, at: &mut Decoder) -> Self {
        match value {
            Value::String(text) if text.is_empty() => Self::Absent,
            Value::String(text) => Self::Name(text.as_str().into()),
            Value::Number(_) => Self::Number(u16::decode(value, at)),
            _ => {
                at.wrong_type("a port number or name", value, None);
                Self::Absent
            }
        }
    }

    fn shape() -> Shape {
        Shape::IntegerOrText
    }
}

object! { open;
    /// A part of a Service's endpoints.
    EndpointSlice {
        /// IPv4, IPv6 or FQDN.
        "addressType" address_type: Arc<str>,
        /// Ports of every endpoint.
        "ports" ports: Vec<EndpointPort>,
        /// The endpoints.
        "endpoints" endpoints: Vec<SliceEndpoint>,
    }
}

object! { open;
    /// A port of endpoints.
    EndpointPort {
        /// Its name, as in the Service.
        "name" name: Arc<str>,
        /// Its number; absent: every port.
        "port" port: Option<u16>,
        /// TCP (default), UDP or SCTP.
        "protocol" protocol: Arc<str>,
        /// What is spoken on it.
        "appProtocol" app_protocol: Arc<str>,
    }
}

object! { open;
    /// An endpoint.
    SliceEndpoint {
        /// Its addresses.
        "addresses" addresses: Vec<Arc<str>>,
        /// Its state.
        "conditions" conditions: EndpointConditions,
        /// Its host name.
        "hostname" hostname: Arc<str>,
        /// What stands behind it.
        "targetRef" target_ref: Option<ObjectReference>,
        /// The node it runs on.
        "nodeName" node_name: Arc<str>,
        /// Its zone.
        "zone" zone: Arc<str>,
    }
}

object! { open;
    /// State of an endpoint; absent means yes for `ready` and `serving`, no for `terminating`.
    EndpointConditions {
        /// Takes traffic.
        "ready" ready: Option<bool>,
        /// Takes traffic, even while it is terminating.
        "serving" serving: Option<bool>,
        /// It is going away.
        "terminating" terminating: Option<bool>,
    }
}

object! { open;
    /// Another object.
    ObjectReference {
        /// Kind.
        "kind" kind: Arc<str>,
        /// Name.
        "name" name: Arc<str>,
        /// Namespace.
        "namespace" namespace: Arc<str>,
    }
}

object! { open;
    /// A Secret. Its content is never printed.
    Secret {
        /// `kubernetes.io/tls` and others.
        "type" kind: Arc<str>,
        /// Values as base64.
        "data" data: BTreeMap<Arc<str>, Sensitive>,
        /// Values as text.
        "stringData" string_data: BTreeMap<Arc<str>, Sensitive>,
    }
}

/// Text that is never printed.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Sensitive(Arc<str>);

impl Sensitive {
    /// The text, for whoever must use it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Sensitive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl Decode for Sensitive {
    fn decode(value: &Value, at: &mut Decoder) -> Self {
        match value {
            Value::String(text) => Self(text.as_str().into()),
            // The value itself stays out of the message.
            _ => {
                at.wrong_type("text", &Value::Null, None);
                Self::default()
            }
        }
    }

    fn shape() -> Shape {
        Shape::Text
    }
}
