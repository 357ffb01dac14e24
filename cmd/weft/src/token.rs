//! Finds the token that a command was given, and reads it.

use std::path::{Path, PathBuf};

use weft_router_proto::token::Token;
use weft_types::{Code, Problem};

use crate::secret::Secret;

/// A token, or why there is none where there should be one: a node that is a member needs none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) token: Option<Secret>,
    pub(crate) missing: Option<Problem>,
}

/// The token that was given, wherever it stands. One that was said must be one; a file may lack it.
pub(crate) fn find(said: Option<Secret>, file: Option<PathBuf>) -> Result<Found, Problem> {
    let token = match (said, file) {
        (Some(token), _) if token.reveal() == "-" => {
            let stdin = || std::io::read_to_string(std::io::stdin());
            Some(read("standard input", stdin)?)
        }
        (None, Some(path)) => return Ok(in_file(&path)),
        (said, _) => said,
    };
    Ok(Found {
        token,
        missing: None,
    })
}

fn in_file(path: &Path) -> Found {
    let name = path.display().to_string();
    let token = read(&name, || std::fs::read_to_string(path));
    let token = token.and_then(|token| parse(&token).map(|_| token));
    match token {
        Ok(token) => Found {
            token: Some(token),
            missing: None,
        },
        Err(missing) => Found {
            token: None,
            missing: Some(missing),
        },
    }
}

fn read(from: &str, read: impl FnOnce() -> std::io::Result<String>) -> Result<Secret, Problem> {
    let text = read().map_err(|error| {
        let what = format!("the token cannot be read from {from}");
        Problem::new(Code::Configuration, what).why(error.to_string())
    })?;
    match text.trim() {
        "" => Err(no_token(from)),
        token => Ok(Secret::new(token.to_owned())),
    }
}

fn no_token(from: &str) -> Problem {
    Problem::new(Code::TokenMalformed, format!("{from} holds no token"))
        .fix("Make one on a host of the mesh: sudo weft token create")
}

/// Reads a token; a wrong one is never shown.
pub(crate) fn parse(secret: &Secret) -> Result<Token, Problem> {
    Token::parse(secret.reveal()).map_err(|error| malformed(&error))
}

fn malformed(error: &impl ToString) -> Problem {
    let what = "the text given as token is no weft token";
    Problem::new(Code::TokenMalformed, what)
        .why(error.to_string())
        .fix("Copy it whole, or make one on a host of the mesh: sudo weft token create")
}
