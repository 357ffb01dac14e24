//! The weft command and daemon.

fn main() {}
