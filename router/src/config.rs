//! What a router is told before it starts, parsed and checked.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use weft_api::settings::Settings;
use weft_router_proto::io::Target;
use weft_router_proto::router::Intent;
use weft_types::Nickname;

/// Everything that [`crate::start`] needs to know. The token in it, if there is one, is wiped when dropped.
pub struct Config {
    /// What people call this node.
    pub nickname: Nickname,
    /// What to do where no mesh was saved.
    pub intent: Intent,
    /// What to dial, beside what is remembered.
    pub targets: Vec<Target>,
    /// The port of control TCP and sleeve UDP; 0 takes a free one.
    pub port: u16,
    /// Addresses to listen on; all of this host's if there are none.
    pub listen: Vec<IpAddr>,
    /// Addresses to be reached at, beside those of the host's interfaces.
    pub advertise: Vec<SocketAddr>,
    /// Where state is kept. Made if it is missing, and readable by nobody else.
    pub state_dir: PathBuf,
    /// The control API's Unix socket.
    pub socket: PathBuf,
    /// Where status and metrics are read by TCP; `None` for nowhere.
    pub status: Option<SocketAddr>,
    /// The release, for people.
    pub release: String,
    /// All of this as it was said, for whoever asks.
    pub settings: Settings,
}
