//! Decides by which way the frames for a peer travel.

mod path;

pub use path::{
    ANSWER_LANE, Path, RELAY_CONTROL_LANE, RELAY_FRAMES_LANE, RELAY_OVERHEAD, Slot, TRIAL_LANE, Via,
};
