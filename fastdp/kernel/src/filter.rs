//! Finds out whether this host's packet filter drops what bridges pass on.
//!
//! Where bridged packets are handed to the filter (`br_netfilter`), those from one port of a bridge to another go through
//! the chains of the `forward` hook. A base chain there whose policy is to drop, as Docker sets it, stops all of them that
//! no rule accepts. A rule that names the bridge is taken for the operator's word on it, whatever it says.
//!
//! Only read, and only where bridged packets are handed over: asking for chains makes the kernel load `nf_tables`. Chains
//! of the older `iptables-legacy` are not seen. No message of netfilter is longer than a page, so one buffer takes each.

use std::fs;
use std::io;

use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

/// How the kernel calls the chains that are asked for (nfnetlink.h, nf_tables.h).
mod nft {
    pub(super) const GET_CHAIN: u16 = 10 << 8 | 4;
    pub(super) const GET_RULE: u16 = 10 << 8 | 7;
    pub(super) const CHAIN_TABLE: u16 = 1;
    pub(super) const CHAIN_NAME: u16 = 3;
    pub(super) const CHAIN_HOOK: u16 = 4;
    pub(super) const CHAIN_POLICY: u16 = 5;
    pub(super) const CHAIN_TYPE: u16 = 7;
    pub(super) const HOOK_NUMBER: u16 = 1;
    pub(super) const RULE_TABLE: u16 = 1;
    pub(super) const RULE_CHAIN: u16 = 2;
    pub(super) const RULE_EXPRESSIONS: u16 = 4;
    pub(super) const FORWARD: u32 = 2;
    pub(super) const DROP: u32 = 0;
}

/// Families of tables whose `forward` hook sees bridged packets, and the switch that hands those over.
const FAMILIES: [(u8, &[&str]); 3] = [
    (1, &["bridge-nf-call-iptables", "bridge-nf-call-ip6tables"]), // inet
    (2, &["bridge-nf-call-iptables"]),
    (10, &["bridge-nf-call-ip6tables"]),
];

/// A length, a type, flags, a number and a port: netlink(7).
const HEADER: usize = 16;
/// Family, version, resource: nfnetlink.h.
const GENERIC: usize = 4;
const REQUEST: u16 = 0x1;
const DUMP: u16 = 0x300;
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// More than the kernel puts into one answer.
const BUFFER: usize = 64 << 10;

/// A chain that drops what it does not accept.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DroppingChain {
    /// The family of its table, as `nft` calls it.
    pub family: &'static str,
    /// Its table.
    pub table: String,
    /// Its name.
    pub name: String,
}

/// Finds the chains that drop what a bridge passes on, unless a rule of theirs names the bridge.
///
/// In the calling thread's network namespace. Nothing is found where there is no such filter, or it may not be read.
pub fn dropping(bridge: &str) -> io::Result<Vec<DroppingChain>> {
    let mut found = Vec::new();
    for (family, switches) in FAMILIES {
        if !switches.iter().any(|switch| is_handed_over(switch)) {
            continue;
        }
        let chains = dump(family, nft::GET_CHAIN)?;
        let chains: Vec<_> = chains
            .iter()
            .filter_map(|it| of_chain(family, it))
            .collect();
        if chains.is_empty() {
            continue;
        }
        let rules = dump(family, nft::GET_RULE)?;
        let named = |chain: &DroppingChain| rules.iter().any(|rule| names(rule, chain, bridge));
        found.extend(chains.into_iter().filter(|chain| !named(chain)));
    }
    Ok(found)
}

fn is_handed_over(switch: &str) -> bool {
    let text = fs::read_to_string(format!("/proc/sys/net/bridge/{switch}"));
    text.is_ok_and(|text| text.trim() == "1")
}

/// A base chain of the filter at the hook, if it drops what it does not accept.
fn of_chain(family: u8, message: &[u8]) -> Option<DroppingChain> {
    let hook = attribute(message, nft::CHAIN_HOOK)?;
    let forwards = number(attribute(hook, nft::HOOK_NUMBER)?)? == nft::FORWARD;
    let drops = number(attribute(message, nft::CHAIN_POLICY)?)? == nft::DROP;
    let filters = text(attribute(message, nft::CHAIN_TYPE)?) == "filter";
    (forwards && drops && filters).then_some(DroppingChain {
        family: match family {
            1 => "inet",
            2 => "ip",
            _ => "ip6",
        },
        table: text(attribute(message, nft::CHAIN_TABLE)?),
        name: text(attribute(message, nft::CHAIN_NAME)?),
    })
}

