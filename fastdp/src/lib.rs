//! Keeps the kernel's tables equal to what the mesh asks for.
