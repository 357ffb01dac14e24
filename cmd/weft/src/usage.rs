//! Says what was wrong with a command line: one line that names it, and where to read on.
//!
//! clap tells of a mistake in paragraphs: what it is, what was meant maybe (`tip:`), how the verb is used, where help is. A
//! person needs the first two and the last, and a program one line. Who said no verb at all asked what there is.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use weft_types::{Code, Problem};

use crate::output::{Format, Output};

/// How a join token begins: it is shown nowhere, whatever else is wrong with the line that it stands in.
const TOKEN: &str = "wft1-";

/// Shows help, or what was wrong with the command line.
pub(crate) fn explain(error: &clap::Error, words: &[OsString], grammar: clap::Command) -> ExitCode {
    let out = Output::new(format(words), false);
    if let Some(help) = asked_for(error, grammar.clone()) {
        Output::plain(&help);
        return ExitCode::SUCCESS;
    }
    out.problem(&problem(error, &verb(words, grammar)));
    ExitCode::from(Code::Usage.exit() as u8)
}

/// Help, where it was asked for, or where nothing was: a noun without a verb.
fn asked_for(error: &clap::Error, grammar: clap::Command) -> Option<String> {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "clap has more ways to be wrong than it tells"
    )]
    match error.kind() {
        ErrorKind::DisplayHelp
        | ErrorKind::DisplayVersion
        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            Some(error.render().ansi().to_string())
        }
        // A variable that is set counts as something that was said.
        ErrorKind::MissingSubcommand => help_of(noun(error)?.split(' ').skip(1), grammar),
        _ => None,
    }
}

/// The noun that lacks its verb, as in `weft token`.
fn noun(error: &clap::Error) -> Option<&str> {
    match error.get(ContextKind::InvalidSubcommand) {
        Some(ContextValue::String(noun)) => Some(noun),
        Some(_) | None => None,
    }
}

/// The help of a verb of a noun: `token create`. `None` where there is none of that name.
pub(crate) fn help_of<'a>(
    path: impl Iterator<Item = &'a str>,
    mut grammar: clap::Command,
) -> Option<String> {
    grammar.build();
    let mut command = &mut grammar;
    for word in path {
        command = command.find_subcommand_mut(word)?;
    }
    Some(command.render_long_help().ansi().to_string())
}

/// What is wrong, in one line.
fn problem(error: &clap::Error, verb: &str) -> Problem {
    let text = masked(&error.render().to_string());
    let mut paragraphs = text.split("\n\n").map(one_line);
    let what = paragraphs.next().unwrap_or_default();
    let what = what.strip_prefix("error: ").unwrap_or(&what).to_owned();
    let tips = paragraphs.find_map(|tips| tips.strip_prefix("tip: ").map(str::to_owned));
    let why = tips.unwrap_or_default().replace(" tip: ", "; ");
    let problem = Problem::new(Code::Usage, what).why(why);
    problem.fix(format!("See: {verb} --help"))
}

fn one_line(paragraph: &str) -> String {
    let words: Vec<&str> = paragraph.split_whitespace().collect();
    words.join(" ")
}

/// The verb that a line is about, as far as it names one: `weft token create`.
fn verb(words: &[OsString], mut grammar: clap::Command) -> String {
    let mut command = &mut grammar;
    let mut path = "weft".to_owned();
    for word in words.iter().skip(1).filter_map(|word| word.to_str()) {
        if command.find_subcommand(word).is_none() {
            continue;
        }
        let Some(found) = command.find_subcommand_mut(word) else {
            break;
        };
        path = format!("{path} {}", found.get_name());
        command = found;
    }
    path
}

/// A text without the tokens in it.
fn masked(text: &str) -> String {
    let mut parts = text.split(TOKEN);
    let mut masked = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let secret = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        masked.push_str(TOKEN);
        masked.push('…');
        masked.push_str(part.trim_start_matches(secret));
    }
    masked
}

/// How to answer a line that clap could not read.
fn format(words: &[OsString]) -> Format {
    let words: Vec<&str> = words.iter().filter_map(|word| word.to_str()).collect();
    let said = words.iter().enumerate().find_map(|(at, word)| {
        let value = match *word {
            "-o" | "--output" => words.get(at + 1).copied(),
            word => word
                .strip_prefix("--output=")
                .or_else(|| word.strip_prefix("-o=").or_else(|| word.strip_prefix("-o"))),
        };
        value.map(str::to_owned)
    });
    match said
        .or_else(|| std::env::var("WEFT_OUTPUT").ok())
        .as_deref()
    {
        Some("json") => Format::Json,
        Some(_) | None => Format::Text,
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;
    use crate::cli::Cli;

    fn mistake(line: &str) -> Problem {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        let error = Cli::try_parse_from(&words).unwrap_err();
        problem(&error, &verb(&words, Cli::command()))
    }

    #[test]
    fn a_mistake_is_one_line_that_says_what_was_meant_and_where_to_read_on() {
        for (line, said) in [
            (
                "weft dwn",
                "WFT-002: unrecognized subcommand 'dwn' (a similar subcommand exists: 'down'). See: weft --help",
            ),
            (
                "weft token create --tll 1h",
                "WFT-002: unexpected argument '--tll' found (a similar argument exists: '--ttl'). See: weft token create --help",
            ),
            (
                "weft attach",
                "WFT-002: the following required arguments were not provided: --address <CIDR> <TARGET>. See: weft attach --help",
            ),
            (
                "weft status everything",
                "WFT-002: invalid value 'everything' for '[PART]' [possible values: connections, containers, peers, targets, wire]. See: weft status --help",
            ),
        ] {
            assert_eq!(mistake(line).to_string(), said);
        }
    }

    #[test]
    fn no_token_is_shown_wherever_it_stands() {
        for line in ["weft wft1-topsecret", "weft detach a wft1-topsecret"] {
            let said = mistake(line).to_string();

            assert!(
                said.contains("wft1-…") && !said.contains("topsecret"),
                "{said}"
            );
        }
    }

    #[test]
    fn a_noun_without_a_verb_asks_what_there_is() {
        for (line, shows) in [("weft -q", "Start with"), ("weft token -q", "revoke")] {
            let error = Cli::try_parse_from(line.split(' ')).unwrap_err();

            let help = asked_for(&error, Cli::command()).unwrap();

            assert!(help.contains(shows), "{help}");
        }
    }

    #[test]
    fn who_asked_for_json_gets_it_even_of_a_line_that_makes_no_sense() {
        let format = |line: &str| format(&line.split(' ').map(OsString::from).collect::<Vec<_>>());

        for line in [
            "weft x -o json",
            "weft -ojson x",
            "weft --output json x",
            "weft x --output=json",
        ] {
            assert_eq!(format(line), Format::Json, "{line}");
        }
        assert_eq!(format("weft -o text json"), Format::Text);
    }
}
