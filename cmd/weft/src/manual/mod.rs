//! Writes the manual: what the grammar tells of a verb, and what it does not: examples, files, exit codes.
//!
//! ```text
//!   TH NAME SYNOPSIS DESCRIPTION OPTIONS SUBCOMMANDS   from the grammar, by clap_mangen
//!   ENVIRONMENT                                        from the grammar, here
//!   EXAMPLES FILES EXIT STATUS SEE ALSO                from the tables of `words`
//! ```

mod words;

use std::io::{self, Write};
use std::path::Path;

use clap::{Arg, Command};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use self::words::{EXITS, FILES, examples};

/// Writes a page per verb, and one of the program, into a directory.
pub(crate) fn write_all(grammar: Command, directory: &Path) -> io::Result<()> {
    std::fs::create_dir_all(directory)?;
    let mut grammar = grammar;
    grammar.build();
    let mut commands = vec![&grammar];
    while let Some(command) = commands.pop() {
        commands.extend(visible(command));
        let page = page(command)?;
        std::fs::write(directory.join(format!("{}.1", name(command))), page)?;
    }
    Ok(())
}

/// One page.
pub(crate) fn page(command: &Command) -> io::Result<Vec<u8>> {
    let man = Man::new(command.clone());
    let mut page = Vec::new();
    // No date: pages of one release are equal, whenever they were made. (clap_mangen drops an empty one, and shifts the rest.)
    let release = env!("CARGO_PKG_VERSION");
    writeln!(
        page,
        ".TH {} 1 \"\" \"weft {release}\" \"weft\"",
        name(command)
    )?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if visible(command).next().is_some() {
        man.render_subcommands_section(&mut page)?;
    }
    for section in [
        environment(command),
        shown_by_example(command),
        files(),
        exit_status(),
        see_also(command),
    ] {
        section.to_writer(&mut page)?;
    }
    page.flush()?;
    Ok(page)
}

/// The verbs that have pages. `help` tells what they tell.
fn visible(command: &Command) -> impl Iterator<Item = &Command> {
    let verbs = command.get_subcommands();
    verbs.filter(|verb| !verb.is_hide_set() && verb.get_name() != "help")
}

/// As the page is called: `weft-token-create`.
fn name(command: &Command) -> String {
    let name = command.get_display_name();
    name.unwrap_or_else(|| command.get_name()).to_owned()
}

fn environment(command: &Command) -> Roff {
    let mut roff = section("ENVIRONMENT");
    roff.text([roman(
        "A flag wins over its variable, a variable over the configuration file.",
    )]);
    for arg in command.get_arguments().filter(|arg| !arg.is_hide_set()) {
        if let Some(variable) = arg.get_env().and_then(|name| name.to_str()) {
            entry(
                &mut roff,
                variable,
                &format!("Says the same as {}.", spoken(arg)),
            );
        }
    }
    roff
}

/// How an argument is said on the command line.
fn spoken(arg: &Arg) -> String {
    match arg.get_long() {
        Some(long) => format!("--{long}"),
        None => "the arguments, with commas between them".to_owned(),
    }
}

fn shown_by_example(command: &Command) -> Roff {
    let mut roff = section("EXAMPLES");
    for (what, line) in examples(&name(command)) {
        roff.text([roman(format!("{what}:"))]);
        roff.control("PP", []);
        roff.control("RS", ["4"]);
        roff.control("nf", []);
        roff.text([bold(*line)]);
        roff.control("fi", []);
        roff.control("RE", []);
    }
    roff
}

fn files() -> Roff {
    let mut roff = section("FILES");
    for (path, what) in FILES {
        entry(&mut roff, path, what);
    }
    roff
}

fn exit_status() -> Roff {
    let mut roff = section("EXIT STATUS");
    for (exit, what) in EXITS {
        entry(&mut roff, &(exit as u8).to_string(), what);
    }
    roff
}

fn see_also(command: &Command) -> Roff {
    let mut roff = section("SEE ALSO");
    let own = name(command);
    let others = [
        "weft",
        "weft-up",
        "weft-join",
        "weft-status",
        "weft-explain",
    ];
    let others: Vec<String> = others
        .into_iter()
        .filter(|&other| other != own)
        .map(|other| format!("{other}(1)"))
        .collect();
    roff.text([roman(others.join(", "))]);
    roff
}

fn section(title: &str) -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", [title]);
    roff
}

/// A term, and what is said of it.
fn entry(roff: &mut Roff, term: &str, what: &str) {
    roff.control("TP", []);
    roff.text([bold(term)]);
    roff.text([roman(what)]);
}
