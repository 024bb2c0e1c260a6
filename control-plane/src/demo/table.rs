//! The live table: who talks to whom, over which identity, with which share.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::{self, IsTerminal, Write as _},
};

use comfy_table::{Cell, CellAlignment, Table, presets::UTF8_HORIZONTAL_ONLY};

use super::{
    layout::{Role, WORKLOADS},
    mesh::Mesh,
};

/// Traffic of one interval.
#[derive(Default, Debug)]
pub(crate) struct Interval {
    /// (caller's identity, callee's service) → (callee's version → requests).
    edges: BTreeMap<(String, &'static str), BTreeMap<&'static str, u64>>,
}

impl Interval {
    /// What the sample services saw since the last call.
    pub(crate) fn take(mesh: &Mesh) -> Self {
        let mut interval = Self::default();
        for workload in WORKLOADS.into_iter().filter(|w| w.role == Role::Service) {
            for (caller, requests) in mesh.seen(workload.name).take_edges() {
                *interval
                    .edges
                    .entry((caller, workload.app))
                    .or_default()
                    .entry(workload.version)
                    .or_default() += requests;
            }
        }
        interval
    }

    fn rows(&self) -> impl Iterator<Item = [String; 5]> + '_ {
        self.edges.iter().flat_map(|((caller, app), versions)| {
            let total: u64 = versions.values().sum();
            versions.iter().map(move |(version, n)| {
                let share = 100.0 * *n as f64 / total.max(1) as f64;
                let tls = if caller.starts_with("spiffe://") { "mutual TLS" } else { "plaintext" };
                [
                    caller.clone(),
                    format!("{app} {version}"),
                    tls.to_owned(),
                    n.to_string(),
                    format!("{share:.0} %"),
                ]
            })
        })
    }

    /// Prints a table on a terminal, and one line in a pipe.
    ///
    /// # Errors
    /// Standard output is closed.
    pub(crate) fn print(&self) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if out.is_terminal() {
            // Home, print, clear what an earlier longer table left below: no flicker.
            write!(out, "\x1b[H{}\x1b[J", self.table().to_string().replace('\n', "\x1b[K\n"))?;
            writeln!(out, "\n\x1b[K")?;
        } else {
            writeln!(out, "{}", self.line())?;
        }
        out.flush()
    }

    fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(UTF8_HORIZONTAL_ONLY);
        table.set_header(["caller's identity", "callee", "over", "requests/s", "share"]);
        for row in self.rows() {
            let right = |i: usize| if i >= 3 { CellAlignment::Right } else { CellAlignment::Left };
            table.add_row(
                row.into_iter()
                    .enumerate()
                    .map(|(i, text)| Cell::new(text).set_alignment(right(i))),
            );
        }
        table
    }

    fn line(&self) -> String {
        let mut line = String::new();
        for [caller, callee, _, requests, share] in self.rows() {
            let name = caller.rsplit('/').next().unwrap_or(&caller);
            let _ = write!(line, "{name} → {callee}: {requests} ({share})  ");
        }
        line.trim_end().to_owned()
    }
}
