//! Turns a forwarding snapshot into kernel tables, and the difference of two into a patch. No I/O.
