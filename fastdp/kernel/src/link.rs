//! Makes, changes, reads and removes network devices.
//!
//! **Invariant.** A change names its device by [`LinkIndex`], which the kernel never reuses for another device of the
//! namespace while the connection could confuse the two: indices count upwards.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the kernel's vocabulary is open: what is not named here is not ours"
)]

use std::mem::discriminant;
use std::net::IpAddr;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use futures_util::future::try_join_all;
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{
    AfSpecInet6, AfSpecUnspec, BridgeStpState, In6AddrGenMode, InfoBridge, InfoData, InfoGeneve,
    InfoGre, InfoIpTunnel, InfoKind, InfoVeth, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo,
    LinkMessage,
};
use weft_types::{MacAddr, PortFlags};

use crate::bridge_port;
use crate::netlink::{LinkIndex, Netlink, NetlinkError, Request, at};

/// Multicast groups that a bridge keeps apart; with more it gives up snooping for good. A thousand ports with as many each as
/// containers are let join.
const MAX_GROUPS: u32 = 1 << 16;

/// What sort of network device it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkKind {
    /// A software bridge.
    Bridge,
    /// The loopback device.
    Loopback,
    /// Any other software device, by the kernel's word for it.
    Other(String),
    /// A network card, or whatever poses as one.
    Physical,
    /// A TUN or TAP device.
    Tun,
    /// One end of a virtual Ethernet pair.
    Veth,
}

/// A network device as the kernel describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its number.
    pub index: LinkIndex,
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: LinkKind,
    /// Its Ethernet address; `None` where it has none.
    pub mac: Option<MacAddr>,
    /// The largest IP packet it takes.
    pub mtu: u32,
    /// Whether an operator has switched it on.
    pub up: bool,
    /// The bridge (or bond) it is a port of.
    pub controller: Option<LinkIndex>,
    /// How it behaves as the port of a bridge; `None` where it is none.
    pub port: Option<PortFlags>,
    /// As the port of a bridge, how many multicast groups it may join, 0 for as many as it likes; `None` where it is none,
    /// or the kernel knows no limit.
    pub max_groups: Option<u32>,
    /// Of a bridge, whether it has the settings that [`Netlink::create_bridge`] gives, as far as the kernel knows them.
    pub as_made: bool,
    /// The note it carries.
    pub alias: Option<String>,
    /// What its packets leave by, if that is known.
    pub under: Under,
}

/// What lies under a device: the packets that it sends are packed into others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Under {
    /// The device of this namespace that it stands on, as a VLAN does.
    pub link: Option<LinkIndex>,
    /// The addresses of a tunnel's ends, as far as it was given any.
    pub ends: Vec<IpAddr>,
}

/// What to change about a device; what is `None` stays.
#[derive(Clone, Debug, Default)]
pub struct LinkChange {
    /// Its Ethernet address.
    pub mac: Option<MacAddr>,
    /// The largest IP packet it takes.
    pub mtu: Option<u32>,
    /// Its name; the device must be down.
    pub name: Option<String>,
    /// Whether it is switched on.
    pub up: Option<bool>,
    /// The bridge it becomes a port of.
    pub controller: Option<LinkIndex>,
    /// A note for people, and for whoever asks later who made the device.
    pub alias: Option<String>,
}

/// How to make a bridge.
#[derive(Clone, Debug)]
pub struct BridgeOptions {
    /// Its name.
    pub name: String,
    /// Its Ethernet address. The kernel draws one where none is given, which then changes with the bridge's ports until
    /// one is set.
    pub mac: Option<MacAddr>,
    /// A note for people, and for whoever asks later who made the device.
    pub alias: String,
    /// The largest IP packet it takes.
    pub mtu: u32,
}

/// One end of a virtual Ethernet pair that is to be made.
#[derive(Clone, Debug)]
pub struct VethEnd<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its Ethernet address; the kernel draws one where none is given.
    pub mac: Option<MacAddr>,
    /// The largest IP packet it takes.
    pub mtu: u32,
    /// Where it is born; the namespace of the connection where none is given.
    pub netns: Option<BorrowedFd<'a>>,
}

