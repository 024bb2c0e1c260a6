//! Rate limit policies of routes and filters.

use std::sync::Arc;

use envoy_types::pb::{
    envoy::{
        config::route::v3::{
            RateLimit as Wire,
            rate_limit::{
                Action, XRateLimitOption,
                action::{
                    ActionSpecifier, HeaderValueMatch, MaskedRemoteAddress, MetaData,
                    QueryParameterValueMatch, RemoteAddressMatch, meta_data::Source,
                },
            },
        },
        r#type::metadata::v3::{MetadataKey, metadata_key::path_segment::Segment},
    },
    google::protobuf::{BoolValue, UInt32Value},
    xds::core::v3::CidrRange,
};
use ipnet::IpNet;

use super::{
    field::{At, Invalid, each, flag, ip, number, refuse, required},
    matcher,
};
use crate::runtime::rate_limit::{DescriptorAction, LimitHeaders, MatchCondition, RateLimit};

/// Filters have no more stages.
const LAST_STAGE: u32 = 10;

/// Compiles one policy.
pub(super) fn policy(message: &Wire) -> Result<RateLimit, Invalid> {
    Ok(RateLimit {
        stage: stage(number(message.stage.as_ref(), 0))?,
        actions: each("actions", &message.actions, action)?,
        headers: match message.x_ratelimit_option() {
            XRateLimitOption::Unspecified => LimitHeaders::AsFilter,
            XRateLimitOption::Off => LimitHeaders::Off,
            XRateLimitOption::DraftVersion03 => LimitHeaders::On,
        },
    })
}

/// A stage of a filter or a policy.
pub(super) fn stage(stage: u32) -> Result<u32, Invalid> {
    match stage {
        0..=LAST_STAGE => Ok(stage),
        _ => Err(Invalid::new(format!("expected 0..={LAST_STAGE}, got {stage}")).at("stage")),
    }
}

#[allow(deprecated, reason = "`dynamic_metadata` is what older control planes send")]
fn action(message: &Action) -> Result<DescriptorAction, Invalid> {
    use ActionSpecifier as Of;
    Ok(match required("action_specifier", message.action_specifier.as_ref())? {
        Of::DestinationCluster(_) => DescriptorAction::DestinationCluster,
        Of::RequestHeaders(header) => DescriptorAction::RequestHeader {
            name: named(&header.header_name).at("request_headers.header_name")?,
            key: text(&header.descriptor_key).at("request_headers.descriptor_key")?,
            skip_if_absent: header.skip_if_absent,
        },
        Of::QueryParameters(parameter) => DescriptorAction::QueryParameter {
            name: text(&parameter.query_parameter_name)
                .at("query_parameters.query_parameter_name")?,
            key: text(&parameter.descriptor_key).at("query_parameters.descriptor_key")?,
            skip_if_absent: parameter.skip_if_absent,
        },
        Of::RemoteAddress(_) => DescriptorAction::RemoteAddress,
        Of::MaskedRemoteAddress(mask) => masked(mask).at("masked_remote_address")?,
        Of::GenericKey(generic) => {
            let key = Some(generic.descriptor_key.as_str()).filter(|key| !key.is_empty());
            DescriptorAction::Generic {
                key: key.unwrap_or("generic_key").into(),
                value: text(&generic.descriptor_value).at("generic_key.descriptor_value")?,
            }
        }
        Of::HeaderValueMatch(matching) => headers(matching).at("header_value_match")?,
        Of::QueryParameterValueMatch(matching) => {
            query(matching).at("query_parameter_value_match")?
        }
        Of::RemoteAddressMatch(matching) => addresses(matching).at("remote_address_match")?,
        Of::Metadata(data) => metadata(data).at("metadata")?,
        Of::DynamicMetadata(data) => metadata(&MetaData {
            descriptor_key: data.descriptor_key.clone(),
            metadata_key: data.metadata_key.clone(),
            default_value: data.default_value.clone(),
            ..MetaData::default()
        })
        .at("dynamic_metadata")?,
        // It is the node's own cluster, of which a compiled route knows nothing.
        Of::SourceCluster(_) => return Err(unsupported("source_cluster")),
        Of::Extension(_) => return Err(unsupported("extension")),
    })
}

