//! `ferromesh proxy-config`: what a proxy was sent, as tables or whole. An Envoy and a proxy of our
//! own are sent the same.

use anyhow::bail;
use clap::{Args, ValueEnum};
use serde_json::Value;

use super::{
    print::print,
    proxy_log,
    remote::{Remote, encode},
    table::{one_line, plain_table, text},
    yaml,
};

/// `ferromesh proxy-config`.
#[derive(Args, Debug)]
#[group(skip)]
#[command(after_help = "Examples:
  ferromesh proxy-config productpage-v1-0.default clusters
  ferromesh proxy-config routes productpage-v1-0.default --name 9080
  ferromesh proxy-config productpage-v1-0.default endpoints --name reviews
  ferromesh proxy-config productpage-v1-0.default secrets
  ferromesh proxy-config productpage-v1-0.default -o json
  ferromesh proxy-config log --level debug                  what a proxy of this machine logs
  ferromesh proxy-config log --admin 127.0.0.1:15000 --level info,http:debug")]
pub(crate) struct ProxyConfig {
    /// The proxy: its node id, or NAME.NAMESPACE; a section may stand before it
    proxy: String,
    /// Only this section: listeners, routes, clusters, endpoints or secrets; or log
    section: Option<String>,
    /// Only what has this text in its name
    #[arg(long, value_name = "TEXT")]
    name: Option<String>,
    /// How to print [default: a table, and json without a section]
    #[arg(short, long, value_enum)]
    output: Option<SectionForm>,
    /// With log: the proxy's admin interface
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:15000")]
    admin: String,
    /// With log: log so much from now on: a level, or LOGGER:LEVEL, with commas
    #[arg(long, value_name = "LEVELS")]
    level: Option<String>,
}

/// How a section is printed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum SectionForm {
    /// A line for each.
    Table,
    /// Canonical protobuf JSON.
    Json,
    /// The same as YAML.
    Yaml,
}

/// A part of what a proxy was sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Section {
    Listeners,
    Routes,
    Clusters,
    Endpoints,
    Secrets,
}

impl Section {
    const ALL: [Self; 5] =
        [Self::Listeners, Self::Routes, Self::Clusters, Self::Endpoints, Self::Secrets];

    /// Its name in the server's answer.
    fn name(self) -> &'static str {
        match self {
            Self::Listeners => "listeners",
            Self::Routes => "routes",
            Self::Clusters => "clusters",
            Self::Endpoints => "endpoints",
            Self::Secrets => "secrets",
        }
    }

    /// By its name, in the singular too, or as istioctl shortens it.
    fn named(word: &str) -> Option<Self> {
        let short = |section: Self| match section {
            Self::Listeners => "l",
            Self::Routes => "r",
            Self::Clusters => "c",
            Self::Endpoints => "ep",
            Self::Secrets => "s",
        };
        Self::ALL.into_iter().find(|section| {
            let name = section.name();
            word == name || Some(word) == name.strip_suffix('s') || word == short(*section)
        })
    }
}

impl ProxyConfig {
    /// Whether it is asked what a proxy logs.
    fn is_log(&self) -> bool {
        let words = [Some(&self.proxy), self.section.as_ref()];
        words.into_iter().flatten().any(|word| word == "log" || word == "logs")
    }

    /// The proxy, and the section that is asked for.
    ///
    /// # Errors
    /// There is no such section.
    fn asked(&self) -> anyhow::Result<(&str, Option<Section>)> {
        let Some(second) = &self.section else { return Ok((&self.proxy, None)) };
        match (Section::named(second), Section::named(&self.proxy)) {
            (Some(section), _) => Ok((&self.proxy, Some(section))),
            (None, Some(section)) => Ok((second, Some(section))),
            (None, None) => {
                let names = Section::ALL.map(Section::name).join(", ");
                bail!("no section {second:?}: expected one of {names}")
            }
        }
    }
}

impl Remote {
    /// Prints what a proxy was sent.
    ///
    /// # Errors
    /// There is no such proxy or section, or no answer.
    pub(crate) async fn proxy_config(&self, command: &ProxyConfig) -> anyhow::Result<()> {
        if command.is_log() {
            return proxy_log::run(&command.admin, command.level.as_deref()).await;
        }
        let (proxy, section) = command.asked()?;
        let path = format!("/api/v1/proxies/{}/config", encode(proxy));
        let mut dump = self.read(&path).await?;
        let Some(section) = section else {
            return print_whole(&dump, command.output.unwrap_or(SectionForm::Json));
        };
        let mut items = match dump[section.name()].take() {
            Value::Array(items) => items,
            _ => Vec::new(),
        };
        if let Some(part) = &command.name {
            items.retain(|item| name_of(item).contains(part));
        }
        match command.output.unwrap_or(SectionForm::Table) {
            SectionForm::Table if section == Section::Secrets => {
                let own = self.newest_certificate(proxy).await?;
                print(&secrets(&items, &own));
            }
            SectionForm::Table => print(&table(section, &items)),
            form => print_whole(&Value::Array(items), form)?,
        }
        Ok(())
    }

