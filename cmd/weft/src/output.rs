//! Writes to people and programs: the one place where this command prints.
//!
//! Colours are written always and taken out where standard output is no terminal. A reader that went away (`weft peers |
//! head -1`) is no failure: the command ends there, with success. An output that takes nothing (a full disk) is one.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};

use clap::ValueEnum;
use serde::Serialize;
use weft_api::Done;
use weft_types::{ExitCode, Problem};

use crate::fault::broken;

/// How a verb ends: with success, with something wrong that it has told already, or with a problem.
pub(crate) type Outcome = Result<ExitCode, Problem>;

/// How to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// One JSON value per line, for programs
    Json,
    /// Words and tables, for people
    Text,
}

/// How to answer, and how much.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    format: Format,
    quiet: bool,
}

impl Output {
    /// Answers in this format; a quiet one keeps confirmations to itself and still gives what was asked for.
    pub(crate) const fn new(format: Format, quiet: bool) -> Self {
        Self { format, quiet }
    }

    /// Whether a program reads.
    pub(crate) const fn is_json(self) -> bool {
        matches!(self.format, Format::Json)
    }

    /// Gives what was asked for: the value to a program, the text to a person.
    pub(crate) fn answer<T: Serialize>(
        self,
        value: &T,
        text: impl FnOnce(&T) -> String,
    ) -> Outcome {
        match self.format {
            Format::Json => Self::json(value)?,
            Format::Text => Self::print(&text(value))?,
        }
        Ok(ExitCode::Ok)
    }

    /// Confirms what was done.
    pub(crate) fn confirm<T: Serialize>(
        self,
        value: &T,
        text: impl FnOnce(&T) -> String,
    ) -> Outcome {
        if self.quiet {
            return Ok(ExitCode::Ok);
        }
        self.answer(value, text)
    }

    /// Confirms what leaves nothing to tell but that it is done.
    pub(crate) fn done(self, text: impl Into<String>) -> Outcome {
        self.confirm(&Done {}, |_| text.into())
    }

    /// Tells a person something beside the answer.
    pub(crate) fn note(self, text: impl Display) {
        if !self.quiet && !self.is_json() {
            Self::plain(&text.to_string());
        }
    }

    /// Gives what is lost where nobody reads it: that a reader has gone is told like any other failure.
    pub(crate) fn hand_over<T: Serialize>(
        self,
        value: &T,
        text: impl FnOnce(&T) -> String,
    ) -> Outcome {
        let text = match self.format {
            Format::Json => as_json(value)?,
            Format::Text => text(value),
        };
        write_line(&text).map_err(|error| unwritten(&error))?;
        Ok(ExitCode::Ok)
    }

    /// Writes one JSON value, on one line.
    pub(crate) fn json<T: Serialize>(value: &T) -> Result<(), Problem> {
        Self::print(&as_json(value)?)
    }

    /// Writes text, with a line feed at its end; the command ends where that fails.
    pub(crate) fn plain(text: &str) {
        if let Err(problem) = Self::print(text) {
            Self::complaint(&clean(&problem.to_string()));
            std::process::exit(problem.code.exit() as i32);
        }
    }

    /// Writes text, with a line feed at its end. The command ends here where whoever read has read enough.
    fn print(text: &str) -> Result<(), Problem> {
        match write_line(text) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
            written => written.map_err(|error| unwritten(&error)),
        }
    }

    /// Says what went wrong, to a person or to a program.
    pub(crate) fn problem(self, problem: &Problem) {
        match self.format {
            // A problem is made of strings: it can always be written.
            Format::Json => Self::complaint(&as_json(problem).unwrap_or_default()),
            Format::Text => Self::complaint(&clean(&problem.to_string())),
        }
    }

    /// Tells a person who waits how things come on, beside standard output.
    pub(crate) fn aside(self, text: &str) {
        if !self.quiet && !self.is_json() && !text.is_empty() {
            Self::complaint(&clean(text));
        }
    }

    /// Writes a line to standard error. There is nobody to tell if that fails.
    pub(crate) fn complaint(text: &str) {
        let _ = writeln!(anstream::stderr().lock(), "{text}");
    }
}

fn as_json<T: Serialize>(value: &T) -> Result<String, Problem> {
    serde_json::to_string(value).map_err(broken("the answer cannot be written as JSON"))
}

fn unwritten(error: &io::Error) -> Problem {
    broken("the answer could not be written to standard output")(error)
        .fix("Nothing else failed; give the command an output that takes it")
}

fn write_line(text: &str) -> io::Result<()> {
    let mut stream = anstream::stdout().lock();
    stream.write_all(text.as_bytes())?;
    if !text.ends_with('\n') {
        stream.write_all(b"\n")?;
    }
    stream.flush()
}

/// Makes text of others harmless for a terminal.
pub(crate) fn clean(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_escape_sequence_of_others_reaches_the_terminal() {
        assert_eq!(clean("a\u{1b}[31mb\nc"), "a?[31mb?c");
    }
}
