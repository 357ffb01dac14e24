//! Hands out the numbers by which datagrams name what they belong to.

use std::collections::BTreeSet;

use crate::crypto::Crypto;
use crate::keys::SessionIndex;

/// The indices in use on this node, those of sessions and those of links: both arrive at one socket.
#[derive(Debug, Default)]
pub struct IndexAllocator {
    used: BTreeSet<SessionIndex>,
}

impl IndexAllocator {
    /// Draws one that nobody uses.
    pub fn allocate(&mut self, crypto: &mut dyn Crypto) -> SessionIndex {
        loop {
            let index = SessionIndex(u32::from_be_bytes(crypto.array()));
            if self.used.insert(index) {
                return index;
            }
        }
    }

    /// Takes one back.
    pub fn release(&mut self, index: SessionIndex) {
        self.used.remove(&index);
    }

    /// How many are in use.
    pub fn in_use(&self) -> usize {
        self.used.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::seeded::SeededCrypto;

    #[test]
    fn an_index_in_use_is_not_drawn_again() {
        let mut indices = IndexAllocator::default();

        let first = indices.allocate(&mut SeededCrypto::new(1));
        let second = indices.allocate(&mut SeededCrypto::new(1));

        assert_ne!(first, second);
        indices.release(first);
        assert_eq!(indices.allocate(&mut SeededCrypto::new(1)), first);
    }
}
