//! Network-namespace hosts: links, shaper, capture, traffic. Cleans up on drop.
