//! Works out from the logs who belongs and may do what.
//!
//! The creator is admin. A record counts if its signer belongs with the role for it, and comes before the signer's
//! Leave and within what a Revoke leaves of its log. What counts is a least fixpoint over all logs: it depends on which
//! records there are, not on the order in which they came.

use std::collections::BTreeMap;
use std::time::Duration;

use ipnet::IpNet;
use weft_types::{Nickname, NodeId, TokenId};

use super::log::Log;
use super::record::{Admit, Record, Role};
use super::revoke;
use crate::crypto::noise::NoisePublic;

/// Somebody who belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Who.
    pub node: NodeId,
    /// The key it does Noise with.
    pub noise_key: NoisePublic,
    /// What people call it.
    pub nickname: Nickname,
    /// The mesh addresses that it was admitted with.
    pub addresses: Vec<IpNet>,
    /// What it may do.
    pub role: Role,
    /// Who admitted it: for the creator, itself.
    pub admitted_by: NodeId,
    /// What it came with.
    pub token: Option<TokenId>,
}

/// Why somebody belongs no more. Final for that identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Gone {
    /// By its own word.
    Left,
    /// By an admin's.
    Revoked,
}

/// Whether somebody belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It did.
    Gone(Gone),
    /// It does.
    Member,
    /// Nobody whose word counts has admitted it, as far as is known here.
    Unknown,
}

/// A token, as far as the logs tell. Single-use tokens stay with their issuer and are not in the logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenView {
    /// Who made it.
    pub issuer: NodeId,
    /// Admits more than one node.
    pub reusable: bool,
    /// How long it lives, from when its secret was received.
    pub ttl: Duration,
    /// Admits nobody any more, for good.
    pub voided: bool,
}

/// What all logs together say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct View {
    pub(super) members: BTreeMap<NodeId, Member>,
    pub(super) gone: BTreeMap<NodeId, Gone>,
    pub(super) tokens: BTreeMap<TokenId, TokenView>,
}

impl View {
    pub(super) fn evaluate(creator: NodeId, logs: &BTreeMap<NodeId, Log>) -> Self {
        let limits = revoke::limits(creator, logs);
        let counting = Counting {
            logs,
            limits: &limits,
        };
        let roles = counting.roles(creator);

        let mut view = Self {
            members: BTreeMap::new(),
            gone: limits
                .keys()
                .map(|&victim| (victim, Gone::Revoked))
                .collect(),
            tokens: counting.tokens(&roles),
        };
        for &signer in roles.keys() {
            if counting
                .records(signer)
                .any(|record| *record == Record::Leave)
            {
                view.gone.entry(signer).or_insert(Gone::Left);
            }
        }
        for (signer, admit) in counting.admissions(&roles) {
            if view.gone.contains_key(&admit.node) {
                continue;
            }
            // Another's word about the creator is worth nothing, and so is anybody else's about itself.
            if (admit.node == creator || admit.node == signer) && signer != creator {
                continue;
            }
            let known = view
                .members
                .get(&admit.node)
                .map(|member| member.admitted_by);
            if known.is_some_and(|known| known != signer && !outranks(signer, known, creator)) {
                continue;
            }
            view.members
                .insert(admit.node, member(signer, admit, roles[&admit.node]));
        }
        view
    }
}

/// Whose details about a member stand, where several admitted it: the creator's, else those of the least id.
fn outranks(signer: NodeId, other: NodeId, creator: NodeId) -> bool {
    other != creator && (signer == creator || signer < other)
}

fn member(signer: NodeId, admit: &Admit, role: Role) -> Member {
    Member {
        node: admit.node,
        noise_key: admit.noise_key,
        nickname: admit.nickname.clone(),
        addresses: admit.addresses.clone(),
        role,
        admitted_by: signer,
        token: admit.token,
    }
}

