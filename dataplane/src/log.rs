//! The log of this process, on standard error; standard output is for access logs. What is logged
//! can be changed while it runs, by the words of Envoy's admin interface (`POST /logging`).

use std::{
    fmt,
    sync::{Mutex, MutexGuard},
};

use clap::ValueEnum;
use tracing_subscriber::{EnvFilter, reload};

const POISONED: &str = "no holder of this lock panics";

/// How log lines look.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum LogStyle {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Why another choice of what is logged is not taken.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// It is none.
    #[error(
        "{0:?}: expected level=LEVEL, paths=TARGET:LEVEL with commas, or TARGET=LEVEL; a level is trace, debug, info, \
         warning, error or off"
    )]
    Unreadable(String),
    /// The program that embeds this one logs.
    #[error("the log of this process is not its own, so that it cannot be changed here")]
    Elsewhere,
}

/// Puts another filter in force; whether that is so.
type Change = Box<dyn Fn(EnvFilter) -> bool + Send + Sync>;

/// The log, and what of it is chosen. Shown as Envoy shows its loggers. By default it is another's
/// that embeds this program, and cannot be changed here.
#[derive(Default)]
pub struct Log {
    /// Directives of a filter, a later one before an earlier one of the same target.
    chosen: Mutex<Vec<String>>,
    change: Option<Change>,
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Log({:?})", self.lock())
    }
}

impl fmt::Display for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("active loggers:\n")?;
        self.lock().iter().try_for_each(|directive| match directive.rsplit_once('=') {
            Some((target, level)) => writeln!(f, "  {target}: {level}"),
            None => writeln!(f, "  all: {directive}"),
        })
    }
}

impl Log {
    /// Starts the log of this process; `chosen` that says nothing counts as `info`.
    pub fn start(chosen: &str, style: LogStyle, colours: bool) -> Self {
        let (chosen, filter) = match EnvFilter::try_new(chosen) {
            Ok(filter) => (chosen, filter),
            Err(_) => ("info", EnvFilter::new("info")),
        };
        // Where nobody reads the log any more, a complaint about it would end the process: it would
        // go to the same place.
        let log = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .with_ansi(colours)
            .log_internal_errors(false);
        // A program that embeds this one may have set its own.
        let change = match style {
            LogStyle::Text => {
                let log = log.with_filter_reloading();
                let change = change_by(log.reload_handle());
                log.try_init().is_ok().then_some(change)
            }
            LogStyle::Json => {
                let log = log.json().with_filter_reloading();
                let change = change_by(log.reload_handle());
                log.try_init().is_ok().then_some(change)
            }
        };
        let chosen = chosen.split(',').map(|directive| directive.trim().to_owned()).collect();
        Self { chosen: Mutex::new(chosen), change }
    }

    /// Logs what is asked for from now on, all of it or nothing; without a question all stays.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn ask(&self, asked: &[(String, String)]) -> Result<(), LogError> {
        if asked.is_empty() {
            return Ok(());
        }
        let mut now = self.lock();
        let mut chosen = now.clone();
        for (key, value) in asked {
            answer(&mut chosen, key, value)
                .ok_or_else(|| LogError::Unreadable(format!("{key}={value}")))?;
        }
        let text = chosen.join(",");
        let filter = EnvFilter::try_new(&text).map_err(|_| LogError::Unreadable(text))?;
        if !self.change.as_ref().is_some_and(|change| change(filter)) {
            return Err(LogError::Elsewhere);
        }
        *now = chosen;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<String>> {
        self.chosen.lock().expect(POISONED)
    }
}

fn change_by<S: 'static>(handle: reload::Handle<EnvFilter, S>) -> Change {
    Box::new(move |filter| handle.reload(filter).is_ok())
}

/// What is chosen after one parameter; `None`: it says nothing.
fn answer(chosen: &mut Vec<String>, key: &str, value: &str) -> Option<()> {
    match key {
        "level" => *chosen = vec![level(value)?.to_owned()],
        "paths" => {
            for path in value.split(',') {
                // A target has colons of its own.
                let (target, of) = path.rsplit_once(':')?;
                choose(chosen, target, level(of)?)?;
            }
        }
        target => choose(chosen, target, level(value)?)?,
    }
    Some(())
}

fn choose(chosen: &mut Vec<String>, target: &str, level: &str) -> Option<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_:-".contains(c);
    if target.is_empty() || !target.chars().all(plain) {
        return None;
    }
    let own = format!("{target}=");
    chosen.retain(|directive| !directive.starts_with(&own));
    chosen.push(format!("{own}{level}"));
    Some(())
}

/// A level by Envoy's name or ours.
fn level(name: &str) -> Option<&'static str> {
    Some(match name.to_ascii_lowercase().as_str() {
        "trace" => "trace",
        "debug" => "debug",
        "info" => "info",
        "warning" | "warn" => "warn",
        "error" | "critical" => "error",
        "off" => "off",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    type Question<'a> = &'a [(&'a str, &'a str)];

    /// What is chosen after some questions, one after the other; `None`: one of them is refused.
    fn chosen(questions: &[Question<'_>]) -> Option<String> {
        let log = Log {
            chosen: Mutex::new(vec!["info".to_owned(), "hyper=off".to_owned()]),
            change: Some(Box::new(|_| true)),
        };
        for question in questions {
            let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
            log.ask(&question.iter().map(own).collect::<Vec<_>>()).ok()?;
        }
        Some(log.lock().join(","))
    }

    #[test]
    fn levels_are_chosen_as_envoy_is_asked_for_them() {
        let table: [(&[Question<'_>], Option<&str>); 9] = [
            (&[&[]], Some("info,hyper=off")),
            (&[&[("level", "debug")]], Some("debug")),
            (&[&[("hyper", "warning")]], Some("info,hyper=warn")),
            (
                &[&[("paths", "ferromesh_dataplane::xds:debug,h2:critical")]],
                Some("info,hyper=off,ferromesh_dataplane::xds=debug,h2=error"),
            ),
            (&[&[("h2", "trace")], &[("h2", "off")]], Some("info,hyper=off,h2=off")),
            (&[&[("level", "loud")]], None),
            (&[&[("h2", "info"), ("level", "loud")]], None),
            (&[&[("paths", "h2")]], None),
            (&[&[("h2,all", "info")]], None),
        ];
        for (questions, expected) in table {
            assert_eq!(chosen(questions).as_deref(), expected, "{questions:?}");
        }
    }

    #[test]
    fn it_is_shown_as_envoy_shows_it_and_stays_where_another_logs() {
        let chosen = vec!["info".to_owned(), "ferromesh_dataplane::xds=debug".to_owned()];
        let log = Log { chosen: Mutex::new(chosen), change: None };
        let shown = "active loggers:\n  all: info\n  ferromesh_dataplane::xds: debug\n";
        assert_eq!(log.to_string(), shown);
        let asked = [("level".to_owned(), "off".to_owned())];
        assert!(matches!(log.ask(&asked), Err(LogError::Elsewhere)));
        assert_eq!(log.to_string(), shown);
    }
}
