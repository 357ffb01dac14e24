//! Turns what a person wrote into addresses to dial.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use weft_router_proto::io::Target;

/// The port of a router that was not given another.
pub const DEFAULT_PORT: u16 = 6783;

/// Half of what a dial gets: a resolver that has not answered by then is asked again with the next attempt.
const LIMIT: Duration = Duration::from_secs(3);

/// A target as its two parts. The port is [`DEFAULT_PORT`] unless one was written.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Parsed<'a> {
    Literal(SocketAddr),
    Name(&'a str, u16),
}

/// Looks a target up: a literal address at once, a name by the system's resolver. Empty if it has no address, or
/// nobody said in time.
pub(crate) async fn resolve(target: &Target) -> Vec<SocketAddr> {
    match parse(&target.0) {
        Some(Parsed::Literal(address)) => vec![address],
        Some(Parsed::Name(name, port)) => {
            let lookup = tokio::net::lookup_host((name, port));
            match tokio::time::timeout(LIMIT, lookup).await {
                Ok(Ok(found)) => found.collect(),
                Ok(Err(_)) | Err(_) => Vec::new(),
            }
        }
        None => Vec::new(),
    }
}

/// Whether a text can be a target: `host`, `host:port`, `[v6]:port`, or an IPv6 address alone.
pub fn is_target(text: &str) -> bool {
    parse(text).is_some()
}

fn parse(text: &str) -> Option<Parsed<'_>> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return (address.port() != 0).then_some(Parsed::Literal(address));
    }
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(text);
    if let Ok(address) = bare.parse::<IpAddr>() {
        return Some(Parsed::Literal(SocketAddr::new(address, DEFAULT_PORT)));
    }
    let (name, port) = match text.rsplit_once(':') {
        Some((name, port)) => (name, port.parse().ok().filter(|&port| port != 0)?),
        None => (text, DEFAULT_PORT),
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let legal = !name.is_empty()
        && name.len() <= 253
        && name.chars().all(plain)
        // Only digits and dots is a mistyped address: the system would look for it for seconds.
        && name.chars().any(|c| c.is_ascii_alphabetic());
    legal.then_some(Parsed::Name(name, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_target_is_read() {
        let literal = |text: &str| Some(Parsed::Literal(text.parse().unwrap()));

        assert_eq!(parse("192.0.2.7"), literal("192.0.2.7:6783"));
        assert_eq!(parse("192.0.2.7:7000"), literal("192.0.2.7:7000"));
        assert_eq!(parse("2001:db8::7"), literal("[2001:db8::7]:6783"));
        assert_eq!(parse("[2001:db8::7]"), literal("[2001:db8::7]:6783"));
        assert_eq!(parse("[2001:db8::7]:7000"), literal("[2001:db8::7]:7000"));
        assert_eq!(parse("a.example"), Some(Parsed::Name("a.example", 6783)));
        assert_eq!(parse("a:7000"), Some(Parsed::Name("a", 7000)));
    }

    #[test]
    fn what_is_no_target_is_refused() {
        for text in [
            "",
            ":",
            "a:",
            "a:0",
            "a:65536",
            ":7000",
            "a b",
            "192.0.2.256",
            "192.0.2",
            "[::1",
            "a/b",
            "192.0.2.1:0",
            "http://a",
        ] {
            assert!(!is_target(text), "{text}");
        }
    }

    #[tokio::test]
    async fn a_literal_needs_nobody() {
        let found = resolve(&Target("192.0.2.7".into())).await;

        assert_eq!(found, ["192.0.2.7:6783".parse().unwrap()]);
        assert_eq!(resolve(&Target("a b".into())).await, []);
    }
}
