//! Commands as users of istioctl, linkerd, cilium and hubble type them: answered by ours where these
//! do the same, and by why not where there is none.

use std::ffi::OsString;

/// What answers to a command of another tool.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Answer {
    /// These words of ours, in its place; all that follows stays.
    Ours(&'static [&'static str]),
    /// Nothing here does that, and what to do instead.
    Nothing(&'static str),
}

use Answer::{Nothing, Ours};

const ONE_CLUSTER: &str =
    "a mesh is one cluster: endpoints of other clusters are no part of it yet";
const NO_TAP: &str = "requests are not tapped: Telemetry writes them to access logs, `ferromesh explain` says what becomes of one, \
                      and metrics of proxies are at port 15090";
const BY_HELM: &str = "in a cluster, Helm does that: helm install ferromesh helm/ferromesh -n istio-system --create-namespace";

/// The other tools' words, the longest first where some begin alike. Where our words are the same,
/// there is nothing to say.
const SPELLINGS: &[(&[&str], Answer)] = &[
    (&["ps"], Ours(&["proxy-status"])),
    (&["pc"], Ours(&["proxy-config"])),
    (&["verify-install"], Ours(&["check"])),
    (&["validate"], Ours(&["analyze"])),
    (&["kube-inject"], Ours(&["inject"])),
    (&["admin", "log"], Ours(&["log"])),
    (&["experimental", "precheck"], Ours(&["check", "--pre"])),
    (&["x", "precheck"], Ours(&["check", "--pre"])),
    (&["experimental", "describe"], Ours(&["describe"])),
    (&["x", "describe"], Ours(&["describe"])),
    (&["experimental", "create-remote-secret"], Nothing(ONE_CLUSTER)),
    (&["x", "create-remote-secret"], Nothing(ONE_CLUSTER)),
    (&["create-remote-secret"], Nothing(ONE_CLUSTER)),
    (&["remote-clusters"], Nothing(ONE_CLUSTER)),
    (&["multicluster"], Nothing(ONE_CLUSTER)),
    (&["clustermesh"], Nothing(ONE_CLUSTER)),
    (&["authn", "tls-check"], Nothing(TLS_CHECK)),
    (&["mtls", "check"], Nothing(TLS_CHECK)),
    (&["install"], Nothing(BY_HELM)),
    (
        &["upgrade"],
        Nothing(
            "in a cluster, Helm does that: helm upgrade ferromesh helm/ferromesh -n istio-system",
        ),
    ),
    (
        &["uninstall"],
        Nothing("in a cluster, Helm does that: helm uninstall ferromesh -n istio-system"),
    ),
    (&["operator"], Nothing(BY_HELM)),
    (&["manifest"], Nothing("Helm shows that: helm template ferromesh helm/ferromesh")),
    (
        &["dashboard"],
        Nothing(
            "there is no dashboard: `ferromesh demo`, `proxy-status` and `diagnostics -w` print to the terminal, and \
                              Istio's dashboards for Grafana read the metrics at port 15014 and 15090",
        ),
    ),
    (&["waypoint"], Nothing(NO_AMBIENT)),
    (&["experimental", "waypoint"], Nothing(NO_AMBIENT)),
    (&["x", "waypoint"], Nothing(NO_AMBIENT)),
    (&["ztunnel-config"], Nothing(NO_AMBIENT)),
    (&["viz"], Nothing(NO_TAP)),
    (&["edges"], Nothing(NO_TAP)),
    (&["tap"], Nothing(NO_TAP)),
    (&["top"], Nothing(NO_TAP)),
    (&["stat"], Nothing(NO_TAP)),
    (&["observe"], Nothing(NO_TAP)),
    (
        &["profile"],
        Nothing("a ServiceProfile is written by hand, and `ferromesh analyze` reads it"),
    ),
    (&["identity"], Nothing(IDENTITIES)),
    (&["bpf"], Nothing(IDENTITIES)),
    (&["status"], Ours(&["check"])),
];

