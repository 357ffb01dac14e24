//! Tells what crosses the underlay.

use std::collections::BTreeSet;

use weft_api::wire::WireStatus;
use weft_router_proto::session::Cipher;
use weft_router_proto::status::RouterStatus;

pub(super) fn assemble(core: &RouterStatus) -> WireStatus {
    let now: BTreeSet<Cipher> = core.peers.iter().filter_map(|peer| peer.cipher).collect();
    let told = if now.is_empty() { &core.ciphers } else { &now };
    let names: Vec<&str> = told.iter().copied().map(name).collect();
    let cipher = if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(",")
    };
    WireStatus {
        cipher,
        sessions: core
            .peers
            .iter()
            .filter(|peer| peer.cipher.is_some())
            .count(),
        counters: core.counters,
    }
}

const fn name(cipher: Cipher) -> &'static str {
    match cipher {
        Cipher::Aes256Gcm => "aes-256-gcm",
        Cipher::ChaCha20Poly1305 => "chacha20-poly1305",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_sealed_is_told_when_nothing_is_sent_any_more() {
        let mut core = crate::status::tests::alone();

        let before = assemble(&core);
        core.ciphers.insert(Cipher::ChaCha20Poly1305);
        let idle = assemble(&core);

        assert_eq!((before.cipher.as_str(), before.sessions), ("none", 0));
        assert_eq!(
            (idle.cipher.as_str(), idle.sessions),
            ("chacha20-poly1305", 0)
        );
    }
}
