//! The cases of the traffic matrix (`integration/tests/matrix/cases`): each names the fields that
//! it proves, and gives objects, requests and what must become of these.
//!
//! A case is served several times over, under names of its own each time: as it is written, and
//! once for every field that it proves, without that field or with another value of it. What it
//! expects must hold of the first copy, and must not hold of any other; so no case passes that its
//! field does not decide. Knows no mesh: the test carries the requests, and `docs/fields.md` lists
//! the cases.

mod copy;
mod expand;

use std::{collections::BTreeMap, fs};

use ferromesh_xds_translator::yaml;
use serde::Deserialize;
use serde_json::{Map, Value};

pub use copy::CaseCopy;

use crate::paths;

/// Where the cases are, from the project's folder.
pub const FOLDER: &str = "integration/tests/matrix/cases";

/// A case.
#[derive(Clone, Debug)]
pub struct Case {
    /// What it says, as a sentence; unique.
    pub name: String,
    /// The fields that it proves; not empty.
    pub proofs: Vec<Proof>,
    /// Whom its requests reach.
    pub site: Site,
    /// Whether others are served beside it.
    pub company: Company,
    /// Why our proxy does not carry it, if it does not.
    pub not_ours: Option<String>,
    /// Why only `integration/soak.sh matrix` takes it, if so.
    pub only_in_soak: Option<String>,
    /// Its objects: of each the kind, and the content below `spec`.
    objects: Vec<(String, Value)>,
    asks: Vec<Ask>,
}

/// A field that a case proves, and what is changed to show that the field decides.
#[derive(Clone, Debug)]
pub struct Proof {
    /// The kind, and the path in it; neither lists nor keys of maps are in it.
    pub field: String,
    /// The field that is taken away; the same, or one above it that must not be without it.
    take: String,
    /// What stands in its place.
    instead: Option<Value>,
}

/// Whether a case is served beside others.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Company {
    /// All at once, each under names of its own.
    #[default]
    Others,
    /// One copy after the other: its objects are about whole workloads or the whole mesh.
    Alone,
}

/// Whom the requests of a case reach.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Site {
    /// Three servers outside of the mesh, v1 to v3, through the client's sidecar: `$HOST`, ports 80
    /// (HTTP) and 9000 (bytes, at `$VIP`).
    #[default]
    Outside,
    /// As `Outside`, of one server: v1.
    One,
    /// As `Outside`, by TLS: of port 80 the servers take TLS alone.
    Secure,
    /// The workload `web`, through two sidecars; `$PATH` is a path of the case's own.
    Web,
    /// As `Web`, where the sidecar of `web` alone decides: not shown again with other callers.
    Server,
    /// As `Outside`, through the gateway for who is outside, at port 80 of which `$HOST` is served.
    Edge,
    /// Nothing: the case has its own service, which may be at `$SERVER`, an address of the copy's
    /// own.
    Nothing,
}

impl Site {
    /// Whether sidecars are at both ends, so that each may be another proxy.
    pub fn is_two_sided(self) -> bool {
        self == Self::Web
    }
}

/// Requests, and what must become of them.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ask {
    /// Which pod asks: `client`, `stranger` (another namespace and account), `outsider` (no
    /// sidecar). Absent: the client, or who is outside where the site is the gateway.
    pub from: Option<String>,
    /// Where the connection goes. Absent: to nobody in particular, since sidecars go by names, or
    /// to the gateway from who is outside.
    pub address: Option<String>,
    /// The port.
    pub port: u16,
    /// The authority.
    pub to: String,
    /// The path; `$N` in it is another number whenever it is asked again.
    pub path: Option<String>,
    /// The method.
    pub method: String,
    /// Headers. `$TOKEN(NAME=VALUE,…)` is a token with these claims.
    pub headers: BTreeMap<String, String>,
    /// The body.
    pub body: String,
    /// HTTP/2 with prior knowledge.
    pub http2: bool,
    /// Bytes instead of a request.
    pub bytes: Option<String>,
    /// A connection by TLS that names this server.
    pub sni: Option<String>,
    /// By TLS: the certificate that is shown, `client` (of an authority that servers know) or
    /// `stranger`.
    pub shows: Option<String>,
    /// By no TLS but 1.2.
    #[serde(rename = "old tls")]
    pub old_tls: bool,
    /// So many, one after the other.
    pub times: usize,
    /// So many at once, instead.
    pub together: usize,
    /// Before the first one, in ms.
    pub pause: u64,
    /// Between them, in ms.
    pub gap: u64,
    /// Of bytes: the answer is over when the connection is.
    pub ends: bool,
    /// The status of each answer; 0: no answer at all. Absent, and without `count`: 200.
    pub status: Option<u16>,
    /// Lines that each answer has; `*` stands for anything.
    pub has: Vec<String>,
    /// Lines that no answer has.
    pub lacks: Vec<String>,
    /// How many answers have a line: at least, and at most.
    pub count: BTreeMap<String, [usize; 2]>,
    /// How many different lines of this first word the answers have together: at least, and at
    /// most.
    pub distinct: BTreeMap<String, [usize; 2]>,
    /// The least time that each takes, in ms.
    pub least: u64,
    /// The most.
    pub most: Option<u64>,
    /// A line that a connection of who asks to `$SERVER` has in the list of sockets (`ss -tno`).
    pub socket: Option<String>,
    /// How many lines like this the proxies have written: at least, and at most.
    pub logged: BTreeMap<String, [usize; 2]>,
    /// How often a server has been asked, whoever wanted that, by requests with this line, in which
    /// `*` stands for anything: at least, and at most. What services are told that proxies ask or
    /// tell something (port 9300 of `$SERVER`) begins with `$SERVER`.
    pub arrived: BTreeMap<String, [usize; 2]>,
    /// `$SERVER` of the copy.
    #[serde(skip)]
    pub server: String,
}

