//! Tells what crosses the underlay.

use std::collections::BTreeSet;

use weft_api::wire::WireStatus;
use weft_router_proto::session::Cipher;
use weft_router_proto::status::RouterStatus;

pub(super) fn assemble(core: &RouterStatus) -> WireStatus {
    let ciphers: BTreeSet<&str> = core
        .peers
        .iter()
        .filter_map(|peer| peer.cipher)
        .map(name)
        .collect();
    let cipher = if ciphers.is_empty() {
        "none".to_owned()
    } else {
        ciphers.into_iter().collect::<Vec<_>>().join(",")
    };
    WireStatus {
        cipher,
        counters: core.counters,
    }
}

const fn name(cipher: Cipher) -> &'static str {
    match cipher {
        Cipher::Aes256Gcm => "aes-256-gcm",
        Cipher::ChaCha20Poly1305 => "chacha20-poly1305",
    }
}
