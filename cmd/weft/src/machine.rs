//! Looks over this machine before a router is started on it: everything that is wrong here is found before anybody else
//! is spoken to, so a token is still good after it.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::Path;

use weft_router::persist::{self, Store};
use weft_router::private;
use weft_router::private::io_problem;
use weft_router_proto::store::Table;
use weft_types::{Code, Problem};

use crate::config::Config;
use crate::state_dir;

/// What is written to see whether there is room: more than the log and the key need at first.
const PROBE: usize = 256 << 10;

/// Finds what a router cannot do without.
pub(crate) fn check(config: &Config) -> Result<(), Problem> {
    weft_fastdp::check::machine()?;
    check_state_dir(&config.state_dir)?;
    check_port(config.listen, config.port)
}

fn check_state_dir(directory: &Path) -> Result<(), Problem> {
    state_dir::prepare(directory)?;
    let path = directory.join(state_dir::PROBE);
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    let written = private::open(&path, &mut options).and_then(|mut file| {
        file.write_all(&vec![0; PROBE])?;
        file.sync_all()
    });
    let _ = fs::remove_file(&path);
    written.map_err(|error| io_problem(directory, &error))
}

fn check_port(listen: Option<IpAddr>, port: u16) -> Result<(), Problem> {
    let everywhere = [
        IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    ];
    let addresses = match &listen {
        Some(address) => std::slice::from_ref(address),
        None => &everywhere,
    };
    for address in addresses {
        let at = SocketAddr::new(*address, port);
        for (protocol, error) in refusals(at) {
            if error.kind() == ErrorKind::AddrInUse {
                return Err(in_use(protocol, at, &error));
            }
            if error.kind() == ErrorKind::AddrNotAvailable && listen.is_some() {
                return Err(foreign(at.ip(), &error));
            }
            // A host without IPv6, for one: the router opens what there is, and says what it cannot.
        }
    }
    Ok(())
}

/// Tries a port in both protocols: what the system says against it.
fn refusals(at: SocketAddr) -> impl Iterator<Item = (&'static str, io::Error)> {
    let tcp = TcpListener::bind(at).err().map(|error| ("tcp", error));
    let udp = UdpSocket::bind(at).err().map(|error| ("udp", error));
    tcp.into_iter().chain(udp)
}

fn in_use(protocol: &str, at: SocketAddr, error: &io::Error) -> Problem {
    let port = at.port();
    let fix = format!("See by whom: ss -lntup 'sport = :{port}'. Choose another with --port");
    Problem::new(Code::PortInUse, format!("port {protocol}/{port} is in use"))
        .why(format!("{at}: {error}"))
        .fix(fix)
}

fn foreign(address: IpAddr, error: &io::Error) -> Problem {
    let what = format!("{address} is no address of this host");
    Problem::new(Code::Configuration, what)
        .why(error.to_string())
        .fix("Choose another with --listen")
}

/// Whether a mesh was saved here. Fails where another router has the state.
pub(crate) fn has_mesh(state_dir: &Path) -> Result<bool, Problem> {
    if !state_dir.join(persist::FILE).exists() {
        return Ok(false);
    }
    let (_store, saved) = Store::open(state_dir)?;
    Ok(saved.table(Table::Membership).next().is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_another_has_is_named() {
        let held = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = held.local_addr().unwrap().port();

        let problem = check_port(Some(Ipv4Addr::LOCALHOST.into()), port).unwrap_err();

        assert_eq!(problem.code, Code::PortInUse);
        assert!(problem.what.contains("tcp"), "{problem}");
    }

    #[test]
    fn an_address_of_another_host_is_a_matter_of_configuration() {
        let problem = check_port(Some("192.0.2.1".parse().unwrap()), 6783).unwrap_err();

        assert_eq!(problem.code, Code::Configuration);
    }

    #[test]
    fn a_state_directory_that_cannot_be_made_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        fs::write(&file, "").unwrap();

        let problem = check_state_dir(&file.join("state")).unwrap_err();

        assert_eq!(problem.code, Code::StateDirectory);
    }
}