impl Netlink {
    /// Reads every device of the namespace.
    pub async fn links(&self) -> Result<Vec<Link>, NetlinkError> {
        let answers = self
            .dump(RouteNetlinkMessage::GetLink(LinkMessage::default()))
            .await?;
        Ok(answers.into_iter().filter_map(of_answer).collect())
    }

    /// Finds a device by name.
    pub async fn link(&self, name: &str) -> Result<Option<Link>, NetlinkError> {
        let mut message = LinkMessage::default();
        message.attributes = vec![LinkAttribute::IfName(name.to_owned())];
        self.find_link(message).await
    }

    /// Returns the number of a device that is there; [`NetlinkError::NoDevice`] where it is not.
    pub async fn index_of(&self, name: &str) -> Result<LinkIndex, NetlinkError> {
        let link = self.link(name).await?.ok_or(NetlinkError::NoDevice)?;
        Ok(link.index)
    }

    /// Finds a device by number.
    pub async fn link_at(&self, index: LinkIndex) -> Result<Option<Link>, NetlinkError> {
        self.find_link(at(index)).await
    }

    async fn find_link(&self, message: LinkMessage) -> Result<Option<Link>, NetlinkError> {
        match self.get(RouteNetlinkMessage::GetLink(message)).await {
            Ok(answer) => Ok(answer.and_then(of_answer)),
            Err(error) if error.is_absent() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Finds devices by number, asking for all of them at once.
    pub async fn links_at(
        &self,
        indices: impl IntoIterator<Item = LinkIndex>,
    ) -> Result<Vec<(LinkIndex, Option<Link>)>, NetlinkError> {
        let find = |index| async move { Ok((index, self.link_at(index).await?)) };
        try_join_all(indices.into_iter().map(find)).await
    }

    /// Makes a bridge, switched off: no spanning tree, no forwarding delay, multicast snooping on and with room
    /// for `MAX_GROUPS`, no VLAN of its own.
    pub async fn create_bridge(&self, options: &BridgeOptions) -> Result<(), NetlinkError> {
        let mut message = LinkMessage::default();
        message.attributes = vec![
            LinkAttribute::IfName(options.name.clone()),
            LinkAttribute::LinkInfo(bridge_info(bridge_settings().into())),
        ];
        if let Some(mac) = options.mac {
            let mac = mac.as_bytes().to_vec();
            message.attributes.push(LinkAttribute::Address(mac));
        }
        let message = RouteNetlinkMessage::NewLink(message);
        self.change(Request::new(message, NLM_F_CREATE | NLM_F_EXCL))
            .await?;
        let made = self.index_of(&options.name).await?;
        // Changed afterwards, not given at birth: only then the bridge keeps it when ports come and go.
        let change = LinkChange {
            mtu: Some(options.mtu),
            alias: Some(options.alias.clone()),
            ..LinkChange::default()
        };
        self.change(Request::change_link(made, &change)).await
    }

    /// Gives an existing bridge the settings that [`Self::create_bridge`] gives a new one.
    pub async fn reset_bridge(&self, index: LinkIndex) -> Result<(), NetlinkError> {
        for request in Request::reset_bridge(index) {
            self.change(request).await?;
        }
        Ok(())
    }

    /// Makes a virtual Ethernet pair, both ends switched off. Nothing is left of it when that fails.
    pub async fn create_veth(
        &self,
        one: &VethEnd<'_>,
        other: &VethEnd<'_>,
    ) -> Result<(), NetlinkError> {
        let mut message = veth_end(one);
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(veth_end(other)))),
        ]));
        let message = RouteNetlinkMessage::NewLink(message);
        self.change(Request::new(message, NLM_F_CREATE | NLM_F_EXCL))
            .await
    }

    /// Keeps a device from making itself a link-local IPv6 address, as [`Request::without_link_local`] does. Where there is
    /// no IPv6 it makes none.
    pub async fn without_link_local(&self, index: LinkIndex) -> Result<(), NetlinkError> {
        match self.change(Request::without_link_local(index)).await {
            Err(NetlinkError::Unsupported) => Ok(()),
            done => done,
        }
    }
}