impl Default for Ask {
    fn default() -> Self {
        Self {
            from: None,
            address: None,
            port: 80,
            to: "$HOST".to_owned(),
            path: None,
            method: "GET".to_owned(),
            headers: BTreeMap::new(),
            body: String::new(),
            http2: false,
            bytes: None,
            sni: None,
            shows: None,
            old_tls: false,
            times: 1,
            together: 0,
            pause: 0,
            gap: 0,
            ends: false,
            status: None,
            has: Vec::new(),
            lacks: Vec::new(),
            count: BTreeMap::new(),
            distinct: BTreeMap::new(),
            least: 0,
            most: None,
            socket: None,
            logged: BTreeMap::new(),
            arrived: BTreeMap::new(),
            server: String::new(),
        }
    }
}

/// A case as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    case: String,
    fields: Vec<Listed>,
    #[serde(default)]
    site: Site,
    #[serde(default)]
    company: Company,
    #[serde(rename = "not ours")]
    not_ours: Option<String>,
    #[serde(rename = "only in soak")]
    only_in_soak: Option<String>,
    /// As which of several cases it stands.
    #[serde(default)]
    each: Each,
    /// What stands at each of several places.
    policy: Option<Value>,
    /// What else a DestinationRule says that has the policy.
    rule: Option<Map<String, Value>>,
    #[serde(default)]
    objects: Vec<Map<String, Value>>,
    asks: Vec<Ask>,
}

/// Cases that are written once.
#[derive(Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Each {
    /// It is one case.
    #[default]
    Once,
    /// One for ALLOW, and one for DENY whose answers 200 and 403 are the other way round.
    Action,
    /// One for each place of a traffic policy: of the host, a port, a subset, a port of a subset.
    Place,
    /// One for each place of what no port has: of the host, a subset.
    Side,
    /// One for each place where a Sidecar has limits of connections to the application of `web`.
    Pool,
}

/// A field as it is written: alone, or with what is changed.
#[derive(Clone, Deserialize)]
#[serde(untagged)]
enum Listed {
    Alone(String),
    Changed { field: String, take: Option<String>, instead: Option<Value> },
}

/// Every case, in the order of files and lines.
///
/// # Panics
/// A file is no list of cases, or two have one name; the text says which.
pub fn cases() -> Vec<Case> {
    let folder = paths::project().join(FOLDER);
    let entries = fs::read_dir(&folder).expect("the folder of cases");
    let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    files.sort();
    let mut cases: Vec<Case> = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).expect("a file of cases");
        cases.extend(read(&file.display().to_string(), &text));
    }
    let mut names: Vec<&str> = cases.iter().map(|case| &*case.name).collect();
    names.sort_unstable();
    let twice = names.windows(2).find(|pair| pair[0] == pair[1]);
    assert!(twice.is_none(), "two cases are called {twice:?}");
    cases
}

fn read(file: &str, text: &str) -> Vec<Case> {
    let tree = yaml::parse(text).unwrap_or_else(|e| panic!("{file}: {e:?}"));
    let Some(Value::Array(list)) = tree.map(|tree| tree.to_json()) else {
        panic!("{file}: no list of cases");
    };
    let written = list.into_iter().map(|value| {
        let name = value["case"].clone();
        serde_json::from_value(value).unwrap_or_else(|e| panic!("{file}: {name}: {e}"))
    });
    written.flat_map(expand::expand).collect()
}

/// Whether a text is like this one, in which `*` stands for anything, and `?` for any character.
pub fn is_like(text: &str, pattern: &str) -> bool {
    let Some((begin, rest)) = pattern.split_once('*') else {
        return begins_like(text, pattern) == Some("");
    };
    let Some(text) = begins_like(text, begin) else { return false };
    (0..=text.len()).any(|at| text.is_char_boundary(at) && is_like(&text[at..], rest))
}

/// What follows a beginning, in which `?` stands for any character.
fn begins_like<'a>(text: &'a str, begin: &str) -> Option<&'a str> {
    let mut text = text.chars();
    let same = begin.chars().all(|wanted| {
        let found = text.next();
        found.is_some_and(|found| wanted == '?' || wanted == found)
    });
    same.then_some(text.as_str())
}
