//! Turns what a person wrote into addresses to dial.
//!
//! The system's resolver (getaddrinfo) has no time limit and cannot be interrupted: with DNS servers that do not answer it
//! takes half a minute, and a broken plug-in of it may never return. So each look-up has a thread of its own that nothing
//! waits for: not the hub, and not the end of the process. A name that is asked for again meanwhile waits for the same
//! look-up, so there is one thread at most for each name that a person gave.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
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

type Found = Option<Vec<SocketAddr>>;
type UnderWay = Arc<Mutex<BTreeMap<(String, u16), watch::Receiver<Found>>>>;

/// Looks targets up.
#[derive(Clone)]
pub(crate) struct Resolver {
    limit: Duration,
    system: fn(&str, u16) -> Vec<SocketAddr>,
    under_way: UnderWay,
}

impl Resolver {
    /// Asks the system.
    pub(crate) fn new() -> Self {
        Self::asking(LIMIT, ask_the_system)
    }

    fn asking(limit: Duration, system: fn(&str, u16) -> Vec<SocketAddr>) -> Self {
        Self {
            limit,
            system,
            under_way: UnderWay::default(),
        }
    }

    /// Looks a target up: a literal address at once, a name by the system's resolver. Empty if it has no address, or
    /// nobody said in time.
    pub(crate) async fn resolve(&self, target: &Target) -> Vec<SocketAddr> {
        match parse(&target.0) {
            Some(Parsed::Literal(address)) => vec![address],
            Some(Parsed::Name(name, port)) => self.ask(name, port).await,
            None => Vec::new(),
        }
    }

    async fn ask(&self, name: &str, port: u16) -> Vec<SocketAddr> {
        let mut found = self.look_up(name, port);
        let said = tokio::time::timeout(self.limit, found.wait_for(Option::is_some));
        match said.await {
            Ok(Ok(found)) => found.clone().unwrap_or_default(),
            Ok(Err(_)) | Err(_) => Vec::new(),
        }
    }

    /// Joins the look-up that is under way, or begins one.
    fn look_up(&self, name: &str, port: u16) -> watch::Receiver<Found> {
        let mut under_way = locked(&self.under_way);
        let key = (name.to_owned(), port);
        if let Some(found) = under_way.get(&key) {
            return found.clone();
        }
        let (tell, found) = watch::channel(None);
        under_way.insert(key.clone(), found.clone());
        let (system, all) = (self.system, Arc::clone(&self.under_way));
        let asked = key.clone();
        let thread = move || {
            let addresses = system(&asked.0, asked.1);
            locked(&all).remove(&asked);
            tell.send_replace(Some(addresses));
        };
        let begun = std::thread::Builder::new()
            .name("weft-resolve".to_owned())
            .spawn(thread);
        if begun.is_err() {
            // The sender went with the thread that there is not: whoever waits finds nothing.
            under_way.remove(&key);
        }
        found
    }
}

/// Nothing that holds the lock can panic halfway, so a poisoned one is whole.
fn locked<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
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
        && !name.starts_with('-')
        && name.chars().all(plain)
        // Only digits and dots is a mistyped address: the system would look for it for seconds.
        && name.chars().any(|c| c.is_ascii_alphabetic());
    legal.then_some(Parsed::Name(name, port))
}

/// No address and no answer are one thing to a dialler: it tries again.
fn ask_the_system(name: &str, port: u16) -> Vec<SocketAddr> {
    let found = (name, port).to_socket_addrs();
    found.map_or_else(|_| Vec::new(), Iterator::collect)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Instant;

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
            "-x",
            "192.0.2.1:0",
            "http://a",
        ] {
            assert!(!is_target(text), "{text}");
        }
    }

    const NAME: &str = "a.example";

    fn name() -> Target {
        Target(NAME.to_owned())
    }

    #[tokio::test]
    async fn a_literal_needs_nobody() {
        let resolver = Resolver::asking(LIMIT, |_, _| panic!("asked"));

        let found = resolver.resolve(&Target("192.0.2.7".into())).await;

        assert_eq!(found, ["192.0.2.7:6783".parse().unwrap()]);
        assert_eq!(resolver.resolve(&Target("a b".into())).await, []);
    }

    #[tokio::test]
    async fn a_name_is_looked_up_by_the_system() {
        let found = Resolver::new()
            .resolve(&Target("localhost:7000".into()))
            .await;

        assert!(!found.is_empty());
        assert!(
            found
                .iter()
                .all(|at| at.ip().is_loopback() && at.port() == 7000)
        );
    }

    #[test]
    fn a_resolver_that_never_answers_holds_up_nobody() {
        static ASKED: AtomicUsize = AtomicUsize::new(0);
        let resolver = Resolver::asking(Duration::from_millis(20), |_, _| {
            ASKED.fetch_add(1, Ordering::Relaxed);
            loop {
                std::thread::park();
            }
        });
        let begun = Instant::now();

        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .unwrap();
        for _ in 0..10 {
            assert_eq!(runtime.block_on(resolver.resolve(&name())), []);
        }
        // A daemon that ends waits for what its runtime has begun.
        drop(runtime);

        assert!(begun.elapsed() < Duration::from_secs(10));
        assert_eq!(ASKED.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn an_answer_that_comes_late_is_there_for_who_asks_again() {
        static GATE: Mutex<()> = Mutex::new(());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let shut = GATE.lock().unwrap();
        let resolver = Resolver::asking(Duration::from_millis(20), |_, port| {
            drop(GATE.lock().unwrap());
            vec![SocketAddr::from(([192, 0, 2, 7], port))]
        });
        assert_eq!(runtime.block_on(resolver.resolve(&name())), []);
        let mut again = resolver.look_up(NAME, DEFAULT_PORT);

        drop(shut);
        let found = runtime.block_on(again.wait_for(Option::is_some));

        let address = "192.0.2.7:6783".parse().unwrap();
        assert_eq!(*found.unwrap(), Some(vec![address]));
    }
}
