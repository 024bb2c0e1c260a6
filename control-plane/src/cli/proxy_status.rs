//! `ferromesh proxy-status`: every connected proxy, and how far it is.

use clap::Args;
use comfy_table::Table;
use serde_json::Value;

use super::{
    print::print,
    remote::Remote,
    table::{Form, one_line, plain_table, text},
};

/// `ferromesh proxy-status`.
#[derive(Args, Debug)]
#[group(skip)]
#[command(after_help = "Example:\n  ferromesh proxy-status")]
pub(crate) struct ProxyStatus {
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

impl Remote {
    /// Prints every connected proxy and how far it is.
    ///
    /// # Errors
    /// No answer.
    pub(crate) async fn proxy_status(&self, command: &ProxyStatus) -> anyhow::Result<()> {
        let list = self.read("/api/v1/proxies").await?;
        if command.output == Form::Json {
            print(&serde_json::to_string_pretty(&list)?);
            return Ok(());
        }
        print(&status_table(&list).to_string());
        if let Some(refusals) = refusal_table(&list) {
            print(&format!("\n{refusals}"));
        }
        Ok(())
    }
}

/// The types, as columns.
const SYNCED_TYPES: [&str; 5] = ["CDS", "EDS", "LDS", "RDS", "SDS"];

/// A row for every proxy, one line each: what it refuses stands below.
fn status_table(list: &Value) -> Table {
    let mut table = plain_table(&[&["PROXY", "IDENTITY"], &SYNCED_TYPES[..]].concat());
    for proxy in list["items"].as_array().into_iter().flatten() {
        let states = SYNCED_TYPES.map(|kind| text(&proxy["sync"][kind]["state"]));
        table.add_row([text(&proxy["id"]), text(&proxy["identity"])].into_iter().chain(states));
    }
    table
}

/// A row for every type of which a proxy refuses something; `None` when none does.
fn refusal_table(list: &Value) -> Option<Table> {
    let mut table = plain_table(&["PROXY", "REFUSES", "RESOURCES", "SINCE", "REASON"]);
    for proxy in list["items"].as_array().into_iter().flatten() {
        for kind in SYNCED_TYPES.into_iter().filter(|kind| proxy["sync"][kind]["state"] == "NACK") {
            let sync = &proxy["sync"][kind];
            let named: Vec<String> =
                sync["resources"].as_array().into_iter().flatten().map(text).collect();
            let named = if named.is_empty() { "-".to_owned() } else { named.join(" ") };
            let cells = [
                text(&proxy["id"]),
                kind.to_owned(),
                named,
                text(&sync["at"]),
                text(&sync["message"]),
            ];
            table.add_row(cells.map(|cell| one_line(&cell)));
        }
    }
    (table.row_count() > 0).then_some(table)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_refusal_leaves_one_line_a_proxy_and_is_told_below() {
        let nack = json!({
            "state": "NACK", "message": "Error adding listener(s) 0.0.0.0_80:\n\u{1b}[31mbad regex\n", "at": "2026-01-01T00:00:00Z",
            "resources": ["0.0.0.0_80", "virtualInbound"],
        });
        let list = json!({ "items": [
            { "id": "a.shop", "identity": "spiffe://td/ns/shop/sa/a", "sync": { "CDS": { "state": "SYNCED" }, "LDS": nack } },
            { "id": "b.shop", "sync": { "CDS": { "state": "STALE" } } },
        ] });
        let lines = |table: &Table| table.lines().map(|line| one_line(&line)).collect::<Vec<_>>();
        assert_eq!(
            lines(&status_table(&list)),
            [
                "PROXY IDENTITY CDS EDS LDS RDS SDS",
                "a.shop spiffe://td/ns/shop/sa/a SYNCED - NACK - -",
                "b.shop - STALE - - - -",
            ]
        );
        let refusals = refusal_table(&list).expect("a refusal");
        assert_eq!(
            lines(&refusals),
            [
                "PROXY REFUSES RESOURCES SINCE REASON",
                "a.shop LDS 0.0.0.0_80 virtualInbound 2026-01-01T00:00:00Z Error adding listener(s) 0.0.0.0_80: [31mbad regex",
            ]
        );
        assert!(refusal_table(&json!({ "items": [] })).is_none());
    }
}
