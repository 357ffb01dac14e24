//! Writes to people and programs: the one place where this command prints.
//!
//! Colours are written always and taken out where standard output is no terminal. A reader that went away (`weft peers |
//! head -1`) is no failure: the command ends there, with success.

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
            Format::Text => Self::plain(&text(value)),
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

    /// Writes one JSON value, on one line.
    pub(crate) fn json<T: Serialize>(value: &T) -> Result<(), Problem> {
        let unfit = broken("the answer cannot be written as JSON");
        Self::plain(&serde_json::to_string(value).map_err(unfit)?);
        Ok(())
    }

    /// Writes text, with a line feed at its end.
    pub(crate) fn plain(text: &str) {
        if let Err(error) = write_line(text) {
            // Whoever read has read enough; anything else (a full disk) cannot be told on this stream.
            let code = i32::from(error.kind() != ErrorKind::BrokenPipe);
            std::process::exit(code);
        }
    }

    /// Says what went wrong.
    pub(crate) fn problem(problem: &Problem) {
        Self::complaint(&clean(&problem.to_string()));
    }

    /// Writes a line to standard error. There is nobody to tell if that fails.
    pub(crate) fn complaint(text: &str) {
        let _ = writeln!(anstream::stderr().lock(), "{text}");
    }
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
