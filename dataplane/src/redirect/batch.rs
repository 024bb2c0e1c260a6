//! Rules as nf_tables messages: pure. Numbers are those of `linux/netfilter/nf_tables.h`.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{
    netlink::{Attributes, Message, Subject},
    rules::{Chain, Condition, Family, Hook, Rule, Table, Verdict},
};

const NEW_TABLE: u16 = 0;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const NEW_RULE: u16 = 6;

const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;

/// The verdict's register, and one for values of up to 16 bytes.
const REGISTER_VERDICT: u32 = 0;
const REGISTER: u32 = 1;

/// `NF_IP_PRI_NAT_DST`
const DESTINATION_NAT: i32 = -100;
/// `NFT_RETURN`
const RETURN: i32 = -5;
const PROTOCOL_TCP: u8 = 6;
/// `IFNAMSIZ`: interface names are compared whole.
const NAME_LENGTH: usize = 16;

/// Keys of the expression `meta`.
const META_OUT_INTERFACE: u32 = 7;
const META_USER: u32 = 10;
const META_GROUP: u32 = 11;
const META_PROTOCOL: u32 = 16;

/// Headers of the expression `payload`.
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;

/// Messages that replace our tables, in order.
pub(super) fn replace(tables: &[Table]) -> Vec<Message> {
    tables.iter().flat_map(table).collect()
}

fn table(table: &Table) -> Vec<Message> {
    let family = number(table.family);
    let name = || Attributes::default().text(1, Table::NAME);
    let message = |kind, flags| Message {
        kind,
        flags,
        family,
        attributes: name(),
        subject: Subject::Table(table.name()),
    };
    // Made if it is missing, so that it can be deleted with all that is in it, and made anew.
    let mut messages =
        vec![message(NEW_TABLE, CREATE), message(DELETE_TABLE, 0), message(NEW_TABLE, CREATE)];
    messages.extend(table.chains.iter().map(|chain| new_chain(table.family, chain)));
    for chain in &table.chains {
        messages.extend(chain.rules.iter().map(|rule| new_rule(table.family, chain, rule)));
    }
    messages
}

fn number(family: Family) -> u8 {
    match family {
        Family::V4 => 2,
        Family::V6 => 10,
    }
}

fn new_chain(family: Family, chain: &Chain) -> Message {
    let hook = match chain.hook {
        Hook::Prerouting => 0,
        Hook::Output => 3,
    };
    let place = Attributes::default().number(1, hook).signed(2, DESTINATION_NAT);
    let attributes = Attributes::default()
        .text(1, Table::NAME)
        .text(3, chain.hook.chain())
        .nested(4, place)
        .text(7, "nat");
    let subject = Subject::Chain(chain.hook.chain());
    Message { kind: NEW_CHAIN, flags: CREATE, family: number(family), attributes, subject }
}

fn new_rule(family: Family, chain: &Chain, rule: &Rule) -> Message {
    let mut expressions = Attributes::default();
    for condition in &rule.conditions {
        expressions = match_condition(expressions, *condition);
    }
    expressions = end_with(expressions, rule.verdict);
    let attributes = Attributes::default()
        .text(1, Table::NAME)
        .text(2, chain.hook.chain())
        .nested(4, expressions);
    let subject = Subject::Rule {
        rule: rule.to_string(),
        redirects: matches!(rule.verdict, Verdict::Redirect(_)),
    };
    Message { kind: NEW_RULE, flags: CREATE | APPEND, family: number(family), attributes, subject }
}

