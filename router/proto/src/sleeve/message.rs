//! Carries what is no frame: messages between the two control planes, and probes that the workers answer.
//!
//! ```text
//!   Message (3)            body: the message, opaque here
//!   Probe (4), reply (5)   body: id (8) ‖ padding to a record of the probed frame size
//! ```
//!
//! A probe of size n weighs exactly what a frame of n bytes weighs, and is split and rejoined exactly when that frame
//! would be, so that its answer proves that such frames pass in both directions.

use super::Malformed;
use super::bundle;

/// The longest message.
pub const MAX_MESSAGE: usize = 1200;

/// How long a probe's number is.
const ID: usize = 8;

/// The body of a probe that weighs as much as a frame of `frame` bytes.
pub fn probe(id: u64, frame: u16) -> Vec<u8> {
    let mut body = vec![0; (bundle::RECORD + usize::from(frame)).max(ID)];
    body[..ID].copy_from_slice(&id.to_be_bytes());
    body
}

/// Reads a probe's, or a reply's, number. The reply has the very same body.
pub fn probe_id(body: &[u8]) -> Result<u64, Malformed> {
    let (id, _) = body.split_first_chunk::<ID>().ok_or(Malformed::Truncated)?;
    Ok(u64::from_be_bytes(*id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_weighs_what_its_frame_weighs() {
        let body = probe(0x0102, 1364);

        assert_eq!(body.len(), bundle::RECORD + 1364);
        assert_eq!(probe_id(&body), Ok(0x0102));
        assert!((0..ID).all(|len| probe_id(&body[..len]).is_err()));
        assert_eq!(probe_id(&probe(7, 0)), Ok(7));
    }
}
