//! The bytes that strangers send: one file per format, each with its drawing. The normative text is `docs/wire.md`.

pub mod envelope;
pub mod ip;
pub mod preface;

use minicbor::{Decode, Decoder, Encode, decode};

/// Reads a value that must be all of `bytes`.
pub fn decode_whole<'b, T: Decode<'b, ()>>(bytes: &'b [u8]) -> Result<T, decode::Error> {
    let mut decoder = Decoder::new(bytes);
    let value = decoder.decode()?;
    if decoder.position() != bytes.len() {
        return Err(decode::Error::message("something follows the value"));
    }
    Ok(value)
}

/// Writes a value as deterministic CBOR (RFC 8949 §4.2.1).
pub fn encode<T: Encode<()>>(value: &T) -> Vec<u8> {
    minicbor::to_vec(value).expect("a vector takes every byte, and our encoders do not fail")
}
