//! What came of a request on one side, in a form in which both sides can be compared: values that
//! differ from run to run are masked, and the order of fields with different names, which says
//! nothing (RFC 9110 section 5.3), is made one.

use std::fmt;

use crate::{
    application::{Arrival, Progress},
    message::Head,
};

/// Fields of a request whose values are made anew for every request.
const MADE_ANEW: [&str; 1] = ["x-request-id"];
/// Fields of a response whose values tell the time.
const TIMES: [&str; 2] = ["date", "x-envoy-upstream-service-time"];

/// One response, or that none came.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Response {
    /// 0: the stream was refused without one.
    pub(crate) status: u16,
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: String,
    /// Its body ended as its head said.
    pub(crate) complete: bool,
}

/// How the connection was left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    /// The proxy closed it, or said that it will.
    Closed,
    /// Nothing more came, and it stayed open.
    Silent,
    /// It served everything that was asked.
    Served,
}

/// Everything that is compared.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Outcome {
    pub(crate) responses: Vec<Response>,
    pub(crate) end: End,
    pub(crate) tunnel: String,
    pub(crate) arrivals: Vec<Seen>,
}

/// One request at the application.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Seen {
    pub(crate) start: String,
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: String,
    pub(crate) progress: Progress,
}

/// Bytes as text that a person can read and compare.
pub(crate) fn readable(bytes: &[u8]) -> String {
    let text = bytes.escape_ascii().to_string();
    match text.len() {
        0..=400 => text,
        length => format!("{}…({length})…{}", &text[..120], &text[length - 40..]),
    }
}

/// Masks what a side's own addresses look like.
fn masked(bytes: &[u8], prefix: &str) -> String {
    readable(bytes).replace(prefix, "127.N.")
}

/// Masks the address of a client on this machine: Envoy writes its own address for a loopback one.
fn clients(value: &str) -> String {
    let (before, last) =
        value.rsplit_once(',').map_or(("", value), |(before, last)| (before, last));
    let address: Option<std::net::IpAddr> = last.trim().parse().ok();
    let comma = if before.is_empty() { "" } else { "," };
    // What a request claims begins so in every test; what was measured does not.
    match address {
        Some(_) if !last.trim().starts_with("10.") => format!("{before}{comma}client"),
        _ => value.to_owned(),
    }
}

/// Fields whose values end with the address of the client; they may stand on several lines (RFC
/// 9110 section 5.3), of which the last is masked.
const ADDRESSES: [&str; 2] = ["x-forwarded-for", "x-envoy-external-address"];

fn canonical(fields: &[(String, Vec<u8>)], anew: &[&str], prefix: &str) -> Vec<(String, String)> {
    let (addresses, mut fields): (Vec<_>, Vec<_>) = fields
        .iter()
        .cloned()
        .partition(|(name, _)| ADDRESSES.iter().any(|known| name.eq_ignore_ascii_case(known)));
    for known in ADDRESSES {
        let lines = addresses.iter().filter(|(name, _)| name.eq_ignore_ascii_case(known));
        let lines: Vec<&[u8]> = lines.map(|(_, value)| value.as_slice()).collect();
        fields.extend((!lines.is_empty()).then(|| (known.to_owned(), lines.join(&b','))));
    }
    let mut fields: Vec<(String, String)> = fields
        .iter()
        .map(|(name, value)| {
            let name = name.to_ascii_lowercase();
            let value = match name.as_str() {
                name if anew.contains(&name) => "*".into(),
                name if ADDRESSES.contains(&name) => clients(&masked(value, prefix)),
                _ => masked(value, prefix),
            };
            (name, value)
        })
        .collect();
    fields.sort_by(|a, b| a.0.cmp(&b.0));
    // However many lines it has.
    fields.dedup_by(|a, b| a == b && anew.contains(&a.0.as_str()));
    fields
}

impl Response {
    pub(crate) fn new(
        status: u16,
        head: &[(String, Vec<u8>)],
        body: &[u8],
        complete: bool,
        prefix: &str,
    ) -> Self {
        Self {
            status,
            fields: canonical(head, &TIMES, prefix),
            body: masked(body, prefix),
            complete,
        }
    }

    /// The stream ended without one.
    pub(crate) fn refused() -> Self {
        Self { status: 0, fields: Vec::new(), body: String::new(), complete: true }
    }

    pub(crate) fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.fields.iter().filter(move |(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    /// Whether the application made it, or a rule of the user's; the words of a proxy's own replies
    /// are not compared.
    fn is_users(&self) -> bool {
        self.values("x-app").next().is_some() || self.body.contains("direct")
    }
}

impl Seen {
    pub(crate) fn new(arrival: &Arrival, prefix: &str) -> Self {
        let Head { start, fields } = &arrival.head;
        let mut fields = canonical(fields, &MADE_ANEW, prefix);
        fields.extend(
            canonical(&arrival.trailers, &[], prefix)
                .into_iter()
                .map(|(n, v)| (format!("trailer {n}"), v)),
        );
        // How much of an upload that broke was passed on before is a matter of time.
        let body = if arrival.progress == Progress::Cut {
            String::new()
        } else {
            masked(&arrival.body, prefix)
        };
        Self { start: masked(start, prefix), fields, body, progress: arrival.progress }
    }
}

/// One way in which two outcomes differ.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Aspect {
    /// Statuses, or how many requests arrived and how: nothing else is comparable then.
    Result { envoy: String, ours: String },
    /// The connection was left in another way.
    End { envoy: String, ours: String },
    /// Something of a response.
    Response { what: String, envoy: String, ours: String },
    /// Something of a request at the application.
    Request { what: String, envoy: String, ours: String },
}

impl fmt::Display for Aspect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, envoy, ours) = match self {
            Self::Result { envoy, ours } => ("result", envoy, ours),
            Self::End { envoy, ours } => ("end of the connection", envoy, ours),
            Self::Response { what, envoy, ours } | Self::Request { what, envoy, ours } => {
                (what.as_str(), envoy, ours)
            }
        };
        let side = if matches!(self, Self::Request { .. }) { "application: " } else { "" };
        write!(f, "{side}{what}: Envoy {envoy:?}, ours {ours:?}")
    }
}