const TLS_CHECK: &str = "ask what becomes of a request, mutual TLS included: ferromesh explain --from NAME.NAMESPACE GET http://SERVICE/";
const NO_AMBIENT: &str = "there is no ambient mode yet: workloads have sidecars";
const IDENTITIES: &str = "identities are those of service accounts: `ferromesh proxy-status` shows what each proxy proved, and \
                          `ferromesh proxy-config NAME.NAMESPACE secrets` its certificate";

/// The arguments of this process in our words.
///
/// # Errors
/// Nothing here does what they ask for; with what to do.
pub(super) fn ours(arguments: impl IntoIterator<Item = OsString>) -> Result<Vec<OsString>, String> {
    let mut all: Vec<OsString> = arguments.into_iter().collect();
    let words = all.get(1..).unwrap_or_default();
    let begins = |(spelling, _): &&(&[&str], Answer)| {
        words.len() >= spelling.len() && spelling.iter().zip(words).all(|(one, word)| word == one)
    };
    match SPELLINGS.iter().find(begins) {
        None => {}
        Some((spelling, Ours(words))) => {
            drop(all.splice(1..=spelling.len(), words.iter().map(OsString::from)));
        }
        Some((spelling, Nothing(why))) => return Err(format!("{}: {why}", spelling.join(" "))),
    }
    // linkerd's `inject -` reads what ours is given by name.
    let file =
        all.iter().skip(2).position(|word| !word.to_string_lossy().starts_with('-') || word == "-");
    if all.get(1).is_some_and(|word| word == "inject") && file == Some(0) {
        all.insert(2, "--file".into());
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::cli::Cli;

    fn said(line: &str) -> Result<String, String> {
        let arguments = std::iter::once("ferromesh").chain(line.split_whitespace());
        let ours = ours(arguments.map(OsString::from))?;
        let words = ours.iter().skip(1).map(|word| word.to_string_lossy());
        Ok(words.collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn what_other_tools_are_told_is_answered_by_ours_or_by_why_not() {
        let table = [
            ("analyze -n shop", Ok("analyze -n shop")),
            ("ps", Ok("proxy-status")),
            ("pc clusters web.shop", Ok("proxy-config clusters web.shop")),
            ("verify-install", Ok("check")),
            ("x precheck -o json", Ok("check --pre -o json")),
            ("admin log debug", Ok("log debug")),
            ("inject -", Ok("inject --file -")),
            ("inject deploy.yaml", Ok("inject --file deploy.yaml")),
            ("inject -f -", Ok("inject -f -")),
            ("check --pre", Ok("check --pre")),
            ("install --set profile=demo -y", Err("helm install")),
            ("x create-remote-secret --name east", Err("one cluster")),
            ("create-remote-secret --name east", Err("one cluster")),
            ("multicluster link --cluster-name east", Err("one cluster")),
            ("authn tls-check cart.shop", Err("ferromesh explain")),
            ("dashboard kiali", Err("no dashboard")),
            ("viz edges deployment", Err("not tapped")),
            ("edges", Err("not tapped")),
            ("tap deploy/web", Err("not tapped")),
            ("bpf auth list", Err("proxy-status")),
            ("observe --follow", Err("not tapped")),
            ("", Ok("")),
        ];
        for (line, expected) in table {
            match (said(line), expected) {
                (Ok(said), Ok(expected)) => assert_eq!(said, expected),
                (Err(said), Err(part)) => assert!(said.contains(part), "{line}: {said}"),
                (said, _) => panic!("{line}: {said:?}"),
            }
        }
    }

    #[test]
    fn no_command_of_ours_is_hidden_and_what_answers_is_one() {
        let cli = Cli::command();
        let is_ours = |word: &str| cli.find_subcommand(word).is_some();
        for (place, (spelling, answer)) in SPELLINGS.iter().enumerate() {
            assert!(!is_ours(spelling[0]), "{spelling:?}");
            let earlier = SPELLINGS[..place].iter().find(|(other, _)| spelling.starts_with(other));
            assert_eq!(earlier, None, "{spelling:?} is never reached");
            if let Ours(words) = answer {
                assert!(is_ours(words[0]), "{words:?}");
            }
        }
    }
}
