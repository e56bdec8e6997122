//! What evaluation promises: values, memory, copies, programs, errors.

mod attention;
mod errors;
mod graphs;
mod memory;
mod recipe;
mod size;