impl Request {
    /// Gives a bridge the settings that [`Netlink::create_bridge`] gives, spanning tree first: while that is on, the kernel
    /// refuses the delay that goes without.
    pub fn reset_bridge(index: LinkIndex) -> [Self; 2] {
        let plain = InfoBridge::StpState(BridgeStpState::Disabled);
        [vec![plain], bridge_settings().into()].map(|settings| {
            let mut message = at(index);
            message.attributes = vec![LinkAttribute::LinkInfo(bridge_info(settings))];
            Self::new(RouteNetlinkMessage::NewLink(message), 0)
        })
    }

    /// Changes a device.
    pub fn change_link(index: LinkIndex, change: &LinkChange) -> Self {
        let mut message = at(index);
        let mac = change
            .mac
            .map(|mac| LinkAttribute::Address(mac.as_bytes().to_vec()));
        let mtu = change.mtu.map(LinkAttribute::Mtu);
        let name = change.name.clone().map(LinkAttribute::IfName);
        let controller = change
            .controller
            .map(|bridge| LinkAttribute::Controller(bridge.get()));
        let alias = change.alias.clone().map(LinkAttribute::IfAlias);
        message.attributes = [mac, mtu, name, controller, alias]
            .into_iter()
            .flatten()
            .collect();
        if let Some(up) = change.up {
            message.header.change_mask = LinkFlags::Up;
            message.header.flags = if up {
                LinkFlags::Up
            } else {
                LinkFlags::empty()
            };
        }
        Self::new(RouteNetlinkMessage::NewLink(message), 0)
    }

    /// Removes a device, of a virtual Ethernet pair both ends.
    pub fn delete_link(index: LinkIndex) -> Self {
        Self::new(RouteNetlinkMessage::DelLink(at(index)), 0)
    }

    /// Keeps a device from making itself a link-local IPv6 address: a bridge's port needs none, and would talk. Refused as
    /// [`NetlinkError::Unsupported`] where there is no IPv6.
    pub fn without_link_local(index: LinkIndex) -> Self {
        let mut message = at(index);
        message.attributes = vec![LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(
            vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)],
        )])];
        Self::new(RouteNetlinkMessage::NewLink(message), 0)
    }
}

fn bridge_info(settings: Vec<InfoBridge>) -> Vec<LinkInfo> {
    vec![
        LinkInfo::Kind(InfoKind::Bridge),
        LinkInfo::Data(InfoData::Bridge(settings)),
    ]
}

fn bridge_settings() -> [InfoBridge; 5] {
    [
        InfoBridge::StpState(BridgeStpState::Disabled),
        InfoBridge::ForwardDelay(0),
        InfoBridge::MulticastSnooping(true),
        InfoBridge::MulticastHashMax(MAX_GROUPS),
        // Otherwise the kernel keeps every static entry twice, once for VLAN 1.
        InfoBridge::VlanDefaultPvid(0),
    ]
}

/// Whether no setting is another than wanted. What the kernel does not know it does not tell.
fn is_as_made(settings: &[InfoBridge]) -> bool {
    bridge_settings().iter().all(|wanted| {
        let same = |it: &&InfoBridge| discriminant(*it) == discriminant(wanted);
        settings.iter().find(same).is_none_or(|it| it == wanted)
    })
}

fn veth_end(end: &VethEnd<'_>) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes = vec![
        LinkAttribute::IfName(end.name.to_owned()),
        LinkAttribute::Mtu(end.mtu),
    ];
    if let Some(mac) = end.mac {
        let mac = mac.as_bytes().to_vec();
        message.attributes.push(LinkAttribute::Address(mac));
    }
    if let Some(netns) = end.netns {
        let netns = LinkAttribute::NetNsFd(netns.as_raw_fd());
        message.attributes.push(netns);
    }
    message
}

