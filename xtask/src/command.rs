//! Runs other programs: every failure says which command, how it ended and what it printed.

use anyhow::{Context, Result, bail};
use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A command that is run to its end.
#[derive(Debug)]
pub(crate) struct Run {
    command: Command,
    input: Option<Vec<u8>>,
}

/// Starts describing a command.
pub(crate) fn run(program: impl AsRef<OsStr>) -> Run {
    Run { command: Command::new(program), input: None }
}

impl Run {
    pub(crate) fn arg(mut self, arg: impl AsRef<OsStr>) -> Run {
        self.command.arg(arg);
        self
    }

    pub(crate) fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Run {
        self.command.args(args);
        self
    }

    pub(crate) fn env(mut self, key: &str, value: impl AsRef<OsStr>) -> Run {
        self.command.env(key, value);
        self
    }

    pub(crate) fn dir(mut self, dir: impl AsRef<Path>) -> Run {
        self.command.current_dir(dir);
        self
    }

    pub(crate) fn input(mut self, input: impl Into<Vec<u8>>) -> Run {
        self.input = Some(input.into());
        self
    }

    fn line(&self) -> String {
        let mut words = vec![self.command.get_program().to_string_lossy().into_owned()];
        words.extend(self.command.get_args().map(|arg| arg.to_string_lossy().into_owned()));
        words.join(" ")
    }

    /// Runs to the end and hands back everything, whatever the exit code.
    pub(crate) fn output(mut self) -> Result<Output> {
        let line = self.line();
        let input = self.input.take();
        self.command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
        let mut child = self
            .command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start `{line}`"))?;
        if let (Some(input), Some(mut stdin)) = (input, child.stdin.take()) {
            stdin.write_all(&input).with_context(|| format!("cannot write to `{line}`"))?;
        }
        child.wait_with_output().with_context(|| format!("cannot wait for `{line}`"))
    }

    /// Runs and returns what was printed on stdout; anything but success is an error with the output's end.
    pub(crate) fn stdout(self) -> Result<String> {
        let line = self.line();
        let output = self.output()?;
        if !output.status.success() {
            bail!("`{line}` failed ({}): {}", output.status, last_lines(&output, 12));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs for the effect only.
    pub(crate) fn ok(self) -> Result<()> {
        self.stdout().map(drop)
    }

    /// Whether the command could be started and succeeded.
    pub(crate) fn succeeds(self) -> bool {
        self.output().is_ok_and(|output| output.status.success())
    }

    /// Runs and calls back with each line of stderr as it comes.
    pub(crate) fn watch_stderr(mut self, mut each: impl FnMut(&str)) -> Result<()> {
        use std::io::BufRead;
        let line = self.line();
        let mut child = self
            .command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start `{line}`"))?;
        let mut tail = std::collections::VecDeque::new();
        if let Some(stderr) = child.stderr.take() {
            for text in std::io::BufReader::new(stderr).lines() {
                let text = text.with_context(|| format!("cannot read from `{line}`"))?;
                each(&text);
                tail.push_back(text);
                if tail.len() > 40 {
                    tail.pop_front();
                }
            }
        }
        let status = child.wait().with_context(|| format!("cannot wait for `{line}`"))?;
        if !status.success() {
            bail!("`{line}` failed ({status}):\n{}", Vec::from(tail).join("\n"));
        }
        Ok(())
    }
}

fn last_lines(output: &Output, count: usize) -> String {
    let text = if output.stderr.is_empty() { &output.stdout } else { &output.stderr };
    let text = String::from_utf8_lossy(text);
    let lines: Vec<&str> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// Where a program lies on PATH, or in the places that root's PATH may miss.
pub(crate) fn which(program: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':')
        .chain(["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"])
        .map(|dir| Path::new(dir).join(program))
        .find(|file| file.is_file())
}
