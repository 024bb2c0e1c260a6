//! Random policies, identities and calls. Written as a user writes them: nothing here knows what
//! becomes of a policy.

use std::net::Ipv4Addr;

use rand::{RngExt, rngs::StdRng};
use serde_json::{Map, Value, json};

use crate::{
    authorizers,
    tokens::{Authentication, Keys, Token},
};

/// Namespace of the workload that is called.
pub(crate) const NAMESPACE: &str = "shop";
/// Namespace whose policies hold everywhere.
pub(crate) const ROOT: &str = "istio-system";
/// Declared HTTP, declared TCP, and a port of which nothing is declared.
pub(crate) const PORTS: [u16; 3] = [8080, 9000, 7000];
/// Server names that clients ask for.
pub(crate) const SERVER_NAMES: [&str; 2] = ["app.shop.svc.cluster.local", "db.example.com"];

const TRUST_DOMAINS: [&str; 5] =
    ["cluster.local", "prod.corp", "dev.corp", "old.example", "evil.net"];
const NAMESPACES: [&str; 4] = ["shop", "shop-eu", "workshop", "bank"];
const ACCOUNTS: [&str; 4] = ["sleep", "sleepy", "my.corp", "shop"];
const NETWORKS: [&str; 5] =
    ["127.240.9.1", "127.240.9.0/31", "127.240.9.2/32", "127.0.0.0/8", "192.0.2.0/24"];
const METHODS: [&str; 5] = ["GET", "POST", "PUT", "P*", "*"];
const HOSTS: [&str; 7] = [
    "a.example.com",
    "A.Example.COM",
    "*.example.com",
    "a.example.com:8080",
    "a.example.com:*",
    "b*",
    "*",
];
const PATHS: [&str; 12] = [
    "/a",
    "/a*",
    "/a/b",
    "*/b",
    "/admin*",
    "/a/{*}",
    "/a/{**}",
    "/{*}/b",
    "/{**}/b",
    "/{*}/{**}",
    "/a/{**}/",
    "*",
];
const VALUES: [&str; 5] = ["one", "o*", "*ne", "two", "*"];
const SNI: [&str; 4] = ["app.shop.svc.cluster.local", "*.example.com", "app*", "*"];

/// Who calls.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Identity {
    pub(crate) trust_domain: &'static str,
    pub(crate) namespace: &'static str,
    pub(crate) account: &'static str,
}

impl Identity {
    /// All that have a certificate.
    pub(crate) fn all() -> Vec<Self> {
        let every = TRUST_DOMAINS.iter().enumerate().flat_map(|(i, trust_domain)| {
            // Every trust domain with every namespace, and with every account.
            (0..4).map(move |j| Self {
                trust_domain,
                namespace: NAMESPACES[j],
                account: ACCOUNTS[(i + j) % 4],
            })
        });
        every.collect()
    }

    pub(crate) fn text(&self) -> String {
        format!("{}/ns/{}/sa/{}", self.trust_domain, self.namespace, self.account)
    }
}

/// The names of the mesh's trust domain.
#[derive(Clone, Debug)]
pub(crate) struct Mesh {
    pub(crate) trust_domain: &'static str,
    pub(crate) aliases: Vec<&'static str>,
}

/// A list of values and its counterpart with `not`.
#[derive(Clone, Debug)]
pub(crate) struct Field {
    /// Name of the field, or key of the condition.
    pub(crate) name: &'static str,
    pub(crate) values: Vec<String>,
    pub(crate) not_values: Vec<String>,
}

#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub(crate) from: Vec<Vec<Field>>,
    pub(crate) to: Vec<Vec<Field>>,
    pub(crate) when: Vec<Field>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Action {
    Allow,
    Deny,
    Audit,
    Custom,
}

#[derive(Clone, Debug)]
pub(crate) struct Policy {
    pub(crate) namespace: &'static str,
    /// The value of label `app` that it selects.
    pub(crate) selects: Option<&'static str>,
    pub(crate) action: Action,
    pub(crate) dry_run: bool,
    /// Who is asked, of action CUSTOM.
    pub(crate) authorizer: &'static str,
    pub(crate) rules: Vec<Rule>,
}

