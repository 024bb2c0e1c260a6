//! Random authorization policies for one port of a workload.

use std::fmt::Write as _;

use crate::{dice::Dice, rules::PATHS};

/// One policy with a single rule, which holds for one port only.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    action: &'static str,
    operation: String,
    when: String,
    source: String,
    /// Paths that it speaks of.
    pub(crate) paths: Vec<&'static str>,
}

impl Policy {
    /// Whether it admits something, so that all else is refused.
    pub(crate) fn allows(&self) -> bool {
        self.action == "ALLOW"
    }

    /// Admits everything.
    pub(crate) fn allow_all() -> Self {
        let empty = String::new;
        Self {
            action: "ALLOW",
            operation: empty(),
            when: empty(),
            source: empty(),
            paths: Vec::new(),
        }
    }

    pub(crate) fn yaml(&self, name: &str, namespace: &str, app: &str, port: u16) -> String {
        let mut text = format!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
             metadata: {{name: {name}, namespace: {namespace}}}\n\
             spec:\n  selector: {{matchLabels: {{app: {app}}}}}\n  action: {}\n  rules:\n  \
             - to: [{{operation: {{ports: [\"{port}\"]{}}}}}]\n",
            self.action, self.operation
        );
        for (key, value) in [("from", &self.source), ("when", &self.when)] {
            if !value.is_empty() {
                let _ = writeln!(text, "    {key}: [{value}]");
            }
        }
        text + "---\n"
    }
}

const METHODS: [&str; 4] = ["GET", "POST", "get", "P*"];
const WHEN: [&str; 8] = [
    "{key: \"request.headers[x-user]\", values: [alice]}",
    "{key: \"request.headers[x-user]\", values: [\"al*\"]}",
    "{key: \"request.headers[x-user]\", notValues: [alice]}",
    "{key: \"request.headers[x-user]\", values: [\"*\"]}",
    "{key: \"request.headers[x-user]\", notValues: [\"*ice\", bob]}",
    "{key: \"request.headers[x-user]\", values: [\"*ice\"]}",
    "{key: \"request.headers[cookie]\", values: [\"*admin*\"]}",
    "{key: \"request.headers[x-user]\", notValues: [\"*\"]}",
];
const SOURCES: [&str; 4] = [
    "{source: {ipBlocks: [127.0.0.0/8]}}",
    "{source: {notIpBlocks: [10.0.0.0/8]}}",
    "{source: {remoteIpBlocks: [10.0.0.0/8]}}",
    "{source: {notRemoteIpBlocks: [10.0.0.0/8]}}",
];

/// None, one or two policies for the port of `host`.
pub(crate) fn random(dice: &mut Dice, host: &str) -> Vec<Policy> {
    (0..dice.below(3)).map(|_| one(dice, host)).collect()
}

fn one(dice: &mut Dice, host: &str) -> Policy {
    let action = if dice.chance(60) { "DENY" } else { "ALLOW" };
    let mut operation = String::new();
    let mut paths = Vec::new();
    if dice.chance(60) {
        let path = *dice.pick(&PATHS);
        let not = if dice.chance(25) { "notPaths" } else { "paths" };
        let (before, after) = *dice.pick(&[("", ""), ("", "*"), ("", "/*"), ("*", "")]);
        let _ = write!(operation, ", {not}: [\"{before}{path}{after}\"]");
        paths.push(path);
    }
    if dice.chance(30) {
        let not = if dice.chance(30) { "notMethods" } else { "methods" };
        let _ = write!(operation, ", {not}: [\"{}\"]", dice.pick(&METHODS));
    }
    if dice.chance(30) {
        let bare = host.split(':').next().unwrap_or(host);
        let forms =
            [host.to_owned(), bare.to_owned(), format!("{bare}*"), "*.example.com".to_owned()];
        let not = if dice.chance(30) { "notHosts" } else { "hosts" };
        let _ = write!(operation, ", {not}: [\"{}\"]", dice.pick(&forms));
    }
    let mut choose = |percent, from: &[&str]| match dice.chance(percent) {
        true => (*dice.pick(from)).to_owned(),
        false => String::new(),
    };
    let (when, source) = (choose(35, &WHEN), choose(10, &SOURCES));
    Policy { action, operation, when, source, paths }
}
