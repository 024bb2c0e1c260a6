//! The log of this process, on standard error: lines for people or one JSON object each. What is
//! logged can be changed while it runs.

use std::{
    fmt,
    io::IsTerminal,
    sync::{Mutex, MutexGuard},
};

use tracing_subscriber::{EnvFilter, filter::LevelFilter, reload};

use crate::config::{self, Style};

/// Logged whatever is chosen: that client repeats, as a warning, the whole of an answer that it
/// cannot read, keys of Secrets and all.
const NEVER: &str = "kube_client::client=off";

const POISONED: &str = "no holder of this lock panics";

/// Why another choice of what is logged is not taken.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// It is none.
    #[error(
        "{given:?} says nothing that can be logged ({why}): expected a level (error, warn, info, debug, trace, off), or \
         target=level pairs with commas"
    )]
    Unreadable {
        /// What was given.
        given: String,
        /// Why.
        why: String,
    },
    /// Somebody else logs for this process.
    #[error("the log of this process is not its own, so that it cannot be changed here")]
    Elsewhere,
}

/// Puts another filter in force; whether that is so.
type Change = Box<dyn Fn(EnvFilter) -> bool + Send + Sync>;

/// The log, and what of it is chosen.
#[derive(Default)]
pub struct Log {
    chosen: Mutex<String>,
    /// `None`: tests and embedders log already, and theirs stays.
    change: Option<Change>,
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Log({})", self.chosen())
    }
}

impl Log {
    /// Starts the log of this process.
    ///
    /// # Errors
    /// [`LogError::Unreadable`].
    pub fn start(chosen: &str, style: Style) -> Result<Self, LogError> {
        // Where nobody reads the log any more, a complaint about it would end the process: it would
        // go to the same place.
        let log = tracing_subscriber::fmt()
            .with_env_filter(filter(chosen)?)
            .with_writer(std::io::stderr)
            .with_ansi(config::colours(std::io::stderr().is_terminal()))
            .log_internal_errors(false);
        let change = match style {
            Style::Text => {
                let log = log.with_filter_reloading();
                let change = change_by(log.reload_handle());
                log.try_init().is_ok().then_some(change)
            }
            Style::Json => {
                let log = log.json().with_filter_reloading();
                let change = change_by(log.reload_handle());
                log.try_init().is_ok().then_some(change)
            }
        };
        Ok(Self { chosen: Mutex::new(chosen.to_owned()), change })
    }

    /// What is logged.
    pub fn chosen(&self) -> String {
        self.lock().clone()
    }

    /// Logs something else from now on.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn choose(&self, chosen: &str) -> Result<(), LogError> {
        let filter = filter(chosen)?;
        let mut now = self.lock();
        if !self.change.as_ref().is_some_and(|change| change(filter)) {
            return Err(LogError::Elsewhere);
        }
        chosen.clone_into(&mut now);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, String> {
        self.chosen.lock().expect(POISONED)
    }
}

fn change_by<S: 'static>(handle: reload::Handle<EnvFilter, S>) -> Change {
    Box::new(move |filter| handle.reload(filter).is_ok())
}

/// What was chosen to be logged, without what may hold keys.
///
/// # Errors
/// [`LogError::Unreadable`].
pub fn filter(chosen: &str) -> Result<EnvFilter, LogError> {
    let unreadable = |why: String| LogError::Unreadable { given: chosen.to_owned(), why };
    if chosen.trim().is_empty() {
        return Err(unreadable("it is empty".to_owned()));
    }
    // A word alone would be a target, of which everything is logged, and nothing of all others: what a
    // level with a slip of the pen comes to.
    if let Some(word) = chosen.split(',').map(str::trim).find(|word| !says_something(word)) {
        return Err(unreadable(format!("{word:?} is no level")));
    }
    let filter = EnvFilter::try_new(chosen).map_err(|error| unreadable(error.to_string()))?;
    Ok(filter.add_directive(NEVER.parse().expect("a target and a level")))
}

/// Whether a part of a choice is a level or gives one. What has brackets is a span, which may have
/// commas of its own.
fn says_something(part: &str) -> bool {
    part.parse::<LevelFilter>().is_ok() || part.contains(['=', '[', ']', '{', '}'])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logged::logged;

    #[test]
    fn no_choice_of_what_is_logged_shows_answers_of_an_api_server() {
        for chosen in [
            config::DEFAULT_LOG,
            "trace",
            "info,kube_client=trace",
            "info,kube_client::client=trace",
        ] {
            let (said, ()) = logged(filter(chosen).expect("a filter"), || {
                tracing::warn!(target: "kube_client::client", "an answer with a key");
                tracing::error!("something else");
            });
            assert!(!said.contains("a key") && said.contains("something else"), "{chosen}: {said}");
        }
    }

    #[test]
    fn what_is_no_choice_is_refused_and_what_stands_stays() {
        for chosen in ["", " ", "info,a=nonsense", "warnin", "debug,hyper"] {
            let error = filter(chosen).map(drop).expect_err(chosen).to_string();
            assert!(error.contains("target=level"), "{error}");
        }
        for chosen in ["WARN", "info,h2=off", "off", "info,[stream{id=1}]=debug"] {
            filter(chosen).map(drop).expect(chosen);
        }
        let elsewhere = Log::default();
        assert!(matches!(elsewhere.choose("debug"), Err(LogError::Elsewhere)));
        assert_eq!(elsewhere.chosen(), "");
    }
}
