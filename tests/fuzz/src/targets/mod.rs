//! What is fuzzed: one function per target, each a claim about any bytes at all.
//!
//! Every target claims at least that nothing panics. A format that can be written claims that what was read is read
//! alike after it was written, and that it did not grow: memory is bounded by what was sent. Behind a seal the targets
//! hold the keys, so that the bytes stand for what a member, or the holder of a token, may send.

pub mod channel;
pub mod datapath;
pub mod link;
pub mod records;
pub mod world;

/// A target's name, which is that of its corpus, and its function.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const ALL: &[Target] = &[
    ("admission", records::admission),
    ("control_message", channel::control_message),
    ("dialler", channel::dialler),
    ("endpoints", records::endpoints),
    ("frames", channel::frames),
    ("genesis", records::genesis),
    ("gossip", records::gossip),
    ("handshake_payloads", channel::handshake_payloads),
    ("key_file", records::key_file),
    ("layers", datapath::layers),
    ("link", link::link),
    ("listener", channel::listener),
    ("membership", records::membership),
    ("preface", channel::preface),
    ("register", records::register),
    ("session_handshake", link::session_handshake),
    ("session_message", link::session_message),
    ("sleeve_datagram", datapath::sleeve_datagram),
    ("sleeve_fragment", datapath::sleeve_fragment),
    ("sleeve_train", datapath::sleeve_train),
    ("switch", datapath::switch),
    ("token", records::token),
    ("topology", records::topology),
    ("train_plan", datapath::train_plan),
    ("unicast", link::unicast),
];

/// Claims of a format that what is read once is read alike after it was written, and has not grown by it.
fn stable<T: PartialEq, E>(
    bytes: &[u8],
    decode: impl Fn(&[u8]) -> Result<T, E>,
    encode: impl Fn(&T) -> Vec<u8>,
) -> Option<T> {
    let value = decode(bytes).ok()?;
    let written = encode(&value);
    let again = decode(&written).ok();
    assert!(
        again.as_ref() == Some(&value),
        "read otherwise when written"
    );
    assert!(again.is_some_and(|again| encode(&again) == written));
    // A number that this release does not know may be kept as a longer one that it does.
    assert!(written.len() <= bytes.len() + 16, "grown by reading");
    Some(value)
}

/// Cuts an input into messages: a length of two bytes before each, as far as there is as much.
fn pieces(mut data: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, rest) = data.split_first_chunk()?;
        let length = usize::from(u16::from_be_bytes(*length)).min(rest.len());
        let (piece, rest) = rest.split_at(length);
        data = rest;
        Some(piece)
    })
}
