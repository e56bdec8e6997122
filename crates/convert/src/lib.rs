//! Turns a checkpoint into a directory in the MLX layout.
