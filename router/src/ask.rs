//! Ties each command to the kind of answer that it has.
//!
//! The core takes a [`Command`] and gives a [`Reply`], one type for all. Whoever asks has an [`Ask`] of the answer it
//! wants, and gets that or the [`Problem`]; that a reply is of another kind is told here and nowhere else.

use std::fmt;
use std::time::Duration;

use tokio::sync::oneshot;
use weft_router_proto::io::{Command, Hop, Pong, Reply, TokenText};
use weft_types::{Code, NodeId, Problem};

/// What a reply means to who wants an `A`.
pub(crate) type Reading<A> = fn(Reply) -> Result<A, Problem>;

/// A command and the answer that it has.
#[derive(Debug)]
pub struct Ask<A> {
    command: Command,
    answer: Reading<A>,
}

impl Ask<()> {
    /// Has something done that there is nothing to say about but "done".
    pub fn order(command: Command) -> Self {
        Self {
            command,
            answer: |reply| match reply {
                Reply::Done => Ok(()),
                other @ (Reply::Failed(_) | Reply::Pong(_) | Reply::Token(_) | Reply::Trace(_)) => {
                    Err(otherwise(other))
                }
            },
        }
    }
}

impl Ask<Pong> {
    /// Sends a full-size probe to a member and back.
    pub fn ping(node: NodeId) -> Self {
        Self {
            command: Command::Ping { node },
            answer: |reply| match reply {
                Reply::Pong(pong) => Ok(pong),
                other @ (Reply::Done | Reply::Failed(_) | Reply::Token(_) | Reply::Trace(_)) => {
                    Err(otherwise(other))
                }
            },
        }
    }
}

impl Ask<TokenText> {
    /// Makes a token.
    pub fn token(reusable: bool, ttl: Duration) -> Self {
        Self {
            command: Command::TokenCreate { reusable, ttl },
            answer: |reply| match reply {
                Reply::Token(text) => Ok(text),
                other @ (Reply::Done | Reply::Failed(_) | Reply::Pong(_) | Reply::Trace(_)) => {
                    Err(otherwise(other))
                }
            },
        }
    }
}

impl Ask<Vec<Hop>> {
    /// Follows a member's frames from relay to relay.
    pub fn trace(node: NodeId) -> Self {
        Self {
            command: Command::Trace { node },
            answer: |reply| match reply {
                Reply::Trace(hops) => Ok(hops),
                other @ (Reply::Done | Reply::Failed(_) | Reply::Pong(_) | Reply::Token(_)) => {
                    Err(otherwise(other))
                }
            },
        }
    }
}

impl<A> Ask<A> {
    /// What the core is asked, and what its reply means.
    pub(crate) fn split(self) -> (Command, Reading<A>) {
        (self.command, self.answer)
    }
}

impl<A: Send + 'static> Ask<A> {
    /// What the core is asked, who waits for its reply, and where the answer comes.
    pub(crate) fn begin(self) -> (Command, Waiter, oneshot::Receiver<Result<A, Problem>>) {
        let (command, answer) = self.split();
        let (sender, receiver) = oneshot::channel();
        let waiter = Waiter(Box::new(move |reply| {
            // The caller may have gone.
            let _ = sender.send(answer(reply));
        }));
        (command, waiter, receiver)
    }
}

/// Why there is no answer of the kind that was asked for.
fn otherwise(reply: Reply) -> Problem {
    match reply {
        Reply::Failed(problem) => problem,
        other @ (Reply::Done | Reply::Pong(_) | Reply::Token(_) | Reply::Trace(_)) => {
            Problem::new(Code::Internal, "the router answered another question")
                .why(format!("{other:?}"))
        }
    }
}

/// Somebody who waits for a reply, whatever kind they want.
pub struct Waiter(Box<dyn FnOnce(Reply) + Send>);

impl Waiter {
    /// Gives it to them.
    pub fn reply(self, reply: Reply) {
        (self.0)(reply);
    }
}

impl fmt::Debug for Waiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Waiter")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: NodeId = NodeId::new([1; 32]);

    async fn answer<A: Send + 'static>(ask: Ask<A>, reply: Reply) -> Result<A, Problem> {
        let (_, waiter, answer) = ask.begin();
        waiter.reply(reply);
        answer.await.unwrap()
    }

    #[tokio::test]
    async fn a_refusal_is_told_word_for_word() {
        let refusal = Problem::new(Code::NotJoined, "this node is in no mesh yet");

        let told = answer(Ask::ping(NODE), Reply::Failed(refusal.clone())).await;

        assert_eq!(told, Err(refusal));
    }

    #[tokio::test]
    async fn an_answer_to_another_question_is_a_fault_of_ours() {
        let told = answer(Ask::ping(NODE), Reply::Done).await;

        assert_eq!(told.map_err(|problem| problem.code), Err(Code::Internal));
    }

    #[tokio::test]
    async fn what_was_asked_for_comes() {
        assert_eq!(
            answer(Ask::order(Command::Leave), Reply::Done).await,
            Ok(())
        );
        assert_eq!(
            answer(Ask::trace(NODE), Reply::Trace(Vec::new())).await,
            Ok(Vec::new())
        );
    }
}
