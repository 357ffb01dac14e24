//! Writes IP addresses, networks and socket addresses into CBOR as byte strings.
//!
//! ```text
//!   network         address (4 or 16) ‖ prefix length (1)         5 or 17 bytes
//!   socket address  address (4 or 16) ‖ port (2, big-endian)      6 or 18 bytes
//!   address         address                                       4 or 16 bytes
//! ```
//!
//! For use as `#[cbor(with = "crate::wire::ip::net")]` and the like; lists of them by the `*_list` modules.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

/// The most that a list of any of these has.
pub const MAX_LIST: u64 = 64;

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(v4.into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

fn address_bytes(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

fn net_from(bytes: &[u8]) -> Option<IpNet> {
    let (prefix, bytes) = bytes.split_last()?;
    IpNet::new(address(bytes)?, *prefix).ok()
}

fn net_bytes(net: &IpNet) -> Vec<u8> {
    let mut bytes = address_bytes(net.addr());
    bytes.push(net.prefix_len());
    bytes
}

fn socket_from(bytes: &[u8]) -> Option<SocketAddr> {
    let (bytes, port) = bytes.split_last_chunk()?;
    Some(SocketAddr::new(address(bytes)?, u16::from_be_bytes(*port)))
}

fn socket_bytes(socket: &SocketAddr) -> Vec<u8> {
    let mut bytes = address_bytes(socket.ip());
    bytes.extend_from_slice(&socket.port().to_be_bytes());
    bytes
}

fn addr_from(bytes: &[u8]) -> Option<IpAddr> {
    address(bytes)
}

fn addr_bytes(address: &IpAddr) -> Vec<u8> {
    address_bytes(*address)
}

macro_rules! codec {
    ($(#[$doc:meta])* $one:ident, $(#[$list_doc:meta])* $list:ident, $type:ty, $read:ident, $write:ident, $no:literal) => {
        $(#[$doc])*
        pub mod $one {
            use minicbor::decode::Error;
    use minicbor::encode::{Error as WriteError, Write};
    use minicbor::{Decoder, Encoder};

            use super::*;

            /// Writes one.
            pub fn encode<C, W: Write>(
                value: &$type,
                e: &mut Encoder<W>,
                _: &mut C,
            ) -> Result<(), WriteError<W::Error>> {
                e.bytes(&$write(value))?.ok()
            }

            /// Reads one.
            pub fn decode<C>(d: &mut Decoder<'_>, _: &mut C) -> Result<$type, Error> {
                $read(d.bytes()?).ok_or_else(|| Error::message($no))
            }
        }

        $(#[$list_doc])*
        pub mod $list {
            use minicbor::decode::Error;
    use minicbor::encode::{Error as WriteError, Write};
    use minicbor::{Decoder, Encoder};

            use super::*;

            /// Writes a list.
            pub fn encode<C, W: Write>(
                values: &[$type],
                e: &mut Encoder<W>,
                ctx: &mut C,
            ) -> Result<(), WriteError<W::Error>> {
                e.array(values.len() as u64)?;
                values
                    .iter()
                    .try_for_each(|value| super::$one::encode(value, e, ctx))
            }

            /// Reads a list of at most [`MAX_LIST`](super::MAX_LIST).
            pub fn decode<C>(d: &mut Decoder<'_>, ctx: &mut C) -> Result<Vec<$type>, Error> {
                let len = d
                    .array()?
                    .filter(|&len| len <= MAX_LIST)
                    .ok_or_else(|| Error::message("a list of addresses is too long or of no length"))?;
                (0..len).map(|_| super::$one::decode(d, ctx)).collect()
            }
        }
    };
}

codec! {
    /// One network, or an address with the prefix length of its network.
    net,
    /// Networks.
    net_list, IpNet, net_from, net_bytes, "no IP network"
}

codec! {
    /// One socket address.
    socket,
    /// Socket addresses.
    socket_list, SocketAddr, socket_from, socket_bytes, "no socket address"
}

codec! {
    /// One address.
    addr,
    /// Addresses.
    addr_list, IpAddr, addr_from, addr_bytes, "no IP address"
}

#[cfg(test)]
mod tests {
    use minicbor::{Decode, Encode};

    use super::*;

    #[derive(Debug, PartialEq, Encode, Decode)]
    #[cbor(map)]
    struct All {
        #[cbor(n(0), with = "net_list")]
        nets: Vec<IpNet>,
        #[cbor(n(1), with = "socket_list")]
        sockets: Vec<SocketAddr>,
        #[cbor(n(2), with = "addr_list")]
        addresses: Vec<IpAddr>,
        #[cbor(n(3), with = "net")]
        net: IpNet,
    }

    #[test]
    fn what_is_written_is_read_back() {
        let all = All {
            nets: vec![
                "10.32.0.1/12".parse().unwrap(),
                "fd00::1/64".parse().unwrap(),
            ],
            sockets: vec![
                "192.0.2.1:6783".parse().unwrap(),
                "[2001:db8::1]:1".parse().unwrap(),
            ],
            addresses: vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()],
            net: "10.0.0.0/8".parse().unwrap(),
        };

        let bytes = crate::wire::encode(&all);

        assert_eq!(
            crate::wire::decode_whole::<All>(&bytes).expect("decodes"),
            all
        );
        for len in 0..bytes.len() {
            assert!(crate::wire::decode_whole::<All>(&bytes[..len]).is_err());
        }
    }

    #[test]
    fn a_prefix_longer_than_the_address_is_refused() {
        assert_eq!(net_from(&[10, 0, 0, 0, 33]), None);
        assert_eq!(net_from(&[10, 0, 0, 33]), None);
        assert_eq!(net_from(&[]), None);
        assert_eq!(socket_from(&[1]), None);
    }
}
