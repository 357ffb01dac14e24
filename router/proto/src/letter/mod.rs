//! What members ask and tell each other in private: a sealed letter is read by its recipient alone.
//!
//! ```text
//!   sealed body of a unicast = Noise X message of { 0: boot, 1: counter, 2: kind, 3: letter }       CBOR map
//!   letter                   = a CBOR map of its kind
//! ```
//!
//! [`Letter`] is what they say; [`Mail`] seals letters and opens them.

mod letters;
mod mail;

pub use letters::{
    AddressReply, AddressRequest, CloneSeen, Letter, OpenError, WayReply, WayRequest,
};
pub use mail::{Mail, WINDOW};