fn of_answer(answer: RouteNetlinkMessage) -> Option<Link> {
    let RouteNetlinkMessage::NewLink(message) = answer else {
        return None;
    };
    Some(of_message(message))
}

fn of_message(message: LinkMessage) -> Link {
    let loopback = message.header.flags.contains(LinkFlags::Loopback);
    let mut link = Link {
        index: LinkIndex::new(message.header.index),
        name: String::new(),
        kind: if loopback {
            LinkKind::Loopback
        } else {
            LinkKind::Physical
        },
        mac: None,
        mtu: 0,
        up: message.header.flags.contains(LinkFlags::Up),
        controller: None,
        port: None,
        max_groups: None,
        as_made: true,
        alias: None,
        under: Under::default(),
    };
    let mut elsewhere = false;
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Address(bytes) => {
                link.mac = <[u8; 6]>::try_from(bytes).ok().map(MacAddr::new);
            }
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::IfAlias(alias) => link.alias = Some(alias),
            LinkAttribute::Link(index) => link.under.link = Some(LinkIndex::new(index)),
            LinkAttribute::LinkNetNsId(_) => elsewhere = true,
            LinkAttribute::Controller(index) => link.controller = Some(LinkIndex::new(index)),
            LinkAttribute::LinkInfo(infos) => {
                infos
                    .into_iter()
                    .for_each(|info| take_info(&mut link, info));
            }
            _ => {}
        }
    }
    // Of a pair the kernel names the other end, which is beside it and not under it; a number of another namespace says
    // nothing here.
    if elsewhere || link.kind == LinkKind::Veth {
        link.under.link = None;
    }
    link
}

fn take_info(link: &mut Link, info: LinkInfo) {
    match info {
        LinkInfo::Kind(kind) => link.kind = kind_of(kind),
        LinkInfo::Data(InfoData::Bridge(settings)) => link.as_made = is_as_made(&settings),
        LinkInfo::PortData(data) => {
            link.port = bridge_port::flags_of(&data);
            link.max_groups = bridge_port::max_groups_of(&data);
        }
        LinkInfo::Data(data) => take_tunnel(&mut link.under, data),
        _ => {}
    }
}

fn take_tunnel(under: &mut Under, data: InfoData) {
    let ends = &mut under.ends;
    match data {
        InfoData::Vxlan(infos) => {
            for info in infos {
                match info {
                    InfoVxlan::Group(ip) | InfoVxlan::Local(ip) => ends.push(ip.into()),
                    InfoVxlan::Group6(ip) | InfoVxlan::Local6(ip) => ends.push(ip.into()),
                    InfoVxlan::Link(index) => under.link = Some(LinkIndex::new(index)),
                    _ => {}
                }
            }
        }
        InfoData::Geneve(infos) => ends.extend(infos.into_iter().filter_map(|info| match info {
            InfoGeneve::Remote(ip) => Some(IpAddr::from(ip)),
            InfoGeneve::Remote6(ip) => Some(IpAddr::from(ip)),
            _ => None,
        })),
        InfoData::GreTap(infos) | InfoData::GreTun(infos) => {
            ends.extend(infos.into_iter().filter_map(|info| match info {
                InfoGre::Local(ip) | InfoGre::Remote(ip) => Some(IpAddr::from(ip)),
                _ => None,
            }));
        }
        InfoData::IpTunnel(infos) => ends.extend(infos.into_iter().filter_map(|info| match info {
            InfoIpTunnel::Local(ip) | InfoIpTunnel::Remote(ip) => Some(ip),
            _ => None,
        })),
        _ => {}
    }
}

fn kind_of(kind: InfoKind) -> LinkKind {
    match kind {
        InfoKind::Bridge => LinkKind::Bridge,
        InfoKind::Tun => LinkKind::Tun,
        InfoKind::Veth => LinkKind::Veth,
        other => LinkKind::Other(other.to_string()),
    }
}
