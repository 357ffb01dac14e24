//! Completes words for the shell: verbs and flags from the grammar, names by asking the router.
//!
//! ```text
//!   weft completion bash ──▶ a script, which calls at each TAB:  WEFT_COMPLETE=bash weft -- WORDS ──▶ candidates
//! ```
//!
//! **Failure policy.** Where no router answers within [`PATIENCE`] there is nothing to complete, and nothing is said:
//! a person is typing.

use std::time::Duration;

use clap::Parser;
use clap_complete::env::Shells;
use clap_complete::{ArgValueCandidates, CompleteEnv, CompletionCandidate, Shell};
use weft_api::Client;
use weft_api::status::Status;
use weft_types::{Code, Problem};

use crate::config::{Global, Place, read_file};
use crate::context::block_on;

/// The variable by which the script calls this program.
const CALLED: &str = "WEFT_COMPLETE";

/// What a person who types waits for without wondering.
const PATIENCE: Duration = Duration::from_millis(500);

/// Where the router is, as far as the environment says: the words that are typed are not at hand.
#[derive(Parser)]
struct Surroundings {
    #[command(flatten)]
    global: Global,
}

/// Answers the shell, and ends, where this program was called to complete.
pub(crate) fn answer(grammar: fn() -> clap::Command) {
    CompleteEnv::with_factory(grammar).var(CALLED).complete();
}

/// The script that makes a shell ask.
pub(crate) fn script(shell: Shell) -> Result<Vec<u8>, Problem> {
    let unknown = || Problem::new(Code::Usage, format!("{shell} has no completion"));
    let (shells, name) = (Shells::builtins(), shell.to_string());
    let completer = shells.completer(&name).ok_or_else(unknown)?;
    let mut script = Vec::new();
    completer
        .write_registration(CALLED, "weft", "weft", "weft", &mut script)
        .map_err(|error| unknown().why(error.to_string()))?;
    Ok(script)
}

/// The other members, for an argument that names one.
pub(crate) fn members() -> ArgValueCandidates {
    ArgValueCandidates::new(|| ask().map(|status| named(&status)).unwrap_or_default())
}

/// What was told to be dialled, for an argument that names one of it.
pub(crate) fn targets() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        let targets = ask().map(|status| status.targets).unwrap_or_default();
        let targets = targets.into_iter();
        targets
            .map(|one| CompletionCandidate::new(one.target))
            .collect()
    })
}

/// Every code there is a page about.
pub(crate) fn codes() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        let codes = Code::ALL.iter();
        let candidate = |code: &Code| {
            CompletionCandidate::new(code.to_string()).help(Some(code.title().into()))
        };
        codes.map(candidate).collect()
    })
}

fn ask() -> Option<Status> {
    let Surroundings { global } = Surroundings::try_parse_from(["weft"]).ok()?;
    let place = Place::new(&global, &read_file(&global).ok()?).ok()?;
    let router = Client::new(&place.socket);
    let asked = async { Ok(tokio::time::timeout(PATIENCE, router.status()).await.ok()) };
    block_on(asked).ok()??.ok()
}

/// By nickname; by identity where several share one.
fn named(status: &Status) -> Vec<CompletionCandidate> {
    let candidate = |peer: &weft_api::peers::PeerStatus| {
        let alike = |other: &&weft_api::peers::PeerStatus| other.nickname == peer.nickname;
        let name = match status.peers.iter().filter(alike).count() {
            1 => peer.nickname.to_string(),
            _ => peer.id.short(),
        };
        let address = peer.addresses.first().map(|net| net.addr().to_string());
        CompletionCandidate::new(name).help(address.map(Into::into))
    };
    status.peers.iter().map(candidate).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::status::sample;

    #[test]
    fn members_are_completed_by_name_and_those_of_one_name_by_identity() {
        let mut status = sample();
        let words = |status: &Status| -> Vec<String> {
            let all = named(status).into_iter();
            all.map(|one| one.get_value().to_string_lossy().into_owned())
                .collect()
        };

        let apart = words(&status);
        status.peers[1].nickname = status.peers[0].nickname.clone();
        let alike = words(&status);

        assert_eq!(apart, ["a", "c"]);
        assert_eq!(alike, ["0202020202", "0303030303"]);
    }
}
