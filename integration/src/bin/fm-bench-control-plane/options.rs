//! What the benchmark is asked for.

use std::path::PathBuf;

use anyhow::{Context, bail, ensure};

use crate::figures::Event;

/// How to call the program.
pub(crate) const USAGE: &str = "usage: fm-bench-control-plane [--services S] [--proxies P] [--runs N] [--events NAME,...] [--json FILE]\n\
    events: cold (at least once), endpoint, route, service, reconnect";

/// Size of the mesh, and what to do with the figures.
pub(crate) struct Options {
    /// Services, with ten endpoints each; every tenth has a VirtualService.
    pub(crate) services: usize,
    /// Clients.
    pub(crate) proxies: usize,
    /// How often each event is repeated.
    pub(crate) runs: usize,
    /// What is measured, each as often as `runs` says; clients connect at least once.
    pub(crate) events: Vec<Event>,
    /// Where the figures go as JSON.
    pub(crate) json: Option<PathBuf>,
}

impl Options {
    /// Reads the command line; `None`: it asks for help.
    ///
    /// # Errors
    /// An option is unknown, has no value, or one that is no number.
    pub(crate) fn parse(
        mut arguments: impl Iterator<Item = String>,
    ) -> anyhow::Result<Option<Self>> {
        let mut options = Self {
            services: 1000,
            proxies: 1000,
            runs: 5,
            events: Event::ALL.to_vec(),
            json: None,
        };
        while let Some(option) = arguments.next() {
            if matches!(option.as_str(), "--help" | "-h") {
                return Ok(None);
            }
            let value =
                arguments.next().with_context(|| format!("{option} needs a value; {USAGE}"))?;
            let number =
                || value.parse().with_context(|| format!("{option} {value:?}: expected a number"));
            match option.as_str() {
                "--services" => options.services = number()?,
                "--proxies" => options.proxies = number()?,
                "--runs" => options.runs = number()?,
                "--events" => {
                    options.events = value.split(',').map(event).collect::<anyhow::Result<_>>()?
                }
                "--json" => options.json = Some(value.into()),
                _ => bail!("unknown option {option}; {USAGE}"),
            }
        }
        let Self { services, proxies, runs, .. } = options;
        ensure!(
            services >= 10 && proxies > 0 && runs > 0,
            "expected 10 services, 1 proxy and 1 run at least"
        );
        Ok(Some(options))
    }
}

fn event(name: &str) -> anyhow::Result<Event> {
    let found = Event::ALL.into_iter().find(|event| event.name() == name);
    found.with_context(|| format!("no event is called {name}; {USAGE}"))
}
