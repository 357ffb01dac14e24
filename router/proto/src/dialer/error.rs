//! Says why a dial came to nothing, and whose doing that was.

use std::net::SocketAddr;

use weft_types::{Code, Problem};

use crate::handshake::HandshakeError;
use crate::io::{ConnectError, Target};

/// Why the last attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DialError {
    /// The other end closed the connection before its first word: so a listener treats who knows no secret of its.
    #[error("it closed the connection without a word")]
    ClosedSilently,
    /// No connection came about.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The other end closed the connection when both knew each other, and gave no reason.
    #[error("it closed the connection before a link came of it")]
    Cut,
    /// The handshake failed.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    /// This node ended it.
    #[error(transparent)]
    LetGo(#[from] LetGo),
    /// The name has no address.
    #[error("no address is known")]
    NoAddress,
    /// The other end took the token, and its welcome does not make this node a member.
    #[error("its welcome does not admit this node")]
    NotAdmitted,
    /// The other end took the token, and told of another mesh than the token's.
    #[error("the mesh that it tells of is not the token's")]
    OtherMesh,
}

/// Why this node ended a connection that it had dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LetGo {
    /// Whoever answers has this node's own key.
    #[error("another run of this node answers there")]
    AnotherSelf,
    /// Another connection led into the mesh.
    #[error("this node has joined by way of another host")]
    Joined,
    /// Whoever answers has left, or was removed.
    #[error("the node there is not a member any more")]
    NotAMember,
    /// A link to another run of whoever answers is alive.
    #[error("another run of the node there is linked")]
    OtherRun,
    /// Every connection is made anew as a later run.
    #[error("this node steps past an earlier run of itself")]
    SteppedPast,
}

impl DialError {
    /// Why `target` could not be joined by, in words; `address` is the one that was dialled.
    pub fn problem(self, target: &Target, address: Option<SocketAddr>) -> Problem {
        let at = address.map_or_else(|| target.0.clone(), |address| address.to_string());
        match self {
            Self::NoAddress => {
                titled(Code::NameUnknown, format!("\"{}\" has no address", target.0), &at)
                    .fix("Check the name, or give an IP address")
            }
            Self::Connect(error) => unconnected(error, &at),
            Self::ClosedSilently => {
                titled(Code::TokenNotAccepted, format!("{at} does not accept this token"), &at)
                    .fix("A single-use token is good only at the host that made it; make a new one there: `weft token create`")
            }
            Self::Cut => Problem::new(Code::CutShort, format!("{at} closed the connection before this node was in"))
                .fix("Try again with the same token: to this node it is still good. `weft status` there says how that host is"),
            Self::LetGo(why) => Problem::new(Code::CutShort, format!("the connection to {at} was not used"))
                .why(why.to_string())
                .fix("Wait: what can be tried again is tried again"),
            Self::Handshake(error) => unshaken(error, &at),
            Self::NotAdmitted | Self::OtherMesh => nonsense(&self.to_string(), &at),
        }
    }
}

fn unconnected(error: ConnectError, at: &str) -> Problem {
    match error {
        ConnectError::Refused => titled(Code::ConnectionRefused, format!("{at} refuses the connection"), at)
            .fix("Run `weft status` there; if its router uses another port, name it: HOST:PORT"),
        ConnectError::TimedOut => titled(Code::Filtered, format!("{at} does not answer"), at)
            .fix("Check that the host is up and that its firewall, and those between, let TCP and UDP through to its port (6783 unless changed)"),
        ConnectError::Unreachable => titled(Code::NoRoute, format!("there is no route to {at}"), at)
            .fix("Check the address and this host's routes"),
    }
}

fn unshaken(error: HandshakeError, at: &str) -> Problem {
    match error {
        HandshakeError::Refused(refusal) => refusal.problem(at),
        HandshakeError::TimedOut => {
            titled(Code::Filtered, format!("{at} took the connection and then said nothing"), at)
                .fix("Check that a weft router is what listens there, and that nothing between holds its answers back")
        }
        HandshakeError::Internal => {
            Problem::new(Code::Internal, format!("the handshake with {at} failed here"))
                .why(error.to_string())
                .fix("Try again; if it fails again, report it with the output of `weft report`")
        }
        HandshakeError::Frame(_)
        | HandshakeError::Inauthentic
        | HandshakeError::Malformed
        | HandshakeError::UnknownDoor => nonsense(&error.to_string(), at),
    }
}

/// The other end is at fault, or something between.
fn nonsense(why: &str, at: &str) -> Problem {
    Problem::new(Code::Unintelligible, format!("{at} does not answer as a weft router does"))
        .why(why)
        .fix("Check that a weft router is what listens there, and that nothing between changes what it sends")
}

fn titled(code: Code, what: String, at: &str) -> Problem {
    Problem::new(code, what).why(format!("{at}: {}", code.title()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handshake::Refusal;

    fn told(error: DialError) -> Problem {
        let target = Target("b.example".to_owned());
        error.problem(&target, Some(SocketAddr::from(([192, 0, 2, 7], 6783))))
    }

    #[test]
    fn only_a_close_without_a_word_is_blamed_on_the_token() {
        let refused = HandshakeError::Refused(Refusal::new(Code::TokenUsed));
        let codes = [
            (DialError::ClosedSilently, Code::TokenNotAccepted),
            (
                DialError::Connect(ConnectError::Refused),
                Code::ConnectionRefused,
            ),
            (DialError::Connect(ConnectError::TimedOut), Code::Filtered),
            (DialError::Connect(ConnectError::Unreachable), Code::NoRoute),
            (DialError::Cut, Code::CutShort),
            (
                DialError::Handshake(HandshakeError::Inauthentic),
                Code::Unintelligible,
            ),
            (
                DialError::Handshake(HandshakeError::Internal),
                Code::Internal,
            ),
            (
                DialError::Handshake(HandshakeError::Malformed),
                Code::Unintelligible,
            ),
            (
                DialError::Handshake(HandshakeError::TimedOut),
                Code::Filtered,
            ),
            (DialError::Handshake(refused), Code::TokenUsed),
            (DialError::LetGo(LetGo::AnotherSelf), Code::CutShort),
            (DialError::NoAddress, Code::NameUnknown),
            (DialError::NotAdmitted, Code::Unintelligible),
            (DialError::OtherMesh, Code::Unintelligible),
        ];

        for (error, code) in codes {
            let problem = told(error);

            assert_eq!(problem.code, code, "{problem}");
            let named = [&problem.what, &problem.why]
                .into_iter()
                .any(|text| text.contains("192.0.2.7:6783") || text.contains("b.example"));
            assert!(named && !problem.fix.is_empty(), "{problem}");
        }
    }

    #[test]
    fn what_this_node_ended_is_not_told_as_the_other_ends_doing() {
        for why in [
            LetGo::AnotherSelf,
            LetGo::Joined,
            LetGo::NotAMember,
            LetGo::OtherRun,
            LetGo::SteppedPast,
        ] {
            let problem = told(DialError::LetGo(why));

            assert_eq!(problem.why, why.to_string());
            assert!(!problem.to_string().contains("closed"), "{problem}");
        }
    }
}
