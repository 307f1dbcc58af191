//! Shows what `up` and `down` are doing: a list of stages with elapsed times, a spinner on a terminal and plain lines
//! elsewhere; and a failure with its cause and its remedy.

use anyhow::Result;
use console::style;
use indicatif::{ProgressBar, ProgressStyle};
use std::fmt;
use std::time::{Duration, Instant};

/// An error together with what a person can do about it.
#[derive(Debug)]
pub(crate) struct WithRemedy {
    cause: anyhow::Error,
    remedy: String,
}

impl fmt::Display for WithRemedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.cause)
    }
}

impl std::error::Error for WithRemedy {}

/// Adds the remedy to a failing result.
pub(crate) trait Remedy<T> {
    fn remedy(self, text: impl Into<String>) -> Result<T>;
}

impl<T, E: Into<anyhow::Error>> Remedy<T> for Result<T, E> {
    fn remedy(self, text: impl Into<String>) -> Result<T> {
        self.map_err(|cause| anyhow::Error::new(WithRemedy { cause: cause.into(), remedy: text.into() }))
    }
}

/// Prints a failure for a person: cause, then remedy when one is known.
pub(crate) fn print_failure(error: &anyhow::Error) {
    eprintln!("{} {error:#}", style("error:").red().bold().for_stderr());
    if let Some(known) = error.chain().find_map(|e| e.downcast_ref::<WithRemedy>()) {
        eprintln!("{} {}", style("remedy:").yellow().bold().for_stderr(), known.remedy);
    }
}

/// A list of stages being worked through.
#[derive(Debug)]
pub(crate) struct Stages {
    started: Instant,
    terminal: bool,
}

/// The stage at work: it can say what it is busy with.
#[derive(Debug)]
pub(crate) struct Stage {
    title: String,
    bar: Option<ProgressBar>,
}

impl Stage {
    /// Shows what the stage is busy with; only a terminal shows it, for lines that are gone a moment later.
    pub(crate) fn busy(&self, what: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(format!("{}: {what}", self.title));
        }
    }

    /// Prints a line that stays.
    pub(crate) fn note(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.println(format!("    {line}")),
            None => println!("    {line}"),
        }
    }
}

impl Stages {
    pub(crate) fn new() -> Stages {
        Stages { started: Instant::now(), terminal: console::user_attended() }
    }

    /// Time since the first stage began.
    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Runs one stage; what it returns is shown beside its title.
    pub(crate) fn run<T: Outcome>(&self, title: &str, work: impl FnOnce(&Stage) -> Result<T>) -> Result<T> {
        let begun = Instant::now();
        let bar = self.terminal.then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(looks) = ProgressStyle::with_template("  {spinner} {wide_msg} {elapsed}") {
                bar.set_style(looks);
            }
            bar.set_message(title.to_owned());
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        let stage = Stage { title: title.to_owned(), bar };
        let result = work(&stage);
        if let Some(bar) = &stage.bar {
            bar.finish_and_clear();
        }
        let took = begun.elapsed().as_secs_f64();
        match &result {
            Ok(outcome) => {
                let detail = outcome.shown();
                let detail = if detail.is_empty() { detail } else { format!("  {}", style(detail).dim()) };
                println!("  {} {title:<26} {took:>6.1} s{detail}", style("✓").green());
            }
            Err(_) => println!("  {} {title:<26} {took:>6.1} s", style("✗").red()),
        }
        result
    }
}

/// What a finished stage shows beside its title.
pub(crate) trait Outcome {
    fn shown(&self) -> String;
}

impl Outcome for () {
    fn shown(&self) -> String {
        String::new()
    }
}

impl Outcome for String {
    fn shown(&self) -> String {
        self.clone()
    }
}

impl<T> Outcome for (String, T) {
    fn shown(&self) -> String {
        self.0.clone()
    }
}
