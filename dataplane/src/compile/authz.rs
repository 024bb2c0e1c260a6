//! RBAC rules. A condition that the engine does not know refuses the whole resource.

use envoy_types::pb::envoy::{
    config::rbac::v3::{
        Permission, Policy as WirePolicy, Principal, Rbac as WireRbac, SourcedMetadata,
        permission::Rule, principal::Identifier, rbac::Action,
    },
    r#type::matcher::v3::{FilterStateMatcher, filter_state_matcher::Matcher},
};

use super::{
    field::{At, Invalid, cidr, each, port, required},
    matcher,
};
use crate::runtime::authz::{Condition, Policy, Rbac, RbacAction};

/// The filter state under which Istio's waypoints keep the peer's identity.
const PEER_PRINCIPAL: &str = "io.istio.peer_principal";

/// Compiles rules.
pub(super) fn rules(message: &WireRbac) -> Result<Rbac, Invalid> {
    let action = match message.action() {
        Action::Allow => RbacAction::Allow,
        Action::Deny => RbacAction::Deny,
        Action::Log => RbacAction::Log,
    };
    let mut policies = message
        .policies
        .iter()
        .map(|(name, wire)| policy(name, wire).at(&format!("policies[{name}]")))
        .collect::<Result<Vec<_>, _>>()?;
    // Maps have no order on the wire; the first match names the policy, so an order is made.
    policies.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Rbac { action, policies })
}

fn policy(name: &str, message: &WirePolicy) -> Result<Policy, Invalid> {
    Ok(Policy {
        name: name.into(),
        permission: Condition::Or(each("permissions", &message.permissions, permission)?),
        principal: Condition::Or(each("principals", &message.principals, principal)?),
    })
}

#[allow(deprecated, reason = "what is deprecated is refused, not skipped")]
fn permission(message: &Permission) -> Result<Condition, Invalid> {
    Ok(match required("rule", message.rule.as_ref())? {
        Rule::AndRules(set) => {
            Condition::And(each("rules", &set.rules, permission).at("and_rules")?)
        }
        Rule::OrRules(set) => Condition::Or(each("rules", &set.rules, permission).at("or_rules")?),
        Rule::NotRule(inner) => Condition::Not(Box::new(permission(inner).at("not_rule")?)),
        Rule::Any(yes) => any(*yes),
        Rule::Header(header) => Condition::Header(matcher::header(header).at("header")?),
        Rule::UrlPath(path) => Condition::Path(matcher::path(path).at("url_path")?),
        Rule::DestinationIp(range) => Condition::DestinationIp(cidr(range).at("destination_ip")?),
        Rule::DestinationPort(number) => {
            Condition::DestinationPort(port("destination_port", *number)?)
        }
        Rule::DestinationPortRange(range) => {
            let bound = |value: i32| u32::try_from(value).unwrap_or(0);
            Condition::DestinationPortRange(bound(range.start)..bound(range.end))
        }
        Rule::RequestedServerName(name) => {
            Condition::ServerName(matcher::string(name).at("requested_server_name")?)
        }
        Rule::Metadata(metadata) => {
            Condition::Metadata(matcher::metadata(metadata).at("metadata")?)
        }
        Rule::SourcedMetadata(metadata) => sourced(metadata).at("sourced_metadata")?,
        Rule::Matcher(_) => return Err(unsupported("matcher")),
        Rule::UriTemplate(_) => return Err(unsupported("uri_template")),
    })
}

#[allow(deprecated, reason = "`source_ip` is what older control planes send")]
fn principal(message: &Principal) -> Result<Condition, Invalid> {
    Ok(match required("identifier", message.identifier.as_ref())? {
        Identifier::AndIds(set) => Condition::And(each("ids", &set.ids, principal).at("and_ids")?),
        Identifier::OrIds(set) => Condition::Or(each("ids", &set.ids, principal).at("or_ids")?),
        Identifier::NotId(inner) => Condition::Not(Box::new(principal(inner).at("not_id")?)),
        Identifier::Any(yes) => any(*yes),
        Identifier::Authenticated(peer) => {
            let name = peer.principal_name.as_ref().map(matcher::string).transpose();
            Condition::Authenticated(name.at("authenticated.principal_name")?)
        }
        Identifier::FilterState(state) => peer_principal(state).at("filter_state")?,
        Identifier::SourceIp(range) => Condition::SourceIp(cidr(range).at("source_ip")?),
        Identifier::DirectRemoteIp(range) => {
            Condition::DirectRemoteIp(cidr(range).at("direct_remote_ip")?)
        }
        Identifier::RemoteIp(range) => Condition::RemoteIp(cidr(range).at("remote_ip")?),
        Identifier::Header(header) => Condition::Header(matcher::header(header).at("header")?),
        Identifier::UrlPath(path) => Condition::Path(matcher::path(path).at("url_path")?),
        Identifier::Metadata(metadata) => {
            Condition::Metadata(matcher::metadata(metadata).at("metadata")?)
        }
        Identifier::SourcedMetadata(metadata) => sourced(metadata).at("sourced_metadata")?,
        Identifier::Custom(_) => return Err(unsupported("custom")),
    })
}

/// What filters found out; whatever else it could be is refused where resources are read.
fn sourced(message: &SourcedMetadata) -> Result<Condition, Invalid> {
    let found = required("metadata_matcher", message.metadata_matcher.as_ref())?;
    Ok(Condition::Metadata(matcher::metadata(found).at("metadata_matcher")?))
}

fn peer_principal(message: &FilterStateMatcher) -> Result<Condition, Invalid> {
    match (message.key.as_str(), &message.matcher) {
        (PEER_PRINCIPAL, Some(Matcher::StringMatch(name))) => {
            Ok(Condition::Authenticated(Some(matcher::string(name).at("string_match")?)))
        }
        (key, _) => Err(Invalid::new(format!(
            "expected {PEER_PRINCIPAL:?} with a string_match, got {key:?}"
        ))
        .at("key")),
    }
}

fn any(yes: bool) -> Condition {
    if yes { Condition::Any } else { Condition::Not(Box::new(Condition::Any)) }
}

fn unsupported(field: &str) -> Invalid {
    Invalid::new("not supported by this proxy").at(field)
}