impl Aspect {
    /// The same for differences of one kind: what differs, and for results also how.
    pub(crate) fn kind(&self) -> String {
        match self {
            Self::Result { envoy, ours } => format!("result {envoy} / {ours}"),
            Self::End { envoy, ours } => format!("end {envoy} / {ours}"),
            Self::Response { what, .. } => format!("response {what}"),
            Self::Request { what, .. } => format!("request {what}"),
        }
    }
}

impl Outcome {
    /// Statuses and arrivals in short.
    pub(crate) fn result(&self) -> String {
        let statuses: Vec<String> = self
            .responses
            .iter()
            .map(|r| match (r.status, r.complete) {
                (0, _) => "refused".to_owned(),
                (status, true) => status.to_string(),
                (status, false) => format!("{status} cut"),
            })
            .collect();
        let arrivals: Vec<String> =
            self.arrivals.iter().map(|a| format!("{:?}", a.progress).to_lowercase()).collect();
        let statuses =
            if statuses.is_empty() { "no answer".to_owned() } else { statuses.join(" ") };
        format!(
            "{statuses}; arrived: {}",
            if arrivals.is_empty() { "nothing".into() } else { arrivals.join(" ") }
        )
    }

    /// What arrived as a whole, and was waited for.
    fn settled(&self) -> Vec<Seen> {
        let broken = [Progress::Cut, Progress::Abandoned];
        self.arrivals
            .iter()
            .filter(|arrival| !broken.contains(&arrival.progress))
            .cloned()
            .collect()
    }

    /// Every aspect in which two outcomes differ.
    pub(crate) fn differences(envoy: &Self, ours: &Self) -> Vec<Aspect> {
        if envoy.result() != ours.result() {
            // Whether the beginning of what broke was passed on before is a matter of time, too.
            let settled =
                |outcome: &Self| Self { arrivals: outcome.settled(), ..outcome.clone() }.result();
            if settled(envoy) != settled(ours) {
                return vec![Aspect::Result { envoy: envoy.result(), ours: ours.result() }];
            }
        }
        let mut aspects = Vec::new();
        if envoy.end != ours.end {
            aspects.push(Aspect::End {
                envoy: format!("{:?}", envoy.end),
                ours: format!("{:?}", ours.end),
            });
        }
        if envoy.tunnel != ours.tunnel {
            let (envoy, ours) = (envoy.tunnel.clone(), ours.tunnel.clone());
            aspects.push(Aspect::Response { what: "tunnel".into(), envoy, ours });
        }
        for (envoy, ours) in envoy.responses.iter().zip(&ours.responses) {
            compare_responses(envoy, ours, &mut aspects);
        }
        let (envoy, ours) = match envoy.arrivals.len() == ours.arrivals.len() {
            true => (envoy.arrivals.clone(), ours.arrivals.clone()),
            false => (envoy.settled(), ours.settled()),
        };
        for (envoy, ours) in envoy.iter().zip(&ours) {
            compare_requests(envoy, ours, &mut aspects);
        }
        aspects
    }
}

fn compare_responses(envoy: &Response, ours: &Response, aspects: &mut Vec<Aspect>) {
    let names = if envoy.is_users() || ours.is_users() { None } else { Some(["location"]) };
    let kept = |response: &Response| -> Vec<(String, String)> {
        let kept = response
            .fields
            .iter()
            .filter(|(n, _)| names.is_none_or(|names| names.contains(&n.as_str())));
        kept.cloned().collect()
    };
    for (what, envoy, ours) in field_differences(&kept(envoy), &kept(ours)) {
        aspects.push(Aspect::Response { what, envoy, ours });
    }
    if names.is_none() && envoy.body != ours.body {
        aspects.push(Aspect::Response {
            what: "body".into(),
            envoy: envoy.body.clone(),
            ours: ours.body.clone(),
        });
    }
}

fn compare_requests(envoy: &Seen, ours: &Seen, aspects: &mut Vec<Aspect>) {
    for (what, envoy, ours) in
        [("request line", &envoy.start, &ours.start), ("body", &envoy.body, &ours.body)]
    {
        if envoy != ours {
            aspects.push(Aspect::Request {
                what: what.into(),
                envoy: envoy.clone(),
                ours: ours.clone(),
            });
        }
    }
    for (what, envoy, ours) in field_differences(&envoy.fields, &ours.fields) {
        aspects.push(Aspect::Request { what, envoy, ours });
    }
}

/// Names whose values differ, with all values of each side.
fn field_differences(
    envoy: &[(String, String)],
    ours: &[(String, String)],
) -> Vec<(String, String, String)> {
    let mut names: Vec<&str> = envoy.iter().chain(ours).map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let values = |fields: &[(String, String)], name: &str| {
        let values: Vec<String> =
            fields.iter().filter(|(own, _)| own == name).map(|(_, v)| v.clone()).collect();
        if values.is_empty() { "-".to_owned() } else { values.join(" | ") }
    };
    let both = names
        .into_iter()
        .map(|name| (format!("field {name}"), values(envoy, name), values(ours, name)));
    both.filter(|(_, envoy, ours)| envoy != ours).collect()
}