    /// The newest certificate of a proxy's identity; null for a proxy that has proved none.
    async fn newest_certificate(&self, proxy: &str) -> anyhow::Result<Value> {
        let proxies = self.read("/api/v1/proxies").await?;
        let is_asked = |item: &&Value| {
            let id = item["id"].as_str().unwrap_or_default();
            id == proxy || id.split('~').nth(2) == Some(proxy)
        };
        let proxies = proxies["items"].as_array().into_iter().flatten();
        let Some(identity) = proxies.clone().find(is_asked).map(|item| &item["identity"]) else {
            return Ok(Value::Null);
        };
        let issued = self.read("/api/v1/certificates").await?;
        let mut issued = issued["items"].as_array().into_iter().flatten();
        Ok(issued.find(|item| item["spiffeId"] == *identity).cloned().unwrap_or_default())
    }
}

fn print_whole(value: &Value, form: SectionForm) -> anyhow::Result<()> {
    match form {
        SectionForm::Yaml => print(yaml::block(value).trim_end()),
        SectionForm::Json | SectionForm::Table => print(&serde_json::to_string_pretty(value)?),
    }
    Ok(())
}

/// A resource's name; that of an assignment is its cluster's.
fn name_of(item: &Value) -> &str {
    let name = item["name"].as_str().or_else(|| item["cluster_name"].as_str());
    name.or_else(|| item.as_str()).unwrap_or_default()
}

/// Rows of cells.
type Rows = Vec<Vec<String>>;

fn table(section: Section, items: &[Value]) -> String {
    let (header, rows): (&[&str], fn(&Value) -> Rows) = match section {
        Section::Listeners => (&["ADDRESS", "PORT", "MATCH", "DESTINATION"], listener),
        Section::Routes => (&["NAME", "VHOST NAME", "DOMAINS", "MATCH", "DESTINATION"], routes),
        Section::Clusters => (&["SERVICE FQDN", "PORT", "SUBSET", "DIRECTION", "TYPE"], cluster),
        Section::Endpoints => (&["ENDPOINT", "STATUS", "MUTUAL TLS", "CLUSTER"], endpoints),
        Section::Secrets => (&["NAME"], |item: &Value| vec![vec![name_of(item).to_owned()]]),
    };
    let mut table = plain_table(header);
    for row in items.iter().flat_map(rows) {
        table.add_row(row.iter().map(|cell| one_line(cell)));
    }
    table.to_string()
}

fn each(value: &Value) -> impl Iterator<Item = &Value> + Clone {
    value.as_array().into_iter().flatten()
}

fn words(value: &Value) -> Vec<&str> {
    each(value).filter_map(Value::as_str).collect()
}

/// A row for each filter chain.
fn listener(item: &Value) -> Rows {
    let socket = &item["address"]["socket_address"];
    let place = [text(&socket["address"]), text(&socket["port_value"])];
    let chains = each(&item["filter_chains"]).chain(item.get("default_filter_chain"));
    let row = |chain: &Value| [&place[..], &[chain_match(chain), destination(chain)]].concat();
    chains.map(row).collect()
}

/// What a connection must be like for a chain, in istioctl's words.
fn chain_match(chain: &Value) -> String {
    let asked = &chain["filter_chain_match"];
    let mut parts = Vec::new();
    if let Some(transport) = asked["transport_protocol"].as_str().filter(|t| !t.is_empty()) {
        parts.push(format!("Trans: {transport}"));
    }
    for (word, field) in [("App", "application_protocols"), ("SNI", "server_names")] {
        let values = words(&asked[field]);
        if !values.is_empty() {
            parts.push(format!("{word}: {}", values.join(",")));
        }
    }
    let ranges: Vec<String> = each(&asked["prefix_ranges"])
        .map(|range| format!("{}/{}", text(&range["address_prefix"]), text(&range["prefix_len"])))
        .collect();
    if !ranges.is_empty() {
        parts.push(format!("Addr: {}", ranges.join(",")));
    }
    if !asked["destination_port"].is_null() {
        parts.push(format!("Port: {}", text(&asked["destination_port"])));
    }
    if parts.is_empty() { "ALL".to_owned() } else { parts.join("; ") }
}

