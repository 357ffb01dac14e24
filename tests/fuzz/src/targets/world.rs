//! Who and what the targets and their seeds are about: always the same.

use std::sync::OnceLock;
use std::time::Instant;

use weft_router_proto::crypto::Secret32;
use weft_router_proto::crypto::noise::NoisePublic;
use weft_router_proto::crypto::seeded::SeededCrypto;
use weft_router_proto::handshake::Ourself;
use weft_router_proto::identity::NodeKeys;
use weft_router_proto::session::handshake::Local;
use weft_router_proto::wire::preface::{DoorKeyId, Repr};
use weft_types::{Boot, BootId, MeshId, Nickname, TokenId};

/// The mesh.
pub const MESH: MeshId = MeshId::new([5; 32]);
/// How a member asks to be let in.
pub const MEMBER: Repr = Repr::Member(DoorKeyId::new([7; 16]));
/// How a joiner does.
pub const JOINER: Repr = Repr::Token(TokenId::new([9; 16]));

/// The two nodes that every target is about, made once: to expand a key costs as much as many an input.
fn pair() -> &'static [(NodeKeys, NoisePublic); 2] {
    static PAIR: OnceLock<[(NodeKeys, NoisePublic); 2]> = OnceLock::new();
    PAIR.get_or_init(|| {
        [0, 1].map(|number| {
            let keys = generate(number);
            let public = keys.noise().public();
            (keys, public)
        })
    })
}

fn generate(number: u64) -> NodeKeys {
    NodeKeys::generate(&mut SeededCrypto::new(number))
}

/// The keys of the mesh's nodes, by number.
pub fn keys(number: u64) -> NodeKeys {
    match number {
        0 => pair()[0].0.clone(),
        1 => pair()[1].0.clone(),
        _ => generate(number),
    }
}

/// The public half of a node's Noise key: of the first two.
pub fn public(number: usize) -> NoisePublic {
    pair()[number].1
}

/// The secret behind both doors.
pub fn secret() -> Secret32 {
    Secret32::new([1; 32])
}

/// A node's run.
pub const fn boot(counter: u64) -> Boot {
    Boot {
        counter,
        id: BootId::new([1; 8]),
    }
}

/// What a node says of itself.
pub fn ourself(number: u64) -> Ourself {
    Ourself {
        keys: keys(number),
        mesh: MESH,
        boot: boot(number),
        nickname: Nickname::new("somebody").expect("letters are a nickname"),
        features: vec!["aes".to_owned()],
        port: 6783,
        wanted: None,
        genesis: Some(b"signed genesis".to_vec()),
    }
}

/// A node as sessions and letters know it.
pub fn local(number: u64) -> Local {
    let keys = keys(number);
    Local {
        node: keys.node(),
        key: keys.noise().clone(),
        mesh: MESH,
        boot: boot(number),
    }
}

/// Any instant: what follows is told relative to it.
pub fn origin() -> Instant {
    Instant::now()
}
