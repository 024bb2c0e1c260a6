//! Resources as people read them: protobuf JSON with the field names of Envoy's documentation,
//! `Any`s expanded, secrets blanked.
//!
//! A sink for dumps, goldens and `translate`; nothing reads it back. The JSON is what Envoy takes
//! in a bootstrap.

use std::{collections::HashSet, sync::LazyLock};

use ferromesh_proto::ResourceType;
use prost_reflect::{
    DynamicMessage, ExtensionDescriptor, Kind, MessageDescriptor, ReflectMessage, SerializeOptions,
};
use serde_json::Value;

use crate::descriptors;

/// Stands where a secret was; base64 of `[redacted]`, since some of these fields are bytes.
const REDACTED: &str = "W3JlZGFjdGVkXQ==";

/// Why bytes cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum DebugError {
    /// The Envoy API has no such message.
    #[error("no message is called {0}")]
    Unknown(String),
    /// The bytes are not a message of that type.
    #[error("not a {name}: {source}")]
    Decode {
        /// The message that was expected.
        name: String,
        /// What is wrong with the bytes.
        source: prost::DecodeError,
    },
    /// The message holds something that has no JSON form, such as an `Any` of an unknown type.
    #[error("{name} cannot be written as JSON: {source}")]
    Json {
        /// The message.
        name: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

/// The resource `body` of type `kind` as JSON; fields with their default value are left out.
pub fn to_json(kind: ResourceType, body: &[u8]) -> Result<Value, DebugError> {
    let name = kind.type_url().rsplit('/').next().unwrap_or_default();
    message_to_json(name, body)
}

/// The message `name` (fully qualified) in `body` as JSON.
pub fn message_to_json(name: &str, body: &[u8]) -> Result<Value, DebugError> {
    let descriptor = descriptors::pool().get_message_by_name(name);
    let descriptor = descriptor.ok_or_else(|| DebugError::Unknown(name.to_owned()))?;
    let message = DynamicMessage::decode(descriptor, body)
        .map_err(|source| DebugError::Decode { name: name.to_owned(), source })?;
    let options = SerializeOptions::new().use_proto_field_name(true);
    let mut json = message
        .serialize_with_options(serde_json::value::Serializer, &options)
        .map_err(|source| DebugError::Json { name: name.to_owned(), source })?;
    redact(&mut json, &message.descriptor());
    Ok(json)
}

/// Fields that Envoy's API marks as secret, by full name.
static SENSITIVE: LazyLock<HashSet<String>> = LazyLock::new(|| {
    let pool = descriptors::pool();
    let Some(mark) = pool.get_extension_by_name("udpa.annotations.sensitive") else {
        return HashSet::new();
    };
    let fields = pool.all_messages().flat_map(|m| m.fields().collect::<Vec<_>>());
    fields.filter(|f| is_set(&f.options(), &mark)).map(|f| f.full_name().to_owned()).collect()
});

fn is_set(options: &DynamicMessage, mark: &ExtensionDescriptor) -> bool {
    options.has_extension(mark) && options.get_extension(mark).as_bool() == Some(true)
}

/// Blanks the secrets in the JSON form of a message.
fn redact(json: &mut Value, message: &MessageDescriptor) {
    let Value::Object(fields) = json else { return };
    let packed = fields.get("@type").and_then(Value::as_str).and_then(|url| url.rsplit('/').next());
    let inner = packed.and_then(|name| descriptors::pool().get_message_by_name(name));
    let message = inner.as_ref().unwrap_or(message);
    for (name, value) in fields.iter_mut() {
        let Some(field) = message.get_field_by_name(name) else { continue };
        if SENSITIVE.contains(field.full_name()) {
            blank(value);
        } else if let Kind::Message(inner) = field.kind() {
            let inner = match field.is_map().then(|| inner.map_entry_value_field().kind()) {
                None => inner,
                Some(Kind::Message(inner)) => inner,
                Some(_) => continue,
            };
            let inside = |value: &mut Value| redact(value, &inner);
            match value {
                Value::Array(items) => items.iter_mut().for_each(inside),
                Value::Object(entries) if field.is_map() => entries.values_mut().for_each(inside),
                value => redact(value, &inner),
            }
        }
    }
}

/// Blanks every text in a secret's value; a file's name is no secret.
fn blank(value: &mut Value) {
    const PUBLIC: [&str; 3] = ["@type", "filename", "environment_variable"];
    match value {
        Value::String(text) => *text = REDACTED.to_owned(),
        Value::Array(items) => items.iter_mut().for_each(blank),
        Value::Object(fields) => {
            fields
                .iter_mut()
                .filter(|(name, _)| !PUBLIC.contains(&name.as_str()))
                .for_each(|(_, v)| blank(v));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::{
        config::core::v3::{
            DataSource, TransportSocket, data_source::Specifier, transport_socket::ConfigType,
        },
        extensions::transport_sockets::tls::v3::{
            CommonTlsContext, Secret, TlsCertificate, UpstreamTlsContext, secret,
        },
    };
    use envoy_types::util::pack_any;
    use prost::Message;

    use super::*;

    fn certificate() -> TlsCertificate {
        let inline = |text: &str| {
            Some(DataSource {
                specifier: Some(Specifier::InlineString(text.into())),
                ..Default::default()
            })
        };
        TlsCertificate {
            certificate_chain: inline("CHAIN"),
            private_key: inline("KEY"),
            ..Default::default()
        }
    }

    #[test]
    fn a_secrets_key_is_blanked_and_its_certificate_stays() {
        let secret = Secret {
            name: "default".into(),
            r#type: Some(secret::Type::TlsCertificate(certificate())),
        };
        let json = to_json(ResourceType::Secret, &secret.encode_to_vec()).unwrap();
        assert_eq!(json["tls_certificate"]["certificate_chain"]["inline_string"], "CHAIN");
        assert_eq!(json["tls_certificate"]["private_key"]["inline_string"], REDACTED);
    }

    #[test]
    fn a_key_inside_a_packed_message_is_blanked() {
        let common =
            CommonTlsContext { tls_certificates: vec![certificate()], ..Default::default() };
        let context = UpstreamTlsContext { common_tls_context: Some(common), ..Default::default() };
        let config_type = Some(ConfigType::TypedConfig(pack_any(context)));
        let socket = TransportSocket { name: "tls".into(), config_type };
        let json = message_to_json("envoy.config.core.v3.TransportSocket", &socket.encode_to_vec())
            .unwrap();
        assert!(!json.to_string().contains("KEY"), "{json:#}");
        assert!(json.to_string().contains("CHAIN"), "{json:#}");
    }

    #[test]
    fn what_is_no_such_message_is_an_error() {
        assert!(matches!(to_json(ResourceType::Cluster, &[0xff]), Err(DebugError::Decode { .. })));
        assert!(matches!(message_to_json("no.such", &[]), Err(DebugError::Unknown(_))));
    }
}
