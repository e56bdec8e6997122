//! Reads and writes checkpoint files: named tensors as bytes.