fn match_condition(expressions: Attributes, condition: Condition) -> Attributes {
    let tcp =
        |expressions| compare(meta(expressions, META_PROTOCOL), Comparison::Equal, &[PROTOCOL_TCP]);
    let port = |expressions| payload(tcp(expressions), TRANSPORT_HEADER, 2, 2);
    match condition {
        Condition::Tcp => tcp(expressions),
        Condition::Port(value) => {
            compare(port(expressions), Comparison::Equal, &value.to_be_bytes())
        }
        Condition::PortIsNot(value) => {
            compare(port(expressions), Comparison::NotEqual, &value.to_be_bytes())
        }
        Condition::From(net) => address(expressions, Field::Source, Comparison::Equal, net),
        Condition::To(net) => address(expressions, Field::Destination, Comparison::Equal, net),
        Condition::NotTo(net) => {
            address(expressions, Field::Destination, Comparison::NotEqual, net)
        }
        Condition::OverLoopback => {
            let mut name = [0; NAME_LENGTH];
            name[..2].copy_from_slice(b"lo");
            compare(meta(expressions, META_OUT_INTERFACE), Comparison::Equal, &name)
        }
        Condition::User(id) => {
            compare(meta(expressions, META_USER), Comparison::Equal, &id.to_ne_bytes())
        }
        Condition::Group(id) => {
            compare(meta(expressions, META_GROUP), Comparison::Equal, &id.to_ne_bytes())
        }
    }
}

fn end_with(expressions: Attributes, verdict: Verdict) -> Attributes {
    match verdict {
        Verdict::Return => {
            let code = Attributes::default().nested(2, Attributes::default().signed(1, RETURN));
            expression(
                expressions,
                "immediate",
                Attributes::default().number(1, REGISTER_VERDICT).nested(2, code),
            )
        }
        Verdict::Redirect(port) => {
            let value = Attributes::default().bytes(1, &port.to_be_bytes());
            let load = Attributes::default().number(1, REGISTER).nested(2, value);
            let redirect = Attributes::default().number(1, REGISTER);
            expression(expression(expressions, "immediate", load), "redir", redirect)
        }
    }
}

#[derive(Clone, Copy)]
enum Comparison {
    Equal,
    NotEqual,
}

#[derive(Clone, Copy)]
enum Field {
    Source,
    Destination,
}

fn expression(expressions: Attributes, name: &str, data: Attributes) -> Attributes {
    expressions.nested(1, Attributes::default().text(1, name).nested(2, data))
}

fn meta(expressions: Attributes, key: u32) -> Attributes {
    expression(expressions, "meta", Attributes::default().number(1, REGISTER).number(2, key))
}

fn payload(expressions: Attributes, header: u32, offset: u32, length: u32) -> Attributes {
    let data = Attributes::default()
        .number(1, REGISTER)
        .number(2, header)
        .number(3, offset)
        .number(4, length);
    expression(expressions, "payload", data)
}

fn compare(expressions: Attributes, comparison: Comparison, value: &[u8]) -> Attributes {
    let operation = match comparison {
        Comparison::Equal => 0,
        Comparison::NotEqual => 1,
    };
    let value = Attributes::default().bytes(1, value);
    expression(
        expressions,
        "cmp",
        Attributes::default().number(1, REGISTER).number(2, operation).nested(3, value),
    )
}

fn address(
    expressions: Attributes,
    field: Field,
    comparison: Comparison,
    net: IpNet,
) -> Attributes {
    let (network, mask) = (octets(net.network()), octets(net.netmask()));
    let length = if net.addr().is_ipv4() { 4 } else { 16 };
    let offset = match (field, net) {
        (Field::Source, IpNet::V4(_)) => 12,
        (Field::Destination, IpNet::V4(_)) => 16,
        (Field::Source, IpNet::V6(_)) => 8,
        (Field::Destination, IpNet::V6(_)) => 24,
    };
    let mut expressions = payload(expressions, NETWORK_HEADER, offset, length);
    if net.prefix_len() < net.max_prefix_len() {
        let zero = vec![0; mask.len()];
        let data = Attributes::default()
            .number(1, REGISTER)
            .number(2, REGISTER)
            .number(3, length)
            .nested(4, Attributes::default().bytes(1, &mask))
            .nested(5, Attributes::default().bytes(1, &zero));
        expressions = expression(expressions, "bitwise", data);
    }
    compare(expressions, comparison, &network)
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}