struct Counting<'a> {
    logs: &'a BTreeMap<NodeId, Log>,
    limits: &'a BTreeMap<NodeId, u64>,
}

impl<'a> Counting<'a> {
    /// What one signer said, up to what is left of its log and to its Leave, that included.
    fn records(&self, signer: NodeId) -> impl Iterator<Item = &'a Record> + use<'a> {
        let limit = self.limits.get(&signer).copied().unwrap_or(u64::MAX);
        let mut left = false;
        self.logs
            .get(&signer)
            .into_iter()
            .flat_map(Log::records)
            .take_while(move |(number, _)| *number <= limit)
            .map(|(_, record)| record)
            .take_while(move |record| {
                let counts = !left;
                left |= **record == Record::Leave;
                counts
            })
    }

    /// Everybody whose word counts and how much: the least fixpoint over admissions. Role records are kept in the
    /// logs and not evaluated.
    fn roles(&self, creator: NodeId) -> BTreeMap<NodeId, Role> {
        let mut roles = BTreeMap::from([(creator, Role::Admin)]);
        let mut unread = vec![creator];
        while let Some(signer) = unread.pop() {
            let own = roles[&signer];
            for admit in self.admissions_by(signer, own) {
                let role = roles.get(&admit.node);
                if role.is_none_or(|&role| role < admit.role) {
                    roles.insert(admit.node, admit.role);
                    unread.push(admit.node);
                }
            }
        }
        roles
    }

    /// Whom one signer may admit and did: nobody gives a role above their own.
    fn admissions_by(
        &self,
        signer: NodeId,
        own: Role,
    ) -> impl Iterator<Item = &'a Admit> + use<'a> {
        self.records(signer).filter_map(move |record| match record {
            Record::Admit(admit) if own >= Role::Introducer && admit.role <= own => Some(admit),
            Record::Admit(_)
            | Record::Leave
            | Record::Revoke(_)
            | Record::Role(_)
            | Record::Token(_)
            | Record::Unknown { .. }
            | Record::Void(_) => None,
        })
    }

    fn admissions(
        &self,
        roles: &'a BTreeMap<NodeId, Role>,
    ) -> impl Iterator<Item = (NodeId, &'a Admit)> {
        roles.iter().flat_map(|(&signer, &own)| {
            self.admissions_by(signer, own)
                .map(move |admit| (signer, admit))
        })
    }

    /// Every token that an introducer made. It is void by its issuer's word or an admin's. Where several made one of
    /// the same id, which only a liar does, a live one stands before a void one: nobody voids another's by copying its id.
    fn tokens(&self, roles: &BTreeMap<NodeId, Role>) -> BTreeMap<TokenId, TokenView> {
        let mut voids: BTreeMap<TokenId, Vec<(NodeId, Role)>> = BTreeMap::new();
        let mut grants = Vec::new();
        for (&signer, &role) in roles.iter().filter(|(_, role)| **role >= Role::Introducer) {
            for record in self.records(signer) {
                match record {
                    Record::Token(grant) => grants.push((signer, grant)),
                    Record::Void(id) => voids.entry(*id).or_default().push((signer, role)),
                    Record::Admit(_)
                    | Record::Leave
                    | Record::Revoke(_)
                    | Record::Role(_)
                    | Record::Unknown { .. } => {}
                }
            }
        }

        let mut tokens: BTreeMap<TokenId, TokenView> = BTreeMap::new();
        for (issuer, grant) in grants {
            let voided = voids.get(&grant.id).is_some_and(|by| {
                by.iter()
                    .any(|&(signer, role)| signer == issuer || role == Role::Admin)
            });
            let view = TokenView {
                issuer,
                reusable: grant.reusable,
                ttl: grant.ttl,
                voided,
            };
            let stands = tokens
                .get(&grant.id)
                .is_none_or(|other| other.voided && !voided);
            if stands {
                tokens.insert(grant.id, view);
            }
        }
        tokens
    }
}
