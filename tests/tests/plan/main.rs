//! What evaluation promises: values, memory, copies, programs, errors.

mod attention;
mod custom;
mod errors;
mod graphs;
mod memory;
mod recipe;
mod size;
