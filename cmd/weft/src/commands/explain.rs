//! Prints what the documentation says about a code: the pages travel in the program, for a host without the documentation.

use std::str::FromStr;

use clap::{Args, Subcommand};
use serde::Serialize;
use weft_types::{Code, ExitCode};

use crate::complete;
use crate::context::Context;
use crate::output::Outcome;

/// As wide as a page is read well.
const WIDTH: usize = 96;

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Explain an error: what it means, why it happens, and what to do
    Explain(ExplainArgs),
}

/// Of `explain`.
#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// The code, as WFT-031 or 31
    #[arg(value_name = "CODE", add = complete::codes())]
    pub(crate) code: Known,
}

/// A code that there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Known(Code);

impl FromStr for Known {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let upper = text.to_ascii_uppercase();
        let digits = upper.strip_prefix("WFT-").unwrap_or(&upper);
        let code = digits.parse().ok().and_then(Code::from_number);
        code.map(Self)
            .ok_or_else(|| "this weft has no such code; all of them: docs/errors".to_owned())
    }
}

impl Verb {
    pub(crate) fn run(self, context: &Context) -> Outcome {
        let Self::Explain(args) = self;
        explain(args.code.0, context)
    }
}

/// What `weft explain -o json` prints.
#[derive(Serialize)]
struct Explanation {
    code: Code,
    title: &'static str,
    exit_code: u8,
    page: &'static str,
}

fn explain(code: Code, context: &Context) -> Outcome {
    let explanation = Explanation {
        code,
        title: code.title(),
        exit_code: code.exit() as u8,
        page: page(code),
    };
    context.out.answer(&explanation, |it| readable(it.page))?;
    Ok(ExitCode::Ok)
}

/// A page as a person reads it: without the marks, in lines of a readable width.
fn readable(page: &str) -> String {
    let plain = page.trim_start_matches("# ").replace("**", "");
    let paragraphs: Vec<String> = plain.trim_end().split('\n').map(wrapped).collect();
    paragraphs.join("\n")
}

fn wrapped(paragraph: &str) -> String {
    let mut lines = vec![String::new()];
    for word in paragraph.split(' ') {
        let line = lines.last().map_or(0, |line| line.chars().count());
        if line > 0 && line + 1 + word.chars().count() > WIDTH {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines.join("\n")
}

macro_rules! pages {
    ($($name:ident = $number:literal,)*) => {
        /// The page of a code.
        const fn page(code: Code) -> &'static str {
            match code {
                $(Code::$name => include_str!(concat!("../../../../docs/errors/WFT-", $number, ".md")),)*
            }
        }
    };
}

pages! {
    Internal = "001",
    Usage = "002",
    DaemonNotRunning = "003",
    DaemonRunning = "004",
    NotJoined = "005",
    WaitTimedOut = "006",
    StartTimedOut = "007",
    Privilege = "010",
    NoTun = "011",
    KernelFeature = "012",
    StateDirectory = "013",
    DiskFull = "014",
    StateDamaged = "015",
    StateVersion = "016",
    PortInUse = "017",
    Configuration = "018",
    DeviceInUse = "019",
    Filtered = "020",
    ConnectionRefused = "021",
    NoRoute = "022",
    NameUnknown = "023",
    UdpBlocked = "024",
    CreatorUnreachable = "025",
    PeerUnreachable = "026",
    FullSizeLost = "027",
    CutShort = "028",
    Unintelligible = "029",
    TokenMalformed = "030",
    TokenNotAccepted = "031",
    TokenUsed = "032",
    TokenExpired = "033",
    TokenVoided = "034",
    NotAMember = "035",
    NotAuthorised = "036",
    NotAnIntroducer = "037",
    Clone = "040",
    OtherMesh = "041",
    RangeOverlap = "042",
    AddressInUse = "043",
    RangeExhausted = "044",
    AddressOutsideRange = "045",
    AmbiguousNode = "046",
    UnknownNode = "047",
    AttachTarget = "048",
    MeshFull = "049",
    VersionMismatch = "050",
    KeyDamaged = "051",
    KeyMissing = "052",
    KeyMismatch = "053",
    StateMissing = "054",
    HeartbeatsByTcp = "060",
    PeerDown = "061",
    OwnerViolation = "062",
    Equivocation = "063",
    KernelFeatureMissing = "064",
    Unencrypted = "065",
    NotSaved = "066",
    BridgeFiltered = "067",
    Misbehaviour = "068",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_explained_by_its_own_page() {
        for &code in Code::ALL {
            let text = readable(page(code));

            assert!(text.starts_with(&format!("{code}: {}\n", code.title())));
            assert!(text.contains("What to do."), "{code}");
            assert!(!text.contains("**"), "{code}");
            let longest = text.lines().map(|line| line.chars().count()).max();
            assert!(longest <= Some(WIDTH), "{code}");
        }
    }

    #[test]
    fn a_code_is_typed_as_it_is_printed_or_as_its_number() {
        for text in ["WFT-031", "wft-31", "31", "031"] {
            assert_eq!(text.parse(), Ok(Known(Code::TokenNotAccepted)), "{text}");
        }
        for text in ["WFT-999", "", "x"] {
            assert!(text.parse::<Known>().is_err(), "{text}");
        }
    }
}
