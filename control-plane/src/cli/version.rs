//! `ferromesh version`: of all parts.

use std::collections::BTreeMap;

use clap::Args;
use serde_json::{Value, json};

use super::{
    print::print,
    remote::Remote,
    table::{Form, text},
};
use crate::config::RemoteOptions;

/// `ferromesh version`.
#[derive(Args, Debug)]
#[group(skip)]
#[command(after_help = "Examples:
  ferromesh version
  ferromesh version --client
  ferromesh version -o json")]
pub(crate) struct Version {
    /// Only of this program
    #[arg(long)]
    client: bool,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

/// Prints the versions. That no control plane answers is one of them.
///
/// # Errors
/// The token's file cannot be read.
pub(crate) async fn run(command: &Version, remote: &RemoteOptions) -> anyhow::Result<()> {
    let own = env!("CARGO_PKG_VERSION");
    let others = match command.client {
        true => json!({}),
        false => others(&Remote::new(remote)?).await,
    };
    match command.output {
        Form::Json => {
            let mut all = json!({ "client": own });
            if let (Some(all), Value::Object(others)) = (all.as_object_mut(), others) {
                all.extend(others);
            }
            print(&serde_json::to_string_pretty(&all)?);
        }
        Form::Text => lines(own, &others).iter().for_each(|line| print(line)),
    }
    Ok(())
}

async fn others(remote: &Remote) -> Value {
    let asked = async {
        let server = remote.read("/openapi.json").await?["info"]["version"].take();
        anyhow::Ok((server, remote.read("/api/v1/proxies").await?))
    };
    match asked.await {
        Ok((server, proxies)) => json!({ "controlPlane": server, "proxies": counted(&proxies) }),
        Err(error) => json!({ "controlPlane": null, "error": error.to_string() }),
    }
}

/// How many proxies are of which version.
pub(super) fn counted(proxies: &Value) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for proxy in proxies["items"].as_array().into_iter().flatten() {
        let version = proxy["version"].as_str().filter(|version| !version.is_empty());
        *counts.entry(version.unwrap_or("unknown").to_owned()).or_default() += 1;
    }
    counts
}

fn lines(own: &str, others: &Value) -> Vec<String> {
    let mut lines = vec![format!("client: {own}")];
    match (&others["controlPlane"], others["error"].as_str()) {
        (_, Some(error)) => lines.push(format!("control plane: {error}")),
        (Value::Null, None) => {}
        (version, None) => lines.push(format!("control plane: {}", text(version))),
    }
    for (version, count) in others["proxies"].as_object().into_iter().flatten() {
        lines.push(format!("proxies: {} × {version}", text(count)));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_has_a_line() {
        let proxy = |version: &str| json!({ "version": version });
        let proxies = json!({ "items": [proxy("envoy 1.40.0"), proxy(""), proxy("envoy 1.40.0")] });
        let others = json!({ "controlPlane": "0.1.0", "proxies": counted(&proxies) });
        assert_eq!(
            lines("0.2.0", &others),
            [
                "client: 0.2.0",
                "control plane: 0.1.0",
                "proxies: 2 × envoy 1.40.0",
                "proxies: 1 × unknown"
            ]
        );
        assert_eq!(lines("0.2.0", &json!({})), ["client: 0.2.0"]);
        let away = json!({ "controlPlane": null, "error": "no answer" });
        assert_eq!(lines("0.2.0", &away), ["client: 0.2.0", "control plane: no answer"]);
    }
}