/// Where a chain's connections or requests go.
fn destination(chain: &Value) -> String {
    for config in each(&chain["filters"]).map(|filter| &filter["typed_config"]) {
        if let Some(name) = config["rds"]["route_config_name"].as_str() {
            return format!("Route: {name}");
        }
        if let Some(hosts) = config["route_config"]["virtual_hosts"].as_array() {
            let domains: Vec<&str> =
                hosts.iter().flat_map(|host| words(&host["domains"])).collect();
            return format!("Inline Route: {}", domains.join(","));
        }
        if let Some(name) = config["cluster"].as_str() {
            return format!("Cluster: {name}");
        }
        let weighted = each(&config["weighted_clusters"]["clusters"]);
        let names: Vec<&str> = weighted.filter_map(|cluster| cluster["name"].as_str()).collect();
        if !names.is_empty() {
            return format!("Clusters: {}", names.join(","));
        }
    }
    "-".to_owned()
}

/// A row for each route of each virtual host.
fn routes(item: &Value) -> Rows {
    let name = name_of(item);
    let of_host = |host: &Value| {
        let domains = words(&host["domains"]);
        let domains = match &domains[..] {
            [first, rest @ ..] if rest.len() > 1 => format!("{first} + {} more", rest.len()),
            all => all.join(","),
        };
        let host_name = name_of(host).to_owned();
        let row = |route: &Value| {
            let place = [name.to_owned(), host_name.clone(), domains.clone()];
            [&place[..], &[route_match(&route["match"]), action(route)]].concat()
        };
        each(&host["routes"]).map(row).collect::<Vec<_>>()
    };
    each(&item["virtual_hosts"]).flat_map(of_host).collect()
}

fn route_match(asked: &Value) -> String {
    let path = ["path", "prefix", "path_separated_prefix"];
    let found = path.iter().find_map(|field| Some((*field, asked[*field].as_str()?)));
    let mut text = match found {
        Some(("prefix" | "path_separated_prefix", "/")) => "/*".to_owned(),
        Some(("path", path)) => path.to_owned(),
        Some((_, prefix)) => format!("{prefix}*"),
        None => format!("regex {}", text(&asked["safe_regex"]["regex"])),
    };
    let headers = each(&asked["headers"]).count() + each(&asked["query_parameters"]).count();
    if headers > 0 {
        text.push_str(&format!(" +{headers} conditions"));
    }
    text
}

fn action(route: &Value) -> String {
    let target = &route["route"];
    if let Some(cluster) = target["cluster"].as_str() {
        return cluster.to_owned();
    }
    let weighted = each(&target["weighted_clusters"]["clusters"]);
    let shares: Vec<String> = weighted
        .map(|cluster| format!("{} {}", text(&cluster["weight"]), text(&cluster["name"])))
        .collect();
    match (shares.is_empty(), &route["direct_response"]["status"], &route["redirect"]) {
        (false, ..) => shares.join(", "),
        (true, status, _) if !status.is_null() => format!("answers {}", text(status)),
        (true, _, redirect) if !redirect.is_null() => "redirects".to_owned(),
        _ => "-".to_owned(),
    }
}

/// The parts of Istio's names: `outbound|80|v1|reviews.default.svc.cluster.local`.
fn cluster(item: &Value) -> Rows {
    let name = name_of(item);
    let parts: Vec<&str> = name.split('|').collect();
    let kind = item["type"].as_str().unwrap_or("STATIC").to_owned();
    let dash = |part: &str| if part.is_empty() { "-".to_owned() } else { part.to_owned() };
    vec![match parts[..] {
        [direction, port, subset, host] => {
            vec![dash(host), dash(port), dash(subset), dash(direction), kind]
        }
        _ => vec![dash(name), dash(""), dash(""), dash(""), kind],
    }]
}

fn endpoints(item: &Value) -> Rows {
    let cluster = name_of(item);
    let all = each(&item["endpoints"]).flat_map(|place| each(&place["lb_endpoints"]));
    let row = |endpoint: &Value| {
        let address = &endpoint["endpoint"]["address"];
        let socket = &address["socket_address"];
        let place = match address["pipe"]["path"].as_str() {
            Some(path) => format!("unix://{path}"),
            None => format!("{}:{}", text(&socket["address"]), text(&socket["port_value"])),
        };
        let health = endpoint["health_status"].as_str().unwrap_or("HEALTHY");
        let told = &endpoint["metadata"]["filter_metadata"]["envoy.transport_socket_match"];
        let tls = if told["tlsMode"] == "istio" { "yes" } else { "no" };
        vec![place, health.to_owned(), tls.to_owned(), cluster.to_owned()]
    };
    all.map(row).collect()
}

