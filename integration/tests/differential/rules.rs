//! Random HTTP rules of virtual services.

use std::fmt::Write as _;

use crate::dice::Dice;

/// One rule: what it matches and what it does, in YAML.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    matches: String,
    action: Action,
    /// The path that it matches, if any.
    pub(crate) path: Option<&'static str>,
}

#[derive(Clone, Debug)]
enum Action {
    /// Goes to the destination, with these further fields.
    Route(String),
    /// Ends at the proxy.
    Local(&'static str),
}

/// Where a request path may be matched.
pub(crate) const PATHS: [&str; 8] =
    ["/admin", "/api/v1", "/a/b/c", "/Secret", "/files/x.txt", "/a%20b", "/deep/er", "/q"];

const OTHER_MATCHES: [&str; 12] = [
    "method: {exact: GET}",
    "method: {exact: POST}",
    "method: {regex: \"P.*\"}",
    "headers: {x-user: {exact: alice}}",
    "headers: {x-user: {prefix: al}}",
    "headers: {x-user: {regex: \"a.*e\"}}",
    "headers: {x-user: {}}",
    "withoutHeaders: {x-user: {exact: alice}}",
    "withoutHeaders: {x-user: {}}",
    "queryParams: {q: {exact: one}}",
    "authority: {prefix: a}",
    "scheme: {exact: http}",
];

const REWRITES: [&str; 6] = [
    "rewrite: {uri: /rewritten}",
    "rewrite: {uri: /}",
    "rewrite: {authority: other.example.com}",
    "rewrite: {uriRegexRewrite: {match: \"^/([a-z]+)/(.*)$\", rewrite: \"/\\\\2/\\\\1\"}}",
    "rewrite: {uri: /new/, authority: new.example.com}",
    "rewrite: {uri: \"\"}",
];

const HEADERS: [&str; 6] = [
    "headers: {request: {set: {x-user: set}, add: {x-added: one}}}",
    "headers: {request: {remove: [x-user, x-gone]}}",
    "headers: {response: {set: {x-app: changed}, remove: [x-gone]}}",
    "headers: {request: {add: {x-user: added}}, response: {add: {x-app: added}}}",
    "headers: {request: {set: {host: set.example.com}}}",
    "headers: {request: {set: {x-path: \"%REQ(:PATH)%\", x-method: \"%REQ(:METHOD)%\"}}}",
];

const LOCAL: [&str; 8] = [
    "redirect: {uri: /elsewhere, authority: moved.example.com}",
    "redirect: {uri: /elsewhere, redirectCode: 307}",
    "redirect: {scheme: https, port: 8443}",
    "redirect: {uri: \"%PREFIX()%/x\"}",
    "directResponse: {status: 418, body: {string: direct}}",
    "directResponse: {status: 200, body: {string: \"direct\\n\"}}",
    "directResponse: {status: 204}",
    "directResponse: {status: 503, body: {string: direct}}",
];

const FILTERS: [&str; 4] = [
    "fault: {abort: {httpStatus: 429, percentage: {value: 100}}}",
    "corsPolicy: {allowOrigins: [{exact: \"http://good.example\"}], allowMethods: [GET, POST], allowHeaders: [x-user], \
     maxAge: 60s, allowCredentials: true}",
    "corsPolicy: {allowOrigins: [{regex: \"http://.*[.]example\"}], exposeHeaders: [x-app]}",
    "fault: {abort: {httpStatus: 401, percentage: {value: 100}}}",
];

/// Up to four rules, most of the time with one at the end that takes everything.
pub(crate) fn random(dice: &mut Dice) -> Vec<Rule> {
    let mut rules: Vec<Rule> = (0..dice.below(4)).map(|_| rule(dice)).collect();
    if rules.is_empty() || dice.chance(85) {
        rules.push(Rule {
            matches: String::new(),
            action: Action::Route(String::new()),
            path: None,
        });
    }
    rules
}

fn rule(dice: &mut Dice) -> Rule {
    let path = dice.chance(75).then(|| *dice.pick(&PATHS));
    let mut matches = String::new();
    if let Some(path) = path {
        let form = dice.below(5);
        let _ = match form {
            0 => write!(matches, "uri: {{exact: \"{path}\"}}"),
            1 => write!(matches, "uri: {{prefix: \"{path}\"}}, ignoreUriCase: true"),
            2 => write!(matches, "uri: {{regex: \"{path}(/.*)?\"}}"),
            3 => write!(matches, "uri: {{prefix: \"{path}/\"}}"),
            _ => write!(matches, "uri: {{prefix: \"{path}\"}}"),
        };
    }
    if matches.is_empty() || dice.chance(40) {
        let comma = if matches.is_empty() { "" } else { ", " };
        let _ = write!(matches, "{comma}{}", dice.pick(&OTHER_MATCHES));
    }
    let action = if dice.chance(30) {
        Action::Local(LOCAL[dice.below(LOCAL.len())])
    } else {
        Action::Route(changes(dice))
    };
    Rule { matches, action, path }
}

fn changes(dice: &mut Dice) -> String {
    let mut text = String::new();
    for (percent, from) in [(40, &REWRITES[..]), (40, &HEADERS[..]), (15, &FILTERS[..])] {
        if dice.chance(percent) {
            let _ = writeln!(text, "    {}", dice.pick(from));
        }
    }
    text
}

impl Rule {
    /// The rule; requests that it forwards go to `destination`.
    pub(crate) fn yaml(&self, destination: &str) -> String {
        let matches = match self.matches.as_str() {
            "" => String::new(),
            matches => format!("    match: [{{{matches}}}]\n"),
        };
        let action = match &self.action {
            Action::Route(changes) => {
                format!("{changes}    route: [{{destination: {destination}}}]\n")
            }
            Action::Local(local) => format!("    {local}\n"),
        };
        format!("  - name: rule\n{matches}{action}")
    }
}