/// Policies for one workload.
#[derive(Clone, Debug)]
pub(crate) struct Set {
    pub(crate) mesh: Mesh,
    pub(crate) policies: Vec<Policy>,
    pub(crate) authentications: Vec<Authentication>,
}

/// What a call carries.
#[derive(Clone, Debug)]
pub(crate) enum Payload {
    Request {
        method: &'static str,
        host: &'static str,
        path: &'static str,
        headers: Vec<(&'static str, &'static str)>,
        token: Option<Token>,
    },
    Bytes,
}

/// One call.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    /// `None`: plaintext.
    pub(crate) peer: Option<Identity>,
    /// Asked for in the handshake, if there is one.
    pub(crate) server_name: Option<&'static str>,
    pub(crate) source: Ipv4Addr,
    pub(crate) port: u16,
    pub(crate) payload: Payload,
}

/// Makes everything, always the same from the same seed.
pub(crate) struct Dice(pub(crate) StdRng);

impl Dice {
    pub(crate) fn chance(&mut self, percent: u32) -> bool {
        self.0.random_range(0..100) < percent
    }

    pub(crate) fn pick<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.0.random_range(0..all.len())]
    }

    pub(crate) fn several<T>(
        &mut self,
        most: usize,
        mut one: impl FnMut(&mut Self) -> T,
    ) -> Vec<T> {
        let count = self.0.random_range(1..=most);
        (0..count).map(|_| one(self)).collect()
    }

    pub(crate) fn some<T>(
        &mut self,
        percent: u32,
        most: usize,
        one: impl FnMut(&mut Self) -> T,
    ) -> Vec<T> {
        if self.chance(percent) { self.several(most, one) } else { Vec::new() }
    }

    pub(crate) fn set(&mut self) -> Set {
        let mut aliases = vec!["old.example", "dev.corp"];
        aliases.retain(|_| self.chance(50));
        let mesh = Mesh { trust_domain: self.pick(&TRUST_DOMAINS[..2]), aliases };
        let policies = self.several(4, Self::policy);
        Set { mesh, policies, authentications: self.some(75, 2, Self::authentication) }
    }

    fn policy(&mut self) -> Policy {
        use Action::{Allow, Audit, Custom, Deny};
        let [grpc, http, nobody] = authorizers::NAMES;
        let action = self.pick(&[Allow, Allow, Allow, Allow, Deny, Deny, Audit, Custom]);
        let dry_run = matches!(action, Allow | Deny) && self.chance(25);
        let mut rules = match action {
            Allow | Audit => self.some(95, 3, Self::rule),
            // Istio refuses a guard that guards nothing.
            Deny | Custom => self.several(3, Self::rule),
        };
        if action == Custom {
            rules.iter_mut().for_each(Rule::forget_callers);
        }
        Policy {
            namespace: self.pick(&[NAMESPACE, NAMESPACE, NAMESPACE, ROOT, "bank"]),
            selects: self.pick(&[None, None, Some("app"), Some("app"), Some("other")]),
            action,
            dry_run,
            authorizer: self.pick(&[grpc, grpc, http, http, nobody]),
            rules,
        }
    }

    fn rule(&mut self) -> Rule {
        Rule {
            from: self.some(65, 2, Self::source),
            to: self.some(50, 2, Self::operation),
            when: self.some(40, 2, |dice| dice.condition()),
        }
    }

    fn source(&mut self) -> Vec<Field> {
        // `serviceAccounts` excludes the first two.
        let kinds = [
            "principals",
            "namespaces",
            "trustDomains",
            "ipBlocks",
            "remoteIpBlocks",
            "requestPrincipals",
            "requestPrincipals",
            "serviceAccounts",
        ];
        let first = self.pick(&kinds);
        let second = self.pick(&kinds[2..6]);
        let mut fields = vec![self.field(first)];
        if second != first && self.chance(35) {
            fields.push(self.field(second));
        }
        fields
    }

    fn operation(&mut self) -> Vec<Field> {
        let kinds = ["hosts", "methods", "paths", "paths", "ports"];
        let (first, second) = (self.pick(&kinds), self.pick(&kinds));
        let mut fields = vec![self.field(first)];
        if second != first && self.chance(40) {
            fields.push(self.field(second));
        }
        fields
    }

    fn condition(&mut self) -> Field {
        let key = self.pick(&[
            "request.headers[x-token]",
            "request.headers[X-Token]",
            "request.headers[:method]",
            "request.headers[:path]",
            "request.headers[:authority]",
            "source.ip",
            "remote.ip",
            "source.namespace",
            "source.principal",
            "source.trustDomain",
            "source.serviceAccount",
            "source.serviceAccount",
            "destination.ip",
            "destination.port",
            "connection.sni",
            "request.auth.principal",
            "request.auth.audiences",
            "request.auth.presenter",
            "request.auth.claims[iss]",
            "request.auth.claims[group]",
            "request.auth.claims[group]",
            "request.auth.claims[scope]",
            "request.auth.claims[realm][roles]",
        ]);
        self.field(key)
    }

    fn field(&mut self, name: &'static str) -> Field {
        let (mut values, mut not_values) = (Vec::new(), Vec::new());
        if self.chance(75) {
            values = self.several(2, |dice| dice.value(name));
        }
        if values.is_empty() || self.chance(15) {
            not_values = self.several(2, |dice| dice.value(name));
        }
        Field { name, values, not_values }
    }

    fn value(&mut self, name: &str) -> String {
        match name {
            "principals" | "source.principal" => self.principal(),
            "trustDomains" | "source.trustDomain" => {
                let pattern = self.pick(&["*.corp", "prod*", "*", "*e", "corp"]);
                if self.chance(50) { pattern } else { self.pick(&TRUST_DOMAINS) }.to_owned()
            }
            "namespaces" | "source.namespace" => {
                let pattern = self.pick(&["shop*", "*shop", "*", "*eu"]);
                if self.chance(40) { pattern } else { self.pick(&NAMESPACES) }.to_owned()
            }
            "serviceAccounts" | "source.serviceAccount" => match self.chance(50) {
                true => self.pick(&ACCOUNTS).to_owned(),
                false => format!("{}/{}", self.pick(&NAMESPACES), self.pick(&ACCOUNTS)),
            },
            "destination.ip" => self.pick(&["127.0.0.0/8", "10.0.0.0/8"]).to_owned(),
            "ports" | "destination.port" => self.pick(&PORTS).to_string(),
            "hosts" | "request.headers[:authority]" => self.pick(&HOSTS).to_owned(),
            "methods" | "request.headers[:method]" => self.pick(&METHODS).to_owned(),
            "paths" => self.pick(&PATHS).to_owned(),
            "request.headers[:path]" => self.pick(&["/a", "/a*", "*/b", "*"]).to_owned(),
            "connection.sni" => self.pick(&SNI).to_owned(),
            name if name == "requestPrincipals" || name.starts_with("request.auth.") => {
                self.token_value(name)
            }
            name if name.contains("ip") || name.contains("Ip") => self.pick(&NETWORKS).to_owned(),
            _ => self.pick(&VALUES).to_owned(),
        }
    }

    fn principal(&mut self) -> String {
        let (domain, namespace, account) =
            (self.pick(&TRUST_DOMAINS), self.pick(&NAMESPACES), self.pick(&ACCOUNTS));
        match self.0.random_range(0..9) {
            0 => "*".to_owned(),
            1 => format!("{domain}/*"),
            2 => format!("{domain}/ns/{namespace}/*"),
            3 => format!("*/ns/{namespace}/sa/{account}"),
            4 => format!("*/sa/{account}"),
            5 => format!("*.corp/ns/{namespace}/sa/{account}"),
            6 => "*.corp".to_owned(),
            _ => format!("{domain}/ns/{namespace}/sa/{account}"),
        }
    }

    pub(crate) fn call(&mut self, identities: &[Identity]) -> Call {
        let peer =
            self.chance(85).then(|| identities[self.0.random_range(0..identities.len())].clone());
        let server_name =
            Some(self.pick(&SERVER_NAMES)).filter(|_| peer.is_some() && self.chance(70));
        let port = self.pick(&[PORTS[0], PORTS[0], PORTS[1], PORTS[2]]);
        let requests = port == PORTS[0] || (port == PORTS[2] && self.chance(50));
        Call {
            peer,
            server_name,
            source: Ipv4Addr::new(127, 240, 9, self.0.random_range(1..=4)),
            port,
            payload: if requests { self.request() } else { Payload::Bytes },
        }
    }

    fn request(&mut self) -> Payload {
        let tokens = self.some(60, 2, |dice| ("x-token", dice.pick(&["one", "two", "three"])));
        let mut headers = tokens;
        if self.chance(30) {
            headers.push((
                "x-forwarded-for",
                self.pick(&["192.0.2.7", "192.0.2.7, 10.9.9.9", "10.9.9.9, 192.0.2.7"]),
            ));
        }
        Payload::Request {
            method: self.pick(&["GET", "POST", "PUT"]),
            host: self.pick(&[
                "a.example.com",
                "a.example.com:8080",
                "A.EXAMPLE.com",
                "b",
                "c.d.example.com",
            ]),
            path: self.pick(&[
                "/",
                "/a",
                "/a/",
                "/a/b",
                "/a/b/c",
                "/b",
                "/A",
                "/admin",
                "/x/../admin",
                "/a/./b",
                "/a/%2e%2e/admin",
                "/%61/b",
                "/a/b?x=/admin",
                "/a/q=1",
                "/a//b",
                "/ab",
            ]),
            headers,
            token: self.chance(70).then(|| self.token()),
        }
    }
}

