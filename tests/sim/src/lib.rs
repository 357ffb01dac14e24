//! A virtual network for router cores: one clock, one seed.