/// Whether a rule of the chain has the name of the device in it.
fn names(rule: &[u8], chain: &DroppingChain, device: &str) -> bool {
    let is = |kind, wanted: &str| attribute(rule, kind).is_some_and(|it| text(it) == wanted);
    let name = [device.as_bytes(), &[0]].concat();
    is(nft::RULE_TABLE, &chain.table)
        && is(nft::RULE_CHAIN, &chain.name)
        && attribute(rule, nft::RULE_EXPRESSIONS)
            .is_some_and(|all| all.windows(name.len()).any(|bytes| bytes == name))
}

/// Asks for everything of a kind; gives the attributes of each.
fn dump(family: u8, kind: u16) -> io::Result<Vec<Vec<u8>>> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    let mut request = Vec::with_capacity(HEADER + GENERIC);
    request.extend(20_u32.to_ne_bytes());
    request.extend(kind.to_ne_bytes());
    request.extend((REQUEST | DUMP).to_ne_bytes());
    request.extend([0; 8]);
    request.extend([family, 0, 0, 0]);
    socket.send_to(&request, &SocketAddr::new(0, 0), 0)?;
    let mut found = Vec::new();
    let mut buffer = Vec::with_capacity(BUFFER);
    loop {
        buffer.clear();
        // A dump is made while it is read, so this waits for nothing.
        let length = socket.recv(&mut buffer, libc::MSG_DONTWAIT)?;
        if !take_in(&buffer[..length], &mut found)? {
            return Ok(found);
        }
    }
}

/// Takes in what one answer holds; false after the last.
fn take_in(mut answer: &[u8], found: &mut Vec<Vec<u8>>) -> io::Result<bool> {
    while let Some(header) = answer.first_chunk::<HEADER>() {
        let [a, b, c, d, e, f, ..] = *header;
        let length = u32::from_ne_bytes([a, b, c, d]) as usize;
        let Some(message) = answer.get(HEADER..length) else {
            return Ok(false);
        };
        match u16::from_ne_bytes([e, f]) {
            DONE => return Ok(false),
            ERROR => {
                let code = message.first_chunk().copied().map_or(0, i32::from_ne_bytes);
                return match -code {
                    // No such filter in this kernel.
                    0 | libc::EOPNOTSUPP | libc::EINVAL | libc::ENOENT | libc::EAFNOSUPPORT => {
                        Ok(false)
                    }
                    error => Err(io::Error::from_raw_os_error(error)),
                };
            }
            _ => found.extend(message.get(GENERIC..).map(<[u8]>::to_vec)),
        }
        answer = answer.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(true)
}

/// One of the attributes of a message.
fn attribute(mut all: &[u8], wanted: u16) -> Option<&[u8]> {
    // The upper two bits say how it is written.
    const KIND: u16 = 0x3fff;
    while let Some(&[a, b, c, d]) = all.first_chunk() {
        let length = usize::from(u16::from_ne_bytes([a, b]));
        let value = all.get(4..length)?;
        if u16::from_ne_bytes([c, d]) & KIND == wanted {
            return Some(value);
        }
        all = all.get(length.next_multiple_of(4)..)?;
    }
    None
}

fn number(value: &[u8]) -> Option<u32> {
    value.first_chunk().copied().map(u32::from_be_bytes)
}

fn text(value: &[u8]) -> String {
    let text = value.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One attribute, padded.
    fn put(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(value.len() + 4).unwrap();
        let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn chain(hook: u32, policy: u32) -> Vec<u8> {
        [
            put(nft::CHAIN_TABLE, b"filter\0"),
            put(nft::CHAIN_NAME, b"FORWARD\0"),
            put(
                nft::CHAIN_HOOK | 0x8000,
                &put(nft::HOOK_NUMBER, &hook.to_be_bytes()),
            ),
            put(nft::CHAIN_POLICY, &policy.to_be_bytes()),
            put(nft::CHAIN_TYPE, b"filter\0"),
        ]
        .concat()
    }

    #[test]
    fn a_chain_that_drops_what_is_forwarded_is_found_and_no_other() {
        let found = of_chain(2, &chain(nft::FORWARD, nft::DROP)).unwrap();

        assert_eq!(
            (found.family, &*found.table, &*found.name),
            ("ip", "filter", "FORWARD")
        );
        assert_eq!(of_chain(2, &chain(nft::FORWARD, 1)), None);
        assert_eq!(of_chain(2, &chain(1, nft::DROP)), None);
        // One that hangs at no hook has no policy.
        assert_eq!(of_chain(2, &put(nft::CHAIN_NAME, b"DOCKER\0")), None);
    }

    #[test]
    fn what_is_cut_short_is_passed_over() {
        let whole = chain(nft::FORWARD, nft::DROP);

        for end in 0..whole.len() {
            let _ = of_chain(2, &whole[..end]);
            let _ = take_in(&whole[..end], &mut Vec::new());
        }
    }
}