impl Set {
    /// The policies as objects.
    pub(crate) fn objects(&self, keys: &Keys) -> Vec<Value> {
        let authentications = self.authentications.iter().enumerate();
        let authentications = authentications.map(|(i, a)| a.object(&format!("a{i}"), keys));
        self.policies
            .iter()
            .enumerate()
            .map(|(i, policy)| policy.object(&format!("p{i}")))
            .chain(authentications)
            .collect()
    }
}

impl Policy {
    fn object(&self, name: &str) -> Value {
        let mut metadata = json!({"name": name, "namespace": self.namespace});
        if self.dry_run {
            metadata["annotations"] = json!({"istio.io/dry-run": "true"});
        }
        let mut spec = json!({"action": format!("{:?}", self.action).to_uppercase()});
        if self.action == Action::Custom {
            spec["provider"] = json!({"name": self.authorizer});
        }
        if let Some(app) = self.selects {
            spec["selector"] = json!({"matchLabels": {"app": app}});
        }
        if !self.rules.is_empty() {
            spec["rules"] = self.rules.iter().map(Rule::value).collect();
        }
        json!({"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy", "metadata": metadata, "spec": spec})
    }
}

impl Rule {
    /// Leaves out conditions on who calls: Istio refuses them of policies that ask somebody.
    fn forget_callers(&mut self) {
        for source in &mut self.from {
            source.retain(|field| matches!(field.name, "ipBlocks" | "remoteIpBlocks"));
        }
        self.from.retain(|source| !source.is_empty());
        self.when.retain(|field| {
            let of_peer = field.name.starts_with("source.") && field.name != "source.ip";
            !of_peer && !field.name.starts_with("request.auth.")
        });
    }

    fn value(&self) -> Value {
        let within = |key: &str, fields: &Vec<Field>| json!({key: fields_value(fields)});
        let mut rule = Map::new();
        let mut put = |key: &str, list: Vec<Value>| {
            (!list.is_empty()).then(|| rule.insert(key.to_owned(), list.into()))
        };
        put("from", self.from.iter().map(|fields| within("source", fields)).collect());
        put("to", self.to.iter().map(|fields| within("operation", fields)).collect());
        put("when", self.when.iter().map(Field::condition).collect());
        rule.into()
    }
}

fn fields_value(fields: &[Field]) -> Value {
    let mut value = Map::new();
    for field in fields {
        let (first, rest) = field.name.split_at(1);
        let not = format!("not{}{rest}", first.to_uppercase());
        for (name, list) in [(field.name.to_owned(), &field.values), (not, &field.not_values)] {
            if !list.is_empty() {
                value.insert(name, json!(list));
            }
        }
    }
    value.into()
}

impl Field {
    fn condition(&self) -> Value {
        let mut value = json!({"key": self.name});
        for (name, list) in [("values", &self.values), ("notValues", &self.not_values)] {
            if !list.is_empty() {
                value[name] = json!(list);
            }
        }
        value
    }
}
