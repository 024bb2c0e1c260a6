//! What is measured, and what istiod needed for the same.

use std::fmt;

/// What happens while it is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Event {
    /// All clients connect for the first time.
    ColdConnect,
    /// An endpoint goes, or comes back.
    Endpoint,
    /// A VirtualService divides its requests otherwise.
    Route,
    /// A service appears, or goes.
    Service,
    /// All clients come back and offer the versions that they have.
    Reconnect,
}

/// A measured quantity.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Figure {
    /// Server's CPU time, seconds.
    Cpu,
    /// Until all are done, seconds.
    Wall,
    /// Read from all sockets, bytes.
    Bytes,
    /// Sent to all clients together.
    Resources,
    /// How often a client was told to come back later.
    TurnedAway,
    /// Until the first client hears of it, seconds.
    First,
    /// Until 99 of 100 clients have heard, seconds.
    P99,
    /// Until the last client has heard, seconds.
    Last,
    /// Resident memory without a client, MB.
    RssNone,
    /// Resident memory with all clients, MB.
    RssAll,
    /// The highest resident memory until then, MB.
    RssPeak,
}

/// What one run of an event measured, or istiod's.
pub(crate) type Figures = Vec<(Figure, f64)>;

impl Event {
    /// Every event, in the order of the table.
    pub(crate) const ALL: [Self; 5] =
        [Self::ColdConnect, Self::Endpoint, Self::Route, Self::Service, Self::Reconnect];

    /// As the command line has it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::ColdConnect => "cold",
            Self::Endpoint => "endpoint",
            Self::Route => "route",
            Self::Service => "service",
            Self::Reconnect => "reconnect",
        }
    }

    /// As people read it.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::ColdConnect => "cold connect of all",
            Self::Endpoint => "one endpoint removed or added",
            Self::Route => "one VirtualService weight",
            Self::Service => "one Service added or deleted",
            Self::Reconnect => "all reconnect, versions offered",
        }
    }

    /// What istiod 1.31.0-rc.0 needed on a comparable machine (2 cores; default settings but for a
    /// raised limit on new streams; plaintext, unscoped clients; median). Empty where nothing is
    /// recorded.
    pub(crate) fn istiod(self, services: usize, proxies: usize) -> Figures {
        use Figure::{Bytes, Cpu, First, Last, P99, RssAll, RssNone, RssPeak, Wall};
        let figures: &[(Figure, f64)] = match (self, services, proxies) {
            (Self::ColdConnect, 1000, 100) => &[
                (Cpu, 8.95),
                (Wall, 9.0),
                (Bytes, 254e6),
                (RssNone, 131.0),
                (RssAll, 458.0),
                (RssPeak, 518.0),
            ],
            (Self::ColdConnect, 1000, 1000) => &[
                (Cpu, 86.7),
                (Wall, 86.6),
                (Bytes, 2.54e9),
                (RssNone, 131.0),
                (RssAll, 1039.0),
                (RssPeak, 1114.0),
            ],
            (Self::ColdConnect, 10_000, 100) => &[
                (Cpu, 101.7),
                (Wall, 126.0),
                (Bytes, 2.54e9),
                (RssNone, 304.0),
                (RssAll, 3171.0),
                (RssPeak, 4897.0),
            ],
            (Self::Endpoint, 1000, 100) => {
                &[(Cpu, 0.0205), (First, 0.121), (P99, 0.125), (Last, 0.125)]
            }
            (Self::Endpoint, 1000, 1000) => {
                &[(Cpu, 0.190), (First, 0.143), (P99, 0.284), (Last, 0.284)]
            }
            (Self::Endpoint, 10_000, 100) => {
                &[(Cpu, 0.0415), (First, 0.202), (P99, 0.218), (Last, 0.218)]
            }
            (Self::Route, 1000, 100) => {
                &[(Cpu, 0.97), (First, 0.311), (Last, 1.070), (Bytes, 46e6)]
            }
            (Self::Route, 1000, 1000) => {
                &[(Cpu, 5.9), (First, 0.234), (Last, 5.978), (Bytes, 515e6)]
            }
            (Self::Route, 10_000, 100) => {
                &[(Cpu, 13.2), (First, 5.514), (Last, 15.113), (Bytes, 505e6)]
            }
            (Self::Service, 1000, 100) => &[(Cpu, 0.86), (Last, 0.963), (Bytes, 52e6)],
            (Self::Service, 1000, 1000) => &[(Cpu, 5.7), (Last, 5.775), (Bytes, 516e6)],
            // Recorded as 7 to 14 s.
            (Self::Service, 10_000, 100) => &[(Cpu, 10.5), (Last, 13.0), (Bytes, 500e6)],
            (Self::Reconnect, 1000, 100) => &[(Cpu, 7.98), (Bytes, 254e6)],
            (Self::Reconnect, 1000, 1000) => &[(Cpu, 80.9), (Bytes, 2.54e9)],
            _ => &[],
        };
        figures.to_vec()
    }
}

impl Figure {
    /// Its key in JSON, with the unit.
    pub(crate) fn key(self) -> &'static str {
        match self {
            Self::Cpu => "cpu_s",
            Self::Wall => "wall_s",
            Self::Bytes => "bytes",
            Self::Resources => "resources",
            Self::TurnedAway => "turned_away",
            Self::First => "first_s",
            Self::P99 => "p99_s",
            Self::Last => "last_s",
            Self::RssNone => "rss_no_client_mb",
            Self::RssAll => "rss_all_clients_mb",
            Self::RssPeak => "rss_peak_mb",
        }
    }

    /// As people read it.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Cpu => "CPU",
            Self::Wall => "until all have everything",
            Self::Bytes => "bytes",
            Self::Resources => "resources",
            Self::TurnedAway => "clients turned away",
            Self::First => "first arrival",
            Self::P99 => "p99 arrival",
            Self::Last => "last arrival",
            Self::RssNone => "RSS without a client",
            Self::RssAll => "RSS with all",
            Self::RssPeak => "RSS, peak",
        }
    }

    /// A value with its unit.
    pub(crate) fn show(self, value: f64) -> impl fmt::Display {
        match self {
            Self::Cpu | Self::Wall | Self::First | Self::P99 | Self::Last if value < 1.0 => {
                format!("{:.1} ms", value * 1e3)
            }
            Self::Cpu | Self::Wall | Self::First | Self::P99 | Self::Last => {
                format!("{value:.2} s")
            }
            Self::Bytes if value < 1e6 => format!("{:.1} kB", value / 1e3),
            Self::Bytes => format!("{:.1} MB", value / 1e6),
            Self::Resources | Self::TurnedAway => format!("{value:.0}"),
            Self::RssNone | Self::RssAll | Self::RssPeak => format!("{value:.0} MB"),
        }
    }
}

/// The median by figure, in the order of the first run. An even number of runs: the mean of the
/// middle two.
pub(crate) fn medians(runs: &[Figures]) -> Figures {
    let Some(first) = runs.first() else { return Figures::new() };
    first.iter().map(|(figure, _)| (*figure, median(of(runs, *figure)))).collect()
}

/// Every run's value of a figure.
pub(crate) fn of(runs: &[Figures], figure: Figure) -> Vec<f64> {
    runs.iter().flatten().filter(|(of, _)| *of == figure).map(|(_, value)| *value).collect()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let (low, high) = (values.get((values.len().max(1) - 1) / 2), values.get(values.len() / 2));
    low.zip(high).map_or(0.0, |(low, high)| f64::midpoint(*low, *high))
}