/// The proxy's own certificate is the newest that its identity has.
fn secrets(items: &[Value], own: &Value) -> String {
    let mut table = plain_table(&["RESOURCE NAME", "TYPE", "NOT AFTER", "SERIAL"]);
    let mut names: Vec<&str> = items.iter().map(name_of).collect();
    if !own.is_null() {
        names.retain(|name| *name != "default");
        table.add_row([
            "default".to_owned(),
            "Cert Chain".to_owned(),
            text(&own["expires"]),
            text(&own["serial"]),
        ]);
    }
    for name in names {
        let roots = name == "ROOTCA" || name.starts_with("file-root:") || name.ends_with("-cacert");
        let kind = if roots { "CA" } else { "Cert Chain" };
        table.add_row([name, kind, "-", "-"]);
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rows(section: Section, item: Value) -> Vec<String> {
        let said = table(section, &[item]);
        said.lines().skip(1).map(one_line).collect()
    }

    #[test]
    fn a_section_may_stand_on_either_side_and_is_named_if_there_is_none() {
        let config = |proxy: &str, section: &str| ProxyConfig {
            proxy: proxy.to_owned(),
            section: Some(section.to_owned()),
            name: None,
            output: None,
            admin: String::new(),
            level: None,
        };
        for (first, second) in
            [("web.shop", "clusters"), ("cluster", "web.shop"), ("c", "web.shop")]
        {
            let config = config(first, second);
            assert_eq!(config.asked().expect("a section"), ("web.shop", Some(Section::Clusters)));
        }
        let wrong = config("web.shop", "clutsers").asked().expect_err("no section").to_string();
        assert!(wrong.contains("listeners, routes, clusters"), "{wrong}");
    }

    #[test]
    fn what_a_proxy_was_sent_is_told_in_rows() {
        let http = json!({ "typed_config": { "rds": { "route_config_name": "9080" } } });
        let tcp = json!({ "typed_config": { "cluster": "inbound|80||" } });
        let listener = json!({
            "name": "0.0.0.0_9080",
            "address": { "socket_address": { "address": "0.0.0.0", "port_value": 9080 } },
            "filter_chains": [
                { "filter_chain_match": { "transport_protocol": "tls", "application_protocols": ["istio"] }, "filters": [http] },
                { "filters": [tcp] },
            ],
        });
        assert_eq!(
            rows(Section::Listeners, listener),
            [
                "0.0.0.0 9080 Trans: tls; App: istio Route: 9080",
                "0.0.0.0 9080 ALL Cluster: inbound|80||"
            ]
        );
        let weighted = json!([{ "name": "a", "weight": 90 }, { "name": "b", "weight": 10 }]);
        let table = json!({
            "name": "9080",
            "virtual_hosts": [{ "name": "reviews:9080", "domains": ["reviews", "r.shop", "r.svc"], "routes": [
                { "match": { "prefix": "/api", "headers": [{}] }, "route": { "weighted_clusters": { "clusters": weighted } } },
                { "match": { "path": "/x" }, "direct_response": { "status": 403 } },
                { "match": { "prefix": "/" }, "route": { "cluster": "c" } },
            ] }],
        });
        assert_eq!(
            rows(Section::Routes, table),
            [
                "9080 reviews:9080 reviews + 2 more /api* +1 conditions 90 a, 10 b",
                "9080 reviews:9080 reviews + 2 more /x answers 403",
                "9080 reviews:9080 reviews + 2 more /* c",
            ]
        );
        let cluster = json!({ "name": "outbound|80|v1|r.shop.svc", "type": "EDS" });
        assert_eq!(rows(Section::Clusters, cluster), ["r.shop.svc 80 v1 outbound EDS"]);
        let endpoint = json!({
            "cluster_name": "c",
            "endpoints": [{ "lb_endpoints": [{
                "endpoint": { "address": { "socket_address": { "address": "10.0.0.7", "port_value": 80 } } },
                "metadata": { "filter_metadata": { "envoy.transport_socket_match": { "tlsMode": "istio" } } },
            }] }],
        });
        assert_eq!(rows(Section::Endpoints, endpoint), ["10.0.0.7:80 HEALTHY yes c"]);
        let own = json!({ "expires": "2026-01-01T00:00:00Z", "serial": "ab" });
        let said = secrets(&[json!("default"), json!("ROOTCA")], &own);
        let said: Vec<String> = said.lines().skip(1).map(one_line).collect();
        assert_eq!(said, ["default Cert Chain 2026-01-01T00:00:00Z ab", "ROOTCA CA - -"]);
    }
}