fn unsupported(field: &str) -> Invalid {
    Invalid::new("not supported by this proxy").at(field)
}

/// A text that Envoy does not take empty.
fn text(text: &str) -> Result<Arc<str>, Invalid> {
    match text {
        "" => Err(Invalid::new("required, but missing")),
        text => Ok(text.into()),
    }
}

fn named(name: &str) -> Result<Arc<str>, Invalid> {
    text(&name.to_ascii_lowercase())
}

fn masked(message: &MaskedRemoteAddress) -> Result<DescriptorAction, Invalid> {
    let length = |field: &str, wire: Option<&UInt32Value>, most: u8| {
        let length = number(wire, most.into());
        u8::try_from(length)
            .ok()
            .filter(|length| *length <= most)
            .ok_or_else(|| Invalid::new(format!("expected at most {most}, got {length}")).at(field))
    };
    Ok(DescriptorAction::MaskedRemoteAddress {
        v4: length("v4_prefix_mask_len", message.v4_prefix_mask_len.as_ref(), 32)?,
        v6: length("v6_prefix_mask_len", message.v6_prefix_mask_len.as_ref(), 128)?,
    })
}

/// A constant under a condition, as three actions spell it.
fn constant(
    key: (&str, &str),
    value: &str,
    expected: Option<&BoolValue>,
    condition: MatchCondition,
) -> Result<DescriptorAction, Invalid> {
    let (own, usual) = key;
    Ok(DescriptorAction::Match {
        key: if own.is_empty() { usual } else { own }.into(),
        value: text(value).at("descriptor_value")?,
        condition,
        expected: flag(expected, true),
    })
}

fn headers(message: &HeaderValueMatch) -> Result<DescriptorAction, Invalid> {
    let condition = MatchCondition::Headers(each("headers", &message.headers, matcher::header)?);
    let key = (message.descriptor_key.as_str(), "header_match");
    constant(key, &message.descriptor_value, message.expect_match.as_ref(), condition)
}

fn query(message: &QueryParameterValueMatch) -> Result<DescriptorAction, Invalid> {
    let parameters = each("query_parameters", &message.query_parameters, matcher::query)?;
    let key = (message.descriptor_key.as_str(), "query_match");
    let condition = MatchCondition::Query(parameters);
    constant(key, &message.descriptor_value, message.expect_match.as_ref(), condition)
}

fn addresses(message: &RemoteAddressMatch) -> Result<DescriptorAction, Invalid> {
    // Here alone Envoy 1.40 reads a format in the value.
    refuse(&[("descriptor_value", message.descriptor_value.contains('%'))])?;
    let matcher = required("address_matcher", message.address_matcher.as_ref())?;
    let networks = each("address_matcher.ranges", &matcher.ranges, network)?;
    let expected = BoolValue { value: !matcher.invert_match };
    let key = (message.descriptor_key.as_str(), "remote_address_match");
    let condition = MatchCondition::Addresses(networks);
    constant(key, &message.descriptor_value, Some(&expected), condition)
}

fn network(range: &CidrRange) -> Result<IpNet, Invalid> {
    let address = ip("address_prefix", &range.address_prefix)?;
    let length = u8::try_from(number(range.prefix_len.as_ref(), 0)).unwrap_or(u8::MAX);
    IpNet::new(address, length).map_err(|error| Invalid::new(error.to_string()).at("prefix_len"))
}

fn metadata(message: &MetaData) -> Result<DescriptorAction, Invalid> {
    refuse(&[("source", message.source() != Source::Dynamic)])?;
    let MetadataKey { key, path } = required("metadata_key", message.metadata_key.as_ref())?;
    let path = each("path", path, |part| match &part.segment {
        Some(Segment::Key(key)) => Ok(Arc::from(key.as_str())),
        Some(Segment::Index(_)) => Err(Invalid::new("not supported by this proxy").at("index")),
        None => Err(Invalid::new("required, but missing").at("key")),
    });
    Ok(DescriptorAction::Metadata {
        key: text(&message.descriptor_key).at("descriptor_key")?,
        namespace: text(key).at("metadata_key.key")?,
        path: path.at("metadata_key")?,
        default: message.default_value.as_str().into(),
        skip_if_absent: message.skip_if_absent,
    })
}
